//! The queue of control frames, as keys without content.
//!
//! A control frame is written from the current state when it is sent. If its lane dies, its key is queued again, and
//! the new frame has the content of that time. Every control frame is idempotent, so repetition is harmless.

use crate::link::wire::content::Key;
use std::collections::VecDeque;

/// Maximum number of queued answers about unknown streams.
const UNKNOWN_STREAMS_MAX: usize = 64;

/// The queue, first in, first out. Each key is queued at most once. To find that out without a search, a stream has one
/// bit for each kind of frame about it, and the queue has one for each key that is unique in a session. Other keys are
/// few and are searched in a list.
#[derive(Debug, Default)]
pub(in crate::link) struct Control {
    queue: VecDeque<Key>,
    /// One bit for each queued key that is unique in a session.
    single: u8,
    /// The queued keys without a bit.
    others: Vec<Key>,
}

impl Control {
    /// Adds a key. `bits` are those of its stream.
    pub(in crate::link) fn push_stream(&mut self, key: Key, bits: &mut u8) {
        let Some((_, bit)) = key.stream_bit() else { return };
        if *bits & bit == 0 {
            *bits |= bit;
            self.queue.push_back(key);
        }
    }

    /// Adds a key that concerns no stream.
    pub(in crate::link) fn push(&mut self, key: Key) {
        debug_assert!(key.stream_bit().is_none());
        match key.single_bit() {
            Some(bit) if self.single & bit == 0 => self.single |= bit,
            None if !self.others.contains(&key) && !self.is_at_limit(key) => self.others.push(key),
            _ => return,
        }
        self.queue.push_back(key);
    }

    /// Returns true if enough answers about unknown streams are queued. The peer's next frame asks for a dropped one
    /// again.
    fn is_at_limit(&self, key: Key) -> bool {
        let is_answer = |key: &Key| matches!(key, Key::UnknownStream(_));
        is_answer(&key) && self.others.iter().filter(|key| is_answer(key)).count() >= UNKNOWN_STREAMS_MAX
    }

    /// Removes the first key. The caller clears the bit of its stream.
    pub(in crate::link) fn pop(&mut self) -> Option<Key> {
        let key = self.queue.pop_front()?;
        if let Some(bit) = key.single_bit() {
            self.single &= !bit;
        } else if key.stream_bit().is_none() {
            self.others.retain(|other| *other != key);
        }
        Some(key)
    }

    pub(in crate::link) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(in crate::link) fn iter(&self) -> impl Iterator<Item = Key> + '_ {
        self.queue.iter().copied()
    }

    pub(in crate::link) fn clear(&mut self) {
        *self = Control::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::wire::ids::StreamId;

    #[test]
    fn a_key_is_queued_once_and_again_after_it_was_sent() {
        let mut control = Control::default();
        let keys = [Key::SessionCredit, Key::Listen(1), Key::Listen(2), Key::Close, Key::UnknownStream(StreamId(2))];
        for _ in 0..3 {
            keys.iter().chain(&keys).for_each(|key| control.push(*key));
            let left: Vec<Key> = std::iter::from_fn(|| control.pop()).collect();
            assert_eq!(left, keys);
        }
        let mut bits = 0;
        (0..2).for_each(|_| control.push_stream(Key::Open(StreamId(2)), &mut bits));
        assert_eq!((control.iter().count(), bits), (1, 1));
    }

    #[test]
    fn queued_answers_about_unknown_streams_are_limited() {
        let mut control = Control::default();
        (0..1000).for_each(|n| control.push(Key::UnknownStream(StreamId(n))));
        assert_eq!(control.iter().count(), UNKNOWN_STREAMS_MAX);
        control.push(Key::SessionCredit);
        assert_eq!(control.iter().count(), UNKNOWN_STREAMS_MAX + 1);
    }
}
