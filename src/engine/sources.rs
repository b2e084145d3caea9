//! Sources: the number of connections of each client network, if it is bounded.
//!
//! All loops of a process share the table, because the system spreads the clients of one network over them. The table has an
//! entry for each network with a connection, so it is no larger than the tables of connections. Clients without an address,
//! such as those of a Unix socket, are local and are not counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};

use crate::engine::sync::Mutex;
use crate::types::peer_network::PeerNetwork;

/// The count of each network, and the most that there may be.
#[derive(Debug)]
pub(crate) struct Sources {
    max: usize,
    counts: Mutex<HashMap<PeerNetwork, usize>>,
}

impl Sources {
    /// Counts up to `max` connections for a network; none has a limit if that is 0.
    pub fn new(max: usize) -> Arc<Sources> {
        Arc::new(Sources { max, counts: Mutex::default() })
    }

    /// Returns true if connections of this network are counted.
    pub fn counts(&self, network: PeerNetwork) -> bool {
        self.max > 0 && network != PeerNetwork::Local
    }

    /// Counts one more connection of a network, unless it has as many as it may have. [`Sources::leave`] follows.
    pub fn enter(&self, network: PeerNetwork) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        let may = *count < self.max;
        *count += usize::from(may);
        may
    }

    /// A connection of a network is over.
    pub fn leave(&self, network: PeerNetwork) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_so_many_and_what_has_ended_is_forgotten() {
        let sources = Sources::new(2);
        let [a, b] = [1, 2].map(|number| PeerNetwork::V4([10, 0, 0, number].into()));
        assert!(sources.counts(a) && !sources.counts(PeerNetwork::Local) && !Sources::new(0).counts(a));
        assert_eq!([(); 3].map(|()| sources.enter(a)), [true, true, false]);
        assert!(sources.enter(b));
        sources.leave(a);
        assert!(sources.enter(a));
        [a, a, b].into_iter().for_each(|network| sources.leave(network));
        assert!(sources.counts.lock().unwrap().is_empty());
    }
}
