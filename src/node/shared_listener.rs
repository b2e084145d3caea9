//! Listeners of this node for peers. Several peers can serve the clients of one address, and stand for one another.
//!
//! A peer that requests an address on which this node listens for another link joins that listener, if it requests the same
//! address and its key may have a part in it: see [`Policy::listen_group`](super::Policy::listen_group). Each request is an
//! *offer*. A client goes to the offer whose link has the fewest streams:
//!
//! ```text
//!   up, and the last client was served             first
//!   silent for too long, or its target fails now   then
//!   suspended                                      only if no other is left; its clients wait
//! ```
//! A client whose offer fails before a connection is made goes to another offer of the first kind; so does one whose link is
//! suspended meanwhile. An offer that failed is left out for [`PAUSE_MS`], which doubles. The listener is closed with its
//! last offer.

use std::collections::HashMap;

use crate::engine::core::Core;
use crate::link::{Bound, StreamId};
use crate::types::address::Bind;
use crate::types::id::Id;
use crate::types::reason::Reason;

use super::balance::is_usable;
use super::config::PeerKey;
use super::control::Node;
use super::reverse::PeerListener;

/// The listeners for peers, by their numbers in this loop.
#[derive(Default)]
pub(crate) struct SharedListeners {
    all: HashMap<u32, SharedListener>,
    next: u32,
}

/// A listener for peers.
struct SharedListener {
    /// The requested address, with the bound port.
    place: Bind,
    /// The answer to a request for it.
    answer: Bound,
    /// The local listeners.
    indices: Vec<Id>,
    /// The offers. Invariant: at least one, and no link has two.
    offers: Vec<Offer>,
    /// The place of the offer that comes first among equal ones.
    turn: usize,
    /// The group of the keys that share the listener; none while it has had offers of one key only. A key that leaves the
    /// group loses its offers, however old they are.
    group: Option<String>,
}

/// The request of a peer to listen, by which it offers to serve the clients.
struct Offer {
    link: Id,
    /// The number of the listener in the session.
    number: u32,
    /// Consecutive clients that could not be connected.
    failures: u32,
    /// The time until which other offers are preferred.
    again_ms: u64,
}

impl SharedListeners {
    /// Returns the local listeners of a listener for peers.
    pub fn indices(&self, shared: u32) -> &[Id] {
        self.all.get(&shared).map_or(&[], |listener| &listener.indices)
    }

    /// Reserves the number of the next listener.
    pub fn next(&mut self) -> u32 {
        self.next = self.next.wrapping_add(1);
        self.next
    }

    /// Adds a listener with its first offer.
    pub fn add(&mut self, shared: u32, place: Bind, answer: Bound, indices: Vec<Id>, (link, number): (Id, u32)) {
        let offers = vec![Offer::new(link, number)];
        self.all.insert(shared, SharedListener { place, answer, indices, offers, turn: 0, group: None });
    }

    fn at(&self, place: &Bind) -> Option<u32> {
        self.all.iter().find(|(_, listener)| listener.place == *place).map(|(shared, _)| *shared)
    }

    /// Returns the listener for peers that has this local listener.
    fn of_local(&self, local: Id) -> Option<u32> {
        self.all.iter().find(|(_, listener)| listener.indices.contains(&local)).map(|(shared, _)| *shared)
    }
}

impl Offer {
    fn new(link: Id, number: u32) -> Offer {
        Offer { link, number, failures: 0, again_ms: 0 }
    }
}

impl Node {
    /// Lets a peer have a part in the listener at `place`, if there is one and its key may. Returns the answer to its
    /// request, or none if it has no part.
    pub(super) fn join_listener(&mut self, id: Id, number: u32, asked: &Bind, place: &Bind) -> Option<Bound> {
        let shared = self.shared.at(place).filter(|_| place.port() != Some(0))?;
        let own = self.links.get(id)?.key?;
        let listener = self.shared.all.get(&shared)?;
        let may_join = |offer: &Offer| offer.link != id && self.may_share(id, &own, offer.link);
        if !listener.offers.iter().all(may_join) {
            return None;
        }
        let is_other = |offer: &Offer| self.links.get(offer.link).is_some_and(|link| link.key != Some(own));
        let has_others = listener.offers.iter().any(is_other);
        let group = self.links.get(id)?.policy.listen_group(&own).filter(|_| has_others);
        let listener = self.shared.all.get_mut(&shared)?;
        listener.group = group.or(listener.group.take());
        listener.offers.push(Offer::new(id, number));
        let answer = listener.answer.clone();
        let ours = PeerListener { place: asked.clone(), port: answer.port, shared };
        self.links.get_mut(id)?.listeners.insert(number, ours);
        Some(answer)
    }

    /// Returns true if the key of a link may serve an address beside another link: one key may always, and two keys if both
    /// are in the same group.
    fn may_share(&self, id: Id, key: &PeerKey, other: Id) -> bool {
        let (Some(link), Some(other)) = (self.links.get(id), self.links.get(other)) else { return false };
        let Some(other_key) = other.key else { return false };
        let group = link.policy.listen_group(key);
        other_key == *key || group.is_some() && group == other.policy.listen_group(&other_key)
    }

    /// Returns true if the offer of a link stands beside one that its key may not share the address with, and its key has
    /// left the group of the listener.
    pub(super) fn is_out_of_group(&self, id: Id, ours: &PeerListener) -> bool {
        let (Some(key), Some(listener)) =
            (self.links.get(id).and_then(|link| link.key), self.shared.all.get(&ours.shared))
        else {
            return false;
        };
        let is_in_group = listener.group.is_some()
            && self.links.get(id).is_some_and(|link| link.policy.listen_group(&key) == listener.group);
        let is_apart = |offer: &Offer| offer.link != id && !self.may_share(id, &key, offer.link);
        !is_in_group && listener.offers.iter().any(is_apart)
    }

    /// Notes the present groups of the listeners, after the offers of keys that have left them are gone.
    pub(super) fn settle_groups(&mut self) {
        for listener in self.shared.all.values_mut() {
            let links = listener.offers.iter().filter_map(|offer| self.links.get(offer.link));
            let mut groups = links.filter_map(|link| link.policy.listen_group(&link.key?));
            listener.group = listener.group.take().and_then(|_| groups.next());
        }
    }

    /// Takes the offer of a link back. The listener is closed with its last offer.
    pub(super) fn withdraw(&mut self, core: &mut Core, id: Id, ours: &PeerListener) {
        let Some(listener) = self.shared.all.get_mut(&ours.shared) else { return };
        listener.offers.retain(|offer| offer.link != id);
        if listener.offers.is_empty()
            && let Some(listener) = self.shared.all.remove(&ours.shared)
        {
            listener.indices.into_iter().for_each(|index| core.close_listener(index));
        }
    }

    /// Connects a client of a listener for peers over the link of the best offer.
    pub(crate) fn connect_client(&mut self, core: &mut Core, connection: Id, shared: u32) {
        match self.best_offer(core, shared, SUSPENDED) {
            Some((link, number)) => self.connect_back(core, connection, link, number),
            None => core.close(connection, Reason::LinkLost),
        }
    }

    /// Returns the link and the number of the best offer for a client of a listener.
    pub(super) fn offer_of(&mut self, core: &Core, shared: u32) -> Option<(Id, u32)> {
        self.best_offer(core, shared, SUSPENDED)
    }

    /// Returns the link and the number of the best offer whose class is at most `worst`.
    fn best_offer(&mut self, core: &Core, shared: u32, worst: u8) -> Option<(Id, u32)> {
        let listener = self.shared.all.get(&shared)?;
        let count = listener.offers.len();
        let in_turn = (0..count).filter_map(|place| listener.offers.get((listener.turn + place) % count));
        let ranked = in_turn.filter_map(|offer| {
            let streams = core.pools.sessions.get(offer.link)?.streams.len();
            Some(((self.class_of(core, offer)?, streams), (offer.link, offer.number)))
        });
        let best = ranked.filter(|((class, _), _)| *class <= worst).min_by_key(|(rank, _)| *rank);
        let listener = self.shared.all.get_mut(&shared)?;
        listener.turn = (listener.turn + 1) % count.max(1);
        best.map(|(_, offer)| offer)
    }

    fn class_of(&self, core: &Core, offer: &Offer) -> Option<u8> {
        let link = self.links.get(offer.link).filter(|link| !link.closing)?;
        let session = core.pools.sessions.session(offer.link)?;
        if session.is_suspended() {
            return Some(SUSPENDED);
        }
        let subflows = link.carriers.iter().filter_map(|carrier| self.carriers.get(*carrier)?.subflow);
        let mut answers = subflows.filter_map(|subflow| session.path(subflow)).map(|(.., is_suspect)| !is_suspect);
        let is_good = offer.again_ms <= core.now_ms && answers.any(|answers| answers);
        is_usable(session).then_some(if is_good { GOOD } else { DOUBTFUL })
    }

    /// Notes the peer's answer to the OPEN of a client of a listener for peers. Returns true if the client was refused, and
    /// goes to another offer.
    pub(super) fn note_offer(&mut self, core: &mut Core, link: Id, stream: StreamId, is_refused: bool) -> bool {
        let Some(side) = core.pools.sessions.slot(link, stream).map(|slot| slot.side) else { return false };
        let Some(shared) = self.shared_of(core, side) else { return false };
        let Some(listener) = self.shared.all.get_mut(&shared).filter(|listener| listener.offers.len() > 1) else {
            return false;
        };
        let Some(offer) = listener.offers.iter_mut().find(|offer| offer.link == link) else { return false };
        if !is_refused {
            (offer.failures, offer.again_ms) = (0, 0);
            return false;
        }
        let pause_ms = (PAUSE_MS.0 << offer.failures.min(8)).min(PAUSE_MS.1);
        (offer.failures, offer.again_ms) = (offer.failures.saturating_add(1), core.now_ms + pause_ms);
        let Some(other) = self.best_offer(core, shared, GOOD).filter(|(other, _)| *other != link) else { return false };
        // The peer has answered, and sends no more frames about the stream.
        core.pools.sessions.get_mut(link).and_then(|link| link.streams.remove(&stream));
        self.detach(core, side);
        self.redirect(core, side, other)
    }

    /// Sends a client whose session is over, and that has no answer, to another offer. Returns false if there is none.
    pub(super) fn offer_again(&mut self, core: &mut Core, link: Id, side: Id) -> bool {
        let Some(shared) = self.shared_of(core, side) else { return false };
        let other = self.best_offer(core, shared, DOUBTFUL).filter(|(other, _)| *other != link);
        other.is_some_and(|other| self.redirect(core, side, other))
    }

    /// Sends a client that has no answer from a suspended link to another offer, if there is one.
    pub(super) fn offer_elsewhere(&mut self, core: &mut Core, link: Id, side: Id) {
        let Some(shared) = self.shared_of(core, side) else { return };
        if let Some(other) = self.best_offer(core, shared, DOUBTFUL).filter(|(other, _)| *other != link) {
            self.detach(core, side);
            self.redirect(core, side, other);
        }
    }

    /// Dials the dest of a client over the link of another offer.
    fn redirect(&mut self, core: &mut Core, side: Id, (link, number): (Id, u32)) -> bool {
        let Some((connection, _)) = core.owner(side) else { return false };
        let Some(record) = core.connections.get_mut(connection) else { return false };
        (record.returns_to, record.via) = (Some(number), Some(link));
        self.charge(core, connection, link);
        self.dial_stream(core, side, link);
        true
    }

    /// Returns the listener for peers that a dest's client came from.
    fn shared_of(&self, core: &Core, side: Id) -> Option<u32> {
        let (connection, _) = core.owner(side)?;
        let record = core.connections.get(connection).filter(|record| record.returns_to.is_some())?;
        self.shared.of_local(record.listener?)
    }

    /// Takes all offers of a link back whose session is over.
    pub(super) fn withdraw_all(&mut self, core: &mut Core, id: Id, all: Vec<PeerListener>) {
        all.iter().for_each(|ours| self.withdraw(core, id, ours));
    }
}

/// The classes of offers; see the table above.
const GOOD: u8 = 0;
const DOUBTFUL: u8 = 1;
const SUSPENDED: u8 = 2;
/// Shortest and longest time for which an offer that failed is left out.
const PAUSE_MS: (u64, u64) = (1_000, 30_000);
