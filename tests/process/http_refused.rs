//! Refusals of the HTTP proxy: malformed and ambiguous requests, wrong users, rules, unreachable targets.

use crate::kit;

use std::net::TcpListener;

use kit::Step::*;
use kit::crowd::Crowd;
use kit::http::Act::*;
use kit::http::{Origin, ask, field, response};
use kit::{Peer, Scratch, Seaprox};

fn proxy(options: &[&str]) -> Seaprox {
    Seaprox::start(&[&["http", "--listen", "127.0.0.1:0"], options].concat())
}

#[test]
fn request_smuggling_gives_400_and_reaches_no_origin() {
    let proxy = proxy(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let to = listener.local_addr().unwrap();
    let requests = [
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "Content-Length: 3, 4\r\n\r\nabc",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "Content-Length: +3\r\n\r\nabc",
        "Content-Length: -3\r\n\r\nabc",
        "Content-Length: 0x3\r\n\r\nabc",
        "Content-Length: 99999999999999999999999\r\n\r\nabc",
        "Content-Length:\r\n\r\n",
        "X: a\r\n b\r\n\r\n",
        "X: a\r\n\tb\r\n\r\n",
        "X: a\nY: b\r\n\r\n",
        "X: a\r\n\n",
        "X: a\rb\r\n\r\n",
        "X: a\0b\r\n\r\n",
        "X Y: a\r\n\r\n",
        ": a\r\n\r\n",
        "Host: two\r\n\r\n",
    ];
    for rest in requests {
        let answer = ask(proxy.addr(0), &format!("POST http://{to}/ HTTP/1.1\r\nHost: x\r\n{rest}"));
        // RFC 9112, section 6.1: an unknown coding may be answered with 501.
        let may_be_501 = rest.contains("xchunked") || rest.contains("identity");
        assert!(answer.status == 400 || (may_be_501 && answer.status == 501), "{} for {rest:?}", answer.status);
        assert_eq!(field(&answer.head, "connection").as_deref(), Some("close"), "{rest:?}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.ends_with('\n') && text.len() > 1 && text.matches('\n').count() == 1, "{text:?}");
    }
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "an origin was reached");
    proxy.wait_for_log(&[" closed ", "reason=protocol_error", "by=source"]);
}

#[test]
fn a_body_with_invalid_chunks_is_never_forwarded_as_complete() {
    let proxy = proxy(&[]);
    for chunks in
        ["g\r\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "-1\r\n", " 5\r\n"]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let mut client = Peer::connect(proxy.addr(0));
        let head = format!("POST http://{to}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        client.run(&[Put(head.as_bytes())]);
        let mut server = Peer::accept(&listener);
        let mut seen = Vec::new();
        // Without a last chunk the body is incomplete (RFC 9112, section 8).
        while let Ok(bytes) = server.some() {
            seen.extend_from_slice(&bytes);
            if bytes.is_empty() {
                break;
            }
        }
        assert!(!seen.ends_with(b"0\r\n\r\n"), "{chunks:?} became {}", seen.escape_ascii());
    }
}

#[test]
fn an_invalid_request_gives_400() {
    let proxy = proxy(&[]);
    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://u@v@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://u\\@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/ HTTP/1.1\r\nHost: u@x\r\n\r\n",
        "GET http://\u{e9}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/ HTTP/1.2\r\n\r\n",
        "CONNECT u:p@x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/ HTTP/1.1\r\n\r\n",
        "CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:0 HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT http://x:1/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "banana\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
        "GET  http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/ http/1.1\r\nHost: x\r\n\r\n",
    ] {
        let answer = ask(proxy.addr(0), request);
        assert!(answer.status == 400, "{} for {request:?}", answer.status);
    }
    assert_eq!(ask(proxy.addr(0), "GET https://x/ HTTP/1.1\r\nHost: x\r\n\r\n").status, 501);
    assert_eq!(ask(proxy.addr(0), "GET http://x/ HTTP/2.0\r\nHost: x\r\n\r\n").status, 505);
}

#[test]
fn a_request_head_that_is_too_large_gives_431() {
    let proxy = proxy(&[]);
    let large = format!("GET http://x/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(ask(proxy.addr(0), &large).status, 431);
    let many = format!("GET http://x/ HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(2000));
    assert_eq!(ask(proxy.addr(0), &many).status, 431);
    let origin = Origin::start(vec![vec![Head, Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]]);
    let fair = format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", origin.addr, "x".repeat(10_000));
    assert_eq!(ask(proxy.addr(0), &fair).status, 200, "a large head that fits");
}

#[test]
fn a_request_without_a_right_password_gives_407_and_keeps_the_connection() {
    let scratch = Scratch::new();
    let users = scratch.write("users", "joe:secret\n");
    let proxy = proxy(&["--users", &users]);
    let origin = Origin::start(vec![vec![Head, Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Wait]]);
    let mut client = Peer::connect(proxy.addr(0));
    let with = |authorization: &str| format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\n{authorization}\r\n", origin.addr);
    // joe:wrong, bob:secret, and not base64.
    for wrong in ["", "Basic am9lOndyb25n", "Basic Ym9iOnNlY3JldA==", "Basic !!", "Bearer am9lOnNlY3JldA=="] {
        if wrong == "Basic !!" {
            // The proxy closes a connection after the third wrong password.
            client = Peer::connect(proxy.addr(0));
        }
        let field_line = if wrong.is_empty() { String::new() } else { format!("Proxy-Authorization: {wrong}\r\n") };
        client.run(&[Put(with(&field_line).as_bytes())]);
        let answer = response(&mut client);
        assert_eq!(answer.status, 407, "{wrong}");
        assert!(field(&answer.head, "proxy-authenticate").is_some_and(|value| value.starts_with("Basic realm=")));
    }
    client.run(&[Put(with("Proxy-Authorization: basic am9lOnNlY3JldA==\r\n").as_bytes())]);
    assert_eq!(response(&mut client).status, 200);
    drop(client);
    proxy.wait_for_log(&[" closed ", "user=joe"]);
    let connect = "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(ask(proxy.addr(0), connect).status, 407);
    assert_eq!(proxy.count_log(&["am9l"]) + proxy.count_log(&["secret"]), 0, "no password is in the log");
}

#[test]
fn http_answers_to_wrong_passwords_are_delayed_and_a_right_one_is_not() {
    let scratch = Scratch::new();
    let proxy = proxy(&["--users", &scratch.write("users", "joe:secret\n")]);
    let origin = Origin::start(vec![vec![Head, Say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]]);
    let get = |pair: &str| {
        format!("GET http://{}/ HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {pair}\r\n\r\n", origin.addr)
    };
    let wrong = get("am9lOndyb25n");
    // Fifty requests at once on one connection: three are answered, the last one with a close.
    let mut client = Peer::connect(proxy.addr(0));
    client.run(&[Put(wrong.repeat(50).as_bytes())]);
    let answer = String::from_utf8(client.rest_or_reset()).unwrap();
    assert_eq!(
        (answer.matches("HTTP/1.1 407 ").count(), answer.matches("Connection: close").count()),
        (3, 1),
        "{answer}"
    );
    // Many connections: the answers of at most sixteen are delayed, and the others are closed without one.
    let mut crowd = Crowd::start(proxy.addr(0), 24, &[(wrong.as_bytes(), 0)]);
    kit::until("the clients beyond sixteen are closed", || crowd.look().0 >= 4);
    assert_eq!(ask(proxy.addr(0), &get("am9lOnNlY3JldA==")).status, 200);
    let (closed, waiting) = crowd.look();
    assert!(waiting >= 1, "no wrong password waited when the right one was answered: {closed} closed");
    proxy.wait_for_log(&[" closed ", "reason=auth_failed", "wrong user or password"]);
}

#[test]
fn an_unreachable_target_gives_502_and_a_forbidden_one_403() {
    let proxy = proxy(&["--deny", "127.0.0.1:7"]);
    let closed = kit::closed_port();
    for (target, status, reason) in [
        (format!("127.0.0.1:{closed}"), 502, "connection_refused"),
        ("no-such-name.invalid:80".into(), 502, "name_resolution_failure"),
        ("127.0.0.1:7".into(), 403, "not_permitted"),
    ] {
        for request in [format!("CONNECT {target} HTTP/1.1"), format!("GET http://{target}/ HTTP/1.1")] {
            let answer = ask(proxy.addr(0), &format!("{request}\r\nHost: x\r\n\r\n"));
            let text = String::from_utf8(answer.body).unwrap();
            assert_eq!(answer.status, status, "{request}");
            assert!(text.contains(reason) && text.matches('\n').count() == 1, "{text:?}");
        }
        proxy.wait_for_log(&[" closed ", &format!("reason={reason}")]);
    }
}

#[test]
fn bytes_of_a_request_cannot_forge_a_log_line() {
    let proxy = proxy(&[]);
    ask(proxy.addr(0), "GET http://x\x1b[31m/ HTTP/1.1\r\nHost: x\r\n\r\n");
    ask(proxy.addr(0), "GET http://a%0a/ HTTP/1.1\r\nHost: x\r\n\r\n");
    proxy.wait_for_log(&[" closed "]);
    assert!(proxy.log().iter().all(|line| line.starts_with("20") && !line.contains('\x1b')), "{:?}", proxy.log());
}

/// The log shows the requested host with any bytes, and no part of the request that may be a secret.
#[test]
fn an_invalid_host_is_logged_without_secrets() {
    let proxy = Seaprox::start(&["http", "--listen", "127.0.0.1:0"]);
    for (line, asked) in [
        (&b"CONNECT a_b\x01c:443"[..], r#"asked="a_b\u{1}c:443""#),
        (b"GET http://joe:secret@exa%mple:80/secret?secret", "asked=exa%mple:80"),
        (b"CONNECT \xff.example:1", r#"asked="\\xff.example:1""#),
    ] {
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(&[line, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat()), Take(b"HTTP/1.1 400 ")]);
        drop(client);
        proxy.wait_for_log(&[" closed ", asked, "reason=protocol_error"]);
    }
    // A password may contain the character that ends the host, and so continue after it. A line without a line end may
    // be incomplete.
    for line in [
        &b"GET http://joe:secret/ss@host/ HTTP/1.1\r\n"[..],
        b"GET http://joe:secret?x@host/ HTTP/1.1\r\n",
        b"GET http://joe:secret#ss@host/ HTTP/1.1\r\n",
        b"GET http://joe:secret ss@host/ HTTP/1.1\r\n",
        b"GET http://joe:secret /@host/ HTTP/1.1\r\n",
        b"GET http://joe:secret%40host/ HTTP/1.1\r\n",
        b"GET http://joe:secret\nss@host/ HTTP/1.1\r\n",
        b"GET http://joe:secret\r\nss@host/ HTTP/1.1\r\n",
        b"GET http://joe:secret\x01",
        b"CONNECT joe:secret/ss@host:1 HTTP/1.1\r\n",
    ] {
        let mut client = Peer::connect(proxy.addr(0));
        client.run(&[Put(&[line, b"Host: x\r\n\r\n"].concat()), Take(b"HTTP/1.1 400 ")]);
        let local = client.local();
        drop(client);
        proxy.wait_for_log(&[" closed ", &format!("ipv4[{local}]"), "asked=- "]);
    }
    assert_eq!(proxy.count_log(&["secret"]), 0, "{:?}", proxy.log());
}
