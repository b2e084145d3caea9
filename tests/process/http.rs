//! The HTTP proxy between a client and an origin server, as both see it (SP-04): tunnels, forwarded requests and their
//! bodies, kept connections, and failed responses.

use crate::kit;

use std::io::Read;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::http::Act::*;
use kit::http::{Origin, ask, field, head, response};
use kit::{Peer, Seaprox};
use serde_json::Value;

fn proxy(options: &[&str]) -> Seaprox {
    Seaprox::start(&[&["http", "--listen", "127.0.0.1:0"], options].concat())
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn connect_opens_a_tunnel_and_relays_the_bytes_that_follow() {
    let proxy = proxy(&[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut client = Peer::connect(proxy.addr(0));
    // The data that belongs to the tunnel comes in the same write.
    client.run(&[Put(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\nping").as_bytes())]);
    let mut server = Peer::accept(&listener);
    server.run(&[Take(b"ping")]);
    assert_eq!(head(&mut client), "HTTP/1.1 200 Connection established\r\n\r\n");
    kit::peer::both(&mut client, &[Swap(300_000), Fin, ReadAll], &mut server, &[Swap(300_000), ReadAll, Send(7), Fin]);
    assert_eq!(client.received, 300_007);
    proxy.wait_for_log(&[" closed ", &format!("conn=http[ipv4[{}]->ipv4[{to}]]", client.local())]);
}

#[test]
fn one_client_connection_reaches_two_origins() {
    let proxy = proxy(&[]);
    let first = Origin::start(vec![vec![Head, Say(OK), Head, Say(OK), Wait]]);
    let second = Origin::start(vec![vec![Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    for (origin, path) in [(&first, "/a"), (&first, "/b"), (&second, "/c?d")] {
        client.run(&[Put(format!("GET http://{}{path} HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
        let answer = response(&mut client);
        assert_eq!((answer.status, answer.body), (200, b"ok".to_vec()));
        let seen = origin.saw();
        assert!(seen.starts_with(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", origin.addr)), "{seen}");
    }
}

#[test]
fn hop_by_hop_fields_are_not_forwarded() {
    let proxy = proxy(&[]);
    let say = "HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Stays: 2\r\n\
               Proxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::start(vec![vec![Head, Say(say), Wait]]);
    let request = format!(
        "GET http://{}/ HTTP/1.1\r\nHost: elsewhere\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Kept: 2\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
        origin.addr
    );
    let answer = ask(proxy.addr(0), &request);
    let seen = origin.saw();
    assert_eq!(field(&seen, "x-kept").as_deref(), Some("2"));
    assert_eq!(field(&seen, "via").as_deref(), Some("1.1 seaprox"));
    assert_eq!(field(&seen, "host"), Some(origin.addr.to_string()));
    for name in ["connection", "x-mine", "proxy-connection", "te", "upgrade", "proxy-authorization", "keep-alive"] {
        assert_eq!(field(&seen, name), None, "{name} in {seen}");
    }
    assert_eq!(field(&answer.head, "x-stays").as_deref(), Some("2"));
    assert_eq!(field(&answer.head, "via").as_deref(), Some("1.1 seaprox"));
    for name in ["connection", "x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(field(&answer.head, name), None, "{name} in {}", answer.head);
    }
}

#[test]
fn user_information_in_a_target_is_not_forwarded() {
    let scratch = kit::Scratch::new();
    let users = scratch.write("users", "joe:secret\n");
    let (open, closed) = (proxy(&[]), proxy(&["--users", &users]));
    let origin = Origin::start(vec![vec![Head, Say(OK), Wait], vec![Head, Say(OK), Wait]]);
    let request = format!("GET http://joe:secret@{}/a@b HTTP/1.1\r\nHost: {0}\r\n\r\n", origin.addr);
    assert_eq!(ask(open.addr(0), &request).status, 200);
    let seen = origin.saw();
    assert!(seen.starts_with(&format!("GET /a@b HTTP/1.1\r\nHost: {}\r\n", origin.addr)), "{seen}");
    assert!(!seen.contains("joe") && !seen.contains("secret"), "{seen}");
    open.wait_for_log(&[" closed ", &format!("asked={}", origin.addr)]);
    assert_eq!(open.count_log(&["secret"]), 0, "the password is in the log");
    // The credentials are meant for the origin server, and do not authenticate at the proxy.
    assert_eq!(ask(closed.addr(0), &request).status, 407);
}

#[test]
fn bytes_above_ascii_in_a_path_arrive_unchanged_and_1_2_is_read_as_1_1() {
    let proxy = proxy(&[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut client = Peer::connect(proxy.addr(0));
    let head =
        [b"GET http://", to.to_string().as_bytes(), b"/caf\xc3\xa9/\xe9?\xff HTTP/1.2\r\nHost: x\r\n\r\n"].concat();
    client.run(&[Put(&head)]);
    let mut server = Peer::accept(&listener);
    server.run(&[Take(b"GET /caf\xc3\xa9/\xe9?\xff HTTP/1.1\r\n")]);
    server.run(&[Put(b"HTTP/1.2 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")]);
    let answer = self::head(&mut client);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && field(&answer, "connection").is_none(), "{answer}");
    client.run(&[Take(b"2\r\nok\r\n0\r\n\r\n")]);
}

#[test]
fn white_space_before_the_colon_of_a_response_field_is_removed() {
    let proxy = proxy(&[]);
    let say = "HTTP/1.1 200 OK\r\nContent-Length : 2\r\nX-Kept \t: 1\r\nConnection : x-hop\r\nX-Hop : 2\r\n\r\nok";
    let two = "HTTP/1.1 200 OK\r\nContent-Length : 2\r\nContent-Length: 3\r\n\r\nabc";
    let origin = Origin::start(vec![vec![Head, Say(say), Head, Say(two), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    client.run(&[Put(get.as_bytes())]);
    let answer = response(&mut client);
    assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
    assert_eq!(answer.head, "HTTP/1.1 200 OK\r\nX-Kept: 1\r\nContent-Length: 2\r\nVia: 1.1 seaprox\r\n\r\n");
    // A disguised second length is a second length.
    client.run(&[Put(get.as_bytes())]);
    assert_eq!(response(&mut client).status, 502);
}

/// Returns a response head of `len` bytes with `fields` fields, among them Content-Length (2) and X-Big.
fn big_head(len: usize, fields: usize) -> &'static str {
    let small = (2..fields).map(|index| format!("X-{index}: {index}\r\n")).collect::<String>();
    let rest = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{small}X-Big: \r\n\r\n");
    Box::leak(rest.replace("X-Big: ", &format!("X-Big: {}", "b".repeat(len - rest.len()))).into_boxed_str())
}

#[test]
fn a_response_head_may_have_64_kib_and_256_fields_with_any_buffer_size() {
    for options in [&[][..], &["--buffer", "4KiB", "--buffer-memory", "64KiB"]] {
        let proxy = proxy(options);
        let (large, long, many) = (big_head(65_536, 256), big_head(65_537, 10), big_head(20_000, 257));
        let origin = Origin::start(vec![
            vec![Head, Say(large), Say("ok"), Head, Say(large), Say("ok"), Head, Say(OK), Wait],
            vec![Head, Say(long), Say("ok"), Wait],
            vec![Head, Say(many), Say("ok"), Wait],
        ]);
        let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
        let mut client = Peer::connect(proxy.addr(0));
        for _ in 0..2 {
            client.run(&[Put(get.as_bytes())]);
            let answer = response(&mut client);
            assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
            let expected = large.replace("Content-Length: 2\r\n", "");
            let expected =
                expected.strip_suffix("\r\n").unwrap().to_owned() + "Content-Length: 2\r\nVia: 1.1 seaprox\r\n\r\n";
            assert!(answer.head == expected, "{options:?}: {} bytes", answer.head.len());
        }
        client.run(&[Put(get.as_bytes())]);
        assert_eq!(response(&mut client).body, b"ok", "the connection is kept");
        for _ in ["too long", "too many"] {
            assert_eq!(ask(proxy.addr(0), &get).status, 502);
        }
    }
}

#[test]
fn large_response_heads_wait_for_a_client_that_does_not_read() {
    // More than the buffers of both sockets hold.
    const COUNT: usize = 250;
    let proxy = proxy(&["--handshake-timeout", "60s"]);
    let large = big_head(60_000, 20);
    let origin = Origin::start(vec![[Head, Say(large), Say("ok")].repeat(COUNT)]);
    let mut client = Peer::connect_narrow(proxy.addr(0));
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    client.run(&[Put(get.repeat(COUNT).as_bytes())]);
    // With some sizes of socket buffers a body waits first and not a head, so the client reads little by little until a
    // head waits. Before each read nothing moves: on a busy machine the buffers fill slowly.
    let is_stuck = |connection: &Value| connection["stage"] == "handshake" && connection["source"]["queued"] != 0;
    let (mut taken, mut passed, mut quiet) = (Vec::new(), Value::Null, 0);
    kit::until_within(2 * kit::SOON, "a head waits", || {
        let connections = proxy.status()["connections"].clone();
        let a_head_waits = connections.as_array().is_some_and(|all| all.iter().any(is_stuck));
        let now = connections[0]["dest"]["bytes_in"].clone();
        quiet = if now == passed { quiet + 1 } else { 0 };
        passed = now;
        if !a_head_waits && quiet >= 3 {
            quiet = 0;
            let mut some = [0; 8192];
            let count = client.socket().read(&mut some).unwrap();
            taken.extend_from_slice(&some[..count]);
        }
        a_head_waits
    });
    let expected = large.replace("Content-Length: 2\r\n", "");
    let expected =
        expected.strip_suffix("\r\n").unwrap().to_owned() + "Content-Length: 2\r\nVia: 1.1 seaprox\r\n\r\nok";
    let expected = expected.repeat(COUNT);
    assert!(taken.len() < expected.len() / 2, "the client had read most of it: {}", taken.len());
    let mut rest = vec![0; expected.len() - taken.len()];
    client.socket().read_exact(&mut rest).unwrap();
    taken.extend_from_slice(&rest);
    assert!(taken == expected.as_bytes());
}

/// An error response to a broken request would be in the middle of the interim response that is still being sent.
#[test]
fn no_error_response_is_sent_within_an_interim_response() {
    let proxy = proxy(&["--handshake-timeout", "60s"]);
    let interim: &str = Box::leak(big_head(60_000, 20).replace("200 OK", "103 Hi").into_boxed_str());
    let origin = Origin::start(vec![[&[Head][..], &[Say(interim); 250]].concat()]);
    let mut client = Peer::connect(proxy.addr(0));
    let head = format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", origin.addr);
    client.run(&[Put(head.as_bytes())]);
    let is_stuck = |connection: &Value| connection["stage"] == "handshake" && connection["source"]["queued"] != 0;
    kit::until("a head waits", || proxy.status()["connections"].as_array().is_some_and(|all| all.iter().any(is_stuck)));
    client.run(&[Put(b"no chunk\r\n")]);
    let is_over = |connection: &Value| connection["stage"] == "closing";
    kit::until("the chunk is seen", || {
        proxy.status()["connections"].as_array().is_some_and(|all| all.iter().all(is_over))
    });
    let mut seen = Vec::new();
    while let Ok(bytes) = client.some() {
        if bytes.is_empty() {
            break;
        }
        seen.extend_from_slice(&bytes);
    }
    let text = String::from_utf8(seen).unwrap();
    assert!(text.starts_with("HTTP/1.1 103 "));
    let before = text.split("HTTP/1.1 400").next().unwrap();
    assert!(before == text || before.ends_with("\r\n\r\n"), "{:?}", before.lines().last().map(str::len));
}

#[test]
fn a_large_response_head_without_a_body_is_complete() {
    let proxy = proxy(&[]);
    let bare: &str = Box::leak(big_head(60_000, 20).replace("200 OK", "304 No").into_boxed_str());
    // The server sends more than requested. The extra bytes must not be used as the response to the next request.
    let origin =
        Origin::start(vec![vec![Head, Say(bare), Say("HTTP/1.1 200 No\r\n"), Wait], vec![Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    client.run(&[Put(get.as_bytes())]);
    let answer = head(&mut client);
    assert!(answer.starts_with("HTTP/1.1 304 ") && answer.len() > 59_900, "{} bytes", answer.len());
    client.run(&[Put(get.as_bytes())]);
    assert_eq!(response(&mut client).body, b"ok");
}

#[test]
fn large_response_heads_have_a_timeout_and_a_limit_for_each_client() {
    let half: &str = Box::leak(big_head(30_000, 10)[..20_000].into());
    let slow = proxy(&["--handshake-timeout", "1s"]);
    let origin = Origin::start(vec![vec![Head, Say(half), Wait], vec![Head, Say(half), Reset]]);
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    assert_eq!(ask(slow.addr(0), &get).status, 504);
    slow.wait_for_log(&[" closed ", "reason=handshake_timeout", "by=dest"]);
    assert_eq!(ask(slow.addr(0), &get).status, 502, "a reset in the middle");
    // One client can use at most a quarter of the places. A place is free again when its head has been sent.
    let proxy = proxy(&["--handshake-timeout", "60s"]);
    let mut scripts = vec![vec![Head, Say(half), Wait]; 64];
    scripts.extend([
        vec![Head, Say(half), Wait],
        vec![Head, Say(OK), Wait],
        vec![Head, Say(big_head(30_000, 10)), Say("ok")],
    ]);
    let origin = Origin::start(scripts);
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    let mut clients: Vec<_> = (0..64).map(|_| Peer::connect(proxy.addr(0))).collect();
    for client in &mut clients {
        client.run(&[Put(get.as_bytes())]);
        origin.saw();
    }
    let is_gathered =
        |connection: &&Value| connection["stage"] == "handshake" && connection["dest"]["state"] == "connected";
    kit::until("64 heads are under way", || {
        proxy.status()["connections"].as_array().is_some_and(|all| all.iter().filter(is_gathered).count() == 64)
    });
    assert_eq!(ask(proxy.addr(0), &get).status, 503, "no place is left");
    proxy.wait_for_log(&[" closed ", "reason=limit_reached"]);
    assert_eq!(ask(proxy.addr(0), &get).status, 200, "a small head needs no place");
    let local = clients[0].local();
    clients[0].run(&[Rst]);
    proxy.wait_for_log(&[" closed ", &format!("conn=http[ipv4[{local}]")]);
    assert_eq!(ask(proxy.addr(0), &get).status, 200);
}

#[test]
fn a_request_body_with_a_length_is_forwarded() {
    let proxy = proxy(&[]);
    let origin = Origin::start(vec![vec![Head, Body(200_000), Say(OK), Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let body = "b".repeat(200_000);
    let request = format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n", origin.addr);
    client.run(&[Put(request.as_bytes()), Put(body.as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    assert_eq!(field(&origin.saw(), "content-length").as_deref(), Some("200000"));
    assert!(origin.saw() == body);
    client.run(&[Put(format!("GET http://{}/2 HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    assert!(origin.saw().starts_with("GET /2 "));
}

#[test]
fn a_chunked_request_body_is_forwarded_and_the_next_request_follows() {
    let proxy = proxy(&[]);
    let sent = "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let arrives = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let origin = Origin::start(vec![vec![Head, Body(arrives.len()), Say(OK), Head, Say(OK), Wait]]);
    let head = format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", origin.addr);
    let mut client = Peer::connect(proxy.addr(0));
    let next = format!("GET http://{}/2 HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    for byte in [&head, sent].concat().bytes() {
        client.run(&[Put(&[byte])]);
    }
    assert_eq!(response(&mut client).status, 200);
    assert_eq!(field(&origin.saw(), "transfer-encoding").as_deref(), Some("chunked"));
    assert_eq!(origin.saw(), arrives);
    client.run(&[Put(next.as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    assert!(origin.saw().starts_with("GET /2 "));
}

/// White space around the size of a chunk is removed, and a line end after the body is skipped.
#[test]
fn white_space_in_chunk_lines_and_a_line_end_after_the_body_are_removed() {
    let proxy = proxy(&["--handshake-timeout", "1s"]);
    let arrives = "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let origin =
        Origin::start(vec![vec![Head, Body(arrives.len()), Say(OK), Head, Body(3), Say(OK), Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let head = |fields: &str| format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n", origin.addr);
    let sent = "5 \r\nhello\r\n6 ; x = y \r\n world\r\n0\t\r\n\r\n\r\n";
    client.run(&[Put([&head("Transfer-Encoding: chunked"), sent].concat().as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    assert!(origin.saw().starts_with("POST / "));
    assert_eq!(origin.saw(), arrives);
    // The line end does not start a request, so no timeout follows.
    assert!(client.is_quiet(Duration::from_millis(1500)));
    client.run(&[Put([&head("Content-Length: 3"), "abc\r\n\r\n"].concat().as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    client.run(&[Put(b"\r"), Put([&b"\n"[..], head("Content-Length: 0").as_bytes()].concat().as_slice())]);
    assert_eq!(response(&mut client).status, 200);
    assert!(proxy.count_log(&[" closed "]) == 0);
}

/// A client with an invalid chunk gets 400 as long as no response has begun. The server must not see a FIN.
#[test]
fn an_invalid_chunk_gives_400_and_resets_the_server() {
    let proxy = proxy(&[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let post = format!(
        "POST http://{}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        listener.local_addr().unwrap()
    );
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(post.as_bytes()), Put(b"5\r\nhello\r\n")]);
    let mut server = Peer::accept(&listener);
    assert!(head(&mut server).starts_with("POST / "));
    server.run(&[Take(b"5\r\nhello")]);
    client.run(&[Put(b"5 0\r\n")]);
    assert_eq!(response(&mut client).status, 400);
    let error = loop {
        match server.some() {
            Ok(bytes) => assert!(!bytes.is_empty(), "the server got a FIN"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    drop(client);
    proxy.wait_for_log(&[" closed ", "reason=protocol_error end=aborted by=source", "chunked coding"]);
    // During a response only a reset can report the error.
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(post.as_bytes())]);
    let mut server = Peer::accept(&listener);
    assert!(head(&mut server).starts_with("POST / "));
    server.run(&[Put(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")]);
    assert!(head(&mut client).starts_with("HTTP/1.1 200 "));
    client.run(&[Put(b"5 0\r\n"), ReadReset]);
}

/// Browsers open connections in advance and would take an unrequested response for the one to their first request.
#[test]
fn a_client_that_sends_no_request_is_closed_without_a_response() {
    let proxy = proxy(&["--handshake-timeout", "200ms"]);
    assert_eq!(Peer::connect(proxy.addr(0)).rest(), b"");
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(b"\r\n")]);
    assert_eq!(client.rest(), b"");
    assert_eq!(ask(proxy.addr(0), "G").status, 408);
    kit::until("all three closed connections are logged", || {
        proxy.count_log(&[" closed ", "reason=handshake_timeout"]) == 3
    });
}

/// The upgrade of a `ws://` client that uses the absolute form instead of CONNECT.
#[test]
fn a_protocol_upgrade_is_relayed_after_the_101() {
    let proxy = proxy(&["--handshake-timeout", "1s"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let fields = "Host: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    let get = format!("GET http://{to}/chat HTTP/1.1\r\n{fields}");
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(get.as_bytes())]);
    let mut server = Peer::accept(&listener);
    let seen = head(&mut server);
    assert!(seen.starts_with("GET /chat HTTP/1.1\r\n"), "{seen}");
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")] {
        assert_eq!(field(&seen, name).as_deref(), Some(value), "{seen}");
    }
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nframe";
    server.run(&[Put(switch.as_bytes())]);
    let answer = head(&mut client);
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    assert_eq!(field(&answer, "upgrade").as_deref(), Some("websocket"));
    assert_eq!(field(&answer, "connection").as_deref(), Some("Upgrade"));
    client.run(&[Take(b"frame"), Put(b"GET not HTTP\r\n\r\n\0")]);
    server.run(&[Take(b"GET not HTTP\r\n\r\n\0"), Pause(1500)]);
    kit::peer::both(&mut client, &[Swap(300_000), Fin, ReadAll], &mut server, &[Swap(300_000), ReadAll, Send(7), Fin]);
    assert_eq!(client.received, 300_007);
    proxy.wait_for_log(&[" closed ", "reason=source_fin end=graceful by=source"]);
}

/// A server may ignore an upgrade request. A 101 without an upgrade request is an error of the server.
#[test]
fn a_declined_upgrade_goes_on_in_http_and_an_unrequested_one_is_502() {
    let proxy = proxy(&[]);
    let origin = Origin::start(vec![vec![Head, Say(OK), Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    for _ in 0..2 {
        let fields = "Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c, x/1\r\n\r\n";
        client.run(&[Put(format!("GET http://{}/ HTTP/1.1\r\n{fields}", origin.addr).as_bytes())]);
        assert_eq!(response(&mut client).body, b"ok");
        assert_eq!(field(&origin.saw(), "upgrade").as_deref(), Some("h2c, x/1"));
    }
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for fields in
        ["", "Upgrade: x\r\n", "Connection: Upgrade\r\n", "Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: 1\r\n"]
    {
        let origin = Origin::start(vec![vec![Head, Say(switch), Wait]]);
        let answer = ask(proxy.addr(0), &format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n{fields}\r\n", origin.addr));
        assert_eq!(answer.status, 502, "{fields}");
        assert_eq!(field(&origin.saw(), "upgrade"), None, "{fields}");
    }
}

/// A client that does not find its own protocol in a 101 would read the next bytes as HTTP.
#[test]
fn a_101_without_a_requested_protocol_is_502() {
    let proxy = proxy(&[]);
    for (switch, status) in [
        ("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: X/1\r\n\r\n", 101),
        ("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x/1\r\nUpgrade: h2c\r\n\r\n", 101),
        ("HTTP/1.1 101 S\r\n\r\n", 502),
        ("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: ,\r\n\r\n", 502),
        ("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 502),
        ("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x/1, websocket\r\n\r\n", 502),
        ("HTTP/1.0 101 S\r\nConnection: upgrade\r\nUpgrade: x/1\r\n\r\n", 502),
    ] {
        let origin = Origin::start(vec![vec![Head, Say(switch), Wait]]);
        let fields = "Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c, x/1\r\n\r\n";
        let answer = ask(proxy.addr(0), &format!("GET http://{}/ HTTP/1.1\r\n{fields}", origin.addr));
        assert_eq!(answer.status, status, "{switch:?}");
    }
}

/// When other connections hold all buffers, short chunks still pass, and a request head that finds no room gets 503.
#[test]
fn without_free_buffers_chunks_still_pass_and_a_large_head_is_503() {
    let proxy = proxy(&["--no-splice", "--buffer", "32KiB", "--buffer-memory", "64KiB"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    // A client that does not read holds one of the two buffers. The other is needed for the input.
    let mut idle = Peer::connect(proxy.addr(0));
    idle.run(&[Put(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())]);
    let mut filler = Peer::accept(&listener);
    filler.run(&[Fill(64 << 20, 200)]);
    kit::until("one buffer is held", || proxy.figure("/usage/buffer_bytes") == 32_768);
    let mut client = Peer::connect(proxy.addr(0));
    let chunks = "5\r\nhello\r\n".repeat(20) + "0\r\n\r\n";
    let post = format!("POST http://{to}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    client.run(&[Put(post.as_bytes())]);
    let mut server = Peer::accept(&listener);
    assert!(head(&mut server).starts_with("POST / "));
    server.run(&[Take(chunks.as_bytes()), Put(CHUNKED.as_bytes())]);
    assert!(head(&mut client).starts_with("HTTP/1.1 200 "));
    client.run(&[Take(b"5\r\nhello\r\n3\r\n!!!\r\n0\r\n\r\n")]);
    let get = format!("GET http://{to}/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(600));
    client.run(&[Put(get.as_bytes())]);
    assert_eq!(response(&mut client).status, 503);
    drop(client);
    proxy.wait_for_log(&[" closed ", "reason=limit_reached", "by=proxy", "the buffers have no room for the request"]);
    assert_eq!(proxy.count_log(&["reason=protocol_error"]), 0);
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n!!!\r\n0\r\n\r\n";

#[test]
fn a_chunked_response_is_forwarded_and_the_connection_is_kept() {
    let proxy = proxy(&[]);
    let origin = Origin::start(vec![vec![Head, Say(CHUNKED), Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let request = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    client.run(&[Put(request.as_bytes())]);
    assert_eq!(field(&head(&mut client), "transfer-encoding").as_deref(), Some("chunked"));
    client.run(&[Take(b"5\r\nhello\r\n3\r\n!!!\r\n0\r\n\r\n"), Put(request.as_bytes())]);
    assert_eq!(response(&mut client).body, b"ok");
}

#[test]
fn an_http_1_0_client_gets_a_chunked_response_without_the_chunks() {
    let proxy = proxy(&[]);
    let origin = Origin::start(vec![vec![Head, Say(CHUNKED), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(format!("GET http://{}/ HTTP/1.0\r\n\r\n", origin.addr).as_bytes())]);
    let head = head(&mut client);
    assert_eq!((field(&head, "transfer-encoding"), field(&head, "content-length")), (None, None), "{head}");
    assert_eq!(client.rest(), b"hello!!!");
    assert_eq!(field(&origin.saw(), "via").as_deref(), Some("1.0 seaprox"));
}

#[test]
fn a_response_to_head_has_a_length_and_no_body() {
    let proxy = proxy(&[]);
    let say = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    let origin = Origin::start(vec![vec![Head, Say(say), Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(format!("HEAD http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
    assert_eq!(field(&head(&mut client), "content-length").as_deref(), Some("1000"));
    client.run(&[Put(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
    assert_eq!(response(&mut client).body, b"ok");
}

#[test]
fn responses_without_a_body_do_not_wait_for_one() {
    let proxy = proxy(&[]);
    let none = "HTTP/1.1 204 No Content\r\n\r\n";
    let same = "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n";
    let origin = Origin::start(vec![vec![Head, Say(none), Head, Say(same), Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    for status in ["204", "304", "200"] {
        client.run(&[Put(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
        assert!(head(&mut client).starts_with(&format!("HTTP/1.1 {status} ")));
    }
    client.run(&[Take(b"ok")]);
}

#[test]
fn interim_responses_are_forwarded_in_order() {
    let proxy = proxy(&[]);
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let origin = Origin::start(vec![vec![Head, Say(go_on), Say(hints), Body(4), Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let fields = "Host: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.run(&[Put(format!("POST http://{}/ HTTP/1.1\r\n{fields}", origin.addr).as_bytes())]);
    assert!(head(&mut client).starts_with("HTTP/1.1 100 "));
    assert!(head(&mut client).starts_with("HTTP/1.1 103 "));
    client.run(&[Put(b"body")]);
    assert_eq!(response(&mut client).status, 200);
    assert_eq!(field(&origin.saw(), "expect").as_deref(), Some("100-continue"));
}

#[test]
fn a_response_without_a_length_ends_with_the_connection() {
    let proxy = proxy(&[]);
    let origin = Origin::start(vec![vec![Head, Say("HTTP/1.0 200 OK\r\n\r\n"), Bulk(3_000_000), Close]]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
    assert_eq!(field(&head(&mut client), "connection").as_deref(), Some("close"));
    assert_eq!(client.rest().len(), 3_000_000);
    proxy.wait_for_log(&[" closed ", "reason=dest_fin", "end=graceful"]);
}

#[test]
fn a_kept_connection_that_the_origin_closes_is_replaced() {
    let proxy = proxy(&[]);
    let origin = Origin::start(vec![vec![Head, Say(OK), Close], vec![Head, Say(OK), Head, Close], vec![Head, Say(OK)]]);
    let mut client = Peer::connect(proxy.addr(0));
    let get = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr);
    client.run(&[Put(get.as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    // Closed while idle: the next request needs a new connection, even if the proxy has not noticed the close.
    client.run(&[Put(get.as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    // Closed when the request was under way: a GET may be repeated.
    client.run(&[Put(get.as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
}

#[test]
fn a_request_that_is_not_idempotent_is_not_repeated() {
    let proxy = proxy(&[]);
    let origin = Origin::start(vec![vec![Head, Say(OK), Head, Close], vec![Head, Say(OK)]]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    let post = format!("POST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", origin.addr);
    client.run(&[Put(post.as_bytes())]);
    assert_eq!(response(&mut client).status, 502);
    assert!(origin.saw().starts_with("GET ") && origin.saw().starts_with("POST ") && origin.saw_nothing());
}

#[test]
fn an_origin_that_resets_or_sends_no_valid_response_gives_502() {
    let proxy = proxy(&[]);
    for end in [Reset, Close] {
        let origin = Origin::start(vec![vec![Head, end]]);
        let answer = ask(proxy.addr(0), &format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr));
        assert_eq!((answer.status, answer.body.is_empty()), (502, false), "{end:?}");
    }
    for nonsense in ["SSH-2.0-x\r\n", "HTTP/1.1 banana\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let origin = Origin::start(vec![vec![Head, Say(nonsense), Wait]]);
        let answer = ask(proxy.addr(0), &format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr));
        assert_eq!(answer.status, 502, "{nonsense}");
    }
}

#[test]
fn a_truncated_response_is_reset_and_never_finished() {
    let proxy = proxy(&[]);
    for say in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly this",
    ] {
        let origin = Origin::start(vec![vec![Head, Say(say), Close]]);
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
        let error = loop {
            match client.some() {
                Ok(bytes) => assert!(!bytes.is_empty(), "a FIN after {say:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{say:?}");
    }
    proxy.wait_for_log(&[" closed ", "reason=dest_fin", "end=aborted", "by=dest"]);
}

#[test]
fn an_http_1_0_client_is_reset_when_the_chunks_stop() {
    let proxy = proxy(&[]);
    let say = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n";
    let origin = Origin::start(vec![vec![Head, Say(say), Close]]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(format!("GET http://{}/ HTTP/1.0\r\n\r\n", origin.addr).as_bytes())]);
    while let Ok(bytes) = client.some() {
        assert!(!bytes.is_empty(), "the answer must not look complete");
    }
}

#[test]
fn an_early_response_reaches_the_client_before_the_close() {
    let proxy = proxy(&[]);
    let no = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nno!\n";
    let origin = Origin::start(vec![vec![Head, Say(no), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let fields = "Host: x\r\nContent-Length: 100000000\r\n\r\n";
    client.run(&[Put(format!("POST http://{}/ HTTP/1.1\r\n{fields}", origin.addr).as_bytes()), Send(1000)]);
    let answer = response(&mut client);
    assert_eq!(field(&answer.head, "Connection").as_deref(), Some("close"));
    assert_eq!((answer.status, answer.body), (413, b"no!\n".to_vec()));
    client.run(&[ReadAll]);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let proxy = proxy(&[]);
    let say = ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2"];
    let one = Origin::start(vec![vec![Head, Say(say[0]), Wait]]);
    let two = Origin::start(vec![vec![Head, Body(3), Say(say[1]), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let all = format!(
        "GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\nPOST http://{}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
         GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        one.addr, two.addr, "127.0.0.1:1"
    );
    client.run(&[Put(all.as_bytes())]);
    assert_eq!(response(&mut client).body, b"1");
    assert_eq!(response(&mut client).body, b"2");
    assert_eq!(response(&mut client).status, 502);
    assert!(two.saw().starts_with("POST / "));
    assert_eq!(two.saw(), "abc");
}

#[test]
fn a_client_that_closes_within_its_body_resets_the_origin() {
    let proxy = proxy(&[]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = Peer::connect(proxy.addr(0));
    let fields = "Host: x\r\nContent-Length: 100\r\n\r\nhalf";
    client.run(&[Put(format!("POST http://{}/ HTTP/1.1\r\n{fields}", listener.local_addr().unwrap()).as_bytes())]);
    let mut server = Peer::accept(&listener);
    head(&mut server);
    server.run(&[Take(b"half")]);
    drop(client);
    let end = server.some();
    assert!(end.is_err(), "half a request must not end with a FIN: {end:?}");
    proxy.wait_for_log(&[" closed ", "by=source"]);
}

#[test]
fn an_idle_kept_connection_is_closed_and_a_slow_head_gives_408() {
    let proxy = proxy(&["--keepalive-timeout", "400ms", "--handshake-timeout", "600ms"]);
    let origin = Origin::start(vec![vec![Head, Say(OK), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.addr).as_bytes())]);
    response(&mut client);
    let since = Instant::now();
    client.run(&[ReadAll]);
    assert!((Duration::from_millis(300)..kit::LATE).contains(&since.elapsed()), "{:?}", since.elapsed());
    let since = Instant::now();
    assert_eq!(ask(proxy.addr(0), "GET http://x/ HT").status, 408);
    assert!((Duration::from_millis(500)..kit::LATE).contains(&since.elapsed()), "{:?}", since.elapsed());
    proxy.wait_for_log(&[" closed ", "reason=idle_timeout"]);
    proxy.wait_for_log(&[" closed ", "reason=handshake_timeout"]);
}
