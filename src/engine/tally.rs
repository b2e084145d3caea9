//! Tallies: what the connections of a forward whose clients the peer accepts have added up to. Each connection adds its bytes
//! when it ends, so that no byte costs anything.

use crate::engine::core::Core;
use crate::types::id::Id;

/// The sums of one forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that are not over.
    pub active: usize,
    /// Connections that were refused, or whose dest could not be reached.
    pub refused: u64,
    /// Bytes of ended connections, from the source to the dest.
    pub sent: u64,
    /// Bytes of ended connections, from the dest to the source.
    pub received: u64,
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

    /// Adds the sums of a connection that is over to its listener or forward.
    pub(crate) fn end_tally(&mut self, origin: Id, [sent, received]: [u64; 2], is_refused: bool) {
        if let Some(listener) = self.listeners.get_mut(origin) {
            listener.active -= 1;
            listener.failed += u64::from(is_refused);
            listener.bytes = (listener.bytes.0 + sent, listener.bytes.1 + received);
        } else if let Some(tally) = self.tallies.get_mut(&origin) {
            tally.active = tally.active.saturating_sub(1);
            tally.refused += u64::from(is_refused);
            (tally.sent, tally.received) = (tally.sent + sent, tally.received + received);
        }
    }
}
