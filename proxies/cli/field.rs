//! The field of the configuration that an option fills: the parser and the printer of its value, and its default.
//!
//! A default is the value of the field in a fresh [`Draft`], so it stands in the configuration and nowhere else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use seaprox::Target;
use seaprox::config::{Config, Link, Server};
use seaprox::units::{format_duration, format_size};

use super::{Parsed, UsageError, Value};

/// A configuration that options fill in. It becomes a [`Config`] when all options are known.
pub struct Draft {
    /// The fields of the process.
    pub process: Config,
    /// The link that this process dials, if it dials one.
    pub link: Link,
    /// The links that peers dial, if they may dial this process.
    pub server: Server,
}

/// The field that an option fills.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// None: a getter reads the option.
    None,
    /// A switch, and its value when the flag is given.
    Flag(fn(&mut Draft) -> &mut bool, bool),
    /// A duration; zero means off.
    Duration(fn(&mut Draft) -> &mut Duration),
    /// A duration of a timer that cannot be switched off.
    Timer(fn(&mut Draft) -> &mut Duration),
    /// A size in bytes.
    Size(fn(&mut Draft) -> &mut usize),
    /// A size in bytes, on every system with 64 bits.
    Size64(fn(&mut Draft) -> &mut u64),
    /// A number.
    Number(fn(&mut Draft) -> &mut usize),
    /// A number with 32 bits.
    Number32(fn(&mut Draft) -> &mut u32),
    /// A path that need not be set.
    Path(fn(&mut Draft) -> &mut Option<PathBuf>),
    /// One of the words of the option: sets the field to the word of this index, and returns the index of its value.
    Choice(fn(&mut Draft, usize), fn(&Draft) -> Option<usize>),
}

impl Default for Draft {
    fn default() -> Draft {
        // The command line replaces the peer and the addresses.
        let peer = Target::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        Draft { process: Config::default(), link: Link::new("link", peer), server: Server::new("links", Vec::new()) }
    }
}

impl Field {
    /// Returns the default as text that the parser of the option reads; none if it has none.
    pub fn default_text(self, value: Value) -> Option<String> {
        let mut draft = Draft::default();
        match self {
            Field::None | Field::Flag(..) | Field::Path(_) => None,
            Field::Duration(field) | Field::Timer(field) => Some(format_duration(*field(&mut draft))),
            Field::Size(field) => Some(format_size(*field(&mut draft) as u64)),
            Field::Size64(field) => Some(format_size(*field(&mut draft))),
            Field::Number(field) => Some(field(&mut draft).to_string()),
            Field::Number32(field) => Some(field(&mut draft).to_string()),
            Field::Choice(_, index) => match value {
                Value::Choice(words) => words.get(index(&draft)?).map(|word| (*word).to_owned()),
                _ => None,
            },
        }
    }

    /// Sets the field to the value of an option.
    ///
    /// # Errors
    /// Fails if the value is wrong.
    pub fn fill(self, draft: &mut Draft, parsed: &Parsed, long: &str) -> Result<(), UsageError> {
        match self {
            Field::None => {}
            Field::Flag(field, given) => *field(draft) = parsed.flag(long)? == given,
            Field::Duration(field) => *field(draft) = parsed.duration(long)?,
            Field::Timer(field) => *field(draft) = parsed.positive(long)?,
            Field::Size(field) => *field(draft) = usize::try_from(parsed.size(long)?).unwrap_or(usize::MAX),
            Field::Size64(field) => *field(draft) = parsed.size(long)?,
            Field::Number(field) => *field(draft) = parsed.number(long)? as usize,
            Field::Number32(field) => *field(draft) = parsed.number(long)? as u32,
            Field::Path(field) => *field(draft) = parsed.path(long),
            Field::Choice(set, _) => parsed.word(long)?.into_iter().for_each(|index| set(draft, index)),
        }
        Ok(())
    }
}
