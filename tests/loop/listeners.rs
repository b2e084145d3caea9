//! Listeners while traffic runs: listed, named, closed, replaced, each with settings of its own.

use crate::loop_kit;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{
    Bind, DescriptorError, Egress, Event, Handler, Id, ListenConfig, Loop, Observer, Reason, Stage, Timeouts,
    VerbError, bind,
};

const SHORT: Duration = Duration::from_millis(80);
/// An idle timeout that a client which speaks never reaches, also on a busy machine.
const IDLE: Duration = Duration::from_secs(1);

/// Returns a configuration whose clients are relayed to `target`.
fn relaying(target: SocketAddr) -> ListenConfig {
    ListenConfig::new("relay", Box::new(move || relay_to(target)))
}

/// Returns a configuration whose clients get a byte and are kept.
fn saying(byte: u8) -> ListenConfig {
    ListenConfig::new("say", Box::new(move || says(byte)))
}

fn says(byte: u8) -> Box<dyn Handler> {
    handler(move |cx, call| {
        if let Call::Opened = call {
            cx.reply(&[byte]).unwrap();
            cx.set_stage(Stage::KeepAlive);
        }
        by_default(cx, &call)
    })
}

fn verb_error(result: Result<impl Sized, DescriptorError>) -> Option<VerbError> {
    match result {
        Err(DescriptorError::Verb(error)) => Some(error),
        _ => None,
    }
}

/// Connects a client through a listener. Returns it, and the server that it was relayed to.
fn relayed(rig: &mut Rig, addr: SocketAddr, target: &TcpListener) -> (Peer, Peer) {
    let client = Peer::connect(addr);
    let server = rig.accept(target);
    (client, server)
}

/// Sends a few bytes both ways.
fn speak(rig: &mut Rig, (client, server): &mut (Peer, Peer)) {
    rig.send(client, b"hello");
    assert_eq!(rig.receive(server, 5), b"hello");
    rig.send(server, b"yo");
    assert_eq!(rig.receive(client, 2), b"yo");
}

/// Keeps the events about listeners.
#[derive(Clone, Default)]
struct Notes(Rc<RefCell<Vec<Event>>>);

impl Observer for Notes {
    fn event(&mut self, _: &mut Loop<'_>, event: Event) {
        if matches!(event, Event::ListenerOpened { .. } | Event::ListenerClosed { .. }) {
            self.0.borrow_mut().push(event);
        }
    }
}

#[test]
fn an_unlistened_listener_refuses_clients_and_its_connections_go_on() {
    let (mut rig, notes, (target, to)) = (Rig::new(config()), Notes::default(), target());
    rig.core().set_observer(Box::new(notes.clone()));
    let (listener, addr) = rig.listen_as(relaying(to));
    let (other, _) = rig.listen_as(saying(1));
    let mut pair = relayed(&mut rig, addr, &target);
    speak(&mut rig, &mut pair);
    assert_eq!(rig.core().listeners().len(), 2);
    let connection = rig.snapshot().connections[0].id;
    assert_eq!(rig.core().connection(connection).unwrap().listener(), Some(listener));

    rig.core().listener(listener).unwrap().unlisten().unwrap();
    assert!(TcpStream::connect(addr).is_err());
    speak(&mut rig, &mut pair);
    assert_eq!(rig.core().listener(listener).err(), Some(VerbError::Over(Reason::Killed)));
    assert_eq!(rig.core().listeners().iter().map(|one| one.id).collect::<Vec<_>>(), [other]);
    // The slot is used again, and the old id still names nothing.
    let (next, _) = rig.listen_as(saying(2));
    assert_eq!(rig.core().listener(listener).err(), Some(VerbError::Over(Reason::Killed)));
    drop(pair);
    rig.until_empty();
    assert_eq!(rig.core().listener(next).unwrap().status().active, 0);
    rig.core().close_listeners();
    rig.turn();
    let opened = [listener, other].map(|listener| Event::ListenerOpened { listener });
    let rest = [Event::ListenerClosed { listener }, Event::ListenerOpened { listener: next }];
    let closed = [other, next].map(|listener| Event::ListenerClosed { listener });
    let mut heard = notes.0.borrow().clone();
    heard[4..].sort_by_key(|event| !closed[..1].contains(event));
    assert_eq!(heard, [&opened[..], &rest, &closed].concat());
}

#[test]
fn a_replaced_listener_keeps_its_socket_and_its_connections_keep_what_they_have() {
    let mut rig = Rig::new(config());
    let timeouts = Timeouts { keep_alive: Duration::ZERO, ..Timeouts::default() };
    let (listener, addr) = rig.listen_as(ListenConfig { timeouts: Some(timeouts.clone()), ..saying(b'a') });
    let mut first = Peer::connect(addr);
    assert_eq!(rig.receive(&mut first, 1), b"a");
    let hasty = Timeouts { keep_alive: SHORT, ..timeouts };
    let config = ListenConfig { timeouts: Some(hasty), name: Some("door".to_owned()), ..saying(b'b') };
    rig.core().listener(listener).unwrap().replace(ListenConfig { kind: "other".into(), ..config }).unwrap();
    let mut second = Peer::connect(addr);
    assert_eq!(rig.receive(&mut second, 1), b"b");
    assert_eq!(rig.receive_all(&mut second), b"", "the timer of the new settings");
    assert_eq!(rig.snapshot().usage.connections, 1);
    let status = rig.core().listener(listener).unwrap().status();
    assert_eq!((status.accepted, status.active, status.refused), (2, 1, 0));
    assert_eq!((status.name.as_str(), &*status.kind, status.addr.ip()), ("door", "other", Some(addr)));
    // The first client is served by its own front end to the end.
    first.fin();
    assert_eq!(rig.receive_all(&mut first), b"");
    rig.until_empty();
}

#[test]
fn the_idle_timeout_of_a_listener_is_its_own() {
    let mut process = config();
    process.timeouts.idle = Duration::from_secs(3600);
    let (mut rig, (target, to)) = (Rig::new(process), target());
    let hasty = Timeouts { idle: IDLE, ..rig.config.timeouts.clone() };
    let (_, patient) = rig.listen_as(relaying(to));
    let (_, impatient) = rig.listen_as(ListenConfig { timeouts: Some(hasty), ..relaying(to) });
    let mut stays = relayed(&mut rig, patient, &target);
    let mut goes = relayed(&mut rig, impatient, &target);
    speak(&mut rig, &mut goes);
    rig.until("the silent connection has ended", |proxy| proxy.core().snapshot().usage.connections == 1);
    assert_eq!(rig.closed(Reason::IdleTimeout), 1);
    speak(&mut rig, &mut stays);
    // Bytes restart the short timer too.
    let mut busy = relayed(&mut rig, impatient, &target);
    let since = Instant::now();
    while since.elapsed() < IDLE * 5 / 4 {
        speak(&mut rig, &mut busy);
    }
    assert_eq!(rig.snapshot().usage.connections, 2, "the one that speaks has lived longer than its timer");
    rig.until("the other one has ended too", |proxy| proxy.core().snapshot().usage.connections == 1);
}

#[test]
fn the_connect_timeout_of_a_listener_is_its_own() {
    let mut process = config();
    process.timeouts.connect = Duration::from_secs(3600);
    let mut rig = Rig::new(process);
    // The backlog of one client is full, so the system answers no further connect.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let to = full.local_addr().unwrap().as_socket().unwrap();
    let waiting = [(); 4].map(|()| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap());
    for socket in &waiting {
        socket.set_nonblocking(true).unwrap();
        // The connect is in progress, or done.
        let _ = socket.connect(&to.into());
    }
    let hasty = Timeouts { connect: SHORT, ..Timeouts::default() };
    let (_, addr) = rig.listen_as(ListenConfig { timeouts: Some(hasty), ..relaying(to) });
    let _client = Peer::connect(addr);
    rig.until("the connect has timed out", |proxy| {
        let snapshot = proxy.core().snapshot();
        snapshot.closed().any(|(reason, count)| reason == Reason::TimedOut && count == 1)
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_dests_of_a_listener_leave_from_its_source_address() {
    let (mut rig, (target, to)) = (Rig::new(config()), target());
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let (listener, addr) = rig.listen_as(ListenConfig { egress: Some(Egress::from(from)), ..relaying(to) });
    let mut pair = relayed(&mut rig, addr, &target);
    assert_eq!(pair.1.peer_addr().ip(), from);
    rig.core().listener(listener).unwrap().replace(relaying(to)).unwrap();
    assert_eq!(relayed(&mut rig, addr, &target).1.peer_addr().ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    speak(&mut rig, &mut pair);
}

#[test]
fn a_name_belongs_to_one_listener() {
    let mut rig = Rig::new(config());
    let named = |name: &str| ListenConfig { name: Some(name.to_owned()), ..saying(1) };
    let place = Bind::parse("127.0.0.1:0").unwrap();
    let (front, addr) = rig.listen_as(named("front"));
    let (back, back_addr) = rig.listen_as(saying(2));
    let mut bounds = bind(&place, 1, &rig.config).unwrap();
    let refused =
        |rig: &mut Rig, bounds: &mut [seaprox::Bound], name| verb_error(rig.core().listen(&mut bounds[0], named(name)));
    assert_eq!(refused(&mut rig, &mut bounds, "front"), Some(VerbError::Already));
    assert_eq!(refused(&mut rig, &mut bounds, ""), Some(VerbError::Invalid));
    let mut core = rig.core();
    assert_eq!((core.listener_named("front"), core.listener_named("back")), (Some(front), None));
    assert_eq!(core.listener_named(&back_addr.to_string()), Some(back), "a listener without a name has its address");
    assert_eq!(core.listener(back).unwrap().rename("front"), Err(VerbError::Already));
    assert_eq!(verb_error(core.listener(back).unwrap().replace(named("front"))), Some(VerbError::Already));
    core.listener(front).unwrap().rename("front").unwrap();
    core.listener(front).unwrap().rename("gate").unwrap();
    core.listener(back).unwrap().rename("front").unwrap();
    assert_eq!((core.listener_named("gate"), core.listener_named("front")), (Some(front), Some(back)));
    let names: Vec<_> = core.listeners().into_iter().map(|one| (one.name, one.addr.ip())).collect();
    assert_eq!(names, [("gate".to_owned(), Some(addr)), ("front".to_owned(), Some(back_addr))]);
    // The refused attempts have not used the socket up. Its address is taken as a name, too.
    let third_addr = bounds[0].addr().ip().unwrap().to_string();
    core.listener(back).unwrap().rename(&third_addr).unwrap();
    let third = core.listen(&mut bounds[0], saying(3)).unwrap();
    assert_eq!(core.listener(third).unwrap().name(), format!("{third_addr} (2)"));
    assert_eq!(verb_error(core.listen(&mut bounds[0], saying(4))), Some(VerbError::Invalid), "no socket is left");
    assert!(third != front && third != back);
}

#[test]
fn an_id_of_another_kind_is_invalid_for_a_listener() {
    let (mut rig, (target, to)) = (Rig::new(config()), target());
    let (listener, addr) = rig.listen_as(relaying(to));
    let _pair = relayed(&mut rig, addr, &target);
    let connection = rig.snapshot().connections[0].id;
    let mut core = rig.core();
    assert_eq!(core.listener(connection).err(), Some(VerbError::Invalid));
    assert_eq!(core.listener(listener).unwrap().route(Some(connection)), Err(VerbError::Invalid));
    let config = ListenConfig { link: Some(listener), ..relaying(to) };
    assert_eq!(verb_error(core.listener(listener).unwrap().replace(config)), Some(VerbError::Invalid));
    assert_eq!(core.listener(listener).unwrap().route(None), Ok(()));
    core.drain(Duration::from_secs(60));
    let mut bounds = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
    assert_eq!(verb_error(core.listen(&mut bounds[0], saying(1))), Some(VerbError::Over(Reason::Drained)));
}

#[test]
fn a_listener_counts_the_clients_of_a_full_network_as_refused() {
    let mut config = config();
    config.limits.connections_per_source = 2;
    // The counts of all loops are those of the process.
    let bounds = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, &config).unwrap();
    let addr = bounds[0].addr().ip().unwrap();
    let setup: seaprox::Setup = std::sync::Arc::new(|proxy, _, bounds| {
        let config = ListenConfig { name: Some("one".to_owned()), ..saying(1) };
        Ok(proxy.core().listen(&mut bounds[0], config).map(drop)?)
    });
    let loops = seaprox::Loops::start(1, &config, None, bounds, &setup).unwrap();
    let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let status = |loops: &seaprox::Loops| {
        let (tell, told) = std::sync::mpsc::channel();
        loops.remotes()[0].call(move |core| tell.send(core.listeners().remove(0)).unwrap()).unwrap();
        told.recv_timeout(PATIENCE).unwrap()
    };
    let since = std::time::Instant::now();
    while status(&loops).accepted < 5 {
        assert!(since.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert_eq!((status(&loops).active, status(&loops).refused), (2, 3));
    drop(clients);
    loops.remotes()[0].call(|core| core.stop()).unwrap();
    loops.join().unwrap();
}

#[test]
fn the_file_of_a_unix_listener_is_removed_when_it_is_closed() {
    let path = std::env::temp_dir().join(format!("seaprox-listeners-{}", std::process::id()));
    let mut rig = Rig::new(config());
    let mut bounds = bind(&Bind::Unix(path.clone()), 1, &rig.config).unwrap();
    let listener = rig.core().listen(&mut bounds[0], saying(b'u')).unwrap();
    drop(bounds);
    let mut client = Peer::new(UnixStream::connect(&path).unwrap());
    assert_eq!(rig.receive(&mut client, 1), b"u");
    rig.core().listener(listener).unwrap().unlisten().unwrap();
    assert!(!path.exists());
    let bounds = bind(&Bind::Unix(path.clone()), 1, &rig.config).unwrap();
    drop(bounds);
    assert!(!path.exists(), "a bound address that no loop listens on takes its file along");
}

/// Different settings are records of the loop, which are freed with their last user.
#[test]
fn thousands_of_replacements_leave_nothing_behind() {
    let (mut rig, (target, to)) = (Rig::new(config()), target());
    let (listener, addr) = rig.listen_as(relaying(to));
    let mut pairs = Vec::new();
    for round in 1..=3000 {
        let timeouts = Timeouts { idle: Duration::from_secs(1000 + round), ..Timeouts::default() };
        let config = ListenConfig { timeouts: Some(timeouts), ..relaying(to) };
        rig.core().listener(listener).unwrap().replace(config).unwrap();
        if round % 100 == 0 {
            pairs.push(relayed(&mut rig, addr, &target));
        }
    }
    pairs.iter_mut().for_each(|pair| speak(&mut rig, pair));
    drop(pairs);
    rig.until_empty();
}

/// Each connection with settings of its own keeps a record, of which a loop has a limited number.
#[test]
fn settings_beyond_the_limit_are_refused_and_the_listener_stays_as_it_was() {
    let (mut rig, (target, to)) = (Rig::new(config()), target());
    let (_, addr) = rig.listen_as(relaying(to));
    let place = Bind::parse("127.0.0.1:0").unwrap();
    let of = |ms| Some(Timeouts { idle: Duration::from_millis(ms), ..Timeouts::default() });
    let (mut ids, mut error) = (Vec::new(), None);
    for ms in 1_000_000..1_001_000 {
        let mut bounds = bind(&place, 1, &rig.config).unwrap();
        match rig.core().listen(&mut bounds[0], ListenConfig { timeouts: of(ms), ..relaying(to) }) {
            Ok(id) => ids.push(id),
            Err(refused) => {
                error = verb_error(Err::<(), _>(refused));
                break;
            }
        }
    }
    assert_eq!(error, Some(VerbError::Full));
    let config = || ListenConfig { timeouts: of(2_000_000), ..relaying(to) };
    assert_eq!(verb_error(rig.core().listener(ids[0]).unwrap().replace(config())), Some(VerbError::Full));
    rig.core().listener(ids.pop().unwrap()).unwrap().unlisten().unwrap();
    rig.core().listener(ids[0]).unwrap().replace(config()).unwrap();
    let mut pair = relayed(&mut rig, addr, &target);
    speak(&mut rig, &mut pair);
}

/// Ids are numbers for scripts and for C.
#[test]
fn the_number_of_a_listener_names_it_and_tells_its_kind() {
    let mut rig = Rig::new(config());
    let (listener, _) = rig.listen_as(saying(1));
    let id = Id::from_u64(listener.to_u64()).unwrap();
    assert_eq!((id, id.kind()), (listener, seaprox::Kind::Listener));
    assert_eq!(rig.core().listener(id).unwrap().id(), listener);
}
