//! Fresh connections beside silent ones. Over real sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use node_kit::cutter::Cutter;
use node_kit::datagram_relay::DatagramRelay;
use node_kit::*;
use seaprox::node::{CarrierKind, LinkEvent, Path, SubflowState, SubflowStatus, Timing};

/// Returns the timers of a link whose subflows are dead after an hour.
fn patient() -> Timing {
    Timing { dead: Duration::from_secs(3600), ..timing() }
}

/// The subflow would be dead after an hour.
#[test]
fn a_fresh_connection_takes_the_place_of_a_silent_one_and_no_byte_is_lost() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve_at("127.0.0.1:0".parse().unwrap(), patient()));
    let link = client.link_with(cutter.addr, move |config| config.timing = patient());
    let (listener, inner) = target();
    let front = client.forward(link, inner.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    for turn in 0..2 {
        thread::scope(|scope| {
            let (mut out, mut back) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            scope.spawn(move || send_pattern(&mut out, 1 + turn, 4 << 20));
            scope.spawn(move || send_pattern(&mut back, 3 + turn, 4 << 20));
            scope.spawn(|| read_pattern(&mut near, 3 + turn, 4 << 20));
            read_pattern_from(&mut far, 1 + turn, 0, 2 << 20);
            cutter.forget();
            read_pattern_from(&mut far, 1 + turn, 2 << 20, 4 << 20);
        });
    }
    assert!(!client.has(|h| matches!(h, LinkEvent::Suspended | LinkEvent::NoSubflow { .. })));
    // A peer that stays silent is tried seldom: about every 400 ms.
    cutter.silence(true);
    near.write_all(b"x").unwrap();
    let (before, since) = (cutter.count(), Instant::now());
    until("five more have been tried", || cutter.count() >= before + 5);
    assert!(since.elapsed() >= Duration::from_millis(4 * 350), "{:?}", since.elapsed());
    cutter.silence(false);
    far.read_exact(&mut [0]).unwrap();
    let is_over_tcp = |subflow: &&SubflowStatus| subflow.carrier == Some("tcp");
    until("one connection is left", || client.links()[0].subflows.iter().filter(is_over_tcp).count() == 1);
}

/// A busy server closes those that it has no room for.
#[test]
fn a_server_that_closes_fresh_connections_at_once_is_tried_after_longer_pauses() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve_at("127.0.0.1:0".parse().unwrap(), patient()));
    let link = client.link_with(cutter.addr, move |config| config.timing = patient());
    let (mut near, mut far) = both_ways(&client, link, 1000);
    cutter.silence(true);
    cutter.close(true);
    near.write_all(b"x").unwrap();
    let (before, mut pause, mut since) = (cutter.closes(), Duration::ZERO, Instant::now());
    for number in 1..=12 {
        until("another one is tried", || cutter.closes() >= before + number);
        (pause, since) = (since.elapsed(), Instant::now());
    }
    // It has doubled twice, and has lost up to a half at random.
    assert!(pause >= Duration::from_millis(700), "{pause:?}");
    cutter.close(false);
    cutter.silence(false);
    far.read_exact(&mut [0]).unwrap();
}

/// The connections that are dialed in place of the dead ones stay silent, too, and are given up after an hour.
#[test]
fn a_link_whose_subflows_are_dead_goes_on_soon_after_the_network_is_back() {
    let hour = Duration::from_secs(3600);
    let timing = Timing { dead: Duration::from_secs(1), handshake: hour, ..patient() };
    let (server, client) = (Node::start(), Node::start());
    let served = server.serve_at("127.0.0.1:0".parse().unwrap(), timing.clone());
    let (first, cutter) = (Cutter::new(served), Cutter::new(served));
    let own = timing.clone();
    let link = client.link_with(first.addr, move |config| {
        (config.carrier, config.timing) = (CarrierKind::Tcp, own);
    });
    let (mut near, mut far) = both_ways(&client, link, 1000);
    // A path that was removed counts no more, although it was up.
    let path = Path { peer: Some(cutter.addr.into()), ..Path::default() };
    client.ask(move |core| core.link(link).unwrap().add_path(&path).unwrap());
    let live = |client: &Node| client.links()[0].subflows.iter().filter(|s| s.state == SubflowState::Live).count();
    until("two subflows are live", || live(&client) == 2);
    client.ask(move |core| core.link(link).unwrap().remove_path(&Path::default()).unwrap());
    until("one subflow is left", || client.links()[0].subflows.len() == 1);
    cutter.silence(true);
    near.write_all(b"x").unwrap();
    until("the session is suspended", || client.has(|event| matches!(event, LinkEvent::Suspended)));
    let before = cutter.count();
    until("three more are dialed", || cutter.count() >= before + 3);
    cutter.forget();
    cutter.silence(false);
    far.read_exact(&mut [0]).unwrap();
    until("one connection is left", || client.links()[0].subflows.len() == 1);
}

/// Returns true if a socket has something to read.
fn has_input(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let has_input = socket.peek(&mut [0]).is_ok();
    socket.set_nonblocking(false).unwrap();
    has_input
}

/// Sends a word over a link of this kind to a node whose relay at `addr` is silent. The relay answers one connection, by its number,
/// after a later one was dialed; then the word must arrive.
fn pass_late(
    kind: CarrierKind,
    relay: SocketAddr,
    silence: &dyn Fn(bool),
    count: &dyn Fn() -> usize,
    answer_only: &dyn Fn(usize),
) -> Node {
    let client = Node::start();
    let link = client.link_with(relay, move |config| (config.carrier, config.timing) = (kind, patient()));
    let (mut near, mut far) = both_ways(&client, link, 1000);
    let (before, mut chosen) = (count(), None);
    silence(true);
    near.write_all(b"x").unwrap();
    until("a connection is used that was dialed before others", || {
        let dialed = count();
        // It was dropped meanwhile if this machine was too busy.
        if dialed >= chosen.unwrap_or(before) + 2 + 3 * usize::from(chosen.is_some()) {
            chosen = Some(dialed - 2);
            answer_only(dialed - 2);
            silence(false);
        }
        has_input(&far)
    });
    far.read_exact(&mut [0]).unwrap();
    assert!(!client.has(|event| matches!(event, LinkEvent::Suspended | LinkEvent::NoSubflow { .. })));
    client
}

#[test]
fn a_fresh_connection_has_time_for_its_answers_and_the_others_are_reset_when_it_is_up() {
    let server = Node::start();
    let cutter = Cutter::new(server.serve_at("127.0.0.1:0".parse().unwrap(), patient()));
    let relay = &cutter;
    let _client =
        pass_late(CarrierKind::Tcp, relay.addr, &|is_silent| relay.silence(is_silent), &|| relay.count(), &|number| {
            relay.answer_only(number)
        });
    cutter.answer_all();
    until("one connection is left", || cutter.resets() == cutter.count() - 1);
    until("the silent one has left the server", || server.links()[0].subflows.len() == 1);
}

/// A system sends the first packet of TCP again, and QUIC its first datagram.
#[test]
fn the_first_datagram_of_a_fresh_connection_may_be_lost() {
    let server = Node::start();
    let addr = server.serve_over(CarrierKind::Quic, "127.0.0.1:0".parse().unwrap(), patient());
    let relay = DatagramRelay::new(addr);
    let _client =
        pass_late(CarrierKind::Quic, relay.addr, &|is_silent| relay.silence(is_silent), &|| relay.count(), &|number| {
            relay.answer_only(number)
        });
}

/// The pauses of QUIC itself double, and the session asks once a second.
#[test]
fn a_silent_peer_of_quic_is_asked_several_times_a_second_as_long_as_it_is_silent() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve_over(CarrierKind::Quic, "127.0.0.1:0".parse().unwrap(), patient());
    let relay = DatagramRelay::new(addr);
    let link = client.link_with(relay.addr, |config| (config.carrier, config.timing) = (CarrierKind::Quic, patient()));
    let (mut near, mut far) = both_ways(&client, link, 1000);
    relay.silence(true);
    relay.record();
    near.write_all(b"x").unwrap();
    let (since, mut asked) = (Instant::now(), 0);
    until("it has been asked thirty times", || {
        // The long headers are those of fresh connections.
        asked += relay.recorded().iter().filter(|datagram| datagram[0] & 0x80 == 0).count();
        relay.record();
        asked >= 30
    });
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    relay.answer_only(0);
    relay.silence(false);
    far.read_exact(&mut [0]).unwrap();
}
