//! The datagrams of a flow that wait while its name is resolved or its stream opens.
//!
//! The first datagrams of an exchange matter most, such as those of a handshake, so a full queue refuses the new ones. All
//! queues of a loop share a limit, of which one listener may use a quarter.

use std::collections::{HashMap, VecDeque};

use quinn_udp::EcnCodepoint;

use crate::types::id::Id;

/// The cost of the datagrams that wait in one loop, and that of each listener or link that their clients came from.
#[derive(Debug, Default)]
pub(crate) struct WaitingRoom {
    bytes: usize,
    by_owner: HashMap<Option<Id>, usize>,
}

impl WaitingRoom {
    /// Takes room for a datagram. Returns false if a limit forbids it.
    fn take(&mut self, owner: Option<Id>, cost: usize) -> bool {
        let of_owner = self.by_owner.get(&owner).copied().unwrap_or(0);
        if self.bytes + cost > BYTES_OF_ALL_MAX || of_owner + cost > BYTES_OF_OWNER_MAX {
            return false;
        }
        self.bytes += cost;
        self.by_owner.insert(owner, of_owner + cost);
        true
    }

    fn release(&mut self, owner: Option<Id>, cost: usize) {
        self.bytes -= cost;
        if let Some(of_owner) = self.by_owner.get_mut(&owner) {
            *of_owner -= cost;
            if *of_owner == 0 {
                self.by_owner.remove(&owner);
            }
        }
    }
}

/// Datagrams that wait for the target of one flow.
#[derive(Debug, Default)]
pub(crate) struct WaitingQueue {
    entries: VecDeque<Waiting>,
    bytes: usize,
}

/// One datagram that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub payload: Box<[u8]>,
    pub ecn: Option<EcnCodepoint>,
    owner: Option<Id>,
    since_ms: u64,
}

impl WaitingQueue {
    /// Appends a datagram, whose client came from `owner`. Returns false if the limits of the flow, of the owner or of the loop
    /// forbid it. The only datagram of a flow may have any size.
    pub fn push(
        &mut self,
        payload: &[u8],
        ecn: Option<EcnCodepoint>,
        owner: Option<Id>,
        now_ms: u64,
        room: &mut WaitingRoom,
    ) -> bool {
        let is_first = self.entries.is_empty();
        let is_full = self.entries.len() >= COUNT_MAX || self.bytes + payload.len() > BYTES_MAX;
        if (is_full && !is_first) || !room.take(owner, payload.len() + ENTRY_COST) {
            return false;
        }
        self.bytes += payload.len();
        self.entries.push_back(Waiting { payload: payload.into(), ecn, owner, since_ms: now_ms });
        true
    }

    /// Takes the oldest datagram.
    pub fn pop(&mut self, room: &mut WaitingRoom) -> Option<Waiting> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.payload.len();
        room.release(entry.owner, entry.payload.len() + ENTRY_COST);
        Some(entry)
    }

    /// Drops the datagrams that have waited for longer than [`WAIT_MS_MAX`], and returns their number.
    pub fn drop_late(&mut self, now_ms: u64, room: &mut WaitingRoom) -> u64 {
        let mut count = 0;
        while self.entries.front().is_some_and(|entry| now_ms.saturating_sub(entry.since_ms) > WAIT_MS_MAX) {
            self.pop(room);
            count += 1;
        }
        count
    }

    /// Drops all datagrams, and returns their number.
    pub fn clear(&mut self, room: &mut WaitingRoom) -> u64 {
        let count = self.entries.len() as u64;
        while self.pop(room).is_some() {}
        count
    }
}

/// Datagrams of one flow that may wait.
const COUNT_MAX: usize = 8;
/// Bytes of one flow that may wait, unless it is one datagram.
const BYTES_MAX: usize = 8 << 10;
/// Bytes of all flows of a loop that may wait.
const BYTES_OF_ALL_MAX: usize = 4 << 20;
/// Bytes of all flows of one listener in a loop that may wait.
const BYTES_OF_OWNER_MAX: usize = BYTES_OF_ALL_MAX / 4;
/// Time that a datagram may wait for a link.
const WAIT_MS_MAX: u64 = 1_000;
/// Cost of a datagram beyond its bytes.
const ENTRY_COST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_the_newest_datagram() {
        let (mut queue, mut room) = (WaitingQueue::default(), WaitingRoom::default());
        for number in 0..COUNT_MAX as u8 {
            assert!(queue.push(&[number; 100], None, None, 0, &mut room));
        }
        assert!(!queue.push(b"one more", None, None, 0, &mut room));
        assert_eq!(queue.pop(&mut room).unwrap().payload[0], 0);
        assert!(queue.push(b"one more", None, None, 0, &mut room));
        assert!(!queue.push(b"", None, None, 0, &mut room), "the number is bounded too");
        assert_eq!(queue.clear(&mut room), COUNT_MAX as u64);
        assert_eq!((room.bytes, room.by_owner.len(), queue.bytes), (0, 0, 0));
    }

    #[test]
    fn one_large_datagram_may_wait_alone() {
        let (mut queue, mut room) = (WaitingQueue::default(), WaitingRoom::default());
        assert!(queue.push(&[1; 65_507], None, None, 0, &mut room));
        assert!(!queue.push(b"x", None, None, 0, &mut room));
        let mut others: Vec<WaitingQueue> = Vec::new();
        while others.len() < 1000 {
            let mut other = WaitingQueue::default();
            if !other.push(&[1; 65_507], None, None, 0, &mut room) {
                break;
            }
            others.push(other);
        }
        assert!(room.bytes <= BYTES_OF_OWNER_MAX && others.len() < 16, "{} queues of {room:?}", others.len());
        let listener = crate::types::id::Table::new(crate::types::id::Kind::Listener, 1).insert(()).ok();
        let mut other = WaitingQueue::default();
        assert!(other.push(&[1; 65_507], None, listener, 0, &mut room), "another listener has room");
    }

    #[test]
    fn datagrams_that_have_waited_for_too_long_leave_first() {
        let (mut queue, mut room) = (WaitingQueue::default(), WaitingRoom::default());
        for now_ms in [0, 1, 900] {
            assert!(queue.push(b"x", None, None, now_ms, &mut room));
        }
        assert_eq!(queue.drop_late(WAIT_MS_MAX, &mut room), 0);
        assert_eq!(queue.drop_late(WAIT_MS_MAX + 2, &mut room), 2);
        assert_eq!((queue.clear(&mut room), room.bytes), (1, 0));
    }
}
