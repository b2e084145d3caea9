//! The far end: the server that all proxies relay to, as a process of its own.
//!
//! It listens on one address, because a static proxy has one target, and the first byte of a connection selects the
//! service (see `Wish`). Small exchanges share one epoll loop. Bulk streams and the timed ping have a thread each: a
//! bulk stream so that its thread blocks in sendfile and costs little else, a ping so that it never waits behind
//! another connection. Datagrams come to the same port, and the loop sends those back that wish an echo.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;

use crate::child::Child;
use crate::sys::{self, Batch, Epoll};

/// The service that a client selects with its first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// An endless stream of bytes.
    Bulk,
    /// An endless stream that is copied from the sender's memory, so that it takes much of a processor.
    CopiedBulk,
    /// `ONCE_LEN` bytes are answered with as many, and the connection is closed.
    Once,
    /// All bytes are sent back.
    Echo,
    /// All bytes are sent back, by a thread with priority over all others.
    Ping,
    /// Each HTTP request head is answered with `RESPONSE`. The first byte is the G of GET.
    Http,
}

impl Wish {
    pub fn byte(self) -> u8 {
        match self {
            Wish::Bulk => b'B',
            Wish::CopiedBulk => b'C',
            Wish::Once => b'O',
            Wish::Echo => b'E',
            Wish::Ping => b'P',
            Wish::Http => b'G',
        }
    }

    fn of(byte: u8) -> Option<Wish> {
        let all = [Wish::Bulk, Wish::CopiedBulk, Wish::Once, Wish::Echo, Wish::Ping, Wish::Http];
        all.into_iter().find(|wish| wish.byte() == byte)
    }
}

/// The far end as its starter sees it.
pub struct Target {
    pub child: Child,
    pub addr: SocketAddr,
}

impl Target {
    /// Starts this program again as the far end, on this address.
    pub fn start(processors: &[usize], listen: SocketAddr) -> io::Result<Target> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(ARGUMENT).arg(listen.to_string()).stdout(Stdio::piped());
        let mut child = Child::start(&mut command, processors, None)?;
        let mut line = String::new();
        if let Some(output) = child.output() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let addr = line.trim().parse().map_err(|_| io::Error::other("the far end did not say its address"))?;
        Ok(Target { child, addr })
    }
}

/// The far end's main: serves until it is killed.
pub fn serve(listen: &str) -> io::Result<()> {
    sys::raise_descriptor_limit()?;
    let listener = TcpListener::bind(listen)?;
    // The standard library's backlog is short; listening again sets a longer one.
    socket2::SockRef::from(&listener).listen(BACKLOG)?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let epoll = Epoll::new()?;
    epoll.add(&listener, LISTENER, sys::READABLE)?;
    let datagrams = UdpSocket::bind(listener.local_addr()?)?;
    socket2::SockRef::from(&datagrams).set_recv_buffer_size(DATAGRAM_BUFFER)?;
    epoll.add(&datagrams, DATAGRAMS, sys::READABLE)?;
    Loop { listener, datagrams, batch: Batch::new(), epoll, connections: Vec::new(), free: Vec::new() }.run()
}

struct Loop {
    listener: TcpListener,
    datagrams: UdpSocket,
    batch: Batch,
    epoll: Epoll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

struct Connection {
    stream: TcpStream,
    wish: Option<Wish>,
    /// Bytes received so far, for `Once`.
    received: usize,
    /// The last four bytes, to find the end of a head that arrives in pieces.
    tail: u32,
}

/// The next step for a connection after its bytes are served.
enum Next {
    Keep,
    Close,
    /// Hand the connection to a thread of its own.
    Leave(Wish),
}

impl Loop {
    fn run(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.epoll.wait(&mut ready, None)?;
            for token in &ready {
                match *token {
                    LISTENER => self.accept()?,
                    DATAGRAMS => self.echo_datagrams()?,
                    index => self.serve(index as usize),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A connection that was aborted while it waited does not affect the next one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            self.epoll.add(&stream, index as u64, sys::READABLE)?;
            self.connections[index] = Some(Connection { stream, wish: None, received: 0, tail: 0 });
        }
        Ok(())
    }

    /// Receives one batch of datagrams and sends those back that begin with the byte of [`Wish::Echo`].
    fn echo_datagrams(&mut self) -> io::Result<()> {
        match self.batch.receive(&self.datagrams) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let echoes: Vec<bool> = self.batch.received().map(|data| data.first() == Some(&Wish::Echo.byte())).collect();
        let mut from = 0;
        for run in echoes.chunk_by(|one, other| one == other) {
            if run[0] {
                // A datagram for which the client's buffer has no room is lost, as in any network.
                let _ = self.batch.send_back(&self.datagrams, from, from + run.len());
            }
            from += run.len();
        }
        Ok(())
    }

    fn serve(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        let next = connection.serve().unwrap_or(Next::Close);
        if matches!(next, Next::Keep) {
            return;
        }
        let taken = self.connections[index].take();
        self.free.push(index);
        if let (Next::Leave(wish), Some(connection)) = (next, taken) {
            // A connection whose thread cannot start is closed, which its client notices.
            if self.epoll.remove(&connection.stream).is_ok() {
                let _ = thread::Builder::new().spawn(move || alone(connection.stream, wish));
            }
        }
    }
}

impl Connection {
    /// Reads once and answers. An answer always fits the socket's buffer, because it is small and the client waits for
    /// it.
    fn serve(&mut self) -> io::Result<Next> {
        let mut buf = [0; 4096];
        let len = match self.stream.read(&mut buf) {
            Ok(0) => return Ok(Next::Close),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Keep),
            Err(error) => return Err(error),
        };
        let bytes = &buf[..len];
        let Some(wish) = self.wish.or_else(|| Wish::of(bytes[0])) else { return Ok(Next::Close) };
        self.wish = Some(wish);
        match wish {
            Wish::Bulk | Wish::CopiedBulk => return Ok(Next::Leave(wish)),
            Wish::Echo => self.stream.write_all(bytes)?,
            Wish::Ping => {
                self.stream.write_all(bytes)?;
                return Ok(Next::Leave(wish));
            }
            Wish::Once => {
                self.received += len;
                if self.received >= ONCE_LEN {
                    self.stream.write_all(&[0x5a; ONCE_LEN])?;
                    return Ok(Next::Close);
                }
            }
            Wish::Http => {
                for byte in bytes {
                    self.tail = self.tail << 8 | u32::from(*byte);
                    if self.tail == HEAD_END {
                        self.stream.write_all(RESPONSE)?;
                    }
                }
            }
        }
        Ok(Next::Keep)
    }
}

/// Serves one connection until its client closes it, which is its regular end.
fn alone(stream: TcpStream, wish: Wish) {
    let _ = match wish {
        Wish::Bulk => pour(&stream),
        Wish::CopiedBulk => pour_copied(&stream),
        _ => ping(stream),
    };
}

fn pour(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let file = sys::memory_file(BULK_LEN)?;
    while sys::send_file(stream, &file, BULK_LEN)? > 0 {}
    Ok(())
}

fn pour_copied(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let bytes = vec![0x5a; COPIED_LEN];
    loop {
        stream.write_all(&bytes)?;
    }
}

fn ping(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    // Without the privilege the ping has the usual priority; the report says so.
    let _ = sys::hasten();
    let mut buf = [0; 4096];
    loop {
        match stream.read(&mut buf)? {
            0 => return Ok(()),
            len => stream.write_all(&buf[..len])?,
        }
    }
}

/// The hidden argument that makes this program the far end.
pub const ARGUMENT: &str = "--far-end";
/// Bytes in each direction of a short connection.
pub const ONCE_LEN: usize = 32;
/// An answer as a static file server sends it for two bytes of content.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n\
    Content-Length: 2\r\nConnection: keep-alive\r\nCache-Control: no-store\r\n\r\nok";

const HEAD_END: u32 = u32::from_be_bytes(*b"\r\n\r\n");
const BULK_LEN: usize = 1 << 20;
/// The bytes that each end of a copied stream moves in a call, as usual programs do.
pub const COPIED_LEN: usize = 64 << 10;
const BACKLOG: i32 = 4096;
const ACCEPTS_PER_TURN: usize = 64;
const LISTENER: u64 = u64::MAX;
const DATAGRAMS: u64 = u64::MAX - 1;
const DATAGRAM_BUFFER: usize = 4 << 20;
