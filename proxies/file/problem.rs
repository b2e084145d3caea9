//! The errors of files: the position of each, and what was expected there.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A position in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The number of the file, in the order in which the files are read.
    pub order: usize,
    /// The path of the file.
    pub path: Arc<Path>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// An error of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileProblem {
    /// The position of the key or of the value.
    position: Position,
    /// The key, what was found, and what was expected.
    text: String,
}

/// All errors of the files of a configuration, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<FileProblem>);

impl Problems {
    /// Adds an error.
    pub fn add(&mut self, position: Position, text: impl Into<String>) {
        self.0.push(FileProblem { position, text: text.into() });
    }

    /// Returns true if there is no error.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the errors of a text in front of which another program has put this number of lines.
    #[must_use]
    pub fn without_lines(mut self, count: usize) -> Problems {
        self.0
            .iter_mut()
            .for_each(|problem| problem.position.line = problem.position.line.saturating_sub(count).max(1));
        self
    }

    /// Sorts the errors by their positions.
    pub fn sort(&mut self) {
        self.0.sort();
        self.0.dedup();
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may contain line breaks, and each error is one line.
        let escaped = |char: char| if char.is_control() { char.escape_default().collect() } else { vec![char] };
        let text: String = self.text.chars().flat_map(escaped).collect();
        write!(f, "{}: {text}", self.position)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
