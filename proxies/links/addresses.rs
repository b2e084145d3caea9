//! The addresses of links: the peer, the addresses to listen on, and the paths to a peer. The default port is [`PORT`].
//!
//! ```text
//! peer   = HOST[:PORT]                              a bare number is a port of loopback, as in all addresses
//! listen = ADDR[:PORT]                              the same, and * or :PORT for every address
//! path   = [CARRIER:][SOURCE[,SOURCE]...][:PORT][%INTERFACE][->HOST[:PORT]]    at least one of the five
//! ```
//!
//! All functions are pure: they resolve no name and do not check that an interface exists.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use seaprox::node::{CarrierKind, Path};
use seaprox::{AddressError, Bind, Proto, Target, Upstream};

/// The default port of links.
pub const PORT: u16 = 23232;

/// The error of a malformed path: the wrong part, and the expected form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathError(String);

/// Parses the address of a peer.
///
/// # Errors
/// Fails if the text is no address.
pub fn peer(text: &str) -> Result<Target, AddressError> {
    peer_or(text, PORT)
}

/// Parses a server to dial: the address of a peer, or a service that DNS knows.
///
/// # Errors
/// Fails if the text is neither.
pub fn server(text: &str) -> Result<Upstream, AddressError> {
    match Upstream::parse(text) {
        Ok(service @ Upstream::Service(_)) => Ok(service),
        _ => peer(text).map(Upstream::Target),
    }
}

/// Parses an address on which links are accepted.
///
/// # Errors
/// Fails if the text is no address.
pub fn listen(text: &str) -> Result<Bind, AddressError> {
    match Bind::parse(text) {
        Ok(place) => Ok(place),
        Err(_) if text == "*" => Ok(Bind::Any(Proto::Tcp, PORT)),
        Err(error) => match portless(text, PORT) {
            Some(Target::Ip(proto, addr)) => Ok(Bind::Ip(proto, addr)),
            Some(Target::Name(proto, name, port)) => Ok(Bind::Name(proto, name, port)),
            _ => Err(error),
        },
    }
}

/// Parses a path to a peer. `port` is the port of the peer if the path does not name another.
///
/// # Errors
/// Fails with the part that is wrong.
pub fn path(text: &str, port: u16) -> Result<Path, PathError> {
    let wrong = |what: &str, part: &str, form: &str| PathError(format!("{what} {part:?}: expected {form}"));
    let (from, to) = match text.split_once("->") {
        Some((from, to)) => (from, Some(to)),
        None => (text, None),
    };
    let (carrier, from) = match from.split_once(':') {
        Some((name, rest)) if CarrierKind::parse(name).is_some() => (CarrierKind::parse(name), rest),
        _ => (None, from),
    };
    let Source { source, local_port, interface } = source_of(from);
    if source.is_empty() && local_port.is_none() && interface.is_none() && to.is_none() && carrier.is_none() {
        return Err(PathError(format!("expected {PATH_FORM}")));
    }
    let mut sources = Vec::new();
    for text in source.split(',').filter(|_| !source.is_empty()) {
        sources.push(ip(text).ok_or_else(|| wrong("the source", text, "an address of this host"))?);
    }
    if sources.len() > 1 && carrier != Some(CarrierKind::Sctp) {
        return Err(wrong(
            "the sources",
            source,
            "one address, because only a path that begins with sctp: has several",
        ));
    }
    if sources.iter().any(|other| other.is_ipv4() != sources[0].is_ipv4()) {
        return Err(wrong("the sources", source, "addresses of one family"));
    }
    let mut sources = sources.into_iter();
    let (source, more_sources) = (sources.next(), sources.collect());
    let local_port = match local_port {
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(wrong("the port of the source", text, "1 to 65535")),
        },
        None => None,
    };
    if let Some(name) = interface.filter(|name| !is_interface(name)) {
        return Err(wrong("the interface", name, "a name such as eth0"));
    }
    let peer = match to {
        Some(text) => {
            let peer = peer_or(text, port).map_err(|_| wrong("the peer", text, "HOST[:PORT]"))?;
            peer.proto().require_tcp().map_err(|error| PathError(format!("the peer {text:?}: {error}")))?;
            Some(peer)
        }
        None => None,
    };
    Ok(Path { carrier, source, more_sources, local_port, interface: interface.map(str::to_owned), peer })
}

/// Parses a path to a peer with this port. An empty text is the path on which the system chooses everything.
///
/// # Errors
/// Fails with the part that is wrong.
pub fn path_or_any(text: &str, port: u16) -> Result<Path, String> {
    match text {
        "" => Ok(Path::default()),
        text => path(text, port).map_err(|error| format!("path {text:?}: {error}")),
    }
}

/// The parts of the source of a path.
struct Source<'a> {
    source: &'a str,
    local_port: Option<&'a str>,
    interface: Option<&'a str>,
}

/// Splits `SOURCE[:PORT][%INTERFACE]`. An address with its zone may stand in brackets, as in all addresses; the port then
/// follows the brackets.
fn source_of(text: &str) -> Source<'_> {
    let zoned = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((inner, rest)) = zoned
        && let Some((source, interface)) = inner.split_once('%')
        && (rest.is_empty() || rest.starts_with(':'))
    {
        return Source { source, local_port: rest.strip_prefix(':'), interface: Some(interface) };
    }
    let (text, interface) = match text.split_once('%') {
        Some((text, interface)) => (text, Some(interface)),
        None => (text, None),
    };
    let (source, local_port) = match text.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((source, port)) if !source.contains(':') || source.ends_with(']') => (source, Some(port)),
        _ => (text, None),
    };
    Source { source, local_port, interface }
}

/// Parses the address of a peer. `port` is its port if the text has none.
///
/// # Errors
/// Fails if the text is no address.
pub fn peer_or(text: &str, port: u16) -> Result<Target, AddressError> {
    Target::parse(text).or_else(|error| portless(text, port).ok_or(error))
}

/// Parses a host without a port. A number is not a host but a port.
fn portless(text: &str, port: u16) -> Option<Target> {
    let (proto, text) = Proto::split(text);
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { None } else { Some(Target::from_host(text, port).ok()?.with_proto(proto)) }
}

fn ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// Returns true if an interface can have this name: shorter than IFNAMSIZ of netdevice(7), and accepted by `ip link`.
fn is_interface(name: &str) -> bool {
    let is_allowed = |char: char| char.is_ascii_graphic() && char != '/' && char != '%';
    (1..INTERFACE_BYTES).contains(&name.len()) && name.chars().all(is_allowed) && name != "." && name != ".."
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PathError {}

const PATH_FORM: &str = "[CARRIER:]SOURCE[,SOURCE]...[:PORT][%INTERFACE][->HOST[:PORT]], such as 10.0.0.2, %wlan0 or 10.0.0.2->198.51.100.7";
/// IFNAMSIZ, with the final NUL.
const INTERFACE_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: fmt::Display, E: fmt::Display>(result: Result<T, E>) -> String {
        result.map_or_else(|error| error.to_string(), |it| it.to_string())
    }

    #[test]
    fn a_peer_without_a_port_has_the_default_port() {
        for (text, meaning) in [
            ("remote", "remote:23232"),
            ("remote:1", "remote:1"),
            ("10.0.0.1", "10.0.0.1:23232"),
            ("::1", "[::1]:23232"),
            ("[::1]", "[::1]:23232"),
            ("[::1]:5", "[::1]:5"),
            ("fe80::1%eth0", "[fe80::1%eth0]:23232"),
            ("[fe80::1%eth0]:5", "[fe80::1%eth0]:5"),
            ("8080", "127.0.0.1:8080"),
            ("unix:/x", "unix:/x"),
        ] {
            assert_eq!(shown(peer(text)), meaning, "{text}");
        }
        for text in ["", ":", "remote:", "remote:0", "a b", "70000", "[::1", "a:b:c"] {
            assert!(shown(peer(text)).starts_with("expected HOST:PORT"), "{text}: {}", shown(peer(text)));
        }
    }

    #[test]
    fn an_address_to_listen_on_without_a_port_has_the_default_port() {
        for (text, meaning) in [
            ("0.0.0.0", "0.0.0.0:23232"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("::", "[::]:23232"),
            ("[::]:7", "[::]:7"),
            ("[fe80::1%eth0]", "[fe80::1%eth0]:23232"),
            ("*", ":23232"),
            (":9", ":9"),
            ("9", "9"),
            ("gate", "gate:23232"),
        ] {
            assert_eq!(shown(listen(text)), meaning, "{text}");
        }
        assert_eq!(listen("23232"), Ok(Bind::Loopback(Proto::Tcp, 23232)));
        for text in ["", "a b", "65536", "gate:x"] {
            assert!(shown(listen(text)).starts_with("expected PORT, :PORT"), "{text}");
        }
    }

    #[test]
    fn a_path_has_a_source_an_interface_or_a_peer_address_or_all_of_them() {
        let with = |source: Option<&str>, interface: Option<&str>, to: Option<&str>| Path {
            carrier: None,
            more_sources: Vec::new(),
            source: source.map(|text| text.parse().unwrap()),
            local_port: None,
            interface: interface.map(str::to_owned),
            peer: to.map(|text| Target::parse(text).unwrap()),
        };
        for (text, expected) in [
            ("10.0.0.2", with(Some("10.0.0.2"), None, None)),
            ("%wlan0", with(None, Some("wlan0"), None)),
            ("10.0.0.2%eth0.5", with(Some("10.0.0.2"), Some("eth0.5"), None)),
            ("fe80::1%eth0", with(Some("fe80::1"), Some("eth0"), None)),
            ("[fe80::1%eth0]->[fe80::2%eth0]", with(Some("fe80::1"), Some("eth0"), Some("[fe80::2%eth0]:99"))),
            ("[fd00::2]->[fd00::1]", with(Some("fd00::2"), None, Some("[fd00::1]:99"))),
            ("->gate", with(None, None, Some("gate:99"))),
            ("10.0.0.2%eth0->198.51.100.7:443", with(Some("10.0.0.2"), Some("eth0"), Some("198.51.100.7:443"))),
        ] {
            assert_eq!(path(text, 99), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("10.0.0.2:5000", with(Some("10.0.0.2"), None, None)),
            (":5000->gate", with(None, None, Some("gate:99"))),
            ("10.0.0.2:5000%eth0->gate:7", with(Some("10.0.0.2"), Some("eth0"), Some("gate:7"))),
            ("[fd00::2]:5000->gate", with(Some("fd00::2"), None, Some("gate:99"))),
            ("[fe80::1%eth0]:5000", with(Some("fe80::1"), Some("eth0"), None)),
        ] {
            assert_eq!(path(text, 99), Ok(Path { local_port: Some(5000), ..expected }), "{text}");
        }
        for (text, carrier, expected) in [
            ("sctp:", CarrierKind::Sctp, with(None, None, None)),
            ("sctp:10.0.0.2->gate", CarrierKind::Sctp, with(Some("10.0.0.2"), None, Some("gate:99"))),
            ("mptcp:%wlan0", CarrierKind::Mptcp, with(None, Some("wlan0"), None)),
            ("tcp:[fd00::2]", CarrierKind::Tcp, with(Some("fd00::2"), None, None)),
        ] {
            let expected = Path { carrier: Some(carrier), ..expected };
            assert_eq!(path(text, 99).map(|path| path.to_string()), Ok(expected.to_string()));
            assert_eq!(path(text, 99), Ok(expected), "{text}");
        }
        let several = |sources: [&str; 2], local_port: Option<u16>| Path {
            carrier: Some(CarrierKind::Sctp),
            more_sources: vec![sources[1].parse().unwrap()],
            local_port,
            ..with(Some(sources[0]), None, None)
        };
        for (text, expected) in [
            ("sctp:10.0.0.2,10.1.0.2", several(["10.0.0.2", "10.1.0.2"], None)),
            ("sctp:10.0.0.2,10.1.0.2:5000", several(["10.0.0.2", "10.1.0.2"], Some(5000))),
            ("sctp:fd00::2,fd01::2", several(["fd00::2", "fd01::2"], None)),
            ("sctp:[fd00::2],[fd01::2]:5000", several(["fd00::2", "fd01::2"], Some(5000))),
        ] {
            assert_eq!(path(text, 99), Ok(expected.clone()), "{text}");
            assert_eq!(expected.to_string(), text);
        }
        for (text, error) in [
            ("10.0.0.2,10.1.0.2", "the sources \"10.0.0.2,10.1.0.2\": expected one address, because only a path that begins with sctp: has several".to_owned()),
            ("sctp:10.0.0.2,fd00::2", "the sources \"10.0.0.2,fd00::2\": expected addresses of one family".to_owned()),
            ("sctp:10.0.0.2,", "the source \"\": expected an address of this host".to_owned()),
            ("", format!("expected {PATH_FORM}")),
            ("eth0", "the source \"eth0\": expected an address of this host".to_owned()),
            ("10.0.0.2%", "the interface \"\": expected a name such as eth0".to_owned()),
            ("%a/b", "the interface \"a/b\": expected a name such as eth0".to_owned()),
            ("%sixteen-letters-", "the interface \"sixteen-letters-\": expected a name such as eth0".to_owned()),
            ("10.0.0.2:0", "the port of the source \"0\": expected 1 to 65535".to_owned()),
            ("10.0.0.2:x", "the port of the source \"x\": expected 1 to 65535".to_owned()),
            ("10.0.0.2->", "the peer \"\": expected HOST[:PORT]".to_owned()),
            ("->a b", "the peer \"a b\": expected HOST[:PORT]".to_owned()),
        ] {
            assert_eq!(shown(path(text, 99).map(|_| "a path")), error, "{text}");
        }
    }
}
