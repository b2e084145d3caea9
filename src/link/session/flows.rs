//! The datagrams of all flows: their common limit, and the subflow of each flow.

use super::state::Session;
use super::unopened::Route;
use crate::link::path::scheduler::{Candidate, Scheduler};
use crate::link::path::subflow::Subflow;
use crate::link::stream::datagram::{Datagrams, PART_WAIT_US_MAX, SESSION_BYTES_MAX};
use crate::link::stream::drr::Queue;
use crate::link::stream::state::Stream;
use crate::link::wire::ids::{SubflowId, Time};

/// Maximum number of flows that are searched for late datagrams for one datagram in a full session.
const LATE_FLOWS_MAX: usize = 16;
/// Minimum silence after which a flow may choose its subflow again.
const SILENCE_US_MIN: u64 = 50_000;

impl Session {
    /// Changes the datagrams of a stream, if it has any, and the session's sum accordingly. The second argument of
    /// `change` is true if the session is full.
    pub(super) fn with_datagrams<R>(
        &mut self,
        slot: usize,
        change: impl FnOnce(&mut Datagrams, bool) -> R,
    ) -> Option<R> {
        let full = self.datagram_bytes >= SESSION_BYTES_MAX as u64;
        let datagrams = self.streams.get_mut(slot)?.datagrams.as_mut()?;
        let before = datagrams.cost() as u64;
        let result = change(datagrams, full);
        self.datagram_bytes = self.datagram_bytes + datagrams.cost() as u64 - before;
        Some(result)
    }

    /// Drops the datagrams, on all streams, of which some parts are sent: these may be lost with the last subflow.
    pub(super) fn give_up_sending(&mut self) {
        let is_sending = |stream: &Stream| stream.datagrams.as_ref().is_some_and(|datagrams| datagrams.is_sending());
        let slots: Vec<usize> =
            self.streams.iter_mut().filter(|(_, stream)| is_sending(stream)).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.with_datagrams(slot, |datagrams, _| datagrams.give_up_sending());
            self.update_stream(slot);
        }
    }

    /// Makes room in a session that is full of datagrams: drops what has waited for too long.
    pub(super) fn drop_late_datagrams(&mut self, now: Time) {
        self.give_up_late_parts(now);
        for _ in 0..LATE_FLOWS_MAX {
            if self.datagram_bytes < SESSION_BYTES_MAX as u64 {
                return;
            }
            let Some(slot) = self.drr.next_flow() else { return };
            self.drop_late_of(now, slot);
        }
    }

    /// Drops the datagrams of a flow that have waited for too long to be sent. The flow waits no longer for its subflow
    /// then.
    pub(super) fn drop_late_of(&mut self, now: Time, slot: usize) {
        if self.with_datagrams(slot, |datagrams, _| datagrams.drop_late(now)) == Some(true) {
            self.update_stream(slot);
        }
    }

    /// Drops the parts of datagrams, on all streams, that wait for too long for the others, if the session is full of datagrams.
    /// It does so once in the time that parts may wait.
    fn give_up_late_parts(&mut self, now: Time) {
        if self.datagram_bytes < SESSION_BYTES_MAX as u64 || now < self.parts_given_up_at.after(PART_WAIT_US_MAX) {
            return;
        }
        self.parts_given_up_at = now;
        for datagrams in self.streams.iter_mut().filter_map(|(_, stream)| stream.datagrams.as_mut()) {
            let before = datagrams.cost() as u64;
            datagrams.give_up_late_parts(now);
            self.datagram_bytes = self.datagram_bytes + datagrams.cost() as u64 - before;
        }
    }

    /// Lets a flow without datagrams to send choose its subflow again if it has been silent until its last one must have
    /// arrived, and another subflow is faster by more than a quarter.
    pub(super) fn choose_after_silence(&mut self, now: Time, slot: usize) {
        let flow = self.streams.get(slot).and_then(|stream| stream.datagrams.as_deref());
        let Some(flow) = flow.filter(|flow| !flow.has_outgoing() && self.subflows.len() > 1) else { return };
        let Some(last) = flow.subflow.and_then(|id| self.subflow(id)) else { return };
        let silence_us = now.since(flow.sent_at);
        if silence_us < SILENCE_US_MIN {
            return;
        }
        let arrival_us = |s: &Subflow| s.path.arrival_us(s.in_flight(), s.path.frame_bytes(), s.rate(now));
        let others = self.subflows.iter().filter(|s| s.is_live() && !s.suspect && s.class() == last.class());
        let (last_us, best_us) = (arrival_us(last), others.map(arrival_us).min());
        if best_us.is_some_and(|us| us.saturating_add(us / 4) < last_us && silence_us > last_us.saturating_add(us)) {
            self.with_datagrams(slot, |datagrams, _| datagrams.subflow = None);
        }
    }

    /// Returns the subflow for the next datagram of a flow: the one of its last datagram, as long as that is usable, else the
    /// fastest. If this one is busy, the flow waits, because a datagram on another subflow would overtake those on the way.
    pub(super) fn subflow_of_flow(&self, flow: &Datagrams, route: Route, urgent: bool) -> Option<usize> {
        subflow_for_flows(&self.subflows, &self.scheduler, flow.subflow, route, urgent)
    }

    /// Returns the queue in which a stream waits for its turn: that of a flow is the one of the subflow for its next
    /// datagram.
    pub(super) fn queue_of(&self, stream: &Stream) -> Queue {
        let Some(flow) = stream.sending_datagrams() else { return Queue::Streams };
        let subflow = match self.route_of(stream) {
            Route::BehindOpen(on) if !on.contains(&flow.subflow) => on.into_iter().flatten().next(),
            _ => flow.subflow,
        };
        Queue::Flows(subflow.filter(|id| self.subflow(*id).is_some()))
    }
}

/// Returns the subflow for flows whose last datagram was sent on `last`: that one if it is usable, else the fastest. Returns
/// `None` if it is busy.
pub(super) fn subflow_for_flows(
    subflows: &[Subflow],
    scheduler: &Scheduler,
    last: Option<SubflowId>,
    route: Route,
    urgent: bool,
) -> Option<usize> {
    let id_of = |candidate: &Candidate| subflows.get(candidate.index).map(|subflow| subflow.id);
    let allowed = || scheduler.candidates().filter(|other| id_of(other).is_some_and(|id| route.allows(id)));
    let last = last.and_then(|last| allowed().find(|other| id_of(other) == Some(last)));
    let chosen = last.or_else(|| allowed().next())?;
    (chosen.ready && (urgent || !chosen.full)).then_some(chosen.index)
}
