//! The record of a dial: the state of a side while it connects to a name, or waits for its first socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use crate::sys::StreamProtocol;
use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::reason::Failure;

/// A rule that decides if an address may be connected to: an address that a name was resolved to, or that an external
/// connector has reached.
pub type Permit = Rc<dyn Fn(SocketAddr) -> bool>;

/// The state of a dial.
pub(crate) struct Dial {
    pub target: Rc<Target>,
    pub permit: Option<Permit>,
    pub addresses: Vec<SocketAddr>,
    pub next: usize,
    /// Attempts that run beside the dest's own socket.
    pub racers: Vec<Id>,
    pub failure: Option<Failure>,
    /// The addresses came from the cache. When all of them fail, the name is looked up again.
    pub from_cache: bool,
    /// The source of its sockets, if the system does not choose it.
    pub egress: Option<Rc<Egress>>,
    /// The addresses of its name may not be guarded ones.
    pub is_guarded: bool,
}

/// The way out of this host that a socket takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// The source address; the system chooses if there is none. Names are then connected at addresses of this family only.
    pub source: Option<IpAddr>,
    /// Further source addresses of the same family, which a socket of SCTP has beside `source`; others fail with them.
    pub more_sources: Vec<IpAddr>,
    /// The source port; the system chooses if there is none.
    pub port: Option<u16>,
    /// The interface that the socket must use.
    pub interface: Option<String>,
    /// The protocol of the socket.
    pub protocol: StreamProtocol,
    /// True to connect from the address of the client, so that the target sees it (`IP_TRANSPARENT`, Linux). A client
    /// without an address is connected from `source`. The answers of the target must be routed to this host, and the
    /// process needs `CAP_NET_ADMIN`.
    pub transparent: bool,
    /// True if the target may connect to this host at the same time, from the port that is dialed to `port`
    /// (simultaneous open, RFC 9293, section 3.5). A refused connect is repeated on the same socket, which stays bound, until
    /// the dial ends.
    pub simultaneous: bool,
    /// True to leave by another interface that has a route where the one that the system chooses is cut: it has no carrier, as
    /// behind a pulled cable (Linux). Needs neither `source` nor `interface`, and does nothing for SCTP and multipath TCP.
    pub avoids_cut: bool,
    /// The mark of all packets for the rules of the system (`SO_MARK`, Linux); that of
    /// [`Config`](crate::Config::mark) if there is none.
    pub mark: Option<u32>,
}

/// The options of a connect.
#[derive(Clone, Default)]
pub struct ConnectOptions {
    /// A rule that decides about each address that a name is resolved to. A link refuses a target with such a rule, because
    /// only the far end knows the address.
    pub permit: Option<Permit>,
    /// The way out of this host, in place of the one of the listener. A link does not use it.
    pub egress: Option<Egress>,
    /// The address that the name of the target was resolved to already, so that it is not looked up. A link does not use it.
    pub address: Option<SocketAddr>,
    /// The configuration names the target, and neither a client nor a peer has chosen it: it may be a guarded address; see
    /// [`Core::set_guarded_addresses`](crate::Core::set_guarded_addresses). A link does not use it.
    pub is_configured: bool,
}

impl Egress {
    /// Returns the address that a socket for `to` is bound to, if it is to be bound at all.
    pub(crate) fn bind_address(&self, to: SocketAddr) -> Option<SocketAddr> {
        let any = if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        match (self.source, self.port) {
            (None, None) => None,
            (source, port) => Some(SocketAddr::new(source.unwrap_or(any), port.unwrap_or(0))),
        }
    }

    /// Returns the egress of the connections of one client, whose address is known unless it has none.
    pub(crate) fn of_client(&self, client: Option<IpAddr>) -> Egress {
        match client {
            Some(client) => Egress { source: Some(client.to_canonical()), port: None, ..self.clone() },
            None => Egress { transparent: false, ..self.clone() },
        }
    }
}

impl From<IpAddr> for Egress {
    fn from(source: IpAddr) -> Egress {
        Egress { source: Some(source), ..Egress::default() }
    }
}

impl From<Option<Permit>> for ConnectOptions {
    fn from(permit: Option<Permit>) -> ConnectOptions {
        ConnectOptions { permit, ..ConnectOptions::default() }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permit = self.permit.as_ref().map(|_| "a rule");
        f.debug_struct("ConnectOptions")
            .field("permit", &permit)
            .field("egress", &self.egress)
            .field("address", &self.address)
            .field("is_configured", &self.is_configured)
            .finish()
    }
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dial({}, {} of {:?}, {} beside)", self.target, self.next, self.addresses, self.racers.len())
    }
}
