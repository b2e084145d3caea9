//! The first step of a change: parts are made and addresses are bound before anything changes, so that an error changes
//! nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Addresses, closing, rename_servers};
use crate::config::apply_error::{ApplyError, ApplyErrors, ApplyFailure};
use crate::config::diff::{Diff, LinkChange};
use crate::config::link::Link;
use crate::config::listener::Listener;
use crate::config::maker::{MadeFrontEnd, MadeLink, MadeServer, Maker};
use crate::config::moves::{Move, moves};
use crate::config::permitted::{check_carriers, check_listener, check_process};
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

/// A change that was prepared: its parts are made, and the addresses that are free are bound. A change that is dropped closes
/// them again.
pub struct PreparedChange {
    config: Config,
    diff: Diff,
    prepared: Prepared,
    /// The number of changes before this one.
    of: u64,
    unused: Unused,
}

/// Tells the maker, when it is dropped, that parts which were not put into effect are unused.
pub(super) struct Unused(Arc<dyn Maker>);

/// Is called with a record.
type OnRecord = Box<dyn Fn(&Place) + Send>;

/// Prepares one change of a running process. It reads files and resolves names, and so may wait for long.
pub struct Preparer {
    /// The configuration in effect.
    config: Config,
    maker: Arc<dyn Maker>,
    listeners: Addresses,
    servers: Addresses,
    of: u64,
    /// Called with each record before it is made or bound.
    on_record: Option<OnRecord>,
    /// False if the parts are made for a check only.
    binds: bool,
}

impl Preparer {
    pub(super) fn new(
        config: Config,
        maker: Arc<dyn Maker>,
        listeners: Addresses,
        servers: Addresses,
        of: u64,
    ) -> Preparer {
        Preparer { config, maker, listeners, servers, of, on_record: None, binds: true }
    }

    /// Makes all parts of a configuration and drops them again: files of keys, users and paths are read, no address is bound,
    /// and nothing is dialed.
    ///
    /// # Errors
    /// The problems of the configuration, or all parts that cannot be made.
    pub fn check(config: Config, maker: Arc<dyn Maker>) -> Result<(), ApplyErrors> {
        let nothing = Config { listeners: Vec::new(), links: Vec::new(), servers: Vec::new(), ..config.clone() };
        let preparer = Preparer::new(nothing, maker, BTreeMap::new(), BTreeMap::new(), 0);
        Preparer { binds: false, ..preparer }.prepare(config).map(drop)
    }

    /// Calls `on_record` with each record before its parts are made and before its addresses are bound.
    pub fn telling(self, on_record: impl Fn(&Place) + Send + 'static) -> Preparer {
        Preparer { on_record: Some(Box::new(on_record)), ..self }
    }

    /// Makes the parts that are new, and binds their addresses. An address that must be closed first is bound later.
    ///
    /// # Errors
    /// The problems of the configuration, or all parts that cannot be made, and all addresses that cannot be bound.
    pub fn prepare(mut self, config: Config) -> Result<PreparedChange, ApplyErrors> {
        let diff = Diff::between(&self.config, &config);
        let problems = config.validate(&*self.maker);
        if !problems.is_empty() {
            return Err(ApplyError::new(Place::root(), ApplyFailure::Invalid(problems)).into());
        }
        let config = config.with_restarts_of(&self.config);
        self.config = self.config.renamed(&diff.renames);
        rename_servers(&mut self.servers, &diff.renames);
        let unused = Unused(Arc::clone(&self.maker));
        let mut preparation =
            Preparation { config: &config, diff: &diff, prepared: Prepared::default(), errors: Vec::new() };
        preparation.prepared.moves = moves(&self.config, &config, &diff);
        if self.binds {
            preparation.note(check_process(&config));
        }
        preparation.make_links(&self);
        preparation.make_servers(&self);
        preparation.make_front_ends(&self);
        // The sockets of a transport that this system lacks would fail for the same reason.
        if self.binds && preparation.note(check_carriers(&config)).is_some() {
            preparation.bind(&self);
        }
        let Preparation { prepared, errors, .. } = preparation;
        if errors.is_empty() {
            return Ok(PreparedChange { config, diff, prepared, of: self.of, unused });
        }
        Err(ApplyErrors::before(errors))
    }

    fn tell(&self, place: &Place) {
        self.on_record.iter().for_each(|on_record| on_record(place));
    }
}

impl PreparedChange {
    /// Returns the configuration that the change puts into effect.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the number of changes before this one.
    pub(super) fn of(&self) -> u64 {
        self.of
    }

    /// Returns the parts. The maker keeps its own.
    pub(super) fn into_parts(self) -> (Config, Diff, Prepared, Unused) {
        (self.config, self.diff, self.prepared, self.unused)
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        // After a commit there is nothing to discard.
        self.0.discard();
    }
}

impl Preparation<'_> {
    /// Notes an error, if there is one.
    fn note<T>(&mut self, result: Result<T, ApplyError>) -> Option<T> {
        result.map_err(|error| self.errors.push(error)).ok()
    }

    fn make_links(&mut self, preparer: &Preparer) {
        let is_made = |change: &&LinkChange| change.is_redialed || change.is_renewed;
        let changed = self.diff.links.changed.iter().filter(is_made).map(|change| &change.link);
        for link in self.diff.links.added.iter().chain(changed) {
            let place = Place::record("link", &link.name);
            preparer.tell(&place);
            let made = preparer.maker.dial(link).map_err(ApplyError::made(place));
            let made = self.note(made).map(|made| (link.clone(), made));
            self.prepared.links.extend(made);
        }
    }

    fn make_servers(&mut self, preparer: &Preparer) {
        let changed = self.diff.servers.changed.iter().map(|change| &change.server);
        for server in self.diff.servers.added.iter().chain(changed) {
            let place = Place::record("server", &server.name);
            preparer.tell(&place);
            let made = preparer.maker.serve(server).map_err(ApplyError::made(place));
            let made = self.note(made).map(|made| (server.name.clone(), made));
            self.prepared.servers.extend(made);
        }
    }

    fn make_front_ends(&mut self, preparer: &Preparer) {
        let changed = self.diff.listeners.changed.iter().map(|change| &change.listener);
        for listener in self.diff.listeners.added.iter().chain(changed) {
            self.make_front_end(preparer, listener);
        }
    }

    fn make_front_end(&mut self, preparer: &Preparer, listener: &Listener) {
        let place = Place::record("listener", &listener.name);
        preparer.tell(&place);
        let made = preparer.maker.front_end(listener).map_err(ApplyError::made(place));
        let made = made.and_then(|made| match preparer.binds {
            true => check_listener(listener, &made).map(|()| made),
            false => Ok(made),
        });
        let made = self.note(made).map(|made| (listener.name.clone(), made));
        self.prepared.front_ends.extend(made);
    }

    /// Binds the new addresses, except those that another listener hands over.
    fn bind(&mut self, preparer: &Preparer) {
        let (config, closing) = (self.config, closing(&preparer.listeners, &preparer.servers, self.diff));
        let added = self.diff.listeners.added.iter().map(|listener| (listener, &listener.addresses[..], &[][..]));
        let changed = self.diff.listeners.changed.iter().map(|it| (&it.listener, &it.bound[..], &it.closed[..]));
        for (listener, places, own) in added.chain(changed) {
            let moves = &self.prepared.moves;
            let is_moved = |place: &Bind| moves.iter().any(|it| it.to == listener.name && it.place == *place);
            let places: Vec<Bind> = places.iter().filter(|place| !is_moved(place)).cloned().collect();
            let bind = |place: &Bind| {
                preparer.tell(&Place::record("listener", &listener.name).field("listen"));
                bind_listener(config, listener, place)
            };
            let (bounds, later, errors) = bind_all(&places, own, &closing, bind);
            self.errors.extend(errors);
            self.prepared.listening.insert(listener.name.clone(), bounds);
            self.prepared.later.extend(later.into_iter().map(|place| (Owner::Listener(listener.name.clone()), place)));
        }
        // The last ones: a server does without a port of UDP that a listener has.
        let added = self.diff.servers.added.iter().map(|server| (server, &server.addresses[..], &[][..]));
        let changed = self.diff.servers.changed.iter().map(|it| (&it.server, &it.bound[..], &it.closed[..]));
        for (server, places, own) in added.chain(changed) {
            let bind = |place: &Bind| {
                preparer.tell(&Place::record("server", &server.name).field("listen"));
                bind_server(config, server, place)
            };
            let (bounds, later, errors) = bind_all(places, own, &closing, bind);
            self.errors.extend(errors);
            self.prepared.serving.insert(server.name.clone(), bounds);
            self.prepared.later.extend(later.into_iter().map(|place| (Owner::Server(server.name.clone()), place)));
        }
    }
}
