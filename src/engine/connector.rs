//! External connectors: a program that connects some dests itself, and answers from any thread.

use std::sync::Arc;

use crate::engine::mailbox::{Mail, Mailbox};
use crate::sys::duplex::Duplex;
use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

/// An external connector of dests, such as another proxy or a tunnel. A panic counts in
/// [`Stats::panics`](crate::Stats::panics) and fails the dial.
pub trait Connector {
    /// Returns true if the connector takes this target. The loop connects the others itself.
    fn wants(&self, target: &Target) -> bool;

    /// Starts to connect, without blocking. The answer may come at any time, from any thread.
    fn connect(&mut self, target: &Target, answer: Answer);

    /// The loop does not wait for the answer for this side any more: its time is over, or its connection. A later answer does no
    /// harm. This is called for each side that was not connected, so the connector may not know it, or may have answered.
    fn cancelled(&mut self, side: Id) {
        let _ = side;
    }
}

/// The answer of a [`Connector`], given once. Dropping it reports that the connection could not be made.
#[must_use = "a dial without an answer ends at its deadline"]
pub struct Answer {
    mailbox: Arc<Mailbox>,
    side: Id,
    given: bool,
}

impl Answer {
    /// Makes the answer for a dest.
    pub(super) fn new(mailbox: Arc<Mailbox>, side: Id) -> Answer {
        Answer { mailbox, side, given: false }
    }

    /// Returns the side that is being connected.
    pub fn side(&self) -> Id {
        self.side
    }

    /// Hands over a connected stream socket, or other descriptors that carry the bytes of the connection.
    pub fn connected(mut self, side: impl Into<Duplex>) {
        self.give(Ok(side.into()));
    }

    /// Reports a failure.
    pub fn failed(mut self, failure: Failure) {
        self.give(Err(failure));
    }

    /// Drops the answer without giving it.
    pub(super) fn forget(mut self) {
        self.given = true;
    }

    fn give(&mut self, result: Result<Duplex, Failure>) {
        self.given = true;
        // The mailbox never refuses an answer, and a loop that has ended needs none.
        let _ = self.mailbox.post(Mail::Connected(self.side, result));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            self.give(Err(Failure::new(Reason::Other, "the connector gave no answer")));
        }
    }
}
