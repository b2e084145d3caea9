//! A watch over the files of a configuration. The caller looks at them once a second.
//!
//! ```text
//!   same --a file has changed--> settling --no further change until the next look--> due: the files are read again
//! ```
//! A file may be half written when it is looked at, so a change is due only after one look without a further change. A file
//! that has changed moments before it was read is read once more, because its time may not show a second change. New files
//! appear in directories, so the directories of all files are watched too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The files and their directories, as they were when the files were read last.
pub struct FileWatch {
    read: Stamps,
    /// The stamps of the last look that found a change, while the change settles.
    settling: Option<Stamps>,
    /// Looks since the change began.
    looks: u32,
    /// True if a change just before the last reading may not show.
    is_unsure: bool,
    /// True if the last reading has failed, perhaps because of a file that it has not named.
    has_failed: bool,
}

/// The stamps of files and of their directories. A path at which there is nothing has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamps {
    files: BTreeMap<PathBuf, Option<Stamp>>,
    directories: BTreeMap<PathBuf, Option<Stamp>>,
}

/// The facts about a file that tell a change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    /// The device and the number of the file, where a system has them.
    identity: (u64, u64),
}

impl FileWatch {
    /// Starts to watch files that have just been read.
    pub fn new(files: &[PathBuf]) -> FileWatch {
        let read = Stamps::of(files);
        let is_unsure = read.is_fresh();
        FileWatch { read, settling: None, looks: 0, is_unsure, has_failed: false }
    }

    /// Looks at the files. Returns true if they are to be read again, between [`FileWatch::begin`] and [`FileWatch::end`].
    pub fn is_due(&mut self) -> bool {
        let now = self.read.again();
        if now == self.read {
            (self.settling, self.looks) = (None, 0);
            return self.has_failed || (self.is_unsure && !now.is_fresh());
        }
        self.looks = self.looks.saturating_add(1);
        let are_files_quiet = self.settling.as_ref().is_some_and(|before| before.files == now.files);
        let are_directories_quiet = self.settling.as_ref().is_some_and(|before| before.directories == now.directories);
        self.settling = Some(now);
        // Other programs may write into the directories all the time.
        are_files_quiet && (are_directories_quiet || self.looks > BUSY_LOOKS_MAX)
    }

    /// Begins a reading: changes from now on count as later ones.
    pub fn begin(&mut self) {
        self.read = self.read.again();
        (self.settling, self.looks) = (None, 0);
        self.is_unsure = self.read.is_fresh();
    }

    /// Ends a reading of these files, which may have failed.
    pub fn end(&mut self, files: &[PathBuf], has_failed: bool) {
        let mut read = Stamps::of(files);
        // The stamps from before the reading count.
        for (path, stamp) in read.files.iter_mut() {
            match self.read.files.get(path) {
                Some(before) => stamp.clone_from(before),
                None => self.is_unsure = true,
            }
        }
        for (path, stamp) in read.directories.iter_mut() {
            self.read.directories.get(path).into_iter().for_each(|before| stamp.clone_from(before));
        }
        (self.read, self.has_failed) = (read, has_failed);
    }
}

impl Stamps {
    fn of(files: &[PathBuf]) -> Stamps {
        let directory = |path: &PathBuf| match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => path.clone(),
        };
        let stamped = |path: PathBuf| (Stamp::of(&path), path);
        let swapped = |(stamp, path)| (path, stamp);
        Stamps {
            files: files.iter().cloned().map(stamped).map(swapped).collect(),
            directories: files.iter().map(directory).map(stamped).map(swapped).collect(),
        }
    }

    /// Returns the present stamps of the same paths.
    fn again(&self) -> Stamps {
        let again = |all: &BTreeMap<PathBuf, Option<Stamp>>| {
            all.keys().map(|path| (path.clone(), Stamp::of(path))).collect::<BTreeMap<_, _>>()
        };
        Stamps { files: again(&self.files), directories: again(&self.directories) }
    }

    /// Returns true if a file has changed so lately that its time may not show another change.
    fn is_fresh(&self) -> bool {
        self.files.values().flatten().any(Stamp::is_fresh)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = fs::metadata(path).ok()?;
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt as _;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(not(unix))]
        let identity = (0, 0);
        Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len(), identity })
    }

    fn is_fresh(&self) -> bool {
        // A time in the future never becomes old.
        self.modified.and_then(|time| time.elapsed().ok()).is_some_and(|age| age < FRESH)
    }
}

/// The age below which the time of a file may hide a second change. The coarsest common file system counts in 2 s.
const FRESH: Duration = Duration::from_secs(2);
/// Looks after which changes of directories count although they go on.
const BUSY_LOOKS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::scratch::Scratch;

    fn watch_of(files: &[PathBuf]) -> FileWatch {
        FileWatch { is_unsure: false, ..FileWatch::new(files) }
    }

    #[test]
    fn a_change_is_due_when_it_has_settled() {
        let scratch = Scratch::new();
        let file = scratch.path("a");
        fs::write(&file, "1").unwrap();
        let mut watch = watch_of(std::slice::from_ref(&file));
        assert!(!watch.is_due() && !watch.is_due());
        fs::write(&file, "12").unwrap();
        assert!(!watch.is_due(), "it may be half written");
        fs::write(&file, "123").unwrap();
        assert!(!watch.is_due(), "it is still being written");
        assert!(watch.is_due());
        watch.begin();
        watch.end(std::slice::from_ref(&file), false);
        watch.is_unsure = false;
        assert!(!watch.is_due() && !watch.is_due());
        // An editor writes another file and gives it the name.
        fs::write(scratch.path("b"), "456").unwrap();
        fs::rename(scratch.path("b"), &file).unwrap();
        assert!(!watch.is_due());
        assert!(watch.is_due());
    }

    #[test]
    fn a_new_file_in_the_directory_is_a_change_and_a_busy_directory_delays_none() {
        let scratch = Scratch::new();
        let file = scratch.path("a");
        fs::write(&file, "1").unwrap();
        let mut watch = watch_of(std::slice::from_ref(&file));
        fs::write(scratch.path("new"), "").unwrap();
        assert!(!watch.is_due());
        assert!(watch.is_due());
        watch.begin();
        watch.end(std::slice::from_ref(&file), false);
        watch.is_unsure = false;
        let mut looks = 0;
        while !watch.is_due() {
            looks += 1;
            fs::write(scratch.path(&format!("busy-{looks}")), "").unwrap();
            assert!(looks <= BUSY_LOOKS_MAX + 1);
        }
    }

    #[test]
    fn files_are_read_again_after_a_failure_and_if_they_have_changed_just_before() {
        let scratch = Scratch::new();
        let file = scratch.path("a");
        fs::write(&file, "1").unwrap();
        let mut watch = watch_of(std::slice::from_ref(&file));
        watch.begin();
        watch.end(std::slice::from_ref(&file), true);
        watch.is_unsure = false;
        assert!(watch.is_due(), "the failure may be about a file that is not watched");
        watch.end(std::slice::from_ref(&file), false);
        assert!(!watch.is_due());
        let mut watch = FileWatch::new(std::slice::from_ref(&file));
        assert!(watch.is_unsure && !watch.is_due(), "it is still fresh");
        let old = SystemTime::now() - 2 * FRESH;
        fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
        watch.read = Stamps::of(std::slice::from_ref(&file));
        assert!(watch.is_due(), "once more");
        watch.begin();
        assert!(!watch.is_due());
    }
}
