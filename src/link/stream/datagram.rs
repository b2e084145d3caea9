//! The queues of datagrams of one flow, in both directions.
//!
//! Datagrams are neither acknowledged nor retransmitted. A queue is limited in bytes and, for sending, in time: a late
//! datagram is worth less than a lost one, so the oldest is dropped first. A limit on all flows of a session applies
//! too; above it, new datagrams are dropped.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::link::wire::ids::Time;

/// Maximum cost of a flow's queue in one direction.
pub(in crate::link) const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// Cost of all queues of a session from which on new datagrams are dropped.
pub(in crate::link) const SESSION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Queueing time after which a datagram is dropped.
const WAIT_US_MAX: u64 = 50_000;
/// Cost of a queued datagram beyond its bytes.
const ENTRY_COST: usize = 64;

/// The queue of one direction.
#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<(Time, Bytes)>,
    cost: usize,
    dropped: u64,
}

impl Queue {
    fn push(&mut self, now: Time, payload: Bytes) {
        self.cost += payload.len() + ENTRY_COST;
        self.entries.push_back((now, payload));
        while self.cost > QUEUE_BYTES_MAX {
            self.dropped += 1;
            self.pop();
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (_, payload) = self.entries.pop_front()?;
        self.cost -= payload.len() + ENTRY_COST;
        Some(payload)
    }
}

/// Both queues of one flow.
#[derive(Debug, Default)]
pub(in crate::link) struct Datagrams {
    outgoing: Queue,
    incoming: Queue,
}

impl Datagrams {
    /// Queues a datagram from the application, or drops it if the session is `full`.
    pub(in crate::link) fn send(&mut self, now: Time, payload: Bytes, full: bool) {
        if full {
            self.outgoing.dropped += 1;
        } else {
            self.outgoing.push(now, payload);
        }
    }

    /// Returns the next datagram to send, and drops those before it that are too old.
    pub(in crate::link) fn next_outgoing(&mut self, now: Time) -> Option<Bytes> {
        while let Some((at, _)) = self.outgoing.entries.front() {
            let late = now.since(*at) > WAIT_US_MAX;
            let payload = self.outgoing.pop();
            if !late {
                return payload;
            }
            self.outgoing.dropped += 1;
        }
        None
    }

    pub(in crate::link) fn has_outgoing(&self) -> bool {
        !self.outgoing.entries.is_empty()
    }

    /// Returns the length of the next datagram to send.
    pub(in crate::link) fn outgoing_len(&self) -> usize {
        self.outgoing.entries.front().map_or(0, |(_, payload)| payload.len())
    }

    /// Queues a datagram from the peer, or drops it if the session is `full`. Returns true if it is the only one, so
    /// that the application must be told.
    pub(in crate::link) fn receive(&mut self, now: Time, payload: Bytes, full: bool) -> bool {
        if full {
            self.incoming.dropped += 1;
            return false;
        }
        self.incoming.push(now, payload);
        self.incoming.entries.len() == 1
    }

    pub(in crate::link) fn next_incoming(&mut self) -> Option<Bytes> {
        self.incoming.pop()
    }

    /// Returns the cost of both queues in bytes.
    pub(in crate::link) const fn cost(&self) -> usize {
        self.outgoing.cost + self.incoming.cost
    }

    /// Returns the number of dropped datagrams, in both directions.
    pub(in crate::link) const fn dropped(&self) -> u64 {
        self.outgoing.dropped + self.incoming.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_datagrams_and_late_ones_are_dropped() {
        let mut flow = Datagrams::default();
        (0..80u8).for_each(|n| flow.send(Time::ZERO, Bytes::from(vec![n; 1000]), false));
        let first = flow.next_outgoing(Time::ZERO).unwrap();
        assert!(first[0] > 0 && flow.dropped() == u64::from(first[0]));
        flow.send(Time::from_us(60_000), Bytes::from_static(b"x"), false);
        assert_eq!(flow.next_outgoing(Time::from_us(60_000)).unwrap(), "x");
        assert!(!flow.has_outgoing());
    }
}
