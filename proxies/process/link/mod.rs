//! The links of this process, as the command line asks for them: its key, the peer that it dials, the peers that may dial it.
//!
//! [`Links`] is created once, before any loop runs, and then shared: the loop dials and accepts links with it, the supervisor
//! reads its files again.

mod approvals;
mod authorized_peers;
mod dialed_peer;
mod instance;
mod link_log;
mod path_file;
pub mod prompt;
mod rejected_keys;
#[cfg(test)]
mod scratch;
mod served_links;

use std::io;
use std::sync::Arc;

use seaprox::auth::{ConfigDirectory, KeysError, Modes, NodeKey, PublicKey, Secret};
use seaprox::config::{Config, ExpectedKey, Forward, KeySource, Link, LinkPaths, Server, Service};
use seaprox::link::Mode;
use seaprox::node::{Identity, LinkConfig, OnLinkEvent, Path, PeerKey, Policy, Request, Reverse, ServeConfig, Timing};
use seaprox::{Bound, Id, Loop};

pub use approvals::Approvals;
pub use link_log::{Action, LinkLog};
pub use path_file::PathChange;
pub use served_links::ServedLinks;

use super::exit::{Exit, Failed};
use crate::cli::{Parsed, addresses};
use crate::shared_file::Refresh;
use authorized_peers::AuthorizedPeers;
use dialed_peer::DialedPeer;
use instance::Instance;
use path_file::PathFile;

/// The links of this process.
pub struct Links {
    identity: Identity,
    public: PublicKey,
    mode: Mode,
    timing: Timing,
    dialed: Option<DialedLink>,
    authorized: Option<Arc<AuthorizedPeers>>,
    _instance: Instance,
}

/// The link that this process dials.
struct DialedLink {
    peer: Arc<DialedPeer>,
    route: Route,
    exits: bool,
}

/// The paths to the peer, and the listeners that the peer is asked for.
struct Route {
    paths: PathSource,
    subflows: usize,
    reverse: Vec<Reverse>,
}

/// The source of the paths.
enum PathSource {
    List(Vec<Path>),
    File(Box<PathFile>),
}

/// The files of keys.
struct KeyFiles<'a> {
    config: &'a Config,
    directory: ConfigDirectory,
}

impl Links {
    /// Creates the links of a configuration. Returns none if it has no link.
    ///
    /// # Errors
    /// Fails if a file of keys cannot be used, or if the user is to be asked without a terminal.
    pub fn new(parsed: &Parsed, config: &Config) -> Result<Option<Links>, Failed> {
        if !config.has_links() {
            return Ok(None);
        }
        let server = config.servers.first();
        let asks = server.is_some_and(|server| server.asks);
        if asks && !prompt::can_ask() {
            return Err(parsed.error("--ask: expected a terminal on stdin and stderr, to ask there").into());
        }
        let files = KeyFiles { config, directory: config.config_directory() };
        let route = config.links.first().map(|link| Route::new(config, link)).transpose()?;
        let (key, shared) = files.key()?;
        let dialed = match (config.links.first(), route) {
            (Some(link), Some(route)) => {
                let peer = Arc::new(files.dialed_peer(link, shared)?);
                Some(DialedLink { peer, route, exits: link.exits_on_failure })
            }
            _ => None,
        };
        let authorized = server.map(|server| files.authorized_peers(server, shared)).transpose()?;
        let authorized = authorized.map(|authorized| Arc::new(authorized.asking(asks)));
        let instance = Instance::of(parsed.command(), key.public());
        let node = &config.node;
        let identity = Identity { ciphers: node.ciphers.clone(), instance: instance.number, ..Identity::new(&key) };
        let (mode, timing) = (node.mode, node.timing.clone());
        Ok(Some(Links { identity, public: key.public(), mode, timing, dialed, authorized, _instance: instance }))
    }

    /// Returns the peer that this process dials.
    pub fn peer(&self) -> Option<&Arc<DialedPeer>> {
        self.dialed.as_ref().map(|dialed| &dialed.peer)
    }

    /// Returns the key of this node if peers dial it and need to know its key.
    pub fn announced_key(&self) -> Option<PublicKey> {
        self.authorized.as_ref().map(|_| self.public)
    }

    /// Returns a log of the dialed link, if a link is dialed.
    pub fn link_log(&self) -> Option<LinkLog> {
        let DialedLink { peer, route, exits } = self.dialed.as_ref()?;
        let paths = route.paths.current().len();
        Some(LinkLog::new(Arc::clone(peer), self.public, paths, &route.reverse).exiting(*exits))
    }

    /// Returns a log of the links that peers dial, if this process accepts any.
    pub fn served_links(&self) -> Option<ServedLinks> {
        Some(ServedLinks::new(Arc::clone(self.authorized.as_ref()?)))
    }

    /// Remembers the user's answer about a request of a peer.
    pub fn remember(&self, key: &PeerKey, request: &Request, is_permitted: bool) {
        self.authorized.iter().for_each(|authorized| authorized.remember(key, request, is_permitted));
    }

    /// Returns the question to the user about a request of a peer.
    pub fn question(&self, key: &PeerKey, request: &Request) -> String {
        let name = self.authorized.as_ref().map_or_else(String::new, |authorized| authorized.name(key));
        format!("{name} ({}) wants this node to {request}. May it (yes/no)? ", fingerprint(key))
    }

    /// Dials the link. Returns its id, or none if no link is dialed.
    ///
    /// # Errors
    /// Fails if the loop cannot use the configuration.
    pub fn dial(&self, core: &mut Loop<'_>, handler: OnLinkEvent) -> io::Result<Option<Id>> {
        let Some(DialedLink { peer, route, .. }) = &self.dialed else { return Ok(None) };
        let policy: Arc<dyn Policy> = Arc::<DialedPeer>::clone(peer);
        let config = LinkConfig {
            paths: route.paths.current(),
            subflows: route.subflows,
            mode: self.mode,
            reverse: route.reverse.clone(),
            timing: self.timing.clone(),
            on_event: handler,
            ..LinkConfig::new(self.identity.clone(), policy, peer.target().clone())
        };
        let dialed =
            core.connect_link(config).map_err(|error| with_context(&error.into(), "the link cannot be dialed"))?;
        Ok(Some(dialed.id))
    }

    /// Accepts links at a bound address.
    ///
    /// # Errors
    /// Fails if the socket or the key cannot be used.
    pub fn serve(&self, core: &mut Loop<'_>, bound: &mut Bound, handler: OnLinkEvent) -> io::Result<()> {
        let Some(authorized) = &self.authorized else { return Ok(()) };
        let policy: Arc<dyn Policy> = Arc::<AuthorizedPeers>::clone(authorized);
        let (mode, timing) = (self.mode, self.timing.clone());
        let config = ServeConfig { mode, timing, on_event: handler, ..ServeConfig::new(self.identity.clone(), policy) };
        let serve = core.serve_links(bound, config).map_err(io::Error::from);
        serve.map(drop).map_err(|error| with_context(&error, "links cannot be accepted"))
    }

    /// Reads the files of keys again. Returns true if the permissions of running links must be checked again.
    ///
    /// # Errors
    /// Fails if a file cannot be read or parsed; its previous keys stay in use.
    pub fn refresh_keys(&self, refresh: Refresh) -> Result<bool, KeysError> {
        let authorized = self.authorized.as_ref().map_or(Ok(false), |authorized| {
            // A forgotten answer may have permitted a listener.
            let had_answers = matches!(refresh, Refresh::Forced) && authorized.forget_answers();
            authorized.refresh(refresh).map(|is_new| is_new || had_answers)
        });
        let peer = self.peer().map_or(Ok(false), |peer| peer.refresh(refresh));
        Ok(authorized? | peer?)
    }

    /// Reads the file of paths again, if there is one. Returns the change, if any.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed; its previous paths stay in use.
    pub fn refresh_paths(&self, refresh: Refresh) -> Result<Option<PathChange>, KeysError> {
        match self.dialed.as_ref().map(|dialed| &dialed.route.paths) {
            Some(PathSource::File(file)) => file.refresh(refresh),
            Some(PathSource::List(_)) | None => Ok(None),
        }
    }
}

impl PathSource {
    fn current(&self) -> Vec<Path> {
        match self {
            PathSource::List(paths) => paths.clone(),
            PathSource::File(file) => file.paths(),
        }
    }
}

impl Route {
    fn new(config: &Config, link: &Link) -> Result<Route, Failed> {
        let remote = |forward: &Forward| match &forward.service {
            Service::Remote(to) => Some(Reverse { listen: forward.listen.clone(), to: to.clone() }),
            Service::Local(_) => None,
        };
        let (subflows, reverse) = (link.subflows, link.forwards.iter().filter_map(remote).collect());
        let paths = match &link.paths {
            LinkPaths::List(paths) => PathSource::List(paths.clone()),
            LinkPaths::File(file) => {
                let port = link.peer.port().unwrap_or(addresses::PORT);
                let paths_max = config.node.timing.subflows / subflows;
                let file = PathFile::load(file.clone(), port, paths_max, config.modes).map_err(unusable)?;
                PathSource::File(Box::new(file))
            }
        };
        Ok(Route { paths, subflows, reverse })
    }
}

impl KeyFiles<'_> {
    /// Returns the key of this node, and the same key if it is derived from a shared secret.
    fn key(&self) -> Result<(NodeKey, Option<PublicKey>), Failed> {
        let modes = self.config.modes;
        let path = match &self.config.node.key {
            KeySource::Secret(file) => {
                let key = shared_key(file, modes)?;
                let public = key.public();
                return Ok((key, Some(public)));
            }
            KeySource::File(file) => file.clone().unwrap_or_else(|| self.directory.key()),
        };
        let (key, is_new) = NodeKey::load_or_create(&path, modes).map_err(unusable)?;
        if is_new {
            let (file, key) = (path.display().to_string(), key.public().fingerprint());
            log::info!(target: "seaprox::link", file = file, key = key; "key of this node created");
        }
        Ok((key, None))
    }

    fn dialed_peer(&self, link: &Link, shared: Option<PublicKey>) -> Result<DialedPeer, Failed> {
        let target = link.peer.clone();
        match (shared, &link.expected_key) {
            (Some(key), _) => Ok(DialedPeer::with_secret(target, key)),
            (None, ExpectedKey::Pinned(pin)) => Ok(DialedPeer::pinned(target, pin.clone())),
            (None, ExpectedKey::Known(file)) => {
                let file = file.clone().unwrap_or_else(|| self.directory.known_nodes());
                DialedPeer::known(target, &file, self.config.modes).map_err(unusable)
            }
        }
    }

    /// Returns the peers that may dial this node. With a shared secret, `authorized_keys` is read only if it is named.
    fn authorized_peers(&self, server: &Server, shared: Option<PublicKey>) -> Result<AuthorizedPeers, Failed> {
        let named = server.authorized_keys.clone();
        let file = named.or_else(|| shared.is_none().then(|| self.directory.authorized_keys()));
        let authorized = AuthorizedPeers::new(file.as_deref(), shared, self.config.modes).map_err(unusable)?;
        let (keys, file) = authorized.count();
        let file = file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        match keys {
            0 => log::warn!(target: "seaprox::link", file = file; "no key is authorized, so no peer can link"),
            _ => log::info!(target: "seaprox::link", file = file, keys = keys; "keys authorized"),
        }
        Ok(authorized)
    }
}

/// Returns the fingerprint of a key that a peer has shown.
fn fingerprint(key: &PeerKey) -> String {
    PublicKey::from_bytes(*key).map_or_else(|_| "a weak key".to_owned(), |key| key.fingerprint())
}

fn shared_key(path: &std::path::Path, modes: Modes) -> Result<NodeKey, Failed> {
    let secret = Secret::load(path, modes).map_err(unusable)?;
    let text = |error| format!("seaprox: {}: {error}", path.display());
    NodeKey::from_secret(secret.expose()).map_err(|error| Failed::new(Exit::Config, text(error)))
}

fn unusable(error: KeysError) -> Failed {
    Failed::unusable("seaprox", &error)
}

fn with_context(error: &io::Error, context: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{context}: {error}"))
}
