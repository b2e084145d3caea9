//! Byte-exact tests of [`super`].

use super::super::head::{HEAD_BYTES_MAX, RequestKind};
use super::super::request::{Form, parse_request};
use super::super::response::parse_response;
use super::*;

const KEEPING: Client = Client { version: Version::Http11, keep_alive: true };
const CLOSING: Client = Client { version: Version::Http11, keep_alive: false };
const OLD: Client = Client { version: Version::Http10, keep_alive: false };

fn forwarded_request(text: &str) -> String {
    let (head, _) = parse_request(text.as_bytes(), HEAD_BYTES_MAX).unwrap().unwrap();
    let Form::Absolute(absolute) = &head.form else { panic!("not to be forwarded") };
    let mut out = Vec::new();
    request(&head, absolute, &mut out);
    String::from_utf8(out).unwrap()
}

fn forwarded_response(text: &str, kind: RequestKind, client: Client) -> (String, Outgoing) {
    let (head, _) = parse_response(text.as_bytes(), HEAD_BYTES_MAX, kind).unwrap().unwrap();
    let mut out = Vec::new();
    let outgoing = response(&head, client, &mut out);
    (String::from_utf8(out).unwrap(), outgoing)
}

#[test]
fn a_request_is_forwarded_in_origin_form() {
    let text = "GET http://Example.org:8080/a?b HTTP/1.1\r\nHost: elsewhere\r\nUser-Agent: x\r\naccept:  */* \r\n\r\n";
    let expected =
        "GET /a?b HTTP/1.1\r\nHost: Example.org:8080\r\nUser-Agent: x\r\naccept: */*\r\nVia: 1.1 seaprox\r\n\r\n";
    assert_eq!(forwarded_request(text), expected);
    let old = "GET http://h HTTP/1.0\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(forwarded_request(old), "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.0 seaprox\r\n\r\n");
    let options = "OPTIONS http://h:81 HTTP/1.1\r\nHost: h\r\nMax-Forwards: 7\r\nVia: 1.1 a\r\n\r\n";
    let expected = "OPTIONS * HTTP/1.1\r\nHost: h:81\r\nVia: 1.1 a\r\nMax-Forwards: 6\r\nVia: 1.1 seaprox\r\n\r\n";
    assert_eq!(forwarded_request(options), expected);
}

#[test]
fn user_information_is_not_forwarded() {
    let text = "GET http://joe:secret@h:81/a@b HTTP/1.1\r\nHost: h:81\r\n\r\n";
    assert_eq!(forwarded_request(text), "GET /a@b HTTP/1.1\r\nHost: h:81\r\nVia: 1.1 seaprox\r\n\r\n");
}

/// The zone of an address names an interface of this host and means nothing to the server.
#[test]
fn the_zone_of_an_address_is_not_forwarded() {
    for (authority, host) in [
        ("[fe80::1%25eth0]", "[fe80::1]"),
        ("[fe80::1%25eth0]:81", "[fe80::1]:81"),
        ("[fe80::1%eth0]", "[fe80::1]"),
        ("joe:secret@[fe80::1%25a]:81", "[fe80::1]:81"),
        ("[fe80::1]:81", "[fe80::1]:81"),
    ] {
        let text = format!("GET http://{authority}/%25 HTTP/1.1\r\nHost: x\r\n\r\n");
        let expected = format!("GET /%25 HTTP/1.1\r\nHost: {host}\r\nVia: 1.1 seaprox\r\n\r\n");
        assert_eq!(forwarded_request(&text), expected);
    }
}

#[test]
fn white_space_before_a_colon_is_not_forwarded() {
    let text = "HTTP/1.1 200 OK\r\nX-Kept \t:  1 \r\nConnection : x-hop\r\nX-Hop : 2\r\nContent-Length : 5\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\nX-Kept: 1\r\nContent-Length: 5\r\nVia: 1.1 seaprox\r\n\r\n";
    assert_eq!(forwarded_response(text, RequestKind::Other, KEEPING).0, expected);
}

#[test]
fn fields_about_one_connection_are_not_forwarded() {
    let text = "POST http://h/ HTTP/1.1\r\nHost: h\r\nConnection: close, X-Private, Upgrade\r\nX-Private: 1\r\n\
                Connection: x-other\r\nX-Other: 2\r\nX-Kept: 3\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n\
                TE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eA==\r\nProxy-Authenticate: x\r\n\
                Expect: 100-continue\r\nContent-Length: 007\r\n\r\n";
    let expected = "POST / HTTP/1.1\r\nHost: h\r\nX-Kept: 3\r\nExpect: 100-continue\r\nContent-Length: 7\r\n\
                    Via: 1.1 seaprox\r\n\r\n";
    assert_eq!(forwarded_request(text), expected);
}

#[test]
fn a_connection_field_cannot_remove_the_framing() {
    let text = "POST http://h/ HTTP/1.1\r\nHost: h\r\nConnection: Content-Length, Host\r\nContent-Length: 5\r\n\r\n";
    let expected = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nVia: 1.1 seaprox\r\n\r\n";
    assert_eq!(forwarded_request(text), expected);
    let text =
        "POST http://h/ HTTP/1.1\r\nHost: h\r\nConnection: transfer-encoding\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let expected = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nVia: 1.1 seaprox\r\n\r\n";
    assert_eq!(forwarded_request(text), expected);
}

#[test]
fn a_response_keeps_the_connection_of_the_client() {
    let text = "HTTP/1.1 404 Not here\r\nConnection: close, x-private\r\nX-Private: 1\r\nContent-Length: 5\r\n\
                Proxy-Authenticate: Basic\r\nKeep-Alive: 5\r\nUpgrade: h2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
    let expected =
        "HTTP/1.1 404 Not here\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 5\r\nVia: 1.1 seaprox\r\n\r\n";
    let outgoing = Outgoing { body: Body::Length(5), keep_alive: true };
    assert_eq!(forwarded_response(text, RequestKind::Other, KEEPING), (expected.to_owned(), outgoing));
    let closing = expected.replace("seaprox\r\n", "seaprox\r\nConnection: close\r\n");
    let outgoing = Outgoing { body: Body::Length(5), keep_alive: false };
    assert_eq!(forwarded_response(text, RequestKind::Other, CLOSING), (closing, outgoing));
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 seaprox\r\n\r\n";
    let outgoing = Outgoing { body: Body::Chunked, keep_alive: true };
    assert_eq!(forwarded_response(text, RequestKind::Other, KEEPING), (expected.to_owned(), outgoing));
    let expected = "HTTP/1.1 200 OK\r\nVia: 1.1 seaprox\r\nConnection: close\r\n\r\n";
    let outgoing = Outgoing { body: Body::UntilClose, keep_alive: false };
    assert_eq!(forwarded_response(text, RequestKind::Other, OLD), (expected.to_owned(), outgoing));
}

#[test]
fn a_body_until_close_closes_the_connection_of_the_client() {
    let expected = "HTTP/1.1 200 OK\r\nVia: 1.0 seaprox\r\nConnection: close\r\n\r\n";
    let outgoing = Outgoing { body: Body::UntilClose, keep_alive: false };
    assert_eq!(
        forwarded_response("HTTP/1.0 200 OK\r\n\r\n", RequestKind::Other, KEEPING),
        (expected.to_owned(), outgoing)
    );
}

#[test]
fn a_response_without_a_body_keeps_its_content_length() {
    let outgoing = Outgoing { body: Body::None, keep_alive: true };
    let forwarded = |status: &str, field: &str, kind| {
        let (text, found) = forwarded_response(&format!("HTTP/1.1 {status}\r\n{field}\r\n\r\n"), kind, KEEPING);
        assert_eq!(found, outgoing);
        text
    };
    let with_length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 seaprox\r\n\r\n";
    let without = with_length.replace("Content-Length: 5\r\n", "");
    assert_eq!(forwarded("200 OK", "Content-Length: 5", RequestKind::Head), with_length);
    assert_eq!(forwarded("304 a", "Content-Length: 5", RequestKind::Other), with_length.replace("200 OK", "304 a"));
    assert_eq!(forwarded("200 OK", "Transfer-Encoding: chunked", RequestKind::Head), without);
    for status in ["100 a", "103 a", "204 a"] {
        assert_eq!(forwarded(status, "Content-Length: 5", RequestKind::Other), without.replace("200 OK", status));
    }
}

#[test]
fn an_http_1_0_client_gets_no_interim_response() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    let expected = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nVia: 1.1 seaprox\r\n\r\n";
    assert_eq!(forwarded_response(text, RequestKind::Other, CLOSING).0, expected);
    assert_eq!(forwarded_response(text, RequestKind::Other, OLD).0, "");
}
