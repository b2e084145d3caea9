//! One stream: its two sides, how its opening stands, and which control frames about it wait.
//!
//! ```text
//! opened here:   Asked ---OPEN_RESULT ok---> Running          Asked ---OPEN_RESULT no---> Refused
//! opened there:  Implied --OPEN--> Offered --accept--> Running       Offered --refuse--> Refused
//! ```
//!
//! Implied: frames take different subflows, so that data, or the OPEN of a later stream, can come before a stream's own
//! OPEN (see `opening`). Such early data is held, bounded by the first credit. The two sides end on their own. A stream is
//! gone when both sides are over and the peer has acknowledged the frames of its opening.

use super::control::Key;
use super::credit::Window;
use super::datagram::Datagrams;
use super::frame::Frame;
use super::ids::{StreamId, SubflowId};
use super::mix::Pace;
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

/// What an end says about the opening.
#[derive(Debug)]
pub(super) enum Owed {
    Open(Open),
    Result(Bound),
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) mine: bool,
    pub(super) stage: Stage,
    /// What this end owes for the opening, until the peer has it; nothing before it is known.
    pub(super) owed: Option<Box<Owed>>,
    /// Whether the peer has it.
    pub(super) opening_acked: bool,
    /// The subflows on which the OPEN of a stream of this end's was sent, and may arrive.
    pub(super) open_on: [Option<SubflowId>; 2],
    /// The share of this stream under contention, as OPEN says.
    pub(super) weight: u8,
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
    /// The recent volume, sent and received.
    pub(super) paces: [Pace; 2],
    /// For [`Kind::Udp`].
    pub(super) datagrams: Option<Box<Datagrams>>,
}

impl Stream {
    /// A stream that this end opens.
    pub(super) fn asked(id: StreamId, open: Open, credit: u64, window: Window) -> Stream {
        let datagrams = (open.kind == Kind::Udp).then(Box::default);
        let weight = open.weight;
        let owed = Some(Box::new(Owed::Open(open)));
        Stream { mine: true, stage: Stage::Asked, owed, weight, datagrams, ..Stream::implied(id, credit, window) }
    }

    /// A stream of the peer's of which nothing is known but that it exists.
    pub(super) fn implied(id: StreamId, credit: u64, window: Window) -> Stream {
        Stream {
            id,
            mine: false,
            stage: Stage::Implied,
            owed: None,
            opening_acked: false,
            open_on: [None; 2],
            weight: 0,
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
            paces: Default::default(),
            datagrams: None,
        }
    }

    /// The peer has what this end owed it for the opening, which is not needed any more.
    pub(super) fn on_opening_acked(&mut self) {
        self.opening_acked = true;
        self.owed = None;
    }

    /// The frame with what this end owes the peer for the opening.
    pub(super) fn opening_frame(&self) -> Option<Frame<'static>> {
        let id = self.id.0;
        Some(match self.owed.as_deref()? {
            Owed::Open(open) => Frame::Open { id, open: open.clone() },
            Owed::Result(result) => Frame::OpenResult { id, result: result.clone() },
        })
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
            Key::OpenResult(_) => !self.mine && self.owed.is_some(),
            Key::Reset(_) => self.send.reset_frame().is_some() && !self.send.is_over(),
            Key::Stop(_) => self.recv.stopped().is_some(),
            Key::Credit(_) => self.recv.wants_credit(),
            Key::Blocked(_) => self.send.is_blocked() || self.held_back,
            _ => false,
        }
    }
}
