//! The timer that wakes a loop at a near deadline.
//!
//! A link under way has a deadline some milliseconds ahead at each turn, and nearly always an event comes first. With the
//! deadline as the timeout of a poll, the system would set its clock in each turn and set the clock back at the event, which
//! costs as much as a system call, and more in a virtual machine. So one timer stays set over many turns. A turn that has a later
//! deadline leaves the timer as it is: the timer then ends early, and a turn behind that sets it anew. A far deadline costs
//! nothing as a timeout.

use std::time::Duration;

use mio::{Registry, Token};

use crate::sys::SystemTimer;

/// The timer of one loop. Where the system has none, or had no descriptor for it, the poll waits with its timeout.
pub(crate) struct WakeTimer {
    timer: Option<SystemTimer>,
    /// The end as an age of the loop, while the timer is set.
    ends: Option<Duration>,
    /// The timer ended in the last poll.
    has_ended: bool,
}

impl WakeTimer {
    /// Makes the timer of the loop that polls with `registry`.
    pub fn new(registry: &Registry) -> WakeTimer {
        WakeTimer { timer: SystemTimer::new(registry, TOKEN).ok(), ends: None, has_ended: false }
    }

    /// Notes the event of the timer.
    pub fn end(&mut self) {
        self.ends = None;
        self.has_ended = true;
    }

    /// Returns the timeout for a poll that should wait for `timeout` at most: none if the timer ends the poll.
    ///
    /// `has_events` tells that the last poll ended by events. A loop that sleeps until its deadlines would set the timer for each of
    /// them, so it has timeouts instead. `age` reads the clock.
    pub fn cover(
        &mut self,
        timeout: Option<Duration>,
        has_events: bool,
        age: impl FnOnce() -> Duration,
    ) -> Option<Duration> {
        let is_woken = has_events && !std::mem::take(&mut self.has_ended);
        let Some(near) = timeout.filter(|timeout| !timeout.is_zero() && *timeout <= NEAR) else { return timeout };
        let Some(timer) = &self.timer else { return timeout };
        // The poll rounds its timeout up in the same way.
        let wait = Duration::from_millis(near.as_nanos().div_ceil(1_000_000) as u64);
        let age = age();
        let due = age + wait;
        if self.ends.is_some_and(|ends| age < ends && ends <= due) {
            return None;
        }
        if !is_woken || timer.set(wait).is_err() {
            return timeout;
        }
        self.ends = Some(due);
        None
    }
}

/// The token of the timer. Sides and listeners have their ids as tokens, which begin at 2^32.
pub(crate) const TOKEN: Token = Token(u32::MAX as usize - 1);
/// The longest time for which the timer is set. A timeout of a second costs as little as none; one of ten milliseconds does not.
const NEAR: Duration = Duration::from_millis(100);

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    use mio::{Events, Poll};

    const MS: Duration = Duration::from_millis(1);

    /// Returns true if the poll ends by the timer.
    fn rings(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
        events.iter().any(|event| event.token() == TOKEN)
    }

    #[test]
    fn the_timer_takes_near_deadlines_of_turns_with_events_only() {
        let poll = Poll::new().unwrap();
        let mut timer = WakeTimer::new(poll.registry());
        for timeout in [None, Some(Duration::ZERO), Some(NEAR + Duration::from_nanos(1))] {
            assert_eq!(timer.cover(timeout, true, || unreachable!("no clock is read")), timeout);
        }
        assert_eq!(timer.cover(Some(MS), false, || 7 * MS), Some(MS));
        assert_eq!(timer.ends, None);
        assert_eq!(timer.cover(Some(NEAR), true, || 7 * MS), None);
        assert_eq!(timer.ends, Some(107 * MS));
        timer.timer = None;
        assert_eq!(timer.cover(Some(MS), true, || 7 * MS), Some(MS), "a loop without a timer has its timeout");
    }

    #[test]
    fn only_an_earlier_deadline_sets_the_timer_again() {
        let mut poll = Poll::new().unwrap();
        let mut timer = WakeTimer::new(poll.registry());
        assert_eq!(timer.cover(Some(90 * MS), true, || 1000 * MS), None);
        assert_eq!(timer.cover(Some(80 * MS), true, || 1011 * MS), None);
        assert_eq!(timer.ends, Some(1090 * MS));
        // The shortest timeout becomes a millisecond: a timer that is set to nothing would not end.
        assert_eq!(timer.cover(Some(Duration::from_nanos(1)), true, || 1012 * MS), None);
        assert_eq!(timer.ends, Some(1013 * MS));
        assert!(rings(&mut poll));
        timer.end();
        // The poll after the end of the timer has its timeout, and the next one that an event ends sets the timer again.
        assert_eq!(timer.cover(Some(MS), true, || 1014 * MS), Some(MS));
        assert_eq!(timer.cover(Some(MS), true, || 1014 * MS), None);
        assert!(rings(&mut poll), "the event comes again though nothing was read");
        // An end that has passed covers nothing, whatever became of its event.
        assert_eq!(timer.cover(Some(50 * MS), false, || 1016 * MS), Some(50 * MS));
        assert_eq!(timer.cover(Some(50 * MS), true, || 1016 * MS), None);
        assert_eq!(timer.ends, Some(1066 * MS));
    }
}
