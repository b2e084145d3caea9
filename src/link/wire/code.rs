//! The reasons in frames, as numbers that never change their meaning.
//!
//! There is one code for each word of the closed set of reasons, in the same order and with the same spelling as
//! `seaprox::Reason`.

/// The reason of a refusal, a reset or an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u16)]
#[allow(missing_docs, reason = "each is the word of the project's reason of the same name")]
pub enum Code {
    NameResolutionFailure = 1,
    ConnectionRefused = 2,
    TimedOut = 3,
    NetworkUnreachable = 4,
    HostUnreachable = 5,
    NotPermitted = 6,
    LimitReached = 7,
    Other = 8,
    SourceFin = 9,
    DestFin = 10,
    SourceReset = 11,
    DestReset = 12,
    IdleTimeout = 13,
    HalfClosedTimeout = 14,
    HandshakeTimeout = 15,
    ProtocolError = 16,
    AuthFailed = 17,
    LinkLost = 18,
    Drained = 19,
    Killed = 20,
    Internal = 21,
    /// The port of a LISTEN is in use.
    AddressInUse = 22,
}

impl Code {
    /// All codes, in the order of their numbers.
    pub const ALL: [Code; 22] = [
        Code::NameResolutionFailure,
        Code::ConnectionRefused,
        Code::TimedOut,
        Code::NetworkUnreachable,
        Code::HostUnreachable,
        Code::NotPermitted,
        Code::LimitReached,
        Code::Other,
        Code::SourceFin,
        Code::DestFin,
        Code::SourceReset,
        Code::DestReset,
        Code::IdleTimeout,
        Code::HalfClosedTimeout,
        Code::HandshakeTimeout,
        Code::ProtocolError,
        Code::AuthFailed,
        Code::LinkLost,
        Code::Drained,
        Code::Killed,
        Code::Internal,
        Code::AddressInUse,
    ];

    /// Returns the word as it stands in logs, status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::NameResolutionFailure => "name_resolution_failure",
            Code::ConnectionRefused => "connection_refused",
            Code::TimedOut => "timed_out",
            Code::NetworkUnreachable => "network_unreachable",
            Code::HostUnreachable => "host_unreachable",
            Code::NotPermitted => "not_permitted",
            Code::LimitReached => "limit_reached",
            Code::Other => "other",
            Code::SourceFin => "source_fin",
            Code::DestFin => "dest_fin",
            Code::SourceReset => "source_reset",
            Code::DestReset => "dest_reset",
            Code::IdleTimeout => "idle_timeout",
            Code::HalfClosedTimeout => "half_closed_timeout",
            Code::HandshakeTimeout => "handshake_timeout",
            Code::ProtocolError => "protocol_error",
            Code::AuthFailed => "auth_failed",
            Code::LinkLost => "link_lost",
            Code::Drained => "drained",
            Code::Killed => "killed",
            Code::Internal => "internal",
            Code::AddressInUse => "address_in_use",
        }
    }

    /// Returns the number on the wire, which is never zero: zero means success.
    pub const fn to_wire(self) -> u16 {
        self as u16
    }

    /// Returns the code of a number other than zero, or [`Code::Other`] if this version does not know the number.
    pub fn from_wire(number: u16) -> Code {
        let index = usize::from(number).wrapping_sub(1);
        Code::ALL.get(index).copied().unwrap_or(Code::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_own_number_and_word() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.to_wire()), index + 1);
            assert_eq!(Code::from_wire(code.to_wire()), code);
            assert_eq!(Code::ALL.iter().filter(|other| other.as_str() == code.as_str()).count(), 1);
        }
        assert_eq!(Code::from_wire(0), Code::Other);
        assert_eq!(Code::from_wire(999), Code::Other);
    }
}
