//! The record of a flow: the datagrams between one client and one target.
//!
//! ```text
//!   opened --> Waiting (a name is resolved, a stream is opened) --> Socket or Stream --> over
//! ```

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::handler::FlowPrefix;
use super::program::ProgramEnd;
use crate::datagrams::queue::WaitingQueue;
use crate::datagrams::socket::DatagramSocket;
use crate::engine::balance::Lease;
use crate::engine::redirected::OwnSocket;
use crate::engine::redirected::plain;
use crate::link::ClientAddrs;
use crate::relay::dial::Permit;
use crate::relay::side::Role;
use crate::streams::{LinkDrops, StreamAt};
use crate::types::address::{Endpoint, Target};
use crate::types::id::Id;
use crate::types::label::Label;
use crate::types::peer::PeerId;
use crate::types::proto::Proto;

/// A flow.
pub(crate) struct Flow {
    pub client: Client,
    pub dest: Dest,
    /// The name of the front end, for status and log.
    pub kind: Label,
    /// The listener, or the forward of a link, that the client came from.
    pub listener: Option<Id>,
    /// The index of the settings that the flow has from its listener.
    pub profile: u16,
    /// The target; none if only the peer of a link knows it.
    pub asked: Option<Rc<Target>>,
    pub permit: Option<Permit>,
    /// The address of a name that needs no lookup.
    pub address: Option<SocketAddr>,
    /// The addresses of the target came from the cache.
    pub is_from_cache: bool,
    /// The link that the target is reached over.
    pub via: Option<Id>,
    /// The number in this loop of a listener for the peers of links, if the client came to one, and the number of it in the
    /// session of the peer.
    pub shared: Option<u32>,
    pub returns_to: Option<u32>,
    /// The sides of its streams: that of the client, and that of the target.
    pub sides: [Option<Id>; 2],
    /// The record of its socket, by which redirected datagrams of this process are known.
    pub own_socket: Option<Box<OwnSocket>>,
    pub user: Option<Box<str>>,
    /// The key whose quota the flow uses.
    pub payer: Option<PeerId>,
    pub lease: Option<Lease>,
    /// The headers of its datagrams, if they have any.
    pub headers: Option<Box<Headers>>,
    /// Datagrams that wait for the target.
    pub waiting: WaitingQueue,
    /// To the target, and from it.
    pub sent: Moved,
    pub received: Moved,
    /// The part of them that stands in the sums of its listener already.
    pub settled: [Moved; 2],
    pub dropped: u64,
    /// The time of the last answer.
    pub answered_ms: u64,
    pub opened_ms: u64,
    pub dial_ms: Option<u32>,
}

/// The headers of the datagrams of a flow.
#[derive(Default)]
pub(crate) struct Headers {
    /// The addresses of the client that its headers, or the peer of its link, tell.
    pub told: Option<ClientAddrs>,
    /// The header for the target; none once the only one is on its way.
    pub prefix: Option<FlowPrefix>,
}

/// The client of a flow.
#[derive(Debug)]
pub(crate) enum Client {
    /// A client of a listener's socket.
    Listener {
        owner: Id,
        addr: SocketAddr,
        /// The local address that the answers must leave from.
        from: Option<IpAddr>,
        /// The address of another host that a redirected client has sent to, from which it is answered.
        reply_from: Option<SocketAddr>,
    },
    /// A stream that the peer of a link has opened.
    Stream(StreamAt, Endpoint),
    /// The program itself.
    Program(ProgramEnd),
    /// The client of an association.
    Association {
        /// The connection that the association belongs to.
        connection: Id,
        /// The key of the target in the association.
        key: Box<[u8]>,
        source: Endpoint,
    },
}

/// The way to the target of a flow.
#[derive(Debug)]
pub(crate) enum Dest {
    /// There is none yet.
    Waiting,
    /// A socket that is connected to the target.
    Socket(DatagramSocket),
    /// A stream of a link.
    Stream(StreamAt, Endpoint),
    /// The program itself.
    Program(ProgramEnd),
    /// A socket of an association, from which datagrams go to this address.
    Shared(Id, SocketAddr),
}

/// Datagrams that were delivered in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub datagrams: u64,
    pub bytes: u64,
}

impl Flow {
    /// Returns the socket to the target, if there is one.
    pub fn socket_mut(&mut self) -> Option<&mut DatagramSocket> {
        if let Dest::Socket(socket) = &mut self.dest { Some(socket) } else { None }
    }

    /// Returns the address of the client.
    pub fn source(&self) -> Endpoint {
        match &self.client {
            Client::Listener { addr, .. } => {
                Endpoint::Ip(Proto::Udp, self.told().map_or(*addr, |told| plain(told.client)))
            }
            Client::Stream(_, endpoint) => endpoint.clone(),
            Client::Program(_) => Endpoint::Unknown,
            Client::Association { source, .. } => source.clone(),
        }
    }

    /// Returns the address of a client behind a link, if the peer may tell it.
    pub fn told_client(&self) -> Option<Endpoint> {
        self.client.stream()?;
        self.told().map(|told| Endpoint::Ip(Proto::Udp, told.client))
    }

    /// Returns the addresses of the client that its headers, or the peer of its link, tell.
    pub fn told(&self) -> Option<ClientAddrs> {
        self.headers.as_ref()?.told
    }

    /// Sets the addresses of the client that its headers, or the peer of its link, tell.
    pub fn set_told(&mut self, told: ClientAddrs) {
        self.headers.get_or_insert_default().told = Some(told);
    }

    /// Notes datagrams that a session has dropped on the stream of one end. Those that were to be sent were counted as delivered.
    pub fn note_link_drops(&mut self, role: Role, drops: LinkDrops) {
        self.dropped += drops.total();
        let moved = if role == Role::Dest { &mut self.sent } else { &mut self.received };
        moved.take_back(drops);
    }

    /// Returns the address of the target, once there is a way to it.
    pub fn dialled(&self) -> Option<Endpoint> {
        match &self.dest {
            Dest::Waiting | Dest::Program(_) => None,
            Dest::Socket(socket) => socket.peer().map(|addr| Endpoint::Ip(Proto::Udp, addr)),
            Dest::Stream(_, endpoint) => Some(endpoint.clone()),
            Dest::Shared(_, addr) => Some(Endpoint::Ip(Proto::Udp, *addr)),
        }
    }
}

impl Moved {
    /// Adds delivered datagrams.
    pub fn add(&mut self, datagrams: u64, bytes: u64) {
        self.datagrams += datagrams;
        self.bytes += bytes;
    }

    /// Returns what was delivered beyond `settled`, which is then all of it. Datagrams that were taken back since leave the sums
    /// as they are, and are made good by the next ones.
    pub fn settle(self, settled: &mut Moved) -> Moved {
        let more = Moved {
            datagrams: self.datagrams.saturating_sub(settled.datagrams),
            bytes: self.bytes.saturating_sub(settled.bytes),
        };
        settled.add(more.datagrams, more.bytes);
        more
    }

    /// Takes back datagrams that were given to a link, which has dropped them.
    pub fn take_back(&mut self, drops: LinkDrops) {
        self.datagrams = self.datagrams.saturating_sub(drops.unsent);
        self.bytes = self.bytes.saturating_sub(drops.unsent_bytes);
    }
}

impl Client {
    /// Returns the connection of the client's association.
    pub fn association(&self) -> Option<Id> {
        if let Client::Association { connection, .. } = self { Some(*connection) } else { None }
    }

    /// Returns the stream of a client that comes over a link.
    pub fn stream(&self) -> Option<StreamAt> {
        if let Client::Stream(at, _) = self { Some(*at) } else { None }
    }

    /// Returns the link that the client comes over.
    pub fn link(&self) -> Option<Id> {
        self.stream().map(|at| at.link)
    }
}

impl Dest {
    /// Returns the stream to a target that is reached over a link.
    pub fn stream(&self) -> Option<StreamAt> {
        if let Dest::Stream(at, _) = self { Some(*at) } else { None }
    }
}
