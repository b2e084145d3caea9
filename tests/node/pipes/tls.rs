//! The encrypting pipe.

use std::sync::Arc;

use seaprox::node::Policy;
use seaprox::pipes::{MemoryPipe, Pipe, PipeError, Readiness, TlsPipe};

use crate::node_kit::pipes::*;
use crate::node_kit::{Open, identity};

/// A client and a server whose bytes pass through the hands of the test.
struct Wire {
    client: TlsPipe<MemoryPipe>,
    server: TlsPipe<MemoryPipe>,
    client_wire: MemoryPipe,
    server_wire: MemoryPipe,
    /// Everything that either end has put on the wire.
    seen: Vec<u8>,
}

impl Wire {
    fn new(policy: Arc<dyn Policy>) -> Wire {
        let ((client, client_wire), (server_wire, server)) = (MemoryPipe::pair(1 << 20), MemoryPipe::pair(1 << 20));
        Wire {
            client: TlsPipe::client(client, &identity(1), &policy),
            server: TlsPipe::server(server, &identity(2), &policy),
            client_wire,
            server_wire,
            seen: Vec::new(),
        }
    }

    /// Carries bytes both ways until there are none. `change` may change them.
    fn carry(&mut self, mut change: impl FnMut(&mut [u8])) {
        let mut buf = [0; 4096];
        for _ in 0..2000 {
            // An end that is broken says so when it is used.
            let _ = (self.client.drive(Readiness::BOTH), self.server.drive(Readiness::BOTH));
            let mut wires = [&mut self.client_wire, &mut self.server_wire];
            let mut idle = true;
            for _ in 0..2 {
                let [from, to] = &mut wires;
                match from.receive(&mut buf) {
                    Ok(0) => _ = to.finish(),
                    Ok(count) => {
                        self.seen.extend_from_slice(&buf[..count]);
                        change(&mut buf[..count]);
                        let _ = to.send(&buf[..count]);
                        idle = false;
                    }
                    Err(_) => {}
                }
                wires.reverse();
            }
            if idle {
                return;
            }
        }
        panic!("the wire is never quiet");
    }
}

#[test]
fn a_marker_never_appears_on_the_wire() {
    let mut wire = Wire::new(policy());
    wire.carry(|_| {});
    assert!(wire.client.is_ready() && wire.server.is_ready());
    let marker = b"MARKER-that-is-easy-to-find";
    let mut got = Vec::new();
    for _ in 0..100 {
        assert_eq!(wire.client.send(marker), Ok(marker.len()));
        assert_eq!(wire.server.send(marker), Ok(marker.len()));
        wire.carry(|_| {});
        receive_some(&mut wire.client, &mut got);
        receive_some(&mut wire.server, &mut got);
    }
    assert_eq!(got, marker.repeat(200));
    assert!(wire.seen.len() > got.len(), "the bytes did pass here");
    assert!(!wire.seen.windows(7).any(|bytes| bytes == b"MARKER-"), "the marker is on the wire");
}

#[test]
fn both_ends_know_the_key_of_the_other_and_a_policy_refuses_keys() {
    let mut wire = Wire::new(policy());
    assert_eq!((wire.client.peer_key(), wire.client.is_ready()), (None, false));
    assert_eq!(wire.client.send(b"early"), Err(PipeError::WouldBlock), "nothing is sent before the peer is known");
    wire.carry(|_| {});
    let keys = [wire.client.peer_key().unwrap(), wire.server.peer_key().unwrap()];
    assert!(keys[0] != keys[1] && wire.client.inner().is_ready());

    let picky = Open::new();
    *picky.keys.lock().unwrap() = vec![keys[0]];
    let mut wire = Wire::new(picky);
    wire.carry(|_| {});
    let refused = PipeError::Tls("the peer's key is not authorized".into());
    assert_eq!((wire.server.broken(), wire.server.is_ready()), (Some(refused.clone()), false));
    assert_eq!(wire.server.receive(&mut [0; 9]), Err(refused));
    assert_eq!(wire.client.receive(&mut [0; 9]), Err(PipeError::Tls("the peer refused our key".into())));
}

#[test]
fn an_altered_byte_breaks_both_ends_and_no_wrong_byte_arrives() {
    let mut wire = Wire::new(policy());
    wire.carry(|_| {});
    assert_eq!(wire.client.send(b"altered on its way"), Ok(18));
    wire.carry(|bytes| bytes[bytes.len() - 1] ^= 1);
    assert!(matches!(wire.server.receive(&mut [0; 99]), Err(PipeError::Tls(_))));
    wire.carry(|_| {});
    assert!(wire.client.receive(&mut [0; 99]).is_err_and(|error| !error.is_would_block()));
}

#[test]
fn a_fin_that_only_the_wire_has_sent_breaks_the_pipe() {
    let mut wire = Wire::new(policy());
    wire.carry(|_| {});
    assert_eq!(wire.server.send(b"half of it"), Ok(10));
    wire.carry(|_| {});
    wire.client_wire.finish().unwrap();
    let mut buf = [0; 99];
    assert_eq!(wire.client.receive(&mut buf), Ok(10));
    assert_eq!(wire.client.receive(&mut buf), Err(PipeError::Truncated));
    assert_eq!((wire.client.broken(), wire.client.fin_received()), (Some(PipeError::Truncated), false));
}

#[test]
fn a_peer_that_does_not_speak_tls_breaks_the_pipe() {
    let (near, mut far) = MemoryPipe::pair(1 << 16);
    let mut pipe = TlsPipe::server(near, &identity(1), &policy());
    assert_eq!(far.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(27));
    assert_eq!(pipe.receive(&mut [0; 9]), Err(PipeError::Tls("the peer does not speak TLS".into())));
}
