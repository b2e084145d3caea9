//! The messages of `file/1` and their bytes: a type of one byte, a length of four, and a body. Numbers are in network order.
//!
//! | type | message | body |
//! | --- | --- | --- |
//! | 1 | OFFER | size 8, mode 2, seconds 8, nanoseconds 4, name |
//! | 2 | ACCEPT | length of the part 8, its SHA-256 32 |
//! | 3 | START | offset 8 |
//! | 4 | DATA | bytes, at least one |
//! | 5 | END | SHA-256 of the file 32 |
//! | 6 | DONE | |
//! | 7 | FAILED | code 1, text |
//!
//! The bytes of DATA are handed on as they arrive, so nothing is held for them. No length of the peer sizes an allocation.

use super::fault::{Fault, FileError, TEXT_BYTES_MAX};
use super::offer::{MODE_MASK, NAME_BYTES_MAX, Offer};

/// A SHA-256 digest (FIPS 180-4).
pub type Digest = [u8; 32];

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The sender offers a file.
    Offer(Offer),
    /// The receiver wants the file, and has its first bytes.
    Accept {
        /// The number of these bytes.
        offset: u64,
        /// Their digest.
        digest: Digest,
    },
    /// The sender begins to send.
    Start {
        /// The place of the first byte in the file.
        offset: u64,
    },
    /// Bytes of the file; a decoder gives one DATA in several pieces.
    Data(&'a [u8]),
    /// All bytes were sent.
    End(Digest),
    /// The receiver has the file under its name.
    Done,
    /// The transfer has failed.
    Failed(FileError),
}

impl Message<'_> {
    /// Appends the bytes of the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0, 0, 0, 0]);
        match self {
            Message::Offer(offer) => {
                out.extend_from_slice(&offer.size.to_be_bytes());
                out.extend_from_slice(&offer.mode.to_be_bytes());
                out.extend_from_slice(&offer.modified.0.to_be_bytes());
                out.extend_from_slice(&offer.modified.1.to_be_bytes());
                out.extend_from_slice(offer.name.as_bytes());
            }
            Message::Accept { offset, digest } => {
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(digest);
            }
            Message::Start { offset } => out.extend_from_slice(&offset.to_be_bytes()),
            Message::Data(bytes) => out.extend_from_slice(bytes),
            Message::End(digest) => out.extend_from_slice(digest),
            Message::Done => {}
            Message::Failed(error) => {
                out.push(error.fault as u8);
                out.extend_from_slice(error.text.as_bytes());
            }
        }
        let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
        out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
    }

    fn code(&self) -> u8 {
        match self {
            Message::Offer(_) => OFFER,
            Message::Accept { .. } => ACCEPT,
            Message::Start { .. } => START,
            Message::Data(_) => DATA,
            Message::End(_) => END,
            Message::Done => DONE,
            Message::Failed(_) => FAILED,
        }
    }
}

/// Decodes the messages of a peer.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of a DATA that have not arrived.
    data_left: usize,
}

impl Decoder {
    /// Returns the next message and the number of bytes that it takes, or none if more bytes are needed.
    ///
    /// # Errors
    /// Fails if the bytes are no message.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<(Message<'a>, usize)>, FileError> {
        if self.data_left > 0 {
            return Ok(self.data(input).map(|piece| (Message::Data(piece), piece.len())));
        }
        let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [code, length @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let (least, most) = body_bytes(code).ok_or_else(|| FileError::protocol("unknown message"))?;
        if length < least || length > most {
            return Err(FileError::protocol("wrong length of a message"));
        }
        if code == DATA {
            if rest.is_empty() {
                return Ok(None);
            }
            self.data_left = length;
            return Ok(self.data(rest).map(|piece| (Message::Data(piece), HEADER_BYTES + piece.len())));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = decode(code, body).ok_or_else(|| FileError::protocol("malformed message"))?;
        Ok(Some((message, HEADER_BYTES + length)))
    }

    fn data<'a>(&mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        let piece = &input[..input.len().min(self.data_left)];
        self.data_left -= piece.len();
        (!piece.is_empty()).then_some(piece)
    }
}

/// Returns the least and the most bytes of the body of a message.
fn body_bytes(code: u8) -> Option<(usize, usize)> {
    Some(match code {
        OFFER => (OFFER_BYTES + 1, OFFER_BYTES + NAME_BYTES_MAX),
        ACCEPT => (40, 40),
        START => (8, 8),
        DATA => (1, DATA_BYTES_MAX),
        END => (32, 32),
        DONE => (0, 0),
        FAILED => (1, 1 + TEXT_BYTES_MAX),
        _ => return None,
    })
}

fn decode(code: u8, body: &[u8]) -> Option<Message<'static>> {
    Some(match code {
        OFFER => {
            let (size, body) = body.split_first_chunk()?;
            let (mode, body) = body.split_first_chunk()?;
            let (seconds, body) = body.split_first_chunk()?;
            let (nanoseconds, name) = body.split_first_chunk()?;
            let nanoseconds = u32::from_be_bytes(*nanoseconds);
            Message::Offer(Offer {
                name: str::from_utf8(name).ok()?.to_owned(),
                size: u64::from_be_bytes(*size),
                mode: u16::from_be_bytes(*mode) & MODE_MASK,
                modified: (i64::from_be_bytes(*seconds), (nanoseconds < 1_000_000_000).then_some(nanoseconds)?),
            })
        }
        ACCEPT => {
            let (offset, digest) = body.split_first_chunk()?;
            Message::Accept { offset: u64::from_be_bytes(*offset), digest: digest.try_into().ok()? }
        }
        START => Message::Start { offset: u64::from_be_bytes(body.try_into().ok()?) },
        END => Message::End(body.try_into().ok()?),
        DONE => Message::Done,
        FAILED => {
            let (code, text) = body.split_first()?;
            Message::Failed(FileError::new(Fault::from_code(*code), String::from_utf8_lossy(text)))
        }
        _ => return None,
    })
}

const OFFER: u8 = 1;
const ACCEPT: u8 = 2;
const START: u8 = 3;
const DATA: u8 = 4;
const END: u8 = 5;
const DONE: u8 = 6;
const FAILED: u8 = 7;
const HEADER_BYTES: usize = 5;
/// Bytes of an OFFER before the name.
const OFFER_BYTES: usize = 22;
/// Most bytes of one DATA.
pub const DATA_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Message<'static>> {
        vec![
            Message::Offer(Offer { name: "film".to_owned(), size: 1 << 40, mode: 0o640, modified: (-1, 999_999_999) }),
            Message::Accept { offset: 7, digest: [1; 32] },
            Message::Start { offset: 7 },
            Message::Data(b"bytes"),
            Message::End([2; 32]),
            Message::Done,
            Message::Failed(FileError::new(Fault::NoSpace, "full")),
        ]
    }

    #[test]
    fn each_message_is_decoded_from_its_bytes_and_needs_all_of_them() {
        for message in all() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Decoder::default().next(&bytes), Ok(Some((message.clone(), bytes.len()))));
            if !matches!(message, Message::Data(_)) {
                let needs_more = |end: usize| Decoder::default().next(&bytes[..end]) == Ok(None);
                assert!((0..bytes.len()).all(needs_more), "{message:?}");
            }
        }
    }

    #[test]
    fn data_is_handed_on_as_it_arrives() {
        let mut bytes = Vec::new();
        Message::Data(b"bytes").encode(&mut bytes);
        let mut decoder = Decoder::default();
        assert_eq!(decoder.next(&bytes[..5]), Ok(None));
        assert_eq!(decoder.next(&bytes[..7]), Ok(Some((Message::Data(b"by"), 7))));
        assert_eq!(decoder.next(&[]), Ok(None));
        assert_eq!(decoder.next(b"tes\x06\0\0\0\0"), Ok(Some((Message::Data(b"tes"), 3))));
        assert_eq!(decoder.next(b"\x06\0\0\0\0"), Ok(Some((Message::Done, 5))));
    }

    #[test]
    fn a_wrong_length_and_an_unknown_type_are_refused_before_the_body_arrives() {
        for header in [[0, 0, 0, 0, 0], [8, 0, 0, 0, 0], [1, 0, 0, 1, 0], [4, 0, 0, 0, 0], [6, 255, 255, 255, 255]] {
            assert_eq!(
                Decoder::default().next(&header).map_err(|error| error.fault),
                Err(Fault::Protocol),
                "{header:?}"
            );
        }
    }

    #[test]
    fn an_offer_carries_no_setuid_bit_and_no_invalid_name() {
        let offer = Offer { name: "a".to_owned(), size: 0, mode: 0o6755, modified: (0, 0) };
        let mut bytes = Vec::new();
        Message::Offer(offer).encode(&mut bytes);
        let Ok(Some((Message::Offer(offer), _))) = Decoder::default().next(&bytes) else { panic!("no offer") };
        assert_eq!(offer.mode, 0o755);
        *bytes.last_mut().unwrap() = 0xff;
        assert_eq!(Decoder::default().next(&bytes).map_err(|error| error.fault), Err(Fault::Protocol));
    }
}
