//! Requests of a console: Ctrl-C, Ctrl-Break, a closed window. Windows has no signals that reload or report.

use std::io;

use seaprox::system::ConsoleEvents;

use super::Signal;

/// The console of this process, whose requests are caught from the moment that this is made.
pub struct Signals(ConsoleEvents);

impl Signals {
    /// Catches the requests from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open() -> io::Result<Signals> {
        ConsoleEvents::open().map(Signals)
    }

    /// Returns a function that does nothing: the end of the process ends the thread that waits.
    pub fn closer(&self) -> impl FnOnce() + Send + use<> {
        || ()
    }

    /// Waits for requests and hands over each.
    pub fn for_each(self, mut take: impl FnMut(Signal)) {
        while self.0.wait().is_some() {
            take(Signal::Stop);
        }
    }
}
