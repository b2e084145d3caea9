//! The input of a handler: how it is read into the half of a side, lent to the handler, and put back.
//!
//! The event loop calls these methods and the handler in turn. The input is taken out of its half while the handler sees it,
//! because the handler borrows the whole core.

use std::io;

use crate::engine::core::Core;
use crate::engine::handler::Cause;
use crate::relay::connection::Stage;
use crate::relay::half::{Flow, Phase, Store};
use crate::relay::side::{Role, SideState};
use crate::types::id::Id;

/// The result of reading input for a handler.
pub(crate) enum Input {
    More,
    None,
    Ended(Cause),
}

impl Core {
    /// Returns true if the input of one side is shown to its handler now.
    pub(super) fn is_handlers(&self, id: Id, role: Role) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            connection.stage != Stage::Closed && connection.halves[role.out()].flow == Flow::Handler
        })
    }

    /// Takes the waiting input out of its half, so that the handler can see it while it borrows the core.
    pub(super) fn take_input(&mut self, id: Id, role: Role) -> Option<Store> {
        if !self.is_handlers(id, role) {
            return None;
        }
        Some(self.connections.get_mut(id)?.halves[role.out()].store.take())
    }

    /// Puts back the input that the handler left over, unless it comes from a dest that was released meanwhile.
    pub(super) fn put_back_input(&mut self, id: Id, role: Role, side: Option<Id>, mut input: Store, consumed: usize) {
        input.consume(consumed, &mut self.pools.blocks);
        if let (Role::Dest, Some(connection)) = (role, self.connections.get_mut(id)) {
            // The handler of the dest forwards the bytes in another form, so they count as relayed.
            connection.halves[role.out()].bytes += consumed as u64;
        }
        match self.connections.get_mut(id) {
            Some(connection) if connection.side(role) == side => connection.halves[role.out()].store = input,
            _ => input.clear(&mut self.pools.blocks),
        }
    }

    /// Returns true if bytes that a handler sent along `role`'s half still wait.
    pub(super) fn has_out(&self, id: Id, role: Role) -> bool {
        self.connections.get(id).is_some_and(|connection| !connection.halves[role.out()].out.is_empty())
    }

    /// Reads more input for a handler, up to the limit of what it is shown at once.
    pub(super) fn read_input(&mut self, id: Id, role: Role) -> Input {
        let limit = self.config.limits.input_bytes();
        let Some(connection) = self.connections.get_mut(id) else { return Input::None };
        let side = connection.side(role);
        let half = &mut connection.halves[role.out()];
        let Some(record) = side.and_then(|side| self.sides.get_mut(side)) else { return Input::None };
        if half.phase != Phase::Flowing || half.told {
            let cause = if half.reset { Cause::Reset } else { Cause::Fin };
            return if std::mem::replace(&mut half.told, true) { Input::None } else { Input::Ended(cause) };
        }
        let on_its_way = half.splice_pipe.as_ref().is_some_and(|pipe| pipe.len() > 0);
        if !record.ready.readable || record.state != SideState::Connected || on_its_way {
            half.store.shrink(&mut self.pools.blocks);
            return Input::None;
        }
        let wished = limit.saturating_sub(half.store.len());
        let Some(room) = half.store.room(&mut self.pools.blocks) else {
            side.into_iter().for_each(|side| self.wait_for_block(side));
            return Input::None;
        };
        let wished = wished.min(room.len());
        let result = record.io.read(&mut room[..wished], &mut self.pools.sessions);
        half.store.filled(*result.as_ref().unwrap_or(&0), &mut self.pools.blocks);
        let result = match result {
            Ok(0) => record.note_end().map(|()| 0),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(record.note_error(error)),
            result => result,
        };
        match result {
            Ok(0) => {
                (half.phase, half.told) = (Phase::Draining, true);
                Input::Ended(Cause::Fin)
            }
            Ok(got) => {
                record.note_read(got, wished);
                if connection.stage == Stage::Established {
                    self.timers.touch(id, self.now_ms);
                }
                Input::More
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                record.ready.readable = false;
                half.store.shrink(&mut self.pools.blocks);
                Input::None
            }
            Err(error) => {
                self.input_broke(id, role, &error);
                Input::None
            }
        }
    }
}
