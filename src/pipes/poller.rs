//! A poll for pipes, where a program has no loop of its own.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::pipe::{Pipe, Readiness};

/// Waits for many pipes, with and without descriptors. It is edge-triggered: after an event, drive the pipe, and use it until
/// it returns `WouldBlock`.
pub struct Poller {
    poll: Poll,
    events: Events,
    woken: Arc<Woken>,
}

/// The keys of the pipes that have called their waker, each once.
struct Woken {
    keys: Mutex<Vec<usize>>,
    waker: mio::Waker,
}

/// The waker of one pipe.
struct WakerOf {
    key: usize,
    woken: Arc<Woken>,
}

impl Poller {
    /// Makes a poll without pipes.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Poller> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        let woken = Arc::new(Woken { keys: Mutex::default(), waker });
        Ok(Poller { poll, events: Events::with_capacity(EVENTS_MAX), woken })
    }

    /// Adds a pipe under a key, which is less than `usize::MAX`. The pipe is ready at once, so that its first drive needs no
    /// event. A pipe that is dropped removes itself.
    ///
    /// # Errors
    /// The descriptor cannot be registered: it is registered already, or the system has no memory.
    pub fn add(&self, pipe: &mut dyn Pipe, key: usize) -> io::Result<()> {
        let waker = Waker::from(Arc::new(WakerOf { key, woken: Arc::clone(&self.woken) }));
        pipe.set_waker(&waker);
        if let Some(descriptor) = pipe.descriptor() {
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut SourceFd(&descriptor.as_raw_fd()), Token(key), both)?;
        }
        waker.wake();
        Ok(())
    }

    /// Waits until a pipe is ready, at most for `patience`. Returns the key of each ready pipe, with its readiness. A key may
    /// come twice.
    ///
    /// # Errors
    /// The poll fails; the error is the system's.
    pub fn wait(&mut self, patience: Option<Duration>) -> io::Result<Vec<(usize, Readiness)>> {
        match self.poll.poll(&mut self.events, patience) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.events.clear(),
            result => result?,
        }
        let mut ready = Vec::new();
        for event in &self.events {
            match event.token() {
                WAKER => {
                    let keys = std::mem::take(&mut *self.woken.keys.lock().unwrap_or_else(PoisonError::into_inner));
                    // A pipe without a descriptor ignores the readiness. One with a descriptor had more to do.
                    ready.extend(keys.into_iter().map(|key| (key, Readiness::NONE)));
                }
                Token(key) => {
                    let read = event.is_readable() || event.is_read_closed() || event.is_error();
                    let write = event.is_writable() || event.is_write_closed() || event.is_error();
                    ready.push((key, Readiness { read, write }));
                }
            }
        }
        Ok(ready)
    }
}

impl Wake for WakerOf {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut keys = self.woken.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.contains(&self.key) {
            keys.push(self.key);
        }
        if keys.len() == 1 {
            // The lock is held, so that the poll finds the key when it is woken. A poll that is gone needs no wake-up.
            let _ = self.woken.waker.wake();
        }
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Poller")
    }
}

const WAKER: Token = Token(usize::MAX);
const EVENTS_MAX: usize = 256;
