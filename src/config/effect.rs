//! The configuration that comes into effect: the new one, without the parts that have failed. They stay in the difference,
//! so that applying the same configuration again tries them again.

use std::collections::BTreeMap;

use super::apply_error::ApplyError;
use super::diff::LinkChange;
use super::link::{Forward, Link, LinkPaths, Service};
use super::listener::Listener;
use super::sockets::Owner;
use super::{Config, Server};
use crate::node::Path;
use crate::types::address::Bind;

/// The configuration that comes into effect.
pub(super) struct Effect<'a> {
    old: &'a Config,
    new: &'a Config,
    config: Config,
    errors: Vec<ApplyError>,
    /// The records that do not have all their addresses, or not their new settings.
    partial: BTreeMap<Owner, Settings>,
}

/// The settings that a record has after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settings {
    Old,
    New,
}

impl<'a> Effect<'a> {
    /// Creates the effect of a configuration without failures.
    pub fn new(old: &'a Config, new: &'a Config) -> Effect<'a> {
        Effect { old, new, config: new.clone(), errors: Vec::new(), partial: BTreeMap::new() }
    }

    /// Notes an error, if there is one.
    pub fn note<T>(&mut self, result: Result<T, ApplyError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    /// Notes that not all loops have the timers and settings of the process.
    pub fn lacks_defaults(&mut self) {
        self.config.loops = self.old.loops.clone();
    }

    /// Notes that a link is not there.
    pub fn lacks_link(&mut self, name: &str) {
        self.config.links.retain(|link| link.name != name);
    }

    /// Notes that a link is as before, because it could not be changed. Its local forwards are the new ones, and it has lost
    /// the remote ones that it was to lose.
    pub fn keeps_link(&mut self, name: &str) {
        let Some(old) = self.old.link(name).cloned() else { return };
        let is_remote = |forward: &Forward| matches!(forward.service, Service::Remote(_));
        if let Some(link) = self.config.links.iter_mut().find(|link| link.name == name) {
            let (remote, local): (Vec<_>, Vec<_>) = std::mem::take(&mut link.forwards).into_iter().partition(is_remote);
            let stays = |forward: &&Forward| is_remote(forward) && remote.iter().any(|it| it.name == forward.name);
            let forwards = local.into_iter().chain(old.forwards.iter().filter(stays).cloned()).collect();
            *link = Link { forwards, ..old };
        }
    }

    /// Notes that the peer of a link does not listen for this forward.
    pub fn lacks_remote_forward(&mut self, link: &str, name: &str) {
        if let Some(link) = self.link(link) {
            link.forwards.retain(|forward| forward.name != name || matches!(forward.service, Service::Local(_)));
        }
    }

    /// Notes that a link has its old servers, because not all new ones could be dialed.
    pub fn has_servers_as_before(&mut self, name: &str) {
        let Some(before) = self.old.link(name).map(|link| (link.peers.clone(), link.links_max)) else { return };
        self.link(name).into_iter().for_each(|link| (link.peers, link.links_max) = before.clone());
    }

    /// Notes the paths that were added and removed, because not all could be.
    pub fn has_paths(&mut self, change: &LinkChange, added: &[Path], removed: &[Path]) {
        let Some(LinkPaths::List(before)) = self.old.link(&change.link.name).map(|link| link.paths.clone()) else {
            return;
        };
        let left = before.into_iter().filter(|path| !removed.contains(path));
        let paths = LinkPaths::List(left.chain(added.iter().cloned()).collect());
        self.link(&change.link.name).into_iter().for_each(|link| link.paths = paths.clone());
    }

    /// Notes that a listener or a local forward has these settings, and listens only on those of its addresses that `is_open`
    /// accepts.
    fn has_listener(&mut self, name: &str, settings: Settings, is_open: impl Fn(&Bind) -> bool) {
        let place = self.config.listeners.iter().position(|listener| listener.name == name);
        self.config.listeners.retain(|listener| listener.name != name);
        for link in &mut self.config.links {
            link.forwards.retain(|forward| !is_local(forward, name));
        }
        let of_name = |config: &Config| config.listeners.iter().find(|listener| listener.name == name).cloned();
        let old = of_name(self.old).map(|listener| self.old.resolved_listener(&listener));
        let (mine, other) = match settings {
            Settings::Old => (old, of_name(self.new)),
            Settings::New => (of_name(self.new), old),
        };
        let Some(mine) = mine else { return self.has_forward(name, settings, is_open) };
        let mut addresses: Vec<Bind> = mine.addresses.iter().filter(|addr| is_open(addr)).cloned().collect();
        let others = other.into_iter().flat_map(|other| other.addresses).filter(|addr| is_open(addr));
        let others: Vec<Bind> = others.filter(|addr| !addresses.contains(addr)).collect();
        addresses.extend(others);
        if !addresses.is_empty() {
            let place = place.unwrap_or(self.config.listeners.len());
            self.config.listeners.insert(place, Listener { addresses, ..mine });
        }
    }

    fn has_forward(&mut self, name: &str, settings: Settings, is_open: impl Fn(&Bind) -> bool) {
        let config = if settings == Settings::Old { self.old } else { self.new };
        for link in &config.links {
            let its = link.forwards.iter().filter(|it| is_local(it, name) && is_open(&it.listen));
            for forward in its {
                self.link(&link.name).into_iter().for_each(|link| link.forwards.push(forward.clone()));
            }
        }
    }

    /// Notes that a server accepts links only on those of its addresses that `is_open` accepts.
    fn has_server(&mut self, name: &str, settings: Settings, is_open: impl Fn(&Bind) -> bool) {
        self.config.servers.retain(|server| server.name != name);
        let of_name = |config: &Config| config.servers.iter().find(|server| server.name == name).cloned();
        let old = of_name(self.old).map(|server| self.old.resolved_server(&server));
        let mine = if settings == Settings::Old { old } else { of_name(self.new) };
        let Some(mine) = mine else { return };
        let others = [self.old, self.new].into_iter().filter_map(of_name).flat_map(|server| server.addresses);
        let mut addresses: Vec<Bind> = Vec::new();
        for addr in mine.addresses.iter().cloned().chain(others).filter(|addr| is_open(addr)) {
            if !addresses.contains(&addr) {
                addresses.push(addr);
            }
        }
        if !addresses.is_empty() {
            self.config.servers.push(Server { addresses, ..mine });
        }
    }

    /// Notes that a record lacks an address, or has its old settings at one of them.
    pub fn mark(&mut self, owner: Owner, settings: Settings) {
        let present = self.partial.entry(owner).or_insert(settings);
        if settings == Settings::Old {
            *present = settings;
        }
    }

    /// Returns the configuration in effect, and the errors. `is_open` tells if a record listens on an address.
    pub fn finish(mut self, is_open: impl Fn(&Owner, &Bind) -> bool) -> (Config, Vec<ApplyError>) {
        for (owner, settings) in std::mem::take(&mut self.partial) {
            match &owner {
                Owner::Listener(name) => self.has_listener(name, settings, |addr| is_open(&owner, addr)),
                Owner::Server(name) => self.has_server(name, settings, |addr| is_open(&owner, addr)),
            }
        }
        (self.config, self.errors)
    }

    fn link(&mut self, name: &str) -> Option<&mut Link> {
        self.config.links.iter_mut().find(|link| link.name == name)
    }
}

fn is_local(forward: &Forward, name: &str) -> bool {
    forward.name == name && matches!(forward.service, Service::Local(_))
}
