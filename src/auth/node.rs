//! The private key of a node: an ed25519 seed.
//!
//! The key is generated once and kept in a file, or derived from a secret that two nodes share. In the second case both
//! nodes have the same key, and each accepts only that key from the other.

use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;

use ring::pbkdf2;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::error::{KeysError, Problem};
use super::modes::Modes;
use super::pkcs8::{self, SEED_BYTES};
use super::public::PublicKey;
use super::secret::{SECRET_BYTES_MIN, Secret, SecretError};
use super::{ConfigDirectory, file};

/// The private key of a node.
pub struct NodeKey {
    /// Invariant: 32 bytes.
    seed: Secret,
    public: PublicKey,
}

impl NodeKey {
    /// Generates a key.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn generate() -> Result<NodeKey, SecretError> {
        Secret::random(SEED_BYTES).map(NodeKey::from_seed)
    }

    /// Returns the key with this seed (RFC 8032), for a program that keeps its key by itself.
    pub fn from_bytes(seed: &[u8; SEED_BYTES]) -> NodeKey {
        NodeKey::from_seed(Secret::copied(seed))
    }

    /// Derives the key from a shared secret with PBKDF2-HMAC-SHA256, the salt `seaprox-link-v1` and 600,000 rounds. This
    /// takes a few tenths of a second, so a loop must not call it.
    ///
    /// # Errors
    /// The secret has fewer than [`SECRET_BYTES_MIN`] bytes.
    pub fn from_secret(secret: &[u8]) -> Result<NodeKey, SecretError> {
        if secret.len() < SECRET_BYTES_MIN { Err(SecretError::Short) } else { NodeKey::from_any_secret(secret) }
    }

    /// Derives the key from a secret of any length. An attacker who was once in the middle of the link can find a short
    /// secret by trying.
    ///
    /// # Errors
    /// The secret is empty.
    pub fn from_any_secret(secret: &[u8]) -> Result<NodeKey, SecretError> {
        if secret.is_empty() {
            return Err(SecretError::Short);
        }
        let mut seed = Secret::zeroed(SEED_BYTES);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, SALT, secret, seed.expose_mut());
        Ok(NodeKey::from_seed(seed))
    }

    /// Reads the key from a file that only its owner can read. The format is PKCS#8 in PEM, as in the output of
    /// `openssl genpkey -algorithm ed25519`.
    ///
    /// # Errors
    /// The file cannot be read, other users can read it, or it contains no key of this kind.
    pub fn load(path: &Path, modes: Modes) -> Result<NodeKey, KeysError> {
        let content = file::read_private(path, modes)?;
        let decoded = pkcs8::decode_pem(content.expose()).map_err(|expected| KeysError::content(path, expected))?;
        let key = NodeKey::from_seed(decoded.seed);
        match decoded.public {
            Some(public) if public != *key.public.as_bytes() => Err(KeysError::content(path, PAIR_FORM)),
            _ => Ok(key),
        }
    }

    /// Writes the key to a file that only its owner can access. With `replace` it overwrites an existing file.
    ///
    /// # Errors
    /// The file exists already, or cannot be written.
    pub fn create(&self, path: &Path, replace: bool) -> Result<(), KeysError> {
        file::create(path, pkcs8::encode_pem(self.seed.expose()).expose(), replace)
    }

    /// Reads the key of a node, or creates it if the file does not exist. Returns the key, and true if it is new. If several
    /// processes do this at the same time, one creates the key and all return the same.
    ///
    /// # Errors
    /// The errors of [`NodeKey::load`] and [`NodeKey::create`], or the system has no random bytes.
    pub fn load_or_create(path: &Path, modes: Modes) -> Result<(NodeKey, bool), KeysError> {
        match NodeKey::load(path, modes) {
            Err(error) if error.is_missing() => {}
            result => return result.map(|key| (key, false)),
        }
        ConfigDirectory::at(file::parent(path)).make()?;
        let key = NodeKey::generate()
            .map_err(|error| KeysError::new(path, Problem::Io(std::io::Error::other(error.to_string()))))?;
        match key.create(path, false) {
            Ok(()) => Ok((key, true)),
            Err(error) if matches!(error.problem(), Problem::Exists) => {
                NodeKey::load(path, modes).map(|key| (key, false))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Returns the key in PKCS#8 version 1 as DER, for a library that signs with it.
    pub fn pkcs8_der(&self) -> Secret {
        pkcs8::encode_der(self.seed.expose())
    }

    fn from_seed(seed: Secret) -> NodeKey {
        let Ok(pair) = Ed25519KeyPair::from_seed_unchecked(seed.expose()) else {
            unreachable!("each 32 bytes are a seed");
        };
        let bytes = <[u8; SEED_BYTES]>::try_from(pair.public_key().as_ref()).ok();
        match bytes.and_then(|bytes| PublicKey::from_bytes(bytes).ok()) {
            Some(public) => NodeKey { seed, public },
            None => unreachable!("a public key has 32 bytes, and one that is made from a seed has a large order"),
        }
    }
}

/// Writes the fingerprint only.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.public.fingerprint())
    }
}

const SALT: &[u8] = b"seaprox-link-v1";
const ROUNDS: NonZeroU32 = NonZeroU32::new(600_000).unwrap();
const PAIR_FORM: &str = "a private key and its own public key; they do not belong together";

#[cfg(test)]
mod tests {
    use super::super::file::tests::mode;
    use super::super::scratch::Scratch;
    use super::*;

    /// The key of RFC 8032, section 7.1, test 1, as `openssl pkey -inform DER` prints its PKCS#8 form. The fingerprint is
    /// `openssl pkey -in key -pubout -outform DER | openssl dgst -sha256 -binary | base64`.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                       MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
                       -----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "seaprox-ed25519 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const FINGERPRINT: &str = "SHA256:BuP9j9opu2CrWVV95h7bCuzbIxE0vjDnW0Vfjht5L6k";

    #[test]
    fn a_key_that_openssl_wrote_is_read() {
        let scratch = Scratch::new();
        let path = scratch.write("key", PEM, 0o600);
        let key = NodeKey::load(&path, Modes::Strict).unwrap();
        assert_eq!(key.public().to_string(), PUBLIC);
        assert_eq!(key.public().fingerprint(), FINGERPRINT);
        assert_eq!(format!("{key:?}"), format!("NodeKey({FINGERPRINT})"));
        key.create(&scratch.path("copy"), false).unwrap();
        assert_eq!(std::fs::read_to_string(scratch.path("copy")).unwrap(), PEM);
    }

    #[test]
    fn the_der_form_signs_and_the_public_key_verifies() {
        use ring::signature::{ED25519, UnparsedPublicKey};
        let key = NodeKey::generate().unwrap();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.pkcs8_der().expose()).unwrap();
        let public = key.public();
        UnparsedPublicKey::new(&ED25519, public.as_bytes()).verify(b"message", pair.sign(b"message").as_ref()).unwrap();
    }

    /// ```text
    /// openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:"correct horse battery staple" \
    ///     -kdfopt salt:seaprox-link-v1 -kdfopt iter:600000 -binary PBKDF2 >seed
    /// (printf '\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20'; cat seed) |
    ///     openssl pkey -inform DER -pubout -outform DER | tail -c 32 | base64
    /// ```
    #[test]
    fn a_secret_gives_the_key_that_openssl_derives_from_it() {
        let key = NodeKey::from_secret(b"correct horse battery staple").unwrap();
        assert_eq!(key.public().to_string(), "seaprox-ed25519 vIhU98qDC0jsl6HbpCvpwxVO4TAM3OD87HMLeoKdUOw=");
        assert_eq!(key.seed.expose()[..4], [0x56, 0x5c, 0xaf, 0x88]);
    }

    #[test]
    fn a_short_secret_is_accepted_only_on_request() {
        assert_eq!(NodeKey::from_secret(b"123456789012345").unwrap_err(), SecretError::Short);
        assert!(NodeKey::from_secret(b"1234567890123456").is_ok());
        assert!(NodeKey::from_any_secret(b"123456789012345").is_ok());
        assert_eq!(NodeKey::from_any_secret(b"").unwrap_err(), SecretError::Short);
    }

    #[test]
    fn a_file_with_the_public_key_of_another_seed_is_refused() {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let (key, other) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
        let scratch = Scratch::new();
        for (public, fits) in [(key.public(), true), (other.public(), false)] {
            let mut der = [key.pkcs8_der().expose(), &[0x81, 0x21, 0x00], public.as_bytes()].concat();
            (der[1], der[4]) = (der.len() as u8 - 2, 1);
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
            let path = scratch.write("key", pem, 0o600);
            assert_eq!(NodeKey::load(&path, Modes::Strict).map(|key| key.public()).ok(), fits.then_some(public));
        }
    }

    #[test]
    fn a_key_is_created_at_the_first_use_and_kept() {
        let scratch = Scratch::new();
        let path = scratch.path("config/seaprox/key");
        let (made, is_new) = NodeKey::load_or_create(&path, Modes::Strict).unwrap();
        assert!(is_new);
        assert_eq!((mode(&path), mode(&scratch.path("config/seaprox"))), (0o600, 0o700));
        let (kept, is_new) = NodeKey::load_or_create(&path, Modes::Strict).unwrap();
        assert!(!is_new && kept.public() == made.public());
        assert!(matches!(made.create(&path, false).unwrap_err().problem(), Problem::Exists));
    }

    #[test]
    fn concurrent_first_uses_return_the_same_key() {
        let scratch = Scratch::new();
        let (path, start) = (scratch.path("new/key"), std::sync::Barrier::new(8));
        let keys: Vec<_> = std::thread::scope(|scope| {
            let one = |_| {
                scope.spawn(|| {
                    start.wait();
                    NodeKey::load_or_create(&path, Modes::Strict).map(|(key, is_new)| (key.public(), is_new)).unwrap()
                })
            };
            let threads: Vec<_> = (0..8).map(one).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|(key, _)| *key == keys[0].0));
        assert_eq!(keys.iter().filter(|(_, is_new)| *is_new).count(), 1);
    }

    #[test]
    fn an_invalid_key_file_is_not_replaced_by_a_new_key() {
        let scratch = Scratch::new();
        for (content, mode) in [("nonsense", 0o600), (PEM, 0o644)] {
            let path = scratch.write("key", content, mode);
            let error = NodeKey::load_or_create(&path, Modes::Strict).unwrap_err().to_string();
            assert!(error.contains("expected") && !error.contains("nonsense"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
