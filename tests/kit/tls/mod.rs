//! Two pipes connected in memory, for the tests and the benches of the encryption.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::tls::{Buffers, Cipher, Identity, Tls, TlsError, TlsPipe};

/// Returns the identity of the node with this number.
pub fn node(number: u8) -> Identity {
    Identity::from_seed(&[number; 32]).unwrap()
}

/// Returns a client with identity `number` that accepts only the server `wanted`.
pub fn client(number: u8, wanted: u8, ciphers: &[Cipher]) -> Tls {
    let wanted = node(wanted).public_key();
    Tls::client(&node(number), ciphers, Arc::new(move |key| *key == wanted)).unwrap()
}

/// Returns a server with identity `number` that accepts only the client `wanted`.
pub fn server(number: u8, wanted: u8, ciphers: &[Cipher]) -> Tls {
    let wanted = node(wanted).public_key();
    Tls::server(&node(number), ciphers, Arc::new(move |key| *key == wanted)).unwrap()
}

/// Returns a client and a server that accept each other and share the buffers of one loop. The handshake has not begun.
pub fn pair_on(buffers: &Rc<Buffers>, ciphers: &[Cipher]) -> (TlsPipe, TlsPipe) {
    (client(1, 2, ciphers).pipe(buffers).unwrap(), server(2, 1, ciphers).pipe(buffers).unwrap())
}

/// Returns a pair as [`pair_on`] does, with buffers of its own.
pub fn pair(ciphers: &[Cipher]) -> (TlsPipe, TlsPipe) {
    pair_on(&Rc::new(Buffers::new()), ciphers)
}

/// Takes all bytes that a pipe has to write.
pub fn take(pipe: &mut TlsPipe) -> Vec<u8> {
    let mut wire = Vec::new();
    while pipe.unsent() > 0 {
        pipe.write_to(|bytes| {
            wire.extend_from_slice(bytes);
            Ok(bytes.len())
        })
        .unwrap();
    }
    wire
}

/// Passes bytes to a pipe in one read of at most `step` bytes. Returns the number that the pipe takes.
pub fn read(pipe: &mut TlsPipe, wire: &[u8], step: usize) -> usize {
    let read = pipe.read_vectored_from(step, |room| {
        let mut rest = wire;
        for buf in room {
            let (part, others) = rest.split_at(buf.len().min(rest.len()));
            buf[..part.len()].copy_from_slice(part);
            rest = others;
        }
        Ok(wire.len() - rest.len())
    });
    read.unwrap()
}

/// Passes bytes to a pipe in reads of at most `step` bytes. Appends the plaintext to `out`.
pub fn give(pipe: &mut TlsPipe, mut wire: &[u8], step: usize, out: &mut Vec<Bytes>) -> Result<(), TlsError> {
    while !wire.is_empty() {
        let bytes = read(pipe, wire, step);
        wire = &wire[bytes..];
        pipe.open(out)?;
        if bytes == 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// Moves bytes in both directions until neither pipe has any, in reads of at most `step` bytes. Returns the result of
/// the client and that of the server.
pub fn shake(client: &mut TlsPipe, server: &mut TlsPipe, step: usize) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let mut ends = (Ok(()), Ok(()));
    let mut out = Vec::new();
    while client.unsent() + server.unsent() > 0 {
        let wire = take(client);
        ends.1 = ends.1.and(give(server, &wire, step, &mut out));
        let wire = take(server);
        ends.0 = ends.0.and(give(client, &wire, step, &mut out));
    }
    assert!(out.is_empty(), "a handshake carries no data");
    ends
}

/// Returns a pair that has finished its handshake.
pub fn open_pair(ciphers: &[Cipher]) -> (TlsPipe, TlsPipe) {
    let (mut client, mut server) = pair(ciphers);
    assert_eq!(shake(&mut client, &mut server, usize::MAX), (Ok(()), Ok(())));
    assert!(!client.is_handshaking() && !server.is_handshaking());
    (client, server)
}
