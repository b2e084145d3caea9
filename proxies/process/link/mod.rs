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
use std::path::PathBuf;
use std::sync::Arc;

use seaprox::auth::{ConfigDirectory, KeysError, Modes, NodeKey, PublicKey, Secret};
use seaprox::link::Mode;
use seaprox::node::{Identity, LinkConfig, OnLinkEvent, Path, PeerKey, Policy, Request, Reverse, ServeConfig, Timing};
use seaprox::{Bound, Id, Loop, Target};

pub use approvals::Approvals;
pub use link_log::{Action, LinkLog};
pub use path_file::PathChange;
pub use served_links::ServedLinks;

use super::exit::{Exit, Failed};
use crate::cli::{Command, Parsed, addresses};
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
    CommandLine(Vec<Path>),
    File(Box<PathFile>),
}

/// The files of keys.
struct KeyFiles<'a> {
    parsed: &'a Parsed,
    directory: ConfigDirectory,
    modes: Modes,
}

impl Links {
    /// Creates the links that the options ask for. Returns none if the options ask for no link.
    ///
    /// # Errors
    /// Fails if the command line is wrong, or if a file of keys cannot be used.
    pub fn from_options(parsed: &Parsed) -> Result<Option<Links>, Failed> {
        let target = parsed.peer()?;
        let accepts = parsed.command() == Command::Link && !parsed.link_addresses()?.is_empty();
        parsed.check_link_options(target.is_some(), accepts)?;
        if target.is_none() && !accepts {
            let missing = || parsed.error("expected --listen ADDR, --connect HOST[:PORT] or both").into();
            return if parsed.command() == Command::Link { Err(missing()) } else { Ok(None) };
        }
        // Errors in the command line are found before a key is made.
        let (mode, timing, ciphers) = (parsed.mode()?, parsed.timing()?, parsed.ciphers()?);
        let pin = parsed.pin()?;
        let asks = parsed.knows("ask") && parsed.flag("ask")?;
        if asks && !prompt::can_ask() {
            return Err(parsed.error("--ask: expected a terminal on stdin and stderr, to ask there").into());
        }
        let route = target.as_ref().map(|target| Route::from_options(parsed, target)).transpose()?;

        let files = KeyFiles { parsed, directory: parsed.config_directory(), modes: parsed.modes()? };
        let modes = files.modes;
        let secret = parsed.path("secret").map(|path| shared_key(&path, modes)).transpose()?;
        let shared = secret.as_ref().map(NodeKey::public);
        let key = secret.map_or_else(|| files.node_key(), Ok)?;
        let dialed = match (target, route) {
            (Some(target), Some(route)) => {
                let peer = match (shared, pin) {
                    (Some(key), _) => DialedPeer::with_secret(target, key),
                    (None, Some(pin)) => DialedPeer::pinned(target, pin),
                    (None, None) => DialedPeer::known(target, &files.known_nodes(), modes).map_err(unusable)?,
                };
                let exits = parsed.knows("exit-on-failure") && parsed.flag("exit-on-failure")?;
                Some(DialedLink { peer: Arc::new(peer), route, exits })
            }
            _ => None,
        };
        let authorized = if accepts { Some(Arc::new(files.authorized_peers(shared)?.asking(asks))) } else { None };
        let instance = Instance::of(parsed.command(), key.public());
        let identity = Identity { ciphers, instance: instance.number, ..Identity::new(&key) };
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
        core.serve_links(bound, config).map_err(|error| with_context(&error, "links cannot be accepted"))
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
            Some(PathSource::CommandLine(_)) | None => Ok(None),
        }
    }
}

impl PathSource {
    fn current(&self) -> Vec<Path> {
        match self {
            PathSource::CommandLine(paths) => paths.clone(),
            PathSource::File(file) => file.paths(),
        }
    }
}

impl Route {
    fn from_options(parsed: &Parsed, target: &Target) -> Result<Route, Failed> {
        let reverse = if parsed.command() == Command::Link { parsed.reverses()? } else { Vec::new() };
        let (paths, subflows) = (parsed.paths(target)?, parsed.number("subflows")? as usize);
        let subflows_max = Timing::default().subflows;
        if let Some(file) = parsed.path("paths") {
            let port = target.port().unwrap_or(addresses::PORT);
            let file = PathFile::load(file, port, subflows_max / subflows, parsed.modes()?).map_err(unusable)?;
            return Ok(Route { paths: PathSource::File(Box::new(file)), subflows, reverse });
        }
        if paths.len() * subflows > subflows_max {
            let text = format!(
                "--subflows {subflows} over each of {} paths: expected at most {subflows_max} subflows in total",
                paths.len()
            );
            return Err(parsed.error(text).into());
        }
        Ok(Route { paths: PathSource::CommandLine(paths), subflows, reverse })
    }
}

impl KeyFiles<'_> {
    fn node_key(&self) -> Result<NodeKey, Failed> {
        let path = self.parsed.path("key").unwrap_or_else(|| self.directory.key());
        let (key, is_new) = NodeKey::load_or_create(&path, self.modes).map_err(unusable)?;
        if is_new {
            let (file, key) = (path.display().to_string(), key.public().fingerprint());
            log::info!(target: "seaprox::link", file = file, key = key; "key of this node created");
        }
        Ok(key)
    }

    fn known_nodes(&self) -> PathBuf {
        self.parsed.path("known-nodes").unwrap_or_else(|| self.directory.known_nodes())
    }

    /// Returns the peers that may dial this node. With a shared secret, `authorized_keys` is read only if it is named.
    fn authorized_peers(&self, shared: Option<PublicKey>) -> Result<AuthorizedPeers, Failed> {
        let named = self.parsed.path("authorized-keys");
        let file = named.or_else(|| shared.is_none().then(|| self.directory.authorized_keys()));
        let authorized = AuthorizedPeers::new(file.as_deref(), shared, self.modes).map_err(unusable)?;
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
