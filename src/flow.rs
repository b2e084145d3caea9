//! What follows from what the pump says: half-close, failure of one side, the end of a connection.

use std::io;

use crate::connection::Stage;
use crate::core::Core;
use crate::half::{Flow, Phase, UNLIMITED};
use crate::id::Id;
use crate::io::Unpollable;
use crate::reason::Reason;
use crate::relay::{self, Pumped};
use crate::side::{Role, Side, State};

/// Whose turn it is after a half has been moved along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nobody's, until something happens.
    Wait,
    /// The handler's: the input is its own.
    Handler,
    /// The handler's, and it has something to hear: as many bytes as it asked for have been relayed.
    Passed,
}

impl Core {
    /// Moves the half that `role`'s side feeds, as far as it goes now.
    pub(crate) fn move_half(&mut self, id: Id, role: Role) -> Next {
        let Some(connection) = self.connections.get_mut(id) else { return Next::Wait };
        if connection.stage == Stage::Closed {
            return Next::Wait;
        }
        let flow = connection.halves[role.out()].flow;
        if flow == Flow::Hold || flow == Flow::Handler {
            self.flush(id, role);
            return if flow == Flow::Handler { Next::Handler } else { Next::Wait };
        }
        let before = connection.halves[role.out()].bytes;
        let Some(pumped) = self.pump(id, role) else { return Next::Wait };
        if let Some(connection) = self.connections.get(id)
            && connection.halves[role.out()].bytes != before
        {
            self.timers.touch(id, self.now_ms);
            let half = &connection.halves[role.out()];
            if half.pipe.is_none() && half.bytes - before < self.pools.blocks.block_bytes() as u64 {
                self.company = COMPANY_TURNS;
            }
        }
        self.conclude(id, role, pumped)
    }

    fn pump(&mut self, id: Id, role: Role) -> Option<Pumped> {
        let connection = self.connections.get_mut(id)?;
        let limits = &self.config.limits;
        let budget = if self.company > 0 { limits.relay_bytes_in_company } else { limits.relay_bytes_per_turn };
        let (from, to) = (connection.side(role)?, connection.side(role.other()));
        let half = &mut connection.halves[role.out()];
        if half.phase == Phase::Shut {
            return None;
        }
        if half.flow == Flow::Discard {
            let left = half.left;
            let pumped = relay::discard(half, role, self.sides.get_mut(from)?, &mut self.pools, budget);
            // What a client still sends after our last words has no bound, and is owed to nobody.
            half.lost |= half.left < left;
            return Some(pumped);
        }
        let (from, to) = self.sides.get_two_mut(from, to?)?;
        if from.state != State::Connected || to.state != State::Connected {
            return None;
        }
        Some(relay::pump(half, role, from, to, &mut self.pools, budget))
    }

    fn conclude(&mut self, id: Id, role: Role, pumped: Pumped) -> Next {
        let side = self.side(id, role);
        match pumped {
            Pumped::Blocked => {}
            Pumped::Budget => side.into_iter().for_each(|side| self.enqueue(side)),
            Pumped::NoBlock => {
                side.into_iter().for_each(|side| self.wait_for_block(side));
            }
            Pumped::Done => self.shut(id, role),
            // What the sender is still owed goes on. No more is read of it, and the linger timer ends what it does not take.
            Pumped::Enough if self.is_owed(id, role) => {}
            Pumped::Enough => self.end_lingering(id),
            Pumped::Passed | Pumped::Short => {
                let next = if matches!(pumped, Pumped::Passed) { Next::Passed } else { Next::Handler };
                if let Some(connection) = self.connections.get_mut(id) {
                    let half = &mut connection.halves[role.out()];
                    (half.flow, half.left) = (Flow::Handler, UNLIMITED);
                }
                return next;
            }
            Pumped::Broken(role, error) => self.broke(id, role, &error),
        }
        Next::Wait
    }

    /// Whether one end has not got all yet that was sent to it, and a timer bounds how long that may take.
    fn is_owed(&self, id: Id, role: Role) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        connection.halves[role.into()].phase != Phase::Shut && !self.config.timeouts.linger.is_zero()
    }

    /// A half has delivered everything after the end of its input: passes the end on, and sees whether that was all.
    fn shut(&mut self, id: Id, role: Role) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.halves[role.out()].phase = Phase::Shut;
        let discarded = connection.halves[role.out()].flow == Flow::Discard;
        if !discarded {
            connection.reason.get_or_insert(if role == Role::Source { Reason::SourceFin } else { Reason::DestFin });
        }
        if connection.is_over() {
            // The close says what a shutdown would say.
            return self.close(id);
        }
        let to = connection.side(role.other());
        if connection.stage == Stage::Established {
            self.start_timer(id);
        }
        if discarded {
            return;
        }
        if let Some(side) = to.and_then(|to| self.sides.get_mut(to)) {
            // A side that is gone already says so when it is read.
            let _ = side.io.shutdown_write(&mut self.pools.links);
        }
    }

    /// Writes what a handler sent and did not fit at once; passes our last words on when they are all gone. Whether
    /// nothing waits any more.
    pub(crate) fn flush(&mut self, id: Id, role: Role) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let to = connection.side(role.other());
        let half = &mut connection.halves[role.out()];
        let Some(to) = to.and_then(|to| self.sides.get_mut(to)) else { return true };
        if to.state != State::Connected {
            return half.out.is_empty();
        }
        match relay::deliver(half, to, &mut self.pools) {
            Ok(true) if connection.stage == Stage::Closing && half.phase == Phase::Draining => {
                self.shut(id, role);
                true
            }
            Ok(delivered) => delivered,
            Err(error) => {
                self.broke(id, role.other(), &error);
                true
            }
        }
    }

    /// A side failed. What it had sent in order before is still owed to the other side; otherwise both are cut.
    pub(crate) fn broke(&mut self, id: Id, role: Role, error: &io::Error) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        log::debug!(target: "seaprox::connection", conn = id.to_string(), side = role.as_str(), error = error.to_string(); "broke");
        if !is_plain_end(error) {
            connection.notes().detail.get_or_insert_with(|| error.to_string().into());
        }
        let mut fin = false;
        if let Some(side) = connection.side(role).and_then(|side| self.sides.get_mut(side)) {
            // A stream may take no more and still send.
            let is_sending = side.io.stream().is_some_and(|stream| self.pools.links.is_sending(stream));
            (fin, side.ready.error) = (side.ready.fin || is_sending, false);
        }
        let sent = &mut connection.halves[role.out()];
        let is_answering = matches!(connection.stage, Stage::Established | Stage::KeepAlive);
        if role == Role::Dest && sent.flow == Flow::Handler && is_answering && !sent.reset {
            // Its handler may still have an answer for the source.
            (sent.phase, sent.reset) = (Phase::Draining, true);
            return connection.dest.into_iter().for_each(|dest| self.enqueue(dest));
        }
        let sent_all = fin || connection.halves[role.out()].phase != Phase::Flowing;
        if connection.stage == Stage::Closing || !sent_all {
            let reason = if role == Role::Source { Reason::SourceReset } else { Reason::DestReset };
            let reason = if connection.stage == Stage::Closing { connection.reason.unwrap_or(reason) } else { reason };
            return self.end(id, reason);
        }
        let lost = &mut connection.halves[role.into()];
        if lost.phase == Phase::Shut {
            return;
        }
        (lost.flow, lost.left, lost.lost) = (Flow::Discard, DISCARD_BYTES_MAX, lost.queued() > 0);
        lost.clear(&mut self.pools.blocks, &mut self.pools.pipes);
        if lost.phase == Phase::Draining {
            lost.phase = Phase::Shut;
        }
        if connection.is_over() {
            return self.close(id);
        }
        let sides = [Some(connection.source), connection.dest];
        self.start_timer(id);
        sides.into_iter().flatten().for_each(|side| self.enqueue(side));
    }

    /// A side whose event announced an error: finds out which, and lets it have its effect.
    pub(crate) fn announce_error(&mut self, id: Id, role: Role) {
        let Some(side) = self.side(id, role).and_then(|side| self.sides.get_mut(side)) else { return };
        side.ready.error = false;
        if let Some(error) = side.io.take_error(&self.pools.links) {
            self.broke(id, role, &error);
        }
    }
}

impl Side {
    /// What no event tells of, it can always do.
    pub(crate) fn set_unpollable(&mut self, unpollable: Unpollable) {
        self.ready.unpollable = unpollable;
        self.ready.readable |= unpollable.read;
        self.ready.writable |= unpollable.write;
    }
}

/// Whether an error says no more than that the other end is gone, which the reason says too.
fn is_plain_end(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted | Kind::NotConnected)
}

/// Bytes that are thrown away for a side that is gone, before the other side is cut off. It is let send what it has under
/// way, so that it can come to read what it is owed; whoever sends more than all buffers hold is not about to read.
const DISCARD_BYTES_MAX: u64 = 16 << 20;
/// Turns without anybody who sends little, after which transfers take their full share again: a pause between two
/// keystrokes is longer, but the first of them meets at most one turn with full shares.
const COMPANY_TURNS: u32 = 64;
