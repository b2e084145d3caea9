//! The queue of small frames that are sent on a second subflow, too.
//!
//! In the mode `redundant` each small frame is sent twice at once, and in the mode `stripe` when its acknowledgement is overdue. A
//! small frame costs next to nothing, so it is sent again much sooner than a large one is late, and also where the second subflow
//! is late itself. A duplicate is never duplicated.

use std::collections::VecDeque;

use crate::link::wire::content::FrameContent;
use crate::link::wire::ids::{SubflowId, Time};

/// Maximum number of duplicates that wait. Beyond it the oldest one is dropped.
const DUPLICATES_MAX: usize = 64;

/// A small frame in flight that may be sent a second time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Duplicate {
    pub(super) subflow: SubflowId,
    pub(super) lane: u16,
    /// The position of the frame's end in its lane.
    pub(super) end: u64,
    pub(super) content: FrameContent,
    /// The time from which on it is sent.
    pub(super) at: Time,
}

/// The duplicates that wait for their time or for a subflow.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    pub(super) waiting: VecDeque<Duplicate>,
    /// True if the time of one has come.
    pub(super) is_due: bool,
    /// The earliest time of the others.
    next_at: Option<Time>,
}

impl Duplicates {
    /// Appends a duplicate.
    pub(super) fn push(&mut self, now: Time, duplicate: Duplicate) {
        if self.waiting.len() == DUPLICATES_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(duplicate);
        if duplicate.at <= now {
            self.is_due = true;
        } else {
            self.next_at = Some(self.next_at.map_or(duplicate.at, |at| at.min(duplicate.at)));
        }
    }

    /// Returns the time at which the next one is due.
    pub(super) const fn next_at(&self) -> Option<Time> {
        self.next_at
    }

    /// Notes the time.
    pub(super) fn on_time(&mut self, now: Time) {
        if self.next_at.is_some_and(|at| at <= now) {
            self.is_due = true;
            self.next_at = self.waiting.iter().map(|duplicate| duplicate.at).filter(|at| *at > now).min();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Duplicates::default();
    }
}
