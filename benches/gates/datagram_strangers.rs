//! Measures the harm that strangers can do at a node's port of UDP: floods of datagrams that are no packets of QUIC, of packets that
//! begin connections and say nothing, and of hellos whose handshake goes no further.
//!
//! As in `strangers`, addresses of 127.0.0.0/8 stand for many hosts, and the honest peer dials from an address that is new to the
//! node. None of the strangers answers: their datagrams may have the addresses of others.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use seaprox::Target;
use seaprox::node::CarrierKind;
use socket2::SockRef;

use crate::Run;
use crate::echo;
use crate::echoes::percentile;
use crate::node::{HONEST, Node};
use crate::node_kit::{self, datagram_relay::DatagramRelay};
use crate::place::{Place, give_way};
use crate::quic_kit::{RawQuic, initial};
use crate::strangers::{Flood, MEASURE, ROUNDS, State, WARM_UP, honest_source, in_after, wait_for};

/// Datagrams that a stranger sends, one after another.
type Says = fn(SocketAddr) -> Vec<Vec<u8>>;

pub fn garbage_many(place: &Place) -> io::Result<Run> {
    beside(place, garbage, 10_000)
}

pub fn initials_many(place: &Place) -> io::Result<Run> {
    beside(place, initials, 10_000)
}

pub fn hellos_one(place: &Place) -> io::Result<Run> {
    beside(place, hellos, 1)
}

pub fn hellos_many(place: &Place) -> io::Result<Run> {
    beside(place, hellos, 10_000)
}

/// Measures the echo of a link of QUIC without a flood, then during a flood of hellos from 10,000 addresses.
pub fn echo_hellos(place: &Place) -> io::Result<Run> {
    let node = Node::start(place, "", &[]);
    let mut link = Steady::start(node.addr)?;
    let plain = link.p99_ms()?;
    let flood = start(node.addr, hellos, 10_000)?;
    thread::sleep(WARM_UP);
    let beside = link.p99_ms()?;
    Ok(Run { plain, beside, attack: flood.strength("first packets"), ..Run::default() })
}

/// Measures the longest of several times until a peer was let in or a link that had lost its connection carried again, without a
/// flood, then during one.
fn beside(place: &Place, says: Says, addresses: usize) -> io::Result<Run> {
    let node = Node::start(place, "", &[]);
    let mut link = Steady::start(node.addr)?;
    let mut used = 0;
    let mut longest_ms = || {
        let mut longest = Duration::ZERO;
        for _ in 0..ROUNDS {
            used += 1;
            longest = longest.max(in_after(node.addr, CarrierKind::Quic, honest_source(used))?);
            longest = longest.max(link.resumed_after()?);
        }
        io::Result::Ok(longest.as_secs_f64() * 1000.0)
    };
    let plain = longest_ms()?;
    let flood = start(node.addr, says, addresses)?;
    thread::sleep(WARM_UP);
    let beside = longest_ms()?;
    Ok(Run { plain, beside, attack: flood.strength("first packets"), ..Run::default() })
}

/// A link of QUIC through a relay, and a client of an echo server behind it.
struct Steady {
    relay: DatagramRelay,
    client: TcpStream,
    _node: node_kit::Node,
}

impl Steady {
    fn start(node: SocketAddr) -> io::Result<Steady> {
        let (relay, near) = (DatagramRelay::new(node), node_kit::Node::start());
        let link = near.link_with(relay.addr, |config| {
            config.identity.seed = HONEST;
            config.carrier = CarrierKind::Quic;
        });
        wait_for("the link is up", || near.has(|what| matches!(what, seaprox::node::LinkEvent::Up { .. })))?;
        let client = TcpStream::connect(near.forward(link, Target::from(echo::serve()?)))?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut steady = Steady { relay, client, _node: near };
        steady.echo()?;
        Ok(steady)
    }

    fn echo(&mut self) -> io::Result<Duration> {
        let since = Instant::now();
        self.client.write_all(&[7; 64])?;
        self.client.read_exact(&mut [0; 64])?;
        Ok(since.elapsed())
    }

    /// Returns the 99th percentile of echoes, one every two milliseconds.
    fn p99_ms(&mut self) -> io::Result<f64> {
        let (until, mut times) = (Instant::now() + MEASURE, Vec::new());
        while Instant::now() < until {
            let took = self.echo()?;
            times.push(took.as_secs_f64() * 1000.0);
            thread::sleep(Duration::from_millis(2).saturating_sub(took));
        }
        times.sort_by(f64::total_cmp);
        Ok(percentile(&times, 99))
    }

    /// Makes the network lose all packets of the connection of now, and of no later one. Returns the time until an echo is back.
    fn resumed_after(&mut self) -> io::Result<Duration> {
        self.relay.forget();
        self.echo()
    }
}

/// Starts a flood of 20,000 first packets a second.
fn start(node: SocketAddr, says: Says, addresses: usize) -> io::Result<Flood> {
    let firsts: Vec<Vec<Vec<u8>>> = (0..FIRSTS).map(|_| says(node)).collect();
    let sockets = (0..addresses).map(|number| socket(number as u32, node)).collect::<io::Result<Vec<_>>>()?;
    Ok(Flood::of(move |state: &Arc<State>| {
        give_way();
        let (since, mut sent) = (Instant::now(), 0);
        while !state.stop.load(Ordering::Relaxed) {
            if sent >= (since.elapsed().as_secs_f64() * RATE) as usize {
                thread::sleep(Duration::from_micros(200));
                continue;
            }
            // A datagram that the system does not take was an attempt.
            firsts[sent % FIRSTS].iter().for_each(|datagram| _ = sockets[sent % addresses].send(datagram));
            sent += 1;
            state.count.fetch_add(1, Ordering::Relaxed);
        }
    }))
}

/// Returns a socket with an address of its own, and with little room for answers, which nobody takes.
fn socket(number: u32, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number), 0))?;
    SockRef::from(&socket).set_recv_buffer_size(1)?;
    socket.connect(to)?;
    Ok(socket)
}

fn garbage(_: SocketAddr) -> Vec<Vec<u8>> {
    vec![random::<1200>().to_vec()]
}

/// Returns the first packet of a connection that has the right keys and no hello.
fn initials(_: SocketAddr) -> Vec<Vec<u8>> {
    const PING: u8 = 1;
    vec![initial(random(), &[PING])]
}

/// Returns the first datagrams of a client.
fn hellos(node: SocketAddr) -> Vec<Vec<u8>> {
    RawQuic::new(node, [77; 32], Ipv4Addr::LOCALHOST).datagrams()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).expect("random bytes");
    bytes
}

/// Different first packets of a flood, which repeats them.
const FIRSTS: usize = 4096;
/// First packets a second. A hello has two datagrams.
const RATE: f64 = 20_000.0;
