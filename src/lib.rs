//! seaprox: a light framework for proxying between file descriptors.
//!
//! A hand-written event loop over tables of fixed size, with callbacks for the control plane and one pump for the bytes, and
//! links between two such loops that carry many connections in one encrypted session. The binary of the same name puts
//! front ends on it (static relay, SOCKS, HTTP, the forwards of ssh) and uses nothing but what this crate exports.
//!
//! # A tour, in reading order
//! 1. What things are: [`Id`] names a record; [`Target`], [`Endpoint`] and [`Bind`] are the three kinds of address;
//!    [`Reason`] is the one vocabulary for failures and ends; [`Config`] holds every limit and every timer; limits for
//!    addresses count by [`PeerNetwork`].
//! 2. The records: `side` is one end of a connection, `half` is one direction of it, `connection` joins them.
//! 3. The pump: `relay` moves the bytes of one half from one side to the other, by copying or by splicing, and says why
//!    it stopped; `flow` knows what follows from that: half-close, failure, the end.
//! 4. The loop: [`Proxy`] takes events, runs what is queued, tells handlers, fires timers and reaps. [`Core`] is
//!    everything that it owns but the handlers, which get it as a [`Cx`] when they are called.
//! 5. Coming and going: `listener` accepts (a Unix socket has a [`SocketFile`]), `dial` connects (happy eyeballs, without
//!    blocking; `connect_failure` holds its failures), `resolve` and `workers` look names up (`fair` serves askers in turn),
//!    `mailbox` delivers the messages of other threads, `ending` ends connections, `closing` writes the last line of one,
//!    and `stopping` ends the loop.
//! 6. The pools: `block`, `pipe`, `timer`. 7. [`Loops`] runs several loops. 8. `sys` is the only unsafe code.
//! 9. Links, from the wire to the loop: [`link`] is the session between two nodes, a state machine that knows no socket, no
//!    clock and no randomness; `tls` encrypts one TCP connection of it; [`auth`] is who a node is, whom it lets in and for
//!    what, and whom it knows; [`node`] puts them into the loop. There a TCP connection that carries a subflow is a side
//!    that belongs to no connection, and a stream is a side without a socket, so that the pump, half-close, timers, limits
//!    and front ends work on it unchanged. [`Loop::connect_link`] dials a link and [`Loop::serve_links`] takes links in;
//!    [`Core::route_listener`] sends the clients of a front end over one, [`Loop::open_stream`] opens a stream for a
//!    handler, and [`node::ServeConfig::on_stream`] gives those that a peer opens to handlers.
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
//!         cx.connect(Rc::clone(&self.0), None);
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
//! # What holds
//! * Nothing is freed during a call; what ends is marked, and freed at the end of the turn. A stale [`Id`] finds nothing.
//! * A side without bytes on the way holds no buffer. Without a free block nothing is read, so memory is bounded.
//! * A FIN passes as a FIN, in each direction by itself, after every byte before it; a reset passes as a reset.
//! * Every loop inside the loop has a budget, so no connection starves another.
//! * A handler that panics ends its own connection with [`Reason::Internal`].
//! * What a stream of a link has taken arrives once and in order, whichever subflows are lost meanwhile; a stream that its
//!   link takes along is reset, never finished.
//! * A peer sees no frame before its key was admitted, opens and listens where [`node::Policy`] permits and nowhere else,
//!   and sizes no allocation: what a session holds is bounded by [`node::Timing`], in bytes, streams and subflows.
//! * Nothing is read from a local socket that its link has no room for.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod auth;
mod engine;
pub mod link;
pub mod node;
mod relay;
mod streams;
mod sys;
mod tls;
#[cfg(test)]
#[path = "tls/tests.rs"]
mod tls_tests;
mod types;

pub use engine::control::Loop;
pub use engine::core::Core;
pub use engine::dial::{Answer, Connector};
pub use engine::event_loop::Proxy;
pub use engine::handler::{Cause, Cx, Handler};
pub use engine::limits::{Config, DESCRIPTORS_RESERVED, Family, Limits, Timeouts};
pub use engine::listener::{Bound, FrontEnd, bind};
pub use engine::mailbox::{Full, Remote};
pub use engine::stats::Stats;
pub use engine::status::{ConnectionStatus, SideStatus, Snapshot, Usage};
pub use engine::threads::{Loops, Setup};
pub use engine::workers::Workers;
pub use relay::connection::Stage;
pub use relay::dial::Permit;
pub use relay::side::{Role, SideState};
pub use relay::timer::TimerClass;
pub use sys::stdio::finish as finish_stdio;
pub use sys::{OwnedSocket, SocketFile, UnixListener, UnixStream, raise_descriptor_limit};
pub use types::address::{AddressError, Bind, Endpoint, NAME_BYTES_MAX, Name, Target, split_port_range};
pub use types::id::Id;
pub use types::peer_network::PeerNetwork;
pub use types::reason::{Ending, Failure, Fault, Reason};
pub use types::{rules, units};

/// Parts of the operating system that a program around this library needs, with the same names on every system.
pub mod system {
    #[cfg(windows)]
    pub use crate::sys::{ConsoleEvents, ConsoleStop};
    pub use crate::sys::{
        NameClaim, claim_name, is_readable_by_all, machine, socket_directory, stderr_file, stdout_file,
    };
}
