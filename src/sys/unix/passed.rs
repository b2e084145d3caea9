//! Sockets of listeners that a service manager has passed to this process (sd_listen_fds(3)): descriptors from 3 on, their
//! number in `LISTEN_FDS`, their names in `LISTEN_FDNAMES`, and the process that they are for in `LISTEN_PID`.
//!
//! The process keeps each of them until it ends, and a listener has a duplicate. So a listener that is closed and opened
//! again finds its socket, with the clients that wait there. One listener at a time has a socket.

use std::io::{self, ErrorKind};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use socket2::SockRef;

use crate::types::proto::Proto;

/// A passed socket that a listener has. A drop gives the socket back.
#[derive(Debug)]
pub(crate) struct PassedSocket(usize);

/// A socket that was passed to this process.
struct Passed {
    name: String,
    proto: Proto,
    socket: OwnedFd,
    is_taken: bool,
}

/// Returns the name of each socket that was passed to this process, and its protocol: UDP for a UDP socket, and TCP for any other.
/// A program calls this at its start, before it opens
/// descriptors of its own, and from then on no program that it starts gets the sockets.
pub fn passed_sockets() -> Vec<(String, Proto)> {
    table().iter().map(|passed| (passed.name.clone(), passed.proto)).collect()
}

/// Takes all passed sockets with a name that are of a protocol, where Unix sockets are of TCP: a duplicate of each, which does not block, and the hold on the original.
///
/// # Errors
/// No socket has the name ([`ErrorKind::NotFound`]), a listener has it already ([`ErrorKind::AddrInUse`]), or it is no
/// listening stream socket or no UDP socket ([`ErrorKind::InvalidInput`]).
pub(crate) fn take_passed(name: &str, proto: Proto) -> io::Result<Vec<(OwnedFd, PassedSocket)>> {
    let mut table = table();
    let of_name: Vec<usize> = (0..table.len()).filter(|index| table[*index].name == name).collect();
    let Some(first) = of_name.first() else {
        return Err(io::Error::new(ErrorKind::NotFound, unknown(&table)));
    };
    // One name may have sockets of both protocols.
    let of_proto: Vec<usize> = of_name.iter().copied().filter(|index| table[*index].proto == proto).collect();
    let of_name = if of_proto.is_empty() { vec![*first] } else { of_proto };
    let duplicates: Vec<OwnedFd> =
        of_name.iter().map(|index| duplicate(&table[*index].socket, proto)).collect::<io::Result<_>>()?;
    if of_name.iter().any(|index| table[*index].is_taken) {
        return Err(io::Error::new(ErrorKind::AddrInUse, "another listener has this socket"));
    }
    of_name.iter().for_each(|index| table[*index].is_taken = true);
    Ok(duplicates.into_iter().zip(of_name.into_iter().map(PassedSocket)).collect())
}

impl Drop for PassedSocket {
    fn drop(&mut self) {
        if let Some(passed) = table().get_mut(self.0) {
            passed.is_taken = false;
        }
    }
}

fn unknown(table: &[Passed]) -> String {
    match table {
        [] => "no service manager has passed a socket to this process".to_owned(),
        table => {
            let names: Vec<&str> = table.iter().map(|passed| &*passed.name).collect();
            format!("no socket with this name was passed to this process, but: {}", names.join(", "))
        }
    }
}

/// Returns a duplicate of a passed socket, unless it is no socket of the protocol for a listener.
fn duplicate(socket: &OwnedFd, proto: Proto) -> io::Result<OwnedFd> {
    let kind = number_option(socket, libc::SO_TYPE)?;
    let (is_it, why) = match proto {
        Proto::Tcp => (
            kind == libc::SOCK_STREAM && number_option(socket, libc::SO_ACCEPTCONN)? != 0,
            "the passed descriptor is no listening stream socket",
        ),
        Proto::Udp => (proto_of(socket) == Proto::Udp, "the passed descriptor is no UDP socket"),
    };
    if !is_it {
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    let duplicate = socket.try_clone()?;
    // The flag belongs to the open file, so the service manager has it, too; systemd does not accept from it.
    let flags = syscall!(libc::fcntl(duplicate.as_raw_fd(), libc::F_GETFL))?;
    syscall!(libc::fcntl(duplicate.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    Ok(duplicate)
}

/// Returns UDP for a socket of datagrams that has an IP address, and TCP for any other.
fn proto_of(socket: &OwnedFd) -> Proto {
    let is_datagram = number_option(socket, libc::SO_TYPE).is_ok_and(|kind| kind == libc::SOCK_DGRAM);
    let has_ip = || SockRef::from(socket).local_addr().is_ok_and(|addr| addr.as_socket().is_some());
    if is_datagram && has_ip() { Proto::Udp } else { Proto::Tcp }
}

/// Returns an option of a socket that is a number. Fails if the descriptor is no socket.
fn number_option(socket: &OwnedFd, option: i32) -> io::Result<i32> {
    let (mut value, mut len) = (0_i32, mem::size_of::<i32>() as libc::socklen_t);
    let no_socket = |_| io::Error::new(ErrorKind::InvalidInput, "the passed descriptor is no socket");
    syscall!(libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len))
        .map_err(no_socket)?;
    Ok(value)
}

fn table() -> MutexGuard<'static, Vec<Passed>> {
    static TABLE: OnceLock<Mutex<Vec<Passed>>> = OnceLock::new();
    TABLE.get_or_init(|| Mutex::new(adopt())).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adopts the descriptors that were passed. Later calls would adopt them twice.
fn adopt() -> Vec<Passed> {
    let variable = |name| std::env::var(name).ok();
    if variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) != Some(std::process::id()) {
        return Vec::new();
    }
    let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
    let names = names(variable("LISTEN_FDNAMES").as_deref(), count);
    let adopt = |(fd, name): (RawFd, String)| {
        let flags = syscall!(libc::fcntl(fd, libc::F_GETFD)).ok()?;
        syscall!(libc::fcntl(fd, libc::F_SETFD, flags | libc::FD_CLOEXEC)).ok()?;
        // SAFETY: the descriptor is open, and the service manager has given it to this process, which adopts it once.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Some(Passed { name, proto: proto_of(&socket), socket, is_taken: false })
    };
    (FIRST..).zip(names).filter_map(adopt).collect()
}

/// Returns a name for each of `count` sockets. Sockets without names are called `unknown`, as in sd_listen_fds(3).
fn names(listed: Option<&str>, count: usize) -> Vec<String> {
    let listed = listed.map(|listed| listed.split(':').map(str::to_owned).collect::<Vec<_>>());
    let name = |index: usize| listed.as_ref().and_then(|listed| listed.get(index).cloned());
    (0..count.min(SOCKETS_MAX)).map(|index| name(index).unwrap_or_else(|| "unknown".to_owned())).collect()
}

/// The first descriptor that is passed (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Sockets that are taken from a service manager.
const SOCKETS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_without_names_are_called_unknown() {
        assert_eq!(names(Some("web:links"), 2), ["web", "links"]);
        assert_eq!(names(Some("web"), 2), ["web", "unknown"]);
        assert_eq!(names(Some("web:links:more"), 2), ["web", "links"]);
        assert_eq!(names(None, 1), ["unknown"]);
        assert_eq!(names(None, usize::MAX).len(), SOCKETS_MAX);
    }

    #[test]
    fn only_a_socket_of_the_protocol_for_a_listener_is_duplicated() {
        let refused = |socket: OwnedFd| duplicate(&socket, Proto::Tcp).unwrap_err().to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refused(connected.into()).contains("no listening stream socket"));
        assert!(refused(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()).contains("no listening stream"));
        assert!(refused(std::io::pipe().unwrap().0.into()).contains("no socket"));
        let listener = listener.into();
        assert!(duplicate(&listener, Proto::Udp).unwrap_err().to_string().contains("no UDP socket"));
        let unix = std::os::unix::net::UnixDatagram::unbound().unwrap().into();
        assert!(duplicate(&unix, Proto::Udp).unwrap_err().to_string().contains("no UDP socket"));
        duplicate(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(), Proto::Udp).unwrap();
        let duplicate = duplicate(&listener, Proto::Tcp).unwrap();
        let flags = |command| syscall!(libc::fcntl(duplicate.as_raw_fd(), command)).unwrap();
        assert!(flags(libc::F_GETFL) & libc::O_NONBLOCK != 0 && flags(libc::F_GETFD) & libc::FD_CLOEXEC != 0);
    }
}
