//! Listening for links over TCP and over QUIC, at ports of the same number.

use std::io;
use std::net::SocketAddr;

use crate::engine::bound::{Bound, Unbound};
use crate::engine::limits::Config;
use crate::types::address::Bind;
use crate::types::proto::Proto;

use super::CarrierKind;

/// Opens the listening sockets of one place for both: those of TCP, and behind them those of UDP with the same port. A Unix
/// socket, and sockets that were passed to this process, are of the one kind that they are. Where only the port of TCP can be
/// bound, its [`Bound`] tells what is missing.
///
/// # Errors
/// The system's error for the first address of TCP that cannot be bound.
pub(super) fn bind_both(place: &Bind, config: &Config) -> io::Result<Vec<Bound>> {
    let mut tries = PORT_TRIES;
    'again: loop {
        let (mut bounds, mut others) = (CarrierKind::Tcp.bind(place, config)?, Vec::new());
        for bound in &mut bounds {
            let Some(beside) = bound.addr().ip().and_then(|addr| place_beside(place, addr)) else { continue };
            match CarrierKind::Quic.bind(&beside, config) {
                Ok(bound) => others.extend(bound),
                // The system has chosen a port that another socket of UDP has.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && place.port() == Some(0) && tries > 0 => {
                    tries -= 1;
                    continue 'again;
                }
                Err(error) => bound.unbound = Some(Box::new(Unbound { place: beside, error })),
            }
        }
        bounds.extend(others);
        return Ok(bounds);
    }
}

/// Returns the place of UDP beside an address of TCP that was bound for a place; `None` for a socket that was passed to this
/// process.
fn place_beside(place: &Bind, addr: SocketAddr) -> Option<Bind> {
    match place {
        // One socket for both families, unless this host has only one of them.
        Bind::Any(..) => Some(place.with_port(addr.port()).with_proto(Proto::Udp)),
        Bind::Ip(..) | Bind::Loopback(..) | Bind::Name(..) => Some(Bind::Ip(Proto::Udp, addr)),
        Bind::Unix(_) | Bind::Descriptor(..) => None,
    }
}

/// Ports that are tried until one is free for both.
const PORT_TRIES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(bounds: &[Bound]) -> [usize; 2] {
        [Proto::Tcp, Proto::Udp].map(|proto| bounds.iter().filter(|bound| bound.addr().proto() == proto).count())
    }

    #[test]
    fn both_have_the_same_port() {
        for place in ["127.0.0.1:0", "0"] {
            let bounds = bind_both(&Bind::parse(place).unwrap(), &Config::default()).unwrap();
            let ports: Vec<u16> = bounds.iter().filter_map(|bound| bound.addr().ip()).map(|addr| addr.port()).collect();
            assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "{ports:?}");
            let [tcp, udp] = counts(&bounds);
            assert!(tcp > 0 && tcp == udp, "{bounds:?}");
        }
    }

    #[test]
    fn a_udp_port_in_use_leaves_the_one_of_tcp_which_tells() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let place = Bind::Ip(Proto::Tcp, taken.local_addr().unwrap());
        let bounds = bind_both(&place, &Config::default()).unwrap();
        assert_eq!(counts(&bounds), [1, 0]);
        let unbound = bounds[0].unbound.as_ref().unwrap();
        assert_eq!(unbound.error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(unbound.place, Bind::Ip(Proto::Udp, taken.local_addr().unwrap()));
    }
}
