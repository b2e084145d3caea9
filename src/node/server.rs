//! Servers: the places where peers dial links to this node, and the view of one of them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::transport::{self, Setup};
use crate::types::address::Endpoint;
use crate::types::id::{Id, Kind};
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

use super::config::{Identity, PeerKey, Policy, Preface, ServeConfig, Timing};
use super::control::Node;
use super::guarded::Guarded;
use super::link::{Link, Takes, TakesDatagrams, Watch};
use super::udp_port::UdpPort;
use super::verbs::server_setup;

/// The record of one listener for links.
pub(crate) struct Server {
    /// Its listener.
    pub listener: Id,
    pub address: Endpoint,
    pub endpoint: transport::CarrierEndpoint,
    pub policy: Arc<dyn Policy>,
    /// The public key of this node.
    pub key: PeerKey,
    pub mode: crate::link::Mode,
    /// Streams of other links are accepted as carriers.
    pub over_links: bool,
    pub timing: Timing,
    pub watch: Watch,
    pub takes: Takes,
    pub takes_datagrams: TakesDatagrams,
    pub preface: Option<Preface>,
    pub instance: Option<u32>,
    /// The keys of this node, for an endpoint of another kind.
    pub identity: Identity,
    pub udp_port: UdpPort,
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

    /// Accepts links under another configuration from now on. The address with its backlog stays, and so do the links: their
    /// keys are judged, their events are reported, and connections to targets begin, by the new configuration, and everything else
    /// about them is as before. Call [`Loop::recheck_links`] to end those that are not admitted any more.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the key cannot be used, or if the carrier is another one, which needs other sockets.
    pub fn replace(&mut self, config: ServeConfig) -> Result<(), VerbError> {
        let record = self.node.servers.get(self.id).ok_or(VerbError::Stale)?;
        if record.endpoint.kind() != config.carrier.at(record.address.proto()) {
            return Err(VerbError::Invalid);
        }
        let server = self.node.new_server(config, record.address.clone())?(record.listener);
        self.node.replace_server(self.id, server)?;
        self.node.replace_beside(self.id)
    }

    /// Takes over the links of servers that have stopped, so that they are judged and reported by this one, and closed with
    /// it.
    pub fn adopt(&mut self, stopped: &[Id]) {
        self.node.adopt_links(self.id, stopped);
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

    /// Returns a function that makes the record of a server, from the id of its listener.
    pub(super) fn new_server(
        &self,
        config: ServeConfig,
        address: Endpoint,
    ) -> Result<impl FnOnce(Id) -> Server + use<>, VerbError> {
        let ServeConfig { identity, policy, carrier, mode, over_links, timing, preface, on_event, .. } = config;
        let policy = Guarded::wrap(policy, &self.panics, &self.serves);
        let setup = Setup { congestion: timing.congestion, ..server_setup(&identity, &policy) };
        let key = setup.public_key().map_err(|_| VerbError::Invalid)?;
        let carrier = carrier.at(address.proto());
        let endpoint = transport::CarrierEndpoint::server(carrier, &setup).map_err(|_| VerbError::Invalid)?;
        let takes = config.on_stream.map(|takes| Rc::new(RefCell::new(takes)));
        let takes_datagrams = config.on_datagrams.map(|takes| Rc::new(RefCell::new(takes)));
        let (watch, instance, counts) = (Some(Rc::new(RefCell::new(on_event))), identity.instance, Counts::default());
        Ok(move |listener| Server {
            listener,
            address,
            endpoint,
            policy,
            key,
            mode,
            over_links,
            timing,
            watch,
            takes,
            takes_datagrams,
            preface,
            instance,
            identity,
            udp_port: UdpPort::default(),
            full: false,
            counts,
        })
    }

    /// Puts another record in the place of one, whose listener, carriers and links it takes over.
    pub(super) fn replace_server(&mut self, id: Id, server: Server) -> Result<(), VerbError> {
        let record = self.servers.get_mut(id).ok_or(VerbError::Stale)?;
        let before = std::mem::replace(record, server);
        (record.counts, record.udp_port) = (before.counts, before.udp_port);
        record.endpoint.take_over(before.endpoint);
        self.adopt_links(id, &[id]);
        Ok(())
    }

    /// Makes the links of some servers, which may have stopped, those of another server.
    fn adopt_links(&mut self, to: Id, from: &[Id]) {
        let Some(server) = self.servers.get(to) else { return };
        let is_its = |link: &Link| link.server.is_some_and(|server| from.contains(&server));
        let its: Vec<Id> = self.links.iter().filter(|(_, link)| is_its(link)).map(|(id, _)| id).collect();
        for id in its {
            let Some(link) = self.links.get_mut(id) else { continue };
            (link.server, link.policy, link.watch) = (Some(to), Arc::clone(&server.policy), server.watch.clone());
            link.preface.clone_from(&server.preface);
        }
    }

    fn stop_server(&mut self, core: &mut Core, id: Id, links: LinksOfServer) -> Result<(), VerbError> {
        if let Some(beside) = self.servers.get(id).and_then(|server| server.udp_port.server()) {
            self.adopt_links(id, &[beside]);
        }
        let server = self.servers.remove(id).ok_or(VerbError::Already)?;
        if let Some(beside) = server.udp_port.server() {
            // A server beside this one that has been stopped by itself is gone.
            let _ = self.stop_server(core, beside, links);
        }
        core.close_listener(server.listener);
        let is_its = |server: Option<Id>, link: Option<Id>| server == Some(id) && link.is_none();
        let early = self.carriers.iter().filter(|(_, carrier)| is_its(carrier.server, carrier.link));
        let early: Vec<Id> = early.map(|(id, _)| id).collect();
        early.into_iter().for_each(|carrier| self.drop_carrier(core, carrier));
        if links == LinksOfServer::Close {
            self.links_of(id).into_iter().for_each(|link| self.close_link(core, link));
        }
        if server.endpoint.is_shared() {
            self.leaving.push((server.listener, server.endpoint));
        }
        core.ended.note(id, Reason::Drained);
        Ok(())
    }
}

/// Maximum of the servers of one loop.
pub(super) const SERVERS_MAX: usize = 256;
