//! Judges if a path loses packets all the time, as radio links do without a full queue.
//!
//! Full queues lose packets too. There the carrier sends less after a loss, and several rounds pass before the next one.

use crate::link::wire::ids::Time;

/// The rounds of a path with losses, and those without.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::link) struct Losses {
    /// Start of this round, and the packets that the carrier had sent again until then.
    round: (Time, u64),
    /// Points: four more for a round with a loss, and one less for a round without.
    score: u8,
    are_steady: bool,
}

impl Losses {
    /// Notes the number of packets that the carrier has sent again until now. Once in each round trip it is judged.
    pub(in crate::link) fn note(&mut self, now: Time, resent: u64, round_us: u64) {
        let (since, before) = self.round;
        let (elapsed_us, round_us) = (now.since(since), round_us.max(ROUND_US_MIN));
        if elapsed_us < round_us {
            return;
        }
        self.pass(now, resent);
        let rounds = u8::try_from(elapsed_us / round_us).unwrap_or(u8::MAX);
        self.score =
            if resent > before { (self.score + GAIN).min(SCORE_MAX) } else { self.score.saturating_sub(rounds) };
        self.are_steady = self.score >= SCORE_BEGIN || self.are_steady && self.score > SCORE_END;
    }

    /// Passes over this round: its losses say nothing about the path.
    pub(in crate::link) fn pass(&mut self, now: Time, resent: u64) {
        self.round = (now, resent);
    }

    /// Returns true if the path has lost packets in more than a fifth of its rounds for a while.
    pub(in crate::link) fn are_steady(&self) -> bool {
        self.are_steady
    }
}

/// Minimum length of a round, in which several packets leave on a slow path.
const ROUND_US_MIN: u64 = 20_000;
/// Points of a round with a loss.
const GAIN: u8 = 4;
/// The points from which on losses are steady, and at which they are so no more.
const SCORE_BEGIN: u8 = 24;
const SCORE_END: u8 = 4;
const SCORE_MAX: u8 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges rounds of this length, each with a loss if `loses` says so.
    fn judged(losses: &mut Losses, round_us: u64, rounds: u64, loses: impl Fn(u64) -> bool) -> bool {
        let (mut now, mut resent) = losses.round;
        for n in 0..rounds {
            resent += u64::from(loses(n));
            now = now.after(round_us);
            losses.note(now, resent, round_us);
            // More samples of the same round change nothing.
            losses.note(now.after(1_000), resent + 1_000, round_us);
        }
        losses.are_steady()
    }

    #[test]
    fn losses_are_steady_in_more_than_a_fifth_of_all_rounds() {
        for (lossy, are_steady) in [(0, false), (1, false), (2, false), (3, true), (10, true)] {
            assert_eq!(judged(&mut Losses::default(), 30_000, 400, |n| n % 10 < lossy), are_steady, "{lossy} of ten");
        }
    }

    #[test]
    fn a_burst_of_losses_is_not_steady() {
        let mut losses = Losses::default();
        assert!(!judged(&mut losses, 100_000, 5, |_| true));
        assert!(judged(&mut losses, 100_000, 1, |_| true), "six rounds in turn are no burst");
    }

    #[test]
    fn steady_losses_end_after_many_rounds_without_one() {
        let mut losses = Losses::default();
        assert!(judged(&mut losses, 100_000, 20, |_| true));
        assert!(judged(&mut losses, 100_000, 27, |_| false));
        assert!(!judged(&mut losses, 100_000, 1, |_| false));
        let (now, resent) = losses.round;
        assert!(judged(&mut losses, 100_000, 20, |_| true));
        losses.note(now.after(60_000_000), resent + 20, 100_000);
        assert!(!losses.are_steady(), "or after a long time without a sample");
    }

    #[test]
    fn a_count_that_falls_is_no_loss_and_rounds_are_passed_over() {
        let mut losses = Losses::default();
        (1..60).for_each(|n| losses.note(Time::from_us(100_000 * n), 1_000 - n, 100_000));
        assert!(!losses.are_steady());
        (60..120).for_each(|n| losses.pass(Time::from_us(100_000 * n), 1_000 + n));
        losses.note(Time::from_us(12_000_000), 1_119, 100_000);
        assert_eq!(losses.score, 0);
    }

    /// Samples of a short path come in each of its round trips, and so many of them together make a round.
    #[test]
    fn rounds_of_a_short_path_are_20_ms() {
        let mut losses = Losses::default();
        (1..=400).for_each(|n| losses.note(Time::from_us(5_000 * n), n / 24, 1_000));
        assert!(!losses.are_steady(), "a loss in each sixth round");
        (1..=400).for_each(|n| losses.note(Time::from_us(2_000_000 + 5_000 * n), 17 + n / 12, 1_000));
        assert!(losses.are_steady(), "a loss in each third");
    }
}
