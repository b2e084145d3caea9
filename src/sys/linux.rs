//! Linux: splice and pipes (splice(2), pipe(2), fcntl(2)), and the options and figures of TCP sockets (tcp(7)).

use std::io;
use std::net::{IpAddr, TcpStream};
#[cfg(target_os = "android")]
use std::os::android::net::SocketAddrExt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use mio::Interest;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{PathFigures, PathInfo, PeerCredentials, SctpOutput};

mod beneath;
mod redirected;
mod route;
mod sctp;
mod timer;

pub(crate) use beneath::{open_beneath, rename_new};
pub(crate) use redirected::{
    CONTROL_BYTES, HAS_REDIRECT, choose_port_late, original_dest, receive_original_dest, receive_redirected, set_mark,
    set_transparent,
};
pub(crate) use route::{
    avoid_cut_interface, has_other_way, is_overruled, network_change, network_changes, running_interfaces,
};
pub(crate) use sctp::{sctp_bind_more, sctp_local_addresses, sctp_output, sctp_set_rto_min, sctp_socket};
pub(crate) use timer::SystemTimer;

/// The events of a connected socket: both directions, and urgent data, because reads stop there.
pub(crate) const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

/// Makes a stream socket that does not block.
pub(crate) fn nonblocking_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking(), None)
}

/// Makes a UDP socket that does not block.
pub(crate) fn datagram_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), None)?;
    // A router may fragment the datagrams. Otherwise the first one that is too long for it would be lost, and would be an error
    // of a connected socket. A socket of IPv6 may send to addresses of IPv4, too.
    set_int_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    if domain == Domain::IPV6 {
        set_int_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
    }
    Ok(socket)
}

/// Makes a connected UDP socket report all errors: those that a router tells by ICMP, such as a host that is unreachable, and a
/// full queue of the device (`IP_RECVERR`, ip(7)). Without this it reports a closed port only.
pub(crate) fn report_errors(socket: &Socket, domain: Domain) -> io::Result<()> {
    match domain {
        Domain::IPV6 => set_int_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
        _ => set_int_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
    }
}

/// Drops the reported errors from the queue of a socket, where their datagrams use room of the receive buffer. Returns true if
/// there was one.
pub(crate) fn drop_errors(socket: SockRef<'_>) -> bool {
    let drop_one = || socket.recv_with_flags(&mut [], libc::MSG_ERRQUEUE).is_ok();
    (0..ERRORS_AT_ONCE).take_while(|_| drop_one()).count() > 0
}

/// Reported errors that are dropped at once: routers may report more.
const ERRORS_AT_ONCE: usize = 16;

/// Returns true if the queue of a socket has a reported error, which leaves the queue.
#[cfg(test)]
pub(crate) fn has_error(socket: SockRef<'_>) -> bool {
    socket.recv_with_flags(&mut [], libc::MSG_ERRQUEUE).is_ok()
}

/// Makes a UDP socket send datagrams without checksums, so that the system refuses to send several in one call.
#[cfg(test)]
pub(crate) fn set_no_checksums(socket: &impl AsFd) -> io::Result<()> {
    set_int_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}

/// Returns true if the system does not send these datagrams in one call: a device cannot part them (`EIO`, `EINVAL`), or each of
/// them is longer than the path permits (`EMSGSIZE`).
pub(crate) fn is_segments_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

/// True: the system takes several datagrams in one call (`UDP_SEGMENT`, udp(7)), and a connected socket takes the address of
/// its peer.
pub(crate) const SENDS_SEGMENTS: bool = true;

/// Makes a UDP socket tell the congestion notification of received datagrams (`IP_RECVTOS`, ip(7)).
pub(crate) fn receive_ecn(socket: &Socket, domain: Domain) -> io::Result<()> {
    if domain == Domain::IPV6 { socket.set_recv_tclass_v6(true) } else { socket.set_recv_tos_v4(true) }
}

/// Sets the receive buffer of a socket, beyond the limit of the system (`SO_RCVBUFFORCE`, socket(7)).
///
/// # Errors
/// This process may not do that (`CAP_NET_ADMIN`).
pub(crate) fn force_receive_buffer(socket: &impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set_int_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
}

/// Returns the longest packet of the route from a local address of this socket to a peer, as far as the system knows it (`IP_MTU`,
/// ip(7)): that of the interface, or a shorter one that a router has asked for.
pub(crate) fn route_mtu(socket: SockRef<'_>, local: Option<IpAddr>, peer: std::net::SocketAddr) -> Option<usize> {
    let peer = std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port());
    // Only a connected socket knows its route. This one sends nothing.
    let probe = datagram_socket(Domain::for_address(peer)).ok()?;
    if let Some(device) = socket.device().ok()? {
        probe.bind_device(Some(&device)).ok()?;
    }
    let local = local.map(|local| local.to_canonical()).filter(|local| !local.is_unspecified());
    if let Some(local) = local {
        probe.bind(&std::net::SocketAddr::new(local, 0).into()).ok()?;
    }
    probe.connect(&peer.into()).ok()?;
    let (level, option) = match peer.is_ipv4() {
        true => (libc::IPPROTO_IP, libc::IP_MTU),
        false => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    usize::try_from(int_option(&probe, level, option).ok()?).ok()
}

/// The options of a UDP socket by which the system fragments its datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragmentation {
    v4: Option<libc::c_int>,
    v6: Option<libc::c_int>,
}

impl Fragmentation {
    /// Reads the options of a socket.
    pub fn of(socket: &impl AsFd) -> Fragmentation {
        let read = |level, option| int_option(socket, level, option).ok();
        Fragmentation {
            v4: read(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
            v6: read(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
        }
    }

    /// Gives a socket these options, and permits fragments of IPv6. Switches the time stamps of received datagrams off, too.
    pub fn restore(self, socket: &impl AsFd) {
        let set = |level, option, value| _ = set_int_option(socket, level, option, value);
        self.v4.into_iter().for_each(|value| set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value));
        if let Some(value) = self.v6 {
            set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, value);
            set(libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0);
        }
        set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0);
    }
}

fn int_option(socket: &impl AsFd, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let (mut value, mut len): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // The pointers are to a live integer and its length.
    syscall!(libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut len))?;
    Ok(value)
}

fn set_int_option(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // The pointer and the length are those of a live integer.
    syscall!(libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), len)).map(drop)
}

/// Makes a socket of multipath TCP that does not block.
pub(crate) fn mptcp_socket(domain: Domain) -> io::Result<Socket> {
    Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::MPTCP))
}

/// Runs this thread on one processor only (sched_setaffinity(2)).
pub(crate) fn run_on_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: the set is an array of integers, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the bit is one of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // The pointer and the length are those of a live set; 0 is the calling thread.
    syscall!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set)).map(drop)
}

/// Runs this thread on all processors that the first thread of this process may use. Does nothing if the system refuses.
pub(crate) fn run_on_cpus_of_process() {
    // SAFETY: the set is an array of integers, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let first = std::process::id().cast_signed();
    // The pointers and the length are those of a live set; 0 is the calling thread.
    let _ = syscall!(libc::sched_getaffinity(first, size_of_val(&set), &raw mut set))
        .and_then(|_| syscall!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set)));
}

/// Prefers a listening socket among those that share its port for packets that arrive at one processor
/// (`SO_INCOMING_CPU`, socket(7)).
pub(crate) fn prefer_cpu(socket: SockRef<'_>, cpu: usize) -> io::Result<()> {
    socket.set_cpu_affinity(cpu)
}

/// Sends all packets of a socket out of one interface (`SO_BINDTODEVICE`, socket(7)).
pub(crate) fn bind_to_interface(socket: &Socket, interface: &str) -> io::Result<()> {
    socket.bind_device(Some(interface.as_bytes()))
}

/// Sets the unsent bytes above which a TCP socket is not writable (`TCP_NOTSENT_LOWAT`, tcp(7)).
pub(crate) fn set_unsent_bytes(socket: &TcpStream, bytes: u32) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(bytes)
}

/// Sets the time after which a TCP connection fails if written bytes are not acknowledged (`TCP_USER_TIMEOUT`, tcp(7)).
pub(crate) fn set_user_timeout(socket: &TcpStream, time: Duration) -> io::Result<()> {
    SockRef::from(socket).set_tcp_user_timeout(Some(time))
}

/// Sets the congestion control of a TCP connection (`TCP_CONGESTION`, tcp(7)). The system loads a missing module only for a
/// privileged process.
pub(crate) fn set_congestion(socket: &TcpStream, name: &str) -> io::Result<()> {
    SockRef::from(socket).set_tcp_congestion(name.as_bytes())
}

/// True: the system distributes connections over the listeners that share a port (since Linux 3.9, socket(7)).
pub(crate) const REUSE_PORT_BALANCES: bool = true;

/// Makes a pipe whose ends do not block. Returns its read end, its write end and its capacity in bytes.
///
/// The capacity is `bytes` if the system grants it, otherwise the default.
pub(crate) fn new_pipe(bytes: usize) -> io::Result<(OwnedFd, OwnedFd, usize)> {
    let mut ends = [-1; 2];
    // The pointer is to two live integers, as pipe2 requires.
    syscall!(libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC))?;
    // SAFETY: pipe2 has just made both descriptors, and no other code owns them.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let wish = bytes.min(i32::MAX as usize) as libc::c_int;
    // fcntl with these two commands takes and gives integers only.
    let granted = syscall!(libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, wish))
        .or_else(|_| syscall!(libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ)))?;
    Ok((read, write, granted as usize))
}

/// Moves up to `bytes` from a socket into a pipe. Returns 0 at the end of the input.
pub(crate) fn splice_in(from: BorrowedFd<'_>, pipe: &OwnedFd, bytes: usize) -> io::Result<usize> {
    splice(from, pipe.as_fd(), bytes)
}

/// Moves up to `bytes` from a pipe to a socket.
pub(crate) fn splice_out(pipe: &OwnedFd, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    splice(pipe.as_fd(), to, bytes)
}

/// Moves up to `bytes` between two descriptors without a copy through the process. One of them must be a pipe. Returns 0 at
/// the end of the input.
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // Both descriptors are borrowed, so they are open; sockets and pipes require null offsets.
    let moved =
        syscall!(libc::splice(from.as_raw_fd(), ptr::null_mut(), to.as_raw_fd(), ptr::null_mut(), bytes, flags))?;
    Ok(moved as usize)
}

/// Returns the free memory of the heap to the system (malloc_trim(3)). By itself the allocator returns only memory at the
/// end of the heap. The call takes time in proportion to the free memory.
#[cfg(target_env = "gnu")]
pub(crate) fn trim_memory() {
    // SAFETY: malloc_trim takes a number, and touches only free memory.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other allocators return memory by themselves, or cannot be asked.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim_memory() {}

/// True: received bytes of a TCP socket can be discarded without a copy.
pub(crate) const SKIPS: bool = true;

/// Discards up to `bytes` received bytes of a TCP socket (`MSG_TRUNC`, tcp(7)). Returns 0 at the end of the input.
pub(crate) fn skip(socket: &TcpStream, bytes: usize) -> io::Result<usize> {
    // With this flag the system writes nothing to the buffer, so its pointer may be null.
    let skipped = syscall!(libc::recv(socket.as_raw_fd(), ptr::null_mut(), bytes, libc::MSG_TRUNC))?;
    Ok(skipped as usize)
}

/// Sends the last bytes of a stream. The system delays them until the FIN that follows, and sends both in one packet
/// (`MSG_MORE`, send(2)).
pub(crate) fn send_before_end(socket: &TcpStream, buf: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_MORE | libc::MSG_NOSIGNAL;
    // The pointer and the length are those of a live slice, which is only read.
    let sent = syscall!(libc::send(socket.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags))?;
    Ok(sent as usize)
}

/// Returns true if the error means that a TCP connection was reset after the peer's FIN, so that all bytes of the peer have
/// arrived (`EPIPE` instead of `ECONNRESET`).
pub(crate) fn is_reset_behind_fin(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPIPE)
}

/// Returns the number of written bytes that the peer of a TCP socket has not acknowledged (`SIOCOUTQ`, tcp(7)). A FIN counts
/// as one byte.
pub(crate) fn unacknowledged(socket: &TcpStream) -> usize {
    let mut count: libc::c_int = 0;
    // The pointer is to a live integer, as the request requires. An error counts as 0, so that the caller does not wait.
    match syscall!(libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count)) {
        Ok(_) => usize::try_from(count).unwrap_or(0),
        Err(_) => 0,
    }
}

/// Makes a socket that connects send its first bytes in the last packet of the handshake: the kernel delays that packet
/// until there are bytes, for at most 200 ms (`TCP_DEFER_ACCEPT`, tcp(7)).
pub(crate) fn handshake_with_data(socket: &Socket) {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // The pointer and the length are those of a live integer. On failure the handshake has one more packet.
    let _ = syscall!(libc::setsockopt(
        socket.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        (&raw const on).cast(),
        len
    ));
}

/// Returns the system's measurements of the path of a TCP connection, or `None` if they are incomplete. The offsets are
/// those of `struct tcp_info` in linux/tcp.h, which is part of the kernel's interface and only grows at its end.
pub(crate) fn tcp_info(socket: &TcpStream) -> Option<PathInfo> {
    let mut info = [0u8; INFO_BYTES];
    let mut len = INFO_BYTES as libc::socklen_t;
    let (fd, at) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // The pointers are to a live array and to its length, as getsockopt requires.
    syscall!(libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, at, &raw mut len)).ok()?;
    if (len as usize) < INFO_BYTES_MIN {
        return None;
    }
    // An older kernel leaves the end of the array as it is.
    Some(path_info(&info))
}

/// Reads the figures of a path from a `struct tcp_info`.
fn path_info(info: &[u8; INFO_BYTES]) -> PathInfo {
    let word = |at: usize| info.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    let [mss, rtt_us, window, round_us] = [SND_MSS, RTT, SND_CWND, MIN_RTT].map(|at| u64::from(word(at)));
    let delivery_rate = info[DELIVERY_RATE..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    // The delivery rate is low while the application sends little; the window shows what the path would carry.
    let window_rate = window * mss * 1_000_000 / rtt_us.max(1);
    let is_stuck = info[RETRANSMITS] > 0 || info[BACKOFF] > 0;
    let packets_lost = u64::from(word(TOTAL_RETRANS));
    let resent = packets_lost.saturating_sub(word(DSACK_DUPS).into());
    let figures = PathFigures { window_bytes: window * mss, packets_lost, mtu_bytes: word(PMTU) };
    PathInfo { rtt_us, round_us, rate: delivery_rate.max(window_rate), is_stuck, resent, figures }
}

/// Returns the user and the groups of the process that connected a Unix socket, as they were then (`SO_PEERCRED` and
/// `SO_PEERGROUPS`, unix(7)). Before Linux 4.13 the supplementary groups are not known.
pub fn peer_credentials(socket: &UnixStream) -> io::Result<PeerCredentials> {
    let mut process = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    let (fd, at) = (socket.as_raw_fd(), (&raw mut process).cast());
    // The pointers are to a live structure and to its length, as getsockopt requires.
    syscall!(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, at, &raw mut len))?;
    let mut groups = vec![0 as libc::gid_t; GROUPS_MAX];
    let mut len = size_of_val(&groups[..]) as libc::socklen_t;
    let at = groups.as_mut_ptr().cast();
    // The pointers are to live integers and to their length in bytes, as getsockopt requires.
    let found = syscall!(libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, at, &raw mut len));
    groups.truncate(if found.is_ok() { len as usize / size_of::<libc::gid_t>() } else { 0 });
    groups.insert(0, process.gid);
    Ok(PeerCredentials { user: process.uid, groups })
}

/// Groups of one process (`NGROUPS_MAX`, linux/limits.h).
const GROUPS_MAX: usize = 65_536;

/// Returns the number of subflows beside the first one if a connected socket uses multipath TCP, and none if it is one of TCP
/// or has fallen back to it (`MPTCP_INFO`, linux/mptcp.h). Before Linux 5.16 the system does not tell.
pub(crate) fn mptcp_subflows(socket: &TcpStream) -> Option<u8> {
    let mut info = [0u8; MPTCP_FLAGS + 4];
    // A kernel with a longer record fills the part that is asked for.
    let len = mptcp_option(socket, MPTCP_INFO, &mut info)?;
    let flags = info[MPTCP_FLAGS..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    (len >= info.len() && flags & MPTCP_FLAG_FALLBACK == 0).then_some(info[0])
}

/// Returns the figures of a connection of multipath TCP (`MPTCP_TCPINFO`, linux/mptcp.h): the sum of the rates of its
/// subflows, and the shortest round trip. It is stuck if all of its subflows are. Returns `None` for a connection that has
/// fallen back, and before Linux 5.16.
pub(crate) fn mptcp_info(socket: &TcpStream) -> Option<PathInfo> {
    let mut info = [0u8; SUBFLOW_HEAD_BYTES + SUBFLOWS_MAX * INFO_BYTES];
    for (at, value) in [(0, SUBFLOW_HEAD_BYTES), (12, INFO_BYTES)] {
        info[at..at + 4].copy_from_slice(&(value as u32).to_ne_bytes());
    }
    mptcp_option(socket, MPTCP_TCPINFO, &mut info)?;
    let word = |at: usize| info[at..].first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize);
    let (count, size) = (word(4).min(SUBFLOWS_MAX), word(8));
    if size < INFO_BYTES {
        return None;
    }
    let (records, _) = info[SUBFLOW_HEAD_BYTES..].as_chunks::<INFO_BYTES>();
    records.iter().take(count).map(path_info).reduce(|a, b| PathInfo {
        rtt_us: a.rtt_us.min(b.rtt_us),
        round_us: a.round_us.min(b.round_us),
        rate: a.rate.saturating_add(b.rate),
        is_stuck: a.is_stuck && b.is_stuck,
        resent: a.resent.saturating_add(b.resent),
        figures: PathFigures {
            window_bytes: a.figures.window_bytes.saturating_add(b.figures.window_bytes),
            packets_lost: a.figures.packets_lost.saturating_add(b.figures.packets_lost),
            mtu_bytes: a.figures.mtu_bytes.min(b.figures.mtu_bytes),
        },
    })
}

/// Reads an option of multipath TCP into `info`. Returns the length that the system has filled.
fn mptcp_option(socket: &TcpStream, option: libc::c_int, info: &mut [u8]) -> Option<usize> {
    let mut len = info.len() as libc::socklen_t;
    let (fd, at) = (socket.as_raw_fd(), info.as_mut_ptr().cast());
    // The pointers are to a live array and to its length, as getsockopt requires.
    syscall!(libc::getsockopt(fd, SOL_MPTCP, option, at, &raw mut len)).ok()?;
    Some(len as usize)
}

/// Returns true if a TCP socket has fewer unsent bytes than half of `TCP_NOTSENT_LOWAT`. If it has more, an event follows
/// when it has fewer, because the poll tells the system that a process waits (poll(2), tcp(7)).
pub(crate) fn wants_more(socket: &TcpStream) -> bool {
    let mut asked = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // The pointer is to one live record, and nothing is waited for. Where it fails, the next write finds out.
    syscall!(libc::poll(&raw mut asked, 1, 0)).map_or(true, |_| asked.revents != 0)
}

/// Returns true if the system may choose this port for the local end of a connection. Reads the port range once; if it
/// cannot be read, returns true for each port.
pub(crate) fn may_choose_port(port: u16) -> bool {
    static RANGE: OnceLock<(u16, u16)> = OnceLock::new();
    let (first, last) = RANGE.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ports = text.split_ascii_whitespace().map(|word| word.parse().ok());
        ports.next().flatten().zip(ports.next().flatten()).unwrap_or((0, u16::MAX))
    });
    (*first..=*last).contains(&port)
}

/// The parent directory of root's sockets.
pub(crate) const RUNTIME_DIRECTORY: &str = "/run";

/// Returns an identifier of this machine and of its network namespace.
pub fn machine() -> Vec<Vec<u8>> {
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    let network = std::fs::read_link("/proc/self/ns/net").map(|link| link.to_string_lossy().into_owned());
    vec![read("/etc/machine-id"), read("/proc/sys/kernel/hostname"), network.unwrap_or_default().into_bytes()]
}

/// A name that no other process in this network namespace has: a Unix socket without a file (unix(7), abstract names).
#[derive(Debug)]
pub struct NameClaim(#[allow(dead_code)] UnixListener);

/// Claims a name. The name is free again when this process drops the claim or ends in any way. Returns `None` if the system
/// has no such names.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if another process has the name, or another error of the system.
pub fn claim_name(name: &str) -> io::Result<Option<NameClaim>> {
    let addr = SocketAddr::from_abstract_name(name)?;
    UnixListener::bind_addr(&addr).map(|listener| Some(NameClaim(listener)))
}

// Offsets of fields of `struct tcp_info` (linux/tcp.h): bytes, words of 32 bits, and one of 64.
const RETRANSMITS: usize = 2;
const BACKOFF: usize = 4;
const SND_MSS: usize = 16;
const PMTU: usize = 60;
const RTT: usize = 68;
const SND_CWND: usize = 80;
const TOTAL_RETRANS: usize = 100;
const MIN_RTT: usize = 148;
const DELIVERY_RATE: usize = 160;
/// Packets of which the peer had two (RFC 2883).
const DSACK_DUPS: usize = 216;
/// Size of `struct tcp_info` up to the end of the delivery rate (since Linux 4.9), and up to that of the packets that arrived
/// twice (since Linux 4.19).
const INFO_BYTES_MIN: usize = 168;
const INFO_BYTES: usize = DSACK_DUPS + 4;
// The options of multipath TCP (linux/mptcp.h), which libc does not name.
const SOL_MPTCP: libc::c_int = 284;
const MPTCP_INFO: libc::c_int = 1;
const MPTCP_TCPINFO: libc::c_int = 2;
/// Offset of the flags in `struct mptcp_info`, and the flag of a connection that has fallen back.
const MPTCP_FLAGS: usize = 8;
const MPTCP_FLAG_FALLBACK: u32 = 1;
/// Size of `struct mptcp_subflow_data`: its own size, the number of subflows, the size of a record in the kernel and here.
const SUBFLOW_HEAD_BYTES: usize = 16;
/// Subflows whose figures are read; the kernel has 8 at most beside the first one.
const SUBFLOWS_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_connection_on_loopback_has_plausible_figures_of_its_path() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        for _ in 0..8 {
            near.write_all(&[0; 20_000]).unwrap();
            far.read_exact(&mut [0; 20_000]).unwrap();
        }
        let info = tcp_info(&near).unwrap();
        assert!(info.round_us > 0 && info.round_us <= info.rtt_us && info.rtt_us < 10_000_000, "{info:?}");
        assert!(info.rate > 10_000 && !info.is_stuck, "{info:?}");
        let PathFigures { window_bytes, packets_lost, mtu_bytes } = info.figures;
        assert!(window_bytes >= 20_000 && packets_lost < 100 && (1_280..=65_536).contains(&mtu_bytes), "{info:?}");
    }
}
