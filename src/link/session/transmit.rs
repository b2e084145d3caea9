//! Frames to send: the choice of the next frame, and of its subflow.
//!
//! Each call of [`Session::poll_transmit`] writes one frame, in this order: frames of a subflow itself (its HELLO, PING
//! and PONG, RESUME_STATE); acknowledgements and control frames; retransmissions, and by turns with them the pieces of new
//! streams, which are small or few; then datagrams and new pieces by turns. Once in nine frames the new pieces go first, so that
//! control frames and retransmissions cannot starve them.
//! If there is nothing to send, a piece that a stream waits for may be reinjected on the fastest subflow. The datagrams
//! of a flow stay on one subflow while it is usable and none of them is late.

use super::config::{FRAMES_SLACK, RANGES_MAX};
use super::flows::subflow_for_flows;
use super::handshake::MESSAGE_LANE;
use super::phase::Phase;
use super::state::Session;
use super::unopened::Route;
use crate::link::path::lane::Expectation;
use crate::link::path::scheduler::{Candidate, Mode, Need};
use crate::link::path::single::Usable;
use crate::link::path::subflow::Subflow;
use crate::link::stream::datagram::{Datagrams, Outgoing};
use crate::link::stream::drr::{List, Queue};
use crate::link::stream::quota::QUOTA_MIN;
use crate::link::stream::state::Stream;
use crate::link::wire::content::{FrameContent, Key, Piece};
use crate::link::wire::frame::{Class, Frame, LaneAck, frame_with, kind};
use crate::link::wire::header::{BODY_BYTES_MAX, DATA_HEAD_BYTES, FRAME_BYTES_MAX, HEADER_BYTES};
use crate::link::wire::ids::{SubflowId, Time};
use crate::link::wire::outbox::Outbox;

/// A frame in the outbox, to be written to this lane behind all earlier frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The subflow.
    pub subflow: SubflowId,
    /// The lane of the subflow, or [`MESSAGE_LANE`] if the frame is to be sent as a message of the carrier.
    pub lane: u16,
    /// Length of the frame in bytes.
    pub bytes: usize,
}

/// Maximum number of streams that are tried for one frame while no subflow suits them.
const TRIES_MAX: usize = 16;
/// Minimum and maximum of the silence, compared with other subflows, after which the fastest subflow carries no
/// acknowledgements: twice the usual time between two reads.
const SILENCE_US: (u64, u64) = (20_000, 50_000);

impl Session {
    /// Writes the next frame to `out`, if there is one and a subflow with room for it: see [`Session::set_room`].
    ///
    /// The caller repeats the call until it returns `None`, and may collect several frames for one lane before it
    /// writes them.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        if self.subflows.iter().all(|subflow| subflow.room == 0) {
            return None;
        }
        let transmit = self.next_frame(now, out);
        if transmit.is_none() {
            for subflow in self.subflows.iter_mut().filter(|s| s.room > 0 && !s.is_full()) {
                let in_flight = subflow.in_flight();
                subflow.path.on_app_limited(now, in_flight);
            }
        }
        self.finish_call();
        transmit
    }

    fn next_frame(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        if let Phase::Ended { .. } = self.phase {
            return self.send_close(out);
        }
        for index in 0..self.subflows.len() {
            if self.subflows.get(index).is_some_and(|subflow| subflow.room > 0) {
                let sent = self.send_subflow_frame(now, index, out);
                if sent.is_some() {
                    return sent;
                }
            }
        }
        let closing = matches!(self.phase, Phase::Closing { .. });
        if self.phase != Phase::Open && !closing {
            return None;
        }
        self.scheduler.on_time(now);
        if !self.may_have_frames() {
            return None;
        }
        self.rank(now);
        if closing {
            return self.send_ack(now, out).or_else(|| self.send_control(now, out));
        }
        let sent = if let Some(first) = self.send_first_data(now, out) {
            Some(first)
        } else if self.scheduler.urgent_first() {
            self.send_urgent(now, out).or_else(|| self.send_scheduled(now, out))
        } else {
            self.send_scheduled(now, out).or_else(|| self.send_urgent(now, out))
        };
        if sent.is_some() {
            self.let_ack_ride(now);
        }
        sent.or_else(|| self.send_reinjection(now, out))
    }

    /// Returns true if a frame may wait that any subflow could carry. After most reads there is none, and no subflow need be
    /// ranked for it. Beside another subflow, frames in flight may have to be reinjected.
    fn may_have_frames(&self) -> bool {
        self.acks.due
            || !self.control.is_empty()
            || !self.retransmit.is_empty()
            || self.just_opened.is_some()
            || self.drr.len(List::New) + self.drr.len(List::Old) > 0
            || self.may_reinject() && self.subflows.iter().any(Subflow::is_waiting)
    }

    /// Lets an acknowledgement that has waited for half of its delay follow a frame that is sent now: alone it would cost both
    /// ends a record and a packet.
    fn let_ack_ride(&mut self, now: Time) {
        let half = self.ack_delay_us() / 2;
        self.acks.due |= self.acks.at.is_some_and(|at| at <= now.after(half));
    }

    fn send_urgent(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        let sent = self.send_ack(now, out);
        let sent = sent.or_else(|| self.send_duplicate(now, out));
        let sent = sent.or_else(|| self.send_control(now, out));
        if sent.is_none() && self.scheduler.retransmitted && self.may_schedule() {
            // A keystroke does not wait for the repair of a bulk transfer.
            let new = self.send_from_list(now, List::New, out);
            if new.is_some() {
                self.scheduler.retransmitted = false;
                self.scheduler.on_urgent();
                return new;
            }
        }
        let sent = sent.or_else(|| {
            let sent = self.send_retransmit(now, out);
            self.scheduler.retransmitted = sent.is_some();
            sent
        });
        if sent.is_some() {
            self.scheduler.on_urgent();
        }
        sent
    }

    /// Ranks the usable subflows: the active ones, else the backups, else any live one.
    fn rank(&mut self, now: Time) {
        self.stats.switches += self.switches.on_time(now, &mut self.subflows);
        let frames_max = self.config.lane_frames_max;
        if let ([only], false) = (self.subflows.as_slice(), self.config.mode == Mode::Single) {
            let (ready, full) = (only.is_ready(frames_max), only.is_full());
            let only =
                only.is_live().then(|| Candidate { index: 0, arrival_us: 0, rate: only.path.rate(), ready, full });
            return self.scheduler.rank(only.into_iter());
        }
        self.scheduler.return_us = self.shortest_us() / 2 + self.ack_delay_us();
        // Only the subflows of the highest grade present are used; grade 0 is never used.
        let grade = |s: &Subflow| match (s.class(), s.suspect) {
            _ if !s.is_live() => 0,
            (Class::Active, false) => 4,
            (Class::Backup, false) => 3,
            (Class::Active | Class::Backup, true) => 2,
            (Class::Closing, _) => 1,
        };
        let best = self.subflows.iter().map(grade).max().unwrap_or(0).max(1);
        let mut only = None;
        if self.config.mode == Mode::Single {
            let usable = self.subflows.iter().filter(|s| grade(s) == best);
            let usable = usable.map(|s| Usable { id: s.id, acked: s.acked(), rtt_us: s.path.rtt_us() });
            only = self.single.choose(now, usable, self.tx.backlog > 0);
        }
        let usable = |s: &Subflow| grade(s) == best && only.is_none_or(|id| id == s.id);
        let alone = self.subflows.iter().filter(|s| usable(s)).count() == 1;
        let candidates = self.subflows.iter().enumerate().filter(|(_, s)| usable(s)).map(|(index, s)| {
            let (ready, full) = (s.is_ready(frames_max), s.is_full());
            if alone {
                return Candidate { index, arrival_us: 0, rate: s.path.rate(), ready, full };
            }
            let rate = s.rate(now);
            let arrival_us = s.path.arrival_us(s.in_flight(), s.path.frame_bytes(), rate);
            Candidate { index, arrival_us, rate, ready, full }
        });
        self.scheduler.rank(candidates);
    }

    /// Sends a frame that belongs to one subflow.
    fn send_subflow_frame(&mut self, now: Time, index: usize, out: &mut Outbox) -> Option<Transmit> {
        let keepalive_us = self.config.ping_us();
        let before = out.len();
        let subflow = self.subflows.get_mut(index)?;
        if let Some(hello_bytes) = subflow.hello_bytes.take() {
            out.frame(|heads| heads.extend_from_slice(&hello_bytes));
            let bytes = out.len() - before;
            subflow.room = subflow.room.saturating_sub(bytes);
            self.stats.frames[0] += 1;
            return Some(Transmit { subflow: subflow.id, lane: 0, bytes });
        }
        if !subflow.is_live() {
            return None;
        }
        let id = subflow.id;
        if self.write_resume_state(id, out) {
            self.check_resumed();
            let transmit = self.record_sent(now, index, 0, before, out, FrameContent::Nothing);
            self.subflows.get_mut(index).into_iter().for_each(Subflow::open_after_sent);
            return transmit;
        }
        let subflow = self.subflows.get_mut(index)?;
        if let Some(asked) = subflow.pending_pong.take() {
            out.frame(|h| Frame::Pong { token: asked.token, held_us: now.since(asked.at) }.encode(h));
        } else if subflow.ping_at(keepalive_us) <= now {
            subflow.pinged = Some(now);
            subflow.has_news = false;
            subflow.has_sent_message = false;
            out.frame(|h| Frame::Ping { token: now.as_us() }.encode(h));
        } else {
            return None;
        }
        self.record_sent(now, index, 0, before, out, FrameContent::Nothing)
    }

    /// Records a frame that was appended to `out`, which held `before` bytes until then.
    pub(super) fn record_sent(
        &mut self,
        now: Time,
        index: usize,
        lane: u16,
        before: usize,
        out: &Outbox,
        content: FrameContent,
    ) -> Option<Transmit> {
        let bytes = out.len() - before;
        let alone = self.subflows.len() == 1;
        let subflow = self.subflows.get_mut(index)?;
        subflow.room = subflow.room.saturating_sub(bytes);
        subflow.has_news |= matches!(content, FrameContent::Data(..) | FrameContent::Control(_));
        let full = subflow.frames() >= self.config.lane_frames_max + FRAMES_SLACK;
        let queued = subflow.in_flight() + bytes as u64;
        let expected = Expectation::new(queued, if alone { u64::MAX } else { subflow.path.late_us(queued) });
        subflow.with_lane(usize::from(lane), |tx| tx.on_sent(now, bytes as u64, content, expected, full))?;
        self.stats.frames[0] += 1;
        Some(Transmit { subflow: subflow.id, lane, bytes })
    }

    /// Records a frame of `bytes` bytes that is sent as a message of the carrier.
    fn record_message(&mut self, index: usize, bytes: usize) -> Option<Transmit> {
        let subflow = self.subflows.get_mut(index)?;
        subflow.room = subflow.room.saturating_sub(bytes);
        subflow.has_sent_message = true;
        subflow.message_bytes += bytes as u64;
        self.stats.frames[0] += 1;
        Some(Transmit { subflow: subflow.id, lane: MESSAGE_LANE, bytes })
    }

    /// Sends one ACK for all lanes, if it is due.
    fn send_ack(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        if !self.acks.due {
            return None;
        }
        let index = self.ack_subflow()?;
        self.acks = super::state::Acks::default();
        let news = |s: &Subflow| s.lanes.iter().any(|lane| lane.rx.unannounced() > 0);
        if !self.subflows.iter().any(news) {
            return None;
        }
        let before = out.len();
        let subflows = &mut self.subflows;
        out.frame(|heads| {
            frame_with(heads, kind::ACK, 0, 0, |body| {
                for subflow in subflows.iter_mut().filter(|s| s.is_live()) {
                    for (lane, n) in subflow.lanes.iter_mut().zip(0u16..).filter(|(l, _)| l.rx.unannounced() > 0) {
                        LaneAck { subflow: subflow.id.0, lane: n, bytes: lane.rx.announce() }.encode(body);
                    }
                }
            });
        });
        self.record_sent(now, index, 0, before, out, FrameContent::Ack)
    }

    /// Returns the subflow for an acknowledgement: the fastest, unless it is silent while another one receives. An end
    /// that mostly receives has nothing in flight that would reveal the death of a subflow, and the other end can tell
    /// a dead subflow only by missing acknowledgements.
    ///
    /// The limit of frames in flight does not apply: if acknowledgements waited for it, two full ends would wait for
    /// each other.
    fn ack_subflow(&self) -> Option<usize> {
        let heard = self.scheduler.usable().filter_map(|index| self.subflows.get(index)).map(|s| s.heard).max()?;
        let speaks = |s: &Subflow| heard.since(s.heard) <= (2 * s.interval_us).clamp(SILENCE_US.0, SILENCE_US.1);
        let index = self.scheduler.usable().find(|index| self.subflows.get(*index).is_some_and(speaks))?;
        self.subflows.get(index).filter(|s| s.room > 0).map(|_| index)
    }

    /// Retransmits the oldest lost piece of the next stream that has one.
    fn send_retransmit(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        let fastest = self.scheduler.fastest()?;
        let mut tries = self.retransmit.len().min(TRIES_MAX);
        while let Some(&id) = self.retransmit.front() {
            let slot = self.streams.live_slot(id);
            let route = slot.and_then(|slot| self.streams.get(slot)).map_or(Route::Any, |stream| self.route_of(stream));
            let Some(index) = self.choose_subflow(route, true, || Some(fastest)) else {
                tries -= 1;
                if tries == 0 {
                    return None;
                }
                self.retransmit.rotate_left(1);
                continue;
            };
            let max = self.frame_bytes(index);
            if let Some(slot) = slot
                && let Some(piece) = self.with_send(slot, |send| send.take_lost(max)).flatten()
            {
                self.stats.resent_bytes += u64::from(piece.len);
                return self.send_piece(now, index, slot, piece, out);
            }
            self.retransmit.pop_front();
            if let Some(stream) = slot.and_then(|slot| self.streams.get_mut(slot)) {
                stream.in_retransmit = false;
            }
        }
        None
    }

    /// Sends a frame of the next stream by turn: new streams first.
    fn send_scheduled(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        if !self.may_schedule() {
            return None;
        }
        let sent = self.send_from_list(now, List::New, out).or_else(|| self.send_from_list(now, List::Old, out));
        if sent.is_some() {
            self.scheduler.on_other();
        }
        sent
    }

    /// Returns true if a subflow and the lists of frames in flight have room for another piece.
    fn may_schedule(&self) -> bool {
        let outstanding = self.tx.ranges + self.subflows.iter().map(Subflow::frames).sum::<usize>();
        self.scheduler.any_ready() && outstanding < RANGES_MAX
    }

    fn send_from_list(&mut self, now: Time, list: List, out: &mut Outbox) -> Option<Transmit> {
        let mut tries = self.drr.len(list).clamp(1, TRIES_MAX);
        loop {
            let (subflows, scheduler) = (&self.subflows, &self.scheduler);
            // A new flow may also send on a full subflow: see `subflow_of_flow`.
            let is_allowed = |queue| match queue {
                Queue::Streams => true,
                Queue::Flows(last) => {
                    subflow_for_flows(subflows, scheduler, last, Route::Any, list == List::New).is_some()
                }
            };
            let slot = self.drr.head(list, is_allowed)?;
            self.stats.turns += 1;
            self.drop_late_of(now, slot);
            let Some(need) = self.need(slot, list) else {
                self.drr.leave(slot);
                continue;
            };
            let stream = self.streams.get(slot)?;
            let (route, flow, weight) = (self.route_of(stream), stream.sending_datagrams(), stream.weight);
            let chosen = match flow {
                Some(flow) => self.subflow_of_flow(flow, route, need.sparse),
                None => self.choose_subflow(route, need.sparse, || self.scheduler.choose(need)),
            };
            if let Some(index) = chosen {
                let sent = self.send_next(now, index, slot, out);
                let more = self.streams.get(slot).is_some_and(|stream| stream.has_new());
                self.drr.sent(slot, sent.map_or(0, |transmit| transmit.bytes as u64), more);
                if more && let Some(stream) = self.streams.get(slot) {
                    self.drr.enter(slot, weight, self.queue_of(stream));
                }
                if sent.is_some() {
                    return sent;
                }
                continue;
            }
            // A flow, or a new stream behind its OPEN, waits for one subflow: others may be free for the next streams. It
            // stays in its list, because in the old one it would count as bulk.
            let waits_for_one = flow.is_some() || route != Route::Any;
            let queue = self.queue_of(stream);
            tries -= 1;
            if list == List::New && !waits_for_one || tries == 0 {
                return None;
            }
            if waits_for_one {
                self.drr.skip(slot)
            } else {
                self.drr.rotate(slot)
            }
            self.drr.enter(slot, weight, queue);
        }
    }

    /// Sends short first data of a stream right behind its OPEN. Later the subflow of the OPEN may be busy, and the
    /// data may use no other.
    fn send_first_data(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        let slot = self.streams.live_slot(self.just_opened.take()?)?;
        let need = self.need(slot, List::New).filter(|need| need.sparse)?;
        let stream = self.streams.get(slot)?;
        let route = self.route_of(stream);
        let index = match stream.sending_datagrams() {
            Some(flow) => self.subflow_of_flow(flow, route, need.sparse)?,
            None => self.choose_subflow(route, need.sparse, || None)?,
        };
        self.send_next(now, index, slot, out)
    }

    /// Returns the subflow for a piece of a stream: one that its route allows, or the result of `any` if it allows all.
    fn choose_subflow(&self, route: Route, urgent: bool, any: impl FnOnce() -> Option<usize>) -> Option<usize> {
        match route {
            Route::Any => any(),
            _ => {
                self.scheduler.ready(urgent).find(|index| self.subflows.get(*index).is_some_and(|s| route.allows(s.id)))
            }
        }
    }

    /// Returns the lane of a subflow for pieces of a stream: the one of its OPEN while that is in flight.
    pub(super) fn lane_of(&self, index: usize, stream: &Stream) -> Option<u16> {
        let subflow = self.subflows.get(index)?;
        Some(if self.route_of(stream) == Route::Any { subflow.lane_for(stream.id) } else { 0 })
    }

    /// Returns the requirements of a stream's next frame, or `None` if the stream may send nothing.
    fn need(&mut self, slot: usize, list: List) -> Option<Need> {
        let stream = self.streams.get(slot)?;
        if self.route_of(stream) == Route::Blocked {
            return None;
        }
        let session_room = self.tx.credit.saturating_sub(self.tx.sent);
        let datagram = stream.sending_datagrams();
        let sendable = stream.send.sendable();
        let quota_left = self.send_quota_left(stream);
        let len = match datagram {
            Some(datagrams) => datagrams.outgoing_len() as u64,
            None if !stream.send.has_new() => return None,
            None if sendable > 0 && session_room == 0 => {
                self.wait_for_session_credit(slot);
                return None;
            }
            None if sendable > 0 && quota_left < sendable.min(QUOTA_MIN) => {
                self.wait_for_quota(slot);
                return None;
            }
            None => sendable.min(self.config.frame_bytes_max).min(session_room).min(quota_left),
        };
        let session_window = session_room + self.in_flight();
        Some(Need {
            len: len + DATA_HEAD_BYTES as u64,
            window: stream.send.window().min(session_window),
            unsent: stream.send.unsent(),
            backlog: self.tx.backlog,
            sparse: list == List::New && stream.send.unsent() <= self.config.frame_bytes_max,
        })
    }

    fn in_flight(&self) -> u64 {
        self.subflows.iter().map(Subflow::in_flight).sum()
    }

    /// Makes a stream wait for session credit, and tells the peer once for each value of the credit.
    fn wait_for_session_credit(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot)
            && !std::mem::replace(&mut stream.in_waiting_for_credit, true)
        {
            let id = stream.id;
            Self::push_once(&mut self.tx.waiting_for_credit, id, &self.streams);
        }
        self.scheduler.on_stall();
        if self.tx.blocked_reported != Some(self.tx.credit) {
            self.tx.blocked_reported = Some(self.tx.credit);
            self.queue_control(Key::SessionBlocked);
        }
    }

    fn send_next(&mut self, now: Time, index: usize, slot: usize, out: &mut Outbox) -> Option<Transmit> {
        let session_room = self.tx.credit.saturating_sub(self.tx.sent);
        let room = self.send_quota_left(self.streams.get(slot)?);
        let stream = self.streams.get(slot)?;
        if stream.sending_datagrams().is_some() {
            let id = stream.id;
            let subflow = self.subflows.get(index).map(|subflow| subflow.id);
            let next = |datagrams: &mut Datagrams, _| {
                let outgoing = datagrams.next_outgoing(now, BODY_BYTES_MAX)?;
                datagrams.subflow = subflow;
                Some(outgoing)
            };
            let outgoing = self.with_datagrams(slot, next).flatten()?;
            let before = out.len();
            out.frame(|heads| match &outgoing {
                Outgoing::Whole(payload) => Frame::Datagram { id: id.0, payload }.encode(heads),
                Outgoing::Part { number, total, offset, payload } => {
                    let (number, total, offset) = (*number, *total, *offset);
                    Frame::DatagramPart { id: id.0, number, total, offset, payload }.encode(heads);
                }
            });
            let (stream, len) = (self.streams.get(slot)?, out.len() - before);
            if self.route_of(stream) == Route::Any && self.subflows.get(index)?.takes_message(len) {
                return self.record_message(index, len);
            }
            let lane = self.lane_of(index, stream)?;
            return self.record_sent(now, index, lane, before, out, FrameContent::Nothing);
        }
        let max = self.frame_bytes(index).min(session_room).min(room);
        let piece =
            self.with_send(slot, |send| send.take_new(max).inspect(|piece| send.note_sent(*piece))).flatten()?;
        self.tx.reinject_bytes += u64::from(piece.len);
        let pace = &mut self.streams.get_mut(slot)?.paces[0];
        self.mix.note(pace, now, piece.offset, u64::from(piece.len));
        self.on_room(slot);
        let transmit = self.send_piece(now, index, slot, piece, out);
        if self.streams.get(slot).is_some_and(|stream| stream.send.is_blocked()) {
            self.update_stream(slot);
        }
        transmit
    }

    /// Returns the maximum payload of a frame on a subflow.
    fn frame_bytes(&self, index: usize) -> u64 {
        let bytes = self.subflows.get(index).map_or(FRAME_BYTES_MAX as u64, |subflow| subflow.path.frame_bytes());
        self.config.frame_bytes_max.min(bytes - DATA_HEAD_BYTES as u64)
    }

    /// Reports a stream whose write was refused, once at most half of its limit is unsent.
    fn on_room(&mut self, slot: usize) {
        let cap = self.config.unsent_bytes_max;
        if let Some(stream) = self.streams.get_mut(slot)
            && stream.write_refused
            && stream.send.unsent() <= cap / 2
            && stream.send.is_open()
        {
            stream.write_refused = false;
            self.events.push_back(super::event::Event::Writable(stream.id));
        }
    }

    /// Writes one DATA frame.
    pub(super) fn send_piece(
        &mut self,
        now: Time,
        index: usize,
        slot: usize,
        piece: Piece,
        out: &mut Outbox,
    ) -> Option<Transmit> {
        let stream = self.streams.get(slot)?;
        let id = stream.id;
        let before = out.len();
        out.data_head(id.0, piece.offset, piece.len as usize, piece.fin);
        stream.send.emit(piece, out);
        debug_assert_eq!(out.len() - before, DATA_HEAD_BYTES + piece.len as usize);
        self.stats.data_bytes[0] += u64::from(piece.len);
        if let Some(subflow) = self.subflows.get_mut(index) {
            subflow.share.bytes += u64::from(piece.len);
        }
        let lane = self.lane_of(index, stream)?;
        let content = FrameContent::Data(id, piece);
        let transmit = self.record_sent(now, index, lane, before, out, content);
        self.queue_duplicate(now, index, lane, content);
        transmit
    }

    /// Sends CLOSE to a peer that has violated the protocol, once on each subflow.
    fn send_close(&mut self, out: &mut Outbox) -> Option<Transmit> {
        let Phase::Ended { code, sends_close: true } = self.phase else { return None };
        let index = self.subflows.iter().position(|subflow| subflow.room > HEADER_BYTES)?;
        let subflow = self.subflows.remove(index);
        let before = out.len();
        out.frame(|heads| Frame::Close { code, text: "" }.encode(heads));
        Some(Transmit { subflow: subflow.id, lane: 0, bytes: out.len() - before })
    }
}
