//! The folder of a receiver: partial files with their journals, and the files that are whole.
//!
//! The bytes of `film` go to `.film.seaprox-part`, and `.film.seaprox-journal` beside it says which file of which peer they belong
//! to: its size, its time, and the key. A transfer of the same file from the same peer goes on with these bytes, also after a restart;
//! the sender compares their digest. Another file begins anew. A whole file gets its name in one step, which never takes the
//! place of another file. A partial file is locked while it is received.
//!
//! All names are one component ([`check_name`]), and no symbolic link is followed to a partial file, so nothing outside of the folder
//! is touched.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256};

use super::fault::{Fault, FileError};
use super::offer::{Offer, check_name};

/// The folder of a receiver.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// A file that is received.
pub struct Partial {
    folder: Folder,
    offer: Offer,
    file: File,
    /// The bytes that are there from an earlier transfer.
    length: u64,
    /// Those of them that were digested.
    digested: u64,
    digest: Context,
}

impl Folder {
    /// Returns the folder at a path.
    ///
    /// # Errors
    /// Fails if there is no folder.
    pub fn open(path: &Path) -> io::Result<Folder> {
        if !fs::metadata(path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Folder { path: path.to_owned() })
    }

    /// Begins to receive a file of a peer, or goes on. The key is that of the peer.
    ///
    /// # Errors
    /// Fails if there is a file with this name, if it is received already, or if the folder cannot be written.
    pub fn begin(&self, offer: &Offer, key: &[u8; 32]) -> Result<Partial, FileError> {
        check_name(&offer.name).map_err(|error| FileError::new(Fault::Refused, error.to_string()))?;
        self.check_free(&offer.name)?;
        let file = self.open_partial(&offer.name)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::new(Fault::Exists, "it is being received now")),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let journal = journal_of(offer, key);
        let journal_path = self.journal_path(&offer.name);
        // A part without its journal is that of no known file.
        let is_known = fs::symlink_metadata(&journal_path).is_ok_and(|data| data.is_file())
            && fs::read(&journal_path).is_ok_and(|text| text == journal.as_bytes());
        if !is_known {
            file.set_len(0)?;
            let _ = fs::remove_file(&journal_path);
            private(OpenOptions::new().write(true).create_new(true))
                .open(&journal_path)?
                .write_all(journal.as_bytes())?;
        }
        let mut length = file.metadata()?.len();
        if length > offer.size {
            file.set_len(0)?;
            length = 0;
        }
        let digest = Context::new(&SHA256);
        Ok(Partial { folder: self.clone(), offer: offer.clone(), file, length, digested: 0, digest })
    }

    fn check_free(&self, name: &str) -> Result<(), FileError> {
        match fs::symlink_metadata(self.path.join(name)) {
            Ok(_) => Err(FileError::new(Fault::Exists, name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn open_partial(&self, name: &str) -> Result<File, FileError> {
        let path = self.partial_path(name);
        match private(OpenOptions::new().read(true).write(true).create_new(true)).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return Ok(result?),
        }
        if !fs::symlink_metadata(&path)?.is_file() {
            return Err(FileError::new(Fault::Unusable, "the partial file is no file"));
        }
        Ok(OpenOptions::new().read(true).write(true).open(&path)?)
    }

    fn partial_path(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.seaprox-part"))
    }

    fn journal_path(&self, name: &str) -> PathBuf {
        self.path.join(format!(".{name}.seaprox-journal"))
    }
}

impl Partial {
    /// Digests some of the bytes that are there. Returns true if all of them are digested.
    ///
    /// # Errors
    /// Fails if the partial file cannot be read.
    pub fn check(&mut self, buf: &mut [u8]) -> Result<bool, FileError> {
        let left = usize::try_from(self.length - self.digested).unwrap_or(usize::MAX).min(buf.len());
        if left > 0 {
            self.file.seek(SeekFrom::Start(self.digested))?;
            let count = self.file.read(&mut buf[..left])?;
            if count == 0 {
                self.length = self.digested;
            }
            self.digest.update(&buf[..count]);
            self.digested += count as u64;
        }
        Ok(self.digested == self.length)
    }

    /// Returns the number of bytes that are there, and their digest.
    pub fn known(&self) -> (u64, Context) {
        (self.digested, self.digest.clone())
    }

    /// Returns the offer.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Drops the bytes behind a place, and goes on there.
    ///
    /// # Errors
    /// Fails if the partial file cannot be written.
    pub fn begin(&mut self, offset: u64) -> Result<(), FileError> {
        self.file.set_len(offset)?;
        self.file.seek(SeekFrom::Start(offset))?;
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// Fails if the partial file cannot be written, for example because the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        Ok(self.file.write_all(bytes)?)
    }

    /// Gives the file its permissions, its time and its name. Returns its path.
    ///
    /// # Errors
    /// Fails if there is a file with this name by now, or if the bytes cannot be written to the disk. The partial file stays.
    pub fn place(&mut self) -> Result<PathBuf, FileError> {
        let (partial, path) = (self.folder.partial_path(&self.offer.name), self.folder.path.join(&self.offer.name));
        set_mode(&self.file, self.offer.mode)?;
        if let Some(time) = time_of(self.offer.modified) {
            self.file.set_modified(time)?;
        }
        self.file.sync_all()?;
        match fs::hard_link(&partial, &path) {
            Ok(()) => fs::remove_file(&partial)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(FileError::new(Fault::Exists, &self.offer.name));
            }
            // Not every file system has hard links.
            Err(_) => {
                self.folder.check_free(&self.offer.name)?;
                fs::rename(&partial, &path)?;
            }
        }
        // The file is whole, whatever becomes of its journal and of the entry of the directory.
        let _ = fs::remove_file(self.folder.journal_path(&self.offer.name));
        let _ = File::open(&self.folder.path).and_then(|folder| folder.sync_all());
        Ok(path)
    }
}

/// Returns the text of the journal of a file.
fn journal_of(offer: &Offer, key: &[u8; 32]) -> String {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let (seconds, nanoseconds) = offer.modified;
    format!("seaprox file/1\nsize {}\nmodified {seconds} {nanoseconds}\nkey {key}\n", offer.size)
}

fn time_of((seconds, nanoseconds): (i64, u32)) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time =
        if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(whole) } else { SystemTime::UNIX_EPOCH.checked_add(whole) };
    time?.checked_add(Duration::from_nanos(nanoseconds.into()))
}

/// Makes files that only their owner can read, until they have their permissions.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u16) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(mode.into()))
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: u16) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];

    /// A folder of its own, which is removed at the end.
    struct Scratch(Folder);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("seaprox-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(Folder::open(&path).unwrap())
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0.path).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.path);
        }
    }

    fn offer() -> Offer {
        Offer { name: "film".to_owned(), size: 8, mode: 0o640, modified: (1_000_000_000, 5000) }
    }

    /// Begins, and returns the bytes that are there.
    fn begin(folder: &Folder, offer: &Offer, key: &[u8; 32]) -> (Partial, u64) {
        let mut partial = folder.begin(offer, key).unwrap();
        while !partial.check(&mut [0; 3]).unwrap() {}
        let length = partial.known().0;
        (partial, length)
    }

    #[test]
    fn a_whole_file_has_its_name_permissions_and_time_and_leaves_nothing_beside_it() {
        let scratch = Scratch::new("whole");
        let (mut partial, _) = begin(&scratch.0, &offer(), &KEY);
        partial.begin(0).unwrap();
        partial.write(b"the file").unwrap();
        let path = partial.place().unwrap();
        assert_eq!((scratch.names(), fs::read(&path).unwrap()), (vec!["film".to_owned()], b"the file".to_vec()));
        let data = fs::metadata(&path).unwrap();
        assert_eq!(data.modified().ok(), time_of(offer().modified));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o7777, 0o640);
    }

    #[test]
    fn a_part_is_kept_for_the_same_file_of_the_same_peer_only() {
        let scratch = Scratch::new("part");
        let part = |offer: &Offer, key: &[u8; 32]| begin(&scratch.0, offer, key).1;
        let write = || {
            let (mut partial, _) = begin(&scratch.0, &offer(), &KEY);
            partial.begin(0).unwrap();
            partial.write(b"the f").unwrap();
        };
        write();
        assert_eq!(part(&offer(), &KEY), 5);
        assert_eq!(part(&offer(), &[2; 32]), 0, "another peer");
        write();
        assert_eq!(part(&Offer { modified: (1, 0), ..offer() }, &KEY), 0, "another time");
        write();
        assert_eq!(part(&Offer { size: 9, ..offer() }, &KEY), 0, "another size");
    }

    #[test]
    fn a_file_that_is_there_is_never_replaced() {
        let scratch = Scratch::new("exists");
        let (mut partial, _) = begin(&scratch.0, &offer(), &KEY);
        let fault = |folder: &Folder| folder.begin(&offer(), &KEY).map(|_| ()).map_err(|error| error.fault);
        assert_eq!(fault(&scratch.0), Err(Fault::Exists), "it is being received");
        partial.begin(0).unwrap();
        partial.write(b"the file").unwrap();
        fs::write(scratch.0.path.join("film"), "mine").unwrap();
        assert_eq!(partial.place().map_err(|error| error.fault), Err(Fault::Exists));
        drop(partial);
        assert_eq!(fault(&scratch.0), Err(Fault::Exists));
        assert_eq!(fs::read(scratch.0.path.join("film")).unwrap(), b"mine");
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_in_the_place_of_a_partial_file_is_not_followed() {
        let scratch = Scratch::new("link");
        let outside = Scratch::new("outside");
        let victim = outside.0.path.join("victim");
        fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, scratch.0.partial_path("film")).unwrap();
        assert_eq!(scratch.0.begin(&offer(), &KEY).map(|_| ()).map_err(|error| error.fault), Err(Fault::Unusable));
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }
}
