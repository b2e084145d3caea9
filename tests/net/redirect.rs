//! `seaprox redirect` between hosts (BS-05, SP-05, X-07): programs without any configuration, on the host of the proxy and behind it
//! as a gateway, with the rules of `examples/redirect/redirect-rules`; directly, over a link, and from the addresses of the clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::thread;

use serde_json::Value;

use crate::kit::http3::{Http3, has_http3};
use crate::kit::program::Program;
use crate::kit::seaprox::run_command;
use crate::kit::{SOON, Scratch, Seaprox, has, until};
use crate::net_kit::nodes::{PORT, Secret, start};
use crate::net_kit::{Host, Kind, Net, has_net};

/// The addresses of the server, to which no host but the server itself has a route unless a test adds one.
const SERVER: [&str; 2] = ["198.51.100.7", "2001:db8::7"];
/// The addresses of the client, of the gateway towards the client and towards the server, and of the server.
const CLIENT: [&str; 2] = ["10.77.1.1", "fd77:1::1"];
const GATEWAY_IN: [&str; 2] = ["10.77.1.2", "fd77:1::2"];
const GATEWAY_OUT: [&str; 2] = ["10.77.2.1", "fd77:2::1"];
const SERVER_NEAR: [&str; 2] = ["10.77.2.2", "fd77:2::2"];

/// A client, a gateway and a server in a row. The gateway forwards no packets.
struct Row(Net);

impl Row {
    fn new() -> Row {
        let mut net = Net::of(&[]);
        let server = net.add_host("server");
        net.join(0, 1, Kind::Veth);
        net.join(1, server, Kind::Veth);
        let row = Row(net);
        let places = [
            (row.client(), "p1", CLIENT[1]),
            (row.gateway(), "p1", GATEWAY_IN[1]),
            (row.gateway(), "p2", GATEWAY_OUT[1]),
        ];
        for (host, device, addr) in places.into_iter().chain([(row.server(), "p2", SERVER_NEAR[1])]) {
            // A neighbor is asked for from a link-local address if the packet is from the address of another host.
            let link_local = format!("fe80::{}", &addr[addr.len() - 1..]);
            host.ip(&format!("addr add {addr}/64 dev {device} nodad\naddr add {link_local}/64 dev {device} nodad"));
        }
        row.client().ip(&format!("route add default via {}\nroute add default via {}", GATEWAY_IN[0], GATEWAY_IN[1]));
        row.server().ip(&format!("addr add {}/32 dev lo\naddr add {}/128 dev lo nodad", SERVER[0], SERVER[1]));
        for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            row.gateway().sysctl(forwarding, "0");
        }
        row
    }

    fn client(&self) -> &Host {
        self.0.host(0)
    }

    fn gateway(&self) -> &Host {
        self.0.host(1)
    }

    fn server(&self) -> &Host {
        self.0.host(2)
    }

    /// Gives the gateway routes to the server.
    fn route_to_server(&self) {
        for (addr, via) in SERVER.iter().zip(SERVER_NEAR) {
            self.gateway().ip(&format!("route add {addr} via {via}"));
        }
    }

    /// Gives the server routes to the client.
    fn route_to_client(&self) {
        for (addr, via) in CLIENT.iter().zip(GATEWAY_OUT) {
            self.server().ip(&format!("route add {addr} via {via}"));
        }
    }

    /// Starts HTTP servers and name servers that answer with the address of their client.
    fn serve(&self) {
        for addr in SERVER {
            let socket = self.server().inside(|| UdpSocket::bind((addr, 53)).unwrap());
            thread::spawn(move || answer_names(&socket));
            let listener = self.server().inside(|| TcpListener::bind((addr, 80)).unwrap());
            thread::spawn(move || listener.incoming().flatten().for_each(|client| answer(&client)));
        }
    }
}

/// Answers each question to a name server with the address of the client.
fn answer_names(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((len, client)) = socket.recv_from(&mut query) {
        // The question ends with its type and class behind the empty label (RFC 1035, section 4.1.2).
        let Some(end) = query[12..len].iter().position(|byte| *byte == 0).map(|at| 12 + at + 5) else { continue };
        let octets = match client.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let mut reply = query[..end].to_vec();
        reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        reply.extend([0xc0, 12, query[end - 4], query[end - 3], 0, 1, 0, 0, 0, 60, 0, octets.len() as u8]);
        reply.extend(octets);
        let _ = socket.send_to(&reply, client);
    }
}

/// Returns what dig gets from the name server with this address: the address that the server sees.
#[track_caller]
fn seen_by_name_server(host: &Host, addr: &str) -> String {
    let mut command = host.command("dig");
    let kind = if addr.contains(':') { "AAAA" } else { "A" };
    command.args([&format!("@{addr}"), "name.example", kind, "+short", "+tries=1", "+time=50"]).stdin(Stdio::null());
    let ran = run_command(command, b"");
    assert_eq!(ran.code, Some(0), "dig @{addr}: {}{}", String::from_utf8_lossy(&ran.out), ran.err);
    String::from_utf8_lossy(&ran.out).trim().to_owned()
}

/// Returns what drill gets, as [`seen_by_name_server`] does.
#[track_caller]
fn seen_by_drill(host: &Host, addr: &str) -> String {
    let mut command = host.command("drill");
    let kind = if addr.contains(':') { "AAAA" } else { "A" };
    command.args(["name.example", &format!("@{addr}"), kind]).stdin(Stdio::null());
    let ran = run_command(command, b"");
    let text = String::from_utf8_lossy(&ran.out);
    assert_eq!(ran.code, Some(0), "drill @{addr}: {text}{}", ran.err);
    let record = text.lines().find(|line| line.starts_with("name.example.")).unwrap_or_else(|| panic!("{text}"));
    record.split_whitespace().last().unwrap().to_owned()
}

/// Reads a request, and answers with the address of the client.
fn answer(mut client: &TcpStream) {
    let lines = BufReader::new(client).lines().map_while(Result::ok);
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let peer = client.peer_addr().map_or_else(|error| error.to_string(), |addr| addr.ip().to_string());
    let _ = write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{peer}", peer.len());
}

fn family(addr: &str) -> &'static str {
    if addr.contains(':') { "-6" } else { "-4" }
}

/// Runs the script of the rules.
#[track_caller]
fn rules(host: &Host, args: &[&str]) {
    let mut command = host.command(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/redirect/redirect-rules"));
    command.args(args);
    let ran = run_command(command, b"");
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
}

/// Returns what curl gets from the server without any configuration: the address that the server sees.
#[track_caller]
fn seen_by_server(host: &Host, addr: &str) -> String {
    let mut command = host.command("curl");
    let url = if addr.contains(':') { format!("http://[{addr}]/") } else { format!("http://{addr}/") };
    command.args(["-q", "-sS", "--max-time", "50", "--noproxy", "*", family(addr), &url]).stdin(Stdio::null());
    let ran = run_command(command, b"");
    assert_eq!(ran.code, Some(0), "curl {url}: {}", ran.err);
    String::from_utf8_lossy(&ran.out).into_owned()
}

/// Starts a node in a host with the options of `seaprox redirect` that fit the rules.
#[track_caller]
fn redirect(host: &Host, options: &[&str]) -> Seaprox {
    let words: Vec<&str> =
        ["redirect", "--listen", "12345", "--mark", "4660"].into_iter().chain(options.iter().copied()).collect();
    Seaprox::start_with(&words, |command| host.enter(command))
}

/// Starts the same with a link to a node that accepts links at this address.
#[track_caller]
fn redirect_via(host: &Host, secret: &Secret, peer: &str, options: &[&str]) -> Seaprox {
    let line = secret.line(&["--via", &format!("{peer}:{PORT}")], options);
    redirect(host, &line.iter().map(String::as_str).collect::<Vec<_>>())
}

fn asked(addr: &str) -> String {
    asked_of(addr, "", 80)
}

fn asked_of(addr: &str, prefix: &str, port: u16) -> String {
    if addr.contains(':') { format!("asked={prefix}[{addr}]:{port}") } else { format!("asked={prefix}{addr}:{port}") }
}

#[test]
fn curl_behind_a_redirecting_gateway_needs_no_configuration() {
    if !(has_net() && has("curl")) {
        return;
    }
    let row = Row::new();
    row.serve();
    row.route_to_server();
    rules(row.gateway(), &["gateway", "--interface", "p1"]);
    let seaprox = redirect(row.gateway(), &[]);
    for (addr, gateway) in SERVER.iter().zip(GATEWAY_OUT) {
        assert_eq!(seen_by_server(row.client(), addr), gateway);
        seaprox.wait_for_log(&["closed", &asked(addr), "via=direct"]);
    }
    rules(row.gateway(), &["remove"]);
    assert_eq!(row.gateway().run("nft list ruleset").trim(), "");
    assert!(!row.gateway().run("ip rule").contains("fwmark"));
}

#[test]
fn curl_behind_a_redirecting_gateway_goes_over_a_link() {
    if !(has_net() && has("curl")) {
        return;
    }
    let (row, secret) = (Row::new(), Secret::new());
    row.serve();
    rules(row.gateway(), &["gateway", "--interface", "p1"]);
    let far = start(row.server(), &secret.far(&[]));
    let _near = redirect_via(row.gateway(), &secret, SERVER_NEAR[0], &[]);
    for addr in SERVER {
        // The far node has the address of the server, so it connects from there.
        assert_eq!(seen_by_server(row.client(), addr), addr);
        far.wait_for_log(&["closed", &asked(addr)]);
    }
}

/// The rules redirect everything that the host sends, and leave the packets of the link out by their mark.
#[test]
fn curl_on_a_host_that_redirects_its_own_connections_goes_over_a_link() {
    if !(has_net() && has("curl")) {
        return;
    }
    let (row, secret) = (Row::new(), Secret::new());
    row.serve();
    row.route_to_server();
    let far = start(row.gateway(), &secret.far(&[]));
    rules(row.client(), &["host"]);
    let near = redirect_via(row.client(), &secret, GATEWAY_IN[0], &[]);
    for (addr, gateway) in SERVER.iter().zip(GATEWAY_OUT) {
        assert_eq!(seen_by_server(row.client(), addr), gateway);
        far.wait_for_log(&["closed", &asked(addr)]);
    }
    assert_eq!(near.count_log(&["reason=not_permitted"]), 0, "no connection of the process came back");
}

#[test]
fn a_server_sees_the_address_of_the_client_of_a_transparent_gateway() {
    if !(has_net() && has("curl")) {
        return;
    }
    let row = Row::new();
    row.serve();
    row.route_to_server();
    row.route_to_client();
    rules(row.gateway(), &["gateway", "--interface", "p1"]);
    let _seaprox = redirect(row.gateway(), &["--bind-source", "transparent"]);
    for (addr, client) in SERVER.iter().zip(CLIENT) {
        assert_eq!(seen_by_server(row.client(), addr), client);
    }
}

#[test]
fn dig_behind_a_redirecting_gateway_asks_any_server() {
    if !(has_net() && has("dig") && has("drill")) {
        return;
    }
    let row = Row::new();
    row.serve();
    row.route_to_server();
    rules(row.gateway(), &["gateway", "--interface", "p1", "--udp"]);
    let seaprox = redirect(row.gateway(), &["--tcp", "--udp", "--udp-idle-timeout", "1s", "--threads", "2"]);
    for (addr, gateway) in SERVER.iter().zip(GATEWAY_OUT) {
        // The system distributes the clients over the loops. dig accepts an answer from the address alone that it has asked.
        (0..8).for_each(|_| assert_eq!(seen_by_name_server(row.client(), addr), gateway));
        assert_eq!(seen_by_drill(row.client(), addr), gateway);
        seaprox.wait_for_log(&["closed", &asked_of(addr, "udp:", 53), "datagrams=1/1", "reason=idle_timeout"]);
    }
    (0..8).for_each(|_| assert_eq!(seen_by_server(row.client(), SERVER[0]), GATEWAY_OUT[0], "TCP beside UDP"));
}

#[test]
fn dig_behind_a_redirecting_gateway_asks_over_a_link() {
    if !(has_net() && has("dig")) {
        return;
    }
    let (row, secret) = (Row::new(), Secret::new());
    row.serve();
    rules(row.gateway(), &["gateway", "--interface", "p1", "--udp"]);
    let far = start(row.server(), &secret.far(&["-v"]));
    let near = redirect_via(row.gateway(), &secret, SERVER_NEAR[0], &["--tcp", "--udp", "--udp-idle-timeout", "1s"]);
    for addr in SERVER {
        // The far node has the address of the server, so it asks from there.
        assert_eq!(seen_by_name_server(row.client(), addr), addr);
        near.wait_for_log(&["closed", &asked_of(addr, "udp:", 53), "datagrams=1/1"]);
        far.wait_for_log(&["closed", &asked_of(addr, "udp:", 53)]);
        assert_eq!(seen_by_server(row.client(), addr), addr, "TCP beside UDP");
    }
}

/// The rules redirect everything that the host sends, and leave the packets of the link out by their mark.
#[test]
fn dig_on_a_host_that_redirects_its_own_datagrams_asks_over_a_link() {
    if !(has_net() && has("dig")) {
        return;
    }
    let (row, secret) = (Row::new(), Secret::new());
    row.serve();
    row.route_to_server();
    let _far = start(row.gateway(), &secret.far(&[]));
    rules(row.client(), &["host", "--udp"]);
    let _near = redirect_via(row.client(), &secret, GATEWAY_IN[0], &["--tcp", "--udp"]);
    for (addr, gateway) in SERVER.iter().zip(GATEWAY_OUT) {
        assert_eq!(seen_by_name_server(row.client(), addr), gateway);
        assert_eq!(seen_by_server(row.client(), addr), gateway);
    }
}

#[test]
fn dig_on_a_host_that_redirects_its_own_datagrams_asks_any_server() {
    if !(has_net() && has("dig")) {
        return;
    }
    let row = Row::new();
    row.serve();
    row.route_to_server();
    for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        assert!(row.gateway().sysctl(forwarding, "1"));
    }
    row.route_to_client();
    rules(row.client(), &["host", "--udp"]);
    let seaprox = redirect(row.client(), &["--tcp", "--udp", "--udp-idle-timeout", "1s"]);
    for (addr, client) in SERVER.iter().zip(CLIENT) {
        assert_eq!(seen_by_name_server(row.client(), addr), client);
        seaprox.wait_for_log(&["closed", &asked_of(addr, "udp:", 53), "datagrams=1/1"]);
    }
    assert_eq!(seaprox.count_log(&["not_permitted"]), 0, "no datagram of the process came back");
}

#[test]
fn a_name_server_sees_the_address_of_the_client_of_a_transparent_gateway() {
    if !(has_net() && has("dig")) {
        return;
    }
    let row = Row::new();
    row.serve();
    row.route_to_server();
    row.route_to_client();
    rules(row.gateway(), &["gateway", "--interface", "p1", "--udp"]);
    let _seaprox = redirect(row.gateway(), &["--udp", "--bind-source", "transparent"]);
    for (addr, client) in SERVER.iter().zip(CLIENT) {
        assert_eq!(seen_by_name_server(row.client(), addr), client);
    }
}

/// nginx answers with the address that the header of the far node has.
#[test]
fn a_server_behind_a_link_is_told_the_address_of_the_redirected_client() {
    if !(has_net() && has("curl") && has("nginx")) {
        return;
    }
    let (row, secret, scratch) = (Row::new(), Secret::new(), Scratch::new());
    let directory = scratch.path().display();
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|it| format!("{it}_temp_path {directory};"));
    let [v4, v6] = SERVER;
    let config = scratch.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {directory}/pid; error_log stderr;\nevents {{}}\n\
             http {{ access_log off; {}\nserver {{ listen {v4}:80 proxy_protocol; listen [{v6}]:80 proxy_protocol;\n\
             location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_server_addr\"; }} }} }}\n",
            temporary.concat()
        ),
    );
    let mut command = row.server().command("/usr/sbin/nginx");
    command.args(["-e", "stderr", "-c", &config]).stdin(Stdio::null());
    let _nginx = Program::start(command);
    until("nginx listens", || row.server().run("ss -Hltn sport = :80").lines().count() == 2);
    rules(row.gateway(), &["gateway", "--interface", "p1"]);
    let far = start(row.server(), &secret.far(&["--proxy-protocol-send", "v2"]));
    let _near = redirect_via(row.gateway(), &secret, SERVER_NEAR[0], &[]);
    for (addr, client) in SERVER.iter().zip(CLIENT) {
        assert_eq!(seen_by_server(row.client(), addr), format!("{client} {addr}"));
        far.wait_for_log(&["closed", &asked(addr), client]);
    }
}

/// The client of ngtcp2 knows of no proxy, and QUIC accepts answers from the address alone that it has connected to.
#[test]
fn http3_behind_a_redirecting_gateway_needs_no_configuration() {
    if !(has_net() && has_http3()) {
        return;
    }
    let row = Row::new();
    row.route_to_server();
    rules(row.gateway(), &["gateway", "--interface", "p1", "--udp"]);
    let seaprox = redirect(row.gateway(), &["--tcp", "--udp"]);
    for addr in SERVER {
        let server = Http3::start(addr, |program| row.server().command(program));
        server.fetch(addr, 4433, |program| row.client().command(program));
    }
    assert!(seaprox.figure("/flows_opened") >= 2);
}

/// iperf3 judges the datagrams of one flow by their numbers.
#[test]
fn a_stream_of_datagrams_behind_a_redirecting_gateway_arrives_in_order() {
    if !(has_net() && has("iperf3")) {
        return;
    }
    let row = Row::new();
    row.route_to_server();
    rules(row.gateway(), &["gateway", "--interface", "p1", "--udp"]);
    let _seaprox = redirect(row.gateway(), &["--tcp", "--udp"]);
    let mut command = row.server().command("iperf3");
    command.args(["-s", "-B", SERVER[0]]).stdin(Stdio::null());
    let _server = Program::start(command);
    until("the server listens", || row.server().run("ss -Hltn sport = :5201").contains("LISTEN"));
    let mut command = row.client().command("iperf3");
    command.args(["-c", SERVER[0], "-u", "-b", "1M", "-l", "1200", "-t", "2", "--json"]).stdin(Stdio::null());
    let ran = run_command(command, b"");
    let report: Value = serde_json::from_slice(&ran.out).expect("a report");
    let figure =
        |name: &str| report.pointer(&format!("/end/streams/0/udp/{name}")).and_then(Value::as_f64).expect("a figure");
    // On a busy machine the buffers of sockets overflow.
    assert!(figure("packets") > 150.0 && figure("lost_percent") < 50.0, "{report}");
    assert_eq!(figure("out_of_order"), 0.0, "{report}");
}

/// A relay that no rule redirects to: only the answers of the server need a rule.
#[test]
fn a_server_sees_the_address_of_the_client_of_a_static_relay() {
    if !(has_net() && has("curl")) {
        return;
    }
    let row = Row::new();
    row.serve();
    row.route_to_server();
    row.route_to_client();
    rules(row.gateway(), &["answers"]);
    let to = SERVER.map(|addr| if addr.contains(':') { format!("[{addr}]:80") } else { format!("{addr}:80") });
    let words = ["static", "--bind-source", "transparent", "--listen", "0.0.0.0:80", "--to", &to[0]];
    let words =
        [&words[..], &["--listen", "[::]:80", "--to", &to[1], "--listen", "0.0.0.0:81", "--to", &to[1]]].concat();
    let seaprox = Seaprox::start_with(&words, |command| row.gateway().enter(command));
    for (gateway, client) in GATEWAY_IN.iter().zip(CLIENT) {
        assert_eq!(seen_by_server(row.client(), gateway), client);
    }
    // The target has no address of the client's family.
    let mut client = row.client().inside(|| TcpStream::connect((GATEWAY_IN[0], 81)).unwrap());
    client.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    seaprox.wait_for_log(&["reason=network_unreachable", "is of the other address family"]);
}
