//! A pool of the large buffers of one loop's TLS pipes.
//!
//! A pipe holds a buffer only while bytes wait in it. Without a pool, each read and each batch of records may cost new
//! pages from the system: up to a third of the throughput. The memory of large pieces of plaintext is reused too, when no
//! reference to them is left.

use std::cell::{Cell, RefCell};

use bytes::{Bytes, BytesMut};

/// Bytes of one read of a socket, the most that a pipe takes in at once. The size is a whole number of full records, so
/// that a read during a bulk transfer ends at a record. It is less than eight records, so that a full frame is more than
/// an eighth of its buffer: the link copies smaller frames.
pub(crate) const READ_BYTES: usize = 7 * (RECORD_BYTES + RECORD_OVERHEAD);
/// Bytes of a write buffer: sixteen full records.
pub(crate) const WRITE_BYTES: usize = 16 * (RECORD_BYTES + RECORD_OVERHEAD);
/// Plaintext bytes of a full record (RFC 8446, section 5.1).
pub(crate) const RECORD_BYTES: usize = 16 * 1024;
/// Bytes of a record beside its plaintext: header, type and tag.
pub(crate) const RECORD_OVERHEAD: usize = 5 + 1 + 16;

/// The buffer pool of one loop.
#[derive(Default)]
pub(crate) struct Buffers {
    read: RefCell<Vec<Vec<u8>>>,
    write: RefCell<Vec<Vec<u8>>>,
    gather: Cell<Vec<u8>>,
    /// Large pieces that were handed out, the oldest first. A piece without another reference is free.
    pieces: RefCell<Vec<Bytes>>,
}

impl Buffers {
    /// Creates an empty pool. It holds at most 4 MiB.
    pub fn new() -> Buffers {
        Buffers::default()
    }

    /// Returns a buffer of [`READ_BYTES`].
    pub(super) fn take_read(&self) -> Vec<u8> {
        self.read.borrow_mut().pop().unwrap_or_else(|| vec![0; READ_BYTES])
    }

    /// Returns a buffer of [`WRITE_BYTES`].
    pub(super) fn take_write(&self) -> Vec<u8> {
        self.write.borrow_mut().pop().unwrap_or_else(|| vec![0; WRITE_BYTES])
    }

    /// Returns a buffer to the pool. A buffer of another size is freed.
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

    /// Returns an empty buffer with room for one record's plaintext.
    pub(super) fn take_gather(&self) -> Vec<u8> {
        let mut buf = self.gather.take();
        buf.clear();
        buf.reserve(RECORD_BYTES);
        buf
    }

    pub(super) fn give_gather(&self, buf: Vec<u8>) {
        self.gather.set(buf);
    }

    /// Returns an empty buffer for a piece of `bytes` bytes. Its capacity is at most a quarter larger, because the holder
    /// of a piece accounts for its length only.
    pub(super) fn take_piece(&self, bytes: usize) -> BytesMut {
        let mut pieces = self.pieces.borrow_mut();
        let fits = bytes..=bytes + bytes / 4;
        if (PIECE_BYTES_MIN..=READ_BYTES).contains(&bytes)
            && let Some(free) = pieces.iter().position(|piece| piece.is_unique() && fits.contains(&piece.len()))
            && let Ok(mut piece) = pieces.remove(free).try_into_mut()
        {
            piece.clear();
            if fits.contains(&piece.capacity()) {
                return piece;
            }
        }
        BytesMut::with_capacity(bytes)
    }

    /// Freezes a piece, and keeps a reference to a large piece for reuse.
    pub(super) fn hand_out(&self, piece: BytesMut) -> Bytes {
        let piece = piece.freeze();
        if piece.len() >= PIECE_BYTES_MIN {
            let mut pieces = self.pieces.borrow_mut();
            if pieces.len() == PIECES_MAX {
                pieces.remove(0);
            }
            pieces.push(piece.clone());
        }
        piece
    }

    /// Frees unused buffers.
    pub fn shrink(&self) {
        self.read.take();
        self.write.take();
        self.gather.take();
        self.pieces.borrow_mut().retain(|piece| !piece.is_unique());
    }

    /// Returns the number of free read buffers and of free write buffers.
    #[cfg(test)]
    pub fn kept(&self) -> (usize, usize) {
        (self.read.borrow().len(), self.write.borrow().len())
    }
}

/// The smallest piece that is reused; for a smaller one the search costs more than the allocation.
const PIECE_BYTES_MIN: usize = 32 * 1024;
/// Limit of the remembered pieces: enough for a few turns, and for a reader that is slightly behind.
const PIECES_MAX: usize = 16;
/// Free buffers of each kind that the pool keeps. Few pipes of a loop have bytes waiting between turns.
const KEPT_MAX: usize = 4;
