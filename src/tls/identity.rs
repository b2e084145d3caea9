//! A node's key pair for TLS: an ed25519 seed, and the raw public key that belongs to it (RFC 7250, RFC 8410).

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use super::error::TlsError;

/// A raw ed25519 public key. It identifies a node.
pub(crate) type PublicKey = [u8; 32];

/// A node's private key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(super) key: Arc<CertifiedKey>,
    #[allow(dead_code, reason = "tests and benches name nodes by it")]
    public: PublicKey,
}

impl Identity {
    /// Makes the identity of a seed.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] if the library refuses the key; every seed is a valid key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Identity, TlsError> {
        let mut der = [0; PKCS8_PREFIX.len() + 32];
        let (prefix, rest) = der.split_at_mut(PKCS8_PREFIX.len());
        prefix.copy_from_slice(&PKCS8_PREFIX);
        rest.copy_from_slice(seed);
        let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(&der[..]));
        der.fill(0);
        let key = key.map_err(TlsError::from)?;
        let spki = key.public_key().ok_or_else(|| TlsError::Protocol("the key has no public half".into()))?;
        let public = raw_key(&spki).ok_or_else(|| TlsError::Protocol("the key is not ed25519".into()))?;
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], key);
        Ok(Identity { key: Arc::new(certified), public })
    }

    /// Returns the key that the peer sees.
    #[allow(dead_code, reason = "tests and benches name nodes by it")]
    pub const fn public_key(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// Returns the 32 bytes of the key in a SubjectPublicKeyInfo, if it is an ed25519 key (RFC 8410, section 4).
pub(super) fn raw_key(spki: &[u8]) -> Option<PublicKey> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// The bytes before the seed in an ed25519 PrivateKeyInfo (PKCS #8, version 1).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The bytes before the key in an ed25519 SubjectPublicKeyInfo.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
