//! How much the peer may send: the receiving end of flow control, for one stream or for the whole session.
//!
//! A window is not a guess: it follows the bytes that the application really took in the time that credit needs to
//! travel. In every such round the window becomes at least twice what was consumed in it, so that a sender that is held
//! back by credit sees it double once per round, and one that is not keeps what it needs. It is never lowered while in
//! use: credit that has been announced cannot be taken back.
//!
//! How long credit travels is what the path says; where the ends themselves are slow to run, it takes longer, and nobody
//! measures that. So a peer that says that it is held back, while the reader takes all there is within moments, sees
//! the window double too, once for each CREDIT.

use crate::link::wire::ids::Time;

/// A window that has not moved for so long starts small again.
const IDLE_US: u64 = 10_000_000;
/// A reader that takes what there is within this time of the peer's word, or within a round, is not what it waits for.
const SOON_US: u64 = 20_000;
/// CREDIT goes out when a quarter of the window, but not more than this, has been consumed.
const STEP_BYTES_MAX: u64 = 512 * 1024;

/// Bounds of a window.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Bounds {
    pub(in crate::link) first: u64,
    pub(in crate::link) max: u64,
}

/// One window: what was consumed, what was announced, and how large the difference may become.
#[derive(Debug)]
pub(in crate::link) struct Window {
    bounds: Bounds,
    size: u64,
    /// The peer may send bytes below this; it never falls.
    announced: u64,
    consumed: u64,
    /// What the peer has been told of `consumed`.
    told: u64,
    /// Whether the peer holds bytes back, and waits for any sign that others have been taken.
    peer_waits: bool,
    /// Since when, if no CREDIT has left since.
    waits_since: Option<Time>,
    /// When the current round began, and what was consumed then.
    round: (Time, u64),
}

impl Window {
    pub(in crate::link) const fn new(bounds: Bounds, now: Time) -> Window {
        Window {
            bounds,
            size: bounds.first,
            announced: bounds.first,
            consumed: 0,
            told: 0,
            peer_waits: false,
            waits_since: None,
            round: (now, 0),
        }
    }

    /// `bytes` were taken, or dropped for good. `round_us` is how long credit needs to take effect at the peer.
    pub(in crate::link) fn consume(&mut self, bytes: u64, now: Time, round_us: u64) {
        self.consumed += bytes;
        let elapsed = now.since(self.round.0);
        if elapsed < round_us {
            return;
        }
        let used = self.consumed - self.round.1;
        self.round = (now, self.consumed);
        if elapsed > IDLE_US.max(round_us) {
            self.size = self.bounds.first;
            return;
        }
        let per_round = u128::from(used) * u128::from(round_us) / u128::from(elapsed.max(1));
        let target = u64::try_from(per_round).unwrap_or(u64::MAX).saturating_mul(2);
        self.size = self.size.max(target.min(self.bounds.max));
    }

    /// The window doubles if the peer waits for it and not for the reader, who has left `unread` bytes.
    pub(in crate::link) fn widen(&mut self, unread: u64, now: Time, round_us: u64) {
        if unread >= self.size / 4 {
            return;
        }
        if self.waits_since.take().is_some_and(|since| now.since(since) <= round_us.max(SOON_US)) {
            self.size = self.size.max(self.size.saturating_mul(2).min(self.bounds.max));
        }
    }

    /// Whether enough has been consumed for a CREDIT to be worth its frame.
    ///
    /// For a peer that waits, anything is enough: what it was allowed may be less than that.
    pub(in crate::link) fn is_due(&self) -> bool {
        if self.peer_waits && self.has_news() {
            return true;
        }
        let gain = self.target().saturating_sub(self.announced);
        gain > 0 && gain >= (self.size / 4).min(STEP_BYTES_MAX)
    }

    /// The peer says that it holds bytes back. Answers whether a CREDIT tells it anything now; else the next byte that
    /// is taken is reason enough for one.
    pub(in crate::link) fn on_blocked(&mut self, now: Time) -> bool {
        self.peer_waits = true;
        self.waits_since = self.waits_since.or(Some(now));
        self.has_news()
    }

    /// Whether a CREDIT would say anything new.
    pub(in crate::link) const fn has_news(&self) -> bool {
        self.target() > self.announced || self.consumed > self.told
    }

    /// The values for a CREDIT that leaves now: up to where bytes may come, and up to where they were taken.
    pub(in crate::link) fn announce(&mut self) -> (u64, u64) {
        self.announced = self.announced.max(self.target());
        self.told = self.consumed;
        self.peer_waits = false;
        self.waits_since = None;
        (self.announced, self.consumed)
    }

    pub(in crate::link) const fn announced(&self) -> u64 {
        self.announced
    }

    pub(in crate::link) const fn consumed(&self) -> u64 {
        self.consumed
    }

    pub(in crate::link) const fn size(&self) -> u64 {
        self.size
    }

    /// Changes the upper bound; what has been announced stays announced.
    pub(in crate::link) fn set_max(&mut self, max: u64) {
        self.bounds.max = max;
        self.bounds.first = self.bounds.first.min(max);
        self.size = self.size.min(self.bounds.max);
    }

    const fn target(&self) -> u64 {
        self.consumed + self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { first: 1000, max: 64_000 };

    #[test]
    fn doubles_each_round_while_credit_is_the_limit() {
        let mut window = Window::new(BOUNDS, Time::ZERO);
        let mut sizes = Vec::new();
        for round in 1..=8 {
            window.consume(window.size(), Time::from_us(round * 100), 100);
            sizes.push(window.size());
        }
        assert_eq!(sizes, [2000, 4000, 8000, 16_000, 32_000, 64_000, 64_000, 64_000]);
    }

    #[test]
    fn stays_when_it_is_not_the_limit_and_falls_back_when_idle() {
        let mut window = Window::new(BOUNDS, Time::ZERO);
        (1..100).for_each(|n| window.consume(400, Time::from_us(n * 100), 100));
        assert_eq!(window.size(), 1000);
        window.consume(9000, Time::from_us(10_000), 100);
        assert_eq!(window.size(), 18_000);
        window.consume(1, Time::from_us(10_000).after(IDLE_US + 1), 100);
        assert_eq!(window.size(), 1000);
    }

    #[test]
    fn a_peer_that_waits_hears_of_the_first_byte() {
        let mut window = Window::new(BOUNDS, Time::ZERO);
        window.consume(10, Time::ZERO, 100);
        assert!(!window.is_due());
        assert!(window.on_blocked(Time::ZERO) && window.is_due());
        assert_eq!(window.announce(), (1010, 10));
        assert!(!window.on_blocked(Time::ZERO) && !window.is_due());
        window.consume(1, Time::ZERO, 100);
        assert!(window.is_due());
    }

    #[test]
    fn doubles_for_a_peer_that_waits_while_the_reader_is_quick() {
        let mut window = Window::new(BOUNDS, Time::ZERO);
        let at = |ms: u64| Time::from_us(ms * 1000);
        let mut turn = |asks: u64, takes: u64, unread: u64| {
            window.on_blocked(at(asks));
            window.widen(unread, at(takes), 100);
            window.widen(unread, at(takes), 100);
            let size = window.size();
            window.announce();
            size
        };
        assert_eq!(turn(0, 10, 0), 2000, "once for each CREDIT");
        assert_eq!(turn(20, 20, 500), 2000, "the reader has still something to do");
        assert_eq!(turn(30, 60, 0), 2000, "the reader was slow");
        assert_eq!((70..90).map(|n| turn(n, n, 0)).last(), Some(64_000));
    }

    proptest! {
        #[test]
        fn announced_never_falls_and_memory_is_bounded(steps in proptest::collection::vec((0u64..5000, 0u64..20_000_000), 1..60)) {
            let mut window = Window::new(BOUNDS, Time::ZERO);
            let (mut now, mut last) = (Time::ZERO, window.announced());
            for (bytes, us) in steps {
                now = now.after(us);
                let bytes = bytes.min(window.announced() - window.consumed());
                window.consume(bytes, now, 100_000);
                let next = if window.is_due() { window.announce().0 } else { window.announced() };
                prop_assert!(next >= last && next - window.consumed() <= BOUNDS.max);
                last = next;
            }
        }
    }
}
