//! A node: links in the loop.
//!
//! [`crate::link`] is the session between two nodes, without sockets; this is what stands around it. A *carrier* is one
//! TCP connection with TLS that carries a subflow; its socket is a side that belongs to no connection. A stream is a side
//! without a socket; the relay reads from the session and writes to it. A link that we dial has a *plan* of the subflows
//! that it wants; those who dial us are *visitors* until their HELLO says which session they belong to.
//!
//! ```text
//!   socket -> carrier: TLS -> session: frames -> stream -> relay -> socket
//!   socket <- carrier: TLS <- session: frames <- stream <- relay <- socket
//! ```
//! # What happens in a turn
//! Events run carriers (read, decrypt, [`Session::receive`](crate::link::Session::receive)) and sides. What touched a link
//! has queued it; `drive` then takes the session's events to the sides and its frames to the carriers, the sides that were
//! woken are run in the same turn, and at its end what that gave the sessions to say is written.
//!
//! # Reading order
//! `config` the configuration of a node · `links` the node state of a loop · `link` one link · `carrier` the TCP connections
//! of a link · `window` the bytes in flight on a carrier · `plan` dialling carriers · `greet` accepting carriers ·
//! `unauthenticated` the places of peers without a key · `handshakes` the order of their handshakes · `proof` joining a
//! subflow to its session · `turn` the share of each key in a turn · `drive` events, frames and deadlines of the session ·
//! `stream` a stream as a side · `rest` undelivered data of an ended session · `open` opening and ending streams ·
//! `handover` a node that is about to stop · `front` handlers of streams that the peer opened · `reverse` listeners at the
//! other end · `memory` the budget that links share · `whereabouts` the address at which the peer sees this node · `network`
//! this host's own addresses · `chunks` buffers · `bucket` rates · `quiet` log limits · `peers` the resources that each key
//! uses · `status`.
//!
//! # What holds
//! * A visitor costs one carrier, has a deadline, and sees no frame before its key was admitted.
//! * A stream that its link takes along is reset, never finished; unless all of it has arrived.
//! * Nothing is read from a local socket that the session has no room for.

mod accept;
mod carrier;
mod config;
mod control;
mod dialer;
mod drive;
mod front;
mod handover;
mod handshakes;
mod link;
mod link_event;
mod memory;
mod network;
mod observed_address;
mod open;
mod proof;
mod rate_limit;
mod reverse;
mod start;
mod status;
mod turn;
mod unauthenticated;
mod verbs;
mod waiting;
mod window;

use ring::rand::{SecureRandom, SystemRandom};

pub use config::{
    Cipher, Identity, LinkConfig, LinkEvent, OnLinkEvent, OnStream, Path, PeerKey, Policy, Request, Reverse, SameKey,
    ServeConfig, Timing, Verdict,
};
pub use network::NetworkChanges;
pub use status::{LinkStatus, ListenerStatus, MissingStatus, SubflowStatus};

/// Random bytes of the system.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // It fails only where the system has no source of them, and then nothing else works either.
    SystemRandom::new().fill(&mut bytes).expect("the system's source of random bytes");
    bytes
}
