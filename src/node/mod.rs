//! A node: the control of links, beside the core of a loop.
//!
//! [`crate::link`] is the session between two nodes, without sockets. A *carrier* is the transport connection of a subflow:
//! TCP or multipath TCP with TLS (`transport`). Its socket is a side that belongs to no connection. A stream is a side without
//! a socket; the relay reads from the session and writes to it (`streams`). A link that this node dials has a dialer, with a
//! slot for each of its subflows. A peer that dials this node is unauthenticated until its TLS handshake is done, and its
//! HELLO tells which session it belongs to.
//!
//! ```text
//!   socket -> carrier: TLS -> session: frames -> stream -> relay -> socket
//!   socket <- carrier: TLS <- session: frames <- stream <- relay <- socket
//! ```
//! # A turn
//! Events run carriers (read, decrypt, [`Session::receive`](crate::link::Session::receive)) and sides. Each call that gives a
//! link work queues the link. `drive` then delivers the events of its session to sides, and its frames to carriers. Sides
//! that were woken run in the same turn, and their output is sent at its end.
//!
//! # Reading order
//! `config` the configuration of a node · `control` the state of a node, and what the event loop calls · `verbs` what callers
//! of a loop can do with links, `link_mut` with one of them · `start` loops with a node · `link` one link · `carrier` the
//! connections of subflows · `window` the bytes in flight on a carrier · `dialer` dialing carriers · `fresh` those beside silent ones · `server` the places
//! where links are accepted · `udp_port` their ports of UDP that are in use · `accept` accepting carriers · `unauthenticated` the
//! places of peers without a key · `handshakes` the order of their handshakes · `proof` joining a subflow to its session · `crossed` links that both nodes dial · `invited` peers
//! with an invitation · `counted` sessions that are counted before they begin · `nested` links over streams of other
//! links ·
//! `turn` the share of each key in a turn · `drive` events, frames and deadlines of the session · `open` opening and
//! accepting streams · `waiting` dests that wait for a link · `handover` a node that is about to stop · `opened_stream`
//! handlers of streams that the peer opened · `ends` streams to named ends: Unix sockets, files and commands · `service` streams to this node itself · `group` links to several servers, `group_plan` which of them are dialed, `balance` the choice among them · `forward` the forwards of links · `reverse` listeners at the other end, `shared_listener` those that several peers serve · `memory` the budget that links share ·
//! `observed_address` the address at which the peer sees this node · `network` changes of this host's addresses ·
//! `rate_limit` bytes per second of a key · `guarded` policies whose panics are caught · `status`, `link_event`, `link_events` what is reported.
//!
//! # Invariants
//! * An unauthenticated peer costs one carrier, has a deadline, and sees no frame before its key was admitted.
//! * A stream of a session that ends is reset, never finished, unless all of it has arrived.
//! * No byte is read from a local socket without room in the session.

mod accept;
mod auto;
mod balance;
mod carrier;
mod config;
mod control;
mod counted;
mod crossed;
mod datagrams;
mod dialer;
mod drive;
mod ends;
mod forward;
mod fresh;
mod group;
mod group_plan;
mod guarded;
mod handover;
mod handshakes;
mod invited;
mod link;
mod link_event;
mod link_events;
mod link_mut;
mod memory;
mod nested;
mod network;
mod observed_address;
mod open;
mod opened_stream;
mod proof;
mod rate_limit;
mod reverse;
mod rivals;
mod server;
mod service;
mod shared_listener;
mod start;
mod status;
mod turn;
mod udp_port;
mod unauthenticated;
mod verbs;
mod waiting;

use ring::rand::{SecureRandom, SystemRandom};

pub use crate::streams::LINKS_MAX;
pub use crate::transport::{CARRIERS, CarrierKind, CarrierRow, Congestion, PathFigures};
pub use config::{
    Cipher, Group, Identity, LinkConfig, LinkEvent, OnDatagrams, OnLinkEvent, OnStream, Path, PeerKey, Policy, Preface,
    Request, Reverse, SameKey, ServeConfig, Timing, Verdict,
};
pub use counted::SessionReply;
pub use ends::{ENDS_MAX, wait_for_ends};
pub use forward::{Direction, ForwardConfig, ForwardMut, ForwardStatus, Service};
pub use group::{GroupConfig, GroupMut, GroupStatus, LinkServer, MEMBERS_MAX, MakeMember};
pub use invited::{Claim, ClaimReply};
pub use link_mut::LinkMut;
pub use nested::Over;
pub use network::NetworkChanges;
pub use server::{LinksOfServer, ServerMut, ServerStatus};
pub use service::{OnService, ServicePeer};
pub use status::{LinkListenerStatus, LinkStatus, MissingStatus, StreamStatus, SubflowState, SubflowStatus};
pub use verbs::Dialed;
pub(crate) use verbs::setup;

/// Returns random bytes of the system.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // This fails only on a system without a source of random bytes, on which nothing else works either.
    SystemRandom::new().fill(&mut bytes).expect("the system's source of random bytes");
    bytes
}
