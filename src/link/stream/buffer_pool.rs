//! BufferPool for small payloads that are used again.

/// Bytes of all buffers that are kept.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// A larger buffer is freed rather than kept.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// What a buffer counts for at least.
const BUFFER_COST_MIN: usize = 256;
/// BufferPool that nobody uses.
#[derive(Debug, Default)]
pub(in crate::link) struct BufferPool {
    bufs: Vec<Vec<u8>>,
    /// What those in `bufs` count for.
    kept: usize,
}

impl BufferPool {
    /// An empty buffer, a used one if there is any.
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
