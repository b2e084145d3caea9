//! The first frame of a connection, before a session knows it.

use super::frame::{Frame, kind, trace};
use super::header::{FRAME_BYTES_MAX, FrameError, HEADER_BYTES, Header};
use super::hello::Hello;

/// Reads the HELLO that a new connection starts with, however it is split.
///
/// It holds at most one frame. What follows the HELLO is left to the caller, who gives it to the session.
#[derive(Debug, Default)]
pub struct HelloReader {
    held: Vec<u8>,
}

impl HelloReader {
    /// Takes bytes of the connection; answers the HELLO once it is whole, and how many of `bytes` it used.
    ///
    /// Fails when the connection starts with anything but a HELLO.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<(Hello, usize)>, FrameError> {
        let before = self.held.len();
        let room = FRAME_BYTES_MAX.saturating_sub(before);
        self.held.extend(bytes.iter().take(room));
        let Some((head, body)) = self.held.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::decode(*head)?;
        if header.kind != kind::HELLO {
            return Err(FrameError::UnknownKind(header.kind));
        }
        let Some(body) = body.get(..header.len) else {
            return Ok(None);
        };
        trace("received", header, None);
        match Frame::decode(header, body)? {
            Frame::Hello(hello) => Ok(Some((hello, (HEADER_BYTES + header.len).saturating_sub(before)))),
            other => Err(FrameError::UnknownKind(other.kind())),
        }
    }
}
