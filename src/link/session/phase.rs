//! How a session stands, and what ends it.
//!
//! ```text
//! Greeting --first subflow up--> Open <----both RESUME_STATEs done---- Resuming
//!    |                           | ^ \                                  ^   |
//!    |          last subflow gone| | a JOIN is taken                    |   |
//!    |                           v |                                    |   |
//!    |                          Parted --------RESUME is taken----------+   |
//!    |                           |  ^-------------subflow gone--------------+
//!    +--------> Ended <----------+     Open --close--> Closing --acked, or given up--> Ended
//! ```

use crate::link::wire::code::Code;
use crate::link::wire::ids::{SubflowId, Time};

/// How a session stands: see the module's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Open,
    Suspended { since: Time },
    Resuming(Resume),
    Closing { since: Time, code: Code, text: String },
    Ended { code: Code, sends_close: bool },
}

/// What brings a session to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// This end has closed it, or given it up.
    Local,
    /// The peer has said so.
    Peer,
    /// The peer has broken the protocol, and is to be told.
    Violation,
}

/// How far the exchange is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The subflow on which the states travel.
    pub(super) subflow: SubflowId,
    /// The slot of the first stream that has not been told of; nothing once the last frame has left.
    pub(super) next: Option<usize>,
    /// Whether the peer's last frame has come.
    pub(super) heard: bool,
    /// Whether no other subflow has been there since this one was dialled.
    pub(super) alone: bool,
}
