//! What is urgent passes what is not, over one link between real processes in a network of the test's own (BS-12, BS-15,
//! TT-H4): new connections, keystrokes, and whoever reads while somebody else does not.

use crate::kit;
use crate::net_kit;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::socks::request5;
use kit::{Peer, Seaprox};
use net_kit::goodput::{Load, goodput};
use net_kit::nodes::{Forward, Nodes, Options, direct, front};
use net_kit::{Host, Kind, Link, Net, Queue, has_net, has_tun};

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Nodes with a SOCKS port at the near one.
fn socks_nodes<'a>() -> Options<'a> {
    Options { near: &["-D", "127.0.0.1:0"], ..Options::default() }
}

/// A connection through SOCKS to a listener of the far host, and how long the answer took.
#[track_caller]
fn open(near: &Host, node: &Seaprox, to: &TcpListener) -> (Peer, Peer, Duration) {
    let (proxy, port) = (front(node, "socks"), to.local_addr().unwrap().port());
    let mut client = near.inside(|| Peer::connect(proxy));
    let since = Instant::now();
    client.run(&[Put(b"\x05\x01\0"), Take(b"\x05\0"), Put(&request5("127.0.0.1", port))]);
    let reply = kit::socks::reply5(&mut client);
    assert_eq!(reply[1], 0);
    let took = since.elapsed();
    (client, Peer::accept(to), took)
}

fn plain(peer: &Peer) -> TcpStream {
    TcpStream::from(peer.socket().try_clone().unwrap())
}

/// So many bytes there and back, one after another, with a pause between; how long each took, the shortest first.
fn echo(client: &mut TcpStream, server: &mut TcpStream, count: usize, pause: Duration) -> Vec<Duration> {
    let mut server = server.try_clone().unwrap();
    let answering = thread::spawn(move || {
        for _ in 0..count {
            let mut byte = [0];
            server.read_exact(&mut byte).unwrap();
            server.write_all(&byte).unwrap();
        }
    });
    let mut times: Vec<Duration> = (0..count)
        .map(|number| {
            thread::sleep(pause);
            let since = Instant::now();
            client.write_all(&[number as u8]).unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [number as u8]);
            since.elapsed()
        })
        .collect();
    answering.join().unwrap();
    times.sort();
    times
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn both(times: &[Duration]) -> String {
    format!("{:?} {:?}", percentile(times, 50), percentile(times, 99))
}

#[test]
fn a_new_connection_passes_what_is_queued() {
    if !has_net() {
        return;
    }
    let _alone = kit::alone();
    let net = Net::of(&[Kind::Rate(1.0)]);
    let nodes = Nodes::start(&net, socks_nodes());
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let (bulk, sink, idle) = open(net.near(), &nodes.near, &listener);
    // More than 4 MiB wait at any time, in the node and before it.
    let load = Load::start(vec![(plain(&bulk), plain(&sink))]);
    let times: Vec<Duration> = (0..8)
        .map(|_| {
            thread::sleep(ms(700));
            let (mut client, mut server, took) = open(net.near(), &nodes.near, &listener);
            let since = Instant::now();
            client.run(&[Put(b"x")]);
            server.run(&[Take(b"x"), Put(b"y")]);
            client.run(&[Take(b"y")]);
            let echo = since.elapsed();
            println!("idle {idle:?}; up in {took:?}, and a byte there and back in {echo:?}");
            took
        })
        .collect();
    println!("{} KiB arrived meanwhile", load.received() >> 10);
    assert!(times.iter().all(|took| *took < ms(1000)), "{times:?}");
    assert!(load.measure(ms(1000)) > 0.5, "the path is full all the time");
}

/// In the median. At p99 an echo waits for what a drop of the path's queue costs TCP, which is one more round trip, and on a
/// busy machine for a processor; that is printed.
#[test]
fn keystrokes_pass_bulk() {
    if !has_net() || !has_tun() {
        return;
    }
    let _alone = kit::alone();
    let mut best = Duration::MAX;
    for attempt in 0..3 {
        // A queue of ten milliseconds: a longer one belongs to the path, and no program at its ends can pass it.
        let link = Link { mbit: 20.0, delay: ms(5), queue: Queue::Time(ms(10)), ..Link::default() };
        let net = Net::of(&[Kind::Emulated(link)]);
        let forward = Forward::start(&net, Options::default());
        let (mut client, mut server) = forward.pair();
        let idle = echo(&mut client, &mut server, 100, ms(2));
        // What TCP itself adds: an echo of its own connection beside a bulk flow of its own.
        let path = net.path(0);
        let direct = || direct(net.near(), net.far(), path.near_ip(), path.far_ip());
        let (mut plain_client, mut plain_server) = direct();
        let load = Load::start(vec![direct()]);
        thread::sleep(ms(500));
        let plain = echo(&mut plain_client, &mut plain_server, 200, ms(8));
        drop(load);
        let load = Load::start(vec![forward.pair()]);
        thread::sleep(ms(500));
        let beside = echo(&mut client, &mut server, 200, ms(8));
        let rate = load.measure(ms(500));
        drop(load);
        let added = percentile(&beside, 50).saturating_sub(percentile(&idle, 50));
        println!(
            "attempt {attempt}: p50 and p99 idle {}, plain TCP beside plain bulk {}, on the link beside {rate:.1} Mbit/s {}",
            both(&idle),
            both(&plain),
            both(&beside)
        );
        assert!(rate > 15.0, "the path is full: {rate}");
        best = best.min(added);
        if best < ms(20) {
            return;
        }
    }
    panic!("an echo beside bulk takes {best:?} longer");
}

/// Whatever the number of streams, they get what the path has.
#[test]
fn many_streams_fill_a_path_as_well_as_one() {
    if !has_net() {
        return;
    }
    let _alone = kit::alone();
    let net = Net::of(&[Kind::Rate(100.0)]);
    let path = net.path(0);
    let alone = goodput(vec![direct(net.near(), net.far(), path.near_ip(), path.far_ip())], ms(500), ms(1500));
    for streams in [1, 64, 512] {
        let forward = Forward::start(&net, Options::default());
        let measure = || {
            let pairs = (0..streams).map(|_| forward.pair()).collect();
            let rate = goodput(pairs, ms(1000), ms(2000));
            println!("{streams} streams: {rate:.1} of {alone:.1} Mbit/s");
            rate >= 0.9 * alone
        };
        assert!((0..3).any(|_| measure()), "{streams} streams do not fill the path");
    }
}

#[test]
fn one_that_does_not_read_stalls_nobody() {
    if !has_net() {
        return;
    }
    let _alone = kit::alone();
    let net = Net::of(&[Kind::Rate(100.0)]);
    let share = || {
        let forward = Forward::start(&net, Options::default());
        let rate = |forward: &Forward| goodput(vec![forward.pair()], ms(500), ms(1500));
        let alone = rate(&forward);
        // A server that offers 100 MiB to a client that reads some of it and then nothing any more.
        let (mut client, mut server) = forward.peers();
        let offering = thread::spawn(move || server.run(&[Fill(100 << 20, 300)]).sent);
        client.run(&[Read(4 << 20)]);
        let sent = offering.join().unwrap();
        assert!(sent < 90 << 20, "the server is kept waiting: it got rid of {sent}");
        let beside = rate(&forward);
        println!("{alone:.1} Mbit/s alone, {beside:.1} beside one that stalls");
        drop(client);
        beside / alone
    };
    assert!((0..3).any(|_| share() >= 0.9), "it stalls others");
}

/// X-03 in small: what others feel of a reader that has stalled.
#[test]
fn echoes_of_many_do_not_feel_a_reader_that_stalls() {
    if !has_net() {
        return;
    }
    let _alone = kit::alone();
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, Options::default());
    let mut pairs: Vec<_> = (0..50).map(|_| forward.pair()).collect();
    let mut round = || {
        let mut times: Vec<Duration> = Vec::new();
        for (client, server) in &mut pairs {
            times.extend(echo(client, server, 20, Duration::ZERO));
        }
        times.sort();
        (percentile(&times, 50), percentile(&times, 99))
    };
    let before = round();
    let (mut client, mut server) = forward.peers();
    let offering = thread::spawn(move || {
        server.run(&[Fill(200 << 20, 300)]);
        server
    });
    client.run(&[Read(8 << 20)]);
    let server = offering.join().unwrap();
    println!("{} MiB taken from the one that offers", server.sent >> 20);
    let status = |node: &Seaprox| node.status()["links"][0].to_string();
    println!("{}\n{}", status(&forward.nodes.near), status(&forward.nodes.far));
    // The machine has other things to do; a link that stalls them does so in each round.
    let is_as_before = (0..10).any(|_| {
        let beside = round();
        println!("p50 and p99: {before:?} alone, {beside:?} beside one that stalls");
        beside.1 < before.1 * 3 / 2 + ms(1)
    });
    assert!(is_as_before, "they feel it");
}
