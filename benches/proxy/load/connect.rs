//! Short connections, many at a time: connect, shake hands, a few bytes each way, close.
//!
//! The far end closes first, as an HTTP/1.0 server does. Then the states that linger for a minute after a close lie
//! with the far end and with the proxy's listening side, and neither the client's ports nor the proxy's outgoing ones
//! run out; were the client first, each connection would cost the proxy a port for that minute. The client spreads over
//! many source addresses, because each lingering pair of address and port is slow to use again.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::Load;
use crate::route::{Exchange, Expect, PATIENCE, Route};
use crate::sys::{self, Epoll};
use crate::target::{ONCE_LEN, Wish};

/// The unit is one connection that has ended in order.
pub struct Connect {
    dial: SocketAddr,
    exchanges: Vec<Exchange>,
    slots: Vec<Slot>,
    epoll: Epoll,
    next_source: u32,
    done: u64,
    failed: u64,
}

/// One of the connections under way.
struct Slot {
    stream: TcpStream,
    /// Index of the current exchange; after the last one, only the end of the connection is awaited.
    step: usize,
    sent: bool,
    received: usize,
    tail: u32,
}

enum Progress {
    Waits,
    Sent,
    Ended,
}

impl Connect {
    pub fn open(route: &Route, concurrent: usize) -> io::Result<Connect> {
        let mut exchanges = route.exchanges();
        exchanges.push(Exchange { send: vec![Wish::Once.byte(); ONCE_LEN], expect: Expect::Bytes(ONCE_LEN) });
        let mut load = Connect {
            dial: route.dial,
            exchanges,
            slots: Vec::new(),
            epoll: Epoll::new()?,
            next_source: 0,
            done: 0,
            failed: 0,
        };
        for index in 0..concurrent {
            let slot = load.dial(index)?;
            load.slots.push(slot);
        }
        Ok(load)
    }

    /// Starts a connection. On loopback it is mostly established when the call returns, so the first bytes are sent at
    /// once, and the load waits for writability only if that fails.
    fn dial(&mut self, index: usize) -> io::Result<Slot> {
        let source = Ipv4Addr::from(FIRST_SOURCE + self.next_source);
        self.next_source = (self.next_source + 1) % SOURCES;
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        sys::bind_address_only(&socket)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.dial.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut slot = Slot { stream: socket.into(), step: 0, sent: false, received: 0, tail: 0 };
        slot.send(&self.exchanges)?;
        let interest = if slot.sent { sys::READABLE } else { sys::WRITABLE };
        self.epoll.add(&slot.stream, index as u64, interest)?;
        Ok(slot)
    }

    fn advance(&mut self, index: usize) -> io::Result<()> {
        match self.slots[index].advance(&self.exchanges) {
            Ok(Progress::Waits) => return Ok(()),
            Ok(Progress::Sent) => {
                return self.epoll.change(&self.slots[index].stream, index as u64, sys::READABLE);
            }
            Ok(Progress::Ended) => self.done += 1,
            Err(error) => {
                self.failed += 1;
                // A few refusals at full speed are acceptable; with many, the measurement is worthless.
                if self.failed > FAILURES_MAX {
                    return Err(error);
                }
            }
        }
        self.slots[index] = self.dial(index)?;
        Ok(())
    }
}

impl Load for Connect {
    fn run_for(&mut self, window: Duration) -> io::Result<()> {
        let start = Instant::now();
        let end = start + window;
        let mut progress = (start, self.done);
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if self.done != progress.1 {
                progress = (now, self.done);
            } else if now - progress.0 > PATIENCE {
                return Err(io::Error::other("no connection comes to its end"));
            }
            self.epoll.wait(&mut ready, Some(end - now))?;
            for token in &ready {
                self.advance(*token as usize)?;
            }
        }
    }

    fn units(&self) -> u64 {
        self.done
    }
}

impl Slot {
    /// Sends the bytes of this step. Does nothing before the connection is established.
    fn send(&mut self, exchanges: &[Exchange]) -> io::Result<()> {
        let Some(exchange) = exchanges.get(self.step) else { return Ok(()) };
        match self.stream.write(&exchange.send) {
            Ok(len) if len == exchange.send.len() => self.sent = true,
            Ok(_) => return Err(io::Error::other("a few bytes did not fit an empty socket")),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn advance(&mut self, exchanges: &[Exchange]) -> io::Result<Progress> {
        if !self.sent {
            self.send(exchanges)?;
            return Ok(if self.sent { Progress::Sent } else { Progress::Waits });
        }
        let mut buf = [0; 1024];
        loop {
            let len = match self.stream.read(&mut buf) {
                Ok(0) if self.step == exchanges.len() => return Ok(Progress::Ended),
                Ok(0) => return Err(io::Error::other(format!("closed during exchange {}", self.step + 1))),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Waits),
                Err(error) => return Err(error),
            };
            if self.step == exchanges.len() {
                return Err(io::Error::other("more bytes than were asked for"));
            }
            if !self.take(&buf[..len], exchanges[self.step].expect) {
                return Ok(Progress::Waits);
            }
            self.step += 1;
            self.received = 0;
            self.tail = 0;
            if self.step < exchanges.len() {
                self.send(exchanges)?;
                return Ok(Progress::Waits);
            }
        }
    }

    /// Records bytes of an answer. Returns true if the answer is complete.
    fn take(&mut self, bytes: &[u8], expect: Expect) -> bool {
        self.received += bytes.len();
        self.tail = bytes.iter().fold(self.tail, |tail, byte| tail << 8 | u32::from(*byte));
        match expect {
            Expect::Bytes(len) => self.received >= len,
            Expect::Head => self.tail == u32::from_be_bytes(*b"\r\n\r\n"),
        }
    }
}

/// 127.1.0.1 and the addresses after it, all of which are this machine.
const FIRST_SOURCE: u32 = u32::from_be_bytes([127, 1, 0, 1]);
const SOURCES: u32 = 250;
const FAILURES_MAX: u64 = 10;
