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
        key.give(NodeKey::generate().map(seed).map_err(|error| Error::invalid(error.to_string())))
    }

    fn seaprox_key_load(path: Chars, len: usize, key: Out<Key>) {
        key.give(path.some(len).and_then(|path| {
            let path = path.ok_or_else(|| Error::invalid("a file is expected"))?;
            NodeKey::load_or_create(Path::new(path), Modes::default()).map(|(key, _)| seed(key)).map_err(Error::config)
        }))
    }

    fn seaprox_key_derive(secret: Bytes, len: usize, key: Out<Key>) {
        let derive = |secret: &[u8]| NodeKey::from_secret(secret).map_err(|error| Error::invalid(error.to_string()));
        key.give(secret.of(len).and_then(derive).map(seed))
    }

    fn seaprox_key_public(key: Bytes, public_key: Out<Key>) {
        public_key.give(key_of(key).map(|key| *NodeKey::from_bytes(&key).public().as_bytes()))
    }

    fn seaprox_key_parse(text: Chars, len: usize, public_key: Out<Key>) {
        let parse = |text: &str| text.parse::<PublicKey>().map_err(|error| Error::invalid(format!("{error}")));
        public_key.give(text.of(len).and_then(parse).map(|key| *key.as_bytes()))
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

fn seed(key: NodeKey) -> Key {
    Identity::new(&key).seed
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
