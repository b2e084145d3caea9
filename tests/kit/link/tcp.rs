//! One direction of a TCP connection over an emulated line, in virtual time.
//!
//! The model has what decides rate and delay of a bulk transfer: segments, the delay exit of slow start (HyStart), CUBIC
//! (RFC 9438) or BBR, detection of losses by the order of transmissions (RACK and its probe, RFC 8985), timeouts that double and
//! are undone when they were wrong, a window of the receiver, and a send buffer with a limit of unsent bytes
//! (TCP_NOTSENT_LOWAT). A connection opens after two round trips, as one with TLS does.
//!
//! It leaves out headers, delayed acknowledgements, losses and queues of acknowledgements, pacing, reordering, and the
//! memory of the receiver. So a rate of a line is one of payload here, and all of it can be used.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use seaprox::link::Time;

use super::bbr::Bbr;
use super::line::Line;

/// Payload of a segment.
const SEGMENT: u64 = 1448;
/// The largest window of a receiver, and the largest send buffer: the defaults of Linux.
const RECEIVER_BYTES: u64 = 4 << 20;
const WINDOW_FIRST: f64 = 10.0;
const BETA: f64 = 0.7;
const RTO_US: (u64, u64) = (200_000, 120_000_000);
const RTO_FIRST_US: u64 = 1_000_000;
const NEVER: Time = Time::from_us(u64::MAX);
/// Internal events are handled in steps of this time, as a busy loop would find them.
const STEP_US: u64 = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flying,
    Lost,
    Acked,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    seq: u64,
    len: u64,
    /// The number of its last transmission.
    serial: u64,
    sent_at: Time,
    state: State,
    /// Bytes delivered when it was sent, and the time of that delivery.
    delivered: (u64, Time),
}

/// The window of congestion, in segments.
#[derive(Debug)]
struct Cubic {
    window: f64,
    threshold: f64,
    most: f64,
    epoch: Option<Time>,
    /// Where the curve reaches `most`, in seconds after the epoch.
    flat_at: f64,
    reno: f64,
}

impl Cubic {
    fn reduce(&mut self) {
        self.most = if self.window < self.most { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.threshold = (self.window * BETA).max(2.0);
        self.window = self.threshold;
        self.epoch = None;
    }

    fn grow(&mut self, now: Time, acked: f64, rtt_us: u64) {
        if self.window < self.threshold {
            self.window += acked;
            return;
        }
        let began = *self.epoch.get_or_insert_with(|| {
            self.flat_at = ((self.most - self.window).max(0.0) / 0.4).cbrt();
            self.most = self.most.max(self.window);
            self.reno = self.window;
            now
        });
        let at = (now.since(began) + rtt_us) as f64 / 1e6 - self.flat_at;
        let target = (self.most + 0.4 * at * at * at).min(1.5 * self.window);
        self.window += if target > self.window { target - self.window } else { 0.01 } / self.window * acked;
        self.reno += 0.53 * acked / self.window;
        self.window = self.window.max(self.reno);
    }
}

/// One direction of a connection, with its sender and its receiver.
#[derive(Debug)]
pub struct Tcp {
    data: Line,
    acks_line: Line,
    opens_at: Time,
    /// Bytes that were written and not read.
    stream: VecDeque<Bytes>,
    /// Positions in the stream: written by the program, taken by the system, sent once, acknowledged.
    written: u64,
    taken: u64,
    next: u64,
    una: u64,
    /// The limit of unsent bytes.
    pub lowat: u64,
    /// The system has taken all that it was given since it announced that it takes more.
    is_writable: bool,
    segments: VecDeque<Segment>,
    lost: BTreeSet<u64>,
    /// Transmissions in their order: number and position.
    order: VecDeque<(u64, u64)>,
    serial: u64,
    flying: u64,
    arrivals: VecDeque<(Time, u64, u64)>,
    acks: VecDeque<(Time, u64, u64)>,
    /// The receiver: contiguous bytes, bytes read, and what came out of order.
    received: u64,
    read: u64,
    ahead: BTreeMap<u64, u64>,
    cubic: Cubic,
    /// The window of BBR, in the place of the one of CUBIC.
    bbr: Option<Bbr>,
    /// A loss of a transmission before this one belongs to the same episode.
    episode: u64,
    /// Set while timeouts are not resolved: the window and threshold before, the first transmission after.
    before_timeout: Option<(f64, f64, u64)>,
    backoff: u32,
    probed: bool,
    timer: Option<Time>,
    srtt_us: u64,
    rttvar_us: u64,
    rtt_min_us: u64,
    /// The round of HyStart: the transmission that ends it, the shortest round trip in it, the number of samples.
    round: (u64, u64, u32),
    is_limited: bool,
    /// Segments that were taken for lost and sent again.
    resent: u64,
    last_sent: Time,
    delivered: (u64, Time),
    delivery_rate: u64,
}

impl Tcp {
    /// Begins to open a connection whose data takes `data`, and whose acknowledgements take `acks`.
    pub fn new(now: Time, data: &Line, acks: &Line) -> Tcp {
        let (mut data, mut acks_line) = (data.clone(), acks.clone());
        // A lost SYN is sent again after 1, 3 and 7 s.
        let mut tries = [0, 1, 3, 7, 15].into_iter().map(|s| now.after(s * 1_000_000));
        let opens_at = tries.find_map(|at| data.put_small(at).and_then(|there| acks_line.put_small(there)));
        let opens_at = opens_at.map_or(Time::from_us(u64::MAX / 2), |at| at.after(at.since(now)));
        Tcp {
            data,
            acks_line,
            opens_at,
            stream: VecDeque::new(),
            written: 0,
            taken: 0,
            next: 0,
            una: 0,
            lowat: 16 << 10,
            is_writable: true,
            segments: VecDeque::new(),
            lost: BTreeSet::new(),
            order: VecDeque::new(),
            serial: 0,
            flying: 0,
            arrivals: VecDeque::new(),
            acks: VecDeque::new(),
            received: 0,
            read: 0,
            ahead: BTreeMap::new(),
            cubic: Cubic { window: WINDOW_FIRST, threshold: f64::MAX, most: 0.0, epoch: None, flat_at: 0.0, reno: 0.0 },
            bbr: None,
            episode: 0,
            before_timeout: None,
            backoff: 0,
            probed: false,
            timer: None,
            srtt_us: 0,
            rttvar_us: 0,
            rtt_min_us: u64::MAX,
            round: (0, u64::MAX, 0),
            is_limited: false,
            resent: 0,
            last_sent: now,
            delivered: (0, now),
            delivery_rate: 0,
        }
    }

    /// Makes BBR the congestion control.
    pub fn use_bbr(&mut self) {
        self.bbr = Some(Bbr::new(WINDOW_FIRST));
    }

    /// Returns the window of congestion, in segments.
    fn window(&self) -> f64 {
        self.bbr.as_ref().map_or(self.cubic.window, |bbr| bbr.window)
    }

    /// Writes bytes into the buffer of the program. [`Tcp::flush`] gives them to the system.
    pub fn write(&mut self, bytes: Bytes) {
        self.written += bytes.len() as u64;
        self.stream.push_back(bytes);
    }

    /// Gives waiting bytes to the system, as far as it takes them.
    pub fn flush(&mut self, now: Time) {
        self.advance(now);
        self.is_writable |= self.wants_more();
        if self.written > self.taken && self.is_writable {
            let limit = (self.next + self.lowat).min(self.una + RECEIVER_BYTES);
            self.taken = self.written.min(limit.max(self.taken));
            self.is_writable = self.is_flushed();
            self.send(now);
        }
    }

    /// Returns true if the program has given all bytes to the system.
    pub fn is_flushed(&self) -> bool {
        self.written == self.taken
    }

    /// Returns true if the system would announce that it takes more.
    pub fn wants_more(&self) -> bool {
        2 * (self.taken - self.next) < self.lowat && self.taken - self.una < RECEIVER_BYTES
    }

    /// Takes the next bytes that have arrived.
    pub fn read(&mut self, now: Time) -> Option<Bytes> {
        self.advance(now);
        let ready = usize::try_from(self.received - self.read).unwrap();
        if ready == 0 {
            return None;
        }
        let first = self.stream.front_mut()?;
        let part = first.split_to(ready.min(first.len()));
        if first.is_empty() {
            self.stream.pop_front();
        }
        self.read += part.len() as u64;
        Some(part)
    }

    /// Returns the bytes that were delivered in order.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the time at which there may be something to read or to write.
    pub fn next_time(&self, now: Time) -> Option<Time> {
        if self.received > self.read {
            return Some(now);
        }
        let events = [self.arrivals.front().map(|a| a.0), self.acks.front().map(|a| a.0), self.timer];
        let opens = (self.opens_at > now && self.written > 0).then_some(self.opens_at);
        let at = events.into_iter().flatten().chain(opens).min()?;
        Some(Time::from_us(at.as_us().next_multiple_of(STEP_US)))
    }

    /// Returns true if every written byte was read.
    pub fn is_empty(&self) -> bool {
        self.written == self.read
    }

    /// Loses everything that is under way.
    pub fn clear(&mut self) {
        self.stream.clear();
        (self.segments, self.arrivals, self.acks, self.timer) = Default::default();
        (self.read, self.received) = (self.written, self.written);
        (self.taken, self.next, self.una, self.flying) = (self.written, self.written, self.written, 0);
        self.lost.clear();
    }

    pub fn srtt_us(&self) -> u64 {
        self.srtt_us
    }

    /// Returns the shortest round trip, or 0.
    pub fn rtt_min_us(&self) -> u64 {
        if self.rtt_min_us == u64::MAX { 0 } else { self.rtt_min_us }
    }

    /// Returns the larger of the delivery rate and of the window in each round trip.
    pub fn rate(&self) -> u64 {
        let window = self.window() * SEGMENT as f64 * 1e6 / self.srtt_us.max(1) as f64;
        if self.srtt_us == 0 { 0 } else { self.delivery_rate.max(window as u64) }
    }

    /// Returns the number of segments that were taken for lost and sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Returns true while a timeout has not been followed by progress.
    pub fn is_stuck(&self) -> bool {
        self.backoff > 0
    }

    /// Handles all events up to `now`, each at its own time.
    fn advance(&mut self, now: Time) {
        loop {
            let arrival = self.arrivals.front().map_or(NEVER, |a| a.0);
            let ack = self.acks.front().map_or(NEVER, |a| a.0);
            let timer = self.timer.unwrap_or(NEVER);
            let at = arrival.min(ack).min(timer);
            if at > now {
                break;
            }
            if at == arrival {
                let (_, seq, len) = self.arrivals.pop_front().unwrap();
                self.arrive(seq, len);
            } else if at == ack {
                let (_, serial, seq) = self.acks.pop_front().unwrap();
                self.acknowledge(at, serial, seq);
            } else {
                self.time_out(at);
            }
        }
        if self.next == 0 && self.opens_at <= now {
            self.send(self.opens_at.max(self.last_sent));
        }
    }

    fn arrive(&mut self, seq: u64, len: u64) {
        if seq > self.received {
            self.ahead.insert(seq, len);
        } else if seq == self.received {
            self.received += len;
            while let Some(len) = self.ahead.remove(&self.received) {
                self.received += len;
            }
        }
    }

    fn index_of(&self, seq: u64) -> Option<usize> {
        self.segments.binary_search_by_key(&seq, |segment| segment.seq).ok()
    }

    fn acknowledge(&mut self, now: Time, serial: u64, seq: u64) {
        if let Some((window, threshold, first)) = self.before_timeout.filter(|before| serial < before.2) {
            self.undo(window, threshold, first);
        }
        let mut acked = 0;
        if let Some(index) = self.index_of(seq) {
            let segment = self.segments[index];
            if segment.state != State::Acked {
                acked = segment.len;
                self.segments[index].state = State::Acked;
                self.lost.remove(&seq);
                self.flying -= if segment.state == State::Flying { segment.len } else { 0 };
                self.delivered = (self.delivered.0 + segment.len, now);
                if segment.serial == serial {
                    self.sample(now, &segment);
                }
            }
        }
        self.find_lost(serial);
        while self.segments.front().is_some_and(|segment| segment.state == State::Acked) {
            self.segments.pop_front();
        }
        let una = self.segments.front().map_or(self.next, |segment| segment.seq);
        if una > self.una {
            self.una = una;
            self.backoff = 0;
        }
        if self.before_timeout.is_some_and(|before| serial > before.2 && self.backoff == 0) {
            self.before_timeout = None;
        }
        if serial >= self.episode && self.is_limited && acked > 0 {
            self.cubic.grow(now, acked as f64 / SEGMENT as f64, self.srtt_us);
        }
        (self.timer, self.probed) = (None, false);
        self.send(now);
        self.arm(now);
    }

    /// Marks all earlier transmissions as lost, because the line keeps the order.
    fn find_lost(&mut self, serial: u64) {
        let mut fresh = false;
        while let Some((number, seq)) = self.order.front().copied().filter(|first| first.0 <= serial) {
            self.order.pop_front();
            let Some(index) = self.index_of(seq) else { continue };
            let segment = &mut self.segments[index];
            if segment.serial == number && segment.state == State::Flying {
                segment.state = State::Lost;
                self.flying -= segment.len;
                self.lost.insert(seq);
                fresh |= number >= self.episode;
            }
        }
        if fresh {
            self.cubic.reduce();
            self.episode = self.serial;
        }
    }

    fn sample(&mut self, now: Time, segment: &Segment) {
        let us = now.since(segment.sent_at).max(1);
        if self.srtt_us == 0 {
            (self.srtt_us, self.rttvar_us) = (us, us / 2);
        } else {
            self.rttvar_us = (3 * self.rttvar_us + self.srtt_us.abs_diff(us)) / 4;
            self.srtt_us = (7 * self.srtt_us + us) / 8;
        }
        self.rtt_min_us = self.rtt_min_us.min(us);
        let span = now.since(segment.delivered.1).max(us);
        self.delivery_rate = (self.delivered.0 - segment.delivered.0) * 1_000_000 / span;
        let (ends, least, count) = self.round;
        if let Some(bbr) = self.bbr.as_mut().filter(|_| self.is_limited) {
            let rate = self.delivery_rate as f64 / SEGMENT as f64 / 1e6;
            bbr.on_ack(segment.len as f64 / SEGMENT as f64, rate, segment.serial >= ends, self.rtt_min_us);
        }
        self.round = if segment.serial >= ends { (self.serial, us, 1) } else { (ends, least.min(us), count + 1) };
        let slack = (self.rtt_min_us / 8).clamp(4000, 16_000);
        let is_slow_start = self.cubic.window < self.cubic.threshold;
        if is_slow_start && self.cubic.window >= 16.0 && self.round.2 >= 8 && self.round.1 > self.rtt_min_us + slack {
            self.cubic.threshold = self.cubic.window;
        }
    }

    /// Returns the bytes that were written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Returns the bytes that were acknowledged.
    pub fn acked(&self) -> u64 {
        self.una
    }

    /// Returns the bytes in the send buffer: those that were written and not acknowledged.
    pub fn unacked(&self) -> u64 {
        self.written - self.una
    }

    /// Returns the bytes of payload that the send buffer takes. Linux grows it to twice the window, counted with three times the
    /// memory that a segment has (`tcp_sndbuf_expand`), up to 4 MiB.
    pub fn send_buffer(&self) -> u64 {
        ((6.0 * self.window()) as u64 * SEGMENT).min(RECEIVER_BYTES)
    }

    /// Returns the rate at which Linux paces, in bytes per second: more than the window in each round trip.
    pub fn pacing_rate(&self) -> u64 {
        let gain = if self.cubic.window < self.cubic.threshold / 2.0 { 2.0 } else { 1.2 };
        (gain * self.window() * SEGMENT as f64 * 1e6 / self.srtt_us.max(1000) as f64) as u64
    }

    pub fn is_open(&self, now: Time) -> bool {
        self.opens_at <= now
    }

    /// Returns the time after which a transmission is lost without an acknowledgement.
    pub fn rto_us(&self) -> u64 {
        let us = if self.srtt_us == 0 { RTO_FIRST_US } else { self.srtt_us + (4 * self.rttvar_us).max(RTO_US.0) };
        (us << self.backoff.min(10)).min(RTO_US.1)
    }

    fn may_probe(&self) -> bool {
        !self.probed && self.backoff == 0 && self.lost.is_empty() && self.srtt_us > 0
    }

    fn arm(&mut self, now: Time) {
        if self.timer.is_some() || self.segments.is_empty() {
            return;
        }
        let alone = if self.flying <= SEGMENT { RTO_US.0 } else { 2000 };
        let probe_us = 2 * self.srtt_us + alone;
        let us = if self.may_probe() { probe_us.min(self.rto_us()) } else { self.rto_us() };
        self.timer = Some(now.after(us));
    }

    fn time_out(&mut self, now: Time) {
        self.timer = None;
        if self.may_probe() {
            self.probed = true;
            let last = self.segments.iter().rposition(|segment| segment.state == State::Flying);
            last.into_iter().for_each(|index| self.transmit(now, index));
            return self.arm(now);
        }
        let cubic = &mut self.cubic;
        if self.before_timeout.is_none() {
            self.before_timeout = Some((cubic.window, cubic.threshold, self.serial));
            cubic.reduce();
        }
        (cubic.window, self.episode) = (1.0, self.serial);
        self.backoff += 1;
        for segment in self.segments.iter_mut().filter(|segment| segment.state == State::Flying) {
            segment.state = State::Lost;
            self.lost.insert(segment.seq);
        }
        self.flying = 0;
        self.send(now);
        self.arm(now);
    }

    /// Takes back timeouts that were wrong: a segment from before them arrived.
    fn undo(&mut self, window: f64, threshold: f64, first: u64) {
        self.before_timeout = None;
        (self.cubic.window, self.cubic.threshold, self.backoff) = (window, threshold, 0);
        for segment in self.segments.iter_mut().filter(|s| s.state == State::Lost && s.serial < first) {
            segment.state = State::Flying;
            self.lost.remove(&segment.seq);
            self.flying += segment.len;
        }
    }

    fn send(&mut self, now: Time) {
        if now < self.opens_at {
            return;
        }
        if self.flying == 0 && self.lost.is_empty() && now.since(self.last_sent) > self.rto_us() {
            self.cubic.window = self.cubic.window.min(WINDOW_FIRST);
        }
        self.is_limited = false;
        loop {
            let lost = self.lost.first().copied();
            if lost.is_none() && (self.next == self.taken || self.next - self.una >= RECEIVER_BYTES) {
                break;
            }
            if (self.flying + SEGMENT) as f64 > self.window() * SEGMENT as f64 {
                self.is_limited = true;
                break;
            }
            if let Some(seq) = lost {
                self.lost.remove(&seq);
                let Some(index) = self.index_of(seq) else { continue };
                self.resent += 1;
                self.transmit(now, index);
                continue;
            }
            let len = (self.taken - self.next).min(SEGMENT);
            let (seq, state, delivered) = (self.next, State::Lost, self.delivered);
            self.segments.push_back(Segment { seq, len, serial: 0, sent_at: now, state, delivered });
            self.next += len;
            self.transmit(now, self.segments.len() - 1);
        }
        // A slow start may go on while half of its window is used.
        self.is_limited |=
            self.cubic.window < self.cubic.threshold && self.cubic.window * (SEGMENT as f64) < 2.0 * self.flying as f64;
        self.arm(now);
    }

    fn transmit(&mut self, now: Time, index: usize) {
        let (serial, delivered) = (self.serial, self.delivered);
        self.serial += 1;
        self.last_sent = now;
        let segment = &mut self.segments[index];
        if segment.state != State::Flying {
            self.flying += segment.len;
        }
        (segment.state, segment.serial, segment.sent_at) = (State::Flying, serial, now);
        segment.delivered = (delivered.0, if self.flying <= segment.len { now } else { delivered.1 });
        let (seq, len) = (segment.seq, segment.len);
        self.order.push_back((serial, seq));
        let Some(arrival) = self.data.put(now, len) else { return };
        self.arrivals.push_back((arrival, seq, len));
        if let Some(ack) = self.acks_line.put_small(arrival) {
            self.acks.push_back((ack, serial, seq));
        }
    }
}
