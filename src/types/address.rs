//! Addresses and their text forms.
//!
//! A [`Target`] is an address to connect to, an [`Endpoint`] is the address of a connected peer, and a [`Bind`] is an
//! address to listen on. Each has a protocol ([`Proto`]): a text that begins with `udp:` is UDP, every other text is TCP. The
//! parsers never resolve a name and never allocate more than the length of their input.
//!
//! Each printed target and bind can be parsed again. The hosts called `udp`, `unix` and `fd` are printed with a final dot
//! (`udp.:53`), because `udp:`, `unix:` and `fd:` are prefixes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::end::EndName;
use super::proto::Proto;

/// The longest name that DNS can carry, in bytes (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 253;

/// An address to connect to, or to send datagrams to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address and a port.
    Ip(Proto, SocketAddr),
    /// A name to resolve, and a port.
    Name(Proto, Name, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
    /// A named end of the peer of a link: see [`End`](crate::End). It is reached over a link only.
    End(EndName),
}

/// A host name that is safe to resolve and to print: 1 to 253 bytes of printable ASCII without separators. An IPv6
/// address with a zone (RFC 4007, section 11), such as `fe80::1%eth0`, is a name too, because only the host that connects
/// or listens can map the zone to one of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Box<str>);

/// The address of a connected peer, as the system reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The address is not known yet, or there is no peer.
    Unknown,
    /// A peer with an address and a port.
    Ip(Proto, SocketAddr),
    /// A Unix stream socket; an unnamed client has an empty path.
    Unix(Box<Path>),
    /// Two descriptors that the caller handed over, such as standard input and output.
    Descriptor(i32, i32),
    /// A stream of a link: the name of the peer, and the number of the stream.
    Link(Arc<str>, u32),
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A port without a host: the loopback addresses of both families.
    Loopback(Proto, u16),
    /// `:port`: all addresses of both families.
    Any(Proto, u16),
    /// One address.
    Ip(Proto, SocketAddr),
    /// All addresses of a name.
    Name(Proto, Name, u16),
    /// A Unix stream socket.
    Unix(PathBuf),
    /// The listening sockets with this name that the service manager has passed to this process, or those of UDP.
    Descriptor(Proto, DescriptorName),
}

/// The name of sockets that a service manager passes: 1 to 255 bytes of printable ASCII without spaces and colons.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DescriptorName(Box<str>);

/// A parse error of an address. Its text is the form that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(pub(super) &'static str);

impl Name {
    /// Checks a host name and removes its final dot. Refuses every byte that could confuse a log, a resolver or a header.
    pub fn new(text: &str) -> Result<Name, AddressError> {
        if let Some(zoned) = parse_zoned(text) {
            return Ok(Name(zoned));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(is_name_byte) && text.split('.').all(|label| !label.is_empty()) {
            Ok(Name(text.into()))
        } else {
            Err(AddressError("a host name of letters, digits, '-', '_' and '.'"))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the address and the zone if the name is an IPv6 address with a zone.
    pub fn zoned(&self) -> Option<(Ipv6Addr, &str)> {
        let (ip, zone) = self.0.split_once('%')?;
        Some((ip.parse().ok()?, zone))
    }
}

impl DescriptorName {
    /// Checks the name of passed sockets.
    pub fn new(text: &str) -> Result<DescriptorName, AddressError> {
        let fits = (1..=DESCRIPTOR_NAME_BYTES_MAX).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            Ok(DescriptorName(text.into()))
        } else {
            Err(AddressError("fd:NAME with the name of a socket that the service manager passes"))
        }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Target {
    /// Makes a TCP target of a port and a host. The host may be a literal address, with or without brackets.
    pub fn from_host(host: &str, port: u16) -> Result<Target, AddressError> {
        match parse_ip(host.strip_suffix('.').unwrap_or(host)) {
            Some(ip) => Ok(Target::from(SocketAddr::new(ip, port))),
            None => Ok(Target::Name(Proto::Tcp, Name::new(host)?, port)),
        }
    }

    /// Parses `HOST:PORT`, `[IPV6]:PORT`, or a port alone, which stands for 127.0.0.1, each after `udp:` if it is a UDP
    /// target; or `unix:/path`, or `end:NAME`. The name of an end begins with a letter, so `end:80` is a port of a host.
    pub fn parse(text: &str) -> Result<Target, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Target::Unix(parse_path(path)?));
        }
        if let Some(Ok(name)) = text.strip_prefix("end:").map(EndName::new) {
            return Ok(Target::End(name));
        }
        let (proto, text) = split_proto(text)?;
        let target = match split_port(text) {
            None => Target::from(SocketAddr::from((Ipv4Addr::LOCALHOST, parse_port(text, 1)?))),
            Some(("", _)) => return Err(AddressError(TARGET_FORM)),
            Some((host, port)) => Target::from_host(host, parse_port(port, 1)?)?,
        };
        Ok(target.with_proto(proto))
    }

    /// Returns the protocol.
    pub fn proto(&self) -> Proto {
        match self {
            Target::Ip(proto, _) | Target::Name(proto, ..) => *proto,
            Target::Unix(_) | Target::End(_) => Proto::Tcp,
        }
    }

    /// Returns the port; a Unix socket and an end have none.
    pub fn port(&self) -> Option<u16> {
        match self {
            Target::Ip(_, addr) => Some(addr.port()),
            Target::Name(_, _, port) => Some(*port),
            Target::Unix(_) | Target::End(_) => None,
        }
    }

    /// Returns the name if the target is a host name.
    pub fn host(&self) -> Option<&str> {
        match self {
            Target::Name(_, name, _) => Some(name.as_str()),
            Target::Ip(..) | Target::Unix(_) | Target::End(_) => None,
        }
    }

    /// Returns the target with another port. A Unix socket and an end are returned unchanged.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Target {
        match self {
            Target::Ip(proto, addr) => Target::Ip(*proto, at_port(*addr, port)),
            Target::Name(proto, name, _) => Target::Name(*proto, name.clone(), port),
            Target::Unix(_) | Target::End(_) => self.clone(),
        }
    }

    /// Returns the target with another protocol. A Unix socket and an end are returned unchanged.
    #[must_use]
    pub fn with_proto(self, proto: Proto) -> Target {
        match self {
            Target::Ip(_, addr) => Target::Ip(proto, addr),
            Target::Name(_, name, port) => Target::Name(proto, name, port),
            Target::Unix(_) | Target::End(_) => self,
        }
    }
}

impl Endpoint {
    /// Returns the address of a peer that has one. An IPv4-mapped IPv6 address is returned as the IPv4 address.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Endpoint::Ip(_, addr) => match addr.ip().to_canonical() {
                IpAddr::V4(ip) => Some(SocketAddr::new(ip.into(), addr.port())),
                // The original keeps its zone.
                IpAddr::V6(_) => Some(*addr),
            },
            _ => None,
        }
    }

    /// Returns the protocol; all endpoints without an address are byte streams.
    pub fn proto(&self) -> Proto {
        match self {
            Endpoint::Ip(proto, _) => *proto,
            _ => Proto::Tcp,
        }
    }
}

/// Makes a TCP target.
impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Target {
        Target::Ip(Proto::Tcp, addr)
    }
}

/// Makes the endpoint of a TCP peer.
impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Endpoint {
        Endpoint::Ip(Proto::Tcp, addr)
    }
}

/// Makes a TCP address to listen on.
impl From<SocketAddr> for Bind {
    fn from(addr: SocketAddr) -> Bind {
        Bind::Ip(Proto::Tcp, addr)
    }
}

impl Bind {
    /// Makes a TCP address to listen on of a port and a host. The host may be a literal address, with or without brackets.
    pub fn from_host(host: &str, port: u16) -> Result<Bind, AddressError> {
        match parse_ip(host.strip_suffix('.').unwrap_or(host)) {
            Some(ip) => Ok(Bind::from(SocketAddr::new(ip, port))),
            None => Ok(Bind::Name(Proto::Tcp, Name::new(host)?, port)),
        }
    }

    /// Parses `PORT` (loopback), `:PORT` (all addresses), `ADDR:PORT` or `NAME:PORT`, or `fd:NAME` for sockets
    /// that the service manager passes, each after `udp:` if it is of UDP; or `unix:/path`. With port 0 the system chooses
    /// the port.
    pub fn parse(text: &str) -> Result<Bind, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Bind::Unix(parse_path(path)?));
        }
        let (proto, text) = split_proto(text)?;
        if let Some(name) = text.strip_prefix("fd:") {
            return Ok(Bind::Descriptor(proto, DescriptorName::new(name)?));
        }
        match split_port(text) {
            None => Ok(Bind::Loopback(proto, parse_port(text, 0)?)),
            Some(("" | "*", port)) => Ok(Bind::Any(proto, parse_port(port, 0)?)),
            Some((host, port)) => Ok(Bind::from_host(host, parse_port(port, 0)?)?.with_proto(proto)),
        }
    }

    /// Returns the protocol.
    pub fn proto(&self) -> Proto {
        match self {
            Bind::Loopback(proto, _) | Bind::Any(proto, _) | Bind::Ip(proto, _) => *proto,
            Bind::Name(proto, ..) | Bind::Descriptor(proto, _) => *proto,
            Bind::Unix(_) => Proto::Tcp,
        }
    }

    /// Returns the port; Unix sockets and passed sockets have none.
    pub fn port(&self) -> Option<u16> {
        match self {
            Bind::Loopback(_, port) | Bind::Any(_, port) | Bind::Name(_, _, port) => Some(*port),
            Bind::Ip(_, addr) => Some(addr.port()),
            Bind::Unix(_) | Bind::Descriptor(..) => None,
        }
    }

    /// Returns the address with another port. Unix sockets and passed sockets are returned unchanged.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Bind {
        match self {
            Bind::Loopback(proto, _) => Bind::Loopback(*proto, port),
            Bind::Any(proto, _) => Bind::Any(*proto, port),
            Bind::Name(proto, name, _) => Bind::Name(*proto, name.clone(), port),
            Bind::Ip(proto, addr) => Bind::Ip(*proto, at_port(*addr, port)),
            Bind::Unix(_) | Bind::Descriptor(..) => self.clone(),
        }
    }

    /// Returns the address with another protocol. Unix sockets are returned unchanged.
    #[must_use]
    pub fn with_proto(self, proto: Proto) -> Bind {
        match self {
            Bind::Loopback(_, port) => Bind::Loopback(proto, port),
            Bind::Any(_, port) => Bind::Any(proto, port),
            Bind::Name(_, name, port) => Bind::Name(proto, name, port),
            Bind::Ip(_, addr) => Bind::Ip(proto, addr),
            Bind::Descriptor(_, name) => Bind::Descriptor(proto, name),
            Bind::Unix(_) => self,
        }
    }
}

/// Splits an address that may end with a port range into the address of the first port and the count of ports:
/// `HOST:3000-3010` becomes `HOST:3000` and 11.
///
/// # Errors
/// The range runs backwards, or a port is outside of 1 to 65535.
pub fn split_port_range(text: &str) -> Result<(String, u16), AddressError> {
    if text.starts_with("unix:") || text.starts_with("fd:") {
        return Ok((text.to_owned(), 1));
    }
    let (_, address) = Proto::split(text);
    let ports = split_port(address).map_or(address, |(_, ports)| ports);
    let head = &text[..text.len() - ports.len()];
    let Some((first, last)) = ports.split_once('-') else {
        return Ok((text.to_owned(), 1));
    };
    let (first, last) = (parse_port(first, 1)?, parse_port(last, 1)?);
    let count = last.checked_sub(first).ok_or(AddressError("a range of ports that rises, such as 3000-3010"))?;
    Ok((format!("{head}{first}"), count.checked_add(1).ok_or(AddressError("a range of at most 65535 ports"))?))
}

/// Splits the protocol off an address that is no path.
fn split_proto(text: &str) -> Result<(Proto, &str), AddressError> {
    match Proto::split(text) {
        (Proto::Udp, rest) if rest.starts_with("unix:") => Err(AddressError(UDP_FORM)),
        split => Ok(split),
    }
}

/// Splits `host:port` at the last colon. An IPv6 address without brackets has no port, because its end cannot be found.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_split = !port.ends_with(']') && (!host.contains(':') || host.ends_with(']'));
    is_split.then_some((host, port))
}

/// Returns the address with another port; the zone stays.
pub(crate) fn at_port(mut addr: SocketAddr, port: u16) -> SocketAddr {
    addr.set_port(port);
    addr
}

/// Parses an IPv6 address with a zone, with or without brackets, and returns it without brackets. The zone is the name or
/// the number of an interface.
fn parse_zoned(host: &str) -> Option<Box<str>> {
    let bare = host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    let (ip, zone) = bare.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let fits = (1..=ZONE_BYTES_MAX).contains(&zone.len()) && zone.bytes().all(is_name_byte);
    fits.then(|| format!("{ip}%{zone}").into())
}

/// Returns true if a name or a zone may contain this byte.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn parse_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

fn parse_port(text: &str, least: u16) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { text.parse::<u16>().ok() } else { None };
    port.filter(|port| *port >= least).ok_or(AddressError(if least == 0 { BIND_FORM } else { TARGET_FORM }))
}

fn parse_path(text: &str) -> Result<PathBuf, AddressError> {
    if text.is_empty() || text.len() > UNIX_PATH_BYTES_MAX || text.contains('\0') {
        return Err(AddressError("unix:/path of at most 107 bytes"));
    }
    Ok(PathBuf::from(text))
}

/// Length of the longest interface name (netdevice(7)).
const ZONE_BYTES_MAX: usize = 15;
/// Length of the longest path in a `sockaddr_un` on Linux, without the final NUL (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;
/// Length of the longest name of passed sockets (systemd.socket(5), `FileDescriptorName=`).
const DESCRIPTOR_NAME_BYTES_MAX: usize = 255;
const TARGET_FORM: &str = "HOST:PORT with a port from 1 to 65535, [IPV6]:PORT, or unix:/path";
const UDP_FORM: &str = "a host and a port after udp:, such as udp:example.org:53";
const BIND_FORM: &str = "PORT, :PORT, HOST:PORT with a port from 0 to 65535, [IPV6]:PORT, unix:/path, or fd:NAME";

/// Writes the form that [`Target::parse`] reads.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Ip(proto, addr) => write!(f, "{}{addr}", proto.prefix()),
            Target::Name(proto, name, port) => write!(f, "{}{}:{port}", proto.prefix(), Dotted(name)),
            Target::Unix(path) => write!(f, "unix:{}", Printable(path)),
            Target::End(name) => write!(f, "end:{name}"),
        }
    }
}

/// Writes the form that [`Bind::parse`] reads.
impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bind::Loopback(proto, port) => write!(f, "{}{port}", proto.prefix()),
            Bind::Any(proto, port) => write!(f, "{}:{port}", proto.prefix()),
            Bind::Ip(proto, addr) => write!(f, "{}{addr}", proto.prefix()),
            Bind::Name(proto, name, port) => write!(f, "{}{}:{port}", proto.prefix(), Dotted(name)),
            Bind::Unix(path) => write!(f, "unix:{}", Printable(path)),
            Bind::Descriptor(proto, name) => write!(f, "{}fd:{}", proto.prefix(), name.as_str()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Only an IPv6 address with a zone has colons; it is printed in brackets.
        match self.0.contains(':') {
            true => write!(f, "[{}]", self.0),
            false => f.write_str(&self.0),
        }
    }
}

/// Writes a name at the beginning of an address: with a final dot if it would be read as a prefix.
struct Dotted<'a>(&'a Name);

impl fmt::Display for Dotted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dotted(name) = self;
        write!(f, "{name}{}", if matches!(name.as_str(), "udp" | "unix" | "fd") { "." } else { "" })
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for AddressError {}

/// Writes a path and escapes all characters that could end a log field or a log line.
pub(crate) struct Printable<'a>(pub &'a Path);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.to_string_lossy().chars() {
            match char {
                ']' | '[' | '"' | '\\' => write!(f, "\\{char}")?,
                char if char.is_control() || char.is_whitespace() => write!(f, "{}", char.escape_unicode())?,
                char => write!(f, "{char}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_target_is_parsed_from_each_of_its_forms() {
        let ip = |text: &str| Target::from(text.parse::<SocketAddr>().unwrap());
        assert_eq!(Target::parse("8080"), Ok(ip("127.0.0.1:8080")));
        assert_eq!(Target::parse("10.0.0.1:22"), Ok(ip("10.0.0.1:22")));
        assert_eq!(Target::parse("[::1]:22"), Ok(ip("[::1]:22")));
        assert_eq!(Target::parse("unix:/run/x"), Ok(Target::Unix("/run/x".into())));
        let name = Name::new("example.org").unwrap();
        assert_eq!(Target::parse("example.org:80"), Ok(Target::Name(Proto::Tcp, name.clone(), 80)));
        assert_eq!(Target::parse("example.org.:80"), Ok(Target::Name(Proto::Tcp, name, 80)));
        assert_eq!(Target::parse("10.0.0.1.:22"), Ok(ip("10.0.0.1:22")), "an address with a final dot is not a name");
    }

    #[test]
    fn an_address_with_a_zone_is_a_name() {
        let name = Name::new("fe80::1%eth0").unwrap();
        assert_eq!(name.zoned(), Some((Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), "eth0")));
        assert_eq!(Target::parse("[fe80::1%eth0]:80"), Ok(Target::Name(Proto::Tcp, name.clone(), 80)));
        assert_eq!(
            Target::parse("[FE80:0::1%eth0]:80"),
            Ok(Target::Name(Proto::Tcp, name.clone(), 80)),
            "one address, one name"
        );
        assert_eq!(Target::from_host("fe80::1%eth0", 80), Ok(Target::Name(Proto::Tcp, name.clone(), 80)));
        assert_eq!(Bind::parse("[fe80::1%eth0]:0"), Ok(Bind::Name(Proto::Tcp, name, 0)));
        assert_eq!(Target::parse("[fe80::1%br-1.5_x]:80").unwrap().to_string(), "[fe80::1%br-1.5_x]:80");
        assert_eq!(Bind::parse("[fe80::1%2]:0").unwrap().to_string(), "[fe80::1%2]:0");
        assert_eq!(Name::new("example.org").unwrap().zoned(), None);
        for text in [
            "fe80::1%eth0:80",
            "[fe80::1%]:80",
            "[fe80::1%a b]:80",
            "[fe80::1%sixteen-letters-]:80",
            "[fe80::1%a%b]:80",
            "[fe80::1%a/b]:80",
            "[10.0.0.1%eth0]:80",
            "10.0.0.1%eth0:80",
            "name%eth0:80",
            "[fe80::1%eth0:80",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_invalid_target_is_refused() {
        for text in [
            "",
            ":80",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:+1",
            "[::1]",
            "a b:1",
            "::1:80",
            "a..b:1",
            "a..:1",
            ".:1",
            "h\n:1",
            "unix:",
        ] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
        assert!(Target::from_host(&"a".repeat(254), 1).is_err());
    }

    #[test]
    fn a_port_alone_is_loopback_and_a_port_after_a_colon_is_all_addresses() {
        let passed = Bind::parse("fd:web.tcp").unwrap();
        assert!(matches!(&passed, Bind::Descriptor(Proto::Tcp, name) if name.as_str() == "web.tcp"));
        assert_eq!((passed.to_string().as_str(), passed.port()), ("fd:web.tcp", None));
        let of_udp = passed.with_proto(Proto::Udp);
        assert_eq!((of_udp.to_string().as_str(), of_udp.proto()), ("udp:fd:web.tcp", Proto::Udp));
        assert_eq!(Bind::parse("udp:fd:web.tcp"), Ok(of_udp));
        for wrong in ["fd:", "fd:a:b", "fd:a b", "fd:\u{e9}", &format!("fd:{}", "x".repeat(256))] {
            assert!(Bind::parse(wrong).is_err(), "{wrong}");
        }
        let host = Bind::Name(Proto::Tcp, Name::new("fd").unwrap(), 80);
        assert_eq!((host.to_string().as_str(), Bind::parse("fd.:80")), ("fd.:80", Ok(host.clone())));
        assert_eq!(Bind::parse("8080"), Ok(Bind::Loopback(Proto::Tcp, 8080)));
        assert_eq!(Bind::parse(":8080"), Ok(Bind::Any(Proto::Tcp, 8080)));
        assert_eq!(Bind::parse("0.0.0.0:0"), Ok(Bind::Ip(Proto::Tcp, "0.0.0.0:0".parse().unwrap())));
        assert_eq!(Bind::parse("[::]:1"), Ok(Bind::Ip(Proto::Tcp, "[::]:1".parse().unwrap())));
        assert_eq!(Bind::parse("localhost:1"), Ok(Bind::Name(Proto::Tcp, Name::new("localhost").unwrap(), 1)));
    }

    #[test]
    fn a_port_range_is_split_into_the_first_port_and_a_count() {
        assert_eq!(split_port_range("host:3000-3010"), Ok(("host:3000".into(), 11)));
        assert_eq!(split_port_range("3000-3001"), Ok(("3000".into(), 2)));
        assert_eq!(split_port_range("[::1]:5-5"), Ok(("[::1]:5".into(), 1)));
        assert_eq!(split_port_range("my-host:80"), Ok(("my-host:80".into(), 1)));
        assert_eq!(split_port_range("unix:/a-b"), Ok(("unix:/a-b".into(), 1)));
        assert_eq!(split_port_range("udp:host:3000-3010"), Ok(("udp:host:3000".into(), 11)));
        assert_eq!(split_port_range("udp:3000-3010"), Ok(("udp:3000".into(), 11)));
        assert_eq!(split_port_range("udp::3000-3010"), Ok(("udp::3000".into(), 11)));
        assert_eq!(split_port_range("udp:[::1]:53"), Ok(("udp:[::1]:53".into(), 1)));
        assert!(split_port_range("host:10-9").is_err());
    }

    #[test]
    fn a_printed_address_parses_to_itself() {
        for text in ["10.0.0.1:22", "[::1]:22", "example.org:80", "unix:/run/x", "unix.:80", "udp.:80"] {
            assert_eq!(Target::parse(text).unwrap().to_string(), text);
        }
        for text in ["8080", ":8080", "[::1]:0", "localhost:1", "udp.:0", "udp:8080", "udp::8080", "udp:[::1]:0"] {
            assert_eq!(Bind::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_address_has_the_protocol_of_its_prefix() {
        let udp = |text: &str| Target::parse(text).unwrap().with_proto(Proto::Udp);
        for text in ["10.0.0.1:53", "[::1]:53", "dns.example:53", "53", "[fe80::1%eth0]:53", "udp.:53"] {
            let prefixed = Target::parse(&format!("udp:{text}")).unwrap();
            assert_eq!((prefixed.proto(), &prefixed), (Proto::Udp, &udp(text)), "{text}");
            assert_eq!(Target::parse(text).unwrap().proto(), Proto::Tcp);
            assert_eq!(prefixed.with_port(1).proto(), Proto::Udp);
            assert_ne!(prefixed, prefixed.clone().with_proto(Proto::Tcp));
        }
        assert_eq!(Bind::parse("udp:53"), Ok(Bind::Loopback(Proto::Udp, 53)));
        assert_eq!(Bind::parse("udp::53"), Ok(Bind::Any(Proto::Udp, 53)));
        assert_eq!(Bind::parse("udp:gate:53").unwrap().with_port(1).to_string(), "udp:gate:1");
        assert_eq!(Bind::parse("udp:[::1]:53").unwrap().with_proto(Proto::Tcp).to_string(), "[::1]:53");
        assert_eq!(Target::parse("unix:/x").unwrap().proto(), Proto::Tcp);
        for text in ["udp:", "udp:host", "udp::53", "udp:unix:/x", "udp:[::1]", "udp:host:0"] {
            assert!(Target::parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_printed_address_parses_to_itself(
            text in "(udp:|unix:/)?(udp|unix|[a-z]{1,3}\\.?|10\\.0\\.0\\.1|::1|\\*|)(:?[0-9]{1,5})?",
        ) {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()), Ok(target));
            }
            if let Ok(bind) = Bind::parse(&text) {
                prop_assert_eq!(Bind::parse(&bind.to_string()), Ok(bind));
            }
        }
    }
}
