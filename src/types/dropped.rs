//! The reasons for which a datagram is dropped.

use std::fmt;

/// The reason for which a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dropped {
    /// The system had no room for it, such as in the send buffer of the socket.
    NoRoom,
    /// It is larger than the socket or the link can carry.
    TooLong,
    /// Too many datagrams wait for the target of its flow, or to be sent or received over a link.
    QueueFull,
    /// Its flow could not be opened: a rule, a limit or the front end refused it.
    Refused,
    /// It came from an address that the flow or the association has not sent to, or not from the client.
    Stranger,
    /// It waited for too long: for its target, to be sent over a link, or for its other parts.
    Late,
    /// The system refused to send it.
    Failed,
    /// Its header is not valid, or its parts do not fit together.
    Malformed,
    /// It is a part of a larger datagram, which is not joined here (RFC 1928, section 7).
    Fragment,
}

impl Dropped {
    /// All reasons.
    pub const ALL: [Dropped; 9] = [
        Dropped::NoRoom,
        Dropped::TooLong,
        Dropped::QueueFull,
        Dropped::Refused,
        Dropped::Stranger,
        Dropped::Late,
        Dropped::Failed,
        Dropped::Malformed,
        Dropped::Fragment,
    ];

    /// Returns the word for the reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dropped::NoRoom => "no_room",
            Dropped::TooLong => "too_long",
            Dropped::QueueFull => "queue_full",
            Dropped::Refused => "refused",
            Dropped::Stranger => "stranger",
            Dropped::Late => "late",
            Dropped::Failed => "failed",
            Dropped::Malformed => "malformed",
            Dropped::Fragment => "fragment",
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
