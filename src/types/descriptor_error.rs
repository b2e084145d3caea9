//! The errors of verbs that take a descriptor.

use std::{fmt, io};

use crate::types::verb_error::VerbError;

/// The answer of a verb that could not use a descriptor.
#[derive(Debug)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The verb itself could not be done: a table is full, or an id is stale.
    Verb(VerbError),
    /// The descriptor is of a kind that cannot be used so. The text says why.
    Unsuitable(&'static str),
    /// The system refused.
    System(io::Error),
}

impl DescriptorError {
    /// Returns a negative number, as [`VerbError::code`] does: that of the verb's error, of an invalid parameter, or the
    /// negated error number of the system.
    pub fn code(&self) -> i32 {
        match self {
            DescriptorError::Verb(error) => error.code(),
            DescriptorError::Unsuitable(_) => VerbError::Invalid.code(),
            DescriptorError::System(error) => error.raw_os_error().map_or(VerbError::Invalid.code(), |code| -code),
        }
    }
}

impl From<VerbError> for DescriptorError {
    fn from(error: VerbError) -> DescriptorError {
        DescriptorError::Verb(error)
    }
}

impl From<io::Error> for DescriptorError {
    fn from(error: io::Error) -> DescriptorError {
        DescriptorError::System(error)
    }
}

impl From<DescriptorError> for io::Error {
    fn from(error: DescriptorError) -> io::Error {
        match error {
            DescriptorError::Verb(error) => error.into(),
            DescriptorError::Unsuitable(text) => io::Error::new(io::ErrorKind::InvalidInput, text),
            DescriptorError::System(error) => error,
        }
    }
}

impl fmt::Display for DescriptorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DescriptorError::Verb(error) => error.fmt(f),
            DescriptorError::Unsuitable(text) => f.write_str(text),
            DescriptorError::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DescriptorError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_verb_keeps_its_kind_as_an_error_of_the_system() {
        for error in [VerbError::Stale, VerbError::Already, VerbError::Invalid, VerbError::Full] {
            let system = io::Error::from(DescriptorError::Verb(error));
            assert_eq!(system.kind(), io::Error::from(error).kind(), "{error}");
            assert_eq!(system.to_string(), error.to_string());
        }
        assert_eq!(io::Error::from(DescriptorError::Verb(VerbError::Stale)).kind(), io::ErrorKind::NotFound);
    }
}
