//! Blocks: the buffers that bytes wait in, pooled and counted.
//!
//! A half holds a block only while it has bytes. The pool hands out the block that came back last, whose lines are still
//! in the cache. The total is one number; when it is reached there is no block, and without a block nothing is read.

/// A buffer of the pool's size. It goes back to the pool that it came from.
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
    /// A pool of blocks of `block_bytes` that takes up at most `total_bytes`, and at least one block.
    pub fn new(block_bytes: usize, total_bytes: usize) -> BlockPool {
        let taken_max = (total_bytes / block_bytes).max(1);
        BlockPool { free: Vec::with_capacity(KEPT_MAX), block_bytes, taken: 0, taken_max }
    }

    /// A block, or none when the limit is reached.
    pub fn take(&mut self) -> Option<Block> {
        if self.taken == self.taken_max {
            return None;
        }
        self.taken += 1;
        Some(self.free.pop().unwrap_or_else(|| Block(vec![0; self.block_bytes].into_boxed_slice())))
    }

    /// A block for a few bytes only, which is not one of the pool's and does not count.
    pub fn small(bytes: &[u8]) -> Block {
        Block(bytes.into())
    }

    /// Whether a block is one of the pool's.
    pub fn is_own(&self, block: &Block) -> bool {
        block.0.len() == self.block_bytes
    }

    /// Takes a block back. What is kept beyond a few goes back to the system.
    pub fn put(&mut self, block: Block) {
        if !self.is_own(&block) {
            return;
        }
        debug_assert!(self.taken > 0, "a block goes back to its own pool");
        self.taken -= 1;
        if self.free.len() < KEPT_MAX {
            self.free.push(block);
        }
    }

    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Blocks that can still be taken.
    pub fn available(&self) -> usize {
        self.taken_max - self.taken
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

/// Free blocks that stay with the pool; a burst beyond them is given back when it is over.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_and_the_last_block_comes_first() {
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
    fn a_burst_is_given_back() {
        let mut pool = BlockPool::new(1, 1000);
        let blocks: Vec<_> = (0..1000).map(|_| pool.take().unwrap()).collect();
        blocks.into_iter().for_each(|block| pool.put(block));
        assert_eq!((pool.taken(), pool.free.len()), (0, KEPT_MAX));
    }
}
