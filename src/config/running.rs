//! A running process: loops, and the configuration that is in effect. [`Running::apply`] puts another one into effect and
//! touches only what differs.
//!
//! ```text
//!   make front ends and policies   an error changes nothing
//!   bind new addresses             an error changes nothing
//!   close what is gone             listeners, servers, links; the connections of a closed listener live on
//!   dial, listen, serve            what is new, and what has changed
//! ```
//! Links, served links, and the listeners whose clients go over a link are in the first loop; all other listeners are in
//! every loop. No method may be called in the thread of a loop, because it waits for the loops.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::apply_error::{ApplyError, ApplyFailure};
use super::diff::{Changes, Diff, LinkChange};
use super::link::{Forward, Link, Server, Service};
use super::listener::Listener;
use super::maker::{MadeFrontEnd, MadeLink, MadeServer, Maker};
use super::on_loop::{Opened, Terms, on_loop, refused};
use super::{Config, FrontEndConfig, LoopConfig, Place};
use crate::engine::bound::{Bound, bind};
use crate::engine::control::Loop;
use crate::engine::mailbox::Remote;
use crate::engine::threads::Loops;
use crate::engine::workers::Workers;
use crate::node::{ForwardConfig, LinkMut, LinksOfServer};
use crate::types::address::{Bind, Endpoint};
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::verb_error::VerbError;

/// A process whose loops run.
pub struct Running {
    /// The configuration in effect.
    config: Config,
    maker: Arc<dyn Maker>,
    remotes: Vec<Remote>,
    /// The bound addresses of listeners and local forwards, by name.
    listeners: BTreeMap<String, Vec<Opened>>,
    /// The bound addresses for links that peers dial, by the name of the server.
    servers: BTreeMap<String, Vec<Opened>>,
    /// The links that this node dials, by name.
    links: BTreeMap<String, Id>,
    /// The forwards for which peers listen, by name.
    remote_forwards: BTreeMap<String, Id>,
}

/// An address on which a process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The name of the listener, the forward or the server.
    pub name: String,
    /// The front end; none for links that peers dial.
    pub front_end: Option<FrontEndConfig>,
    /// The name of the link that the clients go over.
    pub link: Option<String>,
    /// The address, with the port that the system has chosen.
    pub addr: Endpoint,
}

/// Parts that were made and bound before anything changes.
#[derive(Default)]
struct Prepared {
    front_ends: BTreeMap<String, MadeFrontEnd>,
    links: Vec<(Link, MadeLink)>,
    servers: BTreeMap<String, MadeServer>,
    /// The sockets of each listener and of each server that were bound so far, with the address that they belong to.
    listening: BTreeMap<String, Bounds>,
    serving: BTreeMap<String, Bounds>,
}

impl Running {
    /// Starts the loops of a process, and puts the configuration into effect. Returns the process, and its loops for
    /// [`Loops::join`].
    ///
    /// # Errors
    /// The problems of the configuration, or the first part that cannot be made, bound or started. The loops have ended then.
    pub fn start(
        config: Config,
        maker: Arc<dyn Maker>,
        workers: &Arc<Workers>,
    ) -> Result<(Running, Loops), ApplyError> {
        let nothing = Config { listeners: Vec::new(), links: Vec::new(), servers: Vec::new(), ..config.clone() };
        let mut running = Running {
            config: nothing,
            maker,
            remotes: Vec::new(),
            listeners: BTreeMap::new(),
            servers: BTreeMap::new(),
            links: BTreeMap::new(),
            remote_forwards: BTreeMap::new(),
        };
        let diff = Diff::between(&running.config, &config);
        let prepared = running.prepare(&config, &diff)?;
        let failed = |error| ApplyError::new(Place::root(), ApplyFailure::System(error));
        let loops = Loops::start_idle(&weights(&config), &config.loops, Some(workers)).map_err(failed)?;
        running.remotes = loops.remotes().to_vec();
        match running.put_into_effect(config, diff, prepared) {
            Ok(_) => Ok((running, loops)),
            Err(error) => {
                running.stop();
                // The error of the start counts.
                let _ = loops.join();
                Err(error)
            }
        }
    }

    /// Puts another configuration into effect, and returns what has changed. Changes that need a restart
    /// ([`Diff::restarts`]) are not made. Connections live on, except for those over a link that must be dialed again.
    ///
    /// # Errors
    /// The problems of the configuration, or the first part that cannot be made or bound; nothing has changed then. If a loop cannot take a part over, or if an
    /// address cannot be bound again with other socket options, all other changes are made first.
    pub fn apply(&mut self, config: Config) -> Result<Diff, ApplyError> {
        let diff = Diff::between(&self.config, &config);
        let prepared = self.prepare(&config, &diff)?;
        self.put_into_effect(config, diff, prepared)
    }

    /// Returns the configuration in effect.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the handles of the loops.
    pub fn remotes(&self) -> &[Remote] {
        &self.remotes
    }

    /// Returns the id of a link that this node dials, in the first loop.
    pub fn link(&self, name: &str) -> Option<Id> {
        self.links.get(name).copied()
    }

    /// Returns the addresses on which the process listens: for links that peers dial, of listeners, and of local forwards.
    pub fn listening(&self) -> Vec<Listening> {
        let addrs = |all: &BTreeMap<String, Vec<Opened>>, name: &str| -> Vec<Endpoint> {
            all.get(name).into_iter().flatten().flat_map(|opened| opened.addrs.clone()).collect()
        };
        let mut listening = Vec::new();
        for Server { name, .. } in &self.config.servers {
            let of_server = |addr| Listening { name: name.clone(), front_end: None, link: None, addr };
            listening.extend(addrs(&self.servers, name).into_iter().map(of_server));
        }
        for Listener { name, front_end, link, .. } in self.config.all_listeners() {
            let (of_name, front_end) = (addrs(&self.listeners, &name), Some(front_end));
            let of_listener =
                |addr| Listening { name: name.clone(), front_end: front_end.clone(), link: link.clone(), addr };
            listening.extend(of_name.into_iter().map(of_listener));
        }
        listening
    }

    /// Stops all loops at once.
    pub fn stop(&self) {
        for remote in &self.remotes {
            // A loop that has ended needs no call.
            let _ = on_loop(remote, |core| core.stop());
        }
    }

    /// Makes the parts that are new, and binds their addresses. An address that must be closed first is bound later.
    fn prepare(&self, config: &Config, diff: &Diff) -> Result<Prepared, ApplyError> {
        let problems = config.validate(&*self.maker);
        if !problems.is_empty() {
            return Err(ApplyError::new(Place::root(), ApplyFailure::Invalid(problems)));
        }
        self.make_and_bind(config, diff).inspect_err(|_| self.maker.discard())
    }

    fn make_and_bind(&self, config: &Config, diff: &Diff) -> Result<Prepared, ApplyError> {
        let mut prepared = Prepared::default();
        let redialed = diff.links.changed.iter().filter(|change| change.is_redialed).map(|change| &change.link);
        for link in diff.links.added.iter().chain(redialed) {
            let made = self.maker.dial(link).map_err(ApplyError::made(Place::record("link", &link.name)))?;
            prepared.links.push((link.clone(), made));
        }
        for server in diff.servers.added.iter().chain(diff.servers.changed.iter().map(|change| &change.server)) {
            let made = self.maker.serve(server).map_err(ApplyError::made(Place::record("server", &server.name)))?;
            prepared.servers.insert(server.name.clone(), made);
        }
        for listener in diff.listeners.added.iter().chain(diff.listeners.changed.iter().map(|change| &change.listener))
        {
            let place = Place::record("listener", &listener.name);
            let made = self.maker.front_end(listener).map_err(ApplyError::made(place))?;
            prepared.front_ends.insert(listener.name.clone(), made);
        }
        let listeners = config.all_listeners();
        let reopened: Vec<_> = listeners.iter().filter(|it| is_reopened(config, it, &prepared)).collect();
        for listener in reopened {
            let place = Place::record("listener", &listener.name);
            let made = self.maker.front_end(listener).map_err(ApplyError::made(place))?;
            prepared.front_ends.insert(listener.name.clone(), made);
        }
        for server in &diff.servers.added {
            prepared.serving.insert(server.name.clone(), bind_server(config, server, &server.addresses, &[])?);
        }
        for change in &diff.servers.changed {
            let bound = bind_server(config, &change.server, &change.bound, &change.closed)?;
            prepared.serving.insert(change.server.name.clone(), bound);
        }
        for listener in &diff.listeners.added {
            prepared
                .listening
                .insert(listener.name.clone(), bind_listener(config, listener, &listener.addresses, &[])?);
        }
        for change in &diff.listeners.changed {
            let bound = bind_listener(config, &change.listener, &change.bound, &change.closed)?;
            prepared.listening.insert(change.listener.name.clone(), bound);
        }
        Ok(prepared)
    }

    /// Makes the changes. The first error is returned after all changes that could be made.
    fn put_into_effect(&mut self, config: Config, diff: Diff, mut prepared: Prepared) -> Result<Diff, ApplyError> {
        let mut errors = Vec::new();
        self.close(&diff);
        let reopened = self.close_forwards(&prepared);
        for link in diff.links.removed.iter().chain(prepared.links.iter().map(|(link, _)| link)) {
            if let Some(id) = self.links.remove(&link.name) {
                // A link that has ended need not be closed.
                self.first_loop(move |core| _ = core.link(id).and_then(|mut link| link.close()));
                let before = self.config.link(&link.name).map_or(&[][..], |link| &link.forwards);
                self.remote_forwards.retain(|name, _| before.iter().all(|forward| forward.name != *name));
            }
        }
        for (link, made) in std::mem::take(&mut prepared.links) {
            errors.extend(self.dial(&link, made).err());
        }
        for change in diff.links.changed.iter().filter(|change| !change.is_redialed) {
            errors.extend(self.change_link(change).err());
            errors.extend(self.change_forwards(change).err());
        }
        errors.extend(bind_again(&config, reopened, &mut prepared));
        errors.extend(self.serve_all(&config, &diff, &mut prepared));
        errors.extend(self.listen_all(&config, &diff, &mut prepared));
        self.route_all(&config);
        let (listeners, links, servers) = (config.all_listeners(), &config.links, &config.servers);
        self.maker.commit(&listeners, links, servers);
        self.config = config.with_restarts_of(&self.config);
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(diff),
        }
    }

    /// Closes the addresses that are gone.
    fn close(&mut self, diff: &Diff) {
        let gone = diff.listeners.removed.iter().map(|listener| (&listener.name, &listener.addresses));
        let moved = diff.listeners.changed.iter().map(|change| (&change.listener.name, &change.closed));
        for (name, places) in gone.chain(moved) {
            close_at(&mut self.listeners, name, places, &self.remotes, LinksOfServer::GoOn);
        }
        let gone = diff.servers.removed.iter().map(|server| (&server.name, &server.addresses, LinksOfServer::Close));
        let moved = diff.servers.changed.iter().map(|change| {
            let links = if change.is_replaced { LinksOfServer::Close } else { LinksOfServer::GoOn };
            (&change.server.name, &change.closed, links)
        });
        for (name, places, links) in gone.chain(moved) {
            close_at(&mut self.servers, name, places, &self.remotes, links);
        }
    }

    /// Closes the local forwards of the links that are dialed again, because a link takes its forwards along. Returns each
    /// with its address, and with the address to bind it to again: the same port, also if the system chose it.
    fn close_forwards(&mut self, prepared: &Prepared) -> Vec<(String, Bind, Bind)> {
        let mut reopened = Vec::new();
        for forward in prepared.links.iter().flat_map(|(link, _)| &link.forwards) {
            for opened in self.listeners.remove(&forward.name).into_iter().flatten() {
                let port = opened.addrs.first().and_then(Endpoint::ip).map(|addr| addr.port());
                let bound = port.map_or_else(|| opened.place.clone(), |port| opened.place.with_port(port));
                opened.close(&self.remotes, LinksOfServer::GoOn);
                reopened.push((forward.name.clone(), opened.place, bound));
            }
        }
        reopened
    }

    /// Dials a link, and opens its remote forwards.
    fn dial(&mut self, link: &Link, made: MadeLink) -> Result<(), ApplyError> {
        let failed = |failure| ApplyError::new(Place::record("link", &link.name), failure);
        let forwards: Vec<Forward> = link.forwards.clone();
        let dialed = on_loop(&self.remotes[0], move |core| {
            let id = core.connect_link(made())?.id;
            Ok((id, open_remote_forwards(core, id, &forwards)))
        });
        let (id, opened) = dialed.map_err(failed)?.map_err(|error: VerbError| failed(ApplyFailure::Verb(error)))?;
        self.links.insert(link.name.clone(), id);
        self.note_forwards(link, opened)
    }

    /// Closes and opens the remote forwards of a link that lives on.
    fn change_forwards(&mut self, change: &LinkChange) -> Result<(), ApplyError> {
        let Changes { added, changed, removed } = &change.forwards;
        let gone = removed.iter().chain(changed.iter().map(|(old, _)| old));
        let gone: Vec<Id> = gone.filter_map(|forward| self.remote_forwards.remove(&forward.name)).collect();
        let new: Vec<Forward> = added.iter().chain(changed.iter().map(|(_, new)| new)).cloned().collect();
        let Some(id) = self.links.get(&change.link.name).copied() else { return Ok(()) };
        let opened = on_loop(&self.remotes[0], move |core| {
            // A forward that is over need not be closed.
            gone.into_iter().for_each(|id| _ = core.forward(id).and_then(|mut forward| forward.close()));
            open_remote_forwards(core, id, &new)
        });
        let failed = |failure| ApplyError::new(Place::record("link", &change.link.name), failure);
        self.note_forwards(&change.link, opened.map_err(failed)?)
    }

    /// Notes the remote forwards that were opened. Returns the first error.
    fn note_forwards(
        &mut self,
        link: &Link,
        opened: Vec<(String, Result<Id, DescriptorError>)>,
    ) -> Result<(), ApplyError> {
        let mut result = Ok(());
        for (name, id) in opened {
            match id {
                Ok(id) => drop(self.remote_forwards.insert(name, id)),
                Err(error) => {
                    let place = Place::record("link", &link.name).within("forward", &name);
                    result = result.and(Err(ApplyError::new(place, refused(error))));
                }
            }
        }
        result
    }

    /// Changes the paths of a link that lives on. The new paths come first if there is room for them, so that the link is
    /// never without one.
    fn change_link(&self, change: &LinkChange) -> Result<(), ApplyError> {
        let LinkChange { link, added_paths, removed_paths, .. } = change;
        let failed = |failure| ApplyError::new(Place::record("link", &link.name), failure);
        let Some(id) = self.links.get(&link.name).copied() else { return Ok(()) };
        let (added, removed) = (added_paths.clone(), removed_paths.clone());
        let is_tight = change.is_tight();
        let changed = on_loop(&self.remotes[0], move |core| {
            let mut link = core.link(id)?;
            let remove = |link: &mut LinkMut<'_>| removed.iter().try_for_each(|path| link.remove_path(path));
            if is_tight {
                remove(&mut link)?;
            }
            added.iter().try_for_each(|path| link.add_path(path))?;
            if is_tight { Ok(()) } else { remove(&mut link) }
        });
        changed.map_err(failed)?.map_err(|error| failed(ApplyFailure::Verb(error)))
    }

    fn serve_all(&mut self, config: &Config, diff: &Diff, prepared: &mut Prepared) -> Vec<ApplyError> {
        let mut errors = Vec::new();
        for change in &diff.servers.changed {
            match bind_server(config, &change.server, &both(&change.bound, &change.closed), &[]) {
                Ok(bound) => prepared.serving.entry(change.server.name.clone()).or_default().extend(bound),
                Err(error) => errors.push(error),
            }
        }
        for (name, bounds) in std::mem::take(&mut prepared.serving) {
            let Some(made) = prepared.servers.get(&name) else { continue };
            for (place, bound) in bounds.into_iter().flat_map(each) {
                match Opened::serve(&self.remotes[0], &place, bound, made) {
                    Ok(opened) => self.servers.entry(name.clone()).or_default().push(opened),
                    Err(failure) => errors.push(ApplyError::new(Place::record("server", &name), failure)),
                }
            }
        }
        errors
    }

    fn listen_all(&mut self, config: &Config, diff: &Diff, prepared: &mut Prepared) -> Vec<ApplyError> {
        let mut errors = Vec::new();
        for change in &diff.listeners.changed {
            match bind_listener(config, &change.listener, &both(&change.bound, &change.closed), &[]) {
                Ok(bound) => prepared.listening.entry(change.listener.name.clone()).or_default().extend(bound),
                Err(error) => errors.push(error),
            }
        }
        for listener in config.all_listeners() {
            let Some(front_end) = prepared.front_ends.remove(&listener.name) else { continue };
            let link = listener.link.as_ref().and_then(|link| self.links.get(link)).copied();
            let (remotes, name) = (&self.remotes[..loops_of(config, &listener)], listener.name.clone());
            let timeouts = config.loops.timeouts.clone();
            let terms = Terms { listener: Arc::new(listener), timeouts, front_end, link };
            let failed = |failure| ApplyError::new(Place::record("listener", &name), failure);
            let opened = self.listeners.entry(name.clone()).or_default();
            errors.extend(opened.iter().filter_map(|it| it.replace(remotes, &terms).err()).map(failed));
            let bounds = prepared.listening.remove(&name).unwrap_or_default();
            if config.is_forward(&name) {
                let forwards =
                    bounds.into_iter().map(|(place, bounds)| Opened::forward(&remotes[0], &place, bounds, &terms));
                let (new, failures): (Vec<_>, Vec<_>) = forwards.partition(Result::is_ok);
                opened.extend(new.into_iter().flatten());
                errors.extend(failures.into_iter().filter_map(Result::err).map(failed));
                continue;
            }
            for (place, bound) in bounds.into_iter().flat_map(each) {
                match Opened::listen(remotes, &place, bound, &terms) {
                    Ok(new) => opened.push(new),
                    Err(failure) => errors.push(failed(failure)),
                }
            }
        }
        errors
    }

    /// Sends the clients of each listener over its link, which may have been dialed again.
    fn route_all(&self, config: &Config) {
        for listener in config.all_listeners() {
            let Some(link) = listener.link.as_ref().and_then(|link| self.links.get(link)) else { continue };
            let opened = self.listeners.get(&listener.name).into_iter().flatten();
            opened.for_each(|opened| opened.route(&self.remotes[..1], *link));
        }
    }

    fn first_loop(&self, call: impl FnOnce(&mut Loop<'_>) + Send + 'static) {
        // A loop that has ended has no links.
        let _ = on_loop(&self.remotes[0], call);
    }
}

/// Returns true if a listener is a local forward that must be opened again because its link is dialed again.
fn is_reopened(config: &Config, listener: &Listener, prepared: &Prepared) -> bool {
    let is_its = |(link, _): &(Link, MadeLink)| Some(&link.name) == listener.link.as_ref();
    let is_new = !prepared.front_ends.contains_key(&listener.name);
    is_new && config.is_forward(&listener.name) && prepared.links.iter().any(is_its)
}

/// Opens the remote forwards among `forwards` over a link.
fn open_remote_forwards(
    core: &mut Loop<'_>,
    link: Id,
    forwards: &[Forward],
) -> Vec<(String, Result<Id, DescriptorError>)> {
    let open = |forward: &Forward| match &forward.service {
        Service::Remote(to) => {
            let name = Some(forward.name.clone());
            let config = ForwardConfig { name, ..ForwardConfig::remote(link, forward.listen.clone(), to.clone()) };
            Some((forward.name.clone(), core.open_forward(config)))
        }
        Service::Local(_) => None,
    };
    forwards.iter().filter_map(open).collect()
}

/// Binds the addresses of forwards that were closed with their link.
fn bind_again(config: &Config, reopened: Vec<(String, Bind, Bind)>, prepared: &mut Prepared) -> Vec<ApplyError> {
    let mut errors = Vec::new();
    let listeners = config.all_listeners();
    for (name, place, bound) in reopened {
        let Some(listener) = listeners.iter().find(|listener| listener.name == name) else { continue };
        match bind_listener(config, listener, &[bound], &[]) {
            Ok(bounds) => {
                let bounds = bounds.into_iter().flat_map(|(_, bounds)| bounds).collect();
                prepared.listening.entry(name).or_default().push((place, bounds));
            }
            Err(error) => errors.push(error),
        }
    }
    errors
}

/// Returns the number of addresses of each loop, by which the loops divide the limits of the process.
fn weights(config: &Config) -> Vec<usize> {
    let served: usize = config.servers.iter().map(|server| server.addresses.len()).sum();
    let listeners = config.all_listeners();
    let in_loop = |number: usize| {
        let here = listeners.iter().filter(|listener| number < loops_of(config, listener));
        here.map(|listener| listener.addresses.len()).sum::<usize>() + if number == 0 { served } else { 0 }
    };
    (0..config.threads.max(1)).map(in_loop).collect()
}

/// Returns the number of loops that a listener is in.
fn loops_of(config: &Config, listener: &Listener) -> usize {
    if listener.link.is_some() { 1 } else { config.threads.max(1) }
}

/// Binds the addresses of a listener, without those in `later`.
fn bind_listener(config: &Config, listener: &Listener, places: &[Bind], later: &[Bind]) -> Result<Bounds, ApplyError> {
    let LoopConfig { limits, nodelay, tcp_keepalive, .. } = &config.loops;
    let options = LoopConfig {
        limits: crate::Limits { backlog: listener.backlog.unwrap_or(limits.backlog), ..limits.clone() },
        nodelay: listener.nodelay.unwrap_or(*nodelay),
        tcp_keepalive: listener.tcp_keepalive.unwrap_or(*tcp_keepalive),
        ..config.loops.clone()
    };
    let place = Place::record("listener", &listener.name);
    bind_all(&place, places, later, |addr| bind(addr, loops_of(config, listener), &options))
}

/// Binds the addresses of a server for its kind of carrier, without those in `later`.
fn bind_server(config: &Config, server: &Server, places: &[Bind], later: &[Bind]) -> Result<Bounds, ApplyError> {
    let carrier = server.carrier.unwrap_or(config.node.carrier);
    bind_all(&Place::record("server", &server.name), places, later, |addr| carrier.bind(addr, &config.loops))
}

fn bind_all(
    place: &Place,
    addresses: &[Bind],
    later: &[Bind],
    bind: impl Fn(&Bind) -> io::Result<Vec<Bound>>,
) -> Result<Bounds, ApplyError> {
    let now = addresses.iter().filter(|addr| !later.contains(addr));
    let one = |addr: &Bind| match bind(addr) {
        Ok(bounds) => Ok((addr.clone(), bounds)),
        Err(error) => Err(ApplyError::new(place.field("listen"), ApplyFailure::Bind(addr.clone(), error))),
    };
    now.map(one).collect()
}

fn close_at(
    opened: &mut BTreeMap<String, Vec<Opened>>,
    name: &str,
    places: &[Bind],
    remotes: &[Remote],
    links: LinksOfServer,
) {
    let Some(all) = opened.get_mut(name) else { return };
    let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(all).into_iter().partition(|it| places.contains(&it.place));
    gone.iter().for_each(|it| it.close(remotes, links));
    *all = left;
    if all.is_empty() {
        opened.remove(name);
    }
}

/// Returns the addresses that are closed and bound again.
fn both(bound: &[Bind], closed: &[Bind]) -> Vec<Bind> {
    bound.iter().filter(|addr| closed.contains(addr)).cloned().collect()
}

fn each((place, bounds): (Bind, Vec<Bound>)) -> impl Iterator<Item = (Bind, Bound)> {
    bounds.into_iter().map(move |bound| (place.clone(), bound))
}

/// Bound addresses, each with the address of the configuration that it belongs to.
type Bounds = Vec<(Bind, Vec<Bound>)>;
