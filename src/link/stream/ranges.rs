//! A set of disjoint, sorted byte ranges of a stream: bytes acknowledged out of order, or bytes to retransmit.
//!
//! The frames that a session may have outstanding limit the number of ranges, so a sorted array is enough. In the usual
//! case, in order, each operation touches only the first or the last element.

use std::collections::VecDeque;

/// Half-open ranges `start..end` in rising order that neither touch nor overlap. The sets of an idle stream are two pointers.
#[derive(Clone, Debug, Default)]
pub(in crate::link) struct RangeSet {
    owned: Option<Box<Ranges>>,
}

type Ranges = VecDeque<(u64, u64)>;

/// The ranges of a set that owns no memory.
static NONE: Ranges = Ranges::new();

impl PartialEq for RangeSet {
    fn eq(&self, other: &RangeSet) -> bool {
        self.ranges() == other.ranges()
    }
}

impl RangeSet {
    pub(in crate::link) fn is_empty(&self) -> bool {
        self.ranges().is_empty()
    }

    /// Returns the number of ranges.
    pub(in crate::link) fn count(&self) -> usize {
        self.ranges().len()
    }

    /// Returns the lowest range.
    pub(in crate::link) fn first(&self) -> Option<(u64, u64)> {
        self.ranges().front().copied()
    }

    pub(in crate::link) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges().iter().copied()
    }

    pub(in crate::link) fn clear(&mut self) {
        self.owned.as_mut().into_iter().for_each(|ranges| ranges.clear());
    }

    /// Frees the memory if the set is empty.
    pub(in crate::link) fn release(&mut self) {
        if self.is_empty() {
            self.owned = None;
        }
    }

    /// Adds `start..end` and merges the ranges that it touches.
    pub(in crate::link) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let ranges = self.owned.get_or_insert_default();
        let from = ranges.partition_point(|&(_, e)| e < start);
        let to = ranges.partition_point(|&(s, _)| s <= end);
        if from >= to {
            ranges.insert(from, (start, end));
            return;
        }
        let low = ranges.get(from).map_or(start, |r| r.0.min(start));
        let high = ranges.get(to - 1).map_or(end, |r| r.1.max(end));
        replace(ranges, from, to, &[(low, high)]);
    }

    /// Removes `start..end` and splits the ranges that it cuts.
    pub(in crate::link) fn remove(&mut self, start: u64, end: u64) {
        let Some(ranges) = self.owned.as_mut().filter(|_| start < end) else { return };
        let from = ranges.partition_point(|&(_, e)| e <= start);
        let to = ranges.partition_point(|&(s, _)| s < end);
        if from >= to {
            return;
        }
        let left = ranges.get(from).map(|r| (r.0, start)).filter(|r| r.0 < r.1);
        let right = ranges.get(to - 1).map(|r| (end, r.1)).filter(|r| r.0 < r.1);
        match (left, right) {
            (Some(l), Some(r)) => replace(ranges, from, to, &[l, r]),
            (Some(keep), None) | (None, Some(keep)) => replace(ranges, from, to, &[keep]),
            (None, None) => replace(ranges, from, to, &[]),
        }
    }

    /// Adds the parts of `start..end` that are not in `except`.
    pub(in crate::link) fn insert_except(&mut self, start: u64, end: u64, except: &RangeSet) {
        let mut at = start;
        let except = except.ranges();
        let skip = except.partition_point(|&(_, e)| e <= start);
        for &(s, e) in except.range(skip..) {
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
        let Some(ranges) = &mut self.owned else { return };
        while let Some(first) = ranges.front_mut() {
            if first.1 <= floor {
                ranges.pop_front();
                continue;
            }
            first.0 = first.0.max(floor);
            break;
        }
    }

    /// Returns true if all of `start..end` is in the set.
    pub(in crate::link) fn contains(&self, start: u64, end: u64) -> bool {
        let ranges = self.ranges();
        let at = ranges.partition_point(|&(_, e)| e <= start);
        start >= end || ranges.get(at).is_some_and(|r| r.0 <= start && end <= r.1)
    }

    /// Returns the number of bytes in the set.
    #[cfg(test)]
    pub(in crate::link) fn bytes(&self) -> u64 {
        self.iter().map(|(start, end)| end - start).sum()
    }

    fn ranges(&self) -> &Ranges {
        self.owned.as_deref().unwrap_or(&NONE)
    }
}

/// Replaces the ranges `from..to`. The usual case, one for one, moves nothing.
fn replace(ranges: &mut Ranges, from: usize, to: usize, with: &[(u64, u64)]) {
    if let (1, &[one]) = (to - from, with) {
        if let Some(slot) = ranges.get_mut(from) {
            *slot = one;
        }
        return;
    }
    ranges.drain(from..to);
    for (n, &range) in with.iter().enumerate() {
        ranges.insert(from + n, range);
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
