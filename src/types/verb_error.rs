//! The errors of verbs: one closed set, with numbers for callers in other languages.

use std::fmt;
use std::io;

use crate::types::proto::Unsupported;
use crate::types::reason::Reason;

/// The answer of a verb that could not be done.
///
/// Each error has a number, as errno has on Linux, negated, on every system; the numbers never change.
///
/// | error | number | name on Linux |
/// | --- | --- | --- |
/// | `Stale` | -53 | `EBADR` |
/// | `Over` | -108 | `ESHUTDOWN` |
/// | `Full` | -28 | `ENOSPC` |
/// | `Already` | -114 | `EALREADY` |
/// | `Invalid` | -22 | `EINVAL` |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerbError {
    /// The id names no record: it was never given out, or its record is gone and forgotten.
    Stale,
    /// The record is over, for this reason. Only the last records that ended answer this; earlier ones are stale.
    Over(Reason),
    /// A table or a queue has no room. Trying again later may succeed.
    Full,
    /// The thing is there or done already.
    Already,
    /// The parameter cannot be meant: an id of another kind, or a value out of its range.
    Invalid,
}

impl VerbError {
    /// Returns the number of the error, which is negative. See the table above.
    pub const fn code(self) -> i32 {
        match self {
            VerbError::Stale => -53,
            VerbError::Over(_) => -108,
            VerbError::Full => -28,
            VerbError::Already => -114,
            VerbError::Invalid => -22,
        }
    }

    /// Returns the error in one lowercase word. The reason of [`VerbError::Over`] is not part of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            VerbError::Stale => "stale",
            VerbError::Over(_) => "over",
            VerbError::Full => "full",
            VerbError::Already => "already",
            VerbError::Invalid => "invalid",
        }
    }
}

impl fmt::Display for VerbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerbError::Stale => f.write_str("the id names nothing"),
            VerbError::Over(reason) => write!(f, "it is over: {reason}"),
            VerbError::Full => f.write_str("there is no room"),
            VerbError::Already => f.write_str("it is there already"),
            VerbError::Invalid => f.write_str("the parameter is invalid"),
        }
    }
}

impl std::error::Error for VerbError {}

impl From<Unsupported> for VerbError {
    fn from(_: Unsupported) -> VerbError {
        VerbError::Invalid
    }
}

impl From<VerbError> for io::Error {
    fn from(error: VerbError) -> io::Error {
        let kind = match error {
            VerbError::Stale => io::ErrorKind::NotFound,
            VerbError::Over(_) => io::ErrorKind::NotConnected,
            VerbError::Already => io::ErrorKind::AlreadyExists,
            VerbError::Invalid => io::ErrorKind::InvalidInput,
            VerbError::Full => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_error_has_its_promised_number() {
        let over = VerbError::Over(Reason::IdleTimeout);
        let all = [VerbError::Stale, over, VerbError::Full, VerbError::Already, VerbError::Invalid];
        assert_eq!(all.map(VerbError::code), [-53, -108, -28, -114, -22]);
        assert_eq!(all.map(VerbError::as_str), ["stale", "over", "full", "already", "invalid"]);
        assert_eq!(over.to_string(), "it is over: idle_timeout");
    }
}
