//! A configuration that is changed while its process runs: what differs is changed, and everything else lives on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use seaprox::config::{
    ApplyFailure, Config, Forward, FrontEndConfig, KeySource, Link, LinkPaths, Listener, Running, Server, Service,
};
use seaprox::node::Path as LinkPath;
use seaprox::{Bind, Endpoint, Loops, Proto, Target};

use crate::kit::{SOON, Scratch, closed_port, until};
use crate::node_kit::{free_addr, in_own_process};

/// A process in this one. Its loops are stopped when it is dropped.
pub struct Process {
    pub running: Running,
    loops: Option<Loops>,
}

impl Process {
    pub fn start(config: Config) -> Process {
        let (running, loops) = seaprox_proxies::start(config).unwrap_or_else(|error| panic!("{error}"));
        Process { running, loops: Some(loops) }
    }

    /// Returns the address of the listener or the forward with this name.
    pub fn addr(&self, name: &str) -> SocketAddr {
        let all = self.running.listening();
        let found = all.iter().find(|it| it.name == name).unwrap_or_else(|| panic!("{name} listens nowhere: {all:?}"));
        match found.addr {
            Endpoint::Ip(_, addr) => addr,
            ref other => panic!("{other} is no TCP address"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.running.stop();
        self.loops.take().into_iter().for_each(|loops| loops.join().unwrap());
    }
}

/// Starts a server that answers each byte with this one.
pub fn server(answer: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut byte = [0];
                while client.read_exact(&mut byte).is_ok() && client.write_all(&[answer]).is_ok() {}
            });
        }
    });
    addr
}

/// A client that asks for an answer, as often as it likes.
pub struct Client(TcpStream);

impl Client {
    pub fn connect(addr: SocketAddr) -> Client {
        Client::of(TcpStream::connect(addr).unwrap())
    }

    pub fn of(client: TcpStream) -> Client {
        client.set_read_timeout(Some(SOON)).unwrap();
        Client(client)
    }

    pub fn ask(&mut self) -> std::io::Result<u8> {
        let mut byte = [0];
        self.0.write_all(b"?")?;
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

pub fn relay(name: &str, addr: &str, to: SocketAddr) -> Listener {
    let front_end = FrontEndConfig::new("static").with("to", Target::Ip(Proto::Tcp, to));
    Listener::new(name, vec![Bind::parse(addr).unwrap()], front_end)
}

fn with(listeners: Vec<Listener>) -> Config {
    Config { listeners, ..Config::default() }
}

#[test]
fn a_changed_listener_serves_new_clients_and_no_connection_is_cut() {
    for threads in [1, 3] {
        let (one, two) = (server(b'1'), server(b'2'));
        let listeners = vec![relay("a", "127.0.0.1:0", one), relay("b", "127.0.0.1:0", one)];
        let config = Config { threads, ..with(listeners) };
        let mut process = Process::start(config.clone());
        let (at_a, at_b) = (process.addr("a"), process.addr("b"));
        let (mut a, mut b) = (Client::connect(at_a), Client::connect(at_b));
        assert_eq!((a.ask().unwrap(), b.ask().unwrap()), (b'1', b'1'));
        let mut changed = config.clone();
        changed.listeners[1] = relay("b", "127.0.0.1:0", two);
        let diff = process.running.apply(changed).unwrap();
        assert_eq!((diff.listeners.changed.len(), diff.listeners.added.len(), diff.listeners.removed.len()), (1, 0, 0));
        assert_eq!((process.addr("a"), process.addr("b")), (at_a, at_b), "no address is bound again");
        assert_eq!((a.ask().unwrap(), b.ask().unwrap()), (b'1', b'1'), "connections live on");
        for _ in 0..8 {
            assert_eq!((Client::connect(at_a).ask().unwrap(), Client::connect(at_b).ask().unwrap()), (b'1', b'2'));
        }
    }
}

#[test]
fn each_client_is_served_while_other_listeners_change_again_and_again() {
    let (one, two) = (server(b'1'), server(b'2'));
    let config = |turn: usize| {
        let other = relay(&format!("b{}", turn % 2), "127.0.0.1:0", if turn.is_multiple_of(3) { one } else { two });
        Config { threads: 2, ..with(vec![relay("a", "127.0.0.1:0", one), other, relay("c", "127.0.0.1:0", two)]) }
    };
    let mut process = Process::start(config(0));
    let (at_a, at_c) = (process.addr("a"), process.addr("c"));
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let clients = thread::spawn(move || {
        let mut count = 0;
        while is_done.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            assert_eq!(Client::connect(at_a).ask().unwrap(), b'1');
            count += 1;
        }
        count
    });
    for turn in 1..40 {
        let mut changed = config(turn);
        changed.listeners[2].timers.idle = Some(std::time::Duration::from_secs(turn as u64));
        process.running.apply(changed).unwrap();
        assert_eq!((process.addr("a"), process.addr("c")), (at_a, at_c));
        assert_eq!(Client::connect(at_c).ask().unwrap(), b'2');
    }
    drop(done);
    assert!(clients.join().unwrap() > 0);
}

#[test]
fn listeners_come_and_go_while_connections_live_on() {
    let (one, two) = (server(b'1'), server(b'2'));
    let mut process = Process::start(with(vec![relay("a", "127.0.0.1:0", one)]));
    let at_a = process.addr("a");
    let mut a = Client::connect(at_a);
    assert_eq!(a.ask().unwrap(), b'1');
    process.running.apply(with(vec![relay("b", "127.0.0.1:0", two)])).unwrap();
    assert_eq!(Client::connect(process.addr("b")).ask().unwrap(), b'2');
    until("the address of the removed listener is closed", || TcpStream::connect(at_a).is_err());
    assert_eq!(a.ask().unwrap(), b'1', "the connection of the removed listener lives on");
    assert_eq!(process.running.listening().len(), 1);
}

#[test]
fn a_listener_with_another_backlog_is_bound_again_at_its_address() {
    // Another test may start a program that holds a closed socket until its exec.
    in_own_process(
        "config::a_listener_with_another_backlog_is_bound_again_at_its_address",
        a_listener_with_another_backlog_is_bound_again_at_its_address_alone,
    );
}

fn a_listener_with_another_backlog_is_bound_again_at_its_address_alone() {
    let scratch = Scratch::new();
    let path = format!("unix:{}", scratch.file("socket"));
    let mut config = with(vec![relay("a", &path, server(b'1'))]);
    let mut process = Process::start(config.clone());
    config.listeners[0].backlog = Some(7);
    process.running.apply(config).unwrap();
    let mut client = std::os::unix::net::UnixStream::connect(scratch.file("socket")).unwrap();
    client.write_all(b"?").unwrap();
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"1");
    process.running.apply(Config::default()).unwrap();
    assert!(!std::path::Path::new(&scratch.file("socket")).exists(), "the file of a closed socket is removed");
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let one = server(b'1');
    let config = with(vec![relay("a", "127.0.0.1:0", one)]);
    let mut process = Process::start(config.clone());
    let at_a = process.addr("a");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let scratch = Scratch::new();
    let mut lacks_users = relay("users", "127.0.0.1:0", one);
    lacks_users.users = Some(seaprox::config::Users::File(scratch.file("missing").into()));
    for (listener, failure) in [
        (relay("b", &taken.to_string(), one), "listener \"b\": listen: cannot listen on"),
        (relay("a\n", "127.0.0.1:0", one), "listener \"a\\n\": name"),
        (lacks_users, "listener \"users\": "),
    ] {
        let mut changed = Config { threads: 1, ..with(vec![listener]) };
        changed.listeners.push(relay("new", "127.0.0.1:0", one));
        let error = process.running.apply(changed).unwrap_err();
        assert!(error.to_string().starts_with(failure), "{error}");
        assert!(matches!(
            error.first().failure,
            ApplyFailure::Invalid(_) | ApplyFailure::Bind(..) | ApplyFailure::Make(_)
        ));
        assert_eq!(process.running.config(), &config);
        assert_eq!((process.addr("a"), process.running.listening().len()), (at_a, 1));
        assert_eq!(Client::connect(at_a).ask().unwrap(), b'1');
    }
}

#[test]
fn a_change_that_was_prepared_for_an_earlier_configuration_is_refused() {
    let one = server(b'1');
    let mut process = Process::start(with(vec![relay("a", "127.0.0.1:0", one)]));
    let both = |name: &str| with(vec![relay("a", "127.0.0.1:0", one), relay(name, "127.0.0.1:0", one)]);
    let (fits, late) = (process.running.preparer(), process.running.preparer());
    // Each is prepared in another thread, while clients are served.
    let prepared = thread::scope(|scope| {
        let all = [(fits, both("b")), (late, both("c"))];
        let all = all.map(|(preparer, config)| scope.spawn(move || preparer.prepare(config).unwrap()));
        all.map(|thread| thread.join().unwrap())
    });
    let [first, second] = prepared;
    assert_eq!(process.running.listening().len(), 1, "nothing has changed yet");
    process.running.put(first).unwrap();
    assert_eq!(Client::connect(process.addr("b")).ask().unwrap(), b'1');
    let errors = process.running.put(second).unwrap_err();
    assert!(errors.is_unchanged && matches!(errors.first().failure, ApplyFailure::Outdated), "{errors}");
    assert_eq!(process.running.config(), &both("b"));
}

#[test]
fn changes_that_need_a_restart_are_named_and_not_made() {
    let config = with(vec![relay("a", "127.0.0.1:0", server(b'1'))]);
    let mut process = Process::start(config.clone());
    let mut changed = Config { threads: 2, ..config.clone() };
    changed.loops.limits.pipes = 0;
    for _ in 0..2 {
        let diff = process.running.apply(changed.clone()).unwrap();
        let fields: Vec<String> = diff.restarts.iter().map(|place| place.to_string()).collect();
        assert_eq!(fields, ["threads", "limits"], "a second call names them again");
        assert_eq!(process.running.config(), &config);
    }
    // Other changes of the same configuration are made in the loops that run.
    changed.listeners.push(relay("b", "127.0.0.1:0", server(b'2')));
    process.running.apply(changed).unwrap();
    assert_eq!(Client::connect(process.addr("b")).ask().unwrap(), b'2');
}

#[test]
fn each_listener_has_rules_and_timers_of_its_own() {
    use seaprox::rules::{Action, Rule, Rules};
    let one = server(b'1');
    let mut denied = relay("denied", "127.0.0.1:0", one);
    denied.rules = Some(Rules::new(vec![Rule::parse(Action::Deny, "127.0.0.0/8").unwrap()]));
    let mut process = Process::start(with(vec![relay("open", "127.0.0.1:0", one), denied.clone()]));
    assert_eq!(Client::connect(process.addr("open")).ask().unwrap(), b'1');
    assert!(Client::connect(process.addr("denied")).ask().is_err());
    denied.rules = None;
    let mut hasty = relay("open", "127.0.0.1:0", one);
    // A busy machine needs a part of it for one answer.
    hasty.timers.idle = Some(std::time::Duration::from_secs(2));
    process.running.apply(with(vec![hasty, denied])).unwrap();
    assert_eq!(Client::connect(process.addr("denied")).ask().unwrap(), b'1');
    let mut idle = Client::connect(process.addr("open"));
    assert_eq!(idle.ask().unwrap(), b'1');
    assert_eq!(idle.0.read(&mut [0]).unwrap_or(0), 0, "the idle timer of this listener ends it");
}

/// Returns the configuration of a node whose key comes from a secret.
fn with_secret(scratch: &Scratch) -> Config {
    let secret = scratch.write("secret", "0123456789abcdef0123456789abcdef0123456789abcdef");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut config = Config::default();
    config.node.key = KeySource::Secret(secret.into());
    config
}

/// Links live in the first loop, and so do the clients that go over them; other clients are in every loop.
#[test]
fn a_process_of_several_loops_has_listeners_over_a_link_beside_others() {
    let (one, scratch) = (server(b'1'), Scratch::new());
    let mut far = Config { threads: 2, ..with_secret(&scratch) };
    far.servers = vec![Server::new("links", vec![Bind::parse("127.0.0.1:0").unwrap()])];
    let far = Process::start(far);
    let mut config = Config { threads: 3, ..with_secret(&scratch) };
    config.links = vec![Link::new("home", Target::Ip(Proto::Tcp, far.addr("links")))];
    let over_link = Listener { link: Some("home".to_owned()), ..relay("over", "127.0.0.1:0", one) };
    config.listeners = vec![over_link, relay("direct", "127.0.0.1:0", one)];
    let mut near = Process::start(config.clone());
    let clients = |name: &str| (0..30).map(|_| Client::connect(near.addr(name))).collect::<Vec<_>>();
    let (mut over, mut direct) = (clients("over"), clients("direct"));
    assert!(over.iter_mut().chain(&mut direct).all(|client| client.ask().unwrap() == b'1'));
    // Connections of each loop, and those that go over a link.
    let loops = near.loops.as_ref().unwrap();
    let counts: Vec<[usize; 2]> = loops
        .remotes()
        .iter()
        .map(|remote| {
            let of_name = |core: &seaprox::Loop<'_>, name: &str| {
                core.listeners().iter().filter(|listener| listener.name == name).map(|listener| listener.active).sum()
            };
            remote.ask(move |core| ["over", "direct"].map(|name| of_name(core, name))).unwrap().wait().unwrap()
        })
        .collect();
    assert_eq!(counts.iter().map(|[over, _]| *over).collect::<Vec<_>>(), [30, 0, 0]);
    assert_eq!(counts.iter().map(|[_, direct]| *direct).sum::<usize>(), 30);
    // A listener changes from one way to the other while its clients go on.
    config.listeners[0].link = None;
    near.running.apply(config).unwrap();
    assert!(over.iter_mut().chain(&mut direct).all(|client| client.ask().unwrap() == b'1'));
    assert_eq!(Client::connect(near.addr("over")).ask().unwrap(), b'1');
}

/// The loops divide the limits by their addresses, and the addresses come and go.
#[test]
fn a_listener_that_comes_later_has_its_share_of_the_connections_in_each_loop() {
    let (one, scratch) = (server(b'1'), Scratch::new());
    let mut config = Config { threads: 3, ..with_secret(&scratch) };
    config.loops.limits.connections = 60;
    // A server is in the first loop only.
    config.servers = vec![Server::new("links", vec![Bind::parse("127.0.0.1:0").unwrap()])];
    let mut process = Process::start(config.clone());
    let limits = |process: &Process| -> Vec<usize> {
        let limit = |core: &mut seaprox::Loop<'_>| core.totals().limits.connections;
        process.running.remotes().iter().map(|remote| remote.ask(limit).unwrap().wait().unwrap()).collect()
    };
    assert_eq!(limits(&process), [58, 1, 1]);
    config.listeners = vec![relay("a", "127.0.0.1:0", one)];
    process.running.apply(config.clone()).unwrap();
    let shared = limits(&process);
    assert_eq!(shared.iter().sum::<usize>(), 60);
    // The system may give all clients to one loop.
    assert!(shared.iter().all(|limit| *limit > 9), "{shared:?}");
    let mut clients: Vec<_> = (0..9).map(|_| Client::connect(process.addr("a"))).collect();
    assert!(clients.iter_mut().all(|client| client.ask().unwrap() == b'1'));
    // A loop gives up its share as its connections end.
    let with_clients = limits(&process);
    config.listeners.clear();
    process.running.apply(config).unwrap();
    assert_eq!(limits(&process).iter().sum::<usize>(), with_clients.iter().sum::<usize>());
    assert!(clients.iter_mut().all(|client| client.ask().unwrap() == b'1'));
    drop(clients);
    until("the first loop has the share of the others", || process.running.share_limits());
    assert_eq!(limits(&process), [58, 1, 1]);
}

#[cfg(target_os = "linux")]
#[test]
fn the_source_address_of_a_listener_is_where_its_targets_see_it() {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap();
    let mut config = with(vec![relay("plain", "127.0.0.1:0", to), relay("other", "127.0.0.1:0", to)]);
    let other = std::net::IpAddr::from([127, 0, 0, 2]);
    config.listeners[1].egress = Some(seaprox::Egress::from(other));
    let mut process = Process::start(config.clone());
    let check = |process: &Process, plain| {
        for (name, wanted) in [("plain", plain), ("other", other)] {
            let _client = Client::connect(process.addr(name));
            assert_eq!(target.accept().unwrap().1.ip(), wanted, "{name}");
        }
    };
    check(&process, to.ip());
    // A listener without one has that of the process.
    let default = std::net::IpAddr::from([127, 0, 0, 3]);
    config.egress = seaprox::Egress::from(default);
    process.running.apply(config).unwrap();
    check(&process, default);
}

/// Starts a process that peers dial.
fn far_node(scratch: &Scratch) -> Process {
    let mut config = with_secret(scratch);
    config.servers = vec![Server::new("links", vec![Bind::parse("127.0.0.1:0").unwrap()])];
    Process::start(config)
}

fn link_to(far: &Process, forwards: Vec<Forward>) -> Link {
    Link { forwards, ..Link::new("home", Target::Ip(Proto::Tcp, far.addr("links"))) }
}

fn local(name: &str, to: SocketAddr) -> Forward {
    let front_end = FrontEndConfig::new("static").with("to", Target::Ip(Proto::Tcp, to));
    Forward { name: name.to_owned(), listen: Bind::parse("127.0.0.1:0").unwrap(), service: Service::Local(front_end) }
}

#[test]
fn a_link_lives_on_while_its_forwards_change() {
    let (one, two) = (server(b'1'), server(b'2'));
    let scratch = Scratch::new();
    let far = far_node(&scratch);
    let mut config = with_secret(&scratch);
    config.links = vec![link_to(&far, vec![local("db", one), local("web", one)])];
    let mut near = Process::start(config.clone());
    let (mut db, mut web) = (Client::connect(near.addr("db")), Client::connect(near.addr("web")));
    assert_eq!((db.ask().unwrap(), web.ask().unwrap()), (b'1', b'1'));
    // A forward is exchanged, and a listener comes whose clients go over the link.
    config.links[0].forwards[1] = local("mail", two);
    let mut over_link = relay("plain", "127.0.0.1:0", two);
    over_link.link = Some("home".to_owned());
    config.listeners.push(over_link);
    near.running.apply(config.clone()).unwrap();
    assert_eq!((db.ask().unwrap(), web.ask().unwrap()), (b'1', b'1'), "connections of the link live on");
    for name in ["mail", "plain"] {
        assert_eq!(Client::connect(near.addr(name)).ask().unwrap(), b'2', "{name}");
    }
    // The peer listens, and gives the address back.
    let free = free_addr();
    let to = Target::Ip(Proto::Tcp, one);
    let listen = Bind::parse(&free.to_string()).unwrap();
    config.links[0].forwards.push(Forward { name: "ssh".to_owned(), listen, service: Service::Remote(to) });
    near.running.apply(config.clone()).unwrap();
    until("the peer listens", || TcpStream::connect(free).is_ok());
    let mut ssh = Client::connect(free);
    assert_eq!((ssh.ask().unwrap(), db.ask().unwrap()), (b'1', b'1'));
    config.links[0].forwards.pop();
    near.running.apply(config).unwrap();
    until("the peer listens no more", || TcpStream::connect(free).is_err());
    assert_eq!((ssh.ask().unwrap(), db.ask().unwrap()), (b'1', b'1'), "its connection lives on");
}

#[test]
fn a_link_that_is_dialed_again_keeps_the_addresses_of_its_forwards() {
    // Another test may start a program that holds a closed socket until its exec.
    in_own_process(
        "config::a_link_that_is_dialed_again_keeps_the_addresses_of_its_forwards",
        a_link_that_is_dialed_again_keeps_the_addresses_of_its_forwards_alone,
    );
}

fn a_link_that_is_dialed_again_keeps_the_addresses_of_its_forwards_alone() {
    let one = server(b'1');
    let scratch = Scratch::new();
    let far = far_node(&scratch);
    let free = free_addr();
    let listen = Bind::parse(&free.to_string()).unwrap();
    let ssh = Forward { name: "ssh".to_owned(), listen, service: Service::Remote(Target::Ip(Proto::Tcp, one)) };
    let mut config = with_secret(&scratch);
    config.links = vec![link_to(&far, vec![local("db", one), ssh])];
    let mut near = Process::start(config.clone());
    let at_db = near.addr("db");
    let mut db = Client::connect(at_db);
    assert_eq!(db.ask().unwrap(), b'1');
    until("the peer listens", || TcpStream::connect(free).is_ok());
    // Another mode needs another session.
    config.links[0].mode = Some(seaprox::link::Mode::Single);
    let diff = near.running.apply(config).unwrap();
    assert!(diff.links.changed[0].is_redialed && diff.listeners.is_empty());
    assert!(db.ask().is_err(), "the old session is over");
    assert_eq!((near.addr("db"), Client::connect(at_db).ask().unwrap()), (at_db, b'1'));
    until("the peer listens for the new session", || {
        TcpStream::connect(free).is_ok_and(|client| Client::of(client).ask().is_ok())
    });
    near.running.apply(with_secret(&scratch)).unwrap();
    assert_eq!((near.running.listening().len(), near.running.link("home")), (0, None));
    until("the addresses are closed", || [at_db, free].iter().all(|addr| TcpStream::connect(addr).is_err()));
}

#[test]
fn a_target_that_refuses_fails_for_its_listener_alone() {
    let refusing = SocketAddr::from(([127, 0, 0, 1], closed_port()));
    let process =
        Process::start(with(vec![relay("good", "127.0.0.1:0", server(b'1')), relay("bad", "127.0.0.1:0", refusing)]));
    assert!(Client::connect(process.addr("bad")).ask().is_err());
    assert_eq!(Client::connect(process.addr("good")).ask().unwrap(), b'1');
}

/// Returns a link that cannot be dialed: two subflows cannot have the same local port.
fn undialable(far: &Process) -> Link {
    let path = LinkPath { local_port: Some(1), ..LinkPath::default() };
    Link { subflows: 2, paths: LinkPaths::List(vec![path]), ..link_to(far, vec![local("db", server(b'4'))]) }
}

#[test]
fn a_listener_whose_link_cannot_be_dialed_is_not_opened() {
    let (one, scratch) = (server(b'1'), Scratch::new());
    let far = far_node(&scratch);
    let mut near = Process::start(with_secret(&scratch));
    let mut config = with_secret(&scratch);
    config.links = vec![undialable(&far)];
    let over = Listener { link: Some("home".to_owned()), ..relay("over", "127.0.0.1:0", one) };
    config.listeners = vec![over, relay("direct", "127.0.0.1:0", one)];
    for _ in 0..2 {
        let error = near.running.apply(config.clone()).unwrap_err();
        assert!(error.to_string().starts_with("link \"home\": "), "{error}");
        let names: Vec<String> = near.running.listening().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["direct"], "the others are open");
        assert_eq!(near.running.config().links, [], "the link stays in the difference");
    }
    config.links = vec![link_to(&far, vec![local("db", one)])];
    let diff = near.running.apply(config.clone()).unwrap();
    assert_eq!((diff.links.added.len(), diff.listeners.added.len(), diff.listeners.changed.len()), (1, 2, 0));
    for name in ["over", "direct", "db"] {
        assert_eq!(Client::connect(near.addr(name)).ask().unwrap(), b'1', "{name}");
    }
    // A link that is up stays as it was, with its connections.
    let mut client = Client::connect(near.addr("over"));
    assert_eq!(client.ask().unwrap(), b'1');
    let good = config.clone();
    config.links = vec![undialable(&far)];
    near.running.apply(config).unwrap_err();
    assert_eq!(near.running.config().links[0].subflows, 1);
    assert_eq!((client.ask().unwrap(), Client::connect(near.addr("over")).ask().unwrap()), (b'1', b'1'));
    assert_eq!(Client::connect(near.addr("db")).ask().unwrap(), b'4', "its forward has the new target");
    near.running.apply(good).unwrap();
    for name in ["over", "db"] {
        assert_eq!(Client::connect(near.addr(name)).ask().unwrap(), b'1', "{name}");
    }
    assert_eq!(client.ask().unwrap(), b'1');
}

#[test]
fn a_listener_with_another_name_keeps_its_sockets() {
    // Another test may start a program that holds a closed socket until its exec.
    in_own_process(
        "config::a_listener_with_another_name_keeps_its_sockets",
        a_listener_with_another_name_keeps_its_sockets_alone,
    );
}

fn a_listener_with_another_name_keeps_its_sockets_alone() {
    for threads in [1, 3] {
        let (one, two) = (server(b'1'), server(b'2'));
        let (at, free) = (free_addr().to_string(), free_addr().to_string());
        let start = vec![relay("a", &at, one), relay("b", &free, two)];
        let mut process = Process::start(Config { threads, ..with(start) });
        let mut client = Client::connect(process.addr("a"));
        assert_eq!(client.ask().unwrap(), b'1');
        let renamed = vec![relay("c", &at, two), relay("b", &free, two)];
        process.running.apply(Config { threads, ..with(renamed) }).unwrap();
        assert_eq!((process.addr("c").to_string(), client.ask().unwrap()), (at.clone(), b'1'));
        for _ in 0..8 {
            assert_eq!(Client::connect(process.addr("c")).ask().unwrap(), b'2');
        }
        let names = process.running.remotes()[0].ask(|core| core.listener_named("c").is_some()).unwrap();
        assert!(names.wait().unwrap(), "the loop has the new name");
        // Two listeners exchange their addresses.
        let fixed = vec![relay("c", &at, one), relay("b", &free, two)];
        process.running.apply(Config { threads, ..with(fixed) }).unwrap();
        let exchanged = vec![relay("c", &free, one), relay("b", &at, two)];
        process.running.apply(Config { threads, ..with(exchanged) }).unwrap();
        assert_eq!((process.addr("c").to_string(), process.addr("b").to_string()), (free.clone(), at));
        assert_eq!(Client::connect(process.addr("c")).ask().unwrap(), b'1');
        assert_eq!(Client::connect(process.addr("b")).ask().unwrap(), b'2');
    }
}

#[test]
fn an_address_moves_to_a_wider_one_and_to_a_record_of_another_kind() {
    // Another test may start a program that holds a closed socket until its exec.
    in_own_process(
        "config::an_address_moves_to_a_wider_one_and_to_a_record_of_another_kind",
        an_address_moves_to_a_wider_one_and_to_a_record_of_another_kind_alone,
    );
}

fn an_address_moves_to_a_wider_one_and_to_a_record_of_another_kind_alone() {
    for threads in [1, 2] {
        let (one, scratch) = (server(b'1'), Scratch::new());
        let at = free_addr();
        let wide = format!("0.0.0.0:{}", at.port());
        let base = Config { threads, ..with_secret(&scratch) };
        let listens = |place: &str| Config { listeners: vec![relay("a", place, one)], ..base.clone() };
        let links = vec![Server::new("links", vec![Bind::parse(&at.to_string()).unwrap()])];
        let mut process = Process::start(listens(&at.to_string()));
        process.running.apply(listens(&wide)).unwrap();
        assert_eq!(process.addr("a").to_string(), wide);
        assert_eq!(Client::connect(at).ask().unwrap(), b'1');
        process.running.apply(Config { servers: links, ..base.clone() }).unwrap();
        assert_eq!(process.addr("links"), at);
        process.running.apply(listens(&at.to_string())).unwrap();
        assert_eq!(Client::connect(at).ask().unwrap(), b'1');
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_is_open_again_if_the_one_that_it_was_closed_for_cannot_be_bound() {
    // Another test may start a program that holds a closed socket until its exec.
    in_own_process(
        "config::an_address_is_open_again_if_the_one_that_it_was_closed_for_cannot_be_bound",
        an_address_is_open_again_if_the_one_that_it_was_closed_for_cannot_be_bound_alone,
    );
}

#[cfg(target_os = "linux")]
fn an_address_is_open_again_if_the_one_that_it_was_closed_for_cannot_be_bound_alone() {
    let (one, two) = (server(b'1'), server(b'2'));
    let at = free_addr();
    let wide = format!("0.0.0.0:{}", at.port());
    let config = with(vec![relay("a", &at.to_string(), one)]);
    let mut process = Process::start(config.clone());
    let in_the_way = TcpListener::bind(("127.0.0.2", at.port())).unwrap();
    let changed = with(vec![relay("b", &wide, two)]);
    for _ in 0..2 {
        let error = process.running.apply(changed.clone()).unwrap_err();
        assert!(matches!(&error.first().failure, ApplyFailure::Bind(..)), "{error}");
        assert_eq!((process.addr("a"), process.running.listening().len()), (at, 1));
        assert_eq!(Client::connect(at).ask().unwrap(), b'1');
        assert_eq!(process.running.config().listeners.len(), 1);
    }
    drop(in_the_way);
    process.running.apply(changed.clone()).unwrap();
    assert_eq!(Client::connect(at).ask().unwrap(), b'2');
    assert_eq!(process.running.config(), &changed);
}

#[test]
fn streams_of_peers_get_the_timers_that_the_process_has_now() {
    let (one, scratch) = (server(b'1'), Scratch::new());
    let mut far_config = with_secret(&scratch);
    far_config.servers = vec![Server::new("links", vec![Bind::parse("127.0.0.1:0").unwrap()])];
    let mut far = Process::start(far_config.clone());
    let mut config = with_secret(&scratch);
    config.links = vec![link_to(&far, vec![local("db", one)])];
    let near = Process::start(config);
    let mut before = Client::connect(near.addr("db"));
    assert_eq!(before.ask().unwrap(), b'1');
    far_config.loops.timeouts.idle = std::time::Duration::from_secs(1);
    let diff = far.running.apply(far_config).unwrap();
    assert!(diff.is_default_changed && diff.servers.is_empty());
    let mut idle = Client::connect(near.addr("db"));
    assert_eq!(idle.ask().unwrap(), b'1');
    assert_eq!(idle.0.read(&mut [0]).unwrap_or(0), 0, "the idle timer of the far process ends it");
    assert_eq!(before.ask().unwrap(), b'1', "a stream keeps its timers");
}
