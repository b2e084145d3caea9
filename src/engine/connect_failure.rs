//! Failures of connects: the failure for a system's error, and the failure of a dial with several attempts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::relay::dial::Egress;
use crate::types::reason::{Failure, Reason};

impl Failure {
    /// Returns the failure of a connect to an address. The system has one error for a missing source address and for a
    /// missing source port (connect(2)); a probe for a source address tells them apart.
    pub(crate) fn of_connect(error: &io::Error, addr: SocketAddr, egress: Option<&Egress>) -> Failure {
        let lacks_port = match error.kind() {
            io::ErrorKind::AddrNotAvailable => has_source(addr, egress.and_then(|egress| egress.source)),
            // If the system chooses the port, all ports are in use.
            io::ErrorKind::AddrInUse => true,
            // A datagram socket gets this error if no port is left.
            io::ErrorKind::WouldBlock => true,
            _ => false,
        };
        match (lacks_port, egress.and_then(|egress| egress.port)) {
            (true, Some(port)) => Failure::new(Reason::AddressInUse, format!("the source port {port}: {error}")),
            (true, None) => Failure::new(Reason::LimitReached, format!("no source port is left: {error}")),
            (false, _) => Failure::from(error),
        }
    }

    /// Returns the failure that tells more. An answer of the target tells more than silence.
    pub(crate) fn worse(first: Option<Failure>, second: Failure) -> Failure {
        let rank = |failure: &Failure| match failure.reason {
            Reason::ConnectionRefused => 0,
            Reason::NotPermitted => 1,
            Reason::TimedOut => 2,
            Reason::HostUnreachable => 3,
            Reason::NetworkUnreachable => 4,
            _ => 5,
        };
        match first {
            Some(first) if rank(&first) <= rank(&second) => first,
            _ => second,
        }
    }

    /// Returns the failure with the address in its detail.
    pub(crate) fn about(self, addr: SocketAddr) -> Failure {
        Failure { detail: self.detail.map(|detail| format!("{addr}: {detail}").into()), ..self }
    }
}

/// Returns true if this host has the source address or, without one, any address from which `to` can be reached. Sends no
/// packet.
fn has_source(to: SocketAddr, source: Option<IpAddr>) -> bool {
    let any = if to.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let probe = UdpSocket::bind((source.unwrap_or(any), 0)).and_then(|socket| socket.connect(to));
    !probe.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}
