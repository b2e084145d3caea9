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

use super::credit::Window;
use super::datagram::Datagrams;
use super::mix::Pace;
use super::recv::RecvStream;
use super::send::SendStream;
use crate::link::wire::content::Key;
use crate::link::wire::frame::Frame;
use crate::link::wire::ids::{StreamId, SubflowId};
use crate::link::wire::open::{Bound, Open};

/// How the opening stands: see the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum StreamState {
    Requested,
    Implicit,
    Offered,
    Accepted,
    Refused,
}

/// What an end says about the opening.
#[derive(Debug)]
pub(in crate::link) enum PendingReply {
    Open(Open),
    Result(Bound),
}

/// See the module's head.
#[derive(Debug)]
pub(in crate::link) struct Stream {
    pub(in crate::link) id: StreamId,
    pub(in crate::link) is_local: bool,
    pub(in crate::link) state: StreamState,
    /// What this end owes for the opening, until the peer has it; nothing before it is known.
    pub(in crate::link) pending_reply: Option<Box<PendingReply>>,
    /// Whether the peer has it.
    pub(in crate::link) opening_acked: bool,
    /// The subflows on which the OPEN of a stream of this end's was sent, and may arrive.
    pub(in crate::link) open_on: [Option<SubflowId>; 2],
    /// The share of this stream under contention, as OPEN says.
    pub(in crate::link) weight: u8,
    pub(in crate::link) send: SendStream,
    pub(in crate::link) recv: RecvStream,
    /// One bit for each kind of control frame about this stream that is queued.
    pub(in crate::link) queued: u8,
    /// Whether the session has this stream in its list of streams with pieces to send again.
    pub(in crate::link) in_retransmit: bool,
    /// Whether the application knows that there are bytes to take.
    pub(in crate::link) readable_reported: bool,
    /// Whether the application was refused a write and is to be told when there is room.
    pub(in crate::link) write_refused: bool,
    /// Whether the session has this stream in its list of those.
    pub(in crate::link) in_refused_writers: bool,
    /// Whether the session has this stream in its list of those that wait for its credit.
    pub(in crate::link) in_waiting_for_credit: bool,
    /// The credit at which BLOCKED was last said.
    pub(in crate::link) blocked_reported: Option<u64>,
    /// Whether bytes wait although the stream has credit, because it has its share of the session's.
    pub(in crate::link) waits_for_quota: bool,
    /// The recent volume, sent and received.
    pub(in crate::link) paces: [Pace; 2],
    /// For `Kind::Udp`.
    pub(in crate::link) datagrams: Option<Box<Datagrams>>,
}

impl Stream {
    /// A stream that this end opens.
    pub(in crate::link) fn requested(id: StreamId, open: Open, credit: u64, window: Window) -> Stream {
        let datagrams = open.kind.has_datagrams().then(Box::default);
        let weight = open.weight;
        let pending_reply = Some(Box::new(PendingReply::Open(open)));
        Stream {
            is_local: true,
            state: StreamState::Requested,
            pending_reply,
            weight,
            datagrams,
            ..Stream::implicit(id, credit, window)
        }
    }

    /// A stream of the peer's of which nothing is known but that it exists.
    pub(in crate::link) fn implicit(id: StreamId, credit: u64, window: Window) -> Stream {
        Stream {
            id,
            is_local: false,
            state: StreamState::Implicit,
            pending_reply: None,
            opening_acked: false,
            open_on: [None; 2],
            weight: 0,
            send: SendStream::new(credit),
            recv: RecvStream::new(window),
            queued: 0,
            in_retransmit: false,
            readable_reported: false,
            write_refused: false,
            in_refused_writers: false,
            in_waiting_for_credit: false,
            blocked_reported: None,
            waits_for_quota: false,
            paces: Default::default(),
            datagrams: None,
        }
    }

    /// The peer has what this end owed it for the opening, which is not needed any more.
    pub(in crate::link) fn on_opening_acked(&mut self) {
        self.opening_acked = true;
        self.pending_reply = None;
    }

    /// The frame with what this end owes the peer for the opening.
    pub(in crate::link) fn opening_frame(&self) -> Option<Frame<'static>> {
        let id = self.id.0;
        Some(match self.pending_reply.as_deref()? {
            PendingReply::Open(open) => Frame::Open { id, open: open.clone() },
            PendingReply::Result(result) => Frame::OpenResult { id, result: result.clone() },
        })
    }

    /// Whether the scheduler has anything to take from it, repairs aside.
    pub(in crate::link) fn has_new(&self) -> bool {
        self.send.has_new() || self.datagrams.as_ref().is_some_and(|datagrams| datagrams.has_outgoing())
    }

    /// Bytes that wait for nothing but their turn.
    pub(in crate::link) fn backlog(&self) -> u64 {
        if self.waits_for_quota { 0 } else { self.send.sendable() }
    }

    /// Whether what is written now can only wait.
    pub(in crate::link) fn cannot_send(&self) -> bool {
        self.waits_for_quota || self.send.credit() <= self.send.next()
    }

    /// Whether nothing more can happen to it.
    pub(in crate::link) fn is_gone(&self) -> bool {
        let settled = matches!(self.state, StreamState::Accepted | StreamState::Refused);
        settled && self.opening_acked && self.send.is_over() && self.recv.is_over()
    }

    /// Whether one side is not over, so that the loss of the session would be a loss of bytes.
    pub(in crate::link) fn is_live(&self) -> bool {
        !(self.send.is_over() && self.recv.is_over())
    }

    /// Whether all of it has arrived at its ends, though not everything has been taken from it here. A peer that ends its
    /// session in order has taken what was sent to it, even if its acknowledgement is missing.
    pub(in crate::link) fn has_arrived(&self, peer_has_all: bool) -> bool {
        let sent = self.send.is_over() || (peer_has_all && self.send.has_sent_all());
        let is_cut = self.send.reset_frame().is_some() || self.datagrams.is_some();
        self.is_live() && self.state == StreamState::Accepted && sent && !is_cut && self.recv.has_arrived()
    }

    /// Whether a control frame about it still has a point.
    pub(in crate::link) fn still_wants(&self, key: Key) -> bool {
        match key {
            Key::Open(_) => self.is_local && !self.opening_acked,
            Key::OpenResult(_) => !self.is_local && self.pending_reply.is_some(),
            Key::Reset(_) => self.send.reset_frame().is_some() && !self.send.is_over(),
            Key::Stop(_) => self.recv.stopped().is_some(),
            Key::Credit(_) => self.recv.wants_credit(),
            Key::Blocked(_) => self.send.is_blocked() || self.waits_for_quota,
            _ => false,
        }
    }
}
