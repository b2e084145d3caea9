//! The receive window of a connection: it follows what the peer delivers, and what all connections hold together.
//!
//! The lanes are always read, so that only bytes behind a lost datagram wait in a connection. A peer that leaves a gap on purpose
//! makes this node hold a whole window of them. So each connection begins with a small window, which doubles as long as the peer
//! delivers half of it in one round trip, and is small again after a pause.
//!
//! Credit cannot be taken back: a smaller window is a debt, which the peer pays with what it delivers. Until then the connection
//! holds both. The connections of a loop together hold at most [`Windows::most`], and the smallest window each. One window is at
//! most a quarter of what is left of the first half, so that the windows shrink as there are more of them. The other half is for
//! the connections that come when the first one is held, by peers that do not deliver: the one of number `n` has an eighth of the
//! `n`th part.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::config::{WINDOW_BYTES, WINDOW_BYTES_FIRST, WINDOW_BYTES_MIN};

/// The receive windows of all connections of a loop.
#[derive(Debug)]
pub(crate) struct Windows {
    /// The most bytes that their peers may send ahead of what was read.
    most: u64,
    /// The bytes that they may send.
    held: Cell<u64>,
    connections: Cell<u64>,
}

impl Windows {
    pub(crate) fn new(most: u64) -> Windows {
        Windows { most, held: Cell::new(0), connections: Cell::new(0) }
    }

    /// Returns the largest window that one connection may have now.
    fn share(&self) -> u32 {
        let left_of_half = (self.most / 2).saturating_sub(self.held.get());
        let share = (left_of_half / 4).max(self.most / PARTS / self.connections.get().max(1));
        u32::try_from(share).unwrap_or(u32::MAX).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES)
    }

    fn left(&self) -> u64 {
        self.most.saturating_sub(self.held.get())
    }
}

/// The receive window of one connection.
#[derive(Debug)]
pub(super) struct Window {
    all: Rc<Windows>,
    /// The present window.
    bytes: u32,
    /// Credit that the peer has beyond the window.
    debt: u64,
    /// Bytes that are counted in `all`.
    counted: u64,
    is_open: bool,
    /// Bytes that were read in this round trip.
    read: u64,
    /// Start of this round trip.
    since: Option<Instant>,
    /// The window of a limited rate at which the session reads.
    fixed: Option<u32>,
}

impl Window {
    /// Makes the window of an unauthenticated peer.
    pub(super) fn new(all: &Rc<Windows>) -> Window {
        let (bytes, fixed, is_open) = (WINDOW_BYTES_MIN, None, false);
        Window { all: Rc::clone(all), bytes, debt: 0, counted: 0, is_open, read: 0, since: None, fixed }
    }

    /// Returns the first window of a peer that has just been authenticated.
    pub(super) fn open(&mut self) -> u32 {
        if !std::mem::replace(&mut self.is_open, true) {
            self.all.connections.set(self.all.connections.get() + 1);
            self.count();
        }
        self.set(WINDOW_BYTES_FIRST);
        self.bytes
    }

    /// Notes bytes that were read from a lane.
    pub(super) fn on_read(&mut self, bytes: usize) {
        self.read += bytes as u64;
        if self.debt > 0 {
            self.debt = self.debt.saturating_sub(bytes as u64);
            self.count();
        }
    }

    /// Sets the window to that of a limited rate, from the next update on.
    pub(super) fn fix(&mut self, bytes: u32) {
        (self.fixed, self.since) = (Some(bytes), None);
    }

    /// Returns the window, if it has changed.
    pub(super) fn update(&mut self, now: Instant, round: Duration) -> Option<u32> {
        let is_first = self.since.is_none();
        let elapsed = now.saturating_duration_since(*self.since.get_or_insert(now));
        if !self.is_open || (elapsed < round && !(is_first && self.fixed.is_some())) {
            return None;
        }
        let before = self.bytes;
        // A debt lets the peer deliver more than the window.
        let wanted = u32::try_from(2 * self.read).unwrap_or(u32::MAX).max(before.saturating_mul(2));
        self.set(match self.fixed {
            Some(fixed) => fixed,
            None if elapsed >= PAUSE => WINDOW_BYTES_FIRST.min(before),
            None if self.read >= u64::from(before / 2) => wanted,
            None => before,
        });
        (self.since, self.read) = (Some(now), 0);
        (self.bytes != before).then_some(self.bytes)
    }

    /// Sets the window, as far as the other connections permit.
    fn set(&mut self, wished: u32) {
        let share = self.all.share();
        // A window above its share is halved at most, so that all of them shrink together.
        let most = share.max(if self.bytes > share { self.bytes / 2 } else { 0 });
        let left = u32::try_from(self.all.left()).unwrap_or(u32::MAX);
        // Of its own, a connection holds no more than the largest window.
        let own = u32::try_from(u64::from(WINDOW_BYTES).saturating_sub(self.debt)).unwrap_or(0).max(self.bytes);
        let bytes = wished.min(most).min(own).min(self.bytes.saturating_add(left)).max(WINDOW_BYTES_MIN);
        self.debt += u64::from(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
        self.count();
    }

    /// Counts what the peer may send.
    fn count(&mut self) {
        let bytes = if self.is_open { u64::from(self.bytes) + self.debt } else { 0 };
        self.all.held.set(self.all.held.get() - self.counted + bytes);
        self.counted = bytes;
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.count();
            self.all.connections.set(self.all.connections.get() - 1);
        }
    }
}

/// Time without any turn of the connection, after which its window is small again.
const PAUSE: Duration = Duration::from_secs(10);
/// The share of the first connection is this part of what all of them may hold.
const PARTS: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(50);

    /// Returns an open window beside no other one.
    fn alone() -> Window {
        let mut window = Window::new(&Rc::new(Windows::new(512 << 20)));
        assert_eq!(window.open(), WINDOW_BYTES_FIRST);
        window
    }

    /// Lets the peer deliver all that it may for some round trips.
    fn deliver(window: &mut Window, now: &mut Instant, rounds: u32) {
        window.update(*now, ROUND);
        for _ in 0..rounds {
            window.on_read(window.bytes as usize + window.debt as usize);
            *now += ROUND;
            window.update(*now, ROUND);
        }
    }

    #[test]
    fn the_window_doubles_while_the_peer_delivers_half_of_it_in_a_round_trip() {
        let (mut window, mut now) = (alone(), Instant::now());
        assert_eq!(window.update(now, ROUND), None);
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
        let (mut window, mut now) = (alone(), Instant::now());
        window.update(now, ROUND);
        for _ in 0..100 {
            window.on_read(WINDOW_BYTES_FIRST as usize / 2 - 1);
            now += ROUND;
            assert_eq!(window.update(now, ROUND), None);
        }
    }

    #[test]
    fn the_window_is_small_again_after_a_pause() {
        let (mut window, now) = (alone(), Instant::now());
        window.update(now, ROUND);
        window.on_read(WINDOW_BYTES_FIRST as usize);
        assert_eq!(window.update(now + ROUND, ROUND), Some(2 * WINDOW_BYTES_FIRST));
        assert_eq!(window.update(now + ROUND + PAUSE, ROUND), Some(WINDOW_BYTES_FIRST));
    }

    #[test]
    fn a_transfer_after_a_pause_has_its_window_back_and_holds_no_more_than_before() {
        let (mut window, mut now) = (alone(), Instant::now());
        deliver(&mut window, &mut now, 8);
        assert_eq!(window.bytes, WINDOW_BYTES);
        now += PAUSE;
        assert_eq!(window.update(now, ROUND), Some(WINDOW_BYTES_FIRST));
        assert_eq!(window.all.held.get(), u64::from(WINDOW_BYTES), "the peer has its credit");
        for _ in 0..4 {
            window.on_read(WINDOW_BYTES as usize / 2);
            now += ROUND;
            window.update(now, ROUND);
            assert!(window.all.held.get() <= u64::from(WINDOW_BYTES), "{}", window.all.held.get());
        }
        assert_eq!(window.bytes, WINDOW_BYTES);
    }

    #[test]
    fn the_window_of_a_limited_rate_stays() {
        let (mut window, now) = (alone(), Instant::now());
        window.fix(100_000);
        assert_eq!(window.update(now, ROUND), Some(100_000), "at once");
        window.on_read(WINDOW_BYTES as usize);
        assert_eq!(window.update(now + ROUND, ROUND), None);
    }

    #[test]
    fn connections_hold_no_more_together_than_they_may_and_each_has_the_smallest_window() {
        const MOST: u64 = 512 << 20;
        let all = Rc::new(Windows::new(MOST));
        let mut now = Instant::now();
        let mut windows: Vec<Window> = Vec::new();
        for count in 1..=1_000_u64 {
            windows.push(Window::new(&all));
            let window = windows.last_mut().unwrap();
            assert!(window.open() >= WINDOW_BYTES_MIN);
            // Each peer then leaves a gap, and delivers no more.
            deliver(window, &mut now, 8);
            assert!(window.bytes == WINDOW_BYTES_MIN || all.held.get() <= MOST, "{} at {count}", window.bytes);
            let held: u64 = windows.iter().map(|window| u64::from(window.bytes) + window.debt).sum();
            assert_eq!((all.held.get(), all.connections.get()), (held, count));
            assert!(held <= MOST + count * u64::from(WINDOW_BYTES_MIN), "{held} bytes for {count} connections");
            let largest = windows.iter().map(|window| window.bytes).max().unwrap();
            assert!(largest <= WINDOW_BYTES, "{largest}");
        }
        // The connections that came when half of it was held still got a share.
        assert!(windows[20].bytes > 2 * WINDOW_BYTES_MIN, "{}", windows[20].bytes);
        windows.clear();
        assert_eq!((all.held.get(), all.connections.get()), (0, 0));
    }

    #[test]
    fn the_windows_of_peers_that_deliver_shrink_to_make_room_for_others() {
        const MOST: u64 = 64 << 20;
        let all = Rc::new(Windows::new(MOST));
        let mut now = Instant::now();
        let mut windows: Vec<Window> = Vec::new();
        for _ in 0..64 {
            windows.push(Window::new(&all));
            windows.last_mut().unwrap().open();
            for _ in 0..8 {
                windows.iter_mut().for_each(|window| window.on_read(window.bytes as usize + window.debt as usize));
                now += ROUND;
                windows.iter_mut().for_each(|window| _ = window.update(now, ROUND));
            }
        }
        let (least, largest) = windows
            .iter()
            .map(|window| window.bytes)
            .fold((u32::MAX, 0), |(least, largest), bytes| (least.min(bytes), largest.max(bytes)));
        assert!(all.left() > MOST / 4, "{} are left", all.left());
        let first = u64::from(windows[0].bytes);
        assert!(first <= MOST / 16, "the first one had {}, and has {first}", MOST / PARTS);
        assert!(u64::from(least) >= MOST / PARTS / 64, "from {least} to {largest}");
    }
}
