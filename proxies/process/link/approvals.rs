//! What peers ask for that their keys do not permit, while somebody is there to be asked: one question at a time, and the
//! same one once, however many wait for its answer.

use std::collections::VecDeque;

use seaprox::Id;
use seaprox::node::{PeerKey, Request};

/// What is to be asked.
#[derive(Default)]
pub struct Questions {
    waiting: VecDeque<Question>,
    /// Whether the first one has been asked.
    is_asked: bool,
}

/// A request of a peer, and the connections that wait for what becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose request it is.
    pub key: PeerKey,
    /// What it asks for.
    pub request: Request,
    /// What waits. Invariant: at most `CONNECTIONS_MAX`.
    pub connections: VecDeque<Id>,
}

impl Questions {
    /// A peer has asked for something. A question too many is not asked, and one peer leaves room for the others; the
    /// connection has its time, and ends.
    pub fn add(&mut self, key: PeerKey, request: Request, connection: Option<Id>) {
        let of_key = self.waiting.iter().filter(|question| question.key == key).count();
        let is_full = self.waiting.len() >= QUESTIONS_MAX || of_key >= QUESTIONS_PER_KEY;
        match self.waiting.iter_mut().find(|question| question.key == key && question.request == request) {
            Some(same) => {
                same.connections.extend(connection);
                if same.connections.len() > CONNECTIONS_MAX {
                    // Those who wait have come last: a link has only a few that do.
                    same.connections.pop_front();
                }
            }
            None if is_full => {}
            None => {
                let connections = connection.into_iter().collect();
                self.waiting.push_back(Question { key, request, connections });
            }
        }
    }

    /// The next question, unless one is being asked.
    pub fn ask(&mut self) -> Option<&Question> {
        if std::mem::replace(&mut self.is_asked, !self.waiting.is_empty()) { None } else { self.waiting.front() }
    }

    /// There is an answer to the one that was asked.
    pub fn answer(&mut self) -> Option<Question> {
        if std::mem::take(&mut self.is_asked) { self.waiting.pop_front() } else { None }
    }
}

/// Questions that wait for their turn.
const QUESTIONS_MAX: usize = 64;
/// Those of them that are about one peer.
const QUESTIONS_PER_KEY: usize = 16;
/// Connections that are told of an answer. More may have come, and left again, while nobody answered.
const CONNECTIONS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_asked_once_and_in_its_turn() {
        let mut questions = Questions::default();
        let request = |text: &str| Request::Open(seaprox::Target::parse(text).unwrap());
        let id = |number: u64| Id::from_u64(number << 32);
        assert!(questions.ask().is_none() && questions.answer().is_none());
        questions.add([1; 32], request("db:1"), id(1));
        questions.add([1; 32], request("db:2"), id(2));
        questions.add([1; 32], request("db:1"), id(3));
        questions.add([2; 32], request("db:1"), None);
        assert_eq!(questions.ask().unwrap().request, request("db:1"));
        assert!(questions.ask().is_none(), "one at a time");
        assert_eq!(questions.answer().unwrap().connections, [id(1).unwrap(), id(3).unwrap()]);
        assert_eq!(questions.ask().unwrap().request, request("db:2"));
        questions.answer();
        assert_eq!(questions.ask().unwrap().key, [2; 32]);
        questions.answer();
        assert!(questions.ask().is_none());
    }

    #[test]
    fn what_waits_is_bounded_and_one_peer_leaves_room_for_others() {
        let mut questions = Questions::default();
        let request = |port: u32| Request::Open(seaprox::Target::parse(&format!("db:{}", port + 1)).unwrap());
        let of = |questions: &Questions, key: PeerKey| questions.waiting.iter().filter(|q| q.key == key).count();
        (0..1000).for_each(|port| questions.add([1; 32], request(port), None));
        assert_eq!(of(&questions, [1; 32]), QUESTIONS_PER_KEY);
        (2..100).for_each(|key| questions.add([key; 32], request(0), None));
        assert_eq!((of(&questions, [2; 32]), questions.waiting.len()), (1, QUESTIONS_MAX));
        // A peer that asks again and again while nobody answers.
        let ids = |range: std::ops::Range<u64>| range.filter_map(|number| Id::from_u64(number << 32));
        ids(1..10_000).for_each(|id| questions.add([1; 32], request(0), Some(id)));
        assert!(questions.waiting[0].connections.iter().copied().eq(ids(10_000 - CONNECTIONS_MAX as u64..10_000)));
    }
}
