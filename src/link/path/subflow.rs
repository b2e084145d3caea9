//! A subflow of a session: its lanes, its path, its state.
//!
//! ```text
//! client:  Handshake --HELLO_ACK--> Live
//! server:                           Live, from the start: the HELLO was read before the session knew the subflow
//! ```
//!
//! A live subflow is suspect while its acknowledgements are overdue. A suspect subflow gets no new frames, as long as
//! another one is usable, until it answers a PING or has nothing in flight.

use super::estimate::PathEstimate;
use super::lane::{Lane, SentFrame};
use super::window::Window;
use crate::link::wire::frame::Class;
use crate::link::wire::ids::{StreamId, SubflowId, Time};

/// The state of a subflow: see the diagram of the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum SubflowState {
    Handshake,
    Live,
}

/// A PING to answer.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct PendingPong {
    pub(in crate::link) token: u64,
    pub(in crate::link) at: Time,
}

/// A subflow of a session.
#[derive(Debug)]
pub(in crate::link) struct Subflow {
    pub(in crate::link) id: SubflowId,
    pub(in crate::link) state: SubflowState,
    pub(in crate::link) since: Time,
    pub(in crate::link) lanes: Vec<Lane>,
    pub(in crate::link) path: PathEstimate,
    /// Bytes that the carrier takes now.
    pub(in crate::link) room: usize,
    /// Unacknowledged bytes from which on only urgent frames are sent.
    pub(in crate::link) window: u64,
    /// What the path has shown, for the window.
    pub(in crate::link) shown: Window,
    /// The encoded HELLO or HELLO_ACK until it is sent.
    pub(in crate::link) hello_bytes: Option<Vec<u8>>,
    /// The proof that HELLO_ACK must contain.
    pub(in crate::link) expect: [u8; 32],
    /// True if its HELLO resumes the session.
    pub(in crate::link) resumes: bool,
    /// The session's `up_count` when this subflow was dialed or accepted.
    pub(in crate::link) up_count_before: u64,
    /// Its class according to this end and to the peer.
    pub(in crate::link) classes: [Class; 2],
    pub(in crate::link) suspect: bool,
    pub(in crate::link) suspected_at: Time,
    /// Late frames are not looked for before this time.
    pub(in crate::link) late_after: Time,
    pub(in crate::link) pending_pong: Option<PendingPong>,
    pub(in crate::link) pinged: Option<Time>,
    /// Bytes processed when the last PING was sent.
    pub(in crate::link) pinged_at: u64,
    /// Time of the last received bytes.
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
            shown: Window::default(),
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

    /// Returns the more restrictive of the two classes.
    pub(in crate::link) fn class(&self) -> Class {
        match self.classes {
            [Class::Closing, _] | [_, Class::Closing] => Class::Closing,
            [Class::Backup, _] | [_, Class::Backup] => Class::Backup,
            [Class::Active, Class::Active] => Class::Active,
        }
    }

    /// Returns the lane for the pieces of a stream. With several lanes the first carries only control frames.
    pub(in crate::link) fn lane_for(&self, id: StreamId) -> u16 {
        match u32::try_from(self.lanes.len()).unwrap_or(1) {
            0 | 1 => 0,
            lanes => u16::try_from(1 + id.0 / 2 % (lanes - 1)).unwrap_or(0),
        }
    }

    /// Returns true if it can take a frame that must be acknowledged.
    pub(in crate::link) fn is_ready(&self, frames_max: usize) -> bool {
        self.room > 0 && self.frames() < frames_max
    }

    /// Returns true if it takes only urgent frames now.
    pub(in crate::link) fn is_full(&self) -> bool {
        self.window != u64::MAX && self.in_flight() >= self.window
    }

    pub(in crate::link) fn frames(&self) -> usize {
        self.lanes.iter().map(|lane| lane.tx.frames()).sum()
    }

    pub(in crate::link) fn in_flight(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tx.bytes()).sum()
    }

    pub(in crate::link) fn sent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tx.sent()).sum()
    }

    pub(in crate::link) fn acked(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tx.acked()).sum()
    }

    /// Returns the rate to assume now, in bytes per second.
    pub(in crate::link) fn rate(&self, now: Time) -> u64 {
        let since = self.lanes.iter().filter_map(|lane| lane.tx.waiting_since()).min();
        self.path.rate_after(since.map_or(0, |since| now.since(since)))
    }

    /// Returns the time at which to look for late frames. A suspect subflow has none, because all its frames were
    /// reinjected.
    pub(in crate::link) fn late_at(&self) -> Option<Time> {
        self.first_late_at().filter(|_| self.is_live() && !self.suspect).map(|at| at.max(self.late_after))
    }

    /// Returns true if frames that were not reinjected are late.
    pub(in crate::link) fn is_late(&self, now: Time) -> bool {
        self.first_late_at().is_some_and(|at| at <= now)
    }

    fn first_late_at(&self) -> Option<Time> {
        self.lanes.iter().filter_map(|lane| lane.tx.first_reinjectable()).map(SentFrame::late_at).min()
    }

    /// Returns the time at which it becomes suspect, if it has frames to be acknowledged.
    pub(in crate::link) fn suspect_at(&self) -> Option<Time> {
        let since = self.lanes.iter().filter_map(|lane| lane.tx.waiting_since()).min()?;
        (!self.suspect).then(|| since.after(self.path.ack_timeout_us()))
    }

    /// Returns the time of the next PING.
    pub(in crate::link) fn ping_at(&self, keepalive_us: u64) -> Time {
        const SOON_US: u64 = 1_000_000;
        let Some(last) = self.pinged else {
            return self.since;
        };
        let curious = self.suspect || !self.path.has_pong() || self.processed > self.pinged_at;
        last.after(if curious { SOON_US.min(keepalive_us) } else { keepalive_us })
    }
}
