//! The metrics of a process in the text format of Prometheus (version 0.0.4).
//!
//! One snapshot of all loops becomes families of series: the rows of the library's table of metrics, with a label for the
//! listener or the link, and gauges of states. A label never holds an address or a user of a client, but the name of a link
//! may be an address, or that of a key. A series without the label `listener` has what no open listener counts: streams of
//! peers, adopted sockets, and listeners that are closed.

mod family;
mod process;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use seaprox::metrics::{Metric, MetricKind, Usage};
use seaprox::node::{ForwardStatus, LinkStatus, PathFigures};
use seaprox::{ForwardState, LinkState, ListenerStatus, Reason, Snapshot, Stage, TargetState};

use super::reporter::StagesByName;
use family::{Families, Number};

/// The type of the text, for the header of a response.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// The state of a process at one moment, over all its loops.
pub struct Scrape<'a> {
    /// The sums.
    pub totals: &'a Snapshot,
    /// The listeners for clients.
    pub listeners: &'a [ListenerStatus],
    /// The links.
    pub links: &'a [LinkStatus],
    /// The forwards.
    pub forwards: &'a [ForwardStatus],
    /// The number of connections at each stage, by the name of their listener; an empty name if they have none.
    pub stages: &'a StagesByName,
}

/// Returns the metrics as text.
///
/// # Errors
/// Fails if a family cannot be encoded.
pub fn text(scrape: &Scrape<'_>) -> Result<String, fmt::Error> {
    let mut families = Families::default();
    build_info(&mut families);
    process::add(&mut families);
    add_totals(&mut families, scrape);
    add_stages(&mut families, scrape);
    add_limits(&mut families, scrape.totals);
    scrape.links.iter().for_each(|link| add_link(&mut families, link));
    scrape.forwards.iter().for_each(|forward| add_forward(&mut families, forward));
    let mut registry = Registry::default();
    registry.register_collector(Box::new(families));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Families {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.write(encoder)
    }
}

fn build_info(families: &mut Families) {
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    let family = families.family("seaprox_build_info", MetricKind::Gauge, "The version of the running binary");
    family.add(labels, Number::Whole(1));
}

/// Adds the sums of the process, those that each listener counts with its name.
fn add_totals(families: &mut Families, scrape: &Scrape<'_>) {
    for sample in scrape.totals.stats.samples() {
        let counted = listener_value(sample.metric);
        let mut left = sample.value;
        for listener in scrape.listeners {
            let Some(counted) = counted.and_then(|count| count(listener, sample.label)) else { continue };
            left = family::minus(left, counted);
            let labels = [("listener", listener.name.clone())].into_iter().chain(of(sample.metric, sample.label));
            families.of_metric(sample.metric).sum(labels.collect(), Number::Whole(counted));
        }
        families.of_metric(sample.metric).sum(of(sample.metric, sample.label).collect(), left.into());
    }
    for sample in scrape.totals.usage.samples().into_iter().filter(|sample| sample.metric.key != "connections") {
        families.of_metric(sample.metric).add(vec![], sample.value.into());
    }
    for listener in scrape.listeners {
        let of_listener = || vec![("listener", listener.name.clone())];
        let refused = families.family("seaprox_listener_refused_total", MetricKind::Counter, REFUSED);
        refused.sum(of_listener(), Number::Whole(listener.refused));
        let failed = families.family("seaprox_listener_failed_total", MetricKind::Counter, FAILED);
        failed.sum(of_listener(), Number::Whole(listener.failed));
        for state in TargetState::ALL.into_iter().filter(|_| !listener.targets.is_empty()) {
            let count = listener.targets.iter().filter(|target| target.state == state).count();
            let labels = of_listener().into_iter().chain([("state", state.as_str().to_owned())]).collect();
            families.family("seaprox_targets", MetricKind::Gauge, TARGETS).add(labels, Number::Whole(count as u64));
        }
    }
}

/// A count of a listener, for a value of the label of its metric.
type ListenerCount = fn(&ListenerStatus, Option<&'static str>) -> Option<u64>;

/// Returns the count of a listener that a metric of the process is the sum of.
fn listener_value(metric: &Metric) -> Option<ListenerCount> {
    match metric.key {
        "opened" => Some(|listener, _| Some(listener.accepted.saturating_sub(listener.refused))),
        "closed" => Some(|listener, reason| {
            let index = Reason::ALL.iter().position(|it| Some(it.as_str()) == reason)?;
            Some(listener.closed[index]).filter(|count| *count > 0)
        }),
        "bytes_sent" => Some(|listener, _| Some(listener.bytes.0)),
        "bytes_received" => Some(|listener, _| Some(listener.bytes.1)),
        _ => None,
    }
}

/// Adds the connections of each listener at each stage.
fn add_stages(families: &mut Families, scrape: &Scrape<'_>) {
    let Some(metric) = Usage::METRICS.iter().find(|metric| metric.key == "connections") else { return };
    let names = scrape.listeners.iter().map(|listener| listener.name.as_str()).chain(std::iter::once(""));
    for name in names {
        for stage in STAGES {
            let count = scrape.stages.get(&(name.to_owned(), stage)).copied().unwrap_or(0);
            let labels = listener_label(name).chain(std::iter::once(("state", stage.as_str().to_owned())));
            families.of_metric(metric).sum(labels.collect(), Number::Whole(count as u64));
        }
    }
}

fn listener_label(name: &str) -> impl Iterator<Item = (&'static str, String)> {
    let label = (!name.is_empty()).then(|| ("listener", name.to_owned()));
    label.into_iter()
}

fn add_limits(families: &mut Families, totals: &Snapshot) {
    let limits = &totals.limits;
    for (limit, value) in [
        ("connections", limits.connections),
        ("connections_per_source", limits.connections_per_source),
        ("buffer_bytes", limits.buffer_bytes),
        ("pipes", limits.pipes),
    ] {
        let labels = vec![("limit", limit.to_owned())];
        families.family("seaprox_limit", MetricKind::Gauge, LIMIT).add(labels, Number::Whole(value as u64));
    }
}

/// Adds a link. Links of one name, such as those that a key has dialed twice, are added up.
fn add_link(families: &mut Families, link: &LinkStatus) {
    let name = || vec![("link", link.name.clone())];
    let up = u64::from(link.state == LinkState::Up);
    families.family("seaprox_link_up", MetricKind::Gauge, LINK_UP).sum(name(), Number::Whole(up));
    let streams = families.family("seaprox_link_streams_active", MetricKind::Gauge, "Streams of the link");
    streams.sum(name(), Number::Whole(link.streams as u64));
    for (part, bytes) in [("sent", link.memory.0), ("received", link.memory.1)] {
        let labels = [name(), vec![("direction", part.to_owned())]].concat();
        families.family("seaprox_link_memory_bytes", MetricKind::Gauge, MEMORY).sum(labels, Number::Whole(bytes));
    }
    let subflow_states = link.subflows.iter().map(|subflow| subflow.state.as_str());
    let others = link.missing.iter().map(|_| "missing").chain(link.blocked.iter().map(|_| "blocked"));
    for state in subflow_states.chain(others) {
        let labels = [name(), vec![("state", state.to_owned())]].concat();
        families.family("seaprox_link_subflows", MetricKind::Gauge, SUBFLOWS).sum(labels, Number::Whole(1));
    }
    for subflow in &link.subflows {
        let Some(number) = subflow.number else { continue };
        let labels = || [name(), vec![("subflow", number.to_string())]].concat();
        if !subflow.rtt.is_zero() {
            let rtt = families.family("seaprox_link_rtt_seconds", MetricKind::Gauge, RTT);
            rtt.most(labels(), Number::Fraction(subflow.rtt.as_secs_f64()));
        }
        if let Some(carrier) = subflow.carrier {
            let role = if subflow.is_backup { "backup" } else { "active" };
            let labels = [labels(), vec![("carrier", carrier.to_owned()), ("role", role.to_owned())]].concat();
            families.family("seaprox_link_subflow_info", MetricKind::Gauge, INFO).most(labels, Number::Whole(1));
        }
        if let Some(PathFigures { window_bytes, packets_lost, mtu_bytes }) = subflow.figures {
            let window = families.family("seaprox_link_congestion_window_bytes", MetricKind::Gauge, WINDOW);
            window.sum(labels(), Number::Whole(window_bytes));
            let lost = families.family("seaprox_link_packets_lost_total", MetricKind::Counter, LOST);
            lost.sum(labels(), Number::Whole(packets_lost));
            let mtu = families.family("seaprox_link_mtu_bytes", MetricKind::Gauge, MTU);
            mtu.most(labels(), Number::Whole(mtu_bytes.into()));
        }
        for (direction, bytes) in [("sent", subflow.bytes.0), ("received", subflow.bytes.1)] {
            let labels = [labels(), vec![("direction", direction.to_owned())]].concat();
            families.family("seaprox_link_bytes_total", MetricKind::Counter, WIRE).sum(labels, Number::Whole(bytes));
        }
    }
    for sample in link.stats.samples() {
        let labels = name().into_iter().chain(of(sample.metric, sample.label)).collect();
        families.of_metric(sample.metric).sum(labels, sample.value.into());
    }
}

/// Adds a forward. Forwards of one name are added up.
fn add_forward(families: &mut Families, forward: &ForwardStatus) {
    let name = || vec![("forward", forward.name.clone())];
    let up = u64::from(forward.state == ForwardState::Listening);
    families.family("seaprox_forward_up", MetricKind::Gauge, FORWARD_UP).sum(name(), Number::Whole(up));
    let mut add = |metric, kind, help, value| families.family(metric, kind, help).sum(name(), Number::Whole(value));
    add("seaprox_forward_connections_opened_total", MetricKind::Counter, FORWARD_OPENED, forward.opened);
    add("seaprox_forward_connections_active", MetricKind::Gauge, FORWARD_ACTIVE, forward.active as u64);
    add("seaprox_forward_refused_total", MetricKind::Counter, FORWARD_REFUSED, forward.refused);
    for (direction, bytes) in [("sent", forward.bytes.0), ("received", forward.bytes.1)] {
        let labels = [name(), vec![("direction", direction.to_owned())]].concat();
        families
            .family("seaprox_forward_bytes_total", MetricKind::Counter, FORWARD_BYTES)
            .sum(labels, Number::Whole(bytes));
    }
}

/// Returns the labels that a row of the table gives a sample: that which tells its parts apart, and that of the sample.
fn of(metric: &Metric, label: Option<&'static str>) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let part = metric.part.map(|(name, value)| (name, value.to_owned()));
    let own = metric.label.zip(label).map(|(name, value)| (name, value.to_owned()));
    part.into_iter().chain(own)
}

/// The metrics that stand in no row of the table: name, kind, labels and meaning, for the manual.
#[cfg_attr(not(test), expect(dead_code, reason = "the tests compare it with the text and the manual"))]
pub const OTHERS: &[(&str, MetricKind, &str, &str)] = &[
    ("seaprox_build_info", MetricKind::Gauge, "version", "The version of the running binary"),
    ("seaprox_limit", MetricKind::Gauge, "limit", LIMIT),
    ("seaprox_listener_refused_total", MetricKind::Counter, "listener", REFUSED),
    ("seaprox_listener_failed_total", MetricKind::Counter, "listener", FAILED),
    ("seaprox_targets", MetricKind::Gauge, "listener, state", TARGETS),
    ("seaprox_link_up", MetricKind::Gauge, "link", LINK_UP),
    ("seaprox_link_streams_active", MetricKind::Gauge, "link", "Streams of the link"),
    ("seaprox_link_memory_bytes", MetricKind::Gauge, "link, direction", MEMORY),
    ("seaprox_link_subflows", MetricKind::Gauge, "link, state", SUBFLOWS),
    ("seaprox_link_rtt_seconds", MetricKind::Gauge, "link, subflow", RTT),
    ("seaprox_link_subflow_info", MetricKind::Gauge, "link, subflow, carrier, role", INFO),
    ("seaprox_link_congestion_window_bytes", MetricKind::Gauge, "link, subflow", WINDOW),
    ("seaprox_link_packets_lost_total", MetricKind::Counter, "link, subflow", LOST),
    ("seaprox_link_mtu_bytes", MetricKind::Gauge, "link, subflow", MTU),
    ("seaprox_link_bytes_total", MetricKind::Counter, "link, subflow, direction", WIRE),
    ("seaprox_forward_up", MetricKind::Gauge, "forward", FORWARD_UP),
    ("seaprox_forward_connections_opened_total", MetricKind::Counter, "forward", FORWARD_OPENED),
    ("seaprox_forward_connections_active", MetricKind::Gauge, "forward", FORWARD_ACTIVE),
    ("seaprox_forward_refused_total", MetricKind::Counter, "forward", FORWARD_REFUSED),
    ("seaprox_forward_bytes_total", MetricKind::Counter, "forward, direction", FORWARD_BYTES),
];

const REFUSED: &str =
    "Accepted clients that were closed at once: at the limit of their network, or because of an error";
const FAILED: &str = "Connections that failed before a byte was relayed, because of a peer or a rule";
const TARGETS: &str = "Targets that the listener balances its clients among, by their state";
const LIMIT: &str = "The limits of the process";
const LINK_UP: &str = "1 if the session of the link has a subflow; several links of one name are added up";
const MEMORY: &str = "Memory for data that the peer has not acknowledged (sent), and that was not read (received)";
const SUBFLOWS: &str = "Subflows of the link by their state; those that are not up are missing, or blocked if they are QUIC beside a path's TCP";
const RTT: &str = "Round-trip time of the subflow";
const INFO: &str =
    "1 for each subflow, with the transport of its connection, and if it carries data (active) or waits (backup)";
const WINDOW: &str = "Congestion window of the subflow, over TCP on Linux and over QUIC";
const LOST: &str = "Packets of the subflow that were taken for lost and sent again, over TCP on Linux and over QUIC";
const MTU: &str = "Longest packet of the path of the subflow: of IP over TCP, and the payload of UDP over QUIC";
const WIRE: &str = "Bytes of the subflow on the wire, TLS included";
const FORWARD_UP: &str = "1 if the forward listens; several forwards of one name are added up";
const FORWARD_OPENED: &str = "Connections to the forward";
const FORWARD_ACTIVE: &str = "Connections of the forward that are not over";
const FORWARD_REFUSED: &str = "Connections of the forward that were refused, or whose dest could not be reached";
const FORWARD_BYTES: &str = "Bytes of the forward's connections, from the clients (sent) and to them (received)";

const STAGES: [Stage; 5] = [Stage::Handshake, Stage::Connecting, Stage::Established, Stage::KeepAlive, Stage::Closing];

#[cfg(test)]
mod tests;
