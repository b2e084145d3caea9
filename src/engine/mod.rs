//! The event loop and everything that it owns: the core with its queues and timers, listeners, dials, names and threads.

pub(crate) mod adopt;
pub(crate) mod closing;
pub(crate) mod connect_failure;
pub(crate) mod control;
pub(crate) mod core;
pub(crate) mod describe;
pub(crate) mod dial;
pub(crate) mod ending;
pub(crate) mod event_loop;
pub(crate) mod fair;
pub(crate) mod flow;
pub(crate) mod handler;
pub(crate) mod key_accounts;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod log_limit;
pub(crate) mod mailbox;
pub(crate) mod observer;
pub(crate) mod profiles;
pub(crate) mod resolve;
pub(crate) mod sources;
pub(crate) mod status;
pub(crate) mod stopping;
pub(crate) mod sync;
pub(crate) mod threads;
pub(crate) mod workers;
