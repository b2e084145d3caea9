//! The other ends: sockets of the tests that never block.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use socket2::Socket;

/// A type of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp4,
    Tcp6,
    Unix,
}

pub const KINDS: [Kind; 3] = [Kind::Tcp4, Kind::Tcp6, Kind::Unix];

/// How input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

/// One end of a connection, in the hands of the test.
pub struct Peer {
    pub socket: Socket,
}

impl Peer {
    pub fn new(socket: impl Into<Socket>) -> Peer {
        let socket = socket.into();
        socket.set_nonblocking(true).unwrap();
        Peer { socket }
    }

    pub fn connect(addr: SocketAddr) -> Peer {
        Peer::new(TcpStream::connect(addr).unwrap())
    }

    /// Sends what fits now; how many bytes that was.
    pub fn try_send(&mut self, bytes: &[u8]) -> usize {
        match self.socket.write(bytes) {
            Ok(put) => put,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// Sends until nothing fits any more; how many bytes that was.
    pub fn fill(&mut self) -> usize {
        let mut sent = 0;
        while let Ok(put) = self.socket.write(&[b'f'; 65536]) {
            sent += put;
        }
        sent
    }

    /// Receives what is there, at most `count` bytes in all; says how the input ended if it did.
    pub fn try_receive(&mut self, into: &mut Vec<u8>, count: usize) -> Option<End> {
        let mut buf = [0; 65536];
        while into.len() < count {
            let wished = buf.len().min(count - into.len());
            match self.socket.read(&mut buf[..wished]) {
                Ok(0) => return Some(End::Fin),
                Ok(got) => into.extend(&buf[..got]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(End::Reset),
            }
        }
        None
    }

    pub fn fin(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends with a reset.
    pub fn reset(self) {
        // A Unix socket has no such option, and needs none.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    pub fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    /// Another descriptor of the same socket.
    pub fn dup(&self) -> OwnedFd {
        self.socket.as_fd().try_clone_to_owned().unwrap()
    }
}

/// Two connected sockets: the test's and the loop's.
pub fn pair(kind: Kind) -> (Peer, OwnedFd) {
    let addr: SocketAddr = match kind {
        Kind::Tcp4 => (Ipv4Addr::LOCALHOST, 0).into(),
        Kind::Tcp6 => (Ipv6Addr::LOCALHOST, 0).into(),
        Kind::Unix => {
            let (near, far) = UnixStream::pair().unwrap();
            return (Peer::new(near), far.into());
        }
    };
    let listener = TcpListener::bind(addr).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nodelay(true).unwrap();
    (Peer::new(near), far.into())
}

/// A listener for what the loop connects to.
pub fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// An address that refuses: bound for as long as the test runs, so that nobody else gets it, and not listened on.
pub fn refusing() -> SocketAddr {
    static BOUND: OnceLock<(socket2::Socket, SocketAddr)> = OnceLock::new();
    let bound = BOUND.get_or_init(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, addr)
    });
    bound.1
}

/// Descriptors that this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
