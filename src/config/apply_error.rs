//! The errors of applying a configuration: the place of each in the tree, and what has failed there.

use std::error::Error;
use std::fmt;
use std::io;

use super::maker::MakeError;
use super::place::Place;
use super::problem::Problem;
use crate::types::address::Bind;
use crate::types::verb_error::VerbError;

/// All errors of applying a configuration.
#[derive(Debug)]
pub struct ApplyErrors {
    /// The errors in the order in which they were found; at least one.
    pub errors: Vec<ApplyError>,
    /// True if nothing has changed. Otherwise all changes were made that the errors are not about.
    pub is_unchanged: bool,
}

/// An error of applying a configuration.
#[derive(Debug)]
pub struct ApplyError {
    /// The record that cannot be applied.
    pub place: Place,
    /// The failure.
    pub failure: ApplyFailure,
}

/// A failure of applying a record.
#[derive(Debug)]
#[non_exhaustive]
pub enum ApplyFailure {
    /// The configuration has problems; at least one.
    Invalid(Vec<Problem>),
    /// The maker cannot make a part.
    Make(MakeError),
    /// An address cannot be bound.
    Bind(Bind, io::Error),
    /// This system does not have an option, or this process may not use it.
    Refused(Problem),
    /// The system has refused something else.
    System(io::Error),
    /// A verb of a loop has failed.
    Verb(VerbError),
    /// The link with this name could not be dialed, so no client can go over it.
    NoLink(String),
    /// A loop does not answer, or has ended. It does not make this change later.
    NoAnswer,
    /// The configuration has changed since the change was prepared.
    Outdated,
    /// A loop has begun to make this change, and does not end it: the state of the record is unknown.
    Unknown,
}

impl ApplyError {
    pub(super) fn new(place: Place, failure: ApplyFailure) -> ApplyError {
        ApplyError { place, failure }
    }

    /// Returns a function that says that a part of this record cannot be made.
    pub(super) fn made(place: Place) -> impl FnOnce(MakeError) -> ApplyError {
        |error| ApplyError::new(place, ApplyFailure::Make(error))
    }
}

impl ApplyErrors {
    /// Returns errors before which nothing has changed.
    pub(super) fn before(errors: Vec<ApplyError>) -> ApplyErrors {
        ApplyErrors { errors, is_unchanged: true }
    }

    /// Returns the first error.
    pub fn first(&self) -> &ApplyError {
        &self.errors[0]
    }
}

impl From<ApplyError> for ApplyErrors {
    fn from(error: ApplyError) -> ApplyErrors {
        ApplyErrors::before(vec![error])
    }
}

/// Writes a line for each error.
impl fmt::Display for ApplyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(ApplyError::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Error for ApplyErrors {}

impl fmt::Display for ApplyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplyFailure::Invalid(problems) => {
                let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
            ApplyFailure::Refused(problem) => problem.fmt(f),
            ApplyFailure::Make(error) => error.fmt(f),
            ApplyFailure::Bind(addr, error) => write!(f, "cannot listen on {addr}: {error}"),
            ApplyFailure::System(error) => error.fmt(f),
            ApplyFailure::Verb(error) => error.fmt(f),
            ApplyFailure::NoLink(link) => write!(f, "the link {link:?} could not be dialed"),
            ApplyFailure::NoAnswer => f.write_str("a loop does not answer"),
            ApplyFailure::Outdated => f.write_str("the configuration has changed since this change was prepared"),
            ApplyFailure::Unknown => f.write_str("a loop does not end this change, so that its state is unknown"),
        }
    }
}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            // Each problem names its place.
            ApplyFailure::Invalid(_) | ApplyFailure::Refused(_) => self.failure.fmt(f),
            failure => write!(f, "{}: {failure}", self.place),
        }
    }
}

impl Error for ApplyError {}
