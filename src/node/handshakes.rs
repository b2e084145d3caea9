//! The handshakes of unauthenticated peers: the times at which they are computed.
//!
//! A key exchange and a signature take a loop a hundred times as long as a request for them takes a client. So a complete
//! handshake message waits here for its turn: [`HANDSHAKES_PER_TURN`] are computed in one turn of the loop, within a quarter
//! of the loop's time. The time is measured, so it does not matter what a key exchange costs: `cargo bench --bench tls` prints
//! it for each. The table in `unauthenticated` decides which one is next, and which one is displaced.

use std::time::Instant;

use crate::engine::control::Deadline;
use crate::engine::core::{Core, OneOff};
use crate::link::Time;
use crate::transport::NextMessage;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::carrier::{Carrier, CarrierStage};
use super::control::Node;
use super::unauthenticated::Step;

/// The time budget of computations, as a token bucket: a quarter of the elapsed time flows in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    level_us: i64,
    at: Time,
    /// The time at which the loop wakes up for the budget, if that is armed.
    armed: Option<Time>,
}

/// The state of the bytes that were read from an unauthenticated peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// They may be processed.
    Ready,
    /// The message is not complete. The rest may have arrived already, as a message of the transport of its own.
    Part,
    /// The message waits for its turn.
    Waits,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { level_us: DEPTH_US, at: Time::ZERO, armed: None }
    }
}

impl Budget {
    /// Returns true if the budget has time for a handshake now.
    pub fn is_open(&mut self, now: Time) -> bool {
        let gained = now.since(self.at) / SHARE;
        if gained > 0 {
            self.at = self.at.after(gained * SHARE);
            self.level_us = self.level_us.saturating_add_unsigned(gained).min(DEPTH_US);
        }
        self.level_us > 0
    }

    /// Charges the time of a computation.
    pub fn take(&mut self, us: u64) {
        // A longer time means that the thread was not scheduled.
        self.level_us -= us.min(COMPUTATION_US_MAX) as i64;
    }

    /// Returns the time at which the budget permits a handshake again.
    pub fn opens(&self) -> Time {
        self.at.after((1 - self.level_us.min(0)).unsigned_abs() * SHARE)
    }
}

impl Node {
    /// Returns true if a carrier's next handshake message waits to be computed. The carrier is not read meanwhile.
    pub(super) fn awaits_handshake(&self, id: Id) -> bool {
        let is_early = self.carriers.get(id).is_some_and(|carrier| carrier.is_unauthenticated());
        is_early && self.unauthenticated.waits(id)
    }

    /// Notes the progress of an unauthenticated peer. Returns whether its bytes may be processed now.
    pub(super) fn handshake_progress(&mut self, id: Id) -> Progress {
        let Some(carrier) = self.carriers.get(id).filter(|carrier| carrier.is_unauthenticated()) else {
            return Progress::Ready;
        };
        match carrier.transport.as_ref().map(|transport| transport.next_message()) {
            Some(NextMessage::Part) => {
                self.unauthenticated.reach(id, Step::Part);
                Progress::Part
            }
            Some(NextMessage::Whole) => {
                self.unauthenticated.wait(id);
                Progress::Waits
            }
            Some(NextMessage::Nothing | NextMessage::Cheap) | None => Progress::Ready,
        }
    }

    /// Returns true if a handshake waits and the budget has time for it.
    pub(crate) fn has_handshakes(&self, core: &Core) -> bool {
        let mut budget = self.handshakes;
        self.unauthenticated.has_waiting() && budget.is_open(core.pools.sessions.now)
    }

    /// Computes the handshakes that are due.
    pub(crate) fn run_handshakes(&mut self, core: &mut Core) {
        for _ in 0..HANDSHAKES_PER_TURN {
            if !self.unauthenticated.has_waiting() {
                return;
            }
            if !self.handshakes.is_open(core.pools.sessions.now) {
                return self.arm_handshakes(core);
            }
            let Some((id, evicted)) = self.unauthenticated.serve(core.now_ms, random_u64()) else { return };
            evicted.into_iter().for_each(|evicted| self.evict(core, evicted));
            let since = Instant::now();
            self.run_handshake(core, id);
            self.handshakes.take(since.elapsed().as_micros() as u64);
        }
    }

    /// Schedules a wake-up of the loop for the time at which the budget permits handshakes again.
    fn arm_handshakes(&mut self, core: &mut Core) {
        let budget = &mut self.handshakes;
        let opens = budget.opens();
        if budget.armed.is_none_or(|armed| armed <= core.pools.sessions.now) {
            budget.armed = Some(opens);
            core.one_offs.push(opens.as_us().div_ceil(1000), OneOff::Control(Deadline::Handshakes));
        }
    }

    fn run_handshake(&mut self, core: &mut Core, id: Id) {
        let Some(side) = self.carriers.get(id).map(|carrier| carrier.side) else { return };
        let mut plain = std::mem::take(&mut self.plain);
        let opened = self.open_carrier(core, id, side, &mut plain);
        plain.clear();
        self.plain = plain;
        match opened.and_then(|()| self.flush_carrier(core, id)) {
            Ok(()) => core.enqueue(side),
            Err(failure) => self.carrier_failed(core, id, &failure),
        }
    }

    /// Notes that an unauthenticated peer has proved to hold an admitted key.
    pub(super) fn admitted(&mut self, core: &mut Core, id: Id) {
        self.unauthenticated.reach(id, Step::Admitted);
        let Some(carrier) = self.carriers.get_mut(id) else { return };
        let Some(server) = carrier.server.and_then(|server| self.servers.get(server)) else { return };
        if let (Some(side), Some(transport)) = (core.sides.get(carrier.side), &mut carrier.transport) {
            transport.tune(side, server.timing.options());
        }
    }

    /// Notes that a carrier of a peer has joined its session.
    pub(super) fn joined(&mut self, core: &mut Core, id: Id) {
        self.unauthenticated.join(id, core.now_ms);
    }

    /// Forgets a carrier of a peer that is gone.
    pub(super) fn forget_unauthenticated(&mut self, core: &mut Core, id: Id, carrier: &Carrier) {
        if carrier.link.is_none() {
            return self.unauthenticated.leave(id);
        }
        // The network keeps its recent key for an hour after its last carrier.
        if let Some(side) = core.sides.get(carrier.side) {
            self.unauthenticated.know((&side.endpoint).into(), core.now_ms);
        }
    }

    /// Frees an unauthenticated peer that was displaced.
    pub(super) fn evict(&mut self, core: &mut Core, id: Id) {
        let Some(carrier) = self.carriers.get(id) else { return };
        if let (Some(server), Some(side)) = (carrier.server, core.sides.get(carrier.side)) {
            let peer = side.endpoint.clone();
            self.refused_at_limit(core, server, &peer);
        }
        self.drop_carrier(core, id);
    }

    /// Schedules a search for peers that are too slow for the present crowd.
    pub(super) fn watch_crowd(&mut self, core: &mut Core) {
        if self.unauthenticated.is_crowded() && !std::mem::replace(&mut self.crowd_watched, true) {
            core.one_offs.push(core.now_ms + CROWD_MS, OneOff::Control(Deadline::Crowd));
        }
    }

    /// Fails the peers that are too slow for the present crowd.
    pub(crate) fn thin_crowd(&mut self, core: &mut Core) {
        self.crowd_watched = false;
        for id in self.unauthenticated.overdue(core.now_ms) {
            self.carrier_failed(
                core,
                id,
                &Failure::new(Reason::HandshakeTimeout, "the handshake took too long for the crowd"),
            );
        }
        self.watch_crowd(core);
    }
}

impl Carrier {
    /// Returns true if the peer dialed this node and has not shown a key yet.
    fn is_unauthenticated(&self) -> bool {
        self.server.is_some() && self.stage == CarrierStage::Securing
    }
}

/// Returns a number that a peer cannot guess.
pub(super) fn random_u64() -> u64 {
    u64::from_ne_bytes(super::random())
}

/// Handshake messages that are computed in one turn of the loop.
const HANDSHAKES_PER_TURN: usize = 2;
/// Divisor of the loop's time: handshakes get this part of it.
const SHARE: u64 = 4;
/// Time that handshakes may take at once after a pause.
const DEPTH_US: i64 = 20_000;
/// Upper bound on the time that is charged for one computation.
const COMPUTATION_US_MAX: u64 = 5_000;
/// Interval at which slow peers are searched for in a crowd.
const CROWD_MS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_get_a_quarter_of_the_time() {
        let (mut budget, mut now, mut spent) = (Budget::default(), Time::ZERO, 0);
        while now.as_us() < 10_000_000 {
            if budget.is_open(now) {
                budget.take(150);
                spent += 150;
                now = now.after(150);
            } else {
                let opens = budget.opens();
                assert!(opens > now, "{opens:?} {now:?}");
                now = opens;
            }
        }
        assert!((2_400_000..2_530_000).contains(&spent), "{spent} of 10,000,000 us");
    }
}
