//! The number of connections of each client network, if it is bounded.
//!
//! All loops of a process share the table, because the system distributes the clients of one network over them. The table
//! has an entry for each network with a connection, so it is no larger than the tables of connections. Clients without an
//! address, such as those of a Unix socket, are not counted.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};

use crate::engine::sync::Mutex;
use crate::types::peer_network::PeerNetwork;

/// The count of each network, and its limit.
#[derive(Debug)]
pub(crate) struct Sources {
    max: usize,
    counts: Mutex<HashMap<PeerNetwork, usize>>,
}

impl Sources {
    /// Creates a table with a limit of `max` connections for each network; 0 is no limit.
    pub fn new(max: usize) -> Arc<Sources> {
        Arc::new(Sources { max, counts: Mutex::default() })
    }

    /// Returns true if connections of this network are counted.
    pub fn counts(&self, network: PeerNetwork) -> bool {
        self.max > 0 && network != PeerNetwork::Local
    }

    /// Counts a new connection of a network. Returns false if the network has reached its limit; the connection is not
    /// counted then. [`Sources::leave`] must follow each counted connection.
    pub fn enter(&self, network: PeerNetwork) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_default();
        let may = *count < self.max;
        *count += usize::from(may);
        may
    }

    /// Ends the count of a connection.
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
    fn a_network_at_its_limit_is_refused_until_one_of_its_connections_ends() {
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
