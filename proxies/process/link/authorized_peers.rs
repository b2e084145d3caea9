//! Whom a node trusts: [`Visitors`] are those who dial it, with what `authorized_keys` lets them do; [`Peer`] is the one
//! that it dials itself, whose key is pinned, shared or in `known_nodes`.
//!
//! Loops ask, and never wait for a file: they see what was last read. The main thread reads the files again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use seaprox::auth::{AuthorizedKeys, KeysError, KnownNodes, Modes, Permissions, PublicKey, Standing};
use seaprox::node::{PeerKey, Policy, Request, Verdict};
use seaprox::rules::Decision;
use seaprox::{Bind, Target};

use super::rejected_keys::Refusals;
use crate::cli::Pin;
use crate::shared_file::{Look, Shared};

/// Those who dial this node.
pub struct Visitors {
    keys: Option<Shared<AuthorizedKeys>>,
    /// The key that follows from a shared secret: it may do everything.
    secret: Option<PublicKey>,
    refusals: Mutex<Refusals>,
    /// Whether somebody is there to be asked about what keys do not permit.
    asks: bool,
    /// What was answered. Invariant: at most `ANSWERS_MAX`.
    answers: Mutex<HashMap<(PeerKey, String), bool>>,
}

/// The node that this one dials.
pub struct Peer {
    target: Target,
    check: Check,
}

/// How the key of a peer is judged.
enum Check {
    Pinned(Pin),
    /// The key that follows from a shared secret: the peer may do everything here.
    Secret(PublicKey),
    Known(Box<Shared<KnownNodes>>),
}

/// What is thought of a key that a peer has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is the right one.
    Right,
    /// Nobody has said yet which one is right.
    Unknown {
        /// Where that would stand.
        file: PathBuf,
    },
    /// It is known to have another one.
    Changed {
        /// That one.
        known: PublicKey,
        /// Where that stands.
        file: PathBuf,
        /// In which line.
        line: usize,
    },
    /// The command line asks for another one, with this fingerprint.
    Other(String),
}

impl Visitors {
    /// Those whose keys stand in a file, and whoever has the secret.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn new(authorized: Option<&Path>, secret: Option<PublicKey>, modes: Modes) -> Result<Visitors, KeysError> {
        let keys = authorized.map(|file| Shared::load(file, modes, ())).transpose()?;
        Ok(Visitors { keys, secret, refusals: Mutex::default(), asks: false, answers: Mutex::default() })
    }

    /// Whether somebody is there to be asked about what keys do not permit.
    pub fn asking(self, asks: bool) -> Visitors {
        Visitors { asks, ..self }
    }

    /// Remembers an answer, until it is told to forget them all.
    pub fn remember(&self, key: &PeerKey, request: &Request, may: bool) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() < ANSWERS_MAX {
            answers.insert((*key, request.to_string()), may);
        }
    }

    /// Forgets the answers of the user, who is then asked again. Returns true if there was any answer.
    pub fn forget_answers(&self) -> bool {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let had_any = !answers.is_empty();
        answers.clear();
        had_any
    }

    /// What was answered about something that a key does not permit.
    fn answer(&self, key: &PeerKey, request: &Request) -> Option<bool> {
        if !self.asks || self.permissions(key).is_none() {
            return None;
        }
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&(*key, request.to_string())).copied()
    }

    /// How many keys are let in, and the file that they stand in.
    pub fn count(&self) -> (usize, Option<PathBuf>) {
        let keys = self.keys.as_ref();
        (
            keys.map_or(0, |keys| keys.now().count()) + usize::from(self.secret.is_some()),
            keys.map(|keys| keys.path().to_owned()),
        )
    }

    /// Reads the file again if it has changed. Returns true if new content was taken.
    ///
    /// # Errors
    /// What is wrong with the file; then nothing changes.
    pub fn refresh(&self, look: Look) -> Result<bool, KeysError> {
        self.keys.as_ref().map_or(Ok(false), |keys| keys.refresh(look))
    }

    fn has_secret(&self, key: &PeerKey) -> bool {
        self.secret.is_some_and(|secret| secret.as_bytes() == key)
    }

    /// Says, with back-off, that a key is not let in, and with which line it would be.
    fn refused(&self, key: &PeerKey) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(times) = refusals.note(key, Instant::now()) else { return };
        drop(refusals);
        let (_, file) = self.count();
        let file = file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        let line = PublicKey::from_bytes(*key).map_or_else(|_| "-".to_owned(), |key| key.to_string());
        log::warn!(target: "seaprox::link", key = fingerprint(key), times = times, file = file, line = line; "key not let in; add the line to the file if it should be");
    }

    fn permissions(&self, key: &PeerKey) -> Option<Arc<Permissions>> {
        let key = PublicKey::from_bytes(*key).ok()?;
        self.keys.as_ref()?.now().find(&key).cloned()
    }
}

impl Policy for Visitors {
    fn admits(&self, key: &PeerKey) -> bool {
        let is_let_in = self.has_secret(key) || self.permissions(key).is_some();
        if !is_let_in {
            self.refused(key);
        }
        is_let_in
    }

    fn name(&self, key: &PeerKey) -> String {
        let named = self.permissions(key).and_then(|permissions| permissions.name().map(str::to_owned));
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
        self.asks || self.has_secret(key) || self.permissions(key).is_some_and(|permissions| permissions.may_open_any())
    }

    fn may_reach(&self, key: &PeerKey, name: &str, addr: SocketAddr) -> bool {
        self.has_secret(key)
            || self.permissions(key).is_some_and(|permissions| permissions.may_open_addr(Some(name), addr))
    }

    fn may_listen(&self, key: &PeerKey, place: &Bind) -> bool {
        self.has_secret(key)
            || self.permissions(key).is_some_and(|permissions| permissions.may_listen(place))
            || self.answer(key, &Request::Listen(place.clone())) == Some(true)
    }

    fn asks(&self, key: &PeerKey, request: &Request) -> bool {
        let has_room = || self.answers.lock().unwrap_or_else(PoisonError::into_inner).len() < ANSWERS_MAX;
        self.asks && self.permissions(key).is_some() && self.answer(key, request).is_none() && has_room()
    }

    fn streams_max(&self, key: &PeerKey) -> Option<u32> {
        self.permissions(key)?.max_streams()
    }

    fn rate_max(&self, key: &PeerKey) -> Option<u64> {
        self.permissions(key)?.rate()
    }
}

impl Peer {
    /// A peer with the one key that the command line names.
    pub fn pinned(target: Target, pin: Pin) -> Peer {
        Peer { target, check: Check::Pinned(pin) }
    }

    /// A peer with the key that follows from a shared secret.
    pub fn with_secret(target: Target, key: PublicKey) -> Peer {
        Peer { target, check: Check::Secret(key) }
    }

    /// A peer whose key stands in a file, or will.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn known(target: Target, file: &Path, modes: Modes) -> Result<Peer, KeysError> {
        Ok(Peer { target, check: Check::Known(Box::new(Shared::load(file, modes, ())?)) })
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What is to be thought of a key that it has shown.
    pub fn judge(&self, key: &PublicKey) -> Judgement {
        match &self.check {
            Check::Pinned(pin) if pin.fits(key) => Judgement::Right,
            Check::Pinned(pin) => Judgement::Other(pin.fingerprint()),
            Check::Secret(secret) if secret == key => Judgement::Right,
            Check::Secret(secret) => Judgement::Other(secret.fingerprint()),
            Check::Known(nodes) => match nodes.now().look_up(&self.target, key) {
                Standing::Known => Judgement::Right,
                Standing::Unknown => Judgement::Unknown { file: nodes.path().to_owned() },
                Standing::Changed { known, line } => Judgement::Changed { known, file: nodes.path().to_owned(), line },
            },
        }
    }

    /// Writes down that a key is the right one, because somebody says so.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn accept(&self, key: &PublicKey) -> Result<(), KeysError> {
        if let Check::Known(nodes) = &self.check {
            // What others have written meanwhile is read along.
            let mut found = nodes.read()?;
            if found.look_up(&self.target, key) != Standing::Known {
                found.add(&self.target, key)?;
            }
            nodes.refresh(Look::Now)?;
        }
        Ok(())
    }

    /// Reads the file again if it has changed. Returns true if new content was taken.
    ///
    /// # Errors
    /// What is wrong with the file; then nothing changes.
    pub fn refresh(&self, look: Look) -> Result<bool, KeysError> {
        match &self.check {
            Check::Known(nodes) => nodes.refresh(look),
            Check::Pinned(_) | Check::Secret(_) => Ok(false),
        }
    }

    /// A peer that shares our secret is one of our own.
    fn is_ours(&self, key: &PeerKey) -> bool {
        matches!(&self.check, Check::Secret(secret) if secret.as_bytes() == key)
    }
}

impl Policy for Peer {
    fn admits(&self, key: &PeerKey) -> bool {
        PublicKey::from_bytes(*key).is_ok_and(|key| self.judge(&key) == Judgement::Right)
    }

    fn name(&self, _key: &PeerKey) -> String {
        self.target.to_string()
    }

    fn may_open(&self, key: &PeerKey, _target: &Target) -> Verdict {
        if self.is_ours(key) { Verdict::Yes } else { Verdict::No }
    }

    fn may_open_any(&self, key: &PeerKey) -> bool {
        self.is_ours(key)
    }

    fn may_reach(&self, key: &PeerKey, _name: &str, _addr: SocketAddr) -> bool {
        self.is_ours(key)
    }

    fn may_listen(&self, key: &PeerKey, _place: &Bind) -> bool {
        self.is_ours(key)
    }
}

/// The fingerprint of a key as it came from the network.
pub fn fingerprint(key: &PeerKey) -> String {
    PublicKey::from_bytes(*key).map_or_else(|_| "a weak key".to_owned(), |key| key.fingerprint())
}

/// Enough of a fingerprint to tell keys without a name apart.
fn brief(key: &PeerKey) -> String {
    fingerprint(key).chars().take(BRIEF_CHARS).collect()
}

/// `SHA256:` and eight characters.
const BRIEF_CHARS: usize = 15;

/// Answers that are remembered; when there are so many, nobody is asked any more.
const ANSWERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::link::scratch::Scratch;
    use seaprox::auth::NodeKey;

    fn key() -> PublicKey {
        NodeKey::generate().unwrap().public()
    }

    #[test]
    fn a_visitor_may_do_what_the_file_says_and_nothing_by_default() {
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
        let visitors = Visitors::new(Some(&file), Some(shared), Modes::Strict).unwrap();
        let (bare, web, other, shared) = (bare.as_bytes(), web.as_bytes(), other.as_bytes(), shared.as_bytes());
        assert!(visitors.admits(bare) && visitors.admits(web) && visitors.admits(shared) && !visitors.admits(other));
        let target = |text: &str| Target::parse(text).unwrap();
        let listen = Bind::Loopback(2222);
        assert_eq!(visitors.may_open(bare, &target("db:5432")), Verdict::No);
        assert_eq!(visitors.may_open(other, &target("db:5432")), Verdict::No);
        assert_eq!(visitors.may_open(web, &target("db:5432")), Verdict::Yes);
        assert_eq!(visitors.may_open(web, &target("10.1.1.1:1")), Verdict::Yes);
        assert_eq!(visitors.may_open(web, &target("192.0.2.1:1")), Verdict::No);
        assert_eq!(visitors.may_open(web, &target("other:1")), Verdict::ByAddress);
        assert!(visitors.may_reach(web, "other", ([10, 0, 0, 1], 1).into()));
        assert!(!visitors.may_reach(web, "other", ([127, 0, 0, 1], 1).into()));
        assert!(!visitors.may_reach(bare, "other", ([10, 0, 0, 1], 1).into()));
        assert!(visitors.may_listen(web, &listen) && !visitors.may_listen(bare, &listen));
        assert_eq!((visitors.streams_max(web), visitors.streams_max(bare)), (Some(3), None));
        assert_eq!(visitors.rate_max(web), Some(1_250_000));
        assert_eq!((visitors.name(web), visitors.name(bare).len()), ("web".to_owned(), BRIEF_CHARS));
        assert_eq!(visitors.may_open(shared, &target("192.0.2.1:1")), Verdict::Yes);
        assert!(visitors.may_listen(shared, &Bind::Any(80)) && visitors.count().0 == 3);
    }

    #[test]
    fn a_key_that_is_removed_is_let_in_no_more() {
        let (one, two) = (key(), key());
        let scratch = Scratch::new();
        let file = scratch.write("authorized_keys", format!("{one}\n"), 0o600);
        let visitors = Visitors::new(Some(&file), None, Modes::Strict).unwrap();
        assert!(visitors.admits(one.as_bytes()) && !visitors.admits(two.as_bytes()));
        scratch.write("authorized_keys", format!("{two}\n"), 0o600);
        assert!(visitors.refresh(Look::Now).unwrap());
        assert!(!visitors.admits(one.as_bytes()) && visitors.admits(two.as_bytes()));
        scratch.write("authorized_keys", "nonsense\n", 0o600);
        assert!(
            visitors.refresh(Look::Now).is_err() && visitors.admits(two.as_bytes()),
            "a broken file changes nothing"
        );
    }

    #[test]
    fn a_peer_is_known_unknown_or_changed() {
        let (one, two) = (key(), key());
        let scratch = Scratch::new();
        let file = scratch.path("known_nodes");
        let target = Target::parse("Remote:23232").unwrap();
        let peer = Peer::known(target, &file, Modes::Strict).unwrap();
        assert_eq!(peer.judge(&one), Judgement::Unknown { file: file.clone() });
        assert!(!peer.admits(one.as_bytes()));
        peer.accept(&one).unwrap();
        peer.accept(&one).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("remote:23232 {one}\n"));
        assert!(peer.admits(one.as_bytes()));
        assert_eq!(peer.judge(&two), Judgement::Changed { known: one, file, line: 1 });
        assert!(!peer.admits(two.as_bytes()) && !peer.may_listen(one.as_bytes(), &Bind::Any(1)));
        assert_eq!(peer.may_open(one.as_bytes(), &Target::parse("a:1").unwrap()), Verdict::No);
    }

    #[test]
    fn a_pinned_key_and_a_shared_one_are_the_only_ones() {
        let (one, two) = (key(), key());
        let target = Target::parse("remote:23232").unwrap();
        for pin in [Pin::Key(one), Pin::Fingerprint(one.fingerprint())] {
            let peer = Peer::pinned(target.clone(), pin);
            assert_eq!(peer.judge(&one), Judgement::Right);
            assert_eq!(peer.judge(&two), Judgement::Other(one.fingerprint()));
            assert!(!peer.may_listen(one.as_bytes(), &Bind::Any(1)));
        }
        let peer = Peer::with_secret(target.clone(), one);
        assert_eq!(peer.judge(&two), Judgement::Other(one.fingerprint()));
        assert_eq!(peer.may_open(one.as_bytes(), &target), Verdict::Yes);
        assert_eq!(peer.may_open(two.as_bytes(), &target), Verdict::No);
        assert!(peer.may_listen(one.as_bytes(), &Bind::Any(1)) && !peer.may_listen(two.as_bytes(), &Bind::Any(1)));
    }
}
