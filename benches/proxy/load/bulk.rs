//! Endless streams. The kernel drops the received bytes without copying them, or the client copies them to its memory.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Load;
use crate::route::{PATIENCE, Route};
use crate::sys::{self, Epoll};
use crate::target::{COPIED_LEN, Wish};

/// The unit is one byte received.
pub struct Bulk {
    streams: Vec<TcpStream>,
    epoll: Epoll,
    bytes: u64,
    /// The memory to which the client copies the bytes; empty if the kernel drops them.
    copies: Vec<u8>,
    progress: Instant,
}

impl Bulk {
    pub fn open(route: &Route, count: usize) -> io::Result<Bulk> {
        Bulk::open_as(route, count, Wish::Bulk, Vec::new())
    }

    /// Opens streams that both the far end and the client copy.
    pub fn open_copied(route: &Route, count: usize) -> io::Result<Bulk> {
        Bulk::open_as(route, count, Wish::CopiedBulk, vec![0; COPIED_LEN])
    }

    fn open_as(route: &Route, count: usize, wish: Wish, copies: Vec<u8>) -> io::Result<Bulk> {
        let epoll = Epoll::new()?;
        let mut streams = Vec::new();
        for index in 0..count {
            let mut stream = route.open()?;
            stream.write_all(&[wish.byte()])?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, index as u64, sys::READABLE)?;
            streams.push(stream);
        }
        Ok(Bulk { streams, epoll, bytes: 0, copies, progress: Instant::now() })
    }
}

impl Load for Bulk {
    fn run_for(&mut self, window: Duration) -> io::Result<()> {
        let end = Instant::now() + window;
        let mut ready = Vec::new();
        self.progress = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            if now.duration_since(self.progress) > PATIENCE {
                return Err(io::Error::other("the stream stands still"));
            }
            self.epoll.wait(&mut ready, Some(end - now))?;
            for token in &ready {
                let mut stream = &self.streams[*token as usize];
                let received = match self.copies.is_empty() {
                    true => sys::discard(stream, CHUNK_LEN),
                    false => stream.read(&mut self.copies),
                };
                match received {
                    Ok(0) => return Err(io::Error::other("the stream ended")),
                    Ok(len) => {
                        self.bytes += len as u64;
                        self.progress = now;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn units(&self) -> u64 {
        self.bytes
    }
}

/// More than any receive buffer holds, so that one call empties it.
const CHUNK_LEN: usize = 16 << 20;
