//! Many streams over one link between real processes in a network of the test's own (BS-07, BS-H1, TT-04, TT-05, TT-08,
//! TT-H2 to TT-H6, X-06): at once, idle, one after another, closed at random, without a reader; two near nodes at one
//! far node; and a node that is killed.

use crate::kit;
use crate::net_kit;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::program::Program;
use kit::{Peer, proc, until};
use net_kit::nodes::{Forward, Options, PORT, Secret, start};
use net_kit::{Host, Kind, Net, Way, has_net};

/// The most bytes of user memory that an idle stream may cost at both nodes together.
const STREAM_BYTES_MAX: u64 = 2600;

/// Returns the user memory of each node, in bytes.
fn memory(forward: &Forward) -> [u64; 2] {
    [&forward.nodes.near, &forward.nodes.far].map(|node| proc::rss(node.pid()))
}

fn until_idle(forward: &Forward) {
    for node in [&forward.nodes.near, &forward.nodes.far] {
        until("no stream is left", || node.figure("/links/0/streams") == 0 && node.figure("/usage/connections") == 0);
    }
}

#[test]
fn two_hundred_streams_share_one_connection() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, Options::default());
    let carrier = net.path(0).connections();
    assert_eq!(carrier.len(), 1);
    let mut pairs: Vec<(Peer, Peer)> = (0..200).map(|_| forward.peers()).collect();
    thread::scope(|scope| {
        let swaps: Vec<_> = pairs
            .iter_mut()
            .flat_map(|(client, server)| [client, server])
            .map(|peer| scope.spawn(|| _ = peer.run(&[Swap(300_000), Fin, ReadAll])))
            .collect();
        while !swaps.iter().all(|swap| swap.is_finished()) {
            assert_eq!(net.path(0).connections(), carrier);
            thread::sleep(Duration::from_millis(20)); // The interval of the samples.
        }
    });
    until_idle(&forward);
    for _ in 0..500 {
        let (mut client, mut server) = forward.peers();
        client.run(&[Send(100), Fin]);
        server.run(&[Read(100), ReadAll]);
    }
    assert_eq!(net.path(0).connections(), carrier, "the link used one connection all the time");
}

#[test]
fn an_idle_stream_costs_at_most_2600_bytes() {
    if !has_net() {
        return;
    }
    // The far node counts two descriptors for each stream, and one key gets half of its connections.
    let count = (descriptors_max().saturating_sub(420) / 4).min(10_000);
    let net = Net::of(&[Kind::Veth]);
    let most = (2 * count + 20).to_string();
    let both = ["--max-connections", &most, "--udp-flows", "1"];
    let forward = Forward::start(&net, Options { both: &both, ..Options::default() });
    drop(forward.pair());
    until_idle(&forward);
    let before = memory(&forward);
    let check = |what: &str| {
        let after = memory(&forward);
        let each = [0, 1].map(|index| after[index].saturating_sub(before[index]) / count as u64);
        let together = each[0] + each[1];
        println!(
            "{count} streams that {what}: {each:?} bytes of user memory for each at near and far, {together} together"
        );
        assert!(together <= STREAM_BYTES_MAX, "an idle stream costs {each:?} bytes");
    };
    let since = Instant::now();
    let mut pairs: Vec<(TcpStream, TcpStream)> = (0..count).map(|_| forward.pair()).collect();
    for node in [&forward.nodes.near, &forward.nodes.far] {
        // A node does not build the whole text of the list in memory for a reader.
        until("the status lists all connections", || {
            node.status()["connections"].as_array().is_some_and(|all| all.len() == count)
        });
        assert_eq!(node.figure("/links/0/streams"), count as u64);
    }
    println!("all streams were open after {:?}", since.elapsed());
    check("were opened");
    for (client, server) in &mut pairs {
        client.write_all(&[b'?'; 200]).unwrap();
        server.read_exact(&mut [0; 200]).unwrap();
        server.write_all(&[b'!'; 2000]).unwrap();
        client.read_exact(&mut [0; 2000]).unwrap();
    }
    check("carried a request and a response");
    // The idle streams still work.
    for (client, server) in [&pairs[0], &pairs[count / 2], &pairs[count - 1]] {
        let peer = |stream: &TcpStream, is_client| Peer::of(stream.try_clone().unwrap().into(), is_client);
        let (mut client, mut server) = (peer(client, true), peer(server, false));
        client.run(&[Send(100)]);
        server.run(&[Read(100), Send(100)]);
        client.run(&[Read(100)]);
    }
    drop(pairs);
    until_idle(&forward);
}

pub fn descriptors_max() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to a live record of the right type.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        // Root may raise the hard limit, and the nodes inherit it.
        let more = limit.rlim_max.max(DESCRIPTORS);
        let raised = libc::rlimit { rlim_cur: more, rlim_max: more };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) == 0 {
            return usize::try_from(more).unwrap_or(usize::MAX);
        }
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

/// The number of descriptors that the tests ask for; they also run with 20,000.
const DESCRIPTORS: libc::rlim_t = 41_000;

/// Makes this many short connections, several at a time.
fn short_ones(count: usize) {
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, Options::default());
    let front = forward.nodes.front("static");
    let round = |count: usize| {
        thread::scope(|scope| {
            let serving = scope.spawn(|| {
                for _ in 0..count {
                    Peer::accept(&forward.listener).run(&[Read(100), Send(100), Fin]);
                }
            });
            for _ in 0..4 {
                let near = net.near();
                scope.spawn(move || {
                    near.inside(|| (0..count / 4).for_each(|_| _ = Peer::connect(front).run(&[Send(100), Read(100)])));
                });
            }
            serving.join().unwrap();
        });
        until_idle(&forward);
    };
    round(2000);
    let (before, since) = (memory(&forward), Instant::now());
    let descriptors = || [&forward.nodes.near, &forward.nodes.far].map(|node| proc::descriptors(node.pid()));
    let open = descriptors();
    round(count);
    let after = memory(&forward);
    println!("{count} short streams in {:?}: memory {before:?} before, {after:?} after", since.elapsed());
    // A process closes the socket of a question about its status a moment after the answer.
    until("no descriptor is left", || descriptors().iter().zip(&open).all(|(now, open)| now <= open));
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + before / 20 + (1 << 20), "memory leaks: {before} {after}");
    }
}

#[test]
fn thousands_of_short_streams_leave_no_resources() {
    if has_net() {
        short_ones(5_000);
    }
}

#[test]
#[ignore = "make soak runs it: it takes minutes"]
fn a_hundred_thousand_short_streams_leave_no_resources() {
    if has_net() {
        short_ones(100_000);
    }
}

#[test]
fn clients_that_close_early_or_read_slowly_do_not_affect_others() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Rate(400.0)]);
    let forward = Forward::start(&net, Options::default());
    let mut slow = forward.peers();
    let mut pairs: Vec<(Peer, Peer)> = (0..100).map(|_| forward.peers()).collect();
    thread::scope(|scope| {
        let (client, server) = &mut slow;
        let offering = scope.spawn(|| server.run(&[Fill(64 << 20, 200)]).sent);
        client.run(&[ReadSlowly(64 << 10, 4 << 10, 10)]);
        for (number, (client, server)) in pairs.iter_mut().enumerate() {
            let stays = number % 2 == 0;
            // Each client closes at a different moment, in the middle of its bytes.
            let part = 1 + (number as u64 * 7919) % 900_000;
            let leaves = if number % 4 == 1 { Rst } else { Fin };
            scope.spawn(move || {
                if stays {
                    client.run(&[Swap(1 << 20), Fin, ReadAll]);
                } else {
                    client.run(&[Send(part), leaves]);
                }
            });
            scope.spawn(move || {
                if stays {
                    server.run(&[Swap(1 << 20), Fin, ReadAll]);
                } else if number % 4 == 1 {
                    server.run(&[ReadReset]);
                } else {
                    server.run(&[Read(part), ReadAll]);
                }
            });
        }
        let sent = offering.join().unwrap();
        println!("{} KiB taken from the server of the slow client", sent >> 10);
    });
    drop((slow, pairs));
    until_idle(&forward);
}

#[test]
fn two_near_nodes_at_one_far_node_never_mix_their_bytes() {
    if !has_net() {
        return;
    }
    let mut net = Net::of(&[Kind::Veth]);
    let third = net.add_host("third");
    net.join(third, 1, Kind::Veth);
    let secret = Secret::new();
    let _far = start(net.far(), &secret.far(&[]));
    let listeners = [0, 1].map(|_| net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap()));
    let near = |host: &Host, listener: &TcpListener| {
        let local = format!("7000:{}", listener.local_addr().unwrap());
        start(host, &secret.near(&["-L", &local]))
    };
    let hosts = [net.near(), net.host(third)];
    let mut nodes = [0, 1].map(|index| Some(near(hosts[index], &listeners[index])));
    let pair = |index: usize| {
        let client = hosts[index].inside(|| Peer::connect(([127, 0, 0, 1], 7000).into()));
        (client, Peer::accept(&listeners[index]))
    };
    let swap = |pairs: [&mut (Peer, Peer); 2], bytes: u64| {
        thread::scope(|scope| {
            for (index, (client, server)) in pairs.into_iter().enumerate() {
                // Each client sends bytes that no other client sends.
                let (hello, answer) = (format!("to {index}"), format!("from {index}"));
                scope.spawn(move || {
                    client.run(&[Put(hello.as_bytes())]);
                    server.run(&[Take(hello.as_bytes()), Put(answer.as_bytes())]);
                    client.run(&[Take(answer.as_bytes())]);
                    kit::peer::both(client, &[Swap(bytes)], server, &[Swap(bytes)]);
                });
            }
        });
    };
    let (mut one, mut other) = (pair(0), pair(1));
    swap([&mut one, &mut other], 8 << 20);
    // One near node is restarted, and the connections of the other are not affected.
    nodes[0] = None;
    nodes[0] = Some(near(hosts[0], &listeners[0]));
    let mut again = pair(0);
    swap([&mut again, &mut other], 8 << 20);
    other.0.run(&[Fin]);
    other.1.run(&[ReadAll]);
}

/// The command lines of two nodes, so that a node can be restarted with exactly the same one.
struct Lines {
    _secret: Secret,
    near: Vec<String>,
    far: Vec<String>,
}

impl Lines {
    fn new(near: &[&str]) -> Lines {
        let secret = Secret::new();
        let (near, far) = (secret.near(near), secret.far(&["--link-hold", "5m"]));
        Lines { _secret: secret, near, far }
    }

    fn run(host: &Host, line: &[String]) -> Program {
        let mut command = host.command(env!("CARGO_BIN_EXE_seaprox"));
        command.args(line).args(["--status", "none", "-q"]).stdin(Stdio::null());
        Program::start(command)
    }
}

fn is_reset(peer: &mut Peer) -> bool {
    peer.some().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// The far node is killed and restarted: its connections are reset, not ended, and the near node reconnects by itself.
#[test]
fn connections_of_a_killed_far_node_are_reset_and_new_ones_work() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let lines = Lines::new(&["-L", &format!("7000:{}", listener.local_addr().unwrap())]);
    let mut far = Lines::run(net.far(), &lines.far);
    let _near = Lines::run(net.near(), &lines.near);
    let connect = || {
        let mut client = None;
        until("the near node listens", || {
            client = net.near().inside(|| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 7000)))).ok();
            client.is_some()
        });
        (Peer::of(client.unwrap().into(), true), Peer::accept(&listener))
    };
    let mut pairs: Vec<(Peer, Peer)> = (0..5).map(|_| connect()).collect();
    for (client, server) in &mut pairs {
        client.run(&[Send(1000)]);
        server.run(&[Read(1000), Send(1000)]);
        client.run(&[Read(1000)]);
    }
    far.0.kill().unwrap();
    far.0.wait().unwrap();
    assert!(
        pairs[0].0.is_quiet(Duration::from_millis(500)),
        "the connection is held, in case the far node was only cut off"
    );
    let since = Instant::now();
    far = Lines::run(net.far(), &lines.far);
    for (client, _) in &mut pairs {
        assert!(is_reset(client), "the connection is reset, not ended");
    }
    let (mut client, mut server) = connect();
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    println!("a new connection worked {:?} after the far node was restarted", since.elapsed());
    assert!(since.elapsed() < 2 * kit::LATE, "{:?}", since.elapsed());
    drop(far);
}

/// The near node is killed and restarted: the far node resets its connections and gives it its remote port at once.
#[track_caller]
fn killed_and_back(silently: bool) {
    let net = Net::of(&[Kind::Veth]);
    let inner = net.near().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let target = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let (local, back) =
        (format!("7000:{}", target.local_addr().unwrap()), format!("2222:{}", inner.local_addr().unwrap()));
    let lines = Lines::new(&["-L", &local, "-R", &back]);
    let _far = Lines::run(net.far(), &lines.far);
    let mut near = Lines::run(net.near(), &lines.near);
    let pair = || {
        let mut user = None;
        until("the far node listens for the near one", || {
            user = net.far().inside(|| TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 2222)))).ok();
            user.is_some()
        });
        let (mut user, mut served) = (Peer::of(user.unwrap().into(), true), Peer::accept(&inner));
        user.run(&[Send(1000)]);
        served.run(&[Read(1000)]);
        (user, served)
    };
    let (mut user, served) = pair();
    let mut client = net.near().inside(|| Peer::connect(([127, 0, 0, 1], 7000).into()));
    let mut server = Peer::accept(&target);
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    if silently {
        // The FIN or RST of its kernel does not arrive.
        net.path(0).black_hole(Way::Out);
    }
    near.0.kill().unwrap();
    near.0.wait().unwrap();
    if silently {
        // A machine that has lost its power does not answer for its old connections either.
        net.near().run(&format!("ss -HKtn dport = :{PORT}"));
        net.path(0).heal();
    }
    let since = Instant::now();
    let _near = Lines::run(net.near(), &lines.near);
    assert!(is_reset(&mut user) && is_reset(&mut server), "resets, not ends");
    drop((client, served));
    pair();
    println!("the remote port was back {:?} after the restart", since.elapsed());
    assert!(since.elapsed() < 2 * kit::LATE, "{:?}", since.elapsed());
}

#[test]
fn a_killed_near_node_gets_its_remote_port_back_at_once() {
    if has_net() {
        killed_and_back(false);
        killed_and_back(true);
    }
}

/// Both nodes buffer the bytes for a stalled reader up to their limit, and no more.
#[test]
fn a_stalled_reader_makes_no_node_exceed_its_memory_limit() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let far_reads = |first: u64, limit_mib: u64| {
        let size = format!("{limit_mib}MiB");
        let forward = Forward::start(&net, Options { both: &["--link-memory", &size], ..Options::default() });
        let (mut client, mut server) = forward.peers();
        client.run(&[Swap(0), Send(1000)]);
        server.run(&[Read(1000)]);
        let before = memory(&forward);
        let (taken, mut server) = thread::scope(|scope| {
            let offering = scope.spawn(|| client.run(&[Fill(1 << 30, 500)]).sent);
            server.run(&[Read(first)]);
            (offering.join().unwrap(), server)
        });
        let after = memory(&forward);
        let grown = [0, 1].map(|index| after[index].saturating_sub(before[index]) >> 10);
        println!(
            "limit {limit_mib} MiB: {} MiB read, then {} MiB more taken of 1 GiB; near grew by {} KiB, far by {} KiB",
            first >> 20,
            (taken - 1000 - first) >> 20,
            grown[0],
            grown[1]
        );
        assert!(taken < 1 << 30);
        server.run(&[Read(taken - 1000 - first)]);
        grown
    };
    // A reader that never reads: the windows have not grown.
    let grown = far_reads(0, 64);
    assert!(grown.iter().all(|kib| *kib < 10 << 10), "{grown:?}");
    // A reader that was fast before: the windows have their largest size.
    for limit_mib in [8, 64] {
        let grown = far_reads(200 << 20, limit_mib);
        assert!(grown.iter().all(|kib| *kib < limit_mib << 10), "{grown:?}");
    }
}
