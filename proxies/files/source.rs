//! A file or a folder that is sent: its entries, and their bytes.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use seaprox::system::{Access, Directory, EntryKind};

use super::fault::{Fault, FileError};
use super::offer::{DEPTH_MAX, ENTRIES_MAX, Entry, MODE_MASK, Offer, check_name, check_path};

/// A file or a folder that is sent. The entries of a folder are those that it had when the source was made.
#[derive(Debug)]
pub struct Source {
    root: Root,
    offer: Offer,
    entries: Vec<Entry>,
    skipped: Vec<String>,
}

#[derive(Debug)]
enum Root {
    File(File),
    Folder(Directory),
}

impl Source {
    /// Opens a file or a folder of this user. A symbolic link to it is followed; those in a folder are skipped.
    ///
    /// # Errors
    /// Fails if it cannot be read, if it is neither a file nor a folder, or if a receiver would not take its name.
    pub fn open(path: &Path) -> Result<Source, FileError> {
        let name = match path.file_name() {
            Some(name) => name.to_str().map(str::to_owned),
            None => path.canonicalize()?.file_name().and_then(|name| name.to_str()).map(str::to_owned),
        };
        let name = name.unwrap_or_default();
        let data = std::fs::metadata(path)?;
        match () {
            () if data.is_dir() => Source::of(name, Root::Folder(Directory::open(path)?)),
            () if data.is_file() => Source::of(name, Root::File(File::open(path)?)),
            () => Err(FileError::new(Fault::Unusable, "expected a file or a folder")),
        }
    }

    /// Opens a file or a folder beneath a folder that is shared.
    ///
    /// # Errors
    /// Fails with [`Fault::Refused`] if there is none, or if the path would leave the folder.
    pub fn beneath(folder: &Directory, path: &str) -> Result<Source, FileError> {
        let refused = |text: &str| FileError::new(Fault::Refused, text);
        check_path(path).map_err(|error| refused(&error.to_string()))?;
        let (at, name) = (Path::new(path), path.rsplit('/').next().unwrap_or(path).to_owned());
        match folder.kind(at) {
            Ok(Some(EntryKind::File)) => Source::of(name, Root::File(folder.file(at, Access::Read)?)),
            Ok(Some(EntryKind::Directory)) => Source::of(name, Root::Folder(folder.directory(at)?)),
            // A link is as good as nothing, and a peer learns no more than that.
            _ => Err(refused("no such file is shared")),
        }
    }

    fn of(name: String, root: Root) -> Result<Source, FileError> {
        check_name(&name).map_err(|error| FileError::new(Fault::Refused, error.to_string()))?;
        let (mut entries, mut skipped) = (Vec::new(), Vec::new());
        match &root {
            Root::File(file) => {
                let data = file.metadata()?;
                if !data.is_file() {
                    return Err(FileError::new(Fault::Unusable, "expected a file"));
                }
                entries.push(entry(String::new(), &data));
            }
            Root::Folder(folder) => walk(folder, &mut entries, &mut skipped)?,
        }
        let offer = Offer {
            name,
            is_folder: matches!(root, Root::Folder(_)),
            entries: entries.len() as u64,
            bytes: entries.iter().map(|entry| entry.size).sum(),
        };
        Ok(Source { root, offer, entries, skipped })
    }

    /// Returns the offer.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// Returns all entries. A folder stands before what is in it.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns what is not sent: links, devices, and names that no receiver takes.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Opens the file of an entry.
    ///
    /// # Errors
    /// Fails if it cannot be read any more.
    pub fn file(&self, entry: &Entry) -> io::Result<File> {
        match &self.root {
            Root::File(file) => file.try_clone(),
            Root::Folder(folder) => folder.file(Path::new(&entry.path), Access::Read),
        }
    }
}

/// Lists a folder, each directory in the order of its names.
fn walk(folder: &Directory, entries: &mut Vec<Entry>, skipped: &mut Vec<String>) -> Result<(), FileError> {
    let mut waiting = vec![String::new()];
    while let Some(path) = waiting.pop() {
        let about = |error: io::Error| FileError::from(error).about(&path);
        let is_root = path.is_empty();
        let here = folder.directory(Path::new(if is_root { "." } else { &path })).map_err(about)?;
        #[cfg(unix)]
        let data = here.as_file().and_then(|file| file.metadata()).map_err(about)?;
        #[cfg(unix)]
        entries.push(entry(path.clone(), &data));
        #[cfg(windows)]
        entries.push(Entry { path: path.clone(), is_folder: true, size: 0, mode: 0o755, modified: (0, 0) });
        let left = usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX).saturating_sub(entries.len());
        let mut names = here.entries(left).map_err(about)?;
        names.sort_unstable();
        let mut folders = Vec::new();
        for name in names {
            let inner = match name.to_str() {
                Some(name) if is_root => name.to_owned(),
                Some(name) => format!("{path}/{name}"),
                None => {
                    skipped.push(format!("{path}/{}", name.to_string_lossy()));
                    continue;
                }
            };
            if inner.split('/').count() > DEPTH_MAX {
                return Err(FileError::new(Fault::Unusable, format!("more than {DEPTH_MAX} folders in one another")));
            }
            let kind = here.kind(Path::new(&name)).map_err(about)?;
            match kind.filter(|_| check_path(&inner).is_ok()) {
                Some(EntryKind::File) => {
                    let file = here.file(Path::new(&name), Access::Read);
                    let data = file.and_then(|file| file.metadata());
                    entries.push(entry(inner.clone(), &data.map_err(|error| FileError::from(error).about(&inner))?));
                }
                Some(EntryKind::Directory) => folders.push(inner),
                Some(EntryKind::Other) => skipped.push(inner),
                // It was removed meanwhile, or its name is none that a receiver takes.
                None => skipped.push(inner),
            }
            if entries.len() + folders.len() + waiting.len() >= usize::try_from(ENTRIES_MAX).unwrap_or(usize::MAX) {
                return Err(FileError::new(Fault::Unusable, format!("more than {ENTRIES_MAX} files")));
            }
        }
        waiting.extend(folders.into_iter().rev());
    }
    Ok(())
}

fn entry(path: String, data: &Metadata) -> Entry {
    let since = data.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let modified = (i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_nanos());
    let size = if data.is_file() { data.len() } else { 0 };
    Entry { path, is_folder: data.is_dir(), size, mode: mode_of(data), modified }
}

#[cfg(unix)]
fn mode_of(data: &Metadata) -> u16 {
    use std::os::unix::fs::PermissionsExt;
    u16::try_from(data.permissions().mode() & u32::from(MODE_MASK)).unwrap_or(0o600)
}

#[cfg(not(unix))]
fn mode_of(_: &Metadata) -> u16 {
    0o644 & MODE_MASK
}
