//! Datagrams through the binary: programs that nobody here wrote, closing lines, status, limits, files.

use crate::kit;

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::admin::ctl;
use kit::datagrams::echo;
use kit::names::isolated;
use kit::program::{Program, output};
use kit::{SOON, Scratch, Seaprox, has, has_namespaces, run, until};

/// Returns the address of a UDP listener of the process.
fn udp_addr(seaprox: &Seaprox, index: usize) -> SocketAddr {
    let text = seaprox.listens(index);
    text.strip_prefix("udp:").unwrap_or_else(|| panic!("{text} is no UDP address")).parse().unwrap()
}

/// Makes the socket of a client.
fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// Sends a datagram, and takes its echo.
#[track_caller]
fn converse(client: &UdpSocket, to: SocketAddr, payload: &[u8]) {
    client.send_to(payload, to).unwrap();
    let mut buf = [0; 65_536];
    let (len, from) = client.recv_from(&mut buf).expect("an echo");
    assert!(from == to && &buf[..len] == payload, "{len} bytes from {from}");
}

#[test]
fn static_relays_datagrams_and_says_how_each_flow_ended() {
    let to = echo().to_string();
    let seaprox =
        Seaprox::start(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &to, "--udp-idle-timeout", "500ms"]);
    let addr = udp_addr(&seaprox, 0);
    let client = client();
    converse(&client, addr, b"hello");
    converse(&client, addr, &[7; 1_400]);
    let status = seaprox.status();
    assert_eq!(status["flows"][0]["datagrams_sent"], 2, "{status}");
    assert_eq!(status["flows"][0]["state"], "answered");
    let line = seaprox.wait_for_log(&[" closed ", "reason=idle_timeout"]);
    for word in
        ["sent=1405", "received=1405", "datagrams=2/2", "dropped=0", "end=graceful", "conn=static[ipv4[udp:127.0.0.1:"]
    {
        assert!(line.contains(word), "{word} in {line}");
    }
    assert_eq!(seaprox.figure("/flows_opened"), 1);
    assert_eq!(seaprox.figure("/datagrams_sent"), 2);
}

#[test]
fn a_target_that_is_silent_or_unreachable_is_named_in_the_log() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = silent.local_addr().unwrap().to_string();
    let seaprox =
        Seaprox::start(&["static", "--listen", "udp:127.0.0.1:0", "--to", &to, "--udp-first-answer-timeout", "100ms"]);
    let addr = udp_addr(&seaprox, 0);
    client().send_to(b"ask", addr).unwrap();
    seaprox.wait_for_log(&["reason=timed_out", "datagrams=1/0", "no answer within 100ms"]);
    drop(silent);
    ask_until_refused(&seaprox, addr);
    assert!(seaprox.count_log(&["reason=connection_refused", "datagrams=1/0"]) > 0);
}

/// Asks a target that is gone, until a flow ends for that. A process that another test starts just now may have the socket of
/// the target for a moment longer.
pub fn ask_until_refused(seaprox: &Seaprox, addr: SocketAddr) {
    until("a refused flow", || {
        client().send_to(b"ask", addr).unwrap();
        seaprox.count_log(&[" closed ", "reason=connection_refused"]) > 0
    });
}

#[test]
fn rules_about_udp_decide_about_datagrams() {
    let to = echo().to_string();
    let rule = format!("udp:{to}");
    let seaprox = Seaprox::start(&["static", "--listen", "udp:127.0.0.1:0", "--to", &to, "--deny", &rule]);
    client().send_to(b"ask", udp_addr(&seaprox, 0)).unwrap();
    seaprox.wait_for_log(&["flow refused", "reason=not_permitted", "a rule denies the target"]);
    let seaprox = Seaprox::start(&["static", "--listen", "udp:127.0.0.1:0", "--to", &to, "--allow", &rule]);
    converse(&client(), udp_addr(&seaprox, 0), b"permitted");
}

#[test]
fn rules_about_addresses_decide_about_the_targets_of_a_balancer() {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_nonblocking(true).unwrap();
    let port = target.local_addr().unwrap().port();
    let to = format!("localhost:{port},127.0.0.1:{port}");
    let denied = ["--deny", "udp:127.0.0.0/8", "--deny", "udp:[::1]", "--allow", "udp:*"];
    let seaprox = Seaprox::start(&[&["static", "--listen", "udp:127.0.0.1:0", "--to", &to], &denied[..]].concat());
    let addr = udp_addr(&seaprox, 0);
    // Each target has its turn.
    for line in ["a rule forbids its addresses", "a rule denies the target"] {
        until(line, || {
            client().send_to(b"ask", addr).unwrap();
            seaprox.log().iter().any(|one| one.contains(line))
        });
    }
    assert!(target.recv_from(&mut [0; 9]).is_err(), "a target got a datagram");
}

#[test]
fn a_range_of_ports_relays_datagrams_to_a_range_of_ports() {
    if !has_namespaces() {
        return;
    }
    isolated("", |_| {
        let targets: Vec<UdpSocket> =
            (4_000..4_003).map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap()).collect();
        let _seaprox =
            Seaprox::start(&["static", "--udp", "--listen", "127.0.0.1:3000-3002", "--to", "127.0.0.1:4000-4002"]);
        for (index, target) in targets.iter().enumerate() {
            client().send_to(b"ask", ("127.0.0.1", 3_000 + index as u16)).unwrap();
            target.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(target.recv(&mut [0; 8]).unwrap(), 3);
        }
    });
}

#[test]
fn a_file_has_listeners_of_both_protocols_and_a_reload_changes_their_target() {
    let scratch = Scratch::new();
    let write = |to: SocketAddr, tail: &str| {
        let text = format!(
            "[[listener]]\nname = \"dns\"\nfront = \"static\"\nlisten = \"127.0.0.1:0\"\nudp = true\ntcp = true\n\
             to = \"{to}\"\nudp-idle-timeout = \"7s\"\n{tail}"
        );
        let path = scratch.write("seaprox.toml", &text);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    };
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let path = write(gone, "");
    assert_eq!(run(&["check", &path]).code, Some(0));
    let seaprox = Seaprox::start(&["run", &path]);
    let addrs = [seaprox.listens(0), seaprox.listens(1)];
    let udp: SocketAddr = addrs.iter().find_map(|text| text.strip_prefix("udp:")).unwrap().parse().unwrap();
    assert!(addrs.iter().any(|text| !text.starts_with("udp:")), "{addrs:?}");
    ask_until_refused(&seaprox, udp);
    write(echo(), "");
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["reloaded"]);
    converse(&client(), udp, b"after the reload");
}

#[test]
fn a_drain_lets_flows_end_and_a_second_signal_ends_them_at_once() {
    let to = echo().to_string();
    let mut seaprox = Seaprox::start(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &to]);
    let client = client();
    converse(&client, udp_addr(&seaprox, 0), b"hello");
    seaprox.signal(libc::SIGTERM);
    assert!(seaprox.wait(Duration::from_secs(25)).success());
    seaprox.wait_for_log(&[" closed ", "reason=drained", "datagrams=1/1"]);
}

#[test]
fn dig_and_drill_ask_a_name_server_over_udp_and_tcp() {
    if !has_namespaces() || !has("dig") || !has("drill") {
        return;
    }
    isolated("", |names| {
        names.set("a.test", &["192.0.2.7", "2001:db8::7"], Duration::ZERO);
        let seaprox =
            Seaprox::start(&["static", "--listen", "5353", "--udp", "--to", "127.0.0.1:53", "--threads", "2"]);
        udp_addr(&seaprox, 0);
        for server in ["127.0.0.1", "::1"] {
            let answer = output("dig +tries=1 +time=10 +short -p 5353 @\"$0\" a.test A", &[server]);
            assert_eq!(answer, "192.0.2.7");
        }
        let answer = output("drill -p 5353 a.test @127.0.0.1 AAAA", &[]);
        assert!(answer.contains("2001:db8::7"), "{answer}");
        until("three flows", || seaprox.figure("/flows_opened") == 3);
    });
}

#[test]
fn ncat_speaks_over_udp_through_a_listener() {
    if !has("ncat") {
        return;
    }
    let to = echo().to_string();
    let seaprox = Seaprox::start(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &to]);
    let port = udp_addr(&seaprox, 0).port().to_string();
    let mut command = Command::new("ncat");
    command.args(["-u", "127.0.0.1", &port]).stdin(Stdio::piped());
    let mut ncat = Program::start(command);
    // Its input stays open, because ncat ends with it, with or without an answer.
    ncat.0.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(ncat.first_line(), "hello");
}

#[test]
fn iperf3_measures_datagrams_through_a_listener_of_both_protocols() {
    if !has_namespaces() || !has("iperf3") {
        return;
    }
    isolated("", |_| {
        let mut server = Command::new("iperf3");
        server.args(["-s", "-p", "5201", "--bind", "127.0.0.1"]);
        let _server = Program::start(server);
        until("iperf3 listens", || TcpStream::connect("127.0.0.1:5201").is_ok());
        let seaprox =
            Seaprox::start(&["static", "--listen", "127.0.0.1:5301", "--tcp", "--udp", "--to", "127.0.0.1:5201"]);
        seaprox.listens(1);
        let text = output("iperf3 -u -c 127.0.0.1 -p 5301 -b 4M -l 1200 -t 1 --json", &[]);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sum = &report["end"]["sum"];
        // A busy machine may lose some.
        assert!(sum["packets"].as_u64().unwrap() > 200 && sum["lost_percent"].as_f64().unwrap() < 50.0, "{sum}");
    });
}

/// Returns the id of the only flow.
fn only_flow(seaprox: &Seaprox) -> String {
    let status = seaprox.status();
    assert_eq!(status["flows"].as_array().map(Vec::len), Some(1), "{status}");
    status["flows"][0]["id"].as_str().expect("an id").to_owned()
}

/// A flow goes on with what it was opened with, as a connection does, until it is idle or ended by hand.
#[test]
fn a_reload_changes_no_flow_and_a_flow_is_closed_by_its_id() {
    let scratch = Scratch::new();
    let targets = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
    targets.iter().for_each(|target| target.set_read_timeout(Some(SOON)).unwrap());
    let file = |target: usize, rule: &str| {
        let to = targets[target].local_addr().unwrap();
        let text = format!(
            "threads = 2\n[[listener]]\nname = \"it\"\nlisten = \"udp:127.0.0.1:0\"\nfront = \"static\"\nto = \"{to}\"\n{rule}\n"
        );
        scratch.write("seaprox.toml", text)
    };
    let path = file(0, "");
    let seaprox = Seaprox::start(&["run", &path]);
    let at: SocketAddr = seaprox.listens(0).strip_prefix("udp:").expect("a UDP address").parse().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let arrives_at = |target: usize| {
        client.send_to(b"ask", at).unwrap();
        assert_eq!(targets[target].recv(&mut [0; 8]).expect("a datagram"), 3, "at target {target}");
    };
    arrives_at(0);
    let first = only_flow(&seaprox);
    file(1, "");
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["configuration reloaded"]);
    arrives_at(0);
    assert_eq!(only_flow(&seaprox), first);
    for (args, code, says) in [
        (&["close", "flow", "9999.1"][..], 1, "no flow \"9999.1\""),
        (&["close", "flow", "x"], 2, "expected the id of a flow"),
        (&["close", "flow", &first], 0, "closed"),
        (&["close", "flow", &first], 1, "no flow"),
    ] {
        let ran = ctl(&seaprox, args);
        let text = format!("{}{}", String::from_utf8_lossy(&ran.out), ran.err);
        assert!(ran.code == Some(code) && text.contains(says), "{args:?}: {:?} {text}", ran.code);
    }
    seaprox.wait_for_log(&["closed", "reason=killed", "datagrams=2/0"]);
    arrives_at(1);
    // A rule decides about a flow when it is opened.
    file(1, "deny = [\"udp:*\"]");
    seaprox.signal(libc::SIGHUP);
    until("the reload is done", || seaprox.count_log(&["configuration reloaded"]) == 2);
    arrives_at(1);
    assert_eq!(ctl(&seaprox, &["close", "flow", &only_flow(&seaprox)]).code, Some(0));
    client.send_to(b"ask", at).unwrap();
    seaprox.wait_for_log(&["flow refused", "reason=not_permitted"]);
}
