//! The peers that may dial this node: the keys in `authorized_keys` with their permissions, and the key of a shared secret.
//!
//! Loops ask for permissions and never wait for a file: they see the content that was read last.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use seaprox::auth::{AuthorizedKeys, KeysError, Modes, Permissions, PublicKey};
use seaprox::node::{ClaimReply, PeerKey, Policy, Request, SessionReply, Verdict};
use seaprox::rules::Decision;
use seaprox::{Bind, End, EndName, Target, UtcTime};

use super::fingerprint;
use super::invited_peers::InvitedPeers;
use super::rejected_keys::RejectedKeys;
use crate::shared_file::{Refresh, SharedFile};

/// The policy for peers that dial this node.
pub struct AuthorizedPeers {
    keys: Option<Arc<SharedFile<AuthorizedKeys>>>,
    /// The peers that join by an invitation, and the counted sessions.
    invited: Option<InvitedPeers>,
    /// The time at which the next key expires.
    next_expiry: Mutex<Option<UtcTime>>,
    /// The ends of all keys.
    ends: Vec<Arc<End>>,
    /// The key that is derived from a shared secret. It may do everything.
    secret: Option<PublicKey>,
    rejected: Mutex<RejectedKeys>,
    /// True if the user can be asked about requests that a key does not permit.
    asks: bool,
    /// The answers of the user, by key and request. Invariant: at most `ANSWERS_MAX`.
    answers: Mutex<HashMap<(PeerKey, String), bool>>,
}

impl AuthorizedPeers {
    /// Creates the policy from a file of authorized keys and the key of a shared secret.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed.
    pub fn new(
        authorized: Option<&Path>,
        secret: Option<PublicKey>,
        modes: Modes,
    ) -> Result<AuthorizedPeers, KeysError> {
        let keys = authorized.map(|file| SharedFile::load(file, modes, ()).map(Arc::new)).transpose()?;
        let invited = keys.as_ref().map(|keys| InvitedPeers::new(Arc::clone(keys), modes));
        let next_expiry = Mutex::new(keys.as_ref().and_then(|keys| keys.value().next_expiry()));
        let (rejected, answers) = (Mutex::default(), Mutex::default());
        Ok(AuthorizedPeers { keys, invited, next_expiry, ends: Vec::new(), secret, rejected, asks: false, answers })
    }

    /// Takes peers that hold an invitation of this file.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed.
    pub fn inviting(self, invitations: &Path) -> Result<AuthorizedPeers, KeysError> {
        let invited = self.invited.map(|invited| invited.inviting(invitations)).transpose()?;
        Ok(AuthorizedPeers { invited, ..self })
    }

    /// Returns the time until the next key expires.
    pub fn time_to_expiry(&self) -> Option<Duration> {
        let next = *self.next_expiry.lock().unwrap_or_else(PoisonError::into_inner);
        next.map(|time| time.to_system().duration_since(SystemTime::now()).unwrap_or_default())
    }

    /// Returns true if a key has expired since the last call, so that the links must be checked again.
    pub fn has_expired(&self) -> bool {
        let mut next = self.next_expiry.lock().unwrap_or_else(PoisonError::into_inner);
        let has_expired = next.is_some_and(UtcTime::is_past);
        if has_expired {
            *next = self.keys.as_ref().and_then(|keys| keys.value().next_expiry());
        }
        has_expired
    }

    /// Sets the ends that all of these peers may open, beside those of their own lines, which come first.
    pub fn with_ends(self, ends: &[End]) -> AuthorizedPeers {
        AuthorizedPeers { ends: ends.iter().cloned().map(Arc::new).collect(), ..self }
    }

    /// Sets whether the user can be asked about requests that a key does not permit.
    pub fn asking(self, asks: bool) -> AuthorizedPeers {
        AuthorizedPeers { asks, ..self }
    }

    /// Remembers an answer of the user.
    pub fn remember(&self, key: &PeerKey, request: &Request, is_permitted: bool) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() < ANSWERS_MAX {
            answers.insert((*key, request.to_string()), is_permitted);
        }
    }

    /// Forgets the answers of the user, who is then asked again. Returns true if there was any answer.
    pub fn forget_answers(&self) -> bool {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let had_any = !answers.is_empty();
        answers.clear();
        had_any
    }

    /// Returns the user's answer about a request. A key that is not authorized any more has none.
    fn answer(&self, key: &PeerKey, request: &Request) -> Option<bool> {
        if !self.asks || self.permissions(key).is_none() {
            return None;
        }
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&(*key, request.to_string())).copied()
    }

    /// Returns the number of keys that may dial this node, and the file of authorized keys.
    pub fn count(&self) -> (usize, Option<PathBuf>) {
        let keys = self.keys.as_ref();
        (
            keys.map_or(0, |keys| keys.value().count()) + usize::from(self.secret.is_some()),
            keys.map(|keys| keys.path().to_owned()),
        )
    }

    /// Reads the file again if it has changed. Returns true if its new content is in use.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed; the previous keys stay in use.
    pub fn refresh(&self, refresh: Refresh) -> Result<bool, KeysError> {
        self.invited.iter().for_each(|invited| invited.refresh(refresh));
        let keys = self.keys.as_ref().map_or(Ok(false), |keys| keys.refresh(refresh));
        if let Some(keys) = &self.keys {
            // An expiry that has come stays until the links were checked again.
            let mut next = self.next_expiry.lock().unwrap_or_else(PoisonError::into_inner);
            if !next.is_some_and(UtcTime::is_past) {
                *next = keys.value().next_expiry();
            }
        }
        keys
    }

    fn has_secret(&self, key: &PeerKey) -> bool {
        self.secret.is_some_and(|secret| secret.as_bytes() == key)
    }

    /// Logs the rejection of a key, with the line that would authorize it.
    fn log_rejection(&self, key: &PeerKey) {
        let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = rejected.record(key, Instant::now()) else { return };
        drop(rejected);
        if self.is_expired(key) {
            log::warn!(target: "seaprox::link", key = fingerprint(key), times = times, name = self.name(key); "key rejected: it has expired, as its valid-until= says");
            return;
        }
        let (_, file) = self.count();
        let file = file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        let line = PublicKey::from_bytes(*key).map_or_else(|_| "-".to_owned(), |key| key.to_string());
        log::warn!(target: "seaprox::link", key = fingerprint(key), times = times, file = file, line = line; "key rejected; to authorize it, add the line to the file");
    }

    /// Returns the permissions of a key whose time is not over.
    fn permissions(&self, key: &PeerKey) -> Option<Arc<Permissions>> {
        self.line(key).filter(|permissions| !permissions.is_expired())
    }

    /// Returns what the line of a key says, also after the end of its time.
    fn line(&self, key: &PeerKey) -> Option<Arc<Permissions>> {
        let key = PublicKey::from_bytes(*key).ok()?;
        self.keys.as_ref()?.value().find(&key).cloned()
    }
}

impl Policy for AuthorizedPeers {
    fn admits(&self, key: &PeerKey) -> bool {
        let is_authorized = self.has_secret(key) || self.permissions(key).is_some();
        if !is_authorized {
            self.log_rejection(key);
        }
        is_authorized
    }

    fn name(&self, key: &PeerKey) -> String {
        let named = self.line(key).and_then(|permissions| permissions.name().map(str::to_owned));
        named.unwrap_or_else(|| if self.has_secret(key) { "secret".to_owned() } else { brief(key) })
    }

    fn may_open(&self, key: &PeerKey, target: &Target) -> Verdict {
        if self.has_secret(key) {
            return Verdict::Yes;
        }
        match self.permissions(key).map(|permissions| permissions.may_open(target)) {
            Some(Decision::Allow) => Verdict::Yes,
            Some(Decision::NeedsAddress) => Verdict::ByAddress,
            Some(Decision::Deny) if self.answer(key, &Request::Open(target.clone())) == Some(true) => Verdict::Yes,
            Some(Decision::Deny) | None => Verdict::No,
        }
    }

    fn may_open_any(&self, key: &PeerKey) -> bool {
        let may_have_ends = !self.ends.is_empty() || self.asks;
        may_have_ends
            || self.has_secret(key)
            || self.permissions(key).is_some_and(|permissions| permissions.may_open_any())
    }

    fn may_reach(&self, key: &PeerKey, target: &Target, addr: SocketAddr) -> bool {
        self.has_secret(key) || self.permissions(key).is_some_and(|permissions| permissions.may_open_addr(target, addr))
    }

    fn end(&self, key: &PeerKey, name: &EndName) -> Option<Arc<End>> {
        let permissions = self.permissions(key);
        let own = permissions.as_ref().and_then(|permissions| permissions.end(name)).cloned();
        let is_known = || permissions.is_some() || self.has_secret(key);
        own.or_else(|| self.ends.iter().find(|end| end.name == *name).filter(|_| is_known()).cloned())
    }

    fn may_listen(&self, key: &PeerKey, place: &Bind) -> bool {
        self.has_secret(key)
            || self.permissions(key).is_some_and(|permissions| permissions.may_listen(place))
            || self.answer(key, &Request::Listen(place.clone())) == Some(true)
    }

    fn may_tell_source(&self, key: &PeerKey, client: IpAddr) -> bool {
        self.has_secret(key) || self.permissions(key).is_some_and(|permissions| permissions.may_tell_source(client))
    }

    fn listen_group(&self, key: &PeerKey) -> Option<String> {
        self.permissions(key)?.listen_group().map(str::to_owned)
    }

    fn asks(&self, key: &PeerKey, request: &Request) -> bool {
        let has_room = || self.answers.lock().unwrap_or_else(PoisonError::into_inner).len() < ANSWERS_MAX;
        self.asks && self.permissions(key).is_some() && self.answer(key, request).is_none() && has_room()
    }

    fn is_expired(&self, key: &PeerKey) -> bool {
        !self.has_secret(key) && self.line(key).is_some_and(|permissions| permissions.is_expired())
    }

    fn is_inviting(&self) -> bool {
        self.invited.as_ref().is_some_and(InvitedPeers::is_any_pending)
    }

    fn take_claim(&self, reply: ClaimReply) {
        if let Some(invited) = &self.invited {
            invited.take_claim(reply);
        }
    }

    fn counts_sessions(&self, key: &PeerKey) -> bool {
        !self.has_secret(key) && self.permissions(key).is_some_and(|permissions| permissions.uses().is_some())
    }

    fn count_session(&self, key: &PeerKey, reply: SessionReply) {
        let uses = self.permissions(key).and_then(|permissions| permissions.uses());
        // A key that has just lost its limit, or its line, asks again.
        if let (Some(invited), Some(uses)) = (&self.invited, uses) {
            invited.count_session(key, uses, reply);
        }
    }

    fn shared_folders(&self, key: &PeerKey) -> Vec<PathBuf> {
        self.permissions(key).map(|permissions| permissions.folders().to_vec()).unwrap_or_default()
    }

    fn streams_max(&self, key: &PeerKey) -> Option<u32> {
        self.permissions(key)?.max_streams()
    }

    fn rate_max(&self, key: &PeerKey) -> Option<u64> {
        self.permissions(key)?.rate()
    }
}

/// Returns the start of a fingerprint, which tells keys without a name apart.
fn brief(key: &PeerKey) -> String {
    fingerprint(key).chars().take(BRIEF_CHARS).collect()
}

/// `SHA256:` and eight characters.
const BRIEF_CHARS: usize = 15;
/// Answers that are remembered. At the limit the user is asked no more.
const ANSWERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::scratch::Scratch;
    use seaprox::Proto;
    use seaprox::auth::NodeKey;

    fn key() -> PublicKey {
        NodeKey::generate().unwrap().public()
    }

    #[test]
    fn a_peer_may_do_what_its_line_permits_and_nothing_by_default() {
        let (bare, web, other, shared) = (key(), key(), key(), key());
        let scratch = Scratch::new();
        let file = scratch.write(
            "authorized_keys",
            format!(
                "{bare}\npermit-open=\"db:5432\",permit-open=\"10.0.0.0/8\",permit-listen=\"2222\",max-streams=3,\
                 rate=10mbit {web} web\n"
            ),
            0o600,
        );
        let peers = AuthorizedPeers::new(Some(&file), Some(shared), Modes::Strict).unwrap();
        let (bare, web, other, shared) = (bare.as_bytes(), web.as_bytes(), other.as_bytes(), shared.as_bytes());
        assert!(peers.admits(bare) && peers.admits(web) && peers.admits(shared) && !peers.admits(other));
        let target = |text: &str| Target::parse(text).unwrap();
        let listen = Bind::Loopback(Proto::Tcp, 2222);
        assert_eq!(peers.may_open(bare, &target("db:5432")), Verdict::No);
        assert_eq!(peers.may_open(other, &target("db:5432")), Verdict::No);
        assert_eq!(peers.may_open(web, &target("db:5432")), Verdict::Yes);
        assert_eq!(peers.may_open(web, &target("10.1.1.1:1")), Verdict::Yes);
        assert_eq!(peers.may_open(web, &target("192.0.2.1:1")), Verdict::No);
        assert_eq!(peers.may_open(web, &target("other:1")), Verdict::ByAddress);
        assert!(peers.may_reach(web, &target("other:1"), ([10, 0, 0, 1], 1).into()));
        assert!(!peers.may_reach(web, &target("other:1"), ([127, 0, 0, 1], 1).into()));
        assert!(!peers.may_reach(bare, &target("other:1"), ([10, 0, 0, 1], 1).into()));
        assert!(peers.may_listen(web, &listen) && !peers.may_listen(bare, &listen));
        assert_eq!((peers.streams_max(web), peers.streams_max(bare)), (Some(3), None));
        assert_eq!(peers.rate_max(web), Some(1_250_000));
        assert_eq!((peers.name(web), peers.name(bare).len()), ("web".to_owned(), BRIEF_CHARS));
        assert_eq!(peers.may_open(shared, &target("192.0.2.1:1")), Verdict::Yes);
        assert!(peers.may_listen(shared, &Bind::Any(Proto::Tcp, 80)) && peers.count().0 == 3);
    }

    #[test]
    fn a_key_that_is_removed_from_the_file_is_rejected() {
        let (one, two) = (key(), key());
        let scratch = Scratch::new();
        let file = scratch.write("authorized_keys", format!("{one}\n"), 0o600);
        let peers = AuthorizedPeers::new(Some(&file), None, Modes::Strict).unwrap();
        assert!(peers.admits(one.as_bytes()) && !peers.admits(two.as_bytes()));
        scratch.write("authorized_keys", format!("{two}\n"), 0o600);
        assert!(peers.refresh(Refresh::Forced).unwrap());
        assert!(!peers.admits(one.as_bytes()) && peers.admits(two.as_bytes()));
        scratch.write("authorized_keys", "nonsense\n", 0o600);
        assert!(
            peers.refresh(Refresh::Forced).is_err() && peers.admits(two.as_bytes()),
            "the previous keys stay in use"
        );
    }
}
