//! The last records that ended, so that their ids answer with the reason for a while.

use crate::engine::core::Core;
use crate::types::id::{Id, Kind};
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

/// A ring of the last records that ended. The end of a record costs one store.
pub(crate) struct Ended {
    ring: Vec<End>,
    /// The place of the next record.
    next: usize,
    max: usize,
}

/// The ids of one record, and of those that ended with it: a connection and its two sides.
struct End {
    ids: [Option<Id>; 3],
    reason: Reason,
}

impl Ended {
    /// Makes a ring of at most `max` records.
    pub fn new(max: usize) -> Ended {
        Ended { ring: Vec::with_capacity(max), next: 0, max }
    }

    /// Notes the end of a record, in place of the oldest one if the ring is full.
    pub fn note(&mut self, ids: [Option<Id>; 3], reason: Reason) {
        let end = End { ids, reason };
        match self.ring.get_mut(self.next) {
            Some(oldest) => *oldest = end,
            None if self.next < self.max => self.ring.push(end),
            None => return,
        }
        self.next = if self.next + 1 < self.max { self.next + 1 } else { 0 };
    }

    /// Returns the reason for which a record ended, if it is one of the last. This looks at all of them.
    pub fn reason(&self, id: Id) -> Option<Reason> {
        self.ring.iter().find(|end| end.ids.contains(&Some(id))).map(|end| end.reason)
    }
}

impl Core {
    /// Returns the answer for an id that finds no record of the kind that a verb is about.
    pub(crate) fn missing(&self, id: Id, kind: Kind) -> VerbError {
        if id.kind() != kind {
            return VerbError::Invalid;
        }
        self.ended.reason(id).map_or(VerbError::Stale, VerbError::Over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::Table;

    #[test]
    fn the_last_ends_are_known_and_earlier_ones_are_forgotten() {
        let (mut table, mut ended) = (Table::new(Kind::Link, 9), Ended::new(3));
        let ids: Vec<Id> = (0..9).map(|n| table.insert(n).unwrap()).collect();
        for (count, id) in ids.iter().enumerate() {
            ended.note([Some(*id), None, None], Reason::Drained);
            let known: Vec<bool> = ids.iter().map(|id| ended.reason(*id).is_some()).collect();
            let expected: Vec<bool> = (0..9).map(|at| at <= count && at + 3 > count).collect();
            assert_eq!(known, expected);
        }
        let mut none = Ended::new(0);
        none.note([Some(ids[0]), None, None], Reason::Drained);
        assert_eq!(none.reason(ids[0]), None);
    }
}
