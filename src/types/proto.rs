//! The protocol of an address: TCP unless the text of the address begins with `udp:`.
//!
//! Targets, listening addresses, rules and permissions have a protocol, and all of them read and write it with the functions
//! of this module. A text without a prefix means TCP. A place that serves byte streams alone, such as the peer of a link or
//! the admin server, checks its address with [`Proto::require_tcp`].

use std::fmt;
use std::io;

/// The transport protocol of an address. A Unix stream socket counts as TCP, because it carries a byte stream too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// A byte stream.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// The error of an operation that needs a TCP address and was given one of another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported(Proto);

impl Proto {
    /// Returns the name of the protocol: `tcp` or `udp`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        }
    }

    /// Returns the text that stands before an address of this protocol: nothing for TCP.
    pub const fn prefix(self) -> &'static str {
        match self {
            Proto::Tcp => "",
            Proto::Udp => UDP_PREFIX,
        }
    }

    /// Splits the protocol off the beginning of an address. A text without a prefix is TCP.
    ///
    /// ```
    /// use seaprox::Proto;
    ///
    /// assert_eq!(Proto::split("udp:dns.example:53"), (Proto::Udp, "dns.example:53"));
    /// assert_eq!(Proto::split("dns.example:53"), (Proto::Tcp, "dns.example:53"));
    /// ```
    pub fn split(text: &str) -> (Proto, &str) {
        match text.strip_prefix(UDP_PREFIX) {
            Some(rest) => (Proto::Udp, rest),
            None => (Proto::Tcp, text),
        }
    }

    /// Checks the protocol for an operation that supports only TCP.
    ///
    /// # Errors
    /// The protocol is not TCP.
    pub const fn require_tcp(self) -> Result<(), Unsupported> {
        match self {
            Proto::Tcp => Ok(()),
            Proto::Udp => Err(Unsupported(self)),
        }
    }
}

const UDP_PREFIX: &str = "udp:";

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a TCP address")
    }
}

impl std::error::Error for Unsupported {}

impl From<Unsupported> for io::Error {
    fn from(error: Unsupported) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_split_off_again() {
        for proto in [Proto::Tcp, Proto::Udp] {
            assert_eq!(Proto::split(&format!("{}a:1", proto.prefix())), (proto, "a:1"));
        }
        for text in ["udp", "UDP:a:1", "tcp:1", "udp6:a:1", " udp:1", ""] {
            assert_eq!(Proto::split(text), (Proto::Tcp, text));
        }
        assert_eq!(Proto::split("udp:"), (Proto::Udp, ""));
    }

    #[test]
    fn an_operation_without_udp_says_what_it_expects() {
        assert_eq!(Proto::Tcp.require_tcp(), Ok(()));
        let error = Proto::Udp.require_tcp().unwrap_err();
        assert_eq!(error.to_string(), "expected a TCP address");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::Unsupported);
    }
}
