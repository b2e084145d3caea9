//! The links that peers have dialed: a log line for each link that comes, goes or is suspended, within the log limit of its
//! peer. `authorized_peers` logs the keys that it rejects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seaprox::Id;
use seaprox::node::{LinkEvent, Policy};

use crate::links::{AuthorizedPeers, fingerprint};

/// The log of the links that peers have dialed.
pub struct ServedLinks {
    authorized: Arc<AuthorizedPeers>,
    /// The name of the peer of each link.
    names: BTreeMap<Id, String>,
    /// The log limit of each peer, so that a peer whose links come and go cannot fill the log.
    limits: BTreeMap<String, LogLimit>,
}

/// The lines about a peer in its current period.
struct LogLimit {
    since: Instant,
    logged: u32,
    /// Lines that were suppressed since the last report.
    suppressed: u64,
}

impl ServedLinks {
    /// Creates a log without links.
    pub fn new(authorized: Arc<AuthorizedPeers>) -> ServedLinks {
        ServedLinks { authorized, names: BTreeMap::new(), limits: BTreeMap::new() }
    }

    /// Returns the log with the peers that may dial the server now.
    pub fn following(self, authorized: Arc<AuthorizedPeers>) -> ServedLinks {
        ServedLinks { authorized, ..self }
    }

    /// Logs an event of a link.
    pub fn log(&mut self, id: Id, event: &LinkEvent) {
        let name = self.names.get(&id).cloned().unwrap_or_else(|| "-".to_owned());
        match event {
            LinkEvent::Up { key, .. } => {
                let name = self.authorized.name(key);
                if self.may_log(&name) {
                    log::info!(target: "seaprox::link", id = id.to_string(), peer = name, key = fingerprint(key); "link up");
                }
                self.names.insert(id, name);
            }
            LinkEvent::Suspended if self.may_log(&name) => {
                log::info!(target: "seaprox::link", id = id.to_string(), peer = name; "link suspended: no subflow is left, and connections wait");
            }
            LinkEvent::Resumed if self.may_log(&name) => {
                log::info!(target: "seaprox::link", id = id.to_string(), peer = name; "link resumed, and no data was lost");
            }
            LinkEvent::Ended { reason, text } => {
                self.names.remove(&id);
                if self.may_log(&name) {
                    log::info!(target: "seaprox::link", id = id.to_string(), peer = name, reason = reason.as_str(), detail = text; "link ended");
                }
            }
            // The process stops, and logs that itself.
            LinkEvent::Closed => _ = self.names.remove(&id),
            _ => {}
        }
    }

    /// Returns true if a line about a peer may be logged. Logs the number of suppressed lines first.
    fn may_log(&mut self, name: &str) -> bool {
        let now = Instant::now();
        if self.limits.len() >= PEERS_MAX && !self.limits.contains_key(name) {
            self.limits.retain(|name, limit| {
                let is_current = now.duration_since(limit.since) < PERIOD;
                if !is_current && limit.suppressed > 0 {
                    log_suppressed(name, limit.suppressed);
                }
                is_current
            });
            if self.limits.len() >= PEERS_MAX {
                return false;
            }
        }
        let fresh = LogLimit { since: now, logged: 0, suppressed: 0 };
        let limit = self.limits.entry(name.to_owned()).or_insert(fresh);
        if now.duration_since(limit.since) >= PERIOD {
            (limit.since, limit.logged) = (now, 0);
        }
        if limit.logged >= LINES_MAX {
            limit.suppressed += 1;
            return false;
        }
        limit.logged += 1;
        if let suppressed @ 1.. = std::mem::take(&mut limit.suppressed) {
            log_suppressed(name, suppressed);
        }
        true
    }
}

fn log_suppressed(name: &str, suppressed: u64) {
    log::info!(target: "seaprox::link", peer = name, suppressed = suppressed; "log lines suppressed");
}

/// Lines about the links of one peer in a period.
const LINES_MAX: u32 = 100;
const PERIOD: Duration = Duration::from_secs(10);
/// Peers with a log limit. Nothing is logged about a further peer until a period is over.
const PEERS_MAX: usize = 1024;
