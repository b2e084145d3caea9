//! The flows of one loop: a table of fixed size, with the lookup of a flow by its client, and its limits and timers.
//!
//! ```text
//!   insert --> waiting --answered--> answered --+
//!                 |                     |       |  no datagram for the idle time: expire
//!                 |  no datagram for the first-answer time: expire
//!                 +---------+-----------+-------+--> remove
//!                           | the table or the source is full: victim
//! ```
//! Each flow is in two lists, both in the order of use: that of its timer, whose members wait in one state for the same
//! duration, and that of its source in the same state. So the next deadline and the least recently used flow are heads of
//! lists. Times are milliseconds since the start of the loop.
//!
//! A full table makes room by the end of one flow. Flows that never got an answer go first, as a flood with forged addresses
//! opens such ones alone. But a short question to a name server is such a flow too, until its answer comes. So a flow without an
//! answer goes first only if it is older than [`ANSWER_MS`], or if such flows fill a quarter of the room.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::types::id::{Id, Kind, Table};
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
    sources: HashMap<PeerNetwork, Source>,
    lists: Vec<TimerList>,
    /// Limit of the flows of one source with an address; 0 for none.
    per_source: usize,
    /// Flows without an answer.
    waiting: usize,
    /// Number of the last use of any flow.
    uses: u64,
    /// The longest wait of any timer.
    idle_max_ms: Option<u64>,
}

struct Entry<T> {
    key: Option<FlowKey>,
    source: PeerNetwork,
    timeouts: FlowTimeouts,
    is_answered: bool,
    /// Number of the last use, which orders flows that were used in the same millisecond.
    used: u64,
    used_ms: u64,
    list: usize,
    in_list: Link,
    in_source: Link,
    record: T,
}

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

#[derive(Default)]
struct Source {
    flows: usize,
    waiting: usize,
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
            lists: Vec::new(),
            per_source,
            waiting: 0,
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
        if self.per_source > 0
            && source != PeerNetwork::Local
            && let Some(of_source) = self.sources.get(&source).filter(|source| source.flows >= self.per_source)
        {
            let [waiting, answered] = of_source.lists.map(|ends| ends.head);
            return self.choose(waiting, answered, of_source.waiting * WAITING_SHARE >= self.per_source, now_ms);
        }
        if !self.flows.is_full() {
            return None;
        }
        let oldest = |is_answered: bool| {
            let its = self.lists.iter().filter(|list| list.is_answered == is_answered);
            its.filter_map(|list| list.ends.head).min_by_key(|id| self.used(*id))
        };
        self.choose(oldest(false), oldest(true), self.waiting * WAITING_SHARE >= self.flows.capacity(), now_ms)
    }

    /// Returns the least recently used flow without an answer for which `is_it` returns true, among the first [`SEARCHED_MAX`] of
    /// each list.
    pub fn oldest_waiting(&self, is_it: impl Fn(&T) -> bool) -> Option<Id> {
        let its = self.lists.iter().filter(|list| !list.is_answered).filter_map(|list| {
            let next = |id: &Id| self.flows.get(*id).and_then(|entry| entry.in_list.next);
            let mut ids = std::iter::successors(list.ends.head, next).take(SEARCHED_MAX);
            ids.find(|id| self.get(*id).is_some_and(&is_it))
        });
        its.min_by_key(|id| self.used(*id))
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
            timeouts,
            is_answered: false,
            used,
            used_ms: now_ms,
            list,
            in_list: Link::default(),
            in_source: Link::default(),
            record,
        };
        let id = self.flows.insert(entry).map_err(|entry| entry.record)?;
        if let Some(key) = key {
            self.by_key.insert(key, id);
        }
        self.waiting += 1;
        let of_source = self.sources.entry(source).or_default();
        of_source.flows += 1;
        of_source.waiting += 1;
        self.append(id);
        Ok(id)
    }

    /// Notes a datagram of a flow, in either direction: its timer starts anew.
    pub fn touch(&mut self, id: Id, now_ms: u64) {
        let used = self.next_use();
        let Some(entry) = self.flows.get_mut(id) else { return };
        (entry.used, entry.used_ms) = (used, now_ms);
        if entry.in_list.next.is_none() && entry.in_source.next.is_none() {
            return;
        }
        self.unlink(id);
        self.append(id);
    }

    /// Notes an answer to a flow. The idle timer runs from now on.
    pub fn answered(&mut self, id: Id, now_ms: u64) {
        let Some(entry) = self.flows.get(id).filter(|entry| !entry.is_answered) else { return self.touch(id, now_ms) };
        let (idle_ms, source) = (entry.timeouts.idle_ms, entry.source);
        self.unlink(id);
        let (list, used) = (self.list_of(true, idle_ms), self.next_use());
        if let Some(entry) = self.flows.get_mut(id) {
            (entry.is_answered, entry.list) = (true, list);
            (entry.used, entry.used_ms) = (used, now_ms);
        }
        self.waiting -= 1;
        self.sources.get_mut(&source).into_iter().for_each(|source| source.waiting -= 1);
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
            source.flows -= 1;
            source.waiting -= usize::from(!entry.is_answered);
            if source.flows == 0 {
                self.sources.remove(&entry.source);
            }
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

    /// Appends a flow to both of its lists.
    fn append(&mut self, id: Id) {
        let Some(entry) = self.flows.get(id) else { return };
        let (list, source, state) = (entry.list, entry.source, usize::from(entry.is_answered));
        let before = self.lists[list].ends.tail.replace(id);
        self.lists[list].ends.head.get_or_insert(id);
        before.and_then(|before| self.flows.get_mut(before)).into_iter().for_each(|e| e.in_list.next = Some(id));
        let ends = &mut self.sources.entry(source).or_default().lists[state];
        let beside = ends.tail.replace(id);
        ends.head.get_or_insert(id);
        beside.and_then(|beside| self.flows.get_mut(beside)).into_iter().for_each(|e| e.in_source.next = Some(id));
        if let Some(entry) = self.flows.get_mut(id) {
            (entry.in_list, entry.in_source) =
                (Link { previous: before, next: None }, Link { previous: beside, next: None });
        }
    }

    /// Takes a flow out of both of its lists.
    fn unlink(&mut self, id: Id) {
        let Some(entry) = self.flows.get(id) else { return };
        let (list, source, state) = (entry.list, entry.source, usize::from(entry.is_answered));
        let (in_list, in_source) = (entry.in_list, entry.in_source);
        let flows = &mut self.flows;
        take_out(&mut self.lists[list].ends, in_list, |id, change| {
            flows.get_mut(id).into_iter().for_each(|entry| change(&mut entry.in_list));
        });
        if let Some(source) = self.sources.get_mut(&source) {
            take_out(&mut source.lists[state], in_source, |id, change| {
                flows.get_mut(id).into_iter().for_each(|entry| change(&mut entry.in_source));
            });
        }
    }
}

/// Joins the neighbours of a member that leaves a list. `with` changes the link of another member.
fn take_out(ends: &mut Ends, link: Link, mut with: impl FnMut(Id, &mut dyn FnMut(&mut Link))) {
    match link.previous {
        Some(previous) => with(previous, &mut |other| other.next = link.next),
        None => ends.head = link.next,
    }
    match link.next {
        Some(next) => with(next, &mut |other| other.previous = link.previous),
        None => ends.tail = link.previous,
    }
}

/// Age from which a flow without an answer is given up before any flow with one. Most name servers answer sooner.
pub(crate) const ANSWER_MS: u64 = 1_000;
/// Flows of one list that a search for a waiting flow looks at: it is repeated for each new flow while there is no room.
pub(crate) const SEARCHED_MAX: usize = 1_024;
/// Part of the room that flows without an answer may fill before they are given up first: one in so many.
pub(crate) const WAITING_SHARE: usize = 4;
