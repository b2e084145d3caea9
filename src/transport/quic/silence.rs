//! The silence of a peer: the time in which it has acknowledged nothing, although something was sent to it.

use std::time::{Duration, Instant};

/// The silence of the peer of one connection.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// Acknowledgements that have come, and frames to be acknowledged that were sent, until now.
    acks: u64,
    sent: u64,
    /// Its start.
    since: Option<Instant>,
}

impl Silence {
    /// Notes the acknowledgements that have come, and the frames to be acknowledged that were sent.
    pub(super) fn note(&mut self, now: Instant, acks: u64, sent: u64) {
        if acks != self.acks {
            self.since = None;
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
}

/// The time for which a peer may be busy, as the system has it for TCP.
const PATIENCE: Duration = Duration::from_millis(200);

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
}
