//! Counters of one loop.

use crate::types::reason::Reason;

/// Counts since the loop was born.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted or adopted.
    pub opened: u64,
    /// Connections that are over, by reason; the index is the place in [`Reason::ALL`].
    pub closed: [u64; Reason::ALL.len()],
    /// Dests that could not be connected, by reason.
    pub connect_failures: [u64; Reason::ALL.len()],
    /// Bytes delivered to dests, of connections that are over.
    pub bytes_sent: u64,
    /// Bytes that have come from dests, of connections that are over; replies of handlers to sources are not among them.
    pub bytes_received: u64,
    /// Names that workers were asked for.
    pub lookups: u64,
    /// Events and answers for what is not there any more. Harmless.
    pub stale: u64,
    /// Times that a half found no block.
    pub block_waits: u64,
    /// Times that accepting paused at the limit of connections.
    pub limit_pauses: u64,
    /// Times that accepting or connecting paused for want of descriptors.
    pub descriptor_pauses: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Those who came to a listener for links and were turned away at its limit.
    pub unauthenticated_refused: u64,
    /// Those who came to a listener for links and did not prove who they are.
    pub unauthenticated_failed: u64,
    /// Streams that a link's peer wanted opened, and was refused.
    pub streams_refused: u64,
    /// Clients that were closed because their network had as many connections as it may have.
    pub clients_refused: u64,
    /// OPENs, LISTENs and RESETs of peers that were acted on.
    pub peer_requests: u64,
    /// Passes of the loop.
    pub turns: u64,
}

impl Stats {
    /// Connections that are over.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }

    /// Adds the counts of another loop.
    pub fn add(&mut self, other: &Stats) {
        for (mine, theirs) in self.closed.iter_mut().zip(other.closed) {
            *mine += theirs;
        }
        for (mine, theirs) in self.connect_failures.iter_mut().zip(other.connect_failures) {
            *mine += theirs;
        }
        self.opened += other.opened;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.lookups += other.lookups;
        self.stale += other.stale;
        self.block_waits += other.block_waits;
        self.limit_pauses += other.limit_pauses;
        self.descriptor_pauses += other.descriptor_pauses;
        self.panics += other.panics;
        self.unauthenticated_refused += other.unauthenticated_refused;
        self.unauthenticated_failed += other.unauthenticated_failed;
        self.streams_refused += other.streams_refused;
        self.clients_refused += other.clients_refused;
        self.peer_requests += other.peer_requests;
        self.turns += other.turns;
    }
}
