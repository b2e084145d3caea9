//! Listeners: the sockets of one loop that accept clients, and the verbs on them.
//!
//! ```text
//!   bind --> Bound --listen--> Listener --unlisten, drain, stop--> gone
//!                                |   ^
//!                                +---+ replace, rename, route
//! ```
//! A connection keeps what it was accepted with: its handler, its link, and the profile of its settings. So its listener
//! may change or go at any time.

use std::sync::Arc;
use std::time::Duration;

use mio::Token;

use crate::engine::balance::{Balancer, TargetStatus};
use crate::engine::bound::{Acceptor, Bound, Inherited, Members};
use crate::engine::connection_view::ConnectionMut;
use crate::engine::core::Core;
use crate::engine::datagrams::handler::DatagramFrontEnd;
use crate::engine::handler::Handler;
use crate::engine::limits::{Family, Timeouts};
use crate::engine::observer::Event;
use crate::engine::profiles::Settings;
use crate::engine::redirected::{Redirection, warn_not_transparent};
use crate::metrics::ByReason;
use crate::relay::dial::Egress;
use crate::types::address::Endpoint;
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::{Id, Kind};
use crate::types::label::Label;
use crate::types::proto::Proto;
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

/// Makes the handler of a client.
pub type FrontEnd = Box<dyn FnMut() -> Box<dyn Handler>>;

/// The configuration of a listener. Settings that are none are those of the loop ([`Config`](crate::Config)).
pub struct ListenConfig {
    /// The name, which no other listener of the loop has; the address if there is none.
    pub name: Option<String>,
    /// The name of the front end, for descriptions of connections.
    pub kind: Label,
    /// Makes the handler of each client.
    pub front_end: FrontEnd,
    /// Chooses the targets of datagrams, for a UDP address, at which `front_end` is not used. A UDP address cannot be
    /// listened on without.
    pub datagrams: Option<DatagramFrontEnd>,
    /// The link that the dests of its clients are reached over.
    pub link: Option<Id>,
    /// The durations of the timers of its connections. [`Timeouts::name_cache`] and [`Timeouts::descriptors_retry`] are
    /// always those of the loop.
    pub timeouts: Option<Timeouts>,
    /// The address families that a dial tries.
    pub family: Option<Family>,
    /// True to send small writes at once (`TCP_NODELAY`) on both sides.
    pub nodelay: Option<bool>,
    /// The idle time before the first TCP keepalive probe, on both sides; zero switches keepalive off.
    pub tcp_keepalive: Option<Duration>,
    /// The way out of this host for dests; the system chooses it if there is none.
    pub egress: Option<Egress>,
    /// The number of clients that may wait to be accepted; as many as before if there is none.
    pub backlog: Option<u32>,
    /// True if a client counts against the limit of its network when it is accepted. False if the front end learns the
    /// address of the client later, and counts it then by [`ConnectionMut::set_source`].
    pub counts_at_accept: bool,
    /// The targets that the front end balances its clients among, for lookups and the status.
    pub balancer: Option<Arc<Balancer>>,
    /// True if the system redirects clients to the listener (Linux): TPROXY may send connections to other hosts there, where
    /// this process has `CAP_NET_ADMIN`, and connections of this process that come back are noticed. The front end asks
    /// [`ConnectionMut::redirected_dest`] for the target.
    pub redirected: bool,
}

/// One loop's part of a listener.
pub(crate) struct Listener {
    pub name: Box<str>,
    pub kind: Label,
    pub addr: Endpoint,
    pub front: Front,
    /// The link that the clients go over.
    link: Option<Id>,
    /// The settings that connections get.
    pub profile: u16,
    pub acceptor: Option<Acceptor>,
    pub members: Arc<Members>,
    /// The loops get clients in turn, because the system does not distribute them.
    pub hands_over: bool,
    /// A client counts against the limit of its network when it is accepted.
    pub counts_at_accept: bool,
    /// The targets of its clients, if there are several.
    pub balancer: Option<Arc<Balancer>>,
    /// The system redirects clients to it.
    redirection: Option<Redirection>,
    /// A link opened it, for a forward or for its peer: only the verbs of those change and close it.
    is_of_link: bool,
    pub turn: usize,
    pub ready: bool,
    pub queued: bool,
    /// The last turn in which datagrams were received for carriers.
    pub received_turn: u64,
    pub accepted: u64,
    pub refused: u64,
    pub active: usize,
    /// Connections that failed before a byte was relayed.
    pub failed: u64,
    /// Bytes from the clients and to them, as far as they are settled.
    pub bytes: (u64, u64),
    /// Datagrams from the clients and to them, as far as they are settled.
    pub datagrams: (u64, u64),
    /// Ended connections by their reasons.
    pub closed: ByReason,
}

/// The use of what a listener receives.
pub(crate) enum Front {
    /// Clients: each gets a handler.
    Clients(FrontEnd),
    /// Nodes that dial a link.
    Nodes,
    /// Datagrams. None while the handler is called.
    Datagrams(Option<DatagramFrontEnd>),
}

/// A listener of a loop, and the verbs on it. See [`Core::listener`].
pub struct ListenerMut<'a> {
    core: &'a mut Core,
    id: Id,
}

/// The status of a listener of one loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// The id.
    pub id: Id,
    /// The name.
    pub name: String,
    /// The name of the front end; `link` if peers dial links to it.
    pub kind: Label,
    /// The address.
    pub addr: Endpoint,
    /// The link that the dests of its clients are reached over.
    pub link: Option<Id>,
    /// Clients that the loop has accepted since the listener was opened.
    pub accepted: u64,
    /// Connections of its clients that are not over.
    pub active: usize,
    /// Accepted clients that were closed at once: at the limit of their network, or because of an error.
    pub refused: u64,
    /// Connections of its clients that failed before a byte was relayed, because of a peer or a rule.
    pub failed: u64,
    /// Bytes from the clients, and to them, those of datagrams included: of ended connections and flows, and of others up to the
    /// last call of [`Core::settle`].
    pub bytes: (u64, u64),
    /// Datagrams from the clients, and to them, counted as the bytes.
    pub datagrams: (u64, u64),
    /// Ended connections by their reasons.
    pub closed: ByReason,
    /// The targets that its clients are balanced among; those of all loops together.
    pub targets: Vec<TargetStatus>,
}

impl ListenConfig {
    /// Creates a configuration with the settings of the loop.
    pub fn new(kind: impl Into<Label>, front_end: FrontEnd) -> ListenConfig {
        ListenConfig {
            name: None,
            kind: kind.into(),
            front_end,
            datagrams: None,
            link: None,
            timeouts: None,
            family: None,
            nodelay: None,
            tcp_keepalive: None,
            egress: None,
            backlog: None,
            counts_at_accept: true,
            balancer: None,
            redirected: false,
        }
    }

    fn settings(&mut self, core: &Core) -> Settings {
        let of_loop = Settings::of(&core.config);
        let timeouts = self.timeouts.take().map(|timeouts| Timeouts {
            name_cache: of_loop.timeouts.name_cache,
            descriptors_retry: of_loop.timeouts.descriptors_retry,
            ..timeouts
        });
        Settings {
            timeouts: timeouts.unwrap_or(of_loop.timeouts),
            family: self.family.unwrap_or(of_loop.family),
            nodelay: self.nodelay.unwrap_or(of_loop.nodelay),
            tcp_keepalive: self.tcp_keepalive.unwrap_or(of_loop.tcp_keepalive),
            egress: self.egress.take().filter(|egress| *egress != Egress::default()).map(Into::into),
        }
    }
}

impl Core {
    /// Listens on the next socket of a bound address. Each loop of those that it was bound for calls this once; where the
    /// system does not distribute clients, the first one accepts and the others get clients from it in turn.
    ///
    /// # Errors
    /// [`VerbError::Already`] if the name is in use; [`VerbError::Invalid`] if no socket is left, `link` names no link, or the
    /// address is one of UDP and nothing chooses the targets of datagrams;
    /// [`VerbError::Full`] at the limit of listeners or of different settings; [`VerbError::Over`] if the loop is stopping;
    /// the error of the system if the socket cannot be used.
    pub fn listen(&mut self, bound: &mut Bound, mut config: ListenConfig) -> Result<Id, DescriptorError> {
        if self.is_draining() {
            return Err(VerbError::Over(Reason::Drained).into());
        }
        self.check_link(config.link)?;
        let settings = config.settings(self);
        let family = settings.family;
        let name = config.name.take().unwrap_or_else(|| self.name_for(bound.addr()));
        let front = Front::new(bound.proto(), config.front_end, config.datagrams)?;
        let id = self.add_listener(bound, (name, config.kind), front, config.link, settings)?;
        if let Some(balancer) = &config.balancer {
            balancer.start(self, family);
        }
        if let Some(listener) = self.listeners.get_mut(id) {
            (listener.counts_at_accept, listener.balancer) = (config.counts_at_accept, config.balancer);
            listener.set_redirected(config.redirected);
        }
        self.redirect_datagrams(id, config.redirected);
        Ok(id)
    }

    /// Listens for a forward, or for the peer of a link. The verbs of listeners do not change or close such a listener.
    pub(crate) fn listen_for_forward(
        &mut self,
        bound: &mut Bound,
        config: ListenConfig,
    ) -> Result<Id, DescriptorError> {
        let id = self.listen(bound, config)?;
        self.listeners.get_mut(id).into_iter().for_each(|listener| listener.is_of_link = true);
        Ok(id)
    }

    /// Listens for nodes that dial links, in this loop only. [`Core::take_shared_socket`] must follow for an address of UDP.
    pub(crate) fn listen_for_links(&mut self, bound: &mut Bound) -> Result<Id, DescriptorError> {
        let (name, settings) = (self.name_for(bound.addr()), Settings::of(&self.config));
        self.add_listener(bound, (name, "link".into()), Front::Nodes, None, settings)
    }

    fn add_listener(
        &mut self,
        bound: &mut Bound,
        (name, kind): (String, Label),
        front: Front,
        link: Option<Id>,
        settings: Settings,
    ) -> Result<Id, DescriptorError> {
        if !bound.has_room() {
            return Err(VerbError::Invalid.into());
        }
        self.check_name(&name, None)?;
        let id = self.listeners.next_id().ok_or(VerbError::Full)?;
        if bound.proto() == Proto::Udp && !matches!(front, Front::Nodes) {
            self.need_batch()?;
        }
        if let Some(acceptor) = bound.acceptor() {
            acceptor.inherit(Inherited { nodelay: settings.nodelay, tcp_keepalive: settings.tcp_keepalive })?;
        }
        if bound.loops() > 1
            && let (Some(acceptor), Some(cpu)) = (bound.acceptor(), self.config.cpus.first())
            && let Err(error) = acceptor.prefer_cpu(*cpu)
        {
            // The system then distributes the clients by their addresses.
            log::debug!(target: "seaprox::listener", cpu = cpu, error = error.to_string(); "no processor for a listener");
        }
        let profile = self.profiles.enter(settings, &mut self.timers).ok_or(VerbError::Full)?;
        if let Some(acceptor) = bound.acceptor()
            && let Err(error) = acceptor.register(&self.registry, Token(id.to_u64() as usize))
        {
            self.profiles.leave(profile, &mut self.timers);
            return Err(error.into());
        }
        let (members, hands_over) = (Arc::clone(&bound.members), bound.hands_over());
        members.join(self.remote(), id);
        log::debug!(target: "seaprox::listener", kind = &*kind, addr = bound.addr().to_string(), name = name; "listening");
        let (datagrams, acceptor) = match bound.take().map(Acceptor::into_datagrams) {
            Some(Ok(socket)) => (Some(socket), None),
            Some(Err(acceptor)) => (None, Some(acceptor)),
            None => (None, None),
        };
        let listener = Listener {
            name: name.into(),
            kind,
            addr: bound.addr().clone(),
            front,
            link,
            profile,
            acceptor,
            members,
            hands_over,
            counts_at_accept: true,
            balancer: None,
            redirection: None,
            is_of_link: false,
            turn: 0,
            ready: false,
            queued: false,
            received_turn: 0,
            accepted: 0,
            refused: 0,
            active: 0,
            failed: 0,
            bytes: (0, 0),
            datagrams: (0, 0),
            closed: [0; Reason::ALL.len()],
        };
        let placed = self.listeners.insert(Box::new(listener));
        debug_assert!(placed.is_ok_and(|placed| placed == id), "the table has room");
        datagrams.into_iter().for_each(|socket| self.hold_datagrams(id, socket));
        self.observe(Event::ListenerOpened { listener: id });
        Ok(id)
    }

    /// Returns a view of a listener, with the verbs on it.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if it is gone; [`VerbError::Invalid`] if the id is not of a listener.
    pub fn listener(&mut self, listener: Id) -> Result<ListenerMut<'_>, VerbError> {
        match self.listeners.get(listener) {
            Some(_) => Ok(ListenerMut { core: self, id: listener }),
            None => Err(self.ended.missing(listener, Kind::Listener)),
        }
    }

    /// Returns the listener with this name.
    pub fn listener_named(&self, name: &str) -> Option<Id> {
        self.listeners.iter().find(|(_, listener)| *listener.name == *name).map(|(id, _)| id)
    }

    /// Returns the status of each listener of this loop, those for links and for peers of links included.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        self.listeners.iter().map(|(id, listener)| listener.status(id)).collect()
    }

    /// Gives the clients that a listener accepts from now on another front end and other settings.
    pub(crate) fn replace_listener(&mut self, id: Id, mut config: ListenConfig) -> Result<(), DescriptorError> {
        self.check_link(config.link)?;
        if let Some(name) = &config.name {
            self.check_name(name, Some(id))?;
        }
        let proto = self.listeners.get(id).ok_or(VerbError::Stale)?.addr.proto();
        let settings = config.settings(self);
        let front = Front::new(proto, config.front_end, config.datagrams)?;
        let family = settings.family;
        let inherited = Inherited { nodelay: settings.nodelay, tcp_keepalive: settings.tcp_keepalive };
        let Core { profiles, timers, listeners, .. } = self;
        let Some(listener) = listeners.get_mut(id) else { return Err(VerbError::Stale.into()) };
        let profile = profiles.enter(settings, timers).ok_or(VerbError::Full)?;
        let inherits = listener.acceptor.as_mut().map_or(Ok(()), |acceptor| {
            config.backlog.map_or(Ok(()), |backlog| acceptor.set_backlog(backlog))?;
            acceptor.inherit(inherited)
        });
        let left = if inherits.is_ok() { std::mem::replace(&mut listener.profile, profile) } else { profile };
        profiles.leave(left, timers);
        inherits?;
        (listener.kind, listener.link) = (config.kind, config.link);
        listener.front = front;
        (listener.counts_at_accept, listener.balancer) = (config.counts_at_accept, config.balancer.clone());
        listener.set_redirected(config.redirected);
        if let Some(name) = config.name {
            listener.name = name.into();
        }
        if let Some(balancer) = config.balancer {
            balancer.start(self, family);
        }
        self.redirect_datagrams(id, config.redirected);
        Ok(())
    }

    /// Gives a listener of a forward the name of the forward. If another listener has the name, the address stands behind it.
    pub(crate) fn name_listener(&mut self, id: Id, name: &str) {
        let is_free = self.listener_named(name).is_none_or(|other| other == id);
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.name = if is_free { name.into() } else { format!("{name} {}", plain(&listener.addr)).into() };
        }
    }

    /// Sends the clients that a listener accepts from now on over a link.
    pub(crate) fn route_listener(&mut self, id: Id, link: Id) {
        self.listeners.get_mut(id).into_iter().for_each(|listener| listener.link = Some(link));
    }

    /// Sends the clients of all listeners that go over one link over another one from now on.
    pub(crate) fn reroute(&mut self, from: Id, to: Id) {
        let its = self.listeners.iter().filter(|(_, listener)| listener.link == Some(from));
        for id in its.map(|(id, _)| id).collect::<Vec<_>>() {
            self.route_listener(id, to);
        }
    }

    /// Closes a listener, if it is there. The system refuses the clients in its backlog.
    pub(crate) fn close_listener(&mut self, id: Id) {
        let Some(mut listener) = self.listeners.remove(id) else { return };
        if let Some(acceptor) = &mut listener.acceptor {
            acceptor.deregister(&self.registry);
        }
        self.close_datagrams(id);
        listener.members.leave(&self.remote(), id);
        self.profiles.leave(listener.profile, &mut self.timers);
        self.queues.full.retain(|other| *other != id);
        self.descriptors.listeners.retain(|other| *other != id);
        log::debug!(target: "seaprox::listener", kind = &*listener.kind, addr = listener.addr.to_string(), name = *listener.name; "closed");
        self.ended.note(id, Reason::Killed);
        self.observe(Event::ListenerClosed { listener: id });
    }

    /// Returns the name of a listener that was given none: its address, with a number if a listener is called so.
    fn name_for(&self, addr: &Endpoint) -> String {
        let addr = plain(addr);
        let numbered = (2..).map(|number| format!("{addr} ({number})"));
        let mut names = std::iter::once(addr.clone()).chain(numbered);
        names.find(|name| self.listener_named(name).is_none()).unwrap_or_default()
    }

    fn check_name(&self, name: &str, own: Option<Id>) -> Result<(), VerbError> {
        match self.listener_named(name) {
            _ if name.is_empty() => Err(VerbError::Invalid),
            Some(other) if Some(other) != own => Err(VerbError::Already),
            _ => Ok(()),
        }
    }

    /// Checks that an id names a link or a group, if there is one.
    ///
    /// # Errors
    /// * [`VerbError::Invalid`]: it is that of another kind of record
    /// * [`VerbError::Stale`]: there is no such link or group any more
    pub(super) fn check_link(&self, link: Option<Id>) -> Result<(), VerbError> {
        match link {
            Some(link) if !matches!(link.kind(), Kind::Link | Kind::Group) => Err(VerbError::Invalid),
            Some(link) if self.pools.sessions.get(link).is_none() && !self.link_groups.contains_key(&link) => {
                Err(VerbError::Stale)
            }
            _ => Ok(()),
        }
    }
}

impl Front {
    /// Returns the front end for a protocol.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if there is none for datagrams.
    fn new(proto: Proto, clients: FrontEnd, datagrams: Option<DatagramFrontEnd>) -> Result<Front, VerbError> {
        match (proto, datagrams) {
            (Proto::Tcp, _) => Ok(Front::Clients(clients)),
            (Proto::Udp, Some(datagrams)) => Ok(Front::Datagrams(Some(datagrams))),
            (Proto::Udp, None) => Err(VerbError::Invalid),
        }
    }
}

impl ListenerStatus {
    /// Returns the address as people write it, without its kind.
    pub fn address(&self) -> String {
        plain(&self.addr)
    }
}

impl ConnectionMut<'_> {
    /// Returns the listener that accepted the source, or the forward for which the peer of a link accepted it; none if there
    /// was none. The id is stale once that is closed.
    pub fn listener(&self) -> Option<Id> {
        self.core_ref().connections.get(self.id())?.listener
    }
}

impl Listener {
    /// Returns the link that the clients go over.
    pub fn link(&self) -> Option<Id> {
        self.link
    }

    /// Returns true if its socket is one of datagrams, which carriers of links share.
    pub fn is_of_carriers(&self) -> bool {
        matches!(self.front, Front::Nodes) && self.acceptor.is_none()
    }

    /// Sets if the system redirects clients to it. Without the right to accept connections of TPROXY those of NAT remain.
    fn set_redirected(&mut self, is_redirected: bool) {
        if is_redirected && self.redirection.is_none() {
            let result = self.acceptor.as_ref().map_or(Ok(()), Acceptor::set_transparent);
            result.unwrap_or_else(|error| warn_not_transparent(&error));
        }
        self.redirection = is_redirected.then(|| self.redirection.take().unwrap_or_else(Redirection::new));
    }

    fn status(&self, id: Id) -> ListenerStatus {
        ListenerStatus {
            id,
            name: self.name.to_string(),
            kind: self.kind.clone(),
            addr: self.addr.clone(),
            link: self.link,
            accepted: self.accepted,
            active: self.active,
            refused: self.refused,
            failed: self.failed,
            bytes: self.bytes,
            datagrams: self.datagrams,
            closed: self.closed,
            targets: self.balancer.as_ref().map(|balancer| balancer.targets()).unwrap_or_default(),
        }
    }
}

impl ListenerMut<'_> {
    fn record(&self) -> &Listener {
        self.core.listeners.get(self.id).expect("the view borrows the loop, so the listener stays")
    }

    fn record_mut(&mut self) -> &mut Listener {
        self.core.listeners.get_mut(self.id).expect("the view borrows the loop, so the listener stays")
    }

    /// Returns the id.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.record().name
    }

    /// Returns the name of the front end.
    pub fn kind(&self) -> &Label {
        &self.record().kind
    }

    /// Returns the address.
    pub fn addr(&self) -> &Endpoint {
        &self.record().addr
    }

    /// Returns the link, or the group of links, that the dests of its clients are reached over.
    pub fn link(&self) -> Option<Id> {
        self.record().link
    }

    /// Returns all that is known about it.
    pub fn status(&self) -> ListenerStatus {
        self.record().status(self.id)
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// [`VerbError::Already`] if another listener has the name; [`VerbError::Invalid`] if the name is empty.
    pub fn rename(&mut self, name: &str) -> Result<(), VerbError> {
        self.core.check_name(name, Some(self.id))?;
        self.record_mut().name = name.into();
        Ok(())
    }

    /// Sends the clients that are accepted from now on over a link or a group of links, or directly.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if the id is not of a link or a group, or if a forward, a server or a link owns this listener;
    /// [`VerbError::Stale`] if the link is gone.
    pub fn route(&mut self, link: Option<Id>) -> Result<(), VerbError> {
        self.core.check_link(link)?;
        self.check_clients()?;
        self.record_mut().link = link;
        Ok(())
    }

    /// Gives the clients that are accepted from now on another front end and other settings. The socket with its backlog
    /// stays, and so do connections, counters and, unless `config` has one, the name.
    ///
    /// # Errors
    /// As for [`Core::listen`]; then nothing is changed. [`VerbError::Invalid`] if a forward, a server or a link owns this
    /// listener.
    pub fn replace(&mut self, config: ListenConfig) -> Result<(), DescriptorError> {
        self.check_clients()?;
        self.core.replace_listener(self.id, config)
    }

    /// Closes it. Its connections go on; the system refuses the clients in its backlog. The file of a Unix socket is removed
    /// when no loop listens there any more.
    ///
    /// # Errors
    /// [`VerbError::Invalid`] if a forward, a server or a link owns this listener. Their verbs close it.
    pub fn unlisten(self) -> Result<(), VerbError> {
        self.check_clients()?;
        self.core.close_listener(self.id);
        Ok(())
    }

    fn check_clients(&self) -> Result<(), VerbError> {
        let record = self.record();
        if matches!(record.front, Front::Nodes) || record.is_of_link { Err(VerbError::Invalid) } else { Ok(()) }
    }
}

/// Returns an address as people write it, without its kind.
pub(crate) fn plain(addr: &Endpoint) -> String {
    match addr {
        Endpoint::Ip(proto, addr) => format!("{}{addr}", proto.prefix()),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        other => other.to_string(),
    }
}

/// Listeners of one loop.
pub(crate) const LISTENERS_MAX: usize = 65_536;
