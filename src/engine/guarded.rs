//! Guarded addresses: addresses of the process itself that it does not connect its clients and its peers to.
//!
//! A client of a proxy has the address of the proxy's host, and reaches what listens on its loopback addresses. So a service of
//! the same process that trusts its host would trust each client. A target that the configuration names is connected all the
//! same; see [`ConnectOptions::is_configured`](crate::ConnectOptions::is_configured).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::engine::core::Core;
use crate::sys;
use crate::types::reason::{Failure, Reason};

/// The guarded addresses of a loop.
#[derive(Default)]
pub(crate) struct Guarded(Vec<SocketAddr>);

impl Core {
    /// Sets the addresses of this process that clients and peers may not reach. One with the IP address 0.0.0.0 or :: stands
    /// for all addresses of this host. A dest that a client or a peer names and that is such an address fails with
    /// [`Reason::NotPermitted`].
    ///
    /// An address of another host that leads back to this one, by a translation of addresses, is not known.
    pub fn set_guarded_addresses(&mut self, addresses: Vec<SocketAddr>) {
        self.guarded = Guarded(addresses);
    }
}

impl Guarded {
    /// Returns true if a connection to `dest` reaches a guarded address.
    pub fn has(&self, dest: SocketAddr) -> bool {
        // The port decides nearly always, so a connect to another address costs a comparison.
        self.0.iter().any(|guarded| guarded.port() == dest.port() && is_same_host(guarded.ip(), dest))
    }

    /// Returns the failure of a dest that is a guarded address.
    pub fn failure() -> Failure {
        Failure::new(Reason::NotPermitted, "clients and peers may not reach this address of the process")
    }
}

/// Returns true if a connection to the address `dest` reaches a socket that is bound to the address `bound`.
fn is_same_host(bound: IpAddr, mut dest: SocketAddr) -> bool {
    let (bound, ip) = (bound.to_canonical(), dest.ip().to_canonical());
    // The zone of an address of IPv6 stays.
    dest.set_ip(ip);
    // Systems connect 0.0.0.0 and :: to a loopback address.
    bound == ip || ip.is_unspecified() || bound.is_unspecified() && is_own(dest)
}

/// Returns true for an address of this host. A bind tells nothing: a system may permit that to any address.
fn is_own(dest: SocketAddr) -> bool {
    let ip = dest.ip();
    // A system connects to its own address from that address, or from another one of the same network.
    ip.is_loopback() || source_of(dest).is_ok_and(|source| source == ip) || sys::has_address(ip)
}

/// Returns the address that the system connects to `dest` from. No packet is sent.
fn source_of(dest: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if dest.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(dest)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_guarded_in_each_of_its_forms() {
        let guarded = |address: &str, dest: &str| Guarded(vec![address.parse().unwrap()]).has(dest.parse().unwrap());
        for (address, dest, is_guarded) in [
            ("127.0.0.1:9090", "127.0.0.1:9090", true),
            ("127.0.0.1:9090", "127.0.0.1:9091", false),
            ("127.0.0.1:9090", "127.0.0.2:9090", false),
            ("127.0.0.1:9090", "[::ffff:127.0.0.1]:9090", true),
            ("127.0.0.1:9090", "0.0.0.0:9090", true),
            ("127.0.0.1:9090", "[::]:9090", true),
            ("[::1]:9090", "[::1]:9090", true),
            ("[::1]:9090", "127.0.0.1:9090", false),
            ("0.0.0.0:9090", "127.0.0.9:9090", true),
            ("[::]:9090", "127.0.0.1:9090", true),
            ("[::]:9090", "[::1]:9090", true),
            ("0.0.0.0:9090", "192.0.2.1:9090", false),
            ("[::]:9090", "[2001:db8::1]:9090", false),
            ("[::]:9090", "[2001:db8::1]:9091", false),
        ] {
            assert_eq!(guarded(address, dest), is_guarded, "{address} {dest}");
        }
        assert!(!Guarded::default().has("127.0.0.1:0".parse().unwrap()));
    }
}
