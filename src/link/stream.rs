//! One stream: its two sides, how its opening stands, and which control frames about it wait.
//!
//! ```text
//! opened here:   Asked ---OPEN_RESULT ok---> Running          Asked ---OPEN_RESULT no---> Refused
//! opened there:  Implied --OPEN--> Offered --accept--> Running       Offered --refuse--> Refused
//! ```
//!
//! Implied: frames take different subflows, so that data, or the OPEN of a later stream, can come before a stream's own
//! OPEN. What has come waits within the first credit. The two sides end on their own; a stream is gone when both are
//! over and the peer is known to have what concerns its opening.

use super::control::Key;
use super::credit::Window;
use super::datagram::Datagrams;
use super::ids::StreamId;
use super::open::{Bound, Kind, Open};
use super::recv::RecvStream;
use super::send::SendStream;

/// How the opening stands: see the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Asked,
    Implied,
    Offered,
    Running,
    Refused,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) mine: bool,
    pub(super) stage: Stage,
    /// What OPEN says, until the peer has it; for a peer's stream, until the application has been told.
    pub(super) open: Open,
    /// What OPEN_RESULT says, once it is known.
    pub(super) result: Option<Bound>,
    /// Whether the peer has the frame that this end owes for the opening: OPEN or OPEN_RESULT.
    pub(super) opening_acked: bool,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    /// One bit for each kind of control frame about this stream that is queued.
    pub(super) queued: u8,
    /// Whether the session has this stream in its list of streams with pieces to send again.
    pub(super) in_repair: bool,
    /// Whether the application knows that there are bytes to take.
    pub(super) readable_told: bool,
    /// Whether the application was refused a write and is to be told when there is room.
    pub(super) wants_room: bool,
    /// Whether the session has this stream in its list of those.
    pub(super) in_starved: bool,
    /// Whether the session has this stream in its list of those that wait for its credit.
    pub(super) in_waiting: bool,
    /// The credit at which BLOCKED was last said.
    pub(super) blocked_told: Option<u64>,
    /// Whether bytes wait although the stream has credit, because it has its share of the session's.
    pub(super) held_back: bool,
    /// For [`Kind::Udp`].
    pub(super) datagrams: Option<Box<Datagrams>>,
}

impl Stream {
    /// A stream that this end opens.
    pub(super) fn asked(id: StreamId, open: Open, credit: u64, window: Window) -> Stream {
        let datagrams = (open.kind == Kind::Udp).then(Box::default);
        Stream { mine: true, stage: Stage::Asked, open, datagrams, ..Stream::implied(id, credit, window) }
    }

    /// A stream of the peer's of which nothing is known but that it exists.
    pub(super) fn implied(id: StreamId, credit: u64, window: Window) -> Stream {
        Stream {
            id,
            mine: false,
            stage: Stage::Implied,
            open: Open::default(),
            result: None,
            opening_acked: false,
            send: SendStream::new(credit),
            recv: RecvStream::new(window),
            queued: 0,
            in_repair: false,
            readable_told: false,
            wants_room: false,
            in_starved: false,
            in_waiting: false,
            blocked_told: None,
            held_back: false,
            datagrams: None,
        }
    }

    /// Whether the scheduler has anything to take from it, repairs aside.
    pub(super) fn has_new(&self) -> bool {
        self.send.has_new() || self.datagrams.as_ref().is_some_and(|datagrams| datagrams.has_outgoing())
    }

    /// Bytes that wait for nothing but their turn.
    pub(super) fn backlog(&self) -> u64 {
        if self.held_back { 0 } else { self.send.sendable() }
    }

    /// Whether what is written now can only wait.
    pub(super) fn stands_still(&self) -> bool {
        self.held_back || self.send.credit() <= self.send.next()
    }

    /// Whether nothing more can happen to it.
    pub(super) fn is_gone(&self) -> bool {
        let settled = matches!(self.stage, Stage::Running | Stage::Refused);
        settled && self.opening_acked && self.send.is_over() && self.recv.is_over()
    }

    /// Whether one side is not over, so that the loss of the session would be a loss of bytes.
    pub(super) fn is_live(&self) -> bool {
        !(self.send.is_over() && self.recv.is_over())
    }

    /// Whether all of it has arrived at its ends, though not everything has been taken from it here. A peer that ends its
    /// session in order has taken what was sent to it, even if its acknowledgement is missing.
    pub(super) fn has_arrived(&self, peer_is_content: bool) -> bool {
        let sent = self.send.is_over() || (peer_is_content && self.send.has_sent_all());
        let is_cut = self.send.reset_frame().is_some() || self.datagrams.is_some();
        self.is_live() && self.stage == Stage::Running && sent && !is_cut && self.recv.has_arrived()
    }

    /// Whether a control frame about it still has a point.
    pub(super) fn still_wants(&self, key: Key) -> bool {
        match key {
            Key::Open(_) => self.mine && !self.opening_acked,
            Key::OpenResult(_) => !self.mine && !self.opening_acked && self.result.is_some(),
            Key::Reset(_) => self.send.reset_frame().is_some() && !self.send.is_over(),
            Key::Stop(_) => self.recv.stopped().is_some(),
            Key::Credit(_) => self.recv.wants_credit(),
            Key::Blocked(_) => self.send.is_blocked() || self.held_back,
            _ => false,
        }
    }
}
