//! One lane: an ordered pipe for frames, its list of what is in flight, and its acknowledgements.
//!
//! A lane is reliable and ordered as long as it lives, so one number says what has arrived: "I have processed N bytes
//! of this lane". The sender keeps a list of what it put on the lane and at which position each frame ended; an
//! acknowledgement pops the list up to N, and when the lane dies the rest of the list is what has to go elsewhere.

use crate::link::wire::content::FrameContent;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::link::wire::header::{FRAME_BYTES_MAX, FrameError, HEADER_BYTES, Header};
use crate::link::wire::ids::Time;

/// One frame in flight.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct SentFrame {
    /// Position in the lane of the byte after the frame.
    pub(in crate::link) end: u64,
    pub(in crate::link) at: Time,
    pub(in crate::link) content: FrameContent,
    /// Whether its content has been queued for another lane: then the loss of this lane costs nothing.
    pub(in crate::link) reinjected: bool,
    /// What it met when it left.
    pub(in crate::link) expected: Expectation,
}

/// What was known of a subflow when a frame left on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) struct Expectation {
    /// Bytes in flight on the subflow, the frame included.
    pub(in crate::link) queued: u32,
    /// If it is not acknowledged so many microseconds after it left, it is late; never, if this is the most.
    pub(in crate::link) late_us: u32,
}

impl Expectation {
    pub(in crate::link) fn new(queued: u64, late_us: u64) -> Expectation {
        let most = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Expectation { queued: most(queued), late_us: most(late_us) }
    }
}

impl SentFrame {
    /// Whether it has content that has not been queued for another lane. An ACK has none: nothing comes for it by itself, so
    /// that nothing has come says nothing.
    pub(in crate::link) fn is_reinjectable(&self) -> bool {
        !self.reinjected && matches!(self.content, FrameContent::Data(..) | FrameContent::Control(_))
    }

    /// From when on it is late.
    pub(in crate::link) fn late_at(&self) -> Time {
        match self.expected.late_us {
            u32::MAX => Time::MAX,
            us => self.at.after(u64::from(us)),
        }
    }
}

/// The sending side.
#[derive(Debug, Default)]
pub(in crate::link) struct LaneTx {
    sent: u64,
    acked: u64,
    in_flight: VecDeque<SentFrame>,
    /// Entries that the peer acknowledges without being asked twice.
    eliciting: usize,
    /// When the wait for the next acknowledgement began.
    waiting_since: Time,
}

impl LaneTx {
    /// Notes a frame of `len` bytes. `full` is whether the list has grown beyond what frames with content may make of
    /// it.
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
            // Of acknowledgements only the last can matter, and without an answer they would pile up.
            if content == FrameContent::Ack && last.content == FrameContent::Ack {
                (last.end, last.at, last.reinjected) = (self.sent, now, false);
                return;
            }
            // A peer that asks and asks, and acknowledges nothing, shall not fill the list with answers.
            if full && matches!(content, FrameContent::Ack | FrameContent::Nothing) {
                last.end = self.sent;
                return;
            }
        }
        if content != FrameContent::Ack {
            self.waiting_since = if self.eliciting == 0 { now } else { self.waiting_since };
            self.eliciting += 1;
        }
        self.in_flight.push_back(SentFrame { end: self.sent, at: now, content, reinjected: false, expected });
    }

    /// The peer has processed `bytes`. Fails if that is more than was sent; answers whether it is news.
    pub(in crate::link) fn on_ack(&mut self, now: Time, bytes: u64) -> Result<bool, FrameError> {
        if bytes > self.sent {
            return Err(FrameError::Value);
        }
        let news = bytes > self.acked;
        if news {
            self.acked = bytes;
            self.waiting_since = now;
        }
        Ok(news)
    }

    /// Takes the next frame that is acknowledged.
    pub(in crate::link) fn pop_acked(&mut self) -> Option<SentFrame> {
        let first = self.in_flight.front()?;
        if first.end > self.acked {
            return None;
        }
        if first.content != FrameContent::Ack {
            self.eliciting -= 1;
        }
        self.in_flight.pop_front()
    }

    /// Takes everything that is not acknowledged: the lane is gone.
    pub(in crate::link) fn take_lost(&mut self) -> VecDeque<SentFrame> {
        self.eliciting = 0;
        std::mem::take(&mut self.in_flight)
    }

    pub(in crate::link) fn entries(&self) -> impl Iterator<Item = &SentFrame> {
        self.in_flight.iter()
    }

    pub(in crate::link) fn entries_mut(&mut self) -> impl Iterator<Item = &mut SentFrame> {
        self.in_flight.iter_mut()
    }

    /// Frames in flight.
    pub(in crate::link) fn frames(&self) -> usize {
        self.in_flight.len()
    }

    /// The first frame in flight that a rescue would take, of the few where that is looked for.
    pub(in crate::link) fn first_reinjectable(&self) -> Option<&SentFrame> {
        const LOOK: usize = 32;
        self.in_flight.iter().take(LOOK).find(|frame| frame.is_reinjectable())
    }

    /// Bytes in flight.
    pub(in crate::link) const fn bytes(&self) -> u64 {
        self.sent - self.acked
    }

    pub(in crate::link) const fn acked(&self) -> u64 {
        self.acked
    }

    /// Since when an acknowledgement has been waited for, if one is due at all.
    pub(in crate::link) fn waiting_since(&self) -> Option<Time> {
        (self.eliciting > 0).then_some(self.waiting_since)
    }

    /// What is being waited for may take as long again.
    pub(in crate::link) fn restart_wait(&mut self, now: Time) {
        self.waiting_since = now;
    }

    pub(in crate::link) fn check(&self) {
        assert!(self.acked <= self.sent);
        assert!(self.in_flight.front().is_none_or(|frame| frame.end > self.acked), "an acknowledged frame in flight");
        assert!(self.in_flight.back().is_none_or(|frame| frame.end <= self.sent));
        let eliciting = self.in_flight.iter().filter(|frame| frame.content != FrameContent::Ack).count();
        assert_eq!(eliciting, self.eliciting);
    }
}

/// The receiving side: cuts bytes into frames, and counts them.
#[derive(Debug, Default)]
pub(in crate::link) struct LaneRx {
    /// A frame whose end has not arrived yet; never more than one.
    carry: Vec<u8>,
    processed: u64,
    announced: u64,
}

impl LaneRx {
    /// Looks at the next frame at the start of `bytes`. Answers its header if all of it is there.
    pub(in crate::link) fn peek(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(*head)?;
        Ok((body.len() >= header.len).then_some(header))
    }

    /// Adds to the frame that is carried over as much of `bytes` as belongs to it; answers how much that was.
    pub(in crate::link) fn fill(&mut self, bytes: &[u8]) -> Result<usize, FrameError> {
        let mut used = 0;
        loop {
            let wanted = self.wanted()?.saturating_sub(self.carry.len());
            let part = bytes.get(used..).unwrap_or_default();
            if wanted == 0 || part.is_empty() {
                return Ok(used);
            }
            let part = part.get(..wanted).unwrap_or(part);
            self.carry.extend_from_slice(part);
            used += part.len();
        }
    }

    /// How many bytes the carried frame needs to be whole, as far as it can be told yet.
    fn wanted(&self) -> Result<usize, FrameError> {
        match self.carry.first_chunk::<HEADER_BYTES>() {
            None => Ok(HEADER_BYTES),
            Some(head) => Ok(HEADER_BYTES + Header::decode(*head)?.len),
        }
    }

    /// Takes out the frame that was carried over, once it is whole.
    pub(in crate::link) fn take_carried(&mut self) -> Result<Option<(Header, Bytes)>, FrameError> {
        let header = Self::peek(&self.carry)?;
        Ok(header.map(|header| {
            let frame = Bytes::copy_from_slice(&self.carry);
            self.carry.clear();
            (header, frame)
        }))
    }

    pub(in crate::link) fn is_carrying(&self) -> bool {
        !self.carry.is_empty()
    }

    /// A frame of `len` bytes has been processed.
    pub(in crate::link) fn on_processed(&mut self, len: u64) {
        self.processed += len;
    }

    /// Bytes that have been processed and not acknowledged.
    pub(in crate::link) const fn unannounced(&self) -> u64 {
        self.processed - self.announced
    }

    /// The value for an ACK that leaves now.
    pub(in crate::link) fn announce(&mut self) -> u64 {
        self.announced = self.processed;
        self.processed
    }

    /// An ACK may have been lost: what it said has to be said again.
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
