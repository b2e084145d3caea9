//! One direction of a simulated carrier: a pipe with a rate, a delay and a send buffer.
//!
//! It is one ordered stream of bytes as TCP, a sequence of whole records as SCTP, or several lanes beside messages as QUIC:
//! each lane is in order, a loss delays its lane only, and a message may be lost and overtaken.

use std::collections::VecDeque;

use bytes::Bytes;
use seaprox::link::{MESSAGE_LANE, Time};

use super::carrier::Carrier;
use super::rng::Rng;

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

/// The order in which a carrier delivers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Number of lanes beyond the first.
    pub more_lanes: u16,
    /// Frames that are written at the same time share a record, and a record arrives whole.
    pub has_records: bool,
    /// Maximum length of a message; 0 if there are none.
    pub message_bytes_max: usize,
    /// One frame in so many is lost; none if 0. On a lane it arrives later, with everything behind it.
    pub loss: u64,
    /// Time until the first frame on a lane other than the first can arrive, in microseconds.
    pub opens_us: u64,
}

impl Manner {
    /// Returns the manner of QUIC with so many lanes for streams.
    pub fn quic(more_lanes: u16, loss: u64) -> Manner {
        Manner { more_lanes, message_bytes_max: 1200, loss, ..Manner::default() }
    }

    fn is_plain(&self) -> bool {
        self.more_lanes == 0 && !self.has_records && self.message_bytes_max == 0 && self.loss == 0
    }
}

/// Maximum length of a record.
const RECORD_BYTES_MAX: usize = 16 << 10;

/// A frame under way on a lane.
#[derive(Debug)]
struct Flying {
    at: Time,
    lane: u16,
    bytes: Bytes,
}

#[derive(Debug)]
pub struct Pipe {
    pub shape: Shape,
    pub manner: Manner,
    /// In the order of their arrival.
    flying: VecDeque<Flying>,
    /// For each lane, the time before which nothing arrives on it.
    closed_until: Vec<Time>,
    rng: Rng,
    /// Time of the last write.
    written_at: Time,
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
            manner: Manner::default(),
            flying: VecDeque::new(),
            closed_until: Vec::new(),
            rng: Rng::new(0),
            written_at: Time::ZERO,
            free_at: Time::ZERO,
            rest_ns: 0,
            frozen: false,
            stuck: 0,
            written: 0,
            carrier: None,
        }
    }

    /// Sets the manner of a new pipe, whose losses depend on `seed`.
    pub fn set_manner(&mut self, now: Time, manner: Manner, seed: u64) {
        self.manner = manner;
        self.rng = Rng::new(seed);
        self.closed_until = vec![now.after(manner.opens_us); usize::from(manner.more_lanes) + 1];
        self.closed_until[0] = Time::ZERO;
    }

    /// Writes bytes to a lane. Returns the time when they arrive if the pipe does not change before.
    pub fn write(&mut self, now: Time, lane: u16, bytes: Bytes) -> Time {
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
        let at = self.free_at.after(self.shape.delay_us);
        if !self.manner.is_plain() {
            return self.send(now, lane, at, bytes);
        }
        let at = at.max(self.flying.back().map_or(now, |last| last.at));
        self.flying.push_back(Flying { at, lane, bytes });
        at
    }

    /// Sends a frame that arrives at `at` if it is neither lost nor behind another one.
    fn send(&mut self, now: Time, lane: u16, mut at: Time, bytes: Bytes) -> Time {
        let is_same_time = std::mem::replace(&mut self.written_at, now) == now;
        let is_message = lane == MESSAGE_LANE;
        if self.manner.loss > 0 && self.rng.one_in(self.manner.loss) {
            if is_message {
                return Time::from_us(u64::MAX);
            }
            at = at.after(2 * self.shape.delay_us + self.rng.range(100, 10_000));
        }
        if is_message {
            at = at.after(if self.rng.one_in(3) { self.rng.range(1, 2 * self.shape.delay_us + 1) } else { 0 });
        } else {
            let last = self.flying.iter_mut().rfind(|other| other.lane == lane);
            if let Some(last) = last {
                at = at.max(last.at);
                if self.manner.has_records && is_same_time && last.bytes.len() + bytes.len() <= RECORD_BYTES_MAX {
                    last.bytes = [&last.bytes[..], &bytes[..]].concat().into();
                    last.at = at;
                    return at;
                }
            }
            at = at.max(self.closed_until[usize::from(lane)]);
        }
        let place = self.flying.partition_point(|other| other.at <= at);
        self.flying.insert(place, Flying { at, lane, bytes });
        at
    }

    /// Stalls one lane until this time, while the others go on.
    pub fn hold_lane(&mut self, lane: u16, until: Time) {
        let Some(closed) = self.closed_until.get_mut(usize::from(lane)) else { return };
        *closed = until.max(*closed);
        self.flying.iter_mut().filter(|frame| frame.lane == lane).for_each(|frame| frame.at = frame.at.max(until));
        self.sort();
    }

    /// Lets all lanes go on.
    pub fn release_lanes(&mut self, now: Time) {
        for (lane, closed) in (0..).zip(&mut self.closed_until) {
            if std::mem::replace(closed, Time::ZERO) > now {
                self.flying.iter_mut().filter(|frame| frame.lane == lane).for_each(|frame| frame.at = now);
            }
        }
        self.sort();
    }

    fn sort(&mut self) {
        self.flying.make_contiguous().sort_by_key(|frame| frame.at);
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
        let arrival = self.flying.front().map(|first| first.at);
        let room = (self.room(now) == 0).then(|| {
            let excess = self.unsent(now) + 1 - self.shape.lowat;
            now.after((excess * 1_000_000 / self.shape.rate.max(1)).max(1))
        });
        arrival.into_iter().chain(room).min()
    }

    /// Takes the next bytes that have arrived, with their lane.
    pub fn read(&mut self, now: Time) -> Option<(u16, Bytes)> {
        if let Some(carrier) = &mut self.carrier {
            return carrier.tcp.read(now).map(|bytes| (0, bytes));
        }
        if self.frozen || self.flying.front()?.at > now {
            return None;
        }
        self.flying.pop_front().map(|first| (first.lane, first.bytes))
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
            let late = now.since(self.flying.front().map_or(now, |first| first.at));
            self.flying.iter_mut().for_each(|frame| frame.at = frame.at.after(late));
            self.free_at = self.free_at.after(late);
        }
    }

    /// Changes the rate, also for the bytes that wait in the send buffer.
    pub fn set_rate(&mut self, now: Time, rate: u64) {
        let leaves = now.after(self.shape.delay_us);
        let waiting = self.flying.partition_point(|frame| frame.at <= leaves);
        self.shape.rate = rate;
        self.free_at = now;
        for frame in self.flying.iter_mut().skip(waiting) {
            self.free_at = self.free_at.after(frame.bytes.len() as u64 * 1_000_000 / rate.max(1));
            frame.at = self.free_at.after(self.shape.delay_us);
        }
    }

    /// Delays all arrivals by `us` microseconds.
    pub fn stall(&mut self, us: u64) {
        self.flying.iter_mut().for_each(|frame| frame.at = frame.at.after(us));
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
        for frame in &mut self.flying {
            let is_whole = self.manner.has_records || frame.lane == MESSAGE_LANE;
            let keep = if is_whole && left < frame.bytes.len() { 0 } else { left.min(frame.bytes.len()) };
            frame.bytes.truncate(keep);
            left = if keep == 0 { 0 } else { left - keep };
        }
        self.flying.retain(|frame| !frame.bytes.is_empty());
        self.frozen = false;
    }
}
