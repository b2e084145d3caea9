//! The commands of the application. Each is legal at any time: one that no longer applies returns an error or does
//! nothing.

use super::error::Refused;
use bytes::Bytes;

use super::event::Event;
use super::phase::{Cause, Phase};
use super::state::Session;
use crate::link::path::subflow::Subflow;
use crate::link::stream::credit::Window;
use crate::link::stream::state::{PendingReply, Stream, StreamState};
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::cursor::clipped;
use crate::link::wire::frame::Class;
use crate::link::wire::ids::{StreamId, SubflowId, Time};
use crate::link::wire::open::{Bound, Open, TEXT_BYTES_MAX};

pub use crate::link::stream::datagram::{DATAGRAM_BYTES_MAX, DatagramDrops};
/// Maximum length of a message in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Maximum number of queued messages.
const MESSAGES_MAX: usize = 64;

impl Session {
    /// Opens a stream. The answer is [`Event::OpenResult`]; data may be written before.
    ///
    /// With a peer that has [`Capability::OrderedOpens`](crate::link::Capability::OrderedOpens), at most
    /// [`OPENS_MAX`](crate::link::OPENS_MAX) OPENs are unacknowledged; further ones are refused with
    /// [`Refused::NotNow`].
    pub fn open(&mut self, now: Time, open: Open) -> Result<StreamId, Refused> {
        let result = self.try_open(now, open);
        self.finish_call();
        result
    }

    fn try_open(&mut self, now: Time, open: Open) -> Result<StreamId, Refused> {
        if !open.is_valid() {
            return Err(Refused::TooLong);
        }
        if matches!(self.phase, Phase::Ended { .. } | Phase::Closing { .. })
            || self.going_away.iter().any(Option::is_some)
        {
            return Err(Refused::Closed);
        }
        let id = self.streams.next_id(true).ok_or(Refused::Exhausted)?;
        if self.peer_boot.is_none() {
            return Err(Refused::NotYet);
        }
        if self.waits_for_openings() {
            self.tx.open_refused = true;
            return Err(Refused::NotNow);
        }
        if self.streams.opened(true) >= self.tx.streams {
            return Err(Refused::Limit);
        }
        let window = Window::new(self.config.stream_bounds(), now);
        self.streams.insert(Stream::requested(id, open, self.tx.peer.stream_credit, window));
        self.tx.opens += 1;
        self.queue_control(Key::Open(id));
        Ok(id)
    }

    /// Accepts a stream that the peer opened. `bound` is the local address of its connection.
    pub fn accept(&mut self, id: StreamId, bound: Bound) -> Result<(), Refused> {
        self.answer(id, StreamState::Accepted, Bound { failure: None, ..bound })?;
        if let Some(slot) = self.streams.live_slot(id) {
            self.update_stream(slot);
        }
        self.finish_call();
        Ok(())
    }

    /// Refuses a stream that the peer opened. The stream has no more events here.
    pub fn refuse(&mut self, now: Time, id: StreamId, result: Bound) -> Result<(), Refused> {
        let code = result.failure.unwrap_or(Code::Other);
        self.answer(id, StreamState::Refused, Bound { failure: Some(code), ..result })?;
        self.abort_stream(now, id, code);
        self.finish_call();
        Ok(())
    }

    pub(super) fn answer(&mut self, id: StreamId, state: StreamState, result: Bound) -> Result<(), Refused> {
        let stream =
            self.streams.by_id(id).filter(|stream| stream.state == StreamState::Offered).ok_or(Refused::Gone)?;
        stream.state = state;
        stream.pending_reply = Some(Box::new(PendingReply::Result(result)));
        self.queue_control(Key::OpenResult(id));
        Ok(())
    }

    /// Aborts both directions of a stream.
    pub(super) fn abort_stream(&mut self, now: Time, id: StreamId, code: Code) {
        if let Some(slot) = self.streams.live_slot(id) {
            self.reset_send(slot, code);
            self.stop_recv(now, slot, code);
            self.update_stream(slot);
        }
    }

    /// Removes as many bytes as there is room for from the front of `chunk`, queues them and returns their number. If
    /// bytes are left, [`Event::Writable`] tells when to continue.
    pub fn write(&mut self, id: StreamId, chunk: &mut Bytes) -> Result<usize, Refused> {
        let slot = self.streams.live_slot(id).ok_or(Refused::Gone)?;
        let stream = self.streams.get(slot).filter(|stream| stream.send.is_open()).ok_or(Refused::Gone)?;
        let (room, cap) = self.write_room(stream);
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
        if room < chunk.len() {
            self.refuse_write(slot, cap);
        }
        if room > 0 {
            let part = chunk.split_to(room);
            self.with_send_and_pools(slot, |send, pools| send.write(part, pools));
            self.update_stream(slot);
        }
        self.finish_call();
        Ok(room)
    }

    /// Returns the number of bytes that [`Session::write`] would take now, at most `wished`. If it is zero,
    /// [`Event::Writable`] tells when there is room.
    pub fn room(&mut self, id: StreamId, wished: usize) -> Result<usize, Refused> {
        let slot = self.streams.live_slot(id).ok_or(Refused::Gone)?;
        let stream = self.streams.get(slot).filter(|stream| stream.send.is_open()).ok_or(Refused::Gone)?;
        let (room, cap) = self.write_room(stream);
        if room == 0 {
            self.refuse_write(slot, cap);
        }
        Ok(usize::try_from(room).unwrap_or(usize::MAX).min(wished))
    }

    /// Returns the bytes of a stream that can be taken, in order and without a copy.
    pub fn readable(&self, id: StreamId) -> impl Iterator<Item = &[u8]> {
        let slot = self.streams.live_slot(id);
        let stream = slot.and_then(|slot| self.streams.get(slot)).filter(|stream| stream.recv.is_open());
        stream.into_iter().flat_map(|stream| stream.recv.runs())
    }

    /// Removes the first `count` bytes of what is readable. Returns the number of removed bytes.
    pub fn consume(&mut self, now: Time, id: StreamId, count: usize) -> usize {
        let round_us = self.round_us();
        let Some(slot) = self.streams.live_slot(id) else { return 0 };
        let Some(stream) = self.streams.get_mut(slot).filter(|stream| stream.recv.is_open()) else { return 0 };
        let taken = stream.recv.consume(count as u64, &mut self.pools);
        if taken > 0 {
            stream.readable_reported = false;
            stream.recv.window.consume(taken, now, round_us);
            stream.recv.window.widen(stream.recv.held(), now, round_us);
            let due = stream.recv.window.is_due();
            if due {
                self.queue_control(Key::Credit(id));
            }
            self.consume_session(now, taken);
        }
        self.update_stream(slot);
        self.finish_call();
        usize::try_from(taken).unwrap_or(count)
    }

    /// Ends the sending half of a stream: the peer's application sees the end after the last byte.
    pub fn finish(&mut self, id: StreamId) -> Result<(), Refused> {
        let slot = self.streams.live_slot(id).ok_or(Refused::Gone)?;
        let stream = self.streams.get_mut(slot).filter(|stream| stream.send.is_open()).ok_or(Refused::Gone)?;
        stream.send.finish();
        self.update_stream(slot);
        self.finish_call();
        Ok(())
    }

    /// Resets the sending half of a stream: bytes that the peer's application has not taken may be lost, and it is told
    /// so.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        if let Some(slot) = self.streams.live_slot(id) {
            self.reset_send(slot, code);
            self.update_stream(slot);
        }
        self.finish_call();
    }

    /// Stops the receiving half of a stream, and asks the peer to send no more.
    pub fn stop(&mut self, now: Time, id: StreamId, code: Code) {
        if let Some(slot) = self.streams.live_slot(id) {
            self.stop_recv(now, slot, code);
            self.update_stream(slot);
        }
        self.finish_call();
    }

    /// Sends a datagram on a stream of [`Kind::Udp`](crate::link::Kind::Udp). The datagram may be lost, and is dropped
    /// if it cannot be sent soon.
    pub fn send_datagram(&mut self, now: Time, id: StreamId, payload: Bytes) -> Result<(), Refused> {
        if payload.len() > DATAGRAM_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let slot = self.streams.live_slot(id).ok_or(Refused::Gone)?;
        self.streams.get(slot).filter(|stream| stream.send.is_open()).ok_or(Refused::Gone)?;
        self.drop_late_datagrams(now);
        self.choose_after_silence(now, slot);
        self.with_datagrams(slot, |datagrams, full| datagrams.send(now, payload, full)).ok_or(Refused::Gone)?;
        self.update_stream(slot);
        self.finish_call();
        Ok(())
    }

    /// Returns the next received datagram.
    pub fn recv_datagram(&mut self, id: StreamId) -> Option<Bytes> {
        let slot = self.streams.live_slot(id)?;
        self.with_datagrams(slot, |datagrams, _| datagrams.next_incoming()).flatten()
    }

    /// Returns the datagrams of a stream that this end has dropped and [`Session::take_datagram_drops`] has not returned.
    pub fn datagram_drops(&self, id: StreamId) -> DatagramDrops {
        let stream = self.streams.live_slot(id).and_then(|slot| self.streams.get(slot));
        stream.and_then(|stream| stream.datagrams.as_ref()).map_or_else(Default::default, |datagrams| datagrams.drops())
    }

    /// Returns the datagrams of a stream that this end has dropped since the last call.
    pub fn take_datagram_drops(&mut self, id: StreamId) -> DatagramDrops {
        let slot = self.streams.live_slot(id);
        let datagrams = slot.and_then(|slot| self.streams.get_mut(slot)?.datagrams.as_mut());
        datagrams.map_or_else(Default::default, |datagrams| datagrams.take_drops())
    }

    /// Sends a message to the peer's user, truncated to [`MESSAGE_BYTES_MAX`] bytes.
    pub fn message(&mut self, text: &str) -> Result<(), Refused> {
        if matches!(self.phase, Phase::Ended { .. } | Phase::Closing { .. }) {
            return Err(Refused::Closed);
        }
        if self.messages.outgoing.len() >= MESSAGES_MAX {
            return Err(Refused::Limit);
        }
        self.messages.outgoing.push_back(clipped(text, MESSAGE_BYTES_MAX).to_owned());
        if self.messages.outgoing.len() == 1 {
            self.queue_control(Key::Message(self.messages.seq));
        }
        self.finish_call();
        Ok(())
    }

    /// Asks the peer to open no more streams, and refuses to open any here. Live streams continue.
    pub fn go_away(&mut self, code: Code, text: &str) {
        let [mine, _] = &mut self.going_away;
        if mine.is_none() {
            *mine = Some((code, clipped(text, TEXT_BYTES_MAX).to_owned()));
            self.queue_control(Key::GoAway);
        }
        self.finish_call();
    }

    /// Closes the session in order: the peer is told, and then all live streams are reset at both ends.
    pub fn close(&mut self, now: Time, code: Code, text: &str) {
        let text = clipped(text, TEXT_BYTES_MAX).to_owned();
        match self.phase {
            Phase::Ended { .. } | Phase::Closing { .. } => {}
            Phase::Open => {
                self.phase = Phase::Closing { since: now, code, text };
                self.queue_control(Key::Close);
            }
            _ => self.end(code, text, Cause::Local),
        }
        self.finish_call();
    }

    /// Ends the session without telling the peer, whose node has restarted and knows nothing of it.
    pub fn abandon(&mut self, code: Code) {
        self.end(code, String::new(), Cause::Local);
        self.finish_call();
    }

    /// Returns true if two subflows carry new data, and at least one of them was a backup before.
    pub fn are_on_trial(&self, ids: [SubflowId; 2]) -> bool {
        let subflows = ids.map(|id| self.subflow(id));
        let carries = |subflow: &Subflow| subflow.is_live() && !subflow.suspect && subflow.class() == Class::Active;
        subflows.iter().all(|subflow| subflow.is_some_and(carries)) && subflows.iter().flatten().any(|it| it.was_backup)
    }

    /// Sets the class of a subflow at both ends.
    pub fn set_class(&mut self, id: SubflowId, class: Class) {
        if let Some(subflow) = self.subflows.iter_mut().find(|subflow| subflow.id == id) {
            let [mine, _] = &mut subflow.classes;
            *mine = class;
            subflow.was_backup |= class == Class::Backup;
            self.queue_control(Key::Class(id));
            self.check_drained();
        }
        self.finish_call();
    }

    /// Sends a PING on a subflow soon, whatever else it carries.
    pub fn probe(&mut self, id: SubflowId) {
        self.subflows.iter_mut().filter(|subflow| subflow.id == id).for_each(|subflow| subflow.pinged = None);
        self.finish_call();
    }

    /// Reports closing subflows that have nothing in flight any more.
    pub(super) fn check_drained(&mut self) {
        for subflow in &mut self.subflows {
            if subflow.class() == Class::Closing && !subflow.drained_reported && subflow.frames() == 0 {
                subflow.drained_reported = true;
                self.events.push_back(Event::SubflowDrained(subflow.id));
            }
        }
    }
}
