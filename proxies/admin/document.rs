//! The status as JSON: the sums of a process, and each connection with its two sides.

use std::time::Duration;

use seaprox::metrics::{Metric, Sample, SampleValue, Stats, Usage};
use seaprox::{ConnectionStatus, FlowStatus, SideState, SideStatus, Snapshot};
use serde_json::{Value, json};

/// Returns the status of a process without its links and connections.
pub fn process(totals: &Snapshot, loops: usize, workers: &[u64], uptime: Duration) -> Value {
    let limits = &totals.limits;
    let mut status = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": uptime.as_secs_f64(),
        "threads": loops,
        "workers_done": workers,
        "usage": metrics(Usage::METRICS, &totals.usage.samples()),
        "limits": {
            "connections": limits.connections, "connections_per_source": limits.connections_per_source,
            "flows": limits.flows, "flows_per_source": limits.flows_per_source,
            "buffer_bytes": limits.buffer_bytes, "pipes": limits.pipes,
            "block_bytes": limits.block_bytes, "pipe_bytes": limits.pipe_bytes,
            "handshake_bytes": limits.handshake_bytes, "backlog": limits.backlog, "lookups": limits.lookups,
            "cached_names": limits.cached_names, "addresses_per_name": limits.addresses_per_name,
            "workers": workers.len(), "threads": loops,
        },
    });
    add_metrics(&mut status, Stats::METRICS, &totals.stats.samples());
    status
}

/// Adds metrics to an object: a number each, or an object with a number for each value of the label.
pub fn add_metrics(object: &mut Value, metrics: &[Metric], samples: &[Sample]) {
    // A metric with a label has no sample before anything was counted.
    metrics.iter().filter(|metric| metric.label.is_some()).for_each(|metric| object[metric.key] = json!({}));
    for Sample { metric, label, value } in samples {
        match label {
            Some(label) => object[metric.key][label] = number(value),
            None => object[metric.key] = number(value),
        }
    }
}

/// Returns a number as such, and a histogram as its count, its sum, and the count up to each bound.
fn number(value: &SampleValue) -> Value {
    match value {
        SampleValue::Number(number) => json!(number),
        SampleValue::Histogram(histogram) => {
            let mut up_to = 0;
            let buckets = histogram.buckets().filter(|(bound, _)| bound.is_finite()).map(|(bound, count)| {
                up_to += count;
                (bound.to_string(), json!(up_to))
            });
            let buckets: serde_json::Map<String, Value> = buckets.collect();
            json!({ "count": histogram.count(), "sum_seconds": histogram.sum().as_secs_f64(), "buckets": buckets })
        }
    }
}

fn metrics(metrics: &[Metric], samples: &[Sample]) -> Value {
    let mut object = json!({});
    add_metrics(&mut object, metrics, samples);
    object
}

/// Returns one element of `connections`. `thread` is the number of its loop, because each loop has ids of its own.
pub fn connection(connection: &ConnectionStatus, thread: usize) -> Value {
    json!({
        "id": connection.id.to_string(),
        "thread": thread,
        "conn": connection.description,
        "listener": connection.listener,
        "stage": connection.stage.as_str(),
        "user": connection.user,
        "client": connection.client,
        "age_seconds": connection.age.as_secs_f64(),
        "source": side(&connection.source),
        // A connection has no dest until its client has named a target.
        "dest": connection.dest.as_ref().map_or_else(|| json!({ "side": null, "state": SideState::Idle.as_str() }), side),
    })
}

/// Returns one element of `flows`.
pub fn flow(flow: &FlowStatus, thread: usize) -> Value {
    json!({
        "id": flow.id.to_string(),
        "thread": thread,
        "conn": flow.description,
        "listener": flow.listener,
        "user": flow.user,
        "client": flow.client,
        "age_seconds": flow.age.as_secs_f64(),
        "state": if flow.is_answered { "answered" } else { "waiting" },
        "dialled": flow.dialled,
        "datagrams_sent": flow.datagrams.0, "datagrams_received": flow.datagrams.1,
        "bytes_sent": flow.bytes.0, "bytes_received": flow.bytes.1,
        "dropped": flow.dropped,
    })
}

fn side(side: &SideStatus) -> Value {
    json!({
        "side": side.endpoint, "state": side.state.as_str(), "bytes_in": side.bytes_in, "bytes_out": side.bytes_out,
        "congested": side.congested, "queued": side.queued, "flags": side.flags,
    })
}
