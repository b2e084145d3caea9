//! Memory of links: one budget for the received data of the links of a loop, and an equal one for the data that they hold
//! until their peers have acknowledged it, both with shares by key.
//!
//! A session never permits its peer more than its window, and its window follows the share of its key, so the data of an
//! honest peer never exceeds its share. The cost of a hostile peer is counted exactly ([`Session::received_cost`], and the
//! streams that it does not acknowledge). When its key has more than half of the budget, or all keys together more than all
//! of it, a session of the key with the most memory ends: one without a subflow first, then the largest. Data held for peers
//! is bounded by reading less from local sockets, and no session ends for it.
//!
//! ```text
//!   budget T:   half of it for one key at most
//!   windows:    a quarter of it for the links of one key together, in equal parts,
//!               and for each link at most a quarter of the free budget
//! ```

use std::collections::HashMap;

use slab::Slab;

use crate::engine::control::{Deadline, Loop};
use crate::engine::core::{Core, OneOff};
use crate::link::{Code, STREAM_COST, Session};
use crate::streams::LinkSession;
use crate::types::id::Id;

use super::accept::TARGET;
use super::config::PeerKey;
use super::control::Node;
use super::link::Link;

/// The budgets of the links of a loop.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Bytes of either budget.
    total: u64,
    received: u64,
    sent: u64,
    shares: Slab<Share>,
    /// The share of each key that has one.
    by_key: HashMap<PeerKey, usize>,
    /// Set while a return of memory to the system is due; the next field holds the time of the last return.
    trim_due: bool,
    trimmed_ms: Option<u64>,
}

/// The memory of the links of one key. It exists while at least one link is counted in it.
#[derive(Clone, Copy, Debug)]
struct Share {
    key: PeerKey,
    links: u64,
    received: u64,
    sent: u64,
    promised: u64,
}

/// The memory that is counted for a link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// The share in which the link is counted: a link is weighed at each read and write, so its key is not searched then.
    share: Option<usize>,
    received: u64,
    sent: u64,
    promised: u64,
    /// The maximum of `received` since the session began.
    peak: u64,
    /// The bounds that the session was given last.
    bounds: (u64, u64),
}

impl Memory {
    pub fn new(total: usize) -> Memory {
        Memory {
            total: (total as u64).max(TOTAL_BYTES_MIN),
            received: 0,
            sent: 0,
            shares: Slab::new(),
            by_key: HashMap::new(),
            trim_due: false,
            trimmed_ms: None,
        }
    }

    /// Returns the received bytes of all links, and the bytes that wait for the acknowledgement of their peers.
    pub const fn held(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    /// Returns the first window of a new session: half of what its key has left. So the first few links of a key are not
    /// slowed down, and many links leave something for each other.
    pub fn first_window(&self, key: Option<&PeerKey>, most: u64) -> u64 {
        let share = key.and_then(|key| self.shares.get(*self.by_key.get(key)?));
        let (links, promised) = share.map_or((0, 0), |share| (share.links, share.promised));
        let left = (self.total / 4).saturating_sub(promised) / 2;
        left.min(self.free() / 4).max(self.window_min(links + 1)).min(most)
    }

    /// Updates the count of a link's memory.
    pub fn weigh(&mut self, link: &mut Link, record: &LinkSession) {
        let before = link.usage;
        let session = record.session.as_ref().filter(|session| !session.is_ended());
        let key = link.key.filter(|_| session.is_some());
        let of = |what: fn(&Session) -> u64| session.map_or(0, what);
        let left = session.map_or(0, |session| STREAM_COST * streams_left(session, record.streams.len()));
        let (received, sent) = (of(Session::received_cost) + left, of(Session::sent_cost));
        let promised = of(Session::promised);
        let share = key.map(|key| self.share_of(before.share, key));
        link.usage = Usage { share, received, sent, promised, peak: before.peak.max(received + sent), ..before };
        self.received = self.received - before.received + received;
        self.sent = self.sent - before.sent + sent;
        // The link is added first, so that its share does not end meanwhile.
        if let Some(share) = share.and_then(|share| self.shares.get_mut(share)) {
            share.links += 1;
            share.received += received;
            share.sent += sent;
            share.promised += promised;
        }
        if let Some(index) = before.share
            && let Some(share) = self.shares.get_mut(index)
        {
            share.links -= 1;
            share.received -= before.received;
            share.sent -= before.sent;
            share.promised -= before.promised;
            if share.links == 0 {
                self.by_key.remove(&self.shares.remove(index).key);
            }
        }
    }

    /// Returns the share of a key: the one in which its link was counted last, if that is still the one of the key. Makes a
    /// share if there is none.
    fn share_of(&mut self, last: Option<usize>, key: PeerKey) -> usize {
        match last {
            Some(last) if self.shares.get(last).is_some_and(|share| share.key == key) => last,
            _ => *self
                .by_key
                .entry(key)
                .or_insert_with(|| self.shares.insert(Share { key, links: 0, received: 0, sent: 0, promised: 0 })),
        }
    }

    /// Gives the session of a link the bounds that follow from the memory of all other links.
    pub fn bound(&self, link: &mut Link, session: &mut Session) {
        let usage = &mut link.usage;
        let Some(share) = usage.share.and_then(|share| self.shares.get(share)) else { return };
        let window = (self.total / 4 / share.links.max(1)).min(self.free() / 4).max(self.window_min(share.links));
        let left = (self.total / 2).saturating_sub(share.sent - usage.sent);
        let sent = left.min(self.total.saturating_sub(self.sent - usage.sent) / 2).max(SENT_BYTES_MIN);
        let most = link.timing.memory_bytes;
        let bounds = (window.min(most), sent.min(most));
        if is_news(usage.bounds.0, bounds.0) {
            session.set_receive_bytes_max(bounds.0);
            usage.bounds.0 = bounds.0;
        }
        if is_news(usage.bounds.1, bounds.1) {
            session.set_send_bytes_max(bounds.1);
            usage.bounds.1 = bounds.1;
        }
    }

    /// Returns the share of a key whose links hold too many received bytes, if there is one: `share`, or the one with most of
    /// them.
    fn over(&self, share: usize) -> Option<usize> {
        if self.shares.get(share).is_some_and(|share| share.received > self.total / 2) {
            return Some(share);
        }
        let most = || self.shares.iter().max_by_key(|(_, share)| share.received).map(|(index, _)| index);
        if self.received > self.total { most() } else { None }
    }

    /// Returns the minimum window of a link of a key with this number of links. The minima of all its links together are a
    /// quarter of the budget at most, so that with the larger windows the key stays within its half.
    fn window_min(&self, links: u64) -> u64 {
        (self.total / 4 / links.max(LINKS_OF_KEY)).min(WINDOW_BYTES_MIN)
    }

    const fn free(&self) -> u64 {
        self.total.saturating_sub(self.received)
    }
}

/// Returns the streams of a session that no connection uses, because they were refused or are over. Each is kept until the
/// peer has acknowledged that. `used` is the number of streams with a connection. The session counts streams without an OPEN
/// itself.
fn streams_left(session: &Session, used: usize) -> u64 {
    session.streams_live().saturating_sub(used + session.streams_unopened()) as u64
}

/// Returns true if a bound has changed by more than an eighth. Smaller changes are not passed on to the session.
const fn is_news(before: u64, now: u64) -> bool {
    before.abs_diff(now) > before / 8
}

impl Loop<'_> {
    /// Returns the bytes that links hold: received bytes, and bytes that wait for the acknowledgement of their peers.
    pub fn link_memory(&mut self) -> (u64, u64) {
        let (_, node) = self.parts::<Node>();
        node.memory.held()
    }
}

impl Node {
    /// Updates the count of a link's memory, and ends sessions while the links of a key hold too much.
    pub(super) fn weigh_link(&mut self, core: &mut Core, id: Id) {
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(record) = core.pools.sessions.get_mut(id) else { return };
        self.memory.weigh(link, record);
        if let Some(session) = &mut record.session {
            self.memory.bound(link, session);
        }
        let Some(share) = link.usage.share else { return };
        while let Some(share) = self.memory.over(share) {
            let its = self.links.iter().filter(|(_, link)| link.usage.share == Some(share));
            let Some((victim, _)) = its.max_by_key(|(_, link)| (link.carriers.is_empty(), link.usage.received)) else {
                return;
            };
            self.end_over_budget(core, victim);
        }
    }

    /// Ends the session of a link whose key holds more memory than its share.
    fn end_over_budget(&mut self, core: &mut Core, id: Id) {
        let suppressed = self.may_log(core, id);
        let Some(link) = self.links.get_mut(id) else { return };
        if let Some(suppressed) = suppressed {
            log::warn!(target: TARGET, link = id.to_string(), peer = core.pools.sessions.name(id), reason = "limit_reached", bytes = link.usage.received, suppressed; "a link holds too much memory, and is ended");
        }
        let Some(record) = core.pools.sessions.get_mut(id) else { return };
        if let Some(session) = &mut record.session {
            session.abort(Code::LimitReached, "the links of its key hold too much memory");
        }
        self.memory.weigh(link, record);
        core.pools.sessions.touch(id);
    }

    /// Releases the memory of a link whose session is over. Much memory is returned to the system soon.
    pub(super) fn release_link_memory(&mut self, core: &mut Core, id: Id) {
        let (Some(link), Some(record)) = (self.links.get_mut(id), core.pools.sessions.get(id)) else { return };
        self.memory.weigh(link, record);
        let peak = std::mem::take(&mut link.usage).peak;
        if peak >= TRIM_BYTES_MIN && !std::mem::replace(&mut self.memory.trim_due, true) {
            let next_ms = self.memory.trimmed_ms.map_or(0, |last_ms| last_ms + TRIM_PAUSE_MS);
            core.one_offs.push(next_ms.max(core.now_ms + TRIM_DELAY_MS), OneOff::Control(Deadline::TrimMemory));
        }
    }

    /// Returns unused memory to the system.
    pub(crate) fn trim_memory(&mut self, core: &mut Core) {
        self.memory.trim_due = false;
        self.memory.trimmed_ms = Some(core.now_ms);
        core.pools.sessions.chunks.shrink();
        self.buffers.shrink();
        self.plain.shrink_to_fit();
        crate::sys::trim_memory();
    }
}

/// Minimum size of a budget.
const TOTAL_BYTES_MIN: u64 = 8 << 20;
/// Default maximum of the links of a key. The quarter of the budget for minimum windows is divided by it.
const LINKS_OF_KEY: u64 = 64;
/// Minimum window of a session; less if the budget is small.
const WINDOW_BYTES_MIN: u64 = 1 << 20;
/// Minimum of the data that a session may hold for its peer.
const SENT_BYTES_MIN: u64 = 256 << 10;
/// Peak of a session below which memory is not returned to the system: the search would cost more than it frees.
const TRIM_BYTES_MIN: u64 = 1 << 20;
/// Pause between the end of a link and the return of its memory, because other links may end with it; also the minimum
/// interval between two returns.
const TRIM_DELAY_MS: u64 = 500;
const TRIM_PAUSE_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use crate::engine::bound::bind;
    use crate::engine::event_loop::Proxy;
    use crate::engine::limits::Config;
    use crate::node::{Identity, LinkConfig, LinkEvent, Policy, ServeConfig};
    use crate::types::address::Bind;
    use crate::types::reason::Reason;

    const MIB: u64 = 1 << 20;

    /// Sets the share of a key, and returns its index.
    fn set(memory: &mut Memory, key: PeerKey, links: u64, received: u64, promised: u64) -> usize {
        let index = memory.share_of(None, key);
        memory.shares[index] = Share { key, links, received, sent: 0, promised };
        index
    }

    #[test]
    fn the_first_links_of_a_key_have_large_windows_and_all_links_have_one() {
        let mut memory = Memory::new(512 << 20);
        let key = [1; 32];
        let mut windows = Vec::new();
        for links in 1..=9 {
            let window = memory.first_window(Some(&key), 64 * MIB);
            windows.push(window);
            set(&mut memory, key, links, 0, windows.iter().sum::<u64>());
        }
        assert_eq!(windows, [64, 32, 16, 8, 4, 2, 1, 1, 1].map(|mib| mib * MIB));
        memory.received = 500 * MIB;
        assert_eq!(memory.first_window(Some(&[2; 32]), 64 * MIB), 3 * MIB, "little is free");
        assert_eq!(memory.first_window(None, MIB / 2), MIB / 2, "never more than a link may have");
    }

    #[test]
    fn first_windows_of_the_most_links_of_a_key_stay_within_its_half() {
        for total in [8, 16, 64, 512, 4096].map(|mib| mib * MIB) {
            let mut memory = Memory::new(total as usize);
            let mut promised = 0;
            for links in 1..=64 {
                promised += memory.first_window(Some(&[1; 32]), 64 * MIB);
                set(&mut memory, [1; 32], links, 0, promised);
            }
            assert!(promised <= total / 2, "{promised} of {total}");
        }
    }

    #[test]
    fn a_key_beyond_half_of_the_budget_or_the_largest_key_beyond_all_of_it_is_over() {
        let mut memory = Memory::new(512 << 20);
        let (heavy, light) = ([1; 32], [2; 32]);
        let mut over = |heavy_mib: u64, light_mib: u64| {
            let heavy = set(&mut memory, heavy, 1, heavy_mib * MIB, 0);
            let light = set(&mut memory, light, 1, light_mib * MIB, 0);
            memory.received = (heavy_mib + light_mib) * MIB;
            [heavy, light].map(|share| memory.over(share).map(|share| memory.shares[share].key))
        };
        assert_eq!(over(256, 200), [None, None]);
        assert_eq!(over(257, 200), [Some(heavy), None], "a key is not ended for what another holds");
        assert_eq!(over(256, 255), [None, None]);
        let mut memory = Memory::new(512 << 20);
        for n in 0..5 {
            set(&mut memory, [n; 32], 1, if n == 3 { 120 * MIB } else { 100 * MIB }, 0);
        }
        memory.received = 520 * MIB;
        let [first, fourth] = [0, 3].map(|n| memory.by_key[&[n; 32]]);
        assert_eq!(memory.over(first), Some(fourth));
    }

    #[test]
    fn a_link_is_counted_in_the_share_of_its_key() {
        let mut memory = Memory::new(512 << 20);
        let [one, two] = [[1; 32], [2; 32]].map(|key| memory.share_of(None, key));
        assert_ne!(one, two);
        assert_eq!(memory.share_of(Some(one), [1; 32]), one);
        assert_eq!(memory.share_of(Some(one), [2; 32]), two, "the link had another key");
    }

    /// Admits every peer.
    struct Admits;

    impl Policy for Admits {
        fn admits(&self, _: &PeerKey) -> bool {
            true
        }

        fn name(&self, _: &PeerKey) -> String {
            "peer".to_owned()
        }
    }

    #[test]
    fn a_session_refused_because_the_table_of_links_is_full_is_not_counted() {
        let identity = || Identity { seed: [1; 32], ciphers: Vec::new(), groups: Vec::new(), instance: None };
        let [mut server, mut client] = [(); 2].map(|()| Proxy::new(Config::default(), None).unwrap());
        let addr = {
            let mut core = server.core();
            let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
            core.serve_links(&mut bound[0], ServeConfig::new(identity(), Arc::new(Admits))).unwrap();
            while core.pools.sessions.insert(LinkSession::new("other".into())).is_some() {}
            bound[0].addr().ip().unwrap()
        };
        let reasons = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&reasons);
        let mut config = LinkConfig::new(identity(), Arc::new(Admits), addr.into());
        config.on_event = Box::new(move |_, _, event| {
            if let LinkEvent::NoSubflow { failure, .. } = event {
                noted.lock().unwrap().push(failure.reason);
            }
        });
        client.core().connect_link(config).unwrap();
        let since = Instant::now();
        while reasons.lock().unwrap().len() < 2 {
            assert!(since.elapsed() < Duration::from_secs(20), "no answer");
            for proxy in [&mut server, &mut client] {
                proxy.turn(Some(Duration::from_millis(1))).unwrap();
            }
        }
        assert!(reasons.lock().unwrap().iter().all(|reason| *reason == Reason::LimitReached), "{reasons:?}");
        let mut core = server.core();
        let (_, node) = core.parts::<Node>();
        assert!(node.memory.by_key.is_empty() && node.memory.shares.is_empty(), "{:?}", node.memory.shares);
    }
}
