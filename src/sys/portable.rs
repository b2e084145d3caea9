//! Systems without splice: everything is copied, and one loop accepts for all.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Whether listeners that share a port each get their part of the connections: here it is not relied upon.
pub(crate) const REUSE_PORT_BALANCES: bool = false;

/// There are no pipes to splice through.
pub(crate) fn new_pipe(_bytes: usize) -> io::Result<(OwnedFd, OwnedFd, usize)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// There is no splice.
pub(crate) fn splice(_from: BorrowedFd<'_>, _to: BorrowedFd<'_>, _bytes: usize) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

/// Whether bytes of a TCP socket can be thrown away without being copied first.
pub(crate) const SKIPS: bool = false;

/// They cannot.
pub(crate) fn skip(_socket: BorrowedFd<'_>, _bytes: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sends bytes that the end of the stream follows at once; here they do not wait for it.
pub(crate) fn send_before_end(socket: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    socket2::SockRef::from(&socket).send(buf)
}

/// The error of a reset does not tell whether a FIN came before it.
pub(crate) fn is_reset_behind_fin(_: &io::Error) -> bool {
    false
}

/// Returns no figure: the system cannot be asked here.
pub(crate) fn unacknowledged(_: BorrowedFd<'_>) -> usize {
    0
}

/// Handshakes end with a packet of their own.
pub(crate) fn handshake_with_data(_socket: BorrowedFd<'_>) {}

/// The path is measured by the link's own acknowledgements.
pub(crate) fn tcp_info(_: &std::net::TcpStream) -> Option<super::PathInfo> {
    None
}

/// The next write finds out.
pub(crate) fn wants_more(_: &std::net::TcpStream) -> bool {
    true
}

/// Nobody tells; what is missing is tried again after its pause.
pub(crate) fn network_changes() -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns true if the system may choose this port for the local end of a connection. The port range is unknown here, so any
/// port may be chosen.
pub(crate) fn may_choose_port(_port: u16) -> bool {
    true
}

/// The allocator gives memory back by itself.
pub(crate) fn trim_memory() {}
