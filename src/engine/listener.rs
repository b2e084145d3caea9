//! Listeners: the sockets that accept clients.
//!
//! [`bind`] opens the sockets before any loop runs, so that a port in use is reported at once. Each loop then listens on
//! its own socket, and the system distributes the clients over them. For Unix sockets, and on other systems than Linux, the
//! first loop accepts and hands clients over to the others. Accepting pauses, and the clients wait in the backlog, while the
//! connection table is full or the system has no descriptors; it goes on without a call from outside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket};

use crate::engine::control::Request;
use crate::engine::core::{Core, OneOff, Run};
use crate::engine::handler::Handler;
use crate::engine::limits::Config;
use crate::engine::mailbox::{Mail, Remote};
use crate::relay::io::Io;
use crate::sys::{self, SocketFile, StreamProtocol, UnixAcceptor};
use crate::types::address::{Bind, Endpoint, at_port};
use crate::types::id::Id;
use crate::types::label::Label;
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Reason;

/// Makes the handler of a client.
pub type FrontEnd = Box<dyn FnMut() -> Box<dyn Handler>>;

/// The listening sockets of all loops on one address.
#[derive(Debug)]
pub struct Bound {
    addr: Endpoint,
    sockets: Vec<Acceptor>,
    loops: usize,
    /// The file of a Unix socket, which is removed on drop.
    unlink: Option<SocketFile>,
}

/// One loop's part of a listener.
pub(crate) struct Listener {
    acceptor: Option<Acceptor>,
    front: Front,
    kind: Label,
    addr: Endpoint,
    /// The loops that get clients in turn, if the system does not distribute them.
    shares: Vec<Remote>,
    turn: usize,
    ready: bool,
    queued: bool,
}

/// The use of accepted connections.
enum Front {
    /// Clients: each gets a handler. Their dests are reached over the link, if there is one.
    Clients(FrontEnd, Option<Id>),
    /// Nodes that dial a link.
    Nodes,
}

/// A client that one loop has accepted for another.
pub(crate) struct Accepted {
    listener: u32,
    io: Io,
    peer: Endpoint,
}

#[derive(Debug)]
enum Acceptor {
    Tcp(mio::net::TcpListener),
    Unix(UnixAcceptor),
}

/// Opens the listening sockets of one place for `loops` loops. Returns one [`Bound`] for each address of the place.
///
/// A Unix socket file of this user without a listener is replaced ([`SocketFile`]).
///
/// # Errors
/// The place is a UDP address, or the system's error for the first address that cannot be bound. If the place has addresses
/// of both families, a family that this host lacks is left out.
pub fn bind(place: &Bind, loops: usize, config: &Config) -> io::Result<Vec<Bound>> {
    bind_stream(place, loops, config, StreamProtocol::Tcp)
}

/// Opens the listening sockets of one place as [`bind`] does, with sockets of a protocol.
pub(crate) fn bind_stream(
    place: &Bind,
    loops: usize,
    config: &Config,
    protocol: StreamProtocol,
) -> io::Result<Vec<Bound>> {
    place.proto().require_tcp()?;
    let sockets = Sockets { loops, protocol };
    match place {
        Bind::Ip(_, addr) => Ok(vec![bind_tcp(*addr, true, sockets, config)?]),
        Bind::Unix(path) => Ok(vec![bind_unix(path, loops, config)?]),
        Bind::Any(_, port) => match bind_tcp((Ipv6Addr::UNSPECIFIED, *port).into(), false, sockets, config) {
            Err(error) if sys::lacks_family(&error) => {
                Ok(vec![bind_tcp((Ipv4Addr::UNSPECIFIED, *port).into(), true, sockets, config)?])
            }
            bound => Ok(vec![bound?]),
        },
        Bind::Loopback(_, port) => {
            let both = [(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()];
            bind_each(&both, sockets, config)
        }
        Bind::Name(_, name, port) => {
            let addresses: Vec<SocketAddr> = (name.as_str(), *port).to_socket_addrs()?.collect();
            bind_each(&addresses, sockets, config)
        }
    }
}

/// The sockets of an address: their number, if the system distributes clients over them, and their protocol.
#[derive(Clone, Copy)]
struct Sockets {
    loops: usize,
    protocol: StreamProtocol,
}

/// Addresses that could not be bound, each with its error.
type Lacking = Vec<(SocketAddr, io::Error)>;

/// Opens the free addresses of a place with addresses of both families, after [`bind`] has found one in use.
/// Also returns the addresses that could not be bound, each with its error.
///
/// # Errors
/// The system's error if no address can be bound.
pub(crate) fn bind_some(place: &Bind, config: &Config) -> io::Result<(Vec<Bound>, Lacking)> {
    let both: [IpAddr; 2] = match place {
        Bind::Any(..) => [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        Bind::Loopback(..) => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Bind::Ip(..) | Bind::Name(..) | Bind::Unix(_) => {
            return bind(place, 1, config).map(|bounds| (bounds, Vec::new()));
        }
    };
    let (mut bounds, mut lacking): (Vec<Bound>, Lacking) = (Vec::new(), Vec::new());
    for ip in both {
        let chosen = bounds.first().and_then(|bound| bound.addr.ip()).map(|first| first.port());
        let addr = SocketAddr::new(ip, chosen.or(place.port()).unwrap_or(0));
        match bind_tcp(addr, true, Sockets { loops: 1, protocol: StreamProtocol::Tcp }, config) {
            Ok(bound) => bounds.push(bound),
            Err(error) => lacking.push((addr, error)),
        }
    }
    if bounds.is_empty() {
        let in_use = lacking.iter().position(|(_, error)| error.kind() == io::ErrorKind::AddrInUse).unwrap_or(0);
        let (addr, error) = lacking.swap_remove(in_use);
        return Err(io::Error::new(error.kind(), format!("{addr}: {error}")));
    }
    lacking.retain(|(_, error)| !sys::lacks_family(error));
    Ok((bounds, lacking))
}

/// Binds all addresses of a place to one port, also if the system chooses it.
fn bind_each(addresses: &[SocketAddr], sockets: Sockets, config: &Config) -> io::Result<Vec<Bound>> {
    let mut tries = PORT_TRIES;
    'again: loop {
        let mut bounds: Vec<Bound> = Vec::new();
        let mut lacking = None;
        for addr in addresses {
            let chosen = bounds.first().and_then(|bound| bound.addr.ip()).map_or(addr.port(), |first| first.port());
            match bind_tcp(at_port(*addr, chosen), true, sockets, config) {
                Ok(bound) if bounds.iter().all(|other| other.addr != bound.addr) => bounds.push(bound),
                Ok(_) => {}
                Err(error) if sys::lacks_family(&error) => lacking = Some(error),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && addr.port() == 0 && tries > 0 => {
                    tries -= 1;
                    continue 'again;
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && bounds.iter().any(|b| b.is_at(addr)) => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{addr}: {error}"))),
            }
        }
        return match lacking {
            Some(error) if bounds.is_empty() => Err(error),
            _ => Ok(bounds),
        };
    }
}

fn bind_tcp(addr: SocketAddr, only_ipv6: bool, sockets: Sockets, config: &Config) -> io::Result<Bound> {
    let Sockets { loops, protocol } = sockets;
    let spread = loops > 1 && sys::REUSE_PORT_BALANCES;
    if spread && addr.port() != 0 {
        // A port that another process shares with SO_REUSEPORT must be refused. A bind without the option finds out.
        open_tcp(addr, only_ipv6, false, protocol)?;
    }
    let first = open_tcp(addr, only_ipv6, spread, protocol)?;
    let addr = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let mut sockets = vec![first];
    while spread && sockets.len() < loops {
        sockets.push(open_tcp(addr, only_ipv6, true, protocol)?);
    }
    let mut acceptors = Vec::with_capacity(sockets.len());
    for socket in sockets {
        // Accepted sockets inherit these options, which saves two system calls for each client.
        socket.set_tcp_nodelay(config.nodelay)?;
        if !config.tcp_keepalive.is_zero() {
            socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(config.tcp_keepalive))?;
        }
        socket.listen(config.limits.backlog.min(i32::MAX as u32) as i32)?;
        acceptors.push(Acceptor::Tcp(mio::net::TcpListener::from_std(socket.into())));
    }
    Ok(Bound { addr: addr.into(), sockets: acceptors, loops, unlink: None })
}

fn open_tcp(addr: SocketAddr, only_ipv6: bool, shared: bool, protocol: StreamProtocol) -> io::Result<Socket> {
    let socket = sys::stream_socket(Domain::for_address(addr), protocol)?;
    // Permits a bind while connections of an earlier process are in TIME_WAIT; a port with a listener stays refused.
    sys::reuse_address(&socket)?;
    if shared {
        sys::share_port(&socket)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(only_ipv6)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, loops: usize, config: &Config) -> io::Result<Bound> {
    let (listener, file) = SocketFile::bind(path, config.limits.backlog, None)?;
    let sockets = vec![Acceptor::Unix(UnixAcceptor::from_std(listener))];
    Ok(Bound { addr: Endpoint::Unix(path.into()), sockets, loops, unlink: Some(file) })
}

impl Bound {
    /// Returns the bound address, with the port that the system has chosen.
    pub fn addr(&self) -> &Endpoint {
        &self.addr
    }

    /// Returns the number of loops that it was bound for.
    pub(crate) fn loops(&self) -> usize {
        self.loops
    }

    fn is_at(&self, addr: &SocketAddr) -> bool {
        self.addr.ip().is_some_and(|mine| mine.ip() == addr.ip())
    }

    /// Removes and returns the socket of the next loop. A loop without a socket gets its clients from another loop.
    fn take(&mut self) -> Option<Acceptor> {
        if self.sockets.is_empty() { None } else { Some(self.sockets.remove(0)) }
    }
}

impl Listener {
    /// Sends the clients over this link from now on.
    pub fn route(&mut self, link: Id) {
        if let Front::Clients(_, via) = &mut self.front {
            *via = Some(link);
        }
    }

    /// Returns the link that the clients go over.
    pub fn link(&self) -> Option<Id> {
        match self.front {
            Front::Clients(_, via) => via,
            Front::Nodes => None,
        }
    }

    pub fn addr(&self) -> &Endpoint {
        &self.addr
    }
}

impl Acceptor {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Acceptor::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Acceptor::Unix(socket) => registry.register(socket, token, Interest::READABLE),
        }
    }

    fn accept(&self) -> io::Result<(Io, Endpoint)> {
        match self {
            Acceptor::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((Io::Tcp(stream.into()), peer.into()))
            }
            Acceptor::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                Ok((Io::Unix(stream.into()), Endpoint::Unix(Path::new("").into())))
            }
        }
    }
}

impl Core {
    /// Listens on this loop's part of a bound address. `shares` are all loops, this one first; they get clients in turn if
    /// the system does not distribute them. Each loop must call this for the same addresses in the same order. Returns the
    /// number of the listener in this loop.
    ///
    /// # Errors
    /// The socket cannot be registered.
    pub fn listen(
        &mut self,
        bound: &mut Bound,
        shares: &[Remote],
        kind: impl Into<Label>,
        front: FrontEnd,
    ) -> io::Result<u32> {
        self.add_listener(bound, shares, kind.into(), Front::Clients(front, None))
    }

    /// Sends the clients of a listener over a link.
    pub fn route_listener(&mut self, listener: u32, link: Id) {
        if let Some(listener) = self.listeners.get_mut(listener as usize) {
            listener.route(link);
        }
    }

    /// Listens for nodes that dial links, in this loop only.
    pub(crate) fn listen_for_links(&mut self, bound: &mut Bound) -> io::Result<u32> {
        self.add_listener(bound, &[], "link".into(), Front::Nodes)
    }

    /// Closes a listener. The system refuses the clients in its backlog.
    pub(crate) fn unlisten(&mut self, index: u32) {
        if self.listeners.contains(index as usize) {
            self.listeners.remove(index as usize);
        }
        self.queues.full.retain(|other| *other != index);
        self.descriptors.listeners.retain(|other| *other != index);
    }

    fn add_listener(&mut self, bound: &mut Bound, shares: &[Remote], kind: Label, front: Front) -> io::Result<u32> {
        let handed_over = bound.loops > 1 && !(sys::REUSE_PORT_BALANCES && bound.unlink.is_none());
        let entry = self.listeners.vacant_entry();
        let mut acceptor = bound.take();
        if let Some(acceptor) = &mut acceptor {
            acceptor.register(&self.registry, Token(entry.key()))?;
        }
        log::debug!(target: "seaprox::listener", kind = &*kind, addr = bound.addr.to_string(); "listening");
        let shares = if handed_over { shares.to_vec() } else { Vec::new() };
        let addr = bound.addr.clone();
        let index = entry.key() as u32;
        entry.insert(Listener { acceptor, front, kind, addr, shares, turn: 0, ready: false, queued: false });
        Ok(index)
    }

    /// Queues a listener whose backlog has clients.
    pub(crate) fn listener_ready(&mut self, index: u32) {
        if let Some(listener) = self.listeners.get_mut(index as usize) {
            listener.ready = true;
            if !std::mem::replace(&mut listener.queued, true) {
                self.queues.run.push_back(Run::Listener(index));
            }
        }
    }

    /// Accepts the waiting clients within the turn's budget and the limits.
    pub(crate) fn accept(&mut self, index: u32) {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return };
        listener.queued = false;
        // Many unauthenticated peers may connect to a listener for links, and each one delays the established links.
        let most = if matches!(listener.front, Front::Nodes) { NODES_PER_TURN } else { usize::MAX };
        for _ in 0..self.accepts_left().min(most) {
            self.queues.accepts.1 += 1;
            let Some(listener) = self.listeners.get_mut(index as usize) else { return };
            if self.connections.is_full() && matches!(listener.front, Front::Clients(..)) {
                return self.accepting_is_full(index);
            }
            let Some(acceptor) = listener.acceptor.as_ref().filter(|_| listener.ready) else { return };
            match acceptor.accept() {
                Ok((io, peer)) => self.accepted(index, io, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.ready = false;
                    return;
                }
                Err(error) if sys::is_out_of_descriptors(&error) => {
                    if !self.descriptors.listeners.contains(&index) {
                        self.descriptors.listeners.push(index);
                    }
                    return self.descriptors_short();
                }
                // The client closed before the accept, or the accept returned an error of its network (accept(2)).
                Err(_) => {}
            }
        }
        self.listener_ready(index);
    }

    /// Returns the number of connections that a listener may accept now: the rest of the turn's budget, and at least a few
    /// if other listeners have used it up.
    fn accepts_left(&mut self) -> usize {
        let (turn, count) = &mut self.queues.accepts;
        if *turn != self.stats.turns {
            (*turn, *count) = (self.stats.turns, 0);
        }
        self.config.limits.accepts_per_turn.saturating_sub(*count).max(ACCEPTS_AT_LEAST)
    }

    /// Gives an accepted client to this loop, or to the loop whose turn it is.
    fn accepted(&mut self, index: u32, io: Io, peer: Endpoint) {
        let Some(listener) = self.listeners.get_mut(index as usize) else { return };
        if listener.shares.is_empty() {
            return self.take_in(Accepted { listener: index, io, peer });
        }
        listener.turn = (listener.turn + 1) % listener.shares.len();
        if listener.turn == 0 {
            return self.take_in(Accepted { listener: index, io, peer });
        }
        // The number of clients in mailboxes is bounded by the descriptors of the process.
        let _ = listener.shares[listener.turn].0.post(Mail::Accepted(Accepted { listener: index, io, peer }));
    }

    /// Makes a connection of an accepted client. A client from another loop is refused if the table is full.
    pub(crate) fn take_in(&mut self, accepted: Accepted) {
        let Accepted { listener: index, io, peer } = accepted;
        let Some(listener) = self.listeners.get_mut(index as usize) else { return };
        let kind = listener.kind.clone();
        let Front::Clients(front, _) = &mut listener.front else {
            return self.queues.requests.push_back(Request::Accept { listener: index, io, peer });
        };
        let network = PeerNetwork::from(&peer);
        let is_counted = self.sources.counts(network);
        if is_counted && !self.sources.enter(network) {
            return self.source_is_full(&peer);
        }
        let Ok(handler) = catch_unwind(AssertUnwindSafe(front)) else {
            self.stats.panics += 1;
            return if is_counted {
                self.sources.leave(network)
            };
        };
        let from = peer.clone();
        match self.adopt_io(io, peer, kind, index, handler) {
            Ok(id) => self.connections.get_mut(id).into_iter().for_each(|record| record.is_counted = is_counted),
            Err((_, error)) => {
                if let Some(suppressed) = self.may_log_network(&from, Reason::Other) {
                    log::warn!(target: "seaprox::listener", error = error.to_string(), suppressed; "client refused");
                }
                if is_counted {
                    self.sources.leave(network);
                }
            }
        }
    }

    /// Counts and logs a client that is closed because its network has reached its limit.
    fn source_is_full(&mut self, peer: &Endpoint) {
        self.stats.clients_refused += 1;
        if let Some(suppressed) = self.may_log_network(peer, Reason::LimitReached) {
            log::info!(target: "seaprox::listener", from = peer.to_string(), reason = "limit_reached", suppressed; "client refused");
        }
    }

    /// Pauses accepting, because the table is full. The clients wait in the backlog until a connection ends. Logs this once
    /// for each pause.
    fn accepting_is_full(&mut self, index: u32) {
        if self.queues.full.is_empty() {
            self.stats.limit_pauses += 1;
            let limit = self.connections.capacity();
            log::warn!(target: "seaprox::listener", reason = "limit_reached", connections = limit; "accepting pauses");
        }
        if !self.queues.full.contains(&index) {
            self.queues.full.push(index);
        }
    }

    /// Resumes accepting after a connection has ended.
    pub(crate) fn accept_again(&mut self) {
        for index in std::mem::take(&mut self.queues.full) {
            self.listener_ready(index);
        }
    }

    /// Pauses accepting and connecting, because the process is out of descriptors. Logs this once until no attempt has
    /// failed for one retry period.
    pub(crate) fn descriptors_short(&mut self) {
        self.pools.splice_pipes.shrink();
        self.descriptors.short = true;
        if self.descriptors.since_ms.is_some() {
            return;
        }
        self.descriptors.since_ms = Some(self.now_ms);
        self.stats.descriptor_pauses += 1;
        let active = self.connections.len();
        log::warn!(target: "seaprox::listener", reason = "limit_reached", connections = active; "no descriptors left: accepting and connecting pause");
        self.watch_descriptors();
    }

    fn watch_descriptors(&mut self) {
        let wait_ms = self.config.timeouts.descriptors_retry.as_millis() as u64;
        self.one_offs.push(self.now_ms + wait_ms, OneOff::Descriptors);
    }

    /// Retries the paused work at the end of a retry period. If nothing has failed in the period, logs the end of the pause.
    pub(crate) fn descriptors_again(&mut self) {
        if !std::mem::replace(&mut self.descriptors.short, false) {
            let since_ms = self.descriptors.since_ms.take().unwrap_or(self.now_ms);
            let after = crate::types::units::format_duration(std::time::Duration::from_millis(self.now_ms - since_ms));
            log::info!(target: "seaprox::listener", after = after; "descriptors again: accepting and connecting go on");
            return;
        }
        self.feed_starved();
        for index in std::mem::take(&mut self.descriptors.listeners) {
            self.listener_ready(index);
        }
        self.watch_descriptors();
    }

    /// Iterates over the listeners of this loop: the name of the front end, and the address.
    pub fn listeners(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.listeners.iter().map(|(_, listener)| (&*listener.kind, &listener.addr))
    }
}

/// Connections that each listener may accept in a turn, even if the others have used up the budget.
const ACCEPTS_AT_LEAST: usize = 4;
/// Connections accepted in one turn from a listener for links.
const NODES_PER_TURN: usize = 16;
/// Attempts to find a port that is free in both families, if the system chooses the port.
const PORT_TRIES: u32 = 20;
