//! One subflow of a session: its lanes, its path, its state.
//!
//! ```text
//! client:  Greeting --HELLO_ACK--> Live
//! server:                          Live, from the start: the HELLO was read before the session saw the subflow
//! ```
//!
//! A subflow that is `Live` may be suspect: acknowledgements have stopped coming. It gets nothing new while there is
//! another, and is trusted again at the first sign of progress.

use super::estimate::PathEstimate;
use super::lane::{Lane, SentFrame};
use crate::link::wire::frame::Class;
use crate::link::wire::ids::{StreamId, SubflowId, Time};

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum SubflowState {
    Handshake,
    Live,
}

/// A PING that is to be answered.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct PendingPong {
    pub(in crate::link) token: u64,
    pub(in crate::link) at: Time,
}

/// See the module's head.
#[derive(Debug)]
pub(in crate::link) struct Subflow {
    pub(in crate::link) id: SubflowId,
    pub(in crate::link) state: SubflowState,
    pub(in crate::link) since: Time,
    pub(in crate::link) lanes: Vec<Lane>,
    pub(in crate::link) path: PathEstimate,
    /// Bytes that the carrier takes now.
    pub(in crate::link) room: usize,
    /// Unacknowledged bytes beyond which only what is urgent is sent.
    pub(in crate::link) window: u64,
    /// HELLO or HELLO_ACK as bytes, until they are sent.
    pub(in crate::link) hello_bytes: Option<Vec<u8>>,
    /// The proof that HELLO_ACK must bear.
    pub(in crate::link) expect: [u8; 32],
    /// Whether its HELLO says that all others are dead.
    pub(in crate::link) resumes: bool,
    /// How often a subflow of the session had come up when this one was dialled, or accepted.
    pub(in crate::link) up_count_before: u64,
    /// How this end, and the peer, want it used.
    pub(in crate::link) classes: [Class; 2],
    pub(in crate::link) suspect: bool,
    pub(in crate::link) suspected_at: Time,
    /// Whether frames are late is not asked before.
    pub(in crate::link) late_after: Time,
    pub(in crate::link) pending_pong: Option<PendingPong>,
    pub(in crate::link) pinged: Option<Time>,
    /// Bytes processed when the last PING left.
    pub(in crate::link) pinged_at: u64,
    /// When the last bytes came in.
    pub(in crate::link) heard: Time,
    pub(in crate::link) processed: u64,
    pub(in crate::link) drained_reported: bool,
}

impl Subflow {
    pub(in crate::link) fn new(id: SubflowId, state: SubflowState, lanes: u16, now: Time) -> Subflow {
        let mut all = Vec::new();
        all.resize_with(usize::from(lanes.max(1)), Lane::default);
        Subflow {
            id,
            state,
            since: now,
            lanes: all,
            path: PathEstimate::default(),
            room: 0,
            window: u64::MAX,
            hello_bytes: None,
            expect: [0; 32],
            resumes: false,
            up_count_before: 0,
            classes: [Class::Active; 2],
            suspect: false,
            suspected_at: Time::ZERO,
            late_after: Time::ZERO,
            pending_pong: None,
            pinged: None,
            pinged_at: 0,
            heard: now,
            processed: 0,
            drained_reported: false,
        }
    }

    pub(in crate::link) fn is_live(&self) -> bool {
        self.state == SubflowState::Live
    }

    /// How it may be used: as the more reluctant end wants.
    pub(in crate::link) fn class(&self) -> Class {
        match self.classes {
            [Class::Closing, _] | [_, Class::Closing] => Class::Closing,
            [Class::Backup, _] | [_, Class::Backup] => Class::Backup,
            [Class::Active, Class::Active] => Class::Active,
        }
    }

    /// The lane for the pieces of a stream. Where there are several, the first is for control alone.
    pub(in crate::link) fn lane_for(&self, id: StreamId) -> u16 {
        match u32::try_from(self.lanes.len()).unwrap_or(1) {
            0 | 1 => 0,
            lanes => u16::try_from(1 + id.0 / 2 % (lanes - 1)).unwrap_or(0),
        }
    }

    /// Whether it takes another frame that has to be acknowledged.
    pub(in crate::link) fn is_ready(&self, frames_max: usize) -> bool {
        self.room > 0 && self.frames() < frames_max
    }

    /// Whether there is enough under way on it for what can wait.
    pub(in crate::link) fn is_full(&self) -> bool {
        self.window != u64::MAX && self.in_flight() >= self.window
    }

    pub(in crate::link) fn frames(&self) -> usize {
        self.lanes.iter().map(|lane| lane.tx.frames()).sum()
    }

    pub(in crate::link) fn in_flight(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tx.bytes()).sum()
    }

    pub(in crate::link) fn acked(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tx.acked()).sum()
    }

    /// Bytes per second that it can be trusted with now.
    pub(in crate::link) fn rate(&self, now: Time) -> u64 {
        let since = self.lanes.iter().filter_map(|lane| lane.tx.waiting_since()).min();
        self.path.rate_after(since.map_or(0, |since| now.since(since)))
    }

    /// When it is to be asked whether frames of it are late that nobody has sent again. Of one that is suspect all have been.
    pub(in crate::link) fn late_at(&self) -> Option<Time> {
        self.first_late_at().filter(|_| self.is_live() && !self.suspect).map(|at| at.max(self.late_after))
    }

    /// Whether frames of it are late that nobody has sent again.
    pub(in crate::link) fn is_late(&self, now: Time) -> bool {
        self.first_late_at().is_some_and(|at| at <= now)
    }

    fn first_late_at(&self) -> Option<Time> {
        self.lanes.iter().filter_map(|lane| lane.tx.first_reinjectable()).map(SentFrame::late_at).min()
    }

    /// When patience ends, if something is being waited for.
    pub(in crate::link) fn suspect_at(&self) -> Option<Time> {
        let since = self.lanes.iter().filter_map(|lane| lane.tx.waiting_since()).min()?;
        (!self.suspect).then(|| since.after(self.path.ack_timeout_us()))
    }

    /// When the next PING is due.
    pub(in crate::link) fn ping_at(&self, keepalive_us: u64) -> Time {
        const SOON_US: u64 = 1_000_000;
        let Some(last) = self.pinged else {
            return self.since;
        };
        let curious = self.suspect || !self.path.has_pong() || self.processed > self.pinged_at;
        last.after(if curious { SOON_US.min(keepalive_us) } else { keepalive_us })
    }
}
