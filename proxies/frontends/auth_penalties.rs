//! Wrong passwords: how long a client waits for the answer to one, and when it gets none.
//!
//! The pause grows with the failures of the client's network (an IPv4 address, or a /64 of IPv6). It delays the answer to a
//! failure and nothing else: a right password from the same network is answered at once. At most [`ANSWERS_MAX`] answers of
//! a network wait at a time; a failure beyond them gets no answer, and its connection is closed. All of it is pure: the time
//! is a parameter. The model is OpenSSH's PerSourcePenalties.
//!
//! Bounds: [`NETWORKS_MAX`] networks, each with [`ANSWERS_MAX`] times. A failure is forgotten after [`FORGETS`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use seaprox::PeerNetwork;

/// Wrong passwords that a connection may send. The answer to the last is followed by the close.
pub const FAILURES_PER_CONNECTION: u8 = 3;

/// The failures of each network.
#[derive(Debug, Default)]
pub struct Guesses {
    networks: HashMap<PeerNetwork, Failures>,
    /// Time of the last sweep of all networks.
    swept: Option<Instant>,
    /// The table was full, and answers of each network in it waited: none of them is idle before this.
    busy_until: Option<Instant>,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    /// Time from which the failures are forgotten one after the other.
    since: Instant,
    /// Times at which the delayed answers are due. An entry stays until its time even if its client has left, so that
    /// leaving early frees no room.
    answers: Vec<Instant>,
}

impl Guesses {
    /// Notes a failure. Returns how long its answer waits; none if the connection is to be closed without one.
    pub fn failed(&mut self, network: PeerNetwork, now: Instant) -> Option<Duration> {
        if !self.networks.contains_key(&network) && self.networks.len() >= NETWORKS_MAX {
            self.make_room(now)?;
        }
        let fresh = || Failures { count: 0, since: now, answers: Vec::new() };
        let failures = self.networks.entry(network).or_insert_with(fresh);
        failures.pass(now);
        failures.count = (failures.count + 1).min(COUNT_MAX);
        if failures.answers.len() >= ANSWERS_MAX {
            return None;
        }
        let pause = (PAUSE_MIN * (1 << (failures.count - 1))).min(PAUSE_MAX);
        failures.answers.push(now + pause);
        Some(pause)
    }

    /// Frees an entry: drops all networks without failures once a second; otherwise drops, of the first few networks without
    /// a delayed answer, the one with the fewest failures. Returns none if no entry can be freed. The table is then not
    /// searched again before the first network may have become idle.
    fn make_room(&mut self, now: Instant) -> Option<()> {
        if self.swept.is_none_or(|swept| now >= swept + SWEEPS) {
            self.swept = Some(now);
            self.networks.values_mut().for_each(|failures| failures.pass(now));
            self.networks.retain(|_, failures| failures.count > 0 || !failures.answers.is_empty());
        }
        if self.networks.len() < NETWORKS_MAX {
            return Some(());
        }
        if self.busy_until.is_some_and(|until| now < until) {
            return None;
        }
        let idle = self.networks.iter().filter(|(_, failures)| failures.answers.iter().all(|due| *due <= now));
        let least = idle.take(SAMPLE).min_by_key(|(_, failures)| failures.count).map(|(network, _)| *network);
        if least.is_none() {
            self.busy_until =
                self.networks.values().filter_map(|failures| failures.answers.iter().max().copied()).min();
        }
        self.networks.remove(&least?);
        Some(())
    }
}

impl Failures {
    /// Forgets failures that are old enough.
    fn pass(&mut self, now: Instant) {
        self.answers.retain(|due| *due > now);
        let periods = now.saturating_duration_since(self.since).as_secs() / FORGETS.as_secs();
        let periods = u32::try_from(periods).unwrap_or(u32::MAX);
        self.count = self.count.saturating_sub(periods);
        self.since += FORGETS * periods;
    }
}

/// The pause after the first failure, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Answers of one network that wait at a time.
const ANSWERS_MAX: usize = 16;
/// More failures are not told apart.
const COUNT_MAX: u32 = 16;
/// One failure is forgotten after so long.
const FORGETS: Duration = Duration::from_secs(10);
/// How often all networks are looked at when there is no room, and how many idle ones are compared otherwise.
const SWEEPS: Duration = Duration::from_secs(1);
const SAMPLE: usize = 8;
/// Networks that are remembered.
const NETWORKS_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: u32) -> PeerNetwork {
        PeerNetwork::V4(number.into())
    }

    #[test]
    fn the_pause_grows_with_the_failures_of_a_network_and_shrinks_with_time() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let pauses: Vec<_> = (0..8).map(|_| guesses.failed(network(1), start).unwrap().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000]);
        assert_eq!(guesses.failed(network(2), start), Some(PAUSE_MIN), "each network has its own");
        let later = start + 5 * FORGETS;
        assert_eq!(guesses.failed(network(1), later), Some(Duration::from_millis(400)), "three of eight are left");
        assert_eq!(guesses.failed(network(1), later + 100 * FORGETS), Some(PAUSE_MIN));
    }

    #[test]
    fn sixteen_answers_of_a_network_wait_and_further_failures_get_none() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let answered = (0..1_000).filter(|_| guesses.failed(network(1), start).is_some()).count();
        assert_eq!(answered, ANSWERS_MAX);
        let before = start + PAUSE_MAX - Duration::from_millis(1);
        assert!(guesses.failed(network(1), before).is_some(), "the first fifteen have been answered by then");
        let answered = (0..1_000).filter(|_| guesses.failed(network(1), start + PAUSE_MAX).is_some()).count();
        assert!((1..=ANSWERS_MAX).contains(&answered), "{answered}");
        // The rate stays bounded for any duration: sixteen answers in each five seconds.
        let mut count = 0;
        for ms in (0..100_000).step_by(10) {
            count += usize::from(guesses.failed(network(3), start + Duration::from_millis(ms)).is_some());
        }
        assert!(count < 21 * ANSWERS_MAX, "{count} in a hundred seconds");
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_has_failed_least() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        (0..10).for_each(|_| _ = guesses.failed(network(0), start));
        // Clients whose answer is delayed keep their entries; a client that finds the table full gets no answer.
        let answered = (1..10_000).filter(|number| guesses.failed(network(*number), start).is_some()).count();
        assert_eq!((answered, guesses.networks.len()), (NETWORKS_MAX - 1, NETWORKS_MAX));
        let later = start + PAUSE_MAX;
        assert_eq!(guesses.failed(network(20_000), later), Some(PAUSE_MIN));
        assert_eq!(guesses.networks.len(), NETWORKS_MAX);
        assert!(guesses.networks.contains_key(&network(0)));
    }

    #[test]
    fn one_idle_network_among_those_that_wait_makes_room() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        (0..NETWORKS_MAX as u32).for_each(|number| _ = guesses.failed(network(number), start));
        (1..NETWORKS_MAX as u32).for_each(|number| (0..6).for_each(|_| _ = guesses.failed(network(number), start)));
        let later = start + Duration::from_millis(500);
        assert_eq!(guesses.failed(network(20_000), later), Some(PAUSE_MIN), "network 0 makes room");
        assert!(!guesses.networks.contains_key(&network(0)) && guesses.networks.len() == NETWORKS_MAX);
        assert_eq!(guesses.failed(network(20_001), later), None, "an answer of each waits");
        let idle = later + PAUSE_MIN;
        assert_eq!(guesses.failed(network(20_002), idle), Some(PAUSE_MIN), "that of 20,000 has been sent");
    }
}
