//! The response to one request: a status line, the fields that keep a browser out, and a body that is known or comes in
//! pieces.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::head::Head;

/// The response that is to be written. Each method writes one whole response.
pub struct Reply<'a> {
    out: &'a mut dyn Write,
    /// The request was a HEAD: the response has no body.
    is_head: bool,
    /// The client knows the chunked coding.
    is_chunked: bool,
}

/// A body of unknown length. Without [`Body::end`], the client of HTTP/1.1 learns that it is not complete.
pub struct Body<'a> {
    out: &'a mut dyn Write,
    is_head: bool,
    is_chunked: bool,
}

impl<'a> Reply<'a> {
    /// Creates the response to a request; `head` is none if it could not be read.
    pub fn new(out: &'a mut dyn Write, head: Option<&Head>) -> Reply<'a> {
        let is_head = head.is_some_and(|head| head.method == "HEAD");
        Reply { out, is_head, is_chunked: head.is_none_or(|head| head.minor > 0) }
    }

    /// Writes a line of text as the body.
    ///
    /// # Errors
    /// The client has left.
    pub fn text(self, status: u16, text: &str) -> io::Result<()> {
        self.whole(status, TEXT, &[], format!("{text}\n").as_bytes())
    }

    /// Writes a JSON document as the body.
    ///
    /// # Errors
    /// The client has left.
    pub fn json(self, status: u16, value: &Value) -> io::Result<()> {
        self.whole(status, JSON, &[], format!("{value}\n").as_bytes())
    }

    /// Writes an error as the body, with further fields.
    ///
    /// # Errors
    /// The client has left.
    pub fn error(self, status: u16, text: &str, fields: &[(&str, &str)]) -> io::Result<()> {
        self.whole(status, JSON, fields, format!("{}\n", json!({ "error": text })).as_bytes())
    }

    /// Begins a response whose body comes in pieces.
    ///
    /// # Errors
    /// The client has left.
    pub fn begin(self, content_type: &str) -> io::Result<Body<'a>> {
        let length = if self.is_chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
        self.out.write_all(head(200, content_type, &[], length).as_bytes())?;
        Ok(Body { out: self.out, is_head: self.is_head, is_chunked: self.is_chunked })
    }

    /// Writes a whole body.
    ///
    /// # Errors
    /// The client has left.
    pub fn whole(self, status: u16, content_type: &str, fields: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut response =
            head(status, content_type, fields, &format!("Content-Length: {}\r\n", body.len())).into_bytes();
        if !self.is_head {
            response.extend_from_slice(body);
        }
        self.out.write_all(&response)
    }
}

impl Body<'_> {
    /// Ends the body.
    ///
    /// # Errors
    /// The client has left.
    pub fn end(self) -> io::Result<()> {
        if self.is_chunked && !self.is_head { self.out.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    /// Returns true if the client wants no body.
    pub fn is_unwanted(&self) -> bool {
        self.is_head
    }
}

/// Each write is one chunk, so a caller that writes small pieces puts a buffer before it.
impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_head || bytes.is_empty() {
            return Ok(bytes.len());
        }
        if !self.is_chunked {
            self.out.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.out.write_all(&chunk)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Returns the status line and the fields. No page may embed, read or keep a response.
fn head(status: u16, content_type: &str, fields: &[(&str, &str)], length: &str) -> String {
    let mut head = format!("HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\n{length}", reason(status));
    for (name, value) in fields {
        // A write to a text does not fail.
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str(
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n\
         Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\nConnection: close\r\n\r\n",
    );
    head
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

/// The type of text for people.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// The type of one JSON document.
pub const JSON: &str = "application/json";
/// The type of JSON documents, one a line.
pub const JSON_LINES: &str = "application/jsonl";
