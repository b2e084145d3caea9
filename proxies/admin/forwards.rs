//! The forwards in the status: each with its link, its addresses, its state and its counts, as JSON and as text.

use std::fmt::Write;
use std::time::Duration;

use seaprox::node::ForwardStatus;
use seaprox::{human_duration, human_size};
use serde_json::{Value, json};

/// Returns one element of `forwards`.
pub fn to_json(forward: &ForwardStatus) -> Value {
    json!({
        "id": forward.id.to_string(),
        "name": forward.name,
        "link": forward.link.to_string(),
        "direction": forward.direction.as_str(),
        "kind": forward.kind.as_str(),
        "asked": forward.asked.to_string(),
        "bound": forward.addresses(),
        "to": forward.to.as_ref().map(ToString::to_string),
        "state": forward.state.as_str(),
        "state_seconds": forward.state_for.as_secs_f64(),
        "failure": forward.failure.as_ref().map(|failure| {
            json!({ "reason": failure.reason.as_str(), "detail": failure.detail })
        }),
        "tries": forward.tries,
        "opened": forward.opened,
        "active": forward.active,
        "refused": forward.refused,
        "bytes_sent": forward.bytes.0,
        "bytes_received": forward.bytes.1,
        "datagrams_sent": forward.datagrams.0,
        "datagrams_received": forward.datagrams.1,
    })
}

/// Appends one line about a forward.
pub fn append_text(text: &mut String, forward: &Value) {
    let word = |key: &str| forward[key].as_str().unwrap_or("-");
    let number = |key: &str| forward[key].as_u64().unwrap_or(0);
    let name = Some(word("name")).filter(|name| *name != word("asked")).map(|name| format!(" \"{name}\""));
    let bound: Vec<&str> = forward["bound"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let at = if bound.is_empty() { word("asked").to_owned() } else { bound.join(" and ") };
    let to = forward["to"].as_str().map(|to| format!(" -> {to}")).unwrap_or_default();
    let since = Duration::from_secs(forward["state_seconds"].as_f64().unwrap_or(0.0) as u64);
    let failure = match forward["failure"].as_object() {
        Some(_) => format!(": {}, tries {}", failure(&forward["failure"]), number("tries")),
        None => String::new(),
    };
    // A write to a text does not fail.
    let _ = writeln!(
        text,
        "forward {} {} {at}{to}{}, link {}, {} for {}{failure}: active {}, opened {}, refused {}, sent {}, received {}",
        word("direction"),
        word("kind"),
        name.unwrap_or_default(),
        word("link"),
        word("state"),
        human_duration(since),
        number("active"),
        number("opened"),
        number("refused"),
        human_size(number("bytes_sent")),
        human_size(number("bytes_received")),
    );
}

fn failure(failure: &Value) -> String {
    let detail = failure["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}", failure["reason"].as_str().unwrap_or("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_forward_has_its_addresses_its_state_and_its_counts() {
        let line = |changes: Value| {
            let mut forward = json!({
                "name": "web", "link": "0.1", "direction": "local", "kind": "static", "asked": "127.0.0.1:0",
                "bound": ["127.0.0.1:80"], "to": "inner:80", "state": "listening", "state_seconds": 61.5, "opened": 7,
                "active": 1, "bytes_sent": 2048,
            });
            changes.as_object().unwrap().iter().for_each(|(key, value)| forward[key] = value.clone());
            let mut text = String::new();
            append_text(&mut text, &forward);
            text
        };
        let since = human_duration(Duration::from_secs(61));
        assert_eq!(
            line(json!({})),
            format!(
                "forward local static 127.0.0.1:80 -> inner:80 \"web\", link 0.1, listening for {since}: active 1, opened 7, refused 0, sent {}, received 0 B\n",
                human_size(2048)
            )
        );
        let refused = line(json!({
            "name": "127.0.0.1:0", "direction": "remote", "bound": [], "state": "failed", "tries": 2,
            "failure": { "reason": "address_in_use", "detail": null },
        }));
        assert!(refused.starts_with("forward remote static 127.0.0.1:0 -> inner:80, link 0.1, failed"), "{refused}");
        assert!(refused.contains(": address_in_use, tries 2: active"), "{refused}");
    }
}
