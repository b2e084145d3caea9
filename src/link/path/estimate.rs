//! The estimate of a subflow's path: its delay, its rate, and the time at which a frame would arrive.
//!
//! For TCP the kernel measures most of this, on some systems. Lane acknowledgements and PONGs measure it on any system
//! and for any carrier. Both update the same estimate.
//!
//! The rate is measured from acknowledgements while the path is full. A path that runs dry gives only bounds: it
//! carried at least what was acknowledged, and it was busy with the bytes in flight for no longer than their
//! acknowledgement took. While no acknowledgement arrives, the rate in use falls below the estimate, which stays. The
//! delay that is expected when a frame is sent also defines when the frame is late.

use crate::link::wire::header::FRAME_BYTES_MAX;
use crate::link::wire::ids::Time;

use super::losses::Losses;
use super::window::{Trip, ack_delay_us};

/// Measurements of the carrier, as far as it has them. Zero means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: u64,
    /// Maximum rate of the path in bytes per second: the larger of the delivery rate and the window per round trip.
    pub rate: u64,
    /// Shortest round-trip time in microseconds. Without it a subflow has no window.
    pub round_us: u64,
    /// True if the carrier retransmits because of a timeout.
    pub suspect: bool,
    /// Number of packets that the carrier has sent again, in all; 0 where the window needs no room for repairs.
    pub resent: u64,
    /// True if another subflow over the same path carries beside this one, for a trial, so that both share its queue.
    pub has_rival: bool,
}

/// Rate and round trip before the first measurement.
const RATE_INITIAL: u64 = 1_250_000;
const RTT_INITIAL_US: u64 = 100_000;
/// Minimum time of a rate measurement, which also lasts at least one round trip.
const EPOCH_US_MIN: u64 = 20_000;
/// Number of measurements of which the highest is the rate.
const EPOCHS: usize = 3;
/// Period of the minimum round trip. A minimum is forgotten after two periods.
const MINIMUM_US: u64 = 5_000_000;
/// Period of the shortest round trip, which is forgotten after two of them, as by the kernel (tcp_min_rtt_wlen).
const SHORTEST_US: u64 = 150_000_000;
/// Age of a rate measured at its limit from which on the rate is raised.
const DOUBT_US: u64 = 500_000;
/// Minimum of the acknowledgement timeout.
const ACK_TIMEOUT_US_MIN: u64 = 100_000;
/// Maximum of the acknowledgement timeout beyond one round trip, or a second round trip if that is longer. The variation of a
/// path whose rate is unsteady would make it seconds.
const ACK_PATIENCE_US: u64 = 500_000;
/// Acknowledgement timeout before the first measurement.
const ACK_TIMEOUT_US_INITIAL: u64 = 1_000_000;
/// Minimum and maximum extra delay of an acknowledgement, because the peer waits for more frames or is busy.
const SLACK_US: (u64, u64) = (5_000, 25_000);
/// Maximum time for which a frame occupies a slow path, so that urgent frames wait no longer; frames are not made
/// smaller than the minimum length below.
const FRAME_US: u64 = 5_000;
const FRAME_BYTES_MIN: u64 = 2048;

/// The minimum of a period and of the one before, in microseconds, and the start of this period.
#[derive(Clone, Copy, Debug, Default)]
struct Minimum {
    this: u64,
    before: u64,
    since: Time,
}

impl Minimum {
    fn sample(&mut self, now: Time, us: u64, period_us: u64) {
        if self.this == 0 {
            *self = Minimum { this: us, before: us, since: now };
        } else if now.since(self.since) > period_us {
            *self = Minimum { this: us, before: self.this, since: now };
        }
        self.this = self.this.min(us);
    }

    /// Returns the minimum of one or two periods, or 0 before the first sample.
    fn recent(&self) -> u64 {
        self.this.min(self.before)
    }
}

/// A smoothed round trip with its variation (RFC 6298) and its recent minimum, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip {
    smoothed: u64,
    variation: u64,
    minimum: Minimum,
}

impl RoundTrip {
    fn sample(&mut self, now: Time, us: u64) {
        self.minimum.sample(now, us, MINIMUM_US);
        if self.smoothed == 0 {
            (self.smoothed, self.variation) = (us, us / 2);
            return;
        }
        self.variation = (3 * self.variation + self.smoothed.abs_diff(us)) / 4;
        self.smoothed = (7 * self.smoothed + us) / 8;
    }
}

/// A rate measurement in progress.
#[derive(Clone, Copy, Debug, Default)]
struct Epoch {
    since: Time,
    /// The time at which the latest frame was sent that was acknowledged then.
    sent_at: Time,
    acked: u64,
    /// True if the path could have carried more during a part of the time.
    app_limited: bool,
}

/// The estimate of a path.
#[derive(Debug, Default)]
pub(in crate::link) struct PathEstimate {
    carrier: PathStats,
    losses: Losses,
    /// Time from PING to PONG.
    ping: RoundTrip,
    /// Time from a frame to its lane acknowledgement, including the peer's delay.
    ack: RoundTrip,
    /// The shortest of both.
    shortest: Minimum,
    epoch: Option<Epoch>,
    rates: [u64; EPOCHS],
    rate: u64,
    /// The highest rate ever measured.
    peak: u64,
    /// Time of the last measurement of the rate at its limit, or of the last raise without one.
    rate_at: Time,
}

impl PathEstimate {
    /// Stores the measurements of the carrier.
    pub(in crate::link) fn set_stats(&mut self, now: Time, stats: PathStats) {
        if stats.has_rival || stats.suspect {
            // Two carriers fill one queue, and an outage ends with packets that are sent again.
            self.losses.pass(now, stats.resent);
        } else {
            self.losses.note(now, stats.resent, stats.srtt_us);
        }
        self.carrier = stats;
    }

    /// Returns the time that the repair of a lost packet takes at least, in microseconds, if the path loses packets all the time,
    /// and 0 otherwise.
    pub(in crate::link) fn repair_us(&self) -> u64 {
        if self.losses.are_steady() { self.carrier.round_us } else { 0 }
    }

    pub(in crate::link) fn on_pong(&mut self, now: Time, us: u64) {
        let us = us.max(1);
        self.ping.sample(now, us);
        self.shortest.sample(now, us, SHORTEST_US);
    }

    /// Takes an acknowledgement. The latest frame that it covers was sent `us` ago, with `queued` bytes in flight
    /// including itself; `acked` is the total of acknowledged bytes.
    pub(in crate::link) fn on_ack(&mut self, now: Time, us: u64, acked: u64, queued: u64) {
        let us = us.max(1);
        self.ack.sample(now, us);
        self.shortest.sample(now, us, SHORTEST_US);
        let sent_at = Time::from_us(now.as_us().saturating_sub(us));
        let next = Epoch { since: now, sent_at, acked, app_limited: false };
        let Some(epoch) = self.epoch else {
            self.epoch = Some(next);
            return;
        };
        let elapsed = now.since(epoch.since);
        if elapsed < self.rtt_us().max(EPOCH_US_MIN) {
            return;
        }
        let bytes = acked.saturating_sub(epoch.acked);
        let rate = rate_of(bytes, elapsed);
        if epoch.app_limited {
            // The path was busy with the bytes in flight for at most this time, so its rate is at most `queued` in it.
            let busy_us = us.saturating_sub(self.round_us() + SLACK_US.1);
            // Acknowledgements that waited on their way come close behind each other, and the rate that they show would stay: the
            // highest is kept. So the time in which the bytes were sent counts, if it is longer. If it is much longer, nothing was
            // sent for a while.
            let sent_us = sent_at.since(epoch.sent_at);
            let least = rate_of(bytes, elapsed.max(sent_us.min(elapsed * 3 / 2)));
            self.on_rate_bounds(now, least, rate_of(queued.max(FRAME_BYTES_MIN), busy_us).max(rate));
        } else {
            self.on_rate(now, rate);
        }
        self.epoch = Some(next);
    }

    /// Notes that the carrier would have taken more. If only `in_flight` bytes, less than the path holds, were left on
    /// it, the current measurement says nothing about its limit. A few small frames are always less: were it not so, a path that is
    /// believed to be very slow would be measured by the acknowledgements that it carries.
    ///
    /// A path that was slow once may get no traffic for that reason, and then nothing shows that it has recovered. So a
    /// rate that was not measured at its limit for a while rises step by step, up to the highest rate measured.
    pub(in crate::link) fn on_app_limited(&mut self, now: Time, in_flight: u64) {
        if in_flight > self.in_transit().max(FRAME_BYTES_MIN) {
            return;
        }
        if let Some(epoch) = &mut self.epoch {
            epoch.app_limited = true;
        }
        let most = self.peak.max(RATE_INITIAL);
        if now.since(self.rate_at) > DOUBT_US && self.rate > 0 && self.rate < most {
            self.rate_at = now;
            self.rate = (self.rate + self.rate / 4).min(most);
        }
    }

    /// Takes a rate measured while the path was full.
    fn on_rate(&mut self, now: Time, rate: u64) {
        self.peak = self.peak.max(rate);
        self.rate_at = now;
        self.rates.rotate_right(1);
        if let Some(newest) = self.rates.first_mut() {
            *newest = rate;
        }
        self.rate = self.rates.iter().copied().max().unwrap_or(rate);
    }

    /// Takes bounds of the rate from a time in which the path was not always full.
    fn on_rate_bounds(&mut self, now: Time, least: u64, most: u64) {
        self.peak = self.peak.max(least);
        let known = if self.rate == 0 { RATE_INITIAL } else { self.rate };
        if least > known {
            self.rate = least;
        } else if most < known {
            self.rates = [most; EPOCHS];
            self.rate = most;
            self.rate_at = now;
        }
    }

    /// Returns the rate in bytes per second: as measured end to end; before that, the carrier's, but at least the
    /// initial rate, because the carrier derives the rate of an unused path from its initial window.
    ///
    /// The carrier's rate is that of the network. If the peer or a relay on the way is slower, it is far too high, and
    /// the scheduler would wait for a subflow that is full.
    pub(in crate::link) fn rate(&self) -> u64 {
        match (self.carrier.rate, self.rate) {
            (0, 0) => RATE_INITIAL,
            (carrier, 0) => carrier.max(RATE_INITIAL),
            (_, own) => own,
        }
    }

    /// Returns the rate that was measured end to end, if there is one.
    pub(in crate::link) fn measured_rate(&self) -> Option<u64> {
        Some(self.rate).filter(|rate| *rate > 0)
    }

    /// Returns the best known round trip in microseconds.
    pub(in crate::link) fn rtt_us(&self) -> u64 {
        [self.carrier.srtt_us, self.ping.smoothed, self.ack.smoothed]
            .into_iter()
            .find(|us| *us > 0)
            .unwrap_or(RTT_INITIAL_US)
    }

    /// Returns the round trips of the path, if the carrier measures its own.
    ///
    /// They are those of the carrier, unless a window of those would be too small for the round trips between both sessions. These
    /// are longer where a proxy ends the connections on the way, so that the carrier sees a part of the path only, and where the
    /// peer's process waits for its processor.
    pub(in crate::link) fn trip(&self) -> Option<Trip> {
        let PathStats { srtt_us, round_us, .. } = self.carrier;
        let longer = |carrier_us: u64, own_us: u64| {
            let is_longer = own_us > 3 * carrier_us / 2 + ack_delay_us(own_us);
            if is_longer { own_us } else { carrier_us }
        };
        let shortest_us = longer(round_us, self.shortest.recent());
        let smoothed_us = longer(srtt_us, self.ack.smoothed);
        (round_us > 0).then_some(Trip { shortest_us, smoothed_us })
    }

    pub(in crate::link) fn has_pong(&self) -> bool {
        self.ping.smoothed > 0
    }

    pub(in crate::link) fn carrier_suspects(&self) -> bool {
        self.carrier.suspect
    }

    /// Returns the time without acknowledgements after which the path is suspect.
    pub(in crate::link) fn ack_timeout_us(&self) -> u64 {
        if self.ack.smoothed == 0 {
            return ACK_TIMEOUT_US_INITIAL.max(3 * self.rtt_us());
        }
        let most_us = self.ack.smoothed + self.ack.smoothed.max(ACK_PATIENCE_US);
        (3 * self.ack.smoothed + 4 * self.ack.variation).min(most_us).max(ACK_TIMEOUT_US_MIN)
    }

    /// Returns the time until the acknowledgement of a frame sent `age_us` ago is expected, or `u64::MAX` if it is
    /// overdue.
    pub(in crate::link) fn remaining_us(&self, age_us: u64) -> u64 {
        match self.ack.smoothed {
            0 => 0,
            us if age_us > us + self.ack.variation => u64::MAX,
            us => us.saturating_sub(age_us),
        }
    }

    /// Returns the rate of a path with frames in flight and no acknowledgement for `waited_us`: at most one full frame
    /// in the overdue time. The next acknowledgement restores the estimate.
    pub(in crate::link) fn rate_after(&self, waited_us: u64) -> u64 {
        let busy_us = waited_us.saturating_sub(2 * self.round_us() + self.slack_us());
        self.rate().min(rate_of(FRAME_BYTES_MAX as u64, busy_us)).max(1)
    }

    /// Returns the maximum length of a frame, so that it does not occupy the path for long.
    pub(in crate::link) fn frame_bytes(&self) -> u64 {
        match self.rate {
            0 => FRAME_BYTES_MAX as u64,
            rate => (rate / (1_000_000 / FRAME_US)).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX as u64),
        }
    }

    /// Returns the minimum time from a frame to its acknowledgement, in microseconds.
    fn round_us(&self) -> u64 {
        match self.ack.minimum.recent() {
            0 => self.rtt_us(),
            us => us,
        }
    }

    fn slack_us(&self) -> u64 {
        (self.round_us() / 2).clamp(SLACK_US.0, SLACK_US.1)
    }

    /// Returns the number of bytes in flight that are not in a queue.
    fn in_transit(&self) -> u64 {
        self.rate().saturating_mul(self.round_us()) / 1_000_000
    }

    /// Returns the time after which a frame is late, with `in_flight` bytes unacknowledged including itself: twice the
    /// expected time, and a margin.
    pub(in crate::link) fn late_us(&self, in_flight: u64) -> u64 {
        if self.ack.smoothed == 0 {
            return self.ack_timeout_us();
        }
        self.expected_us(in_flight)
            .saturating_mul(2)
            .saturating_add(ACK_TIMEOUT_US_MIN.max(4 * self.ack.variation.min(self.round_us())))
    }

    /// Returns the time after which the acknowledgement of a frame is overdue, with `in_flight` bytes unacknowledged including
    /// itself. A small frame is then sent again elsewhere, which may be wrong: it costs little.
    pub(in crate::link) fn overdue_us(&self, in_flight: u64) -> u64 {
        if self.ack.smoothed == 0 {
            return self.ack_timeout_us();
        }
        let expected_us = self.expected_us(in_flight);
        expected_us.saturating_add(expected_us / 4).saturating_add(self.slack_us())
    }

    /// Returns the expected time from a frame to its acknowledgement.
    fn expected_us(&self, in_flight: u64) -> u64 {
        self.round_us() + wait_us(in_flight.saturating_sub(self.in_transit()), self.rate())
    }

    /// Returns the time until the last of `len` more bytes arrives at the peer, with `in_flight` bytes unacknowledged
    /// and this rate.
    pub(in crate::link) fn arrival_us(&self, in_flight: u64, len: u64, rate: u64) -> u64 {
        let carried = rate.saturating_mul(self.round_us()) / 1_000_000;
        let queued = in_flight.saturating_sub(carried).saturating_add(len);
        let one_way = match self.ping.minimum.recent() {
            0 => self.rtt_us() / 2,
            us => us / 2,
        };
        one_way.saturating_add(wait_us(queued, rate))
    }
}

/// Returns the rate in bytes per second; `u64::MAX` if the time is zero.
fn rate_of(bytes: u64, us: u64) -> u64 {
    bytes.saturating_mul(1_000_000).checked_div(us).unwrap_or(u64::MAX)
}

/// Returns the time in microseconds that so many bytes take.
fn wait_us(bytes: u64, rate: u64) -> u64 {
    bytes.saturating_mul(1_000_000) / rate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_a_full_path_is_measured_and_that_of_an_idle_one_ignored() {
        let mut path = PathEstimate::default();
        let ack =
            |path: &mut PathEstimate, ms: u64, bytes: u64| path.on_ack(Time::from_us(ms * 1000), 20_000, bytes, 30_000);
        (0..20).for_each(|n| ack(&mut path, 30 * n, 30_000 * n));
        assert_eq!(path.rate(), 1_000_000);
        path.on_app_limited(Time::from_us(600_000), 0);
        ack(&mut path, 700, 600_000);
        assert_eq!(path.rate(), 1_000_000);
        (1..=3).for_each(|n| ack(&mut path, 700 + 50 * n, 600_000 + 25_000 * n));
        assert_eq!(path.rate(), 500_000);
    }

    /// Returns a path with a measured rate of 1 MB/s and a round trip of 20 ms.
    fn measured() -> PathEstimate {
        let mut path = PathEstimate::default();
        path.on_pong(Time::ZERO, 20_000);
        (0..20).for_each(|n| path.on_ack(Time::from_us(30_000 * n), 20_000, 30_000 * n, 30_000));
        path
    }

    #[test]
    fn a_slower_path_is_measured_whether_it_is_full_or_not() {
        let mut full = measured();
        for n in 1..=3 {
            let now = Time::from_us(570_000 + 100_000 * n);
            full.on_app_limited(now, 60_000);
            full.on_ack(now, 500_000, 570_000 + 10_000 * n, 60_000);
        }
        assert_eq!(full.rate(), 100_000, "more is in flight than the path holds");
        let mut idle = measured();
        idle.on_app_limited(Time::from_us(600_000), 0);
        idle.on_ack(Time::from_us(1_000_000), 20_000, 572_000, 2000);
        idle.on_app_limited(Time::from_us(1_000_000), 0);
        assert_eq!(idle.rate(), 1_000_000, "a quick acknowledgement shows a good path");
        idle.on_ack(Time::from_us(1_300_000), 245_000, 574_000, 2000);
        assert_eq!(idle.rate(), 10_240, "the path was busy with 2 KiB for a fifth of a second");
    }

    /// 60 kB each 30 ms, of which every other acknowledgement comes 10 ms late.
    #[test]
    fn acknowledgements_that_wait_on_their_way_do_not_raise_the_rate() {
        let mut path = PathEstimate::default();
        path.on_pong(Time::ZERO, 20_000);
        for n in 0..20 {
            let us = 20_000 + n % 2 * 10_000;
            let now = Time::from_us(30_000 * n + us);
            path.on_app_limited(now, 0);
            path.on_ack(now, us, 60_000 * n, 60_000);
        }
        assert_eq!(path.rate(), 2_000_000);
    }

    #[test]
    fn small_frames_do_not_measure_a_path_that_is_believed_to_be_slow() {
        let mut path = measured();
        path.on_app_limited(Time::from_us(1_000_000), 0);
        path.on_ack(Time::from_us(1_300_000), 245_000, 572_000, 2000);
        assert_eq!(path.rate(), 10_240);
        for n in 1..=3 {
            let now = Time::from_us(1_300_000 + 100_000 * n);
            path.on_app_limited(now, 1500);
            path.on_ack(now, 20_000, 572_000 + 100 * n, 1500);
        }
        assert_eq!(path.rate(), 10_240, "it carried 1 KB/s because there was no more");
    }

    #[test]
    fn without_acknowledgements_the_assumed_rate_falls() {
        let path = measured();
        assert_eq!(path.rate_after(50_000), 1_000_000);
        assert_eq!(path.rate_after(50_000 + 1_000_000), 16_384);
        assert_eq!(path.rate(), 1_000_000);
        assert_eq!((path.frame_bytes(), PathEstimate::default().frame_bytes()), (5000, 16_384));
        assert!((140_000..=220_000).contains(&path.late_us(1000)), "{}", path.late_us(1000));
        assert!(path.late_us(120_000) >= path.late_us(1000) + 200_000);
    }

    #[test]
    fn the_acknowledgement_timeout_of_an_unsteady_path_is_bounded() {
        let mut path = PathEstimate::default();
        (0..40).for_each(|n| path.on_ack(Time::from_us(300_000 * n), 20_000 + n % 2 * 400_000, 1000 * n, 1000));
        let (smoothed, variation) = (path.ack.smoothed, path.ack.variation);
        assert!(3 * smoothed + 4 * variation > 1_000_000, "{smoothed} {variation}");
        assert_eq!(path.ack_timeout_us(), smoothed + ACK_PATIENCE_US);
    }

    #[test]
    fn the_arrival_time_counts_the_queue_and_not_the_bytes_in_transit() {
        let mut path = PathEstimate::default();
        path.set_stats(Time::ZERO, PathStats { srtt_us: 20_000, rate: 2_000_000, ..PathStats::default() });
        assert_eq!(path.arrival_us(0, 1000, path.rate()), 10_500);
        assert_eq!(path.arrival_us(40_000, 1000, path.rate()), 10_500);
        assert_eq!(path.arrival_us(70_000, 1000, path.rate()), 25_500);
    }

    #[test]
    fn a_minimum_is_forgotten_after_two_periods() {
        let mut rtt = RoundTrip::default();
        rtt.sample(Time::ZERO, 10);
        (1..=12).for_each(|s| rtt.sample(Time::from_us(s * 1_000_000), 50));
        assert_eq!(rtt.minimum.recent(), 50);
    }

    #[test]
    fn a_round_trip_of_which_the_carrier_sees_a_part_is_that_of_the_sessions() {
        let mut estimate = PathEstimate::default();
        let trip = |estimate: &PathEstimate| estimate.trip().map(|trip| (trip.shortest_us, trip.smoothed_us));
        estimate.on_pong(Time::ZERO, 100_000);
        assert_eq!(trip(&estimate), None, "the carrier measures nothing");
        estimate.set_stats(Time::ZERO, PathStats { srtt_us: 90_000, round_us: 80_000, ..PathStats::default() });
        assert_eq!(trip(&estimate), Some((80_000, 90_000)), "the carrier sees the whole path");
        estimate.set_stats(Time::ZERO, PathStats { srtt_us: 300, round_us: 20, ..PathStats::default() });
        assert_eq!(trip(&estimate), Some((100_000, 300)), "a proxy ends the connection");
        for n in 1..=100 {
            estimate.on_ack(Time::from_us(n * 1_000_000), 120_000, n, 1);
        }
        assert_eq!(trip(&estimate), Some((100_000, 120_000)), "the shortest is kept");
        (101..=500).for_each(|n| estimate.on_ack(Time::from_us(n * 1_000_000), 120_000, n, 1));
        assert_eq!(trip(&estimate), Some((120_000, 120_000)), "and forgotten after five minutes");
    }

    #[test]
    fn a_path_is_repaired_where_it_loses_packets_all_the_time() {
        let stats = PathStats { srtt_us: 25_000, round_us: 20_000, ..PathStats::default() };
        let repair_us = |stats: PathStats| {
            let mut path = PathEstimate::default();
            (1..=40).for_each(|n| path.set_stats(Time::from_us(25_000 * n), PathStats { resent: n, ..stats }));
            path.repair_us()
        };
        assert_eq!(repair_us(stats), 20_000);
        assert_eq!(repair_us(PathStats { has_rival: true, ..stats }), 0, "two carriers fill one queue");
        assert_eq!(repair_us(PathStats { suspect: true, ..stats }), 0, "an outage ends");
    }
}
