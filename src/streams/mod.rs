//! Streams of links, as the data plane sees them: a side without a socket whose bytes lie in the session of its link.
//!
//! [`Sessions`] holds the session of each link. The pump reads from it and writes to it; the control of links (`node/`)
//! changes it between calls. This layer knows no side but by its id, and knows nothing of carriers, dialing and policy.
//!
//! `sessions` the session of each link, and the queue of links with something to do · `stream` reading, writing and closing
//! a stream · `chunks` the memory that local reads go into · `rest` data that outlives its session.

mod chunks;
mod rest;
mod sessions;
mod stream;

pub(crate) use chunks::CHUNK_BYTES;
pub(crate) use sessions::{LinkSession, Sessions};
pub(crate) use stream::{Slot, StreamAt, Taken};
