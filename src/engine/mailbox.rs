//! The mailbox of a loop: a queue of messages from other threads.
//!
//! One wake-up stands for all mails in the queue: an eventfd only tells that there is at least one. Each mail is delivered
//! once. The queue is bounded: answers by the number of requests in progress, calls by a limit.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError, mpsc};
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use crate::engine::accept::Accepted;
use crate::engine::control::Loop;
use crate::engine::pending::Pending;
use crate::engine::resolve::Resolved;
use crate::engine::sync::{Condvar, Mutex, MutexGuard, Waker};
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
    /// A function to run in the loop, of a sender that has one under way at most. So these are bounded as their senders are.
    SoleCall(Box<dyn FnOnce(&mut Loop<'_>) + Send>),
    /// End the loop, at the latest after this time.
    Finish(Duration),
}

/// The queue of mails, and the waker of the loop.
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    waker: Waker,
    calls_max: usize,
    /// Wakes the threads that wait for room for a call.
    room: Condvar,
}

struct Queue {
    mails: VecDeque<Mail>,
    calls: usize,
    /// Threads that wait for room for a call.
    waiting: usize,
    /// The loop has ended. Mails are dropped.
    is_closed: bool,
}

/// The handle of a loop for other threads. They can run functions in the loop, wake it and end it.
#[derive(Clone)]
pub struct Remote(pub(crate) Arc<Mailbox>);

/// The error of a call or a job that is refused because too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Mailbox {
    pub fn new(registry: &Registry, token: Token, calls_max: usize) -> io::Result<Mailbox> {
        let queue = Mutex::new(Queue::new());
        Ok(Mailbox { queue, waker: Waker::new(registry, token)?, calls_max, room: Condvar::new() })
    }

    pub fn post(&self, mail: Mail) -> Result<(), Full> {
        self.post_to(self.lock(), mail)
    }

    /// Posts a call. If too many wait, waits for room, at most for `patience`.
    pub fn post_within(&self, patience: Duration, mail: Mail) -> Result<(), Full> {
        let (since, mut queue) = (Instant::now(), self.lock());
        while !queue.is_closed && queue.calls == self.calls_max {
            let Some(left) = patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else { break };
            queue.waiting += 1;
            (queue, _) = self.room.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
        self.post_to(queue, mail)
    }

    fn post_to(&self, mut queue: MutexGuard<'_, Queue>, mail: Mail) -> Result<(), Full> {
        if queue.is_closed {
            // The drop of a mail may run code of its sender, so the lock is released first.
            drop(queue);
            return Ok(());
        }
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
            self.wake();
        }
        Ok(())
    }

    /// Makes the loop end its wait.
    pub fn wake(&self) {
        // A failure to wake the loop means that the loop is gone.
        let _ = self.waker.wake();
    }

    /// Asks the loop to end within `time`. There is always room for that.
    pub fn finish(&self, time: Duration) {
        let mut queue = self.lock();
        if queue.is_closed {
            return;
        }
        let earlier = queue.mails.iter_mut().find_map(|mail| match mail {
            Mail::Finish(earlier) => Some(earlier),
            _ => None,
        });
        // One order says it all, so that the queue stays bounded.
        match earlier {
            Some(earlier) => *earlier = time.min(*earlier),
            None => queue.mails.push_back(Mail::Finish(time)),
        }
        drop(queue);
        self.wake();
    }

    /// Drops all mails, and those that will come.
    pub fn close(&self) {
        let mut queue = self.lock();
        (queue.is_closed, queue.calls) = (true, 0);
        let mails = std::mem::take(&mut queue.mails);
        drop(queue);
        self.room.notify_all();
        drop(mails);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves all mails to `into`. The loop must process them all, and report the number of calls with [`Mailbox::ran`].
    pub fn take(&self, into: &mut VecDeque<Mail>) {
        let mut queue = self.lock();
        into.append(&mut queue.mails);
    }

    /// Makes room for as many new calls as the loop has run.
    pub fn ran(&self, calls: usize) {
        if calls > 0 {
            let mut queue = self.lock();
            queue.calls -= calls;
            // A notification is a system call, also if it wakes no thread.
            if queue.waiting > 0 {
                self.room.notify_all();
            }
        }
    }
}

impl Queue {
    fn new() -> Queue {
        Queue { mails: VecDeque::new(), calls: 0, waiting: 0, is_closed: false }
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

    /// Runs a function in the loop soon, as [`Remote::call`] does. Its result can be waited for. A loop that has ended
    /// answers [`Unanswered`](crate::Unanswered).
    ///
    /// # Errors
    /// [`Full`] if too many calls wait.
    pub fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static,
    ) -> Result<Pending<T>, Full> {
        let (call, pending) = Remote::asking(what);
        self.0.post(call).map(|()| pending)
    }

    /// Does the same as [`Remote::ask`]. If too many calls wait, waits for room, at most for `patience`. The thread of the
    /// loop must not call this: it would wait for itself.
    ///
    /// # Errors
    /// [`Full`] if there is no room within that time.
    pub fn ask_within<T: Send + 'static>(
        &self,
        patience: Duration,
        what: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static,
    ) -> Result<Pending<T>, Full> {
        let (call, pending) = Remote::asking(what);
        self.0.post_within(patience, call).map(|()| pending)
    }

    fn asking<T: Send + 'static>(what: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static) -> (Mail, Pending<T>) {
        let (sender, receiver) = mpsc::sync_channel(1);
        // The caller may have dropped the receiver.
        (Mail::Call(Box::new(move |core| drop(sender.send(what(core))))), Pending(receiver))
    }

    /// Ends the loop: it accepts no more, and stops when the last connection is over, or after `time`, whichever comes
    /// first; at once if `time` is zero. See [`Core::drain`](crate::Core::drain). There is always room for this, and the
    /// shortest time counts.
    pub fn finish(&self, time: Duration) {
        self.0.finish(time);
    }

    /// Runs a function in the loop soon, as [`Remote::call`] does, for a caller that has one such call under way at most. There is
    /// always room for this.
    pub fn call_sole(&self, what: impl FnOnce(&mut Loop<'_>) + Send + 'static) {
        // Only calls of any number are refused.
        let _ = self.0.post(Mail::SoleCall(Box::new(what)));
    }

    /// Ends the wait of the loop: its present turn, or else the next one, returns without waiting for events.
    pub fn wake(&self) {
        self.0.wake();
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
