//! The network of a peer's address. Limits per address count by it.
//!
//! Each IPv4 address is a network of its own. An IPv6 host has a /64 and can use any address in it (RFC 4291, section
//! 2.5.4), so the first 64 bits count. An IPv4 address from an IPv6 socket (`::ffff:192.0.2.7`) counts as the IPv4
//! address. A table with this key must have a bound: an attacker may hold many /64s.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::address::Endpoint;

/// The network that a peer's address belongs to: an IPv4 /32 or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerNetwork {
    /// All peers without an IP address, such as the clients of a Unix socket.
    Local,
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl From<IpAddr> for PeerNetwork {
    fn from(ip: IpAddr) -> PeerNetwork {
        match ip.to_canonical() {
            IpAddr::V4(ip) => PeerNetwork::V4(ip),
            IpAddr::V6(ip) => PeerNetwork::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

impl From<&Endpoint> for PeerNetwork {
    fn from(endpoint: &Endpoint) -> PeerNetwork {
        endpoint.ip().map_or(PeerNetwork::Local, |addr| addr.ip().into())
    }
}

/// Writes `192.0.2.7`, `2001:db8:1:2::/64` or `local`.
impl fmt::Display for PeerNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerNetwork::Local => f.write_str("local"),
            PeerNetwork::V4(ip) => ip.fmt(f),
            PeerNetwork::V6(bits) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*bits) << 64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_its_own_network_and_an_ipv6_address_shares_its_64_bit_prefix() {
        let network = |text: &str| PeerNetwork::from(text.parse::<IpAddr>().unwrap());
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:0:0:2"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_eq!(network("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::/64");
        assert_eq!(PeerNetwork::from(&Endpoint::Unknown), PeerNetwork::Local);
    }
}
