//! Flows of datagrams over links: streams of the peer that become flows, and clients of a listener for the peer.

use std::sync::Arc;

use crate::engine::core::Core;
use crate::engine::datagrams::handler::FlowTarget;
use crate::engine::datagrams::linked::Opened;
use crate::link::StreamId;
use crate::streams::Slot;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::control::Node;
use super::open::Admitted;

impl Node {
    /// Opens a flow for a stream of datagrams that the peer has opened.
    pub(super) fn datagrams_opened(&mut self, core: &mut Core, link: Id, id: StreamId, admitted: Admitted) {
        let Some(at) = core.pools.sessions.stream_at(link, id) else { return };
        let Some(record) = core.pools.sessions.get(link) else { return };
        let name = Arc::clone(&record.name);
        let Admitted { target, permit, forward, .. } = admitted;
        let target = FlowTarget { permit, user: Some((*name).into()), ..FlowTarget::new(target) };
        let key = self.links.get(link).and_then(|link| link.key);
        let payer = key.map(|key| core.peers.charge(&key, core.now_ms));
        let opened = Opened { at, endpoint: Endpoint::Link(name, id.0), target, payer, forward };
        let Some((flow, side)) = core.open_linked_flow(opened) else {
            let failure = Failure::new(Reason::LimitReached, "the table of flows is full");
            return self.refuse_stream(core, link, id, &failure);
        };
        if let Some(record) = core.pools.sessions.get_mut(link) {
            record.streams.insert(id, Slot::new(side));
        }
        core.reach_linked_flow(flow);
    }

    /// Sends a flow of a listener for the peers of links to one of these.
    pub(super) fn return_flow(&mut self, core: &mut Core, dest: Id, flow: Id, shared: u32) {
        let Some((link, number)) = self.offer_of(core, shared) else {
            return core.end_flow(flow, Reason::LinkLost, None);
        };
        if self.has_its_share(core, link, true) {
            return core.end_flow(flow, Reason::LimitReached, Some("the peer has its share of the flows".into()));
        }
        let key = self.links.get(link).and_then(|link| link.key);
        let payer = key.map(|key| core.peers.charge(&key, core.now_ms));
        if core.return_flow_over(flow, link, number, payer) {
            self.dial_stream(core, dest, link);
        }
    }
}
