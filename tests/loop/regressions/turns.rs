//! Bugs in the turns of the loop: budgets, wake-ups, clocks, and stopping.

use crate::loop_kit;

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Loop, Reason, Role, Stage, Target};

/// When blocks were returned, the loop woke as many waiters as there were blocks. A closed connection in the queue used
/// up a wake-up, and the next waiter slept on although a block was free.
#[test]
fn a_closed_connection_that_waited_for_a_block_does_not_delay_the_next() {
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut config = config();
        (config.limits.pipes, config.limits.block_bytes, config.limits.buffer_bytes) = (0, 4096, 4096);
        config.limits.relay_bytes_per_turn = usize::MAX;
        let mut rig = Rig::new(config);
        let (listener, addr) = target();
        let mut clients = Vec::new();
        for _ in 0..40 {
            let (_, client) = rig.adopt(Kind::Tcp4, relay_to(addr));
            clients.push((client, rig.accept(&listener)));
        }
        rig.until("all connections relay", |proxy| {
            proxy.core().snapshot().connections.iter().all(|c| c.stage == Stage::Established)
        });
        let first = rig.snapshot().connections[0].id;
        // The first client sends to a server that does not read, and so holds the only block.
        let sent = rig.congest(&mut clients[0].0, first, Role::Dest);
        assert_eq!(rig.snapshot().usage.buffer_bytes, 4096);
        let waits = rig.stats().block_waits;
        for (n, client) in clients[1..].iter_mut().enumerate() {
            client.0.try_send(b"x");
            rig.until("the connection waits for a block", |proxy| {
                proxy.core().snapshot().stats.block_waits > waits + n as u64
            });
        }
        let last = clients.pop().unwrap();
        clients.drain(1..).for_each(|(client, _)| client.reset());
        rig.until("two connections are left", |proxy| proxy.core().snapshot().usage.connections == 2);
        tell.send((clients.pop().unwrap(), last, sent, rig.proxy.remote())).unwrap();
        rig.proxy.run().unwrap();
    });
    let (mut first, mut last, sent, remote) = told.recv_timeout(PATIENCE).unwrap();
    let (reader, waiting) = (&mut first.1.socket, &mut last.1.socket);
    for socket in [&mut *reader, &mut *waiting] {
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let (mut received, mut buf) = (0, vec![0; 1 << 20]);
    while received < sent {
        received += reader.read(&mut buf).unwrap();
    }
    assert_eq!(waiting.read(&mut buf).expect("the byte of the last client arrives without another event"), 1);
    remote.call(|core| core.stop()).unwrap();
    thread.join().unwrap();
}

/// A handler that passed a few bytes at a time got a new budget each time, so that one fast peer could occupy the loop.
#[test]
fn passing_bytes_one_by_one_keeps_to_the_budget_of_a_turn() {
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let (_, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            match call {
                Call::Opened => dial(cx, addr),
                Call::Connected(_) => cx.resume_reading(Role::Source),
                Call::Readable(_) => {
                    counted.set(counted.get() + 1);
                    cx.relay_bytes(Role::Source, 1);
                }
                _ => {}
            }
            0
        }),
    );
    let mut server = rig.accept(&listener);
    let data = pattern(60_000);
    let sent = client.try_send(&data);
    let (mut most, mut got) = (0, Vec::new());
    rig.until("all bytes arrive", |_| {
        most = most.max(calls.replace(0));
        server.try_receive(&mut got, sent);
        got.len() == sent
    });
    assert!(got == data[..sent], "in order");
    assert!(most <= 20_000 && sent > 40_000, "{most} calls of one handler in one turn");
}

/// A handler that retried at once a connect that failed at once occupied the loop.
#[test]
fn retrying_a_connect_that_fails_at_once_keeps_to_the_budget_of_a_turn() {
    let mut rig = Rig::new(config());
    let (calls, is_enough) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (counted, enough) = (Rc::clone(&calls), Rc::clone(&is_enough));
    let missing = Rc::new(Target::Unix("/nonexistent/socket".into()));
    rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            match call {
                // The count ends the test if all dials are in one turn.
                Call::Connected(_) if enough.get() || counted.get() == 30_000 => cx.close(Reason::Killed),
                Call::Connected(_) | Call::Opened => {
                    counted.set(counted.get() + 1);
                    cx.connect(Rc::clone(&missing), None).unwrap();
                }
                _ => {}
            }
            0
        }),
    );
    rig.turn();
    assert!(calls.get() < 10_000, "{} dials in one turn", calls.get());
    let (_, mut other) = rig.adopt(
        Kind::Unix,
        handler(|cx, call| {
            if let Call::Opened = call {
                cx.reply(b"hi").unwrap();
            }
            0
        }),
    );
    assert_eq!(rig.receive(&mut other, 2), b"hi");
    is_enough.set(true);
    rig.until("the connection that dials ends too", |proxy| proxy.core().snapshot().usage.connections == 1);
}

/// A dest that was reset while bytes waited for it was run in every turn if its handler ignored the reset.
#[test]
fn a_reset_that_a_handler_ignores_causes_no_busy_loop() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let (id, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            match call {
                Call::Opened => dial(cx, addr),
                Call::Connected(_) => {
                    cx.set_stage(Stage::Established);
                    cx.relay_bytes(Role::Source, 1 << 40);
                    cx.resume_reading(Role::Dest);
                }
                _ => {}
            }
            0
        }),
    );
    let server = rig.accept(&listener);
    rig.congest(&mut client, id, Role::Dest);
    server.reset();
    rig.until("the handler gets the reset", |_| heard.has("dest ended Reset"));
    rig.turns(20);
    let (before, since) = (rig.stats().turns, Instant::now());
    while since.elapsed() < Duration::from_millis(200) {
        rig.proxy.turn(Some(Duration::from_millis(20))).unwrap();
    }
    let turns = rig.stats().turns - before;
    assert!(turns < 50, "{turns} turns in 200 ms with nothing to do");
    assert_eq!(heard.count("dest ended Reset"), 1);
}

/// A connection that was adopted between two turns got the time of the last turn as its start, and timed out too early.
#[test]
fn a_connection_adopted_between_turns_has_its_full_timeout() {
    let mut config = config();
    config.timeouts.handshake = Duration::from_millis(300);
    let mut rig = Rig::new(config);
    // The test needs this time to pass between two turns.
    std::thread::sleep(Duration::from_millis(400));
    let (id, _client) = rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call)));
    let since = Instant::now();
    rig.until("the connection times out", |proxy| stage_of(&mut proxy.core(), id).is_none());
    assert!(since.elapsed() >= Duration::from_millis(290), "after {:?} already", since.elapsed());
}

/// Calls were counted as done when the loop had taken them from the queue, so that a slow loop took more and more.
#[test]
fn calls_that_were_taken_but_not_run_count_against_the_limit() {
    let mut config = config();
    (config.limits.calls, config.limits.mails_per_turn) = (8, 1);
    let mut rig = Rig::new(config);
    let (ran, remote) = (mpsc::channel(), rig.proxy.remote());
    let (mut posted, mut done) = (0, 0);
    for _ in 0..50 {
        let tell = ran.0.clone();
        while remote
            .call({
                let tell = tell.clone();
                move |_| tell.send(()).unwrap()
            })
            .is_ok()
        {
            posted += 1;
        }
        rig.turn();
        done += ran.1.try_iter().count();
        assert!(posted - done <= 8 + 8, "{posted} posted, {done} done");
    }
    rig.until("all calls have run", |_| {
        done += ran.1.try_iter().count();
        done == posted
    });
}

/// An idle loop that was told to stop between two turns slept first.
#[test]
fn a_stop_between_turns_takes_effect_without_a_sleep() {
    for stop in [
        (|core| core.stop()) as fn(&mut Loop<'_>),
        |core| core.drain(Duration::from_secs(60)),
        |core| core.drain(Duration::MAX),
    ] {
        let mut rig = Rig::new(config());
        rig.turns(5);
        stop(&mut rig.core());
        let since = Instant::now();
        assert!(!rig.proxy.turn(Some(Duration::from_secs(10))).unwrap(), "the loop has stopped");
        assert!(since.elapsed() < Duration::from_secs(5), "the loop slept for {:?}", since.elapsed());
    }
}

/// A drain with a timeout of `Duration::MAX` ended at once.
#[test]
fn a_drain_with_the_longest_timeout_waits() {
    let mut rig = Rig::new(config());
    let _client = rig.adopt(Kind::Unix, handler(|_, _| 0));
    rig.turns(5);
    rig.core().drain(Duration::MAX);
    for _ in 0..20 {
        assert!(rig.proxy.turn(Some(Duration::from_millis(1))).unwrap());
    }
}
