//! The hosts of an upstream as they are known: what lookups have told so far, put together.
//!
//! A lookup may learn a part only, because a name server answers about one host or one family and not about another. The
//! rules, for each host:
//!
//! * an address that was told counts, and the addresses of a family without an answer stay;
//! * a host without any answer stays as it was;
//! * a host that is told to have no address stays until that was told [`DENIALS`] times in a row. The same holds for a whole
//!   service. A zone that is loaded anew, or a name server that came up without it, denies names for a moment.

use std::net::IpAddr;

use super::lookup::{Families, Told};

/// A host of an upstream, with its addresses in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub priority: u16,
    pub name: String,
    pub port: u16,
    pub weight: u16,
    pub addresses: Vec<IpAddr>,
    /// Lookups in a row that told that the host has no address.
    pub denials: u32,
    /// The last lookup had no answer about a family of addresses.
    pub is_stale: bool,
}

/// Returns the hosts that a lookup told, with what was known of them before. They are in order, so that two equal answers
/// are equal. A host without an address is left out.
pub(super) fn learn(known: &[Host], told: Vec<Told>) -> Vec<Host> {
    let mut hosts: Vec<Host> = told.into_iter().filter_map(|told| learn_host(known, told)).collect();
    hosts.sort_unstable_by(|a, b| key(a).cmp(&key(b)));
    hosts.dedup_by(|a, b| key(a) == key(b));
    hosts
}

fn learn_host(known: &[Host], told: Told) -> Option<Host> {
    let Told { priority, weight, name, port, mut addresses, silent, .. } = told;
    let before = known.iter().find(|host| host.name == name && host.port == port);
    let of_before = |families: Families| {
        let addresses = before.into_iter().flat_map(|host| &host.addresses).copied();
        addresses.filter(move |address| families.has(*address))
    };
    let is_denied = addresses.is_empty() && silent.is_empty();
    let denials = match before {
        Some(host) if addresses.is_empty() => host.denials + u32::from(is_denied),
        _ => 0,
    };
    if !addresses.is_empty() {
        addresses.extend(of_before(silent));
    } else if denials < DENIALS {
        addresses.extend(of_before(Families::ALL));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    let host = Host { priority, name, port, weight, addresses, denials, is_stale: !silent.is_empty() };
    (!host.addresses.is_empty()).then_some(host)
}

fn key(host: &Host) -> (u16, &str, u16, u16, &[IpAddr]) {
    (host.priority, &host.name, host.port, host.weight, &host.addresses)
}

/// Lookups in a row that tell that a known host or service does not exist, or has no address, until that counts.
pub(super) const DENIALS: u32 = 3;
/// Addresses of one host.
const ADDRESSES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str, addresses: &[&str], silent: Families) -> Told {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Told { priority: 0, weight: 0, name: name.to_owned(), port: 1, addresses, silent, error: None }
    }

    fn shown(hosts: &[Host]) -> String {
        let addresses = |host: &Host| host.addresses.iter().map(|it| format!(" {it}")).collect::<String>();
        hosts.iter().map(|host| format!("{}{}", host.name, addresses(host))).collect::<Vec<_>>().join(", ")
    }

    const NONE: Families = Families::NONE;

    #[test]
    fn the_addresses_of_a_family_without_an_answer_stay_and_those_of_the_other_follow() {
        let known = learn(&[], vec![told("a", &["10.0.0.1", "::1"], NONE)]);
        let ipv4 = Families { ipv4: true, ipv6: false };
        let partial = learn(&known, vec![told("a", &["::2"], ipv4)]);
        assert_eq!((shown(&partial).as_str(), partial[0].is_stale), ("a 10.0.0.1 ::2", true));
        let whole = learn(&partial, vec![told("a", &["::2"], NONE)]);
        assert_eq!((shown(&whole).as_str(), whole[0].is_stale), ("a ::2", false), "no address of IPv4 was told");
    }

    #[test]
    fn a_host_without_an_answer_stays_and_one_that_the_answer_lacks_does_not() {
        let known = learn(&[], ["a", "b", "c"].map(|name| told(name, &["10.0.0.1"], NONE)).into());
        let next = learn(&known, vec![told("a", &[], Families::ALL), told("c", &["10.0.0.3"], NONE)]);
        assert_eq!(shown(&next), "a 10.0.0.1, c 10.0.0.3");
        assert!(learn(&[], vec![told("a", &[], Families::ALL)]).is_empty());
    }

    #[test]
    fn a_host_that_is_denied_leaves_the_third_time_in_a_row() {
        let mut known = learn(&[], vec![told("a", &["10.0.0.1"], NONE)]);
        let mut deny = |silent| {
            known = learn(&known, vec![told("a", &[], silent)]);
            shown(&known)
        };
        assert_eq!([NONE, NONE].map(&mut deny), ["a 10.0.0.1", "a 10.0.0.1"]);
        assert_eq!([Families::ALL, Families { ipv4: true, ipv6: false }].map(&mut deny), ["a 10.0.0.1", "a 10.0.0.1"]);
        assert_eq!(deny(NONE), "");
        let known = learn(&[], vec![told("a", &["10.0.0.1"], NONE)]);
        let known = learn(&known, vec![told("a", &[], NONE)]);
        assert_eq!(learn(&known, vec![told("a", &["10.0.0.1"], NONE)])[0].denials, 0, "it was told again");
    }
}
