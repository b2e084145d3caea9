//! The file of invitations: each invitation of this node, with the permissions that it gives, until a day after its end.
//!
//! ```text
//! ID KEY EXPIRES USES USED VALIDITY [OPTIONS]      one line for each invitation; VALIDITY is a duration, or -
//! ```
//! KEY is the key of the proofs, so the file is private: no other user may read it. It is replaced as a whole, by rename, under
//! a lock that all processes of the configuration share. A line may be removed by hand, which withdraws the invitation.
//!
//! # The order of an admission
//! ```text
//! lock -> look up -> known? -> expired? -> used? -> USED + 1, fsync, rename, fsync of the directory -> key, fsync -> unlock
//! ```
//! An invitation is spent before the key is written. So a process that is killed in between has spent the invitation and
//! authorized nobody; it never authorizes two keys for one use.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::authorized::{AuthorizedKey, AuthorizedKeys};
use super::error::{KeysError, Wrong};
use super::file::{self, Stamp};
use super::invitation::{InvitationId, ProofKey};
use super::modes::Modes;
use super::permissions::Permissions;
use super::public::PublicKey;
use super::uses::KeyUses;
use super::watched::FromFile;
use super::{ENTRIES_MAX, lines};
use crate::UtcTime;
use crate::types::units::{format_duration, parse_duration};

/// Limit of the pending invitations of a node.
pub const INVITATIONS_MAX: usize = 64;
/// Limit of the nodes that one invitation may join.
pub const INVITATION_USES_MAX: u32 = 1_000;
/// Longest time for which an invitation may be pending.
pub const INVITATION_TIME_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The invitations of a node. The default is none.
#[derive(Debug, Default, PartialEq)]
pub struct Invitations(Vec<PendingInvitation>);

/// An invitation, as the inviting node keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingInvitation {
    /// Its name.
    pub id: InvitationId,
    /// The key of the proofs.
    pub key: ProofKey,
    /// The time from which on it joins nobody.
    pub expires: UtcTime,
    /// The number of nodes that it may join.
    pub uses: u32,
    /// The number of nodes that it has joined.
    pub used: u32,
    /// The time from joining on for which the key of a joined node is valid, if it ends.
    pub valid_for: Option<Duration>,
    /// The permissions of the joined nodes.
    pub permissions: Permissions,
}

/// The outcome for a peer that has proven that it holds an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvitedOutcome {
    /// Its key is authorized now.
    Joined,
    /// Its key was authorized before. Nothing has changed, and the invitation was not spent.
    Known,
    /// The invitation was used, as often as it may be, or was withdrawn.
    Used,
    /// The time of the invitation is over.
    Expired,
    /// Its key was authorized before, and the time of the key is over. Nothing has changed, and the invitation was not spent.
    KeyExpired,
}

impl PendingInvitation {
    /// Returns true if the invitation may join one more node now.
    pub fn is_pending(&self) -> bool {
        self.used < self.uses && !self.expires.is_past()
    }

    /// Returns true if the invitation has been over for so long that it is forgotten.
    fn is_forgotten(&self) -> bool {
        self.expires.after(REMEMBERED).is_past()
    }

    fn entry(&self, key: &PublicKey) -> AuthorizedKey {
        let until = self.valid_for.map(|duration| UtcTime::now().after(duration));
        let permissions = self.permissions.clone();
        let uses = permissions.uses();
        AuthorizedKey { key: *key, permissions: permissions.limited(until, uses) }
    }
}

impl Invitations {
    /// Returns true if any invitation is pending now.
    pub fn is_any_pending(&self) -> bool {
        self.0.iter().any(PendingInvitation::is_pending)
    }

    /// Returns the invitation with this name, also one that is over.
    pub fn find(&self, id: InvitationId) -> Option<&PendingInvitation> {
        self.0.iter().find(|invitation| invitation.id == id)
    }

    /// Adds an invitation to a file. Creates the file and its directory if they do not exist.
    ///
    /// # Errors
    /// There are [`INVITATIONS_MAX`] pending ones, or the file is malformed or cannot be read or written.
    pub fn add(path: &Path, modes: Modes, invitation: PendingInvitation) -> Result<(), KeysError> {
        file::make_directory(file::parent(path))?;
        let _lock = file::lock(path)?;
        let (mut all, _) = <Invitations as FromFile>::load(path, modes, &())?;
        all.0.retain(|invitation| !invitation.is_forgotten());
        if all.0.len() >= INVITATIONS_MAX {
            all.0.retain(PendingInvitation::is_pending);
        }
        if all.0.len() >= INVITATIONS_MAX {
            let expected =
                format!("at most {INVITATIONS_MAX} pending invitations; wait until one expires, or remove one");
            return Err(KeysError::content(path, expected));
        }
        all.0.push(invitation);
        all.write(path)
    }

    /// Admits a peer that has proven that it holds an invitation: spends the invitation, and then appends the key to the file of
    /// authorized keys. Waits for the disk, so a loop must not call it.
    ///
    /// # Errors
    /// A file cannot be read or written. The invitation may be spent then.
    pub fn admit(
        path: &Path,
        authorized_keys: &Path,
        modes: Modes,
        id: InvitationId,
        key: &PublicKey,
    ) -> Result<InvitedOutcome, KeysError> {
        let _lock = file::lock(path)?;
        let (mut all, _) = <Invitations as FromFile>::load(path, modes, &())?;
        let (authorized, _) = <AuthorizedKeys as FromFile>::load(authorized_keys, modes, &())?;
        match authorized.find(key) {
            // An invitation does not undo the limits that a line has.
            Some(permissions) if permissions.is_expired() => return Ok(InvitedOutcome::KeyExpired),
            Some(_) => return Ok(InvitedOutcome::Known),
            None => {}
        }
        let Some(invitation) = all.0.iter_mut().find(|invitation| invitation.id == id) else {
            return Ok(InvitedOutcome::Used);
        };
        if invitation.expires.is_past() {
            return Ok(InvitedOutcome::Expired);
        }
        if invitation.used >= invitation.uses {
            return Ok(InvitedOutcome::Used);
        }
        // A file without room is found before the invitation is spent.
        if authorized.count() >= ENTRIES_MAX {
            return Err(KeysError::content(authorized_keys, file::NO_ROOM));
        }
        let entry = invitation.entry(key);
        if entry.permissions.uses().is_some() {
            KeyUses::forget(&KeyUses::path_for(authorized_keys), modes, key)?;
        }
        invitation.used += 1;
        all.write(path)?;
        let is_new = AuthorizedKeys::append(authorized_keys, modes, &entry)?;
        Ok(if is_new { InvitedOutcome::Joined } else { InvitedOutcome::Known })
    }

    fn write(&self, path: &Path) -> Result<(), KeysError> {
        let mut text = String::from(HEAD);
        for PendingInvitation { id, key, expires, uses, used, valid_for, permissions } in &self.0 {
            let validity = valid_for.map_or_else(|| "-".to_owned(), format_duration);
            let options = permissions.to_string();
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{id} {} {expires} {uses} {used} {validity} {options}", key.to_base64());
        }
        file::create(path, text.as_bytes(), true)
    }
}

impl FromFile for Invitations {
    type Context = ();
    const BYTES_MAX: usize = 1 << 20;

    fn parse(path: &Path, bytes: Option<&[u8]>, (): &()) -> Result<Invitations, KeysError> {
        let entries = lines::entries(path, bytes.unwrap_or_default(), parse_line)?;
        if entries.len() > INVITATIONS_MAX {
            return Err(KeysError::content(path, format!("at most {INVITATIONS_MAX} invitations")));
        }
        Ok(Invitations(entries.into_iter().map(|(_, entry)| entry).collect()))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn keeps(&self, earlier: &Invitations) -> bool {
        earlier.0.iter().all(|invitation| self.0.contains(invitation))
    }

    /// Reads the file, which no other user may read.
    fn load(path: &Path, modes: Modes, context: &()) -> Result<(Invitations, Stamp), KeysError> {
        match file::read_private_of(path, modes, Self::BYTES_MAX) {
            Ok((content, stamp)) => Ok((Self::parse(path, Some(content.expose()), context)?, stamp)),
            Err(error) if error.is_missing() => Ok((Invitations::default(), Stamp::MISSING)),
            Err(error) => Err(error),
        }
    }
}

/// Parses a line. An error quotes no word, because one of them is secret.
fn parse_line(line: &str) -> Result<PendingInvitation, Wrong> {
    let form = || Wrong::missing("ID KEY EXPIRES USES USED VALIDITY [OPTIONS]");
    let mut rest = line;
    let mut word = || {
        let (word, after) = lines::split_word(rest);
        rest = after;
        word
    };
    let (id, key, expires) = (InvitationId::parse(word()), ProofKey::from_base64(word()), word().parse().ok());
    let (uses, used, validity) = (number(word()), number(word()), word());
    let valid_for = match validity {
        "-" => Some(None),
        text => parse_duration(text).ok().map(Some),
    };
    let permissions = if rest.is_empty() { Permissions::default() } else { rest.parse()? };
    Ok(PendingInvitation {
        id: id.ok_or_else(form)?,
        key: key.ok_or_else(form)?,
        expires: expires.ok_or_else(form)?,
        uses: uses.ok_or_else(form)?,
        used: used.ok_or_else(form)?,
        valid_for: valid_for.ok_or_else(form)?,
        permissions,
    })
}

fn number(word: &str) -> Option<u32> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|number| is_number && *number <= INVITATION_USES_MAX)
}

/// Time for which an invitation that is over is kept, so that its holder is told why it joins nobody.
const REMEMBERED: Duration = Duration::from_secs(86_400);
const HEAD: &str = "# The invitations of this node, made by `seaprox invite`. Whoever reads this file can use them.\n\
                    # id, key of the proofs, end, uses, used, validity of the keys, their permissions\n";

#[cfg(test)]
mod tests {
    use super::super::file::tests::mode;
    use super::super::scratch::Scratch;
    use super::super::{Invitation, NodeKey};
    use super::*;
    use crate::Target;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    struct Files {
        scratch: Scratch,
    }

    impl Files {
        fn new() -> Files {
            Files { scratch: Scratch::new() }
        }

        /// Adds an invitation with these options.
        fn invite(&self, uses: u32, expires_in: Duration, valid_for: Option<Duration>, options: &str) -> InvitationId {
            let key = NodeKey::generate().unwrap().public();
            let made = Invitation::new(vec![Target::parse("gate:1").unwrap()], &key).unwrap();
            let permissions = if options.is_empty() { Permissions::default() } else { options.parse().unwrap() };
            let (id, key, expires) = (made.id(), made.proof_key(), UtcTime::now().after(expires_in));
            let pending = PendingInvitation { id, key, expires, uses, used: 0, valid_for, permissions };
            Invitations::add(&self.scratch.path("invitations"), Modes::Strict, pending).unwrap();
            id
        }

        fn admit(&self, id: InvitationId, key: u8) -> Result<InvitedOutcome, String> {
            let (path, keys) = (self.scratch.path("invitations"), self.scratch.path("authorized_keys"));
            Invitations::admit(&path, &keys, Modes::Strict, id, &node(key)).map_err(|error| error.to_string())
        }

        fn load(&self) -> Invitations {
            <Invitations as FromFile>::load(&self.scratch.path("invitations"), Modes::Strict, &()).unwrap().0
        }

        fn keys(&self) -> String {
            fs::read_to_string(self.scratch.path("authorized_keys")).unwrap_or_default()
        }
    }

    fn node(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn an_invitation_authorizes_one_key_with_its_permissions() {
        let files = Files::new();
        let id = files.invite(1, LONG, None, r#"permit-open="db:5432",uses="5",name="laptop""#);
        assert!(files.load().is_any_pending() && mode(&files.scratch.path("invitations")) == 0o600);
        assert_eq!(files.admit(id, 3), Ok(InvitedOutcome::Joined));
        assert_eq!(files.keys(), format!("permit-open=\"db:5432\",uses=\"5\",name=\"laptop\" {}\n", node(3)));
        assert!(!files.load().is_any_pending());
        assert_eq!(files.admit(id, 4), Ok(InvitedOutcome::Used));
        assert_eq!(files.admit(id, 3), Ok(InvitedOutcome::Known), "the answer was lost, and the peer asks again");
        assert_eq!(files.keys().lines().count(), 1);
    }

    #[test]
    fn a_validity_becomes_the_end_of_the_key() {
        let files = Files::new();
        let id = files.invite(2, LONG, Some(Duration::from_secs(3600)), "");
        assert_eq!([3, 4].map(|key| files.admit(id, key)), [Ok(InvitedOutcome::Joined), Ok(InvitedOutcome::Joined)]);
        let keys = AuthorizedKeys::parse(Path::new("f"), files.keys().as_bytes()).unwrap();
        let until = keys.find(&node(3)).unwrap().valid_until().unwrap();
        let now = UtcTime::now();
        assert!(
            until > now.after(Duration::from_secs(3590)) && until <= now.after(Duration::from_secs(3600)),
            "{until}"
        );
        assert_eq!(files.admit(id, 5), Ok(InvitedOutcome::Used));
    }

    #[test]
    fn an_expired_or_withdrawn_invitation_authorizes_nobody() {
        let files = Files::new();
        let (expired, withdrawn) = (files.invite(1, Duration::ZERO, None, ""), files.invite(1, LONG, None, ""));
        assert_eq!(files.admit(expired, 3), Ok(InvitedOutcome::Expired));
        files.scratch.write("invitations", "", 0o600);
        assert_eq!(files.admit(withdrawn, 3), Ok(InvitedOutcome::Used));
        assert_eq!(files.keys(), "");
    }

    #[test]
    fn of_many_peers_at_the_same_time_one_is_admitted() {
        let files = Files::new();
        let id = files.invite(1, LONG, None, "");
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (3..11)
                .map(|key| {
                    scope.spawn({
                        let files = &files;
                        move || files.admit(id, key).unwrap()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == InvitedOutcome::Joined).count(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == InvitedOutcome::Used).count(), 7, "{outcomes:?}");
        assert_eq!(files.keys().lines().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_take_the_key_is_found_before_the_invitation_is_spent() {
        let files = Files::new();
        let id = files.invite(1, LONG, None, "");
        files.scratch.write("authorized_keys", "nonsense\n", 0o600);
        assert!(files.admit(id, 3).unwrap_err().contains("authorized_keys:1:"));
        let full: String = (0..ENTRIES_MAX as u64)
            .map(|number| {
                let mut bytes = [7; 32];
                bytes[..8].copy_from_slice(&number.to_be_bytes());
                format!("{}\n", PublicKey::from_bytes(bytes).unwrap())
            })
            .collect();
        files.scratch.write("authorized_keys", full, 0o600);
        assert!(files.admit(id, 3).unwrap_err().contains(file::NO_ROOM));
        assert!(files.load().is_any_pending());
    }

    #[test]
    fn an_invitation_that_cannot_be_spent_authorizes_nobody() {
        let files = Files::new();
        let id = files.invite(1, LONG, None, "");
        fs::set_permissions(files.scratch.path("invitations"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(files.admit(id, 3).unwrap_err().contains("others can read it"));
        assert_eq!(files.keys(), "");
    }

    #[test]
    fn the_number_of_pending_invitations_is_limited() {
        let files = Files::new();
        let first = files.invite(1, LONG, None, "");
        (1..INVITATIONS_MAX).for_each(|_| _ = files.invite(1, LONG, None, ""));
        let pending = files.load().find(first).unwrap().clone();
        let add = || Invitations::add(&files.scratch.path("invitations"), Modes::Strict, pending.clone());
        assert!(add().unwrap_err().to_string().contains("at most 64 pending invitations"));
        assert_eq!(files.admit(first, 3), Ok(InvitedOutcome::Joined));
        add().unwrap();
        assert_eq!(files.load().0.len(), INVITATIONS_MAX, "the used one has made room");
    }

    #[test]
    fn a_malformed_line_is_refused_and_never_quoted() {
        let files = Files::new();
        files.invite(3, LONG, Some(LONG), r#"permit-listen="2222""#);
        let line = fs::read_to_string(files.scratch.path("invitations")).unwrap().lines().last().unwrap().to_owned();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[4..], ["0", "10m", r#"permit-listen="2222""#]);
        let check = |line: &str| Invitations::parse(Path::new("f"), Some(line.as_bytes()), &());
        assert_eq!(check(&line).unwrap().0.len(), 1);
        for at in 0..6 {
            let mut changed = words.clone();
            changed[at] = "?";
            let error = check(&changed.join(" ")).unwrap_err().to_string();
            assert!(error.starts_with("f:1: expected ID KEY") && !error.contains(words[1]), "{error}");
            assert!(check(&words[..at].join(" ")).is_err() || at == 0);
        }
        assert!(check(&format!("{line} x")).is_err() && check(&line.replace("permit", "x")).is_err());
        assert!(check(&format!("{line}\n").repeat(INVITATIONS_MAX + 1)).is_err());
    }
}
