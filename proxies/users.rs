//! Who may use a front end: a file of names and passwords, and the question whether a pair of them is right.
//!
//! The file has a `name:password` per line; lines that are empty or begin with `#` are skipped. A name is at most 255
//! bytes of UTF-8 without control characters, because it stands in the log; so is a password, in bytes of any kind
//! (RFC 1929, section 2, has one byte for each length). Passwords are not kept: only their digests under a key that is
//! made anew each time a file is loaded. The time that a check takes does not tell how much of a password was right, nor
//! whether there is such a user. No password is ever printed, not even in an error.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{hmac, rand};

/// The users of a file.
pub struct Users {
    key: hmac::Key,
    /// What the passwords of unknown users are compared with.
    dummy: hmac::Tag,
    digests: HashMap<Box<str>, hmac::Tag>,
    readable_by_others: bool,
}

/// A file of users that cannot be used.
#[derive(Debug)]
pub struct UsersError {
    file: PathBuf,
    /// From 1.
    line: Option<usize>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Io(io::Error),
    Content(&'static str),
}

impl Users {
    /// Loads a file.
    ///
    /// # Errors
    /// The file cannot be read or has no user in it, a line is malformed, or a name stands there twice.
    pub fn load(path: &Path) -> Result<Users, UsersError> {
        let failed = |error| UsersError { file: path.to_owned(), line: None, problem: Problem::Io(error) };
        let file = File::open(path).map_err(failed)?;
        let mut bytes = Vec::new();
        let readable_by_others = is_readable_by_others(&file).map_err(failed)?;
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        let mut users = Users::parse(&bytes).map_err(|(line, problem)| UsersError {
            file: path.to_owned(),
            line,
            problem: Problem::Content(problem),
        })?;
        users.readable_by_others = readable_by_others;
        Ok(users)
    }

    /// Whether every user of the system may read the file, which is worth a warning.
    pub fn readable_by_others(&self) -> bool {
        self.readable_by_others
    }

    /// How many users there are; never none.
    pub fn count(&self) -> usize {
        self.digests.len()
    }

    /// Whether there is such a user with this password.
    pub fn check(&self, name: &[u8], password: &[u8]) -> bool {
        self.find(name, password).is_some()
    }

    /// The user that the value of a `Proxy-Authorization` header proves to be there (RFC 7617, section 2).
    pub fn check_basic(&self, header_value: &str) -> Option<&str> {
        let (scheme, credentials) = header_value.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") || credentials.len() > BASIC_BYTES_MAX {
            return None;
        }
        let pair = STANDARD.decode(credentials.trim_start()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        self.find(&pair[..colon], &pair[colon + 1..])
    }

    /// Does the same work for each password of a given length, whether or not there is such a user.
    fn find(&self, name: &[u8], password: &[u8]) -> Option<&str> {
        let user = std::str::from_utf8(name).ok().and_then(|name| self.digests.get_key_value(name));
        let digest = user.map_or(&self.dummy, |(_, digest)| digest);
        let is_right = hmac::verify(&self.key, password, digest.as_ref()).is_ok();
        user.filter(|_| is_right).map(|(name, _)| &**name)
    }

    fn parse(bytes: &[u8]) -> Result<Users, (Option<usize>, &'static str)> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err((None, "expected at most 16MiB"));
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map_err(|_| (None, "the system has no random bytes"))?;
        let mut digests = HashMap::new();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() || line.starts_with(b"#") {
                continue;
            }
            let failed = |problem| (Some(index + 1), problem);
            let (name, password) = parse_line(line).map_err(failed)?;
            if digests.insert(name.into(), hmac::sign(&key, password)).is_some() {
                return Err(failed("expected each name once"));
            }
        }
        if digests.is_empty() {
            return Err((None, "expected at least one line with name:password"));
        }
        Ok(Users { dummy: hmac::sign(&key, b""), key, digests, readable_by_others: false })
    }
}

/// Splits at the first colon: a password may have colons in it, a name may not (RFC 7617, section 2).
fn parse_line(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("expected name:password")?;
    let (name, password) = (&line[..colon], &line[colon + 1..]);
    let name = std::str::from_utf8(name).map_err(|_| "expected a name in UTF-8")?;
    if name.is_empty() || name.len() > FIELD_BYTES_MAX || name.chars().any(char::is_control) {
        return Err("expected a name of 1 to 255 bytes without control characters");
    }
    if password.is_empty() || password.len() > FIELD_BYTES_MAX {
        return Err("expected a password of 1 to 255 bytes");
    }
    Ok((name, password))
}

/// A pipe or a device has permissions that say nothing of who may read what is in it.
#[cfg(unix)]
fn is_readable_by_others(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata()?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_readable_by_others(_: &File) -> io::Result<bool> {
    Ok(false)
}

/// Enough for some hundred thousand users; a device without an end is not one.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// RFC 1929, section 2.
const FIELD_BYTES_MAX: usize = 255;
/// Two fields and a colon in base64, rounded up.
const BASIC_BYTES_MAX: usize = 1024;

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match &self.problem {
            Problem::Io(error) => write!(f, ": {error}"),
            Problem::Content(problem) => write!(f, ": {problem}"),
        }
    }
}

impl std::error::Error for UsersError {}

/// Shows no digest: it ends in logs and panics.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(text: &[u8]) -> Users {
        Users::parse(text).unwrap()
    }

    fn basic(pair: &[u8]) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn names_and_passwords_are_checked() {
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
    fn basic_credentials_are_checked() {
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
    fn malformed_lines_are_named() {
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
            let (found, problem) = Users::parse(text).unwrap_err();
            assert_eq!(found, line, "{}", text.escape_ascii());
            assert!(problem.starts_with("expected"));
        }
        assert!(Users::parse(&[&[b'x'; 255], b":".as_slice(), &[b'y'; 255]].concat()).is_ok());
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let missing = Users::load(Path::new("/nonexistent/users")).unwrap_err();
        assert!(missing.to_string().starts_with("/nonexistent/users: No such file"), "{missing}");
        let error =
            UsersError { file: "users".into(), line: Some(3), problem: Problem::Content("expected name:password") };
        assert_eq!(error.to_string(), "users:3: expected name:password");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_noticed() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("seaprox-users-{}", std::process::id()));
        std::fs::write(&path, "a:b\n").unwrap();
        for (mode, expected) in [(0o600, false), (0o640, false), (0o644, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Users::load(&path).unwrap().readable_by_others(), expected, "{mode:o}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
