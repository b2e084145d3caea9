//! Keys of nodes: private keys as 32 bytes that the caller keeps, and the forms of public keys.

use std::path::Path;

use seaprox::auth::{Modes, NodeKey, PublicKey};
use seaprox::node::{Identity, PeerKey};

use crate::error::Error;
use crate::memory::{Buffer, Bytes, Chars, Out};

/// The bytes of a key, private or public.
pub type Key = [u8; KEY_BYTES];

/// The length of a key.
pub const KEY_BYTES: usize = 32;

export! {
    fn seaprox_key_new(key: Out<Key>) {
        let new = NodeKey::generate().map_err(|error| Error::invalid(error.to_string()))?;
        key.set(Identity::new(&new).seed);
        Ok(0)
    }

    fn seaprox_key_load(path: Chars, len: usize, key: Out<Key>) {
        let path = path.some(len)?.ok_or_else(|| Error::invalid("a file is expected"))?;
        let (loaded, _) = NodeKey::load_or_create(Path::new(path), Modes::default()).map_err(Error::config)?;
        key.set(Identity::new(&loaded).seed);
        Ok(0)
    }

    fn seaprox_key_derive(secret: Bytes, len: usize, key: Out<Key>) {
        let derived = NodeKey::from_secret(secret.of(len)?).map_err(|error| Error::invalid(error.to_string()))?;
        key.set(Identity::new(&derived).seed);
        Ok(0)
    }

    fn seaprox_key_public(key: Bytes, public_key: Out<Key>) {
        public_key.set(*NodeKey::from_bytes(&key_of(key)?).public().as_bytes());
        Ok(0)
    }

    fn seaprox_key_parse(text: Chars, len: usize, public_key: Out<Key>) {
        let key: PublicKey = text.of(len)?.parse().map_err(|error| Error::invalid(format!("{error}")))?;
        public_key.set(*key.as_bytes());
        Ok(0)
    }

    fn seaprox_key_text(public_key: Bytes, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        buf.fill(cap, len, public(public_key)?.to_string().as_bytes());
        Ok(0)
    }

    fn seaprox_key_fingerprint(public_key: Bytes, buf: Buffer, cap: usize, len: Out<usize>) {
        len.set(0);
        buf.fill(cap, len, public(public_key)?.fingerprint().as_bytes());
        Ok(0)
    }
}

/// Reads a key.
pub fn key_of(key: Bytes) -> Result<Key, Error> {
    let bytes = key.of(KEY_BYTES)?;
    bytes.try_into().map_err(|_| Error::invalid("a key has 32 bytes"))
}

/// Returns the short form of a key for logs.
pub fn brief(key: &PeerKey) -> String {
    let text = PublicKey::from_bytes(*key).map_or_else(|_| "a weak key".to_owned(), |key| key.fingerprint());
    text.chars().take(BRIEF_CHARS).collect()
}

fn public(key: Bytes) -> Result<PublicKey, Error> {
    PublicKey::from_bytes(key_of(key)?).map_err(|error| Error::invalid(error.to_string()))
}

/// `SHA256:` and eight characters.
const BRIEF_CHARS: usize = 15;
