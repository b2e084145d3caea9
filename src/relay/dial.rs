//! The record of a dial: what a side needs while it connects to a name, or waits for its first socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::reason::Failure;

/// Whether an address that a name turned out to have, or that an external connector reached, may be connected to.
pub type Permit = Rc<dyn Fn(SocketAddr) -> bool>;

/// What is needed while a dest connects to a name, or waits for its first socket.
pub(crate) struct Dial {
    pub target: Rc<Target>,
    pub permit: Option<Permit>,
    pub addresses: Vec<SocketAddr>,
    pub next: usize,
    /// Attempts beside the dest's own socket.
    pub racers: Vec<Id>,
    pub failure: Option<Failure>,
    /// The addresses came from the cache: when all fail, the name is looked up anew.
    pub from_cache: bool,
    /// Where its sockets leave from, if the system does not choose that.
    pub egress: Option<Egress>,
}

/// Where a socket leaves this host from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Egress {
    /// The source address; the system chooses if there is none.
    pub source: Option<IpAddr>,
    /// The interface that it must leave by.
    pub interface: Option<String>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dial({}, {} of {:?}, {} beside)", self.target, self.next, self.addresses, self.racers.len())
    }
}
