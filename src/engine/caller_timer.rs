//! Timers of callers: functions that the loop runs after a time.
//!
//! Each timer runs once, and can be cancelled before. A cancelled timer leaves nothing behind, so timers that are set and
//! cancelled again and again take no memory.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::types::id::{Id, Kind, Table};
use crate::types::verb_error::VerbError;

/// The function of a timer.
pub(crate) type Callback = Box<dyn FnOnce(&mut Loop<'_>)>;

/// The timers of callers of one loop.
pub(crate) struct CallerTimers {
    table: Table<(u64, Callback)>,
    /// The deadlines in milliseconds since the start of the loop, in order.
    order: BTreeSet<(u64, Id)>,
}

impl Core {
    /// Runs `callback` after `time`, outside of all other calls. It never runs early, and late only if the turn is long or
    /// has run [`Limits::callbacks_per_turn`](crate::Limits::callbacks_per_turn) timers. A panic in it is counted. A timer
    /// does not keep a loop running.
    ///
    /// # Errors
    /// [`VerbError::Full`] beyond [`Limits::timers`](crate::Limits::timers).
    pub fn after(&mut self, time: Duration, callback: impl FnOnce(&mut Loop<'_>) + 'static) -> Result<Id, VerbError> {
        // The time of the turn may be in the past, and truncated.
        let due = self.age().saturating_add(time).as_micros().div_ceil(1000);
        let due_ms = u64::try_from(due).unwrap_or(u64::MAX);
        let timers = &mut self.caller_timers;
        let id = timers.table.insert((due_ms, Box::new(callback))).map_err(|_| VerbError::Full)?;
        timers.order.insert((due_ms, id));
        Ok(id)
    }

    /// Cancels a timer. Its callback is dropped.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if the timer has run or was cancelled, and [`VerbError::Invalid`] if the id is of another kind.
    pub fn cancel(&mut self, id: Id) -> Result<(), VerbError> {
        let (due_ms, _) = self.caller_timers.table.remove(id).ok_or_else(|| self.ended.missing(id, Kind::Timer))?;
        self.caller_timers.order.remove(&(due_ms, id));
        Ok(())
    }
}

impl CallerTimers {
    pub fn new(capacity: usize) -> CallerTimers {
        CallerTimers { table: Table::new(Kind::Timer, capacity), order: BTreeSet::new() }
    }

    pub fn next_ms(&self) -> Option<u64> {
        self.order.first().map(|(due_ms, _)| *due_ms)
    }

    /// Removes a timer that is due, and returns its function.
    pub fn expire(&mut self, now_ms: u64) -> Option<Callback> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let (_, id) = self.order.pop_first()?;
        self.table.remove(id).map(|(_, callback)| callback)
    }
}
