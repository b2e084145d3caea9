//! Associations: a client that sends datagrams to many targets from one socket, each with a header that names its target, as
//! SOCKS5 has them (RFC 1928, section 7).
//!
//! ```text
//!                 +--> flow of target A --\
//!   client socket +--> flow of target B ---> one socket for each address family --> targets
//!                 +--> flow of target C --/
//! ```
//! An association belongs to a connection and ends with it. Each target is a flow, so the limits, the timers and the lookup of
//! names are those of flows. All flows of an association send from one socket for each address family, so that targets see one
//! address of the client (endpoint-independent mapping, RFC 4787, section 4.1), or over a link, where each has a stream.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use mio::Token;
use socket2::Domain;

use super::flow::{Client, Dest, Flow, Moved};
use super::handler::{FlowPrefix, FlowTarget};
use super::open::{connected, outgoing_socket};
use crate::datagrams::batch::Received;
use crate::datagrams::socket::DatagramSocket;
use crate::engine::connection_view::ConnectionMut;
use crate::engine::core::Core;
use crate::engine::redirected::{OwnSocket, note_socket, plain};
use crate::link::ClientAddrs;
use crate::relay::connection::Stage;
use crate::relay::dial::Egress;
use crate::sys;
use crate::types::address::{Endpoint, Target};
use crate::types::dropped::Dropped;
use crate::types::id::Id;
use crate::types::peer_network::PeerNetwork;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

/// Reads and writes the headers of the datagrams of one association, and decides about its targets.
///
/// A panic ends the connection of the association.
pub trait AssociationHandler {
    /// Parses the header at the start of a client's datagram. Returns the target and the length of the header. A header is
    /// complete in itself: datagrams that begin with the same header have the same target.
    ///
    /// # Errors
    /// The reason for which the datagram is dropped.
    fn parse<'a>(&mut self, datagram: &'a [u8]) -> Result<(DatagramPeer<'a>, usize), Dropped>;

    /// Writes the header of a datagram to the client. Returns its length.
    fn write(&mut self, from: DatagramPeer<'_>, header: &mut [u8; DATAGRAM_HEADER_BYTES_MAX]) -> usize;

    /// Decides about a target that the client has sent no datagram to, or none for a while.
    ///
    /// # Errors
    /// Fails if the client may not send there: the datagram is dropped and counted.
    fn open(&mut self, core: &mut Core, target: Target) -> Result<FlowTarget, Failure>;
}

/// The target of a datagram, or its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramPeer<'a> {
    /// An address.
    Ip(SocketAddr),
    /// A host name and a port.
    Name(&'a str, u16),
}

/// The longest header of a datagram of an association.
pub const DATAGRAM_HEADER_BYTES_MAX: usize = 262;

/// Sockets of one association, each of which takes the place of a flow: that of the client, and those for IPv4 and IPv6.
const SOCKETS_MAX: usize = 3;
/// Flows of one association whose targets have the same address. An answer of that address may be for each of them.
pub(crate) const ALIASES_MAX: usize = 8;
/// A byte for the kind, the port and the scope of an address.
const TARGET_KEY_FIXED_BYTES: usize = 7;
const TARGET_KEY_BYTES_MAX: usize = TARGET_KEY_FIXED_BYTES + 255;

/// The options of an association.
pub struct Associate {
    /// Reads and writes the headers.
    pub handler: Box<dyn AssociationHandler>,
    /// The address of the client; none if the first datagram may come from any address. Later ones come from the address and
    /// the port of the first.
    pub client: Option<IpAddr>,
    /// The port of the client, if it is known.
    pub port: Option<u16>,
    /// Datagrams of any host pass to the client, and not only those of hosts that it has sent to.
    pub is_open: bool,
}

/// Makes the bytes in front of the content of datagrams to a target, from the address that the client sends from and the one that it
/// sends to; none if there are none.
pub type MakeFlowPrefix = Rc<dyn Fn(&Target, ClientAddrs) -> Option<FlowPrefix>>;

/// An association.
pub(crate) struct Association {
    /// None while a call of it runs.
    pub handler: Option<Box<dyn AssociationHandler>>,
    /// The socket of the client, and those for targets of IPv4 and of IPv6.
    client_socket: Id,
    target_sockets: [Option<Id>; 2],
    /// The address of the client, once it is known.
    pub client: Option<SocketAddr>,
    expected: (Option<IpAddr>, Option<u16>),
    pub is_open: bool,
    /// The address of the connection's client.
    source: Endpoint,
    /// The flows, by the keys of their targets.
    flows: HashMap<Box<[u8]>, Id>,
    /// The flows of each address that the client has sent to, and the number of flows of each host. An address has several flows if
    /// the client knows it by several names, at most [`ALIASES_MAX`].
    peers: HashMap<SocketAddr, Vec<Id>>,
    hosts: HashMap<IpAddr, usize>,
    /// Makes what stands in front of datagrams to a target.
    prefix: Option<MakeFlowPrefix>,
    pub totals: AssociationTotals,
}

/// The sums of an association.
#[derive(Clone, Debug, Default)]
pub(crate) struct AssociationTotals {
    pub sent: Moved,
    pub received: Moved,
    pub dropped: [u64; Dropped::ALL.len()],
    /// The first target that was refused, and why.
    pub refusal: Option<Box<str>>,
}

/// A socket of an association.
pub(crate) struct AssociationSocket {
    pub connection: Id,
    pub socket: DatagramSocket,
    /// The client sends to it, and not a target.
    pub is_client: bool,
    /// The record by which redirected datagrams of this process are known.
    pub own_socket: Option<Box<OwnSocket>>,
}

impl ConnectionMut<'_> {
    /// Makes the connection the control connection of an association: the client of the connection sends datagrams to the
    /// returned address, until the connection ends. Bytes of the connection are the handler's.
    ///
    /// # Errors
    /// Fails if the connection is over or has a dest or an association, if its client has not connected to an IP address of
    /// this host, or if there is no socket.
    pub fn associate(&mut self, options: Associate) -> Result<SocketAddr, Failure> {
        self.check_open().map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
        let id = self.id();
        let core: &mut Core = self.core();
        let opened = core.open_association(id, options);
        if opened.is_ok() {
            core.set_stage(id, Stage::Established);
        }
        opened
    }

    /// Returns true if the connection has an association.
    pub fn has_association(&mut self) -> bool {
        let id = self.id();
        self.core().datagrams.associations.contains_key(&id)
    }

    /// Sets what stands in front of the content of datagrams to the targets of the association, such as headers of the PROXY
    /// protocol. Targets that have a flow already go on without it. Does nothing if there is no association.
    pub fn set_flow_prefix(&mut self, prefix: MakeFlowPrefix) {
        let id = self.id();
        if let Some(association) = self.core().datagrams.associations.get_mut(&id) {
            association.prefix = Some(prefix);
        }
    }
}

impl Core {
    fn open_association(&mut self, id: Id, options: Associate) -> Result<SocketAddr, Failure> {
        let record = self.connections.get(id).ok_or(Reason::Internal)?;
        if record.dest.is_some() || record.is_association {
            return Err(Failure::new(Reason::Internal, "the connection has a dest or an association"));
        }
        let side = self.sides.get(record.source).ok_or(Reason::Internal)?;
        let (source, local) = (side.endpoint.clone(), side.io.local().ip().map(plain));
        let why = "datagrams need a client that has connected to an IP address of this host";
        let mut local = local.ok_or_else(|| Failure::new(Reason::Other, why))?;
        local.set_port(0);
        let network = PeerNetwork::from(&source);
        if !self.datagrams.flows.hold(network, SOCKETS_MAX) {
            let why = "the associations of the client, or of all clients, have their share of --udp-flows";
            return Err(Failure::new(Reason::LimitReached, why));
        }
        while let Some(victim) = self.datagrams.flows.excess(network, self.now_ms) {
            self.end_flow(victim, Reason::LimitReached, Some("an association needed its place".into()));
        }
        let mut opened = self.bind_association(id, local);
        if opened.as_ref().is_err_and(sys::is_out_of_own_descriptors) && self.end_flow_for_association(network) {
            opened = self.bind_association(id, local);
        }
        let (client_socket, bound) = opened.map_err(|error| {
            self.datagrams.flows.release(network, SOCKETS_MAX);
            match sys::is_out_of_descriptors(&error) {
                true => Failure::new(Reason::LimitReached, format!("no descriptor is left: {error}")),
                false => Failure::from(&error),
            }
        })?;
        let source = source.ip().map_or(source, |addr| Endpoint::Ip(Proto::Udp, addr));
        let association = Association {
            handler: Some(options.handler),
            client_socket,
            target_sockets: [None; 2],
            client: None,
            expected: (options.client.map(|ip| ip.to_canonical()), options.port),
            is_open: options.is_open,
            source,
            flows: HashMap::new(),
            peers: HashMap::new(),
            hosts: HashMap::new(),
            prefix: None,
            totals: AssociationTotals::default(),
        };
        self.datagrams.associations.insert(id, association);
        self.connections.get_mut(id).into_iter().for_each(|record| record.is_association = true);
        self.stats.associations_opened += 1;
        log::debug!(target: super::over::TARGET, id = id.to_string(), bound = bound.to_string(); "association opened");
        Ok(bound)
    }

    /// Opens the socket that the client of an association sends to.
    fn bind_association(&mut self, connection: Id, local: SocketAddr) -> io::Result<(Id, SocketAddr)> {
        self.need_batch()?;
        let socket = sys::datagram_socket(Domain::for_address(local))?;
        if local.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&local.into())?;
        let socket = DatagramSocket::shared(socket)?;
        let bound = socket.local();
        Ok((self.hold_association_socket(connection, socket, true)?, bound))
    }

    fn hold_association_socket(&mut self, connection: Id, socket: DatagramSocket, is_client: bool) -> io::Result<Id> {
        let full = || io::Error::other("too many sockets of associations");
        let own_socket = note_socket(socket.local(), None);
        let record = AssociationSocket { connection, socket, is_client, own_socket };
        let id = self.datagrams.association_sockets.insert(record).map_err(|_| full())?;
        let record = self.datagrams.association_sockets.get_mut(id).ok_or_else(full)?;
        if let Err(error) = record.socket.register(&self.registry, Token(id.to_u64() as usize)) {
            self.datagrams.association_sockets.remove(id);
            return Err(error);
        }
        Ok(id)
    }

    /// Returns the association of the flow's client with the socket for an address, which it opens if need be. If there are
    /// several addresses, one without a route fails.
    pub(super) fn share_socket(
        &mut self,
        flow: Id,
        addr: SocketAddr,
        egress: Option<&Egress>,
        is_one_of_several: bool,
    ) -> io::Result<Dest> {
        let addr = plain(addr);
        let gone = || io::Error::other("the association is over");
        let connection = self.datagrams.flows.get(flow).and_then(|flow| flow.client.association()).ok_or_else(gone)?;
        if is_one_of_several {
            connected(addr, egress, self.config.mark)?;
        }
        let family = usize::from(addr.is_ipv6());
        let association = self.datagrams.associations.get(&connection).ok_or_else(gone)?;
        let aliases = association.peers.get(&addr).filter(|flows| flows.len() >= ALIASES_MAX);
        if let Some(oldest) = aliases.and_then(|flows| flows.first().copied()) {
            let why = "another name of its target's address needed its place";
            self.end_flow(oldest, Reason::LimitReached, Some(why.into()));
        }
        let association = self.datagrams.associations.get(&connection).ok_or_else(gone)?;
        let socket = match association.target_sockets[family] {
            Some(socket) => socket,
            None => {
                let socket = DatagramSocket::shared(outgoing_socket(addr, egress, self.config.mark, true)?)?;
                self.hold_association_socket(connection, socket, false)?
            }
        };
        let association = self.datagrams.associations.get_mut(&connection).ok_or_else(gone)?;
        association.target_sockets[family] = Some(socket);
        association.peers.entry(addr).or_default().push(flow);
        *association.hosts.entry(addr.ip()).or_default() += 1;
        Ok(Dest::Shared(socket, addr))
    }

    /// Returns true if a datagram comes from the client of an association. The first one tells the address of the client.
    pub(super) fn is_from_client(&mut self, connection: Id, source: SocketAddr) -> bool {
        let Some(association) = self.datagrams.associations.get_mut(&connection) else { return false };
        let source = plain(source);
        if let Some(client) = association.client {
            return client == source;
        }
        let (ip, port) = association.expected;
        // An address of the local link has a zone, which the connection may not tell.
        ip.is_none_or(|ip| ip == source.ip()) && port.is_none_or(|port| port == source.port())
    }

    /// Returns the flow for the datagrams to a target, and opens it if need be. Returns none if the target is refused.
    pub(super) fn flow_of_association(
        &mut self,
        (connection, client): (Id, SocketAddr),
        handler: &mut dyn AssociationHandler,
        peer: DatagramPeer<'_>,
    ) -> Option<Id> {
        let mut room = [0; TARGET_KEY_BYTES_MAX];
        let key = peer.write_key(&mut room)?;
        let association = self.datagrams.associations.get(&connection)?;
        if let Some(flow) = association.flows.get(key) {
            return Some(*flow);
        }
        if self.is_draining() || self.flows_left() == 0 {
            return None;
        }
        self.datagrams.opened.1 += 1;
        let opened = peer.target().and_then(|target| handler.open(self, target));
        let mut target = match opened {
            Ok(target) => target,
            Err(failure) => {
                self.refuse_target(connection, peer, &failure);
                return None;
            }
        };
        let record = self.connections.get(connection)?;
        let (kind, listener, profile, via) = (record.kind.clone(), record.listener, record.profile, record.via);
        let association = self.datagrams.associations.get(&connection)?;
        let source = association.source.clone();
        if let Some(make) = &association.prefix {
            let local = self.datagrams.association_sockets.get(association.client_socket)?.socket.local();
            target.prefix = make(&target.target, ClientAddrs { client: plain(client), local: plain(local) });
        }
        self.profiles.keep(profile);
        let network = PeerNetwork::from(&source);
        let client = Client::Association { connection, key: key.into(), source };
        let flow = Flow { kind, listener, profile, via, ..Flow::new(client, target, self.now_ms) };
        let flow = self.add_flow(None, network, flow)?;
        let association = self.datagrams.associations.get_mut(&connection)?;
        association.flows.insert(key.into(), flow);
        self.reach(flow);
        self.datagrams.flows.get(flow).map(|_| flow)
    }

    /// Notes a target that was refused. The first one goes to the line of the association.
    fn refuse_target(&mut self, connection: Id, peer: DatagramPeer<'_>, failure: &Failure) {
        let Some(association) = self.datagrams.associations.get_mut(&connection) else { return };
        let why = failure.detail.as_deref().unwrap_or(failure.reason.as_str());
        log::debug!(target: super::over::TARGET, id = connection.to_string(), asked:% = peer, reason = failure.reason.as_str(), detail = why; "datagram refused");
        association.totals.refusal.get_or_insert_with(|| format!("{peer}: {why}").into());
    }

    /// Counts dropped datagrams of an association.
    pub(super) fn drop_associated(&mut self, connection: Id, why: Dropped, count: u64) {
        self.stats.datagrams_dropped[why as usize] += count;
        self.note_dropped(connection, why, count);
    }

    pub(super) fn note_dropped(&mut self, connection: Id, why: Dropped, count: u64) {
        if let Some(association) = self.datagrams.associations.get_mut(&connection) {
            association.totals.dropped[why as usize] += count;
        }
    }

    /// Takes a flow that is over out of its association.
    pub(super) fn leave_association(&mut self, connection: Id, id: Option<Id>, flow: &Flow, refusal: Option<String>) {
        let Some(association) = self.datagrams.associations.get_mut(&connection) else { return };
        if let Client::Association { key, .. } = &flow.client
            && association.flows.get(key).copied() == id
        {
            association.flows.remove(key);
        }
        if let Dest::Shared(_, addr) = flow.dest {
            if let Some(flows) = association.peers.get_mut(&addr) {
                flows.retain(|flow| Some(*flow) != id);
                if flows.is_empty() {
                    association.peers.remove(&addr);
                }
            }
            if let Some(count) = association.hosts.get_mut(&addr.ip()) {
                *count -= 1;
                if *count == 0 {
                    association.hosts.remove(&addr.ip());
                }
            }
        }
        association.totals.sent.add(flow.sent.datagrams, flow.sent.bytes);
        association.totals.received.add(flow.received.datagrams, flow.received.bytes);
        if let Some(refusal) = refusal {
            association.totals.refusal.get_or_insert_with(|| refusal.into());
        }
        let is_idle = association.flows.is_empty();
        if is_idle && self.is_draining() {
            self.close(connection, Reason::Drained);
        }
    }

    /// Closes the associations that have no flow, because the loop drains.
    pub(crate) fn drain_associations(&mut self) {
        let idle = self.datagrams.associations.iter().filter(|(_, association)| association.flows.is_empty());
        let idle: Vec<Id> = idle.map(|(id, _)| *id).collect();
        idle.into_iter().for_each(|connection| self.close(connection, Reason::Drained));
    }

    /// Ends the association of a connection that is over, if it has one. Returns its sums.
    pub(crate) fn end_association(&mut self, connection: Id, reason: Reason) -> Option<Box<AssociationTotals>> {
        if !self.connections.get(connection).is_some_and(|record| record.is_association) {
            return None;
        }
        let flows = |core: &Core| Some(core.datagrams.associations.get(&connection)?.flows.values().copied().collect());
        let flows: Vec<Id> = flows(self)?;
        flows.into_iter().for_each(|flow| self.end_flow(flow, reason, None));
        let association = self.datagrams.associations.remove(&connection)?;
        self.datagrams.flows.release(PeerNetwork::from(&association.source), SOCKETS_MAX);
        let sockets = association.target_sockets.into_iter().flatten().chain([association.client_socket]);
        for socket in sockets {
            if let Some(mut socket) = self.datagrams.association_sockets.remove(socket) {
                socket.socket.deregister(&self.registry);
            }
        }
        Some(Box::new(association.totals))
    }
}

impl Association {
    /// Returns the id of the socket that the client sends to.
    pub fn client_socket(&self) -> Id {
        self.client_socket
    }

    /// Returns the flows that an answer may belong to, and none at all if the answer may not pass. A host may answer from another
    /// port (address-dependent filtering, RFC 4787, section 5).
    pub fn flows_of_answer(&self, entry: &Received<'_>) -> Option<&[Id]> {
        let source = plain(entry.source);
        match self.peers.get(&source) {
            Some(flows) => Some(flows),
            None => (self.is_open || self.hosts.contains_key(&source.ip())).then_some(&[]),
        }
    }
}

impl AssociationTotals {
    /// Returns the number of dropped datagrams.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Returns the numbers of dropped datagrams by reason, and the first target that was refused; none if there is nothing to say.
    pub fn detail(&self) -> Option<String> {
        let counts = Dropped::ALL.iter().zip(self.dropped).filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(why, count)| format!("{count} {why}")).collect();
        let dropped = (!counts.is_empty()).then(|| format!("dropped: {}", counts.join(", ")));
        let refusal = self.refusal.as_ref().map(|refusal| format!("refused: {refusal}"));
        let all: Vec<String> = dropped.into_iter().chain(refusal).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

impl DatagramPeer<'_> {
    fn target(self) -> Result<Target, Failure> {
        match self {
            DatagramPeer::Ip(addr) => Ok(Target::Ip(Proto::Udp, plain(addr))),
            DatagramPeer::Name(name, port) => {
                let target = Target::from_host(name, port);
                let target = target.map_err(|error| Failure::new(Reason::NameResolutionFailure, error.to_string()))?;
                Ok(target.with_proto(Proto::Udp))
            }
        }
    }

    /// Writes the key by which an association finds the flow of a target. All headers that name one address, or one name in any
    /// case, have the same key. Returns none if the name is too long for a header.
    fn write_key(self, room: &mut [u8; TARGET_KEY_BYTES_MAX]) -> Option<&[u8]> {
        let (v4, v6);
        let (octets, port, scope): (&[u8], u16, u32) = match self {
            DatagramPeer::Name(name, port) => (name.as_bytes(), port, 0),
            DatagramPeer::Ip(addr) => match plain(addr) {
                SocketAddr::V4(addr) => {
                    v4 = addr.ip().octets();
                    (&v4, addr.port(), 0)
                }
                SocketAddr::V6(addr) => {
                    v6 = addr.ip().octets();
                    (&v6, addr.port(), addr.scope_id())
                }
            },
        };
        let len = TARGET_KEY_FIXED_BYTES + octets.len();
        let key = room.get_mut(..len)?;
        key[0] = u8::from(matches!(self, DatagramPeer::Name(..)));
        key[1..3].copy_from_slice(&port.to_be_bytes());
        key[3..TARGET_KEY_FIXED_BYTES].copy_from_slice(&scope.to_be_bytes());
        key[TARGET_KEY_FIXED_BYTES..].copy_from_slice(octets);
        if key[0] == 1 {
            key[TARGET_KEY_FIXED_BYTES..].make_ascii_lowercase();
        }
        Some(key)
    }

    /// Returns the target of a flow as its client knows it.
    pub(super) fn of(target: &Target) -> Option<DatagramPeer<'_>> {
        match target {
            Target::Ip(_, addr) => Some(DatagramPeer::Ip(*addr)),
            Target::Name(_, name, port) => Some(DatagramPeer::Name(name.as_str(), *port)),
            Target::Unix(_) | Target::End(_) => None,
        }
    }
}

impl std::fmt::Display for DatagramPeer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatagramPeer::Ip(addr) => addr.fmt(f),
            DatagramPeer::Name(name, port) => write!(f, "{}:{port}", name.escape_debug()),
        }
    }
}
