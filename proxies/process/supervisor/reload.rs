//! Reloading: the source of the configuration is read again, and what differs is put into effect while everything runs.
//!
//! ```text
//!   request ──► thread: reads files, makes parts, binds addresses ──► main thread: puts them into effect ──► replies
//!      │                        │
//!      │                        └── no end within RELOAD_TIMEOUT: the reload fails, and changes nothing
//!      └── while another one is under way: waits, together with all others that come
//! ```
//! The main thread waits for no file and no name of a reload, so that signals, commands and health checks are answered
//! meanwhile. It does wait for those of a command that opens or closes a link or a forward (`put_into_effect`), and for the
//! files of users, keys and paths that it looks at each second, and reads if they have changed. There is one such thread at most:
//! a reload that has failed because its thread waits for ever keeps later ones from starting, and they fail after the same time.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use seaprox::config::{ApplyError, ApplyErrors, Config, PreparedChange};
use seaprox::units::format_duration;
use serde_json::json;

use super::Supervisor;
use super::prepared::{Job, Prepared, Progress};
use crate::admin::{AdminCommand, Cause, CommandError};
use crate::process::changes::{ChangesMade, ReloadResult, log_problems};
use crate::process::events::{CommandReply, ProcessEvent};
use crate::process::link::{self, prompt};
use crate::process::service;
use crate::process::source::Source;

/// The cause of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReloadCause {
    /// A changed file.
    Watch,
    /// SIGHUP.
    Signal,
    /// A command on the admin socket.
    Command,
}

/// The reloads of a process.
#[derive(Default)]
pub struct Reloads {
    running: Option<Reload>,
    /// The reload after the running one, for all requests that came meanwhile.
    next: Option<Reload>,
    /// Commands that change the configuration, and wait for the end of the running reload.
    deferred: VecDeque<(AdminCommand, CommandReply)>,
}

/// A reload that was asked for.
struct Reload {
    cause: ReloadCause,
    replies: Vec<CommandReply>,
    /// The time of the request, or of the start.
    since: Instant,
    /// The work of its thread.
    progress: Progress,
}

impl Supervisor {
    /// Reads the configuration again and puts it into effect, and reads the files of users, keys and paths again. A process
    /// that was started by flags has only these files. The log and the reply tell what came of it. If the configuration is
    /// invalid or cannot be put into effect, nothing changes.
    pub(super) fn reload(&mut self, cause: ReloadCause, reply: Option<CommandReply>) {
        if self.is_stopping {
            return answer(reply, &Err(vec![STOPPING.to_owned()]));
        }
        let replies = reply.into_iter().collect();
        let new = Reload { cause, replies, since: Instant::now(), progress: Progress::default() };
        match (&self.reloads.running, &mut self.reloads.next) {
            (None, _) => self.start_reload(new),
            (Some(_), Some(next)) => {
                next.cause = next.cause.max(new.cause);
                next.replies.extend(new.replies);
            }
            (Some(_), none) => *none = Some(new),
        }
    }

    /// Reads the configuration again if a watched file has changed.
    pub(super) fn look_at_source(&mut self) {
        if self.reloads.running.is_none() && self.source.as_mut().is_some_and(Source::is_due) {
            self.reload(ReloadCause::Watch, None);
        }
    }

    fn start_reload(&mut self, reload: Reload) {
        let reload = Reload { since: Instant::now(), ..reload };
        if reload.cause != ReloadCause::Watch {
            service::reloading();
        }
        let job = Job {
            load: self.source.as_mut().map(Source::begin),
            preparer: self.running.preparer(),
            parts: self.parts.clone(),
            command: self.command,
            opened_forwards: self.opened_forwards.clone(),
            has_instance: self.instance.is_some(),
            reads_files: reload.cause != ReloadCause::Watch,
            progress: reload.progress.clone(),
        };
        self.reloads.running = Some(reload);
        let sender = self.sender.clone();
        // The receiver is gone when the process ends.
        let body = move || drop(sender.send(ProcessEvent::Prepared(Box::new(job.run()))));
        if let Err(error) = thread::Builder::new().name("reload".into()).spawn(body) {
            self.source.iter_mut().for_each(|source| source.end(None));
            self.end_reload(Err(vec![format!("the thread of the reload cannot be started: {error}")]));
            self.reloads.running = None;
        }
    }

    /// Puts into effect what the thread of a reload has prepared.
    pub(super) fn prepared(&mut self, prepared: Prepared) {
        let Some(reload) = self.reloads.running.as_ref() else { return };
        if reload.progress.is_abandoned() {
            // The reload has failed before, and the source knows it. Keys that were read are in use all the same.
            prepared.files.into_iter().for_each(|files| self.follow_files(files));
        } else {
            let cause = reload.cause;
            let Prepared { read, change, opened_forwards, instance, files } = prepared;
            if self.instance.is_none() {
                self.instance = instance;
            }
            if let Some(source) = &mut self.source {
                source.end(read);
            }
            let result = match change {
                Ok(Some((change, wanted))) => self.put_prepared(cause, change, wanted),
                Ok(None) => Ok(ChangesMade::default()),
                Err(problems) => Err(problems.explained(|error| self.explain(error))),
            };
            if result.is_ok() {
                self.opened_forwards = opened_forwards;
                self.running.dial_closed_links();
            }
            files.into_iter().for_each(|files| self.follow_files(files));
            self.end_reload(result);
        }
        self.reloads.running = None;
        self.run_deferred();
        if let Some(next) = self.reloads.next.take() {
            self.start_reload(next);
        }
    }

    fn put_prepared(&mut self, cause: ReloadCause, change: PreparedChange, wanted: Config) -> ReloadResult {
        let made = self.put(change, &wanted)?;
        if cause != ReloadCause::Watch || !made.is_empty() {
            made.log(cause.as_str());
        }
        Ok(made)
    }

    /// Returns the time until the deadline of a reload, if one is under way.
    pub(super) fn time_to_reload_deadline(&self) -> Option<Duration> {
        let waits = |reload: &&Reload| !reload.progress.is_abandoned();
        let all = self.reloads.running.iter().chain(&self.reloads.next);
        all.filter(waits).map(|reload| RELOAD_TIMEOUT.saturating_sub(reload.since.elapsed())).min()
    }

    /// Ends a reload whose thread has not answered in time, and one that waits for it for too long.
    pub(super) fn end_late_reload(&mut self) {
        let is_late = |reload: &Reload| reload.since.elapsed() >= RELOAD_TIMEOUT;
        let Some(running) = &self.reloads.running else { return };
        let timeout = format_duration(RELOAD_TIMEOUT);
        if is_late(running) && !running.progress.is_abandoned() {
            running.progress.abandon();
            let problem = format!("{}: no answer within {timeout}", running.progress.step());
            self.source.iter_mut().for_each(|source| source.end(None));
            self.end_reload(Err(vec![problem]));
            self.run_deferred();
        } else if let Some(next) = self.reloads.next.take_if(|next| is_late(next)) {
            let step = self.reloads.running.as_ref().map_or_else(String::new, |running| running.progress.step());
            let problem = format!("{step}: an earlier reload still waits for an answer");
            self.tell_end(next, Err(vec![problem]));
        }
    }

    /// Answers all reloads, and the commands that wait for them, because the process stops.
    pub(super) fn cancel_reloads(&mut self) {
        let Reloads { running, next, deferred } = &mut self.reloads;
        running.iter().for_each(|reload| reload.progress.abandon());
        let replies = running.iter_mut().chain(next.iter_mut()).flat_map(|reload| std::mem::take(&mut reload.replies));
        replies.for_each(|reply| answer(Some(reply), &Err(vec![STOPPING.to_owned()])));
        for (_, reply) in deferred.drain(..) {
            reply.send(Err(CommandError::new(Cause::Unavailable, STOPPING)));
        }
        self.reloads.next = None;
    }

    /// Keeps a command that changes the configuration until the running reload has ended. Returns it if none is running.
    pub(super) fn defer(&mut self, command: AdminCommand, reply: CommandReply) -> Option<(AdminCommand, CommandReply)> {
        let Some(reload) = self.reloads.running.as_ref().filter(|_| !self.is_stopping) else {
            return Some((command, reply));
        };
        if !reload.progress.is_abandoned() && self.reloads.deferred.len() < DEFERRED_MAX {
            self.reloads.deferred.push_back((command, reply));
        } else {
            // The parts that the thread of that reload makes would be taken for parts of this change.
            let text = format!("{}: an earlier reload still waits for an answer", reload.progress.step());
            reply.send(Err(CommandError::new(Cause::Unavailable, text)));
        }
        None
    }

    fn run_deferred(&mut self) {
        for (command, reply) in std::mem::take(&mut self.reloads.deferred) {
            self.handle_command(command, reply);
        }
    }

    /// Tells all what came of the running reload.
    fn end_reload(&mut self, result: ReloadResult) {
        let Some(reload) = &mut self.reloads.running else { return };
        let replies = std::mem::take(&mut reload.replies);
        let ended = Reload { replies, cause: reload.cause, since: reload.since, progress: reload.progress.clone() };
        self.tell_end(ended, result);
    }

    fn tell_end(&mut self, reload: Reload, result: ReloadResult) {
        if self.pending_lines.is_none() && !self.is_stopping {
            service::ready(&service::serving(&self.running));
        }
        self.tell_readers(reload.cause, &result);
        reload.replies.into_iter().for_each(|reply| answer(Some(reply), &result));
        let problems = result.err().unwrap_or_default();
        if reload.cause != ReloadCause::Watch || problems != self.known_problems {
            log_problems(&problems, "the configuration is invalid, and nothing has changed");
        }
        self.known_problems = problems;
    }

    /// Tells the readers of events what came of a reload.
    fn tell_readers(&self, cause: ReloadCause, result: &ReloadResult) {
        let (added, changed, removed) = match result {
            Ok(made) => (made.added.len(), made.changed.len(), made.removed.len()),
            Err(_) => (0, 0, 0),
        };
        self.reporter.events.tell(json!({
            "event": "reload", "cause": cause.as_str(), "added": added, "changed": changed, "removed": removed,
            "problems": result.as_ref().err(),
        }));
    }

    /// Puts a configuration into effect as far as it differs, and follows it with logs and addresses.
    pub(super) fn put_into_effect(&mut self, config: Config) -> ReloadResult {
        check_terminal(&config)?;
        if config.has_links() && self.instance.is_none() {
            let instance =
                link::instance(self.command, &config, &self.parts).map_err(|error| vec![error.to_string()])?;
            self.instance = Some(instance);
        }
        let change = self.running.preparer().prepare(config.clone()).map_err(|errors| self.explain(&errors))?;
        self.put(change, &config)
    }

    /// Puts a change into effect that was prepared.
    fn put(&mut self, change: PreparedChange, wanted: &Config) -> ReloadResult {
        let before = self.running.config().clone();
        let failed = match self.running.put(change) {
            Ok(_) => Vec::new(),
            Err(errors) if errors.is_unchanged => return Err(self.explain(&errors)),
            Err(errors) => self.explain(&errors),
        };
        self.are_limits_shared = self.running.share_limits();
        self.follow(&before);
        Ok(ChangesMade::between(&before, self.running.config(), wanted, failed))
    }

    fn explain(&self, errors: &ApplyErrors) -> Vec<String> {
        errors.errors.iter().flat_map(|error| self.explain_one(error)).collect()
    }

    fn explain_one(&self, error: &ApplyError) -> Vec<String> {
        match &self.source {
            Some(source) => source.explain(error),
            None => error.to_string().lines().map(str::to_owned).collect(),
        }
    }
}

/// Checks that there is a terminal if a server asks its user.
///
/// # Errors
/// There is none.
pub(super) fn check_terminal(config: &Config) -> Result<(), Vec<String>> {
    match config.servers.iter().any(|server| server.asks) && !prompt::can_ask() {
        true => Err(vec!["ask: expected a terminal on stdin and stderr, to ask there".to_owned()]),
        false => Ok(()),
    }
}

/// Answers the client that asked for a reload.
fn answer(reply: Option<CommandReply>, result: &ReloadResult) {
    let Some(reply) = reply else { return };
    let result = match result {
        Ok(made) => Ok(json!({
            "done": "reloaded", "added": made.added, "changed": made.changed, "removed": made.removed,
            "kept": made.kept, "restarts": made.restarts, "failed": made.failed,
        })),
        Err(problems) => Err(CommandError::new(Cause::Config, problems.join("\n"))),
    };
    reply.send(result);
}

impl ReloadCause {
    fn as_str(self) -> &'static str {
        match self {
            ReloadCause::Signal => "signal",
            ReloadCause::Command => "command",
            ReloadCause::Watch => "watch",
        }
    }
}

/// Longest time for reading files and preparing a change.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands that wait for the end of a reload.
const DEFERRED_MAX: usize = 64;
const STOPPING: &str = "the process is stopping";
