//! A policy whose panics end no loop.
//!
//! The loop asks the [`Policy`] of a link during handshakes and while it handles frames of the peer, where a panic would
//! unwind through the loop. So each link and each server holds its policy as a [`Guarded`] one: a panic is counted in
//! [`Stats::panics`](crate::Stats), and the answer to the question is that which gives the peer least.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::types::address::{Bind, Target};
use crate::types::end::{End, EndName};

use super::config::{PeerKey, Policy, Request, Verdict};
use super::counted::SessionReply;
use super::invited::ClaimReply;
use super::link_event::fingerprint;

/// The bytes per second of a key about whose rate the policy has panicked: enough for the frames of an idle link.
const RATE_UNKNOWN: u64 = 64 << 10;

/// A policy of a user, whose panics are caught.
pub(super) struct Guarded {
    policy: Arc<dyn Policy>,
    /// The panics that the node has not counted yet.
    panics: Arc<AtomicU64>,
    /// The node has services for all peers, so each of them needs streams.
    serves: Arc<AtomicBool>,
}

impl Guarded {
    /// Wraps a policy. Its panics are added to `panics`.
    pub fn wrap(policy: Arc<dyn Policy>, panics: &Arc<AtomicU64>, serves: &Arc<AtomicBool>) -> Arc<dyn Policy> {
        Arc::new(Guarded { policy, panics: Arc::clone(panics), serves: Arc::clone(serves) })
    }

    /// Asks the policy. Returns `refused` if it panics.
    fn ask<T>(&self, question: impl FnOnce(&dyn Policy) -> T, refused: T) -> T {
        catch_unwind(AssertUnwindSafe(|| question(&*self.policy))).unwrap_or_else(|_| {
            self.panics.fetch_add(1, Ordering::Relaxed);
            refused
        })
    }
}

impl Policy for Guarded {
    fn admits(&self, key: &PeerKey) -> bool {
        self.ask(|policy| policy.admits(key), false)
    }

    fn name(&self, key: &PeerKey) -> String {
        self.ask(|policy| Some(policy.name(key)), None).unwrap_or_else(|| fingerprint(Some(key)))
    }

    fn may_open(&self, key: &PeerKey, target: &Target) -> Verdict {
        self.ask(|policy| policy.may_open(key, target), Verdict::No)
    }

    fn may_open_any(&self, key: &PeerKey) -> bool {
        self.serves.load(Ordering::Relaxed) || self.ask(|policy| policy.may_open_any(key), false)
    }

    fn may_reach(&self, key: &PeerKey, target: &Target, addr: SocketAddr) -> bool {
        self.ask(|policy| policy.may_reach(key, target, addr), false)
    }

    fn end(&self, key: &PeerKey, name: &EndName) -> Option<Arc<End>> {
        self.ask(|policy| policy.end(key, name), None)
    }

    fn may_listen(&self, key: &PeerKey, place: &Bind) -> bool {
        self.ask(|policy| policy.may_listen(key, place), false)
    }

    fn listen_group(&self, key: &PeerKey) -> Option<String> {
        self.ask(|policy| policy.listen_group(key), None)
    }

    fn may_tell_source(&self, key: &PeerKey, client: IpAddr) -> bool {
        self.ask(|policy| policy.may_tell_source(key, client), false)
    }

    fn asks(&self, key: &PeerKey, request: &Request) -> bool {
        self.ask(|policy| policy.asks(key, request), false)
    }

    fn is_expired(&self, key: &PeerKey) -> bool {
        self.ask(|policy| policy.is_expired(key), false)
    }

    fn is_inviting(&self) -> bool {
        self.ask(|policy| policy.is_inviting(), false)
    }

    fn take_claim(&self, reply: ClaimReply) {
        self.ask(|policy| policy.take_claim(reply), ());
    }

    fn counts_sessions(&self, key: &PeerKey) -> bool {
        self.ask(|policy| policy.counts_sessions(key), true)
    }

    fn count_session(&self, key: &PeerKey, reply: SessionReply) {
        self.ask(|policy| policy.count_session(key, reply), ());
    }

    fn shared_folders(&self, key: &PeerKey) -> Vec<PathBuf> {
        self.ask(|policy| policy.shared_folders(key), Vec::new())
    }

    fn streams_max(&self, key: &PeerKey) -> Option<u32> {
        self.ask(|policy| policy.streams_max(key), Some(0))
    }

    fn rate_max(&self, key: &PeerKey) -> Option<u64> {
        self.ask(|policy| policy.rate_max(key), Some(RATE_UNKNOWN))
    }
}
