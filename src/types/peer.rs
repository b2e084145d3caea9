//! Peers of links: the key of a node, and the name of its record in the accounts of a loop.

/// The public key of a peer: the 32 bytes of an ed25519 key (RFC 8032).
pub type PeerKey = [u8; 32];

/// Names the record of a key that has connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerId(pub u32);
