//! The mode and the owner of the file of a listening Unix socket, and their text forms.

use std::fmt;
use std::str::FromStr;

/// The mode of a socket's file: the permission bits of user, group and others. A client needs the right to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnixMode(u32);

/// The owner of a socket's file: a user, a group, or both, each a name or a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnixOwner {
    user: Option<Box<str>>,
    group: Option<Box<str>>,
}

/// A parse error. Its text is the form that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixFileError(&'static str);

impl UnixMode {
    /// Returns the permission bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl UnixOwner {
    /// Returns the user, if one is named.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the group, if one is named.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

/// Parses an octal mode of three or four digits, such as `0660`.
impl FromStr for UnixMode {
    type Err = UnixFileError;

    fn from_str(text: &str) -> Result<UnixMode, UnixFileError> {
        let is_form = matches!(text.len(), 3 | 4) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| is_form && *bits <= 0o777);
        bits.map(UnixMode).ok_or(UnixFileError("an octal mode from 0000 to 0777, such as 0660"))
    }
}

/// Parses `USER`, `USER:GROUP` or `:GROUP`.
impl FromStr for UnixOwner {
    type Err = UnixFileError;

    fn from_str(text: &str) -> Result<UnixOwner, UnixFileError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let is_name = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_name_byte);
        let fits = group.map_or(is_name(user), |group| is_name(group) && (user.is_empty() || is_name(user)));
        let part = |name: &str| (!name.is_empty()).then(|| name.into());
        let owner = fits.then(|| UnixOwner { user: part(user), group: group.and_then(part) });
        owner.ok_or(UnixFileError("USER, USER:GROUP or :GROUP"))
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b',')
}

impl fmt::Display for UnixMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Display for UnixOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user().unwrap_or(""))?;
        self.group().map_or(Ok(()), |group| write!(f, ":{group}"))
    }
}

impl fmt::Display for UnixFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for UnixFileError {}

/// Length of the longest user name (useradd(8) allows 32, LDAP more).
const NAME_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_owners_are_printed_as_they_are_parsed() {
        for (text, bits) in [("0660", 0o660), ("0000", 0), ("0777", 0o777)] {
            let mode: UnixMode = text.parse().unwrap();
            assert_eq!((mode.bits(), mode.to_string()), (bits, text.to_owned()));
        }
        assert_eq!("666".parse::<UnixMode>().unwrap().to_string(), "0666");
        for wrong in ["", "66", "1777", "0668", "+660", "0o660", "00660"] {
            assert!(wrong.parse::<UnixMode>().is_err(), "{wrong}");
        }
        for text in ["www-data", "www-data:proxy", ":proxy", "33:33"] {
            assert_eq!(text.parse::<UnixOwner>().unwrap().to_string(), text);
        }
        for wrong in ["", ":", "a:", "a:b:c", "a b", "a/b"] {
            assert!(wrong.parse::<UnixOwner>().is_err(), "{wrong}");
        }
    }
}
