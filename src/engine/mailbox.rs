//! The mailbox of a loop: a queue of messages from other threads.
//!
//! One wake-up stands for all mails in the queue: an eventfd only tells that there is at least one. Each mail is delivered
//! once. The queue is bounded: answers by the number of requests in progress, calls by a limit.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};

use mio::{Registry, Token};

use crate::engine::accept::Accepted;
use crate::engine::control::Loop;
use crate::engine::resolve::Resolved;
use crate::engine::sync::{Mutex, Waker};
use crate::sys::duplex::Duplex;
use crate::types::id::Id;
use crate::types::reason::Failure;

/// A message from another thread to a loop.
pub(crate) enum Mail {
    /// The result of a lookup.
    Resolved(Resolved),
    /// The result of an external connector for a side.
    Connected(Id, Result<Duplex, Failure>),
    /// A client that another loop accepted for this loop.
    Accepted(Accepted),
    /// A function to run in the loop.
    Call(Box<dyn FnOnce(&mut Loop<'_>) + Send>),
}

/// The queue of mails, and the waker of the loop.
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    waker: Waker,
    calls_max: usize,
}

struct Queue {
    mails: VecDeque<Mail>,
    calls: usize,
}

/// The handle of a loop for other threads. They can run functions in the loop.
#[derive(Clone)]
pub struct Remote(pub(crate) Arc<Mailbox>);

/// The error of a call or a job that is refused because too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Mailbox {
    pub fn new(registry: &Registry, token: Token, calls_max: usize) -> io::Result<Mailbox> {
        let queue = Mutex::new(Queue { mails: VecDeque::new(), calls: 0 });
        Ok(Mailbox { queue, waker: Waker::new(registry, token)?, calls_max })
    }

    pub fn post(&self, mail: Mail) -> Result<(), Full> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(mail, Mail::Call(_)) {
            if queue.calls == self.calls_max {
                return Err(Full);
            }
            queue.calls += 1;
        }
        queue.mails.push_back(mail);
        let first = queue.mails.len() == 1;
        drop(queue);
        if first {
            // A failure to wake the loop means that the loop is gone.
            let _ = self.waker.wake();
        }
        Ok(())
    }

    /// Moves all mails to `into`. The loop must process them all, and report the number of calls with [`Mailbox::ran`].
    pub fn take(&self, into: &mut VecDeque<Mail>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        into.append(&mut queue.mails);
    }

    /// Makes room for as many new calls as the loop has run.
    pub fn ran(&self, calls: usize) {
        if calls > 0 {
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).calls -= calls;
        }
    }
}

impl Remote {
    /// Returns true if both are handles of the same loop.
    pub(crate) fn is_same(&self, other: &Remote) -> bool {
        self.is_of(&other.0)
    }

    /// Returns true if it is a handle of the loop with this mailbox.
    pub(crate) fn is_of(&self, mailbox: &Arc<Mailbox>) -> bool {
        Arc::ptr_eq(&self.0, mailbox)
    }

    /// Runs a function in the loop soon, between two phases of a turn.
    ///
    /// # Errors
    /// [`Full`] if too many calls wait. The mailbox of a loop that has ended accepts calls and never runs them.
    pub fn call(&self, what: impl FnOnce(&mut Loop<'_>) + Send + 'static) -> Result<(), Full> {
        self.0.post(Mail::Call(Box::new(what)))
    }
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many calls wait for the loop")
    }
}

impl std::error::Error for Full {}

#[cfg(all(test, loom))]
pub(in crate::engine) mod models;
