//! A file that is read again after a change, or on request.
//!
//! If the file cannot be read, the last valid content stays, and each error is returned once, not at each check. A check
//! costs one `stat`. The module has no timer: the caller checks once a second and passes the time.
//!
//! A file may be read while another process writes it. So new content is accepted at once only if it cannot be incomplete:
//!
//! ```text
//! the new content has all earlier entries                      accepted at once
//! another file replaced it (a rename), and is not empty        accepted at once
//! the file is missing, empty, malformed or has lost entries    a second reading, a second later, decides; if it finds
//!                                                              other content, the third one does
//! ```
//! [`Watched::reload`] accepts any content without errors at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::KeysError;
use super::file::{self, Stamp};
use super::modes::Modes;

/// A value that can be read from a file.
pub trait FromFile: PartialEq + Sized {
    /// Parameters for reading the file.
    type Context;
    /// Size limit of the file.
    const BYTES_MAX: usize;

    /// Parses the content of a file, which is `None` if the file does not exist. `path` is for errors.
    ///
    /// # Errors
    /// The content is malformed, or the file is required and missing.
    fn parse(path: &Path, bytes: Option<&[u8]>, context: &Self::Context) -> Result<Self, KeysError>;

    /// Returns true if the file has no entries.
    fn is_empty(&self) -> bool;

    /// Returns true if this value still has every entry of the earlier one.
    fn keeps(&self, earlier: &Self) -> bool;

    /// Reads a file. Returns its value, and its stamp from before the read.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    fn load(path: &Path, modes: Modes, context: &Self::Context) -> Result<(Self, Stamp), KeysError> {
        match file::read_public(path, modes, Self::BYTES_MAX) {
            Ok((bytes, _)) if bytes.starts_with(BYTE_ORDER_MARK) => {
                let text = "begins with a byte order mark: expected UTF-8 without it; save the file without \"BOM\"";
                Err(KeysError::text(path, 1, text.to_owned()))
            }
            Ok((bytes, stamp)) => Ok((Self::parse(path, Some(&bytes), context)?, stamp)),
            Err(error) if error.is_missing() => Ok((Self::parse(path, None, context)?, Stamp::MISSING)),
            Err(error) => Err(error),
        }
    }
}

/// A file and the value that was last read from it.
#[derive(Debug)]
pub struct Watched<T: FromFile> {
    path: PathBuf,
    modes: Modes,
    context: T::Context,
    stamp: Stamp,
    value: Arc<T>,
    /// The last reading, if it was not accepted because the file may be incomplete.
    doubt: Option<Doubt>,
    /// The error that was returned last.
    told: Option<Told>,
}

#[derive(Debug)]
struct Doubt {
    since: Instant,
    looks: Stamp,
    /// Set if an earlier reading found different content.
    is_second: bool,
}

#[derive(Debug)]
struct Told {
    looks: Stamp,
    text: String,
    /// Set if the content was never read: the error may then vanish without a change of the file.
    is_about_modes: bool,
}

impl<T: FromFile> Watched<T> {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn load(path: impl Into<PathBuf>, modes: Modes, context: T::Context) -> Result<Watched<T>, KeysError> {
        let path = path.into();
        let (value, stamp) = T::load(&path, modes, &context)?;
        Ok(Watched { path, modes, context, stamp, value: Arc::new(value), doubt: None, told: None })
    }

    /// Returns the value that was last accepted.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// Returns the value for a caller that adds the same entry to the file and to the value.
    pub fn value_mut(&mut self) -> &mut T
    where
        T: Clone,
    {
        Arc::make_mut(&mut self.value)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and checks the file without replacing the current value.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn read(&self) -> Result<T, KeysError> {
        T::load(&self.path, self.modes, &self.context).map(|(value, _)| value)
    }

    /// Reads the file again if it may have changed. Returns true if it accepted new content. Call it once a second with the
    /// current time.
    ///
    /// # Errors
    /// The file cannot be read or parsed. Each error is returned once for each change of the file.
    pub fn refresh(&mut self, now: Instant) -> Result<bool, KeysError> {
        if !self.stamp.has_changed(&self.path) {
            (self.doubt, self.told) = (None, None);
            return Ok(false);
        }
        let looks = Stamp::of(&self.path);
        // A pipe can be read only once.
        if self.stamp.is_stream() || looks.is_stream() || self.is_known_fault(&looks) {
            return Ok(false);
        }
        match T::load(&self.path, self.modes, &self.context) {
            Ok((value, stamp)) if value == *self.value => {
                self.accept(value, stamp);
                Ok(false)
            }
            Ok((value, stamp)) => {
                let is_whole = value.keeps(&self.value) || self.is_renamed(&stamp) && !value.is_empty();
                // A changed stamp means that the file was written during the read.
                let is_whole = is_whole && Stamp::of(&self.path).looks_like(&stamp);
                if is_whole || self.is_sure(now, stamp) {
                    self.accept(value, stamp);
                    return Ok(true);
                }
                Ok(false)
            }
            Err(error) if error.is_about_modes() || self.is_renamed(&looks) || self.is_sure(now, looks) => {
                self.tell(error, looks)
            }
            Err(_) => Ok(false),
        }
    }

    /// Reads the file again even if it has not changed. Returns true if it accepted new content. A pipe is not read a second
    /// time.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn reload(&mut self) -> Result<bool, KeysError> {
        let looks = Stamp::of(&self.path);
        if self.stamp.is_stream() && looks.is_stream() {
            return Ok(false);
        }
        match T::load(&self.path, self.modes, &self.context) {
            Ok((value, stamp)) => Ok(self.accept(value, stamp)),
            Err(error) => {
                self.told = None;
                self.tell(error, looks)
            }
        }
    }

    /// Accepts the content that was read. Returns true if it is new.
    fn accept(&mut self, value: T, stamp: Stamp) -> bool {
        (self.stamp, self.doubt, self.told) = (stamp, None, None);
        let is_new = value != *self.value;
        if is_new {
            self.value = Arc::new(value);
        }
        is_new
    }

    /// Returns true if another file has replaced the last read one, and no reading since then was in doubt.
    fn is_renamed(&self, looks: &Stamp) -> bool {
        self.doubt.is_none() && looks.is_another_file(&self.stamp)
    }

    /// Returns true if an earlier reading found the same as this one, or if two readings were in doubt already. Otherwise
    /// records this reading.
    fn is_sure(&mut self, now: Instant, looks: Stamp) -> bool {
        let is_second = match &self.doubt {
            Some(doubt) if now.saturating_duration_since(doubt.since) < SECOND_LOOK => return false,
            Some(doubt) if doubt.is_second || doubt.looks.looks_like(&looks) => {
                self.doubt = None;
                return true;
            }
            earlier => earlier.is_some(),
        };
        self.doubt = Some(Doubt { since: now, looks, is_second });
        false
    }

    /// Returns true if this error was reported already and cannot have vanished since.
    fn is_known_fault(&self, looks: &Stamp) -> bool {
        let told = self.told.as_ref().filter(|told| !told.is_about_modes && told.looks.looks_like(looks));
        told.is_some_and(|told| !told.looks.has_changed(&self.path))
    }

    fn tell(&mut self, error: KeysError, looks: Stamp) -> Result<bool, KeysError> {
        let told = Told { looks, text: error.to_string(), is_about_modes: error.is_about_modes() };
        let before = self.told.replace(told);
        // The file looks as it did when the same error was returned, but the stamp was too recent to be sure.
        match before.is_some_and(|before| before.text == error.to_string() && before.is_as_before(&looks)) {
            true => Ok(false),
            false => Err(error),
        }
    }
}

impl Told {
    fn is_as_before(&self, looks: &Stamp) -> bool {
        self.is_about_modes || self.looks.looks_like(looks)
    }
}

/// Time between two readings of a file that may be incomplete.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// U+FEFF in UTF-8. Some editors write it at the start of a text, where it would be part of the first word.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::super::{AuthorizedKeys, KnownNodes, PublicKey, Standing};
    use super::*;
    use std::fs;

    fn line(byte: u8) -> String {
        format!("{}\n", PublicKey::from_bytes([byte; 32]).unwrap())
    }

    /// A file that is checked once a second.
    struct Looked {
        scratch: Scratch,
        keys: Watched<AuthorizedKeys>,
        now: Instant,
    }

    impl Looked {
        fn new(content: &str) -> Looked {
            let scratch = Scratch::new();
            let path = scratch.write(NAME, content, 0o600);
            Looked { scratch, keys: Watched::load(path, Modes::Strict, ()).unwrap(), now: Instant::now() }
        }

        fn write(&self, content: &str) {
            self.scratch.write(NAME, content, 0o600);
        }

        fn rename(&self, content: &str) {
            fs::rename(self.scratch.write("new", content, 0o600), self.keys.path()).unwrap();
        }

        /// Refreshes the file. Returns the result and the number of keys after it.
        fn look(&mut self) -> (Result<bool, String>, usize) {
            self.now += SECOND_LOOK;
            let found = self.keys.refresh(self.now).map_err(|error| error.to_string());
            (found, self.keys.value().count())
        }
    }

    const NAME: &str = "authorized_keys";

    #[test]
    fn an_added_entry_is_accepted_at_once() {
        let mut file = Looked::new(&line(3));
        assert_eq!(file.look(), (Ok(false), 1));
        file.write(&(line(3) + &line(4)));
        assert_eq!(file.look(), (Ok(true), 2));
        assert_eq!(file.look(), (Ok(false), 2), "checked again without a change");
    }

    #[test]
    fn a_file_that_replaces_another_is_accepted_at_once_unless_it_is_empty() {
        let mut file = Looked::new(&(line(3) + &line(4)));
        file.rename(&line(4));
        assert_eq!(file.look(), (Ok(true), 1));
        file.rename("nonsense\n");
        assert!(file.look().0.unwrap_err().contains("nonsense"), "its error is returned at once, too");
        file.rename("");
        assert_eq!(file.look(), (Ok(false), 1), "an empty file is in doubt");
        assert_eq!(file.look(), (Ok(true), 0));
    }

    #[test]
    fn an_incomplete_file_changes_nothing() {
        let whole = line(3) + &line(4);
        for half in ["", &line(3), &whole[..whole.len() - 20], "nonsense\n"] {
            let mut file = Looked::new(&whole);
            file.write(half);
            assert_eq!(file.look(), (Ok(false), 2), "{half:?}");
            file.write(&whole);
            assert_eq!(file.look(), (Ok(false), 2), "{half:?}");
            assert_eq!(file.look(), (Ok(false), 2), "{half:?}");
        }
        // Some editors first rename the old file.
        let mut file = Looked::new(&whole);
        fs::rename(file.keys.path(), file.scratch.path("backup")).unwrap();
        assert_eq!(file.look(), (Ok(false), 2));
        file.write(&line(3));
        assert_eq!(file.look(), (Ok(false), 2), "another file, but created in place");
        file.write(&whole);
        assert_eq!(file.look(), (Ok(false), 2));
    }

    #[test]
    fn an_entry_that_is_removed_in_place_is_gone_after_the_second_check() {
        for (after, left) in [("", 0), ("# none\n", 0), (line(4).as_str(), 1)] {
            let mut file = Looked::new(&(line(3) + &line(4)));
            file.write(after);
            assert_eq!(file.look(), (Ok(false), 2));
            let soon = file.now + SECOND_LOOK / 2;
            assert!(!file.keys.refresh(soon).unwrap(), "an early check decides nothing");
            assert_eq!(file.look(), (Ok(true), left));
        }
        let mut file = Looked::new(&line(3));
        fs::remove_file(file.keys.path()).unwrap();
        assert_eq!(file.look(), (Ok(false), 1));
        assert_eq!(file.look(), (Ok(true), 0));
        assert_eq!(file.look(), (Ok(false), 0));
    }

    #[test]
    fn a_file_that_keeps_changing_is_accepted_at_the_third_check() {
        let mut file = Looked::new(&(line(3) + &line(4)));
        file.write("");
        assert_eq!(file.look(), (Ok(false), 2));
        file.write("# some\n");
        assert_eq!(file.look(), (Ok(false), 2));
        file.write("# more of it\n");
        assert_eq!(file.look(), (Ok(true), 0));
    }

    #[test]
    fn a_reload_accepts_the_current_content() {
        let mut file = Looked::new(&line(3));
        file.write("");
        assert!(file.keys.reload().unwrap() && file.keys.value().count() == 0);
        file.write("nonsense\n");
        assert!(file.keys.reload().is_err() && file.keys.reload().is_err(), "each reload returns the error");
    }

    #[test]
    fn an_error_is_returned_once() {
        let mut file = Looked::new(&line(4));
        let held = Arc::clone(file.keys.value());
        for text in ["nonsense\n", "other nonsense\n"] {
            file.write(text);
            assert_eq!(file.look(), (Ok(false), 1), "the file may be incomplete");
            assert!(file.look().0.unwrap_err().contains(":1: \""));
            assert_eq!((file.look(), file.look()), ((Ok(false), 1), (Ok(false), 1)), "told once");
            assert!(Arc::ptr_eq(file.keys.value(), &held), "the valid content stays");
        }
        file.write(&line(4));
        assert_eq!(file.look(), (Ok(false), 1), "valid again, and nothing new");
        assert!(Arc::ptr_eq(file.keys.value(), &held));
    }

    #[test]
    fn a_file_that_others_may_write_to_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let mut file = Looked::new(&line(3));
        let directory = file.scratch.path("");
        let open = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        open(0o777);
        file.write(&(line(3) + &line(4)));
        assert!(file.look().0.unwrap_err().contains("others may write to the directory"));
        assert_eq!((file.look(), file.look()), ((Ok(false), 1), (Ok(false), 1)), "told once");
        open(0o755);
        assert_eq!(file.look(), (Ok(true), 2), "the file has not changed since");
        file.scratch.write(NAME, "", 0o666);
        assert!(file.look().0.unwrap_err().contains("mode 0666"));
        assert_eq!((file.look(), file.look()), ((Ok(false), 2), (Ok(false), 2)));
    }

    #[test]
    fn an_entry_that_this_process_added_is_not_new_at_the_next_check() {
        let scratch = Scratch::new();
        let mut nodes = Watched::<KnownNodes>::load(scratch.path("known_nodes"), Modes::Strict, ()).unwrap();
        let (node, key) = (crate::Target::parse("a:1").unwrap(), PublicKey::from_bytes([3; 32]).unwrap());
        nodes.value_mut().add(&node, &key).unwrap();
        assert_eq!(nodes.value().look_up(&node, &key), Standing::Known);
        assert!(!nodes.refresh(Instant::now()).unwrap());
        assert_eq!(nodes.read().unwrap().count(), 1);
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        struct Counted(u32);
        impl PartialEq for Counted {
            fn eq(&self, _: &Counted) -> bool {
                false
            }
        }
        impl FromFile for Counted {
            type Context = ();
            const BYTES_MAX: usize = 1;
            fn parse(_: &Path, _: Option<&[u8]>, (): &()) -> Result<Counted, KeysError> {
                Ok(Counted(1))
            }
            fn is_empty(&self) -> bool {
                false
            }
            fn keeps(&self, _: &Counted) -> bool {
                true
            }
        }
        let scratch = Scratch::new();
        let path = scratch.write("old", "", 0o600);
        let mut watched = Watched::<Counted>::load(&path, Modes::Strict, ()).unwrap();
        assert_eq!(watched.value().0, 1);
        watched.stamp = watched.stamp.settled();
        assert!(!watched.refresh(Instant::now()).unwrap());
        assert!(watched.reload().unwrap(), "a reload reads it");
        // A device can be read only once.
        let mut device = Watched::<Counted>::load("/dev/null", Modes::Strict, ()).unwrap();
        assert!(!device.refresh(Instant::now()).unwrap() && !device.reload().unwrap());
    }
}
