//! The table of metrics. To add one, add its row, and count in the field that the row makes.

use super::{ByDropped, ByReason, Histogram, Metric, MetricKind, Sample, Unit, Value};

/// Makes a record from rows of `kind field: type, unit, name, help`. Rows of one name have a label each behind it.
macro_rules! metrics {
    ($(#[$meta:meta])* $record:ident { $($kind:ident $field:ident: $type:ty, $unit:ident, $name:literal $([$label:literal = $part:literal])?, $help:literal;)* }) => {
        $(#[$meta])*
        pub struct $record {
            $(#[doc = concat!($help, ".")] pub $field: $type,)*
        }

        impl $record {
            /// The descriptions of the metrics, in the order of the fields.
            pub const METRICS: &'static [Metric] = &[$(Metric {
                key: stringify!($field),
                name: $name,
                kind: MetricKind::$kind,
                unit: Unit::$unit,
                help: $help,
                label: <$type as Value>::LABEL,
                part: part!($([$label = $part])?),
            },)*];

            /// Adds the values of another record.
            pub fn add(&mut self, other: &$record) {
                $(self.$field.add(&other.$field);)*
            }

            /// Returns the present values. A metric with a label has one sample for each value of the label that was
            /// counted.
            pub fn samples(&self) -> Vec<Sample> {
                let mut samples = Vec::with_capacity($record::METRICS.len());
                let mut metrics = $record::METRICS.iter();
                $(if let Some(metric) = metrics.next() {
                    self.$field.sample(metric, &mut samples);
                })*
                samples
            }
        }
    };
}

/// Makes the fixed label of a row.
macro_rules! part {
    () => {
        None
    };
    ([$label:literal = $part:literal]) => {
        Some(($label, $part))
    };
}

metrics! {
    /// Counts of a loop since its start.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    Stats {
        Counter opened: u64, Count, "seaprox_connections_opened_total", "Connections accepted or adopted";
        Counter closed: ByReason, Count, "seaprox_connections_closed_total", "Connections that are over, by reason";
        Counter connect_failures: ByReason, Count, "seaprox_connect_failures_total", "Failed connects to dests, by reason";
        Counter bytes_sent: u64, Bytes, "seaprox_bytes_total"["direction" = "sent"], "Bytes delivered to dests";
        Counter bytes_received: u64, Bytes, "seaprox_bytes_total"["direction" = "received"],
            "Bytes received from dests; replies of handlers to sources do not count";
        Histogram connect_duration: Histogram, Seconds, "seaprox_connect_duration_seconds",
            "Time from the request for a dest to its connection, name lookups included";
        Counter lookups: u64, Count, "seaprox_lookups_total", "Names that the workers were asked to look up";
        Counter discoveries: u64, Count, "seaprox_discovery_lookups_total",
            "Lookups of the names and services of lists of targets and servers";
        Counter discovery_failures: u64, Count, "seaprox_discovery_failures_total",
            "Lookups of the names and services of lists that found nothing";
        Counter candidates_left_out: u64, Count, "seaprox_discovery_addresses_left_out_total",
            "Addresses that were left out of a list because it has too many";
        Counter targets_left_out: u64, Count, "seaprox_targets_left_out_total",
            "Targets of a list that were left out because they could not be connected";
        Counter connects_retried: u64, Count, "seaprox_connects_retried_total",
            "Connects to another target of a list after one could not be connected";
        Counter stale: u64, Count, "seaprox_stale_events_total",
            "Events and answers for records that are gone, which are harmless";
        Counter block_waits: u64, Count, "seaprox_buffer_waits_total",
            "Waits of a direction of a connection for a free buffer";
        Counter limit_pauses: u64, Count, "seaprox_limit_pauses_total",
            "Pauses of accepting at the limit of connections";
        Counter descriptor_pauses: u64, Count, "seaprox_descriptor_pauses_total",
            "Pauses of accepting or connecting for lack of descriptors";
        Counter panics: u64, Count, "seaprox_panics_total", "Panics of handlers and callbacks";
        Counter unauthenticated_refused: u64, Count, "seaprox_unauthenticated_refused_total",
            "Connections to listeners for links that were closed at the limit of unauthenticated peers";
        Counter unauthenticated_failed: u64, Count, "seaprox_unauthenticated_failed_total",
            "Connections to listeners for links whose peer did not authenticate";
        Counter invitations_accepted: u64, Count, "seaprox_invitations_accepted_total",
            "Nodes that have joined by an invitation";
        Counter invitations_refused: u64, Count, "seaprox_invitations_refused_total",
            "Peers that have proven to hold an invitation and have not joined: it was used or has expired, or their key was known";
        Counter streams_refused: u64, Count, "seaprox_streams_refused_total",
            "Streams that a peer of a link tried to open and this node refused";
        Counter clients_refused: u64, Count, "seaprox_clients_refused_total",
            "Clients that were closed because their network had reached its limit of connections";
        Counter peer_requests: u64, Count, "seaprox_peer_requests_total",
            "Requests of peers that were processed: to open, to listen and to reset";
        Counter associations_opened: u64, Count, "seaprox_datagram_associations_opened_total",
            "Associations of datagrams (SOCKS5 UDP ASSOCIATE) that were opened";
        Counter flows_opened: u64, Count, "seaprox_datagram_flows_opened_total", "Flows of datagrams that were opened";
        Counter flows_closed: ByReason, Count, "seaprox_datagram_flows_closed_total", "Flows of datagrams that are over, by reason";
        Counter datagrams_sent: u64, Count, "seaprox_datagrams_total"["direction" = "sent"], "Datagrams delivered to targets, or given to links";
        Counter datagrams_received: u64, Count, "seaprox_datagrams_total"["direction" = "received"],
            "Datagrams of targets delivered to clients";
        Counter datagram_bytes_sent: u64, Bytes, "seaprox_datagram_bytes_total"["direction" = "sent"],
            "Bytes of datagrams delivered to targets";
        Counter datagram_bytes_received: u64, Bytes, "seaprox_datagram_bytes_total"["direction" = "received"],
            "Bytes of datagrams of targets delivered to clients";
        Counter datagrams_dropped: ByDropped, Count, "seaprox_datagrams_dropped_total", "Datagrams that were dropped, by reason";
        Counter turns: u64, Count, "seaprox_turns_total", "Turns of the event loop";
    }
}

impl Stats {
    /// Returns the number of connections that are over.
    pub fn closed_total(&self) -> u64 {
        self.closed.iter().sum()
    }
}

metrics! {
    /// The current use of a loop's limited resources.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    Usage {
        Gauge connections: usize, Count, "seaprox_connections_active", "Connections";
        Gauge flows: usize, Count, "seaprox_datagram_flows_active", "Flows of datagrams";
        Gauge associations: usize, Count, "seaprox_datagram_associations_active", "Associations of datagrams (SOCKS5 UDP ASSOCIATE)";
        Gauge sides: usize, Count, "seaprox_sides", "Sides, the attempts of dials included";
        Gauge buffer_bytes: usize, Bytes, "seaprox_buffer_bytes", "Bytes of the blocks that are in use";
        Gauge pipes: usize, Count, "seaprox_pipes", "Open pipes, free ones included";
        Gauge descriptors: usize, Count, "seaprox_descriptors", "Descriptors of sides, listeners and pipes, of flows and associations of datagrams, and of BIND of SOCKS";
    }
}

metrics! {
    /// Counts of the present session of a link.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    LinkStats {
        Counter frames_sent: u64, Count, "seaprox_link_frames_total"["direction" = "sent"], "Frames sent";
        Counter frames_received: u64, Count, "seaprox_link_frames_total"["direction" = "received"], "Frames received";
        Counter bytes_sent: u64, Bytes, "seaprox_link_payload_bytes_total"["direction" = "sent"], "Bytes of payload sent, repetitions included";
        Counter bytes_received: u64, Bytes, "seaprox_link_payload_bytes_total"["direction" = "received"], "Bytes of payload received, repetitions included";
        Counter resent_bytes: u64, Bytes, "seaprox_link_resent_bytes_total",
            "Bytes of payload that were sent again";
        Counter reinjected_bytes: u64, Bytes, "seaprox_link_reinjected_bytes_total",
            "Bytes of payload that were sent on a second subflow without a loss";
        Counter repeated_bytes: u64, Bytes, "seaprox_link_repeated_bytes_total",
            "Received bytes of payload that had arrived before";
        Histogram round_trip: Histogram, Seconds, "seaprox_link_round_trip_seconds",
            "Time from a PING to its PONG, over all subflows";
        Counter resumes: u64, Count, "seaprox_link_resumes_total"["result" = "resumed"],
            "Resumptions of the session after the loss of all its subflows";
        Counter suspicions: u64, Count, "seaprox_link_suspicions_total", "Subflows that became suspect";
        Counter switches: u64, Count, "seaprox_link_switches_total",
            "Subflows that carried and were left, because others deliver sooner";
        Counter late_reinjections: u64, Count, "seaprox_link_late_reinjections_total",
            "Reinjections of the late frames of a subflow";
        Counter quota_waits: u64, Count, "seaprox_link_quota_waits_total",
            "Waits of a stream with credit for its quota, because its reader stood still";
        Counter late_frames: u64, Count, "seaprox_link_late_frames_total", "Frames for streams that are over";
        Counter stray_frames: u64, Count, "seaprox_link_stray_frames_total", "Frames for streams that never existed";
        Counter unopened_given_up: u64, Count, "seaprox_link_unopened_given_up_total",
            "Streams that were aborted because their OPEN did not arrive in time";
        Counter framing_errors: u64, Count, "seaprox_link_framing_errors_total",
            "Invalid frames that were received; each ended a subflow";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::SampleValue;
    use crate::types::reason::Reason;
    use std::collections::HashSet;
    use std::time::Duration;

    /// Returns a record with values that differ from one another.
    fn stats() -> Stats {
        let mut stats = Stats { opened: 3, bytes_sent: 5, turns: 7, ..Stats::default() };
        stats.closed[Reason::SourceFin as usize] = 2;
        stats.connect_duration.observe(Duration::from_millis(3));
        stats
    }

    #[test]
    fn a_sum_adds_every_field() {
        let mut sum = stats();
        sum.add(&stats());
        let double = |sample: &Sample| match sample.value {
            SampleValue::Number(number) => number * 2,
            SampleValue::Histogram(histogram) => histogram.count() * 2,
        };
        let value = |sample: &Sample| match sample.value {
            SampleValue::Number(number) => number,
            SampleValue::Histogram(histogram) => histogram.count(),
        };
        let (sums, ones) = (sum.samples(), stats().samples());
        assert!(ones.iter().any(|sample| sample.metric.kind == MetricKind::Histogram && value(sample) > 0));
        assert_eq!(sums.iter().map(value).collect::<Vec<_>>(), ones.iter().map(double).collect::<Vec<_>>());
    }

    #[test]
    fn a_metric_with_a_label_has_a_sample_for_each_counted_value() {
        let samples = stats().samples();
        let closed: Vec<_> = samples.iter().filter(|sample| sample.metric.key == "closed").collect();
        assert_eq!(closed.len(), 1);
        assert_eq!((closed[0].label, closed[0].value), (Some("source_fin"), SampleValue::Number(2)));
        let turns = samples.last().unwrap();
        assert_eq!((turns.metric.key, turns.label, turns.value), ("turns", None, SampleValue::Number(7)));
    }

    #[test]
    fn names_are_unique_and_end_as_their_kind_and_unit_want() {
        let all: Vec<&Metric> = [Stats::METRICS, Usage::METRICS, LinkStats::METRICS].concat().leak().iter().collect();
        let names: HashSet<_> = all.iter().map(|metric| (metric.name, metric.part)).collect();
        assert_eq!(names.len(), all.len());
        for metric in &all {
            let is_counter = metric.kind == MetricKind::Counter;
            assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
            let base = metric.name.trim_end_matches("_total");
            assert_eq!(base.ends_with("_bytes"), metric.unit == Unit::Bytes, "{}", metric.name);
            assert_eq!(base.ends_with("_seconds"), metric.unit == Unit::Seconds, "{}", metric.name);
            assert!(metric.name.starts_with("seaprox_") && !metric.help.ends_with('.'), "{}", metric.name);
            let label = |metric: &Metric| metric.part.map(|part| part.0);
            let mut others = all.iter().filter(|other| other.name == metric.name && other.part != metric.part);
            assert!(others.all(|other| label(metric).is_some() && label(other) == label(metric)), "{}", metric.name);
        }
    }
}
