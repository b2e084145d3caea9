//! The supervisor: the main thread of a process whose loops run. It acts on signals and on the events of links, and reads
//! changed files again, until all loops have ended.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::auth::{KeysError, PublicKey};
use seaprox::node::{LinkEvent, LinkMut};
use seaprox::{Loop, Loops, Remote};

use super::events::{EventQueue, ProcessEvent, watch_network};
use super::exit::{Exit, Failed, hint};
use super::link::{Action, Approvals, LinkLog, Links, PathChange, ServedLinks, prompt};
use super::logging;
use super::signals::Signal;
use crate::admin::Reporter;
use crate::frontends::access::AccessPolicy;
use crate::shared_file::Refresh;

/// The main thread's view of the process.
pub struct Supervisor {
    remotes: Vec<Remote>,
    reporter: Arc<Reporter>,
    access: Arc<AccessPolicy>,
    links: Option<Arc<Links>>,
    link_log: Option<LinkLog>,
    served_links: Option<ServedLinks>,
    drain: Duration,
    is_draining: bool,
    /// True once the process stops. Events of the dialed link are then caused by the stop, and ignored.
    is_stopping: bool,
    /// True while the user is asked about the key of the dialed peer.
    is_asking: bool,
    approvals: Approvals,
    /// Set on abnormal exit.
    exit_error: Option<Failed>,
    /// Lines for stdout that wait until it is known that the process will run.
    pending_lines: Option<Vec<String>>,
    sender: SyncSender<ProcessEvent>,
}

impl Supervisor {
    /// Creates the supervisor of these loops.
    pub fn new(
        queue: &EventQueue,
        remotes: Vec<Remote>,
        reporter: Arc<Reporter>,
        access: Arc<AccessPolicy>,
        links: Option<Arc<Links>>,
        drain: Duration,
    ) -> Supervisor {
        let link_log = links.as_ref().and_then(|links| links.link_log()).map(|log| log.asking(prompt::can_ask()));
        let served_links = links.as_ref().and_then(|links| links.served_links());
        Supervisor {
            remotes,
            reporter,
            access,
            links,
            link_log,
            served_links,
            drain,
            is_draining: false,
            is_stopping: false,
            is_asking: false,
            approvals: Approvals::default(),
            exit_error: None,
            pending_lines: None,
            sender: queue.sender(),
        }
    }

    /// Sets the lines that announce the listen addresses. They are printed once the process will run: at once if no link is
    /// dialed; otherwise when the link is up or its first attempt has failed without ending the process, and after
    /// [`ANNOUNCE_TIMEOUT`] at the latest.
    pub fn announcing(mut self, lines: Vec<String>) -> Supervisor {
        self.pending_lines = Some(lines);
        if self.link_log.is_none() {
            self.announce();
        }
        self
    }

    fn announce(&mut self) {
        // One write for all lines, so that a reader of the first line finds the others.
        let lines = self.pending_lines.take().filter(|lines| !lines.is_empty());
        lines.into_iter().for_each(|lines| logging::announce(&lines.join("\n")));
    }

    /// Acts on events until all loops have ended.
    ///
    /// # Errors
    /// Fails if a loop failed, or if the end of a link ended the process.
    pub fn run(mut self, queue: EventQueue, loops: Loops) -> Result<(), Failed> {
        let receiver = queue.start(loops);
        if self.link_log.is_some() {
            watch_network(&self.sender);
        }
        let has_files = self.links.is_some() || self.access.users().is_some();
        let (started, mut refreshed) = (Instant::now(), Instant::now());
        loop {
            let is_patient = self.link_log.as_ref().is_none_or(LinkLog::is_patient);
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
            ProcessEvent::DialedLink(_) if self.is_stopping => {}
            ProcessEvent::DialedLink(event) => {
                let action = self.link_log.as_mut().and_then(|log| log.handle(&event, Instant::now()));
                action.into_iter().for_each(|action| self.perform(action));
                if self.link_log.as_ref().is_some_and(|log| log.will_run(&event)) && !self.is_stopping {
                    self.announce();
                }
            }
            ProcessEvent::ServedLink(_, LinkEvent::Asked { key, request, connection }) => {
                self.approvals.add(key, request, connection);
                self.ask_next();
            }
            ProcessEvent::ServedLink(id, event) => {
                self.served_links.iter_mut().for_each(|served| served.log(id, &event));
            }
            ProcessEvent::NetworkChanged => {
                log::debug!(target: "seaprox::process", "an address or a route of this host has changed");
                call_all(&self.remotes, |core| core.network_changed());
            }
            ProcessEvent::KeyAnswered(key, is_right) => self.key_answered(key, is_right),
            ProcessEvent::RequestAnswered(is_permitted) => self.request_answered(is_permitted),
            ProcessEvent::LoopsEnded(_) => {}
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Reload => self.refresh_files(Refresh::Forced),
            Signal::Status => self.reporter.log(|line| logging::write_always("seaprox::status", line)),
            Signal::Replace => {
                log::warn!(target: "seaprox::process", "SIGUSR2 ignored: this version cannot replace its binary while it runs")
            }
            Signal::Drain if !std::mem::replace(&mut self.is_draining, true) => {
                let drain = self.drain;
                self.is_stopping = true;
                log::info!(target: "seaprox::process", timeout = seaprox::units::format_duration(drain); "draining");
                call_all(&self.remotes, move |core| core.drain(drain));
            }
            _ => {
                self.is_stopping = true;
                log::info!(target: "seaprox::process", "stopping");
                call_all(&self.remotes, |core| core.stop());
            }
        }
    }

    fn perform(&mut self, action: Action) {
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
                let Some(peer) = self.links.as_ref().and_then(|links| links.peer()) else { return };
                let sender = self.sender.clone();
                let answer = move |is_right| drop(sender.send(ProcessEvent::KeyAnswered(key, is_right)));
                self.is_asking = prompt::ask_about_key(peer.target(), key, answer).is_ok();
            }
        }
    }

    /// Asks the user about the next request of a peer, if the terminal is free.
    fn ask_next(&mut self) {
        let Some(links) = self.links.as_ref().filter(|_| !self.is_asking && !self.is_stopping) else { return };
        let Some(approval) = self.approvals.next() else { return };
        let (text, sender) = (links.question(&approval.key, &approval.request), self.sender.clone());
        let answer = move |is_permitted| drop(sender.send(ProcessEvent::RequestAnswered(is_permitted)));
        if prompt::ask(text, answer).is_err() {
            self.request_answered(false);
        }
    }

    fn request_answered(&mut self, is_permitted: bool) {
        let (Some(approval), Some(links)) = (self.approvals.answered(), &self.links) else { return };
        links.remember(&approval.key, &approval.request, is_permitted);
        log::info!(target: "seaprox::process", request = approval.request.to_string(), permitted = is_permitted; "request of a peer answered on the terminal");
        let connections = approval.connections;
        call_all(&self.remotes, move |core| {
            // A stream that is gone needs no answer; other loops do not have it.
            connections.iter().for_each(|id| _ = core.permit(*id, is_permitted));
        });
        self.ask_next();
    }

    fn key_answered(&mut self, key: PublicKey, is_right: bool) {
        self.is_asking = false;
        self.ask_next();
        let Some(peer) = self.links.as_ref().and_then(|links| links.peer()).cloned() else { return };
        if !is_right {
            let text = format!("seaprox: the key of {} was not accepted: {}", peer.target(), key.fingerprint());
            return self.exit(Failed::new(Exit::NoPermission, text));
        }
        match peer.accept(&key) {
            Ok(()) => {
                log::info!(target: "seaprox::process", node = peer.target().to_string(), key = key.fingerprint(); "key added to known_nodes");
                // The user does not wait for the next retry.
                call_all(&self.remotes, |core| {
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
        call_all(&self.remotes, |core| core.stop());
    }

    /// Reads the files of users, keys and paths again.
    fn refresh_files(&self, refresh: Refresh) {
        match self.access.refresh(refresh) {
            Ok(_) if matches!(refresh, Refresh::Forced) => log::info!(target: "seaprox::process", "files reloaded"),
            Ok(_) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "the users file cannot be read again; the previous users stay in use")
            }
        }
        let Some(links) = &self.links else { return };
        match links.refresh_keys(refresh) {
            Ok(true) => {
                log::info!(target: "seaprox::process", "keys read again");
                call_all(&self.remotes, |core| core.recheck_links());
            }
            Ok(false) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "a file of keys cannot be read again; the previous keys stay in use")
            }
        }
        match links.refresh_paths(refresh) {
            Ok(Some(change)) => {
                log::info!(target: "seaprox::process", added = change.added.len(), removed = change.removed.len(); "paths read again");
                call_all(&self.remotes, move |core| change_paths(core, &change));
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

/// Adds the new paths of the dialed link before it removes the old ones, so that the link is never without a path. If the
/// limit of paths does not allow this, removes the old ones first.
fn change_paths(core: &mut Loop<'_>, change: &PathChange) {
    for id in core.links().iter().filter(|link| link.dialled).map(|link| link.id) {
        let Ok(mut link) = core.link(id) else { continue };
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
}

/// Runs `call` in all loops.
fn call_all(remotes: &[Remote], call: impl Fn(&mut Loop<'_>) + Clone + Send + 'static) {
    for remote in remotes {
        // A full mailbox has room again after the next turn of its loop.
        while remote
            .call({
                let call = call.clone();
                move |core| call(core)
            })
            .is_err()
        {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Time after which the listen addresses are announced even if the link is not up.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval at which files are checked for changes.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
