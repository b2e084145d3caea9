//! The messages of `file/1` and `get/1` and their bytes: a type of one byte, a length of four, and a body. Numbers are in
//! network order.
//!
//! | type | message | body |
//! | --- | --- | --- |
//! | 1 | OFFER | kind 1, entries 8, bytes 8, name |
//! | 2 | ACCEPT | 1 if a part of it is there, else 0 |
//! | 3 | ENTRIES | for each: kind 1, size 8, mode 2, seconds 8, nanoseconds 4, length of the path 2, path |
//! | 4 | PARTS | for each file of one ENTRIES: length 8, and its SHA-256 32 if the length is not 0 |
//! | 5 | START | offset 8 |
//! | 6 | DATA | bytes, at least one |
//! | 7 | END | SHA-256 of the file 32 |
//! | 8 | FINISH | |
//! | 9 | DONE | |
//! | 10 | FAILED | code 1, text |
//! | 11 | ASK | name |
//!
//! The kind is 0 for a file and 1 for a folder. The length of a body is bounded by its type, so no length of the peer sizes an
//! allocation beyond that.

use std::io::{self, Read, Write};

use super::fault::{Fault, FileError, TEXT_BYTES_MAX};
use super::offer::{Entry, MODE_MASK, NAME_BYTES_MAX, Offer, PATH_BYTES_MAX};

/// A SHA-256 digest (FIPS 180-4).
pub type Digest = [u8; 32];

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The sender offers a file or a folder.
    Offer(Offer),
    /// The receiver wants it.
    Accept {
        /// A part of it may be there, so the receiver answers each ENTRIES with PARTS.
        has_part: bool,
    },
    /// The next files and folders of the offer.
    Entries(Vec<Entry>),
    /// The bytes that are there of each file of one ENTRIES: their number and digest.
    Parts(Vec<(u64, Digest)>),
    /// The sender begins to send the next file.
    Start {
        /// The place of the first byte in the file.
        offset: u64,
    },
    /// Bytes of the file.
    Data(&'a [u8]),
    /// All bytes of the file were sent.
    End(Digest),
    /// All files of the offer were sent.
    Finish,
    /// The receiver has the file or the folder under its name.
    Done,
    /// The transfer has failed.
    Failed(FileError),
    /// The receiver asks for an offer.
    Ask(String),
}

impl Message<'_> {
    /// Appends the bytes of the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0, 0, 0, 0]);
        match self {
            Message::Offer(offer) => {
                out.push(offer.is_folder.into());
                out.extend_from_slice(&offer.entries.to_be_bytes());
                out.extend_from_slice(&offer.bytes.to_be_bytes());
                out.extend_from_slice(offer.name.as_bytes());
            }
            Message::Accept { has_part } => out.push((*has_part).into()),
            Message::Entries(entries) => entries.iter().for_each(|entry| encode_entry(entry, out)),
            Message::Parts(parts) => {
                for (length, digest) in parts {
                    out.extend_from_slice(&length.to_be_bytes());
                    if *length > 0 {
                        out.extend_from_slice(digest);
                    }
                }
            }
            Message::Start { offset } => out.extend_from_slice(&offset.to_be_bytes()),
            Message::Data(bytes) => out.extend_from_slice(bytes),
            Message::End(digest) => out.extend_from_slice(digest),
            Message::Finish | Message::Done => {}
            Message::Failed(error) => {
                out.push(error.fault as u8);
                out.extend_from_slice(error.text.as_bytes());
            }
            Message::Ask(name) => out.extend_from_slice(name.as_bytes()),
        }
        let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
        out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    fn code(&self) -> u8 {
        match self {
            Message::Offer(_) => OFFER,
            Message::Accept { .. } => ACCEPT,
            Message::Entries(_) => ENTRIES,
            Message::Parts(_) => PARTS,
            Message::Start { .. } => START,
            Message::Data(_) => DATA,
            Message::End(_) => END,
            Message::Finish => FINISH,
            Message::Done => DONE,
            Message::Failed(_) => FAILED,
            Message::Ask(_) => ASK,
        }
    }
}

/// Writes a DATA without a copy of its bytes.
///
/// # Errors
/// Fails if the writer does.
pub fn write_data(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut header = [DATA; HEADER_BYTES];
    header[1..].copy_from_slice(&length.to_be_bytes());
    out.write_all(&header)?;
    out.write_all(bytes)
}

/// Reads a message. The buffer holds its body. Returns none at the end of the input.
///
/// # Errors
/// Fails with [`Fault::Protocol`] if the bytes are no message, and with [`Fault::Interrupted`] if the input fails or ends
/// in the middle of one.
pub fn read<'a>(input: &mut impl Read, buf: &'a mut Vec<u8>) -> Result<Option<Message<'a>>, FileError> {
    let mut header = [0; HEADER_BYTES];
    loop {
        match input.read(&mut header[..1]) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(interrupted(&error)),
        }
    }
    input.read_exact(&mut header[1..]).map_err(|error| interrupted(&error))?;
    let [code, length @ ..] = header;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let (least, most) = body_bytes(code).ok_or_else(|| FileError::protocol("unknown message"))?;
    if length < least || length > most {
        return Err(FileError::protocol("wrong length of a message"));
    }
    buf.resize(length, 0);
    input.read_exact(buf).map_err(|error| interrupted(&error))?;
    decode(code, buf).map(Some).ok_or_else(|| FileError::protocol("malformed message"))
}

fn interrupted(error: &io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            FileError::new(Fault::Interrupted, "nothing has arrived for a long time")
        }
        _ => FileError::interrupted(),
    }
}

/// Returns the least and the most bytes of the body of a message.
fn body_bytes(code: u8) -> Option<(usize, usize)> {
    Some(match code {
        OFFER => (OFFER_BYTES + 1, OFFER_BYTES + NAME_BYTES_MAX),
        ACCEPT => (1, 1),
        ENTRIES => (ENTRY_BYTES, ENTRIES_BYTES_MAX),
        PARTS => (8, BATCH_ENTRIES_MAX * 40),
        START => (8, 8),
        DATA => (1, DATA_BYTES_MAX),
        END => (32, 32),
        FINISH | DONE => (0, 0),
        FAILED => (1, 1 + TEXT_BYTES_MAX),
        ASK => (1, PATH_BYTES_MAX),
        _ => return None,
    })
}

fn decode(code: u8, body: &[u8]) -> Option<Message<'_>> {
    let text = |bytes: &[u8]| str::from_utf8(bytes).ok().map(str::to_owned);
    Some(match code {
        OFFER => {
            let (kind, body) = body.split_first()?;
            let (entries, body) = body.split_first_chunk()?;
            let (bytes, name) = body.split_first_chunk()?;
            let (entries, bytes) = (u64::from_be_bytes(*entries), u64::from_be_bytes(*bytes));
            Message::Offer(Offer { name: text(name)?, is_folder: flag(*kind)?, entries, bytes })
        }
        ACCEPT => Message::Accept { has_part: flag(*body.first()?)? },
        ENTRIES => Message::Entries(decode_entries(body)?),
        PARTS => Message::Parts(decode_parts(body)?),
        START => Message::Start { offset: u64::from_be_bytes(body.try_into().ok()?) },
        DATA => Message::Data(body),
        END => Message::End(body.try_into().ok()?),
        FINISH => Message::Finish,
        DONE => Message::Done,
        FAILED => {
            let (code, text) = body.split_first()?;
            Message::Failed(FileError::new(Fault::from_code(*code), String::from_utf8_lossy(text)))
        }
        ASK => Message::Ask(text(body)?),
        _ => return None,
    })
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Returns the bytes of an entry in ENTRIES.
pub fn entry_bytes(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.path.len()
}

fn encode_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.push(entry.is_folder.into());
    out.extend_from_slice(&entry.size.to_be_bytes());
    out.extend_from_slice(&entry.mode.to_be_bytes());
    out.extend_from_slice(&entry.modified.0.to_be_bytes());
    out.extend_from_slice(&entry.modified.1.to_be_bytes());
    let length = u16::try_from(entry.path.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(entry.path.as_bytes());
}

fn decode_entries(mut body: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        if entries.len() == BATCH_ENTRIES_MAX {
            return None;
        }
        let (kind, rest) = body.split_first()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (mode, rest) = rest.split_first_chunk()?;
        let (seconds, rest) = rest.split_first_chunk()?;
        let (nanoseconds, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (path, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let nanoseconds = u32::from_be_bytes(*nanoseconds);
        entries.push(Entry {
            path: str::from_utf8(path).ok()?.to_owned(),
            is_folder: flag(*kind)?,
            size: u64::from_be_bytes(*size),
            mode: u16::from_be_bytes(*mode) & MODE_MASK,
            modified: (i64::from_be_bytes(*seconds), (nanoseconds < 1_000_000_000).then_some(nanoseconds)?),
        });
        body = rest;
    }
    Some(entries)
}

fn decode_parts(mut body: &[u8]) -> Option<Vec<(u64, Digest)>> {
    let mut parts = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_first_chunk()?;
        let length = u64::from_be_bytes(*length);
        let (digest, rest) = if length > 0 { rest.split_first_chunk()? } else { (&[0; 32], rest) };
        parts.push((length, *digest));
        body = rest;
    }
    (parts.len() <= BATCH_ENTRIES_MAX).then_some(parts)
}

const OFFER: u8 = 1;
const ACCEPT: u8 = 2;
const ENTRIES: u8 = 3;
const PARTS: u8 = 4;
const START: u8 = 5;
const DATA: u8 = 6;
const END: u8 = 7;
const FINISH: u8 = 8;
const DONE: u8 = 9;
const FAILED: u8 = 10;
const ASK: u8 = 11;
const HEADER_BYTES: usize = 5;
/// Bytes of an OFFER before the name.
const OFFER_BYTES: usize = 17;
/// Bytes of an entry before its path.
const ENTRY_BYTES: usize = 25;
/// Most entries of one ENTRIES. Its PARTS fit in the buffers on the way, so neither end waits for the other to read.
pub const BATCH_ENTRIES_MAX: usize = 256;
/// Most bytes of one ENTRIES.
pub const ENTRIES_BYTES_MAX: usize = 64 << 10;
/// Most bytes of one DATA.
pub const DATA_BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry { path: path.to_owned(), is_folder: false, size: 1 << 40, mode: 0o640, modified: (-1, 999_999_999) }
    }

    fn all() -> Vec<Message<'static>> {
        let offer = Offer { name: "film".to_owned(), is_folder: true, entries: 3, bytes: 1 << 40 };
        vec![
            Message::Offer(offer),
            Message::Accept { has_part: true },
            Message::Entries(vec![entry(""), Entry { is_folder: true, ..entry("a/b") }]),
            Message::Parts(vec![(0, [0; 32]), (7, [1; 32])]),
            Message::Start { offset: 7 },
            Message::Data(b"bytes"),
            Message::End([2; 32]),
            Message::Finish,
            Message::Done,
            Message::Failed(FileError::new(Fault::NoSpace, "full")),
            Message::Ask("films/film".to_owned()),
        ]
    }

    fn fault(bytes: &[u8]) -> Result<bool, Fault> {
        read(&mut &bytes[..], &mut Vec::new()).map(|message| message.is_some()).map_err(|error| error.fault)
    }

    #[test]
    fn each_message_is_read_from_its_bytes_and_needs_all_of_them() {
        for message in all() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(read(&mut &bytes[..], &mut Vec::new()), Ok(Some(message.clone())));
            assert_eq!(fault(&[]), Ok(false));
            assert!((1..bytes.len()).all(|end| fault(&bytes[..end]) == Err(Fault::Interrupted)), "{message:?}");
        }
        let mut bytes = Vec::new();
        write_data(&mut bytes, b"bytes").unwrap();
        assert_eq!(read(&mut &bytes[..], &mut Vec::new()), Ok(Some(Message::Data(b"bytes"))));
    }

    #[test]
    fn a_wrong_length_and_an_unknown_type_are_refused_before_the_body_arrives() {
        for header in [[0, 0, 0, 0, 0], [12, 0, 0, 0, 0], [1, 0, 0, 1, 0], [6, 0, 0, 0, 0], [9, 255, 255, 255, 255]] {
            assert_eq!(fault(&header), Err(Fault::Protocol), "{header:?}");
        }
    }

    #[test]
    fn an_entry_carries_no_setuid_bit_and_malformed_ones_are_refused() {
        let mut bytes = Vec::new();
        Message::Entries(vec![Entry { mode: 0o6755, ..entry("a") }]).encode(&mut bytes);
        let mut buf = Vec::new();
        let Ok(Some(Message::Entries(entries))) = read(&mut &bytes[..], &mut buf) else { panic!("no entries") };
        assert_eq!(entries[0].mode, 0o755);
        let with = |at: usize, byte: u8| {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            fault(&wrong)
        };
        let last = bytes.len() - 1;
        // A path that is no text, one that is longer than the body, an unknown kind, too many nanoseconds.
        for (at, byte) in [(last, 0xff), (last - 1, 2), (5, 2), (last - 6, 0xff)] {
            assert_eq!(with(at, byte), Err(Fault::Protocol), "{at}");
        }
        let mut many = Vec::new();
        Message::Entries(vec![entry("a"); BATCH_ENTRIES_MAX + 1]).encode(&mut many);
        assert_eq!(fault(&many), Err(Fault::Protocol));
    }
}
