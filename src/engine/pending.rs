//! The result of a function that runs in a loop, for the thread that asked.
//!
//! The function holds the sender of a channel. If it is dropped without a run, or panics, the sender goes with it, and the
//! receiver hears of that. So no caller waits for a loop that has ended: its mailbox drops what waits in it.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// The result of a function that a loop runs; see [`Remote::ask`](crate::Remote::ask).
#[derive(Debug)]
#[must_use = "the result of the call is here"]
pub struct Pending<T>(pub(crate) Receiver<T>);

/// The error of a call that gives no result: the loop ended before it ran the call, or the call panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

impl<T> Pending<T> {
    /// Waits for the result. The thread of the loop must not wait for its own loop: it would wait forever.
    ///
    /// # Errors
    /// [`Unanswered`] if no result will come.
    pub fn wait(self) -> Result<T, Unanswered> {
        self.0.recv().map_err(|_| Unanswered)
    }

    /// Waits for the result, at most for `time`. Returns none if the loop has not answered by then.
    ///
    /// # Errors
    /// [`Unanswered`] if no result will come.
    pub fn wait_for(&self, time: Duration) -> Result<Option<T>, Unanswered> {
        match self.0.recv_timeout(time) {
            Ok(result) => Ok(Some(result)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Unanswered),
        }
    }

    /// Takes the result if it is there. Returns none if the loop has not answered yet.
    ///
    /// # Errors
    /// [`Unanswered`] if no result will come, or it was taken.
    pub fn try_take(&self) -> Result<Option<T>, Unanswered> {
        match self.0.try_recv() {
            Ok(result) => Ok(Some(result)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Unanswered),
        }
    }
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the loop has ended, or the call panicked")
    }
}

impl std::error::Error for Unanswered {}
