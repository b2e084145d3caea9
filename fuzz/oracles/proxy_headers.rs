//! Properties of the headers of the PROXY protocol.

use seaprox::config::ProxyVersion;

use super::proxy_protocol::header::{Header, parse, parse_datagram};

/// Checks the parser of headers: a header ends within the input, every part of it needs more input, bytes behind it make no
/// difference, and its addresses are the same after they were written and parsed again.
pub fn proxy_header(bytes: &[u8]) {
    if let Ok(Some((header, length))) = parse(bytes) {
        assert!(length <= bytes.len());
        assert_eq!(parse(&bytes[..length]), Ok(Some((header.clone(), length))));
        (0..length).for_each(|part| assert_eq!(parse(&bytes[..part]), Ok(None), "{part} of {length} bytes"));
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let again = header.encode(version);
            let (parsed, count) = parse(&again).expect("a header").expect("all of it");
            assert_eq!((parsed.addrs, count), (header.addrs, again.len()));
        }
    }
    if let Ok((header, length)) = parse_datagram(bytes) {
        assert!(length <= bytes.len());
        assert_eq!(parse_datagram(&bytes[..length]), Ok((header.clone(), length)));
        (0..length).for_each(|part| assert!(parse_datagram(&bytes[..part]).is_err(), "{part} of {length} bytes"));
        let again = header.encode_datagram();
        let (Header { addrs, .. }, count) = parse_datagram(&again).expect("a header");
        assert_eq!((addrs, count), (header.addrs, again.len()));
    }
}
