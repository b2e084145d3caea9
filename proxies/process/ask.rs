//! Questions to a running process: finds its admin socket, and sends one request.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use seaprox::config::StatusSocket;
use serde_json::Value;

use super::exit::{Exit, Failed};
use crate::admin::client::{self, AskError, Response};
use crate::admin::socket;
use crate::cli::Parsed;

/// Returns the admin socket of the process that the command line names: by `--status`, by its number, or by what it runs;
/// otherwise that of the only process of this user.
///
/// # Errors
/// Fails if there is no such process, or if there are several.
pub fn find(parsed: &Parsed) -> Result<PathBuf, Failed> {
    if let StatusSocket::At(path) = parsed.status()? {
        return Ok(path);
    }
    let name = parsed.process();
    if let Some(pid) = name.as_deref().and_then(|name| name.parse().ok()).filter(|pid| *pid != 0) {
        return socket::path_of(pid).map_err(|error| unavailable(parsed, error));
    }
    let mut running = socket::running().map_err(|error| unavailable(parsed, error))?;
    if let Some(name) = &name {
        running.retain(|path| summary_of(path).is_some_and(|summary| runs(&summary, name)));
    }
    match (running.len(), name) {
        (1, _) => Ok(running.remove(0)),
        (0, None) => Err(unavailable(parsed, "no process of this user is running")),
        (0, Some(name)) => {
            Err(unavailable(parsed, format!("no process of this user runs {name:?}; expected a PID, or a name")))
        }
        _ => {
            running.sort_by_key(|path| pid_of(path));
            let lines: Vec<_> = running.iter().map(|path| format!("\n  {}", described(path))).collect();
            let text = format!(
                "seaprox {}: several processes are running; expected a PID:{}",
                parsed.command().name(),
                lines.concat()
            );
            Err(Failed::new(Exit::Usage, text))
        }
    }
}

/// Sends a request to the process at `path`; with a body it is a command. Returns the response if the process grants it.
///
/// # Errors
/// Fails if no process answers, or if it refuses.
pub fn ask(
    parsed: &Parsed,
    path: &Path,
    target: &str,
    body: Option<&Value>,
    time: Duration,
) -> Result<Response, Failed> {
    let failed = |exit, text: String| Failed::new(exit, format!("seaprox {}: {text}", parsed.command().name()));
    let response = client::ask(path, target, body, time).map_err(|error| match error {
        AskError::Silent(error) => {
            failed(Exit::Unavailable, format!("no process answers at {}: {error}", path.display()))
        }
        error => failed(Exit::Failure, format!("the process at {}: {error}", path.display())),
    })?;
    let exit = match response.status {
        200 => return Ok(response),
        400 => Exit::Usage,
        401 | 403 => Exit::NoPermission,
        422 => Exit::Config,
        503 => Exit::Unavailable,
        _ => Exit::Failure,
    };
    let text = response.text().unwrap_or_default();
    let error = serde_json::from_str::<Value>(&text).ok().and_then(|value| value["error"].as_str().map(str::to_owned));
    Err(failed(exit, error.unwrap_or_else(|| text.trim().to_owned())))
}

/// Reads the body of a response.
///
/// # Errors
/// Fails if the process closes before the end of the body.
pub fn text(parsed: &Parsed, response: Response) -> Result<String, Failed> {
    response.text().map_err(|error| unavailable(parsed, format!("the answer is not complete: {error}")))
}

/// Creates the error of a process that cannot be asked.
pub fn unavailable(parsed: &Parsed, error: impl Display) -> Failed {
    Failed::new(Exit::Unavailable, format!("seaprox {}: {error}", parsed.command().name()))
}

fn pid_of(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Returns the status of a process without its connections; none if it does not answer.
fn summary_of(path: &Path) -> Option<Value> {
    let response = client::ask(path, "/status?connections=no", None, ANSWER_TIME).ok()?;
    let summary = (response.status == 200).then(|| io::Result::ok(response.text())).flatten()?;
    serde_json::from_str(&summary).ok()
}

/// Returns true if a process has this command, this address, or a record with this name.
fn runs(summary: &Value, name: &str) -> bool {
    let members =
        [("listeners", "name"), ("listeners", "address"), ("links", "name"), ("links", "peer"), ("forwards", "name")];
    let records = |key: &str| summary[key].as_array().into_iter().flatten();
    let mut words = records("listening").filter_map(Value::as_str).flat_map(|line| line.split(' '));
    summary["command"] == name
        || words.any(|word| word == name)
        || members.iter().any(|(key, member)| records(key).any(|record| record[*member] == name))
}

/// Returns one line about a process: its number, its command, and its listen addresses or its links.
fn described(path: &Path) -> String {
    let pid = path.file_stem().unwrap_or_default().to_string_lossy();
    let Some(status) = summary_of(path) else {
        return format!("{pid} does not answer");
    };
    let words = |key: &str, member: &str| {
        let all = status[key].as_array().into_iter().flatten();
        let some = all.filter_map(|it| if member.is_empty() { it.as_str() } else { it[member].as_str() });
        some.take(ADDRESSES_LISTED).map(str::to_owned).collect::<Vec<_>>()
    };
    let (addresses, peers) = (words("listening", ""), words("links", "peer"));
    let peers = peers.iter().map(|peer| format!("link {peer}"));
    let text = addresses.iter().cloned().chain(peers).collect::<Vec<_>>().join(", ");
    // A listen address is announced with its command, so the command is not named twice.
    let command = status["command"].as_str().unwrap_or("?");
    if text.starts_with(command) {
        format!("{pid} {text}")
    } else {
        format!("{pid} {command} {text}").trim_end().to_owned()
    }
}

/// Longest wait for a part of an answer.
pub const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Listen addresses and links that are named of each of several processes.
const ADDRESSES_LISTED: usize = 4;
