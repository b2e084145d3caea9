//! A loop as a part of a program: turned by another loop, asked and ended by other threads (SP-35).

use crate::loop_kit;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use loop_kit::ends::{Shape, ends};
use loop_kit::*;
use mio::unix::SourceFd;
use mio::{Events, Interest as MioInterest, Poll, Token};
use seaprox::{Full, Proxy, Unanswered};

/// The loop of another part of the program, with the loop under test and a socket of its own inside.
struct Outer {
    poll: Poll,
    events: Events,
}

const INNER: Token = Token(0);
const OWN: Token = Token(1);

impl Outer {
    fn new(proxy: &Proxy) -> Outer {
        let poll = Poll::new().unwrap();
        let fd = proxy.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), INNER, MioInterest::READABLE).unwrap();
        Outer { poll, events: Events::with_capacity(16) }
    }

    /// Waits for events, as long as the inner loop permits, and turns the inner loop. Returns true if the own socket has an
    /// event.
    fn turn(&mut self, proxy: &mut Proxy) -> bool {
        let timeout = proxy.next_timeout().unwrap_or(PATIENCE).min(PATIENCE);
        self.poll.poll(&mut self.events, Some(timeout)).unwrap();
        assert!(proxy.turn(Some(Duration::ZERO)).unwrap(), "the loop goes on");
        self.events.iter().any(|event| event.token() == OWN)
    }
}

#[test]
fn another_loop_drives_traffic_and_timers() {
    let mut rig = Rig::new(config());
    let proxy = &mut rig.proxy;
    let mut outer = Outer::new(proxy);
    let (mut own, mut far_own) = UnixStream::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    outer.poll.registry().register(&mut SourceFd(&own.as_raw_fd()), OWN, MioInterest::READABLE).unwrap();
    let ((mut client, near), (mut server, far)) = (ends(Shape::Tcp), ends(Shape::SocketPair));
    let mut far = Some(far);
    let relay = handler(move |cx, call| {
        if matches!(call, Call::Opened) {
            cx.connect_with(far.take().unwrap()).unwrap();
        }
        by_default(cx, &call)
    });
    proxy.core().adopt(near, "test", relay).unwrap();
    let ticks = Rc::new(Cell::new(0));
    let tick = Rc::clone(&ticks);
    fn again(core: &mut seaprox::Loop<'_>, ticks: Rc<Cell<u32>>) {
        ticks.set(ticks.get() + 1);
        let wait = Duration::from_millis(3);
        core.after(wait, move |core| again(core, ticks)).unwrap();
    }
    proxy.core().after(Duration::from_millis(3), move |core| again(core, tick)).unwrap();
    // The peers are threads that block, so the loops have no other reason to run than events and timers.
    let data = pattern(3_000_000);
    let (sent, back) = (data.clone(), data.clone());
    let peers = thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        let (mut at, mut got) = (0, Vec::new());
        while got.len() < sent.len() {
            assert!(Instant::now() < deadline, "{} bytes arrive", got.len());
            if at < sent.len() {
                at += client.try_send(&sent[at..]);
            }
            server.try_receive(&mut got);
        }
        far_own.write_all(b"done").unwrap();
        (client, server, got)
    });
    let deadline = Instant::now() + PATIENCE;
    while !outer.turn(proxy) {
        assert!(Instant::now() < deadline, "the own socket is told");
    }
    let (_client, _server, got) = peers.join().unwrap();
    assert!(got == back);
    assert_eq!(own.read(&mut [0; 8]).unwrap(), 4);
    let before = ticks.get();
    while ticks.get() < before + 5 {
        assert!(Instant::now() < deadline, "the timer runs on");
        outer.turn(proxy);
    }
}

/// With one event a turn, the events that are left must not wait for another one.
#[test]
fn a_turn_that_took_all_it_may_is_due_again_at_once() {
    let mut config = config();
    config.limits.events_per_turn = 1;
    let mut rig = Rig::new(config);
    let mut outer = Outer::new(&rig.proxy);
    let heard: Rc<RefCell<Vec<u8>>> = Rc::default();
    let mut clients: Vec<Peer> = (0..20)
        .map(|_| {
            let log = Rc::clone(&heard);
            let note = move |call: Call<'_>| match call {
                Call::Readable(input) => {
                    log.borrow_mut().extend(input);
                    input.len()
                }
                _ => 0,
            };
            rig.adopt(Kind::Unix, handler(move |_, call| note(call))).1
        })
        .collect();
    while rig.proxy.next_timeout() == Some(Duration::ZERO) {
        outer.turn(&mut rig.proxy);
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.try_send(b"x"), 1));
    let start = Instant::now();
    while heard.borrow().len() < 20 {
        outer.turn(&mut rig.proxy);
        assert!(start.elapsed() < PATIENCE / 2, "a poll of the outer loop has slept: {}", heard.borrow().len());
    }
}

#[test]
fn the_next_timeout_is_zero_while_there_is_work_and_none_without_a_deadline() {
    let mut rig = Rig::new(config());
    rig.turns(2);
    assert_eq!(rig.proxy.next_timeout(), None);
    let timer = rig.core().after(Duration::from_secs(5), |_| {}).unwrap();
    let wait = rig.proxy.next_timeout().unwrap();
    assert!(Duration::from_secs(4) < wait && wait <= Duration::from_millis(5002), "{wait:?}");
    rig.core().cancel(timer).unwrap();
    assert_eq!(rig.proxy.next_timeout(), None);
    let (_client, ours) = pair(Kind::Unix);
    rig.core().adopt(ours, "test", handler(|_, _| 0)).unwrap();
    assert_eq!(rig.proxy.next_timeout(), Some(Duration::ZERO), "the handler waits for its first call");
}

#[test]
fn a_result_of_a_call_is_waited_for_or_tried() {
    let rig = Rig::new(config());
    let (remote, mut proxy) = (rig.proxy.remote(), rig.proxy);
    let pending = remote.ask(|core| core.snapshot().usage.connections + 7).unwrap();
    assert_eq!(pending.try_take(), Ok(None));
    assert_eq!(pending.wait_for(Duration::from_millis(1)), Ok(None));
    proxy.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(pending.try_take(), Ok(Some(7)));
    assert_eq!(pending.try_take(), Err(Unanswered), "it was taken");
    let asker = thread::spawn(move || remote.ask(|core| core.is_draining()).unwrap().wait());
    let deadline = Instant::now() + PATIENCE;
    while !asker.is_finished() {
        assert!(Instant::now() < deadline);
        proxy.turn(Some(Duration::from_millis(1))).unwrap();
    }
    assert_eq!(asker.join().unwrap(), Ok(false));
}

#[test]
fn a_call_that_panics_gives_no_result_and_the_loop_goes_on() {
    let mut rig = Rig::new(config());
    let remote = rig.proxy.remote();
    let panics = remote.ask(|_| -> u32 { panic!("(this message belongs to the test)") }).unwrap();
    let next = remote.ask(|_| 2).unwrap();
    rig.turn();
    assert_eq!((panics.wait(), next.wait()), (Err(Unanswered), Ok(2)));
    assert_eq!(rig.stats().panics, 1);
}

#[test]
fn a_loop_that_has_ended_answers_an_error_instead_of_nothing() {
    for is_dropped in [true, false] {
        let mut config = config();
        config.limits.mails_per_turn = 1;
        let mut proxy = Proxy::new(config, None).unwrap();
        let remote = proxy.remote();
        remote.call(|core| core.stop()).unwrap();
        // The turn that stops the loop has taken this call, and has no time for it.
        let taken = remote.ask(|_| ()).unwrap();
        let waits = if is_dropped { Some(remote.ask(|_| ()).unwrap()) } else { None };
        if is_dropped {
            drop(proxy);
        } else {
            assert!(!proxy.turn(Some(Duration::ZERO)).unwrap());
        }
        assert_eq!(taken.wait_for(PATIENCE), Err(Unanswered));
        assert_eq!(waits.map_or(Err(Unanswered), |waits| waits.wait_for(PATIENCE)), Err(Unanswered));
        assert_eq!(remote.ask(|_| ()).unwrap().wait_for(PATIENCE), Err(Unanswered), "a later call");
        remote.finish(Duration::ZERO);
        remote.wake();
    }
}

#[test]
fn a_full_mailbox_refuses_a_question_and_takes_an_order_to_finish() {
    let mut config = config();
    config.limits.calls = 1;
    let mut rig = Rig::new(config);
    let remote = rig.proxy.remote();
    let first = remote.ask(|_| 1).unwrap();
    assert_eq!(remote.ask(|_| 2).map(|_| ()), Err(Full));
    remote.finish(Duration::ZERO);
    assert!(!rig.proxy.turn(None).unwrap(), "the loop has ended");
    assert_eq!(first.wait(), Ok(1));
}

/// Runs a loop in a thread, with one connection. Returns its handle, the client, and the result of the run.
fn running() -> (seaprox::Remote, Peer, thread::JoinHandle<std::io::Result<()>>) {
    let (client, ours) = pair(Kind::Unix);
    let (tell, told) = mpsc::channel();
    let run = thread::spawn(move || {
        let mut proxy = Proxy::new(config(), None)?;
        tell.send(proxy.remote()).unwrap();
        proxy.core().adopt(ours, "test", handler(|cx, call| by_default(cx, &call))).unwrap();
        proxy.run()
    });
    (told.recv().unwrap(), client, run)
}

#[test]
fn another_thread_finishes_a_loop_at_once_or_when_its_connections_are_over() {
    let (remote, _client, run) = running();
    remote.finish(Duration::ZERO);
    run.join().unwrap().unwrap();

    let (remote, client, run) = running();
    remote.finish(Duration::from_secs(3600));
    let connections = remote.ask(|core| (core.is_draining(), core.snapshot().usage.connections)).unwrap().wait();
    assert_eq!(connections, Ok((true, 1)), "the loop waits for its connection");
    drop(client);
    run.join().unwrap().unwrap();

    let (remote, _client, run) = running();
    remote.finish(Duration::from_secs(3600));
    remote.finish(Duration::ZERO);
    run.join().unwrap().unwrap();
}

#[test]
fn a_wake_ends_the_wait_of_a_turn() {
    let mut rig = Rig::new(config());
    let remote = rig.proxy.remote();
    rig.turns(2);
    let start = Instant::now();
    remote.wake();
    rig.proxy.turn(Some(PATIENCE)).unwrap();
    let waker = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        remote.wake();
    });
    rig.proxy.turn(Some(PATIENCE)).unwrap();
    assert!(start.elapsed() < PATIENCE / 2);
    waker.join().unwrap();
}
