use super::*;
use proptest::prelude::*;

fn addrs(source: &str, dest: &str) -> Option<(SocketAddr, SocketAddr)> {
    Some((source.parse().unwrap(), dest.parse().unwrap()))
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [V2_SIGNATURE, &[command, family], &length, body].concat()
}

const IPV4: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0x16, 0x2e, 0x01, 0xbb];

/// Parses the header, and checks that each part of it needs more input.
fn whole(header: &[u8]) -> Header {
    for length in 0..header.len() {
        assert_eq!(parse(&header[..length]), Ok(None), "{length} bytes of {header:?}");
    }
    let mut input = header.to_vec();
    input.extend_from_slice(b"GET / HTTP/1.1\r\n");
    let (parsed, length) = parse(&input).unwrap().unwrap();
    assert_eq!(length, header.len());
    parsed
}

#[test]
fn a_line_of_version_1_is_parsed_byte_by_byte() {
    let tcp4 = whole(b"PROXY TCP4 192.0.2.7 10.0.0.1 5678 443\r\n");
    assert_eq!(tcp4.addrs, addrs("192.0.2.7:5678", "10.0.0.1:443"));
    let tcp6 = whole(b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n");
    assert_eq!(tcp6.addrs, addrs("[2001:db8::7]:0", "[::1]:65535"));
    let mapped = whole(b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:10.0.0.1 1 2\r\n");
    assert_eq!(mapped.addrs, addrs("192.0.2.7:1", "10.0.0.1:2"));
    for unknown in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"] {
        assert_eq!(whole(unknown), Header::default());
    }
}

#[test]
fn a_line_of_another_form_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.7 10.0.0.1 +5678 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 05678 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 5678 \r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 5678 443 \r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 5678 443\r\n",
        "PROXY TCP4 ::1 ::1 5678 443\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 5678 443\r\n",
        "PROXY TCP4 192.0.2.07 10.0.0.1 5678 443\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 5678 443\r\n",
        "PROXY TCP4 example.org 10.0.0.1 5678 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXYTCP4 192.0.2.7 10.0.0.1 5678 443\r\n",
        "proxy TCP4 192.0.2.7 10.0.0.1 5678 443\r\n",
        "GET / HTTP/1.1\r\n",
        "\x16\x03\x01",
    ] {
        assert!(parse(line.as_bytes()).is_err(), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX));
    assert!(parse(long.as_bytes()).is_err() && parse(&long.as_bytes()[..V1_BYTES_MAX]).is_err());
}

#[test]
fn a_header_of_version_2_is_parsed_byte_by_byte() {
    assert_eq!(whole(&v2(0x21, 0x11, IPV4)).addrs, addrs("192.0.2.7:5678", "10.0.0.1:443"));
    let mut ipv6 = [0_u8; 36];
    (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (1, 2, 80, 81);
    assert_eq!(whole(&v2(0x21, 0x21, &ipv6)).addrs, addrs("[::1]:80", "[::2]:81"));
    // The proxy itself, an unspecified family, and Unix sockets tell no address.
    for (command, family, body) in [(0x20, 0x11, IPV4), (0x20, 0, &[][..]), (0x21, 0, &[]), (0x21, 0x31, &[0; 216])] {
        assert_eq!(whole(&v2(command, family, body)).addrs, None);
    }
    let fields = [IPV4, &[5, 0, 2, b'i', b'd', PADDING, 0, 1, 0, 2, 0, 1, b'a']].concat();
    assert_eq!(whole(&v2(0x21, 0x11, &fields)).fields, [(5, b"id".to_vec()), (2, b"a".to_vec())]);
}

#[test]
fn a_malformed_header_of_version_2_is_refused() {
    let with = |field: &[u8]| v2(0x21, 0x11, &[IPV4, field].concat());
    for header in [
        v2(0x11, 0x11, IPV4),
        v2(0x22, 0x11, IPV4),
        v2(0x21, 0x12, IPV4),
        v2(0x21, 0x41, IPV4),
        v2(0x21, 0x11, &IPV4[1..]),
        v2(0x21, 0x21, IPV4),
        v2(0x21, 0x31, &[0; 215]),
        with(&[5, 0]),
        with(&[5, 0, 3, 1, 2]),
        with(&[CRC32C, 0, 3, 1, 2, 3]),
        with(&[CRC32C, 0, 4, 1, 2, 3, 4]),
    ] {
        assert!(parse(&header).is_err(), "{header:?}");
    }
    let long = [V2_SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    assert!(parse(&long).is_err(), "the length alone is enough");
}

#[test]
fn a_datagram_has_a_whole_header_of_its_own_kind() {
    let datagram = [&v2(0x21, 0x12, IPV4)[..], b"content"].concat();
    let (header, length) = parse_datagram(&datagram).unwrap();
    assert_eq!((header.addrs, &datagram[length..]), (addrs("192.0.2.7:5678", "10.0.0.1:443"), &b"content"[..]));
    assert_eq!(header.encode_datagram(), datagram[..length]);
    for length in 0..length {
        assert!(parse_datagram(&datagram[..length]).is_err(), "{length} bytes");
    }
    // The proxy itself may send a datagram, of any kind.
    assert_eq!(parse_datagram(&v2(0x20, 0, b"")), Ok((Header::default(), V2_FIXED_BYTES)));
    for wrong in [&v2(0x21, 0x11, IPV4)[..], b"PROXY TCP4 192.0.2.7 10.0.0.1 5678 443\r\n", b"PROXY UNKNOWN\r\n"] {
        assert!(parse_datagram(wrong).is_err(), "{wrong:?}");
    }
    assert!(parse(&datagram).is_err());
}

#[test]
fn the_checksum_is_that_of_rfc_3720() {
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    let mut header = v2(0x21, 0x11, &[IPV4, &[CRC32C, 0, 4, 0, 0, 0, 0]].concat());
    let (sum, at) = (crc32c(&header).to_be_bytes(), header.len() - 4);
    header[at..].copy_from_slice(&sum);
    assert_eq!(whole(&header).fields, []);
    header[V2_FIXED_BYTES] ^= 1;
    assert!(parse(&header).is_err());
}

#[test]
fn addresses_of_two_families_are_written_as_ipv6() {
    let header = Header { addrs: addrs("192.0.2.7:1", "[::1]:2"), fields: vec![] };
    assert_eq!(header.encode(ProxyVersion::V1), b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n");
    assert_eq!(Header::default().encode(ProxyVersion::V1), b"PROXY UNKNOWN\r\n");
}

proptest! {
    #[test]
    fn a_header_that_is_written_is_parsed_again(
        ports in any::<(u16, u16)>(),
        ip in any::<[u8; 16]>(),
        is_v4 in any::<bool>(),
        value in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let ip: IpAddr = if is_v4 { [ip[0], ip[1], ip[2], ip[3]].into() } else { ip.into() };
        let addrs = Some((SocketAddr::new(ip.to_canonical(), ports.0), SocketAddr::new(ip.to_canonical(), ports.1)));
        let header = Header { addrs, fields: vec![(5, value.clone()), (0xe0, value)] };
        prop_assert_eq!(whole(&header.encode(ProxyVersion::V2)), header.clone());
        prop_assert_eq!(whole(&header.encode(ProxyVersion::V1)).addrs, addrs);
        let datagram = header.encode_datagram();
        prop_assert_eq!(parse_datagram(&datagram), Ok((header, datagram.len())));
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in 0..3_usize) {
        let input = [[&b""[..], V1_SIGNATURE, V2_SIGNATURE][prefix], &bytes].concat();
        if let Ok(Some((_, length))) = parse(&input) {
            prop_assert!(length <= input.len());
        }
        if let Ok((_, length)) = parse_datagram(&input) {
            prop_assert!(length <= input.len());
        }
    }
}
