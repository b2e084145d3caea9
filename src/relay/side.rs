//! A side: one end of a connection, or an attempt to make one.
//!
//! ```text
//!            connect                    writable, no error
//!   Idle ---------------> Connecting -----------------------> Connected
//!    |                        |                                   |
//!    +------------------------+----------- reap ------------------+--> gone
//! ```
//! A source is born Connected. A dest without a socket, while its name is being looked up, is Connecting too.

use std::fmt;
use std::io;

use crate::relay::dial::Dial;
use crate::relay::io::{Io, Unpollable};
use crate::sys;
use crate::types::address::Endpoint;
use crate::types::id::Id;

/// Which end of a connection a side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// It came to us.
    Source,
    /// We went to it.
    Dest,
}

/// How far a side has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SideState {
    /// It has no target yet.
    Idle,
    /// It is being connected.
    Connecting,
    /// Bytes can flow.
    Connected,
}

/// One side, as the loop knows it.
#[derive(Debug)]
pub(crate) struct Side {
    pub owner: Owner,
    pub state: SideState,
    pub ready: Ready,
    pub io: Io,
    pub endpoint: Endpoint,
    /// What is needed while it connects to a target that has more than one address, or none yet.
    pub dial: Option<Box<Dial>>,
}

/// Whom a side belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// One end of a connection.
    Connection(Id, Role),
    /// One more attempt of the dest that is named here; it has no handler and no half.
    Race(Id),
    /// The socket of a carrier of a link; it has no handler and no half.
    Carrier(Id),
}

/// What the system has said about a side. Set by events, cleared only by `WouldBlock` or a short read or write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// Its FIN has come: a short read is not the last.
    pub fin: bool,
    /// It has sent urgent data: a read stops there (tcp(7)).
    pub urgent: bool,
    /// TCP_NODELAY is wanted and not set yet. The first write is never delayed, so it is set before the second.
    pub may_delay: bool,
    /// The first write has gone out.
    pub has_written: bool,
    /// An error is waiting.
    pub error: bool,
    /// A call has failed because the other end is gone. The system tells an error once; from then on it says "end of input"
    /// behind what lies in the receive queue, be there a FIN or not.
    pub failed: bool,
    /// What cannot block is always ready.
    pub unpollable: Unpollable,
    /// It stands in the run queue.
    pub queued: bool,
    /// It stands in the queue for a block.
    pub waits: bool,
}

impl Side {
    pub fn new(owner: Owner, state: SideState, io: Io, endpoint: Endpoint) -> Side {
        // A fresh socket has room to write; whether there is something to read, its first event says.
        let ready = Ready { writable: state == SideState::Connected, ..Ready::default() };
        Side { owner, state, ready, io, endpoint, dial: None }
    }

    /// Notes a read of `got` bytes where `wished` would have fitted. A short read is the last one on a TCP socket, unless
    /// a FIN is behind it or it stopped at urgent data. Elsewhere it may have stopped at the end of a line, at a packet,
    /// or at descriptors that were passed along: only `WouldBlock` is believed there.
    ///
    /// Whether it was the last of all: a FIN that had come before the read leaves nothing behind a short one but the end.
    #[inline]
    pub fn note_read(&mut self, got: usize, wished: usize) -> bool {
        let emptied = got < wished && !self.ready.urgent && matches!(self.io, Io::Tcp(_));
        if emptied && !self.ready.fin && !self.ready.failed {
            self.ready.readable = false;
        }
        emptied && self.ready.fin
    }

    /// Notes that a call has failed. Returns the error.
    #[cold]
    pub fn note_error(&mut self, error: io::Error) -> io::Error {
        let is_tcp = matches!(self.io, Io::Tcp(_));
        if !self.ready.failed && is_tcp && sys::is_reset_behind_fin(&error) {
            self.ready.fin = true;
        }
        if matches!(self.io, Io::Tcp(_) | Io::Unix(_)) {
            // The system has reported the receive queue before, so no further event will come for it.
            (self.ready.failed, self.ready.readable) = (true, true);
        }
        error
    }

    /// Judges a read that has returned nothing: the end of the input, or the place where a reset has cut it.
    pub fn note_end(&mut self) -> io::Result<()> {
        if self.ready.failed && !self.ready.fin && matches!(self.io, Io::Tcp(_)) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Notes a write of `put` bytes where `wished` were offered; whether the side is congested now.
    #[inline]
    pub fn note_write(&mut self, put: usize, wished: usize) -> bool {
        let congested = put < wished && !self.ready.unpollable.write;
        if congested {
            self.ready.writable = false;
        }
        congested
    }
}

impl Role {
    /// The direction of the half that this side reads for.
    #[inline]
    pub(crate) const fn out(self) -> usize {
        self as usize
    }

    /// The direction of the half that is written to this side.
    #[inline]
    pub(crate) const fn into(self) -> usize {
        1 - self as usize
    }

    pub(crate) const fn other(self) -> Role {
        match self {
            Role::Source => Role::Dest,
            Role::Dest => Role::Source,
        }
    }

    /// `source` or `dest`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Dest => "dest",
        }
    }
}

impl SideState {
    /// `idle`, `connecting` or `connected`.
    pub const fn as_str(self) -> &'static str {
        match self {
            SideState::Idle => "idle",
            SideState::Connecting => "connecting",
            SideState::Connected => "connected",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SideState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// Two of these and a connection must stay well below a kibibyte together.
const _: () = assert!(size_of::<Side>() <= 112);
