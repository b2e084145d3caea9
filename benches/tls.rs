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
use std::rc::Rc;
use std::sync::Arc;
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
    for group in tls::Group::preferred() {
        let (both, answer, whole, bytes) = handshake(group);
        println!(
            "a handshake with {}: {:.0} us at both ends; the server {:.0} us for its answer, {:.0} us in all; hello {} bytes, \
             answer {} bytes",
            group.name(),
            both * 1e6,
            answer * 1e6,
            whole * 1e6,
            bytes.0,
            bytes.1
        );
    }
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

/// Returns the seconds of one handshake: of both ends, of the server's answer to a hello, and of the server in all; and the
/// bytes of the first flight of each end.
fn handshake(group: tls::Group) -> (f64, f64, f64, (usize, usize)) {
    let (ciphers, groups, buffers) = (Cipher::preferred(), [group], Rc::new(tls::Buffers::new()));
    let suite = tls::Suite { ciphers: &ciphers, groups: &groups };
    let of_client = tls::Tls::client(&tls_kit::node(1), suite, Arc::new(|_| true)).expect("a group of this processor");
    let of_server = tls::Tls::server(&tls_kit::node(2), suite, Arc::new(|_| true)).expect("a group of this processor");
    let (mut both, mut answer, mut whole, mut bytes) = (0.0, 0.0, 0.0, (0, 0));
    const ROUNDS: usize = 500;
    for _ in 0..ROUNDS {
        let (since, mut out) = (clock(), Vec::new());
        let mut client = of_client.pipe(&buffers).expect("random bytes");
        let hello = take(&mut client);
        let began = clock();
        let mut server = of_server.pipe(&buffers).expect("random bytes");
        tls_kit::give(&mut server, &hello, usize::MAX, &mut out).expect("a hello");
        let flight = take(&mut server);
        let answered = clock();
        tls_kit::give(&mut client, &flight, usize::MAX, &mut out).expect("an answer");
        let last = take(&mut client);
        let resumed = clock();
        tls_kit::give(&mut server, &last, usize::MAX, &mut out).expect("the end");
        assert!(!black_box(&server).is_handshaking());
        let over = clock();
        both += over - since;
        answer += answered - began;
        whole += (answered - began) + (over - resumed);
        bytes = (hello.len(), flight.len());
    }
    let each = |seconds: f64| seconds / ROUNDS as f64;
    (each(both), each(answer), each(whole), bytes)
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
