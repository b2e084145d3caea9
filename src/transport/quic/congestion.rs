//! The congestion control of a connection: CUBIC (RFC 9438), whose slow start is careful as soon as a queue shows (HyStart++,
//! RFC 9406).
//!
//! quinn-proto has a CUBIC too. Its slow start ends with the loss of about a window, which takes seconds to repair on a long
//! path. And it measures the growth by the time since the last loss, also that in which the connection sent less than it might: after
//! such a time its window jumps. This one grows only as far as the window is used, and its clock stands still meanwhile.
//!
//! HyStart++ compares the shortest round trips of whole rounds, so that it sees a queue a round after it has begun, and the window
//! has doubled once more. This one compares those of a few acknowledgements with the round before.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory};

/// Makes the congestion control of each path.
pub(super) struct Factory;

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, _: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Cubic::new(mtu))
    }
}

/// The congestion control of one path. Sizes are in bytes.
#[derive(Clone, Debug)]
pub(super) struct Cubic {
    mtu: f64,
    window: f64,
    /// The window at which slow start ends.
    threshold: f64,
    start: SlowStart,
    /// The window at the last loss, as the curve takes it.
    highest: f64,
    /// Growth since the last loss.
    epoch: Option<Epoch>,
    /// Time of the last loss. What was sent before it says nothing about the window after it.
    reduced: Option<Instant>,
    /// The last packet that was sent.
    sent: u64,
    /// The acknowledgements that are being processed.
    batch: Batch,
}

/// Growth by the curve of CUBIC.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    /// Its start, later by the time in which the window was not used.
    since: Instant,
    /// Seconds until the curve reaches its plateau.
    plateau_s: f64,
    /// The plateau, and the window that Reno would have.
    plateau: f64,
    reno: f64,
    /// Time of the last batch of acknowledgements.
    seen: Instant,
}

/// The acknowledgements of one batch.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    /// Bytes that were acknowledged, and those among them that were sent since the last loss.
    bytes: u64,
    counted: u64,
    shortest: Option<Duration>,
    smoothed: Duration,
}

/// The search for the end of slow start: the round trips of one round after the other.
#[derive(Clone, Copy, Debug, Default)]
struct SlowStart {
    /// The last packet of this round.
    end: u64,
    /// The shortest round trip of this round and of the one before.
    this: Option<Duration>,
    before: Option<Duration>,
    /// The shortest round trip of the last few acknowledgements, and their number.
    few: Option<Duration>,
    samples: u32,
    /// Careful growth, because a queue was seen: the round trip at its start, and its rounds.
    careful: Option<(Duration, u32)>,
}

impl Cubic {
    fn new(mtu: u16) -> Cubic {
        Cubic {
            mtu: mtu.into(),
            window: WINDOW_INITIAL,
            threshold: f64::INFINITY,
            start: SlowStart::default(),
            highest: 0.0,
            epoch: None,
            reduced: None,
            sent: 0,
            batch: Batch::default(),
        }
    }

    fn window_min(&self) -> f64 {
        2.0 * self.mtu
    }

    /// Notes an acknowledged packet.
    fn note(&mut self, now: Instant, sent: Instant, bytes: u64, smoothed: Duration) {
        let took = now.saturating_duration_since(sent);
        self.batch.bytes += bytes;
        self.batch.smoothed = smoothed;
        self.batch.shortest = Some(self.batch.shortest.map_or(took, |shortest| shortest.min(took)));
        if self.reduced.is_none_or(|reduced| sent > reduced) {
            self.batch.counted += bytes;
        }
    }

    /// Grows the window by a batch of acknowledgements, after which so many bytes are in flight.
    fn grow(&mut self, now: Instant, in_flight: u64, is_app_limited: bool, acked: Option<u64>) {
        let batch = std::mem::take(&mut self.batch);
        let used = (in_flight + batch.bytes) as f64;
        let is_starting = self.window < self.threshold;
        // Slow start may double what was used, so that it is not over when the sender pauses once.
        let is_used = !is_app_limited || used * if is_starting { 2.0 } else { 1.0 } >= self.window;
        if is_starting {
            let is_over = self.start.note(batch.shortest, acked, self.sent);
            if is_used {
                self.window += batch.counted as f64 / self.start.divisor();
            }
            if is_over {
                self.threshold = self.window;
            }
        } else if let Some(epoch) = self.epoch.as_mut().filter(|_| !is_used) {
            epoch.since += now.saturating_duration_since(epoch.seen);
            epoch.seen = now;
        } else {
            self.follow_curve(now, batch);
        }
    }

    /// Grows the window in congestion avoidance (RFC 9438, sections 4.2 to 4.5).
    fn follow_curve(&mut self, now: Instant, batch: Batch) {
        let (window, mtu) = (self.window, self.mtu);
        let plateau = self.highest.max(window);
        let epoch = self.epoch.get_or_insert_with(|| Epoch {
            since: now,
            plateau_s: ((plateau - window) / mtu / C).cbrt(),
            plateau,
            reno: window,
            seen: now,
        });
        epoch.seen = now;
        let curve = |at: Duration| C * (at.as_secs_f64() - epoch.plateau_s).powi(3) * mtu + epoch.plateau;
        let elapsed = now.saturating_duration_since(epoch.since);
        let (at_once, at_next) = (curve(elapsed), curve(elapsed + batch.smoothed));
        let acked = batch.counted as f64;
        let target = at_next.clamp(window, 1.5 * window);
        let pace = if epoch.reno < epoch.plateau { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        epoch.reno += pace * mtu * acked / window;
        self.window =
            if at_once < epoch.reno { epoch.reno.max(window) } else { window + (target - window) * acked / window };
    }

    /// Reduces the window by the loss of a packet that was sent at this time.
    fn reduce(&mut self, now: Instant, sent: Instant, is_persistent: bool) {
        if self.reduced.is_some_and(|reduced| sent <= reduced) {
            return;
        }
        self.reduced = Some(now);
        self.epoch = None;
        // Another sender may have come: its share is given up sooner.
        self.highest = if self.window < self.highest { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.threshold = (self.window * BETA).max(self.window_min());
        self.window = if is_persistent { self.window_min() } else { self.threshold };
        self.start = SlowStart::default();
    }
}

impl Controller for Cubic {
    fn on_sent(&mut self, _: Instant, _: u64, last: u64) {
        self.sent = last;
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, rtt: &RttEstimator) {
        self.note(now, sent, bytes, rtt.get());
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, acked: Option<u64>) {
        self.grow(now, in_flight, app_limited, acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, _: u64) {
        self.reduce(now, sent, is_persistent);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu.into();
        self.window = self.window.max(self.window_min());
    }

    fn window(&self) -> u64 {
        self.window as u64
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW_INITIAL as u64
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl SlowStart {
    /// Notes the shortest round trip of a batch, and begins the next round if the packets of this one are acknowledged. Returns
    /// true if slow start is over.
    fn note(&mut self, took: Option<Duration>, acked: Option<u64>, sent: u64) -> bool {
        if let Some(took) = took {
            let least = |before: Option<Duration>| Some(before.map_or(took, |before| before.min(took)));
            (self.this, self.few) = (least(self.this), least(self.few));
            self.samples += 1;
        }
        if self.samples >= SAMPLES {
            self.samples = 0;
            let few = self.few.take();
            match (self.careful, few, self.before) {
                (Some((base, _)), Some(few), _) if few < base => self.careful = None,
                (None, Some(few), Some(before)) if few >= before + margin(before) => self.careful = Some((few, 0)),
                _ => {}
            }
        }
        if acked.is_none_or(|acked| acked < self.end) {
            return false;
        }
        self.before = self.this.take().or(self.before);
        self.end = sent;
        let Some((_, rounds)) = &mut self.careful else { return false };
        *rounds += 1;
        *rounds > CAREFUL_ROUNDS
    }

    /// Returns the number of acknowledged bytes for each of which the window grows by one.
    fn divisor(&self) -> f64 {
        if self.careful.is_some() { CAREFUL_DIVISOR } else { 1.0 }
    }
}

/// Returns the time by which the round trip of a round must be longer than that of the round before to show a queue.
fn margin(before: Duration) -> Duration {
    (before / 8).clamp(Duration::from_millis(4), Duration::from_millis(16))
}

/// The window of a new path (RFC 9002, section 7.2).
const WINDOW_INITIAL: f64 = 14_720.0;
/// The factor of a loss, and the steepness of the curve (RFC 9438).
const BETA: f64 = 0.7;
const C: f64 = 0.4;
/// Acknowledgements whose round trips are judged together, rounds of careful growth, and how much slower that is (RFC 9406).
const SAMPLES: u32 = 8;
const CAREFUL_ROUNDS: u32 = 5;
const CAREFUL_DIVISOR: f64 = 4.0;

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1_452;

    /// A path with a rate, a delay and a queue, which the window alone limits.
    struct Rig {
        cubic: Cubic,
        now: Instant,
        packet: u64,
        /// The share of the window that is used.
        used: f64,
    }

    impl Rig {
        fn new() -> Rig {
            Rig { cubic: Cubic::new(MTU as u16), now: Instant::now(), packet: 0, used: 1.0 }
        }

        /// Runs one round trip: what is sent is acknowledged in pairs, behind the queue that the window makes. Returns true if that
        /// was more than the queue holds, and then a loss is reported.
        fn round(&mut self) -> bool {
            let count = ((self.cubic.window * self.used) as u64 / MTU).max(2);
            let (sent, first) = (self.now, self.packet);
            self.packet += count;
            self.cubic.on_sent(sent, 0, self.packet);
            for pair in 1..=count / 2 {
                let waiting = (self.cubic.window * self.used - RATE * DELAY.as_secs_f64()).max(0.0);
                let took = DELAY + Duration::from_secs_f64(waiting.min(QUEUE) / RATE);
                self.now = self.now.max(sent + took);
                for _ in 0..2 {
                    self.cubic.note(self.now, sent, MTU, took);
                }
                self.cubic.grow(self.now, (count - 2 * pair) * MTU, self.used < 1.0, Some(first + 2 * pair));
                if waiting > QUEUE {
                    self.cubic.reduce(self.now, sent, false);
                    return true;
                }
            }
            false
        }
    }

    const RATE: f64 = 6_250_000.0;
    const DELAY: Duration = Duration::from_millis(200);
    const QUEUE: f64 = 625_000.0;

    #[test]
    fn slow_start_is_careful_when_a_long_path_is_full_and_its_queue_is_not() {
        let (mut rig, carried) = (Rig::new(), RATE * DELAY.as_secs_f64());
        let mut rounds = 0;
        while rig.cubic.start.careful.is_none() {
            assert!(!rig.round(), "a loss at {}", rig.cubic.window);
            rounds += 1;
            assert!(rounds < 10, "{}", rig.cubic.window);
        }
        assert!((carried..carried + QUEUE).contains(&rig.cubic.window), "{}", rig.cubic.window);
        let before = rig.cubic.window;
        rig.round();
        assert!(rig.cubic.window < 1.3 * before, "{} after {before}", rig.cubic.window);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow_and_does_not_jump_afterwards() {
        let mut rig = Rig::new();
        rig.cubic.window = 100_000.0;
        rig.cubic.reduce(rig.now, rig.now, false);
        rig.now += Duration::from_millis(1);
        rig.round();
        let before = rig.cubic.window;
        rig.used = 0.4;
        (0..200).for_each(|_| _ = rig.round());
        assert_eq!(rig.cubic.window, before);
        rig.used = 1.0;
        rig.round();
        assert!(rig.cubic.window < 1.1 * before, "{} after {before}", rig.cubic.window);
    }

    #[test]
    fn a_loss_takes_three_tenths_once_in_a_round_and_the_window_grows_back() {
        let mut rig = Rig::new();
        rig.cubic.window = 1_000_000.0;
        let sent = rig.now;
        rig.cubic.reduce(sent + DELAY, sent, false);
        rig.cubic.reduce(sent + DELAY, sent, false);
        assert_eq!(rig.cubic.window, 700_000.0);
        rig.now += 2 * DELAY;
        let mut rounds = 0;
        while rig.cubic.window < 1_000_000.0 {
            rig.round();
            rounds += 1;
        }
        assert!((10..60).contains(&rounds), "{rounds} rounds");
    }

    #[test]
    fn persistent_congestion_begins_again_with_the_smallest_window() {
        let mut rig = Rig::new();
        rig.cubic.window = 1_000_000.0;
        rig.cubic.reduce(rig.now, rig.now, true);
        assert_eq!((rig.cubic.window(), rig.cubic.threshold), (2 * MTU, 700_000.0));
    }
}
