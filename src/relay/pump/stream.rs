//! The pump between a descriptor and a stream of a link: one copy, by the system, and none of our own.

use std::io;

use super::{Fetched, no_delay};
use crate::relay::half::{Flow, Half};
use crate::relay::side::Side;
use crate::streams::{CHUNK_BYTES, Sessions, StreamAt, Taken};

/// From a stream to a descriptor: what has arrived is written from where it lies.
pub(super) fn fetch_out_of(
    stream: StreamAt,
    half: &mut Half,
    from: &mut Side,
    to: &mut Side,
    sessions: &mut Sessions,
    budget: usize,
) -> io::Result<Fetched> {
    if !to.ready.writable {
        return Ok(Fetched::Stuck);
    }
    no_delay(to);
    let limit = usize::try_from(half.left).unwrap_or(usize::MAX).min(budget);
    match sessions.write_to(stream, limit, |pieces| to.io.write_vectored(pieces))? {
        Taken::Bytes { put, offered } => {
            half.congested += u32::from(to.note_write(put, offered));
            half.bytes += put as u64;
            half.spend(put);
            Ok(Fetched::Bytes(put))
        }
        Taken::Nothing => {
            from.ready.readable = false;
            Ok(Fetched::Nothing)
        }
        Taken::End => Ok(Fetched::End),
        Taken::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => {
            to.ready.writable = false;
            half.congested += 1;
            Ok(Fetched::Stuck)
        }
        Taken::Failed(error) => Ok(Fetched::Refused(to.note_error(error))),
    }
}

/// From a descriptor into a stream: reads no more than the session has room for, into the chunk that it keeps.
pub(super) fn fetch_into(
    stream: StreamAt,
    half: &mut Half,
    from: &mut Side,
    to: &mut Side,
    sessions: &mut Sessions,
    budget: usize,
) -> io::Result<Fetched> {
    debug_assert!(half.flow == Flow::Relay);
    if !to.ready.writable {
        return Ok(Fetched::Stuck);
    }
    let limit = usize::try_from(half.left).unwrap_or(usize::MAX).min(budget);
    match sessions.read_from(stream, limit, |room| from.io.read_raw(room)) {
        Ok(Taken::Bytes { put, offered }) => {
            from.note_read(put, offered);
            half.bytes += put as u64;
            half.spend(put);
            Ok(Fetched::Bytes(put))
        }
        Ok(Taken::Nothing) => {
            to.ready.writable = false;
            half.congested += 1;
            Ok(Fetched::Stuck)
        }
        Ok(Taken::End) => from.note_end().map(|()| Fetched::End),
        Ok(Taken::Failed(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            from.ready.readable = false;
            Ok(Fetched::Nothing)
        }
        Ok(Taken::Failed(error)) => Err(from.note_error(error)),
        Err(error) => Ok(Fetched::Refused(error)),
    }
}

/// Bytes that go into one stream in one turn: what a carrier takes at once. They leave while they are in the processor's
/// cache, and those beside them do not wait.
pub(super) const BYTES_PER_TURN: usize = 4 * CHUNK_BYTES;
