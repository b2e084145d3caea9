//! Numbers for people: three digits and a unit, such as `34.2 MB`, `12.4 ms`, `3m20s` or `87 Mbit/s`.
//!
//! These forms round. Programs get the exact number in base units, and [`units`](super::units) has the forms that parse.

use std::time::Duration;

/// Formats a number of bytes with decimal prefixes, such as `999 B`, `1.02 kB` or `34.2 MB`.
pub fn human_size(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Formats a rate in bytes per second as bits per second with decimal prefixes, such as `87.0 Mbit/s`.
pub fn human_rate(bytes_per_second: u64) -> String {
    scaled(bytes_per_second as f64 * 8.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s", "Ebit/s"])
}

/// Formats a duration: with three digits below a minute, such as `12.4 ms` or `5.21 s`, and with two units from there on,
/// such as `3m20s`, `2h05m` or `4d03h`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => below_a_minute(duration),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn below_a_minute(duration: Duration) -> String {
    let micros = duration.as_micros() as f64;
    match micros {
        _ if duration.is_zero() => "0 s".to_owned(),
        // The steps are where the rounded number would have four digits.
        ..999.5 => format!("{} us", digits(micros)),
        ..999_500.0 => format!("{} ms", digits(micros / 1e3)),
        _ => format!("{} s", digits(micros / 1e6)),
    }
}

/// Returns the value with the largest prefix that leaves at least one digit before the point. The first unit is counted in
/// whole numbers.
fn scaled(value: f64, units: &[&str]) -> String {
    let (mut value, mut index) = (value, 0);
    while value >= 999.5 && index + 1 < units.len() {
        value /= 1000.0;
        index += 1;
    }
    match index {
        0 => format!("{value:.0} {}", units[0]),
        _ => format!("{} {}", digits(value), units[index]),
    }
}

/// Returns three significant digits of a number from 1 to 999.
fn digits(value: f64) -> String {
    match value {
        ..9.995 => format!("{value:.2}"),
        ..99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_three_digits_and_a_decimal_prefix() {
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (1_024, "1.02 kB"),
            (9_994, "9.99 kB"),
            (9_996, "10.0 kB"),
            (34_200_000, "34.2 MB"),
            (999_499_999, "999 MB"),
            (999_600_000, "1.00 GB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn a_rate_is_in_bits_per_second() {
        for (bytes, text) in
            [(0, "0 bit/s"), (125, "1.00 kbit/s"), (10_875_000, "87.0 Mbit/s"), (125_000_000, "1.00 Gbit/s")]
        {
            assert_eq!(human_rate(bytes), text);
        }
    }

    #[test]
    fn a_duration_has_three_digits_or_two_units() {
        let durations = [
            (0, "0 s"),
            (850, "850 us"),
            (12_400, "12.4 ms"),
            (999_600, "1.00 s"),
            (5_210_000, "5.21 s"),
            (200_000_000, "3m20s"),
            (7_500_000_000, "2h05m"),
            (356_400_000_000, "4d03h"),
        ];
        for (micros, text) in durations {
            assert_eq!(human_duration(Duration::from_micros(micros)), text);
        }
    }
}
