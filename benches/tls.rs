//! The cost of the link's encryption, in memory with both ends on one thread.
//!
//! `cargo bench --bench tls` prints three figures: plaintext per second through a pair of pipes, with one copy in place
//! of the socket's write and one in place of its read, and each record gathered from a head of 16 bytes and the rest;
//! the time of a handshake; and the heap of an idle open pipe. Times are processor times of the thread where the system
//! tells them.

#[path = "../tests/kit/heap.rs"]
mod heap;
#[path = "../tests/kit/tls/idle.rs"]
mod idle;
// The module is private in the library, so this target compiles its source.
#[path = "../src/tls/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the bench uses a part of it")]
mod tls;
#[path = "../tests/kit/tls/mod.rs"]
#[allow(dead_code, reason = "the bench uses a part of it")]
mod tls_kit;

use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Instant;

use tls::{Cipher, RECORD_OVERHEAD, WRITE_BYTES};
use tls_kit::{open_pair, take};

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    println!("{:>20} {:>8} {:>8}   GB/s of plaintext, sealed and opened", "cipher", "record", "GB/s");
    for cipher in Cipher::ALL {
        for (record, total) in [(16_384, 256 << 20), (1400, 128 << 20), (100, 16 << 20)] {
            println!("{:>20} {record:>8} {:>8.2}", cipher.name(), rate(cipher, record, total) / 1e9);
        }
    }
    println!("a handshake, both ends: {:.0} us", handshake() * 1e6);
    let (client, server) = idle::heap_bytes();
    println!("heap of an idle pipe: client {client} bytes, server {server} bytes");
}

/// Returns the plaintext bytes per second.
fn rate(cipher: Cipher, record: usize, total: usize) -> f64 {
    let (mut client, mut server) = open_pair(&[cipher]);
    let (head, rest) = ([7; 16], vec![3; record - 16]);
    let (mut wire, mut out) = (Vec::with_capacity(WRITE_BYTES), Vec::new());
    let mut best: f64 = 0.0;
    for _ in 0..5 {
        let (started, mut bytes) = (clock(), 0);
        while bytes < total {
            while client.unsent() + record + RECORD_OVERHEAD <= WRITE_BYTES {
                client.seal([&head[..], &rest]).expect("open");
            }
            wire.clear();
            let written = client.write_to(|bytes| {
                wire.extend_from_slice(bytes);
                Ok(bytes.len())
            });
            assert_eq!(written.ok(), Some(wire.len()));
            tls_kit::give(&mut server, &wire, usize::MAX, &mut out).expect("intact");
            bytes += out.drain(..).map(|piece| black_box(piece).len()).sum::<usize>();
        }
        best = best.max(bytes as f64 / (clock() - started));
    }
    best
}

/// Returns the seconds that one handshake takes, both ends together.
fn handshake() -> f64 {
    let started = clock();
    for _ in 0..200 {
        let (mut client, _) = black_box(open_pair(&Cipher::preferred()));
        assert!(take(&mut client).is_empty());
    }
    (clock() - started) / 200.0
}

/// Returns this thread's processor time in seconds, which other load does not lengthen; where the system does not tell
/// it, the wall-clock time.
fn clock() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = || START.get_or_init(Instant::now).elapsed().as_secs_f64();
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(elapsed, |ns| ns / 1e9)
}
