//! Frames that go over a second subflow too: duplicates in redundant mode, and reinjection of what is late.

use super::state::Session;
use super::transmit::Transmit;
use super::unopened::Way;
use crate::link::path::lane::Entry;
use crate::link::path::scheduler::Mode;
use crate::link::path::subflow::Subflow;
use crate::link::wire::content::{Key, Piece, Sent};
use crate::link::wire::frame::Class;
use crate::link::wire::header::FRAME_BYTES_MAX;
use crate::link::wire::ids::{StreamId, Time};
use crate::link::wire::outbox::Outbox;

/// One byte in so many may be sent twice to fill a gap sooner, beside a few frames at the start.
const REINJECT_SHARE: u64 = 160;
const REINJECT_BYTES_MAX: u64 = 4 * FRAME_BYTES_MAX as u64;
/// Frames at the head of a slow lane among which the one at a stream's frontier is looked for.
const REINJECT_LOOK: usize = 32;
/// Copies that wait for a second subflow.
const ECHOES_MAX: usize = 16;
/// A subflow with late frames is looked at again after so long.
const LATE_AGAIN_US: u64 = 20_000;

impl Session {
    /// In redundant mode, what is small goes over a second subflow too.
    pub(super) fn echo(&mut self, index: usize, what: Sent) {
        let small = match what {
            Sent::Data(_, piece) => u64::from(piece.len) < 1024,
            _ => true,
        };
        if self.config.mode == Mode::Redundant && small && self.echoes.len() < ECHOES_MAX {
            self.subflows.get(index).into_iter().for_each(|s| self.echoes.push_back((s.id, what)));
        }
    }

    pub(super) fn send_echo(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        while let Some((id, what)) = self.echoes.pop_front() {
            let first = self.subflows.iter().position(|subflow| subflow.id == id).unwrap_or(usize::MAX);
            let Some(index) = self.sched.second(first) else { continue };
            let before = out.len();
            match what {
                Sent::Control(key) if self.write_control(key, out) => {
                    let transmit = self.note(now, index, 0, before, out, what);
                    if let (Key::Open(id), Some(transmit)) = (key, transmit) {
                        self.on_open_sent(id, transmit.subflow, true);
                    }
                    return transmit;
                }
                Sent::Data(id, piece) => {
                    let Some(stream) = self.streams.live_slot(id).and_then(|slot| self.streams.get(slot)) else {
                        continue;
                    };
                    let held = &stream.send;
                    let is_ahead = !self.subflows.get(index).is_some_and(|s| self.way_of(stream).allows(s.id));
                    if is_ahead || held.reset_frame().is_some() || held.una() > piece.offset || held.is_over() {
                        continue;
                    }
                    out.data_head(id.0, piece.offset, piece.len as usize, piece.fin);
                    held.emit(piece, out);
                    let lane = self.lane_of(index, stream)?;
                    self.stats.reinjected_bytes += u64::from(piece.len);
                    return self.note(now, index, lane, before, out, what);
                }
                _ => {}
            }
        }
        None
    }

    /// Fills the gap at a stream's frontier sooner: sends again, on the fastest subflow, what lies far back on a slow
    /// one.
    pub(super) fn send_again(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        let fast = self.sched.fastest().filter(|_| self.subflows.len() > 1)?;
        let earned = self.tx.reinject_bytes / REINJECT_SHARE;
        let allowed = (earned + REINJECT_BYTES_MAX).saturating_sub(self.stats.reinjected_bytes);
        if allowed < FRAME_BYTES_MAX as u64 {
            return None;
        }
        let fast_us = self.subflows.get(fast)?.path.rtt_us();
        let (index, lane, at, id, piece) = self.find_frontier(now, fast, fast_us)?;
        let entry = self.subflows.get_mut(index)?.lanes.get_mut(lane)?.tx.entries_mut().nth(at)?;
        entry.moved = true;
        self.stats.reinjected_bytes += u64::from(piece.len);
        let slot = self.streams.live_slot(id)?;
        self.send_piece(now, fast, slot, piece, out)
    }

    /// A piece on a slow subflow that a stream waits for: where it is in flight, and what it is.
    fn find_frontier(&self, now: Time, fast: usize, fast_us: u64) -> Option<(usize, usize, usize, StreamId, Piece)> {
        let session_blocked = self.tx.credit <= self.tx.sent;
        for (index, subflow) in self.subflows.iter().enumerate().filter(|(index, s)| *index != fast && s.is_live()) {
            for (n, lane) in subflow.lanes.iter().enumerate() {
                for (at, entry) in lane.tx.entries().take(REINJECT_LOOK).enumerate() {
                    let Sent::Data(id, piece) = entry.what else { continue };
                    let waits = !entry.moved
                        && subflow.path.remaining_us(now.since(entry.at)) > 2 * fast_us
                        && self.streams.live_slot(id).and_then(|slot| self.streams.get(slot)).is_some_and(|stream| {
                            let send = &stream.send;
                            send.una() == piece.offset
                                && self.way_of(stream) == Way::Any
                                && send.reset_frame().is_none()
                                && (stream.held_back || send.is_blocked() || send.is_tail() || session_blocked)
                        });
                    if waits {
                        return Some((index, n, at, id, piece));
                    }
                }
            }
        }
        None
    }

    /// Whether late frames could go another way.
    pub(super) fn may_rescue(&self) -> bool {
        self.subflows.len() > 1 && self.config.mode != Mode::Single
    }

    /// Queues what is late on a subflow for the others, if there is one that keeps its time.
    ///
    /// Acknowledgements may still come, so this is no suspicion: the path has become slower than it was when the frames
    /// left, and a stream waits for the first of them.
    pub(super) fn rescue(&mut self, now: Time, index: usize) {
        let Some(late) = self.subflows.get_mut(index) else { return };
        late.late_after = now.after(LATE_AGAIN_US);
        let class = late.class();
        let keeps_time = |s: &Subflow| {
            let usable = s.is_live() && !s.suspect && (s.class() == Class::Active || s.class() == class);
            usable && !s.is_late(now)
        };
        if !self.subflows.iter().enumerate().any(|(other, s)| other != index && keeps_time(s)) {
            return;
        }
        let Some(late) = self.subflows.get_mut(index) else { return };
        let mut overdue: Vec<Entry> = Vec::new();
        for entry in late.lanes.iter_mut().flat_map(|lane| lane.tx.entries_mut()) {
            if entry.is_kept() && entry.late_at() <= now {
                overdue.push(*entry);
                entry.moved = true;
            }
        }
        self.stats.rescues += 1;
        overdue.into_iter().for_each(|entry| self.on_entry_lost(entry));
    }

    /// Queues what is in flight on suspect subflows for the others.
    pub(super) fn move_from_suspects(&mut self) {
        let trusted = |s: &Subflow| s.is_live() && !s.suspect && s.class() != Class::Closing;
        if !self.subflows.iter().any(trusted) {
            return;
        }
        let mut moved: Vec<Entry> = Vec::new();
        for subflow in self.subflows.iter_mut().filter(|subflow| subflow.suspect) {
            let entries = subflow.lanes.iter_mut().flat_map(|lane| lane.tx.entries_mut());
            for entry in entries.filter(|entry| !entry.moved) {
                moved.push(*entry);
                entry.moved = true;
            }
        }
        moved.into_iter().for_each(|entry| self.on_entry_lost(entry));
    }
}
