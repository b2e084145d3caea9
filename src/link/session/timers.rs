//! Deadlines: the time at which the session needs a call without input, and what it does then.

use super::phase::{Cause, Phase};
use super::state::Session;
use crate::link::path::subflow::{Subflow, SubflowState};
use crate::link::wire::code::Code;
use crate::link::wire::ids::{SubflowId, Time};

/// Time for which CLOSE waits for its acknowledgement.
const CLOSE_US: u64 = 1_000_000;

impl Session {
    /// Returns the latest time for the next call of [`Session::handle_timeout`]. Any other call may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        let session = match self.phase {
            Phase::Ended { .. } => return None,
            Phase::Suspended { since } => Some(since.after(self.config.hold_us)),
            Phase::Closing { since, .. } => Some(since.after(CLOSE_US)),
            Phase::Handshake | Phase::Open | Phase::Resuming(_) => None,
        };
        let ack = self.acks.at.filter(|_| !self.acks.due);
        let mut next = earlier(earlier(session, ack), earlier(self.unopened_timeout(), self.duplicates.next_at()));
        for subflow in &self.subflows {
            next = earlier(next, Some(self.subflow_timeout(subflow)));
        }
        next
    }

    fn subflow_timeout(&self, subflow: &Subflow) -> Time {
        if subflow.state == SubflowState::Handshake {
            return subflow.since.after(self.config.handshake_us);
        }
        let mut next = subflow.heard.after(self.config.dead_us);
        if subflow.room > 0 {
            next = next.min(subflow.ping_at(self.config.ping_us()));
        }
        // Without a frame that waits for its acknowledgement nothing is overdue.
        if !subflow.is_waiting() {
            return next;
        }
        let mut overdue = earlier(subflow.suspect_at(), subflow.dead_lane_at(self.config.dead_us));
        if self.may_reinject() {
            overdue = earlier(overdue, subflow.late_at());
        }
        if subflow.lanes.len() > 2 || self.may_reinject() {
            overdue = earlier(overdue, subflow.stalled_at());
        }
        overdue.map_or(next, |overdue| overdue.min(next))
    }

    /// Does what is due. As after every call, frames and events are to be polled.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.acks.at.is_some_and(|at| at <= now) {
            self.acks.due = true;
        }
        self.duplicates.on_time(now);
        match self.phase {
            Phase::Suspended { since } if now.since(since) >= self.config.hold_us => {
                self.end(Code::LinkLost, "no subflow came back in time".to_owned(), Cause::Local);
            }
            Phase::Closing { since, code, ref text } if now.since(since) >= CLOSE_US => {
                let text = text.clone();
                self.end(code, text, Cause::Local);
            }
            _ => {}
        }
        let dead: Vec<SubflowId> = self.subflows.iter().filter(|s| self.is_dead(now, s)).map(|s| s.id).collect();
        dead.into_iter().for_each(|id| self.remove_subflow(now, id, Code::TimedOut));
        for index in 0..self.subflows.len() {
            if self.subflows.get(index).and_then(Subflow::suspect_at).is_some_and(|at| at <= now) {
                self.suspect(now, index);
            }
            if self.may_reinject() && self.subflows.get(index).and_then(Subflow::late_at).is_some_and(|at| at <= now) {
                self.reinject_late(now, index);
            }
            if self.subflows.get(index).and_then(Subflow::stalled_at).is_some_and(|at| at <= now) {
                self.reinject_stalled(now, index);
            }
        }
        self.abort_unopened(now);
        self.finish_call();
    }

    fn is_dead(&self, now: Time, subflow: &Subflow) -> bool {
        match subflow.state {
            SubflowState::Handshake => now.since(subflow.since) >= self.config.handshake_us,
            SubflowState::Live => {
                let dead_lane = subflow.dead_lane_at(self.config.dead_us);
                now.since(subflow.heard) >= self.config.dead_us || dead_lane.is_some_and(|at| at <= now)
            }
        }
    }

    /// Marks a subflow as suspect: it gets no new frames, and its frames in flight are sent on others, if there are
    /// any.
    pub(super) fn suspect(&mut self, now: Time, index: usize) {
        if let Some(subflow) = self.subflows.get_mut(index)
            && !subflow.suspect
            && subflow.is_live()
        {
            subflow.suspect = true;
            subflow.suspected_at = now;
            subflow.pinged = None; // send a PING at once: its answer clears the suspicion
            self.stats.suspicions += 1;
            self.reinject_from_suspects();
        }
    }
}

/// Returns the earlier of two times, of which either may be missing.
fn earlier(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        _ => a.or(b),
    }
}
