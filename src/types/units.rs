//! The text form of durations, sizes and rates: a number and a unit, such as `30s`, `16KiB` or `10mbit`.
//!
//! The unit is required, because `--idle-timeout 5` means seconds to one reader and minutes to another; only `0`, which
//! switches a feature off, has none. Printed text parses to the same value: the printer uses the largest unit that
//! divides the value exactly, so `1h` stays `1h` and 90 seconds are `90s`.

use std::fmt;
use std::time::Duration;

/// A parse error of a duration, size or rate. Its text is the form that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitError(&'static str);

/// The longest accepted duration, 100 years: the sum with any clock value cannot overflow.
pub const DURATION_MAX: Duration = Duration::from_secs(36_500 * 86_400);

/// Parses a duration such as `250ms`, `30s`, `5m`, `1h` or `1d`; `0` without a unit means off.
///
/// # Errors
/// The unit is missing or unknown, the number is not all digits, or the duration is longer than [`DURATION_MAX`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let micros = parse(text, DURATION_UNITS).ok_or(UnitError(DURATION_FORM))?;
    let duration = Duration::from_micros(micros);
    if duration <= DURATION_MAX { Ok(duration) } else { Err(UnitError("a duration of at most 36500d")) }
}

/// Formats a duration so that [`parse_duration`] can read it. Fractions of a microsecond are cut off.
pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), DURATION_UNITS)
}

/// Parses a size in bytes such as `512B`, `16KiB`, `1MiB` or `1GiB`; `0` needs no unit.
///
/// # Errors
/// The unit is missing or unknown, the number is not all digits, or the size does not fit in 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    parse(text, SIZE_UNITS).ok_or(UnitError(SIZE_FORM))
}

/// Formats a size in bytes so that [`parse_size`] can read it.
pub fn format_size(bytes: u64) -> String {
    format(bytes, SIZE_UNITS)
}

/// Parses a rate such as `10mbit`, `1gbit`, `64KiB/s` or `1MiB/s` into bytes per second; `0` needs no unit. A `kbit` is
/// 1000 bits per second, as in the data rates of network operators.
///
/// # Errors
/// The unit is missing or unknown, the number is not all digits, or the rate does not fit in 64 bits.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    parse(text, RATE_UNITS).ok_or(UnitError(RATE_FORM))
}

/// Formats a rate in bytes per second so that [`parse_rate`] can read it.
pub fn format_rate(bytes_per_second: u64) -> String {
    format(bytes_per_second, RATE_UNITS)
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for UnitError {}

/// Parses a number with one of the units. Returns the count of base units, or `None` if it is malformed or does not fit.
fn parse(text: &str, units: &[Unit]) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == suffix)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn format(value: u64, units: &[Unit]) -> String {
    if value == 0 {
        return "0".to_owned();
    }
    match units.iter().find(|(_, scale)| value.is_multiple_of(*scale)) {
        Some((name, scale)) => format!("{}{name}", value / scale),
        None => unreachable!("each table ends with the unit of 1"),
    }
}

/// A suffix, and its value in base units: microseconds, bytes or bytes per second.
type Unit = (&'static str, u64);

// Each table runs from the largest unit to the smallest, which is the base unit.
const DURATION_UNITS: &[Unit] =
    &[("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];
const SIZE_UNITS: &[Unit] = &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const RATE_UNITS: &[Unit] = &[
    ("GiB/s", 1 << 30),
    ("gbit", 125_000_000),
    ("MiB/s", 1 << 20),
    ("mbit", 125_000),
    ("KiB/s", 1 << 10),
    ("kbit", 125),
    ("B/s", 1),
];

const DURATION_FORM: &str = "a duration such as 250ms, 30s, 5m or 1h";
const SIZE_FORM: &str = "a size such as 512B, 16KiB, 1MiB or 1GiB";
const RATE_FORM: &str = "a rate such as 500kbit, 10mbit, 64KiB/s or 1MiB/s";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_with_a_unit_is_parsed() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn an_invalid_duration_is_refused() {
        for text in ["", "10", "s", "1.5s", "+1s", "-1s", " 1s", "1 s", "1S", "1min", "1s1s", "١s", "00", "1é"] {
            assert_eq!(parse_duration(text), Err(UnitError(DURATION_FORM)), "{text:?}");
        }
        for text in ["18446744073709551616us", "99999999999999999999d", "18446744073709551615h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("36500d"), Ok(DURATION_MAX));
        assert!(parse_duration("36501d").is_err());
    }

    #[test]
    fn a_size_with_a_unit_is_parsed() {
        for (text, bytes) in [("0", 0), ("512B", 512), ("16KiB", 16 << 10), ("1MiB", 1 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "16", "16K", "16kib", "16KB", "KiB", "-1B", "16777216TiB", "18446744073709551616B"] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_rate_with_a_unit_is_parsed() {
        for (text, bytes) in [("0", 0), ("8kbit", 1000), ("10mbit", 1_250_000), ("1MiB/s", 1 << 20), ("1B/s", 1)] {
            assert_eq!(parse_rate(text), Ok(bytes), "{text}");
            assert_eq!(parse_rate(&format_rate(bytes)), Ok(bytes), "{text}");
        }
        assert_eq!((format_rate(1_250_000).as_str(), format_rate(64 << 10).as_str()), ("10mbit", "64KiB/s"));
        for text in ["", "10", "10m", "10Mbit", "10mb", "1MiB", "1.5mbit", "-1mbit", "18446744073709551615kbit"] {
            assert!(parse_rate(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_value_is_printed_in_the_largest_unit_that_divides_it() {
        for (millis, text) in [(0, "0"), (90_000, "90s"), (1_500, "1500ms"), (86_400_000, "1d"), (7_200_000, "2h")] {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(format_duration(Duration::from_nanos(1_999)), "1us");
        assert_eq!(format_size(1536), "1536B");
        assert_eq!(format_size(256 << 20), "256MiB");
    }

    #[test]
    fn an_error_names_the_expected_form() {
        let error = parse_duration("10").unwrap_err();
        assert_eq!(error.to_string(), "expected a duration such as 250ms, 30s, 5m or 1h");
    }

    proptest! {
        #[test]
        fn a_printed_value_parses_to_itself(micros in 0..=DURATION_MAX.as_micros() as u64, bytes: u64) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
            prop_assert_eq!(parse_rate(&format_rate(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}|[0-9]{1,24}[a-zA-Z]{0,3}") {
            let _ = (parse_duration(&text), parse_size(&text), parse_rate(&text));
        }
    }
}
