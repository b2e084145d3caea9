//! A pulled cable where nothing is configured: the device of a link has no carrier, and keeps its address and its routes, so
//! that the system goes on to send packets there, while another device has a route to the peer.

use crate::kit;
use crate::net_kit;

use std::thread;
use std::time::Duration;

use kit::Step::*;
use kit::until;
use net_kit::echoes::echo_ms;
use net_kit::nodes::{Forward, Nodes, Options, PORT, Secret, link_figure, spawn, start, until_carried};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, has_net, has_tun, own_ip};

/// Pulls the cable of a link in a transfer, then that of the device that it uses instead. Each is plugged in again before the next.
/// The link has these options and subflows.
#[track_caller]
fn cables_are_pulled(options: &[&str], carriers: &[&str]) {
    let net = Net::of(&[Kind::Rate(50.0), Kind::Rate(50.0)]);
    let near = [&["-v"], options].concat();
    let forward = Forward::start(&net, Options { near: &near, far: options, ..Options::default() });
    until_carried(&forward.nodes.near, carriers);
    for (from, to) in [(0, 1), (1, 0)] {
        let before = net.path(to).bytes();
        swap_while(forward.peers(), 4 << 20, || {
            let echoes = forward.pair();
            let longest = thread::scope(|scope| {
                let echoes = scope.spawn(|| echo_ms(echoes, Duration::from_millis(2500)).unwrap());
                net.path(from).pull();
                let routes = net.near().run("ip route show");
                assert!(routes.contains(&format!("dev p{} metric {} linkdown", from + 1, from + 1)), "{routes}");
                echoes.join().unwrap().into_iter().fold(0.0, f64::max)
            });
            // A fifth of a second where the machine has time; a test of the whole system cannot demand it.
            println!("{carriers:?}: the longest echo took {longest:.0} ms");
            assert!(longest < 5000.0, "{longest} ms");
            until_carried(&forward.nodes.near, carriers);
            net.path(from).plug();
            let is_back = || !net.near().run(&format!("ip -o link show p{}", from + 1)).contains("NO-CARRIER");
            until("the device has its carrier", is_back);
        });
        let after = net.path(to).bytes();
        assert!(after.out > before.out + (2 << 20) && after.back > before.back + (2 << 20), "{before:?} {after:?}");
    }
    if carriers.contains(&"tcp") {
        forward.nodes.near.wait_for_log(&["its interface here is down"]);
    }
}

#[test]
fn a_pulled_cable_costs_the_default_carrier_no_byte() {
    if has_net() {
        cables_are_pulled(&[], &["quic", "tcp"]);
    }
}

#[test]
fn a_pulled_cable_costs_tcp_no_byte() {
    if has_net() {
        cables_are_pulled(&["--carrier", "tcp"], &["tcp"]);
    }
}

#[test]
fn a_pulled_cable_costs_quic_no_byte() {
    if has_net() {
        cables_are_pulled(&["--carrier", "quic"], &["quic"]);
    }
}

/// The same connection goes on when the cable is back.
#[test]
fn a_pulled_cable_closes_nothing_where_there_is_no_other_way() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, Options { near: &["-v", "--carrier", "tcp"], ..Options::default() });
    let (mut client, mut server) = forward.peers();
    let mut swap = || kit::peer::both(&mut client, &[Swap(1000)], &mut server, &[Swap(1000)]);
    swap();
    let before = net.path(0).connections();
    net.path(0).pull();
    // Much less than a silent subflow may take.
    let changes = |words: &[&str]| forward.nodes.near.count_log(&[&["the network has changed"], words].concat());
    until("the cut is handled", || changes(&[]) > changes(&["cut=0"]));
    net.path(0).plug();
    swap();
    assert_eq!((net.path(0).connections(), link_figure(&forward.nodes.near, "resumes")), (before, 0));
    assert_eq!(forward.nodes.near.count_log(&["its interface here is down"]), 0);
}

/// The cable of the best route is out before the link is dialed.
#[test]
fn a_dial_takes_the_next_best_route_of_the_table_where_the_best_one_has_no_carrier() {
    if !has_net() {
        return;
    }
    let own = own_ip(1);
    let [first, second] = [("10.77.1.2", "p1"), ("10.77.2.2", "p2")];
    let several = format!(
        "route replace {own} nexthop via {} dev {} nexthop via {} dev {}",
        first.0, first.1, second.0, second.1
    );
    for routes in ["", &several] {
        let net = Net::of(&[Kind::Veth, Kind::Veth, Kind::Veth]);
        net.near().ip(routes);
        net.path(0).pull();
        for carrier in ["tcp", "quic"] {
            let nodes = Nodes::start(&net, Options { both: &["--carrier", carrier], ..Options::default() });
            until_carried(&nodes.near, &[carrier]);
            let [others, used] = [2, 1].map(|path| net.path(path).bytes());
            assert!(used.out > others.out + 1000 && used.back > others.back + 1000, "{used:?} {others:?}");
        }
    }
}

/// Neither a tunnel without carrier is left, which may be that of a VPN, nor the table that the rules choose.
#[test]
fn a_dial_leaves_no_tunnel_and_no_table_whose_route_has_no_carrier() {
    if !has_net() || !has_tun() {
        return;
    }
    let own = own_ip(1);
    let tunnel = format!("tuntap add dev t0 mode tun\nlink set t0 up\nroute add {own} dev t0");
    let table = format!(
        "route del {own} via 10.77.2.2 dev p2\nroute add {own} via 10.77.2.2 dev p2 table 200\n\
         rule add oif p2 to {own} lookup 200"
    );
    for (lines, path) in [(tunnel, 1), (table, 1)] {
        let net = Net::of(&[Kind::Veth, Kind::Veth]);
        net.near().ip(&lines);
        net.path(0).pull();
        let secret = Secret::new();
        let _far = start(net.far(), &secret.far(&["--carrier", "tcp"]));
        let near = spawn(net.near(), &secret.near(&["--carrier", "tcp", "--connect-timeout", "1s"]));
        near.wait_for_log(&["no subflow"]);
        assert_eq!(net.path(path).connections().len(), 0);
        assert!(!near.out().iter().any(|line| line.starts_with("link up ")), "{:?}", near.out());
    }
}

/// A subflow that was led around a cut follows the routes again when they lead by another table, as those of a VPN do.
#[test]
fn a_subflow_that_was_led_around_a_cut_follows_the_rules_that_come_later() {
    if !has_net() {
        return;
    }
    for carrier in ["tcp", "quic"] {
        let net = Net::of(&[Kind::Veth, Kind::Veth, Kind::Veth]);
        let forward = Forward::start(&net, Options { both: &["--carrier", carrier], ..Options::default() });
        until_carried(&forward.nodes.near, &[carrier]);
        let (mut client, mut server) = forward.peers();
        let mut swap = || kit::peer::both(&mut client, &[Swap(100_000)], &mut server, &[Swap(100_000)]);
        let used = |path: usize| net.path(path).bytes().out;
        net.path(0).pull();
        let before = used(1);
        until("the link leaves by the second device", || {
            swap();
            used(1) > before + 100_000
        });
        let own = own_ip(1);
        net.near()
            .ip(&format!("route add {own} via 10.77.3.2 dev p3 table 200\nrule add to {own} lookup 200 pref 100"));
        let before = used(2);
        until("the link leaves by the third device", || {
            swap();
            used(2) > before + 100_000
        });
    }
}

/// The addresses of IPv6 stay at an interface without carrier, too.
#[test]
fn a_dial_over_ipv6_avoids_an_interface_without_carrier() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    net.far().ip("addr add fd77::2/128 dev lo nodad");
    for path in 1..=2 {
        net.near().ip(&format!(
            "addr add fd00:{path}::1/64 dev p{path} nodad\n\
             route add fd77::2 via fd00:{path}::2 dev p{path} metric {path}"
        ));
        net.far().ip(&format!("addr add fd00:{path}::2/64 dev p{path} nodad"));
    }
    net.path(0).pull();
    for carrier in ["tcp", "quic"] {
        let (secret, at) = (Secret::new(), format!("[fd77::2]:{PORT}"));
        let _far = start(net.far(), &secret.line(&["link", "--listen", &at], &["--carrier", carrier]));
        let near = start(net.near(), &secret.line(&["link", "--connect", &at], &["--carrier", carrier]));
        until_carried(&near, &[carrier]);
    }
}
