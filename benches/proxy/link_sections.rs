//! The sections about links: client -> near node == link == far node -> target, with the processor time of both nodes.
//!
//! The trials are the same as for single proxies; the peers are pairs of nodes.

use std::io;

use crate::ground::Ground;
use crate::measure::Values;
use crate::sections::{CONNECTIONS, IDLE, PING, PING_BESIDE, REQUESTS, Section, USUAL, named};
use crate::trials::{self, Subject};

const PAIRS: &[&str] = &["direct", "seaprox-link", "ssh", "haproxy-tls", "stunnel", "shadowsocks"];
/// The pairs without `direct`, for the section of idle connections.
const HELD: &[&str] = &["seaprox-link", "ssh", "haproxy-tls", "stunnel", "shadowsocks"];
const TO_PAIRS: &[(&str, &str)] = &[
    ("seaprox-link", "ssh"),
    ("seaprox-link", "haproxy-tls"),
    ("seaprox-link", "stunnel"),
    ("seaprox-link", "shadowsocks"),
];

const LINKS: Section = Section { peers: PAIRS, ratios: TO_PAIRS, ..USUAL };

pub static SECTIONS: [Section; 7] = [
    named("link-bulk1", "link-bulk1", "a link: one bulk stream", LINKS),
    named("link-bulk8", "link-bulk8", "a link: eight bulk streams", Section { trial: trials::bulk_8, ..LINKS }),
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
        Section { peers: HELD, metrics: IDLE, rounds_max: 3, fresh: true, saturates: false, trial: idle, ..LINKS },
    ),
];

/// Holds fewer connections than with single proxies: ssh searches all its channels for each packet, so that opening
/// more takes too long.
fn idle(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    trials::idle_up_to(ground, subject, ground.idle().min(IDLE_MAX))
}

const IDLE_MAX: usize = 2_000;
