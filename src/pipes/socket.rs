//! A socket as a pipe: TCP, or a stream socket of the Unix family.
//!
//! The pipe wraps the [`Io`] of the data plane, so that both read, write and end a socket by the same code.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::task::Waker;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::relay::io::Io;
use crate::sys::duplex::Duplex;
use crate::sys::{AsSocket, BorrowedSocket, OwnedSocket};

use super::error::PipeError;
use super::pipe::{Pipe, Readiness};

/// A connected or connecting stream socket.
///
/// A Unix socket has no reset. When it is aborted, its peer sees a FIN, or a reset if bytes of the peer were not read.
#[derive(Debug)]
pub struct SocketPipe {
    io: Io,
    state: State,
    /// The descriptor may be ready. Cleared by `WouldBlock` alone.
    ready: Readiness,
    finishing: bool,
    fin_sent: bool,
    fin_received: bool,
    broken: Option<PipeError>,
    /// No more bytes can be received.
    drained: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
}

impl SocketPipe {
    /// Takes over a connected stream socket, and makes it non-blocking. If that fails, or if it is another descriptor, the pipe is broken from the start.
    pub fn new(socket: impl Into<OwnedSocket>) -> SocketPipe {
        match from_owned(socket.into()) {
            Ok(io) => SocketPipe::with(io, State::Connected, None),
            Err(error) => SocketPipe::with(Io::None, State::Connected, Some(error.into())),
        }
    }

    /// Starts to connect to a TCP address. The pipe is ready when it is connected. If the system refuses the socket, the
    /// pipe is broken from the start.
    pub fn connect(addr: SocketAddr) -> SocketPipe {
        let start = || {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&addr.into()) {
                Err(error) if !crate::sys::is_in_progress(&error) => Err(error),
                _ => from_owned(socket.into()),
            }
        };
        match start() {
            Ok(io) => SocketPipe::with(io, State::Connecting, None),
            Err(error) => SocketPipe::with(Io::None, State::Connecting, Some(error.into())),
        }
    }

    fn with(io: Io, state: State, broken: Option<PipeError>) -> SocketPipe {
        let (drained, (finishing, fin_sent, fin_received)) = (broken.is_some(), (false, false, false));
        // A connected socket may be ready; the first call finds out.
        let ready = if state == State::Connected { Readiness::BOTH } else { Readiness::NONE };
        SocketPipe { io, state, ready, finishing, fin_sent, fin_received, broken, drained }
    }

    /// Switches TCP_NODELAY on, so that small sends leave at once. Does nothing to a Unix socket.
    pub fn set_nodelay(&self) {
        self.io.set_nodelay();
    }

    /// Breaks the pipe. The bytes that have arrived can still be received if the socket was connected.
    fn fail(&mut self, error: PipeError) -> PipeError {
        self.broken.get_or_insert(error).clone()
    }

    /// Returns the error of a pipe that must not be sent to.
    fn check(&self) -> Result<(), PipeError> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    /// Checks if a socket that connects is connected, once it is writable.
    fn check_connected(&mut self) -> Result<(), PipeError> {
        if self.state == State::Connected || !self.ready.write {
            return Ok(());
        }
        let Io::Tcp(socket) = &self.io else { return Ok(()) };
        let error = match socket.take_error() {
            Ok(None) if socket.peer_addr().is_ok() => {
                self.state = State::Connected;
                return Ok(());
            }
            // The event was about something else: the socket is not connected yet.
            Ok(None) => {
                self.ready = Readiness::NONE;
                return Ok(());
            }
            Ok(Some(error)) | Err(error) => error,
        };
        self.drained = true;
        Err(self.fail(error.into()))
    }

    fn send_fin(&mut self) -> Result<(), PipeError> {
        if !self.finishing || self.fin_sent || self.state == State::Connecting {
            return Ok(());
        }
        self.check()?;
        let result = match &self.io {
            Io::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Io::Unix(socket) => socket.shutdown(Shutdown::Write),
            _ => Ok(()),
        };
        result.map_err(|error| self.fail(error.into()))?;
        self.fin_sent = true;
        Ok(())
    }

    /// Closes the socket. TCP sends a reset.
    fn close_with_reset(&mut self) {
        if let Io::Tcp(socket) = &self.io {
            // A socket that is gone already needs no reset.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
        self.io = Io::None;
    }
}

/// Takes over a stream socket, and refuses other descriptors.
fn from_owned(socket: OwnedSocket) -> io::Result<Io> {
    match Io::from_duplex(Duplex::from(socket))? {
        io @ (Io::Tcp(_) | Io::Unix(_)) => Ok(io),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

impl Pipe for SocketPipe {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        self.check()?;
        if self.finishing {
            return Err(PipeError::Finished);
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.state == State::Connecting || !self.ready.write {
            return Err(PipeError::WouldBlock);
        }
        match self.io.write_raw(bytes).map_err(PipeError::from) {
            Err(PipeError::WouldBlock) => {
                self.ready.write = false;
                Err(PipeError::WouldBlock)
            }
            Err(error) => Err(self.fail(error)),
            sent => sent,
        }
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError> {
        if self.fin_received {
            return self.check().map(|()| 0);
        }
        if self.drained || (self.broken.is_some() && !self.ready.read) {
            return self.check().and(Err(PipeError::WouldBlock));
        }
        if self.state == State::Connecting || !self.ready.read {
            return Err(PipeError::WouldBlock);
        }
        match self.io.read_raw(buf).map_err(PipeError::from) {
            Ok(0) if !buf.is_empty() => {
                self.fin_received = true;
                self.check().map(|()| 0)
            }
            Err(PipeError::WouldBlock) => {
                self.ready.read = false;
                self.check().and(Err(PipeError::WouldBlock))
            }
            Err(error) => {
                self.drained = true;
                Err(self.fail(error))
            }
            received => received,
        }
    }

    fn finish(&mut self) -> Result<(), PipeError> {
        self.check()?;
        self.finishing = true;
        self.send_fin()
    }

    fn abort(&mut self) {
        self.close_with_reset();
        self.drained = true;
        self.fail(PipeError::Aborted);
    }

    fn drive(&mut self, ready: Readiness) -> Result<(), PipeError> {
        self.ready.read |= ready.read;
        self.ready.write |= ready.write;
        self.check_connected()?;
        self.send_fin()?;
        self.check()
    }

    fn is_ready(&self) -> bool {
        self.state == State::Connected && self.broken.is_none()
    }

    fn is_readable(&self) -> bool {
        self.broken.is_some() || self.fin_received || (self.state == State::Connected && self.ready.read)
    }

    fn is_writable(&self) -> bool {
        let has_room = self.state == State::Connected && self.ready.write && !self.finishing;
        self.broken.is_some() || has_room
    }

    fn fin_sent(&self) -> bool {
        self.fin_sent
    }

    fn fin_received(&self) -> bool {
        self.fin_received
    }

    fn broken(&self) -> Option<PipeError> {
        self.broken.clone()
    }

    fn queued(&self) -> usize {
        0
    }

    fn wants_write(&self) -> bool {
        self.broken.is_none() && !self.fin_sent && (self.state == State::Connecting || !self.ready.write)
    }

    fn descriptor(&self) -> Option<BorrowedSocket<'_>> {
        match &self.io {
            Io::Tcp(socket) => Some(socket.as_socket()),
            Io::Unix(socket) => Some(socket.as_socket()),
            _ => None,
        }
    }

    fn set_waker(&mut self, _: &Waker) {}
}

impl Drop for SocketPipe {
    fn drop(&mut self) {
        if !self.fin_sent {
            self.close_with_reset();
        }
    }
}
