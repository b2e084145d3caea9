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
//!
//! A lookup of a service asks for each host in turn, and occupies its worker. It asks for as long as [`TIME_MAX`], and has no
//! answer about the rest then. The hosts that the last lookup had answers about are asked for first, and have half of that time
//! before the others: neither keeps the other out, and what one does not need goes to the other.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::answer::{self, Service};
use super::hosts;
use crate::engine::limits::Family;
use crate::sys::{self, DnsError};
use crate::types::address::{Name, Target};
use crate::types::upstream::Upstream;

/// The result of a lookup for an upstream that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The hosts, also those of which nothing was learned. A name is its only host.
    pub hosts: Vec<Told>,
    /// The time after which the upstream is looked up again.
    pub ttl: Duration,
}

/// The result of a lookup for one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub priority: u16,
    pub weight: u16,
    pub name: String,
    pub port: u16,
    pub addresses: Vec<IpAddr>,
    /// The families without an answer.
    pub silent: Families,
    /// The reason why the host has no address, or not those of all families.
    pub error: Option<String>,
}

/// A set of families of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Families {
    pub ipv4: bool,
    pub ipv6: bool,
}

/// The reason why a service has no host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The service does not exist, or has no host.
    NotFound(String),
    /// There was no answer, so nothing is known.
    Failed(String),
}

/// The question of a lookup.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// A name or a service.
    pub upstream: Upstream,
    pub family: Family,
    /// The names of the hosts that the last lookup had all answers about. They are asked for first, for half of the time.
    pub fresh: Vec<String>,
    /// The number of lookups of this upstream before this one. Each begins with another question, so that one that is never
    /// answered does not always take the time of the others.
    pub round: usize,
}

/// The addresses of a name, the time for which they hold, and what is missing.
#[derive(Clone)]
struct Addresses {
    all: Vec<IpAddr>,
    ttl: Duration,
    silent: Families,
    error: Option<String>,
}

/// The hosts of a service that are still to be asked for.
struct Turns {
    /// Hosts about which the last lookup had all answers.
    fresh: VecDeque<Service>,
    others: VecDeque<Service>,
}

/// A lookup that runs.
struct Run<'a> {
    question: &'a Question,
    since: Instant,
}

/// Looks an upstream up that is a name or a service.
pub(super) fn look_up(question: &Question) -> Result<Answer, Missing> {
    let run = Run { question, since: Instant::now() };
    let mut answer = match &question.upstream {
        Upstream::Target(Target::Name(_, name, port)) => {
            let found = run.addresses(name);
            let ttl = found.ttl;
            Answer { hosts: vec![found.of(Service::new(name.clone(), *port))], ttl }
        }
        Upstream::Service(name) => run.services(name)?,
        Upstream::Target(_) => Answer { hosts: Vec::new(), ttl: TTL_MAX },
    };
    if answer.hosts.iter().any(|host| host.error.is_some()) {
        answer.ttl = answer.ttl.min(FIXED);
    }
    Ok(Answer { ttl: answer.ttl.clamp(TTL_MIN, TTL_MAX), ..answer })
}

impl Run<'_> {
    /// Returns the hosts of a service, each with what was learned of it.
    fn services(&self, name: &Name) -> Result<Answer, Missing> {
        let answer = sys::query_dns(name.as_str(), SRV, true).map_err(Missing::from)?;
        let found = answer::services(&answer).map_err(Missing::from)?;
        let (mut hosts, mut ttl) = (Vec::new(), seconds(found.ttl));
        // A host with several ports is asked for once.
        let mut asked: HashMap<Name, Addresses> = HashMap::new();
        let mut turns = self.turns(found.services);
        while let Some(service) = turns.next(self.since.elapsed()) {
            let beside = service.addresses.iter().copied().filter(|address| is_wanted(self.question.family, *address));
            let beside: Vec<_> = beside.collect();
            let found = if beside.is_empty() {
                asked.entry(service.host.clone()).or_insert_with(|| self.addresses(&service.host)).clone()
            } else {
                Addresses::new(beside, TTL_MAX)
            };
            ttl = ttl.min(found.ttl);
            hosts.push(found.of(service));
        }
        Ok(Answer { hosts, ttl })
    }

    /// Returns the turns of the hosts of a service.
    fn turns(&self, mut services: Vec<Service>) -> Turns {
        services.sort_by(|a, b| a.host.as_str().cmp(b.host.as_str()));
        let is_fresh = |service: &Service| self.question.fresh.iter().any(|name| name == service.host.as_str());
        let (fresh, mut others): (VecDeque<_>, VecDeque<_>) = services.into_iter().partition(is_fresh);
        if !others.is_empty() {
            let start = self.question.round % others.len();
            others.rotate_left(start);
        }
        Turns { fresh, others }
    }

    /// Returns the addresses of a name.
    fn addresses(&self, name: &Name) -> Addresses {
        let family = self.question.family;
        let listed: Vec<_> = hosts::addresses(name).into_iter().filter(|it| is_wanted(family, *it)).collect();
        if !listed.is_empty() {
            return Addresses::new(listed, FIXED);
        }
        let is_of_dns = sys::HAS_DNS && !is_local(name.as_str());
        let found = if is_of_dns { self.ask_dns(name) } else { Addresses::new(Vec::new(), FIXED) };
        if !found.all.is_empty() {
            return found;
        }
        let silent = if is_of_dns { found.silent } else { Families::ALL };
        if self.is_over() {
            let error = silent.error().unwrap_or_else(|| DnsError::NotFound.to_string());
            return Addresses { error: Some(error), silent, ..found };
        }
        match (name.as_str(), 0).to_socket_addrs() {
            Ok(found) => {
                let all: Vec<_> = found.map(|found| found.ip()).filter(|it| is_wanted(family, *it)).collect();
                let error = all.is_empty().then(|| "no address of a permitted family".to_owned());
                let silent = if is_of_dns { silent } else { Families::NONE };
                let silent = all.iter().fold(silent, |silent, address| silent.without(*address));
                Addresses { all, ttl: FIXED, silent, error: error.or_else(|| silent.error()) }
            }
            // Without an answer of DNS it is not known if the name exists.
            Err(error) => Addresses { all: Vec::new(), ttl: FIXED, silent, error: Some(error.to_string()) },
        }
    }

    fn ask_dns(&self, name: &Name) -> Addresses {
        let mut kinds = match self.question.family {
            Family::OnlyIpv4 => vec![A],
            Family::OnlyIpv6 => vec![AAAA],
            Family::PreferIpv4 | Family::PreferIpv6 => vec![A, AAAA],
        };
        let start = self.question.round % kinds.len();
        kinds.rotate_left(start);
        let (mut all, mut ttl, mut silent) = (Vec::new(), u32::MAX, Families::NONE);
        for kind in kinds {
            let answer = if self.is_over() { Err(DnsError::Failed) } else { sys::query_dns(name.as_str(), kind, true) };
            match answer.and_then(|answer| answer::addresses(&answer)) {
                Ok(found) => {
                    all.extend(found.addresses);
                    ttl = ttl.min(found.ttl);
                }
                Err(DnsError::NotFound) => {}
                Err(_) if kind == A => silent.ipv4 = true,
                Err(_) => silent.ipv6 = true,
            }
        }
        Addresses { error: silent.error(), all, ttl: seconds(ttl), silent }
    }

    /// Returns true if no further question is asked.
    fn is_over(&self) -> bool {
        self.since.elapsed() >= TIME_MAX
    }
}

impl Turns {
    /// Takes the host that is asked for next, in a lookup that has taken this time.
    fn next(&mut self, elapsed: Duration) -> Option<Service> {
        if elapsed < TIME_MAX / 2 {
            self.fresh.pop_front().or_else(|| self.others.pop_front())
        } else {
            self.others.pop_front().or_else(|| self.fresh.pop_front())
        }
    }
}

impl Addresses {
    fn new(all: Vec<IpAddr>, ttl: Duration) -> Addresses {
        Addresses { all, ttl, silent: Families::NONE, error: None }
    }

    /// Returns what was learned of a host with these addresses.
    fn of(self, service: Service) -> Told {
        let Addresses { all: addresses, silent, error, .. } = self;
        let Service { priority, weight, host, port, .. } = service;
        Told { priority, weight, name: host.as_str().to_owned(), port, addresses, silent, error }
    }
}

impl Families {
    pub const ALL: Families = Families { ipv4: true, ipv6: true };
    pub const NONE: Families = Families { ipv4: false, ipv6: false };

    pub fn is_empty(self) -> bool {
        self == Families::NONE
    }

    pub fn has(self, address: IpAddr) -> bool {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }

    fn without(self, address: IpAddr) -> Families {
        let ipv4 = self.ipv4 && !address.is_ipv4();
        Families { ipv4, ipv6: self.ipv6 && !address.is_ipv6() }
    }

    fn error(self) -> Option<String> {
        (!self.is_empty()).then(|| DnsError::Failed.to_string())
    }
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
/// The time of a lookup after which no further question is asked. The one under way is not ended.
const TIME_MAX: Duration = Duration::from_secs(5);
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

    fn question(text: &str, fresh: &[&str], round: usize) -> Question {
        let fresh = fresh.iter().map(|name| (*name).to_owned()).collect();
        Question { upstream: Upstream::parse(text).unwrap(), family: Family::OnlyIpv4, fresh, round }
    }

    #[test]
    fn hosts_that_were_answered_are_asked_for_first_and_the_others_take_turns() {
        let order = |fresh: &[&str], round: usize| {
            let question = question("srv:_x._tcp.a", fresh, round);
            let run = Run { question: &question, since: Instant::now() };
            let services = ["d", "a", "c", "b"].map(|name| Service::new(Name::new(name).unwrap(), 1));
            let mut turns = run.turns(services.into());
            std::iter::from_fn(|| turns.next(Duration::ZERO)).map(|it| it.host.as_str().to_owned()).collect::<String>()
        };
        assert_eq!([0, 1, 2, 5].map(|round| order(&["c"], round)), ["cabd", "cbda", "cdab", "cdab"]);
        assert_eq!(order(&["a", "b", "c", "d"], 3), "abcd");
    }

    #[test]
    fn each_of_many_hosts_is_asked_for_although_a_lookup_has_no_time_for_all() {
        let names: Vec<_> = (0..64).map(|number| format!("{number:02}")).collect();
        let (mut fresh, mut known) = (Vec::<String>::new(), std::collections::BTreeSet::new());
        for round in 0..4 {
            let fresh_names: Vec<_> = fresh.iter().map(String::as_str).collect();
            let question = question("srv:_x._tcp.a", &fresh_names, round);
            let run = Run { question: &question, since: Instant::now() };
            let mut turns = run.turns(names.iter().map(|name| Service::new(Name::new(name).unwrap(), 1)).collect());
            let (mut elapsed, mut asked) = (Duration::ZERO, Vec::new());
            while let Some(service) = turns.next(elapsed).filter(|_| elapsed < TIME_MAX) {
                elapsed += Duration::from_millis(100);
                asked.push(service.host.as_str().to_owned());
            }
            assert_eq!(asked.len(), 50);
            assert_eq!(asked.iter().filter(|name| fresh.contains(name)).count().min(25), fresh.len().min(25));
            known.extend(asked.iter().cloned());
            fresh = asked;
        }
        assert_eq!(known.len(), names.len());
    }

    #[test]
    fn localhost_is_found_without_a_name_server_and_held_for_the_fixed_time() {
        let found = look_up(&question("localhost:80", &[], 0)).unwrap();
        assert_eq!(found.ttl, FIXED);
        assert_eq!(found.hosts.len(), 1);
        assert!(found.hosts[0].addresses.iter().all(|it| it.is_loopback() && it.is_ipv4()), "{found:?}");
    }
}
