//! Room that is used again: buffers for small payloads, and the queues of streams that hold nothing now.
//!
//! It exists so that frames allocate nothing in steady state although a stream that holds no bytes has no room of its
//! own. What it keeps is bounded and counted in the memory formula: at most 2 MiB. It goes along with what counts the
//! memory of what has arrived, since both are at hand where runs come and go.

use super::buffer_pool::BufferPool;
use super::pins::Pins;
use super::queue_pool::QueuePool;
use super::run::{Chunk, Run};

/// See the module's head.
#[derive(Debug, Default)]
pub(in crate::link) struct Pools {
    pub(in crate::link) bufs: BufferPool,
    pub(in crate::link) chunks: QueuePool<Chunk>,
    pub(in crate::link) runs: QueuePool<Run>,
    pub(in crate::link) pins: Pins,
}
