//! Which subflow a frame goes on: earliest completion, with a test against the window.
//!
//! Subflows are ranked by when a frame put on them now would arrive. The first in the order is always right. A slower
//! one is right only while the receiver can hold what the faster ones deliver in the meantime: a frame that arrives
//! late blocks all that was sent after it, and when that reaches the window everything waits for the slow path. How
//! much of the window may be risked follows from experience: less after each interval in which credit ran out, more
//! after each in which it did not.
//!
//! A subflow that would add little to the faster ones, and that late, is not worth it whatever the window: while it is
//! slow its frames would make the stream go by fits and starts, and a window that has become large bears seconds of it.
//! Its rate is believed better with time, until one small frame shows how it is.
//!
//! The decision is made when a subflow can take a frame, never before: nothing is bound to a subflow that cannot send.

use crate::link::wire::ids::Time;

/// How frames are spread over subflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Over all that help.
    #[default]
    Stripe,
    /// Over one; another only when that one fails.
    Single,
    /// As `Stripe`, and what is small and sparse goes over two at once.
    Redundant,
}

impl Mode {
    /// The word for the command line and the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Stripe => "stripe",
            Mode::Single => "single",
            Mode::Redundant => "redundant",
        }
    }
}

/// A subflow that could be used, as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Candidate {
    /// Its place in the session's table.
    pub(in crate::link) index: usize,
    /// When a full frame put on it now would arrive, in microseconds from now.
    pub(in crate::link) arrival_us: u64,
    /// Bytes per second.
    pub(in crate::link) rate: u64,
    /// Whether it takes a frame now.
    pub(in crate::link) ready: bool,
    /// Whether that has to be an urgent one.
    pub(in crate::link) full: bool,
}

/// The frame that is to be placed.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Need {
    /// Bytes of it.
    pub(in crate::link) len: u64,
    /// The window of its stream, or of the session if that is smaller.
    pub(in crate::link) window: u64,
    /// Bytes of its stream that wait, this frame included.
    pub(in crate::link) unsent: u64,
    /// Bytes of all streams that wait for their turn.
    pub(in crate::link) backlog: u64,
    /// Whether its stream sends little and seldom.
    pub(in crate::link) sparse: bool,
}

/// A stream with less than this waits for a fast subflow rather than end on a slow one.
const TAIL_BYTES: u64 = 64 * 1024;
/// A subflow that carries little, one part in so many of what the faster ones do, is not worth a wait of so long: each
/// of its frames would stop the reader for that time.
const LITTLE: u64 = 16;
const LAG_US: u64 = 100_000;
/// How often the risk is judged.
const INTERVAL_US: u64 = 30_000;
const RISK_MIN: u64 = 200;
const RISK_MAX: u64 = 900;
/// So many urgent frames in a row, and then one that is not.
const URGENT_RUN_MAX: u8 = 8;

/// See the module's head.
#[derive(Debug)]
pub(in crate::link) struct Scheduler {
    order: Vec<Candidate>,
    /// The part of the window that may be risked, in thousandths.
    risk: u64,
    interval: Time,
    stalled: bool,
    urgent_run: u8,
    /// Credit and acknowledgements take so long to come back, in microseconds.
    pub(in crate::link) return_us: u64,
}

impl Scheduler {
    pub(in crate::link) fn new() -> Scheduler {
        Scheduler { order: Vec::new(), risk: 700, interval: Time::ZERO, stalled: false, urgent_run: 0, return_us: 0 }
    }

    /// Ranks the usable subflows.
    pub(in crate::link) fn rank(&mut self, candidates: impl Iterator<Item = Candidate>) {
        self.order.clear();
        self.order.extend(candidates);
        if self.order.len() > 1 {
            self.order.sort_by_key(|candidate| (candidate.arrival_us, candidate.index));
        }
    }

    /// The fastest subflow, or none until it can take a frame.
    pub(in crate::link) fn fastest(&self) -> Option<usize> {
        self.order.first().filter(|first| first.ready).map(|first| first.index)
    }

    /// The subflow for what must not wait: the fastest, or one that can take it now and is hardly slower.
    pub(in crate::link) fn soonest(&self) -> Option<usize> {
        let limit_us = self.order.first().map(|first| first.arrival_us.saturating_add(first.arrival_us / 4))?;
        self.order.iter().find(|other| other.ready && other.arrival_us <= limit_us).map(|other| other.index)
    }

    /// The fastest subflow other than `index` that can take a frame.
    pub(in crate::link) fn second(&self, index: usize) -> Option<usize> {
        self.order.iter().find(|other| other.index != index && other.ready).map(|other| other.index)
    }

    /// All usable subflows, the fastest first, ready or not.
    pub(in crate::link) fn usable(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|candidate| candidate.index)
    }

    /// The fastest subflow, ready or not.
    pub(in crate::link) fn first(&self) -> Option<Candidate> {
        self.order.first().copied()
    }

    /// The subflows that can take a frame, the fastest first; full ones only if it is urgent.
    pub(in crate::link) fn ready(&self, urgent: bool) -> impl Iterator<Item = usize> {
        self.order
            .iter()
            .filter(move |candidate| candidate.ready && (urgent || !candidate.full))
            .map(|candidate| candidate.index)
    }

    /// Whether any subflow can take a frame.
    pub(in crate::link) fn any_ready(&self) -> bool {
        self.order.iter().any(|candidate| candidate.ready)
    }

    /// The subflow for a piece of a stream, or none if it is better to wait.
    pub(in crate::link) fn place(&self, need: Need) -> Option<usize> {
        if need.sparse {
            return self.soonest();
        }
        let mut faster_rate = 0u64;
        for (rank, candidate) in self.order.iter().enumerate() {
            let ready = candidate.ready && !candidate.full;
            if ready && (rank == 0 || self.is_worthwhile(candidate, need, faster_rate)) {
                return Some(candidate.index);
            }
            if ready {
                return None; // what does not fit this window here fits it on no slower one
            }
            faster_rate = faster_rate.saturating_add(candidate.rate);
        }
        None
    }

    /// Whether a subflow that is not the fastest should take the frame now.
    fn is_worthwhile(&self, candidate: &Candidate, need: Need, faster_rate: u64) -> bool {
        let meanwhile = per_us(faster_rate, candidate.arrival_us + self.return_us);
        if meanwhile + need.len > need.window * self.risk / 1000 {
            return false;
        }
        let first_us = self.order.first().map_or(0, |first| first.arrival_us);
        if candidate.arrival_us > first_us + LAG_US && candidate.rate.saturating_mul(LITTLE) < faster_rate {
            return false;
        }
        let wait_us = need.backlog.saturating_mul(1_000_000) / faster_rate.max(1);
        need.unsent > TAIL_BYTES || candidate.arrival_us <= first_us + wait_us
    }

    /// A stream has run out of credit.
    pub(in crate::link) fn on_stall(&mut self) {
        self.stalled = true;
    }

    /// Judges the risk of the intervals that have passed.
    pub(in crate::link) fn on_time(&mut self, now: Time) {
        if now.since(self.interval) < INTERVAL_US {
            return;
        }
        self.interval = now;
        self.risk = if self.stalled { self.risk.saturating_sub(50) } else { self.risk + 10 };
        self.risk = self.risk.clamp(RISK_MIN, RISK_MAX);
        self.stalled = false;
    }

    /// Whether control and repair go first now; once in a while they do not, so that they cannot starve the rest.
    pub(in crate::link) const fn urgent_first(&self) -> bool {
        self.urgent_run < URGENT_RUN_MAX
    }

    pub(in crate::link) fn on_urgent(&mut self) {
        self.urgent_run = self.urgent_run.saturating_add(1);
    }

    pub(in crate::link) fn on_other(&mut self) {
        self.urgent_run = 0;
    }

    /// The part of the window that may be risked, in thousandths.
    #[cfg(test)]
    pub(in crate::link) const fn risk(&self) -> u64 {
        self.risk
    }
}

/// Bytes that `rate` bytes per second make in `us` microseconds.
fn per_us(rate: u64, us: u64) -> u64 {
    u64::try_from(u128::from(rate) * u128::from(us) / 1_000_000).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MBIT: u64 = 125_000;

    fn scheduler(paths: &[(u64, u64, bool)]) -> Scheduler {
        let mut scheduler = Scheduler::new();
        scheduler.rank(paths.iter().enumerate().map(|(index, &(rate, arrival_ms, ready))| Candidate {
            index,
            arrival_us: arrival_ms * 1000,
            rate: rate * MBIT,
            ready,
            full: false,
        }));
        scheduler
    }

    const BULK: Need = Need { len: 16_384, window: 4 << 20, unsent: 1 << 20, backlog: 1 << 20, sparse: false };

    #[test]
    fn the_fastest_that_is_ready_takes_it() {
        assert_eq!(scheduler(&[(80, 20, true), (10, 5, true)]).place(BULK), Some(1));
        assert_eq!(scheduler(&[(80, 20, true), (10, 5, false)]).place(BULK), Some(0));
    }

    #[test]
    fn a_slow_path_is_used_only_if_the_window_bears_it() {
        let scheduler = scheduler(&[(80, 10, false), (10, 100, true)]);
        assert_eq!(scheduler.place(BULK), Some(1));
        assert_eq!(scheduler.place(Need { window: 1 << 20, ..BULK }), None);
    }

    #[test]
    fn small_and_sparse_things_wait_for_the_fast_path() {
        let scheduler = scheduler(&[(80, 10, false), (10, 100, true)]);
        assert_eq!(scheduler.place(Need { sparse: true, ..BULK }), None);
        assert_eq!(scheduler.place(Need { unsent: 1000, backlog: 1000, ..BULK }), None);
        assert_eq!(scheduler.place(Need { unsent: 1000, ..BULK }), Some(1), "many small ones are bulk together");
    }

    #[test]
    fn what_must_not_wait_takes_one_that_is_ready_and_hardly_slower() {
        assert_eq!(scheduler(&[(80, 10, false), (10, 12, true)]).soonest(), Some(1));
        assert_eq!(scheduler(&[(80, 10, false), (10, 13, true)]).soonest(), None);
        assert_eq!(scheduler(&[(80, 10, true), (10, 11, true)]).soonest(), Some(0));
    }

    #[test]
    fn the_risk_falls_with_stalls_and_recovers() {
        let mut scheduler = scheduler(&[]);
        for n in 1..=30 {
            scheduler.on_stall();
            scheduler.on_time(Time::from_us(n * INTERVAL_US));
        }
        assert_eq!(scheduler.risk(), RISK_MIN);
        (31..200).for_each(|n| scheduler.on_time(Time::from_us(n * INTERVAL_US)));
        assert_eq!(scheduler.risk(), RISK_MAX);
    }

    #[test]
    fn eight_urgent_frames_and_then_another() {
        let mut scheduler = scheduler(&[]);
        (0..8).for_each(|_| scheduler.on_urgent());
        assert!(!scheduler.urgent_first());
        scheduler.on_other();
        assert!(scheduler.urgent_first());
    }
}
