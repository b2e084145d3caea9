//! A histogram of durations with fixed bounds: a count for each, and the sum.

use std::time::Duration;

use super::{Metric, Sample, SampleValue, Value};

/// Counts of durations by their length. An observation costs a search among the bounds, and no memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The observations up to each bound and above the bound before it; the last are above all bounds.
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

/// The upper bounds in microseconds, each included.
pub const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

impl Histogram {
    /// Makes a histogram from counts for the bounds of [`BOUNDS_US`] and above, and the sum in microseconds.
    pub fn from_counts(counts: [u64; BOUNDS_US.len() + 1], sum_us: u64) -> Histogram {
        Histogram { counts, sum_us }
    }

    /// Counts a duration.
    pub fn observe(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Returns the sum of two histograms.
    pub fn plus(mut self, other: &Histogram) -> Histogram {
        self.add(other);
        self
    }

    /// Returns the number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all observations.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// Iterates over the upper bounds in seconds, each with the number of its own observations; the last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = BOUNDS_US.iter().map(|us| Duration::from_micros(*us).as_secs_f64());
        bounds.chain(std::iter::once(f64::INFINITY)).zip(self.counts)
    }
}

impl Value for Histogram {
    fn add(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| mine.add(&theirs));
        self.sum_us.add(&other.sum_us);
    }

    fn sample(&self, metric: &'static Metric, samples: &mut Vec<Sample>) {
        samples.push(Sample { metric, label: None, value: SampleValue::Histogram(*self) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_counted_at_the_first_bound_that_is_not_below_it() {
        let mut histogram = Histogram::default();
        for us in [0, 500, 501, 1_000, 10_000_000, 10_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let counted: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(0.0005, 2), (0.001, 2), (10.0, 1), (f64::INFINITY, 1)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, Duration::from_micros(20_002_002)));
    }
}
