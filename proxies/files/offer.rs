//! The offer of a file: its name, size, mode and time, and the names that a receiver takes.

use std::fmt;

/// A file that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The name: one component of a path; see [`check_name`].
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    /// The permissions: the lowest nine bits of the mode. Others are not carried.
    pub mode: u16,
    /// The time of the last change: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

/// The error of a name that a receiver does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError(&'static str);

/// Checks that a name is that of a file in the folder of the receiver, and of no other one: not empty, no separator, no
/// `..`, no control character, at most [`NAME_BYTES_MAX`] bytes. Names that begin with a dot are refused, too: a program may
/// take such a file for its configuration, and partial files have such names.
///
/// # Errors
/// Fails with the reason.
pub fn check_name(name: &str) -> Result<(), NameError> {
    let is_forbidden = |character: char| character.is_control() || matches!(character, '/' | '\\' | ':');
    match name {
        "" => Err(NameError("the name is empty")),
        _ if name.len() > NAME_BYTES_MAX => Err(NameError("the name is too long")),
        _ if name.starts_with('.') => Err(NameError("the name begins with a dot")),
        _ if name.contains(is_forbidden) => Err(NameError("the name has a separator or a control character")),
        _ => Ok(()),
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NameError {}

/// Longest name, so that the names of the partial file and of its journal fit in a directory.
pub const NAME_BYTES_MAX: usize = 200;
/// The bits of a mode that are carried: neither setuid nor setgid nor sticky.
pub const MODE_MASK: u16 = 0o777;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_folder() {
        for name in ["", ".", "..", "../a", "a/b", "/etc/passwd", "a\\b", "C:a", "a\0b", "a\nb", ".bashrc"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"a".repeat(NAME_BYTES_MAX + 1)).is_err());
        for name in ["a", "film.mkv", "a..b", "Žluťoučký kůň", "a b", "-rf"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }
}
