//! Names, address families, and every reason of a failed connect, in a network of the test's own (SP-24, SP-28, SP-31,
//! BS-18, TT-16), which has a hosts file, a scripted name server, black holes and unreachable networks.

use crate::kit;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::names::{black_hole, fill_the_hole, ip, isolated};
use kit::socks::{code5, connect5, request5};
use kit::{Peer, Seaprox, has_namespaces, http};

const NOW: Duration = Duration::ZERO;

fn socks(options: &[&str]) -> Seaprox {
    Seaprox::start(&[&["socks", "-v", "--listen", "127.0.0.1:0"], options].concat())
}

/// Returns listeners of both families on one port of loopback, and the port.
fn both_families() -> (TcpListener, TcpListener, u16) {
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = four.local_addr().unwrap().port();
    (four, TcpListener::bind(("::1", port)).unwrap(), port)
}

fn is_ipv6(peer: &Peer) -> bool {
    peer.local().is_ipv6()
}

/// Accepts a connection at one of two listeners.
fn accept_either(four: &TcpListener, six: &TcpListener) -> Peer {
    let mut got = None;
    for listener in [four, six] {
        listener.set_nonblocking(true).unwrap();
    }
    kit::until("one of the addresses is connected to", || {
        got = four.accept().or_else(|_| six.accept()).ok();
        got.is_some()
    });
    Peer::of(got.unwrap().0.into(), false)
}

#[test]
fn ipv6_is_preferred_unless_an_option_says_otherwise() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 twin\n::1 twin\n127.0.0.1 four\n::1 six\n", |_| {
        let (four, six, port) = both_families();
        for (options, expected) in [
            (&[][..], true),
            (&["--prefer", "ipv6"], true),
            (&["--prefer", "ipv4"], false),
            (&["--only", "ipv6"], true),
            (&["--only", "ipv4"], false),
        ] {
            let proxy = socks(options);
            assert_eq!(code5(proxy.addr(0), "twin", port), 0);
            assert_eq!(is_ipv6(&accept_either(&four, &six)), expected, "{options:?}");
        }
        // The preferred family is absent.
        assert_eq!(code5(socks(&[]).addr(0), "four", port), 0);
        assert!(!is_ipv6(&accept_either(&four, &six)));
        assert_eq!(code5(socks(&["--prefer", "ipv4"]).addr(0), "six", port), 0);
        assert!(is_ipv6(&accept_either(&four, &six)));
        // The permitted family is absent.
        let proxy = socks(&["--only", "ipv6"]);
        assert_eq!(code5(proxy.addr(0), "four", port), 4);
        proxy.wait_for_log(&[" closed ", "reason=name_resolution_failure"]);
    });
}

/// Connects a client from a source address and sends its SOCKS5 request.
fn asks_from(ip: &str, proxy: SocketAddr, name: &str) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&proxy.into()).unwrap();
    let mut peer = Peer::of(socket, true);
    let mut all = b"\x05\x01\0".to_vec();
    all.extend(request5(name, 80));
    peer.run(&[Put(&all)]);
    peer
}

#[test]
fn unanswered_names_of_one_client_do_not_delay_another() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 localhost\n", |server| {
        server.swallow(".slow.test");
        server.set("good.test", &["127.0.0.1"], NOW);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = socks(&[]);
        // More than a quarter of the lookups that may wait.
        let names = (0..300).map(|number| format!("n{number}.slow.test"));
        let _slow: Vec<Peer> = names.map(|name| asks_from("127.0.0.2", proxy.addr(0), &name)).collect();
        proxy.wait_for_log(&[" closed ", "127.0.0.2", "reason=limit_reached"]);
        let port = listener.local_addr().unwrap().port();
        assert_eq!(code5(proxy.addr(0), "good.test", port), 0, "another client's name is looked up");
    });
}

#[test]
fn after_a_refusal_the_other_address_family_is_tried_and_logged() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 twin\n::1 twin\n", |_| {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = four.local_addr().unwrap().port();
        let proxy = socks(&[]);
        assert_eq!(code5(proxy.addr(0), "twin", port), 0);
        Peer::accept(&four);
        proxy.wait_for_log(&["DEBUG", "address failed", &format!("[::1]:{port}"), "refused"]);
        drop(four);
        let six = TcpListener::bind("[::1]:0").unwrap();
        let port = six.local_addr().unwrap().port();
        let proxy = socks(&["--prefer", "ipv4"]);
        assert_eq!(code5(proxy.addr(0), "twin", port), 0);
        Peer::accept(&six);
        proxy.wait_for_log(&["DEBUG", "address failed", &format!("127.0.0.1:{port}"), "refused"]);
        // Not a port that has had a listener: a process that another test is starting may hold the listener until it runs.
        assert_eq!(code5(proxy.addr(0), "twin", kit::closed_port()), 5, "both addresses refuse");
    });
}

/// The gate `relay-next-address` checks that it is not later.
#[test]
fn an_address_without_an_answer_is_passed_over_after_250_ms() {
    if !has_namespaces() {
        return;
    }
    isolated("2001:db8::7 holed\n127.0.0.1 holed\n", |_| {
        black_hole();
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = socks(&[]);
        let since = Instant::now();
        assert_eq!(code5(proxy.addr(0), "holed", four.local_addr().unwrap().port()), 0);
        let took = since.elapsed();
        assert!((Duration::from_millis(230)..kit::LATE).contains(&took), "{took:?}");
        Peer::accept(&four);
        proxy.wait_for_log(&[" closed ", "dialled=ipv4[127.0.0.1:"]);
        assert_eq!(proxy.figure("/usage/sides"), 0, "the loser of the race is gone");
    });
}

#[test]
fn a_slow_name_does_not_delay_other_connections() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 filed\n", |server| {
        server.set("slow", &["127.0.0.1"], Duration::from_secs(10));
        server.set("quick", &["127.0.0.1"], NOW);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = socks(&["--connect-timeout", "15s"]);
        let addr = proxy.addr(0);
        let begun = Instant::now();
        thread::scope(|scope| {
            let slow = scope.spawn(move || (code5(addr, "slow", port), begun.elapsed()));
            kit::until("the slow name is asked for", || server.asked("slow") > 0);
            let seen = proxy.status();
            assert_eq!(seen.pointer("/connections/0/stage").and_then(|stage| stage.as_str()), Some("connecting"));
            assert_eq!(seen.pointer("/connections/0/dest/state").and_then(|state| state.as_str()), Some("connecting"));
            for host in ["127.0.0.1", "filed", "quick"] {
                let took = || {
                    let since = Instant::now();
                    assert_eq!(code5(addr, host, port), 0);
                    since.elapsed()
                };
                // A real delay slows every lookup; a busy machine slows only some.
                let fastest = (0..20).map(|_| took()).min().unwrap();
                assert!(fastest < Duration::from_millis(100), "the fastest {host} took {fastest:?}");
            }
            assert!(!slow.is_finished(), "the others are served before the slow name is resolved");
            let (code, took) = slow.join().unwrap();
            assert_eq!(code, 0);
            assert!((9..15).contains(&took.as_secs()), "{took:?}");
        });
    });
}

#[test]
fn a_lookup_times_out_after_the_connect_timeout() {
    if !has_namespaces() {
        return;
    }
    isolated("", |server| {
        server.set("slow", &["127.0.0.1"], Duration::from_secs(30));
        let proxy = socks(&["--connect-timeout", "700ms"]);
        let since = Instant::now();
        assert_eq!(code5(proxy.addr(0), "slow", 1), 6);
        assert!((200..5000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
        proxy.wait_for_log(&[" closed ", "reason=timed_out"]);
    });
}

#[test]
fn one_lookup_serves_many_connections_until_a_connect_fails() {
    if !has_namespaces() {
        return;
    }
    isolated("", |server| {
        server.set("moving", &["127.0.0.1"], Duration::from_millis(50));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = socks(&[]);
        let addr = proxy.addr(0);
        thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(move || assert_eq!(code5(addr, "moving", port), 0));
            }
        });
        for _ in 0..20 {
            assert_eq!(code5(addr, "moving", port), 0);
        }
        assert_eq!((proxy.figure("/lookups"), server.asked("moving")), (1, 1));
        // The target moves. The cached address refuses, so the name is resolved again.
        drop(listener);
        // A process that another test is starting may hold the listener until it runs.
        kit::until("the old address refuses", || TcpStream::connect(("127.0.0.1", port)).is_err());
        server.set("moving", &["127.0.0.2"], NOW);
        let _elsewhere = TcpListener::bind(("127.0.0.2", port)).unwrap();
        assert_eq!(code5(addr, "moving", port), 0);
        assert_eq!((proxy.figure("/lookups"), server.asked("moving")), (2, 2));
        // Without a cache every connection resolves the name.
        let proxy = socks(&["--dns-cache", "0"]);
        for _ in 0..3 {
            assert_eq!(code5(proxy.addr(0), "moving", port), 0);
        }
        assert_eq!(proxy.figure("/lookups"), 3);
    });
}

/// Connects to a target through SOCKS5, SOCKS4 and HTTP. Checks the replies, and the reason in the log.
#[track_caller]
fn assert_reason(options: &[&str], host: &str, port: u16, socks5: u8, status: u16, reason: &str, detail: &str) {
    let proxy = socks(options);
    let reply = connect5(proxy.addr(0), host, port).1;
    assert_eq!(reply, [5, socks5, 0, 1, 0, 0, 0, 0, 0, 0], "{host}");
    let line = proxy.wait_for_log(&[" closed ", &format!("reason={reason} ")]);
    assert!(line.contains("end=aborted") && line.contains(detail), "{detail} in {line}");
    assert_eq!(proxy.figure(&format!("/closed/{reason}")), 1);
    let mut old = Peer::connect(proxy.addr(0));
    old.run(&[Put(&kit::socks::request4(host, port)), Take(b"\0\x5b\0\0\0\0\0\0"), ReadAll]);
    let proxy = Seaprox::start(&[&["http", "--listen", "127.0.0.1:0"], options].concat());
    let to = SocketAddr::new(host.parse().unwrap_or([0, 0, 0, 0].into()), port);
    let to = if to.ip().is_unspecified() { format!("{host}:{port}") } else { to.to_string() };
    for request in [format!("CONNECT {to} HTTP/1.1"), format!("GET http://{to}/ HTTP/1.1")] {
        let answer = http::ask(proxy.addr(0), &format!("{request}\r\nHost: x\r\n\r\n"));
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, status, "{request}");
        assert!(text.contains(reason) && text.contains(detail), "{text:?}");
    }
    proxy.wait_for_log(&[" closed ", &format!("reason={reason} ")]);
}

#[test]
fn each_failure_reason_is_in_the_socks_reply_the_http_status_and_the_log() {
    if !has_namespaces() {
        return;
    }
    isolated("", |server| {
        black_hole();
        ip("route add unreachable 203.0.113.1");
        ip("route add blackhole 203.0.113.2");
        server.set("denied", &["127.0.0.1"], NOW);
        server.set("empty", &[], NOW);
        assert_reason(&[], "nowhere", 80, 4, 502, "name_resolution_failure", "");
        assert_reason(&[], "empty", 80, 4, 502, "name_resolution_failure", "");
        assert_reason(&[], "127.0.0.1", 1, 5, 502, "connection_refused", "refused");
        assert_reason(&[], "::1", 1, 5, 502, "connection_refused", "refused");
        assert_reason(&["--connect-timeout", "300ms"], "198.51.100.7", 80, 6, 504, "timed_out", "300ms");
        assert_reason(&[], "192.0.2.1", 80, 3, 502, "network_unreachable", "nreachable");
        assert_reason(&[], "203.0.113.1", 80, 4, 502, "host_unreachable", "oute to host");
        assert_reason(&["--deny", "127.0.0.0/8"], "127.0.0.1", 80, 2, 403, "not_permitted", "rule");
        assert_reason(&["--deny", "127.0.0.0/8"], "denied", 80, 2, 403, "not_permitted", "rule");
        assert_reason(&[], "203.0.113.2", 80, 1, 502, "other", "nvalid argument");
    });
}

/// Creates an interface d0 with the address fe80::77.
fn link_local() {
    ip("link add d0 type veth peer name d0-end");
    ip("link set d0-end up");
    ip("link set d0 up");
    ip("addr add fe80::77/64 dev d0 nodad");
}

#[test]
fn an_address_may_have_a_zone_in_every_position() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        link_local();
        let origin = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = origin.local_addr().unwrap().to_string();
        // In the address to listen on, and in the target.
        let zoned = Seaprox::start(&["static", "--listen", "[fe80::77%d0]:0", "--to", &to]);
        let port = zoned.addr(0).port();
        assert!(matches!(zoned.addr(0), SocketAddr::V6(addr) if addr.scope_id() > 0), "{}", zoned.addr(0));
        let target = format!("[fe80::77%d0]:{port}");
        let plain = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", &target]);
        let through = |client: &mut Peer| {
            let mut server = Peer::accept(&origin);
            kit::peer::both(client, &[Swap(1000)], &mut server, &[Swap(1000)]);
        };
        through(&mut Peer::connect(plain.addr(0)));
        plain.wait_for_log(&[" closed ", &format!("asked={target} dialled=ipv6[[fe80::77%")]);
        // As the name in a SOCKS request, and in a URI.
        let open = socks(&[]);
        let (mut client, reply) = connect5(open.addr(0), "fe80::77%d0", port);
        assert_eq!(reply[1], 0);
        through(&mut client);
        let proxy = socks(&["--deny", "fe80::/10"]);
        assert_eq!(code5(proxy.addr(0), "fe80::77%d0", port), 2, "a rule about addresses sees the address");
        assert_eq!(code5(proxy.addr(0), "fe80::77%d1", port), 4);
        proxy.wait_for_log(&[" closed ", "reason=name_resolution_failure ", "no interface d1"]);
        let web = Seaprox::start(&["http", "--listen", "127.0.0.1:0"]);
        for zone in ["%d0", "%25d0"] {
            let request = format!("CONNECT [fe80::77{zone}]:{port} HTTP/1.1\r\nHost: x\r\n\r\n");
            Peer::connect(web.addr(0)).run(&[Put(request.as_bytes()), Take(b"HTTP/1.1 200 ")]);
        }
    });
}

#[test]
fn the_addresses_and_paths_of_links_may_have_a_zone() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        link_local();
        let (scratch, origin) = (kit::Scratch::new(), TcpListener::bind("[::1]:0").unwrap());
        let (config, near_key) = (scratch.file("config"), scratch.file("key"));
        let key = String::from_utf8(kit::run(&["keygen", "--key", &near_key]).out).unwrap();
        let keys =
            scratch.write("authorized_keys", format!("permit-open=\"*\",permit-listen=\"[fe80::77%d0]:*\" {key}"));
        let line = ["link", "--listen", "[fe80::77%d0]:0", "--config-dir", &config, "--authorized-keys", &keys];
        let far = Seaprox::start(&line);
        let far_key = || far.out().iter().find_map(|line| line.strip_prefix("key ").map(str::to_owned));
        kit::until("the far end prints its key", || far_key().is_some());
        let (peer, to) = (format!("[fe80::77%d0]:{}", far.addr(0).port()), origin.local_addr().unwrap());
        let (far_key, forward) = (far_key().unwrap(), format!("127.0.0.1:0:[::1%lo]:{}", to.port()));
        let line = ["link", "--connect", &peer, "--path", "[fe80::77%d0]", "--key", &near_key, "--peer-key", &far_key];
        let (back, astray) =
            (format!("[fe80::77%d0]:0:[::1]:{}", to.port()), format!("[fe80::77%d1]:0:[::1]:{}", to.port()));
        let words = [&line[..], &["-L", &forward, "-R", &back, "-R", &astray]].concat();
        let near = Seaprox::start(&words);
        let mut client = Peer::connect(near.addr(0));
        let mut server = Peer::accept(&origin);
        kit::peer::both(&mut client, &[Swap(1000)], &mut server, &[Swap(1000)]);
        drop((client, server));
        near.wait_for_log(&[" closed ", &format!("via={peer} ")]);
        // In the listening address of a remote forward, which the permission names with the zone.
        let place = || near.out().iter().find_map(|line| line.strip_prefix("listening remote ").map(str::to_owned));
        kit::until("the far end listens", || place().is_some());
        let place = place().unwrap();
        let place = place.split(' ').next().unwrap();
        assert!(place.starts_with("[fe80::77%d0]:") && !place.ends_with(":0"), "{place}");
        let to_place = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", place]);
        let mut client = Peer::connect(to_place.addr(0));
        let mut server = Peer::accept(&origin);
        kit::peer::both(&mut client, &[Swap(1000)], &mut server, &[Swap(1000)]);
        far.wait_for_log(&["asked to listen", "place=[fe80::77%d1]:0", "reason=not_permitted"]);
    });
}

/// The system reports EADDRNOTAVAIL in both cases: no source address, and no source port.
#[test]
fn no_free_source_port_is_limit_reached_and_no_source_address_is_network_unreachable() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (to, set) = (listener.local_addr().unwrap(), |name: &str, value: &str| {
            std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
        });
        let (ports, addresses) = (socks(&[]), socks(&[]));
        let web = Seaprox::start(&["http", "--listen", "127.0.0.1:0"]);
        set("ipv6/conf/all/disable_ipv6", "1");
        assert_eq!(code5(addresses.addr(0), "::1", to.port()), 3);
        addresses.wait_for_log(&[" closed ", "reason=network_unreachable ", "os error 99"]);
        // There are four source ports, and all of them have a connection to the target already.
        set("ipv4/ip_local_port_range", "40000 40003");
        let _taken: Vec<TcpStream> = std::iter::from_fn(|| TcpStream::connect(to).ok()).take(5).collect();
        assert_eq!(code5(ports.addr(0), "127.0.0.1", to.port()), 1);
        ports.wait_for_log(&[" closed ", "reason=limit_reached ", "by=proxy", "no source port is left"]);
        let answer = http::ask(web.addr(0), &format!("CONNECT {to} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(answer.status, 503);
    });
}

#[test]
fn too_many_waiting_names_end_with_limit_reached() {
    if !has_namespaces() {
        return;
    }
    isolated("", |server| {
        // No query is answered, so the names wait in the queue, whose length is limited.
        for number in 0..1200 {
            server.set(&format!("n{number}"), &["127.0.0.1"], Duration::from_secs(600));
        }
        let proxy = socks(&["--connect-timeout", "60s"]);
        let queue = proxy.figure("/limits/lookups");
        let mut waiting = Vec::new();
        for number in 0..queue + 10 {
            // Four clients, each with a quarter of the queue.
            let mut client = asks_from(&format!("127.0.0.{}", 1 + number % 4), proxy.addr(0), &format!("n{number}"));
            client.run(&[Take(b"\x05\0")]);
            waiting.push(client);
        }
        let line = proxy.wait_for_log(&[" closed ", "reason=limit_reached ", "by=proxy"]);
        assert!(line.contains("too many names"), "{line}");
        let mut last = waiting.pop().unwrap();
        assert_eq!(kit::socks::reply5(&mut last)[1], 1);
        let closed = proxy.figure("/closed/limit_reached");
        assert!((1..=10).contains(&closed), "{closed} of {queue}");
    });
}

#[test]
fn an_unanswered_connect_ends_with_timed_out() {
    if !has_namespaces() {
        return;
    }
    isolated("198.51.100.7 holed\n2001:db8::7 holed\n", |_| {
        black_hole();
        for host in ["198.51.100.7", "2001:db8::7", "holed"] {
            let proxy = socks(&["--connect-timeout", "2s"]);
            let since = Instant::now();
            assert_eq!(code5(proxy.addr(0), host, 80), 6);
            let took = since.elapsed().as_millis();
            assert!((1500..5000).contains(&took), "{host} took {took} ms");
            let line = proxy.wait_for_log(&[" closed ", "reason=timed_out ", "by=dest"]);
            assert!(line.contains("detail=\"no answer within 2s\""), "{line}");
            assert_eq!(proxy.figure("/usage/sides"), 0);
        }
    });
}

#[test]
fn the_status_shows_a_connect_under_way() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        black_hole();
        let to = "198.51.100.7:80";
        let proxy = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", to, "--connect-timeout", "30s"]);
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(b"early")]);
        kit::until("the proxy is connecting", || proxy.figure("/usage/connections") == 1);
        let status = proxy.status();
        let word = |pointer: &str| status.pointer(pointer).and_then(|word| word.as_str()).unwrap_or("").to_owned();
        assert_eq!(word("/connections/0/stage"), "connecting");
        assert_eq!(word("/connections/0/source/state"), "connected");
        assert_eq!(word("/connections/0/dest/state"), "connecting");
        assert_eq!(word("/connections/0/conn"), format!("static[ipv4[{}]->ipv4[{to}]]", client.local()));
        client.run(&[Rst]);
        proxy.wait_for_log(&[" closed ", "reason=source_reset"]);
        assert_eq!(proxy.figure("/usage/sides"), 0, "the dial ends with its client");
    });
}

/// The states are idle, connecting and connected (SP-19).
#[test]
fn the_status_shows_each_state_of_a_dest() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        black_hole();
        let listener = TcpListener::bind("198.51.100.7:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = socks(&["--connect-timeout", "30s", "--handshake-timeout", "30s"]);
        let is_in = |state: &str| kit::until(state, || proxy.status()["connections"][0]["dest"]["state"] == state);
        let mut client = Peer::connect(proxy.addr(0));
        is_in("idle");
        let place = format!("unix:{}", proxy.scratch().file("status"));
        let text = String::from_utf8(kit::run(&["status", "--status", &place]).out).unwrap();
        assert!(text.contains("->none[]] handshake\n") && text.ends_with("  dest   - idle\n"), "{text}");
        client.run(&[Put(b"\x05\x01\0"), Take(b"\x05\0"), Put(&request5("198.51.100.7", port))]);
        is_in("connecting");
        fill_the_hole();
        let _server = Peer::accept(&listener);
        is_in("connected");
    });
}

#[test]
fn ipv4_ipv6_and_names_are_targets_of_every_front_end() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 twin\n::1 twin\n", |_| {
        let (four, six, port) = both_families();
        let proxy = socks(&[]);
        let web = Seaprox::start(&["http", "--listen", "127.0.0.1:0"]);
        for host in ["127.0.0.1", "::1", "twin"] {
            let written = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let fixed = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", &written]);
            let _through_static = Peer::connect(fixed.addr(0));
            accept_either(&four, &six);
            assert_eq!(code5(proxy.addr(0), host, port), 0);
            accept_either(&four, &six);
            let connect = format!("CONNECT {written} HTTP/1.1\r\nHost: {written}\r\n\r\n");
            assert_eq!(http::ask(web.addr(0), &connect).status, 200, "{written}");
            accept_either(&four, &six);
        }
    });
}

/// The name of a peer leads to another node with the same key when the second subflow is dialed. The subflow is refused
/// there and dialed again to the node that has the session.
#[test]
fn a_subflow_is_redialed_to_the_address_of_the_node_that_has_its_session() {
    if !has_namespaces() {
        return;
    }
    isolated("", |server| {
        let scratch = kit::Scratch::new();
        let (near_home, far_home) = (scratch.file("near"), scratch.file("far"));
        let key = |home: &str| {
            assert_eq!(kit::run(&["keygen", "--config-dir", home]).code, Some(0));
            String::from_utf8(kit::run(&["pubkey", "--config-dir", home]).out).unwrap()
        };
        let (near_key, far_key) = (key(&near_home), key(&far_home));
        scratch.write("far/authorized_keys", format!("permit-open=\"*\" {near_key}"));
        scratch.write("near/known_nodes", format!("far:23232 {far_key}"));
        let paths = scratch.write("paths", "127.0.0.1\n");
        let far = |addr: &str| Seaprox::start(&["link", "--listen", addr, "--config-dir", &far_home]);
        let (one, _two) = (far("127.0.0.2:23232"), far("127.0.0.3:23232"));
        server.set("far", &["127.0.0.2"], NOW);
        let words = ["link", "--connect", "far", "--config-dir", &near_home, "--paths", &paths, "-D", "0"];
        let near = [&words[..], &["--carrier", "tcp", "--dns-cache", "0", "--only", "ipv4"]].concat();
        let near = Seaprox::spawn(&near, |_| {});
        near.wait_for_log(&["link up"]);
        server.set("far", &["127.0.0.3"], NOW);
        scratch.write("paths", "127.0.0.1\n127.0.0.4\n");
        near.signal(libc::SIGHUP);
        near.wait_for_log(&["no subflow", "another node answered"]);
        let live = |node: &Seaprox| {
            let status = node.status();
            let subflows = status.pointer("/links/0/subflows").and_then(|subflows| subflows.as_array().cloned());
            subflows.unwrap_or_default().iter().filter(|subflow| subflow["state"] == "live").count()
        };
        kit::until("both subflows are at the first node", || live(&one) == 2 && live(&near) == 2);
        assert_eq!(near.count_log(&["link ended"]), 0);
    });
}

/// The system may connect a socket to itself if the target port is in the range of local ports and has no listener.
#[test]
fn a_connection_to_itself_is_refused() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        // Each case has a port of its own, because the port of the case before may still be in TIME_WAIT.
        for (to, port) in [("127.0.0.1", 40_000), ("[::1]", 40_001), ("0.0.0.0", 40_002)] {
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", format!("{port} {port}")).unwrap();
            let scratch = kit::Scratch::new();
            let (place, to) = (format!("unix:{}", scratch.file("front")), format!("{to}:{port}"));
            let proxy = Seaprox::start(&["static", "--listen", &place, "--to", &to]);
            let _client = Peer::connect_unix(scratch.file("front").as_ref());
            proxy.wait_for_log(&[" closed ", &to, "reason=connection_refused"]);
        }
    });
}

const NEVER: &[&str] = &["--dns-cache", "1h", "--connect-timeout", "1s"];

#[test]
fn a_name_whose_address_stops_answering_is_resolved_again() {
    if !has_namespaces() {
        return;
    }
    isolated("", |server| {
        server.set("moves", &["198.51.100.7"], NOW);
        black_hole();
        fill_the_hole();
        let four = TcpListener::bind("0.0.0.0:0").unwrap();
        let to = format!("moves:{}", four.local_addr().unwrap().port());
        let proxy = Seaprox::start(&[&["static", "--listen", "127.0.0.1:0", "--to", &to], NEVER].concat());
        let mut client = Peer::connect(proxy.addr(0));
        let mut held = Peer::accept(&four);
        client.run(&[Put(b"x")]);
        held.run(&[Take(b"x")]);
        server.set("moves", &["127.0.0.1"], NOW);
        swallow_again();
        let mut lost = Peer::connect(proxy.addr(0));
        proxy.wait_for_log(&[" closed ", "reason=timed_out"]);
        assert_eq!(lost.rest(), b"");
        let mut client = Peer::connect(proxy.addr(0));
        let mut moved = Peer::accept(&four);
        client.run(&[Put(b"x")]);
        moved.run(&[Take(b"x")]);
    });
}

/// The node at the address of a name stops answering, and a node with the same key is at another address.
#[test]
fn a_link_follows_the_name_of_its_peer_to_a_new_address() {
    if !has_namespaces() {
        return;
    }
    isolated("", |server| {
        server.set("moves", &["198.51.100.7"], NOW);
        black_hole();
        fill_the_hole();
        let scratch = kit::Scratch::new();
        let (near_home, far_home) = (scratch.file("near"), scratch.file("far"));
        let key = |home: &str| String::from_utf8(kit::run(&["keygen", "--config-dir", home]).out).unwrap();
        let (near_key, far_key) = (key(&near_home), key(&far_home));
        scratch.write("far/authorized_keys", near_key);
        let far = |at: &str| Seaprox::start(&["link", "--listen", at, "--config-dir", &far_home]);
        let old = far("198.51.100.7:0");
        let port = old.addr(0).port();
        let new = far(&format!("127.0.0.1:{port}"));
        let peer = format!("moves:{port}");
        scratch.write("near/known_nodes", format!("{peer} {far_key}"));
        let line = ["link", "--connect", &peer, "--config-dir", &near_home, "-D", "127.0.0.1:0"];
        let timers = ["--link-keepalive", "500ms", "--link-dead", "2s"];
        let near = Seaprox::start(&[&line[..], &timers, NEVER].concat());
        near.wait_for_log(&["link up"]);
        server.set("moves", &["127.0.0.1"], NOW);
        swallow_again();
        kit::until("the other node has the link", || {
            new.status().pointer("/links/0/state").is_some_and(|state| state == "up")
        });
        assert_eq!(old.count_log(&["link up"]), 1);
    });
}

/// Makes 198.51.100.7, an address of this network, drop all packets again.
fn swallow_again() {
    let rules = "table inet hole { chain in { type filter hook input priority 0; ip daddr 198.51.100.7 drop; }; }";
    let ran = std::process::Command::new("nft").arg(rules).output().unwrap();
    assert!(ran.status.success(), "nft: {}", String::from_utf8_lossy(&ran.stderr));
}
