//! One direction of an emulated path, without a device or a clock of its own: a bounded queue, a transmitter with a rate,
//! and a wire with a delay and a loss. Packets keep their order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rng::Rng;

/// How an emulated path behaves, in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Megabits per second, counted in IP bytes.
    pub mbit: f64,
    /// From the end of a packet's transmission to its arrival.
    pub delay: Duration,
    /// How much may wait for transmission; what does not fit is dropped.
    pub queue: Queue,
    /// How many packets get lost on the wire, of one.
    pub loss: f64,
    /// The largest packet of both directions. Only what it is at first counts.
    pub mtu: u32,
    /// Which packets get lost. Only what it is at first counts.
    pub seed: u64,
}

/// The limit of a queue.
#[derive(Clone, Copy, Debug)]
pub enum Queue {
    Bytes(usize),
    /// As much as the rate transmits in this time, but never less than two packets.
    Time(Duration),
}

impl Default for Link {
    /// As fast as it goes, without delay or loss, and a queue of 100 ms.
    fn default() -> Link {
        let queue = Queue::Time(Duration::from_millis(100));
        Link { mbit: f64::INFINITY, delay: Duration::ZERO, queue, loss: 0.0, mtu: 1500, seed: 1 }
    }
}

impl Link {
    fn time_of(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 * 8e-6 / self.mbit.max(MBIT_MIN))
    }

    fn queue_bytes(&self) -> usize {
        match self.queue {
            Queue::Bytes(bytes) => bytes,
            Queue::Time(time) => ((time.as_secs_f64() * self.mbit / 8e-6) as usize).max(2 * self.mtu as usize),
        }
    }
}

/// What is on its way in one direction.
pub struct Pipe {
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// When the transmitter is through with what it has taken from the queue.
    free_at: Instant,
    flying: VecDeque<(Instant, Vec<u8>)>,
    flying_bytes: usize,
    rng: Rng,
}

/// Where a packet went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Queued,
    /// The queue was full.
    Dropped,
}

impl Pipe {
    pub fn new(now: Instant, seed: u64) -> Pipe {
        Pipe {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            free_at: now,
            flying: VecDeque::new(),
            flying_bytes: 0,
            rng: Rng::new(seed),
        }
    }

    /// Takes a packet that has come in.
    pub fn put(&mut self, link: &Link, packet: &[u8]) -> Fate {
        let is_full = self.waiting_bytes + packet.len() > link.queue_bytes() && !self.waiting.is_empty();
        if is_full || self.waiting_bytes + self.flying_bytes + packet.len() > BYTES_MAX {
            return Fate::Dropped;
        }
        self.waiting_bytes += packet.len();
        self.waiting.push_back(packet.to_vec());
        Fate::Queued
    }

    /// Transmits what the rate allows by now; how many packets get lost on the wire.
    pub fn advance(&mut self, link: &Link, now: Instant) -> u64 {
        let mut lost = 0;
        // An idle transmitter begins with what has come since the last look, which is now.
        if self.waiting.is_empty() {
            self.free_at = self.free_at.max(now);
        }
        while self.free_at <= now {
            let Some(packet) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= packet.len();
            self.free_at += link.time_of(packet.len());
            if self.is_lost(link) {
                lost += 1;
                continue;
            }
            // A delay that has become shorter does not let a packet overtake another.
            let last = self.flying.back().map_or(self.free_at, |(due, _)| *due);
            self.flying_bytes += packet.len();
            self.flying.push_back((last.max(self.free_at + link.delay), packet));
        }
        lost
    }

    /// The next packet that has arrived by now, and since when.
    pub fn take(&mut self, now: Instant) -> Option<(Instant, Vec<u8>)> {
        let (due, _) = self.flying.front()?;
        if *due > now {
            return None;
        }
        let arrived = self.flying.pop_front()?;
        self.flying_bytes -= arrived.1.len();
        Some(arrived)
    }

    /// When there is something to do next.
    pub fn next(&self) -> Option<Instant> {
        let transmit = (!self.waiting.is_empty()).then_some(self.free_at);
        let arrive = self.flying.front().map(|(due, _)| *due);
        [transmit, arrive].into_iter().flatten().min()
    }

    fn is_lost(&mut self, link: &Link) -> bool {
        link.loss > 0.0 && (self.rng.next() >> 11) as f64 / ((1_u64 << 53) as f64) < link.loss
    }
}

/// The slowest link that there is.
const MBIT_MIN: f64 = 0.001;

/// What one direction holds at most, whatever its queue, rate and delay are: 10 Gbit/s for 200 ms.
const BYTES_MAX: usize = 256 << 20;
