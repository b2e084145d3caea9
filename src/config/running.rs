//! A running process: loops, and the configuration that is in effect. [`Running::apply`] puts another one into effect and
//! touches only what differs.
//!
//! ```text
//!   make front ends and policies   an error changes nothing
//!   bind new addresses             an error changes nothing; clients wait there from now on
//!   hand over                      an address that moves from one listener to another keeps its sockets and their backlog
//!   close addresses                that are gone; the connections of a closed listener live on
//!   dial                           new links, and changed ones beside those whose place they take
//!   bind what had to wait          new addresses that were in use by those that are closed now
//!   serve, listen                  what is new; what has changed gets its new settings at the sockets that it has
//!   restore                        closed addresses, if the one that they were closed for cannot be bound
//!   close links                    that are gone, when no listener sends clients over them any more
//! ```
//! A part that fails stays in the difference, and the next call tries it again. A listener whose link cannot be dialed is not
//! opened, because its clients would go directly. A link that cannot be dialed again stays as it was.
//!
//! Links, served links, and the listeners whose clients go over a link are in the first loop; all other listeners are in
//! every loop. No method may be called in the thread of a loop, because it waits for the loops.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::apply_error::{ApplyError, ApplyErrors, ApplyFailure};
use super::diff::{Diff, Rename};
use super::effect::Effect;
use super::link::Server;
use super::listener::Listener;
use super::maker::Maker;
use super::on_loop::{Opened, on_loop};
use super::sockets::{Closed, Owner, loops_of};
use super::{Config, FrontEndConfig, Place};
use crate::engine::control::Loop;
use crate::engine::mailbox::Remote;
use crate::engine::shares::Share;
use crate::engine::threads::{Loops, share, some_weight};
use crate::engine::workers::Workers;
use crate::node::LinksOfServer;
use crate::types::address::{Bind, Endpoint};
use crate::types::id::Id;

use listeners::bind_later;
use prepare::Prepared;
pub use prepare::{PreparedChange, Preparer};

/// A process whose loops run.
pub struct Running {
    /// The configuration in effect, without parts that have failed.
    config: Config,
    maker: Arc<dyn Maker>,
    remotes: Vec<Remote>,
    /// The bound addresses of listeners and local forwards, by name.
    listeners: Addresses,
    /// The bound addresses for links that peers dial, by the name of the server.
    servers: Addresses,
    /// The groups of the links that this node dials, by name. A link to one server is the only link of its group.
    links: BTreeMap<String, Id>,
    /// The forwards for which peers listen, by name.
    remote_forwards: BTreeMap<String, Id>,
    /// The share that each loop has of the limits.
    shares: Vec<Share>,
    /// The number of changes, which tells that a change was prepared for an earlier configuration.
    changes: u64,
}

/// The bound addresses of records, by name.
type Addresses = BTreeMap<String, Vec<Opened>>;

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
        let mut running = Running::of_nothing(&config, maker);
        let change = running.preparer().prepare(config)?;
        let config = change.config();
        let failed = |error| ApplyError::new(Place::root(), ApplyFailure::System(error));
        let loops = Loops::start_idle(&weights(config), &config.loops, Some(workers)).map_err(failed)?;
        running.remotes = loops.remotes().to_vec();
        running.shares = shares(config);
        match running.put(change) {
            Ok(_) => Ok((running, loops)),
            Err(error) => {
                running.stop();
                // The error of the start counts.
                let _ = loops.join();
                Err(error)
            }
        }
    }

    /// Puts a configuration into effect in a loop that a program runs itself, as part of it: listeners and links that the program
    /// has opened there are left alone. The loop keeps the limits that it was made with. The thread of the loop must not call
    /// this, and turns the loop meanwhile.
    ///
    /// # Errors
    /// The problems of the configuration, or the parts that cannot be made, bound or started. Nothing of it stays in the loop
    /// then.
    pub fn over(remote: &Remote, config: Config, maker: Arc<dyn Maker>) -> Result<Running, ApplyErrors> {
        let config = Config { threads: 1, ..config };
        let mut running = Running::of_nothing(&config, maker);
        let change = running.preparer().prepare(config)?;
        (running.remotes, running.shares) = (vec![remote.clone()], shares(change.config()));
        if let Err(error) = running.put(change) {
            let nothing =
                Config { listeners: Vec::new(), links: Vec::new(), servers: Vec::new(), ..running.config.clone() };
            // The first error counts.
            let _ = running.apply(nothing);
            return Err(error);
        }
        Ok(running)
    }

    fn of_nothing(config: &Config, maker: Arc<dyn Maker>) -> Running {
        Running {
            config: Config { listeners: Vec::new(), links: Vec::new(), servers: Vec::new(), ..config.clone() },
            maker,
            remotes: Vec::new(),
            listeners: BTreeMap::new(),
            servers: BTreeMap::new(),
            links: BTreeMap::new(),
            remote_forwards: BTreeMap::new(),
            shares: Vec::new(),
            changes: 0,
        }
    }

    /// Puts another configuration into effect, and returns what has changed. Changes that need a restart
    /// ([`Diff::restarts`]) are not made. Connections live on, except for those over a link that must be dialed again; addresses
    /// that stay keep their sockets and their backlogs. This call waits for the files of the parts and for the names of
    /// addresses; see [`Running::preparer`] for a caller that must not.
    ///
    /// # Errors
    /// The problems of the configuration, or all parts that cannot be made or bound; nothing has changed then. Otherwise as
    /// for [`Running::put`].
    pub fn apply(&mut self, config: Config) -> Result<Diff, ApplyErrors> {
        let change = self.preparer().prepare(config)?;
        self.put(change)
    }

    /// Returns a preparer, which does the part of a change that waits for files and names: in any thread, while this process
    /// does other work. [`Running::put`] makes the change.
    pub fn preparer(&self) -> Preparer {
        let (listeners, servers) = (self.listeners.clone(), self.servers.clone());
        Preparer::new(self.config.clone(), Arc::clone(&self.maker), listeners, servers, self.changes)
    }

    /// Makes a change that was prepared. Returns what has changed.
    ///
    /// # Errors
    /// The configuration has changed since the preparation; nothing has changed then. If a loop cannot take a part over, if a
    /// link cannot be dialed, or if an address cannot be bound after another one is closed for it, all other changes are made
    /// first. [`Running::config`] lacks the parts that have failed, and the same configuration can be applied again.
    pub fn put(&mut self, change: PreparedChange) -> Result<Diff, ApplyErrors> {
        if change.of() != self.changes {
            return Err(ApplyError::new(Place::root(), ApplyFailure::Outdated).into());
        }
        self.changes += 1;
        let (config, diff, prepared, _unused) = change.into_parts();
        self.rename(&diff.renames);
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

    /// Returns the id of the first link to a server of a link that this node dials, in the first loop.
    pub fn link(&self, name: &str) -> Option<Id> {
        self.links_of(name).first().copied()
    }

    /// Returns the ids of the links to the servers of a link that this node dials, in the first loop.
    pub fn links_of(&self, name: &str) -> Vec<Id> {
        let Some(id) = self.group(name) else { return Vec::new() };
        // A loop that has ended has no links.
        let links = on_loop(&self.remotes[0], move |core| core.group(id).map(|group| group.links()));
        links.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Returns the names of the links to all servers of a link that this node dials, also of those that have none now. None
    /// while servers are looked up for the first time, and if the loop has ended.
    pub fn server_names(&self, name: &str) -> Option<Vec<String>> {
        let (id, link) = (self.group(name)?, self.config.link(name)?);
        let servers = on_loop(&self.remotes[0], move |core| {
            let group = core.group(id).ok()?;
            let is_whole = group.status().is_ok_and(|status| !status.expects_more);
            is_whole.then(|| group.servers())
        });
        let servers = servers.ok().flatten()?;
        Some(servers.iter().map(|server| link.member_name(server)).collect())
    }

    /// Says that a link to a server is of no use as it is, so that another server takes its place; see
    /// [`GroupMut::give_way`](crate::node::GroupMut::give_way).
    pub fn give_way(&self, name: &str, link: Id) {
        let Some(id) = self.group(name) else { return };
        // A link that is up, that has ended or that leaves is in nobody's way.
        self.first_loop(move |core| _ = core.group(id).and_then(|mut group| group.give_way(link)));
    }

    /// Dials the servers again whose links were closed one by one; see
    /// [`GroupMut::dial_closed`](crate::node::GroupMut::dial_closed).
    pub fn dial_closed_links(&self) {
        let groups: Vec<Id> = self.links.values().copied().collect();
        self.first_loop(move |core| {
            // A server that cannot be dialed is tried again later.
            groups.into_iter().for_each(|id| _ = core.group(id).and_then(|mut group| group.dial_closed()));
        });
    }

    /// Returns the id of the group of a link that this node dials, in the first loop.
    pub fn group(&self, name: &str) -> Option<Id> {
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

    fn opened(&self, owner: &Owner) -> &[Opened] {
        opened(&self.listeners, &self.servers, owner)
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
        let closed = closing(&self.listeners, &self.servers, &diff);
        let stopped = self.close(&diff);
        self.change_links(&diff, &mut prepared, &mut effect);
        let unbound = bind_later(&config, &mut prepared, &mut effect);
        self.serve_all(&mut prepared, &mut effect);
        self.listen_all(&config, &mut prepared, &moves, &mut effect);
        self.restore(&closed, &unbound, &mut effect);
        self.close_links(&diff);
        self.adopt(&stopped);
        let (config, errors) = effect.finish(|owner, place| self.opened(owner).iter().any(|it| it.place == *place));
        self.maker.commit(&config.all_listeners(), &config.links, &config.servers);
        self.config = config;
        self.share_limits();
        if errors.is_empty() { Ok(diff) } else { Err(ApplyErrors { errors, is_unchanged: false }) }
    }

    /// Gives links and servers other names here. Their loops learn the names when the records are changed.
    fn rename(&mut self, renames: &[Rename]) {
        self.config = self.config.clone().renamed(renames);
        let links = std::mem::take(&mut self.links);
        self.links = links.into_iter().map(|(name, id)| (new_name(renames, "link", name), id)).collect();
        rename_servers(&mut self.servers, renames);
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

    /// Closes the addresses that are gone. Returns the servers that have stopped, and whose links live on, by their names.
    fn close(&mut self, diff: &Diff) -> BTreeMap<String, Vec<Id>> {
        let gone = diff.listeners.removed.iter().map(|listener| (&listener.name, &listener.addresses));
        let moved = diff.listeners.changed.iter().map(|change| (&change.listener.name, &change.closed));
        for (name, places) in gone.chain(moved) {
            close_at(&mut self.listeners, name, places, &self.remotes, LinksOfServer::GoOn);
        }
        for server in &diff.servers.removed {
            close_at(&mut self.servers, &server.name, &server.addresses, &self.remotes, LinksOfServer::Close);
        }
        let mut stopped = BTreeMap::new();
        for change in &diff.servers.changed {
            let name = &change.server.name;
            let gone = close_at(&mut self.servers, name, &change.closed, &self.remotes, LinksOfServer::GoOn);
            stopped.insert(name.clone(), gone.iter().filter_map(Opened::server).collect());
        }
        stopped
    }

    /// Divides the limits of the process among the loops by the addresses that they have now. Returns true if each loop has
    /// its share. Otherwise a loop uses more than its share, and gives it up as it becomes free: call this again later, such
    /// as once a second.
    pub fn share_limits(&mut self) -> bool {
        let wanted = shares(&self.config);
        if self.shares == wanted {
            return true;
        }
        // The loops that give come first, so that all of them together never have more than the process.
        for (index, share) in wanted.iter().copied().enumerate() {
            // A loop that does not answer keeps what it has.
            let lowered = on_loop(&self.remotes[index], move |core| core.lower_share(share));
            lowered.into_iter().for_each(|lowered| self.shares[index] = lowered);
        }
        let sum = |all: &[Share]| all.iter().fold(Share([0; 3]), |sum, share| sum.with(*share, usize::saturating_add));
        let mut spare = sum(&wanted).with(sum(&self.shares), usize::saturating_sub);
        for (index, share) in wanted.into_iter().enumerate() {
            let has = self.shares[index];
            let more = share.with(has, usize::saturating_sub).with(spare, usize::min);
            let raised = has.with(more, usize::saturating_add);
            if raised != has && on_loop(&self.remotes[index], move |core| core.set_share(raised)).is_ok() {
                (self.shares[index], spare) = (raised, spare.with(more, usize::saturating_sub));
            }
        }
        self.shares == shares(&self.config)
    }

    fn first_loop(&self, call: impl FnOnce(&mut Loop<'_>) + Send + 'static) {
        // A loop that has ended has no links.
        let _ = on_loop(&self.remotes[0], call);
    }
}

/// Returns the share that each loop is to have of the limits of the process.
fn shares(config: &Config) -> Vec<Share> {
    let weights = some_weight(&weights(config));
    (0..weights.len()).map(|number| Share::of(&share(&config.loops, &weights, number).limits)).collect()
}

/// Returns the number of addresses of each loop, by which the loops divide the limits of the process. A loop without an
/// address has one connection.
fn weights(config: &Config) -> Vec<usize> {
    let served: usize = config.servers.iter().map(|server| server.addresses.len()).sum();
    let listeners = config.all_listeners();
    let in_loop = |number: usize| {
        let here = listeners.iter().filter(|listener| number < loops_of(config, listener));
        here.map(|listener| listener.addresses.len()).sum::<usize>() + if number == 0 { served } else { 0 }
    };
    (0..config.threads.max(1)).map(in_loop).collect()
}

/// Returns the addresses that are open, and that a change closes.
fn closing(listeners: &Addresses, servers: &Addresses, diff: &Diff) -> Vec<Closed> {
    let removed = diff.listeners.removed.iter().map(|it| (&it.name, &it.addresses));
    let changed = diff.listeners.changed.iter().map(|it| (&it.listener.name, &it.closed));
    let of_listeners = removed.chain(changed).map(|(name, places)| (Owner::Listener(name.clone()), places));
    let removed = diff.servers.removed.iter().map(|it| (&it.name, &it.addresses));
    let changed = diff.servers.changed.iter().map(|it| (&it.server.name, &it.closed));
    let of_servers = removed.chain(changed).map(|(name, places)| (Owner::Server(name.clone()), places));
    let mut closing: Vec<Closed> = Vec::new();
    for (owner, places) in of_listeners.chain(of_servers) {
        for opened in opened(listeners, servers, &owner).iter().filter(|opened| places.contains(&opened.place)) {
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

/// Returns the open addresses of a record.
fn opened<'a>(listeners: &'a Addresses, servers: &'a Addresses, owner: &Owner) -> &'a [Opened] {
    let opened = match owner {
        Owner::Listener(name) => listeners.get(name),
        Owner::Server(name) => servers.get(name),
    };
    opened.map_or(&[], Vec::as_slice)
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

/// Closes addresses of a record. Returns them.
fn close_at(
    opened: &mut BTreeMap<String, Vec<Opened>>,
    name: &str,
    places: &[Bind],
    remotes: &[Remote],
    links: LinksOfServer,
) -> Vec<Opened> {
    let Some(all) = opened.get_mut(name) else { return Vec::new() };
    let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(all).into_iter().partition(|it| places.contains(&it.place));
    gone.iter().for_each(|it| it.close(remotes, links));
    *all = left;
    if all.is_empty() {
        opened.remove(name);
    }
    gone
}

fn rename_servers(servers: &mut Addresses, renames: &[Rename]) {
    let all = std::mem::take(servers);
    *servers = all.into_iter().map(|(name, opened)| (new_name(renames, "server", name), opened)).collect();
}

fn new_name(renames: &[Rename], kind: &str, name: String) -> String {
    let rename = renames.iter().find(|it| it.kind == kind && it.from == name);
    rename.map_or(name, |it| it.to.clone())
}

mod links;
mod listeners;
mod prepare;
mod servers;
