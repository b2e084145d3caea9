//! The client of an admin socket: sends one request, and reads its response.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use seaprox::UnixStream;
use serde_json::Value;

/// A response whose body was not read yet.
pub struct Response {
    /// The status code.
    pub status: u16,
    body: Body,
}

/// An error of a request.
#[derive(Debug)]
pub enum AskError {
    /// No process answers.
    Silent(io::Error),
    /// The process speaks the protocol of an earlier version, whose socket sends a status at once.
    Earlier,
    /// The answer is no HTTP response.
    Malformed,
}

struct Body {
    source: BufReader<UnixStream>,
    /// The bytes that are left of the body, or of the present chunk.
    left: u64,
    is_chunked: bool,
    has_ended: bool,
}

/// Sends a request to the process at `path`. A request with a body is a command.
///
/// # Errors
/// Fails if no process answers, or if its answer is not a response.
pub fn ask(path: &Path, target: &str, body: Option<&Value>, time: Duration) -> Result<Response, AskError> {
    let mut socket = UnixStream::connect(path).map_err(AskError::Silent)?;
    for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
        set(&socket, Some(time)).map_err(AskError::Silent)?;
    }
    let request = match body {
        None => format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        Some(body) => {
            let body = body.to_string();
            let len = body.len();
            format!(
                "POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
            )
        }
    };
    // A process that has answered and closed already is read nevertheless.
    let sent = socket.write_all(request.as_bytes());
    let mut source = BufReader::with_capacity(BUFFER_BYTES, socket);
    match source.fill_buf() {
        Ok(bytes) if bytes.starts_with(b"{") => return Err(AskError::Earlier),
        Ok([]) => return Err(AskError::Silent(sent.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into()))),
        Ok(_) => {}
        Err(error) => return Err(AskError::Silent(error)),
    }
    let (status, left, is_chunked) = read_head(&mut source)?;
    let body = Body { source, left: left.unwrap_or(0), is_chunked, has_ended: left == Some(0) };
    Ok(Response { status, body })
}

impl Response {
    /// Reads the whole body.
    ///
    /// # Errors
    /// The process closes before the end of the body.
    pub fn text(mut self) -> io::Result<String> {
        let mut text = String::new();
        self.body.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Response {
    /// Returns the body as it arrives.
    pub fn body(self) -> impl Read {
        self.body
    }
}

/// Reads the head. Returns the status code, the length of the body if it is known, and true if the body comes in chunks.
fn read_head(source: &mut impl BufRead) -> Result<(u16, Option<u64>, bool), AskError> {
    let line = read_line(source)?;
    let mut words = line.split(' ');
    let version = words.next().filter(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|code| code.parse().ok());
    let (Some(_), Some(status)) = (version, status) else { return Err(AskError::Malformed) };
    let (mut length, mut is_chunked) = (None, false);
    for _ in 0..FIELDS_MAX {
        let line = read_line(source)?;
        if line.is_empty() {
            return Ok((status, length, is_chunked));
        }
        let (name, value) = line.split_once(':').ok_or(AskError::Malformed)?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse().map_err(|_| AskError::Malformed)?),
            "transfer-encoding" => is_chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    Err(AskError::Malformed)
}

fn read_line(source: &mut impl BufRead) -> Result<String, AskError> {
    let mut line = Vec::new();
    source.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(AskError::Silent)?;
    let line = line.strip_suffix(b"\r\n").ok_or(AskError::Malformed)?;
    String::from_utf8(line.to_vec()).map_err(|_| AskError::Malformed)
}

impl Body {
    /// Reads the size of the next chunk.
    fn next_chunk(&mut self) -> io::Result<()> {
        let size = read_line(&mut self.source).map_err(|_| io::Error::from(ErrorKind::UnexpectedEof))?;
        self.left = u64::from_str_radix(&size, 16).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
        self.has_ended = self.left == 0;
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_chunked && self.left == 0 && !self.has_ended {
            self.next_chunk()?;
        }
        if self.has_ended || buf.is_empty() {
            return Ok(0);
        }
        let most = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.source.read(&mut buf[..most])?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        if self.left == 0 {
            if self.is_chunked {
                read_line(&mut self.source).map_err(|_| io::Error::from(ErrorKind::UnexpectedEof))?;
            } else {
                self.has_ended = true;
            }
        }
        Ok(count)
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Silent(error) => error.fmt(f),
            AskError::Earlier => f.write_str(
                "the process is of an earlier version, whose socket speaks another protocol; restart it, or ask it with its own binary",
            ),
            AskError::Malformed => f.write_str("the answer is no HTTP response"),
        }
    }
}

const BUFFER_BYTES: usize = 64 << 10;
/// Bytes of a line of the head.
const LINE_BYTES_MAX: u64 = 8 << 10;
/// Fields of a head.
const FIELDS_MAX: usize = 64;
