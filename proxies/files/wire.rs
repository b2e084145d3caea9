//! The near end of a stream, for the thread of a transfer: a socket that the loop joins to the stream. The thread reads and
//! writes messages, and may wait; the loop never waits for the thread.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use seaprox::Duplex;

use super::fault::FileError;
use super::message::{Message, read, write_data};

#[cfg(unix)]
pub type Socket = std::os::unix::net::UnixStream;
#[cfg(windows)]
pub type Socket = std::net::TcpStream;

/// Makes two joined sockets: one for a thread, and one for a loop.
///
/// # Errors
/// Fails if the process has no descriptor left.
#[cfg(unix)]
pub fn pair() -> io::Result<(Socket, Duplex)> {
    let (near, far) = Socket::pair()?;
    Ok((near, Duplex::new(far)))
}

/// Makes two joined sockets: one for a thread, and one for a loop.
///
/// # Errors
/// Fails if the process has no socket left, or if another process has connected first.
#[cfg(windows)]
pub fn pair() -> io::Result<(Socket, Duplex)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let near = Socket::connect(listener.local_addr()?)?;
    let (far, addr) = listener.accept()?;
    if addr != near.local_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok((near, Duplex::new(far)))
}

/// The messages that arrive.
pub struct Reader {
    input: BufReader<Socket>,
    buf: Vec<u8>,
}

/// The messages that are sent. Small ones are collected.
pub struct Writer {
    output: BufWriter<Socket>,
    buf: Vec<u8>,
}

/// Splits a socket into its two directions.
///
/// # Errors
/// Fails if the process has no descriptor left.
pub fn split(socket: Socket) -> io::Result<(Reader, Writer)> {
    let input = BufReader::with_capacity(BUF_BYTES, socket.try_clone()?);
    let output = BufWriter::with_capacity(BUF_BYTES, socket);
    Ok((Reader { input, buf: Vec::new() }, Writer { output, buf: Vec::new() }))
}

impl Reader {
    /// Waits for a message, at most for `patience` if there is one. Returns none at the end.
    ///
    /// # Errors
    /// Fails if the bytes are no message, or if the stream is lost.
    pub fn read(&mut self) -> Result<Option<Message<'_>>, FileError> {
        read(&mut self.input, &mut self.buf)
    }

    /// Limits the time in which nothing arrives.
    ///
    /// # Errors
    /// Fails if the system does.
    pub fn limit(&self, patience: Duration) -> io::Result<()> {
        self.input.get_ref().set_read_timeout(Some(patience))
    }

    /// Returns the socket, by which another thread can end the stream.
    ///
    /// # Errors
    /// Fails if the process has no descriptor left.
    pub fn socket(&self) -> io::Result<Socket> {
        self.input.get_ref().try_clone()
    }

    /// Reads until the end, so that the peer reads all that was sent to it.
    pub fn discard(&mut self) {
        let until = Instant::now() + DISCARD_TIME;
        let socket = self.input.get_mut();
        self.buf.resize(BUF_BYTES, 0);
        let is_limited = socket.set_read_timeout(Some(DISCARD_TIME)).is_ok();
        while is_limited && Instant::now() < until && matches!(socket.read(&mut self.buf), Ok(1..)) {}
    }
}

impl Writer {
    /// Sends a message, or keeps it until there are more bytes.
    ///
    /// # Errors
    /// Fails if the stream is lost.
    pub fn write(&mut self, message: &Message<'_>) -> io::Result<()> {
        self.buf.clear();
        message.encode(&mut self.buf);
        self.output.write_all(&self.buf)
    }

    /// Sends bytes of a file.
    ///
    /// # Errors
    /// Fails if the stream is lost.
    pub fn write_data(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_data(&mut self.output, bytes)
    }

    /// Sends what was kept.
    ///
    /// # Errors
    /// Fails if the stream is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Sends what was kept, and ends the direction.
    ///
    /// # Errors
    /// Fails if the stream is lost.
    pub fn finish(&mut self) -> io::Result<()> {
        self.output.flush()?;
        self.output.get_ref().shutdown(Shutdown::Write)
    }
}

const BUF_BYTES: usize = 64 << 10;
/// Time in which a peer that was told of a failure ends the stream.
const DISCARD_TIME: Duration = Duration::from_secs(10);
