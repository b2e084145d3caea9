//! Ranges of stream ids that the peer has skipped: it has used a later one, and these have no record yet.
//!
//! A range of any length costs one entry of a map, so a short frame cannot create many records. The number of ids is at
//! most [`OPENS_MAX`](super::config::OPENS_MAX) for a peer with ordered opens, and the limit of streams for any other.

use std::collections::BTreeMap;

/// Half-open ranges of indexes (see [`StreamId::index`](crate::link::wire::ids::StreamId::index)) that neither touch
/// nor overlap.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// The end of each range by its start.
    ranges: BTreeMap<u32, u32>,
    /// Σ of the lengths of the ranges.
    ids: u32,
}

impl Gaps {
    /// Adds a range above all others.
    pub(super) fn push(&mut self, start: u32, end: u32) {
        debug_assert!(self.ranges.last_key_value().is_none_or(|(_, last)| *last < start), "ranges rise");
        if start < end {
            self.ranges.insert(start, end);
            self.ids += end - start;
        }
    }

    /// Removes one index. Returns true if it was in a range.
    pub(super) fn remove(&mut self, index: u32) -> bool {
        let Some((start, end)) = self.around(index) else { return false };
        self.ranges.remove(&start);
        if start < index {
            self.ranges.insert(start, index);
        }
        if index + 1 < end {
            self.ranges.insert(index + 1, end);
        }
        self.ids -= 1;
        true
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.around(index).is_some()
    }

    /// Returns the number of ids in all ranges.
    pub(super) const fn ids(&self) -> u32 {
        self.ids
    }

    /// Returns the range that contains an index.
    fn around(&self, index: u32) -> Option<(u32, u32)> {
        let (start, end) = self.ranges.range(..=index).next_back()?;
        (index < *end).then_some((*start, *end))
    }

    pub(super) fn check(&self) {
        let ids: u32 = self.ranges.iter().map(|(start, end)| end - start).sum();
        assert_eq!(ids, self.ids, "ids in gaps");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The model is one flag for each index.
        #[test]
        fn agrees_with_a_naive_model(steps in proptest::collection::vec((0u32..30, any::<bool>()), 1..80)) {
            let (mut gaps, mut model, mut next) = (Gaps::default(), std::collections::BTreeSet::new(), 0u32);
            for (number, grows) in steps {
                if grows {
                    gaps.push(next, next + number);
                    model.extend(next..next + number);
                    next += number + 1;
                } else if next > 0 {
                    let index = number * 7 % next;
                    prop_assert_eq!(gaps.contains(index), model.contains(&index));
                    prop_assert_eq!(gaps.remove(index), model.remove(&index));
                }
                gaps.check();
                prop_assert_eq!(gaps.ids() as usize, model.len());
            }
            prop_assert!((0..next).all(|index| gaps.contains(index) == model.contains(&index)));
        }
    }
}
