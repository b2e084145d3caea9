//! The lookup of one upstream, in a worker: it blocks.
//!
//! ```text
//!   name --> file of hosts --> localhost, *.local? --no--> DNS, with the search list --> getaddrinfo
//!              | has it                | yes                  | has it                     |
//!              v                       v                      v                            v
//!          fixed time             getaddrinfo         the time to live of DNS         fixed time
//! ```
//! An entry of the file of hosts wins over DNS. A name that DNS does not have is left to `getaddrinfo`, which knows the
//! other sources of this system: multicast DNS, containers, directories (nsswitch.conf(5)). Where DNS cannot be asked for
//! times to live, `getaddrinfo` is asked alone.

use std::net::{IpAddr, ToSocketAddrs};
use std::time::Duration;

use super::answer::{self, Service};
use super::hosts;
use crate::engine::limits::Family;
use crate::sys::{self, DnsError};
use crate::types::address::{Name, Target};
use crate::types::upstream::Upstream;

/// The result of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub hosts: Vec<Host>,
    /// The time after which the upstream is looked up again.
    pub ttl: Duration,
}

/// A host of an upstream, with its addresses in order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host {
    pub priority: u16,
    pub name: String,
    pub port: u16,
    pub weight: u16,
    pub addresses: Vec<IpAddr>,
}

/// The reason why a lookup found nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The name does not exist, or has no address.
    NotFound(String),
    /// There was no answer, so nothing is known.
    Failed(String),
}

/// Looks an upstream up that is a name or a service. The hosts and their addresses are in order, so that two equal answers
/// are equal.
pub(super) fn look_up(upstream: &Upstream, family: Family) -> Result<Found, Missing> {
    let mut found = match upstream {
        Upstream::Target(Target::Name(_, name, port)) => {
            let (addresses, ttl) = addresses(name, family)?;
            let host = Host { priority: 0, name: name.as_str().to_owned(), port: *port, weight: 0, addresses };
            Found { hosts: vec![host], ttl }
        }
        Upstream::Service(name) => services(name, family)?,
        Upstream::Target(_) => Found { hosts: Vec::new(), ttl: TTL_MAX },
    };
    for host in &mut found.hosts {
        host.addresses.sort_unstable();
        host.addresses.dedup();
        host.addresses.truncate(ADDRESSES_MAX);
    }
    found.hosts.sort_unstable();
    found.hosts.dedup();
    Ok(Found { ttl: found.ttl.clamp(TTL_MIN, TTL_MAX), ..found })
}

/// Returns the hosts of a service, each with its addresses. A host without an address is left out, unless no host has one.
fn services(name: &Name, family: Family) -> Result<Found, Missing> {
    let answer = sys::query_dns(name.as_str(), SRV, true).map_err(Missing::from)?;
    let found = answer::services(&answer).map_err(Missing::from)?;
    let (mut hosts, mut ttl) = (Vec::new(), seconds(found.ttl));
    let mut missing = None;
    for service in found.services {
        let Service { priority, weight, host, port, addresses: known } = service;
        let known: Vec<_> = known.into_iter().filter(|address| is_wanted(family, *address)).collect();
        let found = if known.is_empty() { addresses(&host, family) } else { Ok((known, TTL_MAX)) };
        match found {
            Ok((addresses, least)) => {
                ttl = ttl.min(least);
                hosts.push(Host { priority, weight, port, name: host.as_str().to_owned(), addresses });
            }
            // The host may get its address soon.
            Err(error) => {
                ttl = ttl.min(FIXED);
                missing = Some(error);
            }
        }
    }
    match missing {
        Some(missing) if hosts.is_empty() => Err(missing),
        _ => Ok(Found { hosts, ttl }),
    }
}

/// Returns the addresses of a name, and the time for which they hold.
fn addresses(name: &Name, family: Family) -> Result<(Vec<IpAddr>, Duration), Missing> {
    let listed: Vec<_> = hosts::addresses(name).into_iter().filter(|it| is_wanted(family, *it)).collect();
    if !listed.is_empty() {
        return Ok((listed, FIXED));
    }
    let is_of_dns = sys::HAS_DNS && !is_local(name.as_str());
    let in_dns = if is_of_dns { ask_dns(name, family) } else { Err(DnsError::NotFound) };
    let error = match in_dns {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    match (name.as_str(), 0).to_socket_addrs() {
        Ok(found) => {
            let found: Vec<_> = found.map(|found| found.ip()).filter(|it| is_wanted(family, *it)).collect();
            if found.is_empty() {
                return Err(Missing::NotFound("no address of a permitted family".to_owned()));
            }
            Ok((found, FIXED))
        }
        // Without an answer of DNS it is not known if the name exists.
        Err(system) if error == DnsError::NotFound && is_of_dns => Err(Missing::NotFound(system.to_string())),
        Err(system) => Err(Missing::Failed(system.to_string())),
    }
}

fn ask_dns(name: &Name, family: Family) -> Result<(Vec<IpAddr>, Duration), DnsError> {
    let (mut all, mut ttl, mut worst) = (Vec::new(), u32::MAX, DnsError::NotFound);
    let kinds: &[u16] = match family {
        Family::OnlyIpv4 => &[A],
        Family::OnlyIpv6 => &[AAAA],
        Family::PreferIpv4 | Family::PreferIpv6 => &[A, AAAA],
    };
    for kind in kinds {
        match sys::query_dns(name.as_str(), *kind, true).and_then(|answer| answer::addresses(&answer)) {
            Ok(found) => {
                all.extend(found.addresses);
                ttl = ttl.min(found.ttl);
            }
            Err(DnsError::NotFound) => {}
            Err(error) => worst = error,
        }
    }
    if all.is_empty() { Err(worst) } else { Ok((all, seconds(ttl))) }
}

/// Returns true for a name that no name server is asked for: of this host (RFC 6761, section 6.3), or of multicast DNS (RFC
/// 6762, section 3).
fn is_local(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
        || (last.eq_ignore_ascii_case("local") && last.len() < name.len())
            && !name.to_ascii_lowercase().ends_with(CLUSTER)
}

fn is_wanted(family: Family, address: IpAddr) -> bool {
    match family {
        Family::OnlyIpv4 => address.is_ipv4(),
        Family::OnlyIpv6 => address.is_ipv6(),
        Family::PreferIpv4 | Family::PreferIpv6 => true,
    }
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

impl From<DnsError> for Missing {
    fn from(error: DnsError) -> Missing {
        match error {
            DnsError::NotFound => Missing::NotFound(error.to_string()),
            DnsError::Failed | DnsError::Unsupported => Missing::Failed(error.to_string()),
        }
    }
}

/// Bounds of the time for which an answer of DNS holds.
pub(super) const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_secs(300);
/// The time for which an answer holds that has no time to live.
const FIXED: Duration = Duration::from_secs(10);
/// Addresses of one host.
const ADDRESSES_MAX: usize = 256;
/// Types of records (RFC 1035, RFC 3596, RFC 2782).
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;
/// The names of Kubernetes end as those of multicast DNS do, and DNS has them.
const CLUSTER: &str = ".cluster.local";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_host_and_of_multicast_dns_are_left_to_the_system() {
        for name in ["localhost", "a.localhost", "printer.local", "Printer.LOCAL"] {
            assert!(is_local(name), "{name}");
        }
        for name in ["local", "web.example.org", "web.ns.svc.cluster.local", "localhost.example.org", "web"] {
            assert!(!is_local(name), "{name}");
        }
    }

    #[test]
    fn localhost_is_found_without_a_name_server_and_held_for_the_fixed_time() {
        let target = Upstream::parse("localhost:80").unwrap();
        let found = look_up(&target, Family::OnlyIpv4).unwrap();
        assert_eq!(found.ttl, FIXED);
        assert_eq!(found.hosts.len(), 1);
        assert!(found.hosts[0].addresses.iter().all(|it| it.is_loopback() && it.is_ipv4()), "{found:?}");
    }
}
