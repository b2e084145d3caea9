//! A directory by its descriptor, and what lies beneath it: no path leads out of it, whoever changes the tree meanwhile.
//!
//! A path is relative, and its components are names. Linux resolves it in one call (`openat2` with `RESOLVE_BENEATH`,
//! `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_MAGICLINKS`); elsewhere, and where the call is forbidden, each component is
//! opened by itself with `O_NOFOLLOW`. Both refuse symbolic links at every place of the path.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use crate::sys::{Access, EntryKind, kernel};

/// A directory by its descriptor, and all that lies beneath it. Paths are relative; a path with `..`, or one through a symbolic
/// link, is refused.
#[derive(Debug)]
pub struct Directory(OwnedFd);

impl Directory {
    /// Opens a directory. Symbolic links of this path are followed: it is the program's own.
    ///
    /// # Errors
    /// Fails if there is no directory, or if it cannot be read.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // The path ends with a NUL.
        let fd = syscall!(libc::open(path.as_ptr(), flags))?;
        // SAFETY: the descriptor was opened here, and nothing else owns it.
        Ok(Directory(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Opens a directory beneath this one.
    ///
    /// # Errors
    /// Fails if there is no directory, or if it cannot be read.
    pub fn directory(&self, path: &Path) -> io::Result<Directory> {
        self.open_beneath(path, libc::O_RDONLY | libc::O_DIRECTORY, 0).map(Directory)
    }

    /// Opens a regular file. A new file belongs to its owner alone until its mode is set.
    ///
    /// # Errors
    /// Fails if the file cannot be opened, if it is there already and [`Access::Create`] is asked for, or if it is not
    /// a regular file. A FIFO does not block.
    pub fn file(&self, path: &Path, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => libc::O_RDONLY,
            Access::Write => libc::O_RDWR,
            Access::Create => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
        let file = File::from(self.open_beneath(path, flags | libc::O_NONBLOCK | libc::O_NOCTTY, 0o600)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file")),
        }
    }

    /// Makes a directory that belongs to its owner alone.
    ///
    /// # Errors
    /// Fails if there is something with this name.
    pub fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.in_parent(path, |parent, name| {
            // The name ends with a NUL.
            syscall!(libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o700)).map(drop)
        })
    }

    /// Removes a file or a link.
    ///
    /// # Errors
    /// Fails if there is none, or if it is a directory.
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.unlink(path, 0)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Fails if there is none, or if it is not empty.
    pub fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.unlink(path, libc::AT_REMOVEDIR)
    }

    /// Returns the kind of an entry, which is not followed if it is a link, or none if there is no such entry.
    ///
    /// # Errors
    /// Fails if the directory of the entry cannot be read.
    pub fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        let mut found = std::mem::MaybeUninit::<libc::stat>::uninit();
        let result = self.in_parent(path, |parent, name| {
            let (fd, flags) = (parent.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
            // The name ends with a NUL, and the call writes the structure.
            syscall!(libc::fstatat(fd, name.as_ptr(), found.as_mut_ptr(), flags))
        });
        match result {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: the call has succeeded, so it has written the structure.
        let mode = unsafe { found.assume_init() }.st_mode;
        Ok(Some(match mode & libc::S_IFMT {
            libc::S_IFREG => EntryKind::File,
            libc::S_IFDIR => EntryKind::Directory,
            _ => EntryKind::Other,
        }))
    }

    /// Returns the names of the entries, in no order.
    ///
    /// # Errors
    /// Fails if the directory cannot be read, or if it has more than `most` entries.
    pub fn entries(&self, most: usize) -> io::Result<Vec<OsString>> {
        // A descriptor of its own, because the position belongs to the open file.
        let own = self.open_beneath(Path::new("."), libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        let mut stream = Stream::open(own)?;
        let mut names = Vec::new();
        while let Some(name) = stream.next()? {
            if names.len() == most {
                return Err(io::Error::other("the directory has too many entries"));
            }
            names.push(name);
        }
        Ok(names)
    }

    /// Gives an entry another name in this directory, if nothing has that name. Both are one component.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::AlreadyExists`] if there is something with the new name.
    pub fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (c_name(from)?, c_name(to)?);
        match kernel::rename_new(self.0.as_fd(), &from, &to) {
            Some(result) => result,
            None => self.rename_checked(&from, &to),
        }
    }

    /// Writes the entries of the directory to the disk.
    ///
    /// # Errors
    /// Fails if the disk does.
    pub fn sync(&self) -> io::Result<()> {
        syscall!(libc::fsync(self.0.as_raw_fd())).map(drop)
    }

    /// Returns the directory as a file, whose permissions and times can be set.
    ///
    /// # Errors
    /// Fails if the process has no descriptor left.
    pub fn as_file(&self) -> io::Result<File> {
        self.0.try_clone().map(File::from)
    }

    /// Renames by a link, which fails if the name is there, or else after a check.
    fn rename_checked(&self, from: &CStr, to: &CStr) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        // All names end with a NUL.
        let linked = syscall!(libc::linkat(fd, from.as_ptr(), fd, to.as_ptr(), 0));
        match linked {
            Ok(_) => syscall!(libc::unlinkat(fd, from.as_ptr(), 0)).map(drop),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
            // A directory has no second link, and not every file system has hard links.
            Err(_) => {
                if self.kind(Path::new(OsStr::from_bytes(to.to_bytes())))?.is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                syscall!(libc::renameat(fd, from.as_ptr(), fd, to.as_ptr())).map(drop)
            }
        }
    }

    fn unlink(&self, path: &Path, flags: i32) -> io::Result<()> {
        self.in_parent(path, |parent, name| {
            // The name ends with a NUL.
            syscall!(libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), flags)).map(drop)
        })
    }

    /// Calls a function with the directory of an entry, and with the name of the entry in it.
    fn in_parent<T>(&self, path: &Path, call: impl FnOnce(BorrowedFd<'_>, &CStr) -> io::Result<T>) -> io::Result<T> {
        let name = c_name(Path::new(path.file_name().ok_or(io::ErrorKind::InvalidInput)?))?;
        match path.parent() {
            Some(parent) if parent != Path::new("") => call(self.directory(parent)?.0.as_fd(), &name),
            _ => call(self.0.as_fd(), &name),
        }
    }

    fn open_beneath(&self, path: &Path, flags: i32, mode: u32) -> io::Result<OwnedFd> {
        let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let whole = CString::new(path.as_os_str().as_bytes())?;
        match kernel::open_beneath(self.0.as_fd(), &whole, flags, mode) {
            Some(result) => result,
            None => self.open_by_components(path, flags, mode),
        }
    }

    /// Opens each component by itself.
    fn open_by_components(&self, path: &Path, flags: i32, mode: u32) -> io::Result<OwnedFd> {
        let names: Vec<CString> = path.components().filter_map(component_name).collect::<io::Result<_>>()?;
        let Some((last, parents)) = names.split_last() else {
            return open_one(self.0.as_fd(), c".", flags, mode);
        };
        let mut at: Option<OwnedFd> = None;
        for name in parents {
            let directory = at.as_ref().map_or(self.0.as_fd(), AsFd::as_fd);
            at = Some(open_one(
                directory,
                name,
                libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC,
                0,
            )?);
        }
        open_one(at.as_ref().map_or(self.0.as_fd(), AsFd::as_fd), last, flags, mode)
    }
}

/// The entries of a directory, while they are read.
struct Stream(*mut libc::DIR);

impl Stream {
    fn open(directory: OwnedFd) -> io::Result<Stream> {
        // SAFETY: the descriptor is that of a directory.
        let stream = unsafe { libc::fdopendir(directory.as_raw_fd()) };
        if stream.is_null() {
            return Err(io::Error::last_os_error());
        }
        // The stream owns it now.
        std::mem::forget(directory);
        Ok(Stream(stream))
    }

    fn next(&mut self) -> io::Result<Option<OsString>> {
        loop {
            set_errno(0);
            // SAFETY: the stream is open, and the entry is copied before the next call.
            let entry = unsafe { libc::readdir(self.0) };
            if entry.is_null() {
                let error = io::Error::last_os_error();
                return if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
            }
            // SAFETY: the name of an entry ends with a NUL.
            let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) }.to_bytes();
            if name != b"." && name != b".." {
                return Ok(Some(OsString::from_vec(name.to_vec())));
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and nothing uses it afterwards.
        unsafe { libc::closedir(self.0) };
    }
}

fn set_errno(value: i32) {
    #[cfg(any(target_os = "linux", target_os = "l4re"))]
    // SAFETY: the address is that of the error number of this thread.
    unsafe {
        *libc::__errno_location() = value;
    }
    #[cfg(target_os = "android")]
    // SAFETY: the address is that of the error number of this thread.
    unsafe {
        *libc::__errno() = value;
    }
    #[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
    // SAFETY: the address is that of the error number of this thread.
    unsafe {
        *libc::__error() = value;
    }
    #[cfg(not(any(
        target_os = "linux",
        target_os = "l4re",
        target_os = "android",
        target_os = "macos",
        target_os = "ios",
        target_os = "freebsd"
    )))]
    let _ = value;
}

/// Returns the name of a component; none for `.`.
fn component_name(component: Component<'_>) -> Option<io::Result<CString>> {
    match component {
        Component::CurDir => None,
        Component::Normal(name) => Some(CString::new(name.as_bytes()).map_err(io::Error::from)),
        _ => Some(Err(io::ErrorKind::InvalidInput.into())),
    }
}

/// Returns a path of one component.
fn c_name(path: &Path) -> io::Result<CString> {
    let mut components = path.components().filter_map(component_name);
    match (components.next(), components.next()) {
        (Some(name), None) => name,
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn open_one(directory: BorrowedFd<'_>, name: &CStr, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    // The name ends with a NUL.
    let fd = syscall!(libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, mode as libc::c_uint))?;
    // SAFETY: the descriptor was opened here, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    /// A directory of its own, which is removed at the end.
    struct Scratch(PathBuf, Directory);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("seaprox-directory-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("in/deep")).unwrap();
            fs::write(path.join("in/deep/file"), "text").unwrap();
            fs::write(path.join("outside"), "secret").unwrap();
            let directory = Directory::open(&path.join("in")).unwrap();
            Scratch(path, directory)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Opens a file by both ways, which must agree. Returns the error of both.
    #[track_caller]
    fn refused(directory: &Directory, path: &str) -> bool {
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let by_components = directory.open_by_components(Path::new(path), flags, 0).is_err();
        assert_eq!(directory.file(Path::new(path), Access::Read).is_err(), by_components, "{path}");
        by_components
    }

    #[test]
    fn no_path_leads_out_of_a_directory() {
        let Scratch(path, directory) = &Scratch::new("out");
        symlink(path, path.join("in/link")).unwrap();
        symlink("deep", path.join("in/inner")).unwrap();
        symlink("deep/file", path.join("in/short")).unwrap();
        assert!(!refused(directory, "deep/file") && !refused(directory, "./deep/./file"));
        let out =
            ["../outside", "deep/../../outside", "/etc/passwd", "link/outside", "inner/file", "short", "deep/none"];
        for wrong in out {
            assert!(refused(directory, wrong), "{wrong}");
        }
        for wrong in ["../new", "link/new", "inner/new"] {
            assert!(directory.file(Path::new(wrong), Access::Create).is_err(), "{wrong}");
            assert!(directory.create_directory(Path::new(wrong)).is_err(), "{wrong}");
            assert!(directory.remove_file(Path::new(wrong)).is_err(), "{wrong}");
        }
        assert!(directory.directory(Path::new("inner")).is_err() && directory.kind(Path::new("..")).is_err());
        assert_eq!(directory.kind(Path::new("link")).unwrap(), Some(EntryKind::Other));
        assert_eq!(directory.kind(Path::new("deep/none")).unwrap(), None);
    }

    #[test]
    fn files_are_made_listed_renamed_and_removed() {
        let Scratch(path, directory) = &Scratch::new("made");
        let at = Path::new;
        directory.create_directory(at("deep/er")).unwrap();
        directory.file(at("deep/er/new"), Access::Create).unwrap();
        assert!(directory.file(at("deep/er/new"), Access::Create).is_err());
        directory.file(at("deep/er/new"), Access::Write).unwrap();
        let deep = directory.directory(at("deep")).unwrap();
        let mut names = deep.entries(2).unwrap();
        names.sort();
        assert_eq!(names, ["er", "file"]);
        assert_eq!(deep.entries(2).unwrap().len(), 2, "they are listed again");
        assert!(deep.entries(1).is_err());
        let exists = |result: io::Result<()>| result.map_err(|error| error.kind());
        assert_eq!(exists(deep.rename_new(at("er"), at("file"))), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(exists(deep.rename_checked(c"file", c"er")), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(exists(deep.rename_checked(c"er", c"file")), Err(io::ErrorKind::AlreadyExists));
        deep.rename_new(at("er"), at("other")).unwrap();
        deep.rename_checked(c"file", c"renamed").unwrap();
        deep.rename_checked(c"other", c"er").unwrap();
        assert!(directory.remove_directory(at("deep/er")).is_err());
        directory.remove_file(at("deep/er/new")).unwrap();
        directory.remove_directory(at("deep/er")).unwrap();
        deep.sync().unwrap();
        assert_eq!(fs::read(path.join("in/deep/renamed")).unwrap(), b"text");
    }

    #[test]
    fn a_fifo_is_no_file_and_does_not_block() {
        let Scratch(path, directory) = &Scratch::new("fifo");
        let fifo = CString::new(path.join("in/fifo").into_os_string().into_vec()).unwrap();
        syscall!(libc::mkfifo(fifo.as_ptr(), 0o600)).unwrap();
        assert!(directory.file(Path::new("fifo"), Access::Read).is_err());
        assert_eq!(directory.kind(Path::new("fifo")).unwrap(), Some(EntryKind::Other));
    }
}
