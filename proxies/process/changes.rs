//! The changes that a reload has made, for the log and for the client that asked for the reload.

use seaprox::config::{Config, Diff, Summary};

/// The changes that a reload has made. Records are named as in messages: `listener "web"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangesMade {
    /// New records.
    pub added: Vec<String>,
    /// Records that differ, and fields of the process.
    pub changed: Vec<String>,
    /// Records that are gone.
    pub removed: Vec<String>,
    /// Records that were not touched.
    pub kept: usize,
    /// Fields of the process that differ and need a restart. They stay as they were.
    pub restarts: Vec<String>,
    /// Changes that could not be made, each with its error. They stay as they were, and the next reload tries them again.
    pub failed: Vec<String>,
}

/// The answer to a request to reload: the changes, or all problems of an invalid configuration, which has changed nothing.
pub type ReloadResult = Result<ChangesMade, Vec<String>>;

impl ChangesMade {
    /// Returns the changes that make `now` of `before`, where `wanted` was to be put into effect.
    pub fn between(before: &Config, now: &Config, wanted: &Config, failed: Vec<String>) -> ChangesMade {
        let Summary { added, changed, removed, kept } = Diff::between(before, now).summary(before, now);
        let names = |places: Vec<seaprox::config::Place>| places.iter().map(ToString::to_string).collect();
        let restarts = names(Diff::between(before, wanted).restarts);
        ChangesMade { added: names(added), changed: names(changed), removed: names(removed), kept, restarts, failed }
    }

    /// Returns true if nothing has changed, and nothing was to be changed.
    pub fn is_empty(&self) -> bool {
        let ChangesMade { added, changed, removed, restarts, failed, .. } = self;
        [added, changed, removed, restarts, failed].into_iter().all(Vec::is_empty)
    }

    /// Writes the changes to the log.
    pub fn log(&self, cause: &str) {
        let list = |names: &[String]| if names.is_empty() { "-".to_owned() } else { shortened(names) };
        let [added, changed, removed] = [&self.added, &self.changed, &self.removed].map(|names| list(names));
        log::info!(target: "seaprox::process", cause = cause, added = added, changed = changed, removed = removed, kept = self.kept; "configuration reloaded");
        if !self.restarts.is_empty() {
            log::warn!(target: "seaprox::process", fields = list(&self.restarts); "changes that need a restart were not made");
        }
        log_problems(&self.failed, "a change could not be made");
    }
}

/// Writes the first problems to the log, a line each.
pub fn log_problems(problems: &[String], text: &str) {
    for problem in problems.iter().take(PROBLEMS_LOGGED) {
        log::error!(target: "seaprox::process", error = problem; "{text}");
    }
    if let more @ 1.. = problems.len().saturating_sub(PROBLEMS_LOGGED) {
        log::error!(target: "seaprox::process", suppressed = more; "more problems of the configuration");
    }
}

fn shortened(names: &[String]) -> String {
    let first = names.iter().take(NAMES_LOGGED).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMES_LOGGED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Problems of one reload that are written to the log.
const PROBLEMS_LOGGED: usize = 50;
/// Names of records in one line of the log.
const NAMES_LOGGED: usize = 20;
