//! The end of a connection, and the release of its dest so that another one can be connected.

use crate::engine::core::Core;
use crate::relay::connection::Stage;
use crate::relay::half::{Flow, Phase, UNLIMITED};
use crate::relay::side::{Role, SideState};
use crate::types::id::Id;
use crate::types::reason::Reason;

impl Core {
    /// Releases the dest, so that another one can be connected. Bytes that wait for it are dropped.
    pub(crate) fn disconnect(&mut self, connection: Id) {
        let Some(record) = self.connections.get_mut(connection) else { return };
        let Some(dest) = record.dest.take() else { return };
        self.stop_awaiting(connection);
        let Some(record) = self.connections.get_mut(connection) else { return };
        if let Some(side) = self.sides.get(dest).filter(|side| side.state == SideState::Connected) {
            record.notes().dialled = Some(side.endpoint.to_string().into());
        }
        let into = &record.halves[Role::Source.out()];
        if let Some(stream) = self.sides.get(dest).and_then(|side| side.io.stream())
            && into.is_cut_short()
        {
            self.pools.sessions.reset(stream);
        }
        for half in &mut record.halves {
            // Bytes of the source that no handler has consumed are for the next dest.
            half.release_splice_pipe(&mut self.pools.splice_pipes);
            if half.phase == Phase::Shut || half.flow.is_relayed() {
                half.store.clear(&mut self.pools.blocks);
            }
            half.exchange.iter_mut().for_each(|exchange| exchange.clear(&mut self.pools.blocks));
        }
        record.halves[Role::Source.out()].out.clear(&mut self.pools.blocks);
        // Bytes that this dest did not take are no loss of the connection, which may go on with another dest.
        (record.halves[Role::Source.out()].lost, record.halves[Role::Source.out()].dead) = (false, false);
        record.has_keepalive = false;
        let fresh = &mut record.halves[Role::Dest.out()];
        fresh.store.clear(&mut self.pools.blocks);
        (fresh.phase, fresh.flow, fresh.told, fresh.reset) = (Phase::Flowing, Flow::Hold, false, false);
        (fresh.left, fresh.full_reads) = (UNLIMITED, 0);
        self.hook_disconnected(connection);
        self.drop_side(dest);
    }

    /// Closes a connection at once. The peers see a reset if the reason implies one, and an orderly close otherwise.
    pub(crate) fn close(&mut self, connection: Id, reason: Reason) {
        let Some(record) = self.connections.get_mut(connection) else { return };
        if record.stage == Stage::Closed {
            return;
        }
        record.reason = Some(reason);
        self.mark_closed(connection);
    }

    /// Aborts a connection at once, with a reset to both peers whatever the reason is, so that neither can take the received
    /// part for the whole.
    pub(crate) fn abort(&mut self, connection: Id, reason: Reason) {
        if let Some(record) = self.connections.get_mut(connection) {
            record.cut = true;
        }
        self.close(connection, reason);
    }

    /// Closes a connection after all bytes for its source were written. The dest is released, and the source gets a FIN.
    /// Input of the source is discarded until it closes too, so that it can read the last reply.
    pub(crate) fn close_after_flush(&mut self, connection: Id, reason: Reason) {
        let Some(record) = self.connections.get(connection) else { return };
        if matches!(record.stage, Stage::Closing | Stage::Closed) {
            return;
        }
        let to_dest = &record.halves[Role::Source.out()];
        let is_cut_short = record.dest.is_some() && (to_dest.lost || to_dest.is_cut_short());
        self.disconnect(connection);
        let Some(record) = self.connections.get_mut(connection) else { return };
        record.reason.get_or_insert(reason);
        let [from_source, to_source] = &mut record.halves;
        from_source.lost = is_cut_short;
        (from_source.flow, from_source.left) = (Flow::Discard, UNLIMITED);
        to_source.flow = Flow::Hold;
        to_source.phase = Phase::Draining;
        let source = record.source;
        self.set_stage(connection, Stage::Closing);
        self.enqueue(source);
    }

    /// Marks a connection as over; it is freed at the end of the turn.
    pub(crate) fn mark_closed(&mut self, connection: Id) {
        if self.stage(connection) != Some(Stage::Closed) {
            self.set_stage(connection, Stage::Closed);
            self.queues.closed.push(connection);
        }
    }
}
