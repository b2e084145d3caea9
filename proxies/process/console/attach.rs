//! The process that `seaprox console --attach` speaks to, by its admin socket.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::client::{self, AskError};
use crate::admin::{AdminCommand, PathChange, command::Named};
use crate::cli::Parsed;
use crate::console::{Process, ProcessError};
use crate::process::ask;
use crate::process::exit::Failed;

/// A process behind its admin socket.
pub struct Socket(PathBuf);

/// Finds the process that the command line names, or the only one of this user.
///
/// # Errors
/// Fails if there is no such process, or if there are several.
pub fn find(parsed: &Parsed) -> Result<Socket, Failed> {
    ask::find(parsed).map(Socket)
}

impl Socket {
    fn ask(&self, target: &str, body: Option<&Value>, time: Duration) -> Result<Value, ProcessError> {
        let response = client::ask(&self.0, target, body, time).map_err(|error| match &error {
            AskError::Silent(cause) if matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                ProcessError::Gone
            }
            _ => ProcessError::Refused(error.to_string()),
        })?;
        let status = response.status;
        let text = response.text().map_err(|error| ProcessError::Refused(error.to_string()))?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        match status {
            200 => Ok(answer),
            _ => Err(ProcessError::Refused(answer["error"].as_str().unwrap_or(text.trim()).to_owned())),
        }
    }
}

impl Process for Socket {
    fn status(&mut self) -> Result<Value, ProcessError> {
        self.ask("/status?connections=no", None, ask::ANSWER_TIME)
    }

    fn command(&mut self, command: AdminCommand) -> Result<Value, ProcessError> {
        let (target, body) = match command {
            AdminCommand::CloseLink(Named { name, .. }) => ("/close", json!({ "link": name })),
            AdminCommand::CloseForward(Named { name, .. }) => ("/close", json!({ "forward": name })),
            AdminCommand::OpenForward(new) => {
                let mut body = json!({ new.kind.as_str(): new.addresses });
                for (key, value) in [("link", new.link), ("name", new.name)] {
                    value.into_iter().for_each(|value| body[key] = value.into());
                }
                ("/open", body)
            }
            AdminCommand::ChangePaths { link, change } => {
                let mut body = match change {
                    PathChange::List => json!({}),
                    PathChange::Add(path) => json!({ "add": path }),
                    PathChange::Remove(path) => json!({ "remove": path }),
                };
                link.into_iter().for_each(|link| body["link"] = link.into());
                ("/paths", body)
            }
            _ => return Err(ProcessError::Refused("the console has no such command".to_owned())),
        };
        self.ask(target, Some(&body), COMMAND_TIME)
    }
}

/// Longest wait for the result of a command.
const COMMAND_TIME: Duration = Duration::from_secs(65);
