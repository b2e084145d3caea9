//! The status of links, as plain data.

use std::time::Duration;

use crate::id::Id;

/// One link.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Its id.
    pub id: Id,
    /// Where it was dialled to, or where its peer came from.
    pub peer: String,
    /// What the policy calls the peer.
    pub name: String,
    /// The peer's key, once it is known.
    pub key: Option<[u8; 32]>,
    /// Whether this node dialled it.
    pub dialled: bool,
    /// `connecting`, `up`, `parted` or `ended`.
    pub state: &'static str,
    /// How long it has been there.
    pub age: Duration,
    /// The cipher of its first subflow.
    pub cipher: Option<&'static str>,
    /// Its subflows.
    pub subflows: Vec<SubflowStatus>,
    /// Streams that live.
    pub streams: usize,
    /// Bytes of payload sent, and received.
    pub bytes: (u64, u64),
    /// Bytes of payload that were sent again.
    pub resent_bytes: u64,
    /// Times that it had lost all subflows and went on.
    pub resumes: u64,
    /// Places where the peer listens for us, and where we listen for it.
    pub listeners: Vec<ListenerStatus>,
}

/// One subflow.
#[derive(Clone, Debug)]
pub struct SubflowStatus {
    /// Its number in the session.
    pub number: Option<u16>,
    /// Our end, and the peer's.
    pub local: String,
    /// The peer's end.
    pub remote: String,
    /// `connecting`, `securing`, `greeting`, `live` or `suspect`.
    pub state: &'static str,
    /// Round trip.
    pub rtt: Duration,
    /// Bytes per second that it is reckoned to carry.
    pub rate: u64,
    /// Bytes on the wire, TLS included: sent, and received.
    pub bytes: (u64, u64),
}

/// One listener that belongs to a link.
#[derive(Clone, Debug)]
pub struct ListenerStatus {
    /// Where it listens.
    pub place: String,
    /// Where its clients go.
    pub to: String,
    /// Whether the peer listens for us; otherwise we for it.
    pub remote: bool,
    /// The port, once it is bound.
    pub port: Option<u16>,
    /// Why it does not listen.
    pub failure: Option<String>,
}
