//! The view of one link: what the caller of a loop can do with it. Each verb of a link is written here, once.
//!
//! A view borrows the loop, so its link cannot end while it is held. [`Loop::link`] checks the id once for all verbs of the
//! view.

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::handler::Handler;
use crate::link::{MESSAGE_BYTES_MAX, Refused};
use crate::relay::connection::Stage;
use crate::relay::io::Io;
use crate::relay::side::SideState;
use crate::transport::CarrierKind;
use crate::types::address::{Endpoint, Target};
use crate::types::id::{Id, Kind};
use crate::types::link_state::LinkState;
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

use super::config::{LinkConfig, Path};
use super::control::Node;
use super::dialer::{Dialer, Endpoints, SubflowSlot};
use super::guarded::Guarded;
use super::link::Link;
use super::status::{LinkStatus, StreamStatus};
use super::verbs::setup;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// A link of a loop, borrowed; see [`Loop::link`].
pub struct LinkMut<'a> {
    core: &'a mut Core,
    node: &'a mut Node,
    id: Id,
}

impl Loop<'_> {
    /// Returns a view of a link, on which all verbs of links are.
    ///
    /// # Errors
    /// [`VerbError::Stale`] or [`VerbError::Over`] if the link is gone, [`VerbError::Invalid`] if the id is not one of a link.
    pub fn link(&mut self, id: Id) -> Result<LinkMut<'_>, VerbError> {
        let (core, node) = self.parts::<Node>();
        match node.links.get(id) {
            Some(_) => Ok(LinkMut { core, node, id }),
            None => Err(core.ended.missing(id, Kind::Link)),
        }
    }

    /// Returns the status of all links.
    pub fn links(&mut self) -> Vec<LinkStatus> {
        let (core, node) = self.parts::<Node>();
        node.links.iter().map(|(id, link)| node.link_status(core, id, link)).collect()
    }
}

impl<'a> LinkMut<'a> {
    /// Returns a view of a link.
    pub(super) fn new(core: &'a mut Core, node: &'a mut Node, id: Id) -> LinkMut<'a> {
        LinkMut { core, node, id }
    }
}

impl LinkMut<'_> {
    /// Returns the id of the link.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Returns the state.
    pub fn state(&self) -> LinkState {
        let session = self.core.pools.sessions.session(self.id);
        self.record().map_or(LinkState::Ended, |link| link.state(session))
    }

    /// Returns the status.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if a verb of this view has ended the link.
    pub fn status(&self) -> Result<LinkStatus, VerbError> {
        let link = self.record().ok_or(VerbError::Stale)?;
        Ok(self.node.link_status(self.core, self.id, link))
    }

    /// Returns the streams that are sides now, in the order of their numbers.
    pub fn streams(&self) -> Vec<StreamStatus> {
        let sessions = &self.core.pools.sessions;
        let Some(link) = sessions.get(self.id) else { return Vec::new() };
        let connection = |side| self.core.owner(side).map(|(connection, _)| connection);
        let streams = link.streams.iter();
        let mut all: Vec<_> = streams
            .filter_map(|(id, slot)| {
                Some(StreamStatus { number: id.0, side: slot.side, connection: connection(slot.side)? })
            })
            .collect();
        all.sort_unstable_by_key(|stream| stream.number);
        all
    }

    /// Dials the missing subflows at once, and forgets earlier failures.
    ///
    /// # Errors
    /// [`VerbError::Already`] if no path is missing (QUIC beside TCP may be), [`VerbError::Invalid`] if the peer dials this link.
    pub fn redial(&mut self) -> Result<(), VerbError> {
        if self.dialer()?.missing_paths().next().is_none() {
            return Err(VerbError::Already);
        }
        self.node.redial_link(self.core, self.id);
        Ok(())
    }

    /// Closes the link in order: its streams are reset, its forwards are closed, and its peer is told. If it is a link of a
    /// group, the group dials its server no more until [`GroupMut::dial_closed`](super::GroupMut::dial_closed).
    ///
    /// # Errors
    /// [`VerbError::Already`] if the link is being closed.
    pub fn close(&mut self) -> Result<(), VerbError> {
        if self.record().is_none_or(|link| link.closing) {
            return Err(VerbError::Already);
        }
        self.node.member_closed(self.id);
        self.node.close_link(self.core, self.id);
        Ok(())
    }

    /// Asks the peer under which address it sees each subflow whose address is not known yet: [`SubflowStatus::seen_as`]. The
    /// dialing node asks by itself; a node that was dialed hears the address that the peer has reached it at.
    ///
    /// [`SubflowStatus::seen_as`]: super::SubflowStatus::seen_as
    pub fn request_observed_addresses(&mut self) {
        self.node.request_observed_addresses(self.core, self.id);
    }

    /// Says that another link is about to take the place of this one: [`Loop::connect_link`] dials the peer again, as if this
    /// link were not there. With false the link stays.
    pub fn set_leaving(&mut self, is_leaving: bool) {
        let record = self.node.links.get_mut(self.id);
        record.into_iter().for_each(|link| link.leaving = is_leaving);
    }

    /// Makes the forwards that this node listens for those of another link, and sends the clients of listeners that go over
    /// this link over the other one from now on. Connections stay on this link, and so do forwards at its peer.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the id is not one of a link; [`VerbError::Stale`] if that link is gone, and
    /// [`VerbError::Over`] if it is being closed.
    pub fn hand_over(&mut self, to: Id) -> Result<(), VerbError> {
        if to.kind() != Kind::Link {
            return Err(VerbError::Invalid);
        }
        match self.node.links.get(to) {
            None => Err(VerbError::Stale),
            Some(link) if link.closing => Err(VerbError::Over(Reason::Drained)),
            Some(_) => {
                self.node.move_forwards(self.core, self.id, to);
                Ok(())
            }
        }
    }

    /// Takes over the key, the policy and the handler of events of a configuration. The session, its subflows and everything
    /// else stay. Call [`Loop::recheck_links`] to end the session if the policy does not admit the key of its peer.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the peer dials this link, if the key cannot be used, or if the carrier is another one.
    pub fn renew(&mut self, config: LinkConfig) -> Result<(), VerbError> {
        let carrier = config.kind();
        let LinkConfig { identity, policy, preface, on_event, .. } = config;
        let policy = Guarded::wrap(policy, &self.node.panics, &self.node.serves);
        let congestion = self.record().map(|link| link.timing.congestion).unwrap_or_default();
        let dialer = self.dialer()?;
        if dialer.endpoints.kind != carrier {
            return Err(VerbError::Invalid);
        }
        dialer.key = setup(&identity, &policy).public_key().map_err(|_| VerbError::Invalid)?;
        let mut endpoints = Endpoints::new(carrier, &identity, &policy, dialer.simultaneous, congestion)?;
        endpoints.make_for(dialer.slots.iter().map(|slot| &slot.path), &policy)?;
        dialer.endpoints = endpoints;
        dialer.instance = identity.instance;
        let record = self.node.links.get_mut(self.id).ok_or(VerbError::Stale)?;
        (record.policy, record.preface, record.watch) = (policy, preface, Some(Rc::new(RefCell::new(on_event))));
        // The policy names the link.
        if let (Some(key), Some(linked)) = (record.key, self.core.pools.sessions.get_mut(self.id)) {
            linked.name = record.policy.name(&key).into();
        }
        Ok(())
    }

    /// Adds a path, with as many subflows as the others have.
    ///
    /// # Errors
    /// [`VerbError::Already`] if the link has this path, [`VerbError::Full`] if it has as many subflows as it may have,
    /// [`VerbError::Invalid`] if the peer dials this link, if the path has a local port for several subflows, or if it has none
    /// and the peer may dial this node at the same time, or another carrier than TCP.
    pub fn add_path(&mut self, path: &Path) -> Result<(), VerbError> {
        let subflows_max = self.record().map_or(0, |link| link.timing.subflows);
        let policy = self.record().map(|link| Arc::clone(&link.policy));
        let dialer = self.dialer()?;
        let is_shared = path.local_port.is_some() && dialer.subflows > 1;
        let has_part = path.local_port.is_some() && path.carrier.is_none_or(|kind| kind == CarrierKind::Tcp);
        if is_shared || dialer.simultaneous && !has_part {
            return Err(VerbError::Invalid);
        }
        if dialer.slots.iter().any(|slot| slot.path == *path && !slot.removed) {
            return Err(VerbError::Already);
        }
        let room = subflows_max.saturating_sub(dialer.slots.iter().filter(|slot| !slot.removed).count());
        if room == 0 {
            return Err(VerbError::Full);
        }
        if let Some(policy) = policy {
            dialer.endpoints.make_for([path], &policy)?;
        }
        let added: Vec<usize> =
            (0..dialer.subflows.min(room)).map(|_| dialer.place(SubflowSlot::new(path.clone()))).collect();
        dialer.add_pairs(added.get(..1).unwrap_or_default(), subflows_max);
        self.core.pools.sessions.touch(self.id);
        Ok(())
    }

    /// Removes a path, once no data is on its way there. The last path that is up stays until another path is up.
    ///
    /// # Errors
    /// [`VerbError::Already`] if the link does not have this path, [`VerbError::Invalid`] if the peer dials this link.
    pub fn remove_path(&mut self, path: &Path) -> Result<(), VerbError> {
        if !self.dialer()?.slots.iter().any(|slot| slot.path == *path && !slot.removed) {
            return Err(VerbError::Already);
        }
        self.node.remove_path(self.core, self.id, path);
        Ok(())
    }

    /// Opens a stream to a target, for a handler of the caller: [`Handler::connected`] reports the result, then the bytes are
    /// the handler's. The stream is the source of a connection without a dest. It waits if the link is not up.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the target is a UDP target, [`VerbError::Full`] if the table of connections is full,
    /// [`VerbError::Over`] if the link is being closed.
    pub fn open_stream(&mut self, target: Target, handler: Box<dyn Handler>) -> Result<Id, VerbError> {
        target.proto().require_tcp()?;
        if self.record().is_none_or(|link| link.closing) {
            return Err(VerbError::Over(Reason::LinkLost));
        }
        let core = &mut *self.core;
        let connection = core.adopt_io(Io::None, Endpoint::Unknown, "stream", None, handler);
        let connection = connection.map_err(|_| VerbError::Full)?;
        let Some(record) = core.connections.get_mut(connection) else { return Err(VerbError::Stale) };
        record.asked = Some(Rc::new(target));
        record.dial_since_ms = core.now_ms;
        let source = record.source;
        if let Some(side) = core.sides.get_mut(source) {
            side.state = SideState::Connecting;
        }
        core.set_stage(connection, Stage::Connecting);
        self.node.dial_stream(core, source, self.id);
        Ok(connection)
    }

    /// Sends a message to the user of the peer, which reports it as [`LinkEvent::Message`](super::LinkEvent::Message).
    /// Messages arrive in order and once; those that wait when the session ends are lost. Suspended sessions keep them.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the text has more than [`MESSAGE_BYTES_MAX`] bytes, [`VerbError::Full`] if 64 messages wait,
    /// [`VerbError::Over`] if the link has no session.
    pub fn send_message(&mut self, text: &str) -> Result<(), VerbError> {
        if text.len() > MESSAGE_BYTES_MAX {
            return Err(VerbError::Invalid);
        }
        if self.record().is_none_or(|link| !link.was_established) {
            return Err(VerbError::Over(Reason::LinkLost));
        }
        let session = self.core.pools.sessions.session_mut(self.id).ok_or(VerbError::Over(Reason::LinkLost))?;
        session.message(text).map_err(|refused| match refused {
            Refused::Limit => VerbError::Full,
            _ => VerbError::Over(Reason::LinkLost),
        })?;
        self.core.pools.sessions.touch(self.id);
        Ok(())
    }

    fn record(&self) -> Option<&Link> {
        self.node.links.get(self.id)
    }

    /// Returns the dialer of a link that this node dials.
    fn dialer(&mut self) -> Result<&mut Dialer, VerbError> {
        let link = self.node.links.get_mut(self.id).ok_or(VerbError::Stale)?;
        link.dialer.as_deref_mut().ok_or(VerbError::Invalid)
    }
}
