//! A half: one direction of a connection, and the bytes in transit in this direction.
//!
//! ```text
//!   phase     Flowing --EOF read--> Draining --all delivered--> Shut (the write side is shut down)
//!
//!   flow      Hold     nothing is read
//!             Handler  input is shown to the handler of the sending side
//!             Relay    `left` bytes of input go to the other side, then the handler gets the input again
//!             Hooked   the same, through the hook of the connection
//!             Discard  input is discarded
//! ```
//! The order of delivery: first the bytes in the pipe, even if the flow has changed since; then `out`, the bytes that a
//! handler sent; then `store`, the bytes that were read. Nothing is read while the pipe has bytes. With a hook, `store` holds
//! bytes that the hook has not seen, and `exchange` what goes to the hook and comes from it.

use crate::relay::block::{Block, BlockPool};
use crate::relay::exchange::Exchange;
use crate::relay::splice_pipe::{SplicePipe, SplicePipePool};

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Half {
    pub flow: Flow,
    pub phase: Phase,
    /// The handler has been told that the input has ended.
    pub told: bool,
    /// The input ended with a reset while the flow was `Handler`.
    pub reset: bool,
    /// Bytes that a handler sends in this direction count as relayed; replies to a client do not.
    pub counts_sent: bool,
    /// The receiving side is gone: no byte can be delivered.
    pub dead: bool,
    /// A handler has ended this direction: it is shut once its bytes are delivered.
    pub finishing: bool,
    /// A deadline is set at which more of the input is discarded. Until then it is not read, unless it gets another use.
    pub discard_paused: bool,
    /// Bytes for the receiving side were discarded, because it accepts no more.
    pub lost: bool,
    /// Bytes have gone through a splice pipe.
    pub has_spliced: bool,
    /// Consecutive reads that filled their block, counted up to `SPLICE_AFTER`; [`NO_SPLICE`] if the half must copy.
    pub full_reads: u8,
    /// Bytes to relay before the handler gets the input again.
    pub left: u64,
    pub out: Store,
    pub store: Store,
    pub splice_pipe: Option<Box<SplicePipe>>,
    /// The exchange with the hook of the connection, if it has one.
    pub exchange: Option<Box<Exchange>>,
    /// Bytes relayed: bytes delivered, and bytes of the dest that a handler consumed.
    pub bytes: u64,
    /// Number of writes that the receiving side did not take in full.
    pub congested: u32,
}

/// The use of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Hold,
    Handler,
    Relay,
    Hooked,
    Discard,
}

impl Flow {
    /// Returns true if the input goes to the other side.
    pub const fn is_relayed(self) -> bool {
        matches!(self, Flow::Relay | Flow::Hooked)
    }
}

/// The progress of the direction towards its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Flowing,
    Draining,
    Shut,
}

/// A queue of bytes in a block. The store holds a block only while it has bytes.
#[derive(Debug, Default)]
pub(crate) struct Store {
    block: Option<Block>,
    start: u32,
    end: u32,
}

/// The value of [`Half::left`] without a limit: relay until the input ends.
pub(crate) const UNLIMITED: u64 = u64::MAX;
/// The value of [`Half::full_reads`] for a half that must copy.
pub(crate) const NO_SPLICE: u8 = u8::MAX;

impl Half {
    pub const fn new(flow: Flow) -> Half {
        Half {
            flow,
            phase: Phase::Flowing,
            told: false,
            reset: false,
            counts_sent: false,
            dead: false,
            finishing: false,
            discard_paused: false,
            lost: false,
            has_spliced: false,
            full_reads: 0,
            left: UNLIMITED,
            out: Store { block: None, start: 0, end: 0 },
            store: Store { block: None, start: 0, end: 0 },
            splice_pipe: None,
            exchange: None,
            bytes: 0,
            congested: 0,
        }
    }

    /// Returns true if no more of the input is discarded before a deadline.
    pub fn is_discard_paused(&self) -> bool {
        self.discard_paused && self.flow == Flow::Discard && self.left == 0
    }

    /// Returns true if the half relays, and has nothing to do before there is input.
    pub fn is_at_rest(&self) -> bool {
        self.flow == Flow::Relay
            && self.phase == Phase::Flowing
            && self.left > 0
            && self.splice_pipe.is_none()
            && self.queued() == 0
    }

    /// Returns the number of bytes that wait for delivery.
    pub fn queued(&self) -> usize {
        let exchanged = self.exchange.as_ref().map_or(0, |exchange| exchange.len());
        self.out.len() + self.store.len() + self.splice_pipe.as_ref().map_or(0, |pipe| pipe.len()) + exchanged
    }

    /// Returns true if the receiving side has not got the complete stream: bytes wait for it, or the input was relayed and
    /// has not ended.
    pub fn is_cut_short(&self) -> bool {
        let is_sent = self.out.is_empty() && self.splice_pipe.as_ref().is_none_or(|pipe| pipe.len() == 0);
        let is_relayed = self.flow.is_relayed() || (self.dead && self.flow == Flow::Discard);
        self.phase != Phase::Shut && (is_relayed || !is_sent)
    }

    /// Discards the waiting bytes, and returns the blocks and the pipe to their pools.
    pub fn clear(&mut self, blocks: &mut BlockPool, pipes: &mut SplicePipePool) {
        self.out.clear(blocks);
        self.store.clear(blocks);
        self.exchange.iter_mut().for_each(|exchange| exchange.clear(blocks));
        self.release_splice_pipe(pipes);
    }

    /// Gives the input to the handler that a hook has not consumed. The half does not relay any more.
    pub fn leave_hook(&mut self, blocks: &mut BlockPool) {
        if let Some(exchange) = self.exchange.as_mut().filter(|exchange| exchange.len() > 0) {
            self.lost |= !exchange.give_back(&mut self.store, &mut self.out, blocks);
        }
    }

    pub fn release_splice_pipe(&mut self, pipes: &mut SplicePipePool) {
        if let Some(pipe) = self.splice_pipe.take() {
            pipes.put(pipe);
        }
    }
}

impl Store {
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.block {
            Some(block) => &block[self.start as usize..self.end as usize],
            None => &[],
        }
    }

    /// Returns the free end of the block, for the next bytes. Takes a block from the pool if the store has none, and moves
    /// the bytes to the front of a block whose end is full. Returns `None` if the pool is empty.
    pub fn room(&mut self, blocks: &mut BlockPool) -> Option<&mut [u8]> {
        if !self.block.as_ref().is_some_and(|block| blocks.is_own(block)) {
            let (mut block, len) = (blocks.take()?, self.len());
            block[..len].copy_from_slice(self.bytes());
            self.block = Some(block);
            (self.start, self.end) = (0, len as u32);
        }
        let block = self.block.as_mut()?;
        if self.end as usize == block.len() && self.start > 0 {
            block.copy_within(self.start as usize..self.end as usize, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        Some(&mut block[self.end as usize..])
    }

    /// Adds the `count` bytes that the caller has written to [`Store::room`].
    pub fn filled(&mut self, count: usize, blocks: &mut BlockPool) {
        self.end += count as u32;
        debug_assert!(self.block.as_ref().map_or(count == 0, |block| self.end as usize <= block.len()));
        self.release_if_empty(blocks);
    }

    /// Removes the first `count` bytes.
    pub fn consume(&mut self, count: usize, blocks: &mut BlockPool) {
        debug_assert!(count <= self.len());
        self.start += (count as u32).min(self.end - self.start);
        self.release_if_empty(blocks);
    }

    /// Appends all of the bytes, or none and returns false. If the pool is empty, an empty store still takes a few bytes:
    /// a reply that reports the full pool must reach its client.
    pub fn push(&mut self, bytes: &[u8], blocks: &mut BlockPool) -> bool {
        if bytes.is_empty() {
            return true;
        }
        if self.start > 0 && self.len() + bytes.len() <= blocks.block_bytes() {
            let (start, end) = (self.start as usize, self.end as usize);
            if let Some(block) = &mut self.block {
                block.copy_within(start..end, 0);
                (self.start, self.end) = (0, (end - start) as u32);
            }
        }
        let is_few = self.is_empty() && bytes.len() <= SMALL_BYTES;
        let fits = match self.room(blocks) {
            Some(room) if room.len() >= bytes.len() => {
                room[..bytes.len()].copy_from_slice(bytes);
                true
            }
            None if is_few => {
                self.keep_few(bytes);
                return true;
            }
            _ => false,
        };
        self.filled(if fits { bytes.len() } else { 0 }, blocks);
        fits
    }

    /// Replaces the bytes of the store by the first `len` bytes of a block of the pool.
    pub fn replace(&mut self, block: Block, len: usize, blocks: &mut BlockPool) {
        self.clear(blocks);
        *self = Store { block: Some(block), start: 0, end: len as u32 };
    }

    /// Takes the block with all bytes out of the store, if it is one of the pool. Also returns where the bytes start.
    pub fn take_block(&mut self, blocks: &BlockPool) -> Option<(Block, usize)> {
        let block = self.block.take_if(|block| blocks.is_own(block))?;
        let start = std::mem::take(&mut self.start) as usize;
        self.end = 0;
        Some((block, start))
    }

    /// Puts a few bytes into an empty store, in an allocation of their size.
    pub fn keep_few(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_empty() && self.block.is_none() && bytes.len() <= SMALL_BYTES);
        if !bytes.is_empty() {
            *self = Store { block: Some(BlockPool::small(bytes)), start: 0, end: bytes.len() as u32 };
        }
    }

    /// Moves a few bytes to an allocation of their size and returns the block. So clients that send the beginning of a
    /// request and wait do not hold the blocks that the relay needs.
    pub fn shrink(&mut self, blocks: &mut BlockPool) {
        if self.is_empty() || self.len() > SMALL_BYTES {
            return;
        }
        let small = BlockPool::small(self.bytes());
        let len = self.len() as u32;
        if let Some(block) = self.block.replace(small) {
            blocks.put(block);
        }
        (self.start, self.end) = (0, len);
    }

    pub fn clear(&mut self, blocks: &mut BlockPool) {
        self.start = self.end;
        self.release_if_empty(blocks);
    }

    /// Moves the bytes out, so that a handler can read them while the records are borrowed.
    pub fn take(&mut self) -> Store {
        std::mem::take(self)
    }

    fn release_if_empty(&mut self, blocks: &mut BlockPool) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
            if let Some(block) = self.block.take() {
                blocks.put(block);
            }
        }
    }
}

/// Largest content that is kept without a block. Most incomplete requests are smaller.
pub(crate) const SMALL_BYTES: usize = 512;

const _: () = assert!(size_of::<Half>() <= 112);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_holds_a_block_only_while_it_has_bytes() {
        let mut blocks = BlockPool::new(8, 8);
        let mut store = Store::default();
        assert!(store.push(b"abcdef", &mut blocks));
        assert_eq!(blocks.taken(), 1);
        store.consume(4, &mut blocks);
        assert!(store.push(b"ghijkl", &mut blocks), "the room in front is used");
        assert_eq!(store.bytes(), b"efghijkl");
        assert!(!store.push(b"m", &mut blocks), "all or nothing");
        store.consume(8, &mut blocks);
        assert_eq!((blocks.taken(), store.len()), (0, 0));
    }

    #[test]
    fn a_pause_of_discarding_holds_back_no_other_use_of_the_input() {
        let mut half = Half { left: 0, discard_paused: true, ..Half::new(Flow::Discard) };
        assert!(half.is_discard_paused());
        half.left = UNLIMITED;
        assert!(!half.is_discard_paused(), "all of it is discarded, behind the last reply");
        (half.flow, half.left) = (Flow::Relay, 0);
        assert!(!half.is_discard_paused(), "it goes to another side");
    }

    #[test]
    fn a_shrunk_store_keeps_a_few_bytes_without_a_block() {
        let mut blocks = BlockPool::new(2048, 2048);
        let mut store = Store::default();
        assert!(store.push(b"abcdef", &mut blocks));
        store.consume(2, &mut blocks);
        store.shrink(&mut blocks);
        assert_eq!((blocks.taken(), store.bytes()), (0, &b"cdef"[..]));
        assert!(store.push(b"gh", &mut blocks));
        assert_eq!((blocks.taken(), store.bytes()), (1, &b"cdefgh"[..]));
        assert!(store.push(&[b'x'; 600], &mut blocks));
        store.shrink(&mut blocks);
        assert_eq!(blocks.taken(), 1, "too many bytes to do without a block");
        store.clear(&mut blocks);
        assert_eq!(blocks.taken(), 0);
    }

    #[test]
    fn an_empty_store_takes_a_few_bytes_once_while_the_pool_is_empty() {
        let mut blocks = BlockPool::new(2048, 2048);
        let (mut a, mut b) = (Store::default(), Store::default());
        assert!(a.push(b"x", &mut blocks));
        assert!(b.room(&mut blocks).is_none());
        assert!(!b.push(&[b'y'; SMALL_BYTES + 1], &mut blocks));
        assert_eq!(b.bytes(), b"");
        let few = [b'y'; SMALL_BYTES];
        assert!(b.push(&few, &mut blocks));
        assert!(!b.push(b"z", &mut blocks), "nothing is added to them");
        assert_eq!((b.bytes(), blocks.taken()), (&few[..], 1));
        b.consume(SMALL_BYTES, &mut blocks);
        assert!(b.push(b"z", &mut blocks));
        b.clear(&mut blocks);
        a.clear(&mut blocks);
        assert_eq!(blocks.taken(), 0);
    }
}
