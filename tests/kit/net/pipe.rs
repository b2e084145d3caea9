//! One direction of an emulated path, without a device or a clock of its own: a bounded queue, a transmitter with a
//! rate, and a wire with a delay and a loss. Packets keep their order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::rng::Rng;

/// How an emulated path behaves, in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// The rate in megabits per second, counted in IP bytes. At 0 the packets wait.
    pub mbit: f64,
    /// The time from the end of a packet's transmission to its arrival.
    pub delay: Duration,
    /// The limit of the queue for transmission; packets beyond it are dropped.
    pub queue: Queue,
    /// The probability that a packet gets lost on the wire.
    pub loss: f64,
    /// The largest packet of both directions, in bytes. A later change has no effect.
    pub mtu: u32,
    /// The seed of the random numbers that select the lost packets. A later change has no effect.
    pub seed: u64,
}

/// The limit of a queue.
#[derive(Clone, Copy, Debug)]
pub enum Queue {
    Bytes(usize),
    /// As much as the rate transmits in this time, but at least two packets.
    Time(Duration),
}

impl Default for Link {
    /// The highest rate, without delay or loss, with a queue of 100 ms.
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

/// The packets on their way in one direction.
pub struct Pipe {
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// The time when the transmitter will have sent the packets that it has taken from the queue.
    free_at: Instant,
    /// The rate was 0 at the last call.
    is_held: bool,
    flying: VecDeque<(Instant, Vec<u8>)>,
    flying_bytes: usize,
    rng: Rng,
}

/// The fate of a packet at the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Queued,
    /// Dropped, because the queue was full.
    Dropped,
}

impl Pipe {
    pub fn new(now: Instant, seed: u64) -> Pipe {
        Pipe {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            free_at: now,
            is_held: false,
            flying: VecDeque::new(),
            flying_bytes: 0,
            rng: Rng::new(seed),
        }
    }

    /// Queues a packet.
    pub fn put(&mut self, link: &Link, packet: &[u8]) -> Fate {
        let is_full = self.waiting_bytes + packet.len() > link.queue_bytes() && !self.waiting.is_empty();
        if is_full || self.waiting_bytes + self.flying_bytes + packet.len() > BYTES_MAX {
            return Fate::Dropped;
        }
        self.waiting_bytes += packet.len();
        self.waiting.push_back(packet.to_vec());
        Fate::Queued
    }

    /// Transmits as much as the rate allows until now, and returns the number of packets lost on the wire.
    pub fn advance(&mut self, link: &Link, now: Instant) -> u64 {
        let mut lost = 0;
        // A transmitter that was idle or held begins now with the packets that have come since the last call.
        if self.waiting.is_empty() || self.is_held {
            self.free_at = self.free_at.max(now);
        }
        self.is_held = link.mbit == 0.0;
        while self.free_at <= now && !self.is_held {
            let Some(packet) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= packet.len();
            self.free_at += link.time_of(packet.len());
            if self.is_lost(link) {
                lost += 1;
                continue;
            }
            // A shorter delay does not let a packet overtake an earlier one.
            let last = self.flying.back().map_or(self.free_at, |(due, _)| *due);
            self.flying_bytes += packet.len();
            self.flying.push_back((last.max(self.free_at + link.delay), packet));
        }
        lost
    }

    /// Returns the next packet that has arrived by now, and the time of its arrival.
    pub fn take(&mut self, now: Instant) -> Option<(Instant, Vec<u8>)> {
        let (due, _) = self.flying.front()?;
        if *due > now {
            return None;
        }
        let arrived = self.flying.pop_front()?;
        self.flying_bytes -= arrived.1.len();
        Some(arrived)
    }

    /// Returns the time when there will be something to do.
    pub fn next(&self) -> Option<Instant> {
        let transmit = (!self.waiting.is_empty() && !self.is_held).then_some(self.free_at);
        let arrive = self.flying.front().map(|(due, _)| *due);
        [transmit, arrive].into_iter().flatten().min()
    }

    fn is_lost(&mut self, link: &Link) -> bool {
        link.loss > 0.0 && (self.rng.next() >> 11) as f64 / ((1_u64 << 53) as f64) < link.loss
    }
}

/// The lowest rate of a link.
const MBIT_MIN: f64 = 0.001;

/// The most bytes that one direction holds, whatever its queue, rate and delay are: 10 Gbit/s for 200 ms.
const BYTES_MAX: usize = 256 << 20;
