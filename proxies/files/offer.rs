//! Offers and entries: the names, sizes, modes and times that a sender tells, and those that a receiver takes.

use std::fmt;

use crate::text::is_unfit;

/// A file or a folder that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The name: one component of a path; see [`check_name`].
    pub name: String,
    /// True for a folder.
    pub is_folder: bool,
    /// The number of files and folders, the offered one among them.
    pub entries: u64,
    /// The bytes of all files.
    pub bytes: u64,
}

/// A file or a folder of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path beneath the offered folder, with `/` between the components; empty for what is offered itself.
    pub path: String,
    /// True for a folder.
    pub is_folder: bool,
    /// The size of a file in bytes.
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
/// `..`, no control character, no mark of text direction, at most [`NAME_BYTES_MAX`] bytes. Names that begin with a dot are refused, too: a program may
/// take such a file for its configuration, and partial files have such names.
///
/// # Errors
/// Fails with the reason.
pub fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        _ if name.len() > NAME_BYTES_MAX => Err(NameError("the name is too long")),
        _ if name.starts_with('.') => Err(NameError("the name begins with a dot")),
        _ => check_component(name),
    }
}

/// Checks that a path stays beneath an offered folder: at most [`DEPTH_MAX`] components, each of which is a name. Names that
/// begin with a dot are taken there, because the folder is a new one.
///
/// # Errors
/// Fails with the reason.
pub fn check_path(path: &str) -> Result<(), NameError> {
    if path.len() > PATH_BYTES_MAX {
        return Err(NameError("the path is too long"));
    }
    if path.split('/').count() > DEPTH_MAX {
        return Err(NameError("the path has too many components"));
    }
    path.split('/').try_for_each(check_component)
}

fn check_component(name: &str) -> Result<(), NameError> {
    let is_forbidden = |character: char| is_unfit(character) || matches!(character, '/' | '\\' | ':');
    match name {
        "" => Err(NameError("the name is empty")),
        "." | ".." => Err(NameError("the name is that of a directory itself")),
        _ if name.len() > COMPONENT_BYTES_MAX => Err(NameError("the name is too long")),
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

/// Longest name of an offer, so that the names of the part and of its journal fit in a directory.
pub const NAME_BYTES_MAX: usize = 200;
/// Longest component of a path.
const COMPONENT_BYTES_MAX: usize = 255;
/// Longest path beneath an offered folder.
pub const PATH_BYTES_MAX: usize = 4000;
/// Most components of a path beneath an offered folder.
pub const DEPTH_MAX: usize = 64;
/// Most files and folders of one offer.
pub const ENTRIES_MAX: u64 = 1_000_000;
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

    #[test]
    fn a_path_cannot_leave_the_offered_folder_and_is_bounded() {
        for path in ["", "/a", "a/", "a//b", "..", "a/../b", "a/..", "./a", "a/./b", "a\\..", "a/b\0", "C:"] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        let deep = vec!["a"; DEPTH_MAX].join("/");
        assert_eq!((check_path(&deep), check_path("a/.git/b c")), (Ok(()), Ok(())));
        assert!(check_path(&format!("{deep}/a")).is_err());
        assert!(check_path(&"a".repeat(COMPONENT_BYTES_MAX + 1)).is_err());
        assert!(check_path(&vec!["a".repeat(200); 21].join("/")).is_err());
    }
}
