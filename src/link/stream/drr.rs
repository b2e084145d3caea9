//! Deficit round robin with weights over the streams that have something to send.
//!
//! There are two lists, as in fq_codel (RFC 8290, section 4.2). A stream that becomes busy goes to the new list, which
//! is served first for one quantum: a keystroke overtakes bulk. A stream that has used its quantum, or has nothing
//! left, goes to the old list, so a stream cannot stay new by running empty now and then.

use std::collections::VecDeque;

/// Bytes of frames that a stream of weight 1 may send in a round: one full frame.
pub(in crate::link) const QUANTUM: i64 = 16 * 1024;

/// One of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum List {
    New,
    Old,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Membership {
    #[default]
    None,
    New,
    Old,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    membership: Membership,
    deficit: i64,
    weight: u8,
    /// Rises when the slot is forgotten; a ticket with an older value is void.
    epoch: u32,
}

/// A slot in a list, and the epoch of its entry at that time.
type Ticket = (usize, u32);

/// The lists. Streams are identified by their slot in the session's table.
#[derive(Debug, Default)]
pub(in crate::link) struct Drr {
    new: VecDeque<Ticket>,
    old: VecDeque<Ticket>,
    entries: Vec<Entry>,
}

impl Drr {
    /// Adds a stream that has something to send, as a new one if it is in no list.
    pub(in crate::link) fn enter(&mut self, slot: usize, weight: u8) {
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, Entry::default());
        }
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if entry.membership == Membership::None {
            let weight = weight.max(1);
            *entry =
                Entry { membership: Membership::New, deficit: QUANTUM * i64::from(weight), weight, epoch: entry.epoch };
            self.new.push_back((slot, entry.epoch));
        }
    }

    /// Returns the stream whose turn it is in one of the lists.
    pub(in crate::link) fn head(&mut self, list: List) -> Option<usize> {
        loop {
            let &(slot, epoch) = self.list(list).front()?;
            let entry = self.entries.get_mut(slot)?;
            if entry.epoch != epoch {
                self.list(list).pop_front();
            } else if entry.deficit > 0 {
                return Some(slot);
            } else {
                entry.deficit += QUANTUM * i64::from(entry.weight);
                self.rotate(list);
            }
        }
    }

    /// Charges a frame of `bytes` to the stream at the head; `more` is true if the stream has another.
    pub(in crate::link) fn sent(&mut self, list: List, bytes: u64, more: bool) {
        let Some(&(slot, _)) = self.list(list).front() else { return };
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.deficit -= i64::try_from(bytes).unwrap_or(QUANTUM);
        }
        if !more {
            self.leave(list);
        }
    }

    /// Removes the stream at the head, which has nothing to send. One from the new list stays in the old list for a
    /// round.
    pub(in crate::link) fn leave(&mut self, list: List) {
        if list == List::New {
            self.rotate(list);
        } else if let Some((slot, _)) = self.old.pop_front() {
            self.set_membership(slot, Membership::None);
        }
    }

    /// Moves the stream at the head behind the old list, with its deficit.
    pub(in crate::link) fn rotate(&mut self, list: List) {
        if let Some(ticket) = self.list(list).pop_front() {
            self.set_membership(ticket.0, Membership::Old);
            self.old.push_back(ticket);
        }
    }

    /// Moves the stream at the head behind its own list, because the subflow that it needs is busy.
    pub(in crate::link) fn skip(&mut self, list: List) {
        if let Some(ticket) = self.list(list).pop_front() {
            self.list(list).push_back(ticket);
        }
    }

    /// Returns the length of a list, with the slots that were forgotten.
    pub(in crate::link) fn len(&self, list: List) -> usize {
        match list {
            List::New => self.new.len(),
            List::Old => self.old.len(),
        }
    }

    /// Removes a slot that is free, or is about to be used by another stream.
    pub(in crate::link) fn forget(&mut self, slot: usize) {
        if let Some(entry) = self.entries.get_mut(slot)
            && entry.membership != Membership::None
        {
            entry.membership = Membership::None;
            entry.epoch = entry.epoch.wrapping_add(1);
        }
    }

    pub(in crate::link) fn contains(&self, slot: usize) -> bool {
        self.entries.get(slot).is_some_and(|entry| entry.membership != Membership::None)
    }

    fn list(&mut self, list: List) -> &mut VecDeque<Ticket> {
        match list {
            List::New => &mut self.new,
            List::Old => &mut self.old,
        }
    }

    fn set_membership(&mut self, slot: usize, membership: Membership) {
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.membership = membership;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: u64 = 16 * 1024;

    /// Returns the head of the new list, or of the old one.
    fn head(drr: &mut Drr) -> (usize, List) {
        let new = drr.head(List::New).map(|slot| (slot, List::New));
        new.or_else(|| drr.head(List::Old).map(|slot| (slot, List::Old))).unwrap()
    }

    fn serve_one(drr: &mut Drr, bytes: u64, more: bool) -> usize {
        let (slot, list) = head(drr);
        drr.sent(list, bytes, more);
        slot
    }

    /// Sends `frames` frames from streams that never run empty. Returns the bytes of each stream.
    fn serve(weights: &[u8], sizes: &[u64], frames: usize) -> Vec<u64> {
        let mut drr = Drr::default();
        weights.iter().enumerate().for_each(|(slot, weight)| drr.enter(slot, *weight));
        let mut served = vec![0; weights.len()];
        for _ in 0..frames {
            let (slot, list) = head(&mut drr);
            served[slot] += sizes[slot];
            drr.sent(list, sizes[slot], true);
        }
        served
    }

    #[test]
    fn a_new_stream_overtakes_bulk_for_one_quantum() {
        let mut drr = Drr::default();
        (0..3).for_each(|slot| drr.enter(slot, 1));
        (0..30).for_each(|_| {
            serve_one(&mut drr, FRAME, true);
        });
        drr.enter(7, 1);
        assert_eq!(serve_one(&mut drr, FRAME, true), 7);
        assert_ne!(serve_one(&mut drr, FRAME, true), 7);
    }

    #[test]
    fn a_stream_that_runs_empty_does_not_become_new() {
        let mut drr = Drr::default();
        drr.enter(0, 1);
        drr.enter(1, 1);
        assert_eq!(serve_one(&mut drr, 100, false), 0);
        drr.enter(0, 1);
        assert_eq!(serve_one(&mut drr, FRAME, true), 1);
        assert_eq!(head(&mut drr), (0, List::Old));
    }

    #[test]
    fn a_forgotten_slot_starts_as_new() {
        let mut drr = Drr::default();
        drr.enter(0, 1);
        drr.enter(1, 1);
        serve_one(&mut drr, FRAME, true);
        drr.forget(0);
        assert!(!drr.contains(0));
        drr.enter(0, 3);
        assert_eq!(serve_one(&mut drr, FRAME, true), 1);
        assert_eq!(head(&mut drr), (0, List::New));
    }

    proptest! {
        /// Each stream gets its share of the total by weight, within a quantum and a frame per round.
        #[test]
        fn streams_share_by_weight(weights in proptest::collection::vec(1u8..5, 2..6), seed in proptest::collection::vec(1u64..=FRAME, 6)) {
            let served = serve(&weights, &seed, 4000);
            let total: u64 = served.iter().sum();
            let parts: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            for (slot, bytes) in served.iter().enumerate() {
                let share = total * u64::from(weights[slot]) / parts;
                let slack = 2 * u64::from(weights[slot]) * QUANTUM as u64 + FRAME;
                prop_assert!(bytes.abs_diff(share) <= slack, "slot {slot}: {bytes} of {share}, {served:?}");
            }
        }
    }
}
