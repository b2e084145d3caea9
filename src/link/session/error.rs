//! Why a command of the application is refused, and how a peer breaks the protocol.

use crate::link::stream::recv::Breach;
use crate::link::wire::header::FrameError;

/// Why a command was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The session is over, or is being closed, or one end wants no new streams.
    Closed,
    /// The peer has not said yet what it takes: no subflow has been up.
    NotYet,
    /// The limit of streams, of listeners, or of what waits is reached.
    Limit,
    /// The peer has yet to acknowledge the streams that were opened before: [`Event::Openable`] says when to try again.
    NotNow,
    /// There is no such stream or listener, or not any more, or this side of it is over.
    Gone,
    /// An argument is too long.
    TooLong,
    /// The ids of this session are used up; a new session has new ones.
    Exhausted,
}

/// How the peer broke the protocol. [`Violation::Frame`] concerns the subflow that it came on, the others the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are no frame.
    Frame(FrameError),
    /// More than it was allowed to send: bytes, streams, listeners or gaps.
    Limit,
    /// A stream that cannot be, or a stream's end that moved.
    Stream,
    /// An acknowledgement of what was never sent.
    Ack,
}

impl From<FrameError> for Violation {
    fn from(error: FrameError) -> Violation {
        Violation::Frame(error)
    }
}

impl From<Breach> for Violation {
    fn from(breach: Breach) -> Violation {
        match breach {
            Breach::Credit => Violation::Limit,
            Breach::FinalSize => Violation::Stream,
        }
    }
}
