//! The kinds of carriers, and the key exchange of each: every kind passes the same tests, over real sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use node_kit::*;
use seaprox::node::{CARRIERS, CarrierKind, Group, LinkStatus};

/// Returns a node that accepts links by a kind, and one that dials it by another.
fn nodes(server: CarrierKind, client: CarrierKind) -> (Node, Node, seaprox::Id) {
    let (far, near) = (Node::start(), Node::start());
    let addr = far.serve_over(server, "127.0.0.1:0".parse().unwrap(), timing());
    let link = near.link_with(addr, move |config| config.carrier = client);
    near.until_up();
    (far, near, link)
}

/// Returns the transports of the subflows of a node's only link.
fn carriers(node: &Node) -> Vec<Option<&'static str>> {
    let links: Vec<LinkStatus> = node.links();
    links[0].subflows.iter().map(|subflow| subflow.carrier).collect()
}

/// Moves bytes over a link in both directions at once, and ends each direction by itself.
#[track_caller]
fn exchange(near: &Node, link: seaprox::Id, count: u64) {
    let (mut client, mut server) = both_ways(near, link, count);
    client.write_all(b"the last bytes").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut last = Vec::new();
    server.read_to_end(&mut last).unwrap();
    assert_eq!(last, b"the last bytes");
    drop(server);
    assert_eq!(read_end(&mut client), Ok(0));
}

/// Returns the kinds that this system has, or that fall back to others. `Auto` is two of them; tests/net/link_auto.rs is about
/// it.
fn kinds() -> Vec<CarrierKind> {
    let is_one = |kind: &CarrierKind| *kind != CarrierKind::Auto && kind.require().is_ok();
    CARRIERS.iter().map(|row| row.kind).filter(is_one).collect()
}

/// Returns true if the sockets of a kind are those of TCP, or fall back to it.
fn is_like_tcp(kind: CarrierKind) -> bool {
    matches!(kind, CarrierKind::Tcp | CarrierKind::Mptcp)
}

/// Returns the name that the status has for two nodes with these kinds.
fn expected(server: CarrierKind, client: CarrierKind) -> &'static str {
    if server == client && server.is_available() { server.name() } else { "tcp" }
}

#[test]
fn every_kind_of_carrier_and_each_pair_of_kinds_carries_streams_and_names_its_transport() {
    assert_eq!(CARRIERS.iter().map(|row| row.name).collect::<Vec<_>>(), CarrierKind::NAMES);
    assert!(CarrierKind::default() == CarrierKind::Auto && CarrierKind::Tcp.is_available());
    for server in CARRIERS {
        assert_eq!((CarrierKind::parse(server.name), server.kind.name()), (Some(server.kind), server.name));
    }
    for server in kinds() {
        for client in kinds() {
            if server != client && !(is_like_tcp(server) && is_like_tcp(client)) {
                continue;
            }
            let (far, near, link) = nodes(server, client);
            exchange(&near, link, 8 << 20);
            let want = vec![Some(expected(server, client))];
            assert_eq!((carriers(&near), carriers(&far)), (want.clone(), want), "{client} to {server}");
        }
    }
    assert_eq!(CarrierKind::parse("carrier pigeon"), None);
}

#[test]
fn the_path_of_each_kind_of_carrier_is_measured() {
    for kind in kinds() {
        let (_far, near, link) = nodes(kind, kind);
        exchange(&near, link, 4 << 20);
        let subflow = near.links()[0].subflows[0].clone();
        assert!(subflow.rtt > Duration::ZERO && subflow.rtt < Duration::from_secs(1), "{kind} {subflow:?}");
        let (sent, received) = subflow.bytes;
        assert!(sent > 4 << 20 && received > 4 << 20, "{kind} {subflow:?}");
    }
}

#[test]
fn a_session_resumes_over_every_kind_of_carrier() {
    for kind in kinds().into_iter().filter(|kind| is_like_tcp(*kind)) {
        let far = Node::start();
        let near = Node::start();
        let addr = far.serve_over(kind, "127.0.0.1:0".parse().unwrap(), timing());
        // The cutter speaks TCP, so the carriers fall back; a session resumes over what it gets.
        let cutter = cutter::Cutter::new(addr);
        let link = near.link_with(cutter.addr, move |config| config.carrier = kind);
        near.until_up();
        let (listener, target) = target();
        let mut client = connect(near.forward(link, target.into()));
        let mut server = accept(&listener);
        client.write_all(b"before").unwrap();
        let mut got = [0; 6];
        server.read_exact(&mut got).unwrap();
        assert!(cutter.cut() > 0, "a connection was cut");
        client.write_all(b"behind").unwrap();
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"behind", "{kind}");
        until("the session has resumed", || near.links()[0].stats.resumes == 1);
    }
}

#[test]
fn nodes_link_by_the_post_quantum_group_and_by_x25519_with_a_node_that_has_no_other() {
    let newest = Group::preferred()[0].name();
    assert_eq!(newest == "X25519MLKEM768", Group::X25519MlKem768.is_available());
    let old = || vec![Group::X25519];
    for (server, client, want) in [(vec![], vec![], newest), (old(), vec![], "X25519"), (vec![], old(), "X25519")] {
        let (far, near) = (Node::start(), Node::start());
        let addr = far.serve_with("127.0.0.1:0".parse().unwrap(), move |config| config.identity.groups = server);
        let link = near.link_with(addr, move |config| config.identity.groups = client);
        near.until_up();
        exchange(&near, link, 1 << 20);
        for node in [&near, &far] {
            let mut groups: Vec<_> = node.links()[0].subflows.iter().filter_map(|subflow| subflow.group).collect();
            groups.dedup();
            assert_eq!(groups, [want]);
        }
    }
}
