//! The C interface of seaprox. `seaprox.h` is its documentation: each function here has its comment there.
//!
//! ```text
//!   C ──► extern "C" functions, a noun a file ──► handle: the loop of this thread ──► the library's verbs
//!                     │                                 ▲
//!                     ▼                                 │ current: the loop that a callback was lent
//!   C ◄── callbacks ◄─── handler, hook, watch, observer, connector, policy, link_event, datagram
//! ```
//! No pointer to a record leaves this package: a `seaprox_loop *` is a number, and all other handles are ids. So a stale one is
//! answered with an error. A panic never crosses: [`error::guard`] ends it at each function, and the loop at each callback.
//!
//! Pointers to memory of the caller are taken as [`memory`] declares them; the header demands that they are valid.
#![allow(non_camel_case_types, reason = "the names of the header")]
#![allow(clippy::missing_safety_doc, reason = "the header has the conditions")]
#![deny(unsafe_op_in_unsafe_fn)]

#[macro_use]
mod error;
mod adopt;
mod config;
mod connection;
mod connector;
mod current;
mod datagram;
mod forward;
mod handle;
mod handler;
mod hook;
mod key;
mod link;
mod link_event;
mod listener;
mod log;
mod memory;
mod numbers;
mod observer;
mod options;
mod policy;
mod reason;
mod server;
mod side;
mod signal;
mod status;
mod stream;
mod the_loop;
mod timer;
mod version;
mod watch;
