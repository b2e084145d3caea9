//! The counts of an object: numbers with their names, as scripts see them.

use std::sync::Arc;

use seaprox::Snapshot;
use seaprox::node::{ForwardStatus, LinkStatus};

/// Counts, each with its name, in the order in which they are printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Arc<[(&'static str, u64)]>);

impl Counts {
    /// Creates counts.
    pub fn new(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Counts {
        Counts(counts.into_iter().collect())
    }

    /// Iterates over the counts and their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Returns the counts of a tunnel: what its clients have sent and received, without any framing.
    pub fn of_forward(forward: &ForwardStatus) -> Counts {
        Counts::new([
            ("bytes_sent", forward.bytes.0),
            ("bytes_received", forward.bytes.1),
            ("datagrams_sent", forward.datagrams.0),
            ("datagrams_received", forward.datagrams.1),
            ("opened", forward.opened),
            ("active", forward.active as u64),
            ("refused", forward.refused),
        ])
    }

    /// Returns the counts of the present session of a link.
    pub fn of_link(link: &LinkStatus) -> Counts {
        let stats = &link.stats;
        let wire = |bytes: fn(&(u64, u64)) -> u64| link.subflows.iter().map(|subflow| bytes(&subflow.bytes)).sum();
        let parts = LinkParts {
            sent: stats.bytes_sent,
            resent: stats.resent_bytes + stats.reinjected_bytes,
            received: stats.bytes_received,
            repeated: stats.repeated_bytes,
            frames: (stats.frames_sent, stats.frames_received),
            wire: (wire(|bytes| bytes.0), wire(|bytes| bytes.1)),
            streams: link.streams as u64,
        };
        Counts::of_parts(&parts)
    }

    /// Returns the counts of a link from its numbers.
    pub fn of_parts(parts: &LinkParts) -> Counts {
        Counts::new([
            ("bytes_sent", parts.sent.saturating_sub(parts.resent)),
            ("bytes_received", parts.received.saturating_sub(parts.repeated)),
            ("repeated_bytes_sent", parts.resent),
            ("repeated_bytes_received", parts.repeated),
            ("frames_sent", parts.frames.0),
            ("frames_received", parts.frames.1),
            ("wire_bytes_sent", parts.wire.0),
            ("wire_bytes_received", parts.wire.1),
            ("streams", parts.streams),
        ])
    }

    /// Returns the counts of a process.
    pub fn of_process(snapshot: &Snapshot) -> Counts {
        let (stats, usage) = (&snapshot.stats, &snapshot.usage);
        Counts::new([
            ("bytes_sent", stats.bytes_sent + stats.datagram_bytes_sent),
            ("bytes_received", stats.bytes_received + stats.datagram_bytes_received),
            ("datagrams_sent", stats.datagrams_sent),
            ("datagrams_received", stats.datagrams_received),
            ("opened", stats.opened + stats.flows_opened),
            ("active", (usage.connections + usage.flows) as u64),
        ])
    }
}

/// The numbers of a link.
pub struct LinkParts {
    /// Bytes of payload that were sent, repetitions included.
    pub sent: u64,
    /// Bytes of payload that were sent again.
    pub resent: u64,
    /// Bytes of payload that were received, repetitions included.
    pub received: u64,
    /// Bytes of payload that had arrived before.
    pub repeated: u64,
    /// Frames sent and received.
    pub frames: (u64, u64),
    /// Bytes of the subflows, TLS included.
    pub wire: (u64, u64),
    /// Open streams.
    pub streams: u64,
}
