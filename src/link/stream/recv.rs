//! The receiving half of a stream: reassembly, and the bytes that the application has not taken.
//!
//! ```text
//!        read         contiguous        highest       credit
//!  taken  |   ready       |  gaps, ahead   |             |
//!  -------+---------------+----------------+ - - - - - - +
//! ```
//!
//! Everything within credit is accepted, because it was promised; bytes beyond it are a violation. Of bytes that arrive
//! twice the first copy stays. Large payloads reference their read buffer. Small ones are copied into common buffers,
//! so that a small payload cannot keep a large buffer in memory: see `pins`.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};

use super::credit::Window;
use super::pools::Pools;
use super::queue_pool::PooledQueue;
use super::run::{Run, push_run};
use crate::link::wire::code::Code;

/// Contiguous bytes behind a gap.
#[derive(Debug)]
struct Span {
    end: u64,
    runs: VecDeque<Run>,
}

/// The bytes behind gaps.
#[derive(Debug, Default)]
struct Ahead {
    /// The spans by their first offset. No two of them touch.
    spans: BTreeMap<u64, Span>,
    bytes: u64,
}

/// The final size of a stream while it is not known. The offset of a byte is below 2^62.
const UNKNOWN: u64 = u64::MAX;

/// A violation of the rules of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum Breach {
    /// Bytes beyond the credit.
    Credit,
    /// A final size that differs from the one before, or bytes beyond it.
    FinalSize,
}

/// The state of the receiving half.
///
/// ```text
/// Open --all taken up to the final size--> Finished
///   |---RESET-------------------------------> Reset
///   +---stop--> Stopped --final size known--> Discarded
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecvState {
    Open,
    Finished,
    Reset,
    Stopped(Code),
    Discarded,
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(in crate::link) struct RecvStream {
    state: RecvState,
    read: u64,
    contiguous: u64,
    highest: u64,
    ready: PooledQueue<Run>,
    /// The bytes behind gaps. A stream without a gap owns none.
    ahead: Option<Box<Ahead>>,
    /// [`UNKNOWN`] until a frame has told it.
    final_size: u64,
    pub(in crate::link) window: Window,
}

/// The effects of received bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::link) struct Arrived {
    /// Increase of the highest offset, which counts against the session's credit.
    pub(in crate::link) risen: u64,
    /// Bytes that the application will never take, and that count as consumed by the session.
    pub(in crate::link) dropped: u64,
    /// Bytes that had arrived before.
    pub(in crate::link) repeated: u64,
}

impl RecvStream {
    pub(in crate::link) fn new(window: Window) -> RecvStream {
        RecvStream {
            state: RecvState::Open,
            read: 0,
            contiguous: 0,
            highest: 0,
            ready: PooledQueue::new(),
            ahead: None,
            final_size: UNKNOWN,
            window,
        }
    }

    /// Takes the payload of a DATA frame, which is a part of the read buffer that `pools.pins` knows.
    pub(in crate::link) fn insert(
        &mut self,
        offset: u64,
        payload: Bytes,
        fin: bool,
        pools: &mut Pools,
    ) -> Result<Arrived, Breach> {
        let end = offset.saturating_add(payload.len() as u64);
        let risen = self.admit(end, fin)?;
        if self.state != RecvState::Open {
            return Ok(Arrived { risen, dropped: risen, repeated: 0 });
        }
        let held = self.held();
        let len = payload.len() as u64;
        if offset <= self.contiguous {
            self.append(offset, payload, pools);
            self.join_ahead(pools);
        } else {
            self.keep_ahead(offset, &payload, pools);
        }
        Ok(Arrived { risen, dropped: 0, repeated: len - (self.held() - held) })
    }

    /// Takes a RESET. Returns its effects, and true if the application must be told.
    pub(in crate::link) fn reset(&mut self, size: u64, pools: &mut Pools) -> Result<(Arrived, bool), Breach> {
        if size < self.highest {
            return Err(Breach::FinalSize);
        }
        let tell = self.state == RecvState::Open && !self.is_complete();
        let risen = self.admit(size, true)?;
        if !tell {
            return Ok((Arrived { risen, dropped: risen, repeated: 0 }, false));
        }
        let dropped = self.discard(pools);
        self.state = RecvState::Reset;
        Ok((Arrived { risen, dropped, repeated: 0 }, true))
    }

    /// Discards all bytes from now on. Returns the bytes that count as consumed, or `None` if the half was not open.
    pub(in crate::link) fn stop(&mut self, code: Code, pools: &mut Pools) -> Option<u64> {
        if self.state != RecvState::Open {
            return None;
        }
        let dropped = self.discard(pools);
        self.state = if self.final_size != UNKNOWN { RecvState::Discarded } else { RecvState::Stopped(code) };
        Some(dropped)
    }

    /// Returns the bytes that the application can take, in order.
    pub(in crate::link) fn runs(&self) -> impl Iterator<Item = &[u8]> {
        self.ready.iter().map(Run::bytes)
    }

    /// Frees up to `count` bytes that the application has taken. Returns their number.
    pub(in crate::link) fn consume(&mut self, count: u64, pools: &mut Pools) -> u64 {
        let count = count.min(self.contiguous - self.read);
        let mut left = count as usize;
        let Some(ready) = self.ready.held() else { return 0 };
        while let Some(run) = ready.front_mut() {
            let len = run.bytes().len();
            if left < len {
                run.skip(left, &mut pools.pins);
                break;
            }
            left -= len;
            ready.pop_front().into_iter().for_each(|run| run.free(&mut pools.pins, &mut pools.bufs));
        }
        self.read += count;
        self.reclaim(pools);
        count
    }

    /// Ends the half once everything has been taken. Returns true exactly once, when that is so.
    pub(in crate::link) fn finish(&mut self) -> bool {
        let finished = self.state == RecvState::Open && self.is_complete() && self.read == self.contiguous;
        if finished {
            self.state = RecvState::Finished;
        }
        finished
    }

    /// Checks received bytes up to `end` against credit and final size. Returns the increase of the highest offset.
    fn admit(&mut self, end: u64, fin: bool) -> Result<u64, Breach> {
        if end > self.window.announced() {
            return Err(Breach::Credit);
        }
        let size_ok = self.final_size == UNKNOWN || if fin { end == self.final_size } else { end <= self.final_size };
        if !size_ok || (fin && end < self.highest) {
            return Err(Breach::FinalSize);
        }
        if fin {
            self.final_size = end;
            if matches!(self.state, RecvState::Stopped(_)) {
                self.state = RecvState::Discarded;
            }
        }
        let risen = end.saturating_sub(self.highest);
        self.highest += risen;
        Ok(risen)
    }

    /// Appends bytes to the contiguous ones, without those that had arrived before.
    fn append(&mut self, offset: u64, mut payload: Bytes, pools: &mut Pools) {
        let known = (self.contiguous - offset).min(payload.len() as u64);
        payload.advance(known as usize);
        self.contiguous += payload.len() as u64;
        if !payload.is_empty() {
            push_run(self.ready.lend(&mut pools.runs), payload, &mut pools.pins, &mut pools.bufs);
        }
    }

    /// Moves the spans that have become contiguous.
    fn join_ahead(&mut self, pools: &mut Pools) {
        let Some(ahead) = &mut self.ahead else { return };
        while let Some(entry) = ahead.spans.first_entry()
            && *entry.key() <= self.contiguous
        {
            let (mut at, span) = entry.remove_entry();
            ahead.bytes -= span.end - at;
            for mut run in span.runs {
                let len = run.bytes().len() as u64;
                let known = self.contiguous.saturating_sub(at).min(len);
                at += len;
                if known < len {
                    run.skip(known as usize, &mut pools.pins);
                    self.contiguous += len - known;
                    self.ready.lend(&mut pools.runs).push_back(run);
                } else {
                    run.free(&mut pools.pins, &mut pools.bufs);
                }
            }
        }
    }

    /// Stores the new parts of a payload behind a gap.
    fn keep_ahead(&mut self, offset: u64, payload: &Bytes, pools: &mut Pools) {
        if payload.is_empty() {
            return;
        }
        let ahead = self.ahead.get_or_insert_default();
        let end = offset + payload.len() as u64;
        let mut at = offset;
        if let Some((_, before)) = ahead.spans.range(..=offset).next_back() {
            at = at.max(before.end);
        }
        while at < end {
            let next = ahead.spans.range(at..end).next().map(|(start, span)| (*start, span.end));
            let (stop, resume) = next.unwrap_or((end, end));
            if at < stop {
                let part = payload.slice((at - offset) as usize..(stop - offset) as usize);
                ahead.add(at, part, pools);
            }
            at = resume;
        }
    }

    /// Frees the memory of the queue and of the map if they are empty, so that an idle stream owns none.
    fn reclaim(&mut self, pools: &mut Pools) {
        if self.ready.reclaim(&mut pools.runs) {
            self.ahead.take_if(|ahead| ahead.spans.is_empty());
        }
    }

    /// Drops everything that is held. Returns the bytes that the application never took; they count as consumed.
    fn discard(&mut self, pools: &mut Pools) -> u64 {
        self.ready
            .held()
            .into_iter()
            .flat_map(|ready| ready.drain(..))
            .for_each(|run| run.free(&mut pools.pins, &mut pools.bufs));
        let ahead = self.ahead.take().into_iter().flat_map(|ahead| ahead.spans.into_values());
        ahead.flat_map(|span| span.runs).for_each(|run| run.free(&mut pools.pins, &mut pools.bufs));
        self.reclaim(pools);
        let dropped = self.highest - self.read;
        self.read = self.highest;
        self.contiguous = self.highest;
        dropped
    }
}

impl Ahead {
    /// Stores a part that overlaps nothing, and joins the spans that it touches.
    fn add(&mut self, at: u64, part: Bytes, pools: &mut Pools) {
        let stop = at + part.len() as u64;
        self.bytes += part.len() as u64;
        let after = self.spans.remove(&stop);
        let before = self.spans.range_mut(..at).next_back().map(|(_, span)| span).filter(|span| span.end == at);
        let span = match before {
            Some(span) => span,
            None => self.spans.entry(at).or_insert(Span { end: at, runs: VecDeque::new() }),
        };
        push_run(&mut span.runs, part, &mut pools.pins, &mut pools.bufs);
        span.end = stop;
        if let Some(after) = after {
            span.runs.extend(after.runs);
            span.end = after.end;
        }
    }
}

/// Queries.
impl RecvStream {
    /// Returns the number of bytes that the application can take.
    pub(in crate::link) const fn ready_bytes(&self) -> u64 {
        self.contiguous - self.read
    }

    /// Returns true if every byte up to the final size has arrived.
    pub(in crate::link) fn is_complete(&self) -> bool {
        self.final_size == self.contiguous
    }

    /// Returns true if every byte has arrived, taken or not, and none was discarded.
    pub(in crate::link) fn has_arrived(&self) -> bool {
        self.state == RecvState::Finished || (self.state == RecvState::Open && self.is_complete())
    }

    /// Returns the bytes that were not taken, when the session is over.
    pub(in crate::link) fn into_undelivered(self) -> Vec<Bytes> {
        let bytes = |run| match run {
            // Copy the data: it outlives the session, which no longer counts the buffer that it keeps.
            Run::Shared(bytes, _) => Bytes::copy_from_slice(&bytes),
            Run::Joined(bytes, taken) => Bytes::from(bytes).slice(taken..),
        };
        self.ready.into_entries().map(bytes).collect()
    }

    /// Returns true if nothing more happens to this half.
    pub(in crate::link) const fn is_over(&self) -> bool {
        matches!(self.state, RecvState::Finished | RecvState::Reset | RecvState::Discarded)
    }

    /// Returns true if the peer has reset the stream.
    pub(in crate::link) fn is_reset(&self) -> bool {
        self.state == RecvState::Reset
    }

    /// Returns the reason of a STOP that is not answered by a final size yet.
    pub(in crate::link) const fn stopped(&self) -> Option<Code> {
        match self.state {
            RecvState::Stopped(code) => Some(code),
            _ => None,
        }
    }

    /// Returns true if the application may take bytes.
    pub(in crate::link) fn is_open(&self) -> bool {
        self.state == RecvState::Open
    }

    /// Returns true if the peer may need more credit.
    pub(in crate::link) const fn wants_credit(&self) -> bool {
        self.final_size == UNKNOWN && matches!(self.state, RecvState::Open | RecvState::Stopped(_))
    }

    /// Returns the offset below which every byte has arrived.
    pub(in crate::link) const fn contiguous(&self) -> u64 {
        self.contiguous
    }

    /// Returns the offset below which the peer need send nothing again. A half that is not open drops each byte as it arrives,
    /// whether bytes before it are missing or not.
    pub(in crate::link) fn settled(&self) -> u64 {
        if self.is_open() { self.contiguous } else { self.highest }
    }

    pub(in crate::link) const fn highest(&self) -> u64 {
        self.highest
    }

    /// Returns the number of payload bytes in memory.
    pub(in crate::link) const fn held(&self) -> u64 {
        let ahead = if let Some(ahead) = &self.ahead { ahead.bytes } else { 0 };
        self.contiguous - self.read + ahead
    }

    /// Returns the number of payload bytes that reference a read buffer.
    pub(in crate::link) fn shared(&self) -> u64 {
        let ahead = self.ahead.iter().flat_map(|ahead| ahead.spans.values()).flat_map(|span| &span.runs);
        let shared = |run: &Run| if matches!(run, Run::Shared(..)) { run.bytes().len() as u64 } else { 0 };
        self.ready.iter().chain(ahead).map(shared).sum()
    }

    /// Returns the number of gaps.
    pub(in crate::link) fn gaps(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.spans.len())
    }

    /// Panics if the fields contradict each other.
    pub(in crate::link) fn check(&self) {
        assert!(self.read <= self.contiguous && self.contiguous <= self.highest);
        assert!(self.highest <= self.window.announced(), "bytes beyond the credit were accepted");
        let ready: u64 = self.ready.iter().map(|run| run.bytes().len() as u64).sum();
        assert_eq!(ready, self.contiguous - self.read, "bytes ready");
        let Some(ahead) = &self.ahead else { return };
        assert_eq!(ahead.spans.iter().map(|(start, span)| span.end - start).sum::<u64>(), ahead.bytes, "bytes ahead");
        let first = ahead.spans.keys().next();
        assert!(first.is_none_or(|start| *start > self.contiguous), "a span without a gap before it");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::credit::Bounds;
    use super::*;
    use crate::link::wire::ids::Time;

    const CREDIT: u64 = 8192;

    fn stream() -> (RecvStream, Pools) {
        let bounds = Bounds { first: CREDIT, max: CREDIT };
        (RecvStream::new(Window::new(bounds, Time::ZERO)), Pools::default())
    }

    fn byte_at(offset: u64) -> u8 {
        (offset.wrapping_mul(31) >> 3) as u8
    }

    fn payload(offset: u64, len: u64) -> Bytes {
        (offset..offset + len).map(byte_at).collect()
    }

    proptest! {
        /// The model is one flag for each byte and a cursor. Pieces arrive in any order and overlap in any way, and the
        /// application takes them in parts.
        #[test]
        fn agrees_with_a_naive_model(pieces in proptest::collection::vec((0..CREDIT, 0u64..3000, 0u64..4000, any::<bool>()), 1..60)) {
            let (mut recv, mut pools) = stream();
            let mut model = vec![false; CREDIT as usize];
            let mut read = 0u64;
            for (offset, len, bite, pinned) in pieces {
                let len = len.min(CREDIT - offset);
                let before = model.iter().filter(|have| **have).count() as u64;
                model[offset as usize..(offset + len) as usize].fill(true);
                let fresh = model.iter().filter(|have| **have).count() as u64 - before;
                pools.pins.read(if pinned { 1 << 16 } else { 1 });
                let arrived = recv.insert(offset, payload(offset, len), false, &mut pools).unwrap();
                pools.pins.check();
                prop_assert_eq!(arrived.repeated, len - fresh);
                let contiguous = model.iter().position(|have| !have).unwrap_or(model.len()) as u64;
                prop_assert_eq!(recv.contiguous(), contiguous);
                let ready: Vec<u8> = recv.runs().flatten().copied().collect();
                prop_assert!(ready.iter().zip(read..).all(|(byte, at)| *byte == byte_at(at)), "wrong bytes");
                prop_assert_eq!(ready.len() as u64, contiguous - read);
                read += recv.consume(bite, &mut pools);
                let gaps = model.windows(2).skip(contiguous as usize).filter(|two| !two[0] && two[1]).count();
                prop_assert_eq!(recv.gaps(), gaps);
                recv.check();
            }
        }
    }

    #[test]
    fn bytes_beyond_credit_or_final_size_are_a_violation() {
        let (mut recv, mut pools) = stream();
        assert_eq!(recv.insert(CREDIT, payload(0, 1), false, &mut pools), Err(Breach::Credit));
        recv.insert(10, payload(10, 5), true, &mut pools).unwrap();
        assert_eq!(recv.insert(15, payload(15, 1), false, &mut pools), Err(Breach::FinalSize));
        assert_eq!(recv.insert(0, payload(0, 10), true, &mut pools), Err(Breach::FinalSize));
        recv.insert(0, payload(0, 10), false, &mut pools).unwrap();
        assert!(recv.is_complete() && !recv.finish());
        assert_eq!(recv.consume(99, &mut pools), 15);
        assert!(recv.finish() && !recv.finish() && recv.is_over());
    }

    #[test]
    fn a_reset_counts_only_if_the_final_size_was_unknown() {
        let (mut recv, mut pools) = stream();
        recv.insert(0, payload(0, 5), true, &mut pools).unwrap();
        assert!(!recv.reset(5, &mut pools).unwrap().1);
        let (mut recv, mut pools) = stream();
        recv.insert(0, payload(0, 5), false, &mut pools).unwrap();
        assert!(recv.reset(5, &mut pools).unwrap().1, "the final size was not known");
        assert!(!recv.finish() && recv.is_over());
    }

    #[test]
    fn small_payloads_do_not_keep_a_large_buffer() {
        let (mut recv, mut pools) = stream();
        let buffer = payload(0, 4096);
        pools.pins.read(buffer.len());
        recv.insert(0, buffer.slice(0..8), false, &mut pools).unwrap();
        recv.insert(100, buffer.slice(100..108), false, &mut pools).unwrap();
        assert!(buffer.is_unique());
    }
}
