//! The file of a listening Unix socket. It is created with the socket, and removed when its owner drops it.
//!
//! A killed process leaves its socket file behind. [`SocketFile::bind`] replaces such a file and no other: it must be a
//! socket, belong to this user, and have no listener. A regular file, a symbolic link, a socket of another user and a socket
//! with a listener stay, and the bind fails.

use std::ffi::CString;
use std::fmt;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket};

use super::accounts;
use crate::sys;
use crate::types::unix_file::{UnixMode, UnixOwner};

/// The file of a Unix socket that this process listens on. Dropping it removes the file, unless another file has replaced
/// it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Binds a path and listens on it. The listener does not block. The file has `mode` without the bits of the umask from
    /// its creation on; without a mode the umask alone decides.
    ///
    /// # Errors
    /// The path cannot be bound; [`ErrorKind::AddrInUse`] if a file exists that must not be replaced.
    pub fn bind(path: &Path, backlog: u32, mode: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
        SocketFile::remove_stale(path)?;
        let (socket, file) = SocketFile::make(path, mode)?;
        socket.listen(backlog.min(i32::MAX as u32) as i32)?;
        Ok((UnixListener::from(OwnedFd::from(socket)), file))
    }

    /// Does the same as [`SocketFile::bind`], for a file with exactly this mode and with this owner. Nobody can connect before
    /// the file has both. A file that a process left behind for this owner is replaced, too.
    ///
    /// # Errors
    /// The errors of [`SocketFile::bind`]; this host has no such user or group; this process may not give files to them.
    pub fn bind_owned(
        path: &Path,
        backlog: u32,
        mode: Option<UnixMode>,
        owner: Option<&UnixOwner>,
    ) -> io::Result<(UnixListener, SocketFile)> {
        let user = owner.and_then(UnixOwner::user).map(accounts::user).transpose()?;
        let group = owner.and_then(UnixOwner::group).map(accounts::group).transpose()?;
        SocketFile::remove_stale_of(path, |uid| uid == sys::effective_user() || Some(uid) == user)?;
        let (socket, file) = SocketFile::make(path, mode.map(UnixMode::bits))?;
        if user.is_some() || group.is_some() {
            lchown(path, user, group).map_err(|error| named(error, "the owner of the socket cannot be set"))?;
        }
        // The umask has an effect on the mode at creation, and systems other than Linux ignore that mode.
        if let Some(mode) =
            mode.filter(|mode| fs::symlink_metadata(path).is_ok_and(|it| it.mode() & 0o777 != mode.bits()))
        {
            set_mode(path, mode.bits()).map_err(|error| named(error, "the mode of the socket cannot be set"))?;
        }
        socket.listen(backlog.min(i32::MAX as u32) as i32)?;
        Ok((UnixListener::from(OwnedFd::from(socket)), file))
    }

    /// Binds a path. No client can connect before the socket listens.
    fn make(path: &Path, mode: Option<u32>) -> io::Result<(Socket, SocketFile)> {
        let mut socket = sys::nonblocking_socket(Domain::UNIX)?;
        if let Some(mode) = mode {
            socket = with_mode(socket, mode)?;
        }
        socket.bind(&SockAddr::unix(path)?).map_err(|error| in_the_way(path, error))?;
        let made = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
        // Only Linux takes the mode from the descriptor.
        if let Some(mode) = mode.filter(|mode| made.mode() & 0o777 & !mode != 0) {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok((socket, file))
    }

    /// Removes a socket file that a process of this user left behind. Returns true if there was one.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_stale(path: &Path) -> io::Result<bool> {
        SocketFile::remove_stale_of(path, |uid| uid == sys::effective_user())
    }

    fn remove_stale_of(path: &Path, is_owner: impl Fn(u32) -> bool) -> io::Result<bool> {
        let is_ours = |file: &Metadata| file.file_type().is_socket() && is_owner(file.uid());
        let Some(found) = fs::symlink_metadata(path).ok().filter(is_ours) else { return Ok(false) };
        if has_listener(path) {
            return Ok(false);
        }
        // Another process may have replaced the file and may be listening now.
        if !fs::symlink_metadata(path).is_ok_and(|again| is_same(&found, &again)) {
            return Ok(false);
        }
        fs::remove_file(path).map(|()| true)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_mine = |file: Metadata| file.dev() == self.device && file.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_mine) {
            // An error means that another process has removed the file at the same moment.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sets the mode of a socket's future file: on Linux, bind(2) takes it from the descriptor.
fn with_mode(socket: Socket, mode: u32) -> io::Result<Socket> {
    let descriptor = File::from(OwnedFd::from(socket));
    // If the system refuses, the mode is set after the bind.
    let _ = descriptor.set_permissions(Permissions::from_mode(mode));
    Ok(Socket::from(OwnedFd::from(descriptor)))
}

/// Sets the mode of a file that is no symbolic link: another user of the directory may have replaced the file by one.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mode = mode as libc::mode_t;
    syscall!(libc::fchmodat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW)).map(drop)
}

fn named(error: io::Error, what: &'static str) -> io::Error {
    io::Error::new(error.kind(), Named { what, error })
}

/// An error of the system under a text. It stays the source, so that its number is not lost.
#[derive(Debug)]
struct Named {
    what: &'static str,
    error: io::Error,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for Named {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    one.dev() == other.dev() && one.ino() == other.ino()
}

/// Returns false only if the system reports that no process listens. The check does not block; a listener with a full
/// backlog counts as a listener.
fn has_listener(path: &Path) -> bool {
    let ask = || sys::nonblocking_socket(Domain::UNIX)?.connect(&SockAddr::unix(path)?);
    !matches!(ask(), Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Returns the error that names the obstacle to a bind.
fn in_the_way(path: &Path, error: io::Error) -> io::Error {
    let Some(found) = fs::symlink_metadata(path).ok().filter(|_| error.kind() == ErrorKind::AddrInUse) else {
        return error;
    };
    let what = match found.file_type() {
        kind if !kind.is_socket() => "the existing file is no socket and is not replaced".to_owned(),
        _ if found.uid() != sys::effective_user() => {
            format!("the existing socket belongs to user {} and is not replaced", found.uid())
        }
        _ => return error,
    };
    io::Error::new(ErrorKind::AddrInUse, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::scratch::Scratch;
    use std::os::unix::net::UnixStream;

    fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
        SocketFile::bind(path, 8, Some(0o600))
    }

    /// Creates a socket file without a listener, as a killed process leaves it. The socket never listens: a program that
    /// another test starts holds a copy of it until its exec.
    fn leave(path: &Path) {
        let socket = socket2::Socket::new(Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        socket.bind(&socket2::SockAddr::unix(path).unwrap()).unwrap();
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_drop_removes_the_new_one() {
        let scratch = Scratch::new();
        let path = scratch.path("socket");
        leave(&path);
        let (_listener, file) = bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse, "it has a listener");
        assert!(!SocketFile::remove_stale(&path).unwrap());
        drop(file);
        assert!(scratch.names().is_empty());
    }

    #[test]
    fn a_socket_file_whose_listener_has_a_full_backlog_is_not_replaced() {
        let scratch = Scratch::new();
        let path = scratch.path("socket");
        let (_listener, _file) = SocketFile::bind(&path, 0, None).unwrap();
        let connect = || {
            let socket = sys::nonblocking_socket(Domain::UNIX).unwrap();
            socket.connect(&SockAddr::unix(&path).unwrap()).map(|()| socket)
        };
        let mut waiting = Vec::new();
        while let Ok(socket) = connect() {
            waiting.push(socket);
        }
        assert_eq!(bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_not_a_stale_socket_of_this_user_is_not_replaced() {
        let scratch = Scratch::new();
        let file = scratch.write("file", "precious", 0o600);
        let link = scratch.path("link");
        leave(&scratch.path("socket"));
        std::os::unix::fs::symlink(scratch.path("socket"), &link).unwrap();
        for path in [&file, &link] {
            let error = bind(path).unwrap_err();
            assert!(error.kind() == ErrorKind::AddrInUse && error.to_string().contains("no socket"), "{error}");
            assert!(!SocketFile::remove_stale(path).unwrap());
        }
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && scratch.path("socket").exists());
        if sys::effective_user() != 0 {
            println!("skipped in part: needs root, to make a socket of another user");
            return;
        }
        std::os::unix::fs::chown(scratch.path("socket"), Some(12_345), None).unwrap();
        let error = bind(&scratch.path("socket")).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345") && scratch.path("socket").exists(), "{error}");
    }

    #[test]
    fn a_socket_has_its_mode_and_its_owner_when_clients_can_connect() {
        let scratch = Scratch::new();
        let path = scratch.path("socket");
        let mode = |text: &str| text.parse::<UnixMode>().ok();
        let owner = |text: &str| text.parse::<UnixOwner>().unwrap();
        // The umask of this process leaves others no write.
        let bound = SocketFile::bind_owned(&path, 8, mode("0666"), None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        drop(bound);
        let me = owner(&sys::effective_user().to_string());
        drop(SocketFile::bind_owned(&path, 8, mode("0600"), Some(&me)).unwrap());
        let unknown = SocketFile::bind_owned(&path, 8, None, Some(&owner("no-such-user"))).unwrap_err();
        assert!(unknown.to_string().contains("no user \"no-such-user\""), "{unknown}");
        let unknown = SocketFile::bind_owned(&path, 8, None, Some(&owner(":no-such-group"))).unwrap_err();
        assert!(unknown.to_string().contains("no group \"no-such-group\""), "{unknown}");
        if sys::effective_user() != 0 {
            println!("skipped in part: needs root, to make a socket of another user");
            return;
        }
        let bound = SocketFile::bind_owned(&path, 8, mode("0600"), Some(&owner("nobody:daemon"))).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (65_534, 1, 0o600));
        // A killed process leaves the file behind, and its successor has the same owner.
        std::mem::forget(bound.1);
        drop(bound.0);
        assert!(bind(&path).is_err(), "the file of another user stays without the option");
        SocketFile::bind_owned(&path, 8, None, Some(&owner("65534"))).unwrap();
    }

    #[test]
    fn a_drop_does_not_remove_a_file_that_has_replaced_the_socket() {
        let scratch = Scratch::new();
        let path = scratch.path("socket");
        let (_listener, file) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        scratch.write("socket", "precious", 0o600);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
