//! What becomes of the links that others dial: a line in the log for each that comes and goes, and for each key that is not
//! let in, with the line that would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use seaprox::Id;
use seaprox::keys::PublicKey;
use seaprox::node::{Happened, PeerKey, Policy};

use super::refusals::Refusals;
use super::trust::{Visitors, fingerprint};

/// The story of the links that are taken in.
pub struct Visits {
    visitors: Arc<Visitors>,
    /// What the peers are called. Invariant: no more than there are links.
    names: BTreeMap<Id, String>,
    refusals: Refusals,
}

impl Visits {
    /// The story from its beginning.
    pub fn new(visitors: Arc<Visitors>) -> Visits {
        Visits { visitors, names: BTreeMap::new(), refusals: Refusals::default() }
    }

    /// Takes in what happened to a link.
    pub fn take(&mut self, id: Id, happened: &Happened, now: Instant) {
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
            Happened::WrongKey { key } => self.refused(key, now),
            _ => {}
        }
    }

    fn refused(&mut self, key: &PeerKey, now: Instant) {
        let Some(times) = self.refusals.note(key, now) else { return };
        let (_, file) = self.visitors.count();
        let file = file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        let line = PublicKey::from_bytes(*key).map_or_else(|_| "-".to_owned(), |key| key.to_string());
        log::warn!(key = fingerprint(key), times = times, file = file, line = line; "key not let in; add the line to the file if it should be");
    }
}
