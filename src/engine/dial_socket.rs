//! The sockets of dials: made and bound as the egress says, and connected without waiting.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::UdpSocket;
use socket2::{Domain, SockRef, Socket};

use crate::relay::dial::Egress;
use crate::relay::io::Io;
use crate::sys::{self, StreamProtocol};

/// Starts to connect a socket. This takes two system calls, one more for each part of the egress and for a mark other than 0,
/// and one more if it `speaks_first`, which saves a packet. To avoid an interface that is cut takes about ten more.
pub(super) fn start_connect(
    addr: SocketAddr,
    egress: Option<&Egress>,
    mark: u32,
    speaks_first: bool,
) -> io::Result<Io> {
    let protocol = egress.map(|egress| egress.protocol).unwrap_or_default();
    let socket = sys::stream_socket(Domain::for_address(addr), protocol)?;
    let mark = egress.and_then(|egress| egress.mark).unwrap_or(mark);
    if mark != 0 {
        sys::set_mark(SockRef::from(&socket), mark)?;
    }
    if let Some(egress) = egress {
        if let Some(interface) = &egress.interface {
            sys::bind_to_interface(&socket, interface)?;
        }
        if let Some(from) = egress.bind_address(addr) {
            if from.is_ipv4() != addr.is_ipv4() {
                let why = format!("the source address {} is of the other address family", from.ip());
                return Err(io::Error::new(io::ErrorKind::NetworkUnreachable, why));
            }
            if egress.transparent {
                sys::set_transparent(SockRef::from(&socket), addr.is_ipv6())?;
                sys::choose_port_late(&socket);
            }
            if from.port() != 0 && protocol != StreamProtocol::Udp {
                // Connections of this port to other targets, and earlier ones in TIME_WAIT, must not be in the way.
                sys::reuse_address(&socket)?;
            }
            socket.bind(&from.into())?;
            bind_more(&socket, egress)?;
        }
    }
    if egress.is_some_and(|egress| egress.avoids_cut) && matches!(protocol, StreamProtocol::Tcp | StreamProtocol::Udp) {
        // Otherwise the dial goes where the system chooses.
        let _ = sys::avoid_cut_interface(SockRef::from(&socket), addr);
    }
    if speaks_first {
        sys::handshake_with_data(&socket);
    }
    if protocol == StreamProtocol::Udp {
        return bound_for_datagrams(socket, addr, egress, mark);
    }
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(error) if sys::is_in_progress(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(Io::Tcp(socket.into()))
}

/// Binds a bound socket to the further sources of its egress, at the port that it has.
fn bind_more(socket: &Socket, egress: &Egress) -> io::Result<()> {
    let port = match egress.more_sources.is_empty() {
        true => return Ok(()),
        false => socket.local_addr()?.as_socket().map_or(0, |local| local.port()),
    };
    let more: Vec<SocketAddr> = egress.more_sources.iter().map(|source| SocketAddr::new(*source, port)).collect();
    sys::sctp_bind_more(socket, &more)
}

/// Binds a socket of datagrams for a carrier that makes streams above it. It is not connected, so that it goes on when the
/// address of this host changes. Another socket finds out if there is a route.
fn bound_for_datagrams(socket: Socket, addr: SocketAddr, egress: Option<&Egress>, mark: u32) -> io::Result<Io> {
    if egress.is_none_or(|egress| egress.bind_address(addr).is_none()) {
        let any = if addr.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(any, 0).into())?;
    }
    let probe = sys::stream_socket(Domain::for_address(addr), StreamProtocol::Udp)?;
    if mark != 0 {
        sys::set_mark(SockRef::from(&probe), mark)?;
    }
    if let Some(interface) = egress.and_then(|egress| egress.interface.as_ref()) {
        sys::bind_to_interface(&probe, interface)?;
    }
    probe.connect(&addr.into())?;
    Ok(Io::Udp(UdpSocket::from_std(socket.into())))
}
