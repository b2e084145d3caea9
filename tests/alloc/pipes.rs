//! The heap use of a pipe of the link's encryption: few bytes while it is idle, no allocations of its own for a record.

use crate::tls::{Cipher, RECORD_BYTES};
use crate::tls_kit::open_pair;
use crate::{heap, idle};

#[test]
fn a_pipe_takes_little() {
    let (client, server) = idle::heap_bytes();
    assert!(client < IDLE_BYTES_MAX && server < IDLE_BYTES_MAX, "an idle client holds {client}, a server {server}");

    let (mut client, mut server) = open_pair(&Cipher::preferred());
    let (head, rest) = ([7; 16], vec![3; RECORD_BYTES - 16]);
    let mut out = Vec::with_capacity(8);
    let mut round = |records: usize| {
        for _ in 0..records {
            client.seal([&head[..], &rest]).unwrap();
        }
        while client.unsent() > 0 {
            client
                .write_to(|bytes| {
                    server.read_from(|room| {
                        let bytes = bytes.get(..room.len()).unwrap_or(bytes);
                        room[..bytes.len()].copy_from_slice(bytes);
                        Ok(bytes.len())
                    })
                })
                .unwrap();
            server.open(&mut out).unwrap();
            out.clear();
        }
    };
    round(7);
    // The slots of the records and the buffer of the write are used again.
    let count = heap::allocations(|| round(7));
    assert_eq!(count, 0, "allocations for seven records");
}

/// A session of sixteen subflows must hold less than half a megabyte.
const IDLE_BYTES_MAX: usize = 24 * 1024;
