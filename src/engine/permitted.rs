//! Options of sockets that the system, or the rights of the process, may not permit. Each is tried at a socket that is closed
//! then, so that a process hears of it at its start and not at its first client.

use std::io;

use socket2::{Domain, SockRef, Socket, Type};

use crate::sys;

/// True if this system redirects connections to a listener.
pub(crate) const HAS_REDIRECT: bool = sys::HAS_REDIRECT;

/// Tries to mark the packets of a socket.
pub(crate) fn try_mark(mark: u32) -> io::Result<()> {
    sys::set_mark(SockRef::from(&new_socket()?), mark)
}

/// Tries to make a socket that may have the address of another host.
pub(crate) fn try_transparent() -> io::Result<()> {
    sys::set_transparent(SockRef::from(&new_socket()?), false)
}

fn new_socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None)
}
