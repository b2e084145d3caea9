//! Streams of links, as the data plane sees them: sides without a socket, whose bytes are in the session of their link.
//!
//! [`Sessions`] holds the session of each link. The pump reads from it and writes to it; the control of links (`node/`)
//! changes it between calls. This layer knows sides by their ids only, and knows nothing of carriers, dialing and policy.
//!
//! `sessions` the session of each link, and the queue of links with work · `stream` reading, writing and closing a stream ·
//! `answer` answers and codes as failures and reasons · `datagrams` datagrams on a stream · `chunks` the memory that local reads go into · `undelivered` data that outlives its session.

mod answer;
mod chunks;
mod datagrams;
mod sessions;
mod stream;
mod undelivered;

pub(crate) use answer::{END_PREFIX, IN_USE, kind_of};
pub(crate) use chunks::CHUNK_BYTES;
pub(crate) use datagrams::{Given, LinkDrops};
pub use sessions::LINKS_MAX;
pub(crate) use sessions::{LinkSession, Sessions};
pub(crate) use stream::{Slot, StreamAt, Taken};
