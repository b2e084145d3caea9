//! Rules for the addresses that a key may have this node listen on.
//!
//! ```text
//! rule  = [udp:] *               any port of any address
//!       | [udp:] [host ":"] ports
//! host  = (nothing)              loopback, of both families, and localhost
//!       | localhost              the same
//!       | * | 0.0.0.0 | [::]     any address, also the unspecified one
//!       | 10.0.0.1 | [fd00::1]   this address
//!       | [fe80::1%eth0]         this address on this interface, if the request names the same zone
//!       | NAME                   the addresses of this name, if the request contains this name
//! ports = 8080 | 8000-8999 | *   `*` includes port 0
//!       | 0                      a port that the system chooses
//! ```
//! A rule is about TCP, or about UDP after `udp:`. Names are compared without case. An IPv4-mapped IPv6 address counts as the IPv4 address. A rule for one loopback address
//! does not permit the loopback of both families. A Unix socket is never permitted. This module resolves no names.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{Bind, Name, Proto, Target};

/// A set of addresses and ports that a key may have this node listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenRule {
    proto: Proto,
    host: Host,
    ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Loopback,
    Any,
    /// Invariant: the address is canonical and not unspecified.
    Ip(IpAddr),
    /// Invariant: the name is an address with a zone.
    Zoned(Name),
    /// Invariant: the name is in lower case, not localhost, and not an address with a zone.
    Name(Box<str>),
}

/// The ports from the first to the second, both included. Invariant: the first is not above the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports(u16, u16);

impl ListenRule {
    /// Returns true if the rule permits to listen on this address.
    pub fn permits(&self, bind: &Bind) -> bool {
        let has_port = bind.port().is_some_and(|port| self.ports.contains(port));
        has_port && bind.proto() == self.proto && self.host.permits(bind)
    }
}

impl Host {
    fn parse(text: &str) -> Option<Host> {
        if text == "*" {
            return Some(Host::Any);
        }
        // The port does not matter; the parser reads an address with or without brackets, or a name.
        match Target::from_host(text, 1).ok()? {
            Target::Ip(_, addr) if addr.ip().to_canonical().is_unspecified() => Some(Host::Any),
            Target::Ip(_, addr) => Some(Host::Ip(addr.ip().to_canonical())),
            Target::Name(_, name, _) if is_localhost(&name) => Some(Host::Loopback),
            Target::Name(_, name, _) if name.zoned().is_some() => Some(Host::Zoned(name)),
            // A name without a letter is a mistyped address.
            Target::Name(_, name, _) if !name.as_str().bytes().any(|byte| byte.is_ascii_alphabetic()) => None,
            Target::Name(_, name, _) => Some(Host::Name(name.as_str().to_ascii_lowercase().into())),
            Target::Unix(_) | Target::End(_) => None,
        }
    }

    fn permits(&self, bind: &Bind) -> bool {
        match (self, bind) {
            (_, Bind::Unix(_) | Bind::Descriptor(..)) => false,
            (Host::Any, _) | (Host::Loopback, Bind::Loopback(..)) => true,
            (Host::Loopback, Bind::Ip(_, addr)) => addr.ip().to_canonical().is_loopback(),
            (Host::Loopback, Bind::Name(_, name, _)) => is_localhost(name),
            (Host::Ip(ip), Bind::Ip(_, addr)) => addr.ip().to_canonical() == *ip,
            // Interface names are case-sensitive.
            (Host::Zoned(wanted), Bind::Name(_, name, _)) => name == wanted,
            (Host::Name(wanted), Bind::Name(_, name, _)) => name.as_str().eq_ignore_ascii_case(wanted),
            _ => false,
        }
    }
}

impl Ports {
    const ALL: Ports = Ports(0, u16::MAX);

    fn parse(text: &str) -> Option<Ports> {
        match text {
            "*" => return Some(Ports::ALL),
            "0" => return Some(Ports(0, 0)),
            _ => {}
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Ports(port(first)?, port(last)?);
        (ports.0 <= ports.1).then_some(ports)
    }

    fn contains(self, port: u16) -> bool {
        (self.0..=self.1).contains(&port)
    }
}

/// Parses a port from 1 to 65535 that consists of digits only.
fn port(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok().filter(|port| *port > 0) } else { None }
}

fn is_localhost(name: &Name) -> bool {
    name.as_str().eq_ignore_ascii_case("localhost")
}

impl FromStr for ListenRule {
    type Err = &'static str;

    /// Parses a rule. The error is the expected form.
    fn from_str(text: &str) -> Result<ListenRule, &'static str> {
        let (proto, text) = Proto::split(text);
        if text == "*" {
            return Ok(ListenRule { proto, host: Host::Any, ports: Ports::ALL });
        }
        let (host, ports) = match text.rsplit_once(':') {
            None => (Host::Loopback, text),
            // The end of an IPv6 address without brackets cannot be found.
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => return Err(LISTEN_FORM),
            Some((host, ports)) => (Host::parse(host).ok_or(LISTEN_FORM)?, ports),
        };
        Ok(ListenRule { proto, host, ports: Ports::parse(ports).ok_or(LISTEN_FORM)? })
    }
}

impl fmt::Display for ListenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.proto.prefix())?;
        match (&self.host, self.ports) {
            (Host::Any, Ports::ALL) => return f.write_str("*"),
            (Host::Loopback, Ports::ALL) => f.write_str("localhost:")?,
            (Host::Loopback, _) => {}
            (Host::Any, _) => f.write_str("*:")?,
            (Host::Ip(IpAddr::V4(ip)), _) => write!(f, "{ip}:")?,
            (Host::Ip(IpAddr::V6(ip)), _) => write!(f, "[{ip}]:")?,
            (Host::Zoned(name), _) => write!(f, "{name}:")?,
            // Without the dot, `udp:53` would be the protocol.
            (Host::Name(name), _) if **name == *Proto::Udp.as_str() => write!(f, "{name}.:")?,
            (Host::Name(name), _) => write!(f, "{name}:")?,
        }
        match self.ports {
            Ports::ALL => f.write_str("*"),
            Ports(first, last) if first == last => first.fmt(f),
            Ports(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

const LISTEN_FORM: &str = "[ADDR:]PORT, [ADDR:]PORT-PORT or *, where ADDR is an address ([::1] in brackets), a name or \
                           *, and none is loopback";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn permits(rule: &str, bind: &str) -> bool {
        rule.parse::<ListenRule>().unwrap_or_else(|_| panic!("{rule}")).permits(&Bind::parse(bind).unwrap())
    }

    #[test]
    fn a_port_alone_permits_loopback_only() {
        for bind in
            ["8080", "127.0.0.1:8080", "127.9.9.9:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080", "LocalHost:8080"]
        {
            assert!(permits("8080", bind) && permits("localhost:8080", bind), "{bind}");
        }
        for bind in [
            "8081",
            "0",
            ":8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "10.0.0.1:8080",
            "example.org:8080",
            "unix:/8080",
            "[::ffff:0.0.0.0]:8080",
        ] {
            assert!(!permits("8080", bind), "{bind}");
        }
    }

    #[test]
    fn a_star_permits_any_address_and_an_address_permits_itself() {
        for bind in ["8080", ":8080", "0.0.0.0:8080", "10.0.0.1:8080", "example.org:8080"] {
            assert!(permits("*:8080", bind) && permits("0.0.0.0:8080", bind) && permits("[::]:8080", bind), "{bind}");
            assert!(permits("*", bind), "{bind}");
            assert!(!permits("*:8081", bind), "{bind}");
        }
        assert!(!permits("*", "unix:/run/x"));
        assert!(permits("10.0.0.1:80", "10.0.0.1:80") && permits("10.0.0.1:80", "[::ffff:10.0.0.1]:80"));
        for bind in [":80", "0.0.0.0:80", "10.0.0.2:80", "80", "name:80"] {
            assert!(!permits("10.0.0.1:80", bind), "{bind}");
        }
        assert!(!permits("127.0.0.1:80", "80"), "loopback is the addresses of both families");
        assert!(!permits("127.0.0.1:80", "0.0.0.0:80"), "the unspecified address is more than loopback");
        assert!(permits("Example.org.:80", "EXAMPLE.org:80") && !permits("example.org:80", "www.example.org:80"));
    }

    #[test]
    fn an_address_with_a_zone_matches_only_the_same_address_and_zone() {
        for rule in ["[fe80::1%eth0]:80", "[FE80:0::1%eth0]:80", "*:80"] {
            assert!(permits(rule, "[fe80::1%eth0]:80"), "{rule}");
        }
        assert!(permits("[12::3%4]:80", "[12::3%4]:80"), "a zone of digits");
        for bind in ["[fe80::1%eth1]:80", "[fe80::1%ETH0]:80", "[fe80::2%eth0]:80", "[fe80::1]:80", "80", ":80"] {
            assert!(!permits("[fe80::1%eth0]:80", bind), "{bind}");
        }
        for rule in ["[fe80::1]:80", "[::1]:80", "80", "fe80:80"] {
            assert!(!permits(rule, "[fe80::1%eth0]:80") && !permits(rule, "[::1%lo]:80"), "{rule}");
        }
        let rule: ListenRule = "[fe80::1%eth0]:80-90".parse().unwrap();
        assert_eq!(rule.to_string(), "[fe80::1%eth0]:80-90");
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }

    #[test]
    fn a_port_range_permits_its_ports_only() {
        for (rule, port, is_permitted) in [
            ("8000-8999", "8000", true),
            ("8000-8999", "8999", true),
            ("8000-8999", "7999", false),
            ("8000-8999", "0", false),
            ("1-65535", "0", false),
            ("0", "0", true),
            ("0", "1", false),
            ("localhost:*", "0", true),
            ("*", "0", true),
        ] {
            assert_eq!(permits(rule, port), is_permitted, "{rule} {port}");
        }
    }

    #[test]
    fn an_invalid_rule_is_refused() {
        for text in [
            "",
            ":",
            ":80",
            "a:",
            "80-",
            "-80",
            "90-80",
            "0-80",
            "65536",
            "+80",
            "::1:80",
            "[::1]",
            "10.0.0:80",
            "a b:80",
            "10.0.0.0/8:80",
            "*.org:80",
            "80,81",
            "unix:/x",
            "[10.0.0.1]:80",
            "**",
        ] {
            assert!(text.parse::<ListenRule>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_rule_parses_to_itself(
            text in "(udp:)?(\\*:|udp\\.:|localhost:|10\\.0\\.0\\.[0-9]:|\\[fd00::[0-9a-f]\\]:|[a-zA-Z0-9.:\\[\\]*-]{0,12}:)?(\\*|[0-9]{1,5}(-[0-9]{1,5})?)|\\PC{0,16}",
        ) {
            if let Ok(rule) = text.parse::<ListenRule>() {
                prop_assert_eq!(rule.to_string().parse(), Ok(rule));
            }
        }
    }
}
