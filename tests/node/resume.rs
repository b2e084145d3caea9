//! A link that loses its connections: they are reset or silent, or its peer restarts or starts later. Over real
//! sockets.

use crate::node_kit;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::node::{CarrierKind, LinkEvent, Path, SubflowState, Timing};
use seaprox::{Bind, Reason};

#[test]
fn a_transfer_survives_the_loss_of_all_its_connections() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let link = client.link_with(cutter.addr, |config| config.subflows = 2);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    const COUNT: u64 = 64 << 20;
    const PIECE: u64 = 1 << 20;
    let pieces = AtomicU64::new(0);
    let read = |socket: &mut TcpStream, seed: u64| {
        for from in (0..COUNT).step_by(PIECE as usize) {
            read_pattern_from(socket, seed, from, from + PIECE);
            pieces.fetch_add(1, Ordering::Relaxed);
        }
    };
    let mut cuts = 0;
    thread::scope(|scope| {
        let (mut near_out, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        scope.spawn(move || {
            send_pattern(&mut near_out, 1, COUNT);
            near_out.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(move || send_pattern(&mut far_out, 2, COUNT));
        let reader = scope.spawn(|| {
            read(&mut far, 1);
            assert_eq!(read_end(&mut far), Ok(0));
        });
        let other = scope.spawn(|| read(&mut near, 2));
        let is_over = || reader.is_finished() && other.is_finished();
        while !is_over() {
            // Every second cut comes as soon as there is a connection, and so in the middle of its handshake. Before
            // each of the others a piece arrives, because a slow machine would never get one through otherwise.
            until("there is a connection to cut", || cutter.count() > cuts || is_over());
            cuts = cutter.count();
            cutter.cut();
            let before = pieces.load(Ordering::Relaxed);
            until("a piece arrives", || pieces.load(Ordering::Relaxed) > before || is_over());
            cutter.cut();
        }
    });
    let status = &client.links()[0];
    assert!(status.stats.resumes >= 3, "{status:?}");
    assert!(client.closed.lock().unwrap().is_empty());
}

#[test]
fn a_silent_connection_is_replaced_by_a_new_one() {
    let (server, client) = (Node::start(), Node::start());
    let soon = || Timing { keepalive: Duration::from_millis(100), dead: Duration::from_millis(400), ..timing() };
    let cutter = Cutter::new(server.serve_at("127.0.0.1:0".parse().unwrap(), soon()));
    let link = client.link_with(cutter.addr, move |config| config.timing = soon());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    near.write_all(b"before").unwrap();
    far.read_exact(&mut [0; 6]).unwrap();
    cutter.silence(true);
    near.write_all(b"during").unwrap();
    until("both ends have noticed", || {
        client.has(|h| matches!(h, LinkEvent::Suspended)) && server.has(|h| matches!(h, LinkEvent::Suspended))
    });
    cutter.cut();
    cutter.silence(false);
    let mut got = [0; 6];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"during");
    until("the session was resumed", || client.has(|h| matches!(h, LinkEvent::Resumed)));
}

#[test]
fn a_connection_waits_for_a_peer_that_starts_later() {
    let (server, client) = (Node::start(), Node::start());
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let closed = bound.local_addr().unwrap().as_socket().unwrap();
    let cutter = Cutter::new(server.serve());
    let link = client.link(closed);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    until("several tries have failed", || {
        client.has(
            |h| matches!(h, LinkEvent::NoSubflow { tries: 3, failure, .. } if failure.reason == Reason::ConnectionRefused),
        )
    });
    let mut near = connect(front);
    near.write_all(b"early").unwrap();
    // The socket listens from now on, and relays connections to the server.
    bound.listen(16).unwrap();
    let (late, to) = (std::net::TcpListener::from(bound), cutter.addr);
    thread::spawn(move || {
        for mut client in late.incoming().flatten() {
            let mut server = std::net::TcpStream::connect(to).unwrap();
            let (mut a, mut b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut a, &mut b));
            thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    let mut far = accept(&listener);
    let mut got = [0; 5];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"early");
}

/// The pause between redials is a minute, but less than a second while a client waits for the link.
#[test]
fn a_waiting_connection_shortens_the_pause_between_redials() {
    let minute = Duration::from_secs(60);
    let timing = move || Timing { redial: (minute, minute), redial_awaited: Duration::from_millis(300), ..timing() };
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    cutter.close(true);
    let link = client.link_with(cutter.addr, move |config| config.timing = timing());
    let failed = |tries: u32| client.has(|h| matches!(h, LinkEvent::NoSubflow { tries: n, .. } if *n == tries));
    until("the first attempt has failed", || failed(1));
    // The link was never up. The pauses are short only as long as a client waits.
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let near = connect(front);
    until("two more attempts soon fail", || failed(3));
    socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
    drop(near);
    let tries = || client.happened.lock().unwrap().len();
    until("the pauses are long again", || {
        let before = tries();
        thread::sleep(Duration::from_millis(700));
        tries() == before
    });
    let mut near = connect(front);
    let so_far = tries();
    until("two more attempts soon fail", || tries() >= so_far + 2);
    cutter.close(false);
    let mut far = accept(&listener);
    // The link has lost all of its subflows while a client uses it.
    client.happened.lock().unwrap().clear();
    cutter.close(true);
    cutter.cut();
    until("four attempts soon fail", || failed(4));
    cutter.close(false);
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    // The link was unused when it lost its subflows, and a client comes later.
    drop((near, far));
    until("no stream is left", || client.links()[0].streams == 0 && client.closed.lock().unwrap().len() == 2);
    client.happened.lock().unwrap().clear();
    cutter.close(true);
    cutter.cut();
    until("the try at once has failed", || failed(2));
    let mut near = connect(front);
    cutter.close(false);
    let mut far = accept(&listener);
    near.write_all(b"y").unwrap();
    far.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_restart_of_the_peer_resets_connections_and_new_ones_work() {
    let client = Node::start();
    let server = Node::start();
    let cutter = Cutter::new(server.serve());
    let link = client.link(cutter.addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    // Another node with the same key takes its place and does not have the session.
    let other = Node::start();
    cutter.point_to(other.serve());
    cutter.cut();
    assert_eq!(read_end(&mut near), Err(ErrorKind::ConnectionReset), "never a FIN");
    until("the client gets link_lost", || client.closed.lock().unwrap().first() == Some(&Reason::LinkLost));
    let mut again = connect(front);
    let mut far = accept(&listener);
    again.write_all(b"y").unwrap();
    far.read_exact(&mut [0]).unwrap();
}

/// Two nodes have one key and are behind a TCP load balancer, which gives them connections in turn. The node that
/// answers first has the session. A subflow that reaches the other node is refused and dialed again, and the session
/// goes on.
#[test]
fn a_subflow_that_reaches_another_node_is_refused_and_the_session_goes_on() {
    let (one, two, client) = (Node::start(), Node::start(), Node::start());
    let cutter = Cutter::new(one.serve());
    cutter.balance(two.serve());
    let link = client.link_with(cutter.addr, |config| config.subflows = 4);
    client.until_up();
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    let astray = |h: &LinkEvent| matches!(h, LinkEvent::NoSubflow { failure, .. } if failure.reason == Reason::Other);
    until("a subflow was refused", || client.has(astray));
    let is_live = |node: &Node| {
        let links = node.links();
        links
            .first()
            .map_or(0, |link| link.subflows.iter().filter(|subflow| subflow.state == SubflowState::Live).count())
    };
    until("all four subflows are at one node", || is_live(&client) == 4 && is_live(&one) + is_live(&two) == 4);
    assert!(one.links().len() + two.links().len() == 1, "the other node has no session");
    thread::scope(|scope| {
        let mut out = near.try_clone().unwrap();
        scope.spawn(move || send_pattern(&mut out, 1, 4 << 20));
        read_pattern(&mut far, 1, 4 << 20);
    });
    assert!(!client.has(|h| matches!(h, LinkEvent::Ended { .. })) && client.closed.lock().unwrap().is_empty());
    // When the session's node is gone, the other one says that the session is unknown, and gets the next session.
    let (gone, left) = if is_live(&one) > 0 { (one, two) } else { (two, one) };
    drop(gone);
    assert_eq!(read_end(&mut near), Err(ErrorKind::ConnectionReset));
    until("the link is up at the other node", || is_live(&left) > 0);
}

/// A stream without an answer from the old peer is not open yet. It is opened at the new peer.
#[test]
fn an_unanswered_open_is_repeated_after_a_restart_of_the_peer() {
    let (first, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(first.serve());
    let link = client.link(cutter.addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    client.until_up();
    // The link may have a stream of its own as well.
    let streams = |node: &Node| node.links().first().map_or(0, |link| link.streams);
    let is_connected = |mut near: std::net::TcpStream| {
        let mut far = accept(&listener);
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        far.shutdown(Shutdown::Both).unwrap();
        assert_eq!(read_end(&mut near), Ok(0));
    };
    // The client connects while the session has no subflow, and the peer comes back as another process.
    cutter.close(true);
    cutter.cut();
    until("no subflow is left", || client.has(|h| matches!(h, LinkEvent::Suspended)));
    let before = streams(&client);
    let near = connect(front);
    until("the session has the stream", || streams(&client) > before);
    let second = Node::start();
    cutter.point_to(second.serve());
    cutter.close(false);
    is_connected(near);
    until("the stream is gone", || streams(&client) == 0);
    // The OPEN is lost on the way to a peer that is silent first and then gone.
    cutter.silence(true);
    let before = streams(&client);
    let near = connect(front);
    until("the session has the stream", || streams(&client) > before);
    let third = Node::start();
    cutter.point_to(third.serve());
    cutter.cut();
    cutter.silence(false);
    is_connected(near);
    assert!(client.closed.lock().unwrap().iter().all(|reason| *reason == Reason::DestFin));
}

#[test]
fn a_session_that_is_not_resumed_ends_after_the_hold_time() {
    let (server, client) = (Node::start(), Node::start());
    let short = || Timing { hold: Duration::from_millis(300), ..timing() };
    let cutter = Cutter::new(server.serve_at("127.0.0.1:0".parse().unwrap(), short()));
    let link = client.link_with(cutter.addr, move |config| config.timing = short());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    cutter.close(true);
    cutter.cut();
    assert_eq!(read_end(&mut near), Err(ErrorKind::ConnectionReset));
    assert_eq!(read_end(&mut far), Err(ErrorKind::ConnectionReset));
    until("no link is left at the server", || server.links().is_empty());
    cutter.close(false);
    client.until_up();
}

#[test]
fn a_restarted_process_takes_over_its_session_and_port_at_once() {
    let server = Node::start();
    let cutter = Cutter::new(server.serve());
    let (listener, inner) = target();
    let port = free_addr().port();
    let dial = |node: &Node| {
        node.link_with(cutter.addr, move |config| {
            config.identity.instance = Some(7);
            config.reverse = vec![Node::reverse(Bind::parse(&format!("127.0.0.1:{port}")).unwrap(), inner)];
        })
    };
    let first = Node::start();
    dial(&first);
    until("the remote listener is up", || first.has(|h| matches!(h, LinkEvent::Listening { .. })));
    let mut user = connect(([127, 0, 0, 1], port).into());
    let mut served = accept(&listener);
    user.write_all(b"x").unwrap();
    served.read_exact(&mut [0]).unwrap();
    // The network of the process is silent. A new process with the same instance id dials over another network.
    cutter.silence(true);
    let second = Node::start();
    let other = Cutter::new(server.ask(|core| core.listeners()[0].addr.ip().unwrap()));
    second.link_with(other.addr, move |config| {
        config.identity.instance = Some(7);
        config.reverse = vec![Node::reverse(Bind::parse(&format!("127.0.0.1:{port}")).unwrap(), inner)];
    });
    assert_eq!(read_end(&mut user), Err(ErrorKind::ConnectionReset), "the old session has ended");
    until("the remote listener is up again", || second.has(|h| matches!(h, LinkEvent::Listening { .. })));
    let mut user = connect(([127, 0, 0, 1], port).into());
    let mut served = accept(&listener);
    user.write_all(b"y").unwrap();
    served.read_exact(&mut [0]).unwrap();
    cutter.cut();
    cutter.silence(false);
}

#[test]
fn remote_listeners_are_restored_after_a_restart_of_the_peer() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let (listener, inner) = target();
    client.link_with(cutter.addr, move |config| {
        config.reverse = vec![Node::reverse(Bind::parse("127.0.0.1:0").unwrap(), inner)];
    });
    until("the remote listener is up", || client.has(|h| matches!(h, LinkEvent::Listening { .. })));
    let port = |node: &Node| node.links().first()?.listeners.first()?.port;
    let use_it = |port: u16| {
        let mut user = connect(([127, 0, 0, 1], port).into());
        let mut served = accept(&listener);
        user.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
        (user, served)
    };
    let (mut user, _served) = use_it(port(&client).unwrap());
    let other = Node::start();
    cutter.point_to(other.serve());
    cutter.cut();
    drop(server);
    assert!(read_end(&mut user).is_err() || read_end(&mut user) == Ok(0));
    until("the remote listener is up at the other node", || port(&other).is_some());
    use_it(port(&other).unwrap());
}

#[test]
fn paths_can_be_added_and_removed_during_a_transfer() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    let (one, two) = (Cutter::new(addr), Cutter::new(addr));
    let link = client.link_over_tcp(one.addr);
    let (listener, inner) = target();
    let front = client.forward(link, inner.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    let path = Path { peer: Some(two.addr.into()), ..Path::default() };
    let added = path.clone();
    client.ask(move |core| core.link(link).unwrap().add_path(&added).unwrap());
    until("two subflows are live", || {
        client.links()[0].subflows.iter().filter(|s| s.state == SubflowState::Live).count() == 2
    });
    thread::scope(|scope| {
        let mut out = near.try_clone().unwrap();
        scope.spawn(move || send_pattern(&mut out, 1, 8 << 20));
        read_pattern(&mut far, 1, 8 << 20);
    });
    client.ask(move |core| core.link(link).unwrap().remove_path(&Path::default()).unwrap());
    until("one subflow is left", || client.links()[0].subflows.len() == 1);
    assert_eq!((one.count(), two.count()), (1, 1), "the removed path is not dialled again");
    near.write_all(b"z").unwrap();
    far.read_exact(&mut [0]).unwrap();
}

/// The pauses between redials double to a minute, but stay short for a path that refuses while another subflow is up.
#[test]
fn a_path_that_refuses_is_used_soon_after_it_is_back_while_another_one_lives() {
    let (server, client) = (Node::start(), Node::start());
    let to = server.serve();
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let refusing = bound.local_addr().unwrap().as_socket().unwrap();
    let pauses = Timing {
        redial: (Duration::from_millis(5), Duration::from_secs(60)),
        redial_beside: Duration::from_millis(10),
        ..timing()
    };
    let link = client.link_with(to, move |config| (config.carrier, config.timing) = (CarrierKind::Tcp, pauses));
    client.until_up();
    let path = Path { peer: Some(refusing.into()), ..Path::default() };
    client.ask(move |core| core.link(link).unwrap().add_path(&path).unwrap());
    // Without the bound, the pause before the last of these tries would be 80 s.
    until("fifteen tries have failed", || client.has(|h| matches!(h, LinkEvent::NoSubflow { tries: 15.., .. })));
    bound.listen(16).unwrap();
    let listener = std::net::TcpListener::from(bound);
    let relay = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = std::net::TcpStream::connect(to).unwrap();
        let (mut a, mut b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut a, &mut b));
        std::io::copy(&mut server, &mut client)
    });
    until("two subflows are live", || {
        client.links()[0].subflows.iter().filter(|s| s.state == SubflowState::Live).count() == 2
    });
    drop((client, server));
    let _ = relay.join();
}

#[test]
fn a_path_that_is_removed_during_its_handshake_does_not_come_up() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    let (one, two) = (Cutter::new(addr), Cutter::new(addr));
    let link = client.link_over_tcp(one.addr);
    client.until_up();
    two.silence(true);
    let path = Path { peer: Some(two.addr.into()), ..Path::default() };
    let added = path.clone();
    client.ask(move |core| core.link(link).unwrap().add_path(&added).unwrap());
    until("the second path is being dialed", || two.count() == 1 && client.links()[0].subflows.len() == 2);
    client.ask(move |core| core.link(link).unwrap().remove_path(&path).unwrap());
    two.silence(false);
    until("one subflow is left", || client.links()[0].subflows.len() == 1);
    // The first path of a link that is not up yet can be taken out too.
    let silent = Cutter::new(addr);
    silent.silence(true);
    let other = client.link_over_tcp(silent.addr);
    client.ask(move |core| core.link(other).unwrap().remove_path(&Path::default()).unwrap());
    silent.silence(false);
    let status = client.ask(move |core| core.links().into_iter().find(|link| link.id == other).unwrap());
    assert!(status.subflows.is_empty(), "{status:?}");
}

/// The node drains, so it must not accept new clients for the session that is resumed.
#[test]
fn a_session_resumed_at_a_draining_node_does_not_get_its_port_back() {
    let (server, one, two) = (Node::start(), Node::start(), Node::start());
    let addr = server.serve();
    let cutter = Cutter::new(addr);
    let (listener, inner) = target();
    let listening = |node: &Node| {
        let happened = node.happened.lock().unwrap();
        happened.iter().find_map(|h| if let LinkEvent::Listening { port, .. } = h { Some(*port) } else { None })
    };
    let link_at = |node: &Node, peer, port: u16| {
        node.link_with(peer, move |config| {
            config.reverse = vec![Node::reverse(Bind::parse(&format!("127.0.0.1:{port}")).unwrap(), inner)];
        });
        until("the peer listens", || listening(node).is_some());
        listening(node).unwrap()
    };
    let port = link_at(&one, cutter.addr, 0);
    cutter.close(true);
    cutter.cut();
    until("the server's session has no subflow", || server.has(|h| matches!(h, LinkEvent::Suspended)));
    link_at(&two, addr, port);
    let (_near, _far) = (connect(([127, 0, 0, 1], port).into()), accept(&listener));
    // The first one comes back, and is in the middle of its handshake when the drain begins.
    let before = cutter.count();
    cutter.silence(true);
    cutter.close(false);
    until("the client has dialed again", || cutter.count() > before);
    // After three turns of the loop the node has accepted the connection.
    (0..3).for_each(|_| server.ask(|_| ()));
    server.ask(|core| core.drain(SOON));
    cutter.silence(false);
    until("the session was resumed", || server.has(|h| matches!(h, LinkEvent::Resumed)));
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_connection_over_an_unreachable_link_ends_with_link_lost() {
    let client = Node::with(|config| config.timeouts.connect = Duration::from_millis(300));
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let link = client.link(bound.local_addr().unwrap().as_socket().unwrap());
    let (_listener, addr) = target();
    let front = client.forward(link, addr.into());
    assert!(read_end(&mut connect(front)).is_ok_and(|got| got == 0) || client.closed.lock().unwrap().len() == 1);
    until("the client gets link_lost", || client.closed.lock().unwrap().first() == Some(&Reason::LinkLost));
}
