//! A subflow of a session: its lanes, its path, its state.
//!
//! ```text
//! client:  Handshake --HELLO_ACK--> Live
//! server:                           Live, from the start: the HELLO was read before the session knew the subflow
//! ```
//!
//! A live subflow is suspect while its acknowledgements are overdue. A suspect subflow gets no new frames, as long as
//! another one is usable, until it answers a PING or has nothing in flight.
//!
//! # Several lanes
//! The first lane carries control frames, and each other one the streams whose numbers select it, so that a loss on one lane
//! does not delay the streams on others.
//! - **The other lanes open late**: they may overtake the first one. They are used once the peer has acknowledged the frames
//!   of the handshake and of resuming, which it must process first.
//! - **One lane may stall** while others go on: its frames in flight are sent on another subflow, if there is one, and its
//!   streams use another lane until it goes on. A subflow whose first lane is silent is suspect as a whole, because its control frames are stuck.
//! - **Messages** of the carrier carry datagrams. They may be lost or overtake each other, so they count in no lane, are not
//!   acknowledged, and are not sent again.

use super::estimate::PathEstimate;
use super::lane::{Lane, LaneTx, SentFrame};
use super::switches::Share;
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
    /// Number of frames on all lanes that wait for their acknowledgement. Most subflows of a link have none, and need no look at
    /// their lanes.
    waiting: usize,
    /// The position on the first lane that the peer must acknowledge before the other lanes and messages are used.
    pub(in crate::link) opens_at: Option<u64>,
    /// The time of the last progress of any lane, and the time at which the latest acknowledged frame was sent.
    pub(in crate::link) acked_at: Time,
    pub(in crate::link) acked_sent_at: Time,
    /// The time from which on a lane was overtaken by others at each progress: the carrier repairs losses.
    pub(in crate::link) gap_since: Option<Time>,
    /// Maximum length of a frame that the carrier sends as a message; 0 if it has no messages.
    pub(in crate::link) message_bytes_max: usize,
    /// True if a message was sent since the last PING.
    pub(in crate::link) has_sent_message: bool,
    /// Bytes of the messages that were sent.
    pub(in crate::link) message_bytes: u64,
    pub(in crate::link) path: PathEstimate,
    /// Bytes that the carrier takes now.
    pub(in crate::link) room: usize,
    /// Unacknowledged bytes from which on only urgent frames are sent.
    pub(in crate::link) window: u64,
    /// The rate that the path has shown, for the window.
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
    /// It was a backup at some time: one of two carriers over one path is, and a path of its own is not.
    pub(in crate::link) was_backup: bool,
    pub(in crate::link) suspect: bool,
    pub(in crate::link) suspected_at: Time,
    /// Late frames are not looked for before this time.
    pub(in crate::link) late_after: Time,
    pub(in crate::link) pending_pong: Option<PendingPong>,
    pub(in crate::link) pinged: Option<Time>,
    /// It has carried more than its own upkeep since the last PING, in either direction.
    pub(in crate::link) has_news: bool,
    /// Time of the last received bytes.
    pub(in crate::link) heard: Time,
    /// Smoothed time between two reads, in microseconds.
    pub(in crate::link) interval_us: u64,
    pub(in crate::link) processed: u64,
    /// Its share of the bytes of streams, for the count of switches.
    pub(in crate::link) share: Share,
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
            waiting: 0,
            opens_at: None,
            acked_at: Time::ZERO,
            acked_sent_at: Time::ZERO,
            gap_since: None,
            message_bytes_max: 0,
            has_sent_message: false,
            message_bytes: 0,
            path: PathEstimate::default(),
            room: 0,
            window: u64::MAX,
            shown: Window::default(),
            hello_bytes: None,
            expect: [0; 32],
            resumes: false,
            up_count_before: 0,
            classes: [Class::Active; 2],
            was_backup: false,
            suspect: false,
            suspected_at: Time::ZERO,
            late_after: Time::ZERO,
            pending_pong: None,
            pinged: None,
            has_news: false,
            heard: now,
            interval_us: 0,
            processed: 0,
            share: Share::default(),
            drained_reported: false,
        }
    }

    pub(in crate::link) fn is_live(&self) -> bool {
        self.state == SubflowState::Live
    }

    /// Notes received bytes.
    pub(in crate::link) fn on_heard(&mut self, now: Time) {
        const LONGEST_US: u64 = 100_000; // a pause of the peer says nothing about the path
        self.interval_us = (7 * self.interval_us + now.since(self.heard).min(LONGEST_US)) / 8;
        self.heard = now;
    }

    /// Returns the more restrictive of the two classes.
    pub(in crate::link) fn class(&self) -> Class {
        match self.classes {
            [Class::Closing, _] | [_, Class::Closing] => Class::Closing,
            [Class::Backup, _] | [_, Class::Backup] => Class::Backup,
            [Class::Active, Class::Active] => Class::Active,
        }
    }

    /// Returns true if it has several lanes and all of them may be used.
    fn has_open_lanes(&self) -> bool {
        self.lanes.len() > 1 && self.opens_at.is_none()
    }

    /// Returns the lane for the pieces of a stream. With several lanes the first carries only control frames. A stream whose
    /// lane has stalled uses the next one that has not.
    pub(in crate::link) fn lane_for(&self, id: StreamId) -> u16 {
        if !self.has_open_lanes() {
            return 0;
        }
        let others = self.lanes.len() - 1;
        let own = id.0 as usize / 2 % others;
        let is_usable = |at: &usize| self.lanes.get(1 + at).is_some_and(|lane| !lane.tx.is_stalled());
        let lane = (own..others).chain(0..own).find(is_usable).unwrap_or(own);
        u16::try_from(1 + lane).unwrap_or(0)
    }

    /// Returns true if it sends a frame of this length as a message.
    pub(in crate::link) fn takes_message(&self, len: usize) -> bool {
        len <= self.message_bytes_max && self.opens_at.is_none()
    }

    /// Notes that the peer has acknowledged frames, the latest of which was sent at `sent_at`.
    pub(in crate::link) fn on_progress(&mut self, now: Time, sent_at: Time) {
        self.acked_at = now;
        self.acked_sent_at = self.acked_sent_at.max(sent_at);
        let mut lanes = self.other_lanes().iter().filter(|lane| !lane.tx.is_stalled());
        let has_gap = lanes.any(|lane| lane.tx.overtaken_since(self.acked_sent_at).is_some());
        self.gap_since = has_gap.then(|| self.gap_since.unwrap_or(now));
        if let (Some(position), Some(first)) = (self.opens_at, self.lanes.first())
            && first.tx.acked() >= position
        {
            self.opens_at = None;
        }
    }

    /// Keeps the other lanes closed until the peer has acknowledged all frames that were sent on the first one until now.
    pub(in crate::link) fn open_after_sent(&mut self) {
        self.opens_at = self.lanes.first().map(|first| first.tx.sent());
    }

    /// Returns true if it can take a frame that must be acknowledged.
    pub(in crate::link) fn is_ready(&self, frames_max: usize) -> bool {
        self.room > 0 && self.frames() < frames_max
    }

    /// Returns true if an acknowledgement shows the rate of the path now. A lane with a gap stands still, and then moves by all that
    /// has arrived behind it, so a rate is measured between two times without a gap. Where the path loses packets in each round
    /// trip, there is no such time, and it is measured all the same.
    pub(in crate::link) fn shows_rate(&self, now: Time) -> bool {
        self.gap_since.is_none_or(|since| now.since(since) > GAP_ROUNDS * self.path.rtt_us())
    }

    /// Returns true if it takes only urgent frames now. Bytes behind the gap of a lane have arrived and are not under way, but only
    /// the end of the gap tells how many they are. So the window is twice as large until then.
    pub(in crate::link) fn is_full(&self) -> bool {
        let window = if self.gap_since.is_some() { self.window.saturating_mul(2) } else { self.window };
        window != u64::MAX && self.in_flight() >= window
    }

    pub(in crate::link) fn frames(&self) -> usize {
        self.lanes.iter().map(|lane| lane.tx.frames()).sum()
    }

    /// Returns the number of unacknowledged bytes that are in transit or in a queue of the path. Those of a stalled lane wait
    /// for its repair.
    pub(in crate::link) fn in_flight(&self) -> u64 {
        self.lanes.iter().filter(|lane| !lane.tx.is_stalled()).map(|lane| lane.tx.bytes()).sum()
    }

    pub(in crate::link) fn sent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tx.sent()).sum()
    }

    pub(in crate::link) fn acked(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.tx.acked()).sum()
    }

    /// Returns the bytes that were processed and not acknowledged, on all lanes.
    pub(in crate::link) fn unannounced(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.rx.unannounced()).sum()
    }

    /// Changes the sending side of a lane, and the number of frames that wait accordingly.
    pub(in crate::link) fn with_lane<R>(&mut self, lane: usize, change: impl FnOnce(&mut LaneTx) -> R) -> Option<R> {
        let tx = &mut self.lanes.get_mut(lane)?.tx;
        let before = tx.eliciting();
        let result = change(tx);
        self.waiting = self.waiting + tx.eliciting() - before;
        Some(result)
    }

    /// Returns true if a frame on any lane waits for its acknowledgement.
    pub(in crate::link) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    pub(in crate::link) fn check(&self) {
        assert_eq!(self.lanes.iter().map(|lane| lane.tx.eliciting()).sum::<usize>(), self.waiting, "waiting frames");
    }

    /// Returns the start of the time in which no lane has made progress, if one has frames to be acknowledged.
    fn silent_since(&self) -> Option<Time> {
        let since = self.waiting_lanes().iter().filter_map(|lane| lane.tx.waiting_since()).min()?;
        Some(if self.lanes.len() > 1 { since.max(self.acked_at) } else { since })
    }

    /// Returns the rate to assume now, in bytes per second. While a frame that was sent again elsewhere waits for its
    /// acknowledgement, the silence began when it was sent: acknowledgements that arrive late themselves, of frames before it,
    /// do not show that the path is well.
    pub(in crate::link) fn rate(&self, now: Time) -> u64 {
        let since = self.silent_since().into_iter().chain(self.overtaken_since()).min();
        self.path.rate_after(since.map_or(0, |since| now.since(since)))
    }

    /// Returns the time at which the oldest frame in flight was sent, if it was sent again elsewhere since then. Among several
    /// lanes one may wait for a repair while the path is well.
    fn overtaken_since(&self) -> Option<Time> {
        let [only] = self.lanes.as_slice() else { return None };
        only.tx.first_reinjected_at()
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
        self.waiting_lanes().iter().filter_map(|lane| lane.tx.first_reinjectable()).map(SentFrame::late_at).min()
    }

    /// Returns the time at which it becomes suspect, if it has frames to be acknowledged.
    pub(in crate::link) fn suspect_at(&self) -> Option<Time> {
        let first = self.lanes.first().and_then(|lane| lane.tx.waiting_since());
        let since = self.silent_since().into_iter().chain(first).min()?;
        (!self.suspect).then(|| since.after(self.path.ack_timeout_us()))
    }

    /// Returns the time at which the next lane is stalled.
    pub(in crate::link) fn stalled_at(&self) -> Option<Time> {
        let timeout_us = self.path.ack_timeout_us();
        let lanes = self.waiting_lanes().iter().skip(1).filter(|lane| !lane.tx.is_stalled());
        Some(lanes.filter_map(|lane| lane.tx.overtaken_since(self.acked_sent_at)).min()?.after(timeout_us))
    }

    /// Returns the time at which a lane has made no progress for `dead_us` while others have.
    pub(in crate::link) fn dead_lane_at(&self, dead_us: u64) -> Option<Time> {
        let lanes = if self.lanes.len() > 1 { self.waiting_lanes() } else { &[] };
        Some(lanes.iter().filter_map(|lane| lane.tx.overtaken_since(self.acked_sent_at)).min()?.after(dead_us))
    }

    /// Marks the lanes as stalled that are so at this time. Returns true if there are any.
    pub(in crate::link) fn note_stalled(&mut self, now: Time) -> bool {
        let (timeout_us, acked_sent_at) = (self.path.ack_timeout_us(), self.acked_sent_at);
        let mut any = false;
        for lane in self.lanes.iter_mut().skip(1).filter(|lane| !lane.tx.is_stalled()) {
            if lane.tx.overtaken_since(acked_sent_at).is_some_and(|since| since.after(timeout_us) <= now) {
                lane.tx.set_stalled();
                any = true;
            }
        }
        any
    }

    /// Returns the lanes, if a frame on any of them waits for its acknowledgement.
    fn waiting_lanes(&self) -> &[Lane] {
        if self.is_waiting() { &self.lanes } else { &[] }
    }

    fn other_lanes(&self) -> &[Lane] {
        self.lanes.get(1..).unwrap_or_default()
    }

    /// Returns the time of the next PING.
    pub(in crate::link) fn ping_at(&self, keepalive_us: u64) -> Time {
        const SOON_US: u64 = 1_000_000;
        /// Nothing else reveals that the path of messages is dead.
        const AFTER_MESSAGE_US: u64 = 100_000;
        let Some(last) = self.pinged else {
            return self.since;
        };
        if self.has_sent_message {
            return last.after(AFTER_MESSAGE_US.min(keepalive_us));
        }
        let curious = self.suspect || !self.path.has_pong() || self.has_news;
        last.after(if curious { SOON_US.min(keepalive_us) } else { keepalive_us })
    }
}

/// Round trips after which gaps that follow each other do not delay the measurement of a rate any more.
const GAP_ROUNDS: u64 = 32;
