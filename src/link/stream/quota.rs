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

/// Nobody's share is less.
pub(in crate::link) const QUOTA_MIN: u64 = 256;
/// A stream that moves may have one part in so many of what is free.
const ACTIVE_PARTS: u64 = 64;
/// So many times what it may have must have been taken of it before.
const TRUST: u64 = 16;

/// How a stream moves: nothing at all if it is new, or stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::link) struct ReaderProgress {
    /// Bytes that its reader has taken, ever.
    pub(in crate::link) taken: u64,
    /// Of those, the bytes that the last word of it was about.
    pub(in crate::link) last: u64,
}

/// What is shared, as it stands now.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct SharedBytes {
    pub(in crate::link) whole: u64,
    pub(in crate::link) free: u64,
}

impl SharedBytes {
    /// What a stream may hold in all.
    pub(in crate::link) fn share(self, motion: ReaderProgress) -> u64 {
        let (whole, free) = (u128::from(self.whole.max(1)), u128::from(self.free.min(self.whole)));
        let still = free * free / whole * free / whole * free / whole;
        let still = u64::try_from(still).unwrap_or(u64::MAX);
        let moving = motion.last.saturating_mul(2).min(motion.taken / TRUST).min(self.free / ACTIVE_PARTS);
        still.max(moving).max(QUOTA_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u64 = 64 << 20;

    /// What is free after so many streams have taken their share, at most `max` each, and kept it.
    fn after(streams: usize, max: u64) -> u64 {
        (0..streams).fold(WHOLE, |free, _| free - SharedBytes { whole: WHOLE, free }.share(STILL).min(max))
    }

    const STILL: ReaderProgress = ReaderProgress { taken: 0, last: 0 };

    #[test]
    fn one_may_have_a_good_part_and_thousands_leave_some() {
        assert_eq!(SharedBytes { whole: WHOLE, free: WHOLE }.share(STILL), WHOLE);
        assert!(SharedBytes { whole: WHOLE, free: WHOLE / 4 * 3 }.share(STILL) > 16 << 20);
        for max in [256 << 10, 16 << 20] {
            assert!(after(256, max) > 6 << 20, "{}", after(256, max));
            assert!(after(1000, max) > 4 << 20, "{}", after(1000, max));
            assert!(after(4000, max) > 5 << 19, "{}", after(4000, max));
        }
    }

    #[test]
    fn who_moves_has_more_and_nobody_has_nothing() {
        let pool = SharedBytes { whole: WHOLE, free: 3 << 20 };
        let moving = |last, taken| pool.share(ReaderProgress { taken, last });
        assert!(pool.share(STILL) < 1000);
        assert_eq!(moving(5000, 1 << 30), 10_000);
        assert_eq!(moving(5000, 32_000), 2000);
        assert_eq!(moving(1 << 30, 1 << 40), (3 << 20) / ACTIVE_PARTS);
        assert_eq!(
            SharedBytes { whole: WHOLE, free: 0 }.share(ReaderProgress { taken: 1 << 20, last: 1 << 20 }),
            QUOTA_MIN
        );
        assert_eq!(SharedBytes { whole: 0, free: 0 }.share(STILL), QUOTA_MIN);
    }
}
