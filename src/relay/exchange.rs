//! The exchange of a half with a hook: one block, with the bytes that the hook reads in its back half, and the bytes that it
//! has written in its front half.
//!
//! A half with a hook thus needs one block, as any other half does, and a hook may make twice as many bytes of a full input.
//! The block is held only while one of the two parts has bytes. The exchange calls no hook; see `engine/hook.rs`.

use crate::relay::block::{Block, BlockPool};
use crate::relay::half::{SMALL_BYTES, Store};

/// The bytes between a half and its hook. Invariant: without a block, both parts are empty.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    block: Option<Block>,
    /// Start and end of the written bytes, from the start of the block.
    output: (u32, u32),
    /// Start and end of the input, from the middle of the block.
    input: (u32, u32),
    /// The hook is to be called: there is new input, or it has more to write.
    pub asks: bool,
    /// The hook was told that the input has ended, and has written its last bytes.
    pub finished: bool,
}

impl Exchange {
    /// Takes a block if there is none. Returns false if the pool is empty.
    pub fn take_block(&mut self, blocks: &mut BlockPool) -> bool {
        if self.block.is_none() {
            self.block = blocks.take();
        }
        self.block.is_some()
    }

    /// Returns the written bytes that wait for delivery.
    pub fn output(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block[self.output.0 as usize..self.output.1 as usize])
    }

    /// Returns the input that the hook has not consumed.
    pub fn input(&self) -> &[u8] {
        let (start, end) = (self.input.0 as usize, self.input.1 as usize);
        self.block.as_ref().map_or(&[], |block| &block[block.len() / 2..][start..end])
    }

    pub fn len(&self) -> usize {
        self.output().len() + self.input().len()
    }

    /// Returns true if no input fits any more, even after [`Exchange::room`] has moved it.
    pub fn is_full(&self) -> bool {
        self.block.as_ref().is_some_and(|block| self.input().len() == block.len() - block.len() / 2)
    }

    /// Returns the room for input. Moves the input to the front of its part.
    pub fn room(&mut self) -> &mut [u8] {
        let Some(block) = &mut self.block else { return &mut [] };
        let middle = block.len() / 2;
        let part = &mut block[middle..];
        part.copy_within(self.input.0 as usize..self.input.1 as usize, 0);
        self.input = (0, self.input.1 - self.input.0);
        &mut part[self.input.1 as usize..]
    }

    /// Adds the `count` bytes that the caller has written to [`Exchange::room`].
    pub fn filled(&mut self, count: usize) {
        self.input.1 += count as u32;
    }

    /// Returns the input, and the room for what the hook writes. All written bytes were delivered before.
    pub fn parts(&mut self) -> (&[u8], &mut [u8]) {
        debug_assert!(self.output().is_empty());
        let Some(block) = &mut self.block else { return (&[], &mut []) };
        let middle = block.len() / 2;
        let (front, back) = block.split_at_mut(middle);
        (&back[self.input.0 as usize..self.input.1 as usize], front)
    }

    /// Notes that the hook has consumed the first bytes of the input, and has written bytes into the room.
    pub fn exchanged(&mut self, consumed: usize, written: usize) {
        debug_assert!(consumed <= self.input().len());
        self.input.0 += consumed as u32;
        self.output = (0, written as u32);
    }

    /// Removes the first `count` written bytes, which were delivered.
    pub fn delivered(&mut self, count: usize, blocks: &mut BlockPool) {
        self.output.0 += count as u32;
        self.release_if_empty(blocks);
    }

    /// Drops the input.
    pub fn drop_input(&mut self, blocks: &mut BlockPool) {
        self.input = (0, 0);
        self.release_if_empty(blocks);
    }

    pub fn clear(&mut self, blocks: &mut BlockPool) {
        (self.input, self.output, self.asks, self.finished) = ((0, 0), (0, 0), false, false);
        self.release_if_empty(blocks);
    }

    /// Moves at most `limit` bytes of a store into the input. Returns their number, or none if it needs a block and the pool
    /// is empty.
    pub fn take_from(&mut self, store: &mut Store, limit: usize, blocks: &mut BlockPool) -> Option<usize> {
        let count = store.len();
        if self.block.is_none() && count <= blocks.block_bytes() / 2 && count <= limit {
            // The block of the store becomes that of the exchange, so that no half waits for a second one.
            if let Some((mut block, start)) = store.take_block(blocks) {
                let middle = block.len() / 2;
                block.copy_within(start..start + count, middle);
                (self.block, self.input) = (Some(block), (0, count as u32));
                return Some(count);
            }
        }
        if !self.take_block(blocks) {
            return None;
        }
        let room = self.room();
        let count = count.min(limit).min(room.len());
        room[..count].copy_from_slice(&store.bytes()[..count]);
        self.filled(count);
        store.consume(count, blocks);
        Some(count)
    }

    /// Moves a little input back to an empty store, in an allocation of its size. So a hook that waits for the rest of a line
    /// holds no block that the relay needs.
    pub fn shrink_into(&mut self, store: &mut Store, blocks: &mut BlockPool) {
        if self.output().is_empty() && store.is_empty() && self.input().len() <= SMALL_BYTES {
            store.keep_few(self.input());
            self.drop_input(blocks);
        }
    }

    /// Moves the input back to the beginning of a store, and the written bytes to the store of bytes that a handler sent.
    /// Returns false if something was lost, because one of them has no room.
    pub fn give_back(&mut self, store: &mut Store, out: &mut Store, blocks: &mut BlockPool) -> bool {
        let is_sent = out.push(self.output(), blocks);
        let (start, len) = (self.input.0 as usize, self.input().len());
        let Some(mut block) = self.block.take_if(|_| len > 0) else {
            self.clear(blocks);
            return is_sent;
        };
        let (middle, rest) = (block.len() / 2, store.len());
        block.copy_within(middle + start..middle + start + len, 0);
        let fits = len + rest <= block.len();
        if fits {
            block[len..len + rest].copy_from_slice(store.bytes());
        }
        store.replace(block, if fits { len + rest } else { len }, blocks);
        self.clear(blocks);
        is_sent && fits
    }

    /// Returns the block to the pool if there are no bytes.
    pub fn release_if_empty(&mut self, blocks: &mut BlockPool) {
        if self.len() == 0 {
            (self.input, self.output) = ((0, 0), (0, 0));
            if let Some(block) = self.block.take() {
                blocks.put(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_holds_one_block_while_it_has_bytes() {
        let (mut blocks, mut exchange) = (BlockPool::new(8, 8), Exchange::default());
        assert!(exchange.take_block(&mut blocks));
        exchange.room()[..4].copy_from_slice(b"abcd");
        exchange.filled(4);
        assert!(exchange.is_full());
        let (input, room) = exchange.parts();
        assert_eq!((input, room.len()), (&b"abcd"[..], 4));
        room[..2].copy_from_slice(b"AB");
        exchange.exchanged(3, 2);
        assert_eq!((exchange.output(), exchange.input(), exchange.len()), (&b"AB"[..], &b"d"[..], 3));
        assert_eq!(exchange.room().len(), 3, "the input moves to the front");
        exchange.delivered(2, &mut blocks);
        assert_eq!(blocks.taken(), 1);
        exchange.drop_input(&mut blocks);
        assert_eq!((blocks.taken(), exchange.len()), (0, 0));
    }

    #[test]
    fn a_store_gives_its_block_to_an_exchange_and_gets_little_input_back() {
        let (mut blocks, mut exchange, mut store) = (BlockPool::new(2048, 2048), Exchange::default(), Store::default());
        assert!(store.push(b"xabc", &mut blocks));
        store.consume(1, &mut blocks);
        assert_eq!(exchange.take_from(&mut store, usize::MAX, &mut blocks), Some(3), "with the only block of the pool");
        assert_eq!((exchange.input(), store.len(), blocks.taken()), (&b"abc"[..], 0, 1));
        exchange.shrink_into(&mut store, &mut blocks);
        assert_eq!((store.bytes(), blocks.taken()), (&b"abc"[..], 0));
        assert_eq!(exchange.take_from(&mut store, 2, &mut blocks), Some(2), "no more than the limit");
        assert_eq!((exchange.input(), store.bytes()), (&b"ab"[..], &b"c"[..]));
        assert!(exchange.give_back(&mut store, &mut Store::default(), &mut blocks));
        assert_eq!(store.bytes(), b"abc");
    }
}
