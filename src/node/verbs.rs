//! The verbs that make links, and those about all links of a loop. The verbs of one link are on its view, [`LinkMut`](super::LinkMut).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::engine::bound::Bound;
use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::link::Code;
use crate::link::frame::Class;
use crate::streams::LinkSession;
use crate::transport::{CarrierKind, Congestion, Setup};
use crate::types::address::Target;
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::accept;
use super::config::{Identity, LinkConfig, LinkEvent, Path, PeerKey, Policy, ServeConfig};
use super::control::Node;
use super::dialer::{Dialer, Endpoints, SubflowSlot};
use super::fresh::Fresh;
use super::guarded::Guarded;
use super::link::Link;
use super::nested::Over;
use super::server::Server;

/// The answer of [`Loop::connect_link`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialed {
    /// The link.
    pub id: Id,
    /// False if this node has dialed the peer with this key already. The link is then the one that there was, with its
    /// configuration; the new configuration was dropped.
    pub is_new: bool,
}

impl Loop<'_> {
    /// Dials a link and keeps it up. Streams can be opened over it at once; they wait for the session.
    ///
    /// A peer that this node has dialed already, under the same address and with the same key of this node, gets no second
    /// link: the answer is the first one, unless that link is leaving ([`LinkMut::set_leaving`](super::LinkMut::set_leaving)).
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the configuration has no subflow, more of them than its timing allows, a local port for
    /// several subflows, a UDP address, or a key that cannot be used; [`VerbError::Full`] if the limit of links is reached;
    /// [`VerbError::Already`] if the first link to the peer is dialed from other local ports than this one, or is
    /// simultaneous and this one is not, or the other way round;
    /// [`VerbError::Over`] if the loop is stopping. For a nested link also [`VerbError::Stale`] if the outer link is gone,
    /// and [`VerbError::Invalid`] if a path has a source, or the carrier or the peer cannot be reached by streams.
    pub fn connect_link(&mut self, config: LinkConfig) -> Result<Dialed, VerbError> {
        let (core, node) = self.parts::<Node>();
        node.connect_link(core, config)
    }

    /// Accepts links that peers dial to a bound address. Returns the id of the server; see [`Loop::server`].
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the key cannot be used, [`VerbError::Full`] if the limit of servers is reached,
    /// [`VerbError::Over`] if the loop is stopping; or the socket cannot be registered.
    pub fn serve_links(&mut self, bound: &mut Bound, config: ServeConfig) -> Result<Id, DescriptorError> {
        let (core, node) = self.parts::<Node>();
        if node.closing {
            return Err(VerbError::Over(Reason::Drained).into());
        }
        if config.carrier.at(bound.proto()).shares_socket() != (bound.proto() == Proto::Udp) {
            return Err(VerbError::Invalid.into());
        }
        let kind = config.carrier;
        let server = node.new_server(config, bound.addr().clone())?;
        let id = node.open_server(core, bound, server)?;
        if kind == CarrierKind::Auto
            && let Some(unbound) = bound.unbound.take()
        {
            node.lack_udp_port(core, id, *unbound);
        }
        Ok(id)
    }

    /// Applies the present policy to all links. Links whose key is not admitted any more end. The others get their new rates
    /// and numbers of streams, and lose the listeners that they may not have any more.
    pub fn recheck_links(&mut self) {
        let (core, node) = self.parts::<Node>();
        let links: Vec<Id> = node.links.ids();
        for id in links.iter().copied() {
            let Some(link) = node.links.get_mut(id) else { continue };
            link.key.iter().for_each(|key| link.set_rate(key));
            let permitted = link.streams_permitted();
            let session = core.pools.sessions.session_mut(id);
            session.into_iter().for_each(|session| session.set_streams_permitted(permitted));
            core.pools.sessions.touch(id);
        }
        let refused = |link: &Link| link.key.is_some_and(|key| !link.policy.admits(&key));
        let refused: Vec<Id> = node.links.iter().filter(|(_, link)| refused(link)).map(|(id, _)| id).collect();
        for id in refused.iter().copied() {
            let now = core.pools.sessions.now;
            let Some(link) = node.links.get_mut(id) else { continue };
            link.closing |= link.dialer.is_none();
            let is_expired = link.key.is_some_and(|key| link.policy.is_expired(&key));
            let why = if is_expired { "the key has expired" } else { "the key is not admitted any more" };
            log::warn!(target: accept::TARGET, link = id.to_string(), peer = core.pools.sessions.name(id), why; "its key is not admitted any more");
            if let Some(session) = core.pools.sessions.session_mut(id) {
                session.close(now, Code::NotPermitted, why);
            }
            core.pools.sessions.touch(id);
        }
        links.into_iter().filter(|id| !refused.contains(id)).for_each(|id| node.revoke_listeners(core, id));
        node.settle_groups();
    }
}

impl Node {
    /// Listens on a bound address for the server that `make` makes from the id of its listener.
    pub(super) fn open_server(
        &mut self,
        core: &mut Core,
        bound: &mut Bound,
        make: impl FnOnce(Id) -> Server,
    ) -> Result<Id, DescriptorError> {
        if self.servers.is_full() {
            return Err(VerbError::Full.into());
        }
        let listener = core.listen_for_links(bound)?;
        let mut server = make(listener);
        if bound.proto() == Proto::Udp {
            let socket = core.take_shared_socket(listener);
            if let Err(error) = socket.and_then(|socket| server.endpoint.share(socket, &self.buffers)) {
                core.close_listener(listener);
                return Err(error.into());
            }
        }
        self.servers.insert(server).map_err(|_| VerbError::Full.into())
    }

    /// Dials a link; see [`Loop::connect_link`].
    pub(super) fn connect_link(&mut self, core: &mut Core, config: LinkConfig) -> Result<Dialed, VerbError> {
        config.check_protocols()?;
        if !config.has_ports() {
            return Err(VerbError::Invalid);
        }
        let carrier = config.kind();
        let LinkConfig { identity, policy, peer, over, paths, subflows, mode, reverse, timing, .. } = config;
        let simultaneous = config.simultaneous;
        let (on_stream, on_datagrams) = (config.on_stream, config.on_datagrams);
        let (preface, on_event) = (config.preface, config.on_event);
        let policy = Guarded::wrap(policy, &self.panics, &self.serves);
        let shares_port = subflows > 1 && paths.iter().any(|path| path.local_port.is_some());
        if paths.is_empty() || subflows == 0 || paths.len() * subflows > timing.subflows || shares_port {
            return Err(VerbError::Invalid);
        }
        if self.closing {
            return Err(VerbError::Over(Reason::Drained));
        }
        if let Some(over) = over {
            self.check_outer(core, over, &peer, carrier, &paths)?;
        }
        let key = setup(&identity, &policy).public_key().map_err(|_| VerbError::Invalid)?;
        if let Some(id) = self.dialed_link(&peer, &key, over) {
            let dialer = self.links.get(id).and_then(|link| link.dialer.as_ref());
            if dialer.is_some_and(|dialer| !dialer.has_ports_of(&paths, simultaneous)) {
                // The caller would wait for connections from a port that this link does not use.
                return Err(VerbError::Already);
            }
            return Ok(Dialed { id, is_new: false });
        }
        let mut endpoints = Endpoints::new(carrier, &identity, &policy, simultaneous, timing.congestion)?;
        endpoints.make_for(&paths, &policy)?;
        let place = peer.to_string();
        let mut link = Link::new(policy, timing, mode, &place, Some(Rc::new(RefCell::new(on_event))), core.now_ms);
        link.takes = on_stream.map(|takes| Rc::new(RefCell::new(takes)));
        link.takes_datagrams = on_datagrams.map(|takes| Rc::new(RefCell::new(takes)));
        link.preface = preface;
        link.outer = over.map(Over::link);
        let slots = paths.iter().flat_map(|path| (0..subflows).map(|_| SubflowSlot::new(path.clone()))).collect();
        let instance = identity.instance;
        let subflows_max = link.timing.subflows;
        let mut dialer = Dialer {
            endpoints,
            peer,
            key,
            over,
            subflows,
            simultaneous,
            is_by_chance: false,
            slots,
            pairs: Vec::new(),
            silent_us: 0,
            instance,
        };
        let firsts: Vec<usize> = (0..paths.len()).map(|path| path * subflows).collect();
        dialer.add_pairs(&firsts, subflows_max);
        link.dialer = Some(Box::new(dialer));
        let session = LinkSession::new(place.into());
        if reverse.len() > self.forwards.capacity() - self.forwards.len() {
            return Err(VerbError::Full);
        }
        let id = self.insert_link(core, link, session).ok_or(VerbError::Full)?;
        for reverse in reverse {
            let added = self.add_remote(core, id, None, reverse);
            debug_assert!(added.is_some(), "the table has room");
        }
        core.pools.sessions.touch(id);
        Ok(Dialed { id, is_new: true })
    }

    /// Returns the link that this node has dialed to a peer with its own `key`, over this outer link if it is a nested one,
    /// unless it is being closed.
    fn dialed_link(&self, peer: &Target, key: &PeerKey, over: Option<Over>) -> Option<Id> {
        let is_same = |dialer: &Dialer| dialer.peer == *peer && dialer.key == *key && dialer.over == over;
        let is_it =
            |link: &Link| !link.closing && !link.leaving && link.dialer.as_ref().is_some_and(|dialer| is_same(dialer));
        self.links.iter().find(|(_, link)| is_it(link)).map(|(id, _)| id)
    }

    /// Removes a path of a link that this node dials.
    pub(super) fn remove_path(&mut self, core: &mut Core, link: Id, path: &Path) {
        let Some(dialer) = self.links.get_mut(link).and_then(|record| record.dialer.as_mut()) else { return };
        let (mut early, mut fresh) = (Vec::new(), Vec::new());
        let is_its = |slot: &SubflowSlot| slot.path == *path;
        let its: Vec<bool> = dialer
            .slots
            .iter()
            .map(|slot| is_its(slot) || slot.beside.and_then(|first| dialer.slots.get(first)).is_some_and(is_its))
            .collect();
        for (slot, _) in dialer.slots.iter_mut().zip(its).filter(|(_, is_its)| *is_its) {
            slot.removed = true;
            let is_early = |carrier: &Id| self.carriers.get(*carrier).is_some_and(|carrier| carrier.subflow.is_none());
            early.extend(slot.carrier.take_if(|carrier| is_early(carrier)));
            fresh.extend(slot.fresh.take().into_iter().flat_map(Fresh::into_carriers));
        }
        let left = dialer.slots.iter().filter(|slot| !slot.removed);
        if left.clone().count() == 0 || left.clone().any(|slot| slot.up_ms.is_some()) {
            self.leave_removed(core, link);
        }
        core.pools.sessions.touch(link);
        // Carriers without a subflow need not be established.
        early.into_iter().for_each(|carrier| self.drop_carrier(core, carrier));
        fresh.into_iter().for_each(|carrier| self.drop_fresh(core, link, carrier));
    }

    /// Dials the missing subflows of a link at once, and forgets earlier failures.
    pub(super) fn redial_link(&mut self, core: &mut Core, link: Id) {
        let Some(dialer) = self.links.get_mut(link).and_then(|link| link.dialer.as_mut()) else { return };
        dialer.slots.iter_mut().for_each(|slot| (slot.tries, slot.next_ms) = (0, 0));
        core.pools.sessions.touch(link);
    }

    /// Closes a link in order: its nested links are closed, then its streams are reset, and its peer is told.
    pub(super) fn close_link(&mut self, core: &mut Core, link: Id) {
        self.close_forwards(core, link, Reason::Drained);
        let Some(record) = self.links.get_mut(link) else { return };
        record.closing = true;
        if !self.close_nested(core, link) {
            self.close_session(core, link);
        }
        core.pools.sessions.touch(link);
    }

    /// Closes the session of a link that is being closed, and the sessions that the link has set aside.
    pub(super) fn close_session(&mut self, core: &mut Core, link: Id) {
        self.close_asides(core, link);
        let now = core.pools.sessions.now;
        let Some(record) = self.links.get_mut(link) else { return };
        record.close_by_ms = None;
        let outer = record.outer.and_then(|outer| self.links.get(outer));
        let is_lost = outer.is_some_and(|outer| outer.closing) && !self.closing;
        let (reason, code, text) = match is_lost {
            true => (Reason::LinkLost, Code::LinkLost, "the outer link was closed"),
            false => (Reason::Drained, Code::Drained, "closed"),
        };
        match core.pools.sessions.session_mut(link) {
            Some(session) => session.close(now, code, text),
            None => {
                let ended = LinkEvent::Ended { reason, text: text.to_owned() };
                self.tell(core, link, &if is_lost { ended } else { LinkEvent::Closed });
                self.drop_link(core, link, reason);
            }
        }
        core.pools.sessions.touch(link);
    }

    /// Closes the subflows of removed paths as soon as no data is on its way there.
    pub(super) fn leave_removed(&mut self, core: &mut Core, link: Id) {
        let Some(record) = self.links.get(link) else { return };
        let (Some(dialer), Some(session)) = (&record.dialer, core.pools.sessions.session_mut(link)) else { return };
        for carrier in dialer.slots.iter().filter(|slot| slot.removed).filter_map(|slot| slot.carrier) {
            if let Some(subflow) = self.carriers.get(carrier).and_then(|carrier| carrier.subflow) {
                session.set_class(subflow, Class::Closing);
            }
        }
    }

    /// Closes all links in order, and accepts no more.
    pub(super) fn close_links(&mut self, core: &mut Core) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        self.close_groups(core);
        let links: Vec<Id> = self.links.ids();
        links.into_iter().for_each(|link| self.close_link(core, link));
    }

    /// Frees a link that has no session.
    pub(super) fn drop_link(&mut self, core: &mut Core, id: Id, reason: Reason) {
        let failure = Failure::new(Reason::LinkLost, "the link was closed");
        self.fail_waiting(core, id, &failure);
        let carriers = self.links.get(id).map(|link| link.carriers.clone()).unwrap_or_default();
        carriers.into_iter().for_each(|carrier| self.drop_carrier(core, carrier));
        self.release_link_memory(core, id);
        self.remove_link(core, id, reason);
    }
}

/// Returns the keys of a node for an endpoint.
pub(crate) fn setup<'a>(identity: &'a Identity, policy: &Arc<dyn Policy>) -> Setup<'a> {
    let expiry = Arc::clone(policy);
    Setup {
        seed: &identity.seed,
        ciphers: &identity.ciphers,
        groups: &identity.groups,
        admits: admits(policy),
        expired: Arc::new(move |key: &PeerKey| expiry.is_expired(key)),
        invites: None,
        simultaneous: false,
        congestion: Congestion::System,
    }
}

/// Returns the keys of a node for the endpoint of a server, which may take peers with an invitation.
pub(super) fn server_setup<'a>(identity: &'a Identity, policy: &Arc<dyn Policy>) -> Setup<'a> {
    let inviting = Arc::clone(policy);
    Setup { invites: Some(Arc::new(move || inviting.is_inviting())), ..setup(identity, policy) }
}

/// Returns the check of a TLS handshake that asks a policy.
fn admits(policy: &Arc<dyn Policy>) -> Arc<dyn Fn(&PeerKey) -> bool + Send + Sync> {
    let policy = Arc::clone(policy);
    Arc::new(move |key: &PeerKey| policy.admits(key))
}
