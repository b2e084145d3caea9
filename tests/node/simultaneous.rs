//! Links that both nodes dial, through the public interface: both send a ClientHello, and neither listens. A helper in the
//! middle accepts both connections and joins them, so the loopback device needs no firewall; `tests/net` has the real
//! simultaneous open.

use crate::node_kit;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use node_kit::*;
use seaprox::node::{CarrierKind, LinkConfig, LinkEvent, Path};
use seaprox::{Id, LinkState, Reason, VerbError};
use socket2::{Domain, Socket, Type};

/// Joins the connections that two nodes dial to its two addresses.
struct Middle {
    addrs: [SocketAddr; 2],
    open: Arc<Mutex<Vec<TcpStream>>>,
    joined: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Middle {
    /// `change` may alter the two first messages, each in its record.
    fn new(change: fn(&mut [Vec<u8>; 2])) -> Middle {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addrs = [0, 1].map(|index| listeners[index].local_addr().unwrap());
        let (open, joined, stop) = (Arc::<Mutex<Vec<TcpStream>>>::default(), Arc::default(), Arc::default());
        let shared = (Arc::clone(&open), Arc::clone(&joined), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let (open, joined, stop): (_, Arc<AtomicUsize>, Arc<AtomicBool>) = shared;
            loop {
                let [Some(one), Some(other)] = [&listeners[0], &listeners[1]].map(|it| accept_unless(it, &stop)) else {
                    return;
                };
                let copies = [&one, &other].map(|socket| socket.try_clone().unwrap());
                open.lock().unwrap().extend(copies);
                joined.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || join(&one, &other, change));
            }
        });
        Middle { addrs, open, joined, stop, thread: Some(thread) }
    }

    /// Cuts all connections.
    fn cut(&self) {
        for socket in self.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.cut();
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Accepts a connection. Returns none once `stop` is set.
fn accept_unless(listener: &TcpListener, stop: &AtomicBool) -> Option<TcpStream> {
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false).unwrap();
                return Some(socket);
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// Lets two sockets exchange their first messages, and then moves the bytes between them.
fn join(one: &TcpStream, other: &TcpStream, change: fn(&mut [Vec<u8>; 2])) {
    let record = |mut socket: &TcpStream| {
        let mut record = vec![0; 5];
        socket.read_exact(&mut record)?;
        record.resize(5 + usize::from(u16::from_be_bytes([record[3], record[4]])), 0);
        socket.read_exact(&mut record[5..])?;
        Ok::<_, io::Error>(record)
    };
    let (Ok(first), Ok(second)) = (record(one), record(other)) else {
        // A node that has given its connection up must not hold the other one up.
        [one, other].into_iter().for_each(|socket| _ = socket.shutdown(Shutdown::Both));
        return;
    };
    let mut hellos = [first, second];
    change(&mut hellos);
    let [first, second] = hellos;
    let (mut to_one, mut to_other) = (one, other);
    if to_other.write_all(&first).and_then(|()| to_one.write_all(&second)).is_ok() {
        pipe(one, other);
    }
}

/// Moves the bytes between two sockets until both have ended.
fn pipe(one: &TcpStream, other: &TcpStream) {
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(one, other));
        copy(other, one);
    });
}

/// Returns the path of a node with this number, from an address that no other test uses.
fn path(number: u8) -> Path {
    Path { source: Some(Ipv4Addr::new(127, 77, 0, number).into()), local_port: Some(7077), ..Path::default() }
}

/// Changes a configuration to that of a node which both dials and is dialed.
fn both_dial(config: &mut LinkConfig, seed: u8, number: u8) {
    config.identity = identity(seed);
    (config.simultaneous, config.paths) = (true, vec![path(number)]);
}

/// Starts a node that dials one address of the middle.
fn node(middle: &Middle, index: usize, seed: u8, number: u8) -> (Node, Id) {
    let node = Node::start();
    let link = node.link_with(middle.addrs[index], move |config| both_dial(config, seed, number));
    (node, link)
}

/// Moves bytes over a link that `from` has, to a target at the other node.
#[track_caller]
fn exchange(from: &Node, link: Id) {
    let (listener, addr) = target();
    let mut client = connect(from.forward(link, addr.into()));
    let mut server = accept(&listener);
    thread::scope(|scope| {
        let mut up = client.try_clone().unwrap();
        scope.spawn(move || send_pattern(&mut up, 1, 1 << 20));
        read_pattern(&mut server, 1, 1 << 20);
    });
    server.write_all(b"back").unwrap();
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"back");
}

/// Returns true if a subflow of the node has failed for this reason.
fn has_failed(node: &Node, reason: Reason, detail: &str) -> bool {
    node.has(|event| {
        matches!(event, LinkEvent::NoSubflow { failure, .. }
            if failure.reason == reason && failure.to_string().contains(detail))
    })
}

#[test]
fn two_nodes_that_dial_each_other_have_one_link_with_streams_both_ways() {
    let middle = Middle::new(|_| {});
    let ((near, to_far), (far, to_near)) = (node(&middle, 0, 1, 1), node(&middle, 1, 2, 2));
    near.until_up();
    far.until_up();
    exchange(&near, to_far);
    exchange(&far, to_near);
    assert_eq!((near.links().len(), far.links().len()), (1, 1));
    assert_eq!(near.links()[0].subflows[0].local, "127.77.0.1:7077");
    assert_eq!(middle.joined.load(Ordering::Relaxed), 1);
}

#[test]
fn a_session_of_two_dialing_nodes_resumes_whoever_becomes_the_server() {
    let middle = Middle::new(|_| {});
    let ((near, link), (far, _)) = (node(&middle, 0, 1, 3), node(&middle, 1, 2, 4));
    near.until_up();
    let (listener, target) = target();
    let mut client = connect(near.forward(link, target.into()));
    let mut server = accept(&listener);
    for round in 1..=8 {
        client.write_all(b"before").unwrap();
        let mut got = [0; 6];
        server.read_exact(&mut got).unwrap();
        middle.cut();
        client.write_all(b"behind").unwrap();
        server.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"behind");
        until("both have resumed", || [&near, &far].iter().all(|node| node.links()[0].stats.resumes >= round));
    }
}

#[test]
fn a_node_that_has_lost_its_session_gets_another_one() {
    let middle = Middle::new(|_| {});
    // Either node may be the one that begins sessions.
    for (seed, other) in [(5, 6), (6, 5)] {
        let ((stays, link), (leaves, _)) = (node(&middle, 0, seed, seed), node(&middle, 1, other, other + 10));
        stays.until_up();
        leaves.until_up();
        drop(leaves);
        let (comes, back) = node(&middle, 1, other, other + 20);
        comes.until_up();
        exchange(&comes, back);
        stays.until_up();
        exchange(&stays, link);
        drop((stays, comes));
        middle.cut();
    }
}

#[test]
fn two_nodes_with_one_key_that_dial_each_other_link_and_resume() {
    let middle = Middle::new(|_| {});
    let ((near, link), (far, _)) = (node(&middle, 0, 7, 7), node(&middle, 1, 7, 8));
    for round in 1..=4 {
        near.until_up();
        exchange(&near, link);
        middle.cut();
        until("both have resumed", || [&near, &far].iter().all(|node| node.links()[0].stats.resumes >= round));
    }
}

#[test]
fn an_ordinary_server_takes_a_node_that_may_be_dialed_too() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link_with(server.serve(), |config| both_dial(config, 1, 9));
    client.until_up();
    exchange(&client, link);
}

#[test]
fn an_own_hello_that_comes_back_is_a_failure_and_no_link() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let node = Node::start();
    node.link_with(listener.local_addr().unwrap(), |config| both_dial(config, 1, 10));
    let is_over = Arc::clone(&stop);
    let echo = thread::spawn(move || {
        while let Some(socket) = accept_unless(&listener, &is_over) {
            let _ = io::copy(&mut &socket, &mut &socket);
        }
    });
    until("the reflection is noticed", || has_failed(&node, Reason::ProtocolError, "own hello came back"));
    assert_eq!(node.links()[0].state, LinkState::Connecting);
    drop(node);
    stop.store(true, Ordering::Relaxed);
    echo.join().unwrap();
}

#[test]
fn a_hello_that_tls_does_not_cover_is_covered_by_the_proof() {
    // The hello of the end that becomes the server is in no transcript of TLS.
    let middle = Middle::new(|hellos| {
        let lower = usize::from(hellos[0][11..43] > hellos[1][11..43]);
        *hellos[lower].last_mut().unwrap() ^= 1;
    });
    let ((near, _), (far, _)) = (node(&middle, 0, 1, 11), node(&middle, 1, 2, 12));
    until("the proof is refused", || [&near, &far].iter().any(|node| has_failed(node, Reason::AuthFailed, "")));
    until("the other end refuses it too", || {
        [&near, &far].iter().any(|node| has_failed(node, Reason::LinkLost, "Denied"))
    });
    assert!([&near, &far].iter().all(|node| !node.has(|event| matches!(event, LinkEvent::Up { .. }))));
}

#[test]
fn a_refused_connect_is_repeated_on_the_same_socket_until_the_peer_is_there() {
    // The port is refused while the socket only has it.
    let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    peer.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = peer.local_addr().unwrap().as_socket().unwrap();
    let (server, client) = (Node::start(), Node::start());
    let served = server.serve();
    client.link_with(addr, |config| both_dial(config, 1, 13));
    // Several connects are refused meanwhile; how many does not matter.
    thread::sleep(Duration::from_millis(500));
    peer.listen(8).unwrap();
    let (socket, from) = TcpListener::from(peer).accept().unwrap();
    assert_eq!(from.to_string(), "127.77.0.13:7077");
    let far = TcpStream::connect(served).unwrap();
    let piped = thread::spawn(move || pipe(&socket, &far));
    client.until_up();
    assert!(!client.has(|event| matches!(event, LinkEvent::NoSubflow { .. })), "the dial has not failed");
    drop((client, server));
    piped.join().unwrap();
}

#[test]
fn a_link_that_both_nodes_dial_needs_a_port_and_tcp() {
    let node = Node::start();
    let policy = Arc::clone(&node.policy);
    let dial = move |change: fn(&mut LinkConfig)| {
        let policy = Arc::clone(&policy);
        node.ask(move |core| {
            let mut config = LinkConfig::new(identity(1), policy, SocketAddr::from(([127, 0, 0, 1], 1)).into());
            both_dial(&mut config, 1, 14);
            change(&mut config);
            core.connect_link(config).map(|_| ())
        })
    };
    assert_eq!(dial(|config| config.paths = vec![Path::default()]), Err(VerbError::Invalid));
    assert_eq!(dial(|config| config.carrier = CarrierKind::Mptcp), Err(VerbError::Invalid));
    assert_eq!(dial(|config| config.subflows = 2), Err(VerbError::Invalid));
    assert_eq!(dial(|_| {}), Ok(()));
    assert_eq!(dial(|_| {}), Ok(()), "the same settings");
    assert_eq!(dial(|config| config.simultaneous = false), Err(VerbError::Already));
    let another = |config: &mut LinkConfig| config.paths[0].local_port = Some(7078);
    assert_eq!(dial(another), Err(VerbError::Already), "another local port");
}
