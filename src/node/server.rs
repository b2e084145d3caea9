//! Servers: the places where peers dial links to this node, and the view of one of them.

use std::sync::Arc;

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::transport;
use crate::types::address::Endpoint;
use crate::types::id::{Id, Kind};
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

use super::config::{Policy, Timing};
use super::control::Node;
use super::link::{Takes, Watch};

/// The record of one listener for links.
pub(crate) struct Server {
    /// Its listener.
    pub listener: Id,
    pub address: Endpoint,
    pub endpoint: transport::Endpoint,
    pub policy: Arc<dyn Policy>,
    pub mode: crate::link::Mode,
    /// Streams of other links are accepted as carriers.
    pub over_links: bool,
    pub timing: Timing,
    pub watch: Watch,
    pub takes: Takes,
    pub instance: Option<u32>,
    /// The limit of unauthenticated peers was reached, and a warning was logged.
    pub full: bool,
    pub counts: Counts,
}

/// Counts of one server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub carriers: u64,
    pub sessions: u64,
    pub refused: u64,
}

/// The status of one server.
#[derive(Clone, Debug)]
pub struct ServerStatus {
    /// The id of the server.
    pub id: Id,
    /// The address on which it accepts links.
    pub address: Endpoint,
    /// The links that it serves.
    pub links: Vec<Id>,
    /// Transport connections of peers that were accepted.
    pub carriers: u64,
    /// Sessions that peers have begun.
    pub sessions: u64,
    /// Transport connections that were refused at the limit of unauthenticated peers.
    pub refused: u64,
}

/// The fate of the links of a server that stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinksOfServer {
    /// The links are closed in order: their streams are reset, and the peers are told.
    Close,
    /// The links go on. One that loses all its subflows can resume only at another server of the loop.
    GoOn,
}

/// A server of a loop, borrowed; see [`Loop::server`].
pub struct ServerMut<'a> {
    core: &'a mut Core,
    node: &'a mut Node,
    id: Id,
}

impl Loop<'_> {
    /// Returns a view of a server.
    ///
    /// # Errors
    /// [`VerbError::Stale`] or [`VerbError::Over`] if the server has stopped, [`VerbError::Invalid`] if the id is not one of a
    /// server.
    pub fn server(&mut self, id: Id) -> Result<ServerMut<'_>, VerbError> {
        let (core, node) = self.parts::<Node>();
        match node.servers.get(id) {
            Some(_) => Ok(ServerMut { core, node, id }),
            None => Err(core.ended.missing(id, Kind::Server)),
        }
    }

    /// Returns the status of all servers.
    pub fn servers(&mut self) -> Vec<ServerStatus> {
        let (_, node) = self.parts::<Node>();
        node.servers.iter().map(|(id, server)| node.server_status(id, server)).collect()
    }
}

impl ServerMut<'_> {
    /// Returns the id of the server.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Returns the address on which links are accepted.
    pub fn address(&self) -> Endpoint {
        self.node.servers.get(self.id).map_or(Endpoint::Unknown, |server| server.address.clone())
    }

    /// Returns the links that the server serves.
    pub fn links(&self) -> Vec<Id> {
        self.node.links_of(self.id)
    }

    /// Returns the status.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if this view has stopped the server.
    pub fn status(&self) -> Result<ServerStatus, VerbError> {
        let server = self.node.servers.get(self.id).ok_or(VerbError::Stale)?;
        Ok(self.node.server_status(self.id, server))
    }

    /// Stops the server: its address is free at once, and peers that have not begun a session are closed.
    ///
    /// # Errors
    /// [`VerbError::Already`] if this view has stopped the server.
    pub fn stop(&mut self, links: LinksOfServer) -> Result<(), VerbError> {
        self.node.stop_server(self.core, self.id, links)
    }
}

impl Node {
    /// Returns the server of a listener.
    pub(super) fn server_at(&self, listener: Id) -> Option<Id> {
        self.servers.iter().find(|(_, server)| server.listener == listener).map(|(id, _)| id)
    }

    fn links_of(&self, server: Id) -> Vec<Id> {
        self.links.iter().filter(|(_, link)| link.server == Some(server)).map(|(id, _)| id).collect()
    }

    fn server_status(&self, id: Id, server: &Server) -> ServerStatus {
        let Counts { carriers, sessions, refused } = server.counts;
        ServerStatus { id, address: server.address.clone(), links: self.links_of(id), carriers, sessions, refused }
    }

    fn stop_server(&mut self, core: &mut Core, id: Id, links: LinksOfServer) -> Result<(), VerbError> {
        let server = self.servers.remove(id).ok_or(VerbError::Already)?;
        core.close_listener(server.listener);
        let is_its = |server: Option<Id>, link: Option<Id>| server == Some(id) && link.is_none();
        let early = self.carriers.iter().filter(|(_, carrier)| is_its(carrier.server, carrier.link));
        let early: Vec<Id> = early.map(|(id, _)| id).collect();
        early.into_iter().for_each(|carrier| self.drop_carrier(core, carrier));
        if links == LinksOfServer::Close {
            self.links_of(id).into_iter().for_each(|link| self.close_link(core, link));
        }
        core.ended.note(id, Reason::Drained);
        Ok(())
    }
}

/// Maximum of the servers of one loop.
pub(super) const SERVERS_MAX: usize = 256;
