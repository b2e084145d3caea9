//! Urgent bytes overtake bulk on one link between real processes, in a network of the test's own (BS-12, BS-15, X-03,
//! X-04, TT-H4): new connections, keystrokes, and the streams of other clients beside one that stops reading.
//!
//! These tests show that it happens; the gates (`make gates`) measure delays and rates.

use crate::kit;
use crate::net_kit;

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::socks::request5;
use kit::{Peer, Seaprox, until};
use net_kit::goodput::Load;
use net_kit::nodes::{Forward, Nodes, Options, front};
use net_kit::{Host, Kind, Net, has_net};

/// Returns the options of nodes with a SOCKS port at the near one.
fn socks_nodes<'a>() -> Options<'a> {
    Options { near: &["-D", "127.0.0.1:0"], ..Options::default() }
}

/// Connects through SOCKS to a listener of the far host, and returns both ends and the time that the answer took.
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

/// Nodes on a path of 1 Mbit/s that a transfer keeps full. More than 4 MiB wait at any time, in the node and before it:
/// bytes that had to wait for them would take half a minute.
struct Full {
    nodes: Nodes,
    listener: TcpListener,
    load: Load,
    net: Net,
}

impl Full {
    fn start(carrier: &str) -> Full {
        let net = Net::of(&[Kind::Rate(1.0)]);
        let nodes = Nodes::start(&net, Options { both: &["--carrier", carrier], ..socks_nodes() });
        let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let (bulk, sink, _) = open(net.near(), &nodes.near, &listener);
        let load = Load::start(vec![(plain(&bulk), plain(&sink))]);
        until("bytes flow", || load.received() > 50_000);
        Full { nodes, listener, load, net }
    }

    fn open(&self) -> (Peer, Peer, Duration) {
        open(self.net.near(), &self.nodes.near, &self.listener)
    }
}

/// Gates `path-new-connections` and `path-new-connections-auto` measure the delay.
#[test]
fn a_new_connection_overtakes_queued_bulk() {
    new_connections_overtake_bulk("auto");
}

#[test]
fn a_new_connection_overtakes_queued_bulk_over_quic() {
    new_connections_overtake_bulk("quic");
}

fn new_connections_overtake_bulk(carrier: &str) {
    if !has_net() {
        return;
    }
    let full = Full::start(carrier);
    let before = full.load.received();
    for _ in 0..4 {
        let (mut client, mut server, took) = full.open();
        assert!(took < 2 * kit::LATE, "{took:?}");
        let since = Instant::now();
        client.run(&[Put(b"x")]);
        server.run(&[Take(b"x"), Put(b"y")]);
        client.run(&[Take(b"y")]);
        println!("connected after {took:?}, round trip of a byte {:?}", since.elapsed());
    }
    until("the transfer goes on", || full.load.received() > before + 50_000);
}

/// Gate `path-echo-bulk` measures the delay.
#[test]
fn keystrokes_overtake_queued_bulk() {
    keystrokes_overtake_bulk("auto");
}

#[test]
fn keystrokes_overtake_queued_bulk_over_quic() {
    keystrokes_overtake_bulk("quic");
}

fn keystrokes_overtake_bulk(carrier: &str) {
    if !has_net() {
        return;
    }
    let full = Full::start(carrier);
    let (mut client, mut server, _) = full.open();
    let before = full.load.received();
    for _ in 0..20 {
        let since = Instant::now();
        client.run(&[Put(b"x")]);
        server.run(&[Take(b"x"), Put(b"y")]);
        client.run(&[Take(b"y")]);
        assert!(since.elapsed() < 2 * kit::LATE, "{:?}", since.elapsed());
    }
    until("the transfer goes on", || full.load.received() > before + 50_000);
}

/// Gates `path-streams` and `path-streams-512` compare the rates.
#[test]
fn five_hundred_streams_share_a_path_and_lose_no_byte() {
    if !has_net() {
        return;
    }
    const COUNT: u64 = 20_000;
    let net = Net::of(&[Kind::Rate(100.0)]);
    let forward = Forward::start(&net, Options::default());
    let mut pairs: Vec<(Peer, Peer)> = (0..512).map(|_| forward.peers()).collect();
    pairs.iter_mut().for_each(|(client, _)| _ = client.run(&[Send(COUNT), Fin]));
    pairs.iter_mut().for_each(|(_, server)| _ = server.run(&[ReadAll, Send(COUNT), Fin]));
    for (client, server) in &mut pairs {
        client.run(&[ReadAll]);
        assert_eq!((client.received, server.received), (COUNT, COUNT));
    }
}

/// Gates `path-stalled-rate` and `path-stalled-echo` compare rates and echoes.
#[test]
fn a_client_that_stops_reading_blocks_no_other() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Rate(100.0)]);
    let forward = Forward::start(&net, Options::default());
    // A server offers 100 MiB to a client that reads some of it and then stops.
    let (mut stalled, mut server) = forward.peers();
    let offering = thread::spawn(move || {
        server.run(&[Fill(100 << 20, 300)]);
        server
    });
    stalled.run(&[Read(4 << 20)]);
    let server = offering.join().unwrap();
    assert!(server.sent < 90 << 20, "the server must be blocked, but has sent {}", server.sent);
    let mut pairs: Vec<(Peer, Peer)> = (0..50).map(|_| forward.peers()).collect();
    for (client, server) in &mut pairs {
        client.run(&[Send(1)]);
        server.run(&[Read(1), Send(1)]);
        client.run(&[Read(1)]);
    }
    let (client, server) = &mut pairs[0];
    kit::peer::both(client, &[Swap(8 << 20), Fin, ReadAll], server, &[Swap(8 << 20), Fin, ReadAll]);
}
