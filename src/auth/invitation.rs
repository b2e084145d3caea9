//! An invitation: the line that joins another node to this one, and the proofs that both ends know its secret.
//!
//! ```text
//! line  = seaprox-invitation ADDRESSES FINGERPRINT TOKEN      words, separated by blanks or line breaks
//! ADDRESSES   = HOST:PORT *("," HOST:PORT)                    where the inviting node listens
//! FINGERPRINT = SHA256:...                                    of its key
//! TOKEN       = base64url(id, secret, check)                  8, 16 and 4 bytes
//! ```
//! The check is the start of the SHA-256 of all before it, so that an incomplete or mistyped line is found at once. The
//! inviting node does not store the secret, but a key that HKDF (RFC 5869) derives from it. A proof is an HMAC under that
//! key over the role, the id, both public keys and the exporter value of the TLS connection, so it is of no use for another
//! connection or in the other direction.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ring::{digest, hkdf, hmac};

use super::public::PublicKey;
use super::secret::{Secret, SecretError};
use crate::Target;

/// Limit of the addresses in an invitation.
pub const INVITATION_ADDRESSES_MAX: usize = 8;
/// Limit of the bytes of an invitation: each name of an address may have 255 bytes.
pub const INVITATION_BYTES_MAX: usize = 3072;
/// Length of a proof.
pub const INVITATION_PROOF_BYTES: usize = 32;

/// The name of an invitation, which is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvitationId(pub [u8; ID_BYTES]);

/// An invitation as the inviting node prints it and the joining node reads it.
pub struct Invitation {
    /// The addresses of the inviting node; at least one.
    addresses: Vec<Target>,
    /// The fingerprint of the key of the inviting node.
    fingerprint: String,
    id: InvitationId,
    secret: Secret,
}

/// The key of the proofs, derived from the secret of an invitation. It is never printed but into its file.
#[derive(Clone)]
pub struct ProofKey(Arc<Secret>);

/// The end of a connection that gives a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofRole {
    /// The node that has printed the invitation.
    Inviter,
    /// The node that has read it.
    Joiner,
}

/// The text of a proof: everything that it is bound to, except for the role.
#[derive(Clone, Copy, Debug)]
pub struct ProofContext<'a> {
    /// The invitation.
    pub id: InvitationId,
    /// The public key of the inviting node.
    pub inviter: &'a [u8; 32],
    /// The public key of the joining node.
    pub joiner: &'a [u8; 32],
    /// The exporter value of the TLS connection between them, with the label [`INVITATION_EXPORTER`].
    pub channel: &'a [u8; 32],
}

/// The label of the exporter value that a proof is bound to (RFC 8446, section 7.5).
pub const INVITATION_EXPORTER: &str = "EXPORTER-seaprox-invite";

/// The reason why a text is no invitation. It never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvitationError(&'static str);

impl Invitation {
    /// Makes an invitation with a random id and a random secret.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new(addresses: Vec<Target>, key: &PublicKey) -> Result<Invitation, SecretError> {
        let random = Secret::random(ID_BYTES)?;
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(random.expose());
        // The text of the id, and the token that begins with it, begin with a letter, so that no option is seen in them.
        id[0] &= 0x7f;
        let secret = Secret::random(SECRET_BYTES)?;
        Ok(Invitation { addresses, fingerprint: key.fingerprint(), id: InvitationId(id), secret })
    }

    /// Parses the line.
    ///
    /// # Errors
    /// The text is not an invitation, or was changed.
    pub fn parse(text: &[u8]) -> Result<Invitation, InvitationError> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= INVITATION_BYTES_MAX);
        let mut words = text.ok_or(FORM)?.split_ascii_whitespace();
        if words.next() != Some(KIND) {
            return Err(FORM);
        }
        let (Some(places), Some(fingerprint), Some(token), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(PARTS);
        };
        let mut bytes = Secret::zeroed(TOKEN_BYTES + 2);
        if URL_SAFE_NO_PAD.decode_slice(token, bytes.expose_mut()) != Ok(TOKEN_BYTES) {
            return Err(PARTS);
        }
        let (token, _) = bytes.expose().split_at(TOKEN_BYTES);
        let (private, check) = token.split_at(ID_BYTES + SECRET_BYTES);
        if *check != check_of(places, fingerprint, private) {
            return Err(PARTS);
        }
        let (id, secret) = private.split_at(ID_BYTES);
        let addresses = places.split(',').map(Target::parse).collect::<Result<Vec<Target>, _>>();
        let addresses =
            addresses.ok().filter(|all| all.len() <= INVITATION_ADDRESSES_MAX && all.iter().all(is_dialable));
        let is_digest = |word: &str| STANDARD_NO_PAD.decode(word).is_ok_and(|digest| digest.len() == 32);
        if !fingerprint.strip_prefix("SHA256:").is_some_and(is_digest) {
            return Err(PARTS);
        }
        Ok(Invitation {
            addresses: addresses.ok_or(ADDRESSES)?,
            fingerprint: fingerprint.to_owned(),
            id: InvitationId(id.try_into().map_err(|_| PARTS)?),
            secret: Secret::copied(secret),
        })
    }

    /// Returns the line without a newline.
    pub fn to_line(&self) -> Secret {
        let places: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let places = places.join(",");
        let mut token = Secret::zeroed(TOKEN_BYTES);
        let (private, check) = token.expose_mut().split_at_mut(ID_BYTES + SECRET_BYTES);
        private[..ID_BYTES].copy_from_slice(&self.id.0);
        private[ID_BYTES..].copy_from_slice(self.secret.expose());
        check.copy_from_slice(&check_of(&places, &self.fingerprint, private));
        let mut word = Secret::zeroed(TOKEN_BYTES.div_ceil(3) * 4);
        let used = URL_SAFE_NO_PAD.encode_slice(token.expose(), word.expose_mut()).unwrap_or(0);
        let head = format!("{KIND} {places} {} ", self.fingerprint);
        let mut line = Secret::zeroed(head.len() + used);
        line.expose_mut()[..head.len()].copy_from_slice(head.as_bytes());
        line.expose_mut()[head.len()..].copy_from_slice(&word.expose()[..used]);
        line
    }

    /// Returns the addresses of the inviting node.
    pub fn addresses(&self) -> &[Target] {
        &self.addresses
    }

    /// Returns the fingerprint of the key of the inviting node.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Returns the name of the invitation.
    pub fn id(&self) -> InvitationId {
        self.id
    }

    /// Derives the key of the proofs.
    pub fn proof_key(&self) -> ProofKey {
        let mut key = Secret::zeroed(PROOF_KEY_BYTES);
        let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(self.secret.expose());
        let info: [&[u8]; 2] = [&self.id.0, b"proof"];
        let expanded = pseudo_random.expand(&info, hmac::HMAC_SHA256);
        match expanded.and_then(|bytes| bytes.fill(key.expose_mut())) {
            Ok(()) => ProofKey(Arc::new(key)),
            Err(_) => unreachable!("HKDF-SHA256 gives up to 8,160 bytes"),
        }
    }
}

impl ProofKey {
    /// Makes a key of no invitation, with which a proof for an unknown invitation is compared, in the same time.
    pub fn of_none() -> ProofKey {
        ProofKey(Arc::new(Secret::zeroed(PROOF_KEY_BYTES)))
    }

    /// Parses the form in the file of invitations.
    pub(super) fn from_base64(text: &str) -> Option<ProofKey> {
        let mut bytes = Secret::zeroed(PROOF_KEY_BYTES + 2);
        let used = URL_SAFE_NO_PAD.decode_slice(text, bytes.expose_mut()).ok()?;
        (used == PROOF_KEY_BYTES).then(|| ProofKey(Arc::new(Secret::copied(&bytes.expose()[..used]))))
    }

    /// Returns the form in the file of invitations.
    pub(super) fn to_base64(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.expose())
    }

    /// Returns the proof of one end.
    pub fn prove(&self, role: ProofRole, context: &ProofContext<'_>) -> [u8; INVITATION_PROOF_BYTES] {
        let mut proof = [0; INVITATION_PROOF_BYTES];
        proof.copy_from_slice(hmac::sign(&self.hmac(), &context.text(role)).as_ref());
        proof
    }

    /// Returns true if this is the proof of one end. Takes the same time for each wrong proof.
    pub fn is_proven(&self, role: ProofRole, context: &ProofContext<'_>, proof: &[u8; INVITATION_PROOF_BYTES]) -> bool {
        hmac::verify(&self.hmac(), &context.text(role), proof).is_ok()
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.expose())
    }
}

impl ProofContext<'_> {
    /// Returns the text under the HMAC. Each part has a fixed length.
    fn text(&self, role: ProofRole) -> Vec<u8> {
        let role: &[u8] = match role {
            ProofRole::Inviter => b"seaprox-invite/1 inviter ",
            ProofRole::Joiner => b"seaprox-invite/1 joiner  ",
        };
        [role, &self.id.0, self.inviter, self.joiner, self.channel].concat()
    }
}

/// Returns true if a node that joins can dial an address.
fn is_dialable(address: &Target) -> bool {
    !matches!(address, Target::Unix(_) | Target::End(_)) && address.proto().require_tcp().is_ok()
}

/// Returns the first bytes of a digest over all parts of a line.
fn check_of(places: &str, fingerprint: &str, private: &[u8]) -> [u8; CHECK_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    [KIND.as_bytes(), places.as_bytes(), fingerprint.as_bytes(), private].into_iter().for_each(|part| {
        context.update(part);
        context.update(b" ");
    });
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&context.finish().as_ref()[..CHECK_BYTES]);
    check
}

impl InvitationId {
    /// Parses the printed form.
    pub(super) fn parse(text: &str) -> Option<InvitationId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(InvitationId)
    }
}

impl fmt::Display for InvitationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl PartialEq for ProofKey {
    fn eq(&self, other: &ProofKey) -> bool {
        self.0.expose() == other.0.expose()
    }
}

/// Writes nothing of the key.
impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(..)")
    }
}

/// Writes nothing of the secret.
impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({})", self.id)
    }
}

impl fmt::Display for InvitationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvitationError {}

const KIND: &str = "seaprox-invitation";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 16;
const CHECK_BYTES: usize = 4;
const TOKEN_BYTES: usize = ID_BYTES + SECRET_BYTES + CHECK_BYTES;
const PROOF_KEY_BYTES: usize = 32;
const SALT: &[u8] = b"seaprox-invite/1";
const FORM: InvitationError =
    InvitationError("expected the line that `seaprox invite` has printed; it begins with seaprox-invitation");
const PARTS: InvitationError = InvitationError(
    "a part of the invitation is missing or changed: expected the whole line that `seaprox invite` has printed",
);
const ADDRESSES: InvitationError = InvitationError("expected at most 8 addresses HOST:PORT in the invitation");

#[cfg(test)]
mod tests {
    use super::super::NodeKey;
    use super::*;
    use proptest::prelude::*;

    fn invitation(places: &[&str]) -> Invitation {
        let key = NodeKey::generate().unwrap().public();
        Invitation::new(places.iter().map(|place| Target::parse(place).unwrap()).collect(), &key).unwrap()
    }

    fn line(invitation: &Invitation) -> String {
        String::from_utf8(invitation.to_line().expose().to_vec()).unwrap()
    }

    #[test]
    fn a_printed_invitation_parses_to_itself_also_with_line_breaks() {
        let places = ["203.0.113.5:23232", "[2001:db8::1]:4000", "[fe80::1%eth0]:23232", "gate.example.org:23232"];
        let made = invitation(&places);
        let line = line(&made);
        for text in [line.clone(), format!("  {line}\r\n"), line.replace(' ', "\n > ").replace('>', " ")] {
            let read = Invitation::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (read.addresses(), read.fingerprint(), read.id()),
                (made.addresses(), made.fingerprint(), made.id())
            );
            assert_eq!(read.proof_key(), made.proof_key());
        }
        assert!(line.len() < 250 && format!("{made:?}").len() < 40, "{line}");
    }

    #[test]
    fn a_changed_or_incomplete_line_is_refused_and_never_quoted() {
        let line = line(&invitation(&["gate:23232"]));
        for at in 0..line.len() {
            let mut changed = line.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let error = Invitation::parse(&changed).unwrap_err().to_string();
            assert!(!error.contains("gate"), "{error}");
            assert!(Invitation::parse(&line.as_bytes()[..at]).is_err(), "{at}");
        }
        assert!(Invitation::parse(format!("{line} more").as_bytes()).is_err());
        assert!(Invitation::parse(&[line.as_bytes(), &vec![b' '; INVITATION_BYTES_MAX]].concat()).is_err());
    }

    #[test]
    fn an_invitation_with_an_address_that_cannot_be_dialed_is_refused() {
        let key = NodeKey::generate().unwrap().public();
        for places in [vec!["unix:/x"], vec!["udp:gate:1"], vec!["gate:1"; 9]] {
            let places = places.into_iter().map(|place| Target::parse(place).unwrap()).collect();
            let made = Invitation::new(places, &key).unwrap();
            assert_eq!(Invitation::parse(made.to_line().expose()).unwrap_err(), ADDRESSES);
        }
    }

    #[test]
    fn a_proof_holds_for_one_role_one_pair_of_keys_and_one_connection_only() {
        let (made, other) = (invitation(&["gate:1"]), invitation(&["gate:1"]));
        let key = made.proof_key();
        let (inviter, joiner, channel) = ([1; 32], [2; 32], [3; 32]);
        let context = ProofContext { id: made.id(), inviter: &inviter, joiner: &joiner, channel: &channel };
        let proof = key.prove(ProofRole::Joiner, &context);
        assert!(key.is_proven(ProofRole::Joiner, &context, &proof));
        assert!(!key.is_proven(ProofRole::Inviter, &context, &proof), "the other role");
        assert!(!other.proof_key().is_proven(ProofRole::Joiner, &context, &proof), "another secret");
        for changed in [
            ProofContext { id: other.id(), ..context },
            ProofContext { inviter: &joiner, ..context },
            ProofContext { joiner: &inviter, ..context },
            ProofContext { inviter: &joiner, joiner: &inviter, ..context },
            ProofContext { channel: &inviter, ..context },
        ] {
            assert!(!key.is_proven(ProofRole::Joiner, &changed, &proof), "{changed:?}");
        }
    }

    /// The figures are those of OpenSSL 3.0:
    /// `openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt hexkey:02...02 -kdfopt salt:seaprox-invite/1
    /// -kdfopt hexinfo:010101010101010170726f6f66 HKDF`
    #[test]
    fn the_key_of_the_proofs_is_that_of_openssl() {
        let mut made = invitation(&["gate:1"]);
        (made.id, made.secret) = (InvitationId([1; 8]), Secret::copied(&[2; 16]));
        assert_eq!(made.proof_key().to_base64(), OPENSSL);
        assert_eq!(ProofKey::from_base64(OPENSSL).unwrap(), made.proof_key());
    }
    const OPENSSL: &str = "BskGusz21xTouCZDH5c6dp_PSvEBZHXBGndiUk3WPFw";

    proptest! {
        #[test]
        fn no_text_panics(text in "(seaprox-invitation )?\\PC{0,80}|seaprox-invitation [a-z0-9:.,]{0,20} SHA256:[A-Za-z0-9+/]{43} [A-Za-z0-9_-]{36,40}") {
            let _ = Invitation::parse(text.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Invitation::parse(&bytes);
        }
    }
}
