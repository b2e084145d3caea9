//! HTTP heads: splits, and a forwarded head has the same meaning for its next reader.

use super::check_prefixes;
use super::http::head::{
    Body, FIELDS_MAX, Fields, HEAD_BYTES_MAX, RESPONSE_FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX, RequestKind, Version,
};
use super::http::request::{Absolute, Client, Form, RequestHead, parse_request};
use super::http::response::{ResponseHead, parse_response};
use super::http::rewrite::{self, Outgoing};

/// Checks a request and the request that is forwarded for it.
pub fn http_request(data: &[u8]) {
    check_prefixes(data, |bytes| parse_request(bytes, HEAD_BYTES_MAX), |_| false);
    let Ok(Some((head, consumed))) = parse_request(data, HEAD_BYTES_MAX) else { return };
    assert_ne!(head.body, Body::UntilClose);
    check_second_opinion_on_request(&data[..consumed], &head);
    match &head.form {
        Form::Connect(_) => assert_eq!(head.body, Body::None),
        Form::Absolute(absolute) => check_forwarded_request(&head, absolute),
    }
}

/// Checks a response and the response that the client gets for it. The first byte selects the request and the client.
pub fn http_response(data: &[u8]) {
    let Some((&selector, data)) = data.split_first() else { return };
    let kind = [RequestKind::Other, RequestKind::Head, RequestKind::Connect][usize::from(selector % 3)];
    let version = if selector & 4 == 0 { Version::Http11 } else { Version::Http10 };
    let client = Client { version, keep_alive: version == Version::Http11 && selector & 8 == 0 };
    check_prefixes(data, |bytes| parse_response(bytes, RESPONSE_HEAD_BYTES_MAX, kind), |_| false);
    if let Ok(Some((head, consumed))) = parse_response(data, RESPONSE_HEAD_BYTES_MAX, kind) {
        check_second_opinion_on_response(&data[..consumed], &head);
        check_forwarded_response(&head, kind, client);
    }
}

/// Checks that `httparse` reads the same from a request. Skips what `httparse` does not support: minor versions above 1
/// and targets that are not UTF-8.
fn check_second_opinion_on_request(bytes: &[u8], head: &RequestHead<'_>) {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\r').next().unwrap_or_default();
    if !is_known_version(&line[line.len() - 8..]) || str::from_utf8(line).is_err() {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut second = httparse::Request::new(&mut headers);
    assert_eq!(second.parse(bytes), Ok(httparse::Status::Complete(bytes.len())));
    assert_eq!((second.method, second.version), (Some(head.method), Some(minor(head.version))));
    let target = second.path.expect("a target");
    match &head.form {
        Form::Connect(_) => {}
        Form::Absolute(absolute) => {
            let written = target.split_once("://").expect("a scheme").1;
            let end = written.find(['/', '?']).unwrap_or(written.len());
            let host = written[..end].rsplit('@').next().expect("a host");
            assert_eq!(host.strip_suffix(':').unwrap_or(host), absolute.authority);
            assert!(absolute.path.ends_with(&written.as_bytes()[end..]));
        }
    }
    check_fields(&head.fields, second.headers);
}

/// Checks that `httparse` reads the same from a response. Skips minor versions above 1.
fn check_second_opinion_on_response(bytes: &[u8], head: &ResponseHead<'_>) {
    if !is_known_version(&bytes[..8]) {
        return;
    }
    let mut headers = [httparse::EMPTY_HEADER; RESPONSE_FIELDS_MAX];
    let mut second = httparse::Response::new(&mut headers);
    let mut parser = httparse::ParserConfig::default();
    parser.allow_spaces_after_header_name_in_responses(true);
    assert_eq!(parser.parse_response(&mut second, bytes), Ok(httparse::Status::Complete(bytes.len())));
    assert_eq!((second.code, second.version), (Some(head.status), Some(minor(head.version))));
    assert_eq!(second.reason, Some(head.reason));
    check_fields(&head.fields, second.headers);
}

fn is_known_version(word: &[u8]) -> bool {
    matches!(word, b"HTTP/1.0" | b"HTTP/1.1")
}

fn minor(version: Version) -> u8 {
    u8::from(version == Version::Http11)
}

fn check_fields(fields: &Fields<'_>, second: &[httparse::Header<'_>]) {
    let plain = |value: &[u8]| String::from_utf8_lossy(value).trim_matches([' ', '\t']).to_owned();
    let first = fields.iter().map(|(name, value)| (name.to_owned(), plain(value)));
    let second = second.iter().map(|header| (header.name.to_owned(), plain(header.value)));
    assert!(first.eq(second), "httparse finds other fields");
}

fn check_forwarded_request(head: &RequestHead<'_>, absolute: &Absolute<'_>) {
    let mut out = Vec::new();
    rewrite::request(head, absolute, &mut out);
    check_plain(&out, head.body);
    assert_eq!(values(&out, "host"), [absolute.authority.as_bytes()]);
    assert!(!absolute.authority.contains('@'));
    let lone_slash = *absolute.path == *b"*" || absolute.path.starts_with(b"/");
    assert!(lone_slash, "{:?} is no request target for an origin server", absolute.path);

    // Another proxy that receives the forwarded request reads the same from it.
    let line_len = out.windows(2).position(|pair| pair == b"\r\n").expect("a request line");
    let path = if *absolute.path == *b"*" { b"" } else { &*absolute.path };
    let line = format!("{} http://{}", head.method, absolute.authority);
    let again = [line.as_bytes(), path, b" HTTP/1.1", &out[line_len..]].concat();
    if head.fields.iter().count() + 2 > FIELDS_MAX || values(&out, "max-forwards").contains(&b"0".to_vec()) {
        return;
    }
    let parsed = parse_request(&again, usize::MAX).expect("the forwarded request is valid");
    let (second, consumed) = parsed.expect("the forwarded request is complete");
    assert_eq!(consumed, again.len());
    assert_eq!((second.method, second.body), (head.method, head.body));
    assert_eq!(second.form, Form::Absolute(absolute.clone()));
    assert_eq!(second.expect_continue, head.expect_continue);
    assert!(second.keep_alive, "the connection to the server persists");
}

fn check_forwarded_response(head: &ResponseHead<'_>, kind: RequestKind, client: Client) {
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
    let names = out.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b':').next());
    assert!(names.skip(1).all(|name| !name.ends_with(b" ") && !name.ends_with(b"\t")), "white space before a colon");
    if outgoing.body == Body::None {
        assert!(values(&out, "transfer-encoding").is_empty());
    } else {
        check_plain(&out, outgoing.body);
    }
    if head.fields.iter().count() + 2 > RESPONSE_FIELDS_MAX {
        return;
    }
    let parsed = parse_response(&out, usize::MAX, kind).expect("the forwarded response is valid");
    let (second, consumed) = parsed.expect("the forwarded response is complete");
    assert_eq!(consumed, out.len());
    assert_eq!((second.status, second.body), (head.status, outgoing.body));
    if !head.is_interim() && !head.is_switching() {
        assert_eq!(Outgoing { body: second.body, keep_alive: second.keep_alive }, outgoing);
    }
}

/// Checks a forwarded head with the simplest possible reader: lines end in CRLF, and a name ends at the first colon.
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

/// Returns the values of all fields with that name. Ignores white space around names, so that it finds a disguised
/// field.
fn values(out: &[u8], name: &str) -> Vec<Vec<u8>> {
    let lines = out.split(|byte| *byte == b'\n').skip(1);
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (found, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.to_vec())
    });
    fields.collect()
}
