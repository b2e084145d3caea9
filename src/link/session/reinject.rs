//! Frames that are sent on a second subflow: duplicates of small frames, and reinjection of late frames.

use super::duplicates::Duplicate;
use super::state::Session;
use super::transmit::Transmit;
use super::unopened::Route;
use crate::link::path::lane::SentFrame;
use crate::link::path::scheduler::{Mode, Second};
use crate::link::path::subflow::Subflow;
use crate::link::wire::content::{FrameContent, Key, Piece};
use crate::link::wire::frame::Class;
use crate::link::wire::header::FRAME_BYTES_MAX;
use crate::link::wire::ids::{StreamId, Time};
use crate::link::wire::outbox::Outbox;

/// Budget of reinjection: one byte of so many, which keeps duplicates below 1 %, and a few frames at the start.
const REINJECT_SHARE: u64 = 160;
const REINJECT_BYTES_MAX: u64 = 4 * FRAME_BYTES_MAX as u64;
/// Number of frames at the head of a slow lane among which the first missing piece of a stream is searched.
const REINJECT_LOOK: usize = 32;
/// Interval at which a subflow with late frames is checked again.
const LATE_CHECK_US: u64 = 20_000;
/// Length of a payload from which on a frame is not small.
const SMALL_BYTES: u32 = 1024;

impl Session {
    /// Queues the duplicate of the frame that was just recorded on this lane, if it is small.
    pub(super) fn queue_duplicate(&mut self, now: Time, index: usize, lane: u16, content: FrameContent) {
        let small = match content {
            FrameContent::Data(_, piece) => piece.len < SMALL_BYTES,
            _ => true,
        };
        if self.config.mode == Mode::Single || !small || self.has_one_way() {
            return;
        }
        let Some(subflow) = self.subflows.get(index) else { return };
        let at = match self.config.mode {
            Mode::Redundant => now,
            _ => now.after(subflow.path.overdue_us(subflow.in_flight())),
        };
        let end = subflow.lanes.get(usize::from(lane)).map_or(0, |lane| lane.tx.sent());
        self.duplicates.push(now, Duplicate { subflow: subflow.id, lane, end, content, at });
    }

    /// Sends the first duplicate whose time has come and whose second subflow can take it. The others wait until theirs can, or
    /// until they are of no use.
    pub(super) fn send_duplicate(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        self.duplicates.on_time(now);
        let mut at = 0;
        while self.duplicates.is_due {
            let Some(&duplicate) = self.duplicates.waiting.get(at) else {
                self.duplicates.is_due = self.duplicates.waiting.iter().any(|duplicate| duplicate.at <= now);
                break;
            };
            if duplicate.at > now {
                at += 1;
                continue;
            }
            let first = self.subflows.iter().position(|subflow| subflow.id == duplicate.subflow);
            let second =
                first.filter(|index| self.is_wanted(*index, &duplicate)).map(|index| self.scheduler.second(index));
            if second == Some(Second::Busy) {
                at += 1;
                continue;
            }
            self.duplicates.waiting.remove(at);
            if let Some(Second::Ready(index)) = second
                && let Some(sent) = self.send_again(now, index, duplicate.content, out)
            {
                return Some(sent);
            }
        }
        None
    }

    /// Returns true if a frame is in flight and its content is of use.
    fn is_wanted(&self, index: usize, duplicate: &Duplicate) -> bool {
        let lane = self.subflows.get(index).and_then(|subflow| subflow.lanes.get(usize::from(duplicate.lane)));
        if lane.is_none_or(|lane| lane.tx.acked() >= duplicate.end) {
            return false;
        }
        let FrameContent::Data(id, piece) = duplicate.content else { return true };
        self.streams.live_slot(id).and_then(|slot| self.streams.get(slot)).is_some_and(|stream| {
            let send = &stream.send;
            send.reset_frame().is_none() && send.una() <= piece.offset && !send.is_over()
        })
    }

    /// Sends a frame once more, on this subflow.
    fn send_again(&mut self, now: Time, index: usize, content: FrameContent, out: &mut Outbox) -> Option<Transmit> {
        let before = out.len();
        match content {
            FrameContent::Control(key) => {
                if !self.write_control(key, out) {
                    return None;
                }
                let transmit = self.record_sent(now, index, 0, before, out, content);
                if let (Key::Open(id), Some(transmit)) = (key, transmit) {
                    self.on_open_sent(id, transmit.subflow, true);
                }
                transmit
            }
            FrameContent::Data(id, piece) => {
                let stream = self.streams.live_slot(id).and_then(|slot| self.streams.get(slot))?;
                let is_allowed = self.subflows.get(index).is_some_and(|s| self.route_of(stream).allows(s.id));
                if !is_allowed {
                    return None;
                }
                out.data_head(id.0, piece.offset, piece.len as usize, piece.fin);
                stream.send.emit(piece, out);
                let lane = self.lane_of(index, stream)?;
                self.stats.reinjected_bytes += u64::from(piece.len);
                self.record_sent(now, index, lane, before, out, content)
            }
            FrameContent::Ack | FrameContent::Nothing => None,
        }
    }

    /// Sends a piece that a stream waits for on the fastest subflow, if it is far back on a slow one.
    pub(super) fn send_reinjection(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        let fast = self.scheduler.fastest().filter(|_| self.subflows.len() > 1)?;
        let earned = self.tx.reinject_bytes / REINJECT_SHARE;
        let allowed = (earned + REINJECT_BYTES_MAX).saturating_sub(self.stats.reinjected_bytes);
        if allowed < FRAME_BYTES_MAX as u64 {
            return None;
        }
        let fast_us = self.subflows.get(fast)?.path.rtt_us();
        let (index, lane, at, id, piece) = self.find_frontier(now, fast, fast_us)?;
        let entry = self.subflows.get_mut(index)?.lanes.get_mut(lane)?.tx.entries_mut().nth(at)?;
        entry.reinjected = true;
        self.stats.reinjected_bytes += u64::from(piece.len);
        let slot = self.streams.live_slot(id)?;
        self.send_piece(now, fast, slot, piece, out)
    }

    /// Returns a piece on a slow subflow that a stream waits for, and its position: subflow, lane, entry.
    fn find_frontier(&self, now: Time, fast: usize, fast_us: u64) -> Option<(usize, usize, usize, StreamId, Piece)> {
        // A stream waits for the piece if it can send nothing else: out of credit or quota, or at its end.
        let session_blocked = self.tx.credit <= self.tx.sent;
        let may_be_slow = |index: usize, s: &Subflow| index != fast && s.is_live() && s.is_waiting();
        for (index, subflow) in self.subflows.iter().enumerate().filter(|(index, s)| may_be_slow(*index, s)) {
            for (n, lane) in subflow.lanes.iter().enumerate() {
                for (at, entry) in lane.tx.entries().take(REINJECT_LOOK).enumerate() {
                    let FrameContent::Data(id, piece) = entry.content else { continue };
                    let waits = !entry.reinjected
                        && subflow.path.remaining_us(now.since(entry.at)) > 2 * fast_us
                        && self.streams.live_slot(id).and_then(|slot| self.streams.get(slot)).is_some_and(|stream| {
                            let send = &stream.send;
                            send.una() == piece.offset
                                && self.route_of(stream) == Route::Any
                                && send.reset_frame().is_none()
                                && (stream.waits_for_quota || send.is_blocked() || send.is_tail() || session_blocked)
                        });
                    if waits {
                        return Some((index, n, at, id, piece));
                    }
                }
            }
        }
        None
    }

    /// Returns true if another subflow could carry late frames.
    pub(super) fn may_reinject(&self) -> bool {
        self.subflows.len() > 1
    }

    /// Queues the late frames of a subflow for the others, if one of them is on time.
    ///
    /// Acknowledgements may still arrive, so the subflow is not suspect: its path has become slower since the frames
    /// were sent, and a stream waits for the first of them.
    pub(super) fn reinject_late(&mut self, now: Time, index: usize) {
        let Some(late) = self.subflows.get_mut(index) else { return };
        late.late_after = now.after(LATE_CHECK_US);
        let class = late.class();
        let keeps_time = |s: &Subflow| {
            let usable = s.is_live() && !s.suspect && (s.class() == Class::Active || s.class() == class);
            usable && !s.is_late(now)
        };
        if !self.subflows.iter().enumerate().any(|(other, s)| other != index && keeps_time(s)) {
            return;
        }
        let Some(late) = self.subflows.get_mut(index) else { return };
        let mut overdue: Vec<SentFrame> = Vec::new();
        for entry in late.lanes.iter_mut().flat_map(|lane| lane.tx.entries_mut()) {
            if entry.is_reinjectable() && entry.late_at() <= now {
                overdue.push(*entry);
                entry.reinjected = true;
            }
        }
        late.lanes.iter_mut().for_each(|lane| lane.tx.on_reinjected());
        self.stats.late_reinjections += 1;
        self.subflows.get(index).into_iter().for_each(|late| self.single.on_late(late.id));
        overdue.into_iter().for_each(|entry| self.on_frame_lost(entry));
    }

    /// Finds the lanes that have stalled by themselves, and queues their frames in flight for other subflows.
    pub(super) fn reinject_stalled(&mut self, now: Time, index: usize) {
        let Some(subflow) = self.subflows.get_mut(index) else { return };
        if subflow.note_stalled(now) {
            self.stats.stalled_lanes += 1;
            self.empty_stalled_lanes(index);
        }
    }

    /// Queues the frames in flight on the stalled lanes of a subflow again, if another subflow can take them. Another lane of the
    /// same carrier would not be faster: the carrier repairs a loss ahead of all new bytes, and would carry the frames twice.
    pub(super) fn empty_stalled_lanes(&mut self, index: usize) {
        let trusted = |s: &Subflow| s.is_live() && !s.suspect && s.class() != Class::Closing;
        let mut others = self.subflows.iter().enumerate().filter(|(other, _)| *other != index);
        let has_other = others.any(|(_, s)| trusted(s));
        let Some(subflow) = self.subflows.get_mut(index).filter(|_| has_other) else { return };
        let mut stuck: Vec<SentFrame> = Vec::new();
        for lane in subflow.lanes.iter_mut().filter(|lane| lane.tx.is_stalled()) {
            for entry in lane.tx.entries_mut().filter(|entry| entry.is_reinjectable()) {
                stuck.push(*entry);
                entry.reinjected = true;
            }
        }
        stuck.into_iter().for_each(|entry| self.on_frame_lost(entry));
    }

    /// Queues the frames in flight on suspect subflows for the others.
    pub(super) fn reinject_from_suspects(&mut self) {
        let trusted = |s: &Subflow| s.is_live() && !s.suspect && s.class() != Class::Closing;
        if !self.subflows.iter().any(trusted) {
            return;
        }
        let mut moved: Vec<SentFrame> = Vec::new();
        for subflow in self.subflows.iter_mut().filter(|subflow| subflow.suspect) {
            let entries = subflow.lanes.iter_mut().flat_map(|lane| lane.tx.entries_mut());
            for entry in entries.filter(|entry| !entry.reinjected) {
                moved.push(*entry);
                entry.reinjected = true;
            }
        }
        moved.into_iter().for_each(|entry| self.on_frame_lost(entry));
    }
}
