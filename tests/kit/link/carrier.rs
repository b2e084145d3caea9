//! One direction of a carrier over a modelled TCP connection, as `src/transport/tcp_tls.rs` and `src/node/drive.rs` run it.
//!
//! The carrier takes a batch from the session in each round, gives the system what it takes, and tells the session the
//! figures of the path.

use bytes::Bytes;
use seaprox::link::{PathStats, Session, SubflowId, Time};

use super::line::Line;
use super::tcp::Tcp;

#[derive(Debug)]
pub struct Carrier {
    pub tcp: Tcp,
    written: u64,
    /// The time of the last sample of the path, and the bytes written until then.
    sampled: (Time, u64),
}

impl Carrier {
    pub fn new(now: Time, data: &Line, acks: &Line) -> Carrier {
        Carrier { tcp: Tcp::new(now, data, acks), written: 0, sampled: (Time::ZERO, 0) }
    }

    /// Returns the bytes that the carrier takes from the session now.
    pub fn room(&mut self, now: Time, rate: u64, is_alone: bool) -> usize {
        const SLOW_RATE: u64 = 12_500_000;
        self.tcp.flush(now);
        let is_slow = is_alone && rate < SLOW_RATE;
        if !self.tcp.is_flushed() || (is_slow && !self.tcp.wants_more()) {
            return 0;
        }
        let batch =
            if is_slow { (rate / 200).clamp(2048, 16_384) } else { self.proven(rate / 200).clamp(16_384, 262_144) };
        batch as usize
    }

    pub fn write(&mut self, bytes: Bytes) {
        self.written += bytes.len() as u64;
        self.tcp.write(bytes);
    }

    /// Ends a round: writes what was taken, and samples the path.
    pub fn end_round(&mut self, now: Time, session: &mut Session, id: SubflowId) {
        self.tcp.flush(now);
        let (at, before) = self.sampled;
        let fresh = self.written - before;
        if fresh == 0 || fresh < 256 << 10 && now.since(at) < 5000 {
            return;
        }
        self.sampled = (now, self.written);
        let stats = PathStats {
            srtt_us: self.tcp.srtt_us(),
            rate: self.tcp.rate(),
            round_us: self.tcp.rtt_min_us(),
            suspect: self.tcp.is_stuck(),
            resent: self.tcp.resent(),
            has_rival: false,
        };
        session.path_stats(now, id, stats);
        let rate = session.path(id).map_or(0, |(_, rate, ..)| rate);
        self.tcp.lowat = self.proven(rate / 500).clamp(16 << 10, 256 << 10).next_power_of_two();
    }

    fn proven(&self, bytes: u64) -> u64 {
        bytes.min(self.written / 8)
    }
}
