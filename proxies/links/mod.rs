//! The policies of links, from files of keys: which peers may dial this node and what they may do, and which key the peer
//! must have that this node dials. Also the grammar of the addresses of links, and the file of paths.
//!
//! Loops ask a policy and never wait for a file: they see the content that was read last.

pub mod addresses;
mod authorized_peers;
mod clerk;
mod dialed_peer;
mod invited_peers;
mod path_file;
mod rejected_keys;
#[cfg(test)]
pub(crate) mod scratch;

use seaprox::auth::PublicKey;
use seaprox::node::PeerKey;

pub use authorized_peers::AuthorizedPeers;
pub use dialed_peer::{DialedPeer, KeyCheck};
pub use path_file::{FileChange, PathFile};

/// Returns the fingerprint of a key that a peer has shown.
pub fn fingerprint(key: &PeerKey) -> String {
    PublicKey::from_bytes(*key).map_or_else(|_| "a weak key".to_owned(), |key| key.fingerprint())
}
