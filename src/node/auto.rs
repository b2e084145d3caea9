//! Links with two carriers over each path: TCP, and QUIC beside it (`--carrier auto`).
//!
//! Each path without a carrier of its own has two slots in the dialer. TCP is dialed first, and QUIC once the session is up,
//! or after [`HEAD_START_MS`] if TCP has not answered by then. `rivals` decides which of them carries, and the other one is a
//! backup. Where UDP is blocked nothing is lost: QUIC is tried again after pauses of
//! [`Timing::redial_quic`](super::config::Timing::redial_quic), and soon when TCP is lost.

use std::time::Duration;

use crate::engine::core::Core;
use crate::link::SubflowId;
use crate::link::frame::Class;
use crate::transport::CarrierKind;
use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::accept::TARGET;
use super::config::Path;
use super::control::Node;
use super::dialer::{Dialer, SubflowSlot, jittered};
use super::rivals::{BESIDE, Delivered, FIRST, Rivals};

/// The carrier beside TCP.
pub(super) const BESIDE_KIND: CarrierKind = CarrierKind::Quic;

/// Two slots over one path.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The index of the slot of TCP, and of the one beside it.
    places: [usize; 2],
    rivals: Rivals,
    /// The subflows with the classes that they were given.
    given: [Option<(SubflowId, Class)>; 2],
}

impl Dialer {
    /// Adds a slot, in the place of a removed one if there is one. Returns its index.
    pub(super) fn place(&mut self, slot: SubflowSlot) -> usize {
        let free = self.slots.iter().position(|slot| slot.removed && slot.carrier.is_none() && slot.fresh.is_none());
        match free.and_then(|place| self.slots.get_mut(place)) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        let place = free.unwrap_or(self.slots.len() - 1);
        self.pairs.retain(|pair| !pair.places.contains(&place));
        place
    }

    /// Adds a slot beside each slot of these places whose path names no carrier, for QUIC over the same path, if the link has
    /// pairs and at most so many subflows.
    pub(super) fn add_pairs(&mut self, firsts: &[usize], subflows_max: usize) {
        if self.endpoints.kind != CarrierKind::Auto {
            return;
        }
        for &first in firsts {
            let has_room = self.slots.iter().filter(|slot| !slot.removed).count() < subflows_max;
            let has_udp =
                |path: &&Path| !matches!(path.peer.as_ref().unwrap_or(&self.peer), Target::Unix(_) | Target::End(_));
            let path = self.slots.get(first).map(|slot| &slot.path);
            let path = path.filter(|path| path.carrier.is_none() && has_room).filter(has_udp);
            let Some(path) = path else { continue };
            let path = Path { carrier: Some(BESIDE_KIND), ..path.clone() };
            let beside = self.place(SubflowSlot { beside: Some(first), ..SubflowSlot::new(path) });
            self.pairs.push(Pair { places: [first, beside], rivals: Rivals::default(), given: [None; 2] });
        }
    }

    /// Returns the time from which on a slot is dialed while the one that it is beside has not answered.
    pub(super) fn after_head_start(&self, slot: &SubflowSlot) -> Option<u64> {
        let first = self.slots.get(slot.beside?)?;
        first.carrier.is_some().then_some(first.dialed_ms + HEAD_START_MS)
    }

    /// Returns true if the peer has refused the key of this node, or has another one, over the path of the slot that this one is
    /// beside.
    pub(super) fn is_refused(&self, slot: &SubflowSlot) -> bool {
        let first = slot.beside.and_then(|first| self.slots.get(first));
        first.and_then(|first| first.failed.as_ref()).is_some_and(|(failure, _)| failure.reason == Reason::AuthFailed)
    }

    /// Returns the first and the longest pause of a slot: `usual` ones, or `seldom` ones beside a subflow that is up.
    pub(super) fn pauses(
        &self,
        place: usize,
        usual: (Duration, Duration),
        seldom: (Duration, Duration),
    ) -> (Duration, Duration) {
        let first = self.slots.get(place).and_then(|slot| self.slots.get(slot.beside?));
        if first.is_some_and(|first| first.up_ms.is_some()) { seldom } else { usual }
    }

    /// Brings the next try of the carrier beside a lost one nearer.
    pub(super) fn hasten_beside(&mut self, place: usize, now_ms: u64, first: Duration) {
        let latest_ms = now_ms.saturating_add(jittered(first).as_millis() as u64);
        let is_late =
            |slot: &&mut SubflowSlot| slot.beside == Some(place) && slot.carrier.is_none() && slot.next_ms > latest_ms;
        self.slots.iter_mut().filter(is_late).for_each(|slot| (slot.next_ms, slot.tries) = (latest_ms, 1));
    }
}

impl Node {
    /// Decides which carriers of the paths of a link carry. Returns the time of the next call that needs no traffic.
    pub(super) fn choose_carriers(&mut self, core: &mut Core, link: Id) -> Option<u64> {
        let record = self.links.get_mut(link)?;
        let dialer = record.dialer.as_mut().filter(|dialer| !dialer.pairs.is_empty())?;
        let session = core.pools.sessions.session_mut(link)?;
        let mut next_ms: Option<u64> = None;
        for pair in &mut dialer.pairs {
            let slots = pair.places.map(|place| dialer.slots.get(place).filter(|slot| !slot.removed));
            let carriers = slots.map(|slot| self.carriers.get(slot.filter(|slot| slot.up_ms.is_some())?.carrier?));
            let delivered: Delivered = carriers.map(|carrier| {
                let subflow = carrier?.subflow?;
                Some((subflow, session.delivered(subflow)?))
            });
            let chance = || {
                let [chance] = super::random::<1>();
                chance
            };
            if pair.rivals.note(core.now_ms, delivered, chance) {
                let leader = ["tcp", "quic"][pair.rivals.leader()];
                log::info!(target: TARGET, link = link.to_string(), carrier = leader; "the other carrier of a path leads");
            }
            let active = pair.rivals.active();
            for at in [FIRST, BESIDE] {
                let Some(subflow) = carriers[at].and_then(|carrier| carrier.subflow) else { continue };
                let class = if active[at] { Class::Active } else { Class::Backup };
                if pair.given[at].replace((subflow, class)).is_none_or(|given| given != (subflow, class)) {
                    session.set_class(subflow, class);
                }
            }
            next_ms = next_ms.into_iter().chain(pair.rivals.next_ms()).min();
        }
        next_ms
    }

    /// Logs that the carrier beside another one cannot be established: first, and each time the tries have doubled.
    pub(super) fn note_blocked(&mut self, core: &Core, link: Id, failure: &Failure, tries: u32) {
        if tries.is_power_of_two() {
            log::info!(target: TARGET, link = link.to_string(), peer = core.pools.sessions.name(link), tries, failure = failure.to_string(); "no subflow of quic beside tcp");
        }
    }
}

/// Time after which QUIC is dialed too if TCP has not answered.
const HEAD_START_MS: u64 = 1_000;
