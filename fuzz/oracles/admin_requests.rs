//! The properties of the heads of requests to the admin server.

use super::admin::head::{BODY_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX, Head};
use super::check_prefixes;

/// An accepted head says the same to the simplest reader: lines that end with CR LF, a name up to the first colon, no field
/// twice that the server uses. So no program between a client and the server reads it in another way.
pub fn admin_request(data: &[u8]) {
    // A reader may refuse a head for one reason earlier, and for another one later.
    check_prefixes(data, |bytes| Head::parse(bytes).map_err(drop), |_| false);
    let Ok(Some((head, len))) = Head::parse(data) else { return };
    assert!(len <= HEAD_BYTES_MAX && head.content_length <= BODY_BYTES_MAX);
    let text = &data[..len];
    assert_eq!(
        text.windows(4).position(|it| it == b"\r\n\r\n"),
        Some(len - 4),
        "the head ends at the first empty line"
    );
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), text.windows(2).filter(|it| it == b"\r\n").count());
    assert_eq!(text.iter().filter(|byte| **byte == b'\r').count(), text.windows(2).filter(|it| it == b"\r\n").count());
    let mut lines = text[..len - 4].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    check_request_line(&head, lines.next().expect("a request line"));
    let fields: Vec<(String, &[u8])> = lines.map(field).collect();
    assert!(fields.len() <= FIELDS_MAX);
    for (name, value) in [
        ("host", &head.host),
        ("origin", &head.origin),
        ("sec-fetch-site", &head.fetch_site),
        ("sec-fetch-mode", &head.fetch_mode),
        ("sec-fetch-dest", &head.fetch_dest),
        ("authorization", &head.authorization),
        ("content-type", &head.content_type),
    ] {
        assert_eq!(only(&fields, name), value.as_deref().map(str::as_bytes), "{name}");
    }
    let length = only(&fields, "content-length").map(|value| std::str::from_utf8(value).expect("digits").parse());
    assert_eq!(length.unwrap_or(Ok(0)), Ok(head.content_length));
    assert!(only(&fields, "transfer-encoding").is_none() && only(&fields, "expect").is_none());
    assert!(head.host.is_some() || head.minor == 0);
}

fn check_request_line(head: &Head, line: &[u8]) {
    let question = if head.query.is_empty() { "" } else { "?" };
    let Head { method, path, query, minor, .. } = head;
    let expected = format!("{method} {path}{question}{query} HTTP/1.{minor}");
    // A question mark without a query says nothing.
    let bare = format!("{method} {path}? HTTP/1.{minor}");
    assert!(line == expected.as_bytes() || query.is_empty() && line == bare.as_bytes(), "{}", line.escape_ascii());
    assert!(path.starts_with('/') && !path.contains('?') && *minor <= 1);
    assert!(expected.bytes().filter(|byte| *byte == b' ').count() == 2 && !expected.contains('#'));
}

/// Splits a line at its first colon.
fn field(line: &[u8]) -> (String, &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    assert!(!name.is_empty() && name.iter().all(u8::is_ascii_graphic), "{}", line.escape_ascii());
    (String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii())
}

/// Returns the value of a field that stands at most once.
fn only<'a>(fields: &[(String, &'a [u8])], name: &str) -> Option<&'a [u8]> {
    let mut values = fields.iter().filter(|(it, _)| it == name).map(|(_, value)| *value);
    let value = values.next();
    assert!(values.next().is_none(), "{name} stands twice");
    value
}
