//! A foreign descriptor in the poll of a loop: its owner is another part of the program, which may close it at any time.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

/// A registered descriptor. It is not kept open, and a drop does not deregister it.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: RawFd,
    /// Device and inode, which tell if the number names another file by now.
    file: (u64, u64),
}

impl Watched {
    /// True if the system refuses to register a descriptor that is registered.
    pub const REFUSES_DUPLICATES: bool = cfg!(any(target_os = "linux", target_os = "android"));

    pub fn register(fd: BorrowedFd<'_>, registry: &Registry, token: Token, interest: Interest) -> io::Result<Watched> {
        let watched = Watched { fd: fd.as_raw_fd(), file: file_of(fd.as_raw_fd())? };
        registry.register(&mut SourceFd(&watched.fd), token, interest)?;
        Ok(watched)
    }

    /// Asks for events again: one comes at once if the descriptor is ready still.
    ///
    /// # Errors
    /// The descriptor was closed.
    pub fn arm(&self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        if !self.is_same() {
            return Err(io::ErrorKind::NotFound.into());
        }
        registry.reregister(&mut SourceFd(&self.fd), token, interest)
    }

    /// Ends the events. A descriptor that was closed has none any more.
    pub fn deregister(&self, registry: &Registry) {
        if self.is_same() {
            // An error means that the descriptor is not registered, which is what is wanted.
            let _ = registry.deregister(&mut SourceFd(&self.fd));
        }
    }

    /// Returns true if this is the descriptor with the same number.
    pub fn has_number_of(&self, fd: BorrowedFd<'_>) -> bool {
        self.fd == fd.as_raw_fd()
    }

    /// Returns true if the number still names the same file. Otherwise it may name a socket of the loop.
    fn is_same(&self) -> bool {
        file_of(self.fd).is_ok_and(|file| file == self.file)
    }
}

/// Returns the device and the inode of an open file.
fn file_of(fd: RawFd) -> io::Result<(u64, u64)> {
    let mut found = MaybeUninit::<libc::stat>::uninit();
    // The pointer is to room for one record. A number that names no open file is an error.
    syscall!(libc::fstat(fd, found.as_mut_ptr()))?;
    // SAFETY: fstat has filled the record.
    let found = unsafe { found.assume_init() };
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)] // The types differ among systems.
    Ok((found.st_dev as u64, found.st_ino as u64))
}

/// Returns true if registering failed because the descriptor is registered already.
pub(crate) fn is_registered(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EEXIST)
}
