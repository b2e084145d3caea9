//! Buffers for small payloads, kept for the next of them.
//!
//! It exists so that a stream of small frames allocates nothing in steady state. What it keeps is bounded and counted in
//! the memory formula: at most [`BUFFERS_MAX`] buffers of at most [`BUFFER_BYTES_MAX`] each.

/// Buffers that are kept.
pub(super) const BUFFERS_MAX: usize = 1024;
/// A larger buffer is freed rather than kept.
pub(super) const BUFFER_BYTES_MAX: usize = 1024;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Spare {
    bufs: Vec<Vec<u8>>,
}

impl Spare {
    /// An empty buffer, a used one if there is any.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.bufs.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, mut buf: Vec<u8>) {
        if buf.capacity() <= BUFFER_BYTES_MAX && self.bufs.len() < BUFFERS_MAX {
            buf.clear();
            self.bufs.push(buf);
        }
    }
}
