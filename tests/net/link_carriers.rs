//! Multipath TCP between two hosts, and its fallback to TCP: with both paths, without it in either system, and through a
//! network that removes its options. The hello of a link, captured.

use crate::hello;
use crate::kit;
use crate::net_kit;

use std::net::TcpStream;

use kit::{Scratch, Seaprox, until};
use net_kit::filter::filter;
use net_kit::nodes::{Forward, Nodes, Options, PORT, link_figure, subflows};
use net_kit::{Kind, Net, Way, has_net};
use seaprox::node::{CarrierKind, Group};

/// Returns true if this system has networks and multipath TCP. Says so otherwise.
fn has_mptcp() -> bool {
    if has_net() && !CarrierKind::Mptcp.is_available() {
        println!("skipped: this kernel has no multipath TCP (net.mptcp.enabled)");
        return false;
    }
    has_net()
}

const MPTCP: Options<'static> = Options { both: &["--carrier", "mptcp"], near: &[], far: &[] };

/// Returns the transports of the subflows of a node's only link.
fn carriers(node: &Seaprox) -> Vec<String> {
    subflows(node).iter().map(|subflow| subflow["carrier"].as_str().unwrap_or("-").to_owned()).collect()
}

/// Returns the local address of a node's first subflow, without its port.
fn own_address(node: &Seaprox) -> String {
    let local = subflows(node)[0]["local"].as_str().expect("an address").to_owned();
    local.split(':').next().expect("an address").to_owned()
}

/// Moves a number of bytes over a forward, and reads them at the other end.
fn transfer((mut near, mut far): (TcpStream, TcpStream), bytes: u64) {
    std::thread::scope(|scope| {
        scope.spawn(move || std::io::copy(&mut std::io::Read::take(std::io::repeat(7), bytes), &mut near).unwrap());
        let got = std::io::copy(&mut std::io::Read::take(&mut far, bytes), &mut std::io::sink()).unwrap();
        assert_eq!(got, bytes);
    });
}

/// Waits for the line about the transport of a link.
#[track_caller]
fn until_logged(node: &Seaprox, carrier: &str) {
    let words = [format!("carrier={carrier}"), "wanted=mptcp".to_owned()];
    until("the log names the transport", || node.log().iter().any(|line| words.iter().all(|word| line.contains(word))));
}

#[test]
fn one_subflow_of_multipath_tcp_uses_both_paths_and_outlives_one_of_them() {
    if !has_mptcp() {
        return;
    }
    let net = Net::of(&[Kind::Rate(300.0), Kind::Rate(300.0)]);
    for host in [net.near(), net.far()] {
        host.run("ip mptcp limits set subflows 4 add_addr_accepted 4");
    }
    let second = net.path(1);
    net.near().run(&format!("ip mptcp endpoint add {} dev {} subflow", second.near_ip(), second.device()));
    let forward = Forward::start(&net, MPTCP);
    let before = [0, 1].map(|path| net.path(path).bytes().out);
    transfer(forward.pair(), 16 << 20);
    let used = [0, 1].map(|path| net.path(path).bytes().out - before[path]);
    println!("bytes on each path: {used:?}");
    for node in [&forward.nodes.near, &forward.nodes.far] {
        assert_eq!(carriers(node), ["mptcp"]);
        until_logged(node, "mptcp");
    }
    assert!(used.iter().all(|bytes| *bytes > 1 << 20), "both paths carry data: {used:?}");

    // The connection outlives the address that it was dialed from. Without a path the kernel reinjects what was on its way.
    let number = subflows(&forward.nodes.near)[0]["number"].clone();
    let (near, device) = (own_address(&forward.nodes.near), net.path(0).device());
    // The node would make another connection when the kernel takes its time.
    filter(&net, &format!("tcp dport {PORT} tcp flags & (syn | ack) == syn drop;"));
    net.path(0).black_hole(Way::Both);
    net.near().ip(&format!("addr del {near}/24 dev {device}"));
    transfer(forward.pair(), 4 << 20);
    let left = subflows(&forward.nodes.near);
    assert_eq!((left.len(), &left[0]["number"], &left[0]["carrier"]), (1, &number, &"mptcp".into()), "{left:?}");
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
}

#[test]
fn multipath_tcp_falls_back_where_either_system_has_it_switched_off() {
    if !has_mptcp() {
        return;
    }
    for (near, far) in [("0", "1"), ("1", "0"), ("0", "0")] {
        let net = Net::of(&[Kind::Veth]);
        assert!(net.near().sysctl("net/mptcp/enabled", near) && net.far().sysctl("net/mptcp/enabled", far));
        let forward = Forward::start(&net, MPTCP);
        transfer(forward.pair(), 1 << 20);
        for node in [&forward.nodes.near, &forward.nodes.far] {
            assert_eq!(carriers(node), ["tcp"]);
            until_logged(node, "tcp");
        }
    }
}

#[test]
fn multipath_tcp_falls_back_through_a_network_that_removes_its_options() {
    if !has_mptcp() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    net.far()
        .nft("table inet strip { chain in { type filter hook prerouting priority -300; reset tcp option mptcp; }; }");
    let forward = Forward::start(&net, MPTCP);
    transfer(forward.pair(), 1 << 20);
    for node in [&forward.nodes.near, &forward.nodes.far] {
        assert_eq!(carriers(node), ["tcp"]);
    }
}

#[test]
fn the_captured_hello_of_a_link_has_a_share_of_both_key_exchanges() {
    if !has_net() {
        return;
    }
    let (net, scratch) = (Net::of(&[Kind::Veth]), Scratch::new());
    let capture = net.path(0).capture(scratch.file("hello"));
    let nodes = Nodes::start(&net, Options::default());
    let want = Group::preferred()[0].name();
    for node in [&nodes.near, &nodes.far] {
        assert_eq!(subflows(node)[0]["group"], want);
    }
    drop(nodes);
    let captured = capture.stop();
    let streams = captured.streams();
    let dialed = streams.iter().find(|stream| stream.bytes.windows(9).any(|bytes| bytes == b"seaprox/1"));
    let hello = hello::parse(&dialed.expect("the stream with the protocol's name").bytes);
    println!("{hello:x?}");
    if Group::X25519MlKem768.is_available() {
        assert_eq!(hello.supported, [hello::X25519_MLKEM768, hello::X25519]);
        assert_eq!(hello.shares, [(hello::X25519_MLKEM768, 1216), (hello::X25519, 32)]);
    } else {
        assert_eq!((hello.supported, hello.shares), (vec![hello::X25519], vec![(hello::X25519, 32)]));
    }
}
