//! Windows: TCP through Winsock and mio's AFD poll. Unix sockets, splice, and standard input and output in a loop do not
//! exist here; `unsupported` has types without values for them, and each attempt to make one returns an error that says so.
//!
//! Files have access lists instead of owners and modes. They are not read: [`HAS_OWNERS`] is false.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::mem::size_of;
use std::os::windows::fs::MetadataExt;
use std::os::windows::io::{AsHandle, AsRawSocket};
use std::path::Path;
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::Socket;
use windows_sys::Win32::Foundation::{ERROR_FILE_NOT_FOUND, ERROR_TOO_MANY_OPEN_FILES};
use windows_sys::Win32::Networking::WinSock::{
    SO_EXCLUSIVEADDRUSE, SOL_SOCKET, WSAEADDRNOTAVAIL, WSAEAFNOSUPPORT, WSAECONNREFUSED, WSAEMFILE, WSAENOBUFS,
    setsockopt,
};

use super::FileOwner;

mod console;
mod directory;
mod name_mutex;
mod tcp;
mod unsupported;

pub use console::{ConsoleEvents, ConsoleStop};
pub use directory::Directory;
pub use name_mutex::{NameClaim, claim_name};
pub use std::os::windows::io::{BorrowedSocket, OwnedSocket};
pub use unsupported::{
    SocketFile, UnixListener, UnixStream, interface_addresses, is_terminal_gone, passed_sockets, read_hidden_line,
    socket_directory,
};

pub(crate) use super::portable::{
    CONTROL_BYTES, Fragmentation, HAS_REDIRECT, INTEREST, REUSE_PORT_BALANCES, SENDS_SEGMENTS, SKIPS, SystemTimer,
    avoid_cut_interface, bind_to_interface, choose_port_late, datagram_socket, drop_errors, force_receive_buffer,
    handshake_with_data, has_other_way, is_overruled, is_reset_behind_fin, is_segments_refused, may_choose_port,
    mptcp_info, mptcp_socket, mptcp_subflows, network_change, network_changes, new_pipe, nonblocking_socket,
    original_dest, prefer_cpu, receive_ecn, receive_original_dest, receive_redirected, report_errors, route_mtu,
    run_on_cpu, run_on_cpus_of_process, running_interfaces, sctp_bind_more, sctp_local_addresses, sctp_output,
    sctp_set_rto_min, sctp_socket, send_before_end, set_congestion, set_mark, set_transparent, set_unsent_bytes,
    set_user_timeout, skip, splice_in, splice_out, tcp_info, trim_memory, unacknowledged, wants_more,
};
pub use super::portable::{machine, peer_credentials};
pub(crate) use std::os::windows::io::AsSocket;
pub(crate) use tcp::TcpStream;
pub(crate) use unsupported::{
    ChildGroup, PassedSocket, PipeEnd, UnixAcceptor, UnixAddr, Watched, append_options, connect_unix,
    connect_unix_waiting, cut_addresses, duplex, has_address, read_options, socket_path, take_passed, unix_listener,
    unix_pair, unix_stream,
};

/// Registers a socket for the events of a token. Returns true if it needs no events, which no socket does.
pub(crate) fn register(
    socket: &mut impl Source,
    registry: &Registry,
    token: Token,
    interest: Interest,
) -> io::Result<bool> {
    registry.register(socket, token, interest).map(|()| false)
}

/// Gives a registered socket another token.
pub(crate) fn register_again(
    socket: &mut impl Source,
    registry: &Registry,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    registry.reregister(socket, token, interest)
}

/// Refuses a port that has a listener (`SO_EXCLUSIVEADDRUSE`). A port whose earlier connections are in TIME_WAIT can be
/// bound here without an option, while `SO_REUSEADDR` would let another process take the port.
pub(crate) fn reuse_address(socket: &Socket) -> io::Result<()> {
    let (on, len) = (1_i32, size_of::<i32>() as i32);
    // SAFETY: the pointer and the length are those of a live integer, and the socket is open.
    let result = unsafe {
        setsockopt(socket.as_raw_socket() as usize, SOL_SOCKET, SO_EXCLUSIVEADDRUSE, (&raw const on).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Refuses: several listeners on one port do not share its connections here.
pub(crate) fn share_port(_: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns no limit: the number of sockets is bounded by memory.
///
/// # Errors
/// None on this system.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    Ok(u64::MAX)
}

/// Returns zero, which is compared with no owner of a file, because [`HAS_OWNERS`] is false.
pub fn effective_user() -> u32 {
    0
}

/// Refuses: there are no groups here.
///
/// # Errors
/// Always.
pub fn group_id(_: &str) -> io::Result<u32> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns true: only the age of a draft tells that its process is gone.
pub(crate) fn is_running(_process: u32) -> bool {
    true
}

/// Returns the number of an interface; zones of addresses are numbers here.
pub(crate) fn interface_index(zone: &str) -> Option<u32> {
    zone.parse().ok().filter(|number| *number > 0)
}

/// Returns a duplicate of standard error.
///
/// # Errors
/// The process has no standard error, or the system has no handle left.
pub fn stderr_file() -> io::Result<File> {
    io::stderr().as_handle().try_clone_to_owned().map(File::from)
}

/// Returns a duplicate of standard output.
///
/// # Errors
/// The process has no standard output, or the system has no handle left.
pub fn stdout_file() -> io::Result<File> {
    io::stdout().as_handle().try_clone_to_owned().map(File::from)
}

/// The environment variable with the directory of the user's settings, if `XDG_CONFIG_HOME` and `HOME` are not set.
pub(crate) const CONFIG_VARIABLE: Option<&str> = Some("APPDATA");
/// Files have access lists, which are not checked.
pub(crate) const HAS_OWNERS: bool = false;

/// Returns an owner that passes every check, because there is nothing to check.
pub(crate) fn file_owner(_: &Metadata) -> FileOwner {
    FileOwner { user: 0, group: 0, mode: 0, links: 1 }
}

/// Returns the time at which a file was made: two files that replace one another seldom have the same.
pub(crate) fn file_identity(file: &Metadata) -> (u64, u64) {
    (0, file.creation_time())
}

/// Returns the time of the last change of a file's content, twice, in seconds and nanoseconds since 1970.
pub(crate) fn file_times(file: &Metadata) -> [(i64, i64); 2] {
    // In units of 100 nanoseconds since 1601.
    let (seconds, rest) = (file.last_write_time() / 10_000_000, file.last_write_time() % 10_000_000);
    [(seconds as i64 - SECONDS_FROM_1601_TO_1970, rest as i64 * 100); 2]
}

/// Opens a file. One that is made here has the access list that its directory gives to new files.
pub(crate) fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.open(path)
}

/// Opens a file for reading.
pub(crate) fn open_nonblocking(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Returns true: a read of a pipe waits for its data.
pub(crate) fn wait_readable(_file: &File, _patience: Duration) -> io::Result<bool> {
    Ok(true)
}

/// Returns a builder of directories with the access list that the directory above gives to new ones.
pub(crate) fn private_directory_builder() -> DirBuilder {
    DirBuilder::new()
}

/// Returns the name of this host.
pub(crate) fn host_name() -> Vec<u8> {
    std::env::var("COMPUTERNAME").unwrap_or_default().into_bytes()
}

/// Returns false: access lists are not read.
pub fn is_readable_by_all(_: &Metadata) -> bool {
    false
}

/// Does nothing: the names in a directory cannot be flushed apart from its files.
pub(crate) fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Returns true if the error means that the system had no memory for a datagram.
pub(crate) fn is_out_of_buffers(error: &io::Error) -> bool {
    error.raw_os_error() == Some(WSAENOBUFS)
}

/// Returns true if the error means that the process or the system has no more sockets, or no memory for one more. These
/// states are temporary.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let too_many = ERROR_TOO_MANY_OPEN_FILES as i32;
    error.raw_os_error().is_some_and(|code| [WSAEMFILE, WSAENOBUFS, too_many].contains(&code))
}

/// Returns true if the error means that this process has no more sockets, so a close of its own makes room.
pub(crate) fn is_out_of_own_descriptors(error: &io::Error) -> bool {
    let too_many = ERROR_TOO_MANY_OPEN_FILES as i32;
    error.raw_os_error().is_some_and(|code| [WSAEMFILE, too_many].contains(&code))
}

/// Returns false: no socket is registered twice here.
pub(crate) fn is_registered(_: &io::Error) -> bool {
    false
}

/// Returns false: each socket can be waited for.
pub(crate) fn is_unpollable(_: &io::Error) -> bool {
    false
}

/// Returns true if splice does not know this kind of socket: there is no splice.
pub(crate) fn is_not_spliceable(_: &io::Error) -> bool {
    true
}

/// Returns true if bytes cannot be thrown away without a copy: they never can.
pub(crate) fn is_not_skipped(_: &io::Result<usize>) -> bool {
    true
}

/// Returns true if a connect is in progress and an event will report its result (`WSAEWOULDBLOCK`).
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Returns true if this host does not have the address family, or not this address.
pub(crate) fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(WSAEAFNOSUPPORT | WSAEADDRNOTAVAIL))
}

/// Returns the error of a connect to a port without a listener.
pub(crate) fn connection_refused() -> io::Error {
    io::Error::from_raw_os_error(WSAECONNREFUSED)
}

/// Returns the error of an open of a file that does not exist.
pub(crate) fn missing_file() -> io::Error {
    io::Error::from_raw_os_error(ERROR_FILE_NOT_FOUND as i32)
}

const SECONDS_FROM_1601_TO_1970: i64 = 11_644_473_600;
