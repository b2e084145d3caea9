//! The last records that ended, so that their ids answer with the reason for a while.

use crate::types::id::{Id, Kind};
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

/// The last records that ended. The end of a record costs one store.
pub(crate) struct Ended {
    /// Connections, with their sides.
    connections: Ring,
    /// Records of all other kinds, which end rarely, so that the many connections do not displace them.
    others: Ring,
}

struct Ring {
    ends: Vec<End>,
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
    /// Remembers at most `max` connections, and as many other records as [`OTHERS_MAX`].
    pub fn new(max: usize) -> Ended {
        Ended { connections: Ring::new(max), others: Ring::new(OTHERS_MAX) }
    }

    /// Notes the end of a connection and its sides, in place of the oldest one if there is no room.
    pub fn note_connection(&mut self, ids: [Option<Id>; 3], reason: Reason) {
        self.connections.note(End { ids, reason });
    }

    /// Notes the end of a record of another kind, in place of the oldest one if there is no room.
    pub fn note(&mut self, id: Id, reason: Reason) {
        self.others.note(End { ids: [Some(id), None, None], reason });
    }

    /// Returns the answer for an id that finds no record of the kind that a verb is about. This looks at all ends.
    pub fn missing(&self, id: Id, kind: Kind) -> VerbError {
        let ring = if matches!(kind, Kind::Connection | Kind::Side) { &self.connections } else { &self.others };
        match ring.ends.iter().find(|end| end.ids.contains(&Some(id))) {
            _ if id.kind() != kind => VerbError::Invalid,
            Some(end) => VerbError::Over(end.reason),
            None => VerbError::Stale,
        }
    }
}

impl Ring {
    fn new(max: usize) -> Ring {
        Ring { ends: Vec::with_capacity(max), next: 0, max }
    }

    fn note(&mut self, end: End) {
        match self.ends.get_mut(self.next) {
            Some(oldest) => *oldest = end,
            None if self.next < self.max => self.ends.push(end),
            None => return,
        }
        self.next = if self.next + 1 < self.max { self.next + 1 } else { 0 };
    }
}

/// Ends of records other than connections that are remembered.
const OTHERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::Table;

    #[test]
    fn the_last_ends_are_known_and_earlier_ones_are_forgotten() {
        let (mut table, mut ended) = (Table::new(Kind::Connection, 9), Ended::new(3));
        let ids: Vec<Id> = (0..9).map(|n| table.insert(n).unwrap()).collect();
        let over = |ended: &Ended, id| ended.missing(id, Kind::Connection) == VerbError::Over(Reason::Drained);
        for (count, id) in ids.iter().enumerate() {
            ended.note_connection([Some(*id), None, None], Reason::Drained);
            let known: Vec<bool> = ids.iter().map(|id| over(&ended, *id)).collect();
            let expected: Vec<bool> = (0..9).map(|at| at <= count && at + 3 > count).collect();
            assert_eq!(known, expected);
        }
        let mut none = Ended::new(0);
        none.note_connection([Some(ids[0]), None, None], Reason::Drained);
        assert_eq!(none.missing(ids[0], Kind::Connection), VerbError::Stale);
    }

    #[test]
    fn connections_do_not_displace_the_end_of_a_link() {
        let (mut links, mut connections) = (Table::new(Kind::Link, 1), Table::new(Kind::Connection, 9));
        let (link, mut ended) = (links.insert(()).unwrap(), Ended::new(3));
        ended.note(link, Reason::LinkLost);
        for _ in 0..9 {
            ended.note_connection([connections.insert(()).ok(), None, None], Reason::Drained);
        }
        assert_eq!(ended.missing(link, Kind::Link), VerbError::Over(Reason::LinkLost));
        assert_eq!(ended.missing(link, Kind::Connection), VerbError::Invalid);
    }
}
