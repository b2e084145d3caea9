//! `seaprox status`: shows the status of a running process.

use serde_json::Value;

use super::ask::{self, ANSWER_TIME};
use super::exit::{Exit, Failed};
use super::output::print;
use crate::admin::to_text;
use crate::cli::Parsed;

/// Asks a process for its status and prints it.
///
/// # Errors
/// Fails if no process answers, or if several do and none of them is named.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let path = ask::find(parsed)?;
    let document = ask::text(parsed, ask::ask(parsed, &path, "/status", None, ANSWER_TIME)?)?;
    if parsed.flag("json")? {
        return print(&document);
    }
    let status: Value = serde_json::from_str(&document).map_err(|error| {
        let text = format!("the answer of the process at {} is not JSON: {error}", path.display());
        Failed::new(Exit::Failure, format!("seaprox {}: {text}", parsed.command().name()))
    })?;
    print(&to_text(status))
}
