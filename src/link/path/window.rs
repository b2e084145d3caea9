//! The window of a carrier: the bytes that may be under way before bulk data waits.
//!
//! The window of TCP fills all buffers between two programs, up to the peer's receive buffer. Urgent frames would queue
//! behind these bytes, and a loss among them would delay them. So this window holds only what keeps the path busy: the bytes
//! of one round trip and of the delay of an acknowledgement, with a reserve. The reserve is larger while the path delivers
//! more in each round, so that the path soon shows its full rate (the idea is from BBR, draft-cardwell-iccrg-bbr).
//!
//! The shortest round trip may be that of minutes ago. Where it has become longer since then, the window is too small, the rate
//! falls to what the window lets through, and the window follows it. So when the rate has fallen, a larger window is tried
//! for a moment: a queue would only grow by it, and a rate that grows shows that there is none.
//!
//! With several carriers each has twice this window. The scheduler compares the bytes that wait on each, so more may wait; but
//! without a bound a deep buffer on one path fills, and everything behind a frame in it waits for seconds. In the mode `redundant`,
//! which is for short delays, each has this window.
//!
//! Behind a lost packet a carrier of one lane delivers nothing until the repair, a round trip or two later, though the bytes have
//! arrived. On a path that loses packets all the time the window has room for the bytes of three such times. A carrier that sends
//! on in spite of losses, as BBR does, uses the room; the congestion window of any other carrier is smaller. In the mode `redundant` the
//! window has no such room.
//!
//! Two carriers over one path, on trial, share its queue. Each has the window of its own rate from the start, and a reserve for growth
//! only on a long path, where a trial has few rounds. So together they queue little more than one does.

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
    /// The rates of a moment.
    recent: Highest,
    /// A round trip that is longer than the shortest one although there is no queue, or 0, and the time from which on it is used.
    longer: (u64, Time),
    /// The rates of some seconds.
    shown: Highest,
    /// The trial of a larger window in progress, and the time before which there is no other.
    probed: Option<Probe>,
    probe_after: Time,
    pause_us: u64,
}

/// The highest rates of a period and of the one before, and the start of this one.
#[derive(Debug, Default)]
struct Highest {
    this: u64,
    before: u64,
    since: Time,
}

impl Highest {
    /// Notes a rate. Returns the highest of the last one or two periods.
    fn note(&mut self, now: Time, rate: u64, period_us: u64) -> u64 {
        if now.since(self.since) > period_us {
            *self = Highest { this: 0, before: self.this, since: now };
        }
        self.this = self.this.max(rate);
        self.this.max(self.before)
    }
}

/// The trial of a larger window: its start, and the rate and the round trip before it.
#[derive(Clone, Copy, Debug)]
struct Probe {
    began: Time,
    rate: u64,
    round_us: u64,
}

/// The round trips of a path in microseconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Trip {
    pub(in crate::link) shortest_us: u64,
    pub(in crate::link) smoothed_us: u64,
}

/// The traffic of a session, as far as the window depends on it.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Traffic {
    /// Small messages compete with a bulk transfer.
    pub(in crate::link) is_mixed: bool,
    /// No other subflow carries: there is none, or the others are backups or closing.
    pub(in crate::link) is_alone: bool,
    /// Subflows over other paths stripe with this one.
    pub(in crate::link) is_shared: bool,
    /// Another subflow over the same path stripes with this one.
    pub(in crate::link) has_rival: bool,
    /// A lane of the carrier has a gap. The rate jumps when it closes, which says nothing about the window.
    pub(in crate::link) has_gap: bool,
    /// Time that the repair of a lost packet takes, on a path that loses packets all the time, or 0.
    pub(in crate::link) repair_us: u64,
    /// Bytes after which the peer acknowledges at once.
    pub(in crate::link) acked_bytes: u64,
}

impl Window {
    /// Returns the bytes that may be under way on a path with these round trips and `rate` bytes per second, after `sent`
    /// bytes. There is no bound until the path has shown its full rate.
    pub(in crate::link) fn bytes(&mut self, now: Time, rate: u64, sent: u64, trip: Trip, traffic: Traffic) -> u64 {
        if trip.shortest_us == 0 {
            return u64::MAX;
        }
        let is_steady = traffic.is_alone && !traffic.has_gap && traffic.repair_us == 0;
        if !is_steady {
            self.probed = None;
        }
        if traffic.has_rival {
            // The rate is a share, and says nothing about the path. The rate of the path is measured again behind the trial.
            let after = now.after(PROBE_PAUSE_US.0.max(4 * trip.smoothed_us));
            self.probe_after = self.probe_after.max(after);
            if self.settled {
                self.round = (after, sent);
            }
        }
        let is_probing = self.settled && is_steady && self.probe(now, rate, trip);
        let longer_us = if traffic.is_alone || traffic.has_rival { self.longer.0 } else { 0 };
        let bytes = self.bytes_of(now, rate, sent, trip.shortest_us.max(longer_us), traffic);
        if is_probing { bytes.saturating_mul(PROBE_GAIN) } else { bytes }
    }

    /// Returns true while a larger window is tried, because the rate has fallen. If the rate grows by it, the window was the limit,
    /// so there was no queue, and the round trip before the trial is the one of the path.
    fn probe(&mut self, now: Time, rate: u64, trip: Trip) -> bool {
        let shown = self.shown.note(now, rate, SHOWN_US);
        let (us, since) = self.longer;
        self.longer.0 = if now.since(since) > LONGER_US { 0 } else { us.min(trip.smoothed_us) };
        let Some(probe) = self.probed else {
            if rate < shown / 2 && now >= self.probe_after {
                self.probed = Some(Probe { began: now, rate, round_us: trip.smoothed_us });
            }
            return self.probed.is_some();
        };
        if now.since(probe.began) < 4 * trip.smoothed_us {
            return true;
        }
        if rate > probe.rate + probe.rate / 4 {
            self.pause_us = 0;
            self.longer = (probe.round_us.min(trip.smoothed_us), now);
        } else {
            self.pause_us = (2 * self.pause_us).clamp(PROBE_PAUSE_US.0, PROBE_PAUSE_US.1);
        }
        self.probed = None;
        self.probe_after = now.after(self.pause_us.max(4 * trip.smoothed_us));
        false
    }

    /// Returns the bytes that may be under way on a path with this round trip.
    fn bytes_of(&mut self, now: Time, rate: u64, sent: u64, round_us: u64, traffic: Traffic) -> u64 {
        let delay_us = ack_delay_us(round_us);
        self.note(now, rate, sent, (round_us + delay_us).max(ROUND_US_MIN));
        if !self.settled && !traffic.has_rival {
            return u64::MAX;
        }
        let rate = if traffic.is_shared { rate.max(self.recent.note(now, rate, PERIOD_US) / 2) } else { rate };
        let is_growing = self.flat < FLAT_ROUNDS && (!traffic.has_rival || round_us > LONG_US);
        let gain = if is_growing { GAIN_GROWING } else { GAIN };
        let carried = |us: u64| rate.saturating_mul(us) / 1_000_000;
        let waiting = (2 * carried(delay_us)).min(traffic.acked_bytes);
        let least = carried(if traffic.is_mixed { FLOOR_US } else { SPARE_US });
        let parts = if traffic.has_rival { 2 } else { 1 };
        let bytes = (gain * carried(round_us).max(waiting) / 4).max(BYTES_MIN.max(least) / parts);
        let bytes = bytes + REPAIRED * carried(traffic.repair_us) / 4;
        if traffic.is_shared { SHARED_GAIN * bytes } else { bytes }
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

/// Returns the time after which the peer acknowledges on a path with this round trip (`Session::ack_delay_us`), if fewer bytes than
/// it waits for have arrived.
pub(in crate::link) fn ack_delay_us(round_us: u64) -> u64 {
    (round_us / 4).clamp(1000, 20_000)
}

/// The window of each of several subflows, in windows of a single one.
const SHARED_GAIN: u64 = 2;
/// Bytes that wait for repairs, in quarters of those that the path carries during one. A packet may be lost again.
const REPAIRED: u64 = 18;
/// Time for which one of several subflows keeps half of the window of its highest rate. Radio links dip for shorter times, and
/// would need several rounds to show their rate again.
const PERIOD_US: u64 = 1_000_000;
/// The window in quarters of the bytes that the path carries: in general, and while the rate grows.
const GAIN: u64 = 6;
const GAIN_GROWING: u64 = 12;
/// A longer round trip is that of a long path.
const LONG_US: u64 = 50_000;
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
/// Time after which a longer round trip is doubted.
const LONGER_US: u64 = 60_000_000;
/// Half of the rate that was shown in one or two of these periods starts a trial.
const SHOWN_US: u64 = 30_000_000;
/// The pauses after a trial that changed nothing: the first, and the longest after others.
const PROBE_PAUSE_US: (u64, u64) = (1_000_000, 16_000_000);
/// The window of a trial, in windows.
const PROBE_GAIN: u64 = 2;
/// The size of two frames.
const BYTES_MIN: u64 = 32 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Traffic = Traffic {
        is_mixed: false,
        is_alone: true,
        is_shared: false,
        has_rival: false,
        has_gap: false,
        repair_us: 0,
        acked_bytes: 256 << 10,
    };
    const MIXED: Traffic = Traffic { is_mixed: true, acked_bytes: 64 << 10, ..ALONE };
    /// A peer that does not acknowledge early.
    const OLD_PEER: Traffic = Traffic { is_mixed: true, ..ALONE };

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
                let trip = Trip { shortest_us: self.round_us, smoothed_us: self.round_us };
                bytes = self.window.bytes(self.now, rate, self.sent, trip, self.traffic);
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
        assert_eq!(rig.rounds(3, 1_000_000), 300_000, "it has become slow, and a larger window is tried");
        assert_eq!(rig.rounds(1, 1_000_000), 150_000, "which has changed nothing");
        assert_eq!(rig.rounds(1, 1_500_000), 450_000, "and shows more again");
    }

    const RIVAL: Traffic = Traffic { is_alone: false, has_rival: true, ..ALONE };

    #[test]
    fn two_carriers_over_one_path_have_half_of_the_minimum_each() {
        let [mut alone, mut rival] = [(); 2].map(|()| Rig::new(10_000));
        rival.traffic = RIVAL;
        assert_eq!((alone.rounds(9, 1_000_000), rival.rounds(9, 1_000_000)), (BYTES_MIN, BYTES_MIN / 2));
        let of_rate = 187_500;
        assert_eq!((alone.rounds(9, 12_500_000), rival.rounds(9, 12_500_000)), (of_rate, of_rate), "each its own rate");
        rival.traffic.is_shared = true;
        assert_eq!(rival.rounds(1, 12_500_000), 2 * of_rate, "there are other paths, too");
        // A carrier that begins in a trial has a window at once, and one for growth on a long path only.
        for (round_us, window) in [(10_000, 150_000 / 8), (100_000, 3 * 125_000)] {
            let mut fresh = Rig::new(round_us);
            fresh.traffic = RIVAL;
            assert_eq!(fresh.rounds(1, 1_250_000), window, "{round_us} us");
        }
    }

    #[test]
    fn the_window_is_larger_on_a_path_that_loses_packets_all_the_time() {
        let mut rig = Rig::new(20_000);
        let without = rig.rounds(20, 5_000_000);
        rig.traffic = Traffic { repair_us: 10_000, ..ALONE };
        assert_eq!(rig.rounds(1, 5_000_000), without + 4 * 50_000 + 25_000);
        rig.traffic = Traffic { is_alone: false, is_shared: true, ..rig.traffic };
        assert_eq!(rig.rounds(1, 5_000_000), 2 * (without + 4 * 50_000 + 25_000));
    }

    #[test]
    fn no_larger_window_is_tried_on_a_path_that_loses_packets_all_the_time() {
        let [mut clean, mut lossy] = [(); 2].map(|()| Rig::new(20_000));
        lossy.traffic = Traffic { repair_us: 1, ..ALONE };
        for (rig, is_tried) in [(&mut clean, true), (&mut lossy, false)] {
            rig.rounds(20, 5_000_000);
            let usual = 1_000_000 * 20_000 / 1_000_000 * GAIN / 4;
            assert_eq!((0..60).any(|_| rig.rounds(1, 1_000_000) > usual.max(BYTES_MIN) * 3 / 2), is_tried);
        }
    }

    #[test]
    fn a_trial_leaves_the_window_as_it_was() {
        let mut rig = Rig::new(20_000);
        let alone = rig.rounds(20, 5_000_000);
        rig.traffic = RIVAL;
        assert_eq!(rig.rounds(40, 2_000_000), alone * 2 / 5);
        rig.traffic = ALONE;
        // The measured rate is that of the trial at first.
        assert!((0..3).all(|_| rig.rounds(1, 2_000_000) == alone * 2 / 5), "no larger window is tried");
        assert!((0..9).all(|_| rig.rounds(1, 5_000_000) == alone), "and the old rate is no growth");
        // A path that became slow meanwhile is found as ever.
        assert!((0..60).any(|_| rig.rounds(1, 1_000_000) > alone * 2 / 5));
    }

    #[test]
    fn a_longer_round_trip_counts_in_a_trial() {
        let mut window = Window { longer: (60_000, Time::from_us(1)), ..Window::default() };
        let trip = Trip { shortest_us: 20_000, smoothed_us: 60_000 };
        let bytes = window.bytes(Time::from_us(2), 5_000_000, 0, trip, RIVAL);
        assert_eq!(bytes, 3 * 5_000_000 * 60_000 / 1_000_000);
    }

    /// The window of the shortest round trip lets half of the rate through, and then the window of that half.
    #[test]
    fn a_round_trip_that_has_become_longer_is_found() {
        let mut window = Window::default();
        let (mut now, mut sent, mut bytes) = (Time::ZERO, 0, u64::MAX);
        for (round_us, rounds) in [(20_000, 40), (60_000, 200)] {
            for _ in 0..rounds {
                let rate = bytes.saturating_mul(1_000_000 / round_us).min(6_250_000);
                now = now.after(round_us);
                sent += rate * round_us / 1_000_000;
                bytes = window.bytes(now, rate, sent, Trip { shortest_us: 20_000, smoothed_us: round_us }, ALONE);
            }
            assert!((6_250_000 * round_us / 1_000_000..1_000_000).contains(&bytes), "{round_us} us: {bytes}");
        }
    }

    #[test]
    fn a_larger_window_is_not_tried_while_a_lane_has_a_gap() {
        let mut rig = Rig::new(100_000);
        rig.rounds(9, 1_250_000);
        rig.traffic.has_gap = true;
        assert_eq!(rig.rounds(9, 500_000), 75_000, "the rate has fallen");
        rig.traffic.has_gap = false;
        assert_eq!(rig.rounds(1, 500_000), 150_000, "it is tried");
        rig.traffic.has_gap = true;
        assert_eq!(rig.rounds(1, 500_000), 75_000, "a gap ends the trial");
    }

    #[test]
    fn one_of_several_subflows_has_twice_the_window_and_keeps_half_of_it_in_a_dip() {
        let mut rig = Rig { traffic: Traffic { is_alone: false, is_shared: true, ..ALONE }, ..Rig::new(100_000) };
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
            let trip = Trip { shortest_us: 100_000, smoothed_us: 100_000 };
            assert_eq!(rig.window.bytes(rig.now, 1_250_000, rig.sent, trip, MIXED), u64::MAX);
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
