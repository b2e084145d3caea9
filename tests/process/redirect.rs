//! `seaprox redirect` on one host (BS-05, SP-05): clients that nftables redirects by NAT and by TPROXY, loops, marks, and what a
//! process without rights says.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::kit::Step::{Put, Take};
use crate::kit::names::{ip, isolated};
use crate::kit::{Peer, SOON, Scratch, Seaprox, has_namespaces, run_with, until};

/// The addresses of servers, which are of this host because a test has one host. `fib` would leave them out.
pub(super) const SERVERS: [&str; 2] = ["198.51.100.7", "2001:db8::7"];

/// Runs a test in a network of its own, with the addresses of servers.
pub(super) fn with_servers(test: impl FnOnce() + Send) {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        for addr in SERVERS {
            ip(&format!("addr add {addr}/{} dev lo{}", bits(addr), if addr.contains(':') { " nodad" } else { "" }));
        }
        test();
    });
}

fn bits(addr: &str) -> u8 {
    if addr.contains(':') { 128 } else { 32 }
}

pub(super) fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().unwrap(), port)
}

#[track_caller]
fn nft(rules: &str) {
    let ran = Command::new("nft").arg(rules).output().unwrap();
    assert!(ran.status.success(), "nft: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Redirects connections to a port of other addresses than loopback by NAT, unless `but` accepts them before.
fn redirect_by_nat(port: u16, but: &str) {
    nft(&format!(
        "table inet nat_test {{ chain out {{ type nat hook output priority -100; {but}; \
         ip daddr 127.0.0.0/8 accept; ip6 daddr ::1 accept; tcp dport 81 redirect to :{port}; }}; }}"
    ));
}

/// Sends connections or datagrams to port 82 of other addresses than loopback to a listener by TPROXY, unless they have the mark 4660.
pub(super) fn redirect_by_tproxy(proto: &str, port: u16) {
    for family in ["-4", "-6"] {
        ip(&format!("{family} rule add fwmark 4661 lookup 4660"));
        ip(&format!("{family} route replace local default dev lo table 4660"));
    }
    nft(&format!(
        "table inet tproxy_test {{ \
         chain out {{ type route hook output priority mangle; meta mark 4660 accept; \
         ip daddr 127.0.0.0/8 accept; ip6 daddr ::1 accept; {proto} dport 82 meta mark set 4661; }}; \
         chain in {{ type filter hook prerouting priority mangle; meta mark != 4661 accept; \
         meta nfproto ipv4 meta l4proto {proto} tproxy ip to 127.0.0.1:{port} accept; \
         meta nfproto ipv6 meta l4proto {proto} tproxy ip6 to [::1]:{port} accept; }}; }}"
    ));
}

/// Sends a question to a server, which answers; returns both ends.
fn converse(to: SocketAddr, server: &TcpListener) -> (Peer, Peer) {
    let mut client = Peer::connect(to);
    let mut server = Peer::accept(server);
    client.run(&[Put(b"ask")]);
    server.run(&[Take(b"ask"), Put(b"answer")]);
    client.run(&[Take(b"answer")]);
    (client, server)
}

/// Connects, and expects that the connection is closed before a byte arrives.
fn refused(to: SocketAddr) {
    assert_eq!(Peer::connect(to).socket().read(&mut [0]).unwrap_or(0), 0, "{to} is not connected");
}

#[test]
fn clients_of_nat_and_of_tproxy_reach_their_targets_through_one_listener() {
    with_servers(|| {
        let seaprox = Seaprox::start(&["redirect", "--listen", "12345", "--mark", "4660"]);
        redirect_by_nat(12_345, "meta mark 4660 accept");
        redirect_by_tproxy("tcp", 12_345);
        for addr in SERVERS {
            for port in [81, 82] {
                let to = at(addr, port);
                let server = TcpListener::bind(to).unwrap();
                drop(converse(to, &server));
                seaprox.wait_for_log(&["closed", &format!("asked={to}"), "sent=3", "received=6"]);
            }
        }
        // Nothing redirects a client of the port itself.
        for itself in ["127.0.0.1", "::1"] {
            refused(at(itself, 12_345));
        }
        seaprox.wait_for_log(&["reason=not_permitted", "connected to a listener of this process"]);
    });
}

#[test]
fn connections_of_the_process_that_come_back_are_refused() {
    with_servers(|| {
        let seaprox = Seaprox::start(&["redirect", "--listen", "12345", "--threads", "1"]);
        // The process sets no mark, so the rule redirects its own connections, too.
        redirect_by_nat(12_345, "meta mark 4660 accept");
        redirect_by_tproxy("tcp", 12_345);
        for (count, (addr, port)) in
            (1..).zip([(0, 81), (1, 81), (0, 82), (1, 82)].map(|(at, port)| (SERVERS[at], port)))
        {
            let server = TcpListener::bind(at(addr, port)).unwrap();
            server.set_nonblocking(true).unwrap();
            refused(at(addr, port));
            until("the client and the connection that came back have their lines", || {
                seaprox.count_log(&["closed"]) == 2 * count
            });
            let asked = format!("asked={}", at(addr, port));
            seaprox.wait_for_log(&["reason=not_permitted", &asked, "is one of this process"]);
            assert!(server.accept().is_err(), "the server saw no client");
        }
    });
}

/// A datagram of the process that comes back opens no flow, and the server sees none.
#[test]
fn datagrams_of_the_process_that_come_back_are_refused() {
    with_servers(|| {
        let seaprox = Seaprox::start(&["redirect", "--listen", "12345", "--udp"]);
        // The process sets no mark, so the rule redirects its own datagrams, too.
        redirect_by_tproxy("udp", 12_345);
        for addr in SERVERS {
            let server = UdpSocket::bind(at(addr, 82)).unwrap();
            server.set_nonblocking(true).unwrap();
            let client = UdpSocket::bind(at(addr, 0)).unwrap();
            client.send_to(b"ask", at(addr, 82)).unwrap();
            seaprox.wait_for_log(&["flow refused", "is one of this process"]);
            assert!(server.recv(&mut [0; 8]).is_err(), "the server got a datagram");
            // A datagram to the port itself is refused, too.
            let itself = if addr.contains(':') { "::1" } else { "127.0.0.1" };
            client.send_to(b"ask", at(itself, 12_345)).unwrap();
        }
        seaprox.wait_for_log(&["flow refused", "sent to a listener of this process"]);
    });
}

/// The socket of an association has no target, so it is known by its port.
#[test]
fn datagrams_of_an_association_that_come_back_are_refused() {
    with_servers(|| {
        let scratch = Scratch::new();
        let listeners = "no-strict-modes = true\n\
            [[listener]]\nname = \"socks\"\nlisten = [\"127.0.0.1:12346\"]\nfront = \"socks\"\n\
            [[listener]]\nname = \"redirect\"\nlisten = [\"udp:12345\"]\nfront = \"redirect\"\n";
        let path = scratch.write("seaprox.toml", listeners);
        let seaprox = Seaprox::start(&["run", "--no-strict-modes", &path]);
        redirect_by_tproxy("udp", 12_345);
        let mut control = TcpStream::connect(("127.0.0.1", 12_346)).unwrap();
        let relay = associate(&mut control);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (count, addr) in (1..).zip(SERVERS) {
            let server = UdpSocket::bind(at(addr, 82)).unwrap();
            server.set_nonblocking(true).unwrap();
            let header = match at(addr, 82).ip() {
                IpAddr::V4(ip) => [&[0, 0, 0, 1], &ip.octets()[..], &[0, 82]].concat(),
                IpAddr::V6(ip) => [&[0, 0, 0, 4], &ip.octets()[..], &[0, 82]].concat(),
            };
            client.send_to(&header, relay).unwrap();
            seaprox.wait_for_log(&["flow refused", addr, "is one of this process"]);
            assert_eq!(seaprox.figure("/flows_opened"), count, "the flow of the association");
            assert!(server.recv(&mut [0; 8]).is_err(), "the server got a datagram");
        }
    });
}

/// Flows and associations that are open before a reload adds the first listener for redirected clients.
#[test]
fn datagrams_of_flows_that_are_older_than_the_redirection_are_refused_when_they_come_back() {
    with_servers(|| {
        let scratch = Scratch::new();
        let server = UdpSocket::bind(at(SERVERS[0], 82)).unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        let before = format!(
            "no-strict-modes = true\n[[listener]]\nname = \"socks\"\nlisten = \"127.0.0.1:12346\"\nfront = \"socks\"\n\
             [[listener]]\nname = \"static\"\nlisten = \"udp:127.0.0.1:12347\"\nfront = \"static\"\nto = \"{}:82\"\n",
            SERVERS[0]
        );
        let path = scratch.write("seaprox.toml", &before);
        let seaprox = Seaprox::start(&["run", "--no-strict-modes", &path]);
        let mut control = TcpStream::connect(("127.0.0.1", 12_346)).unwrap();
        let relay = associate(&mut control);
        let IpAddr::V4(ip) = at(SERVERS[0], 82).ip() else { unreachable!() };
        let header = [&[0, 0, 0, 1], &ip.octets()[..], &[0, 82]].concat();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ways = [(SocketAddr::from(([127, 0, 0, 1], 12_347)), b"ask".to_vec()), (relay, header)];
        for (to, datagram) in &ways {
            client.send_to(datagram, to).unwrap();
            server.recv(&mut [0; 8]).expect("a datagram");
        }
        let redirect = "[[listener]]\nname = \"redirect\"\nlisten = [\"udp:12345\"]\nfront = \"redirect\"\n";
        scratch.write("seaprox.toml", before + redirect);
        seaprox.signal(libc::SIGHUP);
        seaprox.wait_for_log(&["configuration reloaded"]);
        redirect_by_tproxy("udp", 12_345);
        server.set_nonblocking(true).unwrap();
        for (count, (to, datagram)) in (1..).zip(&ways) {
            client.send_to(datagram, to).unwrap();
            until("the datagram is refused", || {
                seaprox.count_log(&["flow refused", SERVERS[0], "is one of this process"]) >= count
            });
        }
        assert_eq!(seaprox.figure("/flows_opened"), 2);
        assert!(server.recv(&mut [0; 8]).is_err(), "the server got a datagram");
    });
}

#[test]
fn answers_of_a_listener_that_rules_redirect_are_refused() {
    with_servers(|| {
        let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
        echo.set_read_timeout(Some(SOON)).unwrap();
        let scratch = Scratch::new();
        let text = format!(
            "no-strict-modes = true\n[[listener]]\nname = \"redirect\"\nlisten = [\"udp:12345\"]\nfront = \"redirect\"\n\
             [[listener]]\nname = \"static\"\nlisten = \"udp::12347\"\nfront = \"static\"\nto = \"{}\"\n",
            echo.local_addr().unwrap()
        );
        let path = scratch.write("seaprox.toml", text);
        let seaprox = Seaprox::start(&["run", "--no-strict-modes", &path]);
        redirect_by_tproxy("udp", 12_345);
        // The client has a port to which datagrams are redirected.
        let client = UdpSocket::bind(at(SERVERS[0], 82)).unwrap();
        client.send_to(b"ask", at(SERVERS[0], 12_347)).unwrap();
        let (length, from) = echo.recv_from(&mut [0; 8]).unwrap();
        assert_eq!((length, echo.send_to(b"answer", from).unwrap()), (3, 6));
        seaprox.wait_for_log(&["flow refused", "from=ipv4[udp:198.51.100.7:12347]", "is one of this process"]);
        assert_eq!(seaprox.figure("/flows_opened"), 1);
    });
}

/// Asks for an association on a connection. Returns the address to send to.
fn associate(control: &mut TcpStream) -> SocketAddr {
    control.set_read_timeout(Some(SOON)).unwrap();
    control.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0").unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..10], *b"\x05\0\x05\0\0\x01\x7f\0\0\x01");
    SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]])))
}

#[test]
fn rules_decide_about_the_target_before_it_was_redirected() {
    with_servers(|| {
        let options = ["--mark", "4660", "--deny", "198.51.100.0/24"];
        let seaprox = Seaprox::start(&[&["redirect", "--listen", "12345"][..], &options].concat());
        redirect_by_nat(12_345, "meta mark 4660 accept");
        let servers = SERVERS.map(|addr| TcpListener::bind(at(addr, 81)).unwrap());
        refused(at(SERVERS[0], 81));
        seaprox.wait_for_log(&["reason=not_permitted", "asked=198.51.100.7:81"]);
        converse(at(SERVERS[1], 81), &servers[1]);
    });
}

#[test]
fn the_proxy_header_has_the_address_that_the_client_connected_to() {
    with_servers(|| {
        let options = ["--mark", "4660", "--proxy-protocol-send", "v1"];
        let _seaprox = Seaprox::start(&[&["redirect", "--listen", "12345"][..], &options].concat());
        redirect_by_nat(12_345, "meta mark 4660 accept");
        let server = TcpListener::bind(at(SERVERS[0], 81)).unwrap();
        let client = Peer::connect(at(SERVERS[0], 81));
        let header = format!("PROXY TCP4 198.51.100.7 198.51.100.7 {} 81\r\n", client.local().port());
        Peer::accept(&server).run(&[Take(header.as_bytes())]);
    });
}

#[test]
fn each_redirected_datagram_has_a_proxy_header_with_the_address_that_its_client_has_sent_to() {
    with_servers(|| {
        let options = ["--mark", "4660", "--proxy-protocol-send", "v2"];
        let _seaprox = Seaprox::start(&[&["redirect", "--listen", "12345", "--udp"][..], &options].concat());
        redirect_by_tproxy("udp", 12_345);
        for (addr, family) in SERVERS.into_iter().zip([0x12, 0x22]) {
            let (server, client) = (UdpSocket::bind(at(addr, 82)).unwrap(), UdpSocket::bind(at(addr, 0)).unwrap());
            server.set_read_timeout(Some(SOON)).unwrap();
            let ip = match at(addr, 0).ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let port = client.local_addr().unwrap().port();
            let ports = [port.to_be_bytes(), 82_u16.to_be_bytes()].concat();
            let fixed = [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family, 0, 2 * ip.len() as u8 + 4][..]].concat();
            for content in [&b"one"[..], b"", b"three"] {
                client.send_to(content, at(addr, 82)).unwrap();
                let mut buf = [0; 256];
                let length = server.recv(&mut buf).unwrap();
                assert_eq!(buf[..length], [&fixed, &ip, &ip, &ports, content].concat());
            }
        }
    });
}

/// The sockets of a listener stay when its front end becomes another one.
#[test]
fn a_reload_makes_a_listener_serve_redirected_clients_with_the_mark_of_the_new_file() {
    with_servers(|| {
        let scratch = Scratch::new();
        let file = |mark: u32, front: &str| {
            let text = format!(
                "mark = {mark}\nno-strict-modes = true\n[[listener]]\nname = \"it\"\nlisten = [\"12345\", \"udp:12345\"]\n{front}\n"
            );
            scratch.write("seaprox.toml", text)
        };
        let path = file(0, "front = \"static\"\nto = \"127.0.0.1:9\"");
        let seaprox = Seaprox::start(&["run", "--no-strict-modes", &path]);
        file(4660, "front = \"redirect\"");
        seaprox.signal(libc::SIGHUP);
        seaprox.wait_for_log(&["configuration reloaded"]);
        redirect_by_tproxy("tcp", 12_345);
        let server = TcpListener::bind(at(SERVERS[1], 82)).unwrap();
        drop(converse(at(SERVERS[1], 82), &server));
        nft("delete table inet tproxy_test");
        redirect_by_tproxy("udp", 12_345);
        let server = UdpSocket::bind(at(SERVERS[0], 82)).unwrap();
        let client = UdpSocket::bind(at(SERVERS[0], 0)).unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        client.send_to(b"ask", at(SERVERS[0], 82)).unwrap();
        let (length, from) = server.recv_from(&mut [0; 8]).unwrap();
        // The answer would leave from the address of the server, which this host cannot give to two sockets.
        assert!(length == 3 && from != client.local_addr().unwrap(), "the datagram came through the proxy");
    });
}

/// The rule leaves out the group of the process instead of a mark.
#[test]
fn a_process_without_rights_serves_clients_of_nat_and_says_that_it_serves_no_others() {
    with_servers(|| {
        let seaprox = Seaprox::start_with(&["redirect", "--listen", "12345"], without_rights);
        redirect_by_nat(12_345, &format!("meta skgid {GROUP} accept"));
        for addr in SERVERS {
            let server = TcpListener::bind(at(addr, 81)).unwrap();
            converse(at(addr, 81), &server);
        }
        seaprox.wait_for_log(&["WARN", "clients of tproxy are not served", "CAP_NET_ADMIN"]);
    });
}

#[test]
fn an_option_that_needs_rights_ends_a_process_without_them_at_once() {
    if !has_namespaces() {
        return;
    }
    for options in [["--mark", "7"], ["--bind-source", "transparent"], ["--listen", "udp:127.0.0.1:0"]] {
        let line = [&["redirect"][..], &options].concat();
        let ran = run_with(&line, b"", without_rights);
        let text = format!("seaprox redirect: {}: expected the capability CAP_NET_ADMIN: ", options.join(" "));
        assert!(ran.code == Some(78) && ran.err.starts_with(&text), "{:?} {}", ran.code, ran.err);
    }
}

/// The manual leaves out the rules that options add; it has comments behind its lines.
#[test]
fn the_rules_of_the_manual_are_those_of_the_script() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let page = std::fs::read_to_string(format!("{root}/docs/redirect.md")).unwrap();
    let mut printed = Vec::new();
    for mode in
        [&["host", "--udp"][..], &["gateway", "--interface", "eth1"], &["gateway", "--interface", "eth1", "--udp"]]
    {
        let script = format!("{root}/examples/redirect/redirect-rules");
        let ran = Command::new(script).args(mode).arg("--print").output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        printed.extend(String::from_utf8(ran.stdout).unwrap().lines().map(|line| line.trim().to_owned()));
    }
    let blocks = page.split("```").skip(1).step_by(2);
    let lines = blocks.filter(|block| block.contains("nft") || block.contains("table inet")).flat_map(str::lines);
    let rules = lines.map(|line| line.split(" # ").next().unwrap().trim());
    let rules: Vec<&str> = rules
        .filter(|line| line.contains("accept") || line.contains(" set ") || line.contains("redirect to"))
        .collect();
    assert!(rules.len() >= 20, "{rules:?}");
    for rule in rules {
        assert!(printed.iter().any(|line| line == rule), "no rule of the script is {rule:?}");
    }
    for route in page.lines().filter(|line| line.starts_with("ip -")).flat_map(|line| line.split(" && ")) {
        let route = route.replace("route add", "route replace");
        assert!(printed.contains(&route), "the script does not run {route:?}");
    }
}

/// Makes a command run without the rights over the network that root has, in a group of its own.
fn without_rights(command: &mut Command) {
    command.gid(GROUP);
    // SAFETY: between fork and exec there are two system calls, which take integers.
    unsafe {
        command.pre_exec(|| {
            let drop = |right: libc::c_ulong| libc::prctl(libc::PR_CAPBSET_DROP, right);
            if drop(CAP_NET_ADMIN) + drop(CAP_NET_RAW) == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
}

/// The group nogroup.
const GROUP: u32 = 65_534;
// Capabilities (linux/capability.h).
const CAP_NET_ADMIN: libc::c_ulong = 12;
const CAP_NET_RAW: libc::c_ulong = 13;
