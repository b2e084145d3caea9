//! Attacks on real nodes in a network of the test's own (BS-20, BS-22, TT-06, TT-07, TT-17): eavesdropping, flipped
//! bits, a replayed session, unknown keys, forbidden targets and ports, invalid bytes, and a thousand silent peers.

use crate::kit;
use crate::net_kit;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::socks::connect5;
use kit::{Peer, Scratch, Seaprox, proc, until};
use net_kit::capture::Stream;
use net_kit::home::{Home, far_line, homes, near_line};
use net_kit::nodes::{Forward, Nodes, Options, PORT, Secret, front, link_figure, spawn, start};
use net_kit::{Captured, Host, Kind, Net, has_net, own_ip};

/// Asks a node's SOCKS port for a target, and returns the connection and the code of the answer.
#[track_caller]
fn socks(near: &Host, node: &Seaprox, host: &str, port: u16) -> (Peer, u8) {
    let proxy = front(node, "socks");
    let (client, reply) = near.inside(|| connect5(proxy, host, port));
    (client, reply[1])
}

/// Returns the encrypted part of a TCP connection: the bodies of its TLS records of application data.
fn ciphertext(stream: &Stream) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), &stream.bytes[..]);
    while let Some((header, behind)) = rest.split_at_checked(5) {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let Some((body, behind)) = behind.split_at_checked(len) else { break };
        if header[0] == 23 {
            bytes.extend_from_slice(body);
        }
        rest = behind;
    }
    bytes
}

/// Connections that a node accepts in one turn from a listener for links.
const ACCEPTS_PER_TURN: usize = 16;
const MARKER: &[u8; 16] = b"find this marker";
const NAME: &str = "a-target-name-that-nobody-else-has.test";

/// Runs a session with the same content each time, and returns the captured packets.
fn session(file: String) -> Captured {
    let net = Net::of(&[Kind::Veth]);
    let capture = net.path(0).capture(file);
    let nodes = Nodes::start(&net, Options { near: &["-D", "127.0.0.1:0", "--carrier", "tcp"], ..Options::default() });
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let (_, code) = socks(net.near(), &nodes.near, NAME, 7);
    assert_ne!(code, 0, "this name does not exist");
    let (mut client, code) = socks(net.near(), &nodes.near, "127.0.0.1", listener.local_addr().unwrap().port());
    assert_eq!(code, 0);
    let mut server = Peer::accept(&listener);
    for _ in 0..1000 {
        client.run(&[Put(MARKER)]);
        server.run(&[Take(MARKER), Put(MARKER)]);
        client.run(&[Take(MARKER)]);
    }
    client.run(&[Put(&MARKER.repeat(10_000)), Fin]);
    assert!(server.rest() == MARKER.repeat(10_000));
    drop((client, server));
    drop(nodes);
    capture.stop()
}

#[test]
fn an_eavesdropper_finds_neither_content_nor_names_nor_repeated_blocks() {
    if !has_net() {
        return;
    }
    let scratch = Scratch::new();
    let runs = ["one", "two"].map(|name| session(scratch.file(name)));
    let mut seen: Vec<HashSet<[u8; 16]>> = Vec::new();
    for captured in &runs {
        assert_eq!(captured.missed, 0);
        // The search works: each connection of TCP, to which these options keep the link, began with a ClientHello, which has the protocol's name.
        assert!(captured.contains(b"seaprox/1"), "the protocol's name is in the clear, as TLS has it");
        for secret in [&MARKER[..], NAME.as_bytes(), b"a-target-name", b"SPRX", b"127.0.0.1"] {
            assert!(!captured.contains(secret), "{}", secret.escape_ascii());
        }
        let bodies: Vec<Vec<u8>> = captured.streams().iter().map(ciphertext).collect();
        assert!(bodies.iter().map(Vec::len).sum::<usize>() > 200_000, "the session carried encrypted bytes");
        // The header of a DATA frame of the first streams: type, no flags, any length, id.
        let header = |window: &[u8]| window[..2] == [0x20, 0] && window[4..7] == [0; 3] && window[7] < 4;
        let chance = bodies.iter().flat_map(|body| body.windows(8)).filter(|window| header(window)).count();
        assert!(chance <= 1, "{chance} headers of frames in the clear");
        let blocks = bodies.iter().flat_map(|body| body.windows(16));
        seen.push(blocks.map(|block| block.try_into().unwrap()).collect());
    }
    println!("{} and {} blocks, {} shared", seen[0].len(), seen[1].len(), seen[0].intersection(&seen[1]).count());
    assert!(seen[0].is_disjoint(&seen[1]), "no block of sixteen bytes is in both");
}

/// A relay between two nodes that flips one bit of the bytes of one of them.
struct Flipper {
    addr: SocketAddr,
    /// The byte to flip, counted over all bytes in this direction; it is flipped once.
    at: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Flipper {
    fn start(host: &Host, to: SocketAddr, flips_answers: bool) -> Flipper {
        let listener = host.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let addr = listener.local_addr().unwrap();
        let (at, connections) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
        let (wanted, count) = (Arc::clone(&at), Arc::clone(&connections));
        host.spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                for (from, into, flips) in [(&client, &server, !flips_answers), (&server, &client, flips_answers)] {
                    let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
                    let wanted = flips.then(|| Arc::clone(&wanted));
                    thread::spawn(move || pass(from, into, wanted.as_deref()));
                }
            }
        });
        Flipper { addr, at, connections }
    }

    /// Flips a bit this many bytes from now.
    fn flip_after(&self, bytes: u64) {
        self.at.store(bytes, Ordering::Relaxed);
    }
}

fn pass(mut from: TcpStream, mut into: TcpStream, wanted: Option<&AtomicU64>) {
    let mut buf = vec![0; 16 << 10];
    while let Ok(got @ 1..) = from.read(&mut buf) {
        if let Some(wanted) = wanted {
            let at = wanted.load(Ordering::Relaxed);
            if at < got as u64 {
                buf[at as usize] ^= 0x10;
                wanted.store(u64::MAX, Ordering::Relaxed);
            } else if at != u64::MAX {
                wanted.store(at - got as u64, Ordering::Relaxed);
            }
        }
        if into.write_all(&buf[..got]).is_err() {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[test]
fn a_flipped_bit_ends_a_subflow_and_no_wrong_byte_arrives() {
    if !has_net() {
        return;
    }
    for flips_answers in [false, true] {
        let net = Net::of(&[Kind::Veth]);
        let secret = Secret::new();
        let far = start(net.far(), &secret.far(&["-v"]));
        let flipper = Flipper::start(net.near(), (own_ip(1), PORT).into(), flips_answers);
        let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let (at, local) = (flipper.addr.to_string(), format!("127.0.0.1:0:{}", listener.local_addr().unwrap()));
        let near = start(net.near(), &secret.line(&["link", "--connect", &at, "-v", "-L", &local], &[]));
        let front = front(&near, "static");
        let mut client = net.near().inside(|| Peer::connect(front));
        let mut server = Peer::accept(&listener);
        let flips = [0, 3, 100, 5_000, 300_000];
        for (number, after) in flips.into_iter().enumerate() {
            flipper.flip_after(after);
            kit::peer::both(&mut client, &[Swap(4 << 20)], &mut server, &[Swap(4 << 20)]);
            assert_eq!(flipper.at.load(Ordering::Relaxed), u64::MAX, "a bit was flipped");
            until("another subflow carries the transfer", || {
                flipper.connections.load(Ordering::Relaxed) == number as u64 + 2
                    && link_figure(&near, "resumes") > number as u64
            });
        }
        client.run(&[Fin]);
        server.run(&[ReadAll, Fin]);
        client.run(&[ReadAll]);
        // The node that received the wrong byte logs the reason.
        let victim = if flips_answers { &near } else { &far };
        let told = victim.log().iter().filter(|line| line.contains("auth_failed")).count();
        println!("{told} of {} logged as auth_failed by {}", flips.len(), if flips_answers { "near" } else { "far" });
        assert!(told >= 1, "{:?}", victim.log());
    }
}

#[test]
fn a_replayed_session_is_refused() {
    if !has_net() {
        return;
    }
    let scratch = Scratch::new();
    let net = Net::of(&[Kind::Veth]);
    let capture = net.path(0).capture(scratch.file("pcap"));
    let forward = Forward::start(&net, Options::default());
    let (mut client, mut server) = forward.peers();
    client.run(&[Put(MARKER)]);
    server.run(&[Take(MARKER), Put(b"answer")]);
    client.run(&[Take(b"answer")]);
    let captured = capture.stop();
    let far = SocketAddr::from((own_ip(1), PORT));
    let said: Vec<Stream> = captured.streams().into_iter().filter(|stream| stream.to == far).collect();
    assert_eq!(said.len(), 1);
    let said = &said[0].bytes;
    assert!(said.len() > 1800, "a whole session, not only the hello of 1,428 bytes: {} bytes", said.len());
    let (links, opened) = (link_figure(&forward.nodes.far, "streams"), forward.nodes.far.figure("/opened"));
    // The bytes are sent again at once, and then bit by bit, as a node would send them.
    for pause in [Duration::ZERO, Duration::from_millis(20)] {
        let mut again = net.near().inside(|| TcpStream::connect(far).unwrap());
        again.set_read_timeout(Some(kit::SOON)).unwrap();
        for piece in said.chunks(if pause.is_zero() { said.len() } else { 100 }) {
            if again.write_all(piece).is_err() {
                break;
            }
            thread::sleep(pause);
        }
        let mut answer = Vec::new();
        let _ = again.read_to_end(&mut answer);
        // A ServerHello has new keys each time, so the rest is unreadable without the secret of the ClientHello.
        println!("{} bytes of answer to {} replayed bytes", answer.len(), said.len());
        // The answer to a ClientHello with X25519MLKEM768 has 1,455 bytes, of which 1,088 are the ciphertext.
        assert!(answer.len() < 2000 && !answer.windows(6).any(|bytes| bytes == b"answer"));
    }
    listener_is_quiet(&forward.listener);
    let status = forward.nodes.far.status();
    assert_eq!(status["links"].as_array().unwrap().len(), 1);
    assert_eq!((link_figure(&forward.nodes.far, "streams"), forward.nodes.far.figure("/opened")), (links, opened));
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
}

#[track_caller]
fn listener_is_quiet(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "a connection reached the target");
}

#[test]
fn forbidden_targets_and_ports_are_refused_and_a_removed_key_ends_its_link() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let forbidden = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = [&listener, &forbidden].map(|listener| listener.local_addr().unwrap().port());
    let (near_home, far_home) = homes(&format!("permit-open=\"127.0.0.1:{}\",permit-listen=\"2222\"", ports[0]));
    let far = start(net.far(), &far_line(&far_home));
    let options = ["-D", "127.0.0.1:0", "-R", "2222:127.0.0.1:9", "-R", "3333:127.0.0.1:9"];
    let near = start(net.near(), &near_line(&near_home, &options));
    let (mut client, code) = socks(net.near(), &near, "127.0.0.1", ports[0]);
    assert_eq!(code, 0);
    let mut server = Peer::accept(&listener);
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    for target in ["127.0.0.1", "localhost"] {
        let (_, code) = socks(net.near(), &near, target, ports[1]);
        assert_eq!(code, 2, "not allowed by ruleset (RFC 1928, section 6): {target}");
    }
    listener_is_quiet(&forbidden);
    near.wait_for_log(&["the peer does not listen", "3333", "not_permitted"]);
    until("the permitted port listens", || {
        near.out().iter().any(|line| line.starts_with("listening remote ") && line.contains("2222"))
    });
    let listening = net.far().run("ss -Hltn");
    assert!(listening.contains(":2222 ") && !listening.contains(":3333 "), "{listening}");

    far_home.write("authorized_keys", "# nobody\n");
    far.signal(libc::SIGHUP);
    client.run(&[ReadReset]);
    server.run(&[ReadReset]);
    let mut near = near;
    let status = near.wait(kit::SOON);
    assert_eq!(status.code(), Some(77), "{:?}", near.log());
    assert!(near.log().iter().any(|line| line.contains("has rejected the key of this node")), "{:?}", near.log());
    until("no link is left", || far.status()["links"].as_array().is_some_and(Vec::is_empty));
    assert!(!net.far().run("ss -Hltn").contains(":2222 "), "its listener is closed");
}

#[test]
fn nodes_with_unknown_keys_end_at_once_and_say_why() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near_home, far_home) = homes("permit-open=\"*\"");
    let far = start(net.far(), &far_line(&far_home));
    // A client with a key that is not authorized.
    let other_home = Home::new();
    let key = other_home.key();
    other_home.write("known_nodes", &format!("{}:{PORT} {}\n", own_ip(1), far_home.key()));
    let line = near_line(&other_home, &["-D", "127.0.0.1:0"]);
    let mut near = spawn(net.near(), &line);
    assert_eq!(near.wait(kit::SOON).code(), Some(77), "{:?}", near.log());
    assert_eq!(near.out(), Vec::<String>::new(), "no port is announced");
    assert!(near.log().iter().any(|line| line.contains(&key)), "the log has the line to add: {:?}", near.log());
    far.wait_for_log(&["unauthenticated peer refused", "auth_failed"]);
    // A server with another key than the known one.
    let other = Home::new();
    near_home.write("known_nodes", &format!("{}:{PORT} {}\n", own_ip(1), other.key()));
    let mut near = spawn(net.near(), &near_line(&near_home, &["-D", "127.0.0.1:0"]));
    assert_eq!(near.wait(kit::SOON).code(), Some(77), "{:?}", near.log());
    assert!(near.log().iter().any(|line| line.contains("HAS CHANGED")), "{:?}", near.log());
    assert!(far.status()["links"].as_array().is_some_and(Vec::is_empty));
}

#[test]
fn invalid_bytes_get_no_informative_answer() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, Options { far: &["-v"], ..Options::default() });
    let far = SocketAddr::from((own_ip(1), PORT));
    let mut noise = vec![0_u8; 100_000];
    let mut state = 0x9e37_79b9_u32;
    noise.iter_mut().for_each(|byte| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    });
    // A TLS record that never ends and a ClientHello that is too long are invalid too.
    let endless = [&[22, 3, 1, 0xff, 0xff][..], &noise].concat();
    let long_hello = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &noise].concat();
    for (what, bytes) in [
        ("noise", &noise[..]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("an endless record", &endless),
        ("a long hello", &long_hello),
    ] {
        let mut peer = net.near().inside(|| TcpStream::connect(far).unwrap());
        peer.set_read_timeout(Some(kit::SOON)).unwrap();
        let since = Instant::now();
        let _ = peer.write_all(bytes);
        let mut answer = Vec::new();
        let _ = peer.read_to_end(&mut answer);
        println!("{what}: {} bytes of answer, closed after {:?}", answer.len(), since.elapsed());
        // At most a TLS alert: a record of seven bytes.
        assert!(answer.len() <= 7, "{what}: {}", answer.escape_ascii());
        // A peer has five seconds for its handshake.
        assert!(since.elapsed() < 3 * kit::LATE, "{what}");
    }
    let (mut client, mut server) = forward.peers();
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
}

#[test]
fn a_thousand_silent_peers_cost_little_and_keep_no_one_out_for_long() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let secret = Secret::new();
    let far = start(net.far(), &secret.far(&["-v"]));
    let addr = SocketAddr::from((own_ip(1), PORT));
    let idle = || (proc::rss(far.pid()), proc::descriptors(far.pid()));
    // Once as a warm-up, with an unauthenticated peer.
    drop(net.near().inside(|| TcpStream::connect(addr).unwrap()));
    until("the node has closed them", || far.figure("/usage/sides") == 0);
    let before = idle();
    let since = Instant::now();
    let peers: Vec<TcpStream> = net.near().inside(|| (0..1000).map(|_| TcpStream::connect(addr).unwrap()).collect());
    until("the node has as many unauthenticated peers as it takes", || far.figure("/usage/sides") >= 100);
    let mut worst = idle();
    for _ in 0..20 {
        let now = idle();
        worst = (worst.0.max(now.0), worst.1.max(now.1));
        thread::sleep(Duration::from_millis(10));
    }
    let (bytes, descriptors) = (worst.0.saturating_sub(before.0), worst.1 - before.1);
    println!(
        "1,000 silent peers: {descriptors} descriptors and {} KiB more, {} KiB for each that may wait",
        bytes >> 10,
        (bytes >> 10) / descriptors as u64
    );
    // One address has 128 places. The sockets that a batch of accepts displaces close at the end of its turn.
    let most = 128 + ACCEPTS_PER_TURN + 2;
    assert!(descriptors <= most, "{descriptors} descriptors: too many unauthenticated peers at a time");
    assert!(bytes < 16 << 20, "{bytes} bytes");
    // A client with a key comes while they wait, and gets in when their time is over.
    let near = start(net.near(), &secret.near(&["-D", "127.0.0.1:0"]));
    until("the client with a key gets in", || near.out().iter().any(|line| line.starts_with("link up ")));
    println!("the client with a key got in {:?} after the silent peers came", since.elapsed());
    let mut peers = peers;
    for peer in &mut peers {
        peer.set_read_timeout(Some(kit::SOON)).unwrap();
        let mut answer = Vec::new();
        let _ = peer.read_to_end(&mut answer);
        assert!(answer.is_empty(), "a silent peer gets no bytes: {}", answer.escape_ascii());
    }
    println!("the last of them was closed after {:?}", since.elapsed());
    drop(near);
    until("no unauthenticated peer is left", || far.figure("/usage/sides") == 0 && idle().1 <= before.1 + 1);
}
