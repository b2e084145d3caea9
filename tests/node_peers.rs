//! What one peer may use of what all share: its part of a turn, its streams that come to nothing, its connections, and its
//! lines of the log. The peer is one that keeps to no rule (`hostile_kit`); the node is the real one.

mod hostile_kit;
mod node_kit;
#[path = "../src/tls/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use a part of it")]
mod tls;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hostile_kit::{RawLink, encode};
use node_kit::{Node, until};
use seaprox::link::frame::Frame;
use seaprox::link::{Host, Open};
use seaprox::{Core, Remote};

/// OPENs, LISTENs and RESETs of one key that are acted on in one turn at most.
const REQUESTS_PER_TURN: u64 = 64;

/// Notes in each turn of a loop what it has counted so far.
struct Turns {
    counts: Arc<Mutex<Vec<(u64, u64)>>>,
    over: Arc<AtomicBool>,
}

impl Turns {
    fn watch(node: &Node, count: fn(&Core) -> u64) -> Turns {
        let turns = Turns { counts: Arc::default(), over: Arc::default() };
        note(node.remote.clone(), Arc::clone(&turns.counts), Arc::clone(&turns.over), count);
        turns
    }

    /// Waits until so many have been counted. Returns the most that one turn counted.
    #[track_caller]
    fn most_of(self, total: u64) -> u64 {
        let first = || self.counts.lock().unwrap().first().map_or(0, |(_, count)| *count);
        let last = || self.counts.lock().unwrap().last().map_or(0, |(_, count)| *count);
        until("all of them were acted on", || last() - first() >= total);
        self.over.store(true, Ordering::Relaxed);
        let counts = self.counts.lock().unwrap();
        let each = counts.windows(2).map(|pair| {
            let [(turn, count), (next_turn, next_count)] = pair else { unreachable!("a pair") };
            (next_count - count).div_ceil((next_turn - turn).max(1))
        });
        each.max().unwrap_or(0)
    }
}

/// A call in the loop that asks for itself again: it runs once in each turn.
fn note(remote: Remote, counts: Arc<Mutex<Vec<(u64, u64)>>>, over: Arc<AtomicBool>, count: fn(&Core) -> u64) {
    let again = remote.clone();
    // A loop that has ended needs no watching.
    let _ = remote.call(move |core| {
        counts.lock().unwrap().push((core.stats().turns, count(core)));
        if !over.load(Ordering::Relaxed) {
            note(again, counts, over, count);
        }
    });
}

fn to_nowhere() -> Open {
    Open { host: Host::Addr([127, 0, 0, 1].into()), port: 9, ..Open::default() }
}

#[test]
fn a_flood_of_opens_is_acted_on_a_few_in_each_turn() {
    let node = Node::start();
    node.policy.opens.store(false, Ordering::Relaxed);
    let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
    let turns = Turns::watch(&node, |core| core.stats().streams_refused);
    let frames: Vec<u8> =
        (1..=3000).flat_map(|number| encode(&Frame::Open { id: 2 * number, open: to_nowhere() })).collect();
    link.send_raw(&frames).unwrap();
    let most = turns.most_of(3000);
    assert!(most <= REQUESTS_PER_TURN, "{most} in one turn");
}
