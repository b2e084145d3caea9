//! Stand-ins for facilities that a system lacks: they return an error or do nothing, and the caller goes on without them.
//! All bytes are copied, and one loop accepts for all.

// Each system uses only some of these functions.
#![allow(dead_code, unused_imports)]

use std::collections::HashMap;
use std::convert::Infallible;
#[cfg(unix)]
use std::ffi::CStr;
use std::io;
#[cfg(unix)]
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef, Socket, Type};

#[cfg(unix)]
pub use super::unix::name_lock::{NameClaim, claim_name};
use super::{BorrowedSocket, NetworkChange, OwnedSocket, PathInfo, PeerCredentials, PipeEnd, TcpStream, UnixStream};

/// Returns none: paths are resolved one component after another.
#[cfg(unix)]
pub(crate) fn open_beneath(_: BorrowedFd<'_>, _: &CStr, _: i32, _: u32) -> Option<io::Result<OwnedFd>> {
    None
}

/// Returns none: a rename is checked before.
#[cfg(unix)]
pub(crate) fn rename_new(_: BorrowedFd<'_>, _: &CStr, _: &CStr) -> Option<io::Result<()>> {
    None
}

/// A timer whose end is an event of a poll. It is never made: a poll wakes up at the end of its own timeout.
pub(crate) struct SystemTimer(Infallible);

impl SystemTimer {
    pub fn new(_: &Registry, _: Token) -> io::Result<SystemTimer> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn set(&self, _: Duration) -> io::Result<()> {
        match self.0 {}
    }
}

/// The events of a connected socket: both directions.
pub(crate) const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Makes a stream socket that does not block.
pub(crate) fn nonblocking_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Makes a UDP socket that does not block.
pub(crate) fn datagram_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// False: each call sends one datagram, and a connected socket takes no address.
pub(crate) const SENDS_SEGMENTS: bool = false;

/// Does nothing: the congestion notification of datagrams is not passed on here.
pub(crate) fn receive_ecn(_: &Socket, _: Domain) -> io::Result<()> {
    Ok(())
}

/// Does nothing: a connected socket reports the errors that the system tells.
pub(crate) fn report_errors(_: &Socket, _: Domain) -> io::Result<()> {
    Ok(())
}

/// Returns false: the system keeps no queue of errors.
pub(crate) fn drop_errors(_: SockRef<'_>) -> bool {
    false
}

/// Fails: the limit of the system holds.
pub(crate) fn force_receive_buffer<T>(_: &T, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns none: the system does not tell it.
pub(crate) fn route_mtu(_: SockRef<'_>, _: Option<std::net::IpAddr>, _: std::net::SocketAddr) -> Option<usize> {
    None
}

/// Returns true: such calls are not made here.
pub(crate) fn is_segments_refused(_: &io::Error) -> bool {
    true
}

/// The options by which the system fragments datagrams, which are left as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragmentation;

impl Fragmentation {
    /// Reads nothing.
    pub fn of<T>(_: &T) -> Fragmentation {
        Fragmentation
    }

    /// Does nothing.
    pub fn restore<T>(self, _: &T) {}
}

/// Refuses: this system has no multipath TCP, or none behind the interface of TCP.
pub(crate) fn mptcp_socket(_: Domain) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns `None`: this system has no multipath TCP.
pub(crate) fn mptcp_subflows(_: &TcpStream) -> Option<u8> {
    None
}

/// Returns `None`: this system has no multipath TCP.
pub(crate) fn mptcp_info(_: &TcpStream) -> Option<PathInfo> {
    None
}

/// Refuses: this system has no SCTP, or none with the options of Linux.
pub(crate) fn sctp_socket(_: Domain) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system has no SCTP.
pub(crate) fn sctp_bind_more(_: &Socket, _: &[std::net::SocketAddr]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system has no SCTP.
pub(crate) fn sctp_local_addresses(_: &TcpStream) -> io::Result<Vec<std::net::IpAddr>> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system has no SCTP.
pub(crate) fn sctp_set_rto_min(_: &TcpStream, _: std::time::Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system has no SCTP.
pub(crate) fn sctp_output(_: &TcpStream) -> io::Result<super::SctpOutput> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system chooses the processor of a thread.
pub(crate) fn run_on_cpu(_: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: no thread of this process has a processor of its own.
pub(crate) fn run_on_cpus_of_process() {}

/// Refuses: this system has no processor for a socket.
pub(crate) fn prefer_cpu(_: SockRef<'_>, _: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system has no way to bind a socket to an interface.
pub(crate) fn bind_to_interface(_: &Socket, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system does not bound the unsent bytes of a socket.
pub(crate) fn set_unsent_bytes(_: &TcpStream, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system has one congestion control for all sockets.
pub(crate) fn set_congestion(_: &TcpStream, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system has no user timeout. The timers of the link find a dead path.
pub(crate) fn set_user_timeout(_: &TcpStream, _: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// False: the system may not distribute connections over the listeners that share a port.
pub(crate) const REUSE_PORT_BALANCES: bool = false;

/// Refuses: this system does not tell the user of a connected process.
pub fn peer_credentials(_: &UnixStream) -> io::Result<PeerCredentials> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: there are no pipes to splice through.
pub(crate) fn new_pipe(_bytes: usize) -> io::Result<(PipeEnd, PipeEnd, usize)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: there is no splice.
pub(crate) fn splice_in(_: BorrowedSocket<'_>, _: &PipeEnd, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: there is no splice.
pub(crate) fn splice_out(_: &PipeEnd, _: BorrowedSocket<'_>, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// False: received bytes of a TCP socket cannot be discarded without a copy.
pub(crate) const SKIPS: bool = false;

/// Refuses: bytes must be copied to be discarded.
pub(crate) fn skip(_: &TcpStream, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Sends the last bytes of a stream. They are not delayed until the FIN.
pub(crate) fn send_before_end(socket: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    io::Write::write(&mut &*socket, buf)
}

/// Returns false: the error of a reset does not tell whether a FIN came before it.
pub(crate) fn is_reset_behind_fin(_: &io::Error) -> bool {
    false
}

/// Returns 0: the system cannot be asked here.
pub(crate) fn unacknowledged(_: &TcpStream) -> usize {
    0
}

/// Does nothing: the last packet of a handshake carries no bytes.
pub(crate) fn handshake_with_data(_: &Socket) {}

/// Returns `None`: the acknowledgements of the link measure the path.
pub(crate) fn tcp_info(_: &TcpStream) -> Option<PathInfo> {
    None
}

/// Returns true: the next write finds out.
pub(crate) fn wants_more(_: &TcpStream) -> bool {
    true
}

/// Refuses: this system does not tell of changes. The node dials a missing subflow again after its pause.
pub(crate) fn network_changes() -> io::Result<OwnedSocket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns none: no message tells of them.
pub(crate) fn running_interfaces() -> HashMap<u32, bool> {
    HashMap::new()
}

/// Returns a change: no message comes.
pub(crate) fn network_change(_: &[u8], _: &mut HashMap<u32, bool>) -> NetworkChange {
    NetworkChange::Usual
}

/// Does nothing: the system chooses the interface.
pub(crate) fn avoid_cut_interface(_: SockRef<'_>, _: std::net::SocketAddr) -> io::Result<()> {
    Ok(())
}

/// Returns false: this system does not tell its routes, and a connection that is only silent may go on.
pub(crate) fn has_other_way(_: std::net::SocketAddr, _: std::net::IpAddr, _: u32) -> bool {
    false
}

/// Returns false: no socket is led around a cut.
pub(crate) fn is_overruled(_: SockRef<'_>, _: std::net::SocketAddr, _: u32) -> bool {
    false
}

/// False: this system redirects no connections to this process.
pub(crate) const HAS_REDIRECT: bool = false;

/// Returns none: this system does not tell where a redirected client connected to.
pub(crate) fn original_dest(_: &TcpStream) -> Option<std::net::SocketAddr> {
    None
}

/// Refuses: this system redirects no datagrams.
pub(crate) fn receive_original_dest<T>(_: &T, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: this system redirects no datagrams.
pub(crate) fn receive_redirected<T>(_: &T, _: &mut [u8], _: &mut [u8]) -> io::Result<super::RedirectedMeta> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Bytes of the control messages of a received datagram: none are read.
pub(crate) const CONTROL_BYTES: usize = 0;

/// Refuses: this system has no marks.
pub(crate) fn set_mark(_: SockRef<'_>, _: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Refuses: no socket has the address of another host on this system.
pub(crate) fn set_transparent(_: SockRef<'_>, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing: the system chooses the port of a bound address at once.
pub(crate) fn choose_port_late(_: &Socket) {}

/// Returns true: the range of ports that the system chooses from is unknown here.
pub(crate) fn may_choose_port(_: u16) -> bool {
    true
}

/// The parent directory of root's sockets.
pub(crate) const RUNTIME_DIRECTORY: &str = "/var/run";

/// Returns an identifier of this machine: the name of the host.
pub fn machine() -> Vec<Vec<u8>> {
    vec![super::family::host_name()]
}

/// Does nothing: the allocator returns memory by itself.
pub(crate) fn trim_memory() {}
