//! Unauthenticated peers: decides which connections without a key keep their places, and the order of their handshakes.
//!
//! ```text
//!   Silent --> Part --> Whole --its turn--> Answered --key let in--> Admitted --joins a session--> gone
//!      \________\__________\____ turned away: limit, deadline, error ____/
//! ```
//! The table is pure: it knows no socket, reads no clock and draws no random numbers; all three are parameters. `greet` and
//! `handshakes` connect it to the loop. The model is OpenSSH's MaxStartups, PerSourceMaxStartups and PerSourcePenalties.
//!
//! # The rules
//! * A quarter of the places is kept for networks from which a key was let in during the last hour, so that a crowd of
//!   unknown addresses cannot keep a link from being resumed.
//! * Once half of the places are used, one network has a quarter of them; its next connection replaces one of its own.
//! * At the limit, a connection that has been silent for longer than [`GRACE_MS`] is displaced first; then one of the
//!   network with the highest recent cost, then of the one with the most places, at random among equals. A newcomer that is
//!   worse than all of them is refused.
//! * Each computed handshake is a cost of its network until a key is let in, and so is each connection beyond the first
//!   [`FREE_MAX`] of a period, because a peer that was not served may try again. So a network that connects for the first
//!   time has precedence over the networks of an attack, once each of these has connected a few times.
//! * Newcomers do not displace a peer whose handshake has been answered. Three quarters of the places at most are answered;
//!   the next answer displaces one with the same or a higher cost, and the displaced answer is no cost then.
//! * Once more than half of the places are used, the time for a handshake shrinks, down to a fifth when all are.
//!
//! Bounds: `max` places, [`COSTS_MAX`] networks with a cost, [`KNOWN_MAX`] networks with a recent key.

use std::collections::HashMap;

use crate::types::peer_network::PeerNetwork;

/// The places of one loop. `I` names a connection.
#[derive(Debug)]
pub(crate) struct Unauthenticated<I> {
    places: Vec<Place<I>>,
    max: usize,
    costs: Costs,
    /// Set while no waiting handshake can displace an answered one; cleared when the table changes.
    is_stuck: bool,
    known: HashMap<PeerNetwork, u64>,
}

#[derive(Clone, Debug)]
struct Place<I> {
    id: I,
    seat: Seat,
    step: Step,
    /// Turns that its handshake has had.
    turns: u32,
    /// Set while the connection waits for its handshake to be computed.
    waits: bool,
}

/// A place that no connection holds yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    network: PeerNetwork,
    /// Index of the cost of its network.
    slot: usize,
    /// Set if the place is in the quarter kept for known networks.
    is_kept: bool,
    since_ms: u64,
    patience_ms: u64,
}

/// Progress of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// The peer has sent no byte.
    Silent,
    /// A part of the first message has arrived.
    Part,
    /// The whole first message has arrived.
    Whole,
    /// The peer was answered, at the cost of a key exchange and a signature.
    Answered,
    /// The peer has proved that it holds an admitted key.
    Admitted,
}

impl<I: Copy + PartialEq> Unauthenticated<I> {
    pub fn new() -> Unauthenticated<I> {
        Unauthenticated { places: Vec::new(), max: 0, costs: Costs::default(), is_stuck: false, known: HashMap::new() }
    }

    /// Returns the number of connections that have a place.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns true if more than a quarter of the places are used.
    pub fn is_filling(&self) -> bool {
        self.places.len() * 4 > self.max
    }

    /// Returns true if handshakes get less time than usual.
    pub fn is_crowded(&self) -> bool {
        self.places.len() * 2 > self.max
    }

    /// Finds a place among `max` for a connection from a network. It has `patience_ms` for its handshake while there is
    /// room. Returns the place and the connection that loses it; none if the newcomer is refused.
    pub fn enter(
        &mut self,
        network: PeerNetwork,
        (max, patience_ms): (usize, u64),
        now_ms: u64,
        random: u64,
    ) -> Option<(Seat, Option<I>)> {
        self.max = self.max.max(max);
        let slot = self.costs.add(network, now_ms, random, Cost::come);
        let is_known = self.is_known(network, now_ms);
        let (own, keeps) = (self.costs.entries[slot].held as usize, max / 4);
        let kept = self.places.iter().filter(|place| place.seat.is_kept).count();
        let seat = Seat { network, slot, is_kept: is_known && kept < keeps, since_ms: now_ms, patience_ms };
        let victim = if own >= keeps.max(1) && self.places.len() * 2 >= max {
            Some(self.worst(now_ms, random, |place| place.seat.network == network)?)
        } else if !seat.is_kept && self.places.len() - kept >= max - keeps {
            let victim = self.worst(now_ms, random, |place| is_known || !place.seat.is_kept)?;
            // A newcomer ranks as a connection that may still send.
            let rank = (1, self.costs.entries[slot].now(now_ms), own as u32);
            if rank > self.rank(&self.places[victim], now_ms) {
                return None;
            }
            Some(victim)
        } else {
            None
        };
        Some(match victim {
            Some(victim) => {
                let Place { id, seat: old, .. } = self.take_out(victim);
                (Seat { is_kept: old.is_kept, ..seat }, Some(id))
            }
            None => (seat, None),
        })
    }

    /// Gives a place that was found by [`enter`](Self::enter) to a connection.
    pub fn sit(&mut self, id: I, seat: Seat) {
        self.costs.entries[seat.slot].held += 1;
        self.is_stuck = false;
        self.places.push(Place { id, seat, step: Step::Silent, turns: 0, waits: false });
        self.check_invariants();
    }

    /// Records the progress of a connection, which never decreases.
    pub fn reach(&mut self, id: I, step: Step) {
        if let Some(place) = self.place_mut(id) {
            place.step = place.step.max(step);
        }
    }

    /// Makes a connection wait until its handshake is computed.
    pub fn wait(&mut self, id: I) {
        if let Some(place) = self.place_mut(id) {
            (place.step, place.waits) = (place.step.max(Step::Whole), true);
            self.is_stuck = false;
        }
    }

    /// Returns true if a connection waits until its handshake is computed.
    pub fn waits(&self, id: I) -> bool {
        self.places.iter().any(|place| place.id == id && place.waits)
    }

    /// Returns true if the handshake of any connection can be computed now.
    pub fn has_waiting(&self) -> bool {
        !self.is_stuck && self.places.iter().any(|place| place.waits)
    }

    /// Returns the connection whose handshake is computed next, and the one that loses its place to it. Connections that
    /// have been answered go first, as long as they have had no more turns than a handshake takes, then those of the network
    /// with the lowest cost, so that networks take turns.
    pub fn serve(&mut self, now_ms: u64, random: u64) -> Option<(I, Option<I>)> {
        let start = if self.places.is_empty() { 0 } else { random as usize % self.places.len() };
        let order = (0..self.places.len()).map(|at| (start + at) % self.places.len());
        let waiting = order.filter(|at| self.places[*at].waits);
        let at = waiting.min_by_key(|at| {
            let place = &self.places[*at];
            let is_first = place.step >= Step::Answered && place.turns < TURNS_MAX;
            (!is_first, self.cost(place, now_ms))
        })?;
        let Place { id, seat: Seat { network, .. }, step, turns, .. } = self.places[at];
        let mut evicted = None;
        if step < Step::Answered {
            let Some(room) = self.room_for_answer(at, now_ms, random) else {
                // The connection had the lowest cost, so no other can be answered either.
                self.is_stuck = true;
                return None;
            };
            evicted = room;
        }
        if step < Step::Answered || turns >= TURNS_MAX {
            self.costs.add(network, now_ms, random, Cost::served);
        }
        if let Some(at) = evicted.and_then(|evicted| self.places.iter().position(|place| place.id == evicted)) {
            // The displaced connection had too little time to finish its handshake, so its answer is no cost of its network.
            let slot = self.take_out(at).seat.slot;
            self.costs.entries[slot].unserved();
        }
        let place = self.place_mut(id)?;
        (place.step, place.turns, place.waits) = (place.step.max(Step::Answered), turns + 1, false);
        self.check_invariants();
        Some((id, evicted))
    }

    /// Removes a connection that is over.
    pub fn leave(&mut self, id: I) {
        if let Some(at) = self.places.iter().position(|place| place.id == id) {
            self.take_out(at);
        }
    }

    /// Removes a connection whose key was admitted. The cost that it caused its network is forgotten.
    pub fn join(&mut self, id: I, now_ms: u64) {
        if let Some(at) = self.places.iter().position(|place| place.id == id) {
            let network = self.take_out(at).seat.network;
            self.costs.forgive(network);
            self.know(network, now_ms);
        }
    }

    /// Notes that an admitted key has used a network until now. A part of the places is kept for the network for an hour.
    pub fn know(&mut self, network: PeerNetwork, now_ms: u64) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&network) {
            self.known.retain(|_, at_ms| now_ms.saturating_sub(*at_ms) < KNOWN_MS);
            if self.known.len() >= KNOWN_MAX
                && let Some((oldest, _)) = self.known.iter().min_by_key(|(_, at_ms)| **at_ms).map(|(k, v)| (*k, *v))
            {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(network, now_ms);
    }

    /// Returns the connections whose time is over; a crowd shortens the time.
    pub fn overdue(&self, now_ms: u64) -> Vec<I> {
        let (used, half) = (self.places.len(), self.max / 2);
        let over = used.saturating_sub(half).min(self.max - half) as u64;
        let is_late = |place: &&Place<I>| {
            let shortest = place.seat.patience_ms / SHORTEST;
            let less = (place.seat.patience_ms - shortest) * over / (self.max - half).max(1) as u64;
            now_ms.saturating_sub(place.seat.since_ms) >= place.seat.patience_ms - less
        };
        self.places.iter().filter(is_late).map(|place| place.id).collect()
    }

    fn is_known(&self, network: PeerNetwork, now_ms: u64) -> bool {
        self.known.get(&network).is_some_and(|at_ms| now_ms.saturating_sub(*at_ms) < KNOWN_MS)
    }

    /// Makes room for one more answered connection, the one at `at`. Returns none if it has to wait, otherwise the
    /// connection that gives way, if one must.
    fn room_for_answer(&self, at: usize, now_ms: u64, random: u64) -> Option<Option<I>> {
        let next = &self.places[at];
        let is_there = |place: &&Place<I>| place.seat.is_kept == next.seat.is_kept && place.step >= Step::Answered;
        let room = if next.seat.is_kept { self.max / 4 } else { self.max - self.max / 4 };
        if self.places.iter().filter(is_there).count() < (room * 3 / 4).max(1) {
            return Some(None);
        }
        let rank = |place: &Place<I>| (place.step < Step::Admitted, self.cost(place, now_ms));
        let victim = pick(self.places.iter().filter(is_there), random, |place| rank(place))?;
        // The answer of the newcomer will be a cost as well.
        let (is_unadmitted, cost) = rank(next);
        ((is_unadmitted, cost + 1) <= rank(victim)).then_some(Some(victim.id))
    }

    /// Returns the connection that is displaced first among those that have not been answered.
    fn worst(&self, now_ms: u64, random: u64, is_asked: impl Fn(&Place<I>) -> bool) -> Option<usize> {
        let unanswered = |at: &usize| self.places[*at].step < Step::Answered && is_asked(&self.places[*at]);
        pick((0..self.places.len()).filter(unanswered), random, |at| self.rank(&self.places[*at], now_ms))
    }

    /// Returns the rank of a place for displacement; the greatest is displaced first.
    fn rank(&self, place: &Place<I>, now_ms: u64) -> (u8, u32, u32) {
        let is_slow = now_ms.saturating_sub(place.seat.since_ms) >= GRACE_MS;
        let class = match place.step {
            Step::Silent if is_slow => 3,
            Step::Part if is_slow => 2,
            _ => 1,
        };
        (class, self.cost(place, now_ms), self.costs.entries[place.seat.slot].held)
    }

    fn cost(&self, place: &Place<I>, now_ms: u64) -> u32 {
        self.costs.entries[place.seat.slot].now(now_ms)
    }

    fn take_out(&mut self, at: usize) -> Place<I> {
        let place = self.places.swap_remove(at);
        self.is_stuck = false;
        self.costs.entries[place.seat.slot].held -= 1;
        place
    }

    fn place_mut(&mut self, id: I) -> Option<&mut Place<I>> {
        self.places.iter_mut().find(|place| place.id == id)
    }

    fn check_invariants(&self) {
        debug_assert!(self.places.len() <= self.max, "no more places than there are");
        debug_assert!(self.known.len() <= KNOWN_MAX && self.costs.entries.len() <= COSTS_MAX);
    }
}

/// Returns the greatest of some values, at random among equal ones.
fn pick<T, K: Ord>(all: impl Iterator<Item = T>, random: u64, key: impl Fn(&T) -> K) -> Option<T> {
    let (mut best, mut ties) = (None::<(K, T)>, 0u64);
    let mut random = random;
    for one in all {
        let one_key = key(&one);
        match best.as_ref().map(|(key, _)| one_key.cmp(key)) {
            Some(std::cmp::Ordering::Less) => continue,
            Some(std::cmp::Ordering::Equal) => {
                ties += 1;
                // The n-th of the equal values replaces the choice with a probability of 1/n, so that each has the same
                // chance.
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if !(random >> 33).is_multiple_of(ties) {
                    continue;
                }
            }
            None | Some(std::cmp::Ordering::Greater) => ties = 1,
        }
        best = Some((one_key, one));
    }
    best.map(|(_, one)| one)
}

/// Recent costs of networks.
#[derive(Debug, Default)]
struct Costs {
    entries: Vec<Cost>,
    index: HashMap<PeerNetwork, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Cost {
    network: PeerNetwork,
    /// Computed handshakes, and the start of their period. Half of them are forgotten every [`SERVED_HALVES_MS`].
    served: (u32, u64),
    /// Connections that came, and the start of their period. Half of them are forgotten every [`CAME_HALVES_MS`].
    came: (u32, u64),
    /// Present places of the network. A network with a place is not forgotten.
    held: u32,
}

impl Cost {
    fn now(&self, now_ms: u64) -> u32 {
        let (served, _) = halved(self.served, SERVED_HALVES_MS, now_ms);
        let (came, _) = halved(self.came, CAME_HALVES_MS, now_ms);
        served + came.saturating_sub(FREE_MAX)
    }

    fn come(&mut self, now_ms: u64) {
        let (count, since_ms) = halved(self.came, CAME_HALVES_MS, now_ms);
        self.came = ((count + 1).min(COST_MAX), since_ms);
    }

    fn served(&mut self, now_ms: u64) {
        let (count, since_ms) = halved(self.served, SERVED_HALVES_MS, now_ms);
        self.served = ((count + 1).min(COST_MAX), since_ms);
    }

    fn unserved(&mut self) {
        self.served.0 = self.served.0.saturating_sub(1);
    }

    /// Forgets one connection and its handshake.
    fn forgive(&mut self) {
        self.unserved();
        self.came.0 = self.came.0.saturating_sub(1);
    }
}

impl Costs {
    /// Adds to the cost of a network. Returns the index of its entry.
    fn add(&mut self, network: PeerNetwork, now_ms: u64, random: u64, what: fn(&mut Cost, u64)) -> usize {
        let slot = match self.index.get(&network) {
            Some(slot) => *slot,
            None => self.insert(network, now_ms, random),
        };
        what(&mut self.entries[slot], now_ms);
        slot
    }

    /// Forgets the cost of one connection and its handshake.
    fn forgive(&mut self, network: PeerNetwork) {
        if let Some(slot) = self.index.get(&network) {
            self.entries[*slot].forgive();
        }
    }

    /// Makes an entry. If there are too many, the entry with the lowest cost of eight random ones is replaced, so that a
    /// crowd with low costs does not displace the record of an expensive network.
    fn insert(&mut self, network: PeerNetwork, now_ms: u64, random: u64) -> usize {
        let entry = Cost { network, served: (0, now_ms), came: (0, now_ms), held: 0 };
        if self.entries.len() < COSTS_MAX {
            self.index.insert(network, self.entries.len());
            self.entries.push(entry);
            return self.entries.len() - 1;
        }
        let sample = (0..8u32).map(|n| random.rotate_left(n * 8) as usize % COSTS_MAX);
        let is_free = |slot: &usize| self.entries[*slot].held == 0;
        let least = sample.filter(is_free).min_by_key(|slot| self.entries[*slot].now(now_ms));
        // There are fewer places than entries, so one of them is free.
        let slot = least.or_else(|| (0..COSTS_MAX).find(is_free)).unwrap_or(0);
        self.index.remove(&self.entries[slot].network);
        self.index.insert(network, slot);
        self.entries[slot] = entry;
        slot
    }
}

/// Returns the rest of a count that is halved every `halves_ms`, and the start of the current period.
fn halved((count, since_ms): (u32, u64), halves_ms: u64, now_ms: u64) -> (u32, u64) {
    let periods = now_ms.saturating_sub(since_ms) / halves_ms;
    (count >> periods.min(31), since_ms + periods * halves_ms)
}

/// Time without a complete message after which a peer is displaced first.
pub(crate) const GRACE_MS: u64 = 200;
/// Time for which a network counts as known after a key was admitted from it.
pub(crate) const KNOWN_MS: u64 = 3_600_000;
/// Known networks that are remembered.
pub(crate) const KNOWN_MAX: usize = 4_096;
/// Networks whose cost is remembered.
pub(crate) const COSTS_MAX: usize = 16_384;
/// Intervals at which half of a network's handshakes, and half of its connections, are forgotten.
const SERVED_HALVES_MS: u64 = 60_000;
const CAME_HALVES_MS: u64 = 10_000;
/// Connections of a network in a period that cost nothing.
pub(crate) const FREE_MAX: u32 = 4;
/// Turns of an answered connection that go before the first turns of others: more than the datagrams of a handshake over QUIC,
/// of which some are lost. A datagram that is none of the peer's takes a turn, too, because only its turn shows that.
pub(crate) const TURNS_MAX: u32 = 24;
/// Maximum of a cost; higher costs count as this.
const COST_MAX: u32 = 1 << 20;
/// Divisor of the time for a handshake when all places are used.
const SHORTEST: u64 = 5;

// The tests have a file of their own beside this one, which keeps both short.
#[cfg(test)]
#[path = "unauthenticated_tests.rs"]
mod tests;
