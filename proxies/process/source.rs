//! The source of the configuration of a process that can be read again while it runs: the file that `seaprox run` names.

use std::path::PathBuf;
use std::sync::Arc;

use seaprox::config::{ApplyError, Config, Place};

use super::file_watch::FileWatch;

/// A configuration, and where it came from.
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every file that was read, and every directory in which a new file would be read.
    pub sources: Vec<PathBuf>,
    /// Returns the position of a record in the files, such as `FILE:line:column`.
    pub position: Position,
}

/// Returns the position of a record in the files of a configuration.
pub type Position = Arc<dyn Fn(&Place) -> String + Send + Sync>;

/// Reads a configuration. Returns all problems if it is invalid, each as a line with its position.
pub type Load = Arc<dyn Fn() -> Result<Loaded, Vec<String>> + Send + Sync>;

/// A source that can be read again.
pub struct Source {
    load: Load,
    /// The files that were read last without an error.
    files: Vec<PathBuf>,
    /// The positions in the files that were read last without an error.
    position: Option<Position>,
    /// Set if the source is to be read again when a file has changed.
    watch: Option<FileWatch>,
}

impl Source {
    /// Creates a source from which `files` have been read. `load` reads it again, and returns all problems if it is invalid,
    /// each as a line with its position.
    pub fn new(files: Vec<PathBuf>, load: impl Fn() -> Result<Loaded, Vec<String>> + Send + Sync + 'static) -> Source {
        Source { load: Arc::new(load), files, position: None, watch: None }
    }

    /// Sets whether the source is to be read again when a file has changed.
    pub fn watched(self, is_watched: bool) -> Source {
        let watch = is_watched.then(|| FileWatch::new(&self.files));
        Source { watch, ..self }
    }

    /// Returns true if the files are watched.
    pub fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Returns true if the files are watched and a change of them is to be read now. Call it once a second.
    pub fn is_due(&mut self) -> bool {
        self.watch.as_mut().is_some_and(FileWatch::is_due)
    }

    /// Begins a reading of the configuration. Returns the function that reads it, in any thread.
    pub fn begin(&mut self) -> Load {
        self.watch.iter_mut().for_each(FileWatch::begin);
        Arc::clone(&self.load)
    }

    /// Ends a reading: with the files that were read and the positions in them, or with none if it has failed.
    pub fn end(&mut self, read: Option<(Vec<PathBuf>, Position)>) {
        let has_failed = read.is_none();
        if let Some((files, position)) = read {
            (self.files, self.position) = (files, Some(position));
        }
        self.watch.iter_mut().for_each(|watch| watch.end(&self.files, has_failed));
    }

    /// Returns the lines about an error of the configuration that was read last: one for each problem, behind the position
    /// of its record.
    pub fn explain(&self, error: &ApplyError) -> Vec<String> {
        let at = self.position.as_ref().filter(|_| !error.place.records.is_empty());
        let at = at.map(|position| format!("{}: ", position(&error.place))).unwrap_or_default();
        error.to_string().lines().map(|line| format!("{at}{line}")).collect()
    }
}
