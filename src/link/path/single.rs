//! The choice of the one subflow of the mode `single`.
//!
//! The rate of a path shows only while the path is full. So a transfer begins with a trial: all subflows are used as in the
//! mode `stripe`, and each delivers what it can. Then the best one carries everything, while the others rest. Another trial
//! begins when frames on the chosen subflow are late, so that the others take over at once; when it delivers much less than
//! before, or than another one did in the last trial; and from time to time, because the others may have become better.
//!
//! ```text
//!             +--> Trial --all delivered for a while: the best one is chosen--> Settled --+
//!             +------ the chosen one is lost, late or slow, or was not compared lately ---+
//! ```

use crate::link::wire::ids::{SubflowId, Time};

/// Interval at which delivered bytes are counted. Intervals without a backlog say nothing about a path.
const INTERVAL_US: u64 = 100_000;
/// Busy intervals of a trial, and those at its end that are measured: a path that has rested starts slowly.
const TRIAL: u32 = 10;
const MEASURED: u32 = 5;
/// Shortest and longest time from a trial to the next one for a slow subflow. It doubles if the choice stays the same.
const PAUSE_US: (u64, u64) = (1_000_000, 8_000_000);
/// Time from a trial to the next one without a cause.
const PERIOD_US: u64 = 20_000_000;

/// A subflow that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Usable {
    pub(in crate::link) id: SubflowId,
    /// Acknowledged bytes since the start.
    pub(in crate::link) acked: u64,
    pub(in crate::link) rtt_us: u64,
}

/// The rate that a subflow has shown in the last trial, and since then if it was chosen, in bytes per second.
#[derive(Clone, Copy, Debug)]
struct Shown {
    id: SubflowId,
    acked: u64,
    rate: u64,
}

/// The choice; see the module's head.
#[derive(Debug, Default)]
pub(in crate::link) struct Single {
    chosen: Option<SubflowId>,
    /// The number of busy intervals of the trial, while there is one.
    trial: Option<u32>,
    shown: Vec<Shown>,
    /// The rate of the chosen subflow in its trial.
    settled: u64,
    checked: Time,
    ended: Time,
    pause_us: u64,
}

impl Single {
    /// Returns the subflow to use alone, or `None` if all usable ones are to be used.
    pub(in crate::link) fn choose<I>(&mut self, now: Time, usable: I, has_backlog: bool) -> Option<SubflowId>
    where
        I: Iterator<Item = Usable> + Clone,
    {
        if self.trial.is_none() && !usable.clone().any(|s| self.chosen == Some(s.id)) {
            self.trial = Some(0);
        }
        let elapsed_us = now.since(self.checked);
        if elapsed_us >= INTERVAL_US {
            self.checked = now;
            self.check(now, usable, has_backlog, elapsed_us);
        }
        self.chosen.filter(|_| self.trial.is_none())
    }

    /// Notes that frames on a subflow are late.
    pub(in crate::link) fn on_late(&mut self, id: SubflowId) {
        if self.chosen == Some(id) && self.trial.is_none() {
            self.trial = Some(0);
        }
    }

    fn check<I>(&mut self, now: Time, usable: I, has_backlog: bool, elapsed_us: u64)
    where
        I: Iterator<Item = Usable> + Clone,
    {
        self.shown.retain(|shown| usable.clone().any(|s| s.id == shown.id));
        let measures = self.trial.is_some_and(|busy| busy >= TRIAL - MEASURED);
        for s in usable.clone() {
            let Some(shown) = self.shown.iter_mut().find(|shown| shown.id == s.id) else {
                self.shown.push(Shown { id: s.id, acked: s.acked, rate: 0 });
                self.trial = Some(0);
                continue;
            };
            let rate = s.acked.saturating_sub(shown.acked) * 1_000_000 / elapsed_us;
            shown.acked = s.acked;
            if measures && has_backlog {
                shown.rate += rate / u64::from(MEASURED);
            } else if self.trial.is_none() && has_backlog && self.chosen == Some(s.id) {
                shown.rate = (7 * shown.rate + rate) / 8;
            }
        }
        if has_backlog {
            self.on_busy(now, usable);
        }
    }

    /// Counts a busy interval.
    fn on_busy<I>(&mut self, now: Time, usable: I)
    where
        I: Iterator<Item = Usable> + Clone,
    {
        let Some(busy) = &mut self.trial else {
            self.trial = self.is_doubtful(now).then_some(0);
            return;
        };
        *busy += 1;
        if *busy == TRIAL - MEASURED {
            self.shown.iter_mut().for_each(|shown| shown.rate = 0);
        } else if *busy >= TRIAL {
            self.settle(now, usable);
        }
    }

    /// Ends a trial: chooses the best subflow. The former choice and short paths are preferred to slightly faster ones.
    fn settle<I>(&mut self, now: Time, usable: I)
    where
        I: Iterator<Item = Usable> + Clone,
    {
        let rate_of = |id| self.shown.iter().find(|shown| shown.id == id).map_or(0, |shown| shown.rate);
        let most = self.shown.iter().map(|shown| shown.rate).max().unwrap_or(0);
        let good = usable.filter(|s| rate_of(s.id) >= most - most / 10);
        let best = good.min_by_key(|s| (self.chosen != Some(s.id), s.rtt_us)).map(|s| s.id);
        let is_same = best == self.chosen;
        self.pause_us = if is_same { (2 * self.pause_us).clamp(PAUSE_US.0, PAUSE_US.1) } else { PAUSE_US.0 };
        self.settled = best.map_or(0, rate_of);
        (self.chosen, self.trial, self.ended) = (best, None, now);
    }

    /// Returns true if another subflow may be better than the chosen one.
    fn is_doubtful(&self, now: Time) -> bool {
        let since_us = now.since(self.ended);
        let is_chosen = |shown: &&Shown| self.chosen == Some(shown.id);
        let own = self.shown.iter().find(is_chosen).map_or(0, |shown| shown.rate);
        let other = self.shown.iter().filter(|shown| !is_chosen(shown)).map(|shown| shown.rate).max().unwrap_or(0);
        let is_slow = own < other - other / 4 || own < self.settled / 2;
        self.shown.len() > 1 && (since_us >= PERIOD_US || is_slow && since_us >= self.pause_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two subflows that deliver at rates in bytes per second, as far as they are used.
    #[derive(Default)]
    struct Rig {
        single: Single,
        now: Time,
        acked: [u64; 2],
    }

    const ONE: SubflowId = SubflowId(1);
    const TWO: SubflowId = SubflowId(2);

    impl Rig {
        /// Runs for `ms` at these rates. Returns the choice at the end.
        fn run(&mut self, ms: u64, rates: [u64; 2], has_backlog: bool) -> Option<SubflowId> {
            let mut chosen = None;
            for _ in 0..ms / 10 {
                self.now = self.now.after(10_000);
                let usable = [ONE, TWO].into_iter().zip(self.acked);
                let usable = usable.map(|(id, acked)| Usable { id, acked, rtt_us: 1000 * u64::from(id.0) });
                chosen = self.single.choose(self.now, usable, has_backlog);
                for (id, (acked, rate)) in [ONE, TWO].into_iter().zip(self.acked.iter_mut().zip(rates)) {
                    *acked += if chosen.is_none_or(|only| only == id) { rate / 100 } else { 0 };
                }
            }
            chosen
        }
    }

    #[test]
    fn a_trial_finds_the_best_subflow_and_a_slow_one_causes_another() {
        let mut rig = Rig::default();
        assert_eq!(rig.run(900, [1_000_000, 2_000_000], true), None, "a trial");
        assert_eq!(rig.run(300, [1_000_000, 2_000_000], true), Some(TWO));
        assert_eq!(rig.run(8000, [1_000_000, 2_000_000], true), Some(TWO));
        assert_eq!(rig.run(400, [1_000_000, 100_000], true), Some(TWO), "a short dip");
        assert_eq!(rig.run(8000, [1_000_000, 2_000_000], true), Some(TWO));
        assert_eq!(rig.run(3000, [1_000_000, 100_000], true), Some(ONE));
    }

    #[test]
    fn late_frames_bring_the_others_in_at_once() {
        let mut rig = Rig::default();
        assert_eq!(rig.run(1500, [2_000_000, 1_000_000], true), Some(ONE));
        rig.single.on_late(TWO);
        assert_eq!(rig.run(10, [2_000_000, 1_000_000], true), Some(ONE), "they are not on the chosen one");
        rig.single.on_late(ONE);
        assert_eq!(rig.run(10, [0, 1_000_000], true), None);
        assert_eq!(rig.run(1500, [0, 1_000_000], true), Some(TWO));
    }

    #[test]
    fn equal_subflows_do_not_take_turns_and_an_idle_link_is_not_judged() {
        let mut rig = Rig::default();
        assert_eq!(rig.run(1500, [1_000_000, 1_050_000], true), Some(ONE), "the shorter one of two good ones");
        assert_eq!(rig.run(60_000, [0, 0], false), Some(ONE));
        for _ in 0..60 {
            let chosen = rig.run(1000, [1_000_000, 1_050_000], true);
            assert!(chosen.is_none_or(|id| id == ONE));
        }
    }
}
