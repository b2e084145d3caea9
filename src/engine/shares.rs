//! The share that one loop has of the limits of its process. It may change while the loop runs: a loop gives up what it does
//! not use, and another loop gets it.

use crate::engine::core::Core;
use crate::engine::limits::Limits;

/// One loop's share of the connections, of the bytes of buffers, and of the pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(pub [usize; 3]);

impl Share {
    /// Returns the share that these limits of one loop are.
    pub fn of(limits: &Limits) -> Share {
        Share([limits.connections, limits.buffer_bytes, limits.pipes])
    }

    /// Combines two shares, limit by limit.
    pub fn with(self, other: Share, combine: impl Fn(usize, usize) -> usize) -> Share {
        Share(std::array::from_fn(|index| combine(self.0[index], other.0[index])))
    }
}

impl Core {
    /// Reduces the share of this loop to another one, as far as what is in use permits. Returns the share that it has now.
    pub(crate) fn lower_share(&mut self, to: Share) -> Share {
        let blocks = self.pools.blocks.taken() * self.pools.blocks.block_bytes();
        let used = Share([self.connections.len(), blocks, self.pools.splice_pipes.open()]);
        let lowered = Share::of(&self.config.limits).with(to.with(used, usize::max), usize::min);
        self.set_share(lowered);
        lowered
    }

    /// Sets the share of this loop, which is not below what is in use. Clients that wait for room are accepted in the next
    /// turn.
    pub(crate) fn set_share(&mut self, share: Share) {
        let [connections, buffer_bytes, pipes] = share.0;
        let limits = &mut self.config.limits;
        (limits.connections, limits.buffer_bytes, limits.pipes) = (connections, buffer_bytes, pipes);
        self.connections.set_capacity(connections);
        self.sides.set_capacity(limits.sides());
        self.pools.blocks.set_limit(buffer_bytes);
        self.pools.splice_pipes.set_limit(pipes);
        if !self.connections.is_full() {
            self.accept_again();
        }
    }
}
