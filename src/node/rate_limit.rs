//! A rate limit: a token bucket for bytes. All links of one key share it.

use std::cell::Cell;
use std::rc::Rc;

use crate::link::Time;

/// The bucket fills at the rate, up to the bytes of a tenth of a second. Bytes beyond the level become a debt.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RateLimit {
    /// Bytes per second; none without a limit.
    rate: Option<u64>,
    level: i64,
    at: Time,
}

impl RateLimit {
    pub fn new(rate: Option<u64>) -> RateLimit {
        let rate = rate.map(|rate| rate.clamp(1, i64::MAX as u64 / 2_000_000));
        RateLimit { rate, level: rate.map_or(0, depth), at: Time::ZERO }
    }

    /// Returns the bytes per second, if there is a limit.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Returns the bytes that may pass now, at least one, or the time at which bytes may pass again.
    pub fn open(&mut self, now: Time) -> Result<usize, Time> {
        let Some(rate) = self.rate else { return Ok(usize::MAX) };
        let gained = rate * now.since(self.at).min(1_000_000) / 1_000_000;
        if gained > 0 {
            self.at = now;
            self.level = (self.level + gained as i64).min(depth(rate));
        }
        if self.level > 0 {
            return Ok(usize::try_from(self.level).unwrap_or(usize::MAX));
        }
        let wait_us = (self.level.unsigned_abs() + 1).saturating_mul(1_000_000) / rate;
        Err(now.after(wait_us.max(1000)))
    }

    /// Counts bytes that have passed.
    pub fn take(&mut self, bytes: usize) {
        if self.rate.is_some() {
            self.level = self.level.saturating_sub(bytes as i64);
        }
    }
}

/// A rate limit that several links share.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedRateLimit(Rc<Cell<RateLimit>>);

impl SharedRateLimit {
    pub fn rate(&self) -> Option<u64> {
        self.0.get().rate()
    }

    /// Sets a new rate. The present rate changes nothing.
    pub fn set_rate(&self, rate: Option<u64>) {
        let fresh = RateLimit::new(rate);
        if fresh.rate != self.rate() {
            self.0.set(fresh);
        }
    }

    pub fn open(&self, now: Time) -> Result<usize, Time> {
        let mut limit = self.0.get();
        let open = limit.open(now);
        self.0.set(limit);
        open
    }

    pub fn take(&self, bytes: usize) {
        let mut limit = self.0.get();
        limit.take(bytes);
        self.0.set(limit);
    }
}

/// Returns the maximum level: a tenth of a second, and a few frames at least.
fn depth(rate: u64) -> i64 {
    (rate / 10).max(32 << 10) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_time() {
        let mut limit = RateLimit::new(Some(1_000_000));
        let (mut passed, mut now) = (0u64, Time::ZERO);
        while now.as_us() < 10_000_000 {
            match limit.open(now) {
                Ok(_) => {
                    limit.take(16_384);
                    passed += 16_384;
                    now = now.after(100);
                }
                Err(when) => {
                    assert!(when > now);
                    now = when;
                }
            }
        }
        assert!((9_900_000..10_300_000).contains(&passed), "{passed}");
        assert_eq!(RateLimit::new(None).open(now), Ok(usize::MAX));
    }
}
