//! The history of a process: its last two documents, and the rates of the last minute.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::admin::escape;

/// The samples of the process that the view has seen.
#[derive(Default)]
pub struct History {
    now: Value,
    /// The counters of the document before this one.
    before: HashMap<String, u64>,
    /// Seconds between the two documents.
    seconds: f64,
    /// The rates of the last minute, the youngest last.
    series: HashMap<String, VecDeque<u64>>,
    silence: Option<String>,
}

impl History {
    /// Takes the next document.
    pub fn take(&mut self, mut status: Value) {
        escape(&mut status);
        self.silence = None;
        let uptime = |status: &Value| status["uptime_seconds"].as_f64().unwrap_or(0.0);
        if status["pid"] != self.now["pid"] {
            *self = History::default();
        }
        self.seconds = uptime(&status) - uptime(&self.now);
        self.before = counters(&self.now);
        self.now = status;
        let now = counters(&self.now);
        let keys: Vec<String> = now.keys().cloned().collect();
        for key in keys.into_iter().filter(|key| !key.starts_with(CONNECTION)) {
            let (rate, series) = (self.rate(&key).unwrap_or(0), self.series.entry(key).or_default());
            series.push_back(rate);
            series.drain(..series.len().saturating_sub(SAMPLES));
        }
        for (key, rtt) in round_trips(&self.now) {
            let series = self.series.entry(key).or_default();
            series.push_back(rtt);
            series.drain(..series.len().saturating_sub(SAMPLES));
        }
        let rtts = round_trips(&self.now);
        self.series.retain(|key, _| now.contains_key(key) || rtts.iter().any(|(name, _)| name == key));
    }

    /// Notes that the process did not answer.
    pub fn note_silence(&mut self, text: String) {
        self.silence = Some(text);
    }

    /// Returns why the process did not answer the last question, if it did not.
    pub fn silence(&self) -> Option<&str> {
        self.silence.as_deref()
    }

    /// Returns the present document.
    pub fn now(&self) -> &Value {
        &self.now
    }

    /// Returns the rate of a counter in units per second; none without two documents that have it.
    pub fn rate(&self, key: &str) -> Option<u64> {
        let (now, before) = (counter(&self.now, key)?, *self.before.get(key)?);
        // A counter that became smaller began anew.
        let moved = now.checked_sub(before)?;
        (self.seconds > 0.0).then(|| (moved as f64 / self.seconds) as u64)
    }

    /// Returns the values of the last minute, the youngest last.
    pub fn series(&self, key: &str) -> Vec<u64> {
        self.series.get(key).into_iter().flatten().copied().collect()
    }
}

/// The elements of an array of the document, each with the key of its counters.
pub fn elements<'a>(status: &'a Value, array: &str, name: &str) -> impl Iterator<Item = (String, &'a Value)> {
    let prefix = format!("{array}/");
    let name = name.to_owned();
    let all = status[array].as_array().into_iter().flatten();
    all.map(move |element| (format!("{prefix}{}", word(element, &name)), element))
}

/// Returns the subflows of a link, each with the key of its counters.
pub fn subflows<'a>(link: &str, element: &'a Value) -> impl Iterator<Item = (String, &'a Value)> {
    let link = link.to_owned();
    let all = element["subflows"].as_array().into_iter().flatten();
    all.map(move |subflow| (format!("{link}/{}", subflow["number"]), subflow))
}

/// Returns a member as text.
pub fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("-")
}

fn counter(status: &Value, key: &str) -> Option<u64> {
    counters(status).get(key).copied()
}

/// Returns all counters of a document by their keys.
fn counters(status: &Value) -> HashMap<String, u64> {
    let mut all = HashMap::new();
    let mut add = |key: String, value: &Value| {
        if let Some(number) = value.as_u64() {
            all.insert(key, number);
        }
    };
    for key in ["opened", "bytes_sent", "bytes_received"] {
        add(key.to_owned(), &status[key]);
    }
    for (array, name) in [("listeners", "name"), ("forwards", "id"), ("links", "id")] {
        for (key, element) in elements(status, array, name) {
            add(format!("{key}/sent"), &element["bytes_sent"]);
            add(format!("{key}/received"), &element["bytes_received"]);
            for (key, subflow) in subflows(&key, element) {
                add(format!("{key}/sent"), &subflow["bytes_sent"]);
                add(format!("{key}/received"), &subflow["bytes_received"]);
            }
        }
    }
    for (key, connection) in elements(status, "connections", "id") {
        add(format!("{key}/sent"), &connection["source"]["bytes_in"]);
        add(format!("{key}/received"), &connection["source"]["bytes_out"]);
    }
    all
}

/// Returns the round trip of each subflow in microseconds.
fn round_trips(status: &Value) -> Vec<(String, u64)> {
    let links = elements(status, "links", "id");
    let subflows = links.flat_map(|(key, link)| subflows(&key, link).collect::<Vec<_>>());
    let rtt = |subflow: &Value| (subflow["rtt_seconds"].as_f64().unwrap_or(0.0) * 1e6) as u64;
    subflows.map(|(key, subflow)| (format!("{key}/rtt"), rtt(subflow))).collect()
}

const CONNECTION: &str = "connections/";
/// Samples of a series: a minute of them.
const SAMPLES: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(uptime: f64, sent: u64, rtt: f64) -> Value {
        json!({
            "pid": 7, "uptime_seconds": uptime, "opened": 3, "bytes_sent": sent, "bytes_received": 0,
            "links": [{ "id": "0.1", "bytes_sent": sent, "bytes_received": 0,
                "subflows": [{ "number": 1, "bytes_sent": sent, "bytes_received": 0, "rtt_seconds": rtt }] }],
        })
    }

    #[test]
    fn a_rate_is_the_difference_over_the_time_that_the_process_tells() {
        let mut history = History::default();
        history.take(document(10.0, 1_000, 0.001));
        assert_eq!(history.rate("bytes_sent"), None);
        history.take(document(12.0, 5_000, 0.002));
        assert_eq!((history.rate("bytes_sent"), history.rate("links/0.1/sent")), (Some(2_000), Some(2_000)));
        assert_eq!(history.rate("links/0.1/1/sent"), Some(2_000));
        assert_eq!(history.series("links/0.1/1/rtt"), [1_000, 2_000]);
        // The session of the link began anew, and then the process did.
        history.take(document(13.0, 100, 0.002));
        assert_eq!(history.rate("bytes_sent"), None);
        let mut other = document(1.0, 50, 0.0);
        other["pid"] = json!(8);
        history.take(other);
        assert_eq!((history.rate("bytes_sent"), history.series("bytes_sent").len()), (None, 1));
    }

    #[test]
    fn words_of_peers_are_escaped_and_a_series_ends_with_its_record() {
        let mut history = History::default();
        let mut status = document(1.0, 1, 0.0);
        status["links"][0]["name"] = json!("a\u{1b}[2J");
        history.take(status);
        assert_eq!(history.now()["links"][0]["name"], "a\\u{1b}[2J");
        let mut bare = document(2.0, 1, 0.0);
        bare["links"] = json!([]);
        history.take(bare);
        assert_eq!(history.series("links/0.1/1/rtt"), Vec::<u64>::new());
    }
}
