//! Bytes of streams in memory: chunks until the peer acknowledges them, runs until the application takes them.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::buffer_pool::BufferPool;
use super::pins::{Pin, Pins};

/// Written bytes with the offset of the first.
pub(in crate::link) type Chunk = (u64, Bytes);

/// Memory of a chunk beyond its bytes, as counted against the send limit.
pub(in crate::link) const CHUNK_COST: u64 = 64;

/// Maximum length of a copy to which further small payloads are appended.
const JOINED_BYTES_MAX: usize = 16 * 1024;
/// Total capacity of copies from which on each new one is allocated with no spare capacity.
const REUSE_COPIES_MAX: u64 = 1024 * 1024;

/// A run of received bytes.
#[derive(Debug)]
pub(in crate::link) enum Run {
    /// A part of a read buffer, which stays in memory as a whole.
    Shared(Bytes, Pin),
    /// Copies of small payloads; the application has taken the first `usize` bytes.
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

    /// Frees the run and removes it from the counts.
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

/// Appends a payload to `runs`: as a reference or as a copy. A copy joins the last run if that is a copy too.
pub(in crate::link) fn push_run(runs: &mut VecDeque<Run>, payload: Bytes, pins: &mut Pins, bufs: &mut BufferPool) {
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
    // A reused buffer may have much more capacity than it needs, which is acceptable as long as copies are few.
    let mut buf = if pins.copies() < REUSE_COPIES_MAX { bufs.take() } else { Vec::with_capacity(payload.len()) };
    buf.extend_from_slice(&payload);
    pins.copies_changed(0, buf.capacity());
    runs.push_back(Run::Joined(buf, 0));
}
