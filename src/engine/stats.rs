//! Counters of one loop.

use crate::types::reason::Reason;

/// Counts since the start of the loop.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Connections accepted or adopted.
    pub opened: u64,
    /// Connections that are over, by reason; the index is the position in [`Reason::ALL`].
    pub closed: [u64; Reason::ALL.len()],
    /// Failed connects to dests, by reason.
    pub connect_failures: [u64; Reason::ALL.len()],
    /// Bytes delivered to dests, of connections that are over.
    pub bytes_sent: u64,
    /// Bytes received from dests, of connections that are over; replies of handlers to sources do not count.
    pub bytes_received: u64,
    /// Names that the workers were asked to look up.
    pub lookups: u64,
    /// Events and answers for records that are gone. They are harmless.
    pub stale: u64,
    /// Number of times that a half found no free block.
    pub block_waits: u64,
    /// Number of times that accepting paused at the limit of connections.
    pub limit_pauses: u64,
    /// Number of times that accepting or connecting paused for lack of descriptors.
    pub descriptor_pauses: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Connections to listeners for links that were closed at the limit of unauthenticated peers.
    pub unauthenticated_refused: u64,
    /// Connections to listeners for links whose peer did not authenticate.
    pub unauthenticated_failed: u64,
    /// Streams that a link's peer tried to open and this node refused.
    pub streams_refused: u64,
    /// Clients that were closed because their network had reached its limit of connections.
    pub clients_refused: u64,
    /// OPENs, LISTENs and RESETs of peers that were processed.
    pub peer_requests: u64,
    /// Turns of the loop.
    pub turns: u64,
}

impl Stats {
    /// Returns the number of connections that are over.
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
