//! One direction of a simulated carrier: an ordered pipe of bytes with a rate, a delay and a send buffer.

use std::collections::VecDeque;

use bytes::Bytes;
use seaprox::link::Time;

use super::carrier::Carrier;

/// The properties of one direction of a path.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes per second.
    pub rate: u64,
    /// The one-way delay, in microseconds.
    pub delay_us: u64,
    /// The size of the send buffer, in bytes.
    pub lowat: u64,
}

impl Shape {
    /// Returns a shape with a rate in megabits per second and a one-way delay in milliseconds.
    pub fn new(mbit: u64, ms: u64) -> Shape {
        Shape { rate: mbit * 125_000, delay_us: ms * 1000, lowat: 16 * 1024 }
    }
}

#[derive(Debug)]
pub struct Pipe {
    pub shape: Shape,
    flying: VecDeque<(Time, Bytes)>,
    /// The time when the last written byte will be on the wire.
    free_at: Time,
    /// Nanoseconds to add to `free_at`, so that rounding does not make the pipe faster.
    rest_ns: u64,
    /// True if no byte moves: a black hole, as the sender's kernel sees it.
    frozen: bool,
    /// Bytes written since it froze.
    stuck: u64,
    /// Bytes written since the start.
    pub written: u64,
    /// The connection of modelled TCP that carries the bytes in the place of this pipe.
    pub carrier: Option<Box<Carrier>>,
}

impl Pipe {
    pub fn new(shape: Shape) -> Pipe {
        Pipe {
            shape,
            flying: VecDeque::new(),
            free_at: Time::ZERO,
            rest_ns: 0,
            frozen: false,
            stuck: 0,
            written: 0,
            carrier: None,
        }
    }

    /// Writes bytes. Returns the time when they arrive if the pipe does not change before.
    pub fn write(&mut self, now: Time, bytes: Bytes) -> Time {
        self.written += bytes.len() as u64;
        if let Some(carrier) = &mut self.carrier {
            carrier.write(bytes);
            return Time::from_us(u64::MAX);
        }
        if self.frozen {
            self.stuck += bytes.len() as u64;
        }
        self.free_at = self.free_at.max(now);
        let ns = bytes.len() as u64 * 1_000_000_000 / self.shape.rate.max(1) + self.rest_ns;
        self.free_at = self.free_at.after(ns / 1000);
        self.rest_ns = ns % 1000;
        let at = self.free_at.after(self.shape.delay_us).max(self.flying.back().map_or(now, |last| last.0));
        self.flying.push_back((at, bytes));
        at
    }

    /// Returns the bytes that wait in the send buffer.
    fn unsent(&self, now: Time) -> u64 {
        self.free_at.since(now) * self.shape.rate / 1_000_000
    }

    /// Returns the free bytes of the send buffer.
    pub fn room(&self, now: Time) -> usize {
        let waiting = if self.frozen { self.stuck } else { self.unsent(now) };
        self.shape.lowat.saturating_sub(waiting) as usize
    }

    /// Returns the time of the next arrival, or of the next free byte in a full send buffer, whichever is first.
    pub fn next_time(&self, now: Time) -> Option<Time> {
        if let Some(carrier) = &self.carrier {
            return carrier.tcp.next_time(now);
        }
        if self.frozen {
            return None;
        }
        let arrival = self.flying.front().map(|(at, _)| *at);
        let room = (self.room(now) == 0).then(|| {
            let excess = self.unsent(now) + 1 - self.shape.lowat;
            now.after((excess * 1_000_000 / self.shape.rate.max(1)).max(1))
        });
        arrival.into_iter().chain(room).min()
    }

    /// Takes the next bytes that have arrived.
    pub fn read(&mut self, now: Time) -> Option<Bytes> {
        if let Some(carrier) = &mut self.carrier {
            return carrier.tcp.read(now);
        }
        if self.frozen || self.flying.front()?.0 > now {
            return None;
        }
        self.flying.pop_front().map(|(_, bytes)| bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.carrier.as_ref().map_or(self.flying.is_empty(), |carrier| carrier.tcp.is_empty())
    }

    /// Starts a black hole: no byte arrives, and the send buffer fills up.
    pub fn freeze(&mut self) {
        self.frozen = true;
        self.stuck = 0;
    }

    /// Ends a black hole: the bytes that were under way arrive from now on, in order.
    pub fn thaw(&mut self, now: Time) {
        if std::mem::take(&mut self.frozen) {
            let late = now.since(self.flying.front().map_or(now, |(at, _)| *at));
            self.flying.iter_mut().for_each(|(at, _)| *at = at.after(late));
            self.free_at = self.free_at.after(late);
        }
    }

    /// Changes the rate, also for the bytes that wait in the send buffer.
    pub fn set_rate(&mut self, now: Time, rate: u64) {
        let leaves = now.after(self.shape.delay_us);
        let waiting = self.flying.partition_point(|(at, _)| *at <= leaves);
        self.shape.rate = rate;
        self.free_at = now;
        for (at, bytes) in self.flying.iter_mut().skip(waiting) {
            self.free_at = self.free_at.after(bytes.len() as u64 * 1_000_000 / rate.max(1));
            *at = self.free_at.after(self.shape.delay_us);
        }
    }

    /// Delays all arrivals by `us` microseconds.
    pub fn stall(&mut self, us: u64) {
        self.flying.iter_mut().for_each(|(at, _)| *at = at.after(us));
        self.free_at = self.free_at.after(us);
    }

    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Loses all bytes that are under way.
    pub fn drop_all(&mut self) {
        self.carrier.iter_mut().for_each(|carrier| carrier.tcp.clear());
        self.flying.clear();
        self.frozen = false;
    }

    /// Loses all bytes that are under way but the first `bytes`: a connection that dies in the middle of a frame.
    pub fn drop_after(&mut self, bytes: usize) {
        let mut left = bytes;
        for (_, chunk) in &mut self.flying {
            let keep = left.min(chunk.len());
            chunk.truncate(keep);
            left -= keep;
        }
        self.flying.retain(|(_, chunk)| !chunk.is_empty());
        self.frozen = false;
    }
}
