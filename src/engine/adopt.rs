//! Descriptors of the caller as sides: sources and dests that no listener accepted and no dial connected.

use mio::Token;

use crate::engine::connection_view::ConnectionMut;
use crate::engine::core::Core;
use crate::engine::handler::Handler;
use crate::relay::io::Io;
use crate::sys::duplex::Duplex;
use crate::types::address::Endpoint;
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::label::Label;
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

impl Core {
    /// Makes a connection whose source is one descriptor or two: a connected stream socket, pipes, a terminal, files. A
    /// failure closes the descriptors.
    ///
    /// # Errors
    /// [`VerbError::Over`] if the loop is stopping: it takes no more sources, and could not tell them its end. The connection
    /// table is full, or the descriptors are no stream of bytes or cannot be registered.
    pub fn adopt(
        &mut self,
        source: impl Into<Duplex>,
        kind: impl Into<Label>,
        handler: Box<dyn Handler>,
    ) -> Result<Id, DescriptorError> {
        if self.is_draining() {
            return Err(VerbError::Over(Reason::Drained).into());
        }
        if self.connections.is_full() {
            return Err(VerbError::Full.into());
        }
        let (io, endpoint) = open(source.into())?;
        self.adopt_io(io, endpoint, kind, None, handler).map_err(|(_, error)| error.into())
    }
}

impl ConnectionMut<'_> {
    /// Makes one descriptor or two the dest; see [`Core::adopt`]. [`Handler::connected`] reports the result, as for
    /// [`ConnectionMut::connect`]. A failure closes the descriptors, and the connection goes on without a dest.
    ///
    /// # Errors
    /// The connection has a dest or is over, or the descriptors are no stream of bytes or cannot be registered.
    pub fn connect_with(&mut self, dest: impl Into<Duplex>) -> Result<(), DescriptorError> {
        self.check_open()?;
        let id = self.id();
        let core: &mut Core = self.core();
        let record = core.connections.get(id).ok_or(VerbError::Stale)?;
        let (None, Some(next)) = (record.dest, core.sides.next_id()) else { return Err(VerbError::Already.into()) };
        // The requested target of the log stays: it is not dialed.
        let asked = record.asked.clone();
        let (mut io, endpoint) = open(dest.into())?;
        let unpollable = io.register(&core.registry, Token(next.to_u64() as usize))?;
        let dest = core.new_dest(id, asked.as_ref());
        debug_assert_eq!(dest, Some(next), "the dest has the id that was registered");
        if let Some(side) = dest.and_then(|dest| core.sides.get_mut(dest)) {
            (side.io, side.endpoint) = (io, endpoint);
            side.set_unpollable(unpollable);
        }
        core.queues.dialled.push_back((next, Ok(())));
        Ok(())
    }
}

/// Opens descriptors. Returns them with the address to show for them.
fn open(duplex: Duplex) -> Result<(Io, Endpoint), DescriptorError> {
    let (read, write) = duplex.numbers();
    let io = Io::from_duplex(duplex)?;
    let endpoint = if let Io::Files { .. } = io { Endpoint::Descriptor(read, write) } else { io.peer() };
    Ok((io, endpoint))
}
