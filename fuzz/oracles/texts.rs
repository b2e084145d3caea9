//! Addresses and rules in the user's notation: a printed value can be parsed again and has the same meaning.

use std::path::Path;

use seaprox::rules::{Action, Rule};
use seaprox::{Bind, Target, split_port_range};

/// Checks targets, listening addresses and port ranges.
pub fn address(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(target) = Target::parse(text) {
        assert_ne!(target.port(), Some(0));
        let printed = target.to_string();
        assert!(!printed.contains(char::is_control), "{printed:?} can break a line of log");
        let ambiguous = matches!(&target, Target::Unix(path) if is_escaped(path));
        assert!(ambiguous || Target::parse(&printed).as_ref() == Ok(&target), "{printed:?} is not {target:?}");
    }
    if let Ok(bind) = Bind::parse(text) {
        let printed = bind.to_string();
        let ambiguous = matches!(&bind, Bind::Unix(path) if is_escaped(path));
        assert!(ambiguous || Bind::parse(&printed).as_ref() == Ok(&bind), "{printed:?} is not {bind:?}");
    }
    if let Ok((first, count)) = split_port_range(text) {
        check_range(text, &first, count);
    }
}

/// Checks rules, with either action.
pub fn rules(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    for action in [Action::Allow, Action::Deny] {
        if let Ok(rule) = Rule::parse(action, text) {
            assert_eq!(rule.action(), action);
            let printed = rule.to_string();
            assert_eq!(Rule::parse(action, &printed).as_ref(), Ok(&rule), "{printed:?}");
        }
    }
}

/// Checks that the last port of a range is a valid port, and that the part before the range is no range itself.
fn check_range(text: &str, first: &str, count: u16) {
    assert!(count > 0);
    if first == text {
        assert_eq!(count, 1);
        return;
    }
    let port: u16 = first.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port at the end");
    assert!(port > 0 && port.checked_add(count - 1).is_some());
    assert_eq!(split_port_range(first), Ok((first.to_owned(), 1)));
}

/// Returns true if a path is printed with escapes.
fn is_escaped(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.chars().any(|char| char.is_control() || char.is_whitespace() || "[]\"\\".contains(char))
}
