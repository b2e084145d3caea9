//! What is known of one subflow as a path: its delay, its rate, and when something put on it now would arrive.
//!
//! The kernel knows most of this for TCP, on some systems; lane acknowledgements and PONGs tell the rest on any system
//! and for any carrier. Both fill the same estimate, so the scheduler does not know who measured.
//!
//! A rate is what was acknowledged while the path was full. A path that ran dry shows only bounds: it did at least what
//! was acknowledged, and it was busy with what was in flight for no longer than that took. While nothing at all is
//! acknowledged the rate is doubted more and more, without being changed. What was expected when a frame left also says
//! when it is late.

use crate::link::wire::header::FRAME_BYTES_MAX;
use crate::link::wire::ids::Time;

/// What the carrier says of a subflow, where it can. A zero means "not known".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed round-trip time in microseconds.
    pub srtt_us: u64,
    /// The most that the path delivers, in bytes per second: the larger of delivery rate and window over round trip.
    pub rate: u64,
    /// Whether the carrier retransmits because of a timeout.
    pub suspect: bool,
}

/// Assumed until something is measured.
const RATE_INITIAL: u64 = 1_250_000;
const RTT_INITIAL_US: u64 = 100_000;
/// A rate is measured over at least so long, and over at least one round trip.
const EPOCH_US_MIN: u64 = 20_000;
/// The highest of so many epochs counts.
const EPOCHS: usize = 3;
/// A minimum round trip is forgotten after twice this time.
const MINIMUM_US: u64 = 5_000_000;
/// A rate that has not been measured at its limit for so long is doubted.
const DOUBT_US: u64 = 500_000;
/// Nothing is suspected sooner.
const ACK_TIMEOUT_US_MIN: u64 = 100_000;
/// How long the first acknowledgement may take before anything is measured.
const ACK_TIMEOUT_US_INITIAL: u64 = 1_000_000;
/// An acknowledgement comes so much later than it might, because the peer waits for more or is busy: at least, at most.
const SLACK_US: (u64, u64) = (5_000, 25_000);
/// A frame takes so many microseconds of a slow path, if it is not smaller than this: what is urgent waits for it.
const FRAME_US: u64 = 5_000;
const FRAME_BYTES_MIN: u64 = 2048;

/// A smoothed round trip with its variation and its recent minimum, in microseconds (RFC 6298 for the first two).
#[derive(Clone, Copy, Debug, Default)]
struct RoundTrip {
    smoothed: u64,
    variation: u64,
    minimum: u64,
    /// The minimum of the period before, and when the present one began.
    before: u64,
    since: Time,
}

impl RoundTrip {
    fn sample(&mut self, now: Time, us: u64) {
        let us = us.max(1);
        if self.smoothed == 0 {
            *self = RoundTrip { smoothed: us, variation: us / 2, minimum: us, before: us, since: now };
            return;
        }
        self.variation = (3 * self.variation + self.smoothed.abs_diff(us)) / 4;
        self.smoothed = (7 * self.smoothed + us) / 8;
        if now.since(self.since) > MINIMUM_US {
            (self.before, self.minimum, self.since) = (self.minimum, us, now);
        }
        self.minimum = self.minimum.min(us);
    }

    fn recent_minimum(&self) -> u64 {
        self.minimum.min(self.before)
    }
}

/// One measurement of rate in progress.
#[derive(Clone, Copy, Debug, Default)]
struct Epoch {
    since: Time,
    acked: u64,
    /// Whether the path could have carried more for a part of the time.
    app_limited: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(in crate::link) struct PathEstimate {
    carrier: PathStats,
    /// From PING to PONG.
    ping: RoundTrip,
    /// From a frame to the lane acknowledgement of it, with the wait for that.
    ack: RoundTrip,
    epoch: Option<Epoch>,
    rates: [u64; EPOCHS],
    rate: u64,
    /// The highest rate ever measured.
    peak: u64,
    /// When the rate was last measured at its limit, or raised for want of that.
    rate_at: Time,
}

impl PathEstimate {
    /// Takes what the carrier knows.
    pub(in crate::link) fn set_stats(&mut self, stats: PathStats) {
        self.carrier = stats;
    }

    pub(in crate::link) fn on_pong(&mut self, now: Time, us: u64) {
        self.ping.sample(now, us);
    }

    /// A frame sent `us` ago is the latest that the peer has acknowledged, and with it `acked` bytes in all. When it
    /// left, `queued` bytes were in flight, itself included.
    pub(in crate::link) fn on_ack(&mut self, now: Time, us: u64, acked: u64, queued: u64) {
        self.ack.sample(now, us);
        let Some(epoch) = self.epoch else {
            self.epoch = Some(Epoch { since: now, acked, app_limited: false });
            return;
        };
        let elapsed = now.since(epoch.since);
        if elapsed < self.rtt_us().max(EPOCH_US_MIN) {
            return;
        }
        let bytes = acked.saturating_sub(epoch.acked);
        let rate = rate_of(bytes, elapsed);
        if epoch.app_limited {
            // The path was busy with what was in flight for as long as that took: it is no faster than this.
            let busy_us = us.saturating_sub(self.round_us() + SLACK_US.1);
            self.on_rate_bounds(now, rate, rate_of(queued.max(FRAME_BYTES_MIN), busy_us).max(rate));
        } else {
            self.on_rate(now, rate);
        }
        self.epoch = Some(Epoch { since: now, acked, app_limited: false });
    }

    /// The carrier would have taken more than it got. If the path ran dry, with only `in_flight` bytes on it, what is
    /// measured across this says nothing of its limit.
    ///
    /// A path that was slow once may be left alone for that, and then nothing would ever show that it has recovered. So
    /// a rate that has not been measured at its limit for a while is believed less and less, up to the best that the
    /// path has shown.
    pub(in crate::link) fn on_app_limited(&mut self, now: Time, in_flight: u64) {
        if in_flight > self.carried() {
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

    /// The path was full, and made this rate.
    fn on_rate(&mut self, now: Time, rate: u64) {
        self.peak = self.peak.max(rate);
        self.rate_at = now;
        self.rates.rotate_right(1);
        if let Some(newest) = self.rates.first_mut() {
            *newest = rate;
        }
        self.rate = self.rates.iter().copied().max().unwrap_or(rate);
    }

    /// The path was not full all the time: it can do at least this, and at most that.
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

    /// Bytes per second: as acknowledged, end to end; until that is known, as the carrier says, if that is much. What it
    /// says of a path on which nothing was sent is its first window.
    ///
    /// The carrier's figure is that of the network. Where the peer, or a relay on the way, takes less than the network
    /// carries, the carrier reckons far too high, and whoever believed it would wait for a subflow that is full.
    pub(in crate::link) fn rate(&self) -> u64 {
        match (self.carrier.rate, self.rate) {
            (0, 0) => RATE_INITIAL,
            (carrier, 0) => carrier.max(RATE_INITIAL),
            (_, own) => own,
        }
    }

    /// The rate that was measured; what the carrier says of a path on which little was sent is none.
    pub(in crate::link) fn measured_rate(&self) -> Option<u64> {
        Some(self.rate).filter(|rate| *rate > 0)
    }

    /// A round trip in microseconds: the best that is known.
    pub(in crate::link) fn rtt_us(&self) -> u64 {
        [self.carrier.srtt_us, self.ping.smoothed, self.ack.smoothed]
            .into_iter()
            .find(|us| *us > 0)
            .unwrap_or(RTT_INITIAL_US)
    }

    pub(in crate::link) fn has_pong(&self) -> bool {
        self.ping.smoothed > 0
    }

    pub(in crate::link) fn carrier_suspects(&self) -> bool {
        self.carrier.suspect
    }

    /// How long acknowledgements may fail to come before the path is suspect.
    pub(in crate::link) fn ack_timeout_us(&self) -> u64 {
        if self.ack.smoothed == 0 {
            return ACK_TIMEOUT_US_INITIAL.max(3 * self.rtt_us());
        }
        (3 * self.ack.smoothed + 4 * self.ack.variation).max(ACK_TIMEOUT_US_MIN)
    }

    /// How much longer the acknowledgement of a frame sent `age_us` ago may take; without end if it is overdue.
    pub(in crate::link) fn remaining_us(&self, age_us: u64) -> u64 {
        match self.ack.smoothed {
            0 => 0,
            us if age_us > us + self.ack.variation => u64::MAX,
            us => us.saturating_sub(age_us),
        }
    }

    /// The rate, where nothing has been acknowledged for `waited_us` although something is in flight: then it is no
    /// faster than what has failed to come. This is a doubt and no measurement; it is over with the next
    /// acknowledgement.
    pub(in crate::link) fn rate_after(&self, waited_us: u64) -> u64 {
        let busy_us = waited_us.saturating_sub(2 * self.round_us() + self.slack_us());
        self.rate().min(rate_of(FRAME_BYTES_MAX as u64, busy_us)).max(1)
    }

    /// Bytes of a frame, so that the path is not busy with it for long.
    pub(in crate::link) fn frame_bytes(&self) -> u64 {
        match self.rate {
            0 => FRAME_BYTES_MAX as u64,
            rate => (rate / (1_000_000 / FRAME_US)).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX as u64),
        }
    }

    /// One undisturbed round of acknowledgement, in microseconds.
    fn round_us(&self) -> u64 {
        match self.ack.recent_minimum() {
            0 => self.rtt_us(),
            us => us,
        }
    }

    fn slack_us(&self) -> u64 {
        (self.round_us() / 2).clamp(SLACK_US.0, SLACK_US.1)
    }

    /// Bytes in flight that are on their way or there; what is beyond them is queued.
    fn carried(&self) -> u64 {
        self.rate().saturating_mul(self.round_us()) / 1_000_000
    }

    /// How long after it left a frame is late, with `in_flight` unacknowledged, itself included: twice as long as its
    /// acknowledgement should take, and some patience.
    pub(in crate::link) fn late_us(&self, in_flight: u64) -> u64 {
        if self.ack.smoothed == 0 {
            return self.ack_timeout_us();
        }
        let expected_us = self.round_us() + wait_us(in_flight.saturating_sub(self.carried()), self.rate());
        expected_us
            .saturating_mul(2)
            .saturating_add(ACK_TIMEOUT_US_MIN.max(4 * self.ack.variation.min(self.round_us())))
    }

    /// When the last of `len` more bytes would be at the peer, in microseconds from now, with `in_flight`
    /// unacknowledged, at this rate.
    pub(in crate::link) fn arrival_us(&self, in_flight: u64, len: u64, rate: u64) -> u64 {
        let carried = rate.saturating_mul(self.round_us()) / 1_000_000;
        let queued = in_flight.saturating_sub(carried).saturating_add(len);
        let one_way = match self.ping.recent_minimum() {
            0 => self.rtt_us() / 2,
            us => us / 2,
        };
        one_way.saturating_add(wait_us(queued, rate))
    }
}

/// Bytes per second, of so many bytes in so many microseconds; without bound in none.
fn rate_of(bytes: u64, us: u64) -> u64 {
    bytes.saturating_mul(1_000_000).checked_div(us).unwrap_or(u64::MAX)
}

/// How many microseconds so many bytes take.
fn wait_us(bytes: u64, rate: u64) -> u64 {
    bytes.saturating_mul(1_000_000) / rate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_the_rate_of_a_full_path_and_ignores_a_starved_one() {
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

    /// A path that has shown 1 MB/s at 20 ms, and what it acknowledged last.
    fn shown() -> PathEstimate {
        let mut path = PathEstimate::default();
        path.on_pong(Time::ZERO, 20_000);
        (0..20).for_each(|n| path.on_ack(Time::from_us(30_000 * n), 20_000, 30_000 * n, 30_000));
        path
    }

    #[test]
    fn a_path_that_got_slower_is_measured_whether_it_is_full_or_not() {
        let mut full = shown();
        for n in 1..=3 {
            let now = Time::from_us(570_000 + 100_000 * n);
            full.on_app_limited(now, 60_000);
            full.on_ack(now, 500_000, 570_000 + 10_000 * n, 60_000);
        }
        assert_eq!(full.rate(), 100_000, "what it holds is more than what travels");
        let mut app_limited = shown();
        app_limited.on_app_limited(Time::from_us(600_000), 0);
        app_limited.on_ack(Time::from_us(1_000_000), 20_000, 572_000, 2000);
        app_limited.on_app_limited(Time::from_us(1_000_000), 0);
        assert_eq!(app_limited.rate(), 1_000_000, "a quick answer says that it is well");
        app_limited.on_ack(Time::from_us(1_300_000), 245_000, 574_000, 2000);
        assert_eq!(app_limited.rate(), 10_240, "it was busy with 2 KiB for a fifth of a second");
    }

    #[test]
    fn while_nothing_is_acknowledged_a_rate_is_doubted() {
        let path = shown();
        assert_eq!(path.rate_after(50_000), 1_000_000);
        assert_eq!(path.rate_after(50_000 + 1_000_000), 16_384);
        assert_eq!(path.rate(), 1_000_000);
        assert_eq!((path.frame_bytes(), PathEstimate::default().frame_bytes()), (5000, 16_384));
        assert!((140_000..=220_000).contains(&path.late_us(1000)), "{}", path.late_us(1000));
        assert!(path.late_us(120_000) >= path.late_us(1000) + 200_000);
    }

    #[test]
    fn arrival_counts_the_queue_and_not_what_travels() {
        let mut path = PathEstimate::default();
        path.set_stats(PathStats { srtt_us: 20_000, rate: 2_000_000, suspect: false });
        assert_eq!(path.arrival_us(0, 1000, path.rate()), 10_500);
        assert_eq!(path.arrival_us(40_000, 1000, path.rate()), 10_500);
        assert_eq!(path.arrival_us(70_000, 1000, path.rate()), 25_500);
    }

    #[test]
    fn a_minimum_is_forgotten_in_time() {
        let mut rtt = RoundTrip::default();
        rtt.sample(Time::ZERO, 10);
        (1..=12).for_each(|s| rtt.sample(Time::from_us(s * 1_000_000), 50));
        assert_eq!(rtt.recent_minimum(), 50);
    }
}
