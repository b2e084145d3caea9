//! One connection over several subflows of a link, between real processes in a network of the test's own (TS-02 to
//! TS-05, TS-08): every path carries a part of it, and it outlives any one of them. The gates (`make gates`) measure
//! the rate.

use crate::kit;
use crate::net_kit;

use std::time::{Duration, Instant};

use serde_json::Value;

use kit::Step::*;
use kit::until;
use net_kit::goodput::Load;
use net_kit::nodes::{Forward, Options, link_figure, subflows};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, has_net, has_tun, pairs};

/// Returns the number of bytes that each subflow of the near node has sent.
fn sent(forward: &Forward) -> Vec<u64> {
    subflows(&forward.nodes.near).iter().map(|subflow| subflow["bytes_sent"].as_u64().unwrap()).collect()
}

/// Sends this many bytes from the near host to the far one; all of them arrive, and each subflow carries a part.
#[track_caller]
fn send_over_all(forward: &Forward, count: u64) {
    let (mut client, mut server) = forward.peers();
    kit::peer::both(&mut client, &[Send(count), Fin, ReadAll], &mut server, &[ReadAll, Fin]);
    assert_eq!(server.received, count);
    let sent = sent(forward);
    println!("{sent:?} bytes of {count} on each subflow");
    assert!(sent.iter().all(|bytes| *bytes > count / 50), "every subflow carries bytes: {sent:?}");
}

/// Gate `path-capped` measures that four of them get four times the rate of one.
#[test]
fn each_of_four_subflows_carries_bytes_where_connections_are_capped() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::PerConnection(5.0)]);
    let forward =
        Forward::start(&net, Options { near: &["--subflows", "4", "--carrier", "tcp"], ..Options::default() });
    forward.nodes.until_subflows(4);
    assert_eq!(net.path(0).connections().len(), 4);
    send_over_all(&forward, 4 << 20);
}

/// The third pair has paths of the same rate, but one has six times the delay: for a while the kernel reports a low
/// rate for it. The gates `path-two-*` measure the rate over each pair.
#[test]
fn each_of_two_unlike_paths_carries_bytes() {
    if !has_net() || !has_tun() {
        return;
    }
    for pair in &pairs::all()[..3] {
        println!("{}", pair.name);
        let net = Net::of(&pair.paths.map(Kind::Emulated));
        let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
        let near = ["--path", &sources[0], "--path", &sources[1], "--carrier", "tcp"];
        let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
        forward.nodes.until_subflows(2);
        send_over_all(&forward, 24 << 20);
    }
}

/// Sends bulk over two paths, each with the carriers of its prefix, and makes the second one slow: over the next ten seconds the
/// connection gets 90 % of what the first one can carry, and the status shows the switch and where the bytes go.
#[track_caller]
fn a_slow_path_is_left(prefixes: [&str; 2]) {
    const MBIT: f64 = 10.0;
    const TIME: Duration = Duration::from_secs(10);
    let net = Net::of(&[Kind::Rate(MBIT), Kind::Rate(MBIT)]);
    let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
    let paths = [0, 1].map(|index| format!("{}{}", prefixes[index], sources[index]));
    let near = ["--path", &paths[0], "--path", &paths[1]];
    let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
    // A subflow that is late is suspect.
    let sent = || {
        let all = subflows(&forward.nodes.near);
        sources.each_ref().map(|source| {
            let is_its = |subflow: &&Value| subflow["local"].as_str().unwrap().starts_with(&format!("{source}:"));
            all.iter().filter(is_its).map(|subflow| subflow["bytes_sent"].as_u64().unwrap()).sum::<u64>()
        })
    };
    let load = Load::start(vec![forward.pair()]);
    let switches = || link_figure(&forward.nodes.near, "switches");
    // A path carries once it had a share of the bytes for some seconds.
    let enough = MBIT as u64 * 125_000 * 8;
    until("both paths carry bytes", || sent().iter().all(|bytes| *bytes > enough));
    let switches_before = switches();
    net.path(1).set_rate(0.1);
    // The bytes are counted from the change on: on a busy machine seconds pass from one command to the next.
    let (since, before, sent_before) = (Instant::now(), load.received(), sent());
    std::thread::sleep(TIME.saturating_sub(since.elapsed()));
    let rate = (load.received() - before) as f64 / since.elapsed().as_secs_f64();
    // A packet of 1,514 bytes has 1,448 bytes for the user of TCP.
    let capacity = MBIT * 125_000.0 * 1_448.0 / 1_514.0;
    let sent_after = sent();
    let moved = [0, 1].map(|index| sent_after[index] - sent_before[index]);
    println!("{prefixes:?}: {:.3} of the other path, bytes {moved:?}, switches {}", rate / capacity, switches());
    assert!(rate >= 0.9 * capacity, "{rate} of {capacity} bytes a second");
    assert!(moved[0] > 10 * moved[1], "{moved:?}");
    assert!(switches() > switches_before);
}

/// Gate `path-two-slow` measures the rate at 100 Mbit/s.
#[test]
fn data_moves_away_from_a_path_that_becomes_slow() {
    if has_net() {
        a_slow_path_is_left(["tcp:", "tcp:"]);
    }
}

#[test]
fn data_moves_away_from_a_slow_path_of_quic_to_one_of_tcp_and_back() {
    if has_net() {
        a_slow_path_is_left(["tcp:", "quic:"]);
        a_slow_path_is_left(["quic:", "tcp:"]);
    }
}

/// Both carriers of the slow path are left.
#[test]
fn data_moves_away_from_a_slow_path_of_the_default_carrier() {
    if has_net() {
        a_slow_path_is_left(["", ""]);
    }
}

#[test]
fn resetting_subflows_of_a_transfer_loses_no_byte() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Rate(200.0)]);
    let forward =
        Forward::start(&net, Options { near: &["--subflows", "4", "--carrier", "tcp"], ..Options::default() });
    forward.nodes.until_subflows(4);
    let path = net.path(0);
    let before = path.connections();
    assert_eq!(before.len(), 4);
    swap_while(forward.peers(), 0, || {
        for victim in &before[..3] {
            let received = link_figure(&forward.nodes.near, "bytes_received");
            until("bytes flow", || link_figure(&forward.nodes.near, "bytes_received") > received + (1 << 20));
            assert_eq!(path.reset_one(*victim), 1);
        }
    });
    let since = Instant::now();
    forward.nodes.until_subflows(4);
    let after = path.connections();
    assert_eq!(after.iter().filter(|connection| before.contains(connection)).count(), 1, "{before:?} {after:?}");
    println!(
        "four subflows again after {:?}, resumes {}",
        since.elapsed(),
        link_figure(&forward.nodes.near, "resumes")
    );
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0, "the session always had a subflow");
    assert!(subflows(&forward.nodes.far).len() == 4);
}
