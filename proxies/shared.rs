//! A file that is watched, and what all threads see of it: loops ask without waiting for a file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use seaprox::keys::{FromFile, KeysError, Modes, Watched};

/// How a file is read again.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// Somebody asks for it: what makes sense is taken.
    Now,
    /// A second has passed, and this is the time: what may be half written waits for another look.
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
    /// What is wrong with it.
    pub fn load(path: impl Into<PathBuf>, modes: Modes, context: T::Context) -> Result<Shared<T>, KeysError> {
        let path = path.into();
        let file = Watched::load(&path, modes, context)?;
        let now = RwLock::new(Arc::clone(file.value()));
        Ok(Shared { file: Mutex::new(file), now, path })
    }

    /// What was last taken from it.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file, and takes nothing from it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self) -> Result<T, KeysError> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// Looks at the file again. Returns whether something new was taken from it.
    ///
    /// # Errors
    /// What is wrong with the file.
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
