//! Room that is used again: buffers for small payloads, and the queues of streams that hold nothing now.
//!
//! It exists so that frames allocate nothing in steady state although a stream that holds no bytes has no room of its
//! own. What it keeps is bounded and counted in the memory formula: at most 1.5 MiB.

use std::collections::VecDeque;

use super::recv::Run;
use super::send::Chunk;

/// Bytes of all buffers that are kept.
const BUFFERS_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of all queues of one kind that are kept: those of a thousand streams which all carry something.
const QUEUES_BYTES_MAX: usize = 256 * 1024;
/// A larger buffer, or queue, is freed rather than kept.
const ROOM_BYTES_MAX: usize = 16 * 1024;
/// What a buffer or a queue counts for at least.
const ROOM_COST_MIN: usize = 256;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Spare {
    bufs: Kept<Vec<u8>>,
    chunks: Kept<VecDeque<Chunk>>,
    runs: Kept<VecDeque<Run>>,
}

/// Rooms of one kind.
#[derive(Debug)]
struct Kept<T> {
    rooms: Vec<T>,
    /// What those in `rooms` count for.
    cost: usize,
    cost_max: usize,
}

/// Something with room for more than it holds.
trait Room: Default {
    /// The bytes of its room.
    fn bytes(&self) -> usize;
}

impl Default for Spare {
    fn default() -> Spare {
        Spare {
            bufs: Kept::new(BUFFERS_BYTES_MAX),
            chunks: Kept::new(QUEUES_BYTES_MAX),
            runs: Kept::new(QUEUES_BYTES_MAX),
        }
    }
}

impl Spare {
    /// An empty buffer, a used one if there is any.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.bufs.take()
    }

    /// Takes a buffer back.
    pub(super) fn give(&mut self, mut buf: Vec<u8>) {
        buf.clear();
        self.bufs.give(buf);
    }

    /// Gives room to a queue that has none.
    pub(super) fn lend_chunks(&mut self, queue: &mut VecDeque<Chunk>) {
        self.chunks.lend(queue);
    }

    /// Takes the room of a queue that holds nothing.
    pub(super) fn reclaim_chunks(&mut self, queue: &mut VecDeque<Chunk>) {
        self.chunks.reclaim(queue);
    }

    /// Gives room to a queue that has none.
    pub(super) fn lend_runs(&mut self, queue: &mut VecDeque<Run>) {
        self.runs.lend(queue);
    }

    /// Takes the room of a queue that holds nothing.
    pub(super) fn reclaim_runs(&mut self, queue: &mut VecDeque<Run>) {
        self.runs.reclaim(queue);
    }
}

impl<T: Room> Kept<T> {
    const fn new(cost_max: usize) -> Kept<T> {
        Kept { rooms: Vec::new(), cost: 0, cost_max }
    }

    fn take(&mut self) -> T {
        let room = self.rooms.pop().unwrap_or_default();
        self.cost -= if room.bytes() > 0 { cost(&room) } else { 0 };
        room
    }

    fn give(&mut self, room: T) {
        let cost = cost(&room);
        if (1..=ROOM_BYTES_MAX).contains(&room.bytes()) && self.cost + cost <= self.cost_max {
            self.cost += cost;
            self.rooms.push(room);
        }
    }
}

impl<T> Kept<VecDeque<T>> {
    #[inline]
    fn lend(&mut self, queue: &mut VecDeque<T>) {
        if queue.capacity() == 0 {
            *queue = self.take();
        }
    }

    #[inline]
    fn reclaim(&mut self, queue: &mut VecDeque<T>) {
        if queue.is_empty() && queue.capacity() > 0 {
            self.give(std::mem::take(queue));
        }
    }
}

impl Room for Vec<u8> {
    fn bytes(&self) -> usize {
        self.capacity()
    }
}

impl<T> Room for VecDeque<T> {
    fn bytes(&self) -> usize {
        self.capacity() * size_of::<T>()
    }
}

fn cost(room: &impl Room) -> usize {
    room.bytes().max(ROOM_COST_MIN)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_empty_queue_has_no_room_and_gets_the_same_again() {
        let mut spare = Spare::default();
        let mut queue = VecDeque::new();
        spare.lend_chunks(&mut queue);
        queue.extend((0..5).map(|n| (n, Bytes::new())));
        spare.reclaim_chunks(&mut queue);
        assert_eq!(queue.len(), 5, "one that holds something keeps it");
        let room = queue.capacity();
        queue.clear();
        spare.reclaim_chunks(&mut queue);
        assert_eq!(queue.capacity(), 0);
        let mut other = VecDeque::new();
        spare.lend_chunks(&mut other);
        assert_eq!((other.capacity(), spare.chunks.cost), (room, 0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut spare = Spare::default();
        for _ in 0..10_000 {
            spare.give(Vec::with_capacity(1024));
            spare.reclaim_chunks(&mut VecDeque::with_capacity(4));
            spare.reclaim_runs(&mut VecDeque::with_capacity(400));
            spare.reclaim_runs(&mut VecDeque::with_capacity(4000));
        }
        let bytes = |queues: &[VecDeque<Run>]| queues.iter().map(Room::bytes).sum::<usize>();
        assert!(spare.bufs.cost + spare.chunks.cost + spare.runs.cost <= 3 << 19);
        assert!((1..=QUEUES_BYTES_MAX).contains(&bytes(&spare.runs.rooms)));
        assert!(spare.runs.rooms.iter().all(|queue| queue.bytes() <= ROOM_BYTES_MAX), "a large one is freed");
    }
}
