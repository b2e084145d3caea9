//! A running process: loops, and the configuration that is in effect. [`Running::apply`] puts another one into effect and
//! touches only what differs.
//!
//! ```text
//!   make front ends and policies   an error changes nothing
//!   bind new addresses             an error changes nothing
//!   hand over                      an address that moves from one listener to another keeps its sockets and their backlog
//!   close what is gone             listeners, servers, links; the connections of a closed listener live on
//!   bind what had to wait          new addresses that were in use by those that are closed now
//!   dial, listen, serve            what is new, and what has changed
//!   restore                        closed addresses, if the one that they were closed for cannot be bound
//! ```
//! A part that fails stays in the difference, and the next call tries it again. A listener whose link cannot be dialed is not
//! opened, because its clients would go directly.
//!
//! Links, served links, and the listeners whose clients go over a link are in the first loop; all other listeners are in
//! every loop. No method may be called in the thread of a loop, because it waits for the loops.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::apply_error::{ApplyError, ApplyErrors, ApplyFailure};
use super::diff::{Diff, LinkChange};
use super::effect::{Effect, Settings};
use super::link::{Forward, Link, Server, Service};
use super::listener::Listener;
use super::maker::{MadeFrontEnd, MadeLink, MadeServer, Maker};
use super::moves::Move;
use super::on_loop::{Opened, Terms, on_loop, refused};
use super::sockets::{Bounds, Closed, Owner, Patience, bind_listener, bind_server, loops_of};
use super::{Config, FrontEndConfig, Place};
use crate::engine::bound::Bound;
use crate::engine::control::Loop;
use crate::engine::mailbox::Remote;
use crate::engine::threads::Loops;
use crate::engine::workers::Workers;
use crate::node::{ForwardConfig, LinksOfServer};
use crate::types::address::{Bind, Endpoint};
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::verb_error::VerbError;

use prepare::Prepared;

/// A process whose loops run.
pub struct Running {
    /// The configuration in effect, without parts that have failed.
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

impl Running {
    /// Starts the loops of a process, and puts the configuration into effect. Returns the process, and its loops for
    /// [`Loops::join`].
    ///
    /// # Errors
    /// The problems of the configuration, or the parts that cannot be made, bound or started. The loops have ended then.
    pub fn start(
        config: Config,
        maker: Arc<dyn Maker>,
        workers: &Arc<Workers>,
    ) -> Result<(Running, Loops), ApplyErrors> {
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
        running.check(&config)?;
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
    /// The problems of the configuration, or all parts that cannot be made or bound; nothing has changed then. If a loop cannot take a part over, if a link cannot be dialed, or if an address cannot be bound after another one is closed for
    /// it, all other changes are made first. [`Running::config`] lacks the parts that have failed, and the same
    /// configuration can be applied again.
    pub fn apply(&mut self, config: Config) -> Result<Diff, ApplyErrors> {
        let diff = Diff::between(&self.config, &config);
        self.check(&config)?;
        let config = config.with_restarts_of(&self.config);
        let prepared = self.prepare(&config, &diff)?;
        self.put_into_effect(config, diff, prepared)
    }

    /// Returns the configuration in effect. Parts that could not be put into effect are missing, or as before.
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

    fn check(&self, config: &Config) -> Result<(), ApplyErrors> {
        let problems = config.validate(&*self.maker);
        if problems.is_empty() {
            return Ok(());
        }
        Err(ApplyError::new(Place::root(), ApplyFailure::Invalid(problems)).into())
    }

    /// Returns the addresses that are open, and that a change closes.
    fn closing(&self, diff: &Diff) -> Vec<Closed> {
        let removed = diff.listeners.removed.iter().map(|it| (&it.name, &it.addresses));
        let changed = diff.listeners.changed.iter().map(|it| (&it.listener.name, &it.closed));
        let listeners = removed.chain(changed).map(|(name, places)| (Owner::Listener(name.clone()), places));
        let removed = diff.servers.removed.iter().map(|it| (&it.name, &it.addresses));
        let changed = diff.servers.changed.iter().map(|it| (&it.server.name, &it.closed));
        let servers = removed.chain(changed).map(|(name, places)| (Owner::Server(name.clone()), places));
        let mut closing: Vec<Closed> = Vec::new();
        for (owner, places) in listeners.chain(servers) {
            for opened in self.opened(&owner).iter().filter(|opened| places.contains(&opened.place)) {
                match closing.iter_mut().find(|it| it.owner == owner && it.place == opened.place) {
                    Some(same) => same.addrs.extend(opened.addrs.iter().cloned()),
                    None => closing.push(Closed {
                        owner: owner.clone(),
                        place: opened.place.clone(),
                        addrs: opened.addrs.clone(),
                    }),
                }
            }
        }
        closing
    }

    fn opened(&self, owner: &Owner) -> &[Opened] {
        let opened = match owner {
            Owner::Listener(name) => self.listeners.get(name),
            Owner::Server(name) => self.servers.get(name),
        };
        opened.map_or(&[], Vec::as_slice)
    }

    /// Makes the changes. The errors are returned after all changes that could be made.
    fn put_into_effect(&mut self, config: Config, diff: Diff, mut prepared: Prepared) -> Result<Diff, ApplyErrors> {
        let old = self.config.clone();
        let mut effect = Effect::new(&old, &config);
        if diff.is_default_changed {
            self.set_defaults(&config, &mut effect);
        }
        let moves = std::mem::take(&mut prepared.moves);
        for it in &moves {
            move_at(&mut self.listeners, &it.from, &it.place, &it.to);
        }
        let closed = self.closing(&diff);
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
            self.dial(&link, made, &mut effect);
        }
        for change in diff.links.changed.iter().filter(|change| !change.is_redialed) {
            self.change_link(change, &mut effect);
            self.change_forwards(change, &mut effect);
        }
        bind_again(&config, reopened, &mut prepared, &mut effect);
        let unbound = bind_later(&config, &mut prepared, &mut effect);
        self.serve_all(&mut prepared, &mut effect);
        self.listen_all(&config, &mut prepared, &moves, &mut effect);
        self.restore(&closed, &unbound, &mut effect);
        self.route_all(&config);
        let (config, errors) = effect.finish(|owner, place| self.opened(owner).iter().any(|it| it.place == *place));
        self.maker.commit(&config.all_listeners(), &config.links, &config.servers);
        self.config = config;
        if errors.is_empty() { Ok(diff) } else { Err(ApplyErrors { errors, is_unchanged: false }) }
    }

    /// Gives all loops the timers and settings of connections that no listener accepts.
    fn set_defaults(&self, config: &Config, effect: &mut Effect<'_>) {
        for remote in &self.remotes {
            let loops = config.loops.clone();
            let set = on_loop(remote, move |core| core.set_defaults(&loops));
            let set = set.and_then(|result| result.map_err(ApplyFailure::Verb));
            if effect.note(set.map_err(|failure| ApplyError::new(Place::root(), failure))).is_none() {
                effect.lacks_defaults();
            }
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
    fn dial(&mut self, link: &Link, made: MadeLink, effect: &mut Effect<'_>) {
        let failed = |failure| ApplyError::new(Place::record("link", &link.name), failure);
        let forwards: Vec<Forward> = link.forwards.clone();
        let dialed = on_loop(&self.remotes[0], move |core| {
            let dialed = core.connect_link(made())?;
            if !dialed.is_new {
                // Two owners would close it for each other.
                return Err(VerbError::Already);
            }
            Ok((dialed.id, open_remote_forwards(core, dialed.id, &forwards)))
        });
        let dialed = dialed.and_then(|result| result.map_err(ApplyFailure::Verb)).map_err(failed);
        match effect.note(dialed) {
            Some((id, opened)) => {
                self.links.insert(link.name.clone(), id);
                self.note_forwards(link, opened, effect);
            }
            None => effect.lacks_link(&link.name),
        }
    }

    /// Closes and opens the remote forwards of a link that lives on.
    fn change_forwards(&mut self, change: &LinkChange, effect: &mut Effect<'_>) {
        let gone = change.closed().filter_map(|forward| self.remote_forwards.remove(&forward.name));
        let gone: Vec<Id> = gone.collect();
        let new: Vec<Forward> = change.opened().cloned().collect();
        let names: Vec<String> = new.iter().map(|forward| forward.name.clone()).collect();
        let Some(id) = self.links.get(&change.link.name).copied() else { return };
        let opened = on_loop(&self.remotes[0], move |core| {
            // A forward that is over need not be closed.
            gone.into_iter().for_each(|id| _ = core.forward(id).and_then(|mut forward| forward.close()));
            open_remote_forwards(core, id, &new)
        });
        let failed = |failure| ApplyError::new(Place::record("link", &change.link.name), failure);
        match effect.note(opened.map_err(failed)) {
            Some(opened) => self.note_forwards(&change.link, opened, effect),
            None => names.iter().for_each(|name| effect.lacks_remote_forward(&change.link.name, name)),
        }
    }

    /// Notes the remote forwards that were opened.
    fn note_forwards(
        &mut self,
        link: &Link,
        opened: Vec<(String, Result<Id, DescriptorError>)>,
        effect: &mut Effect<'_>,
    ) {
        for (name, id) in opened {
            let place = Place::record("link", &link.name).within("forward", &name);
            match effect.note(id.map_err(|error| ApplyError::new(place, refused(error)))) {
                Some(id) => drop(self.remote_forwards.insert(name, id)),
                None => effect.lacks_remote_forward(&link.name, &name),
            }
        }
    }

    /// Changes the paths of a link that lives on. The new paths come first if there is room for them, so that the link is
    /// never without one.
    fn change_link(&self, change: &LinkChange, effect: &mut Effect<'_>) {
        let LinkChange { link, added_paths, removed_paths, .. } = change;
        let failed = |failure| ApplyError::new(Place::record("link", &link.name), failure);
        let Some(id) = self.links.get(&link.name).copied() else { return };
        let (added, removed) = (added_paths.clone(), removed_paths.clone());
        let is_tight = change.is_tight();
        let changed = on_loop(&self.remotes[0], move |core| {
            // The numbers of paths that were added and removed before the first error.
            let mut done = [0, 0];
            let result = core.link(id).and_then(|mut link| {
                for removes in [is_tight, !is_tight] {
                    let paths = if removes { &removed } else { &added };
                    for path in paths {
                        if removes { link.remove_path(path) } else { link.add_path(path) }?;
                        done[usize::from(removes)] += 1;
                    }
                }
                Ok(())
            });
            (done, result)
        });
        let Some((done, result)) = effect.note(changed.map_err(failed)) else {
            return effect.has_paths(change, &[], &[]);
        };
        if effect.note(result.map_err(|error| failed(ApplyFailure::Verb(error)))).is_none() {
            effect.has_paths(change, &added_paths[..done[0]], &removed_paths[..done[1]]);
        }
    }

    fn serve_all(&mut self, prepared: &mut Prepared, effect: &mut Effect<'_>) {
        for (name, bounds) in std::mem::take(&mut prepared.serving) {
            let Some(made) = prepared.servers.get(&name) else { continue };
            self.serve(&name, bounds, made, Settings::New, effect);
        }
    }

    fn serve(&mut self, name: &str, bounds: Bounds, made: &MadeServer, settings: Settings, effect: &mut Effect<'_>) {
        for (place, bound) in bounds.into_iter().flat_map(each) {
            let served = Opened::serve(&self.remotes[0], &place, bound, made);
            match effect.note(served.map_err(|failure| ApplyError::new(Place::record("server", name), failure))) {
                Some(opened) => self.servers.entry(name.to_owned()).or_default().push(opened),
                None => {
                    close_at(&mut self.servers, name, &[place], &self.remotes, LinksOfServer::GoOn);
                    effect.mark(Owner::Server(name.to_owned()), settings);
                }
            }
        }
    }

    fn listen_all(&mut self, config: &Config, prepared: &mut Prepared, moves: &[Move], effect: &mut Effect<'_>) {
        for listener in config.all_listeners() {
            let Some(front_end) = prepared.front_ends.remove(&listener.name) else { continue };
            let name = listener.name.clone();
            let bounds = prepared.listening.remove(&name).unwrap_or_default();
            let terms = self.terms(config, listener, front_end);
            let terms = terms.map_err(|failure| ApplyError::new(Place::record("listener", &name), failure));
            let Some(terms) = effect.note(terms) else {
                // The sockets are closed, and the clients of open ones go over the link as before.
                self.keep(&name, moves, effect);
                continue;
            };
            let remotes = &self.remotes[..loops_of(config, &terms.listener)];
            let opened = self.listeners.get(&name).into_iter().flatten();
            let mut replaced = opened.map(|it| it.replace(remotes, &terms));
            let replaced = replaced.find_map(Result::err).map_or(Ok(()), Err);
            if effect
                .note(replaced.map_err(|failure| ApplyError::new(Place::record("listener", &name), failure)))
                .is_none()
            {
                self.keep(&name, moves, effect);
            }
            self.open(&terms, config.is_forward(&name), bounds, Settings::New, effect);
        }
    }

    /// Returns the terms of a listener.
    ///
    /// # Errors
    /// Its link could not be dialed.
    fn terms(&self, config: &Config, listener: Listener, front_end: MadeFrontEnd) -> Result<Terms, ApplyFailure> {
        let link = match &listener.link {
            Some(name) => Some(*self.links.get(name).ok_or_else(|| ApplyFailure::NoLink(name.clone()))?),
            None => None,
        };
        Ok(Terms { listener: Arc::new(listener), timeouts: config.loops.timeouts.clone(), front_end, link })
    }

    /// Keeps the old settings at the addresses where a listener listens, and gives back those that others have handed over.
    fn keep(&mut self, name: &str, moves: &[Move], effect: &mut Effect<'_>) {
        for it in moves.iter().filter(|it| it.to == name) {
            move_at(&mut self.listeners, &it.to, &it.place, &it.from);
            effect.mark(Owner::Listener(it.from.clone()), Settings::Old);
        }
        let owner = Owner::Listener(name.to_owned());
        let settings = if self.opened(&owner).is_empty() { Settings::New } else { Settings::Old };
        effect.mark(owner, settings);
    }

    /// Opens the bound addresses of a listener or a local forward.
    fn open(&mut self, terms: &Terms, is_forward: bool, bounds: Bounds, settings: Settings, effect: &mut Effect<'_>) {
        let name = terms.listener.name.clone();
        let remotes = if terms.link.is_some() { &self.remotes[..1] } else { &self.remotes[..] };
        for (place, bounds) in bounds {
            let opened: Result<Vec<Opened>, ApplyFailure> = if is_forward {
                Opened::forward(&remotes[0], &place, bounds, terms).map(|opened| vec![opened])
            } else {
                Opened::listen_each(remotes, &place, bounds, terms)
            };
            match effect.note(opened.map_err(|failure| ApplyError::new(Place::record("listener", &name), failure))) {
                Some(opened) => self.listeners.entry(name.clone()).or_default().extend(opened),
                None => effect.mark(Owner::Listener(name.clone()), settings),
            }
        }
    }

    /// Opens the closed addresses again that were closed for an address that cannot be bound, with their old settings.
    fn restore(&mut self, closed: &[Closed], unbound: &[(Owner, Bind)], effect: &mut Effect<'_>) {
        for it in closed {
            let is_own = |(owner, place): &(Owner, Bind)| *owner == it.owner && *place == it.place;
            if !unbound.iter().any(|one| it.hinders(&one.1) || is_own(one)) {
                continue;
            }
            effect.mark(it.owner.clone(), Settings::Old);
            let restored = match &it.owner {
                Owner::Listener(name) => self.restore_listener(name, it, effect),
                Owner::Server(name) => self.restore_server(name, it, effect),
            };
            effect.note(restored);
        }
    }

    fn restore_listener(&mut self, name: &str, it: &Closed, effect: &mut Effect<'_>) -> Result<(), ApplyError> {
        let mut all = self.config.all_listeners().into_iter();
        let Some(listener) = all.find(|listener| listener.name == name) else { return Ok(()) };
        let place = Place::record("listener", name);
        let bounds = Patience::begin().bind(|| bind_listener(&self.config, &listener, &it.bound_place()))?;
        let front_end = self.maker.front_end(&listener).map_err(ApplyError::made(place.clone()))?;
        let terms = self.terms(&self.config, listener, front_end);
        let terms = terms.map_err(|failure| ApplyError::new(place, failure))?;
        let is_forward = self.config.is_forward(name);
        self.open(&terms, is_forward, vec![(it.place.clone(), bounds)], Settings::Old, effect);
        Ok(())
    }

    fn restore_server(&mut self, name: &str, it: &Closed, effect: &mut Effect<'_>) -> Result<(), ApplyError> {
        let Some(server) = self.config.servers.iter().find(|server| server.name == name) else { return Ok(()) };
        let server = self.config.resolved_server(server);
        let bounds = Patience::begin().bind(|| bind_server(&self.config, &server, &it.bound_place()))?;
        let made = self.maker.serve(&server).map_err(ApplyError::made(Place::record("server", name)))?;
        self.serve(name, vec![(it.place.clone(), bounds)], &made, Settings::Old, effect);
        Ok(())
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
fn bind_again(config: &Config, reopened: Vec<(String, Bind, Bind)>, prepared: &mut Prepared, effect: &mut Effect<'_>) {
    let (listeners, patience) = (config.all_listeners(), Patience::begin());
    for (name, place, bound) in reopened {
        let Some(listener) = listeners.iter().find(|listener| listener.name == name) else { continue };
        match effect.note(patience.bind(|| bind_listener(config, listener, &bound))) {
            Some(bounds) => prepared.listening.entry(name).or_default().push((place, bounds)),
            None => effect.mark(Owner::Listener(name), Settings::New),
        }
    }
}

/// Binds the addresses that had to wait until others are closed. Returns those that cannot be bound.
fn bind_later(config: &Config, prepared: &mut Prepared, effect: &mut Effect<'_>) -> Vec<(Owner, Bind)> {
    let (listeners, mut unbound) = (config.all_listeners(), Vec::new());
    let patience = Patience::begin();
    for (owner, place) in std::mem::take(&mut prepared.later) {
        let (bounds, all) = match &owner {
            Owner::Listener(name) => {
                let listener = listeners.iter().find(|listener| listener.name == *name);
                let bounds = listener.map(|it| patience.bind(|| bind_listener(config, it, &place)));
                (bounds, prepared.listening.entry(name.clone()))
            }
            Owner::Server(name) => {
                let server = config.servers.iter().find(|server| server.name == *name);
                let bounds = server.map(|it| patience.bind(|| bind_server(config, it, &place)));
                (bounds, prepared.serving.entry(name.clone()))
            }
        };
        match bounds.and_then(|bounds| effect.note(bounds)) {
            Some(bounds) => all.or_default().push((place, bounds)),
            None => {
                effect.mark(owner.clone(), Settings::New);
                unbound.push((owner, place));
            }
        }
    }
    unbound
}

/// Returns the number of addresses of each loop, by which the loops divide the limits of the process. The parts stay as they
/// are until a restart: a loop that has no address at the start has one connection for listeners that come later.
fn weights(config: &Config) -> Vec<usize> {
    let served: usize = config.servers.iter().map(|server| server.addresses.len()).sum();
    let listeners = config.all_listeners();
    let in_loop = |number: usize| {
        let here = listeners.iter().filter(|listener| number < loops_of(config, listener));
        here.map(|listener| listener.addresses.len()).sum::<usize>() + if number == 0 { served } else { 0 }
    };
    (0..config.threads.max(1)).map(in_loop).collect()
}

/// Moves an address from one listener to another.
fn move_at(listeners: &mut BTreeMap<String, Vec<Opened>>, from: &str, place: &Bind, to: &str) {
    let Some(all) = listeners.get_mut(from) else { return };
    let (moved, left): (Vec<_>, Vec<_>) = std::mem::take(all).into_iter().partition(|it| it.place == *place);
    *all = left;
    if all.is_empty() {
        listeners.remove(from);
    }
    listeners.entry(to.to_owned()).or_default().extend(moved);
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

fn each((place, bounds): (Bind, Vec<Bound>)) -> impl Iterator<Item = (Bind, Bound)> {
    bounds.into_iter().map(move |bound| (place.clone(), bound))
}

mod prepare;
