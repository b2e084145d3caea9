//! Frames for streams that this end does not know: the answer, and its effect at the receiver.
//!
//! Ids rise and are never reused, so a frame for an id without a stream is late, because the stream is over, or
//! invalid, because this end never opened it. Neither creates a stream. A frame which shows that its sender has the
//! stream (DATA, OPEN, OPEN_RESULT) is answered by a RESET with a flag for "unknown stream", without a final size,
//! because this end does not know one. A RESET is never answered, so that two ends cannot answer each other for ever.
//! The queue holds few answers, each for another stream.
//!
//! **An honest peer loses nothing by the answer.** One end forgets a stream only after it has processed everything that
//! the other end sent, including its end, and the other end has acknowledged the same of its direction. So an end that
//! still has the stream knows both ends of it and waits only for acknowledgements and for its application; it ignores
//! the answer. Any other end learns from the answer that the stream cannot complete, and ends it.

use super::event::Event;
use super::state::Session;
use crate::link::stream::state::StreamState;
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::ids::{StreamId, Time};
use crate::link::wire::open::Bound;

impl Session {
    /// Answers a frame for an unknown stream, if its sender `expects_stream`.
    pub(super) fn answer_unknown_stream(&mut self, id: StreamId, expects_stream: bool) {
        if expects_stream {
            self.queue_control(Key::UnknownStream(id));
        }
    }

    /// Reports a frame for a stream that never existed, unless that stream was reported a moment ago.
    pub(super) fn report_stray(&mut self, id: StreamId) {
        if self.strays.contains(&id) {
            return;
        }
        if self.strays.len() == STRAYS_MAX {
            self.strays.pop_front();
        }
        self.strays.push_back(id);
        self.push_event(Event::Stray(id));
    }

    /// Handles the peer's answer that it does not know a stream. Unless both directions are complete, they never will
    /// be, and the stream ends.
    pub(super) fn on_unknown_stream(&mut self, now: Time, id: StreamId) {
        let Some(slot) = self.streams.live_slot(id) else { return };
        let Some(stream) = self.streams.get_mut(slot) else { return };
        if stream.send.has_sent_all() && (stream.recv.is_complete() || stream.recv.is_over()) {
            return;
        }
        let code = Code::ProtocolError;
        let requested = stream.state == StreamState::Requested;
        let known = matches!(stream.state, StreamState::Offered | StreamState::Accepted);
        let writes = !stream.send.is_over() && stream.send.reset_frame().is_none();
        let before = stream.recv.gaps();
        let highest = stream.recv.highest();
        let (arrived, cut_short) = stream.recv.reset(highest, &mut self.pools).unwrap_or_default();
        self.rx.gaps = self.rx.gaps + stream.recv.gaps() - before;
        let never_opened = stream.state == StreamState::Implicit;
        if stream.state != StreamState::Accepted {
            stream.state = StreamState::Refused;
        }
        self.on_opening_acked(slot);
        if never_opened {
            self.on_opened(id);
        }
        self.with_send(slot, |send| {
            send.reset(code);
            send.on_reset_acked();
        });
        if requested {
            self.push_event(Event::OpenResult { id, result: Bound::refused(code) });
        }
        if known && writes {
            self.push_event(Event::Stopped { id, code });
        }
        if known && cut_short {
            self.push_event(Event::Reset { id, code });
        }
        self.consume_session(now, arrived.dropped);
        self.wake_writers();
        self.update_stream(slot);
    }
}

/// Streams that never existed and are remembered as reported.
const STRAYS_MAX: usize = 64;
