//! Atomic send: the bytes of one send are accepted as a whole, or none of them.

use std::task::Waker;

use crate::sys::BorrowedSocket;

use super::error::PipeError;
use super::pipe::{Pipe, Readiness};
use super::queue::SendQueue;

/// A pipe that accepts all bytes of a [`send`](Pipe::send), or none. Bytes that the pipe beneath does not take wait in a queue of
/// bounded size.
///
/// Bytes that were accepted before a reset may still be lost, as with every pipe.
#[derive(Debug)]
pub struct Atomic<P> {
    inner: P,
    queue: SendQueue,
    capacity: usize,
    /// A send had no room.
    waits_for_room: bool,
    finishing: bool,
}

impl<P: Pipe> Atomic<P> {
    /// The most bytes of one send, unless [`with_capacity`](Atomic::with_capacity) sets another limit: room for a datagram
    /// of the default size, and its length.
    pub const CAPACITY: usize = 64 * 1024;

    /// Makes a pipe over another one, with the default capacity.
    pub fn new(inner: P) -> Atomic<P> {
        Atomic::with_capacity(inner, Atomic::<P>::CAPACITY)
    }

    /// Makes a pipe over another one. At most `capacity` bytes, but at least one, wait; this is also the most of one send.
    pub fn with_capacity(inner: P, capacity: usize) -> Atomic<P> {
        let queue = SendQueue::default();
        Atomic { inner, queue, capacity: capacity.max(1), waits_for_room: false, finishing: false }
    }

    /// Returns the pipe beneath.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Sends what the pipe beneath takes at once, so that it is not copied into the queue.
    fn send_now(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        match self.inner.send(&bytes[..bytes.len().min(self.inner.send_bytes_max())]) {
            Err(PipeError::WouldBlock) => Ok(0),
            result => result,
        }
    }

    fn flush(&mut self) -> Result<(), PipeError> {
        self.queue.flush(&mut self.inner)?;
        if self.queue.is_empty() && self.finishing { self.inner.finish() } else { Ok(()) }
    }
}

impl<P: Pipe> Pipe for Atomic<P> {
    /// In addition to the errors of every pipe, returns [`PipeError::TooLong`] for more bytes than the capacity. This breaks
    /// nothing, and none of the bytes is sent.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        if let Some(error) = self.broken() {
            return Err(error);
        }
        if self.finishing {
            return Err(PipeError::Finished);
        }
        if bytes.len() > self.capacity {
            return Err(PipeError::TooLong { bytes: bytes.len(), limit: self.capacity });
        }
        self.flush()?;
        if self.queue.len() + bytes.len() > self.capacity {
            self.waits_for_room = true;
            return Err(PipeError::WouldBlock);
        }
        self.waits_for_room = false;
        let taken = if self.queue.is_empty() { self.send_now(bytes)? } else { 0 };
        self.queue.push(&bytes[taken..]);
        self.flush()?;
        Ok(bytes.len())
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError> {
        self.inner.receive(buf)
    }

    fn finish(&mut self) -> Result<(), PipeError> {
        self.finishing = true;
        self.flush()
    }

    fn abort(&mut self) {
        self.queue.clear();
        self.inner.abort();
    }

    fn drive(&mut self, ready: Readiness) -> Result<(), PipeError> {
        self.waits_for_room = false;
        self.inner.drive(ready)?;
        self.flush()
    }

    fn is_ready(&self) -> bool {
        self.inner.is_ready()
    }

    fn is_readable(&self) -> bool {
        self.inner.is_readable()
    }

    /// Returns true if there is room for one byte. A longer send may still find too little.
    fn is_writable(&self) -> bool {
        self.broken().is_some() || (!self.finishing && !self.waits_for_room && self.queue.len() < self.capacity)
    }

    fn fin_sent(&self) -> bool {
        self.queue.is_empty() && self.inner.fin_sent()
    }

    fn fin_received(&self) -> bool {
        self.inner.fin_received()
    }

    fn broken(&self) -> Option<PipeError> {
        self.inner.broken()
    }

    fn queued(&self) -> usize {
        self.queue.len() + self.inner.queued()
    }

    fn send_bytes_max(&self) -> usize {
        self.capacity
    }

    fn message_bytes_max(&self) -> Option<usize> {
        self.inner.message_bytes_max()
    }

    fn wants_write(&self) -> bool {
        self.inner.wants_write()
    }

    fn descriptor(&self) -> Option<BorrowedSocket<'_>> {
        self.inner.descriptor()
    }

    fn set_waker(&mut self, waker: &Waker) {
        self.inner.set_waker(waker);
    }
}
