//! Two real nodes in the hosts of a network, with a link between them and a listener of the test behind it.
//!
//! It owns the two processes and the secret that they share, and reads their output and their metrics. `Path` changes
//! the paths between them.

use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use super::{Host, Net, own_ip};
use crate::kit::{Peer, SOON, Scratch, Seaprox, until};

/// The port where the far node accepts links.
pub const PORT: u16 = 23_232;

/// A link between two processes.
pub struct Nodes {
    pub near: Seaprox,
    pub far: Seaprox,
    pub secret: Secret,
}

/// A link, and a port of the near host whose clients are forwarded to a listener in the far host.
pub struct Forward {
    pub nodes: Nodes,
    pub listener: TcpListener,
    near: Host,
}

/// The arguments of the two nodes.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    pub both: &'a [&'a str],
    pub near: &'a [&'a str],
    pub far: &'a [&'a str],
}

/// A file with a secret, for nodes that trust one another completely.
pub struct Secret(Scratch);

impl Secret {
    pub fn new() -> Secret {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let path = scratch.write("secret", "a secret that is long enough for both nodes\n");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("a file of its owner's");
        Secret(scratch)
    }

    /// Returns the options that name the secret.
    pub fn options(&self) -> [String; 4] {
        ["--secret".into(), self.0.file("secret"), "--config-dir".into(), self.0.file("config")]
    }

    /// Returns the command line of a node that accepts links.
    pub fn far(&self, options: &[&str]) -> Vec<String> {
        self.line(&["link", "--listen", &format!("0.0.0.0:{PORT}")], options)
    }

    /// Returns the command line of a node that dials the far host of a network.
    pub fn near(&self, options: &[&str]) -> Vec<String> {
        self.line(&["link", "--connect", &format!("{}:{PORT}", own_ip(1))], options)
    }

    /// Returns a command line with the options for this secret.
    pub fn line(&self, first: &[&str], options: &[&str]) -> Vec<String> {
        let first = first.iter().chain(options).map(|word| (*word).to_owned());
        first.chain(self.options()).collect()
    }
}

/// Starts a node in a host, and does not wait until it is ready.
pub fn spawn(host: &Host, line: &[String]) -> Seaprox {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    Seaprox::spawn(&words, |command| host.enter(command))
}

/// Starts a node in a host.
#[track_caller]
pub fn start(host: &Host, line: &[String]) -> Seaprox {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    Seaprox::start_with(&words, |command| host.enter(command))
}

impl Nodes {
    /// Starts both nodes; the near one dials the far host's own address, over the paths in its options.
    #[track_caller]
    pub fn start(net: &Net, options: Options) -> Nodes {
        let secret = Secret::new();
        let far = start(net.far(), &secret.far(&[options.both, options.far].concat()));
        let near = start(net.near(), &secret.near(&[options.both, options.near].concat()));
        let nodes = Nodes { near, far, secret };
        nodes.until_up();
        nodes
    }

    #[track_caller]
    pub fn until_up(&self) {
        until("the link is up", || self.near.out().iter().any(|line| line.starts_with("link up ")));
    }

    /// Returns the address where the near node listens for clients of this kind.
    #[track_caller]
    pub fn front(&self, kind: &str) -> SocketAddr {
        front(&self.near, kind)
    }

    /// Waits until this many subflows of the link carry. Backups are not among them.
    #[track_caller]
    pub fn until_subflows(&self, count: usize) {
        until("all subflows carry", || {
            let subflows = subflows(&self.near);
            subflows.iter().filter(|s| s["state"] == "live" && s["backup"] == false).count() == count
        });
    }

    /// Waits until the link has this many live subflows, backups among them.
    #[track_caller]
    pub fn until_live(&self, count: usize) {
        until("all subflows are live", || {
            subflows(&self.near).iter().filter(|subflow| subflow["state"] == "live").count() == count
        });
    }
}

/// Returns the address where a node listens for clients of this kind.
#[track_caller]
pub fn front(node: &Seaprox, kind: &str) -> SocketAddr {
    let head = format!("listening {kind} ");
    let mut found = None;
    until("the node listens", || {
        found = node.out().iter().find_map(|line| line.strip_prefix(&head)?.split(' ').next()?.parse().ok());
        found.is_some()
    });
    found.expect("found")
}

/// Returns the subflows of a node's only link.
#[track_caller]
pub fn subflows(node: &Seaprox) -> Vec<Value> {
    node.status().pointer("/links/0/subflows").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Returns the number of bytes that a node has sent from an address, on subflows of its only link that are live.
#[track_caller]
pub fn sent_from(node: &Seaprox, from: &str) -> u64 {
    let is_its = |local: &str| local.starts_with(&format!("{from}:"));
    let live = subflows(node).into_iter().filter(|subflow| subflow["state"] == "live");
    let its = live.filter(|subflow| is_its(subflow["local"].as_str().expect("an address")));
    its.map(|subflow| subflow["bytes_sent"].as_u64().expect("a number")).sum()
}

/// Waits until a node's only link has live subflows of these transports, and no other subflow.
#[track_caller]
pub fn until_carried(node: &Seaprox, wanted: &[&str]) {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    until(&format!("{wanted:?} are live"), || {
        let all = subflows(node);
        let live = all.iter().filter(|subflow| subflow["state"] == "live");
        let mut names: Vec<&str> = live.filter_map(|subflow| subflow["carrier"].as_str()).collect();
        names.sort_unstable();
        names == wanted && all.len() == wanted.len()
    });
}

/// Returns a number of a node's only link, by its name in the JSON.
#[track_caller]
pub fn link_figure(node: &Seaprox, name: &str) -> u64 {
    node.figure(&format!("/links/0/{name}"))
}

impl Forward {
    #[track_caller]
    pub fn start(net: &Net, options: Options) -> Forward {
        let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let local = format!("127.0.0.1:0:{}", listener.local_addr().expect("the listener's address"));
        let near = [&["-L", &local], options.near].concat();
        let nodes = Nodes::start(net, Options { near: &near, ..options });
        Forward { nodes, listener, near: net.near().clone() }
    }

    /// Starts the near node beside a far node that runs already.
    #[track_caller]
    pub fn with_far(net: &Net, (far, secret): (Seaprox, Secret), listener: TcpListener, options: &[&str]) -> Forward {
        let local = format!("127.0.0.1:0:{}", listener.local_addr().expect("the listener's address"));
        let near = start(net.near(), &secret.near(&[&["-L", &local], options].concat()));
        let nodes = Nodes { near, far, secret };
        nodes.until_up();
        Forward { nodes, listener, near: net.near().clone() }
    }

    /// Returns a client in the near host and its other end in the far host.
    #[track_caller]
    pub fn peers(&self) -> (Peer, Peer) {
        let front = self.nodes.front("static");
        let client = self.near.inside(|| Peer::connect(front));
        (client, Peer::accept(&self.listener))
    }

    /// Returns the same two ends as plain sockets.
    #[track_caller]
    pub fn pair(&self) -> (TcpStream, TcpStream) {
        let (client, server) = self.peers();
        let plain = |peer: &Peer| TcpStream::from(peer.socket().try_clone().expect("a descriptor"));
        (plain(&client), plain(&server))
    }
}

/// Connects from one host to an address of the other without any node, and returns both ends.
#[track_caller]
pub fn direct(near: &Host, far: &Host, from: std::net::Ipv4Addr, to: std::net::Ipv4Addr) -> (TcpStream, TcpStream) {
    let listener = far.inside(|| TcpListener::bind((to, 0)).expect("a port"));
    let addr = listener.local_addr().expect("the listener's address");
    let client = near.inside(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this host");
        socket.connect_timeout(&addr.into(), SOON).expect("a connection");
        TcpStream::from(socket)
    });
    let server = listener.accept().expect("the client").0;
    (client, server)
}
