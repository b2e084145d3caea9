//! The status as JSON: the sums of a process, and each connection with its two sides.

use std::time::Duration;

use seaprox::{ConnectionStatus, SideState, SideStatus, Snapshot};
use serde_json::{Value, json};

/// Returns the status of a process without its links and connections.
pub fn process(totals: &Snapshot, loops: usize, workers: &[u64], uptime: Duration) -> Value {
    let (stats, usage, limits) = (&totals.stats, &totals.usage, &totals.limits);
    let closed: serde_json::Map<_, _> =
        totals.closed().map(|(reason, count)| (reason.as_str().to_owned(), json!(count))).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": uptime.as_secs_f64(),
        "threads": loops,
        "workers_done": workers,
        "opened": stats.opened,
        "closed": closed,
        "bytes_sent": stats.bytes_sent,
        "bytes_received": stats.bytes_received,
        "lookups": stats.lookups,
        "stale": stats.stale,
        "block_waits": stats.block_waits,
        "limit_pauses": stats.limit_pauses,
        "descriptor_pauses": stats.descriptor_pauses,
        "panics": stats.panics,
        "usage": {
            "connections": usage.connections, "sides": usage.sides, "buffer_bytes": usage.buffer_bytes,
            "pipes": usage.pipes, "descriptors": usage.descriptors,
        },
        "limits": {
            "connections": limits.connections, "connections_per_source": limits.connections_per_source,
            "buffer_bytes": limits.buffer_bytes, "pipes": limits.pipes,
            "block_bytes": limits.block_bytes, "pipe_bytes": limits.pipe_bytes,
            "handshake_bytes": limits.handshake_bytes, "backlog": limits.backlog, "lookups": limits.lookups,
            "cached_names": limits.cached_names, "addresses_per_name": limits.addresses_per_name,
            "workers": workers.len(), "threads": loops,
        },
    })
}

/// Returns one element of `connections`.
pub fn connection(connection: &ConnectionStatus) -> Value {
    json!({
        "id": connection.id.to_string(),
        "conn": connection.description,
        "listener": connection.listener,
        "stage": connection.stage.as_str(),
        "user": connection.user,
        "age_seconds": connection.age.as_secs_f64(),
        "source": side(&connection.source),
        // A connection has no dest until its client has named a target.
        "dest": connection.dest.as_ref().map_or_else(|| json!({ "side": null, "state": SideState::Idle.as_str() }), side),
    })
}

fn side(side: &SideStatus) -> Value {
    json!({
        "side": side.endpoint, "state": side.state.as_str(), "bytes_in": side.bytes_in, "bytes_out": side.bytes_out,
        "congested": side.congested, "queued": side.queued, "flags": side.flags,
    })
}

/// The start of the connections in the document, its last member. No string before it contains this text, because quotes
/// are escaped in strings.
pub const CONNECTIONS: &str = ",\"connections\":[";
