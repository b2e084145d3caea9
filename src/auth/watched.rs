//! A file that is read again when it has changed, or when somebody says so.
//!
//! What cannot be read changes nothing: the last content that could is kept, and each fault is told once, not each time
//! that somebody looks. Looking costs one `stat`. Nothing here has a timer: the caller looks once a second and says when.
//!
//! A file may be read while it is being written. So new content is taken at once only if it cannot be incomplete:
//!
//! ```text
//! nothing of what it had is gone                               taken at once
//! another file is in its place (a rename), and is not empty    taken at once
//! it is missing, empty, has lost lines or makes no sense       a second reading, a second later, decides; if that finds
//!                                                              another content, the third one does
//! ```
//! [`Watched::reload`] takes any content without errors at once.

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
    /// A larger file is refused.
    const BYTES_MAX: usize;

    /// Reads the content of a file; nothing where there is no file. `path` is for errors.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    fn parse(path: &Path, bytes: Option<&[u8]>, context: &Self::Context) -> Result<Self, KeysError>;

    /// Returns true if the file has no entries.
    fn is_empty(&self) -> bool;

    /// Returns true if this value still has every entry of the earlier one.
    fn keeps(&self, earlier: &Self) -> bool;

    /// Reads a file, and says what it looked like before it was read.
    ///
    /// # Errors
    /// What is wrong with the file.
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

/// A file and what was last read from it.
#[derive(Debug)]
pub struct Watched<T: FromFile> {
    path: PathBuf,
    modes: Modes,
    context: T::Context,
    stamp: Stamp,
    value: Arc<T>,
    /// A reading that was not taken, because the file may be half written.
    doubt: Option<Doubt>,
    /// The fault that was told last.
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
    /// What is wrong with it.
    pub fn load(path: impl Into<PathBuf>, modes: Modes, context: T::Context) -> Result<Watched<T>, KeysError> {
        let path = path.into();
        let (value, stamp) = T::load(&path, modes, &context)?;
        Ok(Watched { path, modes, context, stamp, value: Arc::new(value), doubt: None, told: None })
    }

    /// What was last read.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// What was last read, to add to it what is added to the file, too.
    pub fn value_mut(&mut self) -> &mut T
    where
        T: Clone,
    {
        Arc::make_mut(&mut self.value)
    }

    /// The file.
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

    /// Reads the file again if it may have changed, and says whether something new was taken from it. To be called once a
    /// second, with the time.
    ///
    /// # Errors
    /// What is wrong with the file, once for each change of it.
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
                self.take(value, stamp);
                Ok(false)
            }
            Ok((value, stamp)) => {
                let is_whole = value.keeps(&self.value) || self.is_renamed(&stamp) && !value.is_empty();
                // The file was written to during the read.
                let is_whole = is_whole && Stamp::of(&self.path).looks_like(&stamp);
                if is_whole || self.is_sure(now, stamp) {
                    self.take(value, stamp);
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

    /// Reads the file again even if it has not changed. Returns true if new content was taken. A pipe is not read a second
    /// time.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn reload(&mut self) -> Result<bool, KeysError> {
        let looks = Stamp::of(&self.path);
        if self.stamp.is_stream() && looks.is_stream() {
            return Ok(false);
        }
        match T::load(&self.path, self.modes, &self.context) {
            Ok((value, stamp)) => Ok(self.take(value, stamp)),
            Err(error) => {
                self.told = None;
                self.tell(error, looks)
            }
        }
    }

    /// Takes the content that was read. Returns true if it is new.
    fn take(&mut self, value: T, stamp: Stamp) -> bool {
        (self.stamp, self.doubt, self.told) = (stamp, None, None);
        let is_new = value != *self.value;
        if is_new {
            self.value = Arc::new(value);
        }
        is_new
    }

    /// Returns true if another file has replaced the one that was read last, and no reading since then was doubtful.
    fn is_renamed(&self, looks: &Stamp) -> bool {
        self.doubt.is_none() && looks.is_another_file(&self.stamp)
    }

    /// Returns true if an earlier reading found the same as this one, or if two readings were doubtful already. Otherwise
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
        // The file looks as it did when the same error was reported, but the stamp was too recent to be sure.
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

/// Between two readings of a file that may be half written.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// U+FEFF in UTF-8, which some editors put in front of a text: it would be part of the first word.
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

    /// A file that is looked at once a second.
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
    fn what_is_added_is_taken_at_once() {
        let mut file = Looked::new(&line(3));
        assert_eq!(file.look(), (Ok(false), 1));
        file.write(&(line(3) + &line(4)));
        assert_eq!(file.look(), (Ok(true), 2));
        assert_eq!(file.look(), (Ok(false), 2), "looked at again, and the same");
    }

    #[test]
    fn a_file_that_is_put_in_the_place_of_another_is_taken_at_once() {
        let mut file = Looked::new(&(line(3) + &line(4)));
        file.rename(&line(4));
        assert_eq!(file.look(), (Ok(true), 1));
        file.rename("nonsense\n");
        assert!(file.look().0.unwrap_err().contains("nonsense"), "a fault of it, too");
        file.rename("");
        assert_eq!(file.look(), (Ok(false), 1), "but not one that is empty");
        assert_eq!(file.look(), (Ok(true), 0));
    }

    #[test]
    fn a_file_that_is_found_half_written_changes_nothing() {
        let whole = line(3) + &line(4);
        for half in ["", &line(3), &whole[..whole.len() - 20], "nonsense\n"] {
            let mut file = Looked::new(&whole);
            file.write(half);
            assert_eq!(file.look(), (Ok(false), 2), "{half:?}");
            file.write(&whole);
            assert_eq!(file.look(), (Ok(false), 2), "{half:?}");
            assert_eq!(file.look(), (Ok(false), 2), "{half:?}");
        }
        // Some editors move the old file away first.
        let mut file = Looked::new(&whole);
        fs::rename(file.keys.path(), file.scratch.path("backup")).unwrap();
        assert_eq!(file.look(), (Ok(false), 2));
        file.write(&line(3));
        assert_eq!(file.look(), (Ok(false), 2), "it is another file, but not put there whole");
        file.write(&whole);
        assert_eq!(file.look(), (Ok(false), 2));
    }

    #[test]
    fn what_is_taken_away_in_place_is_gone_with_the_second_look() {
        for (after, left) in [("", 0), ("# none\n", 0), (line(4).as_str(), 1)] {
            let mut file = Looked::new(&(line(3) + &line(4)));
            file.write(after);
            assert_eq!(file.look(), (Ok(false), 2));
            let soon = file.now + SECOND_LOOK / 2;
            assert!(!file.keys.refresh(soon).unwrap(), "a look that comes early decides nothing");
            assert_eq!(file.look(), (Ok(true), left));
        }
        let mut file = Looked::new(&line(3));
        fs::remove_file(file.keys.path()).unwrap();
        assert_eq!(file.look(), (Ok(false), 1));
        assert_eq!(file.look(), (Ok(true), 0));
        assert_eq!(file.look(), (Ok(false), 0));
    }

    #[test]
    fn a_file_that_is_written_on_and_on_is_taken_with_the_third_look() {
        let mut file = Looked::new(&(line(3) + &line(4)));
        file.write("");
        assert_eq!(file.look(), (Ok(false), 2));
        file.write("# some\n");
        assert_eq!(file.look(), (Ok(false), 2));
        file.write("# more of it\n");
        assert_eq!(file.look(), (Ok(true), 0));
    }

    #[test]
    fn a_reload_takes_what_is_there() {
        let mut file = Looked::new(&line(3));
        file.write("");
        assert!(file.keys.reload().unwrap() && file.keys.value().count() == 0);
        file.write("nonsense\n");
        assert!(file.keys.reload().is_err() && file.keys.reload().is_err(), "told each time");
    }

    #[test]
    fn a_fault_is_told_once() {
        let mut file = Looked::new(&line(4));
        let held = Arc::clone(file.keys.value());
        for text in ["nonsense\n", "other nonsense\n"] {
            file.write(text);
            assert_eq!(file.look(), (Ok(false), 1), "it may be half written");
            assert!(file.look().0.unwrap_err().contains(":1: \""));
            assert_eq!((file.look(), file.look()), ((Ok(false), 1), (Ok(false), 1)), "told once");
            assert!(Arc::ptr_eq(file.keys.value(), &held), "what was good is kept");
        }
        file.write(&line(4));
        assert_eq!(file.look(), (Ok(false), 1), "good again, and nothing new");
        assert!(Arc::ptr_eq(file.keys.value(), &held));
    }

    #[test]
    fn nothing_is_taken_from_a_file_that_others_may_write() {
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
    fn what_is_added_by_this_process_is_nothing_new_afterwards() {
        let scratch = Scratch::new();
        let mut nodes = Watched::<KnownNodes>::load(scratch.path("known_nodes"), Modes::Strict, ()).unwrap();
        let (node, key) = (crate::Target::parse("a:1").unwrap(), PublicKey::from_bytes([3; 32]).unwrap());
        nodes.value_mut().add(&node, &key).unwrap();
        assert_eq!(nodes.value().look_up(&node, &key), Standing::Known);
        assert!(!nodes.refresh(Instant::now()).unwrap());
        assert_eq!(nodes.read().unwrap().count(), 1);
    }

    #[test]
    fn what_does_not_change_is_not_read_again() {
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
        assert!(watched.reload().unwrap(), "only when it is told to");
        // A device can be read only once.
        let mut device = Watched::<Counted>::load("/dev/null", Modes::Strict, ()).unwrap();
        assert!(!device.refresh(Instant::now()).unwrap() && !device.reload().unwrap());
    }
}
