//! The kit of the tests of links in the loop: nodes that run in threads of their own, and sockets at both ends.
//!
//! Every wait has a deadline.
#![allow(dead_code, unused_imports)] // Each test file uses its part.

#[path = "../common.rs"]
mod common;
pub mod cutter;
pub mod datagram_relay;
pub mod faulty;
#[cfg(unix)]
pub mod pipes;

pub use common::{Never, free_addr, refusing};

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use seaprox::node::{
    CarrierKind, Identity, LinkConfig, LinkEvent, LinkStatus, Path, PeerKey, Policy, Reverse, ServeConfig, Timing,
    Verdict,
};
use seaprox::{
    Bind, Config, Cx, Failure, Handler, Id, LinkState, ListenConfig, Loop, Proxy, Reason, Remote, Target, Workers, bind,
};

/// The deadline of every wait.
pub const SOON: Duration = Duration::from_secs(20);

/// Runs a test that measures its process in a process of its own: this executable again, with this test only. `name` is
/// the full name of the test.
#[track_caller]
pub fn in_own_process(name: &str, test: impl FnOnce()) {
    const OWN: &str = "SEAPROX_TEST_OWN_PROCESS";
    if std::env::var_os(OWN).is_some() {
        return test();
    }
    let mut command = std::process::Command::new(std::env::current_exe().expect("this executable"));
    let ran = command.args(["--exact", name, "--nocapture"]).env(OWN, "1").output().expect("a process");
    let [out, err] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(ran.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

/// Polls until `is_true` returns true. Panics with `what` after [`SOON`].
#[track_caller]
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_true() {
        assert!(since.elapsed() < SOON, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A policy that permits everything, unless the test changes a field.
pub struct Open {
    /// The admitted keys; empty admits all.
    pub keys: Mutex<Vec<PeerKey>>,
    pub opens: AtomicBool,
    /// The number of checks of streams.
    pub asked: AtomicU64,
    pub listens: AtomicBool,
    pub streams_max: Mutex<Option<u32>>,
    pub rate_max: Mutex<Option<u64>>,
}

impl Open {
    pub fn new() -> Arc<Open> {
        Arc::new(Open {
            keys: Mutex::default(),
            opens: AtomicBool::new(true),
            asked: AtomicU64::new(0),
            listens: AtomicBool::new(true),
            streams_max: Mutex::default(),
            rate_max: Mutex::default(),
        })
    }
}

impl Policy for Open {
    fn admits(&self, key: &PeerKey) -> bool {
        let keys = self.keys.lock().unwrap();
        keys.is_empty() || keys.contains(key)
    }

    fn name(&self, _: &PeerKey) -> String {
        "peer".into()
    }

    fn may_open(&self, _: &PeerKey, _: &Target) -> Verdict {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.opens.load(Ordering::Relaxed) { Verdict::Yes } else { Verdict::No }
    }

    fn may_listen(&self, _: &PeerKey, _: &Bind) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    fn streams_max(&self, _: &PeerKey) -> Option<u32> {
        *self.streams_max.lock().unwrap()
    }

    fn rate_max(&self, _: &PeerKey) -> Option<u64> {
        *self.rate_max.lock().unwrap()
    }
}

/// A loop in a thread of its own, with links in it.
pub struct Node {
    pub remote: Remote,
    pub policy: Arc<Open>,
    pub happened: Arc<Mutex<Vec<LinkEvent>>>,
    pub closed: Arc<Mutex<Vec<Reason>>>,
    thread: Option<JoinHandle<()>>,
}

/// Returns timers for tests, with short pauses between redials.
pub fn timing() -> Timing {
    Timing { redial: (Duration::from_millis(20), Duration::from_millis(200)), ..Timing::default() }
}

/// Returns the identity of the node with this seed.
pub fn identity(seed: u8) -> Identity {
    Identity { seed: [seed; 32], ciphers: Vec::new(), groups: Vec::new(), instance: None }
}

impl Node {
    /// Starts a node without links.
    pub fn start() -> Node {
        Node::with(|_| {})
    }

    /// Starts a node whose configuration is changed first.
    pub fn with(change: impl FnOnce(&mut Config) + Send + 'static) -> Node {
        Node::run_by(|proxy| proxy.run().unwrap(), change)
    }

    /// Starts a node without links whose loop `run` drives.
    pub fn run_by(run: fn(&mut Proxy), change: impl FnOnce(&mut Config) + Send + 'static) -> Node {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let workers = Workers::start(2, 64).unwrap();
            let config = Config::default();
            let limits = seaprox::Limits { connections: 5000, ..config.limits.clone() };
            let mut config = Config { limits, ..config };
            change(&mut config);
            let mut proxy = Proxy::new(config, Some(workers)).unwrap();
            tell.send(proxy.remote()).unwrap();
            run(&mut proxy);
        });
        Node {
            remote: told.recv().unwrap(),
            policy: Open::new(),
            happened: Arc::default(),
            closed: Arc::default(),
            thread: Some(thread),
        }
    }

    /// Runs a closure in the loop. Returns its result.
    pub fn ask<T: Send + 'static>(&self, what: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static) -> T {
        let (tell, told) = std::sync::mpsc::channel();
        self.remote.call(move |core| tell.send(what(core)).unwrap()).unwrap();
        told.recv_timeout(SOON).expect("an answer of the loop")
    }

    fn watch(&self) -> impl FnMut(&mut Loop<'_>, Id, &LinkEvent) + Send + use<> {
        let happened = Arc::clone(&self.happened);
        move |_: &mut Loop<'_>, _: Id, what: &LinkEvent| happened.lock().unwrap().push(what.clone())
    }

    /// Accepts links on a free port. Returns its address.
    pub fn serve(&self) -> SocketAddr {
        self.serve_at("127.0.0.1:0".parse().unwrap(), timing())
    }

    /// Accepts links on an address, with these timers. Returns the bound address.
    pub fn serve_at(&self, addr: SocketAddr, timing: Timing) -> SocketAddr {
        self.serve_over(CarrierKind::default(), addr, timing)
    }

    /// Accepts links on an address by a kind of carrier. Returns the bound address.
    pub fn serve_over(&self, carrier: CarrierKind, addr: SocketAddr, timing: Timing) -> SocketAddr {
        self.serve_with(addr, move |config| (config.carrier, config.timing) = (carrier, timing))
    }

    /// Accepts links on an address, with a configuration that is changed first. Returns the bound address.
    pub fn serve_with(&self, addr: SocketAddr, change: impl FnOnce(&mut ServeConfig) + Send + 'static) -> SocketAddr {
        let (policy, watch, other) = (Arc::clone(&self.policy) as Arc<dyn Policy>, self.watch(), self.watch());
        self.ask(move |core| {
            let new = ServeConfig::new(identity(2), policy);
            let mut config = ServeConfig { timing: timing(), on_event: Box::new(watch), ..new };
            change(&mut config);
            let (carrier, identity, times) = (config.carrier, config.identity.clone(), config.timing.clone());
            let policy = Arc::clone(&config.policy);
            let mut bound = carrier.bind(&Bind::from(addr), core.config()).unwrap();
            core.serve_links(&mut bound[0], config).unwrap();
            if let Some(beside) = bound.get_mut(1) {
                let new = ServeConfig::new(identity, policy);
                core.serve_links(beside, ServeConfig { carrier, timing: times, on_event: Box::new(other), ..new })
                    .unwrap();
            }
            bound[0].addr().ip().unwrap()
        })
    }

    /// Dials a link. Returns its id.
    pub fn link(&self, peer: SocketAddr) -> Id {
        self.link_with(peer, |_| {})
    }

    /// Dials a link over TCP alone. Returns its id.
    pub fn link_over_tcp(&self, peer: SocketAddr) -> Id {
        self.link_with(peer, |config| config.carrier = CarrierKind::Tcp)
    }

    /// Dials a link whose configuration is changed first. Returns its id.
    pub fn link_with(&self, peer: SocketAddr, change: impl FnOnce(&mut LinkConfig) + Send + 'static) -> Id {
        let (policy, watch) = (Arc::clone(&self.policy) as Arc<dyn Policy>, self.watch());
        self.ask(move |core| {
            let new = LinkConfig::new(identity(1), policy, peer.into());
            let mut config = LinkConfig { timing: timing(), on_event: Box::new(watch), ..new };
            change(&mut config);
            core.connect_link(config).unwrap().id
        })
    }

    /// Listens for clients and forwards them over a link to a target. Returns the listening address.
    pub fn forward(&self, link: Id, target: Target) -> SocketAddr {
        let closed = Arc::clone(&self.closed);
        self.ask(move |core| {
            let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
            let target = Rc::new(target);
            let front = move || -> Box<dyn Handler> { Box::new(Forward(Rc::clone(&target), Arc::clone(&closed))) };
            let config = ListenConfig { link: Some(link), ..ListenConfig::new("static", Box::new(front)) };
            core.listen(&mut bound[0], config).unwrap();
            bound[0].addr().ip().unwrap()
        })
    }

    /// Returns the status of all links of the node.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.ask(|core| core.links())
    }

    /// Returns true if such an event has happened.
    pub fn has(&self, kind: impl Fn(&LinkEvent) -> bool) -> bool {
        self.happened.lock().unwrap().iter().any(kind)
    }

    /// Waits until a link of the node is up.
    #[track_caller]
    pub fn until_up(&self) {
        until("the link is up", || self.links().iter().any(|link| link.state == LinkState::Up));
    }

    /// Starts to drain.
    pub fn drain(&self, timeout: Duration) {
        self.ask(move |core| core.drain(timeout));
    }

    /// Returns true if the loop has ended.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Returns true if all ended connections of the forwards were closed in order.
    pub fn has_closed_in_order(&self) -> bool {
        self.closed.lock().unwrap().iter().all(|reason| matches!(reason, Reason::SourceFin | Reason::DestFin))
    }

    /// Returns a remote forward: the peer listens on `listen`, and its clients are connected to `to` here.
    pub fn reverse(listen: Bind, to: SocketAddr) -> Reverse {
        Reverse { listen, to: to.into() }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The call fails if the loop has already ended.
        let _ = self.remote.call(|core| core.stop());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the loop panicked");
        }
    }
}

/// Relays to one target and records the reason of the end.
pub struct Forward(pub Rc<Target>, pub Arc<Mutex<Vec<Reason>>>);

impl Handler for Forward {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        cx.connect(Rc::clone(&self.0), None).unwrap();
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }

    fn ended(&mut self, _: &mut Cx<'_>, cause: seaprox::Cause) {
        if let seaprox::Cause::Over(reason) = cause {
            self.1.lock().unwrap().push(reason);
        }
    }
}

/// Returns the byte at offset `at` of the pattern with this seed.
pub fn pattern(seed: u64, at: u64) -> u8 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(seed).rotate_left(23) >> 11) as u8
}

/// Sends `count` bytes of a pattern.
pub fn send_pattern(socket: &mut TcpStream, seed: u64, count: u64) {
    let mut at = 0;
    while at < count {
        let piece: Vec<u8> = (at..count.min(at + 65536)).map(|at| pattern(seed, at)).collect();
        socket.write_all(&piece).expect("a write");
        at += piece.len() as u64;
    }
}

/// Reads `count` bytes and checks them against a pattern.
#[track_caller]
pub fn read_pattern(socket: &mut TcpStream, seed: u64, count: u64) {
    read_pattern_from(socket, seed, 0, count);
}

/// Reads the bytes of a pattern from one offset to another.
#[track_caller]
pub fn read_pattern_from(socket: &mut TcpStream, seed: u64, from: u64, to: u64) {
    let (mut at, mut buf) = (from, vec![0; 65536]);
    while at < to {
        let wished = buf.len().min((to - at) as usize);
        let got = socket.read(&mut buf[..wished]).expect("a read");
        assert!(got > 0, "the stream ended at {at} of {to}");
        for byte in &buf[..got] {
            assert_eq!(*byte, pattern(seed, at), "at {at}");
            at += 1;
        }
    }
}

/// Returns a listener for the far node to connect to, and its address.
pub fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Returns a connected socket whose reads and writes have a deadline.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.set_write_timeout(Some(SOON)).unwrap();
    socket
}

/// Accepts the next client of a listener. Its reads and writes have a deadline.
#[track_caller]
pub fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    until("a client connects", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let socket = accepted.unwrap().0;
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.set_write_timeout(Some(SOON)).unwrap();
    socket
}

/// Moves bytes over a link in both directions at once. Returns the client and the server, whose connection is still open.
#[track_caller]
pub fn both_ways(near: &Node, link: Id, count: u64) -> (TcpStream, TcpStream) {
    let (listener, addr) = target();
    let mut client = connect(near.forward(link, addr.into()));
    let mut server = accept(&listener);
    std::thread::scope(|scope| {
        let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        scope.spawn(move || send_pattern(&mut up, 1, count));
        scope.spawn(move || send_pattern(&mut down, 2, count));
        scope.spawn(|| read_pattern(&mut server, 1, count));
        read_pattern(&mut client, 2, count);
    });
    (client, server)
}

/// Reads one byte. Returns 0 at a FIN and the kind of the error at a reset.
#[track_caller]
pub fn read_end(socket: &mut TcpStream) -> Result<usize, std::io::ErrorKind> {
    socket.read(&mut [0; 1]).map_err(|error| error.kind())
}
