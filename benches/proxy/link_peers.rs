//! The pairs of nodes that can be measured: client -> near node == link == far node -> target.
//!
//! The processor time of both nodes is counted. Pinned, both run on the proxies' processor. Each pair encrypts with
//! AES-128-GCM where it can be told to. seaprox and ssh carry all connections in one; the other pairs use a connection
//! between the nodes for each.

use crate::floor;
use crate::link_configurations as conf;
use crate::peers::{Far, Launch, Peer, Place, plain};

pub const fn pair(near: Peer, far: &'static str, launch: fn(&Place) -> Result<Launch, String>) -> Peer {
    Peer { far: Some(Far { family: far, launch }), ..near }
}

pub static PEERS: [Peer; 8] = [
    pair(Peer { family: floor::FAMILY, ..plain("floor-link", "", conf::floor_near) }, floor::FAMILY, conf::floor_far),
    pair(Peer { family: "seaprox", ..plain("seaprox-link", "-V", conf::seaprox_near) }, "seaprox", conf::seaprox_far),
    pair(plain("ssh", "-V", conf::ssh_near), "sshd", conf::ssh_far),
    pair(Peer { family: "haproxy", ..plain("haproxy-tls", "-v", conf::haproxy_near) }, "haproxy", conf::haproxy_far),
    pair(plain("stunnel", "-version", conf::stunnel_near), "stunnel", conf::stunnel_far),
    pair(plain("wstunnel", "--version", conf::wstunnel_near), "wstunnel", conf::wstunnel_far),
    pair(plain("rathole", "--version", conf::rathole_near), "rathole", conf::rathole_far),
    // The two programs of the crate shadowsocks-rust, if they are in the search path.
    pair(
        Peer { family: "sslocal", ..plain("shadowsocks", "-V", conf::shadowsocks_near) },
        "ssserver",
        conf::shadowsocks_far,
    ),
];
