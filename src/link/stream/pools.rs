//! The pools of a session: buffers for small payloads and the queues of idle streams, for reuse.
//!
//! With them, frames allocate nothing in steady state, although a stream without data owns no queue. The pools keep at
//! most 2 MiB, which the memory formula includes. [`Pins`] is here too, because it is needed wherever runs are added or
//! freed.

use super::buffer_pool::BufferPool;
use super::pins::Pins;
use super::queue_pool::QueuePool;
use super::run::{Chunk, Run};

/// The pools of a session.
#[derive(Debug, Default)]
pub(in crate::link) struct Pools {
    pub(in crate::link) bufs: BufferPool,
    pub(in crate::link) chunks: QueuePool<Chunk>,
    pub(in crate::link) runs: QueuePool<Run>,
    pub(in crate::link) pins: Pins,
}
