//! The receive window of one stream or of the session: how much the peer may send.
//!
//! The window follows the bytes that the application takes while credit travels to the peer and takes effect (a round):
//! it becomes at least twice what was taken in a round. So it grows while credit limits the sender, and else keeps its
//! size. A window in use never shrinks, because announced credit cannot be taken back.
//!
//! A sender in slow start doubles its rate each round, and credit takes effect a round after it was measured: by then the
//! sender needs six times what was taken. So the window leads by the growth beyond all rounds before. A window that only
//! followed would stop the sender and release it in bursts, and the queue of a burst ends the slow start of its carrier.
//!
//! The length of a round follows from the path. Slow ends make it longer, and nothing measures that. So the window
//! doubles, once for each CREDIT, also when the peer is blocked although the reader takes everything within moments.

use crate::link::wire::ids::Time;

/// Idle time after which a window returns to its initial size.
const IDLE_US: u64 = 10_000_000;
/// A reader that takes everything within this time after BLOCKED, or within a round, is not the cause of the block.
const SOON_US: u64 = 20_000;
/// CREDIT is sent when a quarter of the window, at most this, has been taken.
const STEP_BYTES_MAX: u64 = 512 * 1024;
/// The lead of the window, in bytes for each byte of growth: four times the taken bytes where they have doubled.
const GROWTH_GAIN: u64 = 8;

/// The initial and the maximum size of a window.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct Bounds {
    pub(in crate::link) first: u64,
    pub(in crate::link) max: u64,
}

/// One receive window: what was taken, what was announced, and the current size.
#[derive(Debug)]
pub(in crate::link) struct Window {
    bounds: Bounds,
    size: u64,
    /// The credit limit, which never falls: the peer may send bytes below this offset.
    announced: u64,
    consumed: u64,
    /// The value of `consumed` in the last CREDIT.
    announced_consumed: u64,
    /// The blocks of the peer since the last CREDIT.
    peer: PeerState,
    /// Start of the current round, and `consumed` at that time.
    round: (Time, u64),
    /// The most bytes that were taken in a round, at least half of the initial size.
    most: u64,
}

/// The blocks of the peer of a window since the last CREDIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    /// It has not sent BLOCKED.
    Unblocked,
    /// It has, at this time for the first time since the window was judged.
    Blocked(Time),
    /// It has, and that has been used to judge the window.
    Judged,
}

impl Window {
    pub(in crate::link) const fn new(bounds: Bounds, now: Time) -> Window {
        Window {
            bounds,
            size: bounds.first,
            announced: bounds.first,
            consumed: 0,
            announced_consumed: 0,
            peer: PeerState::Unblocked,
            round: (now, 0),
            most: bounds.first / 2,
        }
    }

    /// Counts `bytes` as taken or dropped. `round_us` is the time that credit needs to take effect at the peer.
    pub(in crate::link) fn consume(&mut self, bytes: u64, now: Time, round_us: u64) {
        self.consumed += bytes;
        let elapsed = now.since(self.round.0);
        if elapsed < round_us {
            return;
        }
        let used = self.consumed - self.round.1;
        self.round = (now, self.consumed);
        if elapsed > IDLE_US.max(round_us) {
            (self.size, self.most) = (self.bounds.first, self.bounds.first / 2);
            return;
        }
        let per_round = u128::from(used) * u128::from(round_us) / u128::from(elapsed.max(1));
        let per_round = u64::try_from(per_round).unwrap_or(u64::MAX);
        let growth = per_round.saturating_sub(self.most).min(per_round / 2);
        self.most = self.most.max(per_round);
        let target = per_round.saturating_mul(2).saturating_add(growth.saturating_mul(GROWTH_GAIN));
        self.size = self.size.max(target.min(self.bounds.max));
    }

    /// Doubles the window if the peer is blocked and its reader, with `unread` bytes left, is not the cause.
    pub(in crate::link) fn widen(&mut self, unread: u64, now: Time, round_us: u64) {
        if unread >= self.size / 4 {
            return;
        }
        let PeerState::Blocked(since) = self.peer else { return };
        self.peer = PeerState::Judged;
        if now.since(since) <= round_us.max(SOON_US) {
            self.size = self.size.max(self.size.saturating_mul(2).min(self.bounds.max));
        }
    }

    /// Returns true if a CREDIT is worth its frame.
    ///
    /// For a blocked peer any change is: its quota may be less than a quarter of the window.
    pub(in crate::link) fn is_due(&self) -> bool {
        if self.peer != PeerState::Unblocked && self.has_news() {
            return true;
        }
        let gain = self.target().saturating_sub(self.announced);
        gain > 0 && gain >= (self.size / 4).min(STEP_BYTES_MAX)
    }

    /// Notes a BLOCKED. Returns true if a CREDIT has news for the peer; otherwise the next byte that is taken makes one
    /// due.
    pub(in crate::link) fn on_blocked(&mut self, now: Time) -> bool {
        if !matches!(self.peer, PeerState::Blocked(_)) {
            self.peer = PeerState::Blocked(now);
        }
        self.has_news()
    }

    /// Returns true if a CREDIT would differ from the last.
    pub(in crate::link) const fn has_news(&self) -> bool {
        self.target() > self.announced || self.consumed > self.announced_consumed
    }

    /// Returns the values for a CREDIT that is sent now: the credit limit, and the bytes taken.
    pub(in crate::link) fn announce(&mut self) -> (u64, u64) {
        self.announced = self.announced.max(self.target());
        self.announced_consumed = self.consumed;
        self.peer = PeerState::Unblocked;
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

    /// Sets the maximum size. Announced credit stays announced.
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
    fn the_window_soon_suffices_while_credit_is_the_limit() {
        let mut window = Window::new(BOUNDS, Time::ZERO);
        let mut sizes = Vec::new();
        for round in 1..=8 {
            window.consume(window.size(), Time::from_us(round * 100), 100);
            sizes.push(window.size());
        }
        assert_eq!(sizes, [6000, 36_000, 64_000, 64_000, 64_000, 64_000, 64_000, 64_000]);
    }

    #[test]
    fn the_window_leads_a_sender_in_slow_start_and_no_sender_that_was_faster_before() {
        let mut window = Window::new(Bounds { first: 1000, max: 1 << 30 }, Time::ZERO);
        let mut sizes = [400, 800, 1600, 3200, 3200, 1600, 3200, 3300]
            .into_iter()
            .zip(1..)
            .map(|(taken, round)| {
                window.consume(taken, Time::from_us(round * 100), 100);
                window.size()
            })
            .collect::<Vec<_>>();
        assert_eq!(sizes.split_off(4), [19_200; 4], "twice 3300 and the growth of 100 are less");
        assert_eq!(sizes, [1000, 4000, 9600, 19_200]);
    }

    #[test]
    fn the_window_stays_without_need_and_shrinks_after_idle_time() {
        let mut window = Window::new(BOUNDS, Time::ZERO);
        (1..100).for_each(|n| window.consume(400, Time::from_us(n * 100), 100));
        assert_eq!(window.size(), 1000);
        window.consume(9000, Time::from_us(10_000), 100);
        assert_eq!(window.size(), 54_000);
        window.consume(1, Time::from_us(10_000).after(IDLE_US + 1), 100);
        assert_eq!(window.size(), 1000);
    }

    #[test]
    fn a_blocked_peer_gets_credit_for_the_first_byte() {
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
    fn the_window_doubles_for_a_blocked_peer_while_the_reader_is_quick() {
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
        assert_eq!(turn(20, 20, 500), 2000, "the reader has bytes left");
        assert_eq!(turn(30, 60, 0), 2000, "the reader was slow");
        assert_eq!((70..90).map(|n| turn(n, n, 0)).last(), Some(64_000));
    }

    proptest! {
        #[test]
        fn announced_credit_never_falls_and_is_bounded(steps in proptest::collection::vec((0u64..5000, 0u64..20_000_000), 1..60)) {
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
