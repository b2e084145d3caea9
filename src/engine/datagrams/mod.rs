//! Datagrams in the event loop: listeners of UDP, and flows between their clients and targets.
//!
//! ```text
//!   datagram --> listener's socket --> flow of (listener, client, local address)? --yes--> flow's socket --> target
//!                                              |                                             ^
//!                                              no: DatagramHandler::open --> resolve, connect +
//! ```
//! A flow is the datagrams between one client and one target. It has a socket of its own, connected to the target, so only the
//! target can answer, or a stream of a link. Its answers leave from the socket of the listener. A flow has no handler: the
//! [`DatagramHandler`] of its listener chooses the target once, and hears nothing of its datagrams. A flow ends by its
//! timers, by an error of its target, by a limit, or with its listener.
//!
//! | file | content |
//! | --- | --- |
//! | `handler` | the trait by which a front end chooses targets |
//! | `flow` | the record of a flow |
//! | `linked` | flows whose client or target is behind a link: the stream at that end |
//! | `listen` | binding, opening and closing of listeners |
//! | `open` | new flows: limits, the handler's choice, names, sockets |
//! | `pump` | moves datagrams in both directions, within a budget for each socket and turn |
//! | `over` | the end of a flow: its line in the log and its counts |
//! | `status` | the status of flows |

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use crate::datagrams::batch::Batch;
use crate::datagrams::reply::ReplySockets;
use crate::datagrams::socket::{DatagramSocket, Outgoing, Sent};
use crate::datagrams::table::FlowTable;
use crate::engine::core::{Core, Run};
use crate::engine::limits::Limits;
use crate::engine::redirected::plain;
use crate::types::dropped::Dropped;
use crate::types::id::{Id, Kind};

pub(crate) mod flow;
pub(crate) mod handler;
pub(crate) mod linked;
pub(crate) mod listen;
pub(crate) mod open;
pub(crate) mod over;
pub(crate) mod pump;
pub(crate) mod status;

use flow::Flow;

/// The listeners' sockets and the flows of one loop.
pub(crate) struct Datagrams {
    pub flows: FlowTable<Flow>,
    /// The socket of each UDP listener of the loop. It may outlive the listener while the loop drains.
    pub sockets: HashMap<Id, ClientSocket>,
    /// The receive buffers, once there is a listener or a flow. None while they are in use.
    pub batch: Option<Box<Batch>>,
    pub has_batch: bool,
    /// Cost of all datagrams that wait for targets.
    pub waiting_bytes: usize,
    /// The current turn, and the flows opened in it.
    pub opened: (u64, usize),
}

/// The socket of a listener.
pub(crate) struct ClientSocket {
    pub socket: DatagramSocket,
    /// It has several local addresses, so each answer names the one that it leaves from.
    pub has_several_addresses: bool,
    /// The flows whose clients use it.
    pub flows: usize,
    /// The system redirects its clients to it.
    pub is_redirected: bool,
    /// The sockets from which redirected clients are answered.
    pub replies: ReplySockets,
    /// No listener has it any more: it opens no flows, and is closed with the last one.
    pub is_closing: bool,
}

impl Datagrams {
    /// Creates an empty table.
    pub fn new(limits: &Limits) -> Datagrams {
        Datagrams {
            flows: FlowTable::new(limits.flows, limits.flows_per_source),
            sockets: HashMap::new(),
            batch: None,
            has_batch: false,
            waiting_bytes: 0,
            opened: (0, 0),
        }
    }

    /// Returns the socket of a listener or of a flow.
    fn socket_mut(&mut self, id: Id) -> Option<&mut DatagramSocket> {
        if id.kind() == Kind::Flow {
            return self.flows.get_mut(id)?.socket_mut();
        }
        self.sockets.get_mut(&id).map(|client| &mut client.socket)
    }
}

impl ClientSocket {
    /// Receives datagrams of clients.
    fn receive(&mut self, batch: &mut Batch, count_max: usize) -> io::Result<usize> {
        match self.is_redirected {
            true => self.socket.receive_redirected(batch, count_max),
            false => self.socket.receive(batch, count_max),
        }
    }

    /// Sends datagrams to a client. `reply_from` is the address that a redirected client has sent to.
    fn answer(&mut self, reply_from: Option<SocketAddr>, mark: u32, out: Outgoing<'_>) -> Sent {
        let Some(addr) = reply_from else { return self.socket.send(out) };
        match self.replies.socket(addr, mark) {
            Ok(socket) => socket.send(Outgoing { to: plain(out.to), from: None, ..out }),
            Err(error) => {
                let mut sent = Sent { error: Some(error), ..Sent::default() };
                sent.note(out.contents.len().div_ceil(out.segment.max(1)).max(1) as u64, Dropped::Failed);
                sent
            }
        }
    }
}

impl Core {
    /// Notes an event of the socket of a UDP listener or of a flow. Returns false if there is no such socket.
    pub(crate) fn datagrams_ready(&mut self, id: Id) -> bool {
        let Some(socket) = self.datagrams.socket_mut(id) else { return false };
        socket.is_readable = true;
        if !std::mem::replace(&mut socket.is_queued, true) {
            self.queues.run.push_back(Run::Datagrams(id));
        }
        true
    }

    /// Moves datagrams of one socket, whose turn it is.
    pub(crate) fn run_datagrams(&mut self, id: Id) {
        let Some(socket) = self.datagrams.socket_mut(id) else { return };
        socket.is_queued = false;
        let Some(mut batch) = self.datagrams.batch.take() else { return };
        if id.kind() == Kind::Flow {
            self.pump_answers(id, &mut batch)
        } else {
            self.pump_clients(id, &mut batch)
        }
        self.datagrams.batch = Some(batch);
        if let Some(socket) = self.datagrams.socket_mut(id)
            && socket.is_readable
            && !std::mem::replace(&mut socket.is_queued, true)
        {
            self.queues.run.push_back(Run::Datagrams(id));
        }
    }

    /// Ends the flows whose timers have passed, as many as a turn permits.
    pub(crate) fn expire_flows(&mut self) {
        for _ in 0..self.config.limits.timers_per_turn {
            let Some(id) = self.datagrams.flows.expired(self.now_ms) else { break };
            self.flow_expired(id);
        }
    }
}
