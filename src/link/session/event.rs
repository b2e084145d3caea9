//! What a session tells the application, and what it counts.

use bytes::Bytes;

use crate::link::wire::code::Code;
use crate::link::wire::ids::{StreamId, SubflowId};
use crate::link::wire::open::{Bound, Open};

/// Something that the application has to know. Events come in the order in which things happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a stream; it waits for `accept` or `refuse`.
    Opened {
        /// The stream.
        id: StreamId,
        /// What it is for.
        open: Open,
    },
    /// The peer's answer to an `open`. After a refusal nothing more is said of the stream.
    OpenResult {
        /// The stream.
        id: StreamId,
        /// The answer.
        result: Bound,
    },
    /// There are bytes to take. Said once until they are all taken.
    Readable(StreamId),
    /// A write that was cut short can go on.
    Writable(StreamId),
    /// Every byte has been taken and there will be no more.
    Fin(StreamId),
    /// The stream ended before its time: bytes may be missing.
    Reset {
        /// The stream.
        id: StreamId,
        /// Why.
        code: Code,
    },
    /// The session is over, but not this stream: the rest of what the peer sent has arrived, with its end, and the peer
    /// has, or by its own word wants no more than, what was sent to it. Nothing more is said of the stream.
    Undelivered {
        /// The stream.
        id: StreamId,
        /// What has not been taken yet, in order.
        bytes: Vec<Bytes>,
    },
    /// The peer takes no more bytes of this stream; writing is over.
    Stopped {
        /// The stream.
        id: StreamId,
        /// Why.
        code: Code,
    },
    /// Nothing is left of the stream.
    Gone(StreamId),
    /// An `open` that was refused for now may be tried again.
    Openable,
    /// There are datagrams to take. Said once until they are all taken.
    Datagram(StreamId),
    /// The peer asks this end to listen; it waits for `listen_result`.
    Listen {
        /// What the peer calls the listener: it goes into the `listener` of the streams that come from it.
        id: u32,
        /// Where to listen.
        open: Open,
    },
    /// The peer's answer to a `listen`.
    ListenResult {
        /// The listener.
        id: u32,
        /// The answer.
        result: Bound,
    },
    /// The peer's listener is to go.
    Unlisten(u32),
    /// Words from the peer.
    Message(String),
    /// A subflow carries frames.
    SubflowUp(SubflowId),
    /// A subflow is no longer part of the session, and its carrier should be closed.
    SubflowDown {
        /// The subflow.
        id: SubflowId,
        /// Why. [`Code::Other`]: the node that answered does not know the session, and another subflow is there.
        code: Code,
    },
    /// A closing subflow has nothing in flight any more.
    SubflowDrained(SubflowId),
    /// The last subflow is gone. The session waits for another.
    Suspended,
    /// There is a subflow again, and nothing was lost.
    Resumed,
    /// The peer takes no new streams.
    GoAway {
        /// Why.
        code: Code,
        /// Words of the peer's.
        text: String,
    },
    /// The session is over. Streams that were not, have been told so before.
    Ended {
        /// Why.
        code: Code,
        /// Words of the peer's, if it was the peer.
        text: String,
    },
}

/// How far a stream is at one end, in offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Every byte sent below is known to be at the peer. Nothing, if sending was given up.
    pub acked: Option<u64>,
    /// The first byte that has never been sent.
    pub sent: u64,
    /// Every byte below has been received. Nothing, if bytes are not wanted any more, or there will be none.
    pub received: Option<u64>,
    /// The highest offset that has been seen of the peer.
    pub highest: u64,
}

/// Counts of a session, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames sent and received.
    pub frames: [u64; 2],
    /// Payload bytes of DATA frames sent and received, each time that they were.
    pub data_bytes: [u64; 2],
    /// Payload bytes that were sent again.
    pub resent_bytes: u64,
    /// Of those, what was sent twice without a loss, to fill a gap sooner.
    pub reinjected_bytes: u64,
    /// Payload bytes that had arrived before.
    pub repeated_bytes: u64,
    /// Times that the session had no subflow, and had one again.
    pub resumes: u64,
    /// Subflows that stopped acknowledging for longer than was expected.
    pub suspicions: u64,
    /// Times that frames were late on a subflow, and went over another too.
    pub late_reinjections: u64,
    /// Times that a stream with credit waited, because its reader stood still and had its share of the session's
    /// memory.
    pub quota_waits: u64,
    /// Frames for streams that are over.
    pub late_frames: u64,
    /// Frames for streams that never were.
    pub stray_frames: u64,
    /// Streams that were given up because their OPEN did not come in time.
    pub unopened_given_up: u64,
    /// Times that bytes were no frame; each ended the subflow that brought them.
    pub framing_errors: u64,
}
