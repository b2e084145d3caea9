//! The lanes of a carrier over QUIC: each is a stream in each direction.
//!
//! Each end opens one unidirectional stream for each lane, in the order of the lanes, so that the number of a stream is that of
//! its lane, and neither end needs to hear of a lane before it sends there. Outgoing frames of a lane are staged here as long as
//! the connection has bytes that it has not sent: what it was given cannot be taken back, and would be in the way of others.
//! The first lane has urgent frames alone, so these never wait here for the others, and leave ahead of them. Of the others, the
//! one with the fewest bytes goes first, so that a small frame does not wait for a bulk transfer. None waits for long, because
//! the session gives no more until all is written.

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::{Connection, Dir, ReadError, StreamEvent, StreamId, WriteError};

use crate::link::{LANES_MAX, Outbox, Piece};

/// The lanes of one connection.
#[derive(Default)]
pub(super) struct Lanes {
    out: Vec<Outgoing>,
    /// Bytes that are staged on all lanes.
    staged: usize,
    /// The lanes that may have bytes to read, as bits.
    readable: u32,
    /// The lane that was read last.
    last: u32,
}

/// The outgoing half of a lane.
struct Outgoing {
    stream: StreamId,
    /// Frames of the present batch.
    batch: BytesMut,
    /// Earlier bytes, and their number.
    staged: std::collections::VecDeque<Bytes>,
    waiting: usize,
}

impl Lanes {
    /// Opens the outgoing half of each lane. Returns false if the peer permits too few.
    pub fn open(&mut self, connection: &mut Connection) -> bool {
        while self.out.len() < LANES {
            let Some(stream) = connection.streams().open(Dir::Uni) else { return false };
            self.out.push(Outgoing { stream, batch: BytesMut::new(), staged: Default::default(), waiting: 0 });
        }
        let first = self.out.first().map(|lane| connection.send_stream(lane.stream).set_priority(1));
        first.is_some_and(|set| set.is_ok())
    }

    /// Returns the bytes that wait here.
    pub fn staged(&self) -> usize {
        self.staged
    }

    /// Stages a frame. A lane that does not exist has no frames.
    pub fn stage(&mut self, lane: u16, frame: &Outbox) {
        let Some(out) = self.out.get_mut(usize::from(lane)) else { return };
        for piece in frame.pieces() {
            match piece {
                Piece::Shared(chunk) if chunk.len() >= SHARED_BYTES_MIN => {
                    out.end_batch();
                    out.push(chunk.clone());
                }
                Piece::Shared(chunk) => out.batch.extend_from_slice(chunk),
                Piece::Copied(bytes) => out.batch.extend_from_slice(bytes),
            }
        }
        self.staged += frame.len();
    }

    /// Stages bytes on the first lane.
    pub fn stage_bytes(&mut self, bytes: &[u8]) {
        let Some(out) = self.out.first_mut() else { return };
        out.batch.extend_from_slice(bytes);
        self.staged += bytes.len();
    }

    /// Ends a batch: its frames can be written.
    pub fn end_batch(&mut self) {
        self.out.iter_mut().for_each(Outgoing::end_batch);
    }

    /// Writes the staged bytes of the first lane.
    ///
    /// # Errors
    /// The peer has closed the lane.
    pub fn write_urgent(&mut self, connection: &mut Connection) -> Result<(), WriteError> {
        self.write_lane(connection, 0, usize::MAX).map(drop)
    }

    /// Writes at most `most` of the staged bytes of the other lanes. Returns true if it has written any.
    ///
    /// # Errors
    /// The peer has closed a lane.
    pub fn write(&mut self, connection: &mut Connection, most: usize) -> Result<bool, WriteError> {
        let (mut left, mut tried) = (most, 1u32);
        while left > 0 {
            let waiting = (0u32..).zip(&self.out).filter(|(n, lane)| lane.waiting > 0 && tried & (1 << n) == 0);
            let Some((lane, _)) = waiting.min_by_key(|(_, lane)| lane.waiting) else { break };
            left -= self.write_lane(connection, lane as usize, left)?;
            // It is empty now, or the peer takes no more on it.
            tried |= 1 << lane;
        }
        Ok(left < most)
    }

    fn write_lane(&mut self, connection: &mut Connection, lane: usize, most: usize) -> Result<usize, WriteError> {
        let Some(out) = self.out.get_mut(lane) else { return Ok(0) };
        let mut written = 0;
        while let Some(front) = out.staged.front_mut() {
            let mut piece = [front.slice(..front.len().min(most - written))];
            if piece[0].is_empty() {
                break;
            }
            match connection.send_stream(out.stream).write_chunks(&mut piece) {
                Ok(put) => {
                    front.advance(put.bytes);
                    written += put.bytes;
                }
                Err(WriteError::Blocked) => break,
                Err(error) => return Err(error),
            }
            if front.is_empty() {
                out.staged.pop_front();
            }
        }
        out.waiting -= written;
        self.staged -= written;
        Ok(written)
    }

    /// Tells the peer that no more frames follow on any lane.
    pub fn finish(&mut self, connection: &mut Connection) {
        for lane in &self.out {
            // A lane that the peer has closed is finished.
            let _ = connection.send_stream(lane.stream).finish();
        }
    }

    /// Notes an event of a stream.
    pub fn note(&mut self, connection: &mut Connection, event: &StreamEvent) {
        match event {
            StreamEvent::Opened { dir: Dir::Uni } => {
                while let Some(stream) = connection.streams().accept(Dir::Uni) {
                    self.note_readable(stream);
                }
            }
            StreamEvent::Readable { id } => self.note_readable(*id),
            _ => {}
        }
    }

    fn note_readable(&mut self, stream: StreamId) {
        // The peer may open no more streams than there are lanes.
        if stream.index() < LANES as u64 {
            self.readable |= 1 << stream.index();
        }
    }

    /// Returns true if a lane may have bytes to read.
    pub fn is_readable(&self) -> bool {
        self.readable != 0
    }

    /// Reads at most `most` bytes of the next lane that has any: of the first one, or of the others by turns. Returns the lane and
    /// the bytes.
    pub fn read(&mut self, connection: &mut Connection, most: usize) -> Option<(u16, Bytes)> {
        while self.readable != 0 {
            let lane = next_of(self.readable, self.last);
            self.last = lane;
            let stream = StreamId::new(!connection.side(), Dir::Uni, lane.into());
            let (bytes, has_more) = read_stream(connection, stream, most);
            if !has_more {
                self.readable &= !(1 << lane);
            }
            if let Some(bytes) = bytes {
                return Some((lane as u16, bytes));
            }
        }
        None
    }
}

impl Outgoing {
    fn end_batch(&mut self) {
        if !self.batch.is_empty() {
            let batch = self.batch.split().freeze();
            self.push(batch);
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.waiting += bytes.len();
        self.staged.push_back(bytes);
    }
}

/// Returns the next of these lanes, given as bits, after the one that was read last. The first lane goes ahead of the others.
fn next_of(readable: u32, last: u32) -> u32 {
    let later = readable & (u32::MAX << 1 << last);
    if readable & 1 != 0 || later == 0 { readable.trailing_zeros() } else { later.trailing_zeros() }
}

/// Reads at most `most` bytes of a stream. Also returns true if there may be more.
fn read_stream(connection: &mut Connection, stream: StreamId, most: usize) -> (Option<Bytes>, bool) {
    let mut incoming = connection.recv_stream(stream);
    let Ok(mut chunks) = incoming.read(true) else { return (None, false) };
    let mut first: Option<Bytes> = None;
    let mut gathered = BytesMut::new();
    let mut left = most;
    let has_more = loop {
        match chunks.next(left) {
            Ok(Some(chunk)) => {
                left -= chunk.bytes.len();
                match first.take() {
                    None if gathered.is_empty() => first = Some(chunk.bytes),
                    earlier => {
                        if gathered.is_empty() {
                            gathered.reserve(most.min(GATHERED_BYTES));
                        }
                        earlier.iter().for_each(|bytes| gathered.extend_from_slice(bytes));
                        gathered.extend_from_slice(&chunk.bytes);
                    }
                }
                if left == 0 {
                    break true;
                }
            }
            Err(ReadError::Blocked) => break false,
            // The peer has ended the lane. The session finds out that nothing comes there any more.
            Ok(None) | Err(ReadError::Reset(_)) => break false,
        }
    };
    // The next packet tells the peer that it may send more.
    let _ = chunks.finalize();
    let bytes = first.or_else(|| (!gathered.is_empty()).then(|| gathered.freeze()));
    (bytes, has_more)
}

/// The lanes: one for control frames, and the others for streams.
pub(super) const LANES: usize = LANES_MAX as usize;
/// The shortest payload that is referenced: a shorter one is copied, so that a connection holds few pieces.
const SHARED_BYTES_MIN: usize = 1 << 10;
/// Bytes that are reserved for pieces that are gathered.
const GATHERED_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_read_by_turns_and_the_first_one_ahead_of_them() {
        let order = |readable: u32, mut last: u32| {
            [(); 4].map(|()| {
                last = next_of(readable, last);
                last
            })
        };
        assert_eq!(order(0b1_0110, 0), [1, 2, 4, 1]);
        assert_eq!(order(0b1_0110, 4), [1, 2, 4, 1]);
        assert_eq!(order(0b1_0111, 2), [0; 4]);
        assert_eq!(order(1 << 15, 15), [15; 4]);
    }
}
