//! Random peers, checked by an oracle. Each connection has two peers with random lists of actions. The received bytes
//! must be a prefix of the sent bytes, and all of them if both ends closed in order. At the end the loop must hold no
//! resources.
//!
//! The seed is printed; `SEAPROX_SEED=N` repeats a run.

use crate::loop_kit;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::Instant;

use loop_kit::*;
use seaprox::{Answer, Config, Connector, Stage, Target};

#[derive(Clone, Copy, Debug)]
enum Action {
    Send(usize),
    Fin,
    Rst,
    Pause(usize),
    Read,
    StopReading,
}

/// One peer, its remaining actions, and the counts of its bytes.
struct Actor {
    peer: Option<Peer>,
    actions: VecDeque<Action>,
    /// The start of its bytes in the common pattern.
    salt: usize,
    sent: usize,
    received: usize,
    reading: bool,
    finished: bool,
    was_reset: bool,
    end: Option<End>,
}

impl Actor {
    fn new(random: &mut Random, peer: Peer) -> Actor {
        let mut actions = VecDeque::new();
        for _ in 0..random.below(8) {
            let size_bits = random.below(19);
            actions.push_back(match random.below(8) {
                0..3 => Action::Send(1 + random.below(1 << size_bits)),
                3 => Action::Pause(random.below(20)),
                4 => Action::StopReading,
                5 => Action::Read,
                6 if random.below(6) == 0 => Action::Rst,
                _ => Action::Pause(1),
            });
        }
        let tail = if random.below(2) == 0 { [Action::Read, Action::Fin] } else { [Action::Fin, Action::Read] };
        actions.extend(tail);
        let salt = random.below(1 << 16);
        let (sent, received, reading) = (0, 0, random.below(3) > 0);
        Actor { peer: Some(peer), actions, salt, sent, received, reading, finished: false, was_reset: false, end: None }
    }

    /// Returns true if it has no more actions and its input has ended.
    fn is_done(&self) -> bool {
        self.peer.is_none() || self.actions.is_empty() && self.end.is_some()
    }

    fn act(&mut self, pattern: &[u8]) {
        let Some(peer) = &mut self.peer else { return };
        match self.actions.front_mut() {
            Some(Action::Send(left)) => {
                let start = (self.salt + self.sent) % (pattern.len() / 2);
                let count = (*left).min(pattern.len() / 2);
                match peer.socket.write(&pattern[start..start + count]) {
                    Ok(put) => {
                        self.sent += put;
                        *left -= put;
                        if *left > 0 {
                            return;
                        }
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                    // The system reports the error only once. A later read would return 0, as at an orderly end.
                    Err(_) => return self.broken(),
                }
            }
            Some(Action::Pause(left)) if *left > 0 => {
                *left -= 1;
                return;
            }
            Some(Action::Fin) => {
                self.finished = peer.socket.shutdown(std::net::Shutdown::Write).is_ok();
            }
            Some(Action::Read) => self.reading = true,
            Some(Action::StopReading) => self.reading = false,
            Some(Action::Rst) => {
                self.actions.clear();
                self.was_reset = true;
                return self.peer.take().unwrap().reset();
            }
            _ => {}
        }
        self.actions.pop_front();
    }

    /// Reads available bytes. Returns false if they differ from the other peer's pattern.
    fn read(&mut self, pattern: &[u8], other_salt: usize) -> bool {
        let (Some(peer), true, None) = (&mut self.peer, self.reading, self.end) else { return true };
        let mut buf = [0; 20_000];
        match peer.socket.read(&mut buf) {
            Ok(0) => self.end = Some(End::Fin),
            Ok(got) => {
                let mut same = true;
                for (n, byte) in buf[..got].iter().enumerate() {
                    same &= *byte == pattern[(other_salt + self.received + n) % (pattern.len() / 2)];
                }
                self.received += got;
                return same;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => self.broken(),
        }
        true
    }

    fn broken(&mut self) {
        (self.end, self.peer) = (Some(End::Reset), None);
        self.actions.clear();
    }
}

impl std::fmt::Debug for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Actor { sent, received, finished, was_reset, end, .. } = self;
        write!(f, "[sent {sent}, finished {finished}, reset {was_reset}, received {received}, end {end:?}]")
    }
}

/// Checks one direction between two peers that are done.
fn judge(from: &Actor, to: &Actor, kinds: [Kind; 2], orderly: bool) {
    assert!(to.received <= from.sent, "more arrived than was sent: {from:?} -> {to:?}");
    if orderly {
        assert_eq!((to.end, to.received), (Some(End::Fin), from.sent), "both ends must be orderly: {from:?} -> {to:?}");
    } else if to.end == Some(End::Fin) && !kinds.contains(&Kind::Unix) {
        assert!(from.finished && to.received == from.sent, "a cut was taken for an orderly end: {from:?} -> {to:?}");
    }
}

/// A connector that makes every dest from a socket pair of a random type and keeps the other end for the test.
struct Pairs(Rc<RefCell<HashMap<u16, Peer>>>, Rc<RefCell<Vec<Kind>>>);

impl Connector for Pairs {
    fn wants(&self, _: &Target) -> bool {
        true
    }
    fn connect(&mut self, target: &Target, answer: Answer) {
        let port = target.port().unwrap();
        let (peer, ours) = pair(self.1.borrow()[usize::from(port) - 1]);
        self.0.borrow_mut().insert(port, peer);
        answer.connected(ours);
    }
}

/// Returns limits of which some are tight, different in each run.
fn random_config(random: &mut Random, splice: bool) -> Config {
    let mut config = config();
    let limits = &mut config.limits;
    limits.pipes = if splice { [1, 3, 64][random.below(3)] } else { 0 };
    limits.block_bytes = [2048, 4096, 32 << 10][random.below(3)];
    limits.buffer_bytes = limits.block_bytes * [3, 20, 1000][random.below(3)];
    limits.relay_bytes_per_turn = [4096, 100_000, 1 << 20][random.below(3)];
    limits.events_per_turn = [2, 16, 1024][random.below(3)];
    limits.mails_per_turn = [1, 1024][random.below(2)];
    config
}

const CONNECTIONS: usize = 40;

fn run(seed: u64, splice: bool, pattern: &[u8]) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let before = descriptors();
    let mut rig = Rig::new(random_config(&mut random, splice));
    let own = descriptors() - before;
    let (dests, kinds) = (Rc::default(), Rc::default());
    rig.core().set_connector(Box::new(Pairs(Rc::clone(&dests), Rc::clone(&kinds))));
    let mut sources = Vec::new();
    for number in 1..=CONNECTIONS as u16 {
        let kind = KINDS[random.below(3)];
        kinds.borrow_mut().push(KINDS[random.below(3)]);
        let target = Target::parse(&format!("n:{number}")).unwrap();
        sources.push((kind, rig.adopt(kind, relay_to(target)).1));
    }
    rig.until("all connections relay", |proxy| {
        proxy.core().snapshot().connections.iter().all(|status| status.stage == Stage::Established)
    });
    let mut flows = Vec::new();
    for (number, (kind, peer)) in (1..).zip(sources) {
        let source = Actor::new(&mut random, peer);
        let dest = Actor::new(&mut random, dests.borrow_mut().remove(&number).unwrap());
        flows.push(([kind, kinds.borrow()[usize::from(number) - 1]], source, dest));
    }
    rig.until("all peers are done", |_| {
        for (_, source, dest) in &mut flows {
            source.act(pattern);
            dest.act(pattern);
            assert!(source.read(pattern, dest.salt) && dest.read(pattern, source.salt), "a wrong byte");
        }
        flows.iter().all(|(_, source, dest)| source.is_done() && dest.is_done())
    });
    for (kinds, source, dest) in &flows {
        let orderly =
            !source.was_reset && !dest.was_reset && source.end != Some(End::Reset) && dest.end != Some(End::Reset);
        let provoked = source.was_reset || dest.was_reset;
        assert!(orderly || provoked, "a reset without a cause: {kinds:?}");
        judge(source, dest, *kinds, orderly);
        judge(dest, source, *kinds, orderly);
    }
    drop(flows);
    rig.until_empty();
    let usage = rig.snapshot().usage;
    assert_eq!((usage.sides, usage.buffer_bytes, usage.descriptors), (0, 0, 2 * usage.pipes));
    assert_eq!(descriptors(), before + own + 2 * usage.pipes, "descriptors have leaked");
    assert_eq!(rig.stats().closed_total(), CONNECTIONS as u64);
    drop(rig);
    assert_eq!(descriptors(), before);
}

#[test]
fn random_peers_receive_all_sent_bytes_and_leave_no_resources() {
    with_own_descriptors(run_seeds);
}

fn run_seeds() {
    let once = pattern(1 << 17);
    let twice = [once.clone(), once].concat();
    let given = std::env::var("SEAPROX_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let first = given.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
    });
    let (since, splices) = (Instant::now(), config().limits.pipes > 0);
    for seed in first..first + if given.is_some() { 1 } else { 20 } {
        for splice in [false, true] {
            if !splice || splices {
                println!("SEAPROX_SEED={seed} splice={splice}");
                run(seed, splice, &twice);
            }
        }
        if since.elapsed().as_secs() >= 8 {
            break;
        }
    }
}
