//! The end of a loop: a drain waits for the established connections, a stop ends them.
//!
//! ```text
//!   No --drain--> Draining --stop, or the drain's time is over--> Now --the peers of links know, or a moment--> the end
//!                     +---------- the last connection and the last link are over --------------------------------^
//! ```
//! Neither blocks: the loop runs turns until it is done. Only the reap frees records.

use std::time::Duration;

use crate::engine::control::Request;
use crate::engine::core::{Core, OneOff};
use crate::relay::connection::Stage;
use crate::types::reason::Reason;

/// The progress of a loop towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    No,
    /// Nothing new is accepted.
    Draining {
        since_ms: u64,
    },
    /// The loop ends with this turn, or when the peers of links have been told, at this time at the latest.
    Now {
        until_ms: u64,
    },
}

impl Core {
    /// Closes all listeners. The system refuses the clients in their backlogs. The forwards that this node listens for are
    /// closed before the loop goes on, and their connections go on. A server goes on with the peers that it has accepted.
    pub fn close_listeners(&mut self) {
        let listeners = self.listeners.ids();
        if !listeners.is_empty() {
            self.queues.requests.push_back(Request::ListenersClosed);
        }
        listeners.into_iter().for_each(|listener| self.close_listener(listener));
    }

    /// Accepts no more, and stops when the last connection is over, or after `timeout`, whichever comes first; at once if
    /// `timeout` is zero. Connections that only wait for another request are closed.
    pub fn drain(&mut self, timeout: Duration) {
        self.stopping = Stopping::Draining { since_ms: self.now_ms };
        self.datagrams.flows.set_idle_max(Some(DRAIN_IDLE_MS));
        self.close_listeners();
        self.queues.requests.push_back(Request::AnnounceDrain);
        self.drain_associations();
        for connection in self.connections.ids() {
            if self.stage(connection) == Some(Stage::KeepAlive) {
                self.close(connection, Reason::Drained);
            }
        }
        if timeout.is_zero() {
            self.stop();
        } else {
            let wait_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            self.one_offs.push(self.now_ms.saturating_add(wait_ms), OneOff::Drained);
        }
    }

    /// Ends the loop as another thread has asked. A loop that has been stopped goes on with that.
    pub(crate) fn finish(&mut self, timeout: Duration) {
        if !matches!(self.stopping, Stopping::Now { .. }) {
            self.drain(timeout);
        }
    }

    /// Returns true if the loop is stopping, so that nothing new should begin.
    pub fn is_draining(&self) -> bool {
        self.stopping != Stopping::No
    }

    /// Ends all connections, and the loop with this turn; or a moment later, if peers of links must be told.
    pub fn stop(&mut self) {
        if !matches!(self.stopping, Stopping::Now { .. }) {
            let until_ms = self.now_ms + CLOSE_NOTICE_MS;
            self.stopping = Stopping::Now { until_ms };
            self.one_offs.push(until_ms, OneOff::Drained);
        }
        self.close_listeners();
        for connection in self.connections.ids() {
            self.close(connection, Reason::Drained);
        }
        for flow in self.datagrams.flows.ids() {
            self.end_flow(flow, Reason::Drained, None);
        }
    }

    /// Returns true if there is neither a connection nor a flow.
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.len() == 0 && self.datagrams.flows.len() == 0
    }

    /// Returns true if the loop has come to its end. A link that is not over delays it.
    pub(crate) fn is_done(&self, has_links: impl FnOnce() -> bool) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Draining { .. } => self.is_empty() && !has_links(),
            Stopping::Now { until_ms } => !has_links() || self.now_ms >= until_ms,
        }
    }
}

/// Idle time after which a flow of datagrams is over while the loop drains: nothing tells that it is, and its own idle timer
/// would delay each drain.
const DRAIN_IDLE_MS: u64 = 2_000;
/// Time for the notice to the peers of links. A peer that does not get it keeps its connections until its hold time is over.
const CLOSE_NOTICE_MS: u64 = 1_000;
