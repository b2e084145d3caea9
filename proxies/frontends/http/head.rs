//! The common parts of HTTP/1.x request and response heads: their end, their fields, and the framing of the body.
//!
//! If two programs disagree on the end of a message, an attacker can hide a request in it (request smuggling). So a head that
//! could be read in two ways is refused rather than repaired: line ends that are not CRLF, folded lines, control characters,
//! two lengths. The only repair is the one that RFC 9112, section 5.1, requires of a proxy: white space before the colon of a
//! response field is removed.
//!
//! This file must never accept a head that a stricter or a laxer parser would frame differently. `fuzz/oracles/heads.rs`
//! compares it with the crate `httparse`.

use std::fmt;

/// The longest request head, in bytes, with its final empty line.
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
    /// HTTP/1.0: no chunks, no interim responses, no persistent connections.
    Http10,
    /// HTTP/1.1, or a higher minor version: a recipient processes it as the highest minor version that it knows (RFC 9110,
    /// section 2.5).
    Http11,
}

/// The framing of the body that follows a head (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// A body with this number of bytes.
    Length(u64),
    /// A chunked body; see [`super::chunked::ChunkedReader`].
    Chunked,
    /// A body that ends when the server closes its direction. Only in responses.
    UntilClose,
}

/// The kind of a request, as far as the framing of its response depends on it (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// HEAD: the response has no body, regardless of its fields.
    Head,
    /// CONNECT: a 2xx response has no body, and a tunnel follows.
    Connect,
    /// Any other method.
    Other,
}

/// The error of a head that is refused: the status of the answer, and its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadError {
    /// 400, 431, 501 or 505 for a request; always 502 for a response.
    pub status: u16,
    /// The description of the error, without a full stop.
    pub text: &'static str,
}

/// The fields of a head, in their order. The values have no white space around them.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields<'a>(Vec<(&'a str, &'a [u8])>);

/// The framing fields of a head (RFC 9112, sections 6.1 and 6.2). At most one of the two is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    pub length: Option<u64>,
    pub chunked: bool,
}

impl HeadError {
    /// Returns the error with status 400 for a head that breaks a rule.
    pub(super) const fn bad(text: &'static str) -> HeadError {
        HeadError { status: 400, text }
    }
}

/// The kind of a message, because the rules for fields differ between requests and responses.
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

    /// Returns all fields, as name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().copied()
    }

    /// Returns the values of all fields with this name, which is compared without case (RFC 9110, section 5.1).
    pub fn named(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1)
    }

    /// Returns the value of a field that must not be repeated; `twice` is the error if it is.
    pub(super) fn single(&self, name: &str, twice: &'static str) -> Result<Option<&'a [u8]>, HeadError> {
        let mut values = self.named(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(HeadError::bad(twice)),
            (first, None) => Ok(first),
        }
    }

    /// Returns the elements of all list fields with this name (RFC 9110, section 5.6.1).
    pub(super) fn elements(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.named(name).flat_map(|value| value.split(|byte| *byte == b',')).map(trim).filter(|item| !item.is_empty())
    }

    /// Returns true if a list field has this element, which is compared without case.
    pub(super) fn has_element(&self, name: &str, element: &str) -> bool {
        self.elements(name).any(|item| item.eq_ignore_ascii_case(element.as_bytes()))
    }
}

/// Finds the end of a head that arrives in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadScan {
    previous: u8,
    line_len: usize,
    /// Bytes of the head that are scanned.
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
                // RFC 9112, section 2.2: a bare CR is an error, and parsers differ on a bare LF.
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

/// Returns the length of the head at the start of `bytes`, with its empty line (RFC 9112, section 2.1), or `None` while it
/// has not ended. An error is found at its first byte, so a client with another protocol, such as TLS or SOCKS, is refused at
/// once.
pub(super) fn head_len(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, HeadError> {
    HeadScan::default().next(bytes, bytes_max)
}

/// Returns the line at the start of `bytes`, without its CRLF, and the bytes behind it. Returns `None` if there is no CRLF.
pub(super) fn take_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = bytes.iter().position(|byte| *byte == b'\r')?;
    Some((bytes.get(..len)?, bytes.get(len..)?.strip_prefix(b"\r\n")?))
}

/// Parses a field line. Returns its name, and its value without white space around it (RFC 9112, section 5).
fn parse_field(line: &[u8], message: Message) -> Result<(&str, &[u8]), HeadError> {
    let bad = HeadError::bad("a field of the head has a bad name");
    let colon = line.iter().position(|byte| *byte == b':').ok_or(bad)?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    let name = match message {
        // RFC 9112, section 5.1: a request with white space before the colon must be refused, because some parsers read
        // `Content-Length :` as a field with another name.
        Message::Request => name,
        // RFC 9112, section 5.1: a proxy must remove this white space from a response. The forwarded head is written from
        // the parsed fields, so the client does not get it.
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

/// Parses the version of a first line: `HTTP/`, a digit, a dot, a digit (RFC 9112, section 2.3). Returns `None` if the word
/// is no version.
pub(super) fn version(word: &[u8]) -> Option<Result<Version, HeadError>> {
    match word.strip_prefix(b"HTTP/")? {
        b"1.0" => Some(Ok(Version::Http10)),
        [b'1', b'.', minor] if minor.is_ascii_digit() => Some(Ok(Version::Http11)),
        // RFC 9110, section 15.6.6: 505 is for messages of another major version of HTTP.
        [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Some(Err(HeadError { status: 505, text: "only HTTP/1.0 and HTTP/1.1 are supported" }))
        }
        _ => None,
    }
}

/// Parses Content-Length and Transfer-Encoding (RFC 9112, section 6). Fields that two parsers could understand as different
/// lengths are an error, even if the RFC permits a recipient to repair them.
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
    // RFC 9112, section 6.3, item 4: the length is unknown without a final `chunked`. With it, only the coding is unknown.
    match coding.rsplit(|byte| *byte == b',').next() {
        Some(last) if trim(last).eq_ignore_ascii_case(b"chunked") => {
            Err(HeadError { status: 501, text: "a Transfer-Encoding other than chunked" })
        }
        _ => Err(HeadError::bad("a Transfer-Encoding that does not end in chunked")),
    }
}

/// Parses 1*DIGIT that fits into 64 bits (RFC 9110, section 8.6): no sign, no list, no white space.
pub(super) fn number(value: &[u8]) -> Result<u64, HeadError> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(HeadError::bad("a number in the head is not 1*DIGIT within 64 bits"))
}

/// Removes optional white space (RFC 9110, section 5.6.3) from both ends. `trim_ascii` would remove line ends, too.
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

/// Returns true for control characters other than the tab, which is white space (RFC 9110, section 5.5).
pub(super) fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// Shows the names only, because values contain passwords and cookies.
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
    fn a_malformed_line_is_refused_at_its_first_wrong_byte() {
        for bytes in [&b"a\n"[..], b"a\r\r", b"a\rb", b"a\r\n b", b"a\r\n\tb", b"a\0", b"a\x7f", b"\x16\x03\x01", b"\n"]
        {
            assert_eq!(head_len(bytes, 100).unwrap_err().status, 400, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_head_that_is_too_long_is_refused() {
        assert_eq!(head_len(b"a\r\n\r\n", 5), Ok(Some(5)));
        assert_eq!(head_len(b"a\r\n\r\n", 4).unwrap_err().status, 431);
        assert_eq!(head_len(b"abcd", 4).unwrap_err().status, 431);
        assert_eq!(head_len(b"abc", 4), Ok(None));
    }

    #[test]
    fn a_number_has_only_digits_and_fits_into_64_bits() {
        assert_eq!(number(b"0"), Ok(0));
        assert_eq!(number(b"18446744073709551615"), Ok(u64::MAX));
        for value in [&b""[..], b"+1", b"-1", b"1 1", b"1,1", b"0x1", b"18446744073709551616", b"1_0", b"\xb2"] {
            assert!(number(value).is_err());
        }
    }

    #[test]
    fn fields_that_could_mean_two_lengths_are_refused() {
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
