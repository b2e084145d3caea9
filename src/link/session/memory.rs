//! The memory of a session, and the limits that the process changes while the session lives.
//!
//! [`Config`](crate::link::Config) sets the maximum that a session may ever use. The current limit is a share of the
//! memory of all sessions in the process, which rises and falls. Announced credit is kept, so the window of an honest
//! peer follows its share as the allowed bytes are taken.

use super::phase::Cause;
use super::state::Session;
use crate::link::stream::state::{PendingReply, Stream};
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;

/// Cost of a gap in a stream, of any size: a node of a map and a queue.
const GAP_COST: u64 = 256;
/// Maximum size of a stream's record with its pending replies, which is also the cost of a stream without its OPEN.
pub(crate) const STREAM_COST: u64 = 1024;
const _: () = assert!(
    (size_of::<Stream>() + size_of::<PendingReply>()) as u64 <= STREAM_COST * 3 / 4,
    "room for a text and for maps"
);

impl Session {
    /// Returns the payload bytes in memory: unacknowledged ones with their overhead, and those that the application has
    /// not taken.
    pub fn memory(&self) -> (u64, u64) {
        (self.tx.held, self.streams.iter().map(|(_, stream)| stream.recv.held()).sum())
    }

    /// Returns the memory of received data that was not taken: read buffers that payloads reference, copies, gaps,
    /// datagrams, and streams whose OPEN has not arrived.
    pub fn received_cost(&self) -> u64 {
        self.pools.pins.cost()
            + GAP_COST * self.rx.gaps as u64
            + STREAM_COST * self.streams_unopened() as u64
            + self.datagram_bytes
    }

    /// Returns the number of gaps in the received data of all streams.
    pub const fn gaps(&self) -> usize {
        self.rx.gaps
    }

    /// Returns the number of unacknowledged bytes with their overhead.
    pub const fn sent_cost(&self) -> u64 {
        self.tx.held
    }

    /// Returns the number of bytes that the peer may still make this end hold: credit that was announced and not taken.
    pub const fn promised(&self) -> u64 {
        self.rx.window.announced() - self.rx.window.consumed()
    }

    /// Sets the maximum of the session's receive window.
    pub fn set_receive_bytes_max(&mut self, bytes: u64) {
        self.rx.window.set_max(bytes.min(self.config.session_window_bytes.1));
        if self.rx.window.is_due() && self.is_open() {
            self.queue_control(Key::SessionCredit);
        }
        self.finish_call();
    }

    /// Sets the send limit. Data above it stays, and no more is accepted.
    pub fn set_send_bytes_max(&mut self, bytes: u64) {
        let bytes = bytes.min(self.config.send_bytes_max);
        let is_more = bytes > self.send_bytes_max();
        self.tx.held_max = Some(bytes);
        if is_more {
            self.wake_writers();
        }
        self.finish_call();
    }

    /// Returns the current send limit.
    pub(super) fn send_bytes_max(&self) -> u64 {
        self.tx.held_max.unwrap_or(self.config.send_bytes_max)
    }

    /// Ends the session at once and frees its data. The peer is told the reason if a carrier takes a frame.
    pub fn abort(&mut self, code: Code, text: &str) {
        self.end(code, text.to_owned(), Cause::Violation);
        self.finish_call();
    }
}
