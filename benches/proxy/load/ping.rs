//! One connection on which a few bytes go forth and back, one ping at a time. Each ping is timed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::Load;
use crate::route::Route;
use crate::sys;
use crate::target::Wish;

/// The unit is one ping that has come back.
pub struct Ping {
    stream: TcpStream,
    wish: Wish,
    pause: Duration,
    times_ns: Vec<u64>,
    done: u64,
}

impl Ping {
    /// Opens the connection and sends one ping, which shows that the whole route is open.
    pub fn open(route: &Route, wish: Wish) -> io::Result<Ping> {
        let mut ping = Ping { stream: route.open()?, wish, pause: Duration::ZERO, times_ns: Vec::new(), done: 0 };
        ping.once()?;
        ping.done = 0;
        Ok(ping)
    }

    /// Sets the pause between the return of a ping and the next ping.
    pub fn paced(self, pause: Duration) -> Ping {
        Ping { pause, ..self }
    }

    /// Takes the times of the pings since the last call, in nanoseconds.
    pub fn take_times_ns(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.times_ns)
    }

    fn once(&mut self) -> io::Result<()> {
        let mut buf = [self.wish.byte(); PING_LEN];
        self.stream.write_all(&buf)?;
        self.stream.read_exact(&mut buf)?;
        self.done += 1;
        Ok(())
    }

    fn repeat(&mut self, window: Duration) -> io::Result<()> {
        let mut before = Instant::now();
        let end = before + window;
        while before < end {
            self.once()?;
            let after = Instant::now();
            self.times_ns.push((after - before).as_nanos() as u64);
            before = after;
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
                before = Instant::now();
            }
        }
        Ok(())
    }
}

impl Load for Ping {
    /// Runs a timed ping in a thread with priority over all others, if the system permits it, so that the times are the
    /// proxy's delay and not the client's wait for a processor.
    fn run_for(&mut self, window: Duration) -> io::Result<()> {
        if self.wish != Wish::Ping {
            return self.repeat(window);
        }
        let ahead = || {
            // The report says if this is not permitted.
            let _ = sys::hasten();
            self.repeat(window)
        };
        let ended = thread::scope(|scope| scope.spawn(ahead).join());
        ended.unwrap_or_else(|_| Err(io::Error::other("the ping's thread panicked")))
    }

    fn units(&self) -> u64 {
        self.done
    }
}

const PING_LEN: usize = 64;
