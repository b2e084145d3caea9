//! Handlers: the callbacks of a side, and the view of the loop that they get.
//!
//! Front ends, the C interface and scripts implement [`Handler`]. It is the control plane: while a side relays, no callback
//! runs for its bytes. A callback may call any verb of the loop through its [`Cx`]. Records that it closes are freed at the
//! end of the turn, and a handler that it installs takes over when it returns.

use std::rc::Rc;
use std::time::Duration;

use crate::engine::control::Loop;
#[cfg(doc)]
use crate::engine::core::Core;
use crate::relay::connection::Stage;
use crate::relay::dial::{ConnectOptions, Permit};
use crate::relay::side::Role;
use crate::types::address::{Endpoint, Target};
use crate::types::id::Id;
use crate::types::reason::{Failure, Fault, Reason};

/// The callbacks of a side.
///
/// A dest has no handler of its own unless one is installed. Its callbacks go to the handler of its source, which can tell
/// the two apart by [`Cx::role`]. A callback that panics ends its own connection with [`Reason::Internal`].
pub trait Handler {
    /// Called when a client was accepted.
    fn opened(&mut self, cx: &mut Cx<'_>);

    /// Called when there is input: all bytes that are not consumed yet. Returns the number of consumed bytes; 0 if more
    /// input is needed. Input that is left when the side begins to relay is relayed first.
    ///
    /// After [`Core::relay_bytes`] has relayed its count of bytes, this is called even if there is no input.
    ///
    /// A handler that consumes nothing of [`Core::input_bytes_max`] bytes ends the connection with
    /// [`Reason::ProtocolError`].
    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize;

    /// Called when all sent bytes have been written, after some of them had to wait.
    fn writable(&mut self, _cx: &mut Cx<'_>) {}

    /// Called when the dest is connected, or could not be connected. A dest that failed is gone, and another target may be
    /// tried. In both cases the handshake timer restarts, and the source's input is the handler's until it decides
    /// otherwise.
    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>);

    /// Called when the deadline of the stage has passed (handshake or keep-alive). Unless overridden, it ends the
    /// connection.
    fn timeout(&mut self, cx: &mut Cx<'_>) {
        cx.close(Reason::HandshakeTimeout);
    }

    /// Called when the time given to [`Cx::wake_after`] has passed.
    fn woken(&mut self, _cx: &mut Cx<'_>) {}

    /// Called when the side gives no more input, or when the whole connection is over.
    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Fin => cx.close(cx.fin_reason()),
            Cause::Reset => cx.close(Reason::DestReset),
            Cause::Over(_) => {}
        }
    }
}

/// The object that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The input of this side ended in order while it was the handler's. Bytes that are sent to the side still arrive.
    Fin,
    /// The dest was reset while its input was the handler's. The source can still get a reply.
    Reset,
    /// The connection is over. The source's handler is told once, and no other callback follows.
    Over(Reason),
}

/// A handler's view of the loop: its own connection, and all verbs of the [`Core`] and of links.
pub struct Cx<'a> {
    core: Loop<'a>,
    side: Id,
    connection: Id,
    role: Role,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(core: Loop<'a>, side: Id, connection: Id, role: Role) -> Cx<'a> {
        Cx { core, side, connection, role }
    }

    /// Returns the loop, for verbs that are not about this connection alone.
    pub fn core(&mut self) -> &mut Loop<'a> {
        &mut self.core
    }

    /// Returns the side that the callback is about.
    pub fn side(&self) -> Id {
        self.side
    }

    /// Returns the connection of the side.
    pub fn connection(&self) -> Id {
        self.connection
    }

    /// Returns the role of the side: source or dest.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns one side of the connection.
    pub fn side_of(&self, role: Role) -> Option<Id> {
        self.core.side(self.connection, role)
    }

    /// Returns the stage of the connection.
    pub fn stage(&self) -> Option<Stage> {
        self.core.stage(self.connection)
    }

    /// Returns the address of the peer of one side's socket.
    pub fn peer(&self, role: Role) -> Endpoint {
        self.side_of(role).map_or(Endpoint::Unknown, |side| self.core.peer(side))
    }

    /// Returns the local address of one side's socket. This asks the system.
    pub fn local(&self, role: Role) -> Endpoint {
        self.side_of(role).map_or(Endpoint::Unknown, |side| self.core.local(side))
    }

    /// Returns the most bytes of input that a handler is shown at once.
    pub fn input_bytes_max(&self) -> usize {
        self.core.input_bytes_max()
    }

    /// Connects the dest. See [`Core::connect`].
    pub fn connect(&mut self, target: Rc<Target>, permit: Option<Permit>) {
        self.core.connect(self.connection, target, permit);
    }

    /// Connects the dest with further options. See [`Core::connect_with_options`].
    pub fn connect_with_options(&mut self, target: Rc<Target>, options: ConnectOptions) {
        self.core.connect_with_options(self.connection, target, options);
    }

    /// Returns true if one side is connected, and has neither ended nor sent anything. See [`Core::is_silent`].
    pub fn is_silent(&self, role: Role) -> bool {
        self.core.is_silent(self.connection, role)
    }

    /// Releases the dest with a reset. See [`Core::reset_dest`].
    pub fn reset_dest(&mut self) {
        self.core.reset_dest(self.connection);
    }

    /// Releases the dest. See [`Core::disconnect`].
    pub fn disconnect(&mut self) {
        self.core.disconnect(self.connection);
    }

    /// Sends bytes to the source. Returns true if all bytes were taken. See [`Core::send`].
    pub fn reply(&mut self, bytes: &[u8]) -> bool {
        self.core.send(self.connection, Role::Source, bytes)
    }

    /// Sends bytes to one side. Returns true if all bytes were taken. See [`Core::send`].
    pub fn send(&mut self, to: Role, bytes: &[u8]) -> bool {
        self.core.send(self.connection, to, bytes)
    }

    /// Relays both directions until the connection ends. See [`Core::relay`].
    pub fn relay(&mut self) {
        self.core.relay(self.connection);
    }

    /// Relays the next `count` bytes of one side's input. See [`Core::relay_bytes`].
    pub fn relay_bytes(&mut self, from: Role, count: u64) {
        self.core.relay_bytes(self.connection, from, count);
    }

    /// Pauses reading of one side's input. See [`Core::pause_reading`].
    pub fn pause_reading(&mut self, role: Role) {
        self.core.pause_reading(self.connection, role);
    }

    /// Shows one side's input to its handler. See [`Core::resume_reading`].
    pub fn resume_reading(&mut self, role: Role) {
        self.core.resume_reading(self.connection, role);
    }

    /// Sets the stage of the connection, and starts the timer of that stage.
    pub fn set_stage(&mut self, stage: Stage) {
        self.core.set_stage(self.connection, stage);
    }

    /// Calls [`Handler::woken`] of the source's handler after `time`. See [`Core::wake_after`].
    pub fn wake_after(&mut self, time: Duration) {
        self.core.wake_after(self.connection, time);
    }

    /// Sets the protocol of the front end, for descriptions, once it is known.
    pub fn set_kind(&mut self, kind: &'static str) {
        self.core.set_kind(self.connection, kind);
    }

    /// Sets the user for the log.
    pub fn set_user(&mut self, user: &str) {
        self.core.set_user(self.connection, user);
    }

    /// Sets the requested target for the log, if it will not be connected. See [`Core::set_asked`].
    pub fn set_asked(&mut self, target: Rc<Target>) {
        self.core.set_asked(self.connection, target);
    }

    /// Sets the detail of a failure for the log. The first call counts.
    pub fn set_detail(&mut self, detail: &str) {
        self.core.set_detail(self.connection, detail);
    }

    /// Sets the requested address for the log if it is not a valid target. See [`Core::set_asked_text`].
    pub fn set_asked_text(&mut self, text: &str) {
        self.core.set_asked_text(self.connection, text);
    }

    /// Sets whose fault the end is, if the reason alone does not tell.
    pub fn set_fault(&mut self, fault: Fault) {
        self.core.set_fault(self.connection, fault);
    }

    /// Ends the connection at once. See [`Core::close`].
    pub fn close(&mut self, reason: Reason) {
        self.core.close(self.connection, reason);
    }

    /// Ends the connection at once with a reset to both peers. See [`Core::abort`].
    pub fn abort(&mut self, reason: Reason) {
        self.core.abort(self.connection, reason);
    }

    /// Ends the connection once the client has what was sent to it. See [`Core::close_after_flush`].
    pub fn close_after_flush(&mut self, reason: Reason) {
        self.core.close_after_flush(self.connection, reason);
    }

    /// Returns the reason of an orderly close by this side.
    pub fn fin_reason(&self) -> Reason {
        match self.role {
            Role::Source => Reason::SourceFin,
            Role::Dest => Reason::DestFin,
        }
    }
}
