//! Streams: the two halves, their windows and quotas, the order in which they send, and the buffers that they share.
//!
//! This folder imports only `wire`.

pub(super) mod buffer_pool;
pub(super) mod credit;
pub(super) mod datagram;
pub(super) mod drr;
pub(super) mod mix;
pub(super) mod pins;
pub(super) mod pools;
pub(super) mod queue_pool;
pub(super) mod quota;
pub(super) mod ranges;
pub(super) mod recv;
pub(super) mod run;
pub(super) mod send;
pub(super) mod state;
