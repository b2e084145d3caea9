//! macOS and FreeBSD: TCP options of their own, and routing sockets (route(4)). The rest is as in [`super::portable`].
//!
//! Type-checked on Linux, not run in the tests.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{NetworkChange, PeerCredentials, route_message};

pub(crate) use super::portable::{
    CONTROL_BYTES, Fragmentation, HAS_REDIRECT, INTEREST, REUSE_PORT_BALANCES, RUNTIME_DIRECTORY, SENDS_SEGMENTS,
    SKIPS, SystemTimer, avoid_cut_interface, choose_port_late, datagram_socket, drop_errors, force_receive_buffer,
    handshake_with_data, has_other_way, is_overruled, is_reset_behind_fin, is_segments_refused, may_choose_port,
    mptcp_info, mptcp_socket, mptcp_subflows, new_pipe, nonblocking_socket, open_beneath, original_dest, prefer_cpu,
    receive_ecn, receive_original_dest, receive_redirected, rename_new, report_errors, route_mtu, run_on_cpu,
    run_on_cpus_of_process, running_interfaces, sctp_bind_more, sctp_local_addresses, sctp_output, sctp_set_rto_min,
    sctp_socket, send_before_end, set_mark, set_transparent, skip, splice_in, splice_out, tcp_info, trim_memory,
    unacknowledged,
};
pub use super::portable::{NameClaim, claim_name, machine};

#[cfg(target_os = "freebsd")]
pub(crate) use super::portable::{bind_to_interface, set_unsent_bytes, wants_more};
#[cfg(not(target_os = "freebsd"))]
pub(crate) use apple::{bind_to_interface, set_unsent_bytes, wants_more};

#[cfg(not(target_os = "freebsd"))]
pub(crate) use super::portable::set_congestion;

/// Sets the congestion control of a TCP connection (`TCP_CONGESTION`, tcp(4)).
#[cfg(target_os = "freebsd")]
pub(crate) fn set_congestion(socket: &TcpStream, name: &str) -> io::Result<()> {
    socket2::SockRef::from(socket).set_tcp_congestion(name.as_bytes())
}

/// Sets the time after which a TCP connection fails if written bytes are not acknowledged (`TCP_RXT_CONNDROPTIME` on
/// macOS, `TCP_MAXUNACKTIME` on FreeBSD; both count seconds).
pub(crate) fn set_user_timeout(socket: &TcpStream, time: Duration) -> io::Result<()> {
    // Part of a second counts as one, because zero switches the timeout off.
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    set_tcp_option(socket, USER_TIMEOUT, i32::try_from(seconds).unwrap_or(i32::MAX))
}

/// Returns a socket that becomes readable when an address or a route of this machine changes, and for other reasons: see
/// [`network_change`] (route(4)).
pub(crate) fn network_changes() -> io::Result<OwnedFd> {
    // socket takes and gives integers only.
    let fd = syscall!(libc::socket(libc::PF_ROUTE, libc::SOCK_RAW, libc::AF_UNSPEC))?;
    // SAFETY: socket has just made the descriptor, and no other code owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // fcntl with this command takes and gives integers only.
    syscall!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC))?;
    Ok(fd)
}

/// Returns what a message reports: see [`is_network_change`](route_message::is_network_change).
pub(crate) fn network_change(message: &[u8], _: &mut HashMap<u32, bool>) -> NetworkChange {
    if route_message::is_network_change(message) { NetworkChange::Usual } else { NetworkChange::None }
}

/// Returns the user and the group of the process that connected a Unix socket, as they were then (getpeereid(3)).
pub fn peer_credentials(socket: &UnixStream) -> io::Result<PeerCredentials> {
    let (mut user, mut group) = (0, 0);
    // The pointers are to live integers of the right types.
    syscall!(libc::getpeereid(socket.as_raw_fd(), &raw mut user, &raw mut group))?;
    Ok(PeerCredentials { user, groups: vec![group] })
}

fn set_tcp_option(socket: &TcpStream, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // The pointer and the length are those of a live integer.
    syscall!(libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), len)).map(drop)
}

#[cfg(target_os = "freebsd")]
const USER_TIMEOUT: libc::c_int = libc::TCP_MAXUNACKTIME;
/// `TCP_RXT_CONNDROPTIME` (netinet/tcp.h), which libc does not name.
#[cfg(not(target_os = "freebsd"))]
const USER_TIMEOUT: libc::c_int = 0x80;

/// The facilities of macOS that FreeBSD lacks.
#[cfg(not(target_os = "freebsd"))]
mod apple {
    use std::num::NonZeroU32;

    use socket2::{Domain, Socket};

    use super::*;
    use crate::sys::interface_index;

    /// Sends all packets of a socket out of one interface (`IP_BOUND_IF`, `IPV6_BOUND_IF`).
    pub(crate) fn bind_to_interface(socket: &Socket, interface: &str) -> io::Result<()> {
        let index = interface_index(interface).and_then(NonZeroU32::new).ok_or(io::ErrorKind::NotFound)?;
        if socket.local_addr().is_ok_and(|addr| addr.domain() == Domain::IPV6) {
            socket.bind_device_by_index_v6(Some(index))
        } else {
            socket.bind_device_by_index_v4(Some(index))
        }
    }

    /// Sets the unsent bytes above which a TCP socket is not writable (`TCP_NOTSENT_LOWAT`).
    pub(crate) fn set_unsent_bytes(socket: &TcpStream, bytes: u32) -> io::Result<()> {
        set_tcp_option(socket, TCP_NOTSENT_LOWAT, i32::try_from(bytes).unwrap_or(i32::MAX))
    }

    /// Returns true if a TCP socket has fewer unsent bytes than `TCP_NOTSENT_LOWAT`. If it has more, an event follows when
    /// it has not: each acknowledgement checks the limit again.
    pub(crate) fn wants_more(socket: &TcpStream) -> bool {
        let mut asked = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        // The pointer is to one live record, and nothing is waited for. Where it fails, the next write finds out.
        syscall!(libc::poll(&raw mut asked, 1, 0)).map_or(true, |_| asked.revents != 0)
    }

    /// netinet/tcp.h; libc does not name it.
    const TCP_NOTSENT_LOWAT: libc::c_int = 0x201;
}
