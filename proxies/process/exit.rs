//! The exit codes of the process, and the error of a command.

use seaprox::auth::KeysError;
use seaprox::config::{ApplyError, ApplyErrors, ApplyFailure, MakeError, Place};

use crate::cli::{Parsed, UsageError, modes_hint};
use crate::{SharedSecretError, UsersError};

/// The exit codes beside 0 (a clean stop). The numbers are those of sysexits(3) where it defines one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Failure while running.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The peer or an address is not available.
    Unavailable = 69,
    /// The link is lost, and the user asked to exit in this case.
    LinkLost = 75,
    /// A key is rejected, or does not match.
    NoPermission = 77,
    /// A configuration file cannot be used.
    Config = 78,
}

/// The error of a command: the text for stderr, and the exit code.
#[derive(Debug)]
pub struct Failed {
    /// The exit code of the process.
    pub exit: Exit,
    /// The text for stderr.
    pub text: String,
}

impl Failed {
    /// Creates an error.
    pub fn new(exit: Exit, text: impl Into<String>) -> Failed {
        Failed { exit, text: text.into() }
    }

    /// Creates the error for a part of the configuration that cannot be made.
    pub fn made(parsed: &Parsed, error: MakeError) -> Failed {
        if let Some(UsersError(error)) = error.downcast_ref() {
            return Failed::unusable(&parsed.error("--users").to_string(), error);
        }
        match error.downcast_ref() {
            Some(error) => Failed::unusable("seaprox", error),
            None if error.is::<SharedSecretError>() => Failed::new(Exit::Config, format!("seaprox: {error}")),
            None => Failed::new(Exit::Failure, format!("seaprox: {error}")),
        }
    }

    /// Creates the error for a configuration that cannot be applied: a line for each error, with the exit code of the first.
    /// `context`, if there is one, returns what stands in front of an error about a place.
    pub fn applied(parsed: &Parsed, errors: ApplyErrors, context: Option<&dyn Fn(&Place) -> String>) -> Failed {
        let all = errors.errors.into_iter().map(|error| {
            let context = context.map(|context| context(&error.place));
            let Failed { exit, text } = Failed::not_applied(parsed, error);
            let Some(context) = context else { return Failed { exit, text } };
            let rest =
                text.strip_prefix(&format!("seaprox {}", parsed.command().name())).or(text.strip_prefix("seaprox"));
            let text = rest.map_or_else(|| text.clone(), |rest| format!("{context}{rest}"));
            Failed { exit, text }
        });
        all.reduce(|first, next| Failed { text: format!("{}\n{}", first.text, next.text), ..first })
            .unwrap_or_else(|| Failed::new(Exit::Failure, "seaprox: the configuration cannot be applied"))
    }

    fn not_applied(parsed: &Parsed, error: ApplyError) -> Failed {
        match error.failure {
            ApplyFailure::Make(error) => Failed::made(parsed, error),
            ApplyFailure::Refused(problem) => {
                Failed::new(Exit::Config, parsed.error(parsed.problem_text(&problem)).to_string())
            }
            failure @ ApplyFailure::Bind(..) => Failed::new(Exit::Unavailable, format!("seaprox: {failure}")),
            failure => Failed::new(Exit::Failure, format!("seaprox: {failure}")),
        }
    }

    /// Creates the error for a configuration file that cannot be used; `context` precedes the description of the error.
    pub fn unusable(context: &str, error: &KeysError) -> Failed {
        Failed::new(Exit::Config, format!("{context}: {error}{}", modes_hint(error)))
    }
}

impl From<UsageError> for Failed {
    fn from(error: UsageError) -> Failed {
        Failed::new(Exit::Usage, error.to_string())
    }
}
