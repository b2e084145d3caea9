//! Frames for streams that are not here: the answer to them, and what that answer means to whoever gets it.
//!
//! Ids are never used again and rise without a gap, so a frame for an id that has no stream is either late (the stream
//! is over) or makes no sense (this end never opened it). Neither opens anything. A frame from which it follows that
//! its sender believes in the stream (DATA, OPEN, OPEN_RESULT) is answered with a RESET whose flag says "there is no
//! such stream here", without a final size, because nobody remembers one. RESET itself is never answered, so that two
//! ends cannot talk past each other for ever. Answers that wait are few and each is about another stream.
//!
//! **An honest peer loses nothing by such an answer.** A stream is over at one end only when all that the other end
//! sent, its end included, has been processed, and when the other end has acknowledged the same for its direction. So
//! whoever still has the stream knows both ends of it, waits for nothing but acknowledgements and its own application,
//! and ignores the answer. Whoever does not is told the truth for the first time, and ends the stream.

use super::event::Event;
use super::state::Session;
use crate::link::stream::state::StreamState;
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::ids::{StreamId, Time};
use crate::link::wire::open::Bound;

impl Session {
    /// A frame was about a stream that is not here. `believes` is whether its sender seems to have the stream.
    pub(super) fn answer_unknown_stream(&mut self, id: StreamId, expects_stream: bool) {
        if expects_stream {
            self.queue_control(Key::UnknownStream(id));
        }
    }

    /// The peer has no such stream. If this end has one whose two sides have not both come to their end, the peer will
    /// never finish it.
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
