//! The file `authorized_keys`: the keys that may connect, and their permissions. One line for each key, as in sshd's file
//! of the same name:
//!
//! ```text
//! # nothing but a connection
//! seaprox-ed25519 BASE64 joe@laptop
//! permit-open="db:5432",permit-open="10.0.0.0/8:80-443" seaprox-ed25519 BASE64 web
//! permit-end="backup=command:/usr/bin/borg serve --append-only" seaprox-ed25519 BASE64 laptop
//! permit-listen="2222",max-streams=100,rate=10mbit,name="home" seaprox-ed25519 BASE64
//! ```
//! A `name` among the options overrides the name after the key. Each key may occur once. Without the file no key may
//! connect.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::error::{KeysError, Wrong};
use super::modes::Modes;
use super::options;
use super::permissions::Permissions;
use super::public::{KEY_TYPE, PublicKey};
use super::watched::FromFile;
use super::{ENTRIES_MAX, FILE_BYTES_MAX, file, lines};
use crate::UtcTime;

/// The keys that may connect. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizedKeys {
    keys: HashMap<PublicKey, Arc<Permissions>>,
}

/// One line: a key and its permissions. The printed form parses to the same value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// The key.
    pub key: PublicKey,
    /// Its permissions.
    pub permissions: Permissions,
}

impl AuthorizedKeys {
    /// Returns the permissions of a key, or `None` if it may not connect.
    pub fn find(&self, key: &PublicKey) -> Option<&Arc<Permissions>> {
        self.keys.get(key)
    }

    /// Iterates over the keys and their permissions, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&PublicKey, &Arc<Permissions>)> {
        self.keys.iter()
    }

    /// Returns the number of keys.
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// Returns the next time at which a key expires, if any will.
    pub fn next_expiry(&self) -> Option<UtcTime> {
        let times = self.keys.values().filter_map(|permissions| permissions.valid_until());
        times.filter(|time| !time.is_past()).min()
    }

    /// Appends a line for a key to a file of authorized keys. Creates the file and its directory if they do not exist. Returns
    /// false, and changes nothing, if the key stands in the file.
    ///
    /// # Errors
    /// The file is malformed or full, or cannot be read or written.
    pub fn append(path: &Path, modes: Modes, entry: &AuthorizedKey) -> Result<bool, KeysError> {
        let (keys, _) = <AuthorizedKeys as FromFile>::load(path, modes, &())?;
        if keys.find(&entry.key).is_some() {
            return Ok(false);
        }
        if keys.count() >= ENTRIES_MAX {
            return Err(KeysError::content(path, file::NO_ROOM));
        }
        file::make_directory(file::parent(path))?;
        file::append_line(path, &entry.to_string()).map(|_| true)
    }

    /// Creates the file of authorized keys and its directory if they do not exist, and checks that a line can be appended.
    ///
    /// # Errors
    /// The file is malformed, or cannot be created, read or written.
    pub fn prepare(path: &Path, modes: Modes) -> Result<(), KeysError> {
        <AuthorizedKeys as FromFile>::load(path, modes, &())?;
        file::check_appendable(path)
    }

    /// Parses the content of a file; `path` is for errors.
    ///
    /// # Errors
    /// A line is malformed, a key occurs twice, or there are too many keys.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<AuthorizedKeys, KeysError> {
        let mut keys = HashMap::new();
        for (line, entry) in lines::entries(path, bytes, parse_line)? {
            if keys.insert(entry.key, Arc::new(entry.permissions)).is_some() {
                return Err(KeysError::at(path, line, Wrong::word(&entry.key.to_string(), "each key once")));
            }
        }
        Ok(AuthorizedKeys { keys })
    }
}

impl FromFile for AuthorizedKeys {
    type Context = ();
    const BYTES_MAX: usize = FILE_BYTES_MAX;

    fn parse(path: &Path, bytes: Option<&[u8]>, (): &()) -> Result<AuthorizedKeys, KeysError> {
        bytes.map_or_else(|| Ok(AuthorizedKeys::default()), |bytes| AuthorizedKeys::parse(path, bytes))
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn keeps(&self, earlier: &AuthorizedKeys) -> bool {
        earlier.keys.iter().all(|(key, permissions)| self.keys.get(key) == Some(permissions))
    }
}

fn parse_line(line: &str) -> Result<AuthorizedKey, Wrong> {
    let has_options = lines::split_word(line).0 != KEY_TYPE;
    let (field, rest) = if has_options { options::split_field(line)? } else { ("", line) };
    let mut permissions = if has_options { field.parse()? } else { Permissions::default() };
    let (key, name) = lines::parse_key(rest)?;
    permissions.name = permissions.name.or(name.map(Into::into));
    Ok(AuthorizedKey { key, permissions })
}

impl FromStr for AuthorizedKey {
    type Err = Wrong;

    fn from_str(line: &str) -> Result<AuthorizedKey, Wrong> {
        parse_line(line.trim_ascii())
    }
}

impl fmt::Display for AuthorizedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, permissions) = (&self.key, &self.permissions);
        match permissions.name() {
            None if permissions.is_bare() => key.fmt(f),
            Some(name) if permissions.is_bare() => write!(f, "{key} {name}"),
            _ => write!(f, "{permissions} {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Stamp;
    use super::super::scratch::Scratch;
    use super::*;
    use crate::Target;
    use crate::types::rules::Decision;
    use proptest::prelude::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    fn load(path: &Path) -> Result<(AuthorizedKeys, Stamp), KeysError> {
        <AuthorizedKeys as FromFile>::load(path, Modes::Strict, &())
    }

    fn parse(text: &str) -> Result<AuthorizedKeys, String> {
        AuthorizedKeys::parse(Path::new("authorized_keys"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_found_with_its_permissions() {
        let (bare, web, home) = (key(3), key(4), key(5));
        let keys = parse(&format!(
            "# nodes\n{bare} joe@laptop\n\n  permit-open=\"db:5432\",name=\"w\" {web} web\r\nrate=1mbit\t{home}\t home\n"
        ))
        .unwrap();
        assert_eq!((keys.count(), keys.iter().count()), (3, 3));
        assert_eq!(keys.find(&key(6)), None);
        let name = |key| keys.find(key).and_then(|it| it.name());
        assert_eq!((name(&bare), name(&web), name(&home)), (Some("joe@laptop"), Some("w"), Some("home")));
        let db = Target::parse("db:5432").unwrap();
        assert_eq!(keys.find(&web).unwrap().may_open(&db), Decision::Allow);
        assert_eq!(keys.find(&bare).unwrap().may_open(&db), Decision::Deny);
    }

    #[test]
    fn a_malformed_line_fails_the_whole_file_and_is_named() {
        let good = key(3);
        for (line, said) in [
            ("nonsense", r#""nonsense": expected permit-open="#),
            ("ssh-ed25519 AAAA", r#""ssh-ed25519": expected permit-open="#),
            ("permit-open=*", "expected seaprox-ed25519 BASE64"),
            ("permit-open=* permit-open=*", r#""permit-open=*": expected seaprox-ed25519"#),
            ("permit-open=\"* x", r#": expected a closing quote"#),
            ("seaprox-ed25519 AAAA", r#""AAAA": expected the 44 characters"#),
            ("rate=10 seaprox-ed25519 AAAA", r#""10": expected a rate"#),
            (&good.to_string(), "expected each key once"),
        ] {
            let error = parse(&format!("# first\n{good}\n{line}\n")).unwrap_err();
            assert!(error.starts_with("authorized_keys:3: ") && error.contains(said), "{error}");
        }
    }

    #[test]
    fn without_a_file_no_key_may_connect() {
        let scratch = Scratch::new();
        let (keys, stamp) = load(&scratch.path("authorized_keys")).unwrap();
        assert_eq!((keys.count(), stamp), (0, Stamp::MISSING));
        let path = scratch.write("authorized_keys", format!("{}\n", key(3)), 0o600);
        assert_eq!(load(&path).unwrap().0.count(), 1);
        let path = scratch.write("authorized_keys", format!("{}\n", key(3)), 0o666);
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("others can change it"), "{error}");
        assert!(load(&scratch.path("")).is_err(), "a directory is not a file without keys");
    }

    fn option() -> impl Strategy<Value = String> {
        let place =
            prop::sample::select(vec!["*", "db:1", "*.a.org:1-9", "10.0.0.0/8", "[fd00::]/8:443", "unix:/a b", "to:1"]);
        let listen = prop::sample::select(vec!["*", "80", "*:80", "10.0.0.1:1-2", "[::1]:0", "localhost:*"]);
        prop_oneof![
            place.prop_map(|place| format!("permit-open=\"{place}\"")),
            listen.prop_map(|listen| format!("permit-listen=\"{listen}\"")),
        ]
    }

    proptest! {
        #[test]
        fn a_printed_line_parses_to_itself(
            mut options in prop::collection::vec(option(), 0..5),
            end in prop::option::of(prop::sample::select(vec!["a=read:/a b", "b=unix:/run/b", "c=command:/c 'd e' f"])),
            streams in prop::option::of(1..=1_000_000_u32),
            rate in prop::option::of(1..u64::MAX),
            until in prop::option::of(0..4_000_000_000_u64),
            uses in prop::option::of(1..1_000_000_000_u64),
            name in prop::option::of("[a-z0-9@._-]{1,64}"),
            bytes: [u8; 32],
        ) {
            prop_assume!(PublicKey::from_bytes(bytes).is_ok());
            options.extend(end.map(|end| format!("permit-end=\"{end}\"")));
            options.extend(streams.map(|streams| format!("max-streams={streams}")));
            options.extend(rate.map(|rate| format!("rate={rate}B/s")));
            let time = |secs| crate::UtcTime::from_system(std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs));
            options.extend(until.map(|secs| format!("valid-until={}", time(secs))));
            options.extend(uses.map(|uses| format!("uses={uses}")));
            options.extend(name.map(|name| format!("name=\"{name}\"")));
            let line = format!("{} {}", options.join(","), PublicKey::from_bytes(bytes).unwrap());
            let entry: AuthorizedKey = line.parse().unwrap();
            prop_assert_eq!(entry.to_string().parse(), Ok(entry));
        }

        #[test]
        fn no_line_panics(
            line in "\\PC{0,60}|[a-z=\",: ]{0,40}|(permit-(open|listen)=\"?[a-z0-9*:/.,\\[\\]-]{0,20}\"?,?){0,3} ?seaprox-ed25519 [A-Za-z0-9+/]{0,44}=? ?[a-z]{0,3}",
        ) {
            if let Ok(entry) = line.parse::<AuthorizedKey>() {
                prop_assert_eq!(entry.to_string().parse(), Ok(entry));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = AuthorizedKeys::parse(Path::new("f"), &bytes);
        }
    }
}
