//! The listeners in the status: each with its address, its front end and its counts over all loops, as JSON and as text.

use std::fmt::Write;

use seaprox::{ListenerStatus, TargetStatus};
use serde_json::{Value, json};

/// Adds the listeners for clients of one loop to those of the others. A listener of several loops is one, with the sums of
/// its counts.
pub fn add(all: &mut Vec<ListenerStatus>, of_loop: Vec<ListenerStatus>) {
    for one in of_loop.into_iter().filter(|one| *one.kind != *"link") {
        match all.iter_mut().find(|other| other.name == one.name && other.addr == one.addr) {
            Some(other) => {
                other.accepted += one.accepted;
                other.active += one.active;
                other.refused += one.refused;
                other.failed += one.failed;
                other.closed.iter_mut().zip(one.closed).for_each(|(sum, count)| *sum += count);
                other.bytes = (other.bytes.0 + one.bytes.0, other.bytes.1 + one.bytes.1);
                other.datagrams = (other.datagrams.0 + one.datagrams.0, other.datagrams.1 + one.datagrams.1);
            }
            None => all.push(one),
        }
    }
}

/// Returns one element of `listeners`.
pub fn to_json(listener: &ListenerStatus) -> Value {
    json!({
        "name": listener.name,
        "kind": listener.kind.as_str(),
        "address": listener.address(),
        "accepted": listener.accepted,
        "active": listener.active,
        "refused": listener.refused,
        "failed": listener.failed,
        "bytes_sent": listener.bytes.0,
        "bytes_received": listener.bytes.1,
        "datagrams_sent": listener.datagrams.0,
        "datagrams_received": listener.datagrams.1,
        "targets": listener.targets.iter().map(target).collect::<Vec<_>>(),
    })
}

/// Returns one element of `targets`, of a listener that balances its clients.
fn target(target: &TargetStatus) -> Value {
    json!({
        "target": target.target.to_string(),
        "address": target.address.map(|address| address.to_string()),
        "state": target.state.as_str(),
        "active": target.active,
        "opened": target.opened,
        "failures": target.failures,
    })
}

/// Appends one line about a listener, and one about each of its targets.
pub fn append_text(text: &mut String, listener: &Value) {
    let word = |key: &str| listener[key].as_str().unwrap_or("-");
    let number = |key: &str| listener[key].as_u64().unwrap_or(0);
    let name = Some(word("name")).filter(|name| *name != word("address")).map(|name| format!(" \"{name}\""));
    // A write to a text does not fail.
    let _ = writeln!(
        text,
        "listener {} {}{}: active {}, accepted {}, refused {}",
        word("kind"),
        word("address"),
        name.unwrap_or_default(),
        number("active"),
        number("accepted"),
        number("refused"),
    );
    for target in listener["targets"].as_array().into_iter().flatten() {
        let word = |key: &str| target[key].as_str().unwrap_or("-");
        let number = |key: &str| target[key].as_u64().unwrap_or(0);
        let address = target["address"].as_str().filter(|address| *address != word("target"));
        let _ = writeln!(
            text,
            "  target {}{}: {}, active {}, opened {}, failures {}",
            word("target"),
            address.map(|address| format!(" at {address}")).unwrap_or_default(),
            word("state").replace('_', " "),
            number("active"),
            number("opened"),
            number("failures"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_listener_has_its_counts_and_its_name_unless_that_is_the_address() {
        let line = |name: &str| {
            let mut text = String::new();
            let address = "127.0.0.1:1080";
            let listener = json!({ "name": name, "kind": "socks", "address": address, "accepted": 7, "active": 2 });
            append_text(&mut text, &listener);
            text
        };
        assert_eq!(line("127.0.0.1:1080"), "listener socks 127.0.0.1:1080: active 2, accepted 7, refused 0\n");
        let mut text = String::new();
        let target = json!({ "target": "web:80", "address": "10.0.0.1:80", "state": "left_out", "active": 1, "opened": 4,
            "failures": 3 });
        let listener = json!({ "kind": "static", "address": ":80", "targets": [target] });
        append_text(&mut text, &listener);
        assert_eq!(
            text.lines().last(),
            Some("  target web:80 at 10.0.0.1:80: left out, active 1, opened 4, failures 3")
        );
        assert_eq!(line("web"), "listener socks 127.0.0.1:1080 \"web\": active 2, accepted 7, refused 0\n");
    }
}
