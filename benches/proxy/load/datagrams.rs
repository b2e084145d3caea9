//! Datagrams of one length on many flows. A flow sends a batch, whose last datagram is echoed by the far end, and is free
//! again when that has come back or is taken for lost. The client so never sends more than the proxy can take.

use std::collections::VecDeque;
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::Load;
use crate::route::{PATIENCE, Route};
use crate::sys::{self, Epoll};
use crate::target::Wish;

/// The shape of a load of datagrams.
#[derive(Clone, Copy)]
pub struct Shape {
    /// The length of each datagram's payload in bytes.
    pub len: usize,
    pub flows: usize,
    /// Flows that wait for an echo at a time.
    pub busy: usize,
    /// Datagrams for each echo. Only the last of them is echoed.
    pub batch: usize,
    /// True if one call sends the whole batch (UDP_SEGMENT).
    pub segments: bool,
}

impl Shape {
    pub const PING: Shape = Shape { len: 64, flows: 1, busy: 1, batch: 1, segments: false };
}

/// The unit is one datagram that a proxy has relayed: those of a batch and its echo.
pub struct Datagrams {
    shape: Shape,
    flows: Vec<Flow>,
    epoll: Epoll,
    /// The bytes of a batch, with the header of each datagram.
    batch: Vec<u8>,
    header_len: usize,
    /// The next flow that is to send, in turn.
    next: usize,
    /// The batches under way, in the order in which they were sent. Some have been echoed.
    sent: VecDeque<(usize, u64, Instant)>,
    busy: usize,
    times_ns: Vec<u64>,
    done: u64,
    lost: u64,
}

struct Flow {
    socket: UdpSocket,
    _control: Option<TcpStream>,
    /// The number of its batch under way, and when that was sent.
    waits: Option<(u64, Instant)>,
    number: u64,
}

impl Datagrams {
    /// Opens all flows, and waits for an echo on each.
    pub fn open(route: &Route, shape: Shape) -> io::Result<Datagrams> {
        let epoll = Epoll::new()?;
        let (mut flows, mut header) = (Vec::new(), Vec::new());
        for index in 0..shape.flows {
            let (socket, its, _control) = route.open_datagrams()?;
            header = its;
            if shape.segments {
                sys::segment(&socket, (header.len() + shape.len) as u16)?;
            }
            socket.set_nonblocking(true)?;
            epoll.add(&socket, index as u64, sys::READABLE)?;
            flows.push(Flow { socket, _control, waits: None, number: 0 });
        }
        let batch = (1..=shape.batch).flat_map(|number| {
            let mut payload = vec![0; shape.len];
            payload[0] = if number == shape.batch { Wish::Echo.byte() } else { 0 };
            header.iter().copied().chain(payload)
        });
        let (batch, header_len) = (batch.collect(), header.len());
        let (sent, times_ns) = (VecDeque::new(), Vec::new());
        let mut load =
            Datagrams { shape, flows, epoll, batch, header_len, next: 0, sent, busy: 0, times_ns, done: 0, lost: 0 };
        load.greet()?;
        Ok(load)
    }

    /// Takes the times from a send to its echo since the last call, in nanoseconds.
    pub fn take_times_ns(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.times_ns)
    }

    /// Returns the number of batches whose echo did not come in time.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Sends on each flow until all have had an echo. A proxy that starts may take a while.
    fn greet(&mut self) -> io::Result<()> {
        let end = Instant::now() + GREETING_TIME_MAX;
        while self.flows.iter().any(|flow| flow.number == 0 || flow.waits.is_some()) {
            if Instant::now() > end {
                return Err(io::Error::other("not all flows have had an echo"));
            }
            let silent = |flow: &Flow| flow.number == 0 && flow.waits.is_none();
            while self.busy < self.shape.busy.min(GREETED_AT_ONCE)
                && let Some(index) = self.flows.iter().position(silent)
            {
                self.send(index)?;
            }
            self.receive(LOST_AFTER)?;
            for index in self.give_up() {
                self.flows[index].number = 0;
            }
        }
        (self.done, self.lost) = (0, 0);
        Ok(())
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let flow = &mut self.flows[index];
        let now = Instant::now();
        let each = self.header_len + self.shape.len;
        let at_once = if self.shape.segments { self.batch.len() } else { each };
        for part in self.batch.chunks(at_once) {
            match flow.socket.send(part) {
                Ok(_) => {}
                // The proxy does not listen yet, or a buffer is full: the echo will be missing.
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(error),
            }
        }
        flow.number += 1;
        flow.waits = Some((flow.number, now));
        self.sent.push_back((index, flow.number, now));
        self.busy += 1;
        Ok(())
    }

    /// Receives the echoes that come within `patience`.
    fn receive(&mut self, patience: Duration) -> io::Result<()> {
        let mut ready = Vec::new();
        self.epoll.wait(&mut ready, Some(patience))?;
        for index in ready {
            let flow = &mut self.flows[index as usize];
            let mut buf = [0; 2048];
            match flow.socket.recv(&mut buf) {
                Ok(len) if len != self.header_len + self.shape.len => {
                    return Err(io::Error::other(format!("a datagram of {len} bytes came back")));
                }
                Ok(_) => {}
                Err(error) if is_loss(&error) => continue,
                Err(error) => return Err(error),
            }
            if let Some((_, at)) = flow.waits.take() {
                self.busy -= 1;
                self.done += self.shape.batch as u64 + 1;
                self.times_ns.push(at.elapsed().as_nanos() as u64);
            }
        }
        Ok(())
    }

    /// Gives up the batches that have waited for too long. Returns their flows.
    fn give_up(&mut self) -> Vec<usize> {
        let mut flows = Vec::new();
        while let Some((index, number, at)) = self.sent.front().copied() {
            let waits = self.flows[index].waits.is_some_and(|(waiting, _)| waiting == number);
            if waits && at.elapsed() < LOST_AFTER {
                break;
            }
            self.sent.pop_front();
            if waits {
                self.flows[index].waits = None;
                self.busy -= 1;
                self.lost += 1;
                flows.push(index);
            }
        }
        flows
    }

    /// Lets free flows send, one after the other.
    fn fill(&mut self) -> io::Result<()> {
        while self.busy < self.shape.busy.min(self.flows.len()) {
            while self.flows[self.next].waits.is_some() {
                self.next = (self.next + 1) % self.flows.len();
            }
            self.send(self.next)?;
            self.next = (self.next + 1) % self.flows.len();
        }
        Ok(())
    }
}

impl Load for Datagrams {
    fn run_for(&mut self, window: Duration) -> io::Result<()> {
        let (start, before) = (Instant::now(), self.done);
        while start.elapsed() < window {
            self.fill()?;
            self.receive(LOST_AFTER)?;
            self.give_up();
            if self.done == before && start.elapsed() > PATIENCE {
                return Err(io::Error::other("no datagram comes back"));
            }
        }
        Ok(())
    }

    fn units(&self) -> u64 {
        self.done
    }
}

/// Returns true for errors that mean the loss of a datagram.
fn is_loss(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused)
}

/// Time after which a batch without an echo is lost.
const LOST_AFTER: Duration = Duration::from_millis(100);
const GREETING_TIME_MAX: Duration = Duration::from_secs(15);
/// New flows that wait for their first echo at a time.
const GREETED_AT_ONCE: usize = 16;
