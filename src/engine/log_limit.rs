//! Log limits: the number of log lines that a peer or a client network may cause. The limits leave enough lines to see what
//! happens, and too few to fill a disk. Suppressed lines are counted, and the next line or the end of the period reports
//! their number.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::core::{Core, OneOff};
use crate::types::address::Endpoint;
use crate::types::peer::{PeerId, PeerKey};
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Reason;

/// The count of lines in a period, and of the suppressed lines since the last report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogLimit {
    since_ms: u64,
    written: u32,
    suppressed: u64,
}

impl LogLimit {
    /// Counts a line. Returns the number of suppressed lines since the last report if the line may be written, or `None` if
    /// it is suppressed.
    pub fn allow(&mut self, now_ms: u64) -> Option<u64> {
        self.allow_at_most(LINES_MAX, now_ms)
    }

    fn allow_at_most(&mut self, lines_max: u32, now_ms: u64) -> Option<u64> {
        if self.is_over(now_ms) {
            (self.since_ms, self.written) = (now_ms, 0);
        }
        if self.written >= lines_max {
            self.suppressed += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// Takes the number of suppressed lines if their period is over.
    pub fn take_suppressed(&mut self, now_ms: u64) -> Option<u64> {
        (self.suppressed > 0 && self.is_over(now_ms)).then(|| std::mem::take(&mut self.suppressed))
    }

    /// Returns true if suppressed lines have not been reported.
    pub fn has_suppressed(&self) -> bool {
        self.suppressed > 0
    }

    /// Returns true if the period is over.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) >= PERIOD_MS
    }
}

/// The limits of lines about clients and unauthenticated peers. Each network has its own limit, so that its lines stay
/// visible during a flood from another network; all networks together have one more.
#[derive(Debug, Default)]
pub(crate) struct NetworkLogLimits {
    networks: HashMap<PeerNetwork, LogLimit>,
    all: LogLimit,
    /// The common limit of the networks for which the table had no room.
    others: LogLimit,
}

impl NetworkLogLimits {
    /// Counts a line about a network. Returns the number of its suppressed lines since the last report if the line may be
    /// written, or `None` if it is suppressed.
    pub fn allow(&mut self, from: PeerNetwork, now_ms: u64) -> Option<u64> {
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&from) {
            // A network with suppressed lines stays until they are reported.
            self.networks.retain(|_, limit| limit.has_suppressed() || !limit.is_over(now_ms));
        }
        let is_known = self.networks.contains_key(&from);
        let limit = match is_known || self.networks.len() < NETWORKS_MAX {
            true => self.networks.entry(from).or_default(),
            false => &mut self.others,
        };
        let suppressed = limit.allow_at_most(NETWORK_LINES_MAX, now_ms)?;
        if self.all.allow_at_most(ALL_LINES_MAX, now_ms).is_none() {
            // The line counts as suppressed for its network and is reported later.
            limit.suppressed += suppressed + 1;
            return None;
        }
        // The count of the network reports these lines.
        self.all.suppressed = 0;
        Some(suppressed)
    }

    /// Returns true if suppressed lines have not been reported.
    pub fn has_suppressed(&self) -> bool {
        self.others.has_suppressed() || self.networks.values().any(LogLimit::has_suppressed)
    }

    /// Takes the counts whose periods are over: those of at most `lines_max` networks, and the sum of all others.
    pub fn take_suppressed(&mut self, lines_max: usize, now_ms: u64) -> (Vec<(PeerNetwork, u64)>, u64) {
        let (mut told, mut rest) = (Vec::new(), self.others.take_suppressed(now_ms).unwrap_or(0));
        for (network, limit) in &mut self.networks {
            match limit.take_suppressed(now_ms) {
                Some(suppressed) if told.len() < lines_max => told.push((*network, suppressed)),
                Some(suppressed) => rest += suppressed,
                None => {}
            }
        }
        self.networks.retain(|_, limit| limit.has_suppressed() || !limit.is_over(now_ms));
        (told, rest)
    }
}

impl Core {
    /// Returns the number of suppressed lines if a line about a key may be logged now, or `None`.
    pub(crate) fn may_log_key(&mut self, key: &PeerKey) -> Option<u64> {
        let allowed = self.peers.of(key, self.now_ms).log_limit.allow(self.now_ms);
        self.schedule_report(allowed)
    }

    /// Returns the number of suppressed lines if a line about the peer's network may be logged now, or `None`. Failed
    /// authentications have their own limits, so a flood of other connections does not hide them.
    pub(crate) fn may_log_network(&mut self, from: &Endpoint, reason: Reason) -> Option<u64> {
        let [failed, others] = &mut self.network_log_limits;
        let limits = if reason == Reason::AuthFailed { failed } else { others };
        let allowed = limits.allow(from.into(), self.now_ms);
        self.schedule_report(allowed)
    }

    /// Returns true if the closing line of a connection may be logged, within the limit of its key if it has one. Reports
    /// the number of suppressed lines first.
    pub(crate) fn may_log_closed(&mut self, payer: Option<PeerId>) -> bool {
        let Some(payer) = payer else { return true };
        let Some(peer) = self.peers.get_mut(payer) else { return true };
        let (name, allowed) = (Arc::clone(peer.name()), peer.connection_log_limit.allow(self.now_ms));
        match self.schedule_report(allowed) {
            None => false,
            Some(0) => true,
            Some(suppressed) => {
                report_suppressed_of(&name, suppressed);
                true
            }
        }
    }

    /// Schedules a report for the end of the period if a line was suppressed. Returns its argument.
    fn schedule_report(&mut self, allowed: Option<u64>) -> Option<u64> {
        if allowed.is_none() && !std::mem::replace(&mut self.reports_suppressed, true) {
            self.one_offs.push(self.now_ms + PERIOD_MS, OneOff::SuppressedLines);
        }
        allowed
    }

    /// Logs the number of suppressed lines of the periods that are over.
    pub(crate) fn report_suppressed(&mut self) {
        let now_ms = self.now_ms;
        for (peer, suppressed) in self.peers.take_suppressed(now_ms) {
            report_suppressed_of(&peer, suppressed);
        }
        for (limits, reason) in self.network_log_limits.iter_mut().zip(["auth_failed", "-"]) {
            let (told, rest) = limits.take_suppressed(NETWORKS_TOLD_MAX, now_ms);
            for (network, suppressed) in told {
                log::info!(target: TARGET, from = network.to_string(), reason = reason, suppressed; "log lines suppressed");
            }
            if rest > 0 {
                log::info!(target: TARGET, from = "others", reason = reason, suppressed = rest; "log lines suppressed");
            }
        }
        self.reports_suppressed =
            self.peers.has_suppressed() || self.network_log_limits.iter().any(NetworkLogLimits::has_suppressed);
        if self.reports_suppressed {
            self.one_offs.push(now_ms + PERIOD_MS / 10, OneOff::SuppressedLines);
        }
    }
}

fn report_suppressed_of(peer: &str, suppressed: u64) {
    log::info!(target: TARGET, peer = peer, suppressed; "log lines suppressed");
}

/// The target of the lines about links.
const TARGET: &str = "seaprox::link";
/// Lines about one key in a period.
const LINES_MAX: u32 = 100;
/// Lines about one network in a period.
const NETWORK_LINES_MAX: u32 = 20;
/// Lines about all networks in a period.
const ALL_LINES_MAX: u32 = 1000;
/// Networks with their own limit.
const NETWORKS_MAX: usize = 1024;
/// Networks whose counts are reported one by one; the counts of the others are added up.
const NETWORKS_TOLD_MAX: usize = 16;
const PERIOD_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn network(number: u32) -> PeerNetwork {
        PeerNetwork::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn lines_beyond_the_limit_are_suppressed_and_counted() {
        let mut limit = LogLimit::default();
        let lines = (0..100_000).filter_map(|ms| limit.allow(ms)).collect::<Vec<_>>();
        assert_eq!(lines.len(), 10 * LINES_MAX as usize);
        assert_eq!(lines.iter().sum::<u64>() + limit.suppressed + lines.len() as u64, 100_000, "no line is lost");
        assert_eq!(limit.allow(200_000), Some(PERIOD_MS - u64::from(LINES_MAX)), "the next line reports the count");
    }

    #[test]
    fn a_count_is_reported_once_after_its_period() {
        let mut limit = LogLimit::default();
        (0..LINES_MAX + 7).for_each(|_| _ = limit.allow(5));
        assert_eq!(
            (limit.has_suppressed(), limit.take_suppressed(PERIOD_MS - 1)),
            (true, None),
            "the period is not over"
        );
        assert_eq!(limit.take_suppressed(PERIOD_MS), Some(7));
        assert_eq!((limit.has_suppressed(), limit.take_suppressed(PERIOD_MS)), (false, None));
    }

    #[test]
    fn lines_of_one_network_stay_visible_during_a_flood_from_another() {
        let mut limits = NetworkLogLimits::default();
        let flood = (0..100_000).filter(|_| limits.allow(network(1), 7).is_some()).count();
        assert_eq!(flood, NETWORK_LINES_MAX as usize);
        assert_eq!(limits.allow(network(2), 8), Some(0));
        let (told, rest) = limits.take_suppressed(8, PERIOD_MS + 8);
        assert_eq!((told, rest), (vec![(network(1), 100_000 - u64::from(NETWORK_LINES_MAX))], 0));
        assert!(!limits.has_suppressed() && limits.networks.is_empty());
    }

    #[test]
    fn the_lines_of_all_networks_and_the_table_are_bounded() {
        let mut limits = NetworkLogLimits::default();
        let allowed = (0..50_000).filter(|number| limits.allow(network(*number), 7).is_some()).count();
        assert_eq!(allowed, ALL_LINES_MAX as usize);
        assert_eq!(limits.networks.len(), NETWORKS_MAX);
        let (told, rest) = limits.take_suppressed(8, PERIOD_MS + 7);
        assert_eq!(told.len(), 8);
        assert_eq!(
            told.iter().map(|(_, suppressed)| suppressed).sum::<u64>() + rest + allowed as u64,
            50_000,
            "no line is lost"
        );
        assert_eq!(limits.allow(network(1), 2 * PERIOD_MS), Some(0), "the next period has lines again");
    }
}
