//! The observer of a loop: hears of connections, listeners, links and forwards as they change.
//!
//! The core queues each [`Event`], and the [`Proxy`](crate::Proxy) delivers it when no call runs, as it does with the
//! callbacks of handlers. So the observer can use the whole loop. Without an observer nothing is queued.

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::types::forward_state::ForwardState;
use crate::types::id::Id;
use crate::types::link_state::LinkState;
use crate::types::reason::{Ending, Fault, Reason};

/// An observer of a loop; see [`Core::set_observer`].
///
/// A panic in it is counted ([`Stats::panics`](crate::Stats::panics)), and the loop and the observer go on.
pub trait Observer {
    /// Called for each event, in the order in which they happened, before the turn in which they happened ends.
    fn event(&mut self, core: &mut Loop<'_>, event: Event);
}

/// A change of one record of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A connection was accepted or adopted. Its source is connected.
    ConnectionOpened {
        /// The connection.
        connection: Id,
    },
    /// A dest of a connection is being connected.
    ConnectionConnecting {
        /// The connection.
        connection: Id,
    },
    /// The dest of a connection was connected. A connection whose handler tries several dests may report several.
    ConnectionConnected {
        /// The connection.
        connection: Id,
    },
    /// A connection is over. Its id is stale from now on.
    ConnectionEnded {
        /// The connection.
        connection: Id,
        /// The reason.
        reason: Reason,
        /// The end as the two peers see it.
        ending: Ending,
        /// The party that caused the end.
        fault: Fault,
        /// Bytes relayed from the source to the dest.
        sent: u64,
        /// Bytes relayed from the dest to the source.
        received: u64,
    },
    /// A listener was opened.
    ListenerOpened {
        /// The listener.
        listener: Id,
    },
    /// A link was made, or its state has changed. After [`LinkState::Ended`] its id is stale.
    Link {
        /// The link.
        link: Id,
        /// The new state.
        state: LinkState,
    },
    /// A forward was opened, or its state has changed. After [`ForwardState::Closed`] its id is stale.
    Forward {
        /// The forward.
        forward: Id,
        /// The new state.
        state: ForwardState,
    },
    /// A listener was closed.
    ListenerClosed {
        /// The listener.
        listener: Id,
    },
}

impl Core {
    /// Sets the observer of the loop, in place of the present one. It takes over when the running call returns.
    pub fn set_observer(&mut self, observer: Box<dyn Observer>) {
        self.queues.observer = Some(observer);
        self.is_observed = true;
    }

    /// Stops the reports to the observer. Those of events until now are still delivered.
    pub fn clear_observer(&mut self) {
        self.is_observed = false;
    }

    /// Queues an event for the observer, if there is one.
    #[inline]
    pub(crate) fn observe(&mut self, event: Event) {
        if self.is_observed {
            self.queues.events.push_back(event);
        }
    }
}
