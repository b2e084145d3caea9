//! Links: those that this node dials, with their forwards, those that peers dial, and the key of this node.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::front_end::FrontEndConfig;
use super::listener::ProxyVersion;
use crate::auth::PublicKey;
use crate::engine::discovery::{Candidate, Candidates};
use crate::link::Mode;
use crate::node::{CarrierKind, Cipher, Group, LinkServer, Path, Timing};
use crate::types::address::{Bind, Target};
use crate::types::end::End;
use crate::types::upstream::Upstream;

/// The key of this node, and the defaults of its links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeConfig {
    /// The source of the key.
    pub key: KeySource,
    /// Ciphers in the order of preference; empty for the fastest ones of this processor.
    pub ciphers: Vec<Cipher>,
    /// Key exchanges in the order of preference; empty for all that this processor has.
    pub groups: Vec<Group>,
    /// The transport of the subflows.
    pub carrier: CarrierKind,
    /// The distribution of frames over subflows.
    pub mode: Mode,
    /// Timers and limits.
    pub timing: Timing,
}

/// The source of the key of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file with the key, which the first use makes; none for `key` in the directory of the process.
    File(Option<PathBuf>),
    /// A file with a secret, from which both nodes derive the same key.
    Secret(PathBuf),
}

/// A link that this node dials. With several servers it is a group of links, one to each server, which stand for one
/// another: see [`Link::is_group`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The name, unique among links.
    pub name: String,
    /// The servers: addresses, names, and services that DNS knows; at least one.
    pub peers: Vec<Upstream>,
    /// The maximum of the links to them. None for one link to each address and each name, and to [`SERVICE_LINKS`] hosts of
    /// each service. With a number, each address of a name is a server, too.
    pub links_max: Option<usize>,
    /// The key that the peer must have. With a shared secret it is the key that is derived from it.
    pub expected_key: ExpectedKey,
    /// The paths to the peer.
    pub paths: LinkPaths,
    /// Subflows over each path.
    pub subflows: usize,
    /// True if the peer dials this node at the same time, and neither listens: see [`LinkConfig::simultaneous`]. The peer may
    /// then do here what `authorized_keys` permits its key.
    ///
    /// [`LinkConfig::simultaneous`]: crate::node::LinkConfig::simultaneous
    pub simultaneous: bool,
    /// The transport of the subflows; none to inherit it.
    pub carrier: Option<CarrierKind>,
    /// The distribution of frames over subflows; none to inherit it.
    pub mode: Option<Mode>,
    /// Timers and limits; none to inherit them.
    pub timing: Option<Timing>,
    /// The version of the header of the PROXY protocol that begins each connection to a target of a forward; none to send no
    /// header. This node sends it for local and remote forwards: the far end relays it.
    pub proxy_protocol_send: Option<ProxyVersion>,
    /// True if the process exits when the link or a forward cannot be set up, or is lost.
    pub exits_on_failure: bool,
    /// The ends that the peer may open by their names, and that remote forwards may have as their targets.
    pub ends: Vec<End>,
    /// The forwards.
    pub forwards: Vec<Forward>,
}

/// The key that a peer must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedKey {
    /// A key that stands in a file of known nodes; none for `known_nodes` in the directory of the process.
    Known(Option<PathBuf>),
    /// This key.
    Pinned(Pin),
}

/// A key, or its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The key.
    Key(PublicKey),
    /// The fingerprint of the key.
    Fingerprint(String),
}

/// The error of a malformed pin. Its text is the form that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinError(&'static str);

/// The paths of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkPaths {
    /// These paths; at least one.
    List(Vec<Path>),
    /// The paths of a file, one per line. A change of the file is applied while the link is up.
    File(PathBuf),
}

/// A forward of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The name, unique among listeners and forwards.
    pub name: String,
    /// The address to listen on, here or at the peer.
    pub listen: Bind,
    /// The service for its clients.
    pub service: Service,
}

/// The service of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// This node listens, and the peer connects: `-L` with the front end `static`, `-D` with `socks`, `-H` with `http`.
    Local(FrontEndConfig),
    /// The peer listens, and this node connects to the target: `-R`.
    Remote(Target),
}

/// Addresses on which peers may dial links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The name, unique among servers.
    pub name: String,
    /// The addresses to listen on; at least one.
    pub addresses: Vec<Bind>,
    /// The file of the keys that may dial; none for `authorized_keys` in the directory of the process.
    pub authorized_keys: Option<PathBuf>,
    /// True to ask the user about requests that a key does not permit.
    pub asks: bool,
    /// The ends that all of these keys may open, beside those of their lines in the file.
    pub ends: Vec<End>,
    /// The transport of the subflows; none to inherit it.
    pub carrier: Option<CarrierKind>,
    /// The distribution of frames over subflows; none to inherit it.
    pub mode: Option<Mode>,
    /// Timers and limits; none to inherit them.
    pub timing: Option<Timing>,
    /// The version of the header of the PROXY protocol that begins each connection to a target of a peer; none to send no
    /// header. It has the address of the peer's client if the key of the peer may tell it, otherwise that of the peer.
    pub proxy_protocol_send: Option<ProxyVersion>,
}

impl Default for KeySource {
    fn default() -> KeySource {
        KeySource::File(None)
    }
}

impl Link {
    /// Returns a link with one subflow over the system's default path and without forwards.
    pub fn new(name: impl Into<String>, peer: impl Into<Upstream>) -> Link {
        Link {
            name: name.into(),
            peers: vec![peer.into()],
            links_max: None,
            expected_key: ExpectedKey::Known(None),
            paths: LinkPaths::default(),
            subflows: 1,
            simultaneous: false,
            carrier: None,
            mode: None,
            timing: None,
            proxy_protocol_send: None,
            exits_on_failure: false,
            ends: Vec::new(),
            forwards: Vec::new(),
        }
    }
}

/// The room of a link for the subflows over its paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRoom {
    /// Subflows over each path.
    pub subflows: usize,
    /// The most subflows of the link.
    pub most: usize,
    /// True if each path that names no carrier has QUIC beside TCP.
    pub has_quic_beside: bool,
}

impl PathRoom {
    /// Checks that there is room for these paths. A single path does without QUIC if its subflows leave no room.
    ///
    /// # Errors
    /// Fails with the text of what was expected.
    pub fn check(&self, paths: &[Path]) -> Result<(), String> {
        let unnamed = paths.iter().filter(|path| path.carrier.is_none()).count();
        let beside = if self.has_quic_beside && paths.len() > 1 { unnamed } else { 0 };
        let (count, total) = (paths.len(), self.subflows.saturating_mul(paths.len()).saturating_add(beside));
        if total <= self.most {
            return Ok(());
        }
        let text = format!("at most {} subflows in total, not {total} over {count} paths", self.most);
        Err(match beside {
            0 => text,
            _ => format!("{text}, of which {beside} have QUIC beside TCP, because they name no carrier (tcp:%wlan0)"),
        })
    }
}

impl Link {
    /// Returns the room for subflows over its paths, with what it inherits from these defaults.
    pub fn path_room(&self, node: &NodeConfig) -> PathRoom {
        let has_quic_beside = self.carrier.unwrap_or(node.carrier) == CarrierKind::Auto && !self.simultaneous;
        let most = self.timing.as_ref().unwrap_or(&node.timing).subflows;
        PathRoom { subflows: self.subflows, most, has_quic_beside }
    }

    /// Returns true if this is a group of links. Its members have names of their own.
    pub fn is_group(&self) -> bool {
        self.links_max.is_some() || !matches!(self.peers[..], [Upstream::Target(_)])
    }

    /// Returns the name of a link that has none: its servers as people write them, or the first ones of many.
    pub fn default_name(peers: &[Upstream]) -> String {
        let mut name = String::new();
        for (index, peer) in peers.iter().enumerate() {
            let text = peer.to_string();
            if index > 0 && name.len() + text.len() > DEFAULT_NAME_BYTES {
                return format!("{name},+{}", peers.len() - index);
            }
            name = if index == 0 { text } else { format!("{name},{text}") };
        }
        name
    }

    /// Returns the name of the link to a server: the name of this link, and behind it the address of the server in brackets.
    /// A link without a name of its own is called like its server, and a link to one server has the name alone.
    pub fn member_name(&self, server: &LinkServer) -> String {
        let is_only = !self.is_group() && self.peers[..] == [Upstream::Target(server.addr.clone())];
        match &self.name {
            name if is_only => name.clone(),
            name if *name == Link::default_name(&self.peers) => server.addr.to_string(),
            name => format!("{name}[{}]", server.addr),
        }
    }

    /// Returns the number of links to the servers at most.
    pub fn most_links(&self) -> usize {
        let of_peer = |peer: &Upstream| if peer.target().is_some() { 1 } else { SERVICE_LINKS };
        self.links_max.unwrap_or_else(|| self.peers.iter().map(of_peer).sum())
    }

    /// Returns true if the servers are known without a lookup in DNS. A name with one link is looked up when it is dialed.
    pub fn has_fixed_servers(&self) -> bool {
        let is_fixed = |peer: &Upstream| match peer {
            Upstream::Target(target) => self.links_max.is_none() || !matches!(target, Target::Name(..)),
            Upstream::Service(_) => false,
        };
        self.peers.iter().all(is_fixed)
    }

    /// Returns the servers that are known without a lookup in DNS, in the order of the configuration.
    pub fn fixed_servers(&self) -> Vec<LinkServer> {
        let is_fixed = |target: &&Target| self.links_max.is_none() || !matches!(target, Target::Name(..));
        let targets = self.peers.iter().filter_map(Upstream::target).filter(is_fixed);
        targets.map(|target| LinkServer::from(target.clone())).collect()
    }

    /// Returns the servers among the candidates that a lookup has found: the hosts of services, in the order of their
    /// priorities, and the addresses of names if the configuration has a maximum of links.
    pub(super) fn servers(&self, candidates: &Candidates) -> Vec<LinkServer> {
        let mut list: Vec<&Candidate> = candidates.list.iter().collect();
        list.sort_by_key(|it| (it.upstream, it.priority, std::cmp::Reverse(it.weight)));
        let mut servers: Vec<LinkServer> = Vec::new();
        for candidate in list {
            let is_name = self.peers.get(candidate.upstream).is_some_and(|peer| peer.target().is_some());
            let addr = candidate.address.filter(|_| is_name && self.links_max.is_some());
            let (addr, host) = (addr.map_or_else(|| candidate.target.clone(), Target::from), candidate.target.clone());
            if !servers.iter().any(|server| server.addr == addr) {
                servers.push(LinkServer { addr, host });
            }
        }
        servers
    }

    /// Returns the servers as people write them.
    pub fn peers_text(&self) -> String {
        Link::default_name(&self.peers)
    }
}

impl Server {
    /// Returns a server that inherits everything else from the process.
    pub fn new(name: impl Into<String>, addresses: Vec<Bind>) -> Server {
        Server {
            name: name.into(),
            addresses,
            authorized_keys: None,
            asks: false,
            ends: Vec::new(),
            carrier: None,
            mode: None,
            timing: None,
            proxy_protocol_send: None,
        }
    }
}

impl Default for LinkPaths {
    fn default() -> LinkPaths {
        LinkPaths::List(vec![Path::default()])
    }
}

impl Pin {
    /// Returns true if `key` is the pinned key.
    pub fn fits(&self, key: &PublicKey) -> bool {
        match self {
            Pin::Key(pinned) => pinned == key,
            Pin::Fingerprint(fingerprint) => *fingerprint == key.fingerprint(),
        }
    }

    /// Returns the fingerprint of the pinned key.
    pub fn fingerprint(&self) -> String {
        match self {
            Pin::Key(key) => key.fingerprint(),
            Pin::Fingerprint(fingerprint) => fingerprint.clone(),
        }
    }
}

/// Parses a public key, or a fingerprint `SHA256:...`.
impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Pin, PinError> {
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        match text.strip_prefix("SHA256:").map(|digest| digest.trim_end_matches('=')) {
            Some(digest) if digest.len() == FINGERPRINT_CHARS && digest.bytes().all(is_base64) => {
                Ok(Pin::Fingerprint(format!("SHA256:{digest}")))
            }
            Some(_) => Err(PinError("SHA256: and the 43 characters of a fingerprint")),
            None => {
                text.parse().map(Pin::Key).map_err(|_| PinError("'seaprox-ed25519 BASE64' or a fingerprint SHA256:..."))
            }
        }
    }
}

/// Writes the key or the fingerprint, as it is parsed.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::Key(key) => key.fmt(f),
            Pin::Fingerprint(fingerprint) => f.write_str(fingerprint),
        }
    }
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for PinError {}

const FINGERPRINT_CHARS: usize = 43;
/// Length up to which the name of a link without one lists its servers.
const DEFAULT_NAME_BYTES: usize = 80;
/// Links to the hosts of a service, unless the configuration has another maximum.
pub const SERVICE_LINKS: usize = 8;
