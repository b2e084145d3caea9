//! Rules that allow or deny a connection by its source and its target. The first rule that matches decides.
//!
//! A connection that no rule matches is permitted if all rules deny. If there is at least one allow rule, such a
//! connection is denied, so a list of allow rules is complete. A rule names a source, a target, or both:
//!
//! ```text
//! rule  = [from:PLACE ","] [to:] [udp:] PLACE [:PORTS]   at most one of each, in any order; both must match
//! place = *                                           everything
//!       | 10.0.0.0/8 | 10.0.0.1 | fd00::/8 | ::1      addresses; an IPv6 one with ports has brackets: [fd00::]/8:443
//!       | example.org                                 this name                                    (to: only)
//!       | *.example.org                               the names below it, at any depth, not itself (to: only)
//!       | .example.org                                itself and the names below it                (to: only)
//!       | unix | unix:/path                           any Unix socket; that one                    (a path: to: only)
//! ports = 443 | 8000-8999                             (to: only: the port of a source means nothing)
//! ```
//!
//! A rule is about TCP (and Unix sockets), or about UDP if `udp:` stands before its target, and matches no target of another
//! protocol. A UDP target that no rule matches is denied if there are rules, so a list that was written for TCP permits no
//! datagrams. The host called `udp` is written with a final dot: `udp.:53`.
//!
//! Names are compared without case and without the final dot. A target that is an address matches no name. Addresses are
//! compared in canonical form (`::ffff:10.0.0.1` is `10.0.0.1`; `::/0` matches all IPv6 and no IPv4 addresses). The
//! unspecified address also counts as loopback, because a connect to it goes there. A name that an allow rule permits is
//! permitted for all of its addresses, so rules that deny addresses must come first. Paths are compared byte by byte.
//! This module resolves no names.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use crate::{Proto, Target};

mod place;

use place::{Place, Ports, bare, split_ports};

/// An ordered list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Vec<Rule>,
    /// True if a connection that no rule matches is permitted.
    default_allow: bool,
}

/// The effect of a rule on the connections that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The connection is permitted.
    Allow,
    /// The connection is denied.
    Deny,
}

/// The result of the rules for a target whose name is not resolved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The target is permitted with every address of its name.
    Allow,
    /// The target is denied with every address of its name.
    Deny,
    /// The name must be resolved; [`Rules::permits`] then decides for each address.
    NeedsAddress,
}

/// One rule: an action and its conditions. The text form has no action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    action: Action,
    /// The protocol of the targets that the rule matches.
    proto: Proto,
    from: Option<Place>,
    to: Option<(Place, Option<Ports>)>,
}

/// A set of clients: an address, a network such as `10.0.0.0/8`, `unix` for the clients of Unix sockets, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceNetwork(Place);

/// A parse error of a rule. Its text is the form that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleError(&'static str);

impl Rules {
    /// Makes a list of rules; the first rule that matches decides.
    pub fn new(rules: Vec<Rule>) -> Rules {
        let default_allow = rules.iter().all(|rule| rule.action == Action::Deny);
        Rules { rules, default_allow }
    }

    /// Returns true if there are no rules, so that all connections are permitted.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Iterates over the rules in order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Decides as far as possible without resolving a name. `source` is `None` for a client of a Unix socket.
    ///
    /// A target that is an address or a Unix socket is always decided.
    pub fn decide(&self, source: Option<IpAddr>, target: &Target) -> Decision {
        self.first(source, &Dest::of(target))
    }

    /// Returns true if a connection to an address of the target is permitted.
    pub fn permits(&self, source: Option<IpAddr>, target: &Target, addr: SocketAddr) -> bool {
        let ip = Some(addr.ip().to_canonical());
        let dest = Dest { ip, port: addr.port(), path: None, ..Dest::of(target) };
        self.first(source, &dest) == Decision::Allow
    }

    fn first(&self, source: Option<IpAddr>, dest: &Dest) -> Decision {
        let ip = source.map(|ip| ip.to_canonical());
        let source = Dest { proto: dest.proto, name: None, ip, path: None, port: 0, is_end: false };
        for rule in &self.rules {
            match rule.matches(&source, dest) {
                Match::Yes => return Decision::from(rule.action == Action::Allow),
                Match::Unknown => return Decision::NeedsAddress,
                Match::No => {}
            }
        }
        // `Rules::default()` has no rules and permits all connections.
        Decision::from(self.rules.is_empty() || self.default_allow && dest.proto == Proto::Tcp)
    }
}

impl Rule {
    /// Parses a rule in the grammar at the head of this module.
    ///
    /// # Errors
    /// The text does not follow the grammar; the error names the expected form.
    pub fn parse(action: Action, text: &str) -> Result<Rule, RuleError> {
        let mut rule = Rule { action, proto: Proto::Tcp, from: None, to: None };
        for condition in text.split(',') {
            if let Some(text) = condition.strip_prefix("from:") {
                let place = Place::parse(text)?;
                if !place.is_source() {
                    return Err(RuleError("an address, a network, unix or * after from:"));
                }
                if rule.from.replace(place).is_some() {
                    return Err(RuleError(RULE_ONCE));
                }
            } else {
                let text = condition.strip_prefix("to:").unwrap_or(condition);
                let (proto, text) = Proto::split(text);
                let (place, ports) = split_ports(text)?;
                let place = Place::parse(place)?;
                if proto == Proto::Udp && matches!(place, Place::Unix(_)) {
                    return Err(RuleError("an address, a network, a name or * after udp:"));
                }
                rule.proto = proto;
                if rule.to.replace((place, ports)).is_some() {
                    return Err(RuleError(RULE_ONCE));
                }
            }
        }
        Ok(rule)
    }

    /// Returns the effect of the rule on the connections that it matches.
    pub fn action(&self) -> Action {
        self.action
    }

    /// Returns the protocol of the targets that the rule matches.
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// Compares the source and the port before the place of the target, so that no name is resolved for a rule that
    /// cannot match.
    fn matches(&self, source: &Dest, dest: &Dest) -> Match {
        if self.proto != dest.proto {
            return Match::No;
        }
        let from = self.from.as_ref().map_or(Match::Yes, |place| place.matches(source));
        if from == Match::No {
            return Match::No;
        }
        match &self.to {
            None => from,
            Some((_, Some(ports))) if dest.path.is_some() || dest.is_end || !ports.contains(dest.port) => Match::No,
            Some((place, _)) => place.matches(dest),
        }
    }
}

impl SourceNetwork {
    /// Returns true if the set has this client; none is a client of a Unix socket.
    pub fn contains(&self, source: Option<IpAddr>) -> bool {
        let ip = source.map(|ip| ip.to_canonical());
        self.0.matches(&Dest { proto: Proto::Tcp, name: None, ip, path: None, port: 0, is_end: false }) == Match::Yes
    }
}

impl FromStr for SourceNetwork {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<SourceNetwork, RuleError> {
        let expected = RuleError("an address, a network such as 10.0.0.0/8, unix or *");
        let place = Place::parse(text).map_err(|_| expected)?;
        if place.is_source() { Ok(SourceNetwork(place)) } else { Err(expected) }
    }
}

impl fmt::Display for SourceNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One end of a connection, normalized for the comparison. An end with neither name nor address is a Unix socket.
struct Dest<'a> {
    proto: Proto,
    name: Option<&'a str>,
    ip: Option<IpAddr>,
    path: Option<&'a Path>,
    port: u16,
    /// A named end, which only `*` matches.
    is_end: bool,
}

impl<'a> Dest<'a> {
    fn of(target: &'a Target) -> Dest<'a> {
        let (proto, port) = (target.proto(), target.port().unwrap_or(0));
        let none = Dest { proto, name: None, ip: None, path: None, port, is_end: false };
        match target {
            Target::Ip(_, addr) => Dest { ip: Some(addr.ip().to_canonical()), ..none },
            Target::Name(_, name, _) => Dest { name: Some(bare(name.as_str())), ..none },
            Target::Unix(path) => Dest { path: Some(path), ..none },
            Target::End(_) => Dest { is_end: true, ..none },
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// The name must be resolved first.
    Unknown,
}

impl From<bool> for Match {
    fn from(yes: bool) -> Match {
        if yes { Match::Yes } else { Match::No }
    }
}

impl From<bool> for Decision {
    fn from(allow: bool) -> Decision {
        if allow { Decision::Allow } else { Decision::Deny }
    }
}

const RULE_ONCE: &str = "at most one from: and one to: in a rule; give a rule for each";

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.from {
            write!(f, "from:{place}{}", if self.to.is_some() { "," } else { "" })?;
        }
        match &self.to {
            None => Ok(()),
            Some((place, None)) => write!(f, "to:{}{place}", self.proto.prefix()),
            Some((place, Some(ports))) => write!(f, "to:{}{place}:{ports}", self.proto.prefix()),
        }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(texts: &[&str]) -> Rules {
        Rules::new(texts.iter().map(|text| rule(text)).collect())
    }

    /// Parses a rule that starts with `+` for allow or `-` for deny.
    fn rule(text: &str) -> Rule {
        let action = if text.starts_with('+') { Action::Allow } else { Action::Deny };
        Rule::parse(action, &text[1..]).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn decide(texts: &[&str], target: &str) -> Decision {
        rules(texts).decide("192.0.2.1".parse().ok(), &Target::parse(target).unwrap())
    }

    #[test]
    fn a_target_that_no_rule_matches_is_permitted_unless_there_is_an_allow_rule() {
        assert_eq!(decide(&[], "example.org:80"), Decision::Allow);
        assert_eq!(decide(&["-*:25"], "example.org:25"), Decision::Deny);
        assert_eq!(decide(&["-*:25"], "example.org:80"), Decision::Allow);
        assert_eq!(decide(&["-*:25", "+*:443"], "example.org:80"), Decision::Deny);
        assert_eq!(decide(&["+*:443"], "unix:/run/x"), Decision::Deny);
        assert!(
            rules(&[]).is_empty() && Rules::default().decide(None, &Target::parse("80").unwrap()) == Decision::Allow
        );
    }

    #[test]
    fn a_network_of_sources_has_its_clients_and_no_others() {
        let has = |network: &str, source: Option<&str>| {
            let network: SourceNetwork = network.parse().unwrap();
            assert_eq!(network.to_string().parse(), Ok(network.clone()));
            network.contains(source.map(|ip| ip.parse().unwrap()))
        };
        assert!(has("10.0.0.0/8", Some("10.1.2.3")) && has("10.0.0.0/8", Some("::ffff:10.1.2.3")));
        assert!(!has("10.0.0.0/8", Some("11.0.0.0")) && !has("10.0.0.0/8", None) && !has("::/0", Some("10.1.2.3")));
        assert!(has("fd00::/8", Some("fd01::1")) && has("*", None) && has("*", Some("::1")));
        assert!(has("unix", None) && !has("unix", Some("127.0.0.1")));
        for text in ["", "example.org", "unix:/run/x", "10.0.0.0/33", "10.0.0.1:80"] {
            assert!(text.parse::<SourceNetwork>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        assert_eq!(decide(&["-*.example.org", "+*"], "a.example.org:1"), Decision::Deny);
        assert_eq!(decide(&["+*", "-*.example.org"], "a.example.org:1"), Decision::Allow);
    }

    #[test]
    fn a_name_matches_without_case_and_only_at_label_boundaries() {
        for (place, target, is_match) in [
            ("example.org", "EXAMPLE.org.:1", true),
            ("example.org", "a.example.org:1", false),
            ("*.example.org", "a.b.Example.org:1", true),
            ("*.example.org", "example.org:1", false),
            ("*.example.org", "badexample.org:1", false),
            (".example.org", "example.org:1", true),
            (".example.org", "a.example.org:1", true),
            (".example.org", "badexample.org:1", false),
            ("example.org", "10.0.0.1:1", false),
        ] {
            let decision = decide(&[&format!("-{place}")], target);
            assert_eq!(decision, if is_match { Decision::Deny } else { Decision::Allow }, "{place} {target}");
        }
        let addr = "10.0.0.1:80".parse().unwrap();
        let permits = |target: &str| rules(&["-example.org"]).permits(None, &Target::parse(target).unwrap(), addr);
        assert!(!permits("Example.Org.:80") && permits("10.0.0.1:80"));
    }

    #[test]
    fn a_name_is_resolved_only_if_its_addresses_decide() {
        assert_eq!(decide(&["-10.0.0.0/8"], "example.org:80"), Decision::NeedsAddress);
        assert_eq!(decide(&["-10.0.0.0/8:22"], "example.org:80"), Decision::Allow);
        assert_eq!(decide(&["+example.org", "-10.0.0.0/8"], "example.org:80"), Decision::Allow);
        assert_eq!(decide(&["-from:10.0.0.0/8,to:10.0.0.0/8"], "example.org:80"), Decision::Allow);
        let rules = rules(&["-10.0.0.0/8"]);
        let target = Target::parse("example.org:80").unwrap();
        assert!(!rules.permits(None, &target, "10.0.0.1:80".parse().unwrap()));
        assert!(rules.permits(None, &target, "11.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn a_rule_matches_targets_of_its_protocol_only() {
        assert_eq!(decide(&["+udp:*:53"], "udp:10.0.0.1:53"), Decision::Allow);
        assert_eq!(decide(&["+udp:*:53"], "10.0.0.1:53"), Decision::Deny);
        assert_eq!(decide(&["-udp:10.0.0.0/8", "+udp:*"], "udp:dns.example:53"), Decision::NeedsAddress);
        assert_eq!(decide(&["-udp:10.0.0.0/8"], "dns.example:53"), Decision::Allow);
        assert_eq!(decide(&["+from:192.0.2.0/24,to:udp:*"], "udp:10.0.0.1:53"), Decision::Allow);
        assert_eq!(decide(&[], "udp:10.0.0.1:53"), Decision::Allow);
        for without_udp in ["+*", "-10.0.0.0/8", "-from:10.0.0.0/8", "+from:*"] {
            assert_eq!(decide(&[without_udp], "udp:192.0.2.9:53"), Decision::Deny, "{without_udp}");
        }
        let (rules, addr) = (rules(&["+udp:10.0.0.0/8"]), "10.0.0.1:53".parse().unwrap());
        assert!(rules.permits(None, &Target::parse("udp:dns.example:53").unwrap(), addr));
        assert!(!rules.permits(None, &Target::parse("dns.example:53").unwrap(), addr));
    }

    #[test]
    fn addresses_are_compared_in_canonical_form() {
        assert_eq!(decide(&["-127.0.0.0/8"], "[::ffff:127.0.0.1]:80"), Decision::Deny);
        assert_eq!(decide(&["-127.0.0.0/8"], "0.0.0.0:80"), Decision::Deny);
        assert_eq!(decide(&["-::1"], "[::]:80"), Decision::Deny);
        assert_eq!(decide(&["-::/0"], "10.0.0.1:80"), Decision::Allow);
        let mapped = "::ffff:10.0.0.1".parse().ok();
        assert_eq!(rules(&["-from:10.0.0.0/8"]).decide(mapped, &Target::parse("80").unwrap()), Decision::Deny);
    }

    #[test]
    fn a_rule_matches_only_if_both_of_its_ends_match() {
        let rules = rules(&["+from:10.0.0.0/8,to:*.example.org:443"]);
        let target = |text: &str| Target::parse(text).unwrap();
        let inside = "10.1.1.1".parse().ok();
        assert_eq!(rules.decide(inside, &target("a.example.org:443")), Decision::Allow);
        assert_eq!(rules.decide(inside, &target("a.example.org:80")), Decision::Deny);
        assert_eq!(rules.decide("11.1.1.1".parse().ok(), &target("a.example.org:443")), Decision::Deny);
        assert_eq!(rules.decide(None, &target("a.example.org:443")), Decision::Deny);
    }

    #[test]
    fn a_rule_for_unix_sockets_matches_no_addresses() {
        assert_eq!(decide(&["-unix"], "unix:/run/x"), Decision::Deny);
        assert_eq!(decide(&["-unix:/run/x"], "unix:/run/x"), Decision::Deny);
        assert_eq!(decide(&["-unix:/run/y", "-0.0.0.0/0", "-*:1"], "unix:/run/x"), Decision::Allow);
        assert_eq!(decide(&["-*"], "unix:/run/x"), Decision::Deny);
        let target = Target::parse("80").unwrap();
        assert_eq!(rules(&["-from:unix"]).decide(None, &target), Decision::Deny);
        assert_eq!(rules(&["-from:unix"]).decide("10.0.0.1".parse().ok(), &target), Decision::Allow);
    }

    #[test]
    fn a_printed_rule_parses_to_itself() {
        for text in ["to:*", "from:10.0.0.0/8", "from:unix,to:[fd00::]/8:1-2", "to:.example.org:80", "to:unix:/run/x"] {
            assert_eq!(Rule::parse(Action::Deny, text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_invalid_rule_is_refused() {
        for text in [
            "",
            ",",
            "to:*,",
            "to:*,to:*",
            "a,b",
            "from:a.org",
            "from:*:80",
            "from:unix:/x",
            "to:",
            "to:from:x:",
            "udp:",
            "udp:53",
            "udp:unix",
            "udp:unix:/x",
            "from:udp:*",
        ] {
            assert!(Rule::parse(Action::Allow, text).is_err(), "{text:?}");
        }
    }

    const PLACES: [&str; 14] = [
        "*",
        "10.0.0.0/8",
        "10.0.0.0/8:80",
        "::1",
        "::/0",
        "0.0.0.0/0",
        "a.org",
        "*.a.org",
        ".a.org:80-90",
        "unix",
        "*:80",
        "from:10.0.0.0/8,to:10.0.0.1",
        "udp:10.0.0.0/8",
        "udp:*:80",
    ];

    proptest! {
        #[test]
        fn decide_and_permits_agree(
            picks in prop::collection::vec((prop::bool::ANY, 0..PLACES.len()), 0..5),
            source in prop::sample::select(vec![None, Some("10.0.0.9"), Some("::ffff:10.0.0.9"), Some("::1")]),
            name in prop::sample::select(vec![None, Some("a.org"), Some("B.A.org"), Some("c.net")]),
            ip in prop::sample::select(vec!["10.0.0.1", "11.0.0.1", "::1", "::", "0.0.0.0", "::ffff:10.0.0.1"]),
            port in prop::sample::select(vec![80_u16, 90, 443]),
            proto in prop::sample::select(vec![Proto::Tcp, Proto::Udp]),
        ) {
            let action = |allow| if allow { Action::Allow } else { Action::Deny };
            let rules = Rules::new(picks.iter().map(|(a, i)| Rule::parse(action(*a), PLACES[*i]).unwrap()).collect());
            let source = source.and_then(|ip| ip.parse().ok());
            let addr = SocketAddr::new(ip.parse().unwrap(), port);
            let target = Target::from_host(name.unwrap_or(ip), port).unwrap().with_proto(proto);
            let permits = rules.permits(source, &target, addr);
            match rules.decide(source, &target) {
                Decision::Allow => prop_assert!(permits),
                Decision::Deny => prop_assert!(!permits),
                Decision::NeedsAddress => prop_assert!(name.is_some()),
            }
        }

        #[test]
        fn no_text_panics(text in "(from:|to:)?(udp[:.])?[a-z0-9.*:/,\\[\\]-]{0,24}") {
            if let Ok(rule) = Rule::parse(Action::Allow, &text) {
                prop_assert_eq!(Rule::parse(Action::Allow, &rule.to_string()), Ok(rule));
            }
        }
    }
}
