//! Bugs in the relayed bytes: lost, misplaced or late bytes and ends.

use crate::loop_kit;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Id, Reason, Role, Stage};

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
