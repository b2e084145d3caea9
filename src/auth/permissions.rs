//! The permissions of a key: the targets and ends that it may have this node open, the addresses that it may have this node listen
//! on, and its limits.
//!
//! A key may do only what is permitted. A `permit-open` is a place in the grammar of [`crate::types::rules`] and has the
//! same meaning: a name that is permitted is permitted with all of its addresses, and a place that is an address or a
//! network is compared with each address of a name. [`Permissions::may_open`] decides before a name is resolved,
//! [`Permissions::may_open_addr`] for each of its addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use super::RULES_MAX;
use super::error::Wrong;
use super::listen::ListenRule;
use super::options::{OPTION_FORM, split_options};
use super::public::{KEY_NAME_FORM, is_key_name};
use crate::types::rules::{Action, Decision, Rule, Rules, SourceNetwork};
use crate::types::units::{format_rate, parse_rate};
use crate::types::utc::UtcTime;
use crate::{Bind, End, EndError, EndName, Target};

/// The permissions of a key. The default permits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Invariant: all rules allow, and all are about targets only.
    opens: Rules,
    /// Invariant: each name once.
    ends: Vec<Arc<End>>,
    listens: Vec<ListenRule>,
    listen_group: Option<Box<str>>,
    sources: Vec<SourceNetwork>,
    folders: Vec<PathBuf>,
    max_streams: Option<u32>,
    rate: Option<u64>,
    valid_until: Option<UtcTime>,
    uses: Option<u64>,
    pub(super) name: Option<Box<str>>,
}

impl Permissions {
    /// Decides whether the key may have a target opened, as far as possible before its name is resolved. A target that is
    /// an address is always decided.
    pub fn may_open(&self, target: &Target) -> Decision {
        if self.opens.is_empty() || matches!(target, Target::End(_)) {
            Decision::Deny
        } else {
            self.opens.decide(None, target)
        }
    }

    /// Returns true if the key may have this address of the target opened.
    pub fn may_open_addr(&self, target: &Target, addr: SocketAddr) -> bool {
        !self.opens.is_empty() && self.opens.permits(None, target, addr)
    }

    /// Returns the end with this name that the key may open.
    pub fn end(&self, name: &EndName) -> Option<&Arc<End>> {
        self.ends.iter().find(|end| end.name == *name)
    }

    /// Returns true if the key may have this node listen on this address. Port 0, with which the system chooses, needs its
    /// own permission.
    pub fn may_listen(&self, bind: &Bind) -> bool {
        self.listens.iter().any(|rule| rule.permits(bind))
    }

    /// Returns the group of keys that may listen on the same addresses at the same time, if the key is in one.
    pub fn listen_group(&self) -> Option<&str> {
        self.listen_group.as_deref()
    }

    /// Returns true if the key's word is taken that a stream is that of a client with this address.
    pub fn may_tell_source(&self, client: IpAddr) -> bool {
        self.sources.iter().any(|network| network.contains(Some(client)))
    }

    /// Returns the folders whose files the key may get, in the order of their options.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Returns the limit of the key's concurrent streams, or `None` for the general limit.
    pub fn max_streams(&self) -> Option<u32> {
        self.max_streams
    }

    /// Returns the rate limit of all of the key's streams in each direction, in bytes per second, or `None` without a limit.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Returns the time from which on the key may not connect, or `None` if it does not expire.
    pub fn valid_until(&self) -> Option<UtcTime> {
        self.valid_until
    }

    /// Returns true if the time of the key is over.
    pub fn is_expired(&self) -> bool {
        self.valid_until.is_some_and(UtcTime::is_past)
    }

    /// Returns the number of sessions that the key may begin, or `None` without a limit. [`KeyUses`](super::KeyUses) counts
    /// them.
    pub fn uses(&self) -> Option<u64> {
        self.uses
    }

    /// Sets the time from which on the key may not connect, and the number of sessions that it may begin.
    #[must_use]
    pub fn limited(self, valid_until: Option<UtcTime>, uses: Option<u64>) -> Permissions {
        Permissions { valid_until, uses, ..self }
    }

    /// Returns the name of the key.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns true if there is at least one target or end that the key may open, or a folder whose files it may get.
    pub fn may_open_any(&self) -> bool {
        !self.opens.is_empty() || !self.ends.is_empty() || !self.folders.is_empty()
    }

    /// Returns true if there is no option but a name.
    pub(super) fn is_bare(&self) -> bool {
        *self == Permissions { name: self.name.clone(), ..Permissions::default() }
    }
}

/// Parses the options before a key, such as `permit-open="*",permit-listen="*"`.
impl FromStr for Permissions {
    type Err = Wrong;

    fn from_str(field: &str) -> Result<Permissions, Wrong> {
        let (mut permissions, mut opens) = (Permissions::default(), Vec::new());
        for option in split_options(field) {
            let (name, value) = option?;
            match name {
                "permit-open" => push(&mut opens, value, open_rule(value)?)?,
                "permit-end" => {
                    let end: End = value.parse().map_err(|error: EndError| Wrong::word(&error.word, error.expected))?;
                    if permissions.end(&end.name).is_some() {
                        return Err(Wrong::word(end.name.as_str(), "each end of a key once"));
                    }
                    push(&mut permissions.ends, value, Arc::new(end))?;
                }
                "permit-listen" => {
                    let rule = value.parse().map_err(|expected| Wrong::word(value, expected))?;
                    push(&mut permissions.listens, value, rule)?;
                }
                "listen-group" if is_key_name(value) => once(&mut permissions.listen_group, name, value.into())?,
                "listen-group" => return Err(Wrong::word(value, KEY_NAME_FORM)),
                "permit-source" => {
                    for network in value.split(',') {
                        push(&mut permissions.sources, network, source_network(network)?)?;
                    }
                }
                "permit-get" => push(&mut permissions.folders, value, folder(value)?)?,
                "max-streams" => once(&mut permissions.max_streams, name, number(value, STREAMS_MAX.into())? as u32)?,
                "rate" => once(&mut permissions.rate, name, rate(value)?)?,
                "valid-until" => {
                    let time = value.parse().map_err(|expected: &str| Wrong::word(value, expected))?;
                    once(&mut permissions.valid_until, name, time)?;
                }
                "uses" => once(&mut permissions.uses, name, number(value, USES_MAX)?)?,
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

/// Parses the place of a `permit-open`. The source of such a connection is the key itself.
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

/// Parses a network of clients. A client of a Unix socket has no address to tell.
fn source_network(value: &str) -> Result<SourceNetwork, Wrong> {
    let network = value.parse().ok().filter(|_| value != "unix");
    network.ok_or_else(|| Wrong::word(value, "an address, a network such as 10.0.0.0/8, or *"))
}

/// Parses the folder of a `permit-get`. A relative one would depend on the place where the process was started.
fn folder(value: &str) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(value);
    if path.is_absolute() { Ok(path) } else { Err(Wrong::word(value, "the absolute path of a folder")) }
}

fn number(value: &str, most: u64) -> Result<u64, Wrong> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| digits && (1..=most).contains(number));
    number.ok_or_else(|| Wrong::word(value, format!("a number from 1 to {most}")))
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

/// Writes the options as they stand before a key; writes nothing if there are none.
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
        self.ends.iter().try_for_each(|end| option("permit-end", end))?;
        self.listens.iter().try_for_each(|rule| option("permit-listen", rule))?;
        self.listen_group.iter().try_for_each(|group| option("listen-group", group))?;
        if !self.sources.is_empty() {
            let networks: Vec<String> = self.sources.iter().map(ToString::to_string).collect();
            option("permit-source", &networks.join(","))?;
        }
        self.folders.iter().try_for_each(|folder| option("permit-get", &folder.display()))?;
        self.max_streams.iter().try_for_each(|number| option("max-streams", number))?;
        self.rate.iter().try_for_each(|rate| option("rate", &format_rate(*rate)))?;
        self.valid_until.iter().try_for_each(|time| option("valid-until", time))?;
        self.uses.iter().try_for_each(|uses| option("uses", uses))?;
        self.name.iter().try_for_each(|name| option("name", name))
    }
}

/// The largest accepted `max-streams`, more than a link can have.
const STREAMS_MAX: u32 = 1_000_000;
/// The largest accepted `uses`.
pub(super) const USES_MAX: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Proto;

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
            for target in ["127.0.0.1:80", "example.org:80"] {
                let target = Target::parse(target).unwrap();
                assert!(!permissions.may_open_addr(&target, "127.0.0.1:80".parse().unwrap()));
            }
            assert!(!permissions.may_listen(&Bind::Loopback(Proto::Tcp, 8080)));
        }
        assert!(permissions("name=joe").is_bare() && !permissions("max-streams=5").is_bare());
    }

    #[test]
    fn only_the_permitted_targets_are_permitted() {
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
        assert_eq!(open("permit-open=to:80", "to:80"), Decision::Allow, "`to` may be the name of a host");
        assert_eq!(open("permit-listen=\"*\"", "anything:1"), Decision::Deny, "to listen is not to open");
        assert!(!permissions("permit-open=\"*\"").may_listen(&Bind::Loopback(Proto::Tcp, 8080)));
    }

    #[test]
    fn a_permitted_address_is_compared_with_each_address_of_a_name() {
        let permissions = permissions("permit-open=10.0.0.0/8:22,permit-open=\"db:5432\"");
        let may = |name: &str, addr: &str| {
            permissions.may_open_addr(&Target::from_host(name, 1).unwrap(), addr.parse().unwrap())
        };
        assert!(may("other", "10.0.0.1:22") && !may("other", "11.0.0.1:22") && !may("other", "10.0.0.1:5432"));
        assert!(may("db", "192.0.2.1:5432") && !may("db", "192.0.2.1:22"));
        assert!(permissions.may_open_addr(&Target::parse("22").unwrap(), "[::ffff:10.0.0.1]:22".parse().unwrap()));
    }

    #[test]
    fn a_permission_is_about_one_protocol() {
        let field = r#"permit-open="udp:*:53",permit-listen="udp:*:5353""#;
        for (target, decision) in [
            ("udp:10.0.0.1:53", Decision::Allow),
            ("udp:dns.example:53", Decision::Allow),
            ("udp:10.0.0.1:54", Decision::Deny),
            ("10.0.0.1:53", Decision::Deny),
            ("dns.example:53", Decision::Deny),
            ("unix:/run/x", Decision::Deny),
        ] {
            assert_eq!(open(field, target), decision, "{target}");
        }
        let may_listen = |text: &str| permissions(field).may_listen(&Bind::parse(text).unwrap());
        assert!(may_listen("udp::5353") && may_listen("udp:127.0.0.1:5353"));
        assert!(!may_listen(":5353") && !may_listen("5353"));
        assert_eq!(
            open("permit-open=\"*\"", "udp:10.0.0.1:53"),
            Decision::Deny,
            "a permission without udp: is about TCP"
        );
        assert!(!permissions("permit-listen=\"*\"").may_listen(&Bind::parse("udp:5353").unwrap()));
        assert_eq!(permissions(field).to_string(), field);
        let name = r#"permit-open="udp.:53",permit-listen="udp.:53",permit-listen="unix:53""#;
        assert_eq!(permissions(name).to_string(), name, "a host may be called udp");
        assert_eq!(open(name, "udp.:53"), Decision::Allow);
    }

    #[test]
    fn a_key_has_the_ends_of_its_own_rule_and_no_others() {
        let field =
            r#"permit-end="backup=command,max=2:/usr/bin/borg serve '/srv/a b'",permit-end="motd=read:/etc/motd""#;
        let permissions = permissions(field);
        let end = |name: &str| permissions.end(&EndName::new(name).unwrap()).map(|end| end.to_string());
        assert_eq!(end("motd").as_deref(), Some("motd=read:/etc/motd"));
        assert!(end("backup").is_some() && end("Backup").is_none() && end("other").is_none());
        assert!(permissions.may_open_any() && permissions.to_string() == field);
        assert_eq!(open("permit-open=\"*\"", "end:motd"), Decision::Deny, "a target is no end");
        for (field, word) in [
            (r#"permit-end="a=read:/x",permit-end="a=read:/y""#, "a"),
            (r#"permit-end="a=read:x""#, "x"),
            (r#"permit-end="a""#, "a"),
        ] {
            assert_eq!(Permissions::from_str(field).unwrap_err().word.as_deref(), Some(word), "{field}");
        }
    }

    #[test]
    fn a_key_tells_the_addresses_of_its_networks_and_no_others() {
        let told = |field: &str, client: &str| permissions(field).may_tell_source(client.parse().unwrap());
        let field = "permit-source=\"10.0.0.0/8,2001:db8::/32\",permit-source=192.0.2.7";
        assert!(told(field, "10.1.2.3") && told(field, "::ffff:10.1.2.3") && told(field, "2001:db8::1"));
        assert!(told(field, "192.0.2.7") && !told(field, "192.0.2.8") && !told(field, "::1"));
        assert!(told("permit-source=*", "192.0.2.8") && !told("permit-open=\"*\",permit-listen=\"*\"", "127.0.0.1"));
        let printed = "permit-source=\"10.0.0.0/8,[2001:db8::]/32,192.0.2.7\"";
        assert_eq!(permissions(field).to_string(), printed);
        assert_eq!(permissions(printed), permissions(field));
    }

    #[test]
    fn listen_rules_and_limits_are_parsed() {
        let permissions = permissions(
            "permit-listen=8080,permit-listen=\"*:9000-9009\",max-streams=\"10\",rate=10mbit,valid-until=2026-11-28,uses=3,name=joe",
        );
        assert!(
            permissions.may_listen(&Bind::Loopback(Proto::Tcp, 8080))
                && !permissions.may_listen(&Bind::Any(Proto::Tcp, 8080))
        );
        assert!(
            permissions.may_listen(&Bind::Any(Proto::Tcp, 9009))
                && !permissions.may_listen(&Bind::Any(Proto::Tcp, 9010))
        );
        assert_eq!((permissions.max_streams(), permissions.rate()), (Some(10), Some(1_250_000)));
        assert_eq!(permissions.name(), Some("joe"));
        assert_eq!(
            permissions.to_string(),
            r#"permit-listen="8080",permit-listen="*:9000-9009",max-streams="10",rate="10mbit",valid-until="2026-11-28T00:00:00Z",uses="3",name="joe""#
        );
    }

    #[test]
    fn a_key_gets_files_of_the_folders_that_it_names() {
        let field = r#"permit-get="/srv/films, old",permit-get="/srv/music""#;
        let key = permissions(field);
        assert_eq!(key.folders(), [PathBuf::from("/srv/films, old"), PathBuf::from("/srv/music")]);
        assert_eq!((key.to_string(), key.may_open_any()), (field.to_owned(), true));
        assert!(permissions("name=a").folders().is_empty());
    }

    #[test]
    fn an_error_names_the_wrong_word() {
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
            ("permit-open=udp:53", "udp:53"),
            ("permit-open=udp:unix:/x", "udp:unix:/x"),
            ("permit-listen=udp:", "udp:"),
            ("permit-listen=\"a b:1\"", "a b:1"),
            ("permit-get=srv", "srv"),
            ("permit-get=", ""),
            ("permit-source=", ""),
            ("permit-source=\"10.0.0.0/8,\"", ""),
            ("permit-source=\"10.0.0.0/8, ::1\"", " ::1"),
            ("permit-source=unix", "unix"),
            ("permit-source=example.org", "example.org"),
            ("permit-source=10.0.0.1:80", "10.0.0.1:80"),
            ("max-streams=0", "0"),
            ("max-streams=+1", "+1"),
            ("max-streams=1,max-streams=2", "max-streams"),
            ("rate=10", "10"),
            ("uses=0", "0"),
            ("uses=1,uses=1", "uses"),
            ("uses=1000000001", "1000000001"),
            ("valid-until=tomorrow", "tomorrow"),
            ("valid-until=2026-02-30", "2026-02-30"),
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
