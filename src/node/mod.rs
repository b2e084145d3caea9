//! A node: the link's session in the loop, over TCP with TLS.
mod config;
mod status;

pub use config::{
    Cipher, Happened, Identity, LinkConfig, Path, PeerKey, Policy, Reverse, ServeConfig, Timing, Verdict,
};
pub use status::{LinkStatus, ListenerStatus, SubflowStatus};

use std::io;

use crate::core::Core;
use crate::id::Id;
use crate::listener::Bound;

impl Core {
    /// Dials a link and keeps it up. Streams can be opened over it at once: they wait for it.
    ///
    /// # Errors
    /// The configuration makes no sense, or the limit of links is reached.
    pub fn connect_link(&mut self, _config: LinkConfig) -> io::Result<Id> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes in links that others dial to a bound address.
    ///
    /// # Errors
    /// The socket cannot be registered, or the key cannot be used.
    pub fn serve_links(&mut self, _bound: &mut Bound, _config: ServeConfig) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Sends the clients of a listener over a link.
    pub fn route_listener(&mut self, _listener: u32, _link: Id) {}

    /// Sends a connection that has no dest yet over a link.
    pub fn route(&mut self, _connection: Id, _link: Id) {}

    /// Ends a link in order: its streams are reset, its peer is told.
    pub fn close_link(&mut self, _link: Id) {}

    /// Adds a way to the peer of a link that we dial.
    pub fn add_path(&mut self, _link: Id, _path: Path) {}

    /// Takes a way to the peer out of a link that we dial, once nothing is on its way there any more.
    pub fn remove_path(&mut self, _link: Id, _path: &Path) {}

    /// Ends the links with keys that the policy does not admit any more.
    pub fn recheck_links(&mut self) {}

    /// What the links are doing.
    pub fn links(&self) -> Vec<LinkStatus> {
        Vec::new()
    }
}
