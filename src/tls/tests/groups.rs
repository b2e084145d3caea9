//! Tests of the key exchange: the ClientHello on the wire, and nodes that have one of the groups only.

use std::rc::Rc;
use std::sync::Arc;

use super::hello::{X25519, X25519_MLKEM768, parse};
use super::kit::{node, shake, take};
use super::{WHOLE, text};
use crate::tls::{Buffers, Cipher, Group, HANDSHAKE_BYTES_MAX, Suite, Tls, TlsError, TlsPipe};

/// Returns a client and a server with these groups.
fn pair(of_client: &[Group], of_server: &[Group]) -> (TlsPipe, TlsPipe) {
    let (ciphers, buffers) = (Cipher::preferred(), Rc::new(Buffers::new()));
    let suite = |groups| Suite { ciphers: &ciphers, groups };
    let client = Tls::client(&node(1), suite(of_client), Arc::new(|_| true)).unwrap();
    let server = Tls::server(&node(2), suite(of_server), Arc::new(|_| true)).unwrap();
    (client.pipe(&buffers).unwrap(), server.pipe(&buffers).unwrap())
}

/// Returns true if this processor has the post-quantum key exchange. Says so otherwise.
fn has_hybrid() -> bool {
    let has = Group::X25519MlKem768.is_available();
    if !has {
        eprintln!("skipped: this processor has no X25519MLKEM768");
    }
    has
}

#[test]
fn the_hello_offers_the_post_quantum_group_first_and_a_share_of_both() {
    let (mut client, _) = pair(&[], &[]);
    let hello = parse(&take(&mut client));
    if !has_hybrid() {
        assert_eq!((hello.supported, hello.shares), (vec![X25519], vec![(X25519, 32)]));
        return;
    }
    assert_eq!(hello.supported, [X25519_MLKEM768, X25519]);
    assert_eq!(hello.shares, [(X25519_MLKEM768, 1184 + 32), (X25519, 32)]);
    // Two segments of Ethernet, and far below the limit.
    assert!((1300..2 * 1400).contains(&hello.bytes) && hello.bytes * 8 < HANDSHAKE_BYTES_MAX, "{} bytes", hello.bytes);
}

#[test]
fn a_restricted_client_sends_the_hello_of_the_first_versions() {
    let (mut client, _) = pair(&[Group::X25519], &[]);
    let hello = parse(&take(&mut client));
    assert_eq!((hello.supported, hello.shares), (vec![X25519], vec![(X25519, 32)]));
    assert!(hello.bytes < 300, "{} bytes", hello.bytes);
}

#[test]
fn nodes_take_the_post_quantum_group_and_x25519_with_a_node_that_has_no_other() {
    let newest = if has_hybrid() { Group::X25519MlKem768 } else { Group::X25519 };
    let old = &[Group::X25519][..];
    for (client, server, want) in [(&[][..], &[][..], newest), (&[], old, Group::X25519), (old, &[], Group::X25519)] {
        for step in [1, 700, WHOLE] {
            let (mut client, mut server) = pair(client, server);
            assert_eq!((client.group(), server.group()), (None, None));
            let hello = take(&mut client);
            // The first flight of the server ends the handshake for the client: no group costs another round trip.
            super::give(&mut server, &hello, step, &mut Vec::new()).unwrap();
            let flight = take(&mut server);
            super::give(&mut client, &flight, step, &mut Vec::new()).unwrap();
            assert!(!client.is_handshaking(), "one round trip");
            assert_eq!(shake(&mut client, &mut server, step), (Ok(()), Ok(())));
            assert_eq!((client.group(), server.group()), (Some(want), Some(want)));
            client.seal([&text(20_000)[..]]).unwrap();
            let mut out = Vec::new();
            super::give(&mut server, &take(&mut client), WHOLE, &mut out).unwrap();
            assert!(super::joined(&out) == text(20_000));
        }
    }
}

#[test]
fn nodes_without_a_common_group_say_so() {
    if !has_hybrid() {
        return;
    }
    let (mut client, mut server) = pair(&[Group::X25519MlKem768], &[Group::X25519]);
    let hello = parse(&take(&mut pair(&[Group::X25519MlKem768], &[]).0));
    assert_eq!(hello.supported, [X25519_MLKEM768], "a node that wants it alone offers it alone");
    let (at_client, at_server) = shake(&mut client, &mut server, WHOLE);
    assert!(matches!(at_client, Err(TlsError::Incompatible(_))), "{at_client:?}");
    assert!(matches!(at_server, Err(TlsError::Incompatible(_))), "{at_server:?}");
}

/// Flips bytes of a share, and cuts shares.
#[test]
fn an_altered_share_fails_the_handshake_and_nothing_else() {
    if !has_hybrid() {
        return;
    }
    // A share begins with its group and its length, 1,216.
    let place_of = |hello: &[u8]| hello.windows(4).position(|bytes| bytes == [0x11, 0xec, 0x04, 0xc0]).unwrap() + 4;
    for place in (0..1216).step_by(122).chain([1183, 1184, 1215]) {
        let (mut client, mut server) = pair(&[], &[]);
        let mut hello = take(&mut client);
        let at = place_of(&hello) + place;
        hello[at] ^= 0x40;
        // An altered share may be a valid one. Then the ends have different keys, and the client finds out.
        if super::give(&mut server, &hello, WHOLE, &mut Vec::new()).is_ok() {
            let result = super::give(&mut client, &take(&mut server), WHOLE, &mut Vec::new());
            assert!(result.is_err(), "at {place}: {result:?}");
        }
        assert_eq!((client.peer_key(), server.peer_key()), (None, None), "at {place}");
    }
    for cut in [1, 32, 1184, 1215] {
        let (mut client, mut server) = pair(&[], &[]);
        let mut hello = take(&mut client);
        let at = place_of(&hello);
        hello.drain(at..at + cut);
        let length = (hello.len() - 5) as u16;
        hello[3..5].copy_from_slice(&length.to_be_bytes());
        // The lengths inside the record do not fit any more: the message is incomplete or malformed.
        let result = super::give(&mut server, &hello, WHOLE, &mut Vec::new());
        assert!(result.is_err() || server.unsent() == 0, "cut by {cut}: {result:?}");
        assert_eq!(server.peer_key(), None, "cut by {cut}");
    }
}
