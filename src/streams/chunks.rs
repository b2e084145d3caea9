//! Chunks: the memory that local reads go into. The session keeps slices of it until the peer has acknowledged the data.
//!
//! A read goes into a chunk of its own and is not copied again. A chunk without slices is used for another read; a bounded
//! number of used chunks is remembered for that. A short read is copied out instead, because a slice of a few bytes would
//! keep the whole chunk: up to [`COPY_BYTES_MAX`], and up to half of a chunk if the session holds much data already. So the
//! memory in use is at most twice the accounted memory, plus 8 MiB for each session.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};

use crate::link::frame::DATA_BYTES_MAX;

/// The chunks of one loop.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// An unused chunk, all of which is initialised.
    free: BytesMut,
    used: VecDeque<Bytes>,
}

impl Chunks {
    /// Reads at most `limit` bytes with one call of `get`. Returns the bytes and the room that the read had. `held` is the
    /// number of bytes that the session holds already.
    pub fn read(
        &mut self,
        limit: usize,
        held: u64,
        get: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<(Bytes, usize)> {
        if self.free.is_empty() {
            self.free = self.used_again().unwrap_or_else(|| BytesMut::zeroed(CHUNK_BYTES));
        }
        let room = limit.min(self.free.len());
        let got = get(&mut self.free[..room])?;
        let copied = if held > HELD_BYTES_MAX { CHUNK_BYTES / 2 } else { COPY_BYTES_MAX };
        if got <= copied {
            return Ok((Bytes::copy_from_slice(&self.free[..got]), room));
        }
        let whole = std::mem::take(&mut self.free).freeze();
        let bytes = whole.slice(..got);
        if self.used.len() < USED_MAX {
            self.used.push_back(whole);
        }
        Ok((bytes, room))
    }

    /// Frees unused chunks.
    pub fn shrink(&mut self) {
        self.used.retain(|chunk| !chunk.is_unique());
        self.used.shrink_to_fit();
        self.free = BytesMut::new();
    }

    /// Takes an unused chunk. The search begins with the oldest; chunks in use move to the end.
    fn used_again(&mut self) -> Option<BytesMut> {
        for _ in 0..self.used.len().min(LOOKS) {
            match self.used.pop_front()?.try_into_mut() {
                Ok(free) => return Some(free),
                Err(busy) => self.used.push_back(busy),
            }
        }
        None
    }
}

/// Size of a chunk, and so of one read: the payload of four full frames, so that a busy stream makes no small frames.
pub(crate) const CHUNK_BYTES: usize = 4 * DATA_BYTES_MAX;
/// Reads up to this size are copied.
pub(crate) const COPY_BYTES_MAX: usize = 8 << 10;
/// Bytes held by a session above which it copies any payload of less than half of a chunk.
const HELD_BYTES_MAX: u64 = 1 << 20;
/// Used chunks that are remembered: 32 MiB.
const USED_MAX: usize = 512;
const LOOKS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_used_again_when_its_bytes_are_gone() {
        let mut chunks = Chunks::default();
        let mut fill = |byte: u8, count: usize| {
            let read = chunks.read(usize::MAX, 0, |room| {
                room[..count].fill(byte);
                Ok(count)
            });
            read.unwrap().0
        };
        let first = fill(1, 20_000);
        let second = fill(2, 20_000);
        assert!(first.iter().all(|byte| *byte == 1) && second.iter().all(|byte| *byte == 2));
        let place = first.as_ptr();
        drop(first);
        let third = fill(3, 30_000);
        assert_eq!(third.as_ptr(), place, "no new chunk");
        assert!(second.iter().all(|byte| *byte == 2));
        let small = fill(4, 10);
        assert_eq!((&small[..], chunks.used.len()), (&[4; 10][..], 2), "a short read keeps no chunk");
    }

    #[test]
    fn a_failed_read_uses_no_chunk() {
        let mut chunks = Chunks::default();
        assert!(chunks.read(10, 0, |_| Err(io::ErrorKind::WouldBlock.into())).is_err());
        assert!(chunks.used.is_empty() && chunks.free.len() == CHUNK_BYTES);
        assert_eq!(chunks.read(10, 0, |room| Ok(room.len())).unwrap().1, 10);
    }

    #[test]
    fn a_session_that_holds_much_copies_reads_below_half_of_a_chunk() {
        let mut chunks = Chunks::default();
        for (held, got, keeps) in [
            (HELD_BYTES_MAX, COPY_BYTES_MAX + 1, 1),
            (HELD_BYTES_MAX + 1, CHUNK_BYTES / 2, 0),
            (HELD_BYTES_MAX + 1, CHUNK_BYTES / 2 + 1, 1),
        ] {
            chunks.shrink();
            let (bytes, _) = chunks.read(usize::MAX, held, |_| Ok(got)).unwrap();
            assert_eq!((bytes.len(), chunks.used.len()), (got, keeps));
        }
    }
}
