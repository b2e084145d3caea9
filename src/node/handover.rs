//! Handover: the notices of a node that is about to stop, and the reaction of its peers.
//!
//! ```text
//!   the node that stops, links that it serves:  GOAWAY  -->  the peer opens new streams over another session
//!                        links that it dialed:  UNLISTEN --> the peer gives its ports back
//!
//!   the node whose peer sends GOAWAY, or refuses a stream because it stops:
//!     link: session ----> a record of its own, set aside: its streams go on, no subflow is dialed for it
//!     link: no session -> dialed at once, and again after short pauses; new streams wait for it
//!   the session that was set aside ends with its last stream, with its last subflow (a node that stops accepts no new
//!   ones), or when the peer ends it
//! ```
//! The id of a link stays with the session that is dialed, so front ends, forwards and paths are not affected. Bounds: a
//! link has at most [`ASIDE_MAX`] sessions set aside, and a new one displaces the oldest. A peer that answers each dial with
//! GOAWAY is dialed no more often than a peer that ends its sessions.

use crate::engine::control::Deadline;
use crate::engine::core::{Core, OneOff};
use crate::engine::stopping::Stopping;
use crate::link::{Capability, Code, Session, StreamId};
use crate::relay::io::Io;
use crate::relay::side::SideState;
use crate::types::id::Id;

use super::accept::TARGET;
use super::config::LinkEvent;
use super::control::Node;
use super::link::Link;
use crate::streams::StreamAt;

impl Node {
    /// Tells the peers of links that this node is about to stop.
    pub(crate) fn announce_drain(&mut self, core: &mut Core) {
        let ids: Vec<Id> = self.links.ids();
        for id in ids {
            let Some(link) = self.links.get(id) else { continue };
            let is_dialed = link.is_dialed();
            let Some(session) = core.pools.sessions.session_mut(id) else { continue };
            for number in link.remotes.iter().filter_map(|remote| remote.number) {
                // Listeners that were given back already are skipped.
                let _ = session.unlisten(number);
            }
            if !is_dialed && session.has_capability(Capability::Handover) {
                session.go_away(Code::Drained, "the node is stopping");
                self.need_no_port(core, id);
            }
            core.pools.sessions.touch(id);
            // The loop checks again if it is done when the peers have had time to answer.
            core.one_offs.push(core.now_ms + ANSWER_MS, OneOff::Control(Deadline::Link(id)));
        }
    }

    /// Returns true if data of connections that are over is still on its way over a link, so that a drain waits.
    ///
    /// A suspended session delivers nothing. A session that a peer dialed cannot come back, because a stopping node does not
    /// listen; a session that this node dialed may come back, and is waited for until the peer has all bytes.
    pub(crate) fn links_owe(&self, core: &Core) -> bool {
        self.links.iter().any(|(id, link)| {
            let Some(session) = core.pools.sessions.session(id) else { return false };
            if session.is_suspended() {
                return link.is_dialed() && session.has_unacknowledged_data();
            }
            session.streams_live() > self.nested_streams(core, id) || self.waits_for_answer(core, link, session)
        })
    }

    /// Returns true if the peer of a link was told a moment ago that this node stops. Requests that it sent before are still
    /// accepted.
    fn waits_for_answer(&self, core: &Core, link: &Link, session: &Session) -> bool {
        if !session.is_open() {
            return false;
        }
        let is_told = match link.is_dialed() {
            true => link.remotes.iter().filter_map(|remote| remote.number).any(|number| session.has_listener(number)),
            false => session.has_capability(Capability::Handover),
        };
        is_told && self.has_just_begun_to_drain(core)
    }

    fn has_just_begun_to_drain(&self, core: &Core) -> bool {
        matches!(core.stopping, Stopping::Draining { since_ms } if core.now_ms < since_ms + ANSWER_MS)
    }

    /// Returns true if a stream from a listener of the peer is accepted although this node stops, because its client was
    /// accepted before the peer knew.
    pub(super) fn takes_late(&self, core: &Core, link: Id, listener: u32) -> bool {
        let has_it = |session: &Session| session.has_listener(listener);
        listener != 0 && self.has_just_begun_to_drain(core) && core.pools.sessions.session(link).is_some_and(has_it)
    }

    /// Sets the session of a peer that is about to stop aside, and has another session dialed. Returns false if that is not
    /// possible.
    pub(super) fn peer_leaves(&mut self, core: &mut Core, id: Id) -> bool {
        let Some(aside) = self.set_aside(core, id) else { return false };
        log::debug!(target: TARGET, link = id.to_string(), aside = aside.to_string(); "the peer is stopping, another session is dialed");
        self.tell(core, id, &LinkEvent::Draining);
        core.pools.sessions.touch(id);
        core.pools.sessions.touch(aside);
        true
    }

    /// Opens a stream over another session after the peer has refused it because it stops. Returns false if there is no
    /// other session to wait for.
    ///
    /// The refusal may arrive before GOAWAY, over another subflow. An older node has no other way to announce its stop; but
    /// it also forwards the answers of a node behind it, so its answer in a young session does not count.
    pub(super) fn open_elsewhere(&mut self, core: &mut Core, id: Id, stream: StreamId) -> bool {
        let Some(link) = self.links.get(id) else { return false };
        let Some(record) = core.pools.sessions.get(id) else { return false };
        let Some(side) = record.streams.get(&stream).map(|slot| slot.side) else { return false };
        if core.state(side) != Some(SideState::Connecting) {
            return false;
        }
        let says_goaway = record.session.as_ref().is_some_and(|session| session.has_capability(Capability::Handover));
        let age_ms = link.up_ms.map_or(0, |up_ms| core.now_ms.saturating_sub(up_ms));
        let is_stopping = says_goaway || age_ms >= SETTLED_MS;
        let heir = link.heir;
        let home = match heir {
            Some(heir) => heir,
            None if is_stopping && self.peer_leaves(core, id) => id,
            None => return false,
        };
        let Some(record) = core.sides.get_mut(side) else { return false };
        let Some(at) = record.io.stream() else { return false };
        record.io = Io::None;
        // The old session has answered, and sends no more frames about the stream.
        core.pools.sessions.get_mut(at.link).and_then(|link| link.streams.remove(&at.id));
        let home = self.home_of(core, side, home);
        self.dial_stream(core, side, home);
        true
    }

    /// Moves the session of a link that this node dials to a record of its own. Returns the id of that record, or none if
    /// there is no session, the link is being closed, or the table of links is full.
    fn set_aside(&mut self, core: &mut Core, id: Id) -> Option<Id> {
        let link = self.links.get(id)?;
        let has_session = core.pools.sessions.session(id).is_some();
        if link.dialer.is_none() || !has_session || !link.was_established || link.closing || self.closing {
            return None;
        }
        self.make_room_aside(core, id);
        let now_ms = core.now_ms;
        if core.pools.sessions.is_full() {
            return None;
        }
        let session = core.pools.sessions.get_mut(id)?.set_aside();
        let record = self.links.get_mut(id)?.set_aside(id, now_ms);
        self.note_forwards(core, id);
        let aside = self.insert_link(core, record, session)?;
        let record = self.links.get_mut(aside)?;
        // A subflow without HELLO would reach a node that does not listen any more.
        let carriers = std::mem::take(&mut record.carriers);
        let has_greeted = |carrier: &Id| self.carriers.get(*carrier).is_some_and(|carrier| carrier.subflow.is_some());
        let (kept, early): (Vec<Id>, Vec<Id>) = carriers.into_iter().partition(has_greeted);
        kept.iter().for_each(|carrier| {
            self.carriers.get_mut(*carrier).into_iter().for_each(|carrier| carrier.link = Some(aside));
        });
        record.carriers = kept;
        let session = core.pools.sessions.get(aside)?;
        for (stream, slot) in &session.streams {
            if let Some(side) = core.sides.get_mut(slot.side) {
                side.io = Io::Stream(StreamAt { link: aside, epoch: session.epoch, id: *stream });
            }
        }
        let listeners: Vec<_> = record.listeners.drain().map(|(_, ours)| ours).collect();
        self.move_nested(id, aside);
        early.into_iter().for_each(|carrier| self.drop_carrier(core, carrier));
        self.withdraw_all(core, id, listeners);
        Some(aside)
    }

    /// Ends the oldest session that a link has set aside, if it has the maximum of them.
    fn make_room_aside(&mut self, core: &mut Core, id: Id) {
        let links = self.links.iter();
        let its: Vec<(u64, Id)> =
            links.filter(|(_, link)| link.heir == Some(id)).map(|(aside, link)| (link.opened_ms, aside)).collect();
        if its.len() >= ASIDE_MAX
            && let Some((_, oldest)) = its.into_iter().min()
        {
            self.abandon_aside(core, oldest);
        }
    }

    /// Returns true if this is the record of a session that was set aside.
    pub(super) fn is_aside(&self, id: Id) -> bool {
        self.links.get(id).is_some_and(|link| link.heir.is_some())
    }

    /// Ends a session that was set aside, once it has no stream or no subflow left.
    pub(super) fn end_aside(&mut self, core: &mut Core, id: Id) {
        if !self.links.get(id).is_some_and(|link| link.heir.is_some() && !link.closing) {
            return;
        }
        let Some(record) = core.pools.sessions.get(id) else { return };
        let Some(session) = &record.session else { return };
        if session.is_suspended() {
            self.abandon_aside(core, id);
        } else if session.is_open() && session.streams_live() == 0 && record.streams.is_empty() {
            self.close_link(core, id);
        }
    }

    fn abandon_aside(&mut self, core: &mut Core, id: Id) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.closing = true;
        let session = core.pools.sessions.session_mut(id);
        session.into_iter().for_each(|session| session.abandon(Code::LinkLost));
        self.link_events(core, id);
    }

    /// Reports that the last of the sessions that a link has set aside is over, if this record is the last.
    pub(super) fn aside_ended(&mut self, core: &mut Core, id: Id) {
        let Some(heir) = self.links.get(id).and_then(|link| link.heir) else { return };
        let is_other = |(other, link): (Id, &Link)| other != id && link.heir == Some(heir);
        if !self.links.iter().any(is_other) {
            self.tell(core, heir, &LinkEvent::Drained);
        }
    }

    /// Closes the sessions that a link has set aside.
    pub(super) fn close_asides(&mut self, core: &mut Core, id: Id) {
        let links = self.links.iter();
        let its: Vec<Id> = links.filter(|(_, link)| link.heir == Some(id)).map(|(aside, _)| aside).collect();
        its.into_iter().for_each(|aside| self.close_link(core, aside));
    }
}

/// Maximum of the sessions that one link has set aside.
const ASIDE_MAX: usize = 8;
/// Minimum age of a session with an older node, for a refusal because of a stop to count as the node's own.
const SETTLED_MS: u64 = 1_000;
/// Time for which a stopping node accepts requests that peers sent before they knew of the stop.
const ANSWER_MS: u64 = 1_000;
