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
use crate::relay::io::Io;
use crate::sys;
use crate::types::address::Endpoint;
use crate::types::id::Id;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The side that connected to this process.
    Source,
    /// The side that this process connected to.
    Dest,
}

/// The states of a side; see the drawing in the source of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SideState {
    /// The side has no target yet.
    Idle,
    /// The side is being connected.
    Connecting,
    /// Bytes can flow.
    Connected,
}

/// One side.
#[derive(Debug)]
pub(crate) struct Side {
    pub owner: Owner,
    pub state: SideState,
    pub ready: Ready,
    pub io: Io,
    pub endpoint: Endpoint,
    /// The record of its dial, while it connects to a target that has several addresses, or none yet.
    pub dial: Option<Box<Dial>>,
}

// Each idle connection has two of these records.
#[cfg(all(test, target_pointer_width = "64"))]
const _: () = assert!(size_of::<Side>() <= 96);

/// The record that a side belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// One end of a connection.
    Connection(Id, Role),
    /// Another attempt to connect the named dest; it has no handler and no half.
    Race(Id),
    /// The socket of a carrier of a link; it has no handler and no half.
    Carrier(Id),
    /// The stream at one end of a flow of datagrams; it has no handler and no half.
    Flow(Id, Role),
}

/// The readiness of a side. Events set it; only `WouldBlock` or a short read or write clears it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// The FIN has arrived, so a short read is not the last one.
    pub fin: bool,
    /// The peer has sent urgent data, at which a read stops (tcp(7)).
    pub urgent: bool,
    /// TCP_NODELAY is wanted and not set yet. The first write is never delayed, so it is set before the second.
    pub may_delay: bool,
    /// The first write has gone out.
    pub has_written: bool,
    /// An event has announced an error.
    pub error: bool,
    /// A call has failed because the other end is gone. The system reports an error once; afterwards it reports the end of
    /// input behind the bytes in the receive queue, with or without a FIN.
    pub failed: bool,
    /// Writes cannot block: the side is always writable.
    pub always_writable: bool,
    /// The side is in the run queue.
    pub queued: bool,
    /// The side is in the queue for a block.
    pub waits: bool,
}

impl Side {
    pub fn new(owner: Owner, state: SideState, io: Io, endpoint: Endpoint) -> Side {
        // A fresh socket has room to write; its first event tells if there is something to read.
        let ready = Ready { writable: state == SideState::Connected, ..Ready::default() };
        Side { owner, state, ready, io, endpoint, dial: None }
    }

    /// Notes a read of `got` bytes into room for `wished`. Returns true if the end of input follows: the FIN had arrived
    /// before a short read.
    ///
    /// A short read is the last one on a TCP socket, unless a FIN is behind it or it stopped at urgent data. On other
    /// descriptors it may have stopped at the end of a line, at a packet, or at descriptors that were passed along, so only
    /// `WouldBlock` counts there.
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

    /// Judges a read of 0 bytes: the end of the input, or an error if a reset has cut the input there.
    pub fn note_end(&mut self) -> io::Result<()> {
        if self.ready.failed && !self.ready.fin && matches!(self.io, Io::Tcp(_)) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Notes a write of `put` bytes of `wished`. Returns true if the side is congested now.
    #[inline]
    pub fn note_write(&mut self, put: usize, wished: usize) -> bool {
        let congested = put < wished && !self.ready.always_writable;
        if congested {
            self.ready.writable = false;
        }
        congested
    }
}

impl Role {
    /// Returns the index of the half that reads from this side.
    #[inline]
    pub(crate) const fn out(self) -> usize {
        self as usize
    }

    /// Returns the index of the half that writes to this side.
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

    /// Returns `source` or `dest`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Dest => "dest",
        }
    }
}

impl SideState {
    /// Returns `idle`, `connecting` or `connected`.
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
