//! The count of switches: a subflow that carried is left, because others deliver sooner.
//!
//! Each second in which the session sends bulk, the bytes of streams that it has put on each subflow are compared. A subflow carries
//! once it had a fair share of them for some seconds, so that the trial of a second carrier is no switch; and it is left in the first
//! second in which it has next to nothing of them, because it is slow or silent. The end of its path is no switch. The count decides
//! nothing: it tells the user what the scheduler has done.

use super::subflow::Subflow;
use crate::link::wire::frame::Class;
use crate::link::wire::ids::Time;

/// The share of one subflow.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::link) struct Share {
    /// Bytes of streams that were put on the subflow in this interval.
    pub(in crate::link) bytes: u64,
    /// Intervals with a fair share since the subflow was left, up to [`CARRY_INTERVALS`].
    intervals: u8,
}

/// The interval in progress.
#[derive(Debug)]
pub(in crate::link) struct Switches {
    since: Time,
}

/// Length of an interval.
const INTERVAL_US: u64 = 1_000_000;
/// Bytes of all subflows below which an interval says nothing.
const BULK_BYTES: u64 = 64 * 1024;
/// Intervals with a fair share after which a subflow carries. The trial of a carrier takes two seconds.
const CARRY_INTERVALS: u8 = 4;
/// A subflow with one part in so many has a fair share, and one with less than one part in so many is left.
const FAIR_PART: u64 = 8;
const LEFT_PART: u64 = 16;

impl Switches {
    pub(in crate::link) const fn new() -> Switches {
        Switches { since: Time::ZERO }
    }

    /// Ends the interval once it is over. Returns the number of subflows that were left in it.
    pub(in crate::link) fn on_time(&mut self, now: Time, subflows: &mut [Subflow]) -> u64 {
        let elapsed_us = now.since(self.since);
        if elapsed_us < INTERVAL_US {
            return 0;
        }
        self.since = now;
        let total: u64 = subflows.iter().map(|subflow| subflow.share.bytes).sum();
        // A longer interval had a pause in it.
        let is_bulk = elapsed_us < 2 * INTERVAL_US && total >= BULK_BYTES;
        let mut left = 0;
        for subflow in subflows.iter_mut() {
            let is_closing = subflow.class() == Class::Closing;
            let share = &mut subflow.share;
            let bytes = std::mem::take(&mut share.bytes);
            if is_closing {
                share.intervals = 0;
            } else if is_bulk && bytes * LEFT_PART < total {
                left += u64::from(std::mem::take(&mut share.intervals) == CARRY_INTERVALS);
            } else if is_bulk && bytes * FAIR_PART >= total {
                share.intervals = (share.intervals + 1).min(CARRY_INTERVALS);
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::super::subflow::SubflowState;
    use super::*;
    use crate::link::wire::ids::SubflowId;

    /// Puts these bytes on two subflows in each of some seconds. Returns the switches.
    fn run(seconds: &[[u64; 2]]) -> u64 {
        let subflow = |id| Subflow::new(SubflowId(id), SubflowState::Live, 1, Time::ZERO);
        let (mut switches, mut subflows) = (Switches::new(), [subflow(0), subflow(1)]);
        let second = |(bytes, n): (&[u64; 2], u64)| {
            subflows.iter_mut().zip(bytes).for_each(|(subflow, bytes)| subflow.share.bytes = *bytes);
            switches.on_time(Time::from_us(n * INTERVAL_US), &mut subflows)
        };
        seconds.iter().zip(1..).map(second).sum()
    }

    const BOTH: [u64; 2] = [1 << 20, 1 << 20];
    const FIRST: [u64; 2] = [1 << 20, 1 << 10];

    #[test]
    fn a_subflow_that_carried_and_has_nothing_is_one_switch() {
        assert_eq!(run(&[BOTH, BOTH, BOTH, BOTH, FIRST, FIRST, FIRST]), 1);
        let back = [BOTH, BOTH, BOTH, BOTH, FIRST, BOTH, BOTH, BOTH, BOTH, FIRST];
        assert_eq!(run(&back), 2, "it carried again");
        let other = [[0, 1 << 20], [0, 1 << 20], [0, 1 << 20], [0, 1 << 20], [1 << 20, 0]];
        assert_eq!(run(&other), 1, "from one to the other");
    }

    #[test]
    fn a_trial_a_smaller_share_a_removed_path_and_a_pause_are_no_switch() {
        assert_eq!(run(&[FIRST, BOTH, BOTH, BOTH, FIRST]), 0, "a trial");
        let unequal = [1 << 20, 100 << 10];
        assert_eq!(run(&[BOTH, BOTH, BOTH, BOTH, unequal, unequal]), 0, "it has less, but something");
        assert_eq!(run(&[BOTH, BOTH, BOTH, BOTH, [1 << 10, 0], [0, 0]]), 0, "too little to tell");
        let mut removed = Subflow::new(SubflowId(0), SubflowState::Live, 1, Time::ZERO);
        removed.share = Share { bytes: 0, intervals: CARRY_INTERVALS };
        removed.classes[0] = Class::Closing;
        let mut rest = Subflow::new(SubflowId(1), SubflowState::Live, 1, Time::ZERO);
        rest.share.bytes = 1 << 20;
        assert_eq!(
            Switches::new().on_time(Time::from_us(INTERVAL_US), &mut [removed, rest]),
            0,
            "its path was removed"
        );
        let mut switches = Switches::new();
        let mut subflow = Subflow::new(SubflowId(0), SubflowState::Live, 1, Time::ZERO);
        subflow.share = Share { bytes: 0, intervals: CARRY_INTERVALS };
        let mut other = Subflow::new(SubflowId(1), SubflowState::Live, 1, Time::ZERO);
        other.share.bytes = 1 << 20;
        assert_eq!(switches.on_time(Time::from_us(2 * INTERVAL_US), &mut [subflow, other]), 0, "a pause was in it");
    }
}
