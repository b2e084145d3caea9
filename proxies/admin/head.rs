//! The head of a request to the admin server: a strict HTTP/1.x request line and its fields (RFC 9112), read from bytes that
//! may still be incomplete.
//!
//! Only what the admin server uses is kept. A field that it uses stands at most once. Everything that two parsers could read
//! in two ways is refused: a line that ends without CR LF, a folded line, space before a colon, a body with a transfer coding,
//! and a target that is not a path.

use std::str;

/// The parts of a request head that the admin server uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The method, as it was sent.
    pub method: String,
    /// The path of the target.
    pub path: String,
    /// The query of the target; empty if there is none.
    pub query: String,
    /// The minor version of HTTP/1.
    pub minor: u8,
    /// The `Host` field.
    pub host: Option<String>,
    /// The `Origin` field.
    pub origin: Option<String>,
    /// The `Sec-Fetch-Site` field.
    pub fetch_site: Option<String>,
    /// The `Sec-Fetch-Mode` field.
    pub fetch_mode: Option<String>,
    /// The `Sec-Fetch-Dest` field.
    pub fetch_dest: Option<String>,
    /// The `Authorization` field.
    pub authorization: Option<String>,
    /// The `Content-Type` field.
    pub content_type: Option<String>,
    /// The bytes of the body.
    pub content_length: usize,
}

/// The refusal of a head: the status code, and the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// The reason for the client.
    pub text: &'static str,
}

impl Head {
    /// Parses the bytes that were received so far. Returns the head and its length, or none if it is not complete.
    ///
    /// # Errors
    /// The request is refused, whatever may follow.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
        check_lines(bytes)?;
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        let len = match request.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => {
                return refused(431, "the head is too long");
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return refused(431, "the head has too many fields"),
            Err(httparse::Error::Version) => return refused(505, "expected HTTP/1.1 or HTTP/1.0"),
            Err(_) => return refused(400, "the head is malformed"),
        };
        if len > HEAD_BYTES_MAX {
            return refused(431, "the head is too long");
        }
        // httparse skips empty lines before the request line.
        if bytes.starts_with(b"\r\n") {
            return refused(400, "expected a request line");
        }
        Head::of(&request).map(|head| Some((head, len)))
    }

    fn of(request: &httparse::Request<'_, '_>) -> Result<Head, Refusal> {
        let target = request.path.unwrap_or_default();
        if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return refused(400, "expected a path as the target");
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut head = Head {
            method: request.method.unwrap_or_default().to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            minor: request.version.unwrap_or(1),
            ..Head::default()
        };
        let mut length = None;
        for field in request.headers.iter() {
            head.take(field.name, field.value, &mut length)?;
        }
        head.content_length = length.map_or(Ok(0), |text: String| length_of(&text))?;
        if head.host.is_none() && head.minor > 0 {
            return refused(400, "expected a Host field");
        }
        Ok(head)
    }

    /// Keeps a field that the server uses.
    fn take(&mut self, name: &str, value: &[u8], length: &mut Option<String>) -> Result<(), Refusal> {
        let place = match name.to_ascii_lowercase().as_str() {
            "host" => &mut self.host,
            "origin" => &mut self.origin,
            "sec-fetch-site" => &mut self.fetch_site,
            "sec-fetch-mode" => &mut self.fetch_mode,
            "sec-fetch-dest" => &mut self.fetch_dest,
            "authorization" => &mut self.authorization,
            "content-type" => &mut self.content_type,
            "content-length" => length,
            "transfer-encoding" => return refused(501, "expected a body with a Content-Length"),
            "expect" => return refused(417, "expected no Expect field"),
            _ => return Ok(()),
        };
        let text = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        match text {
            None => refused(400, "a field has bytes that are not ASCII"),
            Some(_) if place.is_some() => refused(400, "a field stands twice"),
            Some(text) => {
                *place = Some(text.trim_matches(' ').to_owned());
                Ok(())
            }
        }
    }
}

/// Refuses a line that ends with LF alone, a CR that ends no line, and a NUL.
fn check_lines(bytes: &[u8]) -> Result<(), Refusal> {
    let head = &bytes[..bytes.windows(4).position(|it| it == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4)];
    let mut before = 0;
    for byte in head {
        if *byte == 0 || (*byte == b'\n') != (before == b'\r') {
            return refused(400, "expected lines that end with CR LF");
        }
        before = *byte;
    }
    Ok(())
}

fn length_of(text: &str) -> Result<usize, Refusal> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<usize>() {
        _ if !is_number => refused(400, "expected a number as Content-Length"),
        Ok(length) if length <= BODY_BYTES_MAX => Ok(length),
        _ => refused(413, "the body is too long"),
    }
}

fn refused<T>(status: u16, text: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status, text })
}

/// Bytes of a head.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Fields of a head.
pub const FIELDS_MAX: usize = 64;
/// Bytes of a body.
pub const BODY_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(Head, usize)>, u16> {
        Head::parse(text.as_bytes()).map_err(|refusal| refusal.status)
    }

    #[test]
    fn a_head_has_the_fields_that_the_server_uses() {
        let text = "GET /status?connections=no HTTP/1.1\r\nhOST:  127.0.0.1:9090 \r\nUser-Agent: curl\r\nOrigin: null\r\n\r\nrest";
        let (head, len) = parse(text).unwrap().unwrap();
        assert_eq!(&text[len..], "rest");
        assert_eq!((head.path.as_str(), head.query.as_str(), head.minor), ("/status", "connections=no", 1));
        assert_eq!((head.host.as_deref(), head.origin.as_deref()), (Some("127.0.0.1:9090"), Some("null")));
        let (head, _) = parse("POST /reload HTTP/1.0\r\nContent-Length: 12\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.method.as_str(), head.content_length, head.host), ("POST", 12, None));
    }

    #[test]
    fn every_prefix_of_a_head_is_incomplete() {
        let text = "POST /close HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n";
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), Ok(None), "{:?}", &text[..len]);
        }
        assert!(parse(text).unwrap().is_some());
    }

    #[test]
    fn a_head_that_two_parsers_could_read_in_two_ways_is_refused() {
        for (text, status) in [
            ("GET /status HTTP/1.1\nHost: a\n\n", 400),
            ("GET /status HTTP/1.1\r\nHost: a\n\r\n\r\n", 400),
            ("GET /status HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
            ("\r\nGET /status HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /status HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET /status HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
            ("GET /status HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400),
            ("GET /status HTTP/1.1\r\n\r\n", 400),
            ("GET http://localhost/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /status HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", 400),
            ("GET /status HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413),
            ("POST /close HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
            ("POST /close HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 417),
        ] {
            assert_eq!(parse(text).map(|_| ()), Err(status), "{text:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit() {
        let text = format!("GET /status HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(&text), Err(431));
        let fields = "X: y\r\n".repeat(FIELDS_MAX + 1);
        assert_eq!(parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), Err(431));
    }
}
