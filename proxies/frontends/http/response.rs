//! The head of an origin server's response (RFC 9110, 9112).
//!
//! [`parse_response`] is given all that was received and not yet consumed; it answers `Ok(None)` while the head is not
//! whole. The same rules hold as for requests: a response that two parsers could end in two places is refused, because
//! the client's next response would be read from it. A refused response is a 502 for the client.
//!
//! This file must never send anything, and never accept a framing field that it does not understand.

use super::head::{self, Asked, Body, Fields, Framing, HeadError, Message, Version};

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead<'a> {
    /// 100 to 599.
    pub status: u16,
    /// The phrase behind it; may be empty.
    pub reason: &'a str,
    /// The server's version.
    pub version: Version,
    /// What follows the head.
    pub body: Body,
    /// Whether the server's connection can carry another request after this response (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// Every field as received.
    pub fields: Fields<'a>,
    /// Content-Length. It may describe a body that is not there, as in a response to HEAD (RFC 9110, section 8.6).
    pub(super) length: Option<u64>,
    /// What the request was.
    pub(super) asked: Asked,
}

impl ResponseHead<'_> {
    /// 1xx except 101: another response to the same request follows (RFC 9110, section 15.2).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && !self.is_switching()
    }

    /// Returns true for a 101: the bytes behind it are of another protocol (RFC 9110, section 15.2.2). The connection to a
    /// server that sends it without a request for it is useless.
    pub fn is_switching(&self) -> bool {
        self.status == 101
    }

    /// Returns true if a 101 names the protocol that follows, and only protocols that were `asked` for (RFC 9110, section
    /// 7.8, demands both). A client that did not ask, and a program in front of it, would read the next bytes as HTTP.
    /// HTTP/1.0 has no such response (section 15.2).
    pub(super) fn switches_to_one_of(&self, asked: &[&[u8]]) -> bool {
        let mut named = self.fields.elements("upgrade").peekable();
        self.version == Version::Http11
            && named.peek().is_some()
            && named.all(|protocol| asked.iter().any(|asked| asked.eq_ignore_ascii_case(protocol)))
    }

    /// Whether a response like this never has a body nor framing fields: 1xx, 204, and 2xx to CONNECT
    /// (RFC 9110, section 8.6; RFC 9112, section 6.1).
    pub(super) fn is_unframed(&self) -> bool {
        matches!(self.status, ..200 | 204) || (self.asked == Asked::Connect && self.status < 300)
    }
}

/// Takes a response head off the front of `bytes`, given what the request was. The answer is the head and how many
/// bytes it took. Heads of more than `head_bytes_max` bytes are refused; the caller must be able to hold that many.
pub fn parse_response(
    bytes: &[u8],
    head_bytes_max: usize,
    asked: Asked,
) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    parse(bytes, head_bytes_max, asked).map_err(|error| HeadError { status: 502, ..error })
}

fn parse(bytes: &[u8], head_bytes_max: usize, asked: Asked) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    // A server of another kind often speaks first, and would be waited for in vain.
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
        asked,
    };
    response.body = response_body(&response, framing);
    response.keep_alive = persists(&response);
    Ok(Some((response, head_len)))
}

/// The status line (RFC 9112, section 4). The second space may be missing where there is no phrase. A phrase that is not
/// ASCII is dropped, because no client may rely on it.
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

/// RFC 9112, section 6.3.
fn response_body(response: &ResponseHead<'_>, framing: Framing) -> Body {
    match framing {
        _ if response.is_unframed() || response.status == 304 || response.asked == Asked::Head => Body::None,
        Framing { chunked: true, .. } => Body::Chunked,
        Framing { length: Some(length), .. } => Body::Length(length),
        Framing { .. } => Body::UntilClose,
    }
}

/// RFC 9112, section 9.3. Here `keep-alive` of HTTP/1.0 is believed: the message is a response.
fn persists(response: &ResponseHead<'_>) -> bool {
    let says = |option: &str| response.fields.has_element("connection", option);
    let by_version = response.version == Version::Http11 || says("keep-alive");
    by_version && !says("close") && response.body != Body::UntilClose && !response.is_switching()
}

const HTTP: &[u8] = b"HTTP/1.";
const BAD_LINE: &str = "the status line cannot be read";

#[cfg(test)]
mod tests;
