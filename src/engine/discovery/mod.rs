//! Discovery: the addresses of a list of upstreams, kept up to date while the loop runs.
//!
//! ```text
//!   discover --> look up each name and service --> changed? --yes--> tell the owner
//!                  ^          (a worker)              |
//!                  +--- after its time to live -------+
//! ```
//! An answer holds for its time to live, between 1 s and 5 min. A lookup that fails leaves what was known, and is tried again
//! after 1 s, then less and less often. The same holds for the part of a lookup that fails, and for the first answers that
//! something known does not exist (`known`). Only a failure and its end are logged. An address and a Unix socket are candidates
//! as they stand, and so is a name that has no answer yet: a dial looks it up.
//!
//! The record of a discovery ends with the handle of its owner. This module decides nothing about the candidates; see
//! `engine/balance` for that.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::control::Loop;
use crate::engine::core::{Core, OneOff};
use crate::engine::fair::Asker;
use crate::engine::limits::Family;
use crate::types::address::{Name, Target};
use crate::types::units::format_duration;
use crate::types::upstream::Upstream;

mod answer;
mod hosts;
mod known;
mod lookup;

use known::{DENIALS, Host};
use lookup::{Answer, Missing, Question, TTL_MIN};

/// The handle of a discovery, which ends when this is dropped.
#[derive(Debug)]
#[must_use = "the discovery ends when its handle is dropped"]
pub struct Discovery(#[allow(dead_code)] Arc<()>);

/// An address that an upstream may be reached at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The place of its upstream in the list.
    pub upstream: usize,
    /// The target: that of the list, or the host and the port of a service.
    pub target: Target,
    /// The address that the name of the target has; none if the target is no name, or has no answer yet.
    pub address: Option<SocketAddr>,
    /// The priority of a service's host: the least is to be used first (RFC 2782). 0 for others.
    pub priority: u16,
    /// The weight of a service's host among those of the same priority (RFC 2782). 0 for others.
    pub weight: u16,
    /// True if the name has addresses of the preferred family, and this one is of the other family.
    pub is_of_other_family: bool,
}

/// The candidates of a list of upstreams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The candidates, in the order of the upstreams.
    pub list: Vec<Candidate>,
    /// True if each upstream was looked up at least once, whatever the answer.
    pub is_complete: bool,
}

/// The function that is told of the candidates each time they change.
type OnChange = Box<dyn FnMut(&mut Loop<'_>, &Candidates)>;

/// The discoveries of one loop.
#[derive(Default)]
pub(crate) struct Discoveries {
    records: HashMap<u64, Record>,
    next: u64,
}

struct Record {
    upstreams: Vec<Tracked>,
    family: Family,
    /// None while it runs.
    on_change: Option<OnChange>,
    owner: Weak<()>,
    told: Candidates,
    /// Candidates that were left out of those.
    left_out: usize,
}

/// An upstream, and what is known of it.
struct Tracked {
    upstream: Upstream,
    hosts: Vec<Host>,
    /// It was looked up at least once, or needs no lookup.
    is_known: bool,
    /// Failed lookups since the last one that succeeded.
    failures: u32,
    /// Lookups in a row that told that the service does not exist.
    denials: u32,
    /// The last lookup that succeeded had no answer about a part.
    is_partial: bool,
    lookups: usize,
}

/// Returns true if this system has a call that looks services up.
pub fn can_look_up_services() -> bool {
    crate::sys::HAS_DNS
}

impl Core {
    /// Looks the upstreams up, and again when their answers are too old. Calls `on_change` with all candidates after the
    /// first answer of each upstream, and each time they change. [`Candidates::of`] are the candidates until then.
    ///
    /// Candidates beyond [`CANDIDATES_MAX`] are left out, so that each upstream has its share.
    pub fn discover(
        &mut self,
        upstreams: Vec<Upstream>,
        family: Family,
        on_change: impl FnMut(&mut Loop<'_>, &Candidates) + 'static,
    ) -> Discovery {
        let handle = Arc::new(());
        let (owner, told) = (Arc::downgrade(&handle), Candidates::of(&upstreams));
        let upstreams: Vec<_> = upstreams.into_iter().map(Tracked::new).collect();
        let asked: Vec<_> = (0..upstreams.len()).filter(|index| !upstreams[*index].is_known).collect();
        let id = self.discoveries.next;
        self.discoveries.next += 1;
        let record = Record { upstreams, family, on_change: Some(Box::new(on_change)), owner, told, left_out: 0 };
        self.discoveries.records.insert(id, record);
        asked.into_iter().for_each(|index| self.ask_again(id, index));
        Discovery(handle)
    }

    /// Starts the lookup of an upstream. Ends the discovery if its handle was dropped.
    pub(crate) fn ask_again(&mut self, id: u64, index: usize) {
        let Some(record) = self.discoveries.records.get_mut(&id) else { return };
        if record.owner.strong_count() == 0 {
            self.discoveries.records.remove(&id);
            return;
        }
        let Some(tracked) = record.upstreams.get_mut(index) else { return };
        let (question, remote) = (tracked.question(record.family), self.remote());
        self.stats.discoveries += 1;
        let job = move || {
            let result = std::panic::catch_unwind(|| lookup::look_up(&question));
            let result = result.unwrap_or_else(|_| Err(Missing::Failed("the lookup panicked".to_owned())));
            // One lookup of an upstream is under way at a time.
            remote.call_sole(move |core| core.looked_up(id, index, result));
        };
        let asked = self.workers.as_ref().map(|workers| workers.discover(Asker::Discovery(id), job));
        if asked != Some(Ok(())) {
            self.ask_later(id, index, TTL_MIN);
        }
    }

    fn ask_later(&mut self, id: u64, index: usize, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let due_ms = self.now_ms.saturating_add(wait_ms);
        self.one_offs.push(due_ms, OneOff::Discovery(id, u32::try_from(index).unwrap_or(u32::MAX)));
    }
}

impl Loop<'_> {
    /// Handles the answer to a lookup.
    fn looked_up(&mut self, id: u64, index: usize, result: Result<Answer, Missing>) {
        let core: &mut Core = self;
        let Some(record) = core.discoveries.records.get_mut(&id) else { return };
        let Some(tracked) = record.upstreams.get_mut(index) else { return };
        let wait = tracked.learn(result);
        core.stats.discovery_failures += u64::from(tracked.failures > 0);
        core.ask_later(id, index, wait);
        let Some(record) = core.discoveries.records.get_mut(&id) else { return };
        let (now, left_out) = Candidates::of_all(&record.upstreams, record.family);
        let more = left_out.saturating_sub(std::mem::replace(&mut record.left_out, left_out));
        if more > 0 {
            core.stats.candidates_left_out += more as u64;
            log::warn!(target: TARGET, left_out, kept = now.list.len(); "a list has too many addresses");
        }
        if now == record.told {
            return;
        }
        record.told = now;
        let (told, Some(mut on_change)) = (record.told.clone(), record.on_change.take()) else { return };
        log::debug!(target: TARGET, candidates = told.list.len(); "the candidates of a list have changed");
        on_change(self, &told);
        if let Some(record) = self.discoveries.records.get_mut(&id) {
            record.on_change = Some(on_change);
        }
    }
}

impl Tracked {
    fn new(upstream: Upstream) -> Tracked {
        let is_known = match &upstream {
            Upstream::Target(Target::Name(_, name, _)) => name.zoned().is_some(),
            Upstream::Target(_) => true,
            Upstream::Service(_) => false,
        };
        Tracked { upstream, hosts: Vec::new(), is_known, failures: 0, denials: 0, is_partial: false, lookups: 0 }
    }

    /// Returns the question of the next lookup.
    fn question(&mut self, family: Family) -> Question {
        let round = self.lookups;
        self.lookups = round.wrapping_add(1);
        let fresh = self.hosts.iter().filter(|host| !host.is_stale).map(|host| host.name.clone()).collect();
        Question { upstream: self.upstream.clone(), family, fresh, round }
    }

    /// Takes the answer to a lookup. Returns the time until the next lookup.
    fn learn(&mut self, result: Result<Answer, Missing>) -> Duration {
        self.is_known = true;
        match result {
            Ok(answer) => {
                self.denials = 0;
                let error = answer.hosts.iter().find_map(|host| host.error.clone());
                let is_found = answer.hosts.iter().any(|host| !host.addresses.is_empty());
                self.hosts = known::learn(&self.hosts, answer.hosts);
                match error {
                    Some(error) if !is_found => self.fails(&error),
                    error => self.succeeds(answer.ttl, error),
                }
            }
            Err(Missing::NotFound(text)) => {
                self.denials = self.denials.saturating_add(1);
                if self.denials >= DENIALS {
                    self.hosts.clear();
                }
                self.fails(&text)
            }
            Err(Missing::Failed(text)) => self.fails(&text),
        }
    }

    /// Returns the candidates of each host.
    fn candidates(&self, index: usize, family: Family) -> Vec<Vec<Candidate>> {
        match &self.upstream {
            Upstream::Target(target) if self.hosts.is_empty() => vec![vec![Candidate::new(index, target.clone())]],
            _ => self.hosts.iter().map(|host| host.candidates(index, family)).collect(),
        }
    }

    /// Notes a lookup that found an address, and the error about a part of it. Logs the end of failures and the first error
    /// about a part.
    fn succeeds(&mut self, ttl: Duration, error: Option<String>) -> Duration {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            log::info!(target: TARGET, upstream = self.upstream.to_string(), failures; "upstream found again");
        }
        let was_partial = std::mem::replace(&mut self.is_partial, error.is_some());
        if let Some(error) = error.filter(|_| !was_partial) {
            log::warn!(target: TARGET, upstream = self.upstream.to_string(), error; "upstream found in part");
        }
        // A host that is denied is asked for soon, so that it leaves soon if it is gone. One without an answer since then is
        // not: nothing tells how long that lasts.
        if self.hosts.iter().any(|host| host.denials > 0 && !host.is_stale) { TTL_MIN } else { ttl }
    }

    /// Notes a lookup that found no address. Logs the first of several.
    fn fails(&mut self, error: &str) -> Duration {
        self.failures = self.failures.saturating_add(1);
        // 1 s, 2 s and so on.
        let wait = RETRY_MAX.min(TTL_MIN * 2_u32.saturating_pow(self.failures.min(10) - 1));
        if self.failures.is_power_of_two() {
            let known = self.hosts.len();
            log::warn!(target: TARGET, upstream = self.upstream.to_string(), error, failures = self.failures, known, retry = format_duration(wait); "upstream not found");
        }
        wait
    }
}

impl Candidates {
    /// Returns the candidates of a list of which nothing was looked up.
    pub fn of(upstreams: &[Upstream]) -> Candidates {
        let tracked: Vec<_> = upstreams.iter().cloned().map(Tracked::new).collect();
        Candidates::among(&tracked, Family::default())
    }

    fn among(upstreams: &[Tracked], family: Family) -> Candidates {
        Candidates::of_all(upstreams, family).0
    }

    /// Returns the candidates, and the number of those that were left out.
    fn of_all(upstreams: &[Tracked], family: Family) -> (Candidates, usize) {
        let all: Vec<Vec<Vec<Candidate>>> =
            upstreams.iter().enumerate().map(|(index, tracked)| tracked.candidates(index, family)).collect();
        let counts: Vec<usize> = all.iter().map(|hosts| hosts.iter().map(Vec::len).sum()).collect();
        let mut list = Vec::new();
        for (hosts, share) in all.into_iter().zip(fair_shares(&counts, CANDIDATES_MAX)) {
            let counts: Vec<_> = hosts.iter().map(Vec::len).collect();
            let shares = fair_shares(&counts, share);
            list.extend(hosts.into_iter().zip(shares).flat_map(|(host, share)| host.into_iter().take(share)));
        }
        let left_out = counts.iter().sum::<usize>() - list.len();
        (Candidates { list, is_complete: upstreams.iter().all(|tracked| tracked.is_known) }, left_out)
    }
}

impl Candidate {
    fn new(upstream: usize, target: Target) -> Candidate {
        Candidate { upstream, target, address: None, priority: 0, weight: 0, is_of_other_family: false }
    }
}

impl Host {
    /// Returns the candidates of a host, those of the preferred family first.
    fn candidates(&self, upstream: usize, family: Family) -> Vec<Candidate> {
        let is_first =
            |address: &SocketAddr| address.is_ipv6() == matches!(family, Family::PreferIpv6 | Family::OnlyIpv6);
        let Ok(name) = Name::new(&self.name) else { return Vec::new() };
        let target = Target::from_host(name.as_str(), self.port).ok();
        let Some(target) = target else { return Vec::new() };
        let addresses: Vec<_> = self.addresses.iter().map(|ip| SocketAddr::new(*ip, self.port)).collect();
        let has_first = addresses.iter().any(is_first);
        let (first, other): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_first);
        let candidate = |address: SocketAddr| Candidate {
            address: Some(address),
            priority: self.priority,
            weight: self.weight,
            is_of_other_family: has_first && !is_first(&address),
            ..Candidate::new(upstream, target.clone())
        };
        first.into_iter().chain(other).map(candidate).collect()
    }
}

/// Returns how many of each of several groups are taken, `most` together: all groups get the same, and what one does not need
/// goes to the others.
fn fair_shares(counts: &[usize], most: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..counts.len()).collect();
    places.sort_by_key(|place| counts[*place]);
    let (mut shares, mut room) = (vec![0; counts.len()], most);
    for (done, place) in places.into_iter().enumerate() {
        // The larger groups come later, and share what is left.
        let share = counts[place].min(room.div_ceil(counts.len() - done));
        shares[place] = share;
        room -= share;
    }
    shares
}

/// Candidates of one list of upstreams. Its upstreams have the same share of them, and so have the hosts of a service.
pub const CANDIDATES_MAX: usize = 256;
/// Longest time between two lookups of an upstream that is not found.
const RETRY_MAX: Duration = Duration::from_secs(30);
const TARGET: &str = "seaprox::discovery";

#[cfg(test)]
mod tests {
    use super::*;
    use lookup::{Families, Told};
    use std::net::IpAddr;

    fn host(name: &str, port: u16, addresses: &[&str]) -> Told {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let error = addresses.is_empty().then(|| "gone".to_owned());
        Told { priority: 1, name: name.to_owned(), port, weight: 2, addresses, silent: Families::NONE, error }
    }

    fn found(hosts: Vec<Told>) -> Result<Answer, Missing> {
        Ok(Answer { hosts, ttl: Duration::from_secs(7) })
    }

    fn shown(upstreams: &[Tracked], family: Family) -> String {
        let candidates = Candidates::among(upstreams, family);
        let text = |it: &Candidate| {
            let address = it.address.map_or_else(String::new, |address| format!("={address}"));
            format!("{}{address}{}", it.target, if it.is_of_other_family { "?" } else { "" })
        };
        candidates.list.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    fn tracked(texts: &[&str]) -> Vec<Tracked> {
        texts.iter().map(|text| Tracked::new(Upstream::parse(text).unwrap())).collect()
    }

    #[test]
    fn a_list_has_its_names_as_they_stand_until_they_are_found_and_no_service() {
        let mut all = tracked(&["10.0.0.9:1", "web:80", "srv:_x._tcp.a", "unix:/s"]);
        assert!(!Candidates::among(&all, Family::PreferIpv4).is_complete);
        assert_eq!(shown(&all, Family::PreferIpv4), "10.0.0.9:1 web:80 unix:/s");
        _ = all[1].learn(found(vec![host("web", 80, &["10.0.0.1", "10.0.0.2", "::1"])]));
        _ = all[2].learn(found(vec![host("a.a", 8080, &["::2"])]));
        assert!(Candidates::among(&all, Family::PreferIpv4).is_complete);
        assert_eq!(
            shown(&all, Family::PreferIpv4),
            "10.0.0.9:1 web:80=10.0.0.1:80 web:80=10.0.0.2:80 web:80=[::1]:80? a.a:8080=[::2]:8080 unix:/s"
        );
        assert!(shown(&all, Family::PreferIpv6).contains("web:80=[::1]:80 web:80=10.0.0.1:80? web:80=10.0.0.2:80?"));
    }

    #[test]
    fn a_failed_lookup_leaves_what_was_known() {
        let mut all = tracked(&["srv:_x._tcp.a"]);
        assert_eq!(all[0].learn(found(vec![host("a.a", 80, &["10.0.0.1"])])), Duration::from_secs(7));
        let failed = || Err(Missing::Failed("no answer".to_owned()));
        let waits: Vec<_> = (0..7).map(|_| all[0].learn(failed()).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(shown(&all, Family::PreferIpv4), "a.a:80=10.0.0.1:80");
    }

    #[test]
    fn a_service_or_a_name_that_is_denied_leaves_the_third_time_in_a_row() {
        let denied = || Err(Missing::NotFound("gone".to_owned()));
        let failed = || Err(Missing::Failed("no answer".to_owned()));
        let mut service = tracked(&["srv:_x._tcp.a"]);
        _ = service[0].learn(found(vec![host("a.a", 80, &["10.0.0.1"])]));
        (0..2).for_each(|_| _ = service[0].learn(denied()));
        _ = service[0].learn(found(vec![host("a.a", 80, &["10.0.0.1"])]));
        for answer in [denied(), denied(), failed()] {
            _ = service[0].learn(answer);
            assert_eq!(shown(&service, Family::PreferIpv4), "a.a:80=10.0.0.1:80");
        }
        _ = service[0].learn(denied());
        assert_eq!(shown(&service, Family::PreferIpv4), "");
        let mut name = tracked(&["web:80"]);
        _ = name[0].learn(found(vec![host("web", 80, &["10.0.0.1"])]));
        let denied: Vec<_> = (0..3)
            .map(|_| (name[0].learn(found(vec![host("web", 80, &[])])).as_secs(), shown(&name, Family::PreferIpv4)))
            .collect();
        let shown_as = |wait, text: &str| (wait, text.to_owned());
        assert_eq!(
            denied,
            [shown_as(1, "web:80=10.0.0.1:80"), shown_as(2, "web:80=10.0.0.1:80"), shown_as(4, "web:80")]
        );
        _ = name[0].learn(found(vec![host("web", 80, &["10.0.0.2"])]));
        assert_eq!((shown(&name, Family::PreferIpv4).as_str(), name[0].failures), ("web:80=10.0.0.2:80", 0));
    }

    #[test]
    fn a_host_of_a_service_that_is_denied_is_asked_for_soon_and_leaves_the_third_time() {
        let mut service = tracked(&["srv:_x._tcp.a"]);
        let answer = |second: &[&str]| found(vec![host("a", 1, &["10.0.0.1"]), host("b", 1, second)]);
        _ = service[0].learn(answer(&["10.0.0.2"]));
        let waits: Vec<_> = (0..2).map(|_| service[0].learn(answer(&[])).as_secs()).collect();
        assert_eq!(
            (waits, shown(&service, Family::PreferIpv4).as_str()),
            (vec![1, 1], "a:1=10.0.0.1:1 b:1=10.0.0.2:1")
        );
        assert_eq!(service[0].learn(answer(&[])).as_secs(), 7);
        assert_eq!(shown(&service, Family::PreferIpv4), "a:1=10.0.0.1:1");
    }

    #[test]
    fn a_host_that_is_denied_and_then_without_an_answer_is_not_asked_for_each_second() {
        let mut service = tracked(&["srv:_x._tcp.a"]);
        let mut wait = |second: &[&str], silent| {
            let second = Told { silent, ..host("b", 1, second) };
            service[0].learn(found(vec![host("a", 1, &["10.0.0.1"]), second])).as_secs()
        };
        assert_eq!(wait(&["10.0.0.2"], Families::NONE), 7);
        assert_eq!(wait(&[], Families::NONE), 1);
        assert_eq!([wait(&[], Families::ALL), wait(&[], Families::ALL)], [7, 7]);
        assert_eq!(wait(&[], Families::NONE), 1, "it is denied again");
    }

    #[test]
    fn an_upstream_with_many_addresses_leaves_the_others_their_share() {
        let mut all = tracked(&["many:1", "more:1", "10.0.0.9:1", "few:1"]);
        let addresses =
            |net: u8, count: usize| -> Vec<String> { (0..count).map(|n| format!("10.{net}.0.{n}")).collect() };
        for (place, name, count) in [(0, "many", 256), (1, "more", 200), (3, "few", 3)] {
            let addresses = addresses(place as u8, count);
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            _ = all[place].learn(found(vec![host(name, 1, &addresses)]));
        }
        let (candidates, left_out) = Candidates::of_all(&all, Family::PreferIpv4);
        let of = |upstream| candidates.list.iter().filter(|it| it.upstream == upstream).count();
        assert_eq!([0, 1, 2, 3].map(of), [126, 126, 1, 3]);
        assert_eq!((candidates.list.len(), left_out), (CANDIDATES_MAX, 456 + 4 - CANDIDATES_MAX));
        assert!(candidates.list.is_sorted_by_key(|it| it.upstream));
    }

    #[test]
    fn shares_are_equal_and_what_is_not_needed_goes_to_the_others() {
        assert_eq!(fair_shares(&[5, 1, 9], 100), [5, 1, 9]);
        assert_eq!(fair_shares(&[5, 1, 9], 9), [4, 1, 4]);
        assert_eq!(fair_shares(&[9, 9, 9], 2).iter().sum::<usize>(), 2);
        assert!(fair_shares(&[], 2).is_empty());
    }
}
