//! Log limits: how many lines of the log a stranger or a peer may cause. Enough to see what is going on, too few to fill a
//! disk. Lines that are left out are counted, and the count is told with the next line or when the period is over.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::core::{Core, OneOff};
use crate::types::address::Endpoint;
use crate::types::peer::{PeerId, PeerKey};
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Reason;

/// Lets so many lines through in each period, and counts the others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet {
    since_ms: u64,
    said: u32,
    unsaid: u64,
}

impl Quiet {
    /// Returns the number of lines left out since the last one that was written, if a line may be written now.
    pub fn say(&mut self, now_ms: u64) -> Option<u64> {
        self.say_at_most(LINES_MAX, now_ms)
    }

    fn say_at_most(&mut self, lines_max: u32, now_ms: u64) -> Option<u64> {
        if self.is_over(now_ms) {
            (self.since_ms, self.said) = (now_ms, 0);
        }
        if self.said >= lines_max {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }

    /// Takes the number of lines left out, once their period is over.
    pub fn take_unsaid(&mut self, now_ms: u64) -> Option<u64> {
        (self.unsaid > 0 && self.is_over(now_ms)).then(|| std::mem::take(&mut self.unsaid))
    }

    /// Returns true if suppressed lines were not reported yet.
    pub fn has_unsaid(&self) -> bool {
        self.unsaid > 0
    }

    /// Returns true if the period is over.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms) >= PERIOD_MS
    }
}

/// The lines that strangers cause: each network has a limit of its own, so that the lines of one stay visible beside a flood
/// of another, and all of them together have one.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    networks: HashMap<PeerNetwork, Quiet>,
    all: Quiet,
    /// The networks that came when the table was full share one limit.
    others: Quiet,
}

impl Strangers {
    /// Returns the number of lines of this network left out since the last one that was written, if a line may be written.
    pub fn say(&mut self, from: PeerNetwork, now_ms: u64) -> Option<u64> {
        if self.networks.len() >= NETWORKS_MAX && !self.networks.contains_key(&from) {
            // A network with suppressed lines stays until they are reported.
            self.networks.retain(|_, quiet| quiet.has_unsaid() || !quiet.is_over(now_ms));
        }
        let is_known = self.networks.contains_key(&from);
        let quiet = match is_known || self.networks.len() < NETWORKS_MAX {
            true => self.networks.entry(from).or_default(),
            false => &mut self.others,
        };
        let unsaid = quiet.say_at_most(NETWORK_LINES_MAX, now_ms)?;
        if self.all.say_at_most(ALL_LINES_MAX, now_ms).is_none() {
            // The line counts as suppressed for its network and is reported later.
            quiet.unsaid += unsaid + 1;
            return None;
        }
        // The count of the network reports these lines.
        self.all.unsaid = 0;
        Some(unsaid)
    }

    /// Returns true if suppressed lines were not reported yet.
    pub fn has_unsaid(&self) -> bool {
        self.others.has_unsaid() || self.networks.values().any(Quiet::has_unsaid)
    }

    /// Takes what is to be told of the periods that are over: the counts of at most `lines_max` networks, and the sum of
    /// those of all others.
    pub fn take_unsaid(&mut self, lines_max: usize, now_ms: u64) -> (Vec<(PeerNetwork, u64)>, u64) {
        let (mut told, mut rest) = (Vec::new(), self.others.take_unsaid(now_ms).unwrap_or(0));
        for (network, quiet) in &mut self.networks {
            match quiet.take_unsaid(now_ms) {
                Some(unsaid) if told.len() < lines_max => told.push((*network, unsaid)),
                Some(unsaid) => rest += unsaid,
                None => {}
            }
        }
        self.networks.retain(|_, quiet| quiet.has_unsaid() || !quiet.is_over(now_ms));
        (told, rest)
    }
}

impl Core {
    /// Returns the number of suppressed lines if a line about a key may be logged now.
    pub(crate) fn may_log_key(&mut self, key: &PeerKey) -> Option<u64> {
        let said = self.peers.of(key, self.now_ms).quiet.say(self.now_ms);
        self.unless_said(said)
    }

    /// Returns the number of suppressed lines if a line about an unauthenticated peer may be logged now. Failed
    /// authentications have a limit of their own, so a flood of other connections does not hide them.
    pub(crate) fn may_log_stranger(&mut self, from: &Endpoint, reason: Reason) -> Option<u64> {
        let [failed, others] = &mut self.strangers;
        let strangers = if reason == Reason::AuthFailed { failed } else { others };
        let said = strangers.say(from.into(), self.now_ms);
        self.unless_said(said)
    }

    /// Returns true if the closing line of a connection may be logged, within the limit of its key if it has one. Reports
    /// the number of suppressed lines first.
    pub(crate) fn may_log_closed(&mut self, payer: Option<PeerId>) -> bool {
        let Some(payer) = payer else { return true };
        let Some(peer) = self.peers.get_mut(payer) else { return true };
        let (name, said) = (Arc::clone(peer.name()), peer.quiet_connections.say(self.now_ms));
        match self.unless_said(said) {
            None => false,
            Some(0) => true,
            Some(unsaid) => {
                tell_unsaid_of(&name, unsaid);
                true
            }
        }
    }

    /// Schedules the report of a suppressed line for the end of its period.
    fn unless_said(&mut self, said: Option<u64>) -> Option<u64> {
        if said.is_none() && !std::mem::replace(&mut self.tells_unsaid, true) {
            self.one_offs.push(self.now_ms + PERIOD_MS, OneOff::Unsaid);
        }
        said
    }

    /// Logs the number of suppressed lines of the periods that are over.
    pub(crate) fn tell_unsaid(&mut self) {
        let now_ms = self.now_ms;
        for (peer, unsaid) in self.peers.take_unsaid(now_ms) {
            tell_unsaid_of(&peer, unsaid);
        }
        for (strangers, reason) in self.strangers.iter_mut().zip(["auth_failed", "-"]) {
            let (told, rest) = strangers.take_unsaid(NETWORKS_TOLD_MAX, now_ms);
            for (network, unsaid) in told {
                log::info!(target: TARGET, from = network.to_string(), reason = reason, suppressed = unsaid; "log lines suppressed");
            }
            if rest > 0 {
                log::info!(target: TARGET, from = "others", reason = reason, suppressed = rest; "log lines suppressed");
            }
        }
        self.tells_unsaid = self.peers.has_unsaid() || self.strangers.iter().any(Strangers::has_unsaid);
        if self.tells_unsaid {
            self.one_offs.push(now_ms + PERIOD_MS / 10, OneOff::Unsaid);
        }
    }
}

fn tell_unsaid_of(peer: &str, unsaid: u64) {
    log::info!(target: TARGET, peer = peer, suppressed = unsaid; "log lines suppressed");
}

/// The target of the lines about links.
const TARGET: &str = "seaprox::link";
/// Lines that one peer may cause in a period.
const LINES_MAX: u32 = 100;
/// Lines that the strangers of one network may cause in a period.
const NETWORK_LINES_MAX: u32 = 20;
/// Lines that all strangers may cause in a period.
const ALL_LINES_MAX: u32 = 1000;
/// Networks of strangers that are told apart in a period, and whose counts are told one by one.
const NETWORKS_MAX: usize = 1024;
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
    fn a_flood_is_counted_and_not_written() {
        let mut quiet = Quiet::default();
        let lines = (0..100_000).filter_map(|ms| quiet.say(ms)).collect::<Vec<_>>();
        assert_eq!(lines.len(), 10 * LINES_MAX as usize);
        assert_eq!(lines.iter().sum::<u64>() + quiet.unsaid + lines.len() as u64, 100_000, "none is forgotten");
        assert_eq!(quiet.say(200_000), Some(PERIOD_MS - u64::from(LINES_MAX)), "and it is told later");
    }

    #[test]
    fn a_count_is_told_when_its_period_is_over_and_once() {
        let mut quiet = Quiet::default();
        (0..LINES_MAX + 7).for_each(|_| _ = quiet.say(5));
        assert_eq!((quiet.has_unsaid(), quiet.take_unsaid(PERIOD_MS - 1)), (true, None), "it goes on");
        assert_eq!(quiet.take_unsaid(PERIOD_MS), Some(7));
        assert_eq!((quiet.has_unsaid(), quiet.take_unsaid(PERIOD_MS)), (false, None));
    }

    #[test]
    fn lines_of_one_network_stay_visible_beside_a_flood_of_another() {
        let mut strangers = Strangers::default();
        let flood = (0..100_000).filter(|_| strangers.say(network(1), 7).is_some()).count();
        assert_eq!(flood, NETWORK_LINES_MAX as usize);
        assert_eq!(strangers.say(network(2), 8), Some(0));
        let (told, rest) = strangers.take_unsaid(8, PERIOD_MS + 8);
        assert_eq!((told, rest), (vec![(network(1), 100_000 - u64::from(NETWORK_LINES_MAX))], 0));
        assert!(!strangers.has_unsaid() && strangers.networks.is_empty());
    }

    #[test]
    fn the_lines_of_all_networks_and_the_table_are_bounded() {
        let mut strangers = Strangers::default();
        let said = (0..50_000).filter(|number| strangers.say(network(*number), 7).is_some()).count();
        assert_eq!(said, ALL_LINES_MAX as usize);
        assert_eq!(strangers.networks.len(), NETWORKS_MAX);
        let (told, rest) = strangers.take_unsaid(8, PERIOD_MS + 7);
        assert_eq!(told.len(), 8);
        assert_eq!(
            told.iter().map(|(_, unsaid)| unsaid).sum::<u64>() + rest + said as u64,
            50_000,
            "none is forgotten"
        );
        assert_eq!(strangers.say(network(1), 2 * PERIOD_MS), Some(0), "the next period has lines again");
    }
}
