//! Handlers: the callbacks of a side, and the view of the loop that they get.
//!
//! Front ends, the C interface and scripts implement [`Handler`]. It is the control plane: while a side relays, no callback
//! runs for its bytes. A callback may call any verb of the loop through its [`Cx`]. Records that it closes are freed at the
//! end of the turn, and a handler that it installs takes over when it returns.

#[cfg(doc)]
use crate::engine::connection_view::ConnectionMut;
use crate::engine::side_view::SideMut;
use crate::types::reason::{Failure, Reason};

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
    /// After [`ConnectionMut::relay_bytes`] has relayed its count of bytes, this is called even if there is no input.
    ///
    /// A handler that consumes nothing of [`ConnectionMut::input_bytes_max`] bytes ends the connection with
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

    /// Called when the time given to [`ConnectionMut::wake_after`] has passed.
    fn woken(&mut self, _cx: &mut Cx<'_>) {}

    /// Called when the side gives no more input, or when the whole connection is over.
    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Fin => {
                let reason = cx.fin_reason();
                cx.close(reason);
            }
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

/// A handler's view of the loop: the side that the callback is about. It dereferences to the view of the connection, whose
/// verbs it so has, and [`ConnectionMut::core`](crate::ConnectionMut::core) is the loop with all others.
pub type Cx<'a> = SideMut<'a>;
