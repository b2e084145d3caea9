//! SOCKS: splits, and a parsed message that is written again parses to the same.

use seaprox::{DATAGRAM_HEADER_BYTES_MAX, Target};

use super::check_prefixes;
use super::socks::proto::{
    BadTarget, Command, Request4, Request5, parse_auth, parse_greeting5, parse_request4, parse_request5,
};
use super::socks::udp::{parse_header, write_header};

/// Checks every message of SOCKS4 and SOCKS5.
pub fn socks_proto(data: &[u8]) {
    check_prefixes(data, parse_greeting5, |_| false);
    check_prefixes(data, |bytes| Ok::<_, ()>(parse_auth(bytes).ok().flatten()), |_| false);
    check_prefixes(data, parse_request5, |request| request.target == Err(BadTarget::AddressType));
    check_prefixes(data, parse_request4, |_| false);
    if let Ok(Some((request, _))) = parse_request5(data) {
        check_request5(&request);
    }
    if let Ok(Some((request, _))) = parse_request4(data) {
        check_request4(&request);
    }
}

/// Checks the header of a datagram of SOCKS5: it is complete in itself, and it is written again as it was.
pub fn socks_udp(data: &[u8]) {
    let Ok((peer, len)) = parse_header(data) else { return };
    assert!(len <= data.len() && data[2] == 0);
    assert_eq!(parse_header(&data[..len]), Ok((peer, len)), "the payload changes nothing");
    (0..len).for_each(|short| assert!(parse_header(&data[..short]).is_err(), "{short} of {len} bytes"));
    let mut written = [0xff; DATAGRAM_HEADER_BYTES_MAX];
    assert_eq!(write_header(peer, &mut written), len);
    // The reserved bytes are written as zeros.
    assert_eq!((&written[..2], &written[2..len]), (&[0, 0][..], &data[2..len]));
}

/// Claims, wrongly, that no input is a complete SOCKS5 request. A fuzzer that works finds one at once.
pub fn canary(data: &[u8]) {
    assert!(!matches!(parse_request5(data), Ok(Some(_))), "the planted defect was found, as it should be");
}

fn check_request5(request: &Request5) {
    let Ok(target) = &request.target else { return };
    assert!(target.port() != Some(0) || request.command != Command::Connect, "a connect to port 0");
    let mut bytes = vec![5, code(request.command), 0];
    match target {
        Target::Ip(_, addr) if addr.is_ipv4() => bytes.push(1),
        Target::Ip(..) => bytes.push(4),
        Target::Name(_, name, _) => bytes.extend([3, name.as_str().len() as u8]),
        Target::Unix(_) | Target::End(_) => panic!("SOCKS led to a Unix socket or an end"),
    }
    bytes.extend(host(target));
    bytes.extend(target.port().unwrap_or(0).to_be_bytes());
    assert_eq!(parse_request5(&bytes), Ok(Some((request.clone(), bytes.len()))));
}

fn check_request4(request: &Request4<'_>) {
    assert!(request.user.len() <= 255 && !request.user.contains(&0));
    let Ok(target) = &request.target else { return };
    let mut bytes = vec![4, code(request.command)];
    bytes.extend(target.port().unwrap_or(0).to_be_bytes());
    // A literal address that came as a name is written as a name again, unless it fits the four bytes of an IPv4
    // address.
    match target {
        Target::Ip(_, addr) if addr.is_ipv4() && !matches!(host(target)[..], [0, 0, 0, last] if last != 0) => {
            bytes.extend(host(target));
            bytes.extend([request.user, &[0]].concat());
        }
        target => {
            bytes.extend([0, 0, 0, 1]);
            bytes.extend([request.user, &[0]].concat());
            bytes.extend(match target {
                Target::Ip(_, addr) => addr.ip().to_string().into_bytes(),
                target => host(target),
            });
            bytes.push(0);
        }
    }
    assert_eq!(parse_request4(&bytes), Ok(Some((request.clone(), bytes.len()))));
}

/// Returns the host as it is on the wire.
fn host(target: &Target) -> Vec<u8> {
    match target {
        Target::Ip(_, addr) => match addr.ip() {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        },
        Target::Name(_, name, _) => name.as_str().as_bytes().to_vec(),
        Target::Unix(_) | Target::End(_) => panic!("SOCKS led to a Unix socket or an end"),
    }
}

fn code(command: Command) -> u8 {
    match command {
        Command::Connect => 1,
        Command::Bind => 2,
        Command::UdpAssociate => 3,
        Command::Other(code) => code,
    }
}
