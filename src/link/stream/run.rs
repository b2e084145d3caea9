//! Bytes of a stream in memory: chunks that the peer has not acknowledged, runs that the application has not taken.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::buffer_pool::BufferPool;
use super::pins::{Pin, Pins};

/// A chunk with the offset of its first byte.
pub(in crate::link) type Chunk = (u64, Bytes);

/// What a chunk costs beside its bytes, for the bound on memory.
pub(in crate::link) const CHUNK_COST: u64 = 64;

/// A copy of small payloads grows up to this size before the next is begun.
const JOINED_BYTES_MAX: usize = 16 * 1024;
/// When copies take so much, each new one gets only the room that it needs.
const SPARE_COPIES_MAX: u64 = 1024 * 1024;

/// A run of received bytes.
#[derive(Debug)]
pub(in crate::link) enum Run {
    /// A part of the buffer that it came in, which it keeps.
    Shared(Bytes, Pin),
    /// Small payloads, joined; the first `usize` bytes are taken already.
    Joined(Vec<u8>, usize),
}

impl Run {
    pub(in crate::link) fn bytes(&self) -> &[u8] {
        match self {
            Run::Shared(bytes, _) => bytes,
            Run::Joined(bytes, taken) => bytes.get(*taken..).unwrap_or_default(),
        }
    }

    pub(in crate::link) fn skip(&mut self, count: usize, pins: &mut Pins) {
        match self {
            Run::Shared(bytes, _) => {
                bytes.advance(count);
                pins.take(count);
            }
            Run::Joined(_, taken) => *taken += count,
        }
    }

    /// Releases its memory from the count.
    pub(in crate::link) fn free(self, pins: &mut Pins, bufs: &mut BufferPool) {
        match self {
            Run::Shared(bytes, pin) => {
                pins.take(bytes.len());
                pins.release(pin);
            }
            Run::Joined(buf, _) => {
                pins.copies_changed(buf.capacity(), 0);
                bufs.give(buf);
            }
        }
    }
}

/// Adds a payload behind `runs`: as a reference, or as a copy, joined with the last if that is one too.
pub(in crate::link) fn push_run(runs: &mut VecDeque<Run>, payload: Bytes, pins: &mut Pins, pools: &mut BufferPool) {
    debug_assert!(!payload.is_empty());
    if let Some(pin) = pins.keep(payload.len()) {
        runs.push_back(Run::Shared(payload, pin));
        return;
    }
    if let Some(Run::Joined(buf, _)) = runs.back_mut()
        && buf.len() + payload.len() <= JOINED_BYTES_MAX
    {
        let before = buf.capacity();
        buf.extend_from_slice(&payload);
        pins.copies_changed(before, buf.capacity());
        return;
    }
    // A buffer that is used again may have much more room than is needed, which is cheap as long as there are few.
    let mut buf = if pins.copies() < SPARE_COPIES_MAX { pools.take() } else { Vec::with_capacity(payload.len()) };
    buf.extend_from_slice(&payload);
    pins.copies_changed(0, buf.capacity());
    runs.push_back(Run::Joined(buf, 0));
}
