//! What the tests of the loop share: a loop that is turned by hand, and handlers made of closures.
//!
//! Nothing here sleeps and hopes: [`Rig::until`] turns the loop until something is so, or fails at a deadline.
#![allow(dead_code, unused_imports, reason = "each test uses a part of the kit")]

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use seaprox::{
    Bind, Cause, Config, Core, Cx, Endpoint, Failure, FrontEnd, Handler, Id, Proxy, Reason, Role, Snapshot, Target,
    Workers, bind,
};

pub mod peers;
pub use peers::*;

/// Until when something must have happened. Far more than it takes, so that a busy machine does not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A loop that the test turns.
pub struct Rig {
    pub proxy: Proxy,
    pub config: Config,
}

impl Rig {
    pub fn new(config: Config) -> Rig {
        Rig { proxy: Proxy::new(config.clone(), None).unwrap(), config }
    }

    pub fn with_workers(config: Config) -> Rig {
        let workers = Workers::start(2, 64).unwrap();
        Rig { proxy: Proxy::new(config.clone(), Some(workers)).unwrap(), config }
    }

    pub fn core(&mut self) -> &mut Core {
        self.proxy.core()
    }

    /// One turn that hardly waits.
    pub fn turn(&mut self) {
        self.proxy.turn(Some(Duration::from_millis(1))).unwrap();
    }

    pub fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    /// Turns the loop until there is something.
    pub fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Proxy) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(&mut self.proxy) {
                return found;
            }
            assert!(Instant::now() < deadline, "never: {what}\n{:#?}", self.snapshot());
            self.turn();
        }
    }

    /// Turns the loop until something is so.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Proxy) -> bool) {
        self.wait(what, |proxy| so(proxy).then_some(()));
    }

    /// Turns the loop until all connections are over.
    pub fn until_empty(&mut self) {
        self.until("no connection is left", |proxy| proxy.core().snapshot().usage.connections == 0);
    }

    pub fn snapshot(&mut self) -> Snapshot {
        self.proxy.core().snapshot()
    }

    pub fn stats(&mut self) -> seaprox::Stats {
        self.snapshot().stats
    }

    /// How many connections ended for a reason.
    pub fn closed(&mut self, reason: Reason) -> u64 {
        self.snapshot().closed().find(|(found, _)| *found == reason).map_or(0, |(_, count)| count)
    }

    /// Listens on a port of the system's choice on 127.0.0.1.
    pub fn listen(&mut self, front: impl FnMut() -> Box<dyn Handler> + 'static) -> SocketAddr {
        let place = Bind::Ip((Ipv4Addr::LOCALHOST, 0).into());
        let mut bounds = bind(&place, 1, &self.config).unwrap();
        self.core().listen(&mut bounds[0], &[], "test", Box::new(front)).unwrap();
        bounds[0].addr().ip().unwrap()
    }

    /// Makes a connection of a fresh pair of sockets; gives the peer's end.
    pub fn adopt(&mut self, kind: Kind, handler: Box<dyn Handler>) -> (Id, Peer) {
        let (peer, ours) = pair(kind);
        (self.core().adopt_socket(ours, "test", handler).unwrap(), peer)
    }

    /// Accepts a connection that the loop makes.
    pub fn accept(&mut self, listener: &TcpListener) -> Peer {
        listener.set_nonblocking(true).unwrap();
        self.wait("a connection arrives", |_| listener.accept().ok().map(|(socket, _)| Peer::new(socket)))
    }

    /// Sends everything, however long the loop takes to read it.
    pub fn send(&mut self, peer: &mut Peer, bytes: &[u8]) {
        let mut sent = 0;
        self.until("everything is sent", |_| {
            sent += peer.try_send(&bytes[sent..]);
            sent == bytes.len()
        });
    }

    /// Sends until nothing moves any more, up to a reader that does not read; how many bytes that was.
    pub fn congest(&mut self, peer: &mut Peer, id: Id, to: Role) -> usize {
        let (mut sent, mut quiet) = (0, 0);
        self.until("it is congested", |proxy| {
            let put = peer.fill();
            sent += put;
            quiet = if put == 0 && proxy.core().queued(id, to) > 0 { quiet + 1 } else { 0 };
            quiet == 10
        });
        sent
    }

    /// Receives exactly so many bytes.
    pub fn receive(&mut self, peer: &mut Peer, count: usize) -> Vec<u8> {
        let mut got = Vec::new();
        self.until("the bytes arrive", |_| {
            peer.try_receive(&mut got, count);
            got.len() == count
        });
        got
    }

    /// Receives until the orderly end.
    pub fn receive_all(&mut self, peer: &mut Peer) -> Vec<u8> {
        let mut got = Vec::new();
        let end = self.wait("the end arrives", |_| peer.try_receive(&mut got, usize::MAX));
        assert_eq!(end, End::Fin, "after {} bytes", got.len());
        got
    }

    /// Receives until the end of whatever kind.
    pub fn receive_end(&mut self, peer: &mut Peer) -> (Vec<u8>, End) {
        let mut got = Vec::new();
        let end = self.wait("an end arrives", |_| peer.try_receive(&mut got, usize::MAX));
        (got, end)
    }
}

/// A small loop; without splicing if the run asks for that.
pub fn config() -> Config {
    let mut config = Config::default();
    config.limits.connections = 64;
    if std::env::var_os("SEAPROX_TEST_NO_SPLICE").is_some_and(|value| value == "1") {
        config.limits.pipes = 0;
    }
    config
}

/// The two modes of the relay: copying, and splicing if the run allows it.
pub fn modes() -> Vec<Config> {
    let copy = Config { limits: seaprox::Limits { pipes: 0, ..config().limits }, ..config() };
    if config().limits.pipes == 0 { vec![copy] } else { vec![copy, config()] }
}

/// What a handler is called for.
#[derive(Debug)]
pub enum Call<'a> {
    Opened,
    Readable(&'a [u8]),
    Writable,
    Connected(Result<(), &'a Failure>),
    Timeout,
    Ended(Cause),
}

struct Closure<F>(F);

impl<F: FnMut(&mut Cx<'_>, Call<'_>) -> usize> Handler for Closure<F> {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        (self.0)(cx, Call::Opened);
    }
    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        (self.0)(cx, Call::Readable(input))
    }
    fn writable(&mut self, cx: &mut Cx<'_>) {
        (self.0)(cx, Call::Writable);
    }
    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        (self.0)(cx, Call::Connected(result));
    }
    fn timeout(&mut self, cx: &mut Cx<'_>) {
        (self.0)(cx, Call::Timeout);
    }
    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        (self.0)(cx, Call::Ended(cause));
    }
}

/// A handler of one closure. What it returns counts for `Readable` only. Unlike the trait's defaults it does nothing at
/// all by itself: [`by_default`] does what they do.
pub fn handler(what: impl FnMut(&mut Cx<'_>, Call<'_>) -> usize + 'static) -> Box<dyn Handler> {
    Box::new(Closure(what))
}

/// What the trait does where a handler does nothing.
pub fn by_default(cx: &mut Cx<'_>, call: &Call<'_>) -> usize {
    match call {
        Call::Timeout => cx.end(Reason::HandshakeTimeout),
        Call::Ended(Cause::Fin) => cx.end(cx.fin_reason()),
        Call::Ended(Cause::Reset) => cx.end(Reason::DestReset),
        Call::Connected(Ok(())) => cx.relay(),
        Call::Connected(Err(failure)) => cx.end(failure.reason),
        _ => {}
    }
    0
}

/// Relays every client to one target.
pub fn relay_to(target: impl Into<Target>) -> Box<dyn Handler> {
    let target = Rc::new(target.into());
    handler(move |cx, call| {
        if matches!(call, Call::Opened) {
            cx.connect(Rc::clone(&target), None);
        }
        by_default(cx, &call)
    })
}

/// What was heard, shared between a handler and its test.
#[derive(Clone, Default)]
pub struct Heard(Rc<RefCell<Vec<String>>>);

impl Heard {
    pub fn say(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    pub fn note(&self, role: Role, call: &Call<'_>) {
        self.say(match call {
            Call::Readable(input) => format!("{role} readable {}", String::from_utf8_lossy(input)),
            Call::Connected(Err(failure)) => format!("{role} connected {}", failure.reason),
            Call::Connected(Ok(())) => format!("{role} connected"),
            Call::Ended(cause) => format!("{role} ended {cause:?}"),
            call => format!("{role} {call:?}").to_lowercase(),
        });
    }

    pub fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub fn count(&self, what: &str) -> usize {
        self.0.borrow().iter().filter(|heard| *heard == what).count()
    }

    pub fn has(&self, what: &str) -> bool {
        self.count(what) > 0
    }
}

/// A small generator (xorshift), so that a seed says everything about a run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }
}

/// Bytes that differ from place to place.
pub fn pattern(count: usize) -> Vec<u8> {
    let mut random = Random(count as u64 + 1);
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
