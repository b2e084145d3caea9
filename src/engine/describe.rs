//! Descriptions: the names of sides and connections in log lines, in the status, and for the caller of
//! [`ConnectionMut::description`](crate::ConnectionMut::description).
//!
//! ```text
//!   connection = KIND "[" side "->" side "]"             socks5[ipv4[1.2.3.4:5678]->name[example.org:80]]
//!   side       = "ipv4[" ADDR ":" PORT "]"               ipv4[1.2.3.4:3234]
//!              | "ipv6[[" ADDR "]:" PORT "]"             ipv6[[::1]:22]
//!              | "name[" HOST ":" PORT "]"               name[example.org:80]
//!              | "unix[" PATH "]"                        unix[/run/x.sock], unix[] for a client without a name
//!              | "fd[" IN "," OUT "]"                    fd[0,1]
//!              | "link[" PEER "/" STREAM "]"             link[laptop/8]
//!              | "none[]"                                no target yet
//!
//!   ADDR and HOST of UDP begin with "udp:"                name[udp:example.org:53], ipv6[udp:[::1]:53]
//! ```

use std::fmt;
use std::path::Path;

use crate::engine::core::Core;
use crate::relay::connection::Connection;
use crate::types::address::{Endpoint, Printable, Target};

/// The description of a connection, formatted when it is printed.
pub(crate) struct Described<'a> {
    kind: &'a str,
    source: Option<&'a Endpoint>,
    asked: Option<&'a Target>,
}

impl Core {
    pub(crate) fn described<'a>(&'a self, connection: &'a Connection) -> Described<'a> {
        Described {
            kind: &connection.kind,
            source: self.sides.get(connection.source).map(|side| &side.endpoint),
            asked: connection.asked.as_deref(),
        }
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.unwrap_or(&Endpoint::Unknown);
        write!(f, "{}[{source}->", self.kind)?;
        match self.asked {
            Some(target) => describe_target(target, f)?,
            None => f.write_str("none[]")?,
        }
        f.write_str("]")
    }
}

pub(crate) fn describe_target(target: &Target, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match target {
        Target::Ip(proto, addr) => fmt::Display::fmt(&Endpoint::Ip(*proto, *addr), f),
        Target::Name(proto, name, port) => write!(f, "name[{}{name}:{port}]", proto.prefix()),
        Target::Unix(path) => write!(f, "unix[{}]", Printable(path)),
        Target::End(name) => write!(f, "end[{name}]"),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unknown => f.write_str("none[]"),
            Endpoint::Ip(proto, _) => match self.ip() {
                Some(addr) if addr.is_ipv4() => write!(f, "ipv4[{}{addr}]", proto.prefix()),
                Some(addr) => write!(f, "ipv6[{}{addr}]", proto.prefix()),
                None => Ok(()),
            },
            Endpoint::Unix(path) => write!(f, "unix[{}]", Printable(path)),
            Endpoint::Descriptor(input, output) => write!(f, "fd[{input},{output}]"),
            Endpoint::Link(peer, stream) => write!(f, "link[{}/{stream}]", Printable(Path::new(&**peer))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(kind: &'static str, source: &Endpoint, asked: Option<&Target>) -> String {
        Described { kind, source: Some(source), asked }.to_string()
    }

    #[test]
    fn each_kind_of_side_has_its_form() {
        let ip = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        let udp = |text: &str| Endpoint::Ip(crate::Proto::Udp, text.parse().unwrap());
        for (side, form) in [
            (ip("1.2.3.4:3234"), "ipv4[1.2.3.4:3234]"),
            (ip("[::1]:22"), "ipv6[[::1]:22]"),
            (ip("[::ffff:1.2.3.4]:5"), "ipv4[1.2.3.4:5]"),
            (Endpoint::Unix(std::path::Path::new("/run/x.sock").into()), "unix[/run/x.sock]"),
            (Endpoint::Unix(std::path::Path::new("/a]\n").into()), "unix[/a\\]\\u{a}]"),
            (Endpoint::Unix(std::path::Path::new("").into()), "unix[]"),
            (Endpoint::Descriptor(0, 1), "fd[0,1]"),
            (Endpoint::Unknown, "none[]"),
            (udp("1.2.3.4:53"), "ipv4[udp:1.2.3.4:53]"),
            (udp("[::1]:53"), "ipv6[udp:[::1]:53]"),
        ] {
            assert_eq!(side.to_string(), form);
        }
    }

    #[test]
    fn a_connection_names_both_ends() {
        let source = Endpoint::from("1.2.3.4:5678".parse::<std::net::SocketAddr>().unwrap());
        let target = Target::parse("example.org:80").unwrap();
        let full = "socks5[ipv4[1.2.3.4:5678]->name[example.org:80]]";
        assert_eq!(described("socks5", &source, Some(&target)), full);
        assert_eq!(described("http", &source, None), "http[ipv4[1.2.3.4:5678]->none[]]");
        let dns = Target::parse("udp:dns.example:53").unwrap();
        assert_eq!(described("socks5", &source, Some(&dns)), "socks5[ipv4[1.2.3.4:5678]->name[udp:dns.example:53]]");
        let unix = Target::parse("unix:/run/y").unwrap();
        assert_eq!(described("static", &source, Some(&unix)), "static[ipv4[1.2.3.4:5678]->unix[/run/y]]");
    }
}
