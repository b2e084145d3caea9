//! Datagrams of UDP: sockets, the table of flows and the datagrams that wait, each without a loop.
//!
//! | file | content |
//! | --- | --- |
//! | `socket` | a socket that receives and sends in batches |
//! | `batch` | the receive buffers of a loop, and one received batch |
//! | `table` | the flows of a loop: lookup, limits, timers, the choice of the flow that makes room |
//! | `queue` | the few datagrams of a flow that wait until it has a target |
//! | `reply` | the sockets from which redirected clients are answered |
//!
//! `engine/datagrams/` joins them with the event loop. Nothing here allocates for a datagram, except for one that waits.

pub(crate) mod batch;
pub(crate) mod queue;
pub(crate) mod reply;
pub(crate) mod socket;
pub(crate) mod table;

#[cfg(test)]
mod table_tests;
