//! `seaprox ctl`: commands a running process, and shows what it answers.

use std::io::{self, BufRead, BufReader, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::ask::{self, ANSWER_TIME};
use super::exit::Failed;
use super::output::print;
use super::status;
use crate::cli::{Parsed, UsageError, suggest};

/// Sends the command that the arguments name, and prints the answer.
///
/// # Errors
/// Fails if the command is wrong, if no process answers, or if the process refuses or fails to carry it out.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let words: Vec<&str> = parsed.frees().iter().map(String::as_str).collect();
    match words[..] {
        ["status"] => status::run(parsed),
        ["events"] => events(parsed),
        ["metrics"] => show(parsed, "/metrics"),
        ["health"] => show(parsed, "/healthz"),
        ["ready"] => show(parsed, "/readyz"),
        ["reload"] => command(parsed, "/reload", &json!({})),
        ["drain"] => command(parsed, "/drain", &json!({})),
        ["close", kind, name] => command(parsed, "/close", &close(parsed, kind, name)?),
        ["open"] => command(parsed, "/open", &open(parsed, None)?),
        ["open", link] => command(parsed, "/open", &open(parsed, Some(link))?),
        ["paths"] => command(parsed, "/paths", &json!({})),
        ["paths", link] => command(parsed, "/paths", &json!({ "link": link })),
        ["add-path", path] => command(parsed, "/paths", &json!({ "add": path })),
        ["add-path", path, link] => command(parsed, "/paths", &json!({ "add": path, "link": link })),
        ["remove-path", path] => command(parsed, "/paths", &json!({ "remove": path })),
        ["remove-path", path, link] => command(parsed, "/paths", &json!({ "remove": path, "link": link })),
        ["log-level", levels] => command(parsed, "/log-level", &json!({ "level": levels })),
        _ => Err(wrong(parsed, &words).into()),
    }
}

fn wrong(parsed: &Parsed, words: &[&str]) -> UsageError {
    let form = match words.first() {
        Some(&"close") => "expected close connection|flow|link|forward ID|NAME".to_owned(),
        Some(&"open") => "expected open -L|-R|-D|-H FORWARD [LINK]".to_owned(),
        Some(&"paths") => "expected paths [LINK]".to_owned(),
        Some(&word @ ("add-path" | "remove-path")) => format!("expected {word} PATH [LINK]"),
        Some(&"log-level") => "expected log-level LEVEL|TARGET=LEVEL[,...]".to_owned(),
        Some(word) if COMMANDS.contains(word) => {
            format!("expected nothing behind {word}; --process PID|NAME names the process")
        }
        None => format!("expected a command: {}", COMMANDS.join(", ")),
        Some(word) => {
            let hint = suggest::hint(word, "", COMMANDS.iter().copied());
            format!("command {word:?}: expected {}{hint}", COMMANDS.join(", "))
        }
    };
    parsed.error(form)
}

/// Prints a document of the process.
fn show(parsed: &Parsed, target: &str) -> Result<(), Failed> {
    let path = ask::find(parsed)?;
    print(&ask::text(parsed, ask::ask(parsed, &path, target, None, ANSWER_TIME)?)?)
}

/// Sends a command, and prints its result: as JSON with `--json`, otherwise as one line.
fn command(parsed: &Parsed, target: &str, body: &Value) -> Result<(), Failed> {
    let path = ask::find(parsed)?;
    let answer = ask::text(parsed, ask::ask(parsed, &path, target, Some(body), COMMAND_TIME)?)?;
    if parsed.flag("json")? {
        return print(&answer);
    }
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let mut line = answer["done"].as_str().unwrap_or("done").to_owned();
    for (key, value) in answer.as_object().into_iter().flatten().filter(|(key, _)| *key != "done") {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Array(all) if all.is_empty() => continue,
            Value::Array(all) => {
                let words: Vec<String> =
                    all.iter().map(|it| it.as_str().map_or(it.to_string(), str::to_owned)).collect();
                words.join(", ")
            }
            other => other.to_string(),
        };
        line.push_str(&format!("\n  {key} {value}"));
    }
    let line: String = line.chars().filter(|char| *char == '\n' || !crate::admin::is_unfit(*char)).collect();
    print(&format!("{line}\n"))
}

/// Prints events until the process ends, or the reader of stdout leaves.
fn events(parsed: &Parsed) -> Result<(), Failed> {
    let path = ask::find(parsed)?;
    let response = ask::ask(parsed, &path, "/events", None, EVENT_TIME)?;
    let mut out = io::stdout().lock();
    for line in BufReader::new(response.body()).split(b'\n') {
        let Ok(mut line) = line else { return Err(ask::unavailable(parsed, "the process has ended")) };
        line.push(b'\n');
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
    Ok(())
}

fn close(parsed: &Parsed, kind: &str, name: &str) -> Result<Value, UsageError> {
    if !["connection", "flow", "link", "forward"].contains(&kind) {
        return Err(wrong(parsed, &["close"]));
    }
    // A connection or a flow of one thread of several is THREAD/ID.
    match name.split_once('/').map(|(thread, id)| (thread.parse::<u64>(), id)) {
        Some((Ok(thread), id)) if ["connection", "flow"].contains(&kind) => Ok(json!({ kind: id, "thread": thread })),
        _ => Ok(json!({ kind: name })),
    }
}

fn open(parsed: &Parsed, link: Option<&str>) -> Result<Value, UsageError> {
    let mut forwards = parsed.opened_forwards();
    let (Some((kind, addresses)), true) = (forwards.pop(), forwards.is_empty()) else {
        return Err(parsed.error("open: expected one -L, -R, -D or -H"));
    };
    let mut body = json!({ kind: addresses });
    if let Some(link) = link {
        body["link"] = link.into();
    }
    if let Some(name) = parsed.first_name() {
        body["name"] = name.into();
    }
    Ok(body)
}

const COMMANDS: &[&str] = &[
    "reload",
    "drain",
    "close",
    "open",
    "paths",
    "add-path",
    "remove-path",
    "log-level",
    "status",
    "events",
    "metrics",
    "health",
    "ready",
];
/// Longest wait for the result of a command, which may close many connections or read many files.
const COMMAND_TIME: Duration = Duration::from_secs(65);
/// Longest wait for an event or a sign of life, which comes four times in this time.
const EVENT_TIME: Duration = Duration::from_secs(60);
