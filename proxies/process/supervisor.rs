//! The supervisor: the main thread of a process whose loops run. It acts on signals and on the events of links, and reads
//! changed files again, until all loops have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use seaprox::config::{Forward, Running};
use seaprox::node::LinkEvent;
use seaprox::{Id, Loop, Loops, Remote};

use super::announced::Announced;
use super::events::{EventQueue, ProcessEvent, watch_network};
use super::exit::{Exit, Failed};
use super::link::{self, Action, Approvals, GroupFailures, Instance, LinkLog, ServedLinks, prompt};
use super::logging;
use super::service;
use super::signals::{Signal, Signals};
use super::source::Source;
use crate::admin::Reporter;
use crate::cli::{Command, Parsed};
use crate::{LinkOwner, Parts};

pub use prepared::Prepared;
use reload::{ReloadCause, Reloads};

/// The main thread's view of the process.
pub struct Supervisor {
    running: Running,
    reporter: Arc<Reporter>,
    parts: Arc<Parts>,
    /// The logs of the links that this node dials, by their names.
    link_logs: BTreeMap<String, LinkLog>,
    /// The failures of the links of each group, by the name of its record.
    failures: BTreeMap<String, GroupFailures>,
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
    announced: Announced,
    /// The forwards that commands have opened, each with the name of its link.
    opened_forwards: Vec<(String, Forward)>,
    sender: SyncSender<ProcessEvent>,
    command: Command,
    /// The source of the configuration; none if it came from flags.
    source: Option<Source>,
    /// The problems of the last reload, so that a watch logs them once.
    known_problems: Vec<String>,
    /// Reserves the instance number of a process with links.
    instance: Option<Instance>,
    /// False while a loop uses more than its share of the limits, which another loop waits for.
    are_limits_shared: bool,
    /// True once changes of the network are reported.
    is_network_watched: bool,
    /// The reload that is under way, and the next one.
    reloads: Reloads,
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
        let links = parts.links();
        let own = match links.is_empty() {
            true => None,
            false => Some(parts.public_key().map_err(|error| Failed::made(parsed, error))?),
        };
        let log = |own| {
            let log = move |dialed: &Arc<crate::DialedLink>| {
                (dialed.name.clone(), link::log_of(own, dialed).asking(prompt::can_ask()))
            };
            links.iter().map(log).collect::<BTreeMap<_, _>>()
        };
        let link_logs = own.map(log).unwrap_or_default();
        let served_links = parts.servers().into_iter().map(|(name, peers)| (name, ServedLinks::new(peers))).collect();
        Ok(Supervisor {
            running,
            reporter,
            parts,
            awaited: link_logs.keys().cloned().collect(),
            link_logs,
            failures: BTreeMap::new(),
            served_links,
            is_draining: false,
            is_stopping: false,
            is_asking: false,
            approvals: Approvals::default(),
            exit_error: None,
            pending_lines: None,
            announced: Announced::none(),
            opened_forwards: Vec::new(),
            sender: queue.sender(),
            command: parsed.command(),
            source: None,
            known_problems: Vec::new(),
            instance: None,
            are_limits_shared: true,
            is_network_watched: false,
            reloads: Reloads::default(),
        })
    }

    /// Sets the listen addresses that are announced. Their lines are printed once the process will run: at once if no link is
    /// dialed; otherwise when each link is up or its first attempt has failed without ending the process, and after
    /// [`ANNOUNCE_TIMEOUT`] at the latest.
    pub fn announcing(mut self, announced: Announced) -> Supervisor {
        self.pending_lines = Some(announced.lines());
        self.announced = announced;
        if self.awaited.is_empty() {
            self.announce();
        }
        self
    }

    /// Sets the source of the configuration, and the instance number of a process with links.
    pub fn reloading(self, source: Option<Source>, instance: Option<Instance>) -> Supervisor {
        Supervisor { source, instance, ..self }
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
            self.watch_network();
        }
        let (started, mut refreshed) = (Instant::now(), Instant::now());
        loop {
            let is_patient = self.link_logs.values().all(LinkLog::is_patient);
            if started.elapsed() >= ANNOUNCE_TIMEOUT && is_patient && !self.is_asking && !self.is_stopping {
                self.announce();
            }
            let is_watched = self.source.as_ref().is_some_and(Source::is_watched);
            let has_files = self.parts.has_files() || is_watched || !self.are_limits_shared;
            let look = has_files.then(|| self.time_to_look(refreshed));
            let event = match look.into_iter().chain(self.time_to_reload_deadline()).min() {
                Some(pause) => receiver.recv_timeout(pause),
                None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            self.end_late_reload();
            if has_files && refreshed.elapsed() >= REFRESH_INTERVAL {
                refreshed = Instant::now();
                self.refresh_files(refreshed);
                self.look_at_source();
                self.are_limits_shared = self.running.share_limits();
            }
            self.end_expired();
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

    /// Returns the time until files are looked at again, or until a key expires.
    fn time_to_look(&self, refreshed: Instant) -> Duration {
        let pause = REFRESH_INTERVAL.saturating_sub(refreshed.elapsed());
        self.parts.time_to_expiry().map_or(pause, |expiry| pause.min(expiry))
    }

    /// Ends the links of keys that have expired.
    fn end_expired(&self) {
        if self.parts.has_expired_keys() {
            call_all(self.running.remotes(), |core| core.recheck_links());
        }
    }

    fn watch_network(&mut self) {
        if !std::mem::replace(&mut self.is_network_watched, true) {
            watch_network(&self.sender);
        }
    }

    fn handle(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Signal(signal) => self.handle_signal(signal),
            ProcessEvent::Link(LinkOwner::Link(name), id, event) => self.dialed_link(&name, id, &event),
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
            ProcessEvent::Command(command, reply) => self.handle_command(command, reply),
            ProcessEvent::Prepared(prepared) => self.prepared(*prepared),
            // A thread that asks no longer needs no answer.
            ProcessEvent::Pulse(answer) => drop(answer.try_send(())),
            ProcessEvent::LoopsEnded(_) => {}
        }
    }

    /// Handles an event of a link that this node dials.
    fn dialed_link(&mut self, name: &str, id: Id, event: &LinkEvent) {
        if self.is_stopping {
            return;
        }
        self.know_link(name);
        let Some(log) = self.link_logs.get_mut(name) else { return };
        let (action, will_run) = (log.handle(event, Instant::now()), log.will_run(event));
        action.into_iter().for_each(|action| self.perform(name, id, action));
        let will_run = will_run || self.link_logs.get(name).is_some_and(|log| log.will_run(event));
        if matches!(event, LinkEvent::Up { .. }) {
            self.link_is_up(name);
        }
        if will_run && self.awaited.remove(name) && self.awaited.is_empty() && !self.is_stopping {
            self.announce();
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => self.reload(ReloadCause::Signal, None),
            Signal::Status => self.reporter.log(|line| logging::write_always("seaprox::status", line)),
            Signal::Replace => {
                log::warn!(target: "seaprox::process", "SIGUSR2 ignored: this version cannot replace its binary while it runs")
            }
            Signal::Drain if !std::mem::replace(&mut self.is_draining, true) => {
                let drain = self.running.config().drain;
                self.is_stopping = true;
                log::info!(target: "seaprox::process", timeout = seaprox::units::format_duration(drain); "draining");
                service::stopping(drain);
                self.reporter.set_draining();
                self.cancel_reloads();
                call_all(self.running.remotes(), move |core| core.drain(drain));
            }
            _ => {
                self.is_stopping = true;
                log::info!(target: "seaprox::process", "stopping");
                service::stopping(Duration::ZERO);
                self.cancel_reloads();
                call_all(self.running.remotes(), |core| core.stop());
            }
        }
    }

    fn perform(&mut self, link: &str, id: Id, action: Action) {
        match action {
            // Lines about the link follow the lines about the listen addresses.
            Action::Print(line) => match &mut self.pending_lines {
                Some(lines) => lines.push(line),
                None => logging::announce(&line),
            },
            Action::Exit(failed) => self.link_failed(link, id, failed),
            Action::GiveWay => self.link_gives_way(link, id),
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

    /// Stops the loops, and then exits with this error. The first error counts.
    fn exit(&mut self, failed: Failed) {
        self.is_stopping = true;
        self.exit_error.get_or_insert(failed);
        service::stopping(Duration::ZERO);
        self.cancel_reloads();
        call_all(self.running.remotes(), |core| core.stop());
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

mod commands;
mod files;
mod follow;
mod groups;
mod prepared;
mod questions;
mod reload;
