//! The floors: programs with the system calls of a proxy and no policy, by which the distance to what can be had is told.
//!
//! This program runs as a floor when its first argument is [`ARGUMENT`]. A floor has no limits, no timers, no log, no
//! fairness and no statistics, and an error ends its connection. It must do nothing that a proxy has no need to do: a
//! floor that could be lower makes the distance look short.
//!
//! `relay` moves bytes between two sockets, `seal` between a socket and records of AES-128-GCM.

mod relay;
mod seal;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sys::{self, Epoll};

/// The hidden argument that makes this program a floor.
pub const ARGUMENT: &str = "--floor";

/// The name of the floors as a family of peers.
pub const FAMILY: &str = "floor";

/// A connection between two sockets; socket 0 was accepted and socket 1 dials.
trait Connection: Sized {
    /// Opens the connection. `accepted` does not block.
    fn open(accepted: TcpStream, dest: SocketAddr) -> io::Result<Self>;

    fn socket(&self, end: usize) -> &TcpStream;

    /// Moves bytes that come from socket `from`. `ended` is true if its peer has sent a FIN.
    fn turn(&mut self, from: usize, ended: bool) -> io::Result<Turn>;

    /// Returns true if bytes from socket `from` wait until the other one has room.
    fn waits_for_room(&self, from: usize) -> bool;

    /// Returns true if both directions have ended.
    fn is_over(&self) -> bool;
}

/// The outcome of a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The next event continues.
    Blocked,
    /// More can be moved at once.
    More,
}

/// Runs the floor that the arguments name, until it is killed.
pub fn serve(args: &[String]) -> io::Result<()> {
    sys::raise_descriptor_limit()?;
    let addr = |index: usize| -> io::Result<SocketAddr> {
        let addr = args.get(index).and_then(|arg| arg.parse().ok());
        addr.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a floor's address is missing"))
    };
    match args.first().map(String::as_str) {
        Some("relay") => {
            let (small, bulk, dest) = (addr(1)?, addr(2)?, addr(3)?);
            std::thread::spawn(move || Loop::<relay::Spliced>::run(bulk, dest));
            Loop::<relay::Copied>::run(small, dest)
        }
        Some("near") => Loop::<seal::Sealed<1>>::run(addr(1)?, addr(2)?),
        Some("far") => Loop::<seal::Sealed<0>>::run(addr(1)?, addr(2)?),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "a floor is one of relay, near, far")),
    }
}

struct Loop<C> {
    epoll: Epoll,
    listener: TcpListener,
    dest: SocketAddr,
    connections: Vec<Option<Held<C>>>,
    free: Vec<usize>,
}

struct Held<C> {
    connection: C,
    /// True for each socket whose peer has sent a FIN.
    ended: [bool; 2],
    /// True while the direction from this socket is in the list of those that can move more.
    queued: [bool; 2],
}

impl<C: Connection> Loop<C> {
    fn run(listen: SocketAddr, dest: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(listen)?;
        SockRef::from(&listener).listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it.
        SockRef::from(&listener).set_tcp_nodelay(true)?;
        let epoll = Epoll::new()?;
        epoll.add(&listener, LISTENER, sys::READABLE)?;
        Loop::<C> { epoll, listener, dest, connections: Vec::new(), free: Vec::new() }.serve()
    }

    fn serve(&mut self) -> io::Result<()> {
        let (mut events, mut more, mut over) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.epoll.events(&mut events, more.is_empty())?;
            let mut turns: Vec<(usize, usize)> = std::mem::take(&mut more);
            for (token, ready) in &events {
                if *token == LISTENER {
                    self.accept()?;
                    continue;
                }
                let (index, end) = (*token as usize / 2, *token as usize % 2);
                let Some(held) = self.connections[index].as_mut() else { continue };
                held.ended[end] |= ready & sys::PEER_ENDED != 0;
                let readable = ready & (sys::READABLE | sys::PEER_ENDED | sys::FAILED) != 0;
                for (from, wanted) in [(end, readable), (1 - end, ready & sys::WRITABLE != 0)] {
                    // A direction that waits for its dest is not read, and the others do not care for room.
                    if wanted && !held.queued[from] && held.connection.waits_for_room(from) == (from != end) {
                        turns.push((index, from));
                    }
                }
            }
            for (index, from) in turns {
                let Some(held) = self.connections[index].as_mut() else { continue };
                held.queued[from] = false;
                match held.connection.turn(from, held.ended[from]) {
                    Ok(_) if held.connection.is_over() => over.push(index),
                    Ok(Turn::Blocked) => {}
                    Ok(Turn::More) => {
                        held.queued[from] = true;
                        more.push((index, from));
                    }
                    Err(_) => over.push(index),
                }
                if over.last() == Some(&index) {
                    self.connections[index] = None;
                }
            }
            // An event of a closed connection must not reach the next one in its place.
            self.free.append(&mut over);
            more.retain(|(index, _)| self.connections[*index].is_some());
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = match sys::accept(&self.listener) {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let Ok(connection) = C::open(accepted, self.dest) else { continue };
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = sys::READABLE | sys::WRITABLE | sys::PEER_ENDED | sys::EDGE;
            for end in [0, 1] {
                self.epoll.add(connection.socket(end), (2 * index + end) as u64, interest)?;
            }
            let held = Held { connection, ended: [false; 2], queued: [false; 2] };
            self.connections[index] = Some(held);
        }
        Ok(())
    }
}

/// Begins to connect.
fn dial(dest: SocketAddr, prepare: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    prepare(&socket)?;
    match socket.connect(&dest.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Returns `None` if the call would block.
fn unblocked(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

const BACKLOG: i32 = 4096;
const ACCEPTS_PER_TURN: usize = 64;
const LISTENER: u64 = u64::MAX;
