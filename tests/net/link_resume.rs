//! A link that loses all its subflows again and again, in many ways, between real processes in a network of the test's
//! own (X-01, BS-21, TT-19, TN-54, TN-60): resets, black holes, changes of address, NATs that forget. The application
//! at each end gets every byte once and in order, and notices nothing else.

use crate::kit;
use crate::net_kit;

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::socks::{reply5, request5};
use kit::{Peer, Seaprox, http, until_within};
use net_kit::home::{far_line, homes, near_line};
use net_kit::nodes::{Forward, Options, PORT, front, link_figure, start};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, Way, has_net, shape};

/// Options of nodes that soon notice a dead subflow and soon retry.
const HASTY: &[&str] = &["--link-keepalive", "100ms", "--link-dead", "400ms", "--connect-timeout", "1s"];

/// Two ways to the peer, one of them behind a NAT, each with one subflow.
const PATHS: &[&str] = &["--path", "%p1", "--path", "%p2", "--carrier", "tcp"];

/// A fault of both paths at once that cuts every subflow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cut {
    /// All connections are reset; new ones can be made at once.
    Reset,
    /// Nothing passes until both ends have noticed.
    BlackHole,
    /// The near end of one path has another address; the NAT of the other gives other ports.
    Address(u8),
    /// The near end of one path has another address; the NAT of the other has forgotten its connections and drops their
    /// packets.
    Forgotten(u8),
}

fn cut_of(number: usize) -> Cut {
    let last_byte = 10 + (number % 200) as u8;
    match number % 10 {
        3 => Cut::BlackHole,
        5 => Cut::Forgotten(last_byte),
        8 => Cut::Address(last_byte),
        _ => Cut::Reset,
    }
}

#[track_caller]
fn cut(net: &Net, forward: &Forward, how: Cut) {
    let [one, two] = [net.path(0), net.path(1)];
    match how {
        Cut::Reset => {
            // Both in one call: if they were reset one after another, the session would never be without a subflow.
            let reset = net.far().run(&format!("ss -HKtn sport = :{PORT}"));
            assert!(reset.contains(':'), "there was a subflow to reset");
        }
        Cut::BlackHole => {
            darken(net);
            until_parted(forward);
            one.heal();
            two.heal();
        }
        Cut::Address(last_byte) => {
            one.change_address(last_byte);
            two.nat().rebind();
        }
        Cut::Forgotten(last_byte) => {
            one.change_address(last_byte);
            two.nat().forget();
        }
    }
}

fn darken(net: &Net) {
    net.path(0).black_hole(Way::Both);
    net.path(1).black_hole(Way::Both);
}

#[track_caller]
fn until_parted(forward: &Forward) {
    for node in [&forward.nodes.near, &forward.nodes.far] {
        kit::until("the node has noticed that no packets arrive", || {
            node.status().pointer("/links/0/state").is_some_and(|state| state == "suspended")
        });
    }
}

/// Returns the number of bytes that have arrived at the near node; both ends of the transfer are as fast as the link.
fn moved(forward: &Forward) -> u64 {
    link_figure(&forward.nodes.near, "bytes_received").min(link_figure(&forward.nodes.far, "bytes_received"))
}

struct Plan {
    /// The least number of bytes that are sent each way.
    bytes: u64,
    /// Of each path.
    mbit: f64,
    cuts: usize,
    darkness: Duration,
}

/// Transfers bytes in both directions at once under the plan's cuts, with a black hole in the middle.
#[track_caller]
fn survive(plan: &Plan) {
    let net = Net::of(&[Kind::Rate(plan.mbit), Kind::Nat]);
    for host in [net.near(), net.far()] {
        shape::rate(host, &net.path(1).device(), plan.mbit);
    }
    let forward = Forward::start(&net, Options { both: HASTY, near: PATHS, ..Options::default() });
    forward.nodes.until_subflows(2);
    let peers = forward.peers();
    for peer in [&peers.0, &peers.1] {
        // The test's sockets wait longer than the black hole lasts.
        peer.socket().set_read_timeout(Some(plan.darkness + kit::SOON)).unwrap();
        peer.socket().set_write_timeout(Some(plan.darkness + kit::SOON)).unwrap();
    }
    let (since, mut worst) = (Instant::now(), Duration::ZERO);
    swap_while(peers, plan.bytes, || {
        for number in 0..plan.cuts {
            let (from, at) = (moved(&forward), Instant::now());
            until_within(kit::SOON, "the transfer continues", || moved(&forward) > from + (100 << 10));
            worst = worst.max(at.elapsed());
            cut(&net, &forward, cut_of(number));
            if number == plan.cuts / 2 {
                darken(&net);
                until_parted(&forward);
                thread::sleep(plan.darkness);
                net.path(0).heal();
                net.path(1).heal();
            }
        }
        println!("{} cuts in {:?}, back after {worst:?} at worst", plan.cuts, since.elapsed());
    });
    let figure = |name| link_figure(&forward.nodes.near, name);
    println!(
        "{} MiB received in {:?}: {} resumes, {} MiB sent again",
        figure("bytes_received") >> 20,
        since.elapsed(),
        figure("resumes"),
        figure("resent_bytes") >> 20
    );
    assert!(figure("resumes") as usize >= plan.cuts / 2, "most of the cuts must leave no subflow");
    assert_eq!(forward.nodes.near.count_log(&["link ended"]), 0);
    forward.nodes.near.wait_for_log(&[" closed ", "end=graceful"]);
}

#[test]
fn a_transfer_survives_a_hundred_cuts_of_every_subflow() {
    if has_net() {
        survive(&Plan { bytes: 16 << 20, mbit: 50.0, cuts: 100, darkness: Duration::from_secs(4) });
    }
}

#[test]
#[ignore = "make soak runs it: it takes minutes"]
fn a_gibibyte_survives_a_hundred_cuts_and_a_minute_without_a_path() {
    if has_net() {
        survive(&Plan { bytes: 1 << 30, mbit: 100.0, cuts: 100, darkness: Duration::from_secs(60) });
    }
}

/// With the default timers a silent peer is dead after 15 seconds; here the timers are shorter.
#[test]
fn both_ends_notice_a_silent_peer_after_the_dead_time() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let timers: &[&str] = &["--link-keepalive", "500ms", "--link-dead", "1500ms"];
    let forward = Forward::start(&net, Options { both: timers, ..Options::default() });
    let (mut client, mut server) = forward.peers();
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    let since = Instant::now();
    darken(&net);
    until_parted(&forward);
    let took = since.elapsed();
    println!("both ends noticed after {took:?}");
    assert!((Duration::from_millis(900)..2 * kit::LATE).contains(&took), "{took:?}");
    net.path(0).heal();
    net.path(1).heal();
    server.run(&[Send(1000)]);
    client.run(&[Read(1000)]);
}

/// A FIN would mean that the other end had finished.
#[test]
fn connections_are_reset_when_the_hold_time_is_over() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let both = [HASTY, &["--link-hold", "1s"]].concat();
    let forward = Forward::start(&net, Options { both: &both, ..Options::default() });
    let (mut client, mut server) = forward.peers();
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    darken(&net);
    client.run(&[ReadReset]);
    server.run(&[ReadReset]);
    forward.nodes.near.wait_for_log(&[" closed ", "reason=link_lost"]);
    net.path(0).heal();
    net.path(1).heal();
    kit::until("a new session is up", || {
        forward.nodes.near.status().pointer("/links/0/state").is_some_and(|state| state == "up")
    });
    let (mut client, mut server) = forward.peers();
    client.run(&[Swap(0), Send(1000), Fin]);
    server.run(&[Read(1000), ReadAll, Fin]);
    client.run(&[ReadAll]);
}

/// A request while the link is down waits for the link. If the session ends before the stream was opened, the near node
/// opens the stream again when the peer comes back as another process. If the peer stays away, the client gets an error
/// of its protocol.
#[test]
fn a_request_during_a_restart_of_the_peer_is_connected_or_refused() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let to = listener.local_addr().unwrap();
    let kill = |mut far: Seaprox| {
        far.signal(libc::SIGKILL);
        far.wait(kit::SOON);
    };
    let ask = |node: &Seaprox| {
        let [socks, connect, get] =
            [("socks", vec![5, 1, 0]), ("http", vec![]), ("http", vec![])].map(|(kind, first)| {
                let mut peer = net.near().inside(|| Peer::connect(front(node, kind)));
                peer.run(&[Put(&first)]);
                peer
            });
        let mut all = [socks, connect, get];
        all[0].run(&[Take(&[5, 0]), Put(&request5("127.0.0.1", to.port()))]);
        all[1].run(&[Put(format!("CONNECT {to} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())]);
        all[2].run(&[Put(format!("GET http://{to}/ HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())]);
        kit::until("all requests wait in the session", || link_figure(node, "streams") >= 3);
        all
    };
    let options = ["-D", "127.0.0.1:0", "-H", "127.0.0.1:0", "--link-hold", "1s", "--link-retry-max", "100ms"];
    // The peer comes back.
    let (near_home, far_home) = homes("permit-open=\"*\"");
    let far = start(net.far(), &far_line(&far_home));
    let near = start(net.near(), &near_line(&near_home, &options));
    near.wait_for_log(&["link up"]);
    kill(far);
    near.wait_for_log(&["no subflow is left"]);
    let mut asked = ask(&near);
    let far = start(net.far(), &far_line(&far_home));
    let _served: Vec<_> = (0..3).map(|_| Peer::accept(&listener)).collect();
    assert_eq!(reply5(&mut asked[0])[1], 0);
    assert!(http::head(&mut asked[1]).starts_with("HTTP/1.1 200 "));
    // The peer does not come back.
    kill(far);
    let options = [&options[..], &["--connect-timeout", "2s"]].concat();
    let near = start(net.near(), &near_line(&near_home, &options));
    let far = start(net.far(), &far_line(&far_home));
    near.wait_for_log(&["link up"]);
    kill(far);
    near.wait_for_log(&["no subflow is left"]);
    let mut asked = ask(&near);
    assert_eq!(reply5(&mut asked[0])[1], 1, "a general failure (RFC 1928, section 6)");
    assert_eq!(http::response(&mut asked[1]).status, 502);
    assert_eq!(http::response(&mut asked[2]).status, 502);
    near.wait_for_log(&[" closed ", "reason=link_lost"]);
}
