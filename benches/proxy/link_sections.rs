//! The sections about links: client -> near node == link == far node -> target, with the processor time of both nodes.
//!
//! The trials are the same as for single proxies; the peers are pairs of nodes.

use std::io;

use crate::ground::Ground;
use crate::measure::Values;
use crate::sections::{CONNECTIONS, IDLE, PING, PING_BESIDE, REQUESTS, Section, USUAL, named};
use crate::trials::{self, Subject};

const PAIRS: &[&str] =
    &["direct", "floor-link", "seaprox-link", "ssh", "haproxy-tls", "stunnel", "shadowsocks", "wstunnel", "rathole"];
/// The pairs without `direct` and the floor, for the section of idle connections.
const HELD: &[&str] = &["seaprox-link", "ssh", "haproxy-tls", "stunnel", "shadowsocks", "wstunnel", "rathole"];
const TO_PAIRS: &[(&str, &str)] = &[
    ("seaprox-link", "ssh"),
    ("seaprox-link", "haproxy-tls"),
    ("seaprox-link", "stunnel"),
    ("seaprox-link", "shadowsocks"),
    ("seaprox-link", "wstunnel"),
    ("seaprox-link", "rathole"),
    ("seaprox-link", "floor-link"),
];

/// Pinned, both nodes share a processor, which hides a pipeline that stalls; free, it shows in the rate.
const LINKS: Section = Section { peers: PAIRS, ratios: TO_PAIRS, free: true, ..USUAL };

pub static SECTIONS: [Section; 9] = [
    named("link-bulk1", "link-bulk1", "a link: one bulk stream", LINKS),
    named("link-bulk8", "link-bulk8", "a link: eight bulk streams", Section { trial: trials::bulk_8, ..LINKS }),
    named(
        "link-bulk1-busy",
        "link-bulk1-busy",
        "a link: one bulk stream between ends that copy it",
        Section { trial: trials::busy_bulk_1, ..LINKS },
    ),
    named(
        "link-bulk8-busy",
        "link-bulk8-busy",
        "a link: eight bulk streams between ends that copy them",
        Section { trial: trials::busy_bulk_8, ..LINKS },
    ),
    named(
        "link-new",
        "link-new",
        "a link: new connections, 32 bytes each way; 32 at a time",
        Section { metrics: CONNECTIONS, trial: trials::connections, ..LINKS },
    ),
    named(
        "link-keepalive",
        "link-keepalive",
        "a link: HTTP requests on 64 connections that stay open",
        Section { metrics: REQUESTS, trial: trials::requests, ..LINKS },
    ),
    named(
        "link-ping",
        "link-ping",
        "a link: 64 bytes forth and back, nothing else running",
        Section { metrics: PING, saturates: false, trial: trials::ping, ..LINKS },
    ),
    named(
        "link-ping-bulk",
        "link-ping-bulk",
        "a link: 64 bytes forth and back beside one bulk stream",
        Section { metrics: PING_BESIDE, saturates: false, trial: trials::ping_beside_bulk, ..LINKS },
    ),
    named(
        "link-idle",
        "link-idle",
        "a link: idle connections, memory of both nodes",
        Section {
            peers: HELD,
            metrics: IDLE,
            rounds_max: 3,
            fresh: true,
            saturates: false,
            free: false,
            trial: idle,
            ..LINKS
        },
    ),
];

/// Holds fewer connections than with single proxies: ssh searches all its channels for each packet, so that opening
/// more takes too long.
fn idle(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    trials::idle_up_to(ground, subject, ground.idle().min(IDLE_MAX))
}

const IDLE_MAX: usize = 2_000;
