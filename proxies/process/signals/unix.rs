//! The signals of Unix.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator;

use super::Signal;

/// The caught signals of this process.
pub struct Signals(iterator::Signals);

impl Signals {
    /// Begins to catch the signals.
    ///
    /// # Errors
    /// Fails if the system refuses to install a handler.
    pub fn open() -> io::Result<Signals> {
        iterator::Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2]).map(Signals)
    }

    /// Returns a function that ends [`Signals::for_each`], for another thread.
    pub fn closer(&self) -> impl FnOnce() + Send + use<> {
        let handle = self.0.handle();
        move || handle.close()
    }

    /// Waits for signals and calls `handle` with each, until the closer is called.
    pub fn for_each(mut self, mut handle: impl FnMut(Signal)) {
        for signal in self.0.forever() {
            handle(match signal {
                SIGHUP => Signal::Reload,
                SIGUSR1 => Signal::Status,
                SIGUSR2 => Signal::Replace,
                SIGTERM | SIGQUIT => Signal::Drain,
                _ => Signal::Stop,
            });
        }
    }
}
