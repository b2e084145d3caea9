//! Timers for many connections with few different durations, of which almost none fires.
//!
//! Each connection is in at most one list. All members of a list wait in one class for the same duration, and a touch moves a member to
//! the tail, so the list is always sorted and its head is the next deadline. A touch does nothing until a small part of
//! the duration has passed, so a busy connection does not move at every byte. Deadlines that belong to no class are in a
//! heap. Times are milliseconds since the start of the loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::types::id::Id;

/// The event that a connection waits for. Each class has one duration; zero switches the timer off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerClass {
    /// The client's request.
    Handshake,
    /// The connect to the target.
    Connect,
    /// The next request on a kept-alive connection.
    HttpKeepAlive,
    /// The end of the delay before TCP keepalive is enabled; short connections skip the system calls.
    TcpKeepaliveDelay,
    /// A byte in either direction.
    Idle,
    /// A byte in the direction that is still open after the other was closed.
    HalfClosed,
    /// The client's close after the proxy's.
    Linger,
    /// A datagram of the association of a connection, in either direction.
    Association,
}

impl TimerClass {
    pub(crate) const ALL: [TimerClass; 8] = [
        TimerClass::Handshake,
        TimerClass::Connect,
        TimerClass::HttpKeepAlive,
        TimerClass::TcpKeepaliveDelay,
        TimerClass::Idle,
        TimerClass::HalfClosed,
        TimerClass::Linger,
        TimerClass::Association,
    ];
    pub(crate) const COUNT: usize = TimerClass::ALL.len();
}

/// The timer lists of one loop. Members are indexes of the connection table.
///
/// Each list belongs to one class and one duration. A [`Durations`] names one list of each class, and those with equal
/// durations share their lists, so that there are few lists to look through for the next deadline.
pub(crate) struct TimerLists {
    lists: Vec<List>,
    /// A bit for each list that has members.
    occupied: [u64; LISTS_MAX.div_ceil(64)],
    links: Vec<Link>,
}

/// The list of each class for one set of durations. [`TimerLists::add`] makes it, and [`TimerLists::remove`] takes it back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durations([u16; TimerClass::COUNT]);

#[derive(Clone, Copy)]
struct List {
    class: TimerClass,
    duration_ms: u64,
    /// A touch moves a member only after this time.
    grain_ms: u64,
    head: u32,
    tail: u32,
    /// The sets of durations that name the list. A list without any is free.
    users: u32,
}

#[derive(Clone, Copy)]
struct Link {
    id: Option<Id>,
    since_ms: u64,
    previous: u32,
    next: u32,
    list: u16,
}

impl TimerLists {
    /// Creates the lists for connections with indexes below `capacity`.
    pub fn new(capacity: usize) -> TimerLists {
        TimerLists { lists: Vec::new(), occupied: [0; _], links: Vec::with_capacity(capacity) }
    }

    /// Makes lists for these durations, or finds those that exist. Returns none if there are too many lists.
    pub fn add(&mut self, durations: [(TimerClass, Duration); TimerClass::COUNT]) -> Option<Durations> {
        let mut set = Durations([NO_LIST; TimerClass::COUNT]);
        for (class, duration) in durations {
            if duration.is_zero() {
                continue;
            }
            let Some(list) = self.add_list(class, whole_ms(duration)) else {
                self.remove(set);
                return None;
            };
            set.0[class as usize] = list;
        }
        Some(set)
    }

    fn add_list(&mut self, class: TimerClass, duration_ms: u64) -> Option<u16> {
        let is_same = |list: &List| list.users > 0 && list.class == class && list.duration_ms == duration_ms;
        let found = self.lists.iter().position(is_same);
        let free = || self.lists.iter().position(|list| list.users == 0);
        let index = found.or_else(free).unwrap_or(self.lists.len());
        if index == LISTS_MAX {
            return None;
        }
        if found.is_none() {
            // The delay before TCP keepalive runs from the start, whatever moves meanwhile.
            let grain_ms = if class == TimerClass::TcpKeepaliveDelay { u64::MAX } else { duration_ms / GRAINS };
            let list = List { class, duration_ms, grain_ms, head: NONE, tail: NONE, users: 0 };
            match self.lists.get_mut(index) {
                Some(free) => *free = list,
                None => self.lists.push(list),
            }
        }
        self.lists[index].users += 1;
        Some(index as u16)
    }

    /// Gives lists back, which have no members any more unless other sets of durations name them too.
    pub fn remove(&mut self, set: Durations) {
        for index in set.0.into_iter().filter(|index| *index != NO_LIST) {
            let list = &mut self.lists[usize::from(index)];
            list.users -= 1;
            debug_assert!(list.users > 0 || list.head == NONE, "a list that no durations name has no members");
        }
    }

    /// Moves a connection to a class and starts its wait of these durations now. Without a class it waits for nothing.
    pub fn set(&mut self, id: Id, durations: Durations, class: Option<TimerClass>, now_ms: u64) {
        self.stop(id, now_ms);
        let list = class.map_or(NO_LIST, |class| durations.0[class as usize]);
        if list != NO_LIST {
            self.append(id.index() as u32, list, now_ms);
        }
    }

    /// Takes a connection out of its list.
    pub fn stop(&mut self, id: Id, now_ms: u64) {
        let index = id.index();
        if self.links.len() <= index {
            self.links.resize(index + 1, Link::FREE);
        }
        self.unlink(index as u32);
        self.links[index] = Link { id: Some(id), since_ms: now_ms, ..Link::FREE };
    }

    /// Restarts the wait, if more than 1/64 of the duration has passed.
    #[inline]
    pub fn touch(&mut self, id: Id, now_ms: u64) {
        let link = &self.links[id.index()];
        let Some(list) = self.lists.get(usize::from(link.list)) else { return };
        if now_ms.saturating_sub(link.since_ms) > list.grain_ms {
            let list = link.list;
            self.unlink(id.index() as u32);
            self.append(id.index() as u32, list, now_ms);
        }
    }

    pub fn class(&self, id: Id) -> Option<TimerClass> {
        let link = self.links.get(id.index()).filter(|link| link.id == Some(id))?;
        self.lists.get(usize::from(link.list)).map(|list| list.class)
    }

    /// Returns the next deadline of all lists.
    pub fn next_ms(&self) -> Option<u64> {
        self.heads().map(|list| self.links[list.head as usize].since_ms + list.duration_ms).min()
    }

    /// Removes and returns one connection whose deadline has passed.
    pub fn expire(&mut self, now_ms: u64) -> Option<(Id, TimerClass)> {
        let is_due = |list: &&List| self.links[list.head as usize].since_ms + list.duration_ms <= now_ms;
        let List { head, class, .. } = *self.heads().find(is_due)?;
        self.unlink(head);
        self.links[head as usize].id.zip(Some(class))
    }

    /// Iterates over the lists that have members.
    fn heads(&self) -> impl Iterator<Item = &List> {
        let mut words = self.occupied.iter().take(self.lists.len().div_ceil(64)).copied().enumerate();
        let (mut word, mut bits) = (0, 0);
        std::iter::from_fn(move || {
            while bits == 0 {
                (word, bits) = words.next()?;
            }
            let index = word * 64 + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            Some(&self.lists[index])
        })
    }

    fn append(&mut self, index: u32, list: u16, now_ms: u64) {
        let record = &mut self.lists[usize::from(list)];
        let tail = std::mem::replace(&mut record.tail, index);
        if tail == NONE {
            record.head = index;
            self.occupied[usize::from(list) / 64] |= 1 << (list % 64);
        } else {
            debug_assert!(self.links[tail as usize].since_ms <= now_ms, "a list is sorted");
            self.links[tail as usize].next = index;
        }
        let link = &mut self.links[index as usize];
        (link.list, link.since_ms, link.previous, link.next) = (list, now_ms, tail, NONE);
    }

    fn unlink(&mut self, index: u32) {
        let link = self.links[index as usize];
        let Some(list) = self.lists.get_mut(usize::from(link.list)) else { return };
        match link.previous {
            NONE => list.head = link.next,
            previous => self.links[previous as usize].next = link.next,
        }
        match link.next {
            NONE => list.tail = link.previous,
            next => self.links[next as usize].previous = link.previous,
        }
        if list.head == NONE {
            self.occupied[usize::from(link.list) / 64] &= !(1 << (link.list % 64));
        }
        self.links[index as usize].list = NO_LIST;
    }
}

impl Link {
    const FREE: Link = Link { id: None, since_ms: 0, previous: NONE, next: NONE, list: NO_LIST };
}

/// Returns a duration as a deadline counts it. The clock is truncated to milliseconds, so one more is added, or a timer would
/// fire early. The cap keeps the sum of a time and a duration from overflowing.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(u64::MAX / 2, |ms| ms.saturating_add(1).min(u64::MAX / 2))
}

/// A heap of deadlines that belong to no class.
pub(crate) struct OneOffs<T> {
    heap: BinaryHeap<Reverse<(u64, T)>>,
}

impl<T: Ord> OneOffs<T> {
    /// Keeps the entries for which `is_kept` returns true.
    pub fn retain(&mut self, is_kept: impl Fn(&T) -> bool) {
        self.heap.retain(|entry| is_kept(&entry.0.1));
    }

    pub fn new() -> OneOffs<T> {
        OneOffs { heap: BinaryHeap::new() }
    }

    pub fn push(&mut self, due_ms: u64, what: T) {
        self.heap.push(Reverse((due_ms, what)));
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.0.0)
    }

    pub fn expire(&mut self, now_ms: u64) -> Option<T> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|entry| entry.0.1)
    }
}

/// The index of no member.
const NONE: u32 = u32::MAX;
/// The index of no list, which is beyond all lists.
const NO_LIST: u16 = u16::MAX;
/// Lists of one loop: each differs from the others in its class or its duration.
const LISTS_MAX: usize = 512;
/// A touch moves a connection at most once in this fraction of the duration.
const GRAINS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::{Kind, Table};

    fn ids(count: usize) -> Vec<Id> {
        let mut table = Table::new(Kind::Connection, count);
        (0..count).map(|n| table.insert(n).unwrap()).collect()
    }

    /// Returns durations of all classes: these for the handshake and for silence, and none for the others.
    fn durations(handshake_ms: u64, idle_ms: u64) -> [(TimerClass, Duration); TimerClass::COUNT] {
        let ms = |class| match class {
            TimerClass::Handshake => handshake_ms,
            TimerClass::Idle => idle_ms,
            _ => 0,
        };
        TimerClass::ALL.map(|class| (class, Duration::from_millis(ms(class))))
    }

    fn lists() -> (TimerLists, Durations) {
        let mut lists = TimerLists::new(8);
        let set = lists.add(durations(99, 6399)).unwrap();
        (lists, set)
    }

    #[test]
    fn timers_fire_in_order_and_once() {
        let ((mut lists, set), ids) = (lists(), ids(3));
        for (n, id) in ids.iter().enumerate() {
            lists.set(*id, set, Some(TimerClass::Handshake), n as u64);
        }
        lists.set(ids[1], set, None, 3);
        assert_eq!(lists.next_ms(), Some(100));
        assert_eq!(lists.expire(99), None);
        assert_eq!(lists.expire(102), Some((ids[0], TimerClass::Handshake)));
        assert_eq!(lists.expire(102), Some((ids[2], TimerClass::Handshake)));
        assert_eq!((lists.expire(u64::MAX), lists.next_ms()), (None, None));
    }

    #[test]
    fn a_touch_restarts_the_wait_only_after_a_64th_of_the_duration() {
        let ((mut lists, set), ids) = (lists(), ids(2));
        lists.set(ids[0], set, Some(TimerClass::Idle), 0);
        lists.set(ids[1], set, Some(TimerClass::Idle), 0);
        lists.touch(ids[0], 100);
        assert_eq!(lists.next_ms(), Some(6400), "100 ms are within the grain");
        lists.touch(ids[0], 101);
        assert_eq!(lists.expire(6400), Some((ids[1], TimerClass::Idle)));
        assert_eq!(lists.expire(6500), None);
        assert_eq!(lists.expire(6501), Some((ids[0], TimerClass::Idle)));
    }

    #[test]
    fn a_duration_of_zero_never_fires() {
        let ((mut lists, set), ids) = (lists(), ids(1));
        lists.set(ids[0], set, Some(TimerClass::Connect), 0);
        lists.touch(ids[0], 1);
        assert_eq!((lists.next_ms(), lists.expire(u64::MAX)), (None, None));
    }

    #[test]
    fn each_set_of_durations_has_its_own_deadlines_and_shares_equal_lists() {
        let ((mut lists, set), ids) = (lists(), ids(4));
        let hasty = lists.add(durations(99, 639)).unwrap();
        assert_eq!(lists.lists.len(), 3, "the lists of the handshake are one");
        lists.set(ids[0], set, Some(TimerClass::Idle), 0);
        lists.set(ids[1], hasty, Some(TimerClass::Idle), 0);
        lists.set(ids[2], hasty, Some(TimerClass::Handshake), 0);
        lists.touch(ids[1], 100);
        assert_eq!(lists.next_ms(), Some(100));
        assert_eq!(lists.expire(740), Some((ids[2], TimerClass::Handshake)));
        assert_eq!(lists.expire(739), None);
        assert_eq!(lists.expire(740), Some((ids[1], TimerClass::Idle)));
        assert_eq!((lists.expire(6399), lists.class(ids[0])), (None, Some(TimerClass::Idle)));
        lists.remove(hasty);
        let other = lists.add(durations(0, 50)).unwrap();
        assert_eq!(lists.lists.len(), 3, "the list that was given back is used again");
        lists.set(ids[3], other, Some(TimerClass::Idle), 0);
        assert_eq!(lists.expire(51), Some((ids[3], TimerClass::Idle)));
        assert_eq!(lists.expire(6400), Some((ids[0], TimerClass::Idle)));
    }

    #[test]
    fn the_number_of_lists_is_bounded_and_a_refused_set_takes_none() {
        let mut lists = TimerLists::new(8);
        let mut sets: Vec<_> = (1..LISTS_MAX as u64).map(|ms| lists.add(durations(0, ms)).unwrap()).collect();
        assert!(lists.add(durations(1, 1_000_000)).is_none(), "there is room for one list, not for two");
        assert!(lists.add(durations(0, 1)).is_some(), "lists that exist can be shared");
        sets.extend(lists.add(durations(0, 1_000_000)));
        assert!(lists.add(durations(1, 0)).is_none());
        lists.remove(sets[7]);
        assert!(lists.add(durations(1, 0)).is_some());
    }

    #[test]
    fn random_operations_keep_the_lists_linked_and_sorted() {
        let ((mut lists, set), ids) = (lists(), ids(8));
        let mut seed = 1u64;
        for now in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let id = ids[(seed >> 33) as usize % ids.len()];
            match seed >> 60 {
                0..4 => lists.set(id, set, Some(TimerClass::Idle), now),
                4..8 => lists.set(id, set, Some(TimerClass::Handshake), now),
                8 => lists.set(id, set, None, now),
                _ if lists.links.len() > id.index() => lists.touch(id, now),
                _ => {}
            }
            while lists.expire(now).is_some() {}
            for list in &lists.lists {
                let (mut at, mut last, mut before) = (list.head, NONE, 0);
                while at != NONE {
                    let link = lists.links[at as usize];
                    assert!(link.previous == last && link.since_ms >= before);
                    (last, before, at) = (at, link.since_ms, link.next);
                }
                assert_eq!(last, list.tail);
            }
        }
    }
}
