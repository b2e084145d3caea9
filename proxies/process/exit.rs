//! The exit codes of the process, and a command that failed.

use seaprox::auth::KeysError;

use crate::cli::UsageError;

/// How the process ends, beside 0 (a clean stop). The numbers are those of sysexits(3) where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Failure while running.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The peer or an address could not be had.
    Unavailable = 69,
    /// The link is lost, and the user asked to end then.
    LinkLost = 75,
    /// A key is rejected or is not the right one.
    NoPermission = 77,
    /// A file that configures the process cannot be used.
    Config = 78,
}

/// A command that came to nothing: what to say, and how to end.
#[derive(Debug)]
pub struct Failed {
    /// The code of the process.
    pub exit: Exit,
    /// What is said on stderr.
    pub text: String,
}

impl Failed {
    /// A failure with one line for stderr.
    pub fn new(exit: Exit, text: impl Into<String>) -> Failed {
        Failed { exit, text: text.into() }
    }

    /// A file that cannot be used; `what` stands before what is wrong with it.
    pub fn unusable(what: &str, error: &KeysError) -> Failed {
        Failed::new(Exit::Config, format!("{what}: {error}{}", hint(error)))
    }
}

/// Hint how to use a file whose owner or mode is wrong.
pub fn hint(error: &KeysError) -> &'static str {
    if error.is_about_modes() { " (or --no-strict-modes, if you trust them)" } else { "" }
}

impl From<UsageError> for Failed {
    fn from(error: UsageError) -> Failed {
        Failed::new(Exit::Usage, error.to_string())
    }
}
