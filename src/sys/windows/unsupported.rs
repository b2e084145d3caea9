//! Types of what does not exist on Windows: they have no values, so their methods are never called. Each function that
//! would make a value returns an error that names the reason.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::windows::io::{AsSocket, BorrowedSocket, OwnedSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::{Socket, Type};

use crate::types::proto::Proto;
use crate::types::unix_file::{UnixMode, UnixOwner};

/// No value is of this type. It is in a private field of the others, so that code elsewhere is not told that it is
/// unreachable.
#[derive(Debug)]
enum Never {}

/// One end of a pipe that bytes are spliced through: there is no splice.
#[derive(Debug)]
pub(crate) struct PipeEnd(Never);

/// A Unix stream.
#[derive(Debug)]
pub struct UnixStream(Never);

/// A listening Unix socket.
#[derive(Debug)]
pub struct UnixListener(Never);

/// A listening Unix socket that a loop can wait for.
#[derive(Debug)]
pub(crate) struct UnixAcceptor(Never);

/// The address of a Unix socket.
#[derive(Debug)]
pub(crate) struct UnixAddr(Never);

/// A foreign descriptor in the poll of a loop: AFD takes no socket of another owner.
#[derive(Debug)]
pub(crate) struct Watched(Never);

impl Watched {
    pub const REFUSES_DUPLICATES: bool = false;

    pub fn register(_: BorrowedSocket<'_>, _: &Registry, _: Token, _: Interest) -> io::Result<Watched> {
        Err(io::Error::new(ErrorKind::Unsupported, "foreign sockets cannot be watched on Windows"))
    }

    pub fn arm(&self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        match self.0 {}
    }

    pub fn deregister(&self, _: &Registry) {
        match self.0 {}
    }

    pub fn has_number_of(&self, _: BorrowedSocket<'_>) -> bool {
        match self.0 {}
    }
}

/// The file of a Unix socket that this process listens on.
#[derive(Debug)]
pub struct SocketFile(Never);

fn no_unix_sockets() -> io::Error {
    io::Error::new(ErrorKind::Unsupported, "Unix sockets are not supported on Windows")
}

pub(crate) fn unix_stream(_: Socket) -> io::Result<UnixStream> {
    Err(no_unix_sockets())
}

pub(crate) fn unix_listener(_: Socket) -> io::Result<(UnixListener, PathBuf)> {
    Err(no_unix_sockets())
}

pub(crate) fn unix_pair() -> io::Result<(UnixStream, UnixStream)> {
    Err(no_unix_sockets())
}

/// A command in a process group of its own.
#[derive(Debug)]
pub(crate) struct ChildGroup(Never);

/// The events of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildEvents {
    pub hung_up: bool,
    pub stderr: bool,
    pub exited: bool,
}

impl ChildGroup {
    pub fn start(_: &mut Command, _: UnixStream) -> io::Result<ChildGroup> {
        Err(io::Error::new(ErrorKind::Unsupported, "commands are not supported on Windows"))
    }

    pub fn id(&self) -> u32 {
        match self.0 {}
    }

    pub fn wait(&mut self, _: bool, _: Duration) -> io::Result<ChildEvents> {
        match self.0 {}
    }

    pub fn read_stderr(&mut self, _: &mut [u8]) -> usize {
        match self.0 {}
    }

    pub fn terminate(&self) {
        match self.0 {}
    }

    pub fn kill(&self) {
        match self.0 {}
    }

    pub fn finish(self) -> io::Result<ExitStatus> {
        match self.0 {}
    }
}

pub(crate) fn read_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    options
}

pub(crate) fn append_options(creates: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(creates);
    options
}

pub(crate) fn connect_unix(_: &Path) -> io::Result<UnixStream> {
    Err(no_unix_sockets())
}

pub(crate) fn connect_unix_waiting(_: &Path, _: Duration) -> io::Result<OwnedSocket> {
    Err(no_unix_sockets())
}

pub(crate) fn socket_path(addr: &UnixAddr) -> PathBuf {
    match addr.0 {}
}

/// Refuses: the addresses of interfaces are not read here.
///
/// # Errors
/// Always.
pub fn interface_addresses() -> io::Result<Vec<std::net::IpAddr>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the addresses of interfaces are not read on this system"))
}

/// Returns none: the state of interfaces is not read here.
pub(crate) fn cut_addresses() -> Vec<std::net::IpAddr> {
    Vec::new()
}

/// Returns false: the addresses of interfaces are not read here.
pub(crate) fn has_address(_: std::net::IpAddr) -> bool {
    false
}

/// Refuses: a console shows what is typed.
///
/// # Errors
/// Always.
pub fn read_hidden_line(_: &str, _: usize) -> io::Result<Vec<u8>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system shows what is typed"))
}

/// Returns false: the console of this system ends the process itself.
pub fn is_terminal_gone() -> bool {
    false
}

/// Refuses: there are no Unix sockets here.
///
/// # Errors
/// Always.
pub fn socket_directory(_: &str) -> io::Result<PathBuf> {
    Err(no_unix_sockets())
}

/// A socket that a service manager has passed. No service manager of this system passes any.
#[derive(Debug)]
pub(crate) struct PassedSocket(#[allow(dead_code, reason = "it is never made")] Never);

pub(crate) fn take_passed(_: &str, _: Proto) -> io::Result<Vec<(OwnedSocket, PassedSocket)>> {
    Err(io::Error::new(ErrorKind::Unsupported, "no service manager of this system passes sockets"))
}

/// Returns no name: no service manager of this system passes sockets.
pub fn passed_sockets() -> Vec<(String, Proto)> {
    Vec::new()
}

impl SocketFile {
    /// Refuses: there are no Unix sockets here.
    ///
    /// # Errors
    /// Always.
    pub fn bind(_: &Path, _: u32, _: Option<u32>) -> io::Result<(UnixListener, SocketFile)> {
        Err(no_unix_sockets())
    }

    /// Refuses: there are no Unix sockets here.
    ///
    /// # Errors
    /// Always.
    pub fn bind_owned(
        _: &Path,
        _: u32,
        _: Option<UnixMode>,
        _: Option<&UnixOwner>,
    ) -> io::Result<(UnixListener, SocketFile)> {
        Err(no_unix_sockets())
    }

    /// Returns false: there are no Unix sockets here.
    ///
    /// # Errors
    /// Never.
    pub fn remove_stale(_: &Path) -> io::Result<bool> {
        Ok(false)
    }
}

impl UnixListener {
    /// See [`std::net::TcpListener::incoming`].
    pub fn incoming(&self) -> std::iter::Empty<io::Result<UnixStream>> {
        match self.0 {}
    }

    /// See [`std::net::TcpListener::set_nonblocking`].
    ///
    /// # Errors
    /// Never.
    pub fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        match self.0 {}
    }
}

impl UnixAcceptor {
    pub fn from_std(listener: UnixListener) -> UnixAcceptor {
        match listener.0 {}
    }

    pub fn accept(&self) -> io::Result<(UnixStream, UnixAddr)> {
        match self.0 {}
    }
}

impl UnixStream {
    /// Refuses: there are no Unix sockets here.
    ///
    /// # Errors
    /// Always.
    pub fn connect(_: impl AsRef<Path>) -> io::Result<UnixStream> {
        Err(no_unix_sockets())
    }

    /// See [`std::net::TcpStream::set_read_timeout`].
    ///
    /// # Errors
    /// Never.
    pub fn set_read_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        match self.0 {}
    }

    /// See [`std::net::TcpStream::set_write_timeout`].
    ///
    /// # Errors
    /// Never.
    pub fn set_write_timeout(&self, _: Option<Duration>) -> io::Result<()> {
        match self.0 {}
    }

    /// See [`std::net::TcpStream::set_nonblocking`].
    ///
    /// # Errors
    /// Never.
    pub fn set_nonblocking(&self, _: bool) -> io::Result<()> {
        match self.0 {}
    }

    /// See [`std::net::TcpStream::shutdown`].
    ///
    /// # Errors
    /// Never.
    pub fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self.0 {}
    }

    pub(crate) fn local_addr(&self) -> io::Result<UnixAddr> {
        match self.0 {}
    }

    pub(crate) fn peer_addr(&self) -> io::Result<UnixAddr> {
        match self.0 {}
    }
}

impl Read for UnixStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Read for &UnixStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl Write for UnixStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

impl Write for &UnixStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}

impl AsSocket for UnixStream {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        match self.0 {}
    }
}

impl Source for UnixStream {
    fn register(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        match self.0 {}
    }

    fn reregister(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        match self.0 {}
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        match self.0 {}
    }
}

impl Source for UnixAcceptor {
    fn register(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        match self.0 {}
    }

    fn reregister(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
        match self.0 {}
    }

    fn deregister(&mut self, _: &Registry) -> io::Result<()> {
        match self.0 {}
    }
}

/// The descriptors of a side: AFD polls sockets alone.
pub(crate) mod duplex {
    use super::*;
    use crate::types::descriptor_error::DescriptorError;

    /// The socket of one side of a connection.
    #[derive(Debug)]
    pub struct Duplex {
        socket: OwnedSocket,
        is_pair: bool,
    }

    /// An opened [`Duplex`].
    #[derive(Debug)]
    pub(crate) enum Opened {
        /// A stream socket that does not block.
        Socket(Socket),
        #[allow(dead_code)] // It has no value here.
        Files(Input, Output),
    }

    /// The input of a side that is not one socket.
    #[derive(Debug)]
    pub(crate) struct Input(Never);

    /// The output of a side that is not one socket.
    #[derive(Debug)]
    pub(crate) struct Output(Never);

    impl Duplex {
        /// Returns a side of one connected stream socket.
        pub fn new(socket: impl Into<OwnedSocket>) -> Duplex {
            Duplex { socket: socket.into(), is_pair: false }
        }

        /// Returns a side of two sockets, which no loop takes on Windows.
        pub fn pair(read: impl Into<OwnedSocket>, _: impl Into<OwnedSocket>) -> Duplex {
            Duplex { socket: read.into(), is_pair: true }
        }

        /// Refuses: an event loop on Windows can wait for sockets alone.
        ///
        /// # Errors
        /// Always.
        pub fn stdio() -> io::Result<Duplex> {
            let text =
                "standard input and output cannot be relayed on Windows, where an event loop waits for sockets alone";
            Err(io::Error::new(ErrorKind::Unsupported, text))
        }

        /// Returns the side unchanged: a socket is not blocking for each of its processes.
        #[must_use]
        pub fn shared(self) -> Duplex {
            self
        }

        pub(crate) fn numbers(&self) -> (i32, i32) {
            (-1, -1)
        }

        pub(crate) fn open(self) -> Result<Opened, DescriptorError> {
            if self.is_pair {
                return Err(DescriptorError::Unsuitable("a side is one socket on Windows"));
            }
            let socket = Socket::from(self.socket);
            if socket.r#type()? != Type::STREAM {
                return Err(DescriptorError::Unsuitable("a datagram socket has no stream of bytes"));
            }
            socket.set_nonblocking(true)?;
            Ok(Opened::Socket(socket))
        }
    }

    impl From<std::net::TcpStream> for Duplex {
        fn from(socket: std::net::TcpStream) -> Duplex {
            Duplex::new(socket)
        }
    }

    impl From<super::UnixStream> for Duplex {
        fn from(socket: super::UnixStream) -> Duplex {
            match socket.0 {}
        }
    }

    impl From<OwnedSocket> for Duplex {
        fn from(socket: OwnedSocket) -> Duplex {
            Duplex::new(socket)
        }
    }

    /// Does nothing: nothing was taken for standard output.
    ///
    /// # Errors
    /// None on this system.
    pub fn finish() -> io::Result<()> {
        Ok(())
    }

    impl Input {
        pub fn register(&mut self, _: &Registry, _: Token) -> io::Result<bool> {
            match self.0 {}
        }

        pub fn number(&self) -> i32 {
            match self.0 {}
        }
    }

    impl Output {
        pub fn register(&mut self, _: &Registry, _: Token) -> io::Result<bool> {
            match self.0 {}
        }

        pub fn number(&self) -> i32 {
            match self.0 {}
        }

        pub fn end(&self) -> io::Result<()> {
            match self.0 {}
        }

        pub fn is_reader_gone(&self) -> bool {
            match self.0 {}
        }
    }

    impl Read for &Input {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            match self.0 {}
        }
    }

    impl Write for &Output {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            match self.0 {}
        }

        fn write_vectored(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            match self.0 {}
        }

        fn flush(&mut self) -> io::Result<()> {
            match self.0 {}
        }
    }
}
