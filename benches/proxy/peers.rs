//! The proxies that can be measured: how each is found, started and configured.
//!
//! Every peer has the best configuration that its documentation and trials show, not its default; the report prints it.
//! All peers run one thread unless their name says otherwise.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::configurations as conf;
use crate::datagram_peers;
use crate::floor;
use crate::link_peers;
use crate::options::Options;
use crate::route::Handshake;

#[derive(Clone)]
pub struct Peer {
    pub name: &'static str,
    /// The name of the program. Several peers are seaprox with different options.
    pub family: &'static str,
    pub handshake: Handshake,
    /// The number of processors that it can keep busy.
    pub threads: usize,
    /// True if it is not tied to a processor of its own.
    pub everywhere: bool,
    pub version: &'static str,
    pub launch: fn(&Place) -> Result<Launch, String>,
    /// True if its admin server, on the second address, is asked once a second while it runs.
    pub scraped: bool,
    /// The node at the other end, where the peer is a pair of nodes with a link between them.
    pub far: Option<Far>,
}

/// The far node of a pair. Its `Launch` holds the address that the near node connects to.
#[derive(Clone)]
pub struct Far {
    pub family: &'static str,
    pub launch: fn(&Place) -> Result<Launch, String>,
}

/// The addresses, paths and limits that a configuration is made from.
#[derive(Clone)]
pub struct Place {
    pub target: SocketAddr,
    /// The address on which the far node of a pair listens for the near node.
    pub link: SocketAddr,
    /// Two addresses to listen on. A peer that needs no difference between small and bulk uses the first for both.
    pub listen: [SocketAddr; 2],
    pub directory: PathBuf,
    /// The number of connections that the peer must be able to hold.
    pub connections_max: usize,
    /// The path of `Launch::file`.
    pub config: PathBuf,
    /// Directories in which nginx's modules may be.
    pub modules: Vec<PathBuf>,
}

pub struct Launch {
    pub args: Vec<String>,
    pub file: Option<String>,
    pub small: SocketAddr,
    pub bulk: SocketAddr,
}

impl Peer {
    /// Returns the index of the build in `--beside`, if the peer is one of those builds.
    pub fn beside(&self) -> Option<usize> {
        BUILDS.iter().position(|name| *name == self.family)
    }

    pub fn program(&self, options: &Options) -> Result<PathBuf, String> {
        if let Some(number) = self.beside() {
            return options.beside.get(number).cloned().ok_or_else(|| "not named with --beside".to_string());
        }
        if self.family == floor::FAMILY {
            return std::env::current_exe().map_err(|error| error.to_string());
        }
        if self.family != "seaprox" {
            return find(self.family).ok_or_else(|| "not installed".to_string());
        }
        let path = options.seaprox.clone().or_else(|| option_env!("CARGO_BIN_EXE_seaprox").map(PathBuf::from));
        match path {
            None => Err("no binary: name one with --seaprox".into()),
            Some(path) if path.exists() => Ok(path),
            Some(path) => Err(format!("{} does not exist", path.display())),
        }
    }
}

/// Finds a program in the folder of peers, in the search path or in the usual directories of daemons.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let peers = std::env::var_os(PEERS_VARIABLE).map(PathBuf::from);
    peers
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(daemons)
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

pub fn module_directories(given: Option<&Path>) -> Vec<PathBuf> {
    let usual = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
    given.map(Path::to_path_buf).into_iter().chain(usual.map(PathBuf::from)).collect()
}

pub fn peer(name: &str) -> Option<&'static Peer> {
    PEERS.iter().chain(&link_peers::PEERS).chain(&datagram_peers::PEERS).find(|peer| peer.name == name)
}

pub const fn plain(name: &'static str, version: &'static str, launch: fn(&Place) -> Result<Launch, String>) -> Peer {
    Peer {
        name,
        family: name,
        handshake: Handshake::None,
        threads: 1,
        everywhere: false,
        version,
        launch,
        scraped: false,
        far: None,
    }
}

const fn seaprox(name: &'static str, launch: fn(&Place) -> Result<Launch, String>) -> Peer {
    Peer { family: "seaprox", ..plain(name, "-V", launch) }
}

/// Other builds of seaprox, in the order in which `--beside` names them.
const BUILDS: [&str; 3] = ["build-1", "build-2", "build-3"];

/// The variable with a folder in which peers are looked for first.
const PEERS_VARIABLE: &str = "SEAPROX_BENCH_PEERS";

pub static PEERS: [Peer; 19] = [
    seaprox("seaprox", conf::seaprox_static),
    seaprox("seaprox-copy", conf::seaprox_copy),
    Peer { scraped: true, ..seaprox("seaprox-admin", conf::seaprox_admin) },
    plain(BUILDS[0], "-V", conf::seaprox_static),
    plain(BUILDS[1], "-V", conf::seaprox_static),
    plain(BUILDS[2], "-V", conf::seaprox_static),
    Peer { everywhere: true, ..seaprox("seaprox-t1", conf::seaprox_static) },
    Peer { everywhere: true, threads: 2, ..seaprox("seaprox-t2", conf::seaprox_two_threads) },
    Peer { handshake: Handshake::Socks5, ..seaprox("seaprox-socks", conf::seaprox_socks) },
    Peer { handshake: Handshake::Connect, ..seaprox("seaprox-http", conf::seaprox_http) },
    plain(floor::FAMILY, "", conf::floor),
    plain("haproxy", "-v", conf::haproxy),
    // A newer version beside that of the system.
    plain("haproxy-latest", "-v", conf::haproxy),
    plain("nginx", "-v", conf::nginx),
    plain("rinetd", "-v", conf::rinetd),
    plain("socat", "-V", conf::socat),
    Peer { handshake: Handshake::Socks5, ..plain("microsocks", "", conf::microsocks) },
    Peer { handshake: Handshake::Socks5, ..plain("danted", "-v", conf::danted) },
    Peer { handshake: Handshake::Connect, ..plain("tinyproxy", "-v", conf::tinyproxy) },
];
