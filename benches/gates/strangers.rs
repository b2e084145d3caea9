//! Measures the harm that unauthenticated peers can do to links: floods of connections that never show a key, and the
//! time until an honest peer is admitted beside them or a link that was cut is resumed.
//!
//! Addresses of 127.0.0.0/8 stand for many hosts. Each time, the honest peer connects from an address that is new to
//! the node. A link that is cut and resumed has been up before, so its address has a recent key.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::node::{CarrierKind, LinkEvent, Path};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::Run;
use crate::echo::Echo;
use crate::node::{HONEST, Node};
use crate::node_kit::{self, cutter::Cutter};
use crate::place::{Place, give_way};
use crate::tls;

/// The bytes that an unauthenticated peer sends once it is connected.
#[derive(Clone, Copy)]
enum Says {
    Nothing,
    OneByte,
    Hello,
}

pub fn silent_one(place: &Place) -> io::Result<Run> {
    beside(place, Says::Nothing, 20_000, 1)
}

pub fn silent_many(place: &Place) -> io::Result<Run> {
    beside(place, Says::Nothing, 20_000, 10_000)
}

pub fn one_byte_one(place: &Place) -> io::Result<Run> {
    beside(place, Says::OneByte, 20_000, 1)
}

pub fn one_byte_many(place: &Place) -> io::Result<Run> {
    beside(place, Says::OneByte, 20_000, 10_000)
}

pub fn hellos_one(place: &Place) -> io::Result<Run> {
    beside(place, Says::Hello, 20_000, 1)
}

pub fn hellos_many(place: &Place) -> io::Result<Run> {
    beside(place, Says::Hello, 20_000, 10_000)
}

pub fn few_silent(place: &Place) -> io::Result<Run> {
    beside(place, Says::Nothing, 1_000, 10_000)
}

pub fn few_one_byte(place: &Place) -> io::Result<Run> {
    beside(place, Says::OneByte, 1_000, 10_000)
}

pub fn few_hellos(place: &Place) -> io::Result<Run> {
    beside(place, Says::Hello, 1_000, 10_000)
}

pub fn few_hellos_one(place: &Place) -> io::Result<Run> {
    beside(place, Says::Hello, 1_000, 1)
}

pub fn echo_silent(place: &Place) -> io::Result<Run> {
    echo_beside(place, Says::Nothing)
}

pub fn echo_one_byte(place: &Place) -> io::Result<Run> {
    echo_beside(place, Says::OneByte)
}

pub fn echo_hellos(place: &Place) -> io::Result<Run> {
    echo_beside(place, Says::Hello)
}

/// Measures the echo of an admitted key without a flood, then during a flood from 10,000 addresses.
fn echo_beside(place: &Place, says: Says) -> io::Result<Run> {
    let node = Node::start(place, "", &[]);
    let mut echo = Echo::start(node.addr, HONEST)?;
    let plain = echo.p99_ms(MEASURE)?;
    let flood = Flood::start(node.addr, says, 20_000, 10_000);
    thread::sleep(WARM_UP);
    let beside = echo.p99_ms(MEASURE)?;
    Ok(Run { plain, beside, attack: flood.strength("connections"), ..Run::default() })
}

/// Measures the longest of several times until a peer was admitted or a link resumed, without a flood, then during one.
fn beside(place: &Place, says: Says, rate: u64, addresses: u32) -> io::Result<Run> {
    let node = Node::start(place, "", &[]);
    let mut links = Links::start(node.addr)?;
    let plain = links.longest_ms()?;
    let flood = Flood::start(node.addr, says, rate, addresses);
    // At 20,000 connections a second, each of 10,000 addresses has connected several times after this.
    thread::sleep(WARM_UP);
    let beside = links.longest_ms()?;
    let attack = flood.strength("connections");
    Ok(Run { plain, beside, attack, ..Run::default() })
}

/// An honest node: one link that is cut again and again, and others that come up from addresses of their own.
struct Links {
    node: SocketAddr,
    cutter: Cutter,
    steady: node_kit::Node,
    /// The number of addresses that peers have connected from.
    used: u32,
}

impl Links {
    fn start(node: SocketAddr) -> io::Result<Links> {
        let (cutter, steady) = (Cutter::new(node), node_kit::Node::start());
        let at = cutter.addr;
        steady.link_with(at, |config| config.identity.seed = HONEST);
        wait_for("the link is up", || steady.has(|happened| matches!(happened, LinkEvent::Up { .. })))?;
        Ok(Links { node, cutter, steady, used: 0 })
    }

    /// Returns the longest time of several rounds, in milliseconds.
    fn longest_ms(&mut self) -> io::Result<f64> {
        let mut longest = Duration::ZERO;
        for _ in 0..ROUNDS {
            longest = longest.max(self.in_after()?).max(self.resumed_after()?);
        }
        Ok(longest.as_secs_f64() * 1000.0)
    }

    /// Brings up a link from a new address. Returns the time that took.
    fn in_after(&mut self) -> io::Result<Duration> {
        self.used += 1;
        in_after(self.node, CarrierKind::default(), honest_source(self.used))
    }

    /// Cuts the steady link. Returns how long it takes until it is resumed.
    fn resumed_after(&mut self) -> io::Result<Duration> {
        let resumes = |node: &node_kit::Node| {
            let happened = node.happened.lock().expect("no panic in the loop");
            happened.iter().filter(|happened| matches!(happened, LinkEvent::Resumed)).count()
        };
        let (since, before) = (Instant::now(), resumes(&self.steady));
        self.cutter.cut();
        wait_for("the link is resumed", || resumes(&self.steady) > before)?;
        Ok(since.elapsed())
    }
}

/// Returns an address of an honest peer.
pub fn honest_source(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 200, 0, 0).to_bits() + number)
}

/// Brings up a link from an address. Returns the time that took.
pub fn in_after(node: SocketAddr, carrier: CarrierKind, source: Ipv4Addr) -> io::Result<Duration> {
    let (since, peer) = (Instant::now(), node_kit::Node::start());
    peer.link_with(node, move |config| {
        config.identity.seed = HONEST;
        config.carrier = carrier;
        config.timing = Default::default();
        config.paths = vec![Path { source: Some(source.into()), ..Path::default() }];
    });
    wait_for("a peer is in", || peer.has(|happened| matches!(happened, LinkEvent::Up { .. })))?;
    Ok(since.elapsed())
}

pub fn wait_for(what: &str, is_true: impl Fn() -> bool) -> io::Result<()> {
    let since = Instant::now();
    while !is_true() {
        if since.elapsed() > GIVES_UP {
            return Err(io::Error::other(format!("{what}: not within {GIVES_UP:?}")));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A flood at a fixed rate, from a thread of its own, until it is dropped.
pub struct Flood {
    state: Arc<State>,
    since: Instant,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
pub struct State {
    pub stop: AtomicBool,
    pub count: AtomicU64,
}

impl Flood {
    /// Starts a flood that `run` counts, and ends when it is told to stop.
    pub fn of(run: impl FnOnce(&Arc<State>) + Send + 'static) -> Flood {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        Flood { state, since: Instant::now(), thread: Some(thread::spawn(move || run(&shared))) }
    }

    /// Starts a flood of connections. The newest [`HELD`] stay open.
    fn start(node: SocketAddr, says: Says, rate: u64, addresses: u32) -> Flood {
        let hello = match says {
            Says::Nothing => Vec::new(),
            Says::OneByte => vec![0x16],
            Says::Hello => client_hello(),
        };
        Flood::of(move |shared| {
            give_way();
            let (mut held, since, mut sent) = (Vec::new(), Instant::now(), 0u64);
            held.resize_with(HELD, || None);
            while !shared.stop.load(Ordering::Relaxed) {
                let due = (since.elapsed().as_secs_f64() * rate as f64) as u64;
                if sent >= due {
                    thread::sleep(Duration::from_micros(200));
                    continue;
                }
                let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + sent as u32 % addresses);
                // A failed connect, for example to a full backlog, is counted as well: it was an attempt.
                let socket = connect_from(source, node).ok();
                if let Some(socket) = &socket
                    && !hello.is_empty()
                {
                    let _ = socket.send(&hello);
                }
                held[sent as usize % HELD] = socket;
                sent += 1;
                shared.count.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    /// Returns the number of attempts a second, in words.
    pub fn strength(&self, what: &str) -> String {
        let count = self.state.count.load(Ordering::Relaxed) as f64;
        format!("{:.0} {what} a second", count / self.since.elapsed().as_secs_f64())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects from an address. On loopback the connection is established when the call returns.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    // The socket closes with a reset, so that no port of its address is kept.
    socket.set_linger(Some(Duration::ZERO))?;
    bind_address_no_port(&socket);
    socket.bind(&SockAddr::from(SocketAddrV4::new(source, 0)))?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        result => result.map(|()| socket),
    }
}

/// Lets the system choose the port when it knows the destination (ip(7)): many more ports are free then.
fn bind_address_no_port(socket: &Socket) {
    use std::os::fd::AsRawFd;
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that outlives the call, and its size is passed.
    unsafe {
        libc::setsockopt(
            SockRef::from(socket).as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        );
    }
}

/// The first message of a handshake that goes no further.
fn client_hello() -> Vec<u8> {
    let identity = tls::Identity::from_seed(&[77; 32]).expect("a seed");
    let client = tls::Tls::client(&identity, &tls::Cipher::ALL, Arc::new(|_| true)).expect("ciphers");
    let mut pipe = client.pipe(&Rc::new(tls::Buffers::new())).expect("random bytes");
    let mut bytes = Vec::new();
    let taken = pipe.write_to(|hello| {
        bytes.extend_from_slice(hello);
        Ok(hello.len())
    });
    taken.expect("a write to memory");
    bytes
}

/// Connections of the flood that are open at the same time.
const HELD: usize = 4_000;
/// New peers, and cuts of the steady link, for each figure.
pub const ROUNDS: u32 = 5;
pub const MEASURE: Duration = Duration::from_secs(2);
pub const WARM_UP: Duration = Duration::from_secs(4);
const GIVES_UP: Duration = Duration::from_secs(10);
