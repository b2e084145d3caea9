//! Datagrams over a pipe of bytes: each datagram behind its length.
//!
//! ```text
//!   +-----------------------+----------------------+------------------
//!   | length, 1 to 4 bytes  | bytes of a datagram  | length ...
//!   +-----------------------+----------------------+------------------
//! ```
//! The length is the one of [`varint`]. A datagram has at least one byte, because a receive of 0 bytes is the FIN.

use std::task::Waker;

use crate::sys::BorrowedSocket;

use super::error::PipeError;
use super::pipe::{Pipe, Readiness};
use super::queue::SendQueue;
use super::varint;

/// A pipe whose sends and receives are datagrams: each send is one receive of the peer, with the same bytes. Datagrams are
/// neither lost nor reordered, because the pipe beneath is reliable.
///
/// A receive into a buffer that is smaller than the datagram returns the front of it, and the next receive the rest.
/// [`next_bytes`](Datagram::next_bytes) tells how much is left. An empty send sends nothing.
#[derive(Debug)]
pub struct Datagram<P> {
    inner: P,
    limit: usize,
    /// The rest of a datagram that the pipe beneath has not taken. It holds one datagram at most.
    outgoing: SendQueue,
    waits_for_room: bool,
    finishing: bool,
    incoming: Incoming,
    fin_received: bool,
    broken: Option<PipeError>,
}

/// Bytes that were received from the pipe beneath: the rest of a complete datagram, and then lengths and datagrams.
#[derive(Debug, Default)]
struct Incoming {
    /// `buf[start..end]` was received and not handed out. Invariant: the buffer is empty while a receive has found nothing and
    /// no byte waits.
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the first datagram from `start` on, once all of it is there; else 0.
    left: usize,
}

impl<P: Pipe> Datagram<P> {
    /// The largest datagram, unless [`with_limit`](Datagram::with_limit) sets another limit: that of UDP over IPv4.
    pub const LIMIT: usize = 65_507;

    /// Makes a pipe over another one, with the default limit.
    pub fn new(inner: P) -> Datagram<P> {
        Datagram::with_limit(inner, Datagram::<P>::LIMIT)
    }

    /// Makes a pipe over another one, for datagrams of `limit` bytes at most. The limit is brought between 1 and
    /// [`varint::VALUE_MAX`]. Both ends need the same limit: a datagram that is longer than the limit of its receiver breaks
    /// the pipe.
    pub fn with_limit(inner: P, limit: usize) -> Datagram<P> {
        Datagram {
            inner,
            limit: limit.clamp(1, varint::VALUE_MAX),
            outgoing: SendQueue::default(),
            waits_for_room: false,
            finishing: false,
            incoming: Incoming::default(),
            fin_received: false,
            broken: None,
        }
    }

    /// Returns the pipe beneath.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    /// Returns the bytes that are left of a datagram of which a receive has taken the front; none between datagrams.
    pub fn next_bytes(&self) -> Option<usize> {
        Some(self.incoming.left).filter(|left| *left > 0)
    }

    /// Breaks the pipe, and resets the peer.
    fn fail(&mut self, error: PipeError) -> PipeError {
        self.outgoing.clear();
        let error = self.broken.get_or_insert(error).clone();
        if self.inner.broken().is_none() {
            self.inner.abort();
        }
        error
    }

    fn check(&self) -> Result<(), PipeError> {
        self.broken().map_or(Ok(()), Err)
    }

    fn flush(&mut self) -> Result<(), PipeError> {
        self.outgoing.flush(&mut self.inner)?;
        if self.outgoing.is_empty() && self.finishing { self.inner.finish() } else { Ok(()) }
    }

    /// Receives from the pipe beneath until a datagram is complete.
    fn fill(&mut self) -> Result<(), PipeError> {
        while self.incoming.left == 0 {
            if self.incoming.parse(self.limit).map_err(|error| self.fail(error))? {
                return Ok(());
            }
            let room = self.incoming.room();
            match self.inner.receive(room) {
                Ok(0) => {
                    self.incoming.received(0);
                    if self.incoming.end > self.incoming.start {
                        return Err(self.fail(PipeError::Truncated));
                    }
                    self.fin_received = true;
                    return Ok(());
                }
                Ok(count) => self.incoming.received(count),
                Err(error) => {
                    self.incoming.received(0);
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

impl<P: Pipe> Pipe for Datagram<P> {
    /// Sends one datagram: all of `bytes`. In addition to the errors of every pipe, breaks the pipe with
    /// [`PipeError::TooLong`] if there are more bytes than the limit.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        self.check()?;
        if self.finishing {
            return Err(PipeError::Finished);
        }
        if bytes.len() > self.limit {
            return Err(self.fail(PipeError::TooLong { bytes: bytes.len(), limit: self.limit }));
        }
        self.flush()?;
        if !self.outgoing.is_empty() {
            self.waits_for_room = true;
            return Err(PipeError::WouldBlock);
        }
        self.waits_for_room = false;
        if !bytes.is_empty() {
            let (length, count) = varint::encode(bytes.len())?;
            self.outgoing.push(&length[..count]);
            self.outgoing.push(bytes);
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// Receives one datagram, or what `buf` has room for of it.
    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.fin_received {
            return Ok(0);
        }
        self.fill()?;
        Ok(self.incoming.take(buf))
    }

    fn finish(&mut self) -> Result<(), PipeError> {
        self.check()?;
        self.finishing = true;
        self.flush()
    }

    fn abort(&mut self) {
        self.outgoing.clear();
        self.broken.get_or_insert(PipeError::Aborted);
        self.inner.abort();
    }

    fn drive(&mut self, ready: Readiness) -> Result<(), PipeError> {
        self.waits_for_room = false;
        self.inner.drive(ready)?;
        self.check()?;
        self.flush()
    }

    fn is_ready(&self) -> bool {
        self.broken.is_none() && self.inner.is_ready()
    }

    fn is_readable(&self) -> bool {
        // A complete datagram, or an invalid length, may wait behind the datagram that was taken.
        let waits = self.incoming.left > 0 || !matches!(self.incoming.first(self.limit), Ok(None));
        waits || self.fin_received || self.broken.is_some() || self.inner.is_readable()
    }

    fn is_writable(&self) -> bool {
        let has_room = !self.finishing && !self.waits_for_room && self.outgoing.is_empty() && self.inner.is_writable();
        self.broken().is_some() || has_room
    }

    fn fin_sent(&self) -> bool {
        self.outgoing.is_empty() && self.inner.fin_sent()
    }

    fn fin_received(&self) -> bool {
        self.fin_received
    }

    fn broken(&self) -> Option<PipeError> {
        self.broken.clone().or_else(|| self.inner.broken())
    }

    fn queued(&self) -> usize {
        self.outgoing.len() + self.inner.queued()
    }

    fn send_bytes_max(&self) -> usize {
        self.limit
    }

    fn message_bytes_max(&self) -> Option<usize> {
        Some(self.limit)
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

impl Incoming {
    /// Takes the length of the first datagram, if all of it is there. Returns true if it is.
    fn parse(&mut self, limit: usize) -> Result<bool, PipeError> {
        let first = self.first(limit)?;
        if let Some((count, length)) = first {
            (self.start, self.left) = (self.start + count, length);
        }
        Ok(first.is_some())
    }

    /// Returns the bytes of the first length, and that length, if all of its datagram is there.
    fn first(&self, limit: usize) -> Result<Option<(usize, usize)>, PipeError> {
        let bytes = &self.buf[self.start..self.end];
        let Some((length, count)) = varint::decode(bytes)? else { return Ok(None) };
        match length {
            0 => Err(PipeError::InvalidLength),
            _ if length > limit => Err(PipeError::TooLong { bytes: length, limit }),
            _ => Ok(Some((count, length)).filter(|_| bytes.len() >= count + length)),
        }
    }

    /// Returns room for the next bytes. The room grows with the bytes that have arrived, never with an announced length.
    fn room(&mut self) -> &mut [u8] {
        if self.buf.len() - self.end < READ_BYTES {
            self.buf.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            self.buf.resize(self.buf.len().max(self.end + READ_BYTES), 0);
        }
        &mut self.buf[self.end..self.end + READ_BYTES]
    }

    /// Notes that `count` bytes of the room were filled.
    fn received(&mut self, count: usize) {
        self.end += count.min(READ_BYTES);
        if self.start == self.end {
            *self = Incoming::default();
        }
    }

    /// Copies the next bytes of the datagram.
    fn take(&mut self, buf: &mut [u8]) -> usize {
        let count = buf.len().min(self.left);
        buf[..count].copy_from_slice(&self.buf[self.start..self.start + count]);
        (self.start, self.left) = (self.start + count, self.left - count);
        count
    }
}

/// Bytes of one receive from the pipe beneath.
const READ_BYTES: usize = 16 * 1024;
