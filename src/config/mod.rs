//! The configuration of a process: one typed tree with any number of listeners and links.
//!
//! Flags, the environment, files and programs fill in a [`Config`]. [`Config::validate`] checks it as a whole,
//! [`Diff::between`] compares two of them, and [`Running::apply`] puts a tree into effect: it starts a process, and later
//! changes it while it runs.
//!
//! ```text
//!   Config ── process-wide: threads, workers, limits, timers, drain, admin server, access, the key of the node
//!     ├── Listener "web"     addresses, front end with its options, rules, users, timers, route over a link
//!     ├── Link "home"        servers, paths, key of the peer, mode, subflows ── Forward "db", "ssh"
//!     └── Server "links"     addresses, file of authorized keys
//! ```
//!
//! Each default is the value of `Config::default()`, or of the `new` of a record: help and manual print these values. A
//! record inherits what it leaves open from the process.
//!
//! This room knows no front end and no file format. A front end is a name with typed options; a [`Maker`] makes front ends
//! and the policies of links from the tree.

mod admin;
mod apply_error;
mod diff;
mod effect;
mod front_end;
mod link;
mod listener;
mod maker;
mod moves;
mod on_loop;
mod permitted;
mod place;
mod problem;
mod running;
mod sockets;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

pub use crate::engine::limits::Config as LoopConfig;

pub use admin::Admin;
pub use apply_error::{ApplyError, ApplyErrors, ApplyFailure};
pub use diff::{Changes, Diff, LinkChange, ListenerChange, Rename, ServerChange, Summary};
pub use front_end::{FrontEndConfig, FrontEndOption, FrontEnds, OptionKind, OptionValue};
pub use link::{
    ExpectedKey, Forward, KeySource, Link, LinkPaths, NodeConfig, PathRoom, Pin, PinError, SERVICE_LINKS, Server,
    Service,
};
pub use listener::{Access, Listener, ProxyDatagrams, ProxyProtocol, ProxyVersion, Timers, Users};
pub use maker::{MadeFrontEnd, MadeLink, MadeServer, MakeError, Maker};
pub use place::Place;
pub use problem::Problem;
pub use running::{Listening, PreparedChange, Preparer, Running};

use crate::auth::{ConfigDirectory, Modes};
use crate::engine::bound::Bound;
use crate::relay::dial::Egress;

/// The configuration of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Number of loops, each with one thread.
    pub threads: usize,
    /// Number of threads that resolve names.
    pub workers: usize,
    /// Time for connections to end by themselves before the process stops.
    pub drain: Duration,
    /// The socket on which the process answers questions about its status.
    pub status: StatusSocket,
    /// The admin server.
    pub admin: Admin,
    /// The script of the console that a process runs beside its services. The library carries its path, and does not run it.
    pub console_script: Option<PathBuf>,
    /// The directory of the files of keys that the tree does not name; none for the default directory of the user.
    pub directory: Option<PathBuf>,
    /// The check of owner and mode of the files that the tree names.
    pub modes: Modes,
    /// Limits and timers of the loops. The timers, the families and the socket options are the defaults of listeners.
    pub loops: LoopConfig,
    /// The rules and users of listeners that have none of their own.
    pub access: Access,
    /// The source address and the interface of connections to dests, for listeners that have none of their own.
    pub egress: Egress,
    /// The key of this node, and the defaults of its links.
    pub node: NodeConfig,
    /// The listeners with a front end.
    pub listeners: Vec<Listener>,
    /// The links that this node dials.
    pub links: Vec<Link>,
    /// The addresses on which peers may dial links.
    pub servers: Vec<Server>,
}

/// The socket on which a process answers `seaprox status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StatusSocket {
    /// A socket of its own in the user's runtime directory.
    #[default]
    PerProcess,
    /// The socket with this path.
    At(PathBuf),
    /// No socket.
    Off,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            threads: 1,
            workers: 8,
            drain: Duration::from_secs(30),
            status: StatusSocket::default(),
            admin: Admin::default(),
            console_script: None,
            directory: None,
            modes: Modes::default(),
            loops: LoopConfig::default(),
            access: Access::default(),
            egress: Egress::default(),
            node: NodeConfig::default(),
            listeners: Vec::new(),
            links: Vec::new(),
            servers: Vec::new(),
        }
    }
}

impl Config {
    /// Returns the directory of the files of keys that the tree does not name.
    pub fn config_directory(&self) -> ConfigDirectory {
        match &self.directory {
            Some(path) => ConfigDirectory::at(path),
            None => ConfigDirectory::find(|name| std::env::var_os(name)),
        }
    }

    /// Binds the addresses of a listener, for a loop that a program runs itself. See [`Listener::listen_config`].
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind_listener(&self, listener: &Listener) -> Result<Vec<Bound>, ApplyError> {
        let listener = self.resolved_listener(listener);
        let mut all = Vec::new();
        for place in &listener.addresses {
            all.extend(sockets::bind_listener(self, &listener, place)?);
        }
        Ok(all)
    }

    /// Returns the link with this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Returns true if the process has a link, dialed by either node.
    pub fn has_links(&self) -> bool {
        !self.links.is_empty() || !self.servers.is_empty()
    }

    /// Returns all listeners with everything that they inherit from the process: those of the tree, and one for each local
    /// forward of a link.
    pub fn all_listeners(&self) -> Vec<Listener> {
        let forward = |link: &Link, forward: &Forward| match &forward.service {
            Service::Local(front_end) => {
                let listener = Listener::new(&forward.name, vec![forward.listen.clone()], front_end.clone());
                let proxy_protocol = ProxyProtocol { send: link.proxy_protocol_send, ..ProxyProtocol::default() };
                Some(Listener { link: Some(link.name.clone()), proxy_protocol, ..listener })
            }
            Service::Remote(_) => None,
        };
        let forwards = self.links.iter().flat_map(|link| link.forwards.iter().filter_map(move |it| forward(link, it)));
        let all = self.listeners.iter().cloned().chain(forwards);
        all.map(|listener| self.resolved_listener(&listener)).collect()
    }

    /// Returns true if a local forward of a link has this name.
    pub(crate) fn is_forward(&self, name: &str) -> bool {
        let is_it = |forward: &Forward| forward.name == name && matches!(forward.service, Service::Local(_));
        self.links.iter().flat_map(|link| &link.forwards).any(is_it)
    }

    /// Returns this configuration with other names of links and servers.
    pub(crate) fn renamed(mut self, renames: &[Rename]) -> Config {
        let new_name = |kind: &str, name: &mut String| {
            if let Some(rename) = renames.iter().find(|it| it.kind == kind && it.from == *name) {
                name.clone_from(&rename.to);
            }
        };
        self.links.iter_mut().for_each(|link| new_name("link", &mut link.name));
        self.servers.iter_mut().for_each(|server| new_name("server", &mut server.name));
        let routes = self.listeners.iter_mut().filter_map(|listener| listener.link.as_mut());
        routes.for_each(|link| new_name("link", link));
        self
    }

    /// Returns this configuration with the fields of `old` that need a restart.
    pub(crate) fn with_restarts_of(self, old: &Config) -> Config {
        let Config { loops, node, .. } = self;
        let limits = crate::Limits { backlog: loops.limits.backlog, ..old.loops.limits.clone() };
        let timeouts = crate::Timeouts {
            happy_eyeballs: old.loops.timeouts.happy_eyeballs,
            name_cache: old.loops.timeouts.name_cache,
            keepalive_delay: old.loops.timeouts.keepalive_delay,
            descriptors_retry: old.loops.timeouts.descriptors_retry,
            ..loops.timeouts
        };
        Config {
            threads: old.threads,
            workers: old.workers,
            status: old.status.clone(),
            admin: old.admin.clone(),
            console_script: old.console_script.clone(),
            directory: old.directory.clone(),
            modes: old.modes,
            loops: LoopConfig { limits, timeouts, cpus: old.loops.cpus.clone(), ..loops },
            node: NodeConfig {
                key: old.node.key.clone(),
                ciphers: old.node.ciphers.clone(),
                groups: old.node.groups.clone(),
                ..node
            },
            ..self
        }
    }

    /// Returns the listener with everything that it inherits from the process.
    pub fn resolved_listener(&self, listener: &Listener) -> Listener {
        let LoopConfig { limits, timeouts, family, nodelay, tcp_keepalive, unix_mode, unix_owner, mark: _, cpus: _ } =
            &self.loops;
        Listener {
            rules: Some(listener.rules.clone().unwrap_or_else(|| self.access.rules.clone())),
            users: Some(listener.users.clone().unwrap_or_else(|| self.access.users.clone())),
            timers: listener.timers.over(timeouts),
            backlog: listener.backlog.or(Some(limits.backlog)),
            family: listener.family.or(Some(*family)),
            nodelay: listener.nodelay.or(Some(*nodelay)),
            tcp_keepalive: listener.tcp_keepalive.or(Some(*tcp_keepalive)),
            unix_mode: listener.unix_mode.or(*unix_mode),
            unix_owner: listener.unix_owner.clone().or_else(|| unix_owner.clone()),
            egress: Some(listener.egress.clone().unwrap_or_else(|| self.egress.clone())),
            ..listener.clone()
        }
    }

    /// Returns the link with everything that it inherits from the process.
    pub fn resolved_link(&self, link: &Link) -> Link {
        Link {
            carrier: link.carrier.or(Some(self.node.carrier)),
            mode: link.mode.or(Some(self.node.mode)),
            timing: link.timing.clone().or_else(|| Some(self.node.timing.clone())),
            ..link.clone()
        }
    }

    /// Returns the served links with everything that they inherit from the process.
    pub fn resolved_server(&self, server: &Server) -> Server {
        Server {
            carrier: server.carrier.or(Some(self.node.carrier)),
            mode: server.mode.or(Some(self.node.mode)),
            timing: server.timing.clone().or_else(|| Some(self.node.timing.clone())),
            ..server.clone()
        }
    }
}

#[cfg(test)]
mod tests;
