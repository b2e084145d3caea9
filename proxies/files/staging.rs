//! The folder of a receiver: parts with their journals, and the files and folders that are whole.
//!
//! An offer with the name `film` goes to `.film.seaprox-part`, a file or a folder, and `.film.seaprox-journal` beside it says which offer of
//! which peer it belongs to. A transfer of the same from the same peer goes on with what is there, also after a restart; the
//! sender compares the digests. Another offer begins anew. The whole gets its name in one step, which never takes the place of
//! anything else. A journal is locked while its offer is received.
//!
//! Every path is resolved beneath the folder, and no symbolic link is followed in it ([`Directory`]), so nothing outside of it
//! is touched.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::{File, TryLockError};
use std::hash::BuildHasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256};
use seaprox::system::{Access, Directory, EntryKind};

use super::fault::{Fault, FileError};
use super::offer::{DEPTH_MAX, ENTRIES_MAX, Entry, Offer, check_name, check_path};
use super::present::{note_placed, was_placed};

/// An offer that is received.
pub struct Staging {
    folder: Directory,
    path: PathBuf,
    offer: Offer,
    /// The key of the peer.
    key: [u8; 32],
    /// The part of a folder.
    tree: Option<Directory>,
    /// Locked while the offer is received.
    _journal: File,
    has_part: bool,
    /// It was placed already, and is compared only.
    is_placed: bool,
    /// The folders that were made, whose modes and times are set at the end.
    folders: Vec<Entry>,
    /// The paths that the sender has named, as far as there may be others.
    named: Option<(RandomState, HashSet<u64>)>,
}

impl Staging {
    /// Begins to receive an offer of a peer, or goes on. The key is that of the peer, and the entry is the offered file.
    ///
    /// # Errors
    /// Fails if there is something with this name, if it is received already, or if the folder cannot be written.
    pub fn open(path: &Path, offer: &Offer, key: &[u8; 32]) -> Result<Staging, FileError> {
        check_name(&offer.name).map_err(|error| FileError::new(Fault::Refused, error.to_string()))?;
        let folder = Directory::open(path)?;
        let journal_name = PathBuf::from(format!(".{}{JOURNAL}", offer.name));
        let mut journal = open_journal(&folder, &journal_name)?;
        // After the lock: another transfer of the name may just have ended.
        let part = part_name(&offer.name);
        let there = folder.kind(&part)?;
        let wanted = if offer.is_folder { EntryKind::Directory } else { EntryKind::File };
        if let Some(kind) = folder.kind(Path::new(&offer.name))? {
            if there.is_none() {
                // A journal without a part is of no use.
                let _ = folder.remove_file(&journal_name);
            }
            if kind != wanted || !was_placed(path, offer, *key) {
                return Err(FileError::new(Fault::Exists, &offer.name));
            }
            // The sender has not heard that it was placed.
            let tree = offer.is_folder.then(|| folder.directory(Path::new(&offer.name))).transpose()?;
            let (path, offer, key) = (path.to_owned(), offer.clone(), *key);
            let (has_part, is_placed, folders, named) = (true, true, Vec::new(), None);
            return Ok(Staging {
                folder,
                path,
                offer,
                key,
                tree,
                _journal: journal,
                has_part,
                is_placed,
                folders,
                named,
            });
        }
        let text = journal_of(offer, key);
        let mut found = String::new();
        // A journal that is no text is that of no offer.
        let is_same =
            Read::by_ref(&mut journal).take(JOURNAL_BYTES_MAX).read_to_string(&mut found).is_ok() && found == text;
        let has_part = is_same && there == Some(wanted) && (offer.is_folder || is_own(&folder, &part));
        if has_part {
            // It is not left behind.
            let _ = journal.set_modified(SystemTime::now());
        } else {
            if there.is_some() && key_of(&found).is_some_and(|its| its != hex(key)) && age(&journal) < OTHERS_TIME {
                return Err(FileError::new(Fault::Exists, "a part of another peer is there"));
            }
            check_number(&folder, key, &journal_name).inspect_err(|_| {
                // The journal was made for this offer, unless there is a part.
                let _ = there.is_none().then(|| folder.remove_file(&journal_name));
            })?;
            remove(&folder, &part, there)?;
            journal.set_len(0)?;
            journal.seek(SeekFrom::Start(0))?;
            journal.write_all(text.as_bytes())?;
            match offer.is_folder {
                true => folder.create_directory(&part)?,
                false => drop(folder.file(&part, Access::Create)?),
            }
        }
        let tree = offer.is_folder.then(|| folder.directory(&part)).transpose()?;
        let named = (has_part && offer.is_folder).then(|| (RandomState::new(), HashSet::new()));
        let (path, offer, key) = (path.to_owned(), offer.clone(), *key);
        let (is_placed, folders) = (false, Vec::new());
        Ok(Staging { folder, path, offer, key, tree, _journal: journal, has_part, is_placed, folders, named })
    }

    /// Returns true if a part of the offer is there.
    pub fn has_part(&self) -> bool {
        self.has_part
    }

    /// Takes an entry: checks its path, and makes it if it is a folder.
    ///
    /// # Errors
    /// Fails if the path would leave the part, if it was there before, or if the folder cannot be made.
    pub fn take(&mut self, entry: &Entry) -> Result<(), FileError> {
        let about = |error: io::Error| FileError::from(error).about(&entry.path);
        if let Some((state, named)) = &mut self.named
            && !named.insert(state.hash_one(&entry.path))
        {
            return Err(FileError::protocol("the same path comes twice").about(&entry.path));
        }
        let Some(tree) = &self.tree else {
            // A file is its only entry.
            return match (entry.path.as_str(), entry.is_folder) {
                ("", false) => Ok(()),
                _ => Err(FileError::protocol("a path in a file")),
            };
        };
        if entry.path.is_empty() {
            if !entry.is_folder || !self.folders.is_empty() {
                return Err(FileError::protocol("no path"));
            }
        } else {
            check_path(&entry.path).map_err(|error| FileError::new(Fault::Refused, error.to_string()))?;
            if entry.is_folder && self.is_placed {
                tree.directory(Path::new(&entry.path)).map_err(about)?;
            } else if entry.is_folder {
                match tree.create_directory(Path::new(&entry.path)) {
                    // It is there from an earlier transfer.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.has_part => {
                        tree.directory(Path::new(&entry.path)).map(drop).map_err(about)?;
                    }
                    result => result.map_err(about)?,
                }
            }
        }
        if entry.is_folder {
            self.folders.push(entry.clone());
        }
        Ok(())
    }

    /// Digests what is there of a file. Returns the number of bytes, and the digest.
    ///
    /// # Errors
    /// Fails if something else is there, or if it cannot be read.
    pub fn part(&self, entry: &Entry, buf: &mut [u8]) -> Result<(u64, Context), FileError> {
        let mut context = Context::new(&SHA256);
        let mut file = match self.open_entry(entry, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, context)),
            result => result?,
        };
        let mut length = 0;
        loop {
            match file.read(buf) {
                Ok(0) => return Ok((length, context)),
                Ok(count) => {
                    length += count as u64;
                    context.update(&buf[..count]);
                    if length > entry.size {
                        return Ok((0, Context::new(&SHA256)));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens a file to write from a place on. What is behind it is dropped.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn begin(&self, entry: &Entry, offset: u64) -> Result<File, FileError> {
        let about = |error: io::Error| FileError::from(error).about(&entry.path);
        if self.is_placed {
            // Nothing is written: no byte may follow the last one.
            return match offset == entry.size {
                true => self.open_entry(entry, Access::Read).map_err(about),
                false => Err(FileError::new(Fault::Exists, &self.offer.name)),
            };
        }
        // Nothing may be there in a new folder, so no entry comes twice.
        let mut file = match (self.tree.is_some(), self.has_part) {
            (true, false) => self.open_entry(entry, Access::Create).map_err(about)?,
            _ => match self.open_entry(entry, Access::Write) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.open_entry(entry, Access::Create).map_err(about)?
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    // It was whole, and has its mode, which may permit no writing.
                    let own = self.open_entry(entry, Access::Read).map_err(about)?;
                    set_mode(&own, 0o600).map_err(about)?;
                    self.open_entry(entry, Access::Write).map_err(about)?
                }
                result => result.map_err(about)?,
            },
        };
        file.set_len(offset).map_err(about)?;
        file.seek(SeekFrom::Start(offset)).map_err(about)?;
        Ok(file)
    }

    /// Gives a file that is whole its mode and its time.
    ///
    /// # Errors
    /// Fails if it cannot be written to the disk.
    pub fn end(&self, entry: &Entry, file: &File) -> Result<(), FileError> {
        let about = |error: io::Error| FileError::from(error).about(&entry.path);
        if self.is_placed {
            return Ok(());
        }
        if self.tree.is_none() || entry.size >= SYNCED_BYTES_MIN {
            file.sync_all().map_err(about)?;
        }
        set_time(file, entry.modified).map_err(about)?;
        // The mode comes last: it may permit no other transfer to go on with the part.
        set_mode(file, entry.mode).map_err(about)
    }

    /// Gives the whole its name. Returns its path.
    ///
    /// # Errors
    /// Fails if there is something with this name by now, or if the disk fails. The part stays.
    pub fn place(&mut self) -> Result<PathBuf, FileError> {
        let (part, name) = (part_name(&self.offer.name), Path::new(&self.offer.name));
        if self.is_placed {
            return Ok(self.path.join(name));
        }
        if let Some(tree) = &self.tree {
            self.remove_unnamed(tree, "")?;
            for entry in self.folders.iter().rev() {
                let folder = tree.directory(Path::new(if entry.path.is_empty() { "." } else { &entry.path }));
                if let Ok(file) = folder.and_then(|folder| folder.as_file()) {
                    set_mode(&file, entry.mode)?;
                    set_time(&file, entry.modified)?;
                }
            }
        }
        self.folder.rename_new(&part, name).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => FileError::new(Fault::Exists, &self.offer.name),
            _ => error.into(),
        })?;
        // The whole is there, whatever becomes of its journal and of the entry of the directory.
        note_placed(&self.path, &self.offer, self.key);
        let _ = self.folder.remove_file(Path::new(&format!(".{}{JOURNAL}", self.offer.name)));
        let _ = self.folder.sync();
        Ok(self.path.join(name))
    }

    fn open_entry(&self, entry: &Entry, access: Access) -> io::Result<File> {
        match &self.tree {
            Some(tree) => tree.file(Path::new(&entry.path), access),
            None if self.is_placed => self.folder.file(Path::new(&self.offer.name), access),
            None => self.folder.file(&part_name(&self.offer.name), access),
        }
    }

    /// Removes what an earlier transfer has left, and the sender has not any more.
    fn remove_unnamed(&self, tree: &Directory, path: &str) -> Result<(), FileError> {
        let Some((state, named)) = &self.named else { return Ok(()) };
        let here = tree.directory(Path::new(if path.is_empty() { "." } else { path }))?;
        for name in here.entries(usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX))? {
            let text = name.to_str().unwrap_or_default();
            let inner = if path.is_empty() { text.to_owned() } else { format!("{path}/{text}") };
            let (name, kind) = (Path::new(&name), here.kind(Path::new(&name))?);
            match named.contains(&state.hash_one(&inner)) {
                true if kind == Some(EntryKind::Directory) => self.remove_unnamed(tree, &inner)?,
                true => {}
                false => remove(&here, name, kind)?,
            }
        }
        Ok(())
    }
}

fn part_name(name: &str) -> PathBuf {
    PathBuf::from(format!(".{name}.seaprox-part"))
}

/// Opens a journal, or makes it, and locks it.
fn open_journal(folder: &Directory, name: &Path) -> Result<File, FileError> {
    for _ in 0..ATTEMPTS_MAX {
        let journal = match folder.file(name, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => folder.file(name, Access::Create)?,
            result => result?,
        };
        match journal.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::new(Fault::Exists, "it is being received now")),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        // Another transfer may have removed it before the lock, and a third one may have made another.
        if folder.file(name, Access::Read).is_ok_and(|present| is_same_file(&journal, &present)) {
            return Ok(journal);
        }
    }
    Err(FileError::new(Fault::Exists, "it is being received now"))
}

/// Returns true if a part is a file that can be read and that has no other name. A part with another name is a whole file, whose
/// placing was interrupted and which the user may have moved.
fn is_own(folder: &Directory, part: &Path) -> bool {
    #[cfg(unix)]
    return folder
        .file(part, Access::Read)
        .and_then(|file| file.metadata())
        .is_ok_and(|data| std::os::unix::fs::MetadataExt::nlink(&data) == 1);
    #[cfg(not(unix))]
    folder.file(part, Access::Read).is_ok()
}

#[cfg(unix)]
fn is_same_file(one: &File, other: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |file: &File| file.metadata().map(|data| (data.dev(), data.ino())).ok();
    place(one).is_some_and(|it| place(other) == Some(it))
}

#[cfg(not(unix))]
fn is_same_file(_: &File, _: &File) -> bool {
    true
}

/// Removes the parts that were left long ago, and checks the number of the other ones of a peer.
fn check_number(folder: &Directory, key: &[u8; 32], own: &Path) -> Result<(), FileError> {
    let mut count = 0;
    // A folder with more entries is none that is only for parts.
    for entry in folder.entries(usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX)).unwrap_or_default() {
        let name = entry.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(JOURNAL));
        let (Some(name), true) = (name, Path::new(&entry) != own) else { continue };
        let Ok(mut journal) = folder.file(Path::new(&entry), Access::Read) else { continue };
        if age(&journal) >= KEPT_TIME && journal.try_lock().is_ok() {
            let part = part_name(name);
            // A file that cannot be removed now can be later.
            let _ = folder.kind(&part).and_then(|kind| remove(folder, &part, kind));
            let _ = folder.remove_file(Path::new(&entry));
            continue;
        }
        let mut text = String::new();
        let is_read = Read::by_ref(&mut journal).take(JOURNAL_BYTES_MAX).read_to_string(&mut text).is_ok();
        count += usize::from(is_read && key_of(&text) == Some(&hex(key)));
    }
    match count >= PARTS_OF_KEY_MAX {
        true => Err(FileError::new(Fault::TooLarge, "too many interrupted transfers of this peer are there")),
        false => Ok(()),
    }
}

/// Returns the time since the last use of a journal.
fn age(journal: &File) -> Duration {
    let modified = journal.metadata().and_then(|data| data.modified());
    modified.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default()
}

/// Removes an entry, and all that is in it.
fn remove(folder: &Directory, name: &Path, kind: Option<EntryKind>) -> io::Result<()> {
    remove_to(folder, name, kind, DEPTH_MAX)
}

fn remove_to(folder: &Directory, name: &Path, kind: Option<EntryKind>, depth: usize) -> io::Result<()> {
    match kind {
        None => Ok(()),
        Some(EntryKind::Directory) if depth == 0 => {
            Err(io::Error::other("the part has too many folders in one another"))
        }
        Some(EntryKind::Directory) => {
            let inner = folder.directory(name)?;
            // The mode of its sender may permit no writing.
            let _ = inner.as_file().and_then(|file| set_mode(&file, 0o700));
            for entry in inner.entries(usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX))? {
                let kind = inner.kind(Path::new(&entry))?;
                remove_to(&inner, Path::new(&entry), kind, depth - 1)?;
            }
            folder.remove_directory(name)
        }
        Some(_) => folder.remove_file(name),
    }
}

/// Returns the text of the journal of an offer. That of a file has its size; the bytes tell the rest.
fn journal_of(offer: &Offer, key: &[u8; 32]) -> String {
    let key = hex(key);
    match offer.is_folder {
        true => format!("seaprox file/1\nfolder\nkey {key}\n"),
        false => format!("seaprox file/1\nsize {}\nkey {key}\n", offer.bytes),
    }
}

/// Returns the key in the text of a journal.
fn key_of(journal: &str) -> Option<&str> {
    journal.lines().find_map(|line| line.strip_prefix("key "))
}

fn hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time_of((seconds, nanoseconds): (i64, u32)) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let time =
        if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(whole) } else { SystemTime::UNIX_EPOCH.checked_add(whole) };
    time?.checked_add(Duration::from_nanos(nanoseconds.into()))
}

fn set_time(file: &File, modified: (i64, u32)) -> io::Result<()> {
    time_of(modified).map_or(Ok(()), |time| file.set_modified(time))
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u16) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(mode.into()))
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: u16) -> io::Result<()> {
    Ok(())
}

const JOURNAL: &str = ".seaprox-journal";
const JOURNAL_BYTES_MAX: u64 = 1 << 10;
/// Attempts to lock a journal that others make and remove.
const ATTEMPTS_MAX: usize = 16;
/// Interrupted transfers of one key in a folder.
const PARTS_OF_KEY_MAX: usize = 64;
/// Time for which a part is kept from the offers of other peers.
const OTHERS_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time after which a part is removed that no transfer has gone on with.
const KEPT_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Least size of a file of a folder that is on the disk before the folder gets its name. The system writes smaller ones in its own
/// time: one after another, they would take many times as long as their transfer.
const SYNCED_BYTES_MIN: u64 = 1 << 20;
