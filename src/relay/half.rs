//! A half: one direction of a connection, and the bytes that are on their way in it.
//!
//! ```text
//!   phase     Flowing --EOF read--> Draining --all delivered--> Shut (the write side is shut down)
//!
//!   flow      Hold     nothing is read
//!             Handler  input is shown to the handler of the side that it comes from
//!             Relay    input goes to the other side; `left` bytes of it, then it is the handler's again
//!             Discard  input is thrown away
//! ```
//! What is in the pipe is on its way and goes first, whatever the flow has become since. What a handler sends waits in
//! `out` and goes next, then what was read and waits in `store`. Nothing is read while the pipe has bytes.

use crate::relay::block::{Block, BlockPool};
use crate::relay::splice_pipe::{Pipe, PipePool};

/// One direction of a connection.
#[derive(Debug)]
pub(crate) struct Half {
    pub flow: Flow,
    pub phase: Phase,
    /// The handler knows that the input has ended.
    pub told: bool,
    /// The input ended with a reset while it was the handler's.
    pub reset: bool,
    /// Bytes that a handler sends to the target in this direction count; replies to a client do not.
    pub counts_sent: bool,
    /// The receiving side is gone: no byte is delivered any more.
    pub dead: bool,
    /// Bytes of it were thrown away that the side it goes to was owed, because that side takes no more.
    pub lost: bool,
    /// Full blocks read one after another, up to where splicing begins; `NEVER` where splice does not work.
    pub heat: u8,
    /// Bytes that are still to be relayed before the handler is asked again.
    pub left: u64,
    pub out: Store,
    pub store: Store,
    pub pipe: Option<Pipe>,
    /// Bytes through the pipe since it was attached.
    pub piped: u64,
    /// Bytes relayed: delivered, or taken by the handler of the side that they come from, if that is the dest.
    pub bytes: u64,
    /// Times that the side it goes to could take no more.
    pub congested: u32,
}

/// What becomes of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Hold,
    Handler,
    Relay,
    Discard,
}

/// How far the direction has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Flowing,
    Draining,
    Shut,
}

/// Bytes in a block, which is held only while there are any.
#[derive(Debug, Default)]
pub(crate) struct Store {
    block: Option<Block>,
    start: u32,
    end: u32,
}

/// Relay for as long as there is input.
pub(crate) const UNLIMITED: u64 = u64::MAX;
/// The heat of a half that must copy.
pub(crate) const NEVER: u8 = u8::MAX;

impl Half {
    pub const fn new(flow: Flow) -> Half {
        Half {
            flow,
            phase: Phase::Flowing,
            told: false,
            reset: false,
            counts_sent: false,
            dead: false,
            lost: false,
            heat: 0,
            left: UNLIMITED,
            out: Store { block: None, start: 0, end: 0 },
            store: Store { block: None, start: 0, end: 0 },
            pipe: None,
            piped: 0,
            bytes: 0,
            congested: 0,
        }
    }

    /// Bytes that wait in it.
    pub fn queued(&self) -> usize {
        self.out.len() + self.store.len() + self.pipe.as_ref().map_or(0, Pipe::len)
    }

    /// Whether the side that it goes to has not got all that was to come: bytes wait for it, or the input was being relayed
    /// and has not ended.
    pub fn is_cut_short(&self) -> bool {
        let is_sent = self.out.is_empty() && self.pipe.as_ref().is_none_or(|pipe| pipe.len() == 0);
        let is_relayed = self.flow == Flow::Relay || (self.dead && self.flow == Flow::Discard);
        self.phase != Phase::Shut && (is_relayed || !is_sent)
    }

    /// Drops what waits in it, and gives back what it holds.
    pub fn clear(&mut self, blocks: &mut BlockPool, pipes: &mut PipePool) {
        self.out.clear(blocks);
        self.store.clear(blocks);
        self.release_pipe(pipes);
    }

    pub fn release_pipe(&mut self, pipes: &mut PipePool) {
        if let Some(pipe) = self.pipe.take() {
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

    /// Where the next bytes go: the free end of the block, which is taken from the pool if there is none yet and
    /// tidied if it has become short. None when the pool is empty.
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

    /// Says that `count` bytes were put where [`Store::room`] pointed.
    pub fn filled(&mut self, count: usize, blocks: &mut BlockPool) {
        self.end += count as u32;
        debug_assert!(self.block.as_ref().map_or(count == 0, |block| self.end as usize <= block.len()));
        self.release_if_empty(blocks);
    }

    /// Says that the first `count` bytes are gone.
    pub fn consume(&mut self, count: usize, blocks: &mut BlockPool) {
        debug_assert!(count <= self.len());
        self.start += (count as u32).min(self.end - self.start);
        self.release_if_empty(blocks);
    }

    /// Adds bytes at the end, all of them or none. A few bytes in an empty queue need no block of the pool: an answer that
    /// reports an empty pool must reach its client.
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

    /// Fills a store that is empty with a few bytes, in a place of their size.
    pub fn keep_few(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_empty() && self.block.is_none() && bytes.len() <= SMALL_BYTES);
        if !bytes.is_empty() {
            *self = Store { block: Some(BlockPool::small(bytes)), start: 0, end: bytes.len() as u32 };
        }
    }

    /// Gives the block back if there are only a few bytes in it, and keeps them in a place of their size: clients that
    /// send the beginning of a request and wait cannot take the blocks from those that relay.
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

    /// Takes the bytes out as they are, to be shown to a handler while the records are borrowed.
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

/// Bytes that are not worth a block: most of what is left of a request that has not come whole.
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
    fn a_few_bytes_need_no_block() {
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
        assert_eq!(blocks.taken(), 1, "these are worth one");
        store.clear(&mut blocks);
        assert_eq!(blocks.taken(), 0);
    }

    #[test]
    fn a_store_without_a_block_has_room_for_a_few_bytes_once() {
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
