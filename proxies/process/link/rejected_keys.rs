//! Keys that were refused, so that each is told with back-off: strangers knock as often as they like, and a log is not
//! theirs to fill.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use seaprox::node::PeerKey;

/// What was told of whom.
#[derive(Default)]
pub struct Refusals {
    keys: HashMap<PeerKey, Told>,
}

struct Told {
    /// Refusals that were not told since the last one that was.
    silent: u64,
    next: Instant,
    pause: Duration,
}

impl Refusals {
    /// Notes that a key was refused. If that is worth a line, says how often it was since the last one.
    pub fn note(&mut self, key: &PeerKey, now: Instant) -> Option<u64> {
        if let Some(told) = self.keys.get_mut(key) {
            told.silent += 1;
            if now < told.next {
                return None;
            }
            told.pause = (told.pause * 2).min(PAUSE_MAX);
            told.next = now + told.pause;
            return Some(std::mem::take(&mut told.silent));
        }
        if self.keys.len() >= KEYS_MAX {
            // Who makes a key for each knock is told no more until the pauses are over.
            self.keys.retain(|_, told| now < told.next);
            if self.keys.len() >= KEYS_MAX {
                return None;
            }
        }
        self.keys.insert(*key, Told { silent: 0, next: now + PAUSE_MIN, pause: PAUSE_MIN });
        Some(1)
    }
}

/// The first pause between two lines about one key, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Keys that are told of within a pause.
const KEYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_once_and_then_with_longer_and_longer_pauses() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let mut told = Vec::new();
        for second in 0..20_000 {
            if let Some(count) = refusals.note(&[1; 32], start + Duration::from_secs(second)) {
                told.push((second, count));
            }
        }
        assert_eq!(told[..4], [(0, 1), (60, 60), (180, 120), (420, 240)]);
        assert!(told.len() < 12, "{told:?}");
        assert_eq!(told.iter().map(|(_, count)| count).sum::<u64>(), told.last().unwrap().0 + 1);
    }

    #[test]
    fn many_keys_fill_neither_the_log_nor_the_memory() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let key = |number: u32| std::array::from_fn(|at| number.to_le_bytes()[at % 4]);
        let told = (0..10_000).filter(|number| refusals.note(&key(*number), start).is_some()).count();
        assert_eq!((told, refusals.keys.len()), (KEYS_MAX, KEYS_MAX));
        assert_eq!(refusals.note(&key(20_000), start + PAUSE_MIN), Some(1));
        assert_eq!(refusals.keys.len(), 1);
    }
}
