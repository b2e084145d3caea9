//! The events of a Windows console: Ctrl-C, Ctrl-Break, a closed window. Windows has no signals for reload and status.

use std::io;

use seaprox::system::ConsoleEvents;

use super::Signal;

/// The caught console events of this process.
pub struct Signals(ConsoleEvents);

impl Signals {
    /// Begins to catch the events.
    ///
    /// # Errors
    /// Fails if the system refuses to install a handler.
    pub fn open() -> io::Result<Signals> {
        ConsoleEvents::open().map(Signals)
    }

    /// Returns a function that does nothing, because the end of the process ends the waiting thread.
    pub fn closer(&self) -> impl FnOnce() + Send + use<> {
        || ()
    }

    /// Waits for events and calls `handle` for each.
    pub fn for_each(self, mut handle: impl FnMut(Signal)) {
        while self.0.wait().is_some() {
            handle(Signal::Stop);
        }
    }
}
