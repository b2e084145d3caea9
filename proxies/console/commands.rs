//! The commands of the admin server of a console: it closes what it has opened. Everything else is done at its prompt.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use seaprox::{Id, Kind as IdKind, Reason};
use serde_json::{Value, json};

use super::board::{Entry, Kind, Record};
use super::node::{Change, Changes, Keeper};
use crate::admin::command::Named;
use crate::admin::{AdminCommand, Cause, CommandError, Commands};

impl Keeper {
    /// Carries out a command.
    pub(super) fn command(&mut self, command: AdminCommand) -> Result<Value, CommandError> {
        match command {
            AdminCommand::CloseLink(named) => self.close_named("link", &named, |entry| entry.kind == Kind::Connection),
            AdminCommand::CloseForward(named) => self.close_named("forward", &named, |entry| entry.parent.is_some()),
            AdminCommand::CloseConnection(named) => {
                let id = id_of(IdKind::Connection, &named)?;
                let closed = self.ask(move |core| core.connection(id).map(|mut it| it.abort(Reason::Killed)));
                closed_one("connection", &named, closed.map(|closed| closed.map_err(|error| error.to_string())))
            }
            AdminCommand::CloseFlow(named) => {
                let id = id_of(IdKind::Flow, &named)?;
                let closed = self.ask(move |core| core.close_flow(id));
                closed_one("flow", &named, closed.map(|closed| closed.map_err(|error| error.to_string())))
            }
            _ => Err(CommandError::new(Cause::Conflict, "this process is a console, which does that at its prompt")),
        }
    }

    /// Closes the object with an id, or with a name.
    fn close_named(&mut self, kind: &str, named: &Named, is_it: fn(&Entry) -> bool) -> Result<Value, CommandError> {
        let has_name = |entry: &Arc<Entry>| {
            let Record { id, name, label, remote, .. } = entry.record();
            let names = [id.map(|id| id.to_string()), name, label, Some(remote.text())];
            names.contains(&Some(named.name.clone()))
        };
        let found: Vec<_> = self.board.open().into_iter().filter(|it| is_it(it)).filter(has_name).collect();
        match &found[..] {
            [entry] => {
                self.close(entry);
                Ok(json!({ "done": "closed", kind: named.name }))
            }
            [] => Err(CommandError::new(Cause::Missing, format!("no {kind} {:?}", named.name))),
            several => {
                let text = format!("{} {kind}s are named {:?}: expected an id, such as 0.1", several.len(), named.name);
                Err(CommandError::new(Cause::Conflict, text))
            }
        }
    }
}

impl Commands for Changes {
    fn run(&self, command: AdminCommand) -> Result<Value, CommandError> {
        let unavailable = |text: String| CommandError::new(Cause::Unavailable, text);
        let (sender, result) = mpsc::sync_channel(1);
        self.post(Change::Command(command, sender)).map_err(unavailable)?;
        let no_answer = |_| unavailable("the console does not answer".to_owned());
        result.recv_timeout(COMMAND_TIME).map_err(no_answer)?
    }

    fn is_there(&self) -> bool {
        self.post(Change::Look).is_ok()
    }
}

fn id_of(kind: IdKind, named: &Named) -> Result<Id, CommandError> {
    let wrong = || CommandError::new(Cause::Invalid, format!("{:?}: expected an id, such as 7.42", named.name));
    Id::parse(kind, &named.name).ok_or_else(wrong)
}

fn closed_one(kind: &str, named: &Named, closed: Result<Result<(), String>, String>) -> Result<Value, CommandError> {
    match closed {
        Ok(Ok(())) => Ok(json!({ "done": "closed", kind: named.name, "thread": 0 })),
        Ok(Err(_)) => Err(CommandError::new(Cause::Missing, format!("no {kind} {:?}", named.name))),
        Err(error) => Err(CommandError::new(Cause::Unavailable, error)),
    }
}

/// Longest wait for the result of a command.
const COMMAND_TIME: Duration = Duration::from_secs(60);
