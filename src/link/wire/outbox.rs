//! A buffer of outgoing frames: heads and small payloads are copied, large payloads are referenced.
//!
//! The caller keeps one outbox and clears it after each batch, so nothing is allocated in steady state. The parts, in
//! order, are the bytes for the wire: a vectored write, or one copy into a TLS record, takes them as they are.

use bytes::Bytes;

use super::frame::data_head;
use super::header::DATA_HEAD_BYTES;

/// Maximum length of a payload that is copied: below it a copy is cheaper than a reference.
const COPY_BYTES_MAX: usize = 256;

#[derive(Debug)]
enum Part {
    /// The bytes of `heads` up to `end` that belong to no earlier part.
    Heads {
        end: usize,
    },
    Chunk(Bytes),
}

/// A part of outgoing frames.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Heads and small payloads.
    Copied(&'a [u8]),
    /// A part of a payload that the session holds, too.
    Shared(&'a Bytes),
}

/// Outgoing frames of one batch.
#[derive(Debug, Default)]
pub struct Outbox {
    heads: Vec<u8>,
    parts: Vec<Part>,
    /// Σ of the lengths of the `Part::Chunk`s.
    chunk_bytes: usize,
}

impl Outbox {
    /// Returns an empty outbox.
    pub fn new() -> Outbox {
        Outbox::default()
    }

    /// Removes the frames and keeps the allocated memory.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.parts.clear();
        self.chunk_bytes = 0;
    }

    /// Returns the total length of all parts in bytes.
    pub fn len(&self) -> usize {
        self.heads.len() + self.chunk_bytes
    }

    /// Returns true if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the parts in the order of the wire.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> + Clone {
        self.pieces().map(|piece| match piece {
            Piece::Copied(bytes) => bytes,
            Piece::Shared(chunk) => chunk,
        })
    }

    /// Returns the parts in the order of the wire, for a carrier that can hold references to payloads.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> + Clone {
        let mut from = 0;
        self.parts.iter().map(move |part| match part {
            Part::Chunk(chunk) => Piece::Shared(chunk),
            Part::Heads { end } => {
                let part = self.heads.get(from..*end).unwrap_or_default();
                from = *end;
                Piece::Copied(part)
            }
        })
    }

    /// Appends all parts to `wire`.
    pub fn copy_to(&self, wire: &mut Vec<u8>) {
        wire.reserve(self.len());
        self.parts().for_each(|part| wire.extend_from_slice(part));
    }

    /// Appends a frame that `write` encodes.
    pub(in crate::link) fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.heads);
        self.close_heads();
    }

    /// Appends the head of a DATA frame.
    pub(in crate::link) fn data_head(&mut self, id: u32, offset: u64, len: usize, fin: bool) {
        let head: [u8; DATA_HEAD_BYTES] = data_head(id, offset, len, fin);
        self.heads.extend_from_slice(&head);
        self.close_heads();
    }

    /// Appends `chunk[from..to]`.
    pub(in crate::link) fn chunk(&mut self, chunk: &Bytes, from: usize, to: usize) {
        let bytes = chunk.get(from..to).unwrap_or_default();
        if bytes.len() <= COPY_BYTES_MAX {
            self.heads.extend_from_slice(bytes);
            self.close_heads();
        } else {
            self.chunk_bytes += bytes.len();
            self.parts.push(Part::Chunk(chunk.slice(from..to)));
        }
    }

    /// Extends the last part to the end of `heads`.
    fn close_heads(&mut self) {
        let to = self.heads.len();
        match self.parts.last_mut() {
            Some(Part::Heads { end }) => *end = to,
            _ => self.parts.push(Part::Heads { end: to }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_keep_the_order_of_the_frames() {
        let (small, large) = (Bytes::from(vec![1; 3]), Bytes::from(vec![2; 1000]));
        let mut out = Outbox::new();
        out.frame(|heads| heads.push(9));
        out.chunk(&small, 1, 3);
        out.chunk(&large, 0, 999);
        out.frame(|heads| heads.push(8));
        let mut wire = Vec::new();
        out.copy_to(&mut wire);
        assert_eq!(wire, [&[9, 1, 1][..], &[2; 999], &[8]].concat());
        assert_eq!((out.len(), out.parts().count()), (wire.len(), 3));
        out.clear();
        assert!(out.is_empty() && out.parts().next().is_none());
    }
}
