//! The pump between a descriptor and a stream of a link. The system copies each byte once; this process copies none.

use std::io;

use super::{Fetched, no_delay};
use crate::relay::half::{Flow, Half};
use crate::relay::side::Side;
use crate::streams::{CHUNK_BYTES, Sessions, StreamAt, Taken};

/// Writes received data of a stream to a descriptor, from the memory that holds it.
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
        Taken::Bytes { put, offered, is_all } => {
            from.ready.readable = !is_all;
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

/// Reads from a descriptor into the chunk that the session keeps, as many bytes as the session has room for.
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
        Ok(Taken::Bytes { put, offered, .. }) => {
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

/// Bytes that go into one stream in one turn: as many as a carrier takes at once. So they leave while they are in the
/// processor's cache, and other streams do not wait.
pub(crate) const BYTES_PER_TURN: usize = 4 * CHUNK_BYTES;
