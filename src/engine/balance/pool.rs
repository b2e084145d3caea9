//! The targets of a balancer: which there are, which are left out, and which a client gets.
//!
//! ```text
//!                 a connect fails                 its time has come
//!   listed: up ------------------> left out ----------------------> on trial (one client)
//!            ^                        ^                                  |      |
//!            |                        +------------ it fails ------------+      |
//!            +------------------------------- it is connected ------------------+
//! ```
//! A target that has left the list gets no client, and its record stays until its last connection is over.
//!
//! This is a table without a clock and without sockets: time is a parameter.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::choose::{Balance, Share, choose};
use super::listing::{Listed, Listing};
use crate::engine::discovery::Candidates;
use crate::types::address::Target;
use crate::types::reason::{Failure, Reason};
use crate::types::units::format_duration;

/// The targets of a list.
pub(super) struct Pool {
    balance: Balance,
    entries: Vec<Entry>,
    /// Each upstream was looked up at least once.
    is_complete: bool,
    next_id: u64,
    /// Places of targets, kept for its memory.
    eligible: Vec<usize>,
}

/// A target.
pub(super) struct Entry {
    id: u64,
    /// The place of its upstream in the list.
    upstream: usize,
    target: Target,
    address: Option<SocketAddr>,
    /// Targets of a higher tier are used if no target of a lower one can be: by the priority of a service, and the second
    /// family of a name after the first.
    tier: u32,
    share: Share,
    is_listed: bool,
    opened: u64,
    failures: u64,
    health: Health,
}

/// The record of the failures of a target.
#[derive(Clone, Debug, Default)]
struct Health {
    /// Failed trials in a row, the first failure included; 0 if the target is up.
    failed: u32,
    /// The time from which a client may try it.
    retry_ms: u64,
    since_ms: u64,
    is_on_trial: bool,
}

/// The target that was chosen for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub id: u64,
    pub target: Target,
    pub address: Option<SocketAddr>,
    /// The target was left out, and this client tries it.
    pub is_trial: bool,
    /// The target was left out.
    pub is_suspect: bool,
    /// Another target is left that the client has not tried.
    pub has_others: bool,
}

/// The state of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetState {
    /// It gets clients.
    Up,
    /// It could not be connected to. It gets no client but one, now and then, that tries it.
    LeftOut,
    /// It has left the list, and has connections still.
    Leaving,
}

/// The status of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// The target, as the list or the service has it.
    pub target: Target,
    /// The address that its name has, if it is known.
    pub address: Option<SocketAddr>,
    /// The state.
    pub state: TargetState,
    /// Connections that are being connected or relayed.
    pub active: u32,
    /// Connections that were begun.
    pub opened: u64,
    /// Connections that could not be made.
    pub failures: u64,
}

impl TargetState {
    /// All states.
    pub const ALL: [TargetState; 3] = [TargetState::Up, TargetState::LeftOut, TargetState::Leaving];

    /// Returns the word of the state.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetState::Up => "up",
            TargetState::LeftOut => "left_out",
            TargetState::Leaving => "leaving",
        }
    }
}

impl Pool {
    pub fn new(balance: Balance, candidates: &Candidates) -> Pool {
        let mut pool = Pool { balance, entries: Vec::new(), is_complete: false, next_id: 0, eligible: Vec::new() };
        pool.update(Listing::of(candidates));
        pool
    }

    /// Returns true if a target may come that is not known yet.
    pub fn is_awaited(&self) -> bool {
        !self.is_complete && self.entries.iter().all(|entry| !entry.is_listed)
    }

    /// Takes the targets of the list. Targets that stay keep their figures.
    pub fn update(&mut self, listing: Listing) {
        self.is_complete = listing.is_complete;
        self.entries.iter_mut().for_each(|entry| entry.is_listed = false);
        let places: HashMap<_, _> =
            self.entries.iter().enumerate().map(|(place, entry)| ((entry.address, &entry.target), place)).collect();
        let known: Vec<_> =
            listing.targets.iter().map(|listed| places.get(&(listed.address, &listed.target)).copied()).collect();
        for (listed, place) in listing.targets.into_iter().zip(known) {
            let Listed { upstream, target, address, tier, weight, seed } = listed;
            let place = place.unwrap_or_else(|| {
                self.entries.push(Entry::new(self.next_id, target, address, seed));
                self.next_id += 1;
                self.entries.len() - 1
            });
            let entry = &mut self.entries[place];
            entry.upstream = upstream;
            (entry.is_listed, entry.tier, entry.share.weight) = (true, tier, weight);
        }
        self.entries.retain(|entry| entry.is_listed || entry.share.active > 0);
    }

    /// Returns the place in the list of the upstream that has this target.
    pub fn upstream_of(&self, target: &Target) -> Option<usize> {
        self.entries.iter().find(|entry| entry.target == *target).map(|entry| entry.upstream)
    }

    /// Chooses a target for a client that has tried some. A target that is left out is chosen if its time has come, or if
    /// there is no other.
    pub fn choose(&mut self, source: Option<IpAddr>, tried: &[u64], now_ms: u64) -> Option<Chosen> {
        let mut eligible = std::mem::take(&mut self.eligible);
        eligible.clear();
        let is_new = |entry: &Entry| entry.is_listed && !tried.contains(&entry.id);
        let tier = |entries: &[Entry], is_fit: &dyn Fn(&Entry) -> bool| {
            entries.iter().filter(|entry| is_fit(entry)).map(|entry| entry.tier).min()
        };
        let is_usable = |entry: &Entry| is_new(entry) && entry.health.is_usable(now_ms);
        if let Some(tier) = tier(&self.entries, &is_usable) {
            let fits = |(_, entry): &(usize, &Entry)| entry.tier == tier && is_usable(entry);
            eligible.extend(self.entries.iter().enumerate().filter(fits).map(|(place, _)| place));
        } else if let Some(tier) = tier(&self.entries, &is_new) {
            let fits = |(_, entry): &(usize, &Entry)| entry.tier == tier && is_new(entry);
            eligible.extend(self.entries.iter().enumerate().filter(fits).map(|(place, _)| place));
        }
        let place = choose(self.balance, &mut self.entries, &eligible, source);
        self.eligible = eligible;
        let place = place?;
        let has_others = self.entries.iter().filter(|entry| is_new(entry)).count() > 1;
        let entry = &mut self.entries[place];
        entry.share.active += 1;
        entry.opened += 1;
        let is_trial = entry.health.failed > 0 && entry.health.is_usable(now_ms);
        entry.health.is_on_trial |= is_trial;
        let (id, target, address) = (entry.id, entry.target.clone(), entry.address);
        Some(Chosen { id, target, address, is_trial, is_suspect: entry.health.failed > 0, has_others })
    }

    /// Notes that a target was connected.
    pub fn connected(&mut self, id: u64, now_ms: u64) {
        let Some(entry) = self.entry(id) else { return };
        let health = std::mem::take(&mut entry.health);
        if health.failed > 0 {
            let after = format_duration(Duration::from_millis(now_ms.saturating_sub(health.since_ms)));
            let (target, addr, failures) = (entry.target.to_string(), entry.shown_address(), health.failed);
            log::info!(target: TARGET, target = target, addr = addr, failures, after = after; "target is back");
        }
    }

    /// Notes that a target could not be connected. Returns true if it was up, and is left out from now on.
    pub fn failed(&mut self, id: u64, failure: &Failure, is_trial: bool, now_ms: u64) -> bool {
        let Some(entry) = self.entry(id) else { return false };
        entry.failures += 1;
        if is_trial {
            entry.health.is_on_trial = false;
        }
        // Other clients that were on their way to the target tell nothing new.
        if !leaves_out(failure.reason) || (entry.health.failed > 0 && !is_trial) {
            return false;
        }
        let was_up = entry.health.failed == 0;
        if was_up {
            entry.health.since_ms = now_ms;
        }
        entry.health.failed = entry.health.failed.saturating_add(1);
        let wait = RETRY_MAX.min(RETRY_MIN * 2_u32.saturating_pow(entry.health.failed.min(10) - 1));
        entry.health.retry_ms = now_ms.saturating_add(wait.as_millis() as u64);
        if entry.health.failed.is_power_of_two() {
            let (target, addr, failures) = (entry.target.to_string(), entry.shown_address(), entry.health.failed);
            let (reason, retry) = (failure.reason.as_str(), format_duration(wait));
            log::warn!(target: TARGET, target = target, addr = addr, reason = reason, failures, retry = retry; "target left out");
        }
        was_up
    }

    /// Ends the use of a target by a connection.
    pub fn release(&mut self, id: u64, is_trial: bool) {
        let Some(place) = self.entries.iter().position(|entry| entry.id == id) else { return };
        let entry = &mut self.entries[place];
        entry.share.active = entry.share.active.saturating_sub(1);
        if is_trial {
            entry.health.is_on_trial = false;
        }
        if !entry.is_listed && entry.share.active == 0 {
            self.entries.remove(place);
        }
    }

    pub fn status(&self) -> Vec<TargetStatus> {
        let status = |entry: &Entry| TargetStatus {
            target: entry.target.clone(),
            address: entry.address,
            state: match (entry.is_listed, entry.health.failed) {
                (false, _) => TargetState::Leaving,
                (true, 0) => TargetState::Up,
                (true, _) => TargetState::LeftOut,
            },
            active: entry.share.active,
            opened: entry.opened,
            failures: entry.failures,
        };
        self.entries.iter().map(status).collect()
    }

    fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.id == id)
    }
}

impl Entry {
    fn new(id: u64, target: Target, address: Option<SocketAddr>, seed: u64) -> Entry {
        Entry {
            id,
            upstream: 0,
            target,
            address,
            tier: 0,
            share: Share { weight: 1, active: 0, seed, credit: 0 },
            is_listed: true,
            opened: 0,
            failures: 0,
            health: Health::default(),
        }
    }

    fn shown_address(&self) -> String {
        self.address.map_or_else(|| "-".to_owned(), |address| address.to_string())
    }
}

impl AsMut<Share> for Entry {
    fn as_mut(&mut self) -> &mut Share {
        &mut self.share
    }
}

impl Health {
    /// Returns true if a client may use the target now.
    fn is_usable(&self, now_ms: u64) -> bool {
        self.failed == 0 || (now_ms >= self.retry_ms && !self.is_on_trial)
    }
}

/// Returns true if a failure for this reason says that the target cannot be connected to. A rule that forbids the target, a
/// limit of this host and the loss of a link do not.
fn leaves_out(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectionRefused
            | Reason::TimedOut
            | Reason::NetworkUnreachable
            | Reason::HostUnreachable
            | Reason::NameResolutionFailure
            | Reason::Other
    )
}

/// The time for which a target is left out after its first failure. It doubles with each failed trial.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest time for which a target is left out.
const RETRY_MAX: Duration = Duration::from_secs(60);
const TARGET: &str = "seaprox::balance";

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
