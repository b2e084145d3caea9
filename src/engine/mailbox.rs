//! The mailbox of a loop: what other threads have for it.
//!
//! The mails wait in a queue, and one wake-up stands for all of them: an eventfd adds up what is written to it, so it can
//! say that there is something, never what. A mail is delivered once. The queue is bounded: answers by the requests that
//! are under way, calls by a limit.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError};

use mio::{Registry, Token};

use crate::engine::control::Loop;
use crate::engine::listener::Accepted;
use crate::engine::resolve::Resolved;
use crate::engine::sync::{Mutex, Waker};
use crate::sys::OwnedSocket;
use crate::types::id::Id;
use crate::types::reason::Failure;

/// What another thread has for a loop.
pub(crate) enum Mail {
    /// A name was looked up.
    Resolved(Resolved),
    /// An external connector is done with a side.
    Connected(Id, Result<OwnedSocket, Failure>),
    /// Another loop accepted a client for us.
    Accepted(Accepted),
    /// Something to be run in the loop.
    Call(Box<dyn FnOnce(&mut Loop<'_>) + Send>),
}

/// Where the mails wait.
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    waker: Waker,
    calls_max: usize,
}

struct Queue {
    mails: VecDeque<Mail>,
    calls: usize,
}

/// A loop, as other threads see it: they can have something done in it.
#[derive(Clone)]
pub struct Remote(pub(crate) Arc<Mailbox>);

/// The loop has as many calls waiting as it takes.
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
            // The loop that cannot be woken is gone.
            let _ = self.waker.wake();
        }
        Ok(())
    }

    /// Takes all mails. The one who takes them sees to it that they are all read, and says how many calls were run.
    pub fn take(&self, into: &mut VecDeque<Mail>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        into.append(&mut queue.mails);
    }

    /// Makes room for as many calls as have been run.
    pub fn ran(&self, calls: usize) {
        if calls > 0 {
            self.queue.lock().unwrap_or_else(PoisonError::into_inner).calls -= calls;
        }
    }
}

impl Remote {
    /// Has something run in the loop, soon, between two of its turns' phases.
    ///
    /// # Errors
    /// [`Full`] when too many calls wait already. A loop that has ended takes calls and never runs them.
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
