//! The log as the binary writes it: one line per record on stderr, as text or as JSON, with the same keys.
//!
//! ```text
//! 2026-02-03T04:05:06.789Z INFO  seaprox::relay closed connection="static[...]" reason=source_fin
//! {"ts":"2026-02-03T04:05:06.789Z","level":"info","target":"seaprox::relay","msg":"closed","reason":"source_fin"}
//! ```
//!
//! A record is one line whatever is in it: bytes from the network cannot break out of it, nor reach the terminal as
//! control characters. Each line is one write. A log that cannot be written is lost; it never stops the proxy.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::kv::{self, VisitSource};
use log::{Level, LevelFilter, Record};

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object per line, for programs.
    Json,
}

/// Starts the log; a second call changes nothing.
///
/// `verbosity` is the count of `-v` less the count of `-q`: below 0 warnings, 0 what happens, 1 debug, 2 everything. The
/// environment's `SEAPROX_LOG` may set levels for single targets (`seaprox::relay=trace`), and for all of them where
/// `verbosity` is 0.
pub fn init(verbosity: i8, format: LogFormat) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level(verbosity));
    if let Ok(filter) = std::env::var("SEAPROX_LOG") {
        builder.parse_filters(&filter);
        if verbosity != 0 {
            builder.filter_level(level(verbosity)); // The flag goes before the environment.
        }
    }
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    builder.target(env_logger::Target::Stderr);
    builder.format(move |out, record| {
        let now = SystemTime::now();
        let line = match format {
            LogFormat::Text => format_text(record, now, colour),
            LogFormat::Json => format_json(record, now),
        };
        out.write_all(line.as_bytes())
    });
    let _ = builder.try_init();
}

/// A record as a line of text, with its final newline.
pub fn format_text(record: &Record, now: SystemTime, colour: bool) -> String {
    let (on, off) = if colour { (colour_of(record.level()), "\x1b[0m") } else { ("", "") };
    let mut line = format!("{} {on}{:<5}{off} {} ", timestamp(now), record.level(), record.target());
    escape(&mut line, &record.args().to_string(), |_| false);
    let _ = record.key_values().visit(&mut TextPairs(&mut line));
    line.push('\n');
    line
}

/// A record as a JSON object on one line, with its final newline.
pub fn format_json(record: &Record, now: SystemTime) -> String {
    let level = record.level().as_str().to_ascii_lowercase();
    let mut line = format!("{{\"ts\":\"{}\",\"level\":\"{level}\"", timestamp(now));
    let _ = write!(line, ",\"target\":{}", json(record.target()));
    let _ = write!(line, ",\"msg\":{}", json(&record.args().to_string()));
    let _ = record.key_values().visit(&mut JsonPairs(&mut line));
    line.push_str("}\n");
    line
}

/// RFC 3339 in UTC with milliseconds. A clock before 1970 is taken for 1970.
pub fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// The year, month and day that lie so many days after the first of January 1970, in the Gregorian calendar. Years are
/// counted from March, so that the day that some of them lack is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // Since the first of March of the year 0.
    let (era, day) = (days / 146_097, days % 146_097); // An era has 400 years.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March.
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + era * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

fn level(verbosity: i8) -> LevelFilter {
    match verbosity {
        ..0 => LevelFilter::Warn,
        0 => LevelFilter::Info,
        1 => LevelFilter::Debug,
        2.. => LevelFilter::Trace,
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug => "\x1b[36m",
        Level::Trace => "\x1b[2m",
    }
}

struct TextPairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        self.0.push(' ');
        escape(self.0, key.as_str(), |_| false);
        self.0.push('=');
        let value = value.to_string();
        let quoted = |char: char| char.is_whitespace() || matches!(char, '"' | '=' | '\\') || is_unfit(char);
        if value.is_empty() || value.chars().any(quoted) {
            self.0.push('"');
            escape(self.0, &value, |char| matches!(char, '"' | '\\'));
            self.0.push('"');
        } else {
            self.0.push_str(&value);
        }
        Ok(())
    }
}

struct JsonPairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let plain = (value.to_u64().map(serde_json::Value::from))
            .or_else(|| value.to_i64().map(serde_json::Value::from))
            .or_else(|| value.to_bool().map(serde_json::Value::from))
            .or_else(|| value.to_f64().filter(|float| float.is_finite()).map(serde_json::Value::from));
        let text = match plain {
            Some(plain) => plain.to_string(),
            None => json(&value.to_string()),
        };
        let _ = write!(self.0, ",{}:{text}", json(key.as_str()));
        Ok(())
    }
}

/// A JSON string. The escapes of JSON leave DEL, C1 and the marks that turn text round as they are; those are escaped too.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(quoted.len());
    for char in quoted.chars() {
        if is_unfit(char) {
            let mut units = [0; 2];
            for unit in char.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(char);
        }
    }
    out
}

/// Appends text, with each character escaped that is unfit for a line or that `special` names.
fn escape(out: &mut String, text: &str, special: impl Fn(char) -> bool) {
    for char in text.chars() {
        if special(char) {
            out.push('\\');
            out.push(char);
        } else if is_unfit(char) {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
}

/// Control characters, line and paragraph separators, and the marks that turn the direction of text round.
fn is_unfit(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_770_091_506_789)
    }

    fn text(message: &str, pairs: &[(&str, kv::Value)]) -> String {
        let mut record = Record::builder();
        record.level(Level::Info).target("seaprox::relay").key_values(&pairs);
        format_text(&record.args(format_args!("{message}")).build(), now(), false)
    }

    fn object(message: &str, pairs: &[(&str, kv::Value)]) -> String {
        let mut record = Record::builder();
        record.level(Level::Warn).target("seaprox").key_values(&pairs);
        format_json(&record.args(format_args!("{message}")).build(), now())
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (68_169_600, "1972-02-29T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_000_000_000, "2001-09-09T01:46:40"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), format!("{expected}.000Z"));
        }
        assert_eq!(timestamp(now()), "2026-02-03T04:05:06.789Z");
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn text_has_the_keys_behind_the_message() {
        let line =
            text("closed", &[("bytes", 5.into()), ("by", "a b".into()), ("none", "".into()), ("d", "x[y]".into())]);
        assert_eq!(line, "2026-02-03T04:05:06.789Z INFO  seaprox::relay closed bytes=5 by=\"a b\" none=\"\" d=x[y]\n");
    }

    #[test]
    fn text_is_one_line_whatever_is_in_it() {
        let line = text("a\nb\x1b[31m\u{9b}\u{202e}é", &[("k", "x\r\n\"y\\=\u{2028}".into())]);
        let expected = r#"a\nb\u{1b}[31m\u{9b}\u{202e}é k="x\r\n\"y\\=\u{2028}""#;
        assert_eq!(line, format!("2026-02-03T04:05:06.789Z INFO  seaprox::relay {expected}\n"));
    }

    #[test]
    fn only_the_level_is_coloured() {
        let record = Record::builder().level(Level::Error).target("t").args(format_args!("m")).build();
        assert_eq!(format_text(&record, now(), true), "2026-02-03T04:05:06.789Z \x1b[31mERROR\x1b[0m t m\n");
    }

    #[test]
    fn json_keeps_numbers_and_order() {
        let line = object("m\n\u{7f}", &[("z", 5.into()), ("a", (-1).into()), ("f", 0.5.into()), ("b", true.into())]);
        let expected = r#""level":"warn","target":"seaprox","msg":"m\n\u007f","z":5,"a":-1,"f":0.5,"b":true"#;
        assert_eq!(line, format!("{{\"ts\":\"2026-02-03T04:05:06.789Z\",{expected}}}\n"));
    }

    #[test]
    fn json_can_be_read_again() {
        let odd = "\"\\\u{9b}\u{2028}\u{0}é😀";
        let line = object(odd, &[("big", u64::MAX.into()), ("odd", odd.into()), ("nan", f64::NAN.into())]);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((object["msg"].as_str(), object["odd"].as_str()), (Some(odd), Some(odd)));
        assert_eq!((object["big"].as_u64(), object["nan"].as_str()), (Some(u64::MAX), Some("NaN")));
        assert_eq!(line.matches('\n').count(), 1);
    }
}
