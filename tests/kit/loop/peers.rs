//! The test's ends of connections: sockets that never block.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
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

/// The kind of end of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

/// The test's end of a connection.
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

    /// Sends as much as fits. Returns the number of bytes.
    pub fn try_send(&mut self, bytes: &[u8]) -> usize {
        match self.socket.write(bytes) {
            Ok(put) => put,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// Sends until nothing more fits. Returns the number of bytes.
    pub fn fill(&mut self) -> usize {
        let mut sent = 0;
        while let Ok(put) = self.socket.write(&[b'f'; 65536]) {
            sent += put;
        }
        sent
    }

    /// Receives all available bytes until `into` has `count`. Returns the end of the input if that was reached.
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

    /// Sends a FIN.
    pub fn fin(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes the socket with a reset.
    pub fn reset(self) {
        // A Unix socket does not have this option; a close with unread input is a reset there.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    pub fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap().as_socket().unwrap()
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.socket.peer_addr().unwrap().as_socket().unwrap()
    }

    /// Returns another descriptor of the same socket.
    pub fn dup(&self) -> OwnedFd {
        self.socket.as_fd().try_clone_to_owned().unwrap()
    }
}

/// Returns two connected sockets: the test's and the loop's.
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

/// Returns a listener for the loop to connect to, and its address.
pub fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Runs a closure on a thread with a table of descriptors of its own, so that no other test changes the count of
/// [`descriptors`].
pub fn with_own_descriptors(what: impl FnOnce() + Send) {
    let own = || {
        // SAFETY: the call takes integers. It gives the thread a table of its own and closes nothing in that of the others;
        // the thread has no descriptor but the standard ones, which stay.
        let result = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
        assert_eq!(result, 0, "close_range: {}", std::io::Error::last_os_error());
        what();
    };
    let result = std::thread::scope(|scope| scope.spawn(own).join());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Returns the number of open descriptors of the calling thread. They are those of the process, unless the thread runs in
/// [`with_own_descriptors`].
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/thread-self/fd").unwrap().count()
}
