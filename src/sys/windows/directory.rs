//! A directory by its path, and what lies beneath it. Each component is looked at before it is used, so links are not followed;
//! a program that changes the tree at the same time is not held off, as it is on Unix.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::sys::{Access, EntryKind};

/// A directory by its path, and all that lies beneath it. Paths are relative; a path with `..`, or one through a link, is
/// refused.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Opens a directory. Links of this path are followed: it is the program's own.
    ///
    /// # Errors
    /// Fails if there is no directory.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let path = fs::canonicalize(path)?;
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Directory(path))
    }

    /// Opens a directory beneath this one.
    ///
    /// # Errors
    /// Fails if there is no directory.
    pub fn directory(&self, path: &Path) -> io::Result<Directory> {
        match self.kind(path)? {
            Some(EntryKind::Directory) => Ok(Directory(self.0.join(path))),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// Fails if the file cannot be opened, if it is there already and [`Access::Create`] is asked for, or if it is not
    /// a regular file.
    pub fn file(&self, path: &Path, access: Access) -> io::Result<File> {
        let kind = self.kind(path)?;
        let mut options = OpenOptions::new();
        match (access, kind) {
            (Access::Create, _) => options.read(true).write(true).create_new(true),
            (Access::Read, Some(EntryKind::File)) => options.read(true),
            (Access::Write, Some(EntryKind::File)) => options.read(true).write(true),
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file")),
        };
        options.open(self.0.join(path))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// Fails if there is something with this name.
    pub fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.kind(path)?;
        fs::create_dir(self.0.join(path))
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// Fails if there is none, or if it is a directory.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.kind(path)?;
        fs::remove_file(self.0.join(path))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Fails if there is none, or if it is not empty.
    pub fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.kind(path)?;
        fs::remove_dir(self.0.join(path))
    }

    /// Returns the kind of an entry, which is not followed if it is a link, or none if there is no such entry.
    ///
    /// # Errors
    /// Fails if a component of the path is a link, or cannot be read.
    pub fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        let (mut at, mut kind) = (self.0.clone(), EntryKind::Directory);
        for component in path.components() {
            let name = match component {
                Component::CurDir => continue,
                Component::Normal(name) => name,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
            if kind != EntryKind::Directory {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            at.push(name);
            let data = match fs::symlink_metadata(&at) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                result => result?,
            };
            kind = match () {
                () if data.is_symlink() => EntryKind::Other,
                () if data.is_dir() => EntryKind::Directory,
                () if data.is_file() => EntryKind::File,
                () => EntryKind::Other,
            };
        }
        Ok(Some(kind))
    }

    /// Returns the names of the entries, in no order.
    ///
    /// # Errors
    /// Fails if the directory cannot be read, or if it has more than `most` entries.
    pub fn entries(&self, most: usize) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            if names.len() == most {
                return Err(io::Error::other("the directory has too many entries"));
            }
            names.push(entry?.file_name());
        }
        Ok(names)
    }

    /// Gives an entry another name in this directory, if nothing has that name. Both are one component.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::AlreadyExists`] if there is something with the new name.
    pub fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.kind(to)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(self.0.join(from), self.0.join(to))
    }

    /// Does nothing: a directory has no content of its own to write.
    ///
    /// # Errors
    /// Never.
    pub fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Refuses: the times of a directory are not set here.
    ///
    /// # Errors
    /// Always.
    pub fn as_file(&self) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
