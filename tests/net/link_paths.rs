//! Uplinks that come and go while a link lives (TS-07), between real processes in a network of the test's own: by
//! changes of the file of paths, and by devices and addresses that appear and vanish.

use crate::kit;
use crate::net_kit;

use std::time::{Duration, Instant};

use kit::Step::*;
use kit::{Scratch, until};
use net_kit::nodes::{Forward, Options, link_figure, sent_from, subflows, until_carried};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, has_net};

/// Adds a path to the file of a link during a transfer, and removes the first one. Each path has `prefix` before its address, and
/// gets subflows of these carriers.
#[track_caller]
fn paths_come_and_go(options: &[&str], prefixes: [&str; 2], carriers: [&[&str]; 2]) {
    let net = Net::of(&[Kind::Rate(50.0), Kind::Rate(50.0)]);
    let [first, second] = [0, 1].map(|index| net.path(index).near_ip().to_string());
    let lines = [format!("{}{first}\n", prefixes[0]), format!("{}{second}\n", prefixes[1])];
    let scratch = Scratch::new();
    let file = scratch.write("paths", format!("# the cable\n{}", lines[0]));
    let near = [&["-v", "--paths", &file], options].concat();
    let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
    let until_carried = |wanted: &[&[&str]]| until_carried(&forward.nodes.near, &wanted.concat());
    until_carried(&carriers[..1]);
    swap_while(forward.peers(), 0, || {
        until("the first path is used", || sent_from(&forward.nodes.near, &first) > 1 << 20);
        assert_eq!(sent_from(&forward.nodes.near, &second), 0);
        scratch.write("paths", lines.concat());
        until("the second path is used too", || sent_from(&forward.nodes.near, &second) > 1 << 20);
        until_carried(&carriers);
        scratch.write("paths", &lines[1]);
        until_carried(&carriers[1..]);
        let before = sent_from(&forward.nodes.near, &second);
        until("the second path carries the rest", || sent_from(&forward.nodes.near, &second) > before + (1 << 20));
    });
    assert_eq!((sent_from(&forward.nodes.near, &first), net.path(0).connections().len()), (0, 0));
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0, "the link always had a path");
    // An invalid file changes nothing, and the error is logged.
    scratch.write("paths", "nonsense\n");
    forward.nodes.near.wait_for_log(&["ERROR", "the paths file cannot be read again", "paths:1", "nonsense"]);
    scratch.write("paths", "");
    forward.nodes.near.wait_for_log(&["ERROR", "the paths file cannot be read again", "expected at least one path"]);
    until_carried(&carriers[1..]);
    assert_eq!(forward.nodes.near.count_log(&["no subflow"]), 0, "the removal of a path is not logged as a failure");
}

#[test]
fn paths_added_and_removed_in_the_file_take_effect_during_a_transfer() {
    if has_net() {
        paths_come_and_go(&["--carrier", "tcp"], ["", ""], [&["tcp"], &["tcp"]]);
    }
}

#[test]
fn paths_of_quic_and_of_tcp_come_and_go_in_the_file() {
    if has_net() {
        paths_come_and_go(&[], ["quic:", "quic:"], [&["quic"], &["quic"]]);
        paths_come_and_go(&[], ["quic:", "tcp:"], [&["quic"], &["tcp"]]);
    }
}

/// Each path has a subflow of each carrier.
#[test]
fn paths_of_the_default_carrier_come_and_go_in_the_file() {
    if has_net() {
        paths_come_and_go(&[], ["", ""], [&["quic", "tcp"], &["quic", "tcp"]]);
    }
}

/// One path is replaced by another while nothing is sent: the old one is closed only when the new one is up.
#[test]
fn a_removed_path_is_used_until_its_replacement_is_up() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let [first, second] = [0, 1].map(|index| net.path(index).near_ip().to_string());
    let scratch = Scratch::new();
    let file = scratch.write("paths", &first);
    let forward =
        Forward::start(&net, Options { near: &["-v", "--carrier", "tcp", "--paths", &file], ..Options::default() });
    forward.nodes.until_subflows(1);
    let (mut client, mut server) = forward.peers();
    let mut swap = || kit::peer::both(&mut client, &[Swap(1000)], &mut server, &[Swap(1000)]);
    swap();
    // A path that cannot come up: this host has no such address.
    scratch.write("paths", "192.0.2.9");
    forward.nodes.near.wait_for_log(&["no subflow", "tries=2 "]);
    swap();
    assert!(sent_from(&forward.nodes.near, &first) > 0, "the old path is kept while there is no other");
    scratch.write("paths", &second);
    until("the old path is gone", || {
        let now = subflows(&forward.nodes.near);
        now.len() == 1 && sent_from(&forward.nodes.near, &second) > 0
    });
    swap();
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0, "the link always had a path");
    assert_eq!(forward.nodes.near.count_log(&["no subflow is left"]), 0);
}

#[test]
fn a_new_uplink_is_used_at_once_and_a_removed_one_is_replaced() {
    if !has_net() {
        return;
    }
    let mut net = Net::of(&[Kind::Rate(50.0)]);
    let near = ["-v", "--carrier", "tcp", "--path", "%p1", "--path", "%p2"];
    let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
    // Long enough that the pause before the next attempt is 7 to 15 seconds.
    forward.nodes.near.wait_for_log(&["no subflow", "tries=8 "]);
    // The programs that make the path may take seconds on a busy machine. The last of them makes the path usable.
    net.join(0, 1, Kind::Rate(50.0));
    let since = Instant::now();
    forward.nodes.until_subflows(2);
    println!("the second uplink was used after {:?}", since.elapsed());
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
    let [first, second] = [0, 1].map(|index| net.path(index).near_ip().to_string());
    swap_while(forward.peers(), 0, || {
        until("both paths are used", || {
            [&first, &second].into_iter().all(|from| sent_from(&forward.nodes.near, from) > 1 << 20)
        });
        net.near().ip("link del p2");
        until("one subflow is left", || {
            subflows(&forward.nodes.near).iter().filter(|s| s["state"] == "live").count() == 1
        });
        let before = sent_from(&forward.nodes.near, &first);
        until("the first path carries the rest", || sent_from(&forward.nodes.near, &first) > before + (1 << 20));
    });
}

/// As for a laptop that loses its wireless network and has another: the link does not wait for the dead timer.
#[test]
fn a_link_whose_source_address_is_removed_uses_another_at_once() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let forward = Forward::start(&net, Options { near: &["-v", "--carrier", "tcp"], ..Options::default() });
    let (mut client, mut server) = forward.peers();
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    assert_eq!(net.path(0).connections().len(), 1);
    let since = Instant::now();
    net.near().ip(&format!("addr del {}/24 dev p1\nlink set p1 down", net.path(0).near_ip()));
    client.run(&[Send(1000)]);
    server.run(&[Read(1000), Send(1000)]);
    client.run(&[Read(1000)]);
    println!("the other path was used after {:?}", since.elapsed());
    // A silent subflow would be dead only after fifteen seconds.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert_eq!(net.path(1).connections().len(), 1);
}
