//! Pipes that compose: one trait for a connection of bytes, with TCP's semantics, and pipes that stand on one another.
//!
//! ```no_run
//! use seaprox::pipes::{Atomic, Datagram, SocketPipe, TlsPipe};
//! # fn stack(tcp: std::net::TcpStream, identity: &seaprox::node::Identity, policy: &std::sync::Arc<dyn seaprox::node::Policy>) {
//! let pipe = Datagram::new(Atomic::new(TlsPipe::client(SocketPipe::new(tcp), identity, policy)));
//! # }
//! ```
//! A constructor does not fail. A pipe that could not be set up is broken from the start, and says why.
//!
//! | pipe | bytes go | waits by |
//! | --- | --- | --- |
//! | [`SocketPipe`] | through a TCP or Unix socket | descriptor |
//! | [`StreamPipe`] | through a stream of a link, over as many subflows as the link has | waker |
//! | [`MemoryPipe`] | to the other end of the pair | waker |
//! | [`TlsPipe`] | encrypted, through the pipe beneath | as the pipe beneath |
//! | [`Datagram`] | in datagrams, each behind its length | as the pipe beneath |
//! | [`Atomic`] | if all of them have room, through the pipe beneath | as the pipe beneath |
//!
//! A [`Bridge`] joins any two of them. A [`Poller`] waits for many, in a program without another loop. The loop of a
//! [`Proxy`](crate::Proxy) drives them too: by [`Core::watch`](crate::Core::watch), or by a [`loop_waker`](fn@loop_waker).
//!
//! # The trait beside the data plane
//! The side of a connection in the loop (`relay/io.rs`) is not built on [`Pipe`], but two pipes wrap it: [`SocketPipe`] the
//! socket, and [`StreamPipe`] a whole side, through its handler. A side has what the trait must not ask of every pipe: it
//! lends its descriptor to splice(2), so that bytes pass without a copy; it writes the slices that a session received
//! without gathering them first, and reads into the chunk that the session keeps; and its bytes may be in a table that the
//! caller borrows. Behind the trait each chunk would cost a copy and a call through a pointer. So a pipe pays one copy more
//! than a relayed connection, and a program that only relays uses the loop.
//!
//! # Reading order
//! `pipe` the trait · `error` · `socket`, `memory`, `stream` pipes that stand on no other one · `tls`, `atomic`, `datagram`
//! pipes that do · `varint` the length of a datagram · `queue` bytes that the pipe beneath has not taken · `bridge` ·
//! `poller`, `loop_waker` ways to wait.
//!
//! # Invariants
//! * A pipe holds a bounded number of bytes, and no length that a peer sends sizes an allocation.
//! * A FIN leaves after every accepted byte. A pipe that is dropped before its FIN was sent resets its peer.
//! * After `WouldBlock`, either the descriptor becomes ready or the waker is called.

mod atomic;
mod bridge;
mod datagram;
mod error;
mod loop_waker;
mod memory;
mod pipe;
#[cfg(unix)]
mod poller;
mod queue;
mod socket;
mod stream;
mod tls;
pub mod varint;

pub use atomic::Atomic;
pub use bridge::{Bridge, End, Progress};
pub use datagram::Datagram;
pub use error::PipeError;
pub use loop_waker::loop_waker;
pub use memory::MemoryPipe;
pub use pipe::{Pipe, Readiness};
#[cfg(unix)]
pub use poller::Poller;
pub use socket::SocketPipe;
pub use stream::{StreamHandler, StreamPipe};
pub use tls::TlsPipe;
