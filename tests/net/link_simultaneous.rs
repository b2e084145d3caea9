//! Two nodes that dial each other while neither listens (TN-08): TCP's simultaneous open (RFC 9293, section 3.5) between real
//! processes, in a network of the test's own whose firewalls drop resets that answer no connection.

use crate::kit;
use crate::net_kit;

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use kit::Step::*;
use kit::{Peer, Seaprox, until};
use net_kit::nodes::{Secret, front, link_figure, spawn, subflows};
use net_kit::{Kind, Net, has_net};

/// The port of both nodes.
pub const PORT: u16 = 7000;

/// Makes two hosts that drop the resets with which their systems refuse a SYN, as firewalls and routers do. The reset of a
/// connection has another sequence number than 0.
pub fn net() -> Net {
    let net = Net::of(&[Kind::Veth]);
    for host in [net.near(), net.far()] {
        host.nft(
            "table inet unsolicited { chain out { type filter hook output priority 0; \
             tcp flags & rst == rst tcp sequence 0 counter drop; }; }\n",
        );
    }
    net
}

/// Starts the node of one host, which dials the other one, and does not wait until it is ready.
fn node(net: &Net, secret: &Secret, is_near: bool, options: &[&str]) -> Seaprox {
    let path = net.path(0);
    let (host, peer) = if is_near { (net.near(), path.far_ip()) } else { (net.far(), path.near_ip()) };
    let (peer, port) = (format!("{peer}:{PORT}"), PORT.to_string());
    let dial = ["link", "--connect", &peer, "--local-port", &port, "--simultaneous"];
    spawn(host, &secret.line(&dial, options))
}

/// Waits until a node has logged `count` sessions.
#[track_caller]
fn until_up(node: &Seaprox, count: usize) {
    until("the link is up", || node.count_log(&["link up ", "fresh=true"]) >= count);
}

/// Starts both nodes with a pause between them, and moves bytes over the link.
#[track_caller]
fn check(near_first: bool, pause: Duration) {
    let (net, secret) = (net(), Secret::new());
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let local = format!("127.0.0.1:0:{}", listener.local_addr().unwrap());
    let options: [&[&str]; 2] = [&["-L", &local], &[]];
    let start = |is_near: bool| node(&net, &secret, is_near, options[usize::from(!is_near)]);
    let first = start(near_first);
    thread::sleep(pause);
    let second = start(!near_first);
    let (near, far) = if near_first { (first, second) } else { (second, first) };
    until_up(&near, 1);
    until_up(&far, 1);
    for host in [net.near(), net.far()] {
        assert_eq!(host.run(&format!("ss -Htln sport = :{PORT}")).trim(), "", "nobody listens");
    }
    let (here, there) = (net.path(0).near_ip(), net.path(0).far_ip());
    assert_eq!(net.path(0).connections(), [((here, PORT).into(), (there, PORT).into())]);
    assert_eq!((subflows(&near).len(), subflows(&far).len()), (1, 1));
    let front = front(&near, "static");
    let mut client = net.near().inside(|| Peer::connect(front));
    let mut server = Peer::accept(&listener);
    kit::peer::both(&mut client, &[Swap(1 << 20)], &mut server, &[Swap(1 << 20)]);
}

#[test]
fn two_nodes_that_dial_each_other_at_once_and_do_not_listen_have_a_link() {
    if has_net() {
        check(true, Duration::ZERO);
    }
}

#[test]
fn two_nodes_that_dial_each_other_with_a_pause_and_do_not_listen_have_a_link() {
    if has_net() {
        check(true, Duration::from_millis(400));
        check(false, Duration::from_millis(400));
    }
}

#[test]
fn a_link_that_both_nodes_dial_comes_back_after_a_reset_and_after_the_death_of_a_node() {
    if !has_net() {
        return;
    }
    let (net, secret) = (net(), Secret::new());
    let (near, far) = (node(&net, &secret, true, &[]), node(&net, &secret, false, &[]));
    until_up(&near, 1);
    until_up(&far, 1);
    assert_eq!(net.path(0).reset(PORT), 1);
    until("the session has resumed", || {
        [&near, &far].iter().all(|node| link_figure(node, "resumes") == 1 && subflows(node).len() == 1)
    });
    // The drop kills the process.
    drop(far);
    let far = node(&net, &secret, false, &[]);
    until_up(&far, 1);
    until_up(&near, 2);
}
