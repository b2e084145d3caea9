//! How many lines of the log a stranger or a peer may cause: enough to see what is going on, too few to fill a disk.

/// Lets so many lines through in each period, and counts the others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quiet {
    since_ms: u64,
    said: u32,
    unsaid: u64,
}

impl Quiet {
    /// Whether a line may be written now; then also how many have not been since the last that was.
    pub fn say(&mut self, now_ms: u64) -> Option<u64> {
        if now_ms.saturating_sub(self.since_ms) >= PERIOD_MS {
            (self.since_ms, self.said) = (now_ms, 0);
        }
        if self.said >= LINES_MAX {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Lines in a period.
const LINES_MAX: u32 = 100;
const PERIOD_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let mut quiet = Quiet::default();
        let lines = (0..100_000).filter_map(|ms| quiet.say(ms)).collect::<Vec<_>>();
        assert_eq!(lines.len(), 10 * LINES_MAX as usize);
        assert_eq!(lines.iter().sum::<u64>() + quiet.unsaid + lines.len() as u64, 100_000, "none is forgotten");
        assert_eq!(quiet.say(200_000), Some(PERIOD_MS - u64::from(LINES_MAX)), "and it is told later");
    }
}
