//! Handlers: the callbacks of a side, and the view of the loop that they are given.
//!
//! Front ends, the C interface and scripts all implement [`Handler`]. It is the control plane: once a side relays, no
//! callback runs for its bytes. A callback may do anything to the loop through its [`Cx`]: what it closes is freed at
//! the end of the turn, and a handler that it installs takes over when it returns.

use std::rc::Rc;
use std::time::Duration;

use crate::engine::control::Loop;
#[cfg(doc)]
use crate::engine::core::Core;
use crate::relay::connection::Stage;
use crate::relay::dial::Permit;
use crate::relay::side::Role;
use crate::types::address::{Endpoint, Target};
use crate::types::id::Id;
use crate::types::reason::{Failure, Fault, Reason};

/// The callbacks of a side.
///
/// A dest has no handler of its own unless one is installed; its callbacks go to the handler of its source, which can
/// tell the two apart by [`Cx::role`]. A callback that panics ends its own connection with [`Reason::Internal`].
pub trait Handler {
    /// The side is there: a client has been accepted.
    fn opened(&mut self, cx: &mut Cx<'_>);

    /// Input has come: all of it that is not consumed yet. Returns how many bytes are consumed; 0 says that more is
    /// needed. What is left over when the side begins to relay is relayed first.
    ///
    /// When the bytes that were asked for by [`Core::relay_bytes`] are through, this is called even if there is no input.
    ///
    /// A handler that consumes nothing of [`Core::input_bytes_max`] bytes ends the connection with
    /// [`Reason::ProtocolError`].
    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize;

    /// All that was sent to the side has been written, after some of it had to wait.
    fn writable(&mut self, _cx: &mut Cx<'_>) {}

    /// The dest is connected, or could not be; in that case it is gone, and another target may be tried. Whatever it
    /// is, the handshake timer runs anew and the source's input is the handler's again until it says otherwise.
    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>);

    /// The deadline of the stage has passed (handshake or keep-alive). The connection is ended unless this says
    /// otherwise.
    fn timeout(&mut self, cx: &mut Cx<'_>) {
        cx.close(Reason::HandshakeTimeout);
    }

    /// Called when the time given to [`Cx::wake_after`] has passed.
    fn woken(&mut self, _cx: &mut Cx<'_>) {}

    /// The side gives no more input, or the whole connection is over.
    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Fin => cx.close(cx.fin_reason()),
            Cause::Reset => cx.close(Reason::DestReset),
            Cause::Over(_) => {}
        }
    }
}

/// What ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The input of this side, in order, while it was the handler's. What is sent to it still arrives.
    Fin,
    /// The dest was reset while its input was the handler's. The source may still be sent an answer.
    Reset,
    /// The connection. Told once, to the source's handler, and nothing comes after it.
    Over(Reason),
}

/// A handler's view of the loop: its own connection, and behind it everything that the [`Core`] can do.
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

    /// The loop, for everything that is not about this connection alone.
    pub fn core(&mut self) -> &mut Loop<'a> {
        &mut self.core
    }

    /// The side that the callback is about.
    pub fn side(&self) -> Id {
        self.side
    }

    /// Its connection.
    pub fn connection(&self) -> Id {
        self.connection
    }

    /// Which end of the connection it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// One end of the connection.
    pub fn side_of(&self, role: Role) -> Option<Id> {
        self.core.side(self.connection, role)
    }

    /// How far the connection has come.
    pub fn stage(&self) -> Option<Stage> {
        self.core.stage(self.connection)
    }

    /// Where the other end of one side's socket is.
    pub fn peer(&self, role: Role) -> Endpoint {
        self.side_of(role).map_or(Endpoint::Unknown, |side| self.core.peer(side))
    }

    /// Where our end of one side's socket is. This asks the system.
    pub fn local(&self, role: Role) -> Endpoint {
        self.side_of(role).map_or(Endpoint::Unknown, |side| self.core.local(side))
    }

    /// Bytes of input that a handler is shown at once, at most.
    pub fn input_bytes_max(&self) -> usize {
        self.core.input_bytes_max()
    }

    /// Connects the dest. See [`Core::connect`].
    pub fn connect(&mut self, target: Rc<Target>, permit: Option<Permit>) {
        self.core.connect(self.connection, target, permit);
    }

    /// Returns true if one end is connected, and has neither ended nor sent anything. See [`Core::is_silent`].
    pub fn is_silent(&self, role: Role) -> bool {
        self.core.is_silent(self.connection, role)
    }

    /// Releases the dest with a reset. See [`Core::reset_dest`].
    pub fn reset_dest(&mut self) {
        self.core.reset_dest(self.connection);
    }

    /// Lets go of the dest. See [`Core::disconnect`].
    pub fn disconnect(&mut self) {
        self.core.disconnect(self.connection);
    }

    /// Sends bytes to the source; whether they were taken. See [`Core::send`].
    pub fn reply(&mut self, bytes: &[u8]) -> bool {
        self.core.send(self.connection, Role::Source, bytes)
    }

    /// Sends bytes to one end; whether they were taken. See [`Core::send`].
    pub fn send(&mut self, to: Role, bytes: &[u8]) -> bool {
        self.core.send(self.connection, to, bytes)
    }

    /// Relays everything in both directions from now on. See [`Core::relay`].
    pub fn relay(&mut self) {
        self.core.relay(self.connection);
    }

    /// Relays the next `count` bytes of one side's input. See [`Core::relay_bytes`].
    pub fn relay_bytes(&mut self, from: Role, count: u64) {
        self.core.relay_bytes(self.connection, from, count);
    }

    /// Reads no more of one side's input for now. See [`Core::pause_reading`].
    pub fn pause_reading(&mut self, role: Role) {
        self.core.pause_reading(self.connection, role);
    }

    /// Shows one side's input to its handler. See [`Core::resume_reading`].
    pub fn resume_reading(&mut self, role: Role) {
        self.core.resume_reading(self.connection, role);
    }

    /// Says how far the connection has come, which starts the timer of that stage.
    pub fn set_stage(&mut self, stage: Stage) {
        self.core.set_stage(self.connection, stage);
    }

    /// Calls [`Handler::woken`] of the source's handler after `time`. See [`Core::wake_after`].
    pub fn wake_after(&mut self, time: Duration) {
        self.core.wake_after(self.connection, time);
    }

    /// Names the front end's protocol, once it is known which one the client speaks.
    pub fn set_kind(&mut self, kind: &'static str) {
        self.core.set_kind(self.connection, kind);
    }

    /// Names the user, for the log.
    pub fn set_user(&mut self, user: &str) {
        self.core.set_user(self.connection, user);
    }

    /// Names the target, for the log, where it is not to be connected.
    pub fn set_asked(&mut self, target: Rc<Target>) {
        self.core.set_asked(self.connection, target);
    }

    /// Says what went wrong, for the log; the first to say so is heard.
    pub fn set_detail(&mut self, detail: &str) {
        self.core.set_detail(self.connection, detail);
    }

    /// Sets the requested address for the log if it is not a valid target. See [`Core::set_asked_text`].
    pub fn set_asked_text(&mut self, text: &str) {
        self.core.set_asked_text(self.connection, text);
    }

    /// Says whose doing the end is, where the reason alone does not tell.
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

    /// The reason that an orderly close by this side stands for.
    pub fn fin_reason(&self) -> Reason {
        match self.role {
            Role::Source => Reason::SourceFin,
            Role::Dest => Reason::DestFin,
        }
    }
}
