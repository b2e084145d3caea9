//! What becomes of the links that others dial: a line in the log for each that comes and goes. Keys that are not let in are
//! told where that is decided, in `trust`.

use std::collections::BTreeMap;
use std::sync::Arc;

use seaprox::Id;
use seaprox::node::{Happened, Policy};

use super::trust::{Visitors, fingerprint};

/// The story of the links that are taken in.
pub struct Visits {
    visitors: Arc<Visitors>,
    /// What the peers are called. Invariant: no more than there are links.
    names: BTreeMap<Id, String>,
}

impl Visits {
    /// The story from its beginning.
    pub fn new(visitors: Arc<Visitors>) -> Visits {
        Visits { visitors, names: BTreeMap::new() }
    }

    /// Takes in what happened to a link.
    pub fn take(&mut self, id: Id, happened: &Happened) {
        let name = || self.names.get(&id).cloned().unwrap_or_else(|| "-".to_owned());
        match happened {
            Happened::Up { key, .. } => {
                let name = self.visitors.name(key);
                log::info!(id = id.to_string(), peer = name, key = fingerprint(key); "link up");
                self.names.insert(id, name);
            }
            Happened::Parted => {
                log::info!(id = id.to_string(), peer = name(); "no subflow is left, and connections wait")
            }
            Happened::Resumed => log::info!(id = id.to_string(), peer = name(); "link resumed, and nothing was lost"),
            Happened::Ended { reason, text } => {
                let name = self.names.remove(&id).unwrap_or_else(|| "-".to_owned());
                log::info!(id = id.to_string(), peer = name, reason = reason.as_str(), detail = text; "link ended");
            }
            // The process is stopping, and says so itself.
            Happened::Closed => _ = self.names.remove(&id),
            _ => {}
        }
    }
}
