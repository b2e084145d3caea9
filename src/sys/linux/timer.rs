//! A timer of the system that a poll waits for beside its descriptors (timerfd_create(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A timer whose end is an event of a poll.
pub(crate) struct SystemTimer(TimerFd);

impl SystemTimer {
    /// Makes a timer that is not set, and registers it with a poll.
    pub fn new(registry: &Registry, token: Token) -> io::Result<SystemTimer> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        registry.register(&mut SourceFd(&timer.as_fd().as_raw_fd()), token, Interest::READABLE)?;
        Ok(SystemTimer(timer))
    }

    /// Sets the end to `after` from now, above zero, and forgets an end before. The event comes once, and nothing need be read.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        Ok(self.0.set(Expiration::OneShot(TimeSpec::from_duration(after)), TimerSetTimeFlags::empty())?)
    }
}
