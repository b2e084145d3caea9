//! The events of a session for the application, and its statistics.

use bytes::Bytes;

use crate::link::wire::code::Code;
use crate::link::wire::ids::{StreamId, SubflowId};
use crate::link::wire::open::{Bound, Open};

/// An event for the application. Events are returned in the order in which they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream, which waits for `accept` or `refuse`.
    Opened {
        /// The stream.
        id: StreamId,
        /// The target.
        open: Open,
    },
    /// The peer's answer to an `open`. After a refusal the stream has no more events.
    OpenResult {
        /// The stream.
        id: StreamId,
        /// The answer.
        result: Bound,
    },
    /// There are bytes to take. Reported once until all are taken.
    Readable(StreamId),
    /// A stream whose write was refused or shortened has room again.
    Writable(StreamId),
    /// The stream has ended, and every byte has been taken.
    Fin(StreamId),
    /// The peer has reset the stream: bytes may be missing.
    Reset {
        /// The stream.
        id: StreamId,
        /// The reason.
        code: Code,
    },
    /// The session is over, but this stream is complete: everything that the peer sent has arrived, with its end, and
    /// the peer has everything that was sent to it, or has closed the session in order. The stream has no more events.
    Undelivered {
        /// The stream.
        id: StreamId,
        /// The bytes that were not taken, in order.
        bytes: Vec<Bytes>,
    },
    /// The peer takes no more bytes of this stream, so its sending half is over.
    Stopped {
        /// The stream.
        id: StreamId,
        /// The reason.
        code: Code,
    },
    /// The stream was removed.
    Gone(StreamId),
    /// An `open` that was refused with `NotNow` may be tried again.
    Openable,
    /// There are datagrams to take. Reported once until all are taken.
    Datagram(StreamId),
    /// The peer asks this end to listen and waits for `listen_result`.
    Listen {
        /// The peer's number of the listener, for `listener` in the streams that it accepts.
        id: u32,
        /// The address to listen on.
        open: Open,
    },
    /// The peer's answer to a `listen`.
    ListenResult {
        /// The listener.
        id: u32,
        /// The answer.
        result: Bound,
    },
    /// The peer ends its listener.
    Unlisten(u32),
    /// The peer has sent a frame for a stream that never existed. Reported once for each of the last 64 such streams.
    Stray(StreamId),
    /// A message for the user from the peer.
    Message(String),
    /// A subflow is live.
    SubflowUp(SubflowId),
    /// A subflow has left the session, and its carrier is to be closed.
    SubflowDown {
        /// The subflow.
        id: SubflowId,
        /// The reason. [`Code::Other`]: the node that answered does not know the session, and another subflow is live.
        code: Code,
    },
    /// A closing subflow has nothing in flight any more.
    SubflowDrained(SubflowId),
    /// The last subflow is gone. The session waits for another.
    Suspended,
    /// A suspended session has a subflow again, and nothing was lost.
    Resumed,
    /// The peer accepts no new streams.
    GoAway {
        /// The reason.
        code: Code,
        /// The peer's message.
        text: String,
    },
    /// The session is over. The events of its remaining streams precede this one.
    Ended {
        /// The reason.
        code: Code,
        /// The message of the end that closed the session.
        text: String,
    },
}

/// The progress of a stream at one end, in offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The peer has acknowledged every byte below. `None` after a reset.
    pub acked: Option<u64>,
    /// The first byte that was never sent.
    pub sent: u64,
    /// Every byte below has been received. `None` if the receiving half is over or was stopped.
    pub received: Option<u64>,
    /// The highest received offset.
    pub highest: u64,
}

/// Counts of round trips by their length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// The round trips up to each bound of [`RoundTrips::BOUNDS_US`] and above the bound before it; the last are above all.
    pub counts: [u64; RoundTrips::BOUNDS_US.len() + 1],
    /// The sum, in microseconds.
    pub sum_us: u64,
}

impl RoundTrips {
    /// The upper bounds in microseconds, each included.
    pub const BOUNDS_US: [u64; 14] = [
        500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
        10_000_000,
    ];

    pub(crate) fn note(&mut self, us: u64) {
        self.counts[RoundTrips::BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

/// Statistics of a session since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Round trips that PONGs measured.
    pub round_trips: RoundTrips,
    /// Frames sent and received.
    pub frames: [u64; 2],
    /// Payload bytes of DATA frames sent and received, including repetitions.
    pub data_bytes: [u64; 2],
    /// Payload bytes that were sent again.
    pub resent_bytes: u64,
    /// Payload bytes that were sent on a second subflow without a loss.
    pub reinjected_bytes: u64,
    /// Received payload bytes that had arrived before.
    pub repeated_bytes: u64,
    /// Number of times that the session was suspended and resumed.
    pub resumes: u64,
    /// Number of times that a subflow became suspect.
    pub suspicions: u64,
    /// Number of times that a subflow that carried was left, because others deliver sooner.
    pub switches: u64,
    /// Number of times that late frames of a subflow were reinjected.
    pub late_reinjections: u64,
    /// Number of times that lanes stalled while others of their subflow went on.
    pub stalled_lanes: u64,
    /// Number of times that a stream with credit waited for its quota, because its reader stood still.
    pub quota_waits: u64,
    /// Frames for streams that are over.
    pub late_frames: u64,
    /// Frames for streams that never existed.
    pub stray_frames: u64,
    /// Streams that were aborted because their OPEN did not arrive in time.
    pub unopened_given_up: u64,
    /// Number of times that received bytes were not a valid frame; each ended a subflow.
    pub framing_errors: u64,
    /// Number of times that a stream was considered for the next frame.
    pub turns: u64,
}
