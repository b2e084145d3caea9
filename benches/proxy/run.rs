//! Runs sections: peers take turns within each round, so that other work on the machine disturbs all peers alike.
//!
//! Proxies are started when a section first needs them and stay up, idle, until the end. A peer that is not installed,
//! does not start or fails in a trial is reported once and left out; the run goes on.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::ground::Ground;
use crate::instance::{Description, Instance};
use crate::measure::{BUSY, QUEUED, Values};
use crate::peers::{self, Peer};
use crate::sections::Section;
use crate::trials::Subject;

pub struct Sample {
    pub peer: &'static str,
    pub round: usize,
    pub values: Values,
}

impl Sample {
    pub fn value(&self, key: &str) -> Option<f64> {
        value(&self.values, key)
    }
}

/// The peers that were measured, and those that were not.
#[derive(Default)]
pub struct Roll {
    /// The descriptions of the peers, in the order of their first start.
    pub descriptions: Vec<Description>,
    /// One line with the reason for each peer that was left out of a section.
    pub left_out: Vec<String>,
}

pub struct Runner<'a> {
    ground: &'a Ground,
    pub roll: &'a mut Roll,
    running: HashMap<&'static str, Instance>,
    /// Peers that did not start, and programs that are not installed.
    absent: HashSet<&'static str>,
    /// The time that the run may still spend on repeating samples.
    spare: Duration,
}

impl<'a> Runner<'a> {
    pub fn new(ground: &'a Ground, roll: &'a mut Roll) -> Runner<'a> {
        Runner { ground, roll, running: HashMap::new(), absent: HashSet::new(), spare: ground.options.spare }
    }

    pub fn section(&mut self, section: &Section) -> Vec<Sample> {
        let options = &self.ground.options;
        let rounds = options.rounds.min(section.rounds_max);
        let mut present: Vec<&'static str> = Vec::new();
        for name in section.peers {
            if self.is_wanted(name) && (*name == DIRECT || self.starts(name, section.fresh)) {
                present.push(name);
            }
        }
        let mut samples = Vec::new();
        for round in 0..rounds {
            present.retain(|peer| match self.sample(section, peer) {
                Ok(values) => {
                    samples.push(Sample { peer, round, values });
                    true
                }
                Err(why) => {
                    self.leave_out(format!("{peer} in {}, round {}: {why}", section.name, round + 1));
                    false
                }
            });
        }
        samples
    }

    /// Takes one sample. If other work used the proxy's processor, the sample is repeated while the run has time for
    /// that. Returns the least disturbed one.
    fn sample(&mut self, section: &Section, name: &str) -> Result<Values, String> {
        let mut best = self.once(section, name)?;
        for _ in 0..REPEATS_MAX {
            if queued(&best) < QUEUED_MUCH || value(&best, BUSY).unwrap_or(0.0) > BUSY_ENOUGH || self.spare.is_zero() {
                break;
            }
            let start = Instant::now();
            let again = self.once(section, name)?;
            self.spare = self.spare.saturating_sub(start.elapsed());
            if queued(&again) < queued(&best) {
                best = again;
            }
        }
        Ok(best)
    }

    fn once(&self, section: &Section, name: &str) -> Result<Values, String> {
        let fresh = match peers::peer(name) {
            Some(peer) if section.fresh => Some(Instance::start(self.ground, peer)?),
            _ => None,
        };
        let subject = Subject::new(self.ground, fresh.as_ref().or_else(|| self.running.get(name)));
        (section.trial)(self.ground, &subject).map_err(|error| error.to_string())
    }

    fn is_wanted(&self, name: &str) -> bool {
        let peer = peers::peer(name);
        if let Some(number) = peer.and_then(Peer::beside) {
            return number < self.ground.options.beside.len();
        }
        let family = peer.map_or(name, |peer| peer.family);
        self.ground.options.wants_peer(name, family)
    }

    /// Starts the peer unless it already runs or has failed before. Returns true if the peer can be measured. For a
    /// section that starts a fresh peer for each sample, this is only a test, and the peer is ended again.
    fn starts(&mut self, name: &'static str, fresh: bool) -> bool {
        let Some(peer) = peers::peer(name) else { return false };
        if self.absent.contains(name) || self.absent.contains(peer.family) {
            return false;
        }
        if self.running.contains_key(name) {
            return true;
        }
        if let Err(why) = peer.program(&self.ground.options) {
            self.leave_out(format!("{}: {why}", peer.family));
            self.absent.insert(peer.family);
            return false;
        }
        match Instance::start(self.ground, peer) {
            Ok(instance) => {
                self.describe(peer, &instance);
                if !fresh {
                    self.running.insert(name, instance);
                }
                true
            }
            Err(why) => {
                self.leave_out(format!("{name}: {why}"));
                self.absent.insert(name);
                false
            }
        }
    }

    fn describe(&mut self, peer: &Peer, instance: &Instance) {
        if self.roll.descriptions.iter().all(|known| known.name != peer.name) {
            self.roll.descriptions.push(instance.description.clone());
        }
    }

    fn leave_out(&mut self, line: String) {
        println!("left out: {line}");
        if !self.roll.left_out.contains(&line) {
            self.roll.left_out.push(line);
        }
    }
}

fn value(values: &Values, key: &str) -> Option<f64> {
    values.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

fn queued(values: &Values) -> f64 {
    value(values, QUEUED).unwrap_or(0.0)
}

/// The row without a proxy.
pub const DIRECT: &str = "direct";

/// The busy share of the window, in percent, from which on a proxy had its processor for itself.
pub const BUSY_ENOUGH: f64 = 90.0;
/// The wait for a processor, in percent of the window, from which on a proxy was disturbed by other work.
pub const QUEUED_MUCH: f64 = 8.0;
/// The share of the machine, in percent, from which on other programs disturbed a peer.
pub const OTHERS_MUCH: f64 = 25.0;
const REPEATS_MAX: usize = 2;
