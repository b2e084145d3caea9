//! The quota of a stream: how much it may hold of memory that all streams of a session share.
//!
//! Two things are shared: the peer's memory, as the session's credit, and the send limit of this end (S). A stream
//! whose reader has stopped keeps what it holds, perhaps for ever, and nothing can be taken back. So each stream may
//! take only a part of the free bytes, and the part must shrink faster than the free bytes do: otherwise a few hundred
//! such streams leave nothing for the others. Switches share buffer memory in this way (dynamic thresholds), with a
//! quota in proportion to the free bytes. Here it is in proportion to their fourth power, because a single stream may
//! need a quarter of the whole: with n stalled streams `whole / (1 + 3 n)^(1/3)` stays free, which is 6 % with a
//! thousand streams and 4 % with four thousand.
//!
//! Such a small quota would slow down active streams. A stream whose reader takes bytes may therefore hold twice what
//! the reader took last, up to a 64th of the free bytes and a 16th of all that it ever took; most streams that stop do
//! so early. So an active stream stays active, and many of them fill a path together, whatever stalled streams hold.

/// Minimum quota in bytes.
pub(in crate::link) const QUOTA_MIN: u64 = 256;
/// An active stream may hold one part in this many of the free bytes.
const ACTIVE_PARTS: u64 = 64;
/// The reader of an active stream must have taken this many times its quota.
const TRUST: u64 = 16;

/// The progress of a stream's reader; zero if the stream is new or stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::link) struct ReaderProgress {
    /// Bytes that the reader has taken in all.
    pub(in crate::link) taken: u64,
    /// Bytes that the reader took according to the last CREDIT.
    pub(in crate::link) last: u64,
}

/// Memory that streams share: its size, and the free bytes of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::link) struct SharedBytes {
    pub(in crate::link) whole: u64,
    pub(in crate::link) free: u64,
}

impl SharedBytes {
    /// Returns the quota of a stream.
    pub(in crate::link) fn quota(self, reader: ReaderProgress) -> u64 {
        let (whole, free) = (self.whole.max(1), self.free.min(self.whole));
        let free_part = |bytes: u64| match bytes.checked_mul(free) {
            Some(product) => product / whole,
            // Memories of more than 4 GiB are rare, and a division of 128 bits is slow.
            None => u64::try_from(u128::from(bytes) * u128::from(free) / u128::from(whole)).unwrap_or(u64::MAX),
        };
        let stalled = free_part(free_part(free_part(free)));
        let active = reader.last.saturating_mul(2).min(reader.taken / TRUST).min(self.free / ACTIVE_PARTS);
        stalled.max(active).max(QUOTA_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: u64 = 64 << 20;

    /// Returns the free bytes after `streams` streams have taken and kept their quota, at most `max` each.
    fn after(streams: usize, max: u64) -> u64 {
        (0..streams).fold(WHOLE, |free, _| free - SharedBytes { whole: WHOLE, free }.quota(STALLED).min(max))
    }

    const STALLED: ReaderProgress = ReaderProgress { taken: 0, last: 0 };

    #[test]
    fn one_stream_may_hold_much_and_thousands_leave_some() {
        assert_eq!(SharedBytes { whole: WHOLE, free: WHOLE }.quota(STALLED), WHOLE);
        assert!(SharedBytes { whole: WHOLE, free: WHOLE / 4 * 3 }.quota(STALLED) > 16 << 20);
        for max in [256 << 10, 16 << 20] {
            assert!(after(256, max) > 6 << 20, "{}", after(256, max));
            assert!(after(1000, max) > 4 << 20, "{}", after(1000, max));
            assert!(after(4000, max) > 5 << 19, "{}", after(4000, max));
        }
    }

    #[test]
    fn an_active_stream_has_a_larger_quota_and_no_quota_is_zero() {
        let shared = SharedBytes { whole: WHOLE, free: 3 << 20 };
        let active = |last, taken| shared.quota(ReaderProgress { taken, last });
        assert!(shared.quota(STALLED) < 1000);
        assert_eq!(active(5000, 1 << 30), 10_000);
        assert_eq!(active(5000, 32_000), 2000);
        assert_eq!(active(1 << 30, 1 << 40), (3 << 20) / ACTIVE_PARTS);
        assert_eq!(
            SharedBytes { whole: WHOLE, free: 0 }.quota(ReaderProgress { taken: 1 << 20, last: 1 << 20 }),
            QUOTA_MIN
        );
        assert_eq!(SharedBytes { whole: 0, free: 0 }.quota(STALLED), QUOTA_MIN);
    }

    #[test]
    fn the_part_of_a_large_memory_is_that_of_a_small_one() {
        let quota = |whole, free| SharedBytes { whole, free }.quota(STALLED);
        let small = quota(1 << 20, 3 << 18);
        assert_eq!(small, (1 << 20) * 81 / 256);
        assert_eq!(quota(1 << 40, 3 << 38), small << 20, "the product has more than 64 bits");
        assert_eq!(quota(u64::MAX, u64::MAX), u64::MAX);
    }
}
