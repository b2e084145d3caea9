//! One end of a rule: a set of addresses, names or Unix sockets, and the ports.
//!
//! The grammar is at the head of [`super`]. The parser normalizes a place, so a match only compares and never allocates.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::{Dest, Match, RuleError};
use crate::{Name, Proto};

/// The set of sources or targets that one condition of a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Any,
    /// Invariant: the address is canonical, and all bits after the prefix are zero.
    Network(IpAddr, u8),
    /// Invariant: the name is in lower case and has no final dot.
    Name(Names, Box<str>),
    Unix(Option<PathBuf>),
}

/// The names that a [`Place::Name`] matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Itself,
    Below,
    ItselfAndBelow,
}

/// The ports from the first to the second, both included. Invariant: the first is not above the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports(u16, u16);

impl Place {
    pub(super) fn parse(text: &str) -> Result<Place, RuleError> {
        if text == "*" {
            return Ok(Place::Any);
        }
        if text == "unix" {
            return Ok(Place::Unix(None));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let is_absolute = path.starts_with('/');
            let refusal = RuleError("an absolute path after unix:");
            return is_absolute.then(|| Place::Unix(Some(path.into()))).ok_or(refusal);
        }
        let (host, bits) = text.split_once('/').map_or((text, None), |(host, bits)| (host, Some(bits)));
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let ip = match inner {
            Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => host.parse().ok(),
        };
        match (ip, bits) {
            (Some(ip), bits) => Place::network(ip, bits),
            (None, None) => Place::name(text),
            (None, Some(_)) => Err(RuleError("a network such as 10.0.0.0/8 or fd00::/8 ([fd00::]/8:443 with a port)")),
        }
    }

    /// Returns true if the place can match a source. A source has an address or is a Unix socket without a path.
    pub(super) fn is_source(&self) -> bool {
        !matches!(self, Place::Name(..) | Place::Unix(Some(_)))
    }

    fn network(ip: IpAddr, bits: Option<&str>) -> Result<Place, RuleError> {
        let width = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(text) if text.contains(':') => return Err(RuleError("an IPv6 network with a port as [fd00::]/8:443")),
            Some(text) => number(text)
                .and_then(|bits| u8::try_from(bits).ok())
                .filter(|bits| *bits <= width)
                .ok_or(RuleError("a prefix length from 0 to 32 for IPv4, from 0 to 128 for IPv6"))?,
        };
        Ok(match (ip, ip.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(plain)) if bits >= 96 => {
                Place::Network(truncate(plain.into(), bits - 96), bits - 96)
            }
            _ => Place::Network(truncate(ip, bits), bits),
        })
    }

    fn name(text: &str) -> Result<Place, RuleError> {
        let (names, name) = match (text.strip_prefix("*."), text.strip_prefix('.')) {
            (Some(name), _) => (Names::Below, name),
            (None, Some(name)) => (Names::ItselfAndBelow, name),
            (None, None) => (Names::Itself, text),
        };
        let valid = Name::new(name).map_err(|_| RuleError(PLACE_FORM))?;
        // A name without a letter is a mistyped address, and the rule would silently match nothing. A host called `unix`
        // would be printed as the word for all Unix sockets.
        let is_word = matches!(names, Names::Itself) && valid.as_str().eq_ignore_ascii_case("unix");
        if !name.bytes().any(|byte| byte.is_ascii_alphabetic()) || is_word {
            return Err(RuleError(PLACE_FORM));
        }
        Ok(Place::Name(names, valid.as_str().to_ascii_lowercase().into()))
    }

    pub(super) fn matches(&self, dest: &Dest) -> Match {
        match self {
            Place::Any => Match::Yes,
            Place::Network(network, bits) => match dest.ip {
                Some(ip) => within(ip, *network, *bits).into(),
                None if dest.name.is_some() => Match::Unknown,
                None => Match::No,
            },
            Place::Name(names, wanted) => dest.name.is_some_and(|name| names.matches(name, wanted)).into(),
            Place::Unix(wanted) => {
                let is_unix = dest.ip.is_none() && dest.name.is_none() && !dest.is_end;
                (is_unix && wanted.as_deref().is_none_or(|wanted| Some(wanted) == dest.path)).into()
            }
        }
    }
}

impl Names {
    fn matches(self, name: &str, wanted: &str) -> bool {
        let (name, wanted) = (name.as_bytes(), wanted.as_bytes());
        let above = name.len().saturating_sub(wanted.len());
        let tail_fits = name[above..].eq_ignore_ascii_case(wanted);
        match self {
            Names::Itself => tail_fits && above == 0,
            Names::Below => tail_fits && above > 1 && name[above - 1] == b'.',
            Names::ItselfAndBelow => tail_fits && (above == 0 || (above > 1 && name[above - 1] == b'.')),
        }
    }
}

impl Ports {
    fn parse(text: &str) -> Result<Ports, RuleError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if 1 <= first && first <= last => Ok(Ports(first, last)),
            _ => Err(RuleError("a port from 1 to 65535, a range that rises such as 8000-8999, or *")),
        }
    }

    pub(super) fn contains(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }
}

/// Splits the ports off. Text with two colons outside of brackets is an IPv6 address without a port.
pub(super) fn split_ports(text: &str) -> Result<(&str, Option<Ports>), RuleError> {
    let outside = text.rfind(']').map_or(0, |end| end + 1);
    let colons = text[outside..].matches(':').count();
    if text.starts_with("unix:") || colons == 0 || (outside == 0 && colons > 1) {
        return Ok((text, None));
    }
    match text.rsplit_once(':').unwrap_or((text, "")) {
        // `*` stands for all ports, as in PermitOpen of ssh; no port means the same.
        (place, "*") if !place.is_empty() => Ok((place, None)),
        (place, ports) => Ok((place, Some(Ports::parse(ports)?))),
    }
}

fn number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Returns the name without its final dot.
pub(super) fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Returns true if the network contains the address. The unspecified address is also in each network that contains the
/// loopback address, because a connect to it goes there.
fn within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let fits = |ip: IpAddr| ip.is_ipv4() == network.is_ipv4() && truncate(ip, bits) == network;
    let loopback = if ip.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
    fits(ip) || (ip.is_unspecified() && fits(loopback))
}

/// Returns the address with all bits after the prefix cleared.
fn truncate(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits.into())).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

const PLACE_FORM: &str = "an address, a network such as 10.0.0.0/8, a name, *.name, .name, unix:/path or *, \
                          then :PORT or :PORT-PORT if need be";

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Any => f.write_str("*"),
            Place::Network(IpAddr::V4(ip), 32) => ip.fmt(f),
            Place::Network(IpAddr::V4(ip), bits) => write!(f, "{ip}/{bits}"),
            Place::Network(IpAddr::V6(ip), 128) => write!(f, "[{ip}]"),
            Place::Network(IpAddr::V6(ip), bits) => write!(f, "[{ip}]/{bits}"),
            // Without the dot, `udp:53` would be the protocol.
            Place::Name(Names::Itself, name) if **name == *Proto::Udp.as_str() => write!(f, "{name}."),
            Place::Name(Names::Itself, name) => f.write_str(name),
            Place::Name(Names::Below, name) => write!(f, "*.{name}"),
            Place::Name(Names::ItselfAndBelow, name) => write!(f, ".{name}"),
            Place::Unix(None) => f.write_str("unix"),
            Place::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ports(first, last) = self;
        if first == last { first.fmt(f) } else { write!(f, "{first}-{last}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_normalized_when_it_is_parsed() {
        for (text, plain) in [
            ("*", "*"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "[::1]"),
            ("[fd00::1]/8", "[fd00::]/8"),
            ("fd00::/8", "[fd00::]/8"),
            ("::/0", "[::]/0"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
            ("Example.ORG.", "example.org"),
            ("*.Example.org", "*.example.org"),
            (".example.org", ".example.org"),
            ("unix", "unix"),
            ("unix:/run/x", "unix:/run/x"),
        ] {
            let place = Place::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(place.to_string(), plain);
            assert_eq!(Place::parse(plain), Ok(place));
        }
    }

    #[test]
    fn an_invalid_place_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "::/129",
            "fd00::/8:443",
            "10.0.0.256",
            "10.0.0",
            "10.0.0.0-255",
            "[10.0.0.1]",
            "[::1",
            "a b",
            "a/8",
            "**",
            "*.",
            "..org",
            "unix:",
            "unix:run",
            "exa*mple.org",
        ] {
            assert!(Place::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ports_are_split_from_their_place() {
        let split = |text| split_ports(text).unwrap();
        assert_eq!(split("a:80"), ("a", Some(Ports(80, 80))));
        assert_eq!(split("10.0.0.0/8:1-65535"), ("10.0.0.0/8", Some(Ports(1, 65535))));
        assert_eq!(split("[fd00::]/8:443"), ("[fd00::]/8", Some(Ports(443, 443))));
        assert_eq!(split("a:*"), ("a", None));
        assert_eq!(split("[::1]:*"), ("[::1]", None));
        assert_eq!(split("[::1]"), ("[::1]", None));
        assert_eq!(split("fd00::/8"), ("fd00::/8", None));
        assert_eq!(split("unix:/run/a:1"), ("unix:/run/a:1", None));
        for text in ["a:", "a:0", "a:65536", "a:2-1", "a:1-", "a:-1", "a:1-2-3", ":*", "a:**", "[::1]:x", "a:http"] {
            assert!(split_ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses_and_no_others() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(within(ip("10.255.0.1"), ip("10.0.0.0"), 8));
        assert!(!within(ip("11.0.0.0"), ip("10.0.0.0"), 8));
        assert!(within(ip("11.0.0.0"), ip("0.0.0.0"), 0));
        assert!(!within(ip("::1"), ip("0.0.0.0"), 0));
        assert!(within(ip("fdff::1"), ip("fd00::"), 8));
        assert!(within(ip("0.0.0.0"), ip("127.0.0.0"), 8), "a connect to it goes to loopback");
        assert!(within(ip("::"), ip("::1"), 128), "a connect to it goes to loopback");
        assert!(within(ip("0.0.0.0"), ip("0.0.0.0"), 32));
    }
}
