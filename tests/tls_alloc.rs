//! What a pipe of the link's encryption takes of the heap: little while it is idle, and nothing of its own for a record.

#[path = "kit/tls/heap.rs"]
mod heap;
#[path = "../src/tls/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the test uses a part of it")]
mod tls;
#[path = "kit/tls/mod.rs"]
#[allow(dead_code, reason = "the test uses a part of it")]
mod tls_kit;

use tls::{Cipher, RECORD_BYTES};
use tls_kit::open_pair;

/// One test, because the count is of the whole process.
#[test]
fn a_pipe_takes_little() {
    let (client, server) = heap::idle();
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
    let before = heap::allocations();
    round(7);
    // The library's buffers for a record out and a record in, with the list of what it hands out; the piece that comes
    // out of all of them.
    let count = heap::allocations() - before;
    assert!(count <= 7 * 3 + 2, "{count} allocations for seven records");
}

/// The goal for a session of sixteen subflows is less than half a megabyte.
const IDLE_BYTES_MAX: usize = 24 * 1024;
