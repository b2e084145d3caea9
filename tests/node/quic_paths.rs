//! Links over QUIC whose path changes in mid-stream: other addresses, black holes for long datagrams, silence, loss.

use crate::node_kit;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use node_kit::datagram_relay::DatagramRelay;
use node_kit::*;
use seaprox::Id;
use seaprox::node::{CarrierKind, LinkEvent, Timing};

/// Two nodes with a link over QUIC through a relay.
struct Pair {
    far: Node,
    near: Node,
    relay: DatagramRelay,
    link: Id,
}

fn pair(timing: impl Fn() -> Timing + Send + 'static, bytes_max: u32) -> Pair {
    let (far, near) = (Node::start(), Node::start());
    let relay = DatagramRelay::new(far.serve_over(CarrierKind::Quic, "127.0.0.1:0".parse().unwrap(), timing()));
    relay.limit(bytes_max);
    let link = near.link_with(relay.addr, move |config| {
        (config.carrier, config.timing) = (CarrierKind::Quic, timing());
    });
    near.until_up();
    Pair { far, near, relay, link }
}

/// Moves `count` bytes in each direction, while `change` is called with the bytes that have arrived so far, both ways: after each
/// part of them, as the end of a gap may release many at once, and every millisecond.
#[track_caller]
fn exchange(pair: &Pair, count: u64, change: impl FnMut(u64) + Send) {
    let (listener, addr) = target();
    let mut client = connect(pair.near.forward(pair.link, addr.into()));
    let mut server = accept(&listener);
    let (done, change) = (AtomicU64::new(0), Mutex::new(change));
    let note = || (change.lock().unwrap())(done.load(Ordering::Relaxed));
    let read = |socket: &mut std::net::TcpStream, seed| {
        let mut at = 0;
        while at < count {
            let to = (at + 65_536).min(count);
            read_pattern_from(socket, seed, at, to);
            done.fetch_add(to - at, Ordering::Relaxed);
            note();
            at = to;
        }
    };
    thread::scope(|scope| {
        let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        scope.spawn(move || send_pattern(&mut up, 1, count));
        scope.spawn(move || send_pattern(&mut down, 2, count));
        let readers = [scope.spawn(|| read(&mut server, 1)), scope.spawn(|| read(&mut client, 2))];
        while readers.iter().any(|reader| !reader.is_finished()) {
            note();
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Asserts that the link has had one subflow, and lost nothing.
#[track_caller]
fn assert_undisturbed(pair: &Pair) {
    let links = pair.near.links();
    assert_eq!((links[0].stats.resumes, links[0].subflows.len()), (0, 1));
    assert!(!pair.near.has(|event| matches!(event, LinkEvent::Suspended | LinkEvent::NoSubflow { .. })));
}

#[test]
fn a_router_that_rebinds_in_mid_stream_costs_no_byte_and_no_connection() {
    let pair = pair(timing, u32::MAX);
    let mut rebound = 0;
    exchange(&pair, 2 << 20, |done| {
        if rebound < 3 && done > (rebound + 1) << 20 {
            rebound += 1;
            pair.relay.rebind();
        }
    });
    assert_eq!(rebound, 3);
    assert_undisturbed(&pair);
    assert_eq!(pair.far.links().len(), 1);
}

/// Returns the longest datagram that each node sends.
fn longest(pair: &Pair) -> [u32; 2] {
    [&pair.near, &pair.far].map(|node| node.links()[0].subflows[0].figures.map_or(0, |figures| figures.mtu_bytes))
}

/// Moves bytes until both nodes send datagrams that are longer than `least`.
#[track_caller]
fn lengthen(pair: &Pair, least: u32) {
    until("the datagrams are long", || {
        exchange(pair, 300_000, |_| {});
        longest(pair).iter().all(|bytes| *bytes > least)
    });
}

#[test]
fn links_cross_paths_that_swallow_longer_datagrams() {
    for bytes_max in [1_200, 1_280, 1_400, 1_452, 1_500, 4_000, 8_000, 8_972] {
        let pair = pair(timing, bytes_max);
        // The search ends where its steps are short.
        lengthen(&pair, bytes_max - 100);
        let longest = longest(&pair);
        assert!(longest.iter().all(|bytes| *bytes <= bytes_max), "{longest:?} of {bytes_max} bytes");
        assert_undisturbed(&pair);
    }
}

#[test]
fn a_path_that_swallows_long_datagrams_all_at_once_is_no_loss() {
    for bytes_max in [1_200, 1_452, 4_000] {
        let pair = pair(timing, u32::MAX);
        lengthen(&pair, 8_000);
        let mut is_narrow = false;
        exchange(&pair, 3 << 20, |done| {
            if !is_narrow && done > 1 << 20 {
                is_narrow = true;
                pair.relay.limit(bytes_max);
            }
        });
        assert!(is_narrow);
        let longest = longest(&pair);
        assert!(longest.iter().all(|bytes| *bytes <= bytes_max), "{longest:?} of {bytes_max} bytes");
        assert_undisturbed(&pair);
    }
}

/// Ends every cut.
fn heal(relay: &DatagramRelay) {
    relay.spoil(0, 0);
    relay.limit(u32::MAX);
    relay.silence(false);
}

/// Cuts of five kinds: another address, a silence, much loss, much disorder, and a path that swallows long datagrams.
fn cut(relay: &DatagramRelay, number: u64) {
    heal(relay);
    match number % 5 {
        0 => relay.rebind(),
        1 => relay.silence(true),
        2 => relay.spoil(300, 0),
        3 => relay.spoil(0, 300),
        _ => relay.limit(1_200),
    }
}

/// Moves bytes in both directions while the path is cut a number of times.
#[track_caller]
fn exchange_with_cuts(count: u64, cuts: u64) {
    let dead = Duration::from_millis(1_000);
    let pair = pair(move || Timing { dead, keepalive: dead / 4, ..timing() }, u32::MAX);
    let (step, mut number, mut quiet_ms) = (2 * count / (cuts + 1), 0, 0);
    let mut before = 0;
    exchange(&pair, count, |done| {
        quiet_ms = if done == before { quiet_ms + 1 } else { 0 };
        before = done;
        if number < cuts && done > (number + 1) * step {
            cut(&pair.relay, number);
            number += 1;
            quiet_ms = 0;
        } else if quiet_ms > 1_500 {
            // Nothing passes: the cut is over, whatever it was.
            heal(&pair.relay);
            quiet_ms = 0;
        }
    });
    assert_eq!(number, cuts);
    assert_eq!(pair.far.links().len(), 1, "it is the session that began");
    println!("{cuts} cuts, {} resumes", pair.near.links()[0].stats.resumes);
}

#[test]
fn a_transfer_outlives_cuts_of_alternating_kinds() {
    exchange_with_cuts(2 << 20, 5);
}
