//! The window of a carrier: how many bytes may be under way on it before what is not urgent waits.
//!
//! The system's own window fills every buffer that there is between two programs, up to the peer's receive buffer. What is
//! urgent would queue behind all of that, and a loss in it would hold it up. So no more is sent than keeps the path busy: what
//! it carries in a round trip and while the peer's acknowledgement waits, with something to spare. As long as a path still
//! shows more with each round there is more to spare, so that it soon shows all that it can (BBR, draft-cardwell-iccrg-bbr,
//! has the idea).

use crate::link::Time;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The rate up to which growth has been seen.
    best: u64,
    grown_at: Time,
}

impl Window {
    /// Bytes that may be under way, on a path that makes `rate` bytes a second and whose shortest round trip is `round_us`;
    /// without a bound where that is not known.
    pub fn bytes(&mut self, now: Time, rate: u64, round_us: u64) -> u64 {
        if round_us == 0 {
            return u64::MAX;
        }
        if rate > self.best + self.best / 4 {
            (self.best, self.grown_at) = (rate, now);
        } else if rate < self.best / 2 {
            self.best = rate;
        }
        // The peer's session acknowledges after a part of its round trip (Session::ack_delay_us), or after so many bytes.
        let delay_us = (round_us / 4).clamp(1000, 20_000);
        let grows = now.since(self.grown_at) < 3 * (round_us + delay_us) + GROWTH_US;
        let gain = if grows { GAIN_GROWING } else { GAIN };
        let carried = |us: u64| rate.saturating_mul(us) / 1_000_000;
        let waiting = (2 * carried(delay_us)).min(ACKED_BYTES);
        (gain * carried(round_us).max(waiting) / 4).max(BYTES_MIN)
    }
}

/// What may be under way, in quarters of what the path carries: as a rule, and while it shows more with each round.
const GAIN: u64 = 6;
const GAIN_GROWING: u64 = 12;
/// A rate is measured so often at least.
const GROWTH_US: u64 = 60_000;
/// Bytes after which a peer acknowledges at once.
const ACKED_BYTES: u64 = 256 << 10;
/// Two frames.
const BYTES_MIN: u64 = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_us(ms * 1000)
    }

    #[test]
    fn it_is_what_the_path_carries_and_more_while_that_grows() {
        let mut window = Window::default();
        assert_eq!(window.bytes(at(0), 1_000_000, 0), u64::MAX, "nothing is known");
        assert_eq!(window.bytes(at(0), 1_250_000, 100_000), 375_000);
        assert_eq!(window.bytes(at(1000), 1_250_000, 100_000), 187_500);
        assert_eq!(window.bytes(at(1100), 2_500_000, 100_000), 750_000);
        assert_eq!(window.bytes(at(9000), 1_000_000, 100_000), 150_000, "it has become slow");
        assert_eq!(window.bytes(at(9900), 1_500_000, 100_000), 450_000, "and shows more again");
    }

    #[test]
    fn a_short_path_gets_what_the_peer_acknowledges_at_once() {
        let mut window = Window::default();
        window.bytes(at(0), 1_000_000_000, 50);
        assert_eq!(window.bytes(at(1000), 1_000_000_000, 50), 384 << 10);
        assert_eq!(window.bytes(at(2000), 1000, 50), 32 << 10);
    }

    /// What it lets through in a round is never less than it was opened for.
    #[test]
    fn a_path_that_is_underrated_shows_what_it_can() {
        for round_us in [20, 1000, 20_000, 300_000] {
            let (mut window, mut rate, mut now) = (Window::default(), 100_000, Time::ZERO);
            for _ in 0..60 {
                let bytes = window.bytes(now, rate, round_us);
                let acked_us =
                    round_us + (round_us / 4).clamp(1000, 20_000).min(ACKED_BYTES * 1_000_000 / 1_000_000_000);
                rate = (bytes * 1_000_000 / acked_us).min(1_000_000_000);
                now = now.after(round_us.max(20_000));
            }
            assert_eq!(rate, 1_000_000_000, "round trip of {round_us} us");
        }
    }
}
