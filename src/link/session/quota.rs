//! The quotas of streams in a session: how much each may write and send of the memory that all share.

use super::event::Event;
use super::state::Session;
use crate::link::path::subflow::Subflow;
use crate::link::stream::quota::{ReaderProgress, SharedBytes};
use crate::link::stream::run::CHUNK_COST;
use crate::link::stream::state::Stream;
use crate::link::wire::content::Key;

impl Session {
    /// Returns the number of bytes that a stream may send beyond those that its reader has not taken.
    pub(super) fn send_quota_left(&self, stream: &Stream) -> u64 {
        let shared = SharedBytes { whole: self.tx.window, free: self.tx.credit.saturating_sub(self.tx.sent) };
        shared.quota(stream.send.reader_progress()).saturating_sub(stream.send.not_taken())
    }

    /// Ends the wait of a stream for its quota, because the peer's reader has taken bytes.
    pub(super) fn clear_quota_wait(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot)
            && std::mem::replace(&mut stream.waits_for_quota, false)
        {
            self.tx.backlog += stream.backlog();
        }
    }

    /// Makes a stream that has used its quota of the session's credit wait, and tells the peer.
    pub(super) fn wait_for_quota(&mut self, slot: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let backlog = stream.backlog();
        if !std::mem::replace(&mut stream.waits_for_quota, true) {
            self.tx.backlog -= backlog;
            self.stats.quota_waits += 1;
            self.control.push_stream(Key::Blocked(stream.id), &mut stream.queued);
        }
    }

    /// Returns the number of bytes that a stream may write now, and the maximum of its unsent bytes.
    pub(super) fn write_room(&self, stream: &Stream) -> (u64, u64) {
        let free = self.send_free().saturating_sub(CHUNK_COST);
        let reader = if stream.cannot_send() { ReaderProgress::default() } else { stream.send.reader_progress() };
        let quota = SharedBytes { whole: self.send_bytes_max(), free }.quota(reader);
        let cap = self.config.unsent_bytes_max.min(quota).min(free);
        (cap.saturating_sub(stream.send.unsent()), cap)
    }

    /// Notes that a stream has more to write than there is room for. The stream is reported once some of its bytes were
    /// sent, or once other streams have freed memory if the send limit is the cause.
    pub(super) fn refuse_write(&mut self, slot: usize, cap: u64) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.write_refused = true;
        if cap < self.config.unsent_bytes_max && !std::mem::replace(&mut stream.in_refused_writers, true) {
            let id = stream.id;
            Self::push_once(&mut self.tx.refused_writers, id, &self.streams);
        }
    }

    /// Reports streams whose write the send limit refused and that have room now.
    ///
    /// A few are checked each time; all are once much memory is free, or if nothing is in flight that could free more.
    pub(super) fn wake_writers(&mut self) {
        const FEW: usize = 8;
        let free = self.send_free();
        self.tx.writers_checked_free = self.tx.writers_checked_free.min(free);
        let mut tries = self.tx.refused_writers.len();
        let last = self.control.is_empty() && !self.subflows.iter().any(Subflow::is_waiting);
        if last || free - self.tx.writers_checked_free > self.send_bytes_max() / 64 {
            self.tx.writers_checked_free = free;
        } else {
            tries = tries.min(FEW);
        }
        for _ in 0..tries {
            let Some(id) = self.tx.refused_writers.pop_front() else { return };
            let Some(slot) = self.streams.live_slot(id) else { continue };
            let Some(stream) = self.streams.get(slot) else { continue };
            let (room, cap) = self.write_room(stream);
            let refused = stream.write_refused && stream.send.is_open();
            let wakes = refused && room > 0 && room >= cap / 2;
            if refused && !wakes {
                self.tx.refused_writers.push_back(id);
            } else if let Some(stream) = self.streams.get_mut(slot) {
                stream.in_refused_writers = false;
                stream.write_refused = false;
            }
            if wakes {
                self.events.push_back(Event::Writable(id));
            }
        }
    }

    fn send_free(&self) -> u64 {
        self.send_bytes_max().saturating_sub(self.tx.held)
    }
}
