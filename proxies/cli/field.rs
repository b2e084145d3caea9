//! The field of the configuration that an option fills: the parser and the printer of its value, and its default.
//!
//! A default is the value of the field in a fresh [`Draft`], so it stands in the configuration and nowhere else. Flags, the
//! environment and the keys of files fill the same fields.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use seaprox::Target;
use seaprox::config::{Config, FrontEndConfig, Link, LinkPaths, Listener, Server};
use seaprox::node::Path;
use seaprox::rules::{Action, Rule, Rules};
use seaprox::units::{format_duration, format_size};

use super::values::LogFormat;
use super::{Parsed, UsageError, Value, parsers};

/// A configuration that options fill in. It becomes a [`Config`] when all options are known.
///
/// A record of a file has a draft of its own, which begins with the process and its defaults: an option of the record fills
/// the same field of `process` as it does for the whole process, and the record takes what differs.
#[derive(Clone)]
pub struct Draft {
    /// The fields of the process.
    pub process: Config,
    /// The fields of listeners that the process has not.
    pub listener: Listener,
    /// The link that this process dials, if it dials one.
    pub link: Link,
    /// The links that peers dial, if they may dial this process.
    pub server: Server,
    /// The rules so far, if an option has set any or has emptied them.
    pub rules: Option<Vec<Rule>>,
    /// The paths of the link so far.
    pub paths: Vec<Path>,
    /// The source port of the paths that name none.
    pub local_port: Option<usize>,
    /// True if the addresses of listeners have TCP beside UDP.
    pub tcp: bool,
    /// True if the addresses of listeners have UDP.
    pub udp: bool,
    /// False if bytes are copied through buffers.
    pub splices: bool,
    /// The format of the log.
    pub log_format: LogFormat,
    /// The invitation that `seaprox invite` makes.
    pub invitation: InvitationDraft,
}

/// The bounds of an invitation.
#[derive(Clone)]
pub struct InvitationDraft {
    /// The time for which it may be used.
    pub expires: Duration,
    /// The number of nodes that it joins.
    pub uses: u32,
    /// The time from joining on for which the key of the other node is valid; zero for ever.
    pub valid_for: Duration,
    /// The number of sessions that the key of the other node may begin; zero for no limit.
    pub key_uses: usize,
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
    /// A number that need not be set.
    SomeNumber(fn(&mut Draft) -> &mut Option<usize>),
    /// A number with 32 bits.
    Number32(fn(&mut Draft) -> &mut u32),
    /// A path that need not be set.
    Path(fn(&mut Draft) -> &mut Option<PathBuf>),
    /// One of the words of the option: sets the field to the word of this index, and returns the index of its value.
    Choice(fn(&mut Draft, usize), fn(&Draft) -> Option<usize>),
    /// Access rules; none if the text begins with the action.
    Rules(Option<Action>),
    /// A value with a grammar of its own: parses and sets one value, and returns the texts of all values.
    Text(fn(&mut Draft, &str) -> Result<(), String>, fn(&Draft) -> Vec<String>),
    /// Values with a grammar of their own: as [`Field::Text`], and removes all values.
    List(fn(&mut Draft, &str) -> Result<(), String>, fn(&Draft) -> Vec<String>, fn(&mut Draft)),
}

impl Default for Draft {
    fn default() -> Draft {
        // The command line, or the record of a file, replaces the peer and the addresses.
        let peer = Target::from(SocketAddr::from(([127, 0, 0, 1], 0)));
        Draft {
            process: Config::default(),
            listener: Listener::new("listener", Vec::new(), FrontEndConfig::default()),
            link: Link::new("link", peer),
            server: Server::new("links", Vec::new()),
            rules: None,
            paths: Vec::new(),
            local_port: None,
            tcp: false,
            udp: false,
            splices: true,
            log_format: LogFormat::default(),
            invitation: InvitationDraft {
                expires: Duration::from_secs(600),
                uses: 1,
                valid_for: Duration::ZERO,
                key_uses: 0,
            },
        }
    }
}

impl Draft {
    /// Completes the fields that depend on several options.
    pub fn finish(&mut self) {
        if !self.splices {
            self.process.loops.limits.pipes = 0;
        }
        if let Some(rules) = self.rules.take() {
            self.process.access.rules = if rules.is_empty() { Rules::default() } else { Rules::new(rules) };
        }
        let local_port = self.local_port.and_then(|port| u16::try_from(port).ok());
        if let (LinkPaths::List(paths), Some(_)) = (&mut self.link.paths, local_port) {
            paths.iter_mut().for_each(|path| path.local_port = path.local_port.or(local_port));
            self.paths.clone_from(paths);
        }
        let retry = &mut self.process.node.timing.redial;
        retry.0 = retry.0.min(retry.1);
    }
}

impl Field {
    /// Returns the default as text that the parser of the option reads; none if it has none.
    pub fn default_text(self, value: Value) -> Option<String> {
        match self {
            Field::None
            | Field::Flag(..)
            | Field::Path(_)
            | Field::Rules(_)
            | Field::Text(..)
            | Field::List(..)
            | Field::SomeNumber(_) => None,
            _ => self.texts(&Draft::default(), value).pop(),
        }
    }

    /// Returns the value of the field as texts that the parser of the option reads: one for each value of an option that
    /// repeats, none if the field is not set. The texts of rules have their action in front.
    pub fn texts(self, draft: &Draft, value: Value) -> Vec<String> {
        let mut copy = draft.clone();
        match self {
            Field::None => Vec::new(),
            Field::Flag(field, given) => vec![(*field(&mut copy) == given).to_string()],
            Field::Duration(field) | Field::Timer(field) => vec![format_duration(*field(&mut copy))],
            Field::Size(field) => vec![format_size(*field(&mut copy) as u64)],
            Field::Size64(field) => vec![format_size(*field(&mut copy))],
            Field::Number(field) => vec![field(&mut copy).to_string()],
            Field::SomeNumber(field) => field(&mut copy).iter().map(usize::to_string).collect(),
            Field::Number32(field) => vec![field(&mut copy).to_string()],
            Field::Path(field) => field(&mut copy).iter().map(|path| path.display().to_string()).collect(),
            Field::Choice(_, index) => match value {
                Value::Choice(words) => {
                    index(draft).and_then(|index| words.get(index)).map(|word| (*word).to_owned()).into_iter().collect()
                }
                _ => Vec::new(),
            },
            Field::Rules(None) => {
                let word = |rule: &Rule| if rule.action() == Action::Allow { "allow" } else { "deny" };
                draft.process.access.rules.iter().map(|rule| format!("{} {rule}", word(rule))).collect()
            }
            // `--rule` shows the rules of both actions in their order.
            Field::Rules(Some(_)) => Vec::new(),
            Field::Text(_, texts) | Field::List(_, texts, _) => texts(draft),
        }
    }

    /// Prepares the field for its values: an option that stands in a file replaces the values of the defaults.
    pub fn start(self, draft: &mut Draft) {
        match self {
            Field::Rules(_) => _ = draft.rules.get_or_insert_default(),
            Field::List(_, _, clear) => clear(draft),
            _ => {}
        }
    }

    /// Sets the field to a value; an option that repeats adds one.
    ///
    /// # Errors
    /// Fails with the form that was expected.
    pub fn set(self, draft: &mut Draft, value: Value, text: &str) -> Result<(), String> {
        match self {
            Field::None => {}
            Field::Flag(field, given) => *field(draft) = parsers::flag(text)? == given,
            Field::Duration(field) => *field(draft) = parsers::duration(text)?,
            Field::Timer(field) => *field(draft) = parsers::positive(text)?,
            Field::Size(field) => *field(draft) = usize::try_from(parsers::size(value, text)?).unwrap_or(usize::MAX),
            Field::Size64(field) => *field(draft) = parsers::size(value, text)?,
            Field::Number(field) => {
                *field(draft) = usize::try_from(parsers::number(value, text)?).unwrap_or(usize::MAX);
            }
            Field::SomeNumber(field) => {
                *field(draft) = Some(usize::try_from(parsers::number(value, text)?).unwrap_or(usize::MAX));
            }
            Field::Number32(field) => *field(draft) = u32::try_from(parsers::number(value, text)?).unwrap_or(u32::MAX),
            Field::Path(field) => *field(draft) = Some(text.into()),
            Field::Choice(set, _) => {
                let words = if let Value::Choice(words) = value { words } else { &[] };
                set(draft, parsers::word(words, text)?);
            }
            Field::Rules(action) => {
                let rule = parsers::rule(action, text)?;
                draft.rules.get_or_insert_default().push(rule);
            }
            Field::Text(set, _) | Field::List(set, ..) => set(draft, text)?,
        }
        Ok(())
    }

    /// Sets the field to the values of an option.
    ///
    /// # Errors
    /// Fails if a value is wrong.
    pub fn fill(self, draft: &mut Draft, parsed: &Parsed, long: &str) -> Result<(), UsageError> {
        let value = parsed.spec(long).value;
        let given = match parsed.given(long) {
            given if given.is_empty() && value == Value::None => vec![(format!("--{long}"), "true".to_owned())],
            given => given,
        };
        self.start(draft);
        for (name, text) in given {
            self.set(draft, value, &text).map_err(|expected| parsed.wrong(&name, &text, expected))?;
        }
        Ok(())
    }
}
