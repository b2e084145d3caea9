//! What becomes of a link that this process dials: what is logged, what is printed for scripts, and when it is the end.
//!
//! ```text
//!   Trying --up--> Up --parted--> Parted --resumed--> Up
//!      ^            \---ended--\     |
//!      \________________________\____/            a key that is not right ends the process from any of them
//!                   Up --draining--> Left --up--> Up
//! ```
//! A failure is logged when it is the first in a row, and then whenever their number has doubled; the recovery says how many
//! there were. Nothing here prints or asks: the caller does what it is told by an [`Act`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use seaprox::auth::PublicKey;
use seaprox::node::{Happened, PeerKey, Reverse};
use seaprox::units::format_duration;
use seaprox::{Failure, Reason};

use super::trust::{Judgement, Peer, fingerprint};
use crate::{Exit, Failed};

/// What is to be done about something that happened.
#[derive(Debug)]
pub enum Act {
    /// Print a line on stdout.
    Print(String),
    /// Ask whether this is the right key.
    Ask(PublicKey),
    /// End the process.
    End(Failed),
}

/// The story of one link.
pub struct Watch {
    peer: Arc<Peer>,
    /// Our own key, for those who have to let us in.
    own: PublicKey,
    paths: usize,
    places: Vec<Place>,
    /// Whether somebody is there to be asked.
    asks: bool,
    /// Whether failures are the end.
    exits: bool,
    stage: Stage,
    /// Subflows that could not be had, since the link was up or resumed.
    failures: u32,
    was_up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Trying,
    Up,
    Parted(Instant),
    /// The peer is about to stop; holds the time of its notice. Another session is dialled, and the connections of the old
    /// one go on until it ends.
    Left {
        since: Instant,
        is_over: bool,
    },
}

/// A place where the peer is to listen.
struct Place {
    reverse: Reverse,
    port: Option<u16>,
    failures: u32,
}

impl Watch {
    /// The story of a link over so many paths, from its beginning.
    pub fn new(peer: Arc<Peer>, own: PublicKey, paths: usize, reverse: &[Reverse]) -> Watch {
        let place = |reverse: &Reverse| Place { reverse: reverse.clone(), port: None, failures: 0 };
        let places = reverse.iter().map(place).collect();
        let (asks, exits) = (false, false);
        Watch { peer, own, paths, places, asks, exits, stage: Stage::Trying, failures: 0, was_up: false }
    }

    /// Whether somebody is there to be asked about keys.
    pub fn asking(self, asks: bool) -> Watch {
        Watch { asks, ..self }
    }

    /// Whether the process ends when the link cannot be had or is lost.
    pub fn exiting(self, exits: bool) -> Watch {
        Watch { exits, ..self }
    }

    /// Takes in what happened.
    pub fn take(&mut self, happened: &Happened, now: Instant) -> Option<Act> {
        match happened {
            Happened::Up { key, fresh } => self.up(key, *fresh),
            Happened::Draining => {
                self.stage = Stage::Left { since: now, is_over: false };
                log::info!(target: "seaprox::link", link = self.name(); "the peer is stopping: what runs goes on, what is new waits for another session");
                None
            }
            Happened::Drained => {
                log::info!(target: "seaprox::link", link = self.name(); "the session with the peer that was stopping is over");
                if let Stage::Left { is_over, .. } = &mut self.stage {
                    *is_over = true;
                }
                None
            }
            Happened::Parted => {
                self.stage = Stage::Parted(now);
                log::warn!(target: "seaprox::link", link = self.name(); "no subflow is left, and connections wait");
                None
            }
            Happened::Resumed => {
                let after = match std::mem::replace(&mut self.stage, Stage::Up) {
                    Stage::Parted(since) => format_duration(round(now.saturating_duration_since(since))),
                    Stage::Trying | Stage::Up | Stage::Left { .. } => "-".to_owned(),
                };
                log::info!(target: "seaprox::link", link = self.name(), after = after, tries = self.failures; "link resumed, and nothing was lost");
                self.failures = 0;
                None
            }
            Happened::SubflowUp { place, tries } => {
                // Without any other it is the link that is up or resumed, and that says it.
                if *tries > 0 && self.stage == Stage::Up {
                    log::info!(target: "seaprox::link", link = self.name(), subflow = *place, tries = tries + 1; "subflow up");
                }
                None
            }
            Happened::NoSubflow { failure, tries, .. } => self.no_subflow(failure, *tries, now),
            Happened::WrongKey { key } => self.wrong_key(key),
            Happened::Rejected => Some(Act::End(Failed::new(Exit::NoPermission, self.rejected()))),
            Happened::Listening { index, port, lacks } => self.listening(*index, *port, lacks),
            Happened::NotListening { index, failure } => self.not_listening(*index, failure),
            Happened::Ended { reason, text } => self.ended(*reason, text),
            _ => None,
        }
    }

    /// Returns true if the process goes on after this event: the link is up, with all listeners that it must have, or it has
    /// failed and is dialled again.
    pub fn will_run(&self, happened: &Happened) -> bool {
        match happened {
            Happened::NoSubflow { failure, .. } => failure.reason != Reason::AuthFailed && !self.exits,
            _ => self.was_up && (!self.exits || self.places.iter().all(|place| place.port.is_some())),
        }
    }

    /// Returns true if a link that fails is dialled again, and false if the failure ends the process.
    pub fn is_patient(&self) -> bool {
        !self.exits
    }

    fn up(&mut self, key: &PeerKey, fresh: bool) -> Option<Act> {
        let (name, key) = (self.name(), fingerprint(key));
        let failures = std::mem::take(&mut self.failures);
        log::info!(target: "seaprox::link", link = name, key = key, tries = failures + 1, fresh = fresh; "link up");
        self.stage = Stage::Up;
        let is_first = !std::mem::replace(&mut self.was_up, true);
        is_first.then(|| Act::Print(format!("link up {name} {key}")))
    }

    fn no_subflow(&mut self, failure: &Failure, tries: u32, now: Instant) -> Option<Act> {
        self.failures = self.failures.saturating_add(1);
        let name = self.name();
        if let Stage::Left { since, is_over: true } = self.stage
            && self.exits
            && now.saturating_duration_since(since) >= SUCCESSOR_WAIT
        {
            let text = format!("seaprox: {name} has stopped, and nothing has taken its place: {failure}");
            return Some(Act::End(Failed::new(Exit::LinkLost, text)));
        }
        // What is wrong with a key is told by itself, at the same time and better.
        let is_key = failure.reason == Reason::AuthFailed;
        let patience = self.paths + usize::from(is_key);
        if self.exits && !self.was_up && self.failures as usize >= patience {
            let text = format!("seaprox: no link with {name}: {failure}");
            return Some(Act::End(Failed::new(Exit::Unavailable, text)));
        }
        // A way that fails while others work has a count of its own; without any, theirs are told as one.
        let count = if self.stage == Stage::Up { tries } else { self.failures };
        if count.is_power_of_two() && !(is_key && (self.asks || count == 1)) {
            let detail = failure.detail.as_deref().unwrap_or("-");
            log::warn!(target: "seaprox::link", link = name, tries = count, detail = detail; "no subflow: {} {name}", failure.reason);
        }
        None
    }

    fn wrong_key(&mut self, key: &PeerKey) -> Option<Act> {
        let name = self.name();
        let denied = |text: String| Some(Act::End(Failed::new(Exit::NoPermission, text)));
        let Ok(key) = PublicKey::from_bytes(*key) else {
            return denied(format!("seaprox: {name} has a key that anybody can sign for"));
        };
        let fingerprint = key.fingerprint();
        match self.peer.judge(&key) {
            // Somebody has written it down since it was refused.
            Judgement::Right => None,
            Judgement::Unknown { .. } if self.asks => Some(Act::Ask(key)),
            Judgement::Unknown { file } => denied(format!(
                "seaprox: the key of {name} is not known: {fingerprint}\n\
                 If that is what `seaprox pubkey --fingerprint` says there, add this line to {}:\n{name} {key}",
                file.display()
            )),
            Judgement::Changed { known, file, line } => denied(format!(
                "seaprox: THE KEY OF {name} HAS CHANGED. Either the node has a new key, or somebody is in between.\n\
                 It shows {fingerprint}\n\
                 and is known to have {} ({}:{line}).\n\
                 If the new key is right, put it in that line: {name} {key}",
                known.fingerprint(),
                file.display()
            )),
            Judgement::Other(wanted) => {
                denied(format!("seaprox: the key of {name} did not match: it shows {fingerprint}, expected {wanted}"))
            }
        }
    }

    fn rejected(&self) -> String {
        format!(
            "seaprox: {} does not let in our key {}\nLet it in there with this line in authorized_keys, and what it may do \
             in front of it:\n{}",
            self.name(),
            self.own.fingerprint(),
            self.own
        )
    }

    fn listening(&mut self, index: usize, port: u16, lacks: &str) -> Option<Act> {
        let link = self.name();
        let place = self.places.get_mut(index)?;
        let (at, to) = (place.reverse.listen.with_port(port), place.reverse.to.to_string());
        let failures = std::mem::take(&mut place.failures);
        if failures > 0 {
            log::info!(target: "seaprox::link", link = link, listen = at.to_string(), tries = failures + 1; "the peer listens");
        }
        if !lacks.is_empty() {
            log::warn!(target: "seaprox::link", link = link, listen = at.to_string(), lacks = format!("{lacks:?}"); "the peer listens on a part of it");
        }
        let is_new = place.port.replace(port) != Some(port);
        is_new.then(|| Act::Print(format!("listening remote {at} -> {to}")))
    }

    fn not_listening(&mut self, index: usize, failure: &Failure) -> Option<Act> {
        let (link, exits) = (self.name(), self.exits);
        let place = self.places.get_mut(index)?;
        place.failures = place.failures.saturating_add(1);
        let at = place.reverse.listen.to_string();
        if place.failures.is_power_of_two() {
            let detail = failure.detail.as_deref().unwrap_or("-");
            let reason = failure.reason.as_str();
            log::warn!(target: "seaprox::link", link = link, listen = at, tries = place.failures, reason = reason, detail = detail; "the peer does not listen");
        }
        let text = || format!("seaprox: {link} does not listen on {at}: {failure}");
        exits.then(|| Act::End(Failed::new(Exit::Unavailable, text())))
    }

    fn ended(&mut self, reason: Reason, text: &str) -> Option<Act> {
        let (name, was_up) = (self.name(), self.stage != Stage::Trying);
        self.stage = Stage::Trying;
        log::warn!(target: "seaprox::link", link = name, reason = reason.as_str(), detail = text; "link ended, and its connections with it");
        let text = if text.is_empty() { String::new() } else { format!(": {text}") };
        let lost =
            || Act::End(Failed::new(Exit::LinkLost, format!("seaprox: the link with {name} is lost: {reason}{text}")));
        (self.exits && was_up).then(lost)
    }

    fn name(&self) -> String {
        self.peer.target().to_string()
    }
}

/// Time for which the successor of a stopped peer is awaited, if failures end the process.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(10);

/// Nobody reads more than milliseconds.
fn round(duration: std::time::Duration) -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Pin;
    use crate::process::link::scratch::Scratch;
    use seaprox::auth::{Modes, NodeKey};
    use seaprox::{Bind, Target};

    fn key() -> PublicKey {
        NodeKey::generate().unwrap().public()
    }

    fn target() -> Target {
        Target::parse("remote:23232").unwrap()
    }

    fn watch(peer: Peer) -> Watch {
        let reverse = [Reverse { listen: Bind::Loopback(0), to: Target::parse("127.0.0.1:22").unwrap() }];
        Watch::new(Arc::new(peer), key(), 1, &reverse)
    }

    fn happens(watch: &mut Watch, happened: Happened) -> String {
        match watch.take(&happened, Instant::now()) {
            None => "-".to_owned(),
            Some(Act::Print(line)) => line,
            Some(Act::Ask(_)) => "?".to_owned(),
            Some(Act::End(failed)) => format!("{} {}", failed.exit as u8, failed.text),
        }
    }

    fn refused() -> Happened {
        Happened::NoSubflow { place: 0, failure: Reason::ConnectionRefused.into(), tries: 1 }
    }

    fn lost() -> Happened {
        Happened::Ended { reason: Reason::LinkLost, text: "no subflow came back in time".to_owned() }
    }

    #[test]
    fn a_link_that_comes_and_goes_is_printed_once_and_tried_for_ever() {
        let key = key();
        let mut watch = watch(Peer::pinned(target(), Pin::Key(key)));
        let up = |fresh| Happened::Up { key: *key.as_bytes(), fresh };
        assert_eq!(happens(&mut watch, refused()), "-");
        assert_eq!(happens(&mut watch, up(true)), format!("link up remote:23232 {}", key.fingerprint()));
        for happened in [Happened::Parted, refused(), Happened::Resumed, lost(), refused(), up(true)] {
            assert_eq!(happens(&mut watch, happened), "-");
        }
    }

    #[test]
    fn failures_are_the_end_where_that_was_asked_for() {
        let key = key();
        let new = || watch(Peer::pinned(target(), Pin::Key(key))).exiting(true);
        let mut watch = new();
        assert_eq!(happens(&mut watch, refused()), "69 seaprox: no link with remote:23232: connection_refused");
        let mut watch = new();
        happens(&mut watch, Happened::Up { key: *key.as_bytes(), fresh: true });
        assert_eq!(happens(&mut watch, Happened::Parted), "-");
        assert_eq!(happens(&mut watch, refused()), "-", "it may come back");
        let text = "75 seaprox: the link with remote:23232 is lost: link_lost: no subflow came back in time";
        assert_eq!(happens(&mut watch, lost()), text);
        let busy = Happened::NotListening { index: 0, failure: Reason::AddressInUse.into() };
        let text = "69 seaprox: remote:23232 does not listen on 0: address_in_use";
        assert_eq!(happens(&mut new(), busy.clone()), text);
        assert_eq!(happens(&mut new().exiting(false), busy), "-");
        let key_first = Happened::NoSubflow { place: 0, failure: Reason::AuthFailed.into(), tries: 1 };
        assert_eq!(happens(&mut new(), key_first), "-", "what is wrong with the key comes next");
        let mut two = Watch { paths: 2, ..new() };
        assert_eq!(happens(&mut two, refused()), "-", "there is another way");
        assert!(happens(&mut two, refused()).starts_with("69 "));
    }

    #[test]
    fn a_peer_that_stops_is_no_loss_while_what_runs_goes_on_and_its_successor_may_come() {
        let key = key();
        let mut watch = watch(Peer::pinned(target(), Pin::Key(key))).exiting(true);
        happens(&mut watch, Happened::Up { key: *key.as_bytes(), fresh: true });
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        let ends = |watch: &mut Watch, seconds| watch.take(&refused(), later(seconds)).is_some();
        assert_eq!(happens(&mut watch, Happened::Draining), "-");
        assert!(!ends(&mut watch, 100), "a connection may run over the session that there was");
        assert_eq!(happens(&mut watch, Happened::Drained), "-");
        assert!(!ends(&mut watch, 5), "the successor may be about to start");
        let Some(Act::End(failed)) = watch.take(&refused(), later(11)) else { panic!("it is lost") };
        assert_eq!(failed.exit as u8, 75);
        happens(&mut watch, Happened::Up { key: *key.as_bytes(), fresh: true });
        assert!(!ends(&mut watch, 100), "there is a successor");
    }

    #[test]
    fn a_wrong_key_is_always_the_end() {
        let (right, shown) = (key(), key());
        let wrong = || Happened::WrongKey { key: *shown.as_bytes() };
        let scratch = Scratch::new();
        let pinned = happens(&mut watch(Peer::pinned(target(), Pin::Key(right))), wrong());
        assert!(pinned.starts_with("77 seaprox: the key of remote:23232 did not match"), "{pinned}");
        assert!(pinned.contains(&right.fingerprint()) && pinned.contains(&shown.fingerprint()));
        let known = || Peer::known(target(), &scratch.path("known_nodes"), Modes::Strict).unwrap();
        let unknown = happens(&mut watch(known()), wrong());
        assert!(unknown.starts_with("77 ") && unknown.contains(&shown.fingerprint()), "{unknown}");
        assert!(unknown.ends_with(&format!("\nremote:23232 {shown}")), "{unknown}");
        assert_eq!(happens(&mut watch(known()).asking(true), wrong()), "?");
        known().accept(&right).unwrap();
        let changed = happens(&mut watch(known()).asking(true), wrong());
        assert!(changed.starts_with("77 ") && changed.contains("HAS CHANGED"), "{changed}");
        for part in [right.fingerprint(), shown.fingerprint(), format!("{}:1", scratch.path("known_nodes").display())] {
            assert!(changed.contains(&part), "{changed}");
        }
        known().accept(&shown).unwrap();
        assert_eq!(happens(&mut watch(known()), wrong()), "-", "somebody wrote it down");
        let own = watch(known()).own;
        let mut watch = Watch { own, ..watch(known()) };
        let rejected = happens(&mut watch, Happened::Rejected);
        assert!(rejected.starts_with("77 ") && rejected.ends_with(&own.to_string()), "{rejected}");
    }

    #[test]
    fn a_far_listener_is_told_with_its_port_whenever_that_is_new() {
        let mut watch = watch(Peer::pinned(target(), Pin::Key(key())));
        let at = |port| Happened::Listening { index: 0, port, lacks: String::new() };
        assert_eq!(happens(&mut watch, at(2222)), "listening remote 2222 -> 127.0.0.1:22");
        assert_eq!(happens(&mut watch, at(2222)), "-");
        assert_eq!(happens(&mut watch, at(2223)), "listening remote 2223 -> 127.0.0.1:22");
        assert_eq!(happens(&mut watch, Happened::Listening { index: 7, port: 1, lacks: String::new() }), "-");
    }
}
