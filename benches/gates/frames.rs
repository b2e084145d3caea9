//! The cost of a frame in the link itself, between two sessions in memory.

use std::io;
use std::time::{Duration, Instant};

use seaprox::link::Session;

use crate::Run;
use crate::bare;
use crate::place::Place;

/// Measures the time of 50,000 small frames among ten thousand streams, compared with ten streams.
pub fn among_many_streams(_: &Place) -> io::Result<Run> {
    let mut pairs = [10, 10_000].map(|streams| {
        let mut pair = bare::Pair::new();
        pair.ends.iter_mut().for_each(Session::check_only_when_asked);
        let ids = pair.open(streams);
        pair.small(&ids, FRAMES);
        (pair, ids)
    });
    let mut best = [Duration::MAX; 2];
    // In turns and several times: the rest of the machine disturbs both, and the best time of each is undisturbed.
    for _ in 0..12 {
        for ((pair, ids), best) in pairs.iter_mut().zip(&mut best) {
            let started = Instant::now();
            pair.small(ids, FRAMES);
            *best = started.elapsed().min(*best);
        }
    }
    let [plain, beside] = best.map(|time| time.as_secs_f64() * 1000.0);
    Ok(Run { plain, beside, attack: "10,000 streams".into(), ..Run::default() })
}

const FRAMES: usize = 50_000;
