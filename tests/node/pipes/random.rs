//! Random sends, receives and stalls, with every kind. A failure prints the seed; `PIPES_SEED` runs that one.

use seaprox::pipes::{Pipe, PipeError};

use crate::node_kit::pattern;
use crate::node_kit::pipes::*;

/// A small generator of numbers (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number from 1 to `most`; small ones are as likely as large ones.
    fn size(&mut self, most: usize) -> usize {
        let bits = 1 + self.next() % u64::from(most.ilog2() + 1);
        1 + (self.next() % (1 << bits)) as usize % most
    }
}

/// The state of one direction.
struct Flow {
    seed: u64,
    total: u64,
    sent: u64,
    got: u64,
    /// The sizes of the messages that are on their way, where the pipe keeps them.
    messages: std::collections::VecDeque<usize>,
    ended: bool,
}

impl Flow {
    fn send(&mut self, random: &mut Random, pipe: &mut Any) {
        if self.sent == self.total {
            return pipe.finish().unwrap();
        }
        let most = pipe.send_bytes_max().min(70_000).min((self.total - self.sent) as usize);
        let size = random.size(most);
        let bytes: Vec<u8> = (self.sent..self.sent + size as u64).map(|at| pattern(self.seed, at)).collect();
        match pipe.send(&bytes) {
            Ok(count) => {
                assert!((1..=size).contains(&count));
                self.sent += count as u64;
                if pipe.message_bytes_max().is_some() {
                    assert_eq!(count, size);
                    self.messages.push_back(size);
                }
            }
            Err(error) => assert_eq!(error, PipeError::WouldBlock),
        }
    }

    fn receive(&mut self, random: &mut Random, pipe: &mut Any, buf: &mut [u8]) {
        let room = pipe.message_bytes_max().unwrap_or_else(|| random.size(buf.len()));
        match pipe.receive(&mut buf[..room]) {
            Ok(0) => {
                assert_eq!(self.got, self.total, "a FIN before the last byte");
                self.ended = true;
            }
            Ok(count) => {
                if pipe.message_bytes_max().is_some() {
                    assert_eq!(self.messages.pop_front(), Some(count), "a datagram arrives as it was sent");
                }
                for byte in &buf[..count] {
                    assert_eq!(*byte, pattern(self.seed, self.got), "at {}", self.got);
                    self.got += 1;
                }
            }
            Err(error) => assert_eq!(error, PipeError::WouldBlock),
        }
    }
}

fn run(kinds: &mut Kinds, kind: Kind, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut flows = [1, 2].map(|seed| Flow {
        seed,
        total: random.next() % 1_500_000,
        sent: 0,
        got: 0,
        messages: Default::default(),
        ended: false,
    });
    let [a, b] = kinds.pair(kind);
    let mut ends = Ends::new(a, b);
    let (mut buf, mut patience, mut before) = (vec![0; 70_000], Patience::new(), [(0, 0); 2]);
    // The send and the receive of each end stall by themselves.
    let mut stalls = [0_u64; 4];
    while !(flows.iter().all(|flow| flow.ended) && ends.a.fin_sent() && ends.b.fin_sent()) {
        assert!(!patience.is_over(), "it never ends");
        let bytes = [0, 1].map(|at: usize| (flows[at].sent, flows[at].got));
        if bytes != before {
            before = bytes;
            patience.restart();
        }
        if random.next() & 3 == 0 || stalls.iter().any(|stall| *stall > 0) {
            ends.look();
        }
        for (at, stall) in stalls.iter_mut().enumerate() {
            *stall = if *stall > 0 { *stall - 1 } else { (random.next() % 200).saturating_sub(190) * 8 };
            if *stall > 0 {
                continue;
            }
            let [forth, back] = &mut flows;
            match at {
                0 => forth.send(&mut random, &mut ends.a),
                1 => back.send(&mut random, &mut ends.b),
                2 if !forth.ended => forth.receive(&mut random, &mut ends.b, &mut buf),
                3 if !back.ended => back.receive(&mut random, &mut ends.a, &mut buf),
                _ => {}
            }
        }
    }
    assert_eq!((ends.a.broken(), ends.b.broken()), (None, None));
}

#[test]
fn random_sends_receives_and_stalls_lose_no_byte_with_any_pipe() {
    let given = std::env::var("PIPES_SEED").ok().map(|seed| seed.parse().expect("PIPES_SEED is a number"));
    let first = given.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        since.as_micros() as u64
    });
    let rounds = if given.is_some() { 1 } else { 3 };
    let mut kinds = Kinds::default();
    for kind in Kind::ALL {
        for seed in first..first + rounds {
            println!("{kind:?} PIPES_SEED={seed}"); // Shown if the test fails.
            run(&mut kinds, kind, seed);
        }
    }
}
