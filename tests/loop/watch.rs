//! Descriptors and timers of other parts of a program in the loop: watches and timers of callers (SP-36).

use crate::loop_kit;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Config, DescriptorError, Id, Interest, Kind as IdKind, Loop, VerbError};

/// A log of what callbacks were told.
type Log<T> = Rc<RefCell<Vec<T>>>;

fn stream_pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

/// Returns the verb's error, if it is one.
fn verb<T>(result: Result<T, DescriptorError>) -> Option<VerbError> {
    match result {
        Err(DescriptorError::Verb(error)) => Some(error),
        _ => None,
    }
}

#[test]
fn a_watch_reports_readiness_in_each_turn_until_the_descriptor_is_read_empty() {
    let mut rig = Rig::new(config());
    let (mut near, mut far) = stream_pair();
    let seen = Rc::new(Cell::new(0));
    let count = Rc::clone(&seen);
    let reader = near.try_clone().unwrap();
    let id = rig.core().watch(reader.as_fd(), Interest::Readable, move |_, _, ready| {
        assert!(ready.readable && !ready.writable && !ready.closed && !ready.error);
        count.set(count.get() + 1);
    });
    let id = id.unwrap();
    assert_eq!(id.kind(), IdKind::Watch);
    rig.turns(3);
    assert_eq!(seen.get(), 0, "nothing has been sent");
    far.write_all(b"two").unwrap();
    rig.until("the callback runs again and again", |_| seen.get() >= 3);
    assert_eq!(near.read(&mut [0; 8]).unwrap(), 3);
    rig.turns(2);
    let before = seen.get();
    rig.turns(3);
    assert_eq!(seen.get(), before, "nothing is left to read");
    rig.core().unwatch(id).unwrap();
    far.write_all(b"more").unwrap();
    rig.turns(3);
    assert_eq!(seen.get(), before, "the watch has ended");
    assert_eq!(rig.core().unwatch(id), Err(VerbError::Stale));
    assert_eq!(verb(rig.core().modify_watch(id, Interest::Both)), Some(VerbError::Stale));
}

#[test]
fn the_interest_of_a_watch_can_change_also_in_its_callback() {
    let mut rig = Rig::new(config());
    let (near, mut far) = stream_pair();
    let told: Log<(bool, bool, bool)> = Log::default();
    let log = Rc::clone(&told);
    let id = rig.core().watch(near.as_fd(), Interest::Writable, move |core, id, ready| {
        log.borrow_mut().push((ready.readable, ready.writable, ready.closed));
        if ready.writable {
            core.modify_watch(id, Interest::Readable).unwrap();
        } else {
            core.unwatch(id).unwrap();
        }
    });
    rig.until("there is room to write", |_| told.borrow().len() == 1);
    rig.turns(3);
    assert_eq!(*told.borrow(), [(false, true, false)], "the input is silent");
    far.write_all(b"x").unwrap();
    rig.until("there is something to read", |_| told.borrow().len() == 2);
    rig.turns(3);
    assert_eq!(*told.borrow(), [(false, true, false), (true, false, false)]);
    assert_eq!(rig.core().unwatch(id.unwrap()), Err(VerbError::Stale), "the callback has ended the watch");
    let told: Log<bool> = Log::default();
    let log = Rc::clone(&told);
    rig.core()
        .watch(near.as_fd(), Interest::Readable, move |core, id, ready| {
            log.borrow_mut().push(ready.closed);
            if ready.closed {
                core.unwatch(id).unwrap();
            }
        })
        .unwrap();
    drop(far);
    rig.until("the end is reported", |_| told.borrow().contains(&true));
}

#[test]
fn a_duplicate_a_full_table_and_ids_of_other_kinds_are_told_apart() {
    let mut config = config();
    (config.limits.watches, config.limits.timers) = (2, 2);
    let mut rig = Rig::new(config);
    let (pairs, mut core) = ([stream_pair(), stream_pair(), stream_pair()], rig.core());
    let watch = |core: &mut Loop<'_>, at: usize| core.watch(pairs[at].0.as_fd(), Interest::Readable, |_, _, _| {});
    let first = watch(&mut core, 0).unwrap();
    assert_eq!(verb(watch(&mut core, 0)), Some(VerbError::Already));
    let second = watch(&mut core, 1).unwrap();
    assert_ne!(first, second);
    assert_eq!(verb(watch(&mut core, 2)), Some(VerbError::Full));
    core.unwatch(first).unwrap();
    let third = watch(&mut core, 2).unwrap();
    assert_ne!(first, third, "a reused slot has another id");
    let file = File::open("/proc/self/exe").unwrap();
    core.unwatch(third).unwrap();
    let regular = core.watch(file.as_fd(), Interest::Readable, |_, _, _| {});
    assert!(matches!(regular, Err(DescriptorError::Unsuitable(_))), "{regular:?}");

    let hour = Duration::from_secs(3600);
    let timer = core.after(hour, |_| {}).unwrap();
    assert_eq!(timer.kind(), IdKind::Timer);
    core.after(hour, |_| {}).unwrap();
    assert_eq!(core.after(hour, |_| {}), Err(VerbError::Full));
    assert_eq!((core.cancel(second), core.unwatch(timer)), (Err(VerbError::Invalid), Err(VerbError::Invalid)));
    assert_eq!(verb(core.modify_watch(timer, Interest::Both)), Some(VerbError::Invalid));
    assert_eq!((core.cancel(timer), core.cancel(timer)), (Ok(()), Err(VerbError::Stale)));
    assert!(core.after(hour, |_| {}).is_ok());
}

#[test]
fn a_panic_in_a_callback_ends_its_watch_and_the_loop_goes_on() {
    let mut rig = Rig::new(config());
    let ((near, mut far), ran) = (stream_pair(), Rc::new(Cell::new(false)));
    let id = rig.core().watch(near.as_fd(), Interest::Readable, |_, _, _| panic!("(this message belongs to the test)"));
    far.write_all(b"x").unwrap();
    rig.until("the panic is counted", |proxy| proxy.core().snapshot().stats.panics == 1);
    assert_eq!(rig.core().unwatch(id.unwrap()), Err(VerbError::Stale));
    rig.core().after(Duration::ZERO, |_| panic!("(this message belongs to the test)")).unwrap();
    let told = Rc::clone(&ran);
    rig.core().after(Duration::from_millis(2), move |_| told.set(true)).unwrap();
    rig.until("the second timer runs", |_| ran.get());
    assert_eq!(rig.stats().panics, 2);
    let again = Rc::new(Cell::new(false));
    let told = Rc::clone(&again);
    rig.core().watch(near.as_fd(), Interest::Readable, move |_, _, _| told.set(true)).unwrap();
    rig.until("the descriptor can be watched again", |_| again.get());
}

/// A callback may use the loop: it opens a connection, ends another watch that is about to be called, and its own.
#[test]
fn callbacks_use_the_loop_and_end_watches_that_are_due() {
    let mut rig = Rig::new(config());
    let (pairs, calls) = ([stream_pair(), stream_pair()], Rc::new(Cell::new(0)));
    let ids: Rc<RefCell<Vec<Id>>> = Rc::default();
    for (near, _) in &pairs {
        let (all, calls) = (Rc::clone(&ids), Rc::clone(&calls));
        let id = rig.core().watch(near.as_fd(), Interest::Readable, move |core, _, _| {
            calls.set(calls.get() + 1);
            all.borrow().iter().for_each(|id| core.unwatch(*id).unwrap());
            core.adopt(pair(Kind::Unix).1, "test", handler(|_, _| 0)).unwrap();
        });
        ids.borrow_mut().push(id.unwrap());
    }
    for (_, far) in &pairs {
        (&*far).write_all(b"x").unwrap();
    }
    rig.until("one of them runs", |_| calls.get() == 1);
    rig.turns(3);
    assert_eq!(calls.get(), 1, "the other watch was ended before its turn");
    assert_eq!(rig.snapshot().stats.opened, 1);
}

/// The number of a watched descriptor that its owner closed is taken by a socket of the loop, which must keep its events.
#[test]
fn a_watch_of_a_closed_descriptor_does_not_touch_the_socket_that_took_its_number() {
    with_own_descriptors(|| {
        let mut rig = Rig::new(config());
        let (near, far) = stream_pair();
        let number = std::os::fd::AsRawFd::as_raw_fd(&near);
        let id = rig.core().watch(near.as_fd(), Interest::Readable, |_, _, _| {}).unwrap();
        drop((near, far));
        let (mut peer, ours) = loop {
            let (near, far) = UnixStream::pair().unwrap();
            match [&near, &far].map(|end| std::os::fd::AsRawFd::as_raw_fd(end) == number) {
                [true, _] => break (far, near),
                [_, true] => break (near, far),
                _ => std::mem::forget((near, far)),
            }
        };
        let heard = Heard::default();
        let notes = heard.clone();
        let echo = handler(move |cx, call| {
            notes.note(cx.role(), &call);
            if let Call::Readable(input) = call { input.len() } else { 0 }
        });
        rig.core().adopt(ours, "test", echo).unwrap();
        rig.turn();
        rig.core().unwatch(id).unwrap();
        peer.write_all(b"hello").unwrap();
        rig.until("the socket has its events", |_| heard.has("source readable hello"));
    });
}

#[test]
fn a_descriptor_that_reuses_a_closed_number_can_be_watched_at_once() {
    with_own_descriptors(|| {
        let mut rig = Rig::new(config());
        let (near, far) = stream_pair();
        let number = std::os::fd::AsRawFd::as_raw_fd(&near);
        let old = rig.core().watch(near.as_fd(), Interest::Readable, |_, _, _| {}).unwrap();
        drop(near);
        let (again, _other) = stream_pair();
        assert_eq!(std::os::fd::AsRawFd::as_raw_fd(&again), number, "the system gives the lowest free number");
        let new = rig.core().watch(again.as_fd(), Interest::Readable, |_, _, _| {}).unwrap();
        assert_eq!(rig.core().unwatch(old), Err(VerbError::Stale));
        rig.core().unwatch(new).unwrap();
        drop(far);
    });
}

#[test]
fn the_callbacks_of_one_turn_are_bounded_and_all_get_their_turn() {
    let config = Config { limits: seaprox::Limits { callbacks_per_turn: 4, ..config().limits }, ..config() };
    let mut rig = Rig::new(config);
    let calls: Rc<RefCell<[usize; 10]>> = Rc::default();
    let pairs: Vec<_> = (0..10).map(|_| stream_pair()).collect();
    for (at, (near, far)) in pairs.iter().enumerate() {
        let calls = Rc::clone(&calls);
        (&*far).write_all(b"x").unwrap();
        rig.core().watch(near.as_fd(), Interest::Readable, move |_, _, _| calls.borrow_mut()[at] += 1).unwrap();
    }
    for turn in 1..=30 {
        rig.turn();
        assert!(calls.borrow().iter().sum::<usize>() <= 4 * turn);
    }
    let calls = calls.borrow();
    assert!(calls.iter().all(|count| *count >= 10), "{calls:?}");
    let fired = Rc::new(Cell::new(0));
    for _ in 0..10 {
        let fired = Rc::clone(&fired);
        rig.core().after(Duration::ZERO, move |_| fired.set(fired.get() + 1)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(2));
    for turn in 1..=3 {
        rig.turn();
        assert!(fired.get() <= 4 * turn);
    }
    rig.until("all timers run", |_| fired.get() == 10);
}

#[test]
fn timers_run_once_in_order_and_never_early() {
    let mut rig = Rig::new(config());
    let fired: Log<(u64, Duration)> = Log::default();
    let start = Instant::now();
    for ms in [300, 50, 200, 0, 100] {
        let log = Rc::clone(&fired);
        let note = move |_: &mut Loop<'_>| log.borrow_mut().push((ms, start.elapsed()));
        rig.core().after(Duration::from_millis(ms), note).unwrap();
    }
    let late = rig.core().after(Duration::from_millis(250), |_| panic!("the timer was cancelled")).unwrap();
    let log = Rc::clone(&fired);
    let cancels = move |core: &mut Loop<'_>| {
        core.cancel(late).unwrap();
        // A timer that starts another one.
        core.after(Duration::from_millis(1), move |_| log.borrow_mut().push((99, start.elapsed()))).unwrap();
    };
    rig.core().after(Duration::from_millis(150), cancels).unwrap();
    rig.until("all have run", |_| fired.borrow().len() == 6);
    let fired = fired.borrow();
    let order: Vec<u64> = fired.iter().map(|(ms, _)| *ms).filter(|ms| *ms != 99).collect();
    assert_eq!(order, [0, 50, 100, 200, 300]);
    assert!(fired.iter().all(|(ms, at)| *ms == 99 || at.as_millis() as u64 >= *ms), "{fired:?}");
    assert_eq!(rig.stats().panics, 0);
}

#[test]
fn a_loop_without_other_work_sleeps_until_the_next_timer() {
    let mut rig = Rig::new(config());
    let fired = Rc::new(Cell::new(false));
    let told = Rc::clone(&fired);
    rig.core().after(Duration::from_millis(50), move |_| told.set(true)).unwrap();
    let (start, mut turns) = (Instant::now(), 0);
    while !fired.get() {
        rig.proxy.turn(Some(PATIENCE)).unwrap();
        turns += 1;
        assert!(turns < 10, "the loop does not spin");
    }
    assert!(start.elapsed() >= Duration::from_millis(50));
}
