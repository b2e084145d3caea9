//! The limits of one peer in shared resources: requests in a turn, failed streams, connections, and log lines. The peer
//! is hostile and keeps no rule (`hostile_kit`); the node is the real one.

use crate::hostile_kit;
use crate::kit;
use crate::node_kit;
use crate::served;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hostile_kit::{RawLink, encode};
use node_kit::{Node, until};
use seaprox::link::frame::Frame;
use seaprox::link::{Bound, Code, Config, Event, Host, Kind, Open};
use seaprox::node::LinkEvent;
use seaprox::{Core, Reason, Remote};
use served::{HONEST, HOSTILE, Served};

/// The most OPENs, LISTENs and RESETs of one key that a node handles in one turn.
const REQUESTS_PER_TURN: u64 = 64;

/// Records a counter of a loop in each of its turns.
struct Turns {
    counts: Arc<Mutex<Vec<(u64, u64)>>>,
    over: Arc<AtomicBool>,
}

impl Turns {
    fn watch(node: &Node, count: fn(&Core) -> u64) -> Turns {
        let turns = Turns { counts: Arc::default(), over: Arc::default() };
        note(node.remote.clone(), Arc::clone(&turns.counts), Arc::clone(&turns.over), count);
        turns
    }

    /// Waits until the counter has risen by `total`. Returns the largest rise in one turn.
    #[track_caller]
    fn most_of(self, total: u64) -> u64 {
        let first = || self.counts.lock().unwrap().first().map_or(0, |(_, count)| *count);
        let last = || self.counts.lock().unwrap().last().map_or(0, |(_, count)| *count);
        until("the counter has risen by the total", || last() - first() >= total);
        self.over.store(true, Ordering::Relaxed);
        let counts = self.counts.lock().unwrap();
        let each = counts.windows(2).map(|pair| {
            let [(turn, count), (next_turn, next_count)] = pair else { unreachable!("a pair") };
            (next_count - count).div_ceil((next_turn - turn).max(1))
        });
        each.max().unwrap_or(0)
    }
}

/// Posts a call to the loop that posts itself again, so that it runs once in each turn.
fn note(remote: Remote, counts: Arc<Mutex<Vec<(u64, u64)>>>, over: Arc<AtomicBool>, count: fn(&Core) -> u64) {
    let again = remote.clone();
    // The call fails if the loop has ended.
    let _ = remote.call(move |core| {
        counts.lock().unwrap().push((core.stats().turns, count(core)));
        if !over.load(Ordering::Relaxed) {
            note(again, counts, over, count);
        }
    });
}

fn to(addr: SocketAddr) -> Open {
    Open { host: Host::Addr(addr.ip()), port: addr.port(), ..Open::default() }
}

fn to_nowhere() -> Open {
    Open { host: Host::Addr([127, 0, 0, 1].into()), port: 9, ..Open::default() }
}

#[test]
fn a_flood_of_opens_is_handled_in_parts_of_64_in_a_turn() {
    let node = Node::start();
    node.policy.opens.store(false, Ordering::Relaxed);
    let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
    let turns = Turns::watch(&node, |core| core.stats().streams_refused);
    let frames: Vec<u8> =
        (1..=1000).flat_map(|number| encode(&Frame::Open { id: 2 * number, open: to_nowhere() })).collect();
    link.send_raw(&frames).unwrap();
    let most = turns.most_of(1000);
    assert!(most <= REQUESTS_PER_TURN, "{most} in one turn");
}

#[test]
fn a_flood_of_listens_is_handled_in_parts_of_64_in_a_turn() {
    let node = Node::start();
    let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
    let turns = Turns::watch(&node, |core| core.stats().peer_requests);
    let both = |id| [encode(&Frame::Listen { id, open: Open::default() }), encode(&Frame::Unlisten { id })].concat();
    link.send_raw(&(1..=2000).flat_map(both).collect::<Vec<u8>>()).unwrap();
    let most = turns.most_of(2000);
    assert!(most <= REQUESTS_PER_TURN, "{most} in one turn");
}

#[test]
fn a_thousand_streams_that_end_at_once_are_ended_over_several_turns() {
    const STREAMS: u32 = 1000;
    let node = Node::start();
    let (server, addr) = node_kit::target();
    let _held = std::thread::spawn(move || server.incoming().flatten().collect::<Vec<_>>());
    for how in ["each is reset", "the session is closed"] {
        let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
        let now = link.now();
        (0..STREAMS).for_each(|_| _ = link.session.open(now, to(addr)).unwrap());
        let mut open = 0;
        while open < STREAMS {
            link.wait_for(|event| matches!(event, Event::OpenResult { .. })).unwrap();
            open += 1;
        }
        let turns = Turns::watch(&node, |core| core.stats().closed_total());
        let frames = match how {
            "each is reset" => (1..=STREAMS)
                .flat_map(|number| encode(&Frame::Reset { id: 2 * number, code: Code::SourceReset, size: 0 }))
                .collect(),
            _ => encode(&Frame::Close { code: Code::Killed, text: "" }),
        };
        link.send_raw(&frames).unwrap();
        let most = turns.most_of(u64::from(STREAMS));
        assert!(most <= 2 * REQUESTS_PER_TURN, "{how}: {most} in one turn");
    }
}

#[test]
fn failed_streams_of_a_key_are_limited_in_rate_without_affecting_another_key() {
    let node = Node::start();
    node.policy.opens.store(false, Ordering::Relaxed);
    let addr = node.serve();
    let mut link = RawLink::connect(addr, [1; 32]).unwrap();
    let since = Instant::now();
    until("thousands are refused", || {
        let now = link.now();
        while link.session.open(now, to_nowhere()).is_ok() {}
        link.turn().unwrap();
        while link.session.poll_event().is_some() {}
        node.ask(|core| core.stats().streams_refused) >= 8000
    });
    // The node checks two thousand streams at once and 500 a second after that. It refuses the others without a check.
    let most = 2000 + 500 * (since.elapsed().as_millis() as u64 + 1000) / 1000;
    let asked = node.policy.asked.load(Ordering::Relaxed);
    assert!((2000..=most).contains(&asked), "{asked} of 8,000 were looked at, in {:?}", since.elapsed());
    let (_, result) = RawLink::connect(addr, [3; 32]).unwrap().open(to_nowhere()).unwrap();
    assert_eq!(result.failure, Some(Code::NotPermitted), "another key is checked as usual");
}

/// A refused stream leaves a record until the peer acknowledges the refusal, which a hostile peer never does.
#[test]
fn unacknowledged_refusals_count_as_memory_of_the_key() {
    // Half of the budget is for one key, and each record counts for 1 KiB.
    const TOTAL: usize = 8 << 20;
    const STREAMS: u32 = 6000;
    let node = Node::with(|config| config.limits.link_bytes = TOTAL);
    node.policy.opens.store(false, Ordering::Relaxed);
    let addr = node.serve();
    // A peer that acknowledges can be refused more often than that without losing its link.
    let mut honest = RawLink::connect(addr, [3; 32]).unwrap();
    let mut answers = 0;
    while answers < STREAMS {
        let now = honest.now();
        while honest.session.open(now, to_nowhere()).is_ok() {}
        honest.turn().unwrap();
        while let Some(event) = honest.session.poll_event() {
            answers += u32::from(matches!(event, Event::OpenResult { .. }));
        }
    }
    let config = Config { capabilities: 0, ..Config::default() };
    let mut hostile = RawLink::connect_from(TcpStream::connect(addr).unwrap(), [1; 32], config).unwrap();
    let frames: Vec<u8> =
        (1..=STREAMS).flat_map(|number| encode(&Frame::Open { id: 2 * number, open: to_nowhere() })).collect();
    // The node may close the connection before all frames have been sent.
    let _ = hostile.send_raw(&frames);
    let is_ended = |happened: &LinkEvent| matches!(happened, LinkEvent::Ended { reason: Reason::LimitReached, .. });
    until("the link of the hostile key is ended", || {
        // Some of the memory belongs to answers to the other key.
        let (received, _) = node.ask(|core| core.link_memory());
        assert!(received <= TOTAL as u64, "{received} bytes");
        node.has(is_ended)
    });
    until("the other key opens streams again", || {
        honest.turn().unwrap();
        let now = honest.now();
        honest.session.open(now, to_nowhere()).is_ok()
    });
    honest.wait_for(|event| matches!(event, Event::OpenResult { .. })).unwrap();
}

/// Returns an OPEN for an internal stream, which the node itself answers.
fn question(name: &str, port: u16) -> Open {
    Open { kind: Kind::Internal, host: Host::Name(name.into()), port, ..Open::default() }
}

#[test]
fn an_internal_stream_ends_with_its_answer() {
    let node = Node::start();
    let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
    // The first subflow of a session is number 0 or 1. The peer's direction of each stream stays open.
    let answers = [0, 1].map(|subflow| link.open(question("where-am-i", subflow)).unwrap());
    let is_known = |result: &Bound| result.failure.is_none();
    let (_, result) = answers.into_iter().find(|(_, result)| is_known(result)).expect("an answer of the right subflow");
    assert_eq!((result.host, result.port), (Host::Addr(link.local().ip()), link.local().port()));
    until("the node has no record of them", || {
        link.turn().unwrap();
        node.links()[0].streams == 0
    });
}

#[test]
fn unknown_internal_streams_fail_and_count_against_the_rate_of_failed_streams() {
    let node = Node::start();
    let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
    let is_limited =
        |event: &Event| matches!(event, Event::OpenResult { result, .. } if result.failure == Some(Code::LimitReached));
    until("a stream is refused because of the streams before it", || {
        let now = link.now();
        while link.session.open(now, question("why", 1)).is_ok() {}
        link.turn().unwrap();
        let mut limited = 0;
        while let Some(event) = link.session.poll_event() {
            limited += usize::from(is_limited(&event));
        }
        let _ = link.session.open(now, to_nowhere());
        limited > 0
    });
    let asked = node.policy.asked.load(Ordering::Relaxed);
    let (_, result) = RawLink::connect(node.serve(), [3; 32]).unwrap().open(to_nowhere()).unwrap();
    assert_eq!(
        result.failure,
        Some(Code::ConnectionRefused),
        "another key has its own rate; {asked} were checked before"
    );
}

#[test]
fn one_key_gets_at_most_half_of_the_connections() {
    let node = Node::with(|config| config.limits.connections = 100);
    let (server, target) = node_kit::target();
    let _held = std::thread::spawn(move || server.incoming().flatten().collect::<Vec<_>>());
    let addr = node.serve();
    // Two links of one key, to show that the key is counted and not the link.
    let mut links = [0, 1].map(|_| RawLink::connect(addr, [1; 32]).unwrap());
    let mut answers = Vec::new();
    for number in 0..80 {
        answers.push(links[number % 2].open(to(target)).unwrap().1.failure);
    }
    assert_eq!(answers.iter().filter(|failure| failure.is_none()).count(), 50);
    assert!(answers[50..].iter().all(|failure| *failure == Some(Code::LimitReached)), "{answers:?}");
    let mut other = RawLink::connect(addr, [3; 32]).unwrap();
    let (_, result) = other.open(to(target)).unwrap();
    assert_eq!(result.failure, None, "another key gets a connection");
    // A connection that has ended frees its place.
    let close = encode(&Frame::Close { code: Code::Drained, text: "" });
    links.iter_mut().for_each(|link| link.send_raw(&close).unwrap());
    until("the connections of the first key have ended", || node.ask(|core| core.snapshot().connections.len()) == 1);
    let (_, result) = RawLink::connect(addr, [1; 32]).unwrap().open(to(target)).unwrap();
    assert_eq!(result.failure, None, "the first key gets connections again");
}

#[test]
fn clients_of_a_remote_listener_count_as_connections_of_its_key() {
    let node = Node::with(|config| config.limits.connections = 100);
    let (server, target) = node_kit::target();
    let _held = std::thread::spawn(move || server.incoming().flatten().collect::<Vec<_>>());
    let addr = node.serve();
    let mut link = RawLink::connect(addr, [1; 32]).unwrap();
    let number = link.session.listen(Open { host: Host::Addr([127, 0, 0, 1].into()), ..Open::default() }).unwrap();
    let event = link.wait_for(|event| matches!(event, Event::ListenResult { .. })).unwrap();
    let Event::ListenResult { id, result } = event else { unreachable!("it is the answer") };
    assert_eq!((id, result.failure), (number, None));
    let _clients: Vec<TcpStream> = (0..150).map(|_| TcpStream::connect(("127.0.0.1", result.port)).unwrap()).collect();
    until("all connections were accepted", || node.ask(|core| core.stats().opened) >= 150);
    let (_, result) = RawLink::connect(addr, [3; 32]).unwrap().open(to(target)).unwrap();
    assert_eq!(result.failure, None, "another key gets a connection");
}

#[test]
fn log_lines_about_failed_connections_of_a_key_are_limited_and_the_rest_counted() {
    let node = Served::start(r#"permit-open="*""#, &[]);
    let port = kit::closed_port();
    let mut link = RawLink::connect(node.addr, HOSTILE).unwrap();
    for _ in 0..6 {
        let now = link.now();
        (0..500).for_each(|_| _ = link.session.open(now, to(([127, 0, 0, 1], port).into())).unwrap());
        for _ in 0..500 {
            link.wait_for(|event| matches!(event, Event::OpenResult { .. })).unwrap();
        }
    }
    assert!(node.seaprox.count_log(&[" closed ", "reason=connection_refused"]) <= 300, "not 3,000 lines");
    let other = kit::closed_port();
    let (_, result) = RawLink::connect(node.addr, HONEST).unwrap().open(to(([127, 0, 0, 1], other).into())).unwrap();
    assert_eq!(result.failure, Some(Code::ConnectionRefused));
    node.seaprox.wait_for_log(&[" closed ", &format!("asked=127.0.0.1:{other} ")]);
    // The line comes when the period of ten seconds is over.
    node.seaprox.wait_for_log(&["log lines suppressed", "suppressed="]);
}

/// With two subflows the RESET of a refused stream can overtake the OPEN_RESULT that refuses it.
#[test]
fn a_refusal_keeps_its_reason_when_the_reset_arrives_first() {
    let node = Node::start();
    let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
    link.session.listen(Open { host: Host::Addr([127, 0, 0, 1].into()), ..Open::default() }).unwrap();
    let event = link.wait_for(|event| matches!(event, Event::ListenResult { .. })).unwrap();
    let Event::ListenResult { result, .. } = event else { unreachable!("it is the answer") };
    let client = node_kit::connect(SocketAddr::from(([127, 0, 0, 1], result.port)));
    let opened = link.wait_for(|event| matches!(event, Event::Opened { .. })).unwrap();
    let Event::Opened { id, .. } = opened else { unreachable!("it is the one") };
    link.send_raw(&encode(&Frame::Reset { id: id.0, code: Code::ConnectionRefused, size: 0 })).unwrap();
    let closed = || node.ask(|core| core.totals().closed().collect::<Vec<_>>());
    until("the client is closed", || !closed().is_empty());
    assert_eq!(closed(), [(seaprox::Reason::ConnectionRefused, 1)]);
    drop(client);
}

#[test]
fn connections_that_time_out_at_once_are_ended_over_several_turns() {
    const STREAMS: u64 = 1000;
    // On a busy machine opening all of them takes seconds, and they must time out together.
    let node = Node::with(|config| config.timeouts.idle = Duration::from_secs(6));
    let (server, addr) = node_kit::target();
    let _held = std::thread::spawn(move || server.incoming().flatten().collect::<Vec<_>>());
    let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
    let now = link.now();
    (0..STREAMS).for_each(|_| _ = link.session.open(now, to(addr)).unwrap());
    for _ in 0..STREAMS {
        link.wait_for(|event| matches!(event, Event::OpenResult { .. })).unwrap();
    }
    let turns = Turns::watch(&node, |core| core.stats().closed_total());
    let most = turns.most_of(STREAMS);
    assert!(most <= 256, "{most} in one turn");
}

#[test]
fn streams_that_wait_for_one_name_are_connected_over_several_turns() {
    const STREAMS: u64 = 900;
    if !kit::has_namespaces() {
        return;
    }
    kit::names::isolated("", |server| {
        server.set("late.test", &["127.0.0.1"], Duration::from_millis(500));
        let node = Node::start();
        let mut link = RawLink::connect(node.serve(), [1; 32]).unwrap();
        let now = link.now();
        let port = kit::closed_port();
        (0..STREAMS).for_each(|_| _ = link.session.open(now, Open::name("late.test", port)).unwrap());
        link.send().unwrap();
        until("all streams wait for the name", || node.ask(|core| core.stats().opened) >= STREAMS);
        let turns = Turns::watch(&node, |core| core.stats().connect_failures.iter().sum());
        let most = turns.most_of(STREAMS);
        assert!(most <= 2 * REQUESTS_PER_TURN, "{most} in one turn");
    });
}

#[test]
fn a_peer_that_reconnects_all_the_time_does_not_fill_the_log() {
    let node = Served::start("", &[]);
    let since = Instant::now();
    // At most a hundred lines in ten seconds, of which half are about an end.
    let most = || 50 * (since.elapsed().as_secs() as usize / 10 + 2);
    let mut sessions = 0;
    // Without a limit there would be a line for each session, also on a slow machine.
    while sessions < most() + 60 {
        assert!(since.elapsed() < Duration::from_secs(60), "{sessions} sessions in a minute are too few to tell");
        let mut link = RawLink::connect(node.addr, HOSTILE).unwrap();
        link.send_raw(&encode(&Frame::Close { code: Code::Drained, text: "" })).unwrap();
        while link.drain().is_ok() {
            std::thread::sleep(Duration::from_millis(1));
        }
        sessions += 1;
    }
    RawLink::connect(node.addr, HONEST).unwrap();
    kit::until("the link of another key is logged", || node.seaprox.count_log(&["link up", &fingerprint(HONEST)]) == 1);
    let lines = node.seaprox.count_log(&[&fingerprint(HOSTILE)]);
    let most = most();
    assert!((1..=most).contains(&lines), "{lines} lines in {:?}", since.elapsed());
}

fn fingerprint(seed: [u8; 32]) -> String {
    seaprox::auth::PublicKey::from_bytes(hostile_kit::public_key(seed)).unwrap().fingerprint()
}

/// Connects a socket from a source address.
fn socket_from(ip: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn a_wrong_key_is_logged_during_a_flood_from_another_address() {
    let node = Served::start("", &[]);
    for _ in 0..150 {
        let mut socket = socket_from("127.0.0.2", node.addr);
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        // The node answers with an alert, or closes.
        while matches!(socket.read(&mut [0; 256]), Ok(1..)) {}
    }
    let lines = node.seaprox.count_log(&["unauthenticated peer refused", "127.0.0.2:"]);
    assert!((1..=60).contains(&lines), "{lines} lines about the flood, of 150");
    let wrong = RawLink::connect_from(socket_from("127.0.0.3", node.addr), [9; 32], Config::default());
    assert!(wrong.is_err(), "the key is not admitted");
    node.seaprox.wait_for_log(&["unauthenticated peer refused", "127.0.0.3:", "reason=auth_failed"]);
}

#[test]
fn a_frame_for_a_stream_that_never_existed_is_logged_once_for_each_stream_and_within_the_limit() {
    let node = Served::start("", &[]);
    let mut hostile = RawLink::connect(node.addr, HOSTILE).unwrap();
    let data = |id: u32| encode(&Frame::Data { id, offset: 0, fin: false, payload: b"x" });
    let done = |seq: u32| encode(&Frame::Message { seq, text: "done" });
    // The node opens streams with odd numbers, and has opened none.
    hostile.send_raw(&[data(1), data(1), data(3), data(1), done(0)].concat()).unwrap();
    node.seaprox.wait_for_log(&["message", "done"]);
    let lines = |words: &[&str]| {
        node.seaprox.count_log(&[&["WARN", "a frame for a stream that never existed"], words].concat())
    };
    assert_eq!((lines(&["stream=1"]), lines(&["stream=3"]), lines(&[])), (1, 1, 2));
    let flood: Vec<u8> = (0..1000).flat_map(|n| data(5 + 2 * n)).collect();
    hostile.send_raw(&flood).unwrap();
    until("the flood is counted", || {
        node.seaprox.status().pointer("/links/0/stray_frames").and_then(|count| count.as_u64()) >= Some(1004)
    });
    assert!(lines(&[]) <= 101, "{} lines", lines(&[]));
}
