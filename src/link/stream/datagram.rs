//! The datagrams of one flow, on their way out and in.
//!
//! They are not acknowledged and never sent again. A queue is bounded by bytes and, on the way out, by time: a datagram
//! that is late is worth less than one that is lost, so the oldest goes first when there is no room. All flows of a
//! session together are bounded too: beyond that, what comes is dropped.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::link::wire::ids::Time;

/// Bytes that one flow may have queued in one direction.
pub(in crate::link) const QUEUE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that all flows of a session may have queued together, in both directions, before new ones are dropped.
pub(in crate::link) const SESSION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A datagram that has waited so long is dropped.
const WAIT_US_MAX: u64 = 50_000;
/// What a queued datagram costs beside its bytes.
const ENTRY_COST: usize = 64;

/// One direction.
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

/// See the module's head.
#[derive(Debug, Default)]
pub(in crate::link) struct Datagrams {
    outgoing: Queue,
    incoming: Queue,
}

impl Datagrams {
    /// Takes one from the application. With `full`, there is no room in the session.
    pub(in crate::link) fn send(&mut self, now: Time, payload: Bytes, full: bool) {
        if full {
            self.outgoing.dropped += 1;
        } else {
            self.outgoing.push(now, payload);
        }
    }

    /// The next to leave; those that are too late are dropped on the way.
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

    /// Bytes of the next to leave.
    pub(in crate::link) fn outgoing_len(&self) -> usize {
        self.outgoing.entries.front().map_or(0, |(_, payload)| payload.len())
    }

    /// Takes one from the peer. Answers whether it is the only one, so that the application has to be told. With
    /// `full`, there is no room in the session.
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

    /// What the queues count for, in bytes.
    pub(in crate::link) const fn cost(&self) -> usize {
        self.outgoing.cost + self.incoming.cost
    }

    /// Datagrams that were dropped, in both directions.
    pub(in crate::link) const fn dropped(&self) -> u64 {
        self.outgoing.dropped + self.incoming.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_dropped_first_and_late_ones_too() {
        let mut flow = Datagrams::default();
        (0..80u8).for_each(|n| flow.send(Time::ZERO, Bytes::from(vec![n; 1000]), false));
        let first = flow.next_outgoing(Time::ZERO).unwrap();
        assert!(first[0] > 0 && flow.dropped() == u64::from(first[0]));
        flow.send(Time::from_us(60_000), Bytes::from_static(b"x"), false);
        assert_eq!(flow.next_outgoing(Time::from_us(60_000)).unwrap(), "x");
        assert!(!flow.has_outgoing());
    }
}
