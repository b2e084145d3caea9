//! The first message of the peer of a connection that both ends may have dialed: a ClientHello, or another one.
//!
//! A reader of bytes that nobody has authenticated yet. It takes nothing over from them but the random number of a ClientHello
//! and the length of its record (RFC 8446, sections 4.1.2 and 5.1). The module depends on nothing, so that the fuzz targets
//! compile it by itself.

/// The first message of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstMessage<'a> {
    /// A part of a ClientHello, or nothing yet.
    Part,
    /// A complete ClientHello in one record.
    ClientHello(ClientHello<'a>),
    /// Another message, such as a ServerHello or an alert, or no TLS. A ClientHello in several records, which no node of this
    /// program sends, is one of these.
    Other,
}

/// A ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientHello<'a> {
    /// The handshake message with its header.
    pub message: &'a [u8],
    /// The random number.
    pub random: &'a [u8; RANDOM_BYTES],
    /// Bytes of the record that holds the message.
    pub record_bytes: usize,
}

impl FirstMessage<'_> {
    /// Reads the first message at the front of `bytes`.
    pub fn read(bytes: &[u8]) -> FirstMessage<'_> {
        let is_hello = |at: usize, kind: u8| bytes.get(at).is_none_or(|byte| *byte == kind);
        if !is_hello(0, HANDSHAKE) || !is_hello(RECORD_HEADER_BYTES, CLIENT_HELLO) {
            return FirstMessage::Other;
        }
        let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
            return FirstMessage::Part;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !(MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&length) {
            return FirstMessage::Other;
        }
        let Some(message) = rest.get(..length) else { return FirstMessage::Part };
        match message.split_first_chunk::<MESSAGE_HEADER_BYTES>() {
            Some((&[_, a, b, c], body)) if u32::from_be_bytes([0, a, b, c]) as usize == body.len() => {
                let random = body.get(VERSION_BYTES..).and_then(|body| body.first_chunk::<RANDOM_BYTES>());
                let record_bytes = RECORD_HEADER_BYTES + length;
                random.map_or(FirstMessage::Other, |random| {
                    FirstMessage::ClientHello(ClientHello { message, random, record_bytes })
                })
            }
            _ => FirstMessage::Other,
        }
    }
}

/// The content type of a record, and the type of its message.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER_BYTES: usize = 5;
const MESSAGE_HEADER_BYTES: usize = 4;
const VERSION_BYTES: usize = 2;
/// Bytes of the random number.
pub(crate) const RANDOM_BYTES: usize = 32;
/// Bytes of a message that holds a random number, and plaintext bytes of a record.
const MESSAGE_BYTES_MIN: usize = MESSAGE_HEADER_BYTES + VERSION_BYTES + RANDOM_BYTES;
const MESSAGE_BYTES_MAX: usize = 16 << 10;
