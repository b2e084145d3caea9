//! Listeners: this end asks the peer to listen, or the peer asks this end.
//!
//! LISTEN, its result and UNLISTEN may each arrive twice, and on different subflows in any order. The asking end sends
//! UNLISTEN only when the peer is known to have the LISTEN; the asked end remembers which numbers it has ever seen, as
//! ranges, of which there is one as long as nothing is missing in between.

use std::collections::BTreeMap;

use super::open::{Bound, Open};
use super::ranges::RangeSet;

/// A listener at the peer.
#[derive(Debug)]
pub(super) struct MyListener {
    pub(super) open: Open,
    /// Whether the peer has the LISTEN.
    pub(super) acked: bool,
    pub(super) answered: bool,
    /// Whether it is to go.
    pub(super) removed: bool,
}

/// A listener that the peer asked for.
#[derive(Debug, Default)]
pub(super) struct TheirListener {
    pub(super) result: Option<Bound>,
    pub(super) result_acked: bool,
}

/// All that the peer asked for.
#[derive(Debug, Default)]
pub(super) struct TheirListeners {
    pub(super) live: BTreeMap<u32, TheirListener>,
    seen: RangeSet,
}

/// Ranges of numbers that a peer may leave between those that have been seen.
const GAPS_MAX: usize = 1024;

impl TheirListeners {
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
