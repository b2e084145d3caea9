//! Pairs of pipes of every kind, and a way to wait for them. A wait is for events alone: a pipe that forgets to wake its user
//! fails the test at the deadline.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use seaprox::node::{LinkConfig, Policy, ServeConfig};
use seaprox::pipes::{Atomic, Datagram, MemoryPipe, Pipe, PipeError, Poller, SocketPipe, StreamPipe, TlsPipe};
use seaprox::{Bind, Id, Target, bind};

use super::{Node, Open, SOON, identity, timing};

/// A kind of pipe, or a stack of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp,
    Unix,
    Memory,
    Tls,
    /// A stream of a link with one subflow.
    Stream,
    /// A stream of a link with two subflows.
    Striped,
    Atomic,
    Datagram,
    /// Datagrams over atomic sends over TLS over TCP.
    TcpStack,
    /// Datagrams over atomic sends over TLS over a stream of a link with two subflows.
    StripedStack,
}

impl Kind {
    pub const ALL: [Kind; 10] = [
        Kind::Tcp,
        Kind::Unix,
        Kind::Memory,
        Kind::Tls,
        Kind::Stream,
        Kind::Striped,
        Kind::Atomic,
        Kind::Datagram,
        Kind::TcpStack,
        Kind::StripedStack,
    ];

    /// Returns true if a reset reaches the peer as a reset. A Unix socket has none.
    pub fn has_reset(self) -> bool {
        self != Kind::Unix
    }

    /// Returns true if the loops of two nodes carry the bytes.
    pub fn has_loops(self) -> bool {
        matches!(self, Kind::Stream | Kind::Striped | Kind::StripedStack)
    }
}

/// A pipe of any kind.
pub type Any = Box<dyn Pipe>;

/// The nodes with the links that streams go over, made when the first pair needs them.
#[derive(Default)]
pub struct Kinds {
    links: Option<Links>,
}

struct Links {
    near: Node,
    one: Id,
    two: Id,
    accepted: Receiver<StreamPipe>,
    far: Node,
}

impl Kinds {
    /// Returns two connected ends.
    pub fn pair(&mut self, kind: Kind) -> [Any; 2] {
        match kind {
            Kind::Tcp => tcp().map(|end| Box::new(end) as Any),
            Kind::Unix => unix().map(|end| Box::new(end) as Any),
            Kind::Memory => {
                let (a, b) = MemoryPipe::pair(100_000);
                [Box::new(a), Box::new(b)]
            }
            Kind::Tls => boxed(tls(tcp())),
            Kind::Stream => boxed(self.stream(1)),
            Kind::Striped => boxed(self.stream(2)),
            Kind::Atomic => boxed(tcp().map(Atomic::new)),
            Kind::Datagram => boxed(unix().map(Datagram::new)),
            Kind::TcpStack => {
                let ([a, b], policy) = (tcp(), policy());
                [
                    Box::new(Datagram::new(Atomic::new(TlsPipe::client(a, &identity(1), &policy)))),
                    Box::new(Datagram::new(Atomic::new(TlsPipe::server(b, &identity(2), &policy)))),
                ]
            }
            Kind::StripedStack => boxed(tls(self.stream(2)).map(|end| Datagram::new(Atomic::new(end)))),
        }
    }

    /// Returns the ends of a new stream over a link with one subflow or two.
    pub fn stream(&mut self, subflows: usize) -> [StreamPipe; 2] {
        let links = self.links.get_or_insert_with(Links::start);
        let link = if subflows == 1 { links.one } else { links.two };
        let near = StreamPipe::open(&links.near.remote, link, Target::parse("pipe.example:1").unwrap());
        [near, links.accepted.recv_timeout(SOON).expect("the far end of the stream")]
    }

    /// Returns the node that accepts the streams.
    pub fn far(&mut self) -> &Node {
        &self.links.get_or_insert_with(Links::start).far
    }

    /// Returns the node that opens the streams.
    pub fn near(&mut self) -> &Node {
        &self.links.get_or_insert_with(Links::start).near
    }

    /// Returns after the loops of both nodes have turned once more.
    pub fn turn_loops(&mut self) {
        self.near().ask(|_| ());
        self.far().ask(|_| ());
    }
}

impl Links {
    fn start() -> Links {
        let (near, far) = (Node::start(), Node::start());
        let (accept, accepted) = channel();
        let (remote, policy) = (far.remote.clone(), Arc::clone(&far.policy) as Arc<dyn Policy>);
        let addr = far.ask(move |core| {
            let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
            let mut config = ServeConfig::new(identity(2), policy);
            config.timing = timing();
            config.on_stream = Some(Box::new(move |_, _| {
                let (pipe, handler) = StreamPipe::new(&remote);
                // A test that is over takes no more pipes.
                let _ = accept.send(pipe);
                Some(Box::new(handler))
            }));
            core.serve_links(&mut bound[0], config).unwrap();
            bound[0].addr().ip().unwrap()
        });
        let dial = |subflows, seed| {
            near.link_with(addr, move |config: &mut LinkConfig| {
                (config.subflows, config.identity) = (subflows, identity(seed));
            })
        };
        let (one, two) = (dial(1, 1), dial(2, 3));
        super::until("both subflows are up", || {
            near.links().iter().map(|link| link.subflows.len()).sum::<usize>() == 3
        });
        Links { one, two, accepted, near, far }
    }
}

fn boxed<P: Pipe + 'static>(ends: [P; 2]) -> [Any; 2] {
    ends.map(|end| Box::new(end) as Any)
}

/// Returns a policy that admits every key.
pub fn policy() -> Arc<dyn Policy> {
    Open::new()
}

/// Returns two ends of a TCP connection.
pub fn tcp() -> [SocketPipe; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    [SocketPipe::new(near), SocketPipe::new(listener.accept().unwrap().0)]
}

/// Returns two ends of a Unix socket.
pub fn unix() -> [SocketPipe; 2] {
    let (a, b) = UnixStream::pair().unwrap();
    [SocketPipe::new(a), SocketPipe::new(b)]
}

/// Puts TLS on both ends.
pub fn tls<P: Pipe>([a, b]: [P; 2]) -> [TlsPipe<P>; 2] {
    let policy = policy();
    [TlsPipe::client(a, &identity(1), &policy), TlsPipe::server(b, &identity(2), &policy)]
}

/// The time that a transfer has. A machine that is busy makes it slow, so the time begins again with each step.
pub struct Patience {
    step_ends: Instant,
    ends: Instant,
}

impl Patience {
    pub fn new() -> Patience {
        Patience { step_ends: Instant::now() + SOON, ends: Instant::now() + 10 * SOON }
    }

    /// Begins again, because the transfer has made a step. Steps without end are bounded too.
    pub fn restart(&mut self) {
        self.step_ends = self.ends.min(Instant::now() + SOON);
    }

    pub fn left(&self) -> Duration {
        self.step_ends.saturating_duration_since(Instant::now())
    }

    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }
}

/// Two pipes and the poll that waits for both.
pub struct Ends<A = Any, B = Any> {
    pub a: A,
    pub b: B,
    poller: Poller,
    swapped: bool,
}

impl<A: Pipe, B: Pipe> Ends<A, B> {
    pub fn new(mut a: A, mut b: B) -> Ends<A, B> {
        let poller = Poller::new().unwrap();
        poller.add(&mut a, 0).unwrap();
        poller.add(&mut b, 1).unwrap();
        Ends { a, b, poller, swapped: false }
    }

    /// Drives the ends whose events are there, without a wait.
    pub fn look(&mut self) {
        for (key, ready) in self.poller.wait(Some(Duration::from_micros(100))).unwrap() {
            let _ = if (key == 0) != self.swapped { self.a.drive(ready) } else { self.b.drive(ready) };
        }
    }

    /// Drives both ends at their events until `is_true` returns true. `what` names the condition if the deadline passes.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_true: impl FnMut(&mut A, &mut B) -> bool) {
        let mut patience = Patience::new();
        while !is_true(&mut self.a, &mut self.b) {
            let ready = self.poller.wait(Some(patience.left())).unwrap();
            if !ready.is_empty() {
                patience.restart();
            }
            let [a, b] = [described(&self.a), described(&self.b)];
            assert!(!patience.is_over(), "never: {what}\n{a}\n{b}");
            for (key, ready) in ready {
                // A broken pipe says so when it is used.
                let _ = if (key == 0) != self.swapped { self.a.drive(ready) } else { self.b.drive(ready) };
            }
        }
    }
}

/// Returns what a call did, or none if it would block.
#[track_caller]
pub fn now<T>(result: Result<T, PipeError>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(PipeError::WouldBlock) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Sends as much of `bytes` as the pipe accepts. Returns the number of bytes.
#[track_caller]
pub fn send_some(pipe: &mut (impl Pipe + ?Sized), bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        let end = bytes.len().min(sent.saturating_add(pipe.send_bytes_max()));
        let Some(count) = now(pipe.send(&bytes[sent..end])) else { break };
        assert!(count > 0, "a send accepts a byte, or would block");
        sent += count;
    }
    sent
}

/// Receives what is there. Returns true at the FIN.
#[track_caller]
pub fn receive_some(pipe: &mut (impl Pipe + ?Sized), into: &mut Vec<u8>) -> bool {
    let mut buf = [0; 20_000];
    loop {
        match now(pipe.receive(&mut buf)) {
            None => return false,
            Some(0) => return true,
            Some(count) => into.extend_from_slice(&buf[..count]),
        }
    }
}

impl<P: Pipe> Ends<P, P> {
    /// Gives each end the name of the other.
    pub fn swap(&mut self) {
        std::mem::swap(&mut self.a, &mut self.b);
        self.swapped = !self.swapped;
    }
}

/// Describes a pipe for a test that fails.
pub fn described(pipe: &dyn Pipe) -> String {
    format!(
        "ready {} readable {} writable {} fins {} {} queued {} wants {} {} broken {:?}",
        pipe.is_ready(),
        pipe.is_readable(),
        pipe.is_writable(),
        pipe.fin_sent(),
        pipe.fin_received(),
        pipe.queued(),
        pipe.wants_read(),
        pipe.wants_write(),
        pipe.broken()
    )
}
