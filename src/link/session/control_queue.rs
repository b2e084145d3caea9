//! Control frames that wait to be sent: what they are about, never what they say.
//!
//! A control frame is written from the state at the moment when it leaves. So a frame that is lost with its lane is
//! simply queued again, and says what is true by then; since every control frame is idempotent, saying it twice is
//! harmless.

use crate::link::wire::content::Key;
use std::collections::VecDeque;

/// Streams of which may wait to be said that they are not here.
const UNKNOWN_STREAMS_MAX: usize = 64;

/// The queue, first come first served. Each key is there at most once, and finding that out must not take a walk
/// through the queue, in which every stream may have an entry: a stream has a bit for each kind of frame about it, and
/// so has the queue for what there is one of. The rest is few, and is looked up among its like.
#[derive(Debug, Default)]
pub(in crate::link) struct Control {
    queue: VecDeque<Key>,
    /// One bit for each key of which there is one in a session.
    single: u8,
    /// The keys that have no bit, neither here nor at a stream.
    others: Vec<Key>,
}

impl Control {
    /// Adds a key. `bits` are those of the stream that it is about.
    pub(in crate::link) fn push_stream(&mut self, key: Key, bits: &mut u8) {
        let Some((_, bit)) = key.stream_bit() else { return };
        if *bits & bit == 0 {
            *bits |= bit;
            self.queue.push_back(key);
        }
    }

    /// Adds a key that is about no stream.
    pub(in crate::link) fn push(&mut self, key: Key) {
        debug_assert!(key.stream_bit().is_none());
        match key.single_bit() {
            Some(bit) if self.single & bit == 0 => self.single |= bit,
            None if !self.others.contains(&key) && !self.is_at_limit(key) => self.others.push(key),
            _ => return,
        }
        self.queue.push_back(key);
    }

    /// Whether there are enough answers of this kind already. What is dropped is asked for again, if it matters.
    fn is_at_limit(&self, key: Key) -> bool {
        let absent = |key: &Key| matches!(key, Key::UnknownStream(_));
        absent(&key) && self.others.iter().filter(|key| absent(key)).count() >= UNKNOWN_STREAMS_MAX
    }

    /// Takes the first. The bit of the stream that it is about is the caller's to clear.
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
    fn every_key_is_queued_once_and_again_after_it_has_left() {
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
    fn answers_about_streams_that_are_not_here_are_few() {
        let mut control = Control::default();
        (0..1000).for_each(|n| control.push(Key::UnknownStream(StreamId(n))));
        assert_eq!(control.iter().count(), UNKNOWN_STREAMS_MAX);
        control.push(Key::SessionCredit);
        assert_eq!(control.iter().count(), UNKNOWN_STREAMS_MAX + 1);
    }
}
