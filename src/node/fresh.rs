//! Fresh carriers beside silent ones.
//!
//! While all subflows of a session are silent, nothing tells when the network is back: each connection sends again after pauses
//! that have doubled meanwhile, and a NAT may have forgotten it. So the dialing node makes a new connection over each path, and
//! another one after [`PAUSE_MS`] if that does not answer, and after longer pauses later, until the subflows are dead and are dialed
//! again in any case.
//!
//! ```text
//!   all subflows silent --PAUSE_MS--> dialed --up--> takes the slot; the silent carrier is dropped
//!                           ^            |
//!                           +-too late---+   dropped, also if a subflow is no longer silent
//! ```

use std::time::Duration;

use crate::engine::core::Core;
use crate::types::id::Id;

use super::control::Node;
use super::dialer::{Dialer, jittered};

/// A connection that is made beside the silent carrier of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fresh {
    /// The carrier, while it is dialed.
    pub carrier: Option<Id>,
    /// The time of the next one.
    next_ms: u64,
    /// The number of those that were dialed.
    tries: u32,
}

impl Fresh {
    /// Returns the time until the next one after one that is dialed now, where its answers take `answers_ms`.
    fn pause_ms(self, answers_ms: u64) -> u64 {
        let doubled = self.tries.saturating_sub(PROMPT_TRIES).min(DOUBLED_MAX);
        let pause_ms = PAUSE_MS << doubled;
        let pause_ms =
            if doubled > 0 { jittered(Duration::from_millis(pause_ms)).as_millis() as u64 } else { pause_ms };
        pause_ms.max(answers_ms)
    }
}

impl Dialer {
    /// Returns true if a carrier is one that is dialed beside the silent one of its slot, and forgets it.
    pub(super) fn take_fresh(&mut self, place: usize, carrier: Id) -> bool {
        let slot = self.slots.get_mut(place);
        slot.and_then(|slot| slot.fresh.as_mut()?.carrier.take_if(|fresh| *fresh == carrier)).is_some()
    }

    /// Gives a fresh carrier that is up the slot. Returns the silent carrier that had it.
    pub(super) fn promote_fresh(&mut self, place: usize, carrier: Id) -> Option<Id> {
        if !self.take_fresh(place, carrier) {
            return None;
        }
        let slot = self.slots.get_mut(place)?;
        slot.fresh = None;
        slot.carrier.replace(carrier)
    }

    /// Returns the places of the paths, each with the first slot that is up.
    fn paths_up(&self) -> Vec<usize> {
        let is_up = |place: &usize| self.slots.get(*place).is_some_and(|slot| slot.up_ms.is_some() && !slot.removed);
        let mut places: Vec<usize> = (0..self.slots.len()).filter(is_up).collect();
        let slots = &self.slots;
        places.dedup_by_key(|place| slots.get(*place).map(|slot| slot.path.clone()));
        places
    }
}

impl Node {
    /// Dials fresh carriers while all subflows of a link are silent. Returns the time of the next look.
    pub(super) fn dial_fresh(&mut self, core: &mut Core, link: Id) -> Option<u64> {
        let record = self.links.get(link)?;
        let dialer = record.dialer.as_ref()?;
        // A local port has one connection, and a link over another one is as silent as that one.
        let is_fixed = dialer.simultaneous || dialer.over.is_some() || record.closing || self.closing;
        let longest_us = if is_fixed { None } else { self.longest_silent_us(core, link) };
        let Some(longest_us) = longest_us else {
            self.forget_fresh(core, link);
            return None;
        };
        // The answers of a connection take a round trip each.
        let answers_ms = longest_us * ROUNDS / 1000;
        let places = dialer.paths_up();
        let mut next_ms = None;
        for place in places {
            let slot = self.links.get_mut(link)?.dialer.as_mut()?.slots.get_mut(place)?;
            if slot.path.local_port.is_some() {
                continue;
            }
            let fresh = slot.fresh.get_or_insert(Fresh { next_ms: core.now_ms + PAUSE_MS, ..Fresh::default() });
            if fresh.next_ms <= core.now_ms {
                fresh.tries += 1;
                fresh.next_ms = core.now_ms + fresh.pause_ms(answers_ms);
                let late = fresh.carrier.take();
                late.into_iter().for_each(|late| self.drop_fresh(core, link, late));
                let fresh = self.dial_at(core, link, place);
                let slot = self.links.get_mut(link)?.dialer.as_mut()?.slots.get_mut(place)?;
                slot.fresh.as_mut()?.carrier = fresh;
            }
            let slot = self.links.get(link)?.dialer.as_ref()?.slots.get(place)?;
            next_ms = next_ms.into_iter().chain(slot.fresh.map(|fresh| fresh.next_ms)).min();
        }
        next_ms
    }

    /// Returns the longest round trip of the subflows of a link in microseconds, if there are some, all of them are silent, and the
    /// session takes another one.
    fn longest_silent_us(&self, core: &Core, link: Id) -> Option<u64> {
        let (record, session) = (self.links.get(link)?, core.pools.sessions.session(link)?);
        if !session.has_subflow_room() {
            return None;
        }
        let slots = record.dialer.as_ref()?.slots.iter().filter(|slot| slot.up_ms.is_some());
        let subflows = slots.filter_map(|slot| self.carriers.get(slot.carrier?)?.subflow);
        let mut longest_us = None;
        for subflow in subflows {
            let (rtt_us, .., is_suspect) = session.path(subflow)?;
            if !is_suspect {
                return None;
            }
            longest_us = longest_us.max(Some(rtt_us));
        }
        longest_us
    }

    /// Returns true if a carrier that has failed is not the one of its slot.
    pub(super) fn is_fresh(&mut self, link: Id, place: usize, carrier: Id) -> bool {
        let dialer = self.links.get_mut(link).and_then(|record| record.dialer.as_mut());
        dialer.is_some_and(|dialer| dialer.take_fresh(place, carrier))
    }

    /// Drops the fresh carriers of a link, because a subflow is no longer silent.
    fn forget_fresh(&mut self, core: &mut Core, link: Id) {
        let Some(dialer) = self.links.get_mut(link).and_then(|record| record.dialer.as_mut()) else { return };
        let fresh: Vec<Id> = dialer.slots.iter_mut().filter_map(|slot| slot.fresh.take()?.carrier).collect();
        fresh.into_iter().for_each(|carrier| self.drop_fresh(core, link, carrier));
    }

    /// Drops a carrier, whose subflow may have begun, that no slot has.
    pub(super) fn drop_fresh(&mut self, core: &mut Core, link: Id, id: Id) {
        let subflow = self.carriers.get(id).and_then(|carrier| carrier.subflow);
        self.drop_carrier(core, id);
        let now = core.pools.sessions.now;
        if let (Some(subflow), Some(session)) = (subflow, core.pools.sessions.session_mut(link)) {
            session.subflow_down(now, subflow);
        }
        core.pools.sessions.touch(link);
    }
}

/// Time after which a path gets a fresh carrier, and the next one.
const PAUSE_MS: u64 = 400;
/// Fresh carriers of a path until the pauses double, each with a random part, and the most doublings: a server that was too busy to
/// answer does not have all its links at once for long.
const PROMPT_TRIES: u32 = 8;
const DOUBLED_MAX: u32 = 3;
/// Round trips in which a connection must be up, if they take longer: those of TCP, of TLS and of the HELLO, and one to spare.
const ROUNDS: u64 = 5;
