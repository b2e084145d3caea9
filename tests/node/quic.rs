//! Carriers over QUIC: loss, other addresses, refusals and ends. Over real sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use datagram_relay::DatagramRelay;
use node_kit::*;
use seaprox::node::{CarrierKind, Congestion, LinkEvent, Timing};
use seaprox::{Id, LinkState, Reason};

/// Returns a node that accepts links over QUIC, and its address.
fn server(timing: Timing) -> (Node, SocketAddr) {
    let node = Node::start();
    let addr = node.serve_over(CarrierKind::Quic, "127.0.0.1:0".parse().unwrap(), timing);
    (node, addr)
}

/// Dials a link over QUIC.
fn dial(node: &Node, addr: SocketAddr) -> Id {
    node.link_with(addr, |config| config.carrier = CarrierKind::Quic)
}

/// Moves bytes over several streams of a link in both directions at once.
#[track_caller]
fn exchange(near: &Node, link: Id, streams: u64, count: u64) {
    let (listener, addr) = target();
    let front = near.forward(link, addr.into());
    let pairs: Vec<_> = (0..streams).map(|_| (connect(front), accept(&listener))).collect();
    thread::scope(|scope| {
        for (client, server) in &pairs {
            for (from, to, seed) in [(client, server, 1), (server, client, 2)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                scope.spawn(move || send_pattern(&mut from, seed, count));
                scope.spawn(move || read_pattern(&mut to, seed, count));
            }
        }
    });
}

#[test]
fn streams_over_quic_are_whole_while_datagrams_are_lost_and_reordered() {
    let (far, addr) = server(timing());
    let (relay, near) = (DatagramRelay::new(addr), Node::start());
    let link = dial(&near, relay.addr);
    near.until_up();
    relay.spoil(50, 50);
    exchange(&near, link, 20, 100_000);
    let links = near.links();
    assert_eq!((links[0].state, links[0].stats.resumes), (LinkState::Up, 0));
    assert_eq!(links[0].subflows[0].carrier, Some("quic"));
    assert_eq!(far.links().len(), 1);
}

#[test]
fn both_ends_of_a_link_over_quic_use_the_congestion_control_of_their_configuration() {
    // BBR begins with a window of 200 datagrams, and the others with one of about 14,000 bytes.
    for (congestion, is_large) in [(Congestion::Bbr, true), (Congestion::Reno, false), (Congestion::System, false)] {
        let its = move || Timing { congestion, ..timing() };
        let ((far, addr), near) = (server(its()), Node::start());
        near.link_with(addr, move |config| (config.carrier, config.timing) = (CarrierKind::Quic, its()));
        near.until_up();
        for node in [&near, &far] {
            let figures = node.links()[0].subflows[0].figures.unwrap();
            assert_eq!(figures.window_bytes > 200_000, is_large, "{congestion:?}: {figures:?}");
        }
    }
}

#[test]
fn another_address_of_the_client_is_no_loss() {
    let (far, addr) = server(timing());
    let (relay, near) = (DatagramRelay::new(addr), Node::start());
    let link = dial(&near, relay.addr);
    near.until_up();
    exchange(&near, link, 2, 100_000);
    let before = far.links()[0].subflows[0].clone();
    for _ in 0..3 {
        relay.rebind();
        exchange(&near, link, 2, 100_000);
    }
    let after = far.links()[0].subflows[0].clone();
    assert_eq!((after.number, &after.local), (before.number, &before.local));
    assert_ne!(after.remote, before.remote, "the server has followed the client");
    assert_eq!(near.links()[0].stats.resumes, 0);
    assert!(!near.has(|event| matches!(event, LinkEvent::Suspended | LinkEvent::NoSubflow { .. })));
}

#[test]
fn a_session_resumes_when_datagrams_pass_again() {
    let dead = Duration::from_millis(600);
    let timing = move || Timing { dead, keepalive: dead / 4, ..timing() };
    let (_far, addr) = server(timing());
    let (relay, near) = (DatagramRelay::new(addr), Node::start());
    let link = near.link_with(relay.addr, move |config| {
        (config.carrier, config.timing) = (CarrierKind::Quic, timing());
    });
    near.until_up();
    let (listener, target) = target();
    let mut client = connect(near.forward(link, target.into()));
    let mut server = accept(&listener);
    relay.silence(true);
    client.write_all(b"meanwhile").unwrap();
    until("the path is given up", || near.has(|event| matches!(event, LinkEvent::Suspended)));
    relay.silence(false);
    let mut got = [0; 9];
    server.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"meanwhile");
    until("the session has resumed", || near.links()[0].stats.resumes == 1);
}

#[test]
fn a_restarted_server_resets_its_clients_at_once() {
    let (first, addr) = server(timing());
    let (relay, near) = (DatagramRelay::new(addr), Node::start());
    let link = dial(&near, relay.addr);
    near.until_up();
    exchange(&near, link, 1, 1000);
    // Nothing tells the client that its server ends.
    relay.silence(true);
    first.ask(|core| core.stop());
    until("the server is over", || first.is_over());
    let second = Node::start();
    second.serve_over(CarrierKind::Quic, addr, timing());
    relay.silence(false);
    until("the link is up again", || {
        near.has(|event| matches!(event, LinkEvent::Ended { reason: Reason::LinkLost, .. }))
            && second.links().len() == 1
    });
    exchange(&near, link, 1, 1000);
}

#[test]
fn the_end_of_a_link_is_told_over_quic() {
    let (far, addr) = server(timing());
    let near = Node::start();
    let link = dial(&near, addr);
    near.until_up();
    exchange(&near, link, 3, 1000);
    near.ask(move |core| core.link(link).unwrap().close().unwrap());
    until("the server has no link any more", || far.links().is_empty());
    assert!(far.has(|event| matches!(event, LinkEvent::Ended { reason: Reason::Drained, .. })));
}

#[test]
fn keys_are_checked_over_quic_as_over_tcp() {
    let (server, addr) = server(timing());
    server.policy.keys.lock().unwrap().push([0; 32]);
    let refused = Node::start();
    dial(&refused, addr);
    until("the client was rejected", || refused.has(|event| matches!(event, LinkEvent::Rejected)));
    assert!(server.links().is_empty() && server.ask(|core| core.stats().unauthenticated_failed) > 0);
    let suspicious = Node::start();
    suspicious.policy.keys.lock().unwrap().push([9; 32]);
    server.policy.keys.lock().unwrap().clear();
    dial(&suspicious, addr);
    until("the client reports the wrong key", || {
        suspicious.has(|event| matches!(event, LinkEvent::WrongKey { key } if *key != [9; 32]))
    });
}

#[test]
fn garbage_on_the_port_of_a_server_changes_nothing() {
    let (far, addr) = server(timing());
    let near = Node::start();
    let link = dial(&near, addr);
    near.until_up();
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    for len in [0, 1, 20, 1199, 1200, 1472, 9000] {
        for first in [0x00, 0x40, 0xc0, 0xc3, 0xff] {
            let bytes: Vec<u8> = (0..len).map(|at: usize| if at == 0 { first } else { (at * 31) as u8 }).collect();
            noise.send_to(&bytes, addr).unwrap();
        }
    }
    exchange(&near, link, 2, 50_000);
    assert_eq!((far.links().len(), near.links()[0].stats.resumes), (1, 0));
}
