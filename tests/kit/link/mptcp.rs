//! A connection of MPTCP over modelled TCP, with the scheduler that Linux has by default (`mptcp_subflow_get_send`, 6.x).
//!
//! The next 64 KiB go to the subflow whose queue empties soonest at its pacing rate, and all of them wait if that one's send
//! buffer is full. Each subflow has a congestion control of its own. A timer sends the oldest missing segment again on a subflow
//! that has nothing under way; a subflow that has acknowledged nothing at four of these times is stale, and all that it has is sent
//! again on others.
//!
//! It leaves out the growth of the receive window, which has its full size from the start, and the time that an acknowledgement of
//! data takes on another subflow.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use seaprox::link::Time;

use super::line::Line;
use super::tcp::Tcp;

/// Payload of a segment. All are full.
const SEGMENT: u64 = 1448;
/// The window of the receiver: that of [`super::tcp`].
const WINDOW: u64 = 4 << 20;
const BURST: u64 = 64 << 10;
const RETRANSMIT_US_MIN: u64 = 200_000;
const STALE_COUNT: u32 = 4;

#[derive(Debug)]
struct Subflow {
    tcp: Tcp,
    /// The segments that are not acknowledged, and those that have not arrived, in the order of the subflow.
    unacked: VecDeque<u64>,
    coming: VecDeque<u64>,
    /// The pacing rate, smoothed over what was given to the subflow.
    rate: u64,
    /// Times of the timer without an acknowledgement, and the bytes that were acknowledged at the last one.
    stale: u32,
    acked: u64,
}

impl Subflow {
    fn is_stale(&self) -> bool {
        self.stale >= STALE_COUNT && self.tcp.acked() == self.acked
    }

    /// Returns the time until its queue is empty, in microseconds.
    fn linger_us(&self) -> u64 {
        let rate = if self.rate == 0 { self.tcp.pacing_rate() } else { self.rate };
        self.tcp.unacked() * 1_000_000 / rate.max(1)
    }
}

/// A bulk transfer over one line for each subflow. Segments are numbered.
#[derive(Debug)]
pub struct Mptcp {
    subflows: Vec<Subflow>,
    next: u64,
    /// The first segment that no subflow has acknowledged, and those behind it that one has.
    una: u64,
    acked: BTreeSet<u64>,
    /// The segments to send again.
    again: VecDeque<u64>,
    /// The segments that have arrived in order, and those behind a gap.
    received: u64,
    ahead: BTreeSet<u64>,
    burst: (usize, u64),
    progress_at: Time,
}

impl Mptcp {
    pub fn new(now: Time, lines: &[Line], bbr: bool) -> Mptcp {
        let subflow = |line: &Line| {
            let mut tcp = Tcp::new(now, line, line);
            tcp.lowat = 1 << 30;
            if bbr {
                tcp.use_bbr();
            }
            Subflow { tcp, unacked: VecDeque::new(), coming: VecDeque::new(), rate: 0, stale: 0, acked: 0 }
        };
        Mptcp {
            subflows: lines.iter().map(subflow).collect(),
            next: 0,
            una: 0,
            acked: BTreeSet::new(),
            again: VecDeque::new(),
            received: 0,
            ahead: BTreeSet::new(),
            burst: (0, 0),
            progress_at: now,
        }
    }

    /// Returns the bytes that have arrived in order.
    pub fn received(&self) -> u64 {
        self.received * SEGMENT
    }

    /// Handles all that has happened until now, and sends.
    pub fn step(&mut self, now: Time) {
        let una = self.una;
        for subflow in &mut self.subflows {
            subflow.tcp.flush(now);
            while subflow.tcp.read(now).is_some() {}
            let (arrived, acked) = (subflow.tcp.received() / SEGMENT, subflow.tcp.acked() / SEGMENT);
            let written = subflow.tcp.written() / SEGMENT;
            while subflow.coming.len() as u64 > written - arrived {
                self.ahead.extend(subflow.coming.pop_front().filter(|segment| *segment >= self.received));
            }
            while subflow.unacked.len() as u64 > written - acked {
                self.acked.extend(subflow.unacked.pop_front().filter(|segment| *segment >= self.una));
            }
        }
        while self.ahead.remove(&self.received) {
            self.received += 1;
        }
        while self.acked.remove(&self.una) {
            self.una += 1;
        }
        if self.una > una || self.una == self.next {
            self.progress_at = now;
        }
        if now.since(self.progress_at) > self.patience_us() {
            self.progress_at = now;
            self.time_out();
        }
        self.push(now);
    }

    /// Returns the time of the timer: the longest timeout of the subflows that are well.
    fn patience_us(&self) -> u64 {
        let well = self.subflows.iter().filter(|subflow| subflow.stale == 0 && subflow.tcp.unacked() > 0);
        well.map(|subflow| subflow.tcp.rto_us()).max().unwrap_or(0).max(RETRANSMIT_US_MIN)
    }

    fn time_out(&mut self) {
        let Mptcp { subflows, again, acked, una, .. } = self;
        for subflow in subflows.iter_mut().filter(|subflow| subflow.tcp.unacked() > 0) {
            let is_silent = subflow.tcp.acked() == subflow.acked;
            (subflow.stale, subflow.acked) = (if is_silent { subflow.stale + 1 } else { 0 }, subflow.tcp.acked());
            if subflow.stale == STALE_COUNT {
                again.extend(subflow.unacked.iter().filter(|segment| *segment >= una && !acked.contains(segment)));
            }
        }
        let idle = subflows.iter_mut().filter(|subflow| subflow.tcp.unacked() == 0 && !subflow.is_stale());
        if let Some(subflow) = idle.min_by_key(|subflow| subflow.tcp.srtt_us()) {
            give(subflow, *una);
        }
    }

    fn push(&mut self, now: Time) {
        loop {
            let segment = match self.again.front() {
                Some(segment) if *segment < self.una || self.acked.contains(segment) => {
                    self.again.pop_front();
                    continue;
                }
                Some(segment) => *segment,
                None if (self.next + 1 - self.una) * SEGMENT > WINDOW => return,
                None => self.next,
            };
            if self.burst.1 < SEGMENT {
                let open = self.subflows.iter().enumerate().filter(|(_, it)| it.tcp.is_open(now) && !it.is_stale());
                let Some((index, _)) = open.min_by_key(|(_, subflow)| subflow.linger_us()) else { return };
                self.burst = (index, BURST);
                let subflow = &mut self.subflows[index];
                let (queued, pacing) = (subflow.tcp.unacked(), subflow.tcp.pacing_rate());
                subflow.rate = (subflow.rate * queued + pacing * BURST) / (queued + BURST);
            }
            let subflow = &mut self.subflows[self.burst.0];
            if subflow.tcp.unacked() >= subflow.tcp.send_buffer() {
                self.burst.1 = 0;
                return;
            }
            give(subflow, segment);
            subflow.tcp.flush(now);
            self.burst.1 -= SEGMENT;
            match self.again.is_empty() {
                true => self.next += 1,
                false => _ = self.again.pop_front(),
            }
        }
    }
}

fn give(subflow: &mut Subflow, segment: u64) {
    subflow.tcp.write(Bytes::from_static(&[0; SEGMENT as usize]));
    subflow.unacked.push_back(segment);
    subflow.coming.push_back(segment);
}
