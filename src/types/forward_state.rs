//! The state of a forward, with the words that status and log show.

use std::fmt;

/// The state of a forward.
///
/// ```text
///   local:   Listening ----------------------------------> Closed
///   remote:  Waiting --peer listens--> Listening --> Closed
///              ^  \--peer refuses--> Failed --again--/
///              +---- the session is over ----/
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ForwardState {
    /// The peer has not answered yet, or the link is not up.
    Waiting,
    /// The address is bound, and clients are accepted.
    Listening,
    /// The peer does not listen; another request follows.
    Failed,
    /// The forward was closed, or its link has ended.
    Closed,
}

impl ForwardState {
    /// Returns the word of the state in status and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            ForwardState::Waiting => "waiting",
            ForwardState::Listening => "listening",
            ForwardState::Failed => "failed",
            ForwardState::Closed => "closed",
        }
    }
}

impl fmt::Display for ForwardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
