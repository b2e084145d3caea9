//! Links to several gateways, and one service that several agents offer at all of them, between real processes in a
//! network of the test's own (X-12), while gateways and agents are killed at random and started again.
//!
//! ```text
//!                                  +-- gateway 1 --+-- agent 1 -- service
//!   client -- -L of the near node --+-- gateway 2 --+-- agent 2 -- service
//!                                  +-- ...       --+-- ...
//! ```
//! Each host has a cable to a router. A node dies with its cable in place, so that its kernel ends its connections, or
//! after its cable was pulled, so that its peers hear no word.

use crate::kit;
use crate::net_kit;

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kit::{SOON, Seaprox, until, until_within};
use net_kit::home::Home;
use net_kit::nodes::{PORT, Secret, front, spawn, start};
use net_kit::path::veth;
use net_kit::rng::Rng;
use net_kit::{Host, Kind, Link, Net, has_net, has_tun};

/// Options of nodes that soon notice a dead peer, soon give it up and soon dial again.
const HASTY: &[&str] =
    &["--link-keepalive", "250ms", "--link-dead", "1s", "--link-hold", "1s", "--connect-timeout", "2s"];
/// The port of the service at each gateway.
const OFFERED: u16 = 8080;
/// The port of the service at each agent.
const TARGET: u16 = 9000;
/// The time for one attempt of a client, which then tries again.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A service in a host: each client gets the letter of the service, and then all its bytes back.
struct Service {
    host: Host,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    fn start(host: &Host, letter: u8) -> Service {
        let listener = host.inside(|| TcpListener::bind(("127.0.0.1", TARGET)).unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let thread = thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                thread::spawn(move || echo(&client, letter));
            }
        });
        Service { host: host.clone(), over, thread: Some(thread) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let woken = self.host.inside(|| TcpStream::connect(("127.0.0.1", TARGET)));
        if woken.is_ok() {
            self.thread.take().map(JoinHandle::join);
        }
    }
}

fn echo(mut client: &TcpStream, letter: u8) {
    let _ = client.set_read_timeout(Some(SOON));
    let _ = client.set_write_timeout(Some(SOON));
    // The client may be gone at any time.
    if client.write_all(&[letter]).and_then(|()| std::io::copy(&mut &*client, &mut client)).is_err() {
        let _ = socket2::SockRef::from(client).set_linger(Some(Duration::ZERO));
    }
}

/// Sends this many bytes to the service, and returns the letter of the service that has sent them all back. An error is
/// one that a client may see when a node dies on its way; any other one panics.
fn ask(addr: SocketAddr, count: usize) -> Result<u8, Error> {
    let socket = TcpStream::connect_timeout(&addr, ATTEMPT)?;
    socket.set_read_timeout(Some(ATTEMPT))?;
    socket.set_write_timeout(Some(ATTEMPT))?;
    let sent: Vec<u8> = (0..count).map(|place| (place * 7 + place / 251) as u8).collect();
    let (written, read, answer) = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            (&socket).write_all(&sent)?;
            socket.shutdown(Shutdown::Write)
        });
        let mut answer = Vec::with_capacity(count + 1);
        let read = (&socket).read_to_end(&mut answer);
        if read.is_err() {
            // The writer is not to wait for its own timeout.
            let _ = socket.shutdown(Shutdown::Both);
        }
        (writing.join().unwrap(), read, answer)
    });
    let (letter, bytes) = answer.split_first().map_or((None, &[][..]), |(letter, bytes)| (Some(*letter), bytes));
    assert!(bytes.len() <= sent.len() && sent.starts_with(bytes), "other bytes came back than were sent");
    // The kernel reports a reset once, to the writer or to the reader.
    read.and(written)?;
    let Some(letter) = letter else { return Err(ErrorKind::UnexpectedEof.into()) };
    // A cut connection never looks like one that the service has finished.
    assert_eq!(bytes.len(), sent.len(), "service {letter} finished early");
    Ok(letter)
}

/// The answers that clients have had.
#[derive(Default)]
struct Answers {
    count: AtomicU64,
    /// The attempts that failed.
    failures: AtomicU64,
    /// The letters of the services that have answered.
    letters: Mutex<Vec<u8>>,
    worst: Mutex<Duration>,
    over: AtomicBool,
}

impl Answers {
    /// Asks all the time, with requests of this many bytes, until it is over.
    fn ask_all_the_time(&self, addr: SocketAddr, count: usize, bound: Duration) {
        while !self.over.load(Ordering::Relaxed) {
            let since = Instant::now();
            let letter = loop {
                let attempt = Instant::now();
                match ask(addr, count) {
                    Ok(letter) => break letter,
                    Err(error) => {
                        self.failures.fetch_add(1, Ordering::Relaxed);
                        println!("an attempt with {count} bytes failed after {:?}: {error}", attempt.elapsed());
                        assert!(since.elapsed() < bound, "no answer within {bound:?}, at last {error}");
                        // A client that is refused at once does not take the processor from the nodes.
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            };
            let mut worst = self.worst.lock().unwrap();
            *worst = since.elapsed().max(*worst);
            drop(worst);
            let mut letters = self.letters.lock().unwrap();
            if !letters.contains(&letter) {
                letters.push(letter);
            }
            drop(letters);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Ends the clients when it is dropped: when the test has returned or panicked.
struct End<'a>(&'a [Answers]);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|answers| answers.over.store(true, Ordering::Relaxed));
    }
}

/// A host with a node, which may die.
struct Place {
    /// The number of its cable at the router, from 1.
    number: usize,
    host: Host,
    home: Home,
    line: Vec<String>,
    node: Option<Seaprox>,
}

impl Place {
    fn new(router: &Host, number: usize) -> Place {
        let host = Host::new(&format!("h{number}"));
        veth((&host, "cable"), (router, &format!("c{number}")));
        router.ip(&format!("addr add 10.79.{number}.1/24 dev c{number}\nlink set c{number} up\n"));
        let addr = addr(number);
        host.ip(&format!("addr add {addr}/24 dev cable\nlink set cable up\nroute add default via 10.79.{number}.1\n"));
        Place { number, host, home: Home::new(), line: Vec::new(), node: None }
    }

    fn start(&mut self) {
        self.node = Some(spawn(&self.host, &self.line));
    }
}

fn addr(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 79, number as u8, 2)
}

/// The nodes of a network.
struct Site {
    router: Host,
    near: Place,
    /// The gateways, and then the agents.
    places: Vec<Place>,
    gateways: usize,
    _services: Vec<Service>,
}

impl Site {
    #[track_caller]
    fn start(plan: &Plan) -> Site {
        let router = Host::new("router");
        assert!(router.sysctl("net/ipv4/ip_forward", "1"));
        let mut places: Vec<Place> =
            (1..=plan.gateways + plan.agents).map(|number| Place::new(&router, number)).collect();
        let mut near = Place::new(&router, places.len() + 1);
        let (gateways, agents) = places.split_at_mut(plan.gateways);
        let known: String =
            gateways.iter().map(|it| format!("{}:{PORT} {}\n", addr(it.number), it.home.key())).collect();
        let mut authorized = format!("permit-open=\"127.0.0.1:{OFFERED}\" {}\n", near.home.key());
        for agent in &mut *agents {
            let options = format!("permit-listen=\"{OFFERED}\",listen-group=\"web\"");
            authorized += &format!("{options} {}\n", agent.home.key());
        }
        let to: Vec<String> = gateways.iter().map(|it| format!("{}:{PORT}", addr(it.number))).collect();
        let dial = ["link", "-v", "--connect", &to.join(","), "--link-retry-max", "500ms"];
        for gateway in gateways {
            gateway.home.write("authorized_keys", &authorized);
            let listen = format!("0.0.0.0:{PORT}");
            gateway.line = gateway.home.line(&[&["link", "-v", "--listen", &listen], HASTY].concat());
        }
        for agent in agents {
            agent.home.write("known_nodes", &known);
            let offer = format!("{OFFERED}:127.0.0.1:{TARGET}");
            agent.line = agent.home.line(&[&dial[..], &["-R", &offer], HASTY].concat());
        }
        near.home.write("known_nodes", &known);
        let local = format!("127.0.0.1:0:127.0.0.1:{OFFERED}");
        near.line = near.home.line(&[&dial[..], &["-L", &local], HASTY].concat());
        let services =
            places[plan.gateways..].iter().map(|agent| Service::start(&agent.host, agent.number as u8)).collect();
        places.iter_mut().for_each(Place::start);
        near.start();
        Site { router, near, places, gateways: plan.gateways, _services: services }
    }

    /// Kills a node at random, but not the last gateway, nor the last agent.
    fn kill(&mut self, rng: &mut Rng) {
        let lives = |place: &usize| self.places[*place].node.is_some();
        let (gateways, agents) = (0..self.gateways, self.gateways..self.places.len());
        let kinds = [gateways.filter(lives).collect::<Vec<_>>(), agents.filter(lives).collect()];
        let may_die: Vec<usize> = kinds.into_iter().filter(|kind| kind.len() > 1).flatten().collect();
        // Gateways are few, so half of the deaths are theirs.
        let is_gateway = |place: &usize| *place < self.gateways;
        let wants_gateway = rng.one_in(2);
        let wanted: Vec<usize> = may_die.iter().copied().filter(|it| is_gateway(it) == wants_gateway).collect();
        let among = if wanted.is_empty() { &may_die } else { &wanted };
        let pick = among[rng.range(0, among.len() as u64 - 1) as usize];
        let is_silent = rng.one_in(2);
        let place = &mut self.places[pick];
        println!(
            "{} {pick} dies{}",
            if pick < self.gateways { "gateway" } else { "agent" },
            [", silent", ""][usize::from(!is_silent)]
        );
        if is_silent {
            self.router.ip(&format!("link set c{} down\n", place.number));
        }
        if let Some(mut node) = place.node.take() {
            assert!(node.runs(), "a node has ended by itself");
            node.signal(libc::SIGKILL);
        }
    }

    /// Starts a node again that is dead.
    fn revive(&mut self, rng: &mut Rng) {
        let dead: Vec<usize> = (0..self.places.len()).filter(|place| self.places[*place].node.is_none()).collect();
        if dead.is_empty() {
            return;
        }
        let place = &mut self.places[dead[rng.range(0, dead.len() as u64 - 1) as usize]];
        self.router.ip(&format!("link set c{} up\n", place.number));
        place.start();
    }

    fn dead(&self) -> usize {
        self.places.iter().filter(|place| place.node.is_none()).count()
    }
}

struct Plan {
    gateways: usize,
    agents: usize,
    deaths: usize,
    /// The most nodes that are dead at a time.
    dead: usize,
    /// The bytes of a longer request.
    transfer: usize,
    /// The most time in which a client gets an answer, with all its attempts. The machine may be busy.
    answer: Duration,
    seed: u64,
}

/// Kills nodes at random and starts them again, while two clients ask all the time.
#[track_caller]
fn survive(plan: &Plan) {
    println!("seed {}", plan.seed);
    let (mut rng, since) = (Rng::new(plan.seed), Instant::now());
    let mut site = Site::start(plan);
    let node = site.near.node.as_ref().unwrap();
    let (addr, host) = (front(node, "static"), site.near.host.clone());
    until_within(plan.answer, "the service is there", || host.inside(|| ask(addr, 10)).is_ok());
    println!("the service is there after {:?}", since.elapsed());
    let answers = [Answers::default(), Answers::default()];
    let every_agent = |what: &str| {
        answers[0].letters.lock().unwrap().clear();
        until_within(plan.answer, what, || answers[0].letters.lock().unwrap().len() == plan.agents);
    };
    thread::scope(|scope| {
        for (answers, count) in answers.iter().zip([100, plan.transfer]) {
            let host = &host;
            scope.spawn(move || host.inside(|| answers.ask_all_the_time(addr, count, plan.answer)));
        }
        let _end = End(&answers);
        every_agent("each agent has clients");
        for _ in 0..plan.deaths {
            if site.dead() == plan.dead || site.dead() > 0 && rng.one_in(2) {
                site.revive(&mut rng);
            }
            site.kill(&mut rng);
            let before = answers.each_ref().map(Answers::count);
            until_within(2 * plan.answer, "the clients get answers", || {
                answers[0].count() >= before[0] + 10 && answers[1].count() > before[1]
            });
        }
        while site.dead() > 0 {
            site.revive(&mut rng);
        }
        every_agent("each agent has clients again");
    });
    for (answers, size) in answers.iter().zip([100, plan.transfer]) {
        let (count, failures) = (answers.count(), answers.failures.load(Ordering::Relaxed));
        let worst = *answers.worst.lock().unwrap();
        println!("{count} answers of {size} bytes, {failures} failed attempts, the slowest answer after {worst:?}");
    }
    assert!(site.near.node.as_mut().unwrap().runs());
    println!("{} deaths in {:?}", plan.deaths, since.elapsed());
}

/// Returns the seed of the environment, or this one.
fn seed(default: u64) -> u64 {
    std::env::var("SEAPROX_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default)
}

#[test]
fn clients_get_answers_while_gateways_and_agents_die() {
    if has_net() {
        survive(&Plan {
            gateways: 2,
            agents: 6,
            deaths: 6,
            dead: 3,
            transfer: 100_000,
            answer: Duration::from_secs(30),
            seed: seed(1),
        });
    }
}

#[test]
#[ignore = "make test-system runs it: it takes minutes"]
fn clients_get_answers_while_four_gateways_and_twenty_agents_die() {
    if has_net() {
        survive(&Plan {
            gateways: 4,
            agents: 20,
            deaths: 100,
            dead: 12,
            transfer: 8 << 20,
            answer: Duration::from_secs(90),
            seed: seed(1),
        });
    }
}

/// A node with a link to each of two gateways, over a path of its own, and a target at each gateway.
struct Members {
    // Declared, and so dropped, before the network.
    near: Seaprox,
    _gateways: [Seaprox; 2],
    targets: [TcpListener; 2],
    /// The connections that have arrived at each target.
    served: [Vec<TcpStream>; 2],
    clients: Vec<TcpStream>,
    net: Net,
}

impl Members {
    #[track_caller]
    fn start(paths: [Kind; 2]) -> Members {
        let mut net = Net::of(&paths[..1]);
        let other = net.add_host("other");
        net.join(0, other, paths[1]);
        let secret = Secret::new();
        let gateways = [1, other].map(|host| start(net.host(host), &secret.far(&[])));
        let targets = [1, other].map(|host| {
            let target = net.host(host).inside(|| TcpListener::bind(("127.0.0.1", TARGET)).unwrap());
            target.set_nonblocking(true).unwrap();
            target
        });
        let to = [0, 1].map(|path| format!("{}:{PORT}", net.path(path).far_ip())).join(",");
        let local = format!("127.0.0.1:0:127.0.0.1:{TARGET}");
        let near = start(net.near(), &secret.line(&["link", "--connect", &to, "-L", &local], &[]));
        let up = || near.out().iter().filter(|line| line.starts_with("link up ")).count();
        until_within(kit::START, "both links are up", || up() == 2);
        Members { near, _gateways: gateways, targets, served: [Vec::new(), Vec::new()], clients: Vec::new(), net }
    }

    /// Opens connections one after another. Returns the number of those that arrived over each member.
    #[track_caller]
    fn connect(&mut self, count: usize) -> [usize; 2] {
        let addr = front(&self.near, "static");
        let before = self.served.each_ref().map(Vec::len);
        let so_far = self.clients.len();
        for number in 1..=count {
            self.clients.push(self.net.near().inside(|| TcpStream::connect(addr).unwrap()));
            until("the connection arrives", || {
                for (target, served) in self.targets.iter().zip(&mut self.served) {
                    served.extend(target.accept().map(|(client, _)| client));
                }
                self.served.iter().map(Vec::len).sum::<usize>() == so_far + number
            });
        }
        let counts = [0, 1].map(|member| self.served[member].len() - before[member]);
        println!("{counts:?} connections over the members");
        counts
    }
}

/// The round trip of one member is much longer than that of the other one.
#[test]
fn a_member_with_a_long_round_trip_gets_fewer_connections() {
    if !has_net() || !has_tun() {
        return;
    }
    let slow = Link { mbit: 100.0, delay: Duration::from_millis(150), ..Link::default() };
    let mut members = Members::start([Kind::Emulated(slow), Kind::Veth]);
    let [slow, fast] = members.connect(20);
    assert!(2 * slow < fast, "{slow} {fast}");
}

/// The paths are equal, and an upload fills one of them.
#[test]
fn a_member_whose_path_is_full_gets_fewer_connections() {
    if !has_net() {
        return;
    }
    let mut members = Members::start([Kind::Rate(10.0), Kind::Rate(10.0)]);
    let busy = members.connect(1).iter().position(|count| *count == 1).unwrap();
    let [client, server] = [&members.clients[0], &members.served[busy][0]].map(|it| it.try_clone().unwrap());
    server.set_nonblocking(false).unwrap();
    let (taken, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                if (&client).write_all(&[0; 10_000]).is_err() {
                    break;
                }
            }
        });
        scope.spawn(|| {
            let mut buf = [0; 10_000];
            while !over.load(Ordering::Relaxed)
                && let Ok(count @ 1..) = (&server).read(&mut buf)
            {
                taken.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        // The threads end when the connection does, also if the test has failed.
        let _end = Shut(&client, &over);
        until("the upload fills the path", || taken.load(Ordering::Relaxed) > 2_000_000);
        let counts = members.connect(10);
        assert!(2 * counts[busy] < counts[1 - busy], "{counts:?}, and {busy} is busy");
    });
}

/// Ends the threads of an upload when it is dropped: when the test has returned or panicked.
struct Shut<'a>(&'a TcpStream, &'a AtomicBool);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
        let _ = self.0.shutdown(Shutdown::Both);
    }
}
