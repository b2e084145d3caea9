//! Why a connection could not be made, or why it ended: one closed set of words.
//!
//! The same words stand in the log, the status, the metrics, the C interface and the link protocol. Front ends map them
//! on their own codes (SOCKS replies, HTTP statuses); nothing else in the project invents a reason.

use std::fmt;
use std::io;

/// Why a connection could not be made, or why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The name did not resolve to an address of a permitted family.
    NameResolutionFailure,
    /// The target answered that nothing listens there.
    ConnectionRefused,
    /// The connect deadline passed.
    TimedOut,
    /// No route to the target's network.
    NetworkUnreachable,
    /// The target's network is there, the host is not.
    HostUnreachable,
    /// A rule forbids it.
    NotPermitted,
    /// One of seaprox's own limits, or one of the system's: of descriptors, or of source ports.
    LimitReached,
    /// Anything else; the [`Failure`] carries the system's text.
    Other,

    /// The source closed first, in order.
    SourceFin,
    /// The dest closed first, in order.
    DestFin,
    /// The source reset the connection.
    SourceReset,
    /// The dest reset the connection.
    DestReset,
    /// No byte moved for the idle timeout.
    IdleTimeout,
    /// One direction was closed, and no byte moved in the other for the half-closed timeout.
    HalfClosedTimeout,
    /// The client did not say in time what it wants.
    HandshakeTimeout,
    /// The client, or the HTTP server behind the proxy, broke its protocol.
    ProtocolError,
    /// The client did not prove who it is.
    AuthFailed,
    /// The link that carried it is gone.
    LinkLost,
    /// The process is stopping and the drain time is over.
    Drained,
    /// Somebody asked for this connection to be ended.
    Killed,
    /// A defect of our own: a handler panicked.
    Internal,

    /// The address to listen on is taken.
    AddressInUse,
}

/// How a connection ended, seen from its two peers (`end=` in the log).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both directions were closed in order; no byte was lost.
    Graceful,
    /// It was cut.
    Aborted,
}

/// Whose doing the end was (`by=` in the log).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The side that came to us.
    Source,
    /// The side that we went to.
    Dest,
    /// seaprox itself: a rule, a limit, a timer, a stop.
    Proxy,
}

impl Reason {
    /// Every reason, in the order of the documentation: for tables, metrics and tests.
    pub const ALL: [Reason; 22] = [
        Reason::NameResolutionFailure,
        Reason::ConnectionRefused,
        Reason::TimedOut,
        Reason::NetworkUnreachable,
        Reason::HostUnreachable,
        Reason::NotPermitted,
        Reason::LimitReached,
        Reason::Other,
        Reason::SourceFin,
        Reason::DestFin,
        Reason::SourceReset,
        Reason::DestReset,
        Reason::IdleTimeout,
        Reason::HalfClosedTimeout,
        Reason::HandshakeTimeout,
        Reason::ProtocolError,
        Reason::AuthFailed,
        Reason::LinkLost,
        Reason::Drained,
        Reason::Killed,
        Reason::Internal,
        Reason::AddressInUse,
    ];

    /// The word, as it stands in logs, status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::NameResolutionFailure => "name_resolution_failure",
            Reason::ConnectionRefused => "connection_refused",
            Reason::TimedOut => "timed_out",
            Reason::NetworkUnreachable => "network_unreachable",
            Reason::HostUnreachable => "host_unreachable",
            Reason::NotPermitted => "not_permitted",
            Reason::LimitReached => "limit_reached",
            Reason::Other => "other",
            Reason::SourceFin => "source_fin",
            Reason::DestFin => "dest_fin",
            Reason::SourceReset => "source_reset",
            Reason::DestReset => "dest_reset",
            Reason::IdleTimeout => "idle_timeout",
            Reason::HalfClosedTimeout => "half_closed_timeout",
            Reason::HandshakeTimeout => "handshake_timeout",
            Reason::ProtocolError => "protocol_error",
            Reason::AuthFailed => "auth_failed",
            Reason::LinkLost => "link_lost",
            Reason::Drained => "drained",
            Reason::Killed => "killed",
            Reason::Internal => "internal",
            Reason::AddressInUse => "address_in_use",
        }
    }

    /// Returns true if the dest was never reached, or if there is no listener.
    pub const fn is_connect_failure(self) -> bool {
        (self as u8) <= (Reason::Other as u8) || matches!(self, Reason::AddressInUse)
    }

    /// Returns true if a peer or a rule made the connection fail: the dest was not reached, or a peer cut it.
    pub(crate) const fn is_futile(self) -> bool {
        let is_cut = matches!(self, Reason::SourceReset | Reason::DestReset | Reason::ProtocolError);
        is_cut || self.is_connect_failure()
    }

    /// Whether both peers were closed in order.
    pub const fn ending(self) -> Ending {
        match self {
            Reason::SourceFin | Reason::DestFin => Ending::Graceful,
            _ => Ending::Aborted,
        }
    }

    /// Whose doing it was, as far as the reason tells; of a broken protocol it is taken to be the source's.
    pub const fn fault(self) -> Fault {
        match self {
            Reason::SourceFin
            | Reason::SourceReset
            | Reason::HandshakeTimeout
            | Reason::ProtocolError
            | Reason::AuthFailed => Fault::Source,
            Reason::DestFin
            | Reason::DestReset
            | Reason::NameResolutionFailure
            | Reason::ConnectionRefused
            | Reason::TimedOut
            | Reason::NetworkUnreachable
            | Reason::HostUnreachable
            | Reason::Other => Fault::Dest,
            _ => Fault::Proxy,
        }
    }

    /// Whether the peers are cut with a reset, so that neither can take what it has for the whole.
    pub(crate) const fn cuts(self) -> bool {
        matches!(
            self,
            Reason::SourceReset
                | Reason::DestReset
                | Reason::LinkLost
                | Reason::Drained
                | Reason::Killed
                | Reason::Internal
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Ending {
    /// `graceful` or `aborted`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::Graceful => "graceful",
            Ending::Aborted => "aborted",
        }
    }
}

impl Fault {
    /// `source`, `dest` or `proxy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::Source => "source",
            Fault::Dest => "dest",
            Fault::Proxy => "proxy",
        }
    }
}

/// A connection that could not be made: the reason, and what the system said where it said anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason, for codes and counters.
    pub reason: Reason,
    /// The system's text, for people. Never empty when it is there.
    pub detail: Option<Box<str>>,
}

impl Failure {
    /// A failure with a text of its own.
    pub fn new(reason: Reason, detail: impl Into<Box<str>>) -> Failure {
        Failure { reason, detail: Some(detail.into()) }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        Failure { reason, detail: None }
    }
}

impl From<&io::Error> for Failure {
    /// Maps an error of `socket`, `bind` or `connect`.
    fn from(error: &io::Error) -> Failure {
        use io::ErrorKind as Kind;
        let reason = match error.kind() {
            // A target that resets before the connect is noticed does not want us either.
            Kind::ConnectionRefused | Kind::ConnectionReset | Kind::NotFound => Reason::ConnectionRefused,
            Kind::TimedOut => Reason::TimedOut,
            Kind::NetworkUnreachable | Kind::NetworkDown => Reason::NetworkUnreachable,
            Kind::HostUnreachable => Reason::HostUnreachable,
            Kind::PermissionDenied => Reason::NotPermitted,
            // No interface has the address. That connect(2) says the same for want of a source port, `dial` knows.
            Kind::AddrNotAvailable => Reason::NetworkUnreachable,
            Kind::AddrInUse => Reason::AddressInUse,
            _ if crate::sys::is_out_of_descriptors(error) => Reason::LimitReached,
            _ => Reason::Other,
        };
        Failure::new(reason, error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{}: {detail}", self.reason),
            None => self.reason.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "ALL is in the order of the enum");
        }
    }

    #[test]
    fn connect_failures_are_told_from_ends() {
        assert!(Reason::Other.is_connect_failure());
        assert!(!Reason::SourceFin.is_connect_failure() && !Reason::Internal.is_connect_failure());
        assert!(Reason::AddressInUse.is_connect_failure());
    }

    #[test]
    fn errors_of_connect_are_mapped() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(Failure::from(&refused).reason, Reason::ConnectionRefused);
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        assert_eq!(Failure::from(&full).reason, Reason::LimitReached);
        let taken = io::Error::from_raw_os_error(libc::EADDRINUSE);
        assert_eq!(Failure::from(&taken).reason, Reason::AddressInUse);
        let odd = io::Error::from_raw_os_error(libc::EPROTO);
        let failure = Failure::from(&odd);
        assert_eq!(failure.reason, Reason::Other);
        assert!(failure.detail.is_some());
    }
}
