//! The sections about datagrams. The load is closed: flows wait for echoes, so the figure to compare is the processor time
//! of the proxy for each datagram that it relays, in either direction.

use crate::load::Shape;
use crate::sections::{MACHINE_EACH, Metric, OTHERS_SHARE, PROXY_BUSY, Section, USUAL, metric, named};
use crate::trials::{self, datagrams};

const DIRECT: &[&str] = &["direct", "seaprox-udp", "nginx-udp", "socat-udp", "seaprox-socks-udp", "danted-udp"];
/// The peers for many flows: socat has a process for each.
const MANY: &[&str] = &["direct", "seaprox-udp", "nginx-udp"];
const OVER_LINKS: &[&str] = &["direct", "seaprox-link-udp"];

const TO_PEERS: &[(&str, &str)] =
    &[("seaprox-udp", "nginx-udp"), ("seaprox-udp", "socat-udp"), ("seaprox-socks-udp", "danted-udp")];
const NO_RATIOS: &[(&str, &str)] = &[];

const FLOOD: &[Metric] = &[
    metric(trials::PER_S, "datagrams/s", 0),
    metric(trials::CPU_US_EACH, "CPU us each", 2),
    metric(trials::CPU_S_PER_GIB, "CPU s/GiB", 2),
    MACHINE_EACH,
    metric(trials::LOST, "lost", 0),
    PROXY_BUSY,
    OTHERS_SHARE,
];
const PING: &[Metric] = &[
    metric(trials::P50_US, "p50 us", 1),
    metric(trials::P99_US, "p99 us", 1),
    metric(trials::CPU_US_EACH, "CPU us each", 1),
    MACHINE_EACH,
    OTHERS_SHARE,
];

const FLOODS: Section = Section { peers: DIRECT, metrics: FLOOD, ratios: TO_PEERS, ..USUAL };
const LINKS: Section = Section { peers: OVER_LINKS, ratios: NO_RATIOS, ..FLOODS };

/// Many flows, each with a datagram under way and back.
const fn echoes(len: usize, flows: usize) -> Shape {
    Shape { len, flows, busy: 32, batch: 1, segments: false }
}

/// A transfer, of which every 32nd datagram is acknowledged.
const fn transfer(len: usize, segments: bool) -> Shape {
    Shape { len, flows: 4, busy: 2, batch: 32, segments }
}

pub static SECTIONS: [Section; 11] = [
    named(
        "datagrams-64",
        "datagrams",
        "datagrams of 64 bytes, echoed, 32 flows",
        Section { trial: |ground, subject| datagrams(ground, subject, echoes(64, 32)), ..FLOODS },
    ),
    named(
        "datagrams-512",
        "datagrams",
        "datagrams of 512 bytes, echoed, 32 flows",
        Section { trial: |ground, subject| datagrams(ground, subject, echoes(512, 32)), ..FLOODS },
    ),
    named(
        "datagrams-1400",
        "datagrams",
        "datagrams of 1,400 bytes, one way, an echo of every 32nd",
        Section { trial: |ground, subject| datagrams(ground, subject, transfer(1400, false)), ..FLOODS },
    ),
    named(
        "datagrams-segments",
        "datagrams",
        "the same from a sender with segmentation offload (UDP_SEGMENT)",
        Section { trial: |ground, subject| datagrams(ground, subject, transfer(1400, true)), ..FLOODS },
    ),
    named(
        "datagrams-1000",
        "datagrams",
        "datagrams of 64 bytes, echoed, 1,000 flows in turn",
        Section { trial: |ground, subject| datagrams(ground, subject, echoes(64, 1_000)), peers: MANY, ..FLOODS },
    ),
    named(
        "datagrams-10000",
        "datagrams",
        "datagrams of 64 bytes, echoed, 10,000 flows in turn",
        Section {
            trial: |ground, subject| datagrams(ground, subject, echoes(64, 10_000)),
            peers: MANY,
            rounds_max: 3,
            ..FLOODS
        },
    ),
    named(
        "datagrams-ping",
        "datagrams",
        "one datagram of 64 bytes forth and back, nothing else running",
        Section {
            trial: |ground, subject| datagrams(ground, subject, Shape::PING),
            metrics: PING,
            saturates: false,
            ..FLOODS
        },
    ),
    named(
        "datagrams-link-64",
        "datagrams",
        "a link: datagrams of 64 bytes, echoed, 32 flows",
        Section { trial: |ground, subject| datagrams(ground, subject, echoes(64, 32)), ..LINKS },
    ),
    named(
        "datagrams-link-1400",
        "datagrams",
        "a link: datagrams of 1,400 bytes, one way, an echo of every 32nd",
        Section { trial: |ground, subject| datagrams(ground, subject, transfer(1400, false)), ..LINKS },
    ),
    named(
        "datagrams-link-segments",
        "datagrams",
        "a link: the same from a sender with segmentation offload",
        Section { trial: |ground, subject| datagrams(ground, subject, transfer(1400, true)), ..LINKS },
    ),
    named(
        "datagrams-link-ping",
        "datagrams",
        "a link: one datagram of 64 bytes forth and back, nothing else running",
        Section {
            trial: |ground, subject| datagrams(ground, subject, Shape::PING),
            metrics: PING,
            saturates: false,
            ..LINKS
        },
    ),
];
