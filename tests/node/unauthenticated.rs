//! Unauthenticated peers: the limit on their number, the choice of those to close, and the cost of their handshakes.
//!
//! Addresses of 127.0.0.0/8 stand for many hosts: on Linux a socket can be bound to any of them.

use crate::node_kit;
use crate::tls;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::node::{LinkEvent, Path, Policy, ServeConfig, Timing};
use seaprox::{Bind, Config, Proxy, bind};
use socket2::{Domain, SockAddr, Socket, Type};

/// Returns timers with few places for unauthenticated peers and a handshake timeout longer than a test.
fn few() -> Timing {
    Timing { unauthenticated: 16, handshake: Duration::from_secs(120), ..timing() }
}

/// Connects from an address of loopback.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddrV4::new(source, 0))).unwrap();
    socket.connect(&to.into()).unwrap();
    let socket = TcpStream::from(socket);
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Returns one of many addresses.
fn source_address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 9, 0, 1).to_bits() + number)
}

/// Returns the first message of a client.
fn client_hello() -> Vec<u8> {
    let identity = tls::Identity::from_seed(&[77; 32]).unwrap();
    let client = tls::Tls::client(&identity, &tls::Cipher::ALL, Arc::new(|_| true)).unwrap();
    let mut pipe = client.pipe(&Rc::new(tls::Buffers::new())).unwrap();
    let mut bytes = Vec::new();
    pipe.write_to(|hello| {
        bytes.extend_from_slice(hello);
        Ok(hello.len())
    })
    .unwrap();
    bytes
}

/// Returns how many of the connections are still open.
fn standing(sockets: &mut [TcpStream]) -> usize {
    let stands = |socket: &mut TcpStream| {
        socket.set_nonblocking(true).unwrap();
        let mut buf = [0; 4096];
        loop {
            match socket.read(&mut buf) {
                Ok(1..) => {}
                Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
                Ok(0) => break false,
            }
        }
    };
    sockets.iter_mut().filter_map(|socket| stands(socket).then_some(())).count()
}

fn serve_few() -> (Node, SocketAddr) {
    let server = Node::start();
    let addr = server.serve_at("127.0.0.1:0".parse().unwrap(), few());
    (server, addr)
}

#[test]
fn silent_connections_from_one_address_do_not_keep_a_peer_out() {
    let (server, addr) = serve_few();
    let mut silent: Vec<TcpStream> = (0..60).map(|_| connect(addr)).collect();
    until("most peers are refused", || server.ask(|core| core.stats().unauthenticated_refused) >= 60 - 8);
    assert_eq!(standing(&mut silent), 8, "half of the sixteen places, while no other address uses them");
    let client = Node::start();
    client.link(addr);
    client.until_up();
}

#[test]
fn unauthenticated_connections_from_many_addresses_do_not_keep_a_peer_out() {
    let (_server, addr) = serve_few();
    for first in [b"".as_slice(), b"\x16", &client_hello()] {
        let crowd: Vec<TcpStream> = (0..200)
            .map(|number| {
                let mut socket = connect_from(source_address(number), addr);
                // A write fails on a connection that the server has already closed.
                let _ = socket.write_all(first);
                socket
            })
            .collect();
        let client = Node::start();
        let source = source_address(10_000 + first.len() as u32);
        client.link_with(addr, move |config| {
            config.paths = vec![Path { source: Some(source.into()), ..Path::default() }];
        });
        client.until_up();
        drop(crowd);
    }
}

#[test]
fn a_cut_link_is_resumed_during_a_flood_of_unauthenticated_peers() {
    let (server, addr) = serve_few();
    let cutter = Cutter::new(addr);
    let client = Node::start();
    let link = client.link(cutter.addr);
    let (listener, inner) = target();
    let front = client.forward(link, inner.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    // The flood holds all places that are not reserved. Each of its peers was answered.
    let hello = client_hello();
    let mut crowd: Vec<TcpStream> = (0..40).map(|number| connect_from(source_address(number), addr)).collect();
    crowd.iter_mut().for_each(|socket| _ = socket.write_all(&hello));
    // Unauthenticated peers have twelve of the sixteen places, and at most nine of the twelve are answered: each further
    // answer takes the place of an answered peer. So the last three of the twelve displace three others.
    until("all peers have been answered or refused", || {
        server.ask(|core| core.stats().unauthenticated_refused) >= 40 - 9
    });
    assert_eq!(standing(&mut crowd), 9, "three quarters of the places that are not reserved");
    cutter.cut();
    until("the link is resumed", || client.has(|happened| matches!(happened, LinkEvent::Resumed)));
    near.write_all(b"y").unwrap();
    far.read_exact(&mut [0]).unwrap();
}

#[test]
fn the_handshake_timeout_is_shorter_when_many_peers_wait() {
    let server = Node::start();
    let hurried = Timing { unauthenticated: 4, handshake: Duration::from_secs(15), ..timing() };
    let addr = server.serve_at("127.0.0.1:0".parse().unwrap(), hurried);
    let client = Node::start();
    client.link_over_tcp(addr);
    client.until_up();
    // The last connection has the client's address, which has a recent key, and so takes the reserved place.
    let mut crowd: Vec<TcpStream> = (0..3).map(|number| connect_from(source_address(number), addr)).collect();
    crowd.push(connect(addr));
    let since = Instant::now();
    until("one peer is closed", || standing(&mut crowd) < 4);
    // A fifth of fifteen seconds is three.
    assert!(since.elapsed() < Duration::from_secs(10), "{:?}", since.elapsed());
    assert!(server.ask(|core| core.stats().unauthenticated_failed) > 0);
}

/// The test drives the loop turn by turn, to count the handshakes of each.
#[test]
fn at_most_two_handshakes_are_computed_in_a_turn() {
    let mut proxy = Proxy::new(Config::default(), None).unwrap();
    let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, proxy.core().config()).unwrap();
    let addr = bound[0].addr().ip().unwrap();
    let policy: Arc<dyn Policy> = Open::new();
    proxy.core().serve_links(&mut bound[0], ServeConfig::new(identity(2), policy)).unwrap();
    let hello = client_hello();
    let mut clients: Vec<TcpStream> = (0..24).map(|number| connect_from(source_address(number), addr)).collect();
    for client in &mut clients {
        client.write_all(&hello).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    // A server answers a hello with more bytes than this, in one write.
    let is_answered = |client: &TcpStream| client.peek(&mut [0; 64]).is_ok_and(|bytes| bytes > 0);
    let (mut answered, mut most, since) = (0, 0, Instant::now());
    while answered < clients.len() {
        assert!(since.elapsed() < SOON, "only {answered} have been answered");
        proxy.turn(Some(Duration::from_millis(10))).unwrap();
        let now = clients.iter().filter(|client| is_answered(client)).count();
        most = most.max(now - answered);
        answered = now;
    }
    assert!((1..=2).contains(&most), "{most} in one turn");
}

#[test]
fn a_client_hello_in_pieces_is_answered_when_it_is_complete() {
    let (_server, addr) = serve_few();
    let mut client = connect(addr);
    let hello = client_hello();
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    for byte in &hello[..hello.len() - 1] {
        client.write_all(&[*byte]).unwrap();
    }
    assert!(client.read(&mut [0; 64]).is_err(), "a part of it is not answered");
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(&hello[hello.len() - 1..]).unwrap();
    let mut first = [0; 6];
    client.read_exact(&mut first).unwrap();
    assert_eq!((first[0], first[5]), (22, 2), "a record with a ServerHello");
    // Bytes that are not a ClientHello are refused at once.
    for noise in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[22, 3, 1, 0, 4, 2, 0, 0, 0], &[23, 3, 3, 0, 1, 0], &[0]] {
        let mut client = connect(addr);
        client.write_all(noise).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(answer.len() <= 7, "an alert at most: {answer:?}");
    }
}
