//! The queue of dests that wait for a link. They are connected over it as soon as it is up.
//!
//! Bounds: [`WAITING_MAX`] dests. A dest that is gone stays in the queue until the next sweep. A full queue is swept once in
//! [`SWEEPS_MS`], however many clients come.

use std::collections::VecDeque;

use crate::types::id::Id;

/// Dests in the order of their arrival. Invariant: none is in the queue twice.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub dests: VecDeque<Id>,
    /// The time before which a full queue is not swept again.
    sweep_ms: u64,
}

impl Waiting {
    /// Appends a dest. Dests that are not `there` any more make room. Returns false if the queue stays full.
    pub fn push(&mut self, dest: Id, now_ms: u64, there: impl Fn(Id) -> bool) -> bool {
        if self.dests.len() >= WAITING_MAX && now_ms >= self.sweep_ms {
            self.sweep_ms = now_ms + SWEEPS_MS;
            self.dests.retain(|dest| there(*dest));
        }
        if self.dests.len() >= WAITING_MAX {
            return false;
        }
        self.dests.push_back(dest);
        true
    }

    /// Removes a dest. Returns false if it is not in the queue.
    pub fn remove(&mut self, dest: Id) -> bool {
        // Dests that give up have mostly waited longest, so the search finds them at once.
        let place = self.dests.iter().position(|other| *other == dest);
        place.and_then(|place| self.dests.remove(place)).is_some()
    }
}

/// Maximum of the dests that wait for one link.
const WAITING_MAX: usize = 65_536;
/// Interval of the sweeps of a full queue.
const SWEEPS_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn id(number: u32) -> Id {
        Id::from_u64(1 << 32 | 2 << 28 | u64::from(number)).unwrap()
    }

    #[test]
    fn a_full_queue_is_swept_once_in_an_interval_and_dests_that_left_make_room() {
        let (mut waiting, looks) = (Waiting::default(), Cell::new(0));
        let there = |is_there: bool| {
            let looks = &looks;
            move |_| {
                looks.set(looks.get() + 1);
                is_there
            }
        };
        for number in 0..WAITING_MAX as u32 {
            assert!(waiting.push(id(number), 5, there(true)));
        }
        assert_eq!(looks.get(), 0, "there is room");
        let more = WAITING_MAX as u32..WAITING_MAX as u32 + 1_000;
        assert!(more.clone().all(|number| !waiting.push(id(number), 5, there(true))));
        assert_eq!(looks.get(), WAITING_MAX, "one look for all who find no room");
        assert!(waiting.remove(id(7)) && !waiting.remove(id(7)));
        assert!(waiting.push(id(more.start), 6, there(false)), "one gave up");
        assert!(!waiting.push(id(more.end), 4 + SWEEPS_MS, there(false)));
        assert!(waiting.push(id(more.end), 5 + SWEEPS_MS, there(false)), "all others have left");
        assert_eq!(waiting.dests, [id(more.end)]);
    }
}
