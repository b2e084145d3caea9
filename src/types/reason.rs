//! The reasons of a failed connect and of the end of a connection: one closed set of words.
//!
//! The log, the status, the metrics, the C interface and the link protocol use the same words. Front ends map them to
//! their own codes (SOCKS replies, HTTP statuses). No other module defines a reason.

use std::fmt;

use super::proto::Unsupported;

/// The reason of a failed connect or of the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The name did not resolve to an address of a permitted family.
    NameResolutionFailure,
    /// The target refused the connection: no process listens there.
    ConnectionRefused,
    /// The connect deadline passed.
    TimedOut,
    /// No route to the target's network.
    NetworkUnreachable,
    /// The target's network is reachable, but the host is not.
    HostUnreachable,
    /// A rule forbids the connection.
    NotPermitted,
    /// A limit of seaprox was reached, or a limit of the system: descriptors or source ports.
    LimitReached,
    /// Any other error; the [`Failure`] holds the system's text.
    Other,

    /// The source closed first, with a FIN.
    SourceFin,
    /// The dest closed first, with a FIN.
    DestFin,
    /// The source reset the connection.
    SourceReset,
    /// The dest reset the connection.
    DestReset,
    /// No byte moved for the idle timeout.
    IdleTimeout,
    /// One direction was closed, and no byte moved in the other for the half-closed timeout.
    HalfClosedTimeout,
    /// The client did not send its request in time.
    HandshakeTimeout,
    /// The client, or the HTTP server behind the proxy, violated the protocol.
    ProtocolError,
    /// The client did not authenticate.
    AuthFailed,
    /// The link that carried the connection is gone.
    LinkLost,
    /// The process is stopping and the drain time is over.
    Drained,
    /// An operator ended the connection.
    Killed,
    /// A defect of seaprox: a handler panicked.
    Internal,

    /// The address to listen on is in use.
    AddressInUse,
}

/// The end of a connection as its two peers see it (`end=` in the log).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both directions were closed with a FIN, and no byte was lost.
    Graceful,
    /// The connection was cut off; bytes may be lost.
    Aborted,
}

/// The party that caused the end (`by=` in the log).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client.
    Source,
    /// The target.
    Dest,
    /// seaprox: a rule, a limit, a timer or a stop.
    Proxy,
}

impl Reason {
    /// All reasons, in the order of the enum.
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

    /// Returns the word for logs, status and metrics.
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

    /// Returns true if the dest was not connected, or if the listener could not be made.
    pub const fn is_connect_failure(self) -> bool {
        (self as u8) <= (Reason::Other as u8) || matches!(self, Reason::AddressInUse)
    }

    /// Returns true if a peer or a rule made the connection fail: the dest was not reached, or a peer cut it.
    pub(crate) const fn is_futile(self) -> bool {
        let is_cut = matches!(self, Reason::SourceReset | Reason::DestReset | Reason::ProtocolError);
        is_cut || self.is_connect_failure()
    }

    /// Returns whether both peers see an orderly close.
    pub const fn ending(self) -> Ending {
        match self {
            Reason::SourceFin | Reason::DestFin => Ending::Graceful,
            _ => Ending::Aborted,
        }
    }

    /// Returns the party that caused the end, as far as the reason tells. A protocol error counts as the source's.
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

    /// Returns true if the peers get a reset, so that neither takes the received bytes for the complete stream.
    pub(crate) const fn resets_peers(self) -> bool {
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
    /// Returns `graceful` or `aborted`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ending::Graceful => "graceful",
            Ending::Aborted => "aborted",
        }
    }
}

impl Fault {
    /// Returns `source`, `dest` or `proxy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Fault::Source => "source",
            Fault::Dest => "dest",
            Fault::Proxy => "proxy",
        }
    }
}

/// A failed connect: the reason, and the text of the system's error if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason, for codes and counters.
    pub reason: Reason,
    /// The system's text, for people. `Some` is never empty.
    pub detail: Option<Box<str>>,
}

impl From<Unsupported> for Failure {
    fn from(error: Unsupported) -> Failure {
        Failure::new(Reason::NotPermitted, error.to_string())
    }
}

impl Failure {
    /// Makes a failure with a text.
    pub fn new(reason: Reason, detail: impl Into<Box<str>>) -> Failure {
        Failure { reason, detail: Some(detail.into()) }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        Failure { reason, detail: None }
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
    fn each_reason_has_a_unique_word() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Reason::ALL.len());
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "ALL is in the order of the enum");
        }
    }

    #[test]
    fn a_connect_failure_differs_from_an_end() {
        assert!(Reason::Other.is_connect_failure());
        assert!(!Reason::SourceFin.is_connect_failure() && !Reason::Internal.is_connect_failure());
        assert!(Reason::AddressInUse.is_connect_failure());
    }
}
