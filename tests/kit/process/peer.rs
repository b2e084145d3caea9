//! Peers: sockets that follow a short list of steps.
//!
//! A peer sends a pattern that depends on the offset in the stream, and compares all bytes that it reads with the
//! pattern of the other end. So the check shows a lost, doubled or misplaced byte at its offset.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::SOON;

/// One step of a peer.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Sends this many bytes of its pattern.
    Send(u64),
    /// `Fill(bytes, ms)`: sends its pattern until the socket takes no byte for `ms` milliseconds, or `bytes` are sent.
    Fill(u64, u64),
    /// Sends these bytes.
    Put(&'a [u8]),
    /// Sends this many bytes of its pattern and at the same time reads as many of the other end's.
    Swap(u64),
    /// Sends a FIN.
    Fin,
    /// Waits until the other end's kernel has acknowledged all sent bytes.
    AwaitTaken,
    /// Does nothing for this many milliseconds, as a slow peer. Not to be used to wait for an event.
    Pause(u64),
    /// Resets the connection.
    Rst,
    /// Reads this many bytes of the other end's pattern.
    Read(u64),
    /// Reads exactly these bytes.
    Take(&'a [u8]),
    /// Reads the other end's pattern until the FIN.
    ReadAll,
    /// Reads the other end's pattern until the reset.
    ReadReset,
    /// Waits for a reset without sending or reading.
    AwaitReset,
    /// `ReadSlowly(bytes, each, ms)`: reads `bytes` of the other end's pattern, `each` at a time, `ms` milliseconds
    /// apart.
    ReadSlowly(u64, u64, u64),
}

/// A socket at one end.
pub struct Peer {
    socket: Option<Socket>,
    is_client: bool,
    /// Bytes of the pattern sent so far.
    pub sent: u64,
    /// Bytes of the other end's pattern read so far.
    pub received: u64,
}

impl Peer {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Peer {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        Peer::connect_socket(socket, &addr.into())
    }

    /// Connects a client with a small receive buffer, so that the other end is soon blocked when the client does not
    /// read.
    #[track_caller]
    pub fn connect_narrow(addr: SocketAddr) -> Peer {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("a small buffer");
        Peer::connect_socket(socket, &addr.into())
    }

    #[track_caller]
    pub fn connect_unix(path: &Path) -> Peer {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        Peer::connect_socket(socket, &SockAddr::unix(path).expect("a short path"))
    }

    #[track_caller]
    fn connect_socket(socket: Socket, addr: &SockAddr) -> Peer {
        if let Err(error) = socket.connect(addr) {
            panic!("connect to {:?}: {error}", addr.as_socket());
        }
        Peer::of(socket, true)
    }

    /// Accepts the next client of a listener.
    #[track_caller]
    pub fn accept(listener: &TcpListener) -> Peer {
        let since = Instant::now();
        listener.set_nonblocking(true).expect("a listener");
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a socket");
                    return Peer::of(stream.into(), false);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(since.elapsed() < SOON, "no client came");
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("accept: {error}"),
            }
        }
    }

    /// Makes a peer of a connected socket. `is_client` selects its pattern.
    pub fn of(socket: Socket, is_client: bool) -> Peer {
        socket.set_read_timeout(Some(SOON)).expect("a socket");
        socket.set_write_timeout(Some(SOON)).expect("a socket");
        // A Unix socket does not have this option.
        let _ = socket.set_tcp_nodelay(true);
        Peer { socket: Some(socket), is_client, sent: 0, received: 0 }
    }

    pub fn socket(&self) -> &Socket {
        self.socket.as_ref().expect("not reset")
    }

    pub fn local(&self) -> SocketAddr {
        self.socket().local_addr().expect("an address").as_socket().expect("an internet address")
    }

    pub fn remote(&self) -> SocketAddr {
        self.socket().peer_addr().expect("an address").as_socket().expect("an internet address")
    }

    /// Runs the steps, one after another. Panics at the first that fails.
    #[track_caller]
    pub fn run(&mut self, steps: &[Step]) -> &mut Peer {
        for step in steps {
            if let Err(error) = self.step(*step) {
                let who = if self.is_client { "client" } else { "server" };
                panic!("{who}, {step:?} of {steps:?}, sent {} received {}: {error}", self.sent, self.received);
            }
        }
        self
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Send(count) => self.send(count),
            Step::Fill(count, quiet_ms) => self.fill(count, Duration::from_millis(quiet_ms)),
            Step::Put(bytes) => self.socket().write_all(bytes),
            Step::Swap(count) => self.swap(count),
            Step::Fin => self.socket().shutdown(std::net::Shutdown::Write),
            Step::Pause(ms) => {
                thread::sleep(Duration::from_millis(ms));
                Ok(())
            }
            Step::Rst => {
                self.socket().set_linger(Some(Duration::ZERO))?;
                self.socket = None;
                Ok(())
            }
            Step::Read(count) => self.read(count),
            Step::Take(bytes) => {
                let mut got = vec![0; bytes.len()];
                self.socket().read_exact(&mut got)?;
                check(got == bytes, || format!("got {}", got.escape_ascii()))
            }
            Step::ReadAll => self.read_until(None),
            Step::ReadReset => self.read_until(Some(io::ErrorKind::ConnectionReset)),
            Step::AwaitTaken => {
                let since = Instant::now();
                while unacknowledged(self.socket())? > 0 {
                    check(since.elapsed() < SOON, || "the bytes are not acknowledged".to_owned())?;
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            Step::AwaitReset => {
                let since = Instant::now();
                while self.socket().take_error()?.is_none() {
                    check(since.elapsed() < SOON, || "no reset has come".to_owned())?;
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
            Step::ReadSlowly(count, each, pause_ms) => {
                let end = self.received + count;
                while self.received < end {
                    self.read(each.min(end - self.received))?;
                    thread::sleep(Duration::from_millis(pause_ms));
                }
                Ok(())
            }
        }
    }

    fn send(&mut self, count: u64) -> io::Result<()> {
        let end = self.sent + count;
        while self.sent < end {
            let put = self.socket().write(piece(self.is_client, self.sent, end - self.sent))?;
            self.sent += put as u64;
        }
        Ok(())
    }

    fn swap(&mut self, count: u64) -> io::Result<()> {
        let sender = Peer { socket: Some(self.socket().try_clone()?), ..*self };
        thread::scope(|scope| {
            let mut sender = sender;
            let sending = scope.spawn(move || sender.send(count).map(|()| sender.sent));
            self.read(count)?;
            self.sent = sending.join().map_err(|_| io::Error::other("the sender panicked"))??;
            Ok(())
        })
    }

    fn fill(&mut self, count: u64, quiet: Duration) -> io::Result<()> {
        self.socket().set_write_timeout(Some(quiet))?;
        let end = self.sent + count;
        while self.sent < end {
            match self.socket().write(piece(self.is_client, self.sent, end - self.sent)) {
                Ok(put) => self.sent += put as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.socket().set_write_timeout(Some(SOON))
    }

    fn read(&mut self, count: u64) -> io::Result<()> {
        let end = self.received + count;
        let mut buf = vec![0; 64 << 10];
        while self.received < end {
            let most = buf.len().min((end - self.received) as usize);
            match self.socket().read(&mut buf[..most])? {
                0 => return Err(io::Error::other("the end came too early")),
                got => self.compare(&buf[..got])?,
            }
        }
        Ok(())
    }

    fn read_until(&mut self, end: Option<io::ErrorKind>) -> io::Result<()> {
        let mut buf = vec![0; 64 << 10];
        loop {
            match (self.socket().read(&mut buf), end) {
                (Ok(0), None) => return Ok(()),
                (Ok(0), Some(_)) => return Err(io::Error::other("a FIN came instead of a reset")),
                (Ok(got), _) => self.compare(&buf[..got])?,
                (Err(error), Some(end)) if error.kind() == end => return Ok(()),
                (Err(error), _) => return Err(error),
            }
        }
    }

    fn compare(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let expected = piece(!self.is_client, self.received, bytes.len() as u64);
            let (now, later) = bytes.split_at(expected.len());
            check(now == expected, || format!("wrong bytes after {}", self.received))?;
            self.received += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Reads the next bytes, of any content. Returns none at the end.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; 64 << 10];
        let got = self.socket().read(&mut buf)?;
        buf.truncate(got);
        Ok(buf)
    }

    /// Reads all bytes until the FIN, of any content.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.socket().read_to_end(&mut bytes) {
            panic!("{error} after {}", bytes.escape_ascii());
        }
        bytes
    }

    /// Sends its pattern until an error. Returns its kind.
    pub fn send_until_error(&mut self) -> io::ErrorKind {
        loop {
            if let Err(error) = self.send(64 << 10) {
                return error.kind();
            }
        }
    }

    /// Sends this many bytes of its pattern, or fewer if the connection breaks.
    pub fn send_some(&mut self, count: u64) {
        // The caller goes on to read the response in both cases.
        let _ = self.send(count);
    }

    /// Reads all bytes until the FIN or a reset, of any content.
    #[track_caller]
    pub fn rest_or_reset(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.socket().read_to_end(&mut bytes) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => bytes,
        }
    }

    /// Returns true if neither a byte nor an end arrives during `wait`.
    pub fn is_quiet(&mut self, wait: Duration) -> bool {
        self.socket().set_read_timeout(Some(wait)).expect("a socket");
        let result = self.socket().read(&mut [0; 1]);
        self.socket().set_read_timeout(Some(SOON)).expect("a socket");
        result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Runs the steps of two peers at the same time.
#[track_caller]
pub fn both(first: &mut Peer, first_steps: &[Step], second: &mut Peer, second_steps: &[Step]) {
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            second.run(second_steps);
        });
        first.run(first_steps);
        if let Err(panic) = other.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Returns the number of unacknowledged bytes, a FIN included.
fn unacknowledged(socket: &Socket) -> io::Result<i32> {
    let mut count = 0;
    // SAFETY: the pointer is to a live integer, as the request wants it.
    match unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(socket), libc::TIOCOUTQ, &raw mut count) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(count),
    }
}

fn check(holds: bool, text: impl FnOnce() -> String) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(text())) }
}

/// Returns at most `most` bytes of a pattern from offset `from` on. The patterns repeat after a prime number of bytes,
/// so that no buffer size hides a shift.
fn piece(is_client: bool, from: u64, most: u64) -> &'static [u8] {
    const PERIOD: usize = 1_048_573;
    static PATTERNS: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    let patterns = PATTERNS.get_or_init(|| {
        [0x9e37_79b9_7f4a_7c15_u64, 0xd1b5_4a32_d192_ed03].map(|seed| {
            let mut state = seed;
            let next = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            };
            std::iter::repeat_with(next).take(PERIOD).collect()
        })
    });
    let start = (from % PERIOD as u64) as usize;
    let count = (PERIOD - start).min(usize::try_from(most).unwrap_or(usize::MAX));
    &patterns[usize::from(is_client)][start..start + count]
}

/// Waits until the kernel has delivered something to the IPv4 socket at `local` that is connected with `remote`: bytes,
/// a FIN or a reset. Loopback delivers at once on an idle machine only.
#[track_caller]
pub fn until_delivered(local: SocketAddr, remote: SocketAddr) {
    super::until("the kernel has delivered it", || {
        // Without a row the connection is gone. 01 is ESTABLISHED, and after the colon is the number of unread bytes.
        connection(local, remote).is_none_or(|[state, queues]| state != "01" || !queues.ends_with(":00000000"))
    });
}

/// Waits until the kernel has delivered all bytes that the IPv4 socket at `local` has sent to `remote`.
#[track_caller]
pub fn until_all_delivered(local: SocketAddr, remote: SocketAddr) {
    super::until("the kernel has delivered all bytes", || {
        connection(local, remote).is_none_or(|[_, queues]| queues.starts_with("00000000:"))
    });
}

/// Returns the state of a connection in the table of the kernel, and the number of its unacknowledged and unread bytes.
fn connection(local: SocketAddr, remote: SocketAddr) -> Option<[String; 2]> {
    let [local, remote] = [local, remote].map(|addr| match addr {
        SocketAddr::V4(addr) => format!("{:08X}:{:04X}", u32::from_le_bytes(addr.ip().octets()), addr.port()),
        SocketAddr::V6(_) => panic!("{addr} is not IPv4"),
    });
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of connections");
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut row = row.filter(|row| row.len() > 4 && row[1] == local && row[2] == remote);
    row.next().map(|row| [row[3], row[4]].map(str::to_owned))
}
