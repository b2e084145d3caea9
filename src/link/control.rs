//! Control frames that wait to be sent: what they are about, never what they say.
//!
//! A control frame is written from the state at the moment when it leaves. So a frame that is lost with its lane is
//! simply queued again, and says what is true by then; since every control frame is idempotent, saying it twice is
//! harmless.

use std::collections::VecDeque;

use super::ids::{StreamId, SubflowId};

/// What a control frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Open(StreamId),
    OpenResult(StreamId),
    Reset(StreamId),
    Stop(StreamId),
    Credit(StreamId),
    Blocked(StreamId),
    SessionCredit,
    SessionBlocked,
    MaxStreams,
    Listen(u32),
    ListenResult(u32),
    Unlisten(u32),
    Class(SubflowId),
    /// The message of this number.
    Message(u32),
    GoAway,
    Close,
}

impl Key {
    /// The stream that it is about, and the bit that marks it as queued there.
    pub(super) const fn stream_bit(self) -> Option<(StreamId, u8)> {
        match self {
            Key::Open(id) => Some((id, 1)),
            Key::OpenResult(id) => Some((id, 2)),
            Key::Reset(id) => Some((id, 4)),
            Key::Stop(id) => Some((id, 8)),
            Key::Credit(id) => Some((id, 16)),
            Key::Blocked(id) => Some((id, 32)),
            _ => None,
        }
    }
}

/// The queue, first come first served. What is about a stream is there at most once: the stream has a bit for it. The
/// rest is few, and is looked up.
#[derive(Debug, Default)]
pub(super) struct Control {
    queue: VecDeque<Key>,
}

impl Control {
    /// Adds a key. `bits` are those of the stream that it is about.
    pub(super) fn push_stream(&mut self, key: Key, bits: &mut u8) {
        let Some((_, bit)) = key.stream_bit() else { return };
        if *bits & bit == 0 {
            *bits |= bit;
            self.queue.push_back(key);
        }
    }

    /// Adds a key that is about no stream.
    pub(super) fn push(&mut self, key: Key) {
        debug_assert!(key.stream_bit().is_none());
        if !self.queue.contains(&key) {
            self.queue.push_back(key);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Key> {
        self.queue.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        self.queue.iter().copied()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}
