//! Standard input and output as descriptors of a loop, without changing what others share with us.
//!
//! `O_NONBLOCK` belongs to the open file, which the shell and the programs beside us in a pipeline share: set there, it
//! would break them. Pipes and terminals are therefore opened anew through `/proc`, which gives an open file of our own;
//! a regular file never blocks and is used as it is; a socket cannot be opened anew and is switched.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

/// Standard input and output, ready for a loop.
pub(crate) fn duplex() -> io::Result<(File, File)> {
    let input = unblocked(io::stdin().as_fd_now()?, OpenOptions::new().read(true))?;
    let output = unblocked(io::stdout().as_fd_now()?, OpenOptions::new().write(true))?;
    Ok((input, output))
}

/// A descriptor that does not block, on the same file as `fd`.
fn unblocked(fd: OwnedFd, access: &mut OpenOptions) -> io::Result<File> {
    let file = File::from(fd);
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    if !kind.is_socket() {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        if let Ok(own) = access.custom_flags(libc::O_NONBLOCK).open(path) {
            return Ok(own);
        }
    }
    set_nonblocking(&file)?;
    Ok(file)
}

fn set_nonblocking(file: &File) -> io::Result<()> {
    // fcntl with these two commands takes and gives integers only.
    let flags = syscall!(libc::fcntl(file.as_raw_fd(), libc::F_GETFL))?;
    syscall!(libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    Ok(())
}

/// A descriptor of our own for one of the standard streams.
trait AsFdNow {
    fn as_fd_now(&self) -> io::Result<OwnedFd>;
}

impl<T: AsRawFd> AsFdNow for T {
    fn as_fd_now(&self) -> io::Result<OwnedFd> {
        // SAFETY: the borrow lives for this call only, and a closed descriptor makes the clone fail with EBADF.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }.try_clone_to_owned()
    }
}
