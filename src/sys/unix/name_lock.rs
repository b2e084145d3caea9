//! Names of running processes, for Unix systems without abstract sockets: each is a locked file (flock(2)).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

/// A name that no other process of this user has.
#[derive(Debug)]
#[allow(dead_code)] // The lock lasts as long as the open file.
pub struct NameClaim(File);

/// Takes a name that is free again when the claim is dropped or the process ends, however it ends. The file of the name
/// stays in the directory for sockets.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if another process has the name, or another error of the system.
#[allow(dead_code)] // Linux has names without files.
pub fn claim_name(name: &str) -> io::Result<Option<NameClaim>> {
    let path = super::socket_directory("seaprox")?.join(format!("{}.lock", name.replace('/', "_")));
    let file = super::open_private(OpenOptions::new().write(true).create(true).truncate(false), &path)?;
    // flock takes and gives integers only.
    match syscall!(libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB)) {
        Ok(_) => Ok(Some(NameClaim(file))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_once_and_free_again_when_its_claim_is_dropped() {
        let name = format!("test/{}", std::process::id());
        let first = claim_name(&name).unwrap().unwrap();
        assert_eq!(claim_name(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(claim_name(&name).unwrap().is_some());
        let path = super::super::socket_directory("seaprox").unwrap().join(format!("{}.lock", name.replace('/', "_")));
        std::fs::remove_file(path).unwrap();
    }
}
