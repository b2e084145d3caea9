//! The verbs of links, through the public interface alone: over real sockets between two nodes.

use crate::node_kit;

use std::net::TcpListener;

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::node::{LinkEvent, Path};
use seaprox::{LinkState, Reason};

/// Returns a port of loopback that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn path_from(port: u16) -> Path {
    Path { source: Some([127, 0, 0, 1].into()), local_port: Some(port), ..Path::default() }
}

#[test]
fn a_link_with_a_local_port_has_it_in_the_status_and_again_after_a_loss() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let port = free_port();
    client.link_with(cutter.addr, move |config| config.paths = vec![path_from(port)]);
    client.until_up();
    let local = format!("127.0.0.1:{port}");
    assert_eq!(client.links()[0].subflows[0].local, local);
    cutter.cut();
    until("the link has resumed", || client.has(|event| matches!(event, LinkEvent::Resumed)));
    until("the subflow has its port again", || {
        client.links()[0].subflows.iter().any(|subflow| subflow.local == local && subflow.state == "live")
    });
}

#[test]
fn a_local_port_in_use_is_the_failure_in_the_status_with_the_tries() {
    let (server, client) = (Node::start(), Node::start());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    client.link_with(server.serve(), move |config| config.paths = vec![path_from(port)]);
    until("two tries have failed", || client.links()[0].tries >= 2);
    let status = &client.links()[0];
    let (failure, _) = status.failure.as_ref().expect("a failure");
    assert_eq!((status.state, failure.reason), (LinkState::Connecting, Reason::AddressInUse), "{failure}");
    assert!(status.missing[0].path.starts_with(&format!("127.0.0.1:{port}->")), "{}", status.missing[0].path);
    drop(taken);
    client.until_up();
    assert_eq!(client.links()[0].tries, 0);
}
