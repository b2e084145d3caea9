//! The admin server: what it answers, whom it refuses, and what slow clients of it cost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::kit;
use kit::program::shell;
use kit::{Relay, SOON, Scratch, Seaprox, run, until};

/// The answer to one request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends a request, whose fields may be anything, and reads the answer to its end. HTTP/1.0 has no chunks.
#[track_caller]
pub fn exchange(mut socket: impl Read + Write, request: &str) -> Answer {
    socket.write_all(request.as_bytes()).expect("a request");
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

#[track_caller]
pub fn over_tcp(addr: SocketAddr, request: &str) -> Answer {
    let socket = TcpStream::connect(addr).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    exchange(socket, request)
}

#[track_caller]
pub fn over_unix(seaprox: &Seaprox, request: &str) -> Answer {
    let socket = UnixStream::connect(seaprox.admin_socket()).expect("a connection");
    socket.set_read_timeout(Some(SOON)).expect("a timeout");
    exchange(socket, request)
}

/// Returns a request of HTTP/1.0 with these fields, one a line.
pub fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.0\r\n{fields}\r\n").replace(";;", "\r\n")
}

/// Returns a command of HTTP/1.0 with these further fields.
pub fn post(path: &str, fields: &str, body: &str) -> String {
    let len = body.len();
    format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len}\r\n{fields}\r\n{body}")
}

pub const LOCAL: &str = "Host: localhost\r\n";

#[test]
fn curl_reads_over_tcp_and_over_the_socket_of_the_process() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let url = format!("http://{}", relay.seaprox.admin_addr());
    let socket = relay.seaprox.admin_socket();
    let (mut client, _server) = relay.pair();
    client.run(&[kit::Step::Put(b"x")]);
    for (options, base) in [("", url.as_str()), (&format!("--unix-socket {socket}"), "http://localhost")] {
        for version in ["--http1.1", "--http1.0"] {
            let ran = shell(&format!("curl -sS --fail {version} {options} {base}/status"), &[]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            let status: Value = serde_json::from_slice(&ran.out).unwrap();
            assert_eq!(status["pid"], relay.seaprox.pid());
            assert_eq!(status["connections"].as_array().unwrap().len(), 1);
        }
        assert_eq!(shell(&format!("curl -sS --fail {options} {base}/healthz"), &[]).out, b"ok\n");
        let ran = shell(&format!("curl -sS --fail {options} {base}/metrics"), &[]);
        assert!(String::from_utf8_lossy(&ran.out).contains("seaprox_connections_opened_total"), "{ran:?}");
        let ran = shell(&format!("curl -sS --fail {options} '{base}/status?connections=no'"), &[]);
        assert!(serde_json::from_slice::<Value>(&ran.out).unwrap().get("connections").is_none());
        let head = shell(&format!("curl -sS --fail --head {options} {base}/status"), &[]);
        assert!(String::from_utf8_lossy(&head.out).contains("Content-Type: application/json\r\n"), "{head:?}");
        let ran = shell(&format!("curl -sS --fail {options} {base}/"), &[]);
        assert!(String::from_utf8_lossy(&ran.out).contains("/healthz"));
    }
}

#[test]
fn a_request_for_another_host_is_refused_before_anything_else() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0", "--admin-host", "Proxy.example.org"]);
    let addr = relay.seaprox.admin_addr();
    for path in ["/status", "/healthz", "/nothing", "/"] {
        for host in ["rebound.example.org", "127.0.0.2", "[::1]", "", "localhost.example.org", "127.0.0.1:80:80"] {
            assert_eq!(over_tcp(addr, &get(path, &format!("Host: {host}\r\n"))).status, 421, "{host}{path}");
        }
        assert_eq!(over_tcp(addr, &get(path, "")).status, 421, "no host");
    }
    for host in ["127.0.0.1", &addr.to_string(), "localhost", "localhost:8080", "proxy.EXAMPLE.org:80"] {
        assert_eq!(over_tcp(addr, &get("/healthz", &format!("Host: {host}\r\n"))).status, 200, "{host}");
    }
    assert_eq!(over_unix(&relay.seaprox, &get("/status", "Host: rebound.example.org\r\n")).status, 421);
}

#[test]
fn a_page_of_another_site_can_neither_read_nor_command() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    let own = format!("{LOCAL}Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n");
    let answer = over_tcp(addr, &get("/status", &own));
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("Cross-Origin-Resource-Policy: same-origin"), "{}", answer.head);
    assert!(!answer.head.to_ascii_lowercase().contains("access-control-"), "{}", answer.head);
    for site in ["cross-site", "same-site", "surprise"] {
        let fields = format!("{LOCAL}Sec-Fetch-Site: {site}\r\n");
        assert_eq!(over_tcp(addr, &get("/status", &format!("{fields}Sec-Fetch-Mode: no-cors\r\n"))).status, 403);
        // A link that the user follows shows the answer to the user alone.
        let followed = format!("{fields}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n");
        assert_eq!(over_tcp(addr, &get("/status", &followed)).status, 200);
    }
    // The socket of the process, where the client has the right to command.
    for fields in [
        "Origin: https://example.org\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:81\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: none\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\n",
    ] {
        let answer = over_unix(&relay.seaprox, &post("/log-level", fields, "{\"level\":\"debug\"}"));
        assert_eq!(answer.status, 403, "{fields} {answer:?}");
    }
    let answer = over_unix(&relay.seaprox, &post("/log-level", "Origin: http://localhost\r\n", "{\"level\":\"info\"}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(over_tcp(addr, "OPTIONS /reload HTTP/1.0\r\nHost: localhost\r\n\r\n").head.contains("Allow: POST"));
}

#[test]
fn commands_over_tcp_need_the_token() {
    let scratch = Scratch::new();
    let file = scratch.write("token", "0123456789abcdef\n");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let body = "{\"level\":\"debug\"}";
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    assert_eq!(over_tcp(relay.seaprox.admin_addr(), &post("/log-level", "", body)).status, 403);
    assert_eq!(over_unix(&relay.seaprox, &post("/log-level", "", body)).status, 200);
    let relay = Relay::start(&["--admin", "127.0.0.1:0", "--admin-token-file", &file]);
    let addr = relay.seaprox.admin_addr();
    let with = |token: &str| over_tcp(addr, &post("/log-level", &format!("Authorization: {token}\r\n"), body));
    let refused = over_tcp(addr, &post("/log-level", "", body));
    assert_eq!(refused.status, 401);
    assert!(refused.head.contains("WWW-Authenticate: Bearer"), "{}", refused.head);
    for wrong in ["Bearer 0123456789abcdee", "Bearer ", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"] {
        assert_eq!(with(wrong).status, 401, "{wrong}");
    }
    assert_eq!(with("Bearer 0123456789abcdef").status, 200);
    assert_eq!(with("bearer 0123456789abcdef").status, 200);
    scratch.write("token", "fedcba9876543210\n");
    assert_eq!(with("Bearer 0123456789abcdef").status, 401, "the old token");
    assert_eq!(with("Bearer fedcba9876543210").status, 200, "the new token");
}

#[test]
fn an_address_that_other_hosts_reach_needs_a_token() {
    for address in [":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:9090"] {
        let ran = run(&["socks", "--listen", "127.0.0.1:0", "--admin", address]);
        assert_eq!(ran.code, Some(78), "{ran:?}");
        assert!(ran.err.contains("expected a loopback address, or --admin-token-file"), "{}", ran.err);
    }
    let scratch = Scratch::new();
    for (content, mode, text) in [("0123456789abcdef", 0o644, "--no-strict-modes"), ("short", 0o600, "at least 16")] {
        let file = scratch.write("token", content);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        let args = ["socks", "--listen", "127.0.0.1:0", "--admin", ":0", "--admin-token-file", &file];
        let ran = run(&args);
        assert_eq!(ran.code, Some(78), "{ran:?}");
        assert!(ran.err.contains(text), "{}", ran.err);
    }
}

#[test]
fn an_old_status_command_is_told_what_it_met() {
    let relay = Relay::start(&[]);
    let mut socket = UnixStream::connect(relay.seaprox.admin_socket()).unwrap();
    // Earlier versions wait for 5 s.
    socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("expected an HTTP request on this socket"), "{text}");
}

#[test]
fn a_process_of_an_earlier_version_is_named_as_such() {
    let scratch = Scratch::new();
    let listener = std::os::unix::net::UnixListener::bind(scratch.file("old")).unwrap();
    let server = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.write_all(b"{\"version\":\"0.1.0\",\"pid\":1,\"connections\":[]}\n").unwrap();
    });
    let ran = run(&["status", "--status", &format!("unix:{}", scratch.file("old"))]);
    server.join().unwrap();
    assert_eq!((ran.code, ran.err.lines().count()), (Some(1), 1), "{ran:?}");
    assert!(ran.err.contains("the process is of an earlier version"), "{}", ran.err);
}

#[test]
fn half_open_scrapers_keep_no_client_out() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    let mut open = Vec::new();
    for number in 0..1_000 {
        let mut socket = TcpStream::connect(addr).expect("a connection");
        // Some of them send the beginning of a head.
        let _ = socket.write_all(&b"GET /status HTTP/1.1\r\nHost: "[..number % 20]);
        open.push(socket);
        if number % 100 == 99 {
            until("a scraper is answered", || {
                let mut socket = TcpStream::connect(addr).expect("a connection");
                socket.set_read_timeout(Some(SOON)).expect("a timeout");
                let mut text = String::new();
                let sent = socket.write_all(get("/healthz", LOCAL).as_bytes());
                sent.is_ok() && socket.read_to_string(&mut text).is_ok() && text.ends_with("ok\n")
            });
        }
    }
    // One for each client that sends, is answered, or lingers, and for those that were disconnected a moment ago. A thread
    // gives its place back just before it ends.
    until("the threads of the others have ended", || {
        let threads = kit::proc::threads(relay.seaprox.pid());
        threads.iter().filter(|name| *name == "admin-client").count() <= 112
    });
    let (mut client, mut server) = relay.pair();
    kit::peer::both(&mut client, &[kit::Step::Swap(100_000)], &mut server, &[kit::Step::Swap(100_000)]);
}

#[test]
fn a_connection_is_closed_by_its_id() {
    let relay = Relay::start(&["--threads", "2"]);
    let (mut client, mut server) = relay.pair();
    kit::peer::both(&mut client, &[kit::Step::Swap(10)], &mut server, &[kit::Step::Swap(10)]);
    let id = relay.seaprox.status()["connections"][0]["id"].as_str().unwrap().to_owned();
    let close = |body: Value| over_unix(&relay.seaprox, &post("/close", "", &body.to_string()));
    for (body, status) in [
        (json!({ "connection": "9999.1" }), 404),
        (json!({ "connection": "x" }), 400),
        (json!({ "connection": id, "thread": 2 }), 404),
        (json!({ "connection": id, "link": "x" }), 400),
        (json!({ "connection": 1 }), 400),
        (json!({ "link": "x" }), 404),
        (json!({ "forward": "x" }), 404),
        (json!([]), 400),
    ] {
        assert_eq!(close(body.clone()).status, status, "{body}");
    }
    let answer = close(json!({ "connection": id }));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["done"], "closed");
    assert!(relay.closing_line().contains("reason=killed"), "{}", relay.closing_line());
    assert!(client.socket().read(&mut [0]).map_or(true, |count| count == 0));
}

/// Runs `seaprox ctl` for a process.
pub fn ctl(seaprox: &Seaprox, args: &[&str]) -> kit::Ran {
    let place = format!("unix:{}", seaprox.admin_socket());
    run(&[&["ctl", "--status", &place], args].concat())
}

/// A link with a node that permits everything, and the node that dials.
pub fn link_pair(args: &[&str]) -> (kit::link::Keys, Seaprox, Seaprox) {
    let keys = kit::link::Keys::new();
    keys.permit(Some("permit-open=\"*:*\",permit-listen=\"*\""));
    let far = keys.start_far(&[]);
    let mut all = vec!["link".to_owned()];
    all.extend(keys.via(&far.listens(0)));
    all[1] = "--connect".to_owned();
    let all: Vec<&str> = all.iter().map(String::as_str).chain(args.iter().copied()).collect();
    let near = Seaprox::spawn(&all, |_| {});
    near.wait_for_admin();
    until("the link is up", || near.status()["links"][0]["state"] == "up");
    (keys, far, near)
}

#[test]
fn ctl_opens_and_closes_forwards_and_links() {
    let (_keys, far, near) = link_pair(&["--name", "office"]);
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap();
    let spec = format!("127.0.0.1:0:{to}");
    let ran = ctl(&near, &["--json", "open", "-L", &spec, "--name", "web", "office"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answer: Value = serde_json::from_slice(&ran.out).unwrap();
    let at: SocketAddr = answer["bound"][0].as_str().unwrap().parse().unwrap();
    let mut client = kit::Peer::connect(at);
    client.run(&[kit::Step::Put(b"over the new forward")]);
    let mut served = kit::Peer::accept(&server);
    served.run(&[kit::Step::Take(b"over the new forward")]);
    assert_eq!(near.status()["forwards"][0]["name"], "web");
    for (args, code, text) in [
        (&["open", "-L", &spec, "--name", "web"][..], 1, "web"),
        (&["open", "-L", &spec, "nowhere"], 1, "no link \"nowhere\""),
        (&["open", "-L", "8080"], 2, "local \"8080\": expected"),
        (&["open"], 2, "expected one -L, -R, -D or -H"),
        (&["close", "forward", "other"], 1, "no forward \"other\""),
        (&["close", "thing", "x"], 2, "expected close connection|flow|link|forward"),
        (&["relaod"], 2, "did you mean reload?"),
        (&["drain", "now"], 2, "expected nothing behind drain"),
    ] {
        let ran = ctl(&near, args);
        assert_eq!(ran.code, Some(code), "{args:?} {ran:?}");
        assert!(ran.err.contains(text), "{args:?} {}", ran.err);
    }
    assert_eq!(ctl(&near, &["close", "forward", "web"]).code, Some(0));
    until("the forward is closed", || TcpStream::connect(at).is_err());
    kit::peer::both(&mut client, &[kit::Step::Swap(10)], &mut served, &[kit::Step::Swap(10)]);
    // A remote forward, and the end of the link at the node that serves it.
    let ran = ctl(&near, &["open", "-R", &spec]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    until("the peer listens", || near.status()["forwards"][0]["state"] == "listening");
    let id = far.status()["links"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ctl(&far, &["close", "link", &id]).code, Some(0));
    until("the peer has dialed again", || {
        let links = far.status();
        links["links"][0]["state"] == "up" && links["links"][0]["id"] != id
    });
    let ran = ctl(&near, &["close", "link", "office"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    until("the link is gone", || near.status()["links"].as_array().unwrap().is_empty());
}

#[test]
fn ctl_changes_the_level_of_the_log_while_it_runs() {
    let relay = Relay::start(&[]);
    let talk = || {
        let (mut client, mut server) = relay.pair();
        let steps = [kit::Step::Swap(10), kit::Step::Fin, kit::Step::ReadAll];
        kit::peer::both(&mut client, &steps, &mut server, &[kit::Step::Swap(10), kit::Step::ReadAll, kit::Step::Fin]);
        relay.seaprox.wait_until_idle();
    };
    talk();
    relay.seaprox.wait_for_log(&[" closed "]);
    assert_eq!(relay.seaprox.count_log(&["DEBUG"]), 0);
    assert_eq!(ctl(&relay.seaprox, &["log-level", "debug"]).code, Some(0));
    talk();
    relay.seaprox.wait_for_log(&["DEBUG", "seaprox::connection"]);
    let ran = ctl(&relay.seaprox, &["log-level", "info,seaprox::lnik=trace"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("did you mean seaprox::link?"), "{}", ran.err);
    assert_eq!(ctl(&relay.seaprox, &["log-level", "error"]).code, Some(0));
    // The log is written by a thread of its own, so lines of before may come late.
    relay.seaprox.wait_for_log(&[" closed ", "id=0.2"]);
    talk();
    assert_eq!(relay.seaprox.count_log(&[" closed "]), 2, "{:?}", relay.seaprox.log());
}

#[test]
fn events_tell_what_happens_as_it_happens() {
    let relay = Relay::start(&["--threads", "2"]);
    let place = format!("unix:{}", relay.seaprox.admin_socket());
    let mut command = kit::seaprox::command(&["ctl", "--status", &place, "events"]);
    command.stdin(std::process::Stdio::null());
    let mut program = kit::program::Program::start(command);
    let out = program.0.stdout.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(out)).map(|line| {
        let line = line.expect("a line");
        serde_json::from_str::<Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let mut next = |name: &str| {
        let event = lines.find(|event| event["event"] == name).unwrap_or_else(|| panic!("no {name}"));
        assert!(event["time"].as_f64().unwrap() > 1.7e9, "{event}");
        event
    };
    next("subscribed");
    assert_eq!(relay.seaprox.figure("/admin/event_readers"), 1);
    let (mut client, mut server) = relay.pair();
    let opened = next("connection_opened");
    assert!(opened["conn"].as_str().unwrap().starts_with("static[ipv4["), "{opened}");
    assert_eq!(next("connection_connected")["connection"], opened["connection"]);
    let steps = [kit::Step::Swap(10), kit::Step::Fin, kit::Step::ReadAll];
    kit::peer::both(&mut client, &steps, &mut server, &[kit::Step::Swap(10), kit::Step::ReadAll, kit::Step::Fin]);
    let ended = next("connection_ended");
    assert_eq!(ended["connection"], opened["connection"]);
    assert_eq!((&ended["reason"], &ended["sent"], &ended["received"]), (&json!("source_fin"), &json!(10), &json!(10)));
    assert!(ended["thread"].as_u64().unwrap() < 2, "{ended}");
    assert_eq!(ctl(&relay.seaprox, &["reload"]).code, Some(0));
    assert_eq!(next("reload")["cause"], "command");
    let (_client, _server) = relay.pair();
    assert_eq!(ctl(&relay.seaprox, &["drain"]).code, Some(0));
    next("drain");
    next("listener_closed");
    drop(program);
}

#[test]
fn a_process_is_ready_until_it_drains() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    assert_eq!(over_tcp(addr, &get("/readyz", LOCAL)).status, 200);
    assert_eq!(ctl(&relay.seaprox, &["ready"]).out, b"ready\n");
    let (_client, _server) = relay.pair();
    let ran = ctl(&relay.seaprox, &["drain"]);
    assert_eq!((ran.code, ran.out.as_slice()), (Some(0), &b"draining\n"[..]));
    let answer = over_tcp(addr, &get("/readyz", LOCAL));
    assert_eq!((answer.status, answer.body.as_str()), (503, "the process is draining\n"));
    assert_eq!(over_tcp(addr, &get("/healthz", LOCAL)).status, 200);
    let ran = ctl(&relay.seaprox, &["ready"]);
    assert_eq!(ran.code, Some(69), "{ran:?}");
    assert_eq!(ctl(&relay.seaprox, &["drain"]).code, Some(1), "it drains already");
}

#[test]
fn a_node_is_not_ready_while_a_link_that_it_dials_is_down() {
    let (_keys, mut far, near) = link_pair(&["--name", "office"]);
    assert_eq!(ctl(&near, &["ready"]).code, Some(0));
    far.signal(libc::SIGKILL);
    far.wait(SOON);
    until("the node is not ready", || ctl(&near, &["ready"]).code == Some(69));
    assert!(ctl(&near, &["ready"]).err.contains("not up: link"));
    assert_eq!(ctl(&near, &["health"]).code, Some(0));
}

#[test]
fn a_reader_that_stops_reading_costs_the_others_nothing() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    // Each asks for more than its socket buffers hold, and reads nothing.
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.write_all(get("/events", LOCAL).as_bytes()).unwrap();
        stalled.push(socket);
    }
    until("all of them are readers", || relay.seaprox.figure("/admin/event_readers") == 4);
    let mut clients = Vec::new();
    for _ in 0..300 {
        clients.push(relay.pair());
    }
    for _ in 0..20 {
        let mut socket = TcpStream::connect(addr).unwrap();
        socket.write_all(get("/status", LOCAL).as_bytes()).unwrap();
        stalled.push(socket);
    }
    let (client, server) = &mut clients[0];
    kit::peer::both(client, &[kit::Step::Swap(1_000_000)], server, &[kit::Step::Swap(1_000_000)]);
    assert_eq!(over_tcp(addr, &get("/healthz", LOCAL)).body, "ok\n");
    assert_eq!(relay.seaprox.status()["connections"].as_array().unwrap().len(), 300);
}

#[test]
fn a_process_is_found_by_what_it_runs() {
    let scratch = Scratch::new();
    let in_scratch = |command: &mut std::process::Command| _ = command.env("XDG_RUNTIME_DIR", scratch.file(""));
    // Both have the socket in the directory of this test, and no other process has.
    let start = |args: &[&str]| {
        let mut command = kit::seaprox::command(args);
        command.stdin(std::process::Stdio::null());
        in_scratch(&mut command);
        kit::program::Program::start(command)
    };
    let mut socks = start(&["socks", "--listen", "127.0.0.1:0"]);
    let mut http = start(&["http", "--listen", "127.0.0.1:0", "--name", "web"]);
    let address = socks.first_line().rsplit(' ').next().unwrap().to_owned();
    http.first_line();
    let ask = |args: &[&str]| kit::run_with(args, b"", in_scratch);
    for (args, pid) in [
        (&["status", "socks"][..], socks.0.id()),
        (&["status", "http"], http.0.id()),
        (&["status", "web"], http.0.id()),
        (&["status", &address], socks.0.id()),
        (&["ctl", "--process", "socks", "status"], socks.0.id()),
        (&["ctl", "--process", &http.0.id().to_string(), "status"], http.0.id()),
    ] {
        let ran = ask(args);
        assert_eq!(ran.code, Some(0), "{args:?} {ran:?}");
        assert!(String::from_utf8_lossy(&ran.out).contains(&format!(" pid {pid} ")), "{args:?} {ran:?}");
    }
    let ran = ask(&["ctl", "reload"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains(&format!("\n  {} socks {address}", socks.0.id())), "{}", ran.err);
    let ran = ask(&["status", "ftp"]);
    assert_eq!(ran.code, Some(69), "{ran:?}");
    assert!(ran.err.contains("no process of this user runs \"ftp\""), "{}", ran.err);
}

/// Returns the places at which a document differs from its schema. A member that the schema does not name is one, unless it is
/// a metric: the table of metrics lists those.
fn differences(schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_it = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let is_fit = schema["type"].as_array().map_or_else(|| is_it(&schema["type"]), |all| all.iter().any(is_it));
    let mut all = if is_fit { Vec::new() } else { vec![format!("{place}: {kind}, not {}", schema["type"])] };
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        all.extend(differences(&schema["items"], item, &format!("{place}[{index}]")));
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let (known, place) = (&schema["properties"][name], format!("{place}.{name}"));
        match (known, &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if is_metric(name) => {}
            (Value::Null, Value::Null) => all.push(format!("{place}: not in the schema")),
            (Value::Null, others) => all.extend(differences(others, member, &place)),
            (known, _) => all.extend(differences(known, member, &place)),
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing = required.filter(|name| value.is_object() && value.get(name).is_none());
    all.extend(missing.map(|name| format!("{place}.{name}: missing")));
    all
}

fn is_metric(name: &str) -> bool {
    use seaprox::metrics::{LinkStats, Stats, Usage};
    [Stats::METRICS, Usage::METRICS, LinkStats::METRICS].concat().iter().any(|metric| metric.key == name)
}

#[test]
fn the_status_has_the_form_of_its_schema() {
    let schema = include_str!("../../docs/status.schema.json");
    let schema: Value = serde_json::from_str(schema).expect("a schema");
    assert_eq!(differences(&schema["properties"]["pid"], &json!("1"), "pid"), ["pid: string, not \"integer\""]);
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("127.0.0.1:0:{}", target.local_addr().unwrap());
    let (_keys, far, near) = link_pair(&["-L", &to, "-R", &to, "-D", "127.0.0.1:0"]);
    until("the forwards listen", || {
        let status = near.status();
        let forwards = status["forwards"].as_array().unwrap();
        forwards.len() == 3 && forwards.iter().all(|forward| forward["state"] == "listening")
    });
    let (_one, _other) = (kit::Peer::connect(near.addr(0)), kit::Peer::connect(near.addr(1)));
    until("both are connections", || near.figure("/usage/connections") >= 2);
    let relay = Relay::start(&[]);
    let (_client, _server) = relay.pair();
    for status in [near.status(), far.status(), relay.seaprox.status()] {
        assert_eq!(differences(&schema, &status, ""), Vec::<String>::new());
    }
    drop(far);
    until("the link has failed", || near.status()["links"][0]["missing"][0]["failure"].is_object());
    assert_eq!(differences(&schema, &near.status(), ""), Vec::<String>::new());
}

/// The page of the manual has all paths, and the rights that each needs.
#[test]
fn the_manual_of_the_admin_server_lists_all_paths() {
    let page = include_str!("../../docs/admin.md");
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let list = over_tcp(relay.seaprox.admin_addr(), &get("/", LOCAL)).body;
    assert!(list.lines().count() >= 11, "{list}");
    for line in list.lines() {
        let mut words = line.split_whitespace();
        let row = format!("| `{} {}` |", words.next().unwrap(), words.next().unwrap());
        let row = page.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no {row}"));
        assert_eq!(row.contains("| writing |"), line.starts_with("POST"), "{row}");
    }
}
