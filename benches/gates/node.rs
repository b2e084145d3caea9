//! The node under attack: the real binary on a processor of its own.

use std::net::SocketAddr;

use crate::place::Place;
use crate::served::Served;
pub use crate::served::{HONEST, HOSTILE};

/// A node that accepts links.
pub struct Node {
    pub addr: SocketAddr,
    _served: Served,
}

impl Node {
    /// Starts a node. `hostile` holds the permissions of the attacker's key, such as `permit-open="*"`; the other key
    /// has all.
    pub fn start(place: &Place, hostile: &str, options: &[&str]) -> Node {
        let served = Served::start_with(hostile, options, |command| place.put_node(command));
        Node { addr: served.addr, _served: served }
    }
}
