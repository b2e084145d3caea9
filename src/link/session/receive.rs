//! Received frames and their effects.
//!
//! The peer is authenticated, so an invalid frame is a defect of the peer and no accident of the network. A false
//! statement about the session's state ends the session, because a resumed session would receive it again. Malformed
//! bytes end only their subflow, and the session after several times. Late and repeated frames change nothing.

use super::error::Violation;
use super::handshake::MESSAGE_LANE;
use bytes::{Buf, Bytes};

use super::event::Event;
use super::phase::{Cause, Phase};
use super::state::Session;
use super::table::Lookup;
use crate::link::path::lane::LaneRx;
use crate::link::path::subflow::{PendingPong, Subflow, SubflowState};
use crate::link::stream::datagram::{Datagrams, Part};
use crate::link::stream::recv::Arrived;
use crate::link::stream::state::{Stream, StreamState};
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::frame::{Class, FLAG_LAST, Frame, kind, trace};
use crate::link::wire::header::{DATA_HEAD_BYTES, FrameError, HEADER_BYTES, Header, OFFSET_MAX, PART_HEAD_BYTES};
use crate::link::wire::ids::{StreamId, SubflowId, Time};
use crate::link::wire::open::{Bound, Open};

/// Number of times that malformed bytes may end a subflow before they end the session. Frames of a dead subflow are
/// sent again, so a peer with a framing defect would repeat it for ever.
const FRAMING_ERRORS_MAX: u64 = 3;

/// The subflow of a received frame, and the time.
#[derive(Clone, Copy, Debug)]
struct Origin {
    index: usize,
    now: Time,
}

impl Session {
    /// Processes bytes that were received on a lane of a subflow. `bytes` is a whole read: payloads reference it. On
    /// [`MESSAGE_LANE`] it is one whole message of the carrier.
    ///
    /// # Errors
    /// The peer has violated the protocol. After [`Violation::Frame`] the subflow has left the session, see
    /// [`Event::SubflowDown`], and its frames in flight are sent elsewhere. After any other violation, and after the
    /// third of that kind, the session is over, and the peer will be told. Bytes for an unknown subflow are dropped.
    pub fn receive(&mut self, now: Time, id: SubflowId, lane: u16, bytes: Bytes) -> Result<(), Violation> {
        let result = match self.subflows.iter().position(|subflow| subflow.id == id) {
            Some(_) if self.is_ended() => Ok(()),
            Some(index) if lane == MESSAGE_LANE => self.receive_message(now, index, bytes),
            Some(index) => self.receive_lane(now, index, usize::from(lane), bytes),
            None => Ok(()),
        };
        if let Err(violation) = result {
            self.on_violation(now, id, violation);
        }
        self.finish_call();
        result
    }

    fn on_violation(&mut self, now: Time, id: SubflowId, violation: Violation) {
        let framing = matches!(violation, Violation::Frame(_));
        self.stats.framing_errors += u64::from(framing);
        if framing && self.stats.framing_errors < FRAMING_ERRORS_MAX {
            self.remove_subflow(now, id, Code::ProtocolError);
        } else {
            self.end(Code::ProtocolError, format!("{violation:?}"), Cause::Violation);
        }
    }

    fn receive_lane(&mut self, now: Time, index: usize, lane: usize, mut bytes: Bytes) -> Result<(), Violation> {
        let id = self.subflows.get(index).map(|subflow| subflow.id);
        let (origin, whole) = (Origin { index, now }, bytes.len());
        self.pools.pins.read(whole);
        if let Some(subflow) = self.subflows.get_mut(index) {
            subflow.on_heard(now);
        }
        loop {
            // A frame may have ended the session or replaced the subflow.
            if self.subflows.get(index).map(|subflow| subflow.id) != id {
                return Ok(());
            }
            let Some(rx) = self.lane_rx(index, lane) else { return Ok(()) };
            if rx.is_carrying() {
                bytes.advance(rx.fill(&bytes)?);
                let Some((header, frame)) = rx.take_carried()? else { return Ok(()) };
                self.pools.pins.read(frame.len());
                self.on_whole_frame(origin, lane, header, frame)?;
                self.pools.pins.read(whole);
                continue;
            }
            let Some(header) = LaneRx::peek(&bytes)? else {
                rx.fill(&bytes)?;
                return Ok(());
            };
            let frame = bytes.split_to(HEADER_BYTES + header.len);
            self.on_whole_frame(origin, lane, header, frame)?;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// Processes one message of the carrier: whole frames with datagrams. It counts in no lane. Before the HELLO_ACK, which it
    /// may overtake, it is dropped.
    fn receive_message(&mut self, now: Time, index: usize, mut bytes: Bytes) -> Result<(), Violation> {
        let Some(subflow) = self.subflows.get_mut(index) else { return Ok(()) };
        subflow.on_heard(now);
        if subflow.state == SubflowState::Handshake {
            return Ok(());
        }
        subflow.processed += bytes.len() as u64;
        subflow.has_news = true;
        while !bytes.is_empty() {
            let header = LaneRx::peek(&bytes)?.ok_or(FrameError::Short)?;
            if !matches!(header.kind, kind::DATAGRAM | kind::DATAGRAM_PART) {
                return Err(FrameError::UnknownKind(header.kind).into());
            }
            let frame = bytes.split_to(HEADER_BYTES + header.len);
            self.stats.frames[1] += 1;
            let decoded = Frame::decode(header, frame.get(HEADER_BYTES..).unwrap_or_default())?;
            trace("received", header, Some(&decoded));
            self.on_frame(Origin { index, now }, &decoded, &frame)?;
        }
        Ok(())
    }

    fn lane_rx(&mut self, index: usize, lane: usize) -> Option<&mut LaneRx> {
        self.subflows.get_mut(index)?.lanes.get_mut(lane).map(|lane| &mut lane.rx)
    }

    /// Processes one complete frame.
    fn on_whole_frame(
        &mut self,
        origin: Origin,
        lane: usize,
        header: Header,
        mut frame: Bytes,
    ) -> Result<(), Violation> {
        let len = frame.len() as u64;
        self.stats.frames[1] += 1;
        if self.subflows.get(origin.index).is_some_and(|subflow| subflow.state == SubflowState::Handshake) {
            let body = frame.get(HEADER_BYTES..).unwrap_or_default();
            trace("received", header, None);
            return Ok(self.on_hello_ack(origin.now, origin.index, &Frame::decode(header, body)?)?);
        }
        if header.kind == kind::DATA && header.len >= DATA_HEAD_BYTES - HEADER_BYTES {
            frame.advance(HEADER_BYTES);
            let offset = frame.get_u64();
            trace("received", header, None);
            self.on_data(origin, StreamId(header.id), offset, header.flags & FLAG_LAST != 0, frame)?;
        } else {
            let body = frame.get(HEADER_BYTES..).unwrap_or_default();
            let decoded = Frame::decode(header, body)?;
            trace("received", header, Some(&decoded));
            self.on_frame(origin, &decoded, &frame)?;
        }
        if let Some(rx) = self.lane_rx(origin.index, lane) {
            rx.on_processed(len);
            let waiting = self.subflows.get(origin.index).map_or(0, Subflow::unannounced);
            self.on_processed_frame(origin, len, waiting, header.kind);
        }
        Ok(())
    }

    /// Schedules the acknowledgement of a processed frame.
    fn on_processed_frame(&mut self, origin: Origin, len: u64, waiting: u64, frame_kind: u8) {
        if let Some(subflow) = self.subflows.get_mut(origin.index) {
            subflow.processed += len;
            // The upkeep of an idle link is no reason for more of it.
            subflow.has_news |= !matches!(frame_kind, kind::PING | kind::PONG | kind::ACK);
        }
        if frame_kind == kind::ACK {
            return;
        }
        // At most an eighth of the window stays unacknowledged, so that the sender does not stall on it.
        const FEW: u64 = 64 * 1024;
        let most = self.acked_bytes(origin.now);
        self.acks.due |= waiting >= (self.rx.window.size() / 8).clamp(FEW.min(most), most);
        if self.acks.at.is_none() {
            self.acks.at = Some(origin.now.after(self.ack_delay_us()));
        }
    }

    fn on_frame(&mut self, origin: Origin, frame: &Frame<'_>, raw: &Bytes) -> Result<(), Violation> {
        let now = origin.now;
        match frame {
            Frame::Open { id, open } => self.on_open(now, StreamId(*id), open),
            Frame::OpenResult { id, result } => self.on_open_result(now, StreamId(*id), result),
            Frame::Data { .. } => Ok(()),
            Frame::Reset { id, code, size } => self.on_reset(now, StreamId(*id), *code, *size),
            Frame::UnknownStream { id } => {
                self.on_unknown_stream(now, StreamId(*id));
                Ok(())
            }
            Frame::Stop { id, code } => self.on_stop(now, StreamId(*id), *code),
            Frame::Credit { id: 0, max, taken } => self.on_session_credit(*max, *taken),
            Frame::Credit { id, max, taken } => self.on_credit(now, StreamId(*id), *max, *taken),
            Frame::Blocked { id: 0, .. } => self.on_session_blocked(now),
            Frame::Blocked { id, .. } => self.on_blocked(now, StreamId(*id)),
            Frame::MaxStreams { max } => {
                self.tx.streams = self.tx.streams.max(*max);
                self.wake_openers();
                Ok(())
            }
            Frame::Ack { lanes } => self.on_acks(now, *lanes),
            Frame::Datagram { id, .. } => self.on_datagram(now, StreamId(*id), raw.slice(HEADER_BYTES..)),
            Frame::DatagramPart { id, number, total, offset, .. } => {
                let payload = Bytes::copy_from_slice(&raw.slice(PART_HEAD_BYTES..));
                let part = Part { number: *number, total: *total, offset: *offset, payload };
                self.on_datagram_part(now, StreamId(*id), part)
            }
            Frame::ResumeState { last, states } => Ok(self.on_resume_state(now, *last, *states)?),
            _ => self.on_session_frame(origin, frame),
        }
    }

    fn on_session_frame(&mut self, origin: Origin, frame: &Frame<'_>) -> Result<(), Violation> {
        match frame {
            Frame::Ping { token } => {
                if let Some(subflow) = self.subflows.get_mut(origin.index) {
                    subflow.pending_pong = Some(PendingPong { token: *token, at: origin.now });
                }
            }
            Frame::Pong { token, held_us } => self.on_pong(origin, *token, *held_us),
            Frame::Listen { id, open } => self.on_listen(*id, open)?,
            Frame::ListenResult { id, result } => self.on_listen_result(*id, result)?,
            Frame::Unlisten { id } => self.on_unlisten(*id)?,
            Frame::Message { seq, text } => self.on_message(*seq, text),
            Frame::Subflow { subflow, class } => {
                if let Some(subflow) = self.subflows.iter_mut().find(|s| s.id.0 == *subflow) {
                    let [_, theirs] = &mut subflow.classes;
                    *theirs = *class;
                    subflow.was_backup |= subflow.class() == Class::Backup;
                }
                self.check_drained();
            }
            Frame::GoAway { code, text, .. } => {
                let [_, theirs] = &mut self.going_away;
                if theirs.is_none() {
                    *theirs = Some((*code, (*text).to_owned()));
                    self.push_event(Event::GoAway { code: *code, text: (*text).to_owned() });
                }
            }
            Frame::Close { code, text } => self.end(*code, (*text).to_owned(), Cause::Peer),
            other if Self::is_handshake_frame(other.kind()) => return Err(FrameError::UnknownKind(other.kind()).into()),
            _ => {}
        }
        Ok(())
    }

    /// Returns the stream of a frame, which may be one of the peer's whose OPEN is still in flight.
    ///
    /// `expects_stream` is true if the frame shows that the peer has the stream, so that it must be told if this end
    /// has not.
    fn stream_of_frame(&mut self, now: Time, id: StreamId, expects_stream: bool) -> Result<Option<usize>, Violation> {
        let count = self.streams_unopened();
        let found = self.find_or_insert(now, id, expects_stream);
        if self.streams_unopened() > count {
            self.record_unopened(now, id);
        }
        found
    }

    fn find_or_insert(&mut self, now: Time, id: StreamId, expects_stream: bool) -> Result<Option<usize>, Violation> {
        if id.opener().is_none() {
            return Err(FrameError::Value.into());
        }
        match self.streams.find(id) {
            Lookup::Live(slot) => Ok(Some(slot)),
            Lookup::Closed => {
                self.stats.late_frames += 1;
                self.answer_unknown_stream(id, expects_stream);
                Ok(None)
            }
            Lookup::Unopened if id.opener() != Some(self.role.peer()) => {
                self.stats.stray_frames += 1;
                self.report_stray(id);
                self.answer_unknown_stream(id, expects_stream);
                Ok(None)
            }
            Lookup::Unopened if id.index() >= self.rx.streams_announced => Err(Violation::Limit),
            Lookup::Unopened => {
                let window = crate::link::stream::credit::Window::new(self.config.stream_bounds(), now);
                let slot = self.streams.insert(Stream::implicit(id, self.tx.peer.stream_credit, window));
                self.rx.unopened.count += 1;
                if self.is_too_far_ahead() { Err(Violation::Limit) } else { Ok(Some(slot)) }
            }
        }
    }

    fn on_data(
        &mut self,
        origin: Origin,
        id: StreamId,
        offset: u64,
        fin: bool,
        payload: Bytes,
    ) -> Result<(), Violation> {
        self.stats.data_bytes[1] += payload.len() as u64;
        let Some(slot) = self.stream_of_frame(origin.now, id, true)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        self.mix.note(&mut stream.paces[1], origin.now, offset, payload.len() as u64);
        let before = stream.recv.gaps();
        let arrived = stream.recv.insert(offset, payload, fin, &mut self.pools)?;
        self.rx.gaps = self.rx.gaps + stream.recv.gaps() - before;
        self.on_arrived(origin.now, arrived)?;
        self.update_stream(slot);
        Ok(())
    }

    /// Counts received bytes against the session's window, and gaps against their limit.
    fn on_arrived(&mut self, now: Time, arrived: Arrived) -> Result<(), Violation> {
        self.rx.highest += arrived.risen;
        self.stats.repeated_bytes += arrived.repeated;
        if self.rx.highest > self.rx.window.announced() || self.rx.gaps > super::config::RANGES_MAX {
            return Err(Violation::Limit);
        }
        if arrived.dropped > 0 {
            self.consume_session(now, arrived.dropped);
        }
        Ok(())
    }

    fn on_open(&mut self, now: Time, id: StreamId, open: &Open) -> Result<(), Violation> {
        if id.opener() != Some(self.role.peer()) {
            return Err(Violation::Stream);
        }
        let Some(slot) = self.find_or_insert(now, id, true)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        if stream.state != StreamState::Implicit {
            return Ok(());
        }
        stream.state = StreamState::Offered;
        stream.weight = open.weight;
        stream.datagrams = open.kind.has_datagrams().then(Box::default);
        let given_up = (!stream.recv.is_open()).then(|| stream.recv.stopped().unwrap_or(Code::Killed));
        self.on_opened(id);
        if let Some(code) = given_up.or(matches!(self.phase, Phase::Closing { .. }).then_some(Code::Killed)) {
            // The stream was aborted before its OPEN: the application is not told of it.
            let answered = self.answer(id, StreamState::Refused, Bound::refused(code));
            debug_assert!(answered.is_ok());
            self.abort_stream(now, id, code);
            return Ok(());
        }
        self.push_event(Event::Opened { id, open: open.clone() });
        self.update_stream(slot);
        Ok(())
    }

    fn on_open_result(&mut self, now: Time, id: StreamId, result: &Bound) -> Result<(), Violation> {
        if id.opener() != Some(self.role) {
            return Err(Violation::Stream);
        }
        let Some(slot) = self.stream_of_frame(now, id, true)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        if stream.state != StreamState::Requested {
            return Ok(());
        }
        stream.state = if result.failure.is_some() { StreamState::Refused } else { StreamState::Accepted };
        self.on_opening_acked(slot);
        self.push_event(Event::OpenResult { id, result: result.clone() });
        match result.failure {
            Some(code) => self.abort_stream(now, id, code),
            None => self.update_stream(slot),
        }
        Ok(())
    }

    fn on_reset(&mut self, now: Time, id: StreamId, code: Code, size: u64) -> Result<(), Violation> {
        let Some(slot) = self.stream_of_frame(now, id, false)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        let before = stream.recv.gaps();
        let (arrived, tell) = stream.recv.reset(size, &mut self.pools)?;
        self.rx.gaps = self.rx.gaps + stream.recv.gaps() - before;
        let known = matches!(stream.state, StreamState::Requested | StreamState::Offered | StreamState::Accepted);
        if tell && known {
            self.push_event(Event::Reset { id, code });
        }
        self.on_arrived(now, arrived)?;
        self.update_stream(slot);
        Ok(())
    }

    fn on_stop(&mut self, now: Time, id: StreamId, code: Code) -> Result<(), Violation> {
        let Some(slot) = self.stream_of_frame(now, id, false)? else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        let tell = stream.send.reset_frame().is_none() && !stream.send.is_over();
        if tell && matches!(stream.state, StreamState::Requested | StreamState::Offered | StreamState::Accepted) {
            self.push_event(Event::Stopped { id, code });
        }
        self.reset_send(slot, code);
        self.update_stream(slot);
        Ok(())
    }

    fn on_credit(&mut self, now: Time, id: StreamId, max: u64, taken: u64) -> Result<(), Violation> {
        if max > OFFSET_MAX {
            return Err(FrameError::Value.into());
        }
        let Some(slot) = self.stream_of_frame(now, id, false)? else { return Ok(()) };
        self.clear_quota_wait(slot);
        self.with_send(slot, |send| {
            send.raise_credit(max);
            send.on_taken(taken);
        });
        self.update_stream(slot);
        Ok(())
    }

    fn on_session_credit(&mut self, max: u64, taken: u64) -> Result<(), Violation> {
        if max > OFFSET_MAX {
            return Err(FrameError::Value.into());
        }
        self.tx.credit = self.tx.credit.max(max);
        if self.tx.credit == max {
            self.tx.window = max.saturating_sub(taken);
        }
        if self.tx.credit > self.tx.sent {
            for _ in 0..self.tx.waiting_for_credit.len() {
                let Some(id) = self.tx.waiting_for_credit.pop_front() else { break };
                let Some(slot) = self.streams.live_slot(id) else { continue };
                self.streams.get_mut(slot).into_iter().for_each(|stream| stream.in_waiting_for_credit = false);
                self.update_stream(slot);
            }
        }
        Ok(())
    }

    fn on_blocked(&mut self, now: Time, id: StreamId) -> Result<(), Violation> {
        let Some(slot) = self.stream_of_frame(now, id, false)? else { return Ok(()) };
        let round_us = self.round_us();
        let Some(stream) = self.streams.get_mut(slot) else { return Ok(()) };
        stream.recv.window.on_blocked(now);
        stream.recv.window.widen(stream.recv.held(), now, round_us);
        if stream.recv.window.has_news() {
            self.queue_control(Key::Credit(id));
        }
        Ok(())
    }

    fn on_session_blocked(&mut self, now: Time) -> Result<(), Violation> {
        if self.rx.window.on_blocked(now) {
            self.queue_control(Key::SessionCredit);
        }
        Ok(())
    }

    fn on_datagram(&mut self, now: Time, id: StreamId, payload: Bytes) -> Result<(), Violation> {
        let Some(slot) = self.stream_of_frame(now, id, false)? else { return Ok(()) };
        let wanted = self.streams.get(slot).is_some_and(|stream| stream.recv.is_open());
        self.drop_late_datagrams(now);
        let keep = |datagrams: &mut Datagrams, full| datagrams.receive(now, Bytes::copy_from_slice(&payload), full);
        if wanted && self.with_datagrams(slot, keep) == Some(true) {
            self.push_event(Event::Datagram(id));
        }
        Ok(())
    }

    fn on_datagram_part(&mut self, now: Time, id: StreamId, part: Part) -> Result<(), Violation> {
        let Some(slot) = self.stream_of_frame(now, id, false)? else { return Ok(()) };
        let wanted = self.streams.get(slot).is_some_and(|stream| stream.recv.is_open());
        self.drop_late_datagrams(now);
        let keep = |datagrams: &mut Datagrams, full| datagrams.receive_part(now, part, full);
        if wanted && self.with_datagrams(slot, keep) == Some(true) {
            self.push_event(Event::Datagram(id));
        }
        Ok(())
    }

    fn on_pong(&mut self, origin: Origin, token: u64, held_us: u64) {
        let us = origin.now.since(Time::from_us(token)).saturating_sub(held_us);
        if let Some(subflow) = self.subflows.get_mut(origin.index)
            && token <= origin.now.as_us()
        {
            subflow.path.on_pong(origin.now, us);
            self.stats.round_trips.note(us);
            let answers = token >= subflow.suspected_at.as_us();
            self.clear_suspicion(origin.now, origin.index, answers);
        }
    }

    /// Ends the suspicion against a subflow if it has answered a PING that was sent later, or has nothing in flight.
    ///
    /// Acknowledgements alone do not count: they may come over another subflow, and cover bytes that arrived long ago.
    pub(super) fn clear_suspicion(&mut self, now: Time, index: usize, answered: bool) {
        let Some(subflow) = self.subflows.get_mut(index).filter(|subflow| subflow.suspect) else { return };
        let waits = subflow.is_waiting();
        if (answered || !waits) && !subflow.path.carrier_suspects() {
            subflow.suspect = false;
            subflow.lanes.iter_mut().for_each(|lane| lane.tx.restart_wait(now));
            // While all were suspect, frames were sent on all of them.
            self.reinject_from_suspects();
        }
    }

    /// Reports the next message, and drops a duplicate.
    fn on_message(&mut self, seq: u32, text: &str) {
        if seq == self.messages.expected {
            self.messages.expected = self.messages.expected.wrapping_add(1);
            self.push_event(Event::Message(text.to_owned()));
        }
    }
}
