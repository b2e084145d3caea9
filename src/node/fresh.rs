//! Fresh carriers beside silent ones.
//!
//! While all subflows of a session are silent, nothing tells when the network is back: each connection sends again after pauses
//! that have doubled meanwhile, and a NAT may have forgotten it. So the dialing node makes a new connection over each path every
//! [`PAUSE_MS`], also when the subflows are dead and clients wait for the session: the connection that is dialed in their place
//! sends its first packet again after doubled pauses, too. The pauses become longer if connections over TCP are
//! answered and do not come up, because the peer is busy then. Over QUIC they become longer in any case. The first packet of a
//! connection may be lost just before the network is back, so each waits for its answers while later ones are dialed.
//!
//! ```text
//!   all subflows silent --PAUSE_MS--> dialed --up--> takes the slot; the silent carrier and the other fresh ones are dropped
//!                           ^            |
//!                           +--PAUSE_MS--+   dropped if it is old, if there are too many, or if a subflow is no longer silent
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::core::Core;
use crate::types::id::Id;
use crate::types::reason::Reason;

use super::carrier::CarrierStage;
use super::control::Node;
use super::dialer::{Dialer, SubflowSlot, jittered};

/// The connections that are made beside the silent carrier of a slot.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// The carriers that are dialed, with the times of their dials. The oldest is first.
    carriers: VecDeque<(Id, u64)>,
    /// The time of the next one.
    next_ms: u64,
    /// The peer, or its system, has answered one of them.
    is_answered: bool,
    /// The number of those that were dialed since then.
    tries: u32,
}

impl Fresh {
    /// Counts a dial, whose answers may take so long, and sets the time of the next one. At most `most` are dialed at once. Where
    /// nothing answers at all, a dial costs no peer anything.
    fn count(&mut self, now_ms: u64, answers_ms: u64, most: usize) {
        self.tries += u32::from(self.is_answered);
        let doubled = self.tries.saturating_sub(PROMPT_TRIES).min(DOUBLED_MAX);
        let pause_ms = PAUSE_MS << doubled;
        let pause_ms =
            if doubled > 0 { jittered(Duration::from_millis(pause_ms)).as_millis() as u64 } else { pause_ms };
        self.next_ms = now_ms + pause_ms.max(answers_ms / most.max(1) as u64);
    }

    /// Takes a carrier that makes room for another one, because it is too old, or because there are `most`.
    fn take_old(&mut self, now_ms: u64, answers_ms: u64, most: usize) -> Option<Id> {
        let (oldest, dialed_ms) = self.carriers.front()?;
        let is_old = dialed_ms + answers_ms.max(ANSWERS_MS_MIN) <= now_ms;
        let old = (is_old || self.carriers.len() >= most).then_some(*oldest);
        old.inspect(|_| _ = self.carriers.pop_front())
    }

    /// Returns the carriers that are dialed.
    pub(super) fn into_carriers(self) -> impl Iterator<Item = Id> {
        self.carriers.into_iter().map(|(carrier, _)| carrier)
    }
}

impl Dialer {
    /// Notes why a fresh carrier of a slot has failed. A refusal, a reset or a close is an answer.
    fn note_fresh_failure(&mut self, place: usize, why: Reason) {
        let is_silence = matches!(why, Reason::TimedOut | Reason::NetworkUnreachable | Reason::HostUnreachable);
        if let Some(fresh) = self.slots.get_mut(place).and_then(|slot| slot.fresh.as_mut()) {
            fresh.is_answered |= !is_silence;
        }
    }

    /// Returns true if a carrier is one that is dialed beside the silent one of its slot, and forgets it.
    pub(super) fn take_fresh(&mut self, place: usize, carrier: Id) -> bool {
        let Some(fresh) = self.slots.get_mut(place).and_then(|slot| slot.fresh.as_mut()) else { return false };
        let at = fresh.carriers.iter().position(|(fresh, _)| *fresh == carrier);
        at.and_then(|at| fresh.carriers.remove(at)).is_some()
    }

    /// Gives a fresh carrier that is up the slot. Returns those that are in the way: the silent one that had it, and the other
    /// fresh ones.
    pub(super) fn promote_fresh(&mut self, place: usize, carrier: Id) -> Vec<Id> {
        if !self.take_fresh(place, carrier) {
            return Vec::new();
        }
        let Some(slot) = self.slots.get_mut(place) else { return Vec::new() };
        let others = slot.fresh.take().into_iter().flat_map(Fresh::into_carriers);
        slot.carrier.replace(carrier).into_iter().chain(others).collect()
    }

    /// Returns the places of the paths, each with the first slot that is up. If none is, a slot beside another one counts if it was
    /// up: UDP may be blocked for ever.
    fn silent_paths(&self) -> Vec<usize> {
        let some_up = self.slots.iter().any(|slot| slot.up_ms.is_some() && !slot.removed);
        let was_used = |slot: &SubflowSlot| slot.beside.is_none() || slot.was_up;
        let is_silent = |slot: &SubflowSlot| if some_up { slot.up_ms.is_some() } else { was_used(slot) };
        let counts = |place: &usize| self.slots.get(*place).is_some_and(|slot| is_silent(slot) && !slot.removed);
        let mut places: Vec<usize> = (0..self.slots.len()).filter(counts).collect();
        let slots = &self.slots;
        places.dedup_by_key(|place| slots.get(*place).map(|slot| slot.path.clone()));
        places
    }
}

impl Node {
    /// Dials fresh carriers while all subflows of a link are silent, or dead. Returns the time of the next look.
    pub(super) fn dial_fresh(&mut self, core: &mut Core, link: Id) -> Option<u64> {
        let record = self.links.get(link)?;
        let dialer = record.dialer.as_ref()?;
        // A local port has one connection, and a link over another one is as silent as that one.
        let is_fixed = dialer.simultaneous || dialer.over.is_some() || record.closing || self.closing;
        let longest_us = self.longest_silent_us(core, link).or_else(|| self.longest_dead_us(core, link));
        let Some(longest_us) = longest_us.filter(|_| !is_fixed) else {
            self.forget_fresh(core, link);
            return None;
        };
        self.links.get_mut(link)?.dialer.as_mut()?.silent_us = longest_us;
        let dialer = self.links.get(link)?.dialer.as_ref()?;
        // The answers of a connection take a round trip each.
        let answers_ms = longest_us * ROUNDS / 1000;
        let mut places = dialer.silent_paths();
        places.retain(|place| dialer.slots.get(*place).is_some_and(|slot| slot.path.local_port.is_none()));
        let most = (LINK_MAX / places.len().max(1)).clamp(1, PATH_MAX);
        let mut next_ms = None;
        for (index, place) in places.iter().copied().enumerate() {
            // The paths take turns, so that one of them is soon asked.
            let turn_ms = PAUSE_MS * index as u64 / places.len() as u64;
            let first_ms = core.now_ms + PAUSE_MS + turn_ms;
            let slot = self.links.get_mut(link)?.dialer.as_mut()?.slots.get_mut(place)?;
            let fresh = slot.fresh.get_or_insert_with(|| Fresh { next_ms: first_ms, ..Fresh::default() });
            if fresh.next_ms <= core.now_ms {
                self.dial_fresh_at(core, link, place, answers_ms, most)?;
            }
            let slot = self.links.get(link)?.dialer.as_ref()?.slots.get(place)?;
            next_ms = next_ms.into_iter().chain(slot.fresh.as_ref().map(|fresh| fresh.next_ms)).min();
        }
        next_ms
    }

    /// Dials a fresh carrier for a slot, and drops those that have had their time.
    fn dial_fresh_at(&mut self, core: &mut Core, link: Id, place: usize, answers_ms: u64, most: usize) -> Option<()> {
        let now_ms = core.now_ms;
        let slot = self.links.get_mut(link)?.dialer.as_mut()?.slots.get_mut(place)?;
        let fresh = slot.fresh.as_mut()?;
        // The system of a peer answers the first packet of TCP, however busy the peer is.
        let is_dialing = |id: &Id| self.carriers.get(*id).is_some_and(|it| it.stage == CarrierStage::Dialing);
        fresh.is_answered |= !fresh.carriers.iter().all(|(carrier, _)| is_dialing(carrier));
        fresh.count(now_ms, answers_ms, most);
        let old: Vec<Id> = std::iter::from_fn(|| fresh.take_old(now_ms, answers_ms, most)).collect();
        old.into_iter().for_each(|old| self.drop_fresh(core, link, old));
        if core.pools.sessions.session(link)?.has_subflow_room()
            && let Some(carrier) = self.dial_at(core, link, place)
        {
            let slot = self.links.get_mut(link)?.dialer.as_mut()?.slots.get_mut(place)?;
            slot.fresh.as_mut()?.carriers.push_back((carrier, now_ms));
        }
        Some(())
    }

    /// Returns the longest round trip of the subflows of a link in microseconds, if there are some and all of them are silent.
    fn longest_silent_us(&self, core: &Core, link: Id) -> Option<u64> {
        let (record, session) = (self.links.get(link)?, core.pools.sessions.session(link)?);
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

    /// Returns the longest round trip of the last subflows of a link in microseconds, if they are dead and clients wait for its
    /// session.
    fn longest_dead_us(&self, core: &Core, link: Id) -> Option<u64> {
        let (record, linked) = (self.links.get(link)?, core.pools.sessions.get(link)?);
        let is_waited_for =
            record.was_established && linked.session.as_ref()?.is_suspended() && record.is_awaited(linked);
        record.dialer.as_ref().filter(|_| is_waited_for).map(|dialer| dialer.silent_us)
    }

    /// Returns true if a carrier that has failed for this reason is not the one of its slot.
    pub(super) fn has_fresh_failed(&mut self, link: Id, place: usize, carrier: Id, why: Reason) -> bool {
        let is_fresh = self.is_fresh(link, place, carrier);
        let dialer = self.links.get_mut(link).and_then(|record| record.dialer.as_mut()).filter(|_| is_fresh);
        dialer.into_iter().for_each(|dialer| dialer.note_fresh_failure(place, why));
        is_fresh
    }

    /// Returns true if a carrier is not the one of its slot, and forgets it.
    pub(super) fn is_fresh(&mut self, link: Id, place: usize, carrier: Id) -> bool {
        let dialer = self.links.get_mut(link).and_then(|record| record.dialer.as_mut());
        dialer.is_some_and(|dialer| dialer.take_fresh(place, carrier))
    }

    /// Drops the fresh carriers of a link, because a subflow is no longer silent.
    fn forget_fresh(&mut self, core: &mut Core, link: Id) {
        let Some(dialer) = self.links.get_mut(link).and_then(|record| record.dialer.as_mut()) else { return };
        if dialer.slots.iter().all(|slot| slot.fresh.is_none()) {
            return;
        }
        let fresh: Vec<Id> =
            dialer.slots.iter_mut().filter_map(|slot| slot.fresh.take()).flat_map(Fresh::into_carriers).collect();
        fresh.into_iter().for_each(|carrier| self.drop_fresh(core, link, carrier));
    }

    /// Drops a carrier, whose subflow may have begun, that no slot has. The system forgets its bytes, which others carry, and the
    /// peer knows at once.
    pub(super) fn drop_fresh(&mut self, core: &mut Core, link: Id, id: Id) {
        let subflow = self.carriers.get(id).and_then(|carrier| carrier.subflow);
        let side = self.carriers.get(id).and_then(|carrier| core.sides.get(carrier.side));
        side.into_iter().for_each(|side| side.io.reset_on_close());
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
/// Fresh carriers of a path since the peer has answered one, until the pauses double, each with a random part, and the most
/// doublings: a server that was too busy to finish a handshake does not have all its links at once for long.
const PROMPT_TRIES: u32 = 8;
const DOUBLED_MAX: u32 = 3;
/// Round trips in which a connection must be up, if they take longer: those of TCP, of TLS and of the HELLO, and one to spare.
const ROUNDS: u64 = 5;
/// Minimum time for the answers to a connection. Systems send a first packet again after a second.
const ANSWERS_MS_MIN: u64 = 1_500;
/// Fresh carriers at once over a path, and of a link.
const PATH_MAX: usize = 8;
const LINK_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::Kind;

    /// Dials for so long, and returns the pauses and the largest number of carriers at once.
    fn dial(time_ms: u64, answers_ms: u64, most: usize, is_answered: bool) -> (Vec<u64>, usize) {
        let mut fresh = Fresh { is_answered, ..Fresh::default() };
        let (mut pauses, mut largest, mut now_ms) = (Vec::new(), 0, 0);
        while now_ms < time_ms {
            fresh.count(now_ms, answers_ms, most);
            while let Some(old) = fresh.take_old(now_ms, answers_ms, most) {
                let age_ms = now_ms - old.index() as u64;
                assert!(age_ms >= answers_ms.max(ANSWERS_MS_MIN) || largest == most, "one of {age_ms} ms is dropped");
                assert!(age_ms + most as u64 >= answers_ms, "one of {age_ms} ms is dropped");
            }
            // Its index is the time of its dial.
            let carrier = Id::parse(Kind::Carrier, &format!("{now_ms}.1")).unwrap();
            fresh.carriers.push_back((carrier, now_ms));
            largest = largest.max(fresh.carriers.len());
            pauses.push(fresh.next_ms - now_ms);
            now_ms = fresh.next_ms;
        }
        (pauses, largest)
    }

    #[test]
    fn each_has_time_for_its_answers_and_few_are_dialed_at_once() {
        assert_eq!(dial(3_200, 100, PATH_MAX, true).1, 4);
        for answers_ms in [100, 2_000, 3_000, 30_000] {
            for most in 1..=PATH_MAX {
                let (_, largest) = dial(60_000, answers_ms, most, true);
                assert!((1..=most).contains(&largest), "{largest} of {most} for {answers_ms} ms");
            }
        }
    }

    #[test]
    fn the_pauses_double_after_some_tries_that_were_answered() {
        let (pauses, _) = dial(60_000, 100, PATH_MAX, true);
        assert_eq!(pauses[..8], [PAUSE_MS; 8]);
        assert!(pauses[11..].iter().all(|pause| (PAUSE_MS * 4..=PAUSE_MS * 8).contains(pause)), "{pauses:?}");
        assert!(dial(60_000, 100, PATH_MAX, false).0.iter().all(|pause| *pause == PAUSE_MS));
        assert!(dial(60_000, 3_000, 2, true).0.iter().all(|pause| *pause >= 1_500));
    }
}
