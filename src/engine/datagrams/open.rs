//! New flows: the limits, the choice of the handler, the lookup of a name, and the socket.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use mio::Token;
use socket2::{Domain, SockRef, Socket};

use super::flow::{Client, Dest, Flow, Headers, Moved};
use super::handler::{DatagramHeader, FlowRequest, FlowTarget};
use super::program::ProgramEnd;
use crate::datagrams::batch::Received;
use crate::datagrams::queue::WaitingQueue;
use crate::datagrams::socket::DatagramSocket;
use crate::datagrams::table::{FlowKey, FlowTimeouts};
use crate::engine::control::Request;
use crate::engine::core::Core;
use crate::engine::fair::Asker;
use crate::engine::limits::Family;
use crate::engine::listener::Front;
use crate::engine::profiles::Settings;
use crate::engine::redirected::{note_socket, plain};
use crate::engine::resolve::{self, Wanted};
use crate::engine::workers::Lookup;
use crate::link::ClientAddrs;
use crate::relay::dial::{Egress, Permit};
use crate::sys;
use crate::types::address::{Endpoint, Name, Target};
use crate::types::dropped::Dropped;
use crate::types::id::Id;
use crate::types::peer_network::PeerNetwork;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

impl Core {
    /// Returns the number of flows that may be opened in this turn.
    pub(super) fn flows_left(&mut self) -> usize {
        let (turn, count) = &mut self.datagrams.opened;
        if *turn != self.stats.turns {
            (*turn, *count) = (self.stats.turns, 0);
        }
        self.config.limits.accepts_per_turn.saturating_sub(*count)
    }

    /// Returns the flow of received datagrams, or opens one. Returns none if the datagrams are dropped.
    #[inline]
    pub(super) fn flow_of(&mut self, listener: Id, entry: &Received<'_>) -> Option<Id> {
        let client = self.datagrams.sockets.get(&listener)?;
        let local = client.socket.local();
        let dest = entry.original.unwrap_or_else(|| SocketAddr::new(entry.dest.unwrap_or(local.ip()), local.port()));
        let key = FlowKey { owner: listener, client: entry.source, dest };
        if let Some(flow) = self.datagrams.flows.find(&key) {
            return Some(flow);
        }
        let opened = self.open_flow(key, entry, None);
        if opened.is_none() {
            self.drop_datagrams(entry, Dropped::Refused);
        }
        opened
    }

    /// Opens a flow for the first datagram of a client.
    pub(super) fn open_flow(
        &mut self,
        key: FlowKey,
        entry: &Received<'_>,
        told: Option<(DatagramHeader, &[u8])>,
    ) -> Option<Id> {
        let id = key.owner;
        if self.is_draining() || self.datagrams.sockets.get(&id)?.is_closing {
            return None;
        }
        self.datagrams.opened.1 += 1;
        let first = &entry.contents[..entry.contents.len().min(entry.segment)];
        let original_dest = entry.original.map(plain);
        let (source, local, payload) = match told {
            Some((header, content)) => (plain(header.client), header.local.map_or(plain(key.dest), plain), content),
            None => (plain(key.client), plain(key.dest), first),
        };
        let request = FlowRequest { source, local, original_dest, payload };
        let checked = original_dest.map_or(Ok(()), |dest| self.check_redirected(source, dest));
        let (target, shared) = match checked.and_then(|()| self.choose_target(id, &request)) {
            Ok(target) => target,
            Err(failure) => {
                self.refuse_flow(id, entry.source, &failure);
                return None;
            }
        };
        let listener = self.listeners.get_mut(id)?;
        listener.accepted += 1;
        listener.active += 1;
        let (kind, profile, via) = (listener.kind.clone(), listener.profile, listener.link());
        self.profiles.keep(profile);
        let client = self.datagrams.sockets.get_mut(&id)?;
        client.flows += 1;
        let is_unicast = |ip: &IpAddr| !ip.is_multicast() && *ip != IpAddr::from([255; 4]);
        let from = entry.dest.filter(|ip| client.has_several_addresses && is_unicast(ip));
        original_dest.into_iter().for_each(|dest| client.replies.enter(dest));
        let client = Client::Listener { owner: id, addr: entry.source, from, reply_from: original_dest };
        let mut flow = Flow::new(client, target, self.now_ms);
        if told.is_some() {
            flow.set_told(ClientAddrs { client: source, local });
        }
        let network = PeerNetwork::from(flow.source().ip().unwrap_or(key.client).ip());
        let asked = flow.asked.clone().filter(|_| shared.is_none());
        let flow = Flow { kind, listener: Some(id), profile, via, asked, shared, ..flow };
        let id = self.add_flow(Some(key), network, flow)?;
        self.reach(id);
        self.datagrams.flows.get(id).map(|_| id)
    }

    /// Asks the handler of a listener for the target of a flow.
    fn choose_target(&mut self, id: Id, request: &FlowRequest<'_>) -> Result<(FlowTarget, Option<u32>), Failure> {
        let gone = || Failure::new(Reason::Other, "the listener is closed");
        let Some(Front::Datagrams(slot)) = self.listeners.get_mut(id).map(|listener| &mut listener.front) else {
            return Err(gone());
        };
        let mut handler = slot.take().ok_or_else(gone)?;
        let shared = handler.shared();
        let chosen = catch_unwind(AssertUnwindSafe(|| handler.open(self, request)));
        if let Some(Front::Datagrams(slot)) = self.listeners.get_mut(id).map(|listener| &mut listener.front) {
            slot.get_or_insert(handler);
        }
        let target = chosen.unwrap_or_else(|_| {
            self.stats.panics += 1;
            Err(Failure::new(Reason::Internal, "the front end panicked"))
        });
        Ok((target?, shared))
    }

    /// Counts and logs a flow that was refused.
    pub(super) fn refuse_flow(&mut self, id: Id, client: SocketAddr, failure: &Failure) {
        let from = Endpoint::Ip(Proto::Udp, client);
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.refused += 1;
        let name = listener.name.clone();
        if let Some(suppressed) = self.may_log_network(&from, failure.reason) {
            let detail = failure.detail.as_deref().unwrap_or("-");
            log::info!(target: super::over::TARGET, listener = &*name, from = from.to_string(), reason = failure.reason.as_str(), detail, suppressed; "flow refused");
        }
    }

    /// Adds a flow to the table, in which it may end others.
    pub(crate) fn add_flow(&mut self, key: Option<FlowKey>, source: PeerNetwork, flow: Flow) -> Option<Id> {
        while let Some(victim) = self.datagrams.flows.victim(source, self.now_ms) {
            self.end_flow(victim, Reason::LimitReached, Some("another flow needed its place".into()));
        }
        let timeouts = &self.profiles[flow.profile].settings.timeouts;
        // Many targets of an association never answer, and its flows hold no socket.
        let is_associated = flow.client.association().is_some();
        let first_answer = if is_associated { timeouts.flow_idle } else { timeouts.first_answer };
        let timeouts = FlowTimeouts {
            first_answer_ms: first_answer.as_millis() as u64,
            idle_ms: timeouts.flow_idle.as_millis() as u64,
        };
        self.stats.flows_opened += 1;
        let added = self.datagrams.flows.insert(key, source, timeouts, flow, self.now_ms);
        let id = added.map_err(|flow| self.release_flow(None, flow, Reason::LimitReached, None)).ok()?;
        log::debug!(target: super::over::TARGET, id = id.to_string(); "flow opened");
        Some(id)
    }

    /// Begins to reach the target of a flow.
    pub(super) fn reach(&mut self, id: Id) {
        let Some(flow) = self.datagrams.flows.get(id) else { return };
        if matches!(flow.dest, Dest::Program(_)) {
            return self.program_reached(id);
        }
        if let Some(shared) = flow.shared {
            return self.dest_over_link(id, |dest| Request::ReturnFlow { dest, flow: id, shared });
        }
        let (target, via) = (flow.asked.clone(), flow.via);
        if let Some(link) = via {
            if flow.permit.is_some() {
                let why = "a rule needs the address of the target, which only the far end of the link knows";
                return self.end_flow(id, Reason::NotPermitted, Some(why.into()));
            }
            return self.dest_over_link(id, |dest| Request::OpenStream { dest, link });
        }
        let Some(target) = target else { return };
        match &*target {
            Target::Ip(_, addr) => self.connect_flow(id, &[*addr]),
            Target::Name(_, name, _) => match flow.address {
                Some(address) => self.flow_resolved(id, &Ok(vec![address.ip()]), false),
                None => self.want_name_for_flow(id, name),
            },
            Target::Unix(_) | Target::End(_) => {
                let why = "datagrams are sent to addresses only";
                self.end_flow(id, Reason::NotPermitted, Some(why.into()));
            }
        }
    }

    fn want_name_for_flow(&mut self, id: Id, name: &Name) {
        if let Some((ip, zone)) = name.zoned() {
            let lacks = || Failure::new(Reason::NameResolutionFailure, format!("this host has no interface {zone}"));
            let found = sys::interface_index(zone).map(|_| vec![ip.into()]).ok_or_else(lacks);
            return self.flow_resolved(id, &found, false);
        }
        let asker = self.asker_of_flow(id);
        let (flows, now_ms) = (&self.datagrams.flows, self.now_ms);
        match self.resolver.want(name, id, asker, now_ms, |id| flows.get(id).is_some()) {
            Wanted::Waits => {}
            Wanted::Known(addresses) => self.flow_resolved(id, &Ok(addresses), true),
            Wanted::LookUp(is_answered) => {
                self.stats.lookups += 1;
                let patience = self.settings_of_flow(id).timeouts.connect;
                let lookup = Lookup::new(name.clone(), patience, Arc::clone(&self.mailbox), is_answered);
                if self.workers.as_ref().map(|workers| workers.look_up(asker, lookup)) != Some(Ok(())) {
                    self.resolver.refused(name, id, asker);
                    let failure = Failure::new(Reason::LimitReached, "too many names are being looked up");
                    self.flow_resolved(id, &Err(failure), false);
                }
            }
        }
    }

    fn asker_of_flow(&mut self, id: Id) -> Asker {
        let Some(flow) = self.datagrams.flows.get(id) else { return Asker::Own };
        if let Some(peer) = flow.payer.and_then(|payer| self.peers.get_mut(payer)) {
            return Asker::Key(*peer.key());
        }
        match flow.source() {
            endpoint @ Endpoint::Ip(..) => Asker::Network((&endpoint).into()),
            _ => Asker::Own,
        }
    }

    fn settings_of_flow(&self, id: Id) -> &Settings {
        let profile = self.datagrams.flows.get(id).map_or(self.profiles.of_loop(), |flow| flow.profile);
        &self.profiles[profile].settings
    }

    /// Handles the result of the lookup of a flow's name.
    pub(crate) fn flow_resolved(&mut self, id: Id, found: &Result<Vec<IpAddr>, Failure>, from_cache: bool) {
        let settings = self.settings_of_flow(id);
        let family = match settings.egress.as_ref().and_then(|egress| egress.source) {
            Some(IpAddr::V4(_)) => Family::OnlyIpv4,
            Some(IpAddr::V6(_)) => Family::OnlyIpv6,
            None => settings.family,
        };
        let count_max = self.config.limits.addresses_per_name;
        let Some(flow) = self.datagrams.flows.get_mut(id).filter(|flow| matches!(flow.dest, Dest::Waiting)) else {
            self.stats.stale += 1;
            return;
        };
        let addresses = match found {
            Ok(addresses) => addresses,
            Err(failure) => return self.end_flow(id, failure.reason, failure.detail.clone()),
        };
        flow.is_from_cache = from_cache;
        let mut ordered = resolve::order(
            addresses,
            flow.asked.as_ref().and_then(|asked| asked.port()).unwrap_or(0),
            family,
            count_max,
        );
        if let Some(Target::Name(_, name, _)) = flow.asked.as_deref()
            && let Some(zone) = name.zoned().and_then(|(_, zone)| sys::interface_index(zone))
        {
            ordered.iter_mut().for_each(|addr| {
                if let SocketAddr::V6(addr) = addr {
                    addr.set_scope_id(zone);
                }
            });
        }
        if ordered.is_empty() {
            let why = "no address of a permitted family";
            return self.end_flow(id, Reason::NameResolutionFailure, Some(why.into()));
        }
        if let Some(permit) = flow.permit.clone() {
            ordered.retain(|addr| asks(&permit, *addr));
            if ordered.is_empty() {
                return self.end_flow(id, Reason::NotPermitted, Some("a rule forbids its addresses".into()));
            }
        }
        self.connect_flow(id, &ordered);
    }

    /// Connects the socket of a flow to the first of these addresses that has a route.
    fn connect_flow(&mut self, id: Id, addresses: &[SocketAddr]) {
        let Some(flow) = self.datagrams.flows.get(id) else { return };
        let (client, is_associated) = (flow.source(), flow.client.association().is_some());
        let source = client.ip().map(|addr| addr.ip());
        let egress = self.settings_of_flow(id).egress.clone();
        let egress = egress.map(|egress| if egress.transparent { Rc::new(egress.of_client(source)) } else { egress });
        // While connections wait for descriptors, a new flow takes none but that of another flow.
        if self.descriptors.since_ms.is_some() && !is_associated {
            self.end_waiting_flow();
        }
        let mut failure = None;
        for addr in addresses {
            let is_one_of_several = addresses.len() > 1;
            let connect = |core: &mut Core| match is_associated {
                true => core.share_socket(id, *addr, egress.as_deref(), is_one_of_several),
                false => core.connected(id, *addr, egress.as_deref()),
            };
            let mut connected = connect(self);
            let has_room = |core: &mut Core| match is_associated {
                true => core.end_flow_for_association(PeerNetwork::from(&client)),
                false => core.end_waiting_flows(),
            };
            if connected.as_ref().is_err_and(sys::is_out_of_own_descriptors) && has_room(self) {
                connected = connect(self);
            }
            match connected {
                Ok(dest) => return self.flow_connected(id, dest),
                Err(error) if sys::is_out_of_descriptors(&error) => {
                    let limit = Failure::new(Reason::LimitReached, format!("no descriptor is left: {error}"));
                    if !is_associated {
                        self.descriptors_short();
                    }
                    return self.end_flow(id, limit.reason, limit.detail);
                }
                Err(error) => {
                    let one = Failure::of_connect(&error, *addr, egress.as_deref()).about(*addr);
                    failure = Some(Failure::worse(failure, one));
                }
            }
        }
        let failure = failure.unwrap_or(Reason::NameResolutionFailure.into());
        self.forget_name_of_flow(id);
        self.end_flow(id, failure.reason, failure.detail);
    }

    /// Connects the socket of a flow to an address.
    fn connected(&self, id: Id, addr: SocketAddr, egress: Option<&Egress>) -> io::Result<Dest> {
        let mut socket = connected(addr, egress, self.config.mark)?;
        socket.register(&self.registry, Token(id.to_u64() as usize))?;
        Ok(Dest::Socket(socket))
    }

    /// Gives a flow the way to its target, and sends what has waited for it.
    pub(crate) fn flow_connected(&mut self, id: Id, dest: Dest) {
        let now_ms = self.now_ms;
        if matches!(dest, Dest::Socket(_)) {
            self.datagrams.flows.set_socket(id);
        }
        let Some(flow) = self.datagrams.flows.get_mut(id) else { return };
        if let Dest::Socket(socket) = &dest {
            flow.own_socket = note_socket(socket.local(), socket.peer());
        }
        flow.dest = dest;
        let client = flow.client.stream();
        flow.dial_ms = Some(u32::try_from(now_ms - flow.opened_ms).unwrap_or(u32::MAX));
        client.into_iter().for_each(|at| self.accept_flow(id, at));
        self.send_waiting(id);
    }

    /// Drops the cached addresses of a flow's name, because they did not work.
    pub(super) fn forget_name_of_flow(&mut self, id: Id) {
        let target = self.datagrams.flows.get(id).and_then(|flow| flow.asked.clone());
        if let Some(Target::Name(_, name, _)) = target.as_deref() {
            self.resolver.forget(name);
        }
    }
}

impl Flow {
    /// Makes a flow that has no way to its target yet.
    pub(crate) fn new(client: Client, target: FlowTarget, now_ms: u64) -> Flow {
        let FlowTarget { target, permit, address, user, lease, prefix, handler } = target;
        let headers = prefix.map(|prefix| Box::new(Headers { told: None, prefix: Some(prefix) }));
        let asked = match target.proto() {
            Proto::Udp => target,
            Proto::Tcp => Rc::new(Target::clone(&target).with_proto(Proto::Udp)),
        };
        Flow {
            client,
            dest: handler.map_or(Dest::Waiting, |handler| Dest::Program(ProgramEnd(handler))),
            kind: "udp".into(),
            listener: None,
            profile: 0,
            asked: Some(asked),
            permit,
            address,
            is_from_cache: false,
            via: None,
            shared: None,
            returns_to: None,
            sides: [None; 2],
            own_socket: None,
            user,
            payer: None,
            lease,
            headers,
            waiting: WaitingQueue::default(),
            sent: Moved::default(),
            received: Moved::default(),
            settled: Default::default(),
            dropped: 0,
            answered_ms: now_ms,
            opened_ms: now_ms,
            dial_ms: None,
        }
    }

    /// Returns true if the client of the flow uses the socket of this listener.
    pub(super) fn is_of(&self, listener: Id) -> bool {
        matches!(self.client, Client::Listener { owner, .. } if owner == listener)
    }
}

/// Makes a socket that is connected to an address.
pub(super) fn connected(addr: SocketAddr, egress: Option<&Egress>, mark: u32) -> io::Result<DatagramSocket> {
    let socket = outgoing_socket(addr, egress, mark, false)?;
    socket.connect(&addr.into())?;
    DatagramSocket::connected(socket, addr)
}

/// Makes a socket for datagrams to an address, or to all addresses of its family. `is_bound` gives it a source port at once.
pub(super) fn outgoing_socket(
    addr: SocketAddr,
    egress: Option<&Egress>,
    mark: u32,
    is_bound: bool,
) -> io::Result<Socket> {
    let socket = sys::datagram_socket(Domain::for_address(addr))?;
    let mark = egress.and_then(|egress| egress.mark).unwrap_or(mark);
    if mark != 0 {
        sys::set_mark(SockRef::from(&socket), mark)?;
    }
    if let Some(interface) = egress.and_then(|egress| egress.interface.as_ref()) {
        sys::bind_to_interface(&socket, interface)?;
    }
    let from = egress.and_then(|egress| egress.bind_address(addr));
    if let Some(from) = from.filter(|from| from.is_ipv4() != addr.is_ipv4()) {
        let why = format!("the source address {} is of the other address family", from.ip());
        return Err(io::Error::new(io::ErrorKind::NetworkUnreachable, why));
    }
    if from.is_some() && egress.is_some_and(|egress| egress.transparent) {
        sys::set_transparent(SockRef::from(&socket), addr.is_ipv6())?;
    }
    let any = || Egress { port: Some(0), ..Egress::default() }.bind_address(addr);
    if let Some(from) = from.or_else(|| is_bound.then(any).flatten()) {
        socket.bind(&from.into())?;
    }
    Ok(socket)
}

/// Asks a rule about an address. A rule that panics forbids the address.
fn asks(permit: &Permit, addr: SocketAddr) -> bool {
    catch_unwind(AssertUnwindSafe(|| permit(addr))).unwrap_or(false)
}
