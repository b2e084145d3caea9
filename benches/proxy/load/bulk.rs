//! Endless streams whose received bytes the kernel drops without copying them.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Load;
use crate::route::{PATIENCE, Route};
use crate::sys::{self, Epoll};
use crate::target::Wish;

/// The unit is one byte received.
pub struct Bulk {
    streams: Vec<TcpStream>,
    epoll: Epoll,
    bytes: u64,
    progress: Instant,
}

impl Bulk {
    pub fn open(route: &Route, count: usize) -> io::Result<Bulk> {
        let epoll = Epoll::new()?;
        let mut streams = Vec::new();
        for index in 0..count {
            let mut stream = route.open()?;
            stream.write_all(&[Wish::Bulk.byte()])?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, index as u64, sys::READABLE)?;
            streams.push(stream);
        }
        Ok(Bulk { streams, epoll, bytes: 0, progress: Instant::now() })
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
                match sys::discard(&self.streams[*token as usize], CHUNK_LEN) {
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
