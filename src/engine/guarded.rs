//! Guarded addresses: addresses of the process itself that it does not connect its clients and its peers to.
//!
//! A client of a proxy has the address of the proxy's host, and reaches what listens on its loopback addresses. So a service of
//! the same process that trusts its host would trust each client. A target that the configuration names is connected all the
//! same; see [`ConnectOptions::is_configured`](crate::ConnectOptions::is_configured).

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::engine::core::Core;
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
        self.0.iter().any(|guarded| guarded.port() == dest.port() && is_same_host(guarded.ip(), dest.ip()))
    }

    /// Returns the failure of a dest that is a guarded address.
    pub fn failure() -> Failure {
        Failure::new(Reason::NotPermitted, "clients and peers may not reach this address of the process")
    }
}

/// Returns true if a connection to the address `dest` reaches a socket that is bound to the address `bound`.
fn is_same_host(bound: IpAddr, dest: IpAddr) -> bool {
    let (bound, dest) = (bound.to_canonical(), dest.to_canonical());
    // Systems connect 0.0.0.0 and :: to a loopback address.
    bound == dest || dest.is_unspecified() || bound.is_unspecified() && is_own(dest)
}

fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
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
