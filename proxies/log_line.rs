//! Formats a record as one line of text or JSON. Nothing is allocated for a line whose values need no escapes.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::kv::{self, VisitSource};
use log::{Level, Record};

use crate::text::is_unfit;

/// Appends a record as a line of text, with its final newline.
pub fn text(line: &mut String, record: &Record, now: SystemTime, colour: bool) {
    let (on, off) = if colour { (colour_of(record.level()), "\x1b[0m") } else { ("", "") };
    timestamp(line, now);
    let _ = write!(line, " {on}{:<5}{off} ", record.level());
    untimed(line, record);
}

/// Appends a record as a line of text without its time and its level, with its final newline.
pub fn untimed(line: &mut String, record: &Record) {
    let _ = write!(line, "{} ", record.target());
    message(line, record);
    line.push('\n');
}

/// Appends the message of a record, with its keys behind it. Values that could be taken for other keys are quoted.
pub fn message(line: &mut String, record: &Record) {
    let start = line.len();
    let _ = write!(line, "{}", record.args());
    escape_from(line, start, |_| false);
    let _ = record.key_values().visit(&mut TextPairs(line));
}

/// Appends a record as a JSON object on one line, with its final newline.
pub fn json(line: &mut String, record: &Record, now: SystemTime) {
    line.push_str("{\"ts\":\"");
    timestamp(line, now);
    let _ = write!(line, "\",\"level\":\"{}\",\"target\":", record.level().as_str().to_ascii_lowercase());
    quote(line, |line| line.push_str(record.target()));
    line.push_str(",\"msg\":");
    quote(line, |line| _ = write!(line, "{}", record.args()));
    let _ = record.key_values().visit(&mut JsonPairs(line));
    line.push_str("}\n");
}

/// Appends a level as the journal reads it from the begin of a line: `<N>` with a level of syslog (sd-daemon(3)).
pub fn journal_level(line: &mut String, level: Level) {
    line.push_str(match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    });
}

/// Appends a time in RFC 3339, in UTC with milliseconds. A clock before 1970 is taken for 1970.
pub fn timestamp(out: &mut String, now: SystemTime) {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let parts = [(year, 4, '-'), (month, 2, '-'), (day, 2, 'T'), (hour, 2, ':'), (minute, 2, ':'), (second, 2, '.')];
    let millis = (u64::from(since.subsec_millis()), 3, 'Z');
    for (number, digits, mark) in parts.into_iter().chain([millis]) {
        for place in (0..digits).rev() {
            out.push(char::from(b'0' + (number / 10_u64.pow(place) % 10) as u8));
        }
        out.push(mark);
    }
}

/// Returns the year, month and day in the Gregorian calendar for a number of days since 1970-01-01. The computation uses
/// years that begin in March, so that a leap day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // Days since 0000-03-01.
    let (era, day) = (days / 146_097, days % 146_097); // An era has 400 years.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March.
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + era * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
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
        let line = &mut *self.0;
        line.push(' ');
        let start = line.len();
        line.push_str(key.as_str());
        escape_from(line, start, |_| false);
        line.push('=');
        let start = line.len();
        let _ = write!(line, "{value}");
        if needs_quotes(&line[start..]) {
            line.insert(start, '"');
            escape_from(line, start + 1, |char| matches!(char, '"' | '\\'));
            line.push('"');
        }
        Ok(())
    }
}

struct JsonPairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        let line = &mut *self.0;
        line.push(',');
        quote(line, |line| line.push_str(key.as_str()));
        line.push(':');
        let is_plain = value.to_u64().is_some() || value.to_i64().is_some() || value.to_bool().is_some();
        match value.to_f64().filter(|float| float.is_finite()) {
            _ if is_plain => _ = write!(line, "{value}"),
            Some(float) => _ = write!(line, "{}", serde_json::Value::from(float)),
            None => quote(line, |line| _ = write!(line, "{value}")),
        }
        Ok(())
    }
}

/// Appends a JSON string of the text that `put` appends. JSON leaves DEL, C1 and the marks of text direction unescaped; they
/// are escaped here, too.
fn quote(line: &mut String, put: impl FnOnce(&mut String)) {
    line.push('"');
    let start = line.len();
    put(line);
    if line[start..].chars().any(|char| matches!(char, '"' | '\\') || is_unfit(char)) {
        let quoted = serde_json::Value::from(line.split_off(start)).to_string();
        let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default();
        for char in inner.chars() {
            if is_unfit(char) {
                let mut units = [0; 2];
                for unit in char.encode_utf16(&mut units) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            } else {
                line.push(char);
            }
        }
    }
    line.push('"');
}

/// Returns true if a value could be taken for none, or for more than one, or for another key.
fn needs_quotes(value: &str) -> bool {
    let is_mark = |char: char| matches!(char, '"' | '=' | '\\');
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        // Nearly all values are such text.
        return value.is_empty() || value.bytes().any(|byte| is_mark(char::from(byte)));
    }
    value.chars().any(|char| char.is_whitespace() || is_mark(char) || is_unfit(char))
}

/// Escapes the text from `start` on: each character that is unfit for a line, or for which `special` returns true.
fn escape_from(line: &mut String, start: usize, special: impl Fn(char) -> bool) {
    // A graphic character of ASCII is fit for a line.
    if line[start..].bytes().all(|byte| byte.is_ascii_graphic() && !special(char::from(byte))) {
        return;
    }
    if !line[start..].chars().any(|char| special(char) || is_unfit(char)) {
        return;
    }
    for char in line.split_off(start).chars() {
        if special(char) {
            line.push('\\');
            line.push(char);
        } else if is_unfit(char) {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_770_091_506_789)
    }

    fn stamp(time: SystemTime) -> String {
        let mut out = String::new();
        timestamp(&mut out, time);
        out
    }

    fn text(message: &str, pairs: &[(&str, kv::Value)]) -> String {
        let mut record = Record::builder();
        record.level(Level::Info).target("seaprox::connection").key_values(&pairs);
        let mut line = String::new();
        super::text(&mut line, &record.args(format_args!("{message}")).build(), now(), false);
        line
    }

    fn object(message: &str, pairs: &[(&str, kv::Value)]) -> String {
        let mut record = Record::builder();
        record.level(Level::Warn).target("seaprox").key_values(&pairs);
        let mut line = String::new();
        json(&mut line, &record.args(format_args!("{message}")).build(), now());
        line
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
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(seconds)), format!("{expected}.000Z"));
        }
        assert_eq!(stamp(now()), "2026-02-03T04:05:06.789Z");
        assert_eq!(stamp(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_text_line_has_the_keys_behind_the_message() {
        let line =
            text("closed", &[("bytes", 5.into()), ("by", "a b".into()), ("none", "".into()), ("d", "x[y]".into())]);
        assert_eq!(
            line,
            "2026-02-03T04:05:06.789Z INFO  seaprox::connection closed bytes=5 by=\"a b\" none=\"\" d=x[y]\n"
        );
        let line = text("closed", &[("key", "a=b".into()), ("name", "né".into()), ("path", "a\u{a0}b".into())]);
        assert!(line.ends_with(" closed key=\"a=b\" name=né path=\"a\u{a0}b\"\n"), "{line}");
    }

    #[test]
    fn control_characters_in_a_text_line_are_escaped() {
        let line = text("a\nb\x1b[31m\u{9b}\u{202e}é", &[("k", "x\r\n\"y\\=\u{2028}".into())]);
        let expected = r#"a\nb\u{1b}[31m\u{9b}\u{202e}é k="x\r\n\"y\\=\u{2028}""#;
        assert_eq!(line, format!("2026-02-03T04:05:06.789Z INFO  seaprox::connection {expected}\n"));
    }

    #[test]
    fn only_the_level_is_coloured() {
        let record = Record::builder().level(Level::Error).target("t").args(format_args!("m")).build();
        let mut line = String::new();
        super::text(&mut line, &record, now(), true);
        assert_eq!(line, "2026-02-03T04:05:06.789Z \x1b[31mERROR\x1b[0m t m\n");
    }

    #[test]
    fn json_keeps_numbers_and_the_order_of_keys() {
        let line = object("m\n\u{7f}", &[("z", 5.into()), ("a", (-1).into()), ("f", 0.5.into()), ("b", true.into())]);
        let expected = r#""level":"warn","target":"seaprox","msg":"m\n\u007f","z":5,"a":-1,"f":0.5,"b":true"#;
        assert_eq!(line, format!("{{\"ts\":\"2026-02-03T04:05:06.789Z\",{expected}}}\n"));
    }

    #[test]
    fn a_json_line_can_be_parsed() {
        let odd = "\"\\\u{9b}\u{2028}\u{0}é😀";
        let line = object(odd, &[("big", u64::MAX.into()), ("odd", odd.into()), ("nan", f64::NAN.into())]);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((object["msg"].as_str(), object["odd"].as_str()), (Some(odd), Some(odd)));
        assert_eq!((object["big"].as_u64(), object["nan"].as_str()), (Some(u64::MAX), Some("NaN")));
        assert_eq!(line.matches('\n').count(), 1);
    }
}
