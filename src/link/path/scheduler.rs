//! The choice of the subflow for a frame: earliest arrival, with a test against the window.
//!
//! Subflows are ranked by the time at which a frame sent now would arrive. The first one may always be used. A slower
//! one may be used only while the receiver can hold what the faster ones deliver in the meantime: a late frame blocks
//! everything behind it, and once that fills the window, the whole stream waits for the slow path. The part of the
//! window that may be risked adapts: it falls after each interval in which credit ran out, and rises after each other
//! one.
//!
//! A subflow that adds little to the faster ones, and much later, is not used however large the window is: its frames
//! would make the stream stall again and again, and a large window allows stalls of seconds. Its assumed rate rises
//! with time, until one small frame measures it.
//!
//! The choice is made when a subflow can take a frame and never before, so no frame waits for a subflow that cannot
//! send.

use crate::link::wire::ids::Time;

/// The distribution of frames over subflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Use all subflows that make the transfer faster.
    #[default]
    Stripe,
    /// Use the best subflow, and the others only to compare them and while that one is late.
    Single,
    /// As `Stripe`, and send small and sparse frames on two subflows.
    Redundant,
}

impl Mode {
    /// Returns the word for the command line and the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Stripe => "stripe",
            Mode::Single => "single",
            Mode::Redundant => "redundant",
        }
    }
}

/// The subflow for a copy of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum Second {
    /// The subflow with this index takes it now.
    Ready(usize),
    /// None can take it now.
    Busy,
    /// No other subflow is usable.
    Missing,
}

/// A usable subflow.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Candidate {
    /// Its index in the session's list.
    pub(in crate::link) index: usize,
    /// Time until a full frame sent now would arrive, in microseconds.
    pub(in crate::link) arrival_us: u64,
    /// Its rate in bytes per second.
    pub(in crate::link) rate: u64,
    /// True if it can take a frame now.
    pub(in crate::link) ready: bool,
    /// True if it takes only urgent frames.
    pub(in crate::link) full: bool,
}

/// The frame for which a subflow is chosen.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Need {
    /// Length of the frame.
    pub(in crate::link) len: u64,
    /// The window of its stream, or of the session if that is smaller.
    pub(in crate::link) window: u64,
    /// Unsent bytes of its stream, including this frame.
    pub(in crate::link) unsent: u64,
    /// Bytes of all streams that wait for their turn.
    pub(in crate::link) backlog: u64,
    /// True if its stream sends little and rarely.
    pub(in crate::link) sparse: bool,
}

/// Unsent bytes below which a stream waits for a fast subflow instead of ending on a slow one.
const TAIL_BYTES: u64 = 64 * 1024;
/// A subflow with less than one part in this many of the faster ones' rate is not used if its frames arrive later by
/// `LAG_US`: each would block the reader for that time.
const MINOR_PART: u64 = 16;
const LAG_US: u64 = 100_000;
/// Interval at which the risk is adapted.
const INTERVAL_US: u64 = 30_000;
const RISK_MIN: u64 = 200;
const RISK_MAX: u64 = 900;
/// Maximum number of urgent frames in a row while others wait.
const URGENT_RUN_MAX: u8 = 8;

/// The scheduler of a session.
#[derive(Debug)]
pub(in crate::link) struct Scheduler {
    order: Vec<Candidate>,
    /// The part of the window that may be risked, in thousandths.
    risk: u64,
    interval: Time,
    stalled: bool,
    urgent_run: u8,
    /// True if a retransmission was sent since the last piece of a stream: a new stream is next.
    pub(in crate::link) retransmitted: bool,
    /// Time in microseconds that credit and acknowledgements need to come back.
    pub(in crate::link) return_us: u64,
}

impl Scheduler {
    pub(in crate::link) fn new() -> Scheduler {
        // The initial risk is near its maximum; ten stalled intervals, 300 ms, bring it to its minimum.
        Scheduler {
            order: Vec::new(),
            risk: 700,
            interval: Time::ZERO,
            stalled: false,
            urgent_run: 0,
            retransmitted: false,
            return_us: 0,
        }
    }

    /// Ranks the usable subflows.
    pub(in crate::link) fn rank(&mut self, candidates: impl Iterator<Item = Candidate>) {
        self.order.clear();
        self.order.extend(candidates);
        if self.order.len() > 1 {
            self.order.sort_by_key(|candidate| (candidate.arrival_us, candidate.index));
        }
    }

    /// Returns the fastest subflow if it can take a frame.
    pub(in crate::link) fn fastest(&self) -> Option<usize> {
        self.order.first().filter(|first| first.ready).map(|first| first.index)
    }

    /// Returns the subflow for a frame that must not wait: the fastest one that is ready, if it is at most a quarter
    /// slower than the first.
    pub(in crate::link) fn soonest(&self) -> Option<usize> {
        let limit_us = self.order.first().map(|first| first.arrival_us.saturating_add(first.arrival_us / 4))?;
        self.order.iter().find(|other| other.ready && other.arrival_us <= limit_us).map(|other| other.index)
    }

    /// Returns the subflow for a copy of a frame that was sent on `index`: the fastest other one that is ready, if it is at
    /// most a quarter slower than the fastest other one.
    pub(in crate::link) fn second(&self, index: usize) -> Second {
        let mut others = self.order.iter().filter(|other| other.index != index).peekable();
        let Some(limit_us) = others.peek().map(|first| first.arrival_us.saturating_add(first.arrival_us / 4)) else {
            return Second::Missing;
        };
        let ready = others.find(|other| other.ready && other.arrival_us <= limit_us);
        ready.map_or(Second::Busy, |other| Second::Ready(other.index))
    }

    /// Returns all usable subflows, the fastest first.
    pub(in crate::link) fn usable(&self) -> impl Iterator<Item = usize> {
        self.order.iter().map(|candidate| candidate.index)
    }

    /// Returns all usable subflows with their state, the fastest first.
    pub(in crate::link) fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.order.iter()
    }

    /// Returns the ready subflows, the fastest first; full ones only for `urgent` frames.
    pub(in crate::link) fn ready(&self, urgent: bool) -> impl Iterator<Item = usize> {
        self.order
            .iter()
            .filter(move |candidate| candidate.ready && (urgent || !candidate.full))
            .map(|candidate| candidate.index)
    }

    /// Returns true if a subflow can take a frame.
    pub(in crate::link) fn any_ready(&self) -> bool {
        self.order.iter().any(|candidate| candidate.ready)
    }

    /// Returns the subflow for a piece of a stream, or `None` if it is better to wait.
    pub(in crate::link) fn choose(&self, need: Need) -> Option<usize> {
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
                return None; // a frame that this window does not allow here is not allowed on a slower one either
            }
            faster_rate = faster_rate.saturating_add(candidate.rate);
        }
        None
    }

    /// Returns true if a subflow that is not the fastest should take the frame now.
    fn is_worthwhile(&self, candidate: &Candidate, need: Need, faster_rate: u64) -> bool {
        let meanwhile = per_us(faster_rate, candidate.arrival_us + self.return_us);
        if meanwhile + need.len > need.window * self.risk / 1000 {
            return false;
        }
        let first_us = self.order.first().map_or(0, |first| first.arrival_us);
        if candidate.arrival_us > first_us + LAG_US && candidate.rate.saturating_mul(MINOR_PART) < faster_rate {
            return false;
        }
        let wait_us = need.backlog.saturating_mul(1_000_000) / faster_rate.max(1);
        need.unsent > TAIL_BYTES || candidate.arrival_us <= first_us + wait_us
    }

    /// Notes that a stream has run out of credit.
    pub(in crate::link) fn on_stall(&mut self) {
        self.stalled = true;
    }

    /// Adapts the risk once an interval is over.
    pub(in crate::link) fn on_time(&mut self, now: Time) {
        if now.since(self.interval) < INTERVAL_US {
            return;
        }
        self.interval = now;
        self.risk = if self.stalled { self.risk.saturating_sub(50) } else { self.risk + 10 };
        self.risk = self.risk.clamp(RISK_MIN, RISK_MAX);
        self.stalled = false;
    }

    /// Returns true if control frames and retransmissions go first; now and then they do not, so that they cannot
    /// starve the rest.
    pub(in crate::link) const fn urgent_first(&self) -> bool {
        self.urgent_run < URGENT_RUN_MAX
    }

    pub(in crate::link) fn on_urgent(&mut self) {
        self.urgent_run = self.urgent_run.saturating_add(1);
    }

    pub(in crate::link) fn on_other(&mut self) {
        (self.urgent_run, self.retransmitted) = (0, false);
    }

    /// Returns the part of the window that may be risked, in thousandths.
    #[cfg(test)]
    pub(in crate::link) const fn risk(&self) -> u64 {
        self.risk
    }
}

/// Returns the number of bytes that `rate` carries in `us` microseconds.
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
    fn the_fastest_ready_subflow_is_chosen() {
        assert_eq!(scheduler(&[(80, 20, true), (10, 5, true)]).choose(BULK), Some(1));
        assert_eq!(scheduler(&[(80, 20, true), (10, 5, false)]).choose(BULK), Some(0));
    }

    #[test]
    fn a_slow_path_is_used_only_if_the_window_allows_it() {
        let scheduler = scheduler(&[(80, 10, false), (10, 100, true)]);
        assert_eq!(scheduler.choose(BULK), Some(1));
        assert_eq!(scheduler.choose(Need { window: 1 << 20, ..BULK }), None);
    }

    #[test]
    fn small_and_sparse_frames_wait_for_the_fast_path() {
        let scheduler = scheduler(&[(80, 10, false), (10, 100, true)]);
        assert_eq!(scheduler.choose(Need { sparse: true, ..BULK }), None);
        assert_eq!(scheduler.choose(Need { unsent: 1000, backlog: 1000, ..BULK }), None);
        assert_eq!(scheduler.choose(Need { unsent: 1000, ..BULK }), Some(1), "many short streams together are bulk");
    }

    #[test]
    fn an_urgent_frame_takes_a_ready_subflow_that_is_little_slower() {
        assert_eq!(scheduler(&[(80, 10, false), (10, 12, true)]).soonest(), Some(1));
        assert_eq!(scheduler(&[(80, 10, false), (10, 13, true)]).soonest(), None);
        assert_eq!(scheduler(&[(80, 10, true), (10, 11, true)]).soonest(), Some(0));
    }

    #[test]
    fn the_risk_falls_with_stalls_and_rises_without() {
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
    fn after_eight_urgent_frames_another_goes_first() {
        let mut scheduler = scheduler(&[]);
        (0..8).for_each(|_| scheduler.on_urgent());
        assert!(!scheduler.urgent_first());
        scheduler.on_other();
        assert!(scheduler.urgent_first());
    }
}
