//! The fate of sent frames: acknowledged, or lost with their lane.
//!
//! Both remove the frame from its lane's list. An acknowledged piece of a stream is freed, and an acknowledged control
//! frame is known to the peer. A lost piece is queued to be retransmitted, and the key of a lost control frame is
//! queued again if it is still of use.

use super::error::Violation;
use super::phase::{Cause, Phase};
use super::state::Session;
use crate::link::path::lane::{LaneTx, SentFrame};
use crate::link::wire::content::{FrameContent, Key};
use crate::link::wire::frame::{LANE_ACK_BYTES, LaneAck, Lines};
use crate::link::wire::ids::Time;

/// The news of an ACK about the lanes of one subflow.
#[derive(Clone, Copy, Debug, Default)]
struct News {
    any: bool,
    /// The time at which the latest acknowledged frame was sent, and the bytes that were in flight then.
    latest: Option<(Time, u64)>,
}

impl Session {
    /// Processes an ACK. It measures the path of a subflow once, by the latest frame on all lanes: each lane by itself would
    /// add the time since it was last used.
    pub(super) fn on_acks(&mut self, now: Time, acks: Lines<'_, LANE_ACK_BYTES>) -> Result<(), Violation> {
        let mut acks = acks.iter().peekable();
        let mut news = News::default();
        while let Some(ack) = acks.next() {
            let Some(index) = self.subflows.iter().position(|subflow| subflow.id.0 == ack.subflow) else { continue };
            self.on_lane_ack(now, index, ack, &mut news)?;
            if acks.peek().is_none_or(|next| next.subflow != ack.subflow) {
                self.on_subflow_acked(now, index, std::mem::take(&mut news));
            }
        }
        Ok(())
    }

    /// Processes one line of an ACK.
    fn on_lane_ack(&mut self, now: Time, index: usize, ack: LaneAck, news: &mut News) -> Result<(), Violation> {
        let Some(subflow) = self.subflows.get_mut(index) else { return Ok(()) };
        let Some(lane) = subflow.lanes.get_mut(usize::from(ack.lane)) else { return Err(Violation::Ack) };
        if !lane.tx.on_ack(now, ack.bytes).map_err(|_| Violation::Ack)? {
            return Ok(());
        }
        news.any = true;
        while let Some(entry) = self.pop_acked(index, usize::from(ack.lane)) {
            if entry.content != FrameContent::Ack && news.latest.is_none_or(|(at, _)| entry.at >= at) {
                news.latest = Some((entry.at, u64::from(entry.expected.queued)));
            }
            self.on_frame_acked(entry);
        }
        Ok(())
    }

    /// Applies what an ACK says about a subflow as a whole.
    fn on_subflow_acked(&mut self, now: Time, index: usize, news: News) {
        if !news.any {
            return;
        }
        if let (Some((at, queued)), Some(subflow)) = (news.latest, self.subflows.get_mut(index)) {
            // The time of a lane that had stalled is not that of the path.
            let is_in_order = subflow.lanes.len() == 1 || at >= subflow.acked_sent_at;
            subflow.on_progress(now, at);
            if is_in_order && subflow.shows_rate(now) {
                let acked = subflow.acked();
                subflow.path.on_ack(now, now.since(at), acked, queued);
            }
        }
        self.clear_suspicion(now, index, false);
        self.wake_writers();
        self.check_drained();
    }

    fn pop_acked(&mut self, index: usize, lane: usize) -> Option<SentFrame> {
        self.subflows.get_mut(index)?.with_lane(lane, LaneTx::pop_acked)?
    }

    fn on_frame_acked(&mut self, entry: SentFrame) {
        match entry.content {
            FrameContent::Data(id, piece) => {
                let Some(slot) = self.streams.live_slot(id) else { return };
                if self.with_send(slot, |send| send.on_acked(piece)) == Some(true) {
                    self.update_stream(slot);
                }
            }
            FrameContent::Control(key) => self.on_control_acked(key),
            FrameContent::Ack | FrameContent::Nothing => {}
        }
    }

    fn on_control_acked(&mut self, key: Key) {
        if let Some((id, _)) = key.stream_bit() {
            let Some(slot) = self.streams.live_slot(id) else { return };
            match key {
                Key::Open(_) | Key::OpenResult(_) => self.on_opening_acked(slot),
                Key::Reset(_) => self.streams.get_mut(slot).into_iter().for_each(|s| s.send.on_reset_acked()),
                _ => {}
            }
            self.update_stream(slot);
            return;
        }
        match key {
            Key::Listen(id) => self.on_listen_acked(id),
            Key::ListenResult(id) => {
                self.served_listeners.live.get_mut(&id).into_iter().for_each(|l| l.result_acked = true);
            }
            Key::Unlisten(id) => {
                self.requested_listeners.remove(&id);
            }
            Key::Message(seq) => self.on_message_acked(seq),
            Key::Close => {
                if let Phase::Closing { code, ref text, .. } = self.phase {
                    let text = text.clone();
                    self.end(code, text, Cause::Local);
                }
            }
            _ => {}
        }
    }

    /// Removes the first queued message, which the peer has acknowledged.
    fn on_message_acked(&mut self, seq: u32) {
        if seq == self.messages.seq && self.messages.outgoing.pop_front().is_some() {
            self.messages.seq = seq.wrapping_add(1);
            if !self.messages.outgoing.is_empty() {
                self.queue_control(Key::Message(self.messages.seq));
            }
        }
    }

    /// Queues the content of a lost frame again, unless it was reinjected.
    pub(super) fn on_frame_lost(&mut self, entry: SentFrame) {
        if entry.reinjected {
            return;
        }
        match entry.content {
            FrameContent::Data(id, piece) => {
                if let Some(slot) = self.streams.live_slot(id)
                    && self.with_send(slot, |send| send.on_lost(piece)) == Some(true)
                {
                    self.update_stream(slot);
                }
            }
            FrameContent::Control(key) => {
                if let Key::Open(id) = key {
                    self.on_open_lost(id);
                }
                self.requeue_control(key);
            }
            FrameContent::Ack => {
                self.acks.due = true;
                let lanes = self.subflows.iter_mut().flat_map(|subflow| &mut subflow.lanes);
                lanes.for_each(|lane| lane.rx.forget_announced());
            }
            FrameContent::Nothing => {}
        }
    }

    /// Queues the key of a lost control frame, if it is still of use.
    fn requeue_control(&mut self, key: Key) {
        let wanted = match key {
            Key::Listen(id) => self.requested_listeners.get(&id).is_some_and(|listener| !listener.acked),
            Key::Unlisten(id) => self.requested_listeners.contains_key(&id),
            // The acknowledgement of an earlier answer does not cover a later failure.
            Key::ListenResult(id) => {
                self.served_listeners.live.get(&id).is_some_and(|l| !l.result_acked || l.is_lost())
            }
            Key::Message(seq) => seq == self.messages.seq && !self.messages.outgoing.is_empty(),
            Key::Class(id) => self.subflow(id).is_some(),
            Key::SessionBlocked => self.tx.credit <= self.tx.sent,
            _ => true,
        };
        if wanted {
            self.queue_control(key);
        }
    }
}
