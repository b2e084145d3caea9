//! The small values that everything else in the link speaks of: time, roles, ids.
//!
//! They carry no behaviour beyond their own arithmetic, which never overflows and never wraps.

use std::fmt;

/// A point in time, in microseconds since a start that the caller chooses.
///
/// The link reads no clock: whoever drives a [`Session`](crate::link::Session) passes the time in, and it must not run
/// backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of time.
    pub const ZERO: Time = Time(0);

    /// The end of time.
    pub(in crate::link) const MAX: Time = Time(u64::MAX);

    /// The point `us` microseconds after the start.
    pub const fn from_us(us: u64) -> Time {
        Time(us)
    }

    /// Microseconds since the start.
    pub const fn as_us(self) -> u64 {
        self.0
    }

    /// The point `us` microseconds later; the end of time if that is further than can be counted.
    #[must_use]
    pub const fn after(self, us: u64) -> Time {
        Time(self.0.saturating_add(us))
    }

    /// Microseconds from `earlier` to here; zero if `earlier` is later.
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Which end of the session this is: the one that dials subflows, or the one that accepts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dials subflows; its streams have even ids.
    Client,
    /// Accepts subflows; its streams have odd ids.
    Server,
}

impl Role {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Role {
        match self {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        }
    }
}

/// A stream of a session. Even ids are the client's, odd ones the server's; they rise and are never used again.
///
/// Zero is no stream: in frames it stands for the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The `index`-th stream (from 0) that `opener` opens, or nothing once its ids are used up.
    pub const fn nth(opener: Role, index: u32) -> Option<StreamId> {
        if index >= STREAMS_EVER {
            return None;
        }
        match opener {
            Role::Client => Some(StreamId(2 * index + 2)),
            Role::Server => Some(StreamId(2 * index + 1)),
        }
    }

    /// Who opens it. Nothing for zero, which is no stream.
    pub const fn opener(self) -> Option<Role> {
        match self.0 {
            0 => None,
            n if n % 2 == 0 => Some(Role::Client),
            _ => Some(Role::Server),
        }
    }

    /// How many streams its opener has opened before it.
    pub const fn index(self) -> u32 {
        self.0.saturating_sub(1) / 2
    }
}

/// How many streams one end can open in a session's life: ids are 32 bits and half of them are the peer's.
pub const STREAMS_EVER: u32 = (1 << 31) - 1;

/// A subflow of a session: chosen by the client, unique among those that live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubflowId(pub u16);

/// What both ends call the session: 16 random bytes, drawn by the client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

/// What tells one life of a node from the next: 8 random bytes, drawn when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootId(pub [u8; 8]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_interleave_and_count_from_zero() {
        assert_eq!(StreamId::nth(Role::Client, 0), Some(StreamId(2)));
        assert_eq!(StreamId::nth(Role::Server, 0), Some(StreamId(1)));
        for index in [0, 1, 77, STREAMS_EVER - 1] {
            for role in [Role::Client, Role::Server] {
                let id = StreamId::nth(role, index).unwrap();
                assert_eq!((id.opener(), id.index()), (Some(role), index));
            }
        }
        assert_eq!(StreamId(0).opener(), None);
    }

    #[test]
    fn ids_end_rather_than_wrap() {
        assert_eq!(StreamId::nth(Role::Client, STREAMS_EVER), None);
        assert_eq!(StreamId::nth(Role::Server, u32::MAX), None);
    }

    #[test]
    fn time_saturates() {
        assert_eq!(Time::from_us(3).since(Time::from_us(5)), 0);
        assert_eq!(Time::from_us(u64::MAX).after(1), Time::from_us(u64::MAX));
    }
}
