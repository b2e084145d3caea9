//! Linux: splice and pipes (splice(2), pipe(2), fcntl(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Whether listeners that share a port each get their part of the connections (since Linux 3.9, socket(7)).
pub(crate) const REUSE_PORT_BALANCES: bool = true;

/// A pipe whose ends do not block: its read end, its write end, and the bytes that it holds at most.
///
/// A wish for more bytes than the system grants is not an error: the pipe keeps the size that it was born with.
pub(crate) fn new_pipe(bytes: usize) -> io::Result<(OwnedFd, OwnedFd, usize)> {
    let mut ends = [-1; 2];
    // The pointer is to two live integers, as pipe2 wants them.
    syscall!(libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC))?;
    // SAFETY: pipe2 has just made both descriptors, and nobody else has seen them.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let wish = bytes.min(i32::MAX as usize) as libc::c_int;
    // fcntl with these two commands takes and gives integers only.
    let granted = syscall!(libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, wish))
        .or_else(|_| syscall!(libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ)))?;
    Ok((read, write, granted as usize))
}

/// Moves up to `bytes` from one descriptor to another, one of which is a pipe, without copying them through the
/// process. Zero is the end of the input.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // Both descriptors are borrowed, so open; the null offsets are what sockets and pipes want.
    let moved =
        syscall!(libc::splice(from.as_raw_fd(), ptr::null_mut(), to.as_raw_fd(), ptr::null_mut(), bytes, flags))?;
    Ok(moved as usize)
}

/// Whether bytes of a TCP socket can be thrown away without being copied first.
pub(crate) const SKIPS: bool = true;

/// Throws away up to `bytes` of what a TCP socket has received (`MSG_TRUNC`, tcp(7)). Zero is the end of the input.
pub(crate) fn skip(socket: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    // With this flag nothing is written to where the pointer points, which is nowhere.
    let skipped = syscall!(libc::recv(socket.as_raw_fd(), ptr::null_mut(), bytes, libc::MSG_TRUNC))?;
    Ok(skipped as usize)
}

/// Sends bytes that the end of the stream follows at once: they wait for it, and go with it in one packet (`MSG_MORE`,
/// send(2)).
pub(crate) fn send_before_end(socket: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
    // The pointer and the length are those of a live slice, which is only read.
    let sent = syscall!(libc::send(socket.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags))?;
    Ok(sent as usize)
}

/// Lets the last packet of a handshake that this socket begins carry the first bytes: the kernel holds it back until
/// there are some, for 200 ms at most (`TCP_DEFER_ACCEPT`, tcp(7), on the socket that connects).
pub(crate) fn handshake_with_data(socket: BorrowedFd<'_>) {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // The pointer and the length are those of a live integer. Without the option there is one packet more.
    let _ = syscall!(libc::setsockopt(
        socket.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        (&raw const on).cast(),
        len
    ));
}
