//! QueuePool of streams that hold nothing now, and are used again.

use std::collections::VecDeque;

/// What all queues of one kind that are kept have room for: those of a thousand streams which all carry something.
const KEPT_ENTRIES_MAX: usize = 8192;
/// A queue with room for more is freed rather than kept.
const QUEUE_ENTRIES_MAX: usize = 256;

/// A queue goes to a stream and back in its box: the pointer is all that moves, and all that an idle stream has.
type Boxed<T> = Box<VecDeque<T>>;

/// QueuePool that hold nothing now.
#[derive(Debug)]
pub(in crate::link) struct QueuePool<T> {
    queues: Vec<Boxed<T>>,
    /// What those in `queues` have room for.
    entries: usize,
}

/// A queue that has room only while it holds something.
#[derive(Debug)]
pub(in crate::link) struct Queue<T>(Option<Boxed<T>>);

impl<T> Default for QueuePool<T> {
    fn default() -> QueuePool<T> {
        QueuePool { queues: Vec::new(), entries: 0 }
    }
}

impl<T> QueuePool<T> {
    #[inline]
    fn take(&mut self) -> Boxed<T> {
        let queue = self.queues.pop().unwrap_or_default();
        self.entries -= queue.capacity();
        queue
    }

    #[inline]
    fn give(&mut self, queue: Boxed<T>) {
        let entries = queue.capacity();
        if entries <= QUEUE_ENTRIES_MAX && self.entries + entries <= KEPT_ENTRIES_MAX {
            self.entries += entries;
            self.queues.push(queue);
        }
    }
}

impl<T> Queue<T> {
    pub(in crate::link) const fn new() -> Queue<T> {
        Queue(None)
    }

    /// The queue with room for more.
    #[inline]
    pub(in crate::link) fn lend(&mut self, pools: &mut QueuePool<T>) -> &mut VecDeque<T> {
        self.0.get_or_insert_with(|| pools.take())
    }

    /// Takes the room, if the queue holds nothing. Answers whether that is so.
    #[inline]
    pub(in crate::link) fn reclaim(&mut self, pools: &mut QueuePool<T>) -> bool {
        match self.0.take_if(|queue| queue.is_empty()) {
            Some(queue) => pools.give(queue),
            None => return self.0.is_none(),
        }
        true
    }

    /// The queue, unless it holds nothing and has no room.
    #[inline]
    pub(in crate::link) fn held(&mut self) -> Option<&mut VecDeque<T>> {
        self.0.as_deref_mut()
    }

    #[inline]
    pub(in crate::link) fn get(&self, index: usize) -> Option<&T> {
        self.0.as_deref()?.get(index)
    }

    #[inline]
    pub(in crate::link) fn front(&self) -> Option<&T> {
        self.get(0)
    }

    /// What it holds, when nothing more will come.
    pub(in crate::link) fn into_entries(self) -> impl Iterator<Item = T> {
        self.0.into_iter().flat_map(|queue| *queue)
    }

    pub(in crate::link) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.as_deref().into_iter().flatten()
    }

    /// How many entries at the front `is_before` holds for, if they are sorted by it.
    pub(in crate::link) fn partition_point(&self, is_before: impl FnMut(&T) -> bool) -> usize {
        self.0.as_deref().map_or(0, |queue| queue.partition_point(is_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_has_no_room_and_gets_the_same_again() {
        let (mut pools, mut queue) = (QueuePool::default(), Queue::new());
        queue.lend(&mut pools).extend(0..5);
        assert!(!queue.reclaim(&mut pools), "one that holds something keeps it");
        assert_eq!((queue.iter().count(), queue.front()), (5, Some(&0)));
        let queued = queue.held().unwrap();
        let room = queued.capacity();
        queued.clear();
        assert!(queue.reclaim(&mut pools) && queue.reclaim(&mut pools));
        assert!(queue.held().is_none() && pools.entries == room);
        assert_eq!((Queue::new().lend(&mut pools).capacity(), pools.entries), (room, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut pools = QueuePool::<u8>::default();
        for capacity in [4, 40, 4000].into_iter().cycle().take(10_000) {
            pools.give(Box::new(VecDeque::with_capacity(capacity)));
        }
        let entries: usize = pools.queues.iter().map(|queue| queue.capacity()).sum();
        assert!(entries == pools.entries && (1..=KEPT_ENTRIES_MAX).contains(&entries));
        assert!(pools.queues.iter().all(|queue| queue.capacity() <= QUEUE_ENTRIES_MAX), "a large one is freed");
    }
}
