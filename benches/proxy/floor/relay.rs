//! Two relays: one copies small messages through one buffer, the other splices through a pipe for each direction.
//!
//! Calls and packets of a short connection are those of seaprox: the client's first bytes end the handshake with the
//! dest, and the last bytes go with the FIN.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};

use socket2::SockRef;

use super::{Connection, Turn, dial, unblocked};
use crate::sys::{self, Pipe};

/// Copies, because that is cheaper than a pipe for small messages.
pub struct Copied {
    sockets: [TcpStream; 2],
    /// Bytes from each socket that the other one did not take.
    left: [Vec<u8>; 2],
    shut: [bool; 2],
    /// True once the dest has had its first bytes. Those are never delayed, so `TCP_NODELAY` can wait.
    spoken: bool,
    hurried: bool,
}

impl Connection for Copied {
    fn open(mut accepted: TcpStream, dest: SocketAddr) -> io::Result<Copied> {
        let mut buf = [0; BUFFER_LEN];
        let first = unblocked(accepted.read(&mut buf))?.unwrap_or(0);
        let dialed = dial(dest, |socket| if first > 0 { sys::defer_handshake(socket) } else { Ok(()) })?;
        let mut opened = Copied {
            sockets: [accepted, dialed],
            left: [Vec::new(), Vec::new()],
            shut: [false; 2],
            spoken: false,
            hurried: false,
        };
        if first > 0 {
            opened.send(0, &buf[..first], false)?;
        }
        Ok(opened)
    }

    fn socket(&self, end: usize) -> &TcpStream {
        &self.sockets[end]
    }

    fn turn(&mut self, from: usize, ended: bool) -> io::Result<Turn> {
        if self.shut[from] {
            return Ok(Turn::Blocked);
        }
        let left = std::mem::take(&mut self.left[from]);
        if !left.is_empty() {
            self.send(from, &left, false)?;
            if !self.left[from].is_empty() {
                return Ok(Turn::Blocked);
            }
        }
        let mut buf = [0; BUFFER_LEN];
        let Some(len) = unblocked((&self.sockets[from]).read(&mut buf))? else { return Ok(Turn::Blocked) };
        let last = ended && len < buf.len();
        if len > 0 {
            self.send(from, &buf[..len], last)?;
        }
        if (len == 0 || last) && self.left[from].is_empty() {
            self.shut[from] = true;
            // The second end is passed on by closing.
            if !self.shut[1 - from] {
                self.sockets[1 - from].shutdown(Shutdown::Write)?;
            }
        }
        Ok(if len == buf.len() { Turn::More } else { Turn::Blocked })
    }

    fn waits_for_room(&self, from: usize) -> bool {
        !self.left[from].is_empty()
    }

    fn is_over(&self) -> bool {
        self.shut == [true; 2]
    }
}

impl Copied {
    fn send(&mut self, from: usize, bytes: &[u8], last: bool) -> io::Result<()> {
        let to = SockRef::from(&self.sockets[1 - from]);
        if from == 0 && self.spoken && !self.hurried {
            to.set_tcp_nodelay(true)?;
            self.hurried = true;
        }
        let flags = if last { libc::MSG_MORE } else { 0 };
        let sent = unblocked(to.send_with_flags(bytes, flags | libc::MSG_NOSIGNAL))?.unwrap_or(0);
        self.spoken |= from == 0 && sent > 0;
        self.left[from] = bytes[sent..].to_vec();
        Ok(())
    }
}

/// Splices. Each direction has a pipe, from its first bytes to its end.
pub struct Spliced {
    sockets: [TcpStream; 2],
    pipes: [Pipe; 2],
    /// Bytes in each pipe.
    held: [usize; 2],
    shut: [bool; 2],
}

impl Connection for Spliced {
    fn open(accepted: TcpStream, dest: SocketAddr) -> io::Result<Spliced> {
        let sockets = [accepted, dial(dest, |_| Ok(()))?];
        SockRef::from(&sockets[1]).set_tcp_nodelay(true)?;
        Ok(Spliced { sockets, pipes: [Pipe::new(PIPE_LEN)?, Pipe::new(PIPE_LEN)?], held: [0; 2], shut: [false; 2] })
    }

    fn socket(&self, end: usize) -> &TcpStream {
        &self.sockets[end]
    }

    fn turn(&mut self, from: usize, _ended: bool) -> io::Result<Turn> {
        if self.shut[from] {
            return Ok(Turn::Blocked);
        }
        for _ in 0..CHUNKS_PER_TURN {
            if self.held[from] == 0 {
                match unblocked(self.pipes[from].fill(&self.sockets[from], PIPE_LEN))? {
                    None => return Ok(Turn::Blocked),
                    Some(0) => {
                        self.shut[from] = true;
                        self.sockets[1 - from].shutdown(Shutdown::Write)?;
                        return Ok(Turn::Blocked);
                    }
                    Some(len) => self.held[from] = len,
                }
            }
            let drained = unblocked(self.pipes[from].drain(&self.sockets[1 - from], self.held[from]))?;
            self.held[from] -= drained.unwrap_or(0);
            if self.held[from] > 0 {
                return Ok(Turn::Blocked);
            }
        }
        Ok(Turn::More)
    }

    fn waits_for_room(&self, from: usize) -> bool {
        self.held[from] > 0
    }

    fn is_over(&self) -> bool {
        self.shut == [true; 2]
    }
}

const BUFFER_LEN: usize = 16 * 1024;
const PIPE_LEN: usize = 1 << 20;
/// 4 MiB, the most that seaprox moves in a turn.
const CHUNKS_PER_TURN: usize = 4;
