//! A problem of a configuration: its place, and a text that names options.

use std::fmt;

use super::place::Place;

/// A problem of a configuration.
///
/// A command line shows the options of a problem with dashes ([`Problem::text`]), a file the place with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The place of the value that is wrong.
    pub place: Place,
    parts: Vec<Part>,
}

/// A part of the text of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// The name of an option.
    Option(&'static str),
}

impl Problem {
    /// Creates a problem about a place. Its text follows the name of the place.
    pub fn new(place: Place, text: impl Into<String>) -> Problem {
        Problem { place, parts: vec![Part::Text(text.into())] }
    }

    /// Appends the name of an option, and text behind it.
    pub fn and(mut self, option: &'static str, text: impl Into<String>) -> Problem {
        self.parts.push(Part::Option(option));
        self.parts.push(Part::Text(text.into()));
        self
    }

    /// Returns the text behind the place, with each option as `name` writes it.
    pub fn text(&self, name: impl Fn(&'static str) -> String) -> String {
        let word = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Option(option) => name(option),
        };
        self.parts.iter().map(word).collect()
    }
}

/// Writes the place in the tree, and the text.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.text(str::to_owned))
    }
}

impl std::error::Error for Problem {}
