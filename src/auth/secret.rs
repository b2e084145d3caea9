//! Private bytes in memory, and the secret that two nodes share.
//!
//! A [`Secret`] is never printed and is overwritten on drop. This uses no unsafe code, so it depends on the compiler, and it
//! does not reach copies that the cryptographic library leaves on the stack.
//!
//! A shared secret is 32 random bytes as base64 text, in a file that only its owner can access. The key is derived from the
//! text without its newline, so any other text of enough bytes can serve as a secret.

use std::fmt;
use std::hint;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::KeysError;
use super::file;
use super::modes::Modes;

/// The shortest secret that is accepted without a request: an attacker in the middle of the link can try out short
/// secrets offline.
pub const SECRET_BYTES_MIN: usize = 16;

/// Bytes that are never printed, and are overwritten on drop.
pub struct Secret(Box<[u8]>);

/// An error in a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretError {
    /// The secret has fewer bytes than [`SECRET_BYTES_MIN`], or none.
    Short,
    /// The system has no random bytes.
    Random,
}

impl Secret {
    pub(super) fn zeroed(bytes: usize) -> Secret {
        Secret(vec![0; bytes].into())
    }

    pub(super) fn copied(bytes: &[u8]) -> Secret {
        Secret(bytes.into())
    }

    /// Generates a secret of `bytes` random bytes.
    pub(super) fn random(bytes: usize) -> Result<Secret, SecretError> {
        let mut secret = Secret::zeroed(bytes);
        SystemRandom::new().fill(&mut secret.0).map_err(|_| SecretError::Random)?;
        Ok(secret)
    }

    /// Generates a secret to share: 32 random bytes as base64.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn generate() -> Result<Secret, SecretError> {
        let random = Secret::random(RANDOM_BYTES)?;
        let mut text = Secret::zeroed(RANDOM_BYTES.div_ceil(3) * 4);
        match STANDARD.encode_slice(random.expose(), &mut text.0) {
            Ok(_) => Ok(text),
            Err(_) => unreachable!("the buffer has the size that base64 has"),
        }
    }

    /// Reads a secret from a file that only its owner can read. Removes the newline at the end.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or other users can read it.
    pub fn load(path: &Path, modes: Modes) -> Result<Secret, KeysError> {
        let content = file::read_private(path, modes)?;
        let text = content.expose();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        Ok(Secret::copied(text.strip_suffix(b"\r").unwrap_or(text)))
    }

    /// Writes the secret and a newline to a file that only its owner can access. With `replace` it overwrites an existing
    /// file.
    ///
    /// # Errors
    /// The file exists already, or cannot be written.
    pub fn create(&self, path: &Path, replace: bool) -> Result<(), KeysError> {
        let line = Secret([self.expose(), b"\n"].concat().into());
        file::create(path, line.expose(), replace)
    }

    /// Returns the bytes. The caller is responsible for its copies.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Takes bytes over. Their buffer is overwritten on drop, as far as it is in use.
impl From<Vec<u8>> for Secret {
    fn from(mut bytes: Vec<u8>) -> Secret {
        let secret = Secret::copied(&bytes);
        bytes.fill(0);
        hint::black_box(&mut bytes);
        secret
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without this use the compiler may remove the writes.
        hint::black_box(&mut self.0);
    }
}

/// Writes neither the bytes nor their number.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretError::Short => write!(f, "expected a secret of at least {SECRET_BYTES_MIN} bytes"),
            SecretError::Random => f.write_str("the system has no random bytes"),
        }
    }
}

impl std::error::Error for SecretError {}

const RANDOM_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::copied(b"precious");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(..) Some(Secret(..))");
    }

    #[test]
    fn a_new_secret_is_32_random_bytes_as_text() {
        let (one, two) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(STANDARD.decode(one.expose()).unwrap().len(), 32);
    }

    #[test]
    fn a_secret_is_loaded_without_its_newline() {
        let scratch = Scratch::new();
        let path = scratch.path("secret");
        Secret::copied(b"open sesame").create(&path, false).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"open sesame\n");
        assert_eq!(Secret::load(&path, Modes::Strict).unwrap().expose(), b"open sesame");
        for (content, secret) in [("a b \n", "a b "), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a"), ("", "")] {
            scratch.write("other", content, 0o600);
            assert_eq!(
                Secret::load(&scratch.path("other"), Modes::Strict).unwrap().expose(),
                secret.as_bytes(),
                "{content:?}"
            );
        }
        scratch.write("open", "secret\n", 0o640);
        let error = Secret::load(&scratch.path("open"), Modes::Strict).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
