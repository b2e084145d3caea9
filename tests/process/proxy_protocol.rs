//! The PROXY protocol of listeners: with HAProxy and nginx before and behind, and with clients that break it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use seaprox::config::{Config, FrontEndConfig, Listener, ProxyProtocol, ProxyVersion, Running};
use seaprox::rules::{Action, Rule, Rules};
use seaprox::{Bind, Endpoint, Loops, Proto, Target};

use crate::kit::names::isolated;
use crate::kit::program::{Program, free_port};
use crate::kit::seaprox::run;
use crate::kit::socks::request5;
use crate::kit::{SOON, Scratch, Seaprox, has, has_namespaces, until};

/// Loops of this process with listeners. They are stopped when it is dropped.
struct Proxy {
    running: Running,
    loops: Option<Loops>,
}

impl Proxy {
    fn start(listeners: Vec<Listener>) -> Proxy {
        Proxy::of(Config { listeners, ..Config::default() })
    }

    fn of(config: Config) -> Proxy {
        let (running, loops) = seaprox_proxies::start(config).unwrap_or_else(|error| panic!("{error}"));
        Proxy { running, loops: Some(loops) }
    }

    /// Returns the address of the first listener.
    fn addr(&self) -> SocketAddr {
        match self.running.listening()[0].addr {
            Endpoint::Ip(_, addr) => addr,
            ref other => panic!("{other} is no TCP address"),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.stop();
        self.loops.take().into_iter().for_each(|loops| loops.join().unwrap());
    }
}

fn relay(to: SocketAddr, proxy_protocol: ProxyProtocol) -> Listener {
    let front_end = FrontEndConfig::new("static").with("to", Target::Ip(Proto::Tcp, to));
    Listener { proxy_protocol, ..Listener::new("relay", vec![Bind::parse("127.0.0.1:0").unwrap()], front_end) }
}

fn accepting(network: &str) -> ProxyProtocol {
    ProxyProtocol { accept_from: vec![network.parse().unwrap()], ..ProxyProtocol::default() }
}

fn sending(version: ProxyVersion) -> ProxyProtocol {
    ProxyProtocol { send: Some(version), ..ProxyProtocol::default() }
}

/// Starts a server that sends back each line that it gets, a header of version 1 included.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut from, mut to) = (client.try_clone().unwrap(), client);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    addr
}

fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
}

/// Sends the bytes and a FIN. Returns everything that comes back until the end or a reset.
fn ask(addr: SocketAddr, bytes: &[u8]) -> (SocketAddr, String) {
    let mut client = connect(addr);
    // A server that refuses the client may have closed already.
    let _ = client.write_all(bytes).and_then(|()| client.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    (client.local_addr().unwrap_or(addr), String::from_utf8_lossy(&answer).into_owned())
}

/// Starts HAProxy with these sections, and waits until it listens on the port.
fn haproxy(scratch: &Scratch, port: u16, sections: &str) -> Program {
    let head = "defaults\n timeout connect 20s\n timeout client 20s\n timeout server 20s\n";
    scratch.write("haproxy.cfg", format!("{head}{sections}"));
    let mut command = Command::new("/usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(scratch.file("haproxy.cfg")).stdin(Stdio::null());
    let program = Program::start(command);
    until("HAProxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    program
}

#[test]
fn the_client_that_haproxy_tells_is_told_to_the_target() {
    if !has("haproxy") {
        return;
    }
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let both = ProxyProtocol { send: Some(ProxyVersion::V1), ..accepting("127.0.0.0/8") };
        let proxy = Proxy::start(vec![relay(echo(), both)]);
        let (scratch, port) = (Scratch::new(), free_port());
        let sections = format!(
            "listen l\n mode tcp\n bind 127.0.0.1:{port}\n unique-id-format %[uuid]\n server s {} {version}\n",
            proxy.addr()
        );
        let _haproxy = haproxy(&scratch, port, &sections);
        let (client, answer) = ask(([127, 0, 0, 1], port).into(), b"hello\n");
        assert_eq!(answer, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {port}\r\nhello\n", client.port()), "{version}");
    }
}

#[test]
fn haproxy_accepts_the_header_of_each_version() {
    if !has("haproxy") {
        return;
    }
    let (scratch, port, plain) = (Scratch::new(), free_port(), free_port());
    let sections = format!(
        "frontend f\n mode http\n bind 127.0.0.1:{port} accept-proxy\n bind 127.0.0.1:{plain}\n \
         http-request return status 200 content-type text/plain lf-string \"client=%[src]:%[src_port] to=%[dst_port]\"\n"
    );
    let _haproxy = haproxy(&scratch, plain, &sections);
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let proxy = Proxy::start(vec![relay(([127, 0, 0, 1], port).into(), sending(version))]);
        let at = proxy.addr();
        let (client, answer) = ask(at, b"GET / HTTP/1.0\r\n\r\n");
        assert!(answer.ends_with(&format!("client={client} to={}", at.port())), "{version:?}: {answer}");
    }
}

#[test]
fn nginx_accepts_the_header_of_each_version() {
    if !has("nginx") {
        return;
    }
    let (scratch, port) = (Scratch::new(), free_port());
    let directory = scratch.path().display();
    scratch.write(
        "nginx.conf",
        format!(
            "daemon off; master_process off; pid {directory}/pid; error_log stderr;\nevents {{}}\n\
             http {{ access_log off; client_body_temp_path {directory}; proxy_temp_path {directory};\n\
             fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};\n\
             server {{ listen 127.0.0.1:{port} proxy_protocol;\n\
             location / {{ return 200 \"client=$proxy_protocol_addr:$proxy_protocol_port to=$proxy_protocol_server_port\"; }} }} }}\n"
        ),
    );
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-e").arg("stderr").arg("-c").arg(scratch.file("nginx.conf")).stdin(Stdio::null());
    let _nginx = Program::start(command);
    until("nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let proxy = Proxy::start(vec![relay(([127, 0, 0, 1], port).into(), sending(version))]);
        let at = proxy.addr();
        let (client, answer) = ask(at, b"GET / HTTP/1.0\r\n\r\n");
        assert!(answer.ends_with(&format!("client={client} to={}", at.port())), "{version:?}: {answer}");
    }
}

#[test]
fn haproxy_gets_a_header_and_the_target_beside_it_gets_none() {
    if !has("haproxy") {
        return;
    }
    let (scratch, port, plain) = (Scratch::new(), free_port(), free_port());
    let answer = "http-request return status 200 content-type text/plain lf-string";
    let sections = format!(
        "frontend f\n mode http\n bind 127.0.0.1:{port} accept-proxy\n {answer} \"with=%[src]:%[src_port]\"\n\
         frontend g\n mode http\n bind 127.0.0.1:{plain}\n {answer} \"without=%[src]\"\n"
    );
    let _haproxy = haproxy(&scratch, plain, &sections);
    let front = |default: &str, send_to: &str| {
        let to = format!("127.0.0.1:{port},127.0.0.1:{plain}");
        let args = ["static", "--listen", "127.0.0.1:0", "--to", &to, "--proxy-protocol-send-to", send_to];
        let default = if default.is_empty() { vec![] } else { vec!["--proxy-protocol-send", default] };
        Seaprox::start(&[&args[..], &default].concat())
    };
    for (default, send_to) in [
        ("", format!("127.0.0.1:{port}=v1")),
        ("", format!("127.0.0.1:{port}=v2")),
        ("v2", format!("127.0.0.1:{plain}=none")),
    ] {
        let seaprox = front(default, &send_to);
        let at = seaprox.addr(0);
        // The clients are given the targets in turn.
        let mut seen = [0; 2];
        for _ in 0..4 {
            let (client, answer) = ask(at, b"GET / HTTP/1.0\r\n\r\n");
            let is_told = answer.ends_with(&format!("with={client}"));
            assert!(is_told || answer.ends_with("without=127.0.0.1"), "{default} {send_to}: {answer}");
            seen[usize::from(is_told)] += 1;
        }
        assert_eq!(seen, [2, 2], "{default} {send_to}");
    }
}

#[test]
fn the_hosts_of_a_service_are_given_the_header_of_the_service() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 localhost\n", |server| {
        let (told, plain) = (echo(), echo());
        server.set("told.test", &["127.0.0.1"], Duration::ZERO);
        server.set_service("_echo._tcp.test", &[(0, 0, told.port(), "told.test")]);
        let to = format!("srv:_echo._tcp.test,{plain}");
        let seaprox = Seaprox::start(&[
            "static",
            "--listen",
            "127.0.0.1:0",
            "--to",
            &to,
            "--proxy-protocol-send-to",
            "srv:_echo._tcp.test=v1",
        ]);
        let mut seen = std::collections::BTreeSet::new();
        until("both targets have answered", || {
            let (client, answer) = ask(seaprox.addr(0), b"hello\n");
            let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} ", client.port());
            assert!(answer == "hello\n" || answer.starts_with(&header) && answer.ends_with("\r\nhello\n"), "{answer}");
            seen.insert(answer.starts_with("PROXY"));
            seen.len() == 2
        });
    });
}

#[test]
fn a_header_in_single_bytes_is_read_and_the_bytes_behind_it_are_relayed() {
    let proxy = Proxy::start(vec![relay(echo(), accepting("127.0.0.1"))]);
    let mut client = connect(proxy.addr());
    client.set_nodelay(true).unwrap();
    for byte in b"PROXY TCP4 192.0.2.7 10.0.0.1 5678 443\r\n" {
        client.write_all(&[*byte]).unwrap();
    }
    client.write_all(b"hello\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello\n");
    // The header and the first bytes may come in one segment. UNKNOWN and LOCAL keep the address of the socket.
    assert_eq!(ask(proxy.addr(), b"PROXY TCP6 ::1 ::1 1 2\r\nhello\n").1, "hello\n");
    assert_eq!(ask(proxy.addr(), b"PROXY UNKNOWN\r\nhello\n").1, "hello\n");
    assert_eq!(ask(proxy.addr(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0hello\n").1, "hello\n");
}

#[test]
fn a_header_from_a_network_that_is_not_trusted_is_refused() {
    // The address in the header is a trusted one.
    let proxy = Proxy::start(vec![relay(echo(), accepting("10.0.0.0/8"))]);
    assert_eq!(ask(proxy.addr(), b"PROXY TCP4 10.0.0.1 10.0.0.1 1 2\r\nhello\n").1, "");
    assert_eq!(ask(proxy.addr(), b"hello\n").1, "");
}

#[test]
fn a_trusted_client_without_a_valid_header_reaches_no_target() {
    let proxy = Proxy::start(vec![relay(echo(), accepting("127.0.0.0/8"))]);
    for bytes in [
        &b"hello\n"[..],
        b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\nhello\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"",
    ] {
        assert_eq!(ask(proxy.addr(), bytes).1, "", "{bytes:?}");
    }
}

#[test]
fn a_client_that_sends_no_header_is_closed_by_the_handshake_timer() {
    let mut listener = relay(echo(), accepting("127.0.0.0/8"));
    listener.timers.handshake = Some(Duration::from_millis(200));
    let proxy = Proxy::start(vec![listener]);
    for bytes in [&b""[..], b"PROXY TCP4"] {
        let mut client = connect(proxy.addr());
        client.write_all(bytes).unwrap();
        // The end or a reset, before the deadline of the read.
        let end = client.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{end:?}");
    }
}

#[test]
fn rules_and_the_limit_of_a_network_see_the_client_of_the_header() {
    let mut listener = relay(echo(), accepting("127.0.0.0/8"));
    let rule = |action, text| Rule::parse(action, text).unwrap();
    listener.rules =
        Some(Rules::new(vec![rule(Action::Deny, "from:192.0.2.0/24"), rule(Action::Allow, "from:198.51.100.0/24")]));
    let mut config = Config { listeners: vec![listener], ..Config::default() };
    config.loops.limits.connections_per_source = 2;
    let proxy = Proxy::of(config);
    let header = |client: &str| format!("PROXY TCP4 {client} 10.0.0.1 1 2\r\nhello\n");
    assert_eq!(ask(proxy.addr(), header("192.0.2.7").as_bytes()).1, "");
    assert_eq!(ask(proxy.addr(), header("198.51.100.7").as_bytes()).1, "hello\n");
    // The proxy itself may have more connections than each of its clients.
    let open = |client: &str| {
        let mut socket = connect(proxy.addr());
        socket.write_all(header(client).as_bytes()).unwrap();
        let mut answer = [0; 6];
        let is_served = socket.read_exact(&mut answer).is_ok();
        is_served.then_some(socket)
    };
    let mut held: Vec<_> =
        (1..4).flat_map(|host| [host, host]).map(|host| open(&format!("198.51.100.{host}"))).collect();
    assert!(held.iter().all(Option::is_some), "two of each client");
    assert!(open("198.51.100.1").is_none(), "the third of one client");
    held.clear();
    until("the places are free again", || open("198.51.100.1").is_some());
}

#[test]
fn a_target_that_speaks_first_is_sent_the_header_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(vec![relay(listener.local_addr().unwrap(), sending(ProxyVersion::V1))]);
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        let mut header = Vec::new();
        let mut byte = [0];
        while !header.ends_with(b"\r\n") {
            client.read_exact(&mut byte).unwrap();
            header.push(byte[0]);
        }
        client.write_all(b"220 ready\r\n").unwrap();
        String::from_utf8(header).unwrap()
    });
    let mut client = connect(proxy.addr());
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    let (from, to) = (client.local_addr().unwrap(), proxy.addr());
    let expected = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port());
    assert_eq!(server.join().unwrap(), expected);
}

#[test]
fn the_targets_of_other_front_ends_are_sent_the_header_too() {
    let (one, two) = (echo(), echo());
    let socks = FrontEndConfig::new("socks");
    let both = ProxyProtocol { send: Some(ProxyVersion::V1), ..accepting("127.0.0.0/8") };
    let listener = Listener::new("socks", vec![Bind::parse("127.0.0.1:0").unwrap()], socks);
    let proxy = Proxy::start(vec![Listener { proxy_protocol: both, ..listener }]);
    for target in [one, two] {
        let mut client = connect(proxy.addr());
        let header = b"PROXY TCP4 192.0.2.7 10.0.0.1 5678 443\r\n";
        let mut request = [&header[..], b"\x05\x01\0"].concat();
        request.extend(request5(&target.ip().to_string(), target.port()));
        request.extend_from_slice(b"hello\n");
        client.write_all(&request).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        let expected = [&header[..], b"hello\n"].concat();
        assert_eq!(&answer[answer.len() - expected.len()..], expected);
    }
}

#[test]
fn flags_and_a_file_say_the_same_of_the_protocol() {
    let (target, scratch) = (echo().to_string(), Scratch::new());
    scratch.write(
        "relay.toml",
        format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\nfront = \"static\"\nto = \"{target}\"\n\
             proxy-protocol-accept-from = [\"127.0.0.0/8\", \"unix\"]\nproxy-protocol-send = \"v1\"\n"
        ),
    );
    let file = scratch.file("relay.toml");
    let accept = "--proxy-protocol-accept-from";
    for args in [
        &[
            "static",
            "-l",
            "127.0.0.1:0",
            "--to",
            &target,
            accept,
            "127.0.0.0/8",
            accept,
            "unix",
            "--proxy-protocol-send",
            "v1",
        ][..],
        &["run", file.as_str()],
    ] {
        let seaprox = Seaprox::start(args);
        let header = "PROXY TCP4 192.0.2.7 10.0.0.1 5678 443\r\n";
        assert_eq!(
            ask(seaprox.addr(0), format!("{header}hello\n").as_bytes()).1,
            format!("{header}hello\n"),
            "{args:?}"
        );
        seaprox.wait_for_log(&[" closed ", "conn=static[ipv4[192.0.2.7:5678]->", "reason=source_fin"]);
        assert_eq!(ask(seaprox.addr(0), b"hello\n").1, "");
        seaprox.wait_for_log(&[
            " closed ",
            "reason=protocol_error",
            "detail=\"expected a header of the PROXY protocol\"",
        ]);
    }
    let ran = run(&["static", "--to", &target, accept, "example.org"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("--proxy-protocol-accept-from \"example.org\": expected an address"), "{}", ran.err);
}
