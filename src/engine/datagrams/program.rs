//! Flows one end of which is the program: what comes for it goes to a handler, and it sends by [`Core::send_datagram`].
//!
//! ```text
//!   client of a listener, or peer of a link --> flow --> FlowHandler      (FlowTarget::handler)
//!   FlowHandler --> flow --> target, here or over a link                  (Core::open_datagrams)
//! ```
//! Datagrams for handlers wait in one queue for the end of the turn, where the handlers may use the loop. A full queue drops new
//! ones, which are counted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use super::flow::{Client, Dest, Flow};
use super::handler::FlowTarget;
use crate::datagrams::socket::Sent;
use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::types::address::Target;
use crate::types::dropped::Dropped;
use crate::types::id::{Id, Kind};
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

/// Handles the datagrams of flows that end at the program. One handler may have many flows.
///
/// A panic counts in [`Stats::panics`](crate::Stats::panics); the flow goes on.
pub trait FlowHandler {
    /// Handles a datagram of the other end. [`Core::send_datagram`] answers it.
    fn datagram(&mut self, core: &mut Loop<'_>, flow: Id, content: &[u8]);

    /// Handles the end of a flow, whose id is stale.
    fn ended(&mut self, _core: &mut Loop<'_>, _flow: Id, _reason: Reason) {}
}

/// A handler that flows share.
pub type SharedFlowHandler = Rc<RefCell<dyn FlowHandler>>;

/// The end of a flow at the program.
#[derive(Clone)]
pub(crate) struct ProgramEnd(pub SharedFlowHandler);

/// An event that waits for a handler.
pub(crate) enum Told {
    Datagram(Box<[u8]>),
    Ended(Reason),
}

/// The events that wait for handlers, in order. Invariant: at most [`WAITING_MAX`] datagrams of [`WAITING_BYTES_MAX`] bytes, and
/// the end of each flow once.
#[derive(Default)]
pub(crate) struct ToldQueue {
    queue: VecDeque<(Id, ProgramEnd, Told)>,
    datagrams: usize,
    bytes: usize,
}

impl Core {
    /// Opens a flow from the program to a target: from a socket of its own, or over a link or a group of links. The handler gets
    /// the datagrams of the target, and the end of the flow. Those that are sent before the target can be reached wait for a
    /// while. The timers are those of all flows.
    ///
    /// # Errors
    /// [`VerbError::Full`] if the table of flows is full or there is no memory for datagrams, [`VerbError::Over`] if the loop is
    /// stopping, [`VerbError::Invalid`] if the id is not one of a link or a group.
    pub fn open_datagrams(
        &mut self,
        link: Option<Id>,
        target: Target,
        handler: SharedFlowHandler,
    ) -> Result<Id, VerbError> {
        if link.is_some_and(|link| !matches!(link.kind(), Kind::Link | Kind::Group)) {
            return Err(VerbError::Invalid);
        }
        if self.is_draining() {
            return Err(VerbError::Over(Reason::Drained));
        }
        self.need_batch().map_err(|_| VerbError::Full)?;
        let profile = self.profiles.of_loop();
        self.profiles.keep(profile);
        let client = Client::Program(ProgramEnd(handler));
        let flow = Flow::new(client, FlowTarget::new(target), self.now_ms);
        let flow = Flow { kind: "program".into(), profile, via: link, ..flow };
        let id = self.add_flow(None, PeerNetwork::Local, flow).ok_or(VerbError::Full)?;
        self.reach(id);
        Ok(id)
    }

    /// Sends a datagram of the program to the other end of a flow. A datagram that cannot be sent now is dropped and counted, as
    /// those of other flows are.
    ///
    /// # Errors
    /// [`VerbError::Stale`] or [`VerbError::Over`] if the flow is over; [`VerbError::Invalid`] if the id is not of a flow, if
    /// the flow does not end at the program, or if the datagram is longer than UDP permits.
    pub fn send_datagram(&mut self, flow: Id, content: &[u8]) -> Result<(), VerbError> {
        let record = self.datagrams.flows.get(flow).ok_or_else(|| self.ended.missing(flow, Kind::Flow))?;
        let (is_client, is_dest) =
            (matches!(record.client, Client::Program(_)), matches!(record.dest, Dest::Program(_)));
        let segment = content.len().max(1);
        match (is_client, is_dest) {
            _ if content.len() > CONTENT_BYTES_MAX => return Err(VerbError::Invalid),
            (true, _) => self.send_on(flow, content, segment, None),
            (false, true) => self.answer_client(flow, content, segment, None),
            (false, false) => return Err(VerbError::Invalid),
        }
        Ok(())
    }

    /// Notes that the target of a flow is reached, because it is the program.
    pub(super) fn program_reached(&mut self, id: Id) {
        let now_ms = self.now_ms;
        let Some(flow) = self.datagrams.flows.get_mut(id) else { return };
        flow.dial_ms = Some(u32::try_from(now_ms - flow.opened_ms).unwrap_or(u32::MAX));
        let client = flow.client.stream();
        client.into_iter().for_each(|at| self.accept_flow(id, at));
    }

    /// Notes the end of a flow for the program, if one of its ends is there.
    pub(super) fn tell_program_of_end(&mut self, id: Option<Id>, flow: &Flow, reason: Reason) {
        let end = match (&flow.client, &flow.dest) {
            (Client::Program(end), _) | (_, Dest::Program(end)) => end.clone(),
            _ => return,
        };
        id.into_iter().for_each(|id| self.datagrams.told.queue.push_back((id, end.clone(), Told::Ended(reason))));
    }
}

impl ToldQueue {
    /// Queues datagrams for a handler, as many as there is room for.
    pub fn push<'a>(&mut self, flow: Id, end: &ProgramEnd, datagrams: impl Iterator<Item = &'a [u8]>) -> Sent {
        let mut sent = Sent::default();
        for content in datagrams {
            if self.datagrams >= WAITING_MAX || self.bytes + content.len() > WAITING_BYTES_MAX {
                sent.note(1, Dropped::QueueFull);
                continue;
            }
            self.datagrams += 1;
            self.bytes += content.len();
            sent.datagrams += 1;
            sent.bytes += content.len() as u64;
            self.queue.push_back((flow, end.clone(), Told::Datagram(content.into())));
        }
        sent
    }

    pub fn pop(&mut self) -> Option<(Id, ProgramEnd, Told)> {
        let next = self.queue.pop_front()?;
        if let Told::Datagram(content) = &next.2 {
            self.datagrams -= 1;
            self.bytes -= content.len();
        }
        Some(next)
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl ProgramEnd {
    /// Tells the handler.
    pub fn tell(&self, core: &mut Loop<'_>, flow: Id, told: &Told) {
        let mut handler = self.0.borrow_mut();
        match told {
            Told::Datagram(content) => handler.datagram(core, flow, content),
            Told::Ended(reason) => handler.ended(core, flow, *reason),
        }
    }
}

impl fmt::Debug for ProgramEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgramEnd")
    }
}

/// Datagrams that may wait for handlers, and their bytes.
const WAITING_MAX: usize = 4096;
const WAITING_BYTES_MAX: usize = 4 << 20;
/// The longest content of a datagram over IPv4 (RFC 768).
const CONTENT_BYTES_MAX: usize = 65_507;
