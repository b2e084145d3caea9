//! Queues of streams, kept for reuse while the streams are idle.

use std::collections::VecDeque;

/// Maximum capacity of all queues of one kind in the pool: enough for a thousand busy streams.
const KEPT_ENTRIES_MAX: usize = 8192;
/// Maximum capacity of a queue in the pool; a larger one is freed.
const QUEUE_ENTRIES_MAX: usize = 256;

/// A boxed queue: only a pointer moves between pool and stream, and an idle stream holds no more than that.
type Boxed<T> = Box<VecDeque<T>>;

/// Empty queues of one kind.
#[derive(Debug)]
pub(in crate::link) struct QueuePool<T> {
    queues: Vec<Boxed<T>>,
    /// Σ of the capacities of `queues`.
    entries: usize,
}

/// A queue that owns memory only while it has entries.
#[derive(Debug)]
pub(in crate::link) struct PooledQueue<T>(Option<Boxed<T>>);

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

impl<T> PooledQueue<T> {
    pub(in crate::link) const fn new() -> PooledQueue<T> {
        PooledQueue(None)
    }

    /// Returns the queue for writing, with memory from the pool if it has none.
    #[inline]
    pub(in crate::link) fn lend(&mut self, pools: &mut QueuePool<T>) -> &mut VecDeque<T> {
        self.0.get_or_insert_with(|| pools.take())
    }

    /// Returns the memory to the pool if the queue is empty. Returns true if the queue is empty.
    #[inline]
    pub(in crate::link) fn reclaim(&mut self, pools: &mut QueuePool<T>) -> bool {
        match self.0.take_if(|queue| queue.is_empty()) {
            Some(queue) => pools.give(queue),
            None => return self.0.is_none(),
        }
        true
    }

    /// Returns the queue, or `None` if it owns no memory.
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

    /// Returns the remaining entries.
    pub(in crate::link) fn into_entries(self) -> impl Iterator<Item = T> {
        self.0.into_iter().flat_map(|queue| *queue)
    }

    pub(in crate::link) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.as_deref().into_iter().flatten()
    }

    /// Returns the number of entries at the front for which `is_before` holds, if they are sorted by it.
    pub(in crate::link) fn partition_point(&self, is_before: impl FnMut(&T) -> bool) -> usize {
        self.0.as_deref().map_or(0, |queue| queue.partition_point(is_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_queue_returns_its_memory_and_gets_it_again() {
        let (mut pools, mut queue) = (QueuePool::default(), PooledQueue::new());
        queue.lend(&mut pools).extend(0..5);
        assert!(!queue.reclaim(&mut pools), "a queue with entries keeps its memory");
        assert_eq!((queue.iter().count(), queue.front()), (5, Some(&0)));
        let queued = queue.held().unwrap();
        let room = queued.capacity();
        queued.clear();
        assert!(queue.reclaim(&mut pools) && queue.reclaim(&mut pools));
        assert!(queue.held().is_none() && pools.entries == room);
        assert_eq!((PooledQueue::new().lend(&mut pools).capacity(), pools.entries), (room, 0));
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pools = QueuePool::<u8>::default();
        for capacity in [4, 40, 4000].into_iter().cycle().take(10_000) {
            pools.give(Box::new(VecDeque::with_capacity(capacity)));
        }
        let entries: usize = pools.queues.iter().map(|queue| queue.capacity()).sum();
        assert!(entries == pools.entries && (1..=KEPT_ENTRIES_MAX).contains(&entries));
        assert!(pools.queues.iter().all(|queue| queue.capacity() <= QUEUE_ENTRIES_MAX), "large queues are freed");
    }
}
