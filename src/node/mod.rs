//! A node: links in the loop.
//!
//! [`crate::link`] is the session between two nodes, without sockets; this is what stands around it. A *carrier* is one
//! TCP connection with TLS that carries a subflow; its socket is a side that belongs to no connection. A stream is a side
//! without a socket; the relay reads from the session and writes to it. A link that we dial has a *plan* of the subflows
//! that it wants; those who dial us are *visitors* until their HELLO says which session they belong to.
//!
//! ```text
//!   socket -> carrier: TLS -> session: frames -> stream -> relay -> socket
//!   socket <- carrier: TLS <- session: frames <- stream <- relay <- socket
//! ```
//! # What happens in a turn
//! Events run carriers (read, decrypt, [`Session::input`](crate::link::Session::input)) and sides. What touched a link
//! has queued it; `drive` then takes the session's events to the sides and its frames to the carriers, the sides that were
//! woken are run in the same turn, and at its end what that gave the sessions to say is written.
//!
//! # Reading order
//! `config` the configuration of a node · `links` the node state of a loop · `link` one link · `carrier` the TCP connections
//! of a link · `window` the bytes in flight on a carrier · `plan` dialling carriers · `greet` accepting carriers ·
//! `unauthenticated` the places of peers without a key · `handshakes` the order of their handshakes · `proof` joining a
//! subflow to its session · `turn` the share of each key in a turn · `drive` events, frames and deadlines of the session ·
//! `stream` a stream as a side · `rest` undelivered data of an ended session · `open` opening and ending streams ·
//! `handover` a node that is about to stop · `front` handlers of streams that the peer opened · `reverse` listeners at the
//! other end · `memory` the budget that links share · `whereabouts` the address at which the peer sees this node · `network`
//! this host's own addresses · `chunks` buffers · `bucket` rates · `quiet` log limits · `peers` the resources that each key
//! uses · `status`.
//!
//! # What holds
//! * A visitor costs one carrier, has a deadline, and sees no frame before its key was admitted.
//! * A stream that its link takes along is reset, never finished; unless all of it has arrived.
//! * Nothing is read from a local socket that the session has no room for.

mod bucket;
mod carrier;
mod chunks;
mod config;
mod drive;
mod front;
mod greet;
mod handover;
mod handshakes;
mod happened;
mod link;
mod links;
mod memory;
mod network;
mod open;
mod plan;
mod proof;
mod rest;
mod reverse;
mod status;
mod stream;
mod turn;
mod unauthenticated;
mod waiting;
mod whereabouts;
mod window;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};

use crate::engine::core::Core;
use crate::engine::listener::Bound;
use crate::link::Code;
use crate::link::frame::Class;
use crate::tls::{self, Tls, TlsError};
use crate::types::id::Id;

use greet::Server;
use link::Link;
use plan::{Plan, Wanted};

pub(crate) use chunks::CHUNK_BYTES;
pub use config::{
    Cipher, Happened, Identity, LinkConfig, OnHappened, OnStream, Path, PeerKey, Policy, Request, Reverse, SameKey,
    ServeConfig, Timing, Verdict,
};
pub(crate) use links::Links;
pub use network::NetworkChanges;
pub use status::{LinkStatus, ListenerStatus, MissingStatus, SubflowStatus};
pub(crate) use stream::{StreamAt, Taken};

impl Core {
    /// Dials a link and keeps it up. Streams can be opened over it at once: they wait for it.
    ///
    /// # Errors
    /// The configuration makes no sense, or the limit of links is reached.
    pub fn connect_link(&mut self, config: LinkConfig) -> io::Result<Id> {
        let LinkConfig { identity, policy, peer, paths, subflows, mode, reverse, timing, on_stream, watch } = config;
        if paths.is_empty() || subflows == 0 || paths.len() * subflows > timing.subflows {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a link needs a subflow, and takes only so many"));
        }
        let tls = Arc::new(client(&identity, &policy).map_err(io::Error::other)?);
        let place = peer.to_string();
        let mut link = Link::new(policy, timing, mode, &place, Some(Rc::new(RefCell::new(watch))), self.now_ms);
        link.takes = on_stream.map(|takes| Rc::new(RefCell::new(takes)));
        let wanted = paths.iter().flat_map(|path| (0..subflows).map(|_| Wanted::new(path.clone()))).collect();
        let instance = identity.instance;
        link.plan = Some(Box::new(Plan { tls, peer, subflows, wanted, instance }));
        link.remotes = reverse.into_iter().map(reverse::Remote::new).collect();
        let id = self.pools.links.links.insert(link).map_err(|_| io::Error::other("limit of links reached"))?;
        self.pools.links.touch(id);
        Ok(id)
    }

    /// Takes in links that others dial to a bound address.
    ///
    /// # Errors
    /// The socket cannot be registered, or the key cannot be used.
    pub fn serve_links(&mut self, bound: &mut Bound, config: ServeConfig) -> io::Result<()> {
        let ServeConfig { identity, policy, mode, timing, on_stream, watch } = config;
        let tls = Arc::new(server(&identity, &policy).map_err(io::Error::other)?);
        let listener = self.listen_for_links(bound)?;
        let (watch, instance) = (Some(Rc::new(RefCell::new(watch))), identity.instance);
        let takes = on_stream.map(|takes| Rc::new(RefCell::new(takes)));
        let server = Server { tls, policy, mode, timing, watch, takes, instance, full: false };
        self.pools.links.servers.insert(listener, server);
        Ok(())
    }

    /// Sends the clients of a listener over a link.
    pub fn route_listener(&mut self, listener: u32, link: Id) {
        if let Some(listener) = self.listeners.get_mut(listener as usize) {
            listener.route(link);
        }
    }

    /// Sends a connection that has no dest yet over a link.
    pub fn route(&mut self, connection: Id, link: Id) {
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.via = Some(link);
        }
    }

    /// Dials what is missing of a link at once, as if nothing had failed before.
    pub fn redial_link(&mut self, link: Id) {
        let Some(plan) = self.pools.links.links.get_mut(link).and_then(|link| link.plan.as_mut()) else { return };
        plan.wanted.iter_mut().for_each(|wanted| (wanted.tries, wanted.next_ms) = (0, 0));
        self.pools.links.touch(link);
    }

    /// Ends a link in order: its streams are reset, its peer is told.
    pub fn close_link(&mut self, link: Id) {
        self.close_asides(link);
        let now = self.pools.links.now;
        let Some(record) = self.pools.links.links.get_mut(link) else { return };
        record.closing = true;
        match &mut record.session {
            Some(session) => session.close(now, Code::Drained, "closed"),
            None => self.drop_link(link),
        }
        self.pools.links.touch(link);
    }

    /// Adds a way to the peer of a link that we dial.
    pub fn add_path(&mut self, link: Id, path: &Path) {
        let Some(record) = self.pools.links.links.get_mut(link) else { return };
        let Some(plan) = &mut record.plan else { return };
        let room = record.timing.subflows.saturating_sub(plan.wanted.iter().filter(|wanted| !wanted.removed).count());
        for _ in 0..plan.subflows.min(room) {
            match plan.wanted.iter_mut().find(|wanted| wanted.removed && wanted.carrier.is_none()) {
                Some(free) => *free = Wanted::new(path.clone()),
                None => plan.wanted.push(Wanted::new(path.clone())),
            }
        }
        self.pools.links.touch(link);
    }

    /// Takes a way to the peer out of a link that we dial, once nothing is on its way there any more. The last way that is
    /// up stays until another of those that are left is.
    pub fn remove_path(&mut self, link: Id, path: &Path) {
        let links = &mut self.pools.links;
        let Some(plan) = links.links.get_mut(link).and_then(|record| record.plan.as_mut()) else { return };
        let mut early = Vec::new();
        for wanted in plan.wanted.iter_mut().filter(|wanted| wanted.path == *path) {
            wanted.removed = true;
            let is_early = |carrier: &Id| links.carriers.get(*carrier).is_some_and(|carrier| carrier.subflow.is_none());
            early.extend(wanted.carrier.take_if(|carrier| is_early(carrier)));
        }
        let left = plan.wanted.iter().filter(|wanted| !wanted.removed);
        if left.clone().count() == 0 || left.clone().any(|wanted| wanted.up_ms.is_some()) {
            self.leave_removed(link);
        }
        self.pools.links.touch(link);
        // Those that carry nothing yet need not come up.
        early.into_iter().for_each(|carrier| self.drop_carrier(carrier));
    }

    /// Has the subflows of a link whose paths have been taken out end when nothing is on its way there any more.
    pub(crate) fn leave_removed(&mut self, link: Id) {
        let links = &mut self.pools.links;
        let Some(record) = links.links.get_mut(link) else { return };
        let (Some(plan), Some(session)) = (&record.plan, &mut record.session) else { return };
        for carrier in plan.wanted.iter().filter(|wanted| wanted.removed).filter_map(|wanted| wanted.carrier) {
            if let Some(subflow) = links.carriers.get(carrier).and_then(|carrier| carrier.subflow) {
                session.set_class(subflow, Class::Closing);
            }
        }
    }

    /// Ends the links with keys that the policy does not admit any more. The others get what it says now: their rates, their
    /// numbers of streams, and their listeners, of which those are closed that they may not have any more.
    pub fn recheck_links(&mut self) {
        let links: Vec<Id> = self.pools.links.links.iter().map(|(id, _)| id).collect();
        for id in links.iter().copied() {
            let Some(link) = self.pools.links.links.get_mut(id) else { continue };
            link.key.iter().for_each(|key| link.set_rate(key));
            let permitted = link.streams_permitted();
            link.session.iter_mut().for_each(|session| session.set_streams_permitted(permitted));
            self.pools.links.touch(id);
        }
        let refused = |link: &Link| link.key.is_some_and(|key| !link.policy.admits(&key));
        let refused: Vec<Id> =
            self.pools.links.links.iter().filter(|(_, link)| refused(link)).map(|(id, _)| id).collect();
        for id in refused.iter().copied() {
            let now = self.pools.links.now;
            let Some(link) = self.pools.links.links.get_mut(id) else { continue };
            link.closing |= link.plan.is_none();
            log::warn!(target: greet::TARGET, link = id.to_string(), peer = link.name.to_string(); "its key is not admitted any more");
            if let Some(session) = &mut link.session {
                session.close(now, Code::NotPermitted, "the key is not admitted any more");
            }
            self.pools.links.touch(id);
        }
        links.into_iter().filter(|id| !refused.contains(id)).for_each(|id| self.revoke_listeners(id));
    }

    /// What the links are doing.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.pools.links.links.iter().map(|(id, link)| self.link_status(id, link)).collect()
    }

    /// Whether there is a link that is not over.
    pub(crate) fn has_links(&self) -> bool {
        self.pools.links.links.len() > 0
    }

    /// Ends all links in order, and takes in no more.
    pub(crate) fn close_links(&mut self) {
        if std::mem::replace(&mut self.pools.links.closing, true) {
            return;
        }
        let links: Vec<Id> = self.pools.links.links.iter().map(|(id, _)| id).collect();
        links.into_iter().for_each(|link| self.close_link(link));
    }

    /// Frees a link that has no session.
    fn drop_link(&mut self, id: Id) {
        let failure = crate::types::reason::Failure::new(crate::types::reason::Reason::LinkLost, "the link was closed");
        self.fail_waiting(id, &failure);
        let carriers = self.pools.links.links.get(id).map(|link| link.carriers.clone()).unwrap_or_default();
        carriers.into_iter().for_each(|carrier| self.drop_carrier(carrier));
        self.release_link_memory(id);
        self.pools.links.links.remove(id);
    }
}

fn client(identity: &Identity, policy: &Arc<dyn Policy>) -> Result<Tls, TlsError> {
    Tls::client(&tls::Identity::from_seed(&identity.seed)?, &ciphers(identity), admits(policy))
}

fn server(identity: &Identity, policy: &Arc<dyn Policy>) -> Result<Tls, TlsError> {
    Tls::server(&tls::Identity::from_seed(&identity.seed)?, &ciphers(identity), admits(policy))
}

fn ciphers(identity: &Identity) -> Vec<Cipher> {
    if identity.ciphers.is_empty() { Cipher::preferred().to_vec() } else { identity.ciphers.clone() }
}

/// The question of a TLS handshake, put to a policy.
fn admits(policy: &Arc<dyn Policy>) -> Arc<dyn Fn(&PeerKey) -> bool + Send + Sync> {
    let policy = Arc::clone(policy);
    Arc::new(move |key: &PeerKey| policy.admits(key))
}

/// Random bytes of the system.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // It fails only where the system has no source of them, and then nothing else works either.
    SystemRandom::new().fill(&mut bytes).expect("the system's source of random bytes");
    bytes
}
