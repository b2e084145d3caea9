//! The file that counts the sessions of keys with `uses=` in `authorized_keys`. It stands beside that file, which is never
//! rewritten for it: `authorized_keys.uses`, one line for each key:
//!
//! ```text
//! seaprox-ed25519 BASE64 COUNT
//! ```
//! A session is counted on the disk before it begins, so that neither a crash nor a full disk admits more of them. The file is
//! replaced as a whole, by rename, under a lock that all processes of the configuration share. A count stays when its key is
//! removed from `authorized_keys`; an invitation of the same key begins a new one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::error::{KeysError, Wrong};
use super::modes::Modes;
use super::public::PublicKey;
use super::watched::FromFile;
use super::{ENTRIES_MAX, FILE_BYTES_MAX, file, lines};

/// The number of sessions that each key has begun.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyUses(Vec<(PublicKey, u64)>);

impl KeyUses {
    /// Returns the path of the counts for a file of authorized keys.
    pub fn path_for(authorized_keys: &Path) -> PathBuf {
        let mut path = authorized_keys.as_os_str().to_owned();
        path.push(".uses");
        path.into()
    }

    /// Counts one more session of a key. Returns false, and counts nothing, if the key has begun `most` sessions already.
    /// Waits for the disk, so a loop must not call it. `stands` returns true for a key that is still authorized: the counts
    /// of others are dropped when there is no room.
    ///
    /// # Errors
    /// The file cannot be read or written. The session must not begin then.
    pub fn count(
        path: &Path,
        modes: Modes,
        key: &PublicKey,
        most: u64,
        stands: impl Fn(&PublicKey) -> bool,
    ) -> Result<bool, KeysError> {
        let _lock = file::lock(path)?;
        let (KeyUses(mut counts), _) = <KeyUses as FromFile>::load(path, modes, &())?;
        match counts.iter_mut().find(|(counted, _)| counted == key) {
            Some((_, count)) if *count >= most => return Ok(false),
            Some((_, count)) => *count += 1,
            None => {
                if counts.len() >= ENTRIES_MAX {
                    counts.retain(|(key, _)| stands(key));
                }
                if counts.len() >= ENTRIES_MAX {
                    return Err(KeysError::content(path, file::NO_ROOM));
                }
                counts.push((*key, 1));
            }
        }
        KeyUses(counts).write(path).map(|()| true)
    }

    /// Forgets the count of a key, which is authorized anew.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn forget(path: &Path, modes: Modes, key: &PublicKey) -> Result<(), KeysError> {
        let _lock = file::lock(path)?;
        let (KeyUses(mut counts), _) = <KeyUses as FromFile>::load(path, modes, &())?;
        let before = counts.len();
        counts.retain(|(counted, _)| counted != key);
        if counts.len() == before { Ok(()) } else { KeyUses(counts).write(path) }
    }

    /// Returns the number of sessions that a key has begun.
    pub fn of(&self, key: &PublicKey) -> u64 {
        self.0.iter().find(|(counted, _)| counted == key).map_or(0, |(_, count)| *count)
    }

    fn write(&self, path: &Path) -> Result<(), KeysError> {
        let mut text = String::from("# The sessions of keys with uses= in authorized_keys. Written by seaprox.\n");
        // Writing to a string cannot fail.
        self.0.iter().for_each(|(key, count)| _ = writeln!(text, "{key} {count}"));
        file::create(path, text.as_bytes(), true)
    }
}

impl FromFile for KeyUses {
    type Context = ();
    const BYTES_MAX: usize = FILE_BYTES_MAX;

    fn parse(path: &Path, bytes: Option<&[u8]>, (): &()) -> Result<KeyUses, KeysError> {
        let entries = lines::entries(path, bytes.unwrap_or_default(), parse_line)?;
        Ok(KeyUses(entries.into_iter().map(|(_, entry)| entry).collect()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn keeps(&self, earlier: &KeyUses) -> bool {
        earlier.0.iter().all(|(key, _)| self.0.iter().any(|(other, _)| other == key))
    }
}

fn parse_line(line: &str) -> Result<(PublicKey, u64), Wrong> {
    // The count stands in the place of a name, which may consist of digits.
    let (key, count) = lines::parse_key(line)?;
    let count = count.filter(|word| word.bytes().all(|byte| byte.is_ascii_digit())).and_then(|word| word.parse().ok());
    Ok((key, count.ok_or_else(|| Wrong::word(line, "seaprox-ed25519 BASE64 COUNT"))?))
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::mode;
    use super::super::scratch::Scratch;
    use super::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    fn count(path: &Path, key: &PublicKey, most: u64) -> Result<bool, String> {
        KeyUses::count(path, Modes::Strict, key, most, |_| true).map_err(|error| error.to_string())
    }

    fn of(path: &Path, key: &PublicKey) -> u64 {
        <KeyUses as FromFile>::load(path, Modes::Strict, &()).unwrap().0.of(key)
    }

    #[test]
    fn each_session_is_counted_until_there_are_enough() {
        let scratch = Scratch::new();
        let path = KeyUses::path_for(&scratch.path("authorized_keys"));
        assert_eq!([1, 2, 3].map(|_| count(&path, &key(3), 2)), [Ok(true), Ok(true), Ok(false)]);
        assert_eq!(count(&path, &key(4), 1), Ok(true), "another key");
        assert_eq!((of(&path, &key(3)), of(&path, &key(4)), of(&path, &key(5)), mode(&path)), (2, 1, 0, 0o600));
        assert_eq!(count(&path, &key(3), 3), Ok(true), "more are permitted now");
        KeyUses::forget(&path, Modes::Strict, &key(3)).unwrap();
        assert_eq!((of(&path, &key(3)), of(&path, &key(4))), (0, 1));
        assert_eq!(scratch.names(), ["authorized_keys.uses", "authorized_keys.uses.lock"]);
    }

    #[test]
    fn sessions_that_begin_at_the_same_time_are_all_counted() {
        let scratch = Scratch::new();
        let path = scratch.path("uses");
        let begun = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| count(&path, &key(3), 5).unwrap())).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
        });
        assert_eq!((begun, of(&path, &key(3))), (5, 5));
    }

    #[test]
    fn a_file_that_cannot_be_read_or_written_admits_nothing() {
        let scratch = Scratch::new();
        let path = scratch.write("uses", "nonsense\n", 0o600);
        assert!(count(&path, &key(3), 2).unwrap_err().contains("uses:1: "));
        for line in [format!("{}\n", key(3)), format!("{} -1\n", key(3)), format!("{} +1\n", key(3))] {
            scratch.write("uses", line, 0o600);
            assert!(count(&path, &key(3), 2).unwrap_err().contains("COUNT"));
        }
        scratch.write("uses", "", 0o666);
        assert!(count(&path, &key(3), 2).unwrap_err().contains("others can change it"));
        assert!(count(&scratch.path("no/such"), &key(3), 2).is_err());
    }

    #[test]
    fn the_counts_of_removed_keys_make_room() {
        let scratch = Scratch::new();
        let bytes = |number: usize| {
            let mut bytes = [7; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            PublicKey::from_bytes(bytes).unwrap()
        };
        let lines: String = (0..ENTRIES_MAX).map(|number| format!("{} 1\n", bytes(number))).collect();
        let path = scratch.write("uses", lines, 0o600);
        assert!(count(&path, &key(3), 2).unwrap_err().contains(file::NO_ROOM));
        assert_eq!(count(&path, &bytes(5), 2), Ok(true), "a known key needs no room");
        assert!(KeyUses::count(&path, Modes::Strict, &key(3), 2, |key| *key == bytes(5)).unwrap());
        assert_eq!((of(&path, &key(3)), of(&path, &bytes(5)), of(&path, &bytes(6))), (1, 2, 0));
    }
}
