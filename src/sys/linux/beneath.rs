//! Directories on Linux: paths that stay beneath a directory (openat2(2)), and renames that replace nothing (renameat2(2)).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens a path that stays beneath a directory and has no symbolic link. Returns none if the system lacks the call, or
/// forbids it.
pub(crate) fn open_beneath(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
) -> Option<io::Result<OwnedFd>> {
    // A mode beside flags that make nothing is an error.
    let mode = if flags & libc::O_CREAT == 0 { 0 } else { u64::from(mode) };
    let how = OpenHow {
        flags: u64::from(flags.cast_unsigned()),
        mode,
        resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    for _ in 0..ATTEMPTS_MAX {
        // The path ends with a NUL, and the size is that of the structure.
        let fd = directory.as_raw_fd();
        let result =
            syscall!(libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), &raw const how, size_of::<OpenHow>()));
        match result {
            // SAFETY: the descriptor was opened here, and nothing else owns it. A descriptor fits in an int.
            Ok(fd) => return Some(Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOSYS | libc::EPERM | libc::E2BIG) => return None,
                // Something was renamed meanwhile, so the kernel cannot tell that the path stays beneath.
                Some(libc::EAGAIN | libc::EINTR) => {}
                _ => return Some(Err(error)),
            },
        }
    }
    None
}

/// Renames an entry of a directory if nothing has the new name. Returns none if the system or the file system lacks the call.
pub(crate) fn rename_new(directory: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Option<io::Result<()>> {
    let fd = directory.as_raw_fd();
    // Both names end with a NUL.
    let result =
        syscall!(libc::syscall(libc::SYS_renameat2, fd, from.as_ptr(), fd, to.as_ptr(), libc::RENAME_NOREPLACE));
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)) => None,
        result => Some(result.map(drop)),
    }
}

/// The argument of openat2(2).
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

// The values of linux/openat2.h.
const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_NO_SYMLINKS: u64 = 0x04;
const RESOLVE_BENEATH: u64 = 0x08;
/// Attempts to resolve a path in a tree that changes.
const ATTEMPTS_MAX: usize = 8;
