//! Memory of a session: what it takes, and the bounds that a process sets anew as its links come, go and fill.
//!
//! [`Config`](crate::link::Config) says the most that a session may ever use. What it may use now is a share of what all
//! sessions of a process have, and is lowered and raised while it lives. Credit that was announced is kept to; so the
//! window of an honest peer follows its share as the bytes that were allowed before are taken.

use super::phase::Cause;
use super::state::Session;
use crate::link::stream::state::{PendingReply, Stream};
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;

/// Cost of a gap in a stream, of any size: a node of a map and a queue.
const GAP_COST: u64 = 256;
/// Maximum size of a stream's record with its pending replies; the cost of a stream without its OPEN.
pub(crate) const STREAM_COST: u64 = 1024;
const _: () = assert!(
    (size_of::<Stream>() + size_of::<PendingReply>()) as u64 <= STREAM_COST * 3 / 4,
    "room for a text and for maps"
);

impl Session {
    /// Payload bytes in memory: held for the peer with their overhead, and held for the application.
    pub fn memory(&self) -> (u64, u64) {
        (self.tx.held, self.streams.iter().map(|(_, stream)| stream.recv.held()).sum())
    }

    /// Returns the memory of received data that was not read yet: the read buffers that payloads keep alive, copies, gaps,
    /// datagrams, and streams whose OPEN has not come.
    pub fn received_cost(&self) -> u64 {
        self.pools.pins.cost()
            + GAP_COST * self.rx.gaps as u64
            + STREAM_COST * self.streams_unopened() as u64
            + self.datagram_bytes
    }

    /// Returns the gaps in what has arrived, of all streams.
    pub const fn gaps(&self) -> usize {
        self.rx.gaps
    }

    /// Returns the bytes that are held until the peer has acknowledged them, with their overhead.
    pub const fn sent_cost(&self) -> u64 {
        self.tx.held
    }

    /// Returns the bytes that the peer may still have this end hold for its application: what it was allowed to send and
    /// was not taken.
    pub const fn promised(&self) -> u64 {
        self.rx.window.announced() - self.rx.window.consumed()
    }

    /// Bounds the session's receive window anew: how a process shares one budget among its links.
    pub fn set_receive_bytes_max(&mut self, bytes: u64) {
        self.rx.window.set_max(bytes.min(self.config.session_window_bytes.1));
        if self.rx.window.is_due() && self.is_open() {
            self.queue_control(Key::SessionCredit);
        }
        self.finish_call();
    }

    /// Sets a new bound on the data held until the peer has it. Data above the bound stays, and no more is accepted.
    pub fn set_send_bytes_max(&mut self, bytes: u64) {
        let bytes = bytes.min(self.config.send_bytes_max);
        let is_more = bytes > self.send_bytes_max();
        self.tx.held_max = Some(bytes);
        if is_more {
            self.wake_writers();
        }
        self.finish_call();
    }

    /// Returns the bound on the data held until the peer has it.
    pub(super) fn send_bytes_max(&self) -> u64 {
        self.tx.held_max.unwrap_or(self.config.send_bytes_max)
    }

    /// Ends the session at once, and frees what it holds; the peer is told why, if a carrier still takes a frame.
    pub fn abort(&mut self, code: Code, text: &str) {
        self.end(code, text.to_owned(), Cause::Violation);
        self.finish_call();
    }
}
