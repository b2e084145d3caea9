//! The records of one pipe on their way to the socket, side by side, so that one write takes many.

use super::buffers::{Buffers, WRITE_BYTES};

/// `buf[start..end]` waits; `buf` is empty while nothing does.
#[derive(Default)]
pub(super) struct Outgoing {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// What waits.
    pub fn pending(&self) -> &[u8] {
        self.buf.get(self.start..self.end).unwrap_or_default()
    }

    /// Room for `need` bytes or more behind what waits, in a buffer of the pool if it fits one.
    pub fn room(&mut self, need: usize, buffers: &Buffers) -> &mut [u8] {
        if self.buf.len() - self.end < need {
            self.make_room(need, buffers);
        }
        &mut self.buf[self.end..]
    }

    /// The same for the few bytes of a handshake: a visitor gets no large buffer.
    pub fn small_room(&mut self, need: usize) -> &mut [u8] {
        if self.buf.len() - self.end < need {
            self.buf.resize(self.end + need, 0);
        }
        &mut self.buf[self.end..]
    }

    /// So many bytes of the room have been written.
    pub fn wrote(&mut self, bytes: usize) {
        self.end = self.buf.len().min(self.end + bytes);
    }

    /// So many bytes have gone to the socket.
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
