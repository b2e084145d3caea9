//! A file that is read again when it has changed, or when somebody says so.
//!
//! What cannot be read changes nothing: the last content that could is kept, and each fault is told once, not each time
//! that somebody looks. Looking costs one `stat`. Nothing here has a timer.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::KeysError;
use super::file::Stamp;

/// What can be read from a file of keys.
pub trait FromFile: PartialEq + Sized {
    /// Reads a file, and says what it looked like before it was read. One that is missing has nothing in it.
    ///
    /// # Errors
    /// What is wrong with the file.
    fn load(path: &Path) -> Result<(Self, Stamp), KeysError>;
}

/// A file and what was last read from it.
#[derive(Debug)]
pub struct Watched<T> {
    path: PathBuf,
    stamp: Stamp,
    value: Arc<T>,
    /// What the file looked like when it could not be read.
    faulty: Option<Stamp>,
}

impl<T: FromFile> Watched<T> {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(path: impl Into<PathBuf>) -> Result<Watched<T>, KeysError> {
        let path = path.into();
        let (value, stamp) = T::load(&path)?;
        Ok(Watched { path, stamp, value: Arc::new(value), faulty: None })
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

    /// Reads the file again if it may have changed, and says whether there is something new in it.
    ///
    /// # Errors
    /// What is wrong with the file, once for each change of it.
    pub fn refresh(&mut self) -> Result<bool, KeysError> {
        if !self.stamp.has_changed(&self.path) {
            self.faulty = None;
            return Ok(false);
        }
        let looks = Stamp::of(&self.path);
        let is_told = self.faulty.is_some_and(|faulty| faulty.looks_like(&looks) && !faulty.has_changed(&self.path));
        if is_told {
            return Ok(false);
        }
        let told = self.faulty;
        match self.reload() {
            // It looks as it did when this was told, but so shortly before that it was worth another look.
            Err(_) if told.is_some_and(|told| told.looks_like(&looks)) => Ok(false),
            result => result,
        }
    }

    /// Reads the file again whether or not it has changed, and says whether there is something new in it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn reload(&mut self) -> Result<bool, KeysError> {
        let looks = Stamp::of(&self.path);
        match T::load(&self.path) {
            Ok((value, stamp)) => {
                (self.stamp, self.faulty) = (stamp, None);
                let is_new = value != *self.value;
                if is_new {
                    self.value = Arc::new(value);
                }
                Ok(is_new)
            }
            Err(error) => {
                self.faulty = Some(looks);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::super::{AuthorizedKeys, KnownNodes, PublicKey, Standing};
    use super::*;

    fn line(byte: u8) -> String {
        format!("{}\n", PublicKey::from_bytes([byte; 32]).unwrap())
    }

    #[test]
    fn a_change_is_seen_and_a_fault_is_told_once() {
        let scratch = Scratch::new();
        let path = scratch.path("authorized_keys");
        let mut keys = Watched::<AuthorizedKeys>::load(&path).unwrap();
        assert!(!keys.refresh().unwrap());
        scratch.write("authorized_keys", line(3), 0o600);
        assert!(keys.refresh().unwrap() && keys.value().count() == 1);
        assert!(!keys.refresh().unwrap(), "looked at again, and the same");
        // The same size, and perhaps the same tick of the clock.
        scratch.write("authorized_keys", line(4), 0o600);
        assert!(keys.refresh().unwrap());
        let held = Arc::clone(keys.value());
        scratch.write("authorized_keys", "nonsense\n", 0o600);
        assert!(keys.refresh().unwrap_err().to_string().contains(":1: \"nonsense\""));
        assert!(!keys.refresh().unwrap() && !keys.refresh().unwrap(), "told once");
        assert!(Arc::ptr_eq(keys.value(), &held), "what was good is kept");
        assert!(keys.reload().is_err(), "but told to who asks");
        scratch.write("authorized_keys", "other nonsense\n", 0o600);
        assert!(keys.refresh().is_err(), "another change, another fault");
        scratch.write("authorized_keys", line(4), 0o600);
        assert!(!keys.refresh().unwrap(), "good again, and nothing new");
        assert!(Arc::ptr_eq(keys.value(), &held));
        std::fs::remove_file(&path).unwrap();
        assert!(keys.refresh().unwrap() && keys.value().count() == 0);
    }

    #[test]
    fn what_is_added_is_nothing_new_afterwards() {
        let scratch = Scratch::new();
        let mut nodes = Watched::<KnownNodes>::load(scratch.path("known_nodes")).unwrap();
        let (node, key) = (crate::Target::parse("a:1").unwrap(), PublicKey::from_bytes([3; 32]).unwrap());
        nodes.value_mut().add(&node, &key).unwrap();
        assert_eq!(nodes.value().look_up(&node, &key), Standing::Known);
        assert!(!nodes.refresh().unwrap());
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
            fn load(path: &Path) -> Result<(Counted, Stamp), KeysError> {
                // A directory that nobody writes into has not changed for long.
                Ok((Counted(1), Stamp::of(path)))
            }
        }
        let mut watched = Watched::<Counted>::load("/usr").unwrap();
        assert_eq!(watched.value().0, 1);
        assert!(!watched.refresh().unwrap());
        assert!(watched.reload().unwrap(), "only when it is told to");
    }
}
