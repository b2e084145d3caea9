//! Strangers at a port of QUIC, and the ends of servers. Over real sockets.

use crate::node_kit;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_kit::*;
use seaprox::node::{CarrierKind, LinkEvent, LinksOfServer, Policy, ServeConfig, Timing};
use seaprox::{Bind, Config, Id, Proxy, Reason};

use crate::flows;
use crate::quic_kit::RawQuic;

/// The first datagrams of connections that a node has begun, by the address that each came from.
type Hellos = Vec<(SocketAddr, Vec<Vec<u8>>)>;

/// Records the first datagrams of `count` different connections of a node.
fn hellos(count: u8) -> Hellos {
    let ear = UdpSocket::bind("0.0.0.0:0").unwrap();
    ear.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let port = ear.local_addr().unwrap().port();
    let dialing = Node::start();
    for host in 1..=count {
        // Each address is another peer.
        dialing.link_with((Into::into)(([127, 0, 1, host], port)), |config| config.carrier = CarrierKind::Quic);
    }
    let (mut all, mut room, since) = (Hellos::new(), [0; 2048], Instant::now());
    // A hello with a key exchange of ML-KEM has two datagrams.
    while all.iter().filter(|(_, hello)| hello.len() >= 2).count() < usize::from(count) {
        assert!(since.elapsed() < Duration::from_secs(10), "{} of {count}", all.len());
        let Ok((len, from)) = ear.recv_from(&mut room) else { continue };
        match all.iter_mut().find(|(known, _)| *known == from) {
            Some((_, hello)) if hello.len() >= 2 => {}
            Some((_, hello)) => hello.push(room[..len].to_vec()),
            None => all.push((from, vec![room[..len].to_vec()])),
        }
    }
    all
}

fn server(timing: Timing) -> (Node, SocketAddr) {
    let node = Node::start();
    let addr = node.serve_over(CarrierKind::Quic, "127.0.0.1:0".parse().unwrap(), timing);
    (node, addr)
}

fn dial(node: &Node, addr: SocketAddr) -> Id {
    node.link_with(addr, |config| config.carrier = CarrierKind::Quic)
}

/// Receives what arrives within a time. Returns the first byte and the length of each datagram.
fn answers(socket: &UdpSocket, wait: Duration) -> Vec<(u8, usize)> {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (mut all, mut room, since) = (Vec::new(), [0; 65_536], Instant::now());
    while since.elapsed() < wait {
        if let Ok(len) = socket.recv(&mut room) {
            all.push((room[0], len));
        }
    }
    all
}

#[test]
fn a_peer_that_has_not_shown_its_address_gets_at_most_three_times_its_bytes() {
    let (_far, addr) = server(timing());
    for (_, hello) in hellos(3) {
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        hello.iter().for_each(|datagram| _ = stranger.send_to(datagram, addr).unwrap());
        let sent: usize = hello.iter().map(Vec::len).sum();
        // The server sends its answer again and again, and must stop.
        let got: usize = answers(&stranger, Duration::from_millis(1200)).iter().map(|(_, len)| len).sum();
        assert!(got > 0 && got <= 3 * sent, "{got} bytes for {sent}");
    }
}

/// The test drives the loop turn by turn.
#[test]
fn a_datagram_is_handled_in_the_turn_in_which_it_arrives() {
    let mut proxy = Proxy::new(Config::default(), None).unwrap();
    let place = Bind::parse("127.0.0.1:0").unwrap();
    let mut bound = CarrierKind::Quic.bind(&place, proxy.core().config()).unwrap();
    let addr = bound[0].addr().ip().unwrap();
    let policy: Arc<dyn Policy> = Open::new();
    let config = ServeConfig { carrier: CarrierKind::Quic, ..ServeConfig::new(identity(2), policy) };
    proxy.core().serve_links(&mut bound[0], config).unwrap();
    // The system may drop datagrams on loopback, so there are several tries.
    let is_answered = hellos(8).iter().any(|(_, hello)| {
        (0..8).for_each(|_| _ = proxy.turn(Some(Duration::ZERO)).unwrap());
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.set_nonblocking(true).unwrap();
        hello.iter().for_each(|datagram| _ = stranger.send_to(datagram, addr).unwrap());
        proxy.turn(Some(Duration::ZERO)).unwrap();
        stranger.recv(&mut [0; 2048]).is_ok()
    });
    assert!(is_answered, "the answers left in later turns");
}

#[test]
fn strangers_are_few_and_must_show_their_addresses_when_they_become_many() {
    const PLACES: usize = 16;
    let handshake = Duration::from_millis(800);
    let (far, addr) = server(Timing { unauthenticated: PLACES, handshake, ..timing() });
    let hellos = hellos(40);
    let sockets: Vec<UdpSocket> = hellos.iter().map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for (socket, (_, hello)) in sockets.iter().zip(&hellos) {
        hello.iter().for_each(|datagram| _ = socket.send_to(datagram, addr).unwrap());
    }
    let near = Node::start();
    let link = dial(&near, addr);
    near.until_up();
    // Bits 4 and 5 of a long header are the type of the packet; 3 is a Retry (RFC 9000, section 17.2.5).
    let is_retry = |(first, _): &(u8, usize)| first & 0xb0 == 0xb0;
    let of_socket = |socket: &UdpSocket| answers(socket, Duration::from_millis(30)).iter().any(is_retry);
    let retries = sockets.iter().filter(|socket| of_socket(socket)).count();
    assert!(retries >= hellos.len() - PLACES, "{retries} of {}", hellos.len());
    until("strangers lose their places", || far.ask(|core| core.servers()[0].carriers) >= 2);
    until("the strangers are gone", || far.ask(|core| core.stats().unauthenticated_failed) > 0);
    let (mut client, mut server) = {
        let (listener, target) = target();
        (connect(near.forward(link, target.into())), accept(&listener))
    };
    send_pattern(&mut client, 1, 100_000);
    read_pattern(&mut server, 1, 100_000);
}

#[test]
fn datagrams_over_quic_are_messages_that_may_be_lost() {
    let (_far, addr) = server(timing());
    let (relay, near) = (datagram_relay::DatagramRelay::new(addr), Node::start());
    let link = dial(&near, relay.addr);
    near.until_up();
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    let front = flows::forward(&near, link, target.local_addr().unwrap().into());
    let source = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut room = [0; 2048];
    // The first ones open the flow.
    target.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let since = Instant::now();
    let mut answered = 0;
    while answered < 20 {
        assert!(since.elapsed() < Duration::from_secs(10));
        source.send_to(b"open", front).unwrap();
        answered += u32::from(target.recv(&mut room).is_ok());
    }
    while target.recv(&mut room).is_ok() {}
    relay.spoil(300, 0);
    let mut got = HashSet::new();
    for number in 0..300u32 {
        source.send_to(&[&number.to_be_bytes()[..], &[7; 300]].concat(), front).unwrap();
        std::thread::sleep(Duration::from_micros(500));
    }
    target.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    while let Ok(len) = target.recv(&mut room) {
        assert_eq!(len, 304);
        got.insert(room[..4].to_vec());
    }
    assert!((60..290).contains(&got.len()), "about seven tenths arrive: {}", got.len());
    // A datagram that does not fit into one of the path goes as a piece of a stream, and is repaired. A busy system drops datagrams on
    // loopback, too, so it is sent again.
    let mut large = vec![0; 65_536];
    target.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    until("the large datagram is there", || {
        source.send_to(&[9; 20_000], front).unwrap();
        matches!(target.recv(&mut large), Ok(20_000))
    });
}

#[test]
fn links_over_quic_go_on_when_their_server_is_replaced_or_stops() {
    let (far, addr) = server(timing());
    let near = Node::start();
    let link = dial(&near, addr);
    near.until_up();
    let (listener, target) = target();
    let front = near.forward(link, target.into());
    let exchange = || {
        let (mut client, mut server) = (connect(front), accept(&listener));
        send_pattern(&mut client, 1, 200_000);
        read_pattern(&mut server, 1, 200_000);
    };
    exchange();
    let policy = std::sync::Arc::clone(&far.policy);
    far.ask(move |core| {
        let id = core.servers()[0].id;
        let new = ServeConfig::new(identity(2), policy);
        core.server(id).unwrap().replace(ServeConfig { carrier: CarrierKind::Quic, timing: timing(), ..new }).unwrap();
    });
    exchange();
    let another = Node::start();
    dial(&another, addr);
    another.until_up();
    far.ask(|core| {
        let id = core.servers()[0].id;
        core.server(id).unwrap().stop(LinksOfServer::GoOn).unwrap();
    });
    exchange();
    assert_eq!(far.links().len(), 2);
    // A peer that comes now is told at once.
    let late = Node::start();
    dial(&late, addr);
    until("it is refused", || late.has(|event| matches!(event, LinkEvent::NoSubflow { .. })));
    let refused = |event: &LinkEvent| matches!(event, LinkEvent::NoSubflow { failure, .. } if failure.reason == Reason::LimitReached);
    assert!(late.has(refused), "{:?}", late.happened.lock().unwrap());
    drop(late);
    assert!(!near.has(|event| matches!(event, LinkEvent::Suspended | LinkEvent::NoSubflow { .. })));
    // With its last link, the address is free.
    drop((near, another));
    until("the links are over", || far.links().is_empty());
    until("the address is free", || UdpSocket::bind(addr).is_ok());
}

/// Each of many peers leaves a gap at the beginning of a lane, and sends behind it all that it may.
#[test]
fn what_peers_send_behind_gaps_is_bounded_for_all_of_them_together() {
    const PEERS: u8 = 16;
    const MOST: usize = 8 << 20;
    let far = Node::with(|config| config.limits.link_bytes = MOST);
    let addr = far.serve_over(CarrierKind::Quic, "127.0.0.1:0".parse().unwrap(), timing());
    let (mut peers, mut sent) = (Vec::new(), Vec::new());
    for number in 0..PEERS {
        let mut raw = RawQuic::without_repair(addr, [100 + number; 32], Ipv4Addr::LOCALHOST);
        raw.until("the handshake is done", |raw| raw.is_connected);
        let lanes = raw.open_lanes();
        let session = raw.begin_session(lanes[0], lanes.len() as u16);
        sent.push(raw.fill_behind_a_gap(lanes[5]));
        assert!(raw.lost.is_none(), "{:?}", raw.lost);
        peers.push((raw, session));
    }
    // Each peer may always send 64 KiB.
    let all: usize = sent.iter().sum();
    println!("{sent:?}");
    assert!(all <= MOST + (64 << 10) * usize::from(PEERS), "{all} bytes: {sent:?}");
    assert!(sent.iter().all(|bytes| *bytes >= 60 << 10), "{sent:?}");
    assert!(all >= MOST / 2, "there is nothing to bound: {sent:?}");
    // Another peer has room, and the bytes of those that are gone are free again.
    let near = Node::start();
    let link = dial(&near, addr);
    near.until_up();
    both_ways(&near, link, 200_000);
    drop(peers);
    both_ways(&near, link, 200_000);
}
