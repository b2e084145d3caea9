//! The parser of request heads for an HTTP proxy (RFC 9110, 9112): CONNECT, or an absolute `http://` URI.
//!
//! [`parse_request`] takes all bytes that were received and not consumed, and returns `Ok(None)` while the head is
//! incomplete. The returned head borrows from these bytes, so the handler rewrites it in the same call and keeps only numbers
//! and the target. After a [`HeadError`] the connection is closed, because the start of the next request is unknown.
//!
//! This file must never resolve a name, and never accept a request whose end another parser could see elsewhere.

use std::borrow::Cow;
use std::fmt;

use seaprox::Target;

use super::head::{self, Body, Fields, Framing, HeadError, Message, RequestKind, Version};

/// The head of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method as sent; methods are case-sensitive (RFC 9110, section 9.1).
    pub method: &'a str,
    /// The request target.
    pub form: Form<'a>,
    /// The client's version.
    pub version: Version,
    /// True if the client's connection persists after the response (RFC 9112, section 9.3). The connection of an HTTP/1.0
    /// client never persists: its `keep-alive` may have been passed on by an earlier proxy by mistake.
    pub keep_alive: bool,
    /// The framing of the body. Never [`Body::UntilClose`], and always [`Body::None`] for CONNECT.
    pub body: Body,
    /// The value of Proxy-Authorization, such as `Basic am9lOg==`. It is a secret.
    pub proxy_authorization: Option<&'a str>,
    /// True if the client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1).
    pub expect_continue: bool,
    /// All fields as received.
    pub fields: Fields<'a>,
    /// The number of proxies that OPTIONS or TRACE may pass after this one (RFC 9110, section 7.6.2).
    pub(super) max_forwards: Option<u64>,
}

/// The forms of a request target for a proxy (RFC 9112, section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// authority-form: the target of a tunnel.
    Connect(Target),
    /// absolute-form: the URI of a request to be forwarded.
    Absolute(Absolute<'a>),
}

/// The parts of an absolute `http://` URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absolute<'a> {
    /// The origin server.
    pub target: Target,
    /// Host and port as written, for the Host field; without user information. An address may have a zone.
    pub authority: &'a str,
    /// The request target for the origin server: origin-form, or `*` (RFC 9112, section 3.2.4). It may hold bytes from
    /// 0x80 on, as the client sent them.
    pub path: Cow<'a, [u8]>,
}

/// The properties of the client on which its response depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The version of its request.
    pub version: Version,
    /// True if its connection may be kept after the response.
    pub keep_alive: bool,
}

impl RequestHead<'_> {
    /// Returns the kind of the request, on which the framing of the response depends.
    pub fn kind(&self) -> RequestKind {
        match self.method {
            "HEAD" => RequestKind::Head,
            "CONNECT" => RequestKind::Connect,
            _ => RequestKind::Other,
        }
    }

    /// Returns true if the client asks to switch to another protocol (RFC 9110, section 7.8). Upgrade is ignored in HTTP/1.0,
    /// which does not define it, and in a request with a body, as a proxy may do.
    pub fn asks_upgrade(&self) -> bool {
        let is_asked =
            self.fields.has_element("connection", "upgrade") && self.fields.named("upgrade").next().is_some();
        self.version == Version::Http11 && is_asked && matches!(self.body, Body::None | Body::Length(0))
    }

    /// Returns the properties of the client on which the response depends.
    pub fn client(&self) -> Client {
        Client { version: self.version, keep_alive: self.keep_alive }
    }
}

/// Parses the request head at the start of `bytes`, after empty lines (RFC 9112, section 2.2). Returns the head and the
/// number of consumed bytes. Heads of more than `head_bytes_max` bytes are refused; the caller must be able to hold this
/// many.
pub fn parse_request(bytes: &[u8], head_bytes_max: usize) -> Result<Option<(RequestHead<'_>, usize)>, HeadError> {
    let (empty_len, rest) = skip_empty_lines(bytes);
    let Some(head_len) = head::head_len(rest, head_bytes_max.saturating_sub(empty_len))? else { return Ok(None) };
    let head_bytes = rest.get(..head_len).unwrap_or_default();
    let (line, lines) = head::take_line(head_bytes).ok_or(HeadError::bad(BAD_LINE))?;
    let line = parse_line(line)?;
    let request = check(&line, Fields::parse(lines, Message::Request)?)?;
    Ok(Some((request, empty_len + head_len)))
}

/// The request line (RFC 9112, section 3).
struct Line<'a> {
    method: &'a str,
    target: &'a [u8],
    version: Version,
}

/// Parses three words separated by single spaces. Other white space is not a separator, although RFC 9112, section 3, permits
/// it: two parsers could then see two targets.
fn parse_line(line: &[u8]) -> Result<Line<'_>, HeadError> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(HeadError::bad(BAD_LINE));
    };
    let version = head::version(version).ok_or(HeadError::bad(BAD_LINE))??;
    let method = head::token(method).ok_or(HeadError::bad(BAD_LINE))?;
    // RFC 3986, section 2: a URI is visible ASCII. RFC 9112, section 3.2: without a fragment. Bytes from 0x80 on are not
    // permitted in a URI, but clients send file names with them, and servers accept them. They are passed on unchanged: RFC
    // 9112, section 3.2, warns of correcting a target, because this could bypass filters behind the proxy.
    let is_taken = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#' || !byte.is_ascii();
    if target.is_empty() || !target.iter().all(is_taken) {
        return Err(HeadError::bad("the request target has a character that is not allowed in a URI"));
    }
    Ok(Line { method, target, version })
}

/// Checks the fields, and returns the head.
fn check<'a>(line: &Line<'a>, fields: Fields<'a>) -> Result<RequestHead<'a>, HeadError> {
    let &Line { method, target, version } = line;
    let framing = head::framing(&fields, version)?;
    let (form, body) = match method {
        "CONNECT" => (Form::Connect(parse_authority_form(target)?), connect_body(framing)?),
        _ => (Form::Absolute(parse_absolute(method, target)?), request_body(framing)),
    };
    check_host(&fields, version, &form)?;
    let authorization = fields.single("proxy-authorization", "more than one Proxy-Authorization")?;
    let as_ascii = |value| ascii_text(value).ok_or(HeadError::bad("a Proxy-Authorization that is not ASCII"));
    let closes = |name: &str| fields.has_element(name, "close");
    Ok(RequestHead {
        method,
        form,
        version,
        // Proxy-Connection was never specified, but a client that sends `close` in it wants a close (RFC 9112, appendix
        // C.2.2).
        keep_alive: version == Version::Http11 && !closes("connection") && !closes("proxy-connection"),
        body,
        proxy_authorization: authorization.map(as_ascii).transpose()?,
        // RFC 9110, section 10.1.1: ignored in HTTP/1.0.
        expect_continue: version == Version::Http11 && fields.has_element("expect", "100-continue"),
        max_forwards: max_forwards(method, &fields)?,
        fields,
    })
}

/// Returns the length of the empty lines at the start, and the bytes behind them.
pub(super) fn skip_empty_lines(bytes: &[u8]) -> (usize, &[u8]) {
    let mut rest = bytes;
    while let [b'\r', b'\n', behind @ ..] = rest {
        rest = behind;
    }
    (bytes.len() - rest.len(), rest)
}

/// Returns the framing of a request body (RFC 9112, section 6.3, items 4 to 7).
fn request_body(framing: Framing) -> Body {
    match framing {
        Framing { chunked: true, .. } => Body::Chunked,
        Framing { length: Some(length), .. } => Body::Length(length),
        Framing { .. } => Body::None,
    }
}

/// Checks that CONNECT has no content: the bytes behind its head belong to the tunnel (RFC 9110, section 9.3.6). A length of
/// 0, which some clients send, is accepted.
fn connect_body(framing: Framing) -> Result<Body, HeadError> {
    if framing.chunked || framing.length.is_some_and(|length| length > 0) {
        return Err(HeadError::bad("CONNECT with a body"));
    }
    Ok(Body::None)
}

/// Checks the Host field: HTTP/1.1 requires exactly one (RFC 9112, section 3.2). The proxy does not use it (section 3.2.2),
/// but two Host fields or a malformed one are the sign of an attack. CONNECT without Host is common and accepted, because its
/// head is not forwarded.
fn check_host(fields: &Fields<'_>, version: Version, form: &Form<'_>) -> Result<(), HeadError> {
    let host = fields.single("host", "more than one Host")?;
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(byte);
    match (host, form) {
        (Some(host), _) if !host.iter().all(is_allowed) => Err(HeadError::bad("a malformed Host")),
        (None, Form::Absolute(_)) if version == Version::Http11 => Err(HeadError::bad("no Host")),
        _ => Ok(()),
    }
}

/// Parses Max-Forwards (RFC 9110, section 7.6.2) and counts this proxy. A request with 0 is for the proxy itself, which has
/// no answer to it.
fn max_forwards(method: &str, fields: &Fields<'_>) -> Result<Option<u64>, HeadError> {
    if !matches!(method, "OPTIONS" | "TRACE") {
        return Ok(None);
    }
    let value = fields.single("max-forwards", "more than one Max-Forwards")?;
    match value.map(head::number).transpose()? {
        Some(0) => Err(HeadError { status: 501, text: "a request to the proxy itself (Max-Forwards is 0)" }),
        Some(count) => Ok(Some(count - 1)),
        None => Ok(None),
    }
}

/// Parses `host:port`; the port is required (RFC 9110, section 9.3.6).
fn parse_authority_form(uri: &[u8]) -> Result<Target, HeadError> {
    let bad = HeadError::bad("CONNECT needs HOST:PORT");
    match split_port(ascii_text(uri).ok_or(bad)?) {
        Some((host, Some(port))) => target(host, port).ok_or(bad),
        _ => Err(bad),
    }
}

/// Parses an absolute URI (RFC 9112, section 3.2.2, and RFC 3986, sections 3 and 4.3). Only path and query may contain bytes
/// from 0x80 on.
fn parse_absolute<'a>(method: &str, uri: &'a [u8]) -> Result<Absolute<'a>, HeadError> {
    let for_proxies = HeadError::bad("this is a proxy: it needs an absolute http:// URI, or CONNECT");
    let separator = uri.windows(3).position(|three| three == b"://").ok_or(for_proxies)?;
    let (scheme, rest) = (uri.get(..separator).unwrap_or_default(), uri.get(separator + 3..).unwrap_or_default());
    if !is_scheme(scheme) {
        return Err(for_proxies);
    }
    if !scheme.eq_ignore_ascii_case(b"http") {
        return Err(HeadError { status: 501, text: "only http:// URIs are forwarded; use CONNECT for others" });
    }
    let path_at = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(path_at).unwrap_or_default();
    let bad = HeadError::bad("the URI has no usable host and port");
    let authority = without_user(ascii_text(authority).ok_or(bad)?)?;
    let (host, port) = split_port(authority).ok_or(bad)?;
    // RFC 3986, section 3.2.3: the port behind the colon may be empty.
    let target = target(host, port.filter(|port| !port.is_empty()).unwrap_or("80")).ok_or(bad)?;
    let path = match path {
        // RFC 9112, section 3.2.4.
        b"" if method == "OPTIONS" => b"*".into(),
        b"" => b"/".into(),
        [b'?', ..] => [b"/", path].concat().into(),
        path => path.into(),
    };
    Ok(Absolute { target, authority: authority.strip_suffix(':').unwrap_or(authority), path })
}

/// Returns the host and port of a refused request as received, for the log: never the path, the query or the user
/// information, which may contain secrets.
///
/// A password may contain the bytes that end a host. So nothing is returned if an `@` follows such a byte, or if the line is
/// incomplete and an `@` could follow.
pub fn asked(input: &[u8]) -> Option<String> {
    let (_, input) = skip_empty_lines(input);
    let (line, _) = head::take_line(input)?;
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().filter(|method| !method.is_empty() && method.iter().all(u8::is_ascii_alphabetic))?;
    if line.contains(&b'\n') || !words.next_back()?.starts_with(b"HTTP/") {
        return None;
    }
    let uri = line.get(method.len() + 1..)?;
    let word_len = uri.iter().position(|byte| *byte == b' ').unwrap_or(uri.len());
    let scheme_end = uri.get(..word_len)?.windows(3).position(|three| three == b"://");
    let rest = scheme_end.and_then(|at| uri.get(at + 3..)).unwrap_or(uri);
    let cut = rest.iter().position(|byte| matches!(byte, b' ' | b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, behind) = rest.split_at_checked(cut)?;
    let host = authority.rsplit(|byte| *byte == b'@').next()?;
    // Some programs escape the `@` as `%40`.
    if behind.contains(&b'@') || authority.windows(3).any(|three| three == b"%40") {
        return None;
    }
    let host = host.get(..ASKED_BYTES_MAX).unwrap_or(host);
    let text = str::from_utf8(host).map_or_else(|_| host.escape_ascii().to_string(), str::to_owned);
    (!text.is_empty()).then_some(text)
}

/// Bytes of host and port that are logged: a name of 255 bytes, a colon, a port.
const ASKED_BYTES_MAX: usize = 261;

/// Removes the user information from an authority (RFC 3986, section 3.2.1). Senders must not send it to the origin server
/// (RFC 9110, section 4.2.4); a client that logs in sends Authorization as well.
///
/// User information outside of the grammar of RFC 3986, for example with a second `@` or a backslash, is refused, because two
/// parsers could see two hosts.
fn without_user(authority: &str) -> Result<&str, HeadError> {
    let Some((user, host)) = authority.split_once('@') else { return Ok(authority) };
    let mut rest = user.as_bytes();
    loop {
        rest = match rest {
            [] if !host.contains('@') => return Ok(host),
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:".contains(byte) => rest,
            _ => return Err(HeadError::bad("malformed user information in the URI")),
        };
    }
}

/// Returns true if the text is a scheme (RFC 3986, section 3.1).
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// Splits an authority into the host, with its brackets, and the port behind the colon (RFC 3986, section 3.2).
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    let host_len = match authority.starts_with('[') {
        true => authority.find(']')? + 1,
        false => authority.find(':').unwrap_or(authority.len()),
    };
    match authority.split_at(host_len) {
        (host, "") => Some((host, None)),
        (host, behind) => Some((host, Some(behind.strip_prefix(':')?))),
    }
}

fn target(host: &str, port: &str) -> Option<Target> {
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port > 0)?;
    // A URI escapes the `%` before the zone of an address as `%25` (RFC 6874, section 2).
    let host = if host.starts_with('[') { host.replacen("%25", "%", 1) } else { host.to_owned() };
    Target::from_host(&host, port).ok()
}

fn ascii_text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok().filter(|text| text.is_ascii())
}

/// Shows no values of fields, because they contain secrets.
impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("RequestHead");
        debug.field("method", &self.method).field("form", &self.form).field("version", &self.version);
        debug.field("keep_alive", &self.keep_alive).field("body", &self.body).field("fields", &self.fields);
        debug.finish_non_exhaustive()
    }
}

const BAD_LINE: &str = "a malformed request line";

#[cfg(test)]
mod tests;
