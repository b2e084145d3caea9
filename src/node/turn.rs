//! Turns: the share of each key in a turn of the loop.
//!
//! A peer can put thousands of frames into one read, and each may lead to a connect or to a listener. So the events of a
//! session cost units. A key has a number of units in a turn, for all its links together; the other events wait for the
//! next turn, and the loop does not sleep meanwhile. While more than [`WAITING_MAX`] events of a link wait, its carriers are
//! not read, so the waiting events are bounded by that and one read of each carrier.
//!
//! ```text
//!   read --frames--> session --events--> link_events --units left?--> sides
//!    ^                                        |no
//!    +-- not while many wait <-- next turn <--+
//! ```
//! A link that got nothing in a turn goes first in the next one.

use crate::engine::core::Core;
use crate::link::Event;
use crate::types::id::Id;

use super::config::PeerKey;
use super::control::Node;
use crate::engine::key_accounts::UNITS_HEAVY;

impl Node {
    /// Delivers the events of active links to their sides. Returns true if any side was given work.
    pub(crate) fn hear_links(&mut self, core: &mut Core) -> bool {
        let queued = core.queues.run.len();
        for index in 0..core.pools.sessions.dirty.len() {
            let Some(id) = core.pools.sessions.dirty.get(index).copied() else { break };
            self.link_events(core, id);
        }
        core.queues.run.len() > queued
    }

    /// Drives the links that have work: delivers their events to sides, and their frames to carriers.
    pub(crate) fn drive_links(&mut self, core: &mut Core) {
        let mut starved = Vec::new();
        for _ in 0..core.pools.sessions.dirty.len() {
            let Some(id) = core.pools.sessions.dirty.pop_front() else { break };
            let Some(link) = core.pools.sessions.get_mut(id) else { continue };
            link.is_dirty = false;
            self.end_aside(core, id);
            self.end_leaving(core, id);
            self.drive_link(core, id);
            let turn = core.stats.turns;
            if let Some(link) = core.pools.sessions.get_mut(id)
                && link.events_waiting() > 0
                && self.links.get(id).is_some_and(|link| link.heard_turn != turn)
            {
                link.is_dirty = true;
                starved.push(id);
            }
        }
        if !starved.is_empty() {
            let dirty = &mut core.pools.sessions.dirty;
            dirty.retain(|id| !starved.contains(id));
            starved.into_iter().rev().for_each(|id| dirty.push_front(id));
        }
    }

    /// Delivers the events of a session, within the share of its key.
    pub(crate) fn link_events(&mut self, core: &mut Core, id: Id) {
        let (turn, now_ms) = (core.stats.turns, core.now_ms);
        while core.pools.sessions.get(id).is_some_and(|link| link.events_waiting() > 0) {
            let Some(link) = self.links.get_mut(id) else { return };
            let key = link.key;
            if key.is_some_and(|key| !core.peers.may_spend(&key, turn, now_ms)) {
                return core.pools.sessions.touch(id);
            }
            let Some(event) = core.pools.sessions.session_mut(id).and_then(|session| session.poll_event()) else {
                break;
            };
            if let Some(key) = key {
                link.heard_turn = turn;
                self.spend(core, &key, &event);
            }
            self.link_event(core, id, event);
        }
        self.read_on(core, id);
    }

    fn spend(&mut self, core: &mut Core, key: &PeerKey, event: &Event) {
        // Events that lead to system calls get a smaller share while interactive connections are active.
        let heavy = if core.interactive_turns > 0 { UNITS_HEAVY * INTERACTIVE_FACTOR } else { UNITS_HEAVY };
        let units = match event {
            Event::Opened { .. } | Event::Listen { .. } | Event::Unlisten(_) | Event::Reset { .. } => {
                core.stats.peer_requests += 1;
                heavy
            }
            Event::OpenResult { .. } => UNITS_HEAVY,
            Event::Readable(_) | Event::Writable(_) | Event::Fin(_) | Event::Stopped { .. } => 1,
            Event::Undelivered { .. }
            | Event::Datagram(_)
            | Event::Message(_)
            | Event::Stray(_)
            | Event::ListenResult { .. } => 1,
            // Other events are few, or cause no work.
            _ => 0,
        };
        core.peers.spend(key, units, core.stats.turns, core.now_ms);
    }

    /// Returns true if a link has so many waiting events that its carriers must not be read. They are read again when the
    /// events were delivered.
    pub(super) fn is_behind(&mut self, core: &Core, link: Id) -> bool {
        let waiting = core.pools.sessions.get(link).map_or(0, |link| link.events_waiting());
        let Some(link) = self.links.get_mut(link) else { return false };
        link.behind |= waiting > WAITING_MAX;
        link.behind
    }

    /// Reads the carriers of a link again after its events were delivered.
    fn read_on(&mut self, core: &mut Core, id: Id) {
        let Some(link) = self.links.get_mut(id).filter(|link| link.behind) else { return };
        link.behind = false;
        let carriers: Vec<Id> = link.carriers.clone();
        for carrier in carriers {
            let side = self.carriers.get(carrier).map(|carrier| carrier.side);
            side.into_iter().for_each(|side| core.enqueue(side));
        }
    }
}

/// Waiting events of a link above which its carriers are not read.
const WAITING_MAX: usize = 256;
/// Factor on the cost of an OPEN, a LISTEN or a RESET while interactive connections are active.
const INTERACTIVE_FACTOR: u32 = 4;
