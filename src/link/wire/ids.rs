//! The basic values of the link: time, roles, ids.
//!
//! Their arithmetic never overflows and never wraps.

use std::fmt;

/// A point in time, in microseconds since a start that the caller chooses.
///
/// The link reads no clock: the driver of a [`Session`](crate::link::Session) passes the time, which must not run
/// backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of time.
    pub const ZERO: Time = Time(0);

    /// The end of time.
    pub(in crate::link) const MAX: Time = Time(u64::MAX);

    /// Returns the point `us` microseconds after the start.
    pub const fn from_us(us: u64) -> Time {
        Time(us)
    }

    /// Returns the microseconds since the start.
    pub const fn as_us(self) -> u64 {
        self.0
    }

    /// Returns the point `us` microseconds later, or the end of time if the sum overflows.
    #[must_use]
    pub const fn after(self, us: u64) -> Time {
        Time(self.0.saturating_add(us))
    }

    /// Returns the microseconds from `earlier` to `self`, or zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The role of one end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRole {
    /// Dials subflows; its streams have even ids.
    Client,
    /// Accepts subflows; its streams have odd ids.
    Server,
}

impl SessionRole {
    /// Returns the role of the peer.
    #[must_use]
    pub const fn peer(self) -> SessionRole {
        match self {
            SessionRole::Client => SessionRole::Server,
            SessionRole::Server => SessionRole::Client,
        }
    }
}

/// The id of a stream. Even ids are the client's, odd ones the server's. Ids rise and are never reused.
///
/// Zero is no stream: in frames it stands for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// Returns the `index`-th stream (from 0) that `opener` opens, or `None` once its ids are exhausted.
    pub const fn nth(opener: SessionRole, index: u32) -> Option<StreamId> {
        if index >= STREAMS_EVER {
            return None;
        }
        match opener {
            SessionRole::Client => Some(StreamId(2 * index + 2)),
            SessionRole::Server => Some(StreamId(2 * index + 1)),
        }
    }

    /// Returns the end that opens the stream, or `None` for zero.
    pub const fn opener(self) -> Option<SessionRole> {
        match self.0 {
            0 => None,
            n if n % 2 == 0 => Some(SessionRole::Client),
            _ => Some(SessionRole::Server),
        }
    }

    /// Returns the number of streams that its opener has opened before it.
    pub const fn index(self) -> u32 {
        self.0.saturating_sub(1) / 2
    }
}

/// Number of streams that one end can open during a session: ids have 32 bits, and half of them are the peer's.
pub const STREAMS_EVER: u32 = (1 << 31) - 1;

/// The id of a subflow. The client chooses it; it is unique among live subflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubflowId(pub u16);

/// The id of a session: 16 random bytes from the client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// The boot id of a node: 8 random bytes that tell a restarted node from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 8]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_two_ends_interleave() {
        assert_eq!(StreamId::nth(SessionRole::Client, 0), Some(StreamId(2)));
        assert_eq!(StreamId::nth(SessionRole::Server, 0), Some(StreamId(1)));
        for index in [0, 1, 77, STREAMS_EVER - 1] {
            for role in [SessionRole::Client, SessionRole::Server] {
                let id = StreamId::nth(role, index).unwrap();
                assert_eq!((id.opener(), id.index()), (Some(role), index));
            }
        }
        assert_eq!(StreamId(0).opener(), None);
    }

    #[test]
    fn ids_are_exhausted_and_do_not_wrap() {
        assert_eq!(StreamId::nth(SessionRole::Client, STREAMS_EVER), None);
        assert_eq!(StreamId::nth(SessionRole::Server, u32::MAX), None);
    }

    #[test]
    fn time_arithmetic_saturates() {
        assert_eq!(Time::from_us(3).since(Time::from_us(5)), 0);
        assert_eq!(Time::from_us(u64::MAX).after(1), Time::from_us(u64::MAX));
    }
}
