//! Several targets of a static listener: who gets the clients, what becomes of targets that cannot be connected, and names
//! whose addresses change.

use crate::kit;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::knot::Knot;
use kit::names::{black_hole, isolated};
use kit::servers::{Server, connect, letters, same_port, under_load};
use kit::{Peer, Seaprox, closed_port, has, has_namespaces, run, until};

fn balanced(to: &str, options: &[&str]) -> Seaprox {
    Seaprox::start(&[&["static", "-v", "--listen", "127.0.0.1:0", "--to", to], options].concat())
}

/// Returns the targets of the first listener in the status: each with its state, its connections and its failures.
fn targets(proxy: &Seaprox) -> Vec<(String, u64, u64)> {
    let status = proxy.status();
    let targets = status["listeners"][0]["targets"].as_array().expect("targets").clone();
    let number = |target: &serde_json::Value, key: &str| target[key].as_u64().expect("a number");
    let all = targets
        .iter()
        .map(|it| (it["state"].as_str().expect("a state").to_owned(), number(it, "active"), number(it, "failures")));
    all.collect()
}

#[test]
fn targets_take_turns() {
    let (a, b, c) = (Server::start(b'a'), Server::start(b'b'), Server::start(b'c'));
    let proxy = balanced(&format!("{},{},{}", a.addr, b.addr, c.addr), &[]);
    assert_eq!(letters(proxy.addr(0), 9), "abcabcabc");
    assert_eq!([a.clients(), b.clients(), c.clients()], [3, 3, 3]);
    let text = proxy.status_text();
    assert!(text.contains(&format!("target {}: up, active", a.addr)), "{text}");
}

#[test]
fn least_connections_evens_out_uneven_service_times() {
    let servers = [Server::start(b'a'), Server::start(b'b'), Server::start(b'c')];
    let to = servers.iter().map(|server| server.addr.to_string()).collect::<Vec<_>>().join(",");
    for threads in ["1", "3"] {
        let proxy = balanced(&to, &["--balance", "least-connections", "--threads", threads]);
        let addr = proxy.addr(0);
        let mut held: HashMap<u8, Vec<Peer>> = HashMap::new();
        // Connections of the first server last, and those of the others end at once.
        for number in 0..90_u64 {
            let (peer, letter) = connect(addr);
            if letter == b'a' {
                held.entry(letter).or_default().push(peer);
            } else {
                drop(peer);
                // The next client comes when this one is gone from the count.
                let active = 1 + held.values().map(Vec::len).sum::<usize>() as u64;
                until("the client is gone", || targets(&proxy).iter().map(|it| it.1).sum::<u64>() < active);
            }
            assert!(number < 3 || held.get(&b'a').map_or(0, Vec::len) <= 2, "client {number}");
        }
    }
}

#[test]
fn least_connections_gives_each_target_as_many_open_connections() {
    let servers = [Server::start(b'a'), Server::start(b'b'), Server::start(b'c')];
    let to = servers.iter().map(|server| server.addr.to_string()).collect::<Vec<_>>().join(",");
    let proxy = balanced(&to, &["--balance", "least-connections", "--threads", "2"]);
    let held: Vec<_> = (0..30).map(|_| connect(proxy.addr(0))).collect();
    assert_eq!(targets(&proxy).iter().map(|it| it.1).collect::<Vec<_>>(), [10, 10, 10]);
    drop(held);
    until("no client is counted", || targets(&proxy).iter().all(|it| it.1 == 0));
}

#[test]
fn a_source_hash_keeps_a_client_at_its_target_and_moves_only_the_clients_of_one_that_leaves() {
    let servers: Vec<_> = (0..4).map(|number| Server::start(b'a' + number)).collect();
    let list = |servers: &[&Server]| servers.iter().map(|it| it.addr.to_string()).collect::<Vec<_>>().join(",");
    let of = |to: &str| -> Vec<u8> {
        let proxy = balanced(to, &["--balance", "source-hash"]);
        let client = |number: u32| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let from = SocketAddr::from(([127, 1, (number >> 8) as u8, number as u8], 0));
            socket.bind(&from.into()).unwrap();
            socket.connect(&proxy.addr(0).into()).unwrap();
            Peer::of(socket, true).some().unwrap()[0]
        };
        (1..=60).map(client).collect()
    };
    let all: Vec<&Server> = servers.iter().collect();
    let (before, again) = (of(&list(&all)), of(&list(&all)));
    assert_eq!(before, again, "a restart changes nothing");
    let after = of(&list(&[all[3], all[0], all[1]]));
    for (before, after) in before.iter().zip(&after) {
        assert!(*before == b'c' || before == after);
    }
    assert!((0..4).all(|number| before.iter().filter(|it| **it == b'a' + number).count() > 0), "{before:?}");
}

#[test]
fn a_client_whose_target_refuses_gets_the_next_one_and_the_target_is_left_out() {
    let (a, b) = (Server::start(b'a'), Server::start(b'b'));
    let refusing = SocketAddr::from(([127, 0, 0, 1], closed_port()));
    let proxy = balanced(&format!("{},{refusing},{}", a.addr, b.addr), &[]);
    let got = letters(proxy.addr(0), 12);
    assert_eq!((got.matches('a').count(), got.matches('b').count()), (6, 6), "{got}");
    let status = targets(&proxy);
    assert_eq!((status[0].0.as_str(), status[1].0.as_str()), ("up", "left_out"));
    assert!(status[1].2 >= 1 && status[0].2 == 0);
    let text = proxy.status_text();
    assert!(text.contains(&format!("target {refusing}: left out")), "{text}");
    assert_eq!(proxy.count_log(&["target left out", "reason=connection_refused", "failures=1 "]), 1);
    assert!(proxy.figure("/targets_left_out") == 1 && proxy.figure("/connects_retried") >= 1);
    // The failure of another target is not that of a connection that was made.
    until("all are over", || proxy.count_log(&["static[", "->"]) >= 12);
    assert_eq!(proxy.count_log(&["static[", "refused"]), 0);
}

#[test]
fn a_target_that_is_back_gets_clients_again_and_the_log_says_so_once() {
    let a = Server::start(b'a');
    // The port refuses until the socket listens. It stays bound, so no other program takes it.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let addr = held.local_addr().unwrap().as_socket().unwrap();
    let proxy = balanced(&format!("{},{addr}", a.addr), &[]);
    until("the target is left out", || {
        letters(proxy.addr(0), 1);
        targets(&proxy)[1].0 == "left_out"
    });
    held.listen(128).unwrap();
    thread::spawn(move || {
        let listener = TcpListener::from(held);
        for client in listener.incoming().flatten() {
            Peer::of(client.into(), false).run(&[Put(b"z")]);
        }
    });
    until("the target gets a client", || letters(proxy.addr(0), 1) == "z");
    proxy.wait_for_log(&["target is back", &format!("target={addr}"), "failures="]);
    assert_eq!(targets(&proxy)[1].0, "up");
    assert!(letters(proxy.addr(0), 4).contains('z'));
    assert_eq!(proxy.count_log(&["target is back"]), 1);
}

#[test]
fn a_client_fails_only_if_no_target_can_be_connected() {
    let refusing = format!("127.0.0.1:{}", closed_port());
    let proxy = balanced(&format!("{refusing},{refusing},[::1]:{}", closed_port()), &[]);
    for _ in 0..3 {
        let mut peer = Peer::connect(proxy.addr(0));
        peer.rest_or_reset();
    }
    until("three are over", || proxy.figure("/closed/connection_refused") == 3);
}

#[test]
fn a_target_that_drops_packets_costs_a_client_a_quarter_of_the_connect_timeout_and_is_left_out() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        black_hole();
        let a = Server::start(b'a');
        let proxy = balanced(&format!("198.51.100.7:9,{}", a.addr), &["--connect-timeout", "8s"]);
        let since = Instant::now();
        assert_eq!(letters(proxy.addr(0), 1), "a");
        assert!(since.elapsed() >= Duration::from_millis(1_900) && since.elapsed() < Duration::from_secs(7));
        assert_eq!(targets(&proxy)[0].0, "left_out");
        proxy.wait_for_log(&["target left out", "reason=timed_out"]);
        assert_eq!(letters(proxy.addr(0), 2), "aa");
        // Nothing else answers: the client ends when the whole time is over.
        let alone = balanced("198.51.100.7:9,198.51.100.7:10", &["--connect-timeout", "2s"]);
        let since = Instant::now();
        Peer::connect(alone.addr(0)).rest_or_reset();
        assert!(since.elapsed() >= Duration::from_millis(1_900), "{:?}", since.elapsed());
        until("it timed out", || alone.figure("/closed/timed_out") == 1);
    });
}

#[test]
fn each_address_of_a_name_is_a_target_and_changes_are_followed() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 fixed.example\n", |names| {
        names.set_ttl(1);
        names.set("web.example", &["127.0.0.2", "127.0.0.3"], Duration::ZERO);
        let (port, servers) = same_port(&["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        let proxy = balanced(&format!("web.example:{port}"), &["--balance", "round-robin"]);
        until("both addresses are known", || targets(&proxy).len() == 2);
        let got = letters(proxy.addr(0), 4);
        assert!(got == "abab" || got == "baba", "{got}");
        // Connections go on while the records change, and none of them fails.
        let (kept, letter) = connect(proxy.addr(0));
        names.set("web.example", &["127.0.0.3", "127.0.0.4"], Duration::ZERO);
        let changed = Instant::now();
        until("the new address gets a client", || letters(proxy.addr(0), 1) == "c");
        assert!(changed.elapsed() < Duration::from_secs(10), "{:?}", changed.elapsed());
        let got = letters(proxy.addr(0), 6);
        assert!(!got.contains('a') && got.matches('b').count() == 3, "{got}");
        let leaving = targets(&proxy).iter().filter(|it| it.0 == "leaving").count();
        assert_eq!(leaving, usize::from(letter == b'a'), "the connection to the old address goes on");
        drop((kept, servers));
    });
}

#[test]
fn the_hosts_file_wins_over_dns_and_names_that_dns_lacks_are_no_targets_until_they_exist() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.2 web.example\n", |names| {
        names.set_ttl(1);
        names.set("web.example", &["127.0.0.3"], Duration::ZERO);
        let (port, _servers) = same_port(&["127.0.0.2", "127.0.0.3"]);
        let proxy = balanced(&format!("web.example:{port},late.example:{port}"), &[]);
        until("the file is read", || letters(proxy.addr(0), 1) == "a");
        proxy.wait_for_log(&["upstream not found", "late.example"]);
        assert_eq!(names.asked("web.example"), 0);
        assert_eq!(letters(proxy.addr(0), 4), "aaaa");
        names.set("late.example", &["127.0.0.3"], Duration::ZERO);
        until("the late name is found", || letters(proxy.addr(0), 2).contains('b'));
        proxy.wait_for_log(&["upstream found again", "late.example"]);
    });
}

#[test]
fn a_service_has_its_hosts_by_priority_and_weight_from_dns() {
    if !has_namespaces() {
        return;
    }
    isolated("", |names| {
        names.set_ttl(1);
        let (a, b, c) = (Server::start(b'a'), Server::start(b'b'), Server::start(b'c'));
        names.set("host.example", &["127.0.0.1"], Duration::ZERO);
        let record = |priority, weight, server: &Server| (priority, weight, server.addr.port(), "host.example");
        let service = "_http._tcp.example.org";
        names.set_service(service, &[record(10, 30, &a), record(10, 10, &b), record(20, 0, &c)]);
        let proxy = balanced(service, &[]);
        let got = letters(proxy.addr(0), 8);
        assert_eq!((got.matches('a').count(), got.matches('b').count()), (6, 2), "{got}");
        // Only the host of the next priority is left.
        names.set_service(service, &[record(20, 0, &c)]);
        until("the record is followed", || letters(proxy.addr(0), 1) == "c");
        // A service that is gone has no target.
        names.set_service(service, &[]);
        until("no target is left", || targets(&proxy).is_empty());
        Peer::connect(proxy.addr(0)).rest_or_reset();
        until("it has failed", || proxy.figure("/closed/name_resolution_failure") >= 1);
    });
}

#[test]
fn a_client_that_comes_before_the_first_answer_about_a_service_waits_for_it() {
    if !has_namespaces() {
        return;
    }
    isolated("", |names| {
        let a = Server::start(b'a');
        names.set("host.example", &["127.0.0.1"], Duration::from_secs(2));
        names.set_service("web.service.consul", &[(0, 0, a.addr.port(), "host.example")]);
        let proxy = balanced("srv:web.service.consul", &[]);
        assert_eq!(letters(proxy.addr(0), 3), "aaa");
    });
}

#[test]
fn the_far_end_of_a_link_resolves_the_targets_of_a_list() {
    let (a, b) = (Server::start(b'a'), Server::start(b'b'));
    let scratch = kit::Scratch::new();
    let secret = scratch.write("secret", "0123456789abcdef0123456789abcdef");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let far = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--secret", &secret]);
    let to = format!("127.0.0.1:{},localhost:{},{}", closed_port(), a.addr.port(), b.addr);
    let near = balanced(&to, &["--via", &far.listens(0), "--secret", &secret, "--only", "ipv4"]);
    let got = letters(near.addr(0), 6);
    assert!(got.matches('a').count() == 3 && got.matches('b').count() == 3, "{got}");
    assert_eq!(targets(&near)[0].0, "left_out");
    near.wait_for_log(&["target left out", "reason=connection_refused"]);
    let refused = run(&["static", "-l", "0", "--to", "srv:_x._tcp.a", "--via", "127.0.0.1:1"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("the peer of a link looks up addresses alone"), "{refused:?}");
}

#[test]
fn a_reload_that_keeps_the_targets_keeps_what_is_known_of_them_and_a_new_list_holds_for_new_clients() {
    let (a, b, c) = (Server::start(b'a'), Server::start(b'b'), Server::start(b'c'));
    let scratch = kit::Scratch::new();
    let file = |to: &[&Server], more: &str| {
        let to: Vec<_> = to.iter().map(|server| format!("\"{}\"", server.addr)).collect();
        format!(
            "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nfront = \"static\"\nto = [{}]\n{more}",
            to.join(", ")
        )
    };
    let path = scratch.write("seaprox.toml", file(&[&a, &b], ""));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let proxy = Seaprox::start(&["run", &path]);
    let (kept, letter) = connect(proxy.addr(0));
    assert_eq!((letter, letters(proxy.addr(0), 2)), (b'a', "ba".to_owned()));
    let reload = |text: String, times: usize| {
        std::fs::write(&path, text).unwrap();
        proxy.signal(libc::SIGHUP);
        until("the file is read", || proxy.count_log(&["configuration reloaded"]) == times);
    };
    let opened = || {
        let status = proxy.status();
        let targets = status["listeners"][0]["targets"].as_array().expect("targets").clone();
        targets.iter().map(|it| it["opened"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(opened(), [2, 1]);
    reload(file(&[&a, &b], "idle-timeout = \"5m\"\n"), 1);
    assert_eq!(opened(), [2, 1], "the counts go on");
    assert_eq!(letters(proxy.addr(0), 1), "b", "the turns go on");
    reload(file(&[&b, &c], "idle-timeout = \"5m\"\n"), 2);
    let got = letters(proxy.addr(0), 4);
    assert!(got == "bcbc" || got == "cbcb", "{got}");
    assert!(a.clients() == 2 && kept.socket().take_error().unwrap().is_none());
}

#[test]
fn no_connection_fails_while_the_records_of_a_real_name_server_change_under_load() {
    if !(has_namespaces() && has("knotd")) {
        return;
    }
    isolated("", |_| {
        let (port, mut servers) = same_port(&["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        let knot = Knot::start(&format!(
            "web A 127.0.0.2\nweb A 127.0.0.3\na A 127.0.0.2\nb A 127.0.0.3\nc A 127.0.0.4\n\
             _web._tcp SRV 10 50 {port} a\n_web._tcp SRV 10 50 {port} b\n"
        ));
        let name = balanced(&format!("web.example.test:{port}"), &["--balance", "round-robin", "--threads", "2"]);
        let service = balanced("_web._tcp.example.test", &["--balance", "least-connections"]);
        let proxies = [&name, &service];
        until("both targets are known", || proxies.iter().all(|proxy| targets(proxy).len() == 2));
        let (changed, samples) = under_load(&[name.addr(0), service.addr(0)], || {
            until("both targets have clients", || servers[..2].iter().all(|server| server.clients() > 100));
            let srv = |verb: &str, host: &str| format!("{verb} _web._tcp 1 SRV 10 50 {port} {host}");
            let changed = Instant::now();
            knot.change(&[
                "zone-unset web A 127.0.0.2",
                "zone-set web 1 A 127.0.0.4",
                &srv("zone-unset", "a").replace(" 1 SRV", " SRV"),
                &srv("zone-set", "c"),
            ]);
            until("the new target has its share", || servers[2].clients() > 200);
            until("the old target has no connection", || {
                proxies.iter().all(|proxy| targets(proxy).iter().all(|it| it.0 == "up"))
            });
            // The old target may go now: no client notices.
            servers.remove(0);
            let later = servers[1].clients() + 200;
            until("clients go on", || servers[1].clients() > later);
            changed
        });
        assert!(samples.iter().all(|(_, letter)| letter.is_some()), "a connection failed");
        let first_of = |letter: u8| samples.iter().filter(|it| it.1 == Some(letter)).map(|it| it.0).min();
        let last_of = |letter: u8| samples.iter().filter(|it| it.1 == Some(letter)).map(|it| it.0).max();
        let (first, last) = (first_of(b'c').unwrap() - changed, last_of(b'a').unwrap() - changed);
        println!("{} connections; new target after {first:?}, none to the old one after {last:?}", samples.len());
        // The time to live is 1 s; a busy machine is late.
        assert!(first < Duration::from_secs(2) + kit::LATE && last < Duration::from_secs(2) + kit::LATE);
        let after: Vec<_> = samples.iter().filter(|it| it.0 > changed + last).collect();
        let share = after.iter().filter(|it| it.1 == Some(b'c')).count() as f64 / after.len() as f64;
        assert!((0.25..0.75).contains(&share), "{share} of the clients");
    });
}
