//! The users of a front end: a file of names and passwords, and the check of a login.
//!
//! The file has one `name:password` per line; empty lines and lines that begin with `#` are skipped. A name has 1 to 255
//! bytes of UTF-8 without control characters, because it is logged. A password has 1 to 255 bytes of any kind (RFC 1929,
//! section 2, has one length byte). Only digests of the passwords are kept, under a random key of the process. The duration
//! of a check reveals neither how much of a password was right nor whether the user exists. No password is ever printed, not
//! even in an error.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::error::Unspecified;
use ring::{hmac, rand};
use seaprox::auth::{FromFile, KeysError, Wrong};

/// The users of a file.
pub struct Users {
    key: hmac::Key,
    /// The digest with which passwords of unknown users are compared.
    dummy: hmac::Tag,
    digests: HashMap<Box<str>, hmac::Tag>,
}

impl Users {
    /// Returns a random key for digests of passwords.
    ///
    /// # Errors
    /// Fails if the system has no random bytes.
    pub fn new_key() -> Result<hmac::Key, Unspecified> {
        hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
    }

    /// Returns the number of users, which is never 0.
    pub fn count(&self) -> usize {
        self.digests.len()
    }

    /// Returns true if a user has this name and password.
    pub fn check(&self, name: &[u8], password: &[u8]) -> bool {
        self.find(name, password).is_some()
    }

    /// Returns the user whose name and password are in the value of a `Proxy-Authorization` header (RFC 7617, section 2).
    pub fn check_basic(&self, header_value: &str) -> Option<&str> {
        let (scheme, credentials) = header_value.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || credentials.len() > BASIC_BYTES_MAX {
            return None;
        }
        let pair = STANDARD.decode(credentials.trim_start()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        self.find(&pair[..colon], &pair[colon + 1..])
    }

    /// Returns the user with this name and password. The work depends on the length of the password only, not on the user.
    fn find(&self, name: &[u8], password: &[u8]) -> Option<&str> {
        let user = std::str::from_utf8(name).ok().and_then(|name| self.digests.get_key_value(name));
        let digest = user.map_or(&self.dummy, |(_, digest)| digest);
        // No user has a longer password, so a longer guess is cut to bound the work.
        let password = password.get(..FIELD_BYTES_MAX + 1).unwrap_or(password);
        let is_right = hmac::verify(&self.key, password, digest.as_ref()).is_ok();
        user.filter(|_| is_right).map(|(name, _)| &**name)
    }
}

impl FromFile for Users {
    type Context = hmac::Key;
    // Enough for several hundred thousand users. A limit is needed because a device may have no end.
    const BYTES_MAX: usize = 16 << 20;

    fn parse(path: &Path, bytes: Option<&[u8]>, key: &hmac::Key) -> Result<Users, KeysError> {
        let bytes = bytes.ok_or_else(|| KeysError::missing(path))?;
        let mut digests = HashMap::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            let failed = |expected| KeysError::at(path, index + 1, Wrong::missing(expected));
            let (name, password) = parse_line(line).map_err(failed)?;
            if digests.insert(name.into(), hmac::sign(key, password)).is_some() {
                return Err(failed("each name once"));
            }
        }
        if digests.is_empty() {
            return Err(KeysError::content(path, "at least one line with name:password"));
        }
        Ok(Users { dummy: hmac::sign(key, b""), key: key.clone(), digests })
    }

    fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    fn keeps(&self, earlier: &Users) -> bool {
        let now = |name: &str| self.digests.get(name).map(AsRef::as_ref);
        earlier.digests.iter().all(|(name, digest)| now(name) == Some(digest.as_ref()))
    }
}

/// Two digests under the same key are equal if the passwords are.
impl PartialEq for Users {
    fn eq(&self, other: &Users) -> bool {
        self.count() == other.count() && self.keeps(other)
    }
}

/// Splits a line at the first colon: a password may contain colons, a name may not (RFC 7617, section 2).
fn parse_line(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("name:password")?;
    let (name, password) = (&line[..colon], &line[colon + 1..]);
    let name = std::str::from_utf8(name).map_err(|_| "a name in UTF-8")?;
    if name.is_empty() || name.len() > FIELD_BYTES_MAX || name.chars().any(char::is_control) {
        return Err("a name of 1 to 255 bytes without control characters");
    }
    if password.is_empty() || password.len() > FIELD_BYTES_MAX {
        return Err("a password of 1 to 255 bytes");
    }
    Ok((name, password))
}

/// RFC 1929, section 2.
const FIELD_BYTES_MAX: usize = 255;
/// Longest base64 of two fields and a colon, rounded up.
const BASIC_BYTES_MAX: usize = 1024;

/// Shows no digests, because the output may be logged.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seaprox::auth::Modes;

    fn parse(text: &[u8]) -> Result<Users, KeysError> {
        Users::parse(Path::new("users"), Some(text), &Users::new_key().unwrap())
    }

    fn users(text: &[u8]) -> Users {
        parse(text).unwrap()
    }

    fn basic(pair: &[u8]) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn a_login_needs_the_right_name_and_password() {
        let users = users(b"# staff\n\nalice:se:cret\r\nbob:\xff\xfe\n  \n");
        assert_eq!(users.count(), 2);
        assert!(users.check(b"alice", b"se:cret"));
        assert!(users.check(b"bob", b"\xff\xfe"));
        for (name, password) in [
            ("alice", "se:cre"),
            ("alice", "se:cret\r"),
            ("alice", ""),
            ("bob", "se:cret"),
            ("", ""),
            ("eve", ""),
            ("#", ""),
        ] {
            assert!(!users.check(name.as_bytes(), password.as_bytes()), "{name} {password}");
        }
        assert!(!users.check(b"\xff", b"x"));
    }

    #[test]
    fn basic_credentials_need_the_right_name_and_password() {
        let users = users(b"Aladdin:open sesame\nd:p:q\n");
        assert_eq!(users.check_basic("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), Some("Aladdin"), "the example of RFC 7617");
        assert_eq!(users.check_basic("bAsIc  QWxhZGRpbjpvcGVuIHNlc2FtZQ== "), Some("Aladdin"));
        assert_eq!(users.check_basic(&basic(b"d:p:q")), Some("d"));
        for value in ["", "Basic", "Basic ", "Basic QQ==", "Basic !", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="] {
            assert_eq!(users.check_basic(value), None, "{value}");
        }
        assert_eq!(users.check_basic(&basic(b"d:p:")), None);
        assert_eq!(users.check_basic(&basic(&[b':'; 2000])), None);
    }

    #[test]
    fn an_error_names_the_malformed_line() {
        let long = [b"a:b\n".as_slice(), &[b'x'; 256], b":y\n"].concat();
        for (text, line) in [
            (b"a:b\nc".as_slice(), Some(2)),
            (b":b", Some(1)),
            (b"#\n\na:", Some(3)),
            (b"a:b\na:c", Some(2)),
            (b"\xff:b", Some(1)),
            (b"a\x1b:b", Some(1)),
            (&long, Some(2)),
            (b"", None),
            (b"# nobody\n", None),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line(), line, "{}", text.escape_ascii());
            assert!(error.to_string().contains(": expected "), "{error}");
        }
        assert!(parse(&[&[b'x'; 255], b":".as_slice(), &[b'y'; 255]].concat()).is_ok());
    }

    #[test]
    fn an_error_names_the_file_and_what_was_expected() {
        let key = Users::new_key().unwrap();
        let missing = Users::load(Path::new("/nonexistent/users"), Modes::Strict, &key).err().unwrap();
        assert!(missing.to_string().starts_with("/nonexistent/users: No such file"), "{missing}");
        assert_eq!(parse(b"a:b\n\nc\n").unwrap_err().to_string(), "users:3: expected name:password");
    }

    #[test]
    fn users_are_equal_if_their_names_and_passwords_are() {
        let key = Users::new_key().unwrap();
        let users = |text: &str| Users::parse(Path::new("users"), Some(text.as_bytes()), &key).unwrap();
        let (one, more) = (users("a:b\n"), users("# more\nc:d\na:b\n"));
        assert!(one == users("# again\na:b\n") && one != more && one != users("a:c\n"));
        assert!(more.keeps(&one) && !one.keeps(&more) && !users("a:c\nc:d\n").keeps(&one));
    }
}
