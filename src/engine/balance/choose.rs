//! The choice of a target among those of a list. Pure functions over the records; [`Pool`](super::pool) keeps them.

use std::net::IpAddr;

/// The algorithm that chooses a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// The targets take turns, in proportion to their weights.
    #[default]
    RoundRobin,
    /// The target with the fewest connections in proportion to its weight. Equal ones take turns.
    LeastConnections,
    /// The target that the address of the client is mapped to. A client goes to the same target for as long as that is in
    /// the list and can be connected to; if it leaves, its clients alone go elsewhere (rendezvous hashing).
    SourceHash,
}

impl Balance {
    /// The words of all algorithms, in the order of [`Balance::ALL`].
    pub const WORDS: &'static [&'static str] = &["round-robin", "least-connections", "source-hash"];
    /// All algorithms.
    pub const ALL: [Balance; 3] = [Balance::RoundRobin, Balance::LeastConnections, Balance::SourceHash];

    /// Returns the word of the algorithm.
    pub fn as_str(self) -> &'static str {
        Balance::WORDS[self as usize]
    }

    /// Returns the algorithm that a word names.
    pub fn find(word: &str) -> Option<Balance> {
        Balance::ALL.into_iter().find(|balance| balance.as_str() == word)
    }
}

/// The figures of a target that a choice depends on.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// The part of the connections that the target is to have, relative to that of the others. Invariant: above 0.
    pub weight: u32,
    /// Connections that are being connected or relayed.
    pub active: u32,
    /// Identifies the target in hashes: the same in each process with the same list.
    pub seed: u64,
    /// The credit of the target when the targets take turns.
    pub credit: i64,
}

/// Returns the place of the target to use among those of `eligible`, which are places in `shares`; none if there are none.
pub(super) fn choose(
    balance: Balance,
    shares: &mut [impl AsMut<Share>],
    eligible: &[usize],
    source: Option<IpAddr>,
) -> Option<usize> {
    match balance {
        Balance::RoundRobin => take_turns(shares, eligible),
        Balance::LeastConnections => {
            // Compares the loads as if the target were chosen, so that a heavier target gets the first connections.
            let mut least: Option<(u64, u64)> = None;
            for place in eligible {
                let share = shares[*place].as_mut();
                let load = (u64::from(share.active) + 1, u64::from(share.weight));
                if least.is_none_or(|least| is_less(load, least)) {
                    least = Some(load);
                }
            }
            let least = least?;
            let load = |share: &mut Share| (u64::from(share.active) + 1, u64::from(share.weight));
            let equal: Vec<_> =
                eligible.iter().copied().filter(|place| !is_less(least, load(shares[*place].as_mut()))).collect();
            take_turns(shares, &equal)
        }
        Balance::SourceHash => {
            let source = hash_of(source);
            let scored = eligible.iter().map(|place| {
                let share = shares[*place].as_mut();
                (score(source, share.seed, share.weight), *place)
            });
            scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, place)| place)
        }
    }
}

/// Returns true if the first quotient is less than the second.
fn is_less(one: (u64, u64), other: (u64, u64)) -> bool {
    one.0 * other.1 < other.0 * one.1
}

/// Chooses by smooth weighted round robin: each target gets its weight as credit, and the chosen one pays all of it. So the
/// turns of a heavy target are spread among those of the others.
fn take_turns(shares: &mut [impl AsMut<Share>], eligible: &[usize]) -> Option<usize> {
    let mut best: Option<(i64, usize)> = None;
    let mut total = 0;
    for place in eligible {
        let share = shares[*place].as_mut();
        share.credit += i64::from(share.weight);
        total += i64::from(share.weight);
        if best.is_none_or(|(credit, _)| share.credit > credit) {
            best = Some((share.credit, *place));
        }
    }
    let (_, place) = best?;
    shares[place].as_mut().credit -= total;
    Some(place)
}

/// Returns the score of a target for a client: the target with the highest one has the client. The logarithm makes the number
/// of clients proportional to the weight (weighted rendezvous hashing).
fn score(source: u64, seed: u64, weight: u32) -> f64 {
    let hash = mix(source ^ mix(seed));
    // A number between 0 and 1, without both.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    f64::from(weight) / -uniform.ln()
}

fn hash_of(source: Option<IpAddr>) -> u64 {
    match source.map(|ip| ip.to_canonical()) {
        None => 0,
        Some(IpAddr::V4(ip)) => mix(u64::from(u32::from(ip)) + 1),
        Some(IpAddr::V6(ip)) => {
            let bits = u128::from(ip);
            mix((bits >> 64) as u64 ^ mix(bits as u64))
        }
    }
}

/// Returns the hash of a text: FNV-1a, the same on all systems and in all versions.
pub(super) fn seed_of(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads the bits of a number (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AsMut<Share> for Share {
        fn as_mut(&mut self) -> &mut Share {
            self
        }
    }

    fn shares(weights: &[u32]) -> Vec<Share> {
        let share = |(index, weight): (usize, &u32)| Share {
            weight: *weight,
            active: 0,
            seed: seed_of(&format!("10.0.0.{index}:80")),
            credit: 0,
        };
        weights.iter().enumerate().map(share).collect()
    }

    #[test]
    fn targets_take_turns_in_proportion_to_their_weights_without_bursts() {
        let mut all = shares(&[3, 1, 1]);
        let chosen: Vec<_> =
            (0..10).map(|_| choose(Balance::RoundRobin, &mut all, &[0, 1, 2], None).unwrap()).collect();
        assert_eq!(chosen, [0, 1, 0, 2, 0, 0, 1, 0, 2, 0]);
        assert_eq!(choose(Balance::RoundRobin, &mut all, &[], None), None);
    }

    #[test]
    fn the_fewest_connections_count_in_proportion_to_the_weight() {
        let mut all = shares(&[1, 2, 1]);
        for _ in 0..40 {
            let place = choose(Balance::LeastConnections, &mut all, &[0, 1, 2], None).unwrap();
            all[place].active += 1;
        }
        assert_eq!(all.iter().map(|it| it.active).collect::<Vec<_>>(), [10, 20, 10]);
        // A target whose connections last gets no more than the others end.
        all[0].active = 1000;
        let chosen = |all: &mut Vec<Share>| choose(Balance::LeastConnections, all, &[0, 1, 2], None).unwrap();
        assert!((0..100).all(|_| chosen(&mut all) != 0));
    }

    #[test]
    fn only_the_clients_of_a_target_that_leaves_go_elsewhere() {
        let mut all = shares(&[1; 5]);
        let clients: Vec<IpAddr> = (0..2000_u32).map(|n| std::net::Ipv4Addr::from(0x0a01_0000 + n).into()).collect();
        let mut of = |eligible: &[usize]| -> Vec<usize> {
            clients.iter().map(|ip| choose(Balance::SourceHash, &mut all, eligible, Some(*ip)).unwrap()).collect()
        };
        let (before, after) = (of(&[0, 1, 2, 3, 4]), of(&[0, 1, 3, 4]));
        for (before, after) in before.iter().zip(&after) {
            assert!(*before == 2 || before == after);
        }
        for place in 0..5 {
            let count = before.iter().filter(|it| **it == place).count();
            assert!((300..500).contains(&count), "{count} of 400 clients");
        }
        assert_eq!(before, of(&[4, 3, 2, 1, 0]), "the order of the list does not matter");
    }

    #[test]
    fn a_source_hash_gives_a_heavier_target_more_clients() {
        let mut all = shares(&[3, 1]);
        let first = (0..4000_u32)
            .filter(|n| {
                let ip = std::net::Ipv4Addr::from(0x0a01_0000 + n).into();
                choose(Balance::SourceHash, &mut all, &[0, 1], Some(ip)) == Some(0)
            })
            .count();
        assert!((2800..3200).contains(&first), "{first} of 3000 clients");
        let mapped: IpAddr = "::ffff:10.1.0.1".parse().unwrap();
        assert_eq!(hash_of(Some(mapped)), hash_of(Some("10.1.0.1".parse().unwrap())));
    }

    #[test]
    fn each_algorithm_is_found_by_its_word() {
        for balance in Balance::ALL {
            assert_eq!(Balance::find(balance.as_str()), Some(balance));
        }
        assert_eq!(Balance::find("random"), None);
    }
}
