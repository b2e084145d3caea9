//! The links in the status: each link with its peer, its subflows and its listeners, as JSON and as text.

use std::fmt::Write as _;
use std::time::Duration;

use seaprox::auth::PublicKey;
use seaprox::metrics::LinkStats;
use seaprox::node::{LinkListenerStatus, LinkStatus, MissingStatus, SubflowStatus};
use seaprox::{Failure, human_duration, human_rate, human_size};
use serde_json::{Value, json};

use super::document;

/// Returns one element of `links`.
pub fn to_json(link: &LinkStatus) -> Value {
    let key = link.key.and_then(|key| PublicKey::from_bytes(key).ok());
    let mut object = json!({
        "id": link.id.to_string(),
        "peer": link.peer,
        "name": link.name,
        "key": key.map(|key| key.to_string()),
        "fingerprint": key.map(|key| key.fingerprint()),
        "dialled": link.dialled,
        "state": link.state.as_str(),
        "state_seconds": link.state_for.as_secs_f64(),
        "tries": link.tries,
        "age_seconds": link.age.as_secs_f64(),
        "session_seconds": link.session_age.map(|age| age.as_secs_f64()),
        "failure": link.failure.as_ref().map(failure_json),
        "missing": link.missing.iter().map(missing_json).collect::<Vec<_>>(),
        "blocked": link.blocked.iter().map(missing_json).collect::<Vec<_>>(),
        "mode": link.mode,
        "memory_sent_bytes": link.memory.0,
        "memory_received_bytes": link.memory.1,
        "cipher": link.cipher,
        "subflows": link.subflows.iter().map(subflow_json).collect::<Vec<_>>(),
        "streams": link.streams,
        "listeners": link.listeners.iter().map(listener_json).collect::<Vec<_>>(),
    });
    document::add_metrics(&mut object, LinkStats::METRICS, &link.stats.samples());
    object
}

fn failure_json((failure, ago): &(Failure, Duration)) -> Value {
    json!({ "reason": failure.reason.as_str(), "detail": failure.detail, "ago_seconds": ago.as_secs_f64() })
}

fn missing_json(missing: &MissingStatus) -> Value {
    json!({
        "path": missing.path,
        "tries": missing.tries,
        "failure": missing.failure.as_ref().map(failure_json),
        "next_seconds": missing.next.map(|next| next.as_secs_f64()),
    })
}

fn subflow_json(subflow: &SubflowStatus) -> Value {
    json!({
        "number": subflow.number,
        "local": subflow.local,
        "seen_as": subflow.seen_as,
        "remote": subflow.remote,
        "carrier": subflow.carrier,
        "group": subflow.group,
        "state": subflow.state.as_str(),
        "backup": subflow.is_backup,
        "rtt_seconds": subflow.rtt.as_secs_f64(),
        "rate_bytes_per_second": subflow.rate,
        "window_bytes": subflow.figures.map(|figures| figures.window_bytes),
        "packets_lost": subflow.figures.map(|figures| figures.packets_lost),
        "mtu_bytes": subflow.figures.map(|figures| figures.mtu_bytes),
        "bytes_sent": subflow.bytes.0,
        "bytes_received": subflow.bytes.1,
    })
}

fn listener_json(listener: &LinkListenerStatus) -> Value {
    json!({
        "place": listener.place,
        "to": listener.to,
        "remote": listener.remote,
        "port": listener.port,
        "failure": listener.failure,
    })
}

/// Appends a link as text, from its JSON: one line for the link, with the last failure if it is not up, and one line for
/// each subflow, each missing or blocked one and each listener.
pub fn append_text(text: &mut String, link: &Value) {
    let (word, number) = (|key: &str| word(link, key), |key: &str| number(link, key));
    let how = if link["dialled"].as_bool() == Some(true) { "to" } else { "from" };
    let _ = write!(text, "link {} {how} {}", word("id"), word("peer"));
    if word("name") != word("peer") {
        let _ = write!(text, " ({})", word("name"));
    }
    if let Some(fingerprint) = link["fingerprint"].as_str() {
        let _ = write!(text, " {fingerprint}");
    }
    let _ = write!(text, " {} for {}", word("state"), seconds(link, "state_seconds"));
    match link["failure"].as_object() {
        Some(_) => _ = write!(text, ": {}", failure(&link["failure"])),
        None => _ = write!(text, ", {}, mode {}", word("cipher"), word("mode")),
    }
    text.push('\n');
    let session = match link["session_seconds"].as_f64() {
        Some(_) => seconds(link, "session_seconds"),
        None => "-".to_owned(),
    };
    let _ = writeln!(
        text,
        "  session {session} streams {} sent {} received {} resent {} resumes {} memory {} and {}",
        number("streams"),
        human_size(number("bytes_sent")),
        human_size(number("bytes_received")),
        human_size(number("resent_bytes")),
        number("resumes"),
        human_size(number("memory_sent_bytes")),
        human_size(number("memory_received_bytes")),
    );
    link["subflows"].as_array().into_iter().flatten().for_each(|subflow| subflow_line(text, subflow));
    for state in ["missing", "blocked"] {
        link[state].as_array().into_iter().flatten().for_each(|missing| missing_line(text, state, missing));
    }
    link["listeners"].as_array().into_iter().flatten().for_each(|listener| listener_line(text, listener));
}

/// Appends a line about a missing or blocked subflow: the failed attempts, and the time of the next one.
fn missing_line(text: &mut String, state: &str, missing: &Value) {
    let next = match missing["next_seconds"].as_f64() {
        Some(_) => format!("next in {}", seconds(missing, "next_seconds")),
        None => "being tried".to_owned(),
    };
    let why = if missing["failure"].is_object() { failure(&missing["failure"]) } else { "-".to_owned() };
    let _ = writeln!(text, "  {state} {} tries {}, {next}: {why}", word(missing, "path"), number(missing, "tries"));
}

fn failure(failure: &Value) -> String {
    let detail = failure["detail"].as_str().map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}{detail}, {} ago", word(failure, "reason"), seconds(failure, "ago_seconds"))
}

fn seconds(value: &Value, key: &str) -> String {
    human_duration(Duration::from_secs_f64(value[key].as_f64().unwrap_or(0.0).clamp(0.0, SECONDS_MAX)))
}

fn subflow_line(text: &mut String, subflow: &Value) {
    let rtt = Duration::from_micros((subflow["rtt_seconds"].as_f64().unwrap_or(0.0) * 1e6) as u64);
    // The rate is unknown until traffic has filled the path.
    let rate = subflow["rate_bytes_per_second"].as_u64().map_or("-".into(), human_rate);
    let seen_as = subflow["seen_as"].as_str().filter(|seen| *seen != word(subflow, "local"));
    let seen_as = seen_as.map(|seen| format!(" (seen as {seen})")).unwrap_or_default();
    let backup = if subflow["backup"].as_bool() == Some(true) { " backup" } else { "" };
    let figures = match subflow["window_bytes"].as_u64() {
        Some(window) => {
            let (lost, mtu) = (number(subflow, "packets_lost"), number(subflow, "mtu_bytes"));
            format!(" window {} lost {lost} mtu {mtu}", human_size(window))
        }
        None => String::new(),
    };
    let _ = writeln!(
        text,
        "  subflow {} {}{seen_as} -> {} {} {} {}{backup} rtt {} rate {rate} sent {} received {}{figures}",
        subflow["number"].as_u64().map_or_else(|| "-".to_owned(), |number| number.to_string()),
        word(subflow, "local"),
        word(subflow, "remote"),
        word(subflow, "carrier"),
        word(subflow, "group"),
        word(subflow, "state"),
        human_duration(rtt),
        human_size(number(subflow, "bytes_sent")),
        human_size(number(subflow, "bytes_received")),
    );
}

fn listener_line(text: &mut String, listener: &Value) {
    let side = if listener["remote"].as_bool() == Some(true) { "remote" } else { "here" };
    let port = listener["port"].as_u64().map_or_else(|| "not bound".to_owned(), |port| format!("port {port}"));
    let failure = listener["failure"].as_str().map(|failure| format!(": {failure}")).unwrap_or_default();
    let (place, to) = (word(listener, "place"), word(listener, "to"));
    let _ = writeln!(text, "  listener {side} {place} -> {to} {port}{failure}");
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// The longest time that is shown, 100 years.
const SECONDS_MAX: f64 = 36_500.0 * 86_400.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_link_has_its_peer_subflows_and_listeners() {
        let link = json!({
            "id": "0.1", "peer": "remote:23232", "name": "home", "fingerprint": "SHA256:x", "dialled": true,
            "state": "up", "state_seconds": 61.5, "session_seconds": 90, "mode": "single", "memory_sent_bytes": 1024, "cipher": "aes-128-gcm", "streams": 3, "bytes_sent": 2048,
            "bytes_received": 1024, "resent_bytes": 0, "resumes": 2,
            "subflows": [{
                "number": 0, "local": "10.0.0.1:5", "seen_as": "192.0.2.1:7", "remote": "10.0.0.2:23232", "carrier": "quic", "group": "X25519MLKEM768", "state": "live", "backup": true, "rtt_seconds": 0.0125, "window_bytes": 14_720, "packets_lost": 3, "mtu_bytes": 1452,
                "rate_bytes_per_second": 125_000, "bytes_sent": 4096, "bytes_received": 0,
            }],
            "listeners": [
                { "place": "2222", "to": "127.0.0.1:22", "remote": true, "port": 2222, "failure": null },
                { "place": "80", "to": "127.0.0.1:80", "remote": true, "port": null, "failure": "address_in_use" },
            ],
        });
        let mut text = String::new();
        append_text(&mut text, &link);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "link 0.1 to remote:23232 (home) SHA256:x up for 1m01s, aes-128-gcm, mode single");
        assert_eq!(
            lines[1],
            "  session 1m30s streams 3 sent 2.05 kB received 1.02 kB resent 0 B resumes 2 memory 1.02 kB and 0 B"
        );
        let subflow = "  subflow 0 10.0.0.1:5 (seen as 192.0.2.1:7) -> 10.0.0.2:23232 quic X25519MLKEM768 live backup rtt 12.5 ms rate 1.00 Mbit/s sent 4.10 kB received 0 B window 14.7 kB lost 3 mtu 1452";
        assert_eq!(lines[2], subflow);
        assert_eq!(lines[3], "  listener remote 2222 -> 127.0.0.1:22 port 2222");
        assert_eq!(lines[4], "  listener remote 80 -> 127.0.0.1:80 not bound: address_in_use");
        append_text(&mut text, &json!({}));
    }

    #[test]
    fn the_text_of_a_link_that_is_not_up_has_its_failure_and_its_attempts() {
        let refused =
            json!({ "reason": "connection_refused", "detail": "10.0.0.2:23232: refused", "ago_seconds": 2.5 });
        let link = json!({
            "id": "0.1", "peer": "remote:23232", "name": "remote:23232", "dialled": true, "state": "connecting",
            "state_seconds": 63, "failure": refused, "session_seconds": null, "subflows": [{ "seen_as": null }],
            "missing": [
                { "path": "10.0.0.1->remote:23232", "tries": 7, "failure": refused, "next_seconds": 4.2 },
                { "path": "remote:23232", "tries": 0, "failure": null, "next_seconds": null },
            ],
            "blocked": [{ "path": "quic:remote:23232", "tries": 2, "failure": null, "next_seconds": 60 }],
        });
        let mut text = String::new();
        append_text(&mut text, &link);
        let lines: Vec<_> = text.lines().collect();
        let why = "connection_refused: 10.0.0.2:23232: refused, 2.50 s ago";
        assert_eq!(lines[0], format!("link 0.1 to remote:23232 connecting for 1m03s: {why}"));
        assert!(lines[1].starts_with("  session - streams 0 "), "{text}");
        assert!(lines[2].contains(" rate - "), "{text}");
        assert_eq!(lines[3], format!("  missing 10.0.0.1->remote:23232 tries 7, next in 4.20 s: {why}"));
        assert_eq!(lines[4], "  missing remote:23232 tries 0, being tried: -");
        assert_eq!(lines[5], "  blocked quic:remote:23232 tries 2, next in 1m00s: -");
    }

    #[test]
    fn the_json_of_a_link_has_its_key_counters_and_failure() {
        let link = LinkStatus {
            id: seaprox::Id::from_u64(1 << 32 | 4 << 28).unwrap(),
            peer: "remote:23232".to_owned(),
            name: "home".to_owned(),
            key: Some([7; 32]),
            dialled: false,
            state: seaprox::LinkState::Up,
            state_for: Duration::from_secs(1),
            tries: 0,
            age: Duration::from_secs(1),
            session_age: None,
            failure: Some((Failure::new(seaprox::Reason::TimedOut, "no answer"), Duration::from_secs(2))),
            missing: Vec::new(),
            blocked: Vec::new(),
            mode: "stripe",
            memory: (0, 0),
            cipher: None,
            subflows: Vec::new(),
            streams: 1,
            stats: LinkStats { bytes_sent: 2, bytes_received: 3, resent_bytes: 4, resumes: 5, ..LinkStats::default() },
            listeners: Vec::new(),
        };
        let value = to_json(&link);
        assert!(value["fingerprint"].as_str().is_some_and(|text| text.starts_with("SHA256:")), "{value}");
        assert!(value["key"].as_str().is_some_and(|text| text.starts_with("seaprox-ed25519 ")), "{value}");
        assert_eq!((value["bytes_sent"].as_u64(), value["bytes_received"].as_u64()), (Some(2), Some(3)));
        assert_eq!(value["failure"], json!({ "reason": "timed_out", "detail": "no answer", "ago_seconds": 2.0 }));
        assert_eq!((value["resent_bytes"].as_u64(), value["resumes"].as_u64()), (Some(4), Some(5)));
    }
}
