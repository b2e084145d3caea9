//! The control of links, as the event loop sees it, and the view of a loop that callers get.
//!
//! The core owns connections, sides, listeners and timers. Links need decisions that are no business of the core: which
//! carriers to dial, whom to let in, what a peer may open. These stand beside the core, as handlers do:
//!
//! ```text
//!   Proxy { core, control, handlers }
//!     |       |      |
//!     |       |      +-- dyn Control: told what has happened to carriers and links, with the core as a parameter
//!     |       +--------- asks for something by a Request in a queue, which the loop hands over in the same turn
//!     +----------------- lends both to callers as a Loop
//! ```
//! The engine knows only this trait, and never names the type behind it; `node/` implements it and adds the verbs of links
//! to [`Loop`]. A call through the trait costs one indirect call for each event of a carrier, and none for the bytes of
//! streams, which the pump moves between sockets and sessions.

use std::any::Any;
use std::ops::{Deref, DerefMut};

use crate::engine::core::Core;
use crate::relay::io::Io;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::reason::Failure;

/// A request of the core to the control of links.
pub(crate) enum Request {
    /// Connect a dest over a link.
    OpenStream { dest: Id, link: Id },
    /// Connect the dest of a flow over the link of a peer that has asked for the listener, which has this number in the loop.
    ReturnFlow { dest: Id, flow: Id, shared: u32 },
    /// Accept a node that has connected to a listener for links.
    Accept { listener: Id, io: Io, peer: Endpoint },
    /// Receive the datagrams of a listener for links, whose carriers share its socket.
    Datagrams { listener: Id },
    /// Tell the peers of links that this node is about to stop.
    AnnounceDrain,
    /// The loop has closed all its listeners.
    ListenersClosed,
}

/// A deadline of the control of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// Look after a link.
    Link(Id),
    /// Look after a carrier of a link.
    Carrier(Id),
    /// Try the UDP port of a server again.
    Server(Id),
    /// Look after a link that leaves its group.
    Member(Id),
    /// Look after the links of a group.
    Group(Id),
    /// Compute the handshakes of unauthenticated peers: there is time for them again.
    Handshakes,
    /// Look for unauthenticated peers that are too slow.
    Crowd,
    /// Give memory that nothing uses back to the system.
    TrimMemory,
}

/// The control of the links of one loop.
pub(crate) trait Control: Any {
    /// Handles a request of the core.
    fn handle_request(&mut self, core: &mut Core, request: Request);

    /// Handles readiness of a carrier's socket.
    fn run_carrier(&mut self, core: &mut Core, carrier: Id);

    /// Handles the result of the dial of a carrier's socket.
    fn carrier_dialled(&mut self, core: &mut Core, carrier: Id, result: Result<(), &Failure>);

    /// Handles a deadline that has passed.
    fn handle_deadline(&mut self, core: &mut Core, deadline: Deadline);

    /// Computes the handshakes of unauthenticated peers that are due.
    fn run_handshakes(&mut self, core: &mut Core);

    /// Delivers the events of links to their sides. Returns true if any side was given work.
    fn deliver_events(&mut self, core: &mut Core) -> bool;

    /// Drives the links that have work: delivers their events, and sends their frames.
    fn drive(&mut self, core: &mut Core);

    /// Takes a dest out of those that wait for a link, after the time `waited`. Returns none if it does not wait, otherwise
    /// the failure to report.
    fn stop_waiting(&mut self, core: &mut Core, dest: Id, waited: &str) -> Option<Failure>;

    /// Returns true if the next turn has work for the control, so that the loop must not sleep.
    fn is_busy(&self, core: &Core) -> bool;

    /// Returns true if there is a link that is not over, or an event of a link that was not delivered yet.
    fn has_links(&self) -> bool;

    /// Returns true if data of connections that are over is still on its way over a link, so that a drain waits.
    fn is_owing(&self, core: &Core) -> bool;

    /// Closes all links in order, and accepts no more.
    fn close_all(&mut self, core: &mut Core);
}

/// A loop, lent to a caller: its [`Core`], to which this dereferences, and the verbs of its links.
///
/// Handlers get it from [`ConnectionMut::core`](crate::ConnectionMut::core), threads through [`Remote::call`](crate::Remote::call), and the owner
/// of the loop from [`Proxy::core`](crate::Proxy::core).
pub struct Loop<'a> {
    core: &'a mut Core,
    control: &'a mut (dyn Control + 'static),
}

impl<'a> Loop<'a> {
    pub(crate) fn new(core: &'a mut Core, control: &'a mut (dyn Control + 'static)) -> Loop<'a> {
        Loop { core, control }
    }

    /// Lends the loop for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Loop<'_> {
        Loop { core: self.core, control: self.control }
    }

    /// Returns the core, and beside it the control as the type that it is.
    ///
    /// This is the only downcast. The verbs of links need types that the engine must not know, and handlers, calls and
    /// callbacks name the loop without a type parameter.
    pub(crate) fn parts<C: Control>(&mut self) -> (&mut Core, &mut C) {
        let control: &mut dyn Any = &mut *self.control;
        let control = control.downcast_mut().expect("a loop has one type of control");
        (self.core, control)
    }
}

impl Deref for Loop<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.core
    }
}

impl DerefMut for Loop<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        self.core
    }
}
