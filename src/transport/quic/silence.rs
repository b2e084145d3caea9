//! The silence of a peer: the time in which it has acknowledged nothing, although something was sent to it.
//!
//! A peer that stays silent is asked again and again. QUIC itself sends again after pauses that double, so after a few seconds
//! without a network it would notice late that the network is back.

use std::time::{Duration, Instant};

/// The silence of the peer of one connection.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Acknowledgements that have come, and frames to be acknowledged that were sent, until now.
    acks: u64,
    sent: u64,
    /// Its start.
    since: Option<Instant>,
    /// The time of the last question.
    asked: Option<Instant>,
}

impl Silence {
    /// Notes the acknowledgements that have come, and the frames to be acknowledged that were sent.
    pub(super) fn note(&mut self, now: Instant, acks: u64, sent: u64) {
        if acks != self.acks {
            (self.since, self.asked) = (None, None);
        }
        if sent != self.sent {
            self.since.get_or_insert(now);
        }
        (self.acks, self.sent) = (acks, sent);
    }

    /// Returns true if it has lasted for longer than a peer and a path take whose round trip is this long.
    pub(super) fn is_long(&self, now: Instant, round: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) > 2 * round + PATIENCE)
    }

    /// Returns the time of the next question to the peer.
    pub(super) fn ask_at(&self, round: Duration) -> Option<Instant> {
        self.asked.map(|asked| asked + ASK_PAUSE_MIN.max(round)).or_else(|| Some(self.since? + 2 * round + PATIENCE))
    }

    /// Notes a question.
    pub(super) fn on_asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }
}

/// The time for which a peer may be busy, as the system has it for TCP.
const PATIENCE: Duration = Duration::from_millis(200);
/// The pause between two questions, the most that a return of the network is noticed late, where a round trip takes no longer.
const ASK_PAUSE_MIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_silent_that_acknowledges_nothing_of_what_was_sent_to_it() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let (round, at) = (Duration::from_millis(50), |ms| start + Duration::from_millis(ms));
        silence.note(at(0), 0, 0);
        assert!(!silence.is_long(at(10_000), round), "nothing was sent");
        silence.note(at(10_000), 0, 3);
        silence.note(at(10_200), 0, 5);
        assert!(!silence.is_long(at(10_300), round));
        assert!(silence.is_long(at(10_301), round), "since the first frame that was sent");
        silence.note(at(10_301), 1, 5);
        assert!(!silence.is_long(at(20_000), round), "acknowledged");
        silence.note(at(20_000), 2, 6);
        assert!(!silence.is_long(at(20_300), round));
        assert!(silence.is_long(at(20_301), round));
    }

    #[test]
    fn a_silent_peer_is_asked_after_pauses_that_stay_the_same() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        let (round, at) = (Duration::from_millis(50), |ms| start + Duration::from_millis(ms));
        assert_eq!(silence.ask_at(round), None, "nothing was sent");
        silence.note(at(1_000), 0, 1);
        assert_eq!(silence.ask_at(round), Some(at(1_300)));
        for count in 0..1_000 {
            let now = at(1_300 + 200 * count);
            assert_eq!(silence.ask_at(round), Some(now));
            silence.on_asked(now);
            silence.note(now, 0, 2 + count);
        }
        assert_eq!(
            silence.ask_at(Duration::from_secs(3)),
            Some(at(1_300 + 200 * 999 + 3_000)),
            "a round trip is longer"
        );
        silence.note(at(300_000), 1, 1_001);
        assert_eq!(silence.ask_at(round), None, "it has answered");
    }
}
