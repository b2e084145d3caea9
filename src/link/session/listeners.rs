//! The listeners that this end asked the peer for, and those that the peer asked for.

use std::collections::BTreeMap;

use crate::link::stream::ranges::RangeSet;
use crate::link::wire::open::{Bound, Open};

/// A listener at the peer.
#[derive(Debug)]
pub(super) struct RequestedListener {
    pub(super) open: Open,
    /// Whether the peer has the LISTEN.
    pub(super) acked: bool,
    pub(super) answered: bool,
    /// Whether it is to go.
    pub(super) removed: bool,
}

/// A listener that the peer asked for.
#[derive(Debug, Default)]
pub(super) struct ServedListener {
    pub(super) result: Option<Bound>,
    pub(super) result_acked: bool,
}

impl ServedListener {
    /// Returns whether the answer is a failure.
    pub(super) fn is_lost(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.failure.is_some())
    }
}

/// All that the peer asked for.
#[derive(Debug, Default)]
pub(super) struct ServedListeners {
    pub(super) live: BTreeMap<u32, ServedListener>,
    seen: RangeSet,
}

/// Ranges of numbers that a peer may leave between those that have been seen.
const GAPS_MAX: usize = 1024;

impl ServedListeners {
    /// Takes note of a LISTEN. Answers whether it is new, or nothing if the peer has gone too far.
    pub(super) fn admit(&mut self, id: u32) -> Option<bool> {
        let id = u64::from(id);
        if self.seen.contains(id, id + 1) {
            return Some(false);
        }
        self.seen.insert(id, id + 1);
        (self.seen.count() <= GAPS_MAX).then_some(true)
    }

    /// Whether this number was ever asked for.
    pub(super) fn has_seen(&self, id: u32) -> bool {
        let id = u64::from(id);
        self.seen.contains(id, id + 1)
    }
}
