//! The phase of a session, and the causes of its end.
//!
//! ```text
//! Handshake --first subflow up--> Open <----both RESUME_STATEs done---- Resuming
//!    |                            | ^ \                                  ^   |
//!    |         last subflow gone  | | JOIN is accepted                   |   |
//!    |                            v |                                    |   |
//!    |                       Suspended --------RESUME is accepted--------+   |
//!    |                            |  ^-------------subflow gone--------------+
//!    +--------> Ended <-----------+     Open --close--> Closing --acked, or timeout--> Ended
//! ```

use crate::link::wire::code::Code;
use crate::link::wire::ids::{SubflowId, Time};

/// The phase of a session: see the diagram of the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Handshake,
    Open,
    Suspended { since: Time },
    Resuming(Resume),
    Closing { since: Time, code: Code, text: String },
    Ended { code: Code, sends_close: bool },
}

/// The cause of a session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// This end has closed or abandoned it.
    Local,
    /// The peer has closed it.
    Peer,
    /// The peer has violated the protocol and is told so.
    Violation,
}

/// The progress of the exchange of RESUME_STATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resume {
    /// The subflow of the exchange.
    pub(super) subflow: SubflowId,
    /// The slot of the next stream to send; `None` once the last frame was sent.
    pub(super) next: Option<usize>,
    /// True if the peer's last frame has arrived.
    pub(super) heard: bool,
    /// True if no other subflow was up since this one was dialed.
    pub(super) alone: bool,
}
