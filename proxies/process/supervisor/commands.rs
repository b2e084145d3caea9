//! The commands of the admin server, carried out by the supervisor.
//!
//! Links and forwards of the configuration are opened and closed as a change of the configuration in effect. Reading the
//! files again ends such a change: what the files name is opened, and what they do not name is closed. A forward that a
//! command has opened stays.

use seaprox::config::{Config, Forward, FrontEndConfig, Link, LinkPaths, Service};
use seaprox::node::{ForwardStatus, LinkStatus};
use seaprox::{Id, Kind, Loop, Reason, Remote, VerbError};
use serde_json::{Value, json};

use super::reload::ReloadCause;
use super::{CALL_TIMEOUT, Supervisor, logging};
use crate::admin::command::{ForwardKind, Named, NewForward};
use crate::admin::{AdminCommand, Cause, CommandError, PathChange};
use crate::cli::forwards;
use crate::links::addresses::{self, path_or_any};
use crate::process::announced::address_text;
use crate::process::events::CommandReply;
use crate::process::signals::Signal;

type Result<T> = std::result::Result<T, CommandError>;

impl Supervisor {
    /// Carries out a command, and answers it. A reload is answered when it is done. A change of the configuration waits for a
    /// reload that is under way; everything else is carried out beside it.
    pub(super) fn handle_command(&mut self, command: AdminCommand, reply: CommandReply) {
        let is_change = matches!(
            command,
            AdminCommand::CloseLink(_)
                | AdminCommand::CloseForward(_)
                | AdminCommand::OpenForward(_)
                | AdminCommand::ChangePaths { .. }
        );
        let next = if is_change { self.defer(command, reply) } else { Some((command, reply)) };
        let Some((command, reply)) = next else { return };
        if !reply.begin() {
            log::warn!(target: "seaprox::admin", command = format!("{command:?}"); "command dropped: its client waits no longer");
            return;
        }
        if command == AdminCommand::Reload {
            log::info!(target: "seaprox::admin", command = format!("{command:?}"); "command");
            return self.reload(ReloadCause::Command, Some(reply));
        }
        let result = self.command(command);
        reply.send(result);
    }

    /// Carries out a command. Returns a JSON object for the client.
    fn command(&mut self, command: AdminCommand) -> Result<Value> {
        log::info!(target: "seaprox::admin", command = format!("{command:?}"); "command");
        match command {
            // `handle_command` answers when the reload is done.
            AdminCommand::Reload => Err(CommandError::new(Cause::Unavailable, "the reload was not begun")),
            AdminCommand::Drain => {
                if self.is_draining {
                    return Err(CommandError::new(Cause::Conflict, "the process is draining already"));
                }
                self.handle_signal(Signal::Drain);
                Ok(json!({ "done": "draining" }))
            }
            AdminCommand::CloseConnection(named) => self.close_connection(&named),
            AdminCommand::CloseFlow(named) => self.close_flow(&named),
            AdminCommand::CloseLink(named) => self.close_link(&named),
            AdminCommand::CloseForward(named) => self.close_forward(&named),
            AdminCommand::OpenForward(forward) => self.open_forward(forward),
            AdminCommand::ChangePaths { link, change } => self.change_paths(link.as_deref(), change),
            AdminCommand::LogLevel(levels) => match logging::set_levels(&levels) {
                Ok(()) => Ok(json!({ "done": "log level set", "level": levels })),
                Err(error) => Err(CommandError::new(Cause::Invalid, error)),
            },
        }
    }

    fn close_connection(&self, named: &Named) -> Result<Value> {
        let (number, remote, id) =
            self.find_by_id(named, Kind::Connection, "connection", |core, id| core.connection(id).is_ok())?;
        ask(remote, move |core| core.connection(id).map(|mut it| it.abort(Reason::Killed)))?.map_err(verb)?;
        Ok(json!({ "done": "closed", "connection": named.name, "thread": number }))
    }

    fn close_flow(&self, named: &Named) -> Result<Value> {
        let (number, remote, id) = self.find_by_id(named, Kind::Flow, "flow", |core, id| core.flow(id).is_ok())?;
        ask(remote, move |core| core.close_flow(id))?.map_err(verb)?;
        Ok(json!({ "done": "closed", "flow": named.name, "thread": number }))
    }

    /// Returns the loop that has the record with an id, its number, and the id.
    fn find_by_id(
        &self,
        named: &Named,
        kind: Kind,
        word: &str,
        is_there: fn(&mut Loop, Id) -> bool,
    ) -> Result<(usize, &Remote, Id)> {
        let Some(id) = Id::parse(kind, &named.name) else {
            let text = format!("{:?}: expected the id of a {word}, such as 7.42", named.name);
            return Err(CommandError::new(Cause::Invalid, text));
        };
        let mut found = Vec::new();
        for (number, remote) in self.loops(named)? {
            if ask(remote, move |core| is_there(core, id))? {
                found.push((number, remote));
            }
        }
        match found[..] {
            [(number, remote)] => Ok((number, remote, id)),
            [] => Err(missing(word, named)),
            _ => {
                let text = format!("several threads have a {word} {}: expected the number of its thread", named.name);
                Err(CommandError::new(Cause::Conflict, text))
            }
        }
    }

    /// Closes a link. The name of a link in the configuration stands for the links to all its servers: it is taken out of the
    /// configuration in effect. Each other name stands for one link. The server of such a link is dialed again when the files
    /// are read again, and a peer may dial again at once.
    fn close_link(&mut self, named: &Named) -> Result<Value> {
        if let Some(name) = self.find_record(named)? {
            return self.close_record(&name);
        }
        let (remote, link) = self.find_link(named)?;
        // The only link of a record is the record.
        let mut alone = self.running.config().links.iter().filter(|it| link.dialled && !it.is_group());
        if let Some(name) = alone.find(|it| self.running.link(&it.name) == Some(link.id)).map(|it| it.name.clone()) {
            return self.close_record(&name);
        }
        ask(&remote, move |core| core.link(link.id).and_then(|mut it| it.close()))?.map_err(verb)?;
        Ok(json!({ "done": "closed", "link": link.id.to_string(), "name": link.name }))
    }

    /// Closes the links to all servers of a link of the configuration, with its forwards.
    fn close_record(&mut self, name: &str) -> Result<Value> {
        let ids: Vec<String> = self.running.links_of(name).iter().map(Id::to_string).collect();
        let is_group = self.running.config().link(name).is_some_and(Link::is_group);
        let done = match &ids[..] {
            [id] if !is_group => json!({ "done": "closed", "link": id, "name": name }),
            _ => json!({ "done": "closed", "links": ids, "name": name }),
        };
        let mut config = self.running.config().clone();
        if let Some(user) = config.listeners.iter().find(|it| it.link.as_deref() == Some(name)) {
            let text = format!("the clients of the listener {:?} go over the link {name:?}", user.name);
            return Err(CommandError::new(Cause::Conflict, text));
        }
        config.links.retain(|link| link.name != name);
        let changed = self.change(config);
        if self.running.config().link(name).is_none() {
            self.opened_forwards.retain(|(link, _)| link != name);
        }
        changed.map(|()| done)
    }

    fn close_forward(&mut self, named: &Named) -> Result<Value> {
        let (remote, forward) = self.find_forward(named)?;
        let done = json!({ "done": "closed", "forward": forward.id.to_string(), "name": forward.name });
        let mut config = self.running.config().clone();
        let is_it = |it: &Forward| it.name == forward.name;
        if config.links.iter().any(|link| link.forwards.iter().any(is_it)) {
            config.links.iter_mut().for_each(|link| link.forwards.retain(|it| !is_it(it)));
            let changed = self.change(config);
            if !self.running.config().links.iter().any(|link| link.forwards.iter().any(is_it)) {
                self.opened_forwards.retain(|(_, it)| !is_it(it));
            }
            changed?;
        } else {
            ask(&remote, move |core| core.forward(forward.id).and_then(|mut it| it.close()))?.map_err(verb)?;
        }
        Ok(done)
    }

    fn open_forward(&mut self, new: NewForward) -> Result<Value> {
        let mut config = self.running.config().clone();
        let link = dialed(&mut config, new.link.as_deref())?;
        let forward = forward_of(&new)?;
        let (link_name, name) = (link.name.clone(), forward.name.clone());
        link.forwards.push(forward.clone());
        self.change(config)?;
        self.opened_forwards.push((link_name.clone(), forward));
        let its = self.running.listening().into_iter().filter(|it| it.name == name);
        let bound: Vec<String> = its.map(|it| address_text(&it.addr)).collect();
        Ok(json!({ "done": "opened", "forward": name, "link": link_name, "bound": bound }))
    }

    /// Changes the paths of a link, until the files are read again.
    fn change_paths(&mut self, link: Option<&str>, change: PathChange<String>) -> Result<Value> {
        let mut config = self.running.config().clone();
        let link = dialed(&mut config, link)?;
        let port = link.peers.iter().find_map(seaprox::Upstream::port).unwrap_or(addresses::PORT);
        let change = change.try_map(|text| path_or_any(&text, port));
        let change = change.map_err(|text| CommandError::new(Cause::Invalid, text))?;
        let done = match &change {
            PathChange::List => "listed",
            PathChange::Add(_) => "added",
            PathChange::Remove(_) => "removed",
        };
        let paths = change.of(&link.paths).map_err(|text| CommandError::new(Cause::Conflict, text))?;
        let texts: Vec<String> = paths.iter().map(ToString::to_string).collect();
        let done = json!({ "done": done, "link": link.name, "paths": texts });
        let paths = LinkPaths::List(paths);
        if link.paths != paths {
            link.paths = paths;
            self.change(config)?;
        }
        Ok(done)
    }

    /// Puts another configuration into effect.
    fn change(&mut self, config: Config) -> Result<()> {
        match self.put_into_effect(config) {
            Ok(made) if made.failed.is_empty() => Ok(()),
            Ok(made) => Err(CommandError::new(Cause::Conflict, made.failed.join("\n"))),
            Err(problems) => Err(CommandError::new(Cause::Conflict, problems.join("\n"))),
        }
    }

    /// Returns the loops that may have a record, with their numbers.
    fn loops(&self, named: &Named) -> Result<Vec<(usize, &Remote)>> {
        let all = self.running.remotes().iter().enumerate();
        let some: Vec<_> = all.filter(|(number, _)| named.thread.is_none_or(|thread| thread == *number)).collect();
        match (some.is_empty(), named.thread) {
            (true, Some(thread)) => {
                let text = format!("thread {thread}: expected a number below {}", self.running.remotes().len());
                Err(CommandError::new(Cause::Missing, text))
            }
            _ => Ok(some),
        }
    }

    /// Finds the link of the configuration with this name. Fails if a peer that has dialed this node has the same name.
    fn find_record(&self, named: &Named) -> Result<Option<String>> {
        let config = self.running.config();
        // The links that this node dials are in the first loop.
        let Some(link) = config.link(&named.name).filter(|_| named.thread.is_none_or(|thread| thread == 0)) else {
            return Ok(None);
        };
        let served = self.collect(named, |core| core.links())?.into_iter();
        match served.filter(|(_, it)| !it.dialled && (it.name == named.name || it.peer == named.name)).count() {
            0 => Ok(Some(link.name.clone())),
            count => Err(ambiguous("link", named, count + 1)),
        }
    }

    /// Finds the only link with this id, name or peer.
    fn find_link(&self, named: &Named) -> Result<(Remote, LinkStatus)> {
        let id = Id::parse(Kind::Link, &named.name);
        let is_it = |link: &LinkStatus| Some(link.id) == id || link.name == named.name || link.peer == named.name;
        let all = self.collect(named, |core| core.links())?;
        only("link", named, all.into_iter().filter(|(_, link)| is_it(link)).collect())
    }

    fn find_forward(&self, named: &Named) -> Result<(Remote, ForwardStatus)> {
        let id = Id::parse(Kind::Forward, &named.name);
        let is_it = |forward: &ForwardStatus| Some(forward.id) == id || forward.name == named.name;
        let all = self.collect(named, |core| core.forwards())?;
        only("forward", named, all.into_iter().filter(|(_, forward)| is_it(forward)).collect())
    }

    fn collect<T: Send + 'static>(
        &self,
        named: &Named,
        question: impl Fn(&mut Loop<'_>) -> Vec<T> + Clone + Send + 'static,
    ) -> Result<Vec<(Remote, T)>> {
        let mut all = Vec::new();
        for (_, remote) in self.loops(named)? {
            let some = ask(remote, question.clone())?;
            all.extend(some.into_iter().map(|record| (remote.clone(), record)));
        }
        Ok(all)
    }
}

/// Adds the forwards that commands have opened to a configuration that was read again, as far as their links are there.
/// Forgets the others.
pub(super) fn add_opened_forwards(config: &mut Config, opened: &mut Vec<(String, Forward)>) {
    opened.retain(|(link, forward)| {
        let Some(link) = config.links.iter_mut().find(|it| it.name == *link) else { return false };
        let is_new = link.forwards.iter().all(|it| it.name != forward.name);
        if is_new {
            link.forwards.push(forward.clone());
        }
        is_new
    });
}

/// Returns the link of a configuration with this name, or the only one.
fn dialed<'a>(config: &'a mut Config, name: Option<&str>) -> Result<&'a mut Link> {
    let names: Vec<String> = config.links.iter().map(|link| link.name.clone()).collect();
    let place = match (name, &names[..]) {
        (Some(name), _) => config.links.iter().position(|it| it.name == name),
        (None, [_]) => Some(0),
        (None, []) => return Err(CommandError::new(Cause::Conflict, "this process dials no link")),
        (None, all) => {
            let text = format!("expected the name of a link: {}", all.join(", "));
            return Err(CommandError::new(Cause::Conflict, text));
        }
    };
    place.and_then(|place| config.links.get_mut(place)).ok_or_else(|| {
        let text = format!("no link {:?}; this process dials {}", name.unwrap_or_default(), names.join(", "));
        CommandError::new(Cause::Missing, text)
    })
}

/// Returns the forward that a client asks for.
fn forward_of(new: &NewForward) -> Result<Forward> {
    let wrong = |error: forwards::ForwardError| {
        CommandError::new(Cause::Invalid, format!("{} {:?}: {error}", new.kind.as_str(), new.addresses))
    };
    let text = &new.addresses;
    let (listen, service) = match new.kind {
        ForwardKind::Local => {
            let forwards::Forward { listen, to } = forwards::local(text).map_err(wrong)?;
            (listen, Service::Local(FrontEndConfig::new("static").with("to", to)))
        }
        ForwardKind::Remote => {
            let forwards::Forward { listen, to } = forwards::reverse(text).map_err(wrong)?;
            (listen, Service::Remote(to))
        }
        ForwardKind::Dynamic => (forwards::listen(text).map_err(wrong)?, Service::Local(FrontEndConfig::new("socks"))),
        ForwardKind::Http => (forwards::listen(text).map_err(wrong)?, Service::Local(FrontEndConfig::new("http"))),
    };
    let name = new.name.clone().unwrap_or_else(|| listen.to_string());
    Ok(Forward { name, listen, service })
}

/// Runs a question in a loop, and waits for its answer.
fn ask<T: Send + 'static>(remote: &Remote, question: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static) -> Result<T> {
    let pending = remote.ask_within(CALL_TIMEOUT, question).ok();
    let answer = pending.and_then(|pending| pending.wait_for(CALL_TIMEOUT).ok().flatten());
    answer.ok_or_else(|| CommandError::new(Cause::Unavailable, "a loop does not answer"))
}

fn only<T>(kind: &str, named: &Named, mut found: Vec<T>) -> Result<T> {
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(missing(kind, named)),
        count => Err(ambiguous(kind, named, count)),
    }
}

fn ambiguous(kind: &str, named: &Named, count: usize) -> CommandError {
    let text = format!("{count} {kind}s are named {:?}: expected an id, such as 0.1", named.name);
    CommandError::new(Cause::Conflict, text)
}

fn missing(kind: &str, named: &Named) -> CommandError {
    CommandError::new(Cause::Missing, format!("no {kind} {:?}", named.name))
}

fn verb(error: VerbError) -> CommandError {
    let cause = match error {
        VerbError::Stale | VerbError::Over(_) => Cause::Missing,
        _ => Cause::Conflict,
    };
    CommandError::new(cause, error.to_string())
}
