//! The sending half of a stream: written bytes until the peer has acknowledged them.
//!
//! ```text
//!        una            next          end                credit
//!  acked  |  in flight    |   unsent    |                   |
//!  -------+---------------+-------------+ - - - - - - - - - +
//!             ^ `acked` above una, `lost` to retransmit
//! ```
//!
//! The bytes stay in the chunks of the application until the whole chunk is acknowledged. Frames take slices of the
//! chunks, at first and at each retransmission, without a copy. This file knows neither lanes nor scheduling: its
//! callers report which pieces were acknowledged or lost.

use crate::link::wire::content::Piece;
use bytes::Bytes;

use super::pools::Pools;
use super::queue_pool::PooledQueue;
use super::quota::ReaderProgress;
use super::ranges::RangeSet;
use super::run::{CHUNK_COST, Chunk};
use crate::link::wire::code::Code;
use crate::link::wire::outbox::Outbox;

/// The state of the sending half.
///
/// ```text
/// Open --finish--> FinQueued --sent--> FinSent --acked--> FinAcked
///   \                 ^--- FinLost <--lane died--+
///    +--reset, from any but FinAcked--> Reset { acked }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendState {
    Open,
    FinQueued,
    FinSent,
    FinLost,
    FinAcked,
    /// The final size is `next`, which does not change any more.
    Reset {
        code: Code,
        acked: bool,
    },
}

/// The sending half of a stream.
#[derive(Debug)]
pub(in crate::link) struct SendStream {
    /// The first chunk contains `una` or begins there.
    chunks: PooledQueue<Chunk>,
    /// Index of the chunk with the last byte of the last new piece.
    hint: u32,
    una: u64,
    next: u64,
    end: u64,
    /// The peer accepts bytes below this offset.
    credit: u64,
    /// The peer's reader has taken the bytes below this offset, according to the last CREDIT.
    taken: u64,
    /// Increase of `taken` by the last CREDIT.
    taken_last: u64,
    acked: RangeSet,
    lost: RangeSet,
    state: SendState,
    /// True if a frame with the end was acknowledged, even if bytes before it were not.
    fin_acked: bool,
    /// Cost of this half against the session's send limit.
    held: u64,
}

impl SendStream {
    pub(in crate::link) fn new(credit: u64) -> SendStream {
        SendStream {
            chunks: PooledQueue::new(),
            hint: 0,
            una: 0,
            next: 0,
            end: 0,
            credit,
            taken: 0,
            taken_last: 0,
            acked: RangeSet::default(),
            lost: RangeSet::default(),
            state: SendState::Open,
            fin_acked: false,
            held: 0,
        }
    }

    /// Frees the queues if they are empty, so that an idle stream owns none.
    #[inline]
    pub(in crate::link) fn reclaim(&mut self, pools: &mut Pools) {
        if self.chunks.reclaim(&mut pools.chunks) {
            self.acked.release();
            self.lost.release();
        }
    }

    /// Queues a chunk. The caller has checked [`SendStream::is_open`] and the send limit.
    pub(in crate::link) fn write(&mut self, chunk: Bytes, pools: &mut Pools) {
        debug_assert!(self.is_open());
        if chunk.is_empty() {
            return;
        }
        let len = chunk.len() as u64;
        self.chunks.lend(&mut pools.chunks).push_back((self.end, chunk));
        self.end += len;
        self.held += len + CHUNK_COST;
    }

    /// Queues the end of the stream.
    pub(in crate::link) fn finish(&mut self) {
        if self.state == SendState::Open {
            self.state = SendState::FinQueued;
        }
    }

    /// Drops everything that is held and sends no more. Returns true if the peer must get a RESET.
    pub(in crate::link) fn reset(&mut self, code: Code) -> bool {
        if matches!(self.state, SendState::FinAcked | SendState::Reset { .. }) {
            return false;
        }
        self.state = SendState::Reset { code, acked: false };
        self.chunks = PooledQueue::new();
        self.hint = 0;
        self.held = 0;
        self.end = self.next;
        self.una = self.next;
        self.acked.clear();
        self.lost.clear();
        true
    }

    /// Raises the credit limit. A lower value comes from an old frame and is ignored.
    pub(in crate::link) fn raise_credit(&mut self, max: u64) {
        self.credit = self.credit.max(max);
    }

    /// Notes that the peer's reader has taken the bytes below `offset`.
    pub(in crate::link) fn on_taken(&mut self, offset: u64) {
        let offset = offset.min(self.next);
        if offset > self.taken {
            self.taken_last = offset - self.taken;
            self.taken = offset;
        }
    }

    /// Returns the next new piece of at most `max` bytes within credit.
    pub(in crate::link) fn take_new(&mut self, max: u64) -> Option<Piece> {
        let len = self.sendable().min(max);
        let fin = self.state == SendState::FinQueued && self.next + len == self.end;
        if len == 0 && !fin {
            return None;
        }
        let piece = Piece { offset: self.next, len: u32::try_from(len).ok()?, fin };
        self.next += len;
        if fin {
            self.state = SendState::FinSent;
        }
        Some(piece)
    }

    /// Returns the lowest piece to retransmit, at most `max` bytes long.
    pub(in crate::link) fn take_lost(&mut self, max: u64) -> Option<Piece> {
        let Some((start, end)) = self.lost.first() else {
            let fin = self.state == SendState::FinLost;
            self.state = if fin { SendState::FinSent } else { self.state };
            return fin.then_some(Piece { offset: self.end, len: 0, fin: true });
        };
        let len = (end - start).min(max);
        self.lost.remove(start, start + len);
        let fin = start + len == self.end && matches!(self.state, SendState::FinSent | SendState::FinLost);
        if fin {
            self.state = SendState::FinSent;
        }
        Some(Piece { offset: start, len: u32::try_from(len).ok()?, fin })
    }

    /// Notes that the peer has a piece. Returns true if the half is over with it.
    pub(in crate::link) fn on_acked(&mut self, piece: Piece) -> bool {
        if matches!(self.state, SendState::Reset { .. } | SendState::FinAcked) {
            return false;
        }
        if piece.offset <= self.una {
            self.una = self.una.max(piece.end());
        } else {
            self.acked.insert(piece.offset, piece.end());
        }
        while let Some((start, end)) = self.acked.first()
            && start <= self.una
        {
            self.una = self.una.max(end);
            self.acked.trim_below(self.una);
        }
        if !self.lost.is_empty() {
            self.lost.remove(piece.offset, piece.end());
            self.lost.trim_below(self.una);
        }
        if piece.fin {
            self.fin_acked = true;
            self.state = if self.state == SendState::FinLost { SendState::FinSent } else { self.state };
        }
        self.free();
        if self.fin_acked && self.una == self.end {
            self.state = SendState::FinAcked;
        }
        self.is_over()
    }

    /// Notes that a piece may be lost. Returns true if something is to be retransmitted.
    pub(in crate::link) fn on_lost(&mut self, piece: Piece) -> bool {
        if matches!(self.state, SendState::Reset { .. } | SendState::FinAcked) {
            return false;
        }
        self.lost.insert_except(piece.offset.max(self.una), piece.end(), &self.acked);
        if piece.fin && self.state == SendState::FinSent && !self.fin_acked {
            self.state = SendState::FinLost;
        }
        self.has_lost()
    }

    /// Notes that the peer has all bytes below `offset`, which is in [una, next], according to RESUME_STATE.
    pub(in crate::link) fn on_received(&mut self, offset: u64) {
        let len = offset.saturating_sub(self.una);
        let piece = Piece { offset: self.una, len: u32::try_from(len).unwrap_or(u32::MAX), fin: false };
        self.on_acked(piece);
    }

    /// Notes that the peer has the RESET.
    pub(in crate::link) fn on_reset_acked(&mut self) {
        if let SendState::Reset { acked, .. } = &mut self.state {
            *acked = true;
        }
    }

    /// Appends the bytes of a piece to `out`, as slices of its chunks.
    pub(in crate::link) fn emit(&self, piece: Piece, out: &mut Outbox) {
        let mut at = piece.offset;
        let mut index = self.chunk_of(at);
        while at < piece.end() {
            let Some((start, chunk)) = self.chunks.get(index) else {
                debug_assert!(false, "a piece outside of the held bytes");
                return;
            };
            let from = (at - start) as usize;
            let to = chunk.len().min((piece.end() - start) as usize);
            out.chunk(chunk, from, to);
            at = start + to as u64;
            index += 1;
        }
    }

    /// Returns the index of the chunk that contains `at`. For new pieces, which are the most, that is at the hint.
    fn chunk_of(&self, at: u64) -> usize {
        let holds = |index: usize| {
            self.chunks.get(index).is_some_and(|(start, chunk)| *start <= at && at < start + chunk.len() as u64)
        };
        let hint = self.hint as usize;
        match [hint, hint + 1].into_iter().find(|&index| holds(index)) {
            Some(index) => index,
            None => self.chunks.partition_point(|(start, chunk)| start + chunk.len() as u64 <= at),
        }
    }

    /// Remembers the position of a new piece, so that the next one is found at once.
    pub(in crate::link) fn note_sent(&mut self, piece: Piece) {
        self.hint = self.chunk_of(piece.end().saturating_sub(1)) as u32;
    }

    /// Frees the chunks that are acknowledged to their last byte.
    fn free(&mut self) {
        let Some(chunks) = self.chunks.held() else { return };
        let mut freed = 0;
        while let Some((start, chunk)) = chunks.front()
            && start + chunk.len() as u64 <= self.una
        {
            freed += chunk.len() as u64 + CHUNK_COST;
            chunks.pop_front();
            self.hint = self.hint.saturating_sub(1);
        }
        self.held -= freed;
    }
}

/// Queries.
impl SendStream {
    /// Returns true if the application may write.
    pub(in crate::link) fn is_open(&self) -> bool {
        self.state == SendState::Open
    }

    /// Returns true if nothing is left to send, to retransmit or to be acknowledged.
    pub(in crate::link) fn is_over(&self) -> bool {
        matches!(self.state, SendState::FinAcked | SendState::Reset { acked: true, .. })
    }

    /// Returns true if everything written is acknowledged, including the end if there is one.
    pub(in crate::link) fn has_all_acked(&self) -> bool {
        self.is_over() || (self.is_open() && self.una == self.end)
    }

    /// Returns true if the end was sent, as FIN or as RESET.
    pub(in crate::link) fn has_sent_all(&self) -> bool {
        !matches!(self.state, SendState::Open | SendState::FinQueued)
    }

    /// Returns the reason and the final size if the stream was reset.
    pub(in crate::link) fn reset_frame(&self) -> Option<(Code, u64)> {
        match self.state {
            SendState::Reset { code, .. } => Some((code, self.next)),
            _ => None,
        }
    }

    /// Returns the number of bytes that could be sent for the first time now.
    pub(in crate::link) fn sendable(&self) -> u64 {
        self.end.min(self.credit).saturating_sub(self.next)
    }

    /// Returns true if a new frame could be sent now: bytes within credit, or the end alone.
    pub(in crate::link) fn has_new(&self) -> bool {
        self.sendable() > 0 || (self.state == SendState::FinQueued && self.next == self.end)
    }

    pub(in crate::link) fn has_lost(&self) -> bool {
        !self.lost.is_empty() || self.state == SendState::FinLost
    }

    /// Returns the number of bytes that were written and never sent.
    pub(in crate::link) const fn unsent(&self) -> u64 {
        self.end - self.next
    }

    /// Returns true if bytes wait only for stream credit.
    pub(in crate::link) const fn is_blocked(&self) -> bool {
        self.end > self.next && self.credit <= self.next
    }

    /// Returns the number of bytes that were sent and not taken by the peer's reader, according to the last CREDIT.
    pub(in crate::link) const fn not_taken(&self) -> u64 {
        self.next - self.taken
    }

    /// Returns the progress of the peer's reader, according to the last CREDIT.
    pub(in crate::link) const fn reader_progress(&self) -> ReaderProgress {
        ReaderProgress { taken: self.taken, last: self.taken_last }
    }

    /// Returns the peer's window as far as this end knows it: the credit beyond the acknowledged bytes.
    pub(in crate::link) const fn window(&self) -> u64 {
        self.credit.saturating_sub(self.una)
    }

    pub(in crate::link) const fn una(&self) -> u64 {
        self.una
    }

    pub(in crate::link) const fn next(&self) -> u64 {
        self.next
    }

    pub(in crate::link) const fn credit(&self) -> u64 {
        self.credit
    }

    pub(in crate::link) const fn held(&self) -> u64 {
        self.held
    }

    /// Returns true if everything was sent and some of it is not acknowledged.
    pub(in crate::link) fn is_tail(&self) -> bool {
        self.next == self.end && self.una < self.next
    }

    /// Returns the number of ranges that this half holds, which the session limits.
    pub(in crate::link) fn ranges(&self) -> usize {
        self.acked.count() + self.lost.count()
    }

    /// Returns the sent bytes that are neither acknowledged nor to be retransmitted. Each is in the list of a lane.
    pub(in crate::link) fn in_flight(&self) -> RangeSet {
        let mut set = RangeSet::default();
        set.insert_except(self.una, self.next, &self.acked);
        self.lost.iter().for_each(|(start, end)| set.remove(start, end));
        set
    }

    /// Panics if the fields contradict each other.
    pub(in crate::link) fn check(&self) {
        assert!(self.una <= self.next && self.next <= self.end, "una {} next {} end {}", self.una, self.next, self.end);
        assert!(self.taken <= self.next, "more bytes were taken than sent");
        assert!(self.next <= self.credit, "sent {} beyond the credit {}", self.next, self.credit);
        let held: u64 = self.chunks.iter().map(|(_, chunk)| chunk.len() as u64 + CHUNK_COST).sum();
        assert_eq!(held, self.held, "the count of held bytes");
        assert!(self.acked.first().is_none_or(|(start, _)| start > self.una), "an acknowledged range at una");
        assert!(self.lost.first().is_none_or(|(start, _)| start >= self.una), "a lost range below una");
        assert!(self.chunks.front().is_none_or(|(start, _)| *start <= self.una), "bytes were freed too early");
        let covered = self.chunks.front().map_or(self.end, |(start, _)| *start);
        assert!(covered <= self.una || self.una == self.end, "no chunk holds the byte at una");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each piece in flight is acknowledged or lost, in any order. Every byte arrives, the emitted bytes are the
        /// written ones, and nothing is freed before it is acknowledged.
        #[test]
        fn every_byte_arrives_although_pieces_are_lost(sizes in proptest::collection::vec(1usize..400, 1..20), fates in proptest::collection::vec((0usize..8, any::<bool>(), 1u64..300), 1..200)) {
            let mut send = SendStream::new(1 << 20);
            let mut written = Vec::new();
            for size in sizes {
                let chunk: Vec<u8> = (written.len()..written.len() + size).map(|n| ((n * 7) >> 2) as u8).collect();
                written.extend_from_slice(&chunk);
                send.write(Bytes::from(chunk), &mut Pools::default());
            }
            send.finish();
            let (mut flying, mut got) = (Vec::new(), vec![false; written.len()]);
            let mut fin = false;
            for (which, lost, max) in fates.into_iter().cycle().take(20_000) {
                if let Some(piece) = send.take_lost(max).or_else(|| send.take_new(max)) {
                    let mut out = Outbox::new();
                    send.emit(piece, &mut out);
                    let bytes: Vec<u8> = out.parts().flatten().copied().collect();
                    prop_assert_eq!(&bytes[..], &written[piece.offset as usize..piece.end() as usize]);
                    flying.push(piece);
                }
                if flying.len() > which % 3 {
                    let piece: Piece = flying.remove(which % flying.len());
                    if lost && max % 2 == 0 {
                        send.on_lost(piece);
                    } else {
                        got[piece.offset as usize..piece.end() as usize].fill(true);
                        fin |= piece.fin;
                        let over = send.on_acked(piece);
                        prop_assert_eq!(over, fin && got.iter().all(|got| *got));
                    }
                }
                send.check();
                if send.is_over() { break; }
            }
            while let Some(piece) = flying.pop().or_else(|| send.take_lost(99)).or_else(|| send.take_new(99)) {
                send.on_acked(piece);
            }
            prop_assert!(send.is_over() && send.held() == 0);
        }
    }

    /// A retransmitted piece has other bounds than the first one, so its acknowledgement can close several gaps and end
    /// within a range.
    #[test]
    fn one_acknowledgement_closes_many_gaps() {
        let mut send = SendStream::new(1000);
        send.write(Bytes::from(vec![0; 100]), &mut Pools::default());
        let piece = |offset, len| Piece { offset, len, fin: false };
        send.take_new(100);
        for piece in [piece(10, 10), piece(30, 10), piece(0, 35)] {
            assert!(!send.on_acked(piece));
        }
        assert_eq!((send.una(), send.ranges()), (40, 0));
        send.check();
    }

    #[test]
    fn credit_is_never_exceeded_and_never_falls() {
        let mut send = SendStream::new(10);
        send.write(Bytes::from(vec![0; 100]), &mut Pools::default());
        assert_eq!(send.take_new(64), Some(Piece { offset: 0, len: 10, fin: false }));
        assert!(send.take_new(64).is_none() && send.is_blocked());
        send.raise_credit(5);
        assert_eq!(send.credit(), 10);
        send.raise_credit(30);
        assert_eq!(send.take_new(64).map(|piece| piece.len), Some(20));
    }

    #[test]
    fn a_reset_drops_everything_and_tells_the_final_size() {
        let mut send = SendStream::new(1000);
        send.write(Bytes::from(vec![0; 100]), &mut Pools::default());
        let piece = send.take_new(40).unwrap();
        assert!(send.reset(Code::Killed) && !send.reset(Code::Other));
        assert_eq!((send.reset_frame(), send.held(), send.unsent()), (Some((Code::Killed, 40)), 0, 0));
        assert!(!send.on_lost(piece) && !send.on_acked(piece) && !send.is_over());
        send.on_reset_acked();
        assert!(send.is_over());
    }
}
