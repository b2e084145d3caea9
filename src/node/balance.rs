//! The choice among the links of a group, for each stream that this node opens over it.
//!
//! ```text
//!   up, and some subflow answers   the least of  delay x (streams + 1)   first
//!   up, but each subflow is silent for too long                          then, in the same order
//!   up, but its peer permits this node no stream                         last
//!   not up                                                               never: the stream waits in the queue of the group
//! ```
//! The delay is the round trip of the best subflow and, if the rate of the link was measured, the time that it needs for the
//! data that waits on it. Delays are compared in steps of [`DELAY_STEP_US`], so that noise decides nothing; equal members
//! take turns. A stream without an answer moves to another member when its link is suspended.

use crate::engine::core::Core;
use crate::link::{Refused, Session};
use crate::relay::io::Io;
use crate::relay::side::{Owner, SideState};
use crate::types::address::Endpoint;
use crate::types::id::{Id, Kind};
use crate::types::reason::{Failure, Reason};

use super::control::Node;
use super::group::Member;

impl Node {
    /// Connects a dest over the best link of a group. The dest waits if no link is up.
    pub(super) fn dial_over(&mut self, core: &mut Core, dest: Id, id: Id) {
        let Some(group) = self.groups.get(id) else {
            let failure = Failure::new(Reason::LinkLost, "the link was closed");
            return core.queues.dialled.push_back((dest, Err(failure)));
        };
        if let [link] = group.links()[..] {
            // The stream is the first of a session that resumes, and the failure of the link is its own.
            return self.dial_stream(core, dest, link);
        }
        let mut refused = None;
        for link in self.ranked(core, id) {
            match self.try_open(core, dest, link) {
                Ok(()) => return self.take_turn(id),
                Err(Refused::Limit) => refused = Some(self.refusal(core, link, Refused::Limit)),
                Err(Refused::Gone) => return,
                // The session is about to begin or to end, or takes no more for now.
                Err(_) => {}
            }
        }
        if let Some(failure) = refused {
            return core.queues.dialled.push_back((dest, Err(failure)));
        }
        let (sides, now_ms) = (&core.sides, core.now_ms);
        let Some(group) = self.groups.get_mut(id) else { return };
        if !group.waiting.push(dest, now_ms, |dest| sides.get(dest).is_some()) {
            let failure = Failure::new(Reason::LimitReached, "too many wait for the link");
            return core.queues.dialled.push_back((dest, Err(failure)));
        }
        for link in group.links() {
            self.links.get_mut(link).into_iter().for_each(|link| link.group_waits = true);
            self.hasten(core, link);
        }
    }

    /// Moves the turn on among equal members.
    fn take_turn(&mut self, id: Id) {
        self.groups.get_mut(id).into_iter().for_each(|group| group.turn = group.turn.wrapping_add(1));
    }

    /// Returns the links of a group that take a stream now, the best one first.
    fn ranked(&self, core: &Core, id: Id) -> Vec<Id> {
        let Some(group) = self.groups.get(id) else { return Vec::new() };
        let mut links = group.links();
        if !links.is_empty() {
            let first = group.turn % links.len();
            links.rotate_left(first);
        }
        let ranks = links.into_iter().filter_map(|link| Some((self.rank(core, link)?, link)));
        let mut ranks: Vec<((u8, u64), Id)> = ranks.collect();
        // The sort is stable, so equal members stay in the order of their turns.
        ranks.sort_by_key(|(rank, _)| *rank);
        ranks.into_iter().map(|(_, link)| link).collect()
    }

    /// Returns the rank of a link: its class, and its delay times its streams. None if it takes no stream.
    fn rank(&self, core: &Core, id: Id) -> Option<(u8, u64)> {
        let link = self.links.get(id).filter(|link| !link.closing && link.leave_by_ms.is_none())?;
        let record = core.pools.sessions.get(id)?;
        let session = record.session.as_ref().filter(|session| is_usable(session))?;
        let subflows = link.carriers.iter().filter_map(|carrier| self.carriers.get(*carrier)?.subflow);
        let (mut rtt_us, mut rate, mut is_silent) = (None, 0, true);
        for subflow in subflows {
            let Some((subflow_rtt_us, _, _, is_suspect)) = session.path(subflow) else { continue };
            is_silent &= is_suspect;
            rate += session.measured_rate(subflow).unwrap_or(0);
            let least = rtt_us.get_or_insert(subflow_rtt_us);
            *least = subflow_rtt_us.min(*least);
        }
        let queue_us = session.sent_cost().saturating_mul(1_000_000).checked_div(rate).unwrap_or(0);
        let steps = (rtt_us?.saturating_add(queue_us) / DELAY_STEP_US).max(1);
        let class = if session.may_open_nothing() { 2 } else { u8::from(is_silent) };
        Some((class, steps.saturating_mul(record.streams.len() as u64 + 1)))
    }

    /// Returns true if another link of the group could take a stream of this link now.
    fn has_other(&self, core: &Core, group: Id, link: Id) -> bool {
        self.ranked(core, group).into_iter().any(|other| other != link)
    }

    /// Returns the place where a stream is opened again whose link has failed: the group that its connection is routed
    /// over, or the link.
    pub(super) fn home_of(&self, core: &Core, side: Id, link: Id) -> Id {
        let via = match core.sides.get(side).map(|side| side.owner) {
            Some(Owner::Flow(flow, _)) => core.via_of_flow(flow),
            _ => core.owner(side).and_then(|(connection, _)| core.connections.get(connection)?.via),
        };
        via.filter(|via| via.kind() == Kind::Group && self.groups.get(*via).is_some()).unwrap_or(link)
    }

    /// Opens the streams of the dests that wait for the group of a link, because the link takes streams now. Streams that
    /// wait for the answer of a suspended member move to it.
    pub(super) fn member_opens(&mut self, core: &mut Core, link: Id) {
        let Some(id) = self.links.get(link).and_then(|link| link.group) else { return };
        self.gather_waiting(core, id);
        self.open_waiting_of(core, id);
        let others = self.groups.get(id).map(|group| group.links()).unwrap_or_default();
        let is_suspended = |other: &Id| core.pools.sessions.session(*other).is_some_and(Session::is_suspended);
        let suspended: Vec<Id> = others.into_iter().filter(|other| *other != link).filter(is_suspended).collect();
        suspended.into_iter().for_each(|other| self.move_unanswered(core, other));
    }

    /// Moves the dests that wait for a member to the queue of the group, if there is more than one member.
    pub(super) fn gather_waiting(&mut self, core: &mut Core, id: Id) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if let [Member { is_leaving: false, .. }] = group.members[..] {
            return;
        }
        let sides = &core.sides;
        for member in &group.members {
            let Some(link) = self.links.get_mut(member.link) else { continue };
            for dest in std::mem::take(&mut link.waiting.dests) {
                let is_taken = group.waiting.push(dest, core.now_ms, |dest| sides.get(dest).is_some());
                if !is_taken {
                    let failure = Failure::new(Reason::LimitReached, "too many wait for the link");
                    core.queues.dialled.push_back((dest, Err(failure)));
                }
            }
        }
    }

    /// Opens the streams of the dests that wait for a group.
    pub(super) fn open_waiting_of(&mut self, core: &mut Core, id: Id) {
        let waiting = self.groups.get(id).map_or(0, |group| group.waiting.dests.len());
        // Each waiting dest is tried once. The first that must go on waiting moves to the end, with all dests behind it.
        for left in (0..waiting).rev() {
            let Some(group) = self.groups.get_mut(id) else { return };
            let Some(dest) = group.waiting.dests.pop_front() else { break };
            if !core.is_dialing(dest) {
                continue;
            }
            self.dial_over(core, dest, id);
            let Some(group) = self.groups.get_mut(id) else { return };
            if group.waiting.dests.back() == Some(&dest) {
                group.waiting.dests.rotate_left(left);
                break;
            }
        }
        let Some(group) = self.groups.get(id) else { return };
        if group.waiting.dests.is_empty() {
            for link in group.links() {
                self.links.get_mut(link).into_iter().for_each(|link| link.group_waits = false);
            }
        }
    }

    /// Takes a dest out of those that wait for a group. Returns none if it does not wait, otherwise the failure of a link.
    pub(super) fn stop_waiting_for_group(&mut self, id: Id, dest: Id) -> Option<Option<Failure>> {
        let group = self.groups.get_mut(id)?;
        let mut is_waiting = group.waiting.remove(dest);
        let links = group.links();
        for link in &links {
            let Some(link) = self.links.get_mut(*link) else { continue };
            is_waiting = is_waiting || link.waiting.remove(dest);
        }
        let failures = links.iter().filter_map(|link| self.links.get(*link)?.failed.clone());
        let last = failures.max_by_key(|(_, at_ms)| *at_ms).map(|(failure, _)| failure);
        is_waiting.then_some(last)
    }

    /// Opens the streams of a suspended link that the peer has not answered over others: over another link of the group, or
    /// for a client of a shared listener over another link that offers the same.
    pub(super) fn move_unanswered(&mut self, core: &mut Core, link: Id) {
        let Some(record) = core.pools.sessions.get(link) else { return };
        let streams = record.streams.iter().filter(|(_, slot)| !slot.answered);
        let streams: Vec<Id> = streams.map(|(_, slot)| slot.side).collect();
        for side in streams {
            if core.state(side) != Some(SideState::Connecting) {
                continue;
            }
            let home = self.home_of(core, side, link);
            if home != link && self.has_other(core, home, link) {
                self.detach(core, side);
                self.dial_over(core, side, home);
            } else {
                self.offer_elsewhere(core, link, side);
            }
        }
    }

    /// Releases the stream of a dest that another link is to carry.
    pub(super) fn detach(&mut self, core: &mut Core, side: Id) {
        let Some(record) = core.sides.get_mut(side).filter(|side| !matches!(side.owner, Owner::Carrier(_))) else {
            return;
        };
        let stream = record.io.stream();
        (record.io, record.endpoint) = (Io::None, Endpoint::Unknown);
        stream.into_iter().for_each(|at| core.pools.sessions.release(at));
    }
}

/// Returns true if a session takes streams that reach the peer now.
pub(super) fn is_usable(session: &Session) -> bool {
    session.is_open() && !session.is_peer_going_away()
}

/// Step of the delays that are compared.
const DELAY_STEP_US: u64 = 1_000;
