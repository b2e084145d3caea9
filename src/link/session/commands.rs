//! The commands of the application. Any of them is legal at any time; one that makes no sense any more answers so, or
//! does nothing.

use super::error::Refused;
use bytes::Bytes;

use super::event::Event;
use super::phase::{Cause, Phase};
use super::state::Session;
use crate::link::stream::credit::Window;
use crate::link::stream::state::{PendingReply, Stream, StreamState};
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::cursor::clipped;
use crate::link::wire::frame::Class;
use crate::link::wire::header::BODY_BYTES_MAX;
use crate::link::wire::ids::{StreamId, SubflowId, Time};
use crate::link::wire::open::{Bound, Open, TEXT_BYTES_MAX};

/// Bytes of the largest datagram: one frame.
pub const DATAGRAM_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Bytes of the longest message.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Messages that may wait.
const MESSAGES_MAX: usize = 64;

impl Session {
    /// Opens a stream. The answer comes as [`Event::OpenResult`]; bytes may be written before.
    ///
    /// With a peer that has [`Capability::OrderedOpens`](crate::link::Capability::OrderedOpens), at most
    /// [`OPENS_MAX`](crate::link::OPENS_MAX) wait for its word at once; more are refused with [`Refused::NotNow`].
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

    /// Takes a stream that the peer opened; `bound` is the address that was bound for it.
    pub fn accept(&mut self, id: StreamId, bound: Bound) -> Result<(), Refused> {
        self.answer(id, StreamState::Accepted, Bound { failure: None, ..bound })?;
        if let Some(slot) = self.streams.live_slot(id) {
            self.update_stream(slot);
        }
        self.finish_call();
        Ok(())
    }

    /// Refuses a stream that the peer opened. Nothing more is said of it here.
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

    /// Ends both sides of a stream at once.
    pub(super) fn abort_stream(&mut self, now: Time, id: StreamId, code: Code) {
        if let Some(slot) = self.streams.live_slot(id) {
            self.reset_send(slot, code);
            self.stop_recv(now, slot, code);
            self.update_stream(slot);
        }
    }

    /// Takes bytes to send. Takes as many as there is room for off the front of `chunk`, and answers how many that
    /// were; if any are left, [`Event::Writable`] says when to go on.
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

    /// Bytes of a stream that [`Session::write`] would take now, at most `wished`. If there is no room at all,
    /// [`Event::Writable`] says when there is.
    pub fn room(&mut self, id: StreamId, wished: usize) -> Result<usize, Refused> {
        let slot = self.streams.live_slot(id).ok_or(Refused::Gone)?;
        let stream = self.streams.get(slot).filter(|stream| stream.send.is_open()).ok_or(Refused::Gone)?;
        let (room, cap) = self.write_room(stream);
        if room == 0 {
            self.refuse_write(slot, cap);
        }
        Ok(usize::try_from(room).unwrap_or(usize::MAX).min(wished))
    }

    /// Bytes of a stream that can be taken, in order and without a copy.
    pub fn readable(&self, id: StreamId) -> impl Iterator<Item = &[u8]> {
        let slot = self.streams.live_slot(id);
        let stream = slot.and_then(|slot| self.streams.get(slot)).filter(|stream| stream.recv.is_open());
        stream.into_iter().flat_map(|stream| stream.recv.runs())
    }

    /// The first `count` bytes of what is readable have been taken. Answers how many there were to take.
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

    /// No more will be written to the stream: the peer's application sees the end after the last byte.
    pub fn finish(&mut self, id: StreamId) -> Result<(), Refused> {
        let slot = self.streams.live_slot(id).ok_or(Refused::Gone)?;
        let stream = self.streams.get_mut(slot).filter(|stream| stream.send.is_open()).ok_or(Refused::Gone)?;
        stream.send.finish();
        self.update_stream(slot);
        self.finish_call();
        Ok(())
    }

    /// Gives up sending: what the peer's application has not taken may be lost, and it is told so.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        if let Some(slot) = self.streams.live_slot(id) {
            self.reset_send(slot, code);
            self.update_stream(slot);
        }
        self.finish_call();
    }

    /// Takes no more bytes of the stream; the peer is asked to stop sending them.
    pub fn stop(&mut self, now: Time, id: StreamId, code: Code) {
        if let Some(slot) = self.streams.live_slot(id) {
            self.stop_recv(now, slot, code);
            self.update_stream(slot);
        }
        self.finish_call();
    }

    /// Sends a datagram on a stream of [`Kind::Udp`](crate::link::Kind::Udp). It may be lost, and is dropped rather than sent late.
    pub fn send_datagram(&mut self, now: Time, id: StreamId, payload: Bytes) -> Result<(), Refused> {
        if payload.len() > DATAGRAM_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let slot = self.streams.live_slot(id).ok_or(Refused::Gone)?;
        self.streams.get(slot).filter(|stream| stream.send.is_open()).ok_or(Refused::Gone)?;
        self.with_datagrams(slot, |datagrams, full| datagrams.send(now, payload, full)).ok_or(Refused::Gone)?;
        self.update_stream(slot);
        self.finish_call();
        Ok(())
    }

    /// Takes the next datagram that has come in.
    pub fn recv_datagram(&mut self, id: StreamId) -> Option<Bytes> {
        let slot = self.streams.live_slot(id)?;
        self.with_datagrams(slot, |datagrams, _| datagrams.next_incoming()).flatten()
    }

    /// Datagrams of a stream that were dropped at this end, for want of time or room.
    pub fn datagrams_dropped(&self, id: StreamId) -> u64 {
        let stream = self.streams.live_slot(id).and_then(|slot| self.streams.get(slot));
        stream.and_then(|stream| stream.datagrams.as_ref()).map_or(0, |datagrams| datagrams.dropped())
    }

    /// Sends words to the peer's user, cut to [`MESSAGE_BYTES_MAX`] bytes.
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

    /// Asks the peer to open no more streams, and opens none itself. Those that live go on.
    pub fn go_away(&mut self, code: Code, text: &str) {
        let [mine, _] = &mut self.going_away;
        if mine.is_none() {
            *mine = Some((code, clipped(text, TEXT_BYTES_MAX).to_owned()));
            self.queue_control(Key::GoAway);
        }
        self.finish_call();
    }

    /// Ends the session in order: the peer is told, and then everything that still lives is reset at both ends.
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

    /// Ends the session without a word: the peer's node has restarted, and nothing of it is left there.
    pub fn abandon(&mut self, code: Code) {
        self.end(code, String::new(), Cause::Local);
        self.finish_call();
    }

    /// Says how a subflow is to be used; the peer follows.
    pub fn set_class(&mut self, id: SubflowId, class: Class) {
        if let Some(subflow) = self.subflows.iter_mut().find(|subflow| subflow.id == id) {
            let [mine, _] = &mut subflow.classes;
            *mine = class;
            self.queue_control(Key::Class(id));
            self.check_drained();
        }
        self.finish_call();
    }

    /// Tells about closing subflows that have nothing in flight any more.
    pub(super) fn check_drained(&mut self) {
        for subflow in &mut self.subflows {
            if subflow.class() == Class::Closing && !subflow.drained_reported && subflow.frames() == 0 {
                subflow.drained_reported = true;
                self.events.push_back(Event::SubflowDrained(subflow.id));
            }
        }
    }
}
