//! How much of something that all streams share one of them may hold.
//!
//! The peer's memory (as the session's credit) and this end's (S) are used by whoever comes. A stream whose reader has
//! stopped keeps what it holds, for ever perhaps, and nothing can be taken back from it: so each may take only a part
//! of what is left, and the part must shrink faster than what is left does, or a few hundred such streams leave nothing
//! for the others. Buffer memory in switches is shared in this way (dynamic thresholds); there the share is in
//! proportion to what is free. Here it is in proportion to its fourth power, because a lone stream may need a quarter
//! of the whole: with n stalled streams `whole / (1 + 3 n)^(1/3)` stays free, which is 6 % of it with a thousand and 4
//! % with four thousand.
//!
//! What is that small would slow the living down. A stream whose reader has been seen to take bytes may hold twice what
//! it took last, if that is at most a 64th of what is free, and a 16th of all that it ever took: most streams that stop
//! do so early. So a stream that moves keeps moving, and many of them fill a path together, whatever lies still beside
//! them.

use super::control::Key;
use super::event::Event;
use super::state::Session;
use crate::link::stream::send::CHUNK_COST;
use crate::link::stream::state::Stream;

/// Nobody's share is less.
pub(super) const SHARE_MIN: u64 = 256;
/// A stream that moves may have one part in so many of what is free.
const MOVING_PARTS: u64 = 64;
/// So many times what it may have must have been taken of it before.
const TRUST: u64 = 16;

/// How a stream moves: nothing at all if it is new, or stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::link) struct Motion {
    /// Bytes that its reader has taken, ever.
    pub(in crate::link) taken: u64,
    /// Of those, the bytes that the last word of it was about.
    pub(in crate::link) last: u64,
}

/// What is shared, as it stands now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    pub(super) whole: u64,
    pub(super) free: u64,
}

impl Pool {
    /// What a stream may hold in all.
    pub(super) fn share(self, motion: Motion) -> u64 {
        let (whole, free) = (u128::from(self.whole.max(1)), u128::from(self.free.min(self.whole)));
        let still = free * free / whole * free / whole * free / whole;
        let still = u64::try_from(still).unwrap_or(u64::MAX);
        let moving = motion.last.saturating_mul(2).min(motion.taken / TRUST).min(self.free / MOVING_PARTS);
        still.max(moving).max(SHARE_MIN)
    }
}

impl Session {
    /// Bytes that a stream may send beyond those that its reader has not taken yet.
    pub(super) fn room_of(&self, stream: &Stream) -> u64 {
        let pool = Pool { whole: self.tx.window, free: self.tx.credit.saturating_sub(self.tx.sent) };
        pool.share(stream.send.motion()).saturating_sub(stream.send.not_taken())
    }

    /// A stream may ask for its turn again: its reader has shown life.
    pub(super) fn let_go(&mut self, slot: usize) {
        if let Some(stream) = self.streams.get_mut(slot)
            && std::mem::replace(&mut stream.held_back, false)
        {
            self.tx.backlog += stream.backlog();
        }
    }

    /// A stream has its share of the session's credit: waits until its reader takes some, and asks to be told.
    pub(super) fn hold_back(&mut self, slot: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let backlog = stream.backlog();
        if !std::mem::replace(&mut stream.held_back, true) {
            self.tx.backlog -= backlog;
            self.stats.held_back += 1;
            self.control.push_stream(Key::Blocked(stream.id), &mut stream.queued);
        }
    }

    /// What a stream may write now, and how much it may have waiting in all: its share of what the session may still
    /// hold.
    pub(super) fn write_room(&self, stream: &Stream) -> (u64, u64) {
        let free = self.send_free().saturating_sub(CHUNK_COST);
        let motion = if stream.stands_still() { Motion::default() } else { stream.send.motion() };
        let share = Pool { whole: self.send_bytes_max(), free }.share(motion);
        let cap = self.config.unsent_bytes_max.min(share).min(free);
        (cap.saturating_sub(stream.send.unsent()), cap)
    }

    /// A stream has more to write than there is room for. It is told when some of what waits has left; and when others
    /// have left room, if that is why.
    pub(super) fn refuse_rest(&mut self, slot: usize, cap: u64) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        stream.wants_room = true;
        if cap < self.config.unsent_bytes_max && !std::mem::replace(&mut stream.in_starved, true) {
            let id = stream.id;
            Self::remember(&mut self.tx.starved, id, &self.streams);
        }
    }

    /// Tells those whom the session's bound refused a write that they may try again, if they have room now.
    ///
    /// A few are asked each time, and all once a good part has become free, or nothing more will.
    pub(super) fn wake_starved(&mut self) {
        const FEW: usize = 8;
        let free = self.send_free();
        self.tx.starved_at = self.tx.starved_at.min(free);
        let mut tries = self.tx.starved.len();
        let lanes = self.subflows.iter().flat_map(|subflow| &subflow.lanes);
        let last = self.control.is_empty() && lanes.filter_map(|lane| lane.tx.waiting_since()).next().is_none();
        if last || free - self.tx.starved_at > self.send_bytes_max() / 64 {
            self.tx.starved_at = free;
        } else {
            tries = tries.min(FEW);
        }
        for _ in 0..tries {
            let Some(id) = self.tx.starved.pop_front() else { return };
            let Some(slot) = self.streams.live_slot(id) else { continue };
            let Some(stream) = self.streams.get(slot) else { continue };
            let (room, cap) = self.write_room(stream);
            let refused = stream.wants_room && stream.send.is_open();
            let wakes = refused && room > 0 && room >= cap / 2;
            if refused && !wakes {
                self.tx.starved.push_back(id);
            } else if let Some(stream) = self.streams.get_mut(slot) {
                stream.in_starved = false;
                stream.wants_room = false;
            }
            if wakes {
                self.events.push_back(Event::Writable(id));
            }
        }
    }

    fn send_free(&self) -> u64 {
        self.send_bytes_max().saturating_sub(self.tx.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u64 = 64 << 20;

    /// What is free after so many streams have taken their share, at most `max` each, and kept it.
    fn after(streams: usize, max: u64) -> u64 {
        (0..streams).fold(WHOLE, |free, _| free - Pool { whole: WHOLE, free }.share(STILL).min(max))
    }

    const STILL: Motion = Motion { taken: 0, last: 0 };

    #[test]
    fn one_may_have_a_good_part_and_thousands_leave_some() {
        assert_eq!(Pool { whole: WHOLE, free: WHOLE }.share(STILL), WHOLE);
        assert!(Pool { whole: WHOLE, free: WHOLE / 4 * 3 }.share(STILL) > 16 << 20);
        for max in [256 << 10, 16 << 20] {
            assert!(after(256, max) > 6 << 20, "{}", after(256, max));
            assert!(after(1000, max) > 4 << 20, "{}", after(1000, max));
            assert!(after(4000, max) > 5 << 19, "{}", after(4000, max));
        }
    }

    #[test]
    fn who_moves_has_more_and_nobody_has_nothing() {
        let pool = Pool { whole: WHOLE, free: 3 << 20 };
        let moving = |last, taken| pool.share(Motion { taken, last });
        assert!(pool.share(STILL) < 1000);
        assert_eq!(moving(5000, 1 << 30), 10_000);
        assert_eq!(moving(5000, 32_000), 2000);
        assert_eq!(moving(1 << 30, 1 << 40), (3 << 20) / MOVING_PARTS);
        assert_eq!(Pool { whole: WHOLE, free: 0 }.share(Motion { taken: 1 << 20, last: 1 << 20 }), SHARE_MIN);
        assert_eq!(Pool { whole: 0, free: 0 }.share(STILL), SHARE_MIN);
    }
}
