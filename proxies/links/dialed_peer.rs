//! The peer that this node dials. Its key is named on the command line, derived from a shared secret, or in `known_nodes`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seaprox::auth::{KeysError, KnownNodes, Modes, PublicKey, Standing};
use seaprox::config::Pin;
use seaprox::node::{LinkServer, PeerKey, Policy, Verdict};
use seaprox::{Bind, End, EndName, Target};

use super::AuthorizedPeers;
use crate::shared_file::{Refresh, SharedFile};

/// The policy for the peer that this node dials.
pub struct DialedPeer {
    /// The address under which the key is known.
    target: Target,
    /// The name of the link, which is that of the peer in log and status.
    name: String,
    expected: ExpectedKey,
    /// The permissions of the peer, if it dials this node at the same time.
    permits: Option<Arc<AuthorizedPeers>>,
    /// The ends that the peer may open, and those of remote forwards.
    ends: Vec<Arc<End>>,
}

/// The source of the key that the peer must have.
#[derive(Clone)]
enum ExpectedKey {
    Pinned(Pin),
    /// The key that is derived from a shared secret. The peer may do everything here.
    Secret(PublicKey),
    /// A file that all links of a group share.
    Known(Arc<SharedFile<KnownNodes>>),
}

/// The result of checking a key that the peer has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyCheck {
    /// The key is the expected one.
    Matches,
    /// No key of the peer is known yet.
    Unknown {
        /// The file that a known key would be in.
        file: PathBuf,
    },
    /// Another key of the peer is known.
    Changed {
        /// The known key.
        known: PublicKey,
        /// The file of the known key.
        file: PathBuf,
        /// The line of the known key.
        line: usize,
    },
    /// The command line or the secret demands another key; holds its fingerprint.
    Mismatch(String),
}

impl DialedPeer {
    /// Creates a peer with the key that the command line names.
    pub fn pinned(target: Target, pin: Pin) -> DialedPeer {
        DialedPeer::new(target, ExpectedKey::Pinned(pin))
    }

    /// Creates a peer with the key that is derived from a shared secret.
    pub fn with_secret(target: Target, key: PublicKey) -> DialedPeer {
        DialedPeer::new(target, ExpectedKey::Secret(key))
    }

    /// Creates a peer whose key is in a file of known nodes, or will be added to it.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed.
    pub fn known(target: Target, file: &Path, modes: Modes) -> Result<DialedPeer, KeysError> {
        let known = ExpectedKey::Known(Arc::new(SharedFile::load(file, modes, ())?));
        Ok(DialedPeer::new(target, known))
    }

    /// Returns the name of the link.
    pub fn link_name(&self) -> &str {
        &self.name
    }

    fn new(target: Target, expected: ExpectedKey) -> DialedPeer {
        DialedPeer { name: target.to_string(), target, expected, permits: None, ends: Vec::new() }
    }

    /// Returns the peer at a server, to which the link with this name is dialed. Its key comes from the same source.
    pub fn at(&self, server: &LinkServer, name: &str) -> DialedPeer {
        let (expected, permits, ends) = (self.expected.clone(), self.permits.clone(), self.ends.clone());
        DialedPeer { target: server.host.clone(), name: name.to_owned(), expected, permits, ends }
    }

    /// Lets the peer do what a file of authorized keys permits its key.
    pub fn permitting(self, permits: AuthorizedPeers) -> DialedPeer {
        DialedPeer { permits: Some(Arc::new(permits)), ..self }
    }

    /// Sets the ends that the peer may open, and that remote forwards may have as their targets.
    pub fn with_ends(self, ends: &[End]) -> DialedPeer {
        DialedPeer { ends: ends.iter().cloned().map(Arc::new).collect(), ..self }
    }

    /// Returns the address under which the key of the peer is known.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Checks a key that the peer has shown.
    pub fn check(&self, key: &PublicKey) -> KeyCheck {
        match &self.expected {
            ExpectedKey::Pinned(pin) if pin.fits(key) => KeyCheck::Matches,
            ExpectedKey::Pinned(pin) => KeyCheck::Mismatch(pin.fingerprint()),
            ExpectedKey::Secret(secret) if secret == key => KeyCheck::Matches,
            ExpectedKey::Secret(secret) => KeyCheck::Mismatch(secret.fingerprint()),
            ExpectedKey::Known(nodes) => match nodes.value().look_up(&self.target, key) {
                Standing::Known => KeyCheck::Matches,
                Standing::Unknown => KeyCheck::Unknown { file: nodes.path().to_owned() },
                Standing::Changed { known, line } => KeyCheck::Changed { known, file: nodes.path().to_owned(), line },
            },
        }
    }

    /// Adds a key to the file of known nodes, because the user has confirmed it.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn accept(&self, key: &PublicKey) -> Result<(), KeysError> {
        if let ExpectedKey::Known(nodes) = &self.expected {
            // Another process may have added the key since the last reading.
            let mut found = nodes.read()?;
            if found.look_up(&self.target, key) != Standing::Known {
                found.add(&self.target, key)?;
            }
            nodes.refresh(Refresh::Forced)?;
        }
        Ok(())
    }

    /// Reads the file of known nodes again if it has changed. Returns true if its new content is in use.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed; the previous keys stay in use.
    pub fn refresh(&self, refresh: Refresh) -> Result<bool, KeysError> {
        let has_changed = self.permits.as_ref().map_or(Ok(false), |permits| permits.refresh(refresh))?;
        match &self.expected {
            ExpectedKey::Known(nodes) => nodes.refresh(refresh).map(|is_new| is_new || has_changed),
            ExpectedKey::Pinned(_) | ExpectedKey::Secret(_) => Ok(has_changed),
        }
    }

    /// Returns the permissions of the peer, unless it has all or none.
    fn permits(&self, key: &PeerKey) -> Option<&AuthorizedPeers> {
        self.permits.as_deref().filter(|_| !self.shares_secret(key))
    }

    /// Returns true if the key is derived from our shared secret. Such a peer may do everything.
    fn shares_secret(&self, key: &PeerKey) -> bool {
        matches!(&self.expected, ExpectedKey::Secret(secret) if secret.as_bytes() == key)
    }
}

impl Policy for DialedPeer {
    fn admits(&self, key: &PeerKey) -> bool {
        PublicKey::from_bytes(*key).is_ok_and(|key| self.check(&key) == KeyCheck::Matches)
    }

    fn name(&self, _key: &PeerKey) -> String {
        self.name.clone()
    }

    fn may_open(&self, key: &PeerKey, target: &Target) -> Verdict {
        if let Some(permits) = self.permits(key) {
            return permits.may_open(key, target);
        }
        if self.shares_secret(key) { Verdict::Yes } else { Verdict::No }
    }

    fn may_open_any(&self, key: &PeerKey) -> bool {
        !self.ends.is_empty()
            || self.permits(key).map_or_else(|| self.shares_secret(key), |permits| permits.may_open_any(key))
    }

    fn may_reach(&self, key: &PeerKey, target: &Target, addr: SocketAddr) -> bool {
        self.permits(key).map_or_else(|| self.shares_secret(key), |permits| permits.may_reach(key, target, addr))
    }

    fn end(&self, key: &PeerKey, name: &EndName) -> Option<Arc<End>> {
        let own = self.permits(key).and_then(|permits| permits.end(key, name));
        own.or_else(|| self.ends.iter().find(|end| end.name == *name).cloned())
    }

    fn may_listen(&self, key: &PeerKey, place: &Bind) -> bool {
        self.permits(key).map_or_else(|| self.shares_secret(key), |permits| permits.may_listen(key, place))
    }

    fn shared_folders(&self, key: &PeerKey) -> Vec<PathBuf> {
        self.permits(key).map(|permits| permits.shared_folders(key)).unwrap_or_default()
    }

    fn streams_max(&self, key: &PeerKey) -> Option<u32> {
        self.permits(key).and_then(|permits| permits.streams_max(key))
    }

    fn rate_max(&self, key: &PeerKey) -> Option<u64> {
        self.permits(key).and_then(|permits| permits.rate_max(key))
    }

    /// The clients of a remote forward come to the peer, so nobody else knows their addresses. A peer that may open streams to
    /// targets of its own needs a permission.
    fn may_tell_source(&self, key: &PeerKey, client: IpAddr) -> bool {
        self.permits(key).is_none_or(|permits| permits.may_tell_source(key, client))
    }
}

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
    fn a_key_is_unknown_known_after_it_is_accepted_and_then_changed() {
        let (one, two) = (key(), key());
        let scratch = Scratch::new();
        let file = scratch.path("known_nodes");
        let target = Target::parse("Remote:23232").unwrap();
        let peer = DialedPeer::known(target, &file, Modes::Strict).unwrap();
        assert_eq!(peer.check(&one), KeyCheck::Unknown { file: file.clone() });
        assert!(!peer.admits(one.as_bytes()));
        peer.accept(&one).unwrap();
        peer.accept(&one).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("remote:23232 {one}\n"));
        assert!(peer.admits(one.as_bytes()));
        assert_eq!(peer.check(&two), KeyCheck::Changed { known: one, file, line: 1 });
        assert!(!peer.admits(two.as_bytes()) && !peer.may_listen(one.as_bytes(), &Bind::Any(Proto::Tcp, 1)));
        assert_eq!(peer.may_open(one.as_bytes(), &Target::parse("a:1").unwrap()), Verdict::No);
    }

    #[test]
    fn a_peer_that_dials_this_node_at_the_same_time_may_do_what_authorized_keys_permits() {
        let (one, two) = (key(), key());
        let scratch = Scratch::new();
        let lines = format!("permit-open=\"db:5432\",permit-listen=\"2222\",max-streams=3,rate=10mbit {one}\n{two}\n");
        let file = scratch.write("authorized_keys", lines, 0o600);
        let permits = || AuthorizedPeers::new(Some(&file), None, Modes::Strict).unwrap();
        let target = |text: &str| Target::parse(text).unwrap();
        let peer = DialedPeer::pinned(target("remote:23232"), Pin::Key(one)).permitting(permits());
        // A line alone lets nobody in.
        assert!(peer.admits(one.as_bytes()) && !peer.admits(two.as_bytes()));
        let server = LinkServer::from(target("remote:23232"));
        for peer in [&peer, &peer.at(&server, "remote")] {
            let one = one.as_bytes();
            assert_eq!(peer.may_open(one, &target("db:5432")), Verdict::Yes);
            assert_eq!(peer.may_open(one, &target("db:5433")), Verdict::No);
            assert!(peer.may_open_any(one) && !peer.may_open_any(two.as_bytes()));
            assert!(peer.may_listen(one, &Bind::Loopback(Proto::Tcp, 2222)));
            assert!(!peer.may_listen(one, &Bind::Loopback(Proto::Tcp, 2223)));
            assert_eq!((peer.streams_max(one), peer.rate_max(one)), (Some(3), Some(1_250_000)));
            assert!(!peer.may_tell_source(one, [192, 0, 2, 1].into()));
        }
        let secret = DialedPeer::with_secret(target("remote:23232"), two).permitting(permits());
        assert_eq!(secret.may_open(two.as_bytes(), &target("db:5433")), Verdict::Yes);
    }

    #[test]
    fn a_pinned_key_and_a_shared_secret_admit_one_key_only() {
        let (one, two) = (key(), key());
        let target = Target::parse("remote:23232").unwrap();
        for pin in [Pin::Key(one), Pin::Fingerprint(one.fingerprint())] {
            let peer = DialedPeer::pinned(target.clone(), pin);
            assert_eq!(peer.check(&one), KeyCheck::Matches);
            assert_eq!(peer.check(&two), KeyCheck::Mismatch(one.fingerprint()));
            assert!(!peer.may_listen(one.as_bytes(), &Bind::Any(Proto::Tcp, 1)));
        }
        let peer = DialedPeer::with_secret(target.clone(), one);
        assert_eq!(peer.check(&two), KeyCheck::Mismatch(one.fingerprint()));
        assert_eq!(peer.may_open(one.as_bytes(), &target), Verdict::Yes);
        assert_eq!(peer.may_open(two.as_bytes(), &target), Verdict::No);
        assert!(
            peer.may_listen(one.as_bytes(), &Bind::Any(Proto::Tcp, 1))
                && !peer.may_listen(two.as_bytes(), &Bind::Any(Proto::Tcp, 1))
        );
    }
}
