//! `seaprox top`: the live view of a running process, on the terminal.

use super::exit::{Exit, Failed};
use crate::cli::Parsed;

/// Shows the live view of a process until the user leaves, or its rates once.
///
/// # Errors
/// Fails if no process answers, or if there is no terminal.
#[cfg(feature = "top")]
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    use std::io::IsTerminal;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use serde_json::Value;

    use super::output::print;
    use crate::top::{Ask, once};

    let path = super::ask::find(parsed)?;
    let ask: Arc<Ask> = Arc::new(move |target: &str, body: Option<&Value>| answer(&path, target, body));
    let failed = |error: std::io::Error| Failed::new(Exit::Unavailable, format!("seaprox top: {error}"));
    if parsed.flag("once")? {
        return print(&once(ask.as_ref(), Duration::from_secs(1)).map_err(failed)?);
    }
    if !(std::io::stdout().is_terminal() && std::io::stdin().is_terminal()) {
        return Err(Failed::new(
            Exit::Usage,
            "seaprox top: expected a terminal; --once prints the rates of one second",
        ));
    }
    let is_ended = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&is_ended)).map_err(failed)?;
    }
    crate::top::run(ask, &is_ended).map_err(failed)
}

/// Asks the process at `path` for a document, or sends it a command with a body. Fails with a text for the user.
#[cfg(feature = "top")]
fn answer(path: &std::path::Path, target: &str, body: Option<&serde_json::Value>) -> Result<serde_json::Value, String> {
    use crate::admin::client::{self, AskError};

    let response = client::ask(path, target, body, ANSWER_TIME).map_err(|error| match error {
        AskError::Silent(error) => format!("no process answers at {}: {error}", path.display()),
        error => error.to_string(),
    })?;
    let status = response.status;
    let text = response.text().map_err(|error| format!("the answer is not complete: {error}"))?;
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(value) if status == 200 => Ok(value),
        Ok(value) => Err(value["error"].as_str().unwrap_or("the process refuses").to_owned()),
        Err(error) => Err(format!("the answer is not JSON: {error}")),
    }
}

/// Longest wait for a part of an answer.
#[cfg(feature = "top")]
const ANSWER_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// Refuses the command, because this binary was built without the live view.
///
/// # Errors
/// Fails always.
#[cfg(not(feature = "top"))]
pub fn run(_: &Parsed) -> Result<(), Failed> {
    Err(Failed::new(Exit::Usage, "seaprox top: this binary was built without the feature \"top\""))
}
