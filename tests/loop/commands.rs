//! The commands on a connection: send, relay_bytes, pause_reading, resume_reading, close_after_flush, disconnect,
//! relay.

use crate::loop_kit;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Cause, Config, Cx, Id, Reason, Role, Stage, VerbError};

/// Returns a source whose peer does not read, with all socket buffers full.
fn congested(rig: &mut Rig, heard: &Heard) -> (Id, Peer) {
    let notes = heard.clone();
    let (id, client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            0
        }),
    );
    rig.turn();
    while rig.core().connection(id).unwrap().queued(Role::Source) == 0 {
        assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, &[b'f'; 1000]), Ok(()));
    }
    (id, client)
}

fn small_blocks() -> Config {
    let mut config = config();
    (config.limits.block_bytes, config.limits.buffer_bytes) = (4096, 1 << 20);
    config
}

#[test]
fn sent_bytes_wait_in_one_block_and_a_send_beyond_it_is_refused() {
    let (mut rig, heard) = (Rig::new(small_blocks()), Heard::default());
    let (id, mut client) = congested(&mut rig, &heard);
    let waiting = rig.core().connection(id).unwrap().queued(Role::Source);
    assert_eq!(
        rig.core().connection(id).unwrap().send(Role::Source, &vec![0; 4097 - waiting]),
        Err(VerbError::Full),
        "one byte too many is refused"
    );
    assert_eq!(rig.core().connection(id).unwrap().queued(Role::Source), waiting, "a refused send takes no byte");
    assert_eq!(
        rig.core().connection(id).unwrap().send(Role::Source, &vec![b'l'; 4096 - waiting]),
        Ok(()),
        "a send that just fits is accepted"
    );
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, b"x"), Err(VerbError::Full));
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, b""), Ok(()), "an empty send always fits");
    assert_eq!(rig.snapshot().usage.buffer_bytes, 4096);

    let mut got = Vec::new();
    rig.until("the handler gets Writable", |_| {
        client.try_receive(&mut got, usize::MAX);
        heard.has("source writable")
    });
    rig.until("everything arrives", |_| {
        client.try_receive(&mut got, usize::MAX);
        got.ends_with(&vec![b'l'; 4096 - waiting])
    });
    rig.turns(5);
    assert_eq!(heard.count("source writable"), 1);
    assert_eq!((rig.core().connection(id).unwrap().queued(Role::Source), rig.snapshot().usage.buffer_bytes), (0, 0));
}

#[test]
fn a_send_of_more_than_a_block_is_refused_even_when_the_peer_reads() {
    let mut rig = Rig::new(small_blocks());
    let (id, mut client) = rig.adopt(Kind::Tcp4, handler(|_, _| 0));
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, &[0; 4097]), Err(VerbError::Full));
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Dest, b"x"), Err(VerbError::Stale), "there is no dest");
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, &[7; 4096]), Ok(()));
    assert_eq!(rig.receive(&mut client, 4096), [7; 4096]);
}

/// Returns a handler that reads messages of one length byte and that many bytes, and passes the bytes on.
fn framed(
    target: std::net::SocketAddr,
    lengths: Rc<RefCell<Vec<u64>>>,
    passed: Rc<Cell<usize>>,
) -> Box<dyn seaprox::Handler> {
    handler(move |cx, call| {
        match call {
            Call::Opened => dial(cx, target),
            Call::Connected(Ok(())) => cx.resume_reading(Role::Source),
            Call::Readable(input) => {
                if lengths.borrow().len() == passed.get() + 1 {
                    passed.set(passed.get() + 1);
                }
                let Some(length) = input.first() else { return 0 };
                lengths.borrow_mut().push(u64::from(*length));
                cx.relay_bytes(Role::Source, u64::from(*length));
                return 1;
            }
            call => drop(by_default(cx, &call)),
        }
        0
    })
}

#[test]
fn a_bounded_pass_is_exact_at_every_split() {
    let messages: [&[u8]; 5] = [b"one", b"", b"three", b"f", b"0123456789"];
    let wire: Vec<u8> = messages.iter().flat_map(|m| [&[m.len() as u8], *m].concat()).collect();
    let bodies = messages.concat();
    for config in modes() {
        for split in 0..=wire.len() {
            let mut rig = Rig::new(config.clone());
            let (listener, addr) = target();
            let (lengths, passed) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
            let (_, mut client) = rig.adopt(Kind::Unix, framed(addr, Rc::clone(&lengths), Rc::clone(&passed)));
            let mut server = rig.accept(&listener);
            client.try_send(&wire[..split]);
            rig.turns(2);
            client.try_send(&wire[split..]);
            assert_eq!(rig.receive(&mut server, bodies.len()), bodies);
            rig.until("each end of a message is reported", |_| passed.get() == messages.len());
            assert_eq!(*lengths.borrow(), messages.map(|m| m.len() as u64));
        }
    }
}

/// Bodies larger than a block are spliced if possible. The handler gets the byte after each body.
#[test]
fn a_pass_longer_than_a_block_is_exact() {
    for config in modes() {
        let mut rig = Rig::new(config);
        let (listener, addr) = target();
        let heads = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&heads);
        let lengths = [1u64, 32 << 10, (32 << 10) + 1, 65536, 1 << 20, 3_000_001];
        let (_, mut client) = rig.adopt(
            Kind::Tcp4,
            handler(move |cx, call| match call {
                Call::Opened => {
                    dial(cx, addr);
                    0
                }
                Call::Connected(_) => {
                    cx.resume_reading(Role::Source);
                    0
                }
                Call::Readable([]) => 0,
                Call::Readable(input) => {
                    let number = seen.borrow().len();
                    seen.borrow_mut().push(input[0]);
                    cx.relay_bytes(Role::Source, lengths[number]);
                    1
                }
                call => by_default(cx, &call),
            }),
        );
        let mut server = rig.accept(&listener);
        let (mut wire, mut bodies) = (Vec::new(), Vec::new());
        for (number, length) in lengths.iter().enumerate() {
            wire.push(b'A' + number as u8);
            let body = pattern(*length as usize);
            wire.extend(&body);
            bodies.extend(body);
        }
        let (mut sent, mut got) = (0, Vec::new());
        rig.until("all bytes arrive", |_| {
            sent += if sent < wire.len() { client.try_send(&wire[sent..]) } else { 0 };
            server.try_receive(&mut got, usize::MAX);
            got.len() >= bodies.len()
        });
        assert!(got == bodies);
        assert_eq!(*heads.borrow(), b"ABCDEF");
    }
}

#[test]
fn a_fin_within_a_pass_is_reported_as_the_end_of_the_source() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let (_, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            match call {
                Call::Opened => dial(cx, addr),
                Call::Connected(_) => cx.relay_bytes(Role::Source, 10),
                _ => {}
            }
            0
        }),
    );
    let mut server = rig.accept(&listener);
    client.try_send(b"123");
    client.fin();
    assert_eq!(rig.receive(&mut server, 3), b"123");
    rig.until("the handler gets the end", |_| heard.has("source ended Fin"));
    rig.turns(5);
    assert_eq!(heard.all(), ["source opened", "dest connected", "source ended Fin"]);
}

#[test]
fn held_input_is_not_read_until_reading_resumes() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let notes = heard.clone();
    let (id, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            match call {
                Call::Opened => cx.pause_reading(Role::Source),
                Call::Readable(input) => {
                    cx.pause_reading(Role::Source);
                    return input.len().min(2);
                }
                _ => {}
            }
            0
        }),
    );
    let mut filled = 0;
    rig.turns(3);
    filled += client.try_send(b"abcdef");
    rig.turns(10);
    filled += client.fill();
    rig.turns(10);
    assert_eq!(client.fill(), 0, "the system holds the peer back after {filled} bytes");
    assert_eq!((heard.all().as_slice(), rig.snapshot().usage.buffer_bytes), (&["source opened".to_owned()][..], 0));
    assert!(rig.snapshot().connections[0].source.flags.contains(&"held"));
    rig.core().connection(id).unwrap().resume_reading(Role::Source);
    rig.until("the handler gets the bytes", |_| heard.all().len() == 2);
    assert!(heard.all()[1].starts_with("source readable abcdef"));
    rig.turns(5);
    rig.core().connection(id).unwrap().resume_reading(Role::Source);
    rig.until("the unconsumed input is shown again", |_| heard.all().len() == 3);
    assert!(heard.all()[2].starts_with("source readable cdef"));
}

#[test]
fn a_handler_that_needs_more_than_the_handshake_limit_is_ended() {
    let mut config = config();
    config.limits.handshake_bytes = 100;
    let mut rig = Rig::new(config);
    let most = Rc::new(Cell::new(0));
    let seen = Rc::clone(&most);
    let (_, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |_, call| {
            if let Call::Readable(input) = call {
                seen.set(input.len());
            }
            0
        }),
    );
    client.try_send(&[0; 99]);
    rig.until("the handler gets the bytes", |_| most.get() == 99);
    client.try_send(&[0; 50]);
    rig.until_empty();
    assert_eq!((most.get(), rig.closed(Reason::ProtocolError)), (100, 1));
}

/// Replies "goodbye" to the first input and ends the connection.
fn says_goodbye(cx: &mut Cx<'_>, call: &Call<'_>) -> usize {
    if let Call::Readable(input) = call {
        cx.reply(b"goodbye").unwrap();
        cx.close_after_flush(Reason::AuthFailed);
        return input.len();
    }
    by_default(cx, call)
}

/// A close with unread input would send a reset, and the reset would destroy the reply in the client's receive buffer.
#[test]
fn the_last_reply_arrives_although_the_client_keeps_sending() {
    for kind in KINDS {
        let mut rig = Rig::new(config());
        let (_, mut client) = rig.adopt(kind, handler(|cx, call| says_goodbye(cx, &call)));
        client.try_send(b"x");
        rig.until("the connection lingers", |proxy| proxy.core().snapshot().connections[0].stage == Stage::Closing);
        for _ in 0..50 {
            client.try_send(&[0; 10_000]);
            rig.turn();
        }
        assert_eq!(rig.snapshot().usage.connections, 1, "the connection waits for the client's end");
        assert_eq!(rig.receive_all(&mut client), b"goodbye", "{kind:?}");
        client.fin();
        rig.until_empty();
        assert_eq!(rig.closed(Reason::AuthFailed), 1);
    }
}

#[test]
fn the_linger_timeout_ends_a_client_that_does_not_close() {
    for reads in [true, false] {
        let mut config = config();
        config.timeouts.linger = Duration::from_millis(100);
        let mut rig = Rig::new(config);
        let (_, mut client) = rig.adopt(Kind::Tcp4, handler(|cx, call| says_goodbye(cx, &call)));
        client.try_send(b"x");
        let since = Instant::now();
        rig.until("the connection ends although the client continues", |proxy| {
            if reads {
                // An error means that the loop has already closed.
                let _ = std::io::Write::write(&mut client.socket, &[0; 1000]);
            }
            proxy.core().snapshot().usage.connections == 0
        });
        assert!(since.elapsed() >= Duration::from_millis(95));
        assert_eq!(rig.closed(Reason::AuthFailed), 1);
    }
}

/// The reply waits behind bytes that the client has not read. It reads them after the close.
#[test]
fn a_queued_last_reply_arrives_before_the_fin() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (id, mut client) = congested(&mut rig, &heard);
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, b"last words"), Ok(()));
    rig.core().connection(id).unwrap().close_after_flush(Reason::ProtocolError);
    rig.turns(3);
    assert!(rig.receive_all(&mut client).ends_with(b"last words"));
    drop(client);
    rig.until_empty();
    assert_eq!(heard.count("source ended Over(ProtocolError)"), 1);
}

#[test]
fn closing_after_a_flush_releases_the_dest_at_once() {
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let (id, mut client) = rig.adopt(Kind::Unix, relay_to(addr));
    let mut server = rig.accept(&listener);
    rig.until("relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
    rig.core().connection(id).unwrap().send(Role::Source, b"bye").unwrap();
    rig.core().connection(id).unwrap().close_after_flush(Reason::NotPermitted);
    assert_eq!(rig.receive_end(&mut server).1, End::Fin);
    assert_eq!(rig.receive_all(&mut client), b"bye");
    assert_eq!(rig.core().connection(id).unwrap().side_of(Role::Dest), None);
    client.fin();
    rig.until_empty();
}

#[test]
fn relaying_begins_with_sent_bytes_and_then_unconsumed_input() {
    for config in modes() {
        let mut rig = Rig::new(config);
        let (listener, addr) = target();
        let (_, mut client) = rig.adopt(
            Kind::Tcp6,
            handler(move |cx, call| match call {
                Call::Readable(input) => {
                    assert_eq!(&input[..4], b"head");
                    dial(cx, addr);
                    4
                }
                Call::Connected(_) => {
                    cx.send(Role::Dest, b"HEAD").unwrap();
                    cx.relay();
                    0
                }
                call => by_default(cx, &call),
            }),
        );
        let rest = pattern(100_000);
        let mut wire = b"head".to_vec();
        wire.extend(&rest);
        let mut sent = client.try_send(&wire);
        let mut server = rig.accept(&listener);
        let mut got = Vec::new();
        rig.until("all bytes arrive", |_| {
            sent += if sent < wire.len() { client.try_send(&wire[sent..]) } else { 0 };
            server.try_receive(&mut got, usize::MAX);
            got.len() >= wire.len()
        });
        assert!(&got[..4] == b"HEAD" && got[4..] == rest);
    }
}

/// The end of a connection is reported once, with the first reason.
#[test]
fn the_first_end_reason_is_kept_and_the_peer_sees_a_reset() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (id, mut client) = {
        let notes = heard.clone();
        rig.adopt(
            Kind::Tcp4,
            handler(move |_, call| {
                if let Call::Ended(Cause::Over(reason)) = call {
                    notes.say(reason.as_str());
                }
                0
            }),
        )
    };
    rig.turn();
    let mut core = rig.core();
    let mut connection = core.connection(id).unwrap();
    connection.close(Reason::Killed);
    connection.close(Reason::IdleTimeout);
    connection.close_after_flush(Reason::AuthFailed);
    assert_eq!(core.connection(id).err(), Some(VerbError::Over(Reason::Killed)));
    rig.until_empty();
    assert_eq!(heard.all(), ["killed"]);
    assert_eq!(rig.receive_end(&mut client), (vec![], End::Reset));
}
