//! Families of series: the metrics of one name, each series with its labels and its value.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use seaprox::metrics::{Histogram, Metric, MetricKind, SampleValue};

/// The labels of a series.
pub type Labels = Vec<(&'static str, String)>;

/// All families, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Families {
    families: Vec<Family>,
    /// The place of each family.
    places: BTreeMap<&'static str, usize>,
}

/// The series of one name.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    series: BTreeMap<Labels, Number>,
}

/// The value of a series.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole number.
    Whole(u64),
    /// A fraction.
    Fraction(f64),
    /// A histogram of durations.
    Histogram(Histogram),
}

impl Families {
    /// Returns the family of this name. The first call makes it.
    pub fn family(&mut self, name: &'static str, kind: MetricKind, help: &'static str) -> &mut Family {
        let families = &mut self.families;
        let place = *self.places.entry(name).or_insert_with(|| {
            families.push(Family { name, kind, help, series: BTreeMap::new() });
            families.len() - 1
        });
        &mut self.families[place]
    }

    /// Returns the family of a metric of the table.
    pub fn of_metric(&mut self, metric: &Metric) -> &mut Family {
        self.family(metric.name, metric.kind, metric.help)
    }

    /// Writes all families.
    pub fn write(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.families.iter().filter(|family| !family.series.is_empty()) {
            let (name, kind) = match family.kind {
                // The encoder appends the ending of a counter.
                MetricKind::Counter => (family.name.trim_end_matches("_total"), MetricType::Counter),
                MetricKind::Gauge => (family.name, MetricType::Gauge),
                MetricKind::Histogram => (family.name, MetricType::Histogram),
            };
            let mut series = encoder.encode_descriptor(name, family.help, None, kind)?;
            for (labels, number) in &family.series {
                number.write(family.kind, series.encode_family(labels)?)?;
            }
        }
        Ok(())
    }
}

impl Family {
    /// Adds a series.
    pub fn add(&mut self, labels: Labels, number: Number) {
        self.series.insert(labels, number);
    }

    /// Adds a number to a series, which the first call makes.
    pub fn sum(&mut self, labels: Labels, number: Number) {
        let sum = match (self.series.get(&labels), number) {
            (Some(Number::Whole(before)), Number::Whole(number)) => Number::Whole(before.saturating_add(number)),
            (Some(Number::Histogram(before)), Number::Histogram(number)) => Number::Histogram(before.plus(&number)),
            _ => number,
        };
        self.series.insert(labels, sum);
    }

    /// Sets a series to a fraction, unless it has a greater one.
    pub fn most(&mut self, labels: Labels, number: Number) {
        let is_greater = match (self.series.get(&labels), number) {
            (Some(Number::Fraction(before)), Number::Fraction(number)) => number > *before,
            _ => true,
        };
        if is_greater {
            self.series.insert(labels, number);
        }
    }
}

impl Number {
    fn write(&self, kind: MetricKind, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Number::Whole(number) if kind == MetricKind::Counter => {
                encoder.encode_counter::<NoLabelSet, u64, f64>(number, None)
            }
            // A gauge of this format is a float: whole numbers are exact up to 2^53.
            Number::Whole(number) => encoder.encode_gauge(&(*number as f64)),
            Number::Fraction(number) if kind == MetricKind::Counter => {
                encoder.encode_counter::<NoLabelSet, f64, f64>(number, None)
            }
            Number::Fraction(number) => encoder.encode_gauge(number),
            Number::Histogram(histogram) => {
                let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
                encoder.encode_histogram::<NoLabelSet>(histogram.sum().as_secs_f64(), histogram.count(), &buckets, None)
            }
        }
    }
}

impl From<SampleValue> for Number {
    fn from(value: SampleValue) -> Number {
        match value {
            SampleValue::Number(number) => Number::Whole(number),
            SampleValue::Histogram(histogram) => Number::Histogram(histogram),
        }
    }
}

/// Returns what is left of a sum after one of its parts. A histogram has no parts.
pub fn minus(sum: SampleValue, part: u64) -> SampleValue {
    match sum {
        SampleValue::Number(number) => SampleValue::Number(number.saturating_sub(part)),
        histogram => histogram,
    }
}
