//! The socket of a client of the admin server, with a deadline for each step.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use seaprox::system::{PeerCredentials, peer_credentials};
use seaprox::{PeerNetwork, UnixStream};

/// A connected client.
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// The socket of a client for a time. Every read and write ends at the deadline.
pub struct Timed<'a> {
    stream: &'a Stream,
    deadline: Option<Instant>,
}

impl Stream {
    /// Returns the socket until the deadline.
    pub fn until(&self, deadline: Instant) -> Timed<'_> {
        Timed { stream: self, deadline: Some(deadline) }
    }

    /// Returns the socket without a deadline for the whole. A client that reads nothing for [`WRITE_TIME`] ends it.
    pub fn endless(&self) -> Timed<'_> {
        Timed { stream: self, deadline: None }
    }

    /// Returns the local address of a TCP connection, an IPv4-mapped one as the IPv4 address.
    pub fn local_ip(&self) -> Option<IpAddr> {
        match self {
            Stream::Tcp(socket) => socket.local_addr().ok().map(|addr| addr.ip().to_canonical()),
            Stream::Unix(_) => None,
        }
    }

    /// Returns the network of the client.
    pub fn network(&self) -> PeerNetwork {
        match self {
            Stream::Tcp(socket) => socket.peer_addr().map_or(PeerNetwork::Local, |addr| addr.ip().into()),
            Stream::Unix(_) => PeerNetwork::Local,
        }
    }

    /// Returns the user and the groups of the client.
    ///
    /// # Errors
    /// The client came over TCP, or the system does not tell.
    pub fn credentials(&self) -> io::Result<PeerCredentials> {
        match self {
            Stream::Tcp(_) => Err(ErrorKind::Unsupported.into()),
            Stream::Unix(socket) => peer_credentials(socket),
        }
    }

    /// Ends both directions, so that a thread that reads or writes goes on at once.
    pub fn abort(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }

    /// Ends the connection so that the client receives all that was written: bytes that the client has sent and that were not
    /// read would make a reset of it.
    pub fn finish(&self) {
        if self.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let (mut timed, mut buf, mut left) = (self.until(Instant::now() + LINGER), [0; 4096], LINGER_BYTES);
        while let Ok(count @ 1..) = timed.read(&mut buf) {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.shutdown(how),
            Stream::Unix(socket) => socket.shutdown(how),
        }
    }

    fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.set_read_timeout(Some(time)),
            Stream::Unix(socket) => socket.set_read_timeout(Some(time)),
        }
    }

    fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Stream::Tcp(socket) => socket.set_write_timeout(Some(time)),
            Stream::Unix(socket) => socket.set_write_timeout(Some(time)),
        }
    }
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Duration> {
        let Some(deadline) = self.deadline else { return Ok(WRITE_TIME) };
        let left = deadline.saturating_duration_since(Instant::now());
        // A timeout of zero would be none.
        if left < Duration::from_millis(1) { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        match self.stream {
            Stream::Tcp(socket) => (&*socket).read(buf),
            Stream::Unix(socket) => (&*socket).read(buf),
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?.min(WRITE_TIME))?;
        match self.stream {
            Stream::Tcp(socket) => (&*socket).write(buf),
            Stream::Unix(socket) => (&*socket).write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Longest wait for a client that reads nothing.
pub const WRITE_TIME: Duration = Duration::from_secs(5);
/// Longest wait for the client to close after the response.
const LINGER: Duration = Duration::from_millis(500);
/// Bytes behind the request that are read and dropped.
const LINGER_BYTES: usize = 256 << 10;
