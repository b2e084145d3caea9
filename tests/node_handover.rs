//! A peer that is away, and what is kept for it. Over real sockets.

mod node_kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::node::{Happened, Timing};
use seaprox::Bind;

/// A port of loopback that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Sends a byte each way.
#[track_caller]
fn exchange(near: &mut TcpStream, far: &mut TcpStream) {
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    far.write_all(b"x").unwrap();
    near.read_exact(&mut [0]).unwrap();
}

/// A client of a port at a peer, and its other end here. Those who only looked whether the port is there are left out.
#[track_caller]
fn user_of(port: u16, inner: &TcpListener) -> (TcpStream, TcpStream) {
    let mut user = connect(at(port));
    user.write_all(b"?").unwrap();
    loop {
        let mut served = accept(inner);
        if read_end(&mut served) == Ok(1) {
            return (user, served);
        }
    }
}

fn is_listening(node: &Node) -> bool {
    node.has(|h| matches!(h, Happened::Listening { .. }))
}

/// A port of loopback at a peer whose clients come to a listener of the test's, and the link that it belongs to.
fn link_with_port(node: &Node, peer: SocketAddr, port: u16, inner: SocketAddr) -> seaprox::Id {
    node.link_with(peer, move |config| config.reverse = vec![Node::reverse(Bind::Ip(at(port)), inner)])
}

fn hasty() -> Timing {
    Timing { keepalive: Duration::from_millis(100), dead: Duration::from_millis(400), ..timing() }
}

/// A client that is away: its port is closed when a silent subflow would be dead, and comes back with it.
#[test]
fn a_port_is_free_while_its_client_is_away() {
    let (server, client, other) = (Node::start(), Node::start(), Node::start());
    let serving = server.serve_at(at(0), hasty());
    let cutter = Cutter::new(serving);
    let port = free_port();
    let ((inner, inner_addr), (second, second_addr)) = (target(), target());
    link_with_port(&client, cutter.addr, port, inner_addr);
    until("it listens", || is_listening(&client));
    let (mut user, mut served) = user_of(port, &inner);
    exchange(&mut user, &mut served);
    let refused = || client.has(|h| matches!(h, Happened::NotListening { .. }));

    let leave = || {
        cutter.close(true);
        cutter.cut();
        until("nobody listens", || TcpStream::connect(at(port)).is_err());
    };
    leave();
    assert!(server.has(|h| matches!(h, Happened::Parted)));
    cutter.close(false);
    until("its port is back", || TcpStream::connect(at(port)).is_ok());
    exchange(&mut user, &mut served);
    assert!(!refused());

    // Another has it meanwhile: the client is told, asks again, and has it when the other is gone.
    leave();
    link_with_port(&other, serving, port, second_addr);
    until("another has the port", || is_listening(&other));
    cutter.close(false);
    until("it is told so", refused);
    exchange(&mut user, &mut served);
    let (mut user_two, mut served_two) = user_of(port, &second);
    exchange(&mut user_two, &mut served_two);
    client.happened.lock().unwrap().clear();
    drop(other);
    until("its port is back", || is_listening(&client));
    let (mut user_two, mut served_two) = user_of(port, &inner);
    exchange(&mut user_two, &mut served_two);
    exchange(&mut user, &mut served);
}
