//! An upstream: an entry of a list of targets or servers. It is a target, or the name of a service that DNS knows.
//!
//! The records of a service (SRV, RFC 2782) give its hosts, their ports, priorities and weights. The text of a service is
//! `srv:_http._tcp.example.org`. The prefix may be left out if the name begins with an underscore, which no host name does.
//! With the prefix, the name of a service is free: Consul answers `srv:web.service.consul`.

use std::fmt;

use super::address::{AddressError, Name, Target};
use super::proto::Proto;

/// An entry of a list of targets or servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// An address, a name with a port, or a Unix socket.
    Target(Target),
    /// The name of a service, whose hosts and ports DNS knows.
    Service(Name),
}

impl Upstream {
    /// Parses what [`Target::parse`] parses, or a service: `srv:NAME`, or a name alone that begins with an underscore. A
    /// text such as `srv:80` is a target, because the name of a service has a letter.
    ///
    /// # Errors
    /// The text is neither; the error says what was expected.
    pub fn parse(text: &str) -> Result<Upstream, AddressError> {
        let prefixed = text.strip_prefix(SERVICE_PREFIX).filter(|name| name.bytes().any(|byte| !is_of_port(byte)));
        let bare = Some(text).filter(|text| text.starts_with('_') && !text.contains(':'));
        match prefixed.or(bare) {
            Some(name) if !name.contains('%') => match Name::new(name) {
                Ok(name) => Ok(Upstream::Service(name)),
                Err(_) => Err(AddressError(SERVICE_FORM)),
            },
            Some(_) => Err(AddressError(SERVICE_FORM)),
            None => Target::parse(text).map(Upstream::Target),
        }
    }

    /// Returns the target, if the entry is one.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Upstream::Target(target) => Some(target),
            Upstream::Service(_) => None,
        }
    }

    /// Returns the protocol: that of the target, and for a service that of its second label.
    pub fn proto(&self) -> Proto {
        match self {
            Upstream::Target(target) => target.proto(),
            Upstream::Service(name) => match name.as_str().split('.').nth(1) {
                Some(label) if label.eq_ignore_ascii_case("_udp") => Proto::Udp,
                _ => Proto::Tcp,
            },
        }
    }

    /// Returns the port; a Unix socket and a service have none.
    pub fn port(&self) -> Option<u16> {
        self.target().and_then(Target::port)
    }

    /// Returns the upstream with another port. A Unix socket and a service are returned unchanged.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Upstream {
        match self {
            Upstream::Target(target) => Upstream::Target(target.with_port(port)),
            Upstream::Service(_) => self.clone(),
        }
    }
}

impl From<Target> for Upstream {
    fn from(target: Target) -> Upstream {
        Upstream::Target(target)
    }
}

/// Writes the form that [`Upstream::parse`] reads.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Target(target) => target.fmt(f),
            Upstream::Service(name) => write!(f, "{SERVICE_PREFIX}{name}"),
        }
    }
}

/// Returns true for a byte that a port or a range of ports has.
fn is_of_port(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'-'
}

const SERVICE_PREFIX: &str = "srv:";
const SERVICE_FORM: &str = "the name of a service, such as srv:_http._tcp.example.org";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_prefix_or_begins_with_an_underscore_and_is_printed_with_the_prefix() {
        let shown = |text: &str| Upstream::parse(text).map(|it| format!("{it} {}", it.target().is_some()));
        for (text, expected) in [
            ("srv:_http._tcp.example.org", "srv:_http._tcp.example.org false"),
            ("_my-http._tcp.example.org.", "srv:_my-http._tcp.example.org false"),
            ("srv:web.service.consul", "srv:web.service.consul false"),
            ("srv:80", "srv:80 true"),
            ("srv:web:80", "expected the name of a service, such as srv:_http._tcp.example.org"),
            ("srv:", "expected HOST:PORT with a port from 1 to 65535, [IPV6]:PORT, or unix:/path"),
            ("srv:fe80::1%eth0", "expected the name of a service, such as srv:_http._tcp.example.org"),
            ("_http:80", "_http:80 true"),
            ("example.org:80", "example.org:80 true"),
            ("unix:/run/web.sock", "unix:/run/web.sock true"),
        ] {
            assert_eq!(shown(text).unwrap_or_else(|error| error.to_string()), expected, "{text}");
        }
    }

    #[test]
    fn the_protocol_of_a_service_is_its_second_label() {
        let proto = |text: &str| Upstream::parse(text).unwrap().proto();
        assert_eq!(proto("_dns._udp.example.org"), Proto::Udp);
        assert_eq!(proto("_dns._tcp.example.org"), Proto::Tcp);
        assert_eq!(proto("srv:web.service.consul"), Proto::Tcp);
        assert_eq!(proto("udp:dns:53"), Proto::Udp);
        let moved = Upstream::parse("a:1").unwrap().with_port(2);
        assert_eq!((moved.to_string(), moved.port()), ("a:2".to_owned(), Some(2)));
    }
}
