//! A TCP stream of a loop on Windows.
//!
//! mio makes edges of AFD's levels: after an event it waits for the same direction again only when a call has returned
//! `WouldBlock`. The loop takes a short read or write for the last one, as it is on epoll and kqueue, and makes no further
//! call. So a short one arms the socket again here. Arming covers both directions, so a writable event may follow that the
//! loop has no use for.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::windows::io::{AsSocket, BorrowedSocket, OwnedSocket};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::Socket;

/// A connected TCP socket, or one that is being connected.
#[derive(Debug)]
pub(crate) struct TcpStream(mio::net::TcpStream);

impl TcpStream {
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }

    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.0.set_nodelay(nodelay)
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.peer_addr()
    }

    /// Arms the socket again after a call that moved `done` of `wished` bytes. The end of the input needs no event.
    fn note(&self, done: usize, wished: usize) -> io::Result<usize> {
        if 0 < done && done < wished {
            let arm = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
            match self.0.try_io(arm) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok(done)
    }
}

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buf).and_then(|got| self.note(got, buf.len()))
    }

    fn read_vectored(&mut self, room: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let wished = room.iter().map(|buf| buf.len()).sum();
        (&self.0).read_vectored(room).and_then(|got| self.note(got, wished))
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.0).write(buf).and_then(|put| self.note(put, buf.len()))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let wished = pieces.iter().map(|piece| piece.len()).sum();
        (&self.0).write_vectored(pieces).and_then(|put| self.note(put, wished))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for TcpStream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.0.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.0.deregister(registry)
    }
}

impl From<Socket> for TcpStream {
    fn from(socket: Socket) -> TcpStream {
        TcpStream(OwnedSocket::from(socket).into())
    }
}

impl From<mio::net::TcpStream> for TcpStream {
    fn from(stream: mio::net::TcpStream) -> TcpStream {
        TcpStream(stream)
    }
}

impl AsSocket for TcpStream {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        self.0.as_socket()
    }
}
