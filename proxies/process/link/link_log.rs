//! The log of the link that this process dials: the lines for the log and for scripts, and the decision when to exit.
//!
//! ```text
//!   Connecting --up--> Up --suspended--> Suspended --resumed--> Up
//!      ^                \--ended--\         |
//!      \___________________________\_______/       a wrong key ends the process in each state
//!                       Up --peer drains--> PeerDraining --up--> Up
//! ```
//! The first failure in a row is logged, and then each time their number has doubled; the recovery is logged with the
//! number. Nothing here prints or asks: the caller performs the [`Action`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use seaprox::auth::PublicKey;
use seaprox::config::{Link, LinkChange, LinkPaths, Service};
use seaprox::node::{LinkEvent, PeerKey, Reverse};
use seaprox::units::format_duration;
use seaprox::{Failure, Reason};

use crate::links::{DialedPeer, KeyCheck, fingerprint};
use crate::process::exit::{Exit, Failed};

/// An action that the caller must perform after an event.
#[derive(Debug)]
pub enum Action {
    /// Print a line on stdout.
    Print(String),
    /// Ask the user whether this is the key of the peer.
    AskAboutKey(PublicKey),
    /// Exit with an error.
    Exit(Failed),
    /// Let another server take the place of this link, which cannot be used as it is.
    GiveWay,
}

/// The log of one link.
pub struct LinkLog {
    peer: Arc<DialedPeer>,
    /// The key of this node, for the line that the peer needs.
    own: PublicKey,
    paths: usize,
    listeners: Vec<RemoteListener>,
    /// True if the user can be asked.
    asks: bool,
    /// True if failures end the process.
    exits: bool,
    /// True if nothing about the link ends the process, also not a wrong key: the link came with a reload.
    is_tolerant: bool,
    /// Faults of a link that must not end the process.
    faults: u32,
    state: LinkState,
    /// Failed attempts since the link was up or resumed.
    failures: u32,
    was_up: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Connecting,
    Up,
    Suspended {
        since: Instant,
    },
    /// The peer drains since this time. Another session is dialed; the connections of the old session continue until it ends.
    PeerDraining {
        since: Instant,
        has_ended: bool,
    },
}

/// A listener at the peer.
struct RemoteListener {
    reverse: Reverse,
    port: Option<u16>,
    failures: u32,
    /// True once the forward was closed.
    is_gone: bool,
}

impl RemoteListener {
    fn new(reverse: &Reverse) -> RemoteListener {
        RemoteListener { reverse: reverse.clone(), port: None, failures: 0, is_gone: false }
    }
}

impl LinkLog {
    /// Creates the log of a link with this number of paths and these listeners at the peer.
    pub fn new(peer: Arc<DialedPeer>, own: PublicKey, paths: usize, reverse: &[Reverse]) -> LinkLog {
        let listeners = reverse.iter().map(RemoteListener::new).collect();
        LinkLog {
            peer,
            own,
            paths,
            listeners,
            asks: false,
            exits: false,
            is_tolerant: false,
            faults: 0,
            state: LinkState::Connecting,
            failures: 0,
            was_up: false,
        }
    }

    /// Sets whether the user can be asked about an unknown key.
    pub fn asking(self, asks: bool) -> LinkLog {
        LinkLog { asks, ..self }
    }

    /// Sets whether the process exits when the link cannot be set up or is lost.
    pub fn exiting(self, exits: bool) -> LinkLog {
        LinkLog { exits, ..self }
    }

    /// Makes this the log of a link that a reload has added. Its failures are logged, and do not end the process.
    pub fn tolerant(self) -> LinkLog {
        LinkLog { is_tolerant: true, exits: false, ..self }
    }

    /// Returns true if this is the log of the link with this peer, and not of an earlier link of the same name.
    pub fn is_of(&self, peer: &Arc<DialedPeer>) -> bool {
        Arc::ptr_eq(&self.peer, peer)
    }

    /// Makes this the log of a link that lives on with another policy for its peer.
    pub fn of(self, peer: Arc<DialedPeer>) -> LinkLog {
        LinkLog { peer, ..self }
    }

    /// Takes over what has changed about the link while it lives on. Remote forwards that are new or changed were opened in
    /// the order of [`LinkChange::opened`], and have the next indices.
    pub fn follow(&mut self, before: Option<&Link>, now: &Link) {
        self.exits = now.exits_on_failure && !self.is_tolerant;
        if let LinkPaths::List(paths) = &now.paths {
            self.paths = paths.len();
        }
        let Some(change) = before.and_then(|before| LinkChange::between(before, now)) else { return };
        for forward in change.closed() {
            if let Service::Remote(to) = &forward.service {
                let is_it = |it: &&mut RemoteListener| it.reverse.listen == forward.listen && it.reverse.to == *to;
                // Nothing is awaited of a forward that is gone.
                self.listeners.iter_mut().filter(is_it).for_each(|it| it.is_gone = true);
            }
        }
        for forward in change.opened() {
            if let Service::Remote(to) = &forward.service {
                let reverse = Reverse { listen: forward.listen.clone(), to: to.clone() };
                self.listeners.push(RemoteListener::new(&reverse));
            }
        }
    }

    /// Logs an event. Returns the action that the caller must perform, if any.
    pub fn handle(&mut self, event: &LinkEvent, now: Instant) -> Option<Action> {
        match self.handle_event(event, now) {
            Some(Action::Exit(failed)) if self.is_tolerant => {
                if self.is_new_fault() {
                    log::error!(target: "seaprox::link", link = self.name(), error = failed.text; "the link cannot be used as it is, and is dialed on");
                }
                Some(Action::GiveWay)
            }
            action => action,
        }
    }

    /// Returns true for the first fault that would end the process, and each time their number has doubled.
    fn is_new_fault(&mut self) -> bool {
        self.faults = self.faults.saturating_add(1);
        self.faults.is_power_of_two()
    }

    fn handle_event(&mut self, event: &LinkEvent, now: Instant) -> Option<Action> {
        match event {
            LinkEvent::Up { key, fresh } => return self.up(key, *fresh),
            LinkEvent::NoSubflow { failure, tries, .. } => return self.no_subflow(failure, *tries, now),
            LinkEvent::WrongKey { key } => return self.wrong_key(key),
            LinkEvent::Rejected => return Some(Action::Exit(Failed::new(Exit::NoPermission, self.rejected()))),
            LinkEvent::Expired => return Some(Action::Exit(Failed::new(Exit::NoPermission, self.expired()))),
            LinkEvent::Listening { index, port, lacks } => return self.listening(*index, *port, lacks),
            LinkEvent::NotListening { index, failure } => return self.not_listening(*index, failure),
            LinkEvent::Ended { reason, text } => return self.ended(*reason, text),
            LinkEvent::Draining => {
                self.state = LinkState::PeerDraining { since: now, has_ended: false };
                log::info!(target: "seaprox::link", link = self.name(); "the peer is draining: existing connections continue, new ones wait for another session");
            }
            LinkEvent::Drained => {
                log::info!(target: "seaprox::link", link = self.name(); "the session with the draining peer has ended");
                if let LinkState::PeerDraining { has_ended, .. } = &mut self.state {
                    *has_ended = true;
                }
            }
            LinkEvent::Suspended => {
                self.state = LinkState::Suspended { since: now };
                log::warn!(target: "seaprox::link", link = self.name(); "link suspended: no subflow is left, and connections wait");
            }
            LinkEvent::Resumed => self.resumed(now),
            // The first subflow is not logged: the line about the link says that it is up or resumed.
            LinkEvent::SubflowUp { place, tries } if *tries > 0 && self.state == LinkState::Up => {
                log::info!(target: "seaprox::link", link = self.name(), subflow = *place, tries = tries + 1; "subflow up");
            }
            _ => {}
        }
        None
    }

    /// Returns true if it is known after this event that the process will run: the link is up with all listeners that it
    /// must have, or it has failed and is dialed again.
    pub fn will_run(&self, event: &LinkEvent) -> bool {
        match event {
            LinkEvent::NoSubflow { failure, .. } => failure.reason != Reason::AuthFailed && !self.exits,
            _ => {
                self.was_up
                    && (!self.exits
                        || self.listeners.iter().all(|listener| listener.is_gone || listener.port.is_some()))
            }
        }
    }

    /// Returns true if a failed link is dialed again, and false if the failure ends the process.
    pub fn is_patient(&self) -> bool {
        !self.exits
    }

    fn up(&mut self, key: &PeerKey, fresh: bool) -> Option<Action> {
        let (name, key) = (self.name(), fingerprint(key));
        let failures = std::mem::take(&mut self.failures);
        log::info!(target: "seaprox::link", link = name, key = key, tries = failures + 1, fresh = fresh; "link up");
        self.state = LinkState::Up;
        let is_first = !std::mem::replace(&mut self.was_up, true);
        is_first.then(|| Action::Print(format!("link up {name} {key}")))
    }

    fn resumed(&mut self, now: Instant) {
        let after = match std::mem::replace(&mut self.state, LinkState::Up) {
            LinkState::Suspended { since } => format_duration(round(now.saturating_duration_since(since))),
            LinkState::Connecting | LinkState::Up | LinkState::PeerDraining { .. } => "-".to_owned(),
        };
        log::info!(target: "seaprox::link", link = self.name(), after = after, tries = self.failures; "link resumed, and no data was lost");
        self.failures = 0;
    }

    fn no_subflow(&mut self, failure: &Failure, tries: u32, now: Instant) -> Option<Action> {
        self.failures = self.failures.saturating_add(1);
        let name = self.name();
        if let LinkState::PeerDraining { since, has_ended: true } = self.state
            && self.exits
            && now.saturating_duration_since(since) >= SUCCESSOR_TIMEOUT
        {
            let text = format!(
                "seaprox: {name} has stopped, and no other process has accepted the link within {}: {failure}",
                format_duration(SUCCESSOR_TIMEOUT)
            );
            return Some(Action::Exit(Failed::new(Exit::LinkLost, text)));
        }
        // `WrongKey` or `Rejected` comes at the same time and says more, so one more failure is allowed.
        let is_key = failure.reason == Reason::AuthFailed;
        let failures_max = self.paths + usize::from(is_key);
        if self.exits && !self.was_up && self.failures as usize >= failures_max {
            let text = format!("seaprox: no link with {name}: {failure}");
            return Some(Action::Exit(Failed::new(Exit::Unavailable, text)));
        }
        // While the link is up, the failures of each path are counted by themselves.
        let count = if self.state == LinkState::Up { tries } else { self.failures };
        if count.is_power_of_two() && !(is_key && (self.asks || count == 1)) {
            let detail = failure.detail.as_deref().unwrap_or("-");
            log::warn!(target: "seaprox::link", link = name, tries = count, detail = detail; "no subflow: {} {name}", failure.reason);
        }
        None
    }

    fn wrong_key(&mut self, key: &PeerKey) -> Option<Action> {
        let name = self.name();
        let denied = |text: String| Some(Action::Exit(Failed::new(Exit::NoPermission, text)));
        let Ok(key) = PublicKey::from_bytes(*key) else {
            return denied(format!("seaprox: {name} has a weak key, for which anyone can make signatures"));
        };
        let fingerprint = key.fingerprint();
        match self.peer.check(&key) {
            // The key was added to the file after the handshake was refused.
            KeyCheck::Matches => None,
            KeyCheck::Unknown { .. } if self.asks => Some(Action::AskAboutKey(key)),
            KeyCheck::Unknown { file } => denied(format!(
                "seaprox: the key of {name} is not known: {fingerprint}\n\
                 If `seaprox pubkey --fingerprint` prints the same there, add this line to {}:\n{} {key}",
                file.display(),
                self.peer.target()
            )),
            KeyCheck::Changed { known, file, line } => denied(format!(
                "seaprox: THE KEY OF {name} HAS CHANGED. Either the node has a new key, or an attacker is in between.\n\
                 It shows the key {fingerprint}\n\
                 and the known key is {} ({}:{line}).\n\
                 If the new key is right, replace that line by: {} {key}",
                known.fingerprint(),
                file.display(),
                self.peer.target()
            )),
            KeyCheck::Mismatch(expected) => {
                denied(format!("seaprox: the key of {name} did not match: it shows {fingerprint}, expected {expected}"))
            }
        }
    }

    fn rejected(&self) -> String {
        format!(
            "seaprox: {} has rejected the key of this node, {}\nTo authorize it, add this line to authorized_keys there, with \
             its permissions in front:\n{}",
            self.name(),
            self.own.fingerprint(),
            self.own
        )
    }

    fn expired(&self) -> String {
        format!(
            "seaprox: the key of this node has expired at {}: {}\nTo authorize it again, change valid-until= in its line of \
             authorized_keys there, or remove the line and join by a new invitation.",
            self.name(),
            self.own.fingerprint()
        )
    }

    fn listening(&mut self, index: usize, port: u16, lacks: &str) -> Option<Action> {
        let link = self.name();
        let listener = self.listeners.get_mut(index)?;
        let (at, to) = (listener.reverse.listen.with_port(port), listener.reverse.to.to_string());
        let failures = std::mem::take(&mut listener.failures);
        if failures > 0 {
            log::info!(target: "seaprox::link", link = link, listen = at.to_string(), tries = failures + 1; "the peer listens");
        }
        if !lacks.is_empty() {
            log::warn!(target: "seaprox::link", link = link, listen = at.to_string(), failed = format!("{lacks:?}"); "the peer listens on some of the addresses only");
        }
        let is_new = listener.port.replace(port) != Some(port);
        is_new.then(|| Action::Print(format!("listening remote {at} -> {to}")))
    }

    fn not_listening(&mut self, index: usize, failure: &Failure) -> Option<Action> {
        let (link, exits) = (self.name(), self.exits);
        let listener = self.listeners.get_mut(index)?;
        listener.failures = listener.failures.saturating_add(1);
        let at = listener.reverse.listen.to_string();
        if listener.failures.is_power_of_two() {
            let detail = failure.detail.as_deref().unwrap_or("-");
            let reason = failure.reason.as_str();
            log::warn!(target: "seaprox::link", link = link, listen = at, tries = listener.failures, reason = reason, detail = detail; "the peer does not listen");
        }
        let text = || format!("seaprox: {link} does not listen on {at}: {failure}");
        exits.then(|| Action::Exit(Failed::new(Exit::Unavailable, text())))
    }

    fn ended(&mut self, reason: Reason, text: &str) -> Option<Action> {
        let (name, was_connected) = (self.name(), self.state != LinkState::Connecting);
        self.state = LinkState::Connecting;
        log::warn!(target: "seaprox::link", link = name, reason = reason.as_str(), detail = text; "link ended, and its connections are reset");
        let text = if text.is_empty() { String::new() } else { format!(": {text}") };
        let lost = || {
            let text = format!("seaprox: the link with {name} is lost: {reason}{text}");
            Action::Exit(Failed::new(Exit::LinkLost, text))
        };
        (self.exits && was_connected).then(lost)
    }

    fn name(&self) -> String {
        self.peer.link_name().to_owned()
    }
}

/// Time for a successor of a draining peer to accept the link, if failures end the process.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(10);

/// Rounds down to milliseconds, for the log.
fn round(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::links::scratch::Scratch;
    use seaprox::auth::{Modes, NodeKey};
    use seaprox::config::Pin;
    use seaprox::{Bind, Proto, Target};

    fn key() -> PublicKey {
        NodeKey::generate().unwrap().public()
    }

    fn target() -> Target {
        Target::parse("remote:23232").unwrap()
    }

    fn log_of(peer: DialedPeer) -> LinkLog {
        let reverse = [Reverse { listen: Bind::Loopback(Proto::Tcp, 0), to: Target::parse("127.0.0.1:22").unwrap() }];
        LinkLog::new(Arc::new(peer), key(), 1, &reverse)
    }

    /// Handles an event. Returns the action as text: exit code and message, a line, `?` for a question or `-` for nothing.
    fn handle(log: &mut LinkLog, event: LinkEvent) -> String {
        match log.handle(&event, Instant::now()) {
            None => "-".to_owned(),
            Some(Action::Print(line)) => line,
            Some(Action::AskAboutKey(_)) => "?".to_owned(),
            Some(Action::Exit(failed)) => format!("{} {}", failed.exit as u8, failed.text),
            Some(Action::GiveWay) => "gives way".to_owned(),
        }
    }

    fn refused() -> LinkEvent {
        LinkEvent::NoSubflow { place: 0, failure: Reason::ConnectionRefused.into(), tries: 1 }
    }

    fn lost() -> LinkEvent {
        LinkEvent::Ended { reason: Reason::LinkLost, text: "no subflow came back in time".to_owned() }
    }

    #[test]
    fn a_link_that_comes_and_goes_is_printed_once_and_dialed_for_ever() {
        let key = key();
        let mut log = log_of(DialedPeer::pinned(target(), Pin::Key(key)));
        let up = |fresh| LinkEvent::Up { key: *key.as_bytes(), fresh };
        assert_eq!(handle(&mut log, refused()), "-");
        assert_eq!(handle(&mut log, up(true)), format!("link up remote:23232 {}", key.fingerprint()));
        for event in [LinkEvent::Suspended, refused(), LinkEvent::Resumed, lost(), refused(), up(true)] {
            assert_eq!(handle(&mut log, event), "-");
        }
    }

    #[test]
    fn failures_end_the_process_if_the_user_asked_for_it() {
        let key = key();
        let new = || log_of(DialedPeer::pinned(target(), Pin::Key(key))).exiting(true);
        let mut log = new();
        assert_eq!(handle(&mut log, refused()), "69 seaprox: no link with remote:23232: connection_refused");
        let mut log = new();
        handle(&mut log, LinkEvent::Up { key: *key.as_bytes(), fresh: true });
        assert_eq!(handle(&mut log, LinkEvent::Suspended), "-");
        assert_eq!(handle(&mut log, refused()), "-", "the link may be resumed");
        let text = "75 seaprox: the link with remote:23232 is lost: link_lost: no subflow came back in time";
        assert_eq!(handle(&mut log, lost()), text);
        let busy = LinkEvent::NotListening { index: 0, failure: Reason::AddressInUse.into() };
        let text = "69 seaprox: remote:23232 does not listen on 0: address_in_use";
        assert_eq!(handle(&mut new(), busy.clone()), text);
        assert_eq!(handle(&mut new().exiting(false), busy), "-");
        let key_first = LinkEvent::NoSubflow { place: 0, failure: Reason::AuthFailed.into(), tries: 1 };
        assert_eq!(handle(&mut new(), key_first), "-", "the event about the key comes next");
        let mut two = LinkLog { paths: 2, ..new() };
        assert_eq!(handle(&mut two, refused()), "-", "another path has not failed yet");
        assert!(handle(&mut two, refused()).starts_with("69 "));
    }

    #[test]
    fn a_draining_peer_is_a_loss_only_if_no_successor_comes_after_its_session() {
        let key = key();
        let mut log = log_of(DialedPeer::pinned(target(), Pin::Key(key))).exiting(true);
        handle(&mut log, LinkEvent::Up { key: *key.as_bytes(), fresh: true });
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        let ends = |log: &mut LinkLog, seconds| log.handle(&refused(), later(seconds)).is_some();
        assert_eq!(handle(&mut log, LinkEvent::Draining), "-");
        assert!(!ends(&mut log, 100), "a connection may still use the old session");
        assert_eq!(handle(&mut log, LinkEvent::Drained), "-");
        assert!(!ends(&mut log, 5), "a successor may be about to start");
        let Some(Action::Exit(failed)) = log.handle(&refused(), later(11)) else { panic!("the link is lost") };
        assert_eq!(failed.exit as u8, 75);
        handle(&mut log, LinkEvent::Up { key: *key.as_bytes(), fresh: true });
        assert!(!ends(&mut log, 100), "a successor has accepted the link");
    }

    #[test]
    fn a_wrong_key_always_ends_the_process() {
        let (right, shown) = (key(), key());
        let wrong = || LinkEvent::WrongKey { key: *shown.as_bytes() };
        let scratch = Scratch::new();
        let pinned = handle(&mut log_of(DialedPeer::pinned(target(), Pin::Key(right))), wrong());
        assert!(pinned.starts_with("77 seaprox: the key of remote:23232 did not match"), "{pinned}");
        assert!(pinned.contains(&right.fingerprint()) && pinned.contains(&shown.fingerprint()));
        let known = || DialedPeer::known(target(), &scratch.path("known_nodes"), Modes::Strict).unwrap();
        let unknown = handle(&mut log_of(known()), wrong());
        assert!(unknown.starts_with("77 ") && unknown.contains(&shown.fingerprint()), "{unknown}");
        assert!(unknown.ends_with(&format!("\nremote:23232 {shown}")), "{unknown}");
        assert_eq!(handle(&mut log_of(known()).asking(true), wrong()), "?");
        known().accept(&right).unwrap();
        let changed = handle(&mut log_of(known()).asking(true), wrong());
        assert!(changed.starts_with("77 ") && changed.contains("HAS CHANGED"), "{changed}");
        for part in [right.fingerprint(), shown.fingerprint(), format!("{}:1", scratch.path("known_nodes").display())] {
            assert!(changed.contains(&part), "{changed}");
        }
        known().accept(&shown).unwrap();
        assert_eq!(handle(&mut log_of(known()), wrong()), "-", "the key was added meanwhile");
        let own = log_of(known()).own;
        let mut log = LinkLog { own, ..log_of(known()) };
        let expired = handle(&mut log, LinkEvent::Expired);
        assert!(expired.starts_with("77 ") && expired.contains("has expired at remote:23232"), "{expired}");
        let rejected = handle(&mut log, LinkEvent::Rejected);
        assert!(rejected.starts_with("77 ") && rejected.ends_with(&own.to_string()), "{rejected}");
    }

    #[test]
    fn a_link_that_came_with_a_reload_gives_way_whenever_it_cannot_be_used() {
        let mut log = log_of(DialedPeer::pinned(target(), Pin::Key(key()))).tolerant();
        for event in [LinkEvent::Rejected, LinkEvent::Expired, LinkEvent::WrongKey { key: *key().as_bytes() }] {
            assert_eq!(handle(&mut log, event), "gives way");
        }
        assert_eq!(handle(&mut log, refused()), "-", "it is down, and its server may come back");
    }

    #[test]
    fn a_remote_listener_is_printed_whenever_its_port_is_new() {
        let mut log = log_of(DialedPeer::pinned(target(), Pin::Key(key())));
        let at = |port| LinkEvent::Listening { index: 0, port, lacks: String::new() };
        assert_eq!(handle(&mut log, at(2222)), "listening remote 2222 -> 127.0.0.1:22");
        assert_eq!(handle(&mut log, at(2222)), "-");
        assert_eq!(handle(&mut log, at(2223)), "listening remote 2223 -> 127.0.0.1:22");
        assert_eq!(handle(&mut log, LinkEvent::Listening { index: 7, port: 1, lacks: String::new() }), "-");
    }
}
