//! Limits, timers and rules: the behaviour at each limit, and the recovery from it (SP-25, SP-26, TT-18, BS-18, X-15).

use crate::kit;

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::names::isolated;
use kit::peer::both;
use kit::socks::{code5, connect5};
use kit::{LATE, Peer, Relay, Seaprox, has_namespaces, proc, run, until};

#[test]
fn beyond_max_connections_a_client_waits_for_a_free_place() {
    let relay = Relay::start(&["--max-connections", "10"]);
    let mut pairs: Vec<_> = (0..10).map(|_| relay.pair()).collect();
    let mut late: Vec<_> = (0..5).map(|_| Peer::connect(relay.addr())).collect();
    late[0].run(&[Send(10)]);
    relay.seaprox.wait_for_log(&["WARN", "reason=limit_reached", "connections=10"]);
    for (client, server) in &mut pairs {
        both(client, &[Swap(1000)], server, &[Swap(1000)]);
    }
    assert!(late[0].is_quiet(Duration::from_millis(100)));
    assert_eq!(relay.seaprox.figure("/usage/connections"), 10);
    assert_eq!(relay.seaprox.figure("/limits/connections"), 10);
    drop(pairs.pop());
    let mut server = Peer::accept(&relay.listener);
    server.run(&[Read(10), Send(10)]);
    late[0].run(&[Read(10)]);
    pairs.clear();
    for client in &mut late[1..] {
        both(client, &[Send(1)], &mut Peer::accept(&relay.listener), &[Read(1)]);
    }
    let pauses = relay.seaprox.figure("/limit_pauses") as usize;
    // The log is written by a thread of its own.
    kit::until("each pause is in the log", || relay.seaprox.count_log(&["accepting pauses"]) == pauses);
}

/// Connects a client from a source address.
fn connect_from(ip: &str, to: SocketAddr) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Peer::of(socket, true)
}

#[test]
fn the_limit_of_one_client_address_does_not_affect_another() {
    for threads in ["1", "4"] {
        let relay = Relay::start(&["--max-connections-per-source", "3", "--threads", threads]);
        let serves = |ip: &str| {
            let (mut client, mut server) = (connect_from(ip, relay.addr()), Peer::accept(&relay.listener));
            both(&mut client, &[Swap(1000)], &mut server, &[Swap(1000)]);
            (client, server)
        };
        let mut pairs: Vec<_> = (0..3).map(|_| serves("127.0.0.2")).collect();
        for _ in 0..3 {
            assert!(connect_from("127.0.0.2", relay.addr()).rest().is_empty(), "the connection is closed at once");
        }
        relay.seaprox.wait_for_log(&["from=ipv4[127.0.0.2:", "reason=limit_reached", "client refused"]);
        let _other = serves("127.0.0.3");
        // A connection that has ended frees its place.
        drop(pairs.pop());
        until("one connection has ended", || relay.seaprox.figure("/usage/connections") == 3);
        pairs.push(serves("127.0.0.2"));
        assert_eq!(relay.seaprox.figure("/limits/connections_per_source"), 3);
    }
}

#[test]
fn the_connection_limit_is_logged_once_while_it_lasts() {
    let relay = Relay::start(&["--max-connections", "2"]);
    let _pairs = [relay.pair(), relay.pair()];
    let _late: Vec<_> = (0..50).map(|_| Peer::connect(relay.addr())).collect();
    relay.seaprox.wait_for_log(&["accepting pauses"]);
    assert!(Peer::connect(relay.addr()).is_quiet(Duration::from_millis(200)));
    assert_eq!(relay.seaprox.count_log(&["reason=limit_reached"]), 1);
}

#[test]
fn accepting_pauses_without_descriptors_and_no_byte_is_lost() {
    for (options, loops) in [(&[][..], 1), (&["--threads", "2"], 2)] {
        let relay = Relay::start(options);
        let pid = relay.seaprox.pid();
        let (mut client, mut server) = relay.pair();
        both(&mut client, &[Swap(10_000)], &mut server, &[Swap(10_000)]);
        // Only a few more descriptors are free, while twenty clients connect.
        proc::limit_descriptors(pid, proc::descriptors(pid) as u64 + 5);
        let mut late: Vec<_> = (0..20).map(|_| Peer::connect(relay.addr())).collect();
        relay.seaprox.wait_for_log(&["WARN", "reason=limit_reached", "no descriptors left"]);
        both(&mut client, &[Swap(100_000)], &mut server, &[Swap(100_000)]);
        thread::scope(|scope| {
            for peer in &mut late {
                scope.spawn(|| peer.run(&[Swap(100_000), Fin, ReadAll]));
            }
            assert!(relay.seaprox.count_log(&["no descriptors left"]) <= loops, "each loop logs it once");
            proc::limit_descriptors(pid, 4000);
            for _ in 0..20 {
                let mut server = Peer::accept(&relay.listener);
                scope.spawn(move || {
                    server.run(&[Swap(100_000), ReadAll, Fin]);
                });
            }
        });
        assert!(late.iter().all(|peer| peer.received == 100_000));
        relay.seaprox.wait_for_log(&["INFO", "descriptors again"]);
        both(&mut client, &[Fin, ReadAll], &mut server, &[ReadAll, Fin]);
        relay.seaprox.wait_until_idle();
        kit::until("each connection has its line", || relay.seaprox.count_log(&[" closed ", "end=graceful"]) == 21);
    }
}

#[test]
fn threads_and_workers_start_in_the_configured_number_and_all_work() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (loops, workers) in [(3, 4), (1, 1)] {
        let options = ["--threads", &loops.to_string(), "--workers", &workers.to_string(), "--dns-cache", "0"];
        let proxy = Seaprox::start(&[&["socks", "--only", "ipv4", "--listen", "127.0.0.1:0"], &options[..]].concat());
        for (kind, count) in [("loop-", loops), ("worker-", workers)] {
            let wanted: Vec<_> = (0..count).map(|number| format!("{kind}{number}")).collect();
            // A thread sets its name itself, shortly after it has started.
            until("every thread has its name", || {
                let names = proc::threads(proxy.pid());
                let mut found: Vec<_> = names.into_iter().filter(|name| name.starts_with(kind)).collect();
                found.sort();
                found == wanted
            });
        }
        let begun = Instant::now();
        loop {
            thread::scope(|scope| {
                for _ in 0..24 {
                    scope.spawn(|| assert_eq!(code5(proxy.addr(0), "localhost", port), 0));
                }
                (0..24).for_each(|_| drop(Peer::accept(&listener)));
            });
            let did_work =
                |kind: &str, number: usize| proc::cpu_ms_of_thread(proxy.pid(), &format!("{kind}{number}")) > 0;
            let jobs = proxy.status()["workers_done"].as_array().cloned().unwrap_or_default();
            assert_eq!(jobs.len(), workers);
            let all_jobs = jobs.iter().all(|done| done.as_u64() > Some(0));
            if all_jobs && (0..loops).all(|number| did_work("loop-", number)) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "not all of them work: {jobs:?}");
        }
        assert_eq!(proxy.figure("/threads"), loops as u64);
    }
}

#[test]
fn loops_run_on_their_processors_and_get_the_clients_whose_packets_arrive_there() {
    let cpus = proc::own_cpus();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let two: Vec<usize> = cpus.iter().copied().take(2).collect();
    let list: Vec<String> = two.iter().map(ToString::to_string).collect();
    let (threads, cpu) = (two.len().to_string(), list.join(","));
    let options = ["--listen", "127.0.0.1:0", "--to", &to, "--threads", &threads, "--cpu", &cpu];
    let proxy = Seaprox::start(&[&["static"], &options[..]].concat());
    for (number, cpu) in list.iter().enumerate() {
        until("each loop is on its processor", || {
            let name = format!("loop-{number}");
            proc::threads(proxy.pid()).contains(&name) && proc::cpus_of_thread(proxy.pid(), &name) == *cpu
        });
    }
    if proc::kernel() < (6, 2) {
        return println!("not run: this kernel asks no socket for its processor among several");
    }
    // The packets of the loopback interface arrive where they were sent.
    for (number, cpu) in two.iter().enumerate().rev().cycle().take(20) {
        let addr = proxy.addr(0);
        let connect = move || {
            proc::run_on_cpu(*cpu);
            Peer::connect(addr)
        };
        let client = thread::scope(|scope| scope.spawn(connect).join().unwrap());
        let server = Peer::accept(&listener);
        let status = proxy.status();
        let threads: Vec<_> =
            status["connections"].as_array().unwrap().iter().map(|it| it["thread"].as_u64()).collect();
        assert_eq!(threads, [Some(number as u64)], "a client on processor {cpu}");
        drop((client, server));
        proxy.wait_until_idle();
    }
    let ran = run(&["static", "--listen", "127.0.0.1:0", "--to", &to, "--cpu", "1023"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("processor 1023: "), "{}", ran.err);
}

#[test]
fn several_loops_share_a_unix_socket() {
    let scratch = kit::Scratch::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (path, to) = (scratch.file("in"), listener.local_addr().unwrap().to_string());
    let _proxy = Seaprox::start(&["static", "--threads", "3", "--listen", &format!("unix:{path}"), "--to", &to]);
    for _ in 0..30 {
        let mut client = Peer::connect_unix(path.as_ref());
        both(&mut client, &[Swap(10), Fin, ReadAll], &mut Peer::accept(&listener), &[Swap(10), ReadAll, Fin]);
    }
}

/// Returns the time until a peer sees the end of its connection.
fn time_to_end(peer: &mut Peer) -> Duration {
    let since = Instant::now();
    let _ = peer.some();
    since.elapsed()
}

#[test]
fn an_idle_connection_is_closed_after_the_idle_timeout() {
    let relay = Relay::start(&["--idle-timeout", "1500ms"]);
    let (mut client, mut server) = relay.pair();
    // Bytes in either direction restart the timeout.
    for _ in 0..10 {
        server.run(&[Send(1), Pause(200)]);
        client.run(&[Read(1)]);
    }
    let took = time_to_end(&mut client);
    assert!((Duration::from_millis(500)..LATE).contains(&took), "{took:?}");
    let line = relay.closing_line();
    assert!(line.contains("reason=idle_timeout end=aborted by=proxy"), "{line}");
}

#[test]
fn an_idle_connection_is_kept_without_an_idle_timeout() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    assert!(client.is_quiet(Duration::from_millis(1500)));
    both(&mut client, &[Swap(10)], &mut server, &[Swap(10)]);
}

#[test]
fn a_half_closed_connection_ends_after_the_half_closed_timeout() {
    let relay = Relay::start(&["--half-closed-timeout", "1500ms"]);
    let (mut client, mut server) = relay.pair();
    assert!(client.is_quiet(Duration::from_millis(2000)), "both directions are open");
    client.run(&[Fin]);
    server.run(&[ReadAll]);
    for _ in 0..8 {
        server.run(&[Send(1), Pause(250)]);
        client.run(&[Read(1)]);
    }
    let took = time_to_end(&mut client);
    assert!((Duration::from_millis(500)..LATE).contains(&took), "{took:?}");
    let line = relay.closing_line();
    assert!(line.contains("reason=half_closed_timeout end=aborted by=proxy"), "{line}");
}

#[test]
fn a_silent_client_is_closed_after_the_handshake_timeout() {
    for command in ["socks", "http"] {
        let proxy = Seaprox::start(&[command, "--listen", "127.0.0.1:0", "--handshake-timeout", "500ms"]);
        let took = time_to_end(&mut Peer::connect(proxy.addr(0)));
        assert!((Duration::from_millis(400)..LATE).contains(&took), "{took:?}");
        proxy.wait_for_log(&[" closed ", "reason=handshake_timeout end=aborted by=source"]);
    }
}

/// Single bytes of an incomplete request do not restart the timer.
#[test]
fn a_slowly_sent_request_does_not_extend_the_handshake_timeout() {
    for command in ["socks", "http"] {
        let proxy = Seaprox::start(&[command, "--listen", "127.0.0.1:0", "--handshake-timeout", "500ms"]);
        let (mut client, since) = (Peer::connect(proxy.addr(0)), Instant::now());
        let request = if command == "http" { &b"GET http://a/ HTTP/1.1\r\nX: "[..] } else { &[5, 255] };
        client.run(&[Put(request)]);
        while client.is_quiet(Duration::from_millis(50)) {
            assert!(since.elapsed() < LATE, "{command}: the timer was restarted");
            // The proxy may close at any moment.
            let _ = client.socket().send(b"x");
        }
        proxy.wait_for_log(&[" closed ", "reason=handshake_timeout"]);
    }
}

fn listeners() -> (TcpListener, TcpListener, u16) {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    (first, TcpListener::bind(("127.0.0.2", port)).unwrap(), port)
}

/// Returns true if a SOCKS proxy with these rules connects to an address.
fn is_let_through(rules: &[&str], host: &str, port: u16) -> bool {
    let proxy = Seaprox::start(&[&["socks", "--listen", "127.0.0.1:0"], rules].concat());
    match code5(proxy.addr(0), host, port) {
        0 => true,
        2 => {
            proxy.wait_for_log(&[" closed ", "reason=not_permitted end=aborted by=proxy"]);
            assert_eq!(proxy.count_log(&["not_permitted"]), 1, "the refusal is logged once");
            false
        }
        code => panic!("{code} for {host}:{port} with {rules:?}"),
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let (_first, _second, port) = listeners();
    let at = |rule: &str| rule.replace("PORT", &port.to_string());
    for (rules, host, expected) in [
        (&[][..], "127.0.0.1", true),
        (&["--deny", "127.0.0.0/31"], "127.0.0.1", false),
        (&["--deny", "127.0.0.0/31"], "127.0.0.2", true),
        (&["--allow", "127.0.0.2"], "127.0.0.2", true),
        (&["--allow", "127.0.0.2"], "127.0.0.1", false),
        (&["--allow", "127.0.0.1", "--deny", "127.0.0.0/8"], "127.0.0.1", true),
        (&["--deny", "127.0.0.0/8", "--allow", "127.0.0.1"], "127.0.0.1", false),
        (&["--deny", "*:1-PORT"], "127.0.0.1", false),
        (&["--deny", "*:1-1000"], "127.0.0.1", true),
        (&["--allow", "*:PORT"], "127.0.0.1", true),
        (&["--deny", "from:127.0.0.0/8"], "127.0.0.1", false),
        (&["--deny", "from:10.0.0.0/8"], "127.0.0.1", true),
        (&["--allow", "from:127.0.0.1,to:127.0.0.1:PORT"], "127.0.0.1", true),
        (&["--allow", "from:127.0.0.1,to:127.0.0.1:PORT"], "127.0.0.2", false),
        (&["--deny", "0.0.0.0/0"], "127.0.0.1", false),
        (&["--deny", "localhost"], "127.0.0.1", true),
        (&["--only", "ipv4", "--deny", "localhost"], "localhost", false),
        (&["--only", "ipv4", "--deny", "*.localhost"], "localhost", true),
        (&["--only", "ipv4", "--allow", "LocalHost:PORT"], "localhost", true),
        // Rules also apply to the addresses of a name.
        (&["--only", "ipv4", "--deny", "127.0.0.0/8"], "localhost", false),
        (&["--only", "ipv4", "--allow", "127.0.0.0/8"], "localhost", true),
        (&["--deny", "127.0.0.0/8"], "::ffff:127.0.0.1", false),
    ] {
        let rules: Vec<String> = rules.iter().map(|rule| at(rule)).collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        assert_eq!(is_let_through(&rules, host, port), expected, "{host} with {rules:?}");
    }
}

#[test]
fn rules_apply_to_static() {
    let (first, _second, port) = listeners();
    let to = format!("127.0.0.1:{port}");
    let relay = ["static", "--listen", "127.0.0.1:0", "--to", &to];
    let proxy = Seaprox::start(&[&relay[..], &["--deny", "from:127.0.0.1"]].concat());
    let mut client = Peer::connect(proxy.addr(0));
    assert!(client.some().map_or(true, |bytes| bytes.is_empty()));
    proxy.wait_for_log(&[" closed ", "reason=not_permitted"]);
    assert_eq!(proxy.count_log(&["not_permitted"]), 1);
    let proxy = Seaprox::start(&[&relay[..], &["--deny", "from:10.0.0.0/8"]].concat());
    let mut client = Peer::connect(proxy.addr(0));
    both(&mut client, &[Swap(10)], &mut Peer::accept(&first), &[Swap(10)]);
}

#[test]
fn only_the_permitted_address_of_a_name_is_tried() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 pair\n127.0.0.2 pair\n", |_| {
        let (first, second, port) = listeners();
        let proxy = Seaprox::start(&["socks", "--listen", "127.0.0.1:0", "--deny", "127.0.0.1"]);
        let (_client, reply) = connect5(proxy.addr(0), "pair", port);
        assert_eq!(reply[1], 0);
        Peer::accept(&second);
        first.set_nonblocking(true).unwrap();
        assert!(first.accept().is_err());
    });
}

#[test]
fn the_backlog_has_the_configured_length() {
    if !kit::has("ss") {
        return;
    }
    for threads in ["1", "2"] {
        let relay = Relay::start(&["--backlog", "77", "--threads", threads]);
        let port = format!("sport = :{}", relay.addr().port());
        let mut ss = std::process::Command::new("ss");
        ss.args(["-Hltn", &port]);
        let said = kit::seaprox::run_command(ss, b"").out;
        // State, Recv-Q and Send-Q, which is the backlog of a listening socket.
        let said = String::from_utf8(said).unwrap();
        let backlogs: Vec<_> = said.lines().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
        assert_eq!(backlogs, vec!["77"; threads.parse().unwrap()], "{said}");
    }
}

#[test]
fn status_shows_both_legs_and_the_limits() {
    let relay = Relay::start(&["--buffer", "16KiB", "--pipe-size", "256KiB", "--max-connections", "77"]);
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Send(300)], &mut server, &[Read(300), Send(500)]);
    client.run(&[Read(500)]);
    until("the status has the bytes", || relay.seaprox.figure("/connections/0/source/bytes_out") == 500);
    let status = relay.seaprox.status();
    let to: SocketAddr = relay.listener.local_addr().unwrap();
    let connection = &status["connections"][0];
    assert_eq!(connection["conn"], format!("static[ipv4[{}]->ipv4[{to}]]", client.local()));
    assert_eq!(connection["stage"], "established");
    assert_eq!(connection["listener"], format!("ipv4[{}]", relay.addr()));
    for (leg, side, bytes_in, bytes_out) in [("source", client.local(), 300, 500), ("dest", to, 500, 300)] {
        let leg = &connection[leg];
        assert_eq!((&leg["side"], &leg["state"]), (&format!("ipv4[{side}]").into(), &"connected".into()));
        assert_eq!((&leg["bytes_in"], &leg["bytes_out"]), (&bytes_in.into(), &bytes_out.into()));
        assert_eq!((&leg["congested"], &leg["queued"]), (&0.into(), &0.into()));
        assert!(leg["flags"].is_array());
    }
    let listener = &status["listeners"][0];
    assert_eq!((&listener["kind"], &listener["address"]), (&"static".into(), &relay.addr().to_string().into()));
    assert_eq!((&listener["active"], &listener["accepted"], &listener["refused"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(status["limits"]["block_bytes"], 16 << 10);
    assert_eq!(status["limits"]["pipe_bytes"], 256 << 10);
    assert_eq!(status["limits"]["connections"], 77);
    assert_eq!(status["usage"]["sides"], 2);
    let text = kit::run(&["status", "--status", &format!("unix:{}", relay.seaprox.scratch().file("status"))]);
    let text = String::from_utf8(text.out).unwrap();
    assert!(text.contains("connections 1 of 77") && text.contains("in 300 B out 500 B"), "{text}");
    assert!(text.contains(&format!("listener static {}", relay.addr())), "{text}");
    assert!(text.contains(": active 1, accepted 1, refused 0"), "{text}");
}
