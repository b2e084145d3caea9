//! The operations on listeners, in both directions.
//!
//! LISTEN, LISTEN_RESULT and UNLISTEN may arrive twice, and in any order over different subflows. The requesting end
//! sends UNLISTEN only when the peer is known to have the LISTEN. The serving end remembers all numbers that it has
//! seen as ranges; while none is missing in between, there is only one range.
//!
//! A listener may be lost later. The serving end then sends a second LISTEN_RESULT, with a failure, and the requesting
//! end sends UNLISTEN. This requires [`Capability::ListenerLost`].

use super::listeners::{RequestedListener, ServedListener};

use super::error::{Refused, Violation};
use super::event::Event;
use super::phase::Phase;
use super::state::Session;
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::hello::Capability;
use crate::link::wire::open::{Bound, Open};

impl Session {
    /// Asks the peer to listen. Returns the number of the listener, which [`Event::ListenResult`] and the streams of
    /// the listener carry.
    pub fn listen(&mut self, open: Open) -> Result<u32, Refused> {
        if !open.is_valid() {
            return Err(Refused::TooLong);
        }
        if matches!(self.phase, Phase::Ended { .. } | Phase::Closing { .. }) {
            return Err(Refused::Closed);
        }
        if self.peer_boot.is_none() {
            return Err(Refused::NotYet);
        }
        let limit = (self.config.listeners_max).min(self.tx.peer.listeners);
        if self.requested_listeners.len() >= limit as usize {
            return Err(Refused::Limit);
        }
        let id = self.next_listener;
        self.next_listener = id.checked_add(1).ok_or(Refused::Exhausted)?;
        self.requested_listeners.insert(id, RequestedListener { open, acked: false, answered: false, removed: false });
        self.queue_control(Key::Listen(id));
        self.finish_call();
        Ok(id)
    }

    /// Ends a listener at the peer.
    pub fn unlisten(&mut self, id: u32) -> Result<(), Refused> {
        let listener = self.requested_listeners.get_mut(&id).filter(|l| !l.removed).ok_or(Refused::Gone)?;
        listener.removed = true;
        if listener.acked {
            self.queue_control(Key::Unlisten(id));
        }
        self.finish_call();
        Ok(())
    }

    /// Answers the peer's request to listen.
    pub fn listen_result(&mut self, id: u32, result: Bound) -> Result<(), Refused> {
        let listener = self.served_listeners.live.get_mut(&id).filter(|l| l.result.is_none()).ok_or(Refused::Gone)?;
        listener.result = Some(result);
        self.queue_control(Key::ListenResult(id));
        self.finish_call();
        Ok(())
    }

    /// Withdraws a listener that the peer was told it has, for the reason in `result`. The peer may request it again
    /// under another number.
    ///
    /// # Errors
    /// There is no such listener, or the peer does not have [`Capability::ListenerLost`].
    pub fn listener_lost(&mut self, id: u32, result: Bound) -> Result<(), Refused> {
        if !self.has_capability(Capability::ListenerLost) {
            return Err(Refused::Gone);
        }
        let has_it = |l: &&mut ServedListener| l.result.is_some() && !l.is_lost();
        let listener = self.served_listeners.live.get_mut(&id).filter(has_it).ok_or(Refused::Gone)?;
        let failure = Some(result.failure.unwrap_or(Code::Other));
        (listener.result, listener.result_acked) = (Some(Bound { failure, ..result }), false);
        self.queue_control(Key::ListenResult(id));
        self.finish_call();
        Ok(())
    }

    /// Returns true if the peer may still have this listener: it was requested, and no UNLISTEN was acknowledged.
    pub fn has_listener(&self, id: u32) -> bool {
        self.requested_listeners.contains_key(&id)
    }

    pub(super) fn on_listen(&mut self, id: u32, open: &Open) -> Result<(), Violation> {
        match self.served_listeners.admit(id) {
            None => return Err(Violation::Limit),
            Some(false) => return Ok(()),
            Some(true) => {}
        }
        if self.served_listeners.live.len() >= self.config.listeners_max as usize {
            return Err(Violation::Limit);
        }
        self.served_listeners.live.insert(id, ServedListener::default());
        self.push_event(Event::Listen { id, open: open.clone() });
        Ok(())
    }

    pub(super) fn on_listen_result(&mut self, id: u32, result: &Bound) -> Result<(), Violation> {
        if id >= self.next_listener {
            return Err(Violation::Stream);
        }
        // A second answer reports a lost listener; any other is a duplicate.
        let lost = result.failure.is_some() && self.has_capability(Capability::ListenerLost);
        let Some(listener) = self.requested_listeners.get_mut(&id).filter(|l| !l.answered || lost && !l.removed) else {
            return Ok(());
        };
        listener.answered = true;
        listener.acked = true;
        let gone = result.failure.is_some();
        self.push_event(Event::ListenResult { id, result: result.clone() });
        if gone {
            self.requested_listeners.get_mut(&id).into_iter().for_each(|listener| listener.removed = true);
            self.queue_control(Key::Unlisten(id));
        }
        Ok(())
    }

    pub(super) fn on_unlisten(&mut self, id: u32) -> Result<(), Violation> {
        if !self.served_listeners.has_seen(id) {
            return Err(Violation::Stream);
        }
        if let Some(listener) = self.served_listeners.live.remove(&id)
            && listener.result.is_none_or(|result| result.failure.is_none())
        {
            self.push_event(Event::Unlisten(id));
        }
        Ok(())
    }

    pub(super) fn on_listen_acked(&mut self, id: u32) {
        let Some(listener) = self.requested_listeners.get_mut(&id) else { return };
        listener.acked = true;
        if listener.removed {
            self.queue_control(Key::Unlisten(id));
        }
    }
}
