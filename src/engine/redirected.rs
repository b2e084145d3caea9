//! Clients that the system redirects to a listener: where they were going, and the connections of this process among them.
//!
//! ```text
//!   connection tracking has another destination --> that one           redirect and dnat of nftables
//!   it has none, or the same one                --> the local address  TPROXY, which changes no address
//! ```
//! A rule that redirects the connections of this host also redirects those of this process, unless the rule leaves them out by
//! their mark or their user. Such a connection comes back as a client, would be connected again, and would come back for ever.
//! So the loops remember both addresses of each connection that they start, for as long as it may take to come back, while
//! the process has a listener for redirected clients. Each datagram of a flow may come back, so the addresses of a socket for
//! datagrams are remembered until it is closed.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::connection_view::ConnectionMut;
use crate::engine::core::Core;
use crate::relay::io::Io;
use crate::types::address::{Endpoint, Target};
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

/// The connections that all loops of this process have started of late.
static OWN_DIALS: LazyLock<Mutex<OwnDials>> = LazyLock::new(Mutex::default);
/// The open sockets for datagrams of all loops of this process.
static OWN_SOCKETS: LazyLock<Mutex<OwnSockets>> = LazyLock::new(Mutex::default);
/// The listeners for redirected clients of all loops of this process.
static LISTENERS: AtomicUsize = AtomicUsize::new(0);

/// A listener for redirected clients: while there is one, the loops remember their own connections.
#[derive(Debug)]
pub(crate) struct Redirection(());

/// Connections of this process, by their local address and that of their target.
#[derive(Debug, Default)]
struct OwnDials {
    known: HashMap<(SocketAddr, SocketAddr), Instant>,
    /// The connections in the order in which they were started.
    order: VecDeque<((SocketAddr, SocketAddr), Instant)>,
}

/// Sockets for datagrams by their local address and that of their target, which a socket of an association lacks, with the number
/// of sockets that have these addresses. There are as many as the table of flows and that of associations permit.
#[derive(Debug, Default)]
struct OwnSockets(HashMap<SocketAddrs, usize>);

type SocketAddrs = (SocketAddr, Option<SocketAddr>);

/// A socket for datagrams of this process: while there is this record, its datagrams are known when they come back.
#[derive(Debug)]
pub(crate) struct OwnSocket(SocketAddrs);

impl ConnectionMut<'_> {
    /// Returns the address that the client connected to before the system redirected it to the listener by NAT (`redirect` or
    /// `dnat` of nftables). None if no NAT redirected it, and on other systems than Linux. This asks the system.
    pub fn original_dest(&self) -> Option<SocketAddr> {
        let source = self.core_ref().connections.get(self.id())?.source;
        self.core_ref().sides.get(source)?.io.original_dest()
    }

    /// Returns the address that a client of a listener for redirected clients connected to, by NAT or by TPROXY; see
    /// [`ListenConfig::redirected`](crate::ListenConfig::redirected). From then on [`ConnectionMut::local`] returns this
    /// address for the source. This asks the system.
    ///
    /// # Errors
    /// Fails with [`Reason::NotPermitted`] if the client would be connected in a circle: it connected to a listener of this
    /// process, or it is a connection of this process itself, which the system has redirected.
    pub fn redirected_dest(&mut self) -> Result<SocketAddr, Failure> {
        let id = self.id();
        let core: &mut Core = self.core();
        let unknown = || Failure::new(Reason::NotPermitted, "the client was not redirected");
        let record = core.connections.get(id).ok_or_else(unknown)?;
        let side = core.sides.get(record.source).ok_or_else(unknown)?;
        let (original, peer) = (side.io.original_dest(), side.endpoint.ip());
        let dest = original.or_else(|| side.io.local().ip()).map(plain).ok_or_else(unknown)?;
        let circle = if core.has_listener_at(Proto::Tcp, dest) {
            Some("the client connected to a listener of this process")
        } else if peer.is_some_and(|peer| own_dials().take(plain(peer), dest)) {
            Some("the connection is one of this process, which the rules of the system have redirected")
        } else {
            None
        };
        if let Some(why) = circle {
            self.set_asked(Target::from(dest));
            return Err(Failure::new(Reason::NotPermitted, why));
        }
        if original.is_some()
            && let Some(record) = core.connections.get_mut(id)
        {
            record.notes().local = Some(Box::new(Endpoint::from(dest)));
        }
        Ok(dest)
    }
}

impl Core {
    /// Checks a redirected datagram.
    ///
    /// # Errors
    /// Fails with [`Reason::NotPermitted`] if the datagram would go in a circle: its client sent it to a listener of this process,
    /// or it is one of this process itself.
    pub(crate) fn check_redirected(&self, source: SocketAddr, dest: SocketAddr) -> Result<(), Failure> {
        if self.has_listener_at(Proto::Udp, dest) {
            return Err(Failure::new(Reason::NotPermitted, "the client sent to a listener of this process"));
        }
        // The answers of a listener leave from its address.
        if is_own_datagram(source, dest) || self.has_listener_at(Proto::Udp, source) {
            let why = "the datagram is one of this process, which the rules of the system have redirected";
            return Err(Failure::new(Reason::NotPermitted, why));
        }
        Ok(())
    }

    /// Returns true if a listener of this loop has the address.
    fn has_listener_at(&self, proto: Proto, dest: SocketAddr) -> bool {
        let of_proto = self.listeners.iter().filter(|(_, listener)| listener.addr.proto() == proto);
        let addrs = of_proto.filter_map(|(_, listener)| listener.addr.ip());
        let mut same_port = addrs.filter(|addr| addr.port() == dest.port()).map(|addr| addr.ip().to_canonical());
        same_port.any(|ip| ip == dest.ip() || (ip.is_unspecified() && is_of_this_host(dest)))
    }
}

impl Redirection {
    /// Counts a listener.
    pub fn new() -> Redirection {
        LISTENERS.fetch_add(1, Ordering::Relaxed);
        Redirection(())
    }
}

impl Drop for Redirection {
    fn drop(&mut self) {
        LISTENERS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes a connection that a loop has started, if the process has a listener to which it may be redirected.
pub(crate) fn note_dial(io: &Io, target: SocketAddr) {
    if LISTENERS.load(Ordering::Relaxed) > 0
        && let Some(local) = io.local().ip()
    {
        own_dials().note(plain(local), plain(target), Instant::now());
    }
}

/// Notes a socket for datagrams, by its local address and that of its target if it has only one, as [`note_dial`] does.
/// Returns none if the process has no listener to which its datagrams may be redirected.
pub(crate) fn note_socket(local: SocketAddr, target: Option<SocketAddr>) -> Option<Box<OwnSocket>> {
    (LISTENERS.load(Ordering::Relaxed) > 0).then(|| Box::new(OwnSocket::new(local, target)))
}

/// Returns true if a datagram is one of this process.
fn is_own_datagram(source: SocketAddr, dest: SocketAddr) -> bool {
    let sockets = own_sockets();
    if sockets.has(source, Some(dest)) || sockets.has(source, None) {
        return true;
    }
    // A socket without a local address sends from any address of this host.
    let any: IpAddr = if source.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let is_port_own = sockets.has(SocketAddr::new(any, source.port()), None);
    drop(sockets);
    is_port_own && is_of_this_host(source)
}

/// Logs, once for the process, that connections of TPROXY cannot be accepted.
pub(crate) fn warn_not_transparent(error: &std::io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::warn!(target: "seaprox::listener", error = error.to_string(); "clients of tproxy are not served, those of nft redirect are: tproxy needs CAP_NET_ADMIN");
    });
}

impl OwnDials {
    /// Notes a connection, in place of the oldest one if there are too many.
    fn note(&mut self, local: SocketAddr, target: SocketAddr, now: Instant) {
        self.forget(now);
        if self.order.len() == DIALS_MAX
            && let Some((key, at)) = self.order.pop_front()
        {
            self.remove(key, at);
        }
        self.known.insert((local, target), now);
        self.order.push_back(((local, target), now));
    }

    /// Returns true if a connection of this process has these addresses, and forgets it: it comes back once.
    fn take(&mut self, local: SocketAddr, target: SocketAddr) -> bool {
        self.forget(Instant::now());
        self.known.remove(&(local, target)).is_some()
    }

    /// Forgets the connections that would have come back by now.
    fn forget(&mut self, now: Instant) {
        while let Some((key, at)) = self.order.front().copied()
            && now.saturating_duration_since(at) > RETURN_TIME
        {
            self.order.pop_front();
            self.remove(key, at);
        }
    }

    fn remove(&mut self, key: (SocketAddr, SocketAddr), at: Instant) {
        // A later connection may have the same addresses.
        if self.known.get(&key) == Some(&at) {
            self.known.remove(&key);
        }
    }
}

impl OwnSocket {
    fn new(local: SocketAddr, target: Option<SocketAddr>) -> OwnSocket {
        let addrs = (plain(local), target.map(plain));
        *own_sockets().0.entry(addrs).or_default() += 1;
        OwnSocket(addrs)
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = own_sockets().0.entry(self.0) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl OwnSockets {
    fn has(&self, local: SocketAddr, target: Option<SocketAddr>) -> bool {
        self.0.contains_key(&(local, target))
    }
}

fn own_sockets() -> std::sync::MutexGuard<'static, OwnSockets> {
    OWN_SOCKETS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own_dials() -> std::sync::MutexGuard<'static, OwnDials> {
    OWN_DIALS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns an address with a mapped IPv4 address as IPv4.
pub(crate) fn plain(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, addr.port()),
        _ => addr,
    }
}

/// Returns true if this host has the address. The system would send packets for it from the address itself. Sends none.
fn is_of_this_host(addr: SocketAddr) -> bool {
    let any: SocketAddr = if addr.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
    let source = || {
        let probe = UdpSocket::bind(any)?;
        probe.connect(addr)?;
        probe.local_addr()
    };
    addr.ip().is_loopback() || source().is_ok_and(|source| source.ip() == addr.ip())
}

/// The connections that are remembered; older ones are forgotten.
const DIALS_MAX: usize = 65_536;
/// The time in which a redirected connection of this process comes back: it may wait in the backlog of the listener.
const RETURN_TIME: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn a_connection_of_this_process_comes_back_once_and_in_time() {
        let (mut dials, now) = (OwnDials::default(), Instant::now());
        dials.note(addr(1), addr(80), now);
        assert!(!dials.take(addr(1), addr(81)) && !dials.take(addr(2), addr(80)));
        assert!(dials.take(addr(1), addr(80)) && !dials.take(addr(1), addr(80)));
        // The second connection with these addresses outlives the record of the first one.
        dials.note(addr(1), addr(80), now + Duration::from_secs(20));
        dials.forget(now + Duration::from_secs(40));
        assert_eq!(dials.known.len(), 1);
        dials.forget(now + Duration::from_secs(60));
        assert!(dials.known.is_empty() && dials.order.is_empty());
    }

    #[test]
    fn the_number_of_remembered_connections_is_bounded() {
        let (mut dials, now) = (OwnDials::default(), Instant::now());
        for index in 0..DIALS_MAX as u32 + 10 {
            dials.note(SocketAddr::from((index.to_be_bytes(), 1)), addr(80), now);
        }
        assert_eq!((dials.known.len(), dials.order.len()), (DIALS_MAX, DIALS_MAX));
        assert!(!dials.take(SocketAddr::from((9_u32.to_be_bytes(), 1)), addr(80)));
        assert!(dials.take(SocketAddr::from((10_u32.to_be_bytes(), 1)), addr(80)));
    }

    #[test]
    fn datagrams_of_a_socket_are_known_until_the_last_socket_with_its_addresses_is_closed() {
        let sockets = [(); 2].map(|()| OwnSocket::new(addr(7), Some(addr(53))));
        assert!(is_own_datagram(addr(7), addr(53)));
        assert!(!is_own_datagram(addr(7), addr(54)) && !is_own_datagram(addr(8), addr(53)));
        let [first, second] = sockets;
        drop(first);
        assert!(is_own_datagram(addr(7), addr(53)));
        drop(second);
        assert!(!is_own_datagram(addr(7), addr(53)));
        assert!(!own_sockets().0.contains_key(&(addr(7), Some(addr(53)))), "nothing is kept");
    }

    #[test]
    fn a_socket_for_many_targets_is_known_by_its_port_and_the_addresses_of_this_host() {
        let own = |ip: [u8; 4], port| is_own_datagram((ip, port).into(), addr(53));
        let socket = OwnSocket::new(([0; 4], 7_654).into(), None);
        assert!(own([127, 0, 0, 1], 7_654));
        assert!(!own([127, 0, 0, 1], 7_655));
        // A client on another host may have the same port.
        assert!(!own([198, 51, 100, 77], 7_654));
        let of_one_address = OwnSocket::new(([192, 0, 2, 1], 7_656).into(), None);
        assert!(own([192, 0, 2, 1], 7_656));
        drop((socket, of_one_address));
        assert!(!own([127, 0, 0, 1], 7_654) && !own([192, 0, 2, 1], 7_656));
    }

    #[test]
    fn loopback_belongs_to_this_host_and_an_address_of_the_documentation_does_not() {
        assert!(is_of_this_host(([127, 3, 4, 5], 80).into()));
        assert!(!is_of_this_host(([198, 51, 100, 77], 80).into()));
    }
}
