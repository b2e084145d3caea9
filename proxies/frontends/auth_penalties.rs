//! Penalties for failed logins: a delay of the answer that grows with the failures of the client's network.
//!
//! A network is one IPv4 address or one /64 of IPv6. The delay applies to the answer to a failed login and to nothing else:
//! a right password from the same network is answered at once. At most `DELAYED_MAX` answers of a network wait at a time;
//! a further failure gets no answer, and its connection is closed. The model is OpenSSH's PerSourcePenalties. All functions
//! are pure: the time is a parameter.
//!
//! Bounds: `NETWORKS_MAX` networks, each with `DELAYED_MAX` times. One failure is forgotten every `FORGET_INTERVAL`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use seaprox::PeerNetwork;

/// Failed logins per connection. The connection is closed after the answer to the last one.
pub const FAILURES_PER_CONNECTION: u8 = 3;

/// The failed logins of each network.
#[derive(Debug, Default)]
pub struct AuthPenalties {
    networks: HashMap<PeerNetwork, Failures>,
    /// Time of the last sweep of all networks.
    swept: Option<Instant>,
    /// Set while the table is full and every network in it has a delayed answer: no entry can be freed before this time.
    busy_until: Option<Instant>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    /// Start of the interval after which the next failure is forgotten.
    since: Instant,
    /// Times at which the delayed answers are due. An entry stays until its time even if its client has left, so that
    /// leaving early frees no room.
    delayed: Vec<Instant>,
}

impl AuthPenalties {
    /// Records a failed login. Returns the delay of its answer; none if the connection must be closed without an answer.
    pub fn login_failed(&mut self, network: PeerNetwork, now: Instant) -> Option<Duration> {
        if !self.networks.contains_key(&network) && self.networks.len() >= NETWORKS_MAX {
            self.make_room(now)?;
        }
        let fresh = || Failures { count: 0, since: now, delayed: Vec::new() };
        let failures = self.networks.entry(network).or_insert_with(fresh);
        failures.forget(now);
        failures.count = (failures.count + 1).min(COUNT_MAX);
        if failures.delayed.len() >= DELAYED_MAX {
            return None;
        }
        let delay = (DELAY_MIN * (1 << (failures.count - 1))).min(DELAY_MAX);
        failures.delayed.push(now + delay);
        Some(delay)
    }

    /// Frees an entry: once a second, drops all networks without failures; otherwise compares the first few networks without
    /// a delayed answer and drops the one with the fewest failures. Returns none if no entry can be freed. The table is then
    /// not searched again before a network can have become idle.
    fn make_room(&mut self, now: Instant) -> Option<()> {
        if self.swept.is_none_or(|swept| now >= swept + SWEEP_INTERVAL) {
            self.swept = Some(now);
            self.networks.values_mut().for_each(|failures| failures.forget(now));
            self.networks.retain(|_, failures| failures.count > 0 || !failures.delayed.is_empty());
        }
        if self.networks.len() < NETWORKS_MAX {
            return Some(());
        }
        if self.busy_until.is_some_and(|until| now < until) {
            return None;
        }
        let idle = self.networks.iter().filter(|(_, failures)| failures.delayed.iter().all(|due| *due <= now));
        let least = idle.take(SAMPLE).min_by_key(|(_, failures)| failures.count).map(|(network, _)| *network);
        if least.is_none() {
            self.busy_until =
                self.networks.values().filter_map(|failures| failures.delayed.iter().max().copied()).min();
        }
        self.networks.remove(&least?);
        Some(())
    }
}

impl Failures {
    /// Forgets one failure for each interval that has passed, and the answers that were due.
    fn forget(&mut self, now: Instant) {
        self.delayed.retain(|due| *due > now);
        let intervals = now.saturating_duration_since(self.since).as_secs() / FORGET_INTERVAL.as_secs();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.count = self.count.saturating_sub(intervals);
        self.since += FORGET_INTERVAL * intervals;
    }
}

/// Delay after the first failure.
const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(5);
/// Delayed answers of one network at a time.
const DELAYED_MAX: usize = 16;
/// Largest count of failures; a higher one would not lengthen the delay.
const COUNT_MAX: u32 = 16;
/// Time after which one failure is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between two sweeps of the full table.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Idle networks that are compared between two sweeps.
const SAMPLE: usize = 8;
const NETWORKS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> PeerNetwork {
        PeerNetwork::V4(number.into())
    }

    #[test]
    fn the_delay_grows_with_the_failures_of_a_network_and_shrinks_with_time() {
        let (mut penalties, start) = (AuthPenalties::default(), Instant::now());
        let delays: Vec<_> = (0..8).map(|_| penalties.login_failed(network(1), start).unwrap().as_millis()).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000]);
        assert_eq!(penalties.login_failed(network(2), start), Some(DELAY_MIN), "each network has its own count");
        let later = start + 5 * FORGET_INTERVAL;
        let delay = Duration::from_millis(400);
        assert_eq!(penalties.login_failed(network(1), later), Some(delay), "three of eight failures are left");
        assert_eq!(penalties.login_failed(network(1), later + 100 * FORGET_INTERVAL), Some(DELAY_MIN));
    }

    #[test]
    fn sixteen_answers_of_a_network_are_delayed_and_further_failures_get_none() {
        let (mut penalties, start) = (AuthPenalties::default(), Instant::now());
        let answered = (0..1_000).filter(|_| penalties.login_failed(network(1), start).is_some()).count();
        assert_eq!(answered, DELAYED_MAX);
        let before = start + DELAY_MAX - Duration::from_millis(1);
        assert!(penalties.login_failed(network(1), before).is_some(), "the first fifteen have been answered by then");
        let answered = (0..1_000).filter(|_| penalties.login_failed(network(1), start + DELAY_MAX).is_some()).count();
        assert!((1..=DELAYED_MAX).contains(&answered), "{answered}");
        // The rate stays bounded for any duration: sixteen answers in each five seconds.
        let mut count = 0;
        for ms in (0..100_000).step_by(10) {
            count += usize::from(penalties.login_failed(network(3), start + Duration::from_millis(ms)).is_some());
        }
        assert!(count < 21 * DELAYED_MAX, "{count} answers in a hundred seconds");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_network_with_the_fewest_failures() {
        let (mut penalties, start) = (AuthPenalties::default(), Instant::now());
        (0..10).for_each(|_| _ = penalties.login_failed(network(0), start));
        // Networks with a delayed answer keep their entries; a client that finds the table full gets no answer.
        let answered = (1..10_000).filter(|number| penalties.login_failed(network(*number), start).is_some()).count();
        assert_eq!((answered, penalties.networks.len()), (NETWORKS_MAX - 1, NETWORKS_MAX));
        let later = start + DELAY_MAX;
        assert_eq!(penalties.login_failed(network(20_000), later), Some(DELAY_MIN));
        assert_eq!(penalties.networks.len(), NETWORKS_MAX);
        assert!(penalties.networks.contains_key(&network(0)));
    }

    #[test]
    fn an_idle_network_gives_its_entry_to_a_new_one() {
        let (mut penalties, start) = (AuthPenalties::default(), Instant::now());
        (0..NETWORKS_MAX as u32).for_each(|number| _ = penalties.login_failed(network(number), start));
        let fail_again = |number| (0..6).for_each(|_| _ = penalties.login_failed(network(number), start));
        (1..NETWORKS_MAX as u32).for_each(fail_again);
        let later = start + Duration::from_millis(500);
        assert_eq!(penalties.login_failed(network(20_000), later), Some(DELAY_MIN), "network 0 is dropped");
        assert!(!penalties.networks.contains_key(&network(0)) && penalties.networks.len() == NETWORKS_MAX);
        assert_eq!(penalties.login_failed(network(20_001), later), None, "every network has a delayed answer");
        let idle = later + DELAY_MIN;
        assert_eq!(penalties.login_failed(network(20_002), idle), Some(DELAY_MIN), "network 20,000 has been answered");
    }
}
