//! The invariants of a session. Debug builds check them after every call, release builds do not contain the calls.
//!
//! The invariants include the limits on memory: unacknowledged payload is at most S and the overhead of the last chunk;
//! payload for the application at most the announced bytes that were not consumed, which is at most R; frames in flight
//! at most the limit of each lane; ranges and gaps at most [`RANGES_MAX`] and the frames that became ranges when a lane
//! died.

use super::config::{FRAMES_SLACK, RANGES_MAX};
use std::collections::BTreeMap;

use super::phase::Phase;
use super::state::Session;
use super::unopened::Route;
use crate::link::stream::datagram::{QUEUE_BYTES_MAX, SESSION_BYTES_MAX};
use crate::link::stream::ranges::RangeSet;
use crate::link::wire::content::FrameContent;
use crate::link::wire::ids::StreamId;

/// Number of streams and frames above which the complete check runs only once in several calls, so that its cost per
/// call does not grow.
#[cfg(debug_assertions)]
const ALL_MAX: usize = 64;

impl Session {
    /// Ends every public call that changes the session.
    pub(super) fn finish_call(&mut self) {
        self.check_resumed();
        #[cfg(debug_assertions)]
        if !self.unchecked {
            self.checks += 1;
            let alive = self.streams.len()
                + self.subflows.iter().map(crate::link::path::subflow::Subflow::frames).sum::<usize>();
            if self.checks > (alive / ALL_MAX) as u64 {
                self.checks = 0;
                self.check_invariants();
            }
        }
    }

    /// Turns the checks after each call off, for tests that measure the cost of a call. [`Session::check_invariants`]
    /// still checks.
    pub fn check_only_when_asked(&mut self) {
        self.unchecked = true;
    }

    /// Panics if an invariant is violated. Its cost is in proportion to the live streams and frames. Debug builds call
    /// it by themselves.
    pub fn check_invariants(&self) {
        self.check_streams();
        self.check_sums();
        self.check_lanes();
        self.check_queues();
    }

    fn check_streams(&self) {
        for (_, stream) in self.streams.iter() {
            stream.send.check();
            stream.recv.check();
            assert!(stream.send.reset_frame().is_none() || stream.send.held() == 0, "a reset stream holds bytes");
            assert!(!stream.is_gone(), "{:?} is over and was not removed", stream.id);
        }
        assert!(self.streams.opened(false) <= self.rx.streams_announced, "more streams than were allowed");
        self.check_openings();
        assert!(self.streams.opened(true) <= self.tx.streams || self.is_ended(), "more streams than the peer allows");
    }

    /// The session's sums match its parts and are within their limits.
    fn check_sums(&self) {
        let sum = |of: &dyn Fn(&crate::link::stream::state::Stream) -> u64| {
            self.streams.iter().map(|(_, s)| of(s)).sum::<u64>()
        };
        assert_eq!(sum(&|s| s.send.held()), self.tx.held, "held for the peer");
        assert_eq!(sum(&|s| s.backlog()), self.tx.backlog, "backlog");
        assert_eq!(sum(&|s| s.send.ranges() as u64), self.tx.ranges as u64, "ranges");
        let datagrams = sum(&|s| s.datagrams.as_ref().map_or(0, |datagrams| datagrams.cost() as u64));
        assert_eq!(datagrams, self.datagram_bytes, "datagrams");
        let most = (SESSION_BYTES_MAX + QUEUE_BYTES_MAX) as u64;
        assert!(datagrams <= most, "{datagrams} bytes of datagrams");
        assert!(self.tx.held <= self.config.send_bytes_max, "{} held for the peer", self.tx.held);
        assert!(self.tx.sent <= self.tx.credit, "the session's credit is exceeded");
        if self.is_ended() {
            return;
        }
        let received = sum(&|s| s.recv.held());
        let window = self.rx.window.announced() - self.rx.window.consumed();
        assert!(received <= window, "{received} held for the application, {window} announced");
        assert!(window <= self.config.session_window_bytes.1, "a window of {window}");
        assert!(self.rx.highest <= self.rx.window.announced());
        assert_eq!(sum(&|s| s.recv.gaps() as u64), self.rx.gaps as u64, "gaps");
        self.pools.pins.check();
        let shared: u64 = self.streams.iter().map(|(_, stream)| stream.recv.shared()).sum();
        assert_eq!(shared, self.pools.pins.payload(), "payload that references its buffer");
        assert!(self.rx.gaps <= RANGES_MAX);
    }

    /// Each sent and unacknowledged byte is in the list of a lane, or is to be retransmitted.
    fn check_lanes(&self) {
        let mut flying: BTreeMap<StreamId, RangeSet> = BTreeMap::new();
        for subflow in &self.subflows {
            // A lane with nothing in flight takes a first frame regardless of the others.
            let most = self.config.lane_frames_max + FRAMES_SLACK + subflow.lanes.len();
            assert!(subflow.frames() <= most, "{} frames in flight", subflow.frames());
            subflow.check();
            for lane in &subflow.lanes {
                lane.tx.check();
                lane.rx.check();
                for entry in lane.tx.entries().filter(|entry| !entry.reinjected) {
                    if let FrameContent::Data(id, piece) = entry.content {
                        flying.entry(id).or_default().insert(piece.offset, piece.end());
                    }
                }
            }
        }
        for (_, stream) in self.streams.iter() {
            let wanted = stream.send.in_flight();
            let found = flying.get(&stream.id);
            for (start, end) in wanted.iter() {
                let covered = found.is_some_and(|set| set.contains(start, end));
                assert!(covered, "{:?}: {start}..{end} is in no lane", stream.id);
            }
        }
    }

    /// Everything to be reported or sent again is in its queue.
    fn check_queues(&self) {
        for (slot, stream) in self.streams.iter() {
            if stream.send.has_lost() {
                assert!(stream.in_retransmit, "{:?} has lost pieces and is in no list", stream.id);
            }
            let session_room = self.tx.credit > self.tx.sent;
            if stream.send.has_new()
                && !stream.waits_for_quota
                && self.route_of(stream) != Route::Blocked
                && session_room
                && matches!(self.phase, Phase::Open)
                && self.tx.ranges < RANGES_MAX / 2
            {
                assert!(self.drr.contains(slot), "{:?} has something to send and is in no list", stream.id);
            }
        }
        for key in self.control.iter() {
            if let Some((id, bit)) = key.stream_bit()
                && let Some(slot) = self.streams.live_slot(id)
            {
                let marked = self.streams.get(slot).is_some_and(|stream| stream.queued & bit != 0);
                assert!(marked, "{key:?} is queued without its mark");
            }
        }
    }
}
