//! Makes the parts of a process from its configuration: front ends with their access policies, and the policies and keys of
//! links. Parts that a file belongs to are kept, so that the file can be read again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use seaprox::auth::{ConfigDirectory, KeysError, Modes, NodeKey, PublicKey, Secret};
use seaprox::config::{
    Access, ApplyError, ApplyErrors, ApplyFailure, Config, ExpectedKey, FrontEndOption, FrontEnds, KeySource, Link,
    LinkPaths, Listener, MadeFrontEnd, MadeLink, MadeServer, MakeError, Maker, NodeConfig, Place, Running, Server,
    Service, Users,
};
use seaprox::node::{
    Identity, LinkConfig, LinkEvent, LinkServer, OnLinkEvent, Path as LinkPath, Policy, Reverse, ServeConfig,
};
use seaprox::{Balancer, DatagramFrontEnd, Id, Loops, Target, Upstream, Workers};

use crate::frontends::access::AccessPolicy;
use crate::frontends::{FrontEndKind, Registry, proxy_protocol, r#static};
use crate::links::{AuthorizedPeers, DialedPeer, FileChange, PathFile, addresses};
use crate::shared_file::Refresh;

/// Makes the parts of a process. All threads of the process share one.
pub struct Parts {
    node: NodeConfig,
    directory: ConfigDirectory,
    modes: Modes,
    /// A number that tells a restart of this process from a second process; see [`Identity::instance`].
    instance: Mutex<Option<u32>>,
    keys: Mutex<Option<Keys>>,
    access: Mutex<Vec<SharedAccess>>,
    links: Mutex<BTreeMap<String, Arc<DialedGroup>>>,
    servers: Mutex<BTreeMap<String, Arc<AuthorizedPeers>>>,
    /// Made, and not in effect yet.
    new_links: Mutex<BTreeMap<String, Arc<DialedGroup>>>,
    new_servers: Mutex<BTreeMap<String, Arc<AuthorizedPeers>>>,
    /// The balancers of listeners, by their names, so that a changed listener keeps what is known of its targets.
    balancers: Mutex<BTreeMap<String, Weak<Balancer>>>,
    on_event: OnEvent,
    /// False if the parts are only checked: no key is created then.
    creates_key: bool,
}

/// Handles the events of links: the name of the link or of the server, the id in the loop, and the event.
pub type OnEvent = Arc<dyn Fn(&LinkOwner, Id, &LinkEvent) + Send + Sync>;

/// The record of the configuration that a link belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOwner {
    /// A link that this node dials, or the link of a group to one of its servers.
    Link(String),
    /// A server, at which a peer has dialed the link.
    Server(String),
}

/// The links that this node dials for one record of the configuration: one to each of its servers.
pub struct DialedGroup {
    /// The name of the record.
    pub name: String,
    /// The policy for peers, whose address is that of the first server.
    peer: DialedPeer,
    paths: Arc<PathSource>,
    /// The links by name. A link that has ended is gone.
    links: Mutex<BTreeMap<String, Weak<DialedLink>>>,
}

/// A link that this node dials.
pub struct DialedLink {
    /// The name of the link.
    pub name: String,
    /// The name of its record in the configuration.
    pub group: String,
    /// The policy for the peer.
    pub peer: Arc<DialedPeer>,
    /// The remote forwards, in the order in which they are opened.
    pub reverse: Vec<Reverse>,
    /// True if the process exits when the link or a forward cannot be set up, or is lost.
    pub exits: bool,
    paths: Arc<PathSource>,
}

/// The source of the paths.
enum PathSource {
    List(Vec<LinkPath>),
    File(Box<PathFile>),
}

/// The key of this node.
#[derive(Clone)]
struct Keys {
    identity: Identity,
    public: PublicKey,
    /// True if the key is derived from a secret that peers share.
    is_shared: bool,
}

/// An access policy, and the settings that it was made of. Listeners with equal settings share one, so that the failed
/// logins of a client count at all of them.
struct SharedAccess {
    access: Access,
    is_over_link: bool,
    policy: Arc<AccessPolicy>,
}

/// Starts a process: its loops with all listeners and links of a configuration. Returns the process, and its loops for
/// [`Loops::join`]. [`Running::apply`] changes the configuration while it runs.
///
/// # Errors
/// The problems of the configuration, or the parts that cannot be made, bound or started.
pub fn start(config: Config) -> Result<(Running, Loops), ApplyErrors> {
    let workers = Workers::start(config.workers, config.loops.limits.lookups)
        .map_err(|error| ApplyError { place: Place::root(), failure: ApplyFailure::System(error) })?;
    let parts = Arc::new(Parts::new(&config));
    Running::start(config, parts, &workers)
}

impl Parts {
    /// Creates the parts of a process without links that anyone watches.
    pub fn new(config: &Config) -> Parts {
        Parts::with_events(config, Arc::new(|_, _, _| {}))
    }

    /// Creates the parts of a process. `on_event` handles the events of its links, in the thread of their loop.
    pub fn with_events(config: &Config, on_event: OnEvent) -> Parts {
        Parts {
            node: config.node.clone(),
            directory: config.config_directory(),
            modes: config.modes,
            instance: Mutex::default(),
            keys: Mutex::default(),
            access: Mutex::default(),
            links: Mutex::default(),
            servers: Mutex::default(),
            new_links: Mutex::default(),
            new_servers: Mutex::default(),
            balancers: Mutex::default(),
            on_event,
            creates_key: true,
        }
    }

    /// Creates the parts of a configuration that is only checked. A key that does not exist is not created.
    pub fn checked(config: &Config) -> Parts {
        Parts { creates_key: false, ..Parts::new(config) }
    }

    /// Sets the number that tells a restart of this process from a second process.
    pub fn set_instance(&self, instance: Option<u32>) {
        *lock(&self.instance) = instance;
    }

    /// Returns the public key of this node. The first call loads the key, or makes it.
    ///
    /// # Errors
    /// Fails if the file of the key cannot be used.
    pub fn public_key(&self) -> Result<PublicKey, MakeError> {
        self.keys().map(|keys| keys.public)
    }

    /// Returns the links that this node dials, by the records of the configuration.
    pub fn groups(&self) -> Vec<Arc<DialedGroup>> {
        lock(&self.links).values().cloned().collect()
    }

    /// Returns the links that this node dials: those to all servers.
    pub fn links(&self) -> Vec<Arc<DialedLink>> {
        self.groups().iter().flat_map(|group| group.links()).collect()
    }

    /// Returns the link with this name.
    pub fn link(&self, name: &str) -> Option<Arc<DialedLink>> {
        self.links().into_iter().find(|link| link.name == name)
    }

    /// Returns the policies for peers that dial this node, with the names of their servers.
    pub fn servers(&self) -> Vec<(String, Arc<AuthorizedPeers>)> {
        lock(&self.servers).iter().map(|(name, peers)| (name.clone(), Arc::clone(peers))).collect()
    }

    /// Returns the policy of a server.
    pub fn server(&self, name: &str) -> Option<Arc<AuthorizedPeers>> {
        lock(&self.servers).get(name).cloned()
    }

    /// Returns true if any part has a file that is read again when it changes.
    pub fn has_files(&self) -> bool {
        let has_users = lock(&self.access).iter().any(|shared| shared.policy.users().is_some());
        has_users || !lock(&self.links).is_empty() || !lock(&self.servers).is_empty()
    }

    /// Reads the files of users again.
    ///
    /// # Errors
    /// Fails with the first file that cannot be read or parsed; its previous users stay in use.
    pub fn refresh_users(&self, refresh: Refresh) -> Result<(), KeysError> {
        let policies: Vec<_> = lock(&self.access).iter().map(|shared| Arc::clone(&shared.policy)).collect();
        let results: Vec<_> = policies.iter().map(|policy| policy.refresh(refresh)).collect();
        results.into_iter().try_for_each(|result| result.map(drop))
    }

    /// Reads the files of keys again. Returns true if the permissions of running links must be checked again, and the first
    /// file that cannot be read or parsed, whose previous keys stay in use. One file may be new while another one fails.
    pub fn refresh_keys(&self, refresh: Refresh) -> (bool, Result<(), KeysError>) {
        let authorized = self.servers().into_iter().map(|(_, peers)| {
            // A forgotten answer may have permitted a listener.
            let had_answers = matches!(refresh, Refresh::Forced) && peers.forget_answers();
            (had_answers, peers.refresh(refresh))
        });
        let known = self.groups().into_iter().map(|group| (false, group.peer.refresh(refresh)));
        authorized.chain(known).fold((false, Ok(())), |(is_new, failed), (had_answers, result)| {
            let is_new = is_new | had_answers | matches!(result, Ok(true));
            (is_new, failed.and(result.map(drop)))
        })
    }

    /// Returns the time until the next key of a peer expires, if any will.
    pub fn time_to_expiry(&self) -> Option<Duration> {
        self.servers().iter().filter_map(|(_, peers)| peers.time_to_expiry()).min()
    }

    /// Returns true if the key of a peer has expired since the last call, so that running links must be checked again.
    pub fn has_expired_keys(&self) -> bool {
        self.servers().iter().fold(false, |has_expired, (_, peers)| has_expired | peers.has_expired())
    }

    /// Returns the key of this node. The first call loads it.
    fn keys(&self) -> Result<Keys, MakeError> {
        let mut keys = lock(&self.keys);
        if let Some(keys) = &*keys {
            return Ok(keys.clone());
        }
        let (key, is_shared) = match &self.node.key {
            KeySource::Secret(file) => (shared_key(file, self.modes)?, true),
            KeySource::File(file) => {
                let path = file.clone().unwrap_or_else(|| self.directory.key());
                let (key, is_new) = match self.creates_key {
                    true => NodeKey::load_or_create(&path, self.modes)?,
                    false => (loaded_or_any(&path, self.modes)?, false),
                };
                if is_new {
                    let (file, key) = (path.display().to_string(), key.public().fingerprint());
                    log::info!(target: "seaprox::link", file = file, key = key; "key of this node created");
                }
                (key, false)
            }
        };
        let (ciphers, groups) = (self.node.ciphers.clone(), self.node.groups.clone());
        let identity = Identity { ciphers, groups, ..Identity::new(&key) };
        Ok(keys.insert(Keys { identity, public: key.public(), is_shared }).clone())
    }

    fn identity(&self, keys: &Keys) -> Identity {
        Identity { instance: *lock(&self.instance), ..keys.identity.clone() }
    }

    fn dialed_peer(&self, link: &Link, keys: &Keys) -> Result<DialedPeer, KeysError> {
        let any = || Target::from(SocketAddr::from(([127, 0, 0, 1], addresses::PORT)));
        let target = link.peers.iter().find_map(Upstream::target).cloned().unwrap_or_else(any);
        match &link.expected_key {
            _ if keys.is_shared => Ok(DialedPeer::with_secret(target, keys.public)),
            ExpectedKey::Pinned(pin) => Ok(DialedPeer::pinned(target, pin.clone())),
            ExpectedKey::Known(file) => {
                let file = file.clone().unwrap_or_else(|| self.directory.known_nodes());
                DialedPeer::known(target, &file, self.modes)
            }
        }
    }

    /// Returns the peers that may dial this node. With a shared secret, `authorized_keys` is read only if it is named.
    fn authorized_peers(&self, server: &Server, keys: &Keys) -> Result<AuthorizedPeers, KeysError> {
        let default = || (!keys.is_shared).then(|| self.directory.authorized_keys());
        let file = server.authorized_keys.clone().or_else(default);
        let shared = keys.is_shared.then_some(keys.public);
        let authorized = AuthorizedPeers::new(file.as_deref(), shared, self.modes)?;
        let (count, file) = authorized.count();
        let file = file.map_or_else(|| "-".to_owned(), |file| file.display().to_string());
        match count {
            0 => log::warn!(target: "seaprox::link", file = file; "no key is authorized, so no peer can link"),
            _ => log::info!(target: "seaprox::link", file = file, keys = count; "keys authorized"),
        }
        // The nodes of a shared secret have its key, and no key of their own to name in an invitation.
        let authorized =
            if keys.is_shared { authorized } else { authorized.inviting(&self.directory.invitations())? };
        Ok(authorized.with_ends(&server.ends).asking(server.asks))
    }

    fn paths(&self, link: &Link) -> Result<PathSource, KeysError> {
        match &link.paths {
            LinkPaths::List(paths) => Ok(PathSource::List(paths.clone())),
            LinkPaths::File(file) => {
                let port = link.peers.iter().find_map(Upstream::port).unwrap_or(addresses::PORT);
                let file = PathFile::load(file.clone(), port, link.path_room(&self.node), self.modes)?;
                Ok(PathSource::File(Box::new(file)))
            }
        }
    }

    /// Returns the access policy of a listener.
    fn access(&self, listener: &Listener) -> Result<Arc<AccessPolicy>, UsersError> {
        let access = Access {
            rules: listener.rules.clone().unwrap_or_default(),
            users: listener.users.clone().unwrap_or_default(),
        };
        let is_over_link = listener.link.is_some();
        let is_same = |it: &&SharedAccess| it.access == access && it.is_over_link == is_over_link;
        if let Some(same) = lock(&self.access).iter().find(is_same) {
            return Ok(Arc::clone(&same.policy));
        }
        let file = match &access.users {
            Users::File(file) => Some(file.clone()),
            Users::Anyone => None,
        };
        let policy = AccessPolicy::new(access.rules.clone(), file, self.modes).map_err(UsersError)?;
        let policy = Arc::new(if is_over_link { policy.over_link() } else { policy });
        // Other threads ask for the policies while the file is read, so the lock is not held then.
        lock(&self.access).push(SharedAccess { access, is_over_link, policy: Arc::clone(&policy) });
        Ok(policy)
    }

    /// Returns the balancer that a listener has already, if it is one of the same targets, and the new one otherwise.
    fn known_balancer(&self, listener: &str, new: Balancer) -> Arc<Balancer> {
        let mut balancers = lock(&self.balancers);
        balancers.retain(|_, balancer| balancer.strong_count() > 0);
        if let Some(known) = balancers.get(listener).and_then(Weak::upgrade).filter(|known| known.is_same(&new)) {
            return known;
        }
        let new = Arc::new(new);
        balancers.insert(listener.to_owned(), Arc::downgrade(&new));
        new
    }

    fn handler(&self, owner: LinkOwner) -> impl Fn() -> OnLinkEvent + Send + Sync + use<> {
        let (owner, on_event) = (Arc::new(owner), Arc::clone(&self.on_event));
        move || {
            let (owner, on_event) = (Arc::clone(&owner), Arc::clone(&on_event));
            Box::new(move |_, id, event| on_event(&owner, id, event))
        }
    }
}

impl DialedLink {
    /// Returns the paths that are in use.
    pub fn current_paths(&self) -> Vec<LinkPath> {
        self.paths.current()
    }
}

impl PathSource {
    fn current(&self) -> Vec<LinkPath> {
        match self {
            PathSource::List(paths) => paths.clone(),
            PathSource::File(file) => file.paths(),
        }
    }
}

impl DialedGroup {
    /// Returns the links that have not ended.
    pub fn links(&self) -> Vec<Arc<DialedLink>> {
        let mut links = lock(&self.links);
        links.retain(|_, link| link.strong_count() > 0);
        links.values().filter_map(Weak::upgrade).collect()
    }

    fn add(&self, link: &Arc<DialedLink>) {
        let mut links = lock(&self.links);
        links.retain(|_, link| link.strong_count() > 0);
        links.insert(link.name.clone(), Arc::downgrade(link));
    }

    /// Reads the file of paths again, if there is one. Returns the change, if any.
    ///
    /// # Errors
    /// Fails if the file cannot be read or parsed; its previous paths stay in use.
    pub fn refresh_paths(&self, refresh: Refresh) -> Result<Option<FileChange>, KeysError> {
        match &*self.paths {
            PathSource::File(file) => file.refresh(refresh),
            PathSource::List(_) => Ok(None),
        }
    }
}

impl FrontEnds for Parts {
    fn names(&self) -> Vec<&'static str> {
        Registry.names()
    }

    fn options(&self, name: &str) -> Option<&'static [FrontEndOption]> {
        Registry.options(name)
    }

    fn carries_datagrams(&self, name: &str) -> bool {
        Registry.carries_datagrams(name)
    }
}

impl Maker for Parts {
    fn front_end(&self, listener: &Listener) -> Result<MadeFrontEnd, MakeError> {
        let config = listener.front_end.clone();
        let kind =
            FrontEndKind::find(&config.name).ok_or_else(|| format!("no front end is named {:?}", config.name))?;
        let (spec, access) = (kind.spec(), self.access(listener)?);
        // Made once here, so that an option that is missing is found before a loop needs it.
        let balancer = r#static::balancer(&config, listener.link.is_some());
        let balancer = balancer.map(|new| self.known_balancer(&listener.name, new));
        if (spec.make)(&config, &access, balancer.as_ref()).is_none() {
            return Err(format!("the front end {:?} lacks an option", config.name).into());
        }
        let protocol = listener.proxy_protocol.clone();
        let shared = balancer.clone();
        let datagrams =
            spec.make_datagrams.filter(|make| make(&config, &access, shared.as_ref()).is_some()).map(|make| {
                let (config, access, shared) = (config.clone(), Arc::clone(&access), shared.clone());
                let protocol = protocol.clone();
                let make = move || {
                    let made = make(&config, &access, shared.as_ref());
                    let front_end = made.expect("it was made before from the same options");
                    proxy_protocol::wrap_datagrams(&protocol, front_end, shared.clone())
                };
                Arc::new(make) as Arc<dyn Fn() -> DatagramFrontEnd + Send + Sync>
            });
        let make = move || {
            let front_end =
                (spec.make)(&config, &access, shared.as_ref()).expect("it was made before from the same options");
            proxy_protocol::wrap(&protocol, front_end, shared.clone())
        };
        Ok(MadeFrontEnd {
            kind: spec.name,
            make: Arc::new(make),
            datagrams,
            balancer,
            redirected: spec.serves_redirected,
        })
    }

    fn dial(&self, link: &Link) -> Result<MadeLink, MakeError> {
        let paths = Arc::new(self.paths(link)?);
        let keys = self.keys()?;
        let reverse = |forward: &seaprox::config::Forward| match &forward.service {
            Service::Remote(to) => Some(Reverse { listen: forward.listen.clone(), to: to.clone() }),
            Service::Local(_) => None,
        };
        let reverse: Vec<_> = link.forwards.iter().filter_map(reverse).collect();
        let mut peer = self.dialed_peer(link, &keys)?;
        if link.simultaneous && !keys.is_shared {
            peer = peer.permitting(AuthorizedPeers::new(Some(&self.directory.authorized_keys()), None, self.modes)?);
        }
        let peer = peer.with_ends(&link.ends);
        let name = link.name.clone();
        let group = Arc::new(DialedGroup { name, peer, paths, links: Mutex::default() });
        lock(&self.new_links).insert(link.name.clone(), Arc::clone(&group));
        let (identity, on_event) = (self.identity(&keys), Arc::clone(&self.on_event));
        let (subflows, simultaneous) = (link.subflows, link.simultaneous);
        let mode = link.mode.unwrap_or(self.node.mode);
        let carrier = link.carrier.unwrap_or(self.node.carrier);
        let timing = link.timing.clone().unwrap_or_else(|| self.node.timing.clone());
        let (link, exits) = (link.clone(), link.exits_on_failure);
        let version = link.proxy_protocol_send;
        Ok(Box::new(move |server: &LinkServer| {
            let name = link.member_name(server);
            let peer = Arc::new(group.peer.at(server, &name));
            let (reverse, paths) = (reverse.clone(), Arc::clone(&group.paths));
            let dialed =
                Arc::new(DialedLink { name: name.clone(), group: link.name.clone(), peer, reverse, exits, paths });
            group.add(&dialed);
            let policy: Arc<dyn Policy> = Arc::<DialedPeer>::clone(&dialed.peer);
            let new = LinkConfig::new(identity.clone(), policy, server.addr.clone());
            let (owner, on_event) = (LinkOwner::Link(name), Arc::clone(&on_event));
            let paths = dialed.current_paths();
            // The callback keeps the record of the link, which is gone with it.
            let on_event: OnLinkEvent = Box::new(move |_, id, event| {
                let _link = &dialed;
                on_event(&owner, id, event);
            });
            let preface = version.map(proxy_protocol::preface);
            let timing = timing.clone();
            LinkConfig { paths, subflows, simultaneous, carrier, mode, timing, preface, on_event, ..new }
        }))
    }

    fn serve(&self, server: &Server) -> Result<MadeServer, MakeError> {
        let keys = self.keys()?;
        let peers = Arc::new(self.authorized_peers(server, &keys)?);
        lock(&self.new_servers).insert(server.name.clone(), Arc::clone(&peers));
        let (identity, on_event) = (self.identity(&keys), self.handler(LinkOwner::Server(server.name.clone())));
        let mode = server.mode.unwrap_or(self.node.mode);
        let carrier = server.carrier.unwrap_or(self.node.carrier);
        let timing = server.timing.clone().unwrap_or_else(|| self.node.timing.clone());
        let version = server.proxy_protocol_send;
        Ok(Arc::new(move || {
            let policy: Arc<dyn Policy> = Arc::<AuthorizedPeers>::clone(&peers);
            let new = ServeConfig::new(identity.clone(), policy);
            let preface = version.map(proxy_protocol::preface);
            ServeConfig { carrier, mode, timing: timing.clone(), preface, on_event: on_event(), ..new }
        }))
    }

    fn commit(&self, listeners: &[Listener], links: &[Link], servers: &[Server]) {
        let is_used = |shared: &SharedAccess| {
            listeners.iter().any(|listener| {
                listener.rules.as_ref() == Some(&shared.access.rules)
                    && listener.users.as_ref() == Some(&shared.access.users)
                    && listener.link.is_some() == shared.is_over_link
            })
        };
        lock(&self.access).retain(is_used);
        lock(&self.links).append(&mut lock(&self.new_links));
        lock(&self.servers).append(&mut lock(&self.new_servers));
        lock(&self.links).retain(|name, _| links.iter().any(|link| link.name == *name));
        lock(&self.servers).retain(|name, _| servers.iter().any(|server| server.name == *name));
    }

    fn discard(&self) {
        lock(&self.new_links).clear();
        lock(&self.new_servers).clear();
    }
}

/// The error of a file of users.
#[derive(Debug)]
pub struct UsersError(pub KeysError);

/// The error of a file of a secret.
#[derive(Debug)]
pub struct SharedSecretError(pub String);

impl std::fmt::Display for UsersError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for UsersError {}

impl std::fmt::Display for SharedSecretError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SharedSecretError {}

/// Returns the key in a file; any key if there is no file.
fn loaded_or_any(path: &Path, modes: Modes) -> Result<NodeKey, MakeError> {
    match NodeKey::load(path, modes) {
        Err(error) if error.is_missing() => Ok(NodeKey::generate()?),
        result => Ok(result?),
    }
}

fn shared_key(path: &Path, modes: Modes) -> Result<NodeKey, MakeError> {
    let secret = Secret::load(path, modes)?;
    let text = |error| SharedSecretError(format!("{}: {error}", path.display()));
    NodeKey::from_secret(secret.expose()).map_err(|error| text(error).into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
