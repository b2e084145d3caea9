//! Tests of the TLS pipe, with two pipes in memory.

#[path = "tests/admission.rs"]
mod admission;
#[path = "tests/crafted.rs"]
mod crafted;
#[path = "tests/crossing.rs"]
mod crossing;
#[path = "tests/groups.rs"]
mod groups;
#[path = "../../tests/kit/tls/hello.rs"]
mod hello;
#[path = "../../tests/kit/tls/mod.rs"]
mod kit;
#[path = "tests/records.rs"]
mod records;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::tls::{
    Buffers, Cipher, HANDSHAKE_BYTES_MAX, RECORD_BYTES, RECORD_OVERHEAD, Tls, TlsError, TlsPipe, WRITE_BYTES,
};
use kit::{client, give, node, open_pair, pair, pair_on, read, server, shake, take};

const WHOLE: usize = usize::MAX;

fn joined(out: &[Bytes]) -> Vec<u8> {
    out.concat()
}

/// Returns bytes whose pattern does not repeat at record sizes.
fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn a_pipe_accepts_its_input_in_pieces_of_any_size() {
    for step in [1, 2, 5, 6, 100, 16_405, WHOLE] {
        let (mut client, mut server) = pair(&Cipher::preferred());
        assert_eq!(shake(&mut client, &mut server, step), (Ok(()), Ok(())), "in steps of {step}");
        assert_eq!(client.peer_key(), Some(node(2).public_key()));
        assert_eq!(server.peer_key(), Some(node(1).public_key()));
        let sent = text(if step < 5 { 20_000 } else { 200_000 });
        client.seal([&sent[..7], &[], &sent[7..18_000], &sent[18_000..]]).unwrap();
        let mut out = Vec::new();
        give(&mut server, &take(&mut client), step, &mut out).unwrap();
        assert!(joined(&out) == sent, "in steps of {step}");
        assert!(out.iter().all(|piece| piece.len() <= RECORD_BYTES + RECORD_OVERHEAD), "a piece holds one slot");
        server.seal([&sent[..100]]).unwrap();
        out.clear();
        give(&mut client, &take(&mut server), step, &mut out).unwrap();
        assert_eq!(joined(&out), &sent[..100]);
    }
}

#[test]
fn parts_are_gathered_into_full_records() {
    let (mut client, _server) = open_pair(&Cipher::preferred());
    let sent = text(3 * RECORD_BYTES);
    client.seal([&sent[..16], &sent[16..RECORD_BYTES]]).unwrap();
    assert_eq!(client.unsent(), RECORD_BYTES + RECORD_OVERHEAD, "one record");
    client.seal([&sent[..20_000], &sent[20_000..], &[1]]).unwrap();
    assert_eq!(client.unsent(), 4 * (RECORD_BYTES + RECORD_OVERHEAD) + 1 + RECORD_OVERHEAD);
    client.seal([]).unwrap();
    client.seal([&[][..]]).unwrap();
    assert_eq!(client.unsent(), 4 * (RECORD_BYTES + RECORD_OVERHEAD) + 1 + RECORD_OVERHEAD, "no record without bytes");
}

#[test]
fn partial_writes_lose_nothing() {
    let (mut client, mut server) = open_pair(&Cipher::preferred());
    let (sent, mut wire, mut at) = (text(900_000), Vec::new(), 0);
    while at < sent.len() || client.unsent() > 0 {
        while at < sent.len() && client.unsent() + RECORD_BYTES + RECORD_OVERHEAD <= WRITE_BYTES {
            let end = sent.len().min(at + 9_000);
            client.seal([&sent[at..end]]).unwrap();
            at = end;
        }
        let some = client.write_to(|bytes| {
            let some = bytes.len().min(25_000);
            wire.extend_from_slice(&bytes[..some]);
            Ok(some)
        });
        assert!(some.unwrap() > 0);
    }
    let mut out = Vec::new();
    give(&mut server, &wire, WHOLE, &mut out).unwrap();
    assert!(joined(&out) == sent);
    assert!(client.write_to(|_| panic!("there is nothing to write")).unwrap() == 0);
}

#[test]
fn each_cipher_works_and_the_order_of_the_client_decides() {
    for cipher in Cipher::ALL {
        let (mut client, mut server) = open_pair(&[cipher]);
        assert_eq!((client.cipher(), server.cipher()), (Some(cipher), Some(cipher)));
        let mut out = Vec::new();
        client.seal([&b"hello"[..]]).unwrap();
        give(&mut server, &take(&mut client), WHOLE, &mut out).unwrap();
        assert_eq!(joined(&out), b"hello");
        assert_eq!(Cipher::parse(cipher.name()), Some(cipher));
    }
    let buffers = Rc::new(Buffers::new());
    let [a, b, c] = Cipher::ALL;
    for (offered, taken, chosen) in
        [(&[c, a][..], &[a, b, c][..], Some(c)), (&[b, c], &[c, b], Some(b)), (&[a], &[b, c], None)]
    {
        let mut client = client(1, 2, offered).pipe(&buffers).unwrap();
        let mut server = server(2, 1, taken).pipe(&buffers).unwrap();
        let ends = shake(&mut client, &mut server, WHOLE);
        match chosen {
            Some(_) => assert_eq!((ends, client.cipher()), ((Ok(()), Ok(())), chosen)),
            None => {
                assert!(matches!(ends, (Err(TlsError::Incompatible(_)), Err(TlsError::Incompatible(_)))), "{ends:?}")
            }
        }
    }
    assert!(Tls::client(&node(1), &[], Arc::new(|_| true)).is_err());
}

#[test]
fn both_ends_report_a_refused_key() {
    let buffers = Rc::new(Buffers::new());
    let ciphers = Cipher::preferred();
    // The server does not know the client.
    let (mut dialer, mut acceptor) =
        (client(9, 2, &ciphers).pipe(&buffers).unwrap(), server(2, 1, &ciphers).pipe(&buffers).unwrap());
    let refused = node(9).public_key();
    let ends = shake(&mut dialer, &mut acceptor, WHOLE);
    assert_eq!(ends, (Err(TlsError::OurKeyRefused), Err(TlsError::KeyRefused(refused))));
    assert_eq!(acceptor.peer_key(), Some(refused));
    assert_eq!(acceptor.seal([&b"x"[..]]), Err(TlsError::KeyRefused(refused)));
    assert_eq!(acceptor.exporter("x", b""), None);
    // The client does not know the server.
    let (mut dialer, mut acceptor) =
        (client(1, 2, &ciphers).pipe(&buffers).unwrap(), server(9, 1, &ciphers).pipe(&buffers).unwrap());
    let ends = shake(&mut dialer, &mut acceptor, 1);
    assert_eq!(ends, (Err(TlsError::KeyRefused(refused)), Err(TlsError::OurKeyRefused)));
    assert_eq!((dialer.peer_key(), acceptor.peer_key()), (Some(refused), None));
}

#[test]
fn garbage_is_reported_as_not_tls() {
    let random: Vec<u8> = text(5000).iter().map(|byte| byte.wrapping_mul(73) ^ 0x5a).collect();
    for garbage in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0; 600], &[0xff; 600], &random] {
        for step in [1, WHOLE] {
            let (mut client, mut server) = pair(&Cipher::preferred());
            assert_eq!(give(&mut server, garbage, step, &mut Vec::new()), Err(TlsError::NotTls));
            assert_eq!(give(&mut client, garbage, step, &mut Vec::new()), Err(TlsError::NotTls));
        }
    }
}

#[test]
fn an_unauthenticated_peer_may_send_16_kib() {
    let (mut client, _) = pair(&Cipher::preferred());
    // A ClientHello of 60 000 bytes in records of 1000; a valid ClientHello, and then an endless record.
    let mut long = vec![1, 0, 0xea, 0x60];
    long.resize(17 * 1024, 0);
    let long: Vec<u8> = long.chunks(1000).flat_map(|part| [&[22, 3, 1, 3, 0xe8][..], part].concat()).collect();
    let good = [&take(&mut client)[..], &[23, 3, 3, 0x41, 0], &[0; 17 * 1024]].concat();
    for wire in [long, good] {
        let (_, mut server) = pair(&Cipher::preferred());
        let (mut at, mut out) = (0, Vec::new());
        let result = loop {
            let bytes = server
                .read_from(|room| {
                    let bytes = room.len().min(3000).min(wire.len() - at);
                    room[..bytes].copy_from_slice(&wire[at..at + bytes]);
                    Ok(bytes)
                })
                .unwrap();
            at += bytes;
            if let Err(error) = server.open(&mut out) {
                break error;
            }
            assert!(bytes > 0, "the limit is an error, not a pause");
        };
        assert_eq!((result, at), (TlsError::TooMuch, HANDSHAKE_BYTES_MAX));
        assert_eq!(server.read_from(|_| panic!("nothing more is read")).unwrap(), 0);
    }
}

/// Returns three records, the second of them altered. The third is large, so that a record whose length has grown is still
/// complete.
fn altered(client: &mut TlsPipe, bit: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for part in [&[1; 100][..], &[2; 100], &[3; 40_000]] {
        client.seal([part]).unwrap();
        wire.append(&mut take(client));
    }
    wire[122 + bit / 8] ^= 1 << (bit % 8);
    wire
}

#[test]
fn no_plaintext_after_a_flipped_bit_is_handed_out() {
    for bit in [24, 31, 32, 39, 40, 41, 400, 8 * 121] {
        let (mut client, mut server) = open_pair(&Cipher::preferred());
        let mut out = Vec::new();
        let wire = altered(&mut client, bit);
        let error = give(&mut server, &wire, WHOLE, &mut out).unwrap_err();
        // An impossible length is reported before the tag is checked.
        assert!(bit < 40 || error == TlsError::Authentication, "bit {bit}: {error}");
        assert_eq!(joined(&out), [1; 100], "bit {bit}");
        client.seal([&[4; 100][..]]).unwrap();
        assert_eq!(server.read_from(|_| panic!("nothing is read")).unwrap(), 0);
        assert_eq!(server.open(&mut out), Err(error.clone()));
        assert_eq!(joined(&out), [1; 100], "bit {bit}");
        // The peer gets the alert.
        let told = give(&mut client, &take(&mut server), WHOLE, &mut Vec::new()).unwrap_err();
        assert!(bit < 40 || told == TlsError::Authentication, "bit {bit}: {told}");
    }
}

/// The library authenticates the type and the version that a header should have, not those in the header.
#[test]
fn a_flipped_bit_of_type_or_version_does_not_alter_plaintext() {
    for bit in 0..24 {
        let (mut client, mut server) = open_pair(&Cipher::preferred());
        let mut out = Vec::new();
        let wire = altered(&mut client, bit);
        match give(&mut server, &wire, WHOLE, &mut out) {
            Ok(()) => assert!(joined(&out) == [&[1; 100][..], &[2; 100], &[3; 40_000]].concat(), "bit {bit}"),
            Err(_) => assert_eq!(joined(&out), [1; 100], "bit {bit}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_a_handshake_fails_it_or_changes_nothing() {
    let (mut probe, mut other) = pair(&Cipher::preferred());
    let hello = take(&mut probe);
    give(&mut other, &hello, WHOLE, &mut Vec::new()).unwrap();
    let flights = [hello.len(), take(&mut other).len()];
    let mut open = 0;
    for (flight, bytes) in flights.into_iter().enumerate() {
        for at in 0..bytes {
            let (mut client, mut server) = pair(&Cipher::preferred());
            let mut wire = take(&mut client);
            if flight == 0 {
                wire[at] ^= 0x10;
            }
            let _ = give(&mut server, &wire, WHOLE, &mut Vec::new());
            let mut wire = take(&mut server);
            if flight == 1 && at < wire.len() {
                wire[at] ^= 0x10;
            }
            let _ = give(&mut client, &wire, WHOLE, &mut Vec::new());
            let _ = shake(&mut client, &mut server, WHOLE);
            if !client.is_handshaking() && !server.is_handshaking() && client.seal([&b"x"[..]]).is_ok() {
                open += usize::from(server.seal([&b"x"[..]]).is_ok());
                assert_eq!(client.exporter("x", b""), server.exporter("x", b""), "byte {at} of flight {flight}");
            }
        }
    }
    assert!(open <= 4, "only the versions of the first two records are not checked: {open}");
}

#[test]
fn an_end_of_input_without_close_notify_is_a_truncation() {
    let (mut client, mut server) = pair(&Cipher::preferred());
    assert_eq!(client.end_of_input(), Err(TlsError::Truncated), "during the handshake");
    assert_eq!(server.end_of_input(), Err(TlsError::Truncated));
    let (mut client, mut server) = open_pair(&Cipher::preferred());
    client.seal([&[7; 1000][..]]).unwrap();
    let (wire, mut out) = (take(&mut client), Vec::new());
    give(&mut server, &wire[..900], WHOLE, &mut out).unwrap();
    assert!(out.is_empty(), "no part of a record is handed out");
    assert_eq!(server.end_of_input(), Err(TlsError::Truncated));
    assert_eq!(server.open(&mut out), Err(TlsError::Truncated));
}

#[test]
fn close_notify_ends_the_pipe() {
    let buffers = Rc::new(Buffers::new());
    let (mut client, mut server) = pair_on(&buffers, &Cipher::preferred());
    assert_eq!(shake(&mut client, &mut server, WHOLE), (Ok(()), Ok(())));
    client.seal([&b"last"[..]]).unwrap();
    client.close_notify();
    client.close_notify();
    assert_eq!(client.seal([&b"x"[..]]), Err(TlsError::NotOpen));
    let (mut wire, mut out) = (take(&mut client), Vec::new());
    wire.extend_from_slice(b"what follows is not the peer's");
    give(&mut server, &wire, WHOLE, &mut out).unwrap();
    assert_eq!((joined(&out), server.is_ended(), server.end_of_input()), (b"last".to_vec(), true, Ok(())));
    assert_eq!(buffers.kept().0, 3, "nothing waits: neither in the slots of the read nor in that of small records");
    // The other direction is still open, but the client discards its input.
    server.seal([&b"late"[..]]).unwrap();
    server.close_notify();
    out.clear();
    give(&mut client, &take(&mut server), WHOLE, &mut out).unwrap();
    assert_eq!((out.len(), client.end_of_input()), (0, Ok(())));
}

#[test]
fn a_pipe_that_is_not_open_seals_nothing() {
    let (mut client, mut server) = pair(&Cipher::preferred());
    assert_eq!(client.seal([&b"early"[..]]), Err(TlsError::NotOpen));
    give(&mut server, &take(&mut client), WHOLE, &mut Vec::new()).unwrap();
    assert_eq!(server.seal([&b"early"[..]]), Err(TlsError::NotOpen), "before the client has shown its key");
    assert_eq!((server.exporter("x", b""), server.peer_key()), (None, None));
}

#[test]
fn exported_key_material_belongs_to_one_connection() {
    let (client, server) = open_pair(&Cipher::preferred());
    let key = client.exporter("seaprox a", b"context").unwrap();
    assert_eq!(server.exporter("seaprox a", b"context"), Some(key));
    assert_ne!(server.exporter("seaprox b", b"context"), Some(key));
    assert_ne!(server.exporter("seaprox a", b"other"), Some(key));
    let (other, _) = open_pair(&Cipher::preferred());
    assert_ne!(other.exporter("seaprox a", b"context"), Some(key));
}

#[test]
fn a_replayed_client_is_refused() {
    let (mut client, mut server) = pair(&Cipher::preferred());
    let mut capture = take(&mut client);
    give(&mut server, &capture, WHOLE, &mut Vec::new()).unwrap();
    give(&mut client, &take(&mut server), WHOLE, &mut Vec::new()).unwrap();
    client.seal([&b"pay 100"[..]]).unwrap();
    let rest = take(&mut client);
    let mut out = Vec::new();
    give(&mut server, &rest, WHOLE, &mut out).unwrap();
    assert_eq!(joined(&out), b"pay 100", "the first time");
    capture.extend_from_slice(&rest);
    let (_, mut again) = pair(&Cipher::preferred());
    out.clear();
    assert_eq!(give(&mut again, &capture, WHOLE, &mut out), Err(TlsError::Authentication));
    assert_eq!((out.len(), again.peer_key()), (0, None));
    // A record is not accepted twice within its own connection either.
    client.seal([&b"pay 200"[..]]).unwrap();
    let record = take(&mut client);
    let twice = [&record[..], &record].concat();
    assert_eq!(give(&mut server, &twice, WHOLE, &mut out), Err(TlsError::Authentication));
    assert_eq!(joined(&out), b"pay 200");
}

#[test]
fn plaintext_and_keys_are_not_visible_on_the_wire() {
    let secret = b"in the clear? never";
    let (mut client, mut server) = pair(&Cipher::preferred());
    let mut seen = take(&mut client);
    let mut out = Vec::new();
    give(&mut server, &seen, WHOLE, &mut out).unwrap();
    let answer = take(&mut server);
    give(&mut client, &answer, WHOLE, &mut out).unwrap();
    client.seal([&secret[..], &text(20_000), &secret[..]]).unwrap();
    seen.extend_from_slice(&answer);
    seen.extend_from_slice(&take(&mut client));
    let shows = |what: &[u8]| seen.windows(what.len()).any(|window| window == what);
    assert!(!shows(&secret[..8]), "the payload");
    assert!(!shows(&node(1).public_key()) && !shows(&node(2).public_key()), "the keys");
    assert!(!shows(b"invalid"), "a name");
    assert!(shows(b"seaprox/1"), "the protocol is visible");
}

#[test]
fn an_idle_pipe_holds_no_buffer() {
    let buffers = Rc::new(Buffers::new());
    let mut client = client(1, 2, &Cipher::preferred()).pipe(&buffers).unwrap();
    let mut server = server(2, 1, &Cipher::preferred()).pipe(&buffers).unwrap();
    assert_eq!(shake(&mut client, &mut server, WHOLE), (Ok(()), Ok(())));
    assert_eq!(buffers.kept(), (0, 0), "a handshake needs no large buffer");
    client.seal([&text(RECORD_BYTES)[..]]).unwrap();
    assert_eq!(buffers.kept(), (0, 0));
    let (wire, mut out) = (take(&mut client), Vec::new());
    give(&mut server, &wire[..10_000], WHOLE, &mut out).unwrap();
    assert_eq!(buffers.kept(), (1, 1), "half a record waits, in the other slot of its read");
    give(&mut server, &wire[10_000..], WHOLE, &mut out).unwrap();
    assert_eq!(buffers.kept(), (1, 1), "the plaintext lies where the record was");
    drop(out);
    let error = server.read_from(|_| Err(std::io::ErrorKind::WouldBlock.into())).unwrap_err();
    assert_eq!((error.kind(), buffers.kept()), (std::io::ErrorKind::WouldBlock, (2, 1)));
}

#[test]
fn the_memory_of_a_dropped_piece_is_reused() {
    let (mut client, mut server) = open_pair(&Cipher::preferred());
    let (mut kept, mut seen) = (Vec::new(), std::collections::HashSet::new());
    for round in 0..20u8 {
        client.seal([&vec![round; 6 * RECORD_BYTES][..]]).unwrap();
        let mut out = Vec::new();
        give(&mut server, &take(&mut client), WHOLE, &mut out).unwrap();
        assert_eq!(out.len(), 6, "one piece for each record");
        seen.extend(out.iter().map(|piece| piece.as_ptr()));
        if round < 3 {
            kept.push(out);
        }
    }
    let is_unchanged = |(out, round): (&Vec<Bytes>, u8)| joined(out) == vec![round; 6 * RECORD_BYTES];
    assert!(kept.iter().zip(0..).all(is_unchanged), "kept pieces do not change");
    assert!(seen.len() <= 3 * 6 + 16, "18 pieces are kept, and the others share the slots of a read: {}", seen.len());
}

#[test]
fn sealing_does_not_process_received_bytes() {
    let (mut client, mut server) = open_pair(&Cipher::preferred());
    client.seal([&text(30_000)[..]]).unwrap();
    let (wire, mut out) = (take(&mut client), Vec::new());
    for part in wire.chunks(7_000) {
        assert_eq!(read(&mut server, part, WHOLE), part.len());
        server.seal([&b"meanwhile"[..]]).unwrap();
        server.open(&mut out).unwrap();
        server.seal([&b"meanwhile"[..]]).unwrap();
    }
    assert!(joined(&out) == text(30_000));
    out.clear();
    give(&mut client, &take(&mut server), WHOLE, &mut out).unwrap();
    assert_eq!(joined(&out), b"meanwhile".repeat(2 * wire.chunks(7_000).len()));
}

#[test]
fn the_verifier_is_asked_once_and_only_for_a_proven_key() {
    let (asked, buffers) = (Arc::new(AtomicUsize::new(0)), Rc::new(Buffers::new()));
    let count = Arc::clone(&asked);
    let acceptor = Tls::server(
        &node(2),
        &Cipher::preferred(),
        Arc::new(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            true
        }),
    )
    .unwrap();
    let mut server = acceptor.pipe(&buffers).unwrap();
    let mut client = client(1, 2, &Cipher::preferred()).pipe(&buffers).unwrap();
    assert_eq!(shake(&mut client, &mut server, 1), (Ok(()), Ok(())));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // A peer that shows another node's key and signs with its own.
    let mut server = acceptor.pipe(&buffers).unwrap();
    let mut thief = crafted::Peer::client(|shown, _| shown.seed = 66);
    assert_eq!(thief.shake(&mut server), Err(TlsError::Authentication));
    assert_eq!((asked.load(Ordering::Relaxed), server.peer_key()), (1, None));
}
