//! The parser of response heads of origin servers (RFC 9110, 9112).
//!
//! [`parse_response`] takes all bytes that were received and not consumed, and returns `Ok(None)` while the head is
//! incomplete. As for requests, a response whose end another parser could see elsewhere is refused: its client would take the
//! rest for the next response. The client gets a 502 instead.
//!
//! This file must never accept a framing field that it does not understand.

use super::head::{self, Body, Fields, Framing, HeadError, Message, RequestKind, Version};

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// 100 to 599.
    pub status: u16,
    /// The phrase behind the status; may be empty.
    pub reason: &'a str,
    /// The server's version.
    pub version: Version,
    /// The framing of the body.
    pub body: Body,
    /// True if the server's connection persists after this response (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// All fields as received.
    pub fields: Fields<'a>,
    /// The value of Content-Length. It may describe a body that is not sent, as in a response to HEAD (RFC 9110, section
    /// 8.6).
    pub(super) length: Option<u64>,
    /// The kind of the request.
    pub(super) kind: RequestKind,
}

impl ResponseHead<'_> {
    /// Returns true for 1xx except 101: another response to the same request follows (RFC 9110, section 15.2).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && !self.is_switching()
    }

    /// Returns true for a 101: the bytes behind it belong to another protocol (RFC 9110, section 15.2.2).
    pub fn is_switching(&self) -> bool {
        self.status == 101
    }

    /// Returns true if a 101 names the protocol that follows, and only protocols that the client has requested (RFC 9110,
    /// section 7.8, requires both). Otherwise the client would read the next bytes as HTTP. HTTP/1.0 has no such response
    /// (section 15.2).
    pub(super) fn switches_to_one_of(&self, requested: &[&[u8]]) -> bool {
        let mut named = self.fields.elements("upgrade").peekable();
        self.version == Version::Http11
            && named.peek().is_some()
            && named.all(|protocol| requested.iter().any(|requested| requested.eq_ignore_ascii_case(protocol)))
    }

    /// Returns true for responses that never have a body or framing fields: 1xx, 204, and 2xx to CONNECT (RFC 9110, section
    /// 8.6; RFC 9112, section 6.1).
    pub(super) fn is_unframed(&self) -> bool {
        matches!(self.status, ..200 | 204) || (self.kind == RequestKind::Connect && self.status < 300)
    }
}

/// Parses the response head at the start of `bytes` for a request of this kind. Returns the head and the number of consumed
/// bytes. Heads of more than `head_bytes_max` bytes are refused; the caller must be able to hold this many.
pub fn parse_response(
    bytes: &[u8],
    head_bytes_max: usize,
    kind: RequestKind,
) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    parse(bytes, head_bytes_max, kind).map_err(|error| HeadError { status: 502, ..error })
}

fn parse(
    bytes: &[u8],
    head_bytes_max: usize,
    kind: RequestKind,
) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    // Servers of other protocols often send a greeting. It is refused at once, because the rest of a head would never come.
    if !bytes.iter().zip(HTTP).all(|(byte, expected)| byte == expected) {
        return Err(HeadError::bad("the server does not speak HTTP/1"));
    }
    let Some(head_len) = head::head_len(bytes, head_bytes_max)? else { return Ok(None) };
    let head_bytes = bytes.get(..head_len).unwrap_or_default();
    let (line, lines) = head::take_line(head_bytes).ok_or(HeadError::bad(BAD_LINE))?;
    let (version, status, reason) = parse_line(line)?;
    let fields = Fields::parse(lines, Message::Response)?;
    let framing = head::framing(&fields, version)?;
    let mut response = ResponseHead {
        status,
        reason,
        version,
        body: Body::None,
        keep_alive: false,
        fields,
        length: framing.length,
        kind,
    };
    response.body = response_body(&response, framing);
    response.keep_alive = persists(&response);
    Ok(Some((response, head_len)))
}

/// Parses the status line (RFC 9112, section 4). The second space may be missing if there is no phrase. A phrase that is not
/// ASCII is dropped, because clients must not rely on it.
fn parse_line(line: &[u8]) -> Result<(Version, u16, &str), HeadError> {
    let bad = HeadError::bad(BAD_LINE);
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let version = head::version(words.next().unwrap_or_default()).ok_or(bad)??;
    let code = words.next().filter(|code| code.len() == 3 && code.iter().all(u8::is_ascii_digit)).ok_or(bad)?;
    let status = str::from_utf8(code).ok().and_then(|code| code.parse().ok());
    // RFC 9110, section 15: there are five classes of statuses.
    let status = status.filter(|status| (100..600).contains(status)).ok_or(bad)?;
    let reason = words.next().and_then(|reason| str::from_utf8(reason).ok());
    Ok((version, status, reason.filter(|reason| reason.is_ascii()).unwrap_or("")))
}

/// Returns the framing of a response body (RFC 9112, section 6.3).
fn response_body(response: &ResponseHead<'_>, framing: Framing) -> Body {
    match framing {
        _ if response.is_unframed() || response.status == 304 || response.kind == RequestKind::Head => Body::None,
        Framing { chunked: true, .. } => Body::Chunked,
        Framing { length: Some(length), .. } => Body::Length(length),
        Framing { .. } => Body::UntilClose,
    }
}

/// Returns true if the server's connection persists (RFC 9112, section 9.3). `keep-alive` of an HTTP/1.0 server is honoured,
/// unlike that of a client.
fn persists(response: &ResponseHead<'_>) -> bool {
    let says = |option: &str| response.fields.has_element("connection", option);
    let by_version = response.version == Version::Http11 || says("keep-alive");
    by_version && !says("close") && response.body != Body::UntilClose && !response.is_switching()
}

const HTTP: &[u8] = b"HTTP/1.";
const BAD_LINE: &str = "a malformed status line";

#[cfg(test)]
mod tests;
