//! Unit and property tests of [`super`].

use super::super::head::{FIELDS_MAX, HEAD_BYTES_MAX};
use super::*;
use proptest::prelude::*;

const GET: &str = "GET http://example.org/a?b=c HTTP/1.1\r\nHost: example.org\r\n\r\n";

fn parse(text: &str) -> Result<Option<(RequestHead<'_>, usize)>, HeadError> {
    parse_request(text.as_bytes(), HEAD_BYTES_MAX)
}

fn head(text: &str) -> RequestHead<'_> {
    let (head, consumed) = parse(text).unwrap().unwrap();
    assert_eq!(consumed, text.len());
    head
}

fn status(text: &str) -> u16 {
    parse(text).expect_err(text).status
}

/// Returns a POST with these lines among its fields.
fn post(lines: &str) -> String {
    format!("POST http://h/ HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

fn absolute<'a>(method: &str, uri: &'a str) -> (String, &'a str, String) {
    let absolute = parse_absolute(method, uri.as_bytes()).expect(uri);
    let path = String::from_utf8(absolute.path.into_owned()).expect("UTF-8 as it was given");
    (absolute.target.to_string(), absolute.authority, path)
}

#[test]
fn a_request_in_absolute_form_is_parsed() {
    let head = head(GET);
    assert_eq!((head.method, head.version, head.body), ("GET", Version::Http11, Body::None));
    assert!(head.keep_alive && !head.expect_continue);
    assert_eq!(head.kind(), RequestKind::Other);
    assert_eq!(head.client(), Client { version: Version::Http11, keep_alive: true });
    let expected = Absolute {
        target: Target::parse("example.org:80").unwrap(),
        authority: "example.org",
        path: Cow::Borrowed(b"/a?b=c"),
    };
    assert_eq!(head.form, Form::Absolute(expected));
}

#[test]
fn a_uri_is_split_into_target_authority_and_path() {
    let parts = |target: &str, authority, path: &str| (target.to_owned(), authority, path.to_owned());
    assert_eq!(absolute("GET", "HTTP://h"), parts("h:80", "h", "/"));
    assert_eq!(absolute("GET", "http://h:8080?q"), parts("h:8080", "h:8080", "/?q"));
    assert_eq!(absolute("GET", "http://h:/x"), parts("h:80", "h", "/x"));
    assert_eq!(absolute("GET", "http://[::1]:81/"), parts("[::1]:81", "[::1]:81", "/"));
    assert_eq!(absolute("GET", "http://10.0.0.1/@:x"), parts("10.0.0.1:80", "10.0.0.1", "/@:x"));
    assert_eq!(absolute("OPTIONS", "http://h"), parts("h:80", "h", "*"));
    assert_eq!(absolute("OPTIONS", "http://h/"), parts("h:80", "h", "/"));
    for uri in ["http://", "http:///x", "http://h:0/", "http://h:65536/", "http://h:+1/", "http://h:1:2/"] {
        assert_eq!(parse_absolute("GET", uri.as_bytes()).expect_err(uri).status, 400);
    }
    for uri in
        ["http://::1/", "http://[h]/", "http://[::1/", "http://[::1]x/", "http://h\\x/", "http://h%00/", "/", "*", "h"]
    {
        assert_eq!(parse_absolute("GET", uri.as_bytes()).expect_err(uri).status, 400);
    }
    for uri in ["https://h/", "ftp://h/", "ws://h/"] {
        assert_eq!(parse_absolute("GET", uri.as_bytes()).expect_err(uri).status, 501);
    }
    assert_eq!(parse_absolute("GET", b"/?u=http://h/").unwrap_err().status, 400);
}

#[test]
fn user_information_is_removed_or_refused() {
    for authority in ["u", "u:p", "", ":", "u:", "u:p:q", "a%40b:%2F", "-._~!$&'()*+,;=", "h:80", "1:2"] {
        let uri = format!("http://{authority}@h:81/@x");
        let (target, host, path) = absolute("GET", &uri);
        assert_eq!((&*target, host, &*path), ("h:81", "h:81", "/@x"), "{authority:?}");
    }
    assert_eq!(absolute("GET", "http://u:p@[::1]?q@r").0, "[::1]:80");
    // Two parsers could see two hosts in each of these.
    for authority in ["a@b@h", "@@h", "u@", "a\\@h", "a%4@h", "a%@h", "a%zz@h", "[a]@h", "u@h:p@i", "a\"@h", "a<b@h"] {
        let uri = format!("http://{authority}/");
        assert_eq!(parse_absolute("GET", uri.as_bytes()).expect_err(&uri).status, 400, "{uri}");
    }
    // The authority ends at the first slash or question mark.
    assert_eq!(absolute("GET", "http://h/u:p@other/").0, "h:80");
    assert_eq!(absolute("GET", "http://h?u:p@other/").0, "h:80");
    let parsed = head("GET http://joe:secret@h/ HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(!format!("{parsed:?}").contains("secret"));
}

#[test]
fn bytes_above_ascii_are_accepted_in_path_and_query_only() {
    let of = |line: &[u8]| {
        let bytes = [line, b"\r\nHost: h\r\n\r\n"].concat();
        let parsed = parse_request(&bytes, HEAD_BYTES_MAX).map(|parsed| match parsed.expect("a whole head").0.form {
            Form::Absolute(absolute) => absolute.path.into_owned(),
            Form::Connect(_) => Vec::new(),
        });
        parsed.map_err(|error| error.status)
    };
    // UTF-8, Latin-1, and bytes that are no text.
    for path in [&b"/caf\xc3\xa9"[..], b"/caf\xe9", b"/\x80\xff\xa0\x85?\xf0\xff"] {
        assert_eq!(of(&[b"GET http://h", path, b" HTTP/1.1"].concat()).as_deref(), Ok(path));
    }
    assert_eq!(of(b"GET http://h?\xe9 HTTP/1.1").as_deref(), Ok(&b"/?\xe9"[..]));
    for line in [
        &b"GET http://h\xe9/ HTTP/1.1"[..],
        b"GET http://\xe9@h/ HTTP/1.1",
        b"GET http://h:8\xb2/ HTTP/1.1",
        b"GET htt\xe9://h/ HTTP/1.1",
        b"CONNECT h\xe9:1 HTTP/1.1",
        b"G\xe9T http://h/ HTTP/1.1",
        b"GET http://h/\xa0 HTTP/1.1\xa0",
        b"GET\xa0http://h/ HTTP/1.1",
        b"GET http://h/\xe9\t HTTP/1.1",
        b"GET http://h/\xe9\x0b HTTP/1.1",
    ] {
        assert_eq!(of(line), Err(400), "{}", line.escape_ascii());
    }
}

#[test]
fn a_higher_minor_version_is_read_as_http_1_1() {
    for minor in 1..10 {
        let parsed =
            head(&format!("POST http://h/ HTTP/1.{minor}\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")).version;
        assert_eq!(parsed, Version::Http11);
    }
    assert_eq!(status("GET http://h/ HTTP/1.2\r\n\r\n"), 400, "Host is as necessary as in 1.1");
    for version in ["2.0", "0.9", "9.9", "2.1"] {
        assert_eq!(status(&format!("GET http://h/ HTTP/{version}\r\nHost: h\r\n\r\n")), 505, "{version}");
    }
    for version in ["1.", "1", "1.10", "01.1", "1.1.1", "1,1", "1.x", "1.\u{b2}", "+1.1", ""] {
        assert_eq!(status(&format!("GET http://h/ HTTP/{version}\r\nHost: h\r\n\r\n")), 400, "{version}");
    }
}

#[test]
fn connect_needs_a_host_and_a_port_and_has_no_body() {
    let parsed = head("CONNECT h:443 HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(parsed.form, Form::Connect(Target::parse("h:443").unwrap()));
    assert_eq!((parsed.kind(), parsed.body), (RequestKind::Connect, Body::None));
    let target = |uri: &str| match head(&format!("CONNECT {uri} HTTP/1.1\r\nHost: {uri}\r\n\r\n")).form {
        Form::Connect(target) => target.to_string(),
        Form::Absolute(_) => unreachable!(),
    };
    assert_eq!(target("[2001:db8::1]:443"), "[2001:db8::1]:443");
    assert_eq!(target("10.0.0.1:22"), "10.0.0.1:22");
    for uri in ["h", "h:", "h:0", "h:99999", "::1:443", "u@h:1", "http://h:1/", "h:1/", "[::1]", ":1", "*", "/"] {
        assert_eq!(status(&format!("CONNECT {uri} HTTP/1.1\r\nHost: h\r\n\r\n")), 400, "{uri}");
    }
    assert_eq!(status("CONNECT h:1 HTTP/1.1\r\nContent-Length: 1\r\n\r\n"), 400);
    assert_eq!(status("CONNECT h:1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    assert_eq!(status("connect h:1 HTTP/1.1\r\nHost: h\r\n\r\n"), 400);
}

#[test]
fn a_request_whose_end_is_ambiguous_is_refused() {
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "X: y\nContent-Length: 5\r\n",
        "X: y\rContent-Length: 5\r\n",
        "X: y\n\n",
        "X: a\0b\r\n",
        "X: a\x7fb\r\n",
        "X\x01: a\r\n",
        ": x\r\n",
        "no colon\r\n",
        "Host: h\r\n",
        "Host: other\r\n",
    ] {
        assert_eq!(status(&post(lines)), 400, "{lines:?}");
    }
    assert_eq!(status(&post("Transfer-Encoding: gzip, chunked\r\n")), 501);
    assert_eq!(status("POST http://h/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
}

#[test]
fn a_request_body_has_a_length_chunks_or_none() {
    assert_eq!(head(&post("Content-Length: 5\r\n")).body, Body::Length(5));
    assert_eq!(head(&post("content-length:0005 \r\n")).body, Body::Length(5));
    assert_eq!(head(&post("Transfer-Encoding: Chunked\r\n")).body, Body::Chunked);
    assert_eq!(head(&post("")).body, Body::None);
}

#[test]
fn a_malformed_request_line_is_refused() {
    for line in [
        "GET  http://h/ HTTP/1.1",
        " GET http://h/ HTTP/1.1",
        "GET http://h/",
        "GET http://h/ HTTP/1.1 ",
        "GET http://h/ HTTP/1.10",
        "GET http://h/ HTTX/1.1",
        "GET http://h/ http/1.1",
        "GET http://h/#x HTTP/1.1",
        "G\u{e9}T http://h/ HTTP/1.1",
        "GET\thttp://h/ HTTP/1.1",
        "GET / HTTP/1.1",
        "SSH-2.0-OpenSSH",
    ] {
        assert_eq!(status(&format!("{line}\r\nHost: h\r\n\r\n")), 400, "{line}");
    }
    assert_eq!(status("PRI * HTTP/2.0\r\n\r\n"), 505);
    assert_eq!(status("GET http://h/ HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status("GET http://h/ HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
    for first in [&b"\x16\x03"[..], b"\x05\x01\x00", b"\x04"] {
        assert_eq!(parse_request(first, HEAD_BYTES_MAX).unwrap_err().status, 400);
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let text = format!("\r\n\r\n{GET}rest");
    assert_eq!(parse(&text).unwrap().unwrap().1, text.len() - 4);
    assert_eq!(status("\n"), 400);
    assert_eq!(status(&"\r\n".repeat(HEAD_BYTES_MAX)), 431);
}

#[test]
fn a_head_that_is_too_long_or_has_too_many_fields_is_refused() {
    let fields = |count: usize| format!("GET http://h/ HTTP/1.1\r\nHost: h\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!(head(&fields(FIELDS_MAX - 1)).fields.iter().count(), FIELDS_MAX);
    assert_eq!(status(&fields(FIELDS_MAX)), 431);
    assert!(parse_request(GET.as_bytes(), GET.len()).unwrap().is_some());
    assert_eq!(parse_request(GET.as_bytes(), GET.len() - 1).unwrap_err().status, 431);
    assert_eq!(parse_request(&GET.as_bytes()[..20], 20).unwrap_err().status, 431);
}

#[test]
fn too_many_options_in_connection_are_refused() {
    // Each field is compared with each option; the names may be as short as one letter.
    let options = |count: usize| post(&format!("Connection: {}\r\n", "a,,".repeat(count)));
    assert!(head(&options(FIELDS_MAX)).keep_alive);
    assert_eq!(status(&options(FIELDS_MAX + 1)), 400);
}

#[test]
fn an_http_1_1_connection_persists_unless_the_client_closes_it() {
    assert!(head(&post("Connection: keep-alive\r\n")).keep_alive);
    assert!(!head(&post("Connection: foo,, Close ,bar\r\n")).keep_alive);
    assert!(!head(&post("Connection: foo\r\nConnection: close\r\n")).keep_alive);
    assert!(!head(&post("Proxy-Connection: close\r\n")).keep_alive);
    assert!(!head("GET http://h/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
}

#[test]
fn credentials_expect_and_max_forwards_are_parsed() {
    let text = post("Proxy-Authorization: Basic am9lOng=\r\nExpect: 100-Continue\r\n");
    let parsed = head(&text);
    assert_eq!(parsed.proxy_authorization, Some("Basic am9lOng="));
    assert!(parsed.expect_continue);
    assert!(!format!("{parsed:?}").contains("am9l"));
    assert_eq!(status(&post("Proxy-Authorization: a\r\nProxy-Authorization: b\r\n")), 400);
    assert_eq!(status(&post("Proxy-Authorization: \u{e9}\r\n")), 400);
    assert!(!head("POST http://h/ HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
    let options = |count: &str| format!("OPTIONS http://h HTTP/1.1\r\nHost: h\r\nMax-Forwards: {count}\r\n\r\n");
    assert_eq!(head(&options("7")).max_forwards, Some(6));
    assert_eq!(status(&options("0")), 501);
    assert_eq!(status(&options("x")), 400);
}

#[test]
fn each_prefix_of_a_head_is_incomplete() {
    let with_all = post("Content-Length: 5\r\nConnection: close\r\nX: \u{e9}\r\n");
    for text in [GET, "\r\nCONNECT h:443 HTTP/1.1\r\n\r\n", &with_all] {
        for len in 0..text.len() {
            assert!(parse_request(&text.as_bytes()[..len], HEAD_BYTES_MAX).unwrap().is_none(), "{len}");
        }
        let pipelined = format!("{text}GET \x00\n");
        assert_eq!(parse(&pipelined), parse(text));
    }
}

proptest! {
    #[test]
    fn any_bytes_return_a_result(
        bytes: Vec<u8>,
        text in "(GET|POST|CONNECT) [ -~]{0,30} HTTP/1.[01]\r\n([ -~\r\n]{0,20}\r\n){0,5}\r\n",
    ) {
        for bytes in [&bytes[..], text.as_bytes()] {
            if let Ok(Some((_, consumed))) = parse_request(bytes, HEAD_BYTES_MAX) {
                prop_assert!(consumed <= bytes.len());
            }
        }
    }
}
