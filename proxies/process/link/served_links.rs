//! Served links: logs each link that comes or goes, within the log limit of its peer. `trust` logs the keys that it rejects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seaprox::Id;
use seaprox::node::{Happened, Policy};

use super::trust::{Visitors, fingerprint};

/// The story of the links that are taken in.
pub struct Visits {
    visitors: Arc<Visitors>,
    /// What the peers are called. Invariant: no more than there are links.
    names: BTreeMap<Id, String>,
    /// The lines about each peer: one that comes and goes all the time must not fill the log.
    lines: BTreeMap<String, Lines>,
}

/// Counts of the logged and the suppressed lines about a peer in its period.
struct Lines {
    since: Instant,
    said: u32,
    unsaid: u64,
}

impl Visits {
    /// The story from its beginning.
    pub fn new(visitors: Arc<Visitors>) -> Visits {
        Visits { visitors, names: BTreeMap::new(), lines: BTreeMap::new() }
    }

    /// Takes in what happened to a link.
    pub fn take(&mut self, id: Id, happened: &Happened) {
        let name = self.names.get(&id).cloned().unwrap_or_else(|| "-".to_owned());
        match happened {
            Happened::Up { key, .. } => {
                let name = self.visitors.name(key);
                if self.may_say(&name) {
                    log::info!(target: "seaprox::link", id = id.to_string(), peer = name, key = fingerprint(key); "link up");
                }
                self.names.insert(id, name);
            }
            Happened::Parted if self.may_say(&name) => {
                log::info!(target: "seaprox::link", id = id.to_string(), peer = name; "no subflow is left, and connections wait");
            }
            Happened::Resumed if self.may_say(&name) => {
                log::info!(target: "seaprox::link", id = id.to_string(), peer = name; "link resumed, and nothing was lost");
            }
            Happened::Ended { reason, text } => {
                self.names.remove(&id);
                if self.may_say(&name) {
                    log::info!(target: "seaprox::link", id = id.to_string(), peer = name, reason = reason.as_str(), detail = text; "link ended");
                }
            }
            // The process is stopping, and says so itself.
            Happened::Closed => _ = self.names.remove(&id),
            _ => {}
        }
    }

    /// Returns true if a line about a peer may be logged. Logs the number of suppressed lines first.
    fn may_say(&mut self, name: &str) -> bool {
        let now = Instant::now();
        if self.lines.len() >= PEERS_MAX && !self.lines.contains_key(name) {
            self.lines.retain(|name, lines| {
                let is_young = now.duration_since(lines.since) < PERIOD;
                if !is_young && lines.unsaid > 0 {
                    log::info!(target: "seaprox::link", peer = name, unsaid = lines.unsaid; "lines left out");
                }
                is_young
            });
            if self.lines.len() >= PEERS_MAX {
                return false;
            }
        }
        let lines = self.lines.entry(name.to_owned()).or_insert(Lines { since: now, said: 0, unsaid: 0 });
        if now.duration_since(lines.since) >= PERIOD {
            (lines.since, lines.said) = (now, 0);
        }
        if lines.said >= LINES_MAX {
            lines.unsaid += 1;
            return false;
        }
        lines.said += 1;
        if let unsaid @ 1.. = std::mem::take(&mut lines.unsaid) {
            log::info!(target: "seaprox::link", peer = name, unsaid = unsaid; "lines left out");
        }
        true
    }
}

/// Lines about the links of one peer in a period.
const LINES_MAX: u32 = 100;
const PERIOD: Duration = Duration::from_secs(10);
/// Maximum number of peers with counts; entries whose period is over are removed. Nothing is said of one more.
const PEERS_MAX: usize = 1024;
