//! The PROXY protocol for datagrams: with receivers and senders of this test, and with unbound and dnsdist.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::kit::datagrams::echo;
use crate::kit::link::Keys;
use crate::kit::program::{Program, free_port, output};
use crate::kit::{SOON, Scratch, Seaprox, has, until};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Starts `static --udp` to a target.
fn relay(to: &str, options: &[&str]) -> (Seaprox, SocketAddr) {
    let seaprox = Seaprox::start(&[&["static", "--udp", "--listen", "127.0.0.1:0", "--to", to], options].concat());
    let text = seaprox.listens(0);
    let addr = text.strip_prefix("udp:").unwrap_or_else(|| panic!("{text} is no UDP address")).parse().unwrap();
    (seaprox, addr)
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Sends a datagram, and returns the answer.
#[track_caller]
fn ask(client: &UdpSocket, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    client.send_to(payload, to).unwrap();
    let mut buf = [0; 65_536];
    let (len, from) = client.recv_from(&mut buf).expect("an answer");
    assert_eq!(from, to);
    buf[..len].to_vec()
}

/// Returns a header of version 2 for datagrams over IPv4, with the content behind it.
fn headed(client: SocketAddr, dest: SocketAddr, content: &[u8]) -> Vec<u8> {
    let mut bytes = [SIGNATURE, b"\x21\x12\0\x0c"].concat();
    for addr in [client, dest] {
        let SocketAddr::V4(addr) = addr else { panic!("{addr} is no IPv4 address") };
        bytes.extend(addr.ip().octets());
    }
    for addr in [client, dest] {
        bytes.extend(addr.port().to_be_bytes());
    }
    bytes.extend(content);
    bytes
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn each_datagram_to_a_target_has_the_header_of_its_client() {
    let to = format!("localhost:{}", echo().port());
    // The first datagram waits until the name is resolved.
    let (seaprox, at) = relay(&to, &["--only", "ipv4", "--proxy-protocol-send", "v2"]);
    for client in [client(), client()] {
        let from = client.local_addr().unwrap();
        for content in [&b"one"[..], b"", &[7; 1_400]] {
            assert_eq!(ask(&client, at, content), headed(from, at, content));
        }
    }
    let line = |seaprox: &Seaprox| seaprox.status()["flows"][0]["datagrams_sent"].clone();
    assert_eq!(line(&seaprox), 3);
}

#[test]
fn only_the_first_datagram_of_a_flow_has_a_header_if_the_option_says_so() {
    let to = echo().to_string();
    let (_seaprox, at) = relay(&to, &["--proxy-protocol-send", "v2", "--proxy-protocol-udp", "first"]);
    for client in [client(), client()] {
        let from = client.local_addr().unwrap();
        assert_eq!(ask(&client, at, b"one"), headed(from, at, b"one"));
        for content in [&b"two"[..], b"", b"three"] {
            assert_eq!(ask(&client, at, content), content);
        }
    }
}

#[test]
fn the_clients_of_one_sender_are_told_apart_by_the_headers_of_their_datagrams() {
    let to = echo().to_string();
    let options = [
        "--proxy-protocol-accept-from",
        "127.0.0.0/8",
        "--proxy-protocol-send",
        "v2",
        "--deny",
        "from:192.0.2.9,udp:*",
        "--allow",
        "udp:*",
    ];
    let (seaprox, at) = relay(&to, &options);
    let proxy = client();
    let dest = addr("10.0.0.1:53");
    for _ in 0..2 {
        for (from, content) in [("192.0.2.7:1000", b"seven"), ("192.0.2.8:1000", b"eight")] {
            let datagram = headed(addr(from), dest, content);
            assert_eq!(ask(&proxy, at, &datagram), datagram, "passed on as it came");
        }
    }
    assert_eq!(seaprox.figure("/flows_opened"), 2);
    let status = seaprox.status()["flows"].to_string();
    assert!(status.contains("192.0.2.7:1000") && status.contains("192.0.2.8:1000"), "{status}");
    // The rules see the client, and a datagram without a header has none.
    proxy.send_to(&headed(addr("192.0.2.9:1000"), dest, b"nine"), at).unwrap();
    seaprox.wait_for_log(&["flow refused", "reason=not_permitted", "a rule denies the target"]);
    for wrong in [&b"plain"[..], b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n", SIGNATURE, b""] {
        proxy.send_to(wrong, at).unwrap();
    }
    until("they are dropped", || seaprox.figure("/datagrams_dropped/refused") >= 5);
    assert_eq!(seaprox.figure("/flows_opened"), 2);
    proxy.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(proxy.recv_from(&mut [0; 64]).is_err());
}

#[test]
fn a_header_in_the_first_datagram_tells_the_client_of_a_port() {
    let to = echo().to_string();
    let (seaprox, at) = relay(&to, &["--proxy-protocol-accept-from", "127.0.0.0/8", "--proxy-protocol-udp", "first"]);
    let proxy = client();
    assert_eq!(ask(&proxy, at, &headed(addr("192.0.2.7:1000"), addr("10.0.0.1:53"), b"one")), b"one");
    // Later content is the client's, even if it looks like a header.
    let forged = headed(addr("192.0.2.8:1000"), addr("10.0.0.1:53"), b"two");
    assert_eq!(ask(&proxy, at, &forged), forged);
    assert_eq!(ask(&proxy, at, b""), b"");
    let status = seaprox.status()["flows"].to_string();
    assert!(status.contains("192.0.2.7:1000") && !status.contains("192.0.2.8"), "{status}");
    // A port whose first datagram has none is refused.
    client().send_to(b"plain", at).unwrap();
    seaprox.wait_for_log(&["flow refused", "reason=protocol_error", "expected a header of version 2"]);
}

#[test]
fn a_header_of_a_sender_that_is_not_trusted_opens_no_flow() {
    let to = echo().to_string();
    let (seaprox, at) = relay(&to, &["--proxy-protocol-accept-from", "10.0.0.0/8"]);
    client().send_to(&headed(addr("10.0.0.1:1"), addr("10.0.0.1:53"), b"one"), at).unwrap();
    seaprox.wait_for_log(&["flow refused", "reason=not_permitted", "no PROXY header is accepted from this client"]);
    assert_eq!(seaprox.figure("/flows_opened"), 0);
}

#[test]
fn the_far_node_tells_its_target_the_client_of_each_datagram() {
    let (keys, to) = (Keys::new(), echo().to_string());
    let options = "permit-open=\"udp:127.0.0.1:*\",name=\"near\"";
    keys.permit(Some(&format!("{options},permit-source=\"127.0.0.1\"")));
    let far = keys.start_far(&["--proxy-protocol-send", "v2"]);
    let via = keys.via(&far.listens(0));
    let (near, at) = relay(&to, &via.iter().map(String::as_str).collect::<Vec<_>>());
    let told = client();
    let from = told.local_addr().unwrap();
    for content in [&b"one"[..], b"", b"three"] {
        assert_eq!(ask(&told, at, content), headed(from, at, content));
    }
    let flow = far.status()["flows"][0].clone();
    assert!(flow["client"].to_string().contains(&from.to_string()), "{flow}");
    assert!(near.status()["flows"][0]["client"].is_null());
    // Without the permission the client is the peer: the far end of the connection of the link.
    keys.permit(Some(options));
    far.signal(libc::SIGHUP);
    far.wait_for_log(&["files reloaded"]);
    let other = client();
    let answer = ask(&other, at, b"one");
    let peer = addr(far.status()["links"][0]["subflows"][0]["remote"].as_str().unwrap());
    assert_eq!(answer, headed(peer, addr(&far.listens(0)), b"one"));
}

/// A client of `socks` with an association, and the address that it sends datagrams to.
fn associated(seaprox: &Seaprox) -> (TcpStream, UdpSocket, SocketAddr) {
    let mut control = TcpStream::connect(seaprox.addr(0)).unwrap();
    control.set_read_timeout(Some(SOON)).unwrap();
    control.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0").unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..10], *b"\x05\0\x05\0\0\x01\x7f\0\0\x01");
    (control, client(), SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]]))))
}

/// Returns a datagram of an association, with the header of SOCKS5 in front of the content.
fn socks_datagram(dest: &[u8], content: &[u8]) -> Vec<u8> {
    [&[0; 3], dest, content].concat()
}

#[test]
fn the_datagrams_of_an_association_have_the_header_of_its_client() {
    let (to, too) = (echo(), echo());
    let [to, too] = [to, too].map(|addr| [&[1, 127, 0, 0, 1], &addr.port().to_be_bytes()[..]].concat());
    let name = [&[3, 9], &b"localhost"[..], &to[5..]].concat();
    let contents = [&b"one"[..], b"", &[7; 1_400]];
    for (udp, has_header) in [("each", [true, true, true]), ("first", [true, false, false])] {
        let options = ["--only", "ipv4", "--proxy-protocol-send", "v2", "--proxy-protocol-udp", udp];
        let seaprox = Seaprox::start(&[&["socks", "--listen", "127.0.0.1:0"][..], &options].concat());
        let (_control, client, relay) = associated(&seaprox);
        let from = client.local_addr().unwrap();
        // A name has no address until it is resolved; its flow begins with another first datagram.
        for (dest, sender) in [(&to, &to), (&too, &too), (&name, &to)] {
            for (content, has_header) in contents.into_iter().zip(has_header) {
                let answer = if has_header { headed(from, relay, content) } else { content.to_vec() };
                let answered = ask(&client, relay, &socks_datagram(dest, content));
                assert!(answered == socks_datagram(sender, &answer), "{udp}: {}", answered.escape_ascii());
            }
        }
        assert_eq!(seaprox.figure("/flows_opened"), 3);
    }
}

#[test]
fn a_file_names_the_datagrams_that_have_a_header() {
    let (target, scratch) = (echo().to_string(), Scratch::new());
    let file = scratch.write(
        "relay.toml",
        format!(
            "[[listener]]\nlisten = \"udp:127.0.0.1:0\"\nfront = \"static\"\nto = \"{target}\"\n\
             proxy-protocol = {{ send = \"v2\", udp = \"first\" }}\n"
        ),
    );
    let seaprox = Seaprox::start(&["run", &file]);
    let at = addr(seaprox.listens(0).strip_prefix("udp:").unwrap());
    let client = client();
    assert_eq!(ask(&client, at, b"one"), headed(client.local_addr().unwrap(), at, b"one"));
    assert_eq!(ask(&client, at, b"two"), b"two");
}

/// Starts unbound, which wants a header in each datagram, and logs the client of each question.
fn unbound(scratch: &Scratch, port: u16) -> Program {
    let directory = scratch.path().display();
    scratch.write(
        "unbound.conf",
        format!(
            "server:\n verbosity: 1\n log-queries: yes\n logfile: log\n use-syslog: no\n username: \"\"\n chroot: \"\"\n directory: \"{directory}\"\n \
             pidfile: \"\"\n do-daemonize: no\n interface: 127.0.0.1@{port}\n port: {port}\n \
             proxy-protocol-port: {port}\n access-control: 127.0.0.0/8 allow\n \
             local-zone: \"test.\" static\n local-data: \"here.test. A 192.0.2.1\"\nremote-control:\n control-enable: no\n"
        ),
    );
    let mut command = Command::new("/usr/sbin/unbound");
    command.arg("-d").arg("-c").arg(scratch.file("unbound.conf")).stdin(Stdio::null());
    let program = Program::start(command);
    // It listens for streams at the same port.
    until("unbound listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    program
}

/// Asks with dig from this address. Returns the status and the short answer.
fn dig(from: &str, at: SocketAddr) -> String {
    let line = "dig -b \"$0\" @127.0.0.1 -p \"$1\" +tries=2 +time=10 here.test A";
    output(line, &[from, &at.port().to_string()])
}

#[test]
fn unbound_takes_the_client_of_the_header_and_dnsdist_sends_one() {
    if !has("unbound") || !has("dnsdist") || !has("dig") {
        return;
    }
    let (scratch, port) = (Scratch::new(), free_port());
    let _unbound = unbound(&scratch, port);
    let to = format!("127.0.0.1:{port}");
    let (_sends, at) = relay(&to, &["--proxy-protocol-send", "v2"]);
    let is_told = |clients: [&str; 2], at| {
        for client in clients {
            let answer = dig(client, at);
            assert!(answer.contains("NOERROR") && answer.contains("192.0.2.1"), "{answer}");
        }
        let log = || std::fs::read_to_string(scratch.file("log")).unwrap_or_default();
        let is_logged = |client: &str| log().contains(&format!("info: {client} here.test. A IN"));
        until("unbound has logged both clients", || clients.into_iter().all(is_logged));
    };
    is_told(["127.0.0.5", "127.0.0.6"], at);
    // dnsdist asks for all of its clients from one port.
    let both = ["--proxy-protocol-accept-from", "127.0.0.0/8", "--proxy-protocol-send", "v2"];
    let (relays, at) = relay(&to, &both);
    let front = free_port();
    scratch.write(
        "dnsdist.conf",
        format!(
            "setLocal('127.0.0.1:{front}')\nsetACL('127.0.0.0/8')\nsetSecurityPollSuffix('')\n\
             newServer({{address='{at}', useProxyProtocol=true, healthCheckMode='up'}}):setUp()\n"
        ),
    );
    let mut command = Command::new("/usr/bin/dnsdist");
    command.args(["--supervised", "--disable-syslog", "-C"]).arg(scratch.file("dnsdist.conf")).stdin(Stdio::null());
    let _dnsdist = Program::start(command);
    until("dnsdist listens", || std::net::TcpStream::connect(("127.0.0.1", front)).is_ok());
    is_told(["127.0.0.7", "127.0.0.8"], addr(&format!("127.0.0.1:{front}")));
    let flows = relays.status()["flows"].to_string();
    assert!(flows.contains("127.0.0.7:") && flows.contains("127.0.0.8:"), "{flows}");
}
