//! What a key may do: which targets it may have this node open, where it may have it listen, how much at a time.
//!
//! A key may do nothing that is not permitted to it. `permit-open` is a place in the grammar of [`crate::types::rules`], so it
//! means what it means there: a name that is permitted by name is permitted wherever it leads, and a place that is an
//! address or a network is asked about each address that a name turns out to have. The two questions are the same, too:
//! [`Permissions::may_open`] before a name is resolved, [`Permissions::may_open_addr`] for each of its addresses.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::RULES_MAX;
use super::error::Wrong;
use super::listen::ListenRule;
use super::options::{OPTION_FORM, split_options};
use super::public::{KEY_NAME_FORM, is_key_name};
use crate::types::rules::{Action, Decision, Rule, Rules};
use crate::types::units::{format_rate, parse_rate};
use crate::{Bind, Target};

/// What a key may do. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Invariant: allow rules alone, about targets alone.
    opens: Rules,
    listens: Vec<ListenRule>,
    max_streams: Option<u32>,
    rate: Option<u64>,
    pub(super) name: Option<Box<str>>,
}

impl Permissions {
    /// Whether the key may have a target opened, as far as that can be said before its name is resolved. An address is
    /// always decided.
    pub fn may_open(&self, target: &Target) -> Decision {
        if self.opens.is_empty() { Decision::Deny } else { self.opens.decide(None, target) }
    }

    /// Whether the key may have this address opened; `name` is what it asked for, if that was a name.
    pub fn may_open_addr(&self, name: Option<&str>, addr: SocketAddr) -> bool {
        !self.opens.is_empty() && self.opens.permits(None, name, addr)
    }

    /// Whether the key may have this node listen there. Port 0, which lets the system choose, is a permission of its own.
    pub fn may_listen(&self, bind: &Bind) -> bool {
        self.listens.iter().any(|rule| rule.permits(bind))
    }

    /// How many streams the key may have at a time; without it, as many as anybody.
    pub fn max_streams(&self) -> Option<u32> {
        self.max_streams
    }

    /// Bytes per second, in each direction, of all its streams; without it, as many as there are.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// What the key is called here.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns whether there is any place that the key may open.
    pub fn may_open_any(&self) -> bool {
        !self.opens.is_empty()
    }

    /// Whether there is anything but a name.
    pub(super) fn is_bare(&self) -> bool {
        *self == Permissions { name: self.name.clone(), ..Permissions::default() }
    }
}

/// Options, as they stand in front of a key, such as `permit-open="*",permit-listen="*"`.
impl FromStr for Permissions {
    type Err = Wrong;

    fn from_str(field: &str) -> Result<Permissions, Wrong> {
        let (mut permissions, mut opens) = (Permissions::default(), Vec::new());
        for option in split_options(field) {
            let (name, value) = option?;
            match name {
                "permit-open" => push(&mut opens, value, open_rule(value)?)?,
                "permit-listen" => {
                    let rule = value.parse().map_err(|expected| Wrong::word(value, expected))?;
                    push(&mut permissions.listens, value, rule)?;
                }
                "max-streams" => once(&mut permissions.max_streams, name, streams(value)?)?,
                "rate" => once(&mut permissions.rate, name, rate(value)?)?,
                "name" if is_key_name(value) => once(&mut permissions.name, name, value.into())?,
                "name" => return Err(Wrong::word(value, KEY_NAME_FORM)),
                _ => return Err(Wrong::word(name, OPTION_FORM)),
            }
        }
        if !opens.is_empty() {
            permissions.opens = Rules::new(opens);
        }
        Ok(permissions)
    }
}

/// A place where a connection may lead; where it comes from is the key itself.
fn open_rule(value: &str) -> Result<Rule, Wrong> {
    if value.contains(',') {
        return Err(Wrong::word(
            value,
            "one place, such as example.org:443 or 10.0.0.0/8; repeat permit-open for more",
        ));
    }
    let expected = |error: crate::types::rules::RuleError| error.to_string().trim_start_matches("expected ").to_owned();
    Rule::parse(Action::Allow, &format!("to:{value}")).map_err(|error| Wrong::word(value, expected(error)))
}

fn streams(value: &str) -> Result<u32, Wrong> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| digits && (1..=STREAMS_MAX).contains(number));
    number.ok_or_else(|| Wrong::word(value, format!("a number from 1 to {STREAMS_MAX}")))
}

fn rate(value: &str) -> Result<u64, Wrong> {
    let rate = parse_rate(value).ok().filter(|rate| *rate > 0);
    rate.ok_or_else(|| Wrong::word(value, "a rate above 0, such as 500kbit, 10mbit or 1MiB/s"))
}

fn push<T>(list: &mut Vec<T>, value: &str, rule: T) -> Result<(), Wrong> {
    if list.len() == RULES_MAX {
        return Err(Wrong::word(value, format!("at most {RULES_MAX} of its kind for one key")));
    }
    list.push(rule);
    Ok(())
}

fn once<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Wrong> {
    match place.replace(value) {
        Some(_) => Err(Wrong::word(name, "this option once for a key")),
        None => Ok(()),
    }
}

/// As it stands in front of a key; nothing where there is no option.
impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        let mut option = |name: &str, value: &dyn fmt::Display| {
            let comma = std::mem::replace(&mut comma, ",");
            write!(f, "{comma}{name}=\"{value}\"")
        };
        for rule in self.opens.iter() {
            let rule = rule.to_string();
            option("permit-open", &rule.strip_prefix("to:").unwrap_or(&rule))?;
        }
        self.listens.iter().try_for_each(|rule| option("permit-listen", rule))?;
        self.max_streams.iter().try_for_each(|number| option("max-streams", number))?;
        self.rate.iter().try_for_each(|rate| option("rate", &format_rate(*rate)))?;
        self.name.iter().try_for_each(|name| option("name", name))
    }
}

/// More than a link ever has.
const STREAMS_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(field: &str) -> Permissions {
        Permissions::from_str(field).unwrap_or_else(|wrong| panic!("{field}: {wrong:?}"))
    }

    fn open(field: &str, target: &str) -> Decision {
        permissions(field).may_open(&Target::parse(target).unwrap())
    }

    #[test]
    fn by_default_nothing_is_permitted() {
        for permissions in [Permissions::default(), permissions("name=joe,max-streams=5")] {
            assert_eq!(permissions.may_open(&Target::parse("127.0.0.1:80").unwrap()), Decision::Deny);
            assert_eq!(permissions.may_open(&Target::parse("example.org:80").unwrap()), Decision::Deny);
            assert!(!permissions.may_open_addr(None, "127.0.0.1:80".parse().unwrap()));
            assert!(!permissions.may_open_addr(Some("example.org"), "127.0.0.1:80".parse().unwrap()));
            assert!(!permissions.may_listen(&Bind::Loopback(8080)));
        }
        assert!(permissions("name=joe").is_bare() && !permissions("max-streams=5").is_bare());
    }

    #[test]
    fn what_is_permitted_is_the_whole_of_what_is_permitted() {
        let field = "permit-open=\"db:5432\",permit-open=\"*.example.org:80-89\",permit-open=10.0.0.0/8:22";
        for (target, decision) in [
            ("db:5432", Decision::Allow),
            ("DB.:5432", Decision::Allow),
            ("db:5433", Decision::Deny),
            ("a.example.org:89", Decision::Allow),
            ("a.example.org:90", Decision::Deny),
            ("10.1.2.3:22", Decision::Allow),
            ("11.1.2.3:22", Decision::Deny),
            ("other:22", Decision::NeedsAddress),
            ("unix:/run/x", Decision::Deny),
        ] {
            assert_eq!(open(field, target), decision, "{target}");
        }
        assert_eq!(open("permit-open=\"*\"", "anything:1"), Decision::Allow);
        assert_eq!(open("permit-open=to:80", "to:80"), Decision::Allow, "a host may be called so");
        assert_eq!(open("permit-listen=\"*\"", "anything:1"), Decision::Deny, "one thing is not the other");
        assert!(!permissions("permit-open=\"*\"").may_listen(&Bind::Loopback(8080)));
    }

    #[test]
    fn a_place_that_is_an_address_is_asked_about_each_that_a_name_has() {
        let permissions = permissions("permit-open=10.0.0.0/8:22,permit-open=\"db:5432\"");
        let may = |name: &str, addr: &str| permissions.may_open_addr(Some(name), addr.parse().unwrap());
        assert!(may("other", "10.0.0.1:22") && !may("other", "11.0.0.1:22") && !may("other", "10.0.0.1:5432"));
        assert!(may("db", "192.0.2.1:5432") && !may("db", "192.0.2.1:22"));
        assert!(permissions.may_open_addr(None, "[::ffff:10.0.0.1]:22".parse().unwrap()));
    }

    #[test]
    fn listening_and_limits() {
        let permissions =
            permissions("permit-listen=8080,permit-listen=\"*:9000-9009\",max-streams=\"10\",rate=10mbit,name=joe");
        assert!(permissions.may_listen(&Bind::Loopback(8080)) && !permissions.may_listen(&Bind::Any(8080)));
        assert!(permissions.may_listen(&Bind::Any(9009)) && !permissions.may_listen(&Bind::Any(9010)));
        assert_eq!((permissions.max_streams(), permissions.rate()), (Some(10), Some(1_250_000)));
        assert_eq!(permissions.name(), Some("joe"));
        assert_eq!(
            permissions.to_string(),
            r#"permit-listen="8080",permit-listen="*:9000-9009",max-streams="10",rate="10mbit",name="joe""#
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many = ["permit-open=*"; RULES_MAX + 1].join(",");
        for (field, word) in [
            ("", ""),
            ("permit-open", "permit-open"),
            ("allow=*", "allow"),
            ("Permit-open=*", "Permit-open"),
            ("permit-open=", ""),
            ("permit-open=a/b", "a/b"),
            ("permit-open=\"a:1,b:2\"", "a:1,b:2"),
            ("permit-open=\"from:10.0.0.0/8\"", "from:10.0.0.0/8"),
            ("permit-open=a:0", "a:0"),
            ("permit-listen=\"a b:1\"", "a b:1"),
            ("max-streams=0", "0"),
            ("max-streams=+1", "+1"),
            ("max-streams=1,max-streams=2", "max-streams"),
            ("rate=10", "10"),
            ("rate=0", "0"),
            ("name=\"a b\"", "a b"),
            (&many, "*"),
        ] {
            let wrong = Permissions::from_str(field).unwrap_err();
            assert_eq!(wrong.word.as_deref(), Some(word), "{field}");
            assert!(!wrong.expected.starts_with("expected"), "{field}");
        }
        assert!(Permissions::from_str(&["permit-open=*"; RULES_MAX].join(",")).is_ok());
    }
}
