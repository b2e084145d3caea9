//! The queue of the virtual machine: the chunks of the user, and the events of objects. Nothing that puts something in waits.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::board::Entry;
use super::transfers::{Outcome, Question};

/// A chunk for the virtual machine.
pub struct Job {
    /// The name for messages.
    pub name: String,
    /// The text.
    pub code: String,
    /// True to print the values of an expression.
    pub prints: bool,
    /// Gets the result, once the chunk has ended.
    pub result: SyncSender<Result<(), String>>,
}

/// An event for the virtual machine.
pub enum Event {
    /// An object works.
    Connected(Arc<Entry>),
    /// An object could not be made.
    Failed(Arc<Entry>),
    /// An object was closed, or has ended.
    Closed(Arc<Entry>),
    /// The peer has sent a message. The number is that of the messages before it that were dropped.
    Message(Arc<Entry>, String, u64),
    /// A line about an error, for the user.
    Note(String),
    /// A line for the user.
    Line(String),
    /// A peer offers a file or a folder.
    Offer(Question),
    /// A transfer is over.
    File(Outcome),
}

/// The work of one turn of the virtual machine.
#[derive(Default)]
pub struct Turn {
    /// A chunk.
    pub job: Option<Job>,
    /// An event.
    pub event: Option<Event>,
    /// True if the machine is to end.
    pub is_over: bool,
}

/// The queue.
#[derive(Default)]
pub struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    job: Option<Job>,
    events: VecDeque<Event>,
    /// Events for which there was no room.
    num_dropped: u64,
    /// True if objects have changed since the last turn.
    is_stale: bool,
    /// True while the machine waits for work.
    is_at_rest: bool,
    /// The number of timers and coroutines that wait in the machine.
    num_waiting: usize,
    /// True while a chunk runs that the user has given up.
    is_given_up: bool,
    is_over: bool,
}

impl Mailbox {
    /// Puts a chunk in.
    ///
    /// # Errors
    /// Returns the chunk if one waits already.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if state.job.is_some() {
            return Err(job);
        }
        state.job = Some(job);
        self.changed.notify_all();
        Ok(())
    }

    /// Gives up the last chunk: one that has not begun never does, and while one runs there is no other.
    pub fn give_up(&self) {
        let mut state = self.lock();
        if state.job.take().is_none() {
            state.is_given_up = !state.is_at_rest;
        }
    }

    /// Returns true while a chunk runs that was given up.
    pub fn is_given_up(&self) -> bool {
        self.lock().is_given_up
    }

    /// Puts an event in. An event for which there is no room is dropped and counted.
    pub fn post(&self, event: Event) {
        let mut state = self.lock();
        state.is_stale = true;
        if state.events.len() < EVENTS_MAX {
            state.events.push_back(event);
        } else {
            state.num_dropped += 1;
        }
        self.changed.notify_all();
    }

    /// Has the machine look at its coroutines, because an object or a flag has changed.
    pub fn wake(&self) {
        self.lock().is_stale = true;
        self.changed.notify_all();
    }

    /// Has the machine end.
    pub fn close(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Returns true if the machine runs code, or will without another event.
    pub fn is_busy(&self) -> bool {
        let state = self.lock();
        !state.is_at_rest || state.job.is_some() || !state.events.is_empty() || state.num_waiting > 0
    }

    /// Returns true if the machine runs code.
    pub fn is_running(&self) -> bool {
        !self.lock().is_at_rest
    }

    /// Waits for work until the deadline. `num_waiting` is the number of timers and coroutines that wait.
    pub fn next(&self, deadline: Option<Instant>, num_waiting: usize) -> Turn {
        let mut state = self.lock();
        state.num_waiting = num_waiting;
        state.is_given_up = false;
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let is_due = left.is_some_and(|left| left.is_zero());
            let has_work = state.job.is_some() || !state.events.is_empty() || state.num_dropped > 0;
            if state.is_over || is_due || has_work || state.is_stale {
                (state.is_stale, state.is_at_rest) = (false, false);
                let event = state.events.pop_front().or_else(|| match std::mem::take(&mut state.num_dropped) {
                    0 => None,
                    dropped => Some(Event::Note(format!("{dropped} events were dropped, because too many waited"))),
                });
                return Turn { job: state.job.take(), event, is_over: state.is_over };
            }
            state.is_at_rest = true;
            state = match left {
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that wait at most.
const EVENTS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use std::sync::mpsc;

    #[test]
    fn events_beyond_the_limit_are_dropped_and_counted() {
        let mailbox = Mailbox::default();
        for _ in 0..EVENTS_MAX + 2 {
            mailbox.post(Event::Note(String::new()));
        }
        for _ in 0..EVENTS_MAX {
            assert!(matches!(mailbox.next(None, 0).event, Some(Event::Note(text)) if text.is_empty()));
        }
        assert!(matches!(mailbox.next(None, 0).event, Some(Event::Note(text)) if text.starts_with("2 events")));
        assert!(mailbox.next(Some(Instant::now() + Duration::from_millis(1)), 0).event.is_none());
    }

    #[test]
    fn a_chunk_that_was_given_up_does_not_run_later() {
        let mailbox = Mailbox::default();
        let job = || Job { name: String::new(), code: String::new(), prints: false, result: mpsc::sync_channel(1).0 };
        assert!(mailbox.submit(job()).is_ok());
        assert!(mailbox.next(None, 0).job.is_some());
        // It runs, and does not end.
        mailbox.give_up();
        assert!(mailbox.is_given_up());
        assert!(mailbox.submit(job()).is_ok());
        mailbox.give_up();
        assert!(mailbox.next(Some(Instant::now()), 0).job.is_none() && !mailbox.is_given_up());
    }
}
