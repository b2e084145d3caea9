//! Tallies: the sums over the connections of each listener, and of each forward whose clients the peer accepts.
//!
//! A byte that is relayed counts in its half alone, so that it costs nothing more. Each connection adds its bytes to the sums
//! when it ends, and before that whenever somebody wants to read the sums: [`Core::settle`].

use std::collections::HashMap;

use crate::engine::core::Core;
use crate::relay::connection::{Connection, Stage};
use crate::relay::side::Role;
use crate::types::id::{Id, Kind};
use crate::types::reason::Reason;

/// The number of connections at each stage, by their listener.
pub type Stages = HashMap<(Option<Id>, Stage), usize>;

/// The sums of one forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that are not over.
    pub active: usize,
    /// Connections that were refused, or whose dest could not be reached.
    pub refused: u64,
    /// Settled bytes from the sources to the dests, and back.
    pub bytes: (u64, u64),
    /// Settled datagrams from the sources to the dests, and back.
    pub datagrams: (u64, u64),
}

impl Core {
    /// Counts a connection to the forward that its source came from.
    pub(crate) fn begin_tally(&mut self, forward: Id, connection: Id) {
        let Some(record) = self.connections.get_mut(connection) else { return };
        record.listener = Some(forward);
        if let Some(tally) = self.tallies.get_mut(&forward) {
            tally.opened += 1;
            tally.active += 1;
        }
    }

    /// Adds the bytes that connections have relayed since the last call to the sums of the loop and of their listeners, and then
    /// the datagrams of flows to those of their listeners: of at most `max` records behind `after`, or from the first connection
    /// on. Returns the last of them, and the number of connections at each stage; none if there are no more.
    ///
    /// Several calls for many connections delay the loop less than one call.
    pub fn settle(&mut self, after: Option<Id>, max: usize) -> Option<(Id, Stages)> {
        let from = after.map_or(0, |id| id.index() + 1);
        if after.is_some_and(|after| after.kind() == Kind::Flow) {
            return self.settle_flows(from, max).map(|last| (last, Stages::new()));
        }
        let ids: Vec<Id> = self.connections.starting_at(from).take(max).map(|(id, _)| id).collect();
        let mut stages = Stages::new();
        for id in &ids {
            let Some(record) = self.connections.get_mut(*id) else { continue };
            let (listener, stage) = (record.listener, record.stage);
            let moved = take_unsettled(record);
            *stages.entry((listener, stage)).or_default() += 1;
            self.add_bytes(listener, moved);
        }
        match ids.last() {
            Some(last) => Some((*last, stages)),
            None => self.settle_flows(0, max).map(|last| (last, stages)),
        }
    }

    /// Adds the bytes that a connection has relayed since they were settled.
    pub(crate) fn settle_one(&mut self, connection: &mut Connection) {
        let moved = take_unsettled(connection);
        self.add_bytes(connection.listener, moved);
    }

    fn add_bytes(&mut self, origin: Option<Id>, [sent, received]: [u64; 2]) {
        self.stats.bytes_sent += sent;
        self.stats.bytes_received += received;
        let Some(origin) = origin else { return };
        if let Some(listener) = self.listeners.get_mut(origin) {
            listener.bytes = (listener.bytes.0 + sent, listener.bytes.1 + received);
        } else if let Some(tally) = self.tallies.get_mut(&origin) {
            tally.bytes = (tally.bytes.0 + sent, tally.bytes.1 + received);
        }
    }

    /// Counts the end of a connection at its listener or forward.
    pub(crate) fn end_tally(&mut self, origin: Id, reason: Reason, is_refused: bool) {
        if let Some(listener) = self.listeners.get_mut(origin) {
            listener.active -= 1;
            listener.failed += u64::from(is_refused);
            listener.closed[reason as usize] += 1;
        } else if let Some(tally) = self.tallies.get_mut(&origin) {
            tally.active = tally.active.saturating_sub(1);
            tally.refused += u64::from(is_refused);
        }
    }
}

/// Returns the bytes to the dest and from the dest that are not settled yet, and settles them.
fn take_unsettled(connection: &mut Connection) -> [u64; 2] {
    let now = [Role::Source, Role::Dest].map(|role| connection.halves[role.out()].bytes);
    let before = std::mem::replace(&mut connection.settled, now);
    [now[0].saturating_sub(before[0]), now[1].saturating_sub(before[1])]
}
