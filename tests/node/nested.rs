//! Links over streams of other links: over real sockets between two and three nodes.

use crate::node_kit;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::node::{LinkEvent, LinkStatus, Over, Path, Policy, ServeConfig, SubflowState, Timing};
use seaprox::{Bind, Id, LinkState, Reason, VerbError, bind};

/// Serves links on a free port, and over streams of other links. Returns the address.
fn serve(node: &Node) -> SocketAddr {
    let policy = Arc::clone(&node.policy) as Arc<dyn Policy>;
    node.ask(move |core| {
        let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
        let config = ServeConfig { over_links: true, timing: timing(), ..ServeConfig::new(identity(2), policy) };
        core.serve_links(&mut bound[0], config).unwrap();
        bound[0].addr().ip().unwrap()
    })
}

/// Returns the status of a link.
fn status(node: &Node, link: Id) -> LinkStatus {
    node.ask(move |core| core.link(link).and_then(|link| link.status())).expect("the link is there")
}

#[track_caller]
fn until_up(node: &Node, link: Id) {
    until("the link is up", || status(node, link).state == LinkState::Up);
}

/// Sends some bytes in both directions of a new connection over a link.
#[track_caller]
fn transfer(node: &Node, link: Id, bytes: u64) {
    let (listener, addr) = target();
    let (mut near, mut far) = (connect(node.forward(link, addr.into())), accept(&listener));
    let (mut near_reads, mut far_reads) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| send_pattern(&mut near, 1, bytes));
        scope.spawn(|| send_pattern(&mut far, 2, bytes));
        scope.spawn(|| read_pattern(&mut far_reads, 1, bytes));
        read_pattern(&mut near_reads, 2, bytes);
    });
}

#[test]
fn a_nested_link_with_the_same_peer_carries_streams() {
    let (server, client) = (Node::start(), Node::start());
    let addr = serve(&server);
    let outer = client.link(addr);
    let inner = client.link_with(addr, move |config| (config.over, config.subflows) = (Some(Over::Peer(outer)), 2));
    assert_ne!(inner, outer, "a nested link is not the link of the same address");
    until_up(&client, inner);
    transfer(&client, inner, 3_000_000);
    until("both subflows are live", || {
        status(&client, inner).subflows.iter().filter(|it| it.state == SubflowState::Live).count() == 2
    });
    let seen = status(&client, inner);
    assert!(seen.subflows.iter().all(|it| it.remote.starts_with("link[")), "{:?}", seen.subflows);
    assert!(seen.key.is_some() && seen.cipher.is_some());
    assert_eq!(status(&client, outer).streams, 2, "one for each subflow");
    assert_eq!(server.links().len(), 2);
    transfer(&client, outer, 1000);
}

#[test]
fn a_nested_link_reaches_a_third_node_whose_traffic_its_peer_relays() {
    let (middle, far, client) = (Node::start(), Node::start(), Node::start());
    let far_addr = far.serve();
    let outer = client.link(middle.serve());
    let inner = client.link_with(far_addr, move |config| config.over = Some(Over::Target(outer)));
    until_up(&client, inner);
    transfer(&client, inner, 1_000_000);
    assert_eq!((far.links().len(), middle.links().len()), (1, 1));
    assert_eq!(middle.ask(|core| core.stats().streams_refused), 0);
    assert_eq!(middle.ask(|core| core.snapshot().connections.len()), 1, "the stream of the carrier");
}

#[test]
fn a_nested_link_survives_the_suspension_of_its_outer_link_and_notices_silence_by_itself() {
    let (server, client) = (Node::start(), Node::start());
    let addr = serve(&server);
    let cutter = Cutter::new(addr);
    let outer = client.link(cutter.addr);
    let inner = client.link_with(addr, move |config| {
        config.over = Some(Over::Peer(outer));
        config.timing = Timing {
            keepalive: Duration::from_millis(30),
            dead: Duration::from_millis(150),
            handshake: Duration::from_millis(500),
            ..timing()
        };
    });
    until_up(&client, inner);
    let (listener, target) = target();
    let (mut near, mut far) = (connect(client.forward(inner, target.into())), accept(&listener));
    send_pattern(&mut near, 1, 1000);
    read_pattern_from(&mut far, 1, 0, 1000);
    cutter.close(true);
    cutter.cut();
    until("the outer link is suspended", || status(&client, outer).state == LinkState::Suspended);
    near.write_all(&(1000..2000).map(|at| pattern(1, at)).collect::<Vec<_>>()).unwrap();
    until("the inner link is suspended", || status(&client, inner).state == LinkState::Suspended);
    cutter.close(false);
    read_pattern_from(&mut far, 1, 1000, 2000);
    until_up(&client, inner);
}

#[test]
fn a_nested_link_ends_with_its_outer_link() {
    let (server, client) = (Node::start(), Node::start());
    let addr = serve(&server);
    let outer = client.link(addr);
    let inner = client.link_with(addr, move |config| config.over = Some(Over::Peer(outer)));
    until_up(&client, inner);
    // A nested link that has no session ends too.
    let waiting =
        client.link_with("127.0.0.1:9".parse().unwrap(), move |config| config.over = Some(Over::Target(outer)));
    client.ask(move |core| core.link(outer).and_then(|mut link| link.close())).unwrap();
    until("all links are gone", || client.links().is_empty());
    let error = |link: Id| client.ask(move |core| core.link(link).map(drop));
    assert_eq!([inner, waiting].map(error), [Err(VerbError::Over(Reason::LinkLost)); 2]);
    let ends = client.happened.lock().unwrap();
    let is_lost = |event: &&LinkEvent| matches!(event, LinkEvent::Ended { reason: Reason::LinkLost, .. });
    assert_eq!(ends.iter().filter(is_lost).count(), 2);
}

#[test]
fn a_link_is_nested_in_at_most_four_others() {
    let (server, client) = (Node::start(), Node::start());
    let addr = serve(&server);
    let mut link = client.link(addr);
    for _ in 0..4 {
        until_up(&client, link);
        let outer = link;
        link = client.link_with(addr, move |config| config.over = Some(Over::Peer(outer)));
    }
    until_up(&client, link);
    let deepest = client.link_with(addr, move |config| config.over = Some(Over::Peer(link)));
    until("the peer has refused", || status(&client, deepest).failure.is_some());
    let (failure, _) = status(&client, deepest).failure.unwrap();
    assert_eq!(failure.reason, Reason::LimitReached, "{failure}");
}

/// Returns true if a nested link of the node has ended because its peer has closed the outer link in order.
fn was_closed_with_its_outer_link(node: &Node) -> bool {
    node.has(|event| matches!(event, LinkEvent::Ended { text, .. } if text == "the outer link was closed"))
}

#[test]
fn the_peer_of_a_nested_link_is_told_before_its_outer_link_closes() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve_with("127.0.0.1:0".parse().unwrap(), |config| config.over_links = true);
    let outer = client.link(addr);
    let inner = client.link_with(addr, move |config| config.over = Some(Over::Peer(outer)));
    let innermost = client.link_with(addr, move |config| config.over = Some(Over::Peer(inner)));
    until_up(&client, innermost);
    client.ask(move |core| core.link(outer).and_then(|mut link| link.close())).unwrap();
    until("the client has no link", || client.links().is_empty());
    until("the server has no session", || server.links().is_empty());
    let ends = server.happened.lock().unwrap();
    let is_told =
        |event: &&LinkEvent| matches!(event, LinkEvent::Ended { text, .. } if text == "the outer link was closed");
    assert_eq!(ends.iter().filter(is_told).count(), 2, "{ends:?}");
}

#[test]
fn a_third_node_loses_its_nested_link_with_the_outer_link() {
    let (middle, far, client) = (Node::start(), Node::start(), Node::start());
    let far_addr = far.serve();
    let outer = client.link(middle.serve());
    let inner = client.link_with(far_addr, move |config| config.over = Some(Over::Target(outer)));
    until_up(&client, inner);
    client.ask(move |core| core.link(outer).and_then(|mut link| link.close())).unwrap();
    until("the third node has no session", || far.links().is_empty());
    assert!(was_closed_with_its_outer_link(&far));
    until("no link is left", || client.links().is_empty() && middle.links().is_empty());
}

#[test]
fn a_node_that_serves_an_outer_link_closes_the_nested_ones_with_it() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve_with("127.0.0.1:0".parse().unwrap(), |config| config.over_links = true);
    let outer = client.link(addr);
    let inner = client.link_with(addr, move |config| config.over = Some(Over::Peer(outer)));
    until_up(&client, inner);
    let served = server.links().into_iter().find(|link| link.subflows.iter().all(|it| !it.remote.starts_with("link[")));
    let served = served.expect("the outer link").id;
    server.ask(move |core| core.link(served).and_then(|mut link| link.close())).unwrap();
    until("the client was told", || was_closed_with_its_outer_link(&client));
    // Both links are dialed again.
    until_up(&client, outer);
    until_up(&client, inner);
    until("the server has two sessions", || server.links().len() == 2);
}

#[test]
fn a_silent_peer_of_a_nested_link_does_not_keep_the_outer_peer_from_being_told() {
    let (middle, far, client) = (Node::start(), Node::start(), Node::start());
    let far_addr = far.serve();
    let outer = client.link(middle.serve());
    let inner = client.link_with(far_addr, move |config| config.over = Some(Over::Target(outer)));
    until_up(&client, inner);
    let (wake, asleep) = std::sync::mpsc::channel::<()>();
    far.remote.call(move |_| _ = asleep.recv_timeout(SOON)).unwrap();
    client.ask(|core| core.stop());
    until("the outer peer was told", || middle.links().is_empty());
    drop(wake);
}

#[test]
fn no_session_is_left_behind_when_outer_links_close_while_nested_links_begin() {
    let (server, client) = (Node::start(), Node::start());
    let addr = serve(&server);
    for round in 0..60 {
        let outer = client.link(addr);
        until_up(&client, outer);
        let inner = client.link_with(addr, move |config| config.over = Some(Over::Peer(outer)));
        // The close meets each stage of the nested link: its stream, its key exchange, its HELLO and its first frames.
        let since = std::time::Instant::now();
        let wait = Duration::from_micros(round % 30 * 250);
        until("the close is due", || since.elapsed() >= wait);
        client.ask(move |core| core.link(outer).and_then(|mut link| link.close())).unwrap();
        until("both links are gone", || client.links().iter().all(|link| link.id != outer && link.id != inner));
    }
    until("the server has no session", || server.links().is_empty());
}

#[test]
fn the_memory_of_a_nested_link_is_bounded_as_that_of_any_link() {
    const MEMORY: u64 = 256 << 10;
    let (server, client) = (Node::start(), Node::start());
    let addr = serve(&server);
    let outer = client.link(addr);
    let inner = client.link_with(addr, move |config| {
        config.over = Some(Over::Peer(outer));
        config.timing = Timing { memory_bytes: MEMORY, ..timing() };
    });
    until_up(&client, inner);
    let (listener, target) = target();
    let (mut near, _far) = (connect(client.forward(inner, target.into())), accept(&listener));
    // The far end reads nothing, so the client's loop stops to read when the memory is used up: the socket then has no room,
    // and each question is answered in another turn of the loop.
    near.set_nonblocking(true).unwrap();
    let (piece, mut unread, mut sent) = (vec![0; 65536], 0, 0);
    until("the client's loop reads no more", || {
        let count = near.write(&piece).unwrap_or(0);
        (unread, sent) = (if count == 0 { unread + 1 } else { 0 }, sent + count);
        assert!(sent < 64 << 20, "a link that nothing reads accepts a bounded number of bytes");
        let held = status(&client, inner).memory.0;
        assert!(held <= MEMORY + (64 << 10), "{held} bytes are held for the peer");
        unread >= 10 && held > 0
    });
    // The peer of the outer link acknowledges what is under way, late on a busy machine.
    until("the outer link holds no more than is under way", || status(&client, outer).memory.0 <= MEMORY);
    transfer(&client, outer, 100_000);
}

#[test]
fn a_nested_link_does_not_delay_the_drain_of_its_peer() {
    let (server, client) = (Node::start(), Node::start());
    let addr = serve(&server);
    let outer = client.link(addr);
    let inner = client.link_with(addr, move |config| config.over = Some(Over::Peer(outer)));
    until_up(&client, inner);
    server.drain(Duration::from_secs(300));
    until("the loop has ended", || server.is_over());
}

#[test]
fn a_nested_link_that_is_not_served_or_not_possible_says_so() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    let outer = client.link(addr);
    let inner = client.link_with(addr, move |config| config.over = Some(Over::Peer(outer)));
    until("the peer has refused", || status(&client, inner).failure.is_some());
    let (failure, _) = status(&client, inner).failure.unwrap();
    assert_eq!(failure.reason, Reason::NotPermitted, "{failure}");

    let policy = Arc::clone(&client.policy) as Arc<dyn Policy>;
    let answers = client.ask(move |core| {
        let gone = Id::from_u64(outer.to_u64() + (7 << 32)).unwrap();
        let listener = Id::from_u64(outer.to_u64() & !(0xf << 28) | 3 << 28).unwrap();
        [Over::Peer(gone), Over::Peer(listener), Over::Target(outer)].map(|over| {
            let mut config = seaprox::node::LinkConfig::new(identity(1), Arc::clone(&policy), addr.into());
            config.over = Some(over);
            if over == Over::Target(outer) {
                config.paths = vec![Path { local_port: Some(1), ..Path::default() }];
            }
            core.connect_link(config)
        })
    });
    assert_eq!(answers, [Err(VerbError::Stale), Err(VerbError::Invalid), Err(VerbError::Invalid)]);
}
