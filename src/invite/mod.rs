//! Joining two nodes by an invitation: the frames between them, and the joining node's part.
//!
//! The line, the proofs and the file of invitations are in [`auth`](crate::auth); the inviting node's part is in `node`, which
//! hears strangers under its limits for unauthenticated peers.
//!
//! ```text
//!   joining node                                          inviting node
//!   reads the line, dials an address
//!   ------------------- TLS 1.3, ALPN seaprox-invite/1 ------------------->  any key, while an invitation is pending
//!   compares the fingerprint of the server's key
//!   ------------------- claim: id, proof of the joiner ------------------->  looks the id up, checks the proof,
//!                                                                            spends the invitation, writes the key
//!   <------------------ answer: outcome, proof of the inviter -------------  and closes
//!   checks the proof, writes the key of the node
//! ```
//! A peer whose claim is not proven is closed without an answer. The docs of links have the threat model.

pub(crate) mod frame;
mod join;

pub use frame::{Answer, CLAIM_BYTES_MAX, ClaimFrame, FrameError, FrameReader};
pub use join::{JoinError, Joined, join};
