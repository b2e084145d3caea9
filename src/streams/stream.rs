//! A stream of a link as a side: reading, writing and closing.
//!
//! A stream has no socket. Its bytes are in the session of its link, and events of the session tell when it is readable or
//! writable. Reading and writing behave like those of a non-blocking socket, so that relay, half-close, timers, limits and
//! logs work on a stream unchanged.

use std::collections::HashMap;
use std::io::{self, IoSlice};

use crate::link::{Bound, Code, Refused, Session, StreamId, Time};
use crate::types::id::Id;

use super::chunks::CHUNK_BYTES;
use super::sessions::{LinkSession, Sessions};

impl Slot {
    pub const fn new(side: Id) -> Slot {
        Slot { side, answered: false, accepted: false, fin: false, finished: false, stopped: false, reset: None }
    }
}

/// The name of a stream: its link, the epoch of its session, and its id in the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamAt {
    pub link: Id,
    pub epoch: u32,
    pub id: StreamId,
}

/// The record of a stream that is a side.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The side that the stream is.
    pub side: Id,
    /// The peer has answered the OPEN, or has reset the stream instead.
    pub answered: bool,
    /// This node or the peer has accepted the stream.
    pub accepted: bool,
    /// All received bytes were read, and the peer has finished the stream.
    pub fin: bool,
    /// This side has finished the stream.
    pub finished: bool,
    /// The peer reads no more, because its side is gone.
    pub stopped: bool,
    /// The code with which the peer reset the stream.
    pub reset: Option<Code>,
}

/// The result of moving bytes into or out of a stream.
#[derive(Debug)]
pub(crate) enum Taken {
    /// `put` bytes were moved, of `offered` that could have been. If `is_all` is true, the stream has no more bytes now, and an
    /// event will tell when it has.
    Bytes { put: usize, offered: usize, is_all: bool },
    /// The stream has no bytes, or no room, now.
    Nothing,
    /// The input has ended.
    End,
    /// The call of the other side failed.
    Failed(io::Error),
}

impl Sessions {
    /// Copies received data into `buf`. Returns 0 at the end of the stream.
    pub fn read(&mut self, at: StreamAt, buf: &mut [u8]) -> io::Result<usize> {
        let taken = self.write_to(at, buf.len(), |pieces| {
            let mut count = 0;
            for piece in pieces {
                buf[count..count + piece.len()].copy_from_slice(piece);
                count += piece.len();
            }
            Ok(count)
        });
        match taken? {
            Taken::Bytes { put, .. } => Ok(put),
            Taken::Nothing => Err(io::ErrorKind::WouldBlock.into()),
            Taken::End => Ok(0),
            Taken::Failed(error) => Err(error),
        }
    }

    /// Copies bytes into the stream, as many as it has room for. After a short write the session knows that the caller waits
    /// for room, as a socket does.
    pub fn write(&mut self, at: StreamAt, buf: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let left = &buf[done..];
            let taken = self.read_from(at, left.len(), |room| {
                let count = room.len().min(left.len());
                room[..count].copy_from_slice(&left[..count]);
                Ok(count)
            });
            match taken {
                Ok(Taken::Bytes { put, .. }) => done += put,
                Ok(Taken::Nothing | Taken::End) => break,
                Ok(Taken::Failed(error)) | Err(error) if done == 0 => return Err(error),
                Ok(Taken::Failed(_)) | Err(_) => break,
            }
        }
        if done == 0 && !buf.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(done) }
    }

    /// Offers at most `limit` received bytes to `put`, which returns the number that it took.
    ///
    /// # Errors
    /// The stream was reset.
    pub fn write_to(
        &mut self,
        at: StreamAt,
        limit: usize,
        put: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Taken> {
        if self.undelivered.contains(at) {
            return self.undelivered.write_to(at, limit, put).ok_or_else(|| io::ErrorKind::ConnectionReset.into());
        }
        let now = self.now;
        let Some((streams, session)) = self.at(at) else { return Err(io::ErrorKind::ConnectionReset.into()) };
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (count, offered) = gather(session.readable(at.id), limit, &mut pieces);
        if offered == 0 {
            return match streams.get(&at.id) {
                Some(Slot { reset: None, fin: true, .. }) => Ok(Taken::End),
                Some(Slot { reset: None, .. }) => Ok(Taken::Nothing),
                Some(Slot { reset: Some(code), .. }) => Err(reset_error(*code)),
                None => Err(io::ErrorKind::ConnectionReset.into()),
            };
        }
        match put(&pieces[..count]) {
            Ok(put) => {
                session.consume(now, at.id, put);
                self.touch(at.link);
                let is_all = put == offered && offered < limit && count < PIECES_MAX;
                Ok(Taken::Bytes { put, offered, is_all })
            }
            Err(error) => Ok(Taken::Failed(error)),
        }
    }

    /// Lets `get` read as many bytes as the stream has room for, `limit` at most.
    ///
    /// # Errors
    /// The stream takes no more bytes at all.
    pub fn read_from(
        &mut self,
        at: StreamAt,
        limit: usize,
        get: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Taken> {
        let wished = limit.min(CHUNK_BYTES);
        let Some((_, session)) = self.at(at) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let room = session.room(at.id, wished).map_err(|_| io::ErrorKind::BrokenPipe)?;
        if room == 0 {
            return Ok(Taken::Nothing);
        }
        let held = session.sent_cost();
        let (mut bytes, offered) = match self.chunks.read(room, held, get) {
            Err(error) => return Ok(Taken::Failed(error)),
            Ok((bytes, _)) if bytes.is_empty() => return Ok(Taken::End),
            Ok(read) => read,
        };
        let put = bytes.len();
        let Some((_, session)) = self.at(at) else { return Err(io::ErrorKind::BrokenPipe.into()) };
        match session.write(at.id, &mut bytes) {
            Ok(taken) => debug_assert_eq!(taken, put, "there was room for it"),
            Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        self.touch(at.link);
        Ok(Taken::Bytes { put, offered, is_all: false })
    }

    /// Finishes the stream: no more bytes will be written.
    pub fn finish(&mut self, at: StreamAt) -> io::Result<()> {
        let Some((streams, session)) = self.at(at) else { return Ok(()) };
        if let Some(slot) = streams.get_mut(&at.id) {
            slot.finished = true;
        }
        let result = session.finish(at.id);
        self.touch(at.link);
        match result {
            Ok(()) | Err(Refused::Gone) => Ok(()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Stops reading the stream, because it has no reader any more.
    pub fn stop(&mut self, at: StreamAt) {
        let now = self.now;
        let Some((_, session)) = self.at(at) else { return };
        session.stop(now, at.id, Code::SourceReset);
        self.touch(at.link);
    }

    /// Resets the stream, so that the peer's application cannot take the received part for the whole.
    pub fn reset(&mut self, at: StreamAt) {
        let now = self.now;
        let Some((streams, session)) = self.at(at) else { return };
        if streams.get(&at.id).is_some_and(|slot| !slot.accepted) {
            give_up(session, now, at.id);
        }
        session.reset(at.id, Code::SourceReset);
        session.stop(now, at.id, Code::SourceReset);
        self.touch(at.link);
    }

    /// Releases a stream whose side is gone. Written data still arrives at the peer; unread data is dropped.
    pub fn release(&mut self, at: StreamAt) {
        if self.undelivered.release(at) {
            return;
        }
        let now = self.now;
        let Some((streams, session)) = self.at(at) else { return };
        let Some(slot) = streams.remove(&at.id) else { return };
        if !slot.accepted {
            give_up(session, now, at.id);
            session.reset(at.id, Code::SourceReset);
        } else if !slot.finished {
            // A stream that is reset already cannot be finished, and need not be.
            let _ = session.finish(at.id);
        }
        if !slot.fin {
            session.stop(now, at.id, Code::SourceFin);
        }
        self.touch(at.link);
    }

    /// Returns true if the peer has not reset its direction of the stream, so that its data is still to be delivered even if
    /// it reads no more.
    pub fn is_sending(&self, at: StreamAt) -> bool {
        if self.undelivered.contains(at) {
            return true;
        }
        let link = self.live(at);
        link.and_then(|link| link.streams.get(&at.id)).is_some_and(|slot| slot.reset.is_none())
    }

    /// Returns true if no byte waits to be read, and neither direction has ended.
    pub fn is_silent(&self, at: StreamAt) -> bool {
        let Some(link) = self.live(at) else { return false };
        let (Some(slot), Some(session)) = (link.streams.get(&at.id), &link.session) else { return false };
        !slot.fin && !slot.stopped && slot.reset.is_none() && session.is_silent(at.id)
    }

    /// Returns true if the peer has all written bytes, and the FIN if the stream was finished.
    pub fn is_acknowledged(&self, at: StreamAt) -> bool {
        let link = self.live(at);
        link.and_then(|link| link.session.as_ref()).is_none_or(|session| session.is_acknowledged(at.id))
    }

    /// Returns true if written bytes wait for credit of the peer's reader only.
    pub fn is_out_of_credit(&self, at: StreamAt) -> bool {
        let link = self.live(at);
        link.and_then(|link| link.session.as_ref()).is_some_and(|session| session.is_out_of_credit(at.id))
    }

    /// Returns the error with which the stream ended, if it did.
    pub fn error(&self, at: StreamAt) -> Option<io::Error> {
        let link = self.live(at)?;
        match link.streams.get(&at.id)? {
            Slot { reset: Some(code), .. } => Some(reset_error(*code)),
            Slot { stopped: true, .. } => Some(io::ErrorKind::BrokenPipe.into()),
            Slot { .. } => None,
        }
    }

    /// Accepts or refuses a stream that the peer has opened.
    pub fn answer(&mut self, at: StreamAt, result: Result<Bound, Bound>) {
        let now = self.now;
        let Some((streams, session)) = self.at(at) else { return };
        if let Some(slot) = streams.get_mut(&at.id) {
            slot.accepted = result.is_ok();
        }
        // A stream that was reset meanwhile needs no answer.
        let _ = match result {
            Ok(bound) => session.accept(at.id, bound),
            Err(failure) => session.refuse(now, at.id, failure),
        };
        self.touch(at.link);
    }

    /// Returns the record of a stream's link, if it still has the session that the stream began in.
    pub(super) fn live(&self, at: StreamAt) -> Option<&LinkSession> {
        self.get(at.link).filter(|link| link.epoch == at.epoch)
    }

    /// Returns the streams and the session of a stream's link, if it still has the session that the stream began in.
    pub(super) fn at(&mut self, at: StreamAt) -> Option<(&mut Streams, &mut Session)> {
        let link = self.get_mut(at.link).filter(|link| link.epoch == at.epoch)?;
        Some((&mut link.streams, link.session.as_mut()?))
    }
}

/// Fills `pieces` with at most `limit` bytes of `runs`. Returns the number of pieces and of bytes.
pub(super) fn gather<'a>(
    runs: impl Iterator<Item = &'a [u8]>,
    limit: usize,
    pieces: &mut [IoSlice<'a>],
) -> (usize, usize) {
    let (mut count, mut offered) = (0, 0);
    for (place, bytes) in pieces.iter_mut().zip(runs) {
        let bytes = &bytes[..bytes.len().min(limit - offered)];
        if bytes.is_empty() {
            break;
        }
        *place = IoSlice::new(bytes);
        (count, offered) = (count + 1, offered + bytes.len());
    }
    (count, offered)
}

/// Returns the error of a stream that the peer has reset. A reset that only passes on the reset of a socket needs no text.
fn reset_error(code: Code) -> io::Error {
    match code {
        Code::SourceReset | Code::DestReset => io::ErrorKind::ConnectionReset.into(),
        code => io::Error::other(format!("the far end has reset the connection: {}", code.as_str())),
    }
}

/// Refuses a stream of the peer that has no answer yet; without an answer the session would keep it.
fn give_up(session: &mut Session, now: Time, id: StreamId) {
    let answer = Bound { text: "it was given up".to_owned(), ..Bound::refused(Code::Other) };
    // A stream that was answered already, or that this node opened, needs no answer.
    let _ = session.refuse(now, id, answer);
}

/// The streams of a session that are sides.
pub(crate) type Streams = HashMap<StreamId, Slot>;

/// Maximum of the pieces of one vectored write.
pub(super) const PIECES_MAX: usize = 64;
