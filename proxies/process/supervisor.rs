//! The supervisor: the main thread of a process whose loops run. It acts on signals and on the events of links, and reads
//! changed files again, until all loops have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use seaprox::auth::{KeysError, PublicKey};
use seaprox::config::Running;
use seaprox::node::{LinkEvent, LinkMut, Policy};
use seaprox::{Id, Loop, Loops, Remote};

use super::events::{EventQueue, ProcessEvent, watch_network};
use super::exit::{Exit, Failed, hint};
use super::link::{self, Action, Approvals, LinkLog, ServedLinks, prompt};
use super::logging;
use super::service;
use super::signals::{Signal, Signals};
use crate::admin::Reporter;
use crate::cli::Parsed;
use crate::links::{PathChange, fingerprint};
use crate::shared_file::Refresh;
use crate::{DialedLink, LinkOwner, Parts};

/// The main thread's view of the process.
pub struct Supervisor {
    running: Running,
    reporter: Arc<Reporter>,
    parts: Arc<Parts>,
    /// The logs of the links that this node dials, by their names.
    link_logs: BTreeMap<String, LinkLog>,
    /// The logs of the links that peers dial, by the names of their servers.
    served_links: BTreeMap<String, ServedLinks>,
    /// The links whose first attempt is awaited before the listen addresses are announced.
    awaited: BTreeSet<String>,
    is_draining: bool,
    /// True once the process stops. Events of dialed links are then caused by the stop, and ignored.
    is_stopping: bool,
    /// True while the user is asked about the key of a dialed peer.
    is_asking: bool,
    approvals: Approvals,
    /// Set on abnormal exit.
    exit_error: Option<Failed>,
    /// Lines for stdout that wait until it is known that the process will run.
    pending_lines: Option<Vec<String>>,
    sender: SyncSender<ProcessEvent>,
}

impl Supervisor {
    /// Creates the supervisor of a running process.
    ///
    /// # Errors
    /// Fails if the key of this node cannot be used.
    pub fn new(
        parsed: &Parsed,
        queue: &EventQueue,
        running: Running,
        reporter: Arc<Reporter>,
        parts: Arc<Parts>,
    ) -> Result<Supervisor, Failed> {
        let log = |dialed: &Arc<DialedLink>| {
            let log = link::log_of(parsed, &parts, dialed)?.asking(prompt::can_ask());
            Ok((dialed.name.clone(), log))
        };
        let link_logs = parts.links().iter().map(log).collect::<Result<BTreeMap<_, _>, Failed>>()?;
        let served_links = parts.servers().into_iter().map(|(name, peers)| (name, ServedLinks::new(peers))).collect();
        Ok(Supervisor {
            running,
            reporter,
            parts,
            awaited: link_logs.keys().cloned().collect(),
            link_logs,
            served_links,
            is_draining: false,
            is_stopping: false,
            is_asking: false,
            approvals: Approvals::default(),
            exit_error: None,
            pending_lines: None,
            sender: queue.sender(),
        })
    }

    /// Sets the lines that announce the listen addresses. They are printed once the process will run: at once if no link is
    /// dialed; otherwise when each link is up or its first attempt has failed without ending the process, and after
    /// [`ANNOUNCE_TIMEOUT`] at the latest.
    pub fn announcing(mut self, lines: Vec<String>) -> Supervisor {
        self.pending_lines = Some(lines);
        if self.awaited.is_empty() {
            self.announce();
        }
        self
    }

    fn announce(&mut self) {
        // One write for all lines, so that a reader of the first line finds the others.
        let Some(lines) = self.pending_lines.take() else { return };
        if !lines.is_empty() {
            logging::announce(&lines.join("\n"));
        }
        service::ready(&service::serving(&self.running));
    }

    /// Acts on events until all loops have ended.
    ///
    /// # Errors
    /// Fails if a loop failed, or if the end of a link ended the process.
    pub fn run(mut self, queue: EventQueue, loops: Loops, signals: Signals) -> Result<(), Failed> {
        service::watch(self.running.remotes());
        let receiver = queue.start(loops, signals);
        if !self.link_logs.is_empty() {
            watch_network(&self.sender);
        }
        let has_files = self.parts.has_files();
        let (started, mut refreshed) = (Instant::now(), Instant::now());
        loop {
            let is_patient = self.link_logs.values().all(LinkLog::is_patient);
            if started.elapsed() >= ANNOUNCE_TIMEOUT && is_patient && !self.is_asking && !self.is_stopping {
                self.announce();
            }
            let event = match has_files {
                true => receiver.recv_timeout(REFRESH_INTERVAL.saturating_sub(refreshed.elapsed())),
                false => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            if has_files && refreshed.elapsed() >= REFRESH_INTERVAL {
                refreshed = Instant::now();
                self.refresh_files(Refresh::Periodic(refreshed));
            }
            match event {
                Ok(ProcessEvent::LoopsEnded(result)) => {
                    let failed = |error| Failed::new(Exit::Failure, format!("seaprox: {error}"));
                    return self.exit_error.map_or(result.map_err(failed), Err);
                }
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn handle(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Signal(signal) => self.handle_signal(signal),
            ProcessEvent::Link(LinkOwner::Link(name), _, event) => self.dialed_link(&name, &event),
            ProcessEvent::Link(LinkOwner::Server(_), _, LinkEvent::Asked { key, request, connection }) => {
                self.approvals.add(key, request, connection);
                self.ask_next();
            }
            ProcessEvent::Link(LinkOwner::Server(name), id, event) => {
                self.served_links.get_mut(&name).into_iter().for_each(|served| served.log(id, &event));
            }
            ProcessEvent::NetworkChanged => {
                log::debug!(target: "seaprox::process", "an address or a route of this host has changed");
                call_all(self.running.remotes(), |core| core.network_changed());
            }
            ProcessEvent::KeyAnswered(link, key, is_right) => self.key_answered(&link, key, is_right),
            ProcessEvent::RequestAnswered(is_permitted) => self.request_answered(is_permitted),
            ProcessEvent::LoopsEnded(_) => {}
        }
    }

    /// Handles an event of a link that this node dials.
    fn dialed_link(&mut self, name: &str, event: &LinkEvent) {
        if self.is_stopping {
            return;
        }
        let Some(log) = self.link_logs.get_mut(name) else { return };
        let (action, will_run) = (log.handle(event, Instant::now()), log.will_run(event));
        action.into_iter().for_each(|action| self.perform(name, action));
        let will_run = will_run || self.link_logs.get(name).is_some_and(|log| log.will_run(event));
        if will_run && self.awaited.remove(name) && self.awaited.is_empty() && !self.is_stopping {
            self.announce();
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => {
                service::reloading();
                self.refresh_files(Refresh::Forced);
                service::ready(&service::serving(&self.running));
            }
            Signal::Status => self.reporter.log(|line| logging::write_always("seaprox::status", line)),
            Signal::Replace => {
                log::warn!(target: "seaprox::process", "SIGUSR2 ignored: this version cannot replace its binary while it runs")
            }
            Signal::Drain if !std::mem::replace(&mut self.is_draining, true) => {
                let drain = self.running.config().drain;
                self.is_stopping = true;
                log::info!(target: "seaprox::process", timeout = seaprox::units::format_duration(drain); "draining");
                service::stopping(drain);
                call_all(self.running.remotes(), move |core| core.drain(drain));
            }
            _ => {
                self.is_stopping = true;
                log::info!(target: "seaprox::process", "stopping");
                service::stopping(Duration::ZERO);
                call_all(self.running.remotes(), |core| core.stop());
            }
        }
    }

    fn perform(&mut self, link: &str, action: Action) {
        match action {
            // Lines about the link follow the lines about the listen addresses.
            Action::Print(line) => match &mut self.pending_lines {
                Some(lines) => lines.push(line),
                None => logging::announce(&line),
            },
            Action::Exit(failed) => self.exit(failed),
            // A peer shows its key once for each subflow.
            Action::AskAboutKey(_) if self.is_asking => {}
            Action::AskAboutKey(key) => {
                let Some(dialed) = self.parts.link(link) else { return };
                let (sender, link) = (self.sender.clone(), link.to_owned());
                let answer = move |is_right| drop(sender.send(ProcessEvent::KeyAnswered(link, key, is_right)));
                self.is_asking = prompt::ask_about_key(dialed.peer.target(), key, answer).is_ok();
            }
        }
    }

    /// Asks the user about the next request of a peer, if the terminal is free.
    fn ask_next(&mut self) {
        if self.is_asking || self.is_stopping {
            return;
        }
        let Some(approval) = self.approvals.next() else { return };
        let (key, request) = (&approval.key, &approval.request);
        let name = self.parts.servers().first().map_or_else(String::new, |(_, peers)| peers.name(key));
        let text = format!("{name} ({}) wants this node to {request}. May it (yes/no)? ", fingerprint(key));
        let sender = self.sender.clone();
        let answer = move |is_permitted| drop(sender.send(ProcessEvent::RequestAnswered(is_permitted)));
        if prompt::ask(text, answer).is_err() {
            self.request_answered(false);
        }
    }

    fn request_answered(&mut self, is_permitted: bool) {
        let Some(approval) = self.approvals.answered() else { return };
        let servers = self.parts.servers();
        servers.iter().for_each(|(_, peers)| peers.remember(&approval.key, &approval.request, is_permitted));
        log::info!(target: "seaprox::process", request = approval.request.to_string(), permitted = is_permitted; "request of a peer answered on the terminal");
        let connections = approval.connections;
        call_all(self.running.remotes(), move |core| {
            // A stream that is gone needs no answer; other loops do not have it.
            connections.iter().for_each(|id| _ = core.permit(*id, is_permitted));
        });
        self.ask_next();
    }

    fn key_answered(&mut self, link: &str, key: PublicKey, is_right: bool) {
        self.is_asking = false;
        self.ask_next();
        let Some(peer) = self.parts.link(link).map(|link| Arc::clone(&link.peer)) else { return };
        if !is_right {
            let text = format!("seaprox: the key of {} was not accepted: {}", peer.target(), key.fingerprint());
            return self.exit(Failed::new(Exit::NoPermission, text));
        }
        match peer.accept(&key) {
            Ok(()) => {
                log::info!(target: "seaprox::process", node = peer.target().to_string(), key = key.fingerprint(); "key added to known_nodes");
                // The user does not wait for the next retry.
                call_all(self.running.remotes(), |core| {
                    for link in core.links().iter().filter(|link| link.dialled) {
                        // A link that is up or gone needs no redial.
                        let _ = core.link(link.id).and_then(|mut link| link.redial());
                    }
                });
            }
            Err(error) => self.exit(Failed::new(Exit::Config, format!("seaprox: {error}"))),
        }
    }

    /// Stops the loops, and then exits with this error. The first error counts.
    fn exit(&mut self, failed: Failed) {
        self.is_stopping = true;
        self.exit_error.get_or_insert(failed);
        service::stopping(Duration::ZERO);
        call_all(self.running.remotes(), |core| core.stop());
    }

    /// Reads the files of users, keys and paths again.
    fn refresh_files(&self, refresh: Refresh) {
        match self.parts.refresh_users(refresh) {
            Ok(()) if matches!(refresh, Refresh::Forced) => log::info!(target: "seaprox::process", "files reloaded"),
            Ok(()) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "the users file cannot be read again; the previous users stay in use")
            }
        }
        match self.parts.refresh_keys(refresh) {
            Ok(true) => {
                log::info!(target: "seaprox::process", "keys read again");
                call_all(self.running.remotes(), |core| core.recheck_links());
            }
            Ok(false) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "a file of keys cannot be read again; the previous keys stay in use")
            }
        }
        self.parts.links().iter().for_each(|link| self.refresh_paths(link, refresh));
    }

    fn refresh_paths(&self, link: &DialedLink, refresh: Refresh) {
        match link.refresh_paths(refresh) {
            Ok(Some(change)) => {
                log::info!(target: "seaprox::process", added = change.added.len(), removed = change.removed.len(); "paths read again");
                let id = self.running.link(&link.name);
                call_all(&self.running.remotes()[..1], move |core| {
                    id.into_iter().for_each(|id| change_paths(core, id, &change));
                });
            }
            Ok(None) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "the paths file cannot be read again; the previous paths stay in use")
            }
        }
    }
}

/// Returns the error about a file as the log shows it.
fn logged(error: &KeysError) -> String {
    format!("{error}{}", hint(error))
}

/// Adds the new paths of a link before it removes the old ones, so that the link is never without a path. If the limit of
/// paths does not allow this, removes the old ones first.
fn change_paths(core: &mut Loop<'_>, link: Id, change: &PathChange) {
    let Ok(mut link) = core.link(link) else { return };
    // A path that cannot be added, or is not there, changes nothing.
    let remove = |link: &mut LinkMut<'_>| change.removed.iter().for_each(|path| _ = link.remove_path(path));
    if change.is_tight {
        remove(&mut link);
    }
    change.added.iter().for_each(|path| _ = link.add_path(path));
    if !change.is_tight {
        remove(&mut link);
    }
}

/// Runs `call` in all loops, and waits for them, so that the supervisor has at most one call in each mailbox.
fn call_all(remotes: &[Remote], call: impl Fn(&mut Loop<'_>) + Clone + Send + 'static) {
    let asked: Vec<_> = remotes.iter().map(|remote| remote.ask_within(CALL_TIMEOUT, call.clone())).collect();
    for pending in asked {
        // A loop that has ended has nothing left to do.
        if pending.map_or(true, |pending| matches!(pending.wait_for(CALL_TIMEOUT), Ok(None))) {
            log::error!(target: "seaprox::process", timeout = seaprox::units::format_duration(CALL_TIMEOUT); "a loop does not answer");
        }
    }
}

/// Time after which the listen addresses are announced even if the link is not up.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for room in the mailbox of a loop, and for its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which files are checked for changes.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
