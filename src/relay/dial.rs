//! The record of a dial: the state of a side while it connects to a name, or waits for its first socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

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
    pub egress: Option<Egress>,
}

/// The source of a socket on this host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Egress {
    /// The source address; the system chooses if there is none.
    pub source: Option<IpAddr>,
    /// The source port; the system chooses if there is none.
    pub port: Option<u16>,
    /// The interface that the socket must use.
    pub interface: Option<String>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dial({}, {} of {:?}, {} beside)", self.target, self.next, self.addresses, self.racers.len())
    }
}
