//! One test for each bug that was found in the core, named after what must hold, with what was wrong above it.

use crate::loop_kit;

use std::cell::{Cell, RefCell};
use std::io::Read;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Cause, Core, Id, Loops, Reason, Role, Stage, Target};

/// The handler of a dest was kept when the dest was let go, and stood in the way of the next side in that slot: a new client
/// was never told that it is there.
#[test]
fn a_handler_goes_with_its_dest() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let (old, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            if cx.role() == Role::Dest {
                notes.say("dial is over");
            }
            match call {
                Call::Opened => cx.connect(Rc::new(addr.into()), None),
                Call::Connected(_) => {
                    let dest = cx.side_of(Role::Dest).unwrap();
                    cx.core().set_handler(dest, handler(|_, _| 0));
                    cx.resume(Role::Source);
                }
                Call::Readable(_) => cx.disconnect(),
                _ => {}
            }
            0
        }),
    );
    let _server = rig.accept(&listener);
    rig.until("connected", |_| heard.has("dial is over"));
    client.try_send(b"x");
    rig.until("let go", |proxy| proxy.core().side(old, Role::Dest).is_none());
    let new = heard.clone();
    let (_, _client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            new.note(cx.role(), &call);
            0
        }),
    );
    rig.until("the new client is told", |_| heard.has("source opened"));
}

/// What a dest had sent and its handler had not consumed was put back after the handler had let that dest go, and became the
/// first bytes of the next one.
#[test]
fn what_one_dest_left_over_is_not_taken_for_the_next_ones() {
    let mut rig = Rig::new(config());
    let ((first, first_addr), (second, second_addr)) = (target(), target());
    let mut dials = 0;
    let (_, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| match call {
            Call::Opened => {
                cx.connect(Rc::new(first_addr.into()), None);
                0
            }
            Call::Connected(_) => {
                dials += 1;
                if dials == 1 {
                    cx.resume(Role::Dest)
                } else {
                    cx.relay()
                }
                0
            }
            Call::Readable(input) if cx.role() == Role::Dest && input.len() >= 3 => {
                cx.disconnect();
                cx.connect(Rc::new(second_addr.into()), None);
                1
            }
            _ => 0,
        }),
    );
    let mut old = rig.accept(&first);
    old.try_send(b"old");
    let mut new = rig.accept(&second);
    new.try_send(b"new");
    assert_eq!(rig.receive(&mut client, 3), b"new");
}

/// When a block came back, as many waiters were woken as there were blocks. One that was gone used up its wake-up, and the
/// next slept on beside a free block.
#[test]
fn a_waiter_that_is_gone_does_not_use_up_a_wake_up() {
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
        rig.until("all relay", |proxy| {
            proxy.core().snapshot().connections.iter().all(|c| c.stage == Stage::Established)
        });
        let first = rig.snapshot().connections[0].id;
        // The first fills everything up to a reader that does not read, and so keeps the only block.
        let sent = rig.congest(&mut clients[0].0, first, Role::Dest);
        assert_eq!(rig.snapshot().usage.buffer_bytes, 4096);
        let waits = rig.stats().block_waits;
        for (n, client) in clients[1..].iter_mut().enumerate() {
            client.0.try_send(b"x");
            rig.until("it waits for a block", |proxy| proxy.core().snapshot().stats.block_waits > waits + n as u64);
        }
        let last = clients.pop().unwrap();
        clients.drain(1..).for_each(|(client, _)| client.reset());
        rig.until("all but two are gone", |proxy| proxy.core().snapshot().usage.connections == 2);
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
    assert_eq!(waiting.read(&mut buf).expect("the byte of the last one comes without anything else happening"), 1);
    remote.call(Core::stop).unwrap();
    thread.join().unwrap();
}

/// A handler that passes a few bytes at a time got a fresh budget each time: one fast peer had the loop for itself.
#[test]
fn passing_bytes_one_by_one_does_not_take_the_whole_turn() {
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let (_, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            match call {
                Call::Opened => cx.connect(Rc::new(addr.into()), None),
                Call::Connected(_) => cx.resume(Role::Source),
                Call::Readable(_) => {
                    counted.set(counted.get() + 1);
                    cx.pass(Role::Source, 1);
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
    rig.until("all of it arrives", |_| {
        most = most.max(calls.replace(0));
        server.try_receive(&mut got, sent);
        got.len() == sent
    });
    assert!(got == data[..sent], "in order");
    assert!(most <= 20_000 && sent > 40_000, "{most} calls of one handler in one turn");
}

/// A handler that tries again at once, where connecting fails at once, held the loop.
#[test]
fn failing_at_once_again_and_again_does_not_take_the_whole_turn() {
    let mut rig = Rig::new(config());
    let calls = Rc::new(Cell::new(0));
    let (counted, missing) = (Rc::clone(&calls), Rc::new(Target::Unix("/nonexistent/socket".into())));
    rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            match call {
                Call::Connected(_) if counted.get() == 30_000 => cx.end(Reason::Killed),
                Call::Connected(_) | Call::Opened => {
                    counted.set(counted.get() + 1);
                    cx.connect(Rc::clone(&missing), None);
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
                cx.reply(b"hi");
            }
            0
        }),
    );
    assert_eq!(rig.receive(&mut other, 2), b"hi");
    rig.until("the other one ends too", |proxy| proxy.core().snapshot().usage.connections == 1);
}

/// A read that is short at the urgent mark is not the last one; the bytes behind it were not seen until more came.
#[test]
fn bytes_behind_urgent_data_are_relayed() {
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let (_, mut client) = rig.adopt(Kind::Tcp4, relay_to(addr));
    let mut server = rig.accept(&listener);
    rig.until("relays", |proxy| proxy.core().snapshot().connections[0].stage == Stage::Established);
    client.try_send(b"before");
    client.socket.send_out_of_band(b"!").unwrap();
    client.try_send(b"behind");
    let mut got = Vec::new();
    rig.until("what is behind arrives", |_| {
        server.try_receive(&mut got, usize::MAX);
        got.ends_with(b"behind")
    });
    assert!(got == b"beforebehind" || got == b"before!behind", "{got:?}");
}

/// The same on Unix sockets, where a read is short behind bytes that came with a descriptor.
#[cfg(target_os = "linux")]
#[test]
fn bytes_behind_a_descriptor_are_relayed() {
    use std::os::fd::AsRawFd;
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let (_, mut client) = rig.adopt(Kind::Unix, relay_to(addr));
    let mut server = rig.accept(&listener);
    rig.until("relays", |proxy| proxy.core().snapshot().connections[0].stage == Stage::Established);
    // cmsg(3): length, SOL_SOCKET, SCM_RIGHTS, one descriptor, padding.
    let mut control = Vec::from(20usize.to_ne_bytes());
    for word in [1, 1, client.socket.as_raw_fd(), 0] {
        control.extend(i32::to_ne_bytes(word));
    }
    let bytes = [std::io::IoSlice::new(b"with")];
    client.socket.sendmsg(&socket2::MsgHdr::new().with_buffers(&bytes).with_control(&control), 0).unwrap();
    client.try_send(b"behind");
    assert_eq!(rig.receive(&mut server, 10), b"withbehind");
}

/// `writable` was not told when relayed bytes behind what the handler had sent had to wait as well.
#[test]
fn writable_is_told_although_relayed_bytes_wait_too() {
    for mut config in modes() {
        config.limits.relay_bytes_per_turn = usize::MAX;
        let (mut rig, heard) = (Rig::new(config), Heard::default());
        let (listener, addr) = target();
        let notes = heard.clone();
        let (id, mut client) = rig.adopt(
            Kind::Tcp4,
            handler(move |cx, call| {
                notes.note(cx.role(), &call);
                if let Call::Opened = call {
                    cx.connect(Rc::new(addr.into()), None);
                }
                by_default(cx, &call)
            }),
        );
        let mut server = rig.accept(&listener);
        server.socket.set_recv_buffer_size(16 << 10).unwrap();
        let sent = rig.congest(&mut client, id, Role::Dest);
        assert!(rig.core().send(id, Role::Dest, b"word"));
        assert!(rig.core().queued(id, Role::Dest) > 4, "it waits");
        let mut got = Vec::new();
        rig.until("all of it arrives", |_| {
            let next = got.len() + (32 << 10);
            server.try_receive(&mut got, next);
            got.len() >= sent + 4
        });
        rig.turns(3);
        assert_eq!(heard.count("dest writable"), 1, "{:?}", heard.all());
    }
}

/// A relay that is spliced and congested, its source, its server, and what was sent.
fn congested_splice(rig: &mut Rig, seen: Rc<RefCell<Vec<u8>>>) -> (Id, Peer, Peer, Vec<u8>) {
    let (listener, addr) = target();
    let (id, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| match call {
            Call::Opened => {
                cx.connect(Rc::new(addr.into()), None);
                0
            }
            Call::Readable(input) => {
                seen.borrow_mut().extend(input);
                input.len()
            }
            call => by_default(cx, &call),
        }),
    );
    let server = rig.accept(&listener);
    let data = pattern(64 << 20);
    let mut sent = 0;
    rig.until("it is congested", |proxy| {
        let put = client.try_send(&data[sent..]);
        sent += put;
        put == 0 && proxy.core().queued(id, Role::Dest) > 0
    });
    (id, client, server, data[..sent].to_vec())
}

/// A bounded pass on a half with more than that in its pipe made the count of what is left wrap around.
#[test]
fn a_bounded_pass_on_a_full_pipe_keeps_the_loop_alive() {
    let mut rig = Rig::new(config());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (id, _client, mut server, sent) = congested_splice(&mut rig, Rc::clone(&seen));
    rig.core().pass(id, Role::Source, 10);
    let mut got = Vec::new();
    rig.until("every byte comes out somewhere", |_| {
        server.try_receive(&mut got, usize::MAX);
        got.len() + seen.borrow().len() == sent.len()
    });
    assert!(!seen.borrow().is_empty(), "the handler has its turn");
    got.extend(seen.borrow().iter());
    assert!(got == sent, "relayed bytes, then the handler's: in order");
}

/// A half that became the handler's with bytes in its pipe showed it the bytes behind them.
#[test]
fn a_handler_that_takes_over_from_a_splice_misses_nothing() {
    let mut rig = Rig::new(config());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (id, _client, mut server, sent) = congested_splice(&mut rig, Rc::clone(&seen));
    rig.core().resume(id, Role::Source);
    let mut got = Vec::new();
    rig.until("every byte comes out somewhere", |_| {
        server.try_receive(&mut got, usize::MAX);
        got.len() + seen.borrow().len() == sent.len()
    });
    got.extend(seen.borrow().iter());
    assert!(got == sent, "relayed bytes, then the handler's: in order");
}

/// A bounded pass that had been spliced kept its pipe when it was over, and no other connection could have it.
#[test]
fn a_pass_that_is_over_gives_its_pipe_back() {
    let mut config = config();
    if config.limits.pipes == 0 || !cfg!(target_os = "linux") {
        return;
    }
    config.limits.pipes = 1;
    let mut rig = Rig::new(config);
    let (listener, addr) = target();
    let data = pattern(4 << 20);
    let mut connections = Vec::new();
    for _ in 0..2 {
        let mut bulk = handler(move |cx, call| {
            match call {
                Call::Opened => cx.connect(Rc::new(addr.into()), None),
                Call::Connected(_) => cx.pass(Role::Source, 4 << 20),
                _ => {}
            }
            0
        });
        let (id, client) = rig.adopt(Kind::Tcp4, std::mem::replace(&mut bulk, handler(|_, _| 0)));
        connections.push((id, client, rig.accept(&listener)));
    }
    for (id, client, server) in &mut connections {
        let (mut sent, mut got, mut spliced) = (0, Vec::new(), false);
        rig.until("all of it arrives", |proxy| {
            sent += if sent < data.len() { client.try_send(&data[sent..]) } else { 0 };
            server.try_receive(&mut got, data.len());
            let snapshot = proxy.core().snapshot();
            let status = snapshot.connections.iter().find(|status| status.id == *id).unwrap();
            spliced |= status.source.flags.contains(&"spliced");
            got.len() == data.len()
        });
        assert!(got == data && spliced, "each of them has the only pipe in its time");
    }
}

/// Calls were counted as done when they were taken, so that a slow loop took in more and more of them.
#[test]
fn calls_that_were_taken_but_not_run_still_count() {
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
    rig.until("all run", |_| {
        done += ran.1.try_iter().count();
        done == posted
    });
}

/// A loop that was told to stop between two turns, with nothing to do, slept first.
#[test]
fn stopping_between_turns_does_not_sleep() {
    for stop in
        [Core::stop as fn(&mut Core), |core| core.drain(Duration::from_secs(60)), |core| core.drain(Duration::MAX)]
    {
        let mut rig = Rig::new(config());
        rig.turns(5);
        stop(rig.core());
        let since = Instant::now();
        assert!(!rig.proxy.turn(Some(Duration::from_secs(10))).unwrap(), "it is over");
        assert!(since.elapsed() < Duration::from_secs(5), "it slept for {:?}", since.elapsed());
    }
}

/// A drain of all the time in the world ended at once.
#[test]
fn a_drain_without_an_end_waits() {
    let mut rig = Rig::new(config());
    let _client = rig.adopt(Kind::Unix, handler(|_, _| 0));
    rig.turns(5);
    rig.core().drain(Duration::MAX);
    for _ in 0..20 {
        assert!(rig.proxy.turn(Some(Duration::from_millis(1))).unwrap());
    }
}

/// A handler that stopped the loop when it heard of its end kept the others from hearing of theirs.
#[test]
fn stopping_in_the_last_callback_still_tells_the_others() {
    let (mut rig, over) = (Rig::new(config()), Rc::new(Cell::new(0)));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let over = Rc::clone(&over);
        let stopper = handler(move |cx, call| {
            if let Call::Ended(Cause::Over(_)) = call {
                over.set(over.get() + 1);
                cx.core().stop();
            }
            0
        });
        ids.push(rig.adopt(Kind::Unix, stopper));
    }
    rig.turn();
    rig.core().end(ids[0].0, Reason::Killed);
    while rig.proxy.turn(Some(Duration::from_millis(1))).unwrap() {}
    assert_eq!(over.get(), 3);
}

/// A setup that panicked left `Loops::start` waiting for ever.
#[test]
fn a_setup_that_panics_fails_the_start() {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let setup: seaprox::Setup = std::sync::Arc::new(|_, _, _| panic!("(this message belongs to the test)"));
        let _ = tell.send(Loops::start(2, &config(), None, Vec::new(), &setup).is_err());
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(true));
}
