//! The errors of commands, and the violations of the protocol by the peer.

use crate::link::stream::recv::Breach;
use crate::link::wire::header::FrameError;

/// The reason why a command was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The session is over or being closed, or one end accepts no new streams.
    Closed,
    /// The peer's limits are unknown, because no subflow has been up.
    NotYet,
    /// The limit of streams, listeners or queued messages is reached.
    Limit,
    /// The peer has not acknowledged enough of the earlier OPENs: [`Event::Openable`](super::event::Event::Openable)
    /// tells when to try again.
    NotNow,
    /// The stream or listener does not exist, or this direction of the stream is over.
    Gone,
    /// An argument is too long.
    TooLong,
    /// The ids of this session are exhausted. A new session has new ones.
    Exhausted,
}

/// A violation of the protocol. [`Violation::Frame`] ends the subflow that it came on, the others end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are not a valid frame.
    Frame(FrameError),
    /// More bytes, streams, listeners or gaps than were allowed.
    Limit,
    /// An impossible stream id, or a change of a stream's final size.
    Stream,
    /// An acknowledgement of bytes that were never sent.
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
