//! Links, as the command line asks for them: who we are, whom we dial, whom we let in.
//!
//! [`Links`] is read once, before any loop runs, and then shared: the loop dials and takes in with it, the main thread reads
//! its files again. The grammar of forwards is in `forwards`, that of peers and paths in `places`; `trust` decides about
//! keys, `watch` tells the story of the link that is dialled, `visits` that of those that are taken in.

mod approvals;
mod instance;
mod link_log;
mod paths;
mod prompt;
mod rejected_keys;
#[cfg(test)]
#[path = "../../../src/auth/scratch.rs"]
#[allow(dead_code, reason = "the tests of the library use the rest")]
mod scratch;
mod served_links;
mod trust;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use seaprox::auth::{ConfigDirectory, KeysError, Modes, NodeKey, PublicKey, Secret};
use seaprox::link::Mode;
use seaprox::node::{Happened, Identity, LinkConfig, Path, PeerKey, Policy, Request, Reverse, ServeConfig, Timing};
use seaprox::{Bound, Core, Id, Target};

pub use approvals::Questions;
pub use link_log::{Act, Watch};
pub use paths::Change;
pub use prompt::{ask, ask_request, can_ask};
pub use served_links::Visits;
pub use trust::Peer;

use crate::cli::{Command, Parsed, addresses};
use crate::shared_file::Look;
use crate::{Exit, Failed};
use instance::Instance;
use paths::PathFile;
use trust::Visitors;

/// Is told what happens to links, in their loop.
pub type Told = Box<dyn FnMut(&mut Core, Id, &Happened)>;

/// What this process has to do with links.
pub struct Links {
    identity: Identity,
    public: PublicKey,
    mode: Mode,
    timing: Timing,
    dialled: Option<Dialled>,
    visitors: Option<Arc<Visitors>>,
    _instance: Instance,
}

/// The link that this process dials.
struct Dialled {
    peer: Arc<Peer>,
    paths: Ways,
    subflows: usize,
    reverse: Vec<Reverse>,
    exits: bool,
}

/// The ways to the peer.
enum Ways {
    /// As the command line says.
    Given(Vec<Path>),
    /// As a file says.
    Listed(Box<PathFile>),
}

/// Where the files are.
struct Files<'a> {
    parsed: &'a Parsed,
    directory: ConfigDirectory,
    modes: Modes,
}

impl Links {
    /// What the command line says of links; none if it says nothing.
    ///
    /// # Errors
    /// The command line is wrong, or a file of keys cannot be used.
    pub fn of(parsed: &Parsed) -> Result<Option<Links>, Failed> {
        let target = parsed.peer()?;
        let takes = parsed.command() == Command::Link && !parsed.link_places()?.is_empty();
        parsed.check_link_options(target.is_some(), takes)?;
        if target.is_none() && !takes {
            let missing = || parsed.error("expected --listen ADDR, --connect HOST[:PORT] or both").into();
            return if parsed.command() == Command::Link { Err(missing()) } else { Ok(None) };
        }
        if parsed.number("threads")? != 1 {
            let text = "--threads with --via: expected 1, because all connections of a link are in one loop";
            return Err(parsed.error(text).into());
        }
        // What is wrong with the command line is told before a key is made.
        let (mode, timing, ciphers) = (parsed.mode()?, parsed.timing()?, parsed.ciphers()?);
        let pin = parsed.pin()?;
        let asks = parsed.knows("ask") && parsed.flag("ask")?;
        if asks && !can_ask() {
            return Err(parsed.error("--ask: expected a terminal on stdin and stderr, to ask there").into());
        }
        let reaches = target.as_ref().map(|target| Reach::of(parsed, target)).transpose()?;

        let files = Files { parsed, directory: parsed.config_directory(), modes: parsed.modes()? };
        let modes = files.modes;
        let secret = parsed.path("secret").map(|path| shared_key(&path, modes)).transpose()?;
        let shared = secret.as_ref().map(NodeKey::public);
        let key = secret.map_or_else(|| files.node_key(), Ok)?;
        let dialled = match (target, reaches) {
            (Some(target), Some(Reach { paths, subflows, reverse })) => {
                let peer = match (shared, pin) {
                    (Some(key), _) => Peer::with_secret(target, key),
                    (None, Some(pin)) => Peer::pinned(target, pin),
                    (None, None) => Peer::known(target, &files.known_nodes(), modes).map_err(unusable)?,
                };
                let exits = parsed.knows("exit-on-failure") && parsed.flag("exit-on-failure")?;
                Some(Dialled { peer: Arc::new(peer), paths, subflows, reverse, exits })
            }
            _ => None,
        };
        let visitors = if takes { Some(Arc::new(files.visitors(shared)?.asking(asks))) } else { None };
        let instance = Instance::of(parsed.command(), key.public());
        let identity = Identity { ciphers, instance: instance.number, ..Identity::new(&key) };
        Ok(Some(Links { identity, public: key.public(), mode, timing, dialled, visitors, _instance: instance }))
    }

    /// Where the link goes that is dialled.
    pub fn peer(&self) -> Option<&Arc<Peer>> {
        self.dialled.as_ref().map(|dialled| &dialled.peer)
    }

    /// The key of this node, if others are to know it.
    pub fn shown_key(&self) -> Option<PublicKey> {
        self.visitors.as_ref().map(|_| self.public)
    }

    /// Who tells what becomes of the link that is dialled.
    pub fn watch(&self) -> Option<Watch> {
        let Dialled { peer, paths, reverse, exits, .. } = self.dialled.as_ref()?;
        Some(Watch::new(Arc::clone(peer), self.public, paths.now().len(), reverse).exiting(*exits))
    }

    /// Who tells what becomes of the links that are taken in.
    pub fn visits(&self) -> Option<Visits> {
        Some(Visits::new(Arc::clone(self.visitors.as_ref()?)))
    }

    /// Remembers what somebody has answered about a peer's request.
    pub fn remember(&self, key: &PeerKey, request: &Request, may: bool) {
        self.visitors.iter().for_each(|visitors| visitors.remember(key, request, may));
    }

    /// The question whether a peer may have its request.
    pub fn question(&self, key: &PeerKey, request: &Request) -> String {
        let name = self.visitors.as_ref().map_or_else(String::new, |visitors| visitors.name(key));
        format!("{name} ({}) wants this node to {request}. May it (yes/no)? ", trust::fingerprint(key))
    }

    /// Dials the link, if there is one to dial.
    ///
    /// # Errors
    /// It makes no sense to the loop.
    pub fn dial(&self, core: &mut Core, told: Told) -> io::Result<Option<Id>> {
        let Some(dialled) = &self.dialled else { return Ok(None) };
        let policy: Arc<dyn Policy> = Arc::<Peer>::clone(&dialled.peer);
        let config = LinkConfig {
            paths: dialled.paths.now(),
            subflows: dialled.subflows,
            mode: self.mode,
            reverse: dialled.reverse.clone(),
            timing: self.timing.clone(),
            watch: told,
            ..LinkConfig::new(self.identity.clone(), policy, dialled.peer.target().clone())
        };
        core.connect_link(config).map(Some).map_err(|error| because(&error, "the link cannot be dialled"))
    }

    /// Takes in links at a bound address.
    ///
    /// # Errors
    /// The socket or the key cannot be used.
    pub fn serve(&self, core: &mut Core, bound: &mut Bound, told: Told) -> io::Result<()> {
        let Some(visitors) = &self.visitors else { return Ok(()) };
        let policy: Arc<dyn Policy> = Arc::<Visitors>::clone(visitors);
        let (mode, timing) = (self.mode, self.timing.clone());
        let config = ServeConfig { mode, timing, watch: told, ..ServeConfig::new(self.identity.clone(), policy) };
        core.serve_links(bound, config).map_err(|error| because(&error, "links cannot be taken in"))
    }

    /// Looks at the files of keys again. Returns whether links have to be looked at again.
    ///
    /// # Errors
    /// What is wrong with a file; what it said before holds on.
    pub fn refresh(&self, look: Look) -> Result<bool, KeysError> {
        let visitors = self.visitors.as_ref().map_or(Ok(false), |visitors| {
            // An answer that is forgotten may have permitted a listener.
            let had_answers = matches!(look, Look::Now) && visitors.forget_answers();
            visitors.refresh(look).map(|is_new| is_new || had_answers)
        });
        let peer = self.peer().map_or(Ok(false), |peer| peer.refresh(look));
        Ok(visitors? | peer?)
    }

    /// Looks at the file of paths again, if there is one. Returns what is new in it.
    ///
    /// # Errors
    /// What is wrong with the file; what it said before holds on.
    pub fn refresh_paths(&self, look: Look) -> Result<Option<Change>, KeysError> {
        match self.dialled.as_ref().map(|dialled| &dialled.paths) {
            Some(Ways::Listed(file)) => file.refresh(look),
            Some(Ways::Given(_)) | None => Ok(None),
        }
    }
}

impl Ways {
    fn now(&self) -> Vec<Path> {
        match self {
            Ways::Given(paths) => paths.clone(),
            Ways::Listed(file) => file.paths(),
        }
    }
}

/// How the peer is reached, and what it is to do for us.
struct Reach {
    paths: Ways,
    subflows: usize,
    reverse: Vec<Reverse>,
}

impl Reach {
    fn of(parsed: &Parsed, target: &Target) -> Result<Reach, Failed> {
        let reverse = if parsed.command() == Command::Link { parsed.reverses()? } else { Vec::new() };
        let (paths, subflows) = (parsed.paths(target)?, parsed.number("subflows")? as usize);
        let most = Timing::default().subflows;
        if let Some(file) = parsed.path("paths") {
            let port = target.port().unwrap_or(addresses::PORT);
            let file = PathFile::load(file, port, most / subflows, parsed.modes()?).map_err(unusable)?;
            return Ok(Reach { paths: Ways::Listed(Box::new(file)), subflows, reverse });
        }
        if paths.len() * subflows > most {
            let text =
                format!("--subflows {subflows} over each of {} paths: expected {most} together at most", paths.len());
            return Err(parsed.error(text).into());
        }
        Ok(Reach { paths: Ways::Given(paths), subflows, reverse })
    }
}

impl Files<'_> {
    fn node_key(&self) -> Result<NodeKey, Failed> {
        let path = self.parsed.path("key").unwrap_or_else(|| self.directory.key());
        let (key, is_new) = NodeKey::load_or_create(&path, self.modes).map_err(unusable)?;
        if is_new {
            let (file, key) = (path.display().to_string(), key.public().fingerprint());
            log::info!(target: "seaprox::link", file = file, key = key; "made the key of this node");
        }
        Ok(key)
    }

    fn known_nodes(&self) -> PathBuf {
        self.parsed.path("known-nodes").unwrap_or_else(|| self.directory.known_nodes())
    }

    /// Whoever has the secret is let in; with a secret, others are only where a file of theirs is named.
    fn visitors(&self, shared: Option<PublicKey>) -> Result<Visitors, Failed> {
        let named = self.parsed.path("authorized-keys");
        let file = named.or_else(|| shared.is_none().then(|| self.directory.authorized_keys()));
        let visitors = Visitors::new(file.as_deref(), shared, self.modes).map_err(unusable)?;
        let (keys, file) = visitors.count();
        let file = file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        match keys {
            0 => log::warn!(target: "seaprox::link", file = file; "no key is authorized, so nobody is let in"),
            _ => log::info!(target: "seaprox::link", file = file, keys = keys; "keys authorized"),
        }
        Ok(visitors)
    }
}

fn shared_key(path: &std::path::Path, modes: Modes) -> Result<NodeKey, Failed> {
    let secret = Secret::load(path, modes).map_err(unusable)?;
    let text = |error| format!("seaprox: {}: {error}", path.display());
    NodeKey::from_secret(secret.expose()).map_err(|error| Failed::new(Exit::Config, text(error)))
}

fn unusable(error: KeysError) -> Failed {
    Failed::unusable("seaprox", &error)
}

fn because(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
