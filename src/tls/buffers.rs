//! A pool of the large buffers of one loop's TLS pipes.
//!
//! A pipe holds a buffer only while bytes wait in it. Without a pool, each read and each batch of records may cost new
//! pages from the system: up to a third of the throughput. The slots of reads hold the plaintext as well, and are used again
//! when no reference to them is left.

use std::cell::RefCell;

use super::records::slots::{SLOT_BYTES, SLOTS_MAX, Slots};
use super::records::{RECORD_BYTES, RECORD_OVERHEAD};

/// Bytes of one read of a socket, the most that a pipe takes in at once.
#[allow(dead_code, reason = "the tests measure with it")]
pub(crate) const READ_BYTES: usize = SLOTS_MAX * SLOT_BYTES;
/// Bytes of a write buffer: sixteen full records.
pub(crate) const WRITE_BYTES: usize = 16 * (RECORD_BYTES + RECORD_OVERHEAD);

/// The buffer pool of one loop.
#[derive(Default)]
pub(crate) struct Buffers {
    /// The slots of reads.
    pub(super) slots: Slots,
    write: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// Creates an empty pool. It holds at most 4 MiB.
    pub fn new() -> Buffers {
        Buffers::default()
    }

    /// Returns a buffer of [`WRITE_BYTES`].
    pub(super) fn take_write(&self) -> Vec<u8> {
        self.write.borrow_mut().pop().unwrap_or_else(|| vec![0; WRITE_BYTES])
    }

    /// Returns a buffer to the pool. A buffer of another size is freed.
    pub(super) fn give(&self, buf: Vec<u8>) {
        let mut write = self.write.borrow_mut();
        if buf.len() == WRITE_BYTES && write.len() < KEPT_MAX {
            write.push(buf);
        }
    }

    /// Frees unused buffers.
    pub fn shrink(&self) {
        self.slots.shrink();
        self.write.take();
    }

    /// Returns the number of free slots and of free write buffers.
    #[cfg(test)]
    pub fn kept(&self) -> (usize, usize) {
        (self.slots.kept(), self.write.borrow().len())
    }
}

/// Free write buffers that the pool keeps. Few pipes of a loop have bytes waiting between turns.
const KEPT_MAX: usize = 4;
