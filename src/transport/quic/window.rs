//! The receive window of a connection: it follows what the peer delivers.
//!
//! The lanes are always read, so that only bytes behind a lost datagram wait in a connection. A peer that leaves a gap on purpose
//! makes this node hold a whole window of them. So each connection begins with a small window, which doubles as long as the peer
//! delivers half of it in one round trip, and is small again after a pause.

use std::time::{Duration, Instant};

use super::config::{WINDOW_BYTES, WINDOW_BYTES_FIRST};

/// The receive window of one connection.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The present window; 0 before the first round.
    bytes: u32,
    /// Bytes that were read in this round trip.
    read: u64,
    /// Start of this round trip.
    since: Option<Instant>,
    /// The session reads at a limited rate, which decides.
    is_fixed: bool,
}

impl Window {
    /// Notes bytes that were read from a lane.
    pub(super) fn on_read(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }

    /// Sets the window to that of a limited rate.
    pub(super) fn fix(&mut self, bytes: u32) {
        (self.bytes, self.is_fixed) = (bytes, true);
    }

    /// Returns the window, if it has changed.
    pub(super) fn update(&mut self, now: Instant, round: Duration) -> Option<u32> {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if self.is_fixed || (self.bytes > 0 && elapsed < round) {
            return None;
        }
        let before = self.bytes;
        if before == 0 || elapsed >= PAUSE {
            self.bytes = WINDOW_BYTES_FIRST;
        } else if self.read >= u64::from(before / 2) {
            self.bytes = before.saturating_mul(2).min(WINDOW_BYTES);
        }
        (self.since, self.read) = (Some(now), 0);
        (self.bytes != before).then_some(self.bytes)
    }
}

/// Time without any turn of the connection, after which its window is small again.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(50);

    #[test]
    fn the_window_doubles_while_the_peer_delivers_half_of_it_in_a_round_trip() {
        let (mut window, mut now) = (Window::default(), Instant::now());
        assert_eq!(window.update(now, ROUND), Some(WINDOW_BYTES_FIRST));
        let mut bytes = WINDOW_BYTES_FIRST;
        while bytes < WINDOW_BYTES {
            window.on_read(bytes as usize / 2);
            assert_eq!(window.update(now + ROUND / 2, ROUND), None, "within the round trip");
            now += ROUND;
            bytes *= 2;
            assert_eq!(window.update(now, ROUND), Some(bytes));
        }
        window.on_read(WINDOW_BYTES as usize);
        assert_eq!(window.update(now + ROUND, ROUND), None, "the largest window");
    }

    #[test]
    fn the_window_of_a_peer_that_delivers_little_stays() {
        let (mut window, mut now) = (Window::default(), Instant::now());
        window.update(now, ROUND);
        for _ in 0..100 {
            window.on_read(WINDOW_BYTES_FIRST as usize / 2 - 1);
            now += ROUND;
            assert_eq!(window.update(now, ROUND), None);
        }
    }

    #[test]
    fn the_window_is_small_again_after_a_pause() {
        let (mut window, now) = (Window::default(), Instant::now());
        window.update(now, ROUND);
        window.on_read(WINDOW_BYTES_FIRST as usize);
        assert_eq!(window.update(now + ROUND, ROUND), Some(2 * WINDOW_BYTES_FIRST));
        assert_eq!(window.update(now + ROUND + PAUSE, ROUND), Some(WINDOW_BYTES_FIRST));
    }

    #[test]
    fn the_window_of_a_limited_rate_stays() {
        let (mut window, now) = (Window::default(), Instant::now());
        window.fix(100_000);
        window.on_read(WINDOW_BYTES as usize);
        assert_eq!(window.update(now + ROUND, ROUND), None);
    }
}
