//! Control frames to send: each is written from the current state.

use super::phase::Phase;
use super::state::Session;
use super::transmit::Transmit;
use crate::link::wire::content::{FrameContent, Key};
use crate::link::wire::frame::Frame;
use crate::link::wire::ids::{StreamId, Time};
use crate::link::wire::outbox::Outbox;

impl Session {
    pub(super) fn send_control(&mut self, now: Time, out: &mut Outbox) -> Option<Transmit> {
        if self.control.is_empty() {
            return None;
        }
        let index = self.scheduler.soonest()?;
        let before = out.len();
        while let Some(key) = self.control.pop() {
            if let Some((id, bit)) = key.stream_bit() {
                self.streams.by_id(id).into_iter().for_each(|stream| stream.queued &= !bit);
            }
            if self.write_control(key, out) {
                let transmit = self.record_sent(now, index, 0, before, out, FrameContent::Control(key));
                self.queue_duplicate(now, index, 0, FrameContent::Control(key));
                if let (Key::Open(id), Some(transmit)) = (key, transmit) {
                    self.on_open_sent(id, transmit.subflow, false);
                    self.just_opened = Some(id);
                }
                return transmit;
            }
        }
        None
    }

    /// Writes the control frame for `key`. Returns false if it is of no use any more.
    pub(super) fn write_control(&mut self, key: Key, out: &mut Outbox) -> bool {
        let frame = match key.stream_bit() {
            Some((id, _)) => self.stream_control(key, id),
            None => self.session_control(key),
        };
        if let Some(frame) = &frame {
            out.frame(|heads| frame.encode(heads));
        }
        frame.is_some()
    }

    fn stream_control(&mut self, key: Key, id: StreamId) -> Option<Frame<'static>> {
        let stream = self.streams.by_id(id).filter(|stream| stream.still_wants(key))?;
        let id = id.0;
        Some(match key {
            Key::Open(_) | Key::OpenResult(_) => stream.opening_frame()?,
            Key::Reset(_) => stream.send.reset_frame().map(|(code, size)| Frame::Reset { id, code, size })?,
            Key::Stop(_) => Frame::Stop { id, code: stream.recv.stopped()? },
            Key::Credit(_) => {
                let (max, taken) = stream.recv.window.announce();
                Frame::Credit { id, max, taken }
            }
            Key::Blocked(_) => Frame::Blocked { id, offset: stream.send.next() },
            _ => return None,
        })
    }

    fn session_control(&mut self, key: Key) -> Option<Frame<'_>> {
        Some(match key {
            Key::SessionCredit => {
                let (max, taken) = self.rx.window.announce();
                Frame::Credit { id: 0, max, taken }
            }
            Key::SessionBlocked => Frame::Blocked { id: 0, offset: self.tx.sent },
            Key::MaxStreams => {
                self.rx.streams_announced = self.rx.streams_announced.max(self.streams_allowed());
                Frame::MaxStreams { max: self.rx.streams_announced }
            }
            Key::Listen(id) => Frame::Listen { id, open: self.requested_listeners.get(&id)?.open.clone() },
            Key::ListenResult(id) => {
                Frame::ListenResult { id, result: self.served_listeners.live.get(&id)?.result.clone()? }
            }
            Key::Unlisten(id) => Frame::Unlisten { id },
            Key::UnknownStream(id) => Frame::UnknownStream { id: id.0 },
            Key::Class(id) => Frame::Subflow { subflow: id.0, class: self.subflow(id)?.classes[0] },
            Key::Message(seq) if seq == self.messages.seq => {
                Frame::Message { seq, text: self.messages.outgoing.front()? }
            }
            Key::GoAway => {
                let last = self.streams.opened(false);
                let (code, text) = self.going_away[0].as_ref()?;
                Frame::GoAway { last, code: *code, text }
            }
            Key::Close => match &self.phase {
                Phase::Closing { code, text, .. } => Frame::Close { code: *code, text },
                _ => return None,
            },
            _ => return None,
        })
    }
}
