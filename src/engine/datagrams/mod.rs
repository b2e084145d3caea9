//! Datagrams in the event loop: listeners of UDP, and flows between their clients and targets.
//!
//! ```text
//!   datagram --> listener's socket --> flow of (listener, client, local address)? --yes--> flow's socket --> target
//!                                              |                                             ^
//!                                              no: DatagramHandler::open --> resolve, connect +
//! ```
//! A flow is the datagrams between one client and one target. It has a socket of its own, connected to the target, so only the
//! target can answer, or a stream of a link. Its answers leave from the socket of the listener. The
//! [`DatagramHandler`](handler::DatagramHandler) of its listener chooses the target once, and hears nothing of its datagrams,
//! unless the target is a [`FlowHandler`](program::FlowHandler) of the program. A flow ends by its
//! timers, by an error of its target, by a limit, or with its listener.
//!
//! | file | content |
//! | --- | --- |
//! | `handler` | the trait by which a front end chooses targets |
//! | `flow` | the record of a flow |
//! | `headers` | datagrams with headers, such as those of the PROXY protocol |
//! | `linked` | flows whose client or target is behind a link: the stream at that end |
//! | `listen` | binding, opening and closing of listeners |
//! | `open` | new flows: limits, the handler's choice, names, sockets |
//! | `pump` | moves datagrams in both directions, within a budget for each socket and turn |
//! | `program` | flows one end of which is the program |
//! | `over` | the end of a flow: its line in the log and its counts |
//! | `room` | the flows that end for a descriptor, or for the share of a key |
//! | `association` | many targets of one client behind one socket, for SOCKS5 |
//! | `association_pump` | moves the datagrams of associations, and adds and removes their headers |
//! | `status` | the status of flows |

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use crate::datagrams::batch::Batch;
use crate::datagrams::queue::WaitingRoom;
use crate::datagrams::reply::ReplySockets;
use crate::datagrams::socket::{DatagramSocket, Outgoing, Sent};
use crate::datagrams::table::FlowTable;
use crate::engine::core::{Core, Run};
use crate::engine::limits::Limits;
use crate::engine::redirected::plain;
use crate::types::dropped::Dropped;
use crate::types::id::{Id, Kind, Table};

pub(crate) mod association;
mod association_pump;
pub(crate) mod flow;
pub(crate) mod handler;
pub(crate) mod headers;
pub(crate) mod linked;
pub(crate) mod listen;
pub(crate) mod open;
pub(crate) mod over;
pub(crate) mod program;
pub(crate) mod pump;
mod room;
pub(crate) mod status;

use association::{Association, AssociationSocket};
use flow::Flow;
use handler::HeaderReader;
use program::ToldQueue;

/// The listeners' sockets and the flows of one loop.
pub(crate) struct Datagrams {
    pub flows: FlowTable<Flow>,
    /// The socket of each UDP listener of the loop. It may outlive the listener while the loop drains.
    pub sockets: HashMap<Id, ClientSocket>,
    /// The associations, by their connections.
    pub associations: HashMap<Id, Association>,
    pub association_sockets: Table<AssociationSocket>,
    /// Room for datagrams with their headers; empty until there is an association.
    pub association_room: Box<[u8]>,
    /// The receive buffers, once there is a listener or a flow. None while they are in use.
    pub batch: Option<Box<Batch>>,
    pub has_batch: bool,
    /// Room of the datagrams that wait for targets.
    pub waiting_room: WaitingRoom,
    /// The buffer in which a datagram gets its header.
    pub headed: Vec<u8>,
    /// Events that wait for the handlers of flows that end at the program.
    pub told: ToldQueue,
    /// The current turn, and the flows opened in it.
    pub opened: (u64, usize),
}

/// The socket of a listener.
pub(crate) struct ClientSocket {
    pub socket: DatagramSocket,
    /// It has several local addresses, so each answer names the one that it leaves from.
    pub has_several_addresses: bool,
    /// The reader of the headers of datagrams, as the handler has returned it last.
    pub reader: Option<HeaderReader>,
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
            associations: HashMap::new(),
            association_sockets: {
                // The table grows with its use.
                let mut sockets = Table::new(Kind::Association, 0);
                sockets.set_capacity(limits.connections.saturating_mul(3));
                sockets
            },
            association_room: Box::default(),
            batch: None,
            has_batch: false,
            waiting_room: WaitingRoom::default(),
            headed: Vec::new(),
            told: ToldQueue::default(),
            opened: (0, 0),
        }
    }

    /// Returns the socket of a listener or of a flow.
    fn socket_mut(&mut self, id: Id) -> Option<&mut DatagramSocket> {
        match id.kind() {
            Kind::Flow => self.flows.get_mut(id)?.socket_mut(),
            Kind::Association => self.association_sockets.get_mut(id).map(|record| &mut record.socket),
            _ => self.sockets.get_mut(&id).map(|client| &mut client.socket),
        }
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
        match id.kind() {
            Kind::Flow => self.pump_answers(id, &mut batch),
            Kind::Association => self.pump_association(id, &mut batch),
            _ => self.pump_clients(id, &mut batch),
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
