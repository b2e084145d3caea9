//! The first step of a change: parts are made and addresses are bound before anything changes, so that an error changes
//! nothing.

use std::collections::BTreeMap;

use super::Running;
use crate::config::apply_error::{ApplyError, ApplyErrors};
use crate::config::diff::{Diff, LinkChange};
use crate::config::link::Link;
use crate::config::listener::Listener;
use crate::config::maker::{MadeFrontEnd, MadeLink, MadeServer};
use crate::config::moves::{Move, moves};
use crate::config::sockets::{Bounds, Owner, bind_all, bind_listener, bind_server};
use crate::config::{Config, Place};
use crate::types::address::Bind;

/// Parts that were made and bound before anything changes.
#[derive(Default)]
pub(super) struct Prepared {
    pub front_ends: BTreeMap<String, MadeFrontEnd>,
    pub links: Vec<(Link, MadeLink)>,
    pub servers: BTreeMap<String, MadeServer>,
    /// The sockets of each listener and of each server that were bound so far, with the address that they belong to.
    pub listening: BTreeMap<String, Bounds>,
    pub serving: BTreeMap<String, Bounds>,
    /// Addresses that are bound after others are closed.
    pub later: Vec<(Owner, Bind)>,
    /// Addresses that move from one listener to another.
    pub moves: Vec<Move>,
}

/// The parts that have been prepared so far, and the errors of the others.
struct Preparation<'a> {
    config: &'a Config,
    diff: &'a Diff,
    prepared: Prepared,
    errors: Vec<ApplyError>,
}

impl Running {
    /// Makes the parts that are new, and binds their addresses. An address that must be closed first is bound later.
    ///
    /// # Errors
    /// All parts that cannot be made, and all addresses that cannot be bound.
    pub(super) fn prepare(&self, config: &Config, diff: &Diff) -> Result<Prepared, ApplyErrors> {
        let mut preparation = Preparation { config, diff, prepared: Prepared::default(), errors: Vec::new() };
        preparation.prepared.moves = moves(&self.config, config, diff);
        preparation.make_links(self);
        preparation.make_servers(self);
        preparation.make_front_ends(self);
        preparation.bind(self);
        let Preparation { prepared, errors, .. } = preparation;
        if errors.is_empty() {
            return Ok(prepared);
        }
        self.maker.discard();
        Err(ApplyErrors::before(errors))
    }
}

impl Preparation<'_> {
    /// Notes an error, if there is one.
    fn note<T>(&mut self, result: Result<T, ApplyError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    fn make_links(&mut self, running: &Running) {
        let is_made = |change: &&LinkChange| change.is_redialed || change.is_renewed;
        let changed = self.diff.links.changed.iter().filter(is_made).map(|change| &change.link);
        for link in self.diff.links.added.iter().chain(changed) {
            let made = running.maker.dial(link).map_err(ApplyError::made(Place::record("link", &link.name)));
            let made = self.note(made).map(|made| (link.clone(), made));
            self.prepared.links.extend(made);
        }
    }

    fn make_servers(&mut self, running: &Running) {
        let changed = self.diff.servers.changed.iter().map(|change| &change.server);
        for server in self.diff.servers.added.iter().chain(changed) {
            let made = running.maker.serve(server).map_err(ApplyError::made(Place::record("server", &server.name)));
            let made = self.note(made).map(|made| (server.name.clone(), made));
            self.prepared.servers.extend(made);
        }
    }

    fn make_front_ends(&mut self, running: &Running) {
        let changed = self.diff.listeners.changed.iter().map(|change| &change.listener);
        for listener in self.diff.listeners.added.iter().chain(changed) {
            self.make_front_end(running, listener);
        }
    }

    fn make_front_end(&mut self, running: &Running, listener: &Listener) {
        let place = Place::record("listener", &listener.name);
        let made = running.maker.front_end(listener).map_err(ApplyError::made(place));
        let made = self.note(made).map(|made| (listener.name.clone(), made));
        self.prepared.front_ends.extend(made);
    }

    /// Binds the new addresses, except those that another listener hands over.
    fn bind(&mut self, running: &Running) {
        let (config, closing) = (self.config, running.closing(self.diff));
        let added = self.diff.servers.added.iter().map(|server| (server, &server.addresses[..], &[][..]));
        let changed = self.diff.servers.changed.iter().map(|it| (&it.server, &it.bound[..], &it.closed[..]));
        for (server, places, own) in added.chain(changed) {
            let (bounds, later, errors) = bind_all(places, own, &closing, |place| bind_server(config, server, place));
            self.errors.extend(errors);
            self.prepared.serving.insert(server.name.clone(), bounds);
            self.prepared.later.extend(later.into_iter().map(|place| (Owner::Server(server.name.clone()), place)));
        }
        let added = self.diff.listeners.added.iter().map(|listener| (listener, &listener.addresses[..], &[][..]));
        let changed = self.diff.listeners.changed.iter().map(|it| (&it.listener, &it.bound[..], &it.closed[..]));
        for (listener, places, own) in added.chain(changed) {
            let moves = &self.prepared.moves;
            let is_moved = |place: &Bind| moves.iter().any(|it| it.to == listener.name && it.place == *place);
            let places: Vec<Bind> = places.iter().filter(|place| !is_moved(place)).cloned().collect();
            let bind = |place: &Bind| bind_listener(config, listener, place);
            let (bounds, later, errors) = bind_all(&places, own, &closing, bind);
            self.errors.extend(errors);
            self.prepared.listening.insert(listener.name.clone(), bounds);
            self.prepared.later.extend(later.into_iter().map(|place| (Owner::Listener(listener.name.clone()), place)));
        }
    }
}
