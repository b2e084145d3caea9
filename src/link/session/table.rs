//! The live streams of a session, found by id in constant time.
//!
//! Ids rise and are never reused, so closed streams need no record: an id up to the highest one used that has no entry
//! belongs to a closed stream, and a frame for it is a late duplicate. The exception are ids that the peer has skipped
//! and whose frames are still in flight: [`Gaps`] keeps them as ranges.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use slab::Slab;

use super::id_gaps::Gaps;
use crate::link::stream::state::Stream;
use crate::link::wire::ids::{SessionRole, StreamId};

/// A hash that spreads ids, which rise by two, over the whole word. The map is never iterated, so its order does not
/// matter.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }
}

/// The result of looking up an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A live stream in this slot.
    Live(usize),
    /// A stream that is over.
    Closed,
    /// A stream that was not opened yet.
    Unopened,
}

/// The streams of a session.
#[derive(Debug)]
pub(super) struct Table {
    role: SessionRole,
    slots: Slab<Stream>,
    by_id: HashMap<StreamId, usize, BuildHasherDefault<IdHasher>>,
    /// Number of ids of each end up to the highest one used: of the peer, and of this end.
    opened: [u32; 2],
    /// Ids of the peer below its highest that no frame has used yet.
    gaps: Gaps,
    live: [u32; 2],
}

impl Table {
    pub(super) fn new(role: SessionRole) -> Table {
        Table {
            role,
            slots: Slab::new(),
            by_id: HashMap::default(),
            opened: [0; 2],
            gaps: Gaps::default(),
            live: [0; 2],
        }
    }

    pub(super) fn find(&self, id: StreamId) -> Lookup {
        if let Some(&slot) = self.by_id.get(&id) {
            return Lookup::Live(slot);
        }
        let local = id.opener() == Some(self.role);
        let is_over = id.index() < self.opened(local) && (local || !self.gaps.contains(id.index()));
        if is_over { Lookup::Closed } else { Lookup::Unopened }
    }

    pub(super) fn live_slot(&self, id: StreamId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn by_id(&mut self, id: StreamId) -> Option<&mut Stream> {
        let slot = self.live_slot(id)?;
        self.slots.get_mut(slot)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Stream> {
        self.slots.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Stream> {
        self.slots.get_mut(slot)
    }

    /// Returns the id of the next stream of this end or of the peer.
    pub(super) fn next_id(&self, local: bool) -> Option<StreamId> {
        let opener = if local { self.role } else { self.role.peer() };
        StreamId::nth(opener, self.opened(local))
    }

    /// Adds a stream whose id is [`Lookup::Unopened`]. Ids of the peer that it skips become a gap.
    pub(super) fn insert(&mut self, stream: Stream) -> usize {
        debug_assert_eq!(self.find(stream.id), Lookup::Unopened, "an id is used once");
        let (id, side) = (stream.id, usize::from(stream.is_local));
        if let (Some(opened), Some(live)) = (self.opened.get_mut(side), self.live.get_mut(side)) {
            *live += 1;
            if id.index() >= *opened {
                if !stream.is_local {
                    self.gaps.push(*opened, id.index());
                }
                *opened = id.index() + 1;
            } else {
                self.gaps.remove(id.index());
            }
        }
        let slot = self.slots.insert(stream);
        self.by_id.insert(id, slot);
        slot
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Stream> {
        let stream = self.slots.try_remove(slot)?;
        self.by_id.remove(&stream.id);
        if let Some(live) = self.live.get_mut(usize::from(stream.is_local)) {
            *live -= 1;
        }
        Some(stream)
    }

    /// Returns the ids of the peer below its highest that no frame has used yet.
    pub(super) const fn gaps(&self) -> &Gaps {
        &self.gaps
    }

    /// Returns the number of streams that this end has opened in all, or of the peer's ids up to the highest one used.
    pub(super) fn opened(&self, local: bool) -> u32 {
        self.opened.get(usize::from(local)).copied().unwrap_or(0)
    }

    /// Returns the number of live streams of this end or of the peer.
    pub(super) fn live(&self, local: bool) -> u32 {
        self.live.get(usize::from(local)).copied().unwrap_or(0)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns all live streams in the order of their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Stream)> {
        self.slots.iter()
    }

    /// Returns all live streams, to change them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Stream)> {
        self.slots.iter_mut()
    }

    /// Returns the live streams from this slot on.
    pub(super) fn starting_at(&self, slot: usize) -> impl Iterator<Item = (usize, &Stream)> {
        (slot..self.slots.capacity()).filter_map(|slot| self.slots.get(slot).map(|stream| (slot, stream)))
    }

    /// Sets the number of streams that this end has opened, to test exhausted ids.
    #[cfg(test)]
    pub(super) fn skip_to(&mut self, index: u32) {
        if let Some(opened) = self.opened.get_mut(1) {
            *opened = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::stream::credit::{Bounds, Window};
    use crate::link::wire::ids::{STREAMS_EVER, Time};

    fn stream(id: StreamId) -> Stream {
        Stream::implicit(id, 0, Window::new(Bounds { first: 1, max: 1 }, Time::ZERO))
    }

    #[test]
    fn an_id_is_unopened_then_live_then_closed() {
        let mut table = Table::new(SessionRole::Server);
        let id = table.next_id(false).unwrap();
        assert_eq!((id, table.find(id)), (StreamId(2), Lookup::Unopened));
        let slot = table.insert(stream(id));
        assert_eq!(table.find(id), Lookup::Live(slot));
        table.remove(slot);
        assert_eq!((table.find(id), table.next_id(false)), (Lookup::Closed, Some(StreamId(4))));
        assert_eq!((table.opened(false), table.live(false)), (1, 0));
    }

    #[test]
    fn skipped_ids_are_unopened_until_a_frame_uses_them() {
        let mut table = Table::new(SessionRole::Server);
        let slot = table.insert(stream(StreamId(131_072)));
        assert_eq!((table.len(), table.opened(false), table.gaps().ids()), (1, 65_536, 65_535));
        assert_eq!((table.find(StreamId(2)), table.find(StreamId(131_070))), (Lookup::Unopened, Lookup::Unopened));
        let second = table.insert(stream(StreamId(700)));
        assert_eq!((table.find(StreamId(700)), table.gaps().ids()), (Lookup::Live(second), 65_534));
        table.remove(second);
        table.remove(slot);
        assert_eq!((table.find(StreamId(700)), table.find(StreamId(131_072))), (Lookup::Closed, Lookup::Closed));
        assert_eq!(table.find(StreamId(702)), Lookup::Unopened);
    }

    #[test]
    fn ids_are_exhausted_and_do_not_wrap() {
        let mut table = Table::new(SessionRole::Client);
        table.skip_to(STREAMS_EVER - 1);
        let last = table.next_id(true).unwrap();
        assert_eq!(last, StreamId(u32::MAX - 1));
        table.insert(Stream { is_local: true, ..stream(last) });
        assert_eq!(table.next_id(true), None);
    }

    #[test]
    fn each_of_ten_thousand_streams_is_found() {
        let mut table = Table::new(SessionRole::Server);
        let slots: Vec<usize> = (0..10_000u32).map(|n| table.insert(stream(StreamId(2 + 2 * n)))).collect();
        assert!((0..10_000u32).all(|n| table.find(StreamId(2 + 2 * n)) == Lookup::Live(slots[n as usize])));
    }

    /// Ids rise by two, which must cost the map no more than ids in any other order. It finds a bucket by the low bits of
    /// the hash and tells entries of a bucket apart by the seven high bits.
    #[test]
    fn rising_ids_spread_over_the_buckets_of_the_map_as_random_ids_do() {
        const IDS: u32 = 100_000;
        let hash = |id: u32| {
            let mut hasher = IdHasher::default();
            hasher.write_u32(id);
            hasher.finish()
        };
        let spread = |ids: &mut dyn Iterator<Item = u32>| {
            let (mut buckets, mut tags) = (vec![0_u32; 1 << 17], [0_u32; 128]);
            for hash in ids.map(hash) {
                buckets[(hash & 0x1_ffff) as usize] += 1;
                tags[(hash >> 57) as usize] += 1;
            }
            let used = buckets.iter().filter(|count| **count > 0).count();
            (used, buckets.iter().copied().max().unwrap(), tags.iter().copied().max().unwrap())
        };
        let mut state = 1_u64;
        let mut random = (0..IDS).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        });
        let (rising, random) = (spread(&mut (0..IDS).map(|n| 2 + 2 * n)), spread(&mut random));
        assert!(rising.0 * 10 >= random.0 * 9, "used buckets: {rising:?} and {random:?}");
        assert!(rising.1 <= random.1 * 2, "the fullest bucket: {rising:?} and {random:?}");
        assert!(rising.2 <= IDS / 128 * 2, "the most frequent tag: {rising:?}");
    }
}
