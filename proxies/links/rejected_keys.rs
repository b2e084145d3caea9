//! The keys that were rejected. Each is logged with growing pauses, so that peers without permission cannot fill the log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use seaprox::node::PeerKey;

/// The rejected keys that were logged.
#[derive(Default)]
pub struct RejectedKeys {
    keys: HashMap<PeerKey, Rejections>,
}

struct Rejections {
    /// Rejections since the last log line.
    count: u64,
    /// Time from which the next rejection is logged.
    next: Instant,
    pause: Duration,
}

impl RejectedKeys {
    /// Records the rejection of a key. Returns the number of rejections since the last log line if it is time for another.
    pub fn record(&mut self, key: &PeerKey, now: Instant) -> Option<u64> {
        if let Some(rejections) = self.keys.get_mut(key) {
            rejections.count += 1;
            if now < rejections.next {
                return None;
            }
            rejections.pause = (rejections.pause * 2).min(PAUSE_MAX);
            rejections.next = now + rejections.pause;
            return Some(std::mem::take(&mut rejections.count));
        }
        if self.keys.len() >= KEYS_MAX {
            // A peer that makes a new key for each attempt is logged again when pauses are over.
            self.keys.retain(|_, rejections| now < rejections.next);
            if self.keys.len() >= KEYS_MAX {
                return None;
            }
        }
        self.keys.insert(*key, Rejections { count: 0, next: now + PAUSE_MIN, pause: PAUSE_MIN });
        Some(1)
    }
}

/// Pause after the first log line about a key.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Keys that are remembered, and so logged within a pause.
const KEYS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_logged_at_once_and_then_with_pauses_that_double() {
        let (mut rejected, start) = (RejectedKeys::default(), Instant::now());
        let mut logged = Vec::new();
        for second in 0..20_000 {
            if let Some(count) = rejected.record(&[1; 32], start + Duration::from_secs(second)) {
                logged.push((second, count));
            }
        }
        assert_eq!(logged[..4], [(0, 1), (60, 60), (180, 120), (420, 240)]);
        assert!(logged.len() < 12, "{logged:?}");
        assert_eq!(logged.iter().map(|(_, count)| count).sum::<u64>(), logged.last().unwrap().0 + 1);
    }

    #[test]
    fn many_keys_fill_neither_the_log_nor_the_memory() {
        let (mut rejected, start) = (RejectedKeys::default(), Instant::now());
        let key = |number: u32| std::array::from_fn(|at| number.to_le_bytes()[at % 4]);
        let logged = (0..10_000).filter(|number| rejected.record(&key(*number), start).is_some()).count();
        assert_eq!((logged, rejected.keys.len()), (KEYS_MAX, KEYS_MAX));
        assert_eq!(rejected.record(&key(20_000), start + PAUSE_MIN), Some(1));
        assert_eq!(rejected.keys.len(), 1);
    }
}
