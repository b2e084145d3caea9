//! The delivery of events of links to the callbacks of their links.
//!
//! A callback gets the loop and may change it, so it can cause further events, also of its own link and of links that share
//! the callback. A callback is never called inside a callback: such events wait in one queue of the loop, and the end of the
//! turn delivers those that wait by then.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::types::id::Id;

use super::accept::TARGET;
use super::config::LinkEvent;
use super::control::Node;
use super::link::Callback;
use super::link_event::fingerprint;

/// The most events that wait. A callback causes more of them only if it makes and closes links without end.
const WAITING_EVENTS_MAX: usize = 8192;

/// The events that wait until no callback runs.
#[derive(Default)]
pub(crate) struct LinkEvents {
    waiting: VecDeque<(Id, Callback, LinkEvent)>,
    /// A callback runs.
    running: bool,
}

impl LinkEvents {
    /// Returns true if an event waits.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Node {
    /// Reports an event of a link to the callback of its events: at once, or after the events that wait already.
    pub(crate) fn tell(&mut self, core: &mut Core, id: Id, event: &LinkEvent) {
        let Some(link) = self.links.get(id) else { return };
        log::debug!(
            target: TARGET, link = id.to_string(), peer = core.pools.sessions.name(id), event = event.as_str(),
            key = fingerprint(event.key()), detail = event.to_string(); "link"
        );
        let Some(callback) = link.watch.clone() else { return };
        if !self.events.running && !self.events.is_waiting() {
            return self.call_back(core, id, &callback, event);
        }
        if self.events.waiting.len() < WAITING_EVENTS_MAX {
            self.events.waiting.push_back((id, callback, event.clone()));
        } else {
            log::warn!(target: TARGET, link = id.to_string(), event = event.as_str(); "too many events wait");
        }
    }

    /// Delivers the events that wait now. Events that these cause wait for the next turn.
    pub(crate) fn tell_waiting(&mut self, core: &mut Core) {
        for _ in 0..self.events.waiting.len() {
            let Some((id, callback, event)) = self.events.waiting.pop_front() else { break };
            self.call_back(core, id, &callback, &event);
        }
    }

    /// Calls a callback. A panic of it is counted, and the link goes on.
    fn call_back(&mut self, core: &mut Core, id: Id, callback: &Callback, event: &LinkEvent) {
        // No callback runs, so none is borrowed.
        let Ok(mut callback) = callback.try_borrow_mut() else { return };
        self.events.running = true;
        let result = catch_unwind(AssertUnwindSafe(|| callback(&mut Loop::new(core, self), id, event)));
        self.events.running = false;
        core.stats.panics += u64::from(result.is_err());
    }
}
