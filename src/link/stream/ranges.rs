//! A set of disjoint, sorted byte ranges of a stream: bytes acknowledged out of order, or bytes to retransmit.
//!
//! The frames that a session may have outstanding limit the number of ranges, so a sorted array is enough. In the usual
//! case, in order, each operation touches only the first or the last element.

use std::collections::VecDeque;

/// Half-open ranges `start..end` in rising order that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::link) struct RangeSet {
    ranges: VecDeque<(u64, u64)>,
}

impl RangeSet {
    pub(in crate::link) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns the number of ranges.
    pub(in crate::link) fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the lowest range.
    pub(in crate::link) fn first(&self) -> Option<(u64, u64)> {
        self.ranges.front().copied()
    }

    pub(in crate::link) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    pub(in crate::link) fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Frees the memory if the set is empty.
    pub(in crate::link) fn release(&mut self) {
        if self.ranges.is_empty() && self.ranges.capacity() > 0 {
            self.ranges = VecDeque::new();
        }
    }

    /// Adds `start..end` and merges the ranges that it touches.
    pub(in crate::link) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let from = self.ranges.partition_point(|&(_, e)| e < start);
        let to = self.ranges.partition_point(|&(s, _)| s <= end);
        if from >= to {
            self.ranges.insert(from, (start, end));
            return;
        }
        let low = self.ranges.get(from).map_or(start, |r| r.0.min(start));
        let high = self.ranges.get(to - 1).map_or(end, |r| r.1.max(end));
        self.replace(from, to, &[(low, high)]);
    }

    /// Removes `start..end` and splits the ranges that it cuts.
    pub(in crate::link) fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let from = self.ranges.partition_point(|&(_, e)| e <= start);
        let to = self.ranges.partition_point(|&(s, _)| s < end);
        if from >= to {
            return;
        }
        let left = self.ranges.get(from).map(|r| (r.0, start)).filter(|r| r.0 < r.1);
        let right = self.ranges.get(to - 1).map(|r| (end, r.1)).filter(|r| r.0 < r.1);
        match (left, right) {
            (Some(l), Some(r)) => self.replace(from, to, &[l, r]),
            (Some(keep), None) | (None, Some(keep)) => self.replace(from, to, &[keep]),
            (None, None) => self.replace(from, to, &[]),
        }
    }

    /// Adds the parts of `start..end` that are not in `except`.
    pub(in crate::link) fn insert_except(&mut self, start: u64, end: u64, except: &RangeSet) {
        let mut at = start;
        let skip = except.ranges.partition_point(|&(_, e)| e <= start);
        for &(s, e) in except.ranges.range(skip..) {
            if s >= end {
                break;
            }
            self.insert(at, s.min(end));
            at = at.max(e);
        }
        self.insert(at, end);
    }

    /// Removes everything below `floor`.
    pub(in crate::link) fn trim_below(&mut self, floor: u64) {
        while let Some(first) = self.ranges.front_mut() {
            if first.1 <= floor {
                self.ranges.pop_front();
                continue;
            }
            first.0 = first.0.max(floor);
            break;
        }
    }

    /// Returns true if all of `start..end` is in the set.
    pub(in crate::link) fn contains(&self, start: u64, end: u64) -> bool {
        let at = self.ranges.partition_point(|&(_, e)| e <= start);
        start >= end || self.ranges.get(at).is_some_and(|r| r.0 <= start && end <= r.1)
    }

    /// Returns the number of bytes in the set.
    #[cfg(test)]
    pub(in crate::link) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|r| r.1 - r.0).sum()
    }

    /// Replaces the ranges `from..to`. The usual case, one for one, moves nothing.
    fn replace(&mut self, from: usize, to: usize, with: &[(u64, u64)]) {
        if let (1, &[one]) = (to - from, with) {
            if let Some(slot) = self.ranges.get_mut(from) {
                *slot = one;
            }
            return;
        }
        self.ranges.drain(from..to);
        for (n, &range) in with.iter().enumerate() {
            self.ranges.insert(from + n, range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns the set as one flag per byte.
    fn bits(set: &RangeSet) -> Vec<bool> {
        let mut bits = vec![false; 64];
        set.iter().for_each(|(s, e)| (s..e).for_each(|n| bits[n as usize] = true));
        bits
    }

    proptest! {
        #[test]
        fn agrees_with_a_bitmap(ops in proptest::collection::vec((0u8..4, 0u64..64, 0u64..64), 1..40)) {
            let (mut set, mut model) = (RangeSet::default(), vec![false; 64]);
            let mut other = RangeSet::default();
            for (op, start, end) in ops {
                let span = start as usize..(end.max(start)) as usize;
                match op {
                    0 => { set.insert(start, end); model[span].fill(true) }
                    1 => { set.remove(start, end); model[span].fill(false) }
                    2 => {
                        let held = bits(&other);
                        set.insert_except(start, end, &other);
                        span.filter(|&n| !held[n]).for_each(|n| model[n] = true);
                    }
                    _ => other.insert(start, end),
                }
                prop_assert_eq!(bits(&set), model.clone());
                prop_assert_eq!(set.bytes(), model.iter().filter(|b| **b).count() as u64);
                prop_assert!(set.iter().zip(set.iter().skip(1)).all(|(a, b)| a.1 < b.0), "ranges touch: {:?}", set);
            }
        }

        #[test]
        fn trims(ranges in proptest::collection::vec((0u64..64, 0u64..64), 1..10), floor in 0u64..64) {
            let mut set = RangeSet::default();
            ranges.iter().for_each(|r| set.insert(r.0, r.1));
            let mut model = bits(&set);
            model[..floor as usize].fill(false);
            set.trim_below(floor);
            prop_assert_eq!(bits(&set), model);
        }
    }
}
