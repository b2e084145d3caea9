//! A file as the end of a tunnel: its content for the peer, or a place where the bytes of the peer are appended.
//!
//! A file blocks its reader and its writer, a slow disk or a lost network for long, so a thread works on it and not the loop.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::path::Path;

use super::{COPY_BYTES, Job};
use crate::engine::connector::Answer;
use crate::sys::{UnixStream, append_options, read_options, unix_pair};
use crate::types::reason::{Failure, Reason};
use crate::types::units::format_size;

/// Sends the content of a file, and then the end of the stream.
pub(super) fn send(job: &Job, path: &Path, answer: Answer) {
    let opened = read_options().open(path).and_then(only_regular);
    let Some((mut file, mut socket)) = join(job, opened, answer) else { return };
    let mut buf = vec![0; COPY_BYTES];
    loop {
        let count = match file.read(&mut buf) {
            Ok(0) => return finish(&socket),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return job.fail(failure(&error)),
        };
        if socket.write_all(&buf[..count]).is_err() {
            // The connection is over.
            return;
        }
    }
}

/// Appends the bytes of the peer to a file. The end of the stream tells the peer that all of them are on the disk.
pub(super) fn append(job: &Job, (path, creates, size_max): (&Path, bool, Option<u64>), answer: Answer) {
    let opened = append_options(creates).open(path).and_then(only_regular);
    let Some((mut file, mut socket)) = join(job, opened, answer) else { return };
    let mut buf = vec![0; COPY_BYTES];
    loop {
        let count = match socket.read(&mut buf) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // The connection is over.
            Err(_) => return,
        };
        if let Err(failure) = write(&mut file, &buf[..count], size_max) {
            return job.fail(failure);
        }
    }
    match file.sync_data() {
        // Some file systems have no such operation.
        Err(error) if error.kind() != ErrorKind::InvalidInput && error.kind() != ErrorKind::Unsupported => {
            job.fail(failure(&error));
        }
        _ => finish(&socket),
    }
}

/// Writes bytes, as far as the size permits.
fn write(file: &mut File, bytes: &[u8], size_max: Option<u64>) -> Result<(), Failure> {
    let Some(max) = size_max else { return file.write_all(bytes).map_err(|error| failure(&error)) };
    // Others may append at the same time, so the size is asked for each time.
    let size = file.metadata().map_err(|error| failure(&error))?.len();
    let room = usize::try_from(max.saturating_sub(size)).unwrap_or(usize::MAX).min(bytes.len());
    file.write_all(&bytes[..room]).map_err(|error| failure(&error))?;
    if room < bytes.len() {
        let text = format!("the file has reached its size of {}", format_size(max));
        return Err(Failure::new(Reason::LimitReached, text));
    }
    Ok(())
}

/// Joins an opened file to the loop. Returns the file and the socket of the thread; none if the file could not be opened.
fn join(job: &Job, opened: io::Result<File>, answer: Answer) -> Option<(File, UnixStream)> {
    let joined = opened.and_then(|file| unix_pair().map(|(ours, theirs)| (file, ours, theirs)));
    match joined {
        Ok((file, ours, theirs)) => {
            answer.connected(ours);
            Some((file, theirs))
        }
        Err(error) => {
            job.refuse(answer, &error);
            None
        }
    }
}

/// Passes the end on. Bytes that the thread has not read would turn the end into a reset, so they are read first.
fn finish(socket: &UnixStream) {
    // A connection that is over needs no end.
    let _ = socket.shutdown(Shutdown::Both);
    let _ = socket.set_nonblocking(true);
    let (mut buf, mut socket) = ([0; 4096], socket);
    while matches!(socket.read(&mut buf), Ok(1..)) {}
}

fn only_regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    }
}

/// Returns the failure of a file. A full disk and a quota are limits.
fn failure(error: &io::Error) -> Failure {
    let is_limit = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    Failure::new(if is_limit { Reason::LimitReached } else { Reason::Other }, error.to_string())
}
