//! The chunked transfer coding (RFC 9112, section 7.1), without its data.
//!
//! A [`ChunkedReader`] reads what stands between the data: sizes, extensions, line ends, trailers. It says how many
//! bytes of data come next, and whoever owns the reader passes these on without showing them to it. Extensions and
//! trailers are dropped, as an intermediary may (RFC 9112, sections 7.1.1 and 7.1.2); what is passed on is framed anew
//! with [`chunk_line`], [`CHUNK_END`] and [`LAST_CHUNK`], so that nothing that was only half understood is forwarded.
//!
//! It owns a few counters and never a byte of the body. It must never accept a size that somebody else could read as
//! another one.

use std::fmt;

use super::head::is_control;

/// The longest extension of one chunk, in bytes, with its semicolon (RFC 9112, section 7.1.1, asks for a limit).
pub const EXTENSION_BYTES_MAX: usize = 256;

/// The extensions of all chunks of one body together, in bytes.
pub const EXTENSIONS_BYTES_MAX: usize = 16 * 1024;

/// The longest trailer section, in bytes, with its final empty line.
pub const TRAILER_BYTES_MAX: usize = 4 * 1024;

/// What follows the data of each chunk.
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
///     \------> Ended <-----/            the trailer section belongs to that step
/// ```
#[derive(Clone, Debug)]
pub struct ChunkedReader {
    state: State,
    extensions_bytes: usize,
}

/// What [`ChunkedReader::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing whole yet, and nothing consumed: call again with the same bytes and more.
    NeedMore,
    /// `consumed` bytes were framing; `size` bytes of data follow, at least one. Call again with what stands behind
    /// them.
    Chunk {
        /// Bytes of framing to be dropped.
        consumed: usize,
        /// Bytes of data behind them.
        size: u64,
    },
    /// `consumed` bytes were framing, and the body is over.
    End {
        /// Bytes of framing to be dropped.
        consumed: usize,
    },
}

/// Bytes that are not the chunked coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// A size that is not 1 to 16 hexadecimal digits.
    Size,
    /// A line that does not end in CRLF where it has to.
    LineEnd,
    /// A control character in an extension or in a trailer.
    Control,
    /// More extension bytes than the limits allow.
    ExtensionTooLong,
    /// A trailer field that is none.
    Trailer,
    /// A trailer section longer than its limit.
    TrailerTooLong,
}

impl ChunkedReader {
    /// A reader at the start of a body.
    pub fn new() -> ChunkedReader {
        ChunkedReader { state: State::Size, extensions_bytes: 0 }
    }

    /// Reads on in `bytes`, which begin with the first byte that was neither consumed nor data. They need not hold more
    /// than [`EXTENSION_BYTES_MAX`] and [`TRAILER_BYTES_MAX`] and 32 bytes at once for any body to get through.
    ///
    /// After an error the reader is of no use any more, and neither is the connection. After the end it stays at the
    /// end.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, ChunkError> {
        let mut cursor = Cursor { bytes, at: 0 };
        let found = match self.state {
            State::Ended => return Ok(Step::End { consumed: 0 }),
            State::Size => cursor.size_line()?,
            State::Data => match cursor.line_end()? {
                Some(()) => cursor.size_line()?,
                None => None,
            },
        };
        let Some(SizeLine { size, extension_bytes }) = found else { return Ok(Step::NeedMore) };
        if self.extensions_bytes + extension_bytes > EXTENSIONS_BYTES_MAX {
            return Err(ChunkError::ExtensionTooLong);
        }
        if size == 0 && cursor.trailers()?.is_none() {
            return Ok(Step::NeedMore);
        }
        self.extensions_bytes += extension_bytes;
        if size == 0 {
            self.state = State::Ended;
            return Ok(Step::End { consumed: cursor.at });
        }
        self.state = State::Data;
        Ok(Step::Chunk { consumed: cursor.at, size })
    }
}

impl Default for ChunkedReader {
    fn default() -> ChunkedReader {
        ChunkedReader::new()
    }
}

/// Appends the line that begins a chunk of `size` bytes. The data and [`CHUNK_END`] are to follow. A size of 0 would
/// end the body: [`LAST_CHUNK`] is for that.
pub fn chunk_line(size: u64, out: &mut Vec<u8>) {
    debug_assert!(size > 0, "an empty chunk would be the last one");
    out.extend_from_slice(format!("{size:x}\r\n").as_bytes());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The line with the first size comes next.
    Size,
    /// Data was announced; the CRLF behind it comes next.
    Data,
    Ended,
}

struct SizeLine {
    size: u64,
    extension_bytes: usize,
}

/// A place in bytes that moves forward only. `None` from any of its methods: not whole yet.
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

    /// chunk-size [ chunk-ext ] CRLF. White space behind the size and within the extensions is parsed and removed (RFC 9110,
    /// section 5.6.3); it counts as a part of the extensions. Digits behind white space stay refused: two parsers could see
    /// two sizes.
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

    /// The trailer section with its empty line. Its fields must look like fields, so that no request hides in it.
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

/// How many bytes stand before the next CR, which `line_end` will look at. `None` while there is none.
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

/// Whether a line is `name: value` (RFC 9112, section 5).
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

/// As many digits as 64 bits have, so that no size overflows.
const SIZE_DIGITS_MAX: usize = u64::BITS as usize / 4;

#[cfg(test)]
mod tests;
