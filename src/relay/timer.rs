//! Timers for many connections with few different durations, of which almost none fires.
//!
//! Each connection is in at most one list. All members of a list wait for the same duration, and a touch moves a member to
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
}

impl TimerClass {
    pub(crate) const COUNT: usize = 7;
}

/// The timer lists of one loop. Members are indexes of the connection table.
pub(crate) struct TimerLists {
    lists: [List; TimerClass::COUNT],
    links: Vec<Link>,
}

#[derive(Clone, Copy)]
struct List {
    duration_ms: u64,
    head: u32,
    tail: u32,
}

#[derive(Clone, Copy)]
struct Link {
    id: Option<Id>,
    class: Option<TimerClass>,
    since_ms: u64,
    previous: u32,
    next: u32,
}

impl TimerLists {
    /// Creates the lists for connections with indexes below `capacity`.
    pub fn new(capacity: usize, durations: [Duration; TimerClass::COUNT]) -> TimerLists {
        // The clock is truncated to milliseconds, so one more is added, or a timer would fire early. The cap keeps the sum
        // of a time and a duration from overflowing.
        let whole_ms = |duration: Duration| match u64::try_from(duration.as_millis()) {
            _ if duration.is_zero() => 0,
            Ok(ms) => ms.saturating_add(1).min(u64::MAX / 2),
            Err(_) => u64::MAX / 2,
        };
        let list = |duration| List { duration_ms: whole_ms(duration), head: NONE, tail: NONE };
        TimerLists { lists: durations.map(list), links: Vec::with_capacity(capacity) }
    }

    /// Moves a connection to a class and starts its wait now. Without a class it waits for nothing.
    pub fn set(&mut self, id: Id, class: Option<TimerClass>, now_ms: u64) {
        let index = id.index();
        if self.links.len() <= index {
            self.links.resize(index + 1, Link::FREE);
        }
        self.unlink(index as u32);
        self.links[index] = Link { id: Some(id), class: None, since_ms: now_ms, previous: NONE, next: NONE };
        if let Some(class) = class.filter(|class| self.lists[*class as usize].duration_ms > 0) {
            self.append(index as u32, class, now_ms);
        }
    }

    /// Restarts the wait, if more than 1/64 of the duration has passed.
    #[inline]
    pub fn touch(&mut self, id: Id, now_ms: u64) {
        let link = &self.links[id.index()];
        let Some(class) = link.class.filter(|class| *class != TimerClass::TcpKeepaliveDelay) else { return };
        let grain_ms = self.lists[class as usize].duration_ms / GRAINS;
        if now_ms.saturating_sub(link.since_ms) > grain_ms {
            self.unlink(id.index() as u32);
            self.append(id.index() as u32, class, now_ms);
        }
    }

    pub fn class(&self, id: Id) -> Option<TimerClass> {
        self.links.get(id.index()).filter(|link| link.id == Some(id)).and_then(|link| link.class)
    }

    /// Returns the next deadline of all lists.
    pub fn next_ms(&self) -> Option<u64> {
        let head =
            |list: &List| (list.head != NONE).then(|| self.links[list.head as usize].since_ms + list.duration_ms);
        self.lists.iter().filter_map(head).min()
    }

    /// Removes and returns one connection whose deadline has passed.
    pub fn expire(&mut self, now_ms: u64) -> Option<(Id, TimerClass)> {
        for list in self.lists {
            if list.head == NONE {
                continue;
            }
            let link = self.links[list.head as usize];
            if link.since_ms + list.duration_ms <= now_ms {
                self.unlink(list.head);
                return link.id.zip(link.class);
            }
        }
        None
    }

    fn append(&mut self, index: u32, class: TimerClass, now_ms: u64) {
        let list = &mut self.lists[class as usize];
        let tail = std::mem::replace(&mut list.tail, index);
        if tail == NONE {
            list.head = index;
        } else {
            debug_assert!(self.links[tail as usize].since_ms <= now_ms, "a list is sorted");
            self.links[tail as usize].next = index;
        }
        let link = &mut self.links[index as usize];
        (link.class, link.since_ms, link.previous, link.next) = (Some(class), now_ms, tail, NONE);
    }

    fn unlink(&mut self, index: u32) {
        let link = self.links[index as usize];
        let Some(class) = link.class else { return };
        let list = &mut self.lists[class as usize];
        match link.previous {
            NONE => list.head = link.next,
            previous => self.links[previous as usize].next = link.next,
        }
        match link.next {
            NONE => list.tail = link.previous,
            next => self.links[next as usize].previous = link.previous,
        }
        self.links[index as usize].class = None;
    }
}

impl Link {
    const FREE: Link = Link { id: None, class: None, since_ms: 0, previous: NONE, next: NONE };
}

/// A heap of deadlines that belong to no class.
pub(crate) struct OneOffs<T> {
    heap: BinaryHeap<Reverse<(u64, T)>>,
}

impl<T: Ord> OneOffs<T> {
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

    fn lists() -> TimerLists {
        let mut durations = [Duration::ZERO; TimerClass::COUNT];
        durations[TimerClass::Handshake as usize] = Duration::from_millis(99);
        durations[TimerClass::Idle as usize] = Duration::from_millis(6399);
        TimerLists::new(8, durations)
    }

    #[test]
    fn timers_fire_in_order_and_once() {
        let (mut lists, ids) = (lists(), ids(3));
        for (n, id) in ids.iter().enumerate() {
            lists.set(*id, Some(TimerClass::Handshake), n as u64);
        }
        lists.set(ids[1], None, 3);
        assert_eq!(lists.next_ms(), Some(100));
        assert_eq!(lists.expire(99), None);
        assert_eq!(lists.expire(102), Some((ids[0], TimerClass::Handshake)));
        assert_eq!(lists.expire(102), Some((ids[2], TimerClass::Handshake)));
        assert_eq!((lists.expire(u64::MAX), lists.next_ms()), (None, None));
    }

    #[test]
    fn a_touch_restarts_the_wait_only_after_a_64th_of_the_duration() {
        let (mut lists, ids) = (lists(), ids(2));
        lists.set(ids[0], Some(TimerClass::Idle), 0);
        lists.set(ids[1], Some(TimerClass::Idle), 0);
        lists.touch(ids[0], 100);
        assert_eq!(lists.next_ms(), Some(6400), "100 ms are within the grain");
        lists.touch(ids[0], 101);
        assert_eq!(lists.expire(6400), Some((ids[1], TimerClass::Idle)));
        assert_eq!(lists.expire(6500), None);
        assert_eq!(lists.expire(6501), Some((ids[0], TimerClass::Idle)));
    }

    #[test]
    fn a_duration_of_zero_never_fires() {
        let (mut lists, ids) = (lists(), ids(1));
        lists.set(ids[0], Some(TimerClass::Connect), 0);
        lists.touch(ids[0], 1);
        assert_eq!((lists.next_ms(), lists.expire(u64::MAX)), (None, None));
    }

    #[test]
    fn random_operations_keep_the_lists_linked_and_sorted() {
        let (mut lists, ids) = (lists(), ids(8));
        let mut seed = 1u64;
        for now in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let id = ids[(seed >> 33) as usize % ids.len()];
            match seed >> 60 {
                0..4 => lists.set(id, Some(TimerClass::Idle), now),
                4..8 => lists.set(id, Some(TimerClass::Handshake), now),
                8 => lists.set(id, None, now),
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
