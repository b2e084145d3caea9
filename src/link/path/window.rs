//! The window of a carrier: the bytes that may be under way before bulk data waits.
//!
//! The window of TCP fills all buffers between two programs, up to the peer's receive buffer. Urgent frames would queue
//! behind these bytes, and a loss among them would delay them. So this window holds only what keeps the path busy: the bytes
//! of one round trip and of the delay of an acknowledgement, with a reserve. The reserve is larger while the path delivers
//! more in each round, so that the path soon shows its full rate (the idea is from BBR, draft-cardwell-iccrg-bbr).
//!
//! With several carriers each has twice this window. The scheduler compares the bytes that wait on each, so more may wait; but
//! without a bound a deep buffer on one path fills, and everything behind a frame in it waits for seconds. In the mode `redundant`,
//! which is for short delays, each has this window.

use crate::link::wire::ids::Time;

/// The window of one carrier; see the module's head.
#[derive(Debug, Default)]
pub(in crate::link) struct Window {
    /// The rate up to which growth was seen.
    best: u64,
    /// Consecutive rounds in which the path was busy and delivered no more than before.
    flat: u32,
    /// The path has shown its full rate once.
    settled: bool,
    /// Start of this round, and the bytes sent until then.
    round: (Time, u64),
    /// The highest rates of this period and of the one before, and the start of this one.
    highest: (u64, u64, Time),
}

/// The traffic of a session, as far as the window depends on it.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Traffic {
    /// Small messages compete with a bulk transfer.
    pub(in crate::link) is_mixed: bool,
    /// The session has other subflows that stripe with this one.
    pub(in crate::link) is_shared: bool,
    /// Bytes after which the peer acknowledges at once.
    pub(in crate::link) acked_bytes: u64,
}

impl Window {
    /// Returns the bytes that may be under way on a path of `rate` bytes per second, after `sent` bytes, whose shortest
    /// round trip is `round_us`. There is no bound until the path has shown its full rate.
    pub(in crate::link) fn bytes(&mut self, now: Time, rate: u64, sent: u64, round_us: u64, traffic: Traffic) -> u64 {
        if round_us == 0 {
            return u64::MAX;
        }
        // The peer acknowledges after a part of its round trip (Session::ack_delay_us), or after a number of bytes.
        let delay_us = (round_us / 4).clamp(1000, 20_000);
        self.note(now, rate, sent, (round_us + delay_us).max(ROUND_US_MIN));
        if !self.settled {
            return u64::MAX;
        }
        let rate = if traffic.is_shared { rate.max(self.highest(now, rate) / 2) } else { rate };
        let gain = if self.flat < FLAT_ROUNDS { GAIN_GROWING } else { GAIN };
        let carried = |us: u64| rate.saturating_mul(us) / 1_000_000;
        let waiting = (2 * carried(delay_us)).min(traffic.acked_bytes);
        let least = carried(if traffic.is_mixed { FLOOR_US } else { SPARE_US });
        let bytes = (gain * carried(round_us).max(waiting) / 4).max(BYTES_MIN).max(least);
        if traffic.is_shared { SHARED_GAIN * bytes } else { bytes }
    }

    /// Returns the highest rate of the last one or two periods.
    fn highest(&mut self, now: Time, rate: u64) -> u64 {
        let (this, before, since) = self.highest;
        self.highest = match now.since(since) > PERIOD_US {
            true => (rate, this, now),
            false => (this.max(rate), before, since),
        };
        self.highest.0.max(self.highest.1)
    }

    /// Judges once in each round if the path delivers more than before.
    fn note(&mut self, now: Time, rate: u64, sent: u64, round_us: u64) {
        let (began, before) = self.round;
        let elapsed_us = now.since(began);
        if elapsed_us < round_us {
            return;
        }
        self.round = (now, sent);
        let was_busy = sent.saturating_sub(before) >= rate.saturating_mul(elapsed_us) / 2_000_000;
        if rate > self.best + self.best / 4 {
            (self.best, self.flat) = (rate, 0);
        } else if was_busy {
            self.flat = self.flat.saturating_add(1);
            self.best = if rate < self.best / 2 { rate } else { self.best };
            self.settled |= self.flat >= FLAT_ROUNDS;
        }
    }
}

/// The window of each of several subflows, in windows of a single one.
const SHARED_GAIN: u64 = 2;
/// Time for which one of several subflows keeps half of the window of its highest rate. Radio links dip for shorter times, and
/// would need several rounds to show their rate again.
const PERIOD_US: u64 = 1_000_000;
/// The window in quarters of the bytes that the path carries: in general, and while the rate grows.
const GAIN: u64 = 6;
const GAIN_GROWING: u64 = 12;
/// Rounds without growth after which the path has shown its full rate.
const FLAT_ROUNDS: u32 = 3;
/// Minimum length of a round, because the rate is not measured more often.
const ROUND_US_MIN: u64 = 25_000;
/// Minimum window of a bulk transfer that has the path to itself, in time. The first message waits no longer than this. A
/// smaller window runs in lock step with the acknowledgements of a short path, which costs 40 % of the rate on loopback.
const SPARE_US: u64 = 2_000;
/// Minimum window of a bulk transfer beside small messages, in time: a floor for the share of bulk, and a bound on the delay
/// that it adds to each message.
const FLOOR_US: u64 = 200;
/// The size of two frames.
const BYTES_MIN: u64 = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Traffic = Traffic { is_mixed: false, is_shared: false, acked_bytes: 256 << 10 };
    const MIXED: Traffic = Traffic { is_mixed: true, is_shared: false, acked_bytes: 64 << 10 };
    /// A peer that does not acknowledge early.
    const OLD_PEER: Traffic = Traffic { is_mixed: true, is_shared: false, acked_bytes: 256 << 10 };

    /// A window over a path, with the history of the path.
    struct Rig {
        window: Window,
        round_us: u64,
        now: Time,
        sent: u64,
        traffic: Traffic,
    }

    impl Rig {
        fn new(round_us: u64) -> Rig {
            Rig { window: Window::default(), round_us, now: Time::ZERO, sent: 0, traffic: ALONE }
        }

        /// Sends for a number of rounds at a rate. Returns the window after them.
        fn rounds(&mut self, count: usize, rate: u64) -> u64 {
            let mut bytes = 0;
            for _ in 0..count {
                let us = self.round_us * 5 / 4 + ROUND_US_MIN;
                self.now = self.now.after(us);
                self.sent += rate * us / 1_000_000;
                bytes = self.window.bytes(self.now, rate, self.sent, self.round_us, self.traffic);
            }
            bytes
        }
    }

    #[test]
    fn the_window_is_what_the_path_carries_and_more_while_the_rate_grows() {
        let mut unknown = Rig::new(0);
        assert_eq!(unknown.rounds(9, 1_000_000), u64::MAX, "the length of a round is unknown");
        let mut rig = Rig::new(100_000);
        for rate in [70_000, 140_000, 300_000, 600_000, 1_250_000] {
            assert_eq!(rig.rounds(1, rate), u64::MAX, "it grows by itself");
        }
        assert_eq!(rig.rounds(2, 1_250_000), u64::MAX);
        assert_eq!(rig.rounds(1, 1_250_000), 187_500);
        assert_eq!(rig.rounds(1, 2_500_000), 750_000, "it shows more");
        assert_eq!(rig.rounds(3, 2_500_000), 375_000);
        assert_eq!(rig.rounds(3, 1_000_000), 150_000, "it has become slow");
        assert_eq!(rig.rounds(1, 1_500_000), 450_000, "and shows more again");
    }

    #[test]
    fn one_of_several_subflows_has_twice_the_window_and_keeps_half_of_it_in_a_dip() {
        let mut rig = Rig { traffic: Traffic { is_shared: true, ..ALONE }, ..Rig::new(100_000) };
        assert_eq!(rig.rounds(9, 1_250_000), 375_000);
        assert_eq!(rig.rounds(3, 100_000), 187_500, "a dip");
        assert!(rig.rounds(20, 100_000) < 100_000, "the path is slow");
    }

    #[test]
    fn a_path_that_is_not_busy_is_not_judged() {
        let mut rig = Rig::new(100_000);
        for _ in 0..20 {
            rig.now = rig.now.after(200_000);
            rig.sent += 1000;
            assert_eq!(rig.window.bytes(rig.now, 1_250_000, rig.sent, 100_000, MIXED), u64::MAX);
        }
    }

    #[test]
    fn a_short_path_gets_what_the_peer_acknowledges_at_once() {
        assert_eq!(Rig::new(50).rounds(9, 1_000_000_000), 2_000_000, "the transfer is alone");
        assert_eq!(Rig { traffic: MIXED, ..Rig::new(50) }.rounds(9, 1_000_000_000), 200_000);
        assert_eq!(Rig::new(50).rounds(9, 1000), 32 << 10);
    }

    /// The window never lets fewer bytes through in a round than it was opened for.
    #[test]
    fn an_underrated_path_reaches_its_full_rate() {
        for (round_us, traffic) in
            [20, 1000, 20_000, 300_000].into_iter().flat_map(|us| [ALONE, MIXED, OLD_PEER].map(|traffic| (us, traffic)))
        {
            let (mut rig, mut rate) = (Rig { traffic, ..Rig::new(round_us) }, 100_000);
            rig.rounds(9, rate);
            for _ in 0..60 {
                let bytes = rig.rounds(1, rate);
                let acked_us =
                    round_us + (round_us / 4).clamp(1000, 20_000).min(traffic.acked_bytes * 1_000_000 / 1_000_000_000);
                rate = (bytes * 1_000_000 / acked_us).min(1_000_000_000);
            }
            let least = if traffic.is_mixed { 900_000_000 } else { 1_000_000_000 };
            assert!(rate >= least, "round trip of {round_us} us, {traffic:?}: {rate}");
        }
    }
}
