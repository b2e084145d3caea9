//! One stream: its two halves, the state of its opening, and its queued control frames.
//!
//! ```text
//! opened here:   Requested ---OPEN_RESULT ok---> Accepted      Requested ---OPEN_RESULT failed---> Refused
//! opened there:  Implicit --OPEN--> Offered --accept--> Accepted       Offered --refuse--> Refused
//! ```
//!
//! Frames take different subflows, so data can arrive before the OPEN of its stream: the stream is Implicit until then
//! (see `opening`). Its data is held, limited by the initial credit. The two halves end independently. A stream is
//! removed once both halves are over and the peer has acknowledged the frames of its opening.

use super::credit::Window;
use super::datagram::Datagrams;
use super::mix::Pace;
use super::recv::RecvStream;
use super::send::SendStream;
use crate::link::wire::content::Key;
use crate::link::wire::frame::Frame;
use crate::link::wire::ids::{StreamId, SubflowId};
use crate::link::wire::open::{Bound, Open};

/// The state of a stream's opening: see the diagram of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum StreamState {
    Requested,
    Implicit,
    Offered,
    Accepted,
    Refused,
}

/// The frame of the opening that this end sends.
#[derive(Debug)]
pub(in crate::link) enum PendingReply {
    Open(Open),
    Result(Bound),
}

/// One stream of a session.
#[derive(Debug)]
pub(in crate::link) struct Stream {
    pub(in crate::link) id: StreamId,
    pub(in crate::link) is_local: bool,
    pub(in crate::link) state: StreamState,
    /// The OPEN or OPEN_RESULT that this end sends, until the peer has acknowledged it.
    pub(in crate::link) pending_reply: Option<Box<PendingReply>>,
    /// True if the peer has acknowledged it.
    pub(in crate::link) opening_acked: bool,
    /// The subflows on which the OPEN of a local stream is in flight.
    pub(in crate::link) open_on: [Option<SubflowId>; 2],
    /// Weight in scheduling, from OPEN.
    pub(in crate::link) weight: u8,
    pub(in crate::link) send: SendStream,
    pub(in crate::link) recv: RecvStream,
    /// One bit for each kind of queued control frame about this stream.
    pub(in crate::link) queued: u8,
    /// True if the stream is in the session's retransmit list.
    pub(in crate::link) in_retransmit: bool,
    /// True if the application was told that there are bytes to take.
    pub(in crate::link) readable_reported: bool,
    /// True if a write was refused and the application is to be told when there is room.
    pub(in crate::link) write_refused: bool,
    /// True if the stream is in the session's list of refused writers.
    pub(in crate::link) in_refused_writers: bool,
    /// True if the stream is in the session's list of streams that wait for session credit.
    pub(in crate::link) in_waiting_for_credit: bool,
    /// The credit at which BLOCKED was last queued, or [`NEVER_BLOCKED`].
    pub(in crate::link) blocked_reported: u64,
    /// True if bytes wait although the stream has credit, because it has used its quota of the session's credit.
    pub(in crate::link) waits_for_quota: bool,
    /// The recent volume, sent and received.
    pub(in crate::link) paces: [Pace; 2],
    /// The datagrams of a stream of `Kind::Udp`.
    pub(in crate::link) datagrams: Option<Box<Datagrams>>,
}

// Each idle stream has this record at both ends. A field that few streams use stands behind a pointer.
#[cfg(all(test, target_pointer_width = "64"))]
const _: () = assert!(size_of::<Stream>() <= 320);

/// The value of [`Stream::blocked_reported`] before the first BLOCKED. No credit is as high.
const NEVER_BLOCKED: u64 = u64::MAX;

impl Stream {
    /// Returns a stream that this end opens.
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

    /// Returns a stream of the peer without its OPEN.
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
            blocked_reported: NEVER_BLOCKED,
            waits_for_quota: false,
            paces: Default::default(),
            datagrams: None,
        }
    }

    /// Notes that the peer has the frame of the opening.
    pub(in crate::link) fn on_opening_acked(&mut self) {
        self.opening_acked = true;
        self.pending_reply = None;
    }

    /// Returns the OPEN or OPEN_RESULT to send.
    pub(in crate::link) fn opening_frame(&self) -> Option<Frame<'static>> {
        let id = self.id.0;
        Some(match self.pending_reply.as_deref()? {
            PendingReply::Open(open) => Frame::Open { id, open: open.clone() },
            PendingReply::Result(result) => Frame::OpenResult { id, result: result.clone() },
        })
    }

    /// Returns true if the scheduler could send something new of this stream.
    pub(in crate::link) fn has_new(&self) -> bool {
        self.send.has_new() || self.sending_datagrams().is_some()
    }

    /// Returns the queues of datagrams if one waits to be sent.
    pub(in crate::link) fn sending_datagrams(&self) -> Option<&Datagrams> {
        self.datagrams.as_deref().filter(|datagrams| datagrams.has_outgoing())
    }

    /// Returns the number of bytes that wait only for their turn.
    pub(in crate::link) fn backlog(&self) -> u64 {
        if self.waits_for_quota { 0 } else { self.send.sendable() }
    }

    /// Returns true if newly written bytes have to wait.
    pub(in crate::link) fn cannot_send(&self) -> bool {
        self.waits_for_quota || self.send.credit() <= self.send.next()
    }

    /// Returns true if nothing more can happen to the stream.
    pub(in crate::link) fn is_gone(&self) -> bool {
        let settled = matches!(self.state, StreamState::Accepted | StreamState::Refused);
        settled && self.opening_acked && self.send.is_over() && self.recv.is_over()
    }

    /// Returns true if one half is not over, so that the loss of the session would lose bytes.
    pub(in crate::link) fn is_live(&self) -> bool {
        !(self.send.is_over() && self.recv.is_over())
    }

    /// Returns true if both directions are complete, although the application has not taken everything. A peer that
    /// closes its session in order (`peer_has_all`) has taken everything, even if an acknowledgement is missing.
    pub(in crate::link) fn has_arrived(&self, peer_has_all: bool) -> bool {
        let sent = self.send.is_over() || (peer_has_all && self.send.has_sent_all());
        let is_cut = self.send.reset_frame().is_some() || self.datagrams.is_some();
        self.is_live() && self.state == StreamState::Accepted && sent && !is_cut && self.recv.has_arrived()
    }

    /// Returns true if a control frame about the stream is still of use.
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
