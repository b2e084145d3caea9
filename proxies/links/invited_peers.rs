//! The peers that join by an invitation, and the sessions of keys that may begin a limited number of them. Both end in a file,
//! which a thread writes; the loops never wait for it.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use seaprox::auth::{AuthorizedKeys, Invitations, InvitedOutcome, KeyUses, KeysError, Modes, ProofKey, PublicKey};
use seaprox::invite::Answer;
use seaprox::node::{ClaimReply, PeerKey, SessionReply};

use super::clerk::Clerk;
use super::fingerprint;
use crate::shared_file::{Refresh, SharedFile};

/// The files that are written for peers, and the thread that writes them.
pub struct InvitedPeers {
    keys: Arc<SharedFile<AuthorizedKeys>>,
    invitations: Option<Arc<SharedFile<Invitations>>>,
    modes: Modes,
    clerk: Clerk,
    /// The claims that wait for the thread.
    claims: Arc<AtomicUsize>,
    /// The keys that have a session which is being counted.
    counting: Arc<Mutex<HashSet<PeerKey>>>,
    errors: Arc<ErrorLog>,
}

/// The limit of the lines about files that cannot be written, because each peer would cause one.
#[derive(Default)]
struct ErrorLog(Mutex<(Option<Instant>, u64)>);

impl ErrorLog {
    /// Logs an error, or counts it if the last line is too recent.
    fn log(&self, error: &KeysError, key: &PublicKey, text: &str) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if log.0.is_some_and(|last| now.duration_since(last) < ERROR_INTERVAL) {
            log.1 += 1;
            return;
        }
        log.0 = Some(now);
        let suppressed = std::mem::take(&mut log.1);
        log::error!(target: "seaprox::link", error = error.to_string(), key = key.fingerprint(), suppressed; "{text}");
    }
}

impl InvitedPeers {
    /// Creates the part that counts sessions.
    pub fn new(keys: Arc<SharedFile<AuthorizedKeys>>, modes: Modes) -> InvitedPeers {
        let (clerk, claims, counting, errors) = (Clerk::default(), Arc::default(), Arc::default(), Arc::default());
        InvitedPeers { keys, invitations: None, modes, clerk, claims, counting, errors }
    }

    /// Takes peers that hold an invitation of this file.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed.
    pub fn inviting(self, invitations: &Path) -> Result<InvitedPeers, KeysError> {
        let file = SharedFile::load(invitations, self.modes, ())?;
        Ok(InvitedPeers { invitations: Some(Arc::new(file)), ..self })
    }

    /// Reads the file of invitations again if it has changed. If it cannot be read or parsed, logs the error, and the previous
    /// invitations stay in use. The error must not hide a change of the keys.
    pub fn refresh(&self, refresh: Refresh) {
        if let Some(Err(error)) = self.invitations.as_ref().map(|file| file.refresh(refresh)) {
            log::error!(target: "seaprox::link", error = error.to_string(); "the file of invitations cannot be read again; the previous ones stay in use");
        }
    }

    /// Returns true if any invitation is pending now.
    pub fn is_any_pending(&self) -> bool {
        self.invitations.as_ref().is_some_and(|file| file.value().is_any_pending())
    }

    /// Checks the proof of a claim, and lets the thread admit the peer. Drops the reply to a claim that is not proven.
    pub fn take_claim(&self, reply: ClaimReply) {
        let Some(file) = &self.invitations else { return };
        let found = file.value().find(reply.claim().id()).map(|invitation| invitation.key.clone());
        let is_known = found.is_some();
        // An unknown invitation takes as long as a wrong proof.
        let proof_key = found.unwrap_or_else(ProofKey::of_none);
        if !reply.claim().is_proven_by(&proof_key) || !is_known {
            return;
        }
        let Ok(key) = PublicKey::from_bytes(*reply.claim().key()) else { return };
        let Some(place) = Place::take(&self.claims) else { return };
        let (file, keys, modes) = (Arc::clone(file), Arc::clone(&self.keys), self.modes);
        let errors = Arc::clone(&self.errors);
        self.clerk.post(move || {
            let _place = place;
            let answer = admit((&file, &keys), modes, &errors, &reply, &key);
            reply.send(answer, &proof_key);
        });
    }

    /// Lets the thread count a new session of a key that may begin `most` of them. Refuses a second session of the key
    /// meanwhile.
    pub fn count_session(&self, key: &PeerKey, most: u64, reply: SessionReply) {
        let Ok(public) = PublicKey::from_bytes(*key) else { return };
        if !self.counting.lock().unwrap_or_else(PoisonError::into_inner).insert(*key) {
            return;
        }
        let counting = Counting { all: Arc::clone(&self.counting), key: *key };
        let (keys, modes, errors) = (Arc::clone(&self.keys), self.modes, Arc::clone(&self.errors));
        self.clerk.post(move || {
            let path = KeyUses::path_for(keys.path());
            let stands = |key: &PublicKey| keys.value().find(key).is_some();
            let counted = KeyUses::count(&path, modes, &public, most, stands);
            drop(counting);
            if let Err(error) = &counted {
                errors.log(error, &public, "a session cannot be counted, and is refused");
            }
            reply.send(counted.unwrap_or(false));
        });
    }
}

/// Spends the invitation and authorizes the key. Returns the answer.
fn admit(
    (invitations, keys): (&SharedFile<Invitations>, &SharedFile<AuthorizedKeys>),
    modes: Modes,
    errors: &ErrorLog,
    reply: &ClaimReply,
    key: &PublicKey,
) -> Answer {
    let id = reply.claim().id();
    let outcome = Invitations::admit(invitations.path(), keys.path(), modes, id, key);
    let answer = match outcome {
        Ok(outcome) => {
            // The line about another outcome is the node's, which has a limit for each network.
            if outcome == InvitedOutcome::Joined {
                log::info!(target: "seaprox::link", invitation = id.to_string(), key = key.fingerprint(), file = keys.path().display().to_string(); "key authorized by an invitation");
            }
            Answer::Outcome(outcome)
        }
        Err(error) => {
            errors.log(&error, key, "a node with an invitation cannot be authorized; the invitation may be spent");
            Answer::Failed
        }
    };
    // The peer dials as soon as it has the answer. A file that cannot be read is reported by the periodic reading.
    let now = Refresh::Periodic(Instant::now());
    let _ = invitations.refresh(now);
    if answer == Answer::Outcome(InvitedOutcome::Joined) && keys.refresh(now).is_err() {
        log::warn!(target: "seaprox::link", key = fingerprint(key.as_bytes()); "the key of a new node is in use after the next reading");
    }
    answer
}

/// A place among the claims that wait.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(claims: &Arc<AtomicUsize>) -> Option<Place> {
        let place = Place(Arc::clone(claims));
        (claims.fetch_add(1, Ordering::Relaxed) < CLAIMS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The mark of a key with a session that is being counted.
struct Counting {
    all: Arc<Mutex<HashSet<PeerKey>>>,
    key: PeerKey,
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Shortest time between two lines about files that cannot be written.
const ERROR_INTERVAL: Duration = Duration::from_secs(1);
/// Proven claims that wait for the thread. Others are closed, and may come again.
const CLAIMS_MAX: usize = 16;
