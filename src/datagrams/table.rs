//! The flows of one loop: a table of fixed size, with the lookup of a flow by its client, and its limits and timers.
//!
//! ```text
//!   insert --> waiting --answered--> answered --+
//!                 |                     |       |  no datagram for the idle time: expire
//!                 |  no datagram for the first-answer time: expire
//!                 +---------+-----------+-------+--> remove
//!                           | the table or the source is full: victim
//! ```
//! Each flow is in up to four lists, all in the order of use: that of its timer, whose members wait in one state for the same
//! duration, those of its source and of its payer in the same state, and that of all flows without an answer that hold a socket.
//! So the next deadline and the flow that ends for another one are heads of lists. Times are milliseconds since the start of the
//! loop.
//!
//! A full table, source or payer makes room by the end of one flow. Flows that never got an answer go first, as a flood with forged addresses
//! opens such ones alone. But a short question to a name server is such a flow too, until its answer comes. So a flow without an
//! answer goes first only if it is older than [`ANSWER_MS`], or if such flows fill a quarter of the room.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::types::id::{Id, Kind, Table};
use crate::types::peer::PeerId;
use crate::types::peer_network::PeerNetwork;

/// The addresses by which a flow of a listener is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey {
    /// The listener, or the association.
    pub owner: Id,
    pub client: SocketAddr,
    /// The address that the client has sent to: a local address, or the original destination.
    pub dest: SocketAddr,
}

/// The durations of the timers of a flow; zero switches one off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowTimeouts {
    /// Wait for the first answer, after the last datagram of the client.
    pub first_answer_ms: u64,
    /// Wait for a datagram in either direction after an answer.
    pub idle_ms: u64,
}

/// The flows of one loop.
pub(crate) struct FlowTable<T> {
    flows: Table<Entry<T>>,
    by_key: HashMap<FlowKey, Id>,
    sources: HashMap<PeerNetwork, Group>,
    /// The flows of each payer, by its index.
    payers: Vec<Group>,
    lists: Vec<TimerList>,
    /// The flows without an answer that hold a socket.
    sockets: Ends,
    /// Limit of the flows of one source with an address; 0 for none.
    per_source: usize,
    /// Flows without an answer.
    waiting: usize,
    /// Places that flows leave to other sockets.
    held: usize,
    /// Number of the last use of any flow.
    uses: u64,
    /// The longest wait of any timer.
    idle_max_ms: Option<u64>,
}

struct Entry<T> {
    key: Option<FlowKey>,
    source: PeerNetwork,
    payer: Option<PeerId>,
    timeouts: FlowTimeouts,
    is_answered: bool,
    has_socket: bool,
    /// Number of the last use, which orders flows that were used in the same millisecond.
    used: u64,
    used_ms: u64,
    list: usize,
    links: [Link; PLACES.len()],
    record: T,
}

/// The lists that a flow may be in.
#[derive(Clone, Copy)]
enum Place {
    Timer,
    Source,
    Payer,
    Sockets,
}

const PLACES: [Place; 4] = [Place::Timer, Place::Source, Place::Payer, Place::Sockets];

#[derive(Clone, Copy, Default)]
struct Link {
    previous: Option<Id>,
    next: Option<Id>,
}

/// A list in the order of use; the head is the least recently used.
#[derive(Clone, Copy, Default)]
struct Ends {
    head: Option<Id>,
    tail: Option<Id>,
}

struct TimerList {
    is_answered: bool,
    /// 0 if the timer is switched off.
    duration_ms: u64,
    ends: Ends,
}

/// The flows of one source, or of one payer.
#[derive(Default)]
struct Group {
    flows: usize,
    waiting: usize,
    /// Places that its flows leave to other sockets of the source.
    held: usize,
    /// The flows without an answer, and those with one.
    lists: [Ends; 2],
}

impl<T> FlowTable<T> {
    /// Creates a table of `capacity` flows, of which `per_source` may be of one network; 0 for no such limit.
    pub fn new(capacity: usize, per_source: usize) -> FlowTable<T> {
        let capacity = capacity.max(1);
        FlowTable {
            flows: {
                // The table grows with its use.
                let mut flows = Table::new(Kind::Flow, 0);
                flows.set_capacity(capacity);
                flows
            },
            by_key: HashMap::new(),
            sources: HashMap::new(),
            payers: Vec::new(),
            lists: Vec::new(),
            sockets: Ends::default(),
            per_source,
            waiting: 0,
            held: 0,
            uses: 0,
            idle_max_ms: None,
        }
    }

    /// Returns the number of flows.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Returns the number of flows without an answer.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Sets a wait that no timer exceeds, also those that are switched off.
    pub fn set_idle_max(&mut self, idle_max_ms: Option<u64>) {
        self.idle_max_ms = idle_max_ms;
    }

    /// Returns the number of flows that there can be.
    pub fn capacity(&self) -> usize {
        self.flows.capacity()
    }

    /// Returns the flow with this key.
    #[inline]
    pub fn find(&self, key: &FlowKey) -> Option<Id> {
        self.by_key.get(key).copied()
    }

    /// Returns the record of a flow.
    #[inline]
    pub fn get(&self, id: Id) -> Option<&T> {
        self.flows.get(id).map(|entry| &entry.record)
    }

    /// Returns the record of a flow.
    #[inline]
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.flows.get_mut(id).map(|entry| &mut entry.record)
    }

    /// Returns true if a flow got an answer.
    pub fn is_answered(&self, id: Id) -> bool {
        self.flows.get(id).is_some_and(|entry| entry.is_answered)
    }

    /// Iterates over the flows from the slot `index` on.
    pub fn starting_at(&self, index: usize) -> impl Iterator<Item = (Id, &T)> {
        self.flows.starting_at(index).map(|(id, entry)| (id, &entry.record))
    }

    /// Returns the ids of all flows.
    pub fn ids(&self) -> Vec<Id> {
        self.flows.ids()
    }

    /// Returns the flow that must end before another flow of `source` can be opened; none if there is room.
    pub fn victim(&self, source: PeerNetwork, now_ms: u64) -> Option<Id> {
        self.victim_for(1, source, now_ms)
    }

    /// Returns a flow that must end because `source` has taken places with [`FlowTable::hold`]; none if there is room.
    pub fn excess(&self, source: PeerNetwork, now_ms: u64) -> Option<Id> {
        self.victim_for(0, source, now_ms)
    }

    fn victim_for(&self, new: usize, source: PeerNetwork, now_ms: u64) -> Option<Id> {
        if self.per_source > 0
            && source != PeerNetwork::Local
            && let Some(of_source) = self.sources.get(&source)
            && let room = room_beside(of_source.held, self.per_source)
            && of_source.flows + new > room
        {
            return self.victim_of(of_source, room, now_ms);
        }
        let room = room_beside(self.held, self.flows.capacity());
        if self.len() + new <= room {
            return None;
        }
        let oldest = |is_answered: bool| {
            let its = self.lists.iter().filter(|list| list.is_answered == is_answered);
            its.filter_map(|list| list.ends.head).min_by_key(|id| self.used(*id))
        };
        self.choose(oldest(false), oldest(true), self.waiting * WAITING_SHARE >= room, now_ms)
    }

    /// Takes places of flows for other sockets of a source: at most [`held_max`] of all places and of those of the source, but
    /// always `count`. Returns false if they are taken. Then [`FlowTable::excess`] tells which flows must end.
    #[must_use]
    pub fn hold(&mut self, source: PeerNetwork, count: usize) -> bool {
        let is_full = |held: usize, places: usize| held + count > held_max(places).max(count);
        let of_source = self.sources.get(&source).map_or(0, |source| source.held);
        let is_limited = self.per_source > 0 && source != PeerNetwork::Local;
        if is_full(self.held, self.flows.capacity()) || is_limited && is_full(of_source, self.per_source) {
            return false;
        }
        self.held += count;
        self.sources.entry(source).or_default().held += count;
        true
    }

    /// Gives places back that [`FlowTable::hold`] has taken.
    pub fn release(&mut self, source: PeerNetwork, count: usize) {
        let Some(of_source) = self.sources.get_mut(&source) else { return };
        of_source.held -= count;
        self.held -= count;
        if of_source.is_empty() {
            self.sources.remove(&source);
        }
    }

    /// Returns the flow of a payer that must end before another one can be opened, if the payer has a `share` of flows or more.
    pub fn victim_of_payer(&self, payer: PeerId, share: usize, now_ms: u64) -> Option<Id> {
        let of_payer = self.payers.get(payer.0 as usize).filter(|payer| payer.flows >= share)?;
        self.victim_of(of_payer, share, now_ms)
    }

    fn victim_of(&self, group: &Group, room: usize, now_ms: u64) -> Option<Id> {
        let [waiting, answered] = group.lists.map(|ends| ends.head);
        self.choose(waiting, answered, group.waiting * WAITING_SHARE >= room, now_ms)
    }

    /// Returns the least recently used flow that holds a socket and got no answer.
    pub fn oldest_with_socket(&self) -> Option<Id> {
        self.sockets.head
    }

    /// Returns the least recently used flow of a source without an answer for which `is_it` returns true, among the first
    /// [`SEARCHED_MAX`].
    pub fn oldest_waiting_of(&self, source: PeerNetwork, is_it: impl Fn(&T) -> bool) -> Option<Id> {
        let next = |id: &Id| self.flows.get(*id)?.links[Place::Source as usize].next;
        let mut ids = std::iter::successors(self.sources.get(&source)?.lists[0].head, next).take(SEARCHED_MAX);
        ids.find(|id| self.get(*id).is_some_and(&is_it))
    }

    /// Chooses between the least recently used flows without an answer and with one.
    fn choose(&self, waiting: Option<Id>, answered: Option<Id>, is_flood: bool, now_ms: u64) -> Option<Id> {
        let (Some(first), Some(second)) = (waiting, answered) else { return waiting.or(answered) };
        let used_ms = self.flows.get(first).map_or(0, |entry| entry.used_ms);
        let is_stale = now_ms.saturating_sub(used_ms) >= ANSWER_MS;
        Some(if is_flood || is_stale || self.used(first) < self.used(second) { first } else { second })
    }

    fn used(&self, id: Id) -> u64 {
        self.flows.get(id).map_or(u64::MAX, |entry| entry.used)
    }

    /// Adds a flow, which waits for an answer. Returns the record if the table is full.
    pub fn insert(
        &mut self,
        key: Option<FlowKey>,
        source: PeerNetwork,
        timeouts: FlowTimeouts,
        record: T,
        now_ms: u64,
    ) -> Result<Id, T> {
        let (list, used) = (self.list_of(false, timeouts.first_answer_ms), self.next_use());
        let entry = Entry {
            key,
            source,
            payer: None,
            timeouts,
            is_answered: false,
            has_socket: false,
            used,
            used_ms: now_ms,
            list,
            links: Default::default(),
            record,
        };
        let id = self.flows.insert(entry).map_err(|entry| entry.record)?;
        if let Some(key) = key {
            self.by_key.insert(key, id);
        }
        self.waiting += 1;
        self.sources.entry(source).or_default().add(false);
        self.append(id);
        Ok(id)
    }

    /// Sets the payer of a flow, which may have had another one.
    pub fn set_payer(&mut self, id: Id, payer: Option<PeerId>) {
        let Some(entry) = self.flows.get(id) else { return };
        let (before, is_answered) = (entry.payer, entry.is_answered);
        self.unlink_from(id, Place::Payer);
        before.and_then(|before| self.payers.get_mut(before.0 as usize)).into_iter().for_each(|p| p.take(is_answered));
        if let Some(payer) = payer {
            let index = payer.0 as usize;
            if self.payers.len() <= index {
                self.payers.resize_with(index + 1, Group::default);
            }
            self.payers[index].add(is_answered);
        }
        self.flows.get_mut(id).into_iter().for_each(|entry| entry.payer = payer);
        // Behind flows that were used later: for a flow that has just been opened, which is the rule, there are none.
        self.append_to(id, Place::Payer);
    }

    /// Notes that a flow holds a socket from now on.
    pub fn set_socket(&mut self, id: Id) {
        self.unlink_from(id, Place::Sockets);
        self.flows.get_mut(id).into_iter().for_each(|entry| entry.has_socket = true);
        self.append_to(id, Place::Sockets);
    }

    /// Notes a datagram of a flow, in either direction: its timer starts anew.
    pub fn touch(&mut self, id: Id, now_ms: u64) {
        let used = self.next_use();
        let Some(entry) = self.flows.get_mut(id) else { return };
        (entry.used, entry.used_ms) = (used, now_ms);
        let links = entry.links;
        for place in PLACES {
            // Without a next one it is the last of the list, or in none.
            if links[place as usize].next.is_some()
                && let Some((ends, flows)) = self.list_at(id, place)
            {
                ends.take_out(id, place, flows);
                ends.append(id, place, flows);
            }
        }
    }

    /// Notes an answer to a flow. The idle timer runs from now on.
    pub fn answered(&mut self, id: Id, now_ms: u64) {
        let Some(entry) = self.flows.get(id).filter(|entry| !entry.is_answered) else { return self.touch(id, now_ms) };
        let (idle_ms, source, payer) = (entry.timeouts.idle_ms, entry.source, entry.payer);
        self.unlink(id);
        let (list, used) = (self.list_of(true, idle_ms), self.next_use());
        if let Some(entry) = self.flows.get_mut(id) {
            (entry.is_answered, entry.list) = (true, list);
            (entry.used, entry.used_ms) = (used, now_ms);
        }
        self.waiting -= 1;
        self.sources.get_mut(&source).into_iter().for_each(|source| source.waiting -= 1);
        let of_payer = payer.and_then(|payer| self.payers.get_mut(payer.0 as usize));
        of_payer.into_iter().for_each(|payer| payer.waiting -= 1);
        self.append(id);
    }

    /// Removes a flow.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.flows.get(id)?;
        self.unlink(id);
        let entry = self.flows.remove(id)?;
        if let Some(key) = entry.key {
            self.by_key.remove(&key);
        }
        self.waiting -= usize::from(!entry.is_answered);
        if let Some(source) = self.sources.get_mut(&entry.source) {
            source.take(entry.is_answered);
            if source.is_empty() {
                self.sources.remove(&entry.source);
            }
        }
        if let Some(payer) = entry.payer.and_then(|payer| self.payers.get_mut(payer.0 as usize)) {
            payer.take(entry.is_answered);
        }
        Some(entry.record)
    }

    /// Returns a flow whose timer has passed, if there is one. The caller removes it before the next call.
    pub fn expired(&self, now_ms: u64) -> Option<Id> {
        self.deadlines().find(|(_, due_ms)| *due_ms <= now_ms).map(|(id, _)| id)
    }

    /// Returns the next deadline.
    pub fn next_ms(&self) -> Option<u64> {
        self.deadlines().map(|(_, due_ms)| due_ms).min()
    }

    /// Returns the first flow of each list with a timer, and its deadline.
    fn deadlines(&self) -> impl Iterator<Item = (Id, u64)> {
        self.lists.iter().filter_map(|list| {
            let head = list.ends.head?;
            let own_ms = Some(list.duration_ms).filter(|ms| *ms > 0);
            let wait_ms = [own_ms, self.idle_max_ms].into_iter().flatten().min()?;
            Some((head, self.flows.get(head)?.used_ms.saturating_add(wait_ms)))
        })
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Returns the list for a state and a duration. An empty list is used again for another duration.
    fn list_of(&mut self, is_answered: bool, duration_ms: u64) -> usize {
        let is_same = |list: &TimerList| list.is_answered == is_answered && list.duration_ms == duration_ms;
        if let Some(index) = self.lists.iter().position(is_same) {
            return index;
        }
        let list = TimerList { is_answered, duration_ms, ends: Ends::default() };
        match self.lists.iter().position(|list| list.ends.head.is_none()) {
            Some(index) => self.lists[index] = list,
            None => self.lists.push(list),
        }
        self.lists.iter().position(is_same).unwrap_or_default()
    }

    /// Appends a flow to its lists.
    fn append(&mut self, id: Id) {
        PLACES.into_iter().for_each(|place| self.append_to(id, place));
    }

    /// Takes a flow out of its lists.
    fn unlink(&mut self, id: Id) {
        PLACES.into_iter().for_each(|place| self.unlink_from(id, place));
    }

    fn append_to(&mut self, id: Id, place: Place) {
        self.list_at(id, place).into_iter().for_each(|(ends, flows)| ends.append(id, place, flows));
    }

    fn unlink_from(&mut self, id: Id, place: Place) {
        self.list_at(id, place).into_iter().for_each(|(ends, flows)| ends.take_out(id, place, flows));
    }

    /// Returns the list of a place for a flow in its state, and the flows. Returns none if the flow belongs to no such list.
    fn list_at(&mut self, id: Id, place: Place) -> Option<(&mut Ends, &mut Table<Entry<T>>)> {
        let entry = self.flows.get(id)?;
        let state = usize::from(entry.is_answered);
        let ends = match place {
            Place::Timer => &mut self.lists.get_mut(entry.list)?.ends,
            Place::Source => &mut self.sources.get_mut(&entry.source)?.lists[state],
            Place::Payer => &mut self.payers.get_mut(entry.payer?.0 as usize)?.lists[state],
            Place::Sockets if entry.has_socket && !entry.is_answered => &mut self.sockets,
            Place::Sockets => return None,
        };
        Some((ends, &mut self.flows))
    }
}

impl Group {
    fn add(&mut self, is_answered: bool) {
        self.flows += 1;
        self.waiting += usize::from(!is_answered);
    }

    fn is_empty(&self) -> bool {
        self.flows == 0 && self.held == 0
    }

    fn take(&mut self, is_answered: bool) {
        self.flows -= 1;
        self.waiting -= usize::from(!is_answered);
    }
}

impl Ends {
    fn append<T>(&mut self, id: Id, place: Place, flows: &mut Table<Entry<T>>) {
        let previous = self.tail.replace(id);
        self.head.get_or_insert(id);
        if let Some(before) = previous.and_then(|previous| flows.get_mut(previous)) {
            before.links[place as usize].next = Some(id);
        }
        if let Some(entry) = flows.get_mut(id) {
            entry.links[place as usize] = Link { previous, next: None };
        }
    }

    /// Joins the neighbours of a member, which leaves the list.
    fn take_out<T>(&mut self, id: Id, place: Place, flows: &mut Table<Entry<T>>) {
        let Some(entry) = flows.get_mut(id) else { return };
        let link = std::mem::take(&mut entry.links[place as usize]);
        match link.previous.and_then(|previous| flows.get_mut(previous)) {
            Some(previous) => previous.links[place as usize].next = link.next,
            None => self.head = link.next,
        }
        match link.next.and_then(|next| flows.get_mut(next)) {
            Some(next) => next.links[place as usize].previous = link.previous,
            None => self.tail = link.previous,
        }
    }
}

/// Returns the number of flows that have room beside held places.
fn room_beside(held: usize, places: usize) -> usize {
    places - held.min(held_max(places))
}

/// Returns how many of these places can be held: three quarters, so an association, which holds three, has one for a flow.
pub(crate) fn held_max(places: usize) -> usize {
    places - places.div_ceil(4)
}

/// Age from which a flow without an answer is given up before any flow with one. Most name servers answer sooner.
pub(crate) const ANSWER_MS: u64 = 1_000;
/// Flows of one source that a search looks at.
pub(crate) const SEARCHED_MAX: usize = 1_024;
/// Part of the room that flows without an answer may fill before they are given up first: one in so many.
pub(crate) const WAITING_SHARE: usize = 4;
