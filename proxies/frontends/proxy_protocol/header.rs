//! The header of the PROXY protocol, versions 1 and 2 (HAProxy, proxy-protocol.txt): parsed strictly and incrementally, and
//! written.
//!
//! The crate `proxy-header` has the layout of both versions. The checks here are those that it leaves to its caller: the exact
//! form of a line, the bound on the length, the fields of version 2, and their checksum.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader, Tlv};
use seaprox::config::ProxyVersion;

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The address of the client, and the one that it connected to; none if the proxy speaks for itself (LOCAL), or does not
    /// tell (UNKNOWN).
    pub addrs: Option<(SocketAddr, SocketAddr)>,
    /// The fields of version 2, each with its kind, without padding and checksum.
    pub fields: Vec<(u8, Vec<u8>)>,
}

/// Parses the header that begins the input. Returns it with its length; none if more input is needed.
///
/// # Errors
/// Fails with the reason if the input cannot begin with a header.
pub fn parse(input: &[u8]) -> Result<Option<(Header, usize)>, &'static str> {
    if is_prefix(input, V1_SIGNATURE) {
        return parse_v1(input);
    }
    if is_prefix(input, V2_SIGNATURE) {
        return parse_v2(input, STREAM);
    }
    Err("expected a header of the PROXY protocol")
}

/// Parses the header in front of a datagram, which must have all of it. Version 1 has none for datagrams.
///
/// # Errors
/// Fails with the reason if the datagram does not begin with a header.
pub fn parse_datagram(datagram: &[u8]) -> Result<(Header, usize), &'static str> {
    if !datagram.starts_with(V2_SIGNATURE) {
        return Err("expected a header of version 2 of the PROXY protocol");
    }
    parse_v2(datagram, DATAGRAM)?.ok_or("the PROXY header does not end within its datagram")
}

/// Returns true if the input begins with the signature, or with a part of it and nothing else.
fn is_prefix(input: &[u8], signature: &[u8]) -> bool {
    let length = input.len().min(signature.len());
    input[..length] == signature[..length]
}

/// Version 1 (section 2.1): a line of at most 107 bytes.
fn parse_v1(input: &[u8]) -> Result<Option<(Header, usize)>, &'static str> {
    let within = &input[..input.len().min(V1_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|bytes| bytes == b"\r\n") else {
        return if within.len() == V1_BYTES_MAX { Err(V1_FORM) } else { Ok(None) };
    };
    let line = std::str::from_utf8(&within[..end]).map_err(|_| V1_FORM)?;
    let fields: Vec<&str> = line.split(' ').collect();
    match fields[..] {
        ["PROXY", "UNKNOWN", ..] => return Ok(Some((Header::default(), end + 2))),
        ["PROXY", "TCP4" | "TCP6", _, _, source, dest] if is_port(source) && is_port(dest) => {}
        _ => return Err(V1_FORM),
    }
    let (header, length) = ProxyHeader::parse(&within[..end + 2], ParseConfig::default()).map_err(|_| V1_FORM)?;
    let addrs = header.proxied_address().map(plain);
    Ok(Some((Header { addrs, fields: Vec::new() }, length)))
}

/// A port in the form that version 1 requires: decimal digits without a sign and without leading zeros.
fn is_port(text: &str) -> bool {
    let is_plain = text == "0" || !text.starts_with('0');
    is_plain && (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Version 2 (section 2.2): 16 bytes, the addresses, and fields.
fn parse_v2(input: &[u8], transport: u8) -> Result<Option<(Header, usize)>, &'static str> {
    let Some(&[command, family, high, low]) = input.get(V2_SIGNATURE.len()..V2_FIXED_BYTES) else { return Ok(None) };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX {
        return Err("expected a PROXY header of at most 4 KiB");
    }
    let is_local = command == V2_LOCAL;
    match family & 0x0f {
        DATAGRAM if !is_local && transport == STREAM => {
            return Err("expected a PROXY header for a stream, not for datagrams");
        }
        STREAM if !is_local && transport == DATAGRAM => {
            return Err("expected a PROXY header for datagrams, not for a stream");
        }
        _ => {}
    }
    let Some(bytes) = input.get(..length) else { return Ok(None) };
    if is_local {
        // The receiver ignores the family, the addresses and their format.
        return Ok(Some((Header::default(), length)));
    }
    let addrs_bytes = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return Err(V2_FORM),
    };
    let (header, _) = ProxyHeader::parse(bytes, ParseConfig::default()).map_err(|_| V2_FORM)?;
    let fields = fields(bytes, V2_FIXED_BYTES + addrs_bytes)?;
    Ok(Some((Header { addrs: header.proxied_address().map(plain), fields }, length)))
}

/// Reads the fields from `at` to the end of the header, and verifies the checksum if there is one.
fn fields(header: &[u8], mut at: usize) -> Result<Vec<(u8, Vec<u8>)>, &'static str> {
    let mut fields = Vec::new();
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(V2_FORM) };
        let (from, length) = (at + 3, usize::from(u16::from_be_bytes([high, low])));
        let value = header.get(from..from + length).ok_or(V2_FORM)?;
        match kind {
            CRC32C => {
                let told: [u8; 4] = value.try_into().map_err(|_| V2_FORM)?;
                let mut zeroed = header.to_vec();
                zeroed[from..from + length].fill(0);
                if crc32c(&zeroed) != u32::from_be_bytes(told) {
                    return Err("the checksum of the PROXY header is wrong");
                }
            }
            PADDING => {}
            _ => fields.push((kind, value.to_vec())),
        }
        at = from + length;
    }
    Ok(fields)
}

/// Returns the addresses; an IPv4 address that is mapped to IPv6 as itself.
fn plain(addrs: &ProxiedAddress) -> (SocketAddr, SocketAddr) {
    let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    (plain(addrs.source), plain(addrs.destination))
}

impl Header {
    /// Returns the header as bytes. Version 1 has no fields, and loses them.
    pub fn encode(&self, version: ProxyVersion) -> Vec<u8> {
        self.encode_of(Protocol::Stream, version)
    }

    /// Returns the header as bytes in front of a datagram.
    pub fn encode_datagram(&self) -> Vec<u8> {
        self.encode_of(Protocol::Datagram, ProxyVersion::V2)
    }

    fn encode_of(&self, protocol: Protocol, version: ProxyVersion) -> Vec<u8> {
        let addrs = self.addrs.map(|(source, dest)| one_family(source, dest));
        let addrs = addrs.map(|(source, dest)| ProxiedAddress { protocol, source, destination: dest });
        let fields = self.fields.iter().map(|(kind, value)| Tlv::Custom(*kind, value.as_slice().into()));
        let mut bytes = Vec::new();
        let encoded = match version {
            ProxyVersion::V1 => ProxyHeader::with_tlvs(addrs, []).encode_v1(&mut bytes),
            ProxyVersion::V2 => ProxyHeader::with_tlvs(addrs, fields).encode_v2(&mut bytes),
        };
        debug_assert!(encoded.is_ok(), "both addresses have one family, and the fields came from a header");
        bytes
    }
}

/// Returns both addresses in the family that a header can hold: IPv6 if they differ.
fn one_family(source: SocketAddr, dest: SocketAddr) -> (SocketAddr, SocketAddr) {
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    };
    if source.is_ipv4() == dest.is_ipv4() { (source, dest) } else { (mapped(source), mapped(dest)) }
}

/// Returns the CRC32c of RFC 3720, appendix B.4: polynomial 0x1EDC6F41, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V1_BYTES_MAX: usize = 107;
const V1_FORM: &str = "expected PROXY TCP4|TCP6 SOURCE DEST SOURCE-PORT DEST-PORT";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
/// Bytes of a header of version 2: room for the certificate fields that HAProxy and load balancers of clouds send.
const V2_BYTES_MAX: usize = 4096;
const V2_FORM: &str = "the PROXY header of version 2 is malformed";
const V2_LOCAL: u8 = 0x20;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
const CRC32C: u8 = 3;
const PADDING: u8 = 4;

#[cfg(test)]
mod tests;
