//! Connecting: accept, handshake, connect, connected, and the visible state at each step; failures; connectors that
//! answer from other threads, late, never, or a thousand at once.

use crate::loop_kit;

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use loop_kit::*;
use seaprox::{Answer, Connector, Failure, Handler, Reason, Role, SideState, Stage, Target, Timeouts};

/// A connector that passes the dials to the test.
struct Outside(Sender<(Target, Answer)>);

impl Connector for Outside {
    fn wants(&self, target: &Target) -> bool {
        matches!(target, Target::Name(..))
    }
    fn connect(&mut self, target: &Target, answer: Answer) {
        self.0.send((target.clone(), answer)).unwrap();
    }
}

fn with_connector(config: seaprox::Config) -> (Rig, Receiver<(Target, Answer)>) {
    let (mut rig, (sender, dials)) = (Rig::new(config), mpsc::channel());
    rig.core().set_connector(Box::new(Outside(sender)));
    (rig, dials)
}

fn name(number: u16) -> Target {
    Target::parse(&format!("name{number}.invalid:{}", number + 1)).unwrap()
}

/// Returns a handler that consumes one byte before it connects, as the handshake of these tests.
fn on_request(target: impl Into<Target>, heard: Heard) -> Box<dyn Handler> {
    let target = Rc::new(target.into());
    handler(move |cx, call| {
        heard.note(cx.role(), &call);
        if let Call::Readable(_) = call {
            cx.connect(Rc::clone(&target), None).unwrap();
            return 1;
        }
        by_default(cx, &call)
    })
}

type Seen = (Stage, SideState, Option<SideState>);

fn seen(rig: &mut Rig) -> Seen {
    let status = rig.snapshot().connections.remove(0);
    (status.stage, status.source.state, status.dest.map(|dest| dest.state))
}

#[test]
fn accept_handshake_connect_and_relay_are_separate_states() {
    let ((mut rig, dials), heard) = (with_connector(config()), Heard::default());
    let notes = heard.clone();
    let addr = rig.listen(move || on_request(name(1), notes.clone()));
    assert_eq!(rig.stats().opened, 0);

    let mut client = Peer::connect(addr);
    rig.until("accepted", |proxy| proxy.core().snapshot().stats.opened == 1);
    rig.turn();
    assert_eq!(seen(&mut rig), (Stage::Handshake, SideState::Connected, None));
    assert_eq!(heard.all(), ["source opened"]);

    client.try_send(b"?early");
    let (target, answer) = rig.wait("the connector is asked", |_| dials.try_recv().ok());
    let id = rig.snapshot().connections[0].id;
    assert_eq!((target, Some(answer.side())), (name(1), rig.core().connection(id).unwrap().side_of(Role::Dest)));
    rig.turns(3);
    assert_eq!(seen(&mut rig), (Stage::Connecting, SideState::Connected, Some(SideState::Connecting)));
    let description = rig.snapshot().connections[0].description.clone();
    assert!(description.ends_with("->name[name1.invalid:2]]"), "{description}");
    assert_eq!(heard.all(), ["source opened", "source readable ?early"], "no input is shown while it connects");

    let (mut server, ours) = pair(Kind::Tcp4);
    answer.connected(ours);
    rig.until("connected", |_| heard.has("dest connected"));
    assert_eq!(seen(&mut rig), (Stage::Established, SideState::Connected, Some(SideState::Connected)));
    assert_eq!(rig.receive(&mut server, 5), b"early");
}

#[test]
fn a_connection_to_a_udp_target_is_refused() {
    let ((mut rig, dials), failures) = (with_connector(config()), Rc::new(RefCell::new(Vec::new())));
    for text in ["udp:dns.example:53", "udp:127.0.0.1:53", "udp:[::1]:53"] {
        let (target, failed) = (Rc::new(Target::parse(text).unwrap()), Rc::clone(&failures));
        let (id, _peer) = rig.adopt(
            Kind::Unix,
            handler(move |cx, call| {
                match call {
                    Call::Opened => cx.connect(Rc::clone(&target), None).unwrap(),
                    Call::Connected(Err(failure)) => failed.borrow_mut().push(failure.clone()),
                    call => panic!("{:?}", by_default(cx, &call)),
                }
                0
            }),
        );
        rig.until("the connect fails", |_| !failures.borrow().is_empty());
        let (description, failure) =
            (rig.snapshot().connections[0].description.clone(), failures.borrow_mut().remove(0));
        assert!(description.contains(&format!("[{text}]")), "{text}");
        assert_eq!(failure, Failure::new(Reason::NotPermitted, "expected a TCP address"));
        rig.core().connection(id).unwrap().close(failure.reason);
        rig.until_empty();
    }
    assert!(dials.try_recv().is_err(), "a connector is asked for TCP only");
}

/// SP-32: no state of a failed connect may affect the next client in the same slot.
#[test]
fn a_slot_serves_the_next_client_after_each_of_a_thousand_failed_connects() {
    let mut config = config();
    config.limits.connections = 1;
    let (mut rig, heard) = (Rig::new(config), Heard::default());
    let ((listener, good), bad) = (target(), refusing());
    for round in 0..1000 {
        let bad: Target = if round % 2 == 0 { bad.into() } else { Target::Unix("/nonexistent/socket".into()) };
        let (_, client) = rig.adopt(Kind::Unix, relay_to(bad));
        rig.until_empty();
        drop(client);
        if round % 10 == 0 {
            let (_, mut client) = rig.adopt(Kind::Unix, on_request(good, heard.clone()));
            client.try_send(b"?hello");
            let mut server = rig.accept(&listener);
            assert_eq!(rig.receive(&mut server, 5), b"hello");
            server.try_send(b"back");
            assert_eq!(rig.receive(&mut client, 4), b"back");
            drop((client, server));
            rig.until_empty();
        }
    }
    assert_eq!(rig.closed(Reason::ConnectionRefused), 1000);
    assert_eq!(heard.count("dest connected"), 100);
    let usage = rig.snapshot().usage;
    assert_eq!((usage.sides, usage.buffer_bytes), (0, 0));
}

/// One connection tries a target twenty times, then another one, and keeps its input.
#[test]
fn a_connection_may_try_another_target_after_a_failed_connect() {
    let (mut rig, tries) = (Rig::new(config()), Rc::new(Cell::new(0)));
    let ((listener, good), bad, count) = (target(), refusing(), Rc::clone(&tries));
    let (_, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            match call {
                Call::Opened => dial(cx, bad),
                Call::Connected(Err(failure)) => {
                    assert_eq!(failure.reason, Reason::ConnectionRefused);
                    count.set(count.get() + 1);
                    let next = if count.get() < 20 { bad } else { good };
                    dial(cx, next);
                }
                call => drop(by_default(cx, &call)),
            }
            0
        }),
    );
    client.try_send(b"kept");
    let mut server = rig.accept(&listener);
    assert_eq!(rig.receive(&mut server, 4), b"kept");
    assert_eq!(rig.stats().connect_failures[Reason::ConnectionRefused as usize], 20);
}

#[test]
fn a_name_is_resolved_and_an_unknown_name_fails() {
    let (mut rig, heard) = (Rig::with_workers(config()), Heard::default());
    let (listener, addr) = target();
    let good = Target::parse(&format!("localhost:{}", addr.port())).unwrap();
    let (_, mut client) = rig.adopt(Kind::Unix, on_request(good, heard.clone()));
    client.try_send(b"?x");
    let mut server = rig.accept(&listener);
    assert_eq!(rig.receive(&mut server, 1), b"x");
    let (_, mut lost) = rig.adopt(Kind::Unix, on_request(name(7), heard.clone()));
    lost.try_send(b"?");
    rig.until("the handler gets the failure", |_| heard.has("source connected name_resolution_failure"));
}

/// SP-30: each of a thousand answers reaches its own connection, once.
#[test]
fn a_thousand_answers_from_eight_threads_reach_their_connections() {
    let mut config = config();
    config.limits.connections = 1000;
    let (mut rig, dials) = with_connector(config);
    let results: Rc<RefCell<Vec<Vec<String>>>> = Rc::new(RefCell::new(vec![Vec::new(); 1000]));
    let mut clients = Vec::new();
    for number in 0..1000 {
        let results = Rc::clone(&results);
        let (_, client) = rig.adopt(
            Kind::Unix,
            handler(move |cx, call| {
                match call {
                    Call::Opened => cx.connect(Rc::new(name(number)), None).unwrap(),
                    Call::Connected(result) => {
                        let text = match result {
                            Ok(()) => cx.local(Role::Dest).to_string(),
                            Err(failure) => failure.detail.as_deref().unwrap_or("-").to_owned(),
                        };
                        results.borrow_mut()[usize::from(number)].push(text);
                        cx.resume_reading(Role::Source);
                    }
                    Call::Readable(input) => return input.len(),
                    call => drop(by_default(cx, &call)),
                }
                0
            }),
        );
        clients.push(client);
    }
    rig.turns(2);
    let mut shares: Vec<Vec<(u16, Answer)>> = (0..8).map(|_| Vec::new()).collect();
    for (target, answer) in dials.try_iter() {
        let number = target.port().unwrap() - 1;
        shares[usize::from(number) % 8].push((number, answer));
    }
    assert_eq!(shares.iter().map(Vec::len).sum::<usize>(), 1000);
    let (listener, addr) = target();
    let start = std::sync::Arc::new(std::sync::Barrier::new(8));
    let threads = shares.into_iter().map(|share| {
        let start = std::sync::Arc::clone(&start);
        thread::spawn(move || answer_all(share, addr, &start))
    });
    let threads: Vec<_> = threads.collect();
    rig.until("all handlers have their result", |_| {
        while listener.set_nonblocking(true).is_ok() && listener.accept().is_ok() {}
        results.borrow().iter().all(|told| !told.is_empty())
    });
    let given: Vec<(u16, String)> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    rig.turns(10);
    assert_eq!(given.len(), 1000);
    for (number, text) in given {
        assert_eq!(results.borrow()[usize::from(number)], [text], "of {number}");
    }
}

/// Answers every third dial with a socket and the others with a failure that has the dial's number in its text.
fn answer_all(share: Vec<(u16, Answer)>, addr: SocketAddr, start: &std::sync::Barrier) -> Vec<(u16, String)> {
    let mut ready = Vec::new();
    for (number, answer) in share {
        let socket = number.is_multiple_of(3).then(|| TcpStream::connect(addr).unwrap());
        ready.push((number, answer, socket));
    }
    start.wait();
    let answer_one = |(number, answer, socket): (u16, Answer, Option<TcpStream>)| match socket {
        Some(socket) => {
            let text = seaprox::Endpoint::from(socket.local_addr().unwrap()).to_string();
            answer.connected(socket);
            (number, text)
        }
        None => {
            answer.failed(Failure::new(Reason::HostUnreachable, format!("result {number}")));
            (number, format!("result {number}"))
        }
    };
    ready.into_iter().map(answer_one).collect()
}

#[test]
fn a_dropped_answer_fails_the_dial() {
    let ((mut rig, dials), heard) = (with_connector(config()), Heard::default());
    let (_, mut client) = rig.adopt(Kind::Unix, on_request(name(1), heard.clone()));
    client.try_send(b"?");
    let (_, answer) = rig.wait("asked", |_| dials.try_recv().ok());
    thread::spawn(move || drop(answer)).join().unwrap();
    rig.until("the handler gets the failure", |_| heard.has("source connected other"));
}

#[test]
fn a_descriptor_that_is_no_socket_fails_the_dial() {
    let ((mut rig, dials), heard) = (with_connector(config()), Heard::default());
    let (_, mut client) = rig.adopt(Kind::Unix, on_request(name(1), heard.clone()));
    client.try_send(b"?");
    let (_, answer) = rig.wait("asked", |_| dials.try_recv().ok());
    answer.connected(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    rig.until("the handler gets the failure", |_| heard.has("source connected other"));
}

/// The client resets, or the deadline passes, before the answer comes. Then the loop closes the descriptor.
#[test]
fn the_socket_of_a_late_answer_is_closed_and_counted() {
    for leaves in [true, false] {
        let mut config = config();
        config.timeouts.connect = if leaves { Duration::ZERO } else { Duration::from_millis(50) };
        let ((mut rig, dials), heard) = (with_connector(config), Heard::default());
        let (_, mut client) = rig.adopt(Kind::Tcp4, on_request(name(1), heard.clone()));
        client.try_send(b"?");
        let (_, answer) = rig.wait("asked", |_| dials.try_recv().ok());
        if leaves {
            client.reset();
        }
        rig.until_empty();
        assert_eq!(heard.has("source connected timed_out"), !leaves);
        // Another client has the slot by now.
        let (_, mut next) = rig.adopt(Kind::Tcp4, on_request(name(2), heard.clone()));
        next.try_send(b"?");
        let (_, next_answer) = rig.wait("asked", |_| dials.try_recv().ok());
        let (mut server, ours) = pair(Kind::Tcp4);
        let stale = rig.stats().stale;
        thread::spawn(move || answer.connected(ours)).join().unwrap();
        rig.until("the stale answer is counted", |proxy| proxy.core().snapshot().stats.stale == stale + 1);
        assert_eq!(rig.receive_end(&mut server), (vec![], End::Fin), "the descriptor is closed");
        assert!(!heard.has("dest connected"));
        if !leaves {
            continue; // The second dial has the same short deadline and may have failed by now.
        }
        let (mut server, ours) = pair(Kind::Unix);
        next_answer.connected(ours);
        server.socket.write_all(b"mine").unwrap();
        assert_eq!(rig.receive(&mut next, 4), b"mine");
    }
}

/// The dial waits in a worker while the backlog is full, and is connected when there is room.
#[test]
fn a_dial_waits_for_a_unix_listener_with_a_full_backlog() {
    let path = std::env::temp_dir().join(format!("seaprox-backlog-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let (mut rig, heard) = (Rig::with_workers(config()), Heard::default());
    let (_, mut client) = rig.adopt(Kind::Unix, on_request(Target::Unix(path.clone()), heard.clone()));
    client.try_send(b"?x");
    rig.until("the connection is in stage Connecting", |proxy| {
        proxy.core().snapshot().connections[0].stage == Stage::Connecting
    });
    rig.turns(20);
    assert!(!heard.has("dest connected"));
    drop(listener.accept().unwrap());
    rig.until("the dest is connected once the backlog has room", |_| heard.has("dest connected"));
    std::fs::remove_file(&path).unwrap();
    let (server, _) = listener.accept().unwrap();
    assert_eq!(rig.receive(&mut Peer::new(server), 1), b"x");
}

#[test]
fn a_connect_without_an_answer_times_out() {
    let mut config = config();
    config.timeouts.connect = Duration::from_millis(100);
    let (mut rig, heard) = (Rig::new(config), Heard::default());
    let (_listener, addr, _fillers) = black_hole();
    let (_, mut client) = rig.adopt(Kind::Unix, on_request(addr, heard.clone()));
    client.try_send(b"?");
    rig.until("the handler gets the failure", |_| heard.has("source connected timed_out"));
    rig.until_empty();
    assert_eq!(rig.snapshot().usage.descriptors, 0, "the socket is closed");
}

/// Returns a listener with a full backlog, to which a connect gets no answer, and the sockets that fill it.
fn black_hole() -> (TcpListener, SocketAddr, Vec<Peer>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let filler = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.nonblocking(), None).unwrap();
        let _ = filler.connect(&addr.into());
        fillers.push(Peer::new(filler));
    }
    (listener, addr, fillers)
}

/// A connector that notes the sides whose dials were cancelled.
struct Cancels(Outside, Rc<RefCell<Vec<seaprox::Id>>>);

impl Connector for Cancels {
    fn wants(&self, target: &Target) -> bool {
        self.0.wants(target)
    }
    fn connect(&mut self, target: &Target, answer: Answer) {
        self.0.connect(target, answer);
    }
    fn cancelled(&mut self, side: seaprox::Id) {
        self.1.borrow_mut().push(side);
    }
}

#[test]
fn a_connector_is_told_of_dials_that_time_out_or_whose_client_leaves() {
    let short = Timeouts { connect: Duration::from_millis(50), ..config().timeouts };
    let mut rig = Rig::new(seaprox::Config { timeouts: short, ..config() });
    let ((sender, dials), cancelled) = (mpsc::channel(), Rc::default());
    rig.core().set_connector(Box::new(Cancels(Outside(sender), Rc::clone(&cancelled))));
    let dialled = handler(move |cx, call| match call {
        Call::Opened => cx.connect(name(1), None).map(|()| 0).unwrap(),
        Call::Connected(_) => 0,
        _ => by_default(cx, &call),
    });
    let (id, _client) = rig.adopt(Kind::Tcp4, dialled);
    let (_, late) = rig.wait("the connector is asked", |_| dials.try_recv().ok());
    rig.until("the connect timeout", |_| *cancelled.borrow() == [late.side()]);
    rig.core().connection(id).unwrap().connect(name(2), None).unwrap();
    let (_, left) = rig.wait("the connector is asked again", |_| dials.try_recv().ok());
    rig.core().connection(id).unwrap().close(Reason::Killed);
    rig.until("the end of the connection", |_| *cancelled.borrow() == [late.side(), left.side()]);
    let (_, _client) = rig.adopt(Kind::Tcp4, on_request(name(3), Heard::default()));
    assert_eq!(cancelled.borrow().len(), 2, "a connection without a dest cancels nothing");
}
