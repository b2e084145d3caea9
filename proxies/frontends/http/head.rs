//! What the heads of HTTP/1.x requests and responses have in common: their end, their fields, and how long the body is.
//!
//! Two programs that disagree on where a message ends can be played against each other (request smuggling), so
//! everything on which they might disagree is refused rather than repaired: line ends that are not CRLF, folded lines,
//! control characters, two lengths. The only repair is the one that RFC 9112, section 5.1, demands of a proxy: white
//! space before the colon of a response field is removed.
//!
//! It owns nothing, and must never accept a head that a second reading, by stricter or laxer rules, would frame
//! differently. `fuzz/oracles/heads.rs` compares it with the crate `httparse`.

use std::fmt;

/// The longest request head unless told otherwise, in bytes, with its final empty line.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most fields that a request head may have.
pub const FIELDS_MAX: usize = 100;

/// The longest response head, in bytes, with its final empty line.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// The most fields that a response head may have.
pub const RESPONSE_FIELDS_MAX: usize = 256;

/// A version of HTTP (RFC 9112, section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks, no interim responses, no connection that persists.
    Http10,
    /// HTTP/1.1, or a higher minor version: RFC 9110, section 2.5, has a recipient process a message of a higher minor
    /// version as one of the highest minor version that it knows.
    Http11,
}

/// How the body that follows a head is framed (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks; see [`super::chunked::ChunkedReader`].
    Chunked,
    /// Everything until the server closes. Never in a request.
    UntilClose,
}

/// What a request was, as far as it decides how the response to it is framed (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HEAD: its response has no body, whatever its fields say.
    Head,
    /// CONNECT: a 2xx response to it has no body, and a tunnel follows.
    Connect,
    /// Any other method.
    Other,
}

/// A head that is refused: the status to answer with, and one line for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadError {
    /// 400, 431, 501 or 505 for a request; always 502 for a response.
    pub status: u16,
    /// What is wrong, without a final stop.
    pub text: &'static str,
}

/// The fields of a head in their order. Values have no white space around them.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields<'a>(Vec<(&'a str, &'a [u8])>);

/// What the framing fields of a head say (RFC 9112, sections 6.1 and 6.2): at most one of the two is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    pub length: Option<u64>,
    pub chunked: bool,
}

impl HeadError {
    /// A request that breaks a rule.
    pub(super) const fn bad(text: &'static str) -> HeadError {
        HeadError { status: 400, text }
    }
}

/// The kind of message that a head begins, as far as the rules for its fields differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Request,
    Response,
}

impl Message {
    fn fields_max(self) -> usize {
        match self {
            Message::Request => FIELDS_MAX,
            Message::Response => RESPONSE_FIELDS_MAX,
        }
    }
}

impl<'a> Fields<'a> {
    /// Parses field lines, each with its CRLF, up to the empty line that ends the head (RFC 9112, section 5). The lines
    /// must have passed [`head_len`], which refuses bare line ends, folded lines and control characters.
    pub(super) fn parse(mut lines: &'a [u8], message: Message) -> Result<Fields<'a>, HeadError> {
        let mut fields = Vec::new();
        loop {
            let (line, rest) = take_line(lines).ok_or(HeadError::bad("the head has no end"))?;
            if line.is_empty() {
                break;
            }
            if fields.len() == message.fields_max() {
                return Err(HeadError { status: 431, text: "the head has too many fields" });
            }
            fields.push(parse_field(line, message)?);
            lines = rest;
        }
        let fields = Fields(fields);
        // Each field is compared with each option when the head is forwarded; this bounds the work.
        if fields.elements("connection").nth(message.fields_max()).is_some() {
            return Err(HeadError::bad("more options in Connection than there can be fields"));
        }
        Ok(fields)
    }

    /// Every field, as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().copied()
    }

    /// The values of every field of that name, without regard to case (RFC 9110, section 5.1).
    pub fn named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
    }

    /// The value of a field that must not come twice; `twice` is the error if it does.
    pub(super) fn single(&self, name: &str, twice: &'static str) -> Result<Option<&'a [u8]>, HeadError> {
        let mut values = self.named(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(HeadError::bad(twice)),
            (first, None) => Ok(first),
        }
    }

    /// The elements of every field of that name, which is a list (RFC 9110, section 5.6.1).
    pub(super) fn elements(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.named(name).flat_map(|value| value.split(|byte| *byte == b',')).map(trim).filter(|item| !item.is_empty())
    }

    /// Whether a list field has that element, without regard to case.
    pub(super) fn has_element(&self, name: &str, element: &str) -> bool {
        self.elements(name).any(|item| item.eq_ignore_ascii_case(element.as_bytes()))
    }
}

/// Finds the end of a head that arrives in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadScan {
    previous: u8,
    line_len: usize,
    /// Bytes of the head that were looked at.
    scanned: usize,
}

impl HeadScan {
    /// Scans the next `bytes` of a head. Returns the length of the whole head, with its empty line (RFC 9112, section
    /// 2.1), or `None` while it has not ended. A head of more than `bytes_max` bytes is refused.
    pub fn next(&mut self, bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, HeadError> {
        for &byte in bytes.iter().take(bytes_max.saturating_sub(self.scanned)) {
            self.scanned += 1;
            match (self.previous, byte) {
                (b'\r', b'\n') if self.line_len == 0 => return Ok(Some(self.scanned)),
                (b'\r', b'\n') => self.line_len = 0,
                // RFC 9112, section 2.2: a bare CR is an error, and a bare LF is read as a line end by some, not by
                // others.
                (b'\r', _) => return Err(HeadError::bad("a CR without LF in the head")),
                (_, b'\n') => return Err(HeadError::bad("an LF without CR in the head")),
                (_, b'\r') => {}
                // RFC 9112, sections 2.2 and 5.2: folded lines, and white space before the first field.
                (b'\n', b' ' | b'\t') => return Err(HeadError::bad("a line of the head begins with white space")),
                // RFC 9110, section 5.5.
                (_, byte) if is_control(byte) => return Err(HeadError::bad("a control character in the head")),
                _ => self.line_len += 1,
            }
            self.previous = byte;
        }
        if self.scanned >= bytes_max {
            return Err(HeadError { status: 431, text: "the head is too long" });
        }
        Ok(None)
    }
}

/// The length of the head at the start of `bytes`, with its empty line (RFC 9112, section 2.1). `None` while it has
/// not ended. What is refused is refused at the first byte that shows it, so a client that speaks something else, such
/// as TLS or SOCKS, is told at once.
pub(super) fn head_len(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, HeadError> {
    HeadScan::default().next(bytes, bytes_max)
}

/// The line at the start of `bytes`, without its CRLF, and the bytes behind it. `None` if there is no CRLF.
pub(super) fn take_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = bytes.iter().position(|byte| *byte == b'\r')?;
    Some((bytes.get(..len)?, bytes.get(len..)?.strip_prefix(b"\r\n")?))
}

/// One field line, as name and value without white space around it (RFC 9112, section 5).
fn parse_field(line: &[u8], message: Message) -> Result<(&str, &[u8]), HeadError> {
    let bad = HeadError::bad("a field of the head has a bad name");
    let colon = line.iter().position(|byte| *byte == b':').ok_or(bad)?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    let name = match message {
        // RFC 9112, section 5.1: a request with white space before the colon must be refused, because some parsers
        // take `Content-Length :` for a field of another name.
        Message::Request => name,
        // The same section: a proxy must remove that white space from a response. The head is written anew from what
        // is parsed here, so a client never sees it.
        Message::Response => trim_end(name),
    };
    Ok((token(name).ok_or(bad)?, trim(value)))
}

/// Returns `bytes` as text if it is a token (RFC 9110, section 5.6.2).
pub(super) fn token(bytes: &[u8]) -> Option<&str> {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let text = str::from_utf8(bytes).ok()?;
    (!bytes.is_empty() && bytes.iter().all(is_tchar)).then_some(text)
}

/// The version that a first line names: `HTTP/`, a digit, a dot, a digit (RFC 9112, section 2.3). `None` if it names
/// none.
pub(super) fn version(word: &[u8]) -> Option<Result<Version, HeadError>> {
    match word.strip_prefix(b"HTTP/")? {
        b"1.0" => Some(Ok(Version::Http10)),
        [b'1', b'.', minor] if minor.is_ascii_digit() => Some(Ok(Version::Http11)),
        // RFC 9110, section 15.6.6: this status is only for a message that is HTTP at all.
        [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Some(Err(HeadError { status: 505, text: "only HTTP/1.0 and HTTP/1.1 are spoken here" }))
        }
        _ => None,
    }
}

/// Reads Content-Length and Transfer-Encoding (RFC 9112, section 6). Whatever leaves room for a second opinion on the
/// length of the body is an error, also where the RFC would let a recipient repair it.
pub(super) fn framing(fields: &Fields<'_>, version: Version) -> Result<Framing, HeadError> {
    let length = fields.single("content-length", "more than one Content-Length")?;
    let coding = fields.single("transfer-encoding", "more than one Transfer-Encoding")?;
    let length = length.map(number).transpose()?;
    let Some(coding) = coding else {
        return Ok(Framing { length, chunked: false });
    };
    if length.is_some() {
        return Err(HeadError::bad("both Content-Length and Transfer-Encoding"));
    }
    if version == Version::Http10 {
        return Err(HeadError::bad("Transfer-Encoding in HTTP/1.0"));
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing { length: None, chunked: true });
    }
    // RFC 9112, section 6.3, item 4: without a final `chunked` the length is unknown; with it only the coding is.
    match coding.rsplit(|byte| *byte == b',').next() {
        Some(last) if trim(last).eq_ignore_ascii_case(b"chunked") => {
            Err(HeadError { status: 501, text: "a Transfer-Encoding other than chunked" })
        }
        _ => Err(HeadError::bad("a Transfer-Encoding that does not end in chunked")),
    }
}

/// 1*DIGIT that fits into 64 bits (RFC 9110, section 8.6): no sign, no list, no white space inside.
pub(super) fn number(value: &[u8]) -> Result<u64, HeadError> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(HeadError::bad("a number in the head that is not one of 64 bits"))
}

/// Without optional white space on both ends (RFC 9110, section 5.6.3), which is less than what `trim_ascii` takes.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Removes optional white space from the end of a field name.
fn trim_end(mut name: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = name {
        name = rest;
    }
    name
}

/// Control characters, except the tab, which is white space (RFC 9110, section 5.5).
pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// The names only: values hold passwords and cookies.
impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|field| field.0)).finish()
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl std::error::Error for HeadError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>(list: &[(&'a str, &'a [u8])]) -> Fields<'a> {
        Fields(list.iter().map(|&(name, value)| (name, trim(value))).collect())
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(head_len(b"a\r\nb: c\r\n\r\nrest", 100), Ok(Some(11)));
        for len in 0..11 {
            assert_eq!(head_len(&b"a\r\nb: c\r\n\r\n"[..len], 100), Ok(None));
        }
    }

    #[test]
    fn what_is_no_line_is_refused_at_once() {
        for bytes in [&b"a\n"[..], b"a\r\r", b"a\rb", b"a\r\n b", b"a\r\n\tb", b"a\0", b"a\x7f", b"\x16\x03\x01", b"\n"]
        {
            assert_eq!(head_len(bytes, 100).unwrap_err().status, 400, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_head_has_a_limit() {
        assert_eq!(head_len(b"a\r\n\r\n", 5), Ok(Some(5)));
        assert_eq!(head_len(b"a\r\n\r\n", 4).unwrap_err().status, 431);
        assert_eq!(head_len(b"abcd", 4).unwrap_err().status, 431);
        assert_eq!(head_len(b"abc", 4), Ok(None));
    }

    #[test]
    fn lengths_are_digits() {
        assert_eq!(number(b"0"), Ok(0));
        assert_eq!(number(b"18446744073709551615"), Ok(u64::MAX));
        for value in [&b""[..], b"+1", b"-1", b"1 1", b"1,1", b"0x1", b"18446744073709551616", b"1_0", b"\xb2"] {
            assert!(number(value).is_err());
        }
    }

    #[test]
    fn two_opinions_on_the_length_are_refused() {
        let (cl, te): (_, (&str, &[u8])) = (("content-length", &b"5"[..]), ("Transfer-Encoding", b"chunked"));
        for (list, status) in [
            (&[cl, cl][..], 400),
            (&[cl, te], 400),
            (&[te, te], 400),
            (&[("transfer-encoding", b"gzip, chunked")], 501),
            (&[("transfer-encoding", b"chunked, identity")], 400),
            (&[("transfer-encoding", b"xchunked")], 400),
            (&[("transfer-encoding", b"")], 400),
        ] {
            assert_eq!(framing(&fields(list), Version::Http11).unwrap_err().status, status, "{list:?}");
        }
        assert_eq!(framing(&fields(&[te]), Version::Http10).unwrap_err().status, 400);
        let chunked = fields(&[("TRANSFER-ENCODING", b"\tChunked ")]);
        assert_eq!(framing(&chunked, Version::Http11), Ok(Framing { length: None, chunked: true }));
        assert_eq!(framing(&fields(&[cl]), Version::Http10), Ok(Framing { length: Some(5), chunked: false }));
    }
}
