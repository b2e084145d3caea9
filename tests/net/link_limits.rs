//! Limits and timers of a link between real processes in a network of the test's own: rates and streams per key,
//! the timers of a target and of a stream (TT-16, TT-18), the end of a link with its streams and listeners (TN-13), and
//! the client address that a site sees (BS-01).

use crate::kit;
use crate::net_kit;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::socks::connect5;
use kit::{Peer, Seaprox, has, until};
use net_kit::home::{far_line, homes, near_line};
use net_kit::nodes::{Forward, Nodes, Options, front, start};
use net_kit::{Host, Kind, Net, has_net, own_ip};

/// Asks a node's SOCKS port for a target, and returns the connection and the code of the answer.
#[track_caller]
fn socks(near: &Host, node: &Seaprox, port: u16) -> (Peer, u8) {
    let proxy = front(node, "socks");
    let (client, reply) = near.inside(|| connect5(proxy, "127.0.0.1", port));
    (client, reply[1])
}

#[test]
fn the_rate_and_stream_limits_of_a_key_hold_for_all_its_links_and_change_at_once() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let (near_home, far_home) = homes("rate=8mbit,max-streams=2,permit-open=\"*\"");
    let far = start(net.far(), &far_line(&far_home));
    let nears = [0, 1].map(|_| start(net.near(), &near_line(&near_home, &["-D", "127.0.0.1:0"])));
    // One connection over each of two links of the key; a third is refused over either link.
    let mut pairs = nears.each_ref().map(|near| {
        let (client, code) = socks(net.near(), near, port);
        assert_eq!(code, 0);
        (client, Peer::accept(&listener))
    });
    for near in &nears {
        assert_eq!(socks(net.near(), near, port).1, 1, "a general failure (RFC 1928, section 6)");
        near.wait_for_log(&[" closed ", "reason=limit_reached"]);
    }
    // Both links together get one megabyte per second in each direction.
    for upwards in [true, false] {
        let took = pass(&mut pairs, upwards, 1_000_000);
        println!("2 MB over two links at 8 Mbit/s together: {took:?}");
        assert!(took > Duration::from_millis(1500), "{took:?}");
    }
    far_home.write("authorized_keys", &format!("max-streams=3,permit-open=\"*\" {}\n", near_home.key()));
    far.wait_for_log(&["keys read again"]);
    let took = pass(&mut pairs, false, 8_000_000);
    println!("16 MB without a rate: {took:?}");
    assert!(took < Duration::from_secs(12), "the old rate would take sixteen seconds: {took:?}");
    let (_third, code) = socks(net.near(), &nears[0], port);
    assert_eq!(code, 0);
    assert_eq!(socks(net.near(), &nears[1], port).1, 1);
}

/// A link has at most 256 listeners at the far end. One more is logged once and shown in the status, and ends the node
/// only with `--exit-on-failure`; the others work.
#[test]
fn a_remote_listener_beyond_the_limit_is_reported() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near_home, far_home) = homes("permit-listen=\"*\"");
    let _far = start(net.far(), &far_line(&far_home));
    let inner = net.near().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let forward = format!("0:{}", inner.local_addr().unwrap());
    let options = ["-R", &forward].repeat(257);
    let near = start(net.near(), &near_line(&near_home, &options));
    near.wait_for_log(&["the peer does not listen", "reason=limit_reached"]);
    let is_remote = |line: &String| line.starts_with("listening remote ");
    until("all the other listeners are up", || near.out().iter().filter(|line| is_remote(line)).count() == 256);
    let status = near.status();
    let listeners = status.pointer("/links/0/listeners").and_then(|all| all.as_array().cloned()).unwrap();
    let failed = |listener: &&serde_json::Value| listener.to_string().contains("limit_reached");
    assert_eq!((listeners.len(), listeners.iter().filter(failed).count()), (257, 1), "{status}");
    let line = near.out().into_iter().find(is_remote).unwrap();
    let port: u16 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
    let _user = net.far().inside(|| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap());
    inner.accept().unwrap();
    assert_eq!(near.count_log(&["reason=limit_reached"]), 1);

    // The process writes nothing to standard output before it knows that it will keep running, so the test waits for no
    // line.
    let line = near_line(&near_home, &[&options[..], &["--exit-on-failure"]].concat());
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    let mut strict = Seaprox::spawn(&words, |command| net.near().enter(command));
    assert_eq!(strict.wait(kit::SOON).code(), Some(69));
    assert!(!strict.out().iter().any(|line| line.starts_with("listening link ")), "{:?}", strict.out());
    assert!(strict.log().last().unwrap().contains("limit_reached"), "{:?}", strict.log());
}

/// Passes this many bytes over each of the connections at once, and returns the time that they took.
fn pass(pairs: &mut [(Peer, Peer)], upwards: bool, count: u64) -> Duration {
    let since = Instant::now();
    thread::scope(|scope| {
        for (client, server) in pairs {
            let (from, to) = if upwards { (client, server) } else { (server, client) };
            scope.spawn(move || _ = from.run(&[Send(count)]));
            scope.spawn(move || _ = to.run(&[Read(count)]));
        }
    });
    since.elapsed()
}

/// The shorter timer of the two nodes applies. Gate `link-connect-timeout` measures its precision.
#[test]
fn a_silent_target_ends_with_the_shorter_connect_timeout() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let target = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = target.local_addr().unwrap().port();
    net.far().nft(&format!(
        "table inet hole {{ chain in {{ type filter hook input priority -300; iifname lo tcp dport {port} drop; }}; }}\n"
    ));
    for (near, far) in [("2s", "15s"), ("15s", "2s")] {
        let options = Options {
            near: &["-D", "127.0.0.1:0", "--connect-timeout", near],
            far: &["--connect-timeout", far],
            ..Options::default()
        };
        let nodes = Nodes::start(&net, options);
        let since = Instant::now();
        let (_, code) = socks(net.near(), &nodes.near, port);
        let took = since.elapsed();
        println!("near {near}, far {far}: {took:?}");
        assert_eq!(code, 6, "TTL expired (RFC 1928, section 6)");
        assert!((Duration::from_millis(1500)..2 * kit::LATE).contains(&took), "{took:?}");
        nodes.near.wait_for_log(&[" closed ", "reason=timed_out"]);
    }
}

/// Gate `link-idle-timeout` measures the precision of the timer.
#[test]
fn a_silent_stream_ends_after_the_idle_timeout() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    for (near, far) in [(&["--idle-timeout", "2s"][..], &[][..]), (&[], &["--idle-timeout", "2s"])] {
        let forward = Forward::start(&net, Options { near, far, ..Options::default() });
        let (mut client, mut server) = forward.peers();
        // A stream that carries a byte now and then is not idle.
        for _ in 0..3 {
            client.run(&[Pause(1000), Send(10)]);
            server.run(&[Read(10)]);
        }
        let since = Instant::now();
        let ends = [&mut client, &mut server].map(|peer| peer.some().map_or(0, |bytes| bytes.len()));
        assert_eq!(ends, [0, 0], "each client gets an end or a reset, and no byte");
        let took = since.elapsed();
        assert!((Duration::from_millis(1500)..2 * kit::LATE).contains(&took), "{took:?}");
        let node = if near.is_empty() { &forward.nodes.far } else { &forward.nodes.near };
        node.wait_for_log(&[" closed ", "reason=idle_timeout"]);
    }
}

/// Either node ends the link: all its streams end at both nodes, and its listeners are closed. Gate `link-end` measures
/// how soon.
#[test]
fn the_end_of_a_link_ends_its_streams_and_listeners() {
    if !has_net() {
        return;
    }
    for is_near in [true, false] {
        let net = Net::of(&[Kind::Veth]);
        let inner = net.near().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let back = format!("2222:{}", inner.local_addr().unwrap());
        let mut forward = Forward::start(&net, Options { near: &["-R", &back], ..Options::default() });
        let mut ends = Vec::new();
        for _ in 0..5 {
            let (mut client, mut server) = forward.peers();
            client.run(&[Send(1000)]);
            server.run(&[Read(1000)]);
            ends.extend([client, server]);
        }
        let at = SocketAddr::from(([127, 0, 0, 1], 2222));
        until("the remote port listens", || net.far().run("ss -Hltn").contains(":2222 "));
        ends.push(net.far().inside(|| Peer::connect(at)));
        ends.push(Peer::accept(&inner));
        let since = Instant::now();
        let node = if is_near { &mut forward.nodes.near } else { &mut forward.nodes.far };
        node.signal(libc::SIGINT);
        for end in &mut ends {
            assert_eq!(end.some().map_or(0, |bytes| bytes.len()), 0);
        }
        until("nothing listens", || !net.far().run("ss -Hltn").contains(":2222 "));
        println!("streams and listeners ended after {:?}", since.elapsed());
        assert!(since.elapsed() < 2 * kit::LATE, "{:?}", since.elapsed());
        assert_eq!(node.wait(kit::SOON).code(), Some(0));
        let left = if is_near { &forward.nodes.far } else { &forward.nodes.near };
        until("the other node has no connection left", || left.figure("/usage/connections") == 0);
        let states: Vec<serde_json::Value> =
            left.status()["links"].as_array().unwrap().iter().map(|link| link["state"].clone()).collect();
        let wished: Vec<serde_json::Value> = if is_near { Vec::new() } else { vec!["connecting".into()] };
        assert_eq!(states, wished);
    }
}

/// The site is reachable from both hosts and records the address of each client.
#[test]
fn a_site_sees_the_far_node_and_not_the_near_one() {
    if !(has_net() && has("curl")) {
        return;
    }
    let mut net = Net::of(&[Kind::Veth]);
    let site = net.add_host("site");
    net.join(1, site, Kind::Veth);
    net.join(0, site, Kind::Veth);
    let seen: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
    let listener = net.host(site).inside(|| TcpListener::bind("0.0.0.0:80").unwrap());
    let log = Arc::clone(&seen);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            log.lock().unwrap().push(client.peer_addr().unwrap().ip());
            thread::spawn(move || answer(client));
        }
    });
    let nodes = Nodes::start(&net, Options { near: &["-D", "127.0.0.1:0"], ..Options::default() });
    let proxy = nodes.front("socks").to_string();
    let page = format!("http://{}/part[0-20]", own_ip(site));
    let get = |options: &[&str]| {
        let mut command = net.near().command("curl");
        command.args(["-sS", "--max-time", "20", "-Z"]).args(options).arg(&page);
        let ran = kit::seaprox::run_command(command, b"");
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert_eq!(ran.out.iter().filter(|byte| **byte == b'\n').count(), 21, "a page and its twenty parts");
        std::mem::take(&mut *seen.lock().unwrap())
    };
    let near = IpAddr::from(net.path(2).near_ip());
    let from = get(&[]);
    assert!(
        !from.is_empty() && from.iter().all(|from| *from == near),
        "without a proxy the site sees the near host: {from:?}"
    );
    let from = get(&["--socks5-hostname", &proxy]);
    let far = IpAddr::from(net.path(1).near_ip());
    assert!(!from.is_empty() && from.iter().all(|from| *from == far), "{from:?}");
}

/// Answers each request of a client with one line.
fn answer(mut client: std::net::TcpStream) {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while client.read(&mut byte).is_ok_and(|got| got == 1) {
        request.push(byte[0]);
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\npart\n");
        }
    }
}
