//! The input and output of a side: one interface for sockets, pipes, terminals, files and streams of links.
//!
//! An [`Io`] owns its descriptors and closes them when it is dropped. It never blocks, and it keeps no readiness: the side
//! does.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::streams::{Sessions, StreamAt};
use crate::sys::{
    self, AsSocket, BorrowedSocket, INTEREST, TcpStream, UnixStream,
    duplex::{Duplex, Input, Opened, Output},
};
use crate::types::address::Endpoint;
use crate::types::descriptor_error::DescriptorError;

/// The descriptors of one side, or the stream that stands for them.
#[derive(Debug, Default)]
pub(crate) enum Io {
    /// No descriptor yet, or none any more.
    #[default]
    None,
    Tcp(TcpStream),
    Unix(UnixStream),
    /// A bound socket of datagrams, until its carrier takes it.
    Udp(UdpSocket),
    /// A descriptor to read from, and one to write to until it is shut down.
    Files {
        read: Input,
        write: Option<Output>,
    },
    /// A stream of a link.
    Stream(StreamAt),
}

/// Directions that cannot block, such as those of a regular file; they are always ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unpollable {
    pub read: bool,
    pub write: bool,
}

impl Unpollable {
    fn both(unpollable: bool) -> Unpollable {
        Unpollable { read: unpollable, write: unpollable }
    }
}

impl Io {
    /// Takes over descriptors, and keeps them from blocking.
    pub fn from_duplex(duplex: Duplex) -> Result<Io, DescriptorError> {
        match duplex.open()? {
            Opened::Socket(socket) => match socket.local_addr()?.domain() {
                socket2::Domain::IPV4 | socket2::Domain::IPV6 => Ok(Io::Tcp(socket.into())),
                _ => Ok(Io::Unix(sys::unix_stream(socket)?)),
            },
            Opened::Files(read, write) => Ok(Io::Files { read, write: Some(write) }),
        }
    }

    #[inline]
    pub fn read(&self, buf: &mut [u8], sessions: &mut Sessions) -> io::Result<usize> {
        match self {
            Io::Stream(stream) => sessions.read(*stream, buf),
            _ => self.read_raw(buf),
        }
    }

    /// Reads into several buffers, one after the other, with one call where the system can.
    pub fn read_vectored(&self, room: &mut [IoSliceMut<'_>], sessions: &mut Sessions) -> io::Result<usize> {
        match (self, room) {
            // A plain read takes a shorter path through the system.
            (_, [buf]) => self.read(buf, sessions),
            (Io::Tcp(socket), room) => retry(|| (&mut &*socket).read_vectored(room)),
            (Io::Unix(socket), room) => retry(|| (&mut &*socket).read_vectored(room)),
            (_, room) => {
                let mut bytes = 0;
                for buf in room {
                    let got = match self.read(buf, sessions) {
                        // The bytes come first; the next read finds the error again.
                        Err(_) if bytes > 0 => 0,
                        got => got?,
                    };
                    bytes += got;
                    if got < buf.len() {
                        break;
                    }
                }
                Ok(bytes)
            }
        }
    }

    /// Discards input without copying it. Returns none if the system, or the protocol, can only copy.
    pub fn skip(&self, bytes: usize) -> Option<io::Result<usize>> {
        match self {
            Io::Tcp(socket) if sys::SKIPS => {
                Some(retry(|| sys::skip(socket, bytes))).filter(|result| !sys::is_not_skipped(result))
            }
            _ => None,
        }
    }

    #[inline]
    pub fn write(&self, buf: &[u8], sessions: &mut Sessions) -> io::Result<usize> {
        match self {
            Io::Stream(stream) => sessions.write(*stream, buf),
            _ => self.write_raw(buf),
        }
    }

    /// Writes to a descriptor. Fails on a stream of a link.
    pub fn write_raw(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Io::Tcp(socket) => retry(|| (&mut &*socket).write(buf)),
            Io::Unix(socket) => retry(|| (&mut &*socket).write(buf)),
            Io::Files { write: Some(write), .. } => retry(|| (&mut &*write).write(buf)),
            Io::Files { write: None, .. } => Err(io::ErrorKind::BrokenPipe.into()),
            Io::Udp(_) | Io::Stream(_) | Io::None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Reads from a descriptor. Fails on a stream of a link.
    pub fn read_raw(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Io::Tcp(socket) => retry(|| (&mut &*socket).read(buf)),
            Io::Unix(socket) => retry(|| (&mut &*socket).read(buf)),
            Io::Files { read, .. } => retry(|| (&mut &*read).read(buf)),
            Io::Udp(_) | Io::Stream(_) | Io::None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Writes several pieces to a descriptor with one call.
    pub fn write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if let [piece] = pieces {
            // Most small writes have one piece, and a plain write takes a shorter path through the system.
            return self.write_raw(piece);
        }
        match self {
            Io::Tcp(socket) => retry(|| (&mut &*socket).write_vectored(pieces)),
            Io::Unix(socket) => retry(|| (&mut &*socket).write_vectored(pieces)),
            Io::Files { write: Some(write), .. } => retry(|| (&mut &*write).write_vectored(pieces)),
            Io::Files { write: None, .. } => Err(io::ErrorKind::BrokenPipe.into()),
            Io::Udp(_) | Io::Stream(_) | Io::None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Returns the stream of a link that this is, if it is one.
    #[inline]
    pub const fn stream(&self) -> Option<StreamAt> {
        match self {
            Io::Stream(stream) => Some(*stream),
            _ => None,
        }
    }

    /// Writes bytes that [`Io::shutdown_write`] or a close follows at once, so that TCP can send data and FIN in one packet.
    #[inline]
    pub fn write_before_end(&self, buf: &[u8], sessions: &mut Sessions) -> io::Result<usize> {
        match self {
            Io::Tcp(socket) => retry(|| sys::send_before_end(socket, buf)),
            _ => self.write(buf, sessions),
        }
    }

    /// Shuts the write direction down.
    pub fn shutdown_write(&mut self, sessions: &mut Sessions) -> io::Result<()> {
        match self {
            Io::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Io::Unix(socket) => socket.shutdown(Shutdown::Write),
            Io::Files { write, .. } => write.take().map_or(Ok(()), |write| write.end()),
            Io::Stream(stream) => sessions.finish(*stream),
            Io::Udp(_) | Io::None => Ok(()),
        }
    }

    /// Returns the socket that splice can read from and write to, or none if bytes must be copied.
    #[inline]
    pub fn spliceable(&self) -> Option<BorrowedSocket<'_>> {
        match self {
            Io::Tcp(socket) => Some(socket.as_socket()),
            Io::Unix(socket) => Some(socket.as_socket()),
            Io::Udp(_) | Io::Files { .. } | Io::Stream(_) | Io::None => None,
        }
    }

    /// Returns the error that an event announced, if there is one.
    pub fn take_error(&self, sessions: &Sessions) -> Option<io::Error> {
        match self {
            Io::Tcp(socket) => socket.take_error().ok().flatten(),
            Io::Unix(socket) => socket.take_error().ok().flatten(),
            Io::Stream(stream) => sessions.error(*stream),
            // A pipe has no error to ask for; the event announces that its reader is gone.
            Io::Files { write: Some(write), .. } if write.is_reader_gone() => Some(io::ErrorKind::BrokenPipe.into()),
            Io::Udp(_) | Io::Files { .. } | Io::None => None,
        }
    }

    /// Returns true if a read would find nothing now: no byte, no end and no error. Returns true as well if the kind of
    /// descriptor cannot be asked.
    pub fn is_silent(&self, sessions: &Sessions) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = match self {
            Io::Tcp(socket) => retry(|| SockRef::from(socket).peek(&mut byte)),
            Io::Unix(socket) => retry(|| SockRef::from(socket).peek(&mut byte)),
            Io::Stream(stream) => return sessions.is_silent(*stream),
            Io::Udp(_) | Io::Files { .. } | Io::None => return true,
        };
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Returns true if the peer has acknowledged all written bytes, and the FIN if one was sent.
    pub fn is_acknowledged(&self, sessions: &Sessions) -> bool {
        match self {
            Io::Tcp(socket) => sys::unacknowledged(socket) == 0,
            Io::Stream(stream) => sessions.is_acknowledged(*stream),
            Io::Unix(_) | Io::Udp(_) | Io::Files { .. } | Io::None => true,
        }
    }

    /// Registers both directions, once. Returns the directions that cannot block and therefore have no events.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<Unpollable> {
        match self {
            Io::Tcp(socket) => sys::register(socket, registry, token, INTEREST).map(Unpollable::both),
            Io::Unix(socket) => sys::register(socket, registry, token, INTEREST).map(Unpollable::both),
            Io::Udp(socket) => {
                registry.register(socket, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(Unpollable::default())
            }
            Io::Files { read, write } => Ok(Unpollable {
                read: read.register(registry, token)?,
                write: write.as_mut().map_or(Ok(false), |write| write.register(registry, token))?,
            }),
            Io::Stream(_) | Io::None => Ok(Unpollable::default()),
        }
    }

    /// Gives a registered socket another token.
    pub fn register_again(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Io::Tcp(socket) => sys::register_again(socket, registry, token, INTEREST),
            Io::Unix(socket) => sys::register_again(socket, registry, token, INTEREST),
            Io::Udp(_) | Io::Files { .. } | Io::Stream(_) | Io::None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Makes the close that follows a reset instead of a FIN. Only TCP and streams of links have a reset.
    pub fn close_with_reset(&self, sessions: &mut Sessions) {
        match self {
            Io::Tcp(socket) => {
                // A socket that is gone already needs no reset.
                let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
            }
            Io::Stream(stream) => sessions.reset(*stream),
            _ => {}
        }
    }

    /// Switches TCP_NODELAY on, so that small writes go out at once.
    pub fn set_nodelay(&self) {
        if let Io::Tcp(socket) = self {
            // A refusal costs latency only.
            let _ = socket.set_nodelay(true);
        }
    }

    /// Makes the close of a TCP socket a reset, so that both addresses can be used again at once: a socket in TIME_WAIT, or
    /// one that still waits for the acknowledgement of its FIN, would be in the way.
    pub fn reset_on_close(&self) {
        if let Io::Tcp(socket) = self {
            // Without it, the next connection waits for the end of TIME_WAIT.
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// Returns true if this is a TCP socket that is not connected.
    pub fn is_unconnected(&self) -> bool {
        matches!(self, Io::Tcp(socket) if socket.peer_addr().is_err())
    }

    /// Switches TCP keepalive on, with this idle time before the first probe.
    pub fn set_keepalive(&self, idle: Duration) {
        if let Io::Tcp(socket) = self {
            // Other timers find a peer that vanished if this is refused.
            let _ = SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle));
        }
    }

    /// Returns the local address.
    pub fn local(&self) -> Endpoint {
        match self {
            Io::Tcp(socket) => socket.local_addr().map_or(Endpoint::Unknown, Endpoint::from),
            Io::Unix(socket) => socket.local_addr().map_or(Endpoint::Unknown, |addr| unix(&addr)),
            Io::Udp(socket) => socket.local_addr().map_or(Endpoint::Unknown, Endpoint::from),
            Io::Files { .. } | Io::Stream(_) | Io::None => Endpoint::Unknown,
        }
    }

    /// Returns true if the system has connected a TCP socket to itself: there was no listener on the port, and the system
    /// chose the same port for this end (simultaneous open, RFC 9293, section 3.5). The sent bytes would come back.
    pub fn leads_to_itself(&self, asked: SocketAddr) -> bool {
        let Io::Tcp(socket) = self else { return false };
        if !sys::may_choose_port(asked.port()) {
            return false;
        }
        // A connect to the unspecified address reaches a loopback address.
        let peer = if asked.ip().is_unspecified() { socket.peer_addr().unwrap_or(asked) } else { asked };
        let plain = |addr: SocketAddr| (addr.ip().to_canonical(), addr.port());
        socket.local_addr().is_ok_and(|local| plain(local) == plain(peer))
    }

    /// Returns the address that a client connected to, if the system redirected it here.
    pub fn original_dest(&self) -> Option<SocketAddr> {
        if let Io::Tcp(socket) = self { sys::original_dest(socket) } else { None }
    }

    /// Returns the address of the other end.
    pub fn peer(&self) -> Endpoint {
        match self {
            Io::Tcp(socket) => socket.peer_addr().map_or(Endpoint::Unknown, Endpoint::from),
            Io::Unix(socket) => socket.peer_addr().map_or(Endpoint::Unknown, |addr| unix(&addr)),
            Io::Files { read, write } => {
                Endpoint::Descriptor(read.number(), write.as_ref().map_or(-1, |write| write.number()))
            }
            Io::Udp(_) | Io::Stream(_) | Io::None => Endpoint::Unknown,
        }
    }

    /// Returns the number of descriptors that it holds.
    pub fn descriptors(&self) -> usize {
        match self {
            Io::Stream(_) | Io::None => 0,
            Io::Tcp(_) | Io::Unix(_) | Io::Udp(_) => 1,
            Io::Files { write, .. } => 1 + usize::from(write.is_some()),
        }
    }
}

#[inline]
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn unix(addr: &sys::UnixAddr) -> Endpoint {
    Endpoint::Unix(sys::socket_path(addr).into())
}
