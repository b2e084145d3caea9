//! The status as text for people, made from its JSON.

use std::borrow::Cow;
use std::time::Duration;

use seaprox::{human_duration, human_size};
use serde_json::Value;

use super::{forwards, links, listeners};

/// Returns the status as lines of text. Members that are missing are shown as `-` or 0. Control characters are escaped,
/// because peers choose some of the words.
pub fn to_text(mut status: Value) -> String {
    escape(&mut status);
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let uptime = status["uptime_seconds"].as_f64().unwrap_or(0.0);
    let mut text = format!(
        "seaprox {} pid {} up {}\nconnections {} of {}, opened {}, buffers {} of {}, pipes {} of {}, descriptors {}\n",
        status["version"].as_str().unwrap_or("?"),
        number("/pid"),
        human_duration(Duration::from_secs(uptime as u64)),
        number("/usage/connections"),
        number("/limits/connections"),
        number("/opened"),
        human_size(number("/usage/buffer_bytes")),
        human_size(number("/limits/buffer_bytes")),
        number("/usage/pipes"),
        number("/limits/pipes"),
        number("/usage/descriptors"),
    );
    for (reason, count) in status["closed"].as_object().into_iter().flatten() {
        text.push_str(&format!("closed {reason} {count}\n"));
    }
    status["listeners"].as_array().into_iter().flatten().for_each(|one| listeners::append_text(&mut text, one));
    status["links"].as_array().into_iter().flatten().for_each(|link| links::append_text(&mut text, link));
    status["forwards"].as_array().into_iter().flatten().for_each(|one| forwards::append_text(&mut text, one));
    for flow in status["flows"].as_array().into_iter().flatten() {
        let word = |key: &str| flow[key].as_str().unwrap_or("-").to_owned();
        let number = |key: &str| flow[key].as_u64().unwrap_or(0);
        text.push_str(&format!(
            "{} {} {} datagrams {}/{} sent {} received {} dropped {}\n",
            word("id"),
            word("conn"),
            word("state"),
            number("datagrams_sent"),
            number("datagrams_received"),
            human_size(number("bytes_sent")),
            human_size(number("bytes_received")),
            number("dropped"),
        ));
    }
    for connection in status["connections"].as_array().into_iter().flatten() {
        let word = |key: &str| connection[key].as_str().unwrap_or("-").to_owned();
        text.push_str(&format!("{} {} {}\n", word("id"), word("conn"), word("stage")));
        for role in ["source", "dest"] {
            text.push_str(&side_line(role, &connection[role]));
        }
    }
    text
}

/// Replaces the control characters in all strings, so that none of them reaches a terminal or makes another line.
pub fn escape(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(escaped) = crate::text::escape(text) {
                *text = escaped;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(escape),
        Value::Object(members) => members.values_mut().for_each(escape),
        _ => {}
    }
}

fn side_line(role: &str, side: &Value) -> String {
    let Some(endpoint) = side["side"].as_str() else {
        return format!("  {role:6} - {}\n", side["state"].as_str().unwrap_or("-"));
    };
    let number = |key: &str| side[key].as_u64().unwrap_or(0);
    let flags: Vec<_> = side["flags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!(
        "  {role:6} {endpoint} {} in {} out {} congested {} queued {} {}\n",
        side["state"].as_str().unwrap_or("-"),
        human_size(number("bytes_in")),
        human_size(number("bytes_out")),
        number("congested"),
        human_size(number("queued")),
        flags.join(","),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_words_of_a_peer_reach_no_terminal_as_control_characters() {
        let detail = "no\u{1b}[2J\nlink forged\u{9b}";
        let failure = json!({ "reason": "other", "detail": detail, "ago_seconds": 1 });
        let text = to_text(json!({
            "links": [{ "peer": "a\tb", "state": "connecting", "failure": failure }],
            "forwards": [{ "name": "x", "failure": failure }],
        }));
        assert!(text.chars().all(|it| it == '\n' || !it.is_control()), "{text:?}");
        assert!(!text.contains("\nlink forged") && text.contains("no\\u{1b}[2J\\nlink forged\\u{9b}"), "{text}");
    }
}
