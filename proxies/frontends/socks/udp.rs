//! The header of the datagrams of SOCKS5 (RFC 1928, section 7), as pure functions over bytes.
//!
//! ```text
//!   +-----+------+------+----------+----------+------+
//!   | RSV | FRAG | ATYP | DST.ADDR | DST.PORT | DATA |
//!   |  2  |  1   |  1   | variable |    2     |      |
//!   +-----+------+------+----------+----------+------+
//! ```
//! DST is the target on the way to it, and the sender on the way back.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use seaprox::{DATAGRAM_HEADER_BYTES_MAX, DatagramPeer, Dropped};

/// Parses the header of a client's datagram. Returns the target and the length of the header. The reserved bytes are ignored.
///
/// # Errors
/// [`Dropped::Fragment`] for a part of a larger datagram, which the RFC permits to drop; [`Dropped::Malformed`] otherwise.
pub fn parse_header(datagram: &[u8]) -> Result<(DatagramPeer<'_>, usize), Dropped> {
    let (&[_, _, fragment, address_type], rest) = datagram.split_first_chunk().ok_or(Dropped::Malformed)?;
    if fragment != 0 {
        return Err(Dropped::Fragment);
    }
    let split = |len: usize| {
        let (host, rest) = rest.split_at_checked(len).ok_or(Dropped::Malformed)?;
        let port = u16::from_be_bytes(*rest.first_chunk().ok_or(Dropped::Malformed)?);
        // No datagram can be sent to port 0.
        if port == 0 { Err(Dropped::Malformed) } else { Ok((host, port)) }
    };
    let peer = match address_type {
        ADDRESS_V4 => {
            let (host, port) = split(4)?;
            let host: [u8; 4] = host.try_into().map_err(|_| Dropped::Malformed)?;
            DatagramPeer::Ip(SocketAddr::from((Ipv4Addr::from(host), port)))
        }
        ADDRESS_V6 => {
            let (host, port) = split(16)?;
            let host: [u8; 16] = host.try_into().map_err(|_| Dropped::Malformed)?;
            DatagramPeer::Ip(SocketAddr::from((Ipv6Addr::from(host), port)))
        }
        ADDRESS_NAME => {
            let (name, port) = split(1 + usize::from(*rest.first().ok_or(Dropped::Malformed)?))?;
            DatagramPeer::Name(str::from_utf8(&name[1..]).map_err(|_| Dropped::Malformed)?, port)
        }
        _ => return Err(Dropped::Malformed),
    };
    Ok((peer, header_len(peer)))
}

/// Writes the header of a datagram to the client. Returns its length. A name of more than 255 bytes is written as 0.0.0.0.
pub fn write_header(from: DatagramPeer<'_>, header: &mut [u8; DATAGRAM_HEADER_BYTES_MAX]) -> usize {
    let from = match from {
        DatagramPeer::Name(name, port) if name.len() > 255 => DatagramPeer::Ip((Ipv4Addr::UNSPECIFIED, port).into()),
        from => from,
    };
    let len = header_len(from);
    let (address_type, port) = match from {
        DatagramPeer::Ip(SocketAddr::V4(addr)) => {
            header[4..8].copy_from_slice(&addr.ip().octets());
            (ADDRESS_V4, addr.port())
        }
        DatagramPeer::Ip(SocketAddr::V6(addr)) => {
            header[4..20].copy_from_slice(&addr.ip().octets());
            (ADDRESS_V6, addr.port())
        }
        DatagramPeer::Name(name, port) => {
            header[4] = name.len() as u8;
            header[5..5 + name.len()].copy_from_slice(name.as_bytes());
            (ADDRESS_NAME, port)
        }
    };
    header[..4].copy_from_slice(&[0, 0, 0, address_type]);
    header[len - 2..len].copy_from_slice(&port.to_be_bytes());
    len
}

fn header_len(peer: DatagramPeer<'_>) -> usize {
    FIXED_BYTES
        + match peer {
            DatagramPeer::Ip(SocketAddr::V4(_)) => 4,
            DatagramPeer::Ip(SocketAddr::V6(_)) => 16,
            DatagramPeer::Name(name, _) => 1 + name.len(),
        }
}

const ADDRESS_V4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_V6: u8 = 4;
/// The reserved bytes, the number of the fragment, the address type and the port.
const FIXED_BYTES: usize = 6;

// The longest name fits.
const _: () = assert!(FIXED_BYTES + 1 + 255 <= DATAGRAM_HEADER_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    fn written(peer: DatagramPeer<'_>) -> Vec<u8> {
        let mut header = [0xff; DATAGRAM_HEADER_BYTES_MAX];
        let len = write_header(peer, &mut header);
        header[..len].to_vec()
    }

    #[test]
    fn each_address_type_is_parsed_as_it_is_written() {
        let long = "n".repeat(255);
        let peers = [
            (DatagramPeer::Ip("192.0.2.1:53".parse().unwrap()), 10),
            (DatagramPeer::Ip("[2001:db8::1]:53".parse().unwrap()), 22),
            (DatagramPeer::Name("example.org", 53), 18),
            (DatagramPeer::Name(&long, 65_535), 262),
        ];
        for (peer, len) in peers {
            let mut datagram = written(peer);
            assert_eq!(datagram.len(), len);
            datagram.extend(b"payload");
            assert_eq!(parse_header(&datagram), Ok((peer, len)));
            for short in 0..len {
                assert_eq!(parse_header(&datagram[..short]), Err(Dropped::Malformed), "{short} of {len}");
            }
        }
        assert_eq!(written(DatagramPeer::Ip("192.0.2.1:53".parse().unwrap())), [0, 0, 0, 1, 192, 0, 2, 1, 0, 53]);
    }

    #[test]
    fn fragments_and_addresses_that_cannot_be_are_refused() {
        let good = written(DatagramPeer::Ip("192.0.2.1:53".parse().unwrap()));
        let with = |at: usize, byte: u8| {
            let mut changed = good.clone();
            changed[at] = byte;
            changed
        };
        assert_eq!(parse_header(&with(2, 1)), Err(Dropped::Fragment));
        assert_eq!(parse_header(&with(2, 0x81)), Err(Dropped::Fragment), "the last one of several");
        assert_eq!(parse_header(&with(3, 2)), Err(Dropped::Malformed), "an undefined address type");
        assert_eq!(parse_header(&with(9, 0)), Err(Dropped::Malformed), "port 0");
        assert_eq!(parse_header(&[0, 0, 0, 3, 1, 0xff, 0, 53]), Err(Dropped::Malformed), "a name that is not UTF-8");
        assert_eq!(parse_header(&with(0, 7)), Ok((DatagramPeer::Ip("192.0.2.1:53".parse().unwrap()), 10)));
    }

    #[test]
    fn a_name_that_does_not_fit_is_written_as_the_unspecified_address() {
        let long = "n".repeat(256);
        assert_eq!(written(DatagramPeer::Name(&long, 7)), [0, 0, 0, 1, 0, 0, 0, 0, 0, 7]);
    }
}
