//! UDP ASSOCIATE of SOCKS5 (RFC 1928, section 7) byte by byte and with clients that others wrote.

use crate::kit;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use kit::datagrams::{echo, echo_at};
use kit::link::Keys;
use kit::names::{NameServer, isolated};
use kit::{Scratch, Seaprox, has_namespaces, until};

/// A client with an association.
pub struct Client {
    pub control: TcpStream,
    pub socket: UdpSocket,
    /// The address that the proxy has told.
    pub relay: SocketAddr,
}

/// Sends a request for UDP ASSOCIATE. Returns the connection, and the reply code with the bound address.
#[track_caller]
fn request(proxy: SocketAddr, announced: SocketAddr) -> (TcpStream, u8, SocketAddr) {
    let mut control = TcpStream::connect(proxy).unwrap();
    control.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = b"\x05\x01\0\x05\x03\0".to_vec();
    bytes.extend(address(announced));
    control.write_all(&bytes).unwrap();
    let mut reply = [0; 6];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..3], [5, 0, 5]);
    let mut rest = vec![0; if reply[5] == 1 { 6 } else { 18 }];
    control.read_exact(&mut rest).unwrap();
    let (host, port) = rest.split_at(rest.len() - 2);
    let ip: IpAddr = match <[u8; 4]>::try_from(host) {
        Ok(host) => host.into(),
        Err(_) => <[u8; 16]>::try_from(host).unwrap().into(),
    };
    (control, reply[3], SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
}

/// Returns the address type, the address and the port.
pub fn address(addr: SocketAddr) -> Vec<u8> {
    let mut bytes = match addr.ip() {
        IpAddr::V4(ip) => [&[1], &ip.octets()[..]].concat(),
        IpAddr::V6(ip) => [&[4], &ip.octets()[..]].concat(),
    };
    bytes.extend(addr.port().to_be_bytes());
    bytes
}

pub fn named(name: &str, port: u16) -> Vec<u8> {
    [&[3, name.len() as u8], name.as_bytes(), &port.to_be_bytes()].concat()
}

/// Returns a datagram with its header.
pub fn datagram(to: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[0, 0, 0], to, payload].concat()
}

fn socket(addr: &str) -> UdpSocket {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

impl Client {
    #[track_caller]
    pub fn open(proxy: SocketAddr) -> Client {
        Client::with(proxy, "0.0.0.0:0".parse().unwrap())
    }

    #[track_caller]
    fn with(proxy: SocketAddr, announced: SocketAddr) -> Client {
        let (control, code, relay) = request(proxy, announced);
        assert_eq!(code, 0);
        let socket = socket(if proxy.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
        Client { control, socket, relay }
    }

    pub fn send(&self, to: &[u8], payload: &[u8]) {
        self.socket.send_to(&datagram(to, payload), self.relay).unwrap();
    }

    /// Takes the next datagram, which must be this one.
    #[track_caller]
    pub fn take(&self, from: SocketAddr, payload: &[u8]) {
        let mut buf = [0; 65_536];
        let (len, sender) = self.socket.recv_from(&mut buf).expect("a datagram");
        assert_eq!(sender, self.relay);
        assert!(
            buf[..len] == datagram(&address(from), payload),
            "{:?} and not {payload:?}",
            buf[..len].escape_ascii().to_string()
        );
    }
}

pub fn proxy(options: &[&str]) -> Seaprox {
    Seaprox::start(&[&["socks", "--listen", "127.0.0.1:0"], options].concat())
}

#[test]
fn an_association_reaches_both_families_and_names_and_ends_with_its_connection() {
    let proxy = proxy(&["--only", "ipv4"]);
    let (v4, v6) = (echo(), echo_at("[::1]:0"));
    let client = Client::open(proxy.addr(0));
    assert_eq!(client.relay.ip(), IpAddr::from([127, 0, 0, 1]));
    client.send(&address(v4), b"four");
    client.take(v4, b"four");
    client.send(&address(v6), b"");
    client.take(v6, b"");
    client.send(&named("localhost", v4.port()), b"name");
    client.take(v4, b"name");
    let long = vec![7; 65_507 - 10];
    client.send(&address(v4), &long);
    client.take(v4, &long);
    let status = proxy.status();
    assert_eq!(status["flows"].as_array().map(Vec::len), Some(3), "{status}");
    drop(client.control);
    let line = proxy.wait_for_log(&[" closed ", "conn=socks5-udp[ipv4[127.0.0.1:"]);
    for word in ["reason=source_fin", "end=graceful", "sent=65505", "received=65505", "datagrams=4/4", "dropped=0"] {
        assert!(line.contains(word), "{word} in {line}");
    }
    assert_eq!((proxy.figure("/usage/associations"), proxy.figure("/usage/flows")), (0, 0));
    assert_eq!(proxy.figure("/associations_opened"), 1);
    client.socket.send_to(&datagram(&address(v4), b"late"), client.relay).unwrap();
}

#[test]
fn all_targets_of_one_family_see_one_address_of_the_client() {
    let proxy = proxy(&[]);
    let client = Client::open(proxy.addr(0));
    let targets = [socket("127.0.0.1:0"), socket("127.0.0.2:0")];
    let sources = targets.each_ref().map(|target| {
        client.send(&address(target.local_addr().unwrap()), b"hello");
        target.recv_from(&mut [0; 9]).unwrap().1
    });
    assert_eq!(sources[0], sources[1]);
}

#[test]
fn answers_pass_only_from_hosts_that_the_client_has_sent_to() {
    for filter in [&[][..], &["--udp-filter", "open"]] {
        let proxy = proxy(filter);
        let client = Client::open(proxy.addr(0));
        let (target, other, stranger) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"), socket("127.0.0.3:0"));
        let addr = |socket: &UdpSocket| socket.local_addr().unwrap();
        client.send(&address(addr(&target)), b"hello");
        let mapped = target.recv_from(&mut [0; 9]).unwrap().1;
        stranger.send_to(b"strange", mapped).unwrap();
        other.send_to(b"other port", mapped).unwrap();
        if !filter.is_empty() {
            client.take(addr(&stranger), b"strange");
        }
        client.take(addr(&other), b"other port");
        drop(client);
        let dropped = if filter.is_empty() { "1 stranger" } else { "detail=-" };
        proxy.wait_for_log(&[" closed ", "conn=socks5-udp[", dropped]);
    }
}

#[test]
fn the_first_datagram_fixes_the_port_of_the_client_and_an_announced_one_is_respected() {
    let proxy = proxy(&[]);
    let to = echo();
    let client = Client::open(proxy.addr(0));
    client.send(&address(to), b"first");
    client.take(to, b"first");
    socket("127.0.0.1:0").send_to(&datagram(&address(to), b"another port"), client.relay).unwrap();
    socket("127.0.0.4:0").send_to(&datagram(&address(to), b"another host"), client.relay).unwrap();
    client.send(&address(to), b"second");
    client.take(to, b"second");
    drop(client);
    proxy.wait_for_log(&[" closed ", "datagrams=2/2", "dropped=2", "2 stranger"]);

    let own = socket("127.0.0.1:0");
    let client = Client { socket: own.try_clone().unwrap(), ..Client::with(proxy.addr(0), own.local_addr().unwrap()) };
    socket("127.0.0.1:0").send_to(&datagram(&address(to), b"faster"), client.relay).unwrap();
    client.send(&address(to), b"announced");
    client.take(to, b"announced");
    drop(client);
    proxy.wait_for_log(&[" closed ", "datagrams=1/1", "1 stranger"]);
}

#[test]
fn datagrams_of_another_address_need_an_option_and_are_then_fixed_too() {
    let to = echo();
    for (options, is_taken) in [(&[][..], false), (&["--udp-any-source"], true)] {
        let proxy = proxy(options);
        let mut client = Client::open(proxy.addr(0));
        let own = std::mem::replace(&mut client.socket, socket("127.0.0.4:0"));
        client.send(&address(to), b"from another address");
        if is_taken {
            client.take(to, b"from another address");
        }
        own.send_to(&datagram(&address(to), b"own"), client.relay).unwrap();
        if !is_taken {
            client.socket = own;
            client.take(to, b"own");
        }
        drop(client.control);
        let is_dropped = if is_taken { "datagrams=1/1" } else { "1 stranger" };
        proxy.wait_for_log(&[" closed ", "conn=socks5-udp[", is_dropped]);
    }
}

#[test]
fn fragments_and_bad_headers_are_dropped_and_counted_by_reason() {
    let proxy = proxy(&[]);
    let to = echo();
    let client = Client::open(proxy.addr(0));
    let good = datagram(&address(to), b"x");
    let raw = |bytes: &[u8]| _ = client.socket.send_to(bytes, client.relay).unwrap();
    raw(&[&[0, 0, 1], &good[3..]].concat());
    raw(&[&[0, 0, 0x82], &good[3..]].concat());
    raw(b"");
    raw(&good[..9]);
    raw(&[&good[..3], &[9], &good[4..]].concat());
    client.send(&address(to), b"well-formed");
    client.take(to, b"well-formed");
    assert_eq!(proxy.figure("/datagrams_dropped/fragment"), 2);
    assert_eq!(proxy.figure("/datagrams_dropped/malformed"), 3);
    drop(client);
    proxy.wait_for_log(&[" closed ", "datagrams=1/1", "dropped=5", "dropped: 3 malformed, 2 fragment"]);
}

#[test]
fn rules_are_asked_about_the_address_of_each_datagram() {
    let (good, bad) = (echo(), echo());
    let deny = format!("udp:127.0.0.1:{}", bad.port());
    let proxy = proxy(&["--only", "ipv4", "--deny", &deny, "--allow", "udp:*"]);
    let client = Client::open(proxy.addr(0));
    client.send(&address(bad), b"denied");
    client.send(&named("localhost", bad.port()), b"denied by its address");
    client.send(&named("localhost", good.port()), b"permitted");
    client.take(good, b"permitted");
    drop(client);
    proxy.wait_for_log(&[" closed ", "datagrams=1/1", "dropped=2", "2 refused", "a rule denies the target"]);
    // Rules about TCP permit no datagrams.
    let proxy = self::proxy(&["--allow", "*"]);
    let client = Client::open(proxy.addr(0));
    client.send(&address(good), b"denied");
    drop(client);
    proxy.wait_for_log(&[" closed ", "datagrams=0/0", "1 refused"]);
}

#[test]
fn a_slow_name_delays_no_other_target_of_the_association() {
    if !has_namespaces() {
        return;
    }
    isolated("", |names: &NameServer| {
        names.set("fast.test", &["127.0.0.1"], Duration::ZERO);
        names.set("slow.test", &["127.0.0.1"], Duration::ZERO);
        names.hold("slow.test");
        let proxy = proxy(&["--only", "ipv4"]);
        let (fast, slow) = (echo(), echo());
        let client = Client::open(proxy.addr(0));
        for number in 0..12 {
            client.send(&named("slow.test", slow.port()), &[number]);
        }
        for number in 0..20 {
            client.send(&named("fast.test", fast.port()), &[number]);
            client.take(fast, &[number]);
        }
        assert_eq!((names.asked("fast.test"), names.asked("slow.test")), (1, 1));
        // A flow lets 8 datagrams wait.
        assert_eq!(proxy.figure("/datagrams_dropped/queue_full"), 4);
        names.release("slow.test");
        until("the name is known", || {
            client.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            client.send(&named("slow.test", slow.port()), b"later");
            let mut buf = [0; 64];
            client.socket.recv(&mut buf).is_ok_and(|len| buf[..len] == datagram(&address(slow), b"later"))
        });
        assert_eq!(names.asked("slow.test"), 1);
        drop(client);
        proxy.wait_for_log(&[" closed ", "conn=socks5-udp[", "queue_full"]);
    });
}

/// Nothing tells which of the flows the answers are for, so all of them count as answered.
#[test]
fn a_target_that_has_an_address_and_a_name_answers_both_flows() {
    let (proxy, target_socket) = (proxy(&["--only", "ipv4"]), socket("127.0.0.1:0"));
    let target = target_socket.local_addr().unwrap();
    let client = Client::open(proxy.addr(0));
    let arrived = || target_socket.recv_from(&mut [0; 8]).expect("a datagram").1;
    for to in [address(target), named("localhost", target.port())] {
        client.send(&to, b"ask");
        arrived();
    }
    client.send(&address(target), b"ask");
    target_socket.send_to(b"answer", arrived()).unwrap();
    client.take(target, b"answer");
    let flows = proxy.status()["flows"].clone();
    let answered = |index: usize| flows[index]["state"] == "answered";
    assert!(answered(0) && answered(1), "{flows}");
    // The flow that is left gets the answers.
    let second = flows[1]["id"].as_str().unwrap();
    assert_eq!(super::admin::ctl(&proxy, &["close", "flow", second]).code, Some(0));
    client.send(&address(target), b"again");
    target_socket.send_to(b"answer", arrived()).unwrap();
    client.take(target, b"answer");
    let flows = proxy.status()["flows"].clone();
    assert_eq!(
        (flows[0]["datagrams_sent"].as_u64(), flows[0]["datagrams_received"].as_u64()),
        (Some(3), Some(1)),
        "{flows}"
    );
}

#[test]
fn an_idle_association_ends_with_its_connection() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let proxy = proxy(&["--udp-association-timeout", "3s", "--udp-idle-timeout", "200ms"]);
    let to = echo();
    // An attempt in which the machine stands still for too long says nothing.
    let attempt = || {
        let mut client = Client::open(proxy.addr(0));
        client.socket.set_read_timeout(Some(TIMEOUT / 2)).unwrap();
        let (start, mut last, mut count) = (Instant::now(), Instant::now(), 0);
        while start.elapsed() < TIMEOUT + Duration::from_secs(1) {
            client.send(&address(to), b"still here");
            let answer = client.socket.recv(&mut [0; 64]);
            if answer.is_err() || last.elapsed() > TIMEOUT / 2 {
                return None;
            }
            (last, count) = (Instant::now(), count + 1);
            std::thread::sleep(Duration::from_millis(400));
        }
        assert_eq!(client.control.read(&mut [0; 1]).unwrap(), 0, "a FIN");
        Some(count)
    };
    let count = (0..10).find_map(|_| attempt()).expect("an association that outlives its timer");
    let datagrams = format!("datagrams={count}/{count}");
    proxy.wait_for_log(&[" closed ", "reason=idle_timeout", &datagrams, "conn=socks5-udp["]);
}

#[test]
fn dropped_datagrams_keep_no_association() {
    let proxy = proxy(&["--udp-association-timeout", "2s", "--deny", "udp:127.0.0.5", "--allow", "udp:*"]);
    let (target, stranger) = (socket("127.0.0.1:0"), socket("127.0.0.3:0"));
    let mut client = Client::open(proxy.addr(0));
    client.send(&address(target.local_addr().unwrap()), b"hello");
    let mapped = target.recv_from(&mut [0; 9]).unwrap().1;
    client.control.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    until("the association is over", || {
        stranger.send_to(b"to the socket for targets", mapped).unwrap();
        stranger.send_to(&datagram(&address(mapped), b"to the socket of the client"), client.relay).unwrap();
        client.send(&address("127.0.0.5:9".parse().unwrap()), b"denied");
        client.control.read(&mut [0; 1]).is_ok_and(|len| len == 0)
    });
    proxy.wait_for_log(&[" closed ", "reason=idle_timeout", "datagrams=1/0", "stranger", "refused"]);
}

#[test]
fn a_client_is_told_the_advertised_address() {
    let proxy = proxy(&["--udp-advertise", "203.0.113.9"]);
    let (_control, code, relay) = request(proxy.addr(0), "0.0.0.0:0".parse().unwrap());
    assert_eq!((code, relay.ip()), (0, IpAddr::from([203, 0, 113, 9])));
    let to = echo();
    let local = SocketAddr::from(([127, 0, 0, 1], relay.port()));
    let own = socket("127.0.0.1:0");
    own.send_to(&datagram(&address(to), b"hello"), local).unwrap();
    let mut buf = [0; 64];
    let (len, _) = own.recv_from(&mut buf).unwrap();
    assert_eq!(buf[..len], datagram(&address(to), b"hello"));
    let bad = kit::run(&["socks", "--listen", "127.0.0.1:0", "--udp-advertise", "nowhere"]);
    assert!(bad.code == Some(2) && bad.err.contains("an IP address"), "{}", bad.err);
}

#[test]
fn an_association_over_ipv6_has_an_ipv6_address() {
    let proxy = Seaprox::start(&["socks", "--listen", "[::1]:0"]);
    let (v4, v6) = (echo(), echo_at("[::1]:0"));
    let client = Client::with(proxy.addr(0), "[::]:0".parse().unwrap());
    assert_eq!(client.relay.ip(), "::1".parse::<IpAddr>().unwrap());
    for to in [v4, v6] {
        client.send(&address(to), b"hello");
        client.take(to, b"hello");
    }
}

#[test]
fn many_targets_of_an_association_stay_within_the_limits() {
    let proxy = proxy(&["--udp-flows-per-source", "50", "--threads", "1"]);
    let to = echo();
    let client = Client::open(proxy.addr(0));
    for round in 0..10u8 {
        for port in 0..60u16 {
            // Nothing answers there: the system gives these ports to no socket of another test.
            client.send(&address(SocketAddr::from(([127, 0, 9, round], 20_000 + port))), b"scan");
        }
        client.send(&address(to), &[round]);
        client.take(to, &[round]);
        // The association takes the places of three.
        assert!(proxy.figure("/usage/flows") <= 47);
    }
}

#[test]
fn a_drain_ends_associations_when_their_flows_are_idle() {
    let mut proxy = proxy(&[]);
    let to = echo();
    let (busy, unused) = (Client::open(proxy.addr(0)), Client::open(proxy.addr(0)));
    busy.send(&address(to), b"hello");
    busy.take(to, b"hello");
    proxy.signal(libc::SIGTERM);
    assert!(proxy.wait(Duration::from_secs(25)).success());
    proxy.wait_for_log(&[" closed ", "reason=drained", "datagrams=1/1"]);
    drop(unused);
}

#[test]
fn pysocks_sends_datagrams_with_a_password() {
    const SCRIPT: &str = "import socks, sys\n\
        s = socks.socksocket(socks.socket.AF_INET, socks.socket.SOCK_DGRAM)\n\
        s.set_proxy(socks.SOCKS5, '127.0.0.1', int(sys.argv[1]), username='joe', password='secret')\n\
        s.settimeout(20)\n\
        for n in range(50):\n\
        \x20   s.sendto(b'%d' % n, ('127.0.0.1', int(sys.argv[2])))\n\
        \x20   data, peer = s.recvfrom(2000)\n\
        \x20   assert (data, peer) == (b'%d' % n, ('127.0.0.1', int(sys.argv[2]))), (data, peer)\n\
        print('done')\n";
    if !has_module("socks") {
        return;
    }
    let scratch = Scratch::new();
    let users = scratch.write("users", "joe:secret\n");
    let proxy = proxy(&["--users", &users]);
    let (to, port) = (echo(), proxy.addr(0).port());
    let ran = std::process::Command::new("/usr/bin/python3")
        .args(["-c", SCRIPT, &port.to_string(), &to.port().to_string()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "done\n", "{}", String::from_utf8_lossy(&ran.stderr));
    proxy.wait_for_log(&[" closed ", "conn=socks5-udp[", "user=joe", "datagrams=50/50"]);
}

fn has_module(name: &str) -> bool {
    let ran = std::process::Command::new("/usr/bin/python3").args(["-c", &format!("import {name}")]).output();
    let is_there = ran.is_ok_and(|ran| ran.status.success());
    if !is_there {
        println!("skipped: python3 has no module {name}");
    }
    is_there
}

/// Sends a datagram until its echo is there, because a link may drop datagrams.
#[track_caller]
fn converse(client: &Client, to: &[u8], payload: &[u8]) {
    client.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (expected, mut buf) = (datagram(to, payload), [0; 65_536]);
    until("an echo", || {
        client.send(to, payload);
        client.socket.recv(&mut buf).is_ok_and(|len| buf[..len] == expected)
    });
    // Later echoes of the same datagram are not those of the next one.
    while client.socket.recv(&mut buf).is_ok() {}
}

#[test]
fn an_association_over_a_link_has_a_stream_for_each_target() {
    let keys = Keys::new();
    keys.permit(Some("permit-open=\"udp:127.0.0.1:*\",permit-open=\"udp:localhost:*\""));
    let far = keys.start_far(&["--only", "ipv4"]);
    let (first, second) = (echo(), echo());
    for (words, option) in
        [(&["socks", "--listen", "127.0.0.1:0"][..], "--via"), (&["link", "-D", "127.0.0.1:0"], "--connect")]
    {
        let mut via = keys.via(&far.addr(0).to_string());
        via[0] = option.to_owned();
        let near = Seaprox::start(&words.iter().copied().chain(via.iter().map(String::as_str)).collect::<Vec<_>>());
        let listening =
            || near.out().into_iter().find_map(|line| line.strip_prefix("listening socks ").map(str::to_owned));
        until("the listener is there", || listening().is_some());
        let addr = listening().unwrap().split_whitespace().next().unwrap().parse().unwrap();
        let clients = [Client::open(addr), Client::open(addr)];
        for client in &clients {
            converse(client, &address(first), b"first");
            converse(client, &address(second), &[7; 1_400]);
            // The far node resolves the name, so its address is not known here.
            converse(client, &named("localhost", first.port()), b"by name");
        }
        assert_eq!((near.figure("/usage/flows"), far.figure("/usage/flows")), (6, 6));
        // Nothing is permitted there.
        clients[0].send(&address("127.0.0.2:9".parse().unwrap()), b"denied");
        let refused = || near.status().pointer("/flows_closed/not_permitted").is_some_and(|count| *count == 1);
        until("the flow is refused", refused);
        drop(clients);
        let line = near.wait_for_log(&[" closed ", "conn=socks5-udp[", "reason=source_fin", "udp:127.0.0.2:9"]);
        assert!(!line.contains("via=direct"), "{line}");
        until("the far node has no flow", || far.figure("/usage/flows") == 0);
    }
}

#[test]
fn an_association_over_a_link_says_that_the_queue_of_the_link_was_full() {
    let keys = Keys::new();
    keys.permit(Some("permit-open=\"udp:127.0.0.1:*\""));
    let far = keys.start_far(&[]);
    let via = keys.via(&far.addr(0).to_string());
    let words = ["socks", "--listen", "127.0.0.1:0"].into_iter().chain(via.iter().map(String::as_str));
    let near = Seaprox::start(&words.collect::<Vec<_>>());
    let to = echo();
    let client = Client::open(near.addr(0));
    client.send(&address(to), b"up");
    client.take(to, b"up");
    drop(far);
    until("the link is down", || near.status()["links"][0]["state"] != "up");
    until("the queue is full", || {
        (0..20).for_each(|_| client.send(&address(to), &[0; 1_200]));
        near.status().pointer("/datagrams_dropped/queue_full").is_some_and(|count| count.as_u64() > Some(20))
    });
    drop(client);
    near.wait_for_log(&[" closed ", "conn=socks5-udp[", " queue_full"]);
}
