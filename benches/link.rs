//! The cost of the link, in memory with both ends on one thread, and its use of the paths' capacity, in virtual time.
//!
//! `cargo bench --bench link` prints three tables: payload per second over one lane without crypto, as a share of the
//! rate of memcpy in the same run; small frames per second over many streams; and the efficiency gates of the
//! simulator.

#[path = "../tests/kit/link/bare.rs"]
#[allow(unused, reason = "the bench uses a part of it")]
mod bare;
#[path = "../tests/kit/link/mod.rs"]
#[allow(unused, reason = "the bench uses the gates only")]
mod link_kit;

use std::hint::black_box;
use std::time::Instant;

use bare::Pair;
use link_kit::gates::{self, GATES};

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let copy = memcpy_rate();
    println!("memcpy, 64 KiB within 8 MiB   {:8.2} GB/s", copy / 1e9);
    let rate = bulk_rate();
    println!("one stream, copied once       {:8.2} GB/s   {:.2} of memcpy", rate / 1e9, rate / copy);
    for (live, active) in [(10, 10), (1000, 1000), (10_000, 10), (10_000, 10_000)] {
        let rate = small_rate(live, active);
        println!("64-byte frames, {active:>6} of {live:>6} live streams active {:8.2} M frames/s", rate / 1e6);
    }
    println!();
    println!(
        "{:>16} {:>10} {:>7} {:>10} {:>8} {:>11}",
        "paths Mbit/s,ms", "goodput", "of sum", "sent twice", "gap ms", "window KiB"
    );
    for gate in GATES {
        let f = gates::run(gate.paths, false, 4000, 4000);
        row(gate.name, f);
    }
    for (name, paths) in [("black hole 100+100", [(100, 5), (100, 5)]), ("black hole 80+10", [(80, 10), (10, 100)])] {
        row(name, gates::failover(&paths));
    }
    for (name, f) in ["before", "100 -> 5 Mbit/s", "and back"].into_iter().zip(gates::degrade(&[(100, 5), (50, 10)], 5))
    {
        row(name, f);
    }
    println!("1 Gbit/s at 100 ms is filled to 90 % in {:.0} ms", gates::time_to_fill(1000, 50).unwrap_or(f64::NAN));
}

fn row(name: &str, f: gates::Figures) {
    println!(
        "{name:>18} {:>8.1} {:>6.1}% {:>9.2}% {:>8.1} {:>11}",
        f.goodput,
        f.share * 100.0,
        f.duplicates * 100.0,
        f.gap_ms,
        f.window / 1024
    );
}

/// Returns the bytes per second that memcpy moves on this machine, from memory outside the first-level cache.
fn memcpy_rate() -> f64 {
    let source = vec![7u8; 8 << 20];
    let mut dest = vec![0u8; 8 << 20];
    best(|| {
        let started = Instant::now();
        let mut bytes = 0;
        for _ in 0..32 {
            for (to, from) in dest.chunks_mut(65_536).zip(source.chunks(65_536)) {
                to.copy_from_slice(from);
                bytes += from.len();
            }
            black_box(&mut dest);
        }
        bytes as f64 / started.elapsed().as_secs_f64()
    })
}

/// Returns the payload bytes per second of one stream. Each byte is copied once, into the buffer that represents the
/// wire.
fn bulk_rate() -> f64 {
    let mut pair = Pair::new();
    let id = pair.open(1)[0];
    best(|| {
        let started = Instant::now();
        let bytes = pair.bulk(id, 512 << 20);
        bytes as f64 / started.elapsed().as_secs_f64()
    })
}

/// Returns the frames of 64 bytes per second, sent one after another on `active` of the `live` streams.
fn small_rate(live: usize, active: usize) -> f64 {
    let mut pair = Pair::new();
    let ids = pair.open(live);
    let step = live / active;
    let ids: Vec<_> = ids.into_iter().step_by(step).collect();
    best(|| {
        let started = Instant::now();
        let frames = pair.small(&ids, 500_000);
        frames as f64 / started.elapsed().as_secs_f64()
    })
}

/// Returns the best of five measurements, which is the least disturbed one.
fn best(mut measure: impl FnMut() -> f64) -> f64 {
    (0..5).map(|_| measure()).fold(0.0, f64::max)
}
