//! HTTP heads: splits, and whatever is forwarded means the same to whoever reads it next.

use super::check_prefixes;
use super::http::head::{Asked, Body, FIELDS_MAX, HEAD_BYTES_MAX, Version};
use super::http::request::{Absolute, Client, Form, RequestHead, parse_request};
use super::http::response::{ResponseHead, parse_response};
use super::http::rewrite::{self, Outgoing};

/// A request, and the request that is forwarded for it.
pub fn http_request(data: &[u8]) {
    check_prefixes(data, |bytes| parse_request(bytes, HEAD_BYTES_MAX), |_| false);
    let Ok(Some((head, _))) = parse_request(data, HEAD_BYTES_MAX) else { return };
    assert_ne!(head.body, Body::UntilClose);
    match &head.form {
        Form::Connect(_) => assert_eq!(head.body, Body::None),
        Form::Absolute(absolute) => check_forwarded_request(&head, absolute),
    }
}

/// A response, and what the client gets for it. The first byte says what was asked and who asks.
pub fn http_response(data: &[u8]) {
    let Some((&selector, data)) = data.split_first() else { return };
    let asked = [Asked::Other, Asked::Head, Asked::Connect][usize::from(selector % 3)];
    let version = if selector & 4 == 0 { Version::Http11 } else { Version::Http10 };
    let client = Client { version, keep_alive: version == Version::Http11 && selector & 8 == 0 };
    check_prefixes(data, |bytes| parse_response(bytes, HEAD_BYTES_MAX, asked), |_| false);
    if let Ok(Some((head, _))) = parse_response(data, HEAD_BYTES_MAX, asked) {
        check_forwarded_response(&head, asked, client);
    }
}

fn check_forwarded_request(head: &RequestHead<'_>, absolute: &Absolute<'_>) {
    let mut out = Vec::new();
    rewrite::request(head, absolute, &mut out);
    check_plain(&out, head.body);
    assert_eq!(values(&out, "host"), [absolute.authority.as_bytes()]);
    assert!(!absolute.authority.contains('@'));
    let lone_slash = absolute.path == "*" || absolute.path.starts_with('/');
    assert!(lone_slash, "{:?} is no request target for an origin server", absolute.path);

    // Another proxy that is given the same request finds the same in it.
    let line_len = out.windows(2).position(|pair| pair == b"\r\n").expect("a request line");
    let path = if absolute.path == "*" { "" } else { &absolute.path };
    let line = format!("{} http://{}{path} HTTP/1.1", head.method, absolute.authority);
    let again = [line.as_bytes(), &out[line_len..]].concat();
    if head.fields.iter().count() + 2 > FIELDS_MAX || values(&out, "max-forwards").contains(&b"0".to_vec()) {
        return;
    }
    let (second, consumed) = parse_request(&again, usize::MAX).expect("is refused").expect("is not whole");
    assert_eq!(consumed, again.len());
    assert_eq!((second.method, second.body), (head.method, head.body));
    assert_eq!(second.form, Form::Absolute(absolute.clone()));
    assert_eq!(second.expect_continue, head.expect_continue);
    assert!(second.keep_alive, "the server's connection is to persist");
}

fn check_forwarded_response(head: &ResponseHead<'_>, asked: Asked, client: Client) {
    let mut out = Vec::new();
    let outgoing = rewrite::response(head, client, &mut out);
    assert!(!outgoing.keep_alive || client.keep_alive);
    if out.is_empty() {
        assert!(head.is_interim() && client.version == Version::Http10);
        return;
    }
    if client.version == Version::Http10 {
        assert!(outgoing.body != Body::Chunked && !outgoing.keep_alive);
    }
    if outgoing.body == Body::None {
        assert!(values(&out, "transfer-encoding").is_empty());
    } else {
        check_plain(&out, outgoing.body);
    }
    if head.fields.iter().count() + 2 > FIELDS_MAX {
        return;
    }
    let (second, consumed) = parse_response(&out, usize::MAX, asked).expect("is refused").expect("is not whole");
    assert_eq!(consumed, out.len());
    assert_eq!((second.status, second.body), (head.status, outgoing.body));
    if !head.is_interim() && !head.is_switching() {
        assert_eq!(Outgoing { body: second.body, keep_alive: second.keep_alive }, outgoing);
    }
}

/// Reads a forwarded head in the plainest way that there is: lines that end in CRLF, names before the first colon.
fn check_plain(out: &[u8], body: Body) {
    assert!(out.ends_with(b"\r\n\r\n"));
    assert_eq!(out.windows(4).position(|four| four == b"\r\n\r\n"), Some(out.len() - 4), "the head ends twice");
    for (index, byte) in out.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(out.get(index + 1), Some(&b'\n'), "a bare CR"),
            b'\n' => assert_eq!(out.get(index.wrapping_sub(1)), Some(&b'\r'), "a bare LF"),
            byte => assert!(!byte.is_ascii_control() || *byte == b'\t', "a control character"),
        }
    }
    let expected = match body {
        Body::Length(length) => (vec![length.to_string().into_bytes()], vec![]),
        Body::Chunked => (vec![], vec![b"chunked".to_vec()]),
        Body::None | Body::UntilClose => (vec![], vec![]),
    };
    assert_eq!((values(out, "content-length"), values(out, "transfer-encoding")), expected);
    for name in
        ["proxy-connection", "keep-alive", "te", "trailer", "upgrade", "proxy-authorization", "proxy-authenticate"]
    {
        assert!(values(out, name).is_empty(), "{name} was forwarded");
    }
    assert!(values(out, "via").last().is_some_and(|via| via.ends_with(b" seaprox")));
}

/// The values of every field of that name, by splitting lines; white space around names counts for nothing, so that a
/// disguised field is found.
fn values(out: &[u8], name: &str) -> Vec<Vec<u8>> {
    let lines = out.split(|byte| *byte == b'\n').skip(1);
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (found, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.to_vec())
    });
    fields.collect()
}
