//! A picture of a run: two columns of bars for each section, the cost on the left and the rate or a delay on the right.
//!
//! It is drawn from the results as they are saved, so an old run can be drawn again. A bar is the median of a peer, and the
//! line on it goes from its least sample to its greatest. The picture has no background and follows the reader's colours.

use std::fmt::Write;

use serde_json::Value;

use crate::options::Options;
use crate::peers;
use crate::trials;

/// A figure that is drawn: its key, and its title.
type Figure = (&'static str, &'static str);

/// The figures of the left column. The first one that a section has is drawn.
const COSTS: [Figure; 4] = [
    (trials::CPU_US_EACH, "CPU of the proxy, µs each"),
    (trials::CPU_S_PER_GIB, "CPU of the proxy, s/GiB"),
    (trials::P99_US, "p99, µs"),
    (trials::MEMORY_EACH, "private bytes each"),
];
/// The figures of the right column.
const GAINS: [Figure; 4] = [
    (trials::GBIT_PER_S, "Gbit/s (more is better)"),
    (trials::PER_S, "per second (more is better)"),
    (trials::P50_US, "p50, µs"),
    (trials::EVENT_MANY, "CPU of an event beside all, µs"),
];

/// Returns the picture of the sections and peers of `results` that the options select.
pub fn of(results: &Value, options: &Options) -> String {
    let mut body = String::new();
    let mut y = HEAD_HEIGHT;
    for section in results["sections"].as_array().into_iter().flatten() {
        let is_placed = options.placement.is_none_or(|only| section["placement"] == only.name());
        let is_wanted = is_placed && options.wants_section(text(&section["group"]));
        let peers = if is_wanted { peers_of(section, options) } else { Vec::new() };
        if !peers.is_empty() {
            y = draw_section(&mut body, section, &peers, y);
        }
    }
    let host = |key: &str| text(&results["host"][key]);
    let settings = &results["settings"];
    let mut head = String::new();
    let machine = format!(
        "{}, {} x {}, Linux {}; {} rounds of {} s; median, least and greatest; less is better unless stated; † disturbed",
        host("recorded"),
        results["host"]["processors"],
        host("processor"),
        host("kernel"),
        settings["rounds"],
        settings["window_seconds"],
    );
    label(&mut head, "t", MARGIN, 18.0, &machine);
    let height = y + 10.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" role=\"img\">\n\
         <title>Peers beside each other: median, least and greatest of each section</title>\n\
         <style>{STYLE}</style>\n{head}{body}</svg>\n"
    )
}

/// Returns the peers of a section that the options select, in the order in which they were measured.
fn peers_of<'a>(section: &'a Value, options: &Options) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for peer in section["samples"].as_array().into_iter().flatten().filter_map(|sample| sample["peer"].as_str()) {
        let family = peers::peer(peer).map_or(peer, |known| known.family);
        if !found.contains(&peer) && options.wants_peer(peer, family) {
            found.push(peer);
        }
    }
    found
}

/// Draws a section at this height. Returns the height of the next one.
fn draw_section(body: &mut String, section: &Value, peers: &[&str], y: f64) -> f64 {
    let (name, placement, title) = (text(&section["name"]), text(&section["placement"]), text(&section["title"]));
    label(body, "h", MARGIN, y + 14.0, &format!("{name}, {placement}: {title}"));
    let top = y + 36.0;
    for (index, peer) in peers.iter().enumerate() {
        let is_disturbed = text(&section["remarks"][*peer]).starts_with("disturbed");
        let mark = if is_disturbed { " †" } else { "" };
        label(body, "n", NAMES_RIGHT, top + index as f64 * ROW + 11.0, &format!("{peer}{mark}"));
    }
    for (figures, x) in [(&COSTS, BARS_LEFT), (&GAINS, BARS_LEFT + COLUMN)] {
        let has = |key: &str| peers.iter().any(|peer| !section["summary"][*peer][key].is_null());
        if let Some((key, title)) = figures.iter().find(|(key, _)| has(key)) {
            label(body, "t", x, top - 6.0, title);
            draw_bars(body, section, peers, key, (x, top));
        }
    }
    top + peers.len() as f64 * ROW + 16.0
}

/// Draws the bars of one figure, with the greatest sample at the full width.
fn draw_bars(body: &mut String, section: &Value, peers: &[&str], key: &str, (x, top): (f64, f64)) {
    let spread = |peer: &str| {
        let of = &section["summary"][peer][key];
        Some((of["median"].as_f64()?, of["min"].as_f64()?, of["max"].as_f64()?))
    };
    let greatest = peers.iter().filter_map(|peer| spread(peer)).map(|(.., max)| max).fold(f64::MIN_POSITIVE, f64::max);
    for (index, peer) in peers.iter().enumerate() {
        let Some((median, min, max)) = spread(peer) else { continue };
        let [median_x, min_x, max_x] = [median, min, max].map(|value| value.max(0.0) / greatest * BARS);
        let y = top + index as f64 * ROW;
        let class = if peer.starts_with("seaprox") {
            "own"
        } else if peer.starts_with("floor") {
            "floor"
        } else {
            "peer"
        };
        let middle = y + ROW / 2.0 - 1.0;
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{median_x:.1}\" height=\"{:.1}\"/>",
            ROW - 4.0
        );
        let _ = writeln!(
            body,
            "<path class=\"range\" d=\"M{:.1} {middle:.1}H{:.1}M{:.1} {:.1}v6M{:.1} {:.1}v6\"/>",
            x + min_x,
            x + max_x,
            x + min_x,
            middle - 3.0,
            x + max_x,
            middle - 3.0,
        );
        label(body, "t", x + BARS + 8.0, y + 11.0, &said(median));
    }
}

fn label(to: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(to, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns a figure with three digits or more.
fn said(value: f64) -> String {
    let decimals = match value.abs() {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

const STYLE: &str = "text{font-size:12px;fill:#24292f}.h{font-weight:bold}.n{text-anchor:end}.own{fill:#0b7a75}\
    .peer{fill:#9aa5b1}.floor{fill:#d0b46a}.range{stroke:#24292f;fill:none}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.own{fill:#2fb5ae}.peer{fill:#66717d}.floor{fill:#8f7a3c}.range{stroke:#e6edf3}}";

const WIDTH: f64 = 900.0;
const MARGIN: f64 = 10.0;
const HEAD_HEIGHT: f64 = 34.0;
const ROW: f64 = 18.0;
/// The end of the peers' names, the beginning of the left bars, and the width of bars.
const NAMES_RIGHT: f64 = 130.0;
const BARS_LEFT: f64 = 140.0;
const BARS: f64 = 300.0;
/// The distance of the two columns.
const COLUMN: f64 = 385.0;
