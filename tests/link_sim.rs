//! The link under faults: many seeds, each a different network, work and fortune.
//!
//! `SEAPROX_SEED=n` replays one seed, `SEAPROX_SEEDS=n` runs more of them, `SEAPROX_FIRST=n` says from where.

mod link_kit;

use std::panic::{AssertUnwindSafe, catch_unwind};

use link_kit::swarm;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn swarm_of_seeds() {
    if let Some(seed) = number("SEAPROX_SEED") {
        return swarm::run(seed);
    }
    let first = number("SEAPROX_FIRST").unwrap_or(1);
    let count = number("SEAPROX_SEEDS").unwrap_or(2000);
    for seed in first..first + count {
        if catch_unwind(AssertUnwindSafe(|| swarm::run(seed))).is_err() {
            panic!("replay with SEAPROX_SEED={seed}");
        }
    }
}
