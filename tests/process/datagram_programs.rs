//! Programs that others wrote and that send datagrams (BS-24, TN-45): drill, iperf3, sipp, redsocks and HTTP/3 of ngtcp2, through
//! static listeners, SOCKS5 and over links.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::linked_datagrams::{Pair, said};
use crate::kit::http3::{Http3, has_http3};
use crate::kit::names::{ip, isolated};
use crate::kit::program::{Program, output};
use crate::kit::{Peer, Scratch, Seaprox, Step, has, has_namespaces, until};

/// An address of this host that is not of loopback.
const SERVER: &str = "198.51.100.7";

/// Starts `static` for one port of loopback, with a link to the far node or without one.
fn relay(pair: Option<&Pair>, options: &[&str], from: u16, to: u16) -> Seaprox {
    let (from, to) = (format!("127.0.0.1:{from}"), format!("127.0.0.1:{to}"));
    let words = [&["static", "--listen", &from, "--to", &to], options].concat();
    let node = match pair {
        Some(pair) => pair.near(&words, "--via"),
        None => Seaprox::start(&words),
    };
    said(&node, "listening static ");
    if pair.is_some() {
        until("the link is up", || node.status()["links"][0]["state"] == "up");
    }
    node
}

#[test]
fn drill_asks_a_name_server_over_a_link_in_both_directions() {
    if !has_namespaces() || !has("drill") {
        return;
    }
    isolated("", |names| {
        names.set("a.test", &["192.0.2.7"], Duration::ZERO);
        let pair = Pair::new(&[]);
        let near = ["link", "-L", "udp:5353:127.0.0.1:53", "-R", "udp:127.0.0.1:5354:127.0.0.1:53"];
        let near = pair.near(&near, "--connect");
        said(&near, "listening remote ");
        for port in ["5353", "5354"] {
            let answer = output("drill -p $0 a.test @127.0.0.1 A", &[port]);
            assert!(answer.contains("192.0.2.7"), "{port}: {answer}");
        }
    });
}

/// Neither drill nor the wrapper knows the other; the wrapper replaces `connect` and `sendto`.
#[test]
fn drill_asks_a_name_server_through_socks_with_a_wrapper() {
    if !has_namespaces() || !has("drill") || !has("socksify") {
        return;
    }
    isolated("", |names| {
        names.set("a.test", &["192.0.2.7"], Duration::ZERO);
        let socks = Seaprox::start(&["socks", "-v", "--listen", "127.0.0.1:1080"]);
        let scratch = Scratch::new();
        let route = "route { from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = 1080\n \
                     proxyprotocol: socks_v5\n protocol: tcp udp\n method: none }\n";
        let config = scratch.write("socks.conf", route);
        // By default it reaches networks of this host directly.
        let line = "SOCKS_AUTOADD_LANROUTES=no SOCKS_CONF=$0 socksify drill a.test @127.0.0.1 A";
        let answer = output(line, &[&config]);
        assert!(answer.contains("192.0.2.7"), "{answer}");
        socks.wait_for_log(&[" closed ", "conn=socks5-udp[", "datagrams=1/1", "reason=source_fin"]);
    });
}

/// The control connection of iperf3 has the port of the datagrams.
#[test]
fn iperf3_measures_datagrams_over_a_link() {
    if !has_namespaces() || !has("iperf3") {
        return;
    }
    isolated("", |_| {
        let mut server = Command::new("iperf3");
        server.args(["-s", "-p", "5201", "--bind", "127.0.0.1"]).stdin(Stdio::null());
        let _server = Program::start(server);
        until("iperf3 listens", || TcpStream::connect("127.0.0.1:5201").is_ok());
        let pair = Pair::new(&[]);
        let near = relay(Some(&pair), &["--tcp", "--udp"], 5301, 5201);
        for reverse in ["", "--reverse"] {
            let text = output("iperf3 -u -c 127.0.0.1 -p 5301 -b 2M -l 1200 -t 1 --json $0", &[reverse]);
            let report: serde_json::Value = serde_json::from_str(&text).unwrap();
            let sum = &report["end"]["sum"];
            // A busy machine may lose some.
            assert!(sum["packets"].as_u64().unwrap() > 100 && sum["lost_percent"].as_f64().unwrap() < 50.0, "{sum}");
            assert_eq!(report["end"]["streams"][0]["udp"]["out_of_order"], 0, "{report}");
        }
        near.wait_for_log(&[" closed ", "conn=static[ipv4[127.0.0.1:", "end=graceful"]);
    });
}

#[test]
fn calls_of_sipp_are_set_up_and_ended_through_static_and_over_a_link() {
    if !has_namespaces() || !has("sipp") {
        return;
    }
    isolated("", |_| {
        let mut server = Command::new("sh");
        let line = "exec sipp -sn uas -i 127.0.0.1 -p 5070 -nostdin >/dev/null 2>&1";
        server.args(["-c", line]).env("TERM", "dumb").stdin(Stdio::null());
        let _server = Program::start(server);
        until("sipp listens", || !output("ss -Hlun sport = :5070", &[]).is_empty());
        let pair = Pair::new(&[]);
        for (port, over) in [("5060", None), ("5061", Some(&pair))] {
            let node = relay(over, &["--udp"], port.parse().unwrap(), 5070);
            // It ends with 0 if all calls were successful.
            let call = "cd $1 && TERM=dumb timeout 60 sipp -sn uac -i 127.0.0.1 -p 5080 -nostdin -m 20 -r 20 -d 300 \
                        127.0.0.1:$0 >/dev/null";
            let scratch = Scratch::new();
            output(call, &[port, scratch.path().to_str().unwrap()]);
            // INVITE, ACK and BYE, and three answers, if nothing is sent twice.
            let flow = node.status()["flows"][0].clone();
            let count = |name: &str| flow[name].as_u64().unwrap_or_else(|| panic!("{flow}"));
            assert!(count("datagrams_sent") >= 60 && count("datagrams_received") >= 60, "{flow}");
        }
    });
}

#[test]
fn http3_passes_unchanged_through_static_and_over_a_link() {
    if !has_namespaces() || !has_http3() {
        return;
    }
    isolated("", |_| {
        let server = Http3::start("127.0.0.1", |program| Command::new(program));
        let pair = Pair::new(&[]);
        for (port, over) in [(8443, None), (8444, Some(&pair))] {
            let node = relay(over, &["--udp"], port, 4433);
            server.fetch("127.0.0.1", port, |program| Command::new(program));
            assert!(node.figure("/flows_opened") >= 1);
        }
    });
}

/// redsocks turns redirected clients into clients of a SOCKS5 proxy: `redsocks` for TCP, `redudp` for UDP.
#[test]
fn redsocks_brings_datagrams_and_connections_to_socks() {
    if !has_namespaces() || !has("redsocks") {
        return;
    }
    isolated("", |names| {
        names.set("a.test", &["192.0.2.7"], Duration::ZERO);
        ip(&format!("addr add {SERVER}/32 dev lo"));
        let users = Scratch::new();
        let file = users.write("users", "joe:secret\n");
        let socks = Seaprox::start(&["socks", "--mark", "77", "--listen", "127.0.0.1:1080", "--users", &file]);
        let proxy = "ip = 127.0.0.1; port = 1080; login = joe; password = secret;";
        let config = users.write(
            "redsocks.conf",
            format!(
                "base {{ log_debug = off; log_info = off; log = stderr; daemon = off; redirector = iptables; }}\n\
                 redsocks {{ local_ip = 127.0.0.1; local_port = 12345; type = socks5; {proxy} }}\n\
                 redudp {{ local_ip = 127.0.0.1; local_port = 10053; {proxy} dest_ip = 127.0.0.1; dest_port = 53;\n\
                 udp_timeout = 30; udp_timeout_stream = 180; }}\n"
            ),
        );
        let rules = "table ip nat_test { chain out { type nat hook output priority -100; meta mark 77 accept; \
                     ip daddr 198.51.100.7 tcp dport 7000 redirect to :12345; }; }";
        output("nft \"$0\"", &[rules]);
        let mut redsocks = Command::new("/usr/sbin/redsocks");
        redsocks.args(["-c", &config]).stdin(Stdio::null());
        let _redsocks = Program::start(redsocks);
        until("redsocks listens", || !output("ss -Hlun sport = :10053", &[]).is_empty());

        let answer = output("drill -p 10053 a.test @127.0.0.1 A", &[]);
        assert!(answer.contains("192.0.2.7"), "{answer}");
        assert_eq!(socks.figure("/associations_opened"), 1);

        // Each end sends its FIN behind its bytes, and the other one still gets an answer.
        let listener = TcpListener::bind((SERVER, 7000)).unwrap();
        let mut client = Peer::connect(listener.local_addr().unwrap());
        client.run(&[Step::Put(b"question"), Step::Fin]);
        let mut server = Peer::accept(&listener);
        assert_eq!(server.rest(), b"question");
        server.run(&[Step::Put(b"answer"), Step::Fin]);
        assert_eq!(client.rest(), b"answer");
        socks.wait_for_log(&[" closed ", "user=joe", &format!("asked={SERVER}:7000"), "end=graceful"]);
    });
}
