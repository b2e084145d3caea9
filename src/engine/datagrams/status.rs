//! The status of flows as plain data.

use std::time::Duration;

use super::flow::{Flow, Moved};
use crate::engine::core::Core;
use crate::streams::{LinkDrops, Sessions};
use crate::types::id::{Id, Kind};
use crate::types::verb_error::VerbError;

/// The status of one flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowStatus {
    /// The id.
    pub id: Id,
    /// The description: front end, client and target.
    pub description: String,
    /// The name of the listener, if it is still there.
    pub listener: Option<String>,
    /// The user whom the flow belongs to.
    pub user: Option<Box<str>>,
    /// The address of the client, if it is behind a link and the peer may tell it.
    pub client: Option<String>,
    /// The time since the first datagram.
    pub age: Duration,
    /// True if the target has answered.
    pub is_answered: bool,
    /// The address of the target; none while it is not known.
    pub dialled: Option<String>,
    /// Datagrams to the target, and from it.
    pub datagrams: (u64, u64),
    /// Bytes to the target, and from it.
    pub bytes: (u64, u64),
    /// Datagrams that were dropped.
    pub dropped: u64,
}

impl Core {
    /// Returns the status of at most `max` flows, from the slot after that of `after` on, or from the first slot on.
    pub fn some_flows(&self, after: Option<Id>, max: usize) -> Vec<FlowStatus> {
        let from = after.map_or(0, |id| id.index() + 1);
        self.datagrams.flows.starting_at(from).take(max).map(|(id, flow)| self.flow_status(id, flow)).collect()
    }

    /// Returns the status of a flow.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if it is over; [`VerbError::Invalid`] if the id is not of a flow.
    pub fn flow(&self, flow: Id) -> Result<FlowStatus, VerbError> {
        let record = self.datagrams.flows.get(flow).ok_or_else(|| self.ended.missing(flow, Kind::Flow))?;
        Ok(self.flow_status(flow, record))
    }

    fn flow_status(&self, id: Id, flow: &Flow) -> FlowStatus {
        let [sent, received] = flow.delivered(&self.pools.sessions);
        let dropped =
            flow.dropped + flow.link_drops(&self.pools.sessions).iter().map(|drops| drops.total()).sum::<u64>();
        FlowStatus {
            id,
            description: flow.description(),
            listener: flow.listener.and_then(|id| self.listeners.get(id)).map(|listener| listener.name.to_string()),
            user: flow.user.clone(),
            client: flow.told_client().map(|client| client.to_string()),
            age: Duration::from_millis(self.now_ms.saturating_sub(flow.opened_ms)),
            is_answered: self.datagrams.flows.is_answered(id),
            dialled: flow.dialled().map(|endpoint| endpoint.to_string()),
            datagrams: (sent.datagrams, received.datagrams),
            bytes: (sent.bytes, received.bytes),
            dropped,
        }
    }
}

impl Flow {
    /// Returns the datagrams that were delivered to the target and from it, without those that a link has dropped.
    pub(super) fn delivered(&self, sessions: &Sessions) -> [Moved; 2] {
        let (mut delivered, drops) = ([self.sent, self.received], self.link_drops(sessions));
        delivered.iter_mut().zip(drops).for_each(|(moved, drops)| moved.take_back(drops));
        delivered
    }

    /// Returns the datagrams that links have dropped and that are not noted yet, on the way to the target and from it.
    fn link_drops(&self, sessions: &Sessions) -> [LinkDrops; 2] {
        [self.dest.stream(), self.client.stream()]
            .map(|at| at.map_or_else(Default::default, |at| sessions.datagram_drops(at)))
    }
}
