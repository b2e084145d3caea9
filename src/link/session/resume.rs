//! Resuming a suspended session: both ends first exchange the position of each stream.
//!
//! Lane acknowledgements alone would be enough: unacknowledged frames are sent again, and duplicates are dropped.
//! RESUME_STATE avoids the repetition, and proves that both ends have the same bytes: what the peer claims to have
//! received must be between what it has acknowledged and what it was sent. A stream for which that does not hold is
//! reset, and the application is told.

use super::event::Event;
use super::phase::{Phase, Resume};
use super::state::Session;
use crate::link::stream::state::StreamState;
use crate::link::wire::code::Code;
use crate::link::wire::frame::{FLAG_LAST, Lines, STREAM_POSITION_BYTES, StreamPosition, frame_with, kind};
use crate::link::wire::header::{BODY_BYTES_MAX, FrameError, OFFSET_MAX};
use crate::link::wire::ids::{StreamId, SubflowId, Time};
use crate::link::wire::outbox::Outbox;

/// Number of streams in one frame.
const STATES_MAX: usize = BODY_BYTES_MAX / STREAM_POSITION_BYTES;

impl Session {
    pub(super) fn start_resume(&mut self, subflow: SubflowId) {
        let overtaken = self.subflow(subflow).is_none_or(|s| s.up_count_before != self.up_count);
        let alone = self.subflows.len() == 1 && !overtaken;
        self.phase = Phase::Resuming(Resume { subflow, next: Some(0), heard: false, alone });
    }

    /// Notes that another subflow is up, so that its acknowledgements may overtake the states.
    pub(super) fn on_join_while_resuming(&mut self) {
        if let Phase::Resuming(resume) = &mut self.phase {
            resume.alone = false;
        }
    }

    /// Writes the next RESUME_STATE, if this subflow carries the exchange and there is one to send.
    pub(super) fn write_resume_state(&mut self, subflow: SubflowId, out: &mut Outbox) -> bool {
        let Phase::Resuming(resume) = &mut self.phase else { return false };
        let Some(from) = resume.next.filter(|_| resume.subflow == subflow) else { return false };
        let end = self.streams.starting_at(from).nth(STATES_MAX).map(|(slot, _)| slot);
        resume.next = end;
        let flags = if end.is_none() { FLAG_LAST } else { 0 };
        let streams = self.streams.starting_at(from).take(STATES_MAX);
        out.frame(|heads| {
            frame_with(heads, kind::RESUME_STATE, flags, 0, |body| {
                streams.for_each(|(_, stream)| {
                    let state = StreamPosition {
                        id: stream.id.0,
                        received: stream.recv.settled(),
                        credit: stream.recv.window.announced(),
                        sent: stream.send.next(),
                    };
                    state.encode(body);
                });
            });
        });
        true
    }

    /// Opens the session if both ends are done with the exchange.
    pub(super) fn check_resumed(&mut self) {
        if let Phase::Resuming(resume) = &self.phase
            && resume.heard
            && resume.next.is_none()
        {
            self.on_resumed();
        }
    }

    pub(super) fn on_resumed(&mut self) {
        self.phase = Phase::Open;
        if std::mem::take(&mut self.suspended_reported) {
            self.stats.resumes += 1;
            self.push_event(Event::Resumed);
        }
    }

    pub(super) fn on_resume_state(
        &mut self,
        now: Time,
        last: bool,
        states: Lines<'_, STREAM_POSITION_BYTES>,
    ) -> Result<(), FrameError> {
        states.iter().for_each(|state| self.on_stream_state(now, state));
        if let Phase::Resuming(resume) = &mut self.phase {
            resume.heard |= last;
        }
        Ok(())
    }

    /// Compares the peer's position of a stream with this end's. Streams that only one end knows are opening or over.
    ///
    /// The peer cannot have less than it has acknowledged, unless acknowledgements on other subflows that came up
    /// meanwhile are newer than the state.
    fn on_stream_state(&mut self, now: Time, state: StreamPosition) {
        let alone = matches!(&self.phase, Phase::Resuming(resume) if resume.alone);
        let id = StreamId(state.id);
        let Some(slot) = self.streams.live_slot(id) else { return };
        let Some(stream) = self.streams.get(slot) else { return };
        let (send, recv) = (&stream.send, &stream.recv);
        let whole = state.received <= send.next() && state.sent <= recv.window.announced();
        let fresh = state.received >= send.una() && state.credit >= send.credit() && state.sent >= recv.highest();
        let over = send.reset_frame().is_some() || !recv.is_open();
        if !over && !(whole && (fresh || !alone)) {
            let known = matches!(stream.state, StreamState::Requested | StreamState::Offered | StreamState::Accepted);
            if known {
                self.push_event(Event::Reset { id, code: Code::Internal });
            }
            self.abort_stream(now, id, Code::Internal);
            return;
        }
        self.with_send(slot, |send| {
            if state.credit <= OFFSET_MAX {
                send.raise_credit(state.credit);
            }
            send.on_received(state.received.min(send.next()));
        });
        self.update_stream(slot);
    }
}
