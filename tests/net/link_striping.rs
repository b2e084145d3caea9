//! One connection over several subflows of a link, between real processes in a network of the test's own (TS-02 to TS-05,
//! TS-08): it gets what the paths carry together, and it outlives any one of them.

use crate::kit;
use crate::net_kit;

use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use net_kit::goodput::{Load, goodput};
use net_kit::nodes::{Forward, Options, direct, link_figure, subflows};
use net_kit::{Kind, Net, has_net, has_tun, pairs};

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Others may need the machine for a while, so a measurement has some attempts.
#[track_caller]
fn assert_at_least(what: &str, wished: f64, attempts: usize, mut measure: impl FnMut() -> f64) {
    let is_enough = |measured: &f64| {
        println!("{what}: {measured:.3}, at least {wished}");
        *measured >= wished
    };
    assert!((0..attempts).map(|_| measure()).any(|measured| is_enough(&measured)), "{what}: not {wished}");
}

/// Where every TCP connection gets 5 Mbit/s and no more, four of them get four times that.
#[test]
fn subflows_add_up_where_each_connection_is_capped() {
    if !has_net() {
        return;
    }
    let _alone = kit::alone();
    let net = Net::of(&[Kind::PerConnection(5.0)]);
    let measure = |count: usize| {
        let forward = Forward::start(&net, Options { near: &["--subflows", &count.to_string()], ..Options::default() });
        forward.nodes.until_subflows(count);
        assert_eq!(net.path(0).connections().len(), count);
        let rate = goodput(vec![forward.pair()], secs(1), secs(3));
        let sent: Vec<u64> =
            subflows(&forward.nodes.near).iter().map(|subflow| subflow["bytes_sent"].as_u64().unwrap()).collect();
        assert!(sent.iter().all(|bytes| *bytes > 500_000), "every subflow carries bytes: {sent:?}");
        rate
    };
    assert_at_least("four subflows in terms of one", 3.8, 3, || {
        let (one, four) = (measure(1), measure(4));
        println!("one {one:.2} Mbit/s, four {four:.2} Mbit/s");
        four / one
    });
}

/// `make bench` prints all five pairs with what MPTCP gets; here are two of them, with room for a busy machine.
#[test]
fn a_connection_gets_what_unlike_paths_carry_together() {
    if !has_net() || !has_tun() {
        return;
    }
    let _alone = kit::alone();
    for pair in &pairs::all()[..2] {
        assert_at_least(pair.name, 0.85, 3, || {
            let row = pair.measure(secs(2), secs(3), false);
            println!("{}: {row:?}", pair.name);
            row.share()
        });
    }
}

/// A path with the same rate and six times the delay helps from the start, while the kernel still says that it carries
/// little; both are full after the second in which it gets up to speed.
#[test]
fn a_path_that_is_farther_is_used_soon() {
    if !has_net() || !has_tun() {
        return;
    }
    let _alone = kit::alone();
    let pair = pairs::all()[2];
    assert_at_least(pair.name, 0.7, 3, || {
        let net = Net::of(&pair.paths.map(Kind::Emulated));
        let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
        let near = ["--path", &sources[0], "--path", &sources[1]];
        let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
        forward.nodes.until_subflows(2);
        let load = Load::start(vec![forward.pair()]);
        let each: Vec<f64> = (0..6).map(|_| load.measure(Duration::from_millis(500))).collect();
        println!("{}: Mbit/s by half second {each:.1?}", pair.name);
        each[2..].iter().sum::<f64>() / 4.0 / 100.0
    });
}

/// In the ten seconds after, the other path is used to nine parts in ten at least.
#[test]
fn a_path_that_becomes_slow_is_left() {
    if !has_net() {
        return;
    }
    let _alone = kit::alone();
    assert_at_least("goodput in terms of the other path's", 0.9, 3, || {
        let net = Net::of(&[Kind::Rate(20.0), Kind::Rate(20.0)]);
        let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
        let near = ["--path", &sources[0], "--path", &sources[1]];
        let path = net.path(0);
        let other = goodput(vec![direct(net.near(), net.far(), path.near_ip(), path.far_ip())], secs(1), secs(2));
        let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
        forward.nodes.until_subflows(2);
        let load = Load::start(vec![forward.pair()]);
        thread::sleep(secs(1));
        let both = load.measure(secs(1));
        net.path(1).set_rate(0.1);
        let each: Vec<f64> = (0..10).map(|_| load.measure(secs(1))).collect();
        let after = each.iter().sum::<f64>() / 10.0;
        println!(
            "{other:.2} Mbit/s alone, {both:.2} over both, {after:.2} after one was choked, by second: {each:.1?}"
        );
        // What the other path got beside it says nothing if it got nothing before.
        if both > 1.5 * other { after / other } else { 0.0 }
    });
}

#[test]
fn one_of_four_subflows_dies_and_nothing_is_lost() {
    if !has_net() {
        return;
    }
    let _alone = kit::alone();
    let net = Net::of(&[Kind::Rate(200.0)]);
    let forward = Forward::start(&net, Options { near: &["--subflows", "4"], ..Options::default() });
    forward.nodes.until_subflows(4);
    let (mut client, mut server) = forward.peers();
    let path = net.path(0);
    let before = path.connections();
    assert_eq!(before.len(), 4);
    const COUNT: u64 = 24 << 20;
    thread::scope(|scope| {
        let swaps = [&mut client, &mut server].map(|peer| scope.spawn(|| _ = peer.run(&[Swap(COUNT), Fin, ReadAll])));
        for victim in &before[..3] {
            let sent = link_figure(&forward.nodes.near, "bytes_received");
            kit::until("bytes flow", || link_figure(&forward.nodes.near, "bytes_received") > sent + (1 << 20));
            assert!(swaps.iter().all(|swap| !swap.is_finished()), "it is in the middle");
            assert_eq!(path.reset_one(*victim), 1);
        }
        for swap in swaps {
            swap.join().unwrap();
        }
    });
    let since = Instant::now();
    forward.nodes.until_subflows(4);
    let after = path.connections();
    assert_eq!(after.iter().filter(|connection| before.contains(connection)).count(), 1, "{before:?} {after:?}");
    println!("back after {:?}, resumes {}", since.elapsed(), link_figure(&forward.nodes.near, "resumes"));
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0, "the session always had a subflow");
    assert!(subflows(&forward.nodes.far).len() == 4);
}
