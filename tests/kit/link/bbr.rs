//! The window of BBR (draft-cardwell-iccrg-bbr), for the modelled TCP.
//!
//! It follows the highest rate of ten round trips and the shortest round trip, and no loss. The model leaves out pacing, and
//! with it the cycle that probes for more: the window has a reserve instead, which probes at all times.

use std::collections::VecDeque;

/// Round trips over which the highest rate is taken.
const ROUNDS: usize = 10;
/// Round trips without growth that end the start.
const FLAT_ROUNDS: u32 = 3;
const RESERVE: f64 = 1.5;
const WINDOW_LEAST: f64 = 4.0;

#[derive(Debug)]
pub struct Bbr {
    /// In segments.
    pub window: f64,
    /// The highest rate of each round trip, the newest first, in segments per microsecond.
    rates: VecDeque<f64>,
    best: f64,
    flat: u32,
}

impl Bbr {
    pub fn new(window: f64) -> Bbr {
        Bbr { window, rates: VecDeque::from([0.0]), best: 0.0, flat: 0 }
    }

    /// Takes a measured rate. `is_new_round` is true for the first one of a round trip.
    pub fn on_ack(&mut self, acked: f64, rate: f64, is_new_round: bool, rtt_min_us: u64) {
        if is_new_round {
            let most = self.most();
            self.flat = if most > 1.25 * self.best { 0 } else { self.flat + 1 };
            self.best = if self.flat == 0 { most } else { self.best };
            self.rates.push_front(0.0);
            self.rates.truncate(ROUNDS);
        }
        self.rates[0] = self.rates[0].max(rate);
        let carried = self.most() * rtt_min_us as f64;
        self.window = if self.best == 0.0 || self.flat < FLAT_ROUNDS {
            self.window + acked
        } else {
            (RESERVE * carried).max(WINDOW_LEAST)
        };
    }

    fn most(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }
}
