//! The admin sockets of running processes: a Unix socket of each process, in a directory that only its user can enter.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use seaprox::{SocketFile, UnixStream};

/// Returns the path of the socket of the process `pid` of this user, in the default directory.
///
/// # Errors
/// Fails if there is no directory that this user alone can enter.
pub fn path_of(pid: u32) -> io::Result<PathBuf> {
    Ok(directory()?.join(format!("{pid}.sock")))
}

/// Returns the sockets of all processes of this user that answer, in the default directory. Removes those of killed
/// processes.
///
/// # Errors
/// Fails if the directory cannot be read.
pub fn running() -> io::Result<Vec<PathBuf>> {
    let files = fs::read_dir(directory()?)?.flatten().map(|file| file.path());
    let sockets = files.filter(|path| path.extension().is_some_and(|it| it == "sock"));
    Ok(sockets.filter(|path| is_alive(path)).collect())
}

/// Returns true if a process answers at `path`. Removes the socket of a killed process.
fn is_alive(path: &Path) -> bool {
    let is_alive = UnixStream::connect(path).is_ok();
    if !is_alive {
        // Another process may remove it at the same moment.
        let _ = SocketFile::remove_stale(path);
    }
    is_alive
}

fn directory() -> io::Result<PathBuf> {
    seaprox::system::socket_directory("seaprox")
}
