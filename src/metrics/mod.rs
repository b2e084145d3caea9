//! Metrics: the counters and gauges of a loop and of a link, each declared once.
//!
//! A row of `table` names a metric with its kind, unit, meaning and label. The row makes the field that the code counts
//! in, its part of the sum over loops, and its samples. Outputs such as the status as JSON and the manual's table are
//! loops over samples, so a new metric is one line in the table and one line where it is counted.

mod histogram;
mod table;

use crate::types::dropped::Dropped;
use crate::types::reason::Reason;

pub use histogram::{BOUNDS_US, Histogram};
pub use table::{LinkStats, Stats, Usage};

/// The description of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name of the field, and the key in the status.
    pub key: &'static str,
    /// The name for monitoring systems: base units, and `_total` on counters.
    pub name: &'static str,
    /// The kind.
    pub kind: MetricKind,
    /// The unit of the value.
    pub unit: Unit,
    /// The meaning, as one sentence without a full stop.
    pub help: &'static str,
    /// The label that tells the values of this metric apart; none if there is one value.
    pub label: Option<&'static str>,
    /// The label, with its value, that tells this metric from others of the same name.
    pub part: Option<(&'static str, &'static str)>,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A sum since the start, which never becomes smaller.
    Counter,
    /// A present value.
    Gauge,
    /// Durations, counted by their length.
    Histogram,
}

/// The unit of a metric's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}

/// One value of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The metric.
    pub metric: &'static Metric,
    /// The value of the metric's label, if it has one.
    pub label: Option<&'static str>,
    /// The value.
    pub value: SampleValue,
}

/// The value of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleValue {
    /// A number, in the unit of the metric.
    Number(u64),
    /// The durations of a histogram.
    Histogram(Histogram),
}

/// The type of a field that a row makes.
trait Value {
    /// The label that tells the numbers of the field apart.
    const LABEL: Option<&'static str> = None;

    /// Adds the value of another loop.
    fn add(&mut self, other: &Self);

    /// Appends the samples of the field.
    fn sample(&self, metric: &'static Metric, samples: &mut Vec<Sample>);
}

/// Counts by the reason of an end or a failure; the index is the position in [`Reason::ALL`].
pub type ByReason = [u64; Reason::ALL.len()];

/// Counts of dropped datagrams by the reason; the index is the position in [`Dropped::ALL`].
pub type ByDropped = [u64; Dropped::ALL.len()];

impl MetricKind {
    /// Returns the word for the kind: `counter`, `gauge` or `histogram`.
    pub const fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        }
    }
}

impl Unit {
    /// Returns the word for the unit; empty for a count.
    pub const fn as_str(self) -> &'static str {
        match self {
            Unit::Count => "",
            Unit::Bytes => "bytes",
            Unit::Seconds => "seconds",
        }
    }
}

impl Value for u64 {
    fn add(&mut self, other: &u64) {
        *self = self.saturating_add(*other);
    }

    fn sample(&self, metric: &'static Metric, samples: &mut Vec<Sample>) {
        samples.push(Sample { metric, label: None, value: SampleValue::Number(*self) });
    }
}

impl Value for usize {
    fn add(&mut self, other: &usize) {
        *self = self.saturating_add(*other);
    }

    fn sample(&self, metric: &'static Metric, samples: &mut Vec<Sample>) {
        samples.push(Sample { metric, label: None, value: SampleValue::Number(*self as u64) });
    }
}

impl Value for ByReason {
    const LABEL: Option<&'static str> = Some("reason");

    fn add(&mut self, other: &ByReason) {
        self.iter_mut().zip(other).for_each(|(mine, theirs)| mine.add(theirs));
    }

    /// Appends the reasons that were counted; the others are left out.
    fn sample(&self, metric: &'static Metric, samples: &mut Vec<Sample>) {
        let counted = Reason::ALL.into_iter().zip(*self).filter(|(_, count)| *count > 0);
        let sample = |(reason, count): (Reason, u64)| Sample {
            metric,
            label: Some(reason.as_str()),
            value: SampleValue::Number(count),
        };
        samples.extend(counted.map(sample));
    }
}

impl Value for ByDropped {
    const LABEL: Option<&'static str> = Some("reason");

    fn add(&mut self, other: &ByDropped) {
        self.iter_mut().zip(other).for_each(|(mine, theirs)| mine.add(theirs));
    }

    /// Appends the reasons that were counted; the others are left out.
    fn sample(&self, metric: &'static Metric, samples: &mut Vec<Sample>) {
        let counted = Dropped::ALL.into_iter().zip(*self).filter(|(_, count)| *count > 0);
        let sample = |(reason, count): (Dropped, u64)| Sample {
            metric,
            label: Some(reason.as_str()),
            value: SampleValue::Number(count),
        };
        samples.extend(counted.map(sample));
    }
}
