//! Bytes that nobody else may see, and the secret that two nodes of one person share.
//!
//! A [`Secret`] is never printed and is overwritten when it is let go. That is done without unsafe code, so it is what the
//! compiler can be asked for and no more: what the cryptographic library leaves on the stack is out of its reach.
//!
//! A shared secret is 32 random bytes as base64 text, in a file for its owner alone. What is hashed is the text, without
//! the newline at its end, so that any other text of enough bytes will do.

use std::fmt;
use std::hint;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom, SystemRandom};

use super::error::KeysError;
use super::file;
use super::modes::Modes;

/// A shared secret of fewer bytes is refused unless it is asked for: whoever meets the link on its way can try out
/// secrets at home.
pub const SECRET_BYTES_MIN: usize = 16;

/// Bytes that are never printed, and overwritten when they are let go.
pub struct Secret(Box<[u8]>);

/// Why there is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretError {
    /// It has fewer bytes than [`SECRET_BYTES_MIN`], or none.
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

    /// So many random bytes.
    pub(super) fn random(bytes: usize) -> Result<Secret, SecretError> {
        let mut secret = Secret::zeroed(bytes);
        SystemRandom::new().fill(&mut secret.0).map_err(|_| SecretError::Random)?;
        Ok(secret)
    }

    /// A new secret to share: 32 random bytes as base64.
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

    /// Reads a secret from a file that only its owner can read, without the newline at its end.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or can be read by others.
    pub fn load(path: &Path, modes: Modes) -> Result<Secret, KeysError> {
        let content = file::read_private(path, modes)?;
        let text = content.expose();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        Ok(Secret::copied(text.strip_suffix(b"\r").unwrap_or(text)))
    }

    /// Writes the secret to a file for its owner alone, with a newline. `replace` permits that there is one already.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub fn create(&self, path: &Path, replace: bool) -> Result<(), KeysError> {
        let line = Secret([self.expose(), b"\n"].concat().into());
        file::create(path, line.expose(), replace)
    }

    /// The bytes. Whoever takes a copy has to see to it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Without it the compiler may leave out what nobody looks at.
        hint::black_box(&mut self.0);
    }
}

/// Not even its length.
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
    fn secrets_are_not_printed() {
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
    fn a_file_gives_back_the_secret_without_its_newline() {
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
