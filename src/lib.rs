//! A light framework for proxies between sockets, and links between them that outlive the network.
//!
//! The library is an event loop over tables of fixed size. A [`Handler`] decides what becomes of a connection, and one pump
//! moves the bytes of all connections. A link joins two loops on two hosts: it carries many connections in one encrypted
//! session, over one or more paths, and goes on when all of them were lost. The package `seaprox-proxies` adds the front
//! ends and the command line, and uses nothing but what this crate exports.
//!
//! # A tour
//! Imports run one way, from the bottom of this table to its top; `docs/architecture.md` draws it and follows a byte through
//! it, and `docs/glossary.md` defines the words.
//!
//! | folder | content | begin with |
//! | --- | --- | --- |
//! | `types` | words that all layers share | [`Id`], [`Target`], [`Upstream`], [`Endpoint`], [`Bind`], [`Reason`], [`rules`], [`units`] |
//! | `sys` | the only unsafe code, and all code for one system | [`system`] |
//! | [`metrics`] | the counters and gauges, each declared once | [`metrics::Metric`], [`Stats`] |
//! | [`link`] | the protocol between two nodes: a state machine without socket, clock and randomness | [`link::Session`] |
//! | `tls` | the encryption of one carrier | |
//! | [`auth`] | keys, and the files that permit and know them | [`auth::AuthorizedKeys`], [`auth::KnownNodes`] |
//! | [`invite`] | joining two nodes by an invitation | [`invite::join`] |
//! | `streams` | the sessions of links, as far as the pump needs them | |
//! | `relay` | the data plane: sides, halves, the pump, pools | [`SideState`], [`Role`], [`Stage`] |
//! | `datagrams` | UDP without a loop: sockets in batches, the table of flows, datagrams that wait | [`FlowStatus`], [`Dropped`] |
//! | `engine` | the control plane: the loop, listeners, flows of datagrams, dialing, names, timers | [`Proxy`], [`Core`], [`Cx`], [`Config`], [`Loops`] |
//! | `transport` | the carriers of subflows, each kind in a file of its own | [`node::CarrierKind`], [`node::CARRIERS`] |
//! | [`node`] | links in the loop: dialing, accepting, forwards, policy | [`Loop::connect_link`], [`Loop::serve_links`], [`Loop::open_forward`] |
//! | [`config`] | one tree for a process with all of its listeners and links | [`config::Config`], [`config::Diff`] |
//! | [`pipes`] | pipes of bytes that stand on one another: socket, TLS, stream, datagrams | [`pipes::Pipe`], [`pipes::Bridge`] |
//!
//! A program makes a [`Proxy`], or [`Loops`] of several threads, gives it the addresses that [`bind`] has bound with a
//! [`ListenConfig`] each, and runs it. Each client that connects gets a handler. The handler reads what the client says, and
//! calls [`ConnectionMut::connect`] and then [`ConnectionMut::relay`]; from there on no callback runs for bytes,
//! unless the connection has a [`Hook`] ([`ConnectionMut::set_hook`]), which sees the bytes and may change them. Listeners are
//! opened, replaced and closed while connections run ([`Core::listen`], [`ListenerMut`]). Other threads reach the loop by a
//! [`Remote`]: they run functions in it ([`Remote::ask`]) and end it ([`Remote::finish`]).
//!
//! Datagrams have no connection. A listener of UDP has a [`DatagramHandler`] ([`ListenConfig::datagrams`]), which is asked for
//! the target of each new flow ([`FlowRequest`], [`FlowTarget`]); the loop moves the datagrams of the flow from then on, or
//! gives them to a [`FlowHandler`] of the program, which may also open flows by itself ([`Core::open_datagrams`]). A
//! handler that gives its client a socket of its own for many targets, as SOCKS does, calls [`ConnectionMut::associate`] with an
//! [`AssociationHandler`], which reads and writes the header of each datagram.
//!
//! A loop is also a part of a program. It takes descriptors of the program as sides ([`Core::adopt`], [`Duplex`]), watches
//! others ([`Core::watch`]) and runs timers ([`Core::after`]); and another loop can turn it, as [`Proxy`] shows.
//!
//! A stream of a link is a side like a socket, so that half-close, timers, limits and front ends work on it unchanged.
//! [`ListenConfig::link`] sends the clients of a listener over a link, [`node::LinkMut::open_stream`] opens a stream for a
//! handler, and [`node::ServeConfig::on_stream`] gives the streams of a peer to handlers.
//!
//! # A front end in a few lines
//! ```
//! use std::rc::Rc;
//! use seaprox::{Cx, Failure, Handler, Reason, Target};
//!
//! /// Relays every client to one target.
//! struct Static(Rc<Target>);
//!
//! impl Handler for Static {
//!     fn opened(&mut self, cx: &mut Cx<'_>) {
//!         _ = cx.connect(Rc::clone(&self.0), None);
//!     }
//!     fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
//!         0 // What the client sends before the dest is there is relayed when it is.
//!     }
//!     fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
//!         match result {
//!             Ok(()) => cx.relay(),
//!             Err(failure) => cx.close(failure.reason),
//!         }
//!     }
//! }
//! ```
//!
//! # Guarantees
//! * No record is freed during a callback. A record that ends is marked, and freed at the end of the turn; an [`Id`] of a
//!   freed record finds nothing.
//! * A side without bytes under way holds no buffer. The loop reads nothing while no block is free, so memory is bounded.
//! * A FIN passes as a FIN, in each direction by itself, after every byte before it. A reset passes as a reset.
//! * Every step of a turn has a budget, so no connection starves another one.
//! * A panic in a handler ends the connection of that handler, with [`Reason::Internal`].
//! * The bytes that a stream has accepted arrive once and in order, whichever subflows are lost. When its session is lost, a
//!   stream is reset and never finished, unless everything up to its FIN has arrived.
//! * A peer gets no frame before its key was admitted. It opens and listens only where [`node::Policy`] permits, and no length
//!   that it sends sizes an allocation of more than a frame: [`node::Timing`] bounds the bytes, streams and subflows of a session.
//! * The loop reads from a socket only what the link behind it has room for.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod auth;
pub mod config;
mod datagrams;
mod engine;
pub mod invite;
pub mod link;
pub mod metrics;
pub mod node;
pub mod pipes;
mod relay;
mod streams;
mod sys;
mod tls;
// Other targets compile src/tls/mod.rs too, without its tests, so the tests are declared here.
#[cfg(test)]
#[path = "tls/tests.rs"]
mod tls_tests;
mod transport;
mod types;

pub use engine::balance::{Attempts, Balance, Balancer, Lease, Next, TargetState, TargetStatus, Woken};
pub use engine::bound::{Bound, bind};
pub use engine::connection_view::ConnectionMut;
pub use engine::connector::{Answer, Connector};
pub use engine::control::Loop;
pub use engine::core::Core;
pub use engine::datagrams::association::{
    Associate, AssociationHandler, DATAGRAM_HEADER_BYTES_MAX, DatagramPeer, MakeFlowPrefix,
};
pub use engine::datagrams::handler::{
    DatagramFrontEnd, DatagramHandler, DatagramHeader, FlowPrefix, FlowRequest, FlowTarget, HeaderReader, ReadHeader,
};
pub use engine::datagrams::program::{FlowHandler, SharedFlowHandler};
pub use engine::datagrams::status::FlowStatus;
pub use engine::discovery::{CANDIDATES_MAX, Candidate, Candidates, Discovery, can_look_up_services};
pub use engine::event_loop::Proxy;
pub use engine::handler::{Cause, Cx, Handler};
pub use engine::hook::{Hook, Transit};
pub use engine::limits::{Config, DESCRIPTORS_RESERVED, Family, Limits, Timeouts};
pub use engine::listener::{FrontEnd, ListenConfig, ListenerMut, ListenerStatus};
pub use engine::mailbox::{Full, Remote};
pub use engine::observer::{Event, Observer};
pub use engine::pending::{Pending, Unanswered};
pub use engine::side_view::SideMut;
pub use engine::status::{ConnectionStatus, SideStatus, Snapshot};
pub use engine::tally::Stages;
pub use engine::threads::{Loops, Setup};
pub use engine::watch::{Interest, Readiness};
pub use engine::workers::Workers;
pub use metrics::{Stats, Usage};
pub use relay::connection::Stage;
pub use relay::dial::{ConnectOptions, Egress, Permit};
pub use relay::side::{Role, SideState};
pub use relay::timer::TimerClass;
pub use sys::duplex::{Duplex, finish as finish_stdio};
pub use sys::{BorrowedSocket, OwnedSocket, SocketFile, UnixListener, UnixStream, raise_descriptor_limit};
pub use types::address::{
    AddressError, Bind, DescriptorName, Endpoint, NAME_BYTES_MAX, Name, Target, split_port_range,
};
pub use types::descriptor_error::DescriptorError;
pub use types::dropped::Dropped;
pub use types::end::{END_USERS_MAX, End, EndError, EndName, EndTarget};
pub use types::forward_state::ForwardState;
pub use types::human::{human_duration, human_rate, human_size};
pub use types::id::{Id, Kind};
pub use types::label::Label;
pub use types::link_state::LinkState;
pub use types::peer_network::PeerNetwork;
pub use types::proto::{Proto, Unsupported};
pub use types::reason::{Ending, Failure, Fault, Reason};
pub use types::unix_file::{UnixFileError, UnixMode, UnixOwner};
pub use types::upstream::Upstream;
pub use types::utc::UtcTime;
pub use types::verb_error::VerbError;
pub use types::{rules, units};

/// Parts of the operating system that a program around this library needs, with the same names on every system.
pub mod system {
    pub use crate::sys::{
        Access, Directory, EntryKind, NameClaim, PeerCredentials, claim_name, effective_user, group_id,
        interface_addresses, is_readable_by_all, is_terminal_gone, machine, passed_sockets, peer_credentials,
        read_hidden_line, socket_directory, stderr_file, stdout_file,
    };
    #[cfg(windows)]
    pub use crate::sys::{ConsoleEvents, ConsoleStop};
}
