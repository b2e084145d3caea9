//! The view of a connection: every verb on a connection, written once.
//!
//! A [`ConnectionMut`] borrows the loop, and a loop frees no record while it is borrowed. So the connection of a view exists
//! as long as the view does, and no verb of it can meet a stale id: only [`Loop::connection`], which makes the view, answers
//! that. A handler gets a view of its own connection with each callback ([`Cx`](crate::Cx)).

use std::rc::Rc;
use std::time::Duration;

use crate::engine::control::{Loop, Request};
use crate::engine::core::Core;
#[cfg(doc)]
use crate::engine::handler::Handler;
use crate::engine::handler::Handler as AnyHandler;
use crate::engine::status::ConnectionStatus;
use crate::relay::connection::{Connection, Stage};
use crate::relay::dial::{ConnectOptions, Egress};
use crate::relay::half::{Flow, Phase};
use crate::relay::pump;
use crate::relay::side::{Role, Side, SideState};
use crate::relay::timer::TimerClass;
use crate::types::address::{Endpoint, Target};
use crate::types::id::{Id, Kind};
use crate::types::label::Label;
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::{Ending, Failure, Fault, Reason};
use crate::types::verb_error::VerbError;

/// A connection of a borrowed loop, with all verbs on it.
///
/// A verb that the state of the connection can refuse answers a [`VerbError`]. The other verbs return nothing, because no
/// state refuses them:
/// * [`close`](Self::close), [`abort`](Self::abort) and [`close_after_flush`](Self::close_after_flush) end the connection.
///   To end a connection that is over is done already; its first reason stays.
/// * [`relay`](Self::relay), [`relay_bytes`](Self::relay_bytes), [`pause_reading`](Self::pause_reading),
///   [`resume_reading`](Self::resume_reading) and [`set_stage`](Self::set_stage) set how the connection goes on, with a dest
///   or before it has one. A connection that is over does not go on: its stage stays [`Stage::Closed`], which
///   [`stage`](Self::stage) tells, and [`Handler::ended`] has the reason.
/// * [`set_kind`](Self::set_kind) and its like note words for the log and the status.
pub struct ConnectionMut<'a> {
    core: Loop<'a>,
    id: Id,
}

impl Loop<'_> {
    /// Returns the view of a connection.
    ///
    /// # Errors
    /// * [`VerbError::Over`]: the connection is over, or it ended a while ago
    /// * [`VerbError::Stale`]: the id names no connection, or one that ended long ago
    /// * [`VerbError::Invalid`]: the id is that of another kind of record
    pub fn connection(&mut self, id: Id) -> Result<ConnectionMut<'_>, VerbError> {
        match self.connections.get(id) {
            Some(record) if record.stage == Stage::Closed => {
                Err(VerbError::Over(record.reason.unwrap_or(Reason::Internal)))
            }
            Some(_) => Ok(ConnectionMut { core: self.reborrow(), id }),
            None => Err(self.ended.missing(id, Kind::Connection)),
        }
    }
}

/// The connection and its loop.
impl<'a> ConnectionMut<'a> {
    /// Makes the view of a connection that exists.
    pub(crate) fn new(core: Loop<'a>, id: Id) -> ConnectionMut<'a> {
        ConnectionMut { core, id }
    }

    /// Returns the id of the connection.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Returns the loop, for verbs that are not about this connection alone.
    pub fn core(&mut self) -> &mut Loop<'a> {
        &mut self.core
    }

    pub(crate) fn core_ref(&self) -> &Core {
        &self.core
    }

    /// Returns the most bytes of input that a handler is shown at once.
    pub fn input_bytes_max(&self) -> usize {
        self.core.config.limits.input_bytes()
    }

    fn record(&self) -> Option<&Connection> {
        self.core.connections.get(self.id)
    }

    fn record_mut(&mut self) -> Option<&mut Connection> {
        self.core.connections.get_mut(self.id)
    }

    fn side_record(&self, role: Role) -> Option<&Side> {
        self.side_of(role).and_then(|side| self.core.sides.get(side))
    }

    /// Returns the error of a verb that a connection which is over cannot do any more.
    pub(crate) fn check_open(&self) -> Result<(), VerbError> {
        match self.record() {
            Some(record) if record.stage != Stage::Closed => Ok(()),
            Some(record) => Err(VerbError::Over(record.reason.unwrap_or(Reason::Internal))),
            None => Err(VerbError::Stale),
        }
    }
}

/// The state of the connection.
impl ConnectionMut<'_> {
    /// Returns the stage.
    pub fn stage(&self) -> Stage {
        self.record().map_or(Stage::Closed, |record| record.stage)
    }

    /// Returns the class of the timer that runs.
    pub fn timer(&self) -> Option<TimerClass> {
        self.core.timers.class(self.id)
    }

    /// Returns the id of one side, or `None` if there is no dest.
    pub fn side_of(&self, role: Role) -> Option<Id> {
        self.record()?.side(role)
    }

    /// Returns the state of one side, or `None` if there is no dest.
    pub fn state(&self, role: Role) -> Option<SideState> {
        Some(self.side_record(role)?.state)
    }

    /// Returns the address of the peer of one side's socket.
    pub fn peer(&self, role: Role) -> Endpoint {
        self.side_record(role).map_or(Endpoint::Unknown, |side| side.endpoint.clone())
    }

    /// Returns the local address of one side's socket, which the system is asked for. Of a source it is the address given to
    /// [`ConnectionMut::set_source`], if there is one.
    pub fn local(&self, role: Role) -> Endpoint {
        let told = self.record().and_then(|record| record.notes.as_ref()).and_then(|notes| notes.local.as_deref());
        if let (Role::Source, Some(told)) = (role, told) {
            return told.clone();
        }
        self.side_record(role).map_or(Endpoint::Unknown, |side| side.io.local())
    }

    /// Returns the link whose stream one side is, if it is one.
    pub fn link(&self, role: Role) -> Option<Id> {
        Some(self.side_record(role)?.io.stream()?.link)
    }

    /// Returns the name of the front end.
    pub fn kind(&self) -> Option<&Label> {
        self.record().map(|record| &record.kind)
    }

    /// Returns the requested target, once the front end knows it.
    pub fn asked(&self) -> Option<&Target> {
        self.record()?.asked.as_deref()
    }

    /// Returns the description: the front end, the source, and the requested target, such as
    /// `socks5[ipv4[192.0.2.7:5678]->name[example.org:80]]`.
    pub fn description(&self) -> String {
        self.record().map(|record| self.core.described(record).to_string()).unwrap_or_default()
    }

    /// Returns the status, as [`Core::snapshot`] has it.
    pub fn status(&self) -> Option<ConnectionStatus> {
        self.record().map(|record| self.core.connection_status(self.id, record))
    }

    /// Returns the number of bytes relayed from one side to the other.
    pub fn bytes(&self, from: Role) -> u64 {
        self.record().map_or(0, |record| record.halves[from.out()].bytes)
    }

    /// Returns the number of bytes that wait to be written to one side.
    pub fn queued(&self, to: Role) -> usize {
        self.record().map_or(0, |record| record.halves[to.into()].queued())
    }

    /// Returns the ending, and the party that caused it, if the connection is over. A connection that was closed in order
    /// counts as aborted if a side left before it got all bytes.
    pub fn ending(&self) -> Option<(Ending, Fault)> {
        let record = self.record()?;
        record.reason.map(|reason| record.ending(reason))
    }

    /// Returns the detail of the failure, as the log has it.
    pub fn detail(&self) -> Option<&str> {
        self.record()?.notes.as_ref()?.detail.as_deref()
    }

    /// Returns true if one side is connected and silent: it has neither ended nor failed, and no byte of it waits to be
    /// read. This asks the system, because an event may be on its way.
    pub fn is_silent(&self, role: Role) -> bool {
        let (Some(record), Some(side)) = (self.record(), self.side_record(role)) else { return false };
        let (from, to) = (&record.halves[role.out()], &record.halves[role.into()]);
        let is_well = side.state == SideState::Connected && !(side.ready.fin || side.ready.failed || side.ready.error);
        is_well
            && from.phase == Phase::Flowing
            && from.queued() == 0
            && !to.dead
            && side.io.is_silent(&self.core.pools.sessions)
    }
}

/// Connecting the dest.
impl ConnectionMut<'_> {
    /// Connects the dest. [`Handler::connected`] reports the result, never before this call returns; until then reading of
    /// the source is paused. The options are a [`Permit`](crate::Permit) or `None`, or [`ConnectOptions`].
    ///
    /// # Errors
    /// * [`VerbError::Already`]: the connection has a dest
    /// * [`VerbError::Over`]: the connection is over
    pub fn connect(
        &mut self,
        target: impl Into<Rc<Target>>,
        options: impl Into<ConnectOptions>,
    ) -> Result<(), VerbError> {
        self.check_open()?;
        let (id, target, ConnectOptions { permit, egress, address, is_configured }) =
            (self.id, target.into(), options.into());
        let core: &mut Core = &mut self.core;
        let dest = core.new_dest(id, Some(&target)).ok_or(VerbError::Already)?;
        log::debug!(target: "seaprox::connection", id = id.to_string(), asked = target.to_string(); "connecting");
        if let Err(error) = target.proto().require_tcp() {
            core.queues.dialled.push_back((dest, Err(error.into())));
            return Ok(());
        }
        let record = core.connections.get(id).ok_or(VerbError::Stale)?;
        match record.via {
            None => {
                let own = egress.filter(|egress| *egress != Egress::default()).map(Rc::new);
                let egress = own.or_else(|| core.settings_of(record).egress.clone());
                let client = || core.sides.get(record.source).and_then(|side| side.endpoint.ip()).map(|addr| addr.ip());
                let egress = egress.map(|egress| match egress.transparent {
                    true => Rc::new(egress.of_client(client())),
                    false => egress,
                });
                core.dial(dest, &target, address, permit, egress, !is_configured);
            }
            Some(link) if permit.is_none() => core.queues.requests.push_back(Request::OpenStream { dest, link }),
            Some(_) => {
                let why = "a rule asks for its address, which only the far end knows";
                core.queues.dialled.push_back((dest, Err(Failure::new(Reason::NotPermitted, why))));
            }
        }
        Ok(())
    }

    /// Makes the connection reach its dest over a link, or over a link of a group.
    ///
    /// # Errors
    /// * [`VerbError::Already`]: the connection has a dest
    /// * [`VerbError::Invalid`]: the id is not that of a link or a group
    /// * [`VerbError::Stale`]: there is no such link or group any more
    /// * [`VerbError::Over`]: the connection is over
    pub fn route(&mut self, link: Id) -> Result<(), VerbError> {
        self.check_open()?;
        self.core.check_link(Some(link))?;
        match self.record_mut() {
            Some(record) if record.dest.is_none() => record.via = Some(link),
            _ => return Err(VerbError::Already),
        }
        Ok(())
    }

    /// Releases the dest, so that another one can be connected. Bytes that wait for it are dropped.
    ///
    /// # Errors
    /// * [`VerbError::Stale`]: there is no dest
    /// * [`VerbError::Over`]: the connection is over
    pub fn disconnect(&mut self) -> Result<(), VerbError> {
        self.check_open()?;
        self.side_of(Role::Dest).ok_or(VerbError::Stale)?;
        self.core.disconnect(self.id);
        Ok(())
    }

    /// Releases the dest with a reset, so that it cannot take the received part for the whole.
    ///
    /// # Errors
    /// See [`ConnectionMut::disconnect`].
    pub fn reset_dest(&mut self) -> Result<(), VerbError> {
        self.check_open()?;
        let dest = self.side_of(Role::Dest).ok_or(VerbError::Stale)?;
        let core: &mut Core = &mut self.core;
        let io = core.sides.get(dest).map(|dest| &dest.io);
        io.into_iter().for_each(|io| io.close_with_reset(&mut core.pools.sessions));
        self.disconnect()
    }
}

/// Moving bytes.
impl ConnectionMut<'_> {
    /// Sends bytes to one side, ahead of all bytes that are relayed to it: all of them or none. At most one block of bytes
    /// waits, or 512 bytes while the pool has no block.
    ///
    /// # Errors
    /// None of the bytes was taken.
    /// * [`VerbError::Full`]: too many bytes wait; [`Handler::writable`] tells when they have been written
    /// * [`VerbError::Already`]: the side was sent a FIN
    /// * [`VerbError::Stale`]: there is no dest
    /// * [`VerbError::Over`]: the connection is over
    pub fn send(&mut self, to: Role, bytes: &[u8]) -> Result<(), VerbError> {
        self.check_open()?;
        let id = self.id;
        let core: &mut Core = &mut self.core;
        let record = core.connections.get_mut(id).ok_or(VerbError::Stale)?;
        let (half, side) = (to.into(), record.side(to).ok_or(VerbError::Stale)?);
        let half = &mut record.halves[half];
        if half.dead {
            // The side is gone, and the end of the connection is being handled.
            return Ok(());
        }
        if half.phase == Phase::Shut || half.finishing {
            return Err(VerbError::Already);
        }
        if !half.out.push(bytes, &mut core.pools.blocks) {
            return Err(VerbError::Full);
        }
        if record.stage == Stage::Established {
            core.timers.touch(id, core.now_ms);
        }
        let record = core.sides.get_mut(side).ok_or(VerbError::Stale)?;
        if record.state == SideState::Connected && pump::deliver(half, record, &mut core.pools).is_err() {
            // The pump meets the same error and handles it.
            record.ready.error = true;
            core.enqueue(side);
        }
        Ok(())
    }

    /// Sends bytes to the source.
    ///
    /// # Errors
    /// See [`ConnectionMut::send`].
    pub fn reply(&mut self, bytes: &[u8]) -> Result<(), VerbError> {
        self.send(Role::Source, bytes)
    }

    /// Ends the direction to the source of a connection without a dest: the source gets a FIN after all bytes that were sent to
    /// it, and may go on sending.
    ///
    /// # Errors
    /// * [`VerbError::Already`]: the direction has ended, or the connection has a dest, whose own FIN ends it
    /// * [`VerbError::Over`]: the connection is over
    pub fn finish(&mut self) -> Result<(), VerbError> {
        self.check_open()?;
        let id = self.id;
        let core: &mut Core = &mut self.core;
        let record = core.connections.get_mut(id).ok_or(VerbError::Stale)?;
        let half = &mut record.halves[Role::Source.into()];
        if record.dest.is_some() || half.phase != Phase::Flowing {
            return Err(VerbError::Already);
        }
        (half.flow, half.phase, half.finishing) = (Flow::Hold, Phase::Draining, true);
        core.flush(id, Role::Dest);
        Ok(())
    }

    /// Relays both directions until the connection ends. Input that no handler has consumed is relayed first.
    pub fn relay(&mut self) {
        self.core.relay(self.id);
    }

    /// Relays the next `count` bytes of one side's input to the other side. Then the input is the handler's again.
    pub fn relay_bytes(&mut self, from: Role, count: u64) {
        self.core.relay_bytes(self.id, from, count);
    }

    /// Pauses reading of one side's input until [`ConnectionMut::resume_reading`] or [`ConnectionMut::relay_bytes`]. The
    /// peer is held back when the buffers of the system are full.
    pub fn pause_reading(&mut self, role: Role) {
        if let Some(record) = self.record_mut() {
            record.halves[role.out()].flow = Flow::Hold;
        }
    }

    /// Shows one side's input to its handler, including the input that waits.
    pub fn resume_reading(&mut self, role: Role) {
        let (id, core): (Id, &mut Core) = (self.id, &mut self.core);
        let Some(record) = core.connections.get_mut(id) else { return };
        record.halves[role.out()].leave_hook(&mut core.pools.blocks);
        record.halves[role.out()].flow = Flow::Handler;
        if let Some(side) = record.side(role) {
            core.enqueue(side);
        }
    }
}

/// The handlers and the timers of the connection.
impl ConnectionMut<'_> {
    /// Installs a handler of one side, in place of the present one. It takes over when the running call returns.
    ///
    /// # Errors
    /// [`VerbError::Stale`]: there is no dest.
    pub fn set_handler(&mut self, role: Role, handler: Box<dyn AnyHandler>) -> Result<(), VerbError> {
        let side = self.side_of(role).ok_or(VerbError::Stale)?;
        self.core.queues.handlers.push_back((side, handler));
        Ok(())
    }

    /// Sets the stage, and starts the timer of that stage.
    pub fn set_stage(&mut self, stage: Stage) {
        self.core.set_stage(self.id, stage);
    }

    /// Calls [`Handler::woken`] of the source's handler after `time`, unless the connection is over by then. The timer of
    /// the stage keeps running. A connection has one pending wake-up at most.
    ///
    /// # Errors
    /// * [`VerbError::Already`]: a wake-up is pending, whose time does not change
    /// * [`VerbError::Over`]: the connection is over
    pub fn wake_after(&mut self, time: Duration) -> Result<(), VerbError> {
        self.check_open()?;
        let (id, core): (Id, &mut Core) = (self.id, &mut self.core);
        let record = core.connections.get_mut(id).ok_or(VerbError::Stale)?;
        if std::mem::replace(&mut record.notes().is_waking, true) {
            return Err(VerbError::Already);
        }
        core.push_wake(id, time);
        Ok(())
    }
}

/// Notes for the log and the status.
impl ConnectionMut<'_> {
    /// Sets the addresses of the client that a trusted proxy before this node tells: that of the client, and that which the
    /// client connected to. Descriptions, rules and the limit of each network see these from now on.
    ///
    /// # Errors
    /// * [`VerbError::Full`]: the network of the client has reached its limit of connections
    /// * [`VerbError::Over`]: the connection is over
    pub fn set_source(&mut self, client: Endpoint, local: Endpoint) -> Result<(), VerbError> {
        self.check_open()?;
        let (id, core): (Id, &mut Core) = (self.id, &mut self.core);
        let network = PeerNetwork::from(&client);
        let is_counted = core.sources.counts(network);
        if is_counted && !core.sources.enter(network) {
            core.source_is_full(&client);
            return Err(VerbError::Full);
        }
        if let Some(before) = core.counted_source(id) {
            core.sources.leave(before);
        }
        let record = core.connections.get_mut(id).ok_or(VerbError::Stale)?;
        record.is_counted = is_counted;
        record.notes().local = Some(Box::new(local));
        if let Some(source) = core.sides.get_mut(record.source) {
            source.endpoint = client;
        }
        Ok(())
    }

    /// Sets the name of the front end, once the protocol is known.
    pub fn set_kind(&mut self, kind: impl Into<Label>) {
        if let Some(record) = self.record_mut() {
            record.kind = kind.into();
        }
    }

    /// Sets the requested target, if it will not be connected. Does nothing while a target is being connected, because that
    /// one is the requested target.
    pub fn set_asked(&mut self, target: impl Into<Rc<Target>>) {
        self.core.set_asked(self.id, target.into());
    }

    /// Sets the requested address if it is not a valid target: the unusable name as it was received.
    pub fn set_asked_text(&mut self, text: &str) {
        self.core.set_asked_text(self.id, text);
    }

    /// Sets the user.
    pub fn set_user(&mut self, user: &str) {
        if let Some(record) = self.record_mut() {
            record.notes().user = Some(user.into());
        }
    }

    /// Sets the detail of a failure. The first call counts.
    pub fn set_detail(&mut self, detail: &str) {
        if let Some(record) = self.record_mut() {
            record.notes().detail.get_or_insert_with(|| detail.into());
        }
    }

    /// Sets whose fault the end is, if the reason alone does not tell: either end may break a protocol.
    pub fn set_fault(&mut self, fault: Fault) {
        if let Some(record) = self.record_mut() {
            record.notes().fault = Some(fault);
        }
    }
}

/// Ending the connection.
impl ConnectionMut<'_> {
    /// Closes the connection at once. The peers see a reset if the reason implies one, and an orderly close otherwise.
    pub fn close(&mut self, reason: Reason) {
        self.core.close(self.id, reason);
    }

    /// Aborts the connection at once, with a reset to both peers whatever the reason is, so that neither can take the
    /// received part for the whole.
    pub fn abort(&mut self, reason: Reason) {
        self.core.abort(self.id, reason);
    }

    /// Closes the connection after all bytes for its source were written. The dest is released, and the source gets a FIN.
    /// Input of the source is discarded until it closes too, so that it can read the last reply.
    pub fn close_after_flush(&mut self, reason: Reason) {
        self.core.close_after_flush(self.id, reason);
    }
}
