//! The targets of a list with their tiers and weights, as they follow from the candidates of a discovery.
//!
//! This is computed before the balancer is locked, in one pass over the candidates.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use super::choose::seed_of;
use crate::engine::discovery::{Candidate, Candidates};
use crate::types::address::Target;

/// The targets of a list, each once.
pub(super) struct Listing {
    pub targets: Vec<Listed>,
    pub is_complete: bool,
}

/// A target of a list.
pub(super) struct Listed {
    /// The place of its upstream in the list.
    pub upstream: usize,
    pub target: Target,
    pub address: Option<SocketAddr>,
    pub tier: u32,
    pub weight: u32,
    /// Identifies the target in hashes.
    pub seed: u64,
}

/// The candidates of an upstream with the same priority and family.
#[derive(Default)]
struct Peers<'a> {
    /// The number of the addresses of each host.
    hosts: HashMap<&'a Target, u64>,
    /// The sum of the weights of the hosts. Each counts once, whatever the number of its addresses.
    weight: u64,
}

impl Listing {
    /// Returns the targets of the candidates. A target that the list has twice has the sum of both weights.
    pub fn of(candidates: &Candidates) -> Listing {
        let mut targets: Vec<Listed> = Vec::with_capacity(candidates.list.len());
        let mut places = HashMap::with_capacity(candidates.list.len());
        for (candidate, (tier, weight)) in candidates.list.iter().zip(standing(&candidates.list)) {
            let Candidate { upstream, target, address, .. } = candidate;
            if let Some(place) = places.get(&(*address, target)) {
                let listed: &mut Listed = &mut targets[*place];
                listed.weight = listed.weight.saturating_add(weight);
                continue;
            }
            places.insert((*address, target), targets.len());
            let seed = seed_of(&address.map_or_else(|| target.to_string(), |address| address.to_string()));
            targets.push(Listed { upstream: *upstream, target: target.clone(), address: *address, tier, weight, seed });
        }
        Listing { targets, is_complete: candidates.is_complete }
    }
}

/// Returns the tier and the weight of each candidate. Priorities and weights compare the hosts of one service, so both are
/// made relative: each upstream has targets of the lowest tier, and a host of mean weight counts as much as another target.
pub(super) fn standing(list: &[Candidate]) -> Vec<(u32, u32)> {
    let mut priorities: HashMap<usize, BTreeSet<u16>> = HashMap::new();
    let mut groups: HashMap<(usize, u16, bool), Peers<'_>> = HashMap::new();
    let group_of = |it: &Candidate| (it.upstream, it.priority, it.is_of_other_family);
    for candidate in list {
        priorities.entry(candidate.upstream).or_default().insert(candidate.priority);
        let peers = groups.entry(group_of(candidate)).or_default();
        let addresses = peers.hosts.entry(&candidate.target).or_default();
        if *addresses == 0 {
            peers.weight += u64::from(candidate.weight);
        }
        *addresses += 1;
    }
    let ranks: HashMap<(usize, u16), u32> = priorities
        .iter()
        .flat_map(|(upstream, all)| all.iter().zip(0..).map(|(priority, rank)| ((*upstream, *priority), rank)))
        .collect();
    let standing = list.iter().map(|candidate| {
        let rank = ranks.get(&(candidate.upstream, candidate.priority)).copied().unwrap_or(0);
        let tier = 2 * rank + u32::from(candidate.is_of_other_family);
        (tier, groups.get(&group_of(candidate)).map_or(WEIGHT, |peers| peers.weight_of(candidate)))
    });
    standing.collect()
}

impl Peers<'_> {
    /// Returns the weight of an address of a host. The addresses of a host share its weight; those of a name, which is its
    /// only host, have the weight of a target each.
    fn weight_of(&self, candidate: &Candidate) -> u32 {
        if self.hosts.len() <= 1 {
            return WEIGHT;
        }
        let of_host = match self.weight {
            0 => u64::from(WEIGHT),
            sum => u64::from(WEIGHT) * u64::from(candidate.weight) * self.hosts.len() as u64 / sum,
        };
        let addresses = self.hosts.get(&candidate.target).copied().unwrap_or(1);
        u32::try_from(of_host / addresses.max(1)).unwrap_or(u32::MAX).max(1)
    }
}

/// The weight of a target without one.
const WEIGHT: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_listed_twice_has_the_sum_of_the_weights() {
        let list = ["a:1", "b:1", "a:1"].map(|text| crate::types::upstream::Upstream::parse(text).unwrap());
        let listing = Listing::of(&Candidates::of(&list));
        let shown: Vec<_> = listing.targets.iter().map(|it| (it.target.to_string(), it.weight)).collect();
        assert_eq!(shown, [("a:1".to_owned(), 2000), ("b:1".to_owned(), 1000)]);
    }
}
