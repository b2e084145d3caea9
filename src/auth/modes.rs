//! Owners and modes: checks that no other user can change or replace a file, or read a private one.
//!
//! The rules are those of sshd's StrictModes. A file must belong to this user or to root, and no other user may write to
//! it. The same holds for each directory on its path, also on the targets of symbolic links. Two kinds of directory are
//! writable for others and still safe: a directory of root with the sticky bit, such as `/tmp`, if the next entry belongs
//! to this user or to root; and a directory whose group has no other members than this user and root, as with umask 002.
//!
//! The check walks the path from the root, so no other user can change the directories above the checked entry.
//! A pipe or a device is not checked, because its owner and mode tell nothing about its content.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::accounts::Accounts;
use super::error::{KeysError, Problem};
use crate::sys::{self, file_owner};
use crate::types::units::{format_duration, format_size};

/// The policy for owners and modes of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modes {
    /// A file is refused if another user may change it, or may read it and it is private.
    #[default]
    Strict,
    /// Every readable file is accepted.
    Lax,
}

/// The secrecy of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// A key or a secret: other users must not be able to read it.
    Private,
    /// Public content: other users may read it.
    Public,
}

impl Modes {
    /// Opens a file for reading, and checks the open file and its path. Neither the open nor a read of a pipe waits for its
    /// writer for ever.
    pub(super) fn open(self, path: &Path, secrecy: Secrecy) -> Result<(OpenFile, Metadata), KeysError> {
        let (file, metadata) = self.open_checked(path, secrecy)?;
        Ok((OpenFile { file, is_stream: !metadata.is_file(), patience: STREAM_TIMEOUT }, metadata))
    }

    /// Reads a file that no other user can change, up to a maximum size. Refuses everything but a regular file: a pipe
    /// without a writer would never answer.
    ///
    /// # Errors
    /// The file cannot be read, is longer or is no regular file, or another user can change it.
    pub fn read_regular(self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, KeysError> {
        let (file, metadata) = self.open_checked(path, Secrecy::Public)?;
        if !metadata.is_file() {
            return Err(KeysError::content(path, "a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(KeysError::io(path))?;
        if bytes.len() as u64 > bytes_max {
            return Err(KeysError::content(path, format!("at most {}", format_size(bytes_max))));
        }
        Ok(bytes)
    }

    /// Checks the directories on the way to a file that need not exist.
    ///
    /// # Errors
    /// Another user can add or replace the file.
    pub fn check_directories(self, path: &Path) -> Result<(), KeysError> {
        if self == Modes::Lax || !sys::HAS_OWNERS {
            return Ok(());
        }
        Judge { path, user: sys::effective_user() }.walk().map(drop)
    }

    fn open_checked(self, path: &Path, secrecy: Secrecy) -> Result<(File, Metadata), KeysError> {
        let judge = Judge { path, user: sys::effective_user() };
        for _ in 0..TRIES {
            let file = match sys::open_nonblocking(path) {
                Ok(file) => file,
                // In a directory that others may write to, another user may have removed the file.
                Err(error) if error.kind() == ErrorKind::NotFound && self == Modes::Strict && sys::HAS_OWNERS => {
                    return Err(judge.walk().err().unwrap_or_else(|| KeysError::new(path, Problem::Io(error))));
                }
                Err(error) => return Err(KeysError::new(path, Problem::Io(error))),
            };
            let metadata = file.metadata().map_err(KeysError::io(path))?;
            if self == Modes::Strict && !sys::HAS_OWNERS && secrecy == Secrecy::Private {
                let file = path.display().to_string();
                log::warn!(target: "seaprox::auth", file = file; "not checked who may read this file: the system has no modes");
            }
            if self == Modes::Lax || !sys::HAS_OWNERS || !metadata.is_file() {
                return Ok((file, metadata));
            }
            judge.file(&metadata, secrecy)?;
            // A file without a name, such as a here-document, has no directory.
            if file_owner(&metadata).links == 0 || judge.walk()?.is_some_and(|found| is_same(&found, &metadata)) {
                return Ok((file, metadata));
            }
            // The file was replaced between the open and the check of its path.
        }
        Err(KeysError::new(path, Problem::Io(io::Error::other("the file was replaced at each attempt to check it"))))
    }
}

/// A file that is read. A pipe or a device without data is read for as long as [`STREAM_TIMEOUT`].
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    /// True for a pipe or a device, which may have no data yet.
    is_stream: bool,
    patience: Duration,
}

impl io::Read for OpenFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_stream && !sys::wait_readable(&self.file, self.patience)? {
                let text = format!("no data within {}", format_duration(self.patience));
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            match self.file.read(buf) {
                // Another reader has taken the data.
                Err(error) if self.is_stream && error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

/// Checks a file and its path for one user.
struct Judge<'a> {
    path: &'a Path,
    user: u32,
}

impl Judge<'_> {
    fn is_trusted(&self, owner: u32) -> bool {
        owner == self.user || owner == 0
    }

    /// Returns true if other users may write, by the mode bits for others or for a group with other members.
    fn is_writable(&self, entry: &Metadata) -> bool {
        let owner = file_owner(entry);
        owner.mode & 0o002 != 0 || owner.mode & 0o020 != 0 && !Accounts::read().is_private(owner.group, self.user)
    }

    fn owner(&self, at: &Path, entry: &Metadata) -> Result<(), KeysError> {
        let owner = file_owner(entry).user;
        if self.is_trusted(owner) {
            return Ok(());
        }
        let (at, user) = (at.to_owned(), self.user);
        Err(KeysError::new(self.path, Problem::Owner { at, owner, user }))
    }

    /// Checks the file itself.
    fn file(&self, file: &Metadata, secrecy: Secrecy) -> Result<(), KeysError> {
        self.owner(self.path, file)?;
        let sys::FileOwner { user: owner, mode, .. } = file_owner(file);
        // Root may let a group read its file, as Kubernetes does with secrets; this user cannot change that mode.
        let readable = if owner == 0 && self.user != 0 { 0o037 } else { 0o077 };
        if secrecy == Secrecy::Private && mode & readable != 0 {
            return Err(KeysError::new(self.path, Problem::Readable(mode)));
        }
        if self.is_writable(file) {
            return Err(KeysError::new(self.path, Problem::Writable(mode)));
        }
        Ok(())
    }

    /// Checks a directory. Returns true if others may add entries, as in a sticky directory of root.
    fn directory(&self, at: &Path) -> Result<bool, KeysError> {
        let entry = fs::symlink_metadata(at).map_err(KeysError::io(at))?;
        self.owner(at, &entry)?;
        if !self.is_writable(&entry) {
            return Ok(false);
        }
        let sys::FileOwner { user: owner, mode, .. } = file_owner(&entry);
        if owner == 0 && mode & STICKY != 0 {
            return Ok(true);
        }
        let at = at.to_owned();
        Err(KeysError::new(self.path, Problem::Directory { at, mode }))
    }

    /// Walks the path and checks each directory. Returns the metadata of the last entry, or `None` if it does not exist.
    fn walk(&self) -> Result<Option<Metadata>, KeysError> {
        let mut at = PathBuf::from("/");
        let mut rest = words(self.path);
        if !self.path.is_absolute() {
            let here = std::env::current_dir().map_err(KeysError::io(self.path))?;
            rest = words(&here).into_iter().chain(rest).collect();
        }
        let mut is_shared = self.directory(&at)?;
        let mut links = 0;
        while let Some(word) = rest.pop_front() {
            if word == ".." {
                at.pop();
                is_shared = self.directory(&at)?;
                continue;
            }
            let next = at.join(&word);
            let entry = match fs::symlink_metadata(&next) {
                Ok(entry) => entry,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(KeysError::new(self.path, Problem::Io(error))),
            };
            if is_shared {
                self.owner(&next, &entry)?;
            }
            if entry.is_symlink() {
                links += 1;
                let target = fs::read_link(&next).map_err(KeysError::io(&next))?;
                if links > LINKS_MAX {
                    return Err(KeysError::new(self.path, Problem::Io(io::Error::other("too many symbolic links"))));
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                    is_shared = self.directory(&at)?;
                }
                rest = words(&target).into_iter().chain(rest).collect();
            } else if rest.is_empty() {
                return Ok(Some(entry));
            } else {
                at = next;
                is_shared = self.directory(&at)?;
            }
        }
        fs::symlink_metadata(&at).map(Some).map_err(KeysError::io(&at))
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    sys::file_identity(one) == sys::file_identity(other)
}

/// The entries that a path names one after the other.
fn words(path: &Path) -> VecDeque<OsString> {
    let word = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(word).collect()
}

/// Longest wait for the next data of a pipe or a device. It is shorter than the deadline of a reload, so that the error
/// names the file.
const STREAM_TIMEOUT: Duration = Duration::from_secs(15);
const STICKY: u32 = 0o1000;
/// Limit of the symbolic links on one path, the same as in Linux.
const LINKS_MAX: u32 = 40;
/// Attempts to check a file that is replaced during the check.
const TRIES: u32 = 8;

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    const JOE: u32 = 54_321;
    const OTHER: u32 = 54_322;

    fn set(path: &Path, user: u32, group: u32, mode: u32) {
        chown(path, Some(user), Some(group)).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Returns the error about a file from the view of a user.
    fn wrong(path: &Path, user: u32, secrecy: Secrecy) -> Option<String> {
        let judge = Judge { path, user };
        let file = fs::metadata(path).unwrap();
        let checked = judge.file(&file, secrecy).and_then(|()| judge.walk());
        checked.map(|found| assert!(is_same(&found.unwrap(), &file))).err().map(|error| error.to_string())
    }

    /// A directory and a file in it that belong to this user.
    fn tree() -> (Scratch, PathBuf, PathBuf) {
        let scratch = Scratch::new();
        let directory = scratch.path("seaprox");
        fs::create_dir(&directory).unwrap();
        let file = scratch.write("seaprox/key", "x", 0o600);
        (scratch, directory, file)
    }

    fn is_root() -> bool {
        let is_root = sys::effective_user() == 0;
        if !is_root {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root, and nothing is skipped in CI");
            println!("skipped: needs root");
        }
        is_root
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_one_without_a_writer_is_an_error() {
        let scratch = Scratch::new();
        let path = scratch.path("pipe");
        sys::make_pipe(&path).unwrap();
        let (mut file, _) = Modes::Strict.open(&path, Secrecy::Private).unwrap();
        file.patience = Duration::from_millis(20);
        let error = file.read(&mut [0; 8]).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::TimedOut, "no data within 20ms"));
        // A writer that comes later is waited for.
        file.patience = STREAM_TIMEOUT;
        let writer = std::thread::spawn(move || fs::write(path, "abc").unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        writer.join().unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let (_scratch, directory, file) = tree();
        let us = sys::effective_user();
        assert_eq!(wrong(&file, us, Secrecy::Private), None);
        // The sticky bit helps in a directory of root alone.
        for mode in [0o777, 0o702, if us == 0 { 0o722 } else { 0o1777 }] {
            fs::set_permissions(&directory, Permissions::from_mode(mode)).unwrap();
            let error = wrong(&file, us, Secrecy::Private).unwrap();
            let expected = format!("others may write to the directory {} (mode {mode:04o})", directory.display());
            assert!(error.contains(&expected) && error.contains(file.to_str().unwrap()), "{error}");
            assert!(error.ends_with(&format!("type: chmod go-w {}", directory.display())), "{error}");
        }
        // A missing file is refused there as well: another user may have removed it.
        let error = Modes::Strict.open(&directory.join("none"), Secrecy::Public).unwrap_err();
        assert!(!error.is_missing() && error.is_about_modes(), "{error}");
        assert!(Modes::Lax.open(&directory.join("none"), Secrecy::Public).unwrap_err().is_missing());
        assert!(Modes::Lax.open(&file, Secrecy::Private).is_ok());
    }

    #[test]
    fn the_path_of_a_symbolic_links_target_is_checked() {
        let (scratch, _directory, file) = tree();
        let us = sys::effective_user();
        let open = scratch.path("open");
        fs::create_dir(&open).unwrap();
        symlink(&file, open.join("link")).unwrap();
        symlink("seaprox/../open/./link", scratch.path("relative")).unwrap();
        symlink("loop", scratch.path("loop")).unwrap();
        for path in [open.join("link"), scratch.path("relative"), scratch.path("seaprox/../open/link")] {
            fs::set_permissions(&open, Permissions::from_mode(0o755)).unwrap();
            assert_eq!(wrong(&path, us, Secrecy::Private), None, "{path:?}");
            fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
            assert!(wrong(&path, us, Secrecy::Private).unwrap().contains("others may write to the directory"));
        }
        assert!(Judge { path: &scratch.path("loop"), user: us }.walk().unwrap_err().to_string().contains("too many"));
        assert!(Judge { path: Path::new("Cargo.toml"), user: us }.walk().unwrap().unwrap().is_file());
    }

    #[test]
    fn a_file_or_directory_of_another_user_is_refused() {
        if !is_root() {
            return;
        }
        let (_scratch, directory, file) = tree();
        for (owner, user, fits) in
            [(0, 0, true), (JOE, JOE, true), (0, JOE, true), (OTHER, JOE, false), (JOE, 0, false)]
        {
            set(&file, owner, 0, 0o600);
            let error = wrong(&file, user, Secrecy::Public);
            assert_eq!(error.is_none(), fits, "{error:?}");
            set(&file, user, 0, 0o600);
            set(&directory, owner, 0, 0o755);
            let error = wrong(&file, user, Secrecy::Public);
            assert_eq!(error.is_none(), fits, "{error:?}");
            if let Some(error) = error {
                let part = format!("{} belongs to user {owner}: expected ", directory.display());
                assert!(error.contains(&part), "{error}");
            }
            set(&directory, 0, 0, 0o755);
        }
        // The scratch directory is in a sticky directory of root that all users may write to.
        let (scratch, _, file) = tree();
        chown(scratch.path(""), Some(OTHER), None).unwrap();
        assert!(wrong(&file, 0, Secrecy::Public).unwrap().contains("belongs to user 54322"));
    }

    #[test]
    fn a_sticky_directory_of_root_is_accepted_if_the_next_entry_is_this_users_or_roots() {
        if !is_root() {
            return;
        }
        let (_scratch, directory, file) = tree();
        set(&directory, 0, 0, 0o1777);
        for (owner, fits) in [(JOE, true), (0, true), (OTHER, false)] {
            set(&file, owner, 0, 0o644);
            assert_eq!(wrong(&file, JOE, Secrecy::Public).is_none(), fits);
        }
        let link = directory.join("link");
        set(&file, JOE, 0, 0o644);
        symlink("key", &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
        assert!(wrong(&link, JOE, Secrecy::Public).unwrap().contains("belongs to user 54322"));
        std::os::unix::fs::lchown(&link, Some(JOE), None).unwrap();
        assert_eq!(wrong(&link, JOE, Secrecy::Public), None);
        // The sticky bit does not restrict the owner of the directory.
        set(&directory, JOE, 0, 0o1777);
        assert!(wrong(&file, JOE, Secrecy::Public).is_some());
    }

    #[test]
    fn group_write_is_accepted_if_the_group_is_private() {
        if !is_root() {
            return;
        }
        let (_scratch, directory, file) = tree();
        let private = |gid| Accounts::read().is_private(gid, 0);
        set(&directory, 0, 0, 0o775);
        set(&file, 0, 0, 0o664);
        assert_eq!(wrong(&file, 0, Secrecy::Public).is_none(), private(0), "root's own group");
        set(&directory, 0, OTHER, 0o755);
        set(&file, 0, OTHER, 0o664);
        assert!(wrong(&file, 0, Secrecy::Public).unwrap().contains("others can change it (mode 0664)"));
        set(&file, 0, OTHER, 0o644);
        set(&directory, 0, OTHER, 0o775);
        assert!(wrong(&file, 0, Secrecy::Public).unwrap().contains("others may write to the directory"));
    }

    /// A volume as the kubelet makes it: the files are links through `..data`, a link of root, into a dated directory.
    /// With an fsGroup the group may read.
    #[test]
    fn a_secret_volume_of_kubernetes_is_accepted() {
        if !is_root() {
            return;
        }
        let (_scratch, volume, _) = tree();
        fs::remove_file(volume.join("key")).unwrap();
        let dated = volume.join("..2026_11_28");
        fs::create_dir(&dated).unwrap();
        symlink("..2026_11_28", volume.join("..data")).unwrap();
        symlink("..data/key", volume.join("key")).unwrap();
        fs::write(dated.join("key"), "x").unwrap();
        set(&volume, 0, OTHER, 0o3777);
        set(&dated, 0, OTHER, 0o2755);
        for (mode, fits) in [(0o440, true), (0o640, true), (0o400, true), (0o444, false), (0o660, false)] {
            set(&dated.join("key"), 0, OTHER, mode);
            assert_eq!(wrong(&volume.join("key"), JOE, Secrecy::Private).is_none(), fits, "{mode:o}");
        }
        set(&dated.join("key"), 0, OTHER, 0o444);
        assert_eq!(wrong(&volume.join("key"), JOE, Secrecy::Public), None);
    }

    #[test]
    fn a_device_is_not_checked() {
        assert!(Modes::Strict.open(Path::new("/dev/null"), Secrecy::Private).is_ok());
        let error = Modes::Strict.open(Path::new("/no/such/file"), Secrecy::Public).unwrap_err();
        assert!(error.is_missing(), "{error}");
    }
}
