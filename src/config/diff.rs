//! The difference between two configurations: the records that are added, changed and removed, by their names, and the
//! changes that need a restart.
//!
//! Records are compared with everything that they inherit from the process, so a new default changes the records that use
//! it, and no others.

use super::link::{Forward, Link, LinkPaths, NodeConfig, Server, Service};
use super::listener::{Listener, Timers};
use super::sockets::loops_of;
use super::{Config, LoopConfig, Place};
use crate::node::Path;
use crate::types::address::Bind;

/// The difference between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// The process-wide fields that differ and that a running process cannot change.
    pub restarts: Vec<Place>,
    /// True if the timers, the families or the socket options of the process differ. New streams of peers get them, and so
    /// do the listeners that inherit them.
    pub is_default_changed: bool,
    /// The changes of listeners, and of local forwards.
    pub listeners: Changes<Listener, ListenerChange>,
    /// The changes of links that this node dials.
    pub links: Changes<Link, LinkChange>,
    /// The changes of links that peers dial.
    pub servers: Changes<Server, ServerChange>,
    /// The links and servers that have another name now. They count as changed, and their links live on.
    pub renames: Vec<Rename>,
}

/// Another name of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The kind of the record: `link` or `server`.
    pub kind: &'static str,
    /// The old name.
    pub from: String,
    /// The new name.
    pub to: String,
}

/// The records that a difference is about, by their places in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The new records.
    pub added: Vec<Place>,
    /// The records that differ, and the fields of the process that differ and need no restart.
    pub changed: Vec<Place>,
    /// The records that are gone.
    pub removed: Vec<Place>,
    /// The number of records that are the same.
    pub kept: usize,
}

/// The changes of records of one kind, each with everything that it inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<T, C> {
    /// The new records.
    pub added: Vec<T>,
    /// The records that differ.
    pub changed: Vec<C>,
    /// The records that are gone.
    pub removed: Vec<T>,
}

/// The change of a listener. A change never cuts a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerChange {
    /// The new listener. It replaces the front end and the settings at the addresses that stay.
    pub listener: Listener,
    /// The addresses to bind.
    pub bound: Vec<Bind>,
    /// The addresses to close.
    pub closed: Vec<Bind>,
}

/// The change of a link that this node dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// The new link.
    pub link: Link,
    /// True if the link must be closed and dialed again, which ends its connections. The listeners whose clients go over it
    /// stay open, and their clients wait for the new session.
    pub is_redialed: bool,
    /// True if the link lives on with another name, another expected key or another header of the PROXY protocol.
    pub is_renewed: bool,
    /// True if the servers differ, or the maximum of the links to them. Links to servers that stay live on.
    pub has_other_servers: bool,
    /// The new paths, if the link lives on.
    pub added_paths: Vec<Path>,
    /// The paths that are gone, if the link lives on.
    pub removed_paths: Vec<Path>,
    /// The changes of remote forwards. A changed forward holds its old and its new form.
    pub forwards: Changes<Forward, (Forward, Forward)>,
}

/// The change of links that peers dial. The links live on: their keys are judged by the new file of keys, and everything else
/// about them stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerChange {
    /// The new server.
    pub server: Server,
    /// The addresses to bind.
    pub bound: Vec<Bind>,
    /// The addresses to close.
    pub closed: Vec<Bind>,
}

impl Diff {
    /// Returns the changes that make `new` of `old`. The names of both are unique.
    pub fn between(old: &Config, new: &Config) -> Diff {
        let renames = renames(old, new);
        let renamed = old.clone().renamed(&renames);
        let old = &renamed;
        let links = |config: &Config| of(&config.links, |it| config.resolved_link(it));
        let servers = |config: &Config| of(&config.servers, |it| config.resolved_server(it));
        let is_renamed = |kind, name: &str| renames.iter().any(|it| it.kind == kind && it.to == name);
        let listener = |before: &Listener, now: &Listener| {
            let are_forwards = [old, new].map(|config| config.is_forward(&now.name));
            let loops = [before, now].map(|listener| loops_of(old, listener));
            let same_sockets = are_forwards[0] == are_forwards[1] && loops[0] == loops[1];
            let keeps = |place: &Bind| same_sockets && has_same_file(before, now, place);
            let (bound, closed) = moves(&before.addresses, &now.addresses, keeps);
            ListenerChange { listener: now.clone(), bound, closed }
        };
        let link = |before: &Link, now: &Link| {
            let change = link_change(before, now);
            LinkChange {
                is_renewed: !change.is_redialed && (change.is_renewed || is_renamed("link", &now.name)),
                ..change
            }
        };
        Diff {
            restarts: restarts(old, new),
            is_default_changed: defaults(old) != defaults(new),
            listeners: changes(&old.all_listeners(), &new.all_listeners(), |it| &it.name, |_| false, listener),
            links: changes(&links(old), &links(new), |it| &it.name, |it| is_renamed("link", &it.name), link),
            servers: changes(
                &servers(old),
                &servers(new),
                |it| &it.name,
                |it| is_renamed("server", &it.name),
                server_change,
            ),
            renames,
        }
    }

    /// Returns true if nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }

    /// Returns the records that this difference, which makes `new` of `old`, is about.
    pub fn summary(&self, old: &Config, new: &Config) -> Summary {
        let mut summary = Summary::default();
        let fields = [("drain-timeout", old.drain != new.drain), ("defaults", self.is_default_changed)];
        let fields = fields.into_iter().filter(|(_, differs)| *differs);
        summary.changed.extend(fields.map(|(field, _)| Place::root().field(field)));
        let kind = |config: &Config, name: &str| if config.is_forward(name) { "forward" } else { "listener" };
        let listener = |config: &Config, it: &Listener| Place::record(kind(config, &it.name), &it.name);
        summary.added.extend(self.listeners.added.iter().map(|it| listener(new, it)));
        summary.changed.extend(self.listeners.changed.iter().map(|it| listener(new, &it.listener)));
        summary.removed.extend(self.listeners.removed.iter().map(|it| listener(old, it)));
        let link = |it: &Link| Place::record("link", &it.name);
        summary.added.extend(self.links.added.iter().map(link));
        summary.changed.extend(self.links.changed.iter().map(|it| link(&it.link)));
        summary.removed.extend(self.links.removed.iter().map(link));
        let server = |it: &Server| Place::record("server", &it.name);
        summary.added.extend(self.servers.added.iter().map(server));
        summary.changed.extend(self.servers.changed.iter().map(|it| server(&it.server)));
        summary.removed.extend(self.servers.removed.iter().map(server));
        let all = new.all_listeners().len() + new.links.len() + new.servers.len();
        let touched = self.listeners.touched() + self.links.touched() + self.servers.touched();
        summary.kept = all.saturating_sub(touched);
        summary
    }
}

impl<T, C> Changes<T, C> {
    /// Returns the number of the records that are new or differ.
    fn touched(&self) -> usize {
        self.added.len() + self.changed.len()
    }

    /// Returns true if no record differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl<T, C> Default for Changes<T, C> {
    fn default() -> Changes<T, C> {
        Changes { added: Vec::new(), changed: Vec::new(), removed: Vec::new() }
    }
}

impl LinkChange {
    /// Returns the change that makes `new` of `old`; none if they are the same.
    pub fn between(old: &Link, new: &Link) -> Option<LinkChange> {
        (old != new).then(|| link_change(old, new))
    }

    /// Returns the remote forwards to open, in this order, if the link lives on.
    pub fn opened(&self) -> impl Iterator<Item = &Forward> {
        self.forwards.added.iter().chain(self.forwards.changed.iter().map(|(_, new)| new))
    }

    /// Returns the remote forwards to close, if the link lives on.
    pub fn closed(&self) -> impl Iterator<Item = &Forward> {
        self.forwards.removed.iter().chain(self.forwards.changed.iter().map(|(old, _)| old))
    }

    /// Returns true if the link has room for the new paths only after the others are removed.
    pub(super) fn is_tight(&self) -> bool {
        let now = match &self.link.paths {
            LinkPaths::List(paths) => &paths[..],
            LinkPaths::File(_) => &[],
        };
        // The link is resolved, so it inherits nothing.
        self.link.path_room(&NodeConfig::default()).check(&[now, &self.removed_paths].concat()).is_err()
    }
}

fn of<T>(records: &[T], resolve: impl Fn(&T) -> T) -> Vec<T> {
    records.iter().map(resolve).collect()
}

fn changes<T: Clone + PartialEq, C>(
    old: &[T],
    new: &[T],
    name: fn(&T) -> &str,
    is_renamed: impl Fn(&T) -> bool,
    change: impl Fn(&T, &T) -> C,
) -> Changes<T, C> {
    let is_in = |all: &[T], one: &T| all.iter().any(|other| name(other) == name(one));
    let added = new.iter().filter(|one| !is_in(old, one)).cloned().collect();
    let removed = old.iter().filter(|one| !is_in(new, one)).cloned().collect();
    let before = |one: &T| old.iter().find(|other| name(other) == name(one));
    let both = new.iter().filter_map(|now| before(now).map(|before| (before, now)));
    let changed = both.filter(|(before, now)| before != now || is_renamed(now));
    let changed = changed.map(|(before, now)| change(before, now)).collect();
    Changes { added, changed, removed }
}

/// Returns true if two listeners want the same file at a Unix address; other addresses have no file.
pub(super) fn has_same_file(one: &Listener, other: &Listener, place: &Bind) -> bool {
    !matches!(place, Bind::Unix(_)) || (one.unix_mode, &one.unix_owner) == (other.unix_mode, &other.unix_owner)
}

fn server_change(old: &Server, new: &Server) -> ServerChange {
    // The sockets of another kind of carrier have another protocol.
    let (bound, closed) = moves(&old.addresses, &new.addresses, |_| old.carrier == new.carrier);
    ServerChange { server: new.clone(), bound, closed }
}

fn link_change(old: &Link, new: &Link) -> LinkChange {
    let remote = |link: &Link| -> Vec<Forward> {
        link.forwards.iter().filter(|it| matches!(it.service, Service::Remote(_))).cloned().collect()
    };
    let pair = |old: &Forward, new: &Forward| (old.clone(), new.clone());
    let forwards = changes(&remote(old), &remote(new), |it| &it.name, |_| false, pair);
    let is_file = |link: &Link| matches!(link.paths, LinkPaths::File(_));
    // Links to servers that stay go on, under the names that they have.
    let servers_change = (&old.peers, old.links_max) != (&new.peers, new.links_max);
    let in_place = Link {
        expected_key: new.expected_key.clone(),
        peers: new.peers.clone(),
        links_max: new.links_max,
        paths: new.paths.clone(),
        forwards: new.forwards.clone(),
        proxy_protocol_send: new.proxy_protocol_send,
        exits_on_failure: new.exits_on_failure,
        ends: new.ends.clone(),
        ..old.clone()
    };
    // The paths of a file are those that were read last, so they cannot be compared here.
    let is_redialed = in_place != *new || (old.paths != new.paths && (is_file(old) || is_file(new)));
    let paths = |link: &Link| match &link.paths {
        LinkPaths::List(paths) if !is_redialed => paths.clone(),
        _ => Vec::new(),
    };
    let (added_paths, removed_paths) = moves(&paths(old), &paths(new), |_| true);
    let terms = |link: &Link| (link.expected_key.clone(), link.proxy_protocol_send, link.ends.clone());
    let is_renewed = !is_redialed && terms(old) != terms(new);
    let has_other_servers = servers_change && !is_redialed;
    LinkChange { link: new.clone(), is_redialed, is_renewed, has_other_servers, added_paths, removed_paths, forwards }
}

/// Returns the links that are dialed to the same peer under another name, and the servers that have an address in common
/// with one that is gone.
fn renames(old: &Config, new: &Config) -> Vec<Rename> {
    let links = renamed(&old.links, &new.links, |it| &it.name, |before, now| before.peers == now.peers);
    let is_same = |before: &Server, now: &Server| before.addresses.iter().any(|place| now.addresses.contains(place));
    let servers = renamed(&old.servers, &new.servers, |it| &it.name, is_same);
    let of_kind = |kind| move |(from, to)| Rename { kind, from, to };
    links.into_iter().map(of_kind("link")).chain(servers.into_iter().map(of_kind("server"))).collect()
}

/// Returns the old and the new names of records that are gone under the one and new under the other.
fn renamed<T>(
    old: &[T],
    new: &[T],
    name: fn(&T) -> &String,
    is_same: impl Fn(&T, &T) -> bool,
) -> Vec<(String, String)> {
    let is_in = |all: &[T], one: &T| all.iter().any(|other| name(other) == name(one));
    let mut added: Vec<&T> = new.iter().filter(|one| !is_in(old, one)).collect();
    let mut renamed = Vec::new();
    for gone in old.iter().filter(|one| !is_in(new, one)) {
        if let Some(index) = added.iter().position(|now| is_same(gone, now)) {
            renamed.push((name(gone).clone(), name(added.swap_remove(index)).clone()));
        }
    }
    renamed
}

/// Returns the new values and those that are gone; a value that cannot be kept is among both.
fn moves<T: Clone + PartialEq>(old: &[T], new: &[T], keeps: impl Fn(&T) -> bool) -> (Vec<T>, Vec<T>) {
    let without = |these: &[T], others: &[T]| -> Vec<T> {
        these.iter().filter(|one| !keeps(one) || !others.contains(one)).cloned().collect()
    };
    (without(new, old), without(old, new))
}

/// Returns the timers and the settings that a running loop can change.
fn defaults(config: &Config) -> (Timers, LoopConfig) {
    let LoopConfig { timeouts, .. } = &config.loops;
    let others = LoopConfig {
        limits: crate::Limits::default(),
        timeouts: crate::Timeouts::default(),
        cpus: Vec::new(),
        ..config.loops.clone()
    };
    (Timers::default().over(timeouts), others)
}

fn restarts(old: &Config, new: &Config) -> Vec<Place> {
    let (mine, theirs) = (&old.loops, &new.loops);
    let own_timers = |config: &LoopConfig| {
        let timeouts = &config.timeouts;
        (timeouts.happy_eyeballs, timeouts.name_cache, timeouts.keepalive_delay, timeouts.descriptors_retry)
    };
    // The backlog is an option of each listener.
    let limits = |config: &LoopConfig| crate::Limits { backlog: 0, ..config.limits.clone() };
    let fields = [
        ("threads", old.threads != new.threads),
        ("cpu", mine.cpus != theirs.cpus),
        ("workers", old.workers != new.workers),
        ("status", old.status != new.status),
        ("admin", old.admin != new.admin),
        ("console-script", old.console_script != new.console_script),
        ("config-dir", old.directory != new.directory),
        ("no-strict-modes", old.modes != new.modes),
        ("limits", limits(mine) != limits(theirs)),
        ("dns-cache", own_timers(mine) != own_timers(theirs)),
        ("key", old.node.key != new.node.key),
        ("cipher", old.node.ciphers != new.node.ciphers),
        ("key-exchange", old.node.groups != new.node.groups),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| Place::root().field(field)).collect()
}
