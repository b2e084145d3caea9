//! A file that is watched, and what all threads see of it: loops ask without waiting for a file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use seaprox::auth::{FromFile, KeysError, Modes, Watched};

/// How a file is read again.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// A user asked for it: content without errors is taken at once.
    Now,
    /// One second has passed; holds the current time. Content that may be half written is taken only at a later look.
    Again(Instant),
}

/// A file, and what all threads see of it.
pub struct Shared<T: FromFile> {
    file: Mutex<Watched<T>>,
    now: RwLock<Arc<T>>,
    path: PathBuf,
}

impl<T: FromFile> Shared<T> {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn load(path: impl Into<PathBuf>, modes: Modes, context: T::Context) -> Result<Shared<T>, KeysError> {
        let path = path.into();
        let file = Watched::load(&path, modes, context)?;
        let now = RwLock::new(Arc::clone(file.value()));
        Ok(Shared { file: Mutex::new(file), now, path })
    }

    /// Returns the content that was taken last.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads and checks the file, and does not use its content.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn read(&self) -> Result<T, KeysError> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// Reads the file again if it has changed. Returns true if new content was taken from it.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn refresh(&self, look: Look) -> Result<bool, KeysError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = match look {
            Look::Now => file.reload()?,
            Look::Again(now) => file.refresh(now)?,
        };
        if is_new {
            *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(file.value());
        }
        Ok(is_new)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
