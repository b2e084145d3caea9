//! Bugs in the relayed bytes: lost, misplaced or late bytes and ends.

use crate::loop_kit;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Id, Reason, Role, Stage};

/// Bytes of a dest that its handler had not consumed were put back after the handler had disconnected that dest, and
/// became the first bytes of the next dest.
#[test]
fn unconsumed_bytes_of_a_dest_are_not_given_to_the_next_dest() {
    let mut rig = Rig::new(config());
    let ((first, first_addr), (second, second_addr)) = (target(), target());
    let mut dials = 0;
    let (_, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| match call {
            Call::Opened => {
                dial(cx, first_addr);
                0
            }
            Call::Connected(_) => {
                dials += 1;
                if dials == 1 {
                    cx.resume_reading(Role::Dest)
                } else {
                    cx.relay()
                }
                0
            }
            Call::Readable(input) if cx.role() == Role::Dest && input.len() >= 3 => {
                cx.disconnect().unwrap();
                dial(cx, second_addr);
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

/// A read that ends at the urgent mark is short, although more bytes follow. The bug: the bytes after the mark were not
/// read until more arrived.
#[test]
fn bytes_after_urgent_data_are_relayed() {
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let (_, mut client) = rig.adopt(Kind::Tcp4, relay_to(addr));
    let mut server = rig.accept(&listener);
    rig.until("relays", |proxy| proxy.core().snapshot().connections[0].stage == Stage::Established);
    client.try_send(b"before");
    client.socket.send_out_of_band(b"!").unwrap();
    client.try_send(b"behind");
    let mut got = Vec::new();
    rig.until("the bytes after it arrive", |_| {
        server.try_receive(&mut got, usize::MAX);
        got.ends_with(b"behind")
    });
    assert!(got == b"beforebehind" || got == b"before!behind", "{got:?}");
}

/// On a Unix socket a read ends after bytes that came with a descriptor. The bytes that follow were not read until more
/// arrived.
#[cfg(target_os = "linux")]
#[test]
fn bytes_after_a_passed_descriptor_are_relayed() {
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

/// Returns a relay that splices and is congested: its id, its client, its server, and the sent bytes.
fn congested_splice(rig: &mut Rig, seen: Rc<RefCell<Vec<u8>>>) -> (Id, Peer, Peer, Vec<u8>) {
    let (listener, addr) = target();
    let (id, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| match call {
            Call::Opened => {
                dial(cx, addr);
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
    rig.until("the connection is congested", |proxy| {
        let put = client.try_send(&data[sent..]);
        sent += put;
        put == 0 && proxy.core().connection(id).unwrap().queued(Role::Dest) > 0
    });
    (id, client, server, data[..sent].to_vec())
}

/// When the pipe held more bytes than a bounded pass was for, the counter of the remaining bytes wrapped around.
#[test]
fn a_bounded_pass_on_a_full_pipe_delivers_every_byte() {
    let mut rig = Rig::new(config());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (id, _client, mut server, sent) = congested_splice(&mut rig, Rc::clone(&seen));
    rig.core().connection(id).unwrap().relay_bytes(Role::Source, 10);
    let mut got = Vec::new();
    rig.until("every byte reaches the server or the handler", |_| {
        server.try_receive(&mut got, usize::MAX);
        got.len() + seen.borrow().len() == sent.len()
    });
    assert!(!seen.borrow().is_empty(), "the handler has its turn");
    got.extend(seen.borrow().iter());
    assert!(got == sent, "relayed bytes, then the handler's: in order");
}

/// A handler that took over a half with bytes in its pipe did not get those, but the bytes after them.
#[test]
fn a_handler_that_takes_over_from_a_splice_misses_no_byte() {
    let mut rig = Rig::new(config());
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (id, _client, mut server, sent) = congested_splice(&mut rig, Rc::clone(&seen));
    rig.core().connection(id).unwrap().resume_reading(Role::Source);
    let mut got = Vec::new();
    rig.until("every byte reaches the server or the handler", |_| {
        server.try_receive(&mut got, usize::MAX);
        got.len() + seen.borrow().len() == sent.len()
    });
    got.extend(seen.borrow().iter());
    assert!(got == sent, "relayed bytes, then the handler's: in order");
}

/// A spliced bounded pass kept its pipe after its end, so that no other connection could use it.
#[test]
fn a_finished_pass_returns_its_pipe() {
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
                Call::Opened => dial(cx, addr),
                Call::Connected(_) => cx.relay_bytes(Role::Source, 4 << 20),
                _ => {}
            }
            0
        });
        let (id, client) = rig.adopt(Kind::Tcp4, std::mem::replace(&mut bulk, handler(|_, _| 0)));
        connections.push((id, client, rig.accept(&listener)));
    }
    for (id, client, server) in &mut connections {
        let (mut sent, mut got, mut spliced) = (0, Vec::new(), false);
        rig.until("all bytes arrive", |proxy| {
            sent += if sent < data.len() { client.try_send(&data[sent..]) } else { 0 };
            server.try_receive(&mut got, data.len());
            let snapshot = proxy.core().snapshot();
            let status = snapshot.connections.iter().find(|status| status.id == *id).unwrap();
            spliced |= status.source.flags.contains(&"spliced");
            got.len() == data.len()
        });
        assert!(got == data && spliced, "each connection has the only pipe in turn");
    }
}

/// After a client had sent a FIN and was gone, an endless sender could send to the proxy until the linger timeout, and
/// the proxy read and discarded it all.
#[test]
fn an_endless_sender_is_cut_off_when_its_reader_is_gone() {
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

/// Bytes that a client sends before the dest is connected go to the dest. The loop reads at most 512 of them before
/// that, and notices the client's FIN and reset.
#[test]
fn bytes_that_a_client_sends_before_the_connect_arrive() {
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
            (rig.core().adopt(ours, "test", relay_to(addr)).unwrap(), peer)
        };
        rig.turn();
        assert!(rig.core().connection(id).unwrap().queued(Role::Dest) <= 512);
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
    rig.core().adopt(ours, "test", relay_to(addr)).unwrap();
    rig.until_empty();
    assert_eq!(rig.closed(Reason::SourceReset), 1);
}

/// The last bytes and the FIN go in one packet. With a slow reader, none of the bytes is held back.
#[test]
fn the_last_bytes_and_the_fin_arrive() {
    for config in modes() {
        for count in [1, 40_000, 20_000_000] {
            let (mut rig, (listener, addr)) = (Rig::new(config.clone()), target());
            let place = rig.listen(move || relay_to(addr));
            let mut client = Peer::connect(place);
            let mut server = rig.accept(&listener);
            let sent: Vec<u8> = (0..count).map(|n| (n % 251) as u8).collect();
            let (mut put, mut got, mut end) = (0, Vec::new(), None);
            rig.until("all bytes have arrived", |_| {
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

/// A client lost the rest of its response if it sent much data to a server that had reset the connection.
#[test]
fn a_client_that_sends_to_a_reset_server_still_gets_the_whole_response() {
    for mut config in modes() {
        config.timeouts.linger = Duration::from_secs(3600);
        let (mut rig, (listener, addr)) = (Rig::new(config), target());
        let (id, mut client) = rig.adopt(Kind::Tcp4, relay_to(addr));
        let mut server = rig.accept(&listener);
        let (chunk, mut owed) = (pattern(4096), Vec::new());
        while rig.core().connection(id).unwrap().queued(Role::Source) == 0 {
            let put = server.try_send(&chunk);
            owed.extend_from_slice(&chunk[..put]);
            rig.turn();
        }
        server.fin();
        rig.turns(3);
        server.reset();
        rig.turns(3);
        // 80 MiB are more than the loop discards at once and all buffers hold together.
        let mut sent = 0;
        rig.until("the loop discards", |_| {
            sent += client.fill();
            sent >= 16 << 20
        });
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(500) {
            sent += client.fill();
            rig.turn();
        }
        let later = (since.elapsed().as_millis() as usize / 250 + 1) * (4 << 20);
        assert!(sent < (80 << 20) + later, "the discarded bytes have no limit: {sent}");
        // The client is not stopped for good: while the receive queue of its peer is full, its system may get no window.
        rig.until("more is discarded", |_| {
            sent += client.fill();
            sent >= 80 << 20
        });
        assert!(rig.receive_all(&mut client) == owed);
        client.reset();
        rig.until_empty();
    }
}

/// The TCP handshake with the server does not wait for first bytes of a silent client. If it waited, each greeting
/// would take 200 ms.
#[test]
fn a_client_that_waits_for_the_greeting_gets_it_at_once() {
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

/// The client sends a request and a FIN before the connect, over TCP and Unix sockets.
#[test]
fn a_request_and_its_fin_pass_between_all_socket_types() {
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
                rig.core().adopt(ours, "test", relay_to(addr)).unwrap();
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
