//! The framing of the chunked transfer coding (RFC 9112, section 7.1).
//!
//! A [`ChunkedReader`] parses the bytes between the data: sizes, extensions, line ends, trailers. It returns the number of
//! data bytes that come next; its owner relays these and does not show them to the reader. Extensions and trailers are
//! dropped, as an intermediary may do (RFC 9112, sections 7.1.1 and 7.1.2). The forwarded data is framed anew with
//! [`chunk_line`], [`CHUNK_END`] and [`LAST_CHUNK`], so that no unparsed byte is forwarded as framing.
//!
//! This file must never accept a size that another parser could read as a different number.

use std::fmt;

use super::head::is_control;

/// The longest extension of one chunk, in bytes, with its semicolon (RFC 9112, section 7.1.1, demands a limit).
pub const EXTENSION_BYTES_MAX: usize = 256;

/// The extensions of all chunks of one body together, in bytes.
pub const EXTENSIONS_BYTES_MAX: usize = 16 * 1024;

/// The longest trailer section, in bytes, with its final empty line.
pub const TRAILER_BYTES_MAX: usize = 4 * 1024;

/// The line end after the data of each chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// The last chunk, with an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Reads the framing of one chunked body.
///
/// ```text
///            size > 0
///   Size ---------------> Data --\ CRLF, size > 0
///     |                    | ^---/
///     | size = 0           | CRLF, size = 0
///     \------> Ended <-----/            this step includes the trailer section
/// ```
#[derive(Clone, Debug)]
pub struct ChunkedReader {
    state: State,
    extensions_bytes: usize,
}

/// The result of [`ChunkedReader::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkStep {
    /// The framing is incomplete, and nothing is consumed: call again with the same bytes and more.
    NeedMore,
    /// A chunk of at least one byte begins. Call again with the bytes behind its data.
    Chunk {
        /// Bytes of framing before the data.
        consumed: usize,
        /// Bytes of data.
        size: u64,
    },
    /// The body ends.
    End {
        /// Bytes of framing up to the end of the body.
        consumed: usize,
    },
}

/// An error in the chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// A size that is not 1 to 16 hexadecimal digits.
    Size,
    /// A line that does not end in CRLF.
    LineEnd,
    /// A control character in an extension or in a trailer.
    Control,
    /// More extension bytes than the limits allow.
    ExtensionTooLong,
    /// A line of the trailer section that is no field.
    Trailer,
    /// A trailer section longer than its limit.
    TrailerTooLong,
}

impl ChunkedReader {
    /// Creates a reader at the start of a body.
    pub fn new() -> ChunkedReader {
        ChunkedReader { state: State::Size, extensions_bytes: 0 }
    }

    /// Parses the next framing. `bytes` begin with the first byte that was neither consumed nor data. A buffer for
    /// [`EXTENSION_BYTES_MAX`], [`TRAILER_BYTES_MAX`] and 32 bytes suffices for any body.
    ///
    /// After an error neither the reader nor the connection can be used. After the end the reader returns the end again.
    pub fn next(&mut self, bytes: &[u8]) -> Result<ChunkStep, ChunkError> {
        let mut cursor = Cursor { bytes, at: 0 };
        let found = match self.state {
            State::Ended => return Ok(ChunkStep::End { consumed: 0 }),
            State::Size => cursor.size_line()?,
            State::Data => match cursor.line_end()? {
                Some(()) => cursor.size_line()?,
                None => None,
            },
        };
        let Some(SizeLine { size, extension_bytes }) = found else { return Ok(ChunkStep::NeedMore) };
        if self.extensions_bytes + extension_bytes > EXTENSIONS_BYTES_MAX {
            return Err(ChunkError::ExtensionTooLong);
        }
        if size == 0 && cursor.trailers()?.is_none() {
            return Ok(ChunkStep::NeedMore);
        }
        self.extensions_bytes += extension_bytes;
        if size == 0 {
            self.state = State::Ended;
            return Ok(ChunkStep::End { consumed: cursor.at });
        }
        self.state = State::Data;
        Ok(ChunkStep::Chunk { consumed: cursor.at, size })
    }
}

impl Default for ChunkedReader {
    fn default() -> ChunkedReader {
        ChunkedReader::new()
    }
}

/// Appends the line that begins a chunk of `size` bytes, which must not be 0. The data and [`CHUNK_END`] follow it.
pub fn chunk_line(size: u64, out: &mut Vec<u8>) {
    debug_assert!(size > 0, "a chunk of size 0 ends the body");
    out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The line with the first size is next.
    Size,
    /// The CRLF behind the data of a chunk is next.
    Data,
    Ended,
}

struct SizeLine {
    size: u64,
    extension_bytes: usize,
}

/// A position in bytes that moves forward. Its methods return `None` if more bytes are needed.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn line_end(&mut self) -> Result<Option<()>, ChunkError> {
        match self.rest() {
            [b'\r', b'\n', ..] => self.at += 2,
            [] | [b'\r'] => return Ok(None),
            _ => return Err(ChunkError::LineEnd),
        }
        Ok(Some(()))
    }

    /// Parses chunk-size [ chunk-ext ] CRLF. White space behind the size and in the extensions is dropped (RFC 9110, section
    /// 5.6.3), and counts as part of the extensions. Digits behind white space are refused, because two parsers could see two
    /// sizes.
    fn size_line(&mut self) -> Result<Option<SizeLine>, ChunkError> {
        let rest = self.rest();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > SIZE_DIGITS_MAX || (digits == 0 && !rest.is_empty()) {
            return Err(ChunkError::Size);
        }
        let (size, behind) = rest.split_at(digits);
        let size = size.iter().fold(0u64, |sum, digit| sum << 4 | u64::from(hex_value(*digit)));
        let space = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let extension_bytes = match behind.get(space..).unwrap_or_default() {
            _ if space > EXTENSION_BYTES_MAX => return Err(ChunkError::ExtensionTooLong),
            [b';', ..] => match text_len(behind, EXTENSION_BYTES_MAX, ChunkError::ExtensionTooLong)? {
                Some(len) => len,
                None => return Ok(None),
            },
            [] | [b'\r', ..] => space,
            _ => return Err(ChunkError::Size),
        };
        self.at += digits + extension_bytes;
        Ok(self.line_end()?.map(|()| SizeLine { size, extension_bytes }))
    }

    /// Parses the trailer section with its empty line. Each line must be a field, so that no request can hide in it.
    fn trailers(&mut self) -> Result<Option<()>, ChunkError> {
        let start = self.at;
        loop {
            let used = self.at - start;
            let rest = self.rest();
            if used + 2 > TRAILER_BYTES_MAX {
                return Err(ChunkError::TrailerTooLong);
            }
            if matches!(rest, [] | [b'\r', ..]) {
                return self.line_end();
            }
            let Some(len) = text_len(rest, TRAILER_BYTES_MAX - used, ChunkError::TrailerTooLong)? else {
                return Ok(None);
            };
            if !is_field(rest.get(..len).unwrap_or_default()) {
                return Err(ChunkError::Trailer);
            }
            self.at += len;
            if self.line_end()?.is_none() {
                return Ok(None);
            }
        }
    }
}

/// Returns the number of bytes before the next CR, or `None` if there is no CR yet. `line_end` parses the CR.
fn text_len(text: &[u8], len_max: usize, too_long: ChunkError) -> Result<Option<usize>, ChunkError> {
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            b'\r' => return Ok(Some(index)),
            b'\n' => return Err(ChunkError::LineEnd),
            byte if is_control(byte) => return Err(ChunkError::Control),
            _ if index >= len_max => return Err(too_long),
            _ => {}
        }
    }
    Ok(None)
}

/// Returns true if a line is `name: value` (RFC 9112, section 5).
fn is_field(line: &[u8]) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match line.iter().position(|byte| *byte == b':') {
        None | Some(0) => false,
        Some(colon) => line.iter().take(colon).all(token),
    }
}

fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a' - 10),
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkError::Size => "a chunk size that is not 1 to 16 hexadecimal digits",
            ChunkError::LineEnd => "a line of the chunked body does not end in CRLF",
            ChunkError::Control => "a control character in the chunked framing",
            ChunkError::ExtensionTooLong => "chunk extensions that are too long",
            ChunkError::Trailer => "a trailer that is not a field",
            ChunkError::TrailerTooLong => "a trailer section that is too long",
        })
    }
}

impl std::error::Error for ChunkError {}

/// Digits of a 64-bit size, so that no size overflows.
const SIZE_DIGITS_MAX: usize = u64::BITS as usize / 4;

#[cfg(test)]
mod tests;
