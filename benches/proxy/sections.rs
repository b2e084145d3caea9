//! The list of measurements: each section is one trial, the peers that it compares, and the columns of its table.

use std::io;

use crate::ground::Ground;
use crate::measure::{BUSY, MACHINE_BUSY, OTHERS, Values};
use crate::trials::{self, Subject};

pub struct Section {
    pub name: &'static str,
    /// The name by which `--only` selects the section; several sections can share it.
    pub group: &'static str,
    pub title: &'static str,
    pub peers: &'static [&'static str],
    pub metrics: &'static [Metric],
    /// Pairs of peers: the values of the first are divided by those of the second, round by round.
    pub ratios: &'static [(&'static str, &'static str)],
    pub rounds_max: usize,
    /// True if each sample gets a newly started proxy.
    pub fresh: bool,
    /// True if the load drives the proxy as hard as it can. A proxy that is not busy then was not the limit.
    pub saturates: bool,
    /// True if the section is also measured with nothing tied to a processor.
    pub free: bool,
    pub trial: fn(&Ground, &Subject) -> io::Result<Values>,
}

/// One value of a sample as a column.
#[derive(Clone, Copy)]
pub struct Metric {
    pub key: &'static str,
    pub title: &'static str,
    pub decimals: usize,
}

pub const fn metric(key: &'static str, title: &'static str, decimals: usize) -> Metric {
    Metric { key, title, decimals }
}

pub const PROXY_BUSY: Metric = metric(BUSY, "proxy busy %", 0);
pub const OTHERS_SHARE: Metric = metric(OTHERS, "others %", 0);

pub const MACHINE_EACH: Metric = metric(trials::MACHINE_US_EACH, "machine us each", 1);

pub const BULK: &[Metric] = &[
    metric(trials::GBIT_PER_S, "Gbit/s", 2),
    metric(trials::CPU_S_PER_GIB, "CPU s/GiB", 4),
    metric(trials::MACHINE_S_PER_GIB, "machine s/GiB", 3),
    PROXY_BUSY,
    OTHERS_SHARE,
];
pub const CONNECTIONS: &[Metric] = &[
    metric(trials::PER_S, "connections/s", 0),
    metric(trials::CPU_US_EACH, "CPU us each", 1),
    MACHINE_EACH,
    PROXY_BUSY,
    OTHERS_SHARE,
];
pub const REQUESTS: &[Metric] = &[
    metric(trials::PER_S, "requests/s", 0),
    metric(trials::CPU_US_EACH, "CPU us each", 2),
    MACHINE_EACH,
    PROXY_BUSY,
    OTHERS_SHARE,
];
pub const PING: &[Metric] = &[
    metric(trials::P50_US, "p50 us", 1),
    metric(trials::P99_US, "p99 us", 1),
    metric(trials::CPU_US_EACH, "CPU us each", 1),
    MACHINE_EACH,
    OTHERS_SHARE,
];
pub const PING_BESIDE: &[Metric] = &[
    metric(trials::P50_US, "p50 us", 0),
    metric(trials::P99_US, "p99 us", 0),
    metric(trials::P999_US, "p99.9 us", 0),
    metric(trials::GBIT_PER_S, "bulk Gbit/s", 2),
    PROXY_BUSY,
    metric(MACHINE_BUSY, "machine busy %", 0),
    OTHERS_SHARE,
];
pub const IDLE: &[Metric] = &[
    metric(trials::MEMORY_EACH, "private B each", 0),
    metric(trials::MEMORY_TOTAL, "MiB total", 1),
    metric(trials::DESCRIPTORS_EACH, "fds each", 2),
    metric(trials::EVENT_FEW, "CPU us/ping at 10", 1),
    metric(trials::EVENT_MANY, "at all", 1),
];

const FORWARDERS: &[&str] = &[
    "direct",
    "floor",
    "seaprox",
    "build-1",
    "build-2",
    "build-3",
    "haproxy",
    "haproxy-latest",
    "nginx",
    "rinetd",
    "socat",
];
const SERIOUS: &[&str] =
    &["direct", "floor", "seaprox", "build-1", "build-2", "build-3", "haproxy", "haproxy-latest", "nginx"];
const HELD: &[&str] = &["seaprox", "build-1", "build-2", "build-3", "haproxy", "haproxy-latest", "nginx"];
const SOCKS: &[&str] = &["seaprox", "seaprox-socks", "microsocks", "danted"];
const HTTP: &[&str] = &["seaprox", "seaprox-http", "tinyproxy"];
const THREADS: &[&str] = &["seaprox-t1", "seaprox-t2"];
const SCRAPED: &[&str] = &["seaprox", "seaprox-admin"];
const COPY: &[&str] = &["seaprox", "seaprox-copy", "haproxy"];

const TO_HAPROXY: &[(&str, &str)] = &[
    ("seaprox", "haproxy"),
    ("seaprox", "haproxy-latest"),
    ("seaprox", "floor"),
    ("build-1", "haproxy"),
    ("build-2", "haproxy"),
    ("build-3", "haproxy"),
    ("build-1", "seaprox"),
    ("build-2", "seaprox"),
    ("build-3", "seaprox"),
];
const TO_SOCKS: &[(&str, &str)] =
    &[("seaprox-socks", "seaprox"), ("seaprox-socks", "microsocks"), ("seaprox-socks", "danted")];
const TO_HTTP: &[(&str, &str)] = &[("seaprox-http", "seaprox"), ("seaprox-http", "tinyproxy")];
const TO_ONE: &[(&str, &str)] = &[("seaprox-t2", "seaprox-t1")];
const TO_UNSCRAPED: &[(&str, &str)] = &[("seaprox-admin", "seaprox")];
const TO_SPLICE: &[(&str, &str)] = &[("seaprox-copy", "seaprox"), ("seaprox-copy", "haproxy")];

const MANY: usize = usize::MAX;

/// The usual section: forwarders, divided by haproxy, driven as hard as possible.
pub const USUAL: Section = Section {
    name: "",
    group: "",
    title: "",
    peers: FORWARDERS,
    metrics: BULK,
    ratios: TO_HAPROXY,
    rounds_max: MANY,
    fresh: false,
    saturates: true,
    free: false,
    trial: trials::bulk_1,
};

const SCRAPED_ONES: Section = Section { peers: SCRAPED, ratios: TO_UNSCRAPED, ..USUAL };

pub const fn named(name: &'static str, group: &'static str, title: &'static str, usual: Section) -> Section {
    Section { name, group, title, ..usual }
}

pub static SECTIONS: [Section; 18] = [
    named("bulk1", "bulk1", "one bulk stream", USUAL),
    named("bulk8", "bulk8", "eight bulk streams", Section { trial: trials::bulk_8, ..USUAL }),
    named(
        "copy",
        "copy",
        "one bulk stream: seaprox told not to splice",
        Section { peers: COPY, ratios: TO_SPLICE, ..USUAL },
    ),
    named(
        "conn",
        "conn",
        "new connections: connect, 32 bytes each way, close; 32 at a time",
        Section { metrics: CONNECTIONS, trial: trials::connections, ..USUAL },
    ),
    named(
        "keepalive",
        "keepalive",
        "HTTP requests on 64 connections that stay open",
        Section { metrics: REQUESTS, trial: trials::requests, ..USUAL },
    ),
    named(
        "wrk",
        "wrk",
        "the same requests from wrk",
        Section { peers: SERIOUS, metrics: REQUESTS, rounds_max: 3, trial: trials::wrk, ..USUAL },
    ),
    named(
        "ping",
        "ping",
        "64 bytes forth and back, nothing else running",
        Section { metrics: PING, saturates: false, trial: trials::ping, ..USUAL },
    ),
    named(
        "pingbulk",
        "pingbulk",
        "64 bytes forth and back beside one bulk stream",
        Section { metrics: PING_BESIDE, saturates: false, trial: trials::ping_beside_bulk, ..USUAL },
    ),
    named(
        "idle",
        "idle",
        "idle connections",
        Section {
            peers: HELD,
            metrics: IDLE,
            rounds_max: 3,
            fresh: true,
            saturates: false,
            trial: trials::idle,
            ..USUAL
        },
    ),
    named(
        "socks-conn",
        "socks",
        "SOCKS5: new connections",
        Section { peers: SOCKS, metrics: CONNECTIONS, ratios: TO_SOCKS, trial: trials::connections, ..USUAL },
    ),
    named("socks-bulk", "socks", "SOCKS5: one bulk stream", Section { peers: SOCKS, ratios: TO_SOCKS, ..USUAL }),
    named(
        "http-conn",
        "http",
        "HTTP CONNECT: new connections",
        Section { peers: HTTP, metrics: CONNECTIONS, ratios: TO_HTTP, trial: trials::connections, ..USUAL },
    ),
    named("http-bulk", "http", "HTTP CONNECT: one bulk stream", Section { peers: HTTP, ratios: TO_HTTP, ..USUAL }),
    named(
        "threads-conn",
        "threads",
        "one and two threads, not tied to processors: new connections",
        Section { peers: THREADS, metrics: CONNECTIONS, ratios: TO_ONE, trial: trials::connections, ..USUAL },
    ),
    named(
        "threads-keepalive",
        "threads",
        "one and two threads, not tied to processors: HTTP requests",
        Section { peers: THREADS, metrics: REQUESTS, ratios: TO_ONE, trial: trials::requests, ..USUAL },
    ),
    named(
        "admin-bulk",
        "admin",
        "one bulk stream, while /metrics and /status are asked for once a second",
        Section { trial: trials::scraped_bulk, ..SCRAPED_ONES },
    ),
    named(
        "admin-conn",
        "admin",
        "new connections, while /metrics and /status are asked for once a second",
        Section { metrics: CONNECTIONS, trial: trials::scraped_connections, ..SCRAPED_ONES },
    ),
    named(
        "admin-keepalive",
        "admin",
        "HTTP requests beside 1,000 idle connections, while /metrics and /status are asked for once a second",
        Section { metrics: REQUESTS, trial: trials::scraped_requests, ..SCRAPED_ONES },
    ),
];
