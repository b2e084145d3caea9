//! The states of links, as enums for programs, with the words that status and log show.

use std::fmt;

/// The state of a link.
///
/// ```text
///   Connecting --first subflow--> Up <--> Suspended --session over--> Connecting (dialed by this node)
///                                  \______________________________--> Ended      (dialed by the peer, or closed)
///   Draining: the session of a peer that is about to stop, beside the one that is dialed for new streams
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LinkState {
    /// The link has no session: its first subflow is being dialed.
    Connecting,
    /// The session has a subflow.
    Up,
    /// The session has no subflow, and is kept for the hold time.
    Suspended,
    /// The peer is about to stop. Running streams go on; new ones use another session.
    Draining,
    /// The link is being closed.
    Ended,
}

impl LinkState {
    /// Returns the word of the state in status and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            LinkState::Connecting => "connecting",
            LinkState::Up => "up",
            LinkState::Suspended => "suspended",
            LinkState::Draining => "draining",
            LinkState::Ended => "ended",
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
