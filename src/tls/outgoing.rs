//! The sealed records of one pipe that wait for the socket, in one buffer, so that one write takes many of them.

use super::buffers::{Buffers, WRITE_BYTES};

/// The buffer of waiting records. Invariant: `buf[start..end]` waits, and `buf` is empty if no bytes wait.
#[derive(Default)]
pub(crate) struct Outgoing {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// Returns the bytes that wait.
    pub fn pending(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// Returns room for at least `need` bytes after the waiting bytes, in a buffer of the pool if they fit in one.
    pub fn room(&mut self, need: usize, buffers: &Buffers) -> &mut [u8] {
        if self.buf.len() - self.end < need {
            self.make_room(need, buffers);
        }
        &mut self.buf[self.end..]
    }

    /// Returns room for at least `need` bytes of a handshake. Does not take a buffer of the pool, because an
    /// unauthenticated peer gets no large buffer.
    pub fn small_room(&mut self, need: usize) -> &mut [u8] {
        if self.buf.len() - self.end < need {
            self.buf.resize(self.end + need, 0);
        }
        &mut self.buf[self.end..]
    }

    /// Notes that `bytes` bytes of the room have been written.
    pub fn wrote(&mut self, bytes: usize) {
        self.end = self.buf.len().min(self.end + bytes);
    }

    /// Notes that the socket took `bytes` bytes.
    pub fn sent(&mut self, bytes: usize, buffers: &Buffers) {
        self.start = self.end.min(self.start + bytes);
        if self.start == self.end {
            buffers.give(std::mem::take(self).buf);
        }
    }

    fn make_room(&mut self, need: usize, buffers: &Buffers) {
        let pending = self.start..self.end;
        let bytes = pending.len();
        if bytes + need <= self.buf.len() {
            self.buf.copy_within(pending, 0);
        } else {
            let mut buf =
                if bytes + need <= WRITE_BYTES { buffers.take_write() } else { vec![0; (bytes + need) * 3 / 2] };
            buf[..bytes].copy_from_slice(&self.buf[pending]);
            buffers.give(std::mem::replace(&mut self.buf, buf));
        }
        (self.start, self.end) = (0, bytes);
    }
}
