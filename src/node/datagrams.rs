//! Flows of datagrams over links: streams of the peer that become flows, and clients of a listener for the peer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::core::Core;
use crate::engine::datagrams::handler::{FlowPrefix, FlowTarget};
use crate::engine::datagrams::linked::Opened;
use crate::engine::datagrams::program::SharedFlowHandler;
use crate::link::StreamId;
use crate::streams::Slot;
use crate::types::address::{Endpoint, Target};
use crate::types::id::Id;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

use super::control::Node;
use super::open::Admitted;

impl Node {
    /// Opens a flow for a stream of datagrams that the peer has opened.
    pub(super) fn datagrams_opened(&mut self, core: &mut Core, link: Id, id: StreamId, admitted: Admitted) {
        let Some(at) = core.pools.sessions.stream_at(link, id) else { return };
        let Some(record) = core.pools.sessions.get(link) else { return };
        let name = Arc::clone(&record.name);
        let Admitted { target, permit, forward, client, .. } = admitted;
        let handler = self.taken_datagrams(link, &target);
        // A datagram to a handler of this node needs no header for a target.
        let preface = self.links.get(link).and_then(|record| record.preface.clone()).filter(|_| handler.is_none());
        let addrs = preface.as_ref().and_then(|_| client.or_else(|| self.addrs_of_peer(core, link)));
        let prefix = preface.map(|preface| catch_unwind(AssertUnwindSafe(|| preface(Proto::Udp, addrs)))).transpose();
        let Ok(prefix) = prefix.map(|bytes| bytes.map(|bytes| FlowPrefix { bytes, is_each: true })) else {
            self.panics.fetch_add(1, Ordering::Relaxed);
            let failure = Failure::new(Reason::Internal, "the first bytes for the target cannot be made");
            return self.refuse_stream(core, link, id, &failure);
        };
        let target = FlowTarget { permit, user: Some((*name).into()), prefix, handler, ..FlowTarget::new(target) };
        let key = self.links.get(link).and_then(|link| link.key);
        let opened = Opened { at, endpoint: Endpoint::Link(name, id.0), target, key, forward, told: client };
        let Some((flow, side)) = core.open_linked_flow(opened) else {
            let failure = Failure::new(Reason::LimitReached, "the table of flows is full");
            return self.refuse_stream(core, link, id, &failure);
        };
        if let Some(record) = core.pools.sessions.get_mut(link) {
            record.streams.insert(id, Slot::new(side));
        }
        core.reach_linked_flow(flow);
    }

    /// Returns the handler of a flow, if the application wants the flow. A panic is counted, and gives none.
    fn taken_datagrams(&mut self, link: Id, target: &Target) -> Option<SharedFlowHandler> {
        let record = self.links.get(link)?;
        let (takes, key) = (record.takes_datagrams.clone()?, record.key?);
        let mut takes = takes.try_borrow_mut().ok()?;
        let made = catch_unwind(AssertUnwindSafe(|| takes(&key, target)));
        self.panics.fetch_add(u64::from(made.is_err()), Ordering::Relaxed);
        made.ok().flatten()
    }

    /// Sends a flow of a listener for the peers of links to one of these.
    pub(super) fn return_flow(&mut self, core: &mut Core, dest: Id, flow: Id, shared: u32) {
        let Some((link, number)) = self.offer_of(core, shared) else {
            return core.end_flow(flow, Reason::LinkLost, None);
        };
        if let Err(failure) = self.make_room_for_flow(core, link) {
            return core.end_flow(flow, failure.reason, failure.detail);
        }
        let key = self.links.get(link).and_then(|link| link.key);
        let payer = key.map(|key| core.peers.charge_flow(&key, core.now_ms));
        if core.return_flow_over(flow, link, number, payer) {
            self.dial_stream(core, dest, link);
        }
    }
}
