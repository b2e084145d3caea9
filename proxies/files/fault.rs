//! The faults that end a transfer, with their numbers in FAILED.

use std::fmt;
use std::io;

use crate::text::is_unfit;

/// The kind of a fault. Each has a number in FAILED; a number that is not in this list counts as [`Fault::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// The receiver does not want the file.
    Refused = 1,
    /// The receiver has a file with this name, or receives one now.
    Exists = 2,
    /// There is no room on the disk of the receiver.
    NoSpace = 3,
    /// The file is larger than the receiver permits.
    TooLarge = 4,
    /// The bytes that arrived are not those of the file, for example because it was changed during the transfer.
    Changed = 5,
    /// A file cannot be read or written.
    Unusable = 6,
    /// The peer does not keep to the protocol.
    Protocol = 7,
    /// Something else.
    Other = 8,
    /// The transfer was interrupted: it goes on where it has stopped when it is begun again.
    Interrupted = 9,
}

/// The fault that ended a transfer, with a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The kind of the fault.
    pub fault: Fault,
    /// The text: one line, at most 512 bytes.
    pub text: String,
}

impl Fault {
    /// Returns the fault with a number.
    pub fn from_code(code: u8) -> Fault {
        ALL.into_iter().find(|fault| *fault as u8 == code).unwrap_or(Fault::Other)
    }
}

impl FileError {
    /// Makes an error. Control characters of the text, which a peer may have sent, are replaced, and a long text is cut.
    pub fn new(fault: Fault, text: impl AsRef<str>) -> FileError {
        let mut line = String::new();
        for character in text.as_ref().chars() {
            let shown = if is_unfit(character) { '?' } else { character };
            if line.len() + shown.len_utf8() > TEXT_BYTES_MAX {
                break;
            }
            line.push(shown);
        }
        FileError { fault, text: line }
    }

    /// Makes the error for a message that does not fit the state.
    pub(super) fn protocol(text: &str) -> FileError {
        FileError::new(Fault::Protocol, text)
    }

    /// Makes the error of a stream that ended too early.
    pub(super) fn interrupted() -> FileError {
        FileError::new(Fault::Interrupted, "what has arrived is kept")
    }

    /// Adds the name of a file.
    pub(super) fn about(self, name: &str) -> FileError {
        match name {
            "" => self,
            _ => FileError::new(self.fault, format!("{name}: {}", self.text)),
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> FileError {
        let fault = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::NoSpace,
            io::ErrorKind::FileTooLarge => Fault::TooLarge,
            io::ErrorKind::AlreadyExists => Fault::Exists,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Fault::Interrupted,
            _ => Fault::Unusable,
        };
        FileError::new(fault, error.to_string())
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.fault {
            Fault::Refused => "refused",
            Fault::Exists => "there is such a file",
            Fault::NoSpace => "no room on the disk",
            Fault::TooLarge => "too large",
            Fault::Changed => "the bytes are not those of the file",
            Fault::Unusable => "a file cannot be used",
            Fault::Protocol => "protocol error",
            Fault::Other => "failed",
            Fault::Interrupted => "interrupted",
        };
        match self.text.as_str() {
            "" => f.write_str(words),
            text => write!(f, "{words}: {text}"),
        }
    }
}

impl std::error::Error for FileError {}

const ALL: [Fault; 9] = [
    Fault::Refused,
    Fault::Exists,
    Fault::NoSpace,
    Fault::TooLarge,
    Fault::Changed,
    Fault::Unusable,
    Fault::Protocol,
    Fault::Other,
    Fault::Interrupted,
];
/// Longest text of a fault.
pub const TEXT_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_found_by_its_number_and_an_unknown_number_is_other() {
        assert!(ALL.into_iter().all(|fault| Fault::from_code(fault as u8) == fault));
        assert_eq!([0, 10, 255].map(Fault::from_code), [Fault::Other; 3]);
    }

    #[test]
    fn the_text_of_a_peer_is_one_bounded_line() {
        let error = FileError::new(Fault::Other, format!("a\n\x1b[2J{}", "é".repeat(TEXT_BYTES_MAX)));
        assert!(error.text.starts_with("a??[2J") && error.text.len() <= TEXT_BYTES_MAX);
    }
}
