//! Tests of a connection that both ends have dialed: two ClientHellos cross.

use std::rc::Rc;
use std::sync::Arc;

use super::kit::{give, node, server, shake, take};
use super::{WHOLE, joined, text};
use crate::tls::{
    Admission, Buffers, Cipher, Crossed, FirstMessage, HANDSHAKE_BYTES_MAX, Tls, TlsError, TlsPipe, Verify,
};

/// Returns a pipe of node `number` that becomes a server if the peer is a client, and accepts only the key of `wanted`.
fn either(number: u8, wanted: u8) -> TlsPipe {
    let wanted = node(wanted).public_key();
    let verify: Verify = Arc::new(move |key| *key == wanted);
    let tls = Tls::either(&node(number), &Cipher::preferred(), Admission::from(verify)).unwrap();
    tls.pipe(&Rc::new(Buffers::new())).unwrap()
}

/// Returns the random number of the hello that a pipe is about to send.
fn random(pipe: &mut TlsPipe) -> [u8; 32] {
    let mut random = None;
    pipe.write_to(|bytes| {
        let FirstMessage::ClientHello(hello) = FirstMessage::read(bytes) else { panic!("a ClientHello") };
        random = Some(*hello.random);
        Ok(0)
    })
    .unwrap();
    random.unwrap()
}

/// Returns two pipes of the nodes 1 and 2, of which the first one has the lower random number.
fn lower_and_higher() -> (TlsPipe, TlsPipe) {
    loop {
        let (mut one, mut other) = (either(1, 2), either(2, 1));
        if random(&mut one) < random(&mut other) {
            return (one, other);
        }
    }
}

/// Returns the roles, which must fit together, and the digest of both hellos.
fn crossed(one: &TlsPipe, other: &TlsPipe) -> (bool, [u8; 32]) {
    let (Some(one), Some(other)) = (one.crossed(), other.crossed()) else { panic!("the hellos have crossed") };
    assert_eq!(*other, Crossed { is_server: !one.is_server, digest: one.digest });
    (one.is_server, one.digest)
}

/// Sends text in both directions.
fn exchange(one: &mut TlsPipe, other: &mut TlsPipe) {
    let sent = text(50_000);
    let send = |from: &mut TlsPipe, to: &mut TlsPipe| {
        let mut out = Vec::new();
        from.seal([&sent[..]]).unwrap();
        give(to, &take(from), WHOLE, &mut out).unwrap();
        assert!(joined(&out) == sent);
    };
    send(one, other);
    send(other, one);
}

#[test]
fn of_two_clients_the_one_with_the_lower_random_becomes_the_server() {
    for step in [1, 5, 6, 47, 1_000, WHOLE] {
        for is_first in [true, false] {
            let (mut lower, mut higher) = lower_and_higher();
            let (one, other) = if is_first { (&mut lower, &mut higher) } else { (&mut higher, &mut lower) };
            assert_eq!(shake(one, other, step), (Ok(()), Ok(())), "in steps of {step}");
            let (is_server, digest) = crossed(&lower, &higher);
            assert!(is_server, "in steps of {step}");
            assert_eq!(lower.peer_key(), Some(node(2).public_key()));
            assert_eq!(higher.peer_key(), Some(node(1).public_key()));
            let secret = |pipe: &TlsPipe| pipe.exporter("EXPORTER-test", &digest).unwrap();
            assert_eq!(secret(&lower), secret(&higher));
            exchange(&mut lower, &mut higher);
        }
    }
}

#[test]
fn a_hello_that_comes_before_the_own_one_is_written_leaves_the_own_one_in_front() {
    let (mut lower, mut higher) = lower_and_higher();
    let own = random(&mut lower);
    give(&mut lower, &take(&mut higher), WHOLE, &mut Vec::new()).unwrap();
    assert_eq!(random(&mut lower), own);
    assert_eq!(shake(&mut lower, &mut higher, WHOLE), (Ok(()), Ok(())));
    assert!(crossed(&lower, &higher).0);
}

#[test]
fn an_ordinary_server_answers_a_client_that_may_become_one() {
    for step in [1, WHOLE] {
        let mut client = either(1, 2);
        let mut server = server(2, 1, &Cipher::preferred()).pipe(&Rc::new(Buffers::new())).unwrap();
        assert_eq!(shake(&mut client, &mut server, step), (Ok(()), Ok(())));
        assert_eq!((client.crossed(), server.crossed()), (None, None));
        exchange(&mut client, &mut server);
    }
}

#[test]
fn an_own_hello_that_comes_back_ends_the_connection() {
    let mut pipe = either(1, 1);
    let wire = take(&mut pipe);
    let (head, tail) = wire.split_at(wire.len() - 1);
    give(&mut pipe, head, WHOLE, &mut Vec::new()).unwrap();
    assert_eq!(give(&mut pipe, tail, WHOLE, &mut Vec::new()), Err(TlsError::Reflected));
    assert_eq!(pipe.open(&mut Vec::new()), Err(TlsError::Reflected));
    assert_eq!((pipe.unsent(), pipe.peer_key(), pipe.crossed()), (0, None, None));
}

#[test]
fn a_key_that_is_not_accepted_is_refused_in_both_roles() {
    let (mut is_client, mut is_server) = (false, false);
    while !(is_client && is_server) {
        let (mut strict, mut stranger) = (either(1, 3), either(2, 1));
        let ends = shake(&mut strict, &mut stranger, WHOLE);
        let refused = (Err(TlsError::KeyRefused(node(2).public_key())), Err(TlsError::OurKeyRefused));
        assert_eq!(ends, refused);
        let is_lower = strict.crossed().unwrap().is_server;
        (is_client, is_server) = (is_client || !is_lower, is_server || is_lower);
    }
}

#[test]
fn an_altered_hello_of_the_later_server_shows_in_the_digest() {
    let (mut lower, mut higher) = lower_and_higher();
    let mut hello = take(&mut lower);
    // The last byte belongs to an extension, and the library of the client never sees this message.
    *hello.last_mut().unwrap() ^= 1;
    give(&mut higher, &hello, WHOLE, &mut Vec::new()).unwrap();
    assert_eq!(shake(&mut higher, &mut lower, WHOLE), (Ok(()), Ok(())));
    let (one, other) = (lower.crossed().unwrap(), higher.crossed().unwrap());
    assert_eq!((one.is_server, other.is_server), (true, false));
    assert_ne!(one.digest, other.digest);
}

#[test]
fn an_altered_random_that_gives_both_ends_one_role_links_nobody() {
    for random in [[0; 32], [0xff; 32]] {
        let (mut one, mut other) = (either(1, 2), either(2, 1));
        let (mut there, mut back) = (take(&mut one), take(&mut other));
        [&mut there, &mut back].into_iter().for_each(|wire| wire[11..43].copy_from_slice(&random));
        let _ = give(&mut other, &there, WHOLE, &mut Vec::new());
        let _ = give(&mut one, &back, WHOLE, &mut Vec::new());
        let _ = shake(&mut one, &mut other, WHOLE);
        assert_eq!((one.peer_key(), other.peer_key()), (None, None));
        assert!(one.exporter("EXPORTER-test", &[]).is_none() && other.exporter("EXPORTER-test", &[]).is_none());
    }
}

#[test]
fn other_first_messages_go_to_the_library() {
    let hello = take(&mut either(2, 1));
    let split = {
        // The same message in two records.
        let (head, tail) = hello[5..].split_at(100);
        let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
        [record(head), record(tail)].concat()
    };
    let short = [&[22, 3, 1, 0, 37, 1, 0, 0, 33][..], &[0; 33]].concat();
    for (name, wire) in [("two records", split), ("a short hello", short), ("no TLS", b"HTTP/1.0 400\r\n".to_vec())] {
        let mut pipe = either(1, 2);
        assert_eq!(give(&mut pipe, &wire, WHOLE, &mut Vec::new()), Err(TlsError::NotTls), "{name}");
        assert_eq!(pipe.crossed(), None);
    }
    let mut pipe = either(1, 2);
    let endless = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; HANDSHAKE_BYTES_MAX]].concat();
    let result = give(&mut pipe, &endless[..HANDSHAKE_BYTES_MAX], WHOLE, &mut Vec::new());
    assert_eq!(result, Err(TlsError::TooMuch));
}
