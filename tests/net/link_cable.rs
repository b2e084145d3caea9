//! A pulled cable where nothing is configured: the device of a link has no carrier, and keeps its address and its routes, so
//! that the system goes on to send packets there, while another device has a route to the peer.

use crate::kit;
use crate::net_kit;

use std::thread;
use std::time::Duration;

use kit::until;
use net_kit::echoes::echo_ms;
use net_kit::nodes::{Forward, Options, until_carried};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, has_net};

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
            assert!(longest < 3000.0, "{longest} ms");
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
