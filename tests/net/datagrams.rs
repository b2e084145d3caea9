//! Datagrams under the faults of real networks: routers with a small MTU, ICMP errors, full devices, no source ports, wrong
//! checksums, a flood of forged sources, and a link that is away.

use crate::kit;
use crate::net_kit;

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use kit::{SOON, Seaprox, proc, until};
use net_kit::nodes::{Nodes, Options};
use net_kit::{Host, Kind, Net, Way, has_net};

/// The addresses of the proxy towards the client, and of the target, in both families.
const PROXY: [&str; 2] = ["10.77.1.2", "fd77:1::2"];
const TARGET: [&str; 2] = ["10.77.3.2", "fd77:3::2"];

/// A client, the proxy, a router and a target in a row.
struct Row(Net);

impl Row {
    fn new() -> Row {
        let mut net = Net::of(&[]);
        let (router, target) = (net.add_host("router"), net.add_host("target"));
        net.join(0, 1, Kind::Veth);
        net.join(1, router, Kind::Veth);
        net.join(router, target, Kind::Veth);
        let row = Row(net);
        for (number, hosts) in [(1, [0, 1]), (2, [1, 2]), (3, [2, 3])] {
            for (end, host) in hosts.into_iter().enumerate() {
                // A router asks for a neighbor from its link-local address.
                let (end, to) = (end + 1, format!("/64 dev p{number} nodad"));
                row.0.host(host).ip(&format!("addr add fd77:{number}::{end}{to}\naddr add fe80::{end}{to}"));
            }
        }
        row.proxy().ip("route add default via 10.77.2.2\nroute add default via fd77:2::2");
        row.target().ip("route add default via 10.77.3.1\nroute add default via fd77:3::1");
        for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            assert!(row.router().sysctl(forwarding, "1"));
        }
        row
    }

    fn client(&self) -> &Host {
        self.0.host(0)
    }

    fn proxy(&self) -> &Host {
        self.0.host(1)
    }

    fn router(&self) -> &Host {
        self.0.host(2)
    }

    fn target(&self) -> &Host {
        self.0.host(3)
    }

    /// Starts the proxy with this target.
    #[track_caller]
    fn start(&self, to: SocketAddr, options: &[&str]) -> (Seaprox, SocketAddr) {
        let proxy = PROXY[usize::from(to.is_ipv6())].parse::<IpAddr>().unwrap();
        let (listen, to) = (format!("udp:{}", SocketAddr::new(proxy, 0)), to.to_string());
        let words = [&["static", "--listen", &listen, "--to", &to], options].concat();
        let seaprox = Seaprox::start_with(&words, |command| self.proxy().enter(command));
        let addr = seaprox.listens(0).strip_prefix("udp:").unwrap().parse().unwrap();
        (seaprox, addr)
    }
}

/// Makes a socket in a host.
fn socket(host: &Host, addr: &str) -> UdpSocket {
    let socket = host.inside(|| UdpSocket::bind((addr.parse::<IpAddr>().unwrap(), 0)).unwrap());
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Returns a socket of a client that speaks with this address only.
fn client(host: &Host, to: SocketAddr) -> UdpSocket {
    let socket = socket(host, if to.is_ipv6() { "::" } else { "0.0.0.0" });
    host.inside(|| socket.connect(to).unwrap());
    socket
}

/// Sends each datagram back, in a thread of its own.
fn echo(socket: UdpSocket) -> SocketAddr {
    let addr = socket.local_addr().unwrap();
    socket.set_read_timeout(None).unwrap();
    thread::spawn(move || {
        let mut buf = [0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..len], from);
        }
    });
    addr
}

/// Receives a datagram.
#[track_caller]
fn next(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buf = [0; 65_536];
    let (len, from) = socket.recv_from(&mut buf).expect("a datagram");
    (buf[..len].to_vec(), from)
}

/// Sends a datagram until its echo is there.
#[track_caller]
fn converse(client: &UdpSocket, payload: &[u8]) {
    let mut buf = [0; 65_536];
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    until("an echo", || client.send(payload).is_ok() && client.recv(&mut buf).is_ok_and(|len| &buf[..len] == payload));
}

fn dropped(seaprox: &Seaprox, why: &str) -> u64 {
    seaprox.status().pointer(&format!("/datagrams_dropped/{why}")).and_then(serde_json::Value::as_u64).unwrap_or(0)
}

#[test]
fn datagrams_longer_than_a_router_takes_arrive_in_fragments() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    for host in [row.router(), row.target()] {
        host.ip("link set p3 mtu 1400");
    }
    for addr in TARGET {
        let (seaprox, to) = row.start(echo(socket(row.target(), addr)), &[]);
        let client = client(row.client(), to);
        for len in [1, 1_372, 1_452, 1_472, 8_000, 65_507, 1_472] {
            let payload = vec![len as u8; len];
            if to.is_ipv4() {
                client.send(&payload).unwrap();
                assert!(next(&client).0 == payload, "{len}");
            } else {
                // A router of IPv6 makes no fragments, so the first one is lost.
                converse(&client, &payload);
            }
        }
        assert_eq!(seaprox.figure("/flows_opened"), 1, "what a router says ends no flow");
        assert_eq!((dropped(&seaprox, "too_long"), seaprox.figure("/flows/0/dropped")), (0, 0));
    }
}

/// A device with a small MTU refuses to send several datagrams in one call.
#[test]
fn a_burst_arrives_once_and_in_order_where_the_system_does_not_part_it() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    row.proxy().ip("link set p2 mtu 1000");
    let target = socket(row.target(), TARGET[0]);
    let (seaprox, to) = row.start(target.local_addr().unwrap(), &[]);
    let client = client(row.client(), to);
    for round in 0..12 {
        // The proxy gets all at once.
        seaprox.suspend();
        (0..16).for_each(|number| assert_eq!(client.send(&[round * 16 + number; 1_200]).unwrap(), 1_200));
        seaprox.signal(libc::SIGCONT);
        for number in 0..16 {
            assert!(next(&target).0 == [round * 16 + number; 1_200], "datagram {number} of round {round}");
        }
    }
    target.set_nonblocking(true).unwrap();
    assert_eq!(target.recv(&mut [0; 2_000]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "nothing arrives twice");
    assert_eq!((seaprox.figure("/flows_opened"), seaprox.figure("/flows/0/dropped")), (1, 0));
}

#[test]
fn datagrams_that_a_full_device_refuses_are_counted_and_their_flow_lives() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    row.proxy().tc("qdisc replace dev p2 root handle 1: htb default 1\n\
         class replace dev p2 parent 1: classid 1:1 htb rate 100kbit burst 1600 cburst 1600\n\
         qdisc replace dev p2 parent 1:1 bfifo limit 4000\n");
    let to = echo(socket(row.target(), TARGET[0]));
    let (seaprox, to) = row.start(to, &[]);
    let client = client(row.client(), to);
    converse(&client, b"before");
    until("datagrams are dropped", || {
        (0..16).for_each(|_| _ = client.send(&[7; 1_000]).unwrap());
        dropped(&seaprox, "no_room") > 0
    });
    converse(&client, b"after");
    assert_eq!(seaprox.figure("/flows_opened"), 1);
    assert!(seaprox.figure("/flows/0/dropped") >= dropped(&seaprox, "no_room").min(1));
}

#[test]
fn flows_beyond_the_source_ports_of_the_host_end_with_a_clear_reason_and_the_others_live() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    assert!(row.proxy().sysctl("net/ipv4/ip_local_port_range", "40000 40007"));
    let (seaprox, to) = row.start(echo(socket(row.target(), TARGET[0])), &[]);
    // The listener and the admin socket may use a port of the range.
    let clients: Vec<UdpSocket> = (0..6).map(|_| client(row.client(), to)).collect();
    clients.iter().for_each(|client| converse(client, b"first"));
    let others: Vec<UdpSocket> = (0..60).map(|_| client(row.client(), to)).collect();
    others.iter().for_each(|client| assert_eq!(client.send(b"ask").unwrap(), 3));
    let line = seaprox.wait_for_log(&["closed", "reason=limit_reached"]);
    assert!(line.contains("no source port is left"), "{line}");
    until("all flows are opened", || seaprox.figure("/flows_opened") >= 66);
    clients.iter().for_each(|client| converse(client, b"still there"));
    assert_eq!(seaprox.figure("/flows_opened"), 66, "the first flows live");
    assert!(seaprox.count_log(&["reason=limit_reached"]) < 30, "the lines are limited");
}

#[test]
fn what_a_router_says_about_a_target_is_the_reason_of_the_end_of_a_flow() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    assert!(row.router().sysctl("net/ipv4/icmp_ratelimit", "0"));
    row.router().ip("route add unreachable 10.99.1.0/24\nroute add prohibit 10.99.2.0/24");
    let targets = [
        ("10.98.0.1:9", "network_unreachable"),
        ("10.99.1.1:9", "host_unreachable"),
        ("10.99.2.1:9", "host_unreachable"),
        ("[fd98::1]:9", "network_unreachable"),
        // No host of the network of the proxy itself answers for this address.
        ("10.77.2.99:9", "host_unreachable"),
        (&format!("{}:9", TARGET[0]), "connection_refused"),
    ];
    for (to, reason) in targets {
        let (seaprox, addr) = row.start(to.parse().unwrap(), &["--udp-first-answer-timeout", "1h"]);
        let client = client(row.client(), addr);
        client.send(b"ask").unwrap();
        let line = seaprox.wait_for_log(&["closed", "datagrams=1/0"]);
        assert!(line.contains(&format!("reason={reason} ")), "{to}: {line}");
        assert!(line.contains(&format!("{to}: ")), "{line}");
        assert_eq!(seaprox.figure("/flows_opened"), 1, "{to}");
    }
    // A balancer leaves such a target out.
    let to = format!("10.98.0.1:9,{}", echo(socket(row.target(), TARGET[0])));
    let words = ["static", "--listen", "udp:10.77.1.2:0", "--to", &to];
    let seaprox = Seaprox::start_with(&words, |command| row.proxy().enter(command));
    let addr = seaprox.listens(0).strip_prefix("udp:").unwrap().parse().unwrap();
    until("the target is left out", || {
        client(row.client(), addr).send(b"ask").unwrap();
        seaprox.figure("/targets_left_out") == 1
    });
    (0..4).for_each(|_| converse(&client(row.client(), addr), b"ask"));
}

/// Returns the number of ICMP messages about targets that cannot be reached, which a host has received.
fn unreachable_told(host: &Host) -> u64 {
    let text = host.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let rows: Vec<Vec<&str>> =
        text.lines().filter_map(|line| line.strip_prefix("Icmp: ")).map(|row| row.split(' ').collect()).collect();
    let column = rows[0].iter().position(|name| *name == "InDestUnreachs").unwrap();
    rows[1][column].parse().unwrap()
}

#[test]
fn an_answered_flow_outlives_a_change_of_routes_and_ends_if_its_target_stays_away() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    assert!(row.router().sysctl("net/ipv4/icmp_ratelimit", "0"));
    let target = echo(socket(row.target(), TARGET[0]));
    let (patient, to) = row.start(target, &["--udp-first-answer-timeout", "300ms"]);
    let (hasty, hasty_to) = row.start(target, &["--udp-idle-timeout", "2s"]);
    let (one, other) = (client(row.client(), to), client(row.client(), hasty_to));
    let change = |verb: &str| row.router().ip(&format!("route {verb} unreachable {}/32", TARGET[0]));
    let send_until = |client: &UdpSocket, what: &str, is_done: &dyn Fn() -> bool| {
        until(what, || {
            client.send(b"lost").unwrap();
            thread::sleep(Duration::from_millis(20));
            is_done()
        });
    };
    converse(&one, b"before");
    change("add");
    let since = Instant::now();
    send_until(&one, "the last answer is old", &|| since.elapsed() > Duration::from_secs(1));
    // The router tells it once a second.
    let before = unreachable_told(row.proxy());
    send_until(&one, "the router has told it", &|| unreachable_told(row.proxy()) >= before + 2);
    change("del");
    converse(&one, b"after");
    assert_eq!(patient.figure("/flows_opened"), 1);
    converse(&other, b"before");
    change("add");
    let was_answered = |line: &String| line.contains("reason=host_unreachable") && !line.contains("/0 dropped");
    send_until(&other, "the flow ends", &|| hasty.log().iter().any(was_answered));
    change("del");
    converse(&other, b"after");
}

#[test]
fn a_change_of_routes_ends_a_flow_that_was_never_answered_and_leaves_no_target_out() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    assert!(row.router().sysctl("net/ipv4/icmp_ratelimit", "0"));
    let sinks = [socket(row.target(), TARGET[0]), socket(row.target(), TARGET[0])];
    let [to, other] = sinks.each_ref().map(|sink| sink.local_addr().unwrap());
    let to = format!("{to},{other}");
    let words = ["static", "--listen", "udp:10.77.1.2:0", "--to", &to, "--udp-first-answer-timeout", "1s"];
    let seaprox = Seaprox::start_with(&words, |command| row.proxy().enter(command));
    let client = client(row.client(), seaprox.listens(0).strip_prefix("udp:").unwrap().parse().unwrap());
    // Each datagram makes the flow wait anew.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        client.send(b"line").unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(seaprox.figure("/flows_opened"), 1);
    row.router().ip(&format!("route add unreachable {}/32", TARGET[0]));
    client.send(b"line").unwrap();
    seaprox.wait_for_log(&["closed", "reason=host_unreachable"]);
    assert_eq!(seaprox.figure("/targets_left_out"), 0);
}

/// A client of SOCKS5 that has a UDP association.
fn associate(host: &Host, proxy: SocketAddr) -> (TcpStream, UdpSocket) {
    let mut control = host.inside(|| TcpStream::connect(proxy).unwrap());
    control.set_read_timeout(Some(SOON)).unwrap();
    control.write_all(&[5, 1, 0]).unwrap();
    control.read_exact(&mut [0; 2]).unwrap();
    control.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut reply = [0; 10];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], [5, 0, 0, 1]);
    let port = u16::from_be_bytes([reply[8], reply[9]]);
    (control, client(host, SocketAddr::new(proxy.ip(), port)))
}

#[test]
fn an_answered_flow_of_an_association_outlives_a_change_of_routes() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    let target = echo(socket(row.target(), TARGET[0]));
    let words = ["socks", "--listen", "10.77.1.2:0", "--udp-idle-timeout", "3s"];
    let seaprox = Seaprox::start_with(&words, |command| row.proxy().enter(command));
    let (_control, client) = associate(row.client(), seaprox.addr(0));
    let ask = [&[0, 0, 0, 1, 10, 77, 3, 2][..], &target.port().to_be_bytes(), b"ask"].concat();
    let since = Instant::now();
    // The flow is older than the time that it outlives an error for.
    while since.elapsed() < Duration::from_millis(3_500) {
        converse(&client, &ask);
        thread::sleep(Duration::from_millis(50));
    }
    row.proxy().ip(&format!("route add unreachable {}/32", TARGET[0]));
    client.send(&ask).unwrap();
    until("the system refuses a datagram", || dropped(&seaprox, "failed") == 1);
    row.proxy().ip(&format!("route del unreachable {}/32", TARGET[0]));
    converse(&client, &ask);
    assert_eq!(seaprox.figure("/flows_opened"), 1);
}

/// Returns a socket that sends packets with headers of the test.
fn raw(host: &Host) -> Socket {
    host.inside(|| {
        let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))).unwrap();
        raw.set_send_buffer_size(4 << 20).unwrap();
        raw
    })
}

/// Returns a packet with a datagram, whose checksum is 0 (none) or this one. The system sets that of the IP header.
fn packet(from: (Ipv4Addr, u16), to: SocketAddr, payload: &[u8], checksum: u16) -> Vec<u8> {
    let IpAddr::V4(dest) = to.ip() else { panic!("IPv4") };
    let len = 8 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + len).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.0.octets());
    packet.extend(dest.octets());
    packet.extend([from.1, to.port(), len, checksum].iter().flat_map(|number| number.to_be_bytes()));
    packet.extend(payload);
    packet
}

#[test]
fn datagrams_with_wrong_checksums_are_not_relayed_and_empty_ones_are() {
    if !has_net() {
        return;
    }
    let row = Row::new();
    let target = socket(row.target(), TARGET[0]);
    let (seaprox, to) = row.start(target.local_addr().unwrap(), &[]);
    let client = client(row.client(), to);
    client.send(b"ask").unwrap();
    let (asked, flow) = next(&target);
    assert_eq!(asked, b"ask");
    let IpAddr::V4(addr) = client.local_addr().unwrap().ip() else { panic!("IPv4") };
    let port = client.local_addr().unwrap().port();
    let (near, far) = (raw(row.client()), raw(row.target()));
    let (from, dest) = ((addr, port), SocketAddr::from(([10, 77, 3, 2], target.local_addr().unwrap().port())));
    let answers_from = (Ipv4Addr::new(10, 77, 3, 2), dest.port());
    for _ in 0..8 {
        near.send_to(&packet(from, to, b"wrong", 1), &to.into()).unwrap();
        far.send_to(&packet(answers_from, flow, b"wrong", 1), &flow.into()).unwrap();
    }
    // The same packet without a checksum is right.
    near.send_to(&packet(from, to, b"right", 0), &to.into()).unwrap();
    far.send_to(&packet(answers_from, flow, b"right", 0), &flow.into()).unwrap();
    assert_eq!((next(&target), next(&client).0), ((b"right".to_vec(), flow), b"right".to_vec()));
    for len in [0, 1, 65_507] {
        client.send(&vec![7; len]).unwrap();
        assert_eq!(next(&target), (vec![7; len], flow));
        target.send_to(&vec![8; len], flow).unwrap();
        assert_eq!(next(&client).0, vec![8; len]);
    }
    assert_eq!(client.send(&vec![0; 65_508]).unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    assert_eq!(seaprox.figure("/flows_opened"), 1);
}

#[test]
fn a_flood_of_forged_sources_ends_no_answered_flow_and_takes_little_memory() {
    flood(20_000);
}

#[test]
#[ignore = "make test-system runs it: it takes longer"]
fn a_flood_of_100000_forged_sources_ends_no_answered_flow_and_takes_little_memory() {
    flood(100_000);
}

/// Sends datagrams from many forged sources, between those of some clients. The target answers the clients alone, as a host that
/// does not know the protocol of the flood.
#[track_caller]
fn flood(sources: u32) {
    if !has_net() {
        return;
    }
    let (row, started) = (Row::new(), Instant::now());
    let target = socket(row.target(), TARGET[0]);
    let target_addr = target.local_addr().unwrap();
    target.set_read_timeout(None).unwrap();
    thread::spawn(move || {
        let mut buf = [0; 64];
        // Each client hears the source port of its flow.
        while let Ok((len, from)) = target.recv_from(&mut buf) {
            if &buf[..len] != b"flood" {
                let _ = target.send_to(&[&buf[..len], from.to_string().as_bytes()].concat(), from);
            }
        }
    });
    let (seaprox, to) = row.start(target_addr, &["--udp-flows", "1024", "--threads", "1"]);
    let clients: Vec<UdpSocket> = (0..20).map(|_| client(row.client(), to)).collect();
    let mut count = 0;
    let mut flow_of = |client: &UdpSocket| {
        count += 1;
        let ask = format!("{count:08} ");
        client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut flow = String::new();
        until("an answer", || {
            client.send(ask.as_bytes()).unwrap();
            let mut buf = [0; 64];
            let len = client.recv(&mut buf).unwrap_or(0);
            let text = std::str::from_utf8(&buf[..len]).unwrap();
            flow = text.strip_prefix(&ask).unwrap_or_default().to_owned();
            !flow.is_empty()
        });
        flow
    };
    let flows: Vec<String> = clients.iter().map(&mut flow_of).collect();
    let (raw, before) = (raw(row.client()), proc::rss(seaprox.pid()));
    for burst in 0..sources / BURST {
        for number in burst * BURST..(burst + 1) * BURST {
            let source = Ipv4Addr::from(0x0b00_0000 + number * 167);
            raw.send_to(&packet((source, 9_999), to, b"flood", 0), &to.into()).unwrap();
        }
        // An answer says that the proxy has taken the datagrams before it.
        let client = burst as usize % clients.len();
        assert_eq!(flow_of(&clients[client]), flows[client], "the flow of client {client} after {burst} bursts");
    }
    let opened = seaprox.figure("/flows_opened");
    assert!(opened > u64::from(sources) / 2, "{opened} flows");
    assert!(seaprox.figure("/usage/flows") <= 1024);
    let grown = proc::rss(seaprox.pid()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more than {before}");
    // The lines about clients are at most 1,000 in ten seconds.
    let lines_max = 2_000 + 200 * started.elapsed().as_secs() as usize;
    assert!(seaprox.log().len() < lines_max, "{} lines, and {lines_max} are permitted", seaprox.log().len());
    println!("{opened} flows in {:?}, {grown} bytes more", started.elapsed());
}

/// Forged datagrams between two questions of the clients.
const BURST: u32 = 100;

/// Options of nodes that soon notice a dead subflow and soon retry.
const HASTY: &[&str] = &["--link-keepalive", "100ms", "--link-dead", "500ms", "--connect-timeout", "1s"];

/// Sends datagrams of several lengths to an address, or to the peer, until the test stops it.
fn send_old(socket: UdpSocket, to: Option<SocketAddr>, is_over: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let is_over = Arc::clone(is_over);
    thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            for len in [3, 1_200, 60_000] {
                let old = vec![b'o'; len];
                let _ = to.map_or_else(|| socket.send(&old), |to| socket.send_to(&old, to));
            }
            thread::sleep(Duration::from_millis(5));
        }
    })
}

#[test]
fn a_suspended_link_delivers_no_old_datagrams_and_its_flows_live() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let target = socket(net.far(), "127.0.0.1");
    let local = format!("udp:127.0.0.1:0:{}", target.local_addr().unwrap());
    let nodes = Nodes::start(&net, Options { both: HASTY, near: &["-L", &local], ..Options::default() });
    let mut addr = None;
    until("the near node listens", || {
        let line = nodes.near.out().into_iter().find(|line| line.starts_with("listening static "));
        addr = line.and_then(|line| line.split_whitespace().nth(2)?.strip_prefix("udp:")?.parse().ok());
        addr.is_some()
    });
    let client = client(net.near(), addr.unwrap());
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    target.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    /// Sends a datagram in both directions until each has arrived. Returns the address of the flow.
    fn both_ways(client: &UdpSocket, target: &UdpSocket, payload: &[u8]) -> SocketAddr {
        let (mut buf, mut flow) = ([0; 65_536], None);
        until("both directions are there", || {
            client.send(payload).unwrap();
            if let Ok((len, from)) = target.recv_from(&mut buf) {
                assert_eq!(&buf[..len], payload, "at the target");
                flow = Some(from);
                target.send_to(payload, from).unwrap();
            }
            let len = client.recv(&mut buf);
            len.is_ok_and(|len| {
                assert_eq!(&buf[..len], payload, "at the client");
                true
            })
        });
        // Copies of datagrams that were sent more than once.
        for socket in [client, target] {
            while let Ok(len) = socket.recv(&mut buf) {
                assert_eq!(&buf[..len], payload);
            }
        }
        flow.unwrap()
    }
    let flow = both_ways(&client, &target, b"before");
    net.path(0).black_hole(Way::Both);
    let is_over = Arc::new(AtomicBool::new(false));
    let senders = [
        send_old(client.try_clone().unwrap(), None, &is_over),
        send_old(target.try_clone().unwrap(), Some(flow), &is_over),
    ];
    for node in [&nodes.near, &nodes.far] {
        until("the node has noticed that no packets arrive", || {
            node.status().pointer("/links/0/state").is_some_and(|state| state == "suspended")
        });
    }
    is_over.store(true, Ordering::Relaxed);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    // A datagram waits for at most 50 ms.
    thread::sleep(Duration::from_millis(200));
    net.path(0).heal();
    let again = both_ways(&client, &target, b"after");
    assert_eq!(again, flow, "the flow is the same");
    for node in [&nodes.near, &nodes.far] {
        assert_eq!(node.figure("/flows_opened"), 1);
    }
}
