//! Admission of peers, and the permissions and limits of their keys. Over real sockets.

use crate::node_kit;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use node_kit::*;
use seaprox::node::{CarrierKind, LinkEvent, Timing};
use seaprox::{Bind, LinkState, Reason};

#[test]
fn a_link_with_a_key_that_is_not_admitted_does_not_come_up() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    server.policy.keys.lock().unwrap().push([0; 32]);
    client.link(addr);
    until("the client was rejected", || {
        client.has(|h| matches!(h, LinkEvent::Rejected | LinkEvent::NoSubflow { tries: 2, .. }))
    });
    assert!(server.links().is_empty() && server.ask(|core| core.stats().unauthenticated_failed) > 0);
    // The other way round: the server's key is not the known one.
    let other = Node::start();
    other.policy.keys.lock().unwrap().push([9; 32]);
    server.policy.keys.lock().unwrap().clear();
    other.link(addr);
    until("the client reports the wrong key", || {
        other.has(|h| matches!(h, LinkEvent::WrongKey { key } if *key != [9; 32]))
    });
    assert!(other.links().iter().all(|link| link.state == LinkState::Connecting));
}

#[test]
fn removing_a_key_ends_its_sessions() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    server.policy.keys.lock().unwrap().push([0; 32]);
    server.ask(|core| core.recheck_links());
    assert_eq!(read_end(&mut near), Err(ErrorKind::ConnectionReset));
    assert_eq!(read_end(&mut far), Err(ErrorKind::ConnectionReset));
    until("no link is left at the server", || server.links().is_empty());
}

#[test]
fn the_permissions_of_a_key_are_checked_for_each_listener_and_stream() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    server.policy.listens.store(false, Ordering::Relaxed);
    *server.policy.streams_max.lock().unwrap() = Some(1);
    let (listener, inner) = target();
    let link = client.link_with(addr, move |config| {
        config.reverse = vec![Node::reverse(Bind::parse("127.0.0.1:0").unwrap(), inner)];
    });
    until("the client reports that the listener is not permitted", || {
        let denied = |h: &LinkEvent| matches!(h, LinkEvent::NotListening { failure, .. } if failure.reason == Reason::NotPermitted);
        client.has(denied)
    });
    let front = client.forward(link, inner.into());
    let (_near, _far) = (connect(front), accept(&listener));
    let mut second = connect(front);
    assert!(second.read(&mut [0]).is_err() || client.closed.lock().unwrap().contains(&Reason::LimitReached));
    until("the client gets limit_reached", || client.closed.lock().unwrap().contains(&Reason::LimitReached));
    // The accepting node may open nothing at the dialing node.
    assert_eq!(server.links()[0].listeners.len(), 0);
}

#[test]
fn the_stream_limit_counts_all_links_of_a_key() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    *server.policy.streams_max.lock().unwrap() = Some(1);
    let (one, two) = (client.link(addr), client.link(addr));
    let (listener, inner) = target();
    let (front, other) = (client.forward(one, inner.into()), client.forward(two, inner.into()));
    let (_near, _far) = (connect(front), accept(&listener));
    let _second = connect(other);
    until("the client gets limit_reached", || client.closed.lock().unwrap().contains(&Reason::LimitReached));
}

/// A stream whose bytes still wait for a slow reader counts after its session has ended, so that a peer gains nothing
/// by dialing again.
#[test]
fn the_stream_limit_counts_undelivered_streams_of_ended_sessions() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    *server.policy.streams_max.lock().unwrap() = Some(1);
    let (listener, inner) = target();
    let front = client.forward(client.link(addr), inner.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    far.shutdown(Shutdown::Write).unwrap();
    // Slightly more than the socket at the far end takes; the stream holds the rest.
    let dest = || server.ask(|core| core.snapshot().connections[0].dest.clone());
    let given = || dest().map_or(0, |dest| dest.bytes_out);
    let is_full = || dest().is_some_and(|dest| !dest.flags.contains(&"writable"));
    let mut sent = 0;
    let mut is_stuck = || {
        near.write_all(&[0; 1 << 16]).unwrap();
        sent += 1 << 16;
        let since = Instant::now();
        // On a busy machine the bytes may still be on their way to a socket that has room.
        while given() < sent && !(is_full() && since.elapsed() > Duration::from_millis(300)) {
            assert!(since.elapsed() < SOON);
        }
        given() < sent
    };
    while !is_stuck() {}
    near.shutdown(Shutdown::Write).unwrap();
    let has_left = || client.ask(|core| core.usage().connections) == 0 && client.links()[0].streams == 0;
    until("all bytes have arrived", has_left);
    drop(client);
    until("the link has ended", || server.links().is_empty());
    assert_eq!(server.ask(|core| core.usage().connections), 1, "the test has to leave something unread");
    let again = Node::start();
    let front = again.forward(again.link(addr), inner.into());
    let _second = connect(front);
    until("the client gets limit_reached", || again.closed.lock().unwrap().contains(&Reason::LimitReached));
    // When the reader has all bytes, the next stream is permitted.
    while far.read(&mut [0; 1 << 16]).unwrap() > 0 {}
    until("no connection is left at the server", || server.ask(|core| core.usage().connections) == 0);
    let (_third, _far) = (connect(front), accept(&listener));
}

#[test]
fn the_rate_limit_of_a_key_is_kept() {
    let (server, client) = (Node::start(), Node::start());
    *server.policy.rate_max.lock().unwrap() = Some(4 << 20);
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    let since = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| send_pattern(&mut far, 3, 4 << 20));
        read_pattern(&mut near, 3, 4 << 20);
    });
    let took = since.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
}

#[test]
fn a_small_rate_limit_does_not_make_a_subflow_look_dead() {
    let (server, client) = (Node::start(), Node::start());
    *server.policy.rate_max.lock().unwrap() = Some(60_000);
    let wary = || Timing { keepalive: Duration::from_millis(300), dead: Duration::from_millis(1500), ..timing() };
    let addr = server.serve_at("127.0.0.1:0".parse().unwrap(), wary());
    let link = client.link_with(addr, move |config| (config.carrier, config.timing) = (CarrierKind::Tcp, wary()));
    let (listener, inner) = target();
    let front = client.forward(link, inner.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    let is_well = |node: &Node| !node.has(|h| matches!(h, LinkEvent::Suspended | LinkEvent::NoSubflow { .. }));
    std::thread::scope(|scope| {
        scope.spawn(|| send_pattern(&mut far, 3, 300_000));
        read_pattern(&mut near, 3, 300_000);
    });
    assert!(is_well(&client) && is_well(&server), "down: {:?} {:?}", client.happened, server.happened);
    std::thread::scope(|scope| {
        scope.spawn(|| send_pattern(&mut near, 4, 300_000));
        read_pattern(&mut far, 4, 300_000);
    });
    assert!(is_well(&client) && is_well(&server), "up: {:?} {:?}", client.happened, server.happened);
}

#[test]
fn unauthenticated_peers_get_no_information_and_are_limited() {
    let server = Node::start();
    let short = Timing { handshake: Duration::from_millis(300), unauthenticated: 8, ..timing() };
    let addr = server.serve_at("127.0.0.1:0".parse().unwrap(), short);
    let mut garbage = connect(addr);
    garbage.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut got = Vec::new();
    let _ = garbage.read_to_end(&mut got);
    assert!(got.len() < 64 && !got.windows(4).any(|word| word == b"SPRX"), "{got:?}");
    let silent: Vec<TcpStream> = (0..40).map(|_| connect(addr)).collect();
    until("most peers are refused", || server.ask(|core| core.stats().unauthenticated_refused) >= 30);
    for mut socket in silent {
        let mut got = Vec::new();
        let _ = socket.read_to_end(&mut got);
        assert!(got.is_empty(), "a silent peer gets no byte");
    }
    let client = Node::start();
    client.link(addr);
    client.until_up();
}

/// Two processes have the same key and instance id, as after a machine was cloned. Each would take over from the other.
#[test]
fn two_processes_with_the_same_instance_id_do_not_evict_each_other_forever() {
    let (server, one, two) = (Node::start(), Node::start(), Node::start());
    let addr = server.serve();
    let clone = |node: &Node| node.link_with(addr, |config| config.identity.instance = Some(7));
    let (first, second) = (clone(&one), clone(&two));
    until("both links are up", || server.links().iter().filter(|link| link.state == LinkState::Up).count() == 2);
    let (listener, inner) = target();
    for (node, link) in [(&one, first), (&two, second)] {
        let front = node.forward(link, inner.into());
        let (mut near, mut far) = (connect(front), accept(&listener));
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
    }
    let ups = |node: &Node| node.happened.lock().unwrap().iter().filter(|h| matches!(h, LinkEvent::Up { .. })).count();
    assert!(ups(&one) + ups(&two) <= 6, "{} and {}", ups(&one), ups(&two));
    assert_eq!(server.links().len(), 2, "no other link is left");
}

#[test]
fn the_rate_limit_counts_all_links_of_a_key_and_can_be_changed() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    *server.policy.rate_max.lock().unwrap() = Some(100_000);
    let (listener, inner) = target();
    let links = [client.link_over_tcp(addr), client.link_over_tcp(addr)];
    let pairs = links.map(|link| (connect(client.forward(link, inner.into())), accept(&listener)));
    let pass = |pairs: &mut [(TcpStream, TcpStream)], count: u64| {
        let since = Instant::now();
        std::thread::scope(|scope| {
            for (near, far) in pairs {
                scope.spawn(move || send_pattern(far, 3, count));
                scope.spawn(move || read_pattern(near, 3, count));
            }
        });
        since.elapsed()
    };
    let mut pairs = pairs;
    let took = pass(&mut pairs, 80_000);
    assert!(took > Duration::from_millis(1200), "two links share one rate: {took:?}");
    *server.policy.rate_max.lock().unwrap() = None;
    server.ask(|core| core.recheck_links());
    let took = pass(&mut pairs, 4_000_000);
    assert!(
        took < Duration::from_secs(60),
        "the limit is gone: with it the transfer would take eighty seconds: {took:?}"
    );
}

/// A connection that waits for a refused link ends with `auth_failed`, not with a timeout. The status shows the failed
/// dials.
#[test]
fn a_link_whose_key_is_refused_reports_auth_failed() {
    let server = Node::start();
    server.policy.keys.lock().unwrap().push([9; 32]);
    let client = Node::with(|config| config.timeouts.connect = Duration::from_millis(700));
    let link = client.link(server.serve());
    let mut near = connect(client.forward(link, seaprox::Target::parse("127.0.0.1:9").unwrap()));
    assert!(near.read(&mut [0]).is_err() || near.read(&mut [0]).is_ok_and(|count| count == 0));
    until("the connection is closed", || !client.closed.lock().unwrap().is_empty());
    assert_eq!(*client.closed.lock().unwrap(), [Reason::AuthFailed]);
    let status = &client.links()[0];
    assert_eq!((status.state, status.mode, status.session_age), (LinkState::Connecting, "stripe", None));
    assert!(status.failure.as_ref().is_some_and(|(failure, _)| failure.reason == Reason::AuthFailed), "{status:?}");
    let ([missing], [_]) = (&status.missing[..], &status.blocked[..]) else { panic!("{status:?}") };
    assert!(missing.tries > 0 && missing.failure.is_some(), "{missing:?}");
    // The status of a link that is up again shows no failure, and a session that is younger than the link.
    server.policy.keys.lock().unwrap().clear();
    client.until_up();
    until("the status shows the link up without a failure", || {
        let status = &client.links()[0];
        status.state == LinkState::Up
            && status.failure.is_none()
            && status.missing.is_empty()
            && status.blocked.is_empty()
    });
    let status = &client.links()[0];
    assert!(status.session_age.is_some_and(|age| age < status.age), "{status:?}");
    assert!(status.state_for < status.age && status.subflows[0].rate.is_none(), "{status:?}");
}
