//! A queue that serves its askers in turn. Each asker has a bounded share of the waiting entries and of the entries in work.
//!
//! The process itself is an asker without a share. The others cannot keep it out: beyond the bounds of all, it may have as
//! many waiting entries as one asker, and one entry in work.
//!
//! The discoveries of a process are askers whose work nobody waits for. All of them together have the share of one asker, and
//! one of them has at most half of that. So a list of names that no name server answers about delays no client, and another
//! list little. Their share of the waiting entries is their own: askers that fill the queue do not keep them out. Entries in
//! work are bounded for all, and discoveries wait for their turn.
//!
//! The queue holds work for few threads, such as lookups of names. It knows neither the threads nor the work.

use std::collections::{HashMap, VecDeque};

use crate::types::peer::PeerKey;
use crate::types::peer_network::PeerNetwork;

/// The owner of an entry, by which shares are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// The process itself, which has no share.
    Own,
    /// A discovery of a loop. Two loops may use the same number; their discoveries have one share then.
    Discovery(u64),
    /// The peer of a link.
    Key(PeerKey),
    /// The clients of a front end whose addresses are in this network.
    Network(PeerNetwork),
}

impl Asker {
    fn is_discovery(self) -> bool {
        matches!(self, Asker::Discovery(_))
    }
}

/// Bounds on the entries of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    /// Limit of the waiting entries: of all askers, and of one.
    pub waiting: (usize, usize),
    /// Limit of the entries in work: of all askers, and of one.
    pub at_once: (usize, usize),
}

/// A queue of `T`. Invariant: `order` holds each asker with a waiting entry once.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    shares: Shares,
    waiting: HashMap<Asker, VecDeque<T>>,
    order: VecDeque<Asker>,
    /// The number of each asker's entries in work. Invariant: no number is 0.
    taken: HashMap<Asker, usize>,
    waiting_count: usize,
    taken_count: usize,
    /// The numbers of entries of all discoveries: waiting, and in work.
    of_discoveries: (usize, usize),
}

impl<T> FairQueue<T> {
    pub fn new(shares: Shares) -> FairQueue<T> {
        let (waiting, order, taken) = (HashMap::new(), VecDeque::new(), HashMap::new());
        FairQueue { shares, waiting, order, taken, waiting_count: 0, taken_count: 0, of_discoveries: (0, 0) }
    }

    /// Adds an entry after the others of its asker. Returns the entry as the error if the asker or all askers together are
    /// at their limit. An entry of the process itself is refused only if both are, and one of a discovery only if that
    /// discovery or all discoveries together are at theirs.
    pub fn push(&mut self, asker: Asker, entry: T) -> Result<(), T> {
        let of_asker = self.waiting.get(&asker).map_or(0, VecDeque::len);
        let (all_max, one_max) = self.shares.waiting;
        let (is_full, has_share) = (self.waiting_count >= all_max, of_asker >= one_max);
        let is_refused = match asker {
            Asker::Own => is_full && has_share,
            Asker::Discovery(_) => self.of_discoveries.0 >= one_max || of_asker >= half(one_max),
            Asker::Key(_) | Asker::Network(_) => is_full || has_share,
        };
        if is_refused {
            return Err(entry);
        }
        if of_asker == 0 {
            self.order.push_back(asker);
        }
        self.waiting.entry(asker).or_default().push_back(entry);
        self.waiting_count += 1;
        self.of_discoveries.0 += usize::from(asker.is_discovery());
        Ok(())
    }

    /// Takes the next entry of the asker whose turn it is. Returns `None` if no asker with a waiting entry is below its
    /// limit. One entry of the process itself is taken beyond the limit of all. [`FairQueue::done`] must follow.
    pub fn take(&mut self) -> Option<(Asker, T)> {
        let (all_max, one_max) = self.shares.at_once;
        let is_full = self.taken_count >= all_max;
        if is_full && self.taken.contains_key(&Asker::Own) {
            return None;
        }
        let of_discoveries = self.of_discoveries.1;
        let is_below = |asker: &Asker, most: usize| self.taken.get(asker).is_none_or(|count| *count < most);
        let may_go = |asker: &Asker| match asker {
            Asker::Own => true,
            Asker::Discovery(_) => !is_full && of_discoveries < one_max && is_below(asker, half(one_max)),
            Asker::Key(_) | Asker::Network(_) => !is_full && is_below(asker, one_max),
        };
        // The search is bounded by the limit of the waiting entries.
        let place = self.order.iter().position(may_go)?;
        let asker = self.order.remove(place)?;
        let entries = self.waiting.get_mut(&asker)?;
        let entry = entries.pop_front()?;
        if entries.is_empty() {
            self.waiting.remove(&asker);
        } else {
            self.order.push_back(asker);
        }
        self.waiting_count -= 1;
        self.taken_count += 1;
        if asker.is_discovery() {
            self.of_discoveries.0 -= 1;
            self.of_discoveries.1 += 1;
        }
        *self.taken.entry(asker).or_default() += 1;
        Some((asker, entry))
    }

    /// Ends the work on an entry.
    pub fn done(&mut self, asker: Asker) {
        let Some(count) = self.taken.get_mut(&asker) else { return };
        *count -= 1;
        self.taken_count -= 1;
        self.of_discoveries.1 -= usize::from(asker.is_discovery());
        if *count == 0 {
            self.taken.remove(&asker);
        }
    }
}

/// Returns the part of a share that one discovery may have.
fn half(share: usize) -> usize {
    (share / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> FairQueue<u32> {
        FairQueue::new(Shares { waiting: (8, 4), at_once: (4, 2) })
    }

    const A: Asker = Asker::Key([1; 32]);
    const B: Asker = Asker::Key([2; 32]);

    #[test]
    fn an_asker_at_its_limit_of_waiting_entries_is_refused_and_the_askers_are_served_in_turn() {
        let mut queue = queue();
        assert_eq!((0..6).map(|n| queue.push(A, n)).filter(Result::is_err).count(), 2);
        assert_eq!(queue.push(B, 10), Ok(()));
        let mut took = Vec::new();
        while let Some((asker, n)) = queue.take() {
            took.push(n);
            queue.done(asker);
        }
        assert_eq!(took, [0, 10, 1, 2, 3]);
        assert!(queue.waiting.is_empty() && queue.order.is_empty() && queue.taken.is_empty());
    }

    #[test]
    fn an_asker_at_its_limit_of_entries_in_work_waits() {
        let mut queue = queue();
        (0..4).for_each(|n| queue.push(A, n).unwrap());
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, [(A, 0), (A, 1)], "the others wait although all together are below the limit");
        queue.push(B, 10).unwrap();
        assert_eq!(queue.take(), Some((B, 10)));
        queue.done(A);
        assert_eq!(queue.take(), Some((A, 2)));
        queue.push(B, 11).unwrap();
        assert_eq!(queue.take(), Some((B, 11)));
        queue.push(B, 12).unwrap();
        assert_eq!(queue.take(), None, "the limit of all");
    }

    #[test]
    fn an_entry_of_the_process_is_taken_beyond_the_limit_of_all() {
        let mut queue = queue();
        (0..2).for_each(|n| queue.push(A, n).unwrap());
        (0..2).for_each(|n| queue.push(B, n).unwrap());
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 4);
        (0..2).for_each(|n| queue.push(Asker::Own, 20 + n).unwrap());
        queue.push(A, 3).unwrap();
        assert_eq!(queue.take(), Some((Asker::Own, 20)));
        assert_eq!(queue.take(), None, "only one beyond the limit");
        queue.done(Asker::Own);
        assert_eq!(queue.take(), Some((Asker::Own, 21)));
    }

    #[test]
    fn all_discoveries_have_the_share_of_one_asker_and_one_of_them_half_of_that() {
        let mut queue = FairQueue::new(Shares { waiting: (16, 4), at_once: (8, 4) });
        let (one, two, three) = (Asker::Discovery(1), Asker::Discovery(2), Asker::Discovery(3));
        assert_eq!((0..3).map(|n| queue.push(one, n)).collect::<Vec<_>>(), [Ok(()), Ok(()), Err(2)]);
        assert_eq!((0..3).map(|n| queue.push(two, 10 + n)).collect::<Vec<_>>(), [Ok(()), Ok(()), Err(12)]);
        assert_eq!(queue.push(three, 20), Err(20));
        assert_eq!((queue.take(), queue.take()), (Some((one, 0)), Some((two, 10))));
        queue.push(one, 2).unwrap();
        queue.push(three, 20).unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, [(one, 1), (two, 11)], "the rest waits for the others");
        queue.push(A, 30).unwrap();
        queue.push(Asker::Own, 40).unwrap();
        assert_eq!((queue.take(), queue.take(), queue.take()), (Some((A, 30)), Some((Asker::Own, 40)), None));
        queue.done(two);
        assert_eq!((queue.take(), queue.take()), (Some((three, 20)), None), "the first one has its part");
        queue.done(one);
        assert_eq!(queue.take(), Some((one, 2)));
        [one, one, two, three, A, Asker::Own].into_iter().for_each(|asker| queue.done(asker));
        assert!(queue.taken.is_empty() && queue.of_discoveries == (0, 0));
    }

    #[test]
    fn askers_that_fill_the_queue_keep_no_discovery_out() {
        let mut queue = queue();
        (0..4).for_each(|n| queue.push(A, n).unwrap());
        (0..4).for_each(|n| queue.push(B, n).unwrap());
        let (one, two) = (Asker::Discovery(1), Asker::Discovery(2));
        assert_eq!([0, 1, 2].map(|n| queue.push(one, n)), [Ok(()), Ok(()), Err(2)]);
        assert_eq!([0, 1, 2].map(|n| queue.push(two, n)), [Ok(()), Ok(()), Err(2)]);
        assert_eq!(queue.push(Asker::Discovery(3), 1), Err(1), "the share of all discoveries");
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).map(|(asker, _)| asker).collect();
        assert_eq!(taken, [A, B, one, two], "they are served in turn");
    }

    #[test]
    fn no_discovery_is_taken_beyond_the_limit_of_all() {
        let mut queue = queue();
        (0..2).for_each(|n| queue.push(A, n).unwrap());
        (0..2).for_each(|n| queue.push(B, n).unwrap());
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 4);
        queue.push(Asker::Discovery(1), 9).unwrap();
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn the_process_may_wait_beyond_the_limit_of_all_and_has_no_share() {
        let mut queue = queue();
        (0..4).for_each(|n| queue.push(A, n).unwrap());
        (0..4).for_each(|n| queue.push(B, n).unwrap());
        assert_eq!(queue.push(Asker::Key([3; 32]), 1), Err(1));
        (0..4).for_each(|n| queue.push(Asker::Own, 20 + n).unwrap());
        assert_eq!(queue.push(Asker::Own, 24), Err(24), "beyond the limit of all it has the share of one asker");
        let mut queue = FairQueue::new(Shares { waiting: (8, 1), at_once: (4, 1) });
        (0..8).for_each(|n| queue.push(Asker::Own, n).unwrap());
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 4);
    }
}
