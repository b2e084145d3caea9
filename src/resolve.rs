//! The names of one loop: a small cache, and the lookups that are under way.
//!
//! Connections that want the same name at the same time share one lookup. What was found is used for a bounded time,
//! because `getaddrinfo` does not tell for how long it holds, and is thrown away when a connect to it fails. Failures are not
//! kept. It knows no sides beyond their ids, and does not look names up itself.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::address::Name;
use crate::id::Id;
use crate::limits::Family;
use crate::reason::Failure;

/// The answer of a worker.
pub(crate) struct Resolved {
    pub name: Name,
    pub found: Result<Vec<IpAddr>, Failure>,
}

/// The cache and the waiting sides.
pub(crate) struct Resolver {
    known: HashMap<Name, Known>,
    waiting: HashMap<Name, Vec<Id>>,
    known_max: usize,
    age_max_ms: u64,
}

struct Known {
    addresses: Vec<IpAddr>,
    since_ms: u64,
}

/// What to do for a side that wants a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Known already.
    Known(Vec<IpAddr>),
    /// It waits with others.
    Waits,
    /// It is the first: have the name looked up.
    LookUp,
}

impl Resolver {
    pub fn new(known_max: usize, age_max_ms: u64) -> Resolver {
        Resolver { known: HashMap::new(), waiting: HashMap::new(), known_max, age_max_ms }
    }

    /// A side wants the addresses of a name.
    pub fn want(&mut self, name: &Name, side: Id, now_ms: u64) -> Wanted {
        if let Some(known) = self.known.get(name) {
            if now_ms - known.since_ms <= self.age_max_ms && self.age_max_ms > 0 {
                return Wanted::Known(known.addresses.clone());
            }
            self.known.remove(name);
        }
        match self.waiting.get_mut(name) {
            Some(sides) => {
                sides.push(side);
                Wanted::Waits
            }
            None => {
                self.waiting.insert(name.clone(), vec![side]);
                Wanted::LookUp
            }
        }
    }

    /// A lookup is over: remembers what was found and gives back who waited for it.
    pub fn resolved(&mut self, resolved: &Resolved, now_ms: u64) -> Vec<Id> {
        if let Ok(addresses) = &resolved.found
            && self.age_max_ms > 0
        {
            self.make_room();
            self.known.insert(resolved.name.clone(), Known { addresses: addresses.clone(), since_ms: now_ms });
        }
        self.waiting.remove(&resolved.name).unwrap_or_default()
    }

    /// What is known of a name is wrong, or no longer true.
    pub fn forget(&mut self, name: &Name) {
        self.known.remove(name);
    }

    fn make_room(&mut self) {
        if self.known.len() < self.known_max {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.since_ms).map(|(name, _)| name.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
        }
    }
}

/// The addresses to try, in order: the preferred family first, then both in turn (RFC 8305, section 4).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Table;

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

    #[test]
    fn one_lookup_serves_all_who_wait_and_then_the_cache_does() {
        let mut table = Table::new(2);
        let sides = [table.insert(()).unwrap(), table.insert(()).unwrap()];
        let name = Name::new("example.org").unwrap();
        let mut resolver = Resolver::new(2, 1000);
        assert_eq!(resolver.want(&name, sides[0], 0), Wanted::LookUp);
        assert_eq!(resolver.want(&name, sides[1], 0), Wanted::Waits);
        let resolved = Resolved { name: name.clone(), found: Ok(addresses(&["::1"])) };
        assert_eq!(resolver.resolved(&resolved, 5), sides);
        assert_eq!(resolver.want(&name, sides[0], 1005), Wanted::Known(addresses(&["::1"])));
        assert_eq!(resolver.want(&name, sides[0], 1006), Wanted::LookUp, "too old");
        resolver.resolved(&resolved, 2000);
        resolver.forget(&name);
        assert_eq!(resolver.want(&name, sides[0], 2000), Wanted::LookUp, "forgotten");
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut table = Table::new(1);
        let side = table.insert(()).unwrap();
        let mut resolver = Resolver::new(2, 1000);
        for n in 0..5 {
            let name = Name::new(&format!("n{n}")).unwrap();
            resolver.want(&name, side, n);
            resolver.resolved(&Resolved { name, found: Ok(vec![]) }, n);
        }
        assert_eq!((resolver.known.len(), resolver.waiting.len()), (2, 0));
        assert!(resolver.known.contains_key(&Name::new("n4").unwrap()));
    }
}
