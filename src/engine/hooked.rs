//! The pump of connections with a hook, and the calls of their hooks.
//!
//! It takes the place of [`pump::pump`] for a half whose flow is [`Flow::Hooked`]. In each step it does the first of these that
//! can be done, so nothing is read while something can be delivered, and a FIN or a reset follows every byte before it:
//!
//! ```text
//!   deliver       bytes in a splice pipe, bytes of handlers, bytes that the hook has written
//!   data          new input to the hook
//!   take          input that no handler has consumed
//!   fin           the end of the input to the hook
//!   fetch         read
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::connection_view::ConnectionMut;
use crate::engine::core::Core;
use crate::engine::hook::{Hook, Transit};
use crate::relay::exchange::Exchange;
use crate::relay::half::{Flow, Half, NO_SPLICE, Phase, UNLIMITED};
use crate::relay::pump::{self, Fetched, Pools, Pumped};
use crate::relay::side::{Role, Side, SideState};
use crate::types::id::Id;
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

/// A connection's hook.
pub(crate) struct Hooked {
    hook: Box<dyn Hook>,
    /// The hook knows that the connection has begun to relay.
    is_told: bool,
}

/// One half with its hook and its sides, while its bytes move.
struct HookedHalf<'a> {
    half: &'a mut Half,
    exchange: &'a mut Exchange,
    role: Role,
    from: &'a mut Side,
    to: &'a mut Side,
    hook: &'a mut dyn Hook,
    pools: &'a mut Pools,
    budget: usize,
    /// The hook has consumed or written bytes.
    has_moved: bool,
    has_panicked: bool,
}

/// A call of a hook: its data, or the end of the input.
type Call = fn(&mut dyn Hook, Role, &mut Transit<'_>) -> Result<(), Reason>;

impl ConnectionMut<'_> {
    /// Sets the hook of the connection: it sees the bytes that are relayed from now on, and may change them. The connection is
    /// copied and not spliced from now on.
    ///
    /// # Errors
    /// * [`VerbError::Already`]: the connection has a hook
    /// * [`VerbError::Over`]: the connection is over
    pub fn set_hook(&mut self, hook: Box<dyn Hook>) -> Result<(), VerbError> {
        self.check_open()?;
        let id = self.id();
        self.core().set_hook(id, hook)
    }
}

impl Core {
    fn set_hook(&mut self, id: Id, hook: Box<dyn Hook>) -> Result<(), VerbError> {
        if self.hooks.get(id).is_some() {
            return Err(VerbError::Already);
        }
        let connection = self.connections.get_mut(id).ok_or(VerbError::Stale)?;
        for half in &mut connection.halves {
            half.exchange = Some(Box::default());
            half.full_reads = NO_SPLICE;
            if half.flow == Flow::Relay {
                half.flow = Flow::Hooked;
            }
        }
        self.hooks.insert(id, Hooked { hook, is_told: false });
        self.hook_connected(id);
        Ok(())
    }

    /// Tells a hook that its connection relays, once for each dest.
    pub(crate) fn hook_connected(&mut self, id: Id) {
        let Some(connection) = self.connections.get(id) else { return };
        let relays = connection.halves.iter().any(|half| half.flow == Flow::Hooked);
        let Some(hooked) = self.hooks.get_mut(id).filter(|hooked| relays && !hooked.is_told) else { return };
        hooked.is_told = true;
        if catch_unwind(AssertUnwindSafe(|| hooked.hook.connected())).is_err() {
            self.stats.panics += 1;
            self.close(id, Reason::Internal);
        }
    }

    /// Notes that the dest of a connection is gone, and that another one may follow.
    pub(crate) fn hook_disconnected(&mut self, id: Id) {
        self.hooks.get_mut(id).into_iter().for_each(|hooked| hooked.is_told = false);
    }

    /// Tells the hook of a connection that is over, and drops it.
    pub(crate) fn end_hook(&mut self, id: Id, reason: Reason) {
        let Some(mut hooked) = self.hooks.remove(id) else { return };
        // The hook is dropped within, because that is code of the caller too.
        let end = AssertUnwindSafe(move || hooked.hook.ended(reason));
        self.stats.panics += u64::from(catch_unwind(end).is_err());
    }

    /// Moves the bytes of a half with a hook, about `budget` bytes at most.
    pub(crate) fn pump_hooked(&mut self, id: Id, role: Role, budget: usize) -> Option<Pumped> {
        let connection = self.connections.get_mut(id)?;
        let (from, to) = (connection.side(role)?, connection.side(role.other())?);
        let half = &mut connection.halves[role.out()];
        let (from, to) = self.sides.get_two_mut(from, to)?;
        if from.state != SideState::Connected || to.state != SideState::Connected {
            return None;
        }
        let hook = &mut *self.hooks.get_mut(id)?.hook;
        let mut exchange = half.exchange.take()?;
        let budget = if to.io.stream().is_some() { budget.min(pump::stream::BYTES_PER_TURN) } else { budget };
        let pools = &mut self.pools;
        let (exchanged, has_moved, has_panicked) = (&mut *exchange, false, false);
        let mut hooked =
            HookedHalf { half, exchange: exchanged, role, from, to, hook, pools, budget, has_moved, has_panicked };
        let pumped = hooked.run();
        let (has_moved, has_panicked) = (hooked.has_moved, hooked.has_panicked);
        if let Some(connection) = self.connections.get_mut(id) {
            connection.halves[role.out()].exchange = Some(exchange);
        }
        if has_moved {
            // Input that a hook keeps to itself is no idleness.
            self.timers.touch(id, self.now_ms);
        }
        self.stats.panics += u64::from(has_panicked);
        Some(pumped)
    }
}

impl HookedHalf<'_> {
    fn run(&mut self) -> Pumped {
        loop {
            if let Err(pumped) = self.step() {
                return pumped;
            }
        }
    }

    /// Does one step. The error tells why there is no other one now.
    fn step(&mut self) -> Result<(), Pumped> {
        self.deliver()?;
        if self.exchange.asks {
            return self.pass_data();
        }
        if self.half.left == 0 {
            return Err(Pumped::CountReached);
        }
        if !self.half.store.is_empty() {
            return self.take();
        }
        if self.half.phase != Phase::Flowing {
            return self.pass_fin();
        }
        if !self.from.ready.readable {
            self.exchange.shrink_into(&mut self.half.store, &mut self.pools.blocks);
            return Err(Pumped::Blocked);
        }
        if self.budget == 0 {
            return Err(Pumped::Budget);
        }
        self.fetch()
    }

    /// Writes all bytes that wait for the other side.
    fn deliver(&mut self) -> Result<(), Pumped> {
        let receiver = self.role.other();
        let broken = |error| Pumped::Broken(receiver, error);
        if !pump::deliver(self.half, self.to, self.pools).map_err(broken)? {
            return Err(Pumped::Blocked);
        }
        // The half was spliced before it had a hook.
        self.half.release_splice_pipe(&mut self.pools.splice_pipes);
        while !self.exchange.output().is_empty() {
            let is_last = self.exchange.finished;
            if !is_last {
                pump::no_delay(self.to);
            }
            let (bytes, congested) = (self.exchange.output(), &mut self.half.congested);
            let put = pump::write(bytes, is_last, self.to, congested, &mut self.pools.sessions).map_err(broken)?;
            let Some(put) = put else { return Err(Pumped::Blocked) };
            self.exchange.delivered(put, &mut self.pools.blocks);
            self.half.bytes += put as u64;
        }
        Ok(())
    }

    fn pass_data(&mut self) -> Result<(), Pumped> {
        let (has_moved, goes_on) = self.call(|hook, role, transit| hook.data(role, transit))?;
        self.exchange.asks = goes_on;
        let is_all = self.exchange.is_full() || self.exchange.input().len() as u64 == self.half.left;
        // The hook has all input that it can have.
        if !has_moved && is_all { Err(Pumped::Ended(Reason::ProtocolError)) } else { Ok(()) }
    }

    fn pass_fin(&mut self) -> Result<(), Pumped> {
        if self.exchange.finished {
            return Err(Pumped::Done);
        }
        let (_, goes_on) = self.call(|hook, role, transit| hook.fin(role, transit))?;
        if !goes_on {
            self.exchange.finished = true;
            self.exchange.drop_input(&mut self.pools.blocks);
        }
        Ok(())
    }

    /// Calls the hook. Returns true if it has consumed or written anything, and true if it is to be called again.
    fn call(&mut self, call: Call) -> Result<(bool, bool), Pumped> {
        if self.budget == 0 {
            return Err(Pumped::Budget);
        }
        if !self.exchange.take_block(&mut self.pools.blocks) {
            return Err(Pumped::NoBlock);
        }
        let (hook, role) = (&mut *self.hook, self.role);
        let (input, room) = self.exchange.parts();
        let mut transit = Transit::new(input, room);
        let result = catch_unwind(AssertUnwindSafe(|| call(hook, role, &mut transit)));
        let (consumed, written, calls_again) = transit.done();
        self.exchange.exchanged(consumed, written);
        self.half.spend(consumed);
        self.budget = self.budget.saturating_sub(consumed.max(written).max(1));
        let has_moved = consumed > 0 || written > 0;
        self.has_moved |= has_moved;
        match result {
            Ok(Ok(())) => {
                let goes_on = has_moved && (!self.exchange.input().is_empty() || (calls_again && written > 0));
                Ok((has_moved, goes_on))
            }
            Ok(Err(reason)) => {
                // The end does not wait for a side that takes nothing.
                let _ = self.deliver();
                Err(Pumped::Ended(reason))
            }
            Err(_) => {
                self.has_panicked = true;
                Err(Pumped::Ended(Reason::Internal))
            }
        }
    }

    /// Takes the input that no handler has consumed.
    fn take(&mut self) -> Result<(), Pumped> {
        let wanted = self.wanted();
        match self.exchange.take_from(&mut self.half.store, wanted, &mut self.pools.blocks) {
            None => Err(Pumped::NoBlock),
            Some(0) => Err(Pumped::Ended(Reason::ProtocolError)),
            Some(_) => {
                self.exchange.asks = true;
                Ok(())
            }
        }
    }

    fn fetch(&mut self) -> Result<(), Pumped> {
        if !self.exchange.take_block(&mut self.pools.blocks) {
            return Err(Pumped::NoBlock);
        }
        let wanted = self.wanted();
        let room = self.exchange.room();
        let wished = room.len().min(wanted);
        debug_assert!(wished > 0, "a hook that leaves no room has ended the connection");
        let result = self.from.io.read(&mut room[..wished], &mut self.pools.sessions);
        self.exchange.filled(*result.as_ref().unwrap_or(&0));
        match pump::note(self.half, self.from, result, wished) {
            Ok(Fetched::Bytes(_)) => self.exchange.asks = true,
            Ok(Fetched::End) => {
                self.half.phase = Phase::Draining;
                if self.half.left != UNLIMITED {
                    self.exchange.give_back(&mut self.half.store, &mut self.half.out, &mut self.pools.blocks);
                    return Err(Pumped::EndedEarly);
                }
            }
            Ok(_) => self.exchange.release_if_empty(&mut self.pools.blocks),
            Err(error) => return Err(Pumped::Broken(self.role, error)),
        }
        Ok(())
    }

    /// Returns the number of bytes that may still be fetched, of those that are to be relayed.
    fn wanted(&self) -> usize {
        let left = usize::try_from(self.half.left).unwrap_or(usize::MAX);
        left.saturating_sub(self.exchange.input().len())
    }
}
