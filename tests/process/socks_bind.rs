//! BIND of SOCKS5 and SOCKS4 (BS-24): a client is told an address, and is given the one connection that comes there.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::kit::link::Keys;
use crate::kit::socks::{request4, request5};
use crate::kit::{SOON, Seaprox, until};

/// How long a client that gets no answer is watched.
const QUIET: Duration = Duration::from_millis(300);

fn proxy(options: &[&str]) -> Seaprox {
    Seaprox::start(&[&["socks", "--listen", "127.0.0.1:0"], options].concat())
}

fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// Connects from this address of the loopback network.
fn connect_from(from: [u8; 4], addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&addr.into()).unwrap();
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// Sends a BIND request of SOCKS5.
fn ask(proxy: &Seaprox, host: &str, port: u16) -> TcpStream {
    let mut client = connect(proxy.addr(0));
    let mut request = request5(host, port);
    request[1] = 2;
    client.write_all(&[b"\x05\x01\0", &request[..]].concat()).unwrap();
    let mut method = [0; 2];
    client.read_exact(&mut method).unwrap();
    assert_eq!(method, [5, 0]);
    client
}

/// Reads a reply of SOCKS5. Returns its code and its address.
fn reply(client: &mut TcpStream) -> (u8, SocketAddr) {
    let mut head = [0; 4];
    client.read_exact(&mut head).unwrap();
    let mut rest = vec![0; if head[3] == 1 { 6 } else { 18 }];
    client.read_exact(&mut rest).unwrap();
    let (ip, port) = rest.split_at(rest.len() - 2);
    let ip: IpAddr = match ip.try_into() {
        Ok(octets) => <[u8; 4]>::into(octets),
        Err(_) => <[u8; 16]>::try_from(ip).unwrap().into(),
    };
    (head[1], (ip, u16::from_be_bytes([port[0], port[1]])).into())
}

/// Sends BIND, and returns the client with the address where the dest may connect.
fn bind(proxy: &Seaprox, host: &str, port: u16) -> (TcpStream, SocketAddr) {
    let mut client = ask(proxy, host, port);
    let (code, at) = reply(&mut client);
    assert_eq!(code, 0);
    (client, at)
}

fn is_listening(addr: SocketAddr) -> bool {
    crate::kit::program::is_listening(addr.port())
}

/// Sends a word in each direction, and ends both.
fn swap(client: &mut TcpStream, dest: &mut TcpStream) {
    for (from, to, word) in [(&*client, &*dest, b"hello"), (&*dest, &*client, b"world")] {
        let (mut from, mut to) = (from, to);
        from.write_all(word).unwrap();
        let mut got = [0; 5];
        to.read_exact(&mut got).unwrap();
        assert_eq!(&got, word);
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(dest.read(&mut [0]).unwrap(), 0);
}

/// Returns true if the proxy has closed a connection.
fn is_refused(mut socket: TcpStream) -> bool {
    let end = socket.read(&mut [0]).map_err(|error| error.kind());
    matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset))
}

#[test]
fn a_bind_is_answered_twice_and_relays_the_dest_that_connects() {
    let proxy = proxy(&[]);
    let (mut client, at) = bind(&proxy, "127.0.0.1", 21);
    assert_eq!(at.ip(), IpAddr::from([127, 0, 0, 1]));
    // The dest may speak before the client has its second reply, and the client before the dest is there.
    client.write_all(b"early").unwrap();
    let mut dest = connect(at);
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    let mut early = [0; 5];
    dest.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    until("the address is closed", || !is_listening(at));
    swap(&mut client, &mut dest);
    drop((client, dest));
    let line = proxy.wait_for_log(&[" closed ", "conn=socks5-bind[ipv4[127.0.0.1:", "asked=127.0.0.1:21"]);
    assert!(line.contains("sent=10 received=5 reason=source_fin end=graceful"), "{line}");
}

#[test]
fn a_bind_of_ipv6_has_an_address_of_its_family() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let proxy = proxy(&[]);
    let (mut client, at) = bind(&proxy, "::1", 0);
    let mut dest = connect(at);
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    swap(&mut client, &mut dest);
}

#[test]
fn a_dest_that_connects_is_sent_no_proxy_header() {
    let proxy = proxy(&["--proxy-protocol-send", "v1"]);
    let (mut client, at) = bind(&proxy, "127.0.0.1", 0);
    let mut dest = connect(at);
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    swap(&mut client, &mut dest);
}

#[test]
fn a_bind_of_socks4_is_answered_twice() {
    let proxy = proxy(&[]);
    let mut client = connect(proxy.addr(0));
    let mut request = request4("127.0.0.1", 21);
    request[1] = 2;
    client.write_all(&request).unwrap();
    let reply = |client: &mut TcpStream| {
        let mut bytes = [0; 8];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!((&bytes[..2], &bytes[4..]), (&[0, 90][..], &[127, 0, 0, 1][..]));
        u16::from_be_bytes([bytes[2], bytes[3]])
    };
    let port = reply(&mut client);
    let mut dest = connect(([127, 0, 0, 1], port).into());
    assert_eq!(reply(&mut client), dest.local_addr().unwrap().port());
    swap(&mut client, &mut dest);
}

#[test]
fn only_the_dest_that_was_asked_for_may_connect() {
    let proxy = proxy(&[]);
    let (mut client, at) = bind(&proxy, "127.0.0.2", 0);
    assert!(is_refused(connect_from([127, 0, 0, 3], at)));
    client.set_read_timeout(Some(QUIET)).unwrap();
    assert!(client.read(&mut [0]).is_err(), "no reply about the wrong one");
    client.set_read_timeout(Some(SOON)).unwrap();
    let mut dest = connect_from([127, 0, 0, 2], at);
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    swap(&mut client, &mut dest);
    // Without an address any dest may come.
    let (mut client, at) = bind(&proxy, "0.0.0.0", 0);
    assert_eq!(at.ip(), proxy.addr(0).ip());
    let mut dest = connect_from([127, 0, 0, 9], at);
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    swap(&mut client, &mut dest);
}

#[test]
fn rules_decide_about_the_dest_of_a_bind() {
    let proxy = proxy(&["--deny", "127.0.0.3"]);
    let mut client = ask(&proxy, "127.0.0.3", 21);
    assert_eq!(reply(&mut client).0, 2);
    drop(client);
    proxy.wait_for_log(&[" closed ", "asked=127.0.0.3:21", "reason=not_permitted"]);
    let (mut client, at) = bind(&proxy, "0.0.0.0", 0);
    assert!(is_refused(connect_from([127, 0, 0, 3], at)));
    let mut dest = connect_from([127, 0, 0, 2], at);
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    swap(&mut client, &mut dest);
}

#[test]
fn a_bind_without_a_dest_ends_with_the_connect_timer() {
    let proxy = proxy(&["--connect-timeout", "500ms"]);
    let began = Instant::now();
    let (mut client, at) = bind(&proxy, "127.0.0.1", 0);
    assert_eq!(reply(&mut client).0, 6);
    assert!(began.elapsed() >= Duration::from_millis(490));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    until("the address is closed", || !is_listening(at));
    drop(client);
    proxy.wait_for_log(&[" closed ", "conn=socks5-bind[", "reason=timed_out"]);
}

#[test]
fn binds_of_one_client_are_limited() {
    let proxy = proxy(&["--connect-timeout", "1m"]);
    let before = proxy.figure("/usage/descriptors");
    let mut waiting: Vec<_> = (0..16).map(|_| bind(&proxy, "127.0.0.1", 0)).collect();
    assert_eq!(proxy.figure("/usage/descriptors"), before + 2 * 16, "each has a client and a socket that listens");
    let mut refused = ask(&proxy, "127.0.0.1", 0);
    assert_eq!(reply(&mut refused).0, 1);
    drop(refused);
    proxy.wait_for_log(&[" closed ", "conn=socks5-bind[", "reason=limit_reached"]);
    // A dest that comes makes room.
    let (mut client, at) = waiting.pop().unwrap();
    let dest = connect(at);
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    waiting.push(bind(&proxy, "127.0.0.1", 0));
}

#[test]
fn a_bind_that_cannot_be_done_is_refused_with_its_code() {
    let near = proxy(&[]);
    let mut client = ask(&near, "localhost", 21);
    assert_eq!(reply(&mut client).0, 8);
    drop(client);
    near.wait_for_log(&[" closed ", "asked=localhost:21", "reason=protocol_error"]);
    let keys = Keys::new();
    let far = keys.start_far(&[]);
    let via = keys.via(&far.listens(0));
    let over = proxy(&via.iter().map(String::as_str).collect::<Vec<_>>());
    let mut client = ask(&over, "127.0.0.1", 21);
    assert_eq!(reply(&mut client).0, 7);
    drop(client);
    over.wait_for_log(&[" closed ", "reason=protocol_error", "BIND is not carried over links"]);
}

#[test]
fn a_client_of_bind_is_told_the_advertised_address() {
    let proxy = proxy(&["--bind-advertise", "203.0.113.9"]);
    let (mut client, at) = bind(&proxy, "127.0.0.1", 0);
    assert_eq!(at.ip(), IpAddr::from([203, 0, 113, 9]));
    let dest = connect(SocketAddr::from(([127, 0, 0, 1], at.port())));
    // The second reply has the address of the dest.
    assert_eq!(reply(&mut client), (0, dest.local_addr().unwrap()));
    let ran = crate::kit::run(&["socks", "--listen", "127.0.0.1:0", "--bind-advertise", "nowhere"]);
    assert!(ran.code == Some(2) && ran.err.contains("--bind-advertise"), "{:?} {}", ran.code, ran.err);
}
