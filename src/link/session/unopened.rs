//! Streams of the peer's without their OPEN, and where the data of a stream may go that follows its OPEN.

use std::collections::VecDeque;

use crate::link::wire::ids::{StreamId, SubflowId, Time};

/// A clock that runs while a subflow is live, in microseconds.
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

    /// Returns when the clock will show `us`, if it runs.
    pub(super) fn time_of(&self, us: u64) -> Option<Time> {
        Some(self.since?.after(us.saturating_sub(self.before)))
    }
}

/// Streams of the peer's of which something has come, but not the OPEN.
#[derive(Debug, Default)]
pub(super) struct Unopened {
    /// Number of streams.
    pub(super) count: u32,
    /// Their ids and what the clock showed when they came, in that order. Some may be opened, or gone, since.
    pub(super) queue: VecDeque<(StreamId, u64)>,
    pub(super) clock: LiveClock,
}

/// Where the DATA of a stream may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Anywhere.
    Any,
    /// Only behind the OPEN: on the first lane of these subflows.
    BehindOpen([Option<SubflowId>; 2]),
    /// Nowhere before the OPEN has been sent.
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
    fn a_live_clock_stands_still_while_no_subflow_is_live() {
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
