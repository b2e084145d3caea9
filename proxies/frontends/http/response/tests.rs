//! Unit and property tests of [`super`].

use super::super::head::{RESPONSE_FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX};
use super::*;
use proptest::prelude::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";

fn parse(text: &str, asked: Asked) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    parse_response(text.as_bytes(), RESPONSE_HEAD_BYTES_MAX, asked)
}

fn head(text: &str, asked: Asked) -> ResponseHead<'_> {
    let (head, consumed) = parse(text, asked).unwrap().unwrap();
    assert_eq!(consumed, text.len());
    head
}

#[test]
fn bodies_are_framed() {
    let body = |status_and_fields: &str, asked| head(&format!("HTTP/1.1 {status_and_fields}\r\n\r\n"), asked).body;
    assert_eq!(body("200 OK\r\nContent-Length: 5", Asked::Other), Body::Length(5));
    assert_eq!(body("200 OK\r\nTransfer-Encoding: chunked", Asked::Other), Body::Chunked);
    assert_eq!(body("200 OK", Asked::Other), Body::UntilClose);
    assert_eq!(body("200", Asked::Head), Body::None);
    assert_eq!(body("200 OK\r\nContent-Length: 5", Asked::Head), Body::None);
    assert_eq!(body("200 OK\r\nTransfer-Encoding: chunked", Asked::Connect), Body::None);
    assert_eq!(body("404 No\r\nContent-Length: 5", Asked::Connect), Body::Length(5));
    for status in ["100 a", "103 a", "204 a", "304 a"] {
        assert_eq!(body(&format!("{status}\r\nContent-Length: 5"), Asked::Other), Body::None, "{status}");
    }
}

#[test]
fn connections_persist_as_the_server_says() {
    let persists = |text: &str| head(text, Asked::Other).keep_alive;
    assert!(persists(OK));
    assert!(!persists("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: Close\r\n\r\n"));
    assert!(!persists("HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!persists("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"));
    assert!(persists("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n"));
}

#[test]
fn interim_and_switching() {
    let parsed = head("HTTP/1.1 100 Continue\r\n\r\n", Asked::Other);
    assert!(parsed.is_interim() && !parsed.is_switching() && parsed.keep_alive);
    let parsed = head("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Asked::Other);
    assert!(!parsed.is_interim() && parsed.is_switching() && !parsed.keep_alive);
    assert!(!head(OK, Asked::Other).is_interim());
}

#[test]
fn what_a_client_could_read_differently_is_refused() {
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
        assert_eq!(parse(text, Asked::Head).expect_err(text).status, 502, "{text:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(RESPONSE_HEAD_BYTES_MAX));
    assert_eq!(parse(&long, Asked::Other).unwrap_err().status, 502);
}

#[test]
fn white_space_before_a_colon_is_removed() {
    for space in [" ", "\t", " \t "] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length{space}: 5\r\nConnection{space}: close\r\n\r\n");
        let parsed = head(&text, Asked::Other);
        assert_eq!((parsed.body, parsed.keep_alive), (Body::Length(5), false));
        assert_eq!(parsed.fields.iter().map(|field| field.0).collect::<Vec<_>>(), ["Content-Length", "Connection"]);
    }
    assert_eq!(head("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n", Asked::Other).body, Body::Chunked);
}

#[test]
fn a_higher_minor_version_is_read_as_1_1() {
    let parsed = head("HTTP/1.2 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Asked::Other);
    assert_eq!((parsed.version, parsed.body, parsed.keep_alive), (Version::Http11, Body::Chunked, true));
}

#[test]
fn heads_are_bounded() {
    let fields = |count: usize| format!("HTTP/1.1 204 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(head(&fields(RESPONSE_FIELDS_MAX), Asked::Other).fields.iter().count(), RESPONSE_FIELDS_MAX);
    assert_eq!(parse(&fields(RESPONSE_FIELDS_MAX + 1), Asked::Other).unwrap_err().status, 502);
    let of_len = |len: usize| format!("HTTP/1.1 204 OK\r\nA: {}\r\n\r\n", "a".repeat(len - 24));
    assert!(parse(&of_len(RESPONSE_HEAD_BYTES_MAX), Asked::Other).unwrap().is_some());
    assert_eq!(parse(&of_len(RESPONSE_HEAD_BYTES_MAX + 1), Asked::Other).unwrap_err().status, 502);
    let options = |count: usize| format!("HTTP/1.1 204 OK\r\nConnection: {}\r\n\r\n", "a,".repeat(count));
    assert!(head(&options(RESPONSE_FIELDS_MAX), Asked::Other).keep_alive);
    assert_eq!(parse(&options(RESPONSE_FIELDS_MAX + 1), Asked::Other).unwrap_err().status, 502);
}

#[test]
fn every_prefix_needs_more() {
    for text in [OK, "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 200 \u{e9}\r\nX: \u{e9}\r\n\r\n"] {
        for len in 0..text.len() {
            assert!(
                parse_response(&text.as_bytes()[..len], RESPONSE_HEAD_BYTES_MAX, Asked::Other).unwrap().is_none(),
                "{len}"
            );
        }
        let pipelined = format!("{text}\nHTTP \x00\n");
        assert_eq!(parse(&pipelined, Asked::Other), parse(text, Asked::Other));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        bytes: Vec<u8>,
        text in "HTTP/1.[01] [0-9]{3} [ -~]{0,30}\r\n([ -~\r\n]{0,20}\r\n){0,5}\r\n",
    ) {
        for bytes in [&bytes[..], text.as_bytes()] {
            if let Ok(Some((_, consumed))) = parse_response(bytes, RESPONSE_HEAD_BYTES_MAX, Asked::Other) {
                prop_assert!(consumed <= bytes.len());
            }
        }
    }
}
