//! The choice between two carriers over one path: TCP, and QUIC beside it (`--carrier auto`).
//!
//! TCP is dialed first, because it costs the least. QUIC is a backup until TCP fails, or until a trial shows that it delivers
//! more. Its handshake is shorter, so it may be up sooner, and stands in for TCP for up to [`STAND_IN_MS`].
//!
//! In a trial both carry for [`TRIAL_MS`], and what they deliver together is compared with what the leader delivered alone: a
//! leader that fills the path, or has little to carry, gains nothing from help. Trials begin while the link is busy at a rate
//! that does not grow: on a path that is not full yet, the slow start of the other one would cost the leader its own. They
//! follow each other after pauses that double from [`PAUSE_MS`] to [`PAUSE_MS_MAX`] with a random part, as long as the leader
//! stays the same. A leader that has become slow is tried sooner.
//!
//! ```text
//!   First leads <--trial won, or the other one lost--> Second leads
//! ```
//! One end decides, the one that dials: the frames count that the peers have processed, in both directions, and the classes of the
//! subflows tell the peer. Bytes on the wire would count what a full queue drops.

use crate::link::SubflowId;

/// Index of the first carrier, which is preferred, and of the one beside it.
pub(super) const FIRST: usize = 0;
pub(super) const BESIDE: usize = 1;

/// The deliveries of the two carriers of a path so far: the subflow of each, and its bytes in both directions; `None` while it is
/// down.
pub(super) type Delivered = [Option<(SubflowId, u64)>; 2];

/// The state of the choice for one path.
#[derive(Debug, Default)]
pub(super) struct Rivals {
    leader: usize,
    /// The time at which a carrier was up first.
    begun_ms: Option<u64>,
    /// Set once the first carrier has been up.
    has_first: bool,
    trial: Option<Trial>,
    /// Start of the current sample of the leader's rate, and what was delivered then.
    sample: Option<(u64, Delivered)>,
    /// The rate of the leader in the last sample, in bytes per second.
    rate: u64,
    /// The number of samples since the rate has changed much or grown.
    steady: u32,
    /// The rate of the leader after the last trial.
    rate_judged: u64,
    /// The earliest time of the next trial, and the earliest one if the leader becomes slow.
    next_ms: u64,
    soonest_ms: u64,
    pause_ms: u64,
    /// The subflows of the last call.
    subflows: [Option<SubflowId>; 2],
}

/// A trial in progress.
#[derive(Debug)]
struct Trial {
    begun_ms: u64,
    before: Delivered,
    /// The rate of the leader alone in the two samples before: the mean and the higher one.
    mean: u64,
    alone: u64,
}

impl Rivals {
    /// Returns the carriers that are active; the others are backups.
    pub fn active(&self) -> [bool; 2] {
        [FIRST, BESIDE].map(|at| self.trial.is_some() || self.leader == at)
    }

    /// Returns the carrier that carries while no trial runs.
    pub fn leader(&self) -> usize {
        self.leader
    }

    /// Returns the time of the next call, if one is needed without traffic.
    pub fn next_ms(&self) -> Option<u64> {
        self.trial.as_ref().map(|trial| trial.begun_ms + TRIAL_MS)
    }

    /// Takes what was delivered until now. `chance` draws a random byte. Returns true if the leader has changed.
    pub fn note(&mut self, now_ms: u64, delivered: Delivered, chance: impl FnOnce() -> u8) -> bool {
        let before = self.leader;
        let subflows = delivered.map(|carrier| Some(carrier?.0));
        if subflows != self.subflows {
            self.subflows = subflows;
            self.on_change(now_ms, subflows.map(|subflow| subflow.is_some()));
        } else if let Some(trial) = self.trial.take_if(|trial| now_ms >= trial.begun_ms + TRIAL_MS) {
            self.judge(now_ms, &trial, delivered, chance());
        } else if self.trial.is_none() {
            self.observe(now_ms, delivered);
        }
        self.leader != before
    }

    /// A carrier has come up, was lost or replaced: the one that is up carries on, and stays the leader until a trial.
    fn on_change(&mut self, now_ms: u64, is_up: [bool; 2]) {
        (self.trial, self.sample, self.rate, self.steady) = (None, None, 0, 0);
        let is_new = now_ms.saturating_sub(*self.begun_ms.get_or_insert(now_ms)) <= STAND_IN_MS && !self.has_first;
        match is_up {
            [true, false] => self.leader = FIRST,
            [false, true] => self.leader = BESIDE,
            [true, true] if is_new => self.leader = FIRST,
            _ => {}
        }
        self.has_first |= is_up[FIRST];
        if is_up == [true, true] {
            (self.next_ms, self.soonest_ms, self.pause_ms) = (now_ms + FIRST_MS, now_ms + FIRST_MS, PAUSE_MS);
        }
    }

    /// Measures the rate of the leader, and begins a trial if one is due while the link is busy.
    fn observe(&mut self, now_ms: u64, delivered: Delivered) {
        let [Some(_), Some(_)] = delivered else { return };
        let Some((since_ms, before)) = self.sample else {
            self.sample = Some((now_ms, delivered));
            return;
        };
        let elapsed_ms = now_ms.saturating_sub(since_ms);
        if elapsed_ms < SAMPLE_MS {
            return;
        }
        self.sample = Some((now_ms, delivered));
        // A long time without a call was a time without traffic.
        if elapsed_ms > 2 * SAMPLE_MS {
            (self.rate, self.steady) = (0, 0);
            return;
        }
        let rate = rate(gains(before, delivered)[self.leader], elapsed_ms);
        let earlier = std::mem::replace(&mut self.rate, rate);
        // A leader whose rate still grows would be compared with what it was, and one that has less to carry needs no help.
        let is_steady = (earlier - earlier / 4..=earlier + earlier / 16).contains(&rate);
        self.steady = if is_steady { self.steady.saturating_add(1) } else { 0 };
        if rate < BUSY_RATE || self.steady < STEADY_MIN {
            return;
        }
        let is_slow = rate < self.rate_judged / 2 && now_ms >= self.soonest_ms;
        if now_ms >= self.next_ms || is_slow {
            self.trial = Some(Trial {
                begun_ms: now_ms,
                before: delivered,
                mean: (rate + earlier) / 2,
                alone: rate.max(earlier),
            });
        }
    }

    /// Ends a trial.
    fn judge(&mut self, now_ms: u64, trial: &Trial, delivered: Delivered, chance: u8) {
        let elapsed_ms = now_ms.saturating_sub(trial.begun_ms);
        let gained = gains(trial.before, delivered);
        let [first, beside] = gained;
        let both = rate(first + beside, elapsed_ms);
        let helps = both.saturating_mul(4) >= trial.alone.saturating_mul(5) && first + beside >= TRIAL_BYTES_MIN;
        let changes = match self.leader {
            FIRST => helps && beside * 2 > first * 3,
            // TCP costs less, so it carries again if it takes nearly its half.
            _ => first + beside >= TRIAL_BYTES_MIN && first * 4 >= beside * 3,
        };
        if changes {
            self.leader = 1 - self.leader;
            self.pause_ms = PAUSE_MS;
        } else if both >= trial.alone / 2 {
            // Otherwise the link had little to carry meanwhile, and the trial has shown nothing.
            self.pause_ms = (2 * self.pause_ms).clamp(PAUSE_MS, PAUSE_MS_MAX);
        }
        self.rate_judged = rate(gained[self.leader], elapsed_ms).max(if changes { 0 } else { trial.mean });
        let pause_ms = self.pause_ms / 2 + self.pause_ms * u64::from(chance) / 512;
        (self.next_ms, self.soonest_ms) = (now_ms + pause_ms, now_ms + PAUSE_MS / 2);
        self.sample = Some((now_ms, delivered));
    }
}

/// Returns the bytes that each carrier has delivered between two times.
fn gains(before: Delivered, after: Delivered) -> [u64; 2] {
    let bytes = |carrier: Option<(SubflowId, u64)>| carrier.map_or(0, |(_, bytes)| bytes);
    let gain = |at: usize| bytes(after[at]).saturating_sub(bytes(before[at]));
    [gain(FIRST), gain(BESIDE)]
}

/// Returns bytes per second.
fn rate(bytes: u64, ms: u64) -> u64 {
    bytes.saturating_mul(1000) / ms.max(1)
}

/// Time in which both carriers are active.
const TRIAL_MS: u64 = 2_000;
/// Time after both are up until the first trial.
const FIRST_MS: u64 = 1_000;
/// Pauses between trials.
const PAUSE_MS: u64 = 10_000;
const PAUSE_MS_MAX: u64 = 600_000;
/// Minimum time over which the rate of the leader is measured.
const SAMPLE_MS: u64 = 500;
/// Time in which the first carrier may be up later than the other one and lead nevertheless.
const STAND_IN_MS: u64 = 3_000;
/// Samples without growth before a trial.
const STEADY_MIN: u32 = 2;
/// Rate in bytes per second from which on a link is busy.
const BUSY_RATE: u64 = 16 << 10;
/// Minimum of the bytes of a trial that changes the leader.
const TRIAL_BYTES_MIN: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two carriers with rates in bytes per second, of which those that are active carry.
    struct Rig {
        rivals: Rivals,
        now_ms: u64,
        delivered: [u64; 2],
        up: [bool; 2],
        subflows: [u16; 2],
        trials: u32,
    }

    impl Rig {
        fn new() -> Rig {
            Rig {
                rivals: Rivals::default(),
                now_ms: 1000,
                delivered: [0; 2],
                up: [true; 2],
                subflows: [1, 2],
                trials: 0,
            }
        }

        /// Runs for so many seconds with these rates, of which the path carries `path` in all.
        fn run(&mut self, seconds: u64, rates: [u64; 2], path: u64) -> usize {
            self.steps(20 * seconds, rates, path)
        }

        /// Runs for so many twentieths of a second.
        fn steps(&mut self, count: u64, rates: [u64; 2], path: u64) -> usize {
            for _ in 0..count {
                self.now_ms += 50;
                let active = self.rivals.active();
                let wanted = [FIRST, BESIDE].map(|at| if active[at] && self.up[at] { rates[at] / 20 } else { 0 });
                let sum = (wanted[0] + wanted[1]).max(1);
                for at in [FIRST, BESIDE] {
                    self.delivered[at] += if sum > path / 20 { wanted[at] * (path / 20) / sum } else { wanted[at] };
                }
                let had_trial = self.rivals.next_ms().is_some();
                let now =
                    [FIRST, BESIDE].map(|at| self.up[at].then_some((SubflowId(self.subflows[at]), self.delivered[at])));
                self.rivals.note(self.now_ms, now, || 128);
                self.trials += u32::from(!had_trial && self.rivals.next_ms().is_some());
            }
            self.rivals.leader()
        }
    }

    const MBIT: u64 = 125_000;

    #[test]
    fn tcp_carries_while_it_fills_the_path_and_trials_become_rare() {
        let mut rig = Rig::new();
        assert_eq!(rig.run(3600, [100 * MBIT, 100 * MBIT], 20 * MBIT), FIRST);
        assert!((6..=14).contains(&rig.trials), "{} trials in an hour", rig.trials);
    }

    #[test]
    fn quic_carries_where_tcp_is_throttled_and_tcp_again_afterwards() {
        let mut rig = Rig::new();
        assert_eq!(rig.run(5, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE);
        assert_eq!(rig.run(60, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE);
        assert_eq!(rig.run(700, [50 * MBIT, 50 * MBIT], 50 * MBIT), FIRST, "both are the same, and TCP costs less");
        // It is throttled again in the long pause between two trials.
        rig.run(1800, [50 * MBIT, 50 * MBIT], 50 * MBIT);
        assert_eq!(rig.run(10, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE);
    }

    #[test]
    fn a_leader_whose_rate_grows_is_not_compared_with_what_it_was() {
        let (mut rig, mut rate) = (Rig::new(), MBIT / 2);
        while rate < 20 * MBIT {
            assert_eq!(rig.steps(1, [rate, 20 * MBIT], 20 * MBIT), FIRST, "{rate}");
            rate += rate / 20;
        }
        assert_eq!((rig.trials, rig.now_ms > 4_000), (0, true), "{}", rig.now_ms);
        assert_eq!(rig.run(600, [20 * MBIT, 20 * MBIT], 20 * MBIT), FIRST);
    }

    #[test]
    fn a_leader_that_fills_a_long_path_slowly_is_left_alone_until_it_is_full() {
        let mut rig = Rig::new();
        // Measured over a path of 50 Mbit/s and 120 ms, every half second.
        for mbit in [1, 8, 14, 19, 21, 27, 30, 33, 37, 40, 44] {
            rig.steps(10, [mbit * MBIT, 50 * MBIT], 50 * MBIT);
            assert_eq!((rig.rivals.active(), rig.trials), ([true, false], 0), "at {mbit} Mbit/s");
        }
        rig.run(4, [48 * MBIT, 50 * MBIT], 50 * MBIT);
        assert_eq!(rig.trials, 1);
    }

    #[test]
    fn a_leader_whose_rate_varies_is_tried_too() {
        for seed in 0..50 {
            let (mut rig, mut random) = (Rig::new(), seed * 7919 + 1);
            while rig.trials == 0 {
                random = (random * 1_103_515_245 + 12_345) % (1 << 31);
                // Half as much or half as much again, in each half second.
                let percent = 50 + (random >> 16) % 101;
                rig.steps(10, [MBIT * percent / 100, 50 * MBIT], 50 * MBIT);
                assert!(rig.now_ms < 60_000, "no trial within a minute, seed {seed}");
            }
        }
    }

    #[test]
    fn a_carrier_that_is_up_before_tcp_stands_in_for_it_and_no_longer() {
        let mut rig = Rig::new();
        rig.up = [false, true];
        assert_eq!(rig.steps(2, [0, 50 * MBIT], 50 * MBIT), BESIDE);
        rig.up = [true, true];
        assert_eq!(rig.steps(2, [50 * MBIT, 50 * MBIT], 50 * MBIT), FIRST);
        assert_eq!(rig.rivals.active(), [true, false]);
        assert_eq!(rig.run(60, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE, "a trial decides later");
        let mut late = Rig::new();
        late.up = [false, true];
        assert_eq!(late.run(4, [0, 50 * MBIT], 50 * MBIT), BESIDE);
        late.up = [true, true];
        assert_eq!(late.steps(2, [50 * MBIT, 50 * MBIT], 50 * MBIT), BESIDE, "TCP did not answer for a long time");
    }

    #[test]
    fn a_trial_without_traffic_leaves_the_pause_as_it_is() {
        let mut rig = Rig::new();
        for _ in 0..100 {
            rig.steps(44, [20 * MBIT, 20 * MBIT], 20 * MBIT);
            rig.steps(100, [0, 0], 20 * MBIT);
        }
        assert!(rig.trials > 10, "{} trials in ten minutes", rig.trials);
        assert_eq!(rig.run(20, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE, "a transfer that is throttled");
    }

    #[test]
    fn a_subflow_that_was_replaced_in_a_trial_is_not_judged_by_its_new_count() {
        let mut rig = Rig::new();
        assert_eq!(rig.run(5, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE);
        while rig.rivals.next_ms().is_none() {
            rig.steps(1, [MBIT, 50 * MBIT], 50 * MBIT);
        }
        (rig.subflows[BESIDE], rig.delivered[BESIDE]) = (3, 0);
        for _ in 0..60 {
            assert_eq!(rig.steps(1, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE);
        }
    }

    #[test]
    fn a_link_with_little_to_carry_stays_on_tcp_and_an_idle_one_makes_no_trial() {
        let mut rig = Rig::new();
        assert_eq!(rig.run(600, [2 * BUSY_RATE, 0], 50 * MBIT), FIRST);
        let mut idle = Rig::new();
        assert_eq!(idle.run(600, [1000, 1000], 50 * MBIT), FIRST);
        assert_eq!((idle.trials, idle.rivals.next_ms()), (0, None));
    }

    #[test]
    fn the_one_that_is_up_carries_and_stays_the_leader() {
        let mut rig = Rig::new();
        rig.up = [true, false];
        assert_eq!(rig.run(10, [MBIT, 50 * MBIT], 50 * MBIT), FIRST);
        rig.up = [false, true];
        assert_eq!(rig.run(1, [MBIT, 50 * MBIT], 50 * MBIT), BESIDE);
        rig.up = [true, true];
        rig.run(1, [0, 0], 50 * MBIT);
        assert_eq!(rig.rivals.active(), [false, true], "the lost one is a backup when it is back");
        rig.up = [true, false];
        assert_eq!(rig.run(1, [MBIT, 50 * MBIT], 50 * MBIT), FIRST);
    }
}
