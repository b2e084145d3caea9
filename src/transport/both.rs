//! Listening for links over TCP and over QUIC, at ports of the same number.

use std::io;

use crate::engine::bound::Bound;
use crate::engine::limits::Config;
use crate::types::address::Bind;

use super::CarrierKind;

/// Opens the listening sockets of one place for both: those of TCP, and behind them those of UDP with the same port. A Unix
/// socket, and sockets that were passed to this process, are of the one kind that they are.
///
/// # Errors
/// The system's error for the first address that cannot be bound.
pub(super) fn bind_both(place: &Bind, config: &Config) -> io::Result<Vec<Bound>> {
    let mut tries = PORT_TRIES;
    loop {
        let mut bounds = CarrierKind::Tcp.bind(place, config)?;
        let port = bounds.first().and_then(|bound| bound.addr().ip()).map(|addr| addr.port());
        let Some(port) = port.filter(|_| place.port().is_some()) else { return Ok(bounds) };
        match CarrierKind::Quic.bind(&place.with_port(port), config) {
            Ok(others) => {
                bounds.extend(others);
                return Ok(bounds);
            }
            // The system has chosen a port that another socket of UDP has.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && place.port() == Some(0) && tries > 0 => {
                tries -= 1
            }
            Err(error) => return Err(error),
        }
    }
}

/// Ports that are tried until one is free for both.
const PORT_TRIES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::proto::Proto;

    #[test]
    fn both_have_the_same_port() {
        for place in ["127.0.0.1:0", "0"] {
            let bounds = bind_both(&Bind::parse(place).unwrap(), &Config::default()).unwrap();
            let ports: Vec<u16> = bounds.iter().filter_map(|bound| bound.addr().ip()).map(|addr| addr.port()).collect();
            assert!(ports.windows(2).all(|pair| pair[0] == pair[1]), "{ports:?}");
            let count = |proto| bounds.iter().filter(|bound| bound.addr().proto() == proto).count();
            assert!(count(Proto::Tcp) > 0 && count(Proto::Tcp) == count(Proto::Udp), "{bounds:?}");
        }
    }
}
