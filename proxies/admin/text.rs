//! The status as text for people, made from its JSON.

use std::time::Duration;

use seaprox::{human_duration, human_size};
use serde_json::Value;

use super::{forwards, links, listeners};

/// Returns the status as lines of text. Members that are missing are shown as `-` or 0.
pub fn to_text(status: &Value) -> String {
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
    for connection in status["connections"].as_array().into_iter().flatten() {
        let word = |key: &str| connection[key].as_str().unwrap_or("-").to_owned();
        text.push_str(&format!("{} {} {}\n", word("id"), word("conn"), word("stage")));
        for role in ["source", "dest"] {
            text.push_str(&side_line(role, &connection[role]));
        }
    }
    text
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
