//! Blocks: pooled buffers for the bytes that wait in a half.
//!
//! A half holds a block only while it has bytes. The pool hands out the block that was returned last, because its lines
//! are still in the cache. One number bounds the blocks of a loop; without a free block the loop reads nothing.

/// A buffer of the pool's size. It must be returned to its pool.
#[derive(Debug)]
pub(crate) struct Block(Box<[u8]>);

/// The blocks of one loop.
#[derive(Debug)]
pub(crate) struct BlockPool {
    free: Vec<Block>,
    block_bytes: usize,
    taken: usize,
    taken_max: usize,
}

impl BlockPool {
    /// Creates a pool of blocks of `block_bytes` with at most `total_bytes` in all, but at least one block.
    pub fn new(block_bytes: usize, total_bytes: usize) -> BlockPool {
        let taken_max = (total_bytes / block_bytes).max(1);
        BlockPool { free: Vec::with_capacity(KEPT_MAX), block_bytes, taken: 0, taken_max }
    }

    /// Sets the limit, with at least one block. Blocks beyond it stay taken until they are returned.
    pub fn set_limit(&mut self, total_bytes: usize) {
        self.taken_max = (total_bytes / self.block_bytes).max(1);
    }

    /// Takes a block. Returns `None` if the limit is reached.
    pub fn take(&mut self) -> Option<Block> {
        if self.taken >= self.taken_max {
            return None;
        }
        self.taken += 1;
        Some(self.free.pop().unwrap_or_else(|| Block(vec![0; self.block_bytes].into_boxed_slice())))
    }

    /// Allocates a block for a few bytes. It is not the pool's and does not count against the limit.
    pub fn small(bytes: &[u8]) -> Block {
        Block(bytes.into())
    }

    /// Returns true if the block is the pool's.
    pub fn is_own(&self, block: &Block) -> bool {
        block.0.len() == self.block_bytes
    }

    /// Returns a block to the pool. A block beyond the kept ones is freed.
    pub fn put(&mut self, block: Block) {
        if !self.is_own(&block) {
            return;
        }
        debug_assert!(self.taken > 0, "a block is returned to its own pool");
        self.taken -= 1;
        if self.free.len() < KEPT_MAX {
            self.free.push(block);
        }
    }

    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Returns the number of blocks that can still be taken.
    pub fn available(&self) -> usize {
        self.taken_max.saturating_sub(self.taken)
    }

    pub fn taken(&self) -> usize {
        self.taken
    }
}

impl std::ops::Deref for Block {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Block {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Free blocks that the pool keeps. It frees the others, so the memory of a burst is freed after the burst.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_at_its_limit_has_no_block_and_hands_out_the_last_returned_block_first() {
        let mut pool = BlockPool::new(16, 40);
        let (mut a, b) = (pool.take().unwrap(), pool.take().unwrap());
        assert!(pool.take().is_none(), "40 bytes are two blocks of 16");
        a[0] = 7;
        pool.put(b);
        pool.put(a);
        assert_eq!(pool.take().unwrap()[0], 7);
        assert_eq!(pool.taken(), 1);
    }

    #[test]
    fn blocks_of_a_burst_are_freed() {
        let mut pool = BlockPool::new(1, 1000);
        let blocks: Vec<_> = (0..1000).map(|_| pool.take().unwrap()).collect();
        blocks.into_iter().for_each(|block| pool.put(block));
        assert_eq!((pool.taken(), pool.free.len()), (0, KEPT_MAX));
    }
}
