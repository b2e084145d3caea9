//! Services: what a peer opens a stream to at this node itself, and not at a target behind it, such as `file/1`.
//!
//! The OPEN is of the kind internal, and its host is the name of the service. A loop gives each service that it has to a maker
//! of handlers ([`Loop::set_service`]), which decides about the key of the peer; a service that it does not have is refused.
//! The limits of a key hold for these streams, too.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::handler::Handler;
use crate::link::{Host, Kind, Open, StreamId};
use crate::relay::connection::Stage;
use crate::relay::io::Io;
use crate::relay::side::SideState;
use crate::streams::Slot;
use crate::types::address::Endpoint;
use crate::types::id::{Id, Kind as IdKind};
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::config::PeerKey;
use super::control::Node;
use super::opened_stream::AppStream;

/// The peer that opens a stream to a service.
#[derive(Clone, Copy, Debug)]
pub struct ServicePeer<'a> {
    /// Its key.
    pub key: &'a PeerKey,
    /// Its name.
    pub name: &'a str,
    /// The link.
    pub link: Id,
    /// True if this node has dialed the link, and the peer is the server that it uses.
    pub is_dialed: bool,
    /// The folders that the policy of the link shares with it.
    pub folders: &'a [PathBuf],
}

/// Makes the handler of a stream that a peer has opened to a service, or none to refuse it. The stream is accepted, and its
/// bytes are the handler's. A panic counts in [`Stats::panics`](crate::Stats::panics), and refuses the stream.
pub type OnService = Box<dyn FnMut(&ServicePeer<'_>) -> Option<Box<dyn Handler>>>;

impl Loop<'_> {
    /// Offers a service to the peers of all links of the loop, in the place of another one of this name. These are the peers that
    /// have dialed this node and those that it has dialed; `make` decides by [`ServicePeer::is_dialed`].
    pub fn set_service(&mut self, name: &str, make: OnService) {
        let (_, node) = self.parts::<Node>();
        node.services.retain(|(other, _)| other != name);
        node.services.push((name.to_owned(), make));
    }

    /// Offers a service no more. Its streams go on.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if there is no such service.
    pub fn remove_service(&mut self, name: &str) -> Result<(), VerbError> {
        let (_, node) = self.parts::<Node>();
        let before = node.services.len();
        node.services.retain(|(other, _)| other != name);
        if node.services.len() < before { Ok(()) } else { Err(VerbError::Stale) }
    }

    /// Permits each peer the streams that it needs for services, also one that may open no target. Otherwise such a peer
    /// may open no stream, unless its policy says so ([`Policy::may_open_any`](super::Policy::may_open_any)).
    pub fn permit_services(&mut self) {
        let (_, node) = self.parts::<Node>();
        node.serves.store(true, Ordering::Relaxed);
        self.recheck_links();
    }

    /// Opens a stream to a service of the peer of a link, or of one of the peers of a group, for a handler:
    /// [`Handler::connected`] reports the result, then the bytes are the handler's. The stream is the source of a connection
    /// without a dest. It waits if the link is not up.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the id is not one of a link or of a group, or the name is empty or has more than 255 bytes,
    /// [`VerbError::Stale`] if the link is gone, [`VerbError::Full`] if the table of connections is full,
    /// [`VerbError::Over`] if the link is being closed.
    pub fn open_service(&mut self, link: Id, name: &str, handler: Box<dyn Handler>) -> Result<Id, VerbError> {
        let (core, node) = self.parts::<Node>();
        match link.kind() {
            IdKind::Link => {
                let record = node.links.get(link).ok_or(VerbError::Stale)?;
                if record.closing {
                    return Err(VerbError::Over(Reason::LinkLost));
                }
            }
            IdKind::Group => _ = node.groups.get(link).ok_or(VerbError::Stale)?,
            _ => return Err(VerbError::Invalid),
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(VerbError::Invalid);
        }
        let connection = core.adopt_io(Io::None, Endpoint::Unknown, "service", None, handler);
        let connection = connection.map_err(|_| VerbError::Full)?;
        let now_ms = core.now_ms;
        let Some(record) = core.connections.get_mut(connection) else { return Err(VerbError::Stale) };
        (record.via, record.dial_since_ms) = (Some(link), now_ms);
        (record.notes().asked, record.notes().is_service) = (Some(name.into()), true);
        let source = record.source;
        if let Some(side) = core.sides.get_mut(source) {
            side.state = SideState::Connecting;
        }
        core.set_stage(connection, Stage::Connecting);
        node.dial_stream(core, source, link);
        Ok(connection)
    }
}

impl Node {
    /// Handles an OPEN to a service of this loop. Returns false if the stream has another target.
    pub(super) fn service_opened(&mut self, core: &mut Core, link: Id, id: StreamId, open: &Open) -> bool {
        let (Kind::Internal, Host::Name(name)) = (open.kind, &open.host) else { return false };
        let Some(index) = self.services.iter().position(|(service, _)| service == name) else { return false };
        if let Err(failure) = self.serve(core, link, id, index) {
            core.stats.streams_refused += 1;
            if failure.reason != Reason::LimitReached {
                self.was_futile(core, link);
            }
            self.refuse_stream(core, link, id, &failure);
        }
        true
    }

    fn serve(&mut self, core: &mut Core, link: Id, id: StreamId, index: usize) -> Result<(), Failure> {
        let key = self.links.get(link).and_then(|link| link.key).ok_or(Reason::NotPermitted)?;
        self.check_limits(core, link, &key, false)?;
        if core.is_draining() {
            return Err(Failure::new(Reason::Drained, "the node is stopping"));
        }
        let at = core.pools.sessions.stream_at(link, id).ok_or(Reason::LinkLost)?;
        let peer = Arc::clone(&core.pools.sessions.get(link).ok_or(Reason::LinkLost)?.name);
        let folders = self.links.get(link).map(|link| link.policy.shared_folders(&key)).unwrap_or_default();
        let (name, make) = &mut self.services[index];
        let is_dialed = self.links.get(link).is_some_and(|link| link.is_dialed());
        let opener = ServicePeer { key: &key, name: &peer, link, is_dialed, folders: &folders };
        let made = catch_unwind(AssertUnwindSafe(|| make(&opener)));
        self.panics.fetch_add(u64::from(made.is_err()), Ordering::Relaxed);
        let handler = made.ok().flatten();
        let handler = handler.ok_or_else(|| Failure::new(Reason::NotPermitted, "the peer's key may not use it"))?;
        let endpoint = Endpoint::Link(Arc::clone(&peer), id.0);
        let name = Box::<str>::from(name.as_str());
        let adopted = core.adopt_io(Io::Stream(at), endpoint, "service", None, Box::new(AppStream { handler }));
        let full = |_| Failure::new(Reason::LimitReached, "the table of connections is full");
        let connection = adopted.map_err(full)?;
        let record = core.connections.get_mut(connection).ok_or(Reason::Internal)?;
        (record.notes().user, record.notes().asked) = (Some(peer), Some(name));
        let side = record.source;
        self.charge(core, connection, link);
        if let Some(record) = core.pools.sessions.get_mut(link) {
            record.streams.insert(id, Slot::new(side));
        }
        Ok(())
    }
}

/// Returns the OPEN of a connection to a service, or none if it is a connection to a target.
pub(super) fn open_of_service(record: &crate::relay::connection::Connection, timeout_ms: u32) -> Option<Open> {
    let notes = record.notes.as_ref().filter(|notes| notes.is_service)?;
    let host = Host::Name(notes.asked.as_deref()?.to_owned());
    Some(Open { kind: Kind::Internal, host, timeout_ms, ..Open::default() })
}

/// Longest name of a service: that of a host in an OPEN.
const NAME_BYTES_MAX: usize = 255;
