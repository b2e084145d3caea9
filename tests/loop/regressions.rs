//! More bugs of the core, one test each: what the order of events, of calls and of clocks must not change.

use crate::loop_kit;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Name, Permit, Reason, Role, Stage, Target};

/// A dest that is reset while its handler does nothing about it, and while bytes wait for it, was run again and again.
#[test]
fn a_reset_that_a_handler_ignores_does_not_spin() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let (id, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            match call {
                Call::Opened => cx.connect(Rc::new(addr.into()), None),
                Call::Connected(_) => {
                    cx.set_stage(Stage::Established);
                    cx.pass(Role::Source, 1 << 40);
                    cx.resume(Role::Dest);
                }
                _ => {}
            }
            0
        }),
    );
    let server = rig.accept(&listener);
    rig.congest(&mut client, id, Role::Dest);
    server.reset();
    rig.until("the handler hears it", |_| heard.has("dest ended Reset"));
    rig.turns(20);
    let (before, since) = (rig.stats().turns, Instant::now());
    while since.elapsed() < Duration::from_millis(200) {
        rig.proxy.turn(Some(Duration::from_millis(20))).unwrap();
    }
    let turns = rig.stats().turns - before;
    assert!(turns < 50, "{turns} turns in 200 ms with nothing to do");
    assert_eq!(heard.count("dest ended Reset"), 1);
}

/// A connection whose handler did nothing after a failed connect, or did not relay after a good one, waited in no timer.
#[test]
fn a_handler_that_does_nothing_after_connected_is_ended_by_a_timer() {
    let (_listener, good) = target();
    for addr in [refusing(), good] {
        let mut config = config();
        (config.timeouts.handshake, config.timeouts.connect) = (Duration::from_millis(50), Duration::from_millis(50));
        let mut rig = Rig::new(config);
        let idle = handler(move |cx, call| match call {
            Call::Opened => {
                cx.connect(Rc::new(addr.into()), None);
                0
            }
            Call::Connected(_) => 0,
            call => by_default(cx, &call),
        });
        let (_, _client) = rig.adopt(Kind::Unix, idle);
        rig.until_empty();
    }
}

/// A connection that was adopted and ended between two turns heard of its opening after its end.
#[test]
fn nothing_is_opened_after_its_end() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let notes = heard.clone();
    let (id, _client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            0
        }),
    );
    rig.core().end(id, Reason::Killed);
    rig.until_empty();
    assert!(!heard.has("source opened"), "{:?}", heard.all());
}

/// A handler that adopts a connection when it is opened, whose handler does the same, and so on, went as deep as that.
#[test]
fn opening_in_opened_does_not_nest() {
    fn chain(left: usize, deepest: &Rc<Cell<usize>>) -> Box<dyn seaprox::Handler> {
        let deepest = Rc::clone(deepest);
        handler(move |cx, call| {
            if let Call::Opened = call {
                let here = &call as *const _ as usize;
                let top = deepest.get();
                deepest.set(if top == 0 { here } else { top });
                assert!(deepest.get().abs_diff(here) < 200_000, "the stack grows with each");
                if left > 0 {
                    let next = chain(left - 1, &deepest);
                    cx.core().adopt_socket(pair(Kind::Unix).1, "test", next).unwrap();
                }
            }
            0
        })
    }
    let mut config = config();
    config.limits.connections = 1000;
    let mut rig = Rig::new(config);
    let (_, _client) = rig.adopt(Kind::Unix, chain(500, &Rc::default()));
    rig.until("all are opened", |proxy| proxy.core().snapshot().stats.opened == 501);
    rig.turns(3);
    assert_eq!(rig.stats().panics, 0, "the stack grows with each");
}

/// A front end that panics when it makes a handler took the loop with it.
#[test]
fn a_front_end_that_panics_costs_its_client_only() {
    let mut rig = Rig::new(config());
    let mut count = 0;
    let addr = rig.listen(move || {
        count += 1;
        assert!(count > 1, "(this message belongs to the test)");
        handler(|cx, call| {
            if let Call::Opened = call {
                cx.reply(b"hi");
            }
            0
        })
    });
    let mut first = Peer::connect(addr);
    let end = catch_unwind(AssertUnwindSafe(|| rig.receive_end(&mut first)));
    assert!(end.is_ok(), "the loop goes on");
    let mut second = Peer::connect(addr);
    assert_eq!(rig.receive(&mut second, 2), b"hi");
}

/// A permit that panics took the loop with it: it is called when a worker's answer is read.
#[test]
fn a_permit_that_panics_costs_its_connection_only() {
    let mut rig = Rig::with_workers(config());
    let (_, mut client) = rig.adopt(
        Kind::Unix,
        handler(|cx, call| {
            if let Call::Opened = call {
                let target = Target::Name(Name::new("localhost").unwrap(), 1);
                let permit: Permit = Rc::new(|_| panic!("(this message belongs to the test)"));
                cx.connect(Rc::new(target), Some(permit));
            }
            by_default(cx, &call)
        }),
    );
    let end = catch_unwind(AssertUnwindSafe(|| rig.receive_end(&mut client)));
    assert!(end.is_ok(), "the loop goes on");
    rig.until_empty();
}

/// What was adopted between two turns was stamped with the time of the last one, and timed out at once.
#[test]
fn time_does_not_stand_still_between_turns() {
    let mut config = config();
    config.timeouts.handshake = Duration::from_millis(300);
    let mut rig = Rig::new(config);
    // The time itself is what this is about.
    std::thread::sleep(Duration::from_millis(400));
    let (id, _client) = rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call)));
    let since = Instant::now();
    rig.until("it times out", |proxy| proxy.core().stage(id).is_none());
    assert!(since.elapsed() >= Duration::from_millis(290), "after {:?} already", since.elapsed());
}

/// A handler that relays before the dest is there got a reset in place of the refusal, if the source's event came first.
#[test]
fn relaying_early_does_not_turn_a_refusal_into_a_reset() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (notes, addr) = (heard.clone(), refusing());
    let (_, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            if let Call::Opened = call {
                cx.connect(Rc::new(addr.into()), None);
                cx.relay();
            }
            by_default(cx, &call)
        }),
    );
    client.try_send(b"early");
    rig.until_empty();
    assert!(heard.has("source connected connection_refused"), "{:?}", heard.all());
}

/// An upstream that is reset while the client may ask for something else is let go; the client is not cut.
#[test]
fn a_reset_of_an_idle_dest_is_told_to_the_handler() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let (id, _client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            match call {
                Call::Opened => cx.connect(Rc::new(addr.into()), None),
                Call::Connected(_) => {
                    cx.set_stage(Stage::KeepAlive);
                    cx.resume(Role::Source);
                    cx.resume(Role::Dest);
                }
                Call::Ended(seaprox::Cause::Reset) => cx.disconnect(),
                _ => {}
            }
            0
        }),
    );
    let server = rig.accept(&listener);
    rig.until("it is idle", |proxy| proxy.core().stage(id) == Some(Stage::KeepAlive));
    server.reset();
    rig.until("the dest is gone", |proxy| proxy.core().side(id, Role::Dest).is_none());
    assert!(heard.has("dest ended Reset"), "{:?}", heard.all());
    assert_eq!(rig.core().stage(id), Some(Stage::KeepAlive));
}

/// A client that sends a FIN and is then gone left a sender without end to send into nothing for as long as the linger
/// timer took, at the cost of a transfer.
#[test]
fn a_sender_without_end_is_cut_off_when_its_reader_is_gone() {
    for mut config in modes() {
        config.timeouts.linger = Duration::from_secs(3600);
        let (mut rig, (listener, addr)) = (Rig::new(config), target());
        let place = rig.listen(move || relay_to(addr));
        let mut client = Peer::connect(place);
        let mut server = rig.accept(&listener);
        client.fin();
        assert_eq!(rig.receive_all(&mut server), b"");
        client.reset();
        rig.until("the sender is cut off", |proxy| {
            server.fill();
            proxy.core().snapshot().usage.connections == 0
        });
    }
}

/// What a client says before it is known whether there is a dest goes to the dest, and no more of it is read than is
/// worth keeping; its end and its reset are noticed, too.
#[test]
fn what_a_client_says_at_once_arrives() {
    for count in [1, 511, 512, 513, 100_000] {
        let (mut rig, (listener, addr)) = (Rig::new(config()), target());
        let (id, mut client) = {
            let (mut peer, ours) = pair(Kind::Tcp4);
            let sent: Vec<u8> = (0..count).map(|n| (n % 251) as u8).collect();
            let mut put = 0;
            while put < sent.len() {
                put += peer.try_send(&sent[put..]);
            }
            peer.fin();
            (rig.core().adopt_socket(ours, "test", relay_to(addr)).unwrap(), peer)
        };
        rig.turn();
        assert!(rig.core().queued(id, Role::Dest) <= 512);
        let mut server = rig.accept(&listener);
        let got = rig.receive_all(&mut server);
        assert!(got.len() == count && got.iter().enumerate().all(|(n, byte)| *byte == (n % 251) as u8));
        rig.send(&mut server, b"answer");
        server.fin();
        assert_eq!(rig.receive_all(&mut client), b"answer");
        rig.until_empty();
    }
    let (mut rig, (_listener, addr)) = (Rig::new(config()), target());
    let (peer, ours) = pair(Kind::Tcp4);
    peer.reset();
    rig.core().adopt_socket(ours, "test", relay_to(addr)).unwrap();
    rig.until_empty();
    assert_eq!(rig.closed(Reason::SourceReset), 1);
}

/// The last bytes and the end of the stream go in one packet; where the reader is slow, nothing of them is held back.
#[test]
fn the_last_bytes_arrive_with_the_end() {
    for config in modes() {
        for count in [1, 40_000, 20_000_000] {
            let (mut rig, (listener, addr)) = (Rig::new(config.clone()), target());
            let place = rig.listen(move || relay_to(addr));
            let mut client = Peer::connect(place);
            let mut server = rig.accept(&listener);
            let sent: Vec<u8> = (0..count).map(|n| (n % 251) as u8).collect();
            let (mut put, mut got, mut end) = (0, Vec::new(), None);
            rig.until("everything is there", |_| {
                if put < sent.len() {
                    put += server.try_send(&sent[put..]);
                    if put == sent.len() {
                        server.fin();
                    }
                }
                end = client.try_receive(&mut got, usize::MAX);
                end.is_some()
            });
            assert!(end == Some(End::Fin) && got == sent);
        }
    }
}

/// Whoever was owed something and sent much lost what it was owed, when the end that it had sent to was gone.
#[test]
fn who_sends_into_nothing_still_gets_what_it_is_owed() {
    for mut config in modes() {
        config.timeouts.linger = Duration::from_secs(3600);
        let (mut rig, (listener, addr)) = (Rig::new(config), target());
        let (id, mut client) = rig.adopt(Kind::Tcp4, relay_to(addr));
        let mut server = rig.accept(&listener);
        let (chunk, mut owed) = (pattern(4096), Vec::new());
        while rig.core().queued(id, Role::Source) == 0 {
            let put = server.try_send(&chunk);
            owed.extend_from_slice(&chunk[..put]);
            rig.turn();
        }
        server.fin();
        rig.turns(3);
        server.reset();
        rig.turns(3);
        // More than is thrown away before the sender is cut off, and more than all buffers hold.
        let (mut sent, mut idle) = (0, 0);
        while idle < 100 && sent < 80 << 20 {
            let put = client.fill();
            (sent, idle) = (sent + put, if put == 0 { idle + 1 } else { 0 });
            rig.turn();
        }
        assert!(sent >= 16 << 20, "only {sent} bytes were taken");
        assert!(sent < 80 << 20, "there is no bound to what is thrown away");
        assert!(rig.receive_all(&mut client) == owed);
        client.reset();
        rig.until_empty();
    }
}

/// A client that waits for the server's greeting gets it at once: the handshake waits for no first bytes of a client that has
/// said nothing. One that waited would take 200 ms each time.
#[test]
fn who_speaks_second_does_not_wait() {
    let (mut rig, (listener, addr)) = (Rig::new(config()), target());
    let place = rig.listen(move || relay_to(addr));
    let fastest = (0..10).map(|_| {
        let (since, mut client) = (Instant::now(), Peer::connect(place));
        let mut server = rig.accept(&listener);
        rig.send(&mut server, b"220 ready");
        assert_eq!(rig.receive(&mut client, 9), b"220 ready");
        since.elapsed()
    });
    assert!(fastest.min().unwrap() < Duration::from_millis(100));
}

/// The same where one of the two has spoken, and where the end comes at once, between any two kinds of sockets.
#[test]
fn a_question_and_its_end_are_one_matter_between_all_kinds() {
    for config in modes() {
        for kind in [Kind::Tcp4, Kind::Unix] {
            for count in [1, 512, 513, 300_000] {
                let (mut rig, (listener, addr)) = (Rig::new(config.clone()), target());
                let (mut client, ours) = pair(kind);
                let sent = pattern(count);
                let (mut put, mut got, mut end) = (0, Vec::new(), None);
                let mut ask = |client: &mut Peer| {
                    if put < count {
                        put += client.try_send(&sent[put..]);
                        if put == count {
                            client.fin();
                        }
                    }
                };
                ask(&mut client);
                rig.core().adopt_socket(ours, "test", relay_to(addr)).unwrap();
                let mut server = rig.accept(&listener);
                rig.until("the question has ended", |_| {
                    ask(&mut client);
                    end = server.try_receive(&mut got, usize::MAX);
                    end.is_some()
                });
                assert!(end == Some(End::Fin) && got == sent);
                rig.send(&mut server, &sent[..1]);
                server.fin();
                assert_eq!(rig.receive_all(&mut client), &sent[..1]);
                rig.until_empty();
            }
        }
    }
}
