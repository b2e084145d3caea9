//! Sockets of SCTP in the one-to-one style (RFC 6458, section 4; sctp(7)): the interface of TCP, but each write is one message,
//! and a socket may have several addresses. libc names none of the options.

use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::SctpOutput;

/// Makes a socket of SCTP that does not block, with one stream and the options of a carrier. Sockets that a listener accepts
/// have the same options.
///
/// # Errors
/// The system has no SCTP (`EPROTONOSUPPORT`), or another error.
pub(crate) fn sctp_socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::SCTP))?;
    // Without any of these options the socket works as well, but slower, or it notices a dead path later. Buffers first: the
    // window of an association is that of the time when it begins.
    set_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
    set_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
    let word = |value: u32| value.to_ne_bytes();
    set_if_possible(&socket, "nodelay", SCTP_NODELAY, &word(1));
    // The delay and the frequency of acknowledgements: at once for each packet. A sender whose window is full would wait for
    // the timer.
    set_if_possible(&socket, "delayed_sack", SCTP_DELAYED_SACK, &[ALL, word(0), word(1)].concat());
    let timeouts = [ALL, millis(RTO_INITIAL), millis(RTO_MAX), millis(RTO_MIN)].concat();
    set_if_possible(&socket, "rtoinfo", SCTP_RTOINFO, &timeouts);
    // One stream out and at most one in; the other fields stay as they are.
    set_if_possible(&socket, "initmsg", SCTP_INITMSG, &[1u16, 1, 0, 0].map(u16::to_ne_bytes).concat());
    set_if_possible(&socket, "peer_addr_params", SCTP_PEER_ADDR_PARAMS, &heartbeat_params());
    Ok(socket)
}

/// Binds a bound socket to further addresses of the same family and port, so that an association outlives the loss of one of
/// them (`sctp_bindx`, RFC 6458, section 9.1).
///
/// # Errors
/// The system's error, such as that of an address that is not of this host.
pub(crate) fn sctp_bind_more(socket: &Socket, addresses: &[SocketAddr]) -> io::Result<()> {
    let mut packed = Vec::new();
    for address in addresses {
        let address = SockAddr::from(*address);
        // SAFETY: the pointer and the length are those of a live address, which socket2 has filled in.
        packed.extend_from_slice(unsafe {
            std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), address.len() as usize)
        });
    }
    if packed.is_empty() { Ok(()) } else { set(socket, SCTP_SOCKOPT_BINDX_ADD, &packed) }
}

/// Returns the addresses of an association at this host, some of which the host may have no more.
///
/// # Errors
/// There are more than the system can tell here, or the socket is of another kind.
pub(crate) fn sctp_local_addresses(socket: &TcpStream) -> io::Result<Vec<IpAddr>> {
    // The association, the number of addresses, and the addresses without room between them.
    let mut packed = [0u8; 8 + ADDRESSES_MAX * size_of::<libc::sockaddr_in6>()];
    read(socket, libc::IPPROTO_SCTP, SCTP_GET_LOCAL_ADDRS, &mut packed)?;
    let (head, mut rest) = packed.split_at(8);
    let count = head[4..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    let mut addresses = Vec::new();
    for _ in 0..count {
        let family = rest.first_chunk().map_or(0, |family| u16::from_ne_bytes(*family));
        let (address, bytes) = match i32::from(family) {
            libc::AF_INET => (rest[4..].first_chunk::<4>().map(|ip| IpAddr::from(*ip)), size_of::<libc::sockaddr_in>()),
            _ => (rest[8..].first_chunk::<16>().map(|ip| IpAddr::from(*ip)), size_of::<libc::sockaddr_in6>()),
        };
        addresses.extend(address);
        rest = rest.get(bytes..).filter(|rest| rest.len() >= size_of::<libc::sockaddr_in6>()).unwrap_or(&NONE);
    }
    Ok(addresses)
}

/// Returns the state of the output of an association.
///
/// # Errors
/// The system does not tell it, or the socket is of another kind.
pub(crate) fn sctp_output(socket: &TcpStream) -> io::Result<SctpOutput> {
    let (mut memory, mut status) = ([0u8; QUEUED_AT + 4], [0u8; STATUS_BYTES]);
    let mut stats = [0u8; size_of::<Stats>()];
    read(socket, libc::SOL_SOCKET, SO_MEMINFO, &mut memory)?;
    read(socket, libc::IPPROTO_SCTP, SCTP_STATUS, &mut status)?;
    read(socket, libc::IPPROTO_SCTP, SCTP_GET_ASSOC_STATS, &mut stats)?;
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    let long = |bytes: &[u8]| bytes.first_chunk().map_or(0, |long| u64::from_ne_bytes(*long));
    Ok(SctpOutput {
        memory_bytes: word(&memory[QUEUED_AT..]),
        chunk_bytes: word(&status[FRAGMENT_AT..]),
        srtt: Duration::from_millis(word(&status[SRTT_AT..]).into()),
        chunks_sent: long(&stats[offset_of!(Stats, counts) + CHUNKS_SENT * size_of::<u64>()..]),
    })
}

/// Sets the lower bound of the retransmission timeout of an association.
///
/// # Errors
/// The bound is above the upper one, or the socket is of another kind.
pub(crate) fn sctp_set_rto_min(socket: &TcpStream, time: Duration) -> io::Result<()> {
    // The other two stay as they are.
    let unchanged = [0; 4];
    set(&SockRef::from(socket), SCTP_RTOINFO, &[ALL, unchanged, unchanged, millis(time)].concat())
}

/// Sets the size of a buffer, beyond the limit of the system if this process may do that (`CAP_NET_ADMIN`).
fn set_buffer(socket: &Socket, forced: libc::c_int, plain: libc::c_int) {
    let bytes = BUFFER_BYTES.to_ne_bytes();
    // The system's default is used if both fail.
    let _ =
        set_at(socket, libc::SOL_SOCKET, forced, &bytes).or_else(|_| set_at(socket, libc::SOL_SOCKET, plain, &bytes));
}

/// Returns a `struct sctp_paddrparams` that sets the interval of heartbeats of all paths, and leaves the rest.
fn heartbeat_params() -> Vec<u8> {
    // The association, an empty address, the interval, the retransmissions, the MTU, the delay of acknowledgements, flags.
    let (address, rest) = ([0; size_of::<libc::sockaddr_storage>()], [0; 2 + 4 + 4]);
    let mut params: Vec<u8> = [&ALL[..], &address, &millis(HEARTBEAT), &rest, &SPP_HB_ENABLE.to_ne_bytes()].concat();
    // The flow label and the DSCP, and the padding at the end.
    params.resize(PEER_ADDR_PARAMS_BYTES, 0);
    params
}

fn millis(time: Duration) -> [u8; 4] {
    (time.as_millis() as u32).to_ne_bytes()
}

/// Sets an option that a carrier works without.
fn set_if_possible(socket: &Socket, name: &str, option: libc::c_int, value: &[u8]) {
    if let Err(error) = set(socket, option, value) {
        log::debug!(target: TARGET, option = name, error = error.to_string(); "an option of SCTP is not set");
    }
}

fn set(socket: &Socket, option: libc::c_int, value: &[u8]) -> io::Result<()> {
    set_at(socket, libc::IPPROTO_SCTP, option, value)
}

fn set_at(socket: &Socket, level: libc::c_int, option: libc::c_int, value: &[u8]) -> io::Result<()> {
    // The pointer and the length are those of a live slice, which is only read.
    syscall!(libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), value.len() as libc::socklen_t))
        .map(drop)
}

/// Reads an option as far as `value` has room.
fn read(socket: &TcpStream, level: libc::c_int, option: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut len = value.len() as libc::socklen_t;
    // The pointers are to a live slice and its length, as getsockopt requires.
    syscall!(libc::getsockopt(socket.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut len)).map(drop)
}

/// The target of the log.
const TARGET: &str = "seaprox::link";
/// Addresses of an association at this host that are looked at.
const ADDRESSES_MAX: usize = 64;
/// An address of no family, behind the last one.
const NONE: [u8; size_of::<libc::sockaddr_in6>()] = [0; size_of::<libc::sockaddr_in6>()];

/// `struct sctp_assoc_stats`, for its layout.
#[repr(C)]
struct Stats {
    association: i32,
    address: libc::sockaddr_storage,
    counts: [u64; 15],
}

/// The association of an option: all associations of the socket (`SCTP_FUTURE_ASSOC`).
const ALL: [u8; 4] = [0; 4];
/// Size of the send buffer and of the receive buffer. The system does not adapt them, and with its defaults a path of 1 Gbit/s
/// and 4 ms is not filled.
const BUFFER_BYTES: u32 = 1 << 20;
/// Bounds of the retransmission timeout. The lower one is less than the default of 1 s, because it is the gap of each failover, and
/// rises with the round trip: see [`sctp_set_rto_min`].
const RTO_INITIAL: Duration = Duration::from_secs(1);
const RTO_MIN: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(5);
/// Interval of heartbeats on paths without data. It bounds the time until a path that is back is used again.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The memory of a socket, and the place of its queued bytes to send (linux/sock_diag.h).
const SO_MEMINFO: libc::c_int = 55;
const QUEUED_AT: usize = 5 * 4;
// linux/sctp.h.
const SCTP_RTOINFO: libc::c_int = 0;
const SCTP_INITMSG: libc::c_int = 2;
const SCTP_NODELAY: libc::c_int = 3;
const SCTP_PEER_ADDR_PARAMS: libc::c_int = 9;
const SCTP_STATUS: libc::c_int = 14;
/// Size of `struct sctp_status`, below which the system tells nothing, and the offsets of the payload of a full chunk and
/// of the round trip of the primary path in milliseconds.
const STATUS_BYTES: usize = 176;
const FRAGMENT_AT: usize = 20;
const SRTT_AT: usize = 164;
const SCTP_DELAYED_SACK: libc::c_int = 16;
const SCTP_SOCKOPT_BINDX_ADD: libc::c_int = 100;
const SCTP_GET_LOCAL_ADDRS: libc::c_int = 109;
const SCTP_GET_ASSOC_STATS: libc::c_int = 112;
/// Index in the counts of [`Stats`] of the ordered chunks sent, which are all of a carrier. A chunk counts once, however often it is
/// sent again.
const CHUNKS_SENT: usize = 11;
const SPP_HB_ENABLE: u32 = 1;
/// Size of `struct sctp_paddrparams`, which is packed to four bytes.
const PEER_ADDR_PARAMS_BYTES: usize = 156;
