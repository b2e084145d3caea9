//! Balancing: the targets of a listener, and the one that each client gets.
//!
//! | file | content |
//! | --- | --- |
//! | `choose` | the algorithms: round robin, least connections, source hash |
//! | `listing` | the targets of a list with their weights, as they follow from what was looked up |
//! | `pool` | the targets of a list: which there are, and which are left out |
//! | `attempts` | the connects of one client, until a target is connected |
//!
//! A [`Balancer`] belongs to a listener, and all loops of a process share it, so that the connections of all loops count and
//! a target that one loop found dead is left out by all. It is locked for each client a few times, and for no byte. There is
//! no prober: clients find out what can be connected to. One loop looks the names of the list up (`engine/discovery`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::engine::core::Core;
use crate::engine::discovery::{Candidates, Discovery};
use crate::engine::limits::Family;
use crate::engine::mailbox::Remote;
use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::upstream::Upstream;

mod attempts;
mod choose;
mod listing;
mod pool;

pub use attempts::{Attempts, Lease, Next, Woken};
pub use choose::Balance;
pub use pool::{TargetState, TargetStatus};

use listing::Listing;
use pool::Pool;

/// The targets of a listener in all loops of a process.
pub struct Balancer {
    shared: Arc<Shared>,
    upstreams: Vec<Upstream>,
    balance: Balance,
    /// Names are looked up here; otherwise each is one target, which the far end of a link resolves.
    is_discovering: bool,
    has_started: AtomicBool,
    discovery: Mutex<Option<Discovery>>,
}

/// The part of a balancer that its clients use. It may outlive the balancer.
struct Shared {
    state: Mutex<State>,
    born: Instant,
}

struct State {
    pool: Pool,
    /// Connections that wait for the first answer of a lookup, with their loops.
    waiting: Vec<(Remote, Id)>,
}

impl Balancer {
    /// Makes the balancer of a list. The names and services of the list are looked up while a listener has the balancer
    /// ([`ListenConfig::balancer`](crate::ListenConfig::balancer)).
    pub fn new(upstreams: Vec<Upstream>, balance: Balance) -> Balancer {
        Balancer::make(upstreams, balance, true)
    }

    /// Makes the balancer of targets that are reached over a link. Each name is one target, because the far end of the link
    /// resolves it.
    pub fn over_link(upstreams: Vec<Upstream>, balance: Balance) -> Balancer {
        Balancer::make(upstreams, balance, false)
    }

    fn make(upstreams: Vec<Upstream>, balance: Balance, is_discovering: bool) -> Balancer {
        let mut candidates = Candidates::of(&upstreams);
        candidates.is_complete |= !is_discovering;
        let state = State { pool: Pool::new(balance, &candidates), waiting: Vec::new() };
        Balancer {
            shared: Arc::new(Shared { state: Mutex::new(state), born: Instant::now() }),
            upstreams,
            balance,
            is_discovering,
            has_started: AtomicBool::new(false),
            discovery: Mutex::default(),
        }
    }

    /// Returns true if both are balancers of the same list, with the same algorithm.
    pub fn is_same(&self, other: &Balancer) -> bool {
        let what = |it: &Balancer| (it.balance, it.is_discovering);
        what(self) == what(other) && self.upstreams == other.upstreams
    }

    /// Returns the algorithm.
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// Returns the entry of the list that has this target: itself, or the service that has it as a host.
    pub fn upstream_of(&self, target: &Target) -> Option<&Upstream> {
        let listed = self.upstreams.iter().find(|upstream| upstream.target() == Some(target));
        listed.or_else(|| self.upstreams.get(self.shared.lock().pool.upstream_of(target)?))
    }

    /// Returns the status of all targets.
    pub fn targets(&self) -> Vec<TargetStatus> {
        self.shared.lock().pool.status()
    }

    /// Looks the names up in this loop, unless another loop does. The lookups end with the balancer.
    pub(crate) fn start(&self, core: &mut Core, family: Family) {
        let needs_lookup = self.is_discovering && !Candidates::of(&self.upstreams).is_complete;
        if !needs_lookup || self.has_started.swap(true, Ordering::Relaxed) {
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        let discovery = core.discover(self.upstreams.clone(), family, move |_, candidates| {
            if let Some(shared) = shared.upgrade() {
                shared.update(candidates);
            }
        });
        *self.discovery.lock().unwrap_or_else(PoisonError::into_inner) = Some(discovery);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    /// Takes the candidates of the list, and wakes the connections that have waited for them.
    fn update(&self, candidates: &Candidates) {
        let listing = Listing::of(candidates);
        let mut state = self.lock();
        state.pool.update(listing);
        let waiting = if state.pool.is_awaited() { Vec::new() } else { std::mem::take(&mut state.waiting) };
        drop(state);
        for (remote, connection) in waiting {
            // A connection waits once, so the number of these calls is bounded.
            remote.call_sole(move |core| {
                if let Ok(mut connection) = core.connection(connection) {
                    // A wake-up that is pending wakes it, too.
                    let _ = connection.wake_after(std::time::Duration::ZERO);
                }
            });
        }
    }
}

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Balancer").field("upstreams", &self.upstreams).field("balance", &self.balance).finish()
    }
}
