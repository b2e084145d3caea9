//! A time of the calendar in UTC, to the second: the form in which files of keys name the end of a permission.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// A time in UTC. Its text form is that of RFC 3339 without a fraction, such as `2026-11-28T15:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcTime(u64);

/// The latest time: the end of the year 9999, the last year of RFC 3339.
const SECS_MAX: u64 = 253_402_300_799;
const DAY_SECS: u64 = 86_400;

impl UtcTime {
    /// Returns the present time. A clock before 1970 is taken for 1970.
    pub fn now() -> UtcTime {
        UtcTime::from_system(SystemTime::now())
    }

    /// Returns a time of the system's clock, rounded down to a second.
    pub fn from_system(time: SystemTime) -> UtcTime {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        UtcTime(since.as_secs().min(SECS_MAX))
    }

    /// Returns the time so many seconds later, or the latest time.
    #[must_use]
    pub fn after(self, duration: Duration) -> UtcTime {
        UtcTime(self.0.saturating_add(duration.as_secs()).min(SECS_MAX))
    }

    /// Returns the time as one of the system's clock.
    pub fn to_system(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0)
    }

    /// Returns true if this time has come.
    pub fn is_past(self) -> bool {
        self.to_system() <= SystemTime::now()
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((year, month, day), secs) = (civil(self.0 / DAY_SECS), self.0 % DAY_SECS);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", secs / 3600, secs / 60 % 60, secs % 60)
    }
}

impl FromStr for UtcTime {
    type Err = &'static str;

    /// Parses `2026-11-28T15:00:00Z`, the same without seconds, or a day alone, which stands for its first second. The error
    /// is the expected form.
    fn from_str(text: &str) -> Result<UtcTime, &'static str> {
        parse(text).ok_or("a time in UTC, such as 2026-11-28T15:00:00Z or 2026-11-28")
    }
}

fn parse(text: &str) -> Option<UtcTime> {
    let (date, clock) = match text.split_once('T') {
        Some((date, clock)) => (date, clock.strip_suffix('Z')?),
        None => (text, "00:00"),
    };
    let mut words = date.split('-');
    let (year, month, day) = (digits(words.next()?, 4)?, digits(words.next()?, 2)?, digits(words.next()?, 2)?);
    let mut times = clock.split(':');
    let (hour, minute) = (digits(times.next()?, 2)?, digits(times.next()?, 2)?);
    let second = times.next().map_or(Some(0), |word| digits(word, 2))?;
    let is_over = words.next().is_none() && times.next().is_none();
    let is_time = (1..=12).contains(&month) && hour < 24 && minute < 60 && second < 60;
    if !is_over || !is_time || year < 1970 {
        return None;
    }
    let days = days_of(year, month, day);
    // A day that the month does not have would be a day of the next one.
    (day > 0 && civil(days) == (year, month, day)).then_some(())?;
    Some(UtcTime(days * DAY_SECS + hour * 3600 + minute * 60 + second))
}

/// Parses a number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let is_number = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Returns the number of days from 1970-01-01 to a day of the Gregorian calendar. Years begin in March here, so that the day
/// that leap years insert is the last of a year.
fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day;
    (365 * year + year / 4 - year / 100 + year / 400 + of_year).saturating_sub(DAYS_TO_1970)
}

/// Returns year, month and day of a number of days since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_1970 - 1;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

/// Days of 400 years of the Gregorian calendar.
const ERA_DAYS: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01, and one.
const DAYS_TO_1970: u64 = 719_469;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The seconds are those of `date -u -d TEXT +%s`.
    #[test]
    fn a_time_is_that_of_date() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:34:56Z", 951_827_696),
            ("2026-11-28T15:00:00Z", 1_795_878_000),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("9999-12-31T23:59:59Z", SECS_MAX),
        ] {
            assert_eq!((text.parse(), UtcTime(secs).to_string().as_str()), (Ok(UtcTime(secs)), text));
        }
        assert_eq!("2026-11-28".parse::<UtcTime>(), "2026-11-28T00:00Z".parse());
        assert!(UtcTime(0).is_past() && !UtcTime(SECS_MAX).is_past());
        assert_eq!(UtcTime(5).after(Duration::MAX), UtcTime(SECS_MAX));
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        for text in [
            "",
            "2026",
            "2026-11-28T15:00:00",
            "2026-11-28T15:00:00+01:00",
            "2026-11-28 15:00:00Z",
            "2026-11-28T15:00:00.5Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T15:60Z",
            "2026-11-28T15Z",
            "2026-02-29",
            "2026-04-31",
            "2026-13-01",
            "2026-00-01",
            "2026-01-00",
            "1969-12-31",
            "+026-01-01",
            "2026-1-1",
            "2026-01-01-01",
        ] {
            assert!(text.parse::<UtcTime>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_time_parses_to_itself(secs in 0..=SECS_MAX) {
            prop_assert_eq!(UtcTime(secs).to_string().parse(), Ok(UtcTime(secs)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{0,8}Z)?") {
            let _ = text.parse::<UtcTime>();
        }
    }
}
