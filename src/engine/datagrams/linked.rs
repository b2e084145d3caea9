//! Flows over links: the client, or the target, is behind a link, and a stream of datagrams is that end of the flow.
//!
//! The stream is a side without a socket, as for a connection, so the control of links opens and answers it in the same way. Its
//! datagrams are those of the session, which queues a few for a short time and drops the others.

use super::flow::{Client, Dest, Flow};
use super::handler::FlowTarget;
use super::pump::Budget;
use crate::engine::control::Request;
use crate::engine::core::Core;
use crate::engine::redirected::plain;
use crate::link::{Bound, ClientAddrs, Host, Kind, Open};
use crate::relay::io::Io;
use crate::relay::side::{Owner, Role, Side, SideState};
use crate::streams::{LinkDrops, StreamAt};
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::peer::{PeerId, PeerKey};
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::{Failure, Reason};

/// A stream that the peer of a link has opened for a flow.
pub(crate) struct Opened {
    pub at: StreamAt,
    pub endpoint: Endpoint,
    pub target: FlowTarget,
    /// The key whose quota the flow uses.
    pub key: Option<PeerKey>,
    /// The forward that the client came from.
    pub forward: Option<Id>,
    /// The addresses of the client, if the peer may tell them.
    pub told: Option<ClientAddrs>,
}

impl Core {
    /// Makes the side of a target that is reached over a link, and asks the control of links for its stream.
    pub(super) fn dest_over_link(&mut self, id: Id, request: impl FnOnce(Id) -> Request) {
        let side = Side::new(Owner::Flow(id, Role::Dest), SideState::Connecting, Io::None, Endpoint::Unknown);
        let Ok(dest) = self.sides.insert(side) else {
            let why = "the table of sides is full";
            return self.end_flow(id, Reason::LimitReached, Some(why.into()));
        };
        if let Some(flow) = self.datagrams.flows.get_mut(id) {
            flow.sides[Role::Dest as usize] = Some(dest);
        }
        self.queues.requests.push_back(request(dest));
    }

    /// Opens a flow for a stream of a peer. Returns its flow and its side, or none if there is no room.
    pub(crate) fn open_linked_flow(&mut self, opened: Opened) -> Option<(Id, Id)> {
        let Opened { at, endpoint, target, key, forward, told } = opened;
        if self.need_batch().is_err() {
            return None;
        }
        // From here on the end of the flow releases what it holds.
        let payer = key.map(|key| self.peers.charge_flow(&key, self.now_ms));
        let profile = self.profiles.of_loop();
        self.profiles.keep(profile);
        let client = Client::Stream(at, endpoint.clone());
        let mut flow = Flow::new(client, target, self.now_ms);
        told.into_iter().for_each(|told| flow.set_told(told));
        let flow = Flow { kind: "link".into(), profile, payer, listener: forward, ..flow };
        if let Some(tally) = forward.and_then(|forward| self.tallies.get_mut(&forward)) {
            tally.opened += 1;
            tally.active += 1;
        }
        let id = self.add_flow(None, PeerNetwork::Local, flow)?;
        self.datagrams.flows.set_payer(id, payer);
        let side = Side::new(Owner::Flow(id, Role::Source), SideState::Connected, Io::Stream(at), endpoint);
        let Ok(side) = self.sides.insert(side) else {
            self.end_flow(id, Reason::LimitReached, None);
            return None;
        };
        if let Some(flow) = self.datagrams.flows.get_mut(id) {
            flow.sides[Role::Source as usize] = Some(side);
        }
        Some((id, side))
    }

    /// Begins to reach the target of a flow that [`Core::open_linked_flow`] has opened.
    pub(crate) fn reach_linked_flow(&mut self, id: Id) {
        self.reach(id);
    }

    /// Tells the peer that the stream of its client leads to the target now.
    pub(super) fn accept_flow(&mut self, id: Id, at: StreamAt) {
        let local = match self.datagrams.flows.get(id).map(|flow| &flow.dest) {
            Some(Dest::Socket(socket)) => Some(socket.local()),
            _ => None,
        };
        let bound = match local {
            Some(addr) => Bound { host: Host::Addr(addr.ip()), port: addr.port(), ..Bound::default() },
            None => Bound::default(),
        };
        self.pools.sessions.answer(at, Ok(bound));
    }

    /// Gives a flow the stream to its target, which was opened just now. Its first datagrams follow the OPEN.
    pub(crate) fn flow_stream_opened(&mut self, dest: Id) {
        let Some(side) = self.sides.get(dest) else { return };
        let (Owner::Flow(id, Role::Dest), Some(at)) = (side.owner, side.io.stream()) else { return };
        let endpoint = side.endpoint.clone();
        if let Some(flow) = self.datagrams.flows.get_mut(id) {
            flow.dest = Dest::Stream(at, endpoint);
            self.send_waiting(id);
        }
    }

    /// Handles the answer of the peer to the stream of a flow.
    pub(crate) fn flow_answered(&mut self, id: Id, result: Result<(), &Failure>) {
        let now_ms = self.now_ms;
        let Some(flow) = self.datagrams.flows.get_mut(id) else { return };
        match result {
            Ok(()) => {
                flow.dial_ms = Some(u32::try_from(now_ms - flow.opened_ms).unwrap_or(u32::MAX));
                let (dest, client) = (flow.sides[Role::Dest as usize], flow.client.stream());
                if let Some(side) = dest.and_then(|dest| self.sides.get_mut(dest)) {
                    side.state = SideState::Connected;
                }
                client.into_iter().for_each(|at| self.accept_flow(id, at));
            }
            Err(failure) => {
                self.stats.connect_failures[failure.reason as usize] += 1;
                self.end_flow(id, failure.reason, failure.detail.clone());
            }
        }
    }

    /// Moves the datagrams of a stream to the other end of its flow, and ends the flow with the stream.
    pub(crate) fn run_flow_stream(&mut self, id: Id, role: Role) {
        let Some(flow) = self.datagrams.flows.get(id) else { return };
        let side = flow.sides[role as usize];
        let at = if role == Role::Source { flow.client.stream() } else { flow.dest.stream() };
        let (Some(at), Some(side)) = (at, side) else { return };
        let Some(mut batch) = self.datagrams.batch.take() else { return };
        let mut budget = Budget::new();
        while !budget.is_used_up() || batch.has_held() {
            let sessions = &mut self.pools.sessions;
            let Some((contents, segment)) = batch.join(|| sessions.receive_datagram(at)) else { break };
            budget.note_bytes(contents.len(), segment);
            match role {
                Role::Source => self.send_to_target(id, contents, segment),
                Role::Dest => self.answer_client(id, contents, segment, None),
            }
        }
        batch.drop_held();
        self.datagrams.batch = Some(batch);
        let drops = self.pools.sessions.take_datagram_drops(at);
        self.count_link_drops(id, role, drops);
        if budget.is_used_up() {
            return self.enqueue(side);
        }
        if let Some(reason) = self.pools.sessions.end_of_datagrams(at) {
            let fin = if role == Role::Source { Reason::SourceFin } else { Reason::DestFin };
            self.end_flow(id, reason.unwrap_or(fin), None);
        }
    }

    /// Counts the datagrams that the session has dropped on a stream of a flow.
    pub(super) fn count_link_drops(&mut self, id: Id, role: Role, drops: LinkDrops) {
        if drops.total() == 0 {
            return;
        }
        let Some(flow) = self.datagrams.flows.get_mut(id) else { return };
        flow.note_link_drops(role, drops);
        let association = flow.client.association();
        self.count_drops_by_reason(association, drops);
    }

    /// Counts the last drops on the streams of a flow that is over.
    pub(super) fn count_last_link_drops(&mut self, flow: &mut Flow) {
        for (role, at) in [(Role::Source, flow.client.stream()), (Role::Dest, flow.dest.stream())] {
            let Some(at) = at else { continue };
            let drops = self.pools.sessions.take_datagram_drops(at);
            flow.note_link_drops(role, drops);
            self.count_drops_by_reason(flow.client.association(), drops);
        }
    }

    fn count_drops_by_reason(&mut self, association: Option<Id>, drops: LinkDrops) {
        for (why, count) in drops.by_reason().into_iter().filter(|(_, count)| *count > 0) {
            self.stats.datagrams_dropped[why as usize] += count;
            association.into_iter().for_each(|connection| self.note_dropped(connection, why, count));
        }
    }

    /// Returns the OPEN of a flow's stream: with its target, or with the listener of the peer that its client came to.
    pub(crate) fn open_of_flow(&self, id: Id) -> Option<Open> {
        let flow = self.datagrams.flows.get(id)?;
        let timeouts = &self.profiles[flow.profile].settings.timeouts;
        let timeout_ms = u32::try_from(timeouts.connect.as_millis()).unwrap_or(0);
        let open = Open { kind: Kind::Udp, timeout_ms, source: flow.source().to_string(), ..Open::default() };
        let open = Open { client: self.addrs_of_client(flow), ..open };
        match flow.returns_to {
            Some(listener) => Some(Open { listener, ..open }),
            None => open.to(flow.asked.as_deref()?),
        }
    }

    /// Returns the addresses of a flow's client for the peer of a link; none if the client is behind a link itself.
    fn addrs_of_client(&self, flow: &Flow) -> Option<ClientAddrs> {
        let Client::Listener { owner, addr, from, reply_from } = flow.client else { return None };
        if let Some(told) = flow.told() {
            return Some(told);
        }
        let local = self.datagrams.sockets.get(&owner)?.socket.local();
        let local = reply_from.unwrap_or_else(|| (from.unwrap_or(local.ip()), local.port()).into());
        Some(ClientAddrs { client: plain(addr), local: plain(local) })
    }

    /// Sends a flow over a link to the peer that knows its target. Returns false if the flow is over.
    pub(crate) fn return_flow_over(&mut self, id: Id, link: Id, number: u32, payer: Option<PeerId>) -> bool {
        let Some(flow) = self.datagrams.flows.get_mut(id) else {
            payer.into_iter().for_each(|payer| self.peers.release_flow(payer, false, self.now_ms));
            return false;
        };
        (flow.via, flow.returns_to) = (Some(link), Some(number));
        let before = std::mem::replace(&mut flow.payer, payer);
        self.datagrams.flows.set_payer(id, payer);
        before.into_iter().for_each(|payer| self.peers.release_flow(payer, false, self.now_ms));
        true
    }

    /// Returns the link, or the group of links, that a flow goes over.
    pub(crate) fn via_of_flow(&self, id: Id) -> Option<Id> {
        self.datagrams.flows.get(id)?.via
    }

    /// Releases the streams of a flow that is over. The peer gets the reason of an end that is not one in order.
    pub(super) fn release_streams(&mut self, flow: &Flow, reason: Reason, detail: Option<&str>) {
        let is_in_order = matches!(reason, Reason::IdleTimeout | Reason::SourceFin | Reason::DestFin);
        if let Client::Stream(at, _) = flow.client {
            if flow.dial_ms.is_none() {
                let failure = Failure { reason, detail: detail.map(Into::into) };
                self.pools.sessions.answer(at, Err(Bound::of_failure(&failure)));
            } else if !is_in_order {
                self.pools.sessions.reset_for(at, reason);
            }
        }
        flow.sides.into_iter().flatten().for_each(|side| self.drop_side(side));
    }
}
