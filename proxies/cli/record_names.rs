//! The names of `--name`: behind a forward, a name is that of the forward; elsewhere it is that of the listener or the link.

use std::collections::HashMap;

use super::{Parsed, UsageError};

/// The names on a command line.
#[derive(Debug, Default)]
pub struct RecordNames {
    /// The name of the listener or the link.
    pub record: Option<String>,
    /// The names of forwards, by the option and the number of its value.
    forwards: HashMap<(&'static str, usize), String>,
}

impl RecordNames {
    /// Returns the name of a forward, if it has one.
    pub fn forward(&self, option: &'static str, index: usize) -> Option<&String> {
        self.forwards.get(&(option, index))
    }
}

impl Parsed {
    /// Returns the names of `--name`.
    ///
    /// # Errors
    /// Fails if a listener, a link or a forward has two names.
    pub(super) fn record_names(&self) -> Result<RecordNames, UsageError> {
        let values = |option: &'static str| self.positioned(option).into_iter().enumerate();
        let forward = |option: &'static str| values(option).map(move |(index, (at, _))| (at, (option, index)));
        let forwards: Vec<_> = FORWARDS.into_iter().flat_map(forward).collect();
        let mut names = RecordNames::default();
        for (at, name) in self.positioned("name") {
            let before = forwards.iter().filter(|(other, _)| *other < at).max_by_key(|(other, _)| *other);
            let previous = match before {
                Some((_, forward)) => names.forwards.insert(*forward, name.clone()),
                None => names.record.replace(name.clone()),
            };
            if let Some(previous) = previous {
                let text = format!(
                    "--name {name:?}: expected one name, and {previous:?} is one; a forward is named behind it"
                );
                return Err(self.error(text));
            }
        }
        Ok(names)
    }
}

/// The options of forwards.
pub const FORWARDS: [&str; 4] = ["local", "remote", "dynamic", "http"];
