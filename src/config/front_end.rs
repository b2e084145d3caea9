//! The front end of a listener: its name in the registry, and its options with their types.
//!
//! The tree knows no front end by its type. [`FrontEnds`] is the registry as validation sees it; the package of the front
//! ends implements it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::types::address::Target;
use crate::types::units::format_duration;
use crate::types::upstream::Upstream;

/// A front end with its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontEndConfig {
    /// The name in the registry, such as `socks`.
    pub name: String,
    /// The options that are set, by their names.
    pub options: BTreeMap<String, OptionValue>,
}

/// The value of an option of a front end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionValue {
    /// True or false.
    Flag(bool),
    /// A number.
    Number(u64),
    /// A duration.
    Duration(Duration),
    /// Text.
    Text(String),
    /// The targets to connect to.
    Targets(Vec<Upstream>),
}

/// The kind of an option of a front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionKind {
    /// True or false.
    Flag,
    /// A number, from the least to the greatest.
    Number(u64, u64),
    /// A duration.
    Duration,
    /// Text.
    Text,
    /// An IP address, as text.
    Ip,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// One or more targets to connect to.
    Targets,
}

/// An option that a front end takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontEndOption {
    /// The name, which is also that of the flag.
    pub name: &'static str,
    /// The kind of the value.
    pub kind: OptionKind,
    /// True if a listener must set it.
    pub is_required: bool,
}

/// The registry of front ends.
pub trait FrontEnds {
    /// Returns the names of all front ends.
    fn names(&self) -> Vec<&'static str>;

    /// Returns the options of a front end; none if there is no front end of this name.
    fn options(&self, name: &str) -> Option<&'static [FrontEndOption]>;

    /// Returns true if a front end carries datagrams, so that it may listen on UDP addresses.
    fn carries_datagrams(&self, _name: &str) -> bool {
        false
    }
}

impl FrontEndConfig {
    /// Returns a front end without options.
    pub fn new(name: impl Into<String>) -> FrontEndConfig {
        FrontEndConfig { name: name.into(), options: BTreeMap::new() }
    }

    /// Sets an option.
    pub fn with(mut self, option: impl Into<String>, value: impl Into<OptionValue>) -> FrontEndConfig {
        self.options.insert(option.into(), value.into());
        self
    }

    /// Returns the value of an option that is a list of targets; an empty list if the option is not set.
    pub fn upstreams(&self, option: &str) -> &[Upstream] {
        match self.options.get(option) {
            Some(OptionValue::Targets(upstreams)) => upstreams,
            _ => &[],
        }
    }

    /// Returns the value of an option that is text or one of several words.
    pub fn text(&self, option: &str) -> Option<&str> {
        match self.options.get(option)? {
            OptionValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns each target of the options that are lists of them, with the name of its option.
    pub fn all_upstreams(&self) -> impl Iterator<Item = (&str, &Upstream)> {
        self.options.keys().flat_map(|name| self.upstreams(name).iter().map(|upstream| (name.as_str(), upstream)))
    }
}

impl OptionKind {
    /// Returns true if an option of this kind may have the value.
    pub fn fits(self, value: &OptionValue) -> bool {
        match (self, value) {
            (OptionKind::Number(least, most), OptionValue::Number(number)) => (least..=most).contains(number),
            (OptionKind::Choice(words), OptionValue::Text(text)) => words.contains(&text.as_str()),
            (OptionKind::Ip, OptionValue::Text(text)) => text.parse::<IpAddr>().is_ok(),
            (OptionKind::Targets, OptionValue::Targets(upstreams)) => !upstreams.is_empty(),
            (OptionKind::Flag, OptionValue::Flag(_))
            | (OptionKind::Duration, OptionValue::Duration(_))
            | (OptionKind::Text, OptionValue::Text(_)) => true,
            _ => false,
        }
    }
}

/// Writes the value that is expected.
impl fmt::Display for OptionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionKind::Flag => f.write_str("true or false"),
            OptionKind::Number(least, most) => write!(f, "a number from {least} to {most}"),
            OptionKind::Duration => f.write_str("a duration such as 250ms, 30s, 5m or 1h"),
            OptionKind::Text => f.write_str("text"),
            OptionKind::Ip => f.write_str("an IP address"),
            OptionKind::Choice(words) => f.write_str(&words.join(" or ")),
            OptionKind::Targets => f.write_str("HOST:PORT or srv:NAME"),
        }
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::Flag(flag) => flag.fmt(f),
            OptionValue::Number(number) => number.fmt(f),
            OptionValue::Duration(duration) => f.write_str(&format_duration(*duration)),
            OptionValue::Text(text) => f.write_str(text),
            OptionValue::Targets(upstreams) => {
                let texts: Vec<_> = upstreams.iter().map(Upstream::to_string).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

impl From<Target> for OptionValue {
    fn from(target: Target) -> OptionValue {
        OptionValue::Targets(vec![target.into()])
    }
}

impl From<Vec<Upstream>> for OptionValue {
    fn from(upstreams: Vec<Upstream>) -> OptionValue {
        OptionValue::Targets(upstreams)
    }
}

impl From<bool> for OptionValue {
    fn from(flag: bool) -> OptionValue {
        OptionValue::Flag(flag)
    }
}

impl From<u64> for OptionValue {
    fn from(number: u64) -> OptionValue {
        OptionValue::Number(number)
    }
}

impl From<Duration> for OptionValue {
    fn from(duration: Duration) -> OptionValue {
        OptionValue::Duration(duration)
    }
}

impl From<&str> for OptionValue {
    fn from(text: &str) -> OptionValue {
        OptionValue::Text(text.to_owned())
    }
}
