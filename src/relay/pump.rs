//! The pump: moves the bytes of one half from one side to the other. One pump serves both directions and both modes.
//!
//! The pump delivers waiting bytes before it fetches more, so a half never holds more than one block, or one pipe. It reads
//! into a block and writes that block at once; after several full blocks it asks for a pipe and splices. It stops when a
//! side blocks, when the budget of the turn is used up, or when its work is done, and returns which, so that the caller
//! cannot forget to queue it again. The pump knows no connection, no handler and no clock.
//!
//! Between a socket and a stream of a link there is no block: bytes go from the buffers of the session to the socket, and
//! from the socket into a chunk that the session keeps; see `stream`.
//!
//! System calls per chunk of a copied half: one `recv`, one `send`. Per chunk of a spliced half: two `splice`.

use std::io;

use crate::relay::block::BlockPool;
use crate::relay::half::{Flow, Half, NO_SPLICE, Phase, UNLIMITED};
use crate::relay::side::{Role, Side};
use crate::relay::splice_pipe::SplicePipePool;
use crate::streams::Sessions;
use crate::types::reason::Reason;

/// The pools that all halves of a loop share.
pub(crate) struct Pools {
    pub blocks: BlockPool,
    pub splice_pipes: SplicePipePool,
    /// The sessions of links, whose streams are sides.
    pub sessions: Sessions,
}

/// Why the pump stopped.
#[derive(Debug)]
pub(crate) enum Pumped {
    /// A side would block; an event will report when it is ready again.
    Blocked,
    /// The budget of the turn is used up.
    Budget,
    /// No block is free.
    NoBlock,
    /// The input has ended and all bytes are delivered.
    Done,
    /// The requested count of bytes was relayed; the input is the handler's again.
    CountReached,
    /// The input ended before the requested count of bytes was relayed.
    EndedEarly,
    /// The discard limit was reached.
    DiscardLimit,
    /// The hook of the connection ends it.
    Ended(Reason),
    /// A side failed.
    Broken(Role, io::Error),
}

/// Moves bytes of the half that `role`'s side feeds, about `share` bytes at most.
pub(crate) fn pump(
    half: &mut Half,
    role: Role,
    from: &mut Side,
    to: &mut Side,
    pools: &mut Pools,
    share: usize,
) -> Pumped {
    let share = if to.io.stream().is_some() { share.min(stream::BYTES_PER_TURN) } else { share };
    let mut budget = share;
    loop {
        match deliver(half, to, pools) {
            Ok(true) => {}
            Ok(false) => return Pumped::Blocked,
            Err(error) => return Pumped::Broken(role.other(), error),
        }
        if half.left == 0 {
            half.release_splice_pipe(&mut pools.splice_pipes);
            return Pumped::CountReached;
        }
        if half.phase != Phase::Flowing {
            return Pumped::Done;
        }
        if !from.ready.readable {
            half.release_splice_pipe(&mut pools.splice_pipes);
            return Pumped::Blocked;
        }
        // A pipe is full of pages before it is full of bytes. The rest of the budget after a full pipe would cost as many
        // system calls as the next full pipe.
        if budget == 0 || (half.splice_pipe.is_some() && budget < share / MIN_SPLICE_FRACTION) {
            return Pumped::Budget;
        }
        match fetch(half, from, to, pools, budget) {
            Ok(Fetched::Bytes(count)) => budget = budget.saturating_sub(count),
            Ok(Fetched::Nothing) => {}
            Ok(Fetched::Stuck) => return Pumped::Blocked,
            Ok(Fetched::Refused(error)) => return Pumped::Broken(role.other(), error),
            Ok(Fetched::NoBlock) => return Pumped::NoBlock,
            Ok(Fetched::End) => {
                half.release_splice_pipe(&mut pools.splice_pipes);
                half.phase = Phase::Draining;
                if half.left != UNLIMITED {
                    return Pumped::EndedEarly;
                }
            }
            Err(error) => return Pumped::Broken(role, error),
        }
    }
}

/// Reads and discards the input of a side until it ends, or until `left` bytes are discarded.
pub(crate) fn discard(half: &mut Half, role: Role, from: &mut Side, pools: &mut Pools, mut budget: usize) -> Pumped {
    half.clear(&mut pools.blocks, &mut pools.splice_pipes);
    while half.phase == Phase::Flowing {
        if half.left == 0 {
            return Pumped::DiscardLimit;
        }
        if !from.ready.readable {
            return Pumped::Blocked;
        }
        if budget == 0 {
            return Pumped::Budget;
        }
        let fetched = match from.io.skip(budget) {
            Some(result) => note(half, from, result, budget),
            None => fetch_by_copy(half, from, pools),
        };
        match fetched {
            Ok(Fetched::Bytes(count)) => {
                budget = budget.saturating_sub(count);
                half.spend(count);
            }
            Ok(Fetched::Nothing | Fetched::Stuck | Fetched::Refused(_)) => {}
            Ok(Fetched::NoBlock) => return Pumped::NoBlock,
            Ok(Fetched::End) => half.phase = Phase::Draining,
            Err(error) => return Pumped::Broken(role, error),
        }
    }
    Pumped::Done
}

/// Writes the waiting bytes of a half to its destination: first the bytes in the pipe, which left the socket earlier, then
/// what a handler sent, then what was read. Returns true if nothing that may be written is left.
pub(crate) fn deliver(half: &mut Half, to: &mut Side, pools: &mut Pools) -> io::Result<bool> {
    while half.splice_pipe.as_ref().is_some_and(|pipe| pipe.len() > 0) {
        let Some(put) = drain(half, to)? else { return Ok(false) };
        half.bytes += put as u64;
    }
    while !half.out.is_empty() {
        no_delay(to);
        let Some(put) = write(half.out.bytes(), false, to, &mut half.congested, &mut pools.sessions)? else {
            return Ok(false);
        };
        half.out.consume(put, &mut pools.blocks);
        half.bytes += if half.counts_sent { put as u64 } else { 0 };
    }
    if half.flow != Flow::Relay {
        return Ok(true);
    }
    while half.left > 0 && !half.store.is_empty() {
        // The end of input follows these bytes, so both can go in one packet.
        let is_last = half.phase == Phase::Draining && half.left == UNLIMITED;
        if !is_last {
            no_delay(to);
        }
        let bytes = half.store.bytes();
        let due = bytes.len().min(usize::try_from(half.left).unwrap_or(usize::MAX));
        let Some(put) = write(&bytes[..due], is_last, to, &mut half.congested, &mut pools.sessions)? else {
            return Ok(false);
        };
        half.store.consume(put, &mut pools.blocks);
        half.bytes += put as u64;
        half.spend(put);
    }
    Ok(true)
}

/// The result of one attempt to fetch input.
pub(crate) enum Fetched {
    Bytes(usize),
    Nothing,
    /// The destination takes no more now, so nothing was read.
    Stuck,
    /// The destination failed.
    Refused(io::Error),
    NoBlock,
    End,
}

fn fetch(half: &mut Half, from: &mut Side, to: &mut Side, pools: &mut Pools, budget: usize) -> io::Result<Fetched> {
    match (from.io.stream(), to.io.stream()) {
        (Some(stream), None) => return stream::fetch_out_of(stream, half, from, to, &mut pools.sessions, budget),
        (None, Some(stream)) => return stream::fetch_into(stream, half, from, to, &mut pools.sessions, budget),
        _ => {}
    }
    if half.splice_pipe.is_some() || promote(half, from, to, &mut pools.splice_pipes) {
        return fetch_by_pipe(half, from, pools, budget);
    }
    fetch_by_copy(half, from, pools)
}

fn fetch_by_copy(half: &mut Half, from: &mut Side, pools: &mut Pools) -> io::Result<Fetched> {
    let Some(room) = half.store.room(&mut pools.blocks) else { return Ok(Fetched::NoBlock) };
    let result = from.io.read(room, &mut pools.sessions);
    let wished = room.len();
    let kept = if half.flow == Flow::Discard { 0 } else { *result.as_ref().unwrap_or(&0) };
    half.store.filled(kept, &mut pools.blocks);
    note(half, from, result, wished)
}

/// Notes the result of one read into room for `wished` bytes.
#[inline]
pub(crate) fn note(half: &mut Half, from: &mut Side, result: io::Result<usize>, wished: usize) -> io::Result<Fetched> {
    match result {
        Ok(0) => from.note_end().map(|()| Fetched::End),
        Ok(got) => {
            if from.note_read(got, wished) && half.left == UNLIMITED {
                half.phase = Phase::Draining;
            }
            if half.full_reads < SPLICE_AFTER {
                half.full_reads = if got == wished { half.full_reads + 1 } else { 0 };
            }
            Ok(Fetched::Bytes(got))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            from.ready.readable = false;
            Ok(Fetched::Nothing)
        }
        Err(error) => Err(from.note_error(error)),
    }
}

/// Gives a pipe to a half that has had enough full reads. If the pool has none, the half goes on copying.
fn promote(half: &mut Half, from: &Side, to: &Side, pipes: &mut SplicePipePool) -> bool {
    if half.full_reads != SPLICE_AFTER || half.left < WORTH_A_PIPE {
        return false;
    }
    if from.io.spliceable().is_none() || to.io.spliceable().is_none() {
        half.full_reads = NO_SPLICE;
        return false;
    }
    half.splice_pipe = pipes.take();
    half.splice_pipe.is_some()
}

/// Splices from the socket into the pipe, which is empty when this is called. So `WouldBlock` means that the socket is
/// empty, and never that the pipe is full.
fn fetch_by_pipe(half: &mut Half, from: &mut Side, pools: &mut Pools, budget: usize) -> io::Result<Fetched> {
    let (Some(pipe), Some(fd)) = (&mut half.splice_pipe, from.io.spliceable()) else { return Ok(Fetched::Nothing) };
    match pipe.fill(fd, half.left.min(budget as u64)) {
        Ok(0) => from.note_end().map(|()| Fetched::End),
        Ok(got) => {
            half.has_spliced = true;
            half.spend(got);
            Ok(Fetched::Bytes(got))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            from.ready.readable = false;
            if pipe.entered() < WORTH_A_PIPE {
                half.full_reads = 0;
            }
            half.release_splice_pipe(&mut pools.splice_pipes);
            Ok(Fetched::Nothing)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Fetched::Nothing),
        Err(error) if crate::sys::is_not_spliceable(&error) => {
            half.full_reads = NO_SPLICE;
            half.release_splice_pipe(&mut pools.splice_pipes);
            Ok(Fetched::Nothing)
        }
        Err(error) => Err(from.note_error(error)),
    }
}

/// Writes once to a side. Returns none if the side takes nothing now.
#[inline]
pub(crate) fn write(
    bytes: &[u8],
    is_last: bool,
    to: &mut Side,
    congested: &mut u32,
    sessions: &mut Sessions,
) -> io::Result<Option<usize>> {
    if !to.ready.writable {
        return Ok(None);
    }
    let result = if is_last { to.io.write_before_end(bytes, sessions) } else { to.io.write(bytes, sessions) };
    match result {
        Ok(put) => {
            *congested += u32::from(to.note_write(put, bytes.len()));
            Ok(Some(put))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            to.ready.writable = false;
            *congested += 1;
            Ok(None)
        }
        Err(error) => Err(to.note_error(error)),
    }
}

/// Sets TCP_NODELAY before the second write, so that small writes do not wait for the acknowledgement of earlier ones.
#[inline]
pub(crate) fn no_delay(to: &mut Side) {
    if to.ready.may_delay && std::mem::replace(&mut to.ready.has_written, true) {
        to.ready.may_delay = false;
        to.io.set_nodelay();
    }
}

/// Splices once out of the pipe. Only `WouldBlock` means that the side is full; a short splice does not.
fn drain(half: &mut Half, to: &mut Side) -> io::Result<Option<usize>> {
    if !to.ready.writable {
        return Ok(None);
    }
    let (Some(pipe), Some(fd)) = (&mut half.splice_pipe, to.io.spliceable()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    match pipe.drain(fd) {
        Ok(0) => Err(io::ErrorKind::BrokenPipe.into()),
        Ok(put) => Ok(Some(put)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            to.ready.writable = false;
            half.congested += 1;
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(to.note_error(error)),
    }
}

impl Half {
    /// Counts bytes against the requested count, if there is one.
    pub(crate) fn spend(&mut self, count: usize) {
        if self.left != UNLIMITED {
            self.left = self.left.saturating_sub(count as u64);
        }
    }
}

/// Consecutive full reads after which a half splices.
const SPLICE_AFTER: u8 = 2;
/// A transfer through a pipe ends its turn when less than this fraction of its budget is left.
const MIN_SPLICE_FRACTION: usize = 4;
/// Bytes of a transfer that are worth a pipe; below them, copying costs less than two more system calls.
const WORTH_A_PIPE: u64 = 64 << 10;

pub(crate) mod stream;
#[cfg(test)]
mod tests;
