//! Detects small messages that compete with a bulk transfer in a session.
//!
//! A small piece alone is no signal, because the last piece of each read of a bulk transfer is small too. A piece
//! counts as a message only if its stream carried little in the last period. While messages and a bulk transfer are
//! both active on a session with one subflow, the bulk transfer takes short turns and a small window; see the node's
//! `window`. Either of them alone has the full rate.

use crate::link::wire::ids::Time;

/// The recent volume of one direction of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::link) struct Pace {
    /// Start of the current period.
    since: Time,
    /// Offset of the stream at that time.
    offset: u64,
}

/// Times of the last message and of the last piece of a bulk transfer in a session.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::link) struct Mix {
    message_at: Option<Time>,
    bulk_at: Option<Time>,
}

impl Pace {
    /// Notes a small piece at `offset`. Returns true if its stream carries little.
    fn is_message(&mut self, now: Time, offset: u64) -> bool {
        let is_sparse = offset.saturating_sub(self.offset) <= PERIOD_BYTES_MAX;
        if now.since(self.since) >= PERIOD_US {
            *self = Pace { since: now, offset };
        }
        is_sparse
    }
}

impl Mix {
    /// Notes a piece of `len` bytes at `offset` of a stream with this pace, in either direction.
    pub(in crate::link) fn note(&mut self, pace: &mut Pace, now: Time, offset: u64, len: u64) {
        if len > MESSAGE_BYTES_MAX {
            if len >= BULK_BYTES_MIN {
                self.bulk_at = Some(now);
            }
        } else if pace.is_message(now, offset) {
            self.message_at = Some(now);
        }
    }

    /// Returns true if messages and a bulk transfer were both active within the last [`MEMORY_US`].
    pub(in crate::link) fn is_mixed(&self, now: Time) -> bool {
        let is_fresh = |at: Option<Time>| at.is_some_and(|at| now.since(at) < MEMORY_US);
        is_fresh(self.message_at) && is_fresh(self.bulk_at)
    }
}

/// Maximum size of a message: a keystroke, a small request or the answer to one.
const MESSAGE_BYTES_MAX: u64 = 2 << 10;
/// Minimum size of a piece of a bulk transfer: half of the largest frame.
const BULK_BYTES_MIN: u64 = 8 << 10;
/// Volume of a period above which a stream is a bulk transfer, whose small pieces are ends of reads.
const PERIOD_BYTES_MAX: u64 = 16 << 10;
const PERIOD_US: u64 = 10_000;
/// Time for which a message and a piece of a bulk transfer are remembered.
const MEMORY_US: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes pieces of these sizes, one round every `every_us`. Returns the number of rounds with a mix.
    fn mixed_rounds(streams: &[&[u64]], every_us: u64) -> usize {
        let (mut mix, mut paces) = (Mix::default(), vec![(Pace::default(), 0); streams.len()]);
        let round = |n: u64| {
            let now = Time::from_us(1_000_000 + n * every_us);
            for (sizes, (pace, offset)) in streams.iter().zip(&mut paces) {
                for len in *sizes {
                    mix.note(pace, now, *offset, *len);
                    *offset += len;
                }
            }
            mix.is_mixed(now)
        };
        (0..1000).map(round).filter(|is_mixed| *is_mixed).count()
    }

    #[test]
    fn messages_beside_bulk_are_a_mix() {
        assert_eq!(mixed_rounds(&[&[64], &[16 << 10, 16 << 10]], 200), 1000);
        assert_eq!(mixed_rounds(&[&[1500], &[16 << 10]], 10_000), 1000);
    }

    #[test]
    fn messages_or_bulk_alone_are_no_mix() {
        assert_eq!(mixed_rounds(&[&[64], &[300], &[2000]], 1000), 0);
        assert_eq!(mixed_rounds(&[&[16 << 10], &[16 << 10]], 200), 0);
    }

    #[test]
    fn short_ends_of_bulk_reads_are_no_messages() {
        // In the first period the stream has carried little so far.
        assert!(mixed_rounds(&[&[16 << 10, 16 << 10, 700]], 200) <= 1);
    }

    #[test]
    fn a_mix_is_forgotten_when_messages_stop() {
        let (mut mix, mut pace) = (Mix::default(), Pace::default());
        mix.note(&mut pace, Time::from_us(1000), 0, 10);
        mix.note(&mut Pace::default(), Time::from_us(1000), 0, 16 << 10);
        assert!(mix.is_mixed(Time::from_us(20_999)));
        mix.note(&mut Pace::default(), Time::from_us(21_000), 0, 16 << 10);
        assert!(!mix.is_mixed(Time::from_us(21_000)));
    }
}
