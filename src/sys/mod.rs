//! The operating system: all code that depends on it, and the only unsafe code.
//!
//! Two groups of names, each with one list below. Every file of a group exports all of its names, so a name that a system
//! lacks does not compile there; a facility that a system lacks returns an error or does nothing, and the caller goes on
//! without it.
//!
//! | group | files | names |
//! | --- | --- | --- |
//! | kernel | `linux`, `bsd` (macOS, FreeBSD), `windows`, `portable` (every other Unix) | splice, TCP options and figures, changes of the network |
//! | family | `unix`, `windows` | sockets and their registration, files and their owners, errors |
//!
//! `failure` maps the errors of all systems to reasons. `bsd` and `windows` take from `portable` what they lack.
//! `dns` asks the name servers, and `no_dns` stands in for
//! it where the C library has no call for that.
//! `docs/systems.md` describes the differences for users.

#![allow(unsafe_code)]

/// Calls a function of libc and turns -1 into the error of the thread.
#[cfg(unix)]
macro_rules! syscall {
    ($call:expr) => {{
        // SAFETY: the arguments are checked where the macro is used.
        let result = unsafe { $call };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }};
}

use std::fmt;
use std::io;
use std::time::Duration;

use socket2::{Domain, Socket};

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
mod bsd;
#[cfg(all(target_os = "linux", any(target_env = "gnu", target_env = "musl")))]
mod dns;
mod failure;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(not(all(target_os = "linux", any(target_env = "gnu", target_env = "musl"))))]
mod no_dns;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod portable;
#[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd", test))]
mod route_message;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
use bsd as kernel;
#[cfg(any(target_os = "linux", target_os = "android"))]
use linux as kernel;
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    windows
)))]
use portable as kernel;
#[cfg(windows)]
use windows as kernel;

#[cfg(unix)]
use unix as family;
#[cfg(windows)]
use windows as family;

pub use family::{
    BorrowedSocket, Directory, OwnedSocket, SocketFile, UnixListener, UnixStream, effective_user, group_id,
    interface_addresses, is_readable_by_all, is_terminal_gone, passed_sockets, raise_descriptor_limit,
    read_hidden_line, socket_directory, stderr_file, stdout_file,
};
pub use kernel::{NameClaim, claim_name, machine, peer_credentials};
#[cfg(windows)]
pub use windows::{ConsoleEvents, ConsoleStop};

pub(crate) use family::{
    AsSocket, CONFIG_VARIABLE, ChildGroup, HAS_OWNERS, PassedSocket, PipeEnd, TcpStream, UnixAcceptor, UnixAddr,
    Watched, append_options, connect_unix, connect_unix_waiting, connection_refused, cut_addresses, duplex,
    file_identity, file_owner, file_times, has_address, interface_index, is_in_progress, is_not_skipped,
    is_not_spliceable, is_out_of_buffers, is_out_of_descriptors, is_out_of_own_descriptors, is_registered, is_running,
    is_unpollable, lacks_family, missing_file, open_nonblocking, open_private, private_directory_builder, read_options,
    register, register_again, reuse_address, share_port, socket_path, sync_directory, take_passed, unix_listener,
    unix_pair, unix_stream, wait_readable,
};
#[cfg(all(test, unix))]
pub(crate) use unix::make_pipe;
#[cfg(unix)]
pub(crate) use unix::poll_descriptor;

#[cfg(all(target_os = "linux", any(target_env = "gnu", target_env = "musl")))]
pub(crate) use dns::{HAS_DNS, query_dns};
#[cfg(not(all(target_os = "linux", any(target_env = "gnu", target_env = "musl"))))]
pub(crate) use no_dns::{HAS_DNS, query_dns};

pub(crate) use kernel::{
    CONTROL_BYTES, Fragmentation, HAS_REDIRECT, INTEREST, REUSE_PORT_BALANCES, SENDS_SEGMENTS, SKIPS, SystemTimer,
    avoid_cut_interface, bind_to_interface, choose_port_late, datagram_socket, drop_errors, force_receive_buffer,
    handshake_with_data, has_other_way, is_overruled, is_reset_behind_fin, is_segments_refused, may_choose_port,
    mptcp_info, mptcp_subflows, network_change, network_changes, new_pipe, nonblocking_socket, original_dest,
    prefer_cpu, receive_ecn, receive_original_dest, receive_redirected, report_errors, route_mtu, run_on_cpu,
    run_on_cpus_of_process, running_interfaces, sctp_bind_more, sctp_local_addresses, sctp_output, sctp_set_rto_min,
    send_before_end, set_congestion, set_mark, set_transparent, set_unsent_bytes, set_user_timeout, skip, splice_in,
    splice_out, tcp_info, trim_memory, unacknowledged, wants_more,
};
#[cfg(all(test, target_os = "linux"))]
pub(crate) use kernel::{has_error, set_no_checksums};

/// The purpose for which a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
    /// Make it, then read and write it.
    Create,
}

/// A change of the network of this host, as a message of the system reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkChange {
    /// Nothing that matters here.
    None,
    /// A change.
    Usual,
    /// An interface that ran is down or has no carrier any more.
    #[allow(dead_code)] // Only Linux tells it.
    Cut,
}

/// The kind of an entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a device, a FIFO, a socket, or something else.
    Other,
}

/// The addresses of a datagram that the system has redirected, or of several that it has joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RedirectedMeta {
    pub source: std::net::SocketAddr,
    /// The address that they were sent to.
    pub original: Option<std::net::SocketAddr>,
    pub ecn: Option<quinn_udp::EcnCodepoint>,
    pub len: usize,
    /// Bytes of each datagram but the last.
    pub segment: usize,
}

/// The system's measurements of the path of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathInfo {
    /// Smoothed round trip in microseconds.
    pub rtt_us: u64,
    /// The shortest recent round trip in microseconds.
    pub round_us: u64,
    /// Bytes per second: the larger of the measured delivery rate and one congestion window per round trip.
    pub rate: u64,
    /// The connection retransmits because of a timeout.
    pub is_stuck: bool,
    /// Packets that were sent again, in all, without those that had arrived the first time.
    pub resent: u64,
    pub figures: PathFigures,
}

/// The measurements of the path of a connection that nothing depends on, for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathFigures {
    /// The congestion window in bytes: how much the connection may have under way.
    pub window_bytes: u64,
    /// Packets that were taken for lost, and sent again.
    pub packets_lost: u64,
    /// The longest packet of the path in bytes: of IP over TCP, and the payload of UDP over QUIC.
    pub mtu_bytes: u32,
}

/// The error of a question to the name servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DnsError {
    /// The name does not exist, or has no record of the type.
    NotFound,
    /// No name server gave an answer that can be used.
    Failed,
    /// This system has no call for such questions.
    #[allow(dead_code)] // musl has the call.
    Unsupported,
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DnsError::NotFound => "DNS has no such record",
            DnsError::Failed => "no name server gives an answer",
            DnsError::Unsupported => "this system has no call for records of DNS other than addresses",
        })
    }
}

/// The protocol of a stream socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// Multipath TCP (RFC 8684), and TCP where this system or the peer has none.
    Mptcp,
    /// SCTP (RFC 9260), whose writes are messages.
    Sctp,
    /// UDP (RFC 768). The socket is bound and not connected: a carrier makes streams above it.
    Udp,
}

/// The output of an association of SCTP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SctpOutput {
    /// Memory of the chunks that the system keeps: those that are unsent, and those that are sent and not acknowledged in order.
    pub memory_bytes: u32,
    /// Payload of a full chunk.
    pub chunk_bytes: u32,
    /// Chunks that were sent since the association began.
    pub chunks_sent: u64,
    /// The smoothed round trip of the path in use.
    pub srtt: Duration,
}

/// Makes a stream socket that does not block. Where the system has no multipath TCP, the socket is one of TCP.
pub(crate) fn stream_socket(domain: Domain, protocol: StreamProtocol) -> io::Result<Socket> {
    match protocol {
        StreamProtocol::Tcp => nonblocking_socket(domain),
        // The error does not tell its cause: a kernel without the protocol, one that has it switched off, or a filter of
        // system calls. A lack of descriptors fails both sockets.
        StreamProtocol::Mptcp => kernel::mptcp_socket(domain).or_else(|_| nonblocking_socket(domain)),
        StreamProtocol::Sctp => kernel::sctp_socket(domain).map_err(|error| match is_unsupported(&error) {
            true => io::Error::new(io::ErrorKind::Unsupported, format!("{NO_SCTP}: {error}")),
            false => error,
        }),
        StreamProtocol::Udp => datagram_socket(domain),
    }
}

/// Returns true if the error means that the system lacks a protocol, and not that something else hinders a socket.
fn is_unsupported(error: &io::Error) -> bool {
    // Windows has neither the protocol nor these numbers.
    #[cfg(unix)]
    let is_number = matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::ESOCKTNOSUPPORT));
    #[cfg(not(unix))]
    let is_number = false;
    is_number || error.kind() == io::ErrorKind::Unsupported
}

/// The error where the system has no SCTP.
const NO_SCTP: &str = "this system has no SCTP (on Linux, the kernel module sctp)";

/// Returns true if the system makes sockets of multipath TCP.
pub(crate) fn has_mptcp() -> bool {
    kernel::mptcp_socket(Domain::IPV4).is_ok()
}

/// The user and the groups of a process at the other end of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The effective user.
    pub user: u32,
    /// The effective group, and the supplementary groups where the system tells them.
    pub groups: Vec<u32>,
}

/// The owner of a file and its access rights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileOwner {
    pub user: u32,
    pub group: u32,
    /// The permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Directory entries that lead to the file.
    pub links: u64,
}
