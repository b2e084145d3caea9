//! One direction of an emulated line: a rate and a delay that follow a trace, a bounded queue, losses and black holes.
//!
//! All that changes is part of the trace, so the time at which a packet leaves is known when the packet is queued. The
//! generators draw traces from a seed, in the manner of records of mobile and satellite links. Three traces are written down, so
//! that figures of other programs on them can be compared.

use std::rc::Rc;

use seaprox::link::Time;

use super::rng::Rng;

const MS: u64 = 1000;
const SECOND: u64 = 1_000_000;

/// The line from a time on.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    at: u64,
    /// Bytes per second. At 0 the packets wait.
    pub rate: u64,
    pub delay_us: u64,
}

/// How a line behaves over time.
#[derive(Clone, Debug)]
pub struct Trace {
    steps: Vec<Step>,
    /// The trace repeats after this time, in microseconds.
    period: u64,
    /// The bytes that the queue takes.
    pub queue: u64,
    /// Packets of a million that get lost on the wire.
    loss_ppm: u64,
    /// Times in which every packet is lost.
    holes: Vec<(u64, u64)>,
}

impl Trace {
    /// Returns a line that does not change, with a queue of `queue_ms` milliseconds at its rate.
    pub fn steady(mbit: u64, delay_ms: u64, queue_ms: u64) -> Trace {
        let step = Step { at: 0, rate: mbit * 125_000, delay_us: delay_ms * MS };
        Trace {
            steps: vec![step],
            period: u64::MAX / 4,
            queue: (mbit * 125 * queue_ms).max(6000),
            loss_ppm: 0,
            holes: Vec::new(),
        }
    }

    /// Returns LTE in a train: the logarithm of the rate walks between 5 and 80 Mbit/s, a step each 100 ms. In four
    /// tunnels, of 1 to 6 s in each minute, nothing moves.
    pub fn lte(seed: u64) -> Trace {
        const TUNNELS: [(u64, u64); 4] = [(5000, 6000), (10_000, 11_500), (24_000, 28_000), (44_000, 50_000)];
        let mut rng = Rng::new(seed);
        let mut log = 30f64.ln();
        let step = |at: u64| {
            log = (log + 0.12 * normal(&mut rng) + 0.03 * (32f64.ln() - log)).clamp(5f64.ln(), 80f64.ln());
            let dark = TUNNELS.iter().any(|(from, to)| (*from..*to).contains(&at));
            Step { at: at * MS, rate: if dark { 0 } else { bytes(log.exp()) }, delay_us: 25 * MS }
        };
        Trace::of((0..60_000).step_by(100).map(step).collect(), 60 * SECOND, 1_000_000)
    }

    /// Returns Wi-Fi at home: 30 to 120 Mbit/s, a step each 200 ms, and 2 Mbit/s for one step every 2 to 5 s.
    pub fn wifi(seed: u64) -> Trace {
        let mut rng = Rng::new(seed);
        let (mut log, mut dip) = (70f64.ln(), 2000);
        let step = |at: u64| {
            log = (log + 0.15 * normal(&mut rng) + 0.1 * (70f64.ln() - log)).clamp(30f64.ln(), 120f64.ln());
            let low = at >= dip;
            dip = if low { at + rng.range(2000, 5000) } else { dip };
            Step { at: at * MS, rate: bytes(if low { 2.0 } else { log.exp() }), delay_us: 5 * MS }
        };
        Trace::of((0..60_000).step_by(200).map(step).collect(), 60 * SECOND, 512_000)
    }

    /// Returns a satellite link: each 15 s another mean rate and delay, some variation each 500 ms, and 300 ms of
    /// silence at each change.
    pub fn satellite(seed: u64) -> Trace {
        let mut rng = Rng::new(seed);
        let mut steps = Vec::new();
        for from in (0..60_000).step_by(15_000) {
            let (mean, delay_us) = (rng.range(75, 135) as f64, (25 + 3 * rng.range(0, 5)) * MS);
            for at in (from..from + 14_700).step_by(500) {
                let mbit = (mean * (0.12 * normal(&mut rng)).exp()).clamp(60.0, 150.0);
                steps.push(Step { at: at * MS, rate: bytes(mbit), delay_us });
            }
            steps.push(Step { at: (from + 14_700) * MS, rate: 0, delay_us });
        }
        Trace::of(steps, 60 * SECOND, 1_250_000)
    }

    /// Returns the written trace of LTE in a train.
    pub fn written_lte() -> Trace {
        Trace::parse(include_str!("traces/lte.txt"))
    }

    /// Returns the written trace of Wi-Fi at home.
    pub fn written_wifi() -> Trace {
        Trace::parse(include_str!("traces/wifi.txt"))
    }

    /// Returns the written trace of a satellite link.
    pub fn written_satellite() -> Trace {
        Trace::parse(include_str!("traces/satellite.txt"))
    }

    /// Reads a trace: each line has a time in milliseconds, Mbit/s, and the delay in milliseconds. The line `queue` has the bytes of
    /// the queue, and the line `end` the milliseconds after which the trace repeats.
    fn parse(text: &str) -> Trace {
        let number = |word: &str| word.parse::<f64>().expect("a number");
        let mut trace = Trace::of(Vec::new(), 0, 0);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["queue", bytes] => trace.queue = number(bytes) as u64,
                ["end", ms] => trace.period = number(ms) as u64 * MS,
                [at, mbit, ms] => {
                    let (at, delay_us) = (number(at) as u64 * MS, number(ms) as u64 * MS);
                    trace.steps.push(Step { at, rate: bytes(number(mbit)), delay_us });
                }
                _ => panic!("not a line of a trace: {line}"),
            }
        }
        trace
    }

    fn of(steps: Vec<Step>, period: u64, queue: u64) -> Trace {
        Trace { steps, period, queue, loss_ppm: 0, holes: Vec::new() }
    }

    /// Returns the trace with this loss on the wire.
    pub fn with_loss(self, ppm: u64) -> Trace {
        Trace { loss_ppm: ppm, ..self }
    }

    /// Loses every packet between two times, in milliseconds.
    pub fn hole(&mut self, from_ms: u64, to_ms: u64) {
        self.holes.push((from_ms * MS, to_ms * MS));
    }

    /// Reduces the rate between two times, in milliseconds. The line must not change otherwise.
    pub fn collapse(&mut self, from_ms: u64, to_ms: u64, rate: u64) {
        let before = *self.steps.last().unwrap();
        self.steps.push(Step { at: from_ms * MS, rate, ..before });
        self.steps.push(Step { at: to_ms * MS, ..before });
    }

    /// Changes the delay from a time in milliseconds on. The line must not change otherwise.
    pub fn delay_from(&mut self, at_ms: u64, delay_ms: u64) {
        let before = *self.steps.last().unwrap();
        self.steps.push(Step { at: at_ms * MS, delay_us: delay_ms * MS, ..before });
    }

    /// Returns the state at a time, and when it changes, in microseconds.
    pub fn at(&self, us: u64) -> (Step, u64) {
        let (round, us) = (us / self.period * self.period, us % self.period);
        let next = self.steps.partition_point(|step| step.at <= us);
        let ends = self.steps.get(next).map_or(self.period, |step| step.at);
        (self.steps[next - 1], round + ends)
    }

    /// Returns the bytes that the line can carry between two times.
    pub fn capacity(&self, from: Time, to: Time) -> u64 {
        let (mut at, mut sum) = (from.as_us(), 0);
        while at < to.as_us() {
            let (step, ends) = self.at(at);
            let until = ends.min(to.as_us());
            sum += step.rate * (until - at) / SECOND;
            at = until;
        }
        sum
    }
}

fn bytes(mbit: f64) -> u64 {
    (mbit * 125_000.0) as u64
}

/// Returns a number of about the normal distribution: the sum of twelve uniform ones.
fn normal(rng: &mut Rng) -> f64 {
    (0..12).map(|_| (rng.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
}

/// One direction of a line: its trace and the packets in its queue.
#[derive(Clone, Debug)]
pub struct Line {
    trace: Rc<Trace>,
    /// The part of the trace at time 0, in microseconds.
    shift: u64,
    rng: Rng,
    /// The time when all queued packets have left, in nanoseconds.
    free_ns: u64,
    /// The packets in the queue: when each leaves, and its bytes.
    waiting: std::collections::VecDeque<(Time, u64)>,
    waiting_bytes: u64,
    last_arrival: Time,
}

impl Line {
    pub fn new(trace: &Rc<Trace>, shift: u64, seed: u64) -> Line {
        Line {
            trace: Rc::clone(trace),
            shift,
            rng: Rng::new(seed),
            free_ns: 0,
            waiting: Default::default(),
            waiting_bytes: 0,
            last_arrival: Time::ZERO,
        }
    }

    /// Returns true if its rate or delay changes, or if packets get lost.
    pub fn is_random(&self) -> bool {
        self.trace.steps.len() > 1 || self.trace.loss_ppm > 0
    }

    /// Draws the losses from another seed.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }

    /// Returns the bytes that the line can carry between two times.
    pub fn capacity(&self, from: Time, to: Time) -> u64 {
        self.trace.capacity(from.after(self.shift), to.after(self.shift))
    }

    /// Queues a packet. Returns the time of its arrival, or `None` if it gets lost.
    pub fn put(&mut self, now: Time, bytes: u64) -> Option<Time> {
        while self.waiting.front().is_some_and(|(leaves, _)| *leaves <= now) {
            self.waiting_bytes -= self.waiting.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        if self.waiting_bytes + bytes > self.trace.queue && !self.waiting.is_empty() {
            return None;
        }
        self.free_ns = self.leaves_ns(self.free_ns.max(now.as_us() * 1000), bytes);
        let leaves = Time::from_us(self.free_ns.div_ceil(1000));
        self.waiting.push_back((leaves, bytes));
        self.waiting_bytes += bytes;
        let is_lost = self.trace.loss_ppm > 0 && self.rng.next() % 1_000_000 < self.trace.loss_ppm;
        (!is_lost && !self.is_hole(leaves)).then(|| self.arrives(leaves))
    }

    /// Returns the arrival of a packet that is too small to matter, such as an acknowledgement.
    pub fn put_small(&mut self, now: Time) -> Option<Time> {
        let (mut step, mut ends) = self.trace.at(now.as_us() + self.shift);
        let mut leaves = now;
        while step.rate == 0 {
            leaves = Time::from_us(ends - self.shift);
            (step, ends) = self.trace.at(ends);
        }
        (!self.is_hole(leaves)).then(|| self.arrives(leaves))
    }

    /// Returns the one-way delay at a time, without a queue.
    pub fn delay_us(&self, now: Time) -> u64 {
        self.trace.at(now.as_us() + self.shift).0.delay_us
    }

    /// Returns true if a packet that leaves at this time is lost in a black hole.
    fn is_hole(&self, leaves: Time) -> bool {
        let at = leaves.as_us() + self.shift;
        self.trace.holes.iter().any(|(from, to)| (*from..*to).contains(&at))
    }

    /// A shorter delay does not let a packet overtake an earlier one.
    fn arrives(&mut self, leaves: Time) -> Time {
        let delay_us = self.delay_us(leaves);
        self.last_arrival = self.last_arrival.max(leaves.after(delay_us));
        self.last_arrival
    }

    fn leaves_ns(&self, mut at_ns: u64, bytes: u64) -> u64 {
        let mut left_ns = bytes * 1_000_000_000; // at one byte per second
        loop {
            let (step, ends) = self.trace.at(at_ns / 1000 + self.shift);
            let ends_ns = (ends - self.shift).saturating_mul(1000);
            let carried = step.rate.saturating_mul(ends_ns - at_ns);
            if carried >= left_ns {
                return at_ns + left_ns / step.rate;
            }
            left_ns -= carried;
            at_ns = ends_ns;
        }
    }
}
