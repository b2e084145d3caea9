//! Forwards: addresses whose clients go over a link, with the end of the link that listens, and the view of one of them.
//!
//! ```text
//!   local  (-L -D -H):  client -> this node: front end -> link -> the peer connects
//!   remote (-R):        client -> the peer --- LISTEN --> link -> this node connects to the target
//! ```
//! A forward belongs to one link or to a group of links, and is closed with it. A link that this node dials keeps its forwards over all its
//! sessions. A forward of a link that the peer has dialed ends with the session. A peer listens only where its policy
//! permits the key of this node.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::engine::bound::{self, Bound};
use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::datagrams::handler::{DatagramFrontEnd, FlowRequest, FlowTarget, SharedHandler};
use crate::engine::handler::{Cx, Handler};
use crate::engine::listener::{FrontEnd, ListenConfig, plain};
use crate::engine::observer::Event;
use crate::engine::tally::Tally;
use crate::relay::dial::ConnectOptions;
use crate::types::address::{Bind, Endpoint, Target};
use crate::types::descriptor_error::DescriptorError;
use crate::types::forward_state::ForwardState;
use crate::types::id::{Id, Kind};
use crate::types::label::Label;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::config::Reverse;
use super::control::Node;
use super::reverse::{self, Remote};

/// The configuration of a forward.
pub struct ForwardConfig {
    /// The name, which no other forward of the loop has; the address to listen on if there is none.
    pub name: Option<String>,
    /// The link, or the group of links. The peer of each link of a group listens for a remote forward.
    pub link: Id,
    /// The address to listen on, here or at the peer. A name must be an address with the zone of its interface, because a
    /// look-up would block the loop.
    pub listen: Bind,
    /// The end that listens, and what becomes of the clients.
    pub service: Service,
}

/// The end of a link that listens for a forward, and what becomes of its clients.
pub enum Service {
    /// This node listens. The settings are those of a listener; its name and link are those of the forward, as far as the name
    /// is free.
    Local {
        /// The front end and the settings.
        listener: Box<ListenConfig>,
        /// The bound sockets of [`ForwardConfig::listen`]; empty to bind them now.
        bounds: Vec<Bound>,
        /// The target of all clients, for the status, if there is one.
        to: Option<Target>,
    },
    /// The peer listens, and this node connects to the target.
    Remote {
        /// The target.
        to: Target,
    },
}

/// The end of a link that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This node listens.
    Local,
    /// The peer listens.
    Remote,
}

/// The status of a forward.
#[derive(Clone, Debug)]
pub struct ForwardStatus {
    /// The id.
    pub id: Id,
    /// The name.
    pub name: String,
    /// The link, or the group of links.
    pub link: Id,
    /// The end that listens.
    pub direction: Direction,
    /// The name of the front end; `reverse` if the peer listens.
    pub kind: Label,
    /// The requested address.
    pub asked: Bind,
    /// The bound addresses, as far as they are known.
    pub bound: Vec<Endpoint>,
    /// The target of all clients, if there is one.
    pub to: Option<Target>,
    /// The state.
    pub state: ForwardState,
    /// Time since the forward entered this state.
    pub state_for: Duration,
    /// The last failure, if it does not listen.
    pub failure: Option<Failure>,
    /// Consecutive refused requests.
    pub tries: u32,
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that are not over.
    pub active: usize,
    /// Connections that were refused, or whose dest could not be reached.
    pub refused: u64,
    /// Settled bytes from the clients, and to them ([`Core::settle`](crate::Core::settle)).
    pub bytes: (u64, u64),
    /// Settled datagrams from the clients, and to them; their bytes are among the bytes.
    pub datagrams: (u64, u64),
}

/// A forward of a loop, borrowed; see [`Loop::forward`].
pub struct ForwardMut<'a> {
    core: &'a mut Core,
    node: &'a mut Node,
    id: Id,
}

/// The record of a forward.
pub(crate) struct Forward {
    name: Box<str>,
    link: Id,
    asked: Bind,
    to: Option<Target>,
    kind: Label,
    /// The listeners of a local forward; none if the peer listens.
    listeners: Option<Vec<Id>>,
    /// The last reported state, and the time since which it holds.
    state_since: (ForwardState, u64),
}

impl ForwardConfig {
    /// Returns the configuration of a forward from an address of this node to a target behind the peer: `-L`.
    pub fn local(link: Id, listen: Bind, to: Target) -> ForwardConfig {
        let target = Rc::new(to.clone());
        let front_end = move || -> Box<dyn Handler> { Box::new(ToTarget(Rc::clone(&target))) };
        let datagrams = (to.proto() == Proto::Udp).then(|| {
            let target = Rc::new(to.clone());
            let open = move |_: &mut Core, _: &FlowRequest<'_>| Ok(FlowTarget::new(Rc::clone(&target)));
            Box::new(open) as DatagramFrontEnd
        });
        let listener = ListenConfig { datagrams, ..ListenConfig::new("static", Box::new(front_end)) };
        let service = Service::Local { listener: Box::new(listener), bounds: Vec::new(), to: Some(to) };
        ForwardConfig { name: None, link, listen, service }
    }

    /// Returns the configuration of a forward whose clients name their targets to a front end: `-D`, `-H`.
    pub fn dynamic(link: Id, listen: Bind, kind: impl Into<Label>, front_end: FrontEnd) -> ForwardConfig {
        let listener = Box::new(ListenConfig::new(kind, front_end));
        ForwardConfig { name: None, link, listen, service: Service::Local { listener, bounds: Vec::new(), to: None } }
    }

    /// Returns the configuration of a forward from an address of the peer to a target that this node connects to: `-R`.
    pub fn remote(link: Id, listen: Bind, to: Target) -> ForwardConfig {
        ForwardConfig { name: None, link, listen, service: Service::Remote { to } }
    }
}

impl Loop<'_> {
    /// Opens a forward over a link. An address of this node is bound at once; the peer is asked as soon as the link is up,
    /// and again after a pause if it refuses.
    ///
    /// # Errors
    /// [`VerbError::Already`] if the name is in use; [`VerbError::Stale`] or [`VerbError::Over`] if the link is gone;
    /// [`VerbError::Invalid`] if the id is not one of a link, if a name would have to be looked up, if the address and the
    /// target have different protocols, or if the target is a Unix socket behind the peer; [`VerbError::Full`] at the limit of forwards; the error of the system if an address of this
    /// node cannot be bound.
    pub fn open_forward(&mut self, config: ForwardConfig) -> Result<Id, DescriptorError> {
        match config.link.kind() {
            Kind::Group => _ = self.group(config.link)?,
            _ => _ = self.link(config.link)?,
        }
        let (core, node) = self.parts::<Node>();
        node.open_forward(core, config)
    }

    /// Returns a view of a forward.
    ///
    /// # Errors
    /// [`VerbError::Stale`] or [`VerbError::Over`] if the forward is closed, [`VerbError::Invalid`] if the id is not one of a
    /// forward.
    pub fn forward(&mut self, id: Id) -> Result<ForwardMut<'_>, VerbError> {
        let (core, node) = self.parts::<Node>();
        match node.forwards.get(id) {
            Some(_) => Ok(ForwardMut { core, node, id }),
            None => Err(core.ended.missing(id, Kind::Forward)),
        }
    }

    /// Returns the forward with this name.
    pub fn forward_named(&mut self, name: &str) -> Option<Id> {
        let (_, node) = self.parts::<Node>();
        node.forward_named(name)
    }

    /// Returns the status of all forwards.
    pub fn forwards(&mut self) -> Vec<ForwardStatus> {
        let (core, node) = self.parts::<Node>();
        node.forwards.iter().map(|(id, forward)| node.forward_status(core, id, forward)).collect()
    }
}

impl ForwardMut<'_> {
    /// Returns the id of the forward.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Returns the status.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if this view has closed the forward.
    pub fn status(&self) -> Result<ForwardStatus, VerbError> {
        let forward = self.node.forwards.get(self.id).ok_or(VerbError::Stale)?;
        Ok(self.node.forward_status(self.core, self.id, forward))
    }

    /// Gives the forward another name, and its listener too.
    ///
    /// # Errors
    /// [`VerbError::Already`] if another forward has the name, [`VerbError::Invalid`] if the name is empty.
    pub fn rename(&mut self, name: &str) -> Result<(), VerbError> {
        self.node.check_forward_name(name, Some(self.id))?;
        let forward = self.node.forwards.get_mut(self.id).ok_or(VerbError::Stale)?;
        forward.name = name.into();
        if let Some(listener) = forward.listeners.as_ref().and_then(|listeners| listeners.first()) {
            self.core.name_listener(*listener, name);
        }
        Ok(())
    }

    /// Gives the clients that come from now on another front end and other settings, and `to` as the target for the status.
    /// The sockets with their backlogs, the link and the name stay.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the peer listens, or if the target is a Unix socket behind the peer; as for
    /// [`ListenerMut::replace`](crate::ListenerMut::replace) otherwise.
    pub fn replace(&mut self, config: ListenConfig, to: Option<Target>) -> Result<(), DescriptorError> {
        let ForwardMut { core, node, id } = self;
        let forward = node.forwards.get_mut(*id).ok_or(VerbError::Stale)?;
        let Some(listeners) = &forward.listeners else { return Err(VerbError::Invalid.into()) };
        if matches!(to, Some(Target::Unix(_))) {
            return Err(VerbError::Invalid.into());
        }
        let kind = config.kind.clone();
        let mut part = parts(config, forward.link);
        for listener in listeners {
            core.replace_listener(*listener, part())?;
        }
        (forward.kind, forward.to) = (kind, to);
        Ok(())
    }

    /// Makes this the forward of another link or group of links. Clients that come from now on go over that one.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the peer listens, or if the id is of neither; [`VerbError::Stale`] if it is gone;
    /// [`VerbError::Over`] if it is being closed.
    pub fn route(&mut self, link: Id) -> Result<(), VerbError> {
        let ForwardMut { core, node, id } = self;
        match link.kind() {
            Kind::Group if node.groups.get(link).is_some() => {}
            Kind::Link if !node.links.get(link).ok_or(VerbError::Stale)?.closing => {}
            Kind::Link => return Err(VerbError::Over(Reason::Drained)),
            Kind::Group => return Err(VerbError::Stale),
            _ => return Err(VerbError::Invalid),
        }
        let forward = node.forwards.get_mut(*id).ok_or(VerbError::Stale)?;
        let Some(listeners) = &forward.listeners else { return Err(VerbError::Invalid) };
        listeners.iter().for_each(|listener| core.route_listener(*listener, link));
        forward.link = link;
        Ok(())
    }

    /// Closes the forward: its address is free, here or at the peer. Its connections go on.
    ///
    /// # Errors
    /// [`VerbError::Already`] if this view has closed the forward.
    pub fn close(&mut self) -> Result<(), VerbError> {
        if self.node.close_forward(self.core, self.id, Reason::Drained, true) {
            Ok(())
        } else {
            Err(VerbError::Already)
        }
    }
}

impl Node {
    fn open_forward(&mut self, core: &mut Core, config: ForwardConfig) -> Result<Id, DescriptorError> {
        let ForwardConfig { name, link, listen, service } = config;
        let is_open = self.groups.get(link).is_some() || self.links.get(link).is_some_and(|link| !link.closing);
        if core.is_draining() || !is_open {
            return Err(VerbError::Over(Reason::Drained).into());
        }
        if let Some(name) = &name {
            self.check_forward_name(name, None)?;
        }
        if self.forwards.is_full() {
            return Err(VerbError::Full.into());
        }
        let to = match &service {
            Service::Local { to, .. } => to.as_ref(),
            Service::Remote { to } => Some(to),
        };
        if to.is_some_and(|to| to.proto() != listen.proto()) {
            return Err(VerbError::Invalid.into());
        }
        match service {
            Service::Local { listener, bounds, to } => {
                if matches!(to, Some(Target::Unix(_))) {
                    return Err(VerbError::Invalid.into());
                }
                let kind = listener.kind.clone();
                let listener = ListenConfig { name: name.clone(), ..*listener };
                let listeners = self.listen_here(core, link, &listen, listener, bounds)?;
                let id = self.add_forward(core, (name, link, listen), to, kind, Some(listeners));
                id.ok_or_else(|| VerbError::Full.into())
            }
            Service::Remote { to } => {
                if matches!(listen, Bind::Unix(_) | Bind::Descriptor(..)) {
                    return Err(VerbError::Invalid.into());
                }
                let id = self.add_remote(core, link, name, Reverse { listen, to }).ok_or(VerbError::Full)?;
                let links = self.groups.get(link).map_or_else(|| vec![link], super::group::Group::links);
                links.into_iter().for_each(|link| self.request_remotes(core, link));
                Ok(id)
            }
        }
    }

    /// Listens on an address of this node. All its sockets share one front end.
    fn listen_here(
        &mut self,
        core: &mut Core,
        link: Id,
        listen: &Bind,
        config: ListenConfig,
        mut bounds: Vec<Bound>,
    ) -> Result<Vec<Id>, DescriptorError> {
        if bounds.is_empty() {
            let place = reverse::with_zone(listen).map_err(|_| VerbError::Invalid)?;
            if matches!(place, Bind::Name(..)) {
                return Err(VerbError::Invalid.into());
            }
            bounds = bound::bind(&place, 1, core.config())?;
        }
        // One listener has the name of the forward, if that is free; others have their addresses.
        let name = config.name.clone();
        let mut part = parts(config, link);
        let mut listeners = Vec::new();
        for bound in &mut bounds {
            let name = name.clone().filter(|name| core.listener_named(name).is_none());
            let config = ListenConfig { name, ..part() };
            match core.listen_for_forward(bound, config) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    listeners.into_iter().for_each(|listener| core.close_listener(listener));
                    return Err(error);
                }
            }
        }
        Ok(listeners)
    }

    /// Makes the record of a forward that the peer listens for.
    pub(super) fn add_remote(
        &mut self,
        core: &mut Core,
        link: Id,
        name: Option<String>,
        reverse: Reverse,
    ) -> Option<Id> {
        let (asked, to) = (reverse.listen.clone(), Some(reverse.to.clone()));
        let id = self.add_forward(core, (name, link, asked), to, "reverse", None)?;
        core.tallies.insert(id, Tally::default());
        let links = match self.groups.get_mut(link) {
            Some(group) => {
                group.remotes.push((id, reverse.clone()));
                group.links()
            }
            None => vec![link],
        };
        links.into_iter().for_each(|link| self.add_remote_at(link, id, reverse.clone()));
        Some(id)
    }

    /// Notes that the peer of a link is to listen for a forward, if it is not noted yet.
    pub(super) fn add_remote_at(&mut self, link: Id, forward: Id, reverse: Reverse) {
        let Some(record) = self.links.get_mut(link) else { return };
        if record.remotes.iter().any(|remote| remote.forward == forward) {
            return;
        }
        let index = record.remotes_ever;
        record.remotes_ever += 1;
        record.remotes.push(Remote::new(reverse, forward, index));
    }

    /// Requests the missing listeners of a link from its peer, and permits the streams of their clients.
    pub(super) fn request_remotes(&mut self, core: &mut Core, link: Id) {
        self.allow_streams(core, link);
        if self.links.get(link).is_some_and(|link| link.was_established) {
            self.listen_all(core, link);
        }
    }

    fn add_forward(
        &mut self,
        core: &mut Core,
        (name, link, asked): (Option<String>, Id, Bind),
        to: Option<Target>,
        kind: impl Into<Label>,
        listeners: Option<Vec<Id>>,
    ) -> Option<Id> {
        let name = name.unwrap_or_else(|| asked.to_string()).into();
        let state = if listeners.is_some() { ForwardState::Listening } else { ForwardState::Waiting };
        let record = Forward { name, link, asked, to, kind: kind.into(), listeners, state_since: (state, core.now_ms) };
        let forward = self.forwards.insert(record).ok()?;
        core.observe(Event::Forward { forward, state });
        Some(forward)
    }

    /// Sends the peer the number of streams that it may open now, which depends on the forwards that it listens for.
    fn allow_streams(&mut self, core: &mut Core, link: Id) {
        let Some(record) = self.links.get(link) else { return };
        let permitted = record.streams_permitted();
        let session = core.pools.sessions.session_mut(link);
        session.into_iter().for_each(|session| session.set_streams_permitted(permitted));
        core.pools.sessions.touch(link);
    }

    /// Closes a forward, and `tells` the peer if it listens. Returns false if the forward is not there.
    fn close_forward(&mut self, core: &mut Core, id: Id, reason: Reason, tells: bool) -> bool {
        let Some(forward) = self.forwards.remove(id) else { return false };
        match forward.listeners {
            Some(listeners) => listeners.into_iter().for_each(|listener| core.close_listener(listener)),
            None => self.close_remote(core, id, tells),
        }
        core.ended.note(id, reason);
        core.observe(Event::Forward { forward: id, state: ForwardState::Closed });
        true
    }

    /// Gives the address of a forward at the peer back, in all sessions of its link. The end of a session gives it back too.
    fn close_remote(&mut self, core: &mut Core, id: Id, tells: bool) {
        core.tallies.remove(&id);
        for group in self.groups.ids() {
            let Some(group) = self.groups.get_mut(group) else { continue };
            group.remotes.retain(|(forward, _)| *forward != id);
        }
        self.links.ids().into_iter().for_each(|link| self.close_remote_at(core, link, id, tells));
    }

    /// Gives the address of a forward back in one session.
    pub(super) fn close_remote_at(&mut self, core: &mut Core, session_id: Id, forward: Id, tells: bool) {
        let Some(record) = self.links.get_mut(session_id) else { return };
        let Some(place) = record.remotes.iter().position(|remote| remote.forward == forward) else { return };
        let number = record.remotes.remove(place).number;
        let number = number.filter(|_| tells);
        if let (Some(number), Some(session)) = (number, core.pools.sessions.session_mut(session_id)) {
            // A listener that was given back already needs no notice.
            let _ = session.unlisten(number);
        }
        if tells {
            self.allow_streams(core, session_id);
        }
    }

    /// Makes the forwards that this node listens for those of another link.
    pub(super) fn move_forwards(&mut self, core: &mut Core, from: Id, to: Id) {
        let is_its = |forward: &Forward| forward.link == from && forward.listeners.is_some();
        let its: Vec<Id> = self.forwards.iter().filter(|(_, forward)| is_its(forward)).map(|(id, _)| id).collect();
        for id in its {
            self.forwards.get_mut(id).into_iter().for_each(|forward| forward.link = to);
        }
        core.reroute(from, to);
    }

    /// Closes the forwards that this node listens for, because the loop has closed all listeners.
    pub(super) fn close_local_forwards(&mut self, core: &mut Core) {
        let is_closed = |listener: &Id| core.listeners.get(*listener).is_none();
        let its =
            self.forwards.iter().filter(|(_, it)| it.listeners.as_ref().is_some_and(|all| all.iter().any(is_closed)));
        let its: Vec<Id> = its.map(|(id, _)| id).collect();
        its.into_iter().for_each(|forward| _ = self.close_forward(core, forward, Reason::Drained, false));
    }

    /// Closes the forwards of a link that ends.
    pub(super) fn close_forwards(&mut self, core: &mut Core, link: Id, reason: Reason) {
        let its = self.forwards.iter().filter(|(_, forward)| forward.link == link);
        let its: Vec<Id> = its.map(|(id, _)| id).collect();
        its.into_iter().for_each(|forward| _ = self.close_forward(core, forward, reason, false));
    }

    /// Notes and reports the states of the forwards that the peer of a link listens for, if they have changed.
    pub(super) fn note_forwards(&mut self, core: &mut Core, link: Id) {
        let Some(record) = self.links.get(link).filter(|record| record.heir.is_none()) else { return };
        let forwards: Vec<Id> = record.remotes.iter().map(|remote| remote.forward).collect();
        forwards.into_iter().for_each(|forward| self.note_forward(core, forward));
    }

    /// Notes and reports the states of the remote forwards of a group.
    pub(super) fn note_group_forwards(&mut self, core: &mut Core, group: Id) {
        let forwards = self.groups.get(group).into_iter().flat_map(|group| &group.remotes);
        let forwards: Vec<Id> = forwards.map(|(forward, _)| *forward).collect();
        forwards.into_iter().for_each(|forward| self.note_forward(core, forward));
    }

    fn note_forward(&mut self, core: &mut Core, id: Id) {
        let Some(forward) = self.forwards.get(id) else { return };
        let state = best(self.remotes_of(id, forward).map(Remote::state));
        let Some(forward) = self.forwards.get_mut(id).filter(|forward| forward.state_since.0 != state) else { return };
        forward.state_since = (state, core.now_ms);
        core.observe(Event::Forward { forward: id, state });
    }

    /// Returns the requests for a remote forward: one for each link of its group, or that of its link.
    fn remotes_of<'a>(&'a self, id: Id, forward: &Forward) -> impl Iterator<Item = &'a Remote> {
        let links = self.groups.get(forward.link).map_or_else(|| vec![forward.link], super::group::Group::links);
        let remotes = links.into_iter().filter_map(|link| self.links.get(link)).flat_map(|link| &link.remotes);
        remotes.filter(move |remote| remote.forward == id)
    }

    fn forward_named(&self, name: &str) -> Option<Id> {
        self.forwards.iter().find(|(_, forward)| *forward.name == *name).map(|(id, _)| id)
    }

    fn check_forward_name(&self, name: &str, own: Option<Id>) -> Result<(), VerbError> {
        match self.forward_named(name) {
            _ if name.is_empty() => Err(VerbError::Invalid),
            Some(other) if Some(other) != own => Err(VerbError::Already),
            _ => Ok(()),
        }
    }

    fn forward_status(&self, core: &Core, id: Id, forward: &Forward) -> ForwardStatus {
        let (state, since_ms) = forward.state_since;
        let mut status = ForwardStatus {
            id,
            name: forward.name.to_string(),
            link: forward.link,
            direction: if forward.listeners.is_some() { Direction::Local } else { Direction::Remote },
            kind: forward.kind.clone(),
            asked: forward.asked.clone(),
            bound: Vec::new(),
            to: forward.to.clone(),
            state,
            state_for: Duration::from_millis(core.now_ms.saturating_sub(since_ms)),
            failure: None,
            tries: 0,
            opened: 0,
            active: 0,
            refused: 0,
            bytes: (0, 0),
            datagrams: (0, 0),
        };
        for listener in forward.listeners.iter().flatten().filter_map(|id| core.listeners.get(*id)) {
            status.bound.push(listener.addr.clone());
            status.opened += listener.accepted;
            status.active += listener.active;
            status.refused += listener.refused + listener.failed;
            let add = |sum: (u64, u64), more: (u64, u64)| (sum.0 + more.0, sum.1 + more.1);
            status.bytes = add(status.bytes, listener.bytes);
            status.datagrams = add(status.datagrams, listener.datagrams);
        }
        if status.direction == Direction::Local && status.bound.is_empty() {
            // A loop that is stopping has closed its listeners.
            status.state = ForwardState::Closed;
        }
        for remote in self.remotes_of(id, forward) {
            status.bound.extend(remote.bound.map(Endpoint::from).filter(|bound| !status.bound.contains(bound)));
            if remote.failure.is_some() && status.failure.is_none() {
                (status.failure, status.tries) = (remote.failure.clone(), remote.tries);
            }
        }
        if state == ForwardState::Listening {
            // The peer of another link may not listen.
            (status.failure, status.tries) = (None, 0);
        }
        if let Some(tally) = core.tallies.get(&id) {
            let Tally { opened, active, refused, bytes, datagrams } = *tally;
            (status.opened, status.active, status.refused) = (opened, active, refused);
            (status.bytes, status.datagrams) = (bytes, datagrams);
        }
        status
    }
}

impl ForwardStatus {
    /// Returns the bound addresses as people write them, without their kinds.
    pub fn addresses(&self) -> Vec<String> {
        self.bound.iter().map(plain).collect()
    }
}

impl Direction {
    /// Returns the word of the direction in status and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Local => "local",
            Direction::Remote => "remote",
        }
    }
}

/// Returns a function that makes the configuration of one listener of a forward after the other. They share a front end.
fn parts(config: ListenConfig, link: Id) -> impl FnMut() -> ListenConfig {
    // The pattern names every setting, so that a new one cannot be lost here. The forward has the name, and the link is its
    // own.
    let ListenConfig {
        name: _,
        kind,
        front_end,
        datagrams,
        link: _,
        timeouts,
        family,
        nodelay,
        tcp_keepalive,
        egress,
        backlog,
        counts_at_accept,
        balancer,
        redirected,
    } = config;
    let front_end = Rc::new(RefCell::new(front_end));
    let datagrams = datagrams.map(SharedHandler::new);
    move || {
        let shared = Rc::clone(&front_end);
        let front_end: FrontEnd = Box::new(move || (shared.borrow_mut())());
        let (timeouts, egress, link) = (timeouts.clone(), egress.clone(), Some(link));
        let balancer = balancer.clone();
        let (name, kind) = (None, kind.clone());
        ListenConfig {
            name,
            kind,
            front_end,
            datagrams: datagrams.clone().map(|shared| Box::new(shared) as DatagramFrontEnd),
            link,
            timeouts,
            family,
            nodelay,
            tcp_keepalive,
            egress,
            backlog,
            counts_at_accept,
            balancer,
            redirected,
        }
    }
}

/// Returns the state of a forward that several peers are to listen for: the best one.
fn best(states: impl Iterator<Item = ForwardState>) -> ForwardState {
    let order = |state: &ForwardState| match state {
        ForwardState::Listening => 0,
        ForwardState::Waiting => 1,
        _ => 2,
    };
    states.min_by_key(order).unwrap_or(ForwardState::Waiting)
}

/// The handler of the clients of a forward with one target.
struct ToTarget(Rc<Target>);

impl Handler for ToTarget {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        // A connection that cannot be made is reported.
        let _ = cx.connect(Rc::clone(&self.0), ConnectOptions { is_configured: true, ..ConnectOptions::default() });
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

/// Maximum of the forwards of one loop.
pub(super) const FORWARDS_MAX: usize = 1024;
