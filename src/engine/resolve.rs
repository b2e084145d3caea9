//! The names of one loop: a small cache, and the lookups in progress.
//!
//! Connections of one asker that need the same name at the same time share one lookup. They do not join the lookup of
//! another asker, because they would then wait behind all names of the other. The first answer serves all askers.
//! Addresses are cached for a bounded time, because `getaddrinfo` does not return their lifetime, and are dropped when a
//! connect to them fails. Failures are not cached. This module knows only the ids of sides; workers look the names up.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::fair::Asker;
use crate::engine::limits::Family;
use crate::types::address::Name;
use crate::types::id::Id;
use crate::types::reason::Failure;

/// The result of a worker's lookup.
pub(crate) struct Resolved {
    pub name: Name,
    pub found: Result<Vec<IpAddr>, Failure>,
    /// Set if the lookup waited too long and was not made; only its asker fails then.
    pub late: Option<Late>,
}

/// A lookup that was not made.
pub(crate) struct Late {
    pub asker: Asker,
    /// Set when the lookup of another asker has answered.
    pub is_answered: Arc<AtomicBool>,
}

/// The cache and the waiting sides.
pub(crate) struct Resolver {
    known: HashMap<Name, Known>,
    waiting: HashMap<Name, Waiting>,
    known_max: usize,
    age_max_ms: u64,
}

struct Known {
    addresses: Vec<IpAddr>,
    since_ms: u64,
    asker: Asker,
}

/// The sides that wait for a name.
struct Waiting {
    sides: Vec<(Asker, Id)>,
    /// Number of sides at which the sides that are gone are removed.
    sweep_at: usize,
    /// The askers that have started a lookup. Invariant: at least one, and no duplicates.
    askers: Vec<Asker>,
    is_answered: Arc<AtomicBool>,
}

/// The answer to a side that needs a name.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// The addresses from the cache.
    Known(Vec<IpAddr>),
    /// The side waits for a lookup in progress.
    Waits,
    /// The caller must start a lookup, the first of its asker. The worker skips it if the flag is set when its turn comes.
    LookUp(Arc<AtomicBool>),
}

impl Resolver {
    pub fn new(known_max: usize, age_max_ms: u64) -> Resolver {
        Resolver { known: HashMap::new(), waiting: HashMap::new(), known_max, age_max_ms }
    }

    /// Asks for the addresses of a name for a side. May forget waiting sides for which `there` returns false.
    pub fn want(&mut self, name: &Name, side: Id, asker: Asker, now_ms: u64, there: impl Fn(Id) -> bool) -> Wanted {
        if let Some(known) = self.known.get(name) {
            if now_ms - known.since_ms <= self.age_max_ms && self.age_max_ms > 0 {
                return Wanted::Known(known.addresses.clone());
            }
            self.known.remove(name);
        }
        let waiting = self.waiting.entry(name.clone()).or_insert_with(Waiting::new);
        waiting.add(side, asker, there);
        if waiting.askers.contains(&asker) {
            return Wanted::Waits;
        }
        waiting.askers.push(asker);
        Wanted::LookUp(Arc::clone(&waiting.is_answered))
    }

    /// Ends the wait of a side whose lookup was refused, and the lookup of its asker.
    pub fn refused(&mut self, name: &Name, side: Id, asker: Asker) {
        let Some(waiting) = self.waiting.get_mut(name) else { return };
        // The side came last, so the search finds it at once.
        if let Some(at) = waiting.sides.iter().rposition(|(_, other)| *other == side) {
            waiting.sides.remove(at);
        }
        waiting.askers.retain(|other| *other != asker);
        if waiting.askers.is_empty() {
            self.waiting.remove(name);
        }
    }

    /// Ends a lookup: caches its addresses and returns the sides that waited for the name. A lookup that was too late
    /// ends only for its asker; the sides of the others go on waiting.
    pub fn resolved(&mut self, resolved: &Resolved, now_ms: u64) -> Vec<Id> {
        if let Some(late) = &resolved.late {
            return self.came_too_late(&resolved.name, late);
        }
        // A second answer brings nothing new, and no side waits for it.
        let Some(waiting) = self.waiting.remove(&resolved.name) else { return Vec::new() };
        waiting.is_answered.store(true, Ordering::Relaxed);
        if let (Ok(addresses), Some(asker)) = (&resolved.found, waiting.askers.first().copied())
            && self.age_max_ms > 0
        {
            self.make_room(asker);
            self.known.insert(resolved.name.clone(), Known { addresses: addresses.clone(), since_ms: now_ms, asker });
        }
        waiting.sides.into_iter().map(|(_, side)| side).collect()
    }

    fn came_too_late(&mut self, name: &Name, late: &Late) -> Vec<Id> {
        // If the name was answered, the sides that wait now have asked later and have another lookup.
        let is_answered = late.is_answered.load(Ordering::Relaxed);
        let Some(waiting) = self.waiting.get_mut(name).filter(|_| !is_answered) else { return Vec::new() };
        waiting.askers.retain(|asker| *asker != late.asker);
        let its = waiting.sides.extract_if(.., |(asker, _)| *asker == late.asker).map(|(_, side)| side).collect();
        if waiting.askers.is_empty() {
            self.waiting.remove(name);
        }
        its
    }

    /// Removes a name from the cache, because a connect to its addresses failed.
    pub fn forget(&mut self, name: &Name) {
        self.known.remove(name);
    }

    /// Makes room for a name in the cache. An asker that has a quarter of the cache loses its oldest name.
    fn make_room(&mut self, asker: Asker) {
        let its = self.known.values().filter(|known| known.asker == asker).count();
        let has_share = asker != Asker::Own && its >= (self.known_max / 4).max(1);
        if self.known.len() < self.known_max && !has_share {
            return;
        }
        let may_go = self.known.iter().filter(|(_, known)| !has_share || known.asker == asker);
        let oldest = may_go.min_by_key(|(_, known)| known.since_ms).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }
}

impl Waiting {
    fn new() -> Waiting {
        Waiting { sides: Vec::new(), sweep_at: SWEEP_MIN, askers: Vec::new(), is_answered: Arc::default() }
    }

    /// Adds a side. The list grows to at most twice the sides that the last sweep kept, or to [`SWEEP_MIN`], so the sweeps
    /// cost each side a constant time.
    fn add(&mut self, side: Id, asker: Asker, there: impl Fn(Id) -> bool) {
        if self.sides.len() >= self.sweep_at {
            self.sides.retain(|(_, side)| there(*side));
            self.sweep_at = (2 * self.sides.len()).max(SWEEP_MIN);
        }
        self.sides.push((asker, side));
    }
}

/// Returns the addresses in the order of the attempts: the families alternate, the preferred one first (RFC 8305, section
/// 4).
pub(crate) fn order(addresses: &[IpAddr], port: u16, family: Family, count_max: usize) -> Vec<SocketAddr> {
    let of = |ipv6: bool| addresses.iter().filter(move |address| address.is_ipv6() == ipv6);
    let (mut first, mut second) = match family {
        Family::PreferIpv6 | Family::OnlyIpv6 => (of(true), of(false)),
        Family::PreferIpv4 | Family::OnlyIpv4 => (of(false), of(true)),
    };
    let both = matches!(family, Family::PreferIpv6 | Family::PreferIpv4);
    let mut ordered = Vec::with_capacity(addresses.len().min(count_max));
    while ordered.len() < count_max {
        let pair = [first.next(), if both { second.next() } else { None }];
        if pair == [None, None] {
            break;
        }
        ordered.extend(pair.into_iter().flatten().map(|address| SocketAddr::new(*address, port)));
    }
    ordered.truncate(count_max);
    ordered
}

/// Minimum number of sides waiting for a name before the sides that are gone are removed.
const SWEEP_MIN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::{Kind, Table};
    use crate::types::reason::Reason;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ordered(texts: &[&str], family: Family) -> String {
        let ordered = order(&addresses(texts), 1, family, 4);
        ordered.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn families_alternate_and_the_preferred_one_is_first() {
        let found = ["10.0.0.1", "10.0.0.2", "::1", "::2", "::3"];
        assert_eq!(ordered(&found, Family::PreferIpv6), "::1 10.0.0.1 ::2 10.0.0.2");
        assert_eq!(ordered(&found, Family::PreferIpv4), "10.0.0.1 ::1 10.0.0.2 ::2");
        assert_eq!(ordered(&found, Family::OnlyIpv6), "::1 ::2 ::3");
        assert_eq!(ordered(&["10.0.0.1"], Family::PreferIpv6), "10.0.0.1");
        assert_eq!(ordered(&["10.0.0.1"], Family::OnlyIpv6), "");
    }

    const A: Asker = Asker::Key([1; 32]);
    const B: Asker = Asker::Key([2; 32]);

    fn looks_up(wanted: &Wanted) -> bool {
        matches!(wanted, Wanted::LookUp(_))
    }

    #[test]
    fn one_lookup_serves_all_waiting_sides_and_then_the_cache_does() {
        let mut table = Table::new(Kind::Side, 2);
        let sides = [table.insert(()).unwrap(), table.insert(()).unwrap()];
        let name = Name::new("example.org").unwrap();
        let mut resolver = Resolver::new(2, 1000);
        assert!(looks_up(&resolver.want(&name, sides[0], A, 0, |_| true)));
        assert!(matches!(resolver.want(&name, sides[1], A, 0, |_| true), Wanted::Waits));
        let resolved = Resolved { name: name.clone(), found: Ok(addresses(&["::1"])), late: None };
        assert_eq!(resolver.resolved(&resolved, 5), sides);
        let known = resolver.want(&name, sides[0], A, 1005, |_| true);
        assert!(matches!(known, Wanted::Known(known) if known == addresses(&["::1"])));
        assert!(looks_up(&resolver.want(&name, sides[0], A, 1006, |_| true)), "too old");
        resolver.resolved(&resolved, 2000);
        resolver.forget(&name);
        assert!(looks_up(&resolver.want(&name, sides[0], A, 2000, |_| true)), "forgotten");
    }

    #[test]
    fn each_asker_has_its_own_lookup_and_the_first_answer_serves_all() {
        let mut table = Table::new(Kind::Side, 3);
        let sides = [0, 1, 2].map(|_| table.insert(()).unwrap());
        let name = Name::new("example.org").unwrap();
        let mut resolver = Resolver::new(2, 1000);
        let Wanted::LookUp(is_answered) = resolver.want(&name, sides[0], A, 0, |_| true) else { panic!("the first") };
        assert!(looks_up(&resolver.want(&name, sides[1], B, 0, |_| true)));
        assert!(matches!(resolver.want(&name, sides[2], B, 0, |_| true), Wanted::Waits));
        resolver.refused(&name, sides[0], A);
        let resolved = Resolved { name: name.clone(), found: Ok(addresses(&["::1"])), late: None };
        assert_eq!(resolver.resolved(&resolved, 5), sides[1..], "the lookups of the others are not refused");
        assert!(is_answered.load(Ordering::Relaxed));
        assert!(resolver.resolved(&resolved, 6).is_empty() && resolver.waiting.is_empty());
        assert!(looks_up(&resolver.want(&Name::new("b").unwrap(), sides[0], A, 0, |_| true)));
        resolver.refused(&Name::new("b").unwrap(), sides[0], A);
        assert!(resolver.waiting.is_empty());
    }

    #[test]
    fn a_lookup_that_is_too_late_ends_for_its_asker_only() {
        let mut table = Table::new(Kind::Side, 3);
        let sides = [0, 1, 2].map(|_| table.insert(()).unwrap());
        let name = Name::new("example.org").unwrap();
        let mut resolver = Resolver::new(2, 1000);
        let Wanted::LookUp(is_answered) = resolver.want(&name, sides[0], A, 0, |_| true) else { panic!("the first") };
        assert!(looks_up(&resolver.want(&name, sides[1], B, 0, |_| true)));
        assert!(matches!(resolver.want(&name, sides[2], A, 0, |_| true), Wanted::Waits));
        let late = Some(Late { asker: A, is_answered: Arc::clone(&is_answered) });
        let late = Resolved { name: name.clone(), found: Err(Reason::TimedOut.into()), late };
        assert_eq!(resolver.resolved(&late, 5), [sides[0], sides[2]]);
        assert!(!is_answered.load(Ordering::Relaxed), "the lookup of the other asker goes on");
        assert!(looks_up(&resolver.want(&name, sides[0], A, 6, |_| true)), "the asker may ask again");
        let resolved = Resolved { name: name.clone(), found: Ok(addresses(&["::1"])), late: None };
        assert_eq!(resolver.resolved(&resolved, 7), [sides[1], sides[0]]);
        resolver.forget(&name);
        // A late lookup from before the answer does not end a later one.
        assert!(looks_up(&resolver.want(&name, sides[0], A, 8, |_| true)));
        assert!(resolver.resolved(&late, 9).is_empty() && resolver.waiting.len() == 1);
        let is_answered = Arc::clone(&resolver.waiting[&name].is_answered);
        let alone = Resolved { late: Some(Late { asker: A, is_answered }), ..late };
        assert_eq!(resolver.resolved(&alone, 10), [sides[0]]);
        assert!(resolver.waiting.is_empty());
    }

    #[test]
    fn sides_that_are_gone_are_forgotten_while_the_lookup_goes_on() {
        let mut table = Table::new(Kind::Side, 4);
        let stays = table.insert(()).unwrap();
        let name = Name::new("slow.example").unwrap();
        let mut resolver = Resolver::new(2, 1000);
        assert!(looks_up(&resolver.want(&name, stays, A, 0, |_| true)));
        let mut left = stays;
        for _ in 0..1_000 {
            left = table.insert(()).unwrap();
            resolver.want(&name, left, A, 0, |side| table.get(side).is_some());
            table.remove(left);
            assert!(resolver.waiting[&name].sides.len() <= SWEEP_MIN);
        }
        let resolved = Resolved { name, found: Ok(addresses(&["::1"])), late: None };
        let waited = resolver.resolved(&resolved, 5);
        assert_eq!((waited.first(), waited.last()), (Some(&stays), Some(&left)));
    }

    #[test]
    fn the_cache_is_bounded_and_an_asker_has_at_most_a_quarter() {
        let mut table = Table::new(Kind::Side, 1);
        let side = table.insert(()).unwrap();
        let mut resolver = Resolver::new(8, 1000);
        let mut learn = |text: &str, asker: Asker, now_ms: u64| {
            let name = Name::new(text).unwrap();
            resolver.want(&name, side, asker, now_ms, |_| true);
            resolver.resolved(&Resolved { name, found: Ok(vec![]), late: None }, now_ms);
            let mut known: Vec<String> = resolver.known.keys().map(|name| name.as_str().to_owned()).collect();
            known.sort();
            known.join(" ")
        };
        assert_eq!(learn("b", B, 0), "b");
        (1..9).for_each(|n| _ = learn(&format!("a{n}"), A, n));
        assert_eq!(learn("a9", A, 9), "a8 a9 b", "the asker loses its oldest name");
        (10..20).for_each(|n| _ = learn(&format!("o{n}"), Asker::Own, n));
        assert_eq!(learn("z", Asker::Own, 20), "o13 o14 o15 o16 o17 o18 o19 z", "a full cache loses the oldest name");
    }
}
