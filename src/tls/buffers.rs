//! The large buffers of one loop's pipes, used again.
//!
//! A pipe has one only while bytes wait in it. Without a pool, every read and every batch of records may pay for fresh
//! pages from the system: up to a third of the throughput. The memory of large pieces of plaintext is used again, too,
//! once nobody has a reference to them.

use std::cell::{Cell, RefCell};

use bytes::{Bytes, BytesMut};

/// Where one read of a socket goes: the most that a pipe takes in at once. Whole records, so that a peer in full flow
/// leaves no part of one behind, and few enough that a full frame is more than an eighth of what it comes with: smaller
/// ones are copied by the link.
pub(crate) const READ_BYTES: usize = 7 * (RECORD_BYTES + RECORD_OVERHEAD);
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
    /// Large pieces that were handed out, the oldest first. One that nobody else has is free.
    pieces: RefCell<Vec<Bytes>>,
}

impl Buffers {
    /// An empty pool. It holds at most 4 MiB.
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

    /// An empty buffer for a piece of so many bytes, in at most a quarter more memory: whoever keeps a part of the piece
    /// counts its bytes.
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

    /// Hands a piece out, and remembers it if it is a large one.
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

    /// How many buffers wait here for the next pipe.
    #[cfg(test)]
    pub fn kept(&self) -> (usize, usize) {
        (self.read.borrow().len(), self.write.borrow().len())
    }
}

/// A smaller piece is not worth the search.
const PIECE_BYTES_MIN: usize = 32 * 1024;
/// Pieces that are remembered: those of a few turns, and of a reader that is a little behind.
const PIECES_MAX: usize = 16;
/// Buffers of a kind that are kept; pipes of one loop seldom have bytes waiting between turns.
const KEPT_MAX: usize = 4;
