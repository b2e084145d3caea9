//! A link over QUIC between two loops in one thread, with every datagram between them in the hands of the oracle.
//!
//! The bytes of an input are steps: datagrams of strangers, datagrams in the name of either end, those that the ends have sent
//! before, changed or cut, and loss. The link lives across inputs, so that what one of them leaves behind meets the next ones.
//! This oracle has sockets and a clock, unlike the others: it runs the code that receives datagrams in a node.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seaprox::node::{CarrierKind, Identity, LinkConfig, PeerKey, Policy, ServeConfig, Timing, Verdict};
use seaprox::{Bind, Config, Cx, Failure, Handler, Id, LinkState, ListenConfig, Proxy, Target, Workers, bind};

/// Checks the input of datagrams of a node: for any steps no end panics, no stranger gets a link, the link keeps its subflow, and
/// its bytes arrive once and in order. A stranger gets few answers in a turn, and at most three times the bytes that it has sent.
/// The callers bound the memory of the process.
pub fn link_quic(bytes: &[u8]) {
    thread_local! {
        static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    }
    // A world whose input has failed is not used again.
    let mut world = WORLD.with(RefCell::take).unwrap_or_else(World::new);
    world.run(bytes);
    WORLD.with(|cell| cell.replace(Some(world)));
}

struct World {
    near: Proxy,
    far: Proxy,
    link: Id,
    /// The ends of a connection over the link.
    client: TcpStream,
    server: TcpStream,
    wire: Wire,
    /// The number of bytes that each direction has carried.
    carried: u64,
}

/// The network between the ends: the near one dials `front`, and the far one sees the address of `back`.
struct Wire {
    front: UdpSocket,
    back: UdpSocket,
    stranger: UdpSocket,
    near_addr: SocketAddr,
    far_addr: SocketAddr,
    /// Datagrams of the near and of the far end.
    seen: [VecDeque<Vec<u8>>; 2],
    /// Datagrams that are lost next.
    losses: usize,
    /// The bytes that the stranger has sent, and those of the answers to it.
    stranger_bytes: [usize; 2],
}

impl World {
    fn new() -> World {
        let [mut near, mut far] = [(); 2].map(|()| {
            let mut config = Config::default();
            config.limits.connections = 100;
            Proxy::new(config, Some(Workers::start(1, 4).unwrap())).unwrap()
        });
        let timing = || Timing { redial: (Duration::from_millis(20), Duration::from_millis(200)), ..Timing::default() };
        let identity = |seed| Identity { seed: [seed; 32], ciphers: Vec::new(), groups: Vec::new(), instance: None };
        let far_addr = {
            let mut core = far.core();
            let new = ServeConfig::new(identity(2), Arc::new(Anybody));
            let config = ServeConfig { carrier: CarrierKind::Quic, timing: timing(), ..new };
            let mut bound = CarrierKind::Quic.bind(&Bind::parse("127.0.0.1:0").unwrap(), core.config()).unwrap();
            core.serve_links(&mut bound[0], config).unwrap();
            bound[0].addr().ip().unwrap()
        };
        let socket = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let (front, back, stranger) = (socket(), socket(), socket());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (link, entry) = {
            let mut core = near.core();
            let peer = front.local_addr().unwrap();
            let new = LinkConfig::new(identity(1), Arc::new(Anybody), peer.into());
            let config = LinkConfig { carrier: CarrierKind::Quic, timing: timing(), ..new };
            let link = core.connect_link(config).unwrap().id;
            let target = Rc::new(Target::from(listener.local_addr().unwrap()));
            let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
            let front = move || -> Box<dyn Handler> { Box::new(Forward(Rc::clone(&target))) };
            let config = ListenConfig { link: Some(link), ..ListenConfig::new("static", Box::new(front)) };
            core.listen(&mut bound[0], config).unwrap();
            (link, bound[0].addr().ip().unwrap())
        };
        let near_addr = far_addr;
        let wire = Wire {
            front,
            back,
            stranger,
            near_addr,
            far_addr,
            seen: Default::default(),
            losses: 0,
            stranger_bytes: [0; 2],
        };
        let client = TcpStream::connect(entry).unwrap();
        let (near, far) = (near, far);
        let mut half = Half { near, far, wire };
        listener.set_nonblocking(true).unwrap();
        let mut server = None;
        half.until("the first connection is there", |half| {
            server = listener.accept().ok();
            server.is_some() && half.near.core().links().iter().any(|link| link.state == LinkState::Up)
        });
        let server = server.expect("accepted").0;
        for socket in [&client, &server] {
            socket.set_nonblocking(true).unwrap();
            socket.set_nodelay(true).unwrap();
        }
        let Half { near, far, wire } = half;
        World { near, far, link, client, server, wire, carried: 0 }
    }

    /// Takes the steps of an input, and then lets both ends deliver.
    fn run(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let mut steps = 0;
        while let [kind, which, len, after @ ..] = rest {
            let data = &after[..after.len().min(usize::from(*len))];
            rest = &after[data.len()..];
            self.wire.step(*kind, *which, data);
            steps += 1;
            if kind & 0x80 != 0 || steps % STEPS_PER_TURN == 0 {
                self.turn();
            }
        }
        self.deliver();
        let links = self.near.core().links();
        let link = links.iter().find(|link| link.id == self.link).expect("the link of the oracle");
        assert_eq!((link.state, link.stats.resumes, link.subflows.len()), (LinkState::Up, 0, 1), "{:?}", link.failure);
        assert_eq!(self.far.core().links().len(), 1, "a stranger has a link");
    }

    fn turn(&mut self) {
        self.far.turn(Some(Duration::ZERO)).unwrap();
        self.near.turn(Some(Duration::ZERO)).unwrap();
        self.wire.relay();
    }

    /// Moves bytes in both directions.
    fn deliver(&mut self) {
        self.wire.losses = 0;
        let piece: Vec<u8> = (0..PIECE).map(|at| (self.carried + at) as u8).collect();
        let (mut sent, mut got) = ([0; 2], [Vec::new(), Vec::new()]);
        let since = Instant::now();
        while got.iter().any(|got| got.len() < piece.len()) {
            assert!(since.elapsed() < PATIENCE, "{} and {} bytes arrive", got[0].len(), got[1].len());
            for (at, socket) in [&mut self.client, &mut self.server].into_iter().enumerate() {
                sent[at] += or_none(socket.write(&piece[sent[at]..]));
                let mut room = [0; 4096];
                let len = or_none(socket.read(&mut room));
                got[at].extend_from_slice(&room[..len]);
            }
            self.turn();
        }
        assert!(got.iter().all(|got| *got == piece), "the bytes differ");
        self.carried += PIECE;
    }
}

/// A world that is being made.
struct Half {
    near: Proxy,
    far: Proxy,
    wire: Wire,
}

impl Half {
    fn until(&mut self, what: &str, mut is_true: impl FnMut(&mut Half) -> bool) {
        let since = Instant::now();
        while !is_true(self) {
            assert!(since.elapsed() < PATIENCE, "{what}");
            self.far.turn(Some(Duration::ZERO)).unwrap();
            self.near.turn(Some(Duration::ZERO)).unwrap();
            self.wire.relay();
        }
    }
}

impl Wire {
    /// Relays what the ends have sent.
    fn relay(&mut self) {
        let mut room = [0; 65_536];
        while let Ok((len, from)) = self.front.recv_from(&mut room) {
            self.near_addr = from;
            self.pass(0, &room[..len]);
        }
        while let Ok((len, from)) = self.back.recv_from(&mut room) {
            if from == self.far_addr {
                self.pass(1, &room[..len]);
            }
        }
        let mut answers = 0;
        while let Ok((len, _)) = self.stranger.recv_from(&mut room) {
            self.stranger_bytes[1] += len;
            answers += 1;
        }
        let [sent, got] = self.stranger_bytes;
        assert!(got <= 3 * sent, "a stranger has sent {sent} bytes and gets {got}");
        assert!(answers <= ANSWERS_MAX, "a stranger gets {answers} answers in a turn");
    }

    /// Sends a datagram of a stranger to the far end.
    fn send_as_stranger(&mut self, datagram: &[u8]) {
        if self.stranger.send_to(datagram, self.far_addr).is_ok() {
            self.stranger_bytes[0] += datagram.len();
        }
    }

    fn pass(&mut self, from: usize, datagram: &[u8]) {
        let seen = &mut self.seen[from];
        seen.push_back(datagram.to_vec());
        if seen.len() > SEEN_MAX {
            // The first ones, of the handshake, stay.
            seen.remove(SEEN_FIRST);
        }
        match self.losses.checked_sub(1) {
            Some(left) => self.losses = left,
            None => self.send(from, datagram),
        }
    }

    /// Sends a datagram in the name of the near end (0) or of the far one (1).
    fn send(&self, from: usize, datagram: &[u8]) {
        let (socket, to) = [(&self.back, self.far_addr), (&self.front, self.near_addr)][from];
        // A datagram that does not leave is lost.
        let _ = socket.send_to(datagram, to);
    }

    fn step(&mut self, kind: u8, which: u8, data: &[u8]) {
        let from = usize::from(kind >> 6 & 1);
        let seen = &self.seen[from];
        let old = seen.get(usize::from(which) % seen.len().max(1)).cloned().unwrap_or_default();
        match kind & 7 {
            0 => self.send(from, data),
            1 => self.send_as_stranger(data),
            2 => self.send(from, &old),
            3 => self.send_as_stranger(&old),
            4 => self.send(from, &changed(&old, data)),
            5 => self.send_as_stranger(&changed(&old, data)),
            // The beginning of a datagram, with another end.
            6 => self.send(from, &[&old[..usize::from(which).min(old.len())], data].concat()),
            _ => self.losses = usize::from(which % 4),
        }
    }
}

/// Returns a datagram with some of its bytes changed: pairs of a place and of bits.
fn changed(datagram: &[u8], data: &[u8]) -> Vec<u8> {
    let mut datagram = datagram.to_vec();
    let len = datagram.len().max(1);
    for pair in data.chunks_exact(2) {
        if let Some(byte) = datagram.get_mut(usize::from(pair[0]) % len) {
            *byte ^= pair[1];
        }
    }
    // An odd number of bytes cuts it.
    if let [last] = data.chunks_exact(2).remainder() {
        datagram.truncate(usize::from(*last) * 6);
    }
    datagram
}

fn or_none(result: std::io::Result<usize>) -> usize {
    match result {
        Ok(count) => count,
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("the connection over the link: {error}"),
    }
}

/// Relays to one target.
struct Forward(Rc<Target>);

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
}

/// Permits everything to everybody.
struct Anybody;

impl Policy for Anybody {
    fn admits(&self, _: &PeerKey) -> bool {
        true
    }

    fn name(&self, _: &PeerKey) -> String {
        "peer".into()
    }

    fn may_open(&self, _: &PeerKey, _: &Target) -> Verdict {
        Verdict::Yes
    }

    fn may_listen(&self, _: &PeerKey, _: &Bind) -> bool {
        false
    }
}

/// Bytes of each direction after each input.
const PIECE: u64 = 3_000;
/// The time in which they must arrive.
const PATIENCE: Duration = Duration::from_secs(20);
/// The most steps between two turns.
const STEPS_PER_TURN: usize = 128;
/// The most answers that a stranger gets in a turn: those to 64 datagrams that may begin a connection, and those of the connection
/// that one of them has begun.
const ANSWERS_MAX: usize = 64 + 16;
/// Datagrams of each end that are kept, and the first ones of them that stay.
const SEEN_MAX: usize = 64;
const SEEN_FIRST: usize = 12;
