//! Streams of the peer without their OPEN, and the routes for data that must follow an OPEN.

use std::collections::VecDeque;

use crate::link::wire::ids::{StreamId, SubflowId, Time};

/// A clock in microseconds that runs while a subflow is live.
#[derive(Debug, Default)]
pub(super) struct LiveClock {
    before: u64,
    since: Option<Time>,
}

impl LiveClock {
    pub(super) fn start(&mut self, now: Time) {
        self.since.get_or_insert(now);
    }

    pub(super) fn pause(&mut self, now: Time) {
        self.before = self.read(now);
        self.since = None;
    }

    pub(super) fn read(&self, now: Time) -> u64 {
        self.before + self.since.map_or(0, |since| now.since(since))
    }

    /// Returns the time at which the clock shows `us`, if it runs.
    pub(super) fn time_of(&self, us: u64) -> Option<Time> {
        Some(self.since?.after(us.saturating_sub(self.before)))
    }
}

/// Streams of the peer of which a frame has arrived, but not the OPEN.
#[derive(Debug, Default)]
pub(super) struct Unopened {
    /// Number of these streams.
    pub(super) count: u32,
    /// The streams with their arrival according to the clock, in that order. Some may be opened or removed since.
    pub(super) queue: VecDeque<(StreamId, u64)>,
    pub(super) clock: LiveClock,
}

/// The subflows that may carry DATA of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// All subflows.
    Any,
    /// Only the first lanes of these subflows, behind the OPEN.
    BehindOpen([Option<SubflowId>; 2]),
    /// None, until the OPEN is sent.
    Blocked,
}

impl Route {
    pub(super) fn allows(self, id: SubflowId) -> bool {
        match self {
            Route::Any => true,
            Route::BehindOpen(subflows) => subflows.contains(&Some(id)),
            Route::Blocked => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_clock_stops_while_no_subflow_is_live() {
        let at = Time::from_us;
        let mut clock = LiveClock::default();
        assert_eq!((clock.read(at(50)), clock.time_of(1)), (0, None));
        clock.start(at(100));
        clock.start(at(110));
        assert_eq!((clock.read(at(130)), clock.time_of(60)), (30, Some(at(160))));
        clock.pause(at(130));
        assert_eq!((clock.read(at(900)), clock.time_of(60)), (30, None));
        clock.start(at(1000));
        assert_eq!((clock.read(at(1010)), clock.time_of(60)), (40, Some(at(1030))));
    }
}
