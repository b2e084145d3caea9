//! The status socket: a Unix socket of each process, in a directory that only its user can enter.
//!
//! A client that connects gets the status as one JSON document, and the connection is closed. A thread serves the clients,
//! so that a slow client delays no loop. The other functions are the client of such a socket.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use seaprox::{SocketFile, UnixListener, UnixStream};

use super::Reporter;
use super::document::CONNECTIONS;

/// Serves the status at `path`. Dropping the returned value removes the socket. Logs a warning and returns none if the
/// socket cannot be made: the process runs without it.
pub fn serve(path: io::Result<PathBuf>, reporter: Arc<Reporter>) -> Option<SocketFile> {
    let shown = path.as_ref().map_or("-".into(), |path| path.display().to_string());
    let (listener, file) = match path.and_then(|path| bind(&path)) {
        Ok(bound) => bound,
        Err(error) => {
            log::warn!(target: "seaprox::status", socket = shown, error = error.to_string(); "the status socket cannot be created");
            return None;
        }
    };
    let serve_clients = move || {
        for client in listener.incoming().flatten() {
            // An error means that this client has left.
            let _ = client.set_write_timeout(Some(CLIENT_TIMEOUT)).and_then(|()| reporter.write(client));
        }
    };
    thread::Builder::new().name("status".into()).spawn(serve_clients).ok()?;
    Some(file)
}

/// Binds the socket with a mode that admits its user only.
fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let (listener, file) = SocketFile::bind(path, BACKLOG, Some(0o600))?;
    listener.set_nonblocking(false)?;
    Ok((listener, file))
}

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

/// Returns the whole status of the process at `path`.
///
/// # Errors
/// Fails if no process answers.
pub fn query(path: &Path) -> io::Result<String> {
    let mut process = UnixStream::connect(path)?;
    process.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let mut document = String::new();
    process.read_to_string(&mut document)?;
    Ok(document)
}

/// Returns the status of the process at `path` without its connections, of which there may be many.
///
/// # Errors
/// Fails if no process answers, or if its answer is not a status.
pub fn query_summary(path: &Path) -> io::Result<String> {
    let mut process = UnixStream::connect(path)?;
    process.set_read_timeout(Some(CLIENT_TIMEOUT))?;
    let (mut summary, mut buf, mut searched) = (Vec::new(), [0; 4096], 0_usize);
    loop {
        let from = searched.saturating_sub(CONNECTIONS.len());
        let found = summary[from..].windows(CONNECTIONS.len()).position(|bytes| bytes == CONNECTIONS.as_bytes());
        searched = summary.len();
        if let Some(end) = found {
            summary.truncate(from + end);
            summary.push(b'}');
            return String::from_utf8(summary).map_err(io::Error::other);
        }
        match process.read(&mut buf)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if summary.len() > SUMMARY_BYTES_MAX => return Err(io::ErrorKind::InvalidData.into()),
            count => summary.extend_from_slice(&buf[..count]),
        }
    }
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

/// Clients that wait to be served.
const BACKLOG: u32 = 128;
/// Bytes of a status without its connections.
const SUMMARY_BYTES_MAX: usize = 4 << 20;
/// Longest wait for the other end of the socket.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
