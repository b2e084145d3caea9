//! A queue that serves its askers in turn. Each asker has a bounded share of the places, and of the entries in work at once.
//!
//! The process itself has no share, and the askers cannot keep it out: beyond the bounds of all, it has as many places as
//! one asker, and one entry in work at once.
//!
//! The queue holds work for few threads, such as lookups of names. It knows neither the threads nor the work.

use std::collections::{HashMap, VecDeque};

use crate::types::peer::PeerKey;
use crate::types::peer_network::PeerNetwork;

/// The owner of an entry, by which shares are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// The process itself, which needs no share.
    Own,
    /// The peer of a link.
    Key(PeerKey),
    /// The clients of a front end that have an address.
    Network(PeerNetwork),
}

/// Bounds on the entries of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    /// Entries that wait: of all, and of one asker.
    pub waiting: (usize, usize),
    /// Entries that have been taken and are not done: of all, and of one asker.
    pub at_once: (usize, usize),
}

/// A queue of `T`. Invariant: `order` holds each asker that has an entry waiting, once.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    shares: Shares,
    waiting: HashMap<Asker, VecDeque<T>>,
    order: VecDeque<Asker>,
    /// How many entries of each asker have been taken and are not done. Invariant: none has 0.
    taken: HashMap<Asker, usize>,
    waiting_count: usize,
    taken_count: usize,
}

impl<T> FairQueue<T> {
    pub fn new(shares: Shares) -> FairQueue<T> {
        let (waiting, order, taken) = (HashMap::new(), VecDeque::new(), HashMap::new());
        FairQueue { shares, waiting, order, taken, waiting_count: 0, taken_count: 0 }
    }

    /// Adds an entry behind the others of its asker. Gives the entry back if that asker, or all together, are at the bound;
    /// an entry of the process itself only if both are.
    pub fn push(&mut self, asker: Asker, entry: T) -> Result<(), T> {
        let of_asker = self.waiting.get(&asker).map_or(0, VecDeque::len);
        let (all_max, one_max) = self.shares.waiting;
        let (is_full, has_share) = (self.waiting_count >= all_max, of_asker >= one_max);
        let is_refused = if asker == Asker::Own { is_full && has_share } else { is_full || has_share };
        if is_refused {
            return Err(entry);
        }
        if of_asker == 0 {
            self.order.push_back(asker);
        }
        self.waiting.entry(asker).or_default().push_back(entry);
        self.waiting_count += 1;
        Ok(())
    }

    /// Takes the next entry of the asker whose turn it is, if as many are not being done already; one of the process
    /// itself is taken beyond them. [`FairQueue::done`] follows.
    pub fn take(&mut self) -> Option<(Asker, T)> {
        let (all_max, one_max) = self.shares.at_once;
        let is_full = self.taken_count >= all_max;
        if is_full && self.taken.contains_key(&Asker::Own) {
            return None;
        }
        let may_go = |asker: &Asker| match asker {
            Asker::Own => true,
            asker => !is_full && self.taken.get(asker).is_none_or(|count| *count < one_max),
        };
        // The order is not longer than there may be entries that wait.
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
        *self.taken.entry(asker).or_default() += 1;
        Some((asker, entry))
    }

    /// An entry that was taken is done.
    pub fn done(&mut self, asker: Asker) {
        let Some(count) = self.taken.get_mut(&asker) else { return };
        *count -= 1;
        self.taken_count -= 1;
        if *count == 0 {
            self.taken.remove(&asker);
        }
    }
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
    fn one_asker_has_its_share_of_the_places_and_the_next_one_is_served_in_turn() {
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
    fn one_asker_has_its_share_of_what_is_done_at_once() {
        let mut queue = queue();
        (0..4).for_each(|n| queue.push(A, n).unwrap());
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(taken, [(A, 0), (A, 1)], "the others wait although there is room");
        queue.push(B, 10).unwrap();
        assert_eq!(queue.take(), Some((B, 10)));
        queue.done(A);
        assert_eq!(queue.take(), Some((A, 2)));
        queue.push(B, 11).unwrap();
        assert_eq!(queue.take(), Some((B, 11)));
        queue.push(B, 12).unwrap();
        assert_eq!(queue.take(), None, "as many as there may be at once");
    }

    #[test]
    fn the_others_do_not_keep_the_process_from_what_it_does_itself() {
        let mut queue = queue();
        (0..2).for_each(|n| queue.push(A, n).unwrap());
        (0..2).for_each(|n| queue.push(B, n).unwrap());
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 4);
        (0..2).for_each(|n| queue.push(Asker::Own, 20 + n).unwrap());
        queue.push(A, 3).unwrap();
        assert_eq!(queue.take(), Some((Asker::Own, 20)));
        assert_eq!(queue.take(), None, "one beyond the others");
        queue.done(Asker::Own);
        assert_eq!(queue.take(), Some((Asker::Own, 21)));
    }

    #[test]
    fn all_of_them_have_so_many_places_and_the_process_itself_has_no_share() {
        let mut queue = queue();
        (0..4).for_each(|n| queue.push(A, n).unwrap());
        (0..4).for_each(|n| queue.push(B, n).unwrap());
        assert_eq!(queue.push(Asker::Key([3; 32]), 1), Err(1));
        (0..4).for_each(|n| queue.push(Asker::Own, 20 + n).unwrap());
        assert_eq!(queue.push(Asker::Own, 24), Err(24), "beyond the others it has as many places as one of them");
        let mut queue = FairQueue::new(Shares { waiting: (8, 1), at_once: (4, 1) });
        (0..8).for_each(|n| queue.push(Asker::Own, n).unwrap());
        assert_eq!(std::iter::from_fn(|| queue.take()).count(), 4);
    }
}
