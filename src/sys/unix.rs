//! All Unix systems: sockets as file descriptors, owners and modes of files, error numbers.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{FileOwner, kernel};

mod accounts;
mod child_group;
mod directory;
pub(crate) mod duplex;
mod hidden_line;
mod interfaces;
pub(super) mod name_lock;
mod passed;
mod socket_file;
mod terminal;
mod watched;

pub(crate) use child_group::{ChildGroup, append_options, read_options};
pub use directory::Directory;
pub use hidden_line::read_hidden_line;
pub use interfaces::interface_addresses;
pub(crate) use interfaces::{cut_addresses, has_address};
pub use passed::passed_sockets;
pub(crate) use passed::{PassedSocket, take_passed};
pub use socket_file::SocketFile;
pub use terminal::is_terminal_gone;
pub(crate) use watched::{Watched, is_registered};

pub use std::os::fd::{BorrowedFd as BorrowedSocket, OwnedFd as OwnedSocket};
pub use std::os::unix::net::{UnixListener, UnixStream};

/// A listening Unix socket that a loop can wait for.
pub(crate) use mio::net::UnixListener as UnixAcceptor;
pub(crate) use std::net::TcpStream;
/// One end of a pipe for splice.
pub(crate) use std::os::fd::OwnedFd as PipeEnd;
/// The address of a Unix socket.
pub(crate) use std::os::unix::net::SocketAddr as UnixAddr;

/// A value that has a socket, or another descriptor.
pub(crate) trait AsSocket {
    /// Borrows the socket.
    fn as_socket(&self) -> BorrowedSocket<'_>;
}

impl<T: AsFd> AsSocket for T {
    #[inline]
    fn as_socket(&self) -> BorrowedSocket<'_> {
        self.as_fd()
    }
}

/// Registers a socket for the events of a token. Returns true if it needs no events, because it cannot block.
pub(crate) fn register(
    socket: &mut impl AsFd,
    registry: &Registry,
    token: Token,
    interest: Interest,
) -> io::Result<bool> {
    match registry.register(&mut SourceFd(&socket.as_fd().as_raw_fd()), token, interest) {
        Ok(()) => Ok(false),
        Err(error) if is_unpollable(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Returns the descriptor of a poll.
pub(crate) fn poll_descriptor(poll: &mio::Poll) -> BorrowedSocket<'_> {
    // SAFETY: the descriptor is open for as long as the poll is borrowed.
    unsafe { BorrowedSocket::borrow_raw(poll.as_raw_fd()) }
}

/// Gives a registered socket another token.
pub(crate) fn register_again(
    socket: &mut impl AsFd,
    registry: &Registry,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    registry.reregister(&mut SourceFd(&socket.as_fd().as_raw_fd()), token, interest)
}

/// Allows a bind to a port whose earlier connections are in TIME_WAIT; a port with a listener stays refused.
pub(crate) fn reuse_address(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// Allows several listeners on one port.
pub(crate) fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

/// Makes a Unix stream of a socket of that family.
pub(crate) fn unix_stream(socket: Socket) -> io::Result<UnixStream> {
    Ok(UnixStream::from(OwnedSocket::from(socket)))
}

/// Makes a Unix listener of a listening socket of that family. Returns it with the path of its file, if it has one.
pub(crate) fn unix_listener(socket: Socket) -> io::Result<(UnixListener, PathBuf)> {
    let path = socket.local_addr()?.as_pathname().map(PathBuf::from).unwrap_or_default();
    Ok((UnixListener::from(OwnedSocket::from(socket)), path))
}

/// Makes two Unix sockets that are connected to each other.
pub(crate) fn unix_pair() -> io::Result<(UnixStream, UnixStream)> {
    UnixStream::pair()
}

/// Connects to a Unix socket without waiting; [`io::ErrorKind::WouldBlock`] if its backlog is full.
pub(crate) fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket = kernel::nonblocking_socket(Domain::UNIX)?;
    socket.connect(&SockAddr::unix(path)?)?;
    unix_stream(socket)
}

/// Connects to a Unix socket, and waits for room in its backlog. The send timeout bounds the wait (unix(7)).
pub(crate) fn connect_unix_waiting(path: &Path, wait: Duration) -> io::Result<OwnedSocket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(wait).filter(|wait| !wait.is_zero()))?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        Err(error) => Err(error),
    }
}

/// Returns the path that an end of a Unix stream is bound to, empty if it is bound to none.
pub(crate) fn socket_path(addr: &UnixAddr) -> PathBuf {
    addr.as_pathname().unwrap_or(Path::new("")).to_owned()
}

/// Raises the soft limit of descriptors of this process to its hard limit. Returns the limit that holds then.
///
/// # Errors
/// Fails if the system does not tell the limit.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // The pointer is to a live value of the right type.
    syscall!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
    // macOS has a hard limit without end and refuses a soft one above its own maximum.
    for rlim_cur in [limit.rlim_max, limit.rlim_max.min(DESCRIPTORS_GRANTED)] {
        let raised = libc::rlimit { rlim_cur, rlim_max: limit.rlim_max };
        // The pointer is to a live value of the right type. Where the raise is refused, the old limit still holds.
        if limit.rlim_cur < rlim_cur && syscall!(libc::setrlimit(libc::RLIMIT_NOFILE, &raised)).is_ok() {
            limit.rlim_cur = rlim_cur;
        }
    }
    #[allow(clippy::unnecessary_cast)] // FreeBSD has signed numbers here.
    Ok(limit.rlim_cur as u64)
}

/// A soft limit that macOS grants without a change of its settings (`OPEN_MAX`, sys/syslimits.h).
const DESCRIPTORS_GRANTED: libc::rlim_t = 10_240;

/// Returns the user whose rights this process has.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Returns the number of a group, by its name or that number.
///
/// # Errors
/// No group has this name, or the accounts of this host cannot be read.
pub fn group_id(name: &str) -> io::Result<u32> {
    accounts::group(name)
}

/// Returns true if a process with this id exists.
pub(crate) fn is_running(process: u32) -> bool {
    let Ok(process) = i32::try_from(process) else { return false };
    // Signal 0 only checks that the process exists; 0 and negative numbers are groups of processes.
    process > 0 && !matches!(syscall!(libc::kill(process, 0)), Err(error) if error.raw_os_error() == Some(libc::ESRCH))
}

/// Returns the number of an interface, which may be given as that number; none if this host has no such interface.
pub(crate) fn interface_index(zone: &str) -> Option<u32> {
    if let Ok(number) = zone.parse() {
        return Some(number).filter(|number| *number > 0);
    }
    let name = CString::new(zone).ok()?;
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    Some(number).filter(|number| *number > 0)
}

/// The environment variable with the directory of the user's settings, beside `XDG_CONFIG_HOME` and `HOME`.
pub(crate) const CONFIG_VARIABLE: Option<&str> = None;
/// Files have owners and modes that can be checked.
pub(crate) const HAS_OWNERS: bool = true;

/// Returns the owner and the access rights of a file.
pub(crate) fn file_owner(file: &Metadata) -> FileOwner {
    FileOwner { user: file.uid(), group: file.gid(), mode: file.mode() & 0o7777, links: file.nlink() }
}

/// Returns the device and the inode of a file, which differ between two files that exist at the same time.
pub(crate) fn file_identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Returns the times of the last change of a file's content and of its entry, in seconds and nanoseconds.
pub(crate) fn file_times(file: &Metadata) -> [(i64, i64); 2] {
    [(file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec())]
}

/// Opens a file. If this creates the file, only its owner can access it.
pub(crate) fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.mode(0o600).open(path)
}

/// Opens a file for reading. The open of a pipe does not wait for a writer.
pub(crate) fn open_nonblocking(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Makes a named pipe for a test.
#[cfg(test)]
pub(crate) fn make_pipe(path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;

    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends with a zero byte and outlives the call.
    syscall!(libc::mkfifo(path.as_ptr(), 0o600)).map(drop)
}

/// Waits until a pipe or a device has data or has ended. Returns false if it has not within `patience`.
pub(crate) fn wait_readable(file: &File, patience: Duration) -> io::Result<bool> {
    let since = Instant::now();
    loop {
        let left = patience.saturating_sub(since.elapsed());
        let millis = libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX);
        let mut asked = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the record is valid for the call, and the file is open.
        match syscall!(libc::poll(&raw mut asked, 1, millis)) {
            Ok(ready) => return Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns a builder of directories that only their owner can access.
pub(crate) fn private_directory_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Returns the directory for the Unix sockets of this user's processes: `$XDG_RUNTIME_DIR/NAME`, else the one of the system
/// for root, else `NAME-USER` among the temporary files. It exists then, and no other user may enter.
///
/// # Errors
/// The directory cannot be made, belongs to another user, or is open to others.
pub fn socket_directory(name: &str) -> io::Result<PathBuf> {
    let user = effective_user();
    let directory = match std::env::var_os("XDG_RUNTIME_DIR").filter(|runtime| !runtime.is_empty()) {
        Some(runtime) => PathBuf::from(runtime).join(name),
        None if user == 0 => Path::new(kernel::RUNTIME_DIRECTORY).join(name),
        None => std::env::temp_dir().join(format!("{name}-{user}")),
    };
    private_directory_builder().recursive(true).create(&directory)?;
    let found = fs::symlink_metadata(&directory)?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        let text = format!("{} is not a directory of this user alone (mode 0700)", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(directory)
}

/// Returns the name of this host.
#[allow(dead_code)] // Linux has better marks of a machine.
pub(crate) fn host_name() -> Vec<u8> {
    let mut name = [0_u8; 256];
    // The pointer and the length are those of a live array.
    let found = syscall!(libc::gethostname(name.as_mut_ptr().cast(), name.len()));
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    found.map_or(Vec::new(), |_| name[..end].to_vec())
}

/// Returns true if every user may read the file. A pipe or a device has no meaningful mode.
pub fn is_readable_by_all(file: &Metadata) -> bool {
    file.is_file() && file.mode() & 0o004 != 0
}

/// Returns a duplicate of standard error.
///
/// # Errors
/// The process has no standard error, or the system has no descriptor left.
pub fn stderr_file() -> io::Result<File> {
    io::stderr().as_fd().try_clone_to_owned().map(File::from)
}

/// Returns a duplicate of standard output.
///
/// # Errors
/// The process has no standard output, or the system has no descriptor left.
pub fn stdout_file() -> io::Result<File> {
    io::stdout().as_fd().try_clone_to_owned().map(File::from)
}

/// Waits until the names in a directory are on the disk, so that a new name survives a power failure.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Returns true if the error means that the system had no memory for a datagram.
pub(crate) fn is_out_of_buffers(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Returns true if the error means that the process or the system has no more descriptors (`EMFILE`, `ENFILE`), or no
/// memory for one more socket. These states are temporary.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Returns true if the error means that this process has no more descriptors (`EMFILE`), so a close of its own makes room.
pub(crate) fn is_out_of_own_descriptors(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}

/// Returns true if registering failed because the descriptor cannot block, as a regular file cannot (`EPERM`).
pub(crate) fn is_unpollable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// Returns true if splice does not support this kind of descriptor (`EINVAL`, `ENOSYS`). The half then copies.
pub(crate) fn is_not_spliceable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// Returns true if a socket that is not TCP but looks like it (MPTCP of an old kernel, SCTP) cannot discard bytes without a
/// copy and tried to write to the null buffer (`EFAULT`).
pub(crate) fn is_not_skipped(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

/// Returns true if a connect is in progress and an event will report its result (`EINPROGRESS`).
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Returns true if this host does not have the address family, or not this address.
pub(crate) fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// Returns the error of a connect to a port without a listener.
pub(crate) fn connection_refused() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNREFUSED)
}

/// Returns the error of an open of a file that does not exist.
pub(crate) fn missing_file() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}
