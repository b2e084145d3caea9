//! The errors of pipes.

use std::fmt;
use std::io;

use crate::types::reason::Reason;

/// The reason why a call on a pipe did nothing, or why a pipe is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PipeError {
    /// There is no room, or there are no bytes, now. This breaks nothing.
    WouldBlock,
    /// This end has called [`finish`](super::Pipe::finish), and sends no more. This breaks nothing.
    Finished,
    /// The peer has reset the pipe, or is gone.
    Reset,
    /// This end has called [`abort`](super::Pipe::abort).
    Aborted,
    /// The FIN of the pipe beneath came within a record or a datagram, so bytes are missing.
    Truncated,
    /// A datagram, or the bytes of an atomic send, are longer than permitted. A datagram breaks the pipe, an atomic send
    /// does not.
    TooLong {
        /// The length in bytes.
        bytes: usize,
        /// The longest permitted length in bytes.
        limit: usize,
    },
    /// The peer has sent a length of a datagram that is 0, over-long or too large for its encoding.
    InvalidLength,
    /// TLS has failed: a key was refused, or a record was altered. The text says which.
    Tls(Box<str>),
    /// The stream was refused, or its connection has ended with this reason.
    Ended(Reason),
    /// The system has failed with an error of this kind.
    System(io::ErrorKind),
}

impl PipeError {
    /// Returns true if the call may be repeated later, and the pipe is not broken.
    pub const fn is_would_block(&self) -> bool {
        matches!(self, PipeError::WouldBlock)
    }
}

impl fmt::Display for PipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PipeError::WouldBlock => f.write_str("the pipe is not ready for this now"),
            PipeError::Finished => f.write_str("this end has finished sending"),
            PipeError::Reset => f.write_str("the peer has reset the pipe"),
            PipeError::Aborted => f.write_str("this end has aborted the pipe"),
            PipeError::Truncated => f.write_str("the pipe ended within a record or a datagram"),
            PipeError::TooLong { bytes, limit } => write!(f, "{bytes} bytes at once, and the limit is {limit}"),
            PipeError::InvalidLength => f.write_str("the length of a datagram is not valid"),
            PipeError::Tls(why) => write!(f, "TLS: {why}"),
            PipeError::Ended(reason) => write!(f, "the stream has ended: {reason}"),
            PipeError::System(kind) => write!(f, "the system has failed: {kind}"),
        }
    }
}

impl std::error::Error for PipeError {}

impl From<io::Error> for PipeError {
    /// Maps an error of the system. An end of the peer that is not in order is a reset, as which it is seen by TCP.
    fn from(error: io::Error) -> PipeError {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::WouldBlock => PipeError::WouldBlock,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => PipeError::Reset,
            kind => PipeError::System(kind),
        }
    }
}
