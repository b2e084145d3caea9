//! Queues of bytes: those that a pipe has accepted and the pipe beneath has not, and those that wait for a receive.

use std::collections::VecDeque;

use super::error::PipeError;
use super::pipe::Pipe;

/// A queue of bytes. It holds no memory while it is empty and was large. The user bounds its length.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    bytes: Vec<u8>,
    start: usize,
}

impl SendQueue {
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.bytes.len() + bytes.len() > self.bytes.capacity() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn clear(&mut self) {
        (self.bytes, self.start) = (Vec::new(), 0);
    }

    /// Sends as many bytes as the pipe accepts now.
    pub fn flush(&mut self, to: &mut impl Pipe) -> Result<(), PipeError> {
        while !self.is_empty() {
            let end = self.bytes.len().min(self.start.saturating_add(to.send_bytes_max()));
            match to.send(&self.bytes[self.start..end]) {
                Ok(count) => self.start += count.min(end - self.start),
                Err(PipeError::WouldBlock) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.start = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        Ok(())
    }
}

/// Moves bytes from the front of a queue to `buf`. Returns their number, which is 0 only if one of them is empty. A queue that
/// was large holds no memory when it is empty.
pub(super) fn take_front(queue: &mut VecDeque<u8>, buf: &mut [u8]) -> usize {
    let (front, _) = queue.as_slices();
    let count = buf.len().min(front.len());
    buf[..count].copy_from_slice(&front[..count]);
    queue.drain(..count);
    if queue.is_empty() && queue.capacity() > KEPT_BYTES {
        *queue = VecDeque::new();
    }
    count
}

/// The memory that an empty queue keeps.
const KEPT_BYTES: usize = 4096;
