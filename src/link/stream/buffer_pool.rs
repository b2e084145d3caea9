//! Byte buffers for small payloads, kept for reuse.

/// Maximum cost of all buffers in the pool.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Maximum capacity of a buffer in the pool; a larger one is freed.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Minimum cost of a buffer.
const BUFFER_COST_MIN: usize = 256;
/// Unused buffers.
#[derive(Debug, Default)]
pub(in crate::link) struct BufferPool {
    bufs: Vec<Vec<u8>>,
    /// Σ of the costs of `bufs`.
    kept: usize,
}

impl BufferPool {
    /// Returns an empty buffer, a reused one if possible.
    pub(in crate::link) fn take(&mut self) -> Vec<u8> {
        let buf = self.bufs.pop().unwrap_or_default();
        self.kept -= if buf.capacity() > 0 { cost(&buf) } else { 0 };
        buf
    }

    /// Takes a buffer back.
    pub(in crate::link) fn give(&mut self, mut buf: Vec<u8>) {
        let cost = cost(&buf);
        if (1..=BUFFER_BYTES_MAX).contains(&buf.capacity()) && self.kept + cost <= KEPT_BYTES_MAX {
            buf.clear();
            self.kept += cost;
            self.bufs.push(buf);
        }
    }
}

fn cost(buf: &Vec<u8>) -> usize {
    buf.capacity().max(BUFFER_COST_MIN)
}
