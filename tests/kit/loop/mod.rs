//! The kit of the tests of the loop: a loop that the test turns by hand, and handlers made of closures.
//!
//! No function sleeps for a fixed time: [`Rig::until`] turns the loop until a condition holds, and panics at a
//! deadline.
#![allow(dead_code, unused_imports, reason = "each test uses a part of the kit")]

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use seaprox::{
    Bind, Cause, Config, Cx, Endpoint, Failure, FrontEnd, Handler, Id, ListenConfig, Loop, Proxy, Reason, Role,
    Snapshot, Target, Workers, bind,
};

#[path = "../common.rs"]
mod common;
pub mod ends;
pub mod peers;
pub use common::{Never, refusing};
pub use peers::*;

/// The deadline of every wait. It is far longer than needed, so that no test fails on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A loop that runs only while the test turns it.
pub struct Rig {
    pub proxy: Proxy,
    pub config: Config,
}

impl Rig {
    /// Returns a loop without workers: it resolves no names.
    pub fn new(config: Config) -> Rig {
        Rig { proxy: Proxy::new(config.clone(), None).unwrap(), config }
    }

    /// Returns a loop with two workers.
    pub fn with_workers(config: Config) -> Rig {
        let workers = Workers::start(2, 64).unwrap();
        Rig { proxy: Proxy::new(config.clone(), Some(workers)).unwrap(), config }
    }

    pub fn core(&mut self) -> Loop<'_> {
        self.proxy.core()
    }

    /// Runs one turn, which waits at most 1 ms for events.
    pub fn turn(&mut self) {
        self.proxy.turn(Some(Duration::from_millis(1))).unwrap();
    }

    /// Runs `count` turns.
    pub fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn());
    }

    /// Turns the loop until `look` returns a value, and returns that. `what` names it if the deadline passes.
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

    /// Turns the loop until `so` returns true. `what` names the condition if the deadline passes.
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Proxy) -> bool) {
        self.wait(what, |proxy| so(proxy).then_some(()));
    }

    /// Turns the loop until it has no connection.
    pub fn until_empty(&mut self) {
        self.until("no connection is left", |proxy| proxy.core().snapshot().usage.connections == 0);
    }

    pub fn snapshot(&mut self) -> Snapshot {
        self.proxy.core().snapshot()
    }

    pub fn stats(&mut self) -> seaprox::Stats {
        self.snapshot().stats
    }

    /// Returns the number of connections that ended with a reason.
    pub fn closed(&mut self, reason: Reason) -> u64 {
        self.snapshot().closed().find(|(found, _)| *found == reason).map_or(0, |(_, count)| count)
    }

    /// Listens on a free port of 127.0.0.1 and returns its address. `front` makes the handler of each client.
    pub fn listen(&mut self, front: impl FnMut() -> Box<dyn Handler> + 'static) -> SocketAddr {
        let place = Bind::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let mut bounds = bind(&place, 1, &self.config).unwrap();
        self.core().listen(&mut bounds[0], ListenConfig::new("test", Box::new(front))).unwrap();
        bounds[0].addr().ip().unwrap()
    }

    /// Listens on a free port of 127.0.0.1 with a configuration. Returns the listener and its address.
    pub fn listen_as(&mut self, config: ListenConfig) -> (Id, SocketAddr) {
        let place = Bind::parse("127.0.0.1:0").unwrap();
        let mut bounds = bind(&place, 1, &self.config).unwrap();
        let listener = self.core().listen(&mut bounds[0], config).unwrap();
        (listener, bounds[0].addr().ip().unwrap())
    }

    /// Adopts one end of a new socket pair as a connection. Returns its id and the other end.
    pub fn adopt(&mut self, kind: Kind, handler: Box<dyn Handler>) -> (Id, Peer) {
        let (peer, ours) = pair(kind);
        (self.core().adopt(ours, "test", handler).unwrap(), peer)
    }

    /// Accepts a connection that the loop has dialed.
    pub fn accept(&mut self, listener: &TcpListener) -> Peer {
        listener.set_nonblocking(true).unwrap();
        self.wait("a connection arrives", |_| listener.accept().ok().map(|(socket, _)| Peer::new(socket)))
    }

    /// Turns the loop until the peer has sent all of `bytes`.
    pub fn send(&mut self, peer: &mut Peer, bytes: &[u8]) {
        let mut sent = 0;
        self.until("everything is sent", |_| {
            sent += peer.try_send(&bytes[sent..]);
            sent == bytes.len()
        });
    }

    /// Sends until all buffers on the way to a reader that does not read are full. Returns the number of bytes.
    pub fn congest(&mut self, peer: &mut Peer, id: Id, to: Role) -> usize {
        let (mut sent, mut quiet) = (0, 0);
        self.until("the connection is congested", |proxy| {
            let put = peer.fill();
            sent += put;
            quiet = if put == 0 && proxy.core().connection(id).unwrap().queued(to) > 0 { quiet + 1 } else { 0 };
            quiet == 10
        });
        sent
    }

    /// Turns the loop until the peer has received exactly `count` bytes.
    pub fn receive(&mut self, peer: &mut Peer, count: usize) -> Vec<u8> {
        let mut got = Vec::new();
        self.until("the bytes arrive", |_| {
            peer.try_receive(&mut got, count);
            got.len() == count
        });
        got
    }

    /// Receives until the FIN. Panics if a reset comes instead.
    pub fn receive_all(&mut self, peer: &mut Peer) -> Vec<u8> {
        let mut got = Vec::new();
        let end = self.wait("the end arrives", |_| peer.try_receive(&mut got, usize::MAX));
        assert_eq!(end, End::Fin, "after {} bytes", got.len());
        got
    }

    /// Receives until a FIN or a reset.
    pub fn receive_end(&mut self, peer: &mut Peer) -> (Vec<u8>, End) {
        let mut got = Vec::new();
        let end = self.wait("an end arrives", |_| peer.try_receive(&mut got, usize::MAX));
        (got, end)
    }
}

/// Returns the limits of a small loop; without splicing if SEAPROX_TEST_NO_SPLICE is 1.
pub fn config() -> Config {
    let mut config = Config::default();
    config.limits.connections = 64;
    if std::env::var_os("SEAPROX_TEST_NO_SPLICE").is_some_and(|value| value == "1") {
        config.limits.pipes = 0;
    }
    config
}

/// Returns a configuration for each mode of the relay: copying, and splicing unless SEAPROX_TEST_NO_SPLICE is 1.
pub fn modes() -> Vec<Config> {
    let copy = Config { limits: seaprox::Limits { pipes: 0, ..config().limits }, ..config() };
    if config().limits.pipes == 0 { vec![copy] } else { vec![copy, config()] }
}

/// A call of a handler.
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

/// Returns a handler that calls one closure. The closure's result is used for `Readable` only. Unlike the trait's
/// default methods, a call that the closure ignores has no effect; the closure can call [`by_default`] for that.
pub fn handler(what: impl FnMut(&mut Cx<'_>, Call<'_>) -> usize + 'static) -> Box<dyn Handler> {
    Box::new(Closure(what))
}

/// Returns the stage of a connection, or `None` if it is over.
pub fn stage_of(core: &mut Loop<'_>, connection: Id) -> Option<seaprox::Stage> {
    Some(core.connection(connection).ok()?.stage())
}

/// Connects the dest of a connection that has none.
pub fn dial(cx: &mut Cx<'_>, target: impl Into<Target>) {
    cx.connect(target.into(), None).unwrap();
}

/// Does what the trait's default methods do; relays when connected.
pub fn by_default(cx: &mut Cx<'_>, call: &Call<'_>) -> usize {
    match call {
        Call::Timeout => cx.close(Reason::HandshakeTimeout),
        Call::Ended(Cause::Fin) => {
            let reason = cx.fin_reason();
            cx.close(reason)
        }
        Call::Ended(Cause::Reset) => cx.close(Reason::DestReset),
        Call::Connected(Ok(())) => cx.relay(),
        Call::Connected(Err(failure)) => cx.close(failure.reason),
        _ => {}
    }
    0
}

/// Returns a handler that relays its client to a target.
pub fn relay_to(target: impl Into<Target>) -> Box<dyn Handler> {
    let target = Rc::new(target.into());
    handler(move |cx, call| {
        if matches!(call, Call::Opened) {
            cx.connect(Rc::clone(&target), None).unwrap();
        }
        by_default(cx, &call)
    })
}

/// A log of calls that a handler shares with its test.
#[derive(Clone, Default)]
pub struct Heard(Rc<RefCell<Vec<String>>>);

impl Heard {
    /// Appends a line.
    pub fn say(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    /// Appends a line for a call, such as `source readable hello`.
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

/// A small random number generator (xorshift), so that a run depends on its seed only.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }
}

/// Returns `count` pseudo-random bytes, the same for the same `count`.
pub fn pattern(count: usize) -> Vec<u8> {
    let mut random = Random(count as u64 + 1);
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
