//! Links: those that this node dials, with their forwards, those that peers dial, and the key of this node.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::front_end::FrontEndConfig;
use crate::auth::PublicKey;
use crate::link::Mode;
use crate::node::{CarrierKind, Cipher, Group, Path, Timing};
use crate::types::address::{Bind, Target};

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

/// A link that this node dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The name, unique among links.
    pub name: String,
    /// The address of the peer.
    pub peer: Target,
    /// The key that the peer must have. With a shared secret it is the key that is derived from it.
    pub expected_key: ExpectedKey,
    /// The paths to the peer.
    pub paths: LinkPaths,
    /// Subflows over each path.
    pub subflows: usize,
    /// The transport of the subflows; none to inherit it.
    pub carrier: Option<CarrierKind>,
    /// The distribution of frames over subflows; none to inherit it.
    pub mode: Option<Mode>,
    /// Timers and limits; none to inherit them.
    pub timing: Option<Timing>,
    /// True if the process exits when the link or a forward cannot be set up, or is lost.
    pub exits_on_failure: bool,
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
    /// The transport of the subflows; none to inherit it.
    pub carrier: Option<CarrierKind>,
    /// The distribution of frames over subflows; none to inherit it.
    pub mode: Option<Mode>,
    /// Timers and limits; none to inherit them.
    pub timing: Option<Timing>,
}

impl Default for KeySource {
    fn default() -> KeySource {
        KeySource::File(None)
    }
}

impl Link {
    /// Returns a link with one subflow over the system's default path and without forwards.
    pub fn new(name: impl Into<String>, peer: Target) -> Link {
        Link {
            name: name.into(),
            peer,
            expected_key: ExpectedKey::Known(None),
            paths: LinkPaths::default(),
            subflows: 1,
            carrier: None,
            mode: None,
            timing: None,
            exits_on_failure: false,
            forwards: Vec::new(),
        }
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
            carrier: None,
            mode: None,
            timing: None,
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
