//! The approvals that peers wait for: requests that their keys do not permit, and that the user may grant on the terminal.
//! The user is asked about one request at a time, and about equal requests of a key once.

use std::collections::VecDeque;

use seaprox::Id;
use seaprox::node::{PeerKey, Request};

/// The requests that wait for the user.
#[derive(Default)]
pub struct Approvals {
    waiting: VecDeque<Approval>,
    /// True while the user is asked about the first request.
    is_asked: bool,
}

/// A request of a peer, and the connections that wait for the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Approval {
    /// The key of the peer.
    pub key: PeerKey,
    /// The target or the listener that the peer asks for.
    pub request: Request,
    /// The waiting connections. Invariant: at most `CONNECTIONS_MAX`.
    pub connections: VecDeque<Id>,
}

impl Approvals {
    /// Adds a request. A request beyond the limits is dropped; its connection ends when its timer fires.
    pub fn add(&mut self, key: PeerKey, request: Request, connection: Option<Id>) {
        let of_key = self.waiting.iter().filter(|approval| approval.key == key).count();
        let is_full = self.waiting.len() >= APPROVALS_MAX || of_key >= APPROVALS_PER_KEY;
        match self.waiting.iter_mut().find(|approval| approval.key == key && approval.request == request) {
            Some(same) => {
                same.connections.extend(connection);
                if same.connections.len() > CONNECTIONS_MAX {
                    // Only the last few connections still wait: a link has a limit of waiting ones.
                    same.connections.pop_front();
                }
            }
            None if is_full => {}
            None => {
                let connections = connection.into_iter().collect();
                self.waiting.push_back(Approval { key, request, connections });
            }
        }
    }

    /// Returns the next request to ask about. Returns none if the user is being asked, or if no request waits.
    pub fn next(&mut self) -> Option<&Approval> {
        if std::mem::replace(&mut self.is_asked, !self.waiting.is_empty()) { None } else { self.waiting.front() }
    }

    /// Removes and returns the request that the user has answered.
    pub fn answered(&mut self) -> Option<Approval> {
        if std::mem::take(&mut self.is_asked) { self.waiting.pop_front() } else { None }
    }
}

const APPROVALS_MAX: usize = 64;
const APPROVALS_PER_KEY: usize = 16;
/// Connections that are told the answer to one request. Older ones have ended while the user did not answer.
const CONNECTIONS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_is_asked_once_and_in_its_turn() {
        let mut approvals = Approvals::default();
        let request = |text: &str| Request::Open(seaprox::Target::parse(text).unwrap());
        let id = |number: u64| Id::from_u64(number << 32 | 1 << 28);
        assert!(approvals.next().is_none() && approvals.answered().is_none());
        approvals.add([1; 32], request("db:1"), id(1));
        approvals.add([1; 32], request("db:2"), id(2));
        approvals.add([1; 32], request("db:1"), id(3));
        approvals.add([2; 32], request("db:1"), None);
        assert_eq!(approvals.next().unwrap().request, request("db:1"));
        assert!(approvals.next().is_none(), "one at a time");
        assert_eq!(approvals.answered().unwrap().connections, [id(1).unwrap(), id(3).unwrap()]);
        assert_eq!(approvals.next().unwrap().request, request("db:2"));
        approvals.answered();
        assert_eq!(approvals.next().unwrap().key, [2; 32]);
        approvals.answered();
        assert!(approvals.next().is_none());
    }

    #[test]
    fn the_queue_is_bounded_and_one_peer_leaves_room_for_others() {
        let mut approvals = Approvals::default();
        let request = |port: u32| Request::Open(seaprox::Target::parse(&format!("db:{}", port + 1)).unwrap());
        let of = |approvals: &Approvals, key: PeerKey| approvals.waiting.iter().filter(|it| it.key == key).count();
        (0..1000).for_each(|port| approvals.add([1; 32], request(port), None));
        assert_eq!(of(&approvals, [1; 32]), APPROVALS_PER_KEY);
        (2..100).for_each(|key| approvals.add([key; 32], request(0), None));
        assert_eq!((of(&approvals, [2; 32]), approvals.waiting.len()), (1, APPROVALS_MAX));
        // A peer repeats its request while the user does not answer.
        let ids = |range: std::ops::Range<u64>| range.filter_map(|number| Id::from_u64(number << 32 | 1 << 28));
        ids(1..10_000).for_each(|id| approvals.add([1; 32], request(0), Some(id)));
        assert!(approvals.waiting[0].connections.iter().copied().eq(ids(10_000 - CONNECTIONS_MAX as u64..10_000)));
    }
}
