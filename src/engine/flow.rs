//! The flow of a connection: how it acts on the results of the pump, with half-close, failure of a side, and the end.
//!
//! # A side that fails
//! The bytes that a failed side sent before are in its receive queue, or in its stream, and the other side gets them first.
//! The next steps depend on how these bytes end:
//!
//! ```text
//!   broke --> the half into it is dead: its input is thrown away
//!     |
//!     +-- the half out of it goes on --+-- a FIN stood before the reset: the other side gets all of it, the FIN too,
//!     |                                |   and the reset when it has acknowledged them
//!     |                                +-- no FIN: it gets what it takes at once, then the reset
//!     +-- nothing of it is on its way to anybody: the reset, at once
//! ```
//! The linger timer runs until the reset is passed on, and restarts with each byte that moves.

use std::io;

use crate::engine::core::{Core, OneOff};
use crate::relay::connection::{Connection, Stage};
use crate::relay::half::{Flow, Phase, UNLIMITED};
use crate::relay::io::{Io, Unpollable};
use crate::relay::pump::{self, Pumped};
use crate::relay::side::{Role, Side, SideState};
use crate::types::id::Id;
use crate::types::reason::Reason;

/// The next step after a half was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait for an event.
    Wait,
    /// Show the input to the handler.
    Handler,
    /// Tell the handler that the requested count of bytes was relayed.
    CountReached,
}

impl Core {
    /// Moves the half that `role`'s side feeds as far as possible now.
    pub(crate) fn move_half(&mut self, id: Id, role: Role) -> Next {
        let Some(connection) = self.connections.get_mut(id) else { return Next::Wait };
        if connection.stage == Stage::Closed {
            return Next::Wait;
        }
        if connection.halves[role.out()].is_at_rest() && !connection.halves[role.into()].dead {
            let from = connection.side(role).and_then(|from| self.sides.get(from));
            if !from.is_some_and(|from| from.ready.readable) {
                return Next::Wait;
            }
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
            if half.splice_pipe.is_none() && half.bytes - before < self.pools.blocks.block_bytes() as u64 {
                self.interactive_turns = INTERACTIVE_TURNS;
            }
        }
        self.conclude(id, role, pumped)
    }

    fn pump(&mut self, id: Id, role: Role) -> Option<Pumped> {
        let connection = self.connections.get_mut(id)?;
        let limits = &self.config.limits;
        let budget =
            if self.interactive_turns > 0 { limits.relay_bytes_interactive } else { limits.relay_bytes_per_turn };
        let (from, to) = (connection.side(role)?, connection.side(role.other()));
        let half = &mut connection.halves[role.out()];
        if half.phase == Phase::Shut || half.is_discard_paused() {
            return None;
        }
        match half.flow {
            Flow::Relay => {}
            Flow::Hooked => return self.pump_hooked(id, role, budget),
            Flow::Hold | Flow::Handler | Flow::Discard => {
                let left = half.left;
                let pumped = pump::discard(half, role, self.sides.get_mut(from)?, &mut self.pools, budget);
                // Bytes that a client sends after the last reply have no receiver, and no bound.
                half.lost |= half.left < left;
                return Some(pumped);
            }
        }
        let (from, to) = self.sides.get_two_mut(from, to?)?;
        if from.state != SideState::Connected || to.state != SideState::Connected {
            return None;
        }
        Some(pump::pump(half, role, from, to, &mut self.pools, budget))
    }

    fn conclude(&mut self, id: Id, role: Role, pumped: Pumped) -> Next {
        match pumped {
            Pumped::Blocked => self.cut_if_reset(id, role),
            Pumped::Budget => self.side(id, role).into_iter().for_each(|side| self.enqueue(side)),
            Pumped::NoBlock => self.side(id, role).into_iter().for_each(|side| self.wait_for_block(side)),
            Pumped::Done => self.shut(id, role),
            Pumped::DiscardLimit if self.is_owed(id, role) => self.pause_discard(id, role),
            Pumped::DiscardLimit => self.end_lingering(id),
            Pumped::CountReached | Pumped::EndedEarly => {
                let next = if matches!(pumped, Pumped::CountReached) { Next::CountReached } else { Next::Handler };
                if let Some(connection) = self.connections.get_mut(id) {
                    let half = &mut connection.halves[role.out()];
                    (half.flow, half.left) = (Flow::Handler, UNLIMITED);
                }
                return next;
            }
            Pumped::Ended(reason) => {
                let notes = self.connections.get_mut(id).map(Connection::notes);
                notes.into_iter().for_each(|notes| _ = notes.detail.get_or_insert_with(|| ENDED_BY_HOOK.into()));
                self.close(id, reason);
            }
            Pumped::Broken(broken, error) if broken == role => self.input_broke(id, role, &error),
            Pumped::Broken(broken, error) => self.broke(id, broken, &error),
        }
        Next::Wait
    }

    /// Returns true if one side has not got all bytes yet and the linger timer bounds the time.
    fn is_owed(&self, id: Id, role: Role) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        let is_on_its_way = connection.halves[role.into()].phase != Phase::Shut || !self.is_taken(id, role.other());
        is_on_its_way && !self.settings_of(connection).timeouts.linger.is_zero()
    }

    /// Stops reading a side that sends on and on and is still owed bytes. A part of its input is discarded at a later time
    /// again: a system whose receive queue is full may drop packets with the acknowledgements in them, so the side
    /// would not get its bytes.
    fn pause_discard(&mut self, id: Id, role: Role) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.halves[role.out()].discard_paused = true;
        self.one_offs.push(self.now_ms + DISCARD_PAUSE_MS, OneOff::Discard(id, role));
    }

    /// Discards some more input of a side that is still owed bytes, unless its input has got another use meanwhile.
    pub(crate) fn discard_more(&mut self, id: Id, role: Role) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let half = &mut connection.halves[role.out()];
        let is_paused = half.is_discard_paused();
        half.discard_paused = false;
        if !is_paused {
            return;
        }
        half.left = DISCARD_BYTES_MORE;
        if let Some(side) = connection.side(role) {
            self.enqueue(side);
        }
    }

    /// Passes the end of input on after all bytes of a half were delivered, and closes the connection if that was the last
    /// half.
    fn shut(&mut self, id: Id, role: Role) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.halves[role.out()].phase = Phase::Shut;
        let discarded = connection.halves[role.out()].flow == Flow::Discard;
        if !discarded {
            connection.reason.get_or_insert(if role == Role::Source { Reason::SourceFin } else { Reason::DestFin });
        }
        if connection.is_over() {
            // The close implies a shutdown.
            return self.mark_closed(id);
        }
        let to = connection.side(role.other());
        if connection.stage == Stage::Established {
            self.start_timer(id);
        }
        if discarded {
            return;
        }
        if let Some(side) = to.and_then(|to| self.sides.get_mut(to)) {
            // A side that is gone reports that when it is read.
            let _ = side.io.shutdown_write(&mut self.pools.sessions);
        }
        if self.connections.get(id).is_some_and(|connection| connection.halves[role.into()].dead) {
            self.pass_reset(id, role);
        }
    }

    /// Writes bytes that a handler sent earlier, and passes the end on after a last reply. Returns true if no byte is left.
    pub(crate) fn flush(&mut self, id: Id, role: Role) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return true };
        let to = connection.side(role.other());
        let half = &mut connection.halves[role.out()];
        let Some(to) = to.and_then(|to| self.sides.get_mut(to)) else { return true };
        if to.state != SideState::Connected {
            return half.out.is_empty();
        }
        match pump::deliver(half, to, &mut self.pools) {
            Ok(true) if half.phase == Phase::Draining && (connection.stage == Stage::Closing || half.finishing) => {
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

    /// Handles a side that takes no more bytes, after a failed write or an event. The other side gets the bytes that are on
    /// their way to it, and then the reset.
    pub(crate) fn broke(&mut self, id: Id, role: Role, error: &io::Error) {
        self.note_failure(id, role, error);
        let sent_all = self.has_sent_all(id, role);
        let Some(connection) = self.connections.get(id) else { return };
        let is_socket = self.side_io(id, role).is_some_and(|io| matches!(io, Io::Tcp(_) | Io::Unix(_)));
        let goes_on = match connection.halves[role.out()].flow {
            _ if connection.stage == Stage::Closing => false,
            Flow::Relay | Flow::Hooked => sent_all || is_socket,
            // The handler of the source may still have a reply for its client.
            Flow::Handler => role == Role::Dest && connection.stage != Stage::Connecting,
            Flow::Hold => role == Role::Dest && (sent_all || is_socket),
            Flow::Discard => false,
        };
        if connection.stage == Stage::Established && connection.halves[role.out()].flow.is_relayed() && !goes_on {
            return self.pass_reset(id, role);
        }
        if !goes_on {
            return self.close(id, self.reset_reason(id, role));
        }
        if connection.halves[role.into()].dead {
            return;
        }
        self.lose_half_into(id, role);
        let Some(connection) = self.connections.get(id).filter(|connection| connection.stage != Stage::Closed) else {
            return;
        };
        if connection.halves[role.out()].phase == Phase::Shut {
            return self.pass_reset(id, role);
        }
        let sides = [Some(connection.source), connection.dest];
        sides.into_iter().flatten().for_each(|side| self.enqueue(side));
    }

    /// Handles a failed read. All bytes that the side had sent in order have been read.
    pub(crate) fn input_broke(&mut self, id: Id, role: Role, error: &io::Error) {
        self.note_failure(id, role, error);
        let Some(connection) = self.connections.get_mut(id) else { return };
        let sent = &mut connection.halves[role.out()];
        let is_answering = !matches!(connection.stage, Stage::Connecting | Stage::Closing);
        if role == Role::Dest && sent.flow == Flow::Handler && is_answering && !sent.reset {
            // The handler may still have a reply for the source.
            (sent.phase, sent.reset) = (Phase::Draining, true);
            let dest = connection.dest;
            if !connection.halves[role.into()].dead {
                self.lose_half_into(id, role);
            }
            return dest.into_iter().for_each(|dest| self.enqueue(dest));
        }
        if connection.stage == Stage::Closing {
            return self.close(id, self.reset_reason(id, role));
        }
        self.pass_reset(id, role);
    }

    /// Records a failure for the log.
    fn note_failure(&mut self, id: Id, role: Role, error: &io::Error) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        log::debug!(target: "seaprox::connection", conn = id.to_string(), side = role.as_str(), error = error.to_string(); "broke");
        if !is_plain_end(error) {
            connection.notes().detail.get_or_insert_with(|| error.to_string().into());
        }
        if let Some(side) = connection.side(role).and_then(|side| self.sides.get_mut(side)) {
            side.ready.error = false;
        }
    }

    /// Returns true if the input of a side is known to be complete: its FIN has arrived, or it is a stream that still sends.
    fn has_sent_all(&self, id: Id, role: Role) -> bool {
        let Some(connection) = self.connections.get(id) else { return false };
        let side = connection.side(role).and_then(|side| self.sides.get(side));
        // A stream that takes no more bytes may still send.
        let is_sending = |side: &Side| side.io.stream().is_some_and(|stream| self.pools.sessions.is_sending(stream));
        connection.halves[role.out()].phase != Phase::Flowing
            || side.is_some_and(|side| side.ready.fin || is_sending(side))
    }

    /// Discards bytes for a side that takes no more, and those that are still to be relayed to it.
    fn lose_half_into(&mut self, id: Id, role: Role) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let half = &mut connection.halves[role.into()];
        if half.phase == Phase::Shut {
            half.dead = true;
            return;
        }
        let from = connection.side(role.other());
        let half = &mut connection.halves[role.into()];
        if half.flow.is_relayed() {
            if let Some(stream) = from.and_then(|from| self.sides.get(from)?.io.stream()) {
                // The far end discards the bytes that are still to come.
                self.pools.sessions.stop(stream);
            }
            half.lost |= half.queued() > 0;
            (half.flow, half.left) = (Flow::Discard, DISCARD_BYTES_MAX);
            half.clear(&mut self.pools.blocks, &mut self.pools.splice_pipes);
        } else {
            // Input that the handler has not consumed stays available to it.
            half.lost |= half.queued() > half.store.len();
            half.out.clear(&mut self.pools.blocks);
            half.release_splice_pipe(&mut self.pools.splice_pipes);
        }
        half.dead = true;
        if half.phase == Phase::Draining && half.flow == Flow::Discard {
            half.phase = Phase::Shut;
        }
        if connection.is_over() {
            return self.mark_closed(id);
        }
        if connection.stage == Stage::Established {
            self.start_timer(id);
        }
    }

    /// Resets the other side when it takes no more of the bytes that a side sent before its reset, unless a FIN or a handler
    /// delimits or needs these bytes.
    fn cut_if_reset(&mut self, id: Id, role: Role) {
        let Some(connection) = self.connections.get(id) else { return };
        let sent = &connection.halves[role.out()];
        let is_plain = sent.left == UNLIMITED || role == Role::Source;
        if connection.halves[role.into()].dead && sent.flow.is_relayed() && is_plain && !self.has_sent_all(id, role) {
            self.close(id, self.reset_reason(id, role));
        }
    }

    /// Passes the reset of a side on, after the bytes that the side had sent: when the other side has acknowledged them, or
    /// when the linger timer has passed.
    fn pass_reset(&mut self, id: Id, role: Role) {
        let reason = self.reset_reason(id, role);
        let is_dead = |connection: &crate::relay::connection::Connection| connection.halves[role.into()].dead;
        if !self.connections.get(id).is_some_and(is_dead) {
            self.lose_half_into(id, role);
        }
        let Some(connection) = self.connections.get_mut(id).filter(|connection| connection.stage != Stage::Closed)
        else {
            return;
        };
        // A reset overrides the reason of an earlier orderly close.
        connection.reason = Some(reason);
        if self.is_taken(id, role) {
            return self.close(id, reason);
        }
        if let Some(connection) = self.connections.get_mut(id)
            && connection.halves[role.out()].phase != Phase::Shut
        {
            // All input has been read; each further read would fail and lead here again.
            connection.halves[role.out()].flow = Flow::Hold;
        }
        self.start_timer(id);
        self.one_offs.push(self.now_ms + u64::from(FIRST_LOOK_MS), OneOff::Reset(id, role, FIRST_LOOK_MS));
    }

    /// Checks again whether a reset can be passed on.
    pub(crate) fn pass_reset_again(&mut self, id: Id, role: Role, waited_ms: u32) {
        let Some(connection) = self.connections.get(id) else { return };
        if connection.stage != Stage::Established || !connection.halves[role.into()].dead {
            return;
        }
        if self.is_taken(id, role) {
            return self.close(id, self.reset_reason(id, role));
        }
        let wait_ms = (2 * waited_ms).min(LOOK_MS_MAX);
        self.one_offs.push(self.now_ms + u64::from(wait_ms), OneOff::Reset(id, role, wait_ms));
    }

    /// Returns true if a reset would destroy no bytes that the other side is entitled to. The peer of a TCP socket is
    /// entitled to bytes before a FIN; bytes before a reset alone were sent and are not waited for. A reset of a stream
    /// destroys all bytes that have not arrived.
    fn is_taken(&self, id: Id, role: Role) -> bool {
        let Some(connection) = self.connections.get(id) else { return true };
        let is_shut = connection.halves[role.out()].phase == Phase::Shut;
        let wait = !self.settings_of(connection).timeouts.linger.is_zero() && connection.stage == Stage::Established;
        match self.side_io(id, role.other()).filter(|_| wait) {
            Some(io @ (Io::Tcp(_) | Io::Stream(_))) if is_shut => io.is_acknowledged(&self.pools.sessions),
            Some(Io::Stream(stream)) => {
                self.pools.sessions.is_acknowledged(*stream) || self.pools.sessions.is_out_of_credit(*stream)
            }
            _ => true,
        }
    }

    fn side_io(&self, id: Id, role: Role) -> Option<&Io> {
        Some(&self.sides.get(self.side(id, role)?)?.io)
    }

    /// Returns the reason of a connection that a side has reset. A connection that was closing already keeps its reason.
    fn reset_reason(&self, id: Id, role: Role) -> Reason {
        let reset = if role == Role::Source { Reason::SourceReset } else { Reason::DestReset };
        match self.connections.get(id) {
            Some(connection) if connection.stage == Stage::Closing => connection.reason.unwrap_or(reset),
            _ => reset,
        }
    }

    /// Handles an error that an event announced: takes it from the socket and acts on it.
    pub(crate) fn announce_error(&mut self, id: Id, role: Role) {
        let Some(side) = self.side(id, role).and_then(|side| self.sides.get_mut(side)) else { return };
        side.ready.error = false;
        if let Some(error) = side.io.take_error(&self.pools.sessions) {
            let error = side.note_error(error);
            self.broke(id, role, &error);
        }
    }
}

impl Side {
    /// Marks the directions that cannot block as ready.
    pub(crate) fn set_unpollable(&mut self, unpollable: Unpollable) {
        self.ready.always_writable = unpollable.write;
        self.ready.readable |= unpollable.read;
        self.ready.writable |= unpollable.write;
    }
}

/// Returns true if an error means only that the other end is gone, which the reason tells as well.
fn is_plain_end(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted | Kind::NotConnected)
}

/// Bytes that are discarded for a side that is gone, before the other side is reset. Until then the other side may finish a
/// send and come to read its bytes; a peer that sends more than all buffers hold does not read.
pub(crate) const DISCARD_BYTES_MAX: u64 = 16 << 20;
/// Bytes that are discarded behind each pause for a side that sends on and is owed bytes: 16 MiB a second.
const DISCARD_BYTES_MORE: u64 = 4 << 20;
const DISCARD_PAUSE_MS: u64 = 250;
const ENDED_BY_HOOK: &str = "the hook of the connection ended it";
/// First and longest pause between two checks if a side has acknowledged the bytes before a reset.
const FIRST_LOOK_MS: u32 = 5;
const LOOK_MS_MAX: u32 = 250;
/// Turns without a small transfer after which bulk transfers use their full budget again. A pause between two keystrokes is
/// longer, but the first keystroke meets at most one turn with full budgets.
const INTERACTIVE_TURNS: u32 = 64;
