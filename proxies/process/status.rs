//! `seaprox status`: shows the status of a running process.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::exit::{Exit, Failed};
use super::output::print;
use crate::admin::client::{self, AskError};
use crate::admin::{socket, to_text};
use seaprox::config::StatusSocket;

use crate::cli::Parsed;

/// Asks a process for its status and prints it.
///
/// # Errors
/// Fails if no process answers, or if several do and none of them is named.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let path = match (parsed.status()?, parsed.pid()?) {
        (StatusSocket::At(path), _) => path,
        (_, Some(pid)) => socket::path_of(pid).map_err(unavailable)?,
        _ => only_process()?,
    };
    let document =
        query(&path, "/status").map_err(|(exit, text)| Failed::new(exit, format!("seaprox status: {text}")))?;
    if parsed.flag("json")? {
        return print(&document);
    }
    let status: Value = serde_json::from_str(&document).map_err(|error| {
        let text = format!("seaprox status: the answer of the process at {} is not JSON: {error}", path.display());
        Failed::new(Exit::Failure, text)
    })?;
    print(&to_text(status))
}

/// Returns a document of the process at `path`.
fn query(path: &Path, target: &str) -> Result<String, (Exit, String)> {
    let silent =
        |error: &dyn Display| (Exit::Unavailable, format!("no process answers at {}: {error}", path.display()));
    let response = client::ask(path, target, None, ANSWER_TIME).map_err(|error| match error {
        AskError::Silent(error) => silent(&error),
        error => (Exit::Failure, format!("the process at {}: {error}", path.display())),
    })?;
    let status = response.status;
    let text = response.text().map_err(|error| silent(&error))?;
    if status == 200 {
        Ok(text)
    } else {
        Err((Exit::Unavailable, format!("the process at {}: {}", path.display(), text.trim())))
    }
}

/// Returns the socket of the only running process.
fn only_process() -> Result<PathBuf, Failed> {
    let mut running = socket::running().map_err(unavailable)?;
    match running.len() {
        1 => Ok(running.remove(0)),
        0 => Err(Failed::new(Exit::Unavailable, "seaprox status: no process of this user is running")),
        _ => {
            running.sort_by_key(|path| pid_of(path));
            let lines: Vec<_> = running.iter().map(|path| format!("\n  {}", summary(path))).collect();
            let text = format!("seaprox status: several processes are running; expected a PID:{}", lines.concat());
            Err(Failed::new(Exit::Usage, text))
        }
    }
}

fn pid_of(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// Returns one line about a process: its number, its command, and its listen addresses or its links.
fn summary(path: &Path) -> String {
    let pid = path.file_stem().unwrap_or_default().to_string_lossy();
    let answer = query(path, "/status?connections=no").ok();
    let Some(status) = answer.and_then(|summary| serde_json::from_str::<Value>(&summary).ok()) else {
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

fn unavailable(error: io::Error) -> Failed {
    Failed::new(Exit::Unavailable, format!("seaprox status: {error}"))
}

/// Listen addresses and links that are named of each of several processes.
const ADDRESSES_LISTED: usize = 4;
/// Longest wait for a part of an answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
