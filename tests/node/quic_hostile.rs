//! Strangers and hostile peers at the port of a server of links over QUIC: garbage, replays, floods and frames out of place.

use crate::node_kit;
use crate::quic_kit;

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use node_kit::datagram_relay::DatagramRelay;
use node_kit::*;
use quic_kit::{RawQuic, add_subflow, count_received, initial};
use quinn_proto::{ConnectionError, Dir, Side, StreamId, VarInt};
use seaprox::Id;
use seaprox::link::{Host, Open, Time};
use seaprox::node::{CarrierKind, LinkEvent, Path, Timing};

const SEED: [u8; 32] = [66; 32];

fn serve(timing: Timing) -> (Node, SocketAddr) {
    let node = Node::start();
    let addr = node.serve_over(CarrierKind::Quic, "127.0.0.1:0".parse().unwrap(), timing);
    (node, addr)
}

/// Returns timers with few places for unauthenticated peers and a handshake timeout longer than a test.
fn few() -> Timing {
    Timing { unauthenticated: 16, handshake: Duration::from_secs(120), ..timing() }
}

fn dial(node: &Node, addr: SocketAddr) -> Id {
    node.link_with(addr, |config| config.carrier = CarrierKind::Quic)
}

/// Dials from an address of its own, and waits until the link is up.
#[track_caller]
fn newcomer(addr: SocketAddr, source: Ipv4Addr) -> Node {
    let node = Node::start();
    node.link_with(addr, move |config| {
        config.carrier = CarrierKind::Quic;
        config.paths = vec![Path { source: Some(source.into()), ..Path::default() }];
    });
    node.until_up();
    node
}

fn stranger() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// Sends datagrams without end while `work` runs.
fn beside<T>(mut send: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    /// Ends the thread even if the work panics.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                send();
                // More than a socket holds would keep the others out, whatever the node does.
                thread::sleep(Duration::from_micros(200));
            }
        });
        let _end = End(&is_over);
        work()
    })
}

#[test]
fn repeated_datagrams_of_a_stranger_do_not_raise_what_it_gets_above_three_times_its_bytes() {
    let (_far, addr) = serve(timing());
    let (flight, socket) = (RawQuic::new(addr, SEED, Ipv4Addr::LOCALHOST).datagrams(), stranger());
    let mut sent = 0;
    for _ in 0..3 {
        // The same datagrams again do not make the server say more than their number permits.
        for datagram in &flight {
            socket.send_to(datagram, addr).unwrap();
            sent += datagram.len();
        }
        // The server sends its answer again when no acknowledgement comes.
        let (_, first) = count_received(&socket, Duration::from_millis(500));
        assert!(first > 0 || sent > flight.len() * 1200, "an answer");
        assert!(first <= 3 * sent, "{first} bytes for {sent}");
    }
}

#[test]
fn an_answer_to_garbage_is_shorter_than_the_garbage() {
    let (_far, addr) = serve(timing());
    // The length, the first byte, the version and the most datagrams that come back.
    let cases = [
        (1200, 0xc0, [0xfa, 0xce, 0xb0, 0x0c], 1), // a version of its own: negotiation
        (1199, 0xc0, [0xfa, 0xce, 0xb0, 0x0c], 0),
        (1200, 0x40, [1, 2, 3, 4], 1), // a connection that does not exist: a stateless reset
        (20, 0x40, [1, 2, 3, 4], 0),
        (1200, 0xc0, [0, 0, 0, 1], 1), // an Initial packet that nobody has sealed
        (1200, 0xe0, [0, 0, 0, 1], 0), // a Handshake packet of no connection
        (1200, 0xc0, [0, 0, 0, 0], 0), // a negotiation of versions
        (1200, 0xf0, [0, 0, 0, 1], 0), // a Retry packet
    ];
    for (len, first, version, most) in cases {
        let socket = stranger();
        let mut garbage = vec![0x5a; len];
        garbage[0] = first;
        garbage[1..5].copy_from_slice(&version);
        garbage[5] = 8;
        garbage[14] = 8;
        socket.send_to(&garbage, addr).unwrap();
        let (count, got) = count_received(&socket, Duration::from_millis(100));
        assert!(count <= most && got < len, "{got} bytes in {count} datagrams for {len} ({first:#x}, {version:?})");
    }
    let socket = stranger();
    for number in 0..200u8 {
        let mut lost = [number; 60];
        lost[0] = 0x40;
        socket.send_to(&lost, addr).unwrap();
    }
    let since = Instant::now();
    let (count, _) = count_received(&socket, Duration::from_millis(100));
    let most = since.elapsed().as_millis() / 20 + 2;
    assert!((1..most).contains(&(count as u128)), "a stateless reset in 20 ms at most: {count}");
}

#[test]
fn replayed_datagrams_neither_move_a_connection_nor_begin_one() {
    let (far, addr) = serve(timing());
    let (relay, near) = (DatagramRelay::new(addr), Node::start());
    relay.record();
    let link = dial(&near, relay.addr);
    near.until_up();
    both_ways(&near, link, 50_000);
    let (recorded, elsewhere) = (relay.recorded(), stranger());
    let before = far.links()[0].subflows[0].clone();
    for datagram in &recorded {
        relay.repeat(datagram);
        elsewhere.send_to(datagram, addr).unwrap();
    }
    both_ways(&near, link, 50_000);
    let after = far.links()[0].subflows[0].clone();
    assert_eq!((after.number, after.remote), (before.number, before.remote));
    assert_eq!((far.links().len(), near.links()[0].stats.resumes), (1, 0));
}

#[test]
fn a_flood_of_first_packets_neither_stops_an_admitted_peer_nor_keeps_a_new_one_out() {
    let (_far, addr) = serve(few());
    let near = Node::start();
    let link = dial(&near, addr);
    near.until_up();
    let sockets: Vec<UdpSocket> =
        (1..=50).map(|last| UdpSocket::bind((Ipv4Addr::new(127, 8, 0, last), 0)).unwrap()).collect();
    let sent = AtomicU64::new(0);
    let flood = || {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        // The frames are a CRYPTO frame with the beginning of a message that never ends.
        let datagram = initial(number.to_be_bytes(), &[6, 0, 4, 1, 0, 2, 0]);
        let _ = sockets[number as usize % sockets.len()].send_to(&datagram, addr);
    };
    beside(flood, || {
        until("the flood is there", || sent.load(Ordering::Relaxed) > 300);
        both_ways(&near, link, 100_000);
        newcomer(addr, Ipv4Addr::new(127, 9, 0, 1));
    });
    assert_eq!(near.links()[0].stats.resumes, 0);
    assert!(!near.has(|event| matches!(event, LinkEvent::Suspended)));
}

#[test]
fn answered_strangers_that_send_without_end_do_not_keep_a_peer_out() {
    let (far, addr) = serve(few());
    let mut junk = Vec::new();
    for last in 1..=6 {
        let mut raw = RawQuic::new(addr, SEED, Ipv4Addr::new(127, 8, 1, last));
        raw.datagrams().iter().for_each(|datagram| _ = raw.socket.send_to(datagram, addr).unwrap());
        // The answer names the id of the connection, and the client makes its next flight, which it does not send.
        let mut next = Vec::new();
        raw.is_mute = true;
        raw.until("the server has answered", |raw| {
            next = raw.datagrams();
            !next.is_empty()
        });
        let mut datagram = next.swap_remove(0);
        *datagram.last_mut().unwrap() ^= 1;
        junk.push((raw, datagram));
    }
    let flood = || {
        junk.iter().for_each(|(raw, datagram)| _ = raw.socket.send_to(datagram, addr));
    };
    let near = beside(flood, || newcomer(addr, Ipv4Addr::new(127, 9, 1, 1)));
    assert_eq!((far.links().len(), near.links()[0].stats.resumes), (1, 0));
}

#[test]
fn garbage_at_the_port_of_a_client_does_not_stop_it() {
    let (far, addr) = serve(timing());
    let near = Node::start();
    let link = dial(&near, addr);
    near.until_up();
    let port: SocketAddr = far.links()[0].subflows[0].remote.parse().unwrap();
    let socket = stranger();
    let mut number = 0u8;
    let flood = || {
        number = number.wrapping_add(1);
        let _ = socket.send_to(&[0x40 | number & 0x3f; 300], port);
    };
    beside(flood, || both_ways(&near, link, 200_000));
    assert_eq!(near.links()[0].stats.resumes, 0);
}

#[test]
fn a_client_may_open_the_lanes_and_no_other_stream() {
    let (_far, addr) = serve(timing());
    let mut raw = RawQuic::new(addr, SEED, Ipv4Addr::LOCALHOST);
    raw.until("the handshake is done", |raw| raw.is_connected);
    assert_eq!(raw.open_lanes().len(), usize::from(seaprox::link::LANES_MAX));
    assert_eq!(raw.connection.streams().open(Dir::Bi), None);
}

#[test]
fn bytes_before_the_hello_that_are_none_end_the_connection() {
    let (far, addr) = serve(timing());
    for lane in [0, 3] {
        let mut raw = RawQuic::new(addr, SEED, Ipv4Addr::LOCALHOST);
        raw.until("the handshake is done", |raw| raw.is_connected);
        let lanes = raw.open_lanes();
        raw.write(lanes[lane], &[0xee; 500]);
        raw.until("the server has ended it", |raw| raw.lost.is_some());
        assert!(
            matches!(raw.lost, Some(ConnectionError::ApplicationClosed(_) | ConnectionError::Reset)),
            "{:?}",
            raw.lost
        );
    }
    assert!(far.links().is_empty());
}

#[test]
fn a_hello_of_another_connection_of_quic_is_refused() {
    let (far, addr) = serve(timing());
    let connect = || {
        let mut raw = RawQuic::new(addr, SEED, Ipv4Addr::LOCALHOST);
        raw.until("the handshake is done", |raw| raw.is_connected);
        let lanes = raw.open_lanes();
        (raw, lanes)
    };
    let (mut first, lanes) = connect();
    let (count, since) = (lanes.len() as u16, Instant::now());
    let now = || Time::from_us(since.elapsed().as_micros() as u64);
    let mut session = first.begin_session(lanes[0], count);
    // The frames of the session leave on the later subflows.
    let subflow = session.subflow_ids().next().unwrap();
    session.set_room(subflow, 0);
    let secret = first.exported("EXPORTER-seaprox-session", &session.id().0);
    for is_its_own in [false, true] {
        let (mut later, lanes) = connect();
        let channel = if is_its_own { &later } else { &first }.exported("EXPORTER-seaprox-join", &[]);
        let subflow = add_subflow(&mut session, count, &secret, &channel);
        let mut is_live = false;
        later.until("the server has answered", |later| {
            later.exchange(&mut session, now(), subflow, &lanes);
            is_live = session.is_live(subflow);
            is_live || later.lost.is_some()
        });
        assert_eq!(is_live, is_its_own, "{:?}", later.lost);
        assert_eq!((far.links().len(), far.links()[0].subflows.len()), (1, 1 + usize::from(is_its_own)));
        session.subflow_down(now(), subflow);
    }
}

#[test]
fn a_gap_in_one_lane_delays_no_other() {
    let (_far, addr) = serve(timing());
    let mut raw = RawQuic::without_repair(addr, SEED, Ipv4Addr::LOCALHOST);
    raw.until("the handshake is done", |raw| raw.is_connected);
    let lanes = raw.open_lanes();
    let since = Instant::now();
    let now = || Time::from_us(since.elapsed().as_micros() as u64);
    let mut session = raw.begin_session(lanes[0], lanes.len() as u16);
    let subflow = session.subflow_ids().next().unwrap();
    let (listener, target) = target();
    listener.set_nonblocking(true).unwrap();
    let mut open = |raw: &mut RawQuic| {
        let host = Host::Addr(target.ip());
        let id = session.open(now(), Open { host, port: target.port(), ..Open::default() }).unwrap();
        let mut accepted = None;
        raw.until("the stream is open", |raw| {
            raw.exchange(&mut session, now(), subflow, &lanes);
            accepted = listener.accept().ok();
            accepted.is_some()
        });
        let socket = accepted.unwrap().0;
        socket.set_nonblocking(true).unwrap();
        (id, socket)
    };
    let mut streams: Vec<_> = (0..4).map(|_| open(&mut raw)).collect();
    // The first datagram of one lane is late, and nothing sends it again meanwhile.
    let (id, mut socket) = streams.remove(0);
    raw.is_timeless = true;
    session.write(id, &mut b"late".as_slice().into()).unwrap();
    raw.exchange(&mut session, now(), subflow, &lanes);
    let late = raw.datagrams();
    session.write(id, &mut b"r".as_slice().into()).unwrap();
    for (id, _) in &streams {
        session.write(*id, &mut b"in time".as_slice().into()).unwrap();
    }
    let has_read = |socket: &mut TcpStream, got: &mut Vec<u8>, wanted: &[u8]| {
        let mut room = [0; 64];
        while let Ok(len @ 1..) = socket.read(&mut room) {
            got.extend_from_slice(&room[..len]);
        }
        assert!(wanted.starts_with(got), "{got:?}");
        got == wanted
    };
    for (_, socket) in &mut streams {
        let mut got = Vec::new();
        raw.until("the other streams go on", |raw| {
            raw.exchange(&mut session, now(), subflow, &lanes);
            has_read(socket, &mut got, b"in time")
        });
    }
    assert_eq!(socket.read(&mut [0; 5]).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    let mut got = Vec::new();
    raw.until("the gap is closed", |raw| {
        // The system may drop it.
        late.iter().for_each(|datagram| _ = raw.socket.send_to(datagram, addr));
        raw.exchange(&mut session, now(), subflow, &lanes);
        has_read(&mut socket, &mut got, b"later")
    });
}

#[test]
fn a_subflow_ends_that_gets_garbage_on_any_lane() {
    let (far, addr) = serve(timing());
    for lane in [0, 1, 16] {
        let mut raw = RawQuic::new(addr, SEED, Ipv4Addr::LOCALHOST);
        raw.until("the handshake is done", |raw| raw.is_connected);
        let lanes = raw.open_lanes();
        let _session = raw.begin_session(lanes[0], lanes.len() as u16);
        assert!(!far.links().is_empty());
        raw.write(lanes[lane], &[0xee; 500]);
        raw.until("the server has ended the subflow", |raw| raw.lost.is_some());
    }
}

#[test]
fn a_subflow_ends_whose_peer_refuses_a_lane() {
    // Nothing else ends the subflow before the test does.
    let (keepalive, dead) = (Duration::from_millis(100), Duration::from_secs(120));
    let (far, addr) = serve(Timing { keepalive, dead, ..timing() });
    let mut raw = RawQuic::new(addr, SEED, Ipv4Addr::LOCALHOST);
    raw.until("the handshake is done", |raw| raw.is_connected);
    let lanes = raw.open_lanes();
    let _session = raw.begin_session(lanes[0], lanes.len() as u16);
    // The lane on which the node asks if the peer is there.
    let first = StreamId::new(Side::Server, Dir::Uni, 0);
    raw.connection.recv_stream(first).stop(VarInt::from_u32(0)).unwrap();
    raw.until("the server has ended the subflow", |raw| raw.lost.is_some());
    assert!(matches!(raw.lost, Some(ConnectionError::ApplicationClosed(_))), "{:?}", raw.lost);
    until("the subflow is gone", || far.links()[0].subflows.is_empty());
}

#[test]
fn a_peer_that_acknowledges_nothing_loses_its_subflow_in_time() {
    let dead = Duration::from_millis(600);
    let (far, addr) = serve(Timing { dead, keepalive: dead / 4, ..timing() });
    let mut raw = RawQuic::new(addr, SEED, Ipv4Addr::LOCALHOST);
    raw.until("the handshake is done", |raw| raw.is_connected);
    let lanes = raw.open_lanes();
    let _session = raw.begin_session(lanes[0], lanes.len() as u16);
    assert_eq!(far.links()[0].subflows.len(), 1);
    raw.is_mute = true;
    raw.until("the subflow is lost", |_| far.links()[0].subflows.is_empty());
    assert!(far.has(|event| matches!(event, LinkEvent::Suspended)));
}
