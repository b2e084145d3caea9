//! Sessions with subflows of TCP and of QUIC. Over real sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cutter::Cutter;
use datagram_relay::DatagramRelay;
use node_kit::*;
use seaprox::node::{CarrierKind, LinkEvent, Path, SubflowState, Timing};
use seaprox::{Id, Target};

/// Two nodes with a link over TCP through a cutter, and over QUIC through a relay.
struct Mixed {
    far: Node,
    near: Node,
    link: Id,
    tcp: Cutter,
    quic: DatagramRelay,
}

fn timers() -> Timing {
    let dead = Duration::from_millis(800);
    Timing { dead, keepalive: dead / 4, ..timing() }
}

/// Returns a node that accepts links over TCP and over QUIC at one port number.
fn server(timers: fn() -> Timing) -> (Node, SocketAddr) {
    let far = Node::start();
    for _ in 0..20 {
        let addr = far.serve_over(CarrierKind::Tcp, "127.0.0.1:0".parse().unwrap(), timers());
        // Another test may have the port of UDP.
        if std::net::UdpSocket::bind(addr).is_ok() {
            assert_eq!(far.serve_over(CarrierKind::Quic, addr, timers()), addr);
            return (far, addr);
        }
    }
    panic!("no port is free for both");
}

impl Mixed {
    fn start() -> Mixed {
        Mixed::with(timers)
    }

    fn with(timers: fn() -> Timing) -> Mixed {
        let (far, addr) = server(timers);
        let (tcp, quic, near) = (Cutter::new(addr), DatagramRelay::new(addr), Node::start());
        let path =
            |addr: SocketAddr, kind| Path { carrier: Some(kind), peer: Some(Target::from(addr)), ..Path::default() };
        let paths = vec![path(tcp.addr, CarrierKind::Tcp), path(quic.addr, CarrierKind::Quic)];
        let link = near.link_with(addr, move |config| (config.paths, config.timing) = (paths, timers()));
        let mixed = Mixed { far, near, link, tcp, quic };
        mixed.until_carried_by(&["quic", "tcp"]);
        mixed
    }

    /// Waits until these carriers are live.
    fn until_carried_by(&self, kinds: &[&str]) {
        until(&format!("the link has {kinds:?}"), || {
            let live = |state| matches!(state, SubflowState::Live);
            let subflows = self.near.links().remove(0).subflows;
            let mut names: Vec<_> = subflows.iter().filter(|it| live(it.state)).filter_map(|it| it.carrier).collect();
            names.sort_unstable();
            names == kinds
        });
    }
}

#[test]
fn a_silent_carrier_over_udp_is_given_up_soon_when_the_peer_has_closed_the_other_one() {
    let mixed = Mixed::with(|| Timing { dead: Duration::from_secs(600), ..timing() });
    mixed.tcp.close(true);
    mixed.quic.silence(true);
    assert!(mixed.tcp.cut() > 0);
    let is_suspended = |node: &Node| node.has(|event| matches!(event, LinkEvent::Suspended));
    until("both nodes know that nothing is left", || is_suspended(&mixed.near) && is_suspended(&mixed.far));
}

/// Its peer may be alive where a connection of TCP was cut on the way. Nothing passes on the idle link but what the nodes ask because
/// of the doubt, which lasts for twice 2 s.
#[test]
fn a_carrier_over_udp_that_answers_outlives_the_other_one() {
    let idle = || Timing { keepalive: Duration::from_secs(200), dead: Duration::from_secs(600), ..timing() };
    let mixed = Mixed::with(idle);
    mixed.tcp.close(true);
    assert!(mixed.tcp.cut() > 0);
    mixed.until_carried_by(&["quic"]);
    thread::sleep(Duration::from_millis(4_500));
    mixed.until_carried_by(&["quic"]);
    for node in [&mixed.near, &mixed.far] {
        assert!(!node.has(|event| matches!(event, LinkEvent::Suspended)));
    }
}

#[test]
fn a_link_goes_on_over_quic_when_tcp_is_cut_and_over_tcp_when_udp_is_blocked() {
    let mixed = Mixed::start();
    let (listener, target) = target();
    let mut client = connect(mixed.near.forward(mixed.link, target.into()));
    let mut server = accept(&listener);
    let mut echo = |word: &[u8]| {
        client.write_all(word).unwrap();
        let mut got = vec![0; word.len()];
        server.read_exact(&mut got).unwrap();
        assert_eq!(got, word);
        server.write_all(word).unwrap();
        client.read_exact(&mut got).unwrap();
    };
    echo(b"both");
    mixed.tcp.close(true);
    mixed.tcp.cut();
    mixed.until_carried_by(&["quic"]);
    echo(b"quic alone");
    mixed.tcp.close(false);
    mixed.until_carried_by(&["quic", "tcp"]);
    mixed.quic.silence(true);
    echo(b"before anyone notices");
    mixed.until_carried_by(&["tcp"]);
    echo(b"tcp alone");
    mixed.quic.silence(false);
    mixed.until_carried_by(&["quic", "tcp"]);
    echo(b"both again");
}

#[test]
fn streams_are_whole_while_tcp_and_quic_are_lost_in_turn() {
    const COUNT: u64 = 4 << 20;
    let mixed = Mixed::start();
    let (listener, target) = target();
    let front = mixed.near.forward(mixed.link, target.into());
    let pairs: Vec<_> = (0..4).map(|_| (connect(front), accept(&listener))).collect();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = pairs
            .iter()
            .flat_map(|(client, server)| [(client, server, 1), (server, client, 2)])
            .map(|(from, to, seed)| {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                scope.spawn(move || send_pattern(&mut from, seed, COUNT));
                scope.spawn(move || read_pattern(&mut to, seed, COUNT))
            })
            .collect();
        let trouble = scope.spawn(|| {
            // A slow machine must not be kept from ever making progress.
            for round in 0..32 {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                match round % 4 {
                    0 => _ = mixed.tcp.cut(),
                    1 => mixed.quic.rebind(),
                    2 => mixed.quic.silence(true),
                    _ => mixed.quic.silence(false),
                }
                thread::sleep(Duration::from_millis(40));
            }
        });
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        trouble.join().unwrap();
    });
}
