//! The tables of the live view: the rows of each page as text, with what can be sorted, searched and closed.

use std::time::Duration;

use seaprox::{human_duration, human_rate, human_size};
use serde_json::{Value, json};

use super::history::{History, elements, subflows, word};
use super::source::Order;

/// A page of the live view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    /// The connections.
    #[default]
    Connections,
    /// The links, with their subflows.
    Links,
    /// The listeners and the forwards.
    Listeners,
    /// The reasons of ends and of failed connects.
    Ends,
}

/// A table.
pub struct Table {
    /// The titles of the columns.
    pub titles: &'static [&'static str],
    /// The widths of the columns; the last takes the rest of the line.
    pub widths: &'static [u16],
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
pub struct Row {
    /// The text of each column.
    pub cells: Vec<String>,
    /// The value of each column by which rows are sorted, descending; none to sort by text.
    pub values: Vec<Option<u64>>,
    /// The command that closes the record, if it can be closed.
    pub close: Option<Order>,
    /// The row belongs to the row above, and stays below it.
    pub is_part: bool,
}

impl Page {
    /// All pages, in the order of the keys 1 to 4.
    pub const ALL: [Page; 4] = [Page::Connections, Page::Links, Page::Listeners, Page::Ends];

    /// Returns the title.
    pub fn title(self) -> &'static str {
        match self {
            Page::Connections => "connections",
            Page::Links => "links",
            Page::Listeners => "listeners and forwards",
            Page::Ends => "ends",
        }
    }

    /// Returns the table, sorted by a column and reduced to the rows that contain the text.
    pub fn table(self, history: &History, sort: usize, filter: &str) -> Table {
        let mut table = match self {
            Page::Connections => connections(history),
            Page::Links => links(history),
            Page::Listeners => listeners(history),
            Page::Ends => ends(history),
        };
        table.arrange(sort % table.titles.len(), filter);
        table
    }
}

impl Table {
    /// Sorts and filters the rows. Rows that belong to another one stay with it.
    fn arrange(&mut self, column: usize, filter: &str) {
        let mut groups: Vec<Vec<Row>> = Vec::new();
        for row in self.rows.drain(..) {
            match groups.last_mut() {
                Some(group) if row.is_part => group.push(row),
                _ => groups.push(vec![row]),
            }
        }
        let filter = filter.to_lowercase();
        let fits = |row: &Row| row.cells.iter().any(|cell| cell.to_lowercase().contains(&filter));
        groups.retain(|group| group.iter().any(fits));
        groups.sort_by(|a, b| match (a[0].values[column], b[0].values[column]) {
            (Some(a), Some(b)) => b.cmp(&a),
            _ => a[0].cells[column].cmp(&b[0].cells[column]),
        });
        self.rows = groups.into_iter().flatten().collect();
    }
}

impl Row {
    fn new(cells: Vec<(String, Option<u64>)>) -> Row {
        let (cells, values) = cells.into_iter().unzip();
        Row { cells, values, close: None, is_part: false }
    }
}

fn text(words: impl Into<String>) -> (String, Option<u64>) {
    (words.into(), None)
}

fn number(value: &Value) -> (String, Option<u64>) {
    let number = value.as_u64().unwrap_or(0);
    (number.to_string(), Some(number))
}

fn size(bytes: u64) -> (String, Option<u64>) {
    (human_size(bytes), Some(bytes))
}

fn rate(history: &History, key: &str) -> (String, Option<u64>) {
    let rate = history.rate(key);
    (rate.map_or("-".to_owned(), human_rate), Some(rate.unwrap_or(0)))
}

fn seconds(value: &Value) -> (String, Option<u64>) {
    let seconds = value.as_f64().unwrap_or(0.0);
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    (human_duration(time), Some(time.as_millis() as u64))
}

fn connections(history: &History) -> Table {
    let row = |(key, connection): (String, &Value)| {
        let bytes = |key: &str| connection["source"][key].as_u64().unwrap_or(0);
        let (id, about) = (word(connection, "id"), word(connection, "conn"));
        let user = connection["user"].as_str().map(|user| format!("{user} ")).unwrap_or_default();
        let mut row = Row::new(vec![
            rate(history, &format!("{key}/sent")),
            rate(history, &format!("{key}/received")),
            size(bytes("bytes_in") + bytes("bytes_out")),
            seconds(&connection["age_seconds"]),
            text(word(connection, "stage")),
            text(format!("{user}{about}")),
        ]);
        row.close = Some(order(
            json!({ "connection": id, "thread": connection["thread"] }),
            format!("connection {id} {about}"),
        ));
        row
    };
    Table {
        titles: &["SENT/S", "RECV/S", "BYTES", "AGE", "STAGE", "CONNECTION"],
        widths: &[11, 11, 8, 7, 11, 0],
        rows: elements(history.now(), "connections", "id").map(row).collect(),
    }
}

fn order(body: Value, about: String) -> Order {
    let members = body.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let body = members.map(|(key, value)| (key.clone(), value.clone())).collect();
    Order { path: "/close", body: Value::Object(body), about }
}

/// Returns the state of a subflow with its transport, and if it is a backup.
fn subflow_state(subflow: &Value) -> String {
    let carrier = subflow["carrier"].as_str().map(|carrier| format!(" {carrier}")).unwrap_or_default();
    let backup = if subflow["backup"].as_bool() == Some(true) { " backup" } else { "" };
    format!("{}{carrier}{backup}", word(subflow, "state"))
}

fn links(history: &History) -> Table {
    let mut rows = Vec::new();
    for (key, link) in elements(history.now(), "links", "id") {
        let (id, name) = (word(link, "id"), word(link, "name"));
        let failure = link["failure"]["reason"].as_str().map(|reason| format!(": {reason}")).unwrap_or_default();
        let mut row = Row::new(vec![
            text(name),
            text(format!("{}{failure}", word(link, "state"))),
            rate(history, &format!("{key}/sent")),
            rate(history, &format!("{key}/received")),
            text(""),
            number(&link["streams"]),
            text(sparkline(&sum(&history.series(&format!("{key}/sent")), &history.series(&format!("{key}/received"))))),
        ]);
        row.close = Some(order(json!({ "link": id, "thread": link["thread"] }), format!("link {name}")));
        rows.push(row);
        for (key, subflow) in subflows(&key, link) {
            let rates = sum(&history.series(&format!("{key}/sent")), &history.series(&format!("{key}/received")));
            let rtts = history.series(&format!("{key}/rtt"));
            let mut row = Row::new(vec![
                text(format!("  {} {}", subflow["number"], word(subflow, "remote"))),
                text(subflow_state(subflow)),
                rate(history, &format!("{key}/sent")),
                rate(history, &format!("{key}/received")),
                seconds(&subflow["rtt_seconds"]),
                text(sparkline_of(&rtts, RTT_CELLS)),
                text(sparkline(&rates)),
            ]);
            row.is_part = true;
            rows.push(row);
        }
        let missing = ["missing", "blocked"].map(|state| (state, link[state].as_array()));
        let missing =
            missing.iter().flat_map(|(state, all)| all.iter().copied().flatten().map(move |one| (state, one)));
        for (state, missing) in missing {
            let why = missing["failure"]["reason"].as_str().unwrap_or("-");
            let mut row = Row::new(vec![
                text(format!("  - {}", word(missing, "path"))),
                text(format!("{state}: {why}")),
                text("-"),
                text("-"),
                text("-"),
                text(""),
                text(""),
            ]);
            row.is_part = true;
            rows.push(row);
        }
    }
    Table {
        titles: &["LINK", "STATE", "SENT/S", "RECV/S", "RTT", "STREAMS", "LAST MINUTE"],
        widths: &[18, 9, 11, 11, 8, 7, 0],
        rows,
    }
}

fn listeners(history: &History) -> Table {
    let listener = |(key, listener): (String, &Value)| {
        let (name, address) = (word(listener, "name"), word(listener, "address"));
        Row::new(vec![
            text(word(listener, "kind")),
            number(&listener["active"]),
            number(&listener["accepted"]),
            rate(history, &format!("{key}/sent")),
            rate(history, &format!("{key}/received")),
            text(if name == address { name.to_owned() } else { format!("{name} {address}") }),
        ])
    };
    let forward = |(key, forward): (String, &Value)| {
        let (id, name, asked) = (word(forward, "id"), word(forward, "name"), word(forward, "asked"));
        let to = forward["to"].as_str().map(|to| format!(" -> {to}")).unwrap_or_default();
        let name_and = if name == asked { String::new() } else { format!("{name} ") };
        let mut row = Row::new(vec![
            text(format!("{} {}", word(forward, "direction"), word(forward, "state"))),
            number(&forward["active"]),
            number(&forward["opened"]),
            rate(history, &format!("{key}/sent")),
            rate(history, &format!("{key}/received")),
            text(format!("{name_and}{asked}{to}")),
        ]);
        row.close = Some(order(json!({ "forward": id, "thread": forward["thread"] }), format!("forward {name}")));
        row
    };
    Table {
        titles: &["KIND", "ACTIVE", "OPENED", "SENT/S", "RECV/S", "ADDRESS"],
        widths: &[16, 6, 6, 11, 11, 0],
        rows: elements(history.now(), "listeners", "name")
            .map(listener)
            .chain(elements(history.now(), "forwards", "id").map(forward))
            .collect(),
    }
}

fn ends(history: &History) -> Table {
    let of = |key: &str, kind: &str| -> Vec<Row> {
        let all = history.now()[key].as_object().into_iter().flatten();
        all.map(|(reason, count)| Row::new(vec![number(count), text(kind), text(reason.as_str())])).collect()
    };
    let mut rows = of("closed", "connection ended");
    rows.extend(of("connect_failures", "connect failed"));
    Table { titles: &["COUNT", "EVENT", "REASON"], widths: &[10, 18, 0], rows }
}

/// Returns the head of the view: the process, its use of limits, and its rates.
pub fn head(history: &History) -> [String; 2] {
    let now = history.now();
    let number = |path: &str| now.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let uptime = Duration::try_from_secs_f64(now["uptime_seconds"].as_f64().unwrap_or(0.0)).unwrap_or_default();
    let opened = history.rate("opened").map_or("-".to_owned(), |rate| rate.to_string());
    [
        format!(
            "seaprox {} pid {} {} up {}",
            word(now, "version"),
            number("/pid"),
            word(now, "command"),
            human_duration(uptime)
        ),
        format!(
            "connections {} of {}, opened {} ({opened}/s), sent {}, received {}",
            number("/usage/connections"),
            number("/limits/connections"),
            number("/opened"),
            rate(history, "bytes_sent").0,
            rate(history, "bytes_received").0,
        ),
    ]
}

/// Returns all pages as text for a script, without the rows of connections that are not shown.
pub fn text_of(history: &History) -> String {
    let mut out = head(history).join("\n");
    out.push('\n');
    for page in Page::ALL {
        let table = page.table(history, 0, "");
        out.push_str(&format!("\n{}\n", page.title()));
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded =
                cells.zip(table.widths).map(|(cell, width)| format!("{cell:width$} ", width = usize::from(*width)));
            format!("{}\n", padded.collect::<String>().trim_end())
        };
        out.push_str(&line(&mut table.titles.iter().copied()));
        table.rows.iter().for_each(|row| out.push_str(&line(&mut row.cells.iter().map(String::as_str))));
    }
    out
}

/// Returns the last values as a line of bars, each as high as its part of the greatest.
pub fn sparkline(values: &[u64]) -> String {
    sparkline_of(values, SPARK_CELLS)
}

fn sparkline_of(values: &[u64], cells: usize) -> String {
    let some = &values[values.len().saturating_sub(cells)..];
    let most = some.iter().copied().max().unwrap_or(0).max(1);
    some.iter().map(|value| BARS[(value * (BARS.len() as u64 - 1)).div_ceil(most) as usize]).collect()
}

fn sum(a: &[u64], b: &[u64]) -> Vec<u64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const SPARK_CELLS: usize = 60;
const RTT_CELLS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let mut history = History::default();
        for (uptime, bytes) in [(1.0, 0_u64), (2.0, 125_000)] {
            history.take(json!({
                "pid": 7, "uptime_seconds": uptime, "opened": 2, "bytes_sent": bytes, "bytes_received": 0,
                "closed": { "source_fin": 3, "idle_timeout": 9 },
                "connections": [
                    { "id": "0.1", "thread": 0, "conn": "socks5[a->b]", "stage": "established", "source": { "bytes_in": 5 } },
                    { "id": "0.2", "thread": 0, "conn": "static[c->d]", "stage": "established", "source": { "bytes_in": bytes } },
                ],
                "links": [
                    { "id": "1.1", "name": "home", "state": "up", "streams": 1, "bytes_sent": 0, "bytes_received": 0,
                      "subflows": [{ "number": 1, "remote": "r:1", "state": "live", "rtt_seconds": 0.0124, "bytes_sent": bytes, "bytes_received": 0 }] },
                    { "id": "1.2", "name": "office", "state": "suspended", "streams": 0, "missing": [{ "path": "p" }], "blocked": [{ "path": "quic:p" }] },
                ],
            }));
        }
        history
    }

    #[test]
    fn rows_are_sorted_by_a_column_and_filtered_by_any_word() {
        let history = history();
        let ids = |sort, filter| -> Vec<String> {
            let table = Page::Connections.table(&history, sort, filter);
            table.rows.iter().map(|row| row.cells[5].clone()).collect()
        };
        assert_eq!(ids(0, ""), ["static[c->d]", "socks5[a->b]"], "the highest rate is first");
        assert_eq!(ids(5, ""), ["socks5[a->b]", "static[c->d]"]);
        assert_eq!(ids(0, "SOCKS"), ["socks5[a->b]"]);
        let reasons = Page::Ends.table(&history, 0, "").rows.iter().map(|row| row.cells[2].clone()).collect::<Vec<_>>();
        assert_eq!(reasons, ["idle_timeout", "source_fin"]);
    }

    #[test]
    fn subflows_stay_below_their_link_and_have_rate_and_round_trip() {
        let history = history();
        let rows = |filter: &str| Page::Links.table(&history, 0, filter).rows;
        let names: Vec<String> = rows("").iter().map(|row| row.cells[0].clone()).collect();
        assert_eq!(names, ["home", "  1 r:1", "office", "  - p", "  - quic:p"]);
        assert_eq!(rows("r:1").len(), 2, "a link is shown with its subflow");
        let subflow = &rows("r:1")[1];
        assert_eq!((subflow.cells[2].as_str(), subflow.cells[4].as_str()), ("1.00 Mbit/s", "12.4 ms"));
        assert!(subflow.cells[6].ends_with('█'), "{:?}", subflow.cells[6]);
        assert_eq!(rows("home")[0].close.as_ref().unwrap().body, json!({ "link": "1.1" }));
    }

    #[test]
    fn a_sparkline_has_a_bar_for_each_value() {
        assert_eq!(sparkline(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&vec![1; 100]).chars().count(), SPARK_CELLS);
    }

    #[test]
    fn the_text_has_every_page() {
        let text = text_of(&history());
        for words in ["pid 7", "connections 0 of 0, opened 2", "socks5[a->b]", "home", "idle_timeout"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
