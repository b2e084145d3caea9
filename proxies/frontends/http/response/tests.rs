//! Unit and property tests of [`super`].

use super::super::head::{RESPONSE_FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX};
use super::*;
use proptest::prelude::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

fn parse(text: &str, kind: RequestKind) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    parse_response(text.as_bytes(), RESPONSE_HEAD_BYTES_MAX, kind)
}

fn head(text: &str, kind: RequestKind) -> ResponseHead<'_> {
    let (head, consumed) = parse(text, kind).unwrap().unwrap();
    assert_eq!(consumed, text.len());
    head
}

#[test]
fn a_response_body_depends_on_the_status_and_the_request() {
    let body = |status_and_fields: &str, kind| head(&format!("HTTP/1.1 {status_and_fields}\r\n\r\n"), kind).body;
    assert_eq!(body("200 OK\r\nContent-Length: 5", RequestKind::Other), Body::Length(5));
    assert_eq!(body("200 OK\r\nTransfer-Encoding: chunked", RequestKind::Other), Body::Chunked);
    assert_eq!(body("200 OK", RequestKind::Other), Body::UntilClose);
    assert_eq!(body("200", RequestKind::Head), Body::None);
    assert_eq!(body("200 OK\r\nContent-Length: 5", RequestKind::Head), Body::None);
    assert_eq!(body("200 OK\r\nTransfer-Encoding: chunked", RequestKind::Connect), Body::None);
    assert_eq!(body("404 No\r\nContent-Length: 5", RequestKind::Connect), Body::Length(5));
    for status in ["100 a", "103 a", "204 a", "304 a"] {
        assert_eq!(body(&format!("{status}\r\nContent-Length: 5"), RequestKind::Other), Body::None, "{status}");
    }
}

#[test]
fn a_connection_persists_as_the_server_says() {
    let persists = |text: &str| head(text, RequestKind::Other).keep_alive;
    assert!(persists(OK));
    assert!(!persists("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\n"));
    assert!(!persists("HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!persists("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"));
    assert!(persists("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn interim_responses_and_switches_of_protocol_are_recognized() {
    let parsed = head("HTTP/1.1 100 Continue\r\n\r\n", RequestKind::Other);
    assert!(parsed.is_interim() && !parsed.is_switching() && parsed.keep_alive);
    let parsed = head("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", RequestKind::Other);
    assert!(!parsed.is_interim() && parsed.is_switching() && !parsed.keep_alive);
    assert!(!head(OK, RequestKind::Other).is_interim());
}

#[test]
fn a_response_that_a_client_could_read_differently_is_refused() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\nTransfer-Encoding\t: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length\u{a0}: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length\x0b: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\n : 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\n Content-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\nZ: z\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.x 200 OK\r\n\r\n",
        "HTTP/1.10 200 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
        "HTTP/2",
        "\r\n",
        "ICY 200 OK\r\n\r\n",
        "SSH-2.0",
    ] {
        assert_eq!(parse(text, RequestKind::Head).expect_err(text).status, 502, "{text:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(RESPONSE_HEAD_BYTES_MAX));
    assert_eq!(parse(&long, RequestKind::Other).unwrap_err().status, 502);
}

#[test]
fn white_space_before_a_colon_is_removed() {
    for space in [" ", "\t", " \t "] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length{space}: 5\r\nConnection{space}: close\r\n\r\n");
        let parsed = head(&text, RequestKind::Other);
        assert_eq!((parsed.body, parsed.keep_alive), (Body::Length(5), false));
        assert_eq!(parsed.fields.iter().map(|field| field.0).collect::<Vec<_>>(), ["Content-Length", "Connection"]);
    }
    assert_eq!(head("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n", RequestKind::Other).body, Body::Chunked);
}

#[test]
fn a_higher_minor_version_is_read_as_http_1_1() {
    let parsed = head("HTTP/1.2 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", RequestKind::Other);
    assert_eq!((parsed.version, parsed.body, parsed.keep_alive), (Version::Http11, Body::Chunked, true));
}

#[test]
fn a_head_that_is_too_long_or_has_too_many_fields_is_refused() {
    let fields = |count: usize| format!("HTTP/1.1 204 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(head(&fields(RESPONSE_FIELDS_MAX), RequestKind::Other).fields.iter().count(), RESPONSE_FIELDS_MAX);
    assert_eq!(parse(&fields(RESPONSE_FIELDS_MAX + 1), RequestKind::Other).unwrap_err().status, 502);
    let of_len = |len: usize| format!("HTTP/1.1 204 OK\r\nA: {}\r\n\r\n", "a".repeat(len - 24));
    assert!(parse(&of_len(RESPONSE_HEAD_BYTES_MAX), RequestKind::Other).unwrap().is_some());
    assert_eq!(parse(&of_len(RESPONSE_HEAD_BYTES_MAX + 1), RequestKind::Other).unwrap_err().status, 502);
    let options = |count: usize| format!("HTTP/1.1 204 OK\r\nConnection: {}\r\n\r\n", "a,".repeat(count));
    assert!(head(&options(RESPONSE_FIELDS_MAX), RequestKind::Other).keep_alive);
    assert_eq!(parse(&options(RESPONSE_FIELDS_MAX + 1), RequestKind::Other).unwrap_err().status, 502);
}

#[test]
fn each_prefix_of_a_head_is_incomplete() {
    for text in [OK, "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 200 \u{e9}\r\nX: \u{e9}\r\n\r\n"] {
        for len in 0..text.len() {
            assert!(
                parse_response(&text.as_bytes()[..len], RESPONSE_HEAD_BYTES_MAX, RequestKind::Other).unwrap().is_none(),
                "{len}"
            );
        }
        let pipelined = format!("{text}\nHTTP \x00\n");
        assert_eq!(parse(&pipelined, RequestKind::Other), parse(text, RequestKind::Other));
    }
}

proptest! {
    #[test]
    fn any_bytes_return_a_result(
        bytes: Vec<u8>,
        text in "HTTP/1.[01] [0-9]{3} [ -~]{0,30}\r\n([ -~\r\n]{0,20}\r\n){0,5}\r\n",
    ) {
        for bytes in [&bytes[..], text.as_bytes()] {
            if let Ok(Some((_, consumed))) = parse_response(bytes, RESPONSE_HEAD_BYTES_MAX, RequestKind::Other) {
                prop_assert!(consumed <= bytes.len());
            }
        }
    }
}
