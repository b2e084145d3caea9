//! Reloading: the source of the configuration is read again, and what differs is put into effect while everything runs.

use seaprox::config::{ApplyError, Config, Diff};
use serde_json::json;

use super::Supervisor;
use crate::process::changes::{ChangesMade, ReloadResult, log_problems};
use crate::process::link::{self, prompt};
use crate::process::source::Source;
use crate::process::{service, settings};
use crate::shared_file::Refresh;

/// The cause of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadCause {
    /// SIGHUP.
    Signal,
    /// A command on the admin socket.
    Command,
    /// A changed file.
    Watch,
}

impl Supervisor {
    /// Reads the configuration again and puts it into effect, and reads the files of users, keys and paths again. A process
    /// that was started by flags has only these files.
    ///
    /// # Errors
    /// All problems, if the configuration is invalid or cannot be put into effect. Nothing has changed then.
    pub(super) fn reload(&mut self, cause: ReloadCause) -> ReloadResult {
        if self.is_stopping {
            return Err(vec!["the process is stopping".to_owned()]);
        }
        if cause != ReloadCause::Watch {
            service::reloading();
        }
        let result = self.reload_source(cause);
        if cause != ReloadCause::Watch {
            self.refresh_files(Refresh::Forced);
        }
        if self.pending_lines.is_none() {
            service::ready(&service::serving(&self.running));
        }
        let problems = result.as_ref().err().cloned().unwrap_or_default();
        self.tell_reload(cause, &result);
        if cause != ReloadCause::Watch || problems != self.known_problems {
            log_problems(&problems, "the configuration is invalid, and nothing has changed");
        }
        self.known_problems = problems;
        result
    }

    /// Tells the readers of events what came of a reload.
    fn tell_reload(&self, cause: ReloadCause, result: &ReloadResult) {
        let (added, changed, removed) = match result {
            Ok(made) => (made.added.len(), made.changed.len(), made.removed.len()),
            Err(_) => (0, 0, 0),
        };
        self.reporter.events.tell(json!({
            "event": "reload", "cause": cause.as_str(), "added": added, "changed": changed, "removed": removed,
            "problems": result.as_ref().err(),
        }));
    }

    /// Reads the configuration again if a watched file has changed.
    pub(super) fn look_at_source(&mut self) {
        if self.source.as_mut().is_some_and(Source::is_due) {
            // The log has what came of it.
            drop(self.reload(ReloadCause::Watch));
        }
    }

    fn reload_source(&mut self, cause: ReloadCause) -> ReloadResult {
        let Some(source) = &mut self.source else { return Ok(ChangesMade::default()) };
        let mut config = source.load()?;
        settings::fit(&mut config, settings::Fit::Again);
        self.add_opened_forwards(&mut config);
        let made = self.put_into_effect(config)?;
        if cause != ReloadCause::Watch || !made.is_empty() {
            made.log(cause.as_str());
        }
        Ok(made)
    }

    /// Puts a configuration into effect as far as it differs, and follows it with logs and addresses.
    pub(super) fn put_into_effect(&mut self, config: Config) -> ReloadResult {
        self.prepare_links(&config)?;
        let (before, wanted) = (self.running.config().clone(), config.clone());
        let failed = match self.running.apply(config) {
            Ok(_) => Vec::new(),
            Err(errors) => {
                let texts = errors.errors.iter().flat_map(|error| self.explain(error)).collect();
                if errors.is_unchanged {
                    return Err(texts);
                }
                texts
            }
        };
        self.are_limits_shared = self.running.share_limits();
        self.follow(&before);
        Ok(ChangesMade::between(&before, self.running.config(), &wanted, failed))
    }

    fn explain(&self, error: &ApplyError) -> Vec<String> {
        match &self.source {
            Some(source) => source.explain(error),
            None => error.to_string().lines().map(str::to_owned).collect(),
        }
    }

    /// Prepares the first links of a process that had none.
    fn prepare_links(&mut self, config: &Config) -> Result<(), Vec<String>> {
        if config.servers.iter().any(|server| server.asks) && !prompt::can_ask() {
            return Err(vec!["ask: expected a terminal on stdin and stderr, to ask there".to_owned()]);
        }
        if config.has_links() && self.instance.is_none() {
            let instance =
                link::instance(self.command, config, &self.parts).map_err(|error| vec![error.to_string()])?;
            self.instance = Some(instance);
        }
        Ok(())
    }

    /// Makes the logs of links, and the announced addresses, those of the configuration in effect.
    fn follow(&mut self, before: &Config) {
        let diff = Diff::between(before, self.running.config());
        self.follow_links(before, &diff);
        self.follow_servers(&diff);
        self.follow_addresses();
        if self.awaited.is_empty() {
            self.announce();
        }
    }

    fn follow_links(&mut self, before: &Config, diff: &Diff) {
        let config = self.running.config();
        let links = self.parts.links();
        for change in diff.links.changed.iter().filter(|change| change.is_renewed) {
            let name = &change.link.name;
            let old = old_name(diff, "link", name);
            for dialed in links.iter().filter(|dialed| dialed.group == *name) {
                // The links of a group have its name in front of theirs.
                let of_member = dialed.name.strip_prefix(name.as_str()).map(|rest| format!("{old}{rest}"));
                let log = self.link_logs.remove(&of_member.unwrap_or_else(|| dialed.name.clone()));
                log.into_iter().for_each(|log| {
                    drop(self.link_logs.insert(dialed.name.clone(), log.of(dialed.peer.clone())));
                });
            }
        }
        let is_there = |name: &str| links.iter().any(|link| link.name == name);
        self.link_logs.retain(|name, _| is_there(name));
        self.awaited.retain(|name| is_there(name));
        self.failures.retain(|name, _| config.link(name).is_some());
        for dialed in &links {
            let Some(now) = config.link(&dialed.group) else { continue };
            match self.link_logs.get_mut(&dialed.name).filter(|log| log.is_of(&dialed.peer)) {
                Some(log) => log.follow(before.link(old_name(diff, "link", &dialed.group)), now),
                None => {
                    // The key was loaded when the link was made.
                    let Ok(own) = self.parts.public_key() else { continue };
                    let log = link::log_of(own, dialed).asking(prompt::can_ask()).tolerant();
                    self.link_logs.insert(dialed.name.clone(), log);
                }
            }
        }
        if !self.link_logs.is_empty() {
            self.watch_network();
        }
    }

    fn follow_servers(&mut self, diff: &Diff) {
        let mut before = std::mem::take(&mut self.served_links);
        for (name, peers) in self.parts.servers() {
            let served = match before.remove(old_name(diff, "server", &name)) {
                Some(served) => served.following(peers),
                None => link::ServedLinks::new(peers),
            };
            self.served_links.insert(name, served);
        }
    }

    /// Announces the addresses that are new, and shows all of them in the status.
    fn follow_addresses(&mut self) {
        let before = self.announced.lines();
        let lines = self.announced.follow(&self.running, &self.parts);
        self.reporter.set_listening(self.announced.addresses());
        match &mut self.pending_lines {
            Some(pending) => {
                // Lines about links stay behind those about addresses.
                pending.retain(|line| !before.contains(line));
                pending.splice(0..0, self.announced.lines());
            }
            None if lines.is_empty() => {}
            None => crate::process::logging::announce(&lines.join("\n")),
        }
    }
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

/// Returns the name that a link or a server had before.
fn old_name<'a>(diff: &'a Diff, kind: &str, name: &'a str) -> &'a str {
    diff.renames.iter().find(|it| it.kind == kind && it.to == name).map_or(name, |it| &it.from)
}
