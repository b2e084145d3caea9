//! Files of configuration in TOML: [`load`] reads a file, and all files that it includes, into a [`Config`]; [`print()`] writes a
//! [`Config`] as a file that means the same.
//!
//! A key is a row of the table of options, in the sections that the row names. Nothing here prints, logs or ends the process.
//!
//! ```text
//!   FILE.toml ── source: reads, parses, includes ──► reader: sections, options ──► records: listeners, links, servers
//!                                                                                        │
//!   FILE:line:column: error  ◄── problem  ◄── validation of the whole ◄── Config ◄───────┘
//! ```

mod later;
mod names;
mod print;
mod problem;
mod reader;
mod records;
mod source;
mod variables;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use seaprox::auth::Modes;
use seaprox::config::{Config, Place, Problem};

pub use print::print;
pub use problem::{Position, Problems};

use crate::cli::{LogFormat, Parsed};
use crate::frontends::Registry;
use reader::Reader;
use source::{SourceFile, Sources};

/// The surroundings of a file: what takes precedence over its values, and the variables that they may contain.
pub struct Environment<'a> {
    /// Returns the value of a variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The options of the command line, and those of its environment.
    pub options: Option<&'a Parsed>,
    /// The checks of the files' owners and modes. A file cannot switch off its own check.
    pub modes: Modes,
}

/// A configuration that was read from a file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The files that were read, the first one first.
    pub sources: Vec<PathBuf>,
    /// The directories in which a new file would be included.
    pub directories: Vec<PathBuf>,
    /// The format of the log.
    pub log_format: LogFormat,
    /// The positions of the records and of their keys.
    positions: Positions,
}

/// The positions of records and keys.
#[derive(Clone, Debug)]
pub struct Positions {
    start: Position,
    of: HashMap<Place, Position>,
}

/// Loads a configuration, and checks it as a whole.
///
/// # Errors
/// Fails with all errors, each with its position.
pub fn load(path: &Path, environment: &Environment<'_>) -> Result<Loaded, Problems> {
    load_sources(path, Sources::read(path, environment.variable, environment.modes), environment)
}

/// Loads a configuration from a text, and from the files that it includes. `name` stands for the file of the text in errors,
/// and relative paths begin in its directory.
///
/// # Errors
/// As for [`load`].
pub fn load_text(name: &Path, text: &str, environment: &Environment<'_>) -> Result<Loaded, Problems> {
    load_sources(name, Sources::of_text(name, text, environment.variable, environment.modes), environment)
}

fn load_sources(path: &Path, sources: Sources<'_>, environment: &Environment<'_>) -> Result<Loaded, Problems> {
    let start = Position { order: 0, path: path.into(), line: 1, column: 1 };
    let paths = sources.files.iter().map(|file| file.path.to_path_buf()).collect();
    let directories = sources.directories;
    let mut reader = Reader::new(environment, sources.problems, start, sources.is_incomplete);
    let files: Vec<_> = sources.files.iter().map(SourceFile::parse).collect();
    let draft = reader.read(&files);
    let Reader { mut problems, positions, broken, .. } = reader;
    let config = draft.process;
    if !sources.is_incomplete {
        let is_broken = |problem: &&Problem| broken.contains(&problem.place);
        let whole = config.validate(&Registry);
        // The reader has found names that stand twice, with the position of each.
        let is_twice = |problem: &&Problem| problem.place.field.as_deref() == Some("name") && !problems.is_empty();
        let problems_of_whole: Vec<_> = whole.iter().filter(|it| !is_broken(it) && !is_twice(it)).collect();
        for problem in problems_of_whole {
            problems.add(positions.find(&problem.place), text(problem));
        }
    }
    problems.sort();
    if problems.is_empty() {
        Ok(Loaded { config, sources: paths, directories, log_format: draft.log_format, positions })
    } else {
        Err(problems)
    }
}

impl Loaded {
    /// Returns the position of a place of the configuration, or of the nearest record around it.
    pub fn position(&self, place: &Place) -> Position {
        self.positions.find(place)
    }

    /// Checks the configuration again, after a change of its limits.
    ///
    /// # Errors
    /// Fails with all errors.
    pub fn check(&self) -> Result<(), Problems> {
        let mut problems = Problems::default();
        for problem in self.config.validate(&Registry) {
            problems.add(self.position(&problem.place), text(&problem));
        }
        problems.sort();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

impl Positions {
    fn new(start: Position) -> Positions {
        Positions { start, of: HashMap::new() }
    }

    fn add(&mut self, place: Place, position: Position) {
        self.of.entry(place).or_insert(position);
    }

    /// Returns the position of the place, or of the nearest record around it that has one.
    fn find(&self, place: &Place) -> Position {
        let mut place = place.clone();
        loop {
            if let Some(position) = self.of.get(&place) {
                return position.clone();
            }
            if place.field.take().is_none() && place.records.pop().is_none() {
                return self.start.clone();
            }
        }
    }
}

/// Returns the text of a problem of the whole: the key, what was found, and what was expected.
fn text(problem: &Problem) -> String {
    let key = problem.place.field.as_deref().unwrap_or("the configuration");
    let text = problem.text(str::to_owned);
    match text.split_once(": expected") {
        Some((found, expected)) if found.starts_with(' ') => format!("{key}: found{found}, expected{expected}"),
        Some(("", expected)) => format!("{key}: expected{expected}"),
        _ => format!("{key}{text}"),
    }
}

#[cfg(test)]
mod tests;
