//! A watched file whose content all threads share: loops read the current content and never wait for the file system.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::time::Instant;

use seaprox::auth::{FromFile, KeysError, Modes, Watched};

/// The way in which a file is read again.
#[derive(Clone, Copy, Debug)]
pub enum Refresh {
    /// On request of a user: content without errors is in use at once.
    Forced,
    /// Once a second; holds the current time. Content that may be half written is in use only after a later reading.
    Periodic(Instant),
}

/// A watched file and its current content.
pub struct SharedFile<T: FromFile> {
    file: Mutex<Watched<T>>,
    value: RwLock<Arc<T>>,
    path: PathBuf,
}

impl<T: FromFile> SharedFile<T> {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed.
    pub fn load(path: impl Into<PathBuf>, modes: Modes, context: T::Context) -> Result<SharedFile<T>, KeysError> {
        let path = path.into();
        let file = Watched::load(&path, modes, context)?;
        let value = RwLock::new(Arc::clone(file.value()));
        Ok(SharedFile { file: Mutex::new(file), value, path })
    }

    /// Returns the content that is in use.
    pub fn value(&self) -> Arc<T> {
        Arc::clone(&self.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads and parses the file. The content in use does not change.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed.
    pub fn read(&self) -> Result<T, KeysError> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// Reads the file again if it has changed. Returns true if its new content is in use. A periodic reading does not wait for
    /// another one.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed; the previous content stays in use.
    pub fn refresh(&self, refresh: Refresh) -> Result<bool, KeysError> {
        let file = match refresh {
            Refresh::Forced => Some(self.file.lock().unwrap_or_else(PoisonError::into_inner)),
            Refresh::Periodic(_) => match self.file.try_lock() {
                Ok(file) => Some(file),
                Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            },
        };
        let Some(mut file) = file else { return Ok(false) };
        let is_new = match refresh {
            Refresh::Forced => file.reload()?,
            Refresh::Periodic(now) => file.refresh(now)?,
        };
        if is_new {
            *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(file.value());
        }
        Ok(is_new)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
