//! A lane: an ordered pipe for frames, with the list of frames in flight and its acknowledgements.
//!
//! A lane is reliable and ordered as long as it lives, so one number tells what has arrived: the peer has processed N
//! bytes of the lane. The sender lists the frames that it put on the lane, each with its end position. An
//! acknowledgement pops the list up to N; when the lane dies, the rest of the list is sent on other lanes.
//!
//! A lane of several can stall by itself: a carrier such as QUIC repairs a loss in one stream while the others go on. Frames
//! that were sent later on other lanes are then acknowledged first.

use crate::link::wire::content::FrameContent;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::link::wire::header::{FRAME_BYTES_MAX, FrameError, HEADER_BYTES, Header};
use crate::link::wire::ids::Time;

/// A frame in flight.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct SentFrame {
    /// Position in the lane of the first byte after the frame.
    pub(in crate::link) end: u64,
    pub(in crate::link) at: Time,
    pub(in crate::link) content: FrameContent,
    /// True if its content was queued for another lane, so that nothing is lost with this lane.
    pub(in crate::link) reinjected: bool,
    /// The delay that was expected when it was sent.
    pub(in crate::link) expected: Expectation,
}

/// The state of a subflow when a frame was sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) struct Expectation {
    /// Bytes in flight on the subflow, including the frame.
    pub(in crate::link) queued: u32,
    /// Time in microseconds after which the frame is late without an acknowledgement; `u32::MAX` is never.
    pub(in crate::link) late_us: u32,
}

impl Expectation {
    pub(in crate::link) fn new(queued: u64, late_us: u64) -> Expectation {
        let most = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Expectation { queued: most(queued), late_us: most(late_us) }
    }
}

impl SentFrame {
    /// Returns true if the content can be queued for another lane and was not yet. An ACK cannot: no acknowledgement is
    /// sent for it alone, so a missing one is no sign of a loss.
    pub(in crate::link) fn is_reinjectable(&self) -> bool {
        !self.reinjected && matches!(self.content, FrameContent::Data(..) | FrameContent::Control(_))
    }

    /// Returns the time from which on the frame is late.
    pub(in crate::link) fn late_at(&self) -> Time {
        match self.expected.late_us {
            u32::MAX => Time::MAX,
            us => self.at.after(u64::from(us)),
        }
    }
}

/// The sending side of a lane.
#[derive(Debug, Default)]
pub(in crate::link) struct LaneTx {
    sent: u64,
    acked: u64,
    in_flight: VecDeque<SentFrame>,
    /// The number of frames at the front of the list that cannot be reinjected, as far as that is known.
    settled: usize,
    /// Number of frames in flight that elicit an acknowledgement.
    eliciting: usize,
    /// Start of the wait for the next acknowledgement.
    waiting_since: Time,
    /// Time of the last acknowledgement, or of the first frame in flight if that is later.
    progress_at: Time,
    /// True if other lanes of the subflow have overtaken this one and its acknowledgement is overdue.
    stalled: bool,
}

impl LaneTx {
    /// Notes a sent frame of `len` bytes. `full` is true if the list is longer than frames with content make it.
    pub(in crate::link) fn on_sent(
        &mut self,
        now: Time,
        len: u64,
        content: FrameContent,
        expected: Expectation,
        full: bool,
    ) {
        self.sent += len;
        if let Some(last) = self.in_flight.back_mut() {
            // Only the last of several ACKs matters. Without an answer they would pile up.
            if content == FrameContent::Ack && last.content == FrameContent::Ack {
                (last.end, last.at, last.reinjected) = (self.sent, now, false);
                return;
            }
            // A peer that sends PINGs without end and acknowledges nothing must not fill the list with PONGs.
            if full && matches!(content, FrameContent::Ack | FrameContent::Nothing) {
                last.end = self.sent;
                return;
            }
        }
        if content != FrameContent::Ack {
            if self.eliciting == 0 {
                (self.waiting_since, self.progress_at) = (now, now);
            }
            self.eliciting += 1;
        }
        self.in_flight.push_back(SentFrame { end: self.sent, at: now, content, reinjected: false, expected });
    }

    /// Notes that the peer has processed `bytes`. Returns true if that is more than before, and an error if it is more
    /// than was sent.
    pub(in crate::link) fn on_ack(&mut self, now: Time, bytes: u64) -> Result<bool, FrameError> {
        if bytes > self.sent {
            return Err(FrameError::Value);
        }
        let news = bytes > self.acked;
        if news {
            self.acked = bytes;
            (self.waiting_since, self.progress_at, self.stalled) = (now, now, false);
        }
        Ok(news)
    }

    /// Removes the next acknowledged frame.
    pub(in crate::link) fn pop_acked(&mut self) -> Option<SentFrame> {
        let first = self.in_flight.front()?;
        if first.end > self.acked {
            return None;
        }
        if first.content != FrameContent::Ack {
            self.eliciting -= 1;
        }
        self.settled = self.settled.saturating_sub(1);
        self.in_flight.pop_front()
    }

    /// Removes all frames, because the lane is dead.
    pub(in crate::link) fn take_lost(&mut self) -> VecDeque<SentFrame> {
        (self.eliciting, self.settled, self.stalled) = (0, 0, false);
        std::mem::take(&mut self.in_flight)
    }

    pub(in crate::link) fn entries(&self) -> impl Iterator<Item = &SentFrame> {
        self.in_flight.iter()
    }

    pub(in crate::link) fn entries_mut(&mut self) -> impl Iterator<Item = &mut SentFrame> {
        self.in_flight.iter_mut()
    }

    /// Returns the number of frames in flight.
    pub(in crate::link) fn frames(&self) -> usize {
        self.in_flight.len()
    }

    /// Returns the first frame that can be reinjected, if it is among the first 32 behind those that were.
    pub(in crate::link) fn first_reinjectable(&self) -> Option<&SentFrame> {
        const LOOK: usize = 32;
        if self.eliciting == 0 {
            return None;
        }
        self.in_flight.range(self.settled..).take(LOOK).find(|frame| frame.is_reinjectable())
    }

    /// Returns the time at which the oldest frame in flight was sent, if it was reinjected.
    pub(in crate::link) fn first_reinjected_at(&self) -> Option<Time> {
        self.in_flight.front().filter(|frame| frame.reinjected).map(|frame| frame.at)
    }

    /// Notes that frames were reinjected.
    pub(in crate::link) fn on_reinjected(&mut self) {
        let rest = self.in_flight.range(self.settled..);
        self.settled += rest.take_while(|frame| !frame.is_reinjectable()).count();
    }

    /// Returns the number of bytes in flight.
    pub(in crate::link) const fn bytes(&self) -> u64 {
        self.sent - self.acked
    }

    pub(in crate::link) const fn sent(&self) -> u64 {
        self.sent
    }

    pub(in crate::link) const fn acked(&self) -> u64 {
        self.acked
    }

    pub(in crate::link) const fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Marks the lane as stalled, until the next acknowledgement.
    pub(in crate::link) fn set_stalled(&mut self) {
        self.stalled = self.eliciting > 0;
    }

    /// Returns the time of the last progress, if a frame that was sent at `acked_sent_at`, later than the first one in flight
    /// here, was acknowledged on another lane.
    pub(in crate::link) fn overtaken_since(&self, acked_sent_at: Time) -> Option<Time> {
        if self.eliciting == 0 {
            return None;
        }
        let first = self.in_flight.iter().find(|frame| frame.content != FrameContent::Ack)?;
        (first.at < acked_sent_at).then_some(self.progress_at)
    }

    /// Returns the number of frames in flight that elicit an acknowledgement.
    pub(in crate::link) const fn eliciting(&self) -> usize {
        self.eliciting
    }

    /// Returns the start of the wait for an acknowledgement, if one is due.
    pub(in crate::link) fn waiting_since(&self) -> Option<Time> {
        (self.eliciting > 0).then_some(self.waiting_since)
    }

    /// Restarts the wait for an acknowledgement.
    pub(in crate::link) fn restart_wait(&mut self, now: Time) {
        self.waiting_since = now;
    }

    pub(in crate::link) fn check(&self) {
        assert!(self.acked <= self.sent);
        assert!(self.settled <= self.in_flight.len());
        assert!(self.in_flight.iter().take(self.settled).all(|frame| !frame.is_reinjectable()));
        assert!(self.in_flight.front().is_none_or(|frame| frame.end > self.acked), "an acknowledged frame in flight");
        assert!(self.in_flight.back().is_none_or(|frame| frame.end <= self.sent));
        let eliciting = self.in_flight.iter().filter(|frame| frame.content != FrameContent::Ack).count();
        assert_eq!(eliciting, self.eliciting);
        assert!(eliciting > 0 || !self.stalled, "a lane without frames in flight is stalled");
    }
}

/// The receiving side of a lane: splits bytes into frames and counts them.
#[derive(Debug, Default)]
pub(in crate::link) struct LaneRx {
    /// An incomplete frame; at most one.
    carry: Vec<u8>,
    processed: u64,
    announced: u64,
}

impl LaneRx {
    /// Returns the header of the frame at the start of `bytes` if the frame is complete.
    pub(in crate::link) fn peek(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(*head)?;
        Ok((body.len() >= header.len).then_some(header))
    }

    /// Completes the carried frame with the start of `bytes`. Returns the number of bytes used.
    pub(in crate::link) fn fill(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let mut used = 0;
        loop {
            let wanted = self.wanted()?.saturating_sub(self.carry.len());
            let part = bytes.get(used..).unwrap_or_default();
            if wanted == 0 || part.is_empty() {
                return Ok(used);
            }
            let part = part.get(..wanted).unwrap_or(part);
            self.carry.reserve_exact(wanted);
            self.carry.extend_from_slice(part);
            used += part.len();
        }
    }

    /// Returns the length of the carried frame, or of its header while that is incomplete.
    fn wanted(&self) -> Result<usize, FrameError> {
        match self.carry.first_chunk::<HEADER_BYTES>() {
            None => Ok(HEADER_BYTES),
            Some(head) => Ok(HEADER_BYTES + Header::decode(*head)?.len),
        }
    }

    /// Removes the carried frame if it is complete.
    pub(in crate::link) fn take_carried(&mut self) -> Result<Option<(Header, Bytes)>, FrameError> {
        let header = Self::peek(&self.carry)?;
        Ok(header.map(|header| {
            // Its capacity is its length, so this neither copies nor keeps memory for a lane that may be idle from now on.
            (header, Bytes::from(std::mem::take(&mut self.carry)))
        }))
    }

    pub(in crate::link) fn is_carrying(&self) -> bool {
        !self.carry.is_empty()
    }

    /// Notes a processed frame of `len` bytes.
    pub(in crate::link) fn on_processed(&mut self, len: u64) {
        self.processed += len;
    }

    /// Returns the number of bytes that were processed and not acknowledged.
    pub(in crate::link) const fn unannounced(&self) -> u64 {
        self.processed - self.announced
    }

    /// Returns the value for an ACK that is sent now.
    pub(in crate::link) fn announce(&mut self) -> u64 {
        self.announced = self.processed;
        self.processed
    }

    /// Makes the next ACK repeat the value of one that may be lost.
    pub(in crate::link) fn forget_announced(&mut self) {
        self.announced = 0;
    }

    pub(in crate::link) fn check(&self) {
        assert!(self.carry.len() <= FRAME_BYTES_MAX);
        assert!(self.announced <= self.processed);
    }
}

/// Both directions of a lane.
#[derive(Debug, Default)]
pub(in crate::link) struct Lane {
    pub(in crate::link) tx: LaneTx,
    pub(in crate::link) rx: LaneRx,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::wire::content::Piece;
    use crate::link::wire::ids::StreamId;

    #[test]
    fn frames_behind_many_reinjected_ones_are_found() {
        let mut lane = LaneTx::default();
        for n in 0..100u64 {
            let content = FrameContent::Data(StreamId(2), Piece { offset: n * 100, len: 100, fin: false });
            lane.on_sent(Time::ZERO, 116, content, Expectation::new(116, 1000), false);
        }
        lane.entries_mut().take(60).for_each(|frame| frame.reinjected = true);
        lane.on_reinjected();
        lane.check();
        assert_eq!(lane.first_reinjectable().map(|frame| frame.end), Some(61 * 116));
        lane.on_ack(Time::ZERO, 30 * 116).unwrap();
        while lane.pop_acked().is_some() {}
        lane.check();
        assert_eq!(lane.first_reinjectable().map(|frame| frame.end), Some(61 * 116));
    }
}
