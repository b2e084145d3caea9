//! The UDP port beside the one of TCP, which another process may have. Over real sockets.

use crate::node_kit;

use std::collections::HashSet;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_kit::*;
use seaprox::Id;
use seaprox::node::{CarrierKind, LinksOfServer, ServeConfig, SubflowState, Timing};

/// A drain timeout that is longer than any deadline of a test.
const LONG: Duration = Duration::from_secs(600);

/// Returns a port that is free for both protocols, and a socket that has it for UDP.
fn taken() -> (SocketAddr, UdpSocket) {
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = udp.local_addr().unwrap();
        if TcpListener::bind(addr).is_ok() {
            return (addr, udp);
        }
    }
    panic!("no port is free for both");
}

/// Dials a link over both, which tries QUIC again soon.
fn dial(near: &Node, addr: SocketAddr) -> Id {
    let redial_quic = (Duration::from_millis(100), Duration::from_millis(200));
    let timing = Timing { redial_quic, ..timing() };
    near.link_with(addr, |config| (config.carrier, config.timing) = (CarrierKind::Auto, timing))
}

/// Returns the transports of the live subflows of a node's first link.
fn carriers(node: &Node) -> Vec<&'static str> {
    let links = node.links();
    let subflows = links.first().map(|link| link.subflows.as_slice()).unwrap_or_default();
    let mut names: Vec<_> =
        subflows.iter().filter(|it| it.state == SubflowState::Live).filter_map(|it| it.carrier).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_server_whose_udp_port_is_in_use_takes_it_when_it_is_free() {
    let ((addr, udp), far, near) = (taken(), Node::start(), Node::start());
    assert_eq!(far.serve_over(CarrierKind::Auto, addr, timing()), addr);
    let link = dial(&near, addr);
    near.until_up();
    both_ways(&near, link, 100_000);
    assert_eq!((carriers(&near), far.ask(|core| core.servers().len())), (vec!["tcp"], 1));
    drop(udp);
    until("QUIC is beside TCP", || carriers(&near) == ["quic", "tcp"]);
    // The port has the configuration of the server, whose key is another one now, and stops with it.
    let policy = Arc::clone(&far.policy);
    far.ask(move |core| {
        let id = core.servers()[0].id;
        let new = ServeConfig::new(identity(4), policy);
        core.server(id).unwrap().replace(ServeConfig { carrier: CarrierKind::Auto, timing: timing(), ..new }).unwrap();
    });
    let another = Node::start();
    dial(&another, addr);
    until("another link has both", || carriers(&another) == ["quic", "tcp"]);
    far.ask(|core| {
        let servers: Vec<Id> = core.servers().iter().map(|server| server.id).collect();
        assert_eq!(servers.len(), 2);
        core.server(servers[0]).unwrap().stop(LinksOfServer::Close).unwrap();
        assert!(core.servers().is_empty());
    });
    until("the address is free", || UdpSocket::bind(addr).is_ok());
}

#[test]
fn udp_that_stays_blocked_is_tried_seldom() {
    const TRIES: u32 = 5;
    let (first, connect, handshake) = (Duration::from_millis(200), Duration::from_secs(1), Duration::from_millis(300));
    let ((addr, udp), far) = (taken(), Node::start());
    let near = Node::with(move |config| config.timeouts.connect = connect);
    far.serve_over(CarrierKind::Auto, addr, timing());
    let since = Instant::now();
    let link = near.link_with(addr, move |config| {
        let times = Timing { handshake, redial_quic: (first, 1_000 * first), ..timing() };
        (config.carrier, config.timing) = (CarrierKind::Auto, times);
    });
    // The port gives no answer, and each try has a port of its own.
    udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let (mut tries, mut room) = (HashSet::new(), [0; 65_536]);
    until("QUIC was tried several times", || {
        tries.extend(udp.recv_from(&mut room).map(|(_, from)| from));
        tries.len() == TRIES as usize
    });
    // The first pause is half of its usual length at least, and each of the others twice the one before.
    let least = (connect + handshake) * (TRIES - 1) + first / 2 * ((1 << (TRIES - 1)) - 1);
    assert!(since.elapsed() >= least, "{TRIES} tries in {:?}, not {least:?}", since.elapsed());
    both_ways(&near, link, 100_000);
    assert_eq!((carriers(&near), near.links()[0].stats.resumes), (vec!["tcp"], 0));
}

#[test]
fn a_node_that_drains_gives_its_udp_port_to_its_successor_while_its_links_go_on_over_tcp() {
    let ((addr, udp), far, near) = (taken(), Node::start(), Node::start());
    drop(udp);
    far.serve_over(CarrierKind::Auto, addr, timing());
    let link = dial(&near, addr);
    until("the link has both", || carriers(&near) == ["quic", "tcp"]);
    let (mut client, mut server) = both_ways(&near, link, 100_000);
    far.drain(LONG);
    until("the ports are free", || TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok());
    let successor = Node::start();
    successor.serve_over(CarrierKind::Auto, addr, timing());
    until("the successor has a link over both", || carriers(&successor) == ["quic", "tcp"]);
    // The connection from before goes on over the old node, which ends with it.
    send_pattern(&mut client, 7, 100_000);
    read_pattern(&mut server, 7, 100_000);
    assert!(!far.is_over());
    drop((client, server));
    until("the old node is over", || far.is_over());
    both_ways(&near, link, 100_000);
}

#[test]
fn a_node_that_drains_keeps_its_udp_port_for_a_link_that_has_nothing_else() {
    let ((addr, udp), far, near) = (taken(), Node::start(), Node::start());
    drop(udp);
    far.serve_over(CarrierKind::Quic, addr, timing());
    let link = near.link_with(addr, |config| config.carrier = CarrierKind::Quic);
    near.until_up();
    let (mut client, mut server) = both_ways(&near, link, 100_000);
    far.drain(LONG);
    until("the peer knows", || near.has(|event| matches!(event, seaprox::node::LinkEvent::Draining)));
    assert!(UdpSocket::bind(addr).is_err());
    send_pattern(&mut client, 7, 100_000);
    read_pattern(&mut server, 7, 100_000);
    drop((client, server));
    until("the old node is over, and the port is free", || far.is_over() && UdpSocket::bind(addr).is_ok());
}
