//! Handover over real sockets: a node that drains and the reaction of its peer; a lost peer and the state that is kept
//! for it.

use crate::node_kit;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::node::{LinkEvent, Timing};
use seaprox::{Bind, LinkState, Reason};

/// A drain timeout that is longer than any deadline of a test, so that a drain that ends did not wait for it.
const LONG: Duration = Duration::from_secs(300);

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Sends a byte in each direction.
#[track_caller]
fn exchange(near: &mut TcpStream, far: &mut TcpStream) {
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    far.write_all(b"x").unwrap();
    near.read_exact(&mut [0]).unwrap();
}

/// Closes both directions of a connection in order.
#[track_caller]
fn close(near: &mut TcpStream, far: &mut TcpStream) {
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(far), Ok(0));
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(near), Ok(0));
}

/// Connects a client to a port of the peer. Returns it and its other end at the test's listener. Skips connections that
/// only checked if the port is open.
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
    node.has(|h| matches!(h, LinkEvent::Listening { .. }))
}

/// Dials a link with a remote forward from a port of the peer to `inner`. Returns the link's id.
fn link_with_port(node: &Node, peer: SocketAddr, port: u16, inner: SocketAddr) -> seaprox::Id {
    node.link_with(peer, move |config| config.reverse = vec![Node::reverse(Bind::from(at(port)), inner)])
}

#[test]
fn a_stream_of_a_lost_peer_does_not_delay_a_drain() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let link = client.link(cutter.addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    exchange(&mut near, &mut far);
    cutter.close(true);
    cutter.cut();
    until("the server's session has no subflow", || server.links()[0].state == LinkState::Suspended);
    socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
    drop(far);
    until("the connection has ended", || server.ask(|core| core.stats().closed_total()) == 1);
    assert_ne!(server.links()[0].streams, 0, "the peer does not know of the end");
    server.drain(LONG);
    until("the loop has ended", || server.is_over());
}

/// The dialing node can resume its session, and has bytes that the peer has not acknowledged.
#[test]
fn a_drain_waits_until_the_peer_of_a_dialed_link_has_all_bytes() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let link = client.link(cutter.addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    exchange(&mut near, &mut far);
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&mut near), Ok(0));
    cutter.close(true);
    cutter.cut();
    until("the client's session has no subflow", || client.links()[0].state == LinkState::Suspended);
    near.write_all(b"the rest").unwrap();
    drop(near);
    until("the connection has ended", || client.closed.lock().unwrap().len() == 1);
    client.drain(LONG);
    (0..10).for_each(|_| client.ask(|_| ()));
    assert!(!client.is_over());
    cutter.close(false);
    let mut got = Vec::new();
    far.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"the rest");
    until("the loop has ended", || client.is_over());
}

#[test]
fn new_connections_go_to_the_successor_of_a_draining_node() {
    let (server, client) = (Node::start(), Node::start());
    let serving = server.serve_at(free_addr(), timing());
    let port = free_addr().port();
    let (inner, inner_addr) = target();
    let link = link_with_port(&client, serving, port, inner_addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    exchange(&mut near, &mut far);
    until("the remote listener is up", || is_listening(&client));
    let (mut user, mut served) = user_of(port, &inner);
    exchange(&mut user, &mut served);

    server.drain(LONG);
    until("the client has noticed", || client.has(|h| matches!(h, LinkEvent::Draining)));
    // No successor exists yet, so the new connection waits.
    let mut waiting = connect(front);
    waiting.write_all(b"early").unwrap();
    let successor = Node::start();
    successor.serve_at(serving, timing());
    let mut taken = accept(&listener);
    let mut got = [0; 5];
    taken.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"early");
    assert_eq!(successor.links().len(), 1, "the connection goes through the successor");
    until("the successor listens", || !successor.links()[0].listeners.is_empty());
    let (mut user_two, mut served_two) = user_of(port, &inner);
    exchange(&mut user_two, &mut served_two);
    assert_eq!(
        client.links().iter().map(|link| (link.state, link.dialled)).collect::<Vec<_>>(),
        [(LinkState::Up, true), (LinkState::Draining, true)]
    );

    // Running connections go on, and the draining node ends with the last of them.
    exchange(&mut near, &mut far);
    exchange(&mut user, &mut served);
    close(&mut user, &mut served);
    assert!(!server.is_over());
    close(&mut near, &mut far);
    until("the loop has ended", || server.is_over());
    until("one of the two sessions is gone", || client.links().len() == 1);
    exchange(&mut waiting, &mut taken);
    exchange(&mut user_two, &mut served_two);
    assert!(client.has_closed_in_order() && !client.has(|h| matches!(h, LinkEvent::Ended { .. })));
}

#[test]
fn connections_that_outlast_the_drain_are_reset_and_others_go_on() {
    let (server, client) = (Node::start(), Node::start());
    let serving = server.serve_at(free_addr(), timing());
    let link = client.link(serving);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    exchange(&mut near, &mut far);
    server.drain(Duration::from_secs(4));
    let successor = Node::start();
    successor.serve_at(serving, timing());
    let (mut near_two, mut far_two) = (connect(front), accept(&listener));
    exchange(&mut near_two, &mut far_two);
    exchange(&mut near, &mut far);
    assert_eq!(read_end(&mut near), Err(ErrorKind::ConnectionReset));
    until("the loop has ended", || server.is_over());
    exchange(&mut near_two, &mut far_two);
}

/// The peer of a draining node without connections closes the session, and the node ends without a wait.
#[test]
fn a_draining_node_without_connections_ends_at_once() {
    let (server, client) = (Node::start(), Node::start());
    let serving = server.serve_at(free_addr(), timing());
    let link = client.link(serving);
    client.until_up();
    server.drain(LONG);
    until("the loop has ended", || server.is_over());
    let successor = Node::start();
    successor.serve_at(serving, timing());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    exchange(&mut near, &mut far);
    assert!(!client.has(|h| matches!(h, LinkEvent::Suspended)), "the session was closed, not lost");
}

/// A draining node accepts no subflow, so a session that has lost all of its subflows cannot be resumed.
#[test]
fn a_session_of_a_draining_node_ends_with_its_last_subflow() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let link = client.link(cutter.addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    exchange(&mut near, &mut far);
    server.drain(LONG);
    until("the client has noticed", || client.has(|h| matches!(h, LinkEvent::Draining)));
    cutter.cut();
    assert_eq!(read_end(&mut near), Err(ErrorKind::ConnectionReset));
    assert_eq!(client.closed.lock().unwrap()[..], [Reason::LinkLost]);
}

/// Each GOAWAY leads to a new session beside the draining one. Beyond eight draining sessions the oldest is ended.
#[test]
fn a_link_keeps_at_most_eight_draining_sessions() {
    let client = Node::start();
    let first = Node::start();
    let cutter = Cutter::new(first.serve());
    let link = client.link_with(cutter.addr, |config| config.subflows = 3);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut servers, mut pairs) = (vec![first], Vec::new());
    for _ in 0..10 {
        let (mut near, mut far) = (connect(front), accept(&listener));
        exchange(&mut near, &mut far);
        pairs.push((near, far));
        let next = Node::start();
        cutter.point_to(next.serve());
        servers.last().unwrap().drain(LONG);
        servers.push(next);
    }
    let (mut near, mut far) = (connect(front), accept(&listener));
    exchange(&mut near, &mut far);
    assert_eq!(client.links().iter().filter(|link| link.state == LinkState::Draining).count(), 8);
    for (number, (near, far)) in pairs.iter_mut().enumerate() {
        if number < 2 {
            assert_eq!(read_end(near), Err(ErrorKind::ConnectionReset), "{number}");
        } else {
            exchange(near, far);
        }
    }
}

/// The pauses between redials do not grow to the longest one while a successor starts.
#[test]
fn redials_of_a_successor_have_short_pauses() {
    let (server, client) = (Node::start(), Node::start());
    let serving = server.serve_at(free_addr(), timing());
    client.link_with(serving, |config| config.timing = Timing::default());
    client.until_up();
    server.drain(LONG);
    // With pauses that double up to 15 s, ten tries take more than 27 s.
    until("ten redials have failed", || client.has(|h| matches!(h, LinkEvent::NoSubflow { tries: 10.., .. })));
    let successor = Node::start();
    successor.serve_at(serving, timing());
    until("the client has found the successor", || !successor.links().is_empty());
}

/// The client connects to a remote port before the far node knows that the port's owner drains. It is served if its
/// stream arrives soon.
#[test]
fn a_client_that_connects_before_the_goaway_arrives_is_served() {
    let serves = || {
        let (server, client) = (Node::start(), Node::start());
        let cutter = Cutter::new(server.serve());
        let port = free_addr().port();
        let (inner, inner_addr) = target();
        link_with_port(&client, cutter.addr, port, inner_addr);
        until("the remote listener is up", || is_listening(&client));
        cutter.silence(true);
        let mut user = connect(at(port));
        user.write_all(b"x").unwrap();
        until("the server has accepted the user", || server.ask(|core| core.stats().opened) == 1);
        client.drain(LONG);
        cutter.silence(false);
        // The service sends a byte as soon as it has the client; a refused stream resets the client.
        let serving = std::thread::spawn(move || {
            inner.set_nonblocking(true).unwrap();
            let since = std::time::Instant::now();
            while since.elapsed() < SOON {
                if let Ok((mut served, _)) = inner.accept() {
                    return served.write_all(b"y").is_ok();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            false
        });
        let is_served = read_end(&mut user) == Ok(1);
        is_served && serving.join().unwrap()
    };
    // On a busy machine some attempts may be late.
    assert!((0..5).any(|_| serves()));
}

#[test]
fn a_draining_client_releases_its_remote_port_at_once() {
    let (server, client, other) = (Node::start(), Node::start(), Node::start());
    let serving = server.serve_at(free_addr(), timing());
    let port = free_addr().port();
    let ((inner, inner_addr), (second, second_addr)) = (target(), target());
    link_with_port(&client, serving, port, inner_addr);
    until("the remote listener is up", || is_listening(&client));
    let (mut user, mut served) = user_of(port, &inner);
    exchange(&mut user, &mut served);
    client.drain(LONG);
    until("the remote port is closed", || TcpStream::connect(at(port)).is_err());
    // Clients that only checked the port end with it.
    drop(inner);
    link_with_port(&other, serving, port, second_addr);
    until("the other node has the port", || is_listening(&other));
    let (mut user_two, mut served_two) = user_of(port, &second);
    exchange(&mut user_two, &mut served_two);
    exchange(&mut user, &mut served);
    assert!(!client.is_over());
    close(&mut user, &mut served);
    until("the loop has ended", || client.is_over());
}

fn hasty() -> Timing {
    Timing { keepalive: Duration::from_millis(100), dead: Duration::from_millis(400), ..timing() }
}

/// The port of a client without subflows is closed after the time for a dead subflow, and opened again when it returns.
#[test]
fn the_remote_port_of_a_lost_client_is_free_until_it_returns() {
    let (server, client) = (Node::start(), Node::start());
    let serving = server.serve_at(free_addr(), hasty());
    let cutter = Cutter::new(serving);
    let port = free_addr().port();
    let (inner, inner_addr) = target();
    link_with_port(&client, cutter.addr, port, inner_addr);
    until("the remote listener is up", || is_listening(&client));
    let (mut user, mut served) = user_of(port, &inner);
    exchange(&mut user, &mut served);
    let refused = || client.has(|h| matches!(h, LinkEvent::NotListening { .. }));

    let leave = || {
        cutter.close(true);
        cutter.cut();
        until("the remote port is closed", || TcpStream::connect(at(port)).is_err());
    };
    leave();
    assert!(server.has(|h| matches!(h, LinkEvent::Suspended)));
    cutter.close(false);
    until("the remote port is open again", || TcpStream::connect(at(port)).is_ok());
    exchange(&mut user, &mut served);
    assert!(!refused());

    // If another program has the port, the client is told, asks again, and gets the port when the program is gone.
    leave();
    let stranger = TcpListener::bind(at(port)).unwrap();
    cutter.close(false);
    until("the client is refused the port", refused);
    exchange(&mut user, &mut served);
    client.happened.lock().unwrap().clear();
    drop(stranger);
    until("the client has the port again", || is_listening(&client));
    let (mut user_two, mut served_two) = user_of(port, &inner);
    exchange(&mut user_two, &mut served_two);
    exchange(&mut user, &mut served);
}
