//! Tests of the protocols that a server names, and of the keys that it admits in each.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::WHOLE;
use super::kit::{give, node, shake, take};
use crate::tls::{Admission, Buffers, Cipher, HANDSHAKE_BYTES_MAX, Protocol, Tls, TlsError, TlsPipe};

/// A server that admits no key but that of node 1, and counts the questions about keys.
struct Server {
    tls: Tls,
    is_any_pending: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn new() -> Server {
        let (is_any_pending, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (pending, counted, wanted) = (Arc::clone(&is_any_pending), Arc::clone(&asked), node(1).public_key());
        let expired = node(3).public_key();
        let admission = Admission {
            wanted: Arc::new(move |key| {
                counted.fetch_add(1, Ordering::Relaxed);
                *key == wanted
            }),
            expired: Some(Arc::new(move |key| *key == expired)),
            invites: Some(Arc::new(move || pending.load(Ordering::Relaxed))),
        };
        let tls = Tls::server_for(&node(2), &Cipher::ALL, admission).unwrap();
        Server { tls, is_any_pending, asked }
    }

    fn pipe(&self, is_any_pending: bool) -> TlsPipe {
        self.is_any_pending.store(is_any_pending, Ordering::Relaxed);
        self.tls.pipe(&Rc::new(Buffers::new())).unwrap()
    }
}

fn link(number: u8) -> TlsPipe {
    Tls::client(&node(number), &Cipher::ALL, Arc::new(|_| true)).unwrap().pipe(&Rc::new(Buffers::new())).unwrap()
}

fn joiner(number: u8) -> TlsPipe {
    Tls::joiner(&node(number), &Cipher::ALL, Arc::new(|_| true)).unwrap().pipe(&Rc::new(Buffers::new())).unwrap()
}

#[test]
fn a_peer_with_an_invitation_may_have_any_key_while_one_is_pending() {
    let server = Server::new();
    let (mut client, mut pipe) = (joiner(7), server.pipe(true));
    assert_eq!(shake(&mut client, &mut pipe, WHOLE), (Ok(()), Ok(())));
    assert_eq!((client.protocol(), pipe.protocol()), (Protocol::Invite, Protocol::Invite));
    assert_eq!(pipe.peer_key(), Some(node(7).public_key()));
    assert_eq!(server.asked.load(Ordering::Relaxed), 0, "the list of keys is not asked");
    assert_eq!(pipe.exporter("EXPORTER-x", &[]), client.exporter("EXPORTER-x", &[]));
}

#[test]
fn without_a_pending_invitation_the_protocol_is_refused_as_by_an_earlier_version() {
    let server = Server::new();
    let (mut client, mut pipe) = (joiner(1), server.pipe(false));
    assert_eq!(shake(&mut client, &mut pipe, WHOLE), (Err(TlsError::Alpn), Err(TlsError::Alpn)));
    let plain = Tls::server(&node(2), &Cipher::ALL, Arc::new(|_| true)).unwrap();
    let (mut client, mut pipe) = (joiner(1), plain.pipe(&Rc::new(Buffers::new())).unwrap());
    assert_eq!(shake(&mut client, &mut pipe, WHOLE), (Err(TlsError::Alpn), Err(TlsError::Alpn)));
}

#[test]
fn a_pending_invitation_admits_no_other_key_to_a_link() {
    let server = Server::new();
    for is_any_pending in [false, true] {
        let (mut client, mut pipe) = (link(7), server.pipe(is_any_pending));
        let refused = TlsError::KeyRefused(node(7).public_key());
        assert_eq!(shake(&mut client, &mut pipe, WHOLE), (Err(TlsError::OurKeyRefused), Err(refused)));
        let (mut client, mut pipe) = (link(1), server.pipe(is_any_pending));
        assert_eq!(shake(&mut client, &mut pipe, WHOLE), (Ok(()), Ok(())));
        assert_eq!(pipe.protocol(), Protocol::Link);
    }
}

#[test]
fn an_expired_key_is_told_so() {
    let server = Server::new();
    let (mut client, mut pipe) = (link(3), server.pipe(false));
    assert_eq!(shake(&mut client, &mut pipe, WHOLE), (Err(TlsError::OurKeyExpired), Err(TlsError::KeyExpired)));
}

#[test]
fn a_peer_with_an_invitation_may_send_no_more_than_a_handshake() {
    let server = Server::new();
    let (mut client, mut pipe) = (joiner(7), server.pipe(true));
    assert_eq!(shake(&mut client, &mut pipe, WHOLE), (Ok(()), Ok(())));
    let mut out = Vec::new();
    client.seal([&[1; 512][..]]).unwrap();
    give(&mut pipe, &take(&mut client), WHOLE, &mut out).unwrap();
    assert_eq!(out.concat(), [1; 512]);
    client.seal([&[1; HANDSHAKE_BYTES_MAX][..]]).unwrap();
    assert_eq!(give(&mut pipe, &take(&mut client), WHOLE, &mut out), Err(TlsError::TooMuch));
}
