//! The progress of transfers: one line on stderr that is written again and again, if stderr is a terminal.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use seaprox::{human_duration, human_rate, human_size};

use super::logging;
use crate::files::{Event, Progress};

/// The line.
pub struct ProgressLine {
    is_terminal: bool,
    is_shown: bool,
    name: String,
    /// The bytes that were sent at some times of the last seconds, for the rate.
    samples: VecDeque<(Instant, u64)>,
}

impl ProgressLine {
    /// Makes a line, which is never shown if stderr is no terminal.
    pub fn new() -> ProgressLine {
        let is_terminal = io::stderr().is_terminal();
        ProgressLine { is_terminal, is_shown: false, name: String::new(), samples: VecDeque::new() }
    }

    /// Shows what an event has changed.
    pub fn handle(&mut self, event: &Event) {
        match event {
            Event::Offered(offer) => {
                (self.name, self.samples) = (offer.name.clone(), VecDeque::new());
            }
            Event::Progress(progress) if self.is_terminal => {
                let text = self.text(progress, Instant::now());
                self.put(&format!("\r{text}\x1b[K"));
                self.is_shown = true;
            }
            Event::Progress(_) => {}
            _ => self.clear(),
        }
    }

    /// Writes a line in the place of the progress.
    pub fn say(&mut self, text: &str) {
        self.clear();
        logging::say(text);
    }

    /// Removes the line.
    pub fn clear(&mut self) {
        if self.is_shown {
            self.put("\r\x1b[K");
            self.is_shown = false;
        }
    }

    fn put(&self, text: &str) {
        let mut stderr = io::stderr().lock();
        // A terminal that is gone shows no progress.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    fn text(&mut self, progress: &Progress, now: Instant) -> String {
        let new = progress.bytes - progress.kept;
        self.samples.push_back((now, new));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(at, _)| now - *at > RATE_TIME) {
            self.samples.pop_front();
        }
        let name: String = self.name.chars().take(NAME_CHARS_MAX).collect();
        let percent = (progress.bytes * 100).checked_div(progress.bytes_total).unwrap_or(100);
        let mut text =
            format!("{name}  {} of {} ({percent} %)", human_size(progress.bytes), human_size(progress.bytes_total));
        if progress.entries_total > 1 {
            text += &format!("  {} of {} files", progress.entries, progress.entries_total);
        }
        if let Some(rate) = self.rate(now, new) {
            let left = (progress.bytes_total - progress.bytes) as f64 / rate;
            text +=
                &format!("  {}  {} left", human_rate(rate as u64), human_duration(Duration::from_secs(left as u64)));
        }
        text
    }

    /// Returns the bytes per second of the last seconds, once there are enough of them.
    fn rate(&self, now: Instant, bytes: u64) -> Option<f64> {
        let (since, before) = self.samples.front()?;
        let seconds = (now - *since).as_secs_f64();
        let rate = (bytes - before) as f64 / seconds;
        (seconds >= 0.5 && rate >= 1.0).then_some(rate)
    }
}

/// Time over which the rate is measured.
const RATE_TIME: Duration = Duration::from_secs(10);
/// Characters of a name that are shown.
const NAME_CHARS_MAX: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_rate_of_new_bytes_and_the_time_that_is_left() {
        let mut line = ProgressLine::new();
        line.name = "film.mkv".to_owned();
        let (start, kept) = (Instant::now(), 500_000_000);
        let progress = |bytes| Progress { bytes, kept, bytes_total: 1_000_000_000, entries: 0, entries_total: 1 };
        assert_eq!(line.text(&progress(kept), start), "film.mkv  500 MB of 1.00 GB (50 %)");
        let text = line.text(&progress(kept + 10_000_000), start + Duration::from_secs(1));
        assert_eq!(text, "film.mkv  510 MB of 1.00 GB (51 %)  80.0 Mbit/s  49.0 s left");
        let folder = Progress { entries: 3, entries_total: 7, ..Progress::default() };
        line.samples.clear();
        assert_eq!(line.text(&folder, start), "film.mkv  0 B of 0 B (100 %)  3 of 7 files");
    }
}
