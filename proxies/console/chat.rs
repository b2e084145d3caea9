//! Lines that the users of two nodes send to each other.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use seaprox::Id;

use crate::text::escape;

/// The messages that have arrived, and that no thread has taken yet.
#[derive(Default)]
pub struct Messages(Mutex<State>);

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    rates: HashMap<Id, Rate>,
}

/// A message of a peer.
pub struct Message {
    /// The link.
    pub link: Id,
    /// The text, as the peer has sent it.
    pub text: String,
    /// Messages of the link before this one that were dropped.
    pub num_dropped: u64,
}

/// The rate of a link.
struct Rate {
    /// Messages that may arrive at once.
    credit: f64,
    at: Instant,
    num_dropped: u64,
}

impl Messages {
    /// Takes a message of a link. One that comes too fast is dropped and counted.
    pub fn push(&self, link: Id, text: &str, now: Instant) {
        let mut state = self.lock();
        let is_full = state.queue.len() >= MESSAGES_MAX;
        let rate = state.rates.entry(link).or_insert(Rate { credit: BURST, at: now, num_dropped: 0 });
        rate.credit = (rate.credit + now.saturating_duration_since(rate.at).as_secs_f64() * PER_SECOND).min(BURST);
        rate.at = now;
        if is_full || rate.credit < 1.0 {
            rate.num_dropped += 1;
            return;
        }
        rate.credit -= 1.0;
        let num_dropped = std::mem::take(&mut rate.num_dropped);
        state.queue.push_back(Message { link, text: text.to_owned(), num_dropped });
    }

    /// Forgets the rate of a link that has ended.
    pub fn forget(&self, link: Id) {
        self.lock().rates.remove(&link);
    }

    /// Takes all messages.
    pub fn take(&self) -> VecDeque<Message> {
        std::mem::take(&mut self.lock().queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the text as one line of at most [`SHOWN_MAX`] characters, with its control characters escaped.
pub fn harmless(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    escape(&shown).into_owned()
}

/// Returns the line of a message: the time of day, the name of the peer, and its text.
pub fn line(time: &str, name: &str, text: &str, num_dropped: u64) -> String {
    let more =
        if num_dropped > 0 { format!(" ({num_dropped} messages before it were dropped)") } else { String::new() };
    format!("[{time}] {}: {}{more}\n", harmless(name), harmless(text))
}

/// Characters of a message that are shown.
const SHOWN_MAX: usize = 1000;
/// Messages that wait for the virtual machine at most.
const MESSAGES_MAX: usize = 256;
/// Messages of one link that may come at once.
const BURST: f64 = 50.0;
/// Messages of one link that may come in a second for ever.
const PER_SECOND: f64 = 10.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn control_characters_of_a_message_are_escaped_and_a_long_one_is_cut() {
        assert_eq!(
            line("12:00:00", "b\x07b", "a\x1b[2J\nb\u{202e}ü", 0),
            "[12:00:00] b\\u{7}b: a\\u{1b}[2J\\nb\\u{202e}ü\n"
        );
        let long = harmless(&"x".repeat(SHOWN_MAX + 1));
        assert!(long.ends_with("x…") && long.chars().count() == SHOWN_MAX + 1);
    }

    #[test]
    fn messages_that_come_too_fast_are_dropped_and_counted() {
        let (messages, link, now) = (Messages::default(), Id::from_u64(1 << 32 | 4 << 28).unwrap(), Instant::now());
        for _ in 0..60 {
            messages.push(link, "x", now);
        }
        assert_eq!(messages.take().len(), BURST as usize);
        messages.push(link, "y", now + Duration::from_secs(1));
        assert_eq!(messages.take().iter().map(|it| it.num_dropped).collect::<Vec<_>>(), [10]);
    }
}
