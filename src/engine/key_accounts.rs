//! The accounts of keys: the resources that each key uses over all of its links.
//!
//! A key may have many links, and many consecutive sessions. The table counts by key: events in a turn, futile streams,
//! connections, flows, and log lines. The record of a key outlives its links, so a reconnect resets no limit. The table knows
//! neither links nor sides.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use crate::engine::log_limit::LogLimit;
use crate::types::peer::{PeerId, PeerKey};

/// The accounts of all keys in one loop.
#[derive(Debug, Default)]
pub(crate) struct KeyAccounts {
    records: Slab<KeyAccount>,
    by_key: HashMap<PeerKey, usize>,
    /// The index of the record that was used last: consecutive events are mostly of one key.
    last: usize,
    /// The units that all keys have spent in a turn.
    spent: Spent,
}

/// The account of one key.
#[derive(Debug)]
pub(crate) struct KeyAccount {
    key: PeerKey,
    /// The name of the peer, for the log; `-` until it is known.
    name: Arc<str>,
    spent: Spent,
    futile: Futile,
    /// The numbers of its connections and of its flows of datagrams. Each has a limit of its own.
    connections: usize,
    flows: usize,
    used_ms: u64,
    /// The limit of lines about its links.
    pub log_limit: LogLimit,
    /// The limit of lines about its futile connections.
    pub connection_log_limit: LogLimit,
}

/// Units of work in one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    turn: u64,
    units: u32,
}

impl Spent {
    fn in_turn(&mut self, turn: u64) -> &mut u32 {
        if self.turn != turn {
            *self = Spent { turn, units: 0 };
        }
        &mut self.units
    }
}

/// A rate limit of streams that are refused or reset: a token bucket.
#[derive(Clone, Copy, Debug)]
struct Futile {
    /// Thousandths of a stream.
    tokens: u64,
    at_ms: u64,
}

impl Futile {
    fn new(now_ms: u64) -> Futile {
        Futile { tokens: 1000 * FUTILE_AT_ONCE, at_ms: now_ms }
    }

    fn tokens(&mut self, now_ms: u64) -> &mut u64 {
        let gained = now_ms.saturating_sub(self.at_ms).saturating_mul(FUTILE_PER_S);
        self.tokens = self.tokens.saturating_add(gained).min(1000 * FUTILE_AT_ONCE);
        self.at_ms = now_ms;
        &mut self.tokens
    }
}

impl KeyAccounts {
    /// Returns the record of a key. Makes one if there is none.
    pub fn of(&mut self, key: &PeerKey, now_ms: u64) -> &mut KeyAccount {
        if self.records.get(self.last).is_none_or(|peer| peer.key != *key) {
            self.last = match self.by_key.get(key) {
                Some(index) => *index,
                None => self.add(key, now_ms),
            };
        }
        let peer = &mut self.records[self.last];
        peer.used_ms = now_ms;
        peer
    }

    fn add(&mut self, key: &PeerKey, now_ms: u64) -> usize {
        if self.records.len() >= PEERS_MAX {
            let idle = self.records.iter().filter(|(_, peer)| peer.connections == 0 && peer.flows == 0);
            if let Some(oldest) = idle.min_by_key(|(_, peer)| peer.used_ms).map(|(index, _)| index) {
                self.by_key.remove(&self.records.remove(oldest).key);
            }
        }
        let index = self.records.insert(KeyAccount {
            key: *key,
            name: "-".into(),
            spent: Spent::default(),
            futile: Futile::new(now_ms),
            connections: 0,
            flows: 0,
            used_ms: now_ms,
            log_limit: LogLimit::default(),
            connection_log_limit: LogLimit::default(),
        });
        self.by_key.insert(*key, index);
        index
    }

    /// Returns true if one more event of the key may be processed in this turn. Each key has a minimum, even if the common
    /// budget is used up.
    pub fn may_spend(&mut self, key: &PeerKey, turn: u64, now_ms: u64) -> bool {
        let all = *self.spent.in_turn(turn);
        let own = *self.of(key, now_ms).spent.in_turn(turn);
        own < UNITS_PER_TURN && (all < UNITS_OF_ALL_PER_TURN || own < UNITS_AT_LEAST)
    }

    /// Charges an event to a key. Returns the units that the key has spent in this turn.
    pub fn spend(&mut self, key: &PeerKey, units: u32, turn: u64, now_ms: u64) -> u32 {
        *self.spent.in_turn(turn) += units;
        let own = self.of(key, now_ms).spent.in_turn(turn);
        *own += units;
        *own
    }

    /// Charges a connection to a key; [`KeyAccounts::release`] must follow.
    pub fn charge(&mut self, key: &PeerKey, now_ms: u64) -> PeerId {
        self.of(key, now_ms).connections += 1;
        PeerId(self.last as u32)
    }

    /// Ends the charge of a connection. `is_futile` means that it was a stream of the key and was refused or reset.
    pub fn release(&mut self, id: PeerId, is_futile: bool, now_ms: u64) {
        if let Some(peer) = self.records.get_mut(id.0 as usize) {
            debug_assert!(peer.connections > 0, "each is released once");
            peer.connections = peer.connections.saturating_sub(1);
            if is_futile {
                peer.was_futile(now_ms);
            }
        }
    }

    /// Charges a flow of datagrams to a key; [`KeyAccounts::release_flow`] must follow.
    pub fn charge_flow(&mut self, key: &PeerKey, now_ms: u64) -> PeerId {
        self.of(key, now_ms).flows += 1;
        PeerId(self.last as u32)
    }

    /// Ends the charge of a flow. `is_futile` means that it was a stream of the key and was refused.
    pub fn release_flow(&mut self, id: PeerId, is_futile: bool, now_ms: u64) {
        if let Some(peer) = self.records.get_mut(id.0 as usize) {
            debug_assert!(peer.flows > 0, "each is released once");
            peer.flows = peer.flows.saturating_sub(1);
            if is_futile {
                peer.was_futile(now_ms);
            }
        }
    }

    /// Returns the id of a key's record, if there is one.
    pub fn id_of(&self, key: &PeerKey) -> Option<PeerId> {
        self.by_key.get(key).map(|index| PeerId(*index as u32))
    }

    /// Returns the record of a key that has connections or flows.
    pub fn get_mut(&mut self, id: PeerId) -> Option<&mut KeyAccount> {
        self.records.get_mut(id.0 as usize)
    }

    /// Returns true if suppressed lines about any key have not been reported.
    pub fn has_suppressed(&self) -> bool {
        self.records
            .iter()
            .any(|(_, peer)| peer.log_limit.has_suppressed() || peer.connection_log_limit.has_suppressed())
    }

    /// Takes the number of suppressed lines about each key whose period is over.
    pub fn take_suppressed(&mut self, now_ms: u64) -> Vec<(Arc<str>, u64)> {
        let mut told = Vec::new();
        for (_, peer) in &mut self.records {
            let suppressed = [&mut peer.log_limit, &mut peer.connection_log_limit]
                .map(|log_limit| log_limit.take_suppressed(now_ms));
            match suppressed.into_iter().flatten().sum::<u64>() {
                0 => {}
                suppressed => told.push((Arc::clone(&peer.name), suppressed)),
            }
        }
        told
    }
}

impl KeyAccount {
    pub fn key(&self) -> &PeerKey {
        &self.key
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub fn set_name(&mut self, name: Arc<str>) {
        self.name = name;
    }

    /// Returns the number of connections that are charged to the key.
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// Returns the number of flows that are charged to the key.
    pub fn flows(&self) -> usize {
        self.flows
    }

    /// Returns true if the limit of futile streams permits the key to open a stream.
    pub fn may_try(&mut self, now_ms: u64) -> bool {
        *self.futile.tokens(now_ms) >= 1000
    }

    /// Counts a stream of the key that was refused or reset.
    pub fn was_futile(&mut self, now_ms: u64) {
        let tokens = self.futile.tokens(now_ms);
        *tokens = tokens.saturating_sub(1000);
    }
}

/// Units that one key may spend in a turn: 64 of its opens, listens and resets, or four times as many other events.
pub(crate) const UNITS_PER_TURN: u32 = 256;
/// Units of an OPEN, a LISTEN or a RESET: each leads to about ten system calls.
pub(crate) const UNITS_HEAVY: u32 = 4;
/// Units that all keys together may spend in a turn.
const UNITS_OF_ALL_PER_TURN: u32 = 1024;
/// Units that each key may spend in a turn even if the common budget is used up.
const UNITS_AT_LEAST: u32 = 16;
/// Futile streams that a key may have per second, and in a burst. Each costs about 0.1 ms of the loop's time.
const FUTILE_PER_S: u64 = 500;
const FUTILE_AT_ONCE: u64 = 2000;
/// Limit of the records. There are fewer links, and a key without connections and flows makes room for a new one.
const PEERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_budget_in_each_turn_and_the_others_have_a_minimum() {
        let mut accounts = KeyAccounts::default();
        let mut spends = |number: u8, turn: u64| {
            let mut units = 0;
            while accounts.may_spend(&[number; 32], turn, 0) {
                units = accounts.spend(&[number; 32], UNITS_HEAVY, turn, 0);
            }
            units
        };
        let first: Vec<u32> = (0..4).map(|number| spends(number, 1)).collect();
        assert_eq!(first, [UNITS_PER_TURN; 4]);
        assert_eq!(spends(5, 1), UNITS_AT_LEAST, "the common budget is used up");
        assert_eq!((spends(0, 1), spends(0, 2)), (0, UNITS_PER_TURN), "nothing more until the next turn");
    }

    #[test]
    fn futile_streams_are_limited_to_a_rate_and_a_burst() {
        let mut accounts = KeyAccounts::default();
        let mut tries = |until_ms: u64| {
            let account = accounts.of(&[1; 32], 0);
            let mut count = 0;
            for now_ms in 0..until_ms {
                while account.may_try(now_ms) {
                    account.was_futile(now_ms);
                    count += 1;
                }
            }
            count
        };
        assert_eq!(tries(1), FUTILE_AT_ONCE);
        assert_eq!(tries(1001), FUTILE_PER_S);
        let other = accounts.of(&[2; 32], 1000);
        assert!(other.may_try(1000), "another key has its own limit");
    }

    #[test]
    fn the_table_is_bounded_and_a_key_with_connections_stays() {
        let mut accounts = KeyAccounts::default();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        let id = accounts.charge(&key(0), 0);
        (1..3 * PEERS_MAX).for_each(|number| _ = accounts.of(&key(number), number as u64));
        assert_eq!((accounts.records.len(), accounts.by_key.len()), (PEERS_MAX, PEERS_MAX));
        assert_eq!(accounts.of(&key(0), 9).connections(), 1);
        accounts.release(id, false, 9);
        assert_eq!(accounts.of(&key(0), 9).connections(), 0);
    }

    #[test]
    fn flows_and_connections_are_counted_apart_and_a_key_with_flows_stays() {
        let mut accounts = KeyAccounts::default();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            key
        };
        let flow = accounts.charge_flow(&key(0), 0);
        let connection = accounts.charge(&key(0), 0);
        let counts = |accounts: &mut KeyAccounts| {
            let account = accounts.of(&key(0), 9);
            (account.connections(), account.flows())
        };
        assert_eq!(counts(&mut accounts), (1, 1));
        accounts.release(connection, false, 9);
        (1..3 * PEERS_MAX).for_each(|number| _ = accounts.of(&key(number), 10 + number as u64));
        assert_eq!(counts(&mut accounts), (0, 1));
        accounts.release_flow(flow, false, 9);
        assert_eq!(counts(&mut accounts), (0, 0));
    }
}
