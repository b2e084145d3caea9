//! The options of a loop.

use std::time::Duration;

use seaprox::{Config, Limits, Timeouts};

use crate::error::Error;
use crate::memory::Versioned;

/// See the header. A field that is 0 has its default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct seaprox_options {
    size: u32,
    max_num_connections: u32,
    num_threads: u32,
    handshake_timeout_ms: u32,
    connect_timeout_ms: u32,
    idle_timeout_ms: u32,
    half_closed_timeout_ms: u32,
    max_num_timers: u32,
    max_num_watches: u32,
    reserved: u32,
    buffer_bytes: u64,
}

// SAFETY: integers in repr(C), the size first.
unsafe impl Versioned for seaprox_options {
    fn reserved(&self) -> u32 {
        self.reserved
    }
}

impl seaprox_options {
    /// Returns the configuration of the loop.
    pub fn config(&self) -> Result<Config, Error> {
        let connections = or(self.max_num_connections, CONNECTIONS);
        if connections > CONNECTIONS_MAX {
            return Err(Error::invalid(format!("max_num_connections: expected at most {CONNECTIONS_MAX}")));
        }
        if self.threads() > THREADS_MAX {
            return Err(Error::invalid(format!("num_threads: expected at most {THREADS_MAX}")));
        }
        let usual = Limits::default();
        let limits = Limits {
            connections,
            flows: connections,
            buffer_bytes: if self.buffer_bytes == 0 { usual.buffer_bytes } else { self.buffer_bytes as usize },
            timers: or(self.max_num_timers, usual.timers),
            watches: or(self.max_num_watches, usual.watches),
            ..usual
        };
        let usual = Timeouts::default();
        let time = |ms: u32, usual| if ms == 0 { usual } else { Duration::from_millis(ms.into()) };
        let timeouts = Timeouts {
            handshake: time(self.handshake_timeout_ms, usual.handshake),
            connect: time(self.connect_timeout_ms, usual.connect),
            idle: time(self.idle_timeout_ms, usual.idle),
            half_closed: time(self.half_closed_timeout_ms, usual.half_closed),
            ..usual
        };
        Ok(Config { limits, timeouts, ..Config::default() })
    }

    /// Returns the number of threads that look names up.
    pub fn threads(&self) -> usize {
        or(self.num_threads, THREADS)
    }
}

fn or(value: u32, usual: usize) -> usize {
    if value == 0 { usual } else { value as usize }
}

/// Connections of a loop that names no number, and the most: as for `--max-connections`. Their tables are made at the start.
const CONNECTIONS: usize = 4096;
const CONNECTIONS_MAX: usize = 10_000_000;
/// Threads of a loop that names no number, and the most.
const THREADS: usize = 4;
const THREADS_MAX: usize = 1024;
