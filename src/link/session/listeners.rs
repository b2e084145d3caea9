//! Listeners: those that this end requested, which run at the peer, and those that it serves for the peer.

use std::collections::BTreeMap;

use crate::link::stream::ranges::RangeSet;
use crate::link::wire::open::{Bound, Open};

/// A listener at the peer.
#[derive(Debug)]
pub(super) struct RequestedListener {
    pub(super) open: Open,
    /// True if the peer has the LISTEN.
    pub(super) acked: bool,
    pub(super) answered: bool,
    /// True if the listener is to be ended.
    pub(super) removed: bool,
}

/// A listener that this end serves for the peer.
#[derive(Debug, Default)]
pub(super) struct ServedListener {
    pub(super) result: Option<Bound>,
    pub(super) result_acked: bool,
}

impl ServedListener {
    /// Returns true if the answer is a failure.
    pub(super) fn is_lost(&self) -> bool {
        self.result.as_ref().is_some_and(|result| result.failure.is_some())
    }
}

/// All listeners that this end serves for the peer.
#[derive(Debug, Default)]
pub(super) struct ServedListeners {
    pub(super) live: BTreeMap<u32, ServedListener>,
    seen: RangeSet,
}

/// Maximum number of ranges of listener numbers that were seen.
const GAPS_MAX: usize = 1024;

impl ServedListeners {
    /// Notes a LISTEN. Returns true if it is new, false if it is a duplicate, and `None` if there are too many gaps
    /// between the numbers.
    pub(super) fn admit(&mut self, id: u32) -> Option<bool> {
        let id = u64::from(id);
        if self.seen.contains(id, id + 1) {
            return Some(false);
        }
        self.seen.insert(id, id + 1);
        (self.seen.count() <= GAPS_MAX).then_some(true)
    }

    /// Returns true if the peer has used this number.
    pub(super) fn has_seen(&self, id: u32) -> bool {
        let id = u64::from(id);
        self.seen.contains(id, id + 1)
    }
}
