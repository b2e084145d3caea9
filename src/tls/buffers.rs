//! The large buffers of one loop's pipes, used again.
//!
//! A pipe has one only while bytes wait in it. Without a pool, every read and every batch of records would pay for fresh
//! pages from the system: a tenth of the throughput.

use std::cell::{Cell, RefCell};

/// Where one read of a socket goes: the most that a pipe takes in at once.
pub(crate) const READ_BYTES: usize = 128 * 1024;
/// Where records wait for one write: sixteen full ones.
pub(crate) const WRITE_BYTES: usize = 16 * (RECORD_BYTES + RECORD_OVERHEAD);
/// The plaintext of a full record (RFC 8446, section 5.1).
pub(crate) const RECORD_BYTES: usize = 16 * 1024;
/// What a record has beside its plaintext: header, type and tag.
pub(crate) const RECORD_OVERHEAD: usize = 5 + 1 + 16;

/// See the module's head.
#[derive(Default)]
pub(crate) struct Buffers {
    read: RefCell<Vec<Vec<u8>>>,
    write: RefCell<Vec<Vec<u8>>>,
    gather: Cell<Vec<u8>>,
}

impl Buffers {
    /// An empty pool. It holds at most 1.5 MiB.
    pub fn new() -> Buffers {
        Buffers::default()
    }

    /// A buffer of [`READ_BYTES`].
    pub(super) fn take_read(&self) -> Vec<u8> {
        self.read.borrow_mut().pop().unwrap_or_else(|| vec![0; READ_BYTES])
    }

    /// A buffer of [`WRITE_BYTES`].
    pub(super) fn take_write(&self) -> Vec<u8> {
        self.write.borrow_mut().pop().unwrap_or_else(|| vec![0; WRITE_BYTES])
    }

    /// Takes a buffer back. One of another size is freed.
    pub(super) fn give(&self, buf: Vec<u8>) {
        let kept = match buf.len() {
            READ_BYTES => &self.read,
            WRITE_BYTES => &self.write,
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(buf);
        }
    }

    /// An empty buffer with room for one record's plaintext.
    pub(super) fn take_gather(&self) -> Vec<u8> {
        let mut buf = self.gather.take();
        buf.clear();
        buf.reserve(RECORD_BYTES);
        buf
    }

    pub(super) fn give_gather(&self, buf: Vec<u8>) {
        self.gather.set(buf);
    }

    /// How many buffers wait here for the next pipe.
    #[cfg(test)]
    pub fn kept(&self) -> (usize, usize) {
        (self.read.borrow().len(), self.write.borrow().len())
    }
}

/// Buffers of a kind that are kept; pipes of one loop seldom have bytes waiting between turns.
const KEPT_MAX: usize = 4;
